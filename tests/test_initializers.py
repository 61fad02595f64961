"""Initializers of tables: checked with their column's name, in no file beside the weights, or refused on saving."""

import functools
import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat

from deepmatch_ext import YoutubeDNN, layers, samplers
from deepmatch_ext._keras import KERAS_3
from deepmatch_ext.features import column_config, read_columns
from deepmatch_ext.layers import EmbeddingTable
from tests.helpers import DIM, VOCABULARY, history_column, item_column, small_input, small_model, user_part

INITIALIZERS = tf.keras.initializers
MATRIX = np.random.default_rng(0).normal(size=(VOCABULARY, DIM))
X = small_input(8)


def pretrained(**arguments):
    """A model whose history and item give a table each its own copy of one matrix."""
    columns = [
        make(embeddings_initializer=INITIALIZERS.Constant(MATRIX.copy()), trainable=False)
        for make in (history_column, item_column)
    ]
    return YoutubeDNN(columns[:1], columns[1:], num_sampled=5, **arguments)


@pytest.fixture(scope="module")
def model():
    return pretrained()


class OfAMatrix(INITIALIZERS.Initializer):
    """Not registered; but its config holds what it gives."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, shape, dtype=None, **options):
        return tf.cast(self.matrix, dtype)

    def get_config(self):
        return {"matrix": self.matrix}


WAYS_TO_GIVE_VALUES = {
    "Constant": INITIALIZERS.Constant(MATRIX),
    "Constant of a list": INITIALIZERS.Constant(MATRIX.tolist()),
    "Constant of a tensor": INITIALIZERS.Constant(tf.constant(MATRIX)),
    "TensorFlow's": tf.constant_initializer(MATRIX),
    "an array": MATRIX,
    "an array of float16": MATRIX.astype("float16"),
    "a tensor": tf.constant(MATRIX, tf.float32),
    "a frame whose index is in another order": pd.DataFrame(MATRIX)[::-1],
    "Constant of such a frame": INITIALIZERS.Constant(pd.DataFrame(MATRIX)[::-1]),
    "a class of one's own": OfAMatrix(MATRIX),
}


@pytest.mark.parametrize("way", WAYS_TO_GIVE_VALUES)
def test_values_fill_the_table_and_are_not_in_its_config(way):
    (column,) = read_columns("columns", [item_column(embeddings_initializer=WAYS_TO_GIVE_VALUES[way])])
    table = EmbeddingTable(VOCABULARY, DIM, column.embeddings_initializer)
    table.build()
    np.testing.assert_allclose(table.get_weights()[0], MATRIX, atol=2e-3 if "float16" in way else 1e-6)
    assert table.get_weights()[0].dtype == np.float32
    assert len(json.dumps([column_config(column), table.get_config()])) < 1000


def test_a_model_with_a_pretrained_table_is_as_large_as_its_weights(model, tmp_path):
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert archive.getinfo("config.json").file_size < 10_000
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.item_vectors(), model.item_vectors())
    np.testing.assert_array_equal(again.user_vectors(X), model.user_vectors(X))
    again.save(tmp_path / "again.keras")
    assert again.get_config() == model.get_config()
    vectors = MATRIX / np.linalg.norm(MATRIX, axis=1, keepdims=True)
    np.testing.assert_allclose(
        tf.keras.models.load_model(tmp_path / "again.keras").item_vectors()[1:], vectors[1:], atol=1e-6
    )


def test_an_encoder_alone_has_its_table_from_its_weights(model, tmp_path):
    tf.keras.Model(model.user_input, model.user_emb).save(tmp_path / "encoder.keras")
    users = {name: tf.constant(values.reshape(len(values), -1)) for name, values in user_part(X).items()}
    vectors = tf.keras.models.load_model(tmp_path / "encoder.keras")(users)
    np.testing.assert_array_equal(vectors, model.user_vectors(X))


@pytest.mark.parametrize("how", ["from_config", "clone_model", "json"])
def test_a_copy_awaits_its_weights(model, how):
    copy = {
        "from_config": lambda: type(model).from_config(model.get_config()),
        "clone_model": lambda: tf.keras.models.clone_model(model),
        "json": lambda: tf.keras.models.model_from_json(model.to_json(), layers.custom_objects),
    }[how]()
    table = copy.get_layer("table_item")
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"table_item: the values of the table must be loaded first"
    ):
        table(tf.constant([[1]]))
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(table(tf.constant([1])), MATRIX[[1]].astype("float32"))


def test_a_rebuilt_model_without_its_weights_neither_trains_nor_gives_vectors(model):
    copy = type(model).from_config(model.get_config())
    copy.compile("sgd")
    for use in (copy.item_vectors, lambda: copy.user_vectors(X), lambda: copy.fit(X, verbose=0)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"values of the table must be loaded first"):
            use()


V1 = VOCABULARY - 1
WRONG_VALUES = {
    "no row for padding": (
        INITIALIZERS.Constant(MATRIX[1:]),
        rf"shape \({V1}, {DIM}\)\. Put a row for padding in front",
    ),
    "transposed": (INITIALIZERS.Constant(MATRIX.T), rf"shape \({DIM}, {VOCABULARY}\)\. Transpose it"),
    "one row": (INITIALIZERS.Constant(MATRIX[0]), rf"shape \({DIM},\)"),
    "three dimensions": (MATRIX[np.newaxis], rf"shape \(1, {VOCABULARY}, {DIM}\)"),
    "an array": (MATRIX[1:], "Put a row for padding"),
    "TensorFlow's": (tf.constant_initializer(MATRIX[1:]), "Put a row for padding"),
}


@pytest.mark.parametrize("case", WRONG_VALUES)
def test_values_of_another_shape_are_refused_with_their_column(case):
    given, got = WRONG_VALUES[case]
    rule = rf"column 'hist_item' must have shape \({VOCABULARY}, {DIM}\), .*row 0 is padding; got .*"
    with pytest.raises(ValueError, match=rule + got):
        read_columns("columns", [history_column(embeddings_initializer=given)])  # before anything is built


BROKEN = np.where(MATRIX > 2, np.nan, MATRIX)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (BROKEN, r"must hold finite numbers; got nan in row \d+\."),
        (INITIALIZERS.Constant(np.where(MATRIX > 2, np.inf, MATRIX)), r"must hold finite numbers; got inf in row"),
        (MATRIX * 1e300, r"must have a largest number of 2e-06 to 1e\+15 in size, .*; got \d\S+e\+300"),
        (MATRIX * 1e-20, r"must have a largest number of 2e-06 to .*; got \S+e-20. Scale"),
        (MATRIX.astype(str), r"must hold numbers; got an array of <U"),
        (
            pd.DataFrame(MATRIX).set_index(7 * np.arange(VOCABULARY)),
            rf"must have the ids 0..{V1} as its index",
        ),
        (np.ma.masked_greater(MATRIX, 2), r"must have no masked values; got \d+ masked. Fill them first"),
        (MATRIX * 1j, r"must hold numbers; got an array of complex128"),
        (
            "nonsense",
            r"must be an initializer of Keras's, its name, a function of a shape, or an array; got 'nonsense'",
        ),
        (3, r"must be an initializer of Keras's, .*; got 3"),
    ],
)
def test_what_is_no_initializer_is_refused_with_its_column(given, message):
    with pytest.raises(ValueError, match="`embeddings_initializer` of column 'item' " + message):
        read_columns("columns", [item_column(embeddings_initializer=given)])


def raising(shape, dtype=None):
    raise KeyError("no such file")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda shape, dtype=None: MATRIX[1:], r"must have shape .*Put a row for padding in front"),
        (lambda shape, dtype=None: BROKEN, r"must give finite numbers; got NaN or infinity among them"),
        (INITIALIZERS.Constant(np.nan), r"must give finite numbers"),
        (lambda shape: MATRIX, r"must give values of shape .*called with a shape and a `dtype`; got TypeError.*dtype"),
        (raising, r"must give values of shape .*; got KeyError: 'no such file'"),
    ],
)
def test_what_a_function_gives_is_refused_with_its_column(given, message):
    with pytest.raises(ValueError, match="`embeddings_initializer` of column 'hist_item' " + message):
        YoutubeDNN([history_column(embeddings_initializer=given)], [item_column()])


def test_a_table_of_its_own_is_named_in_refusals():
    with pytest.raises(ValueError, match=r"`embeddings_initializer` of 'words' must have shape \(9, 4\)"):
        EmbeddingTable(9, 4, MATRIX, name="words")


@tf.keras.utils.register_keras_serializable("tests")
def registered_ones(shape, dtype=None):
    return tf.ones(shape, dtype)


@tf.keras.utils.register_keras_serializable("tests")
class Filled(INITIALIZERS.Initializer):
    def __init__(self, value=1.0, make=None):
        self.value, self.make = value, make

    def __call__(self, shape, dtype=None, **options):
        return tf.fill(shape, tf.cast(self.value, dtype))

    def get_config(self):
        return {"value": self.value, "make": self.make}


NAMED = {
    "a name": "he_normal",
    "a class": INITIALIZERS.Ones,
    "an instance": INITIALIZERS.RandomUniform(-1, 1, seed=3),
    "a scalar": INITIALIZERS.Constant(0.5),
    "TensorFlow's scalar": tf.constant_initializer(0.5),
    "TensorFlow's": tf.random_uniform_initializer(-1, 1),
    "TensorFlow's older": tf.compat.v1.random_normal_initializer(0, 0.3),
    "a registered function": registered_ones,
    "a registered class": Filled(0.25),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_models_with_named_initializers_reload(tmp_path):
    features = [
        SparseFeat(f"f{place}", 5, 4, embeddings_initializer=given) for place, given in enumerate(NAMED.values())
    ]
    model = YoutubeDNN(features, [item_column()], num_sampled=3)
    users = {column.name: np.array([1, 2]) for column in features}
    for suffix in (".keras", ".h5"):
        model.save(tmp_path / f"model{suffix}")
        again = tf.keras.models.load_model(tmp_path / f"model{suffix}", custom_objects=layers.custom_objects)
        np.testing.assert_array_equal(again.user_vectors(users), model.user_vectors(users))


def unregistered(shape, dtype=None):
    return tf.ones(shape, dtype)


def zeros(shape, dtype=None):
    """Has the name of one of Keras's, which a file would come back with."""
    return tf.ones(shape, dtype)


