"""Keras's callbacks on figures of ours: the better value is the best one, with or without a mode, on every Keras."""

import io
import warnings

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext.evaluation import RetrievalMetrics, TrainingWatch, evaluate_vectors, ranking_metrics
from deepmatch_ext.evaluation.watch import CollapseWarning
from tests.helpers import small_input, small_model, user_part

K = tf.keras.callbacks
X = small_input()
RISES_AND_FALLS = [0.1, 0.3, 0.2, 0.15, 0.1, 0.1]


class Figure(K.Callback):
    """Adds given figures to the logs as RetrievalMetrics does."""

    def __init__(self, values=RISES_AND_FALLS, mode="max", name="val_NDCG@10"):
        super().__init__()
        self.values, self.name, self.figure_modes = values, name, {name: mode}

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]


@pytest.fixture(scope="module")
def model():
    model = small_model()
    model.compile("sgd")
    return model


def epochs_with(model, *callbacks):
    return len(model.fit(X, batch_size=64, epochs=6, verbose=0, callbacks=list(callbacks)).epoch)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"mode": "auto"}, {"mode": "max"}])
def test_early_stopping_keeps_the_best_weights(model, options):
    stop = K.EarlyStopping("val_NDCG@10", patience=2, restore_best_weights=True, **options)
    weights = []
    keep = K.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(model.get_weights()))
    for _ in range(2):  # a callback may be used again
        weights.clear()
        assert epochs_with(model, Figure(), stop, keep) == 4  # the best, and two behind it
        assert stop.best == 0.3
        for weight, best in zip(model.get_weights(), weights[1], strict=True):
            np.testing.assert_array_equal(weight, best)


@pytest.mark.slow
def test_early_stopping_asks_for_as_much_more_as_it_is_told(model):
    assert epochs_with(model, Figure([0.1, 0.14, 0.16, 0.3, 0.2, 0.2]), K.EarlyStopping("val_NDCG@10", 0.05, 1)) == 2
    assert epochs_with(model, Figure(), K.EarlyStopping("val_NDCG@10", patience=3, baseline=0.4)) == 3
    assert epochs_with(model, Figure(), K.EarlyStopping("val_NDCG@10", patience=3, baseline=0.25)) == 5


@pytest.mark.parametrize(("threshold", "saved"), [(None, [1, 2]), (0.15, [2]), (0.5, [])])
def test_a_checkpoint_is_written_when_the_figure_gets_better(model, tmp_path, threshold, saved):
    path = str(tmp_path / "{epoch}.weights.h5")
    options = {"monitor": "val_NDCG@10", "save_best_only": True, "save_weights_only": True}
    epochs_with(model, Figure(), K.ModelCheckpoint(path, initial_value_threshold=threshold, **options))
    assert sorted(tmp_path.iterdir()) == [tmp_path / f"{epoch}.weights.h5" for epoch in saved]


def test_the_learning_rate_falls_where_the_figure_does(model):
    model.optimizer.learning_rate = 0.08
    reduce = K.ReduceLROnPlateau("val_NDCG@10", factor=0.5, patience=1)
    epochs_with(model, Figure(), reduce)
    assert reduce.best == 0.3
    assert float(model.optimizer.learning_rate) == pytest.approx(0.08 / 2**4)


def test_a_lower_figure_may_be_better(model):
    stop = K.EarlyStopping("watch_cross_entropy", patience=1)
    assert epochs_with(model, Figure([5, 4, 3, 3.5, 3, 3], "min", "watch_cross_entropy"), stop) == 4
    assert stop.best == 3


class OfOnesOwn(K.Callback):
    """In the manner of Keras 2's: a function that compares, and the best so far."""

    def __init__(self, compares):
        super().__init__()
        self.monitor, self.monitor_op, self.best = "val_NDCG@10", compares, np.inf

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor_op(logs[self.monitor], self.best):
            self.best = logs[self.monitor]


def test_a_callback_of_ones_own(model):
    own = OfOnesOwn(np.less)
    epochs_with(model, Figure(), own)
    assert own.best == 0.3
    with pytest.raises(ValueError, match=r"`mode` of the callback OfOnesOwn, .*must be 'max'.*Give it mode='max'"):
        epochs_with(model, Figure(), OfOnesOwn(lambda value, best: value < best - 0.1))


def test_other_figures_are_left_to_keras(model):
    stop = K.EarlyStopping("loss", patience=1, mode="max")
    epochs_with(model, Figure(), stop)
    assert stop.monitor_op(2, 1)


def test_the_contrary_mode_is_refused(model):
    with pytest.raises(ValueError, match=r"`mode` of the callback ReduceLROnPlateau, .* must be 'max'.*got 'min'"):
        epochs_with(model, Figure(), K.ReduceLROnPlateau("val_NDCG@10", mode="min"))


@pytest.mark.parametrize("as_list", [False, True])
def test_a_callback_in_front_that_never_sees_the_figure_is_refused(model, as_list):
    callbacks = [K.EarlyStopping("val_NDCG@10", mode="max"), Figure()]
    if as_list:
        callbacks = K.CallbackList(callbacks, model=model, epochs=1)
    message = r"EarlyStopping, which monitors 'val_NDCG@10', must come after Figure in `callbacks`; got it before that"
    with pytest.raises(ValueError, match=message):
        model.fit(X, verbose=0, callbacks=callbacks)


@pytest.mark.slow
def test_a_log_in_front_is_warned_of(model, tmp_path):
    with pytest.warns(UserWarning, match=r"CSVLogger comes before Figure .* Put it after") as caught:
        epochs_with(model, K.CSVLogger(str(tmp_path / "log.csv")), Figure())
    assert caught[0].filename == __file__
    epochs_with(model, Figure(), K.CSVLogger(str(tmp_path / "log.csv")))
    assert "val_NDCG@10" in (tmp_path / "log.csv").read_text()


def test_two_that_add_one_name_are_warned_of(model):
    with pytest.warns(UserWarning, match=r"Two callbacks add 'val_NDCG@10' to the logs; the later one's stays"):
        epochs_with(model, Figure(), Figure())


TRACKABLE = {"name_format": "{metric}_at_{n}"}


def test_names_that_every_tracker_takes(model):
    given = (user_part(X), X["item"])
    metrics = RetrievalMetrics(*given, ns=(5, 10), **TRACKABLE)
    assert metrics.monitor == "val_NDCG_at_10"
    watch = TrainingWatch(*given, n=5, patience=10_000, **TRACKABLE)
    stops = [K.EarlyStopping(name, patience=9) for name in ("val_HR_at_5", "watch_HR_at_5", "watch_coverage")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        logs = model.fit(X, batch_size=64, verbose=0, callbacks=[metrics, watch, *stops]).history
    assert not [name for name in logs if "@" in name]
    assert set(logs) == {"loss", *metrics.figure_modes, *(f"watch_{name}" for name in watch.history)} | (
        set(logs) & {"lr", "learning_rate"}
    )
    assert set(metrics.figure_modes.values()) == {"max"}
    assert {f"watch_{name}" for name in watch.history} <= set(watch.figure_modes)
    vectors = model.user_vectors(X), model.item_vectors(), X["item"]
    for name, value in evaluate_vectors(*vectors, ns=(5, 10)).items():
        assert logs[f"val_{name.replace('@', '_at_')}"] == [value]
    assert evaluate_vectors(*vectors, ns=(5,), **TRACKABLE)["HR_at_5"] == logs["val_HR_at_5"][0]
    assert [stop.best for stop in stops] == [logs[stop.monitor][0] for stop in stops]


@pytest.mark.parametrize("name_format", ["{metric}", "{n}", "HR@10", "{metric}@{k}", "{}@{}", "{metric", 3])
def test_names_that_could_not_be_told_apart_are_refused(name_format):
    for make in (
        lambda: ranking_metrics(np.array([0]), name_format=name_format),
        lambda: RetrievalMetrics(user_part(X), X["item"], name_format=name_format),
        lambda: TrainingWatch(user_part(X), X["item"], name_format=name_format),
    ):
        with pytest.raises(ValueError, match=r"`name_format` must be text with \{metric\} and \{n\} in it; got"):
            make()


@pytest.mark.parametrize(("verbose", "terminal", "lines"), [("auto", False, 4), ("auto", True, None), (1, False, None)])
def test_a_log_file_has_a_line_for_each_epoch_and_no_bars(model, monkeypatch, verbose, terminal, lines):
    written = io.StringIO()
    written.isatty = lambda: terminal
    monkeypatch.setattr("sys.stdout", written)
    model.fit(X, batch_size=64, epochs=2, verbose=verbose)
    said = written.getvalue()
    if lines is None:
        assert "\r" in said or "\b" in said or "\x1b" in said
    else:
        assert said.count("\n") == lines  # "Epoch 1/2", and its steps, seconds and loss
        assert not set(said) & {"\r", "\b", "\x1b"}
