"""Popularity and Markov against dense counting, and against known figures on real data where that is at hand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from deepmatch_ext.data import Interactions
from deepmatch_ext.evaluation import Markov, Popularity, evaluate
from deepmatch_ext.evaluation.baselines import ALS, ItemKNN, has_implicit

pytestmark = pytest.mark.plain


@dataclass
class FewInteractions:
    """The least that from_interactions reads."""

    sequences: np.ndarray
    items: np.ndarray
    item_vocabulary_size: int

    @property
    def is_target(self):
        return np.ones(len(self.items), bool)

    def item_counts(self, rows):
        return np.bincount(self.items[rows], minlength=self.item_vocabulary_size)


@st.composite
def interaction_cases(draw):
    vocabulary_size = draw(st.integers(2, 6))
    pairs = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, vocabulary_size - 1)), min_size=1, max_size=20))
    users, items = np.array(sorted(user for user, _ in pairs)), np.array([item for _, item in pairs])
    is_training = draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    return FewInteractions(users, items, vocabulary_size), np.flatnonzero(is_training)


@given(interaction_cases())
def test_both_equal_dense_counting(case):
    interactions, rows = case
    size = interactions.item_vocabulary_size
    popularity, transitions = [0] * size, [[0] * size for _ in range(size)]
    training = set(rows.tolist())
    for row in training:
        popularity[interactions.items[row]] += 1
        if row - 1 in training and interactions.sequences[row - 1] == interactions.sequences[row]:
            transitions[interactions.items[row - 1]][interactions.items[row]] += 1

    last_items = np.arange(size)
    scores = Popularity.from_interactions(interactions, rows).score(last_items)
    assert scores.tolist() == [popularity] * size
    most = max(popularity) or 1
    expected = [[count + 1e-6 * p / most for count, p in zip(row, popularity, strict=True)] for row in transitions]
    markov = Markov.from_interactions(interactions, rows)
    np.testing.assert_allclose(markov.score(last_items), expected, rtol=1e-14)
    # Last items in another order, with repeats: each row on its own.
    shuffled = np.random.default_rng(0).integers(0, size, 9)
    np.testing.assert_array_equal(markov.score(shuffled), markov.score(last_items)[shuffled])


def test_pairs_by_hand():
    # User 1: 1 2 3, user 2: 3 1 2. Row 2 (user 1's last) is held out, so 2 -> 3 is no pair; 3 (row 2) -> 3 (row 3)
    # crosses users and is none either. Left: 1 -> 2 twice and 3 -> 1.
    interactions = FewInteractions(np.array([1, 1, 1, 2, 2, 2]), np.array([1, 2, 3, 3, 1, 2]), 4)
    markov = Markov.from_interactions(interactions, np.array([0, 1, 3, 4, 5]))
    assert np.round(markov.score(np.array([0, 1, 2, 3])), 3).tolist() == [
        [0, 0, 0, 0],
        [0, 0, 2, 0],
        [0, 0, 0, 0],
        [0, 1, 0, 0],
    ]
    # Without a transition popularity sets the order: items 1 and 2 came twice, item 3 once.
    assert markov.score(np.array([0]))[0].tolist() == [0, 1e-6, 1e-6, 0.5e-6]


def test_popularity_only_breaks_ties():
    counts = np.array([0, 1, 10**9, 5])  # item 2 is a billion times as popular
    markov = Markov.fit(np.array([1] * 5), np.array([1, 1, 1, 2, 2]), 4, counts)
    ones, twos, threes = markov.score(np.array([1]))[0, 1:]
    assert ones > twos > threes  # three transitions beat two, whatever the popularity
    many = Markov.fit(np.ones(4000, int), np.repeat([1, 2], 2000), 4, counts).score(np.array([1]))[0]
    assert many[2] > many[1]  # and at a count of 2,000, where float32 has no room for it, popularity breaks the tie


def test_fit_without_counts_takes_the_popularity_of_the_next_items():
    markov = Markov.fit(np.array([1, 1, 2]), np.array([2, 2, 3]), 4)
    assert markov.score(np.array([0]))[0].tolist() == [0, 0, 1e-6, 0.5e-6]


def test_no_pairs_leave_popularity():
    none = np.array([], dtype=np.int64)
    assert Markov.fit(none, none, 3, np.array([0, 1, 2])).score(np.array([1]))[0].tolist() == [0, 0.5e-6, 1e-6]
    assert Markov.fit(none, none, 3).score(np.array([1])).tolist() == [[0, 0, 0]]


def test_the_chain_is_found_where_there_is_one_and_not_where_there_is_none():
    # 200 users walk the cycle 1 -> 2 -> ... -> 20 -> 1 from a random start. Shuffled, the same items have no order.
    rng = np.random.default_rng(0)
    walks = (rng.integers(0, 20, (200, 1)) + np.arange(12)) % 20 + 1
    figures = []
    for items in (walks, rng.permuted(walks, axis=1)):
        interactions = FewInteractions(np.repeat(np.arange(200), 12), items.ravel(), 21)
        training = np.flatnonzero(np.arange(items.size) % 12 != 11)
        markov, before = Markov.from_interactions(interactions, training), items[:, 10]
        figures.append(evaluate(lambda a, b, m=markov, x=before: m.score(x[a:b]), items[:, 11], ns=[1])["HR@1"])
    assert figures[0] == 1.0
    assert figures[1] < 0.25  # chance is 1 / 20; items that sit close on the cycle still share users


def test_caller_keeps_their_arrays():
    counts = np.array([7.0, 1.0, 2.0])
    popularity = Popularity(counts)
    assert counts.tolist() == [7.0, 1.0, 2.0]  # padding is zeroed in a copy
    counts[1] = 100
    assert popularity.score(np.array([0, 1])).tolist() == [[0, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Popularity(np.ones((2, 2))), r"`item_counts` must have shape \(V,\)"),
        (lambda: Popularity([[1], [1, 2]]), r"`item_counts` must have shape \(V,\), .*; got \[\[1\], \[1, 2\]\]"),
        (lambda: Popularity(np.array([0, 1, -1])), r"`item_counts` must be finite and not negative; got -1"),
        (lambda: Popularity(np.array([0, np.nan])), r"`item_counts` must be finite and not negative; got nan"),
        (lambda: Popularity(np.array(["a", "b"])), r"`item_counts` must hold numbers"),
        (lambda: Popularity(np.ones(3)).score(np.array([3])), r"`last_items` must be between 0 and 2; got 3"),
        (lambda: Markov.fit(np.array([0]), np.array([1]), 3), r"`previous_items` must be between 1 and 2; got 0"),
        (lambda: Markov.fit(np.array([1]), np.array([3]), 3), r"`next_items` must be between 1 and 2; got 3"),
        (
            lambda: Markov.fit(np.array([1]), np.array([1, 2]), 3),
            r"`next_items` must have shape \(1,\); got shape \(2,\)",
        ),
        (lambda: Markov.fit(np.array([1]), np.array([1]), 1), r"`vocabulary_size` must be an integer of at least 2"),
        (lambda: Markov.fit(np.array([1]), np.array([1]), 3, np.ones(4)), r"`item_counts` must have shape \(3,\)"),
        (
            lambda: Markov.fit(np.array([1]), np.array([1]), 3).score(np.array([-1])),
            r"`last_items` must be between 0 and",
        ),
        (lambda: Markov.from_interactions(THREE, np.array([1, 0])), r"`rows` must ascend, without repeats"),
        (lambda: Popularity.from_interactions(THREE, np.array([1, 1])), r"`rows` must ascend, without repeats"),
        (lambda: Markov.from_interactions(THREE, np.array([1, 3])), r"`rows` must be between 0 and 2; got 3"),
    ],
)
def test_refuses_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()


THREE = FewInteractions(np.array([1, 1, 1]), np.array([1, 2, 1]), 3)


# HR@10, NDCG@10, Recall@50 that an independent script (scipy matrices, masked scores) finds under the same protocol:
# test is each user's last item, everything before it is training and is left out of the ranking.
KNOWN = {
    "ml-100k": {"Popularity": (0.086, 0.044, 0.198), "Markov": (0.145, 0.079, 0.339)},
    "ml-1m": {"Popularity": (0.036, 0.018, 0.140), "Markov": (0.215, 0.126, 0.395)},
    "amazon-beauty": {"Popularity": (0.013, 0.006, 0.037), "Markov": (0.076, 0.050, 0.113)},
}


@pytest.mark.skipif(
    "DEEPMATCH_EXT_DATA" not in os.environ,
    reason="DEEPMATCH_EXT_DATA does not name the folder of real data, which may not be redistributed",
)
@pytest.mark.parametrize("name", KNOWN)
def test_known_figures_on_real_data(name):
    with np.load(Path(os.environ["DEEPMATCH_EXT_DATA"]) / name / "seq.npz") as data:
        indptr, items = data["indptr"], data["items"]
    users, last = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), indptr[1:] - 1
    training = np.setdiff1d(np.arange(len(items)), last)
    interactions = FewInteractions(users, items, int(items.max()) + 1)
    seen = (indptr - np.arange(len(indptr)), items[training])
    before = items[last - 1]
    for baseline in (Popularity, Markov):
        fitted = baseline.from_interactions(interactions, training)
        figures = evaluate(lambda a, b, f=fitted: f.score(before[a:b]), items[last], seen=seen)
        got = (figures["HR@10"], figures["NDCG@10"], figures["Recall@50"])
        assert got == pytest.approx(KNOWN[name][baseline.__name__], abs=0.0006)


needs_implicit = pytest.mark.skipif(not has_implicit(), reason="the package `implicit` is not installed")


@needs_implicit
def test_item_knn_scores_by_the_cosine_of_who_had_what():
    x = Interactions.from_sequences([0, 3, 5, 7], [1, 2, 3, 1, 2, 2, 3])
    had = np.zeros((4, 4))
    had[x.users, x.items] = 1
    unit = had / np.maximum(np.linalg.norm(had, axis=0, keepdims=True), 1e-12)
    expected = had @ (unit.T @ unit)
    scores = ItemKNN.from_interactions(x, np.arange(7), k=10).score(np.array([1, 2, 3]))
    np.testing.assert_allclose(scores, expected[1:], rtol=1e-6)


@needs_implicit
def test_als_finds_who_likes_what():
    sequences = [[1, 2, 3], [1, 2], [4, 5, 6], [5, 6]] * 5
    x = Interactions.from_sequences(np.cumsum([0, *map(len, sequences)]), np.concatenate(sequences))
    scores = ALS.from_interactions(x, np.arange(len(x)), factors=2).score(np.array([2, 4]))
    assert scores[0, 3] > scores[0, 4:].max()  # user 2 had 1 and 2
    assert scores[1, 4] > scores[1, 1:4].max()


@pytest.mark.skipif(has_implicit(), reason="the package `implicit` is installed")
def test_without_implicit_the_error_says_what_to_install():
    x = Interactions.from_sequences([0, 2], [1, 2])
    for peer in (ItemKNN, ALS):
        with pytest.raises(ImportError, match=r"implicit.*\.\[baselines\]"):
            peer.from_interactions(x, np.arange(2))


def events_of_cliques():
    """Users of two groups, each with items of its own: 1 to 5, and 6 to 10, of which a user has four of five."""
    groups, had = np.arange(40) % 2, np.random.default_rng(0).permuted(np.tile(np.arange(1, 6), (40, 1)), axis=1)[:, :4]
    return Interactions.from_sequences(np.arange(0, 161, 4), (had + 5 * groups[:, None]).ravel())


@needs_implicit
@pytest.mark.parametrize(("peer", "settings"), [(ItemKNN, {}), (ALS, {"factors": 2})])
def test_histories_of_nobody_are_scored_as_those_of_users(peer, settings):
    x = events_of_cliques()
    scorer = peer.from_interactions(x, np.arange(len(x)), **settings)
    users = np.arange(1, 41)
    by_history = scorer.score_histories((x.indptr[1:], x.items))
    # Within the noise of a last step of ALS; the same sums for item-kNN.
    assert np.corrcoef(by_history.ravel(), scorer.score(users).ravel())[0, 1] > 0.99
    if peer is ItemKNN:
        np.testing.assert_allclose(by_history, scorer.score(users), rtol=1e-6)
    # Strangers with two items of a group, in any order, with repeats and padding, get that group's items.
    scores = scorer.score_histories(([0, 2, 6, 6], [1, 2, 7, 8, 8, 0]))
    assert scores[0, 1:6].min() > scores[0, 6:].max()
    assert scores[1, 6:].min() > scores[1, 1:6].max()
    np.testing.assert_allclose(scores[1], scorer.score_histories(([0, 2], [8, 7]))[0], rtol=1e-5)
    assert not scores[2].any()
    with pytest.raises(ValueError, match="the item ids of `histories` must be between 0 and 10; got 11"):
        scorer.score_histories(([0, 1], [11]))
    with pytest.raises(ValueError, match="`histories` must be a pair"):
        scorer.score_histories([1, 2, 3])


@pytest.mark.parametrize(
    ("users", "words"),
    [
        ([1, -1], "`users` must be between 0 and 2; got -1 at position 1"),
        ([3], "`users` must be between 0 and 2; got 3 at position 0"),
        ([1.9], "`users` must hold integers; got dtype float64"),
        ([[1]], "`users` must be one-dimensional"),
    ],
)
@pytest.mark.parametrize("peer", [ItemKNN, ALS])
def test_users_that_there_are_not_are_refused(peer, users, words):
    scorer = peer(np.ones((3, 4)), SimpleNamespace(user_factors=np.ones((3, 2)), item_factors=np.ones((4, 2))))
    with pytest.raises(ValueError, match=words):
        scorer.score(users)


@needs_implicit
def test_als_solves_for_the_user_of_a_history():
    x = events_of_cliques()
    scorer = ALS.from_interactions(x, np.arange(len(x)), factors=4)
    items, model = scorer._model.item_factors.astype(float), scorer._model
    # Hu, Koren and Volinsky: (Y'Y + Y' (C - I) Y + r I) u = Y' C p, with C and p 1 where nothing is weighted.
    had = [3, 4, 9]
    left = items.T @ items + (model.alpha - 1) * items[had].T @ items[had] + model.regularization * np.eye(4)
    expected = items @ np.linalg.solve(left, model.alpha * items[had].sum(axis=0))
    np.testing.assert_allclose(scorer.score_histories(([0, 3], had))[0], expected, atol=1e-4)
