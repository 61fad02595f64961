"""SequenceMaskPooling against NumPy float64, DeepCTR's pooling, and its promises about padding."""

import numpy as np
import pytest
import tensorflow as tf
from deepctr.layers import SequencePoolingLayer
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.layers import HistoryItems, ItemsInFront, PaddingMask, SequenceMaskPooling, SequenceWeighting
from deepmatch_ext.layers.pooling import combiner_poolings

WEIGHTED = ("mean", "sum", "sqrtn")


def reference(mode, embeddings, lengths, decay=0.0):
    """Float64, one row and one position after another, from the formulas of the docstring."""
    out = np.zeros((embeddings.shape[0], embeddings.shape[2]))
    for row, length in enumerate(lengths):
        valid = embeddings[row, : min(length, embeddings.shape[1])].astype("float64")
        if not len(valid):
            continue
        weight = np.array([(t + 1.0) ** -decay for t in range(len(valid))])[:, None]
        out[row] = {
            "mean": lambda v, w: (v * w).sum(0) / w.sum(),
            "sum": lambda v, w: (v * w).sum(0),
            "sqrtn": lambda v, w: (v * w).sum(0) / np.sqrt((w**2).sum()),
            "max": lambda v, w: v.max(0),
            "last": lambda v, w: v[0],
        }[mode](valid, weight)
    return out


@pytest.mark.slow
@given(
    mode=st.sampled_from(["mean", "sum", "max", "sqrtn", "last"]),
    decay=st.sampled_from([0.0, 0.5, 1.0]),
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)
def test_every_mode_equals_the_formula_whatever_stands_beyond_the_length(mode, decay, lengths, seed):
    decay = decay if mode in WEIGHTED else 0.0
    embeddings = np.random.default_rng(seed).normal(size=(len(lengths), 5, 3)).astype("float32")
    expected = reference(mode, embeddings, lengths, decay)
    embeddings[np.arange(5)[None] >= np.array(lengths)[:, None]] = np.nan
    layer = SequenceMaskPooling(mode, recency_decay=decay)
    column = np.array(lengths)[:, None]
    mask = np.arange(5)[None] < column
    for result in (
        layer([tf.constant(embeddings), tf.constant(column)]),
        layer([tf.constant(embeddings), tf.constant(column[:, 0])]),
        layer([tf.constant(embeddings), tf.constant(mask)]),
        layer([tf.constant(embeddings), tf.constant(mask.astype("int32"))]),
        layer(tf.constant(embeddings), mask=tf.constant(mask)),
        tf.function(layer)([tf.constant(embeddings), tf.constant(column)]),
    ):
        assert result.shape == (len(lengths), 3)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@given(
    mode=st.sampled_from(["mean", "sum", "max", "sqrtn", "last"]),
    decay=st.sampled_from([0.0, 1.0]),
    mask=st.lists(st.booleans(), min_size=1, max_size=6),
)
def test_what_is_masked_counts_as_if_it_were_not_there(mode, decay, mask):
    decay = decay if mode in WEIGHTED else 0.0
    embeddings = np.random.default_rng(len(mask)).normal(size=(1, len(mask), 3)).astype("float32")
    there = embeddings[:, mask]
    pooled = SequenceMaskPooling(mode, recency_decay=decay)([tf.constant(embeddings), tf.constant([mask])])
    np.testing.assert_allclose(pooled, reference(mode, there, [there.shape[1]], decay), rtol=1e-5, atol=1e-6)


@given(mask=st.lists(st.booleans(), min_size=1, max_size=6), nth=st.integers(1, 4))
def test_the_nth_last_item(mask, nth):
    embeddings = np.random.default_rng(nth).normal(size=(1, len(mask), 3)).astype("float32")
    there = embeddings[0, mask]
    pooled = SequenceMaskPooling("last", nth=nth)([tf.constant(embeddings), tf.constant([mask])])
    np.testing.assert_array_equal(pooled[0], there[nth - 1] if nth <= len(there) else np.zeros(3))


def test_a_combiner_names_the_nth_last_item():
    assert combiner_poolings("hist", "last+last:2") == [
        (SequenceMaskPooling, {"mode": "last"}),
        (SequenceMaskPooling, {"mode": "last", "nth": 2}),
    ]
    for wrong in ("last:0", "last:x", "last:-1", "last:", "mean:2"):
        with pytest.raises(ValueError, match=f"`combiner` of column 'hist'.*{wrong}"):
            combiner_poolings("hist", wrong)
    with pytest.raises(ValueError, match="`nth`"):
        SequenceMaskPooling("mean", nth=2)


@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
def test_equals_deepctr_and_has_its_shape_with_keepdims(mode):
    rng = np.random.default_rng(0)
    inputs = [tf.constant(rng.normal(size=(4, 6, 3)), tf.float32), tf.constant([[1], [6], [3], [2]])]
    expected = SequencePoolingLayer(mode)(inputs)
    result = SequenceMaskPooling(mode, keepdims=True)(inputs)
    assert result.shape == (4, 1, 3)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_recency_by_hand():
    history = tf.constant([[[6.0], [3.0], [9.0], [100.0]]])
    # weights 1, 1/2, 1/3: (6 + 1.5 + 3) / (11/6) = 63/11
    result = SequenceMaskPooling("mean", recency_decay=1.0)([history, tf.constant([[3]])])
    np.testing.assert_allclose(result, [[63 / 11]], rtol=1e-6)


