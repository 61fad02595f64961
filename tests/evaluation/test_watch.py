"""TrainingWatch: each warning on a model that is sick in just that way, none on a healthy one; training untouched."""

import warnings
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import ComiRec, YoutubeDNN
from deepmatch_ext._keras import raw_variable
from deepmatch_ext.data import leave_last_out, seen_before, synthetic_interactions, windows
from deepmatch_ext.evaluation import (
    CollapseWarning,
    SeenTargetsWarning,
    TrainingWatch,
    evaluate_vectors,
    likeness,
)
from deepmatch_ext.evaluation.collapse import full_cross_entropy
from deepmatch_ext.evaluation.watch import look as look_module
from deepmatch_ext.samplers import FrequencySampler
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import csr, put_back, small_input, small_model, state_of, user_part

DIM, MAX_LEN, BATCH = 16, 8, 256


@dataclass(frozen=True)
class Events:
    """Events in which histories tell the next item: what to train on, and held-out users to look at."""

    train: dict
    users: dict
    targets: np.ndarray
    seen: tuple
    counts: np.ndarray

    @property
    def steps(self):
        return -(-len(self.train["item"]) // BATCH)


@pytest.fixture(scope="module")
def events():
    interactions = synthetic_interactions(600, 300, mean_length=20, num_genres=6, seed=1).interactions
    split = leave_last_out(interactions)

    def columns(rows):
        x = windows(interactions, rows, MAX_LEN)
        return {"hist_item": x["hist_item_id"], "hist_len": x["hist_len"], "item": x["item_id"]}

    held_out = columns(split.validation)
    targets = held_out.pop("item")
    seen = seen_before(interactions, split.validation)
    counts = interactions.item_counts(split.train)
    return Events(columns(split.train_targets()), held_out, targets, seen, counts)


def model_of(events, combiner="recency+last", trainable=True, optimizer=None, **arguments):
    size = len(events.counts)
    item = SparseFeat("item", size, DIM, trainable=trainable)
    history = VarLenSparseFeat(
        SparseFeat("hist_item", size, DIM, embedding_name="item", trainable=trainable), MAX_LEN, combiner, "hist_len"
    )
    arguments = {
        "user_dnn_hidden_units": (32, DIM),
        "temperature": 0.1,
        "sampler_config": FrequencySampler(100, events.counts),
        **arguments,
    }
    model = YoutubeDNN([history], [item], **arguments)
    model.compile(optimizer or tf.keras.optimizers.Adam(0.01), sampledsoftmaxloss)
    return model


@pytest.fixture(scope="module")
def compiled(events):
    model = model_of(events)
    return model, state_of(model)


@pytest.fixture
def model(compiled):
    """An untrained model with its item rows, dense kernels and biases as they were drawn. One for all, to save time."""
    model, untrained = compiled
    put_back(model, untrained)
    model.optimizer.learning_rate.assign(0.01)
    return model


def fit(model, looking, x, *others, epochs=1):
    """The CollapseWarnings of a training, as texts."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CollapseWarning)
        model.fit(x, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=[*others, looking])
    return [str(warning.message) for warning in caught if warning.category is CollapseWarning]


def few(events):
    """Four batches."""
    return {name: values[: 4 * BATCH] for name, values in events.train.items()}


def go_through(model, looking, *changes, steps=100, loss=3.0):
    """The same of a training that makes, in each epoch, ``steps`` steps and one of the changes, functions of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CollapseWarning)
        looking.set_model(model)
        looking.on_train_begin()
        for epoch, change in enumerate(changes):
            looking.on_epoch_begin(epoch)
            model.optimizer.iterations.assign_add(steps)
            change(model)
            looking.on_epoch_end(epoch, {"loss": loss})
    return [str(warning.message) for warning in caught if warning.category is CollapseWarning]


def learn(model):
    """Something, so that no table is as it was."""
    scale(model, "table_item", 1.01)


def scale(model, layer, factor):
    layer = model.get_layer(layer)
    layer.set_weights([weight * np.float32(factor) for weight in layer.get_weights()])


def same_vector_for_all(model):
    """The first axis for every user, by the last layer's bias; changes the item rows a little."""
    learn(model)
    kernel, _ = model.get_layer("user_dense_2").get_weights()
    model.get_layer("user_dense_2").set_weights([0 * kernel, np.eye(DIM)[0]])


