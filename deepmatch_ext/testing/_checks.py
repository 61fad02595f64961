"""The checks. Each is a promise of its own, in its docstring's words; one that fails says what came."""

from __future__ import annotations

import functools
import inspect
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import shown
from deepmatch_ext._keras import global_policy_name, input_name, is_table, keras, raw_variable, set_global_policy
from deepmatch_ext.features import (
    Column,
    SequenceColumn,
    SparseColumn,
    column_config,
    input_names,
)
from deepmatch_ext.losses import LOSSES
from deepmatch_ext.models._input_rules import is_item
from deepmatch_ext.models._record import BUILDERS, to_plain
from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.retrieval.exact_index import ExactIndex
from deepmatch_ext.testing._arguments import call_with, every_sampler, is_named, odd_values, other_value
from deepmatch_ext.testing._data import BATCH, DIM, ROWS, VOCABULARY, as_tensors, labels_for, of_size, planted, sparse
from deepmatch_ext.testing._expect import Broken, as_json, expect, expect_best, expect_equal, one_line, scores_of
from deepmatch_ext.testing._trial import TOP, Trial
from deepmatch_ext.testing._whole_tables import PRIMES, other_readers

# Name -> check. A check takes a `Trial`, and raises AssertionError if the builder's models break its promise.
CHECKS: dict[str, Callable[[Trial], None]] = {}


def _check(function: Callable[[Trial], None]) -> Callable[[Trial], None]:
    """Enters a check, whose failure is to say the builder, the check, what was expected and what came."""
    name = function.__name__.strip("_")

    @functools.wraps(function)
    def check(trial: Trial) -> None:
        failing = f"{trial.name} fails the check {name!r}: "
        try:
            function(trial)
        except Broken as broken:
            raise AssertionError(f"{failing}{broken}") from None
        except Exception as error:
            raise AssertionError(f"{failing}no error was expected; got {one_line(error)}") from error

    CHECKS[name] = check
    return check


@_check
def _attributes(trial: Trial) -> None:
    """Models are `RetrievalModel`s with ``user_input``, ``user_emb``, ``item_input``, ``item_emb``, a loss a row."""
    model = trial.model()
    expect(isinstance(model, RetrievalModel), "the builder must return a RetrievalModel", type(model).__name__)
    users, items = [input_name(t) for t in model.user_input], [input_name(t) for t in model.item_input]
    wanted = input_names(trial.user_columns)
    expect(set(users) == set(wanted), f"`user_input` must be the inputs of the user columns, {wanted}", f"{users}")
    wanted = input_names(trial.item_columns)
    expect(items == wanted, f"`item_input` must be the inputs of the item columns, {wanted}", f"{items}")
    user_shape, item_shape = tuple(model.user_emb.shape), tuple(model.item_emb.shape)
    expect(
        len(user_shape) in (2, 3) and None not in user_shape[1:],
        "`user_emb` must have shape (B, D) or (B, K, D)",
        user_shape,
    )
    expect(item_shape == (None, user_shape[-1]), f"`item_emb` must have shape (B, {user_shape[-1]})", item_shape)
    users_of = keras.Model(inputs=model.user_input, outputs=model.user_emb)
    items_of = keras.Model(inputs=model.item_input, outputs=model.item_emb)
    x = as_tensors(model.user_input, trial.users, 4)
    encoded = users_of(x)
    expect(tuple(encoded.shape) == (4, *user_shape[1:]), "the user encoder must give a row a user", f"{encoded.shape}")
    some = {name: values[1:5] for name, values in trial.every_item().items()}
    encoded = items_of(as_tensors(model.item_input, some, 4))
    expect(tuple(encoded.shape) == (4, item_shape[1]), "the item encoder must give a row an item", f"{encoded.shape}")
    losses = model(as_tensors(model.inputs, trial.x, 4))
    expect(tuple(losses.shape) == (4, 1), "the model's output must be a loss for each row, (B, 1)", f"{losses.shape}")
    expect(np.isfinite(losses).all(), "the losses must be finite", f"{np.ravel(losses)}")


@_check
def _recorded(trial: Trial) -> None:
    """The model's config has every argument of the builder's signature, as it was given; a rebuilt model's is equal."""
    left_out = SparseColumn("left_out", VOCABULARY, DIM, embedding_name="left_out")
    others = {name: other_value(name, parameter, left_out) for name, parameter in trial.parameters.items()}
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
            named = next((name for name in together if is_named(error, name)), None)
            if named is None:
                raise
            alone[named] = together.pop(named)
    for name, value in alone.items():
        try:
            check({name: value})
        except ValueError as error:
            if not is_named(error, name):
                raise  # else it is not a value that the argument takes


