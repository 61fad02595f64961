"""Every weight and every piece of state of every layer comes back: from checkpoints, whole files and weights alone."""

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext import deepmatch, layers, samplers
from deepmatch_ext._keras import keras
from deepmatch_ext.models import builder
from deepmatch_ext.optimizers import LazyAdam, RowwiseAdagrad, RowwiseAdam
from tests.helpers import history_column, item_column, small_input, small_model

V = 9
COUNTS = np.arange(V) + 1
SAMPLERS = {
    "uniform": samplers.UniformSampler(4),
    "frequency": samplers.FrequencySampler(4, COUNTS),
    "adaptive": samplers.AdaptiveSampler(4, memory=20),
    "in-batch, counted": samplers.InBatchSampler(COUNTS),
    "in-batch, learnt": samplers.InBatchSampler(memory=20),
    "queue": samplers.QueueSampler(4, memory=20),
    "mixed": samplers.MixedSampler([samplers.InBatchSampler(memory=20), samplers.QueueSampler(4, COUNTS)]),
}


def catalogue():
    features = {"genre": ((1,), "int32"), "price": ((2,), "float32")}
    values = {"genre": np.arange(V)[:, None], "price": np.arange(2.0 * V).reshape(V, 2)}
    return layers.ItemCatalogue(features, V, values)


def applied(layer, *inputs):
    return keras.Model(list(inputs), layer(inputs[0] if len(inputs) == 1 else list(inputs)))


def floats(*shape):
    return keras.Input(batch_shape=shape)


def ids(*shape):
    return keras.Input(batch_shape=(None, *shape), dtype="int32")


