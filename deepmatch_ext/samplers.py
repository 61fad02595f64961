"""Which items are drawn as negatives, and the log of how often each was to be expected.

A sampler draws S candidate ids, with replacement, that a whole batch shares; id 0 is padding and never drawn. For any
id it tells the log of the count with which it was to be expected among the candidates, ``log(S q(id))``: what the logQ
correction of sampled softmax subtracts (Bengio & Senecal 2008; ``tf.nn.sampled_softmax_loss``).

Samplers are plain settings. What they need at every step (an alias table, say) is an array of their `state`, which
`CandidateSampler` keeps as weights: so it is saved with the model's weights and not in its config.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import one_of, positive_int, problem

State = Mapping[str, Any]

# Stands in a config for counts that come with the saved weights.
_SAVED = "saved with the weights"


class Sampler:
    """What every sampler can do. ``V`` is the vocabulary's size, padding included.

    Attributes:
        num_sampled: S, the candidates of a step; None where the batch decides.
        in_batch: The batch's positives are candidates.
    """

    name: ClassVar[str]
    num_sampled: int | None = None
    in_batch: ClassVar[bool] = False

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

    def get_config(self) -> dict[str, Any]:
        """The settings as plain data; `make_sampler` takes them back, without the counts, which are state."""
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
        self.distortion = float(distortion)
        if not math.isfinite(self.distortion):
            raise problem("`distortion`", "be a finite number", distortion)

    def check(self, vocabulary_size: int) -> None:
        super().check(vocabulary_size)
        _check_counts_fit(self.item_count, vocabulary_size)

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        log_q = _log_q(self.item_count, vocabulary_size, self.distortion)
        probability = np.exp(log_q[1:])
        threshold, alias = alias_table(probability / probability.sum())
        return {
            "threshold": np.concatenate([[1], threshold]).astype("float32"),
            "alias": np.concatenate([[0], alias + 1]).astype("int32"),
            "log_q": log_q.astype("float32"),
        }

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        slot = tf.random.stateless_uniform([self.num_sampled], seed, 1, vocabulary_size, tf.int64)
        # Another stream than the slots': the two have to be independent.
        uniform = tf.random.stateless_uniform([self.num_sampled], seed + [0, 2**40])
        alias = tf.cast(tf.nn.embedding_lookup(state["alias"], slot), tf.int64)
        return tf.where(uniform < tf.nn.embedding_lookup(state["threshold"], slot), slot, alias)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return tf.nn.embedding_lookup(state["log_q"], ids) + np.float32(math.log(self.num_sampled))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "item_count": _SAVED, "distortion": self.distortion}


class InBatchSampler(Sampler):
    """The batch's own positives are the candidates, so an item is drawn as often as it is consumed.

    Each example's own positive is masked like any accidental hit.

    Args:
        item_count: (V,) how often each id occurs in the training data, from which the expected counts follow: an
            item is to be expected ``B count / total`` times among B positives.
    """

    name = "inbatch"
    in_batch = True

    def __init__(self, item_count: Any) -> None:
        self.item_count = _checked_counts(item_count)

    def check(self, vocabulary_size: int) -> None:
        _check_counts_fit(self.item_count, vocabulary_size)

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        return {"log_q": _log_q(self.item_count, vocabulary_size, 1.0).astype("float32")}

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.zeros([0], tf.int64)

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        return tf.nn.embedding_lookup(state["log_q"], ids) + tf.math.log(tf.cast(batch_size, tf.float32))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "item_count": _SAVED}


_SAMPLERS: dict[str, type[Sampler]] = {
    sampler.name: sampler for sampler in (UniformSampler, LogUniformSampler, FrequencySampler, InBatchSampler)
}


def make_sampler(spec: Any) -> Sampler:
    """A sampler from a `Sampler`, DeepMatch's ``NegativeSampler`` (or its ``_asdict()``), or a sampler's `get_config`.

    Raises:
        ValueError: The sampler's name is unknown, or something it needs is missing.
    """
    if isinstance(spec, Sampler):
        return spec
    if hasattr(spec, "_asdict"):
        spec = spec._asdict()
    if not isinstance(spec, Mapping) or "sampler" not in spec:
        raise problem(
            "`sampler_config`", "be a sampler or a NegativeSampler", repr(spec), "For example UniformSampler(100)."
        )
    settings = {key: value for key, value in spec.items() if value is not None and key not in ("sampler", "item_name")}
    name = one_of("The sampler's name", spec["sampler"], _SAMPLERS)
    if name in ("frequency", "inbatch"):
        settings.setdefault("item_count", None)  # which the samplers refuse
    else:
        settings.pop("item_count", None)
    if name == "inbatch":
        settings.pop("num_sampled", None)
    if name != "frequency":
        settings.pop("distortion", None)
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
    if isinstance(item_count, str) and item_count == _SAVED:
        return None
    if item_count is None:
        raise problem(
            "`item_count`",
            "be given for the 'frequency' and 'inbatch' samplers",
            None,
            "Count the training targets: `np.bincount(item_ids, minlength=vocabulary_size)`.",
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
    """(V,) float64, log of each item's share. Uniform without counts: a saved state is about to replace it.

    Padding has no share; it is given the least of the others', so that nothing is infinite.
    """
    counts = np.ones(vocabulary_size) if item_count is None else np.maximum(item_count, 1.0)
    log_weights = distortion * np.log(counts[1:])
    log_weights -= log_weights.max()  # of shares as far apart as float64 can't hold, the largest still sum to 1
    log_q = log_weights - np.log(np.exp(log_weights).sum())
    return np.concatenate([[log_q.min()], log_q])
