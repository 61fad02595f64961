"""What a history is: its items, most recent first. An id 0, or of strings "0" and "", is never one of them."""

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.evaluation import TrainingWatch
from deepmatch_ext.models import ComiRec
from deepmatch_ext.serving import export_recommender
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import (
    DIM,
    MAX_LEN,
    VOCABULARY,
    history_column,
    item_column,
    put_back,
    small_input,
    small_model,
    state_of,
    user_part,
)

EVERY = "mean+sum+max+sqrtn+last+recency+recency:0.5"
T = 8


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model with histories of every kind in every combiner, and its export."""

    def column(name, combiner=EVERY, length=None, weight=None, **options):
        return VarLenSparseFeat(SparseFeat(name, 30, 4, **options), T, combiner, length, weight)

    columns = [
        column("counted", length="counted_len", embedding_name="item"),
        column("uncounted", embedding_name="item"),
        column("weighted", length="weighted_len", weight="weights"),
        column("raw_weighted", weight="raw_weights"),
        column("words", use_hash=True, dtype="string"),
        column("counted_words", length="words_len", use_hash=True, dtype="string"),
        column("hashed", use_hash=True),
    ]
    model = YoutubeDNN(columns, [SparseFeat("item", 30, 4)], history_dropout=0.3)
    path = export_recommender(model, tmp_path_factory.mktemp("export"))
    return model, tf.saved_model.load(str(path)).signatures["user_vector"]


def features(items, places, empty="", longer=0):
    """One user who had ``items``, most recent first, at the positions ``places`` of every history."""
    ids, weights, words = np.zeros((1, T), np.int32), np.zeros((1, T, 1), np.float32), np.full((1, T), empty, object)
    ids[0, places] = items
    weights[0, places, 0] = np.cos(items)
    words[0, places] = [f"w{item}" for item in items]
    weights[0, [place for place in range(T) if place not in places]] = 7.0  # of no item
    lengths = np.array([min(len(items) + longer, T)], np.int32)
    x = dict.fromkeys(("counted", "uncounted", "weighted", "raw_weighted", "hashed"), ids)
    x |= dict.fromkeys(("counted_len", "weighted_len", "words_len"), lengths)
    return x | {"weights": weights, "raw_weights": weights, "words": words, "counted_words": words}


@pytest.mark.slow
@pytest.mark.once
@given(data=st.data())
def test_zeros_change_no_vector_wherever_they_stand(served, data):
    model, exported = served
    items = data.draw(st.lists(st.integers(1, 29), max_size=T), "items")
    places = sorted(data.draw(st.permutations(range(T)), "places")[: len(items)])
    longer = data.draw(st.integers(0, T - len(items)), "how far the length counts zeros")
    moved = features(items, places, data.draw(st.sampled_from(["", "0"])), longer)
    together = features(items, list(range(len(items))))
    vectors = model.user_vectors({name: np.concatenate([together[name], moved[name]]) for name in moved})
    expected = vectors[:1]
    np.testing.assert_allclose(vectors[1:], expected, rtol=1e-5, atol=1e-6)
    tensors = {name: tf.constant(values) for name, values in moved.items()}
    tensors |= {name: tensors[name][:, None] for name in tensors if name.endswith("_len")}
    np.testing.assert_allclose(exported(**tensors)["user_vector"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lists", "ragged", "dataset"])
def test_zeros_in_a_list_take_no_room(served, form):
    """Of a list that is longer than the history, the first T items count, wherever there are zeros among them."""
    model, _ = served
    ids, words = [0, 0, *range(1, 5), 0, *range(5, 15)], ["0", "", *"abcd", "", *"efghijklmn"]
    weights = list(np.cos(ids))
    lists = {name: [ids, [3]] for name in ("counted", "uncounted", "weighted", "raw_weighted", "hashed")}
    lists |= {name: [words, ["c"]] for name in ("words", "counted_words")}
    lists |= {name: [weights, [0.5]] for name in ("weights", "raw_weights")}
    known = {name: [[rows[0][place] for place in np.flatnonzero(ids)], rows[1]] for name, rows in lists.items()}
    expected = model.user_vectors(known)
    if form != "lists":
        lists = {name: tf.ragged.constant(rows) for name, rows in lists.items()}
    if form == "dataset":
        lists = tf.data.Dataset.from_tensors(lists)
    np.testing.assert_allclose(model.user_vectors(lists), expected, rtol=1e-5, atol=1e-6)
    assert model.user_arrays(known)["counted"].tolist() == [list(range(1, 9)), [3, 0, 0, 0, 0, 0, 0, 0]]


@pytest.mark.slow
def test_an_empty_history_gives_the_vector_of_no_history(served):
    model, _ = served
    unknown = features([], [], "0", longer=3)
    np.testing.assert_array_equal(model.user_vectors(unknown), model.user_vectors(features([], [])))


@pytest.mark.slow
def test_a_length_cuts_and_is_told_of(served):
    model, _ = served
    longer, cut = features([4, 5, 6], [0, 1, 2]), features([4, 5], [0, 1])
    for name in ("uncounted", "raw_weighted", "words", "hashed", "weights", "raw_weights"):
        cut[name] = longer[name]
    for length in ("counted_len", "weighted_len", "words_len"):
        longer[length] = np.array([2], np.int32)
    with pytest.warns(UserWarning, match="more ids than") as told:
        vectors = model.user_vectors(longer)
    np.testing.assert_allclose(vectors, model.user_vectors(cut), rtol=1e-5, atol=1e-6)
    pairs = {"counted": "counted_len", "weighted": "weighted_len", "counted_words": "words_len"}
    assert [str(each.message).split(": ")[0] for each in told] == [
        f"Input '{name}' has rows with more ids than '{length}' says" for name, length in pairs.items()
    ]


@pytest.mark.slow
def test_padding_in_front_trains_the_same_model():
    """Padding in front with a length, as Keras's ``pad_sequences`` makes it by default."""
    x = small_input(256)
    front = {**x, "hist_item": np.zeros_like(x["hist_item"])}
    for row, length in enumerate(x["hist_len"]):
        front["hist_item"][row, MAX_LEN - length :] = x["hist_item"][row, :length]
    model, vectors = small_model("recency+last", user_dnn_hidden_units=(DIM,)), []
    model.compile("adam", sampledsoftmaxloss, run_eagerly=True)
    untrained = state_of(model)
    for given_x in (x, front):
        put_back(model, untrained)
        model.fit(given_x, batch_size=64, verbose=0)
        vectors.append(model.user_vectors(user_part(x)))
    np.testing.assert_allclose(*vectors, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["arrays", "dataset", "generator", "train_on_batch", "evaluate", "watch"])
