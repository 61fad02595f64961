"""Ranks against slow loops, metrics by hand, and what is refused."""

from __future__ import annotations

import math
import warnings

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from deepmatch_ext.evaluation import (
    MISSED,
    SeenTargetsWarning,
    evaluate,
    evaluate_vectors,
    format_table,
    ranking_metrics,
    target_ranks,
)
from deepmatch_ext.retrieval import top_n
from tests.helpers import csr, true_scores

pytestmark = pytest.mark.plain

untold = pytest.mark.filterwarnings("ignore::deepmatch_ext.evaluation.SeenTargetsWarning")


def rows_of(scores):
    return lambda start, stop: scores[start:stop]


def slow_ranks(scores, targets, seen):
    """The definition, one item at a time."""
    ranks = []
    for row, target, had in zip(scores.tolist(), targets, seen, strict=True):
        others = [i for i in range(1, len(row)) if i != target and i not in had]
        ranks.append(MISSED if target in had else sum(row[i] >= row[target] for i in others))
    return ranks


def slow_metrics(ranks, groups, n):
    """The definitions, one user at a time."""
    users = {}
    for rank, group in zip(ranks, groups, strict=True):
        users.setdefault(group, []).append(rank)
    hr, ndcg, mrr, recall = [], [], [], []
    for user_ranks in users.values():
        user_ranks = [max(rank, place) for place, rank in enumerate(sorted(user_ranks))]  # no two share a place
        inside = [r for r in user_ranks if r < n]
        hr.append(bool(inside))
        recall.append(len(inside) / len(user_ranks))
        mrr.append(1 / (min(inside) + 1) if inside else 0)
        ideal = sum(1 / math.log2(place + 2) for place in range(min(len(user_ranks), n)))
        ndcg.append(sum(1 / math.log2(r + 2) for r in inside) / ideal)
    figures = {"HR": hr, "NDCG": ndcg, "MRR": mrr, "Recall": recall}
    return {f"{name}@{n}": sum(values) / len(users) for name, values in figures.items()}


@st.composite
def ranking_cases(draw):
    rows, vocabulary_size = draw(st.integers(1, 6)), draw(st.integers(2, 8))
    value = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0, math.inf])  # few values: ties are frequent
    row = st.lists(value, min_size=vocabulary_size, max_size=vocabulary_size)
    scores = np.array(draw(st.lists(row, min_size=rows, max_size=rows)))
    targets = draw(st.lists(st.integers(1, vocabulary_size - 1), min_size=rows, max_size=rows))
    ids = st.lists(st.integers(0, vocabulary_size - 1), max_size=12)  # repeats, padding and the target too
    seen = draw(st.lists(ids, min_size=rows, max_size=rows))
    return scores, np.array(targets), seen, draw(st.integers(1, rows + 1))


@untold
@given(ranking_cases())
def test_ranks_equal_a_slow_loop_at_any_block_size(case):
    scores, targets, seen, block_size = case
    ranks = target_ranks(rows_of(scores), targets, seen=csr(seen), block_size=block_size)
    assert ranks.tolist() == slow_ranks(scores, targets, seen)
    assert ranks.dtype == np.int64
    assert target_ranks(rows_of(scores), targets).tolist() == slow_ranks(scores, targets, [[]] * len(targets))


def test_ranks_by_hand():
    scores = np.array([[9.0, 0.3, 0.5, 0.5, 0.1], [9.0, 0.0, 0.0, 0.0, 0.0]])
    targets = np.array([3, 2])
    # Row 0: only item 2 scores at least 0.5. Row 1: all three others tie with the target and count against it.
    assert target_ranks(rows_of(scores), targets).tolist() == [1, 3]
    # Row 0 has seen item 2, named twice: it counts once. Row 1 has seen items 3 and 4.
    assert target_ranks(rows_of(scores), targets, seen=csr([[2, 2], [3, 4]])).tolist() == [0, 1]
    # Row 1 has seen its target, which is then never served.
    with pytest.warns(SeenTargetsWarning):
        assert target_ranks(rows_of(scores), targets, seen=csr([[2, 2], [2, 4]])).tolist() == [0, MISSED]


