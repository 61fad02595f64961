"""The features of each item, as arrays by item id, from a frame or a dictionary of arrays."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import problem
from deepmatch_ext._frames import by_id, columns_of, is_frame, one_a_row, padding_of
from deepmatch_ext._keras import global_policy_name
from deepmatch_ext.features import Column, DenseColumn, SequenceColumn, SparseColumn, input_shapes
from deepmatch_ext.models._input_arrays import input_arrays
from deepmatch_ext.models._input_rules import check_model_input, largest_number

WHAT = "`item_features`"


def catalogue_shapes(column: Column) -> dict[str, tuple[tuple[int, ...], str]]:
    """name -> (shape of one item's values, type) as the model stores them, with ids as row numbers of their tables.

    Lengths are not stored: id 0 marks the end of a list.
    """
    shapes = input_shapes(column)
    if not isinstance(column, DenseColumn):
        shapes[column.name] = (shapes[column.name][0], "int32")
    if isinstance(column, SequenceColumn) and column.length_name is not None:
        del shapes[column.length_name]
    return shapes


def read_catalogue(
    item_name: str, columns: Sequence[Column], item_features: Any, vocabulary_size: int
) -> dict[str, np.ndarray]:
    """name -> the values by item id, (V, ...), of every input of the item's further columns.

    Args:
        item_name: The name of the item's id column.
        columns: The item's columns except its id.
        item_features: A frame with the item ids in the column ``item_name``; a pandas DataFrame without that column
            has them as its index; or name -> values, with the item ids under ``item_name``, or else of V rows by id,
            row 0 (padding) included. Histories may be lists in each form.
        vocabulary_size: V.

    Raises:
        ValueError: Something is missing, is repeated, or does not fit its column.
    """
    if not (is_frame(item_features) or isinstance(item_features, Mapping)):
        rule = "be a DataFrame by item id, another frame, or a dictionary of arrays"
        raise problem(WHAT, rule, type(item_features).__name__)
    shapes = {name: shape for column in columns for name, (shape, _) in input_shapes(column).items()}
    named = columns_of(WHAT, item_features, [item_name, *shapes])
    ids = None
    if _has_ids(item_name, item_features):
        ids = _item_ids(item_name, item_features, named, vocabulary_size)
    else:
        named = {name: by_id(f"{name!r} in {WHAT}", named[name]) for name in shapes if name in named}
    arrays = _located(input_arrays, columns, named)
    for name, shape in shapes.items():
        if name not in arrays:
            raise problem(WHAT, f"have {name!r}", f"only {sorted(arrays)}")
        if ids is not None:
            if len(arrays[name]) != len(ids):
                raise problem(f"{name!r} in {WHAT}", f"have a row for each of {len(ids)} ids", f"{len(arrays[name])}")
            of_ids = np.full((vocabulary_size, *arrays[name].shape[1:]), padding_of(arrays[name]), arrays[name].dtype)
            of_ids[ids] = arrays[name]
            arrays[name] = of_ids
        if len(arrays[name]) != vocabulary_size:
            rule = f"have {vocabulary_size} rows, one for each item id and one for padding, id 0"
            raise problem(f"{name!r} in {WHAT}", rule, f"{len(arrays[name])}")
        if _without_ones(arrays[name].shape[1:]) != _without_ones(shape):
            rule = f"have shape {(vocabulary_size, *shape)}"
            raise problem(f"{name!r} in {WHAT}", rule, f"shape {arrays[name].shape}")
        arrays[name] = arrays[name].reshape(vocabulary_size, *shape)
    largest = largest_number(global_policy_name())
    _located(functools.partial(check_model_input, largest=largest), columns, arrays)
    return {name: arrays[name] for name in shapes}


def given_items(item: SparseColumn, item_features: Any, vocabulary_size: int) -> np.ndarray:
    """The ids of the items that ``item_features`` describe, (n,); for arrays by item id, padding is included.

    Raises:
        ValueError: A frame has no item ids; or an id comes twice, or is out of range.
    """
    if not _has_ids(item.name, item_features):
        return np.arange(vocabulary_size)
    return _item_ids(item.name, item_features, columns_of(WHAT, item_features, [item.name]), vocabulary_size)


def _has_ids(item_name: str, item_features: Any) -> bool:
    return is_frame(item_features) or (isinstance(item_features, Mapping) and item_name in item_features)


def _located(function: Any, *args: Any) -> Any:
    """The function's result, or its error with the argument's name."""
    try:
        return function(*args)
    except ValueError as error:
        raise ValueError(f"In {WHAT}: {error}") from None


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return _without_ones(shape[:-1]) if shape and shape[-1] == 1 else shape


def _item_ids(item_name: str, frame: Any, named: Mapping[str, Any], vocabulary_size: int) -> np.ndarray:
    """The item id of each row."""
    what, has_index = f"The index of {WHAT}", isinstance(frame, pd.DataFrame)
    given: Any
    if item_name in named:
        what, given = f"{item_name!r} in {WHAT}", named[item_name]
        is_default = has_index and frame.index.equals(pd.RangeIndex(len(frame)))
        if has_index and not is_default and not np.array_equal(frame.index, given):
            rule = "be the item ids, as the index is"
            raise problem(what, rule, "others", "Drop the column, or the index: frame.reset_index(drop=True).")
    elif has_index:
        given = frame.index
    else:
        raise problem(WHAT, f"have the item ids in a column {item_name!r}", f"only {sorted(named)}")
    ids = one_a_row(what, given)
    if ids.dtype.kind not in "iu" or len(np.unique(ids)) < len(ids):
        raise problem(what, "hold each item id once", f"{ids.dtype}, or an id twice")
    first = 1 if is_frame(frame) else 0  # arrays may have a row for padding
    if len(ids) and (ids.min() < first or ids.max() >= vocabulary_size):
        raise problem(what, f"hold item ids in {first}..{vocabulary_size - 1}", f"{ids.min()}..{ids.max()}")
    return ids