def test_more_ids_than_the_length_are_told_of_while_training(form, trained):
    trained, _ = trained
    model = type(trained).from_config(trained.get_config())
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    good, x = small_input(64), small_input(64)
    x["hist_len"] = x["hist_len"] - (np.arange(64) == 17)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(32)
    calls = {
        "arrays": lambda: model.fit(x, verbose=0),
        "dataset": lambda: model.fit(dataset, verbose=0),
        "generator": lambda: model.fit(({**x} for _ in range(2)), steps_per_epoch=2, verbose=0),
        "train_on_batch": lambda: model.train_on_batch(x),
        "evaluate": lambda: model.evaluate(dataset, verbose=0),
        "watch": lambda: model.fit(good, verbose=0, callbacks=[TrainingWatch(user_part(x))]),
    }
    with pytest.warns(UserWarning, match="Input 'hist_item' has rows with more ids than 'hist_len' says"):
        calls[form]()


def test_an_empty_string_is_no_target():
    hashed = {"use_hash": True, "dtype": "string", "embedding_name": "item"}
    history = VarLenSparseFeat(SparseFeat("hist", VOCABULARY, DIM, **hashed), 3, "mean")
    model = YoutubeDNN([history], [SparseFeat("item", VOCABULARY, DIM, **hashed)], num_sampled=5)
    model.compile("sgd", sampledsoftmaxloss)
    x = {"hist": np.array([["tea", "", "0"]] * 4)}
    for target in ("", "0"):
        for kind in (object, "U9", "S9"):
            bad = {**x, "item": np.array(["milk", target, "milk", "tea"]).astype(kind)}
            with pytest.raises(ValueError, match=r"Input 'item' must hold no padding, \"0\" or \"\".*; got 1 of it"):
                model.fit(bad, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Input .{1,3}item.{1,3} must hold no padding"):
        model.fit(tf.data.Dataset.from_tensor_slices({**x, "item": np.array(["a", "", "b", "c"])}).batch(2), verbose=0)


def test_history_dropout_draws_from_the_items_alone():
    """With zeros between them, the items that stay are chosen as without."""
    x = small_input(64, seed=3)
    spread = {**x, "hist_item": np.zeros_like(x["hist_item"])}
    for row, length in enumerate(x["hist_len"]):
        spread["hist_item"][row, -length:] = x["hist_item"][row, :length]
    model = YoutubeDNN([history_column("last")], [item_column()], history_dropout=0.5, num_sampled=5, dnn_dropout=0)
    encoder = tf.keras.Model(model.user_input, model.user_emb)
    inputs = [tf.constant(spread[name]) for name in ("hist_item", "hist_len")]
    vectors = encoder([inputs[0], inputs[1][:, None]], training=True).numpy()
    of_each = model.user_vectors({"hist_item": np.eye(1, MAX_LEN, dtype=int) * np.arange(VOCABULARY)[:, None],
                                  "hist_len": np.ones(VOCABULARY, int)})  # fmt: skip
    of_each[0] = model.user_vectors({"hist_item": np.zeros((1, MAX_LEN), int), "hist_len": [0]})
    for row, items in enumerate(x["hist_item"]):
        assert np.isclose(of_each[[*items[items > 0], 0]], vectors[row], atol=1e-5).all(axis=1).any()


@pytest.mark.parametrize(("combiner", "counts"), [("mean", [1, 1, 1]), ("last+recency:0.5", [1, 2**-0.5, 3**-0.5])])
def test_interests_weigh_positions_as_the_combiner_says(combiner, counts):
    """With one interest whose attention knows no position and begins even, it is the weighted mean of unit rows."""
    history = VarLenSparseFeat(SparseFeat("hist", VOCABULARY, DIM, embedding_name="item"), MAX_LEN, combiner, "len")
    columns = [history], [SparseFeat("item", VOCABULARY, DIM)]
    model = ComiRec(*columns, k_max=1, add_pos=False, user_dnn_hidden_units=())
    attention = model.get_layer("interests").attention
    attention.assign(tf.zeros_like(attention))
    ids = np.array([[3, 7, 5] + [0] * (MAX_LEN - 3)])
    rows = np.asarray(model.item_vectors())[ids[0, :3]]  # L2-normalised
    expected = np.array(counts) @ rows
    (vector,) = model.user_vectors({"hist": ids, "len": np.array([3])})
    np.testing.assert_allclose(np.ravel(vector), expected / np.linalg.norm(expected), atol=1e-5)
