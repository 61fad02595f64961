"""The only file that tells Keras 2 (Keras 2.x and tf-keras) from Keras 3, and that refuses what neither runs on."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import numpy as np

MIN_PYTHON, MIN_TENSORFLOW = (3, 10), (2, 15)

if sys.version_info < MIN_PYTHON:
    raise ImportError(
        f"deepmatch_ext needs Python 3.10 or newer; this is Python {sys.version.split()[0]}. Make a virtual "
        "environment with a newer one."
    )


def _no_tf_keras() -> ImportError | None:
    """The error to raise where TF_USE_LEGACY_KERAS asks for a package that isn't there."""
    asked = os.environ.get("TF_USE_LEGACY_KERAS") in ("true", "True", "1")  # as TensorFlow reads it
    if not asked or importlib.util.find_spec("tf_keras") is not None:
        return None
    return ImportError(
        "TF_USE_LEGACY_KERAS is set, but tf-keras is not installed. Install it in your TensorFlow's version, "
        "`pip install tf-keras`; or unset the variable before TensorFlow is imported, for the Keras that comes with it."
    )


try:
    import tensorflow as tf

    if tuple(int(part) for part in tf.__version__.split(".")[:2]) < MIN_TENSORFLOW:
        raise ImportError(
            f"deepmatch_ext needs TensorFlow 2.15 or newer; this is TensorFlow {tf.__version__}. Upgrade it: "
            "`pip install --upgrade tensorflow`."
        )

    keras = tf.keras
    KERAS_3: bool = hasattr(keras, "Operation")
    _imported = importlib.import_module("tensorflow.keras")
except (ImportError, AttributeError) as error:  # TensorFlow's own don't say what is missing, nor why
    if (clearer := _no_tf_keras()) is not None:
        raise clearer from error
    raise

if _imported.layers.Layer is not keras.layers.Layer:
    raise ImportError(
        "TensorFlow is in a mixed state: `tf.keras` and `tensorflow.keras` are two different Keras versions. "
        "TF_USE_LEGACY_KERAS was set after TensorFlow had been imported; set it before, for example in the shell."
    )

from deepmatch_ext._checks import problem, shown, warn_caller  # noqa: E402
from deepmatch_ext._distribute import (  # noqa: E402  # they need TensorFlow
    check_step,
    copies_of,
    has_parameter_servers,
    number_of_replicas,
    own_copy,
    shards_of,
)

# Keras 3's `tf.keras` has no `saving`.
_saving = importlib.import_module("keras.saving") if KERAS_3 else keras.saving

# For weights that a mixed-precision policy must leave alone.
_NO_CAST = {"autocast": False} if KERAS_3 else {"experimental_autocast": False}

T = TypeVar("T")

register: Callable[[T], T] = _saving.register_keras_serializable("deepmatch_ext")


def eager_is_on() -> bool:
    """Whether eager mode is on (outside of functions), as it is unless the program has switched it off."""
    return bool(tf.compat.v1.executing_eagerly_outside_functions())


def verbosity(verbose: Any) -> Any:
    """Keras's ``verbose``; "auto" is a line for each epoch if the output is not a terminal: bars fill log files."""
    if not (isinstance(verbose, int | np.integer) and verbose in (0, 1, 2)) and shown(verbose) != "'auto'":
        raise problem("`verbose`", "be 'auto', 0, 1 or 2", shown(verbose))
    is_watched = "ipykernel" in sys.modules or "PYCHARM_HOSTED" in os.environ or getattr(sys.stdout, "isatty", bool)()
    return 2 if verbose == "auto" and not is_watched else verbose


def require_eager(what: str) -> None:
    """Refuses ``what`` where eager mode has been switched off."""
    if not eager_is_on():
        raise RuntimeError(
            f"{what} needs eager mode. Leave out `tf.compat.v1.disable_eager_execution()`; deepmatch_ext, unlike "
            "DeepMatch, does not need it."
        )


