"""The rules of a model's input: for NumPy arrays, which are checked before anything runs, and for the tensors of a
dataset, which are checked when a batch is read.

Arrays are refused with a ValueError that says what is wrong, and in how many values. Tensors of the wrong type or shape
are refused in advance. Their values are checked by an operation that runs before they are read and names the rule.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from deepmatch_ext._checks import problem, warn_caller
from deepmatch_ext._frames import check_unmasked, is_frame
from deepmatch_ext._traced import assertion
from deepmatch_ext.features import Column, DenseColumn, SequenceColumn, SparseColumn, input_shapes, whole_numbers
from deepmatch_ext.layers.pooling import item_counts, item_mask

# Its square, and the square of a layer's sum of such numbers, still fit in float32: no gradient becomes NaN.
LARGEST_NUMBER = 1e15

# A layer's sum of such numbers still fits in float16. (Keras scales losses so that no gradient is lost.)
LARGEST_HALF = 1e3

Rule = tuple[tf.Tensor, str]
"""Booleans that must all be true, and the rule in words."""


@dataclass(frozen=True)
class EventTimes:
    """The inputs that say when the events of a history came, and when recommendations are requested, if that is known.

    Attributes:
        history: The history's column, T items.
        events: The name of the events' times, (T,) in a row.
        request: The name of the request's time.
    """

    history: SequenceColumn
    events: str
    request: str | None = None


def inputs_of_events(column: SequenceColumn, times: EventTimes | None) -> list[str]:
    """The names of a history's inputs that have a value for each event, its items first."""
    names = [column.name, column.weight_name]
    if times is not None and times.history.name == column.name:
        names.append(times.events)
    return [name for name in names if name is not None]


def check_model_input(
    columns: Iterable[Column],
    x: Mapping[str, Any],
    targets: Collection[str] = (),
    times: EventTimes | None = None,
    largest: float = LARGEST_NUMBER,
) -> int:
    """Refuses arrays that do not fit the columns, before anything is computed.

    Args:
        columns: The model's columns.
        x: name -> array of (B,), (B, 1), (B, maxlen) ...; further names are ignored.
        targets: Names of id columns in which padding, id 0, is refused.
        times: What is known of the events' times.
        largest: The largest size of numbers that layers compute with.

    Returns:
        The number of examples, B.

    Raises:
        ValueError: An input is missing, has the wrong shape or type, or holds a NaN, an id outside its vocabulary, a
            number that its column's dtype does not hold, or a length outside 0..maxlen. With ``targets``, also where
            times are not in order.

    Warns:
        UserWarning: A history has more ids than its length says. Without ``targets``, in a service whose clocks may
            differ by a second, also where times are not in order.
    """
    rows: dict[str, int] = {}
    for column in columns:
        arrays: dict[str, np.ndarray] = {}
        for name, (shape, dtype) in input_shapes(column).items():
            arrays[name] = values = _array(name, x, shape, dtype)
            rows[name] = len(values)
            if values.dtype.kind == "f" or (isinstance(column, DenseColumn) and dtype != "string"):
                _check_numbers(name, values, _largest(column, name, dtype, times, largest))
            limits = _integer_limits(column, name, name in targets)
            if limits is not None and values.dtype.kind != "O":
                _check_limits(name, values, *limits)
                if not isinstance(column, DenseColumn):
                    _check_no_mask(f"Input {name!r}", values.dtype.kind == "b", limits)
            if name in targets:
                _check_no_padding(column, name, values)
        if isinstance(column, SequenceColumn) and column.length_name is not None:
            _tell_of_length(column, arrays[column.name], arrays[column.length_name])
    if len(set(rows.values())) > 1:
        raise problem("The inputs", "have equally many rows", f"{rows}")
    if times is not None:
        _check_times(times, x, is_refused=bool(targets))
    return next(iter(rows.values()), 0)


