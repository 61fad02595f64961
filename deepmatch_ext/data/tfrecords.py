"""TFRecord files: written from columns, and a tf.data dataset of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from deepmatch_ext._checks import as_flag, as_path, existing_files, int_at_least, positive_int, problem
from deepmatch_ext._files import whole_file
from deepmatch_ext._frames import Lists, arrays_of, is_frame
from deepmatch_ext._passes import check_shard, check_weight, keyed_passes, shuffled, weighted

_MOST_SHARDS = 10_000


def write_tfrecords(data: Any, prefix: str | os.PathLike[str], shards: int = 1) -> list[str]:
    """Writes rows as ``tf.train.Example`` records, to ``shards`` files in turn.

    Give the rows in random order, as :func:`window_dataset` does: reading them shuffles within blocks only.
    The files get their final names only when all of them are complete, so a failed run leaves none. Writes about 20,000
    rows of 50 values per second.

    Args:
        data: Columns by name, (n,) or (n, T), in a dictionary or frame; or a finite dataset of batches of such
            dictionaries, for example of :func:`window_dataset`. Integers (not uint64), booleans, float32 or smaller,
            or strings: types that a record holds exactly.
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
            remedy = "Make the weights a column: data.map(lambda x, y, w: {**x, 'sample_weight': w})."
            raise problem("`data`", "hold dictionaries", repr(data.element_spec), remedy)
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
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    columns: Mapping[str, tf.TensorSpec],
    batch_size: int,
    *,
    weight: str | None = None,
    shuffle_rows: int = 131_072,
    seed: int = 0,
    epochs: int = 1,
    first_epoch: int = 0,
    drop_remainder: bool = False,
    batches: int | None = None,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of files of ``tf.train.Example`` records, such as those of :func:`write_tfrecords`.

    Each pass draws an order of the files, reads up to 8 of them in turn, and shuffles all rows of a block of
    ``shuffle_rows`` rows. Three blocks of records are in memory at a time, and two in a saved iterator.

    Args:
        paths: One file, or several with the same columns.
        columns: name -> ``tf.TensorSpec(shape, dtype)`` of one row: shape [] or [T]. Records hold only int64, float32
            and bytes; values are cast to the given dtype.
        batch_size: Rows in a batch, B; the last batch may be smaller.
        weight: The column that is the weight of each row in the loss, one of ``columns``: numbers, one in each row.
        shuffle_rows: Rows in a block; 0 returns all rows in the order of the files.
        seed: Determines the order of every pass.
        epochs: Passes in one iteration, as for :func:`window_dataset`.
        first_epoch: Passes that an earlier process has made, as for :func:`window_dataset`.
        drop_remainder: Whether a smaller last batch is left out.
        batches: The number of batches in a pass, which TFRecord files do not record. A pass ends after this number; a
            pass with fewer is an error. None: unknown, and Keras 3 warns about that in ``fit``.
        shard: (k, n): part k of n of the files, from 0, for training on n workers. Each worker reads only its own
            files: give at least n files with similar numbers of rows, as `write_tfrecords` makes them. ``batches`` must
            be given, since a worker that ends early leaves the others waiting.

    Returns:
        A dataset of dictionaries, column -> (B,) or (B, T). With a weight, tuples as ``fit`` takes them: such a
        dictionary without the weight, labels, which are all 1 (B, 1), and weights (B,).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No files or columns, a column without a fixed shape, or a first record that does not fit them; k not
            less than n in `shard`, fewer files than parts, or parts without `batches`.
        tf.errors.FailedPreconditionError: While the dataset is read: a pass has fewer batches than `batches`.
        tf.errors.InvalidArgumentError: While the dataset is read: a value does not fit the column's type.

    Example:
        >>> import tempfile
        >>> arrays = {"item_id": np.array([3, 1], np.int32), "price": np.array([9.5, 2.0], np.float32)}
        >>> paths = write_tfrecords(arrays, tempfile.mkdtemp() + "/train")
        >>> columns = {"item_id": tf.TensorSpec([], tf.int32), "price": tf.TensorSpec([], tf.float32)}
        >>> dataset = tfrecord_dataset(paths, columns, batch_size=2, weight="price", shuffle_rows=0)
        >>> for x, labels, weights in dataset:
        ...     print(x["item_id"].numpy(), labels.numpy().ravel(), weights.numpy())
        [3 1] [1. 1.] [9.5 2. ]
    """
    files, drop_remainder = existing_files("`paths`", paths), as_flag("`drop_remainder`", drop_remainder)
    batch_size = positive_int("`batch_size`", batch_size)
    int_at_least("`shuffle_rows`", shuffle_rows, 0)
    if not isinstance(columns, Mapping) or not columns:
        raise problem("`columns`", "map at least one name to a tf.TensorSpec", repr(columns))
    features = {name: _feature(name, spec) for name, spec in columns.items()}
    check_weight(weight, columns)
    _check_first_record(files[0], columns, features)
    batches = None if batches is None else positive_int("`batches`", batches)
    part, parts = check_shard(shard)
    if parts > len(files):
        raise problem("`paths`", f"be at least {parts} files, one for each part", f"{len(files)}")
    if parts > 1 and batches is None:
        remedy = "If the parts differ, give the number of the smallest."
        raise problem("`batches`", "be given with `shard`, the same for all parts", None, remedy)
    files = files[part::parts]

    def parse(records: tf.Tensor) -> dict[str, tf.Tensor]:
        parsed = tf.io.parse_example(records, features)
        return {name: _cast(name, parsed[name], spec.dtype) for name, spec in columns.items()}

    names = tf.constant(files)
    number = len(files)
    places = tf.data.Dataset.range(number)

    def one_pass(key: tf.Tensor) -> tf.data.Dataset:
        every = every_batch(key)
        if batches is None:
            return every
        return every.take(batches).apply(tf.data.experimental.assert_cardinality(batches))

    def every_batch(key: tf.Tensor) -> tf.data.Dataset:
        if not shuffle_rows:
            records = tf.data.TFRecordDataset(names, buffer_size=2**20)
            return records.batch(batch_size, drop_remainder=drop_remainder).map(parse)
        records = places.interleave(
            lambda place: tf.data.TFRecordDataset(names[shuffled(place, key, number)], buffer_size=2**20),
            cycle_length=min(8, number),
            block_length=16,
        )
        # Not tf.data's own shuffle, which is slower and can't be saved where its seed is a tensor.
        blocks = records.batch(shuffle_rows).map(lambda block: _shuffled_block(block, key)).prefetch(1)
        return blocks.rebatch(batch_size, drop_remainder=drop_remainder).map(parse)

    read = None if weight is None else lambda batch: weighted(batch, weight)
    return keyed_passes(one_pass, seed, epochs, first_epoch, batches, read, parts > 1)


def _shuffled_block(records: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    number = tf.size(records, tf.int64)
    return tf.gather(records, shuffled(tf.range(number), key, number))


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


def _cast(name: str, values: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The values in another type that holds them: floats are rounded, but not to infinity."""
    if values.dtype == dtype:
        return values
    cast = tf.cast(values, dtype)
    if dtype.is_floating:
        fits = tf.reduce_all(tf.math.is_finite(cast) == tf.math.is_finite(values))
    else:
        fits = tf.reduce_all(tf.cast(cast, values.dtype) == values)
    with tf.control_dependencies([tf.debugging.Assert(fits, [f"column {name!r} must hold values of {dtype.name}"])]):
        return tf.identity(cast)


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
