"""top_n against a slow full sort, its order of ties, what it leaves out and what it refuses."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from deepmatch_ext.retrieval import top_n
from tests.helpers import csr, true_scores

pytestmark = pytest.mark.plain


def slow_top_n(users, items, n, excluded):
    """A full sort of every row in plain Python: higher score first, then lower id."""
    ids, scores = [], []
    for row, left_out in zip(true_scores(users, items).tolist(), excluded, strict=True):
        ranked = sorted((-score, i) for i, score in enumerate(row) if i != 0 and i not in left_out)[:n]
        ranked += [(float("inf"), 0)] * (n - len(ranked))
        ids.append([i for _, i in ranked])
        scores.append([-s for s, _ in ranked])
    return ids, scores


@st.composite
def retrieval_cases(draw):
    rows, vocabulary_size, width = draw(st.integers(1, 6)), draw(st.integers(2, 9)), draw(st.integers(1, 3))
    # Small whole numbers: float32 sums are exact, so scores do not depend on the block, and ties are frequent.
    numbers = st.integers(-2, 2)
    shape = (rows, width) if draw(st.booleans()) else (rows, draw(st.integers(1, 3)), width)
    users = draw(hnp.arrays(np.float64, shape, elements=numbers))
    items = draw(hnp.arrays(np.float64, (vocabulary_size, width), elements=numbers))
    ids = st.lists(st.integers(0, vocabulary_size - 1), max_size=12)  # repeats and padding too
    excluded = draw(st.lists(ids, min_size=rows, max_size=rows))
    for_all = ids.filter(any).map(lambda allowed: [allowed] * rows)
    among = draw(st.none() | for_all | st.lists(ids, min_size=rows, max_size=rows))
    return users, items, draw(st.integers(1, vocabulary_size - 1)), excluded, among, draw(st.integers(1, rows + 1))


@given(retrieval_cases())
def test_equals_a_full_sort_at_any_block_size(case):
    users, items, n, excluded, among, block_size = case
    left_out, forms = excluded, [None]
    if among is not None:
        of_each = zip(excluded, among, strict=True)
        left_out = [[*out, *set(range(len(items))).difference(allowed)] for out, allowed in of_each]
        forms = [csr(among)]
        if all(allowed == among[0] for allowed in among) and any(among[0]):
            forms += [among[0], set(among[0])]  # one set for all
    expected_ids, expected_scores = slow_top_n(users, items, n, left_out)
    for form in forms:
        ids, scores = top_n(users, items, n, exclude=csr(excluded), among=form, block_size=block_size)
        assert ids.tolist() == expected_ids
        assert scores.tolist() == expected_scores
        assert ids.dtype == np.int64
        assert scores.dtype == np.float32


def test_equals_a_full_sort_on_a_wide_catalogue():
    # 3,000 items in 1..40 distinct scores: wide enough for partition to leave its small-array path, with ties at the
    # edge of most rows.
    rng = np.random.default_rng(0)
    users, items = rng.integers(-2, 3, (7, 2)), rng.integers(-3, 4, (3000, 2))
    excluded = [rng.integers(1, 3000, 300).tolist() for _ in users]
    ids, scores = top_n(users, items, 50, exclude=csr(excluded), block_size=3)
    assert (ids.tolist(), scores.tolist()) == slow_top_n(users, items, 50, excluded)


def test_of_k_interests_the_best_score_counts_and_an_item_comes_once():
    items = np.array([[9.0, 9.0], [4.0, 1.0], [0.0, 3.0], [4.0, -5.0], [1.0, 1.0]])
    # By the first interest 4, 0, 4, 1; by the second 1, 3, -5, 1. Excluded is item 1.
    ids, scores = top_n(np.array([[[1.0, 0.0], [0.0, 1.0]]]), items, 4, exclude=csr([[1]]))
    assert ids.tolist() == [[3, 2, 4, 0]]
    assert scores.tolist() == [[4.0, 3.0, 1.0, -np.inf]]


def test_surplus_interests_change_nothing():
    items = np.array([[0.0], [-3.0], [-2.0], [-1.0]])
    for surplus in (1.0, 0.0, -0.0):  # another interest again, or zeros, whose scores of 0 would be the best
        ids, scores = top_n(np.array([[[surplus], [1.0], [surplus]]]), items, 3)
        assert ids.tolist() == [[3, 2, 1]]
        assert scores.tolist() == [[-1.0, -2.0, -3.0]]
    assert top_n(np.zeros((1, 2, 1)), items, 3)[0].tolist() == [[1, 2, 3]]  # who has no interest scores all the same


def test_padding_is_never_returned_and_ties_go_to_the_lower_id():
    items = np.array([[100.0], [1.0], [2.0], [2.0], [2.0]])  # padding would score best
    ids, scores = top_n(np.array([[1.0], [-1.0]]), items, 2)
    # Row 0: items 2, 3 and 4 all score 2, two of them fit. Row 1: item 1 scores -1, then the same three score -2.
    assert ids.tolist() == [[2, 3], [1, 2]]
    assert scores.tolist() == [[2.0, 2.0], [-1.0, -2.0]]


def test_a_user_with_too_few_items_left_gets_id_0_and_minus_infinity():
    items = np.array([[0.0], [1.0], [2.0], [3.0]])
    ids, scores = top_n(np.array([[1.0], [1.0]]), items, 3, exclude=csr([[3, 1], [1, 2, 3]]))
    inf = float("inf")
    assert ids.tolist() == [[2, 0, 0], [0, 0, 0]]
    assert scores.tolist() == [[2.0, -inf, -inf], [-inf, -inf, -inf]]


def test_no_users_give_no_rows():
    ids, scores = top_n(np.empty((0, 2)), np.ones((4, 2)), 3)
    assert ids.shape == scores.shape == (0, 3)


def test_arguments_are_never_changed():
    users, items = np.ones((3, 2, 2), dtype=np.float32), np.ones((5, 2), dtype=np.float32)
    users[1, 0] = 0
    indptr, excluded = csr([[1], [], [2, 3]])
    for array in (users, items, indptr, excluded):
        array.flags.writeable = False  # a write raises
    for each in (users, users[:, 0]):
        top_n(each, items, 2, exclude=(indptr, excluded), block_size=2)


ONES = np.ones((3, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, r"`n` must be an integer of at least 1; got 0"),
        ({"n": 5}, r"`n` must be at most V - 1 = 4, the number of items; got 5"),
        ({"block_size": 0}, r"`block_size` must be an integer"),
        ({"user_vectors": np.ones(2)}, r"`user_vectors` must have shape \(B, D\) or \(B, K, D\); got shape \(2,\)"),
        ({"user_vectors": np.ones((3, 0, 2))}, r"`user_vectors` must have at least one vector for each user; got sh"),
        ({"user_vectors": np.ones((3, 2, 1, 2))}, r"must have shape \(B, D\) or \(B, K, D\); got shape \(3, 2, 1, 2\)"),
        ({"user_vectors": np.ones((3, 2, 3))}, r"same width D; got shapes \(3, 2, 3\) and \(5, 2\)"),
        (
            {"user_vectors": np.array([[[1, 2], [3, 0]], [[1, 2], [np.nan, 0]]])},
            r"`user_vectors` must be finite; got nan at row 1, vector 1, column 0",
        ),
        ({"user_vectors": np.ones((3, 3))}, r"same width D; got shapes \(3, 3\) and \(5, 2\)"),
        (
            {"user_vectors": np.array([[1, 2], [np.nan, 0]])},
            r"`user_vectors` must be finite; got nan at row 1, column 0",
        ),
        ({"user_vectors": np.array([["a", "b"]])}, r"`user_vectors` must hold numbers"),
        ({"item_vectors": np.full((5, 2), np.inf)}, r"`item_vectors` must be finite; got inf at row 0, column 0"),
        ({"item_vectors": np.full((5, 2), 1e300)}, r"`item_vectors` must be finite; got inf"),  # float32 overflow
        ({"item_vectors": np.full((5, 2), 3e38)}, r"inner products within float32"),
        ({"item_vectors": np.ones((1, 2))}, r"`item_vectors` must have a row of padding and at least one item"),
        ({"exclude": [1, 2, 3]}, r"`exclude` must be a pair \(indptr, item ids\); got list"),
        ({"exclude": csr([[1], [2]])}, r"the indptr of `exclude` must have shape \(4,\); got shape \(3,\)"),
        ({"exclude": csr([[1], [5], []])}, r"the item ids of `exclude` must be between 0 and 4; got 5 at position 1"),
        ({"exclude": csr([[1], [-1], []])}, r"the item ids of `exclude` must be between 0 and 4; got -1"),
        (
            {"exclude": (np.array([0, 2, 1, 2]), np.array([1, 2]))},
            r"the indptr of `exclude` must start at 0, never fall",
        ),
        ({"exclude": (np.array([0, 1, 2, 2]), np.array([1]))}, r"end at the number of item ids, 1; got 0 first and 2"),
        ({"exclude": (np.array([0, 0, 0, 1]), np.array([1.0]))}, r"the item ids of `exclude` must hold integers"),
        ({"among": []}, r"`among` must hold at least one item id; got none. Leave it out to search all items."),
        ({"among": [0, 0]}, r"`among` must hold at least one item id; got none"),  # padding alone
        ({"among": [1, 5]}, r"the ids of `among` must be between 0 and 4; got 5 at position 1"),
        ({"among": [1.0, 2.0]}, r"the ids of `among` must hold integers; got dtype float64"),
        ({"among": np.ones(5, bool)}, r"the ids of `among` must hold integers; .* np.flatnonzero\(mask\) makes"),
        ({"among": [[1, 2], [1, 2], [1, 2]]}, r"the ids of `among` must be one-dimensional; got shape \(3, 2\)"),
        ({"among": 3}, r"the ids of `among` must be one-dimensional; got shape \(\)"),
        ({"among": csr([[1], [2]])}, r"the indptr of `among` must have shape \(4,\); got shape \(3,\)"),
        ({"among": csr([[1], [5], []])}, r"the item ids of `among` must be between 0 and 4; got 5 at position 1"),
    ],
)
def test_refuses_what_does_not_fit(arguments, message):
    defaults = {"user_vectors": ONES, "item_vectors": np.ones((5, 2)), "n": 2}
    with pytest.raises(ValueError, match=message):
        top_n(**{**defaults, **arguments})
