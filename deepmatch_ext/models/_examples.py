"""Reads and checks what `fit`, `evaluate`, `predict` and the like are given, and converts it for Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from deepmatch_ext._checks import int_at_least, positive_int, problem, shown, warn_caller
from deepmatch_ext._distribute import check_workers_agree, has_parameter_servers, has_several_workers
from deepmatch_ext._frames import check_unmasked, is_frame
from deepmatch_ext._keras import eager_is_on, input_name, keras, require_eager
from deepmatch_ext._passes import is_not_divided, mapped, without_autotuning
from deepmatch_ext._traced import assertion
from deepmatch_ext.features import Column, SparseColumn, input_names
from deepmatch_ext.models._feeding import batches
from deepmatch_ext.models._input_arrays import dense_batch, dense_spec, input_arrays
from deepmatch_ext.models._input_rules import (
    LARGEST_NUMBER,
    EventTimes,
    check_batch,
    check_batch_labels,
    check_batch_weights,
    check_labels,
    check_model_input,
    check_types,
    check_weights,
    gives_labels,
    largest_number,
)

DEFAULT_BATCH_SIZE = 32  # as in Keras

# Types that can be iterated, but are not sequences of batches.
_NO_BATCHES = (str, bytes, list, tuple, set, range, type, np.ndarray, np.generic, tf.Tensor, tf.RaggedTensor, pd.Series)


def as_batch_size(value: Any) -> int:
    """The argument ``batch_size``, or Keras's default."""
    return positive_int("`batch_size`", DEFAULT_BATCH_SIZE if value is None else value)


# Keras's arguments that are whole numbers, and the least that each may be.
_COUNTS = {"initial_epoch": 0, "steps_per_epoch": 1, "steps": 1, "validation_batch_size": 1, "validation_steps": 1}


