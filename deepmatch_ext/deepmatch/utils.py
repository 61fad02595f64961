"""DeepMatch's helpers, made from this package's layers and samplers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from deepmatch_ext._keras import keras
from deepmatch_ext.deepmatch.layers import RowsOf
from deepmatch_ext.layers.normalization import L2Normalization
from deepmatch_ext.layers.softmax import checked_temperature
from deepmatch_ext.samplers import make_sampler

__all__ = ["NegativeSampler", "get_item_embedding", "inner_product", "l2_normalize", "recall_N"]


class _NegativeSampler(NamedTuple):
    sampler: str
    num_sampled: int
    item_name: str
    item_count: Any = None
    distortion: float = 1.0


class NegativeSampler(_NegativeSampler):
    """How negatives are drawn, in DeepMatch's terms; accepted wherever a sampler is.

    Better: the samplers of `deepmatch_ext.samplers`, where each kind is a class with its own settings, and there are
    more kinds.

    Args:
        sampler: ``uniform``, ``log_uniform``, ``frequency``, ``adaptive`` or ``inbatch``.
        num_sampled: Candidates of a step; ``inbatch`` takes the batch's positives.
        item_name: Name of the item column. It is ignored: the model knows its item column.
        item_count: (V,) count of each item id in the training data, for ``frequency``; for ``inbatch`` it may be left
            out, and the counts are then learnt.
        distortion: For ``frequency``, the power of the counts.

    Raises:
        ValueError: An unknown sampler, or settings that it can't draw with.

    Example:
        >>> NegativeSampler("uniform", num_sampled=20, item_name="item").num_sampled
        20
    """

    __slots__ = ()

    def __new__(
        cls, sampler: str, num_sampled: int, item_name: str, item_count: Any = None, distortion: float = 1.0
    ) -> NegativeSampler:
        self = super().__new__(cls, sampler, num_sampled, item_name, item_count, distortion)
        make_sampler(self)  # refuses settings that can't be drawn with
        return self


def recall_N(y_true: Sequence[Any], y_pred: Sequence[Any], N: int = 50) -> float:
    """The fraction of ``y_true`` among the first ``N`` of ``y_pred``, for one user.

    Better: `deepmatch_ext.evaluation`, which does the same, and more, for all users at once.

    Example:
        >>> recall_N([1, 2], [5, 2, 1], N=2)
        0.5
    """
    return len(set(y_pred[:N]) & set(y_true)) / len(y_true)


def l2_normalize(x: Any, axis: int = -1) -> Any:
    """``x / |x|`` along an axis.

    Better: the layer `deepmatch_ext.layers.L2Normalization`, which this applies.

    Args:
        x: A tensor, eager or of a Keras model.
        axis: The axis along which the length of a vector is computed.

    Example:
        >>> l2_normalize(tf.constant([[3.0, 4.0]])).numpy()
        array([[0.6, 0.8]], dtype=float32)
    """
    return L2Normalization(axis)(x)


def inner_product(x: Any, y: Any, temperature: float = 1.0) -> Any:
    """The inner product of each row of ``x`` (B, D) with that of ``y`` (B, D), divided by the temperature, (B, 1).

    DeepMatch's function also sums over the batch, and returns one number for all rows.

    Example:
        >>> inner_product(tf.constant([[1.0, 2.0], [0.0, 3.0]]), tf.constant([[3.0, 4.0], [5.0, 1.0]]), 0.5).numpy()
        array([[22.],
               [ 6.]], dtype=float32)
    """
    return keras.layers.Rescaling(1 / checked_temperature(temperature))(keras.layers.Dot(axes=-1)([x, y]))


def get_item_embedding(item_embedding: Any, item_input_layer: Any) -> Any:
    """The rows (B, D) of a whole item table (V, D), for item ids (B, 1).

    Better: `deepmatch_ext.layers.EmbeddingTable` on the ids, without the whole table.

    Example:
        >>> get_item_embedding(tf.constant([[0.0], [7.0]]), tf.constant([[1]])).numpy()
        array([[7.]], dtype=float32)
    """
    return RowsOf()([item_embedding, item_input_layer])