class Unregistered(Filled):
    pass


NAMELESS = {
    "a lambda": (lambda shape, dtype=None: tf.ones(shape), "a lambda"),
    "a function": (unregistered, "the function 'unregistered'"),
    "a name of Keras's": (zeros, "the function 'zeros'"),
    "a part of a function": (functools.partial(registered_ones), "an object of the class partial"),
    "a class": (Unregistered(), "an object of the class Unregistered"),
    "what it is made of": (Filled(make=lambda: 3), "a lambda"),
}


@pytest.mark.parametrize("case", NAMELESS)
def test_an_initializer_that_no_file_could_hold_is_refused_with_its_column(case):
    given, got = NAMELESS[case]
    (column,) = read_columns("columns", [item_column(embeddings_initializer=given)])
    message = (
        rf"`embeddings_initializer` of column 'item' must be registered with Keras.*; got {got}\. .*Constant\(matrix"
    )
    with pytest.raises(ValueError, match=message):
        column_config(column)


def test_nothing_is_written_of_a_model_that_no_file_could_hold(tmp_path):
    column = history_column(embeddings_initializer=lambda shape, dtype=None: tf.ones(shape))
    model = YoutubeDNN([column], [item_column()], num_sampled=3)
    former = tmp_path / "model.keras"
    former.write_bytes(b"a former model")
    for path in (former, tmp_path / "model.h5"):
        with pytest.raises(ValueError, match=r"`embeddings_initializer` of column 'hist_item' must be registered"):
            model.save(path)
    assert list(tmp_path.iterdir()) == [former]
    assert former.read_bytes() == b"a former model"
    model.save_weights(tmp_path / "w.weights.h5")  # needs no names
    tf.keras.Model(model.user_input, model.user_emb).export(str(tmp_path / "encoder"))


