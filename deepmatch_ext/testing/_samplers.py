"""Checks that a sampler, such as your own, keeps the promises of all samplers."""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import instance_of
from deepmatch_ext.layers import CandidateSampler
from deepmatch_ext.losses import Candidates
from deepmatch_ext.samplers import Sampler, make_sampler
from deepmatch_ext.testing._expect import Broken, expect, saying

VOCABULARY, BATCH, STEPS = 30, 16, 400


def check_sampler(sampler: Sampler) -> None:
    """Checks that a sampler draws valid items, and draws them as often as its expected counts say.

    It takes about a second. The sampler is tried on a vocabulary of 30, padding included, so it may draw at most 29
    candidates, unless its `check` allows more.

    Args:
        sampler: A sampler, such as one of your own class.

    Raises:
        AssertionError: A promise is broken; the message says which, what was expected and what was found.

    Example:
        >>> from deepmatch_ext.samplers import UniformSampler
        >>> check_sampler(UniformSampler(20))
    """
    instance_of("`sampler`", sampler, Sampler)
    with saying(type(sampler).__name__):
        _check(sampler)


def _check(sampler: Sampler) -> None:
    again = make_sampler(json.loads(json.dumps(sampler.get_config())))
    expect(type(again) is type(sampler), "`get_config` must make a sampler of the same class", type(again).__name__)
    expect(again.get_config() == sampler.get_config(), "`get_config` must hold all settings", again.get_config())
    same = again.num_sampled == sampler.num_sampled
    expect(same, "`get_config` must hold all settings", f"num_sampled={again.num_sampled} of {sampler.num_sampled}")

    layers = [CandidateSampler(sampler, VOCABULARY, seed=1) for _ in range(2)]
    for layer in layers:
        layer.build()
    every = tf.range(VOCABULARY, dtype=tf.int64)

    @tf.function(autograph=False)  # as in training
    def step(positives: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """All items' log counts before the step, what is drawn with its log counts, and what the seed draws again."""
        before = layers[0].log_counts(every, tf.size(positives))
        drawn, again = (Candidates(*layer(positives, training=True)) for layer in layers)
        return before, drawn.ids, drawn.log_counts, again.ids

    rng = np.random.default_rng(0)
    drawn, expected = np.zeros(VOCABULARY), np.zeros(VOCABULARY)
    for _ in range(STEPS):
        # All items are equally likely, as samplers that learn assume at first.
        positives = tf.constant(rng.integers(1, VOCABULARY, BATCH))
        before, candidates, log_counts, repeated = (values.numpy() for values in step(positives))
        ids = candidates[0 if sampler.in_batch else BATCH :]
        expect(np.array_equal(candidates, repeated), "a seed must repeat the draws", "others")
        expect(
            ((ids >= 1) & (ids < VOCABULARY)).all(), f"ids must be in 1..{VOCABULARY - 1}", f"{ids.min()}..{ids.max()}"
        )
        if sampler.num_sampled is not None:
            number = len(ids) - (BATCH if sampler.in_batch else 0)
            expect(number == sampler.num_sampled, f"{sampler.num_sampled} ids must be drawn", number)
        finite = np.isfinite(before[1:]).all() and np.isfinite(log_counts).all()
        expect(finite, "the log count of every item must be finite", "infinity or NaN")
        drawn += np.bincount(ids, minlength=VOCABULARY)
        expected += np.exp(before.astype(np.float64))
    # Five standard deviations of the counts of independent draws, doubled for draws that are not independent.
    far = np.abs(drawn - expected)[1:] - 10 * np.sqrt(expected[1:] + 1)
    if (far > 0).any():
        item = int(far.argmax()) + 1
        raise Broken(
            "an item must be drawn as often as exp(log_expected_count) says: item "
            f"{item} {expected[item] / STEPS:.3g} times a step; got {drawn[item] / STEPS:.3g}"
        )
