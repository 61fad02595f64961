"""Whatever people hold their data in says the same: frames, lists, ragged tensors and Arrow tables."""

import datetime
import functools
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext import YoutubeDNN
from deepmatch_ext._frames import Lists, array_of, as_array, columns_of
from deepmatch_ext.data import IdMap, Interactions, find_leaks, parquet_dataset, tfrecord_dataset, write_tfrecords
from deepmatch_ext.evaluation import Popularity, RetrievalMetrics, TrainingWatch
from deepmatch_ext.evaluation.report.arguments import check_item_groups
from deepmatch_ext.features import read_columns
from deepmatch_ext.models._catalogue import read_catalogue
from deepmatch_ext.models._examples import ArrayReader
from deepmatch_ext.models._input_arrays import dense_batch, dense_spec, input_arrays
from deepmatch_ext.retrieval import read_vectors, top_n, write_vectors
from deepmatch_ext.retrieval.diversify import category_codes
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import DIM, VOCABULARY, history_column, item_column

pa = pytest.importorskip("pyarrow")
try:
    import polars as pl
except ImportError:
    pl = None
needs_polars = pytest.mark.skipif(pl is None, reason="polars is not installed")


def object_array(lists):
    array = np.empty(len(lists), object)
    array[:] = [np.array(each, "int64") for each in lists]
    return array


def chunked(lists, kind):
    """In three chunks, of which one is empty and one begins in the midst of its buffers."""
    array = pa.array([[7], *lists], kind)
    return pa.chunked_array([array[1:2], array[:0], array[2:]], kind)