# The same for activations, transforms and samplers.


@tf.keras.utils.register_keras_serializable("tests")
def registered_identity(x):
    return tf.identity(x)


def relu(x):
    """Has the name of one of Keras's."""
    return 2 * x


@tf.keras.utils.register_keras_serializable("tests")
class Holding(tf.keras.layers.Layer):
    def __init__(self, function=None, **options):
        super().__init__(**options)
        self.function = function

    def call(self, x):
        return x

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "function": self.function}


class UnregisteredLayer(Holding):
    pass


L = tf.keras.layers


@pytest.mark.parametrize(
    ("activation", "got"),
    [
        (relu, "the function 'relu'"),
        (functools.partial(tf.nn.leaky_relu, alpha=0.3), "an object of the class partial"),
        (tf.sin, "the function 'sin', which Keras can't make again"),
        (UnregisteredLayer(), "an object of the class UnregisteredLayer"),
        (UnregisteredLayer, "an object of the class UnregisteredLayer"),
    ],
)
def test_an_activation_that_no_file_could_hold_is_refused(activation, got):
    model = small_model(output_activation=activation)
    with pytest.raises(ValueError, match=rf"`output_activation` must be registered with Keras.*; got {got}\. Decorate"):
        model.get_config()


@pytest.mark.filterwarnings("ignore:The (object being|.keras.initializers.serialize)")  # Keras's of lambdas
@pytest.mark.parametrize(
    ("layer", "got"),
    [
        (L.Activation(relu), "the function 'relu'"),  # a copy would have Keras's
        (L.PReLU(alpha_initializer=lambda shape, dtype=None: tf.zeros(shape)), "a lambda"),
        (L.Lambda(lambda x: x), "a lambda"),
        (Holding(lambda x: x), "a lambda"),
    ],
)
def test_an_activation_layer_that_could_not_be_copied_is_refused(layer, got):
    with pytest.raises(ValueError, match=rf"An activation layer must be registered with Keras.*; got {got}\."):
        small_model(output_activation=layer)