def _check_record(trial: Trial, model: RetrievalModel, user: Sequence[Column], given: Mapping[str, Any]) -> None:
    config = model.get_config()
    made_by = BUILDERS.get(config.get("builder", ""))
    expect(
        made_by is not None and inspect.unwrap(made_by) is inspect.unwrap(trial.builder),
        "the config's `builder` must be the registered name of the builder",
        repr(config.get("builder")),
    )
    recorded, expected = config["arguments"], list(trial.parameters)
    missing, unknown = sorted(set(expected) - set(recorded)), sorted(set(recorded) - set(expected))
    expect(
        not missing, "every argument of the signature must be recorded, or it reloads as its default", f"no {missing}"
    )
    expect(not unknown, "the recorded arguments must be arguments of the signature", f"also {unknown}")
    excluded = given.get("exclude_features", ())
    given = {**trial.arguments, **given}
    for name, parameter in trial.parameters.items():
        if name in trial.column_parameters or name in ("item_features", "exclude_features"):
            continue
        value = given.get(name, parameter.default)
        if value is None or value is parameter.empty:
            continue  # the record may say what None stood for
        plain = as_json(to_plain(name, value))
        what = f"`{name}` must be recorded as it was given, {shown(plain)}"
        expect(as_json(recorded[name]) == plain, what, shown(recorded[name]))
    for name, columns in zip(trial.column_parameters, (user, trial.item_columns), strict=True):
        came = as_json(recorded[name])
        read = [as_json(column_config(column)) for column in columns]
        without = [column for column in read if _name_in(column) not in excluded]
        was_excluded = came == without and not recorded.get("exclude_features")
        expect(
            came == read or (excluded and was_excluded),
            f"`{name}` must be recorded as it was given",
            f"the columns {[_name_in(column) for column in came]}",
        )
    again = type(model).from_config(json.loads(json.dumps(config))).get_config()
    expect(as_json(again) == as_json(config), "a model rebuilt from its config must have the same config", "another")


@_check
def _bad_arguments(trial: Trial) -> None:
    """What can't be an argument's value is refused with a ValueError that names the argument."""
    for name, parameter in trial.parameters.items():
        for value in odd_values(name, parameter):
            what = f"{name}={shown(value)} must be refused with a ValueError that names `{name}`"
            try:
                trial.builder(**call_with(trial, name, value))
            except ValueError as error:
                expect(is_named(error, name), what, one_line(error))
            except Exception as error:
                raise Broken(f"{what}; got {one_line(error)}") from error
            else:
                raise Broken(f"{what}; got a model")


@_check
def _columns(trial: Trial) -> None:
    """Columns of every kind are taken and trained, and each input of the user's and the item's moves the vectors."""
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
        if name in lengths:  # what reads the last item alone has no use for it
            continue
        after = np.asarray(encoder(as_tensors(inputs, {**x, name: other[name]}, BATCH)))
        moved = not np.allclose(after, before, atol=1e-7, rtol=0)
        expect(moved, f"`{what}` must depend on input {name!r}", "the same for other values of it")


@_check
def _whole_tables(trial: Trial) -> None:
    """No training step reads or writes a whole table: not in its graph, not in its gradients."""
    sides = trial.kinds()[0]
    names = dict.fromkeys(column.embedding_name for side in sides for column in sparse(side))
    sizes = dict(zip(names, PRIMES, strict=False))
    user, items = ([of_size(column, sizes) for column in side] for side in sides)
    model = trial.model(user, items)
    model.compile(LazyAdam(0.01))
    model.optimizer.build(model.trainable_variables)
    x = trial.data(13, 5, user, items)
    batch = dict(zip(map(input_name, model.inputs), as_tensors(model.inputs, x, 13), strict=True))

    tables = {}
    for variable in [*model.weights, *model.optimizer.variables]:
        raw = raw_variable(variable)
        if raw.shape.rank and raw.shape[0] in sizes.values():
            tables[id(raw.handle)] = getattr(variable, "path", variable.name)
    expect(tables, "an embedding table must have a row for each id", "no such variable")

    with tf.GradientTape() as tape:
        losses = model([batch[input_name(tensor)] for tensor in model.inputs], training=True)
        loss = tf.add_n([tf.reduce_mean(losses), *(tf.cast(each, tf.float32) for each in model.losses)])
    variables = [raw_variable(variable) for variable in model.trainable_variables]
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        if id(variable.handle) in tables and gradient is not None:
            rule = f"the gradient of {tables[id(variable.handle)]!r} must be tf.IndexedSlices, of the rows read"
            expect(isinstance(gradient, tf.IndexedSlices), rule, f"a tensor of shape {tuple(gradient.shape)}")

    graph = tf.function(model.train_step).get_concrete_function((batch, tf.zeros([13, 1]))).graph
    handles = {inside.op.name: tables[id(outside)] for outside, inside in graph.captures if id(outside) in tables}
    definition = graph.as_graph_def(add_shapes=True)
    functions = {function.signature.name: function for function in definition.library.function}
    for operation, table in other_readers(definition.node, handles, functions):
        rule = f"a training step must look rows of {table!r} up, gather and scatter them, and do nothing else with it"
        raise Broken(f"{rule}; got the operation {operation}")
    for node in [*definition.node, *(node for function in functions.values() for node in function.node_def)]:
        for shape in node.attr["_output_shapes"].list.shape:
            dims = [dim.size for dim in shape.dim]
            if set(dims) & set(sizes.values()):
                rule = "no tensor of a training step may have a row for each id of a vocabulary"
                raise Broken(f"{rule}; got shape {dims} from the operation {node.op} {node.name!r}")


