"""Data in the forms that people hold it in, as NumPy arrays: frames, columns of lists, ragged tensors, Arrow arrays.

Nothing is judged here: what is missing stays missing (None, NaN, a row without a list), for the caller to refuse under
its own name. TensorFlow is not imported, so a forked worker may use all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import listing, missing_extra, no_duplicates, problem

FRAMES = "a pandas or polars DataFrame, or an Arrow table"


@dataclass(frozen=True, eq=False)
class Lists:
    """A column that has a list of values in each row, of any length.

    Args:
        values: The values of all lists, one row's after the other's, (n,).
        lengths: How many of them each row has, int64, (rows,); they add up to n.
        missing: Which rows have None in place of a list, (rows,); their length is 0.
    """

    values: np.ndarray
    lengths: np.ndarray
    missing: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: Any) -> Lists:
        """The lists of ``rows``, in their order."""
        lengths = self.lengths[rows]
        starts = (np.cumsum(self.lengths) - self.lengths)[rows]
        shift = starts - (np.cumsum(lengths) - lengths)
        places = np.arange(lengths.sum()) + np.repeat(shift, lengths)
        return Lists(self.values[places], lengths, self.missing[rows])

    def kept(self, keep: np.ndarray) -> Lists:
        """The lists without some of their values, ``keep`` (n,) False for these."""
        before = np.concatenate([[0], np.cumsum(keep)])
        ends = np.cumsum(self.lengths)
        return Lists(self.values[keep], before[ends] - before[ends - self.lengths], self.missing)

    def padded(self, width: int, padding: Any = None) -> np.ndarray:
        """The first ``width`` values of each list, then ``padding``: (rows, width), in the type of the values.

        None stands for a padding of 0, or of "0" for text.
        """
        if (self.lengths == width).all():
            return self.values.reshape(-1, width)
        padding = padding_of(self.values) if padding is None else padding
        out = np.full((len(self), width), padding, self.values.dtype)
        values = self.values
        if (self.lengths > width).any():
            starts = np.cumsum(self.lengths) - self.lengths
            values = values[np.arange(len(values)) - np.repeat(starts, self.lengths) < width]
        out[np.arange(width) < self.lengths[:, np.newaxis]] = values
        return out


def is_frame(x: Any) -> bool:
    """Whether ``x`` is a table with named columns: a pandas DataFrame, or what passes its data on as Arrow streams."""
    return isinstance(x, pd.DataFrame) or hasattr(x, "__arrow_c_stream__") or hasattr(x, "__arrow_c_array__")


def columns_of(what: str, x: Any, names: Iterable[str] | None = None) -> Mapping[str, Any]:
    """name -> column, for `array_of`. A mapping is returned as it is.

    Args:
        what: The argument's name, for error messages.
        x: A mapping, a pandas DataFrame (without its index), or what has Arrow's ``__arrow_c_stream__``: polars,
            pyarrow, DuckDB and others.
        names: The columns that will be read, each of which may occur only once. None: all.

    Raises:
        ImportError: The table is not pandas's, and pyarrow is not installed.
        ValueError: ``x`` is none of these, or has two columns of the same name.
    """
    if isinstance(x, Mapping):
        return x
    if isinstance(x, pd.DataFrame):
        columns = [(str(name), x.iloc[:, place]) for place, name in enumerate(x.columns)]
    elif is_frame(x):
        table = _arrow_table(what, x)
        columns = list(zip(table.column_names, table.columns, strict=True))
    else:
        remedy = "Call `.collect()` on it." if hasattr(x, "collect") else ""
        raise problem(what, f"be a dictionary, {FRAMES}", type(x).__name__, remedy)
    wanted = None if names is None else set(names)
    no_duplicates(f"The columns of {what}", [name for name, _ in columns if wanted is None or name in wanted])
    return dict(columns)


def array_of(what: str, values: Any) -> np.ndarray | Lists:
    """A column, or whatever else holds a value or a list in each row, as an array or as `Lists`.

    An array of anything but objects is returned as it is. Text in Python objects stays objects, so that nothing else
    turns into text on the way (as it would in ``np.array(["a", 1])``).

    Args:
        what: The values' name, for error messages.
        values: An array, tensor or ragged tensor; a column of pandas, polars or pyarrow; or a list of values or lists.

    Raises:
        ValueError: It is none of these, or a masked array or sparse tensor.
    """
    if isinstance(values, Lists):
        return values
    check_unmasked(what, values)
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values
    if isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return _of_pandas(what, pd.Series(values, copy=False))
    if _is_arrow(values):
        return _of_arrow(what, values)
    if hasattr(values, "row_splits"):  # a ragged tensor
        if values.ragged_rank > 1:
            return _of_rows(what, values.to_list())
        return _lists(what, np.asarray(values.values), np.diff(np.asarray(values.row_splits)))
    if hasattr(values, "dense_shape"):
        raise problem(what, "be dense", type(values).__name__, "`tf.sparse.to_dense` makes an array of it.")
    if isinstance(values, list | tuple):
        return _of_rows(what, values)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):  # uneven rows
        return _of_rows(what, list(values))
    if not array.ndim:
        got = repr(array.item()) if array.dtype.kind in "iufbUS" else type(values).__name__
        raise problem(what, "be an array with a row for each example", got)
    return _of_rows(what, array) if array.ndim == 1 and array.dtype == object else array


def check_unmasked(what: str, values: Any) -> None:
    """Refuses a masked array that hides values: an array of it has them in place of what is missing."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        got = f"{int(np.ma.count_masked(values))} masked"
        raise problem(what, "have no masked values", got, "Fill them first: `values.filled(0)`.")


