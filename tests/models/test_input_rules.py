"""The rules of a model's input: arrays are refused before anything runs, and a dataset's batches by the same rules."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from hypothesis import event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.features import SequenceColumn, SparseColumn, input_shapes, read_columns
from deepmatch_ext.models._input_arrays import dense_batch, dense_spec
from deepmatch_ext.models._input_rules import (
    EventTimes,
    check_batch,
    check_batch_weights,
    check_model_input,
    check_types,
    check_weights,
    largest_number,
)
from tests.helpers import history_column, item_column, small_input

EVERY_INPUT = [
    SparseFeat("user", 10),
    SparseFeat("city", 100, use_hash=True, dtype="string"),
    SparseFeat("age", 9, dtype="int64"),
    VarLenSparseFeat(SparseFeat("hist", 20, 8, embedding_name="item"), 5, "mean", "hist_len"),
    VarLenSparseFeat(SparseFeat("cates", 7, 4), 5, "max", "hist_len", weight_name="w", weight_norm=False),
    VarLenSparseFeat(SparseFeat("tags", 7, 4), 3, "sum"),
    DenseFeat("price", 1),
    DenseFeat("stats", 4, "float64"),
]


def good_input(rows=3):
    return {
        "user": np.arange(rows),
        "city": np.array(["a"] * rows),
        "age": np.ones((rows, 1), "int64"),
        "hist": np.ones((rows, 5), "int32"),
        "hist_len": np.full(rows, 5),
        "cates": np.ones((rows, 5), "int32"),
        "w": np.ones((rows, 5), "float32"),
        "tags": np.ones((rows, 3), "int32"),
        "price": np.ones(rows),
        "stats": np.ones((rows, 4)),
        "unused": "anything",
    }


HASHED = [SparseFeat("i", 9, use_hash=True), SparseFeat("s", 9, use_hash=True, dtype="string")]
FLOAT = [SparseFeat("f", 9, dtype="float32")]


@pytest.mark.parametrize(
    ("columns", "name", "values", "message"),
    [
        (HASHED[:1], "i", np.array([5, 2**32 + 5]), r"Input 'i' must hold ids that its dtype holds, int32; give"),
        (HASHED[:1], "i", np.array([5, 0]), r"Input 'i' must hold no padding, 0, .* got 1 of it"),
        (HASHED[1:], "s", np.array(["a", "0"]), r"Input 's' must hold no padding"),
        (FLOAT, "f", np.array([1.0, 2.7]), r"Input 'f' must hold whole numbers, since they are ids"),
    ],
)
def test_ids_that_would_become_others_are_refused(columns, name, values, message):
    with pytest.raises(ValueError, match=message):
        check_model_input(read_columns("columns", columns), {name: values}, targets=[name])


def test_good_input_passes_and_is_counted():
    columns = read_columns("columns", EVERY_INPUT)
    x = good_input()
    before = {name: np.array(values) for name, values in x.items()}
    assert check_model_input(columns, x) == 3
    assert check_model_input(columns, {name: np.asarray(values).tolist() for name, values in x.items()}) == 3
    for name, values in before.items():
        np.testing.assert_array_equal(x[name], values)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("user", None, r"The model's input must have 'user'; got only"),
        (
            "user",
            np.array([0, 1, 10]),
            r"Input 'user' must hold ids in 0..9, .*`vocabulary_size` is 10; got 1 others.* 10",
        ),
        ("user", np.array([0, -1, 3]), r"Input 'user' must hold ids in 0..9.* -1"),
        ("user", np.array([0, 1]), r"The inputs must have equally many rows; got"),
        ("user", np.array([0.0, 1.0, 2.0]), r"Input 'user' must be of dtype int32; got float64"),
        ("user", np.array(["a", "b", "c"]), r"Input 'user' must be of dtype int32; got <U1"),
        ("city", np.array([1, 2, 3]), r"Input 'city' must be of dtype string; got int64"),
        ("city", np.array(["a", None, "b"], object), r"Input 'city' must hold only strings; got other objects"),
        ("city", np.array(["a", np.nan, "b"], object), r"Input 'city' must hold only strings"),
        ("hist", np.ones((3, 4), int), r"Input 'hist' must have shape \(rows, 5\); got \(3, 4\)"),
        ("hist", np.full((3, 5), 20), r"Input 'hist' must hold ids in 0..19"),
        ("hist_len", np.array([1, 2, 6]), r"Input 'hist_len' must hold lengths in 0..5, the history's `maxlen`; got 1"),
        ("hist_len", np.array([1, 2, -1]), r"Input 'hist_len' must hold lengths in 0..5"),
        ("price", np.array([1.0, np.inf, 2.0]), r"Input 'price' must hold no infinity; got 1 of them"),
        ("price", np.array([1.0, np.nan, 2.0]), r"Input 'price' must hold no NaN; got 1 of them"),
        ("w", np.full((3, 5, 1), np.nan), r"Input 'w' must hold no NaN"),
        ("stats", np.ones((3, 5)), r"Input 'stats' must have shape \(rows, 4\)"),
    ],
)
def test_bad_input_is_refused(name, values, message):
    x = good_input()
    x[name] = values
    if values is None:
        del x[name]
    with pytest.raises(ValueError, match=message):
        check_model_input(read_columns("columns", EVERY_INPUT), x)


def outcome(check):
    """Whether a check refuses, and whether it warns of a length."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check()
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            return "refused" if "must" in str(error) else str(error)
    return "told" if any("more ids than" in str(warning.message) for warning in caught) else "taken"


