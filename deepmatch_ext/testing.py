"""`check_model`: what every model of this package promises, checked for a builder, those that you write included.

Nothing here needs a test framework. With pytest, one test for each of the `CHECKS` says more than one for all::

    @pytest.fixture(scope="module")
    def trial():
        return Trial(MyModel)

    @pytest.mark.parametrize("name", CHECKS)
    def test_my_model(name, trial):
        CHECKS[name](trial)
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import problem, shown
from deepmatch_ext._compat import global_policy_name, input_name, is_table, keras, raw_variable, set_global_policy
from deepmatch_ext.features import (
    Column,
    DenseColumn,
    SequenceColumn,
    SparseColumn,
    column_config,
    input_names,
    read_columns,
)
from deepmatch_ext.layers.softmax import LOSSES
from deepmatch_ext.models._retrieval_model import BUILDERS, RetrievalModel, _to_plain
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.retrieval import ExactIndex
from deepmatch_ext.samplers import (
    AdaptiveSampler,
    FrequencySampler,
    FullSampler,
    HardNegatives,
    InBatchSampler,
    LogUniformSampler,
    MixedSampler,
    QueueSampler,
    Sampler,
    UniformSampler,
)
from deepmatch_ext.serving import export_recommender

__all__ = ["CHECKS", "Trial", "check_model"]

VOCABULARY, DIM, MAX_LEN = 30, 8, 6
ROWS, BATCH = 512, 32
TOP = 3  # items that a user gets where it is checked whether the next item was learnt
TOLERANCE = 1e-5  # of vectors that should be equal, relative to the largest entry

# Vocabulary sizes that no other dimension of a model equals: a tensor's shape then tells whether it is a whole table.
_PRIMES = (997, 1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051)


def check_model(builder: Callable[..., Any], columns: Any = None, **arguments: Any) -> None:
    """Checks that a builder's models keep the promises that all models of this package make.

    It builds small models, generates data for them, and trains, saves, reloads and exports them. A minute or so on two
    cores. `CHECKS` has each check alone, with what it demands as its docstring.

    Args:
        builder: A function like `YoutubeDNN`: user columns, item columns, and then arguments that have defaults. Files
            are also read in a fresh process, so the builder has to be in a module and not in an interactive session.
        columns: ``(user columns, item columns)`` of the models, where a builder does not take every kind: DeepCTR's,
            or this package's. A history of the user's must share the item's table, and the item have integer ids. None:
            columns of every kind are tried.
        arguments: The builder's other arguments. Each that is given here is given to every model. An argument that
            the checks cannot find a second value for, because its default is None or text, is checked to come back
            from a file only if it is given here.

    Raises:
        AssertionError: A promise is broken; the message says which, what was expected and what came.
        ValueError: ``builder`` or ``columns`` are not of the form described.

    Example::

        from deepmatch_ext.testing import check_model
        from my_models import MyModel

        def test_my_model():
            check_model(MyModel, num_layers=2)
    """
    trial = Trial(builder, columns, **arguments)
    for check in CHECKS.values():
        check(trial)


class Trial:
    """A builder with small columns and data, and what its checks share: a trained model, and files read again.

    Args:
        builder, columns, arguments: As for `check_model`.

    Example:
        >>> from deepmatch_ext import YoutubeDNN
        >>> CHECKS["attributes"](Trial(YoutubeDNN, num_sampled=20))
    """

    def __init__(self, builder: Callable[..., Any], columns: Any = None, **arguments: Any) -> None:
        if not callable(builder) or not hasattr(builder, "__name__"):
            raise problem("`builder`", "be a function such as YoutubeDNN", shown(builder))
        if columns is not None and (not isinstance(columns, tuple | list) or len(columns) != 2):
            raise problem("`columns`", "be a pair, user columns and item columns", shown(columns))
        self.builder, self.arguments = builder, arguments
        self.name: str = builder.__name__
        self.has_own_columns = columns is not None
        self.user_columns = read_columns("columns[0]", _default_user_columns() if columns is None else columns[0])
        self.item_columns = read_columns("columns[1]", [_default_item()] if columns is None else columns[1])
        self.item = _item_of(self.item_columns)
        if self.item.embedding_name not in [c.sparsefeat.embedding_name for c in self.user_columns if _is_history(c)]:
            rule, got = "have a history that shares the item's table by its `embedding_name`", "none"
            raise problem("`columns[0]`", rule, got)
        self.parameters = dict(inspect.signature(builder).parameters)
        self.column_parameters = list(self.parameters)[:2]

    # Models and data.

    def model(
        self, user: Sequence[Column] | None = None, items: Sequence[Column] | None = None, **changes: Any
    ) -> RetrievalModel:
        """A new model, of other columns or with other arguments than the trial's, if they are given."""
        user = self.user_columns if user is None else user
        items = self.item_columns if items is None else items
        arguments = {**self.arguments, **changes}
        if len(items) > 1 and "item_features" in self.parameters:
            arguments.setdefault("item_features", item_features(items))
        return self.builder([*user], [*items], **arguments)

    def data(self, rows: int, seed: int, user: Sequence[Column] | None = None, items: Any = None) -> dict[str, Any]:
        """Rows of model inputs in which the next item follows from the last one."""
        return planted(
            self.user_columns if user is None else user, self.item_columns if items is None else items, rows, seed
        )

    @functools.cached_property
    def x(self) -> dict[str, np.ndarray]:
        """The rows that models are trained with."""
        return self.data(ROWS, 0)

    @functools.cached_property
    def users(self) -> dict[str, np.ndarray]:
        """Other rows, of the user side alone."""
        return {name: values for name, values in self.held_out.items() if name in input_names(self.user_columns)}

    @functools.cached_property
    def held_out(self) -> dict[str, np.ndarray]:
        return self.data(ROWS // 2, 1)

    # What is trained and read again once, for several checks.

    @functools.cached_property
    def learnt(self) -> Learnt:
        """A model that was trained for as long as it learnt, what it learnt, and a run of it that stops and goes on."""
        return Learnt(self)

    @property
    def trained(self) -> RetrievalModel:
        return self.learnt.model

    @functools.cached_property
    def read_again(self) -> dict[str, Any]:
        """What a fresh process made of the trained model's files: arrays, or the text of an error."""
        return _read_again(self)


class Learnt:
    """A trained model, and how it came to be what it is. The model stays as it is, compiled, for further runs."""

    MOST_EPOCHS = 40

    def __init__(self, trial: Trial) -> None:
        self.trial, self.model = trial, trial.model()
        self.model.compile(LazyAdam(0.02))
        self._first = _state(self.model)
        self.epochs, self.hits = 0, 0.0
        while self.epochs < self.MOST_EPOCHS and self.hits < 0.9:
            self.model.fit(trial.x, batch_size=BATCH, epochs=5, verbose=0)
            self.epochs, self.hits = self.epochs + 5, self.hit_rate()
        self.user_vectors = self.model.user_vectors(trial.users)
        self.item_vectors = self.model.item_vectors()

    @contextmanager
    def from_the_start(self) -> Iterator[RetrievalModel]:
        """The model as it was before it was trained, for another run; at the end it is as trained as it was."""
        trained = _state(self.model)
        _put_back(self.model, self._first)
        try:
            yield self.model
        finally:
            _put_back(self.model, trained)

    def hit_rate(self) -> float:
        """Fraction of the held-out rows whose item is among the `TOP` nearest."""
        scores = scores_of(self.model.user_vectors(self.trial.users), self.model.item_vectors())
        target = self.trial.held_out[self.trial.item.name].astype(np.int64).reshape(-1)
        return float(np.mean(np.any(best(scores, TOP) == target[:, np.newaxis], axis=1)))

    @functools.cached_property
    def two_epochs(self) -> tuple[list[np.ndarray], bytes]:
        """The weights after two epochs, and the model's file as it was after the first of them."""
        with self.from_the_start() as model, tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"

            def save(epoch: int, logs: Any) -> None:
                if epoch == 0:
                    model.save(path)

            saver = keras.callbacks.LambdaCallback(on_epoch_end=save)
            model.fit(self.trial.x, batch_size=BATCH, epochs=2, verbose=0, callbacks=[saver])
            return model.get_weights(), path.read_bytes()


# The checks. Each is a promise of its own, in the docstring's words; a check that fails says what came.

CHECKS: dict[str, Callable[[Trial], None]] = {}
"""Name -> check. A check takes a `Trial`, and raises AssertionError if the builder's models break its promise."""


class _Broken(AssertionError):
    """A broken promise, in words."""


def _expect(holds: Any, expected: str, got: Any) -> None:
    if not holds:
        raise _Broken(f"{expected}; got {got if isinstance(got, str) else shown(got)}")


def _check(function: Callable[[Trial], None]) -> Callable[[Trial], None]:
    """Enters a check, whose failure is to say the builder, the check, what was expected and what came."""
    name = function.__name__.strip("_")

    @functools.wraps(function)
    def check(trial: Trial) -> None:
        failing = f"{trial.name} fails the check {name!r}: "
        try:
            function(trial)
        except _Broken as broken:
            raise AssertionError(f"{failing}{broken}") from None
        except Exception as error:
            raise AssertionError(f"{failing}no error was expected; got {_one_line(error)}") from error

    CHECKS[name] = check
    return check


@_check
def _attributes(trial: Trial) -> None:
    """Models are `RetrievalModel`s with ``user_input``, ``user_emb``, ``item_input``, ``item_emb``, a loss a row."""
    model = trial.model()
    _expect(isinstance(model, RetrievalModel), "the builder must return a RetrievalModel", type(model).__name__)
    users, items = [input_name(t) for t in model.user_input], [input_name(t) for t in model.item_input]
    wanted = input_names(trial.user_columns)
    _expect(set(users) == set(wanted), f"`user_input` must be the inputs of the user columns, {wanted}", f"{users}")
    wanted = input_names(trial.item_columns)
    _expect(items == wanted, f"`item_input` must be the inputs of the item columns, {wanted}", f"{items}")
    user_shape, item_shape = tuple(model.user_emb.shape), tuple(model.item_emb.shape)
    _expect(
        len(user_shape) in (2, 3) and None not in user_shape[1:],
        "`user_emb` must have shape (B, D) or (B, K, D)",
        user_shape,
    )
    _expect(item_shape == (None, user_shape[-1]), f"`item_emb` must have shape (B, {user_shape[-1]})", item_shape)
    users_of = keras.Model(inputs=model.user_input, outputs=model.user_emb)
    items_of = keras.Model(inputs=model.item_input, outputs=model.item_emb)
    x = _tensors(model.user_input, trial.users, 4)
    encoded = users_of(x)
    _expect(tuple(encoded.shape) == (4, *user_shape[1:]), "the user encoder must give a row a user", f"{encoded.shape}")
    some = {name: values[1:5] for name, values in _every_item(trial).items()}
    encoded = items_of(_tensors(model.item_input, some, 4))
    _expect(tuple(encoded.shape) == (4, item_shape[1]), "the item encoder must give a row an item", f"{encoded.shape}")
    losses = model(_tensors(model.inputs, trial.x, 4))
    _expect(tuple(losses.shape) == (4, 1), "the model's output must be a loss for each row, (B, 1)", f"{losses.shape}")
    _expect(np.isfinite(losses).all(), "the losses must be finite", f"{np.ravel(losses)}")


@_check
def _recorded(trial: Trial) -> None:
    """The model's config has every argument of the builder's signature, as it was given; a rebuilt model's is equal."""
    left_out = SparseColumn("left_out", VOCABULARY, DIM, embedding_name="left_out")
    others = {name: _other_value(name, parameter, left_out) for name, parameter in trial.parameters.items()}
    together = {name: value for name, value in others.items() if value is not None and name not in trial.arguments}
    alone: dict[str, Any] = {}

    def check(given: dict[str, Any]) -> None:
        user = [*trial.user_columns, *([left_out] if "exclude_features" in given else [])]
        _check_record(trial, trial.model(user, **given), user, given)

    check({})
    while together:  # with as few models as will do
        try:
            check(together)
            break
        except ValueError as error:
            named = next((name for name in together if _names(error, name)), None)
            if named is None:
                raise
            alone[named] = together.pop(named)
    for name, value in alone.items():
        try:
            check({name: value})
        except ValueError as error:
            if not _names(error, name):
                raise  # else it is not a value that the argument takes


def _check_record(trial: Trial, model: RetrievalModel, user: Sequence[Column], given: Mapping[str, Any]) -> None:
    config = model.get_config()
    made_by = BUILDERS.get(config.get("builder", ""))
    _expect(
        made_by is not None and inspect.unwrap(made_by) is inspect.unwrap(trial.builder),
        "the config's `builder` must be the registered name of the builder",
        repr(config.get("builder")),
    )
    recorded, expected = config["arguments"], list(trial.parameters)
    missing, unknown = sorted(set(expected) - set(recorded)), sorted(set(recorded) - set(expected))
    _expect(
        not missing, "every argument of the signature must be recorded, or it reloads as its default", f"no {missing}"
    )
    _expect(not unknown, "the recorded arguments must be arguments of the signature", f"also {unknown}")
    excluded = given.get("exclude_features", ())
    given = {**trial.arguments, **given}
    for name, parameter in trial.parameters.items():
        if name in trial.column_parameters or name in ("item_features", "exclude_features"):
            continue
        value = given.get(name, parameter.default)
        if value is None or value is parameter.empty:
            continue  # the record may say what None stood for
        plain = _as_json(_to_plain(name, value))
        what = f"`{name}` must be recorded as it was given, {shown(plain)}"
        _expect(_as_json(recorded[name]) == plain, what, shown(recorded[name]))
    for name, columns in zip(trial.column_parameters, (user, trial.item_columns), strict=True):
        came = _as_json(recorded[name])
        read = [_as_json(column_config(column)) for column in columns]
        without = [column for column in read if _name_in(column) not in excluded]
        was_excluded = came == without and not recorded.get("exclude_features")
        _expect(
            came == read or (excluded and was_excluded),
            f"`{name}` must be recorded as it was given",
            f"the columns {[_name_in(column) for column in came]}",
        )
    again = type(model).from_config(json.loads(json.dumps(config))).get_config()
    _expect(_as_json(again) == _as_json(config), "a model rebuilt from its config must have the same config", "another")


@_check
def _bad_arguments(trial: Trial) -> None:
    """What can't be an argument's value is refused with a ValueError that names the argument."""
    for name, parameter in trial.parameters.items():
        for value in _odd_values(name, parameter):
            what = f"{name}={shown(value)} must be refused with a ValueError that names `{name}`"
            try:
                trial.builder(**_call(trial, name, value))
            except ValueError as error:
                _expect(_names(error, name), what, _one_line(error))
            except Exception as error:
                raise _Broken(f"{what}; got {_one_line(error)}") from error
            else:
                raise _Broken(f"{what}; got a model")


@_check
def _columns(trial: Trial) -> None:
    """Columns of every kind are taken and trained, and each input of the user's and the item's moves the vectors."""
    kinds = [(trial.user_columns, trial.item_columns)] if trial.has_own_columns else _every_kind(trial)
    for user, items in kinds:
        model = trial.model(user, items)
        x = trial.data(BATCH, 2, user, items)
        model.compile(LazyAdam(0.01), run_eagerly=True)  # one step is not worth tracing
        loss = np.ravel(model.train_on_batch(x))[0]
        _expect(np.isfinite(loss), "a training step must have a finite loss", float(loss))
        _expect_every_input_read(model.user_input, model.user_emb, user, x, "user_emb")
        described = planted([], items, BATCH, 3)
        _expect_every_input_read(model.item_input, model.item_emb, items, described, "item_emb")


def _expect_every_input_read(
    inputs: Sequence[Any], output: Any, columns: Sequence[Column], x: Mapping[str, Any], what: str
) -> None:
    encoder = keras.Model(inputs=list(inputs), outputs=output)
    before = np.asarray(encoder(_tensors(inputs, x, BATCH)))
    _expect(np.isfinite(before).all(), f"`{what}` must be finite", "NaN or infinity")
    other = planted(columns, [], BATCH, 4)
    lengths = [column.length_name for column in columns if isinstance(column, SequenceColumn)]
    for tensor in inputs:
        name = input_name(tensor)
        if name in lengths:  # what reads the last item alone has no use for it
            continue
        after = np.asarray(encoder(_tensors(inputs, {**x, name: other[name]}, BATCH)))
        moved = not np.allclose(after, before, atol=1e-7, rtol=0)
        _expect(moved, f"`{what}` must depend on input {name!r}", "the same for other values of it")


@_check
def _whole_tables(trial: Trial) -> None:
    """No training step reads or writes a whole table: not in its graph, not in its gradients."""
    sizes = dict(zip(_table_names(trial), _PRIMES, strict=False))
    user, items = ([_of_size(column, sizes) for column in side] for side in (trial.user_columns, trial.item_columns))
    model = trial.model(user, items)
    model.compile(LazyAdam(0.01))
    model.optimizer.build(model.trainable_variables)
    x = trial.data(13, 5, user, items)
    batch = dict(zip(map(input_name, model.inputs), _tensors(model.inputs, x, 13), strict=True))

    tables = {}
    for variable in [*model.weights, *model.optimizer.variables]:
        raw = raw_variable(variable)
        if raw.shape.rank and raw.shape[0] in sizes.values():
            tables[id(raw.handle)] = getattr(variable, "path", variable.name)
    _expect(tables, "an embedding table must have a row for each id", "no such variable")

    with tf.GradientTape() as tape:
        losses = model([batch[input_name(tensor)] for tensor in model.inputs], training=True)
        loss = tf.add_n([tf.reduce_mean(losses), *(tf.cast(each, tf.float32) for each in model.losses)])
    variables = [raw_variable(variable) for variable in model.trainable_variables]
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        if id(variable.handle) in tables and gradient is not None:
            rule = f"the gradient of {tables[id(variable.handle)]!r} must be tf.IndexedSlices, of the rows read"
            _expect(isinstance(gradient, tf.IndexedSlices), rule, f"a tensor of shape {tuple(gradient.shape)}")

    graph = tf.function(model.train_step).get_concrete_function((batch, tf.zeros([13, 1]))).graph
    handles = {inside.op.name: tables[id(outside)] for outside, inside in graph.captures if id(outside) in tables}
    definition = graph.as_graph_def(add_shapes=True)
    functions = {function.signature.name: function for function in definition.library.function}
    for operation, table in _other_readers(definition.node, handles, functions):
        rule = f"a training step must look rows of {table!r} up, gather and scatter them, and do nothing else with it"
        raise _Broken(f"{rule}; got the operation {operation}")
    for node in [*definition.node, *(node for function in functions.values() for node in function.node_def)]:
        for shape in node.attr["_output_shapes"].list.shape:
            dims = [dim.size for dim in shape.dim]
            if set(dims) & set(sizes.values()):
                rule = "no tensor of a training step may have a row for each id of a vocabulary"
                raise _Broken(f"{rule}; got shape {dims} from the operation {node.op} {node.name!r}")


@_check
def _vectors(trial: Trial) -> None:
    """``keras.Model(user_input, user_emb).predict`` is `user_vectors`, at every batch size and at every call."""
    model = trial.trained
    expected = trial.learnt.user_vectors
    rows = len(expected)
    _expect(np.isfinite(expected).all(), "user vectors must be finite", "NaN or infinity")
    encoder = keras.Model(inputs=model.user_input, outputs=model.user_emb)
    some = {name: values[:20] for name, values in trial.users.items()}
    for size in (1, 7, 20):
        what = f"`user_vectors` with batch_size={size} must equal those of another size and an earlier call"
        _expect_equal(model.user_vectors(some, batch_size=size), expected[:20], what)
    arrays = dict(zip(map(input_name, model.user_input), _tensors(model.user_input, trial.users, rows), strict=True))
    for size in (BATCH - 1, rows):
        what = f"tf.keras.Model(user_input, user_emb).predict(x, batch_size={size}) must equal `user_vectors`"
        _expect_equal(encoder.predict(arrays, batch_size=size, verbose=0), expected, what)
    items = _every_item(trial)
    encoder = keras.Model(inputs=model.item_input, outputs=model.item_emb)
    encoded = np.asarray(encoder(_tensors(model.item_input, items, trial.item.vocabulary_size)))
    what = "tf.keras.Model(item_input, item_emb) must equal `item_vectors`"
    _expect_equal(encoded[1:], trial.learnt.item_vectors[1:], what)
    _expect(not trial.learnt.item_vectors[0].any(), "row 0 of `item_vectors`, padding, must be zeros", "others")


@_check
def _learns(trial: Trial) -> None:
    """That the next item follows from the last one is learnt; it is not found after training on shuffled targets."""
    learnt, chance = trial.learnt, TOP / (trial.item.vocabulary_size - 1)
    least = max(0.5, 3 * chance)
    what = f"where the next item follows from the last one, the hit rate at {TOP} must be at least {least:.2f}"
    _expect(learnt.hits >= least, f"{what} after {learnt.epochs} epochs", f"{learnt.hits:.2f}")
    shuffled = dict(trial.x)
    shuffled[trial.item.name] = np.random.default_rng(6).permutation(shuffled[trial.item.name])
    with learnt.from_the_start() as model:
        model.fit(shuffled, batch_size=BATCH, epochs=learnt.epochs, verbose=0)
        found = learnt.hit_rate()
    # Each of the items is either found or not; four standard deviations.
    most = chance + 4 * (chance * (1 - chance) / (trial.item.vocabulary_size - 1)) ** 0.5
    what = f"after training on shuffled targets the hit rate at {TOP} must be at most {most:.2f}"
    _expect(found <= most, what, f"{found:.2f}")


@_check
def _mixed_precision(trial: Trial) -> None:
    """Under mixed_bfloat16 the vectors are finite and near those of float32, and embedding tables stay float32."""
    policy = global_policy_name()
    set_global_policy("mixed_bfloat16")
    try:
        model = trial.model()
    finally:
        set_global_policy(policy)
    model.set_weights(trial.trained.get_weights())
    for weight in model.weights:
        if is_table(weight) or tuple(weight.shape)[:1] == (trial.item.vocabulary_size,):
            dtype = tf.as_dtype(raw_variable(weight).dtype)
            name = getattr(weight, "path", weight.name)
            _expect(not dtype.is_floating or dtype == tf.float32, f"the table {name!r} must stay float32", dtype.name)
    for what, came, expected in (
        ("user", model.user_vectors(trial.users), trial.learnt.user_vectors),
        ("item", model.item_vectors(), trial.learnt.item_vectors),
    ):
        _expect_equal(came, expected, f"under mixed_bfloat16 the {what} vectors must be near those of float32", 0.1)
    losses = np.asarray(model(_tensors(model.inputs, trial.x, BATCH), training=True))
    _expect(np.isfinite(losses).all(), "under mixed_bfloat16 the losses must be finite", "NaN or infinity")


@_check
def _repeats(trial: Trial) -> None:
    """Two models of one seed train to equal weights; another seed begins with others."""
    model = trial.model()
    model.compile(LazyAdam(0.02))
    model.optimizer.build(model.trainable_variables)
    first = model.get_weights()
    model.fit(trial.x, batch_size=BATCH, epochs=2, verbose=0)
    _expect_equal_weights(model, trial.learnt.two_epochs[0], "two models of one seed must train to equal weights")
    if "seed" in trial.parameters:
        seed = trial.arguments.get("seed", trial.parameters["seed"].default)
        other = trial.model(seed=seed + 1).get_weights()
        differ = any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
        _expect(differ, f"a model of seed={seed + 1} must begin with other weights than seed={seed}", "the same")


@_check
def _sample_weight(trial: Trial) -> None:
    """A row's weight weighs its loss: 0 is as leaving the row out, 2 as having it twice; no loss is another row's."""
    model = trial.model()
    model.compile(keras.optimizers.SGD(0.1))
    first, rows = model.get_weights(), 16
    x = {name: values[:rows] for name, values in trial.x.items()}
    others = {**x, **{name: values[rows : 2 * rows].copy() for name, values in trial.users.items()}}
    odd = np.arange(rows) % 2 == 1
    mixed = {name: _where(odd, others[name], x[name]) for name in x}
    of_x, of_mixed = (np.asarray(model(_tensors(model.inputs, each, rows)))[:, 0] for each in (x, mixed))
    what = "the loss of a row must not depend on what other rows say of their users"
    _expect_equal(of_mixed[~odd], of_x[~odd], what)

    def step(weights: Any) -> list[np.ndarray]:
        model.set_weights(first)
        model.train_on_batch(x, sample_weight=np.asarray(weights, "float32"))
        return [np.array(weight, np.float64) for weight in model.trainable_weights]

    none, some, rest, every, twice = (step(w) for w in (0.0 * odd, 1.0 * odd, 1.0 * ~odd, odd + 1.0 * ~odd, 2.0 * odd))
    for start, a, b, both, double in zip(none, some, rest, every, twice, strict=True):
        what = "a step's change must be the sum of what its rows change, each times its weight"
        _expect_equal(a + b - start, both, f"{what} (weights 1 and 0, 0 and 1, 1 and 1)", 1e-4)
        _expect_equal(2 * a - start, double, f"{what} (weights 1 and 0, 2 and 0)", 1e-4)
    changed = any(not np.allclose(a, b, atol=1e-9, rtol=0) for a, b in zip(some, rest, strict=True))
    _expect(changed, "rows of weight 1 must train the model, and other rows otherwise", "the same weights")


@_check
def _samplers_and_losses(trial: Trial) -> None:
    """Each sampler and each loss that the builder takes trains to finite numbers."""
    tries: list[tuple[str, dict[str, Any]]] = []
    if "sampler_config" in trial.parameters:
        free = {"num_sampled": None} if "num_sampled" in trial.parameters else {}
        every = every_sampler(trial.item.vocabulary_size).items()
        tries += [(f"the sampler {name!r}", {"sampler_config": each, **free}) for name, each in every]
    if "loss" in trial.parameters:
        tries += [(f"the loss {name!r}", {"loss": name}) for name in LOSSES]
    x = {name: values[:BATCH] for name, values in trial.x.items()}
    taken = {"sampler": 0, "loss": 0}
    for what, arguments in tries:
        kind = what.split()[1]
        try:
            model = trial.model(**arguments)
        except ValueError as error:
            if _names(error, next(iter(arguments))):
                continue  # a model need not take each
            raise
        taken[kind] += 1
        model.compile(LazyAdam(0.01), run_eagerly=True)  # one step is not worth tracing
        losses = [float(np.ravel(model.train_on_batch(x))[0]) for _ in range(2)]
        _expect(np.isfinite(losses).all(), f"{what} must have finite losses", f"{losses}")
        vectors = np.append(model.user_vectors(x).ravel(), model.item_vectors().ravel())
        _expect(np.isfinite(vectors).all(), f"{what} must train to finite vectors", "NaN or infinity")
    for kind in {what.split()[1] for what, _ in tries}:
        _expect(taken[kind], f"at least one {kind} must be taken", "none")


@_check
def _index(trial: Trial) -> None:
    """An index of the item vectors, saved and loaded, finds each user's best items."""
    users, items = trial.learnt.user_vectors, trial.learnt.item_vectors
    with tempfile.TemporaryDirectory() as folder:
        ExactIndex(np.arange(1, len(items)), items[1:]).save(folder + "/index")
        ids, scores = ExactIndex.load(folder + "/index").search(users, 5)
    _expect_best(ids, scores, scores_of(users, items), "the index")


@_check
def _reload(trial: Trial) -> None:
    """A ``.keras`` file gives equal vectors in a fresh process."""
    _expect_same_vectors(trial, "file", "a model that a fresh process loads from its .keras file")


@_check
def _reload_weights(trial: Trial) -> None:
    """A model that is rebuilt from its config in a fresh process, with the weights' file, gives equal vectors."""
    _expect_same_vectors(trial, "weights", "a model that a fresh process rebuilds and loads the weights of")


@_check
def _resume(trial: Trial) -> None:
    """A run that stops after an epoch, and goes on in a fresh process, ends with the weights of an undisturbed one."""
    came = _of_fresh_process(trial, "resumed")
    what = "a run that was saved, loaded and resumed must end with the weights of an undisturbed one"
    weights = [came[f"{k}"] for k in range(len(came))]
    _expect_equal_weights(trial.trained, trial.learnt.two_epochs[0], what, weights)


@_check
def _export(trial: Trial) -> None:
    """An export answers as the vectors do, in a process that has not imported this package."""
    came = _of_fresh_process(trial, "export")
    users, items = trial.learnt.user_vectors, trial.learnt.item_vectors
    _expect_equal(came["user_vector"], users, "the export's signature user_vector must give `user_vectors`")
    _expect_best(came["item_ids"], came["scores"], scores_of(users, items), "the export's signature recommend")


# Columns and data.


def _default_item() -> SparseColumn:
    return SparseColumn("item", VOCABULARY, DIM, embedding_name="item")


def _default_user_columns() -> list[Column]:
    history = SparseColumn("hist_item", VOCABULARY, DIM, embedding_name="item")
    return [SequenceColumn(history, MAX_LEN, "recency+last", "hist_len")]


def _every_kind(trial: Trial) -> list[tuple[list[Column], list[Column]]]:
    """Pairs of user and item columns that together have every kind."""
    rated = SparseColumn("hist_rated", VOCABULARY, DIM, embedding_name="item")
    category = SparseColumn("hist_category", 11, 4, embedding_name="category")
    user: list[Column] = [
        SparseColumn("user", 17, 4, dtype="int64", embedding_name="user"),
        SparseColumn("city", 19, 4, use_hash=True, dtype="string", embedding_name="city"),
        *_default_user_columns(),
        SequenceColumn(category, MAX_LEN, "mean"),
        SequenceColumn(rated, MAX_LEN, "mean", "rated_len", "rating"),
        DenseColumn("age", 3),
    ]
    items: list[Column] = [_default_item()]
    if "item_features" in trial.parameters:
        of_item = SparseColumn("category", 11, 4, embedding_name="category")
        tags = SequenceColumn(SparseColumn("tags", 13, 4, embedding_name="tags"), 3, "mean")
        items += [of_item, tags, DenseColumn("price", 2)]
    text: dict[str, Any] = {"use_hash": True, "dtype": "string", "embedding_name": "item"}
    hashed = SequenceColumn(SparseColumn("hist_item", 97, DIM, **text), MAX_LEN, "recency+last", "hist_len")
    return [(user, items), ([hashed], [SparseColumn("item", 97, DIM, **text)])]


def _item_of(items: Sequence[Column]) -> SparseColumn:
    if not items or not isinstance(items[0], SparseColumn) or items[0].use_hash:
        raise problem("`columns[1]`", "begin with a SparseFeat of integer ids, the item", shown(items[:1]))
    return items[0]


def _is_history(column: Column) -> TypeGuard[SequenceColumn]:
    return isinstance(column, SequenceColumn)


def _sparse(columns: Iterable[Column]) -> Iterator[SparseColumn]:
    for column in columns:
        if not isinstance(column, DenseColumn):
            yield column.sparsefeat if isinstance(column, SequenceColumn) else column


def _table_names(trial: Trial) -> list[str]:
    every = [column.embedding_name for column in _sparse([*trial.user_columns, *trial.item_columns])]
    return list(dict.fromkeys(every))


def _of_size(column: Column, sizes: Mapping[str, int]) -> Column:
    """The column with the vocabulary size of its table in ``sizes``."""
    if isinstance(column, DenseColumn):
        return column
    if isinstance(column, SequenceColumn):
        sparse = _of_size(column.sparsefeat, sizes)
        return dataclasses.replace(column, sparsefeat=sparse)  # type: ignore[arg-type]
    size = sizes.get(column.embedding_name, column.vocabulary_size)
    return dataclasses.replace(column, vocabulary_size=size, embeddings_initializer=None)


def planted(user: Sequence[Column], items: Sequence[Column], rows: int, seed: int) -> dict[str, np.ndarray]:
    """Random inputs of the columns, in which the item is the one after the last of a history that shares its table.

    Args:
        user: The user's columns. Histories are most recent first and padded at the end, and are never empty.
        items: The item's columns, the id first. None: the user's inputs alone.
        rows: How many.
        seed: Of the draws.

    Returns:
        name -> array of ``rows`` rows.
    """
    rng = np.random.default_rng(seed)
    x: dict[str, np.ndarray] = {}
    lengths: dict[str, np.ndarray] = {}
    last: dict[str, np.ndarray] = {}
    for column in [*user, *items]:
        if isinstance(column, DenseColumn):
            x[column.name] = rng.standard_normal((rows, column.dimension)).astype(column.dtype)
        elif isinstance(column, SparseColumn):
            x[column.name] = _raw(column, rng.integers(1, column.vocabulary_size, rows))
        else:
            drawn = rng.integers(1, column.maxlen + 1, rows)
            length = drawn if column.length_name is None else lengths.setdefault(column.length_name, drawn)
            valid = np.arange(column.maxlen) < np.minimum(length, column.maxlen)[:, np.newaxis]
            ids = rng.integers(1, column.sparsefeat.vocabulary_size, (rows, column.maxlen)) * valid
            x[column.name] = _raw(column.sparsefeat, ids)
            last.setdefault(column.sparsefeat.embedding_name, ids[:, 0])
            if column.length_name is not None:
                x[column.length_name] = length.astype("int32")
            if column.weight_name is not None:
                weights = rng.uniform(0.5, 2, (rows, column.maxlen, 1)) * valid[..., np.newaxis]
                x[column.weight_name] = weights.astype("float32")
    if items and isinstance(items[0], SparseColumn) and items[0].embedding_name in last:
        following = last[items[0].embedding_name] % (items[0].vocabulary_size - 1) + 1
        x[items[0].name] = _raw(items[0], following)
    return x


def _raw(column: SparseColumn, ids: np.ndarray) -> np.ndarray:
    """Ids as the column's inputs have them; padding stays 0."""
    if column.vocabulary_path:
        lines = Path(column.vocabulary_path).read_text(encoding="utf-8").splitlines()
        keys = [line.split(",", 1)[1] for line in lines if "," in line]
        text = np.array(["0", *keys], object)[np.where(ids == 0, 0, (ids - 1) % len(keys) + 1)]
        return text if column.dtype == "string" else text.astype(column.dtype)
    if column.dtype == "string":
        return np.array(["0", *(f"id-{k}" for k in range(1, column.vocabulary_size))], object)[ids]
    return ids.astype(column.dtype)


def item_features(items: Sequence[Column]) -> dict[str, np.ndarray]:
    """Features of all items, as a builder's ``item_features`` takes them: name -> array (V, ...)."""
    item = items[0]
    assert isinstance(item, SparseColumn)
    return planted([], items[1:], item.vocabulary_size, 7)


def _every_item(trial: Trial) -> dict[str, np.ndarray]:
    """The item side's inputs, of all items: ids, and the features that the models were built with."""
    ids = {trial.item.name: np.arange(trial.item.vocabulary_size).astype(trial.item.dtype)}
    given = trial.arguments.get("item_features")
    return {**ids, **(given if isinstance(given, Mapping) else item_features(trial.item_columns))}


def _tensors(inputs: Sequence[Any], x: Mapping[str, Any], rows: int) -> list[tf.Tensor]:
    """The first rows of ``x`` in the shapes and types of Keras inputs."""
    tensors = []
    for tensor in inputs:
        values = tf.convert_to_tensor(x[input_name(tensor)][:rows])
        shaped = tf.reshape(values, [rows, *tensor.shape[1:]])
        dtype = tf.as_dtype(tensor.dtype)
        tensors.append(shaped if dtype == tf.string else tf.cast(shaped, dtype))
    return tensors


def _where(condition: np.ndarray, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Rows of ``some`` where the condition holds, else of ``others``."""
    return np.where(condition.reshape(-1, *[1] * (others.ndim - 1)), some, others)


# Arguments.


def every_sampler(vocabulary_size: int) -> dict[str, Sampler]:
    """Name -> a sampler of each kind, for a small vocabulary."""
    counts = np.arange(vocabulary_size)
    return {
        "uniform": UniformSampler(9),
        "log_uniform": LogUniformSampler(9),
        "frequency": FrequencySampler(9, counts),
        "adaptive": AdaptiveSampler(9),
        "inbatch": InBatchSampler(),
        "queue": QueueSampler(9, memory=50),
        "mixed": MixedSampler([InBatchSampler(), UniformSampler(9)]),
        "hard": HardNegatives(UniformSampler(9), 3),
        "full": FullSampler(),
    }


# A second value of the arguments that many models have. Another model's numbers and flags are changed by their type.
_OTHER_VALUES: dict[str, Any] = {
    "user_dnn_hidden_units": (12, DIM),
    "item_dnn_hidden_units": (12, DIM),
    "dnn_activation": "tanh",
    "output_activation": "tanh",
    "loss": "bpr",
    "sampler_config": UniformSampler(7),
    "num_sampled": 11,
}

# What can't be a value of theirs, besides what is of another type.
_ODD_VALUES: dict[str, list[Any]] = {
    "user_dnn_hidden_units": [64, "64", [0], [2.5], ["a"]],
    "item_dnn_hidden_units": [64, "64", [0], [2.5], ["a"]],
    "l2_reg_dnn": [-1.0],
    "l2_reg_embedding": [-1.0],
    "dnn_dropout": [-0.1, 1.0],
    "history_dropout": [-0.1, 1.0],
    "item_id_dropout": [-0.1, 1.0],
    "temperature": [0.0, -1.0, float("inf")],
    "gbce_t": [-0.1, 1.1],
    "seed": [-1],
    "num_sampled": [0, -1, 2.5, "ten"],
    "sampler_config": ["strange", 3],
    "exclude_features": ["text", ["no column"]],
}


class _Nothing:
    """An object that no argument takes."""

    def __repr__(self) -> str:
        return "an object"


def _other_value(name: str, parameter: inspect.Parameter, left_out: SparseColumn) -> Any:
    """A value that is not the argument's default; None if there is no telling one."""
    if name == "exclude_features":
        return (left_out.name,)
    default = parameter.default
    if name in _OTHER_VALUES:
        return None if _OTHER_VALUES[name] == default else _OTHER_VALUES[name]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2 or 0.125
    return None


def _odd_values(name: str, parameter: inspect.Parameter) -> list[Any]:
    default, nothing = parameter.default, _Nothing()
    if default is parameter.empty:  # columns
        return [None, "text", [nothing], 3]
    odd = [nothing, *_ODD_VALUES.get(name, [])]
    if isinstance(default, bool):
        return [*odd, "yes", None, 2.5]
    if isinstance(default, int):
        return [*odd, "three", 2.5, float("nan"), None]
    if isinstance(default, float):
        return [*odd, "half", float("nan"), None]
    if isinstance(default, str):
        return [*odd, "no such name", 3]
    return odd


def _call(trial: Trial, name: str, value: Any) -> dict[str, Any]:
    """The trial's arguments, columns among them, with another value of one, and without what does not go with it."""
    columns = dict(zip(trial.column_parameters, (trial.user_columns, trial.item_columns), strict=True))
    arguments = {**columns, **trial.arguments, name: value}
    for other in {"num_sampled": ["sampler_config"], "sampler_config": ["num_sampled"]}.get(name, []):
        arguments.pop(other, None)
    if len(trial.item_columns) > 1 and "item_features" in trial.parameters:
        arguments.setdefault("item_features", item_features(trial.item_columns))
    return arguments


def _names(error: BaseException, name: str) -> bool:
    """Whether an error's text has the argument's name."""
    return re.search(rf"\b{re.escape(name)}\b", str(error)) is not None


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda each: each.item()))


