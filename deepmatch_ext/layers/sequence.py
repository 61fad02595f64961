"""Blocks of sequence encoders: the state at each position, computed from the event there and from older ones.

Histories list the most recent event first. A position reads itself and the positions behind it, never one in front, so
its state does not change with later events. B rows, t positions, d the width of a position's values.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import as_flag, one_of, positive_int, problem
from deepmatch_ext._keras import compute_dtype, in_training, keras, register
from deepmatch_ext.layers.dropout import DroppingLayer
from deepmatch_ext.layers.pooling import HistoryPooling, recency_weights
from deepmatch_ext.layers.times import BUCKETS, of_buckets

_MASKED = -1e9
_TINY = 1e-6


def __getattr__(name: str) -> Any:
    # Programs written for DeepMatch look here for its DynamicMultiRNN.
    return import_module("deepmatch_ext.deepmatch").find_layer(__name__, name)


def lags(length: tf.Tensor) -> tf.Tensor:
    """(t, t) int32: by how many places column j is behind row k; negative if it is in front."""
    places = tf.range(length)
    return places[tf.newaxis] - places[:, tf.newaxis]


@register
class PooledStates(HistoryPooling):
    """The pooling of `SequenceMaskPooling` for each position, over the event there and the older ones.

    Args:
        mode: mean, sum or sqrtn.
        recency_decay: As in `SequenceMaskPooling`; ranks count from the position.

    Input: ``[rows (B, t, d), valid (B, t)]``, padding last; or these and the buckets (B, q, t) of `TimeBuckets`, for
    each of which a factor is learnt that multiplies the weights, initially 1.

    Output: (B, t, d), or (B, q, d) with buckets, in the layer's compute dtype.

    Example:
        >>> rows, valid = tf.constant([[[4.0], [2.0], [9.0]]]), tf.constant([[True, True, False]])
        >>> PooledStates(recency_decay=1.0)([rows, valid]).numpy()[0, :, 0].round(3)  # (4 + 2/2) / (1 + 1/2), 2 / 1
        array([3.333, 2.   , 0.   ], dtype=float32)
    """

    def __init__(self, mode: str = "mean", recency_decay: float = 0.0, **kwargs: Any) -> None:
        super().__init__(one_of("`mode`", mode, ("mean", "sum", "sqrtn")), False, recency_decay, **kwargs)

    def build(self, input_shape: Any) -> None:
        self.log_by_time = None
        if len(input_shape) > 2:
            self.log_by_time = self.add_weight(name="log_by_time", shape=(1, BUCKETS), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        rows, valid, *buckets = inputs
        valid = tf.cast(valid, tf.bool)
        rows = tf.where(valid[:, :, tf.newaxis], tf.cast(rows, tf.float32), 0.0)
        length = tf.shape(rows)[1]
        lag = lags(length)[: tf.shape(buckets[0])[1]] if buckets else lags(length)
        weights = tf.where(lag >= 0, recency_weights(tf.maximum(lag, 0), self.recency_decay), 0.0)[tf.newaxis]
        if buckets:
            weights *= tf.exp(tf.squeeze(of_buckets(self.log_by_time, buckets[0], in_training(training)), axis=1))
        norm = tf.matmul(self._norm_term(weights), tf.cast(valid, tf.float32)[:, :, tf.newaxis])
        return tf.cast(self._normalised(tf.matmul(weights, rows), norm), compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        rows, _, *buckets = input_shape
        return (rows[0], buckets[0][1], rows[2]) if buckets else rows

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in ("keepdims", "nth")}


class CausalBlock(DroppingLayer):
    """The base class of blocks that attend to a position and those behind it, with learnt biases by distance and time.

    Args:
        max_len: T, the largest number of positions.
        num_heads: The number of attention heads, a divisor of d. Each learns a bias for each distance.
        rate: The dropout rate of what a block adds to its input, in [0, 1).
        seed: The seed of the initial weights and of the dropout.

    Input: ``[states (B, t, d), valid (B, t)]``, padding last; or these and the buckets (B, t, t) of `TimeBuckets`, for
    each of which each head learns a bias. Output: (B, t, d), in the layer's compute dtype.
    """

    def __init__(self, max_len: int, num_heads: int = 1, rate: float = 0.0, seed: int = 1024, **kwargs: Any) -> None:
        super().__init__(rate, seed, **kwargs)
        self.max_len = positive_int("`max_len`", max_len)
        self.num_heads = positive_int("`num_heads`", num_heads)
        self.supports_jit = False

    def build(self, input_shape: Any = None) -> None:
        dim = input_shape[0][-1]
        if dim % self.num_heads:
            raise problem("`num_heads`", f"divide the width of the states, {dim}", self.num_heads)
        self._made = 0
        # What the distance of position j from position k adds to the logit.
        self.by_lag = self.add_weight(name="by_lag", shape=(self.num_heads, self.max_len), initializer="zeros")
        self.by_time = None
        if len(input_shape) > 2:
            self.by_time = self.add_weight(name="by_time", shape=(self.num_heads, BUCKETS), initializer="zeros")
        self._build(dim)
        super().build()

    def _build(self, dim: int) -> None:
        raise NotImplementedError

    def _kernel(self, name: str, *shape: int) -> Any:
        self._made += 1
        start = keras.initializers.GlorotUniform(seed=self.seed + self._made)
        return self.add_weight(name=name, shape=shape, initializer=start)

    def _scale(self, name: str, dim: int) -> tuple[Any, Any]:
        """The weights of a layer normalisation."""
        scale = self.add_weight(name=f"{name}_scale", shape=(dim,), initializer="ones")
        return scale, self.add_weight(name=f"{name}_shift", shape=(dim,), initializer="zeros")

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        states, valid = tf.cast(inputs[0], tf.float32), tf.cast(inputs[1], tf.bool)
        training = in_training(training)
        bias = self._bias(tf.shape(states)[1])
        if self.by_time is not None:
            bias += of_buckets(self.by_time, inputs[2], training)
        return tf.cast(self._states(states, valid, bias, training), compute_dtype(self))

    def _states(self, states: tf.Tensor, valid: tf.Tensor, bias: tf.Tensor, training: Any) -> tf.Tensor:
        raise NotImplementedError

    def _bias(self, length: tf.Tensor) -> tf.Tensor:
        """(heads, t, t): what each distance adds to the attention's logits."""
        return tf.gather(_float(self.by_lag), tf.maximum(lags(length), 0), axis=1)

    def _visible(self, valid: tf.Tensor) -> tf.Tensor:
        """(B, 1, t, t) booleans: whether position k may read position j."""
        behind = lags(tf.shape(valid)[1]) >= 0
        return behind[tf.newaxis, tf.newaxis] & valid[:, tf.newaxis, tf.newaxis, :]

    def _by_head(self, values: tf.Tensor) -> tf.Tensor:
        """(B, t, d) as (B, heads, t, d / heads)."""
        length, width = tf.shape(values)[1], values.shape[-1] // self.num_heads
        return tf.transpose(tf.reshape(values, [-1, length, self.num_heads, width]), [0, 2, 1, 3])

    def _joined(self, heads: tf.Tensor) -> tf.Tensor:
        length, width = tf.shape(heads)[2], heads.shape[-1]
        return tf.reshape(tf.transpose(heads, [0, 2, 1, 3]), [-1, length, self.num_heads * width])

    def _dropped(self, values: tf.Tensor, training: Any) -> tf.Tensor:
        return self._some_left_out(values, training) if self.rate else values

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_len": self.max_len, "num_heads": self.num_heads}