@pytest.mark.parametrize("mode", ["mean", "sum", "max", "sqrtn", "last"])
def test_an_empty_history_is_zero_with_finite_gradients(mode):
    embeddings = tf.Variable(np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32"))
    with tf.GradientTape() as tape:
        pooled = SequenceMaskPooling(mode)([tf.convert_to_tensor(embeddings), tf.constant([[0], [2]])])
        value = tf.reduce_sum(tf.square(pooled))
    gradient = tape.gradient(value, embeddings)
    assert np.all(pooled.numpy()[0] == 0)
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient.numpy()[0] == 0)
    assert np.all(gradient.numpy()[1, 2:] == 0)
    assert np.any(gradient.numpy()[1, 0] != 0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
@pytest.mark.parametrize("mode", ["mean", "sum", "max", "sqrtn", "last"])
def test_half_precision_policies(policy, mode):
    half = "bfloat16" if "bfloat16" in policy else "float16"
    embeddings = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    lengths = [0, 2, 4]
    layer = SequenceMaskPooling(mode, dtype=policy)
    result = layer([tf.cast(embeddings, half), tf.constant(lengths)[:, None]])
    assert result.dtype == half
    expected = reference(mode, embeddings, lengths)
    np.testing.assert_allclose(tf.cast(result, tf.float32), expected, rtol=0.02, atol=0.02)


def test_a_keras_mask_is_used():
    inputs = tf.keras.Input((4,), dtype="int32")
    table = tf.keras.layers.Embedding(9, 2, mask_zero=True)
    model = tf.keras.Model(inputs, SequenceMaskPooling("mean")(table(inputs)))
    rows = table.get_weights()[0]
    np.testing.assert_allclose(
        model(tf.constant([[3, 5, 0, 0], [0, 0, 0, 0]])), [(rows[3] + rows[5]) / 2, [0, 0]], rtol=1e-6
    )


def test_padding_mask():
    assert PaddingMask()(tf.constant([[3, 0, 1]])).numpy().tolist() == [[True, False, True]]


def test_a_history_ends_at_its_length():
    ids = tf.constant([[0, 4, 2], [7, 8, 9], [0, 5, 6], [0, 0, 0]])
    kept = HistoryItems()([ids, tf.constant([[2], [2], [1], [3]])])
    assert kept.numpy().tolist() == [[0, 4, 2], [7, 8, 0], [0, 5, 0], [0, 0, 0]]


def test_weighting_by_hand():
    embeddings, weights = tf.constant([[[1.0], [1.0], [1.0]]]), tf.constant([[[0.0], [np.log(3.0)], [9.0]]])
    # The softmax of (0, log 3) over the two valid positions is (1/4, 3/4).
    result = SequenceWeighting()([embeddings, tf.constant([[2]]), weights])
    np.testing.assert_allclose(result[0, :, 0], [0.25, 0.75, 0.0], atol=1e-6)
    result = SequenceWeighting(weight_norm=False)([embeddings, tf.constant([[2]]), weights])
    np.testing.assert_allclose(result[0, :, 0], [0.0, np.log(3.0), 0.0], rtol=1e-6)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"`mode` must be one of 'mean', .* got 'median'"):
        SequenceMaskPooling("median")
    with pytest.raises(ValueError, match=r"`recency_decay` must be at least 0"):
        SequenceMaskPooling("mean", recency_decay=-1)
    with pytest.raises(ValueError, match=r"`recency_decay` must be 0 with mode 'max'"):
        SequenceMaskPooling("max", recency_decay=1)
    for combiner in ("median", "mean+", "recency:x", "recency:-1", "mean:2", ""):
        with pytest.raises(ValueError, match=r"`combiner` of column 'hist'"):
            combiner_poolings("hist", combiner)


def test_the_config_makes_an_equal_layer():
    layer = SequenceMaskPooling("sqrtn", keepdims=True, recency_decay=0.5)
    again = SequenceMaskPooling.from_config(layer.get_config())
    inputs = [tf.random.stateless_normal((2, 4, 3), [1, 2]), tf.constant([[3], [4]])]
    np.testing.assert_array_equal(layer(inputs), again(inputs))


@pytest.mark.parametrize(("second", "pooled"), [([[1, 1, 0]], 6.0), ([[2]], 6.0), ([[0, 1, 1]], 11.0), ([[0]], 0.0)])
def test_of_unknown_width_a_mask_and_a_length_are_told_apart(second, pooled):
    """By the values' own shape; with one row a mask has as many numbers as there would be lengths."""
    layer = SequenceMaskPooling("sum")
    specs = [tf.TensorSpec([None, None, 1]), tf.TensorSpec([None, None], tf.int32)]
    traced = tf.function(lambda values, second: layer([values, second]), input_signature=specs)
    assert traced([[[4.0], [2.0], [9.0]]], second).numpy() == [[pooled]]


def test_items_in_front_keep_their_order_and_what_belongs_to_them():
    ids = tf.constant([[0, 7, 0, 5], [4, 3, 0, 0], [0, 0, 0, 0]])
    weights = tf.constant([[[0.1], [0.2], [0.3], [0.4]], [[1.0], [2.0], [3.0], [4.0]], [[0.0]] * 4])
    found, moved = ItemsInFront()([ids, weights])
    assert found.numpy().tolist() == [[7, 5, 0, 0], [4, 3, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(moved[0, :2, 0], [0.2, 0.4])
    np.testing.assert_array_equal(moved[1], weights[1])
    np.testing.assert_array_equal(ItemsInFront()(ids), found)