def check_types(columns: Sequence[Column], spec: Mapping[str, Any]) -> None:
    """Refuses a dataset whose elements do not fit the columns, before anything runs.

    Args:
        columns: All columns of the input.
        spec: name -> the type of a batch of the feature, as `dense_spec` gives it.

    Raises:
        ValueError: An input is missing, is not batched, or has values of the wrong type.
    """
    inputs = {name: shape for column in columns for name, shape in input_shapes(column).items()}
    for name, (shape, dtype) in inputs.items():
        _check_type(name, spec, shape, dtype)
    for column in columns:
        for name in input_shapes(column):
            limits = _integer_limits(column, name, is_target=False)
            if limits is not None and not isinstance(column, DenseColumn):
                _check_no_mask(f"The dataset's {name!r}", spec[name].dtype.is_bool, limits)
    # Only now that all are known to be batched: an unbatched history has a wrong shape, too, but the error should say
    # that it is not batched.
    for name, (shape, _) in inputs.items():
        _check_width(name, spec[name].shape, shape)
    rows = {name: spec[name].shape[0] for name in inputs if spec[name].shape.rank}
    rows = {name: number for name, number in rows.items() if number is not None}
    if len(set(rows.values())) > 1:
        raise problem("The inputs of a batch of the dataset", "have equal numbers of rows", f"{rows}")


