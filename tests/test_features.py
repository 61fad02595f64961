"""Columns are read as DeepCTR means them; inputs equal DeepCTR's."""

import json

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat, build_input_features

from deepmatch_ext.features import build_inputs, column_config, read_columns, table_columns, with_table_sizes
from deepmatch_ext.models._tables import NamedLayers, Tables
from deepmatch_ext.models._towers import Features

EVERY_OPTION = [
    SparseFeat("user", 10),
    SparseFeat("city", np.int64(100), "auto", use_hash=True, dtype="string", group_name="g", trainable=False),
    SparseFeat("age", np.int32(9), np.int64(3), dtype="int64", embeddings_initializer=tf.keras.initializers.Zeros()),
    VarLenSparseFeat(SparseFeat("hist", 20, 8, embedding_name="item"), np.int64(5), "mean", "hist_len"),
    VarLenSparseFeat(SparseFeat("cates", 7, 4), 5, "max", "hist_len", weight_name="w", weight_norm=False),
    VarLenSparseFeat(SparseFeat("tags", 7, 4), 3, "sum"),
    DenseFeat("price", 1),
    DenseFeat("stats", 4, "float64"),
]


def test_inputs_have_deepctrs_names_shapes_and_dtypes():
    ours, theirs = build_inputs(read_columns("columns", EVERY_OPTION)), build_input_features(EVERY_OPTION)
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        assert (tensor.name, tuple(tensor.shape)) == (theirs[name].name, tuple(theirs[name].shape))
        assert tensor.dtype == theirs[name].dtype


def test_columns_survive_json():
    columns = read_columns("columns", EVERY_OPTION)
    plain = json.loads(json.dumps([column_config(column) for column in columns]))
    again = read_columns("columns", plain)
    assert str(again[2].embeddings_initializer) == "Zeros"
    assert [column_config(column) for column in again] == plain
    assert [column for k, column in enumerate(again) if k != 2] == [c for k, c in enumerate(columns) if k != 2]


def test_deepctrs_own_initializer_counts_as_none_given():
    own, given = read_columns(
        "columns",
        [SparseFeat("a", 5), SparseFeat("b", 5, embeddings_initializer=tf.keras.initializers.RandomNormal(0, 1.0))],
    )
    assert own.embeddings_initializer is None
    assert given.embeddings_initializer is not None


def double(x):
    return 2 * x


def test_transform_functions_are_saved_by_registered_name_only():
    registered = tf.keras.utils.register_keras_serializable("tests", "double")(double)
    (column,) = read_columns("columns", [DenseFeat("x", 1, transform_fn=registered)])
    (again,) = read_columns("columns", json.loads(json.dumps([column_config(column)])))
    assert again.transform_fn is registered
    (column,) = read_columns("columns", [DenseFeat("x", 1, transform_fn=lambda x: x)])
    with pytest.raises(
        ValueError, match=r"`transform_fn` of column 'x' must be registered .*got a lambda\. Decorate it"
    ):
        column_config(column)
    with pytest.raises(ValueError, match=r"`transform_fn` of column 'x' must be registered before .* 'none>none'"):
        read_columns("columns", [{"kind": "DenseColumn", "name": "x", "transform_fn": "none>none"}])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["user"], r"Every element of `columns` must be a SparseFeat.* got user"),
        ("user", r"`columns` must be a list of DeepCTR feature columns"),
        (None, r"`columns` must be a list"),
        ([SparseFeat("a", 5), SparseFeat("a", 5)], r"The columns of `columns` must not repeat a name; got 'a' twice"),
        ([SparseFeat("a", 0)], r"`vocabulary_size` of column 'a' must be an integer of at least 2; got 0"),
        ([SparseFeat("a", 2.5, 4)], r"`vocabulary_size` of column 'a' must be an integer"),
        ([SparseFeat("a", 5, 0)], r"`embedding_dim` of column 'a' must be an integer of at least 1"),
        ([SparseFeat("a", 5, dtype="string")], r"`use_hash` of column 'a' must be True for strings"),
        ([SparseFeat("a", 5, vocabulary_path="f")], r"`use_hash` of column 'a' must be True where `vocabulary_path`"),
        ([VarLenSparseFeat(SparseFeat("h", 5), 0)], r"`maxlen` of column 'h' must be an integer of at least 1"),
        (
            [VarLenSparseFeat(SparseFeat("h", 5), 3, length_name="h")],
            r"The inputs of column 'h' must not repeat a name",
        ),
        (
            [SparseFeat("h", 5), VarLenSparseFeat(SparseFeat("i", 5), 3, weight_name="h")],
            r"Input 'h' must have one shape",
        ),
        ([DenseFeat("d", 0)], r"`dimension` of column 'd' must be an integer of at least 1"),
    ],
)
def test_bad_columns_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        build_inputs(read_columns("columns", columns))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            SparseFeat("b", 6, 4, embedding_name="t"),
            r"'a' and 'b', .* table 't',? must .*`vocabulary_size`; got 5 and 6",
        ),
        (SparseFeat("b", 5, 8, embedding_name="t"), r"have the same `embedding_dim`; got 4 and 8"),
        (SparseFeat("b", 5, 4, use_hash=True, embedding_name="t"), r"have the same `use_hash`"),
        (SparseFeat("b", 5, 4, embedding_name="t", trainable=False), r"have the same `trainable`"),
    ],
)
def test_two_tables_of_one_name_must_agree(other, message):
    with pytest.raises(ValueError, match=message):
        table_columns(read_columns("columns", [SparseFeat("a", 5, 4, embedding_name="t"), other]))


