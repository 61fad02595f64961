"""Several vectors for a user: K interests. B examples, K interests, S sampled candidates, D size of the vectors."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._keras import keras, register


@register
class NearestInterest(keras.layers.Layer):
    """Of each user's interests the one with the highest inner product with the positive; the others get no gradient.

    ComiRec's read-out while training (Cen et al., KDD 2020, equation 7).

    Input: ``[interests (B, K, D), positives (B, D)]``. Output: (B, D) float32.

    Example:
        >>> interests = tf.constant([[[1.0, 0.0], [0.0, 1.0]]])
        >>> NearestInterest()([interests, tf.constant([[0.6, 0.8]])]).numpy()
        array([[0., 1.]], dtype=float32)
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def call(self, inputs: Any) -> tf.Tensor:
        interests, positives = (tf.cast(vectors, tf.float32) for vectors in inputs)
        nearest = tf.argmax(tf.einsum("bkd,bd->bk", interests, positives), axis=1)
        return tf.gather(interests, nearest, axis=1, batch_dims=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[1]


@register
class FirstRows(keras.layers.Layer):
    """As many rows of the second tensor as the first has: of positives and candidates together, the positives.

    Input: ``[anything (B, ...), vectors (B + S, D)]``. Output: (B, D).
    """

    def call(self, inputs: Any) -> tf.Tensor:
        of, vectors = inputs
        return vectors[: tf.shape(of)[0]]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0][0], input_shape[1][-1])
