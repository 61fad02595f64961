"""EmbeddingTable reads and updates rows, HashIds falls into DeepCTR's buckets, L2Normalization is safe at zero."""

import numpy as np
import pytest
import tensorflow as tf
from deepctr.layers.utils import Hash

from deepmatch_ext.layers import EmbeddingTable, HashIds, L2Normalization


def test_rows_and_sparse_gradients():
    table = EmbeddingTable(20, 3, "random_normal")
    ids = tf.constant([[4, 0], [4, 19]])
    rows = table(ids)
    weights = table.get_weights()[0]
    np.testing.assert_array_equal(rows, weights[ids.numpy()])
    variable = table.trainable_weights[0]
    variable = getattr(variable, "value", variable) if not isinstance(variable, tf.Variable) else variable
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(table(ids))
    gradient = tape.gradient(value, variable)
    assert isinstance(gradient, tf.IndexedSlices)
    assert sorted(gradient.indices.numpy().tolist()) == [0, 4, 4, 19]


def test_the_default_start_is_normal_seeded_and_the_same_in_no_two_blocks(monkeypatch):
    monkeypatch.setattr("deepmatch_ext.layers.embedding._BLOCK_ROWS", 1000)
    tables = [EmbeddingTable(2500, 8, seed=seed) for seed in (1, 1, 2)]
    for table in tables:
        table.build()
    first, again, other = (table.get_weights()[0] for table in tables)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first)) > 0.99 * first.size
    # 20,000 draws: four standard errors of the mean and of the deviation.
    assert abs(first.mean()) < 4 * 0.05 / np.sqrt(first.size)
    assert abs(first.std() - 0.05) < 4 * 0.05 / np.sqrt(2 * first.size)


@pytest.mark.parametrize("bad", [-1, 20])
def test_ids_out_of_range_name_the_table(bad):
    table = EmbeddingTable(20, 3, name="table_item")
    for call in (table, tf.function(table)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"table_item: ids must lie in 0..19"):
            call(tf.constant([[3, bad]]))


def test_l2_covers_the_different_rows_of_the_look_up_only():
    table = EmbeddingTable(20, 3, "random_normal", l2_reg=0.5)
    table(tf.constant([[4, 0], [4, 19]]))
    weights = table.get_weights()[0].astype("float64")
    np.testing.assert_allclose(table.losses[0], 0.5 * (weights[[0, 4, 19]] ** 2).sum(), rtol=1e-6)


def test_half_precision_casts_rows_and_not_the_table():
    table = EmbeddingTable(20, 3, dtype="mixed_float16")
    assert table(tf.constant([1])).dtype == tf.float16
    assert table.get_weights()[0].dtype == np.float32


@pytest.mark.parametrize("mask_zero", [False, True])
@pytest.mark.parametrize(
    "values",
    [np.array([[0, 1, 2], [77, -5, 10**9]]), np.array([["0", "a", "b"], ["", "Göteborg", "-1"]])],
    ids=["integers", "strings"],
)
def test_hash_has_deepctrs_buckets(values, mask_zero):
    tensor = tf.constant(values)
    expected = Hash(13, mask_zero=mask_zero)(tensor).numpy()
    if mask_zero:
        expected[values == ""] = 0  # padding, as "0" is; DeepCTR gives it a bucket of its own
    result = HashIds(13, mask_zero=mask_zero)(tensor)
    np.testing.assert_array_equal(result, expected)
    again = HashIds.from_config(HashIds(13, mask_zero=mask_zero).get_config())
    np.testing.assert_array_equal(again(tensor), expected)


def test_vocabulary_files_are_read_as_deepctr_reads_them(tmp_path):
    path = tmp_path / "vocabulary.csv"
    path.write_text("1,emerson\n2,lake\n3,palmer\n")
    tensor = tf.constant([["lake", "palmer", "lakeemerson"]])
    assert HashIds(4, vocabulary_path=str(path))(tensor).numpy().tolist() == [[2, 3, 0]]
    np.testing.assert_array_equal(
        HashIds(4, vocabulary_path=str(path))(tensor), Hash(4, vocabulary_path=str(path))(tensor)
    )
    with pytest.raises(ValueError, match=r"`vocabulary_path` must be a file of `id,key` lines; got .*none.csv"):
        HashIds(4, vocabulary_path=str(tmp_path / "none.csv"))


@pytest.mark.parametrize("training", [False, True])
def test_l2_normalization_and_its_gradient_at_zero(training):
    vectors = tf.Variable([[3.0, 4.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        unit = L2Normalization()(tf.convert_to_tensor(vectors), training=training)
        value = tf.reduce_sum(unit[:, 0])
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0]], atol=1e-7)
    # d(x/|x|)/dx = (1/|x|)(1 - x^2/|x|^2) = 0.2 * 0.64, and for y: -x y / |x|^3 = -12/125
    np.testing.assert_allclose(tape.gradient(value, vectors), [[0.128, -0.096], [0, 0]], atol=1e-6)


@pytest.mark.parametrize(("shape", "axis"), [((5, 3), -1), ((5, 3), 1), ((5, 3), 0), ((2, 4, 3), -1), ((2, 3, 3), 1)])
def test_l2_normalization_in_training_is_what_it_is_elsewhere(shape, axis):
    layer, values = L2Normalization(axis), tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)
    results = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(values)
            unit = layer(values, training=training)
            value = tf.reduce_sum(unit * tf.constant([[1.0, -2.0, 0.5]]))
        results.append((unit, tape.gradient(value, values)))
    for elsewhere, in_training in zip(*results, strict=True):
        np.testing.assert_allclose(in_training, elsewhere, rtol=1e-5, atol=1e-5)


def test_bad_sizes_are_refused():
    for size in (0, -1, 2.5, "5", True):
        with pytest.raises(ValueError, match=r"`vocabulary_size` must be an integer of at least 1"):
            EmbeddingTable(size, 4)
    assert EmbeddingTable(np.int64(5), np.int32(4))(tf.constant([1])).shape == (1, 4)


def test_a_mixed_precision_policy_does_not_round_ids_that_come_as_floats():
    table = EmbeddingTable(2050, 1, np.arange(2050)[:, np.newaxis] % 2, dtype="mixed_float16")
    rows = table(tf.constant([2048.0, 2049.0]))  # both 2048 as float16
    assert rows.dtype == tf.float16
    np.testing.assert_array_equal(rows, [[0], [1]])