@pytest.mark.slow
def test_activations_that_have_names_reload(tmp_path):
    users = user_part(X)
    for hidden, output in ((tf.nn.swish, tf.tanh), (registered_identity, Holding())):
        model = small_model(dnn_activation=hidden, output_activation=output)
        model.save(tmp_path / "model.keras")
        again = tf.keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again.user_vectors(users), model.user_vectors(users))


@pytest.mark.skipif(KERAS_3, reason="Keras 3 makes such a layer again")
def test_a_lambda_layer_of_a_registered_function_is_refused_where_keras_writes_its_code():
    model = small_model(output_activation=L.Lambda(registered_identity))
    with pytest.raises(ValueError, match=r"got an object of the class Lambda, which Keras can't make again"):
        model.get_config()


@pytest.mark.parametrize("transform", [lambda x: x, functools.partial(registered_identity), tf.math.log1p])
def test_a_transform_that_no_file_could_hold_is_refused(transform):
    (column,) = read_columns("columns", [DenseFeat("age", 1, transform_fn=transform)])
    with pytest.raises(ValueError, match=r"`transform_fn` of column 'age' must be registered with Keras"):
        column_config(column)


@pytest.mark.parametrize("setting", [len, np.arange(3), {1, 2}])
def test_a_samplers_setting_that_no_file_could_hold_is_refused(setting):
    class Odd(samplers.UniformSampler):
        name = "odd"

        def __init__(self, num_sampled, setting):
            super().__init__(num_sampled)
            self.setting = setting

        def get_config(self):
            return {**super().get_config(), "setting": self.setting}

    model = small_model(sampler_config=Odd(3, setting))
    with pytest.raises(
        ValueError, match=r"`get_config` of the sampler Odd must return numbers, text and lists of them"
    ):
        model.get_config()
    samplers.base._SAMPLERS.pop("odd")