@untold
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(2, 9), st.integers(1, 7))
def test_a_hit_is_a_target_that_is_served(seed, rows, vocabulary_size, block_size):
    rng = np.random.default_rng(seed)
    items = np.eye(vocabulary_size)
    users = rng.permuted(np.tile(np.arange(vocabulary_size), (rows, 1)), axis=1)  # scores without ties
    targets = rng.integers(1, vocabulary_size, rows)
    seen = csr([rng.integers(0, vocabulary_size, rng.integers(0, 9)).tolist() for _ in range(rows)])
    ns = range(1, vocabulary_size)
    served, _ = top_n(users, items, vocabulary_size - 1, exclude=seen)
    figures = evaluate_vectors(users, items, targets, seen=seen, ns=[*ns, 10**12], block_size=block_size)
    for n in [*ns, 10**12]:
        places = [row[:n].tolist().index(t) if t in row[:n] else None for row, t in zip(served, targets, strict=True)]
        gains = [0 if place is None else 1 / math.log2(place + 2) for place in places]
        assert figures[f"HR@{n}"] == pytest.approx(np.mean([place is not None for place in places]))
        assert figures[f"NDCG@{n}"] == pytest.approx(np.mean(gains))
        assert figures[f"MRR@{n}"] == pytest.approx(np.mean([0 if p is None else 1 / (p + 1) for p in places]))
        assert figures[f"Recall@{n}"] == figures[f"HR@{n}"]


@untold
@given(ranking_cases(), st.data())
def test_left_out_rows_count_in_no_average(case, data):
    scores, targets, seen, block_size = case
    groups = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(targets), max_size=len(targets))))
    kept = np.array([target not in had for target, had in zip(targets, seen, strict=True)])
    for users in (None, groups):
        options = {"seen": csr(seen), "seen_targets": "leave_out", "ns": [1, 3], "block_size": block_size}
        if not kept.any():
            with pytest.raises(ValueError, match="`targets` must have a target that is not in `seen` with"):
                evaluate(rows_of(scores), targets, groups=users, **options)
            continue
        figures = evaluate(rows_of(scores), targets, groups=users, **options)
        options |= {"seen": csr([had for had, keep in zip(seen, kept, strict=True) if keep])}
        users = None if users is None else users[kept]
        assert figures == evaluate(rows_of(scores[kept]), targets[kept], groups=users, **options)


def test_targets_that_were_seen_are_told_once_with_their_number():
    scores = np.array([[0.0, 0.6, 0.5, 0.2], [0.0, 0.1, 0.4, 0.3], [0.0, 0.1, 0.4, 0.3]])
    users, items, targets = scores, np.eye(4), np.array([1, 2, 3])
    seen = csr([[], [2, 0, 2], [1, 3]])
    calls = [
        lambda **how: target_ranks(rows_of(scores), targets, seen=seen),
        lambda **how: evaluate(rows_of(scores), targets, seen=seen, ns=[9], **how),
        lambda **how: evaluate_vectors(users, items, targets, seen=seen, ns=[9], block_size=1, **how),
    ]
    for call in calls:
        with pytest.warns(SeenTargetsWarning) as told:
            figures = call()
        (warning,) = told
        text = str(warning.message)
        assert text.startswith("2 of 3 targets are in their own row's `seen`, whose items are not recommended; the ")
        assert (
            "the first is item 2 in row 1. Each is a miss at every N, since it is never recommended; seen_targets="
            in text
        )
        assert "If your product recommends items again, leave `seen` out" in text
        assert warning.filename == __file__  # the caller's line, not one of ours
        if call is calls[0]:
            assert figures.tolist() == [0, MISSED, MISSED]
            continue
        assert figures["HR@9"] == 1 / 3
        with pytest.warns(SeenTargetsWarning, match="These rows count in no average: 1 are left") as told:
            assert call(seen_targets="leave_out")["HR@9"] == 1
        assert len(told) == 1
    # Padding in `seen`, another row's target and rows without a target among them are nothing to tell.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(rows_of(scores), targets, seen=csr([[0, 2], [1, 3], [0]]), ns=[1], seen_targets="leave_out")


def test_one_user_with_targets_that_were_seen():
    # Ranks 0 and 1, and item 2 again, which is seen by then. User 7 takes 1, 2 and 2, user 8 takes 2, seen.
    scores = np.tile([0.0, 0.9, 0.5, 0.2], (4, 1))
    targets, groups, seen = np.array([1, 2, 2, 2]), np.array([7, 7, 7, 8]), csr([[], [], [2], [2]])
    for how, recall in (("miss", (1 + 0) / 2), ("leave_out", 1.0)):
        with pytest.warns(SeenTargetsWarning, match="2 of 4 targets"):
            figures = evaluate(rows_of(scores), targets, seen=seen, groups=groups, ns=[2], seen_targets=how)
        assert figures["Recall@2"] == recall
    # An item that comes twice counts by its first row, or by the first that is not left out.
    for how, recall in (("miss", 1 / 2), ("leave_out", 1.0)):
        with pytest.warns(SeenTargetsWarning, match="1 of 3 targets"):
            figures = evaluate(
                rows_of(scores[:3]),
                targets[[2, 0, 1]],
                seen=csr([[2], [], []]),
                groups=groups[:3],
                ns=[2],
                seen_targets=how,
            )
        assert figures["Recall@2"] == recall