@_check
def _vectors(trial: Trial) -> None:
    """``keras.Model(user_input, user_emb).predict`` is `user_vectors`, at every batch size and at every call.

    A surplus interest is another of the user's again, and not zeros.
    """
    model = trial.trained
    expected = trial.learnt.user_vectors
    rows = len(expected)
    expect(np.isfinite(expected).all(), "user vectors must be finite", "NaN or infinity")
    if expected.ndim == 3:
        zeros = np.all(expected == 0, axis=2)
        mixed = np.count_nonzero(zeros.any(axis=1) & ~zeros.all(axis=1))
        rule = "a surplus interest must be another of the user's again, since the scores of zeros beat negative ones"
        expect(not mixed, rule, f"zeros for {mixed} users")
    encoder = keras.Model(inputs=model.user_input, outputs=model.user_emb)
    some = {name: values[:20] for name, values in trial.users.items()}
    for size in (1, 7, 20):
        what = f"`user_vectors` with batch_size={size} must equal those of another size and an earlier call"
        expect_equal(model.user_vectors(some, batch_size=size), expected[:20], what)
    arrays = dict(zip(map(input_name, model.user_input), as_tensors(model.user_input, trial.users, rows), strict=True))
    for size in (BATCH - 1, rows):
        what = f"tf.keras.Model(user_input, user_emb).predict(x, batch_size={size}) must equal `user_vectors`"
        expect_equal(encoder.predict(arrays, batch_size=size, verbose=0), expected, what)
    items = trial.every_item()
    encoder = keras.Model(inputs=model.item_input, outputs=model.item_emb)
    encoded = np.asarray(encoder(as_tensors(model.item_input, items, trial.item.vocabulary_size)))
    what = "tf.keras.Model(item_input, item_emb) must equal `item_vectors`"
    expect_equal(encoded[1:], trial.learnt.item_vectors[1:], what)
    expect(not trial.learnt.item_vectors[0].any(), "row 0 of `item_vectors`, padding, must be zeros", "others")


@_check
def _learns(trial: Trial) -> None:
    """That the next item follows from the last one is learnt; it is not found after training on shuffled targets."""
    learnt, chance = trial.learnt, TOP / (trial.item.vocabulary_size - 1)
    least = max(0.5, 3 * chance)
    what = f"where the next item follows from the last one, the hit rate at {TOP} must be at least {least:.2f}"
    expect(learnt.hits >= least, f"{what} after {learnt.epochs} epochs", f"{learnt.hits:.2f}")
    shuffled = dict(trial.x)
    shuffled[trial.item.name] = np.random.default_rng(6).permutation(shuffled[trial.item.name])
    with learnt.from_the_start() as model:
        model.fit(shuffled, labels_for(model, ROWS), BATCH, epochs=learnt.epochs, verbose=0)
        found = learnt.hit_rate()
    # Each of the items is either found or not; four standard deviations.
    most = chance + 4 * (chance * (1 - chance) / (trial.item.vocabulary_size - 1)) ** 0.5
    what = f"after training on shuffled targets the hit rate at {TOP} must be at most {most:.2f}"
    expect(found <= most, what, f"{found:.2f}")


