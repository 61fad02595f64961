"""DeepMatch's names, for code that moves over. What they stand for lives elsewhere in this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from deepmatch_ext.losses import sampledsoftmaxloss
from deepmatch_ext.samplers import make_sampler

__all__ = ["NegativeSampler", "recall_N", "sampledsoftmaxloss"]


class _NegativeSampler(NamedTuple):
    sampler: str
    num_sampled: int
    item_name: str
    item_count: Any = None
    distortion: float = 1.0


class NegativeSampler(_NegativeSampler):
    """How negatives are drawn, in DeepMatch's words; taken wherever a sampler is.

    The samplers of `deepmatch_ext.samplers` say the same, one class for each kind.

    Args:
        sampler: ``uniform``, ``log_uniform``, ``frequency`` or ``inbatch``.
        num_sampled: Candidates of a step; ``inbatch`` takes the batch's.
        item_name: Name of the item column; it is the model's only item column, so nothing depends on it.
        item_count: (V,) count of each item id in the training data, for ``frequency`` and ``inbatch``.
        distortion: For ``frequency``, the power of the counts.

    Example:
        >>> NegativeSampler("uniform", num_sampled=20, item_name="item").num_sampled
        20
    """

    __slots__ = ()

    def __new__(
        cls, sampler: str, num_sampled: int, item_name: str, item_count: Any = None, distortion: float = 1.0
    ) -> NegativeSampler:
        self = super().__new__(cls, sampler, num_sampled, item_name, item_count, distortion)
        make_sampler(self)  # what can't be drawn is refused here
        return self


def recall_N(y_true: Sequence[Any], y_pred: Sequence[Any], N: int = 50) -> float:
    """The share of ``y_true`` among the first ``N`` of ``y_pred``, for one user.

    `deepmatch_ext.evaluation` does the same, and more, for blocks of users.

    Example:
        >>> recall_N([1, 2], [5, 2, 1], N=2)
        0.5
    """
    return len(set(y_pred[:N]) & set(y_true)) / len(y_true)
