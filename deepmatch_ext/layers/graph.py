"""Sessions as graphs of their items: SR-GNN (Wu et al., "Session-based Recommendation with GNNs", AAAI 2019).

B sessions, T clicks (most recent first), D size of the vectors.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import int_at_least, positive_int
from deepmatch_ext._keras import compute_dtype, keras, register


def session_graph(ids: tf.Tensor, valid: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The graph of each session, whose nodes are its items and whose edges lead from each click's item to the next.

    A node is stored at the position of its item's most recent click. The other positions are nodes without edges. Both
    matrices take B T^2 numbers, whatever the sessions' real lengths.

    Args:
        ids: (B, T) integers, most recent first.
        valid: (B, T) booleans, which positions hold a click. Valid ones come first.

    Returns:
        node: (B, T) int32, the position of each click's node.
        incoming: (B, T, T) float32: row v has equal weights for the nodes with an edge to v. They sum to 1, or are 0 if
            there are none.
        outgoing: (B, T, T) float32: row v has the weights of the nodes to which v has an edge.

    Example:
        >>> clicks = tf.constant([[4, 2, 3, 2, 1]])  # the session 1, 2, 3, 2, 4
        >>> node, incoming, outgoing = session_graph(clicks, tf.ones_like(clicks, tf.bool))
        >>> node.numpy(), outgoing.numpy()[0, 1]  # from item 2, at position 1, to item 4 and to item 3
        (array([[0, 1, 2, 1, 4]], dtype=int32), array([0.5, 0. , 0.5, 0. , 0. ], dtype=float32))
    """
    same = tf.equal(ids[:, :, tf.newaxis], ids[:, tf.newaxis, :]) & valid[:, tf.newaxis, :]
    # The first position with the same id. ONNX's ArgMax takes only numbers.
    node = tf.argmax(tf.cast(same, tf.int32), axis=2, output_type=tf.int32)
    batch, length = tf.shape(ids)[0], tf.shape(ids)[1]
    # Position t + 1 holds the click before that of position t.
    session = tf.repeat(tf.range(batch)[:, tf.newaxis], length - 1, axis=1)
    edges = tf.stack([session, node[:, 1:], node[:, :-1]], axis=2)
    number = tf.scatter_nd(edges, tf.cast(valid[:, 1:], tf.float32), tf.stack([batch, length, length]))
    follows = tf.minimum(number, 1.0)  # an edge that occurs twice counts once
    outgoing = tf.math.divide_no_nan(follows, tf.reduce_sum(follows, axis=2, keepdims=True))
    incoming = tf.math.divide_no_nan(follows, tf.reduce_sum(follows, axis=1, keepdims=True))
    return node, tf.transpose(incoming, [0, 2, 1]), outgoing


