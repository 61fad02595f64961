"""What all builders share: their signatures and documentation, and what a builder of one's own is made with."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepmatch_ext import DSSM, FM, YoutubeDNN
from deepmatch_ext._keras import keras
from deepmatch_ext.layers.pooling import POOLINGS
from deepmatch_ext.models import Assembly, Shared, builder
from deepmatch_ext.models._arguments import DEFAULTS, OPTIONAL
from deepmatch_ext.models._record import BUILDERS
from deepmatch_ext.samplers import InBatchSampler
from tests.helpers import DIM, MAX_LEN, VOCABULARY, history_column, item_column, small_input, user_part

OURS = {name: function for name, function in BUILDERS.items() if function.__module__.startswith("deepmatch_ext.")}
DEEPMATCH_ORDER = {
    "YoutubeDNN": "user_dnn_hidden_units dnn_activation dnn_use_bn l2_reg_dnn l2_reg_embedding dnn_dropout "
    "output_activation temperature sampler_config seed",
    "DSSM": "user_dnn_hidden_units item_dnn_hidden_units dnn_activation dnn_use_bn l2_reg_dnn l2_reg_embedding "
    "dnn_dropout loss_type temperature sampler_config seed",
    "FM": "l2_reg_embedding loss_type temperature sampler_config seed",
    "ComiRec": "k_max p interest_extractor add_pos user_dnn_hidden_units dnn_activation dnn_use_bn l2_reg_dnn "
    "l2_reg_embedding dnn_dropout output_activation sampler_config seed",
    "NCF": "user_gmf_embedding_dim item_gmf_embedding_dim user_mlp_embedding_dim item_mlp_embedding_dim dnn_use_bn "
    "dnn_hidden_units dnn_activation l2_reg_dnn l2_reg_embedding dnn_dropout seed",
    "SDM": "history_feature_list units rnn_layers dropout_rate rnn_num_res num_head l2_reg_embedding dnn_activation "
    "temperature sampler_config seed",
    "SRGNN": "steps click_dropout user_dnn_hidden_units dnn_activation dnn_use_bn l2_reg_dnn l2_reg_embedding "
    "dnn_dropout output_activation temperature sampler_config seed",  # DeepMatch has none
    # DeepMatch has none of the next four either.
    "SequenceDNN": "blocks pooled num_heads block_dropout user_dnn_hidden_units dnn_activation dnn_use_bn l2_reg_dnn "
    "l2_reg_embedding dnn_dropout output_activation temperature sampler_config seed",
    "SASRec": "num_blocks num_heads block block_dropout l2_reg_embedding dnn_dropout temperature sampler_config seed",
    "HSTU": "num_blocks num_heads block_dropout l2_reg_embedding dnn_dropout temperature sampler_config seed",
    "GRU4Rec": "num_blocks block_dropout l2_reg_embedding dnn_dropout temperature sampler_config seed",
    "MIND": "k_max p dynamic_k user_dnn_hidden_units dnn_activation dnn_use_bn l2_reg_dnn l2_reg_embedding "
    "dnn_dropout output_activation sampler_config seed",
}


@pytest.mark.parametrize("name", OURS)
def test_every_argument_is_in_the_signature_with_its_meaning(name):
    parameters = inspect.signature(OURS[name]).parameters
    assert "make" not in parameters
    assert "shared" not in parameters
    positional = [key for key, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    assert positional == ["user_feature_columns", "item_feature_columns", *DEEPMATCH_ORDER[name].split()]
    of_labels = {"loss", "num_sampled", "gbce_t", "num_hard"} if name == "NCF" else set()  # it draws no negatives
    shared = set(DEFAULTS) - of_labels - ({"loss"} if "loss_type" in parameters else set())
    assert shared <= {key for key, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    text = inspect.getdoc(OURS[name])
    for argument in parameters:
        assert f"\n    {argument}: " in text
    for heading in ("Args:", "Returns:", "Raises:", "Example:"):
        assert text.count(f"\n{heading}\n") == 1


def test_what_is_shared_is_typed_and_has_a_default_once():
    assert set(Shared.__annotations__) == set(DEFAULTS)
    assert not set(DEFAULTS) & set(OPTIONAL)


def test_an_argument_that_there_is_not_is_named_with_the_builder():
    with pytest.raises(TypeError, match=r"YoutubeDNN\(\) got an unexpected keyword argument 'temprature'"):
        YoutubeDNN([history_column()], [item_column()], temprature=0.1)
    with pytest.raises(ValueError, match=r"`loss_type` must be one of 'softmax', 'bpr', 'gbce', 'logistic'; got 'log"):
        DSSM([history_column()], [item_column()], loss_type="logistics")


@builder
def Interests(make, user_feature_columns, item_feature_columns, number=2, seed=1, **shared):
    """So many dense layers over the history's mean, a vector each.

    Args:
        number: K.
    """
    parts = [make.dense(f"interest_{k}", make.features(), (make.dim,)) for k in range(number)]
    stack = make.layer(keras.layers.Concatenate, "stack")(parts)
    return make.model(make.layer(keras.layers.Reshape, "interests", target_shape=(number, make.dim))(stack))


@pytest.mark.slow
@pytest.mark.once
def test_of_several_interests_the_nearest_is_trained():
    model = Interests([history_column("mean")], [item_column()], number=3)
    assert model.user_emb.shape == (None, 3, DIM)
    x = small_input(8)
    users = np.asarray(keras.Model(model.user_input, model.user_emb)([x["hist_item"], x["hist_len"][:, None]]))
    np.testing.assert_allclose(np.linalg.norm(users, axis=2), 1, rtol=1e-5)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model([x["hist_item"][:1], x["hist_len"][:1, None], x["item"][:1, None]]))
    kernels = [model.get_layer(f"interest_{k}_dense_1").kernel for k in range(3)]
    nearest = int(np.argmax(users[0] @ model.item_vectors()[x["item"][0]]))
    gradients = tape.gradient(loss, kernels)
    assert [k for k, gradient in enumerate(gradients) if np.any(gradient)] == [nearest]
    model.compile("adam", run_eagerly=True)
    model.fit(x, verbose=0)


def test_features_stand_beside_each_interest():
    @builder
    def Beside(make, user_feature_columns, item_feature_columns, seed=1, **shared):
        rows, valid, *_ = make.history()
        assert (rows.shape, valid.shape) == ((None, MAX_LEN, DIM), (None, MAX_LEN))
        (city,) = make.features()
        return make.model(make.dense("user", [rows, city], (make.dim,)))

    model = Beside([history_column(), SparseFeat("city", 5, 3)], [item_column()])
    assert model.get_layer("user_features").output.shape == (None, MAX_LEN, DIM + 3)
    assert model.user_emb.shape == (None, MAX_LEN, DIM)


def test_histories_are_taken_by_name_or_as_the_first_of_items():
    columns = [history_column(), VarLenSparseFeat(SparseFeat("other", 9, 4), 3)]
    arguments = {"user_feature_columns": columns, "item_feature_columns": [item_column()]}
    make = Assembly("YoutubeDNN", arguments)
    assert make.history("other").rows.shape == (None, 3, 4)
    assert len(make.features()) == 1
    make.history()
    assert make.features() == []
    with pytest.raises(ValueError, match=r"`user_feature_columns` must have a history 'no'; got only \['hist_item'"):
        make.history("no")
    arguments["user_feature_columns"] = columns[1:]
    with pytest.raises(ValueError, match=r"must have a history that shares the item's table .*; got none"):
        Assembly("YoutubeDNN", arguments).history()


def test_a_pooling_of_ones_own_is_a_class_and_a_line(monkeypatch):
    @keras.utils.register_keras_serializable("test_assembly")
    class Second(keras.layers.Layer):
        """The second item's row, times two."""

        def __init__(self, seed, **kwargs):
            super().__init__(**kwargs)
            self.seed = seed

        def call(self, inputs):
            rows, valid = inputs
            return 2 * rows[:, 1] * tf.cast(valid[:, 1:2], rows.dtype)

    monkeypatch.setitem(POOLINGS, "second", Second)
    with pytest.raises(ValueError, match=r"must end in the size of the items' vectors, 8; got 16, the width"):
        YoutubeDNN([history_column("second+last")], [item_column()], user_dnn_hidden_units=())
    model = YoutubeDNN([history_column("second")], [item_column()], user_dnn_hidden_units=())
    x = small_input(16)
    table = model.get_layer("table_item").get_weights()[0].astype("float64")
    expected = np.where(x["hist_len"][:, None] > 1, table[x["hist_item"][:, 1]], 0)
    norm = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model.user_vectors(user_part(x)), expected / np.where(norm > 0, norm, 1), atol=1e-6)