FORMS = {
    "lists": lambda lists: lists,
    "tuples": lambda lists: tuple(map(tuple, lists)),
    "arrays": lambda lists: [np.array(each, "int64") for each in lists],
    "arrays, an empty one of floats": lambda lists: [np.array(each) for each in lists],
    "tensors": lambda lists: [tf.constant(each, tf.int64) for each in lists],
    "lists and arrays": lambda lists: [np.array(each, "int64") if len(each) % 2 else each for each in lists],
    "object array": object_array,
    "series": lambda lists: pd.Series(lists, index=range(5, 5 + len(lists)), dtype=object),
    "ragged": lambda lists: tf.ragged.constant(lists, tf.int64, ragged_rank=1),
    "arrow": lambda lists: pa.array(lists, pa.list_(pa.int64())),
    "arrow chunks": lambda lists: chunked(lists, pa.list_(pa.int64())),
    "arrow large chunks": lambda lists: chunked(lists, pa.large_list(pa.int64())),
    "arrow series": lambda lists: pd.Series(lists, dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
}
if hasattr(pa, "list_view"):
    FORMS["arrow views"] = lambda lists: chunked(lists, pa.list_view(pa.int64()))
if pl is not None:
    FORMS["polars"] = lambda lists: pl.Series(lists, dtype=pl.List(pl.Int64))

T = 3
HISTORY = read_columns("columns", [VarLenSparseFeat(SparseFeat("h", 100, 4), T, "mean", "n")])


def padded(lists):
    """By hand: cut after the first T, 0 at the end."""
    return [[*each, *[0] * T][:T] for each in lists]


@given(st.lists(st.lists(st.integers(1, 99), max_size=6), min_size=1, max_size=5))
def test_lists_of_any_length_say_the_same_in_every_form(lists):
    for name, make in FORMS.items():
        arrays = input_arrays(HISTORY, {"h": make(lists)})
        assert arrays["h"].tolist() == padded(lists), name
        assert arrays["n"].tolist() == [min(len(each), T) for each in lists], name
        assert arrays["h"].dtype.kind == "i", name


TEXTS = {
    "lists": lambda lists: lists,
    "bytes": lambda lists: [[each.encode() for each in row] for row in lists],
    "arrays": lambda lists: [np.array(row) for row in lists],
    "ragged": lambda lists: tf.ragged.constant(lists, tf.string, ragged_rank=1),
    "arrow": lambda lists: pa.array(lists, pa.large_list(pa.string())),
    "arrow keys": lambda lists: pa.array(lists, pa.list_(pa.dictionary(pa.int32(), pa.string()))),
}
if pl is not None:
    TEXTS["polars"] = lambda lists: pl.DataFrame({"h": lists}, schema={"h": pl.List(pl.String)})
    TEXTS["polars keys"] = lambda lists: pl.DataFrame({"h": lists}, schema={"h": pl.List(pl.Categorical)})


@pytest.mark.parametrize("form", TEXTS)
def test_lists_of_text_are_padded_with_the_text_0(form):
    columns = [VarLenSparseFeat(SparseFeat("h", 100, 4, use_hash=True, dtype="string"), 2, length_name="n")]
    values = TEXTS[form]([["Lund", "Umeå", "x"], [], ["y"]])
    arrays = input_arrays(read_columns("columns", columns), values if hasattr(values, "columns") else {"h": values})
    texts = [[each.decode() if isinstance(each, bytes) else each for each in row] for row in arrays["h"].tolist()]
    assert texts == [["Lund", "Umeå"], ["0", "0"], ["y", "0"]]
    assert arrays["n"].tolist() == [2, 0, 1]


def test_the_length_counts_the_ids_that_are_not_padding():
    """So rows that were padded before they were put into a frame have the lengths that they should have."""
    arrays = input_arrays(HISTORY, pd.DataFrame({"h": [[5, 0, 0], [5, 0, 6], [0, 0, 0], [1, 2, 3, 0, 4]]}))
    assert arrays["n"].tolist() == [1, 2, 0, 3]


SHARED = read_columns(
    "columns",
    [
        VarLenSparseFeat(SparseFeat("h", 100, 4), T, "mean", "n", "w"),
        VarLenSparseFeat(SparseFeat("kind", 100, 4), T, "mean", "n"),
        DenseFeat("price", 2),
        SparseFeat("user", 9, 4),
        SparseFeat("city", 20, 4, use_hash=True, dtype="string"),
    ],
)
LISTS = {
    "h": [[9, 8, 7, 6], [5], []],
    "kind": [[1, 0, 0, 2], [0], []],
    "w": [[0.5, 1.0, 2.0, 4.0], [0.25], []],
    "price": [[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]],
    "user": [3, 4, 5],
    "city": ["Lund", "Lund", "Kiruna"],
}
EXPECTED = {
    "h": [[9, 8, 7], [5, 0, 0], [0, 0, 0]],
    "kind": [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
    "w": [[0.5, 1.0, 2.0], [0.25, 0.0, 0.0], [0.0, 0.0, 0.0]],
    "n": [3, 1, 0],  # of the longer of the histories that share it: a kind may be unknown, 0
    **{name: LISTS[name] for name in ("price", "user", "city")},
}
FRAMES = {
    "dictionary": dict,
    "pandas": pd.DataFrame,
    "pandas of Arrow": lambda lists: pa.table(lists).to_pandas(types_mapper=pd.ArrowDtype),
    "nullable pandas": lambda lists: pd.DataFrame(lists).astype({"user": "Int32", "city": "category"}),
    "Arrow table": pa.table,
    "Arrow batch": pa.RecordBatch.from_pydict,
    "Arrow reader": lambda lists: pa.table(lists).to_reader(),
}
if pl is not None:
    FRAMES["polars"] = pl.DataFrame
    FRAMES["polars, of other types"] = lambda lists: pl.DataFrame(
        lists, schema_overrides={"city": pl.Categorical, "price": pl.Array(pl.Float32, 2), "user": pl.UInt8}
    )


@pytest.mark.parametrize("form", FRAMES)
def test_frames_say_what_their_columns_say(form):
    arrays = input_arrays(SHARED, FRAMES[form](LISTS))
    assert {name: arrays[name].tolist() for name in EXPECTED} == EXPECTED


def test_the_callers_frame_is_left_as_it_is():
    frame = pd.DataFrame(LISTS)
    before = frame.copy(deep=True)
    input_arrays(SHARED, frame)
    pd.testing.assert_frame_equal(frame, before)


def test_plain_arrays_are_not_copied():
    x = {"h": np.ones((2, T), "int32"), "n": np.ones((2, 1), "int32"), "other": object()}
    arrays = input_arrays(HISTORY, x)
    assert arrays == x
    assert all(arrays[name] is x[name] for name in x)


def test_a_length_that_counts_the_whole_list_is_cut_with_it():
    x = {"h": [[9, 8, 7, 6], [5], [4, 3]], "n": np.array([4, 1, 1])}
    assert input_arrays(HISTORY, x)["n"].tolist() == [3, 1, 1]
    assert x["n"].tolist() == [4, 1, 1]


def test_an_array_of_a_history_needs_its_length():
    assert "n" not in input_arrays(HISTORY, {"h": np.ones((2, T), int)})


def test_no_rows_are_no_rows():
    for x in ({"h": []}, pd.DataFrame({"h": []}), pa.table({"h": pa.array([], pa.list_(pa.int64()))})):
        found = input_arrays(HISTORY, x)
        assert found["h"].shape == (0, T)
        assert found["n"].shape == (0,)  # which lists tell


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "h",
            [[1], None, [2]],
            "Input 'h' must have a list in every row; got none in 1 of 3 rows, such as row 1. An e",
        ),
        ("h", [[1], 2, [3]], "Input 'h' must hold a list in every row or in none; got 2 in row 1"),
        ("h", [[1, None], [2], [3]], "Input 'h' must have no missing value in its lists; got 1 of 4"),
        ("h", [[1, np.nan], [2], [3]], "Input 'h' must have no missing value in its lists; got 1 of 4"),
        ("h", [[1, pd.NA], [2], [3]], "Input 'h' must have no missing value in its lists; got 1 of 4"),
        ("h", [[[1, 2]], [[3, 4]], [[5, 6]]], "Input 'h' must hold one list of values in each row; got lists of lists"),
        ("h", [[[1], [2, 3]], [[4]], []], "Input 'h' must hold one list of values in each row; got lists of"),
        ("h", ["1|2", "3", "4"], r"Input 'h' must have a list in every row; got str, such as '1\|2'. Split it into"),
        (
            "h",
            np.ones((3, 4), int),
            r"Input 'h' must have shape \(rows, 3\); got \(3, 4\). Or give lists of any length",
        ),
        ("h", [{1, 2}, {3}, set()], r"Input 'h' must have a list in every row; got set, such as \{1, 2\}"),
        ("h", np.array([1, 2, 3]), r"Input 'h' must have shape \(rows, 3\); got \(3,\)"),
        ("h", tf.sparse.from_dense([[1], [2], [3]]), "Input 'h' must be dense; got SparseTensor"),
        ("h", np.ma.masked_equal([[1, 2, 0]] * 3, 0), "Input 'h' must have no masked values; got 3 masked. Fill them"),
        (
            "h",
            pa.array([[1], None, [2]]),
            "Input 'h' must have a list in every row; got none in 1 of 3 rows, such as r",
        ),
        ("h", pa.array([[1, None], [2], []]), "Input 'h' must have no missing value in its lists; got 1 of 3"),
        (
            "h",
            pa.array([[[1, 2]], [[2]], []]),
            "Input 'h' must hold one list of values in each row; got lists of lists",
        ),
        ("h", "anything", "Input 'h' must be an array with a row for each example; got 'anything'"),
        ("h", (k for k in range(3)), "Input 'h' must be an array with a row for each example; got generator"),
        ("kind", [[1], [2], [3]], "Input 'kind' must have lists as long as those of 'h'; got 1 and 4 values in row 0"),
        ("kind", [[1], [2]], "The inputs must have equally many rows; got {'kind': 2, 'h': 3}"),
        ("w", [[0.5], [1.0], []], "Input 'w' must have lists as long as those of 'h'; got 1 and 4 values in row 0"),
        ("price", [[1.5, 2.5], [3.5], [4.5, 5.5]], "Input 'price' must have lists of 2 values; got lists of 1"),
        ("user", [[1], [2, 3], [4]], "Input 'user' must have one value in each row; got lists of 2"),
        ("user", pd.Series([1, None, 2], dtype="Int64"), "Input 'user' must have no missing value; got 1 missing of 3"),
        ("user", [1, None, 2], "Input 'user' must have no missing value; got 1 missing of 3. Drop or fill"),
        ("user", [1.0, np.nan, 2.0], "Input 'user' must have no missing value; got 1 missing of 3"),
        ("user", pa.array([1, None, 2]), "Input 'user' must have no missing value; got 1 missing of 3"),
    ],
)
def test_what_can_only_be_an_error_is_refused_by_name(name, values, message):
    with pytest.raises(ValueError, match=message):
        input_arrays(SHARED, {**LISTS, name: values})


