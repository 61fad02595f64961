"""Pooling of a history: B examples, T positions (most recent first), D embedding size."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import as_flag, number_between, one_of, positive_int, problem
from deepmatch_ext._keras import compute_dtype, keras, register

MODES = ("mean", "sum", "max", "sqrtn", "last")
_TINY = 1e-9
_MASKED = -1e30


class HistoryPooling(keras.layers.Layer):
    """The base class of the pooling layers: arguments, and the weights and norms of the modes."""

    def __init__(
        self, mode: str = "mean", keepdims: bool = False, recency_decay: float = 0.0, nth: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.mode = one_of("`mode`", mode, MODES)
        self.nth = positive_int("`nth`", nth)
        if self.nth > 1 and mode != "last":
            raise problem("`nth`", f"be 1 with mode {mode!r}, which does not pick an item", nth)
        self.keepdims = as_flag("`keepdims`", keepdims)
        self.recency_decay = number_between("`recency_decay`", recency_decay, 0, float("inf"))
        if self.recency_decay and mode in ("max", "last"):
            raise problem("`recency_decay`", f"be 0 with mode {mode!r}, which has no weights", recency_decay)

    def _pool_padded(self, embeddings: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        """Pools the valid (B, T) embeddings (B, T, D) into (B, D), in float32."""
        values = tf.where(valid[:, :, tf.newaxis], tf.cast(embeddings, tf.float32), 0.0)
        if self.mode == "max":
            lowest = tf.where(valid[:, :, tf.newaxis], values, values.dtype.min)
            return tf.where(tf.reduce_any(valid, axis=1, keepdims=True), tf.reduce_max(lowest, axis=1), 0.0)
        rank = tf.cumsum(tf.cast(valid, tf.int32), axis=1, exclusive=True)
        if self.mode == "last":
            return weighted_sum(values, tf.cast(valid & tf.equal(rank, self.nth - 1), tf.float32))
        weights = tf.cast(valid, tf.float32) * recency_weights(rank, self.recency_decay)
        norm = tf.reduce_sum(self._norm_term(weights), axis=1, keepdims=True)
        return self._normalised(weighted_sum(values, weights), norm)

    def _norm_term(self, weights: tf.Tensor) -> tf.Tensor:
        """The term whose sum over a history's positions `_normalised` takes."""
        return tf.square(weights) if self.mode == "sqrtn" else weights

    def _normalised(self, total: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
        """The weighted sum (B, D), normalised as the mode requires; ``norm`` is (B, 1)."""
        if self.mode == "mean":
            return total / (norm + _TINY)
        if self.mode == "sqrtn":
            return total / (tf.sqrt(norm) + _TINY)
        return total

    def _finish(self, pooled: tf.Tensor) -> tf.Tensor:
        return tf.cast(pooled[:, tf.newaxis] if self.keepdims else pooled, compute_dtype(self))

    def _output_shape(self, batch: int | None, dim: int | None) -> tuple[int | None, ...]:
        return (batch, 1, dim) if self.keepdims else (batch, dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "mode": self.mode,
            "keepdims": self.keepdims,
            "recency_decay": self.recency_decay,
            "nth": self.nth,
        }


@register
class SequenceMaskPooling(HistoryPooling):
    """Pools the valid positions of a history into one vector.

    With e_k the embedding at the valid position of rank k (0: the most recent) and w_k = (k + 1) ** -recency_decay:

    ======== =====================================================================
    mode     result
    ======== =====================================================================
    mean     sum(w_k e_k) / sum(w_k); the plain masked mean without a decay
    sum      sum(w_k e_k)
    sqrtn    sum(w_k e_k) / sqrt(sum(w_k ** 2)), as in ``tf.nn.embedding_lookup_sparse``
    max      the largest value in each of the D dimensions
    last     e_(nth - 1): the nth valid position; the first, by default, is the most recent item
    ======== =====================================================================

    The mean is that of a DeepMatch-style YoutubeDNN: lengths (B, 1) -> sequence mask (B, 1, T) -> transposed (B, T, 1)
    -> times the embedding, summed over T, divided by the length + 1e-9. An empty history gives zeros in every mode.
    Values at masked positions, even NaN, have no effect. Sums are taken in float32 under every policy.

    Args:
        mode: One of mean, sum, max, sqrtn, last.
        keepdims: Return (B, 1, D), as DeepCTR's pooling does, instead of (B, D).
        recency_decay: At least 0. The valid position of rank k has the weight ``(k + 1) ** -recency_decay``: 0 gives
            all the same weight, 1 gives the weights 1, 1/2, 1/3 ... For mean, sum and sqrtn only.
        nth: For last only: which item, 1 being the most recent; a shorter history gives zeros.

    Input, one of:
        - ``[embeddings (B, T, D), lengths (B, 1) or (B,)]``, integer lengths; one above T counts as T.
        - ``[embeddings (B, T, D), mask (B, T)]``: positions that are neither 0 nor False are valid.
        - ``embeddings (B, T, D)`` with a Keras mask, or with ``mask=(B, T)`` in the call; without a mask, all
          positions are valid.

    Output: (B, D), or (B, 1, D) with ``keepdims``, in the layer's compute dtype.

    Raises:
        ValueError: An unknown mode, a negative decay, or a ``recency_decay`` or ``nth`` that the mode does not use.

    Example:
        >>> history = tf.constant([[[4.0], [2.0], [9.0]]])
        >>> SequenceMaskPooling("mean")([history, tf.constant([[2]])]).numpy()
        array([[3.]], dtype=float32)
        >>> pooling = SequenceMaskPooling("mean", recency_decay=1.0)  # (4 + 2/2) / (1 + 1/2)
        >>> pooling([history, tf.constant([[2]])]).numpy()
        array([[3.3333333]], dtype=float32)
    """

    def __init__(
        self, mode: str = "mean", keepdims: bool = False, recency_decay: float = 0.0, nth: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(mode, keepdims, recency_decay, nth, **kwargs)
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> tf.Tensor:
        embeddings, valid = _embeddings_and_mask(inputs, mask)
        return self._finish(self._pool_padded(embeddings, valid))

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        batch, _, dim = input_shape[0] if isinstance(input_shape[0], list | tuple) else input_shape
        return self._output_shape(batch, dim)


def weighted_sum(rows: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """(B, D): the sum of each example's rows (B, T, D), times their weights (B, T)."""
    return tf.squeeze(tf.matmul(weights[:, tf.newaxis], rows), axis=1)  # half the time of ``tf.einsum``


def recency_weights(rank: tf.Tensor, recency_decay: float) -> tf.Tensor:
    """``(rank + 1) ** -recency_decay`` in float32; the most recent item has rank 0."""
    if not recency_decay:
        return tf.ones_like(rank, tf.float32)
    return tf.cast(rank + 1, tf.float32) ** -recency_decay


def valid_positions(second: tf.Tensor, max_len: Any) -> tf.Tensor:
    """Booleans (B, T) from lengths (B, 1) or (B,), or from a mask (B, T) of any type."""
    if second.dtype == tf.bool or (second.shape.rank == 2 and second.shape[1] not in (1, None)):
        return tf.cast(second, tf.bool)
    if second.shape.rank == 2 and second.shape[1] is None:  # only the values' own shape tells
        is_mask = tf.equal(tf.shape(second)[1], max_len)
        return tf.cond(is_mask, lambda: tf.cast(second, tf.bool), lambda: _up_to(second, max_len))
    return _up_to(second, max_len)


def _up_to(lengths: tf.Tensor, max_len: Any) -> tf.Tensor:
    valid = tf.sequence_mask(tf.cast(tf.reshape(lengths, [-1, 1]), tf.int32), max_len)  # (B, 1, T)
    return tf.transpose(valid, [0, 2, 1])[:, :, 0]


def _embeddings_and_mask(inputs: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """(B, T, D) embeddings and (B, T) booleans from any of the call forms."""
    if isinstance(inputs, list | tuple):
        embeddings, second = inputs
        return embeddings, valid_positions(second, tf.shape(embeddings)[1])
    if mask is None:
        return inputs, tf.ones(tf.shape(inputs)[:2], tf.bool)
    return inputs, tf.cast(mask, tf.bool)


@register
class PaddingMask(keras.layers.Layer):
    """Which positions of a history hold an item: all except those with id 0, which may be anywhere in the history.

    Input: ids (B, T); or a list of them, and a position counts if none of its ids is 0. Output: booleans (B, T).

    Example:
        >>> PaddingMask()(tf.constant([[7, 0, 5]])).numpy()
        array([[ True, False,  True]])
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "int64")  # no precision policy may change ids
        super().__init__(**kwargs)

    def call(self, ids: Any) -> tf.Tensor:
        # Keras has to infer the output: given only a shape, it would assume integers.
        several = list(ids) if isinstance(ids, list | tuple) else [ids]
        return functools.reduce(tf.logical_and, map(item_mask, several))


class IdLayer(keras.layers.Layer):
    """The base class of layers that take ids: precision policies change neither ids nor the values beside them."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "int64")  # no precision policy may change ids
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)


@register
class HistoryItems(IdLayer):
    """A history's first n items, where n is its length; further items become 0.

    Id 0 is not an item and does not count towards the length: ``[0, 7, 0, 5]`` of length 2 has the items 7 and 5. So
    padding may come first or last, and unknown items, id 0, are left out.

    Input: ``[ids (B, T), lengths (B, 1)]``. Output: ids (B, T).

    Example:
        >>> HistoryItems()([tf.constant([[0, 7, 0, 5], [4, 3, 2, 1]]), tf.constant([[2], [3]])]).numpy()
        array([[0, 7, 0, 5],
               [4, 3, 2, 0]], dtype=int32)
    """

    def call(self, inputs: Any) -> tf.Tensor:
        ids, lengths = inputs
        is_item = item_mask(ids)
        lengths = tf.cast(tf.reshape(lengths, [-1, 1]), tf.int32)

        def cut() -> tf.Tensor:
            number = tf.cumsum(tf.cast(is_item, tf.int32), axis=1)
            return tf.where(number <= lengths, ids, tf.zeros([], ids.dtype))

        # If lengths and ids agree, as they nearly always do in a whole batch, a count is enough.
        fits = tf.reduce_all(item_counts(is_item) <= lengths)
        return tf.ensure_shape(tf.cond(fits, lambda: tf.identity(ids), cut), ids.shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]


@register
class ItemsInFront(IdLayer):
    """A history's items moved to its first positions, in their order, with the padding behind them.

    Padding may be anywhere in the input; in the output, position t is the t-th item.

    Input: ids (B, T); or a list of ids and other values of each position, (B, T, ...). Output: the same, reordered.

    Example:
        >>> ItemsInFront()(tf.constant([[0, 7, 0, 5], [4, 3, 0, 0]])).numpy()
        array([[7, 5, 0, 0],
               [4, 3, 0, 0]], dtype=int32)
    """

    def call(self, inputs: Any) -> Any:
        several = isinstance(inputs, list | tuple)
        values = list(inputs) if several else [inputs]
        is_item = item_mask(values[0])

        def moved() -> list[tf.Tensor]:
            order = tf.argsort(tf.cast(~is_item, tf.int32), axis=1, stable=True)
            return [tf.gather(each, order, axis=1, batch_dims=1) for each in values]

        # Nearly always there is nothing to move.
        has_gap = tf.reduce_any(is_item[:, 1:] & ~is_item[:, :-1])
        found = tf.cond(has_gap, moved, lambda: [tf.identity(each) for each in values])
        found = [tf.ensure_shape(each, given.shape) for each, given in zip(found, values, strict=True)]
        return found if several else found[0]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def item_mask(ids: tf.Tensor) -> tf.Tensor:
    """Which ids (B, T) are an item's: all but 0, or for strings, all but "0" and ""."""
    if ids.dtype == tf.string:
        return tf.not_equal(ids, "0") & tf.not_equal(ids, "")
    return tf.not_equal(ids, tf.zeros([], ids.dtype))


def item_counts(is_item: tf.Tensor) -> tf.Tensor:
    """How many items each history has, (B, 1) int32, from booleans (B, T)."""
    return tf.reduce_sum(tf.cast(is_item, tf.int32), axis=1, keepdims=True)


@register
class SequenceWeighting(keras.layers.Layer):
    """Multiplies each position's embedding by its weight, as DeepCTR's ``WeightedSequenceLayer`` does.

    Args:
        weight_norm: Whether the weights first go through a softmax over the valid positions.

    Input: ``[embeddings (B, T, D), lengths (B, 1) or mask (B, T), weights (B, T, 1)]``. Output: (B, T, D).

    Example:
        >>> rows, lengths = tf.constant([[[4.0], [2.0]]]), tf.constant([[2]])
        >>> SequenceWeighting(weight_norm=False)([rows, lengths, tf.constant([[[0.5], [2.0]]])]).numpy()[0, :, 0]
        array([2., 4.], dtype=float32)
    """

    def __init__(self, weight_norm: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weight_norm = as_flag("`weight_norm`", weight_norm)

    def call(self, inputs: Any) -> tf.Tensor:
        embeddings, valid = _embeddings_and_mask(inputs[:2], None)
        weights = tf.cast(inputs[2], tf.float32)
        valid = valid[:, :, tf.newaxis]
        if self.weight_norm:
            weights = tf.nn.softmax(tf.where(valid, weights, _MASKED), axis=1)
        else:
            weights = tf.where(valid, weights, 0.0)
        return tf.cast(tf.cast(embeddings, tf.float32) * weights, compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight_norm": self.weight_norm}


POOLINGS: dict[str, Any] = {}
"""The poolings that a column's ``combiner`` may name besides the modes: name -> a layer's class.

The layer pools ``[rows (B, T, D), valid (B, T)]`` into (B, d). Its only arguments are a name, and a ``seed`` if it
takes one.
"""


def combiner_poolings(column_name: str, combiner: str) -> list[tuple[Any, dict[str, Any]]]:
    """The layers that a column's ``combiner`` stands for: classes, and their arguments.

    ``mean``, ``sum`` and ``max`` are DeepCTR's, ``sqrtn`` and ``last`` the modes of `SequenceMaskPooling`. ``recency``
    is the mean weighted by 1/rank, and ``recency:0.5`` the mean weighted by 1/rank ** 0.5. ``last:2`` is the second
    most recent item. Other names are those of `POOLINGS`. Several names are joined by ``+``, and their results are
    concatenated: ``recency+last``.

    Raises:
        ValueError: An unknown name, a decay that is not above 0, or an item number below 1.

    Example:
        >>> [arguments for _, arguments in combiner_poolings("hist_item", "recency:0.5+last")]
        [{'mode': 'mean', 'recency_decay': 0.5}, {'mode': 'last'}]
    """
    poolings: list[tuple[Any, dict[str, Any]]] = []
    for part in str(combiner).split("+"):
        name, colon, number = part.strip().partition(":")
        if name == "recency":
            try:
                decay = float(number) if colon else 1.0
            except ValueError:
                decay = -1.0
            if not 0 < decay < float("inf"):
                raise problem(f"`combiner` of column {column_name!r}", "have a decay above 0 after `recency:`", part)
            poolings.append((SequenceMaskPooling, {"mode": "mean", "recency_decay": decay}))
        elif name == "last" and colon:
            if not number.strip().isdecimal() or not int(number):
                raise problem(f"`combiner` of column {column_name!r}", "have an integer above 0 after `last:`", part)
            poolings.append((SequenceMaskPooling, {"mode": "last", "nth": int(number)}))
        elif name in MODES and not colon:
            poolings.append((SequenceMaskPooling, {"mode": name}))
        elif name in POOLINGS and not colon:
            poolings.append((POOLINGS[name], {}))
        else:
            allowed = ", ".join([*MODES, *POOLINGS])
            rule = f"be one of {allowed}, recency, recency:DECAY, last:NTH, or several of them joined by `+`"
            raise problem(f"`combiner` of column {column_name!r}", rule, combiner)
    return poolings