def _name_in(config: Mapping[str, Any]) -> str:
    return str(config["sparsefeat"]["name"] if "sparsefeat" in config else config["name"])


# Vectors and weights.


def scores_of(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Inner products (B, V) of user vectors (B, D) with item vectors (V, D), of (B, K, D) the best; padding -inf."""
    scores = users @ items.T
    scores = scores.max(axis=1) if scores.ndim == 3 else scores
    scores[:, 0] = -np.inf
    return scores


def best(scores: np.ndarray, n: int) -> np.ndarray:
    """The ids (B, n) of the highest scores (B, V), the best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :n]


def _expect_equal(came: Any, expected: Any, what: str, tolerance: float = TOLERANCE) -> None:
    """Equal but for a ``tolerance`` that is relative to the largest of the expected."""
    came, expected = np.asarray(came), np.asarray(expected)
    _expect(came.shape == expected.shape, f"{what}, of shape {expected.shape}", f"shape {came.shape}")
    _expect(np.isfinite(came).all(), what, "NaN or infinity")
    if came.size:
        difference = float(np.abs(came.astype(np.float64) - expected).max())
        _expect(
            difference <= tolerance * max(1.0, float(np.abs(expected).max())), what, f"a difference of {difference:.2g}"
        )


def _expect_equal_weights(
    model: RetrievalModel, expected: Sequence[np.ndarray], what: str, came: Sequence[np.ndarray] | None = None
) -> None:
    for weight, one, other in zip(model.weights, came or model.get_weights(), expected, strict=True):
        _expect_equal(one, other, f"{what}, {getattr(weight, 'path', weight.name)!r} too")