def test_two_columns_of_one_name_are_refused_if_they_are_read():
    frame = pd.DataFrame([[[1], 2, 2]], columns=["h", "other", "other"])
    assert input_arrays(HISTORY, frame)["n"].tolist() == [1]
    with pytest.raises(ValueError, match=r"The columns of `x` must not repeat a name; got 'h' twice"):
        input_arrays(HISTORY, pd.DataFrame([[[1], [2]]], columns=["h", "h"]))
    with pytest.raises(ValueError, match=r"The columns of `x` must not repeat a name; got 'h' twice"):
        input_arrays(HISTORY, pa.table([pa.array([[1]])] * 2, names=["h", "h"]))


def test_what_is_no_frame_is_refused():
    for value, got in [(3, "int"), (pa.array([1]), r"\w+, which pyarrow can't read")]:
        with pytest.raises(
            ValueError, match=f"`x` must be .*a pandas or polars DataFrame, or an Arrow table; got {got}"
        ):
            columns_of("`x`", value)


@needs_polars
def test_a_lazy_frame_is_told_what_to_do():
    with pytest.raises(ValueError, match=r"`x` must be .*; got LazyFrame.*collect"):
        columns_of("`x`", pl.LazyFrame({"h": [1]}))


def test_text_beside_numbers_is_not_made_text():
    assert array_of("x", ["a", 1]).tolist() == ["a", 1]
    assert array_of("x", [["a"], [1]]).values.tolist() == ["a", 1]
    assert array_of("x", [np.array(["a"]), np.array([1])]).values.tolist() == ["a", 1]
    assert as_array(["a", None]).tolist() == ["a", None]


