"""Exact retrieval: the best items of every user by inner product, over the whole catalogue, in blocks.

``top_n`` uses NumPy, for evaluation; ``best_rows`` uses TensorFlow, for indexes and for graphs that are served.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._arrays import Seen, check_among, check_seen, check_vectors, seen_pairs
from deepmatch_ext._checks import positive_int, problem
from deepmatch_ext._interests import best_scores


def top_n(
    user_vectors: np.ndarray,
    item_vectors: np.ndarray,
    n: int,
    *,
    exclude: Seen | None = None,
    among: Any | None = None,
    block_size: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``n`` items with the largest inner product for every user, best first.

    Items with equal scores are ordered by id, lowest first, also where the list is cut off, so the result is a pure
    function of the scores. The scores are float32 sums by the machine's BLAS: their last bit may differ between
    machines and between block sizes, so items with nearly equal scores may change places.

    Args:
        user_vectors: User vectors, (B, D), taken as float32; or (B, K, D) for K interests: an item's score is then the
            largest of its K inner products. A zero vector is ignored if the user has others.
        item_vectors: Item vectors, (V, D), taken as float32; row ``i`` belongs to item id ``i``. Row 0 is padding and
            is never returned.
        n: How many items to return, 1..V-1.
        exclude: The ids of items that a user must not get, ``(indptr (B + 1,), ids)``: user k must not get
            ``ids[indptr[k]:indptr[k + 1]]``.
        among: The items that may be returned, such as those in stock: ids (m,) for all users; or, as in ``exclude``, a
            pair ``(indptr (B + 1,), item ids)`` with a set for each user, which may be empty. Id 0 is ignored. None:
            all items.
        block_size: Users scored at once; the largest arrays in memory are (block_size, V), for any K.

    Returns:
        ``(ids, scores)``: (B, N) int64 and (B, N) float32. If fewer than ``n`` items are left for a user, the row is
        padded with id 0 and score -inf; `IdMap.decode` takes such rows.

    Raises:
        ValueError: The vectors are not finite or their shapes do not fit, ``n`` is out of 1..V-1, ``exclude`` or
            ``among`` is not of the form described, or ``among`` has no item for all users.

    Example:
        >>> import numpy as np
        >>> users = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> items = np.array([[9.0, 9.0], [1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])  # row 0 is padding
        >>> ids, scores = top_n(users, items, 2, exclude=(np.array([0, 1, 1]), np.array([3])))
        >>> ids
        array([[2, 1],
               [1, 2]])
        >>> top_n(users, items, 2, among=[1, 3])[0]
        array([[3, 1],
               [1, 3]])
        >>> top_n(users[np.newaxis], items, 2)[1]  # one user with two interests
        array([[3., 3.]], dtype=float32)
    """
    user_vectors, item_vectors = check_vectors(user_vectors, item_vectors)
    rows, vocabulary_size = len(user_vectors), len(item_vectors)
    n, block_size = positive_int("`n`", n), positive_int("`block_size`", block_size)
    if n >= vocabulary_size:
        raise problem("`n`", f"be at most V - 1 = {vocabulary_size - 1}, the number of items", n)
    exclude = None if exclude is None else check_seen("`exclude`", exclude, rows, vocabulary_size)
    among = None if among is None else check_among("`among`", among, rows, vocabulary_size)
    columns = among if isinstance(among, np.ndarray) else np.arange(1, vocabulary_size)  # the ids that are scored
    place = np.full(vocabulary_size, -1)  # of each id among the columns
    place[columns] = np.arange(len(columns))
    candidates = item_vectors[columns] if isinstance(among, np.ndarray) else item_vectors[1:]
    ids = np.zeros((rows, n), dtype=np.int64)
    scores = np.full((rows, n), -np.inf, dtype=np.float32)
    width = min(n, len(columns))
    for start in range(0, rows, block_size):
        stop = min(start + block_size, rows)
        block = best_scores(user_vectors[start:stop], candidates)
        if isinstance(among, tuple):
            allowed = np.zeros(block.shape, bool)
            allowed[_places(among, start, stop, place)] = True
            block[~allowed] = -np.inf
        if exclude is not None:
            block[_places(exclude, start, stop, place)] = -np.inf
        best = _largest(block, width)
        found = np.take_along_axis(block, best, axis=1)
        # Each row of `best` is in the order of the ids, so a stable sort leaves ties with the lowest id first.
        order = np.argsort(-found, axis=1, kind="stable")
        ids[start:stop, :width] = columns[np.take_along_axis(best, order, axis=1)]
        scores[start:stop, :width] = np.take_along_axis(found, order, axis=1)
    ids[np.isneginf(scores)] = 0  # finite vectors have finite scores: -inf is padding or left out
    return ids, scores


