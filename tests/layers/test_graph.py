"""Sessions as graphs: matrices by hand, cell and read-out against NumPy in float64, and what padding may change."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext._keras import keras
from deepmatch_ext.layers import GatedSessionGraph, SessionReadout
from deepmatch_ext.layers.graph import session_graph

DIM = 3


def padded(sessions, length):
    """Sessions, oldest first, as ids (B, T), most recent first."""
    return np.array([[*session[::-1], *[0] * (length - len(session))] for session in sessions], np.int32)


def graph_of(session):
    """The nodes of a session, oldest first, and its incoming and outgoing matrices: a loop, by the paper."""
    nodes = list(dict.fromkeys(session))
    edges = np.zeros((len(nodes), len(nodes)))
    for before, after in itertools.pairwise(session):
        edges[nodes.index(before), nodes.index(after)] = 1
    incoming, outgoing = np.zeros_like(edges), np.zeros_like(edges)
    for v in range(len(nodes)):
        if edges[:, v].sum():
            incoming[v] = edges[:, v] / edges[:, v].sum()
        if edges[v].sum():
            outgoing[v] = edges[v] / edges[v].sum()
    return nodes, incoming, outgoing


def test_the_graph_of_the_papers_session():
    # v1 -> v2 -> v3 -> v2 -> v4, most recent first; the paper's connection matrices (its figure 2) have, for v2, 1/2 to
    # v3 and v4, and 1/2 from v1 and v3. v2 lives at position 1, v1 at 4, v3 at 2, v4 at 0; position 3 is v2 again.
    node, incoming, outgoing = session_graph(tf.constant([[4, 2, 3, 2, 1, 0]]), tf.constant([[True] * 5 + [False]]))
    assert node.numpy()[0, :5].tolist() == [0, 1, 2, 1, 4]
    v4, v2, v3, v1 = 0, 1, 2, 4
    expected_in, expected_out = np.zeros((6, 6)), np.zeros((6, 6))
    expected_out[v1, v2] = expected_out[v3, v2] = 1
    expected_out[v2, v3] = expected_out[v2, v4] = 0.5
    expected_in[v2, v1] = expected_in[v2, v3] = 0.5
    expected_in[v3, v2] = expected_in[v4, v2] = 1
    np.testing.assert_array_equal(incoming[0], expected_in)
    np.testing.assert_array_equal(outgoing[0], expected_out)


@given(st.lists(st.lists(st.integers(1, 4), max_size=6), min_size=1, max_size=4))
def test_graphs_against_a_slow_loop(sessions):
    ids = padded(sessions, 7)
    node, incoming, outgoing = (tensor.numpy() for tensor in session_graph(tf.constant(ids), tf.constant(ids > 0)))
    for k, session in enumerate(sessions):
        nodes, *expected = graph_of(session)
        places = [ids[k].tolist().index(item) for item in nodes]
        assert node[k, : len(session)].tolist() == [ids[k].tolist().index(item) for item in session[::-1]]
        for found, wanted in zip((incoming[k], outgoing[k]), expected, strict=True):
            np.testing.assert_allclose(found[np.ix_(places, places)], wanted, atol=1e-6)
            assert found.sum() == pytest.approx(wanted.sum(), abs=1e-5)  # and nothing elsewhere


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def slow_cell(session, rows, weights, steps):
    """States of the clicks of one session, oldest first; ``rows`` by item, weights in float64."""
    message, gates, recurrent, bias = weights
    nodes, incoming, outgoing = graph_of(session)
    h = np.array([rows[item] for item in nodes])
    for _ in range(steps):
        to_next = h @ message[:, :DIM] + bias[:DIM]
        to_previous = h @ message[:, DIM:] + bias[DIM:]
        a = np.concatenate([incoming @ to_next, outgoing @ to_previous], axis=1)
        z = sigmoid(a @ gates[:, :DIM] + h @ recurrent[:, :DIM])
        r = sigmoid(a @ gates[:, DIM : 2 * DIM] + h @ recurrent[:, DIM : 2 * DIM])
        new = np.tanh(a @ gates[:, 2 * DIM :] + (r * h) @ recurrent[:, 2 * DIM :])
        h = (1 - z) * h + z * new
    return np.array([h[nodes.index(item)] for item in session])


def slow_readout(states, weights):
    of_last, of_each, weigh, bias = weights
    alpha = [weigh @ sigmoid(states[-1] @ of_last + h @ of_each + bias) for h in states]
    return sum(a * h for a, h in zip(alpha, states, strict=True)), states[-1]


def randomised(layer, inputs):
    """The layer with weights that are not its initial ones, biases included; and these in float64."""
    layer(inputs)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=weight.shape) for weight in layer.get_weights()])
    return [weight.astype("float64") for weight in layer.get_weights()]


SESSIONS = [[1, 2, 3, 2, 4], [5], [3, 3, 1], [2, 1, 2, 1, 2]]
TABLE = np.random.default_rng(0).normal(size=(6, DIM)).astype("float32")


@pytest.mark.parametrize("steps", [1, 3])
def test_the_cell_and_its_gradient(steps):
    ids = padded(SESSIONS, 6)
    rows, layer = tf.Variable(TABLE[ids]), GatedSessionGraph(steps=steps)
    weights = randomised(layer, [rows, ids > 0, ids])
    names = [weight.name.split("/")[-1].partition(":")[0] for weight in layer.weights]
    weights = [weights[names.index(name)] for name in ("message", "gates", "recurrent", "bias")]
    towards = np.random.default_rng(2).normal(size=(*ids.shape, DIM))

    def slow(table):
        states = np.zeros((*ids.shape, DIM))
        for k, session in enumerate(SESSIONS):
            states[k, : len(session)] = slow_cell(session, table, weights, steps)[::-1]
        return states

    with tf.GradientTape() as tape:
        states = layer([rows, tf.constant(ids > 0), tf.constant(ids)])
        total = tf.reduce_sum(states * towards.astype("float32"))
    table = TABLE.astype("float64")
    np.testing.assert_allclose(states, slow(table), atol=1e-5)

    # The derivative by item 2's row, by central differences in float64; it stands at several positions.
    gradient = tape.gradient(total, rows).numpy()[ids == 2].sum(axis=0)
    for d in range(DIM):
        step = np.zeros_like(table)
        step[2, d] = 1e-6
        numeric = ((slow(table + step) - slow(table - step)) * towards).sum() / 2e-6
        assert gradient[d] == pytest.approx(numeric, rel=1e-3, abs=1e-4)


def test_the_readout_and_its_gradient():
    ids = padded([*SESSIONS, []], 6)
    states, layer = tf.Variable(TABLE[ids]), SessionReadout()
    weights = randomised(layer, [states, ids > 0])
    names = [weight.name.split("/")[-1].partition(":")[0] for weight in layer.weights]
    weights = [weights[names.index(name)] for name in ("of_last", "of_each", "weigh", "bias")]
    with tf.GradientTape() as tape:
        whole, last = layer([states, tf.constant(ids > 0)])
        total = tf.reduce_sum(whole[0] * [1.0, 2.0, 3.0])
    for k, session in enumerate(SESSIONS):
        expected = slow_readout(TABLE[session].astype("float64"), weights)
        np.testing.assert_allclose(whole[k], expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(last[k], expected[1], atol=1e-6)
    assert not whole[4].numpy().any()  # an empty session
    assert not last[4].numpy().any()

    gradient = tape.gradient(total, states).numpy()[0]
    for t, d in [(0, 0), (2, 1), (4, 2)]:  # the last click, one amid, the first
        moved = [TABLE[SESSIONS[0]].astype("float64") for _ in range(2)]
        for values, step in zip(moved, (1e-6, -1e-6), strict=True):
            values[4 - t, d] += step
        up, down = (slow_readout(values, weights)[0] @ [1, 2, 3] for values in moved)
        assert gradient[t, d] == pytest.approx((up - down) / 2e-6, rel=1e-3)


def test_padding_changes_nothing():
    short, long = padded(SESSIONS, 5), padded(SESSIONS, 9)
    rows = [np.where((ids > 0)[..., np.newaxis], TABLE[ids], np.nan) for ids in (short, long)]  # a NaN even
    graph, readout = GatedSessionGraph(steps=2), SessionReadout()
    states = [graph([r, ids > 0, ids]) for r, ids in zip(rows, (short, long), strict=True)]
    np.testing.assert_allclose(states[0], states[1][:, :5], atol=1e-6)
    assert not states[1][:, 5:].numpy().any()
    for one, other in zip(readout([states[0], short > 0]), readout([states[1], long > 0]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    alone = graph([rows[0][1:2], short[1:2] > 0, short[1:2]])  # a session of one click, by itself
    np.testing.assert_allclose(alone, states[0][1:2], atol=1e-6)


def test_a_session_of_one_click_has_no_neighbours():
    graph = GatedSessionGraph()
    inputs = [TABLE[[[5, 0]]], np.array([[True, False]]), np.array([[5, 0]])]
    weights = randomised(graph, inputs)
    names = [weight.name.split("/")[-1].partition(":")[0] for weight in graph.weights]
    recurrent, h = weights[names.index("recurrent")], TABLE[5].astype("float64")
    z, r = sigmoid(h @ recurrent[:, :DIM]), sigmoid(h @ recurrent[:, DIM : 2 * DIM])
    expected = (1 - z) * h + z * np.tanh((r * h) @ recurrent[:, 2 * DIM :])
    np.testing.assert_allclose(graph(inputs)[0, 0], expected, atol=1e-6)


@pytest.mark.slow
def test_in_a_function_and_an_export(tmp_path):
    class Both(tf.Module):
        def __init__(self):
            super().__init__()
            self.graph, self.readout = GatedSessionGraph(steps=2), SessionReadout()

        @tf.function(input_signature=[tf.TensorSpec([None, 6, DIM]), tf.TensorSpec([None, 6], tf.int32)])
        def __call__(self, rows, ids):
            return self.readout([self.graph([rows, ids > 0, ids]), ids > 0])

    ids, both = padded(SESSIONS, 6), Both()
    eager = both.readout([both.graph([TABLE[ids], ids > 0, ids]), ids > 0])
    tf.saved_model.save(both, str(tmp_path / "export"))
    for call in (both, tf.saved_model.load(str(tmp_path / "export"))):
        for one, other in zip(call(TABLE[ids], ids), eager, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("layer", [GatedSessionGraph(steps=2, seed=3), SessionReadout(seed=3)])
def test_layers_reload_from_their_config(layer):
    ids = padded(SESSIONS, 6)
    inputs = [TABLE[ids], ids > 0, ids][: 3 if isinstance(layer, GatedSessionGraph) else 2]
    before = layer(inputs)
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()
    for one, other in zip(tf.nest.flatten(again(inputs)), tf.nest.flatten(before), strict=True):
        np.testing.assert_array_equal(one, other)  # the seed decides the weights


@pytest.mark.parametrize(("options", "message"), [({"steps": 0}, "`steps`"), ({"seed": -1}, "`seed`")])
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GatedSessionGraph(**options)
