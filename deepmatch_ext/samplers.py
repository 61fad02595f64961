"""Which items are drawn as negatives, and the log of how often each was to be expected.

A sampler draws S candidate ids, with replacement, that a whole batch shares; id 0 is padding and never drawn. For any
id it tells the log of the count with which it was to be expected among the candidates, ``log(S q(id))``: what the logQ
correction of sampled softmax subtracts (Bengio & Senecal 2008; ``tf.nn.sampled_softmax_loss``).

Samplers are plain settings. What they need at every step (an alias table, say) is an array of their `state`, which
`CandidateSampler` keeps as weights: so it is saved with the model's weights and not in its config. A sampler that
learns, from the positives that go by, changes its state in `update`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import finite_number, number_between, positive_int, problem, shown

State = Mapping[str, Any]

# Stands in a config for counts that come with the saved weights.
SAVED = "saved with the weights"

# Enough that a share of a thousandth is known to a tenth, and half a megabyte.
DEFAULT_MEMORY = 2**17


# name -> class, of all samplers that there are.
_SAMPLERS: dict[str, type[Sampler]] = {}


class Sampler:
    """What every sampler can do. ``V`` is the vocabulary's size, padding included.

    A sampler of your own is a subclass with a `name` of its own, which a saved model finds it by: so its module is to
    be imported before the model is loaded. What its ``__init__`` takes it gives in `get_config`.

    Attributes:
        name: What a config calls the sampler.
        num_sampled: S, the candidates of a step that are drawn; None where the batch or the vocabulary decides.
        in_batch: The batch's positives are candidates, too.
        num_hard: How many of the candidates, those with the highest logits, each example keeps; None: all.
    """

    name: ClassVar[str]
    num_sampled: int | None = None
    in_batch: bool = False
    num_hard: int | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            return
        other = _SAMPLERS.get(cls.name)
        if other is not None and not _is_same(other, cls):
            raise problem(f"`name` of the sampler {cls.__name__}", f"not be that of {other.__name__}", repr(cls.name))
        _SAMPLERS[cls.name] = cls

    @property
    def awaits_counts(self) -> bool:
        """Whether counts are still to come with saved weights; until then the sampler can't correct for them."""
        return False

    def check(self, vocabulary_size: int) -> None:
        """Refuses settings that don't fit the vocabulary."""
        if self.num_sampled is not None and self.num_sampled > vocabulary_size - 1:
            raise problem(
                "`num_sampled`",
                f"be at most {vocabulary_size - 1}, the number of items without padding",
                self.num_sampled,
            )

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        """The arrays that `sample` and `log_expected_count` read by row."""
        return {}

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        """Draws candidates: (S,) int64 ids in 1..V-1. The same ``seed`` (two integers) gives the same ids."""
        raise NotImplementedError

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        """log of how often each of ``ids`` (any shape) was to be expected among a step's candidates, float32."""
        raise NotImplementedError

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        """Learns from a training step's positives (n,) int64, after its draw; returns the operations that do it."""
        return []

    def get_config(self) -> dict[str, Any]:
        """The settings as plain data; `make_sampler` takes them back, without the counts, which are state.

        Raises:
            ValueError: A subclass takes other arguments than ``num_sampled`` and doesn't give them here.
        """
        others = set(inspect.signature(type(self)).parameters) - {"num_sampled"}
        if type(self).get_config is Sampler.get_config and others:
            remedy = f"It takes {', '.join(sorted(others))}, which a saved model has to hold."
            raise problem(f"The sampler {type(self).__name__}", "have a `get_config` of its own", "none", remedy)
        return {"sampler": self.name, "num_sampled": self.num_sampled}


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
    """For ids in order of falling popularity: ``q(id) = log(1 + 1/id) / log(V)``, nearly Zipf's law.

    The distribution of ``tf.random.log_uniform_candidate_sampler``, moved by one, since id 0 is padding.

    Args:
        num_sampled: S, the candidates of a step.
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
            item that never occurs counts as one that occurs once, so no correction is infinite.
        distortion: The power: 1 for the counts themselves, 0 for uniform, 0.75 as in word2vec.

    Raises:
        ValueError: A count is negative or not a number.

    Example:
        >>> FrequencySampler(100, item_count=[0, 7, 2, 1], distortion=0.75).distortion
        0.75
    """

    name = "frequency"

    def __init__(self, num_sampled: int, item_count: Any, distortion: float = 1.0) -> None:
        self.num_sampled: int = positive_int("`num_sampled`", num_sampled)
        self.item_count = _checked_counts(item_count)
        self.distortion = finite_number("`distortion`", distortion)

    @property
    def awaits_counts(self) -> bool:
        return self.item_count is None

    def check(self, vocabulary_size: int) -> None:
        super().check(vocabulary_size)
        _check_counts_fit(self.item_count, vocabulary_size)

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        log_q = _log_q(self.item_count, vocabulary_size, self.distortion)
        probability = np.ones(vocabulary_size - 1) if self.awaits_counts else np.exp(log_q[1:])
        threshold, alias = alias_table(probability / probability.sum())
        return {
            "threshold": np.concatenate([[1], threshold]).astype("float32"),
            "alias": np.concatenate([[0], alias + 1]).astype("int32"),
            "log_q": log_q.astype("float32"),
        }

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        slot = tf.random.stateless_uniform([self.num_sampled], seed, 1, vocabulary_size, tf.int64)
        # Another stream than the slots': the two have to be independent.
        uniform = tf.random.stateless_uniform([self.num_sampled], _stream(seed, 1))
        alias = tf.cast(tf.nn.embedding_lookup(state["alias"], slot), tf.int64)
        return tf.where(uniform < tf.nn.embedding_lookup(state["threshold"], slot), slot, alias)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return tf.nn.embedding_lookup(state["log_q"], ids) + np.float32(math.log(self.num_sampled))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "item_count": SAVED, "distortion": self.distortion}