def by_id(what: str, values: Any) -> Any:
    """``values`` with the row of id i in place i: pandas's rows in the order of their index, all others as they are.

    Raises:
        ValueError: An index does not hold each of the ids 0..n-1 once, or values are masked.
    """
    check_unmasked(what, values)
    if not isinstance(values, pd.Series | pd.DataFrame) or values.index.equals(pd.RangeIndex(len(values))):
        return values
    ids = values.index.to_numpy()
    if ids.dtype.kind not in "iu" or not np.array_equal(np.sort(ids), np.arange(len(ids))):
        rule = f"have the ids 0..{len(ids) - 1} as its index, in any order, since its rows are read by id"
        remedy = "`values.reindex(range(n), fill_value=0)` makes n rows by id; `values.to_numpy()` has no index."
        raise problem(what, rule, f"an index of {listing(values.index, 3)}", remedy)
    return values.iloc[np.argsort(ids)]


def require_columns(columns: Mapping[str, Any], names: Iterable[str], where: str, remedies: Mapping[str, str]) -> None:
    """Refuses columns without one of the ``names``; ``remedies`` has what to do, by name."""
    for name in names:
        if name not in columns:
            got = f"the columns {listing(list(columns), 20)}"
            raise problem(f"column {name!r}", f"be in {where}", got, remedies.get(name, ""))


def one_a_row(what: str, values: Any) -> np.ndarray:
    """`array_of` for one value in each row, (rows,): from (rows,), (rows, 1) or lists of one value."""
    array = array_of(what, values)
    if isinstance(array, Lists) and (array.lengths == 1).all():
        array = array.values
    if isinstance(array, Lists) or array.size != len(array):
        got = f"shape {array.shape}" if isinstance(array, np.ndarray) else "lists of other lengths than 1"
        raise problem(what, "have one value in each row", got)
    return array.reshape(-1)


def arrays_of(what: str, x: Any) -> dict[str, np.ndarray | Lists]:
    """name -> `array_of` for all columns of a mapping or frame, for code that does not know yet which will be read."""
    return {name: array_of(f"{name!r} in {what}", values) for name, values in columns_of(what, x).items()}


def as_array(values: Any) -> np.ndarray:
    """An array of ``values`` in which nothing has turned into a string on the way (np.array(["a", None]) would).

    Integers of pandas, polars or Arrow stay integers, in an array of objects, if some are missing.
    """
    if hasattr(values, "__array__"):
        array = np.asarray(values)
        if array.dtype.kind == "f" and not isinstance(values, np.ndarray) and np.isnan(array).any():
            for name in ("to_pylist", "to_list", "tolist"):
                if hasattr(values, name):
                    return np.array(getattr(values, name)(), dtype=object)
        return array
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | list | tuple):
        values = list(values)
    return np.array(values, dtype=object)


def is_list(kind: type) -> bool:
    """Whether values of a type are lists, tuples, arrays and the like, each of them several values."""
    if issubclass(kind, str | bytes | Mapping | Set):
        return False
    return hasattr(kind, "__len__") and hasattr(kind, "__getitem__")


def padding_of(values: np.ndarray) -> Any:
    """The value that stands for padding: 0, or "0" for text."""
    if values.dtype.kind not in "OUST":
        return 0
    return b"0" if values.dtype.kind == "S" or (values.size and isinstance(values.flat[0], bytes)) else "0"


def missing_values(values: np.ndarray) -> int:
    """How many of the values are None, NaN or another of pandas's missing values."""
    return int(pd.isna(values).sum()) if values.dtype.kind in "fcOmM" else 0


def without_objects(values: np.ndarray) -> np.ndarray:
    """An array of objects that are all numbers as an array of numbers; other arrays as they are."""
    numbers = ("integer", "floating", "mixed-integer-float", "boolean")
    if values.dtype == object and pd.api.types.infer_dtype(values.ravel(), skipna=False) in numbers:
        return np.array(values.tolist())
    return values


def _of_pandas(what: str, series: pd.Series) -> np.ndarray | Lists:
    if isinstance(series.dtype, pd.ArrowDtype):
        return _of_arrow(what, _pyarrow(what).array(series.array))
    if isinstance(series.dtype, pd.DatetimeTZDtype):  # in UTC, as Arrow's columns come out
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    # Older versions make objects of nullable integers, even where none is missing.
    plain = getattr(series.dtype, "numpy_dtype", None)
    values = series.to_numpy() if plain is None or series.hasnans else series.to_numpy(dtype=plain)
    return _of_rows(what, values) if values.dtype == object else values


