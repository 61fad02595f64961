"""YoutubeDNN as its users meet it: attributes, training, vectors, saving, resuming, refusals."""

import textwrap

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext._keras import rename
from deepmatch_ext.layers import custom_objects
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.samplers import (
    FrequencySampler,
    InBatchSampler,
    MixedSampler,
    UniformSampler,
)
from deepmatch_ext.utils import NegativeSampler, sampledsoftmaxloss
from tests.fresh import run_python
from tests.helpers import (
    DIM,
    MAX_LEN,
    VOCABULARY,
    history_column,
    item_column,
    small_input,
    small_model,
    user_part,
    user_vectors,
)

COUNTS = np.arange(VOCABULARY)


def test_the_attributes_make_the_encoders(trained):
    model, x = trained
    assert [tensor.name for tensor in model.user_input] == ["hist_item", "hist_len"]
    assert [tensor.name for tensor in model.item_input] == ["item"]
    assert model.user_embedding is model.user_emb
    assert model.item_embedding is model.item_emb
    vectors = user_vectors(model, x)
    assert (vectors.shape, vectors.dtype) == ((512, DIM), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_all_items_vectors_come_from_one_call_and_match_the_item_encoder(trained):
    model, _ = trained
    vectors = model.item_vectors()
    np.testing.assert_allclose(model.item_vectors(ids=[7, 0, 7]), vectors[[7, 0, 7]], atol=1e-6)
    assert (vectors.shape, vectors.dtype) == ((VOCABULARY, DIM), np.float32)
    assert np.all(vectors[0] == 0)
    np.testing.assert_allclose(model.item_vectors(batch_size=7), vectors, atol=1e-6)
    encoder = tf.keras.Model(inputs=model.item_input, outputs=model.item_emb)
    np.testing.assert_allclose(encoder.predict(np.arange(1, VOCABULARY), verbose=0), vectors[1:], atol=1e-6)


def test_the_vectors_are_those_of_the_description_step_by_step():
    """Mask, mean over the true length, dense layers, unit length; items are unit rows. In NumPy float64."""
    model, x = small_model("mean", dnn_activation="relu"), small_input(20)
    weights = {weight.name.split(":")[0].split("/")[-1] + str(weight.shape): weight for weight in model.weights}
    assert len(weights) >= 4
    table = model.get_layer("table_item").get_weights()[0].astype("float64")
    first, second = (model.get_layer(f"user_dense_{k}").get_weights() for k in (1, 2))
    mask = np.arange(MAX_LEN)[None] < x["hist_len"][:, None]
    mean = (table[x["hist_item"]] * mask[:, :, None]).sum(1) / x["hist_len"][:, None]
    hidden = np.maximum(mean @ first[0] + first[1], 0) @ second[0] + second[1]
    np.testing.assert_allclose(user_vectors(model, x), hidden / np.linalg.norm(hidden, axis=1)[:, None], atol=1e-5)
    units = table / np.linalg.norm(table, axis=1)[:, None]
    np.testing.assert_allclose(model.item_vectors()[1:], units[1:], atol=1e-6)


def hit_rate(model, x, n=3):
    scores = model.user_vectors(x) @ model.item_vectors().T
    scores[:, 0] = -np.inf
    return np.mean([item in np.argsort(-row)[:n] for row, item in zip(scores, x["item"], strict=True)])


SAMPLERS = [  # each of them alone: `check_model`, and tests/layers/test_state.py
    MixedSampler([InBatchSampler(), UniformSampler(5)]),
    NegativeSampler("frequency", 5, "item", COUNTS.tolist()),
]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_trains_and_reloads(sampler, tmp_path):
    model, x = small_model(sampler_config=sampler), small_input(60)
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)  # tracing would take longer than a few steps
    losses = model.fit(x, np.ones(60), batch_size=60, epochs=2, verbose=0).history["loss"]
    assert np.all(np.isfinite(losses))
    before = model.evaluate(x, batch_size=60, verbose=0)
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    again.run_eagerly = True
    # The sampler's counts came along: the same draws, corrected alike, give the same loss.
    assert again.evaluate(x, batch_size=60, verbose=0) == pytest.approx(before, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["bpr", "gbce"])  # softmax: everywhere else
