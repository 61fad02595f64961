"""The generator: seeded, well formed, and with structure that a model can and a count of items cannot find."""

import itertools

import numpy as np
import pytest

from deepmatch_ext.data import (
    leave_last_out,
    seen_before,
    synthetic_intents,
    synthetic_interactions,
    synthetic_pairs,
    synthetic_sessions,
    windows,
)

pytestmark = pytest.mark.plain


@pytest.fixture(scope="module")
def data():
    return synthetic_interactions()


def hit_rate(scores, interactions, rows, top=10):
    """Full ranking without the user's earlier items; a tie counts against the model."""
    target = scores[np.arange(len(rows)), interactions.items[rows]][:, None]
    indptr, items = seen_before(interactions, rows)
    scores = scores.copy()
    scores[np.repeat(np.arange(len(rows)), np.diff(indptr)), items] = -np.inf
    scores[:, 0] = -np.inf
    return float(((scores >= target).sum(axis=1) - 1 < top).mean())


def three_scorers(interactions, item_genres, lags=8, recency=1.0):
    """HR@10 of popularity, of first-order transitions, and of an oracle that knows which structure was planted.

    The oracle weighs the item ``k`` steps back by ``1 / k ** recency``: 0 is a history without order.
    """
    x, split = interactions, leave_last_out(interactions)
    size, rows = x.item_vocabulary_size, split.test
    popularity = x.item_counts(split.train).astype(float)
    learn = windows(x, split.train_targets(), lags)
    history = windows(x, rows, lags)["hist_item_id"]

    first = np.zeros((size, size))
    np.add.at(first, (learn["hist_item_id"][:, 0], learn["item_id"]), 1)
    together = np.zeros((size, size))
    for lag in range(lags):
        np.add.at(together, (learn["hist_item_id"][:, lag], learn["item_id"]), (lag + 1) ** -recency)
    smooth = 10  # observations that popularity counts for
    chance = (together + smooth * popularity / popularity.sum()) / (together.sum(axis=1, keepdims=True) + smooth)
    chance[0] = 0

    weights = (history > 0) * np.arange(1.0, lags + 1) ** -recency
    weights /= weights.sum(axis=1, keepdims=True)
    taste = np.zeros((len(rows), item_genres.max() + 1))
    oracle = np.zeros((len(rows), size))
    for lag in range(lags):
        oracle += weights[:, lag, None] * chance[history[:, lag]]
        np.add.at(taste, (np.arange(len(rows)), item_genres[history[:, lag]]), weights[:, lag])
    of_genre = np.maximum(np.bincount(item_genres, weights=popularity), 1)
    oracle += 0.5 * taste[:, item_genres] * popularity / of_genre[item_genres]

    everyone = np.broadcast_to(popularity, oracle.shape)
    markov = first[history[:, 0]] + 1e-6 * popularity  # popularity decides between items never seen to follow
    return [hit_rate(scores, x, rows) for scores in (everyone, markov, oracle)]


@pytest.mark.slow
@pytest.mark.once
def test_each_kind_of_knowledge_tells_clearly_more_than_the_one_before(data):
    popularity, markov, oracle = three_scorers(data.interactions, data.item_genres)
    assert 0.05 < popularity < 0.10
    assert 0.12 < markov < 0.20
    assert markov > 1.4 * popularity
    assert oracle > 1.3 * markov


@pytest.mark.slow
@pytest.mark.once
def test_recent_items_tell_more_than_the_whole_history_without_its_order(data):
    *_, recent = three_scorers(data.interactions, data.item_genres)
    *_, unordered = three_scorers(data.interactions, data.item_genres, lags=30, recency=0.0)
    assert recent > 1.15 * unordered


@pytest.mark.slow
@pytest.mark.once
def test_nothing_is_left_to_learn_where_events_are_dealt_out_at_random(data):
    x = data.interactions
    dealt = np.random.default_rng(0).permutation(x.items)
    popularity, markov, oracle = three_scorers(
        type(x)(x.users, dealt, x.times, {}, x.user_ids, x.item_ids), data.item_genres
    )
    assert markov < 1.15 * popularity
    assert oracle < 1.15 * popularity


@pytest.mark.slow
@pytest.mark.once
def test_the_default_size(data):
    x = data.interactions
    assert (x.num_users, x.num_items) == (3000, 1200)
    assert 100_000 < len(x) < 140_000
    lengths = np.diff(x.indptr)[1:]
    assert lengths.min() >= 5
    assert len(x) / x.num_users == pytest.approx(40, rel=0.05)