@register
class TransformerBlock(CausalBlock):
    """Self-attention, then two dense layers; each reads its normalised input, and its output is added to that input.

    The block of SASRec (Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018), with a bias by distance
    instead of a vector for each position.

    Args:
        max_len, num_heads, rate, seed: As in `CausalBlock`.
        gated: Whether to use LiGR's form (Borisyuk et al., "From Features to Transformers", 2025; as in eSASRec, RecSys
            2025): what is added is multiplied by a sigmoid gate of the input, and the dense layers are a SwiGLU of
            width 4 d.

    Input and output: As in `CausalBlock`.

    Raises:
        ValueError: ``num_heads`` does not divide d.

    Example:
        >>> states, valid = tf.random.stateless_normal([1, 3, 4], [1, 2]), tf.constant([[True, True, True]])
        >>> block = TransformerBlock(max_len=3, num_heads=2, gated=True)
        >>> newer = tf.tensor_scatter_nd_update(states, [[0, 0]], [[1.0, 1.0, 1.0, 1.0]])  # another most recent event
        >>> same = block([states, valid])[0] == block([newer, valid])[0]
        >>> tf.reduce_all(same, axis=-1).numpy()  # the older positions did not see it
        array([False,  True,  True])
    """

    def __init__(self, max_len: int, num_heads: int = 1, rate: float = 0.0, gated: bool = False, **kwargs: Any) -> None:
        super().__init__(max_len, num_heads, rate, **kwargs)
        self.gated = as_flag("`gated`", gated)

    def _build(self, dim: int) -> None:
        wide = 4 * dim if self.gated else dim
        self.before_attention, self.before_dense = self._scale("attention", dim), self._scale("dense", dim)
        self.projections, self.heads_kernel = self._kernel("projections", dim, 3 * dim), self._kernel("heads", dim, dim)
        self.inner = self._kernel("inner", dim, 2 * wide if self.gated else wide)
        self.outer = self._kernel("outer", wide, dim)
        self.gates = tuple(self._kernel(f"gates_{place}", dim, dim) for place in range(2)) if self.gated else ()

    def _states(self, states: tf.Tensor, valid: tf.Tensor, bias: tf.Tensor, training: Any) -> tf.Tensor:
        normed = _normalised(states, self.before_attention)
        query, key, value = map(self._by_head, tf.split(_times(normed, self.projections), 3, axis=2))
        logits = tf.matmul(query * query.shape[-1] ** -0.5, key, transpose_b=True) + bias
        attention = tf.nn.softmax(tf.where(self._visible(valid), logits, _MASKED))
        heard = _times(self._joined(tf.matmul(attention, value)), self.heads_kernel)
        states += self._added(heard, states, 0, training)
        inner = _times(_normalised(states, self.before_dense), self.inner)
        if self.gated:
            gate, inner = tf.split(inner, 2, axis=2)
            inner = tf.nn.silu(gate) * inner
        else:
            inner = tf.nn.relu(inner)
        return states + self._added(_times(inner, self.outer), states, 1, training)

    def _added(self, values: tf.Tensor, states: tf.Tensor, place: int, training: Any) -> tf.Tensor:
        values = self._dropped(values, training)
        return values * tf.sigmoid(_times(states, self.gates[place])) if self.gated else values

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gated": self.gated}


