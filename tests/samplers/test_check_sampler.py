"""`check_sampler` passes every sampler here, and sees those that break a promise."""

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext.samplers import Sampler, UniformSampler
from deepmatch_ext.testing import check_sampler
from deepmatch_ext.testing._arguments import every_sampler


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", every_sampler(30))
def test_ours_keep_every_promise(name):
    assert check_sampler(every_sampler(30)[name]) is None


class Exponent(UniformSampler):
    name = "test exponent"

    def log_expected_count(self, *args):
        return tf.exp(super().log_expected_count(*args))


class Padding(UniformSampler):
    name = "test padding"

    def sample(self, state, vocabulary_size, seed):
        return super().sample(state, vocabulary_size, seed) - 1


class Few(UniformSampler):
    name = "test few"

    def sample(self, state, vocabulary_size, seed):
        return super().sample(state, vocabulary_size, seed)[1:]


class Unseeded(UniformSampler):
    name = "test unseeded"

    def sample(self, state, vocabulary_size, seed):
        generator = tf.random.get_global_generator()  # goes on, whatever seed a test before this one has set
        return generator.uniform([self.num_sampled], 1, vocabulary_size, tf.int64)


class Never(UniformSampler):
    name = "test never"

    def log_expected_count(self, state, vocabulary_size, ids, batch_size):
        return tf.where(ids == 5, -np.inf, super().log_expected_count(state, vocabulary_size, ids, batch_size))


class Forgetful(UniformSampler):
    name = "test forgetful"

    def __init__(self, num_sampled=7):
        super().__init__(num_sampled)

    def get_config(self):
        return {"sampler": self.name}


class Silent(UniformSampler):
    name = "test silent"

    def update(self, state, positives):
        pass


class Unfinished(Sampler):
    name = "test unfinished"


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Exponent(20), r"Exponent: an item must be drawn as often as exp\(log_expected_count\) says: item \d+ 1.99"),
        (Padding(20), r"Padding: ids must be in 1\.\.29; got 0\.\.28"),
        (Few(20), r"Few: 20 ids must be drawn; got 19"),
        (Unseeded(20), r"Unseeded: a seed must repeat the draws; got others"),
        (Never(20), r"Never: the log count of every item must be finite; got infinity or NaN"),
        (Forgetful(20), r"Forgetful: `get_config` must hold all settings; got num_sampled=7 of 20"),
        (Silent(20), r"Silent: no error was expected; got ValueError: .*`update` of the sampler Silent must return"),
        (
            Unfinished(),
            r"Unfinished: no error was expected; got .*The sampler Unfinished needs a method `log_expected_count`",
        ),
    ],
)
def test_others_do_not(sampler, message):
    with pytest.raises(AssertionError, match=message):
        check_sampler(sampler)