def test_score_is_asked_for_each_row_once_and_never_for_more_than_a_block():
    scores, asked = np.random.default_rng(0).normal(size=(10, 6)), []
    scores.flags.writeable = False  # a write to what score returned raises

    def score(start, stop):
        asked.append((start, stop))
        return scores[start:stop]

    target_ranks(score, np.full(10, 3), seen=csr([[1, 4]] * 10), block_size=4)
    assert asked == [(0, 4), (4, 8), (8, 10)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32, np.uint8])
def test_scores_of_any_real_dtype(dtype):
    scores = np.array([[0, 3, 1, 2]], dtype=dtype)
    assert target_ranks(rows_of(scores), np.array([3], dtype=np.uint16)).tolist() == [1]


def test_nan_is_refused_with_its_place_but_not_in_the_padding_column():
    scores = np.zeros((4, 5))
    scores[:, 0] = np.nan
    assert target_ranks(rows_of(scores), np.ones(4, int)).tolist() == [3, 3, 3, 3]
    scores[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"score\(2, 4\) must have no NaN; got NaN for row 3, item 2"):
        target_ranks(rows_of(scores), np.ones(4, int), block_size=2)


def test_metrics_by_hand_one_target_a_user():
    figures = ranking_metrics(np.array([0, 2, 5, 60]), ns=(3, 50))
    assert figures == pytest.approx(
        {
            "HR@3": 2 / 4,  # ranks 0 and 2
            "NDCG@3": (1 + 1 / 2) / 4,  # 1 / log2(2) and 1 / log2(4)
            "MRR@3": (1 + 1 / 3) / 4,
            "Recall@3": 2 / 4,
            "HR@50": 3 / 4,
            "NDCG@50": (1 + 1 / 2 + 1 / math.log2(7)) / 4,
            "MRR@50": (1 + 1 / 3 + 1 / 6) / 4,
            "Recall@50": 3 / 4,
        }
    )
    assert list(figures) == [f"{name}@{n}" for n in (3, 50) for name in ("HR", "NDCG", "MRR", "Recall")]


def test_metrics_by_hand_several_targets_a_user():
    # User "a" has ranks 1, 3 and 7; user "b" has rank 9. At 4: a hits with two of three.
    figures = ranking_metrics(np.array([3, 9, 1, 7]), ns=[4], groups=np.array(["a", "b", "a", "a"]))
    dcg, ideal = 1 / math.log2(3) + 1 / math.log2(5), 1 + 1 / math.log2(3) + 1 / 2
    assert figures == pytest.approx(
        {"HR@4": 1 / 2, "NDCG@4": dcg / ideal / 2, "MRR@4": 1 / 2 / 2, "Recall@4": 2 / 3 / 2}
    )
    # At 2 no more than two targets can be inside, so the ideal has two terms; only rank 1 is.
    assert ranking_metrics(np.array([3, 1, 7]), ns=[2], groups=np.array([5, 5, 5]))["NDCG@2"] == pytest.approx(
        (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    )


def test_two_targets_of_a_user_never_share_a_place():
    # Ranks 0 and 0 are taken as places 0 and 1; ranks 4 and 4 (a tie, each counting the other) stand as they are.
    apart = ranking_metrics(np.array([0, 0]), [1, 2], groups=np.array([7, 7]))
    assert (apart["Recall@1"], apart["NDCG@1"], apart["NDCG@2"]) == (1 / 2, 1.0, 1.0)
    assert ranking_metrics(np.array([4, 4]), [5], groups=np.array([7, 7]))["Recall@5"] == 1.0


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(-3, 3)), min_size=1, max_size=15),
    st.integers(1, 12),
)
def test_metrics_equal_slow_loops_and_groups_of_one_change_nothing(rows, n):
    ranks, groups = (np.array(column) for column in zip(*rows, strict=True))
    assert ranking_metrics(ranks, [n], groups=groups) == pytest.approx(slow_metrics(ranks, groups, n))
    alone = ranking_metrics(ranks, [n])
    assert alone == pytest.approx(slow_metrics(ranks, range(len(ranks)), n))
    assert alone[f"Recall@{n}"] == alone[f"HR@{n}"]
    assert ranking_metrics(ranks, [n], groups=np.arange(len(ranks))[::-1]) == pytest.approx(alone)


