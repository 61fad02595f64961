"""Dropout of whole items of a history."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import problem
from deepmatch_ext._compat import in_training, register
from deepmatch_ext.layers.dropout import DroppingLayer
from deepmatch_ext.layers.pooling import valid_positions


@register
class HistoryDropout(DroppingLayer):
    """Leaves out whole items of a history while training, as if they had never happened: the rest moves up.

    Args:
        rate: The share of items that are left out, in [0, 1).
        seed: Of the choice.
        has_lengths: Whether a length comes first, or 0 of the first history is padding.

    Input: a list. With lengths: ``[lengths (B, 1), history (B, T), ...]``; else ``[history (B, T), ...]``. All
    histories, (B, T) or (B, T, 1), such as items, their genres and their weights, lose the same positions.

    Output: a list of the same shapes and types, padded with zeros at the end. Unchanged when not training.

    Example:
        >>> lengths, history = HistoryDropout(0.5)([tf.constant([[2]]), tf.constant([[7, 5, 0]])], training=False)
        >>> history.numpy()
        array([[7, 5, 0]], dtype=int32)
    """

    def __init__(self, rate: float, seed: int = 1024, has_lengths: bool = True, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(rate, seed, **kwargs)
        self.has_lengths = bool(has_lengths)
        self.supports_jit = False  # how many items stay is not known beforehand

    def build(self, input_shape: Any = None) -> None:
        if not isinstance(input_shape, list | tuple) or len(input_shape) <= self.has_lengths:
            raise problem("The input", "be a list, as the class describes", f"{input_shape}")
        super().build(input_shape)

    def call(self, inputs: Any, training: Any = None) -> list[tf.Tensor]:
        inputs = list(inputs)
        training = in_training(training)
        if training is False:
            return [tf.identity(tensor) for tensor in inputs]
        histories = inputs[self.has_lengths :]
        first = histories[0]
        if self.has_lengths:
            valid = valid_positions(inputs[0], tf.shape(first)[1])
        else:
            valid = tf.not_equal(first, tf.zeros([], first.dtype))
        keep = valid & self._kept(tf.shape(first)[:2], training)
        left = [_moved_up(history, keep) for history in histories]
        if not self.has_lengths:
            return left
        return [tf.cast(tf.math.count_nonzero(keep, axis=1, keepdims=True), inputs[0].dtype), *left]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return list(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "has_lengths": self.has_lengths}


def _moved_up(history: tf.Tensor, keep: tf.Tensor) -> tf.Tensor:
    """The kept positions (B, T) in front of each row, and padding behind."""
    kept = tf.ragged.boolean_mask(history, keep)
    return tf.reshape(kept.to_tensor(shape=[None, *history.shape[1:]]), tf.shape(history))
