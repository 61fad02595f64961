"""DeepMatch's multi-interest layers, in its call forms, made from this package's layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import positive_int, positive_number
from deepmatch_ext._keras import keras, register
from deepmatch_ext.layers.interests import DynamicRouting

__all__ = ["CapsuleLayer", "MaskUserEmbedding"]


@register
class CapsuleLayer(DynamicRouting):
    """`deepmatch_ext.layers.DynamicRouting` with MIND's one matrix, in DeepMatch's call form.

    The logits of the routing are drawn once, whereas DeepMatch draws new ones at every call. A user's surplus interests
    repeat the first, whereas DeepMatch's are zeros.

    Args:
        input_units: The width of the history's rows, D.
        out_units: The width of the interests, E.
        max_len: T.
        k_max: K.
        iteration_times: Rounds of routing.
        init_std: Standard deviation of the initial logits.

    Input: ``[rows (B, T, D), lengths (B, 1)]``, and optionally a third, the number of interests of each user, (B, 1).
    Output: (B, K, E).

    Example:
        >>> layer = CapsuleLayer(input_units=8, out_units=4, max_len=5, k_max=3)
        >>> layer([tf.random.normal([2, 5, 8]), tf.constant([[5], [2]])]).shape
        TensorShape([2, 3, 4])
    """

    def __init__(
        self,
        input_units: int,
        out_units: int,
        max_len: int,
        k_max: int,
        iteration_times: int = 3,
        init_std: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(positive_int("`k_max`", k_max), positive_int("`iteration_times`", iteration_times), **kwargs)
        self.input_units = positive_int("`input_units`", input_units)
        self.out_units = positive_int("`out_units`", out_units)
        self.max_len = positive_int("`max_len`", max_len)
        self.init_std = positive_number("`init_std`", init_std)
        self.shared = True

    def build(self, input_shape: Any) -> None:
        start, shape = keras.initializers.GlorotUniform(seed=self.seed), (self.input_units, self.out_units)
        self.mapping = self.add_weight(name="S", shape=shape, initializer=start)
        drawn = np.random.default_rng(self.seed).normal(0, self.init_std, (self.max_len, self.num_interests))
        self._first_logits = drawn.astype("float32")
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        rows, lengths, *number = inputs
        valid = tf.sequence_mask(tf.reshape(lengths, [-1]), self.max_len)
        number = tf.reshape(number[0], [-1]) if number else tf.fill([tf.shape(rows)[0]], self.num_interests)
        return self._routed(tf.cast(rows, tf.float32), valid, tf.sequence_mask(number, self.num_interests))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0][0], self.num_interests, self.out_units)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("num_interests", "rounds", "shared", "dynamic_k"):
            del config[name]
        names = ("input_units", "out_units", "max_len", "init_std")
        of_layer = {"k_max": self.num_interests, "iteration_times": self.rounds}
        return {**config, **of_layer, **{name: getattr(self, name) for name in names}}


@register
class MaskUserEmbedding(keras.layers.Layer):
    """Replaces a user's surplus interests with the first interest, whereas DeepMatch replaces them with zeros.

    A vector of zeros scores 0 with every item, more than any negative score. `CapsuleLayer` returns no zeros; this
    layer is for interests that have been through other layers.

    Args:
        k_max: K.

    Input: ``[interests (B, K, D), how many each user has (B, 1)]``. Output: (B, K, D).

    Example:
        >>> MaskUserEmbedding(2)([tf.constant([[[1.0], [9.0]]]), tf.constant([[1]])]).numpy().ravel()
        array([1., 1.], dtype=float32)
    """

    def __init__(self, k_max: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k_max = positive_int("`k_max`", k_max)

    def call(self, inputs: Any) -> tf.Tensor:
        interests, number = inputs
        is_one = tf.sequence_mask(tf.reshape(number, [-1]), self.k_max)
        return tf.where(is_one[:, :, tf.newaxis], interests, interests[:, :1])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k_max": self.k_max}