def _expect_best(ids: np.ndarray, came: np.ndarray, scores: np.ndarray, who: str) -> None:
    """Each user's best items, each once; of scores that are equal but for rounding, either may come."""
    n, ids = ids.shape[1], np.asarray(ids, np.int64)
    expected = np.take_along_axis(scores, best(scores, n), axis=1)
    _expect(all(len(set(row)) == n for row in ids.tolist()), f"{who} must find each item once", "an item twice")
    _expect_equal(came, expected, f"{who} must give the scores of the best items")
    _expect_equal(np.take_along_axis(scores, ids, axis=1), expected, f"{who} must find the best items")


def _state(model: RetrievalModel) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights of a compiled model, and of its optimizer."""
    model.optimizer.build(model.trainable_variables)
    return model.get_weights(), [np.array(variable) for variable in model.optimizer.variables]


def _put_back(model: RetrievalModel, state: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    """Makes a model what it was: to train it again, rather than another, saves tracing."""
    model.set_weights(state[0])
    for variable, value in zip(model.optimizer.variables, state[1], strict=True):
        variable.assign(value)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 500 else text[:500] + ' ...'}"


# The training step's graph.

_OF_ROWS = ("ResourceGather", "ResourceScatter", "ResourceSparseApply", "VariableShape")


def _other_readers(
    nodes: Iterable[Any], handles: Mapping[str, str], functions: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The operations that do more with a table than look rows up or write them, and the table's name.

    Args:
        nodes: Of a graph or a function in it.
        handles: name of the node that is a table's handle there -> the table's name.
        functions: name -> definition of the functions that the nodes may call.
    """
    handles = dict(handles)
    for node in nodes:
        for place, given in enumerate(name for name in node.input if not name.startswith("^")):
            table = handles.get(given.split(":")[0])
            if table is None:
                continue
            called = [attr.func.name for attr in node.attr.values() if attr.HasField("func")]
            called += [func.name for attr in node.attr.values() for func in attr.list.func]
            if node.op == "Identity":
                handles[node.name] = table
            elif called:
                first = 1 if node.op in ("If", "StatelessIf", "Case", "StatelessCase") else 0  # which one to take
                for name in called:
                    inside = functions[name]
                    argument = inside.signature.input_arg[place - first].name
                    yield from _other_readers(inside.node_def, {argument: table}, functions)
            elif not node.op.startswith(_OF_ROWS):
                yield f"{node.op} {node.name!r}", table


