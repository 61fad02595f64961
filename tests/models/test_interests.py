"""A model of K interests, from its tower to metrics, an index and an export: K vectors a user wherever users go."""

import dataclasses
import functools
import json

import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from hypothesis import given

from deepmatch_ext._checks import positive_int
from deepmatch_ext._keras import keras
from deepmatch_ext.evaluation import RetrievalMetrics, evaluate
from deepmatch_ext.models import MIND, ComiRec, builder
from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.retrieval import ExactIndex, top_n
from deepmatch_ext.serving import export_recommender
from deepmatch_ext.testing import CHECKS, Trial
from tests.helpers import DIM, MAX_LEN, csr, history_column, item_column, true_scores

pytestmark = pytest.mark.slow


@builder
def Heads(make, user_feature_columns, item_feature_columns, k=3, temperature=0.1, seed=1, **shared):
    """The user's features through a dense layer for each of ``k`` interests."""
    heads = make.dense("heads", make.features(), (positive_int("`k`", k) * make.dim,))
    return make.model(make.layer(keras.layers.Reshape, "interests", target_shape=(k, make.dim))(heads))


@pytest.fixture(scope="module")
def trial():
    return Trial(Heads, ([history_column("last")], [item_column()]))


@pytest.mark.once
def test_zeros_for_surplus_interests_are_a_broken_promise(trial, monkeypatch):
    vectors = trial.learnt.user_vectors.copy()
    vectors[[3, 5], 1] = 0
    vectors[4] = 0  # a user without any interest
    monkeypatch.setattr(trial.learnt, "user_vectors", vectors)
    with pytest.raises(AssertionError, match=r"a surplus interest must repeat another one .*; got zeros for 2 users$"):
        CHECKS["vectors"](trial)


def test_user_vectors_are_the_encoder_s_at_every_batch_size_and_of_a_dataset(trial):
    model, x = trial.trained, {name: values[:20] for name, values in trial.users.items()}
    expected = tf.keras.Model(model.user_input, model.user_emb).predict(x, verbose=0)
    assert expected.shape == (20, 3, 8)
    for size in (1, 7, 20, 100):
        vectors = model.user_vectors(x, batch_size=size)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
        dataset = tf.data.Dataset.from_tensor_slices(x).batch(6)
        np.testing.assert_allclose(model.user_vectors(dataset, size), expected, atol=1e-6)
    assert model.user_vectors(tf.data.Dataset.from_tensor_slices(x).batch(6).take(0)).shape == (0, 3, 8)


def test_each_interest_is_some_users_best(trial):
    """Else what follows could be right for one of them alone."""
    scores = np.einsum("bkd,vd->bvk", trial.learnt.user_vectors, trial.learnt.item_vectors[1:]).max(axis=1)
    assert set(scores.argmax(axis=1)) == {0, 1, 2}


def test_the_callback_s_metrics_are_those_of_the_best_of_k(trial):
    rng = np.random.default_rng(0)
    targets = rng.integers(1, 30, len(trial.learnt.user_vectors))
    seen = csr([[item for item in rng.integers(0, 30, 8).tolist() if item != target] for target in targets])
    callback = RetrievalMetrics(trial.users, targets, seen=seen, ns=(1, 3, 10))
    callback.set_model(trial.trained)
    scores = true_scores(trial.learnt.user_vectors, trial.learnt.item_vectors)
    expected = evaluate(lambda start, stop: scores[start:stop], targets, seen=seen, ns=(1, 3, 10))
    assert callback.evaluate() == pytest.approx(expected)
    assert 0 < expected["HR@1"] < 1


@pytest.fixture(scope="module", params=["float32", "int8"])
def export(request, trial, tmp_path_factory):
    path = export_recommender(trial.trained, tmp_path_factory.mktemp("export"), vector_dtype=request.param)
    return request.param, path, tf.saved_model.load(str(path))