def test_integers_with_gaps_stay_integers():
    gap = [2**53 + 1, None]
    forms = [pd.Series(gap, dtype="Int64"), pd.array(gap, dtype="Int64"), pd.Index(gap, dtype="Int64")]
    forms += [pa.array(gap), pa.chunked_array([gap]), *([] if pl is None else [pl.Series(gap)])]
    for values in forms:
        array = as_array(values)
        assert array.tolist()[0] == 2**53 + 1, type(values)
        assert pd.isna(array).tolist() == [False, True]


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6), st.data())
def test_rows_of_lists_are_their_lists(lists, data):
    rows = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6))
    made = array_of("x", lists)
    assert isinstance(made, Lists)
    picked = made[np.array(rows, int)]
    ends = np.cumsum(picked.lengths)
    assert [part.tolist() for part in np.split(picked.values, ends[:-1])] == [lists[row] for row in rows] or not rows


# Models.


@pytest.fixture(scope="module")
def model():
    model = YoutubeDNN([history_column("recency+last")], [item_column()], num_sampled=5)
    model.compile(tf.keras.optimizers.SGD(0.05), sampledsoftmaxloss)
    model.first_weights = model.get_weights()
    return model


def lists_and_arrays(rows=48, seed=0):
    """The same examples as lists, longer than the model's 6 some of them, and as arrays."""
    rng = np.random.default_rng(seed)
    lists = [rng.integers(1, VOCABULARY, rng.integers(0, 9)).tolist() for _ in range(rows)]
    items = rng.integers(1, VOCABULARY, rows)
    arrays = {
        "hist_item": np.array([[*each, *[0] * 6][:6] for each in lists]),
        "hist_len": np.array([min(len(each), 6) for each in lists]),
        "item": items,
    }
    return {"hist_item": lists, "item": items.tolist()}, arrays


def trained(model, train):
    """The trained weights after a training from the model's first ones."""
    model.set_weights(model.first_weights)
    train()
    return [np.array(weight) for weight in model.trainable_weights]


def assert_equal(some, others, name):
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def batches_of(x, size=16):
    return [{name: values[k : k + size] for name, values in x.items()} for k in range(0, len(x["item"]), size)]


class Batches(tf.keras.utils.Sequence):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, place):
        return (self.batches[place],)


def ragged_dataset(x, size=16):
    features = {"hist_item": tf.ragged.constant(x["hist_item"], tf.int64, ragged_rank=1), "item": x["item"]}
    return tf.data.Dataset.from_tensor_slices(features).batch(size)


def whole(x):
    yield "lists", x
    yield "pandas", pd.DataFrame(x)
    yield "arrow", pa.table(x)
    yield "arrow reader", pa.table(x).to_reader()
    yield "ragged", next(iter(ragged_dataset(x, len(x["item"]))))
    if pl is not None:
        yield "polars", pl.DataFrame(x)


def in_batches(x):
    yield "record batches", iter(pa.table(x).to_batches(16)), {"steps_per_epoch": 3}
    yield "sequence", Batches([pd.DataFrame(batch) for batch in batches_of(x)]), {}
    yield "dataset", ragged_dataset(x), {}


def test_every_form_trains_as_arrays_do(model):
    x, arrays = lists_and_arrays()
    expected = trained(model, lambda: model.train_on_batch(arrays))
    in_order = [x["hist_item"], arrays["hist_len"], x["item"]]  # as `model.inputs` are
    for name, data in [*whole(x), ("in order", in_order)]:
        assert_equal(trained(model, lambda data=data: model.train_on_batch(data)), expected, name)


@pytest.mark.slow
def test_every_form_is_fitted_in_batches_as_arrays_are(model):
    x, arrays = lists_and_arrays()
    expected = trained(model, lambda: model.fit(arrays, batch_size=16, shuffle=False, verbose=0))
    for name, data, options in in_batches(x):
        fit = functools.partial(model.fit, data, shuffle=False, verbose=0, **options)
        assert_equal(trained(model, fit), expected, name)


@pytest.mark.slow
def test_frames_are_evaluated_and_held_out(model):
    x, arrays = lists_and_arrays()
    history = model.fit(arrays, validation_data=pa.table(x), batch_size=48, verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()
    assert np.isfinite(model.evaluate(pd.DataFrame(x), batch_size=48, verbose=0))
    assert model.predict(pa.table(x), verbose=0).shape == (48, 1)


def test_every_form_has_the_vectors_of_its_arrays(model):
    x, arrays = lists_and_arrays()
    expected = model.user_vectors(arrays)
    assert np.ptp(expected, axis=0).max() > 0.1
    for name, data in [*whole(x), ("dataset", ragged_dataset(x))]:
        np.testing.assert_allclose(model.user_vectors(data), expected, atol=1e-6, err_msg=name)


def test_vectors_of_a_dataset_come_in_its_order_whatever_its_batches(model):
    x, arrays = lists_and_arrays()
    expected = model.user_vectors(arrays)
    for data in (
        tf.data.Dataset.from_tensor_slices(arrays).batch(7),
        tf.data.Dataset.from_tensor_slices((arrays, np.zeros(48))).batch(48),
        ragged_dataset(x, 5),
    ):
        np.testing.assert_allclose(model.user_vectors(data, batch_size=10), expected, atol=1e-6)
    blocks = [model.user_vectors(batch) for batch in ragged_dataset(x, 20)]
    assert [len(block) for block in blocks] == [20, 20, 8]
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6)
    assert model.user_vectors(ragged_dataset(x).take(0)).shape == (0, DIM)