@pytest.mark.slow
@pytest.mark.once
def test_no_user_has_an_item_twice_and_times_rise(data):
    x = data.interactions
    pairs = x.users.astype(np.int64) * x.item_vocabulary_size + x.items
    assert len(np.unique(pairs)) == len(pairs)
    assert (np.diff(x.times)[x.users[1:] == x.users[:-1]] > 0).all()


@pytest.mark.slow
@pytest.mark.once
def test_attributes_are_aligned_with_ids(data):
    x = data.interactions
    assert data.item_genres.shape == data.item_titles.shape == (x.item_vocabulary_size,)
    assert data.user_genres.shape == (x.user_vocabulary_size,)
    assert data.item_titles[0] == ""
    assert data.item_genres[0] == data.user_genres[0] == 0
    assert set(data.item_genres[1:]) == set(range(1, 13))
    assert len(set(data.item_titles)) == x.item_vocabulary_size
    # One word for one genre.
    words = [title.split()[0] for title in data.item_titles[1:]]
    assert len(set(zip(words, data.item_genres[1:], strict=True))) == 12
    # Users begin in their own genre more often than the 1 in 12 of chance.
    begins = data.item_genres[x.items[x.position == 0]] == data.user_genres[1:]
    assert begins.mean() > 0.2
    for array in (data.item_genres, data.item_titles, data.user_genres):
        assert not array.flags.writeable


def test_seeds_and_the_global_random_state():
    small = {"num_users": 40, "num_items": 60, "mean_length": 8, "num_genres": 3}
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    one, same, other = (synthetic_interactions(**small, seed=seed) for seed in (1, 1, 2))
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert one.interactions.items.tolist() == same.interactions.items.tolist()
    assert one.interactions.times.tolist() == same.interactions.times.tolist()
    assert one.item_titles.tolist() == same.item_titles.tolist()
    assert one.interactions.items.tolist() != other.interactions.items.tolist()


