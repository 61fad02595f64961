"""diversify against the greedy loop that it replaces, what it does with gaps, and what it refuses."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from deepmatch_ext.retrieval import diversify, top_n

pytestmark = pytest.mark.plain


def greedy(ids, scores, categories, n, penalty):
    """One place after another, as ComiRec's paper says it; None is a category of the item alone."""
    chosen = []
    for row, row_scores in zip(ids.tolist(), scores.tolist(), strict=True):
        taken = []
        while len(taken) < n:
            worth = []
            for place, item in enumerate(row):
                if item == 0 or np.isneginf(row_scores[place]) or place in taken:
                    continue
                own = categories[item]
                same = sum(categories[row[other]] == own for other in taken) if own not in (None, "") else 0
                worth.append((row_scores[place] - penalty * same, -place))
            if not worth:
                break
            taken.append(-max(worth)[1])
        chosen.append([row[place] for place in taken] + [0] * (n - len(taken)))
    return chosen


@st.composite
def cases(draw):
    width, rows = draw(st.integers(1, 7)), draw(st.integers(0, 4))
    vocabulary = draw(st.integers(width + 1, 10))
    ids = [draw(st.permutations(range(1, vocabulary)))[:width] for _ in range(rows)]
    ids = np.array(ids, np.int64).reshape(rows, width)
    gaps = np.array(draw(st.lists(st.booleans(), min_size=ids.size, max_size=ids.size)), bool).reshape(ids.shape)
    # Eighths, exact in any precision, so that ties of score and penalty are frequent.
    scores = np.array(draw(st.lists(st.integers(-8, 8), min_size=ids.size, max_size=ids.size))).reshape(ids.shape) / 8
    kinds = draw(st.sampled_from([["a", "b", "", None], [1, 2, 3], [1.5, None]]))
    categories = draw(st.lists(st.sampled_from(kinds), min_size=vocabulary, max_size=vocabulary))
    return np.where(gaps, 0, ids), scores, categories, draw(st.integers(1, width)), draw(st.integers(0, 12)) / 8


@given(cases())
def test_it_is_the_greedy_loop_s_list(case):
    ids, scores, categories, n, penalty = case
    before = ids.copy(), scores.copy()
    found, of_found = diversify(ids, scores, categories, n, penalty=penalty)
    assert found.tolist() == greedy(*case)
    assert found.dtype == np.int64
    assert of_found.dtype == np.float32
    for row in range(len(ids)):
        given_scores = dict(zip(ids[row].tolist(), scores[row].tolist(), strict=True)) | {0: -np.inf}
        assert of_found[row].tolist() == [given_scores[item] for item in found[row].tolist()]
    np.testing.assert_array_equal(ids, before[0])
    np.testing.assert_array_equal(scores, before[1])


def test_without_a_penalty_it_is_top_n_and_with_a_large_one_categories_take_turns():
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(20, 3, 8)), rng.normal(size=(200, 8))
    genres = pd.Series(rng.integers(0, 5, 200))
    ids, scores = top_n(users, items, 100)
    for mine, theirs in zip(diversify(ids, scores, genres, 10, penalty=0), top_n(users, items, 10), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    found, _ = diversify(ids, scores, genres, 10, penalty=1e6)
    for row in genres.to_numpy()[found]:
        assert sorted(row[:5]) == sorted(row[5:]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [1, 2]}, r"`ids` and `scores` must both have shape \(B, C\); got shapes \(2,\) and \(1, 2\)"),
        ({"scores": [[0.5]]}, r"`ids` and `scores` must both have shape \(B, C\)"),
        ({"ids": [[1.0, 2.0]]}, "`ids` must hold integers; got dtype float64"),
        ({"ids": [[1, 4]]}, "`ids` must be between 0 and 3; got 4 at position 1 .* `categories` has an entry for each"),
        ({"ids": [[-1, 2]]}, "`ids` must be between 0 and 3; got -1"),
        ({"ids": [[2, 2]]}, "`ids` must hold each item once in a row; got item 2 twice in row 0"),
        ({"scores": [[0.5, np.nan]]}, "`scores` must be numbers below infinity; got nan at row 0, column 1"),
        ({"scores": [[np.inf, 0.5]]}, "`scores` must be numbers below infinity; got inf at row 0, column 0"),
        ({"scores": [["a", "b"]]}, "`scores` must hold numbers; got dtype"),
        ({"categories": "abcd"}, r"`categories` must have shape \(V,\)"),
        ({"categories": [[1, 2], [3, 4], [5, 6], [7, 8]]}, r"`categories` must have shape \(V,\)"),
        ({"categories": [[], ["a"], ["a", "b"], []]}, "`categories` must have one category for each item"),
        ({"categories": []}, r"`categories` must have shape \(V,\)"),
        ({"n": 3}, "`n` must be at most 2, the number of candidates in each row of `ids`; got 3"),
        ({"n": 0}, "`n` must be an integer of at least 1; got 0"),
        ({"penalty": -0.1}, "`penalty` must be"),
        ({"penalty": np.nan}, "`penalty` must be"),
        ({"penalty": "much"}, "`penalty` must be"),
    ],
)
def test_refusals(change, message):
    arguments = {"ids": [[1, 2]], "scores": [[0.5, 0.4]], "categories": [0, 1, 1, 2], "n": 1, "penalty": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        diversify(**arguments)
