"""Several vectors for a user: K interests, which are extracted from a history, and the choice of the one to train.

B examples, T positions of a history (most recent first), K interests, S sampled candidates, D size of the vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import as_flag, finite_number, int_at_least, number_between, positive_int, problem, shown
from deepmatch_ext._keras import compute_dtype, keras, register
from deepmatch_ext.layers.pooling import recency_weights, weighted_sum

_MASKED = -1e9


@register
class SelfAttentiveInterests(keras.layers.Layer):
    """K weighted means of a history, each with its own attention: ComiRec-SA (Cen et al., KDD 2020, section 3.3).

    Let e_t be the row at position t, p_t a vector of that position, and ``H = tanh(W1 (e + p))``. The attention is the
    softmax of ``W2 H`` over the positions that hold an item. An interest is the mean of the e_t weighted by attention.
    Positions affect the weights only. An empty history gives zeros.

    Args:
        num_interests: K.
        add_pos: Whether the attention depends on positions.
        hidden_units: The width of H; None: 4 D, as in the paper's code.
        seed: Seed of the initial weights.
        recency_decay: At least 0. The attention of the item of rank k (0: the most recent) is multiplied by
            ``(k + 1) ** -recency_decay`` before it is normalised. The paper uses 0: all items count equally.

    Input: ``[rows (B, T, D), valid (B, T)]``. Output: (B, K, D), in the layer's compute dtype.

    Example:
        >>> rows, valid = tf.random.normal([2, 5, 8]), tf.constant([[True] * 5, [True] * 2 + [False] * 3])
        >>> SelfAttentiveInterests(3)([rows, valid]).shape
        TensorShape([2, 3, 8])
    """

    def __init__(
        self,
        num_interests: int,
        add_pos: bool = True,
        hidden_units: int | None = None,
        seed: int = 1024,
        recency_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_interests = positive_int("`num_interests`", num_interests)
        self.add_pos = as_flag("`add_pos`", add_pos)
        self.hidden_units = None if hidden_units is None else positive_int("`hidden_units`", hidden_units)
        self.seed = int_at_least("`seed`", seed, 0)
        self.recency_decay = number_between("`recency_decay`", recency_decay, 0, float("inf"))

    def build(self, input_shape: Any) -> None:
        _, length, dim = input_shape[0]
        hidden = self.hidden_units or 4 * dim
        if self.add_pos:
            start = keras.initializers.RandomNormal(stddev=0.01, seed=self.seed)
            self.position = self.add_weight(name="position", shape=(length, dim), initializer=start)
        for name, shape in {"hidden": (dim, hidden), "attention": (hidden, self.num_interests)}.items():
            start = keras.initializers.GlorotUniform(seed=self.seed + (name == "hidden"))
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer=start))
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        rows, valid = tf.cast(inputs[0], tf.float32), tf.cast(inputs[1], tf.bool)
        placed = rows + tf.cast(self.position, tf.float32) if self.add_pos else rows
        hidden = tf.tanh(tf.einsum("btd,dh->bth", placed, tf.cast(self.hidden, tf.float32)))
        logits = tf.einsum("bth,hk->btk", hidden, tf.cast(self.attention, tf.float32))
        if self.recency_decay:
            logits += tf.math.log(_recency(valid, self.recency_decay))[:, :, tf.newaxis]
        valid = valid[:, :, tf.newaxis]
        attention = tf.nn.softmax(tf.where(valid, logits, _MASKED), axis=1) * tf.cast(valid, tf.float32)
        return tf.cast(tf.matmul(attention, rows, transpose_a=True), compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0][0], self.num_interests, input_shape[0][-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_interests": self.num_interests,
            "add_pos": self.add_pos,
            "hidden_units": self.hidden_units,
            "seed": self.seed,
            "recency_decay": self.recency_decay,
        }


@register
class DynamicRouting(keras.layers.Layer):
    """K interests as capsules to which the positions of a history are routed.

    Each position's row is mapped to ``e_hat``, a prediction for each interest. A softmax over the interests determines
    how much of the row goes to each interest. An interest is the weighted sum z of its predictions, squashed to
    ``|z|^2 / (1 + |z|^2) * z / |z|``. Then the inner products of predictions and interests are added to the logits of
    the softmax, and the next round begins. The interests of the last round are the output; gradients flow through that
    round only. An empty history gives zeros.

    Args:
        num_interests: K.
        rounds: The number of rounds of routing.
        scale: Multiplies the inner products before they are added to the logits. The papers use 1. L2-normalised rows
            have inner products within -1..1, which a softmax hardly distinguishes.
        shared: MIND's routing (Li et al., CIKM 2019, section 4.2): one matrix makes all predictions, and the initial
            logits are random. They are drawn once, from the seed, so the same history gives the same interests at every
            call. False: ComiRec-DR's routing (Cen et al., KDD 2020, section 3.2): there is a matrix for each position
            and interest, and the initial logits are 0.
        dynamic_k: A user with n items has ``max(1, min(K, log2(n)))`` interests, rounded down, as in MIND. Surplus
            interests repeat the first, so they change no maximum over the interests.
        seed: Seed of the initial weights and logits.
        recency_decay: At least 0. In the sums of the last round, the item of rank k (0: the most recent) has the
            weight ``(k + 1) ** -recency_decay``. The papers use 0: all items count equally.

    Input: ``[rows (B, T, D), valid (B, T)]``. Output: (B, K, D), in the layer's compute dtype.

    Example:
        >>> rows, valid = tf.random.normal([2, 5, 8]), tf.constant([[True] * 5, [True] * 2 + [False] * 3])
        >>> DynamicRouting(3, shared=True)([rows, valid]).shape
        TensorShape([2, 3, 8])
    """

    def __init__(
        self,
        num_interests: int,
        rounds: int = 3,
        shared: bool = False,
        dynamic_k: bool = False,
        seed: int = 1024,
        scale: float = 1.0,
        recency_decay: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_interests = positive_int("`num_interests`", num_interests)
        self.rounds = positive_int("`rounds`", rounds)
        self.scale = finite_number("`scale`", scale)
        self.recency_decay = number_between("`recency_decay`", recency_decay, 0, float("inf"))
        self.shared, self.dynamic_k = as_flag("`shared`", shared), as_flag("`dynamic_k`", dynamic_k)
        self.seed = int_at_least("`seed`", seed, 0)

    def build(self, input_shape: Any) -> None:
        _, length, dim = input_shape[0]
        shape = (dim, dim) if self.shared else (length, self.num_interests, dim, dim)
        self.mapping = self.add_weight(name="mapping", shape=shape, initializer=NearIdentity(self.seed))
        drawn = np.random.default_rng(self.seed).normal(size=(length, self.num_interests))
        self._first_logits = (drawn if self.shared else 0 * drawn).astype("float32")
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        valid = tf.cast(inputs[1], tf.bool)
        if self.dynamic_k:
            is_interest = has_interests(valid, self.num_interests)
        else:
            is_interest = tf.ones([tf.shape(valid)[0], self.num_interests], tf.bool)
        return self._routed(tf.cast(inputs[0], tf.float32), valid, is_interest)

    def _routed(self, rows: tf.Tensor, valid: tf.Tensor, is_interest: tf.Tensor) -> tf.Tensor:
        predicted = self._predictions(rows)
        logits = tf.zeros_like(rows[:, tf.newaxis, :, 0]) + self._first_logits.T  # (B, K, T)
        for place in range(self.rounds):
            is_last = place == self.rounds - 1
            of_round = predicted if is_last else tf.stop_gradient(predicted)
            coupling = tf.nn.softmax(tf.where(is_interest[:, :, tf.newaxis], logits, _MASKED), axis=1)
            counts = tf.cast(valid, tf.float32)
            if is_last and self.recency_decay:
                counts *= _recency(valid, self.recency_decay)
            coupling *= counts[:, tf.newaxis]
            interests = _squashed(self._with(coupling, of_round))
            if not is_last:
                logits += self.scale * self._with(interests, of_round, transpose_b=True)
        interests = tf.where(is_interest[:, :, tf.newaxis], interests, interests[:, :1])
        return tf.cast(interests, compute_dtype(self))

    def _predictions(self, rows: tf.Tensor) -> tf.Tensor:
        """(B, T, D) for all interests, or (B, K, T, D).

        As products of matrices laid out for the rounds: ``tf.einsum`` takes twice as long, most of it for transposing.
        """
        mapping, (length, width), dim = tf.cast(self.mapping, tf.float32), rows.shape[1:], self.mapping.shape[-1]
        if self.shared:
            return tf.reshape(tf.matmul(tf.reshape(rows, [-1, width]), mapping), [-1, length, dim])
        joined = tf.reshape(tf.transpose(mapping, [0, 2, 1, 3]), [length, width, self.num_interests * dim])
        by_position = tf.matmul(tf.transpose(rows, [1, 0, 2]), joined)  # (T, B, K D)
        return tf.transpose(tf.reshape(by_position, [length, -1, self.num_interests, dim]), [1, 2, 0, 3])

    def _with(self, values: tf.Tensor, predicted: tf.Tensor, transpose_b: bool = False) -> tf.Tensor:
        """The product of each interest's values (B, K, n) and its predictions."""
        if self.shared:
            return tf.matmul(values, predicted, transpose_b=transpose_b)
        return tf.squeeze(tf.matmul(values[:, :, tf.newaxis], predicted, transpose_b=transpose_b), axis=2)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0][0], self.num_interests, input_shape[0][-1])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_interests": self.num_interests,
            "rounds": self.rounds,
            "shared": self.shared,
            "dynamic_k": self.dynamic_k,
            "seed": self.seed,
            "scale": self.scale,
            "recency_decay": self.recency_decay,
        }


