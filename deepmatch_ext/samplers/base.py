"""The base of all samplers, samplers by their names, and counts of items."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import positive_int, problem
from deepmatch_ext._frames import by_id

State = Mapping[str, Any]
"""A sampler's arrays by name, as variables of the model that uses it."""

SAVED = "saved with the weights"
"""Stands in a config for counts that come with the saved weights."""

# name -> class, of all samplers that there are.
_SAMPLERS: dict[str, type[Sampler]] = {}


class Sampler:
    """The base of all samplers. ``V`` is the vocabulary size, padding included.

    A custom sampler is a subclass with a unique `name`, by which a saved model finds it. Import its module before you
    load the model. Its `get_config` returns the arguments of its ``__init__``.

    Attributes:
        name: The sampler's name in a config.
        num_sampled: S, the number of candidates that a step draws; None if the batch or the vocabulary decides.
        in_batch: Whether the batch's positives are candidates, too.

    Example:
        >>> class NewestSampler(Sampler):  # deepmatch_ext.testing.check_sampler(NewestSampler(20)) checks it
        ...     '''Half of the candidates are among the last ten ids, which are the newest items, the others any.'''
        ...
        ...     name = "newest"
        ...
        ...     def __init__(self, num_sampled):
        ...         self.num_sampled = num_sampled
        ...
        ...     def sample(self, state, vocabulary_size, seed):
        ...         end, number = vocabulary_size, self.num_sampled // 2
        ...         new = tf.random.stateless_uniform([number], seed, end - 10, end, tf.int64)
        ...         number = self.num_sampled - number
        ...         others = tf.random.stateless_uniform([number], stream(seed, 1), 1, end, tf.int64)
        ...         return tf.concat([new, others], axis=0)
        ...
        ...     def log_expected_count(self, state, vocabulary_size, ids, batch_size):
        ...         number = self.num_sampled // 2
        ...         new = tf.where(ids >= vocabulary_size - 10, number / 10, 0.0)
        ...         return tf.math.log(new + (self.num_sampled - number) / (vocabulary_size - 1))
        >>> sampler = NewestSampler(8)
        >>> sampler.sample({}, 101, seed=tf.constant([1, 2], tf.int64)).shape
        TensorShape([8])
        >>> counts = tf.exp(sampler.log_expected_count({}, 101, ids=tf.constant([5, 95]), batch_size=32))
        >>> counts.numpy().round(2)
        array([0.04, 0.44], dtype=float32)
    """

    name: ClassVar[str]
    num_sampled: int | None = None
    in_batch: bool = False

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
        """Whether the counts have yet to be loaded with saved weights."""
        return False

    def check(self, vocabulary_size: int) -> None:
        """Rejects settings that don't fit the vocabulary.

        Args:
            vocabulary_size: V.

        Raises:
            ValueError: The sampler draws more candidates than there are items, or it does not have V counts.
        """
        if self.num_sampled is not None:
            positive_int("`num_sampled`", self.num_sampled)
        if self.num_sampled is not None and self.num_sampled > vocabulary_size - 1:
            raise problem(
                "`num_sampled`",
                f"be at most {vocabulary_size - 1}, the number of items without padding",
                self.num_sampled,
            )

    def state(self, vocabulary_size: int) -> dict[str, np.ndarray]:
        """The arrays that `sample` and `log_expected_count` read by row, by name.

        Args:
            vocabulary_size: V.
        """
        return {}

    def sample(self, state: State, vocabulary_size: int, seed: tf.Tensor) -> tf.Tensor:
        """Draws a step's candidates.

        Args:
            state: The arrays of `state`, as variables.
            vocabulary_size: V.
            seed: (2,) int64. The same seed gives the same ids.

        Returns:
            (S,) int64 ids in 1..V-1.
        """
        raise NotImplementedError(f"The sampler {type(self).__name__} needs a method `sample`.")

    def log_expected_count(
        self, state: State, vocabulary_size: int, ids: tf.Tensor, batch_size: tf.Tensor
    ) -> tf.Tensor:
        """The log of the expected count of items among a step's candidates.

        Args:
            state: The arrays of `state`, as variables.
            vocabulary_size: V.
            ids: Item ids of any shape.
            batch_size: () the number of positives in the batch.

        Returns:
            float32, the shape of ``ids``.
        """
        raise NotImplementedError(f"The sampler {type(self).__name__} needs a method `log_expected_count`.")

    def update(self, state: State, positives: tf.Tensor) -> list[Any]:
        """Learns from a training step's positives, after its draw.

        Args:
            state: The arrays of `state`, as variables, which this may change.
            positives: (n,) int64 item ids.

        Returns:
            The operations that it created, which the step waits for.
        """
        return []

    def grown(self, state: Mapping[str, np.ndarray], vocabulary_size: int) -> dict[str, np.ndarray]:
        """The ``state`` of a smaller vocabulary, extended to V ids, of which the first are the old ones.

        Args:
            state: The arrays of `state` for the smaller vocabulary.
            vocabulary_size: V.

        Raises:
            ValueError: The state depends on V, and the sampler does not define how the state grows.
        """
        fresh = self.state(vocabulary_size)
        if any(array.shape != state[name].shape for name, array in fresh.items()):
            remedy = "The larger model then starts from that sampler's own state."
            raise problem("`sampler_config`", "be given for a larger vocabulary", f"{type(self).__name__}", remedy)
        return dict(state)

    def get_config(self) -> dict[str, Any]:
        """The settings as plain data, from which `make_sampler` makes the sampler; without counts, which are state.

        Raises:
            ValueError: A subclass takes arguments other than ``num_sampled`` and has no ``get_config`` of its own.
        """
        others = set(inspect.signature(type(self)).parameters) - {"num_sampled"}
        if type(self).get_config is Sampler.get_config and others:
            remedy = f"It takes {', '.join(sorted(others))}, which a saved model has to hold."
            raise problem(f"The sampler {type(self).__name__}", "have a `get_config` of its own", "none", remedy)
        return {"sampler": self.name, "num_sampled": self.num_sampled}


