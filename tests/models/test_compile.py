"""`compile`: the optimizer is enough, and what would compare the loss of each example with a label is refused."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext._keras import KERAS_3
from deepmatch_ext.layers import custom_objects
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import small_input, small_model

X = small_input()


@pytest.fixture(scope="module")
def model():
    return small_model()


def losses_of(model):
    """The output, (B, 1): the negatives follow from the batch."""
    return model.predict(X, batch_size=len(X["item"]), verbose=0)


@pytest.mark.slow
def test_the_output_is_the_loss_without_one(model):
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    first, trained = model.get_weights(), []
    for options in ({"loss": sampledsoftmaxloss}, {"loss": None}, {}):
        model.compile("sgd", **options, run_eagerly=True)
        model.set_weights(first)
        assert model.test_on_batch(X) == pytest.approx(losses_of(model).mean(), rel=1e-5)
        model.train_on_batch(X)
        trained.append(model.get_weights())
    for weights in zip(*trained, strict=True):
        for other in weights[1:]:
            np.testing.assert_array_equal(other, weights[0])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # it has not made a step
def test_a_file_keeps_what_was_compiled_without_a_loss(model, tmp_path, suffix):
    model.compile(tf.keras.optimizers.Adam(0.25))
    model.save(tmp_path / f"model{suffix}")
    again = tf.keras.models.load_model(tmp_path / f"model{suffix}", custom_objects=custom_objects)
    assert again.loss is sampledsoftmaxloss
    assert float(again.optimizer.learning_rate) == 0.25


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 has no loss_scale_factor")
def test_an_optimizer_that_would_scale_gradients_of_tables_is_refused(model):
    with pytest.raises(ValueError, match=r"`optimizer` must have no `loss_scale_factor`, .*; got 8"):
        model.compile(tf.keras.optimizers.Adam(loss_scale_factor=8.0))


def own(y_true, y_pred):
    return tf.reduce_mean(y_pred)


class Largest(tf.keras.metrics.Metric):
    """Has a weight `fn`, as Keras's wrappers of functions have an attribute."""

    def __init__(self, name="largest", **options):
        super().__init__(name=name, **options)
        self.fn = self.add_weight(name="fn", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.fn.assign(tf.maximum(self.fn, tf.reduce_max(y_pred)))

    def result(self):
        return tf.convert_to_tensor(self.fn)


class RenamedAUC(tf.keras.metrics.AUC):
    pass


METRICS = tf.keras.metrics
REFUSED_METRICS = {
    "a name": (["accuracy"], "'accuracy'"),
    "a name that only compile knows": (["acc"], "'acc'"),
    "no name at all": (["nonsense"], "'nonsense'"),
    "an instance": ([METRICS.AUC()], "AUC"),
    "a class": ([METRICS.AUC], "AUC"),
    "a function": ([METRICS.binary_accuracy], "binary_accuracy"),
    "behind one's own": ([own, METRICS.Mean()], "Mean"),
    "by output": ({"loss": ["mae", own]}, "'mae'"),
    "a list for each output": ([["TopKCategoricalAccuracy"]], "'TopKCategoricalAccuracy'"),
    "a subclass that computes nothing": ([RenamedAUC()], "RenamedAUC"),
    "a part of a function": ([functools.partial(tf.keras.losses.binary_crossentropy, from_logits=True)], "partial"),
}


@pytest.mark.parametrize("what", ["metrics", "weighted_metrics"])
@pytest.mark.parametrize("case", REFUSED_METRICS)
def test_metrics_of_a_loss_are_refused(model, what, case):
    given, named = REFUSED_METRICS[case]
    model.compile("sgd")
    with pytest.raises(ValueError, match=rf"`{what}` must hold functions of your own.*; got {named}\..*RetrievalMetr"):
        model.compile("adam", **{what: given})
    assert type(model.optimizer).__name__ == "SGD"  # nothing was compiled


@pytest.mark.skipif(KERAS_3, reason="Keras 3 has the metrics elsewhere")
def test_metrics_by_their_place_are_refused(model):
    with pytest.raises(ValueError, match=r"`metrics` must hold functions of your own alone; got 'AUC'"):
        model.compile("adam", None, ["AUC"])


def test_metrics_of_ones_own_are_computed():
    model = small_model()
    wrapped = [METRICS.MeanMetricWrapper(own, name="wrapped")] if hasattr(METRICS, "MeanMetricWrapper") else []
    model.compile("sgd", metrics=[own, Largest(), *wrapped], run_eagerly=True)
    figures, losses = model.test_on_batch(X, return_dict=True), losses_of(model)
    assert figures["own"] == pytest.approx(losses.mean(), rel=1e-5)
    assert figures["largest"] == pytest.approx(losses.max(), rel=1e-5)
    assert figures.get("wrapped", figures["own"]) == pytest.approx(figures["own"])


class Doubled(tf.keras.losses.Loss):
    def call(self, y_true, y_pred):
        return 2 * y_pred


LOSSES = tf.keras.losses


@pytest.mark.parametrize(
    ("loss", "named"),
    [
        ("binary_crossentropy", "binary_crossentropy"),
        (LOSSES.MeanSquaredError(), "mean_squared_error"),
        (LOSSES.huber, "huber"),
        ({"loss": "mse"}, "mean_squared_error"),
        ([functools.partial(LOSSES.binary_crossentropy, from_logits=True)], "partial"),
    ],
)
def test_a_loss_of_a_loss_is_refused(model, loss, named):
    model.compile("sgd")
    with pytest.raises(ValueError, match=rf"`loss` must be `sampledsoftmaxloss`.*; got {named}\."):
        model.compile("adam", loss)
    assert type(model.optimizer).__name__ == "SGD"


def test_a_loss_of_ones_own_is_taken(model):
    for loss in (lambda y_true, y_pred: 2 * y_pred, Doubled()):
        model.compile("sgd", loss, run_eagerly=True)
        assert model.test_on_batch(X) == pytest.approx(2 * losses_of(model).mean(), rel=1e-5)