def require_eager_on_keras_3(what: str) -> None:
    """Refuses ``what`` on Keras 3 without eager mode, where Keras builds models but can neither fit nor predict."""
    if KERAS_3 and not eager_is_on():
        raise RuntimeError(
            f"{what}: Keras 3 can neither train nor predict after `tf.compat.v1.disable_eager_execution()`. Leave that "
            "line out; deepmatch_ext, unlike DeepMatch, does not need it. Or install tf-keras and set "
            "TF_USE_LEGACY_KERAS=1 before TensorFlow is imported: it works either way."
        )


def warn_of_fixed_phase(what: str) -> None:
    """Warns of models built without eager mode after `K.set_learning_phase`, which fixes whether dropout is on."""
    phase = None if KERAS_3 or eager_is_on() else keras.backend.learning_phase()
    if isinstance(phase, int | np.integer):  # else a placeholder, which `fit` sets and `predict` leaves
        always = "`predict` drops values out, too, and vectors differ from call to call"
        text = (
            f"{what} was built after `K.set_learning_phase({int(phase)})`, which fixes the phase without eager mode: "
            f"{always if phase else '`fit` trains without dropout'}. Leave that line out; `fit` trains and `predict` "
            "does not, by themselves."
        )
        warn_caller(text, UserWarning)


def in_training(training: Any) -> Any:
    """What a layer's ``training`` stands for: True, False, or a boolean tensor.

    None is False. Without eager mode, Keras 2 passes None to every layer, and each has to ask for the learning phase.
    """
    if training is None:
        return False if KERAS_3 or eager_is_on() else keras.backend.learning_phase()
    return training


def check_optimizer(model: Any) -> None:
    """Refuses an optimizer that Keras 2's graph mode can't use, before it fails without saying why."""
    if not KERAS_3 and not eager_is_on() and model.optimizer and not hasattr(model.optimizer, "get_updates"):
        name = type(model.optimizer).__name__
        raise RuntimeError(
            f"tf.keras.optimizers.{name} does not work after `tf.compat.v1.disable_eager_execution()`. Leave that line "
            f"out; or compile with the optimizer's name, or with tf.keras.optimizers.legacy.{name}."
        )


def build_optimizer(model: Any) -> None:
    """Creates the optimizer's variables. If a step creates them while it is traced, TensorFlow traces it twice."""
    optimizer = getattr(model, "optimizer", None)
    if eager_is_on() and isinstance(optimizer, keras.optimizers.Optimizer):  # Keras 2's legacy ones build themselves
        with model.distribute_strategy.scope():
            optimizer.build(model.trainable_variables)


def optimizer_variables(model: Any) -> list[Any]:
    """The variables of a model's optimizer; those that it wraps, too."""
    variables = model.optimizer.variables
    return list(variables() if callable(variables) else variables)


# Packages whose losses and metrics compare predictions with labels.
_COMPARING = ("keras", "keras_rs", "tf_keras", "tensorflow_addons", "tensorflow_ranking")


def check_loss(given: Any) -> None:
    """Refuses Keras's losses: the output is a loss already, and a cross-entropy or an error of it teaches nothing."""
    for loss in _leaves(given):
        made = keras.losses.get(loss) if isinstance(loss, str) else loss
        if _compares(made, "call"):
            raise ValueError(
                f"`loss` must be `sampledsoftmaxloss`, or a function of your own; got {_name_of(made)}. The model's "
                "output is the loss of each example already: compile(optimizer) is enough."
            )


def check_metrics(what: str, given: Any) -> None:
    """Refuses Keras's metrics: they would compare the loss of each example with a meaningless label."""
    for metric in _leaves(given):
        made = metric
        if isinstance(metric, str):
            try:
                made = keras.metrics.get(metric)
            except ValueError:  # a name that only `compile` knows, such as "accuracy"
                made = None
        if not callable(made) or _compares(made, "update_state"):
            got = repr(metric) if isinstance(metric, str) else _name_of(metric)
            raise ValueError(
                f"`{what}` must hold functions of your own alone; got {got}. The model's output is the loss of each "
                "example, which no metric of Keras's is made for. For hit rate, NDCG, MRR and recall take the callback "
                "deepmatch_ext.evaluation.RetrievalMetrics."
            )