RULED = read_columns("columns", [*EVERY_INPUT, SparseFeat("code", 9, dtype="float32"), SparseFeat("item", 20)])
INPUTS = {name: spec for column in RULED for name, spec in input_shapes(column).items()}
TARGETS = ["item", "city"]

INTEGERS = st.one_of(st.integers(0, 6), st.integers(-1, 25))
NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 2.5] * 4 + [-1.0, np.nan, np.inf, 2.0**49, -(2.0**51)])
TEXTS = st.sampled_from(["a", "b", "0", ""])
KINDS = {"int32": (np.int32, INTEGERS), "int64": (np.int8, INTEGERS), "string": (object, TEXTS)}
KINDS |= {"float32": (np.float32, NUMBERS), "float64": (np.float64, NUMBERS), "bool": (bool, st.booleans())}


@st.composite
def batches(draw):
    """A batch in which one or two inputs have any values, and the columns that these belong to, beside the item."""
    changed = draw(st.lists(st.sampled_from([*INPUTS]), min_size=1, max_size=2))
    columns = [column for column in RULED if not input_shapes(column).keys().isdisjoint(["item", *changed])]
    inputs = {name: spec for column in columns for name, spec in input_shapes(column).items()}
    x = {name: np.full((3, *shape), "a" if kind == "string" else 1) for name, (shape, kind) in inputs.items()}
    if "hist_len" in x:
        x["hist_len"][:] = 5
    for name in changed:
        own = [KINDS[INPUTS[name][1]]]
        kind, values = draw(st.sampled_from(own * 9 + [*KINDS.values()]))
        x[name] = draw(npst.arrays(kind, x[name].shape, elements=values))
    return columns, x


@pytest.mark.slow
@pytest.mark.once
@settings(max_examples=300, deadline=None)
@given(batches())
def test_a_batch_of_tensors_is_refused_where_arrays_are(batch):
    columns, x = batch
    targets = [name for name in TARGETS if name in x]

    def check_tensors():
        tensors = {name: tf.constant(values) for name, values in x.items()}
        spec = {name: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for name, tensor in tensors.items()}
        check_types(columns, dense_spec(columns, spec))
        shapes = {name: INPUTS[name][0] for name in x}
        check_batch(columns, dense_batch(columns, tensors), shapes, targets)

    came = outcome(check_tensors)
    event(came)
    assert came == outcome(lambda: check_model_input(columns, x, targets))


@pytest.mark.parametrize("weight", [0, 2.5, True, 1e15, 2e15, -1e-9, np.nan, np.inf, "a"])
def test_a_batch_of_weights_is_refused_where_an_array_of_them_is(weight):
    weights = np.array([1, weight])
    of_arrays = outcome(lambda: check_weights(weights))
    assert outcome(lambda: check_batch_weights(tf.constant(weights), tf.constant(2))) == of_arrays
    assert of_arrays == ("refused" if weight in ("a", -1e-9, 2e15, np.inf) or weight != weight else "taken")


