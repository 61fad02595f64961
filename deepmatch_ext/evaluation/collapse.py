"""Figures that show collapse: pure functions of vectors, lists and targets. `TrainingWatch` judges them.

B users, K interests of a user, V items with padding (id 0), D the vectors' size, N the length of the lists.
"""

from __future__ import annotations

import math

import numpy as np

from deepmatch_ext._arrays import Seen, check_item_counts, check_seen, check_vectors, seen_pairs
from deepmatch_ext._checks import problem, shown
from deepmatch_ext._interests import best_scores, nearest_interests

_MAX_ITEMS = 10_000  # enough items to estimate the variance of scores
_USERS_AT_ONCE = 256  # scored for all of these items


def likeness(user_vectors: np.ndarray, item_vectors: np.ndarray) -> dict[str, float]:
    """How similar the vectors of users are to each other, as figures that show collapse.

    - ``score_correlation``: the correlation of two users' scores over the items, averaged over pairs of users as
      (mean covariance) / (mean variance). At 1 all users rank the items alike. This figure shows collapse;
      the cosine does not, since a direction that all users share does not matter if the items do not differ in it.
    - ``user_cosine``: the mean cosine over pairs of users.
    - ``user_rank``: the effective number of directions in which users differ from their mean: the participation ratio
      (sum of l) ** 2 / sum of l ** 2, in 1..D, where l are the variances along the principal axes; 0 if users do not
      differ.

    With K interests, a user's score of an item is the best of K, and the other two figures compare the k-th interest of
    one user with the k-th of another. There is then a fourth figure:

    - ``interest_correlation``: the correlation of the scores that two interests of one user give to the items, averaged
      over the user's pairs of interests, then over users. At 1 all interests rank the items alike. Interests that equal
      the user's first are ignored as surplus, unless all users have only such interests.

    Pairs of users are never formed: the means over pairs follow from the sum of the vectors, minus the users' pairs
    with themselves. The cost is O((B + items) D^2), with at most 10,000 of the items; with K interests O(B K D items).

    Args:
        user_vectors: (B, D) or (B, K, D), finite, B at least 2.
        item_vectors: (V, D), finite; row 0 is left out.

    Returns:
        The three figures, or four if K is at least 2. A correlation or cosine is 1 if nothing differs; vectors of
        length zero have cosine 0 with all others.

    Raises:
        ValueError: There are fewer than two users, or the vectors are not finite or do not fit each other.

    Example:
        >>> items = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> opposite = likeness(np.array([[1.0, 0.0], [0.0, 1.0]]), items)
        >>> {name: round(value, 3) for name, value in opposite.items()}
        {'score_correlation': -1.0, 'user_cosine': 0.0, 'user_rank': 1.0}
    """
    user_vectors, item_vectors = check_vectors(user_vectors, item_vectors)
    if len(user_vectors) < 2:
        raise problem("`user_vectors`", "have at least two rows", f"shape {user_vectors.shape}")
    users = user_vectors.astype(np.float64)
    items = item_vectors[1 + sample_rows(len(item_vectors) - 1, _MAX_ITEMS)].astype(np.float64)
    interests = users.reshape(len(users), -1, users.shape[-1])  # (B, K, D)
    centred = (interests - interests.mean(axis=0)).reshape(-1, users.shape[-1])
    covariance = centred.T @ centred / len(users)
    spread = np.trace(covariance)
    lengths = np.linalg.norm(interests, axis=2, keepdims=True)
    units = (interests / np.where(lengths > 0, lengths, 1.0)).reshape(len(users), -1)  # cosines add up over K
    figures = {
        "score_correlation": _score_correlation(users, items),
        "user_cosine": _mean_over_pairs(len(users), float(np.sum(units**2)), float(np.sum(units.sum(axis=0) ** 2))),
        "user_rank": float(spread**2 / np.sum(covariance**2)) if spread > 0 else 0.0,
    }
    if interests.shape[1] > 1:
        figures["interest_correlation"] = _interest_correlation(interests, items)
    return figures