def _leaves(given: Any) -> list[Any]:
    """What is given to `compile` alone, in a list, or by the output's name."""
    if isinstance(given, Mapping):
        given = list(given.values())
    if isinstance(given, list | tuple):
        return [leaf for each in given for leaf in _leaves(each)]
    return [] if given is None else [given]


def _compares(made: Any, method: str) -> bool:
    """Whether a loss or metric computes by code of those packages; subclasses and wrappers of one's own code don't."""
    while isinstance(made, functools.partial):
        made = made.func
    if isinstance(made, type) and not _is_of(made, _COMPARING):
        made = made()
    kind = made if isinstance(made, type) else type(made)
    author = next((each for each in kind.__mro__ if method in vars(each)), None)
    if not _is_of(made if author is None else author, _COMPARING):
        return False
    wrapped = getattr(made, "fn", None) or getattr(made, "_fn", None)
    return wrapped is None or _compares(wrapped, method)


def _is_of(made: Any, packages: tuple[str, ...]) -> bool:
    """Whether a class or function comes from one of the packages."""
    return str(getattr(made, "__module__", "")).split(".")[0] in packages


def _name_of(made: Any) -> str:
    wrapped = getattr(made, "fn", None) or getattr(made, "_fn", None) or made
    return str(getattr(wrapped, "__name__", type(made).__name__))


def compile_as_saved(model: Any, config: dict[str, Any]) -> None:
    """Does what Keras's ``compile_from_config`` does, except that Keras skips models with their own ``compile``."""
    model.compile(**_saving.deserialize_keras_object(config))
    build_optimizer(model)


# Characters that an input's name must not contain.
NOT_IN_NAMES = "/" if KERAS_3 else ""


def input_name(tensor: Any) -> str:
    """The name of a Keras input. Without eager mode inputs are placeholders, whose names end in ``:0``."""
    return str(tensor.name if KERAS_3 else tensor._keras_history.layer.name)


def add_table(layer: Any, name: str, shape: tuple[int, ...], dtype: str, initializer: Any, trainable: bool) -> Any:
    """A weight that is looked up by row, never cast as a whole by a mixed-precision policy."""
    weight = layer.add_weight(
        name=name, shape=shape, dtype=dtype, initializer=initializer, trainable=trainable, **_NO_CAST
    )
    for part in (weight, *shards_of(_variable(weight))):
        part.is_embedding_table = True
    return weight


def is_table(variable: Any) -> bool:
    """Whether a variable is an embedding table, made by `add_table`."""
    return bool(getattr(variable, "is_embedding_table", False))


class WholeWeights:
    """A base of layers, before Keras's class: saves and loads weights that not every file format and Keras can hold.

    In files, weights that lie on several parameter servers are whole, and bfloat16 weights are float32.
    """

    def save_own_variables(self, store: Any) -> None:
        weights = _special(self)
        if not weights:
            super().save_own_variables(store)  # type: ignore[misc]
        for place, parts in enumerate(weights):
            values = np.concatenate([part.numpy() for part in parts]) if parts[1:] else parts[0].numpy()
            store[str(place)] = values.astype("float32") if values.dtype == _BFLOAT16 else values

    def load_own_variables(self, store: Any) -> None:
        weights = _special(self)
        if not weights:
            super().load_own_variables(store)  # type: ignore[misc]
        for place, parts in enumerate(weights):
            start, values = 0, store[str(place)]
            for part in parts:
                rows = slice(start, start + part.shape[0]) if parts[1:] else ()
                part.assign(np.asarray(values[rows]).astype(part.dtype.as_numpy_dtype, copy=False))
                start += part.shape[0] if parts[1:] else 0


_BFLOAT16 = tf.bfloat16.as_numpy_dtype


def _special(layer: Any) -> list[Any]:
    """A layer's weights in Keras's order, each as the list of its parts; empty if Keras's own way will do."""
    found: dict[int, list[Any]] = {}
    lists = (
        ("_trainable_variables", "_non_trainable_variables")
        if KERAS_3
        else ("_trainable_weights", "_non_trainable_weights")
    )
    for weight in map(_variable, itertools.chain(*(getattr(layer, name) for name in lists))):
        whole = weight._sharded_container() if hasattr(weight, "_sharded_container") else weight
        found.setdefault(id(whole), []).append(weight)
    weights = list(found.values())
    return weights if any(parts[1:] or parts[0].dtype == tf.bfloat16 for parts in weights) else []


