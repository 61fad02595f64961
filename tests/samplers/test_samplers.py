"""Samplers: what is drawn, how often, and the log of how often it was to be expected."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.samplers import (
    AdaptiveSampler,
    FrequencySampler,
    FullSampler,
    InBatchSampler,
    LogUniformSampler,
    MixedSampler,
    QueueSampler,
    UniformSampler,
    alias_table,
    make_sampler,
)
from deepmatch_ext.utils import NegativeSampler

V = 7
COUNTS = np.array([99, 8, 0, 4, 1, 2, 16])


def probability_by_hand(sampler):
    """(V,) float64, from each sampler's definition."""
    ids = np.arange(1, V)
    weight = {
        "uniform": lambda: np.ones(V - 1),
        "log_uniform": lambda: np.log((ids + 1) / ids),
        "frequency": lambda: np.maximum(COUNTS[1:], 1.0) ** getattr(sampler, "distortion", 1),
        "inbatch": lambda: np.maximum(COUNTS[1:], 1.0),
    }[sampler.name]()
    return np.concatenate([[0], weight / weight.sum()])


def draws(sampler, times, seed=0, state=None):
    """What so many draws, of the seed and a number each, give together. In a graph, since they are many."""
    state = state or {name: tf.constant(array) for name, array in sampler.state(V).items()}
    seeds = tf.stack([tf.fill([times], tf.constant(seed, tf.int64)), tf.range(times, dtype=tf.int64)], axis=1)
    draw = tf.function(lambda seeds: tf.map_fn(lambda one: sampler.sample(state, V, one), seeds))
    return draw(seeds).numpy().ravel()


DRAWING = [
    UniformSampler(6),
    LogUniformSampler(6),
    FrequencySampler(6, COUNTS),
    FrequencySampler(6, COUNTS, distortion=0.5),
    FrequencySampler(6, COUNTS, distortion=0.0),
]


@pytest.mark.parametrize("sampler", DRAWING, ids=lambda sampler: sampler.name)
def test_draws_follow_the_distribution_and_never_padding(sampler):
    drawn = draws(sampler, 3000)
    expected = probability_by_hand(sampler)
    observed = np.bincount(drawn, minlength=V) / len(drawn)
    assert observed[0] == 0
    # 18,000 draws: four standard deviations of each share.
    assert np.all(np.abs(observed - expected) <= 4 * np.sqrt(expected * (1 - expected) / len(drawn)))


@pytest.mark.parametrize("sampler", [*DRAWING, InBatchSampler(COUNTS)], ids=lambda sampler: sampler.name)
def test_log_expected_count_is_that_of_the_distribution_and_finite(sampler):
    state = {name: tf.constant(array) for name, array in sampler.state(V).items()}
    batch = 5
    result = sampler.log_expected_count(state, V, tf.range(V, dtype=tf.int64), tf.constant(batch)).numpy()
    expected = (sampler.num_sampled or batch) * probability_by_hand(sampler)[1:]
    np.testing.assert_allclose(np.exp(result[1:].astype("float64")), expected, rtol=1e-5)
    assert np.isfinite(result).all()
    assert result.dtype == np.float32


@pytest.mark.parametrize("sampler", DRAWING, ids=lambda sampler: sampler.name)
def test_a_seed_repeats_the_draws_and_another_does_not(sampler):
    np.testing.assert_array_equal(draws(sampler, 20, seed=3), draws(sampler, 20, seed=3))
    assert not np.array_equal(draws(sampler, 20, seed=3), draws(sampler, 20, seed=4))


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), min_size=1, max_size=60).filter(lambda w: sum(w) > 0))
def test_alias_table_gives_back_the_distribution(weights):
    probability = np.array(weights) / np.sum(weights)
    threshold, alias = alias_table(probability)
    assert np.all((threshold >= 0) & (threshold <= 1 + 1e-9))
    kept = np.minimum(threshold, 1)
    implied = (kept + np.bincount(alias, weights=1 - kept, minlength=len(alias))) / len(alias)
    np.testing.assert_allclose(implied, probability, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 49, 1000])  # 49 * (1 / 49) is less than 1 in float64
