"""A tf.data dataset of Parquet files, which need not fit in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import as_flag, as_texts, existing_files, int_at_least, no_duplicates, positive_int, problem
from deepmatch_ext._frames import array_of
from deepmatch_ext._passes import check_batch_size, check_shard, check_weight, keyed_passes, weighted
from deepmatch_ext.data.tables import parquet_batches, parquet_file, pyarrow_parquet

_RECORD_BATCH = 65_536


def parquet_dataset(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    batch_size: int,
    *,
    columns: Sequence[str] | None = None,
    weight: str | None = None,
    max_len: int | None = None,
    shuffle_rows: int = 131_072,
    seed: int = 0,
    epochs: int = 1,
    first_epoch: int = 0,
    drop_remainder: bool = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of Parquet files that need not fit in memory; a block of row groups is read at a time.

    Each pass draws an order of all row groups of all files, fills blocks of ``shuffle_rows`` rows with whole row
    groups, and shuffles all rows of a block. Rows mix well if a block holds many row groups: write them small
    (``pyarrow.parquet.write_table(..., row_group_size=10_000)``) or write the rows in random order. Three blocks are in
    memory at a time and two in a saved iterator, each of ``shuffle_rows`` rows or one row group, whichever is larger.

    Needs pyarrow, which the extra ``parquet`` installs.

    Args:
        paths: One file, or several with the same columns.
        batch_size: Rows in a batch, B; the last batch may be smaller.
        columns: Numeric, boolean or string columns, or lists of such values, without missing ones. None: all.
        weight: The column that is the weight of each row in the loss, one of ``columns``: numbers, one in each row.
        max_len: T for columns whose lists differ in length: longer lists keep their first T values, shorter ones are
            padded with 0 (lists of text with "0"). Lists of a fixed size in the schema keep that size.
        shuffle_rows: Rows in a block; 0 returns all rows in the order of the files.
        seed: Determines the order of every pass.
        epochs: Passes in one iteration, as for :func:`window_dataset`.
        first_epoch: Passes that an earlier process has made, as for :func:`window_dataset`.
        drop_remainder: Whether a smaller last batch is left out.
        shard: (k, n): part k of n of each pass, from 0, for training on n workers. Each worker reads only its own row
            groups, the first and last of them in part, so that all have the same number of rows and batches; up to
            n - 1 rows of a pass are left out. Batches therefore combine other rows than without ``shard``.

    Returns:
        A dataset of dictionaries, column -> (B,), or (B, T) for a column of lists, in the types of the files' schema.
        With a weight, tuples as ``fit`` takes them: such a dictionary without the weight, labels, which are all 1
        (B, 1), and weights (B,).

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: There is no such file.
        ValueError: No files or rows, a damaged file, files of different columns, an unknown column, one of another type
            or a list column without a length, k not less than n in `shard`, or fewer rows than parts.
        tf.errors.InvalidArgumentError: While the dataset is read: a value is missing, or a file is damaged; the message
            names the file.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"hist_item_id": [[7], [9, 8, 7, 5], []], "item_id": [8, 6, 7]})
        >>> path = tempfile.mkdtemp() + "/train.parquet"
        >>> rows.to_parquet(path)
        >>> for batch in parquet_dataset(path, batch_size=2, max_len=3, shuffle_rows=0):
        ...     print(batch["hist_item_id"].numpy().tolist(), batch["item_id"].numpy().tolist())
        [[7, 0, 0], [9, 8, 7]] [8, 6]
        [[0, 0, 0]] [7]
    """
    pyarrow_parquet("parquet_dataset()")
    files, drop_remainder = existing_files("`paths`", paths), as_flag("`drop_remainder`", drop_remainder)
    int_at_least("`shuffle_rows`", shuffle_rows, 0)
    if max_len is not None:
        positive_int("`max_len`", max_len)
    table = _ParquetTable(files, columns, max_len)
    check_weight(weight, table.specs)
    number = int(table.group_rows.sum())
    if not number:
        raise problem("`paths`", "hold at least one row", "none")
    part, parts = check_shard(shard)
    batch_size = check_batch_size(batch_size, number, drop_remainder, parts)
    number //= parts  # rows of this part
    if not number:
        raise problem("`paths`", f"hold a row for each of {parts} parts", f"{table.group_rows.sum()} rows")

    def pieces_of(key: np.ndarray) -> np.ndarray:
        """The pass's row groups: for each its number, its first row and the end of its rows, (pieces, 3)."""
        groups = len(table.group_rows)
        order = np.random.default_rng(key).permutation(groups) if shuffle_rows else np.arange(groups)
        rows = table.group_rows[order]
        starts = np.cumsum(rows) - rows
        first, end = (np.clip(place * number - starts, 0, rows) for place in (part, part + 1))
        return np.stack([order, first, end], axis=1)[end > first]

    def blocks_of(key: np.ndarray) -> np.ndarray:
        """The end of each block, counted in pieces of the pass."""
        _, first, end = pieces_of(key).T
        return np.flatnonzero(_block_ends(end - first, shuffle_rows)) + 1

    def read(key: np.ndarray, start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
        pieces = pieces_of(key)[start:end]
        rows = int((pieces[:, 2] - pieces[:, 1]).sum())
        order = np.random.default_rng([*key, start]).permutation(rows) if shuffle_rows else np.arange(rows)
        return table.read(pieces, order)

    def block(key: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> dict[str, tf.Tensor]:
        # A function of its arguments alone, so that a saved iterator needs nothing from Python.
        types = [spec.dtype for spec in table.specs.values()]
        values = tf.numpy_function(read, [key, start, end], types, stateful=False)
        return {
            name: tf.ensure_shape(value, [None, *spec.shape])
            for (name, spec), value in zip(table.specs.items(), values, strict=True)
        }

    def one_pass(key: tf.Tensor) -> tf.data.Dataset:
        ends = tf.ensure_shape(tf.numpy_function(blocks_of, [key], tf.int64, stateful=False), [None])
        starts = tf.concat([tf.zeros([1], tf.int64), ends[:-1]], 0)
        blocks = tf.data.Dataset.from_tensor_slices((starts, ends)).map(lambda start, end: block(key, start, end))
        # One block ahead: the next one is read while batches of this one are used.
        return blocks.prefetch(1).rebatch(batch_size, drop_remainder=drop_remainder)

    batches = number // batch_size if drop_remainder else -(-number // batch_size)
    read_batch = None if weight is None else lambda batch: weighted(batch, weight)
    return keyed_passes(one_pass, seed, epochs, first_epoch, batches, read_batch, parts > 1)


class _ParquetTable:
    """Row groups of several files as one table.

    Attributes:
        specs: name -> what one row of the column is, () or (T,).
        group_rows: The number of rows of each row group, int64, in the order of the files.
    """

    def __init__(self, files: list[str], columns: Sequence[str] | None, max_len: int | None) -> None:
        with parquet_file(files[0]) as first:
            schema = first.schema_arrow
        names = list(schema.names) if columns is None else as_texts("`columns`", columns)
        no_duplicates("`columns`", names)
        for name in names:
            if name not in schema.names:
                raise problem(f"column {name!r}", "be in the files", f"the columns {schema.names}")
        self.specs = {name: _parquet_spec(name, schema.field(name).type, max_len) for name in names}
        if not self.specs:
            raise problem("`columns`", "name at least one column", "none")
        groups: list[tuple[str, int]] = []
        rows: list[int] = []
        for file in files:
            with parquet_file(file) as opened:
                for name in names:
                    there = opened.schema_arrow
                    got = there.field(name).type if name in there.names else "no such column"
                    if got != schema.field(name).type:
                        rule = f"be {schema.field(name).type} in all files, as in {files[0]!r}"
                        raise problem(f"column {name!r}", rule, f"{got} in {file!r}")
                for group in range(opened.num_row_groups):
                    groups.append((file, group))
                    rows.append(opened.metadata.row_group(group).num_rows)
        self._groups, self.group_rows = groups, np.array(rows, np.int64)

    def read(self, pieces: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
        """The rows of ``pieces`` one after the other, row k put at ``places[k]``: one array a column.

        Args:
            pieces: (n, 3), a row group's number, the first of its rows that is read, and the end of these rows.
            places: A number for each row.
        """
        number = len(places)
        out = {
            name: np.zeros([number, *spec.shape], object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)
            for name, spec in self.specs.items()
        }
        done = 0
        for place, first, end in pieces.tolist():
            file, group = self._groups[place]
            at = 0  # in the row group
            # In small record batches, so that little memory is needed besides the block itself.
            for whole in parquet_batches(file, _RECORD_BATCH, row_groups=[group], columns=list(self.specs)):
                batch = whole.slice(max(first - at, 0), max(min(end, at + whole.num_rows) - max(first, at), 0))
                at += whole.num_rows
                where = places[done : done + batch.num_rows]
                for name, spec in self.specs.items():
                    out[name][where] = _column_values(name, batch.column(name), spec)
                done += batch.num_rows
        return [values.astype(bytes) if values.dtype == object and not number else values for values in out.values()]


def _parquet_spec(name: str, kind: Any, max_len: int | None) -> tf.TensorSpec:
    from pyarrow import types

    shape = []
    value = kind
    if types.is_fixed_size_list(kind):
        shape, value = [kind.list_size], kind.value_type
    elif types.is_list(kind) or types.is_large_list(kind):
        if max_len is None:
            raise problem(f"column {name!r}", "have a length, as a list of no fixed size", "`max_len` None")
        shape, value = [max_len], kind.value_type
    if types.is_boolean(value) or types.is_integer(value) or types.is_floating(value):
        return tf.TensorSpec(shape, tf.as_dtype(value.to_pandas_dtype()))
    if any(is_one(value) for is_one in (types.is_string, types.is_large_string, types.is_binary)):
        return tf.TensorSpec(shape, tf.string)
    remedy = "Convert it before, or name the other columns in `columns`."
    raise problem(f"column {name!r}", "be numbers, strings or lists of them", str(kind), remedy)


def _column_values(name: str, column: Any, spec: tf.TensorSpec) -> np.ndarray:
    """A column of a record batch as (rows,) or (rows, T)."""
    what = f"column {name!r}"
    if column.null_count:
        raise problem(what, "have no missing value", f"{column.null_count} missing")
    values = array_of(what, column)
    if isinstance(values, np.ndarray):
        return values
    if column.flatten().null_count:
        raise problem(what, "have no missing value in its lists", f"{column.flatten().null_count} missing")
    return values.padded(int(spec.shape[0]))


def _block_ends(rows: np.ndarray, most: int) -> np.ndarray:
    """Which of consecutive groups of ``rows`` each is the last of a block of at most ``most`` rows or of one group."""
    ends = np.zeros(len(rows), bool)
    held = 0
    for place, number in enumerate(rows.tolist()):
        if place and held + number > most:
            ends[place - 1] = True
            held = 0
        held += number
    ends[-1] = True
    return ends