@given(st.integers(0, 2**32 - 1), st.integers(1, 29))
def test_an_export_recommends_what_top_n_does(trial, export, seed, n):
    dtype, _, served = export
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(trial.learnt.user_vectors), 5)
    seen = rng.integers(0, 30, (5, 8))  # repeats, and padding
    user = {
        tensor.name: tf.cast(tf.reshape(trial.users[tensor.name][rows], [-1, *tensor.shape[1:]]), tensor.dtype)
        for tensor in trial.trained.user_input
    }
    vectors = served.signatures["user_vector"](**user)["user_vector"].numpy()
    np.testing.assert_allclose(vectors, trial.learnt.user_vectors[rows], atol=1e-6)
    came = served.signatures["recommend_unseen"](**user, n=tf.constant(n), seen=tf.constant(seen))
    ids, scores = top_n(vectors, trial.learnt.item_vectors, n, exclude=csr(seen.tolist()))
    # int8 rounds each of 8 entries by a 254th of the largest at most.
    tolerance = 1e-5 if dtype == "float32" else 8 / 254
    np.testing.assert_allclose(came["scores"].numpy(), scores, atol=tolerance)
    for row, mine in enumerate(came["item_ids"].numpy()):
        found = mine[mine > 0].tolist()
        assert len(set(found)) == len(found) == np.count_nonzero(ids[row])
        assert not set(found) & set(seen[row].tolist())
    if dtype == "float32":
        assert came["item_ids"].numpy().tolist() == ids.tolist()


def test_an_export_s_manifest_says_how_many_interests(export):
    manifest = json.loads((export[1] / "manifest.json").read_text())
    assert (manifest["interests"], manifest["dim"]) == (3, 8)


def test_an_index_finds_the_best_of_k(trial):
    items = trial.learnt.item_vectors
    ids, scores = ExactIndex(np.arange(1, 30), items[1:]).search(trial.learnt.user_vectors, 29)
    expected_ids, expected = top_n(trial.learnt.user_vectors, items, 29)
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert ids.tolist() == expected_ids.tolist()


@pytest.mark.parametrize(
    "layers",
    [[keras.layers.Reshape((2, 3, 4))], [keras.layers.Flatten(), keras.layers.Dense(1), keras.layers.Reshape(())]],
)
def test_a_tower_of_another_rank_is_refused(trial, layers):
    model = trial.trained
    user_emb = functools.reduce(lambda tensor, layer: layer(tensor), layers, model.user_emb)
    towers = dataclasses.replace(model._towers, user_emb=user_emb)
    message = r"`user_emb` must have shape \(B, D\) or \(B, K, D\), of known D and K; got shape \(None,"
    with pytest.raises(ValueError, match=message):
        RetrievalModel(inputs=model.inputs, outputs=model.outputs[0], towers=towers, config={})


HISTORIES = {
    "hist_item": np.where(np.arange(MAX_LEN) < np.arange(1, MAX_LEN + 1)[:, None], np.arange(1, MAX_LEN + 1), 0),
    "hist_len": np.arange(1, MAX_LEN + 1),
    "item": np.arange(1, MAX_LEN + 1),
}
EXTRACTORS = {
    "MIND": functools.partial(MIND, k_max=3),
    "ComiRec, sa": functools.partial(ComiRec, k_max=3),
    "ComiRec, dr": functools.partial(ComiRec, k_max=3, interest_extractor="dr"),
}


@pytest.mark.parametrize("name", EXTRACTORS)
def test_interests_are_unit_vectors_and_differ(name):
    model = EXTRACTORS[name]([history_column()], [item_column()])
    vectors = model.user_vectors(HISTORIES)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=2), 1, rtol=1e-5)
    several = vectors[2:]  # of one item all interests are it, and of two they may nearly be
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (np.abs(several[:, one] - several[:, other]).max(axis=1) > 1e-4).all(), (one, other)


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.once
@pytest.mark.parametrize("name", EXTRACTORS)
def test_categories_are_read_beside_the_items(name):
    category = VarLenSparseFeat(SparseFeat("hist_category", 5, 4), MAX_LEN, length_name="hist_len")
    model = EXTRACTORS[name]([history_column(), category], [item_column()], num_sampled=5)
    rng = np.random.default_rng(0)
    valid = HISTORIES["hist_item"] > 0
    x = {**HISTORIES, "hist_category": rng.integers(0, 5, valid.shape) * valid}  # 0 is unknown
    arrays = model.user_arrays(x)
    inputs = [tf.constant(arrays[tensor.name.split(":")[0]]) for tensor in model.user_input]
    dense = model.get_layer("event_dense")

    def events():
        return keras.Model(model.user_input, dense.output)(inputs).numpy()

    rows = {each: model.get_layer(f"table_{each}").get_weights()[0] for each in ("item", "hist_category")}
    items = _unit(rows["item"][x["hist_item"]])
    for weights in (dense.get_weights(), [rng.normal(size=weight.shape) for weight in dense.get_weights()]):
        dense.set_weights(weights)
        categories = _unit(rows["hist_category"][x["hist_category"]]) * (x["hist_category"] > 0)[:, :, np.newaxis]
        expected = np.concatenate([items, categories], axis=2) @ weights[0] + weights[1]
        np.testing.assert_allclose(events()[valid], expected[valid], rtol=1e-4, atol=1e-5)
        if weights[0].dtype == np.float32:  # as initialised: an item, and its category's weights are random
            np.testing.assert_array_equal(weights[0][:DIM], np.eye(DIM))

    before = model.user_vectors(x)
    of_last_item = x["hist_category"].copy()
    of_last_item[:, 0] = of_last_item[:, 0] % 4 + 1
    assert (np.abs(model.user_vectors({**x, "hist_category": of_last_item}) - before).max(axis=(1, 2)) > 1e-4).all()
    model.compile("adam", run_eagerly=True)
    assert np.isfinite(model.fit(x, verbose=0).history["loss"]).all()


