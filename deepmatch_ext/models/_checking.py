"""Checks of what `fit` is fed with other than arrays: a batch at a time, as it comes by."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import problem, shown
from deepmatch_ext._frames import is_frame
from deepmatch_ext._keras import keras
from deepmatch_ext.features import (
    LARGEST_NUMBER,
    Column,
    SequenceColumn,
    check_model_input,
    id_column,
    input_shapes,
    integer_limits,
    no_padding,
    warn_of_length,
)
from deepmatch_ext.layers.pooling import item_counts, item_mask
from deepmatch_ext.models._input_arrays import dense_spec, input_arrays


def check_types(columns: Sequence[Column], spec: Mapping[str, Any]) -> None:
    """Refuses a dataset whose elements can't be what the columns say, before anything runs.

    Args:
        columns: All columns of the input.
        spec: name -> the type of a batch of the feature, as the dataset's ``element_spec`` has it.

    Raises:
        ValueError: An input is missing, is not batched, or has another kind of values.
    """
    spec = dense_spec(columns, spec)
    for column in columns:
        for name, (shape, dtype) in input_shapes(column).items():
            if name not in spec:
                raise problem("The dataset's elements", f"have {name!r}", f"only {sorted(spec)}")
            given = spec[name]
            if given.shape.rank is not None and given.shape.rank < len(shape):
                raise problem(
                    "The dataset", "be batched", f"{name!r} of shape {given.shape}", "Call `.batch(batch_size)` on it."
                )
            wanted = tf.as_dtype(dtype)
            is_wrong = (wanted == tf.string) != (given.dtype == tf.string) or given.dtype.is_complex
            if is_wrong or (wanted.is_integer and not (given.dtype.is_integer or given.dtype.is_bool)):
                got = f"{given.dtype.name}"
                raise problem(f"The dataset's {name!r}", f"be of dtype {dtype}", got, "Convert it with `tf.cast`.")
    # Once all are known to be batched: an unbatched history has a wrong shape, too, but that is not what to say.
    for column in columns:
        for name, (shape, _) in input_shapes(column).items():
            given = spec[name].shape
            width = given[1:].num_elements() if given.rank else None
            if width is not None and width != math.prod(shape):
                got = f"{('batch', *given[1:])}"
                raise problem(f"The dataset's {name!r}", f"have the shape {('batch', *shape)}", got)


def in_rows(values: tf.Tensor, name: str, shape: tuple[int, ...], rows: tf.Tensor) -> tf.Tensor:
    """A batch of an input as (rows, *shape), refused when it comes by with other than so many values."""
    fits = tf.equal(tf.size(values), rows * math.prod(shape))
    rule = f"values of shape {('batch', *shape)}, in as many rows as the other inputs"
    with tf.control_dependencies(_assertions(name, [(fits, rule)])):
        return tf.reshape(tf.identity(values), [-1, *shape])


def check_batch(
    columns: Iterable[Column], batch: Mapping[str, tf.Tensor], targets: Collection[str] = ()
) -> dict[str, tf.Tensor]:
    """The batch, with checks on the tensors that refuse what `check_model_input` refuses in arrays.

    Raises:
        tf.errors.InvalidArgumentError: When the batch comes by, with the input's name and the rule.
    """
    checked = dict(batch)
    for column in columns:
        for name in input_shapes(column):
            values = checked[name]
            rules: list[tuple[tf.Tensor, str]] = []
            limits = integer_limits(column, name, name in targets)
            if values.dtype.is_floating:
                rules.append((tf.math.is_finite(values), "no NaN and no infinity"))
                if id_column(column, name) is None:
                    rules.append((_is_small(values), f"numbers of at most {LARGEST_NUMBER:g} in size"))
                else:
                    rules.append((tf.equal(values, tf.floor(values)), "whole numbers, since they are ids"))
            if limits is not None:
                first, last, rule = limits
                wide = tf.cast(values, tf.int64)
                if last < 2**63:
                    rules.append(((wide >= first) & (wide <= last), rule))
                elif values.dtype != tf.uint64:  # what does not fit in int64 comes as uint64 alone
                    rules.append((wide >= first, rule))
            if name in targets:
                rules.append((item_mask(values), no_padding(column, name).removeprefix("hold ")))
            with tf.control_dependencies(_assertions(name, rules)):
                checked[name] = tf.identity(values)
        if isinstance(column, SequenceColumn) and column.length_name is not None:
            with tf.control_dependencies([_told_of_length(column, checked)]):
                checked[column.name] = tf.identity(checked[column.name])
    return checked


def _told_of_length(column: SequenceColumn, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Warns when a batch comes by with a history of more ids than its length."""
    lengths = tf.cast(tf.reshape(batch[column.length_name or ""], [-1, 1]), tf.int32)
    fits = tf.reduce_all(item_counts(item_mask(batch[column.name])) <= lengths)

    def tell() -> np.ndarray:
        warn_of_length(column)
        return np.ones((), bool)

    # TensorFlow keeps `tell`, and the column, for ever; there is nothing large behind them.
    return tf.cond(fits, lambda: tf.constant(True), lambda: tf.numpy_function(tell, [], tf.bool))