# A layer's name, and what tells its cases apart: a model of it.
WITH_STATE = {
    "CandidateLoss": lambda: applied(
        layers.CandidateLoss(loss="gbce", vocabulary_size=V),
        *(floats(None, 2), floats(None, 2), ids(), floats(None), keras.Input(batch_shape=(), dtype="bool")),
    ),
    **{
        f"CandidateSampler, {name}": lambda sampler=sampler: applied(layers.CandidateSampler(sampler, V), ids())
        for name, sampler in SAMPLERS.items()
    },
    "AttentionPooling": lambda: applied(layers.AttentionPooling(), floats(None, 4, 3), ids(4)),
    "CapsuleLayer": lambda: applied(layers.CapsuleLayer(3, 2, 4, 2), floats(None, 4, 3), ids(1)),
    "Dice": lambda: applied(layers.Dice(), floats(None, 3)),
    "DynamicRouting": lambda: applied(layers.DynamicRouting(2), floats(None, 4, 3), ids(4)),
    "SelfAttentiveInterests": lambda: applied(layers.SelfAttentiveInterests(2), floats(None, 4, 3), ids(4)),
    "MultiHeadSelfAttention": lambda: applied(layers.MultiHeadSelfAttention(1), floats(None, 4, 3), ids(4)),
    **{
        f"DynamicMultiRNN, {kind}": lambda kind=kind: applied(
            layers.DynamicMultiRNN(3, kind), floats(None, 4, 3), ids(1)
        )
        for kind in ("LSTM", "GRU")
    },
    "AttentionSequencePoolingLayer": lambda: applied(
        layers.AttentionSequencePoolingLayer(0.5), floats(None, 1, 2), floats(None, 4, 3), ids(1)
    ),
    "ConcatAttention": lambda: applied(layers.ConcatAttention(), floats(None, 4, 2), floats(None, 4, 3)),
    "InBatchSoftmaxLayer": lambda: applied(
        layers.InBatchSoftmaxLayer({"item_count": COUNTS}), floats(None, 2), floats(None, 2), ids(1)
    ),
    "SelfAttention": lambda: applied(layers.SelfAttention(), floats(None, 4, 3), ids(1)),
    "SelfMultiHeadAttention": lambda: applied(layers.SelfMultiHeadAttention(3, 1), floats(None, 4, 3), ids(1)),
    "SoftmaxWeightedSum": lambda: applied(
        layers.SoftmaxWeightedSum(), floats(None, 2, 4), floats(None, 4, 3), keras.Input((2, 4), dtype="bool")
    ),
    "UserAttention": lambda: applied(layers.UserAttention(), floats(None, 1, 2), floats(None, 4, 3), ids(1)),
    "SessionReadout": lambda: applied(layers.SessionReadout(), floats(None, 4, 3), ids(4)),
    "EmbeddingTable": lambda: applied(layers.EmbeddingTable(V, 2), ids(1)),
    "GatedSessionGraph": lambda: applied(layers.GatedSessionGraph(), floats(None, 4, 3), ids(4), ids(4)),
    "HSTUBlock": lambda: applied(layers.HSTUBlock(4, rate=0.5), floats(None, 4, 3), ids(4)),
    "PooledStates": lambda: applied(
        layers.PooledStates(), floats(None, 4, 3), ids(4), keras.Input((4, 4), dtype="int32")
    ),
    "SinceLastEvent": lambda: applied(layers.SinceLastEvent(3), keras.Input((4, 4), dtype="int32"), ids(4)),
    "TransformerBlock": lambda: applied(layers.TransformerBlock(4, rate=0.5, gated=True), floats(None, 4, 3), ids(4)),
    "HistoryDropout": lambda: applied(layers.HistoryDropout(0.5), ids(3), ids(3)),
    "ItemCatalogue": lambda: applied(catalogue(), ids()),
    "KnownItems": lambda: applied(layers.KnownItems(V, 0.5), ids()),
    "RepeatableDropout": lambda: applied(layers.RepeatableDropout(0.5), floats(None, 3)),
    "SampledSoftmaxLayer": lambda: applied(
        layers.SampledSoftmaxLayer(samplers.AdaptiveSampler(4, memory=20)), floats(V, 2), floats(None, 2), ids(1)
    ),
}
WITHOUT_STATE = {
    *(
        "DotAttention",
        "EmbeddingIndex",
        "HashIds",
        "HistoryItems",
        "ItemsInFront",
        "JaggedIds",
        "JaggedPooling",
        "L2Normalization",
        "PaddingMask",
        "PairProbability",
        "PoolingLayer",
    ),
    *("FirstRows", "LabelAwareAttention", "NearestInterest", "RepeatFirstInterest", "RowsOf"),
    *("SequenceMaskPooling", "SequenceWeighting"),
    *("GatedSum", "MaskUserEmbedding", "OldestFirst", "Positions", "WithoutPadding"),
    *("AtNow", "AtPlaces", "ByPosition", "LossOfRows", "TimeBuckets", "TrainedPositions", "UpToLongest"),
}


def test_every_layer_is_here():
    ours = {**layers.own_objects, **deepmatch.all_layers()}
    every = {name for name, kind in ours.items() if isinstance(kind, type)} - {"RetrievalModel"}
    assert {name.split(",")[0] for name in WITH_STATE} | WITHOUT_STATE == every
    for layer in small_model().layers:
        assert not (layer.weights and type(layer).__name__ in WITHOUT_STATE)


def changed(weights):
    """Other values of the same kind: ids stay ids."""
    rng = np.random.default_rng(1)
    shapes = [(weight.shape, np.asarray(weight).dtype) for weight in weights]
    return [
        (rng.integers(1, V, shape) if dtype.kind == "i" else rng.random(shape)).astype(dtype) for shape, dtype in shapes
    ]


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * ("RNN" in case)) for case in WITH_STATE]
)
def test_all_that_a_layer_keeps_comes_back(case, tmp_path):
    model = WITH_STATE[case]
    written = model()
    assert written.weights
    values = changed(written.weights)
    written.set_weights(values)
    tf.train.Checkpoint(model=written).write(str(tmp_path / "checkpoint"))
    written.save_weights(str(tmp_path / "model.weights.h5"))
    written.save(str(tmp_path / "model.keras"))

    from_checkpoint, from_weights = model(), model()
    tf.train.Checkpoint(model=from_checkpoint).read(str(tmp_path / "checkpoint")).assert_existing_objects_matched()
    from_weights.load_weights(str(tmp_path / "model.weights.h5"))
    whole = keras.models.load_model(str(tmp_path / "model.keras"))
    for how, again in {"checkpoint": from_checkpoint, "weights": from_weights, "whole": whole}.items():
        for weight, value in zip(again.weights, values, strict=True):
            np.testing.assert_array_equal(np.array(weight), value, err_msg=f"{how}: {weight.name}")