@_check
def _padding(trial: Trial) -> None:
    """Padding changes no vector: not what its row of a table holds, not where it stands; no history at all is taken."""
    model, users = trial.trained, trial.users
    empty, gaps = dict(users), dict(users)
    for column in trial.user_columns:
        if isinstance(column, SequenceColumn):
            histories = [name for name in (column.name, column.weight_name) if name is not None]
            empty |= {name: _zeros(users[name]) for name in histories}
            gaps |= {name: _with_gap(users[name], users[column.name]) for name in histories}
            if column.length_name is not None:
                empty[column.length_name] = _zeros(users[column.length_name])
    expect(np.isfinite(model.user_vectors(empty)).all(), "users without a history must have finite vectors", "NaN")
    what = "an id 0 within a history must change no user vector"
    expect_equal(model.user_vectors(gaps), trial.learnt.user_vectors, what)

    of_histories = {_shape(column.sparsefeat) for column in trial.user_columns if isinstance(column, SequenceColumn)}
    # Row 0 may be a bucket like any other there.
    hashed = {_shape(column) for column in trial.user_columns if isinstance(column, SparseColumn) and column.use_hash}
    weights = model.get_weights()
    other = [
        np.concatenate([weight[:1] + 1, weight[1:]])
        if is_table(variable) and weight.shape in of_histories - hashed
        else weight
        for variable, weight in zip(model.weights, weights, strict=True)
    ]
    model.set_weights(other)
    try:
        what = "what a table holds for id 0 must change no user vector"
        expect_equal(model.user_vectors(users), trial.learnt.user_vectors, what)
    finally:
        model.set_weights(weights)