@register
class NearIdentity(keras.initializers.Initializer):
    """Matrices (..., D, D): the identity plus a tenth of Glorot's uniform distribution.

    Predictions then start near the rows that they are computed from. A random matrix would rotate all rows, and every
    item would have to be learnt through that rotation. Without the noise, equal matrices would make K equal interests.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
        limit = 0.1 * float(np.sqrt(3 / shape[-1]))
        noise = keras.initializers.RandomUniform(-limit, limit, seed=self.seed)(shape, dtype)
        return noise + tf.eye(shape[-1], dtype=noise.dtype)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


def has_interests(valid: tf.Tensor, num_interests: int) -> tf.Tensor:
    """Which of the K interests a user with n valid items has, (B, K): the first ``max(1, min(K, log2(n)))``."""
    items = tf.reduce_sum(tf.cast(valid, tf.float64), axis=1)
    number = tf.cast(tf.floor(tf.math.log(tf.maximum(items, 1.0)) / np.log(2) + 1e-9), tf.int32)
    return tf.sequence_mask(tf.clip_by_value(number, 1, num_interests), num_interests)


@register
class RepeatFirstInterest(keras.layers.Layer):
    """Replaces the interests that a history of n items does not have with the user's first interest.

    `DynamicRouting` does so, too, but later layers, such as dropout, may make the repeated interests differ.

    Input: ``[interests (B, K, D), valid (B, T)]``. Output: (B, K, D), in which all interests after the first
    ``max(1, min(K, log2(n)))`` repeat the first one; and this number, (B, 1) int32.

    Example:
        >>> interests, valid = tf.constant([[[1.0], [2.0], [3.0]]]), tf.constant([[True, True, True, True, False]])
        >>> [part.numpy().ravel().tolist() for part in RepeatFirstInterest()([interests, valid])]
        [[1.0, 2.0, 1.0], [2]]
    """

    def call(self, inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        interests, valid = inputs
        is_one = has_interests(valid, interests.shape[1])
        number = tf.reduce_sum(tf.cast(is_one, tf.int32), axis=1, keepdims=True)
        return tf.where(is_one[:, :, tf.newaxis], interests, interests[:, :1]), number


def _recency(valid: tf.Tensor, decay: float) -> tf.Tensor:
    """The weight of each position by its rank among the valid ones, (B, T)."""
    return recency_weights(tf.cumsum(tf.cast(valid, tf.int32), axis=1, exclusive=True), decay)


def _squashed(vectors: tf.Tensor) -> tf.Tensor:
    """Vectors scaled to length |z|^2 / (1 + |z|^2); zeros stay zeros, with a finite gradient."""
    squared = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    return vectors * squared / (1 + squared) * tf.math.rsqrt(squared + 1e-9)


@register
class LabelAwareAttention(keras.layers.Layer):
    """The sum of the interests, weighted by similarity to the positive: ``softmax(p u_k . i)`` over the interests.

    MIND's read-out in training (Li et al., CIKM 2019, section 4.3), with the power inside the softmax, where it can
    neither overflow nor change a sign. Interests that repeat the first count once.

    Args:
        p: 0 weights all interests equally; the larger p is, the closer the result is to `NearestInterest`. ``inf`` is
            that limit: only the nearest interest counts, and of several equally near ones, the first.
        pow_p, k_max: DeepMatch's arguments: ``LabelAwareAttention(k_max, pow_p)`` uses ``pow_p`` as ``p``.

    Input: ``[interests (B, K, D), positives (B, D) or (B, 1, D)]``, and optionally a third input, the number of
    interests that each user has, (B, 1). Output: (B, D) float32.

    Example:
        >>> interests = tf.constant([[[1.0, 0.0], [0.0, 1.0]]])
        >>> LabelAwareAttention(p=0.0)([interests, tf.constant([[0.6, 0.8]])]).numpy()
        array([[0.5, 0.5]], dtype=float32)
    """

    def __init__(self, p: float = 1.0, pow_p: float | None = None, k_max: int | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if k_max is not None or pow_p is not None:  # as a positional argument, DeepMatch's `k_max` arrives as `p`
            positive_int("`k_max`", p if k_max is None else k_max)
            p = 1.0 if pow_p is None else attention_power("`pow_p`", pow_p)
        self.p = attention_power("`p`", p)

    def call(self, inputs: Any) -> tf.Tensor:
        interests, positives, *number = inputs
        interests = tf.cast(interests, tf.float32)
        positives = tf.reshape(tf.cast(positives, tf.float32), [-1, interests.shape[2]])
        products = tf.einsum("bkd,bd->bk", interests, positives)
        surplus = tf.reduce_all(tf.equal(interests[:, 1:], interests[:, :1]), axis=2)
        surplus = tf.pad(surplus, [[0, 0], [1, 0]])
        if number:
            surplus |= ~tf.sequence_mask(tf.reshape(number[0], [-1]), interests.shape[1])
        products = products if self.p >= 0 else -products
        # Subtracting a constant does not change a softmax, and differences from the largest never overflow.
        products -= tf.stop_gradient(
            tf.reduce_max(tf.where(surplus, products.dtype.min, products), axis=1, keepdims=True)
        )
        if self.p == float("inf"):
            nearest = tf.argmax(tf.where(surplus, products.dtype.min, products), axis=1)
            return tf.gather(interests, nearest, axis=1, batch_dims=1)
        logits = tf.where(surplus, _MASKED, abs(self.p) * products)
        weights = tf.exp(logits)  # the largest is 1
        # `tf.nn.softmax` may round a weight of 1 down, an error that `p` would multiply in the gradient.
        weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
        return weighted_sum(interests, weights)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[1][0], input_shape[0][-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "p": self.p}


def attention_power(what: str, p: Any) -> float:
    """``p`` as a number that float32 holds, or infinity."""
    if isinstance(p, float | np.floating) and p == float("inf"):
        return float("inf")
    number = finite_number(what, p, "float('inf') takes the nearest interest alone.")
    largest = float(np.finfo("float32").max)
    if abs(number) > largest:
        raise problem(what, f"be at most {largest:.3g} in size, or infinity", shown(p), "Infinity is the limit.")
    return number


@register
class NearestInterest(keras.layers.Layer):
    """Each user's interest with the highest inner product with the positive; the others get no gradient.

    ComiRec's read-out in training (Cen et al., KDD 2020, equation 7).

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
    """The first B rows of the second tensor, where B is the batch size of the first: positives precede candidates.

    Input: ``[anything (B, ...), vectors (B + S, D)]``. Output: (B, D).

    Example:
        >>> FirstRows()([tf.zeros([1, 3]), tf.constant([[1.0], [2.0]])]).numpy()
        array([[1.]], dtype=float32)
    """

    def call(self, inputs: Any) -> tf.Tensor:
        of, vectors = inputs
        return vectors[: tf.shape(of)[0]]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0][0], input_shape[1][-1])