def _of_rows(what: str, rows: Any) -> np.ndarray | Lists:
    """Python objects, one for each row: values, or lists, tuples, arrays and tensors of them."""
    if isinstance(rows, np.ndarray) and rows.ndim > 1:
        return rows
    kinds = set(map(type, rows))
    if not any(map(is_list, kinds)):
        return rows if isinstance(rows, np.ndarray) else _plain(what, rows)
    missing = np.zeros(len(rows), bool)
    if not all(map(is_list, kinds)):
        places = [place for place, row in enumerate(rows) if not is_list(type(row))]
        for place in places:
            if not pd.isna(rows[place]):
                got = f"{_brief(rows[place])} in row {place}"
                raise problem(what, "hold a list in every row or in none", got)
        missing[places] = True
        rows = [() if gone else row for row, gone in zip(rows, missing, strict=True)]
    if kinds - {list, tuple}:
        rows = [row if isinstance(row, list | tuple) else np.asarray(row) for row in rows]
        if not any(np.ndim(row) for row in rows):  # scalars in arrays or tensors of their own
            return np.asarray(rows)
    try:
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        flat = _joined(what, rows)
    except (TypeError, ValueError):
        raise problem(what, "hold one list of values in each row", "lists of lists") from None
    return _lists(what, flat, lengths, missing)


def _joined(what: str, rows: Any) -> np.ndarray:
    """The rows' values, one row's after the other's."""
    if not all(isinstance(row, np.ndarray) for row in rows):
        return _plain(what, list(chain.from_iterable(rows)))
    filled = [row for row in rows if len(row)]  # an empty array's type says nothing
    dtypes = {row.dtype for row in filled}
    if any(dtype.kind in "OUST" for dtype in dtypes):
        return _plain(what, list(chain.from_iterable(row.tolist() for row in filled)))
    return np.concatenate(filled) if filled else np.zeros(0)


def _plain(what: str, values: Any) -> np.ndarray:
    """An array of Python values or of lists of the same length."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        raise problem(what, "hold values, or one list of values in each row", "lists of lists") from None
    return np.array(values, dtype=object) if array.dtype.kind in "US" else array


def _lists(what: str, values: np.ndarray, lengths: np.ndarray, missing: np.ndarray | None = None) -> Lists:
    if values.ndim > 1 and values.shape[1:] != (1,) * (values.ndim - 1):
        raise problem(what, "hold one list of values in each row", f"lists of lists of {values.shape[1]}")
    missing = np.zeros(len(lengths), bool) if missing is None else missing
    return Lists(without_objects(values.reshape(-1)), lengths.astype(np.int64, copy=False), missing)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Arrow.


def _pyarrow(what: str) -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise missing_extra(f"{what}, a table,", "pyarrow", "parquet") from error
    return pyarrow


def _arrow_table(what: str, x: Any) -> Any:
    arrow = _pyarrow(what)
    try:
        return arrow.table(x)
    except (arrow.ArrowException, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise problem(what, f"be {FRAMES}", f"{type(x).__name__}, which pyarrow can't read ({text})") from None


def _is_arrow(values: Any) -> bool:
    arrow = sys.modules.get("pyarrow")  # whoever has such an object has imported it
    return arrow is not None and isinstance(values, arrow.Array | arrow.ChunkedArray)


def _of_arrow(what: str, column: Any) -> np.ndarray | Lists:
    arrow = _pyarrow(what)
    chunks = column.chunks if isinstance(column, arrow.ChunkedArray) else [column]
    chunks = chunks or [arrow.array([], column.type)]
    if isinstance(column.type, arrow.BaseExtensionType):
        return _of_arrow(what, arrow.chunked_array([chunk.storage for chunk in chunks], column.type.storage_type))
    if not hasattr(column.type, "value_field"):  # an attribute of all kinds of lists
        parts = [_arrow_values(arrow, chunk) for chunk in chunks]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    import pyarrow.compute

    flat = _of_arrow(what, arrow.chunked_array([chunk.flatten() for chunk in chunks], column.type.value_type))
    if isinstance(flat, Lists):
        if (flat.lengths != 1).any():
            raise problem(what, "hold one list of values in each row", "lists of lists")
        flat = flat.values
    lengths = [pyarrow.compute.list_value_length(chunk).fill_null(0).to_numpy() for chunk in chunks]
    missing = [chunk.is_null().to_numpy(zero_copy_only=False) for chunk in chunks]
    return _lists(what, flat, np.concatenate(lengths), np.concatenate(missing))


def _arrow_values(arrow: Any, chunk: Any) -> np.ndarray:
    if isinstance(chunk.type, arrow.DictionaryType):
        # Not `dictionary_decode`, which knows fewer types of text.
        keys, values = chunk.indices.to_numpy(zero_copy_only=False), _arrow_values(arrow, chunk.dictionary)
        known = ~np.isnan(keys) if keys.dtype.kind == "f" else np.ones(len(keys), bool)
        if known.all():
            return values[keys]
        out = np.full(len(keys), None, object)
        out[known] = values[keys[known].astype(np.int64)]
        return out
    return chunk.to_numpy(zero_copy_only=False)
