"""The layers of several interests, against their formulas in float64, one row and one position after another."""

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext._keras import keras
from deepmatch_ext.layers import (
    DynamicRouting,
    FirstRows,
    LabelAwareAttention,
    NearestInterest,
    RepeatFirstInterest,
    SelfAttentiveInterests,
)

B, T, K, D = 4, 6, 3, 5
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(B, T, D)).astype("float32")
NUMBER = [6, 3, 1, 0]
VALID = np.arange(T) < np.array(NUMBER)[:, None]
# Padding may stand anywhere, and what stands there is nobody's.
VALID[1] = [False, True, True, False, True, False]
ROWS[~VALID] = 7e3


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def weights_of(layer):
    return [np.asarray(weight, "float64") for weight in layer.get_weights()]


@pytest.mark.parametrize(("add_pos", "decay"), [(True, 0.0), (False, 0.0), (True, 0.7)])
def test_self_attentive_interests(add_pos, decay):
    layer = SelfAttentiveInterests(K, add_pos, seed=3, recency_decay=decay)
    found = layer([ROWS, VALID]).numpy()
    position, hidden, attention = weights_of(layer) if add_pos else [np.zeros((T, D)), *weights_of(layer)]
    assert hidden.shape == (D, 4 * D)
    for b in range(B):
        at = np.flatnonzero(VALID[b])
        if not len(at):
            np.testing.assert_array_equal(found[b], 0)
            continue
        rows = ROWS[b, at].astype("float64")
        a = softmax(np.tanh((rows + position[at]) @ hidden) @ attention, axis=0)  # (n, K)
        a *= (1 + np.arange(len(at))[:, np.newaxis]) ** -decay
        a /= a.sum(axis=0)
        np.testing.assert_allclose(found[b], a.T @ rows, atol=1e-5)


def squash(z):
    squared = (z**2).sum(-1, keepdims=True)
    return squared / (1 + squared) * z / np.sqrt(squared)


@pytest.mark.parametrize(
    ("rounds", "scale", "decay"), [(1, 5.0, 0.0), (2, 5.0, 0.0), (3, 1.0, 0.0), (3, 5.0, 0.0), (3, 5.0, 0.7)]
)
@pytest.mark.parametrize("shared", [True, False])
def test_dynamic_routing(shared, rounds, scale, decay):
    layer = DynamicRouting(K, rounds, shared, seed=3, scale=scale, recency_decay=decay)
    found = layer([ROWS, VALID]).numpy()
    (mapping,) = weights_of(layer)
    assert mapping.shape == ((D, D) if shared else (T, K, D, D))
    for b in range(B):
        at = np.flatnonzero(VALID[b])
        if not len(at):
            np.testing.assert_array_equal(found[b], 0)
            continue
        predicted = np.array(
            [[ROWS[b, t].astype("float64") @ (mapping if shared else mapping[t, k]) for k in range(K)] for t in at]
        )
        logits = layer._first_logits[at].astype("float64")
        assert shared == bool(logits.any())
        for place in range(rounds):
            coupling = softmax(logits, axis=1)
            if place == rounds - 1:
                coupling *= (1 + np.arange(len(at))[:, np.newaxis]) ** -decay
            interests = squash(np.einsum("tk,tkd->kd", coupling, predicted))
            logits = logits + scale * np.einsum("tkd,kd->tk", predicted, interests)
        np.testing.assert_allclose(found[b], interests, atol=1e-4)
    np.testing.assert_array_equal(layer([ROWS, VALID]), found)