def test_a_builders_name_is_its_own():
    with pytest.raises(ValueError, match=r"The builder DSSM must have a name of its own; got that of deepmatch_ext"):

        @builder
        def DSSM(make, user_feature_columns, item_feature_columns):
            return make.model(make.dense("user", make.features(), ()))


# DSSM and FM, against their formulas.


def unit(vectors):
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1)


def weights_of(model, name):
    return [weight.astype("float64") for weight in model.get_layer(name).get_weights()]


def test_dssm_is_two_towers_and_their_cosine():
    items = [item_column(), SparseFeat("genre", 5, 3)]
    x = {**small_input(16), "genre": np.arange(16) % 4 + 1}
    model = DSSM([history_column("mean")], items, (6, 4), (5, 4), sampler_config=InBatchSampler(memory=50))
    x = {name: values[:, None] if values.ndim == 1 else values for name, values in x.items()}
    table, genres = weights_of(model, "table_item")[0], weights_of(model, "table_genre")[0]
    is_item = x["hist_item"] > 0
    mean = (table[x["hist_item"]] * is_item[..., None]).sum(1) / is_item.sum(1, keepdims=True)
    hidden = mean
    # An item that was never trained is encoded from its features alone, with the row of id 0.
    features = np.concatenate([np.repeat(table[:1], 16, axis=0), genres[x["genre"][:, 0]]], axis=1)
    for place in (1, 2):
        kernel, bias = weights_of(model, f"user_dense_{place}")
        hidden = hidden @ kernel + bias
        kernel, bias = weights_of(model, f"item_dense_{place}")
        features = features @ kernel + bias
        if place == 1:
            hidden, features = np.maximum(hidden, 0), np.maximum(features, 0)
    np.testing.assert_allclose(model.user_vectors(user_part(x)), unit(hidden), atol=1e-5)
    encoder = keras.Model(model.item_input, model.item_emb)
    np.testing.assert_allclose(encoder([x["item"], x["genre"]]), unit(features), atol=1e-5)