class InBatchSampler(Sampler):
    """The batch's own positives are the candidates, so an item is drawn as often as it is consumed.

    Each example's own positive is masked like any accidental hit. An item is to be expected ``B share(item)`` times
    among B positives (the correction of Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations", RecSys 2019).

    Args:
        item_count: (V,) how often each id occurs in the training data, from which the shares follow. None: they are
            estimated while training, from the last `memory` positives, as in `AdaptiveSampler`.
        memory: How many positives the estimate remembers.
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

    def get_config(self) -> dict[str, Any]:
        return {"sampler": self.name, **self.shares.get_config()}


class AdaptiveSampler(Sampler):
    """By frequency, which is learnt from the positives that go by: no counts have to be known.

    The last `memory` positives are kept, and how often each item is among them. A candidate is one of them, or, with
    the probability `uniform_share`, any item. So the chance of every item is known exactly at every step, drawing costs
    O(S), learning O(B), and popularity that drifts is followed. (The idea of estimating frequencies from the stream is
    Yi et al.'s, RecSys 2019; TensorFlow's ``learned_unigram_candidate_sampler`` counts from the beginning.) Before
    anything has gone by, the memory holds all items alike.

    Args:
        num_sampled: S, the candidates of a step.
        memory: How many positives are remembered.
        uniform_share: In (0, 1], at least 1e-9: the share of candidates that are drawn uniformly, so that no item is
            never drawn.

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
        """The share of candidates that are drawn uniformly."""
        return self.shares.uniform_share

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        return self.shares.state(vocabulary_size)

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        place = tf.random.stateless_uniform([self.num_sampled], seed, 0, self.shares.memory, tf.int64)
        remembered = tf.cast(tf.nn.embedding_lookup(state["recent"], place), tf.int64)
        uniform = tf.random.stateless_uniform([self.num_sampled], _stream(seed, 1), 1, vocabulary_size, tf.int64)
        is_uniform = tf.random.stateless_uniform([self.num_sampled], _stream(seed, 2)) < self.uniform_share
        return tf.where(is_uniform, uniform, remembered)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return self.shares.log(state, vocabulary_size, ids) + np.float32(math.log(self.num_sampled))

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        return self.shares.update(state, positives)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.shares.get_config(), "uniform_share": self.uniform_share}


