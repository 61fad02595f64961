"""Models that every position of a history trains."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepmatch_ext import HSTU, GRU4Rec, SASRec, SequenceDNN, data
from deepmatch_ext._keras import keras
from deepmatch_ext.models import Assembly, builder
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.samplers import FullSampler
from deepmatch_ext.serving import export_recommender
from deepmatch_ext.testing._checks.tables import whole_tables
from deepmatch_ext.testing._trial import Trial

SIZE, DIM, LENGTH, ROWS = 20, 8, 5, 4
ITEMS = [SparseFeat("item", SIZE, DIM)]
HISTORY = VarLenSparseFeat(SparseFeat("hist_item", SIZE, DIM, embedding_name="item"), LENGTH, length_name="len")
USER = [
    HISTORY,
    VarLenSparseFeat(SparseFeat("hist_stars", 6, 3), LENGTH, "mean", "len", weight_name="sure", weight_norm=False),
    SparseFeat("city", 7, 4),
    DenseFeat("age", 1),
]
TIMES = {"history_times": "hist_time", "request_time": "time"}
TIMED = [*USER, DenseFeat("hist_time", LENGTH, "int64"), DenseFeat("time", 1, "int64")]
DESCRIBED = [*ITEMS, SparseFeat("genre", 5, DIM), DenseFeat("price", 1)]
OF_ITEMS = {
    "genre": np.random.default_rng(1).integers(1, 5, SIZE).astype("int32"),
    "price": np.random.default_rng(2).normal(size=(SIZE, 1)).astype("float32"),
}
MODELS = {
    "SequenceDNN": functools.partial(SequenceDNN, dnn_dropout=0.0),
    "with a block": functools.partial(SequenceDNN, blocks=["ligr"], num_heads=2, dnn_dropout=0.0, block_dropout=0.0),
    "SASRec": functools.partial(SASRec, num_blocks=1, block_dropout=0.0),
    "HSTU": functools.partial(HSTU, num_blocks=1, block_dropout=0.0),
    "GRU4Rec": functools.partial(GRU4Rec, block_dropout=0.0),
    "with items' features": functools.partial(
        SequenceDNN, dnn_dropout=0.0, item_features=OF_ITEMS, item_id_dropout=0.0
    ),
    "with times": functools.partial(
        SequenceDNN, blocks=["ligr"], dnn_dropout=0.0, block_dropout=0.0, history_times="hist_time"
    ),
    "with the request's time": functools.partial(SequenceDNN, dnn_dropout=0.0, **TIMES),
    "with a block and the request's time": functools.partial(SASRec, num_blocks=1, block_dropout=0.0, **TIMES),
}


def rows(seed=0):
    rng = np.random.default_rng(seed)
    length = np.array([5, 3, 1, 0])
    valid = np.arange(LENGTH) < length[:, np.newaxis]
    passed = np.cumsum(rng.integers(0, 1000, (ROWS, LENGTH + 1)), axis=1)[:, ::-1] + 10**9
    return {
        "hist_item": (rng.integers(1, SIZE, (ROWS, LENGTH)) * valid).astype("int32"),
        "hist_stars": (rng.integers(1, 6, (ROWS, LENGTH)) * valid).astype("int32"),
        "sure": (rng.uniform(0.5, 2, (ROWS, LENGTH)) * valid).astype("float32")[..., np.newaxis],
        "len": length.astype("int32"),
        "city": rng.integers(1, 7, ROWS).astype("int32"),
        "age": rng.normal(size=(ROWS, 1)).astype("float32"),
        "item": rng.integers(1, SIZE, ROWS).astype("int32"),
        "hist_time": passed[:, 1:] * valid,
        "time": passed[:, :1],
    }


def as_of(x, k):
    """The rows as they were k events ago."""
    histories = ("hist_item", "hist_stars", "hist_time")
    earlier = {name: np.pad(x[name][:, k:], [(0, 0), (0, k)]) for name in histories}
    earlier["time"] = x["hist_time"][:, k - 1 : k] if k else x["time"]
    earlier["sure"] = np.pad(x["sure"][:, k:], [(0, 0), (0, k), (0, 0)])
    return {**x, **earlier, "len": np.maximum(x["len"] - k, 0)}


def moved(model):
    """The model with weights that are not those of its start, where much is 0 or the identity."""
    rng = np.random.default_rng(3)
    model.set_weights([w + (rng.normal(0, 0.2, w.shape) if w.dtype.kind == "f" else 0) for w in model.get_weights()])
    for layer in model.layers:
        if layer.name == "known_items":  # as after training
            layer.set_weights([np.ones_like(weights) for weights in layer.get_weights()])
    return model


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", MODELS)
def test_a_position_is_trained_as_the_user_was_then_on_what_came_next(name):
    columns = TIMED if "request" in name else TIMED[:-1] if "times" in name else USER
    model = moved(MODELS[name](columns, DESCRIBED if "features" in name else ITEMS, sampler_config=FullSampler()))
    x = rows()
    then = np.stack([model.user_vectors(as_of(x, k)) for k in range(LENGTH)], axis=1)  # (B, T, D)
    items, temperature = model.item_vectors().astype("float64"), model.loss_layer.temperature
    following = np.concatenate([x["item"][:, np.newaxis], x["hist_item"][:, :-1]], axis=1)
    logits = then.astype("float64") @ items[1:].T / temperature
    each = np.log(np.exp(logits).sum(axis=2)) - np.take_along_axis(logits, following[..., np.newaxis] - 1, 2)[..., 0]
    is_trained = np.arange(LENGTH) < np.maximum(x["len"], 1)[:, np.newaxis]

    inputs = [tf.constant(x[tensor.name.split(":")[0]]) for tensor in model.inputs]
    inputs = [value if value.shape.rank > 1 else value[:, tf.newaxis] for value in inputs]
    trained = keras.Model(model.inputs, model.get_layer("loss").input[0])(inputs, training=True).numpy()
    np.testing.assert_allclose(trained, then[is_trained], rtol=1e-4, atol=1e-5)
    losses = model(inputs, training=True).numpy()[:, 0]
    np.testing.assert_allclose(losses, np.sum(each * is_trained, axis=1) / LENGTH, rtol=1e-4)
    np.testing.assert_allclose(model(inputs, training=False).numpy()[:, 0], each[:, 0], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", ["with times", "with the request's time"])
def test_only_the_time_between_events_counts(name):
    model = moved(MODELS[name](TIMED if "request" in name else TIMED[:-1], ITEMS))
    x = rows()
    vectors = model.user_vectors(x)
    later = {key: values + 10**8 * (values > 0) if "time" in key else values for key, values in x.items()}
    np.testing.assert_array_equal(model.user_vectors(later), vectors)
    further = {**x, "hist_time": x["hist_time"] - (np.arange(LENGTH) > 0) * 10**5 * (x["hist_time"] > 0)}
    assert not np.allclose(model.user_vectors(further)[:2], vectors[:2], atol=1e-4)
    np.testing.assert_allclose(model.user_vectors(further)[3], vectors[3], atol=1e-6)  # it has no event
    asked_later = model.user_vectors({**x, "time": x["time"] + 10**6})
    assert np.allclose(asked_later[0], vectors[0], atol=1e-4) == ("request" not in name)


def learnt(builder, x, **times):
    """How often the model ranks the target, 3 or 4, before the other."""
    far = {"embeddings_initializer": keras.initializers.RandomNormal(stddev=1.0, seed=1)}  # to learn in few steps
    history = VarLenSparseFeat(SparseFeat("hist_item", SIZE, DIM, embedding_name="item", **far), LENGTH, "mean", "len")
    columns = [column for column in TIMED[-2:] if column.name in times.values()]
    model = builder([history, *columns], [SparseFeat("item", SIZE, DIM, **far)], num_heads=2, **times)
    model.compile(LazyAdam(0.02))
    model.fit(x, batch_size=16, epochs=10, verbose=0)
    found = model.user_vectors(x) @ model.item_vectors().T
    return np.mean((found[:, 4] > found[:, 3]) == (x["item"] == 4))


ONE_BLOCK = [functools.partial(each, num_blocks=1) for each in (SASRec, HSTU)]


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("builder", [SequenceDNN, *ONE_BLOCK], ids=["SequenceDNN", "SASRec", "HSTU"])
@pytest.mark.parametrize("is_of_request", [False, True], ids=["between events", "before the request"])
def test_what_time_alone_tells_is_learnt(builder, is_of_request):
    """What comes next is item 3 after short pauses, and item 4 after long ones."""
    number = 400
    long = np.random.default_rng(0).integers(0, 2, number).astype(bool)
    pauses = np.where(long, 10**6, 10)[:, np.newaxis]
    x = {
        "hist_item": np.tile(np.array([1, 2, 2, 2, 2], "int32"), (number, 1)),
        "len": np.full(number, LENGTH, "int32"),
        "item": np.where(long, 4, 3).astype("int32"),
        "hist_time": 10**9 - np.arange(LENGTH) - pauses * (not is_of_request and np.arange(LENGTH) > 0),
    }
    if is_of_request:
        assert learnt(builder, {**x, "time": 10**9 + pauses}, **TIMES) > 0.95
    else:
        assert learnt(builder, x, history_times="hist_time") > 0.95


@pytest.mark.slow
@pytest.mark.once
def test_times_go_with_their_items(tmp_path):
    model = moved(MODELS["with the request's time"](TIMED, ITEMS, history_dropout=0.2))
    x = rows()
    gap = {**x, "len": x["len"] + (x["len"] > 0)}  # a zero after the first item, as of one that is not in the map
    for name in ("hist_item", "hist_stars", "hist_time", "sure"):
        gap[name] = np.insert(x[name], 1, 0, axis=1)[:, :LENGTH]
    short = {name: values[1:] for name, values in x.items()}  # whose histories leave room for it
    found = model.user_vectors({name: values[1:] for name, values in gap.items()})
    np.testing.assert_allclose(found, model.user_vectors(short), atol=1e-6)
    model.compile(LazyAdam(0.01))
    model.fit(x, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.user_vectors(x), model.user_vectors(x))
    export_recommender(again, tmp_path / "export")
    encode = tf.saved_model.load(str(tmp_path / "export" / "1")).signatures["user_vector"]
    specs = encode.structured_input_signature[1]
    users = {name: tf.reshape(tf.cast(x[name], spec.dtype), [ROWS, *spec.shape[1:]]) for name, spec in specs.items()}
    np.testing.assert_allclose(encode(**users)["user_vector"], model.user_vectors(x), atol=1e-6)


def test_a_column_of_times_that_is_not_named_is_told_of():
    with pytest.warns(UserWarning, match="Column 'time' is read as a number, like any DenseFeat"):
        SequenceDNN([HISTORY, *TIMED[-2:]], ITEMS, history_times="hist_time")
    seconds = DenseFeat("time", 1, "int64", lambda values: values // 1000)
    with pytest.raises(
        ValueError, match=r"`request_time` must be .*; got DenseFeat\('time', 1, 'int64', transform_fn\)"
    ):
        SequenceDNN([HISTORY, TIMED[-2], seconds], ITEMS, **TIMES)
    model = SequenceDNN([HISTORY, *TIMED[-2:]], ITEMS, **TIMES)
    with pytest.raises(ValueError, match=r"'time' must be of dtype int64; .*datetime64\[s\].* gives seconds"):
        model.user_vectors({**rows(), "time": np.full(ROWS, "2026-01-01", "datetime64[ms]")})


def test_items_that_are_left_out_take_their_times_with_them():
    model = MODELS["with the request's time"](TIMED, ITEMS, history_dropout=0.5)
    x = {name: np.repeat(values, 20, axis=0) for name, values in rows().items()}
    x["hist_time"] = x["hist_item"].astype("int64") * 1000  # each item has a time of its own
    buckets = model.get_layer("time_buckets")
    items = model.get_layer("trained_positions").input[0]
    inputs = [tf.constant(x[tensor.name.split(":")[0]]) for tensor in model.inputs]
    inputs = [value if value.shape.rank > 1 else value[:, tf.newaxis] for value in inputs]
    left, times = keras.Model(model.inputs, [items, buckets.input[0]])(inputs, training=True)
    assert tf.math.count_nonzero(left) < np.count_nonzero(x["hist_item"])
    np.testing.assert_array_equal(times[:, :, 0], left.numpy() * 1000)


@pytest.mark.slow
@pytest.mark.once
def test_a_step_that_reads_times_reads_no_whole_table():
    settings = {"blocks": ["ligr"], "history_dropout": 0.2, **TIMES}
    whole_tables(Trial(SequenceDNN, ([HISTORY, *TIMED[-2:]], ITEMS), **settings))


@pytest.mark.slow
@pytest.mark.once
def test_rows_that_hold_each_event_once_teach_what_windows_teach():
    rng = np.random.default_rng(0)
    starts = rng.integers(0, SIZE - 1, 200)
    sequences = (starts[:, np.newaxis] + np.arange(8)) % (SIZE - 1) + 1  # each item is followed by the next one
    events = data.Interactions.from_sequences(np.arange(0, 1601, 8), sequences.ravel())
    split = data.leave_last_out(events)
    targets = split.sequence_targets(LENGTH)
    assert len(targets) == 200  # in place of 1,000
    train, test = (data.windows(events, each, LENGTH) for each in (targets, split.test))
    size = events.item_vocabulary_size
    history = SparseFeat("hist_item_id", size, DIM, embedding_name="item_id")
    model = SequenceDNN([VarLenSparseFeat(history, LENGTH, length_name="hist_len")], [SparseFeat("item_id", size, DIM)])
    model.compile(LazyAdam(0.02))
    first = model.evaluate(test, verbose=0)
    model.fit(train, batch_size=50, epochs=15, verbose=0)
    assert model.evaluate(test, verbose=0) < first / 2
    found = model.user_vectors(test) @ model.item_vectors()[1:].T
    assert np.mean(found.argmax(axis=1) + 1 == test["item_id"]) > 0.95


def test_what_describes_an_item_speaks_in_the_history_too():
    settings = {"pooled": "last", "user_dnn_hidden_units": []}
    model = moved(SequenceDNN([HISTORY], DESCRIBED, item_features=OF_ITEMS, **settings))
    history = np.array([[7, 3, 0, 0, 0], [0, 0, 0, 0, 0]])
    found = model.user_vectors({"hist_item": history, "len": np.array([2, 0])})
    kernel, bias = (each.astype("float64") for each in model.get_layer("user_dense_1").get_weights())
    last = np.stack([model.item_vectors()[7].astype("float64"), np.zeros(DIM)])  # already of unit length
    expected = last @ kernel + bias
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_history_that_would_show_what_came_later_is_refused():
    other = VarLenSparseFeat(SparseFeat("hist_shop", 5, 4), 3, "mean", length_name="shops")
    for history in (other, VarLenSparseFeat(SparseFeat("hist_tag", 5, 4), LENGTH)):
        with pytest.raises(ValueError, match=r"no histories beside.*'hist_"):
            SASRec([HISTORY, history], ITEMS)


def test_weights_that_are_normalised_over_all_of_a_history_are_refused():
    stars = VarLenSparseFeat(SparseFeat("hist_stars", 6, 3), LENGTH, "mean", "len", weight_name="sure")
    with pytest.raises(ValueError, match="'hist_stars' must have `weight_norm=False`"):
        SASRec([HISTORY, stars], ITEMS)


def test_names_of_features_that_are_words_of_the_model():
    names = [SparseFeat(name, 5, 4) for name in ("state", "rows", "event", "events", "user", "now", "pooled")]
    assert len(SequenceDNN([HISTORY, *names], ITEMS, blocks=["sasrec"]).user_input) == 9


def test_labels_and_features_that_come_with_the_examples_are_refused():
    with pytest.raises(ValueError, match="`loss` must be another than 'logistic'"):
        SASRec([HISTORY], ITEMS, loss="logistic")
    with pytest.raises(ValueError, match="`item_features`"):
        SASRec([HISTORY], [*ITEMS, SparseFeat("genre", 5, 4)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": "ligr"}, "`blocks` must be a list"),
        ({"blocks": ["transformer"]}, "Every element of `blocks`"),
        ({"pooled": ""}, "`blocks` must name at least one"),
        ({"pooled": "max"}, "`pooled`"),
        ({"pooled": "last:0"}, "after `last:`"),
        ({"pooled": "last+last:99"}, r"`pooled` must name items of the history, .* at most \d+; got last:99"),
        ({"blocks": ["sasrec"], "num_heads": 3}, "`num_heads` must divide"),
        ({"block_dropout": 1.0}, "`block_dropout`"),
        ({"request_time": "time"}, "`request_time` must be None without `history_times`"),
        (
            {"history_times": "when"},
            r"`history_times` must be the name of a user column DenseFeat\(name, 5, \"int64\"\)",
        ),
        ({"history_times": "hist_time", "exclude_features": ["hist_time"]}, "`exclude_features` must not name it"),
        ({"history_times": "age"}, r"`history_times` must be .*; got DenseFeat\('age', 1, 'float32'\)"),
        ({**TIMES, "request_time": "age"}, r"`request_time` must be the name of a user column DenseFeat\(name, 1, "),
        ({**TIMES, "request_time": "hist_time"}, "`request_time` must name another column than `history_times`"),
        ({"history_times": "hist_time", "pooled": "last"}, "`history_times` must be None where neither"),
        ({"history_times": "hist_time", "pooled": "", "blocks": ["gru"]}, "`history_times` must be None where neither"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SequenceDNN([HISTORY, *(TIMED[-3:] if "request_time" in arguments else TIMED[-3:-1])], ITEMS, **arguments)


@pytest.mark.slow
def test_a_model_of_ones_own_reads_states_of_its_own():
    @builder
    def LastOfAll(make: Assembly, user_feature_columns, item_feature_columns, **shared):
        """The last item at each position."""
        history, *_ = make.histories(up_to_longest=True)
        return make.model(make.user_states([history.rows], history, [history.rows]))

    model, x = LastOfAll([HISTORY], ITEMS), rows()
    table = model.get_layer("table_item")(np.arange(SIZE)).numpy()
    model.get_layer("user_dense_1").set_weights([np.eye(DIM), np.zeros(DIM)])
    last = table[x["hist_item"][:, 0]]  # the state of a position is its row
    expected = last / np.linalg.norm(last, axis=1, keepdims=True)
    np.testing.assert_allclose(model.user_vectors(x)[:3], expected[:3], rtol=1e-5)