def test_every_loss_learns_and_reloads(loss, tmp_path):
    train, test = small_input(2000, seed=1), small_input(500, seed=2)
    model = small_model("last", loss=loss, temperature=0.2, dnn_dropout=0.0)
    model.compile(tf.keras.optimizers.Adam(0.01), sampledsoftmaxloss)
    model.fit(train, batch_size=100, epochs=8, verbose=0)
    assert hit_rate(model, test) > 0.9
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    again.run_eagerly = model.run_eagerly = True
    losses = [each.evaluate(test, batch_size=500, verbose=0) for each in (again, model)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.slow
def test_history_dropout_changes_the_training_alone():
    x = small_input(64)
    plain, dropped = small_model(), small_model(history_dropout=0.5)
    np.testing.assert_array_equal(plain.user_vectors(x), dropped.user_vectors(x))
    for model in (plain, dropped):
        model.compile(tf.keras.optimizers.SGD(0.5), sampledsoftmaxloss, run_eagerly=True)
        model.fit(x, batch_size=64, verbose=0)
    assert np.abs(plain.user_vectors(x) - dropped.user_vectors(x)).max() > 1e-4


@pytest.mark.slow
def test_histories_of_several_kinds_stand_beside_each_other():
    """Items and their genres share a length, tags have none; numbers and an attribute stand beside them."""
    users = [
        history_column("recency:0.5+last+max"),
        VarLenSparseFeat(SparseFeat("hist_genre", 5, 4), MAX_LEN, "recency", "hist_len"),
        VarLenSparseFeat(SparseFeat("tags", 9, 4), 3, "sum"),
        SparseFeat("user_id", 70, 4),
        DenseFeat("age"),
    ]
    x = small_input(64)
    rng = np.random.default_rng(0)
    x |= {"hist_genre": np.where(x["hist_item"] > 0, x["hist_item"] % 4 + 1, 0), "tags": rng.integers(0, 9, (64, 3))}
    x |= {"user_id": np.arange(64), "age": rng.random(64)}
    model = YoutubeDNN(users, [item_column()], history_dropout=0.3, exclude_features=["user_id"])
    assert "user_id" not in [tensor.name for tensor in model.user_input]
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    model.fit({name: values for name, values in x.items() if name != "user_id"}, verbose=0)
    assert np.all(np.isfinite(model.user_vectors(x)))
    features = model.get_layer("user_features").output
    assert features.shape[-1] == 3 * DIM + 4 + 4 + 1


@pytest.mark.slow
def test_every_combiner_trains():
    """Beside each other, each with a table of its own, and the first user without a history."""
    combiners = ["mean", "sum", "max", "sqrtn", "last", "recency", "recency:0.5+last+max"]
    users = [
        VarLenSparseFeat(SparseFeat(f"h{k}", VOCABULARY, DIM), MAX_LEN, combiner, "hist_len")
        for k, combiner in enumerate(combiners)
    ]
    model = YoutubeDNN(users, [item_column()])
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    tables = [model.get_layer(f"table_h{k}") for k in range(len(combiners))]
    before = [table.get_weights()[0] for table in tables]
    x = small_input(32)
    x["hist_len"][0] = 0
    x["hist_item"][0] = 0
    model.fit({**x, **{f"h{k}": x["hist_item"] for k in range(len(combiners))}}, verbose=0)
    assert all(np.all(np.isfinite(weight)) for weight in model.get_weights())
    for combiner, table, former in zip(combiners, tables, before, strict=True):
        assert np.any(table.get_weights()[0] != former), combiner


@pytest.mark.slow
def test_every_kind_of_column_trains_and_reloads(tmp_path):
    vocabulary = tmp_path / "vocabulary.csv"
    vocabulary.write_text("1,red\n2,green\n")
    users = [
        VarLenSparseFeat(
            SparseFeat("hist_item", 40, 8, use_hash=True, dtype="string", embedding_name="item"), 4, "recency", "len"
        ),
        VarLenSparseFeat(SparseFeat("tags", 9, 4), 3, "sum", weight_name="tag_weights"),
        VarLenSparseFeat(SparseFeat("brands", 9, 4), 4, "max", "len", weight_name="brand_weights", weight_norm=False),
        SparseFeat("user_id", np.int64(50), "auto", trainable=False),
        SparseFeat("city", 20, 4, use_hash=True, dtype="int64"),
        SparseFeat("colour", 3, 4, use_hash=True, vocabulary_path=str(vocabulary), dtype="string"),
        SparseFeat("level", 5, 4, dtype="int64", embeddings_initializer=tf.keras.initializers.Constant(0.5)),
        DenseFeat("age"),
        DenseFeat("stats", 3, transform_fn=halve),
    ]
    item = [SparseFeat("item", 40, 8, use_hash=True, dtype="string")]
    rng, rows = np.random.default_rng(0), 24
    words = np.array(["0", "lake", "palmer", "emerson", "red", "green"])
    x = {
        "hist_item": words[rng.integers(0, 6, (rows, 4))],
        "len": np.full(rows, 4),
        "tags": rng.integers(0, 9, (rows, 3)),
        "tag_weights": rng.random((rows, 3, 1)),
        "brands": rng.integers(0, 9, (rows, 4)),
        "brand_weights": rng.random((rows, 4)),
        "user_id": rng.integers(0, 50, rows),
        "city": rng.integers(0, 10**9, rows),
        "colour": words[rng.integers(0, 6, rows)].astype(object),
        "level": rng.integers(0, 5, rows),
        "age": rng.random(rows),
        "stats": rng.random((rows, 3)),
        "item": words[rng.integers(1, 6, rows)],
    }
    model = YoutubeDNN(users, item, dnn_use_bn=True, dnn_dropout=0.1, l2_reg_dnn=1e-4, l2_reg_embedding=1e-5)
    model.compile("adam", sampledsoftmaxloss, run_eagerly=True)
    frozen = model.get_layer("table_user_id").get_weights()[0].copy()
    before = [weight.copy() for weight in model.get_weights()]
    model.fit(x, batch_size=12, verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(model.get_layer("table_user_id").get_weights()[0], frozen)
    assert sum(not np.array_equal(a, b) for a, b in zip(before, after, strict=True)) >= 8
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    part = {name: tf.constant(values) for name, values in x.items() if name != "item"}
    ours, theirs = (tf.keras.Model(m.user_input, m.user_emb)(part).numpy() for m in (model, again))
    np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"Item column 'item' must have integer ids"):
        model.item_vectors()


@tf.keras.utils.register_keras_serializable("tests", "halve")
def halve(x):
    return x / 2


def test_a_hashed_item_and_its_history_fall_in_the_same_rows():
    hashed = {"use_hash": True, "dtype": "string"}
    history = VarLenSparseFeat(SparseFeat("hist_item", 40, 8, embedding_name="item", **hashed), 1, "last", "len")
    model = YoutubeDNN([history], [SparseFeat("item", 40, 8, **hashed)], user_dnn_hidden_units=[])
    name = tf.constant([["lake"]])
    user = tf.keras.Model(model.user_input, model.user_emb)({"hist_item": name, "len": tf.constant([[1]])})
    item = tf.keras.Model(model.item_input, model.item_emb)({"item": name})
    np.testing.assert_allclose(user, item, atol=1e-6)


def test_tables_start_differently_where_the_user_gave_no_initializer():
    columns = [SparseFeat("a", 9, 4), SparseFeat("b", 9, 4), history_column()]
    model = YoutubeDNN(columns, [item_column()])
    first, second = (model.get_layer(f"table_{name}").get_weights()[0] for name in "ab")
    assert not np.array_equal(first, second)
    again = YoutubeDNN(columns, [item_column()])
    np.testing.assert_array_equal(again.get_layer("table_a").get_weights()[0], first)
    other = YoutubeDNN(columns, [item_column()], seed=1)
    assert not np.array_equal(other.get_layer("table_a").get_weights()[0], first)


def assert_all_close(ours, theirs, atol=0.0):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)


