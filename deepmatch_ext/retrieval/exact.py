"""Exact retrieval: the best items of every user by inner product, over the whole catalogue, in blocks.

``top_n`` is NumPy's, for evaluation; ``best_rows`` is TensorFlow's, for indexes and for graphs that are served.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import positive_int, problem

Seen = tuple[np.ndarray, np.ndarray]
"""Items that each of B rows has already had, in CSR form: ``(indptr (B + 1,), item ids)``.

Row ``b`` has had ``item_ids[indptr[b]:indptr[b + 1]]``, in any order. Repeats count once; id 0 (padding) is ignored.
"""


def top_n(
    user_vectors: np.ndarray,
    item_vectors: np.ndarray,
    n: int,
    *,
    exclude: Seen | None = None,
    block_size: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``n`` items with the largest inner product for every user, best first.

    Items whose computed scores are equal are ordered by id, lowest first, at the edge of the top N too, so the result
    is a pure function of the scores. The scores are float32 sums by the machine's BLAS: their last bit may differ
    between machines and between block sizes, and items that close may change places.

    Args:
        user_vectors: User vectors, (B, D), taken as float32.
        item_vectors: Item vectors, (V, D), taken as float32; row ``i`` belongs to item id ``i``. Row 0 is padding and
            is never returned.
        n: How many items to return, 1..V-1.
        exclude: The items that a user must not get, ``(indptr (B + 1,), item ids)``. See ``Seen``.
        block_size: Users scored at once; the largest arrays held are (block_size, V).

    Returns:
        ``(ids, scores)``: (B, N) int64 and (B, N) float32. Where fewer than ``n`` items are left for a user, the rest
        of the row is id 0 with score -inf; `IdMap.decode` takes such rows.

    Raises:
        ValueError: The vectors are not finite or their shapes do not fit, ``n`` is out of 1..V-1, or ``exclude`` is
            not of the form described.

    Example:
        >>> import numpy as np
        >>> users = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> items = np.array([[9.0, 9.0], [1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])  # row 0 is padding
        >>> ids, scores = top_n(users, items, 2, exclude=(np.array([0, 1, 1]), np.array([3])))
        >>> ids
        array([[2, 1],
               [1, 2]])
    """
    user_vectors, item_vectors = check_vectors(user_vectors, item_vectors)
    rows, vocabulary_size = len(user_vectors), len(item_vectors)
    n, block_size = positive_int("`n`", n), positive_int("`block_size`", block_size)
    if n >= vocabulary_size:
        raise problem("`n`", f"be at most V - 1 = {vocabulary_size - 1}, the number of items", n)
    if exclude is not None:
        exclude = check_seen("`exclude`", exclude, rows, vocabulary_size)
    ids = np.empty((rows, n), dtype=np.int64)
    scores = np.empty((rows, n), dtype=np.float32)
    for start in range(0, rows, block_size):
        stop = min(start + block_size, rows)
        block = user_vectors[start:stop] @ item_vectors.T
        block[:, 0] = -np.inf
        if exclude is not None:
            block[seen_pairs(exclude, start, stop)] = -np.inf
        best = _largest(block, n)
        best_scores = np.take_along_axis(block, best, axis=1)
        # Each row of `best` is in the order of the ids, so a stable sort leaves ties with the lowest id first.
        order = np.argsort(-best_scores, axis=1, kind="stable")
        ids[start:stop] = np.take_along_axis(best, order, axis=1)
        scores[start:stop] = np.take_along_axis(best_scores, order, axis=1)
    ids[np.isneginf(scores)] = 0  # finite vectors have finite scores: -inf is padding or excluded
    return ids, scores


def _largest(scores: np.ndarray, n: int) -> np.ndarray:
    """The columns (b, n) of the n largest scores of each row, columns ascending; of equal ones, the lowest columns."""
    width = scores.shape[1]
    edge = np.partition(scores, width - n, axis=1)[:, width - n, None]  # (b, 1): the n-th largest of each row
    chosen = scores >= edge
    tied = np.flatnonzero(np.count_nonzero(chosen, axis=1) > n)
    if tied.size:  # several items share the n-th largest score and not all of them have room
        above = scores[tied] > edge[tied]
        equal = chosen[tied] & ~above
        room = n - np.count_nonzero(above, axis=1, keepdims=True)
        chosen[tied] = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room))
    return np.nonzero(chosen)[1].reshape(-1, n)


# Scores held at once by `best_rows`, and entries of item vectors that it has to make float32: blocks this large
# amortise the start of each operation, and 32 MB is little beside a catalogue that needs blocks.
_BLOCK_NUMBERS = 2**23
# Neighbouring items whose largest score is looked at before their own.
_GROUP = 16


