"""Samplers: what is drawn, how often, and the log of how often it was to be expected."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.samplers import (
    FrequencySampler,
    InBatchSampler,
    LogUniformSampler,
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


def draws(sampler, times, seed=0):
    state = {name: tf.constant(array) for name, array in sampler.state(V).items()}
    drawn = [sampler.sample(state, V, tf.constant([seed, step], tf.int64)).numpy() for step in range(times)]
    return np.concatenate(drawn)


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NegativeSampler("best", 5, "item"), r"The sampler's name must be one of .* got 'best'"),
        (lambda: make_sampler("uniform"), r"`sampler_config` must be a sampler or a NegativeSampler; got 'uniform'"),
        (lambda: NegativeSampler("frequency", 5, "item"), r"`item_count` must be given .* got None"),
        (lambda: NegativeSampler("inbatch", 5, "item"), r"`item_count` must be given"),
        (lambda: FrequencySampler(5, None), r"`item_count` must be given"),
        (lambda: make_sampler({"sampler": "uniform"}), r"`sampler_config` must have the settings of the 'uniform'"),
        (lambda: make_sampler({"sampler": "uniform", "num": 3}), r"`sampler_config` must have the settings of the"),
        (lambda: make_sampler({"sampler": "frequency", "num_sampled": 3}), r"`item_count` must be given"),
        (lambda: FrequencySampler(5, [0, 0.7, 0.3]), r"`item_count` must hold counts, not shares; got 0.7"),
        (lambda: InBatchSampler([0, 0.7, 0.3]), r"`item_count` must hold counts, not shares"),
        (lambda: FrequencySampler(5, ["a", "b"]), r"`item_count` must be an array of counts by id; got a list"),
        (lambda: FrequencySampler(5, {1: 2}), r"`item_count` must be an array of counts by id; got a dict"),
        (lambda: UniformSampler(0), r"`num_sampled` must be an integer of at least 1; got 0"),
        (lambda: UniformSampler(2.5), r"`num_sampled` must be an integer"),
        (lambda: UniformSampler(V).check(V), r"`num_sampled` must be at most 6, .* got 7"),
        (lambda: FrequencySampler(5, COUNTS[:-1]).check(V), r"`item_count` must have an entry for each of the 7 ids"),
        (lambda: InBatchSampler(COUNTS[:-1]).check(V), r"`item_count` must have an entry for each of the 7 ids"),
        (lambda: FrequencySampler(5, [0, -1]), r"`item_count` must hold finite counts of at least 0"),
        (lambda: FrequencySampler(5, [0, np.nan]), r"`item_count` must hold finite counts"),
        (lambda: FrequencySampler(5, [[0, 1]]), r"`item_count` must have one dimension"),
        (lambda: FrequencySampler(5, COUNTS, distortion=np.inf), r"`distortion` must be a finite number"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_callers_counts_are_not_changed():
    counts = COUNTS.astype("float64")
    FrequencySampler(5, counts).state(V)
    np.testing.assert_array_equal(counts, COUNTS)
