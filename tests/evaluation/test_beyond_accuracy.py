"""Coverage, novelty, diversity and popularity bias: by hand, against slow loops, and what is refused."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from deepmatch_ext.evaluation import beyond_accuracy
from tests.helpers import csr

pytestmark = pytest.mark.plain

# Items 1 to 4, had by 4, 2, 1 and no user of 4.
COUNT = np.array([99, 4, 2, 1, 0])
LISTS = np.array([[1, 2, 3], [3, 0, 0], [0, 0, 0]])  # the third user has none


def test_by_hand():
    figures = beyond_accuracy(LISTS, COUNT, [1, 3], num_users=4)
    # At 1 the items 1 and 3 are recommended, of 4; at 3 items 1 and 2 once, and 3 twice.
    assert figures["Coverage@1"] == 0.5
    assert figures["Coverage@3"] == 0.75
    # Exposures 0, 0, 1, 1: 2 (3 + 4) / (4 * 2) - 5 / 4. Then 0, 1, 1, 2: 2 (2 + 3 + 4 * 2) / (4 * 4) - 5 / 4.
    assert figures["Gini@1"] == pytest.approx(0.5)
    assert figures["Gini@3"] == pytest.approx(0.375)
    # -log2 of 4/4, 2/4 and 1/4 is 0, 1 and 2.
    assert figures["Novelty@1"] == pytest.approx((0 + 2) / 2)
    assert figures["Novelty@3"] == pytest.approx(((0 + 1 + 2) / 3 + 2) / 2)
    assert figures["ARP@1"] == pytest.approx((4 + 1) / 2)
    assert figures["ARP@3"] == pytest.approx(((4 + 2 + 1) / 3 + 1) / 2)
    assert len(figures) == 8


def test_without_the_number_of_users_novelty_is_the_information_of_an_event():
    # 7 events: 4/7, 2/7, 1/7; item 4, without any, counts as if it had one.
    figures = beyond_accuracy([[1], [4]], COUNT, [1])
    assert figures["Novelty@1"] == pytest.approx((math.log2(7 / 4) + math.log2(7)) / 2)
    assert beyond_accuracy([[1]], [0, 0, 0], [1])["Novelty@1"] == 0  # nothing is known


def test_serendipity_by_hand():
    # Popularity ranks 1, 2, 3, 4 of 4 items. Item 3 in place 1 is (3 - 1) / 4; in place 3 it is nothing new.
    assert beyond_accuracy([[3, 1]], COUNT, [2], targets=[3])["Serendipity@2"] == pytest.approx(0.5 / 2)
    assert beyond_accuracy([[1, 2, 3]], COUNT, [3], targets=[3])["Serendipity@3"] == 0
    assert beyond_accuracy([[1, 2, 3]], COUNT, [3], targets=[4])["Serendipity@3"] == 0
    # Items 4 and 3, (4 - 1) / 4 and (3 - 2) / 4, of a list of two; the second user has no target, the third no list.
    lists, targets = [[4, 3, 0], [4, 0, 0], [0, 0, 0]], csr([[3, 4, 0], [], [1]])
    figures = beyond_accuracy(lists, COUNT, [1, 3], targets=targets)
    assert figures["Serendipity@1"] == pytest.approx((0.75 + 0) / 2)
    assert figures["Serendipity@3"] == pytest.approx(((0.75 + 0.25) / 2 + 0) / 2)
    # Of equally popular items each has the better rank.
    assert beyond_accuracy([[2]], [0, 5, 5, 5], [1], targets=[2])["Serendipity@1"] == 0


def test_diversity_by_hand():
    vectors = np.array([[7.0, 7.0], [2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [0.0, 0.0]])
    # Distances: 1 and 2 at a right angle 1, 1 and 3 opposite 2, 2 and 3 1; item 4 has no direction, 1 to all.
    for lists, n, expected in [
        ([[1, 2, 3]], 2, 1.0),
        ([[1, 3, 2]], 2, 2.0),
        ([[1, 2, 3]], 3, (1 + 2 + 1) / 3),
        ([[4, 1, 0]], 3, 1.0),
        ([[1, 3, 0], [2, 0, 0], [0, 0, 0]], 3, (2 + 0) / 2),
    ]:
        assert beyond_accuracy(lists, COUNT, [n], item_vectors=vectors)[f"ILD@{n}"] == pytest.approx(expected)
    same = np.ones((5, 3), np.float32)
    assert beyond_accuracy([[1, 2, 3, 4]], COUNT, [4], item_vectors=same)["ILD@4"] == pytest.approx(0, abs=1e-12)
    # Items without a category are like no other.
    for categories in (["", "a", "b", "a", ""], [None, 1, 2, 1, None], ["", "x", "y", "x", "z"]):
        figures = beyond_accuracy([[1, 2, 3], [1, 3, 0], [4, 0, 0]], COUNT, [3], categories=categories)
        assert figures["CategoryILD@3"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert beyond_accuracy([[1, 4]], COUNT, [2], categories=["", "", "", "", ""])["CategoryILD@2"] == 1


def slow(lists, count, n, num_users, relevant, vectors, categories):
    """The definitions, one list and one pair at a time."""
    items = range(1, len(count))
    lists = [[item for item in row[:n] if item] for row in lists]
    times = [sum(item in row for row in lists) for item in items]
    pairs = [abs(a - b) for a in times for b in times]
    figures = {
        "Coverage": sum(map(bool, times)) / len(items),
        "Gini": sum(pairs) / (2 * len(items) * sum(times)),  # the mean difference by twice the mean
    }
    total = sum(count[1:]) if num_users is None else num_users
    each = {name: [] for name in ("Novelty", "ARP", "Serendipity", "ILD", "CategoryILD")}
    for row, wanted, full in zip(lists, relevant, lists, strict=True):
        if not row:
            continue
        each["Novelty"].append(np.mean([math.log2(max(total, 1) / max(count[i], 1)) for i in row]))
        each["ARP"].append(np.mean([count[i] for i in row]))
        ranks = {i: 1 + sum(count[j] > count[i] for j in items) for i in row}
        gains = [max(ranks[i] - place, 0) / len(items) * (i in wanted) for place, i in enumerate(full, start=1)]
        each["Serendipity"].append(np.mean(gains))
        two = [(i, j) for i in row for j in row if i != j]
        units = {i: vectors[i] / (np.linalg.norm(vectors[i]) or 1) for i in row}
        each["ILD"].append(np.mean([1 - units[i] @ units[j] for i, j in two]) if two else 0)
        each["CategoryILD"].append(np.mean([categories[i] != categories[j] for i, j in two]) if two else 0)
    return {f"{name}@{n}": value for name, value in (figures | {k: np.mean(v) for k, v in each.items()}).items()}


@st.composite
def cases(draw):
    size, rows = draw(st.integers(2, 8)), draw(st.integers(1, 5))
    length = draw(st.integers(1, 6))
    row = st.lists(st.integers(1, size - 1), max_size=length, unique=True)
    lists = [items + [0] * (length - len(items)) for items in draw(st.lists(row, min_size=rows, max_size=rows))]
    lists[0][0] = lists[0][0] or 1
    count = draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
    relevant = draw(st.lists(st.lists(st.integers(1, size - 1)), min_size=rows, max_size=rows))
    numbers = st.integers(-2, 2).map(float)
    vectors = draw(st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=size, max_size=size))
    categories = draw(st.lists(st.sampled_from("abc"), min_size=size, max_size=size))
    return lists, count, draw(st.integers(1, length)), draw(st.none() | st.just(9)), relevant, vectors, categories


@given(cases())
def test_equals_the_definitions(case):
    lists, count, n, num_users, relevant, vectors, categories = case
    vectors = np.array(vectors)
    figures = beyond_accuracy(
        lists,
        count,
        [n],
        num_users=num_users,
        targets=csr(relevant),
        item_vectors=vectors,
        categories=categories,
    )
    assert figures == pytest.approx(slow(lists, count, n, num_users, relevant, vectors, categories), abs=1e-6)
    # One more empty place for each user and one more user without a list change nothing.
    wider = np.pad(lists, ((0, 1), (0, 1)))
    more = beyond_accuracy(
        wider,
        count,
        [n, wider.shape[1]],
        num_users=num_users,
        targets=csr([*relevant, []]),
        item_vectors=vectors,
        categories=categories,
    )
    assert {name: more[name] for name in figures} == pytest.approx(figures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lists": [1, 2]}, r"`lists` must be item ids of shape \(B, N\)"),
        ({"lists": np.zeros((0, 3), int)}, r"`lists` must be item ids of shape \(B, N\), at least one of each"),
        ({"lists": [[0, 0, 0]]}, r"`lists` must have an item within the first 3 places; got none"),
        ({"lists": [[1, 1, 2]]}, r"`lists` must hold each item once in a row; got item 1 twice in row 0"),
        ({"lists": [[1, 2, 5]]}, r"the ids of `lists` must be between 0 and 4; got 5 at position 2"),
        ({"lists": [[1, 2, -1]]}, r"the ids of `lists` must be between 0 and 4; got -1"),
        ({"lists": [[1.0, 2.0, 3.0]]}, r"the ids of `lists` must hold integers"),
        ({"ns": [4]}, r"each of `ns` must be at most 3, the length of the lists; got 4"),
        ({"ns": []}, r"`ns` must hold at least one cut-off"),
        ({"item_count": [3]}, r"`item_count` must have shape \(V,\), V at least 2"),
        ({"item_count": [0, 1, -1, 2, 3]}, r"`item_count` must be finite and not negative"),
        ({"num_users": 3}, r"`num_users` must be at least as many as the users of each item; got 3, and 4 of item 1"),
        ({"num_users": 0}, r"`num_users` must be a finite number greater than 0"),
        ({"targets": [1, 2]}, r"`targets` must have shape \(1,\)"),
        ({"targets": [0]}, r"`targets` must be between 1 and 4; got 0"),
        ({"targets": csr([[1], [2]])}, r"the indptr of `targets` must have shape \(2,\)"),
        ({"item_vectors": np.ones((4, 2))}, r"`item_vectors` must have 5 entries, one for each item id .*; got 4"),
        ({"item_vectors": np.full((5, 2), np.nan)}, r"`item_vectors` must be finite"),
        ({"categories": ["a", "b"]}, r"`categories` must have 5 entries, one for each item id .*; got 2"),
        ({"name_format": "x"}, r"`name_format` must be text with"),
    ],
)
def test_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        beyond_accuracy(**{"lists": [[1, 2, 3]], "item_count": COUNT, "ns": [3], **arguments})
