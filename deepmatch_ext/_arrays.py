"""Checks of arrays: ids, counts, the items that each row has already seen, and vectors. NumPy only."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np

from deepmatch_ext._checks import problem, shown
from deepmatch_ext._frames import by_id

Seen = tuple[np.ndarray, np.ndarray]
"""Items that each of B rows has already had, in CSR form: ``(indptr (B + 1,), item ids)``.

Row ``b`` has had ``item_ids[indptr[b]:indptr[b + 1]]``, in any order. Repeats count once; id 0 (padding) is ignored.
"""


def check_ids(
    what: str,
    values: Any,
    low: int,
    high: int | None = None,
    *,
    length: int | None = None,
    remedy: str = "",
    dtype: Any = np.int64,
) -> np.ndarray:
    """``values`` as ids or row numbers of shape (length,), each at least ``low`` and, if given, at most ``high``."""
    ids = np.asarray(values)
    if ids.ndim != 1 or (length is not None and len(ids) != length):
        shape = "be one-dimensional" if length is None else f"have shape ({length},)"
        raise problem(what, shape, f"shape {ids.shape}")
    if ids.size == 0:  # NumPy makes an empty list a float array
        return ids.astype(dtype)
    if ids.dtype.kind not in "iu":
        of_mask = "np.flatnonzero(mask) makes row numbers of a mask." if ids.dtype.kind == "b" else ""
        raise problem(what, "hold integers", f"dtype {ids.dtype}", of_mask)
    wrong = ids < low if high is None else (ids < low) | (ids > high)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        rule = f"be at least {low}" if high is None else f"be between {low} and {high}"
        got = f"{ids[first]} at position {first} ({np.count_nonzero(wrong)} out of range in all)"
        raise problem(what, rule, got, remedy)
    return ids.astype(dtype, copy=False)


def check_item_counts(what: str, values: Any, vocabulary_size: int | None = None) -> np.ndarray:
    """``values`` as a new float64 array (V,) of occurrences, with none of id 0, padding."""
    values = by_id(what, values)
    try:
        counts = np.asarray(values)
    except ValueError:  # uneven rows
        counts = np.zeros((0, 0))
    if counts.ndim != 1 or len(counts) < 2 or vocabulary_size not in (None, len(counts)):
        rule = "have shape (V,), V at least 2" if vocabulary_size is None else f"have shape ({vocabulary_size},)"
        raise problem(what, rule, f"shape {counts.shape}" if counts.size else shown(values))
    if counts.dtype.kind not in "iuf":
        raise problem(what, "hold numbers", f"dtype {counts.dtype}")
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise problem(what, "be finite and not negative", f"{counts.min()} among them")
    counts = counts.astype(np.float64)  # a copy
    counts[0] = 0
    return counts


def check_seen(what: str, seen: Any, rows: int, vocabulary_size: int | None = None) -> Seen:
    """``seen`` as two int64 arrays in CSR form for ``rows`` rows, with ids in 0..vocabulary_size-1 if that is known."""
    seen = check_pair(what, seen)
    indptr = check_ids(f"the indptr of {what}", seen[0], 0, length=rows + 1)
    items = check_ids(f"the item ids of {what}", seen[1], 0, None if vocabulary_size is None else vocabulary_size - 1)
    if indptr[0] != 0 or indptr[-1] != len(items) or (indptr[1:] < indptr[:-1]).any():
        raise problem(
            f"the indptr of {what}",
            f"start at 0, never fall and end at the number of item ids, {len(items)}",
            f"{indptr[0]} first and {indptr[-1]} last" + (", falling" if (indptr[1:] < indptr[:-1]).any() else ""),
        )
    return indptr, items


def check_pair(what: str, seen: Any) -> tuple[Any, Any]:
    """``seen`` if it has the two parts of `Seen`."""
    if not isinstance(seen, tuple | list) or len(seen) != 2:
        raise problem(what, "be a pair (indptr, item ids)", f"{type(seen).__name__}")
    return seen[0], seen[1]


def check_among(what: str, among: Any, rows: int, vocabulary_size: int) -> np.ndarray | Seen:
    """The items that may be recommended: ids (m,) for all rows, ascending; or `Seen` for each row, if given as a pair.

    Padding is left out, and in the first case, so are repeated ids.
    """
    if is_pair(among):
        return check_seen(what, among, rows, vocabulary_size)
    ids = check_ids(f"the ids of {what}", list(among) if isinstance(among, Set) else among, 0, vocabulary_size - 1)
    ids = 1 + np.flatnonzero(np.bincount(ids, minlength=vocabulary_size)[1:])
    if not len(ids):
        raise problem(what, "hold at least one item id", "none", ALL_ITEMS)
    return ids


ALL_ITEMS = "Leave it out to search all items."


def is_pair(among: Any) -> bool:
    """Whether ``among`` is a pair (indptr, ids), a set of items for each row, and not the ids of one set for all."""
    return isinstance(among, tuple | list) and len(among) == 2 and all(_is_column(part) for part in among)


def _is_column(part: Any) -> bool:
    if hasattr(part, "ndim"):
        return part.ndim == 1
    return hasattr(part, "__len__") and not isinstance(part, str | bytes)


def check_vectors(user_vectors: Any, item_vectors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as float32, finite and such that every inner product is finite too: users by `check_users`, items (V, D)."""
    users, largest_user = check_users("`user_vectors`", user_vectors)
    items, largest_item = check_item_vectors(item_vectors)
    if users.shape[-1] != items.shape[1]:
        raise problem(
            "user_vectors and item_vectors", "have the same width D", f"shapes {users.shape} and {items.shape}"
        )
    if largest_user * largest_item * items.shape[1] > float(np.finfo(np.float32).max):
        got = f"entries as large as {largest_user:g} and {largest_item:g}"
        raise problem("user_vectors and item_vectors", "have inner products within float32", got, "Scale them down.")
    return users, items