def popular_share(lists: np.ndarray, item_count: np.ndarray, seen: Seen | None = None) -> float:
    """The fraction of the recommendations that a popularity recommender would have made too; for its own lists, 1.

    A popularity recommender recommends the N most popular of the items that the user has not seen.

    Args:
        lists: (B, N) the items recommended to each user; 0 is no item.
        item_count: (V,) how often each item occurs; if equal, the lower id goes first, as in `top_n`.
        seen: The items that each of the B users has seen, which were not recommended, ``(indptr (B + 1,), ids)``.

    Raises:
        ValueError: The arrays do not fit each other.

    Example:
        >>> counts = np.array([0, 9, 8, 7, 1])
        >>> popular_share(np.array([[1, 2], [3, 4]]), counts)  # the two most popular are 1 and 2
        0.5
        >>> popular_share(np.array([[1, 2], [3, 4]]), counts, seen=(np.array([0, 0, 2]), np.array([1, 2])))
        1.0
    """
    item_count, lists = check_item_counts("`item_count`", item_count), np.asarray(lists)
    vocabulary_size = len(item_count)
    if lists.ndim != 2 or lists.dtype.kind not in "iu":
        raise problem("`lists`", "be item ids of shape (B, N)", shown(lists))
    if lists.size and not 0 <= lists.min() <= lists.max() < vocabulary_size:
        raise problem("`lists`", f"hold ids in 0..{vocabulary_size - 1}", f"{lists.min()} to {lists.max()}")
    seen = None if seen is None else check_seen("`seen`", seen, len(lists), vocabulary_size)
    rank = np.empty(vocabulary_size, np.int64)  # 0 is the most popular; padding comes last
    rank[np.lexsort((np.arange(vocabulary_size), -item_count, np.arange(vocabulary_size) == 0))] = np.arange(
        vocabulary_size
    )
    place = rank[lists]  # (B, N): among all items; less those before it that the user has seen: among the others
    if seen is not None:
        rows, items = seen_pairs(seen, 0, len(lists))
        before = np.unique(rows[items > 0] * vocabulary_size + rank[items[items > 0]])  # in order of row, then rank
        first = np.arange(len(lists))[:, None] * vocabulary_size
        place = place - (np.searchsorted(before, first + place) - np.searchsorted(before, first))
    recommended = lists > 0
    return float((place < lists.shape[1])[recommended].mean()) if recommended.any() else 0.0


def coverage(lists: np.ndarray, vocabulary_size: int) -> float:
    """The different items in ``lists`` (B, N), as a fraction of all items or, if fewer, of the places in the lists."""
    recommended = lists[lists > 0]
    return len(np.unique(recommended)) / max(1, min(len(recommended), vocabulary_size - 1))


def full_cross_entropy(
    user_vectors: np.ndarray, item_vectors: np.ndarray, targets: np.ndarray, temperature: float, block_size: int = 1024
) -> float:
    """The mean of ``-log p(target)`` in nats, with p the softmax of ``u.i / temperature`` over all items but padding.

    Sampled softmax with the logQ correction estimates it, with any sampler. A uniform guess has log(V - 1). With K
    interests, u is the one with the largest inner product with the target.

    Args:
        user_vectors: (B, D) or (B, K, D).
        item_vectors: (V, D).
        targets: (B,) ids 1..V-1.
        temperature: Divides the inner products.
        block_size: Users at a time; the largest array held is (block_size, V).

    Example:
        >>> users, items = np.zeros((1, 2)), np.zeros((5, 2))  # a uniform guess: log 4
        >>> round(full_cross_entropy(users, items, np.array([3]), temperature=0.1), 4)
        1.3863
    """
    total = 0.0
    for start in range(0, len(targets), block_size):
        ids = targets[start : start + block_size]
        users = nearest_interests(user_vectors[start : start + block_size], item_vectors[ids])
        logits = (users / temperature) @ item_vectors[1:].T
        logits -= logits[np.arange(len(ids)), ids - 1][:, None]  # the target's becomes 0
        highest = logits.max(axis=1, keepdims=True)
        logits -= highest
        sums = np.exp(logits, out=logits).sum(axis=1, dtype=np.float64)
        total += float(highest.sum(dtype=np.float64) + np.log(sums).sum())
    return total / len(targets)


