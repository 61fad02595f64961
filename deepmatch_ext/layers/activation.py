"""Activations of dense layers; each dense layer gets an activation with its own weights."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import positive_number, problem, shown
from deepmatch_ext._keras import batch_normalization, keras, register
from deepmatch_ext._plain import check_settings_named, nameless


@register
class Dice(keras.layers.Layer):
    """``p x + (1 - p) alpha x`` with ``p = sigmoid(x normalised over the batch)``: a PReLU that adapts to its inputs.

    From Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018. It computes the
    same as DeepCTR's ``Dice``, whose weights Keras 3 does not find when it loads a model.

    Args:
        axis: The axis of the features.
        epsilon: Added to the variance.

    Input: floats (..., D). Output: the same shape and type. ``alpha`` (D,) is trained, from 0.

    Example:
        >>> Dice()(tf.constant([[2.0, -2.0]])).numpy().round(3)  # before training: x sigmoid(x)
        array([[ 1.762, -0.238]], dtype=float32)
    """

    def __init__(self, axis: int = -1, epsilon: float = 1e-9, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = int(axis)
        self.epsilon = positive_number("`epsilon`", epsilon)

    def build(self, input_shape: Any) -> None:
        self.alpha = self.add_weight(name="alpha", shape=(input_shape[-1],), initializer="zeros")
        self._normalization = batch_normalization(
            self.axis, epsilon=self.epsilon, center=False, scale=False, name="normalization"
        )
        self._normalization.build(input_shape)  # here, so that its weights exist before saved ones are read
        self.built = True

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        share = tf.sigmoid(self._normalization(inputs, training=training))
        return share * inputs + (1 - share) * tf.cast(self.alpha, inputs.dtype) * inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis, "epsilon": self.epsilon}


def check_activation(what: str, activation: Any) -> None:
    """Rejects anything that `activation_layer` cannot turn into a layer."""
    if activation is None or callable(activation) or (isinstance(activation, str) and activation.lower() == "dice"):
        return
    try:
        keras.activations.get(activation)
    except Exception:
        rule = "be a name that Keras knows, 'dice', a function or a layer"
        raise problem(what, rule, shown(activation)) from None


def activation_layer(activation: Any, name: str) -> Any:
    """A new activation layer for one dense layer of a tower.

    Args:
        activation: A name that Keras knows, ``"dice"``, or a function; or a Keras layer, as a class or an instance. An
            instance is a template: every dense layer gets a copy, so weights, such as PReLU's, are never shared.
        name: The layer's name.

    Raises:
        ValueError: The layer can't be copied by its config: it contains a lambda or another unnamed function.
    """
    if isinstance(activation, str) and activation.lower() == "dice":
        return Dice(name=name)
    if isinstance(activation, type) and issubclass(activation, keras.layers.Layer):
        return activation(name=name)
    if isinstance(activation, keras.layers.Layer):
        check_settings_named("An activation layer", activation)  # or a copy might get Keras's function of the same name
        try:
            return type(activation).from_config({**activation.get_config(), "name": name})
        except Exception as error:  # whatever Keras, or the user's own class, raises
            raise nameless("An activation layer", activation, why=", which Keras can't copy") from error
    return keras.layers.Activation(activation, name=name)
