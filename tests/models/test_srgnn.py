"""SRGNN: planted sessions that only their graph explains, what stands beside the clicks, and gaps among them."""

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepmatch_ext import SRGNN, YoutubeDNN
from deepmatch_ext.data import split_by_time, synthetic_sessions, windows
from deepmatch_ext.evaluation import evaluate_vectors
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.samplers import FullSampler
from tests.helpers import DIM, MAX_LEN, VOCABULARY, history_column, item_column


@pytest.mark.slow
@pytest.mark.once
def test_the_graph_tells_what_no_bag_of_clicks_does():
    sessions = synthetic_sessions(800, 40, seed=1)
    cut = np.sort(sessions.times)[int(0.85 * len(sessions))]
    split = split_by_time(sessions, cut, cut + 1)
    train, test = windows(sessions, split.train_targets(), 12), windows(sessions, split.test, 12)
    hits = {}
    for builder in (SRGNN, YoutubeDNN):
        history = SparseFeat("hist_item_id", 41, 16, embedding_name="item_id")
        column = VarLenSparseFeat(history, 12, "recency+last", "hist_len")
        model = builder([column], [SparseFeat("item_id", 41, 16)], sampler_config=FullSampler())
        model.compile(LazyAdam(0.02))
        model.fit(train, batch_size=256, epochs=5, verbose=0)
        figures = evaluate_vectors(model.user_vectors(test), model.item_vectors(), test["item_id"], ns=[1])
        hits[builder.__name__] = figures["HR@1"]
    assert hits["SRGNN"] > 1.2 * hits["YoutubeDNN"], hits


CATEGORY = VarLenSparseFeat(SparseFeat("hist_category", 5, 4), MAX_LEN, "mean", "hist_len")
USER = [history_column(), CATEGORY, SparseFeat("country", 4, 4), DenseFeat("age", 1)]


@pytest.fixture(scope="module")
def model():
    return SRGNN(USER, [item_column()], steps=2, click_dropout=0.0)


def inputs(sessions, categories):
    """Sessions and the categories of their clicks, most recent first."""
    rows, pad = len(sessions), lambda values: [*values, *[0] * (MAX_LEN - len(values))]
    return {
        "hist_item": np.array([pad(session) for session in sessions]),
        "hist_category": np.array([pad(each) for each in categories]),
        "hist_len": np.array([len(session) for session in sessions]),
        "country": np.full(rows, 1),
        "age": np.zeros((rows, 1), "float32"),
    }


@pytest.mark.slow
def test_what_a_session_is_known_by(model):
    sessions = [[3, 2, 3, 1], [3, 2, 1, 3], [3, 2, 3, 1], [3, 2, 3, 1], [7], []]
    categories = [[1, 2, 1, 1], [1, 2, 1, 1], [1, 3, 1, 1], [1, 0, 1, 1], [1], []]
    x = inputs(sessions, categories)
    vectors = model.user_vectors(x)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[:5], axis=1), 1, rtol=1e-5)

    def differ(a, b):
        return np.abs(a - b).max() > 1e-6

    assert differ(vectors[0], vectors[1])  # the same clicks and the same last one, in another order
    assert differ(vectors[0], vectors[2])  # another category of the second click
    # A click whose category is unknown keeps its place among the clicks.
    known = model.user_vectors(inputs([sessions[3]], [[1, 1, 1, 0]]))
    assert differ(vectors[3], known[0])
    # Zeros anywhere are padding, and the categories move with their clicks.
    moved = {name: values[:1].copy() for name, values in x.items()}
    moved["hist_item"][0], moved["hist_category"][0] = [0, 3, 2, 0, 3, 1], [0, 1, 2, 0, 1, 1]
    np.testing.assert_allclose(model.user_vectors(moved)[0], vectors[0], atol=1e-6)
    other = model.user_vectors({**x, "country": np.full(6, 2)})
    assert all(differ(a, b) for a, b in zip(other, vectors, strict=True))


@pytest.mark.slow
def test_categories_of_another_length_are_a_feature_of_their_own():
    own = VarLenSparseFeat(SparseFeat("hist_category", 5, 4), MAX_LEN, "mean", "category_len")
    beside, apart = (SRGNN([history_column(), column], [item_column()]) for column in (CATEGORY, own))
    assert "clicks_dense_1" in {layer.name for layer in beside.layers}
    assert "clicks_dense_1" not in {layer.name for layer in apart.layers}
    assert "pooled_hist_category_0" in {layer.name for layer in apart.layers}
    assert "pooled_hist_category_0" not in {layer.name for layer in beside.layers}
    assert apart.item_vectors().shape == (VOCABULARY, DIM)


def test_what_is_refused():
    for arguments in ({"steps": 0}, {"click_dropout": 1.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}` must"):
            SRGNN([history_column()], [item_column()], **arguments)
    with pytest.raises(ValueError, match="`user_feature_columns` must have a history that shares the item's table"):
        SRGNN([SparseFeat("country", 4, 4)], [item_column()])


@pytest.mark.slow
def test_a_session_as_the_paper_has_it_is_its_graph_and_its_last_click_alone(tmp_path):
    model = SRGNN([history_column()], [item_column()], click_dropout=0.0, dnn_dropout=0.0, recent=False)
    x = {name: np.array(each) for name, each in {"hist_item": [[3, 2, 3, 1, 0, 0]], "hist_len": [4]}.items()}
    assert not [layer.name for layer in model.layers if layer.name.startswith("pooled")]
    readout = tf.keras.Model(model.user_input, model.get_layer("readout").output)
    whole, last = readout({name: tf.constant(values) for name, values in model.user_arrays(x).items()})
    kernel, bias = model.get_layer("user_dense_1").get_weights()
    assert kernel.shape == (2 * DIM, DIM)
    s = np.concatenate([whole, last], axis=1) @ kernel + bias  # equation 7
    np.testing.assert_allclose(model.user_vectors(x), s / np.linalg.norm(s), atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config()["arguments"]["recent"] is False
    np.testing.assert_array_equal(loaded.user_vectors(x), model.user_vectors(x))
