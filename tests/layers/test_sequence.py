import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.layers import HSTUBlock, PooledStates, SequenceMaskPooling, TransformerBlock
from deepmatch_ext.layers.sequence import CausalBlock

BATCH, LENGTH, DIM, HEADS = 3, 5, 8, 2
LENGTHS = np.array([5, 3, 1])


def made(kind, rng, buckets=()):
    """A block whose weights are random, all of them; with a shape of buckets, one that reads them."""
    blocks = {
        "sasrec": lambda: TransformerBlock(LENGTH, HEADS),
        "ligr": lambda: TransformerBlock(LENGTH, HEADS, gated=True),
        "hstu": lambda: HSTUBlock(LENGTH, HEADS),
    }
    block = blocks[kind]()
    block.build([(None, LENGTH, DIM), (None, LENGTH), *buckets])
    for weight in block.trainable_variables:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return block


def inputs(rng):
    valid = np.arange(LENGTH) < LENGTHS[:, np.newaxis]
    return rng.normal(size=(BATCH, LENGTH, DIM)).astype("float32"), valid


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normalised(x, weights):
    scale, shift = (np.asarray(weight, "float64") for weight in weights)
    return (x - x.mean()) / np.sqrt(x.var() + 1e-6) * scale + shift


def by_hand(kind, block, history, buckets=None):
    """The states of one history (n, d), position by position and head by head, in float64."""
    w = {name: np.asarray(value, "float64") for name, value in vars(block).items() if hasattr(value, "assign")}
    width, found = DIM // HEADS, []
    for k in range(len(history)):
        behind = range(k, len(history))
        heads = []
        if kind == "hstu":
            projected = {j: normalised(history[j], block.before) @ w["projections"] for j in behind}
            parts = {j: np.split(x * sigmoid(x), 4) for j, x in projected.items()}  # gate, value, query, key
        else:
            parts = {j: np.split(normalised(history[j], block.before_attention) @ w["projections"], 3) for j in behind}
        for head in range(HEADS):
            own = slice(head * width, (head + 1) * width)
            value, query, key = (1, 2, 3) if kind == "hstu" else (2, 0, 1)
            dots = np.array([parts[k][query][own] @ parts[j][key][own] for j in behind])
            lag = w["by_lag"][head, : len(dots)]
            if buckets is not None:
                lag = lag + [w["by_time"][head, buckets[k, j]] for j in behind]
            if kind == "hstu":
                weights = (dots + lag) * sigmoid(dots + lag) / LENGTH
            else:
                weights = np.exp(dots / np.sqrt(width) + lag)
                weights /= weights.sum()
            heads.append(sum(weight * parts[j][value][own] for weight, j in zip(weights, behind, strict=True)))
        heard = np.concatenate(heads)
        if kind == "hstu":
            found.append(history[k] + (normalised(heard, block.behind) * parts[k][0]) @ w["outer"])
            continue
        gates = [np.asarray(gate, "float64") for gate in block.gates] if kind == "ligr" else None
        added = heard @ w["heads_kernel"]
        state = history[k] + (added * sigmoid(history[k] @ gates[0]) if gates else added)
        inner = normalised(state, block.before_dense) @ w["inner"]
        if gates:
            gate, inner = np.split(inner, 2)
            inner = gate * sigmoid(gate) * inner
        else:
            inner = np.maximum(inner, 0)
        added = inner @ w["outer"]
        found.append(state + (added * sigmoid(state @ gates[1]) if gates else added))
    return np.array(found)


