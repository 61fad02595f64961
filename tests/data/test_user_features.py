"""What is known of each user, the context of a target, and weights: in windows, histories and pipelines."""

import pickle

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.data import (
    IdMap,
    Interactions,
    parquet_dataset,
    tfrecord_dataset,
    user_histories,
    window_dataset,
    windows,
    write_tfrecords,
)

EVENTS = pd.DataFrame(
    [("b", 7, 30, 9, 0.5), ("a", 9, 20, 14, 2.0), ("b", 5, 10, 8, 1.0), ("a", 7, 21, 15, 0.0)],
    columns=["user_id", "item_id", "timestamp", "hour", "price"],
)
USERS = pd.DataFrame({"age": [30, 40, 50], "likes": [[2], [3, 1], []]}, index=["b", "a", "of no event"])
X = Interactions.from_frame(EVENTS, side=["hour", "price"])  # a: 9 then 7; b: 5 then 7
KNOWN = X.with_user_features(USERS)


def test_windows_and_histories_have_them():
    cut = windows(KNOWN, [3, 0], 2)
    assert list(cut) == ["user_id", "item_id", "hist_item_id", "hist_len", "age", "likes"]
    assert cut["user_id"].tolist() == [2, 1]
    assert cut["age"].tolist() == [30, 40]
    assert cut["likes"].tolist() == [[2, 0], [3, 1]]  # padded to the longest
    now = user_histories(KNOWN, [2, 0, 1], 2)
    assert now["age"].tolist() == [30, 0, 40]  # an unknown user has 0
    assert now["likes"].tolist() == [[2, 0], [0, 0], [3, 1]]
    assert list(windows(X, [0], 2)) == ["user_id", "item_id", "hist_item_id", "hist_len"]  # the first stays as it was
    assert pickle.loads(pickle.dumps(KNOWN)).user_features["age"].tolist() == [0, 40, 30]
    assert KNOWN.with_user_features(USERS[["age"]] + 1).user_features["age"].tolist() == [0, 41, 31]


@given(st.permutations(range(4)), st.sampled_from(["index", "column", "arrow"]))
def test_rows_in_any_order_and_of_any_frame(order, form):
    table = USERS.iloc[[row for row in order if row < 3]]
    before = table.copy()
    frame = table
    if form != "index":
        frame = table.rename_axis("user_id").reset_index()
    if form == "arrow":
        frame = pytest.importorskip("pyarrow").table(frame)
    features = X.with_user_features(frame).user_features
    assert features["age"].tolist() == [0, 40, 30]
    assert features["likes"].tolist() == [[0, 0], [3, 1], [2, 0]]
    pd.testing.assert_frame_equal(table, before)


def test_they_are_apart_from_the_callers_frame():
    table = USERS[["age"]].copy()
    x = X.with_user_features(table)
    table.loc["a", "age"] = 0
    assert x.user_features["age"].tolist() == [0, 40, 30]
    with pytest.raises(ValueError, match="read-only"):
        x.user_features["age"][0] = 1


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (USERS.loc[["b", "b", "a"]], "the index of user features must hold each user once; got 'b' more than once"),
        (USERS.loc[["b"]], "must have a row for each user with events; got none for 1 of 2, 'a'"),
        (
            USERS.assign(age=[1, np.nan, 2]),
            "column 'age' of user features must have no missing value; got 1 missing of 3",
        ),
        (USERS.assign(age=[1, np.inf, 2]), "column 'age' of user features must hold finite numbers; got infinity"),
        (USERS.assign(age=["x", "y", None]), "column 'age' of user features must have no missing value"),
        (USERS.assign(age=list("xyz")), r"column 'age' of user features must hold numbers; .*IdMap\.from_values"),
        (
            USERS.assign(age=True, likes=[[1], None, [2]]),
            "column 'likes' of user features must have a list in every row",
        ),
        (USERS.assign(likes=[["x"], ["y"], []]), "column 'likes' of user features must hold numbers"),
        (
            USERS.set_axis([1, 2, 3]),
            "the index of user features must hold raw user ids, strings; got integers, 1, 2, 3",
        ),
        (USERS.set_axis(["a", "b", None]), "the index of user features must have no missing value"),
        (USERS[[]], "the frame of user features must have a column besides the users; got none"),
        (USERS.assign(item_id=1), "must not repeat a name; got 'item_id' twice"),
        (
            {"age": [1, 2]},
            "the frame of user features must be a pandas or polars DataFrame, or an Arrow table; got dict",
        ),
    ],
)
def test_frames_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        X.with_user_features(frame)