def _places(seen: Seen, start: int, stop: int, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entries of rows start..stop as (row - start, column), without those that have no column."""
    owners, items = seen_pairs(seen, start, stop)
    columns = place[items]
    return owners[columns >= 0], columns[columns >= 0]


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
# Vectors of users scored at once. Few: the blocks of items are long then, and fewer of their best are merged.
USERS_AT_ONCE = 64
# Neighbouring items whose largest score is looked at before their own.
_GROUP = 16


def best_rows(
    users: Any,
    items: Any,
    n: Any,
    seen: Any = None,
    *,
    among: Any = None,
    scales: Any = None,
    block_numbers: int = _BLOCK_NUMBERS,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The rows of ``items`` with the ``n`` largest inner products for every user, best first: a function of tensors.

    It works eagerly, inside `tf.function`, and in an exported graph, with known or unknown shapes. The catalogue is
    scored in blocks and never sorted: the ``n`` groups of neighbours with the largest maximum hold the ``n`` best items
    of a block. Rows with equal scores are in ascending order, also where the list is cut off.

    Nothing is checked here: with NaN the result is meaningless. `ExactIndex` checks.

    Args:
        users: User vectors, (B, D), float32; or (B, K, D) for K interests, as in `top_n`.
        items: Item vectors, (V, D), float32, or another number type, which is cast block by block.
        n: How many rows to return, a scalar; more than V is allowed.
        seen: The rows of ``items`` that each user must not get, (B, S) integers. Numbers that are not a row are
            ignored, such as -1 for padding.
        among: Which rows of ``items`` all users may get, (V,) bool; or the rows that each user may get, (B, S)
            integers, padded in the same way. None: all.
        scales: Factors of each item's scores, (V,) float32, for vectors that are stored as integers. None: no factors.
        block_numbers: The number of scores, and of entries of cast vectors, in memory at once, roughly.

    Returns:
        ``(rows, scores)``: (B, n) int32 and (B, n) float32. If fewer than ``n`` items are left for a user, the row is
        padded with -1 and score -inf.

    Example:
        >>> users, items = np.eye(2, dtype="float32"), np.array([[1, 3], [2, 2], [3, 1]], "float32")
        >>> rows, scores = best_rows(users, items, 2, seen=[[2], [-1]])
        >>> rows.numpy()
        array([[1, 0],
               [0, 1]], dtype=int32)
    """
    users, items, n = tf.cast(users, tf.float32), tf.convert_to_tensor(items), tf.cast(n, tf.int32)
    seen = None if seen is None else tf.cast(seen, tf.int64)
    if among is not None:
        among = tf.convert_to_tensor(among)
        among = among if among.dtype == tf.bool else tf.cast(among, tf.int64)
    batch, count = tf.shape(users)[0], tf.shape(items)[0]
    has_interests = users.shape.rank == 3
    if has_interests:
        interests, users = tf.shape(users)[1], tf.reshape(_without_zeros(users), [-1, tf.shape(users)[2]])

    def merge(start: tf.Tensor, stop: tf.Tensor, rows: tf.Tensor, scores: tf.Tensor, group: int) -> Any:
        """The best of rows start..stop and of ``(rows, scores)``, which are of lower rows."""
        block = tf.matmul(users, tf.cast(items[start:stop], tf.float32), transpose_b=True)
        if scales is not None:
            block *= scales[start:stop]
        if has_interests:  # the best of K, as in `best_scores`
            block = tf.reduce_max(tf.reshape(block, [batch, interests, stop - start]), axis=1)
        if among is not None and among.dtype == tf.bool:
            block += tf.where(among[start:stop], np.float32(0), np.float32(-np.inf))
        elif among is not None:
            at = _entries(among, start, stop)
            allowed = tf.tensor_scatter_nd_update(tf.zeros_like(block, tf.bool), at, tf.fill(tf.shape(at)[:1], True))
            block = tf.where(allowed, block, -np.inf)
        if seen is not None:
            at = _entries(seen, start, stop)
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
    block = _GROUP * tf.maximum(block_numbers // (_GROUP * tf.maximum(tf.shape(users)[0], width)), 1)

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


def _entries(rows: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
    """Of rows (B, S), those within start..stop as (k, 2): user and row - start."""
    places = rows - tf.cast(start, tf.int64)
    inside = tf.where((places >= 0) & (places < tf.cast(stop - start, tf.int64)))
    return tf.stack([inside[:, 0], tf.gather_nd(places, inside)], axis=1)


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


def _without_zeros(users: tf.Tensor) -> tf.Tensor:
    """Vectors (B, K, D), in which zeros become the user's first other vector, if there is one: see `check_users`."""
    is_interest = tf.reduce_any(tf.not_equal(users, 0), axis=2)
    first = tf.gather(users, tf.argmax(tf.cast(is_interest, tf.int32), axis=1), batch_dims=1)
    return tf.where(is_interest[:, :, tf.newaxis], users, first[:, tf.newaxis])


@cache
def _compiled(rank: int, given: tuple[str, ...], of_each: bool) -> Any:
    """`best_rows` of users of a rank, traced once: numbers of users, items and interests may differ by the call."""
    vectors, rows = tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None, None], tf.int32)
    specs = {"seen": rows, "among": rows if of_each else tf.TensorSpec([None], tf.bool)}
    signature = [tf.TensorSpec([None] * rank, tf.float32), vectors, tf.TensorSpec([], tf.int32)]
    functions: dict[tuple[str, ...], Callable[..., Any]] = {
        (): lambda users, items, n: best_rows(users, items, n),
        ("seen",): lambda users, items, n, seen: best_rows(users, items, n, seen),
        ("among",): lambda users, items, n, among: best_rows(users, items, n, among=among),
        ("seen", "among"): lambda users, items, n, seen, among: best_rows(users, items, n, seen, among=among),
    }
    signature += [specs[name] for name in given]
    return tf.function(functions[given], input_signature=signature, autograph=False)


def compiled_best_rows(
    users: Any, items: Any, n: int, seen: np.ndarray | None = None, among: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`best_rows` of arrays, in one call of TensorFlow's."""
    given = {name: rows for name, rows in (("seen", seen), ("among", among)) if rows is not None}
    function = _compiled(users.ndim, tuple(given), among is not None and among.ndim == 2)
    rows, scores = function(users, items, n, *given.values())
    return rows.numpy(), scores.numpy()


def best_among(
    vectors_of: Callable[[np.ndarray], Any], users: np.ndarray, n: int, seen: Seen | None, among: np.ndarray | Seen
) -> tuple[np.ndarray, np.ndarray]:
    """The ``n`` best of the allowed items, by scoring only these.

    Args:
        vectors_of: Returns the vectors of items' rows, (m, D).
        users: (B, D) or (B, K, D), float32.
        n: How many items to find.
        seen: The rows that each user must not get.
        among: The rows that they may get: (m,) for all users, ascending, or `Seen` of each.

    Returns:
        ``(rows, scores)``: (B, n) int64 and (B, n) float32, -1 and -inf where there are no more. Of equal scores, the
        lowest row comes first.
    """
    own = among if isinstance(among, tuple) else None
    allowed = np.unique(among[1]) if isinstance(among, tuple) else among
    vectors = vectors_of(allowed)
    rows, scores = np.full((len(users), n), -1, np.int64), np.full((len(users), n), -np.inf, np.float32)
    at_once = max(USERS_AT_ONCE // (1 if users.ndim == 2 else users.shape[1]), 1)
    if own is not None:  # each user's rows are held side by side, and scored with those of the others
        at_once = max(min(at_once, _BLOCK_NUMBERS // (4 * max(np.diff(own[0]).max(initial=0), 1))), 1)
    for start in range(0, len(users), at_once):
        stop = min(start + at_once, len(users))
        columns, candidates, only = allowed, vectors, None
        if own is not None:
            columns = np.unique(seen_pairs(own, start, stop)[1])
            candidates = tf.gather(vectors, np.searchsorted(allowed, columns))
            only = _padded(*_columns(own, start, stop, columns), stop - start)
        if not len(columns):
            continue
        left_out = None if seen is None else _padded(*_columns(seen, start, stop, columns), stop - start)
        best, best_scores = compiled_best_rows(users[start:stop], candidates, n, left_out, only)
        rows[start:stop], scores[start:stop] = np.where(best < 0, -1, columns[best]), best_scores
    return rows, scores


def _columns(seen: Seen, start: int, stop: int, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The entries of rows start..stop as (row - start, place among ``columns``, ascending), without the others."""
    owners, items = seen_pairs(seen, start, stop)
    places = np.searchsorted(columns, items)
    known = places < len(columns)
    known[known] = columns[places[known]] == items[known]
    return owners[known], places[known]


def padded_seen(seen: Seen, start: int, stop: int) -> np.ndarray:
    """The entries of users start..stop, (b, S) int32, S the most that one has; -1 is padding."""
    return _padded(*seen_pairs(seen, start, stop), stop - start)


def _padded(owners: np.ndarray, rows: np.ndarray, users: int) -> np.ndarray:
    """Each user's rows side by side, (users, S) int32, given the users ascending; -1 is padding."""
    counts = np.bincount(owners, minlength=users)
    padded = np.full((users, counts.max(initial=0)), -1, np.int32)
    padded[owners, np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)] = rows
    return padded
