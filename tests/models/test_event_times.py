"""Times that the inputs give: their order is a rule of the input, and they go with the events of lists."""

import contextlib
import warnings

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from deepmatch_ext import SequenceDNN
from deepmatch_ext.features import input_shapes, read_columns
from deepmatch_ext.models._input_rules import EventTimes, check_batch, check_model_input

SIZE, DIM, LENGTH = 20, 8, 4
ITEMS = [SparseFeat("item", SIZE, DIM)]
STARS = VarLenSparseFeat(SparseFeat("hist_stars", 6, 3), LENGTH, "mean", "len", weight_name="sure", weight_norm=False)
USER = [
    VarLenSparseFeat(SparseFeat("hist_item", SIZE, DIM, embedding_name="item"), LENGTH, length_name="len"),
    DenseFeat("hist_time", LENGTH, "int64"),
    DenseFeat("time", 1, "int64"),
]
RISING = r"Input .*hist_time.* must hold times that do not rise from one event to the next, most recent first"
EARLY = r"Input \W*time\W* must hold no time before that of an event, in the same unit"


@pytest.fixture(scope="module")
def model():
    model = SequenceDNN([*USER, STARS], ITEMS, history_times="hist_time", request_time="time")
    rng = np.random.default_rng(1)
    model.set_weights([w + (rng.normal(0, 0.2, w.shape) if w.dtype.kind == "f" else 0) for w in model.get_weights()])
    model.compile("sgd", run_eagerly=True)
    return model


def rows():
    return {
        "hist_item": np.array([[7, 5, 3, 0], [2, 0, 0, 0], [0, 0, 0, 0]]),
        "hist_stars": np.array([[1, 2, 3, 0], [4, 0, 0, 0], [0, 0, 0, 0]]),
        "sure": np.array([[0.5, 1, 2, 0], [1.5, 0, 0, 0], [0, 0, 0, 0]], "float32")[..., np.newaxis],
        "len": np.array([3, 1, 0]),
        "hist_time": np.array([[90, 90, 40, 0], [-70, 0, 0, 0], [0, 0, 0, 0]]),
        "time": np.array([95, -70, 3]),
        "item": np.array([4, 5, 6]),
    }


def without_item(x):
    return {name: values for name, values in x.items() if name != "item"}


def wrong(name):
    x = rows()
    if name == "hist_time":
        x["hist_time"][0, 2] = 91
        x["time"] = np.array([99, -70, 3])
    else:
        x["time"] = x["time"] - np.array([6, 0, 0])
    return x


@pytest.mark.parametrize(("name", "message"), [("hist_time", RISING), ("time", EARLY)])
def test_times_in_another_order_are_refused_where_targets_are_known_and_told_of_elsewhere(model, name, message):
    x = wrong(name)
    before = {each: values.copy() for each, values in x.items()}
    for call in (model.fit, model.evaluate, model.predict, model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=f"{message}; got others in row 0"):
            call(x)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(3)
    for call in (model.fit, model.evaluate):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            call(dataset, verbose=0)
    for given_users in (without_item(x), dataset):
        with pytest.warns(UserWarning, match=message.replace("must", "should")):
            model.user_vectors(given_users)
    for each, values in before.items():
        np.testing.assert_array_equal(x[each], values)


def test_padding_and_places_behind_the_length_have_no_time(model):
    x = rows()
    x["hist_time"][0, 3], x["hist_time"][2] = 99, [1, 2, 3, 4]
    assert np.isfinite(model.evaluate(tf.data.Dataset.from_tensors(x), verbose=0))
    x["hist_item"][1, 1], x["hist_stars"][1, 1], x["hist_time"][1, 1] = 8, 1, 9  # behind the length
    with pytest.warns(UserWarning, match="has rows with more ids"):
        assert np.isfinite(model.evaluate(x, verbose=0))