@register
class GatedSessionGraph(keras.layers.Layer):
    """The state of each click's item after messages from its neighbours in the session's graph.

    With H the states of the nodes, initially their rows, a propagation (equations 1 to 5 of the paper) is::

        a = [A_in (H W_in + b_in) ; A_out (H W_out + b_out)]
        z = sigmoid(a W_z + H U_z)
        r = sigmoid(a W_r + H U_r)
        H <- (1 - z) * H + z * tanh(a W_o + (r * H) U_o)

    `session_graph` builds the matrices A_in and A_out in TensorFlow. They take B T^2 numbers, so cut
    sessions to the last 20 to 50 clicks. A propagation computes only the N nodes and the E edges between them, with
    11 N D^2 + 2 E D multiplications. The node of an item that is clicked several times has the row of its most recent
    click.

    Args:
        steps: The number of propagations.
        seed: Seed of the initial weights.

    Input: ``[rows (B, T, D), valid (B, T), ids (B, T)]``. Output: (B, T, D), in the layer's compute dtype, zeros where
    not valid.

    Example:
        >>> clicks = tf.constant([[4, 2, 3, 2, 1], [5, 0, 0, 0, 0]])
        >>> GatedSessionGraph()([tf.random.normal([2, 5, 8]), clicks > 0, clicks]).shape
        TensorShape([2, 5, 8])
    """

    def __init__(self, steps: int = 1, seed: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_jit = False  # how many clicks there are is not known beforehand
        self.steps = positive_int("`steps`", steps)
        self.seed = int_at_least("`seed`", seed, 0)

    def build(self, input_shape: Any) -> None:
        dim = input_shape[0][-1]
        shapes = {"message": (dim, 2 * dim), "gates": (2 * dim, 3 * dim), "recurrent": (dim, 3 * dim)}
        for place, (name, shape) in enumerate(shapes.items()):
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer=_start(dim, self.seed + place)))
        self.bias = self.add_weight(name="bias", shape=(2 * dim,), initializer="zeros")
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        rows, valid, ids = tf.cast(inputs[0], tf.float32), tf.cast(inputs[1], tf.bool), inputs[2]
        dim = rows.shape[-1]
        message, gates, recurrent, bias = (
            tf.cast(weight, tf.float32) for weight in (self.message, self.gates, self.recurrent, self.bias)
        )
        of_gates, of_state = tf.split(recurrent, [2 * dim, dim], axis=1)
        node, incoming, outgoing = session_graph(ids, valid)
        # Multiplies only for the N nodes and along the E edges: most positions of most sessions are padding.
        is_node = valid & tf.equal(node, tf.range(tf.shape(node)[1]))
        places, edges = tf.where(is_node), tf.where(outgoing > 0)
        number = tf.reshape(tf.cumsum(tf.cast(tf.reshape(is_node, [-1]), tf.int32)) - 1, tf.shape(node))
        source, target = (tf.gather_nd(number, tf.gather(edges, [0, end], axis=1)) for end in (1, 2))
        of_target = tf.gather_nd(incoming, tf.gather(edges, [0, 2, 1], axis=1))[:, tf.newaxis]
        of_source = tf.gather_nd(outgoing, edges)[:, tf.newaxis]
        states = tf.gather_nd(rows, places)  # (N, D)
        for _ in range(self.steps):
            to_next, to_previous = tf.split(tf.matmul(states, message) + bias, 2, axis=1)
            heard = [
                tf.math.unsorted_segment_sum(weight * tf.gather(said, by), to, tf.shape(states)[0])
                for weight, said, by, to in (
                    (of_target, to_next, source, target),
                    (of_source, to_previous, target, source),
                )
            ]
            update, reset, new = tf.split(tf.matmul(tf.concat(heard, axis=1), gates), 3, axis=1)
            of_update, of_reset = tf.split(tf.matmul(states, of_gates), 2, axis=1)
            update, reset = tf.sigmoid(update + of_update), tf.sigmoid(reset + of_reset)
            states += update * (tf.tanh(new + tf.matmul(reset * states, of_state)) - states)
        position = tf.maximum(tf.gather(number, node, axis=1, batch_dims=1), 0)
        of_clicks = tf.gather(tf.pad(states, [[0, 1], [0, 0]]), position)  # a batch may have no clicks
        return tf.cast(tf.where(valid[:, :, tf.newaxis], of_clicks, 0.0), compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "steps": self.steps, "seed": self.seed}


@register
class SessionReadout(keras.layers.Layer):
    """A session's overall and current interest: a weighted sum of its clicks' states, and the last click's state.

    The weights are ``q . sigmoid(W1 h_last + W2 h_i + c)`` (equation 6 of the paper), without a softmax: a longer
    session has a longer sum. An empty session gives zeros.

    Args:
        seed: Seed of the initial weights.

    Input: ``[states (B, T, D), valid (B, T)]``, most recent first. Output: (B, D) the sum, and (B, D) the last state,
    in the layer's compute dtype.

    Example:
        >>> states, valid = tf.random.normal([2, 5, 8]), tf.constant([[True] * 5, [True] + [False] * 4])
        >>> [tuple(part.shape) for part in SessionReadout()([states, valid])]
        [(2, 8), (2, 8)]
    """

    def __init__(self, seed: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_jit = False
        self.seed = int_at_least("`seed`", seed, 0)

    def build(self, input_shape: Any) -> None:
        dim = input_shape[0][-1]
        shapes = {"of_last": (dim, dim), "of_each": (dim, dim), "weigh": (dim,)}
        for place, (name, shape) in enumerate(shapes.items()):
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer=_start(dim, self.seed + place)))
        self.bias = self.add_weight(name="bias", shape=(dim,), initializer="zeros")
        self.built = True

    def call(self, inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        states, valid = tf.cast(inputs[0], tf.float32), tf.cast(inputs[1], tf.bool)
        of_last, of_each, weigh, bias = (
            tf.cast(weight, tf.float32) for weight in (self.of_last, self.of_each, self.weigh, self.bias)
        )
        last = tf.where(valid[:, :1], states[:, 0], 0.0)
        clicks = tf.where(valid)
        each, session = tf.gather_nd(states, clicks), clicks[:, 0]
        hidden = tf.sigmoid(tf.gather(tf.matmul(last, of_last) + bias, session) + tf.matmul(each, of_each))
        weighted = tf.linalg.matvec(hidden, weigh)[:, tf.newaxis] * each
        total = tf.math.unsorted_segment_sum(weighted, session, tf.shape(states)[0])
        return tf.cast(total, compute_dtype(self)), tf.cast(last, compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, _, dim = input_shape[0]
        return (batch, dim), (batch, dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


def _start(dim: int, seed: int) -> Any:
    """Uniform within 1 / sqrt(D), as the authors' code initialises all weights."""
    return keras.initializers.RandomUniform(-(dim**-0.5), dim**-0.5, seed=seed)
