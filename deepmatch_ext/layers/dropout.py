"""Repeatable dropout of values, and the base class of other layers that leave something out at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import int_at_least, number_between
from deepmatch_ext._distribute import replica_id
from deepmatch_ext._keras import WholeWeights, add_state, check_on_replica, in_training, keras, raw_variable, register
from deepmatch_ext._traced import traced_once


class DroppingLayer(WholeWeights, keras.layers.Layer):
    """The base class of layers that leave something out at random in training.

    The choice depends on the seed and on the number of the training step, which is saved as a weight. A model that is
    saved during training and reloaded therefore continues as if it had not been interrupted. Keras's own Dropout
    starts its random sequence from the beginning.
    """

    def __init__(self, rate: float, seed: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = number_between("`rate`", rate, 0, 1)
        self.seed = int_at_least("`seed`", seed, 0)

    def build(self, input_shape: Any = None) -> None:
        self.step = add_state(self, "step", np.zeros((), "int64"))
        self.built = True

    def _kept(self, shape: tf.Tensor, training: Any) -> tf.Tensor:
        """A boolean mask of what is kept, drawn by each replica. Counts a step; outside training, all is kept."""
        training = tf.cast(training, tf.bool)
        return _factors(shape, self._draw(training), *self._rates, training) > 0

    def _draw(self, training: tf.Tensor) -> tf.Tensor:
        """A seed: two integers, from the replica and from the step. Counts the step."""
        return tf.stack([tf.constant(self.seed + replica_id() * 2**32, tf.int64), counted(self, training)])

    @property
    def _rates(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The fraction that is left out, and what the rest is multiplied by."""
        return tf.constant(self.rate, tf.float32), tf.constant(1 / (1 - self.rate), tf.float32)

    def _some_left_out(self, values: tf.Tensor, training: Any) -> tf.Tensor:
        """The values; in training, some are 0 and the others scaled."""
        if training is False:
            return values
        training = tf.cast(training, tf.bool)
        factors = _factors(tf.shape(values), self._draw(training), *self._rates, training)
        return values * tf.cast(tf.ensure_shape(factors, values.shape), values.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@traced_once(1, 1, 0, 0, 0)
def _factors(shape: tf.Tensor, draw: tf.Tensor, rate: tf.Tensor, scale: tf.Tensor, training: tf.Tensor) -> tf.Tensor:
    """Factors of the given shape, float32: in training 0 or the scale, outside training 1."""
    kept = (tf.random.stateless_uniform(shape, draw) >= rate) | ~training
    return tf.where(kept, tf.where(training, scale, 1.0), 0.0)


def counted(layer: Any, training: tf.Tensor) -> tf.Tensor:
    """The number of a layer's training step, int64, which its weight ``step`` counts."""
    if tf.get_static_value(training):
        check_on_replica(f"Training of the layer {layer.name!r}", layer.step)
    return raw_variable(layer.step).assign_add(tf.cast(training, tf.int64))


@register
class RepeatableDropout(DroppingLayer):
    """Sets values to zero at random in training, and divides the others by ``1 - rate``, as Keras's Dropout does.

    Args:
        rate: The fraction of values that become zero, in [0, 1).
        seed: Seed of the choice.

    Input: floats of any shape. Output: the same shape and type.

    Example:
        >>> sorted(set(RepeatableDropout(0.5)(tf.ones([100]), training=True).numpy().tolist()))
        [0.0, 2.0]
    """

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        return self._some_left_out(inputs, in_training(training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape
