"""RetrievalMetrics: the figures are those of the vectors, training stops, and the best weights come back."""

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.evaluation import RetrievalMetrics, SeenTargetsWarning, evaluate_vectors
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import csr, small_input, small_model, user_part, user_vectors

TRAIN, VALIDATION = small_input(256, seed=1), small_input(64, seed=2)


def fit(model, *callbacks, epochs=3, learning_rate=0.01, eagerly=False):
    model.compile(tf.keras.optimizers.Adam(learning_rate), sampledsoftmaxloss, run_eagerly=eagerly)
    return model.fit(TRAIN, batch_size=64, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


@pytest.mark.slow
@pytest.mark.smoke
def test_the_figures_are_those_of_the_vectors_after_each_epoch():
    model = small_model()
    watch = RetrievalMetrics(user_part(VALIDATION), VALIDATION["item"], ns=(3, 10))
    history = fit(model, watch)
    expected = evaluate_vectors(user_vectors(model, VALIDATION), model.item_vectors(), VALIDATION["item"], ns=(3, 10))
    assert set(history) == {"loss", *(f"val_{name}" for name in expected)}
    for name, value in expected.items():
        assert len(history[f"val_{name}"]) == 3
        assert history[f"val_{name}"][-1] == pytest.approx(value)
    assert watch.best == max(history["val_NDCG@10"])
    assert history["val_NDCG@10"][watch.best_epoch] == watch.best


@pytest.mark.slow
def test_seen_items_are_left_out():
    seen = (np.arange(65) * 10, np.random.default_rng(0).integers(1, 30, 640))
    indptr, items = seen
    held = sum(target in items[a:b] for target, a, b in zip(VALIDATION["item"], indptr, indptr[1:], strict=False))
    assert 0 < held < 64
    model = small_model()
    watches = {}
    for how in ("miss", "leave_out"):
        with pytest.warns(SeenTargetsWarning, match=f"{held} of 64 targets are in their own row's `seen`") as told:
            watches[how] = RetrievalMetrics(user_part(VALIDATION), VALIDATION["item"], seen=seen, seen_targets=how)
        assert len(told) == 1
    history = fit(model, watches["miss"], epochs=1, eagerly=True)  # where warnings are errors: it is not told again
    vectors = user_vectors(model, VALIDATION), model.item_vectors(), VALIDATION["item"]
    figures = {"plain": evaluate_vectors(*vectors)}
    for how, watch in watches.items():
        watch.set_model(model)
        with pytest.warns(SeenTargetsWarning):
            figures[how] = evaluate_vectors(*vectors, seen=seen, seen_targets=how)
        assert watch.evaluate() == pytest.approx(figures[how])
    assert history["val_HR@10"][0] == figures["miss"]["HR@10"]
    assert len({of["NDCG@10"] for of in figures.values()}) == 3


@pytest.mark.slow
@pytest.mark.once
def test_rows_of_a_user_that_are_left_out_stay_with_their_groups(trained):
    model, _ = trained
    users, targets = user_part(VALIDATION), VALIDATION["item"]
    groups = np.array(["a", "b", "c", "d"])[np.arange(64) % 4]
    seen = csr([[target] if row % 3 == 0 or row % 4 == 1 else [] for row, target in enumerate(targets)])
    with pytest.warns(SeenTargetsWarning, match="These rows count in no average"):
        watch = RetrievalMetrics(users, targets, seen=seen, seen_targets="leave_out", groups=groups)
    watch.set_model(model)
    vectors = model.user_vectors(users), model.item_vectors(), targets
    with pytest.warns(SeenTargetsWarning):
        expected = evaluate_vectors(*vectors, seen=seen, seen_targets="leave_out", groups=groups)
    assert watch.evaluate() == pytest.approx(expected)


@pytest.mark.slow
def test_training_stops_without_progress_and_the_best_weights_come_back():
    class Spoil(tf.keras.callbacks.Callback):
        """From the fourth epoch on, random item vectors."""

        def on_epoch_end(self, epoch, logs=None):
            if epoch >= 2:
                table = self.model.get_layer("table_item")
                table.set_weights([np.random.default_rng(epoch).normal(size=table.get_weights()[0].shape)])

    model = small_model("last")
    watch = RetrievalMetrics(
        user_part(VALIDATION), VALIDATION["item"], monitor="val_HR@10", patience=2, restore_best_weights=True
    )
    history = fit(model, watch, Spoil(), epochs=20, learning_rate=0.02)
    assert len(history["loss"]) < 20
    assert watch.best_epoch == int(np.argmax(history["val_HR@10"]))
    assert len(history["loss"]) == watch.best_epoch + 1 + 2
    assert watch.evaluate()["HR@10"] == pytest.approx(watch.best)
    assert watch.best > history["val_HR@10"][-1]


@pytest.mark.slow
def test_keras_early_stopping_sees_the_figures():
    watch = RetrievalMetrics(user_part(VALIDATION), VALIDATION["item"])
    stop = tf.keras.callbacks.EarlyStopping("val_NDCG@10", mode="max", patience=1, min_delta=2.0)
    history = fit(small_model(), watch, stop, epochs=9)
    assert len(history["loss"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"monitor": "val_HR@7"}, r"`monitor` must be one of 'val_HR@10', .* got 'val_HR@7'"),
        ({"patience": 0}, r"`patience` must be an integer of at least 1"),
        ({"ns": ()}, r"`ns` must"),
        ({"seen_targets": "hit"}, r"`seen_targets` must be one of 'miss', 'leave_out'; got 'hit'"),
        (
            {"seen": csr([[item] for item in VALIDATION["item"]]), "seen_targets": "leave_out"},
            r"`targets` must have a target that is not in `seen` .*; got 64 that are all in",
        ),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RetrievalMetrics(user_part(VALIDATION), VALIDATION["item"], **options)


def test_input_that_does_not_fit_is_refused_before_training():
    with pytest.raises(ValueError, match=r"Input 'hist_item' must have a row for each of the 3 targets; got 64 rows"):
        RetrievalMetrics(user_part(VALIDATION), VALIDATION["item"][:3])
    users, targets = user_part(VALIDATION), VALIDATION["item"]
    for options, message in [
        ({"targets": np.zeros_like(targets)}, "`targets` must be at least 1"),
        ({"targets": targets.astype(float)}, "`targets` must hold integers"),
        ({"targets": targets[:, None]}, "`targets` must be one-dimensional"),
        ({"seen": csr([[1]])}, "the indptr of `seen` must have shape"),
        ({"groups": targets[1:]}, "`groups` must have shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            RetrievalMetrics(users, **{"targets": targets, **options})
    for options, message in [
        ({"targets": targets + 100}, "`targets` must be between 1 and 29"),
        ({"seen": csr([[30]] * len(targets))}, "the item ids of `seen` must be between 0 and 29"),
    ]:
        model = small_model()
        with pytest.raises(ValueError, match=message):
            fit(model, RetrievalMetrics(users, **{"targets": targets, **options}))
        assert model.optimizer.iterations == 0
    watch = RetrievalMetrics({"hist_len": VALIDATION["hist_len"]}, VALIDATION["item"])
    with pytest.raises(ValueError, match=r"The model's input must have 'hist_item'; got only \['hist_len'\]"):
        fit(small_model(), watch)


def test_hashed_items_are_refused_before_training():
    hashed = SparseFeat("item", 30, 8, use_hash=True)
    history = VarLenSparseFeat(
        SparseFeat("hist_item", 30, 8, use_hash=True, embedding_name="item"), 6, "mean", "hist_len"
    )
    watch = RetrievalMetrics(user_part(VALIDATION), VALIDATION["item"])
    with pytest.raises(ValueError, match=r"Item column 'item' must have integer ids, not hashed ones"):
        fit(YoutubeDNN([history], [hashed]), watch)
