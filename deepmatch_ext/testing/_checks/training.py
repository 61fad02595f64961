"""Checks of what models learn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepmatch_ext._keras import input_name, keras
from deepmatch_ext.features import (
    Column,
    SequenceColumn,
)
from deepmatch_ext.losses import LOSSES
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.testing._arguments import every_sampler, is_named
from deepmatch_ext.testing._checks.check import check
from deepmatch_ext.testing._data import BATCH, ROWS, as_tensors, labels_for, planted
from deepmatch_ext.testing._expect import expect, expect_equal, expect_equal_weights, rows_where
from deepmatch_ext.testing._trial import TOP, Trial


@check
def columns(trial: Trial) -> None:
    """Columns of every kind are accepted and trained, and each input of user and item affects the vectors."""
    for user, items in trial.kinds():
        model = trial.model(user, items)
        x = trial.data(BATCH, 2, user, items)
        model.compile(LazyAdam(0.01), run_eagerly=True)  # one step is not worth tracing
        loss = np.ravel(model.train_on_batch(x, labels_for(model, BATCH)))[0]
        expect(np.isfinite(loss), "a training step must have a finite loss", float(loss))
        _expect_every_input_read(model.user_input, model.user_emb, user, x, "user_emb")
        described = planted([], items, BATCH, 3)
        _expect_every_input_read(model.item_input, model.item_emb, items, described, "item_emb")


def _expect_every_input_read(
    inputs: Sequence[Any], output: Any, columns: Sequence[Column], x: Mapping[str, Any], what: str
) -> None:
    encoder = keras.Model(inputs=list(inputs), outputs=output)
    before = np.asarray(encoder(as_tensors(inputs, x, BATCH)))
    expect(np.isfinite(before).all(), f"`{what}` must be finite", "NaN or infinity")
    other = planted(columns, [], BATCH, 4)
    lengths = [column.length_name for column in columns if isinstance(column, SequenceColumn)]
    for tensor in inputs:
        name = input_name(tensor)
        if name in lengths:  # a model that reads only the last item does not need it
            continue
        after = np.asarray(encoder(as_tensors(inputs, {**x, name: other[name]}, BATCH)))
        moved = not np.allclose(after, before, atol=1e-7, rtol=0)
        expect(moved, f"`{what}` must depend on input {name!r}", "the same for other values of it")


@check
def learns(trial: Trial) -> None:
    """The model learns that the next item follows from the last one, but not from shuffled targets."""
    learnt, chance = trial.learnt, trial.learnt.chance
    what = f"where the next item follows from the last one, the hit rate at {TOP} must be at least {learnt.least:.2f}"
    expect(learnt.hits >= learnt.least, f"{what} after {learnt.epochs} epochs", f"{learnt.hits:.2f}")
    shuffled = dict(trial.x)
    shuffled[trial.item.name] = np.random.default_rng(6).permutation(shuffled[trial.item.name])
    with learnt.from_the_start() as model:
        model.fit(shuffled, labels_for(model, ROWS), BATCH, epochs=learnt.epochs, verbose=0)
        found = learnt.hit_rate()
    # Each of the items is either found or not; four standard deviations.
    most = chance + 4 * (chance * (1 - chance) / (trial.item.vocabulary_size - 1)) ** 0.5
    what = f"after training on shuffled targets the hit rate at {TOP} must be at most {most:.2f}"
    expect(found <= most, what, f"{found:.2f}")


@check
def repeats(trial: Trial) -> None:
    """Two models with the same seed train to equal weights; another seed gives other weights."""
    one, other = trial.model(), trial.model()
    first = one.get_weights()
    expect_equal_weights(other, first, "two models of one seed must begin with equal weights")
    rows = 2 * BATCH
    x = {name: values[:rows] for name, values in trial.x.items()}
    for model in (one, other):
        model.compile(LazyAdam(0.02), run_eagerly=True)  # a few steps are not worth tracing; `resume` traces them
        model.fit(x, labels_for(model, rows), BATCH, verbose=0)
    expect_equal_weights(other, one.get_weights(), "two models of one seed must train to equal weights")
    if "seed" in trial.parameters:
        seed = trial.arguments.get("seed", trial.parameters["seed"].default)
        of_another = trial.model(seed=seed + 1).get_weights()
        differ = any(not np.array_equal(a, b) for a, b in zip(first, of_another, strict=True))
        expect(differ, f"a model of seed={seed + 1} must begin with other weights than seed={seed}", "the same")


@check
def sample_weight(trial: Trial) -> None:
    """A row's weight multiplies its loss: 0 leaves it out, 2 counts it twice; a loss does not depend on other rows."""
    model = trial.model()
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)  # a few steps are not worth tracing
    first, rows = model.get_weights(), 16
    x = {name: values[:rows] for name, values in trial.x.items()}
    others = {**x, **{name: values[rows : 2 * rows].copy() for name, values in trial.users.items()}}
    odd = np.arange(rows) % 2 == 1
    mixed = {name: rows_where(odd, others[name], x[name]) for name in x}
    of_x, of_mixed = (np.asarray(model(as_tensors(model.inputs, each, rows)))[:, 0] for each in (x, mixed))
    what = "the loss of a row must not depend on what other rows say of their users"
    expect_equal(of_mixed[~odd], of_x[~odd], what)

    def step(weights: Any) -> list[np.ndarray]:
        model.set_weights(first)
        model.train_on_batch(x, labels_for(model, rows), np.asarray(weights, "float32"))
        return [np.array(weight, np.float64) for weight in model.trainable_weights]

    least = np.full(rows, 1e-30)  # weights that are all 0 are warned of
    none, some, rest, every, twice = (step(w) for w in (least, 1.0 * odd, 1.0 * ~odd, odd + 1.0 * ~odd, 2.0 * odd))
    for start, a, b, both, double in zip(none, some, rest, every, twice, strict=True):
        what = "a step's change must be the sum of what its rows change, each times its weight"
        expect_equal(a + b - start, both, f"{what} (weights 1 and 0, 0 and 1, 1 and 1)", 1e-4)
        expect_equal(2 * a - start, double, f"{what} (weights 1 and 0, 2 and 0)", 1e-4)
    changed = any(not np.allclose(a, b, atol=1e-9, rtol=0) for a, b in zip(some, rest, strict=True))
    expect(changed, "rows of weight 1 must train the model, and other rows otherwise", "the same weights")


