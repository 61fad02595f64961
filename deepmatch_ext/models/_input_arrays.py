"""Inputs in any form (arrays, frames, lists, tf.data's tensors), brought into the shapes of the columns.

A history that is given as lists loses its zeros, is cut after its first T items, which are the most recent, and is
padded with 0 at the end. Its length may be left out. The times of its events are given as lists, too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import problem
from deepmatch_ext._frames import Lists, array_of, columns_of, missing_values, padding_of, without_objects
from deepmatch_ext._traced import assertion
from deepmatch_ext.features import Column, SequenceColumn, input_names, input_shapes
from deepmatch_ext.layers.pooling import item_mask
from deepmatch_ext.models._input_rules import EventTimes, held_to, inputs_of_events, is_item


def input_arrays(columns: Sequence[Column], x: Any, times: EventTimes | None = None) -> dict[str, Any]:
    """``x`` by name, with an array for every input of the columns that it has. Other names are left as they are.

    Args:
        columns: The columns that will read the arrays.
        x: name -> array, tensor, ragged tensor or list; a pandas or polars DataFrame; or an Arrow table.
        times: What is known of the events' times.

    Returns:
        name -> array, for `check_model_input`. Plain arrays are returned as they were given.

    Raises:
        ValueError: A value or a list is missing, or lists do not fit their column.
    """
    named = columns_of("`x`", x, input_names(columns))
    found = {
        name: array_of(f"Input {name!r}", named[name])
        for column in columns
        for name in input_shapes(column)
        if name in named
    }
    for column in columns:
        history = found.get(column.name)
        if isinstance(column, SequenceColumn) and isinstance(history, np.ndarray) and history.shape == (0,):
            found[column.name] = Lists(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))  # no rows: no list to see
    lists = {name: values for name, values in found.items() if isinstance(values, Lists)}
    if times is not None:
        _check_form(times, found)
    items = _without_zeros(columns, lists, times)
    arrays: dict[str, Any] = dict(named)
    for column in columns:
        for name, (shape, dtype) in input_shapes(column).items():
            if name not in found:
                continue
            values = items.get(name, found[name])
            pads = isinstance(column, SequenceColumn) and name != column.length_name
            pads = pads or (times is not None and name == times.events and times.history.name in lists)
            if isinstance(values, Lists):
                arrays[name] = _from_lists(name, values, math.prod(shape), dtype, pads)
            else:
                arrays[name] = _from_values(name, values, shape, dtype, pads)
    for name, column, beside in _beside_arrays(columns, lists, found, times):
        _check_beside(name, lists[name], column, beside, arrays)
    for group in _belonging(columns).values():
        for column in group:
            if column.name in lists:
                _see_to_lengths(column, group, lists, arrays, times)
    return arrays


def _check_form(times: EventTimes, given: Mapping[str, Any]) -> None:
    """Refuses lists beside an array, since zeros are taken out of lists, which are then cut."""
    history, values = (given.get(name) for name in (times.history.name, times.events))
    if history is None or values is None:
        return
    if isinstance(history, Lists) and isinstance(values, np.ndarray):
        differs = len(values) > 0 and (values.ndim > 1 or values.dtype.kind in "iub")
    else:
        differs = isinstance(values, Lists) and isinstance(history, np.ndarray)
        differs = differs and bool((values.lengths != times.history.maxlen).any())
    _refuse_form(times, differs, isinstance(history, Lists))


def _refuse_form(times: EventTimes, differs: bool, wants_lists: bool) -> None:
    if differs:
        forms = ["an array", "lists"] if wants_lists else ["lists", "an array"]
        rule, remedy = f"be {forms[1]}, as {times.history.name!r} is", "A history in lists loses its zeros and is cut."
        raise problem(f"Input {times.events!r}", rule, forms[0], remedy)


def _belonging(columns: Iterable[Column]) -> dict[str, list[SequenceColumn]]:
    """Groups of histories that share a length, so are of the same events; a history without one is a group of one."""
    groups: dict[str, list[SequenceColumn]] = {}
    for column in columns:
        if isinstance(column, SequenceColumn):
            groups.setdefault(column.length_name or column.name, []).append(column)
    return groups


def _without_zeros(columns: Iterable[Column], lists: Mapping[str, Lists], times: EventTimes | None) -> dict[str, Lists]:
    """The lists of histories, without positions at which no history of a group has an item, such as unknown items.

    These positions would take the room of known items. Lists of wrong lengths are left as they are.
    """
    left: dict[str, Lists] = {}
    for group in _belonging(columns).values():
        names = [name for column in group for name in inputs_of_events(column, times)]
        together = [lists[name] for name in names if name in lists]
        if len(together) < len(names) or not all(
            np.array_equal(each.lengths, together[0].lengths) for each in together
        ):
            continue
        keep = np.any([is_item(lists[column.name].values) for column in group], axis=0)
        if not keep.all():
            left |= {name: lists[name].kept(keep) for name in names}
    return left


def _beside_arrays(
    columns: Iterable[Column], lists: Collection[str], given: Collection[str], times: EventTimes | None
) -> Iterator[tuple[str, SequenceColumn, str]]:
    """The inputs in lists for which a history of the same events is an array: name, column, the array's name.

    Its positions do not say how long the lists should be, as another history in lists would.
    """
    for group in _belonging(columns).values():
        arrays = [column.name for column in group if column.name in given and column.name not in lists]
        for column in group if arrays else []:
            if column.name in lists:
                yield column.name, column, arrays[0]
                continue
            for name in inputs_of_events(column, times)[1:]:
                if name in lists:
                    yield name, column, column.name


def _rule_beside(column: SequenceColumn, beside: str) -> str:
    also = "" if column.length_name is None else f", or of as many as {column.length_name!r} says"
    return f"lists of {column.maxlen} values{also}, since {beside!r} is not in lists"


def _check_beside(name: str, lists: Lists, column: SequenceColumn, beside: str, arrays: Mapping[str, Any]) -> None:
    fits = lists.lengths == column.maxlen
    if column.length_name is not None:
        counts = np.asarray(arrays.get(column.length_name, ()))
        if counts.size != len(lists) or counts.dtype.kind not in "iu":  # refused later, under its own name
            return
        fits |= lists.lengths == counts.reshape(-1)
    if not fits.all():
        row = int(fits.argmin())
        raise problem(f"Input {name!r}", f"have {_rule_beside(column, beside)}", f"{lists.lengths[row]} in row {row}")


def _from_lists(name: str, lists: Lists, width: int, dtype: str, pads: bool) -> np.ndarray:
    if lists.missing.any():
        got = f"none in {int(lists.missing.sum())} of {len(lists)} rows, such as row {int(lists.missing.argmax())}"
        remedy = "An empty list is an empty history." if pads else ""
        raise problem(f"Input {name!r}", "have a list in every row", got, remedy)
    if missing := missing_values(lists.values):
        raise problem(f"Input {name!r}", "have no missing value in its lists", f"{missing} of {len(lists.values)}")
    if not pads and (other := np.unique(lists.lengths[lists.lengths != width])).size:
        rule = f"have lists of {width} values" if width > 1 else "have one value in each row"
        raise problem(f"Input {name!r}", rule, f"lists of {', '.join(map(str, other[:5].tolist()))}")
    if not len(lists.values):  # without values, the type means nothing
        lists = Lists(np.zeros(0, object if dtype == "string" else dtype), lists.lengths, lists.missing)
    return lists.padded(width)


def _from_values(name: str, values: np.ndarray, shape: tuple[int, ...], dtype: str, pads: bool) -> np.ndarray:
    what, is_text = f"Input {name!r}", values.dtype.kind in "OUST"
    if values.ndim == 1 and not len(values):
        return np.zeros((0, *shape), object if dtype == "string" else dtype)
    if dtype != "string" and (is_text or (values.dtype.kind == "f" and not dtype.startswith("float"))):
        if missing := missing_values(values):
            rule = "have a list in every row" if pads and values.ndim == 1 else "have no missing value"
            raise problem(what, rule, f"{missing} missing of {values.size}", "Drop or fill those rows.")
        values = without_objects(values)
    if pads and values.ndim == 1 and is_text and shape != (1,):
        got, remedy = f"{type(values[0]).__name__}, such as {values[0]!r}", ""
        if isinstance(values[0], str | bytes):
            remedy = "Split it into lists first: `column.str.split('|')`, for example"
            remedy += "." if dtype == "string" else ", and each of them into numbers."
        raise problem(what, "have a list in every row", got, remedy)
    if pads and values.shape[1:] != shape and (*values.shape[1:], 1) != shape:
        remedy = "Or give lists of any length, most recent first, which are cut and padded."
        raise problem(what, f"have shape (rows, {', '.join(map(str, shape))})", f"{values.shape}", remedy)
    return values


def _see_to_lengths(
    column: SequenceColumn,
    group: Iterable[SequenceColumn],
    lists: Mapping[str, Lists],
    arrays: dict[str, Any],
    times: EventTimes | None,
) -> None:
    """Counts the length of a history that was given as lists; a length that was given is cut as the lists were.

    ``group`` are the histories of the same events. If one of them is an array, the length has to be given.
    """
    own = lists[column.name]
    for name in (*inputs_of_events(column, times)[1:], *(other.name for other in group)):
        if name in lists:
            _check_lengths(name, lists[name], column.name, own)
    if column.length_name is None:
        return
    if column.length_name in arrays:
        given, cut = arrays[column.length_name], own.lengths > column.maxlen
        if cut.any() and given.dtype.kind in "iu" and given.size == len(cut):
            given = given.reshape(-1)
            arrays[column.length_name] = np.where(cut, np.minimum(given, column.maxlen), given)
        return
    if not all(other.name in lists for other in group):
        return
    lengths = np.zeros(len(own), np.int32)
    for other in group:
        values = arrays[other.name]
        filled = values[:, ::-1] != padding_of(values)
        lengths = np.maximum(lengths, np.where(filled.any(1), other.maxlen - filled.argmax(1), 0))
    arrays[column.length_name] = lengths.astype(np.int32)


def _check_lengths(name: str, lists: Lists, other_name: str, others: Lists) -> None:
    if len(lists) != len(others):
        raise problem("The inputs", "have equally many rows", f"{ {name: len(lists), other_name: len(others)} }")
    differs = lists.lengths != others.lengths
    if differs.any():
        row = int(differs.argmax())
        got = f"{lists.lengths[row]} and {others.lengths[row]} values in row {row}"
        raise problem(f"Input {name!r}", f"have lists as long as those of {other_name!r}", got)


def dense_spec(columns: Iterable[Column], spec: Mapping[str, Any], times: EventTimes | None = None) -> dict[str, Any]:
    """The types of a dataset's features after `dense_batch`.

    Raises:
        ValueError: A feature is sparse, or ragged where its column takes no lists.
    """
    dense = dict(spec)
    ragged = {name for name, given in spec.items() if isinstance(given, tf.RaggedTensorSpec)}
    if times is not None and {times.history.name, times.events} <= spec.keys():
        is_ragged = times.history.name in ragged
        _refuse_form(times, is_ragged != (times.events in ragged), is_ragged)
    for column in columns:
        for name, (shape, _) in input_shapes(column).items():
            given = spec.get(name)
            if given is None or isinstance(given, tf.TensorSpec):
                continue
            what = f"The dataset's {name!r}"
            if not isinstance(given, tf.RaggedTensorSpec):
                is_sparse = isinstance(given, tf.SparseTensorSpec)
                remedy = f"`tf.sparse.to_dense` makes one of it, {('batch', *shape)}." if is_sparse else ""
                raise problem(what, "be a tensor or ragged tensor", type(given).__name__, remedy)
            if given.ragged_rank == 0:
                raise problem("The dataset", "be batched", f"{name!r} of shape {given.shape}", "Call `.batch(...)`.")
            is_list = isinstance(column, SequenceColumn) and name != column.length_name
            is_list = is_list or (times is not None and name == times.events and times.history.name in ragged)
            if not is_list or given.ragged_rank > 1:
                remedy = f"`.to_tensor(shape={[None, *shape]})` makes one of it."
                raise problem(what, "be a tensor, or ragged in its second axis if it is a history", str(given), remedy)
            dense[name] = tf.TensorSpec([None, shape[0]], given.dtype)
    for group in _belonging(columns).values():
        length_name = group[0].length_name
        if length_name is not None and length_name not in spec and all(column.name in ragged for column in group):
            dense[length_name] = tf.TensorSpec([None, 1], tf.int32)
    return dense


def dense_batch(
    columns: Sequence[Column], batch: Mapping[str, Any], times: EventTimes | None = None
) -> dict[str, tf.Tensor]:
    """A dataset's batch, with ragged histories treated as lists are by `input_arrays`.

    Raises:
        tf.errors.InvalidArgumentError: When the batch is read: lists of the same events differ in length.
    """
    dense: dict[str, tf.Tensor] = dict(batch)
    ragged: dict[str, tf.RaggedTensor] = {}
    lengths: dict[str, tf.Tensor] = {}  # of what is ragged
    for column in columns:
        if isinstance(column, SequenceColumn):
            for name in inputs_of_events(column, times):
                if isinstance(batch.get(name), tf.RaggedTensor):
                    ragged[name] = batch[name].with_flat_values(tf.reshape(batch[name].flat_values, [-1]))
                    lengths[name] = ragged[name].row_lengths()
    ragged |= _ragged_without_zeros(columns, ragged, times)
    for column in columns:
        for name, (shape, _) in input_shapes(column).items():
            if name in ragged:
                padding = "0" if ragged[name].dtype == tf.string else None
                dense[name] = ragged[name].to_tensor(padding, shape=[None, shape[0]])
    for name, column, beside in _beside_arrays(columns, lengths, batch, times):
        fits = tf.equal(lengths[name], column.maxlen)
        if column.length_name is not None and column.length_name in batch:
            fits |= tf.equal(lengths[name], tf.reshape(tf.cast(batch[column.length_name], tf.int64), [-1]))
        dense[name] = held_to([(fits, _rule_beside(column, beside))], name, dense[name])
    for column in columns:
        if not isinstance(column, SequenceColumn) or column.name not in lengths:
            continue
        name, length_name = column.name, column.length_name
        sharing = [other.name for other in _belonging(columns)[length_name or name]]
        for other in (*inputs_of_events(column, times)[1:], *sharing):
            if other in lengths and other != name:
                dense[other] = _as_long(other, name, dense, lengths)
        if length_name is None:
            continue
        if length_name not in batch:
            if all(other in lengths for other in sharing):
                filled = [_filled(dense[other]) for other in sharing]
                dense[length_name] = tf.reduce_max(tf.stack(filled), 0)[:, tf.newaxis]
        elif dense[length_name].dtype.is_integer:
            given = dense[length_name]
            cut = tf.reshape(lengths[name] > column.maxlen, tf.shape(given))
            dense[length_name] = tf.where(cut, tf.minimum(given, tf.cast(column.maxlen, given.dtype)), given)
    return dense


def _ragged_without_zeros(
    columns: Iterable[Column], ragged: Mapping[str, tf.RaggedTensor], times: EventTimes | None
) -> dict[str, tf.RaggedTensor]:
    """`_without_zeros` of tensors."""
    left: dict[str, tf.RaggedTensor] = {}
    for group in _belonging(columns).values():
        names = [name for column in group for name in inputs_of_events(column, times)]
        if not all(name in ragged for name in names):
            continue
        first = ragged[names[0]]
        checks = [
            assertion(
                tf.reduce_all(tf.equal(ragged[name].row_lengths(), first.row_lengths())),
                f"Input {name!r} must hold lists as long as those of {names[0]!r}",
            )
            for name in names[1:]
        ]
        with tf.control_dependencies([check for check in checks if check is not None]):
            has_item = [item_mask(tf.identity(ragged[column.name].values)) for column in group]
        keep = first.with_values(tf.reduce_any(tf.stack(has_item), axis=0))
        left |= {name: tf.ragged.boolean_mask(first.with_values(ragged[name].values), keep) for name in names}
    return left


def _filled(history: tf.Tensor) -> tf.Tensor:
    """The number of positions up to the last one that is not padding, (B,) int32, of (B, T)."""
    padding = tf.constant("0") if history.dtype == tf.string else tf.zeros([], history.dtype)
    places = tf.range(1, tf.shape(history)[1] + 1)
    return tf.reduce_max(tf.where(tf.not_equal(history, padding), places, 0), 1)


def _as_long(name: str, other: str, dense: Mapping[str, tf.Tensor], lengths: Mapping[str, tf.Tensor]) -> tf.Tensor:
    are_equal = tf.equal(lengths[name], lengths[other])
    return held_to([(are_equal, f"lists as long as those of {other!r}")], name, dense[name])
