"""DIEN on Keras 3: its recurrent layer and its auxiliary loss, which DeepCTR takes from TensorFlow 1."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from deepmatch_ext._keras import keras, register


def mend(dien: Any, layers: Any) -> None:
    """Replaces what DIEN can't use on Keras 3."""
    layers.DynamicGRU.build = _build_gru
    layers.DynamicGRU.call = _run_gru
    build_evolution = dien.interest_evolution

    def auxiliary_loss(hidden: Any, clicked: Any, not_clicked: Any, length: Any, stag: Any = None) -> _Auxiliary:
        return _Auxiliary([hidden, clicked, not_clicked, length])

    def interest_evolution(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        interest, auxiliary = build_evolution(*args, **kwargs)
        return (interest, None) if auxiliary is None else (auxiliary.attached_to(interest), auxiliary)

    dien.auxiliary_loss = auxiliary_loss
    dien.interest_evolution = interest_evolution
    # The builder ends with initializing the variables in a session, and subtracts from a symbolic tensor.
    session = SimpleNamespace(run=lambda _: None)
    backend = _Overlay(keras.backend, get_session=lambda: session)
    dien.tf = _Overlay(
        tf,
        keras=_Overlay(keras, backend=backend),
        global_variables_initializer=lambda: None,
        subtract=lambda x, y: x - y,
    )


class _Overlay:
    """A module with some of its names replaced, for one reader."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _build_gru(self: Any, input_shape: Any) -> None:
    features = int(input_shape[0][-1])
    if self.num_units is None:
        self.num_units = features
    size, units = features + self.num_units, self.num_units
    self.gates_kernel = self.add_weight(name="gates_kernel", shape=(size, 2 * units))
    self.gates_bias = self.add_weight(name="gates_bias", shape=(2 * units,), initializer="ones")
    self.candidate_kernel = self.add_weight(name="candidate_kernel", shape=(size, units))
    self.candidate_bias = self.add_weight(name="candidate_bias", shape=(units,), initializer="zeros")


def _run_gru(self: Any, inputs: Any) -> tf.Tensor:
    """The GRU of Cho et al., and for AGRU and AUGRU, that of Zhou et al. (DIEN), section 4.3.

    Args:
        inputs: A sequence (B, T, D), its lengths (B, 1), and for AGRU and AUGRU attention scores (B, T, 1).

    Returns:
        The states (B, T, units), zero beyond the length; or the last one, (B, 1, units).
    """
    sequence, lengths, *scores = inputs
    valid = tf.sequence_mask(tf.reshape(lengths, [-1]), sequence.shape[1])[..., tf.newaxis]
    attention = scores[0] if scores else tf.zeros_like(sequence[..., :1])

    def step(state: tf.Tensor, now: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        x, is_valid, score = now
        gates = tf.sigmoid(tf.concat([x, state], -1) @ self.gates_kernel + self.gates_bias)
        reset, update = tf.split(gates, 2, -1)
        candidate = tf.tanh(tf.concat([x, reset * state], -1) @ self.candidate_kernel + self.candidate_bias)
        if self.gru_type == "AGRU":
            new = (1 - score) * state + score * candidate
        else:
            if self.gru_type == "AUGRU":
                update = (1 - score) * update
            new = update * state + (1 - update) * candidate
        return tf.where(is_valid, new, state)

    by_time = tuple(tf.transpose(tensor, [1, 0, 2]) for tensor in (sequence, valid, attention))
    start = tf.zeros([tf.shape(sequence)[0], self.num_units], sequence.dtype)
    states = tf.scan(step, by_time, start)
    if self.return_sequence:
        return tf.where(valid, tf.transpose(states, [1, 0, 2]), 0)
    return states[-1][:, tf.newaxis]


class _Auxiliary:
    """DIEN's auxiliary loss, which a layer adds to the model; the builder multiplies it by ``alpha`` and adds it."""

    __array_ufunc__ = None  # a NumPy number times this is ours to compute
    in_the_model = True

    def __init__(self, tensors: list[Any]) -> None:
        self._tensors = tensors
        self._layer = AuxiliaryLoss()

    def attached_to(self, interest: Any) -> Any:
        return self._layer([interest, *self._tensors])

    def __rmul__(self, alpha: Any) -> _Auxiliary:
        self._layer.alpha = float(alpha)
        return self


@register
class AuxiliaryLoss(keras.layers.Layer):
    """Adds DIEN's auxiliary loss, and returns its first input.

    From each hidden state, the next behaviour is distinguished from one that did not follow (Zhou et al., DIEN, section
    4.2).

    Args:
        alpha: The factor that the loss is multiplied by.
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = alpha

    def build(self, input_shape: Any) -> None:
        """Makes the classifier."""
        self.classifier = keras.Sequential(
            [
                keras.layers.Dense(units, "sigmoid", kernel_initializer="glorot_normal", name=f"dense_{units}")
                for units in (100, 50, 1)
            ]
        )
        self.classifier.build((None, None, input_shape[1][-1] + input_shape[2][-1]))

    def call(self, inputs: Any) -> tf.Tensor:
        """The first of interest, hidden states, clicked and not clicked (B, T, D), and lengths (B, 1)."""
        interest, hidden, clicked, not_clicked, lengths = inputs
        valid = tf.cast(tf.sequence_mask(tf.reshape(lengths, [-1]), clicked.shape[1]), hidden.dtype)
        follows = self.classifier(tf.concat([hidden, clicked], -1))[..., 0]
        follows_not = self.classifier(tf.concat([hidden, not_clicked], -1))[..., 0]
        log_likelihood = tf.math.log(follows) + tf.math.log(1 - follows_not)
        self.add_loss(-self.alpha * tf.reduce_mean(log_likelihood * valid))
        return interest

    def get_config(self) -> dict[str, Any]:
        """The layer's config."""
        return {**super().get_config(), "alpha": self.alpha}
