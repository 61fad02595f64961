"""Vectors on disk: the folder of a saved index, with its manifest, and Parquet files for other programs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import check_floats, check_users
from deepmatch_ext._checks import as_path, listing, missing_extra, one_of, problem, shown
from deepmatch_ext._files import whole_file
from deepmatch_ext._folders import OTHER_VERSION, Folder, check_record, read_record
from deepmatch_ext._frames import columns_of
from deepmatch_ext._no_item import no_item
from deepmatch_ext._version import __version__
from deepmatch_ext.retrieval.rows import fits, raw_ids, require_unique

METRICS = ("inner_product", "cosine")
ID_TYPES = ("string", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))

_PARQUET_KEY, _PARQUET_VERSION = b"deepmatch_ext", 1
INDEX_FOLDER = Folder(
    what="a saved index",
    format="deepmatch_ext index",
    version=1,
    entries={
        "kind": str,
        "metric": METRICS,
        "dimension": int,
        "count": int,
        "ids": ID_TYPES,
        "settings": dict,
    },
)


def write_array(path: Path, shape: tuple[int, ...], dtype: Any, blocks: Iterable[np.ndarray]) -> None:
    """Writes an array that comes in blocks of rows to a .npy file, so that it need not be in memory twice."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data)


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Ids as JSON: strings of any characters, integers of any size, nothing pickled."""
    path.write_text(json.dumps(ids.tolist()), encoding="ascii")


def read_ids(path: Path, dtype: str) -> np.ndarray:
    """What `write_ids` wrote, in a type of ``ID_TYPES``."""
    ids = raw_ids("the ids", json.loads(path.read_text(encoding="ascii")))
    if (ids.dtype == object) != (dtype == "string") or (dtype != "string" and not fits(ids, np.dtype(dtype)).all()):
        raise problem("the ids", f"be of type {dtype}", listing(ids))
    require_unique("the ids", ids)
    return ids if dtype == "string" else ids.astype(dtype)


# Parquet.


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors with their ids, and the metric by which they are compared.

    Args:
        ids: (V,) integers, or objects that are all ``str``.
        vectors: (V, D) float32; of users with K interests (V, K, D).
        metric: "inner_product" or "cosine".
        metadata: A frame of V rows with further columns, such as titles, genres and prices.

    Example:
        >>> import tempfile
        >>> from deepmatch_ext.retrieval import ExactIndex
        >>> path = Path(tempfile.mkdtemp()) / "items.parquet"
        >>> write_vectors(path, ["tea", "milk"], [[3.0, 4.0], [0.0, 1.0]], metric="cosine")
        >>> items = read_vectors(path)
        >>> ExactIndex(items.ids, items.vectors, metric=items.metric)
        ExactIndex(2 items of dimension 2, cosine)
    """

    ids: np.ndarray
    vectors: np.ndarray
    metric: str
    metadata: pd.DataFrame = field(default_factory=pd.DataFrame)


