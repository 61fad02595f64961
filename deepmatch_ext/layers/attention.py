"""Attention over the positions of a history, and related layers that session models need.

B examples, T positions of a history, d the size of the vectors at these positions.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import int_at_least, positive_int, problem
from deepmatch_ext._keras import compute_dtype, keras, register
from deepmatch_ext.layers.pooling import weighted_sum

_MASKED = -1e9


@register
class OldestFirst(keras.layers.Layer):
    """A history's rows in chronological order: the first n positions reversed, where n is the number of items.

    Input: ``[rows (B, T, d), valid (B, T)]``, the items at the first positions. Output: (B, T, d).

    Example:
        >>> rows = tf.constant([[[7.0], [5.0], [0.0]]])  # 7 is the most recent
        >>> OldestFirst()([rows, tf.constant([[True, True, False]])]).numpy()[0, :, 0]
        array([5., 7., 0.], dtype=float32)
    """

    def call(self, inputs: Any) -> tf.Tensor:
        rows, valid = inputs
        return tf.reverse_sequence(rows, tf.reduce_sum(tf.cast(valid, tf.int32), axis=1), seq_axis=1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]


@register
class MultiHeadSelfAttention(keras.layers.Layer):
    """Multi-head scaled dot-product self-attention over the positions that hold an item (Vaswani et al., 2017).

    Each head computes ``softmax(Q K^T / sqrt(d / heads)) V``. The concatenated heads are multiplied by a matrix. No
    position attends to a position without an item.

    Args:
        num_heads: The number of heads, a divisor of d.
        seed: Seed of the initial weights.

    Input: ``[rows (B, T, d), valid (B, T)]``. Output: (B, T, d), in the layer's compute dtype.

    Raises:
        ValueError: ``num_heads`` does not divide d.

    Example:
        >>> rows, valid = tf.random.normal([2, 5, 8]), tf.constant([[True] * 5, [True] * 2 + [False] * 3])
        >>> MultiHeadSelfAttention(num_heads=4)([rows, valid]).shape
        TensorShape([2, 5, 8])
    """

    def __init__(self, num_heads: int, seed: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_heads = positive_int("`num_heads`", num_heads)
        self.seed = int_at_least("`seed`", seed, 0)

    def build(self, input_shape: Any) -> None:
        dim = input_shape[0][-1]
        if dim % self.num_heads:
            raise problem("`num_heads`", f"divide the width of the rows, {dim}", self.num_heads)
        for place, name in enumerate(("query", "key", "value", "output_kernel")):
            start = keras.initializers.GlorotUniform(seed=self.seed + place)
            setattr(self, name, self.add_weight(name=name, shape=(dim, dim), initializer=start))
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        rows, valid = tf.cast(inputs[0], tf.float32), tf.cast(inputs[1], tf.bool)
        length, width = rows.shape[1], rows.shape[2] // self.num_heads

        def by_head(kernel: Any) -> tf.Tensor:
            projected = tf.einsum("btd,de->bte", rows, tf.cast(kernel, tf.float32))
            return tf.reshape(projected, [-1, length, self.num_heads, width])

        query, key, value = map(by_head, (self.query, self.key, self.value))
        logits = tf.einsum("bqhw,bkhw->bhqk", query, key) / width**0.5
        logits = tf.where(valid[:, tf.newaxis, tf.newaxis, :], logits, _MASKED)
        heads = tf.einsum("bhqk,bkhw->bqhw", tf.nn.softmax(logits), value)
        heads = tf.reshape(heads, [-1, length, self.num_heads * width])
        return tf.cast(tf.einsum("bte,ef->btf", heads, tf.cast(self.output_kernel, tf.float32)), compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_heads": self.num_heads, "seed": self.seed}


@register
class AttentionPooling(keras.layers.Layer):
    """The attention-weighted mean of a history's rows, for a query q: ``softmax(rows q / sqrt(d))`` over its items.

    Args:
        seed: Seed of the initial weights.

    Input: ``[rows (B, T, d), valid (B, T), query (B, d)]``. Without a query, one is learnt for all
    examples. Output: (B, d), in the layer's compute dtype; zeros for an empty history.

    Raises:
        ValueError: The query does not have the size of the rows.

    Example:
        >>> rows = tf.constant([[[4.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
        >>> valid, query = tf.constant([[True, True, False]]), tf.constant([[5.0, 0.0]])
        >>> AttentionPooling()([rows, valid, query]).numpy().round(3)
        array([[4., 0.]], dtype=float32)
    """

    def __init__(self, seed: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = int_at_least("`seed`", seed, 0)

    def build(self, input_shape: Any) -> None:
        dim = input_shape[0][-1]
        self.query = None
        if len(input_shape) == 2:
            start = keras.initializers.RandomNormal(stddev=1.0, seed=self.seed)
            self.query = self.add_weight(name="query", shape=(1, dim), initializer=start)
        elif input_shape[2][-1] != dim:
            raise problem("The query", f"have the width of the rows, {dim}", input_shape[2][-1])
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        rows, valid = tf.cast(inputs[0], tf.float32), tf.cast(inputs[1], tf.bool)
        query = tf.cast(inputs[2] if self.query is None else self.query, tf.float32)
        logits = tf.reduce_sum(rows * query[:, tf.newaxis], axis=2) / rows.shape[2] ** 0.5
        weights = tf.nn.softmax(tf.where(valid, logits, _MASKED)) * tf.cast(valid, tf.float32)
        pooled = weighted_sum(tf.where(valid[:, :, tf.newaxis], rows, 0.0), weights)
        return tf.cast(pooled, compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0][0], input_shape[0][-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


@register
class GatedSum(keras.layers.Layer):
    """``g x + (1 - g) y`` with ``g = sigmoid(gate)``, element by element.

    Input: ``[gate (B, d), x (B, d), y (B, d)]``. Output: (B, d).

    Example:
        >>> x, y = tf.constant([[1.0, 1.0]]), tf.constant([[3.0, 3.0]])
        >>> GatedSum()([tf.constant([[0.0, 99.0]]), x, y]).numpy()
        array([[2., 1.]], dtype=float32)
    """

    def call(self, inputs: Any) -> tf.Tensor:
        gate, x, y = inputs
        gate = tf.sigmoid(gate)
        return gate * x + (1 - gate) * y

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[1]


@register
class Positions(keras.layers.Layer):
    """The positions of a history from ``start`` up to, but not including, ``stop``.

    Args:
        start, stop: As in a slice; a ``stop`` of None means the end.

    Input: (B, T, ...). Output: (B, stop - start, ...), of the same type.

    Example:
        >>> Positions(0, 2)(tf.constant([[7, 5, 3]])).numpy()
        array([[7, 5]], dtype=int32)
    """

    def __init__(self, start: int, stop: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = int_at_least("`start`", start, 0)
        self.stop = None if stop is None else int_at_least("`stop`", stop, self.start + 1)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        length = inputs.shape[1]  # Keras infers the type of the output, which may be boolean
        if length is None:
            return inputs[:, self.start : self.stop]
        start, stop = (min(length if place is None else place, length) for place in (self.start, self.stop))
        others = [0] * (len(inputs.shape) - 2), [-1] * (len(inputs.shape) - 2)
        # The gradient of inputs[:, start:stop] takes three times as long.
        return tf.slice(inputs, [0, start, *others[0]], [-1, stop - start, *others[1]])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@register
class WithoutPadding(keras.layers.Layer):
    """A history's rows, with zeros at positions without an item. A Keras mask is not passed on.

    Input: ``[rows (B, T, d), valid (B, T)]``. Output: (B, T, d).

    Example:
        >>> rows = tf.constant([[[7.0], [5.0]]])
        >>> WithoutPadding()([rows, tf.constant([[True, False]])]).numpy()[0, :, 0]
        array([7., 0.], dtype=float32)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None

    def call(self, inputs: Any) -> tf.Tensor:
        rows, valid = inputs
        return tf.where(valid[:, :, tf.newaxis], rows, tf.zeros([], rows.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]