def add_state(layer: Any, name: str, value: Any) -> Any:
    """A non-trainable weight that starts as ``value`` (a NumPy array), kept in its dtype and saved with the model.

    It becomes an attribute of the layer, `_<name>`: ``tf.train.Checkpoint`` does not look into Keras 3's dictionaries.
    """
    weight = layer.add_weight(
        name=name,
        shape=value.shape,
        dtype=str(value.dtype),
        initializer=lambda shape, dtype=None, **_: tf.convert_to_tensor(value),
        trainable=False,
        **_NO_CAST,
    )
    setattr(layer, f"_{name}", weight)
    return weight


def raw_variable(weight: Any) -> tf.Variable:
    """The ``tf.Variable`` behind a weight, so that a look-up reads rows and not the whole; on a replica, its copy."""
    return own_copy(_variable(weight))


def variables_behind(weight: Any) -> Sequence[tf.Variable]:
    """Like `raw_variable`, but for each replica in this process."""
    return copies_of(_variable(weight))


def _variable(weight: Any) -> Any:
    return weight.value if KERAS_3 and not isinstance(weight, tf.Variable) else weight


def check_on_replica(what: str, weight: Any) -> None:
    """Refuses to train outside a strategy's step, where only one replica's copy of the weight would be written."""
    check_step(what, _variable(weight))


def compute_dtype(layer: Any) -> tf.DType:
    """The dtype that the layer's precision policy computes in."""
    return tf.as_dtype(layer.compute_dtype or "float32")


def global_policy_name() -> str:
    """The name of the precision policy that new layers get."""
    return str(keras.mixed_precision.global_policy().name)


def set_global_policy(name: str) -> None:
    """Sets the precision policy that new layers get."""
    keras.mixed_precision.set_global_policy(name)


def serialize(value: Any) -> Any:
    """A layer, initializer or other object, or a function that is registered or Keras's, as plain data."""
    plain = _saving.serialize_keras_object(value)
    if isinstance(plain, dict) and plain.get("class_name") == "function":
        plain["config"] = keras.utils.get_registered_name(value)  # Keras 2.15 leaves the package out
    return plain


def deserialize(plain: Any, part: str | None = None) -> Any:
    """The reverse of `serialize`; ``part`` is Keras's module for objects of the kind, such as "layers"."""
    if not KERAS_3 and isinstance(plain, dict):
        # tf-keras reads .h5 files by older rules, which don't know how functions and registered classes are written.
        if plain["class_name"] == "function":
            return keras.utils.get_registered_object(plain["config"]) or keras.activations.get(plain["config"])
        if (kind := keras.utils.get_registered_object(plain.get("registered_name"))) is not None:
            return kind.from_config(plain["config"])
    return _saving.deserialize_keras_object(plain) if part is None else getattr(keras, part).deserialize(plain)


def compilation_here(config: dict[str, Any]) -> dict[str, Any]:
    """A compilation that any Keras saved, for this one: without entries that only others write and mean nothing."""
    config = {name: value for name, value in config.items() if value is not None}
    if isinstance(config.get("optimizer"), dict):
        settings = config["optimizer"].get("config", {})
        said = {name: value for name, value in settings.items() if value is not None}
        if KERAS_3:
            said = {name: value for name, value in said.items() if name not in ("jit_compile", "is_legacy_optimizer")}
        # Keras 2.15 has its optimizers in a module of their own.
        module = config["optimizer"].get("module")
        module = "keras.optimizers" if module == "keras.optimizers.experimental" else module
        config["optimizer"] = {**config["optimizer"], "config": said, "module": module}
    loss = config.get("loss")
    if isinstance(loss, dict) and loss.get("config") == "sampledsoftmaxloss":  # Keras 2.15 leaves the package out
        config["loss"] = {**loss, "config": "deepmatch_ext>sampledsoftmaxloss"}
    return config