def check_item_vectors(values: Any) -> tuple[np.ndarray, float]:
    """The vectors of all item ids, (V, D), as `check_floats` gives them, V at least 2: row 0 is padding."""
    items, largest = check_floats("`item_vectors`", ["(V, D)"], by_id("`item_vectors`", values))
    if len(items) < 2:
        raise problem("`item_vectors`", "have a row of padding and at least one item", f"shape {items.shape}")
    return items, largest


def check_users(what: str, values: Any, rows: str = "B") -> tuple[np.ndarray, float]:
    """Users' vectors, (B, D) or (B, K, D) for K interests, as `check_floats` gives them.

    A vector of zeros beside others of the same user is not an interest: its scores of 0 would beat all negative ones.
    It is replaced with the user's first other vector, which changes no user's best scores.

    Args:
        what: The argument, as the caller knows it.
        values: The vectors.
        rows: What the caller's documentation calls the number of users.
    """
    users, largest = check_floats(what, [f"({rows}, D)", f"({rows}, K, D)"], values)
    if users.ndim == 3 and not users.shape[1]:
        raise problem(what, "have at least one vector for each user", f"shape {users.shape}")
    if users.ndim == 3 and users.size:
        is_interest = np.any(users != 0, axis=2)
        if not is_interest.all():
            first = users[np.arange(len(users)), is_interest.argmax(axis=1)]
            users = np.where(is_interest[..., np.newaxis], users, first[:, np.newaxis])
    return users, largest


def check_floats(what: str, shapes: list[str], values: Any) -> tuple[np.ndarray, float]:
    """``values`` as finite float32 of one of the shapes, such as "(V, D)", and the largest absolute value in it.

    Of a few small numbers it is an upper bound, which takes a fifth of the time: it matters in a single user's search.
    """
    vectors = np.asarray(values)
    if vectors.ndim not in [shape.count(",") + 1 for shape in shapes] or vectors.shape[-1] == 0:
        raise problem(what, f"have shape {' or '.join(shapes)}", f"shape {vectors.shape}")
    if vectors.dtype.kind not in "iuf":
        raise problem(what, "hold numbers", f"dtype {vectors.dtype}")
    if vectors.dtype != np.float32:
        with np.errstate(over="ignore"):  # too large for float32 becomes inf, which is refused below
            vectors = vectors.astype(np.float32)
    if vectors.size == 0:
        return vectors, 0.0
    if vectors.size <= _FEW_NUMBERS and (bound := float(np.vdot(vectors, vectors)) ** 0.5) < _SMALL:
        return vectors, bound
    largest = max(-float(vectors.min()), float(vectors.max()))  # min and max pass NaN on
    if not np.isfinite(largest):
        first = tuple(np.argwhere(~np.isfinite(vectors))[0].tolist())
        where = ", ".join(f"{axis} {at}" for axis, at in zip(_AXES[vectors.ndim], first, strict=True))
        raise problem(what, "be finite", f"{vectors[first]} at {where}")
    return vectors, largest


# Of so few numbers below the bound, a sum of squares shows at once that they are finite and not large.
_FEW_NUMBERS, _SMALL = 4096, 1e3
_AXES = {2: ("row", "column"), 3: ("row", "vector", "column")}


def seen_rows(seen: Seen, rows: np.ndarray) -> Seen:
    """The given rows, in their order."""
    indptr, items = seen
    return joined_slices(items, indptr[rows], np.diff(indptr)[rows])


def joined_slices(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Seen:
    """``values[starts[k]:starts[k] + lengths[k]]`` for each k, one after the other, and where each begins."""
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return indptr, values[np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])]


def seen_pairs(seen: Seen, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """The entries of rows start..stop as (row - start, item id), repeats included."""
    indptr, items = seen
    bounds = indptr[start : stop + 1]
    return np.repeat(np.arange(stop - start), np.diff(bounds)), items[bounds[0] : bounds[-1]]
