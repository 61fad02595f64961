"""tf.data pipelines: windows cut on the fly, and Parquet and TFRecord files larger than memory.

All of them shuffle without Python state: each pass draws a key from ``seed``, and all of its order follows from the
key. A pass is an epoch. Each iteration of a dataset, so each epoch of Keras's ``fit``, goes on with the next pass.
``tf.random.set_seed``, where it is used, counts beside ``seed``, as for all of tf.data.

So an iterator can be saved at any moment with ``tf.train.Checkpoint(iterator=iterator)``: restored into an iterator of
the same dataset, even in another process, it gives exactly the batches that were still to come. An iterator of
several epochs is made with ``epochs=``; tf.data's own ``repeat`` loses count when it is saved near an epoch's end.

tf.data's autotuning is off: its thread sleeps for 10, 20, 40, ... ms and the end of every epoch waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from deepmatch_ext._checks import (
    as_flag,
    as_path,
    as_texts,
    instance_of,
    int_at_least,
    no_duplicates,
    positive_int,
    problem,
    shown,
)
from deepmatch_ext._files import whole_file
from deepmatch_ext._frames import Lists, array_of, arrays_of, is_frame
from deepmatch_ext.data.interactions import Interactions, row_numbers
from deepmatch_ext.data.tables import parquet_batches, parquet_file, pyarrow_parquet
from deepmatch_ext.data.windows import windows

# At tf.random.experimental.index_shuffle's fixed 4 rounds, neighbours stay neighbours: of 1,000,000 rows, the new
# places of row k and row k + 1 correlate by 0.4. At 16 no test that we made tells it from a permutation by NumPy.
_ROUNDS = 16
_RECORD_BATCH = 65_536
_MOST_SHARDS = 10_000

PathLike = str | os.PathLike[str]


def window_dataset(
    interactions: Interactions,
    rows: Any,
    max_len: int,
    batch_size: int,
    *,
    order: str = "recent_first",
    side: Sequence[str] = (),
    shuffle: bool = True,
    seed: int = 0,
    epochs: int = 1,
    first_epoch: int = 0,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batches of :func:`windows`, cut while the model trains: memory is that of the interactions, whatever T is.

    Each pass gives every row once, in an order of all rows (not of a buffer) that is different in each pass and
    costs no memory. For events in a DataFrame, use :meth:`Interactions.from_frame` first.

    Args:
        interactions: The events.
        rows: Target rows, such as a split's ``train_targets()``.
        max_len: The history length T.
        batch_size: Rows in a batch, B; the last batch may be smaller.
        order: "recent_first" or "oldest_first".
        side: Side columns of ``interactions`` whose history is wanted too.
        shuffle: False gives the rows in their own order.
        seed: Decides the order of the first pass, of the second, and so on.
        epochs: Passes in one iteration. Leave it at 1 for Keras's ``fit``, whose every epoch is an iteration.
        first_epoch: Passes that an earlier process has made. With Keras's ``initial_epoch`` of the same number, a run
            that goes on sees the orders that an undisturbed one sees.
        drop_remainder: Leaves out a last batch that is smaller, in each pass other rows.

    Returns:
        A dataset of dictionaries, equal in names, values and types to ``windows(interactions, rows of the batch,
        max_len)``: columns (B,) and histories (B, T), for ``model.fit(dataset, epochs=3)`` or a loop of one's own.

    Raises:
        ValueError: No rows, a row out of range, an unknown order or side column, two columns of one name, a size
            below 1, or a batch larger than all rows where the remainder is dropped.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 5], [7, 8, 9, 8, 7])
        >>> for batch in window_dataset(interactions, [1, 2, 4], max_len=2, batch_size=2, shuffle=False):
        ...     print(batch["item_id"].numpy().tolist(), batch["hist_item_id"].numpy().tolist())
        [8, 9] [[7, 0], [8, 7]]
        [7] [[8, 0]]
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    shuffle, drop_remainder = as_flag("`shuffle`", shuffle), as_flag("`drop_remainder`", drop_remainder)
    targets = row_numbers("`rows`", rows, len(interactions))
    if not len(targets):
        raise problem("`rows`", "hold at least one row", "none")
    names = as_texts("`side`", side)
    _check_windows(interactions, max_len, order, names)
    batch_size = _batch_size(batch_size, len(targets), drop_remainder)
    row_type = np.int32 if len(interactions) < 2**31 - max_len else np.int64
    cut = _cutter(interactions, int(max_len), order, names, row_type)
    number = len(targets)
    row_tensor = tf.convert_to_tensor(targets.astype(row_type))

    stop = number - number % batch_size if drop_remainder else number
    starts = tf.data.Dataset.range(0, stop, batch_size)

    def one_pass(key: tf.Tensor) -> tf.data.Dataset:
        def batch(start: tf.Tensor) -> dict[str, tf.Tensor]:
            indices = tf.range(start, tf.minimum(start + batch_size, number))
            if shuffle:
                indices = _shuffled(indices, key, number)
            if drop_remainder:
                indices = tf.ensure_shape(indices, [batch_size])
            return cut(tf.gather(row_tensor, indices))

        return starts.map(batch)

    return _passes(one_pass, seed, epochs, first_epoch, -(-stop // batch_size))


def parquet_dataset(
    paths: PathLike | Sequence[PathLike],
    batch_size: int,
    *,
    columns: Sequence[str] | None = None,
    max_len: int | None = None,
    shuffle_rows: int = 131_072,
    seed: int = 0,
    epochs: int = 1,
    first_epoch: int = 0,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batches of Parquet files that need not fit into memory, a block of row groups at a time.

    Each pass draws an order of all row groups of all files, fills blocks of ``shuffle_rows`` rows with whole row
    groups, and shuffles all rows of a block. Rows mix well if a block holds many row groups: write them small
    (``pyarrow.parquet.write_table(..., row_group_size=10_000)``) or the rows in no order. Three blocks are in memory
    at a time and two in a saved iterator, each of ``shuffle_rows`` rows or one row group, whichever is more.

    Needs pyarrow, which the extra ``parquet`` brings.

    Args:
        paths: One file, or several with the same columns.
        batch_size: Rows in a batch, B; the last batch may be smaller.
        columns: Numeric, boolean or string columns, or lists of such values, without missing ones. None: all.
        max_len: T of columns whose lists differ in length: longer ones keep their first T values, shorter ones are
            padded with 0 (of text, "0"). Lists of a fixed size in the schema keep that size.
        shuffle_rows: Rows in a block; 0 gives all rows in the order of the files.
        seed: Decides the order of the first pass, of the second, and so on.
        epochs: Passes in one iteration, as for :func:`window_dataset`.
        first_epoch: Passes that an earlier process has made, as for :func:`window_dataset`.
        drop_remainder: Leaves out a last batch that is smaller.

    Returns:
        A dataset of dictionaries: a column (B,), a column of lists (B, T), in the types of the files' schema.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: There is no such file.
        ValueError: No files or rows, a damaged file, files of different columns, an unknown column, one of another type
            or a list column without a length. While it is read: ``tf.errors.InvalidArgumentError`` for a missing value
            or a damaged file, which is named.
    """
    pyarrow_parquet("parquet_dataset()")
    files, drop_remainder = _files(paths), as_flag("`drop_remainder`", drop_remainder)
    int_at_least("`shuffle_rows`", shuffle_rows, 0)
    if max_len is not None:
        positive_int("`max_len`", max_len)
    table = _ParquetTable(files, columns, max_len)
    number = int(table.group_rows.sum())
    if not number:
        raise problem("`paths`", "hold at least one row", "none")
    batch_size = _batch_size(batch_size, number, drop_remainder)

    def blocks_of(key: np.ndarray) -> np.ndarray:
        """The end of each block, counted in row groups of the pass."""
        return np.flatnonzero(_block_ends(table.group_rows[_group_order(key)], shuffle_rows)) + 1

    def _group_order(key: np.ndarray) -> np.ndarray:
        groups = len(table.group_rows)
        return np.random.default_rng(key).permutation(groups) if shuffle_rows else np.arange(groups)

    def read(key: np.ndarray, start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
        groups = _group_order(key)[start:end]
        rows = int(table.group_rows[groups].sum())
        order = np.random.default_rng([*key, start]).permutation(rows) if shuffle_rows else np.arange(rows)
        return table.read(groups, order)

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
    return _passes(one_pass, seed, epochs, first_epoch, batches)


def write_tfrecords(data: Any, prefix: PathLike, shards: int = 1) -> list[str]:
    """Writes rows as ``tf.train.Example`` records, dealt to ``shards`` files in turn.

    Give the rows in no order, as :func:`window_dataset` does: reading them shuffles within blocks only.
    The files get their names when all of them are complete; a run that fails leaves none. About 20,000 rows of 50
    values a second.

    Args:
        data: Columns by name, (n,) or (n, T), in a dictionary or frame; or a finite dataset of batches of such
            dictionaries, for example of :func:`window_dataset`. Integers (not uint64), booleans, float32 or smaller,
            strings: what a record holds exactly.
        prefix: "folder/train" gives "folder/train-00000-of-00002.tfrecord", and so on. The folder must exist.
        shards: The number of files.

    Returns:
        The paths of the files.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No columns or rows, columns of different lengths, an endless dataset, or values that a record
            does not hold exactly.

    Example:
        >>> import os, tempfile
        >>> arrays = {"item_id": np.array([3, 1, 2], np.int32)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = write_tfrecords(arrays, folder + "/train", shards=2)
        ...     columns = {"item_id": tf.TensorSpec([], tf.int32)}
        ...     batches = list(tfrecord_dataset(paths, columns, batch_size=3, shuffle_rows=0))
        >>> [os.path.basename(path) for path in paths]
        ['train-00000-of-00002.tfrecord', 'train-00001-of-00002.tfrecord']
        >>> batches[0]["item_id"].numpy().tolist()
        [3, 2, 1]
    """
    shards = positive_int("`shards`", shards)
    batches: Iterator[Any]
    if isinstance(data, tf.data.Dataset):
        if not isinstance(data.element_spec, Mapping):
            raise problem("`data`", "give dictionaries", repr(data.element_spec))
        if data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise problem("`data`", "come to an end", "a dataset that repeats for ever")
        batches = data.as_numpy_iterator()
    elif isinstance(data, Mapping) or is_frame(data):
        batches = iter([data])
    else:
        raise problem("`data`", "be columns by name or a tf.data.Dataset", type(data).__name__)
    if shards > _MOST_SHARDS:  # each is a file that is open
        raise problem("`shards`", f"be at most {_MOST_SHARDS}", shards)
    prefix = str(as_path("`prefix`", prefix))
    folder = Path(prefix).parent
    if not folder.is_dir():
        raise FileNotFoundError(f"`prefix` must be in a folder that exists; there is no {str(folder)!r}.")
    paths = [f"{prefix}-{shard:05d}-of-{shards:05d}.tfrecord" for shard in range(shards)]
    row = 0
    with ExitStack() as files, ExitStack() as opened:  # all are written and closed before one is put in its place
        unfinished = [files.enter_context(whole_file(Path(path))) for path in paths]
        writers = [opened.enter_context(tf.io.TFRecordWriter(str(path))) for path in unfinished]
        for batch in batches:
            for record in _records(batch):
                writers[row % shards].write(record)
                row += 1
        if not row:
            raise problem("`data`", "hold at least one row", "none")
    return paths


def tfrecord_dataset(
    paths: PathLike | Sequence[PathLike],
    columns: Mapping[str, tf.TensorSpec],
    batch_size: int,
    *,
    shuffle_rows: int = 131_072,
    seed: int = 0,
    epochs: int = 1,
    first_epoch: int = 0,
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Batches of files of ``tf.train.Example`` records, such as those of :func:`write_tfrecords`.

    Each pass draws an order of the files, reads up to 8 of them in turn, and shuffles all rows of a block of
    ``shuffle_rows`` rows. Three blocks of records are in memory at a time, and two in a saved iterator.

    Args:
        paths: One file, or several with the same columns.
        columns: name -> ``tf.TensorSpec(shape, dtype)`` of one row: shape [] or [T]. Records know only int64, float32
            and bytes; values are cast to the dtype asked for.
        batch_size: Rows in a batch, B; the last batch may be smaller.
        shuffle_rows: Rows in a block; 0 gives all rows in the order of the files.
        seed: Decides the order of the first pass, of the second, and so on.
        epochs: Passes in one iteration, as for :func:`window_dataset`.
        first_epoch: Passes that an earlier process has made, as for :func:`window_dataset`.
        drop_remainder: Leaves out a last batch that is smaller.

    Returns:
        A dataset of dictionaries: a column (B,) or (B, T). Its number of batches is not known beforehand, of which
        Keras 3 warns in ``fit``; whoever knows it says ``.apply(tf.data.experimental.assert_cardinality(batches))``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No files or columns, a column without a fixed shape, or a first record that does not fit them.
    """
    files, drop_remainder = _files(paths), as_flag("`drop_remainder`", drop_remainder)
    batch_size = positive_int("`batch_size`", batch_size)
    int_at_least("`shuffle_rows`", shuffle_rows, 0)
    if not isinstance(columns, Mapping) or not columns:
        raise problem("`columns`", "map at least one name to a tf.TensorSpec", repr(columns))
    features = {name: _feature(name, spec) for name, spec in columns.items()}
    _check_first_record(files[0], columns, features)

    def parse(records: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(records, features)
        return {name: tf.cast(parsed[name], spec.dtype) for name, spec in columns.items()}

    names = tf.constant(files)
    number = len(files)
    places = tf.data.Dataset.range(number)

    def one_pass(key: tf.Tensor) -> tf.data.Dataset:
        if not shuffle_rows:
            records = tf.data.TFRecordDataset(names, buffer_size=2**20)
            return records.batch(batch_size, drop_remainder=drop_remainder).map(parse)
        records = places.interleave(
            lambda place: tf.data.TFRecordDataset(names[_shuffled(place, key, number)], buffer_size=2**20),
            cycle_length=min(8, number),
            block_length=16,
        )
        # Not tf.data's own shuffle, which is slower and can't be saved where its seed is a tensor.
        blocks = records.batch(shuffle_rows).map(lambda block: _shuffled_block(block, key)).prefetch(1)
        return blocks.rebatch(batch_size, drop_remainder=drop_remainder).map(parse)

    return _passes(one_pass, seed, epochs, first_epoch)


def _passes(
    one_pass: Callable[[tf.Tensor], tf.data.Dataset],
    seed: int,
    epochs: int,
    first_epoch: int,
    batches: int | None = None,
) -> tf.data.Dataset:
    """``epochs`` times ``one_pass(key)``, each with the next key, (2,) int64, and each of ``batches`` batches.

    tf.data itself counts the passes, in C++, each time that the random numbers are iterated, and saves the count with
    an iterator that has not come to its end; so what reads ahead over an epoch's end comes after all epochs.
    """
    seed = int_at_least("`seed`", seed, 0)
    epochs = positive_int("`epochs`", epochs)
    keys = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(2).batch(2, drop_remainder=True)
    for _ in range(int_at_least("`first_epoch`", first_epoch, 0)):
        iter(keys)  # a pass that has been made
    # `keys` inside a flat_map is iterated when a batch is asked for. Keras makes iterators that it never asks.
    dataset = tf.data.Dataset.range(epochs).flat_map(lambda _: keys).flat_map(one_pass)
    if batches is not None:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches * epochs))
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)


def _shuffled(indices: tf.Tensor, key: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Where ``indices`` (int64, from 0 to number - 1) go in the permutation of ``key``."""
    key = tf.concat([key, tf.zeros([1], key.dtype)], 0)  # the op wants three numbers
    last = tf.cast(number - 1, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(index=indices, seed=key, max_index=last, rounds=_ROUNDS)


def _shuffled_block(records: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    number = tf.size(records, tf.int64)
    return tf.gather(records, _shuffled(tf.range(number), key, number))


def _cutter(
    interactions: Interactions, max_len: int, order: str, side: list[str], row_type: type
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """A function from rows, (B,) of ``row_type``, to their windows, in tensor operations."""
    users = tf.convert_to_tensor(interactions.users)
    starts = tf.convert_to_tensor(interactions.indptr.astype(row_type))
    # Row r of a column is at r + 1, so that what is padding can be taken from 0.
    items = _after_zero(interactions.items)
    histories = {f"hist_{name}": _after_zero(interactions.side[name]) for name in side}
    steps = tf.range(max_len, dtype=starts.dtype)[None, :]

    def cut(rows: tf.Tensor) -> dict[str, tf.Tensor]:
        user = tf.gather(users, rows)
        lengths = tf.minimum(rows - tf.gather(starts, user), max_len)
        if order == "recent_first":
            places = rows[:, None] - steps
        else:
            places = (rows - lengths + 1)[:, None] + steps
        places = tf.where(steps < lengths[:, None], places, tf.zeros([], places.dtype))
        return {
            interactions.user_name: user,
            interactions.item_name: tf.gather(items, rows + 1),
            f"hist_{interactions.item_name}": tf.gather(items, places),
            "hist_len": tf.cast(lengths, tf.int32),
            **{name: tf.gather(column, places) for name, column in histories.items()},
        }

    return cut


def _check_windows(interactions: Interactions, max_len: int, order: str, side: list[str]) -> None:
    """The checks of :func:`windows`, on one row, as it makes temporary columns of all rows."""
    first = replace(
        interactions,
        users=interactions.users[:1],
        items=interactions.items[:1],
        times=None,
        side={name: column[:1] for name, column in interactions.side.items()},
    )
    windows(first, [], max_len, order=order, side=side)


def _after_zero(column: np.ndarray) -> tf.Tensor:
    return tf.convert_to_tensor(np.concatenate([np.zeros(1, column.dtype), column]))


def _batch_size(value: Any, rows: int, drop_remainder: bool) -> int:
    size = positive_int("`batch_size`", value)
    if drop_remainder and size > rows:
        raise problem("`batch_size`", f"be at most the number of rows, {rows}, where the remainder is dropped", size)
    return size


def _files(paths: PathLike | Sequence[PathLike]) -> list[str]:
    if not isinstance(paths, str | os.PathLike | Iterable) or isinstance(paths, bytes):
        raise problem("`paths`", "be a path or a list of paths", shown(paths))
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files = [str(as_path("Each of `paths`", path)) for path in given]
    if not files:
        raise problem("`paths`", "name at least one file", "none")
    no_duplicates("`paths`", files)
    for file in files:
        if not os.path.isfile(file):
            raise FileNotFoundError(f"`paths` must be files that exist; there is no file {file!r}.")
    return files


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

    def read(self, groups: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
        """The rows of ``groups`` one after the other, row k put at ``places[k]``: one array a column."""
        number = len(places)
        out = {
            name: np.zeros([number, *spec.shape], object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)
            for name, spec in self.specs.items()
        }
        done = 0
        for place in groups:
            file, group = self._groups[place]
            # In small record batches, so that beside the block itself little is held.
            for batch in parquet_batches(file, _RECORD_BATCH, row_groups=[group], columns=list(self.specs)):
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


def _block_ends(rows: np.ndarray, least: int) -> np.ndarray:
    """Which of consecutive groups of ``rows`` each is the last of a block of at most ``least`` rows or of one group."""
    ends = np.zeros(len(rows), bool)
    held = 0
    for place, number in enumerate(rows.tolist()):
        if place and held + number > least:
            ends[place - 1] = True
            held = 0
        held += number
    ends[-1] = True
    return ends


def _records(batch: Any) -> Iterator[bytes]:
    """A batch of columns as serialized examples, one a row."""
    arrays = {name: _rectangle(name, values) for name, values in arrays_of("`data`", batch).items()}
    if not arrays:
        raise problem("`data`", "have at least one column", "none")
    rows = len(next(iter(arrays.values()))) if next(iter(arrays.values())).ndim else None
    makers: list[Callable[[int], tf.train.Feature]] = []
    for name, array in arrays.items():
        if array.ndim not in (1, 2) or len(array) != rows:
            raise problem(f"column {name!r}", f"be ({rows},) or ({rows}, T), as the first one is", str(array.shape))
        makers.append(_feature_maker(name, array))
    for row in range(rows or 0):
        features = dict(zip(arrays, (maker(row) for maker in makers), strict=True))
        yield tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def _rectangle(name: str, values: np.ndarray | Lists) -> np.ndarray:
    """Lists of one length as an array."""
    if isinstance(values, np.ndarray):
        return values
    lengths = np.unique(values.lengths)
    if len(lengths) > 1 or values.missing.any():
        got = "a missing list" if values.missing.any() else f"lists of {lengths[0]} to {lengths[-1]} values"
        raise problem(f"column {name!r}", "have as many values in every row", got, "Cut and pad them to one length.")
    return values.padded(int(lengths[0]) if len(lengths) else 0)


def _feature_maker(name: str, array: np.ndarray) -> Callable[[int], tf.train.Feature]:
    def values(row: int) -> Any:
        return np.atleast_1d(array[row])

    if array.dtype.kind in "iub" and array.dtype != np.uint64:
        return lambda row: tf.train.Feature(int64_list=tf.train.Int64List(value=values(row).astype(np.int64)))
    if array.dtype.kind == "f" and array.dtype.itemsize <= 4:
        return lambda row: tf.train.Feature(float_list=tf.train.FloatList(value=values(row).astype(np.float32)))
    if array.dtype.kind in "US" or (array.dtype == object and all(isinstance(v, str | bytes) for v in array.flat)):
        return lambda row: tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[tf.compat.as_bytes(value) for value in values(row).tolist()])
        )
    rule = "be integers (not uint64), booleans, float32 or strings, which records hold exactly"
    got = str(array.dtype) if array.dtype != object else pd.api.types.infer_dtype(array.ravel(), skipna=False)
    raise problem(f"column {name!r}", rule, got, "Convert it: column.astype('float32'), for example.")


def _feature(name: str, spec: Any) -> tf.io.FixedLenFeature:
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank not in (0, 1) or not spec.shape.is_fully_defined():
        raise problem(f"`columns`[{name!r}]", "be a tf.TensorSpec of one row, shape [] or [T]", repr(spec))
    if spec.dtype.is_integer or spec.dtype.is_bool:
        kind = tf.int64
    elif spec.dtype.is_floating:
        kind = tf.float32
    elif spec.dtype == tf.string:
        kind = tf.string
    else:
        raise problem(f"`columns`[{name!r}]", "be integers, floats, booleans or strings", spec.dtype.name)
    return tf.io.FixedLenFeature(spec.shape, kind)


def _check_first_record(file: str, columns: Mapping[str, tf.TensorSpec], features: Mapping[str, Any]) -> None:
    for record in tf.data.TFRecordDataset(file).take(1):
        there = tf.train.Example.FromString(record.numpy()).features.feature
        for name in columns:
            if name not in there:
                raise problem(f"column {name!r}", "be in the records", f"the columns {sorted(there)}")
            kind = there[name].WhichOneof("kind")
            length = len(getattr(there[name], kind).value) if kind else 0
            expected = {tf.int64: "int64_list", tf.float32: "float_list", tf.string: "bytes_list"}
            width = int(np.prod(columns[name].shape.as_list()))
            if kind != expected[features[name].dtype] or length != width:
                rule = f"be {width} values in {expected[features[name].dtype]}, as `columns` says"
                raise problem(f"column {name!r}", rule, f"{length} in {kind}")