def check_batch_weights(weights: tf.Tensor) -> tf.Tensor:
    """A dataset's batch of sample weights, refused when it comes by as `check_weights` refuses arrays."""
    rule = f"finite numbers of at most {LARGEST_NUMBER:g} in size"
    if not (weights.dtype.is_floating or weights.dtype.is_integer or weights.dtype.is_bool):
        raise problem("The dataset's `sample_weight`", f"hold {rule}", weights.dtype.name)
    with tf.control_dependencies(_assertions("sample_weight", [(_is_small(weights), rule)])):
        return tf.identity(weights)


def _is_small(values: tf.Tensor) -> tf.Tensor:
    """Whether numbers are no larger than they may be; NaN is not. The limit itself does not fit into every type."""
    return tf.abs(tf.cast(values, tf.float64)) <= LARGEST_NUMBER


def check_weights(sample_weight: Any) -> Any:
    """The weights as an array, if they are numbers."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    rule = f"hold finite numbers of at most {LARGEST_NUMBER:g} in size"
    if weights.dtype.kind not in "iufb":
        raise problem("`sample_weight`", rule, f"{weights.dtype}")
    wrong = weights[~(np.abs(weights.astype(float)) <= LARGEST_NUMBER)]
    if wrong.size:
        raise problem("`sample_weight`", rule, f"{wrong.size} others, such as {wrong.flat[0]}")
    return weights


def check_class_weight(class_weight: Any) -> None:
    """Refuses class weights that are no numbers: one that is not finite would be in every weight after a step."""
    if class_weight is None:
        return
    rule = f"map labels to finite numbers of at most {LARGEST_NUMBER:g} in size"
    if not isinstance(class_weight, Mapping):
        raise problem("`class_weight`", rule, type(class_weight).__name__)
    for label, weight in class_weight.items():
        if not isinstance(label, int | np.integer):
            raise problem("`class_weight`", rule.replace("labels", "integer labels"), f"the label {label!r}")
        number = np.asarray(weight)
        if number.ndim or number.dtype.kind not in "iufb" or not abs(float(number)) <= LARGEST_NUMBER:
            raise problem("`class_weight`", rule, f"{weight!r} for {label!r}")


def check_callbacks(callbacks: Any) -> None:
    """Refuses callbacks that are none."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return
    for callback in [] if callbacks is None else tf.nest.flatten(callbacks):
        if not hasattr(callback, "set_model"):
            raise problem("`callbacks`", "be a list of Keras callbacks", shown(callback))


def number_of_batches(x: Any) -> int | None:
    """Of a dataset or a Sequence; None where nobody knows."""
    if isinstance(x, tf.data.Dataset):
        number = int(x.cardinality())
        return number if number > 0 else None
    if not isinstance(x, keras.utils.Sequence):
        return None
    return x.num_batches if hasattr(x, "num_batches") else len(x)


def _assertions(name: str, rules: list[tuple[tf.Tensor, str]]) -> list[Any]:
    each = [tf.debugging.Assert(tf.reduce_all(fits), [f"Input {name!r} must hold {rule}"]) for fits, rule in rules]
    return [assertion for assertion in each if assertion is not None]


def checked_batches(batches: Iterable[Any], check: Callable[[Any], Any]) -> Generator[Any, None, None]:
    """A generator's batches, each after its check."""
    for batch in batches:
        yield check(batch)


@dataclass(frozen=True)
class CheckInWorker:
    """The check of a batch of arrays without TensorFlow, which can't be used in a forked process.

    Args:
        columns: All columns of the input.
        target: The item's name.
        inputs: name -> (shape of one row, NumPy type), as the model takes them.
    """

    columns: list[Column]
    target: str
    inputs: Mapping[str, tuple[tuple[int, ...], Any]]

    def __call__(self, element: Any) -> Any:
        x, *others = element if isinstance(element, tuple) else (element,)
        if not (isinstance(x, Mapping) or is_frame(x)):
            return element
        x = input_arrays(self.columns, x)
        rows = check_model_input(self.columns, x, [self.target])
        taken = {}
        for name, (shape, dtype) in self.inputs.items():
            values = x[name].reshape(rows, *shape)
            taken[name] = values if values.dtype.kind in "OUST" else values.astype(dtype, copy=False)
        labels, *weights = others or [np.zeros((rows, 1), "float32")]
        return (taken, labels, *map(check_weights, weights))


class CheckedSequence(keras.utils.Sequence):
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