def write_vectors(
    path: str | os.PathLike[str],
    ids: Any,
    vectors: Any,
    *,
    metric: str = "inner_product",
    metadata: Any = None,
) -> None:
    """Writes vectors to a Parquet file for any program to read: columns ``id``, ``vector``, and those of ``metadata``.

    A row is an item or a user. Its ``vector`` is a list of D float32, or for K interests a list of K such lists. The
    file is written completely or not at all, and replaces an existing one.

    Args:
        path: The file to write.
        ids: (V,) unique integers or strings.
        vectors: (V, D), taken as float32; or (V, K, D) for users with K interests, where a zero vector is replaced by
            another vector of the same user, if there is one. If the vectors do not fit in memory, give an iterator of
            such arrays, whose rows together are those of the ids.
        metric: How the vectors are compared, "inner_product" or "cosine"; it is recorded in the file.
        metadata: Further columns, with a value for each id: a pandas or polars DataFrame, an Arrow table, or a
            dictionary.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: Ids are repeated or empty strings, vectors are not finite, lengths differ, or a column is named
            ``id`` or ``vector``.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "items.parquet"
        >>> write_vectors(path, ["tea", "milk"], np.eye(2), metadata={"price": [3.5, 1.2]})
        >>> found = read_vectors(path)
        >>> found.ids.tolist(), found.metric, found.metadata["price"].tolist()
        (['tea', 'milk'], 'inner_product', [3.5, 1.2])
    """
    arrow, parquet = _pyarrow("write_vectors()")
    path, metric = as_path("`path`", path), one_of("`metric`", metric, METRICS)
    if path.is_dir():
        raise problem(f"file {str(path)!r}", "be a file or not exist yet", "a folder")
    ids = _checked_ids(ids)
    columns = {"id": arrow.array(ids, arrow.string() if ids.dtype == object else None)}
    for name, values in columns_of("`metadata`", {} if metadata is None else metadata).items():
        if str(name) in (*columns, "vector"):
            raise problem("`metadata`", "have no column 'id' or 'vector', and none twice", repr(name))
        if not hasattr(values, "__len__") or isinstance(values, str | bytes) or getattr(values, "ndim", 1) == 0:
            raise problem(f"`metadata` {name!r}", "be a column of values", shown(values))
        if len(values) != len(ids):
            raise problem(f"`metadata` {name!r}", f"have {len(ids)} values, one for each id", f"{len(values)}")
        try:
            columns[str(name)] = _arrow_column(arrow, values)
        except (arrow.ArrowInvalid, arrow.ArrowTypeError, arrow.ArrowNotImplementedError, OverflowError) as error:
            raise problem(f"`metadata` {name!r}", "be of one type that Parquet knows", _line(error)) from None
    about = {"format_version": _PARQUET_VERSION, "metric": metric, "count": len(ids), "deepmatch_ext": __version__}
    others, start, writer = arrow.table(columns), 0, None
    with whole_file(path) as unfinished, contextlib.ExitStack() as stack:
        for block in _blocks(vectors, len(ids)):
            of_block = others.slice(start, len(block)).add_column(1, "vector", _lists(arrow, block))
            if writer is None:
                about["dimension"] = block.shape[-1]
                schema = of_block.schema.with_metadata({_PARQUET_KEY: json.dumps(about)})
                writer = stack.enter_context(parquet.ParquetWriter(unfinished, schema, write_page_checksum=True))
            writer.write_table(of_block.replace_schema_metadata(schema.metadata))
            start += len(block)


def _blocks(vectors: Any, number: int) -> Iterator[np.ndarray]:
    """The vectors, checked, in the blocks in which they are given, ``number`` rows in all."""
    shape, rows, whole = (), 0, not isinstance(vectors, Iterator)
    for given in [vectors] if whole else vectors:
        block, _ = check_users("`vectors`", given, "V" if whole else "n")
        if rows and block.shape[1:] != shape:
            raise problem("`vectors`", f"have blocks (n, {', '.join(map(str, shape))})", f"shape {block.shape}")
        shape, rows = block.shape[1:], rows + len(block)
        if whole or rows > number:
            _check_number(rows, number, f"shape {block.shape}" if whole else f"{rows} or more")
        if len(block):
            yield block
    _check_number(rows, number, f"{rows}")


def _check_number(rows: int, number: int, got: str) -> None:
    if rows != number:
        raise problem("`vectors`", f"have a row for each of the {number} ids", got)


def _lists(arrow: Any, vectors: np.ndarray) -> Any:
    """An Arrow column of a list of D numbers in each row, or of K such lists."""
    column = arrow.array(vectors.ravel())
    for size in reversed(vectors.shape[1:]):
        column = arrow.FixedSizeListArray.from_arrays(column, size)
    return column


