"""DeepMatch's stack of recurrent layers, in its call form, made from Keras's LSTM and GRU."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import as_flag, finite_number, int_at_least, number_between, one_of, positive_int, problem
from deepmatch_ext._keras import compute_dtype, in_training, keras, register
from deepmatch_ext.layers.dropout import DroppingLayer
from deepmatch_ext.layers.pooling import weighted_sum

__all__ = ["DynamicMultiRNN"]


@register
class DynamicMultiRNN(DroppingLayer):
    """Recurrent layers over a history with the oldest item first; the last layers have residual connections.

    Each layer has its own weights, which are saved; in DeepMatch, all layers share one cell, which is not saved.
    Dropout is on in training, whereas DeepMatch decides by the learning phase when the model is built. GRU works, too.

    Args:
        num_units: The width of all layers; None: C.
        rnn_type: ``LSTM`` or ``GRU``.
        return_sequence: Whether the output has every position, or only the last state.
        num_layers: The number of layers.
        num_residual_layers: How many layers, counted from the last, add their input to their output. The first layer
            can do so only if `num_units` is C.
        dropout_rate: Dropout rate of each layer's input, in [0, 1).
        forget_bias: The initial bias of the LSTM's forget gate.
        seed: Seed of the initial weights and of the dropout.

    Input: ``[rows (B, T, C), lengths (B, 1)]``. Output: (B, T, num_units), zeros at padding; or (B, 1, num_units),
    zeros for an empty history.

    Example:
        >>> DynamicMultiRNN(num_units=8)([tf.ones([2, 5, 4]), tf.constant([[5], [2]])]).shape
        TensorShape([2, 5, 8])
    """

    def __init__(
        self,
        num_units: int | None = None,
        rnn_type: str = "LSTM",
        return_sequence: bool = True,
        num_layers: int = 2,
        num_residual_layers: int = 1,
        dropout_rate: float = 0.2,
        forget_bias: float = 1.0,
        seed: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(number_between("`dropout_rate`", dropout_rate, 0, 1), seed, **kwargs)
        self.supports_masking = True  # the lengths are an input
        self.num_units = None if num_units is None else positive_int("`num_units`", num_units)
        self.rnn_type = one_of("`rnn_type`", rnn_type, ("LSTM", "GRU"))
        self.return_sequence = as_flag("`return_sequence`", return_sequence)
        self.num_layers = positive_int("`num_layers`", num_layers)
        self.num_residual_layers = int_at_least("`num_residual_layers`", num_residual_layers, 0)
        self.forget_bias = finite_number("`forget_bias`", forget_bias)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        width = input_shape[0][-1]
        units = self.num_units or width
        if self.num_residual_layers >= self.num_layers and units != width:
            rule = f"be the width of the rows, {width}, if all layers are residual"
            raise problem("`num_units`", rule, units)
        for place in range(self.num_layers):
            layer = self._layer(units, place)
            with tf.name_scope(layer.name):  # or the names of Keras 2's weights would repeat
                layer.build((None, None, width if place == 0 else units))
            setattr(self, layer.name, layer)  # `tf.train.Checkpoint` does not look into Keras 3's lists

    def _layer(self, units: int, place: int) -> Any:
        arguments = {
            "return_sequences": True,
            "kernel_initializer": keras.initializers.GlorotUniform(seed=self.seed + 2 * place),
            "recurrent_initializer": keras.initializers.Orthogonal(seed=self.seed + 2 * place + 1),
            "name": f"layer_{place}",
            "dtype": "float32",
        }
        if self.rnn_type == "GRU":
            return keras.layers.GRU(units, **arguments)

        def bias(shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
            gates = tf.constant([0.0, self.forget_bias, 0.0, 0.0])  # in Keras's order the forget gate is the second
            return tf.cast(tf.repeat(gates, units), dtype or "float32")

        return keras.layers.LSTM(units, bias_initializer=bias, unit_forget_bias=False, **arguments)

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        states = tf.cast(inputs[0], tf.float32)
        lengths = tf.reshape(inputs[1], [-1])
        valid = tf.sequence_mask(lengths, tf.shape(states)[1])
        is_item = valid[:, :, tf.newaxis]
        states = tf.where(is_item, states, 0.0)
        for place, layer in enumerate(getattr(self, f"layer_{k}") for k in range(self.num_layers)):
            read = self._some_left_out(states, in_training(training)) if self.rate else states
            came = tf.where(is_item, layer(read, mask=valid), 0.0)
            states = states + came if place >= self.num_layers - self.num_residual_layers else came
        if not self.return_sequence:
            last = tf.one_hot(lengths - 1, tf.shape(states)[1])  # zeros for an empty history
            states = weighted_sum(states, last)[:, tf.newaxis]
        return tf.cast(states, compute_dtype(self))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, length, width = input_shape[0]
        return (batch, length if self.return_sequence else 1, self.num_units or width)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["rate"]
        names = ("num_units", "rnn_type", "return_sequence", "num_layers", "num_residual_layers", "forget_bias")
        return {**config, "dropout_rate": self.rate, **{name: getattr(self, name) for name in names}}