@pytest.mark.slow
def test_the_callers_arrays_are_not_changed():
    x = small_input(64)
    copies = {name: values.copy() for name, values in x.items()}
    model = small_model()
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    model.fit(x, verbose=0)
    model.evaluate(x, verbose=0)
    assert x.keys() == copies.keys()
    for name, values in copies.items():
        np.testing.assert_array_equal(x[name], values)


@pytest.mark.slow
@pytest.mark.smoke
def test_a_saved_model_gives_equal_vectors_in_a_fresh_process(trained, tmp_path):
    model, x = trained
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    np.savez(tmp_path / "expected.npz", users=user_vectors(model, x), items=model.item_vectors(), **user_part(x))
    script = """
        import sys
        import numpy as np
        import tensorflow as tf
        import deepmatch_ext
        model = tf.keras.models.load_model(sys.argv[1] + "/model.keras")
        expected = np.load(sys.argv[1] + "/expected.npz")
        x = {name: expected[name] for name in ("hist_item", "hist_len")}
        def check(model):
            users = tf.keras.Model(inputs=model.user_input, outputs=model.user_emb).predict(x, verbose=0)
            np.testing.assert_array_equal(users, expected["users"])
            np.testing.assert_array_equal(model.item_vectors(), expected["items"])
        check(model)
        model.get_layer("table_item").set_weights([np.zeros((30, 8))])
        rebuilt = type(model).from_config(model.get_config())
        rebuilt.load_weights(sys.argv[1] + "/model.weights.h5")
        check(rebuilt)
        print("equal")
    """
    done = run_python("-c", textwrap.dedent(script), tmp_path)
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]