@pytest.mark.parametrize("dtype", ["int64", "float32"])
@pytest.mark.parametrize("number", [0, 10**15, -(10**15), 10**15 + 2, 10**18, -(2**63)])
def test_large_integers_are_refused_in_batches_as_in_arrays(number, dtype):
    columns = read_columns("columns", [DenseFeat("when", 2, dtype), SparseFeat("item", 20)])
    x = {"when": np.array([[1, number]]), "item": np.array([[3]])}
    shapes = {name: shape for column in columns for name, (shape, _) in input_shapes(column).items()}
    of_arrays = outcome(lambda: check_model_input(columns, x, ["item"]))
    tensors = {name: tf.constant(values) for name, values in x.items()}
    assert outcome(lambda: check_batch(columns, dense_batch(columns, tensors), shapes, ["item"])) == of_arrays
    assert of_arrays == ("refused" if abs(number) > 10**15 else "taken")


@pytest.mark.parametrize(
    ("dtype", "values", "outsider"),
    [("int8", [-128, 127], 300), ("uint8", [0, 255], -1), ("int32", [0, 2**31 - 1], 2**40), ("float16", [6e4], 7e4)],
)
def test_numbers_that_a_columns_dtype_does_not_hold_are_refused_in_batches_as_in_arrays(dtype, values, outsider):
    columns = read_columns("columns", [DenseFeat("x", 1, dtype), SparseFeat("item", 20)])
    shapes = {name: shape for column in columns for name, (shape, _) in input_shapes(column).items()}

    def of_both(numbers):
        x = {"x": np.array(numbers), "item": np.full(len(numbers), 3)}
        tensors = {name: tf.constant(values) for name, values in x.items()}
        of_arrays = outcome(lambda: check_model_input(columns, x, ["item"]))
        return of_arrays, outcome(lambda: check_batch(columns, dense_batch(columns, tensors), shapes, ["item"]))

    assert of_both(values) == ("taken", "taken")
    assert of_both([*values, outsider]) == ("refused", "refused")


@pytest.mark.parametrize("changed", [{}, {"x": [[2e3]]}, {"n": [[-1001]]}])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_numbers_that_a_policy_cannot_compute_with_are_refused_in_batches_as_in_arrays(policy, changed):
    """Times and numbers that a function transforms are not computed with as they are."""
    times = EventTimes(SequenceColumn(SparseColumn("h", 9, 2), 1), "when")
    columns = [DenseFeat("when", 1, "int64"), DenseFeat("log", 1, transform_fn=tf.math.log1p), SparseFeat("item", 20)]
    columns = [times.history, *read_columns("columns", [*columns, DenseFeat("x"), DenseFeat("n", 1, "int32")])]
    shapes = {name: shape for column in columns for name, (shape, _) in input_shapes(column).items()}
    good = {"h": [[1]], "item": [[3]], "when": [[1_700_000_000]], "log": [[1e5]], "x": [[1e3]], "n": [[-1000]]}
    x = {name: np.array(values) for name, values in {**good, **changed}.items()}
    tensors = {name: tf.constant(values) for name, values in x.items()}
    rules = (["item"], times, largest_number(policy))
    of_arrays = outcome(lambda: check_model_input(columns, x, *rules))
    of_tensors = outcome(lambda: check_batch(columns, dense_batch(columns, tensors, times), shapes, *rules))
    assert of_arrays == of_tensors == ("refused" if changed and policy == "mixed_float16" else "taken")


@pytest.mark.slow
def test_a_model_under_mixed_float16_refuses_what_would_make_its_vectors_nan():
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = YoutubeDNN([history_column(), DenseFeat("price", 1)], [item_column()])
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
    model.compile("sgd")
    x = {**small_input(4), "price": np.full(4, 1e5)}
    for use in (model.user_vectors, model.fit):
        with pytest.raises(ValueError, match="Input 'price' must hold numbers of at most 1000 in size; got 100000"):
            use(x)