# The fresh process.

# TensorFlow alone at first, for the export; then this package and the module that the builder is in.
_SCRIPT = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[2])
import numpy as np
import tensorflow as tf
os.chdir(sys.argv[1])
try:
    served = tf.saved_model.load("export/1")
    with np.load("export.npz", allow_pickle=False) as arrays:
        user = {name: tf.constant(arrays[name]) for name in arrays}
    found = served.signatures["recommend"](**user, n=tf.constant(5))
    found.update(served.signatures["user_vector"](**user))
    assert "deepmatch_ext" not in sys.modules
    np.savez("export_came.npz", **{name: values.numpy() for name, values in found.items()})
except Exception as error:
    with open("export_came.txt", "w") as file:
        file.write(f"{type(error).__name__}: {error}")
from deepmatch_ext.testing import _in_fresh_process
_in_fresh_process()
"""


def _read_again(trial: Trial) -> dict[str, Any]:
    """Writes the trained model's files, reads them in a fresh process, and gives what came, by the way of reading."""
    model = trial.trained
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            export_recommender(model, folder / "export")
            _write_inputs(folder / "export.npz", _export_inputs(trial, folder / "export" / "1"))
            not_exported = ""
        except Exception as error:
            not_exported = _one_line(error)
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        (folder / "config.json").write_text(json.dumps(_as_json(model.get_config())))
        (folder / "half.keras").write_bytes(trial.learnt.two_epochs[1])
        _write_inputs(folder / "users.npz", trial.users)
        _write_inputs(folder / "x.npz", trial.x)
        module = inspect.unwrap(trial.builder).__module__
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        if module == "__main__" and main is not None:
            module = os.path.abspath(main)
        (folder / "module.txt").write_text(module)
        paths = json.dumps([os.path.abspath(path) for path in sys.path])
        done = subprocess.run([sys.executable, "-c", _SCRIPT, name, paths], capture_output=True, text=True, check=False)
        came: dict[str, Any] = {}
        for way in ("file", "weights", "resumed", "export"):
            if (folder / f"{way}_came.npz").exists():
                with np.load(folder / f"{way}_came.npz") as arrays:
                    came[way] = dict(arrays)
            elif (folder / f"{way}_came.txt").exists():
                came[way] = " ".join((folder / f"{way}_came.txt").read_text().split())[:500]
            else:
                came[way] = f"the process ended: {done.stderr.strip()[-500:]}"
        if not_exported:
            came["export"] = not_exported
        return came