@register
class HSTUBlock(CausalBlock):
    """HSTU's block (Zhai et al., "Actions Speak Louder than Words", ICML 2024): attention without softmax, and a gate.

    With N a layer normalisation::

        U, V, Q, K = split(silu(N(X) W))
        Y = X + (N(silu(Q K^T + by lag + by time) V / T) * U) W_out

    Without a softmax an unrelated event may add nothing, and repeated events add up.

    Args:
        max_len, num_heads, rate, seed: As in `CausalBlock`.

    Input and output: As in `CausalBlock`.

    Raises:
        ValueError: ``num_heads`` does not divide d.

    Example:
        >>> block = HSTUBlock(max_len=3)
        >>> block([tf.ones([2, 3, 4]), tf.constant([[True] * 3, [True, False, False]])]).shape
        TensorShape([2, 3, 4])
    """

    def _build(self, dim: int) -> None:
        self.before, self.behind = self._scale("before", dim), self._scale("behind", dim)
        self.projections, self.outer = self._kernel("projections", dim, 4 * dim), self._kernel("outer", dim, dim)

    def _states(self, states: tf.Tensor, valid: tf.Tensor, bias: tf.Tensor, training: Any) -> tf.Tensor:
        projected = tf.nn.silu(_times(_normalised(states, self.before), self.projections))
        gate, value, query, key = tf.split(projected, 4, axis=2)
        query, key, value = map(self._by_head, (query, key, value))
        logits = tf.matmul(query, key, transpose_b=True) + bias
        attention = tf.where(self._visible(valid), tf.nn.silu(logits) / self.max_len, 0.0)
        heard = _normalised(self._joined(tf.matmul(attention, value)), self.behind) * gate
        return states + _times(self._dropped(heard, training), self.outer)


def _float(weight: Any) -> tf.Tensor:
    return tf.cast(weight, tf.float32)


def _times(values: tf.Tensor, kernel: Any) -> tf.Tensor:
    """(B, t, d) times (d, e), as one product of matrices."""
    flat = tf.matmul(tf.reshape(values, [-1, values.shape[-1]]), _float(kernel))
    return tf.reshape(flat, [tf.shape(values)[0], tf.shape(values)[1], kernel.shape[1]])


def _normalised(values: tf.Tensor, weights: tuple[Any, Any]) -> tf.Tensor:
    """Layer normalisation of the last axis (Ba et al., 2016)."""
    mean, variance = tf.nn.moments(values, axes=[-1], keepdims=True)
    scale, shift = map(_float, weights)
    return (values - mean) * tf.math.rsqrt(variance + _TINY) * scale + shift