def test_datasets_without_user_vectors_are_refused(model):
    x, arrays = lists_and_arrays()
    arrays["hist_item"][20, 0] = VOCABULARY
    dataset = tf.data.Dataset.from_tensor_slices(arrays)
    for data, message in [
        (dataset.batch(8), "Input 'hist_item' must hold ids in 0..29"),
        (dataset, r"The dataset must be batched; got"),
        (ragged_dataset(x).unbatch(), r"The dataset must be batched; got 'hist_item'"),
        (dataset.batch(8).repeat(), "`x` must come to an end; got a dataset that repeats for ever"),
        (tf.data.Dataset.range(3), "`x` must hold dictionaries of user inputs"),
        (iter([arrays]), "`x` must be user inputs by name, .*Take the vectors of each batch by itself"),
        ([1, 2], "`x` must be user inputs by name, a frame or a tf.data.Dataset; got list"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.user_vectors(data)


def test_datasets_that_no_history_is_in_are_refused(model):
    x, arrays = lists_and_arrays()
    sparse = {**arrays, "hist_item": tf.sparse.from_dense(arrays["hist_item"])}
    with pytest.raises(ValueError, match=r"The dataset's 'hist_item' must be a tensor or ragged tensor; got Sparse"):
        model.fit(tf.data.Dataset.from_tensor_slices(sparse).batch(8), verbose=0)
    ragged = {**arrays, "item": tf.ragged.constant([[each] for each in x["item"]], tf.int64)}
    with pytest.raises(ValueError, match=r"The dataset's 'item' must be a tensor, or ragged in its second axis if"):
        model.fit(tf.data.Dataset.from_tensor_slices(ragged).batch(8), verbose=0)
    with pytest.raises(ValueError, match=r"The dataset must be batched; got 'hist_item'"):
        model.fit(ragged_dataset(x).unbatch(), verbose=0)


def test_ragged_batches_are_what_lists_are():
    ragged = {
        name: tf.ragged.constant(LISTS[name], tf.float32 if name == "w" else tf.int64, ragged_rank=1)
        for name in ("h", "kind", "w")
    }
    dense = dense_batch(SHARED, ragged)
    for name in ("h", "kind", "w"):
        assert dense[name].numpy().tolist() == EXPECTED[name]
    assert dense["n"].numpy().tolist() == [[3], [1], [0]]
    dense = dense_batch(SHARED, {**ragged, "n": tf.constant([[4], [1], [0]])})
    assert dense["n"].numpy().tolist() == [[3], [1], [0]]
    ragged["w"] = tf.ragged.constant([[[0.5], [1.0], [2.0], [4.0]], [[0.25]], []], ragged_rank=1, inner_shape=(1,))
    assert dense_batch(SHARED, ragged)["w"].numpy().tolist() == EXPECTED["w"]
    for name in ("kind", "w"):
        uneven = {**ragged, name: tf.cast(ragged["h"][:, 1:], ragged[name].dtype)}
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"Input '{name}' must hold lists as long as those"):
            dense_batch(SHARED, uneven)


def test_lists_beside_an_array_of_the_same_events_have_a_value_for_each():
    """They are as wide as the array, or as long as the row's length says; otherwise they would be filled and cut."""
    wide = {"h": np.array([[9, 8, 7], [5, 0, 0]]), "kind": np.array([[1, 0, 2], [3, 0, 0]]), "n": np.array([3, 1])}
    wide["w"] = np.array([[0.5, 1.0, 2.0], [0.25, 0.0, 0.0]])
    tensors = {name: tf.constant(values) for name, values in wide.items()}
    lists = {"h": [[9, 8, 7], [5]], "kind": [[1, 0, 2], [3]], "w": [[0.5, 1.0, 2.0], [0.25]]}
    wrong = {"w": [[[0.5], [0.25]], [[0.5] * 3, [0.25] * 9]], "kind": [[[1], [3]], [[1, 0, 2, 4], [3]]]}
    for name in ("w", "kind", "h"):
        for fitting in (lists[name], wide[name].tolist()):
            found = input_arrays(SHARED, {**wide, name: fitting})
            assert found[name].tolist() == wide[name].tolist()
            dense = dense_batch(SHARED, {**tensors, name: tf.ragged.constant(fitting)})
            assert dense[name].numpy().tolist() == wide[name].tolist()
        for other in wrong.get(name, []):
            rule = rf"Input '{name}' must {{}} lists of 3 values, or of as many as 'n' says, since 'h' is not in lists"
            with pytest.raises(ValueError, match=rule.format("have")):
                input_arrays(SHARED, {**wide, name: other})
            with pytest.raises(tf.errors.InvalidArgumentError, match=rule.format("hold")):
                dense_batch(SHARED, {**tensors, name: tf.ragged.constant(other)})


def test_a_length_is_counted_only_if_all_its_histories_are_lists():
    """Items of an array would be cut off after as many as the list of another history has."""
    x = {"h": np.array([[9, 8, 7]]), "w": np.ones((1, 3), "float32"), "kind": [[1, 0, 0]]}
    assert "n" not in input_arrays(SHARED, x)
    ragged = {**x, "kind": tf.ragged.constant(x["kind"])}
    spec = {
        name: tf.type_spec_from_value(tf.constant(v) if isinstance(v, np.ndarray) else v) for name, v in ragged.items()
    }
    assert "n" not in dense_spec(SHARED, spec)
    assert "n" not in dense_batch(SHARED, ragged)


def test_histories_of_the_same_events_are_equally_long_whether_their_length_is_given_or_not():
    x = {**LISTS, "kind": [[1], [0], []], "n": [4, 1, 0]}
    for data in (x, {**x, "w": np.ones((3, 3))}):
        with pytest.raises(ValueError, match=r"must have lists as long as those of '.*'; got . and . values in row 0"):
            input_arrays(SHARED, data)
        ragged = {
            name: tf.ragged.constant(values, ragged_rank=1) if isinstance(values, list) else tf.constant(values)
            for name, values in data.items()
            if name in ("h", "kind", "w")
        }
        with pytest.raises(tf.errors.InvalidArgumentError, match="must hold lists as long as those of"):
            dense_batch(SHARED, {**ragged, "n": tf.constant(x["n"])})


def test_callbacks_take_frames(model):
    x, arrays = lists_and_arrays()
    frame = pd.DataFrame(x)
    metrics, same = (RetrievalMetrics(user, x["item"], ns=[5], monitor="val_HR@5") for user in (frame, arrays))
    watch = TrainingWatch(pa.table(x), x["item"], num_users=20)
    history = model.fit(arrays, verbose=0, callbacks=[metrics, watch]).history
    assert history["val_HR@5"] == [same.set_model(model) or same.evaluate()["HR@5"]]
    assert len(watch.history["percentile"]) == 1


# Item features, interactions, files.


def test_item_features_come_in_any_frame():
    columns = [
        SparseFeat("maker", 7, 4),
        VarLenSparseFeat(SparseFeat("genres", 6, 4), 2, "mean", length_name="genres_len"),
    ]
    ids = list(range(VOCABULARY - 1, 0, -1))  # any order
    genres = [[k % 5 + 1] * (k % 4) for k in ids]
    plain = pd.DataFrame({"maker": [k % 7 for k in ids], "genres": genres}, index=ids)
    table = {"item": ids, "maker": plain["maker"].tolist(), "genres": genres}
    by_id = {"maker": [0, *plain["maker"][::-1]], "genres": [[], *genres[::-1]]}
    forms = [plain, pa.table(table), by_id] + ([] if pl is None else [pl.DataFrame(table)])
    read = read_columns("columns", columns)
    catalogues = [read_catalogue("item", read, form, VOCABULARY) for form in forms]
    for name in ("maker", "genres", "genres_len"):
        for each in catalogues:
            np.testing.assert_array_equal(each[name], catalogues[0][name])
    assert catalogues[0]["genres"][[0, 1, 3]].tolist() == [[0, 0], [2, 0], [4, 4]]
    assert catalogues[0]["genres_len"][[0, 1, 3]].ravel().tolist() == [0, 1, 2]
    YoutubeDNN([history_column()], [item_column(), *columns], item_features=pa.table(table))
    for form, message in [
        (pa.table({"maker": [1], "genres": [[1]]}), "`item_features` must have the item ids in a column 'item'"),
        (pa.table({**table, "item": [1] * 29}), "'item' in `item_features` must hold each item id once"),
        (pa.table({**table, "genres": [None, *genres[1:]]}), "In `item_features`: Input 'genres' must have a list in"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_catalogue("item", read, form, VOCABULARY)


MOMENTS = [datetime.datetime(2024, 1, day, tzinfo=datetime.timezone.utc) for day in (3, 1, 2)]
EVENTS = {"user_id": ["b", "a", "b"], "item_id": [7, 7, 5], "timestamp": MOMENTS, "rating": [1.0, 2.0, 3.0]}


def test_interactions_come_in_any_frame():
    expected = Interactions.from_frame(pd.DataFrame(EVENTS), side="rating")
    frames = [pa.table(EVENTS), pa.table(EVENTS).to_pandas(types_mapper=pd.ArrowDtype)]
    frames += (
        [] if pl is None else [pl.DataFrame(EVENTS), pl.DataFrame(EVENTS, schema_overrides={"item_id": pl.UInt32})]
    )
    for frame in frames:
        made = Interactions.from_frame(frame, side="rating")
        for name in ("users", "items", "times"):
            np.testing.assert_array_equal(getattr(made, name), getattr(expected, name))
        assert made.side["rating"].tolist() == [2.0, 3.0, 1.0]
        assert made.user_ids == expected.user_ids
    for change, message in [
        ({"user_id": ["b", None, "b"]}, "column 'user_id' must have no missing value; got 1"),
        ({"item_id": [7, None, 5]}, "column 'item_id' must have no missing value; got 1"),
        ({"item_id": [[7], [7, 5], [5]]}, "column 'item_id' must have one value in each row; got lists"),
        ({"timestamp": [*MOMENTS[:2], None]}, "column 'timestamp' must have no missing value; got 1"),
        ({"rating": ["1", "2", "3"]}, "column 'rating' must be numeric"),
    ]:
        with pytest.raises(ValueError, match=message):
            Interactions.from_frame(pa.table({**EVENTS, **change}), side="rating")


def test_moments_with_a_time_zone_come_in_utc_from_any_frame():
    column = pd.Series(pd.to_datetime(["2024-01-01", None]).tz_localize("Asia/Tokyo"))
    for moments in (column, pd.Index(column), pa.array(column)):
        made = array_of("x", moments)
        np.testing.assert_array_equal(made, np.array(["2023-12-31T15", None], "datetime64[s]"))
        assert made.dtype.kind == "M"


def test_leaks_are_found_in_any_frame():
    columns = {"user_id": [1, 2], "item_id": [4, 5], "hist_item_id": [[3, 2, 1], []], "time": [10, 20]}
    train = {**columns, "hist_item_id": np.array([[3, 2, 1], [0, 0, 0]])}
    test = {"user_id": [1, 2], "item_id": [6, 7], "hist_item_id": [[4, 6], [5]], "time": [30, 40]}
    forms = [dict, pd.DataFrame, pa.table] + ([] if pl is None else [pl.DataFrame])
    # User 1 has the items 1, 2, 3, 4 and 6, user 2 the items 5 and 7.
    x = Interactions.from_sequences([0, 5, 7], [1, 2, 3, 4, 6, 5, 7], [1, 2, 3, 10, 30, 20, 40])
    found = [str(find_leaks({"train": form(columns), "test": form(test)}, x, time="time")) for form in forms]
    found.append(str(find_leaks({"train": train, "test": test}, x, time="time")))
    assert "leak: 1 of 2 rows of test with their own target in the history. Row 0: user 1, item 6" in found[0]
    assert set(found) == {found[0]}
    with pytest.raises(
        ValueError, match="column 'hist_item_id' of test must have a list in every row; got none in row"
    ):
        find_leaks({"train": train, "test": {**test, "hist_item_id": [None, [5]]}}, x)
    with pytest.raises(ValueError, match="column 'item_id' of test must have one value in each row; got lists"):
        find_leaks({"train": train, "test": {**test, "item_id": [[6], [7, 8]]}}, x)


def test_batches_are_converted_in_workers(model):
    x, arrays = lists_and_arrays()
    columns = read_columns("columns", [history_column("recency+last"), item_column()])
    check = ArrayReader.of(columns, model.inputs, "item").batch
    (expected, labels), (inputs, _) = check((arrays,)), check(pd.DataFrame(x))
    assert labels.shape == (48, 1)
    for name, values in expected.items():
        np.testing.assert_array_equal(inputs[name], values)


def test_a_worker_refuses_what_is_refused_anywhere(model):
    _, arrays = lists_and_arrays()
    columns = read_columns("columns", [history_column("recency+last"), item_column()])
    check = ArrayReader.of(columns, model.inputs, "item").batch
    labels = np.zeros(48)
    for batch in (
        {**arrays, "item": arrays["item"] * 0},
        (arrays, labels[:5]),
        (arrays, labels, labels[:5]),
        (arrays, labels, labels + np.nan),
        {name: values[:0] for name, values in arrays.items()},
    ):
        with pytest.raises(ValueError, match=" must ") as one:
            check(batch)
        with pytest.raises(ValueError, match=" must ") as other:
            model.train_on_batch(*batch if isinstance(batch, tuple) else (batch,))
        assert str(one.value) == str(other.value)


def test_ids_come_in_any_column():
    columns = [pa.array(["b", "a"]), pa.chunked_array([["b"], ["a"]]), pd.Series(["b", "a"], dtype="category")]
    for column in columns + ([] if pl is None else [pl.Series(["b", "a"])]):
        ids = IdMap.from_values(column)
        assert ids.values.tolist() == ["a", "b"]
        assert ids.encode(column).tolist() == [2, 1]
    assert ids.encode(pa.array(["a", None])).tolist() == [1, 0]


@pytest.mark.parametrize("form", [name for name in FRAMES if name != "Arrow reader"])
def test_metadata_comes_in_any_frame(form, tmp_path):
    metadata = {name: LISTS[name] for name in ("city", "user", "h")}
    write_vectors(tmp_path / "v.parquet", pa.array([1, 2, 3]), np.eye(3), metadata=FRAMES[form](LISTS))
    found = read_vectors(tmp_path / "v.parquet").metadata
    for name, values in metadata.items():
        assert [each.tolist() if isinstance(each, np.ndarray) else each for each in found[name]] == values


def test_parquet_lists_of_text(tmp_path):
    path = str(tmp_path / "lists.parquet")

    pa.parquet.write_table(pa.table({"h": [["Lund", "Umeå", "x"], [], ["y"]]}), path)
    (batch,) = parquet_dataset(path, 3, max_len=2, shuffle_rows=0)
    assert batch["h"].numpy().tolist() == [[b"Lund", "Umeå".encode()], [b"0", b"0"], [b"y", b"0"]]


def test_records_are_written_of_any_frame(tmp_path):
    specs = {"h": tf.TensorSpec([2], tf.int64), "item": tf.TensorSpec([], tf.int64)}
    for place, make in enumerate([dict, pd.DataFrame, pa.table]):
        data = make({"h": [[1, 2], [3, 4]], "item": [5, 6]})
        paths = write_tfrecords(data, tmp_path / str(place))
        (batch,) = tfrecord_dataset(paths, specs, 2, shuffle_rows=0)
        assert batch["h"].numpy().tolist() == [[1, 2], [3, 4]]
        assert batch["item"].numpy().tolist() == [5, 6]
    with pytest.raises(ValueError, match="column 'h' must have as many values in every row; got lists of 1 to 2 valu"):
        write_tfrecords({"h": [[1, 2], [3]]}, tmp_path / "uneven")


def test_without_pyarrow_the_command_is_named(monkeypatch):
    class Table:
        def __arrow_c_stream__(self, requested_schema=None):
            raise AssertionError

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'`x`, a table, needs pyarrow: pip install "pyarrow"'):
        columns_of("`x`", Table())
    arrays = input_arrays(SHARED, pd.DataFrame(LISTS))  # pandas needs none
    assert arrays["n"].tolist() == EXPECTED["n"]


READ_BY_ID = {
    "counts": (Popularity, lambda read: read.item_counts),
    "vectors": (lambda values: top_n(np.ones((1, 2)), pd.concat([values] * 2, axis=1), 3), lambda lists: lists[0]),
    "categories": (category_codes, lambda codes: codes),
    "groups": (lambda values: check_item_groups(values, 4), lambda groups: groups),
}


@pytest.mark.parametrize("what", READ_BY_ID)
def test_what_has_a_row_for_each_id_is_read_by_its_index(what):
    read, seen = READ_BY_ID[what]
    values = pd.Series([0.0, 3.0, 1.0, 2.0])
    np.testing.assert_array_equal(seen(read(values.sort_values())), seen(read(values)))
    with pytest.raises(ValueError, match=r"have the ids 0..3 as its index, .*; got an index of 1, 2, 3 and 1 more"):
        read(values.set_axis([1, 2, 3, 4]))


def test_arrays_of_item_features_are_read_by_their_ids():
    columns = read_columns("columns", [SparseFeat("genre", 9)])
    genres = [0, 5, 6, 7]  # by item id

    def read(features):
        return read_catalogue("item", columns, features, 4)["genre"].ravel().tolist()

    order = np.array([3, 1, 2])
    assert read({"item": order, "genre": np.array(genres)[order]}) == genres
    assert read({"item": [[2], [0], [1]], "genre": [6, 0, 5]}) == [0, 5, 6, 0]
    assert read({"genre": pd.Series(genres)[[3, 1, 2, 0]]}) == genres
    for features, message in [
        ({"item": [1, 2, 2], "genre": [5, 6, 7]}, "'item' in `item_features` must hold each item id once"),
        ({"item": [1, 2, 4], "genre": [5, 6, 7]}, "'item' in `item_features` must hold item ids in 0..3; got 1..4"),
        ({"item": [1, 2], "genre": [5, 6, 7]}, "'genre' in `item_features` must have a row for each of 2 ids; got 3"),
        ({"genre": pd.Series(genres, [1, 2, 3, 4])}, "'genre' in `item_features` must have the ids 0..3 as its index"),
    ]:
        with pytest.raises(ValueError, match=message):
            read(features)
