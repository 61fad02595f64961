import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.layers import SinceLastEvent, TimeBuckets
from deepmatch_ext.layers.times import BUCKETS, of_buckets


def bucket(passed):
    """floor(log2(1 + passed)), by Python's integers."""
    return max((1 + max(int(passed), 0)).bit_length() - 1, 0)


@given(
    st.lists(st.integers(0, 2**13), min_size=1, max_size=6),
    st.integers(-(2**50), 2**50),
    st.booleans(),
    st.booleans(),
    st.sampled_from([False, True]),
)
def test_buckets_are_the_logarithm_of_the_time_between(gaps, start, of_next, first_only, training):
    times = start + np.cumsum(gaps)[::-1].astype("int64")
    request = times[0] + gaps[0]
    inputs = [times[np.newaxis, :, np.newaxis], np.ones((1, len(gaps)), bool)]
    layer = TimeBuckets(of_next=of_next, first_only=first_only)
    found = layer([*inputs, np.array([[request]])] if of_next else inputs, training=training).numpy()[0]
    now = np.append(request, times[:-1]) if of_next else times
    expected = [[bucket(at - time) for time in times] for at in now]
    assert found.tolist() == (expected[:1] if first_only else expected)


@pytest.mark.parametrize("power", [20, 31, 32, 40, 62])
def test_long_times_are_in_the_right_buckets(power):
    times = np.array([[[2**power], [2 ** (power - 1) + 1], [1], [0]]])
    found = TimeBuckets()([times, np.ones((1, 4), bool)]).numpy()[0, 0]
    assert found.tolist() == [0, power - 1, power, power]
    assert found.max() < BUCKETS


def test_only_where_there_is_an_event_there_is_a_time_since():
    layer = SinceLastEvent(dim=2)
    buckets = np.array([[[4, 5, 6], [0, 3, 6], [0, 0, 0]], np.zeros((3, 3))], "int32")
    valid = np.array([[True, True, False], [False] * 3])
    assert not np.any(layer([buckets, valid]))
    layer.rows.assign(np.arange(128).reshape(64, 2))
    expected = [[[8, 9], [6, 7], [0, 0]], np.zeros((3, 2))]
    np.testing.assert_array_equal(layer([buckets, valid]), expected)
    np.testing.assert_array_equal(layer([buckets[:, :1], valid]), np.array(expected)[:, :1])


@pytest.mark.parametrize("heads", [1, 3])
def test_what_is_learnt_for_buckets_is_read_and_its_gradient_is_the_sum_by_bucket(heads):
    rng = np.random.default_rng(0)
    buckets = rng.integers(0, BUCKETS, (2, 3, 4)).astype("int32")
    values, upstream = rng.normal(size=(heads, BUCKETS)), rng.normal(size=(2, heads, 3, 4))
    variable = tf.Variable(values, dtype="float32")

    def run(training):
        with tf.GradientTape() as tape:
            taken = of_buckets(variable, tf.constant(buckets), training)
        return taken, tape.gradient(taken, variable, tf.constant(upstream, tf.float32))

    expected = np.zeros((heads, BUCKETS))
    for (row, head, k, j), value in np.ndenumerate(upstream):
        expected[head, buckets[row, k, j]] += value
    for training in (False, True):
        for run_it in (run, tf.function(run)):
            taken, gradient = run_it(training)
            np.testing.assert_allclose(taken, values[:, buckets].transpose(1, 0, 2, 3), rtol=1e-6)
            np.testing.assert_allclose(tf.convert_to_tensor(gradient), expected, rtol=1e-4, atol=1e-5)
