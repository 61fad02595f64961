"""Embedding tables in bfloat16: half the memory, and the results of float32."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext._keras import keras
from deepmatch_ext.layers import EmbeddingTable
from deepmatch_ext.optimizers import LazyAdam, RowwiseAdagrad, RowwiseAdam, rounded_at_random
from tests.helpers import small_input, small_model, user_part


def as_float32(values):
    return np.asarray(values).astype("float32")


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20), st.integers(0, 2**40))
def test_values_are_rounded_to_one_of_their_neighbours(values, seed):
    values = np.array(values, "float32")
    values[np.abs(values) < 1e-30] = 0  # no neighbours of less than the smallest normal number
    rounded = rounded_at_random(tf.constant(values), tf.constant([seed, 1], tf.int64))
    assert rounded.dtype == tf.bfloat16
    toward_zero = (values.view("uint32") & np.uint32(0xFFFF0000)).view("float32")
    away = ((values.view("uint32") & np.uint32(0xFFFF0000)) + np.uint32(0x10000)).view("float32")
    found = as_float32(rounded)
    assert ((found == toward_zero) | ((found == away) & (values != toward_zero))).all()
    np.testing.assert_array_equal(as_float32(rounded_at_random(values, tf.constant([seed, 1], tf.int64))), found)


def test_the_mean_of_what_is_rounded_is_right():
    fractions = np.array([0.1, 0.5, 0.9])
    values = np.repeat((1 + fractions / 128)[:, np.newaxis], 40_000, axis=1).astype("float32")
    up = as_float32(rounded_at_random(tf.constant(values), tf.constant([3, 1], tf.int64))) > 1
    np.testing.assert_allclose(up.mean(axis=1), fractions, atol=0.01)


@pytest.mark.parametrize("kind", [LazyAdam, RowwiseAdagrad, RowwiseAdam])
def test_small_steps_are_not_lost(kind):
    """Steps of less than half of the distance to the next bfloat16, of which the nearest would be the row as it was."""
    tables = {}
    for dtype in ("float32", "bfloat16"):
        layer = EmbeddingTable(3, 2000, "ones", table_dtype=dtype)
        layer.build()
        own = kind(1e-3)
        for _ in range(20):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(layer(tf.constant([1, 1])))
            variables = layer.trainable_variables
            own.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        tables[dtype] = as_float32(layer.get_weights()[0])
    assert (tables["bfloat16"][[0, 2]] == 1).all()
    moved = 1 - tables["float32"][1].mean()
    assert moved > 0.005
    np.testing.assert_allclose(1 - tables["bfloat16"][1].mean(), moved, rtol=0.05)


@pytest.mark.slow
def test_a_model_learns_and_reloads_as_with_float32(tmp_path):
    x, losses = small_input(512), {}
    for dtype in ("float32", "bfloat16"):
        model = small_model("mean", table_dtype=dtype)
        model.compile(LazyAdam(1e-2))
        losses[dtype] = model.fit(x, batch_size=64, epochs=5, verbose=0).history["loss"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.02)
    (table,) = (layer for layer in model.layers if isinstance(layer, EmbeddingTable))
    assert table.get_weights()[0].dtype == tf.bfloat16
    assert table(tf.constant([1])).dtype == tf.float32
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    (other,) = (layer for layer in reloaded.layers if isinstance(layer, EmbeddingTable))
    np.testing.assert_array_equal(as_float32(other.get_weights()[0]), as_float32(table.get_weights()[0]))
    reloaded.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(reloaded.user_vectors(user_part(x)), model.user_vectors(user_part(x)))
    for each in (model, reloaded):  # the moments, too, and in float32
        each.fit(x, batch_size=64, verbose=0)
    np.testing.assert_array_equal(reloaded.item_vectors(), model.item_vectors())
    with pytest.raises(ValueError, match=r"`optimizer` must round tables of bfloat16 at random.* got 'adam'"):
        model.compile("adam")


def test_other_types_are_refused():
    with pytest.raises(ValueError, match=r"`table_dtype` must be one of .*float32.*bfloat16"):
        small_model("mean", table_dtype="float16")