def _is_same(one: type[Sampler] | None, other: type[Sampler]) -> bool:
    """Whether two classes are the same; a notebook defines its classes again at every run of a cell."""
    return one is not None and (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


_DEEPMATCH_SETTINGS = ("num_sampled", "item_name", "item_count", "distortion")


def make_sampler(spec: Any) -> Sampler:
    """Makes a sampler from its config or from DeepMatch's settings; a sampler is returned unchanged.

    Args:
        spec: A `Sampler`, DeepMatch's ``NegativeSampler`` (or its ``_asdict()``), or what a sampler's `get_config`
            returned.

    Raises:
        ValueError: The sampler's name is unknown, or a setting is missing.

    Example:
        >>> make_sampler({"sampler": "uniform", "num_sampled": 20}).num_sampled
        20
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


def stream(seed: tf.Tensor, k: int) -> tf.Tensor:
    """The seed of another stream of random numbers, independent of the first.

    Args:
        seed: (2,) int64, such as `Sampler.sample` is given.
        k: The number of the stream; 0 is the seed's own.

    Returns:
        (2,) int64.

    Example:
        >>> seed = tf.constant([1, 2], tf.int64)
        >>> first, second = (tf.random.stateless_uniform([3], stream(seed, k)).numpy() for k in (1, 2))
        >>> bool(np.isclose(first, second).any())
        False
    """
    return seed + tf.constant([0, k * 2**40], tf.int64)


def checked_counts(item_count: Any) -> np.ndarray | None:
    if isinstance(item_count, str) and item_count == SAVED:
        return None
    if item_count is None:
        raise problem(
            "`item_count`",
            "be given for the 'frequency' sampler",
            None,
            "Count the training targets: `np.bincount(item_ids, minlength=vocabulary_size)`. Or take 'adaptive'.",
        )
    item_count = by_id("`item_count`", item_count)
    try:
        counts = np.asarray(item_count, dtype=np.float64)
    except (TypeError, ValueError):
        got = type(item_count).__name__
        raise problem("`item_count`", "be an array of counts by id", f"the type {got}") from None
    if counts.ndim != 1:
        raise problem("`item_count`", "have one dimension, a count per id", f"shape {counts.shape}")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise problem("`item_count`", "hold finite counts of at least 0", "a negative or non-finite one")
    if ((counts > 0) & (counts < 1)).any():
        raise problem("`item_count`", "hold counts, not shares", f"{counts[(counts > 0) & (counts < 1)][0]:g}")
    if not counts[1:].any():
        rule, remedy = "count an item at least once", "For candidates that are drawn uniformly, take UniformSampler."
        raise problem("`item_count`", rule, f"{len(counts)} counts of 0 (that of id 0, padding, aside)", remedy)
    return counts


def check_counts_fit(item_count: np.ndarray | None, vocabulary_size: int) -> None:
    if item_count is not None and len(item_count) != vocabulary_size:
        raise problem(
            "`item_count`",
            f"have an entry for each of the {vocabulary_size} ids of the item column, id 0 (padding) included",
            f"{len(item_count)} entries",
        )


def log_shares(item_count: np.ndarray | None, vocabulary_size: int, distortion: float) -> np.ndarray:
    """(V,) float64, log of each item's fraction of the draws; NaN without counts, until a saved state replaces it.

    Padding is never drawn; it gets the smallest value of the others, so that nothing is infinite.
    """
    if item_count is None:
        return np.full(vocabulary_size, np.nan)
    log_weights = distortion * np.log(np.maximum(item_count, 1.0)[1:])
    log_weights -= log_weights.max()  # even if some underflow float64, the largest fractions still sum to 1
    log_q = log_weights - np.log(np.exp(log_weights).sum())
    return np.concatenate([[log_q.min()], log_q])