def test_users_follow_several_tastes_in_turns():
    data = synthetic_interactions(300, 400, mean_length=30, num_genres=10, seed=3, tastes=3)
    x, taste = data.interactions, data.interactions.side["taste"]
    assert data.user_genres.shape == (301, 3)
    assert data.user_genres[0].tolist() == [0, 0, 0]
    assert all(len(set(row)) == 3 for row in data.user_genres[1:].tolist())
    assert np.unique(taste, return_counts=True)[1] == pytest.approx(len(x) / 3, rel=0.1)
    same_user = x.users[1:] == x.users[:-1]
    assert (taste[1:] == taste[:-1])[same_user].mean() == pytest.approx(1 / 3, abs=0.03)
    # What a taste brings is of its own genre, far more often than of one of the user's other two.
    genre, homes = data.item_genres[x.items], data.user_genres[x.users]
    own = genre == homes[np.arange(len(x)), taste - 1]
    assert own.mean() > 0.6
    assert ((genre[:, np.newaxis] == homes).any(axis=1) & ~own).mean() < 0.1
    pairs = x.users.astype(np.int64) * x.item_vocabulary_size + x.items
    assert len(np.unique(pairs)) == len(pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_users": 0}, "`num_users` must be an integer of at least 1; got 0"),
        ({"num_items": 29}, "`num_items` must be an integer of at least 30; got 29"),
        ({"num_genres": 1}, "`num_genres` must be an integer of at least 2; got 1"),
        ({"num_genres": 37}, "`num_genres` must be at most 36; got 37"),
        ({"tastes": 0}, "`tastes` must be an integer of at least 1; got 0"),
        ({"tastes": 13}, "`tastes` must be at most num_genres, 12; got 13"),
        ({"mean_length": 5}, "`mean_length` must lie between 6 and a third of num_items, 400; got 5"),
        ({"mean_length": 500}, "`mean_length` must lie between 6 and"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        synthetic_interactions(**options)


def test_sessions_come_back_and_go_on_as_before():
    x = synthetic_sessions(3000, 200, mean_length=8, seed=3)
    same = synthetic_sessions(3000, 200, mean_length=8, seed=3)
    assert (x.items.tolist(), x.times.tolist()) == (same.items.tolist(), same.times.tolist())
    lengths = np.bincount(x.sessions)[1:]
    assert lengths.min() >= 2
    assert abs(lengths.mean() - 8) < 0.5
    again = repeated = followed = 0
    for session in np.split(x.items, np.cumsum(lengths)[:-1]):
        went_on = {}
        for k, (item, following) in enumerate(itertools.pairwise(session.tolist())):
            if item in went_on:
                again += 1
                followed += went_on[item] == following
            repeated += following in session[: k + 1]
            went_on[item] = following
    # 0.8 by the rule, and some of the rest by chance; of a bag's guess among the session's items it is far more.
    assert 0.8 < followed / again < 0.9
    assert 0.35 < repeated / (len(x) - len(lengths)) < 0.75


@pytest.mark.parametrize("options", [{"num_sessions": 0}, {"num_items": 9}, {"mean_length": 2}, {"seed": -1}])
def test_arguments_of_sessions(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must"):
        synthetic_sessions(**options)


def test_sessions_end_with_what_they_began_with_in_a_brand_of_the_user():
    x = synthetic_intents(1000, 300, seed=3)
    same = synthetic_intents(1000, 300, seed=3)
    assert (x.items.tolist(), x.times.tolist()) == (same.items.tolist(), same.times.tolist())
    lengths = np.bincount(x.sessions)[1:]
    assert lengths.min() == 3
    assert lengths.mean() == pytest.approx(7, rel=0.05)
    assert len(lengths) / x.num_users == pytest.approx(6, rel=0.05)
    category, brand = x.side["category"], x.side["brand"]
    # An item has one category and one brand, and each pair of them 10 of the 300 items.
    cells = np.unique(np.column_stack([x.items, category, brand]), axis=0)
    assert len(cells) == len(np.unique(x.items)) == 300
    assert (np.unique(cells[:, 1:], axis=0, return_counts=True)[1] == 10).all()
    last = np.cumsum(lengths) - 1
    first = last - lengths + 1
    # 0.9, and one sixth of the rest by chance; any other click tells nothing of the last category.
    assert (category[last] == category[first]).mean() == pytest.approx(0.9 + 0.1 / 6, abs=0.02)
    for other in (last - 1, first + 1):
        assert (category[last] == category[other]).mean() == pytest.approx(1 / 6, abs=0.02)
    # 0.6, and one fifth of the rest; that two clicks of a user have one brand, from that: both the user's, or another.
    counts = np.zeros((x.num_users + 1, 6))
    np.add.at(counts, (x.users, brand), 1)
    same_user = x.users[1:] == x.users[:-1]
    assert (brand == counts.argmax(axis=1)[x.users]).mean() == pytest.approx(0.68, abs=0.03)
    assert (brand[1:] == brand[:-1])[same_user].mean() == pytest.approx(0.68**2 + 4 * 0.08**2, abs=0.03)


@pytest.mark.parametrize(
    "options",
    [
        {"num_users": 0},
        {"num_categories": 1},
        {"num_brands": 0},
        {"num_items": 29},
        {"mean_sessions": 2},
        {"mean_length": 3},
        {"seed": -1},
    ],
)
def test_arguments_of_intents(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must"):
        synthetic_intents(**options)


def test_pairs_are_told_by_the_combination_of_two_features_alone():
    pairs = synthetic_pairs(seed=3)
    assert pairs.equals(synthetic_pairs(seed=3))
    assert not pairs.equals(synthetic_pairs(seed=4))
    assert (pairs["user_id"].value_counts() == 100).all()
    for ids, feature, number in (("user_id", "segment", 600), ("item_id", "category", 400)):
        assert sorted(pairs[ids].unique()) == list(range(1, number + 1))
        assert (pairs.groupby(ids)[feature].nunique() == 1).all()
    cells = pairs.pivot_table(index="segment", columns="category", values="taken")
    assert cells.shape == (24, 24)
    takes = cells.to_numpy() > 0.5
    assert (takes.sum(axis=1) == 12).all()  # so a segment alone tells nothing, and a category little
    assert pairs.groupby("segment")["taken"].mean().between(0.45, 0.55).all()
    assert pairs.groupby("category")["taken"].mean().between(0.25, 0.75).all()
    assert cells.to_numpy()[takes].mean() == pytest.approx(0.9, abs=0.01)
    assert cells.to_numpy()[~takes].mean() == pytest.approx(0.1, abs=0.01)
    # The table is of nearly full rank, and four directions of it leave many of its signs open.
    u, s, v = np.linalg.svd(np.where(takes, 1.0, -1.0))
    assert (s > 1e-6).sum() >= 22
    assert (((u[:, :4] * s[:4]) @ v[:4] > 0) == takes).mean() < 0.85


@pytest.mark.parametrize(
    "options",
    [
        {"num_users": 0},
        {"num_segments": 0},
        {"num_categories": 1},
        {"num_items": 23},
        {"pairs_per_user": 0},
        {"seed": -1},
    ],
)
def test_arguments_of_pairs(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must"):
        synthetic_pairs(**options)