def _export_inputs(trial: Trial, export: Path) -> dict[str, np.ndarray]:
    """The users under the names, and in the shapes and types, of the export's signatures."""
    inputs = json.loads((export / "manifest.json").read_text())["inputs"]
    tensors = _tensors(trial.trained.user_input, trial.users, len(trial.learnt.user_vectors))
    by_name = dict(zip(map(input_name, trial.trained.user_input), tensors, strict=True))
    return {argument: by_name[about["name"]].numpy() for argument, about in inputs.items()}


def _write_inputs(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Text as NumPy's own strings, since no pickle is to be read."""
    np.savez(path, **{name: _own_strings(values) for name, values in arrays.items()})  # type: ignore[arg-type]


def _own_strings(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "O":
        return values
    text = [each.decode() if isinstance(each, bytes) else each for each in values.ravel()]
    return np.array(text, str).reshape(values.shape)


def _in_fresh_process() -> None:
    """Reads the files in the working folder: a whole model, weights alone, and a run that goes on."""
    import importlib
    import runpy

    module = Path("module.txt").read_text()
    if os.path.isabs(module):
        runpy.run_path(module, run_name="__mp_main__")  # as multiprocessing does it
    else:
        importlib.import_module(module)
    with np.load("users.npz") as arrays:
        users = dict(arrays)
    with np.load("x.npz") as arrays:
        x = dict(arrays)

    def vectors(model: Any) -> dict[str, np.ndarray]:
        return {"user": model.user_vectors(users), "item": model.item_vectors()}

    def whole() -> dict[str, np.ndarray]:
        return vectors(keras.models.load_model("model.keras"))

    def rebuilt() -> dict[str, np.ndarray]:
        model = RetrievalModel.from_config(json.loads(Path("config.json").read_text()))
        model.load_weights("model.weights.h5")
        return vectors(model)

    def resumed() -> dict[str, np.ndarray]:
        model = keras.models.load_model("half.keras")
        model.fit(x, batch_size=BATCH, epochs=1, verbose=0)
        return {f"{k}": weight for k, weight in enumerate(model.get_weights())}

    for way, read in {"file": whole, "weights": rebuilt, "resumed": resumed}.items():
        try:
            np.savez(f"{way}_came.npz", **read())  # type: ignore[arg-type]
        except Exception as error:
            Path(f"{way}_came.txt").write_text(_one_line(error))


def _of_fresh_process(trial: Trial, way: str) -> dict[str, np.ndarray]:
    came = trial.read_again[way]
    _expect(isinstance(came, dict), "a fresh process must read what was written", came)
    return came


def _expect_same_vectors(trial: Trial, way: str, what: str) -> None:
    came = _of_fresh_process(trial, way)
    _expect_equal(came["user"], trial.learnt.user_vectors, f"{what} must give equal user vectors")
    _expect_equal(came["item"], trial.learnt.item_vectors, f"{what} must give equal item vectors")