@untold
@given(ranking_cases(), st.data())
def test_evaluate_stays_within_0_and_1_whatever_the_groups(case, data):
    scores, targets, seen, block_size = case
    groups = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(targets), max_size=len(targets))))
    # Nor do a target that comes twice in a group, or rows of one group with other scores, push NDCG above 1.
    figures = evaluate(rows_of(scores), targets, seen=csr(seen), ns=[1], groups=groups, block_size=block_size)
    assert all(0 <= figure <= 1 + 1e-12 for figure in figures.values())


def test_evaluate_counts_a_target_that_comes_twice_for_one_user_once():
    scores = np.tile([0.0, 3.0, 2.0, 1.0], (4, 1))
    # User 0 wants items 1, 1 and 3 (ranks 0, 0, 2), user 1 wants item 1. At 2: user 0 gets one of two.
    figures = evaluate(rows_of(scores), np.array([1, 1, 3, 1]), ns=[2], groups=np.array([0, 0, 0, 1]))
    assert figures["Recall@2"] == pytest.approx((1 / 2 + 1) / 2)
    # Without groups each row is a user: three of four hit.
    assert evaluate(rows_of(scores), np.array([1, 1, 3, 1]), ns=[2])["Recall@2"] == 3 / 4


def test_a_perfect_scorer_gets_1_and_a_constant_one_gets_0():
    targets = np.arange(1, 30)
    perfect = evaluate(lambda start, stop: np.eye(30)[targets[start:stop]], targets, ns=[1, 10], block_size=7)
    assert set(perfect.values()) == {1.0}
    constant = evaluate(lambda start, stop: np.ones((stop - start, 30)), targets, ns=[1, 10])
    assert set(constant.values()) == {0.0}


@untold
@given(st.integers(0, 1000), st.integers(1, 7))
def test_evaluate_vectors_is_the_inner_product_and_the_best_of_k(seed, block_size):
    rng = np.random.default_rng(seed)
    shape = [(6, 3), (6, 1, 3), (6, 4, 3)][seed % 3]
    users, items = rng.integers(-2, 3, shape), rng.integers(-2, 3, (9, 3))  # whole numbers: exact in float32
    targets, seen = rng.integers(1, 9, 6), csr([[1, 2], [], [3], [4, 5], [8], []])
    scores = true_scores(users, items)
    groups = np.array([0, 0, 1, 2, 2, 2])
    for grouped in (None, groups):
        expected = evaluate(rows_of(scores), targets, seen=seen, ns=(2, 5), groups=grouped)
        assert expected == evaluate_vectors(
            users, items, targets, seen=seen, ns=(2, 5), groups=grouped, block_size=block_size
        )


def test_format_table_aligns_and_marks_what_is_missing():
    table = format_table(
        {"pop": {"HR@10": 0.08594, "NDCG@10": 0.5}, "Markov chain": {"HR@10": 1.0}}, ["HR@10", "NDCG@10"]
    )
    assert table.split("\n") == [
        "               HR@10  NDCG@10",
        "pop           0.0859   0.5000",
        "Markov chain  1.0000        -",
    ]
    with pytest.raises(ValueError, match=r"`columns` must name figures that a row has \(HR@10\); got .HR@20."):
        format_table({"pop": {"HR@10": 0.1}}, ["HR@20"])