class QueueSampler(Sampler):
    """The positives of the batches before this one are the candidates (cross-batch negatives).

    As Wang et al., "Cross-Batch Negative Sampling for Training Two-Tower Recommenders", SIGIR 2021; but the queue holds
    ids, which the item tower encodes anew, so no candidate is stale. Before the queue is full it holds random items.

    Args:
        num_sampled: S, the length of the queue: so many positives before the batch.
        item_count, memory: As in `InBatchSampler`, for how often each item is to be expected.
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

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.shares.get_config()}


class MixedSampler(Sampler):
    """The candidates of several samplers together, expected as often as in all of them.

    ``MixedSampler([InBatchSampler(), UniformSampler(512)])`` is the mixed negative sampling of Yang et al., "Mixed
    Negative Sampling for Learning Two-tower Neural Networks in Recommendations", WWW 2020.

    Args:
        samplers: At least two, of any kind but `HardNegatives`; one at most in-batch.
    """

    name = "mixed"

    def __init__(self, samplers: Sequence[Any]) -> None:
        if not isinstance(samplers, list | tuple) or len(samplers) < 2:
            raise problem("`samplers`", "be a list of at least two samplers", shown(samplers))
        self.samplers: tuple[Sampler, ...] = tuple(make_sampler(sampler) for sampler in samplers)
        in_batch = sum(sampler.in_batch for sampler in self.samplers)
        if in_batch > 1 or any(sampler.num_hard for sampler in self.samplers):
            raise problem(
                "`samplers`",
                "hold no HardNegatives, and one in-batch sampler at most",
                f"{[sampler.name for sampler in self.samplers]}",
                "HardNegatives goes around the mixture.",
            )
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
            # Each has eight streams of its own; those of a mixture in the mixture follow one another.
            first = before if isinstance(sampler, MixedSampler) else before + 1
            drawn.append(sampler.sample(_part(state, k), vocabulary_size, _stream(seed, 8 * first)))
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

    def get_config(self) -> dict[str, Any]:
        return {"sampler": self.name, "samplers": [sampler.get_config() for sampler in self.samplers]}


class HardNegatives(Sampler):
    """Of another sampler's candidates each example keeps the hardest, those with the highest logits.

    The gradient is that of the largest terms of the sum over the candidates alone: it is biased by what is left out,
    the less so the more of the sum the kept ones hold.

    Args:
        of: The sampler that draws the candidates.
        num_hard: How many of them each example keeps.
    """

    name = "hard"

    def __init__(self, of: Any, num_hard: int) -> None:
        self.sampler = make_sampler(of)
        self.num_hard = positive_int("`num_hard`", num_hard)
        self.num_sampled, self.in_batch = self.sampler.num_sampled, self.sampler.in_batch
        if self.sampler.num_hard:
            raise problem("`of`", "be a sampler that draws", "another HardNegatives")
        if self.num_sampled is not None and not self.in_batch and self.num_hard > self.num_sampled:
            raise problem("`num_hard`", f"be at most {self.num_sampled}, the sampler's candidates", num_hard)

    @property
    def awaits_counts(self) -> bool:
        return self.sampler.awaits_counts

    def check(self, vocabulary_size: int) -> None:
        self.sampler.check(vocabulary_size)

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        return self.sampler.state(vocabulary_size)

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        return self.sampler.sample(state, vocabulary_size, seed)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return self.sampler.log_expected_count(state, vocabulary_size, ids, batch_size)

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        return self.sampler.update(state, positives)

    def get_config(self) -> dict[str, Any]:
        return {"sampler": self.name, "of": self.sampler.get_config(), "num_hard": self.num_hard}


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


class CountedShares:
    """Each item's share of the positives, from counts that are known."""

    def __init__(self, item_count: Any) -> None:
        self.item_count = _checked_counts(item_count)

    @property
    def awaits_counts(self) -> bool:
        return self.item_count is None

    def check(self, vocabulary_size: int) -> None:
        _check_counts_fit(self.item_count, vocabulary_size)

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        return {"log_q": _log_q(self.item_count, vocabulary_size, 1.0).astype("float32")}

    def log(self, state: State, vocabulary_size: int, ids: tf.Tensor) -> tf.Tensor:
        return tf.nn.embedding_lookup(state["log_q"], ids)

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        return []

    def get_config(self) -> dict[str, Any]:
        return {"item_count": SAVED}


