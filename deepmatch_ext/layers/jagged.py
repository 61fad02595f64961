"""Pooling without padding: a batch's histories as their unique ids and the positions of each.

A (B, T, D) tensor is never built: an id that occurs a hundred times in a batch is looked up once, and its gradient is
summed before it reaches the table. B examples, T positions, N items in the batch, U unique ids among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from deepmatch_ext._keras import keras, register
from deepmatch_ext._traced import traced_once
from deepmatch_ext.layers.pooling import HistoryPooling, item_mask, recency_weights

_PADDED = ContextVar("padded", default=False)


@contextmanager
def padded_pooling() -> Iterator[None]:
    """Models that are traced within the block pool padded rows, (B, T, D), as `SequenceMaskPooling` does.

    For exports: runtimes other than TensorFlow's have no sparse matrices, and some fail if no history has an item.
    `JaggedIds` then returns the ids (B, T) and which of them are items (B, T), and `JaggedPooling` takes these.
    """
    token = _PADDED.set(True)
    try:
        yield
    finally:
        _PADDED.reset(token)


def is_padded() -> bool:
    """Whether models that are traced now pool padded rows; see `padded_pooling`."""
    return _PADDED.get()


@register
class JaggedIds(keras.layers.Layer):
    """The items of a batch of histories: the unique ids, and the positions of each.

    Id 0 is padding and is left out wherever it occurs.

    Input: ids (B, T).

    Output: ``unique_ids`` (U,) in the ids' type; ``index`` (N,) int64, the place of each item's id in ``unique_ids``;
    ``row`` (N,) int64, the example of each item, ascending; ``rank`` (N,) int64, the number of items before it in its
    history; and ``num_rows`` () int64, B. A table looks up ``unique_ids``; `JaggedPooling` takes its rows and the rest.

    Example:
        >>> unique_ids, index, row, rank, num_rows = JaggedIds()(tf.constant([[7, 0, 5], [5, 0, 0]]))
        >>> unique_ids.numpy().tolist(), index.numpy().tolist(), row.numpy().tolist(), rank.numpy().tolist()
        ([7, 5], [0, 1, 1], [0, 0, 1], [0, 1, 0])
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "int64")  # no precision policy may change ids
        super().__init__(**kwargs)
        self.supports_jit = False  # how many ids are different is not known beforehand

    def call(self, ids: tf.Tensor) -> tuple[tf.Tensor, ...]:
        valid, num_rows = item_mask(ids), tf.shape(ids, out_type=tf.int64)[0]
        if _PADDED.get():
            return ids, valid, valid, valid, num_rows
        places, row, rank = _places(valid)
        unique_ids, index = tf.unique(tf.gather_nd(ids, places), out_idx=tf.int64)
        return unique_ids, index, row, rank, num_rows

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None,), (None,), (None,), (None,), ()


