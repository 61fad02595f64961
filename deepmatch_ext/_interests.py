"""K vectors for each user, one for each interest: an item's score is the best of its K scores. NumPy only.

B users, K interests, D the vectors' size, V items, N the length of a list.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deepmatch_ext._arrays import Seen, seen_rows


def best_scores(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The scores (B, V) of all ``items`` (V, D) for ``users`` (B, D) or (B, K, D): inner products, the best of K."""
    if users.ndim == 2:
        return users @ items.T
    scores = users[:, 0] @ items.T
    for k in range(1, users.shape[1]):  # one by one, so that two arrays (B, V) are held and not K
        np.maximum(scores, users[:, k] @ items.T, out=scores)
    return scores


def nearest_interests(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Each user's interest (B, D) with the largest inner product with an item of the user's own, ``items`` (B, D)."""
    if users.ndim == 2:
        return users
    return users[np.arange(len(users)), np.einsum("bkd,bd->bk", users, items).argmax(axis=1)]


def best_pair_scores(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The score (B,) of an item of each user's own: row b of ``items`` (B, D) for row b of ``users``."""
    return np.einsum("bd,bd->b", nearest_interests(users, items), items)


def search_each(
    search: Callable[[np.ndarray, int, Seen | None], tuple[np.ndarray, np.ndarray]],
    users: np.ndarray,
    n: int,
    seen: Seen | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Each user's ``n`` best items, found by a separate search for each interest.

    An item among a user's ``n`` best is among the ``n`` best of the interest that gives it its score, so what is exact
    for one vector is exact for K.

    Args:
        search: Takes vectors (B, D), ``n`` and the items that each of them must not get. It returns rows (B, n),
            integers with -1 where there are no more, and scores (B, n).
        users: (B, D) or (B, K, D).
        n: How many items to find.
        seen: The items that each user must not get, for ``search`` to leave out.
    """
    if users.ndim == 2:
        return search(users, n, seen)
    count, interests, size = users.shape
    seen = None if seen is None else seen_rows(seen, np.repeat(np.arange(count), interests))
    rows, scores = search(np.ascontiguousarray(users).reshape(-1, size), n, seen)
    return _merged(rows.reshape(count, interests * n), scores.reshape(count, interests * n), n)


def _merged(rows: np.ndarray, scores: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``n`` best (B, n) of candidates (B, K n) in which a row may come several times: its best score counts."""
    rows, scores = best_first(rows, scores, rows.shape[1])
    order = np.argsort(rows, axis=1, kind="stable")  # a row's best score comes first
    by_row = np.take_along_axis(rows, order, axis=1)
    repeated = np.zeros(rows.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], by_row[:, 1:] == by_row[:, :-1], axis=1)
    rows[repeated], scores[repeated] = -1, -np.inf
    return best_first(rows, scores, n)


def best_first(rows: np.ndarray, scores: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``n`` best of each user's candidates (B, k); with equal scores, the lowest rows come first."""
    order = np.lexsort((rows, -scores), axis=1)[:, :n]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