SMALLEST_SHARE = 1e-9


class RecentShares:
    """Each item's share of the last ``memory`` positives, and a ``uniform_share`` spread over all items.

    State: ``recent`` (memory,), the positives; ``recent_place`` (), where the next one goes; ``count`` (V,), how often
    each item is among them.
    """

    awaits_counts = False

    def __init__(self, memory: int, uniform_share: float) -> None:
        self.memory = positive_int("`memory`", memory)
        self.uniform_share = number_between("`uniform_share`", uniform_share, 0, 1 + 1e-9)
        if self.uniform_share < SMALLEST_SHARE:  # less, spread over many items, is 0 in float32
            rule = f"be at least {SMALLEST_SHARE:g}"
            raise problem("`uniform_share`", rule, uniform_share, "Else items might never be drawn.")

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

    def get_config(self) -> dict[str, Any]:
        return {"memory": self.memory}


def _shares(item_count: Any, memory: int) -> CountedShares | RecentShares:
    # A hundredth keeps the correction of items that the memory doesn't hold finite.
    return RecentShares(memory, 0.01) if item_count is None else CountedShares(item_count)


def _ring(name: str, length: int, vocabulary_size: int) -> dict[str, np.ndarray]:
    """A ring of ids, at first all items alike in an order by chance, and the place that is written next."""
    ids = np.resize(np.random.default_rng(0).permutation(np.arange(1, vocabulary_size)), length)
    return {name: ids.astype("int32"), f"{name}_place": np.zeros((), "int64")}


def _next_places(state: State, name: str, length: int, positives: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, Any]:
    """Where in a ring the positives go, those of them that go there, and the operation that moves the place on."""
    positives = tf.boolean_mask(positives, positives > 0)[-length:]
    n = tf.size(positives, out_type=tf.int64)
    first = tf.identity(state[f"{name}_place"])
    with tf.control_dependencies([first]):
        moved = state[f"{name}_place"].assign((first + n) % length)
    return (first + tf.range(n)) % length, positives, moved


def _part(state: State, k: int) -> State:
    prefix = f"{k}_"
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def _number_of_samplers(sampler: Sampler) -> int:
    return sum(map(_number_of_samplers, sampler.samplers)) if isinstance(sampler, MixedSampler) else 1


def _stream(seed: tf.Tensor, k: int) -> tf.Tensor:
    """Another stream of random numbers than the seed's, independent of it."""
    return seed + tf.constant([0, k * 2**40], tf.int64)


