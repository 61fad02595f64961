"""The figures of collapse, against what pairs, lists and sums say one by one."""

import numpy as np
import pytest

from deepmatch_ext.evaluation import likeness, popular_share
from deepmatch_ext.evaluation.collapse import coverage, full_cross_entropy, highest_temperature, lowest_loss

pytestmark = pytest.mark.plain


def vectors(rows, dim, seed, offset=0.0):
    return (np.random.default_rng(seed).normal(size=(rows, dim)) + offset).astype("float32")


def test_likeness_is_that_of_all_pairs_of_users():
    users, items = vectors(7, 5, 0, offset=0.6), vectors(20, 5, 1)
    scores = users.astype("float64") @ items[1:].T  # (users, items)
    covariance = np.cov(scores, bias=True)  # between users, over the items
    cosine = (users / np.linalg.norm(users, axis=1)[:, None]) @ (users / np.linalg.norm(users, axis=1)[:, None]).T
    pairs = ~np.eye(7, dtype=bool)
    variances = np.linalg.eigvalsh(np.cov(users.T, bias=True))
    figures = likeness(users, items)
    assert figures["score_correlation"] == pytest.approx(covariance[pairs].mean() / np.diag(covariance).mean())
    assert figures["user_cosine"] == pytest.approx(cosine[pairs].mean(), abs=1e-6)
    assert figures["user_rank"] == pytest.approx(variances.sum() ** 2 / (variances**2).sum(), rel=1e-5)


def test_likeness_of_k_interests_is_that_of_all_pairs_of_users():
    users, items = np.stack([vectors(300, 5, seed, offset=0.6) for seed in (0, 2, 3)], axis=1), vectors(20, 5, 1)
    users[7, 1] = users[7, 0]  # a surplus interest
    scores = np.max(users.astype("float64") @ items[1:].T, axis=1)  # (users, items)
    covariance = np.cov(scores, bias=True)
    units = users / np.linalg.norm(users, axis=2, keepdims=True)
    cosine = np.mean([units[:, k] @ units[:, k].T for k in range(3)], axis=0)
    pairs = ~np.eye(300, dtype=bool)
    variances = np.linalg.eigvalsh(sum(np.cov(users[:, k].T, bias=True) for k in range(3)))
    figures = likeness(users, items)
    assert figures["score_correlation"] == pytest.approx(covariance[pairs].mean() / np.diag(covariance).mean())
    assert figures["user_cosine"] == pytest.approx(cosine[pairs].mean(), abs=1e-6)
    assert figures["user_rank"] == pytest.approx(variances.sum() ** 2 / (variances**2).sum(), rel=1e-5)
    pairs = [
        [np.corrcoef(items[1:] @ user[k], items[1:] @ user[j])[0, 1] for k in range(3) for j in range(k)]
        for user in np.delete(users, 7, axis=0)
    ]
    surplus = np.corrcoef(items[1:] @ users[7, 0], items[1:] @ users[7, 2])[0, 1]
    expected = (np.mean(pairs, axis=1).sum() + surplus) / 300
    assert figures["interest_correlation"] == pytest.approx(expected, abs=1e-6)
    assert likeness(users[:, :1], items) == pytest.approx(likeness(users[:, 0], items))
    equal = likeness(np.tile(users[:1], (6, 1, 1)), items)
    of_first = np.mean(pairs[0])
    assert equal.pop("interest_correlation") == pytest.approx(of_first)
    assert equal == {"score_correlation": pytest.approx(1), "user_cosine": pytest.approx(1), "user_rank": 0}


@pytest.mark.parametrize("of_users", [np.ones((4, 1, 5)), vectors(4, 5, 3)[:, np.newaxis]])
def test_interests_that_are_one_have_a_correlation_of_1(of_users):
    """Equal to the first for every user: no surplus, but a collapse."""
    items, interests = vectors(20, 5, 1), of_users.repeat(3, axis=1)
    assert likeness(interests, items)["interest_correlation"] == 1
    nearly = interests + 1e-3 * np.random.default_rng(0).normal(size=interests.shape)
    assert 0.99 < likeness(nearly, items)["interest_correlation"] < 1
    # Where the items do not differ, no interest ranks them in another way.
    assert likeness(nearly, np.ones((20, 5)))["interest_correlation"] == 1