def test_columns_by_user_id_are_checked():
    same = {
        "users": X.users,
        "items": X.items,
        "times": None,
        "side": {},
        "user_ids": X.user_ids,
        "item_ids": X.item_ids,
    }
    assert windows(Interactions(**same, user_features={"age": [0, 5, 6]}), [0], 1)["age"].tolist() == [5]
    for values, rule in [
        ([0, 1], "be numbers by user id, 3 rows"),
        (list("abc"), "be numbers"),
        ([0, 1, np.nan], "be finite"),
    ]:
        with pytest.raises(ValueError, match=f"user feature 'age' must {rule}"):
            Interactions(**same, user_features={"age": values})
    with pytest.raises(ValueError, match="`user_features` must map names to values by user id"):
        Interactions(**same, user_features=[1])


def test_the_context_and_the_weight_are_those_of_the_target():
    cut = windows(X, [1, 2], 2, side=["hour"], context=["hour"], weight="price")
    assert list(cut) == ["user_id", "item_id", "hist_item_id", "hist_len", "hist_hour", "hour", "sample_weight"]
    assert cut["hist_hour"].tolist() == [[14, 0], [0, 0]]
    assert cut["hour"].tolist() == [15, 8]
    assert cut["sample_weight"].tolist() == [0, 1]
    assert cut["sample_weight"].dtype == np.float32
    assert "hour" not in user_histories(X, [1], 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"context": ["rating"]},
            r"context column 'rating' must be a side column of the interactions; got \['hour', 'pri",
        ),
        ({"context": ["hour", "hour"]}, "the columns of the input must not repeat a name; got 'hour' twice"),
        ({"context": "age"}, "context column 'age' must be a side column"),
        ({"weight": "rating"}, "weight column 'rating' must be a side column of the interactions"),
        ({"weight": ["price"]}, "`weight` must be text, and not empty"),
        (
            {"weight": "off"},
            "weight column 'off' must hold finite numbers that are not negative; got 1 others, such as -1",
        ),
        ({"weight": "endless"}, "weight column 'endless' must hold finite numbers .* such as inf"),
    ],
)
def test_contexts_and_weights_refused(options, message):
    frame = EVENTS.assign(off=[1, 1, -1, 1], endless=[1, np.inf, 1, 1])
    x = Interactions.from_frame(frame, side=["hour", "price", "off", "endless"])
    for call in (windows, lambda x, rows, max_len, **options: window_dataset(x, rows, max_len, 1, **options)):
        with pytest.raises(ValueError, match=message):
            call(x, [1], 2, **options)


def test_a_name_is_either_of_the_user_or_of_the_event():
    x = X.with_user_features(USERS.rename(columns={"age": "hour"}))
    with pytest.raises(ValueError, match="the columns of the input must not repeat a name; got 'hour' twice"):
        windows(x, [1], 2, context=["hour"])