def _is_same(one: type[Sampler] | None, other: type[Sampler]) -> bool:
    """Whether two classes are the same one; a notebook defines its classes anew at every run of a cell."""
    return one is not None and (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


_DEEPMATCH_SETTINGS = ("num_sampled", "item_name", "item_count", "distortion")


def make_sampler(spec: Any) -> Sampler:
    """A sampler from a `Sampler`, DeepMatch's ``NegativeSampler`` (or its ``_asdict()``), or a sampler's `get_config`.

    Raises:
        ValueError: The sampler's name is unknown, or something it needs is missing.
    """
    if isinstance(spec, Sampler):
        if not _is_same(_SAMPLERS.get(getattr(spec, "name", "")), type(spec)):
            got = repr(getattr(spec, "name", None))
            remedy = "A saved model finds its sampler by this name."
            raise problem(f"The sampler {type(spec).__name__}", "have a `name` of its own", got, remedy)
        return spec
    if hasattr(spec, "_asdict"):
        spec = spec._asdict()
    if not isinstance(spec, Mapping) or "sampler" not in spec:
        raise problem(
            "`sampler_config`", "be a sampler or a NegativeSampler", repr(spec), "For example UniformSampler(100)."
        )
    if not isinstance(spec["sampler"], str) or spec["sampler"] not in _SAMPLERS:
        rule, remedy = f"be one of {', '.join(map(repr, _SAMPLERS))}", "A sampler of your own: import its module first."
        raise problem("The sampler's name", rule, repr(spec["sampler"]), remedy)
    name = spec["sampler"]
    takes = inspect.signature(_SAMPLERS[name]).parameters
    settings = {
        key: value
        for key, value in spec.items()
        # DeepMatch's tuple has a place for every sampler's settings.
        if value is not None and key != "sampler" and (key in takes or key not in _DEEPMATCH_SETTINGS)
    }
    if name == "frequency":
        settings.setdefault("item_count", None)  # which it refuses
    try:
        return _SAMPLERS[name](**settings)
    except TypeError as error:  # a setting is missing or unknown
        raise problem("`sampler_config`", f"have the settings of the {name!r} sampler", str(error)) from None


def alias_table(probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias table, built without a loop.

    Draw a slot uniformly, keep it with probability ``threshold[slot]``, else take ``alias[slot]``.

    A slot with less than its share (light) is filled up by one with more (heavy). With both in a row, light k's
    deficit is filled by the heavy slot in whose excess the sum of the deficits before k falls; a heavy slot whose
    excess is used up in the midst of a deficit becomes light itself, and the next heavy one fills it.

    Args:
        probability: (n,) non-negative, sums to 1.

    Returns:
        threshold (n,) float64 in [0, 1] and alias (n,) int64.
    """
    n = len(probability)
    share = np.asarray(probability, np.float64) * n
    light, heavy = np.flatnonzero(share < 1), np.flatnonzero(share >= 1)
    deficits, excesses = np.cumsum(1 - share[light]), np.cumsum(share[heavy] - 1)
    threshold, alias = share.copy(), np.arange(n)
    threshold[heavy] = 1.0
    if len(light) and len(heavy):  # rounding may leave no heavy one in a uniform distribution
        before = np.concatenate([[0.0], deficits[:-1]])
        # A heavy slot is used up by the first light one whose deficits' sum is above, not at, its excesses' sum.
        filler = np.minimum(np.searchsorted(excesses, before, side="left"), len(heavy) - 1)
        alias[light] = heavy[filler]
        used_up_at = np.searchsorted(deficits, excesses, side="right")
        exhausted = np.flatnonzero(used_up_at[:-1] < len(light))  # the last one only by rounding
        left = 1 + excesses[exhausted] - deficits[used_up_at[exhausted]]
        threshold[heavy[exhausted]] = np.clip(left, 0, 1)
        alias[heavy[exhausted]] = heavy[exhausted + 1]
    return threshold, alias


def _checked_counts(item_count: Any) -> np.ndarray | None:
    if isinstance(item_count, str) and item_count == SAVED:
        return None
    if item_count is None:
        raise problem(
            "`item_count`",
            "be given for the 'frequency' sampler",
            None,
            "Count the training targets: `np.bincount(item_ids, minlength=vocabulary_size)`. Or take 'adaptive'.",
        )
    try:
        counts = np.asarray(item_count, dtype=np.float64)
    except (TypeError, ValueError):
        got = type(item_count).__name__
        raise problem("`item_count`", "be an array of counts by id", f"a {got} that is none") from None
    if counts.ndim != 1:
        raise problem("`item_count`", "have one dimension, a count per id", f"shape {counts.shape}")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise problem("`item_count`", "hold finite counts of at least 0", "a negative or non-finite one")
    if ((counts > 0) & (counts < 1)).any():
        raise problem("`item_count`", "hold counts, not shares", f"{counts[(counts > 0) & (counts < 1)][0]:g}")
    return counts


def _check_counts_fit(item_count: np.ndarray | None, vocabulary_size: int) -> None:
    if item_count is not None and len(item_count) != vocabulary_size:
        raise problem(
            "`item_count`",
            f"have an entry for each of the {vocabulary_size} ids of the item column, id 0 (padding) included",
            f"{len(item_count)} entries",
        )


def _log_q(item_count: np.ndarray | None, vocabulary_size: int, distortion: float) -> np.ndarray:
    """(V,) float64, log of each item's share; NaN without counts: a saved state is to replace it.

    Padding has no share; it is given the least of the others', so that nothing is infinite.
    """
    if item_count is None:
        return np.full(vocabulary_size, np.nan)
    log_weights = distortion * np.log(np.maximum(item_count, 1.0)[1:])
    log_weights -= log_weights.max()  # of shares as far apart as float64 can't hold, the largest still sum to 1
    log_q = log_weights - np.log(np.exp(log_weights).sum())
    return np.concatenate([[log_q.min()], log_q])
