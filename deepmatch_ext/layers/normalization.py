"""L2 normalisation."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import int_at_least
from deepmatch_ext._keras import keras, register
from deepmatch_ext._traced import traced_once

_EPSILON = 1e-12


@register
class L2Normalization(keras.layers.Layer):
    """``x / |x|`` along an axis, in float32 under every policy.

    A vector of (nearly) zero length has no direction: it becomes zeros, with zero gradient.
    ``tf.math.l2_normalize`` would multiply its gradient by a million.

    Args:
        axis: The axis along which the length of a vector is computed.

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

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        inputs = tf.cast(inputs, tf.float32)
        # An exported model must not have a custom gradient, which other runtimes don't know.
        if training is True and self.axis in (-1, inputs.shape.rank and inputs.shape.rank - 1):
            return tf.ensure_shape(_unit_vectors(inputs), inputs.shape)
        return inputs * _inverse_length(inputs, self.axis)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


def _inverse_length(values: tf.Tensor, axis: int) -> tf.Tensor:
    """One over the lengths of vectors along an axis, which is kept; 0 for vectors of (nearly) zero length."""
    squared = tf.reduce_sum(tf.square(values), axis=axis, keepdims=True)
    has_direction = squared > _EPSILON
    return tf.where(has_direction, tf.math.rsqrt(tf.where(has_direction, squared, 1.0)), 0.0)


@traced_once(None)
def _unit_vectors(values: tf.Tensor) -> tf.Tensor:
    """Vectors of length one along the last axis; the gradient is a sum and five more operations, not some forty."""

    @tf.custom_gradient
    def scaled(values: tf.Tensor) -> tuple[tf.Tensor, Any]:
        inverse = _inverse_length(values, -1)
        unit = values * inverse

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Without the component along the vector, which changes only the length.
            return (upstream - unit * tf.reduce_sum(upstream * unit, axis=-1, keepdims=True)) * inverse

        return unit, gradient

    result: tf.Tensor = scaled(values)
    return result