@pytest.mark.slow
@pytest.mark.once
def test_pipelines_give_what_windows_give(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    options = {"side": ["hour"], "context": ["hour"], "weight": "price"}
    expected = windows(KNOWN, [1, 2, 3], 2, **options)
    prefix = write_tfrecords(expected, tmp_path / "records")
    lists = {name: values.tolist() if values.ndim > 1 else values for name, values in expected.items()}
    pq.write_table(pytest.importorskip("pyarrow").table(lists), tmp_path / "rows.parquet")
    window = window_dataset(KNOWN, [1, 2, 3], 2, 2, shuffle=False, **options)
    specs = {name: spec.__class__(spec.shape[1:], spec.dtype) for name, spec in window.element_spec[0].items()}
    specs["sample_weight"] = window.element_spec[2].__class__([], "float32")
    datasets = [
        window,
        parquet_dataset(tmp_path / "rows.parquet", 2, max_len=2, shuffle_rows=0, weight="sample_weight"),
        tfrecord_dataset(prefix, specs, 2, shuffle_rows=0, weight="sample_weight"),
    ]
    weights = expected.pop("sample_weight")
    for dataset in datasets:
        batches = list(dataset)
        assert [len(batch) for batch in batches] == [3, 3]  # x, y, sample_weight
        for name, values in expected.items():
            got = np.concatenate([x[name].numpy() for x, _, _ in batches])
            np.testing.assert_array_equal(got, values)
        assert set(batches[0][0]) == set(expected)
        assert [y.numpy().tolist() for _, y, _ in batches] == [[[1], [1]], [[1]]]
        assert np.concatenate([w.numpy() for _, _, w in batches]).tolist() == weights.tolist()
    with pytest.raises(ValueError, match=r"`data` must hold dictionaries.*'sample_weight': w"):
        write_tfrecords(datasets[0], tmp_path / "others")
    with pytest.raises(ValueError, match="`weight` must be one of 'user_id'"):
        parquet_dataset(tmp_path / "rows.parquet", 2, max_len=2, weight="price")
    with pytest.raises(ValueError, match="column 'likes', the weight, must be a number in each row"):
        tfrecord_dataset(prefix, specs, 2, weight="likes")
    with pytest.raises(ValueError, match="`columns` must name a column beside the weight; got none"):
        parquet_dataset(tmp_path / "rows.parquet", 2, columns=["sample_weight"], weight="sample_weight")
    assert IdMap.from_values(EVENTS["user_id"]) == X.user_ids


@pytest.fixture(scope="module")
def model():
    """One that reads a history of each kind, a user feature and a context."""
    item = [SparseFeat("item_id", 5, 4)]
    histories = [
        VarLenSparseFeat(
            SparseFeat(f"hist_item_id_{kind}", 5, 4, embedding_name="item_id"), 3, "mean", f"hist_len_{kind}"
        )
        for kind in ("buy", "see")
    ]
    model = YoutubeDNN([*histories, SparseFeat("hour", 24, 4), DenseFeat("age", 1)], item, num_sampled=3)
    model.compile("sgd")
    return model


def shop():
    """Interactions with all of it: user 1 buys 4 things, and sees them before."""
    columns = {"user_id": 1, "item_id": [1, 1, 2, 2, 3, 3, 4, 4], "timestamp": range(8), "hour": range(8, 16)}
    frame = pd.DataFrame({**columns, "event": ["see", "buy"] * 4, "none": 0.0, "all": 1.0})
    x = Interactions.from_frame(frame, kind="event", targets="buy", side=["hour", "none", "all"])
    return x.with_user_features(pd.DataFrame({"age": [0.3]}, index=[1]))


@pytest.mark.slow
@pytest.mark.once
def test_a_model_trains_with_all_of_it(model):
    x = shop()
    rows = np.flatnonzero(x.is_target)

    def batches(weight):
        return window_dataset(x, rows, 3, 4, context=["hour"], weight=weight)

    before = model.get_weights()
    with pytest.raises(ValueError, match=r"^weight column 'none' must be above 0 in at least one of the rows; got 0"):
        batches("none")
    unweighted = batches("all").map(lambda columns, labels, weights: (columns, labels, 0 * weights))
    with pytest.warns(UserWarning, match=r"^The loss was 0 in every epoch, so the model has learnt nothing"):
        assert model.fit(unweighted, verbose=0).history["loss"] == [0]  # nothing counts, so nothing changes
    for one, other in zip(before, model.get_weights(), strict=True):
        if one.dtype == np.float32 and one.ndim:
            np.testing.assert_array_equal(one, other)
    assert model.fit(batches("all"), verbose=0).history["loss"][0] > 0.1
    assert model.user_vectors({**user_histories(x, [1, 0], 3), "hour": np.array([9, 9])}).shape == (2, 4)


def test_weights_that_nothing_reads_are_told_of(model):
    arrays = windows(shop(), [1], 3, context=["hour"], weight="all")
    reader = model._reader.value
    with pytest.warns(UserWarning, match="'sample_weight', which is not read there") as told:
        reader.read(pd.DataFrame({name: list(values) for name, values in arrays.items()}))
    assert told[0].filename == __file__
    with pytest.warns(UserWarning, match="'sample_weight', which is not read there"):
        reader.read(tf.data.Dataset.from_tensors(arrays))
    model.user_vectors(arrays)  # which asks for none
    del arrays["sample_weight"]
    reader.read(arrays)