SCORES = np.random.default_rng(0).normal(size=(3, 5))
FITTING = {"score": rows_of(SCORES), "targets": np.array([1, 2, 3]), "ns": [2]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": np.array([], dtype=int)}, r"`targets` must hold at least one item id; got none"),
        (
            {"targets": np.array([1, 0, 0])},
            r"`targets` must be at least 1; got 0 at position 1 \(2 out of range in all\)",
        ),
        ({"targets": np.array([1, 2, 5])}, r"`targets` must be between 1 and 4; got 5 at position 2"),
        ({"targets": np.array([1.0, 2.0, 3.0])}, r"`targets` must hold integers; got dtype float64"),
        ({"targets": np.array([True, True, True])}, r"`targets` must hold integers; got dtype bool"),
        ({"targets": np.ones((3, 1), int)}, r"`targets` must be one-dimensional; got shape \(3, 1\)"),
        ({"ns": []}, r"`ns` must hold at least one cut-off; got none"),
        ({"ns": 10}, r"`ns` must be a sequence of integers; got 10"),
        ({"ns": [2, 0]}, r"each of `ns` must be an integer of at least 1; got 0"),
        ({"ns": [2.5]}, r"each of `ns` must be an integer of at least 1; got 2.5"),
        ({"block_size": 0}, r"`block_size` must be an integer of at least 1; got 0"),
        ({"seen": np.array([1, 2])}, r"`seen` must be a pair \(indptr, item ids\); got ndarray"),
        ({"seen": csr([[1], [2]])}, r"the indptr of `seen` must have shape \(4,\); got shape \(3,\)"),
        ({"seen": csr([[2], [7], []])}, r"the item ids of `seen` must be between 0 and 4; got 7 at position 1"),
        ({"seen": csr([[1], [-2], []])}, r"the item ids of `seen` must be at least 0; got -2 at position 1"),
        ({"seen": (np.array([1, 1, 1, 1]), np.array([2]))}, r"the indptr of `seen` must start at 0"),
        (
            {"seen": (np.array([0, 2, 1, 2]), np.array([2, 3]))},
            r"never fall and end at .* got 0 first and 2 last, falling",
        ),
        ({"seen_targets": "skip"}, r"`seen_targets` must be one of 'miss', 'leave_out'; got 'skip'"),
        (
            {"seen": csr([[1], [0, 2], [3]]), "seen_targets": "leave_out"},
            r"`targets` must have a target that is not in `seen` .*; got 3 that are all in .*leave `seen` out",
        ),
        ({"groups": np.array([1, 2])}, r"`groups` must have shape \(3,\); got shape \(2,\)"),
        ({"groups": np.array([1, np.nan, 2])}, r"`groups` must hold integers or strings, none missing; got float64"),
        ({"groups": pd.Series(["a", None, "b"])}, r"`groups` must hold integers or strings, none missing; got mixed"),
        ({"groups": np.array([1, "a", 2], object)}, r"`groups` must hold integers or strings, none missing; got mixed"),
        ({"score": lambda start, stop: SCORES}, r"score\(0, 2\) must return shape \(2, V\).*; got shape \(3, 5\)"),
        ({"score": lambda start, stop: SCORES[start]}, r"score\(0, 2\) must return shape \(2, V\).*; got shape \(5,\)"),
        ({"score": lambda start, stop: SCORES[start:stop, : 5 - start]}, r"score\(2, 3\) must return shape \(1, 5\)"),
        ({"score": lambda start, stop: SCORES[start:stop] > 0}, r"score\(0, 2\) must return numbers; got dtype bool"),
    ],
)
def test_evaluate_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(**{**FITTING, "block_size": 2, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ranks": np.array([], dtype=int)}, r"`ranks` must hold at least one rank; got none"),
        ({"ranks": np.array([1, -1])}, r"`ranks` must be at least 0; got -1 at position 1"),
        ({"ns": [0]}, r"each of `ns` must be an integer of at least 1; got 0"),
        ({"groups": np.array([1])}, r"`groups` must have shape \(2,\); got shape \(1,\)"),
        ({"seen_targets": True}, r"`seen_targets` must be one of 'miss', 'leave_out'; got True"),
        (
            {"ranks": np.array([MISSED, MISSED]), "seen_targets": "leave_out"},
            r"`ranks` must hold a rank that is not MISSED, with seen_targets='leave_out'; got 2 that are",
        ),
    ],
)
def test_ranking_metrics_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        ranking_metrics(**{"ranks": np.array([0, 1]), **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user_vectors": np.ones(2)}, r"`user_vectors` must have shape \(B, D\) or \(B, K, D\); got shape \(2,\)"),
        ({"user_vectors": np.ones((2, 0, 2))}, r"`user_vectors` must have at least one vector for each user; got sh"),
        ({"user_vectors": np.ones((3, 2, 2))}, r"`targets` must have shape \(3,\); got shape \(2,\)"),
        ({"user_vectors": np.ones((2, 3))}, r"user_vectors and item_vectors must have the same width D"),
        ({"user_vectors": np.full((2, 2), np.nan)}, r"`user_vectors` must be finite; got nan at row 0, column 0"),
        ({"targets": np.array([1, 2, 3])}, r"`targets` must have shape \(2,\); got shape \(3,\)"),
        ({"targets": np.array([1, 4])}, r"`targets` must be between 1 and 3; got 4 at position 1"),
    ],
)
def test_evaluate_vectors_refuses_what_does_not_fit(arguments, message):
    defaults = {
        "user_vectors": np.ones((2, 2)),
        "item_vectors": np.ones((4, 2)),
        "targets": np.array([1, 2]),
        "ns": [2],
    }
    with pytest.raises(ValueError, match=message):
        evaluate_vectors(**{**defaults, **arguments})