def read_vectors(path: str | os.PathLike[str]) -> Vectors:
    """Reads what `write_vectors` wrote.

    Args:
        path: The file.

    Returns:
        The `Vectors`: ids, vectors (V, D) or (V, K, D), their metric, and the other columns.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or another program wrote it; the message says what is wrong.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "users.parquet"
        >>> write_vectors(path, [17, 4], np.ones((2, 3, 8)), metadata={"country": ["DE", "FR"]})  # K = 3 interests
        >>> users = read_vectors(path)
        >>> users.vectors.shape, users.metadata.loc[users.ids == 4, "country"].item()
        ((2, 3, 8), 'FR')
    """
    path = as_path("`path`", path)
    arrow, parquet = _pyarrow("read_vectors()")
    what = f"file {str(path)!r}"
    try:
        # The file is open here, so no failure is mistaken for a missing file.
        with open(path, "rb") as file, parquet.ParquetFile(file, page_checksum_verification=True) as opened:
            text = (opened.schema_arrow.metadata or {}).get(_PARQUET_KEY)
            table: Any = None if text is None else opened.read()
    except FileNotFoundError:
        raise
    except (arrow.ArrowException, OSError) as error:
        raise problem(what, "be a Parquet file that is whole", _line(error)) from None
    if text is None:
        remedy = "Read others with pyarrow.parquet, and give their ids, vectors and metric to the index."
        raise problem(what, "be one that write_vectors() wrote", "another Parquet file", remedy)
    about = read_record(f"the metadata of {what}", text, {"format_version": int})
    if about["format_version"] != _PARQUET_VERSION:
        version = f"format version {about['format_version']!r}"
        raise problem(what, f"be of format version {_PARQUET_VERSION}", version, OTHER_VERSION)
    check_record(f"the metadata of {what}", about, {"metric": METRICS, "dimension": int, "count": int})
    if len(table) != about["count"]:
        raise problem(what, f"have {about['count']} rows, as it says", f"{len(table)}")
    is_type, names = arrow.types, table.schema.names
    ids, each = (table.schema.field(name).type if names.count(name) == 1 else None for name in ("id", "vector"))
    if ids is None or not (is_type.is_integer(ids) or is_type.is_string(ids)):
        raise problem(what, "have one column 'id' of integers or strings", str(ids))
    shape: tuple[int, ...] = ()
    while each is not None and is_type.is_fixed_size_list(each) and len(shape) < 2:
        shape, each = (*shape, each.list_size), each.value_type
    if each != arrow.float32() or shape[-1:] != (about["dimension"],):
        rule = f"have one column 'vector' of {about['dimension']} float32, or of K times as many"
        raise problem(what, rule, str(table.schema.field("vector").type if names.count("vector") == 1 else None))
    column = table.column("vector").combine_chunks()
    nulls = table.column("id").null_count + column.null_count
    for _ in shape:
        column = column.flatten()
        nulls += column.null_count
    if nulls:
        raise problem(what, "have no null in the columns 'id' and 'vector'", "some")
    vectors = column.to_numpy(zero_copy_only=False).reshape(len(table), *shape)
    metadata = table.drop_columns(["id", "vector"]).to_pandas()
    return Vectors(table.column("id").to_numpy(), vectors, about["metric"], metadata)


def _arrow_column(arrow: Any, values: Any) -> Any:
    if hasattr(values, "__arrow_c_stream__") and not isinstance(values, pd.Series):
        values = arrow.chunked_array(values)
    if isinstance(values, arrow.Array | arrow.ChunkedArray):
        if "_view" not in str(values.type):
            return values
        values = values.to_pylist()  # text as polars has it, which older versions can't write
    return arrow.array(values, from_pandas=True)


def check_items(ids: Any, vectors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Checked ids (V,), unique, and finite vectors (V, D) in float32, V at least 1."""
    ids = _checked_ids(ids)
    vectors, _ = check_floats("`vectors`", ["(V, D)"], vectors)
    _check_number(len(vectors), len(ids), f"shape {vectors.shape}")
    return ids, vectors


def _checked_ids(ids: Any) -> np.ndarray:
    """Checked ids (V,), unique, V at least 1."""
    ids = raw_ids("`ids`", ids)
    if not len(ids):
        raise problem("`ids`", "hold at least one id", "none")
    no_item("`ids`", ids)  # refuses ids that leave no value for positions without an item
    require_unique("`ids`", ids)
    return ids


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _pyarrow(what: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise missing_extra(what, "pyarrow", "parquet") from error
    return pyarrow, pyarrow.parquet