def test_fm_is_the_sum_of_the_fields():
    user = [SparseFeat("city", 9, DIM), history_column("mean+last")]
    model = FM(user, [item_column()])
    x = {**small_input(16), "city": np.arange(16) % 8}
    table, cities = weights_of(model, "table_item")[0], weights_of(model, "table_city")[0]
    is_item = x["hist_item"] > 0
    mean = (table[x["hist_item"]] * is_item[..., None]).sum(1) / is_item.sum(1, keepdims=True)
    expected = cities[x["city"]] + mean + table[x["hist_item"][:, 0]]
    np.testing.assert_allclose(model.user_vectors(user_part(x)), unit(expected), atol=1e-5)
    np.testing.assert_allclose(model.item_vectors()[1:], unit(table)[1:], atol=1e-5)


def test_fm_refuses_what_has_no_embedding_of_the_items_size():
    with pytest.raises(ValueError, match=r"`user_feature_columns` must have embeddings .* the item's, 8; got 'age'"):
        FM([history_column(), DenseFeat("age")], [item_column()])
    with pytest.raises(ValueError, match=r"`item_feature_columns` must have embeddings .* the item's, 8; got 'genre'"):
        FM(
            [history_column()],
            [item_column(), SparseFeat("genre", 5, 4)],
            item_features={"genre": np.ones(VOCABULARY, int)},
        )


@pytest.mark.slow
def test_items_whose_features_come_with_the_examples():
    """As in DeepMatch's programs: the batch's items are the negatives, and no catalogue is kept."""
    items, x = [item_column(), SparseFeat("genre", 5, 3)], {**small_input(64), "genre": np.arange(64) % 4 + 1}
    model = DSSM([history_column()], items, (DIM,), (DIM,), sampler_config=InBatchSampler(memory=50))
    model.compile("adam", run_eagerly=True)
    before = model.get_layer("table_genre").get_weights()[0]
    model.fit(x, batch_size=16, verbose=0)
    after = model.get_layer("table_genre").get_weights()[0]
    assert np.all(np.any(before[1:5] != after[1:5], axis=1))
    again = type(model).from_config(model.get_config())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again.user_vectors(user_part(x)), model.user_vectors(user_part(x)))
    with pytest.raises(ValueError, match=r"`item_features` must be given to the builder, for `item_vectors`; got None"):
        model.item_vectors()
    with pytest.raises(ValueError, match=r"`item_features` must be given if several .* Or take `InBatchSampler`"):
        DSSM([history_column()], items)
    with pytest.raises(ValueError, match=r"'genre'"):
        model.fit({name: values for name, values in x.items() if name != "genre"}, verbose=0)


def test_no_two_layers_and_no_input_have_one_name():
    make = Assembly("YoutubeDNN", {"user_feature_columns": [history_column()], "item_feature_columns": [item_column()]})
    make.layer(keras.layers.ReLU, "mine")
    with pytest.raises(ValueError, match=r"The layer 'mine' must have a name of its own; got that of"):
        make.layer(keras.layers.Softmax, "mine")
    for name in ("table_item", "pooled_hist_item_0", "user_dense_1", "unit_length", "loss"):
        columns = [history_column(), SparseFeat(name, 5, 4)]
        with pytest.raises(ValueError, match=rf"The names of inputs must differ from .*; got '{name}'"):
            YoutubeDNN(columns, [item_column()])
