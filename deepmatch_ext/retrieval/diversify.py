"""Lists of more than one kind of item: controllable diversity over an attribute of the items. NumPy alone.

B users, C candidates of each, N the length of a list, V items with padding (id 0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import check_ids
from deepmatch_ext._checks import number_between, positive_int, problem
from deepmatch_ext._frames import as_array, by_id


def diversify(ids: Any, scores: Any, categories: Any, n: int, *, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """The best ``n`` of each user's candidates, with a penalty for further items of the same category.

    A list is filled from the top: each place gets the candidate with the largest ``score - penalty * (how many of its
    category are in the list)``; among equals, the first. This is ComiRec's greedy aggregation (Cen et al., KDD 2020,
    section 3.5), which trades accuracy for diversity.

    No loop is needed. Items of a category enter the list in the order of their scores, so the k-th of them (k from 0)
    always has ``score - penalty * k``, and sorting by that gives the same list.

    Args:
        ids: The candidates' item ids, (B, C), as `top_n` returns them: each item once in a row; 0 is no item.
        scores: Their scores, (B, C).
        categories: The category of each item, (V,), by item id: numbers or strings. An item without one (None, NaN, "")
            differs from all others.
        n: The length of the lists, 1..C. Lists can only become diverse if there is a choice: take a C several times
            as large.
        penalty: What each earlier item of the same category subtracts, at least 0, in the unit of the scores. 0: the
            ``n`` best scores. With L2-normalised vectors, scores lie within -1..1.

    Returns:
        ``(ids, scores)``: (B, N) int64 and (B, N) float32, in the order chosen; the scores are those given. If a
        user has fewer than ``n`` candidates, the row is padded with id 0 and score -inf, as in `top_n`.

    Raises:
        ValueError: The arrays don't fit each other, a row has an item twice, a score is NaN or +inf, an id has no
            entry in ``categories``, or ``n`` or ``penalty`` is out of range.

    Example:
        >>> ids, scores = np.array([[4, 2, 1, 3]]), np.array([[0.9, 0.8, 0.7, 0.6]])
        >>> genres = ["", "noir", "noir", "sport", "noir"]  # by item id
        >>> diversify(ids, scores, genres, 3, penalty=0.1)[0]
        array([[4, 2, 3]])
        >>> diversify(ids, scores, genres, 3, penalty=0.5)[0]
        array([[4, 3, 2]])
    """
    codes = category_codes(categories)
    ids, scores = _candidates(ids, scores, len(codes))
    width = ids.shape[1]
    if positive_int("`n`", n) > width:
        raise problem("`n`", f"be at most {width}, the number of candidates in each row of `ids`", n)
    penalty = number_between("`penalty`", penalty, 0, float("inf"))

    kinds = codes[ids]
    # Candidates by category, and within it by score; of equal scores the first.
    order = np.lexsort((-scores, kinds), axis=1)
    sorted_kinds = np.take_along_axis(kinds, order, axis=1)
    places = np.arange(width)
    begins = np.ones(ids.shape, bool)
    begins[:, 1:] = sorted_kinds[:, 1:] != sorted_kinds[:, :-1]
    number = np.empty(ids.shape, np.int64)  # how many of the category come before
    np.put_along_axis(number, order, places - np.maximum.accumulate(np.where(begins, places, 0), axis=1), axis=1)
    best = np.argsort(penalty * number - scores, axis=1, kind="stable")[:, :n]
    ids, scores = np.take_along_axis(ids, best, axis=1), np.take_along_axis(scores, best, axis=1)
    ids[np.isneginf(scores)] = 0
    return ids, scores.astype(np.float32)


def category_codes(categories: Any) -> np.ndarray:
    """A number for each item's category, (V,) int64; an item without one gets a number of its own."""
    values = as_array(by_id("`categories`", categories))
    if values.ndim != 1 or not len(values):
        raise problem("`categories`", "have shape (V,), an entry for each item id", f"shape {values.shape}")
    values = values.astype(object)
    try:
        values[values == ""] = None
        codes, _ = pd.factorize(values)
    except (TypeError, ValueError):
        rule = "have one category for each item, a number or a text"
        raise problem("`categories`", rule, "lists or other objects among them") from None
    return np.where(codes < 0, len(codes) + np.arange(len(codes)), codes).astype(np.int64)


def _candidates(ids: Any, scores: Any, vocabulary_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Both checked, (B, C) int64 and float64; positions without a candidate have score -inf."""
    ids, scores = np.asarray(ids), np.asarray(scores)
    if ids.ndim != 2 or ids.shape != scores.shape:
        raise problem("`ids` and `scores`", "both have shape (B, C)", f"shapes {ids.shape} and {scores.shape}")
    remedy = "`categories` has an entry for each item id, after one for padding."
    ids = check_ids("`ids`", ids.ravel(), 0, vocabulary_size - 1, remedy=remedy).reshape(ids.shape)
    if scores.dtype.kind not in "iuf":
        raise problem("`scores`", "hold numbers", f"dtype {scores.dtype}")
    scores = np.where(ids > 0, scores, -np.inf).astype(np.float64)
    wrong = np.isnan(scores) | np.isposinf(scores)
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise problem("`scores`", "be numbers below infinity", f"{scores[row, column]} at row {row}, column {column}")
    in_order = np.sort(ids, axis=1)
    repeated = (in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] > 0)
    if repeated.any():
        row, column = np.argwhere(repeated)[0].tolist()
        rule, remedy = "hold each item once in a row", "`top_n` merges the lists of K interests."
        raise problem("`ids`", rule, f"item {in_order[row, column]} twice in row {row}", remedy)
    return ids, scores