@check
def samplers_and_losses(trial: Trial) -> None:
    """Each sampler and each loss that the builder takes trains to finite numbers."""
    samplers: dict[str, dict[str, Any]] = {}
    if "sampler_config" in trial.parameters:
        free = {"num_sampled": None} if "num_sampled" in trial.parameters else {}
        every = every_sampler(trial.item.vocabulary_size).items()
        samplers = {f"the sampler {name!r}": {"sampler_config": each, **free} for name, each in every}
    losses: dict[str, dict[str, Any]] = {
        f"the loss {name!r}": {argument: name}
        for argument in ("loss", "loss_type")
        if argument in trial.parameters
        for name in LOSSES
    }
    taken: set[str] = set()
    for pair in itertools.zip_longest(samplers.items(), losses.items()):  # with as few models as possible
        both = dict(each for each in pair if each is not None)
        try:
            _train_with(trial, both)
            taken.update(both)
        except ValueError:
            for what, arguments in both.items():
                try:
                    _train_with(trial, {what: arguments})
                    taken.add(what)
                except ValueError as error:
                    if not is_named(error, next(iter(arguments))):
                        raise  # else it is one that the model does not take
    for kind, every_one in {"sampler": samplers, "loss": losses}.items():
        expect(not every_one or taken & every_one.keys(), f"at least one {kind} must be taken", "none")


def _train_with(trial: Trial, tried: Mapping[str, Mapping[str, Any]]) -> None:
    """A step, and the losses after it, with the arguments of all of ``tried``: a description -> arguments by name."""
    what = " with ".join(tried)
    model = trial.model(**{name: value for arguments in tried.values() for name, value in arguments.items()})
    x = {name: values[:BATCH] for name, values in trial.x.items()}
    model.compile(LazyAdam(0.01), run_eagerly=True)
    losses = [float(np.ravel(model.train_on_batch(x, labels_for(model, BATCH)))[0])]
    losses.append(float(np.mean(model(as_tensors(model.inputs, x, BATCH), training=True))))  # a sampler may remember
    expect(np.isfinite(losses).all(), f"{what} must have finite losses", f"{losses}")
    finite = all(np.isfinite(weight).all() for weight in model.get_weights() if weight.dtype.kind == "f")
    expect(finite, f"{what} must train to finite weights", "NaN or infinity")
