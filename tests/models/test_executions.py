"""A long `fit` makes several steps an execution, and nothing but its time tells."""

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext.models import _executions
from deepmatch_ext.optimizers import LazyAdam
from tests.helpers import small_input, small_model

K = tf.keras.callbacks
X, HELD_OUT = small_input(32 * 10 + 5), small_input(48, seed=1)
BATCHES = 11  # the last of 5 rows, and an execution of 3


class Batches(K.Callback):
    """Sees every batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)


@pytest.fixture
def short(monkeypatch):
    """Runs that are worth it after so few steps."""
    monkeypatch.setattr(_executions, "STEPS", 4)
    monkeypatch.setattr(_executions, "WORTH", 2 * BATCHES)


def compiled(**options):
    model = small_model(dnn_dropout=0.2)
    model.compile(LazyAdam(0.01), **options)
    return model


def chosen(model, *callbacks, epochs=2, x=X, **options):
    """The steps of an execution while `fit` ran; and its history."""
    steps = []

    def note(*_):
        of = model.steps_per_execution if hasattr(model, "steps_per_execution") else model._steps_per_execution
        steps.append(int(of))

    listed = [*callbacks, K.LambdaCallback(on_epoch_end=note)]
    history = model.fit(x, batch_size=32, epochs=epochs, verbose=0, callbacks=listed, **options).history
    return steps[-1], history


@pytest.mark.slow
def test_nothing_but_the_time_tells(short):
    runs = []
    for callbacks in ([], [Batches()]):
        model = compiled()
        steps, history = chosen(model, *callbacks, validation_data=HELD_OUT)
        assert steps == (1 if callbacks else 4)
        history["evaluated"] = model.evaluate(HELD_OUT, verbose=0)
        few, history["few"] = chosen(model, epochs=1)
        again, history["again"] = chosen(model, *callbacks, epochs=3, validation_data=HELD_OUT, initial_epoch=1)
        assert (few, again) == (1, steps)
        history["predicted"] = model.predict(HELD_OUT, verbose=0).tolist()
        assert int(model.optimizer.iterations.numpy()) == BATCHES * 5
        runs.append((history, model.get_weights()))
    assert callbacks[0].seen == 4 * [*range(BATCHES)]
    (history, weights), (expected, expected_weights) = runs
    assert history == expected
    for ours, others in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(ours, others)


@pytest.mark.slow
def test_a_dataset_of_known_length_is_a_long_run_too(short):
    rows = {name: values[:320] for name, values in X.items()}
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(32)
    model = compiled()
    assert chosen(model, x=dataset, epochs=3)[0] == 4
    assert chosen(model, x=dataset.repeat(), epochs=3, steps_per_epoch=10)[0] == 1
    assert int(model.optimizer.iterations.numpy()) == 60
    model.compile(tf.keras.optimizers.SGD(0.0))  # what was traced for the optimizer before is gone
    vectors = model.user_vectors(rows)
    assert chosen(model, x=dataset, epochs=3)[0] == 4
    np.testing.assert_array_equal(model.user_vectors(rows), vectors)


def test_a_run_is_left_as_it_is_asked_for(short, monkeypatch, tmp_path):
    model = compiled()

    def steps(*callbacks, model=model, batches=BATCHES, epochs=2):
        batches = tf.data.Dataset.range(batches) if isinstance(batches, int) else batches
        return _executions.steps_per_execution(model, batches, epochs, callbacks)

    assert steps() == 4
    assert steps(epochs=1) == 1  # a short run
    assert steps(batches=dict(X)) == 1
    assert steps(batches=tf.data.Dataset.range(BATCHES).repeat()) == 1
    file = str(tmp_path / "m.keras")
    after_epochs = [K.EarlyStopping("loss"), K.ModelCheckpoint(file), K.CSVLogger(file)]
    assert steps(*after_epochs, K.BackupAndRestore(str(tmp_path)), K.LambdaCallback(on_epoch_end=print)) == 4
    for callback in (
        Batches(),
        K.TerminateOnNaN(),
        K.LambdaCallback(on_train_batch_end=print),
        K.ModelCheckpoint(file, save_freq=3),
    ):
        assert steps(*after_epochs, callback) == 1
    assert steps(model=compiled(run_eagerly=True)) == 1
    assert steps(model=compiled(steps_per_execution=2)) == 1
    tf.config.run_functions_eagerly(True)
    try:
        assert steps() == 1
    finally:
        tf.config.run_functions_eagerly(False)


def test_a_long_run_has_a_thousand_steps():
    model = compiled()
    for steps, expected in ((999, 1), (1000, 16)):
        assert _executions.steps_per_execution(model, tf.data.Dataset.range(steps), 1, None) == expected
