"""Several item columns: a catalogue by item id, items that were never trained, and the item encoder."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.samplers import FullSampler, InBatchSampler, UniformSampler
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import DIM, VOCABULARY, history_column, item_column, small_input

COLUMNS = [
    SparseFeat("maker", 7, 4),
    VarLenSparseFeat(SparseFeat("genres", 6, 4), 3, "mean", length_name="genres_len"),
    SparseFeat("place", 20, 4, use_hash=True, dtype="string"),
    DenseFeat("price", 2),
]


def catalogue(seed=0):
    rng = np.random.default_rng(seed)
    length = rng.integers(1, 4, VOCABULARY)
    genres = np.where(np.arange(3)[None] < length[:, None], rng.integers(1, 6, (VOCABULARY, 3)), 0)
    return {
        "maker": rng.integers(1, 7, VOCABULARY),
        "genres": genres,
        "genres_len": length,
        "place": np.array(["Lund", "Umea", "Kiruna"])[rng.integers(0, 3, VOCABULARY)],
        "price": rng.normal(size=(VOCABULARY, 2)).astype("float32"),
    }


def as_frame(arrays):
    ids = np.random.default_rng(1).permutation(np.arange(1, VOCABULARY))  # any order
    columns = {
        "maker": arrays["maker"][ids],
        "genres": [arrays["genres"][k][: arrays["genres_len"][k]].tolist() for k in ids],
        "place": arrays["place"][ids],
        "price": list(arrays["price"][ids]),
    }
    return pd.DataFrame(columns, index=ids)


def featured_model(item_features=None, columns=COLUMNS, **arguments):
    arguments.setdefault("sampler_config", UniformSampler(20))
    item_features = catalogue() if item_features is None else item_features
    return YoutubeDNN(
        [history_column("recency+last")], [item_column(), *columns], (16, DIM), item_features=item_features, **arguments
    )


def fitted(model, x, epochs=1, optimizer="sgd", run_eagerly=False, batch_size=32):
    model.compile(optimizer, sampledsoftmaxloss, run_eagerly=run_eagerly)
    model.fit(x, batch_size=batch_size, epochs=epochs, verbose=0)
    return model


@pytest.mark.slow
def test_a_frame_and_arrays_say_the_same():
    x = small_input(64)
    models = (featured_model(features) for features in (catalogue(), as_frame(catalogue())))
    from_arrays, from_frame = (fitted(model, x, run_eagerly=True) for model in models)
    np.testing.assert_array_equal(from_arrays.item_vectors(), from_frame.item_vectors())


@pytest.mark.slow
def test_the_callers_catalogue_is_not_changed():
    arrays, frame = catalogue(), as_frame(catalogue())
    before = {name: values.copy() for name, values in arrays.items()}, frame.copy(deep=True)
    featured_model(arrays), featured_model(frame)
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, before[0][name])
    pd.testing.assert_frame_equal(frame, before[1])


@pytest.mark.slow
def test_item_vectors_are_those_of_the_item_encoder():
    x = {**small_input(60), "item": np.arange(60) % (VOCABULARY - 1) + 1}
    model = fitted(featured_model(), x, run_eagerly=True)
    assert [tensor.name for tensor in model.item_input] == [
        *("item", "maker", "genres", "genres_len", "place", "price")
    ]
    encoder = tf.keras.Model(model.item_input, model.item_emb)
    x = {"item": np.arange(VOCABULARY), **catalogue()}
    vectors = encoder([tf.constant(x[tensor.name].reshape(VOCABULARY, -1)) for tensor in model.item_input]).numpy()
    np.testing.assert_allclose(model.item_vectors()[1:], vectors[1:], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_an_item_that_was_never_trained_is_encoded_from_its_features():
    x = small_input(400)
    x["item"] = np.random.default_rng(0).integers(1, 20, 400)  # items from 20 are never positives
    arrays = catalogue()
    for name in arrays:
        arrays[name][25] = arrays[name][24]
        arrays[name][6] = arrays[name][5]
    model = fitted(featured_model(arrays, l2_reg_embedding=0.01), x, epochs=3, optimizer="adam")
    vectors = model.item_vectors()
    np.testing.assert_allclose(vectors[25], vectors[24], atol=1e-6)  # of equal features, so equal
    assert np.abs(vectors[6] - vectors[5]).max() > 1e-2  # these have ids of their own
    encoder = tf.keras.Model(model.item_input, model.item_emb)
    unknown = {name: values[24:25] for name, values in arrays.items()} | {"item": np.array([0])}
    unknown = [tf.constant(unknown[tensor.name].reshape(1, -1)) for tensor in model.item_input]
    np.testing.assert_allclose(encoder(unknown)[0], vectors[24], atol=1e-6)


@pytest.mark.slow
@pytest.mark.once
def test_features_alone_tell_new_items_apart():
    """The next item's maker is the last item's; new items are ranked by it."""
    rng = np.random.default_rng(0)
    makers = np.concatenate([[0], rng.integers(1, 7, VOCABULARY - 1)])
    x = small_input(3000)
    known = np.arange(1, 22)
    x["item"] = np.array(
        [
            rng.choice(known[makers[known] == maker]) if (makers[known] == maker).any() else 1
            for maker in makers[x["hist_item"][:, 0]]
        ]
    )
    model = YoutubeDNN(
        [history_column("last")],
        [item_column(), SparseFeat("maker", 7, 4)],
        (16, DIM),
        item_features={"maker": makers},
        sampler_config=FullSampler(),
        item_id_dropout=0.5,
    )
    model.compile(tf.keras.optimizers.Adam(0.01), sampledsoftmaxloss)
    model.fit(x, epochs=8, batch_size=100, verbose=0)
    users, items = model.user_vectors(x), model.item_vectors()
    new = np.arange(22, VOCABULARY)
    scores = users @ items[new].T
    alike = makers[new][None] == makers[x["hist_item"][:, :1]]
    has_both = alike.any(1) & ~alike.all(1)
    best = alike[np.arange(len(scores)), scores.argmax(1)]
    assert best[has_both].mean() > 0.9
    assert alike[has_both].mean() < 0.5  # chance


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "optimizer"), [(UniformSampler(5), "adam"), (InBatchSampler(), "sgd"), (FullSampler(), "sgd")]
)
def test_a_model_with_features_reloads_and_goes_on(sampler, optimizer, tmp_path):
    x = small_input(64)
    model = featured_model(sampler_config=sampler, history_dropout=0.2, dnn_dropout=0.1)
    eagerly = optimizer == "sgd"  # graphs would take longer than what they compute; one is enough
    model = fitted(model, x, optimizer=optimizer, run_eagerly=eagerly, batch_size=64)
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    again.run_eagerly = eagerly
    np.testing.assert_array_equal(again.item_vectors(), model.item_vectors())
    np.testing.assert_array_equal(again.user_vectors(x), model.user_vectors(x))
    for each in (model, again):
        each.fit(x, batch_size=64, epochs=2, verbose=0)
    np.testing.assert_allclose(again.item_vectors(), model.item_vectors(), atol=1e-6)


@pytest.mark.slow
def test_a_dense_item_tower_on_the_id_alone():
    model = YoutubeDNN([history_column()], [item_column()], (16, 5), item_dnn_hidden_units=[6, 5])
    assert fitted(model, small_input(32), run_eagerly=True).item_vectors().shape == (VOCABULARY, 5)


def test_without_layers_the_embeddings_are_added_up():
    columns = [SparseFeat("maker", 7, 8), VarLenSparseFeat(SparseFeat("genres", 6, 8), 3, "mean")]
    genres = np.array([[0, 0, 0], *[[1 + k % 5, 2 if k % 2 else 0, 0] for k in range(1, VOCABULARY)]])
    known = {"maker": np.arange(VOCABULARY) % 6 + 1, "genres": genres}
    model = YoutubeDNN([history_column()], [item_column(), *columns], item_features=known, item_dnn_hidden_units=[])
    trained = model.get_layer("known_items")
    trained.set_weights([np.ones_like(weights) for weights in trained.get_weights()])
    items, makers, of_genre = (
        model.get_layer(f"table_{name}").get_weights()[0].astype("float64") for name in ("item", "maker", "genres")
    )
    is_there = genres[..., np.newaxis] > 0
    mean = (of_genre[genres] * is_there).sum(axis=1) / np.maximum(is_there.sum(axis=1), 1)
    expected = items + makers[known["maker"]] + mean
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.item_vectors()[1:], expected[1:], atol=1e-6)


@pytest.mark.slow
def test_training_reads_no_item_features():
    model = featured_model()
    assert sorted(tensor.name for tensor in model.inputs) == ["hist_item", "hist_len", "item"]
    fitted(model, {**small_input(32), "maker": "whatever"}, run_eagerly=True)


def changed(**columns):
    return {**catalogue(), **columns}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"item_features": changed(maker=np.full(VOCABULARY, 7))},
            r"In `item_features`: Input 'maker' must hold ids in",
        ),
        ({"item_features": changed(maker=np.ones(3, int))}, r"'maker' in `item_features` must have 30 rows"),
        (
            {"item_features": changed(price=np.full((VOCABULARY, 2), np.nan))},
            r"In `item_features`: .*'price' .* no NaN",
        ),
        (
            {"item_features": changed(price=np.ones((VOCABULARY, 3)))},
            r"'price' in `item_features` must have shape \(30, 2\); got shape \(30, 3\)",
        ),
        (
            {"item_features": as_frame(catalogue()).assign(price=[[1.0]] + [[1.0, 2.0]] * 28)},
            r"In `item_features`: Input 'price' must have lists of 2 values; got lists of 1",
        ),
        ({"item_features": {"maker": catalogue()["maker"]}}, r"`item_features` must have 'genres'; got only"),
        (
            {"item_features": as_frame(catalogue()).drop(columns="place")},
            r"`item_features` must have 'place'; got only",
        ),
        ({"item_features": as_frame(catalogue()).set_axis([1] * 29)}, r"The index of `item_features` must hold each"),
        (
            {"item_features": as_frame(catalogue()).set_axis(range(29))},
            r"The index of `item_features` must hold item ids",
        ),
        (
            {"item_features": as_frame(catalogue()).assign(item=range(1, 30))},
            r"'item' in `item_features` must be the item ids, as the index is; got others\. Drop the column",
        ),
        ({"item_features": [1]}, r"`item_features` must be a DataFrame by item id"),
        ({"item_id_dropout": 1.0}, r"`item_id_dropout` must be at least 0 and less than 1"),
        (
            {"item_dnn_hidden_units": [9]},
            r"`user_dnn_hidden_units` must end in the size of the items' vectors, 9; got 8",
        ),
        ({"item_dnn_hidden_units": []}, r"Item column '\w+' must have the id's `embedding_dim`, 8, .*; got"),
        ({"item_dnn_hidden_units": [0]}, r"Every element of `item_dnn_hidden_units` must be an integer of at least 1"),
        ({"columns": [SparseFeat("hist_len", 5, 4)]}, r"The names of user and item inputs must not repeat"),
        ({"columns": []}, r"`item_features` must be left out where the item id is the only item column"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        featured_model(**arguments)


def test_the_ids_of_a_frame_are_its_column_s_or_its_index():
    frame = as_frame(catalogue())
    forms = frame, frame.assign(item=frame.index), frame.rename_axis("item").reset_index()
    kept = [featured_model(form).get_layer("catalogue").get_weights() for form in forms]
    for other in kept[1:]:
        for one, same in zip(kept[0], other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_features_of_items_need_their_values_and_integer_ids():
    with pytest.raises(ValueError, match=r"`item_features` must be given if several columns describe the item"):
        YoutubeDNN([history_column()], [item_column(), *COLUMNS])
    hashed = SparseFeat("item", VOCABULARY, DIM, use_hash=True)
    history = VarLenSparseFeat(SparseFeat("hist_item", VOCABULARY, DIM, True, embedding_name="item"), 3)
    with pytest.raises(
        ValueError, match=r"Item column 'item' must have integer ids, not hashed ones, if other columns describe"
    ):
        YoutubeDNN([history], [hashed, *COLUMNS], item_features=catalogue())


def test_a_pretrained_row_counts_for_an_item_that_was_never_trained():
    genre = {"genre": np.full(VOCABULARY, 3)}
    rows = np.random.default_rng(0).normal(size=(VOCABULARY, DIM))
    item = item_column(embeddings_initializer=rows)
    model = YoutubeDNN([history_column()], [item, SparseFeat("genre", 5, DIM)], item_features=genre)
    vectors = model.item_vectors(ids=np.arange(1, VOCABULARY))  # all of one genre
    assert len(np.unique(vectors.round(5), axis=0)) == VOCABULARY - 1
