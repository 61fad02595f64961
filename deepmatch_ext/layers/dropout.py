"""Dropout that repeats: of values, and what other layers that draw while training share with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import int_at_least, number_between
from deepmatch_ext._distribute import replica_id
from deepmatch_ext._keras import WholeWeights, add_state, check_on_replica, in_training, keras, raw_variable, register


class DroppingLayer(WholeWeights, keras.layers.Layer):
    """What layers share that leave something out by chance while training.

    The choice follows from the seed and the number of the training step, which is a weight: so a model that is saved in
    the midst of its training and loaded again goes on as if nothing had been. Keras's own Dropout starts again.
    """

    def __init__(self, rate: float, seed: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = number_between("`rate`", rate, 0, 1)
        self.seed = int_at_least("`seed`", seed, 0)

    def build(self, input_shape: Any = None) -> None:
        self.step = add_state(self, "step", np.zeros((), "int64"))
        self.built = True

    def _kept(self, shape: tf.Tensor, training: Any) -> tf.Tensor:
        """Booleans of a shape: what stays, on each replica by itself. Counts a step; all stays when not training."""
        training = tf.cast(training, tf.bool)
        step = counted(self, training)
        seed = tf.constant(self.seed + replica_id() * 2**32, tf.int64)
        chance = tf.random.stateless_uniform(shape, tf.stack([seed, step]))
        return (chance >= self.rate) | ~training

    def _some_left_out(self, values: tf.Tensor, training: Any) -> tf.Tensor:
        """The values with some of them 0 and the others scaled, while training."""
        if training is False:
            return values
        kept = self._kept(tf.shape(values), training)
        scale = tf.where(tf.cast(training, tf.bool), 1 / (1 - self.rate), 1.0)
        return values * tf.where(kept, tf.cast(scale, values.dtype), tf.zeros([], values.dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def counted(layer: Any, training: tf.Tensor) -> tf.Tensor:
    """The number of the training step that a layer is in, which its weight ``step`` counts, int64."""
    if tf.get_static_value(training):
        check_on_replica(f"Training of the layer {layer.name!r}", layer.step)
    return raw_variable(layer.step).assign_add(tf.cast(training, tf.int64))


@register
class RepeatableDropout(DroppingLayer):
    """Sets values to zero by chance while training, and divides the others by what is left, as Keras's Dropout does.

    Args:
        rate: The share of values that become zero, in [0, 1).
        seed: Of the choice.

    Input: floats of any shape. Output: the same shape and type.
    """

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        return self._some_left_out(inputs, in_training(training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape
