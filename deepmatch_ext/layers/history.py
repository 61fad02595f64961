"""Dropout of whole items from a history."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import problem
from deepmatch_ext._keras import in_training, register
from deepmatch_ext.layers.dropout import DroppingLayer
from deepmatch_ext.layers.pooling import item_mask


@register
class HistoryDropout(DroppingLayer):
    """Drops whole items from a history in training, as if they had never occurred; the others move up.

    Args:
        rate: The fraction of items that are left out, in [0, 1).
        seed: Seed of the choice.

    Input: a list of histories of the same events, such as the items, their genres and their weights. The first has ids
    (B, T), the others ids (B, T) or numbers (B, T, 1). A position at which all ids are 0 is padding. All histories lose
    the same positions.

    Output: a list of the same shapes and types, padded with zeros at the end. Unchanged when not training.

    Example:
        >>> (history,) = HistoryDropout(0.5)([tf.constant([[7, 5, 0]])], training=False)
        >>> history.numpy()
        array([[7, 5, 0]], dtype=int32)
    """

    def __init__(self, rate: float, seed: int = 1024, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(rate, seed, **kwargs)
        self.supports_jit = False  # how many items stay is not known beforehand

    def build(self, input_shape: Any = None) -> None:
        if not isinstance(input_shape, list | tuple) or not isinstance(input_shape[0], list | tuple | tf.TensorShape):
            raise problem("The input", "be a list, as the class describes", f"{input_shape}")
        super().build(input_shape)

    def call(self, inputs: Any, training: Any = None) -> list[tf.Tensor]:
        inputs = list(inputs)
        training = in_training(training)
        if training is False:
            return [tf.identity(tensor) for tensor in inputs]
        of_ids = [tensor for tensor in inputs if tensor.shape.rank == 2]
        has_item = tf.reduce_any([item_mask(ids) for ids in of_ids], axis=0)
        keep = has_item & self._kept(tf.shape(has_item), training)
        return [_moved_up(history, keep) for history in inputs]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return list(input_shape)


def _moved_up(history: tf.Tensor, keep: tf.Tensor) -> tf.Tensor:
    """The kept positions (B, T) at the front of each row, and padding behind them."""
    kept = tf.ragged.boolean_mask(history, keep)
    return tf.reshape(kept.to_tensor(shape=[None, *history.shape[1:]]), tf.shape(history))