@pytest.mark.slow
def test_code_written_for_custom_objects_loads_too(trained, tmp_path):
    model, x = trained
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras", custom_objects=custom_objects)
    np.testing.assert_array_equal(again.user_vectors(x), model.user_vectors(x))


def test_an_activation_that_no_file_could_hold_is_refused_on_saving(tmp_path):
    model = small_model(dnn_activation=lambda x: x)
    with pytest.raises(ValueError, match=r"`dnn_activation` must be registered with Keras, .*; got a lambda"):
        model.save(tmp_path / "model.keras")


@pytest.mark.slow
def test_a_reload_keeps_frozen_layers_and_the_name(tmp_path):
    model = small_model(dnn_dropout=0.1)
    model.get_layer("table_item").trainable = False
    rename(model, "mine")
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    model.fit(small_input(32), verbose=0)
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert again.name == "mine"
    assert not again.get_layer("table_item").trainable
    assert len(again.trainable_weights) == len(model.trainable_weights) == 4
    frozen = again.get_layer("table_item").get_weights()[0]
    again.run_eagerly = True
    again.fit(small_input(32), verbose=0)
    np.testing.assert_array_equal(again.get_layer("table_item").get_weights()[0], frozen)


@pytest.mark.slow
def test_jit_compile_is_left_off_with_a_warning():
    def train():
        model = small_model()
        model.compile("adam", sampledsoftmaxloss, jit_compile=True)
        model.fit(small_input(32), verbose=0)

    with pytest.warns(UserWarning, match="jit_compile"):  # by Keras 3 itself, in `compile`
        train()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16"])  # and bfloat16: `check_model`