@keras.utils.register_keras_serializable("test_state")
class InContainers(keras.layers.Layer):
    """A layer as users write it, with weights and layers in a list and a dictionary."""

    def build(self, input_shape):
        self.kernels = [self.add_weight(name=f"kernel_{k}", shape=(8,), initializer="ones") for k in range(2)]
        self.state = {"mean": self.add_weight(name="mean", shape=(8,), initializer="zeros", trainable=False)}
        self.inner = {"dense": keras.layers.Dense(8)}
        self.inner["dense"].build(input_shape)
        self.built = True

    def call(self, inputs):
        return self.inner["dense"](inputs) * self.kernels[0] + self.kernels[1] - self.state["mean"]

    def compute_output_shape(self, input_shape):
        return input_shape


class RingSampler(samplers.Sampler):
    """A sampler as users write it, with state of its own."""

    name = "test_state"

    def __init__(self, num_sampled):
        self.num_sampled = num_sampled

    def state(self, vocabulary_size):
        return {"ring": np.ones(5, "int32")}

    def sample(self, state, vocabulary_size, seed):
        return tf.random.stateless_uniform([self.num_sampled], seed, 1, vocabulary_size, tf.int64)

    def log_expected_count(self, state, vocabulary_size, ids, batch_size):
        return tf.zeros_like(ids, tf.float32)


@builder
def WithContainers(make, user_feature_columns, item_feature_columns, sampler_config=None, **shared):
    """A user's model with a layer of the user's own."""
    user = make.dense("user", make.features(), (make.dim,))
    return make.model(make.layer(InContainers, "containers")(user))


@pytest.mark.slow
def test_a_checkpoint_holds_what_a_users_layer_has_in_containers(tmp_path):
    def model():
        return WithContainers([history_column()], [item_column()], sampler_config=RingSampler(4))

    written, again = model(), model()
    values = changed(written.weights)
    written.set_weights(values)
    assert len(written.get_layer("containers").weights) == 5
    tf.train.Checkpoint(model=written).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=again).read(str(tmp_path / "checkpoint")).assert_existing_objects_matched()
    for weight, value in zip(again.weights, values, strict=True):
        np.testing.assert_array_equal(np.array(weight), value, err_msg=weight.name)


@pytest.mark.parametrize("optimizer", [LazyAdam, RowwiseAdagrad, RowwiseAdam])
def test_a_checkpoint_of_a_trained_model_and_its_optimizer_is_whole(optimizer, tmp_path):
    def model():
        made = small_model(sampler_config=None, dnn_dropout=0.2, history_dropout=0.2)
        made.compile(optimizer(0.01), run_eagerly=True)  # two steps are not worth tracing
        made.optimizer.build(made.trainable_variables)
        return made, tf.train.Checkpoint(model=made, optimizer=made.optimizer)

    written, checkpoint = model()
    written.fit(small_input(), batch_size=32, verbose=0)
    checkpoint.write(str(tmp_path / "checkpoint"))
    again, checkpoint = model()
    checkpoint.read(str(tmp_path / "checkpoint")).assert_existing_objects_matched()
    for one, other in zip(
        [*written.weights, *written.optimizer.variables], [*again.weights, *again.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(np.array(other), np.array(one), err_msg=one.name)