@pytest.mark.parametrize(
    ("dtype", "most"), [("int8", 128), ("uint8", 256), ("float16", 2049), ("bfloat16", 257), ("float32", 2**24 + 1)]
)
def test_a_vocabulary_whose_ids_its_dtype_does_not_tell_apart_is_refused(dtype, most):
    [column] = read_columns("columns", [SparseFeat("item", most, 4, dtype=dtype)])
    rule = rf"`vocabulary_size` of column 'item' must be at most {most}, since its `dtype`, {dtype}, .*; got {most + 1}"
    with pytest.raises(ValueError, match=rule):
        read_columns("columns", [SparseFeat("item", most + 1, 4, dtype=dtype)])
    with pytest.raises(ValueError, match=rule):  # as a larger model is made
        read_columns("columns", [with_table_sizes(column_config(column), {"item": most + 1})])
    assert read_columns("columns", [SparseFeat("item", most + 1, 4, use_hash=True, dtype=dtype)])  # buckets are int64


def transformed(column):
    """The column as a tensor, as a model reads it."""
    inputs = build_inputs([column])
    [feature] = Features(Tables([], 0.0, 1, True, 0.01, "float32", NamedLayers()), 1, NamedLayers())([column], inputs)
    return tf.keras.Model(inputs, feature.values)


@pytest.mark.parametrize(
    ("transform", "got"),
    [
        (np.log1p, r"got \w+: .*use TensorFlow's, such as tf.math.log1p"),
        (lambda values: values[:, 0], r"got float32 of shape \(None,\)"),
        (tf.reduce_sum, r"got float32 of shape \(\)"),
        (lambda values: tf.reduce_sum(values, axis=0, keepdims=True), r"got float32 of shape \(1, 2\)"),
        (tf.strings.as_string, r"got string of shape \(None, 2\)"),
    ],
)
def test_a_transform_function_that_makes_no_vectors_is_refused_with_its_column(transform, got):
    [column] = read_columns("columns", [DenseFeat("x", 2, transform_fn=transform)])
    with pytest.raises(ValueError, match=r"`transform_fn` of column 'x' must make one tensor \(B, d\) .*; " + got):
        transformed(column)


def test_a_transform_function_is_a_function_and_may_return_integers():
    with pytest.raises(ValueError, match="`transform_fn` of column 'x' must be a function; got 'log'"):
        read_columns("columns", [DenseFeat("x", 2, transform_fn="log")])
    [column] = read_columns("columns", [DenseFeat("x", 1, transform_fn=lambda values: tf.cast(values, tf.int32))])
    result = transformed(column)({"x": tf.constant([[1.5], [7.0]])})
    assert result.dtype == tf.float32
    np.testing.assert_array_equal(result, [[1], [7]])