def _with_gap(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Values of each position with a 0 behind the first one, in histories that have room for it."""
    moved = np.concatenate([values[:, :1], _zeros(values[:, :1]), values[:, 1:-1]], axis=1)
    return _where(~is_item(ids)[:, -1], moved, values)


def _zeros(values: np.ndarray) -> np.ndarray:
    return np.full_like(values, "0" if values.dtype.kind == "O" else 0)


def _shape(column: SparseColumn) -> tuple[int, int]:
    return column.vocabulary_size, column.embedding_dim


@_check
def _mixed_precision(trial: Trial) -> None:
    """With 16 bits the vectors are finite and near those of float32, and embedding tables stay float32."""
    for name in ("mixed_bfloat16", "mixed_float16"):
        _check_policy(trial, name)


def _check_policy(trial: Trial, of_check: str) -> None:
    policy = global_policy_name()
    set_global_policy(of_check)
    try:
        model = trial.model()
    finally:
        set_global_policy(policy)
    model.set_weights(trial.trained.get_weights())
    for weight in model.weights:
        if is_table(weight) or tuple(weight.shape)[:1] == (trial.item.vocabulary_size,):
            dtype = tf.as_dtype(raw_variable(weight).dtype)
            name = getattr(weight, "path", weight.name)
            expect(not dtype.is_floating or dtype == tf.float32, f"the table {name!r} must stay float32", dtype.name)
    for what, came, expected in (
        ("user", model.user_vectors(trial.users), trial.learnt.user_vectors),
        ("item", model.item_vectors(), trial.learnt.item_vectors),
    ):
        expect_equal(came, expected, f"under {of_check} the {what} vectors must be near those of float32", 0.1)
    losses = np.asarray(model(as_tensors(model.inputs, trial.x, BATCH), training=True))
    expect(np.isfinite(losses).all(), f"under {of_check} the losses must be finite", "NaN or infinity")


@_check
def _repeats(trial: Trial) -> None:
    """Two models of one seed train to equal weights; another seed begins with others."""
    model = trial.model()
    model.compile(LazyAdam(0.02))
    model.optimizer.build(model.trainable_variables)
    first = model.get_weights()
    _expect_equal_weights(model, trial.learnt.first_weights, "two models of one seed must begin with equal weights")
    model.fit(trial.x, labels_for(model, ROWS), BATCH, epochs=2, verbose=0)
    _expect_equal_weights(model, trial.learnt.two_epochs[0], "two models of one seed must train to equal weights")
    if "seed" in trial.parameters:
        seed = trial.arguments.get("seed", trial.parameters["seed"].default)
        other = trial.model(seed=seed + 1).get_weights()
        differ = any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
        expect(differ, f"a model of seed={seed + 1} must begin with other weights than seed={seed}", "the same")


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
    of_x, of_mixed = (np.asarray(model(as_tensors(model.inputs, each, rows)))[:, 0] for each in (x, mixed))
    what = "the loss of a row must not depend on what other rows say of their users"
    expect_equal(of_mixed[~odd], of_x[~odd], what)

    def step(weights: Any) -> list[np.ndarray]:
        model.set_weights(first)
        model.train_on_batch(x, labels_for(model, rows), np.asarray(weights, "float32"))
        return [np.array(weight, np.float64) for weight in model.trainable_weights]

    none, some, rest, every, twice = (step(w) for w in (0.0 * odd, 1.0 * odd, 1.0 * ~odd, odd + 1.0 * ~odd, 2.0 * odd))
    for start, a, b, both, double in zip(none, some, rest, every, twice, strict=True):
        what = "a step's change must be the sum of what its rows change, each times its weight"
        expect_equal(a + b - start, both, f"{what} (weights 1 and 0, 0 and 1, 1 and 1)", 1e-4)
        expect_equal(2 * a - start, double, f"{what} (weights 1 and 0, 2 and 0)", 1e-4)
    changed = any(not np.allclose(a, b, atol=1e-9, rtol=0) for a, b in zip(some, rest, strict=True))
    expect(changed, "rows of weight 1 must train the model, and other rows otherwise", "the same weights")


@_check
def _samplers_and_losses(trial: Trial) -> None:
    """Each sampler and each loss that the builder takes trains to finite numbers."""
    tries: list[tuple[str, dict[str, Any]]] = []
    if "sampler_config" in trial.parameters:
        free = {"num_sampled": None} if "num_sampled" in trial.parameters else {}
        every = every_sampler(trial.item.vocabulary_size).items()
        tries += [(f"the sampler {name!r}", {"sampler_config": each, **free}) for name, each in every]
    for argument in {"loss", "loss_type"}.intersection(trial.parameters):
        tries += [(f"the loss {name!r}", {argument: name}) for name in LOSSES]
    x = {name: values[:BATCH] for name, values in trial.x.items()}
    taken = {"sampler": 0, "loss": 0}
    for what, arguments in tries:
        kind = what.split()[1]
        try:
            model = trial.model(**arguments)
        except ValueError as error:
            if is_named(error, next(iter(arguments))):
                continue  # a model need not take each
            raise
        taken[kind] += 1
        model.compile(LazyAdam(0.01), run_eagerly=True)  # one step is not worth tracing
        losses = [float(np.ravel(model.train_on_batch(x, labels_for(model, BATCH)))[0]) for _ in range(2)]
        expect(np.isfinite(losses).all(), f"{what} must have finite losses", f"{losses}")
        finite = all(np.isfinite(weight).all() for weight in model.get_weights() if weight.dtype.kind == "f")
        expect(finite, f"{what} must train to finite weights", "NaN or infinity")
    for kind in {what.split()[1] for what, _ in tries}:
        expect(taken[kind], f"at least one {kind} must be taken", "none")


@_check
def _index(trial: Trial) -> None:
    """An index of the item vectors, saved and loaded, finds each user's best items."""
    users, items = trial.learnt.user_vectors, trial.learnt.item_vectors
    with tempfile.TemporaryDirectory() as folder:
        ExactIndex(np.arange(1, len(items)), items[1:]).save(folder + "/index")
        ids, scores = ExactIndex.load(folder + "/index").search(users, 5)
    expect_best(ids, scores, scores_of(users, items), "the index")


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
    expect_equal(came["user_vector"], users, "the export's signature user_vector must give `user_vectors`")
    expect_best(came["item_ids"], came["scores"], scores_of(users, items), "the export's signature recommend")


def _where(condition: np.ndarray, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Rows of ``some`` where the condition holds, else of ``others``."""
    return np.where(condition.reshape(-1, *[1] * (others.ndim - 1)), some, others)


def _name_in(config: Mapping[str, Any]) -> str:
    return str(config["sparsefeat"]["name"] if "sparsefeat" in config else config["name"])


def _expect_equal_weights(
    model: RetrievalModel, expected: Sequence[np.ndarray], what: str, came: Sequence[np.ndarray] | None = None
) -> None:
    for weight, one, other in zip(model.weights, came or model.get_weights(), expected, strict=True):
        expect_equal(one, other, f"{what}, {getattr(weight, 'path', weight.name)!r} too")


def _of_fresh_process(trial: Trial, way: str) -> dict[str, np.ndarray]:
    came = trial.read_again[way]
    expect(isinstance(came, dict), "a fresh process must read what was written", came)
    return came


def _expect_same_vectors(trial: Trial, way: str, what: str) -> None:
    came = _of_fresh_process(trial, way)
    expect_equal(came["user"], trial.learnt.user_vectors, f"{what} must give equal user vectors")
    expect_equal(came["item"], trial.learnt.item_vectors, f"{what} must give equal item vectors")