@contextmanager
def compilation_kept(model: Any) -> Iterator[None]:
    """Restores what Keras 3 drops from a model's compilation when it writes an ``.h5`` file.

    Otherwise the optimizer would be gone, and a ``.keras`` file that is written later would reload with another one.
    """
    compilation = getattr(model, "_compile_config", None) if KERAS_3 else None
    config = None if compilation is None else dict(compilation.config)
    try:
        yield
    finally:
        if compilation is not None:
            compilation.config = config


def compiled_with(model: Any, name: str) -> Any:
    """What ``compile`` was given as ``name``; None if the model was not compiled."""
    compilation = getattr(model, "_compile_config", None)
    return None if compilation is None else compilation.config.get(name)


def rename(model: Any, name: str) -> None:
    """Gives a model another name."""
    setattr(model, "name" if KERAS_3 else "_name", name)


def leave_jit_off(model: Any) -> None:
    """Undoes ``compile(jit_compile=True)`` with a warning, as Keras 3 does by itself where a layer can't be compiled.

    A tower's dense layers could be compiled, but they take less than a tenth of a step.
    """
    if not KERAS_3 and getattr(model, "jit_compile", False):  # without eager mode there is none
        warnings.warn(
            f"{model.name}: jit_compile=True is left off, since XLA can't compile look-ups by row. The dense layers "
            "beside them are less than a tenth of a step.",
            stacklevel=3,
        )
        model.jit_compile = False


def check_strategy() -> None:
    """Refuses a `tf.distribute` strategy under which a model would not train, or would train wrongly.

    Raises:
        ValueError: The strategy in whose scope this is called does not work here; the message says which does.
    """
    strategy = tf.distribute.get_strategy()
    remedy = "Take tf.distribute.MirroredStrategy or MultiWorkerMirroredStrategy."
    if KERAS_3 and has_parameter_servers(strategy):
        remedy = f"Keras 3 does not train with parameter servers: install tf-keras, set TF_USE_LEGACY_KERAS=1. {remedy}"
    elif number_of_replicas() == 1 or isinstance(
        strategy, tf.distribute.MirroredStrategy | tf.distribute.MultiWorkerMirroredStrategy
    ):
        return
    got = f"the scope of a {type(strategy).__name__}"
    raise problem("The model", "be built under another strategy", got, remedy)


def check_compilation(model: Any) -> None:
    """Refuses what was given to ``compile`` and does not work on several replicas, or silently works wrongly."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas == 1:
        return
    if isinstance(model.optimizer, keras.mixed_precision.LossScaleOptimizer):
        remedy = "It scales losses, which then overflow: take mixed_bfloat16, or float32."
        raise problem("The precision policy", "not be mixed_float16 on several replicas", "that", remedy)
    steps = _steps_per_execution(model)
    if steps > 1:
        remedy = "What replicas exchange in several steps at once would be mixed up."
        raise problem("`steps_per_execution`", f"be 1 on {replicas} replicas", steps, remedy)


def _steps_per_execution(model: Any) -> int:
    steps = model.steps_per_execution if KERAS_3 else own_copy(model._steps_per_execution)
    return 1 if steps is None else int(steps)


def executes_single_steps(model: Any) -> bool:
    """Whether a compiled model makes one step per execution, and could also make several, however many remain."""
    if not eager_is_on() or model.run_eagerly or tf.config.functions_run_eagerly():
        return False
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync > 1 or has_parameter_servers(strategy):
        return False
    # Older versions of Keras 3 lose the last steps of an epoch if they are fewer than an execution's.
    is_able = hasattr(model, "unrolled_steps_per_execution") if KERAS_3 else not model.autotune_steps_per_execution
    return is_able and _steps_per_execution(model) == 1


def sees_batches(callback: Any) -> bool:
    """Whether a callback does something before or after a batch of training; one that can't be asked may do so."""
    if not KERAS_3:
        return bool(getattr(callback, "_implements_train_batch_hooks", lambda: True)())
    if isinstance(callback, keras.callbacks.ModelCheckpoint | keras.callbacks.BackupAndRestore):
        return bool(callback.save_freq != "epoch")
    hooks = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
    of_keras = [getattr(keras.callbacks.Callback, hook) for hook in hooks]
    return [getattr(getattr(callback, hook, None), "__func__", None) for hook in hooks] != of_keras