@pytest.mark.parametrize("shared", [True, False])
def test_routing_parts_a_history_of_groups_before_anything_is_learnt(shared):
    """Each interest is one group of the items, and between them they have all groups; at scale 0 all are the mean."""
    rng, groups = np.random.default_rng(0), np.eye(16)[:3]
    rows = np.repeat(groups, 4, axis=0)[rng.permutation(12)] + 0.1 * rng.normal(size=(50, 12, 16))
    rows = (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype("float32")
    valid = np.ones((50, 12), bool)
    cosines = {}
    for scale in (0.0, 20.0):
        interests = DynamicRouting(4, shared=shared, scale=scale, seed=1)([rows, valid]).numpy()
        interests /= np.linalg.norm(interests, axis=2, keepdims=True)
        cosines[scale] = np.einsum("bkd,gd->bgk", interests, groups).max(axis=2).mean()
    assert cosines[0.0] < 0.75
    assert cosines[20.0] > 0.85


def test_the_gradient_goes_through_the_last_round_alone():
    """As if the coupling of the last round were a constant."""
    layer, rows = DynamicRouting(K, 3, seed=3), tf.constant(ROWS[:1])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        total = tf.reduce_sum(layer([rows, VALID[:1]]))
    before_last = DynamicRouting(K, 2, seed=3)
    interests = before_last([rows, VALID[:1]])
    mapping = tf.constant(layer.get_weights()[0])
    predicted = tf.einsum("btd,tkde->btke", rows, mapping)
    first = DynamicRouting(K, 1, seed=3)([rows, VALID[:1]])
    logits = sum(tf.einsum("btke,bke->btk", predicted, z) for z in (first, interests))
    coupling = tf.stop_gradient(tf.nn.softmax(logits, axis=2))
    with tf.GradientTape() as expected_tape:
        expected_tape.watch(rows)
        z = tf.einsum("btk,btke->bke", coupling, tf.einsum("btd,tkde->btke", rows, mapping))
        squared = tf.reduce_sum(z**2, -1, keepdims=True)
        expected = tf.reduce_sum(squared / (1 + squared) * z / tf.sqrt(squared))
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    gradients = tape.gradient(total, rows), expected_tape.gradient(expected, rows)
    np.testing.assert_allclose(*gradients, atol=1e-4)


def test_surplus_interests_repeat_the_first():
    length = 40
    rows = RNG.normal(size=(6, length, D)).astype("float32")
    number = np.array([0, 1, 3, 4, 8, 40])  # log2: 1, 1, 1, 2, 3, 4 (of at most 4)
    found = DynamicRouting(4, shared=True, dynamic_k=True)([rows, np.arange(length) < number[:, None]]).numpy()
    assert [len(np.unique(each, axis=0)) for each in found] == [1, 1, 1, 2, 3, 4]
    for each, own in zip(found, [1, 1, 1, 2, 3, 4], strict=True):
        np.testing.assert_array_equal(each[own:], np.repeat(each[:1], 4 - own, axis=0))


def routed(rows, valid, mapping, layer, couplings=None):
    """The interests of one history in float64, and the last round's couplings; given these, they are constants."""
    predicted = np.einsum("td,de->te" if layer.shared else "td,tkde->tke", rows, mapping)
    of_each = np.broadcast_to(predicted[:, None], (T, K, D)) if layer.shared else predicted
    logits = layer._first_logits.astype("float64")
    for _ in range(layer.rounds if couplings is None else 0):
        couplings = softmax(logits, axis=1) * valid[:, None]
        interests = squash(np.einsum("tk,tkd->kd", couplings, of_each))
        logits = logits + layer.scale * np.einsum("tkd,kd->tk", of_each, interests)
    return squash(np.einsum("tk,tkd->kd", couplings, of_each)), couplings


@pytest.mark.parametrize("shared", [True, False])
def test_gradients_are_those_of_the_formula_with_the_last_couplings_held(shared):
    """Central differences in float64: of the histories' rows, and of the mapping."""
    layer, weights, step = DynamicRouting(K, 3, shared, seed=3, scale=2.0), RNG.normal(size=(3, K, D)), 1e-6
    rows = np.where(VALID, 1, 0)[:3, :, None] * ROWS[:3].astype("float64")
    watched = tf.constant(rows, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(watched)
        total = tf.reduce_sum(layer([watched, VALID[:3]]) * tf.constant(weights, tf.float32))
    of_rows, of_mapping = tape.gradient(total, [watched, layer.trainable_weights[0]])
    (mapping,) = weights_of(layer)
    held = [routed(rows[b], VALID[b], mapping, layer)[1] for b in range(3)]

    def value(rows, mapping):
        parts = [routed(rows[b], VALID[b], mapping, layer, held[b])[0] for b in range(3)]
        return (np.array(parts) * weights).sum()

    def differences(values, at):
        found = np.zeros_like(values)
        for place in np.ndindex(values.shape):
            moved = np.zeros_like(values)
            moved[place] = step
            found[place] = (at(values + moved) - at(values - moved)) / (2 * step)
        return found

    np.testing.assert_allclose(total, value(rows, mapping), atol=1e-4)
    np.testing.assert_allclose(of_rows, differences(rows, lambda rows: value(rows, mapping)), atol=2e-4)
    np.testing.assert_allclose(of_mapping, differences(mapping, lambda mapping: value(rows, mapping)), atol=2e-4)
    # Were the couplings not held, the gradient would be another.
    free = differences(
        rows, lambda rows: sum((routed(rows[b], VALID[b], mapping, layer)[0] * weights[b]).sum() for b in range(3))
    )
    assert np.abs(free - of_rows).max() > 0.01


@pytest.mark.parametrize("p", [0.0, 1.0, 100.0, 1e6, -2.0])
def test_label_aware_attention_is_stable_at_any_power_and_sign(p):
    interests = keras.utils.normalize(RNG.normal(size=(B, K, D)), axis=-1).astype("float32")
    positives = np.concatenate([interests[:2, 1], -interests[2:, 0]])
    layer = LabelAwareAttention(p)
    weights = softmax(p * np.einsum("bkd,bd->bk", interests.astype("float64"), positives), axis=1)
    found = layer([interests, positives]).numpy()
    np.testing.assert_allclose(found, np.einsum("bk,bkd->bd", weights, interests), atol=1e-4)
    # What repeats the first interest adds nothing.
    repeated = np.concatenate([interests, interests[:, :1]], axis=1)
    np.testing.assert_allclose(layer([repeated, positives]), found, atol=1e-6)


def test_the_hard_read_out_is_the_limit_of_the_soft_one():
    rng = np.random.default_rng(2)
    interests = rng.normal(size=(50, K, D)).astype("float32")
    interests[0] *= 1e10  # no vectors are too long for it
    positives = rng.normal(size=(50, D)).astype("float32")
    products = np.einsum("bkd,bd->bk", interests.astype("float64"), positives)
    limit = np.einsum("bk,bkd->bd", softmax(1e9 * products, axis=1), interests)  # one weight is 1, the others 0
    hard = LabelAwareAttention(float("inf"))
    np.testing.assert_allclose(hard([interests, positives]), limit, rtol=1e-6)
    np.testing.assert_array_equal(hard([interests, positives]), NearestInterest()([interests, positives]))
    again = LabelAwareAttention.from_config(hard.get_config())
    np.testing.assert_array_equal(again([interests, positives]), hard([interests, positives]))
    for p in (1e9, 1e38, float(np.finfo("float32").max)):
        with tf.GradientTape() as tape:
            watched = tf.constant(interests)
            tape.watch(watched)
            found = LabelAwareAttention(p)([watched, positives])
        np.testing.assert_allclose(found, limit, rtol=1e-6)
        assert np.isfinite(tape.gradient(found, watched)).all()
    # Surplus interests are none of them, were they ever so near.
    number = np.full((50, 1), 2)
    of_two = np.take_along_axis(interests, products[:, :2].argmax(axis=1)[:, None, None], axis=1)[:, 0]
    for layer in (hard, LabelAwareAttention(1e38)):
        np.testing.assert_allclose(layer([interests, positives, number]), of_two, rtol=1e-6)


@pytest.mark.parametrize("p", [1e39, -1e39, -float("inf"), float("nan"), "inf"])
def test_a_power_that_float32_does_not_hold_is_refused(p):
    with pytest.raises(ValueError, match="`p` must be"):
        LabelAwareAttention(p)
    with pytest.raises(ValueError, match="`pow_p` must be"):
        LabelAwareAttention(k_max=3, pow_p=p)


def test_surplus_interests_become_the_first_again():
    interests = RNG.normal(size=(4, 3, 2)).astype("float32")
    valid = np.arange(9) < np.array([[0], [3], [4], [9]])  # log2: 1, 1, 2, 3
    found, number = RepeatFirstInterest()([interests, valid])
    assert number.numpy().tolist() == [[1], [1], [2], [3]]
    kept = [[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 2]]
    np.testing.assert_array_equal(found, [interests[b][places] for b, places in enumerate(kept)])


def test_the_nearest_interest_alone_is_trained():
    interests = tf.constant([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [-2.0, 0.0]]])
    positives = tf.constant([[0.6, 0.8], [1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(interests)
        nearest = NearestInterest()([interests, positives])
    # Of the second user, -1 is above -2.
    np.testing.assert_array_equal(nearest, [[0, 1], [-1, 0]])
    np.testing.assert_array_equal(tape.gradient(nearest, interests), [[[0, 0], [1, 1]], [[1, 1], [0, 0]]])


def test_first_rows():
    vectors = tf.reshape(tf.range(8.0), [4, 2])
    np.testing.assert_array_equal(FirstRows()([tf.zeros([3, 5]), vectors]), vectors[:3])
