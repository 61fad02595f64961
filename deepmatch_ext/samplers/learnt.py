"""Samplers that learn from the positives of the batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import number_between, positive_int, problem
from deepmatch_ext.samplers.base import SAVED, Sampler, State, check_counts_fit, checked_counts, log_shares, stream

DEFAULT_MEMORY = 2**17
"""How many positives are remembered. A frequency of one in a thousand is then known to within 10%, in half a MB."""


class InBatchSampler(Sampler):
    """The batch's own positives are the candidates, so items are drawn by their frequency.

    Each example's own positive is masked like any accidental hit. An item is expected ``B p`` times among B positives,
    where p is its fraction of all positives (the correction of Yi et al., "Sampling-Bias-Corrected Neural Modeling for
    Large Corpus Item Recommendations", RecSys 2019).

    Args:
        item_count: (V,) how often each id occurs in the training data, from which the fractions follow. None: they are
            estimated during training, from the last `memory` positives, as in `AdaptiveSampler`.
        memory: How many positives the estimate remembers.

    Raises:
        ValueError: A count is negative, not finite, or a fraction below 1; or all counts are 0.

    Example:
        >>> InBatchSampler(item_count=[0, 7, 2, 1]).in_batch
        True
    """

    name = "inbatch"
    in_batch = True

    def __init__(self, item_count: Any = None, memory: int = DEFAULT_MEMORY) -> None:
        self.shares = _shares(item_count, memory)

    @property
    def awaits_counts(self) -> bool:
        return self.shares.awaits_counts

    def check(self, vocabulary_size: int) -> None:
        self.shares.check(vocabulary_size)

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        return self.shares.state(vocabulary_size)

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.zeros([0], tf.int64)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return self.shares.log(state, vocabulary_size, ids) + tf.math.log(tf.cast(batch_size, tf.float32))

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        return self.shares.update(state, positives)

    def grown(self, state: Mapping[str, np.ndarray], vocabulary_size: int) -> dict[str, np.ndarray]:
        return super().grown(self.shares.grown(state, vocabulary_size), vocabulary_size)

    def get_config(self) -> dict[str, Any]:
        return {"sampler": self.name, **self.shares.get_config()}


class AdaptiveSampler(Sampler):
    """Draws items by their frequency, which it learns from the positives of the batches; no counts are needed.

    It keeps the last `memory` positives and how often each item is among them. A candidate is one of these positives
    or, with probability `uniform_share`, any item. Each item's probability is therefore known exactly at every step,
    drawing costs O(S), learning costs O(B), and the sampler follows changes in popularity. (The idea of estimating
    frequencies from the stream is Yi et al.'s, RecSys 2019; TensorFlow's ``learned_unigram_candidate_sampler`` counts
    from the beginning of training.) Initially, the memory holds all items equally often.

    Args:
        num_sampled: S, the candidates of a step.
        memory: How many positives are remembered.
        uniform_share: The fraction of candidates that are drawn uniformly, so that every item can be drawn; from 1e-9
            to 1.

    Raises:
        ValueError: `uniform_share` is out of range.

    Example:
        >>> AdaptiveSampler(100).uniform_share
        0.1
    """

    name = "adaptive"

    def __init__(self, num_sampled: int, memory: int = DEFAULT_MEMORY, uniform_share: float = 0.1) -> None:
        self.num_sampled: int = positive_int("`num_sampled`", num_sampled)
        self.shares = RecentShares(memory, uniform_share)

    @property
    def uniform_share(self) -> float:
        """The fraction of candidates that are drawn uniformly."""
        return self.shares.uniform_share

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        return self.shares.state(vocabulary_size)

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        place = tf.random.stateless_uniform([self.num_sampled], seed, 0, self.shares.memory, tf.int64)
        remembered = tf.cast(tf.nn.embedding_lookup(state["recent"], place), tf.int64)
        uniform = tf.random.stateless_uniform([self.num_sampled], stream(seed, 1), 1, vocabulary_size, tf.int64)
        is_uniform = tf.random.stateless_uniform([self.num_sampled], stream(seed, 2)) < self.uniform_share
        return tf.where(is_uniform, uniform, remembered)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return self.shares.log(state, vocabulary_size, ids) + np.float32(math.log(self.num_sampled))

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        return self.shares.update(state, positives)

    def grown(self, state: Mapping[str, np.ndarray], vocabulary_size: int) -> dict[str, np.ndarray]:
        return super().grown(self.shares.grown(state, vocabulary_size), vocabulary_size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.shares.get_config(), "uniform_share": self.uniform_share}


class QueueSampler(Sampler):
    """The positives of earlier batches are the candidates (cross-batch negatives).

    After Wang et al., "Cross-Batch Negative Sampling for Training Two-Tower Recommenders", SIGIR 2021; but the queue
    holds ids, which the item tower encodes again, so no candidate vector is stale. Until the queue is full, it
    also holds random items.

    Args:
        num_sampled: S, the length of the queue: the last S positives before the batch.
        item_count, memory: As in `InBatchSampler`, for the expected counts.

    Raises:
        ValueError: As for `InBatchSampler`.

    Example:
        >>> QueueSampler(1000).num_sampled
        1000
    """

    name = "queue"

    def __init__(self, num_sampled: int, item_count: Any = None, memory: int = DEFAULT_MEMORY) -> None:
        self.num_sampled: int = positive_int("`num_sampled`", num_sampled)
        self.shares = _shares(item_count, memory)

    @property
    def awaits_counts(self) -> bool:
        return self.shares.awaits_counts

    def check(self, vocabulary_size: int) -> None:
        self.shares.check(vocabulary_size)  # a queue may be longer than the vocabulary

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        return {**self.shares.state(vocabulary_size), **_ring("queue", self.num_sampled, vocabulary_size)}

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.nn.embedding_lookup(state["queue"], tf.range(self.num_sampled)), tf.int64)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return self.shares.log(state, vocabulary_size, ids) + np.float32(math.log(self.num_sampled))

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        places, queued, moved = _next_places(state, "queue", self.num_sampled, positives)
        written = state["queue"].scatter_update(tf.IndexedSlices(tf.cast(queued, tf.int32), places))
        return [*self.shares.update(state, positives), written, moved]

    def grown(self, state: Mapping[str, np.ndarray], vocabulary_size: int) -> dict[str, np.ndarray]:
        return super().grown(self.shares.grown(state, vocabulary_size), vocabulary_size)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.shares.get_config()}


class CountedShares:
    """Each item's fraction of the positives, from known counts. Its methods are those of `Sampler`.

    Args:
        item_count: (V,) how often each id occurs in the training data. Id 0 is padding, which is ignored; items with
            count 0 are treated as if it were 1.

    Raises:
        ValueError: A count is negative, not finite, or a fraction below 1; or all counts are 0.

    Example:
        >>> shares = CountedShares([0, 6, 3, 1])
        >>> log_q = shares.log(shares.state(vocabulary_size=4), 4, ids=tf.constant([1, 2, 3]))
        >>> tf.exp(log_q).numpy().round(3)
        array([0.6, 0.3, 0.1], dtype=float32)
    """

    def __init__(self, item_count: Any) -> None:
        self.item_count = checked_counts(item_count)

    @property
    def awaits_counts(self) -> bool:
        return self.item_count is None

    def check(self, vocabulary_size: int) -> None:
        check_counts_fit(self.item_count, vocabulary_size)

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        return {"log_q": log_shares(self.item_count, vocabulary_size, 1.0).astype("float32")}

    def log(self, state: State, vocabulary_size: int, ids: tf.Tensor) -> tf.Tensor:
        return tf.nn.embedding_lookup(state["log_q"], ids)

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        return []

    def grown(self, state: Mapping[str, np.ndarray], vocabulary_size: int) -> Mapping[str, np.ndarray]:
        return state  # counts of new items have to be given

    def get_config(self) -> dict[str, Any]:
        return {"item_count": SAVED}


SMALLEST_SHARE = 1e-9
"""The smallest ``uniform_share``: divided by many items, a smaller one would be 0 in float32."""


class RecentShares:
    """Each item's fraction of the last ``memory`` positives, and a ``uniform_share`` spread over all items.

    State: ``recent`` (memory,), the positives; ``recent_place`` (), where the next one is written; ``count`` (V,), how
    often each item is among them. Its methods are those of `Sampler`.

    Args:
        memory: How many positives are remembered.
        uniform_share: From `SMALLEST_SHARE` to 1.

    Raises:
        ValueError: ``memory`` is not a positive integer, or ``uniform_share`` is out of range.

    Example:
        >>> shares = RecentShares(memory=4, uniform_share=0.2)
        >>> state = {name: tf.Variable(array) for name, array in shares.state(vocabulary_size=5).items()}
        >>> _ = shares.update(state, positives=tf.constant([1, 1, 1, 2], tf.int64))
        >>> tf.exp(shares.log(state, 5, ids=tf.constant([1, 2, 3]))).numpy().round(3)
        array([0.65, 0.25, 0.05], dtype=float32)
    """

    awaits_counts = False

    def __init__(self, memory: int, uniform_share: float) -> None:
        self.memory = positive_int("`memory`", memory)
        self.uniform_share = number_between("`uniform_share`", uniform_share, 0, 1 + 1e-9)
        if self.uniform_share < SMALLEST_SHARE:
            rule = f"be at least {SMALLEST_SHARE:g}"
            raise problem("`uniform_share`", rule, uniform_share, "Otherwise some items might never be drawn.")

    def check(self, vocabulary_size: int) -> None:
        pass

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        ring = _ring("recent", self.memory, vocabulary_size)
        return {**ring, "count": np.bincount(ring["recent"], minlength=vocabulary_size).astype("int32")}

    def log(self, state: State, vocabulary_size: int, ids: tf.Tensor) -> tf.Tensor:
        count = tf.cast(tf.nn.embedding_lookup(state["count"], ids), tf.float32)
        uniform = self.uniform_share / (vocabulary_size - 1)
        return tf.math.log(count * np.float32((1 - self.uniform_share) / self.memory) + np.float32(uniform))

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        places, new, moved = _next_places(state, "recent", self.memory, positives)
        old = tf.nn.embedding_lookup(state["recent"], places)
        new = tf.cast(new, old.dtype)
        ones = tf.ones_like(new)
        with tf.control_dependencies([old]):
            return [
                state["count"].scatter_sub(tf.IndexedSlices(ones, old)),
                state["count"].scatter_add(tf.IndexedSlices(ones, new)),
                state["recent"].scatter_update(tf.IndexedSlices(new, places)),
                moved,
            ]

    def grown(self, state: Mapping[str, np.ndarray], vocabulary_size: int) -> Mapping[str, np.ndarray]:
        new = np.zeros(vocabulary_size - len(state["count"]), state["count"].dtype)
        return {**state, "count": np.concatenate([state["count"], new])}

    def get_config(self) -> dict[str, Any]:
        return {"memory": self.memory}


def _shares(item_count: Any, memory: int) -> CountedShares | RecentShares:
    # A uniform share of a hundredth keeps the correction finite for items that the memory does not hold.
    return RecentShares(memory, 0.01) if item_count is None else CountedShares(item_count)


def _ring(name: str, length: int, vocabulary_size: int) -> dict[str, np.ndarray]:
    """A ring of ids, initially all items in a random order, and the place that is written next."""
    ids = np.resize(np.random.default_rng(0).permutation(np.arange(1, vocabulary_size)), length)
    return {name: ids.astype("int32"), f"{name}_place": np.zeros((), "int64")}


def _next_places(state: State, name: str, length: int, positives: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Any]:
    """The places in a ring, the positives that are written there, and the operation that advances the next place."""
    positives = tf.boolean_mask(positives, positives > 0)[-length:]
    n = tf.size(positives, out_type=tf.int64)
    first = tf.identity(state[f"{name}_place"])
    with tf.control_dependencies([first]):
        moved = state[f"{name}_place"].assign((first + n) % length)
    return (first + tf.range(n)) % length, positives, moved