def test_alias_table_of_a_uniform_distribution(n):
    threshold, alias = alias_table(np.full(n, 1 / n))
    implied = (threshold + np.bincount(alias, weights=1 - threshold, minlength=n)) / n
    np.testing.assert_allclose(implied, 1 / n, atol=1e-12)


def test_alias_table_of_a_long_skewed_distribution():
    weights = np.random.default_rng(0).zipf(1.3, 100_000).clip(max=10**9).astype("float64")
    probability = weights / weights.sum()
    threshold, alias = alias_table(probability)
    implied = (threshold + np.bincount(alias, weights=1 - threshold, minlength=len(alias))) / len(alias)
    np.testing.assert_allclose(implied, probability, atol=1e-12)


@pytest.mark.parametrize("distortion", [-100.0, 100.0])
def test_an_extreme_distortion_stays_finite(distortion):
    sampler = FrequencySampler(5, [0, 1, 1000, 10_000], distortion)
    state = sampler.state(4)
    assert all(np.isfinite(array).all() for array in state.values())
    # Shares in the ratio (1 : 1000 : 10000) ** distortion: one item has nearly all.
    commonest = 3 if distortion > 0 else 1
    np.testing.assert_allclose(state["log_q"][commonest], 0, atol=1e-6)
    np.testing.assert_allclose(state["log_q"][1] - state["log_q"][3], -distortion * np.log(10_000), rtol=1e-6)


