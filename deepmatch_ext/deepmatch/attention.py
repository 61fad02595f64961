"""DeepMatch's attention layers, in its call forms. Here padding is never read, and layers reload with their settings.

B examples, Q queries, T positions of a history, C the size of a position's vector.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import as_flag, number_between, positive_int, problem
from deepmatch_ext._keras import compute_dtype, in_training, keras, register
from deepmatch_ext.layers.dropout import DroppingLayer

__all__ = [
    "AttentionSequencePoolingLayer",
    "ConcatAttention",
    "DotAttention",
    "SelfAttention",
    "SelfMultiHeadAttention",
    "SoftmaxWeightedSum",
    "UserAttention",
]

_MASKED = -1e9
_TINY = 1e-9


class _Attention(DroppingLayer):
    """The base class of layers whose attention weights are dropped at random in training."""

    inputs = 3

    def __init__(self, dropout_rate: float, seed: int, **kwargs: Any) -> None:
        super().__init__(number_between("`dropout_rate`", dropout_rate, 0, 1), seed, **kwargs)
        self.supports_masking = True  # lengths and masks are inputs of their own

    def build(self, input_shape: Any = None) -> None:
        _check_inputs(self, input_shape, self.inputs)
        super().build(input_shape)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None

    def _weighted(self, scores: tf.Tensor, visible: tf.Tensor, values: tf.Tensor, training: Any) -> tf.Tensor:
        """(..., Q, C) from scores (..., Q, T), what each query may read, and values (..., T, C); zeros if nothing."""
        weights = tf.nn.softmax(tf.where(visible, scores, _MASKED)) * tf.cast(visible, tf.float32)
        return tf.matmul(self._dropped(weights, training), values)

    def _dropped(self, values: tf.Tensor, training: Any) -> tf.Tensor:
        return self._some_left_out(values, in_training(training)) if self.rate else values

    def _add_norm(self, width: int) -> None:
        self.gamma = self.add_weight(name="gamma", shape=(width,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(width,), initializer="zeros")

    def _normalised(self, values: tf.Tensor) -> tf.Tensor:
        mean, variance = tf.nn.moments(values, axes=[-1], keepdims=True)
        gamma, beta = tf.cast(self.gamma, tf.float32), tf.cast(self.beta, tf.float32)
        return (values - mean) * tf.math.rsqrt(variance + _TINY) * gamma + beta

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["rate"]
        return {**config, "dropout_rate": self.rate}


@register
class DotAttention(keras.layers.Layer):
    """The inner product of each query with each key, divided by ``sqrt(C)`` if `scale`.

    Input: ``[query (B, Q, C), key (B, T, C)]``. Output: (B, Q, T).

    Example:
        >>> query, key = tf.constant([[[2.0, 0, 0, 0]]]), tf.constant([[[3.0, 0, 0, 0], [0, 3.0, 0, 0]]])
        >>> DotAttention()([query, key]).numpy()
        array([[[3., 0.]]], dtype=float32)
    """

    def __init__(self, scale: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.supports_masking = as_flag("`scale`", scale), True

    def build(self, input_shape: Any = None) -> None:
        _check_inputs(self, input_shape, 2)
        if input_shape[0][-1] != input_shape[1][-1]:
            raise problem("The query", f"have the width of the keys, {input_shape[1][-1]}", input_shape[0][-1])
        self.built = True

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None

    def call(self, inputs: Any) -> tf.Tensor:
        query, key = inputs
        scores = tf.matmul(query, key, transpose_b=True)
        return scores / key.shape[-1] ** 0.5 if self.scale else scores

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[0][:2], input_shape[1][1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


@register
class ConcatAttention(keras.layers.Layer):
    """Additive attention: ``v . tanh([q ; k] W + b)`` of each position's query and key, over ``sqrt(C)`` if `scale`.

    DeepMatch's is ``tanh(w . [q ; k] + b)``, over ``sqrt(C)``: no score leaves -1/sqrt(C)..1/sqrt(C), so the softmax
    of the scores is nearly uniform. With C = 32, no weight is more than e^(2/sqrt(32)) = 1.42 times another.

    Args:
        scale: Whether scores are divided by ``sqrt(C)``, with C the width of the keys.

    Input: ``[query (B, T, Cq), key (B, T, C)]``, or one query (B, 1, Cq) for all positions. Output: (B, 1, T).

    Example:
        >>> ConcatAttention()([tf.ones([2, 5, 3]), tf.ones([2, 5, 4])]).shape
        TensorShape([2, 1, 5])
    """

    def __init__(self, scale: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.supports_masking = as_flag("`scale`", scale), True

    def build(self, input_shape: Any = None) -> None:
        _check_inputs(self, input_shape, 2)
        _add_additive(self, input_shape[0][-1], input_shape[1][-1])
        self.built = True

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None

    def call(self, inputs: Any) -> tf.Tensor:
        query, key = (tf.cast(each, tf.float32) for each in inputs)
        return tf.cast(_additive(self, query, key, self.scale), compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[1][0], 1, input_shape[1][1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


@register
class SoftmaxWeightedSum(_Attention):
    """The sum of values weighted by the softmax of their scores. A query that may read nothing gets zeros.

    Args:
        dropout_rate: Dropout rate of the weights, in [0, 1).
        future_binding: Whether query t reads only the values up to position t; there are as many queries as values.
        seed: Seed of the dropout.

    Input: ``[scores (B, Q, T), values (B, T, C), booleans (B, Q, T) or (B, 1, T)]``. Output: (B, Q, C).

    Example:
        >>> scores, values = tf.zeros([1, 1, 3]), tf.constant([[[2.0], [4.0], [9.0]]])
        >>> SoftmaxWeightedSum()([scores, values, tf.constant([[[True, True, False]]])]).numpy()
        array([[[3.]]], dtype=float32)
    """

    def __init__(
        self, dropout_rate: float = 0.2, future_binding: bool = False, seed: int = 2020, **kwargs: Any
    ) -> None:
        super().__init__(dropout_rate, seed, **kwargs)
        self.future_binding = as_flag("`future_binding`", future_binding)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        if input_shape[0][-1] != input_shape[2][-1]:
            raise problem("The mask", f"have the length of the scores, {input_shape[0][-1]}", input_shape[2][-1])
        if self.future_binding and input_shape[0][1] != input_shape[1][1]:
            rule = f"be as many as values, {input_shape[1][1]}, with `future_binding`"
            raise problem("The queries", rule, input_shape[0][1])

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        scores, values = (tf.cast(each, tf.float32) for each in inputs[:2])
        visible = tf.cast(inputs[2], tf.bool)
        if self.future_binding:
            visible &= _up_to_own(tf.shape(values)[1])
        return tf.cast(self._weighted(scores, visible, values, training), compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[0][:2], input_shape[1][-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "future_binding": self.future_binding}


@register
class AttentionSequencePoolingLayer(_Attention):
    """The sum of a history's rows, weighted by their `ConcatAttention` to one query.

    Better: `deepmatch_ext.layers.AttentionPooling`.

    Args:
        dropout_rate: Dropout rate of the weights, in [0, 1).

    Input: ``[query (B, 1, Cq), rows (B, T, C), lengths (B, 1)]``. Output: (B, 1, C); zeros for an empty history.

    Example:
        >>> query, rows, lengths = tf.ones([2, 1, 3]), tf.ones([2, 5, 4]), tf.constant([[5], [2]])
        >>> AttentionSequencePoolingLayer()([query, rows, lengths]).shape
        TensorShape([2, 1, 4])
    """

    def __init__(self, dropout_rate: float = 0.0, seed: int = 1024, **kwargs: Any) -> None:
        super().__init__(dropout_rate, seed, **kwargs)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        _add_additive(self, input_shape[0][-1], input_shape[1][-1])

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        query, rows = (tf.cast(each, tf.float32) for each in inputs[:2])
        valid = _valid(inputs[2], rows)[:, tf.newaxis]
        rows = tf.where(tf.transpose(valid, [0, 2, 1]), rows, 0.0)
        return tf.cast(self._weighted(_additive(self, query, rows), valid, rows, training), compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[1][0], 1, input_shape[1][-1])


@register
class SelfAttention(_Attention):
    """Scaled dot-product self-attention without projections of its inputs, then the mean over the positions.

    Better: `deepmatch_ext.layers.MultiHeadSelfAttention`.

    Args:
        scale: Whether scores are divided by ``sqrt(C)``.
        dropout_rate: Dropout rate of the weights, in [0, 1).
        future_binding: Whether position t reads only the positions up to t.
        use_layer_norm: Whether each position is layer-normalised before the mean.
        seed: Seed of the dropout.

    Input: ``[rows (B, T, C), lengths (B, 1)]``, or booleans (B, T, T) or (B, 1, T) instead of the lengths. Output:
    (B, 1, C); the mean is over the positions that some position may read.

    Example:
        >>> SelfAttention()([tf.ones([2, 5, 4]), tf.constant([[5], [2]])]).shape
        TensorShape([2, 1, 4])
    """

    inputs = 2

    def __init__(
        self,
        scale: bool = True,
        dropout_rate: float = 0.2,
        future_binding: bool = True,
        use_layer_norm: bool = True,
        seed: int = 2020,
        **kwargs: Any,
    ) -> None:
        super().__init__(dropout_rate, seed, **kwargs)
        self.scale, self.future_binding = as_flag("`scale`", scale), as_flag("`future_binding`", future_binding)
        self.use_layer_norm = as_flag("`use_layer_norm`", use_layer_norm)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        if self.use_layer_norm:
            self._add_norm(input_shape[0][-1])

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        rows, mask = tf.cast(inputs[0], tf.float32), inputs[1]
        visible = _valid(mask, rows)[:, tf.newaxis] if len(mask.shape) < 3 else tf.cast(mask, tf.bool)
        valid = tf.reduce_any(visible, axis=1)[:, :, tf.newaxis]
        rows = tf.where(valid, rows, 0.0)
        scores = tf.matmul(rows, rows, transpose_b=True) / (rows.shape[-1] ** 0.5 if self.scale else 1.0)
        if self.future_binding:
            visible &= _up_to_own(tf.shape(rows)[1])
        states = self._weighted(scores, visible, rows, training)
        if self.use_layer_norm:
            states = self._normalised(states)
        return tf.cast(_mean_of(states, valid), compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0][0], 1, input_shape[0][-1])

    def get_config(self) -> dict[str, Any]:
        names = ("scale", "future_binding", "use_layer_norm")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@register
class SelfMultiHeadAttention(_Attention):
    """Multi-head self-attention over a history's positions, with a residual connection and layer normalisation.

    Better: `deepmatch_ext.layers.MultiHeadSelfAttention`, or `TransformerBlock`.

    Args:
        num_units: The width of the output; None: C. With `use_res` it must be C.
        head_num: The number of heads, a divisor of `num_units`.
        scale: Whether scores are divided by ``sqrt(num_units / head_num)``.
        dropout_rate: Dropout rate of the weights and of the output, in [0, 1).
        future_binding: Whether position t reads only the positions up to t: the history has the oldest item first.
        use_layer_norm: Whether the output is layer-normalised.
        use_res: Whether the input is added to the output, before it is normalised.
        seed: Seed of the initial weights and of the dropout.

    Input: ``[rows (B, T, C), lengths (B, 1)]``. Output: (B, T, num_units), zeros at padding.

    Example:
        >>> SelfMultiHeadAttention(num_units=8)([tf.ones([2, 5, 8]), tf.constant([[5], [2]])]).shape
        TensorShape([2, 5, 8])
    """

    inputs = 2

    def __init__(
        self,
        num_units: int | None = 8,
        head_num: int = 4,
        scale: bool = True,
        dropout_rate: float = 0.2,
        future_binding: bool = True,
        use_layer_norm: bool = True,
        use_res: bool = True,
        seed: int = 2020,
        **kwargs: Any,
    ) -> None:
        super().__init__(dropout_rate, seed, **kwargs)
        self.num_units = None if num_units is None else positive_int("`num_units`", num_units)
        self.head_num = positive_int("`head_num`", head_num)
        self.scale, self.future_binding = as_flag("`scale`", scale), as_flag("`future_binding`", future_binding)
        self.use_layer_norm, self.use_res = (
            as_flag("`use_layer_norm`", use_layer_norm),
            as_flag("`use_res`", use_res),
        )

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        width = input_shape[0][-1]
        self.units = self.num_units or width
        if self.units % self.head_num:
            raise problem("`head_num`", f"divide `num_units`, {self.units}", self.head_num)
        if self.use_res and self.units != width:
            raise problem("`num_units`", f"be the width of the rows, {width}, with `use_res`", self.units)
        shapes = {"projections": (width, 3 * self.units), "joined": (self.units, self.units)}
        for place, (name, shape) in enumerate(shapes.items()):
            start = keras.initializers.TruncatedNormal(stddev=0.05, seed=self.seed + place)
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer=start))
        if self.use_layer_norm:
            self._add_norm(self.units)

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        rows = tf.cast(inputs[0], tf.float32)
        valid = _valid(inputs[1], rows)
        rows = tf.where(valid[:, :, tf.newaxis], rows, 0.0)
        length, width = tf.shape(rows)[1], self.units // self.head_num

        def by_head(values: tf.Tensor) -> tf.Tensor:
            return tf.transpose(tf.reshape(values, [-1, length, self.head_num, width]), [0, 2, 1, 3])

        projected = tf.einsum("btc,ce->bte", rows, tf.cast(self.projections, tf.float32))
        query, key, value = map(by_head, tf.split(projected, 3, axis=2))
        scores = tf.matmul(query, key, transpose_b=True) / (width**0.5 if self.scale else 1.0)
        visible = valid[:, tf.newaxis, tf.newaxis]
        if self.future_binding:
            visible &= _up_to_own(length)
        heads = tf.transpose(self._weighted(scores, visible, value, training), [0, 2, 1, 3])
        heads = tf.reshape(heads, [-1, length, self.units])
        states = tf.einsum("bte,ef->btf", heads, tf.cast(self.joined, tf.float32))
        states = self._dropped(states, training)
        if self.use_res:
            states += rows
        if self.use_layer_norm:
            states = self._normalised(states)
        return tf.cast(tf.where(valid[:, :, tf.newaxis], states, 0.0), compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[0][:2], self.num_units or input_shape[0][-1])

    def get_config(self) -> dict[str, Any]:
        names = ("num_units", "head_num", "scale", "future_binding", "use_layer_norm", "use_res")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@register
class UserAttention(_Attention):
    """The sum of a history's rows, weighted by their scaled dot products with a query, a dense layer of the user.

    Better: `deepmatch_ext.layers.AttentionPooling`.

    Args:
        num_units: The width of the query, which must be C; None: C.
        activation: The dense layer's activation.
        use_res: Whether the mean of the rows is added.
        dropout_rate: Dropout rate of the weights, in [0, 1).
        scale: Whether scores are divided by ``sqrt(C)``.
        seed: Seed of the initial weights and of the dropout.

    Input: ``[user (B, 1, Cu), rows (B, T, C), lengths (B, 1)]``. Output: (B, 1, C); zeros for an empty history.

    Example:
        >>> user, rows, lengths = tf.ones([2, 1, 3]), tf.ones([2, 5, 4]), tf.constant([[5], [2]])
        >>> UserAttention()([user, rows, lengths]).shape
        TensorShape([2, 1, 4])
    """

    def __init__(
        self,
        num_units: int | None = None,
        activation: Any = "tanh",
        use_res: bool = True,
        dropout_rate: float = 0.0,
        scale: bool = True,
        seed: int = 2020,
        **kwargs: Any,
    ) -> None:
        super().__init__(dropout_rate, seed, **kwargs)
        self.num_units = None if num_units is None else positive_int("`num_units`", num_units)
        self.activation = keras.activations.get(activation)
        self.use_res, self.scale = as_flag("`use_res`", use_res), as_flag("`scale`", scale)

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        width = input_shape[1][-1]
        if self.num_units not in (None, width):
            raise problem("`num_units`", f"be the width of the rows, {width}", self.num_units)
        start = keras.initializers.GlorotUniform(seed=self.seed)
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[0][-1], width), initializer=start)
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        user, rows = (tf.cast(each, tf.float32) for each in inputs[:2])
        valid = _valid(inputs[2], rows)
        rows = tf.where(valid[:, :, tf.newaxis], rows, 0.0)
        query = tf.einsum("bqu,uc->bqc", user, tf.cast(self.kernel, tf.float32)) + tf.cast(self.bias, tf.float32)
        scores = tf.matmul(self.activation(query), rows, transpose_b=True)
        scores /= rows.shape[-1] ** 0.5 if self.scale else 1.0
        pooled = self._weighted(scores, valid[:, tf.newaxis], rows, training)
        if self.use_res:
            pooled += _mean_of(rows, valid[:, :, tf.newaxis])
        return tf.cast(pooled, compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[1][0], 1, input_shape[1][-1])

    def get_config(self) -> dict[str, Any]:
        names = ("num_units", "use_res", "scale")
        of_layer = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **of_layer, "activation": keras.activations.serialize(self.activation)}


def _check_inputs(layer: Any, input_shape: Any, number: int) -> None:
    shapes = input_shape if isinstance(input_shape, list | tuple) else []
    if len(shapes) != number or not hasattr(shapes[0], "__len__"):
        raise problem(f"The input of {type(layer).__name__}", f"be a list of {number} tensors", f"shape {input_shape}")


def _valid(lengths: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """(B, T) booleans: which positions hold an item."""
    return tf.sequence_mask(tf.reshape(lengths, [-1]), tf.shape(rows)[1])


def _up_to_own(length: tf.Tensor) -> tf.Tensor:
    """(T, T) booleans: position t sees those up to t."""
    places = tf.range(length)
    return places[tf.newaxis] <= places[:, tf.newaxis]


def _mean_of(values: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """(B, 1, C), the mean of the values (B, T, C) that are valid (B, T, 1); zeros if there are none."""
    counts = tf.cast(valid, tf.float32)
    number = tf.maximum(tf.reduce_sum(counts, axis=1, keepdims=True), 1.0)
    return tf.reduce_sum(values * counts, axis=1, keepdims=True) / number


def _add_additive(layer: Any, of_query: int, of_key: int) -> None:
    """The weights of `_additive`. Query and key have a matrix each, so that one query is multiplied once."""
    shapes = {"of_query": (of_query, of_key), "of_key": (of_key, of_key), "weigh": (of_key, 1)}
    for name, shape in shapes.items():
        setattr(layer, name, layer.add_weight(name=name, shape=shape, initializer="glorot_uniform"))
    layer.bias = layer.add_weight(name="bias", shape=(of_key,), initializer="zeros")


def _additive(layer: Any, query: tf.Tensor, key: tf.Tensor, scale: bool = True) -> tf.Tensor:
    """(B, 1, T)."""
    of_query, of_key, weigh, bias = (
        tf.cast(weight, tf.float32) for weight in (layer.of_query, layer.of_key, layer.weigh, layer.bias)
    )
    hidden = tf.tanh(tf.einsum("btq,qc->btc", query, of_query) + tf.einsum("btk,kc->btc", key, of_key) + bias)
    scores = tf.transpose(tf.einsum("btc,cx->btx", hidden, weigh), [0, 2, 1])
    return scores / key.shape[-1] ** 0.5 if scale else scores