def check_batch(
    columns: Iterable[Column],
    batch: Mapping[str, tf.Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    targets: Collection[str] = (),
    times: EventTimes | None = None,
    largest: float = LARGEST_NUMBER,
) -> dict[str, tf.Tensor]:
    """The batch as (B, ...), with checks on its tensors that refuse what `check_model_input` refuses in arrays.

    Args:
        columns, targets, times, largest: As for `check_model_input`.
        batch: name -> tensor, as `dense_batch` gives it.
        shapes: name -> the shape of one row.

    Raises:
        tf.errors.InvalidArgumentError: When the batch is read, with the input's name and the rule.
    """
    rows = tf.shape(batch[next(iter(targets))])[0]
    checked = {name: _in_rows(name, batch[name], shape, rows) for name, shape in shapes.items()}
    for column in columns:
        for name, (_, dtype) in input_shapes(column).items():
            values = checked[name]
            rules: list[Rule] = []
            most = _largest(column, name, dtype, times, largest)
            if values.dtype.is_floating:
                rules += _number_rules(values, most)
            elif isinstance(column, DenseColumn) and values.dtype.is_integer:
                rules.append((_is_small(values, most), _small(most)))
            limits = _integer_limits(column, name, name in targets)
            if limits is not None:
                rules += _limit_rules(values, *limits)
            if name in targets:
                rules.append(_no_padding_rule(column, name, values))
            checked[name] = held_to(rules, name, values)
        if isinstance(column, SequenceColumn) and column.length_name is not None:
            with tf.control_dependencies([_told_of_length(column, checked[column.name], checked[column.length_name])]):
                checked[column.name] = tf.identity(checked[column.name])
    if times is not None:
        for name, rule in _time_rules(times, checked):
            checked[name] = held_to([rule], name, checked[name])
    return checked


def held_to(rules: list[Rule], name: str, values: tf.Tensor) -> tf.Tensor:
    """The tensor, guarded by assertions of the rules."""
    each = [assertion(tf.reduce_all(fits), f"Input {name!r} must hold {rule}") for fits, rule in rules]
    with tf.control_dependencies([check for check in each if check is not None]):
        return tf.identity(values)


# An input is present, with the right number and type of values in a row.


def _array(name: str, x: Mapping[str, Any], shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if name not in x:
        raise problem("The model's input", f"have {name!r}", f"only {sorted(x)}")
    values = np.asarray(x[name])
    trailing = values.shape[1:]
    if values.ndim == 0 or (trailing != shape and trailing + (1,) != shape):
        raise problem(f"Input {name!r}", f"have shape (rows, {', '.join(map(str, shape))})", f"{values.shape}")
    wants_text, is_text = dtype == "string", values.dtype.kind in "OUST"
    wants_integer = dtype.startswith(("int", "uint"))
    if wants_text != is_text or values.dtype.kind in "cmM" or (wants_integer and values.dtype.kind not in "iub"):
        remedy = "Convert it with `.astype`."
        if values.dtype.kind == "M" or (values.size and isinstance(values.flat[0], datetime)):
            remedy = '`.astype("datetime64[s]").astype("int64")` gives seconds, as `windows(times=True)` does.'
        raise problem(f"Input {name!r}", f"be of dtype {dtype}", f"{values.dtype}", remedy)
    if values.dtype.kind == "O" and pd.api.types.infer_dtype(values.ravel(), skipna=False) not in ("string", "bytes"):
        raise problem(f"Input {name!r}", "hold only strings", "other objects among them, such as None or NaN")
    return values


def _check_type(name: str, spec: Mapping[str, Any], shape: tuple[int, ...], dtype: str) -> None:
    if name not in spec:
        raise problem("The dataset's elements", f"have {name!r}", f"only {sorted(spec)}")
    given = spec[name]
    if given.shape.rank is not None and given.shape.rank < len(shape):
        got = f"{name!r} of shape {given.shape}"
        raise problem("The dataset", "be batched", got, "Call `.batch(batch_size)` on it.")
    wanted = tf.as_dtype(dtype)
    is_wrong = (wanted == tf.string) != (given.dtype == tf.string) or given.dtype.is_complex
    if is_wrong or (wanted.is_integer and not (given.dtype.is_integer or given.dtype.is_bool)):
        raise problem(f"The dataset's {name!r}", f"be of dtype {dtype}", given.dtype.name, "Convert it with `tf.cast`.")


def _check_width(name: str, given: tf.TensorShape, shape: tuple[int, ...]) -> None:
    width = given[1:].num_elements() if given.rank else None
    if width is not None and width != math.prod(shape):
        raise problem(f"The dataset's {name!r}", f"have the shape {('batch', *shape)}", f"{('batch', *given[1:])}")


def _in_rows(name: str, values: tf.Tensor, shape: tuple[int, ...], rows: tf.Tensor) -> tf.Tensor:
    fits = tf.reduce_all(tf.shape(values)[:1] == rows) & tf.equal(tf.size(values), rows * math.prod(shape))
    rule = f"values of shape {('batch', *shape)}, in as many rows as the other inputs"
    return tf.reshape(held_to([(fits, rule)], name, values), [-1, *shape])


# Numbers are finite and not too large; ids that come as floats are whole.


def largest_number(policy: str) -> float:
    """The largest size of numbers that layers compute with under a precision policy."""
    return LARGEST_HALF if policy.removeprefix("mixed_") == "float16" else LARGEST_NUMBER


def _largest(column: Column, name: str, dtype: str, times: EventTimes | None, largest: float) -> float:
    """The largest size of an input's numbers; infinity for ids."""
    if id_column(column, name) is not None:
        return math.inf
    is_time = times is not None and name in (times.events, times.request)
    if is_time or (isinstance(column, DenseColumn) and column.transform_fn is not None):  # no layer reads it as it is
        largest = LARGEST_NUMBER
    return min(largest, float(tf.as_dtype(dtype).max)) if dtype.startswith("float") else largest


def _small(largest: float) -> str:
    return f"numbers of at most {largest:g} in size"


def _check_numbers(name: str, values: np.ndarray, largest: float) -> None:
    if np.isnan(values).any():
        raise problem(f"Input {name!r}", "hold no NaN", f"{int(np.isnan(values).sum())} of them")
    if np.isinf(values).any():
        raise problem(f"Input {name!r}", "hold no infinity", f"{int(np.isinf(values).sum())} of them")
    if largest == math.inf:
        if (values != np.floor(values)).any():
            raise problem(f"Input {name!r}", "hold whole numbers, since they are ids", "fractions among them")
    elif values.size and max(-float(values.min()), float(values.max())) > largest:
        got = f"{values.flat[np.argmax(np.abs(values))]:g}"
        remedy = "Scale the column, or take its logarithm."
        raise problem(f"Input {name!r}", f"hold {_small(largest)}", got, remedy)


def _number_rules(values: tf.Tensor, largest: float) -> list[Rule]:
    finite = (tf.math.is_finite(values), "no NaN and no infinity")
    if largest == math.inf:
        return [finite, (tf.equal(values, tf.floor(values)), "whole numbers, since they are ids")]
    return [finite, (_is_small(values, largest), _small(largest))]


def _is_small(values: tf.Tensor, largest: float = LARGEST_NUMBER) -> tf.Tensor:
    """Whether numbers are at most the limit in size; NaN is not. The limit itself does not fit into every type."""
    return tf.abs(tf.cast(values, tf.float64)) <= largest


# Ids are in their vocabulary, lengths in 0..maxlen.


def id_column(column: Column, name: str) -> SparseColumn | None:
    """The column of the ids in input ``name`` of ``column``; None if it holds lengths, weights or numbers."""
    if isinstance(column, DenseColumn) or name != column.name:
        return None
    return column.sparsefeat if isinstance(column, SequenceColumn) else column


def _integer_limits(column: Column, name: str, is_target: bool) -> tuple[int, int, str] | None:
    """The least and largest value of an input of integers, and the rule in words; None for floats and text."""
    if isinstance(column, DenseColumn):
        kind = column.dtype
        return _held_by(kind, "numbers") if kind.startswith(("int", "uint")) else None
    if isinstance(column, SequenceColumn) and name == column.length_name:
        return 0, column.maxlen, f"lengths in 0..{column.maxlen}, the history's `maxlen`"
    sparse = id_column(column, name)
    if sparse is None or sparse.dtype == "string":
        return None
    if not sparse.use_hash:
        first, last = int(is_target), sparse.vocabulary_size - 1
        rule = f"ids in {first}..{last}, since its `vocabulary_size` is {last + 1}"
        return first, last, rule + (" and 0 is padding" if is_target else "")
    return _held_by(sparse.dtype, "ids")


def _held_by(dtype: str, what: str) -> tuple[int, int, str] | None:
    limits = whole_numbers(dtype)
    return limits and (*limits, f"{what} that its dtype holds, {dtype}; give the column dtype='int64'")


def _check_limits(name: str, values: np.ndarray, low: int, high: int, rule: str) -> None:
    if values.size and (values.min() < low or values.max() > high):
        bad = values[(values < low) | (values > high)]
        raise problem(f"Input {name!r}", f"hold {rule}", f"{bad.size} others, such as {bad.flat[0]}")


def _check_no_mask(what: str, is_boolean: bool, limits: tuple[int, int, str]) -> None:
    """Refuses booleans in place of ids or lengths, unless there are only two of them."""
    if is_boolean and limits[1] > 1:
        raise problem(what, f"hold {limits[2]}", "booleans", "A mask selects ids: ids[mask].")


def _limit_rules(values: tf.Tensor, low: int, high: int, rule: str) -> list[Rule]:
    wide = tf.cast(values, tf.int64)
    if high < 2**63:
        return [((wide >= low) & (wide <= high), rule)]
    # Only uint64 has values that do not fit in int64.
    return [] if values.dtype == tf.uint64 else [(wide >= low, rule)]


# Targets are not padding.


def is_item(ids: np.ndarray) -> np.ndarray:
    """Which ids of an array are an item's: all but 0, or for strings, all but "0" and "". Strings may be bytes.

    `deepmatch_ext.layers.pooling.item_mask` does it for tensors.
    """
    if ids.dtype.kind in "UT":
        return (ids != "0") & (ids != "")
    if ids.dtype.kind == "S":
        return (ids != b"0") & (ids != b"")
    if ids.dtype.kind == "O":
        return (ids != "0") & (ids != "") & (ids != b"0") & (ids != b"")
    return ids != 0


def _check_no_padding(column: Column, name: str, ids: np.ndarray) -> None:
    if found := int(np.count_nonzero(~is_item(ids))):
        raise problem(f"Input {name!r}", f"hold {_no_padding(column, name)}", f"{found} of it")


def _no_padding_rule(column: Column, name: str, ids: tf.Tensor) -> Rule:
    return item_mask(ids), _no_padding(column, name)


def _no_padding(column: Column, name: str) -> str:
    sparse = id_column(column, name)
    padding = '"0" or ""' if sparse is not None and sparse.dtype == "string" else "0"
    return f"no padding, {padding}, since it is what is to be predicted"


# A history has no more ids than its length says; more lead to a warning, not an error.


def _tell_of_length(column: SequenceColumn, ids: np.ndarray, lengths: np.ndarray) -> None:
    counts = np.count_nonzero(is_item(ids).reshape(len(ids), column.maxlen), axis=1)
    if len(counts) == len(lengths) and (counts > lengths.reshape(-1)).any():
        _warn_of_length(column)


def _told_of_length(column: SequenceColumn, ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    fits = tf.reduce_all(item_counts(item_mask(ids)) <= tf.cast(tf.reshape(lengths, [-1, 1]), tf.int32))

    def tell() -> np.ndarray:
        _warn_of_length(column)
        return np.ones((), bool)

    # TensorFlow keeps `tell`, and the column, for ever; they refer to nothing large.
    return tf.cond(fits, lambda: tf.constant(True), lambda: tf.numpy_function(tell, [], tf.bool))


def _warn_of_length(column: SequenceColumn) -> None:
    """Warns that a history and its length disagree. The text is always the same, so Python shows it once."""
    warn_caller(
        f"Input {column.name!r} has rows with more ids than {column.length_name!r} says: as many are read as it says, "
        "the first ones. Count a history's ids for its length, and fill the rest with 0.",
        UserWarning,
    )


# Events come one after another, and before the request.

_FALLING = "times that do not rise from one event to the next, most recent first"
_NOT_EARLIER = "no time before that of an event, in the same unit"
_ROWS_AT_ONCE = 65_536  # in which order is looked for: that takes several times their memory


def _check_times(times: EventTimes, x: Mapping[str, Any], is_refused: bool) -> None:
    names = (times.history.name, times.history.length_name, times.events, times.request)
    arrays = {name: np.asarray(x[name]) for name in names if name is not None}
    wrong: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(arrays[times.events]), _ROWS_AT_ONCE):
        part = {name: values[start : start + _ROWS_AT_ONCE] for name, values in arrays.items()}
        for name, rows in _out_of_order(times, part):
            wrong.setdefault(name, []).append(rows + start)
    for name, rule in {times.events: _FALLING, times.request or "": _NOT_EARLIER}.items():
        if name not in wrong:
            continue
        first, *others = np.concatenate(wrong[name]).tolist()
        if is_refused:
            got = f"others in row {first}" + (f" and {len(others)} more" if others else "")
            raise problem(f"Input {name!r}", f"hold {rule}", got)
        warn_caller(  # the text is always the same, so Python shows it once
            f"Input {name!r} should hold {rule}; some rows have others, and their vectors mean little.", UserWarning
        )
        break  # where events are in another order, some may be later than the request for that reason alone


def _out_of_order(times: EventTimes, x: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """The inputs that break a rule, and the rows in which they do."""
    history = times.history
    ids = x[history.name].reshape(-1, history.maxlen)
    is_event = is_item(ids)
    if history.length_name is not None:
        is_event &= np.arange(history.maxlen) < x[history.length_name].reshape(-1, 1)
    rows = np.nonzero(is_event)[0]
    came = x[times.events].reshape(ids.shape)[is_event].astype(np.int64, copy=False)
    wrong = rows[1:][(rows[1:] == rows[:-1]) & (came[1:] > came[:-1])]
    if wrong.size:
        yield times.events, np.unique(wrong)
    if times.request is not None:
        wrong = rows[came > x[times.request].reshape(-1)[rows]]
        if wrong.size:
            yield times.request, np.unique(wrong)


def _time_rules(times: EventTimes, batch: Mapping[str, tf.Tensor]) -> Iterator[tuple[str, Rule]]:
    """`_out_of_order` of tensors: the rules by the names of their inputs."""
    history = times.history
    ids = batch[history.name]
    is_event = item_mask(ids)
    if history.length_name is not None:
        is_event &= tf.range(history.maxlen) < tf.cast(batch[history.length_name], tf.int32)
    rows = tf.where(is_event)[:, 0]
    came = tf.boolean_mask(tf.cast(tf.reshape(batch[times.events], tf.shape(ids)), tf.int64), is_event)
    yield times.events, ((rows[1:] != rows[:-1]) | (came[1:] <= came[:-1]), _FALLING)
    if times.request is not None:
        requested = tf.gather(tf.reshape(tf.cast(batch[times.request], tf.int64), [-1]), rows)
        yield times.request, (came <= requested, _NOT_EARLIER)


# Weights are finite numbers: otherwise all weights of the model would be NaN after one step.

_WEIGHTS = f"finite numbers in 0..{LARGEST_NUMBER:g}"


def check_weights(sample_weight: Any) -> Any:
    """Sample weights as an array, if they are numbers. None stays None."""
    if sample_weight is None:
        return None
    check_unmasked("`sample_weight`", sample_weight)
    weights = np.asarray(sample_weight)
    if weights.dtype.kind not in "iufb":
        raise problem("`sample_weight`", f"hold {_WEIGHTS}", f"{weights.dtype}")
    numbers = weights.astype(float)
    wrong = weights[~((numbers >= 0) & (numbers <= LARGEST_NUMBER))]
    if wrong.size:
        raise problem("`sample_weight`", f"hold {_WEIGHTS}", f"{wrong.size} others, such as {wrong.flat[0]}")
    return weights


def check_some_weight(sample_weight: np.ndarray | None, of: str) -> None:
    """Refuses weights that are all 0 as float32, the loss's type: the loss would be 0, whatever the model computes.

    ``of`` says what is done with the rows.
    """
    if sample_weight is not None and not sample_weight.astype(np.float32).any():
        rule = f"be other than 0 in at least one row that is {of}"
        raise problem("`sample_weight`", rule, f"0 in all of {len(sample_weight)}")


def check_batch_weights(weights: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """A dataset's batch of sample weights as (B,), checked when it is read."""
    if not (weights.dtype.is_floating or weights.dtype.is_integer or weights.dtype.is_bool):
        raise problem("The dataset's `sample_weight`", f"hold {_WEIGHTS}", weights.dtype.name)
    weights = _in_rows("sample_weight", weights, (), rows)
    return held_to([(_is_small(weights) & (tf.cast(weights, tf.float64) >= 0), _WEIGHTS)], "sample_weight", weights)


_LABELS = "numbers from 0 to 1: 1 where the user took the item, 0 where not"


def check_labels(y: Any) -> np.ndarray:
    """Labels of a model that is trained with them."""
    if y is None:
        raise problem("`y`", f"hold {_LABELS}", None, "The loss 'logistic' needs labels; the others need none.")
    labels = np.asarray(y)
    if not labels.ndim or labels.size != len(labels):
        raise problem("`y`", "have one label a row", f"shape {labels.shape}")
    if labels.dtype.kind not in "iufb":
        raise problem("`y`", f"hold {_LABELS}", f"{labels.dtype}")
    wrong = labels[~((labels >= 0) & (labels <= 1))]
    if wrong.size:
        raise problem("`y`", f"hold {_LABELS}", f"{wrong.size} others, such as {wrong.flat[0]}")
    return labels


def tell_of_labels(y: Any, class_weight: Any) -> None:
    """Warns of labels that differ where only class weights would read them."""
    labels = np.asarray(y).ravel() if y is not None else np.empty(0)
    if class_weight is None and (labels != labels[:1]).any():
        text = "`y` has different labels, but this loss reads none: the item of each row counts as taken"
        remedy = "Leave out rows whose items were not taken, or train on labels with loss='logistic'."
        warn_caller(f"{text}. {remedy}", UserWarning)


def check_batch_labels(labels: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """A dataset's batch of labels as (B, 1), checked when it is read."""
    if not (labels.dtype.is_floating or labels.dtype.is_integer or labels.dtype.is_bool):
        raise problem("The dataset's labels", f"hold {_LABELS}", labels.dtype.name)
    labels = _in_rows("labels", labels, (1,), rows)
    numbers = tf.cast(labels, tf.float32)
    return held_to([((numbers >= 0) & (numbers <= 1), _LABELS)], "labels", labels)


def gives_labels(spec: Any) -> bool:
    """Whether a dataset's elements have labels. A None in their place is none."""
    return isinstance(spec, tuple) and len(spec) > 1 and hasattr(spec[1], "dtype")


def check_class_weight(class_weight: Any, x: Any, y: Any) -> None:
    """Refuses class weights that are not numbers, or for which there are no labels."""
    if class_weight is None:
        return
    if not isinstance(class_weight, Mapping):
        raise problem("`class_weight`", f"map labels to {_WEIGHTS}", type(class_weight).__name__)
    for label, weight in class_weight.items():
        if not isinstance(label, int | np.integer):
            raise problem("`class_weight`", f"map integer labels to {_WEIGHTS}", f"the label {label!r}")
        number = np.asarray(weight)
        if number.ndim or number.dtype.kind not in "iufb" or not 0 <= float(number) <= LARGEST_NUMBER:
            raise problem("`class_weight`", f"map labels to {_WEIGHTS}", f"{weight!r} for {label!r}")
    is_dataset = isinstance(x, tf.data.Dataset)
    is_alone = not gives_labels(x.element_spec) if is_dataset else isinstance(x, Mapping | list | tuple) or is_frame(x)
    if y is None and is_alone:
        remedy = "Weigh rows by `sample_weight`, or by labels in `y`."
        raise problem("`class_weight`", "come with labels, whose weights it has", "none", remedy)
