"""L2 normalisation."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import int_at_least
from deepmatch_ext._keras import keras, register

_EPSILON = 1e-12


@register
class L2Normalization(keras.layers.Layer):
    """``x / |x|`` along an axis, in float32 under every policy.

    A vector of (nearly) zero length has no direction: it becomes zeros, with zero gradient.
    ``tf.math.l2_normalize`` would multiply its gradient by a million.

    Args:
        axis: The axis along which vectors have their length.

    Input: floats of any shape. Output: the same shape, float32.

    Example:
        >>> L2Normalization()(tf.constant([[3.0, 4.0], [0.0, 0.0]])).numpy()
        array([[0.6, 0.8],
               [0. , 0. ]], dtype=float32)
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.axis = int_at_least("`axis`", axis, -16)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        inputs = tf.cast(inputs, tf.float32)
        squared = tf.reduce_sum(tf.square(inputs), axis=self.axis, keepdims=True)
        has_direction = squared > _EPSILON
        inverse = tf.math.rsqrt(tf.where(has_direction, squared, 1.0))
        return inputs * tf.where(has_direction, inverse, 0.0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}