def test_an_extractor_may_be_named_in_any_case():
    for name, layer in (("SA", "SelfAttentiveInterests"), ("Dr", "DynamicRouting")):
        model = ComiRec([history_column()], [item_column()], interest_extractor=name)
        assert type(model.get_layer("interests")).__name__ == layer
    with pytest.raises(ValueError, match="`interest_extractor` must be one of 'sa', 'dr'; got 'rd'"):
        ComiRec([history_column()], [item_column()], interest_extractor="rd")


def _prelu(units):
    """Hidden layers whose activation has weights of its own for each interest."""
    return {"user_dnn_hidden_units": units, "dnn_activation": keras.layers.PReLU()}


@pytest.mark.parametrize("arguments", [{}, _prelu((16, DIM))], ids=["one layer", "prelu"])
def test_surplus_interests_repeat_the_first_in_training_too(arguments):
    model = MIND([history_column()], [item_column()], k_max=3, dynamic_k=True, dnn_dropout=0.5, **arguments)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    encoder = keras.Model(model.user_input, model.user_emb)
    arrays = model.user_arrays(HISTORIES)
    inputs = [tf.constant(arrays[tensor.name.split(":")[0]]) for tensor in model.user_input]
    counted = keras.Model(model.user_input, model.get_layer("surplus").output[1])(inputs).numpy()
    number = np.clip(np.floor(np.log2(HISTORIES["hist_len"])), 1, 3).astype(int)
    assert counted[:, 0].tolist() == number.tolist() == [1, 1, 1, 2, 2, 2]
    # Label-aware attention is told: one that finds copies by comparing them misses those that L2-normalisation rounds.
    (*_, read) = model.get_layer("label_aware_attention").input
    assert tuple(read.shape) == (None, 1)
    for training in (False, True):
        vectors = encoder(inputs, training=training).numpy()
        for each, own in zip(vectors, number, strict=True):
            np.testing.assert_allclose(each[own:], np.repeat(each[:1], 3 - own, axis=0), atol=1e-6)
            assert own == 1 or np.abs(each[0] - each[1]).max() > 1e-4


@pytest.mark.once
@pytest.mark.parametrize("build", [MIND, ComiRec])
def test_an_infinite_power_trains_the_nearest_interest_alone(build, tmp_path):
    model = build([history_column()], [item_column()], p=float("inf"), num_sampled=5)
    names = {type(layer).__name__ for layer in model.layers}
    assert "NearestInterest" in names
    assert "LabelAwareAttention" not in names
    model.compile("adam", run_eagerly=True)
    assert np.isfinite(model.fit(HISTORIES, verbose=0).history["loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config()["arguments"]["p"] == float("inf")
    np.testing.assert_array_equal(loaded.user_vectors(HISTORIES), model.user_vectors(HISTORIES))
    with pytest.raises(ValueError, match=r"`p` must be at most 3.4e\+38 in size, or infinity; got 1e\+39"):
        build([history_column()], [item_column()], p=1e39)
    with pytest.raises(ValueError, match=r"`p` must be at least 0, or training prefers .*; got -1"):
        build([history_column()], [item_column()], p=-1)