# What Keras traces for a number of steps per execution, and keeps.
_FUNCTIONS = ("train_function", "test_function", *(() if KERAS_3 else ("train_tf_function",)))


@contextmanager
def several_steps(model: Any, steps: int, functions: dict[str, Any]) -> Iterator[None]:
    """Within the block, a model that makes single steps makes ``steps`` of them per execution.

    The functions for this stay in ``functions`` for the next time, since it takes a second to trace them.
    """
    if steps == 1:
        yield
        return

    def take(steps: int, functions: Mapping[str, Any]) -> None:
        if KERAS_3:
            model.steps_per_execution = steps
        else:
            model._steps_per_execution.assign(steps)
        for name in _FUNCTIONS:
            setattr(model, name, functions.get(name))

    single = {name: getattr(model, name) for name in _FUNCTIONS}
    take(steps, functions)
    try:
        yield
    finally:
        functions.update({name: getattr(model, name) for name in _FUNCTIONS})
        take(1, single)


def check_one_batch(model: Any, name: str) -> None:
    """Refuses a method of one batch where Keras 3 would pass the whole batch to each of several replicas."""
    replicas = model.distribute_strategy.num_replicas_in_sync
    if KERAS_3 and replicas > 1:
        remedy = "Take `fit` with a dataset, or `strategy.run` in a loop of your own."
        raise problem(f"`{name}`", "be called on one replica, on Keras 3", f"a strategy of {replicas}", remedy)


def batch_normalization(*arguments: Any, **settings: Any) -> Any:
    """Keras's BatchNormalization, over the whole batch even if several replicas have a part of it each."""
    if number_of_replicas() > 1:
        settings["synchronized"] = True
    return keras.layers.BatchNormalization(*arguments, **settings)


def without_a_number(model: Any, figures: Any) -> Any:
    """A step's figures, on several workers as vectors, since Keras 3 averages them along an axis."""
    workers = KERAS_3 and isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return {name: tf.reshape(value, [1]) for name, value in figures.items()} if workers else figures


def build_for_strategy(model: Any) -> None:
    """Does what Keras 3 does before it trains under a strategy, but does not average a first batch over the replicas.

    Keras can't average dictionaries, and that batch would be missing from the dataset's pass.
    """
    if model._distribute_strategy is not None:
        inputs = {input_name(tensor): tf.zeros([1, *tensor.shape[1:]], tensor.dtype) for tensor in model.inputs}
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=(inputs, tf.zeros([1, 1])))


def hidden_from_checkpoints(model: Any, save_type: str) -> dict[str, Any]:
    """The layers' weights by name: ``tf.train.Checkpoint`` does not look into Keras 3's lists and dictionaries."""
    if not KERAS_3 or save_type != "checkpoint":
        return {}
    layers = {layer.name: layer.weights for layer in model.layers}
    return {f"weights of {name}, {k}": weight for name, weights in layers.items() for k, weight in enumerate(weights)}


def graph_of_step(model: Any, data: Any) -> Any:
    """The graph of a model's training step with a batch. Keras 3's ``fit`` does not hand it to AutoGraph."""
    return tf.function(model.train_step, autograph=not KERAS_3).get_concrete_function(data).graph


def slot_index(optimizer: Any, variable: Any) -> int:
    """Where an optimizer keeps its state for ``variable``."""
    if KERAS_3:
        return int(optimizer._get_variable_index(variable))
    return int(optimizer._index_dict[optimizer._var_key(variable)])


def add_float32_state(optimizer: Any, variable: Any, name: str) -> Any:
    """Optimizer state of a variable's shape, zeros, in float32 whatever the variable's type."""
    if KERAS_3:
        return optimizer.add_variable(tuple(variable.shape), "zeros", dtype="float32", name=f"{variable.name}_{name}")
    return keras.optimizers.Optimizer.add_variable_from_reference(optimizer, _as_float32(variable), name)


