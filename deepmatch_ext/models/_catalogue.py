"""What is known of each item, as arrays by item id, from a DataFrame or a dictionary of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import problem
from deepmatch_ext.features import Column, DenseColumn, SequenceColumn, check_model_input, input_shapes

WHAT = "`item_features`"


def catalogue_shapes(column: Column) -> dict[str, tuple[tuple[int, ...], str]]:
    """name -> (shape of one item's values, type) as they are kept, ids as row numbers of their tables.

    Lengths are not kept: id 0 says where a list ends.
    """
    shapes = input_shapes(column)
    if not isinstance(column, DenseColumn):
        shapes[column.name] = (shapes[column.name][0], "int32")
    if isinstance(column, SequenceColumn) and column.length_name is not None:
        del shapes[column.length_name]
    return shapes


def read_catalogue(columns: Sequence[Column], item_features: Any, vocabulary_size: int) -> dict[str, np.ndarray]:
    """name -> the values by item id, (V, ...), of every input of the item's further columns.

    Args:
        columns: The item's columns but its id.
        item_features: A DataFrame by item id, or name -> array of V rows, row 0 (padding) included.
        vocabulary_size: V.

    Raises:
        ValueError: Something is missing, comes twice, or can't be what its column says.
    """
    if isinstance(item_features, pd.DataFrame):
        arrays = _from_frame(columns, item_features, vocabulary_size)
    elif isinstance(item_features, Mapping):
        arrays = {str(name): np.asarray(values) for name, values in item_features.items()}
    else:
        raise problem(WHAT, "be a DataFrame by item id, or a dictionary of arrays", type(item_features).__name__)
    for column in columns:
        for name, (shape, _) in input_shapes(column).items():
            if name not in arrays:
                raise problem(WHAT, f"have {name!r}", f"only {sorted(arrays)}")
            if len(arrays[name]) != vocabulary_size:
                rule = f"have {vocabulary_size} rows, one for each item id and one for padding, id 0"
                raise problem(f"{name!r} in {WHAT}", rule, f"{len(arrays[name])}")
            if _without_ones(arrays[name].shape[1:]) != _without_ones(shape):
                rule = f"have shape {(vocabulary_size, *shape)}"
                raise problem(f"{name!r} in {WHAT}", rule, f"shape {arrays[name].shape}")
            arrays[name] = arrays[name].reshape(vocabulary_size, *shape)
    try:
        check_model_input(columns, arrays)
    except ValueError as error:
        raise ValueError(f"In {WHAT}: {error}") from None
    return arrays


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return _without_ones(shape[:-1]) if shape and shape[-1] == 1 else shape


def _from_frame(columns: Sequence[Column], frame: pd.DataFrame, vocabulary_size: int) -> dict[str, np.ndarray]:
    ids = frame.index
    if not pd.api.types.is_integer_dtype(ids.dtype) or ids.has_duplicates:
        raise problem(f"The index of {WHAT}", "hold each item id once", f"{ids.dtype}, or an id twice")
    if len(ids) and (ids.min() < 1 or ids.max() >= vocabulary_size):
        raise problem(f"The index of {WHAT}", f"hold item ids in 1..{vocabulary_size - 1}", f"{ids.min()}..{ids.max()}")
    arrays: dict[str, np.ndarray] = {}
    for column in columns:
        for name, (shape, dtype) in input_shapes(column).items():
            if isinstance(column, SequenceColumn) and name == column.length_name and name not in frame:
                # A list is as long as it is; a frame without the list is refused in its turn.
                values = np.array([min(len(value), column.maxlen) for value in frame.get(column.name, [()] * len(ids))])
            elif name in frame:
                values = _column_values(name, frame[name], shape, isinstance(column, SequenceColumn))
            else:
                raise problem(WHAT, f"have a column {name!r}", f"only {list(frame.columns)}")
            empty: Any = "0" if dtype == "string" else 0
            array = np.full((vocabulary_size, *values.shape[1:]), empty, dtype=object if dtype == "string" else None)
            if dtype != "string":
                array = array.astype(values.dtype)
            array[ids] = values
            arrays[name] = array
    return arrays


def _column_values(name: str, series: pd.Series, shape: tuple[int, ...], pads: bool) -> np.ndarray:
    """The column as an array; lists are cut at the shape's length and padded with zeros, or have to have it."""
    values = series.to_numpy()
    lists = sum(np.ndim(value) > 0 for value in values) if values.dtype == object else 0
    if not len(values) or (shape == (1,) and not lists):
        return values
    if lists < len(values):
        raise problem(f"{name!r} in {WHAT}", "hold a list in every row", "other values")
    if not pads and (other := {len(value) for value in values} - {shape[0]}):
        raise problem(f"{name!r} in {WHAT}", f"hold lists of {shape[0]}", f"of {sorted(other)} too")
    sample = next((value[0] for value in values if len(value)), 0)
    padding: Any = "0" if isinstance(sample, str | bytes) else 0
    rows = [[*value[: shape[0]], *[padding] * (shape[0] - len(value))] for value in values]
    return np.array(rows, dtype=object if padding == "0" else None)