@traced_once(2)
def _places(valid: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where the items of histories are, from booleans (B, T): (N, 2), the row of each, and its rank there."""
    places = tf.where(valid)
    row = places[:, 0]
    first = tf.cumsum(tf.reduce_sum(tf.cast(valid, tf.int64), axis=1), exclusive=True)
    return places, row, tf.range(tf.shape(row, out_type=tf.int64)[0]) - tf.gather(first, row)


@register
class JaggedPooling(HistoryPooling):
    """`SequenceMaskPooling` of what `JaggedIds` returns: the same modes and results, without a (B, T, D) tensor.

    Args:
        mode, keepdims, recency_decay, nth: As in `SequenceMaskPooling`.

    Input: ``[rows (U, D), index (N,), row (N,), rank (N,), num_rows ()]``: the rows of the unique ids, and the rest
    of what `JaggedIds` returned.

    Output: (B, D), or (B, 1, D) with ``keepdims``, in the layer's compute dtype.

    Example:
        >>> unique_ids, *places = JaggedIds()(tf.constant([[7, 0, 5], [5, 0, 0]]))  # the ids 7 and 5
        >>> JaggedPooling("mean")([tf.constant([[1.0], [3.0]]), *places]).numpy()
        array([[2.],
               [3.]], dtype=float32)
    """

    def call(self, inputs: Any) -> tf.Tensor:
        rows, index, row, rank, num_rows = inputs
        if _PADDED.get():
            return self._finish(self._pool_padded(rows, index))
        pooled = self._pool(tf.cast(rows, tf.float32), index, row, rank, num_rows)
        pooled = tf.ensure_shape(pooled, (None, rows.shape[-1]))
        return self._finish(pooled)

    def _pool(
        self, rows: tf.Tensor, index: tf.Tensor, row: tf.Tensor, rank: tf.Tensor, num_rows: tf.Tensor
    ) -> tf.Tensor:
        if self.mode == "max":
            largest = tf.math.unsorted_segment_max(tf.gather(rows, index), row, num_rows)
            return tf.where(largest > largest.dtype.min, largest, 0.0)  # an empty history has no largest
        if self.mode == "last":
            first = tf.where(tf.equal(rank, self.nth - 1))[:, 0]
            row, index = tf.gather(row, first), tf.gather(index, first)
            return _weighted_sum(rows, index, row, tf.ones_like(row, tf.float32), num_rows)
        # Without a decay all weights are 1 and only their shape matters: `row` has it, so ranks are not needed.
        weights = recency_weights(rank if self.recency_decay else row, self.recency_decay)
        norm = _sums(self._norm_term(weights), row, num_rows)
        return self._normalised(_weighted_sum(rows, index, row, weights, num_rows), norm)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return self._output_shape(None, input_shape[0][-1])


@traced_once(1, 1, 0)
def _sums(values: tf.Tensor, row: tf.Tensor, num_rows: tf.Tensor) -> tf.Tensor:
    """The sum of each row's values (N,), the rows ascending, as (B, 1)."""
    sums = tf.math.segment_sum(values, row)  # half the time of the unsorted one, but without empty rows at the end
    return tf.pad(sums, [[0, num_rows - tf.shape(sums, out_type=tf.int64)[0]]])[:, tf.newaxis]


@traced_once(2, 1, 1, 1, 0)
def _weighted_sum(
    rows: tf.Tensor, index: tf.Tensor, row: tf.Tensor, weights: tf.Tensor, num_rows: tf.Tensor
) -> tf.Tensor:
    """A sparse (B, U) matrix of weights times the rows (U, D), and its transpose times the gradient.

    In the compressed row format: seven times as fast as ``tf.sparse.sparse_dense_matmul`` forward, five backward.
    """
    # If there is nothing to multiply, TensorFlow 2.15 divides by the number of rows and kills the process, so a zero is
    # put in. The branches choose the inputs, not the product: a sparse matrix that is passed to a branch can be saved
    # in a SavedModel, but not loaded.
    has_values = tf.size(index) > 0
    nothing = tf.zeros([1], tf.int64)
    row, index, weights = tf.cond(has_values, lambda: (row, index, weights), lambda: (nothing, nothing, tf.zeros([1])))
    # An item that a history has twice makes two values in one place. A GPU refuses more values than places, which a
    # batch of one user can have, so the matrix then gets more rows, of zeros.
    width = tf.maximum(tf.shape(rows, out_type=tf.int64)[0], 1)
    height = tf.maximum(tf.maximum(num_rows, 1), -(-tf.size(index, out_type=tf.int64) // width))

    places, shape = tf.stack([row, index], axis=1), tf.stack([height, width])

    def matrix() -> tf.Tensor:
        # Made where it is used: a SavedModel can't hold one that a gradient captures.
        return tf.raw_ops.SparseTensorToCSRSparseMatrix(indices=places, values=weights, dense_shape=shape)

    def of_height(dense: tf.Tensor, least: tf.Tensor) -> tf.Tensor:
        missing = least - tf.shape(dense, out_type=tf.int64)[0]
        return tf.cond(missing > 0, lambda: tf.pad(dense, [[0, missing], [0, 0]]), lambda: dense)

    @tf.custom_gradient
    def product(rows: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            transposed = tf.raw_ops.SparseMatrixTranspose(input=matrix(), conjugate=False, type=tf.float32)
            grad = tf.raw_ops.SparseMatrixMatMul(a=transposed, b=of_height(upstream, height))
            return grad[: tf.shape(rows)[0]]

        pooled = tf.raw_ops.SparseMatrixMatMul(a=matrix(), b=of_height(rows, width))
        return pooled[:num_rows], gradient

    return product(rows)