def test_deepmatch_negative_samplers_are_taken():
    assert isinstance(make_sampler(NegativeSampler("uniform", 5, "item")), UniformSampler)
    frequency = make_sampler(NegativeSampler("frequency", 5, "item", item_count=COUNTS, distortion=0.5))
    assert (frequency.num_sampled, frequency.distortion) == (5, 0.5)
    assert isinstance(make_sampler(NegativeSampler("inbatch", 5, "item", COUNTS.tolist())._asdict()), InBatchSampler)
    assert isinstance(make_sampler(NegativeSampler("inbatch", 5, "item")), InBatchSampler)
    adaptive = make_sampler(NegativeSampler("adaptive", 5, "item"))
    assert isinstance(adaptive, AdaptiveSampler)
    assert adaptive.num_sampled == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NegativeSampler("best", 5, "item"), r"The sampler's name must be one of .* got 'best'"),
        (lambda: make_sampler("uniform"), r"`sampler_config` must be a sampler or a NegativeSampler; got 'uniform'"),
        (lambda: NegativeSampler("frequency", 5, "item"), r"`item_count` must be given .* got None"),
        (lambda: FrequencySampler(5, None), r"`item_count` must be given"),
        (lambda: make_sampler({"sampler": "uniform"}), r"`sampler_config` must have the settings of the 'uniform'"),
        (lambda: make_sampler({"sampler": "uniform", "num": 3}), r"`sampler_config` must have the settings of the"),
        (lambda: make_sampler({"sampler": "frequency", "num_sampled": 3}), r"`item_count` must be given"),
        (lambda: FrequencySampler(5, [0, 0.7, 0.3]), r"`item_count` must hold counts, not shares; got 0.7"),
        (lambda: InBatchSampler([0, 0.7, 0.3]), r"`item_count` must hold counts, not shares"),
        (lambda: FrequencySampler(5, ["a", "b"]), r"`item_count` must be an array of counts by id; got the type list"),
        (lambda: FrequencySampler(5, {1: 2}), r"`item_count` must be an array of counts by id; got the type dict"),
        (lambda: UniformSampler(0), r"`num_sampled` must be an integer of at least 1; got 0"),
        (lambda: UniformSampler(2.5), r"`num_sampled` must be an integer"),
        (lambda: UniformSampler(V).check(V), r"`num_sampled` must be at most 6, .* got 7"),
        (lambda: FrequencySampler(5, COUNTS[:-1]).check(V), r"`item_count` must have an entry for each of the 7 ids"),
        (lambda: InBatchSampler(COUNTS[:-1]).check(V), r"`item_count` must have an entry for each of the 7 ids"),
        (lambda: FrequencySampler(5, [9, 0, 0]), r"`item_count` must count an item at least once; got 3 counts of 0"),
        (lambda: QueueSampler(5, np.zeros(V)), r"`item_count` must count an item at least once"),
        (
            lambda: InBatchSampler(np.ma.masked_equal(COUNTS, 8)),
            r"must have no masked values; got 1 masked. Fill",
        ),
        (
            lambda: InBatchSampler(pd.Series(COUNTS, list("abcdefg"))),
            r"must have the ids 0..6 as its index",
        ),
        (lambda: InBatchSampler(pd.Series(COUNTS).value_counts()), r"must have the ids 0..6 as its index"),
        (lambda: FrequencySampler(5, [0, -1]), r"`item_count` must hold finite counts of at least 0"),
        (lambda: FrequencySampler(5, [0, np.nan]), r"`item_count` must hold finite counts"),
        (lambda: FrequencySampler(5, [[0, 1]]), r"`item_count` must have one dimension"),
        (lambda: AdaptiveSampler(5, memory=0), r"`memory` must be an integer of at least 1; got 0"),
        (lambda: AdaptiveSampler(5, uniform_share=0), r"`uniform_share` must be at least 1e-09; got 0"),
        (lambda: AdaptiveSampler(5, uniform_share=5e-324), r"`uniform_share` must be at least 1e-09; got 5e-324"),
        (lambda: AdaptiveSampler(5, uniform_share=1.1), r"`uniform_share` must be at least 0"),
        (lambda: AdaptiveSampler(V).check(V), r"`num_sampled` must be at most 6"),
        (lambda: QueueSampler(0), r"`num_sampled` must be an integer of at least 1"),
        (lambda: QueueSampler(5, COUNTS[:-1]).check(V), r"`item_count` must have an entry for each of the 7 ids"),
        (lambda: MixedSampler([UniformSampler(5)]), r"`samplers` must be a list of at least two samplers"),
        (
            lambda: MixedSampler([InBatchSampler(), InBatchSampler()]),
            r"`samplers` must hold one in-batch sampler",
        ),
        (lambda: MixedSampler([UniformSampler(5), "best"]), r"`sampler_config` must be a sampler"),
        (lambda: MixedSampler([UniformSampler(5), UniformSampler(V)]).check(V), r"`num_sampled` must be at most 6"),
        (lambda: FrequencySampler(5, COUNTS, distortion=np.inf), r"`distortion` must be a finite number"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_counts_with_an_index_in_another_order_are_read_by_id():
    counts = pd.Series(COUNTS).sort_values()
    np.testing.assert_array_equal(InBatchSampler(counts).state(V)["log_q"], InBatchSampler(COUNTS).state(V)["log_q"])


def test_the_callers_counts_are_not_changed():
    counts = COUNTS.astype("float64")
    FrequencySampler(5, counts).state(V)
    np.testing.assert_array_equal(counts, COUNTS)


def learning(sampler, positives=(), batch=10):
    """The sampler's state as variables, after it has seen the positives in batches."""
    state = {name: tf.Variable(array) for name, array in sampler.state(V).items()}
    for start in range(0, len(positives), batch):
        sampler.update(state, tf.constant(positives[start : start + batch], tf.int64))
    return state


def expected_shares(recent, uniform_share):
    counted = np.bincount(recent, minlength=V) / len(recent)
    return (1 - uniform_share) * counted[1:] + uniform_share / (V - 1)


@given(
    positives=st.lists(st.integers(1, V - 1), max_size=60),
    memory=st.integers(1, 25),
    batch=st.integers(1, 40),
    uniform_share=st.sampled_from([0.01, 0.5, 1.0]),
)
def test_adaptive_knows_the_shares_of_the_last_positives_exactly(positives, memory, batch, uniform_share):
    sampler = AdaptiveSampler(4, memory, uniform_share)
    at_first = sampler.state(V)["recent"]
    state = learning(sampler, positives, batch)
    # Item by item: each positive takes the place of the oldest.
    remembered = list(at_first)
    for positive in positives:
        remembered = [*remembered[1:], positive]
    assert sorted(state["recent"].numpy()) == sorted(remembered)
    result = sampler.log_expected_count(state, V, tf.range(1, V, dtype=tf.int64), tf.constant(9))
    np.testing.assert_allclose(np.exp(result) / 4, expected_shares(remembered, uniform_share), rtol=1e-5)


def test_adaptive_draws_as_often_as_it_says():
    sampler = AdaptiveSampler(6, memory=50, uniform_share=0.2)
    state = learning(sampler, np.random.default_rng(0).choice([1, 1, 1, 2, 4], 200))
    drawn = draws(sampler, 3000, state=state)
    expected = np.concatenate([[0], expected_shares(state["recent"].numpy(), 0.2)])
    observed = np.bincount(drawn, minlength=V) / len(drawn)
    assert np.all(np.abs(observed - expected) <= 4 * np.sqrt(expected * (1 - expected) / len(drawn)))


def test_padding_among_the_positives_is_not_learnt():
    sampler = AdaptiveSampler(6, memory=4)
    state = learning(sampler, [0, 3, 0, 3, 3, 0, 3])
    assert state["recent"].numpy().tolist() == [3, 3, 3, 3]
    assert state["count"].numpy().tolist() == [0, 0, 0, 4, 0, 0, 0]


def test_a_queue_holds_the_last_positives():
    sampler = QueueSampler(5, memory=3)
    state = learning(sampler, [1, 2, 3, 4, 5, 6, 1, 2], batch=3)
    assert sorted(sampler.sample(state, V, tf.constant([0, 1])).numpy()) == [1, 2, 4, 5, 6]
    log_counts = sampler.log_expected_count(state, V, tf.constant([1, 3]), tf.constant(9))
    np.testing.assert_allclose(np.exp(log_counts) / 5, [0.99 / 3 + 0.01 / 6, 0.01 / 6], rtol=1e-5)


@pytest.mark.parametrize(
    "samplers", [[UniformSampler(3), FrequencySampler(5, COUNTS)], [InBatchSampler(COUNTS), UniformSampler(4)]]
)
def test_a_mixture_expects_what_its_parts_expect_together(samplers):
    mixed, batch, ids = MixedSampler(samplers), tf.constant(5), tf.range(V, dtype=tf.int64)
    together = mixed.log_expected_count(learning(mixed), V, ids, batch)
    apart = [np.exp(each.log_expected_count(learning(each), V, ids, batch).numpy()) for each in samplers]
    np.testing.assert_allclose(np.exp(together), sum(apart), rtol=1e-5)
    drawn = mixed.sample(learning(mixed), V, tf.constant([1, 2], tf.int64)).numpy()
    assert len(drawn) == mixed.num_sampled == sum(each.num_sampled or 0 for each in samplers)


def test_the_parts_of_a_mixture_draw_independently():
    nested = MixedSampler([UniformSampler(6), MixedSampler([UniformSampler(6), UniformSampler(6)]), UniformSampler(6)])
    parts = nested.sample({}, V, tf.constant([1, 2], tf.int64)).numpy().reshape(4, 6).tolist()
    assert len({tuple(part) for part in parts}) == 4
    mixed = MixedSampler([UniformSampler(6), UniformSampler(6)])
    drawn = mixed.sample({}, V, tf.constant([1, 2], tf.int64)).numpy()
    assert drawn[:6].tolist() != drawn[6:].tolist()


@pytest.mark.parametrize(
    "sampler",
    [
        AdaptiveSampler(5, 100, 0.3),
        InBatchSampler(memory=7),
        QueueSampler(5, memory=8),
        FullSampler(),
        MixedSampler([InBatchSampler(COUNTS), AdaptiveSampler(5)]),
    ],
    ids=lambda sampler: sampler.name,
)
def test_settings_survive_the_config(sampler):
    again = make_sampler(sampler.get_config())
    assert type(again) is type(sampler)
    assert again.get_config() == sampler.get_config()
    assert {n: a.shape for n, a in again.state(V).items()} == {n: a.shape for n, a in sampler.state(V).items()}
