"""HistoryDropout leaves out whole items, the same positions in what belongs together."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.layers import HistoryDropout


def histories(lengths, seed=0, max_len=6):
    """Items, and a second history and weights that can be told from the items."""
    rng = np.random.default_rng(seed)
    valid = np.arange(max_len)[None] < np.array(lengths)[:, None]
    items = np.where(valid, rng.integers(1, 100, valid.shape), 0)
    return items, items * 1000, (items / 7).astype("float32")[..., None]


def is_subsequence(part, whole):
    rest = iter(whole)
    return all(any(value == other for other in rest) for value in part)


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    rate=st.sampled_from([0.2, 0.9]),
    seed=st.integers(0, 99),
)
def test_what_stays_keeps_its_order_and_belongs_together(lengths, rate, seed):
    items, genres, weights = histories(lengths, seed)
    kept, kept_genres, kept_weights = HistoryDropout(rate, seed)([items, genres, weights], training=True)
    for row, length in enumerate(np.count_nonzero(kept, axis=1)):
        assert np.all(kept[row, length:] == 0)
        assert is_subsequence(kept[row, :length].numpy().tolist(), items[row, : lengths[row]].tolist())
    np.testing.assert_array_equal(kept_genres, kept.numpy() * 1000)
    np.testing.assert_allclose(kept_weights[..., 0], kept.numpy() / 7, rtol=1e-6)
    assert (kept.shape, kept_weights.shape) == (items.shape, weights.shape)


def test_the_rate_is_the_fraction_of_items_left_out():
    items, _, _ = histories([6] * 3000)
    (kept,) = HistoryDropout(0.3)([items], training=True)
    # 18,000 items: four standard deviations.
    assert abs(np.count_nonzero(kept) / 18_000 - 0.7) < 4 * np.sqrt(0.21 / 18_000)


def test_zeros_are_padding_wherever_they_stand():
    items, genres = tf.constant([[0, 0, 5, 0, 3, 0]]), tf.constant([[0, 0, 6, 7, 0, 0]])
    kept, kept_genres = HistoryDropout(1e-9)([items, genres], training=True)
    assert kept.numpy().tolist() == [[5, 0, 3, 0, 0, 0]]  # where one of the two has an id, the position stays
    assert kept_genres.numpy().tolist() == [[6, 7, 0, 0, 0, 0]]


@pytest.mark.parametrize("training", [False, None])
def test_nothing_is_left_out_when_not_training(training):
    given = histories([0, 3, 6])
    for ours, theirs in zip(HistoryDropout(0.9)(given, training=training), given, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_every_step_draws_anew_and_a_seed_repeats():
    items, _, _ = histories([6] * 20)
    first, second = HistoryDropout(0.5, seed=3), HistoryDropout(0.5, seed=3)
    runs = [[layer([items], training=True)[0].numpy() for _ in range(2)] for layer in (first, second)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0][0], runs[0][1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HistoryDropout(1.0), r"`rate` must be at least 0 and less than 1; got 1"),
        (lambda: HistoryDropout(0.5)(tf.constant([[1]])), r"The input must be a list"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
