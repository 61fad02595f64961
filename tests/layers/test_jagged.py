"""Jagged pooling gives the numbers and gradients of SequenceMaskPooling on the padded rows."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.layers import JaggedIds, JaggedPooling, SequenceMaskPooling
from deepmatch_ext.layers import jagged as jagged_layers

POOLINGS = [
    ("mean", 0.0),
    ("mean", 1.0),
    ("sum", 0.5),
    ("sqrtn", 0.0),
    ("sqrtn", 1.0),
    ("max", 0.0),
    ("last", 0.0),
]


def both(table, ids, mode, decay, **arguments):
    """[jagged, padded] results and gradients to the table."""
    results = []
    weights = tf.constant(np.random.default_rng(1).normal(size=(len(ids), table.shape[1])), tf.float32)
    for jagged in (True, False):
        variable = tf.Variable(table)
        with tf.GradientTape() as tape:
            if jagged:
                unique_ids, *places = JaggedIds()(ids)
                pooled = JaggedPooling(mode, recency_decay=decay, **arguments)(
                    [tf.gather(variable, unique_ids), *places]
                )
            else:
                pooled = SequenceMaskPooling(mode, recency_decay=decay, **arguments)(
                    [tf.gather(variable, ids), ids > 0]
                )
            value = tf.reduce_sum(pooled * weights)
        results.append((pooled.numpy(), tf.convert_to_tensor(tape.gradient(value, variable)).numpy()))
    return results


@given(
    pooling=st.sampled_from([*((*each, 1) for each in POOLINGS), ("last", 0.0, 2)]),
    ids=st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_equals_the_padded_pooling_in_value_and_gradient(pooling, ids, seed):
    table = np.random.default_rng(seed).normal(size=(4, 3)).astype("float32")
    (pooled, gradient), (expected, expected_gradient) = both(table, tf.constant(ids), *pooling[:2], nth=pooling[2])
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)
    # The largest of equal values is one of them here, each in part there: the sums over equal rows agree.
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "ids", [[[1, 1, 1, 2]], [[1, 1, 1, 1], [1, 1, 0, 0]], [[1, 2, 3, 0], [3, 2, 2, 2]], [[0, 0, 0, 0]]]
)
def test_its_matrix_has_a_place_for_every_value(ids, monkeypatch):
    """Repeats are several values in one place; cuSPARSE, on a GPU, takes no more values than places."""
    made = []

    def convert(indices, values, dense_shape):
        made.append((len(values), *dense_shape.numpy()))
        return original(indices=indices, values=values, dense_shape=dense_shape)

    original = tf.raw_ops.SparseTensorToCSRSparseMatrix
    monkeypatch.setattr(tf.raw_ops, "SparseTensorToCSRSparseMatrix", convert)
    monkeypatch.setattr(jagged_layers, "_weighted_sum", jagged_layers._weighted_sum.__wrapped__)
    (pooled, gradient), (expected, expected_gradient) = both(
        np.arange(12, dtype="float32").reshape(4, 3), tf.constant(ids), "sum", 0.0
    )
    np.testing.assert_allclose(pooled, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)
    assert len(made) == 2  # of the product and of its gradient
    for values, height, width in made:
        assert values <= height * width


def test_ids_by_hand():
    unique_ids, index, row, rank, num_rows = JaggedIds()(tf.constant([[0, 7, 5], [0, 0, 0], [5, 0, 5]]))
    assert unique_ids.numpy().tolist() == [7, 5]
    assert index.numpy().tolist() == [0, 1, 1, 1]
    assert row.numpy().tolist() == [0, 0, 2, 2]
    assert rank.numpy().tolist() == [0, 1, 0, 1]
    assert num_rows.numpy() == 3


@pytest.mark.parametrize("mode", ["mean", "max", "last", "sqrtn", "sum"])
def test_a_batch_of_empty_histories_is_zero(mode):
    unique_ids, *places = JaggedIds()(tf.zeros((2, 3), tf.int32))
    rows = tf.gather(tf.ones((4, 5)), unique_ids)
    assert JaggedPooling(mode)([rows, *places]).numpy().tolist() == np.zeros((2, 5)).tolist()
    assert JaggedPooling(mode, keepdims=True)([rows, *places]).shape == (2, 1, 5)


def test_half_precision():
    unique_ids, *places = JaggedIds()(tf.constant([[1, 2], [0, 0]]))
    pooled = JaggedPooling("mean", dtype="mixed_float16")([tf.gather(tf.eye(4, dtype=tf.float16), unique_ids), *places])
    assert pooled.dtype == tf.float16
    assert pooled.numpy().tolist() == [[0, 0.5, 0.5, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(("mode", "decay"), POOLINGS)
def test_what_is_traced_for_an_export_pools_padded_rows(mode, decay):
    ids, table = tf.constant([[0, 3, 1, 3], [0, 0, 0, 0], [2, 0, 0, 1]]), np.random.default_rng(4).normal(size=(4, 3))

    def pool(keepdims=False):
        unique_ids, *places = JaggedIds()(ids)
        layer = JaggedPooling(mode, recency_decay=decay, keepdims=keepdims)
        return unique_ids, layer([tf.gather(tf.constant(table, tf.float32), unique_ids), *places])

    with jagged_layers.padded_pooling():
        looked_up, pooled = pool()
        assert pool(keepdims=True)[1].shape == (3, 1, 3)
    assert looked_up.shape == (3, 4)  # (B, T)
    looked_up, expected = pool()
    assert looked_up.shape == (3,)  # the different ids
    np.testing.assert_allclose(pooled, expected, atol=1e-6)