def watch_of(events, patience=0, alone=False, **options):
    """A watch that waits for nothing and, unless it looks at users alone, knows everything."""
    if alone:
        return TrainingWatch(events.users, patience=patience, **options)
    return TrainingWatch(
        events.users, events.targets, item_count=events.counts, seen=events.seen, patience=patience, **options
    )


@pytest.mark.slow
@pytest.mark.once
def test_a_healthy_training_is_not_warned_of_and_its_figures_get_better(events, model):
    looking = watch_of(events, patience=250)
    epochs = 1 + looking.patience // events.steps
    assert fit(model, looking, events.train, epochs=epochs) == []
    history = looking.history
    assert epochs * events.steps > looking.patience
    assert history["score_correlation"][-1] < 0.7
    assert history["user_rank"][-1] > 2
    assert history["rows_changed"][-1] > 0.95
    assert history["popular_share"][-1] < 0.4
    assert history["percentile"][0] < history["percentile"][-1] > 0.75
    assert history["cross_entropy"][-1] < min(history["cross_entropy"][0], np.log(300))


@pytest.mark.slow
def test_the_figures_are_those_of_the_vectors_and_stand_in_the_logs(events, model):
    looking = watch_of(events, n=7, patience=10_000)
    keras_history = model.fit(events.train, batch_size=BATCH, epochs=2, verbose=0, callbacks=[looking]).history
    assert set(keras_history) == {"loss", *(f"watch_{name}" for name in looking.history)}
    for name, values in looking.history.items():
        assert keras_history[f"watch_{name}"] == values
        assert len(values) == 2
    users, items = model.user_vectors(events.users), model.item_vectors()
    last = {name: values[-1] for name, values in looking.history.items()}
    metrics = evaluate_vectors(users, items, events.targets, seen=events.seen, ns=(1, 7))
    expected = {
        **likeness(users, items),
        "HR@1": metrics["HR@1"],
        "HR@7": metrics["HR@7"],
        "cross_entropy": full_cross_entropy(users, items, events.targets, 0.1),
    }
    assert {name: last[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    # The share of the other items below the target, item by item, without those that the user has had.
    below = []
    for row, target in enumerate(events.targets):
        had = events.seen[1][events.seen[0][row] : events.seen[0][row + 1]]
        others = np.setdiff1d(np.arange(1, len(items)), [*had, target])
        below.append(np.mean(items[others] @ users[row] < items[target] @ users[row]))
    assert last["percentile"] == pytest.approx(np.mean(below), abs=1e-4)


def test_targets_that_were_seen(events, model):
    """Every second user has had the target before, as where items are taken again and again."""
    had = [events.seen[1][a:b].tolist() for a, b in zip(events.seen[0], events.seen[0][1:], strict=False)]
    seen = csr(
        [
            [*items, target] if row % 2 else items
            for row, (items, target) in enumerate(zip(had, events.targets, strict=True))
        ]
    )
    told = {}
    for how in ("miss", "leave_out"):
        with pytest.warns(SeenTargetsWarning, match="300 of 600 targets are in their own row's `seen`") as warned:
            told[how] = TrainingWatch(
                events.users, events.targets, seen=seen, seen_targets=how, item_count=events.counts, patience=10_000
            )
        assert len(warned) == 1
        assert go_through(model, told[how], learn) == []
        users, items = model.user_vectors(events.users), model.item_vectors()
        with pytest.warns(SeenTargetsWarning):
            metrics = evaluate_vectors(users, items, events.targets, seen=seen, seen_targets=how)
        assert told[how].history["HR@10"] == pytest.approx([metrics["HR@10"]])
    assert told["miss"].history["HR@10"][0] == pytest.approx(told["leave_out"].history["HR@10"][0] / 2)
    # Only what is ranked has a percentile, so chance is 0.5 for both; half as many targets tell half as much.
    assert told["miss"].history["percentile"] == pytest.approx(told["leave_out"].history["percentile"])
    assert told["miss"]._look.chance == pytest.approx(told["leave_out"]._look.chance)
    assert (len(told["miss"].targets), len(told["leave_out"].targets)) == (600, 300)
    # Where no target can be served, nothing is said of the ranking.
    with pytest.warns(SeenTargetsWarning, match="600 of 600"):
        nothing = watch_of(replace(events, seen=csr([[target] for target in events.targets])))
    assert not {"no_better_than_chance", "no_better_than_popularity"} & set(go_through(model, nothing, learn))
    assert np.isnan(nothing.history["percentile"]).all()
    assert nothing.history["HR@10"] == [0]
    assert not {"no_better_than_chance", "no_better_than_popularity"} & set(nothing.warned)


@pytest.mark.slow
def test_users_who_are_all_alike(events, model):
    kernel, bias = model.get_layer("user_dense_2").get_weights()
    model.get_layer("user_dense_2").set_weights([kernel, bias + 100])  # dwarfs what the user brings
    looking = watch_of(events, alone=True)
    (text,) = fit(model, looking, events.train)
    assert text == looking.warned["users_alike"]
    assert text.startswith("After epoch 1, all users get nearly the same scores")
    assert "a correlation of 1.000" in text


def test_users_on_a_line(events):
    model = model_of(events, user_dnn_hidden_units=(1, DIM), dnn_activation="linear")
    (text,) = go_through(model, watch_of(events, alone=True), learn)
    assert text.startswith(f"After epoch 1, the users' vectors differ along 1.00 of {DIM} directions")


@pytest.mark.slow
@pytest.mark.once
def test_a_model_that_learns_nothing_but_popularity(events, model):
    """Everyone has the same history."""
    blank = {"hist_item": np.eye(1, MAX_LEN, dtype="int32"), "hist_len": np.ones(1, "int32")}
    x = {**events.train, **{name: np.repeat(values, len(events.train["item"]), 0) for name, values in blank.items()}}
    users = {name: np.repeat(values, len(events.targets), 0) for name, values in blank.items()}
    looking = TrainingWatch(users, events.targets, item_count=events.counts, seen=events.seen, patience=events.steps)
    model.optimizer.learning_rate.assign(0.02)
    fit(model, looking, x, epochs=8)
    assert {"users_alike", "popular_lists"} <= set(looking.warned)
    assert looking.history["score_correlation"][-1] == pytest.approx(1)
    consumed = np.sort(events.counts)[-10:].sum() / events.counts.sum()
    assert f"the 10 most popular items make up {consumed:.1%} of the consumption" in looking.warned["popular_lists"]


@pytest.mark.parametrize(("temperature", "name"), [(10.0, "temperature_too_high"), (0.001, "temperature_too_low")])
def test_a_temperature_out_of_range_is_told_before_training(events, temperature, name):
    looking = watch_of(events)
    (text,) = go_through(model_of(events, temperature=temperature), looking)
    assert looking.warned == {name: text}
    assert text.startswith(f"The temperature, {temperature:g}, is too {name.split('_')[-1]}")


def test_a_pairwise_loss_stands_a_higher_temperature_and_has_no_cross_entropy(events):
    # For 300 items the limit is 2 / log(1 + sqrt(300)) = 0.69; for pairs, 2 / log(1 + sqrt(2)) = 2.27.
    model, looking, texts = model_of(events, temperature=1.0), {}, {}
    for loss in ("softmax", "bpr"):
        model.loss_layer.loss = loss
        looking[loss] = watch_of(events, patience=10_000)
        texts[loss] = go_through(model, looking[loss], learn)
    assert [len(texts["softmax"]), len(texts["bpr"])] == [1, 0]
    assert "Give a temperature below 0.69" in texts["softmax"][0]
    assert set(looking["softmax"].history) - set(looking["bpr"].history) == {"cross_entropy"}


def of_own(model, **more):
    """A model as a user could write it, with the vectors, tables and steps that a watch asks for, and ``more``."""
    names = ["user_arrays", "user_vectors", "check_item_vectors", "item_vectors", "user_emb", "layers", "optimizer"]
    return SimpleNamespace(**{**{name: getattr(model, name) for name in names}, **more})


def test_a_model_of_ones_own_that_does_not_say_what_its_loss_is(events, model):
    def look_at(**more):
        looking = watch_of(events, patience=10_000)
        texts = go_through(of_own(model, **more), looking, lambda _: learn(model), loss=0.001)
        return texts, looking.unchecked, set(looking.history)

    sampler = SimpleNamespace(sampler=model.candidates.sampler)
    texts, unchecked, figures = look_at(loss_layer=model.loss_layer, candidates=sampler)
    assert ["training loss is 0.001" in text for text in texts] == [True]
    assert unchecked == ()
    assert "cross_entropy" in figures
    # A low loss is no sign of anything where nobody knows what loss it is, or against how many candidates.
    texts, unchecked, figures = look_at(candidates=sampler)
    assert texts == []
    assert [sentence.split(",")[0] for sentence in unchecked] == [
        "whether the temperature suits L2-normalised vectors",
        "the cross-entropy",
    ]
    assert "cross_entropy" not in figures
    texts, unchecked, figures = look_at(loss_layer=model.loss_layer)
    assert texts == []
    assert unchecked == ("whether the training loss is too low, since the model has no `candidates` with a `sampler`.",)
    assert "cross_entropy" in figures
    # Of a loss that someone added, what it can reach is unknown.
    texts, unchecked, figures = look_at(loss_layer=SimpleNamespace(loss="hinge", temperature=9.0), candidates=sampler)
    assert texts == []
    assert unchecked == (
        "whether the temperature suits L2-normalised vectors, since the bounds of the loss 'hinge' are not known.",
    )
    assert "cross_entropy" not in figures


def test_of_k_interests_the_best_counts(events, model):
    """Each user has two vectors more, of the same numbers in other places, and one of zeros, which is no interest."""

    def interests(x, batch_size=4096):
        users = model.user_vectors(x, batch_size)
        return np.stack([np.zeros_like(users), users, np.roll(users, 1, axis=1), np.roll(users, 2, axis=1)], axis=1)

    looking = watch_of(events, patience=10_000)
    more = {"loss_layer": model.loss_layer, "candidates": model.candidates, "user_vectors": interests}
    (text,) = go_through(of_own(model, **more), looking, lambda _: learn(model))
    assert "the vectors of 25.0% of the users and 0.0% of the items have length zero" in text
    users, items = interests(events.users), model.item_vectors()
    metrics = evaluate_vectors(users, items, events.targets, seen=events.seen, ns=(1, 10))
    last = {name: values[-1] for name, values in looking.history.items()}
    assert last["HR@10"] == pytest.approx(metrics["HR@10"])
    expected = full_cross_entropy(users[:, 1:], items, events.targets, 0.1)
    assert last["cross_entropy"] == pytest.approx(expected, rel=1e-4)
    assert last["user_rank"] == pytest.approx(likeness(users, items)["user_rank"], rel=1e-4)
    # With NaN in one vector, a user is counted once.
    more["user_vectors"] = lambda x, batch_size: np.where(np.eye(4)[0][:, None], np.nan, interests(x))
    (text,) = go_through(of_own(model, **more), watch_of(events, patience=10_000), lambda _: learn(model))
    assert "the vectors of 600 of the 600 users looked at and of 0 of the 300 items hold NaN" in text


@pytest.mark.slow
def test_an_input_that_holds_the_target(events):
    """The history ends one item too late. With no dense layer the model then copies it from the start."""

    def leak(x, targets):
        history = np.concatenate([targets[:, None], x["hist_item"][:, :-1]], axis=1)
        return {**x, "hist_item": history, "hist_len": np.minimum(x["hist_len"] + 1, MAX_LEN)}

    model = model_of(events, combiner="last", user_dnn_hidden_units=(), temperature=0.05)
    looking = TrainingWatch(leak(events.users, events.targets), events.targets, seen=events.seen)
    fit(model, looking, leak(events.train, events.train["item"]))
    assert set(looking.warned) == {"target_in_input", "ranking_too_good", "loss_too_low"}
    assert "'hist_item' holds the target itself in 100% of the rows" in looking.warned["target_in_input"]
    assert "100.0% of the targets looked at are ranked first among 300 items" in looking.warned["ranking_too_good"]


def test_a_training_loss_too_low_to_be_true(events, model, monkeypatch):
    def texts(loss):
        return go_through(model, watch_of(events, alone=True, patience=10_000), learn, loss=loss)

    (text,) = texts(0.04)
    assert "the training loss is 0.04: the target is told from the candidates with a probability of 96.1%" in text
    assert texts(0.06) == []
    layer = model.loss_layer
    monkeypatch.setattr(model.candidates.sampler, "num_sampled", 19)  # against a few candidates it means little
    assert texts(0.04) == []
    monkeypatch.undo()
    monkeypatch.setattr(layer, "loss", "bpr")  # and nothing for a pairwise loss
    assert texts(0.04) == []


@pytest.mark.slow
def test_without_learning_no_table_changes_and_the_ranking_is_chance(events, model):
    looking = watch_of(events)
    model.optimizer.learning_rate.assign(0.0)
    fit(model, looking, events.train)
    assert {"never_updated:table_item", "no_better_than_chance"} <= set(looking.warned)
    text = f"not one of the 301 rows looked at of the embedding table 'table_item' has changed in {events.steps} steps"
    assert text in looking.warned["never_updated:table_item"]
    assert "a uniform guess has 5.70" in looking.warned["no_better_than_chance"]  # log 300
    assert looking.history["rows_changed"] == [0]


def test_a_table_has_thirty_steps_to_change(events, model):
    """Mixed precision skips its first steps, while it looks for a loss scale that doesn't overflow."""
    looking = watch_of(events, alone=True, patience=10_000)
    texts = go_through(model, looking, lambda model: None, lambda model: None, steps=20)
    assert [text[:15] for text in texts] == ["After epoch 2, "]


def test_a_table_of_which_one_row_changes_is_trained(events, model):
    def change_one(model):
        (rows,) = model.get_layer("table_item").get_weights()
        rows[7] += 1
        model.get_layer("table_item").set_weights([rows])

    looking = watch_of(events, patience=10_000)
    assert go_through(model, looking, change_one) == []
    assert looking.history["rows_changed"] == [1 / 301]


@pytest.mark.slow
def test_frozen_tables_are_left_alone(events):
    looking = watch_of(events, patience=10_000)
    assert go_through(model_of(events, trainable=False), looking, lambda model: None) == []
    assert "rows_changed" not in looking.history


def test_a_ranking_above_chance_and_below_popularity(events, model):
    rng = np.random.default_rng(0)
    popular = np.log(np.maximum(events.counts, 1.0))
    score = np.clip(0.2 * (popular - popular.mean()) + 0.2 * rng.normal(size=len(popular)), -1, 1)

    def popular_with_noise(model):
        same_vector_for_all(model)
        table = np.zeros((len(popular), DIM), "float32")
        table[:, 0], table[:, 1] = score, np.sqrt(1 - score**2)
        model.get_layer("table_item").set_weights([table])

    looking = watch_of(events)
    go_through(model, looking, popular_with_noise)
    assert set(looking.warned) == {"users_alike", "no_better_than_popularity"}
    assert (
        f"the targets rank above {looking.history['percentile'][0]:.1%}" in looking.warned["no_better_than_popularity"]
    )


@pytest.mark.parametrize(
    ("layer", "factor", "name", "words"),
    [
        ("user_dense_2", np.nan, "not_finite", "of 600 of the 600 users looked at and of 0 of the 300 items hold NaN"),
        ("table_item", np.inf, "not_finite", "and of 300 of the 300 items hold NaN or infinity"),
        (
            "user_dense_2",
            0,
            "zero_vectors",
            "the vectors of 100.0% of the users and 0.0% of the items have length zero",
        ),
        ("table_item", 0, "zero_vectors", "and 100.0% of the items have length zero"),
        ("table_item", 1000, "rows_explode:table_item", "entries with a root mean square of"),
    ],
)
def test_vectors_and_rows_out_of_range(events, model, layer, factor, name, words):
    looking = watch_of(events, alone=True, patience=10_000)
    texts = go_through(model, looking, learn, lambda model: scale(model, layer, factor), learn)
    assert set(looking.warned) == {name}
    assert len(texts) == 1  # in the third epoch it is known
    assert texts[0].startswith("After epoch 2, ")
    assert words in texts[0]
    assert [len(values) for values in looking.history.values()] == [3] * len(looking.history)


def test_a_loss_that_is_not_finite(events, model):
    (text,) = go_through(model, watch_of(events, alone=True, patience=10_000), learn, loss=np.nan)
    assert text.startswith("After epoch 1, the training loss is nan, and the vectors of 0 of the 600 users")


def test_patience_counts_steps_and_begins_anew_when_all_is_well(events, model):
    drawn = model.get_weights()

    def well(model):
        model.set_weights(drawn)
        learn(model)

    alike = same_vector_for_all
    looking = watch_of(events, alone=True, patience=150)
    texts = go_through(model, looking, alike, well, alike, well, alike, alike, alike, steps=100)
    assert [text[:13] for text in texts] == ["After epoch 6"]  # 200 steps after epoch 4, when all was last well


@pytest.mark.slow
def test_interests_that_are_nearly_one_are_told_of(events):
    size = len(events.counts)
    history = VarLenSparseFeat(SparseFeat("hist_item", size, DIM, embedding_name="item"), MAX_LEN, "mean", "hist_len")
    model = ComiRec([history], [SparseFeat("item", size, DIM)], k_max=3, user_dnn_hidden_units=(), num_sampled=20)
    model.compile(tf.keras.optimizers.Adam(0.01), sampledsoftmaxloss)
    attention = model.get_layer("interests").attention

    def attend(by):
        def change(model):
            learn(model)
            attention.assign(by)

        return change

    rng = np.random.default_rng(0)
    looking = watch_of(events, alone=True)
    apart = attend(rng.normal(size=attention.shape) * 1e3)
    assert go_through(model, looking, apart, apart) == []
    assert looking.history["interest_correlation"][0] < 0.9
    (text,) = go_through(model, watch_of(events, alone=True), attend(rng.normal(size=attention.shape) * 1e-2))
    assert text.startswith("After epoch 1, the 3 interests of a user are nearly equal: ")
    assert "`k_max`" in text
    # At first that is so of any training.
    patient = watch_of(events, alone=True, patience=150)
    assert go_through(model, patient, attend(np.ones(attention.shape)), apart, steps=100) == []
    assert patient.history["interest_correlation"][0] == 1
    assert patient.figure_modes["watch_interest_correlation"] == "min"


@pytest.mark.slow
def test_training_is_the_same_with_and_without_the_watch(events):
    model, results = model_of(events, dnn_dropout=0.2), []
    untrained = state_of(model)
    for with_watch in (False, True):
        tf.random.set_seed(3)
        put_back(model, untrained)
        before = np.random.get_state()[1].tolist()  # noqa: NPY002 (the global state is what is tested)
        callbacks = [watch_of(events, patience=10_000)] if with_watch else []
        losses = model.fit(few(events), batch_size=BATCH, epochs=2, verbose=0, callbacks=callbacks).history["loss"]
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
        weights = [*model.get_weights(), *(raw_variable(value).numpy() for value in model.optimizer.variables)]
        results.append((losses, weights, tf.random.uniform([3]).numpy()))
    assert results[0][0] == results[1][0]
    for without, with_ in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_array_equal(without, with_)
    np.testing.assert_array_equal(results[0][2], results[1][2])


@pytest.mark.slow
@pytest.mark.once
def test_a_loaded_model_is_watched_too_and_each_model_anew(events, tmp_path):
    # Its steps are so large since they are divided by the temperature.
    optimizer, x = tf.keras.optimizers.SGD(100.0), few(events)
    model, looking = model_of(events, temperature=10.0, optimizer=optimizer), watch_of(events, patience=10_000)
    model.run_eagerly = True
    assert len(fit(model, looking, x)) == 1
    assert fit(model, looking, x) == []  # the same training goes on
    assert len(looking.history["user_cosine"]) == 2
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    texts = fit(loaded, looking, x)
    assert [text[:19] for text in texts] == ["The temperature, 10"]
    assert len(looking.history["user_cosine"]) == 1
    assert looking.history["rows_changed"][0] > 0.5


def test_as_an_error_the_warning_stops_the_training(events, model):
    kernel, bias = model.get_layer("user_dense_2").get_weights()
    model.get_layer("user_dense_2").set_weights([kernel, bias + 100])
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        with pytest.raises(CollapseWarning, match=r"After epoch \d, .*users"):
            model.fit(events.train, batch_size=BATCH, epochs=5, verbose=0, callbacks=[watch_of(events, alone=True)])


def test_of_a_large_catalogue_fewer_users_are_scored(events, model, monkeypatch):
    monkeypatch.setattr(look_module, "_MAX_SCORES", 301 * 40)
    looking = watch_of(events, num_users=100, patience=10_000)
    assert len(looking.targets) == 100
    go_through(model, looking, learn)
    look = looking._look
    assert look.num_users == len(look.targets) == len(look.seen[0]) - 1 == len(look.user_input["hist_len"]) == 40


@pytest.mark.slow
def test_of_a_large_table_a_thousand_rows_are_read():
    size, x = 50_000, small_input(64)
    history = VarLenSparseFeat(SparseFeat("hist_item", size, 4, embedding_name="item"), 6, "mean", "hist_len")
    model = YoutubeDNN([history], [SparseFeat("item", size, 4)], num_sampled=5)
    model.compile("adam", sampledsoftmaxloss, run_eagerly=True)
    looking = TrainingWatch(user_part(x), x["item"])
    assert fit(model, looking, x) == []
    (table,) = looking._look.tables
    assert 500 < len(table.rows) <= 1000
    assert set(x["item"]) <= set(table.rows)  # what training touches is among them


def test_the_sample_keeps_rows_together(events):
    looking = watch_of(events, num_users=50)
    for row, target in enumerate(looking.targets):
        (place,) = np.flatnonzero(
            (events.targets == target) & (events.users["hist_item"] == looking.user_input["hist_item"][row]).all(axis=1)
        )
        had = events.seen[1][events.seen[0][place] : events.seen[0][place + 1]]
        np.testing.assert_array_equal(looking.seen[1][looking.seen[0][row] : looking.seen[0][row + 1]], had)


SMALL = user_part(small_input(64, seed=2))


@pytest.mark.parametrize(
    ("user_input", "options", "message"),
    [
        ({**SMALL, "hist_len": SMALL["hist_len"][:3]}, {}, r"`user_input` must have the same number of rows in every"),
        ({"hist_item": [[1]]}, {}, r"`user_input` must have the same number of rows in every array, at least 2"),
        ({}, {}, r"`user_input` must"),
        (SMALL, {"targets": [1, 2]}, r"`targets` must have shape \(64,\); got shape \(2,\)"),
        (SMALL, {"targets": np.zeros(64, int)}, r"`targets` must be at least 1; got 0 at position 0"),
        (SMALL, {"item_count": [[1, 2]]}, r"`item_count` must have shape \(V,\)"),
        (SMALL, {"seen": ([0, 1], [1])}, r"the indptr of `seen` must have shape \(65,\)"),
        (SMALL, {"seen_targets": "hit"}, r"`seen_targets` must be one of 'miss', 'leave_out'; got 'hit'"),
        (
            {"hist_item": [[1], [2]]},
            {"targets": [3, 4], "seen": ([0, 1, 2], [3, 4]), "seen_targets": "leave_out"},
            r"`targets` must have a target that is not in `seen` .*; got 2 that are all in",
        ),
        (SMALL, {"n": 0}, r"`n` must be an integer of at least 1"),
        (SMALL, {"num_users": 1}, r"`num_users` must be an integer of at least 2"),
        (SMALL, {"patience": -1}, r"`patience` must be an integer of at least 0"),
        (SMALL, {"batch_size": 0}, r"`batch_size` must be an integer of at least 1"),
    ],
)
def test_bad_arguments_are_refused_at_once(user_input, options, message):
    with pytest.raises(ValueError, match=message):
        TrainingWatch(user_input, **options)


@pytest.mark.parametrize(
    ("user_input", "options", "message"),
    [
        ({"hist_len": SMALL["hist_len"]}, {}, r"The model's input must have 'hist_item'; got only \['hist_len'\]"),
        (SMALL, {"targets": np.full(64, 30)}, r"`targets` must be between 1 and 29; got 30"),
        (SMALL, {"item_count": np.ones(29)}, r"`item_count` must have shape \(30,\), an entry for each item id; got"),
        (SMALL, {"seen": (np.arange(65), np.full(64, 30))}, r"the item ids of `seen` must be between 0 and 29"),
        (SMALL, {"n": 30}, r"`n` must be at most V - 1 = 29, the number of items; got 30"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_training(user_input, options, message):
    with pytest.raises(ValueError, match=message):
        go_through(small_model(), TrainingWatch(user_input, **options))