def highest_temperature(num_choices: int) -> float:
    """The temperature above which L2-normalised vectors can't reduce the loss of a uniform guess by half.

    The logits of two choices differ by at most 2 / T. So a softmax over n choices gives none of them more than
    1 / (1 + (n - 1) exp(-2 / T)), and no vectors bring the loss below log(1 + (n - 1) exp(-2 / T)). A uniform
    guess has log n. The former is half of the latter at T = 2 / log(1 + sqrt(n)).

    Args:
        num_choices: n: all items in the softmax loss, 2 in a pairwise one.

    Example:
        >>> [round(highest_temperature(n), 2) for n in (2, 1000, 1_000_000)]
        [2.27, 0.57, 0.29]
    """
    return 2 / math.log(1 + math.sqrt(num_choices))


def lowest_loss(temperature: float, num_choices: int) -> float:
    """The bound in `highest_temperature`: the lowest loss that L2-normalised vectors can reach, in nats."""
    return math.log1p((num_choices - 1) * math.exp(-2 / temperature))


def sample_rows(length: int, size: int) -> np.ndarray:
    """``size`` of the numbers below ``length``, or all if there are fewer, in random order; always the same."""
    return np.random.default_rng(0).permutation(length)[:size]


def _score_correlation(users: np.ndarray, items: np.ndarray) -> float:
    """The mean covariance of two users' scores over the items, by the mean variance."""
    if users.ndim == 2:
        items = items - items.mean(axis=0)
        item_covariance, total = items.T @ items, users.sum(axis=0)
        own, of_sum = float(np.sum((users @ item_covariance) * users)), float(total @ item_covariance @ total)
    else:  # the best of K is not linear in the user
        own, total = 0.0, np.zeros(len(items))
        for start in range(0, len(users), _USERS_AT_ONCE):
            scores = best_scores(users[start : start + _USERS_AT_ONCE], items)
            scores -= scores[:, :1]  # equal ones become exactly 0
            scores -= scores.mean(axis=1, keepdims=True)
            own, total = own + float(np.sum(scores**2)), total + scores.sum(axis=0)
        of_sum = float(total @ total)
    return _mean_over_pairs(len(users), own, of_sum)


def _interest_correlation(interests: np.ndarray, items: np.ndarray) -> float:
    """The correlation of scores over the items between two interests of a user, of interests (B, K, D)."""
    centred = items - items.mean(axis=0)
    scores = interests @ np.asarray(np.linalg.qr(centred, mode="r")).T  # their inner products are those of the scores
    lengths = np.linalg.norm(scores, axis=2, keepdims=True)
    scores = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)
    counted = np.any(interests != interests[:, :1], axis=2)
    counted[:, 0] = True
    counted = counted[:, :, np.newaxis]
    number = counted.sum(axis=(1, 2))
    several = number > 1
    if not several.any() or not lengths.any():
        return 1.0
    scores, number = (scores * counted)[several], number[several]
    own = np.sum(scores**2, axis=(1, 2))
    return float(np.mean((np.sum(scores.sum(axis=1) ** 2, axis=1) - own) / (number * (number - 1))))


def _mean_over_pairs(count: int, own: float, of_sum: float) -> float:
    """The mean product of different users by the mean product of a user with itself.

    Args:
        count: The number of users.
        own: The sum of the users' products with themselves.
        of_sum: The product of the users' sum with itself.
    """
    return (of_sum - own) / ((count - 1) * own) if own > 0 else 1.0