def test_equal_users_and_users_on_a_line():
    items = vectors(20, 4, 0)
    equal = likeness(np.tile(vectors(1, 4, 1), (6, 1)), items)
    assert equal == {"score_correlation": pytest.approx(1), "user_cosine": pytest.approx(1), "user_rank": 0}
    on_a_line = likeness(np.outer([1, -1, 2, 3], vectors(1, 4, 1)).astype("float32"), items)
    assert on_a_line["user_rank"] == pytest.approx(1)
    assert on_a_line["score_correlation"] < 0.5


def test_a_direction_in_which_items_do_not_differ_makes_no_users_alike():
    """Scores of users in a narrow cone may rank the items as differently as those of any other users."""
    users, items = vectors(200, 8, 0), vectors(100, 8, 1)
    users[:, 0], items[:, 0] = 50, 0.3
    figures = likeness(users, items)
    assert figures["user_cosine"] > 0.99
    assert abs(figures["score_correlation"]) < 0.1


def test_items_that_are_all_alike_rank_everyone_alike():
    users, items = vectors(10, 4, 0), np.full((8, 4), 0.1, "float32")
    assert likeness(users, np.ones((9, 4), "float32"))["score_correlation"] == 1
    assert likeness(users.reshape(5, 2, 4), items)["score_correlation"] == 1


def test_popular_share_is_that_of_each_users_own_popular_items():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, 12)  # with many ties; an entry of padding, which is no item
    counts[0] = 1000
    seen = [rng.integers(0, 12, rng.integers(0, 8)) for _ in range(40)]  # with repeats and padding
    lists, hits = np.zeros((40, 4), int), 0
    for row, had in enumerate(seen):
        left = sorted(set(range(1, 12)) - set(had.tolist()))
        lists[row] = rng.permutation(left)[:4]
        if row == 0:
            lists[row, 2:] = 0  # nothing more was found
        popular = sorted(left, key=lambda item: (-counts[item], item))[:4]
        hits += len(set(popular) & set(lists[row].tolist()))
    csr = np.cumsum([0, *map(len, seen)]), np.concatenate(seen)
    assert 0 < hits < 158
    assert popular_share(lists, counts, csr) == pytest.approx(hits / 158)
    assert popular_share(np.zeros((2, 3), int), counts) == 0


def test_coverage_counts_items_against_the_room_for_them():
    lists = np.array([[1, 2, 0], [2, 3, 1]])
    assert coverage(lists, vocabulary_size=100) == 3 / 5  # five places
    assert coverage(lists, vocabulary_size=4) == 3 / 3
    assert coverage(np.zeros((2, 2), int), 5) == 0


@pytest.mark.parametrize("block_size", [1, 3, 100])
def test_full_cross_entropy_is_that_of_the_softmax(block_size):
    users, items = vectors(8, 5, 0), vectors(11, 5, 1)
    targets = np.arange(3, 11)
    logits = users.astype("float64") @ items.T / 0.05
    logits[:, 0] = -np.inf  # padding is no item
    expected = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(8), targets]
    assert full_cross_entropy(users, items, targets, 0.05, block_size) == pytest.approx(expected.mean(), rel=1e-5)


def test_full_cross_entropy_of_k_interests_is_that_of_the_one_nearest_the_target():
    users, items = np.stack([vectors(8, 5, 0), vectors(8, 5, 2)], axis=1), vectors(11, 5, 1)
    targets = np.arange(3, 11)
    expected = []
    for user, target in zip(users, targets, strict=True):
        nearest = max(user, key=lambda interest: float(interest @ items[target]))
        expected.append(full_cross_entropy(nearest[None], items, np.array([target]), 0.05))
    assert full_cross_entropy(users, items, targets, 0.05, 3) == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("choices", [2, 50, 10_000])
def test_at_the_highest_temperature_the_best_vectors_keep_half_of_the_loss(choices):
    temperature = highest_temperature(choices)
    # The best that L2-normalised vectors can do: the target at the user, all others opposite.
    logits = np.full(choices, -1 / temperature)
    logits[0] = 1 / temperature
    assert lowest_loss(temperature, choices) == pytest.approx(np.logaddexp.reduce(logits) - logits[0])
    assert lowest_loss(temperature, choices) == pytest.approx(np.log(choices) / 2)
    assert lowest_loss(2 * temperature, choices) > np.log(choices) / 2
