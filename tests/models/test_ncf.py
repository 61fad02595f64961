"""NCF's probabilities from its weights, in float64; which half retrieves; dicts of vocabulary sizes."""

import numpy as np
import pytest
from deepctr.feature_column import SparseFeat

from deepmatch_ext import DSSM, NCF
from deepmatch_ext.data import synthetic_pairs
from deepmatch_ext.models import builder
from deepmatch_ext.optimizers import LazyAdam
from tests.helpers import history_column, item_column, put_back, state_of

pytestmark = pytest.mark.slow

X = {"user": np.array([3, 1, 2, 3]), "item": np.array([7, 2, 5, 1])}


@pytest.fixture(scope="module")
def model():
    model = NCF({"user": 4}, {"item": 9}, 6, 6, 3, 5, dnn_hidden_units=(7, 4), temperature=0.5)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.6, w.shape) for w in model.get_weights()])
    return model


def weights_of(model, name):
    return [np.asarray(each, np.float64) for each in model.get_layer(name).get_weights()]


def rows(model, table, ids):
    return weights_of(model, f"table_{table}")[0][ids]


def normalised(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_the_whole_is_the_product_of_embeddings_beside_the_perceptron(model):
    p, q = normalised(rows(model, "user", X["user"])), normalised(rows(model, "item", X["item"]))
    hidden = np.concatenate([rows(model, "mlp_user_user", X["user"]), rows(model, "mlp_item_item", X["item"])], axis=1)
    for place in (1, 2):
        kernel, bias = weights_of(model, f"mlp_dense_{place}")
        hidden = np.maximum(hidden @ kernel + bias, 0)
    kernel, bias = weights_of(model, "mlp_logit")
    logits = (p * q).sum(axis=1) / 0.5 + (hidden @ kernel + bias)[:, 0]
    np.testing.assert_allclose(model.predict(X, verbose=0)[:, 0], 1 / (1 + np.exp(-logits)), rtol=1e-5)
    # The vectors are the product's alone.
    np.testing.assert_allclose(model.user_vectors(X), p, atol=1e-6)
    np.testing.assert_allclose(model.item_vectors()[X["item"]], q, atol=1e-6)


def test_a_dict_s_columns_come_back_from_a_config(model):
    again = type(model).from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again.predict(X, verbose=0), model.predict(X, verbose=0))
    assert [tuple(each.shape) for each in (again.user_emb, again.item_emb)] == [(None, 6)] * 2


def test_several_features_and_no_layer():
    model = NCF({"user": 4, "city": 3}, {"item": 9, "genre": 5}, dnn_hidden_units=())
    x = {**X, "city": np.array([1, 2, 1, 1]), "genre": np.array([1, 2, 3, 4])}
    model.compile("adam", run_eagerly=True)
    assert np.isfinite(model.train_on_batch(x, np.array([1, 0, 1, 0])))
    assert model.predict(x, verbose=0).shape == (4, 1)


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        (([history_column()], [item_column()]), {"user_gmf_embedding_dim": 8}, "`user_gmf_embedding_dim` must be left"),
        (({"user": 4}, {"item": 9}), {"item_gmf_embedding_dim": 0}, "`item_gmf_embedding_dim` must be an integer"),
        (({"user": "many"}, {"item": 9}), {}, "`vocabulary_size` of column 'user' must be an integer"),
        (({1: 4}, {"item": 9}), {}, "names in `user_feature_columns` must be text"),
        (({}, {"item": 9}), {}, "`user_feature_columns` must have at least one column"),
        (({"user": 4}, {"item": 9}), {"dnn_hidden_units": 64}, "`dnn_hidden_units` must be a list of integers"),
    ],
)
def test_what_is_refused(columns, arguments, message):
    with pytest.raises(ValueError, match=message):
        NCF(*columns, **arguments)


def test_a_model_with_logits_beside_takes_labels():
    @builder
    def LogitsBeside(make, user_feature_columns, item_feature_columns, **shared):
        return make.model(
            make.dense("user", make.features(), (make.dim,)), beside=lambda of_item: of_item("other", 1)[0]
        )

    with pytest.raises(ValueError, match="The loss of a model with `beside` must be 'logistic'; got 'softmax'"):
        LogitsBeside([history_column()], [item_column()])
    model = LogitsBeside([history_column()], [item_column()], loss="logistic")
    assert model.candidates is None
    assert SparseFeat("item", 2).name in [tensor.name for tensor in model.item_input]


@pytest.mark.once
def test_the_whole_tells_pairs_that_inner_products_of_its_size_do_not():
    """Which of two held-out pairs the user takes: 0.9 for those who know the probabilities, 0.5 at random."""
    pairs = synthetic_pairs(400, pairs_per_user=100, seed=1)
    train, test = pairs[:36000], pairs[36000:]
    user = [SparseFeat("user_id", 401, 4), SparseFeat("segment", 25, 4)]
    item = [SparseFeat("item_id", 401, 4), SparseFeat("category", 25, 4)]

    def right(model, labels):
        model.fit(train.drop(columns="taken"), labels, batch_size=1024, epochs=6, verbose=0)
        x = {name: test[name].to_numpy() for name in train.columns[:4]}
        scores = model.predict(x, batch_size=1000, verbose=0)[:, 0]
        taken = test["taken"].to_numpy() > 0
        return (scores[taken][:, np.newaxis] > scores[~taken]).mean()

    labels = train["taken"].to_numpy()
    ncf = NCF(user, item, user_mlp_embedding_dim=4, item_mlp_embedding_dim=4)
    dssm = DSSM(user, item, loss_type="logistic", user_dnn_hidden_units=(64, 4), item_dnn_hidden_units=(64, 4))
    for model in (ncf, dssm):
        model.compile(LazyAdam(0.03))
    untrained = state_of(ncf)
    of_ncf = right(ncf, labels)
    assert of_ncf > 0.86
    assert of_ncf > 1.1 * right(dssm, labels)
    put_back(ncf, untrained)
    assert 0.47 < right(ncf, np.random.default_rng(0).permutation(labels)) < 0.53