@given(st.data())
def test_arrays_and_tensors_have_one_rule(data):
    columns = read_columns("columns", [*USER, *ITEMS])

    def draw(shape, low, high):
        return data.draw(npst.arrays(np.int64, shape, elements=st.integers(low, high)))

    number = data.draw(st.integers(1, 3))
    x = {
        "hist_item": draw((number, LENGTH), 0, 1),
        "len": draw((number, 1), 0, LENGTH),
        "hist_time": draw((number, LENGTH), 0, 3),
        "time": draw((number, 1), -1, 3),
        "item": np.ones((number, 1), int),
    }
    if data.draw(st.booleans(), "sorted"):
        x["hist_time"] = -np.sort(-x["hist_time"], axis=1)
    asked = data.draw(st.sampled_from([None, "time"]))
    times = EventTimes(columns[0], "hist_time", asked)
    in_order = True
    for row in range(number):
        latest = x["time"][row, 0] if asked else np.inf
        for place in range(x["len"][row, 0]):
            if x["hist_item"][row, place]:
                in_order &= bool(x["hist_time"][row, place] <= latest)
                latest = x["hist_time"][row, place]

    errors = (ValueError, tf.errors.InvalidArgumentError)
    refused = pytest.raises(errors, match=r"times that do not rise|no time before")
    shapes = {name: shape for column in columns for name, (shape, _) in input_shapes(column).items()}
    batch = {name: tf.constant(values) for name, values in x.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input 'hist_item' has rows with more ids")
        for check in (
            lambda: check_model_input(columns, x, ["item"], times),
            lambda: check_batch(columns, batch, shapes, ["item"], times),
        ):
            with contextlib.nullcontext() if in_order else refused:
                check()


@pytest.mark.parametrize("form", ["lists", "frame", "ragged", "dataset"])
def test_times_in_lists_go_with_their_events(model, form):
    expected = model.user_vectors(without_item(rows()))
    lists = {
        "hist_item": [[0, 7, 0, 5, 3], [2], []],
        "hist_stars": [[0, 1, 0, 2, 3], [4], []],
        "sure": [[9.0, 0.5, 9.0, 1.0, 2.0], [1.5], []],
        "hist_time": [[94, 90, 90, 90, 40], [-70], []],
        "time": [95, -70, 3],
    }
    too_long = {"sure": [1.0] * 10, "time": 9}
    longer = {name: [*values, too_long.get(name, [1] * 10)] for name, values in lists.items()}
    if form == "frame":
        longer = pd.DataFrame(longer)
    elif form != "lists":
        longer = {name: tf.constant(v) if name == "time" else tf.ragged.constant(v) for name, v in longer.items()}
    if form == "dataset":
        longer = tf.data.Dataset.from_tensors(longer)
    found = model.user_vectors(longer)
    assert len(found) == 4
    np.testing.assert_allclose(found[:3], expected, atol=1e-6)


def test_times_and_events_come_in_one_form_with_one_length(model):
    lists = {"hist_item": [[7, 5], [2]], "hist_stars": [[1, 2], [4]], "sure": [[1.0, 1.0], [1.0]], "time": [9, 9]}
    array = np.array([[8, 7, 0, 0], [6, 0, 0, 0]])
    message = "Input 'hist_time' must be lists, as 'hist_item' is"
    ragged = {name: tf.constant(v) if name == "time" else tf.ragged.constant(v) for name, v in lists.items()}
    for x in (lists, ragged):
        with pytest.raises(ValueError, match=message):
            model.user_vectors({**x, "hist_time": array})
    with pytest.raises(ValueError, match=message):
        model.user_vectors(tf.data.Dataset.from_tensors({**ragged, "hist_time": tf.constant(array)}))
    with pytest.raises(ValueError, match="Input 'hist_time' must have lists as long as those of 'hist_item'"):
        model.user_vectors({**lists, "hist_time": [[8, 7], [6, 5]]})
    other = tf.data.Dataset.from_tensors({**ragged, "hist_time": tf.ragged.constant([[8, 7], [6, 5]])})
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"hist_time.* must hold lists as long as those of "):
        model.user_vectors(other)
    dense = {**ragged, "hist_stars": tf.constant([[1, 2, 0, 0], [4, 0, 0, 0]]), "sure": tf.ones([2, 4]), "len": [2, 1]}
    other = tf.data.Dataset.from_tensors({**dense, "hist_time": tf.ragged.constant([[8], [6]])})
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"hist_time.* must hold lists as long as those of "):
        model.user_vectors(other)
    arrays = {name: values[:2] for name, values in without_item(rows()).items()}
    for times in ([[90, 90, 40], [-70]], [[90, 90, 40], [-70, 0, 0]]):
        for x in ({**arrays, "hist_time": times}, {**arrays, "hist_time": tf.ragged.constant(times)}):
            with pytest.raises(ValueError, match="Input 'hist_time' must be an array, as 'hist_item' is; got lists"):
                model.user_vectors(x)
        with pytest.raises(ValueError, match="Input 'hist_time' must be an array, as 'hist_item' is; got lists"):
            model.user_vectors(tf.data.Dataset.from_tensors({**arrays, "hist_time": tf.ragged.constant(times)}))
    as_wide = {**arrays, "hist_time": arrays["hist_time"].tolist()}
    np.testing.assert_array_equal(model.user_vectors(as_wide), model.user_vectors(arrays))


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["9|8", "4"], r"must have a list in every row; got str.*Split it"),
        ([None, None], "must have a list in every row; got 2 missing"),
        (
            [[pd.Timestamp("2026-01-02"), pd.Timestamp("2026-01-01")], [pd.Timestamp("2026-01-01")]],
            r"must be of dtype int64; .*gives seconds",
        ),
    ],
    ids=["text", "none", "datetimes"],
)
def test_what_no_times_are_is_told_as_for_a_history(model, times, message):
    lists = {"hist_item": [[7, 5], [2]], "hist_stars": [[1, 2], [4]], "sure": [[1.0, 1.0], [1.0]], "time": [9, 9]}
    with pytest.raises(ValueError, match=f"Input 'hist_time' {message}"):
        model.user_vectors(pd.DataFrame({**lists, "hist_time": times}))


def test_no_rows_need_no_lists(model):
    empty = tf.ragged.constant([], dtype=tf.int32, ragged_rank=1)
    stars = {"hist_stars": empty, "sure": tf.cast(empty, tf.float32)}
    assert model.user_vectors({"hist_item": empty, **stars, "hist_time": [], "time": []}).shape == (0, DIM)


def test_of_many_rows_the_first_in_another_order_is_named(model):
    number = 70_000
    x = {name: np.repeat(values[:1], number, axis=0) for name, values in rows().items()}
    x["hist_time"][[66_000, 67_000], 1] = 95
    with pytest.raises(ValueError, match=r"'hist_time' must hold .*; got others in row 66000 and 1 more"):
        model.evaluate(x)
    with pytest.warns(UserWarning, match="should hold") as told:
        model.user_vectors({name: values[66_000:66_001] for name, values in without_item(x).items()})
    assert len(told) == 1