def _as_float32(variable: Any) -> Any:
    """A variable for Keras 2's optimizers, which make state of its type, or of the type in its ``true_dtype``."""
    if variable.dtype == tf.bfloat16:
        variable.true_dtype = tf.float32
        if _BEFORE_TRUE_DTYPE:
            return _AsFloat32(variable)
    return variable


_BEFORE_TRUE_DTYPE = not KERAS_3 and tf.__version__.startswith("2.15.")


class _AsFloat32:
    dtype = tf.float32

    def __init__(self, variable: Any) -> None:
        self._variable = variable

    def __getattr__(self, name: str) -> Any:
        return getattr(self._variable, name)


def add_row_state(optimizer: Any, variable: Any, value: float) -> Any:
    """Optimizer state of one number for each row of ``variable``, initially ``value``."""
    shape = (int(variable.shape[0]),)
    if KERAS_3:
        initializer = keras.initializers.Constant(value)
        return optimizer.add_variable(shape, initializer, dtype="float32", name=f"{variable.name}_row_state")
    base = keras.optimizers.Optimizer
    return base.add_variable_from_reference(
        optimizer, _as_float32(variable), "row_state", shape=shape, initial_value=tf.fill(shape, value)
    )


def current_learning_rate(optimizer: Any) -> tf.Tensor:
    """The learning rate of the next step, with its schedule applied, float32."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(optimizer.iterations)
    elif callable(rate) and not hasattr(rate, "assign"):
        rate = rate()
    return tf.cast(tf.convert_to_tensor(rate), tf.float32)


class SummedBefore:
    """A base of optimizers to whose Keras class `apply_dense` passes gradients already summed over replicas.

    Keras would sum them again, even a single replica's, by a custom gradient; TensorFlow keeps the graph of any such
    call for ever, and with it the variables.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:  # Keras 3's
        return grads_and_vars


def apply_dense(optimizer_class: Any, optimizer: Any, grads_and_vars: list[tuple[Any, Any]]) -> None:
    """Keras's own step of ``optimizer_class`` for some of the variables; counts one iteration."""
    if not grads_and_vars:
        optimizer.iterations.assign_add(1)
        return
    if KERAS_3:
        optimizer_class.apply(optimizer, *zip(*grads_and_vars, strict=True))
    else:
        optimizer_class.apply_gradients(optimizer, grads_and_vars, skip_gradients_aggregation=True)


def uses_weight_decay(optimizer: Any, variable: Any) -> bool:
    """Whether weight decay is on for ``variable``."""
    return bool(optimizer.weight_decay) and bool(optimizer._use_weight_decay(variable))


def set_first_epoch(model: Any, epoch: int | None) -> None:
    """Lets Keras 3's ``fit`` begin with ``epoch``; None: with what it is told.

    Its BackupAndRestore writes the epoch into a file beside that of the weights, so a process may be killed between the
    two. It also leaves the epoch on the model, where the next call of ``fit`` finds it. tf-keras has both in one
    checkpoint, and leaves the model without an attribute that its next ``fit`` reads, or with that of a stopped run.
    """
    if KERAS_3:  # the epoch in the file can only lag behind the weights
        model._initial_epoch = None if epoch is None else max(epoch, model._initial_epoch or 0)
    elif epoch is None:
        model._training_state = None


def redirect_backup(backup: Any, folder: str) -> dict[str, Any]:
    """Makes Keras 3's BackupAndRestore write into another folder, and returns its former attributes.

    Otherwise every worker would write, and remove, the same files. tf-keras takes care of this itself.
    """
    if not KERAS_3:
        return {}
    paths = {name: path for name, path in vars(backup).items() if name == "backup_dir" or name.endswith("_path")}
    vars(backup).update({name: os.path.join(folder, os.path.basename(path)) for name, path in paths.items()})
    backup.backup_dir = folder
    return paths


def drop_torn_backup(backup: Any) -> None:
    """Removes the epoch's file of Keras 3's BackupAndRestore if a process was killed while writing it."""
    path = getattr(backup, "_training_metadata_path", "")
    if os.path.isfile(path):
        with open(path, "rb") as file:
            text = file.read()
        try:
            json.loads(text)
        except ValueError:
            with suppress(FileNotFoundError):  # another worker was faster
                os.unlink(path)
