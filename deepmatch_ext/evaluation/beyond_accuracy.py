"""Metrics of lists beyond accuracy: coverage, novelty, diversity, popularity bias.

B users, N places in a list, V items with padding (id 0), D the vectors' size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepmatch_ext._arrays import check_ids, check_item_counts, check_item_vectors, check_seen, is_pair, seen_pairs
from deepmatch_ext._checks import positive_number, problem, shown
from deepmatch_ext.evaluation.metrics import NAME_FORMAT, check_name_format, check_ns
from deepmatch_ext.retrieval.diversify import category_codes

_BLOCK_NUMBERS = 2**22  # entries of vectors that are held at once


def beyond_accuracy(
    lists: Any,
    item_count: Any,
    ns: Sequence[int] = (10,),
    *,
    num_users: float | None = None,
    targets: Any | None = None,
    item_vectors: Any | None = None,
    categories: Any | None = None,
    name_format: str = NAME_FORMAT,
) -> dict[str, float]:
    """Coverage, novelty, popularity bias, and given their arguments, serendipity and diversity, at each N.

    They describe the first N places of the lists. Over all items:

    - ``Coverage@N``: catalogue coverage, the fraction of the V - 1 items that are in at least one list.
    - ``Gini@N``: the Gini coefficient of how often each of the V - 1 items is recommended: 0 if all are recommended
      equally often, up to 1 - 1 / (V - 1) if only one item is recommended.

    The others are means over each user's recommended items, averaged over the users who have any:

    - ``Novelty@N``: self-information in bits, ``-log2(count / total)``. If `item_count` counts users and `num_users`
      is given, it is the mean inverse user frequency (Zhou et al., "Solving the apparent diversity-accuracy dilemma of
      recommender systems", 2010); otherwise ``total`` is the sum of the counts. An item that does not occur counts as
      one that occurs once.
    - ``ARP@N``: average recommendation popularity, the mean of ``count`` (Yin et al., "Challenging the Long Tail
      Recommendation", 2012).
    - ``Serendipity@N`` with `targets`: the mean of ``max(popularity rank - place, 0) / (V - 1)``, where items that are
      not a target count as 0. Places and ranks start at 1; an item's popularity rank is 1 + the number of items that
      occur more often. A target that a popularity recommender would have ranked at least as high also counts as 0.
    - ``ILD@N`` with `item_vectors`: intra-list diversity, the mean cosine distance (1 - cosine) between two items of a
      list (Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", 2005). A zero vector has
      distance 1 to all others. The diversity of a list of one item is 0.
    - ``CategoryILD@N`` with `categories`: the same with a distance of 0 between items of one category, and 1 otherwise.

    Args:
        lists: The items recommended to each user, best first, (B, N), ids 0..V-1 as `top_n` returns them; 0 is no item
            and is never counted.
        item_count: Occurrences of each item in the training data, (V,): of events, or of users. The entry of id 0
            is ignored.
        ns: The cut-offs N, each at most the lists' length.
        num_users: The number of users in the training data, if `item_count` counts users.
        targets: The items that each user should have been recommended: (B,) ids 1..V-1; or, if users have several, a
            pair ``(indptr (B + 1,), ids)``: user k's are ``ids[indptr[k]:indptr[k + 1]]``.
        item_vectors: (V, D), such as a model's; row 0 is padding.
        categories: The category of each item, (V,), numbers or strings. An item without one (None, NaN, "") differs
            from all others.
        name_format: As in `ranking_metrics`.

    Returns:
        ``{"Coverage@10": ..., "Gini@10": ..., "Novelty@10": ..., "ARP@10": ..., ...}``.

    Raises:
        ValueError: The arrays don't fit each other, a list has an item twice, no list has an item, an N exceeds the
            length of the lists, or an item has more than `num_users` users.

    Example:
        >>> lists, count = np.array([[1, 2], [1, 3]]), np.array([0, 4, 2, 1, 1])
        >>> figures = beyond_accuracy(lists, count, [2], categories=["", "tea", "tea", "salt", "salt"])
        >>> figures["Coverage@2"], figures["Novelty@2"], figures["ARP@2"], figures["CategoryILD@2"]
        (0.75, 1.75, 2.75, 0.5)
    """
    item_count = check_item_counts("`item_count`", item_count)
    size = len(item_count)
    lists = _checked(lists, size)
    ns = check_ns(ns)
    if max(ns) > lists.shape[1]:
        raise problem("each of `ns`", f"be at most {lists.shape[1]}, the length of the lists", max(ns))
    check_name_format(name_format)
    total = float(item_count.sum())
    if num_users is not None:
        total = positive_number("`num_users`", num_users)
        if item_count.max() > total:
            got = f"{total:g}, and {item_count.max():g} of item {item_count.argmax()}"
            raise problem(
                "`num_users`", "be at least as many as the users of each item", got, "Count users, not events."
            )
    of_items = {"Novelty": np.log2(max(total, 1.0) / np.maximum(item_count, 1)), "ARP": item_count}
    popularity_rank = size - np.searchsorted(np.sort(item_count[1:]), item_count, side="right")
    hits = None if targets is None else _hits(lists, targets, size)
    vectors = None if item_vectors is None else _of_items("`item_vectors`", check_item_vectors(item_vectors)[0], size)
    codes = None if categories is None else _of_items("`categories`", category_codes(categories), size)
    figures: dict[str, float] = {}
    for n in ns:
        ids = lists[:, :n]
        counted = ids > 0
        numbers = counted.sum(axis=1)
        users = numbers > 0
        if not users.any():
            raise problem("`lists`", f"have an item within the first {n} places", "none")
        ids, counted, numbers = ids[users], counted[users], numbers[users]
        shown_times = np.bincount(ids[counted], minlength=size)[1:]
        of_n = {"Coverage": float(np.count_nonzero(shown_times) / (size - 1)), "Gini": _gini(shown_times)}
        for metric, values in of_items.items():
            of_n[metric] = _mean_over_lists(values[ids], counted, numbers)
        if hits is not None:
            ahead = np.maximum(popularity_rank[ids] - np.arange(1, n + 1), 0) / (size - 1)
            of_n["Serendipity"] = _mean_over_lists(ahead, counted & hits[users, :n], numbers)
        if vectors is not None:
            of_n["ILD"] = _diversity(_cosines(ids, vectors), numbers)
        if codes is not None:
            of_n["CategoryILD"] = _diversity(_equal_pairs(codes[ids], counted), numbers)
        figures |= {name_format.format(metric=metric, n=n): value for metric, value in of_n.items()}
    return figures


def _checked(lists: Any, size: int) -> np.ndarray:
    ids = np.asarray(lists)
    if ids.ndim != 2 or not ids.size:
        raise problem("`lists`", "be item ids of shape (B, N), at least one of each", shown(lists))
    ids = check_ids("the ids of `lists`", ids.ravel(), 0, size - 1).reshape(ids.shape)
    in_order = np.sort(ids, axis=1)
    repeated = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] > 0)
    if repeated.any():
        row, column = np.argwhere(repeated)[0].tolist()
        raise problem("`lists`", "hold each item once in a row", f"item {in_order[row, column]} twice in row {row}")
    return ids


def _of_items(what: str, values: np.ndarray, size: int) -> np.ndarray:
    if len(values) != size:
        raise problem(what, f"have {size} entries, one for each item id as `item_count` has", len(values))
    return values


def _hits(lists: np.ndarray, targets: Any, size: int) -> np.ndarray:
    """Which recommendations are targets of their user, (B, N) bool."""
    if not is_pair(targets):
        return lists == check_ids("`targets`", targets, 1, size - 1, length=len(lists))[:, np.newaxis]
    users, items = seen_pairs(check_seen("`targets`", targets, len(lists), size), 0, len(lists))
    first = np.arange(len(lists))[:, np.newaxis] * size
    return np.isin(first + lists, users * size + items) & (lists > 0)


def _mean_over_lists(values: np.ndarray, counted: np.ndarray, numbers: np.ndarray) -> float:
    """The mean over a list's ``numbers`` (B,) items, of which only ``counted`` (B, N) aren't 0, averaged over lists."""
    return float((np.where(counted, values, 0.0).sum(axis=1) / numbers).mean())


def _gini(times: np.ndarray) -> float:
    """The Gini coefficient of (n,) counts, one of them above 0."""
    number = len(times)
    places = np.arange(1, number + 1)
    return float(2 * (places @ np.sort(times)) / (number * times.sum()) - (number + 1) / number)


def _diversity(likeness: np.ndarray, numbers: np.ndarray) -> float:
    """1 - the mean similarity of two different items of a list, averaged over lists; 0 for a list of one.

    Args:
        likeness: The sum of the similarities of all ordered pairs, (B,).
        numbers: The items of each list, (B,).
    """
    pairs = numbers * (numbers - 1)
    return float(np.where(pairs > 0, np.maximum(1 - likeness / np.maximum(pairs, 1), 0), 0.0).mean())


def _cosines(ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The sum of the cosines of all ordered pairs in each list, (B,), without forming a pair: |sum|^2 - sum |.|^2."""
    sums = np.empty(len(ids))
    at_once = max(_BLOCK_NUMBERS // (ids.shape[1] * vectors.shape[1]), 1)
    for start in range(0, len(ids), at_once):
        of_block = ids[start : start + at_once]
        units = vectors[of_block].astype(np.float64)
        lengths = np.linalg.norm(units, axis=2, keepdims=True)
        units *= (of_block > 0)[:, :, np.newaxis] / np.where(lengths > 0, lengths, 1)
        total = units.sum(axis=1)
        sums[start : start + at_once] = np.sum(total**2, axis=1) - np.sum(units**2, axis=(1, 2))
    return sums


def _equal_pairs(codes: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The number of ordered pairs of equal codes in each list, (B,)."""
    users, _ = np.nonzero(counted)
    size = codes.max() + 1
    keys, times = np.unique(users * size + codes[counted], return_counts=True)
    return np.bincount(keys // size, weights=times * (times - 1), minlength=len(codes))