def best_rows(
    users: Any,
    items: Any,
    n: Any,
    seen: Any = None,
    *,
    scales: Any = None,
    block_numbers: int = _BLOCK_NUMBERS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The rows of ``items`` with the ``n`` largest inner products for every user, best first: a function of tensors.

    It works eagerly, inside `tf.function`, and in a graph that is exported, with shapes known or unknown. The catalogue
    is scored in blocks and never sorted: of each block, the ``n`` groups of neighbours with the largest maximum hold
    its ``n`` best items. Rows of equal scores are in ascending order, at the edge of the best ``n`` too.

    Nothing is checked here: NaN in, nonsense out. `ExactIndex` checks.

    Args:
        users: User vectors, (B, D), float32.
        items: Item vectors, (V, D), float32, or another number type that is cast block by block.
        n: How many rows to return, a scalar; more than V is allowed.
        seen: The rows of ``items`` that each user must not get, (B, S) integers. What is no row is ignored, such as -1
            for padding.
        scales: What each item's scores are multiplied by, (V,) float32, for vectors kept as integers. None: nothing.
        block_numbers: About how many scores are held at once, and of vectors that are cast, how many entries.

    Returns:
        ``(rows, scores)``: (B, n) int32 and (B, n) float32. Where fewer than ``n`` items are left for a user, the rest
        of the row is -1 with score -inf.

    Example:
        >>> users, items = np.eye(2, dtype="float32"), np.array([[1, 3], [2, 2], [3, 1]], "float32")
        >>> rows, scores = best_rows(users, items, 2, seen=[[2], [-1]])
        >>> rows.numpy()
        array([[1, 0],
               [0, 1]], dtype=int32)
    """
    users, items, n = tf.cast(users, tf.float32), tf.convert_to_tensor(items), tf.cast(n, tf.int32)
    seen = None if seen is None else tf.cast(seen, tf.int64)
    batch, count = tf.shape(users)[0], tf.shape(items)[0]

    def merge(start: tf.Tensor, stop: tf.Tensor, rows: tf.Tensor, scores: tf.Tensor, group: int) -> Any:
        """The best of rows start..stop and of ``(rows, scores)``, which are of lower rows."""
        block = tf.matmul(users, tf.cast(items[start:stop], tf.float32), transpose_b=True)
        if scales is not None:
            block *= scales[start:stop]
        if seen is not None:
            places = seen - tf.cast(start, tf.int64)
            inside = tf.where((places >= 0) & (places < tf.cast(stop - start, tf.int64)))
            at = tf.stack([inside[:, 0], tf.gather_nd(places, inside)], axis=1)
            block = tf.tensor_scatter_nd_update(block, at, tf.fill(tf.shape(at)[:1], -np.inf))
        best, best_scores = _best_columns(block, n, group)
        rows, scores = tf.concat([rows, best + start], axis=1), tf.concat([scores, best_scores], axis=1)
        # Of equal scores top_k takes the first, so fillers (-1, -inf) stay before seen items, and low rows before high.
        scores, order = tf.math.top_k(scores, n)
        return tf.gather(rows, order, batch_dims=1), scores

    rows, scores = tf.fill([batch, n], -1), tf.fill([batch, n], np.float32(-np.inf))
    # Whole groups in the loop, the few items after them at the end.
    whole = count - count % _GROUP
    width = 1 if items.dtype == tf.float32 else tf.shape(items)[1]  # a block of float32 is no copy
    block = _GROUP * tf.maximum(block_numbers // (_GROUP * tf.maximum(batch, width)), 1)

    def body(start: tf.Tensor, rows: tf.Tensor, scores: tf.Tensor) -> Any:
        stop = tf.minimum(start + block, whole)
        return stop, *merge(start, stop, rows, scores, _GROUP)

    _, rows, scores = tf.while_loop(
        lambda start, *_: start < whole,
        body,
        (tf.constant(0), rows, scores),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None, None])),
        parallel_iterations=1,  # one block at a time
    )
    return merge(whole, count, rows, scores, 1)


def _best_columns(scores: tf.Tensor, n: tf.Tensor, group: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The columns (B, k) of the largest scores (B, k) of each row, k = n or all; of equal ones, the lowest first."""
    batch, width = tf.shape(scores)[0], tf.shape(scores)[1]
    if group == 1:
        values, columns = tf.math.top_k(scores, tf.minimum(n, width))
        return columns, values
    groups = tf.reshape(scores, [batch, width // group, group])
    _, best = tf.math.top_k(tf.reduce_max(groups, axis=2), tf.minimum(n, width // group))
    best = tf.sort(best, axis=1)  # so that columns ascend, and ties are as they should be
    kept = tf.gather(groups, best, batch_dims=1)  # (B, k, group)
    kept = tf.reshape(kept, [batch, tf.shape(best)[1] * group])
    values, at = tf.math.top_k(kept, tf.minimum(n, tf.shape(kept)[1]))
    return tf.gather(best, at // group, batch_dims=1) * group + at % group, values


# What evaluation shares with retrieval: the checks of ids, CSR lists and vectors.


def check_ids(
    what: str, values: Any, low: int, high: int | None = None, *, length: int | None = None, remedy: str = ""
) -> np.ndarray:
    """``values`` as int64 ids of shape (length,), each at least ``low`` and, if given, at most ``high``."""
    ids = np.asarray(values)
    if ids.ndim != 1 or (length is not None and len(ids) != length):
        shape = "be one-dimensional" if length is None else f"have shape ({length},)"
        raise problem(what, shape, f"shape {ids.shape}")
    if ids.size == 0:  # NumPy makes an empty list a float array
        return ids.astype(np.int64)
    if ids.dtype.kind not in "iu":
        raise problem(what, "hold integers", f"dtype {ids.dtype}")
    wrong = ids < low if high is None else (ids < low) | (ids > high)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        rule = f"be at least {low}" if high is None else f"be between {low} and {high}"
        got = f"{ids[first]} at position {first} ({np.count_nonzero(wrong)} out of range in all)"
        raise problem(what, rule, got, remedy)
    return ids.astype(np.int64, copy=False)


def check_seen(what: str, seen: Any, rows: int, vocabulary_size: int | None = None) -> Seen:
    """``seen`` as two int64 arrays in CSR form for ``rows`` rows, with ids in 0..vocabulary_size-1 if that is known."""
    if not isinstance(seen, tuple | list) or len(seen) != 2:
        raise problem(what, "be a pair (indptr, item ids)", f"{type(seen).__name__}")
    indptr = check_ids(f"the indptr of {what}", seen[0], 0, length=rows + 1)
    items = check_ids(f"the item ids of {what}", seen[1], 0, None if vocabulary_size is None else vocabulary_size - 1)
    if indptr[0] != 0 or indptr[-1] != len(items) or (indptr[1:] < indptr[:-1]).any():
        raise problem(
            f"the indptr of {what}",
            f"start at 0, never fall and end at the number of item ids, {len(items)}",
            f"{indptr[0]} first and {indptr[-1]} last" + (", falling" if (indptr[1:] < indptr[:-1]).any() else ""),
        )
    return indptr, items


def check_vectors(user_vectors: Any, item_vectors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as float32, (B, D) and (V, D), finite and such that every inner product is finite too."""
    users, largest_user = check_floats("`user_vectors`", ["(B, D)"], user_vectors)
    items, largest_item = check_floats("`item_vectors`", ["(V, D)"], item_vectors)
    if users.shape[1] != items.shape[1]:
        raise problem(
            "user_vectors and item_vectors", "have the same width D", f"shapes {users.shape} and {items.shape}"
        )
    if len(items) < 2:
        raise problem("`item_vectors`", "have a row of padding and at least one item", f"shape {items.shape}")
    if largest_user * largest_item * users.shape[1] > float(np.finfo(np.float32).max):
        got = f"entries as large as {largest_user:g} and {largest_item:g}"
        raise problem("user_vectors and item_vectors", "have inner products within float32", got, "Scale them down.")
    return users, items


def check_floats(what: str, shapes: list[str], values: Any) -> tuple[np.ndarray, float]:
    """``values`` as finite float32 of one of the shapes, such as "(V, D)", and the largest absolute value in it."""
    vectors = np.asarray(values)
    if vectors.ndim not in [shape.count(",") + 1 for shape in shapes] or vectors.shape[-1] == 0:
        raise problem(what, f"have shape {' or '.join(shapes)}", f"shape {vectors.shape}")
    if vectors.dtype.kind not in "iuf":
        raise problem(what, "hold numbers", f"dtype {vectors.dtype}")
    with np.errstate(over="ignore"):  # too large for float32 becomes inf, which is refused below
        vectors = vectors.astype(np.float32, copy=False)
    if vectors.size == 0:
        return vectors, 0.0
    largest = max(-float(vectors.min()), float(vectors.max()))  # min and max hand NaN on
    if not np.isfinite(largest):
        first = tuple(np.argwhere(~np.isfinite(vectors))[0].tolist())
        where = ", ".join(f"{axis} {at}" for axis, at in zip(_AXES[vectors.ndim], first, strict=True))
        raise problem(what, "be finite", f"{vectors[first]} at {where}")
    return vectors, largest


_AXES = {2: ("row", "column"), 3: ("row", "vector", "column")}


def seen_rows(seen: Seen, rows: np.ndarray) -> Seen:
    """The given rows, in their order."""
    indptr, items = seen
    lengths = np.diff(indptr)[rows]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return ends, items[np.repeat(indptr[rows] - ends[:-1], lengths) + np.arange(ends[-1])]


def seen_pairs(seen: Seen, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The entries of rows start..stop as (row - start, item id), repeats included."""
    indptr, items = seen
    bounds = indptr[start : stop + 1]
    return np.repeat(np.arange(stop - start), np.diff(bounds)), items[bounds[0] : bounds[-1]]