@pytest.mark.parametrize("kind", ["sasrec", "ligr", "hstu"])
def test_a_block_is_its_formula(kind):
    rng = np.random.default_rng(0)
    block, (states, valid) = made(kind, rng), inputs(rng)
    found = block([states, valid]).numpy()
    for row, length in enumerate(LENGTHS):
        expected = by_hand(kind, block, states[row, :length].astype("float64"))
        np.testing.assert_allclose(found[row, :length], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sasrec", "ligr", "hstu"])
def test_a_block_adds_what_it_learnt_of_the_time_between_positions(kind):
    rng = np.random.default_rng(3)
    block, (states, valid) = made(kind, rng, [(None, LENGTH, LENGTH)]), inputs(rng)
    buckets = rng.integers(0, 64, (BATCH, LENGTH, LENGTH)).astype("int32")
    found = block([states, valid, buckets]).numpy()
    for row, length in enumerate(LENGTHS):
        expected = by_hand(kind, block, states[row, :length].astype("float64"), buckets[row])
        np.testing.assert_allclose(found[row, :length], expected, rtol=1e-4, atol=1e-5)


class Cheat(CausalBlock):
    """Reads all positions."""

    def _build(self, dim):
        pass

    def _states(self, states, valid, bias, training):
        return states + tf.reduce_mean(states, axis=1, keepdims=True)


def leaks(layer, states, valid, k):
    """Whether the layer's output at position k or behind it changes with what stands in front of k."""
    other = states.copy()
    other[:, :k] = np.random.default_rng(1).normal(size=other[:, :k].shape)
    before, after = (layer([each, valid]).numpy()[:, k:][valid[:, k:]] for each in (states, other))
    return not np.allclose(before, after, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", range(1, LENGTH))
def test_no_state_knows_what_came_later(k):
    rng = np.random.default_rng(0)
    states, valid = inputs(rng)
    for kind in ("sasrec", "ligr", "hstu"):
        assert not leaks(made(kind, rng), states, valid, k), kind
    assert not leaks(PooledStates("mean", 0.7), states, valid, k)
    assert leaks(Cheat(LENGTH), states, valid, k)


@given(st.sampled_from(["mean", "sum", "sqrtn"]), st.floats(0, 2), st.integers(0, LENGTH - 1))
def test_a_pooled_state_is_the_pooling_of_what_is_left(mode, decay, k):
    states, valid = inputs(np.random.default_rng(2))
    found = PooledStates(mode, decay)([states, valid]).numpy()[:, k]
    expected = SequenceMaskPooling(mode, recency_decay=decay)([states[:, k:], valid[:, k:]])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@given(st.sampled_from(["mean", "sum", "sqrtn"]), st.floats(0, 2), st.integers(1, LENGTH))
def test_a_pooled_state_weights_by_what_it_learnt_of_the_time(mode, decay, positions):
    rng = np.random.default_rng(2)
    states, valid = inputs(rng)
    buckets = rng.integers(0, 64, (BATCH, positions, LENGTH)).astype("int32")
    layer = PooledStates(mode, decay)
    plain = PooledStates(mode, decay)([states, valid]).numpy()[:, :positions]
    np.testing.assert_allclose(layer([states, valid, buckets]), plain, rtol=1e-5, atol=1e-6)  # before it has learnt
    layer.log_by_time.assign(rng.normal(size=(1, 64)))
    found, factors = layer([states, valid, buckets]).numpy(), np.exp(layer.log_by_time.numpy()[0].astype("float64"))
    assert found.shape == (BATCH, positions, DIM)
    for row, length in enumerate(LENGTHS):
        for k in range(min(positions, length)):
            weights = np.array([(j - k + 1) ** -decay * factors[buckets[row, k, j]] for j in range(k, length)])
            total = weights @ states[row, k:length]
            norms = {"mean": weights.sum(), "sum": 1.0, "sqrtn": np.sqrt((weights**2).sum())}
            np.testing.assert_allclose(found[row, k], total / norms[mode], rtol=1e-4, atol=1e-5)


def test_dropout_falls_on_training_alone_and_repeats():
    rng = np.random.default_rng(0)
    states, valid = inputs(rng)
    block = TransformerBlock(LENGTH, HEADS, rate=0.5)
    whole = block([states, valid]).numpy()
    for training in (False, tf.constant(False)):
        np.testing.assert_array_equal(block([states, valid], training=training), whole)
    first = block([states, valid], training=True).numpy()
    assert not np.allclose(first, whole)
    again = TransformerBlock.from_config(block.get_config())
    again.build([states.shape, valid.shape])
    again.set_weights([np.zeros_like(w) if w.shape == () else w for w in block.get_weights()])
    np.testing.assert_array_equal(again([states, valid], training=True), first)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`num_heads`"):
        TransformerBlock(LENGTH, 3)([np.zeros((1, LENGTH, DIM), "float32"), np.ones((1, LENGTH), bool)])
    with pytest.raises(ValueError, match="`mode`"):
        PooledStates("max")