def checked_counts(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Further arguments of Keras's `fit`, `evaluate` or `predict`, after a check of those that are whole numbers.

    None stands for Keras's default.
    """
    checked = {name: value for name, value in arguments.items() if name not in _COUNTS or value is not None}
    for name in _COUNTS.keys() & checked.keys():
        checked[name] = int_at_least(f"`{name}`", checked[name], _COUNTS[name])
    freq = checked.get("validation_freq")
    if isinstance(freq, list | tuple | set | range):  # the epochs themselves, counted from 1
        checked["validation_freq"] = [int_at_least("`validation_freq`", epoch, 1) for epoch in freq]
    elif freq is not None:
        checked["validation_freq"] = int_at_least("`validation_freq`", freq, 1)
    return checked


@dataclass(frozen=True)
class Examples:
    """Checked examples, as Keras takes them.

    Args:
        x: name -> array (rows, ...); or a dataset, generator or Sequence of batches.
        y: Labels, (rows, 1).
        weights: Sample weights, or None.
        rows: The number of examples. None if they come in batches.
        steps: The steps of an epoch, if the batches of a function are repeated.
    """

    x: Any
    y: Any = None
    weights: Any = None
    rows: int | None = None
    steps: int | None = None

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.x, self.y) if self.weights is None else (self.x, self.y, self.weights)

    @property
    def are_fed_here(self) -> bool:
        """Whether the examples are arrays that `batches` feeds. Without eager mode, Keras feeds them."""
        return self.rows is not None and eager_is_on()

    def batches(self, batch_size: int, order: Callable[[], np.ndarray] | None = None) -> tf.data.Dataset:
        """All examples in batches, as from the function `batches`."""
        assert self.rows is not None
        return batches(self.parts, self.rows, batch_size, order)

    def split(self, fraction: float) -> tuple[Examples, Examples]:
        """Splits off the last ``fraction`` of the examples, as Keras's ``validation_split`` does."""
        assert self.rows is not None
        kept = int(self.rows * (1 - fraction))
        if not 0 < kept < self.rows:
            raise problem("`validation_split`", "leave a row on both sides", f"{fraction} of {self.rows} rows")
        return self._part(0, kept), self._part(kept, self.rows)

    def _part(self, start: int, stop: int) -> Examples:
        x, y, *weights = tf.nest.map_structure(lambda values: values[start:stop], self.parts)
        return Examples(x, y, weights[0] if weights else None, stop - start)

    def for_keras(self, batch_size: Any) -> dict[str, Any]:
        """Arguments of Keras's ``evaluate`` and ``predict``."""
        size = as_batch_size(batch_size)
        if self.are_fed_here:
            return {"x": self.batches(size)}
        if self.steps is not None:
            return {"x": self.x, "steps": self.steps}
        return {"x": self.x, "y": self.y, "sample_weight": self.weights, "batch_size": batch_size}


@dataclass(frozen=True)
class ArrayReader:
    """Reads arrays, with NumPy only: TensorFlow can't be used in a forked process.

    Args:
        columns: All columns of the input.
        inputs: name -> (shape of one row, NumPy type), as the model takes them.
        target: The item's name, if it is among the inputs.
        has_labels: Whether examples have labels: 1 if the user chose the item, else 0.
        times: What is known of the events' times.
        largest: The largest size of numbers that layers compute with.
    """

    columns: Sequence[Column]
    inputs: Mapping[str, tuple[tuple[int, ...], Any]]
    target: str | None = None
    has_labels: bool = False
    times: EventTimes | None = None
    largest: float = LARGEST_NUMBER

    @classmethod
    def of(
        cls,
        columns: Sequence[Column],
        tensors: Iterable[Any],
        target: str | None = None,
        has_labels: bool = False,
        times: EventTimes | None = None,
        policy: str = "float32",
    ) -> ArrayReader:
        """A reader for Keras's input tensors, of a model that was built under a precision policy."""
        inputs = {
            input_name(tensor): (tuple(tensor.shape[1:]), tf.as_dtype(tensor.dtype).as_numpy_dtype)
            for tensor in tensors
        }
        return cls(columns, inputs, target, has_labels, times, largest_number(policy))

    def arrays(self, x: Any) -> tuple[dict[str, np.ndarray], int]:
        """Every input by name, checked, and the number of rows.

        The arrays always have the model's ranks and types; otherwise Keras would trace its functions again.
        """
        given = input_arrays(self.columns, x, self.times)
        targets = [] if self.target is None else [self.target]
        rows = check_model_input(self.columns, given, targets, self.times, self.largest)
        arrays = {name: given[name].reshape(rows, *shape) for name, (shape, _) in self.inputs.items()}
        return {
            name: array if array.dtype.kind in "OUST" else array.astype(self.inputs[name][1], copy=False)
            for name, array in arrays.items()
        }, rows

    def read(self, x: Any, y: Any = None, weights: Any = None, asks_labels: bool = True) -> Examples:
        """Examples from arrays by name, from a frame, or from a list with an array for each input."""
        x = self.named(x)
        if asks_labels and weights is None:
            names = x if isinstance(x, Mapping) else getattr(x, "column_names", None) or getattr(x, "columns", ())
            _tell_of_weights(self.inputs, names)
        arrays, rows = self.arrays(x)
        if not rows:
            raise problem("The model's input", "have at least one row", "none")
        check_unmasked("`y`", y)
        if y is not None and np.shape(y)[:1] != (rows,):
            raise problem("`y`", f"have a row for each of the {rows} examples", f"shape {np.shape(y)}")
        for what, of_rows in (("`y`", y), ("`sample_weight`", weights)):
            _tell_of_order(what, of_rows, x)
        if self.has_labels and asks_labels:
            y = check_labels(y)
        weights = check_weights(weights)
        if weights is not None:
            if weights.shape[:1] != (rows,) or weights.size != rows:
                rule = f"have a row for each of the {rows} examples, of one number"
                raise problem("`sample_weight`", rule, f"shape {weights.shape}")
            weights = weights.reshape(rows)
        labels = np.zeros((rows, 1), "float32") if y is None else np.reshape(y, (rows, -1))
        return Examples(arrays, labels, weights, rows)

    def reads(self, x: Any) -> bool:
        """Whether ``x`` is of a form that `read` takes."""
        return is_frame(x) or isinstance(self.named(x), Mapping)

    def named(self, x: Any) -> Any:
        """A list or tuple with a part for each input as name -> part; anything else as it is."""
        is_listed = isinstance(x, list | tuple) and len(x) == len(self.inputs)
        return dict(zip(self.inputs, x, strict=True)) if is_listed else x

    def batch(self, element: Any, asks_labels: bool = True) -> Any:
        """A batch of a Sequence: ``x`` or ``(x, y)`` or ``(x, y, sample_weight)``."""
        x, y, weights = _three(element)
        return self.read(x, y, weights, asks_labels).parts if self.reads(x) else element


class Reader:
    """Reads whatever `fit`, `evaluate` and `predict` are given.

    Args:
        columns: All columns of the input.
        tensors: The model's Keras inputs.
        target: The item's column.
        is_unknown: Tells which items are missing from the target's file of keys, if it has one: they would be trained
            as padding.
        has_labels: Whether examples have labels.
        times: What is known of the events' times.
        policy: The precision policy under which the model was built.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        tensors: Iterable[Any],
        target: SparseColumn,
        is_unknown: Callable[[tf.Tensor], tf.Tensor],
        has_labels: bool,
        times: EventTimes | None,
        policy: str,
    ) -> None:
        self._arrays = ArrayReader.of(columns, tensors, target.name, has_labels, times, policy)
        self._target, self._is_unknown = target, is_unknown
        self._strategy = tf.distribute.get_strategy()

    def read(
        self,
        x: Any,
        y: Any = None,
        weights: Any = None,
        *,
        in_processes: bool = False,
        what: str = "`x`",
        asks_labels: bool = True,
        steps: int | None = None,
    ) -> Examples:
        """Examples from ``x``, after the checks that can be done in advance; batches are checked when they are read.

        Args:
            x: Arrays by name, a frame, a list of arrays, or a dataset, generator or Sequence of batches. If
                `asks_labels`, also a function that returns a worker's dataset.
            y, weights: Labels and sample weights, or None.
            in_processes: Whether a Sequence is read in other processes.
            what: The argument, for error messages.
            asks_labels: Whether labels, if the model has them, are needed here.
            steps: The steps of an epoch, if they were given.
        """
        is_function = callable(x) and not isinstance(x, _NO_BATCHES) and not hasattr(x, "__iter__")
        if has_parameter_servers(self._strategy) and asks_labels and not is_function:
            rule = "be a function from a tf.distribute.InputContext to a worker's dataset, on parameter servers"
            raise problem(what, rule, type(x).__name__)
        if isinstance(x, tf.data.Dataset):
            self._check_not_of_one_worker(what, x)
            return Examples(self._checked_dataset(x, asks_labels), y, check_weights(weights))
        if is_function and asks_labels:
            if y is not None or weights is not None:
                rule = "come with the batches if a function makes the dataset"
                raise problem("`y` and `sample_weight`", rule, "arguments of their own")
            return self._of_function(x, what, steps)
        if isinstance(x, tf.distribute.DistributedDataset):
            rule = "be a dataset, or a function of a tf.distribute.InputContext, for the strategy to distribute"
            raise problem(what, rule, "a dataset that is distributed already", "Its batches could not be checked.")
        if self._arrays.reads(x):
            examples = self._arrays.read(x, y, weights, asks_labels)
            self._check_known(examples.x[self._target.name])
            return Examples(_as_keras_input(examples.x), examples.y, examples.weights, examples.rows)
        if isinstance(x, _NO_BATCHES) or not hasattr(x, "__iter__"):
            rule = "be a dictionary of arrays, a frame, a tf.data.Dataset, a generator or a Keras Sequence"
            raise problem(what, rule, shown(x))
        if isinstance(x, Iterator):
            x = _checked_batches(x, functools.partial(self._batch, asks_labels=asks_labels))
        elif isinstance(x, keras.utils.Sequence):
            in_processes = in_processes or getattr(x, "use_multiprocessing", False)
            check = functools.partial(self._arrays.batch if in_processes else self._batch, asks_labels=asks_labels)
            x = _CheckedSequence(x, check)
        return Examples(x, y, check_weights(weights))

    def _of_function(self, function: Callable[[Any], Any], what: str, steps: int | None) -> Examples:
        """Batches of a function from a ``tf.distribute.InputContext`` to a worker's dataset.

        On several replicas, the batches are repeated; otherwise workers would have to agree on the end at every step.
        """
        numbers: list[int] = []
        on_servers = has_parameter_servers(self._strategy)

        def of_worker(context: Any) -> tf.data.Dataset:
            dataset = function(context)
            if not isinstance(dataset, tf.data.Dataset):
                raise problem(f"The function {what}", "return a tf.data.Dataset", shown(dataset))
            if not on_servers:  # servers make the dataset in a graph
                numbers.append(int(dataset.cardinality()))
            return self._checked_dataset(dataset, asks_labels=True)

        if on_servers:
            if steps is None:
                rule = "come with a number of steps on parameter servers, whose workers do not wait for each other"
                raise problem(f"The function {what}", rule, "none", "Give `steps_per_epoch` or `steps`.")
            creator = keras.utils.experimental.DatasetCreator(lambda context: of_worker(context).repeat())
            return Examples(creator, steps=steps)
        if self._strategy.num_replicas_in_sync == 1:
            return Examples(of_worker(tf.distribute.InputContext()))
        distributed = self._strategy.distribute_datasets_from_function(lambda context: of_worker(context).repeat())
        number, of = numbers[0], f"The number of batches of the function {what}"
        remedy = "A worker that ends early leaves the others waiting."
        check_workers_agree(self._strategy, of, number, remedy)
        if steps is None:
            replicas = len(self._strategy.extended.worker_devices)  # in this process: each takes a batch in a step
            if number < 0:
                rule = "be known if no number of steps is given"
                raise problem(of, rule, "none", "Give `steps_per_epoch`, `validation_steps` or `steps`.")
            if not number or number % replicas:
                rule, remedy = f"be a multiple of {replicas}, this worker's replicas", "Leave the rest out with `take`."
                raise problem(of, rule, number, remedy)
            steps = number // replicas
        return Examples(distributed, steps=steps)

    def _check_not_of_one_worker(self, what: str, dataset: tf.data.Dataset) -> None:
        if has_several_workers(self._strategy) and is_not_divided(dataset):
            text = f"{what} is a dataset that is not divided among workers, so each trains on all of its batches."
            warn_caller(f"{text} If it is one worker's part, give `fit` a function that returns it.", UserWarning)

    def held_out(self, given: Any, steps: int | None = None) -> Examples | None:
        """Examples of the argument ``validation_data``."""
        if given is None:
            return None
        if isinstance(given, list | tuple):
            if not 1 <= len(given) <= 3:
                rule = "be x, (x, y) or (x, y, sample_weight)"
                raise problem("`validation_data`", rule, f"{len(given)} of them")
            return self.read(*given)
        return self.read(given, what="`validation_data`", steps=steps)

    def _batch(self, element: Any, asks_labels: bool) -> tuple[Any, ...]:
        return self.read(*_three(element), asks_labels=asks_labels).parts

    def _check_known(self, items: np.ndarray) -> None:
        if self._target.vocabulary_path is None or not eager_is_on():
            return
        unknown = items[np.asarray(self._is_unknown(tf.constant(items)))]
        if unknown.size:
            got = f"{unknown.size} others, such as {shown(unknown.flat[0])}"
            raise problem(f"Input {self._target.name!r}", f"hold keys of {self._target.vocabulary_path!r}", got)

    def _checked_dataset(self, dataset: tf.data.Dataset, asks_labels: bool) -> tf.data.Dataset:
        """The dataset with its inputs in one rank and checked, and with labels if it has none."""
        spec = dataset.element_spec
        features = self._arrays.named(spec[0] if isinstance(spec, tuple) else spec)
        if not isinstance(features, Mapping):
            rule = f"hold `x` by name, or as a tuple of the inputs {', '.join(self._arrays.inputs)}"
            remedy = "The first part of an element is its `x`: a tuple is ((...), labels), or ((...),) without labels."
            raise problem("The dataset's elements", rule, shown(features), remedy)
        if asks_labels and (not isinstance(spec, tuple) or len(spec) < 3):
            _tell_of_weights(self._arrays.inputs, features)
        asks_labels = asks_labels and self._arrays.has_labels
        if asks_labels and not gives_labels(spec):
            check_labels(None)
        columns, times, target = self._arrays.columns, self._arrays.times, self._target
        check_types(columns, dense_spec(columns, features, times))
        shapes = {name: shape for name, (shape, _) in self._arrays.inputs.items()}

        def complete(*element: Any) -> tuple[Any, ...]:
            named = dense_batch(columns, self._arrays.named(element[0]), times)
            batch = check_batch(columns, named, shapes, [target.name], times, self._arrays.largest)
            batch = {
                name: values if values.dtype == tf.string else tf.cast(values, self._arrays.inputs[name][1])
                for name, values in batch.items()
            }
            if target.vocabulary_path is not None:
                is_known = ~tf.reduce_any(self._is_unknown(batch[target.name]))
                rule = f"Input {target.name!r} must hold keys of {target.vocabulary_path!r}"
                with tf.control_dependencies([assertion(is_known, rule)]):
                    batch[target.name] = tf.identity(batch[target.name])
            rows = tf.shape(batch[target.name])[0]
            labels, *weights = element[1:] or (None,)
            if labels is None:
                labels = tf.zeros([rows, 1])
            elif asks_labels:
                labels = check_batch_labels(labels, rows)
            return (batch, labels, *(check_batch_weights(each, rows) for each in weights if each is not None))

        return mapped(dataset, complete)


def user_batches(
    columns: Sequence[Column], dataset: tf.data.Dataset, batch_size: int, times: EventTimes | None
) -> tf.data.Dataset:
    """Only the columns' inputs of a finite dataset of batches, dense and in batches of ``batch_size``."""
    require_eager("`user_vectors` of a dataset")
    spec = dataset.element_spec
    features = spec[0] if isinstance(spec, tuple) else spec
    if not isinstance(features, Mapping):
        raise problem("`x`", "hold dictionaries of user inputs, or tuples that begin with them", f"{spec}")
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise problem("`x`", "come to an end", "a dataset that repeats for ever")
    check_types(columns, dense_spec(columns, features, times))

    def dense(*element: Any) -> dict[str, tf.Tensor]:
        batch = dense_batch(columns, element[0], times)
        return {name: batch[name] for name in input_names(columns)}

    return without_autotuning(mapped(dataset, dense).rebatch(batch_size).prefetch(1))


def number_of_batches(x: Any) -> int | None:
    """The number of batches of a dataset or a Sequence; None if unknown."""
    if isinstance(x, tf.data.Dataset):
        number = int(x.cardinality())
        return number if number > 0 else None
    if not isinstance(x, keras.utils.Sequence):
        return None
    return x.num_batches if hasattr(x, "num_batches") else len(x)


def _checked_batches(batches: Iterable[Any], check: Callable[[Any], Any]) -> Generator[Any, None, None]:
    """A generator's batches, each after its check."""
    for batch in batches:
        yield check(batch)


class _CheckedSequence(keras.utils.Sequence):
    """A Keras ``Sequence`` (Keras 3: ``PyDataset``), each batch after its check."""

    def __init__(self, sequence: Any, check: Callable[[Any], Any]) -> None:
        names = ("workers", "use_multiprocessing", "max_queue_size")
        super().__init__(**{name: getattr(sequence, name) for name in names if hasattr(sequence, name)})
        self._sequence, self._check = sequence, check

    def __len__(self) -> int:
        return len(self._sequence)

    @property
    def num_batches(self) -> int | None:  # Keras 3's, None where there is no end
        return number_of_batches(self._sequence)

    def __getitem__(self, place: int) -> Any:
        return self._check(self._sequence[place])

    def on_epoch_begin(self) -> None:
        getattr(self._sequence, "on_epoch_begin", lambda: None)()

    def on_epoch_end(self) -> None:
        getattr(self._sequence, "on_epoch_end", lambda: None)()


def _tell_of_weights(inputs: Collection[str], names: Any) -> None:
    """Warns about a column of weights that is not read."""
    if "sample_weight" in names and "sample_weight" not in inputs:
        warn_caller(
            "The input has a column 'sample_weight', which is not read there: give it as the argument `sample_weight`. "
            "A dataset returns it after its columns, as those of deepmatch_ext.data do with their argument `weight`.",
            UserWarning,
        )


def _tell_of_order(what: str, values: Any, x: Any) -> None:
    """Warns of a column in another order than its frame, since it is taken by position."""
    if not (isinstance(values, pd.Series | pd.DataFrame) and isinstance(x, pd.DataFrame)) or len(values) != len(x):
        return
    if not values.index.equals(x.index) and values.index.sort_values().equals(x.index.sort_values()):
        text = f"{what} has the index of the frame in another order, and is taken row by row"
        warn_caller(f"{text}. Give it in the frame's order: {what.strip('`')}.loc[frame.index].", UserWarning)


def _three(element: Any) -> list[Any]:
    """``x``, ``y`` and weights of a batch that may be ``x`` alone."""
    return [*element, None, None][:3] if isinstance(element, tuple) else [element, None, None]


def _as_keras_input(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Tensors if there is text: Keras 3 refuses NumPy text and, outside graphs, a mixture of tensors and arrays."""
    has_text = any(array.dtype.kind in "OUST" for array in arrays.values())
    return {name: tf.constant(array) for name, array in arrays.items()} if has_text and eager_is_on() else arrays
