"""Samplers whose probabilities are known before training: uniform, by rank, by counts, and all items."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import finite_number, positive_int
from deepmatch_ext.samplers.base import SAVED, Sampler, State, check_counts_fit, checked_counts, log_shares, stream


class UniformSampler(Sampler):
    """Every item is as likely as any other.

    Args:
        num_sampled: S, the candidates of a step.

    Example:
        >>> UniformSampler(100).num_sampled
        100
    """

    name = "uniform"

    def __init__(self, num_sampled: int) -> None:
        self.num_sampled: int = positive_int("`num_sampled`", num_sampled)

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform([self.num_sampled], seed, 1, vocabulary_size, tf.int64)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return tf.fill(tf.shape(ids), np.float32(math.log(self.num_sampled / (vocabulary_size - 1))))


class LogUniformSampler(Sampler):
    """For ids in order of decreasing popularity: ``q(id) = log(1 + 1/id) / log(V)``, nearly Zipf's law.

    The distribution of ``tf.random.log_uniform_candidate_sampler``, shifted by one, since id 0 is padding.

    Args:
        num_sampled: S, the candidates of a step.

    Example:
        >>> LogUniformSampler(100).log_expected_count({}, 4, tf.constant([1]), 32).numpy().round(3)  # log(100 / 2)
        array([3.912], dtype=float32)
    """

    name = "log_uniform"

    def __init__(self, num_sampled: int) -> None:
        self.num_sampled: int = positive_int("`num_sampled`", num_sampled)

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        # The inverse of the distribution function log(1 + id) / log(V); float64 keeps large ids exact.
        uniform = tf.random.stateless_uniform([self.num_sampled], seed, dtype=tf.float64)
        ids = tf.cast(tf.exp(uniform * math.log(vocabulary_size)), tf.int64)
        return tf.clip_by_value(ids, 1, vocabulary_size - 1)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        # A padding id has no probability; it is given id 1's, so that nothing is infinite.
        rank = tf.cast(tf.maximum(ids, 1), tf.float64)
        log_q = tf.math.log(tf.math.log1p(1.0 / rank) / math.log(vocabulary_size))
        return tf.cast(math.log(self.num_sampled) + log_q, tf.float32)


class FrequencySampler(Sampler):
    """Items in proportion to a power of their count, ``q(id) ~ max(count(id), 1) ** distortion``.

    Draws by an alias table (Walker 1977; Vose 1991): a step costs O(S) at any vocabulary size.

    Args:
        num_sampled: S, the candidates of a step.
        item_count: (V,) how often each id occurs in the training data; the entry of id 0 (padding) is ignored. An
            item that never occurs counts as one that occurs once, so no correction is infinite. A pandas Series is read
            by its index, the ids.
        distortion: The power: 1 for the counts themselves, 0 for uniform, 0.75 as in word2vec.

    Raises:
        ValueError: A count is negative, not finite, or a fraction below 1; or all counts are 0.

    Example:
        >>> FrequencySampler(100, item_count=[0, 7, 2, 1], distortion=0.75).distortion
        0.75
    """

    name = "frequency"

    def __init__(self, num_sampled: int, item_count: Any, distortion: float = 1.0) -> None:
        self.num_sampled: int = positive_int("`num_sampled`", num_sampled)
        self.item_count = checked_counts(item_count)
        self.distortion = finite_number("`distortion`", distortion)

    @property
    def awaits_counts(self) -> bool:
        return self.item_count is None

    def check(self, vocabulary_size: int) -> None:
        super().check(vocabulary_size)
        check_counts_fit(self.item_count, vocabulary_size)

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        log_q = log_shares(self.item_count, vocabulary_size, self.distortion)
        probability = np.ones(vocabulary_size - 1) if self.awaits_counts else np.exp(log_q[1:])
        threshold, alias = alias_table(probability / probability.sum())
        return {
            "threshold": np.concatenate([[1], threshold]).astype("float32"),
            "alias": np.concatenate([[0], alias + 1]).astype("int32"),
            "log_q": log_q.astype("float32"),
        }

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        slot = tf.random.stateless_uniform([self.num_sampled], seed, 1, vocabulary_size, tf.int64)
        # A different stream from that of the slots: the two have to be independent.
        uniform = tf.random.stateless_uniform([self.num_sampled], stream(seed, 1))
        alias = tf.cast(tf.nn.embedding_lookup(state["alias"], slot), tf.int64)
        return tf.where(uniform < tf.nn.embedding_lookup(state["threshold"], slot), slot, alias)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return tf.nn.embedding_lookup(state["log_q"], ids) + np.float32(math.log(self.num_sampled))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "item_count": SAVED, "distortion": self.distortion}


class FullSampler(Sampler):
    """Every item is a candidate: full softmax. A step costs O(V), so it is for small catalogues.

    Example:
        >>> FullSampler().sample({}, 4, tf.constant([0, 1])).numpy()
        array([1, 2, 3])
    """

    name = "full"

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.range(1, vocabulary_size, dtype=tf.int64)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return tf.zeros_like(ids, tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {"sampler": self.name}


def alias_table(probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias table, built without a loop.

    Draw a slot uniformly, keep it with probability ``threshold[slot]``, else take ``alias[slot]``.

    A slot with less than the mean probability (light) is filled up by one with more (heavy). With the slots of each
    kind laid end to end, the deficit of light slot k is filled by the heavy slot into whose excess the sum of the
    deficits before k falls. A heavy slot whose excess is used up within a deficit becomes light itself, and the next
    heavy one fills it.

    Args:
        probability: (n,) non-negative, sums to 1.

    Returns:
        threshold (n,) float64 in [0, 1] and alias (n,) int64.

    Example:
        >>> threshold, alias = alias_table(np.array([0.75, 0.25]))
        >>> threshold.tolist(), alias.tolist()
        ([1.0, 0.5], [0, 0])
    """
    n = len(probability)
    share = np.asarray(probability, np.float64) * n
    light, heavy = np.flatnonzero(share < 1), np.flatnonzero(share >= 1)
    deficits, excesses = np.cumsum(1 - share[light]), np.cumsum(share[heavy] - 1)
    threshold, alias = share.copy(), np.arange(n)
    threshold[heavy] = 1.0
    if len(light) and len(heavy):  # rounding may leave no heavy one in a uniform distribution
        before = np.concatenate([[0.0], deficits[:-1]])
        # A heavy slot is used up by the first light one at which the sum of deficits exceeds the sum of excesses.
        filler = np.minimum(np.searchsorted(excesses, before, side="left"), len(heavy) - 1)
        alias[light] = heavy[filler]
        used_up_at = np.searchsorted(deficits, excesses, side="right")
        exhausted = np.flatnonzero(used_up_at[:-1] < len(light))  # the last one only by rounding
        left = 1 + excesses[exhausted] - deficits[used_up_at[exhausted]]
        threshold[heavy[exhausted]] = np.clip(left, 0, 1)
        alias[heavy[exhausted]] = heavy[exhausted + 1]
    return threshold, alias