def test_mixed_precision_learns_with_a_lazy_optimizer(policy):
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        model = small_model("last", dnn_dropout=0.1, history_dropout=0.1, sampler_config=None)
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
    model.compile(LazyAdam(0.01), sampledsoftmaxloss)
    losses = model.fit(small_input(256), epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 1.5


@pytest.mark.slow
def test_a_reload_keeps_the_precision_policy(tmp_path):
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = small_model()
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    x = small_input(32)
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    model.fit(x, verbose=0)
    inputs = [x["hist_item"], x["hist_len"][:, np.newaxis]]
    vectors = tf.keras.Model(model.user_input, model.user_emb)(inputs)
    assert vectors.dtype == tf.float32
    assert model.get_layer("user_dense_1").compute_dtype == "float16"
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("user_dense_1").compute_dtype == "float16"
    assert tf.keras.mixed_precision.global_policy().name == "float32"
    np.testing.assert_array_equal(tf.keras.Model(again.user_input, again.user_emb)(inputs), vectors)


HISTORY = [history_column()]
ITEM = [item_column()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: YoutubeDNN(HISTORY, []), r"`item_feature_columns` must begin with a SparseFeat, the item id"),
        (
            lambda: YoutubeDNN(HISTORY, [DenseFeat("price")]),
            r"`item_feature_columns` must begin with a SparseFeat, the item id",
        ),
        (lambda: YoutubeDNN([], ITEM), r"`user_feature_columns` must have at least one column"),
        (lambda: YoutubeDNN(HISTORY, ITEM, [16, 9]), r"`user_dnn_hidden_units` must end in .* 8; got 9"),
        (
            lambda: YoutubeDNN([*HISTORY, DenseFeat("loss")], ITEM),
            r"The names of inputs must differ from those of the model's layers; got 'loss'",
        ),
        (lambda: YoutubeDNN(HISTORY, ITEM, 8), r"`user_dnn_hidden_units` must be a list of integers; got 8"),
        (
            lambda: YoutubeDNN([VarLenSparseFeat(SparseFeat("h", 9, 8), 4, length_name="item")], ITEM),
            r"The names of user and item inputs must not repeat a name; got 'item' twice",
        ),
        (lambda: YoutubeDNN(HISTORY, ITEM, [0, 8]), r"Every element of `user_dnn_hidden_units` must be an integer"),
        (
            lambda: YoutubeDNN([*HISTORY, DenseFeat("age")], ITEM, []),
            r"`user_dnn_hidden_units` must end in .* 8; got 9, the width of the user's features",
        ),
        (
            lambda: YoutubeDNN([VarLenSparseFeat(SparseFeat("h", 31, 8, embedding_name="item"), 4)], ITEM),
            r"share the table 'item', must have the same `vocabulary_size`; got 31 and 30",
        ),
        (lambda: YoutubeDNN([SparseFeat("item", 30, 8)], ITEM), r"The names of user and item inputs must not repeat"),
        (lambda: YoutubeDNN([history_column("median")], ITEM), r"`combiner` of column 'hist_item' must be one of"),
        (lambda: small_model(sampler_config=None, num_sampled=0), r"`num_sampled` must be an integer of at least 1"),
        (lambda: small_model(sampler_config=UniformSampler(30)), r"`num_sampled` must be at most 29, .* got 30"),
        (lambda: small_model(sampler_config=UniformSampler(3), num_sampled=3), r"`num_sampled` must be given in"),
        (lambda: small_model(sampler_config=FrequencySampler(5, [1, 2])), r"`item_count` must have an entry for each"),
        (lambda: small_model(sampler_config="uniform"), r"`sampler_config` must be a sampler"),
        (lambda: small_model(temperature=0), r"`temperature` must be a finite number greater than 0; got 0"),
        (lambda: small_model(dnn_dropout=1.0), r"`dnn_dropout` must be at least 0 and less than 1; got 1.0"),
        (lambda: small_model(l2_reg_embedding=-1), r"`l2_reg_embedding` must be at least 0"),
        (lambda: small_model(loss="hinge"), r"`loss` must be one of 'softmax', 'bpr', 'gbce', 'logistic'; got 'hinge'"),
        (lambda: small_model(gbce_t=-0.1), r"`gbce_t` must be at least 0"),
        (
            lambda: small_model(gbce_t=-0.1, loss="logistic", sampler_config=None),
            r"`gbce_t` must be at least 0",
        ),
        (lambda: small_model(history_dropout=1), r"`history_dropout` must be at least 0 and less than 1; got 1"),
        (
            lambda: small_model(exclude_features=["age"]),
            r"`exclude_features` must hold names of user columns; got 'age'",
        ),
        (
            lambda: YoutubeDNN([history_column()], [SparseFeat("", VOCABULARY, DIM)]),
            r"The names in `item_feature_columns` must be text, and not empty; got ''",
        ),
        (lambda: small_model(exclude_features=None), r"`exclude_features` must be a list of names; got None"),
        (lambda: small_model(exclude_features=["hist_item"]), r"`user_feature_columns` must have at least one column"),
        (lambda: small_model(seed=-1), r"`seed` must be an integer of at least 0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_names_that_differ_in_other_letters_only_are_different():
    columns = [
        SparseFeat(f"c{k}", 9, 4, embedding_name=name) for k, name in enumerate(("städt", "stödt", "a b", "a_b"))
    ]
    model = YoutubeDNN([*HISTORY, *columns], ITEM)
    assert len({layer.name for layer in model.layers}) == len(model.layers)


@pytest.mark.slow
def test_more_negatives_than_items_are_no_problem_by_default():
    tiny = YoutubeDNN([VarLenSparseFeat(SparseFeat("h", 3, 4, embedding_name="i"), 2)], [SparseFeat("i", 3, 4)])
    tiny.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    tiny.fit({"h": [[1, 0]], "i": [2]}, verbose=0)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("item", np.full(64, VOCABULARY), r"Input 'item' must hold ids in 1..29"),
        ("item", np.full(64, 0), r"Input 'item' must hold ids in 1..29"),
        ("item", np.full(64, -1), r"Input 'item' must hold ids in 1..29"),
        ("hist_item", np.full((64, MAX_LEN), 99), r"Input 'hist_item' must hold ids in 0..29"),
        ("hist_len", np.full(64, MAX_LEN + 1), r"Input 'hist_len' must hold lengths in 0..6"),
        ("hist_len", None, r"The model's input must have 'hist_len'"),
    ],
)
def test_bad_input_is_refused_before_training(name, values, message):
    model, x = small_model(), small_input(64)
    model.compile("sgd", sampledsoftmaxloss)
    before = model.get_weights()
    x[name] = values
    if values is None:
        del x[name]
    for call in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=message):
            call(x, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit(small_input(64), verbose=0, validation_data=(x, np.ones(64)))
    assert_all_close(model.get_weights(), before)


def test_a_batch_size_of_zero_and_an_empty_input_are_refused():
    model, x = small_model(), small_input(8)
    model.compile("sgd", sampledsoftmaxloss)
    with pytest.raises(ValueError, match=r"`batch_size` must be an integer of at least 1; got 0"):
        model.fit(x, batch_size=0)
    with pytest.raises(ValueError, match=r"The model's input must have at least one row"):
        model.fit({name: values[:0] for name, values in x.items()})
    assert model.user_vectors({name: values[:0] for name, values in x.items()}).shape == (0, DIM)


@pytest.mark.slow
def test_predict_gives_each_examples_loss():
    model, x = small_model(), small_input(50)
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    losses = model.predict(x, batch_size=40, verbose=0)
    assert losses.shape == (50, 1)
    assert np.mean(losses) == pytest.approx(model.evaluate(x, batch_size=40, verbose=0), rel=1e-5)


def items_of_steps(batch_size=7, **fit):
    """The target items of each training step; every item is one row's target, and rows are in the items' order."""
    model, x = small_model(), {**small_input(VOCABULARY - 1), "item": np.arange(1, VOCABULARY)}
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    steps, train_step = [], model.train_step

    def watched(data):
        steps.append(data[0]["item"].numpy().ravel().tolist())
        return train_step(data)

    model.train_step = watched
    model.fit(x, batch_size=batch_size, verbose=0, **fit)
    return steps


@pytest.mark.slow
def test_epochs_of_some_steps_go_on_where_the_last_one_stopped():
    a_pass = -(-(VOCABULARY - 1) // 8)
    steps = items_of_steps(8, steps_per_epoch=a_pass - 1, epochs=a_pass)  # a_pass - 1 passes in all
    assert len(steps) == a_pass * (a_pass - 1)
    for start in range(0, len(steps), a_pass):
        assert sorted(np.concatenate(steps[start : start + a_pass])) == list(range(1, VOCABULARY))
    assert steps[:a_pass] != steps[a_pass : 2 * a_pass]


@pytest.mark.slow
def test_whole_batches_are_shuffled_on_demand():
    steps = items_of_steps(3, shuffle="batch", epochs=2)  # 9 whole batches, whose order hardly repeats
    items = list(range(1, VOCABULARY))
    in_order = [items[start : start + 3] for start in range(0, len(items), 3)]
    a_pass = len(in_order)
    first, second = steps[:a_pass], steps[a_pass:]
    assert sorted(first) == sorted(second) == in_order
    assert in_order not in (first, second)
    assert len({tuple(map(tuple, each)) for each in (first, second)}) == 2
    assert first[-1] == second[-1] == in_order[-1]  # what is left over
    with pytest.raises(ValueError, match=r"`shuffle` must be True, False or 'batch'; got 'rows'"):
        items_of_steps(shuffle="rows")


def test_labels_and_weights_of_another_length_are_refused():
    model, x = small_model(), small_input(64)
    model.compile("sgd", sampledsoftmaxloss)
    for call in (model.fit, model.evaluate):
        for other in (np.ones(128), np.ones((64, 2)), np.float64(1)):
            with pytest.raises(ValueError, match=r"`sample_weight` must have a row for each of the 64 examples"):
                call(x, sample_weight=other, verbose=0)
        with pytest.raises(ValueError, match=r"`y` must have a row for each of the 64 examples; got shape"):
            call(x, np.ones(10), verbose=0)


@pytest.mark.slow
def test_dense_columns_of_integers_stand_beside_embeddings():
    model = YoutubeDNN([history_column(), DenseFeat("age", 1, "int32"), DenseFeat("n", 2, "int64")], [item_column()])
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    model.fit({**small_input(8), "age": np.arange(8), "n": np.ones((8, 2), int)}, verbose=0)


def test_one_layer_begins_as_the_mean_of_what_comes_from_the_items_table():
    """So users start near the items of their history; other features begin as Glorot draws them."""
    x = small_input(20)
    model = small_model("recency+last", user_dnn_hidden_units=None)
    table = model.get_layer("table_item").get_weights()[0].astype(float)
    expected = []
    for history, length in zip(x["hist_item"], x["hist_len"], strict=True):
        ranks = np.arange(1, length + 1)
        recency = (table[history[:length]] / ranks[:, None]).sum(axis=0) / (1 / ranks).sum()
        expected.append((recency + table[history[0]]) / 2)
    expected = np.array(expected) / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.user_vectors(x), expected, atol=1e-5)

    city = SparseFeat("city", 9, DIM)
    other = SparseFeat("hist_genre", 9, DIM, embedding_name="genre")
    columns = [VarLenSparseFeat(other, MAX_LEN, "mean", "hist_len"), history_column("recency+last"), city]
    kernel = YoutubeDNN(columns, [item_column()]).get_layer("user_dense_1").get_weights()[0]
    assert kernel.shape == (4 * DIM, DIM)  # city, genres, two poolings of the items
    assert kernel[2 * DIM :] == pytest.approx(np.concatenate([np.eye(DIM) / 2] * 2), abs=1e-7)
    assert np.unique(kernel[: 2 * DIM]).size == 2 * DIM * DIM
    deep = small_model(user_dnn_hidden_units=(2 * DIM, DIM))
    for name in ("user_dense_1", "user_dense_2"):
        kernel = deep.get_layer(name).get_weights()[0]
        assert np.unique(kernel).size == kernel.size
