"""A sampler that is made of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import problem, shown
from deepmatch_ext.samplers.base import Sampler, State, make_sampler, stream


class MixedSampler(Sampler):
    """The candidates of several samplers together; their expected counts are added.

    ``MixedSampler([InBatchSampler(), UniformSampler(512)])`` is the mixed negative sampling of Yang et al., "Mixed
    Negative Sampling for Learning Two-tower Neural Networks in Recommendations", WWW 2020.

    Args:
        samplers: At least two, of which at most one is in-batch.

    Raises:
        ValueError: There are fewer than two samplers, or several that are in-batch.

    Example:
        >>> from deepmatch_ext.samplers import InBatchSampler, UniformSampler
        >>> MixedSampler([InBatchSampler(), UniformSampler(512)]).in_batch
        True
    """

    name = "mixed"

    def __init__(self, samplers: Sequence[Any]) -> None:
        if not isinstance(samplers, list | tuple) or len(samplers) < 2:
            raise problem("`samplers`", "be a list of at least two samplers", shown(samplers))
        self.samplers: tuple[Sampler, ...] = tuple(make_sampler(sampler) for sampler in samplers)
        in_batch = sum(sampler.in_batch for sampler in self.samplers)
        if in_batch > 1:
            names = [sampler.name for sampler in self.samplers]
            raise problem("`samplers`", "hold one in-batch sampler at most", shown(names))
        self.in_batch = in_batch == 1
        drawn = [sampler.num_sampled for sampler in self.samplers if not sampler.in_batch]
        self.num_sampled = None if None in drawn else sum(n for n in drawn if n is not None)

    @property
    def awaits_counts(self) -> bool:
        return any(sampler.awaits_counts for sampler in self.samplers)

    def check(self, vocabulary_size: int) -> None:
        for sampler in self.samplers:
            sampler.check(vocabulary_size)

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        return {
            f"{k}_{name}": array
            for k, sampler in enumerate(self.samplers)
            for name, array in sampler.state(vocabulary_size).items()
        }

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        drawn, before = [], 0
        for k, sampler in enumerate(self.samplers):
            # Each sampler has eight streams of its own; those of a nested mixture follow one another.
            first = before if isinstance(sampler, MixedSampler) else before + 1
            drawn.append(sampler.sample(_part(state, k), vocabulary_size, stream(seed, 8 * first)))
            before += _number_of_samplers(sampler)
        return tf.concat(drawn, axis=0)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        each = [
            sampler.log_expected_count(_part(state, k), vocabulary_size, ids, batch_size)
            for k, sampler in enumerate(self.samplers)
        ]
        return tf.reduce_logsumexp(tf.stack(each), axis=0)

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        return [
            operation
            for k, sampler in enumerate(self.samplers)
            for operation in sampler.update(_part(state, k), positives)
        ]

    def grown(self, state: Mapping[str, np.ndarray], vocabulary_size: int) -> dict[str, np.ndarray]:
        return {
            f"{k}_{name}": array
            for k, sampler in enumerate(self.samplers)
            for name, array in sampler.grown(_part(state, k), vocabulary_size).items()
        }

    def get_config(self) -> dict[str, Any]:
        return {"sampler": self.name, "samplers": [sampler.get_config() for sampler in self.samplers]}


def _part(state: State, k: int) -> State:
    prefix = f"{k}_"
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _number_of_samplers(sampler: Sampler) -> int:
    return sum(map(_number_of_samplers, sampler.samplers)) if isinstance(sampler, MixedSampler) else 1
