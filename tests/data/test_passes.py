"""Passes over windows, Parquet and TFRecord files: each row once, repeatable, and resumable in mid-epoch."""

import builtins
import dataclasses
import functools
import importlib.util
import operator
import os
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmatch_ext.data import (
    Interactions,
    parquet,
    parquet_dataset,
    tfrecord_dataset,
    window_dataset,
    windows,
    write_tfrecords,
)
from tests.fresh import run_python
from tests.helpers import window_arguments

pytestmark = pytest.mark.plain

ROWS, T = 300, 5

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")


def numbers(dataset):
    """A dataset as NumPy batches."""
    return [{name: value.numpy() for name, value in batch.items()} for batch in dataset]


def column(batches, name):
    return np.concatenate([batch[name] for batch in batches])


def assert_same(got, expected):
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], strict=True)


def cyclic(rows=ROWS, users=20):
    """Histories in which the next item follows from the last one; item ids 1..30."""
    sizes = np.full(users, rows // users)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    items = (np.arange(rows) + np.repeat(np.arange(users) * 7, sizes)) % 30 + 1
    return Interactions.from_sequences(indptr, items)


def numbered(rows=ROWS):
    """Interactions whose side column `row` is the row's own number, so that a batch says which rows it holds.

    Each user has two rows, and the rows asked for are the second ones: their history is the row before.
    """
    x = Interactions.from_sequences(np.arange(0, 2 * rows + 1, 2), np.ones(2 * rows, int))
    return Interactions(x.users, x.items, None, {"row": np.arange(2 * rows)}, x.user_ids, x.item_ids)


def numbered_dataset(rows=ROWS, batch_size=32, **options):
    return window_dataset(numbered(rows), np.arange(1, 2 * rows, 2), 1, batch_size, side=["row"], **options)


def rows_of(dataset):
    return [(batch["hist_row"][:, 0] // 2).tolist() for batch in numbers(dataset)]


@pytest.mark.slow
@pytest.mark.smoke
@settings(max_examples=15)
@given(window_arguments(min_rows=1), st.integers(1, 7))
def test_batches_equal_windows(case, batch_size):
    x, rows, max_len, order = case
    x = dataclasses.replace(x, times=np.arange(len(x)) * 2**33)
    options = {"order": order, "side": ["rating", "day", "liked"], "times": True}
    got = numbers(window_dataset(x, rows, max_len, batch_size, shuffle=False, **options))
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    assert_same(got, [windows(x, part, max_len, **options) for part in parts])


def test_shuffled_batches_equal_windows():
    # Item k + 1 is in row k alone, so each batch says which rows it holds.
    x = Interactions.from_sequences(np.arange(0, ROWS + 1, 20), np.arange(1, ROWS + 1))
    for batch in numbers(window_dataset(x, np.arange(ROWS), T, 64)):
        assert_same([batch], [windows(x, batch["item_id"] - 1, T)])


def test_the_specification_names_types_and_shapes():
    x = cyclic()
    dataset = window_dataset(x, np.arange(ROWS), T, 64, drop_remainder=True)
    expected = {name: (64, *values.shape[1:]) for name, values in windows(x, [0], T).items()}
    assert {name: tuple(spec.shape) for name, spec in dataset.element_spec.items()} == expected
    assert {spec.dtype for spec in dataset.element_spec.values()} == {tf.int32}
    assert int(dataset.cardinality()) == ROWS // 64
    assert int(window_dataset(x, np.arange(ROWS), T, 64).cardinality()) == -(-ROWS // 64)
    # Its thread is waited for at the end of every epoch.
    assert dataset.options().autotune.enabled is False


@pytest.mark.parametrize("rows", [1, 32, 33])
def test_each_pass_gives_every_row_once(rows):
    dataset = numbered_dataset(rows)
    for _ in range(3):
        batches = rows_of(dataset)
        assert sorted(functools.reduce(operator.iadd, batches, [])) == list(range(rows))
        assert [len(batch) for batch in batches] == [32] * (rows // 32) + [rows % 32] * (rows % 32 > 0)


def test_a_dropped_remainder_is_another_one_in_each_pass():
    dataset = numbered_dataset(70, drop_remainder=True)
    passes = [functools.reduce(operator.iadd, rows_of(dataset), []) for _ in range(3)]
    assert [len(set(rows)) for rows in passes] == [64] * 3
    assert len({frozenset(rows) for rows in passes}) == 3


def test_orders_differ_between_passes_and_seeds_and_repeat_with_the_seed():
    dataset = numbered_dataset(seed=1)
    first, second = rows_of(dataset), rows_of(dataset)
    assert first != second
    assert rows_of(numbered_dataset(seed=2)) != first
    assert rows_of(numbered_dataset(seed=1, epochs=2)) == first + second
    assert rows_of(numbered_dataset(seed=1, first_epoch=1)) == second
    assert rows_of(numbered_dataset(shuffle=False))[0] == list(range(32))


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("rows", [1000, 1_000_000])
def test_where_a_row_goes_says_nothing_of_its_neighbour(rows):
    # The first 1,000 places of 20 passes: by chance, the mean of 20 correlations is off 0 by 0.007 (1 sigma).
    # TensorFlow's own index_shuffle is off by 0.4 at 1,000,000 rows.
    one = Interactions.from_sequences([0, rows], np.ones(rows, int))
    x = Interactions(one.users, one.items, None, {"row": np.arange(rows)}, one.user_ids, one.item_ids)
    dataset = window_dataset(x, np.arange(rows), 1, 1000, side=["row"])
    firsts = [next(iter(dataset))["hist_row"].numpy()[:, 0] for _ in range(20)]
    assert abs(np.mean([np.corrcoef(first[:-1], first[1:])[0, 1] for first in firsts])) < 0.03
    # And they come from all parts of the rows: 16 cells, 20,000 places, chi-squared with 15 degrees of freedom.
    if rows > 1000:
        cells = np.bincount(np.concatenate(firsts) * 16 // rows, minlength=16)
        assert ((cells - 1250) ** 2 / 1250).sum() < 45


def check_saved_iterators(make, taken, batches, folder):
    """Iterators are saved after each of the numbers of batches in ``taken``; a copy that is restored gives the rest.

    The two datasets are made once, since to make one takes longest: each iteration of either goes on with a pass.
    """
    one, other = make(), make()
    for number in taken:
        iterator, copy = iter(one), iter(other)
        for _ in range(number):
            next(iterator)
        path = tf.train.Checkpoint(iterator=iterator).save(str(folder / f"after {number}" / "checkpoint"))
        tf.train.Checkpoint(iterator=copy).restore(path).assert_consumed()
        expected = numbers(iterator)
        assert len(expected) == batches - number
        assert_same(numbers(copy), expected)


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_saved_iterator_gives_exactly_the_rest(shuffle, tmp_path):
    check_saved_iterators(lambda: numbered_dataset(shuffle=shuffle), [0, 3, 10], 10, tmp_path)


@pytest.mark.slow
def test_a_saved_iterator_over_several_epochs_knows_their_orders(tmp_path):
    # Two batches are made ahead, so an iterator is saved on either side of an epoch's end.
    check_saved_iterators(lambda: numbered_dataset(epochs=3), [7, 8, 9, 10, 11, 13], 30, tmp_path)
    for folder in tmp_path.iterdir():  # the state is a few numbers, not an order of all rows
        assert sum(os.path.getsize(file) for file in folder.iterdir()) < 50_000


@pytest.mark.slow
@pytest.mark.once
def test_another_process_goes_on(tmp_path):
    tf.random.set_seed(7)  # which counts beside `seed`, and another test may have set
    x = Interactions.from_sequences(np.arange(0, 201, 2), np.ones(200, int))
    iterator = iter(window_dataset(x, np.arange(1, 200, 2), 1, 16, seed=3, epochs=2))
    for _ in range(4):
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "saved"))
    script = """
        import sys
        import numpy as np
        import tensorflow as tf
        from deepmatch_ext.data import Interactions, window_dataset

        tf.random.set_seed(7)
        x = Interactions.from_sequences(np.arange(0, 201, 2), np.ones(200, int))
        iterator = iter(window_dataset(x, np.arange(1, 200, 2), 1, 16, seed=3, epochs=2))
        tf.train.Checkpoint(iterator=iterator).restore(sys.argv[1]).assert_consumed()
        print([int(user) for batch in iterator for user in batch["user_id"]])
    """
    done = run_python("-c", textwrap.dedent(script), path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(column(numbers(iterator), "user_id").tolist())


def test_refusals_of_window_dataset():
    x = cyclic()
    with pytest.raises(ValueError, match=r"`rows` must be between 0 and 299; got 300"):
        window_dataset(x, [300], T, 4)
    with pytest.raises(ValueError, match="`rows` must hold at least one row; got none"):
        window_dataset(x, [], T, 4)
    with pytest.raises(ValueError, match="`max_len` must be an integer of at least 1; got 0"):
        window_dataset(x, [1], 0, 4)
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1; got 0"):
        window_dataset(x, [1], T, 0)
    with pytest.raises(ValueError, match=r"`batch_size` must be at most the number of rows, 2, .*; got 3"):
        window_dataset(x, [1, 2], T, 3, drop_remainder=True)
    with pytest.raises(ValueError, match="`order` must be one of"):
        window_dataset(x, [1], T, 4, order="newest")
    with pytest.raises(ValueError, match="side column 'rating' must be a side column"):
        window_dataset(x, [1], T, 4, side="rating")
    with pytest.raises(ValueError, match="`seed` must be an integer of at least 0; got -1"):
        window_dataset(x, [1], T, 4, seed=-1)
    with pytest.raises(ValueError, match="`epochs` must be an integer of at least 1; got 0"):
        window_dataset(x, [1], T, 4, epochs=0)
    with pytest.raises(ValueError, match="`first_epoch` must be an integer of at least 0; got None"):
        window_dataset(x, [1], T, 4, first_epoch=None)


@pytest.mark.slow
@pytest.mark.once
@settings(max_examples=10)
@given(st.integers(1, 70), st.integers(1, 9), st.integers(1, 3), st.booleans(), st.booleans())
def test_parts_of_windows_are_together_the_batches_of_one_process(rows, size, parts, shuffle, drops):
    arguments = {"shuffle": shuffle, "drop_remainder": drops, "seed": 5, "epochs": 2}
    x, targets = cyclic(), np.arange(100, 100 + rows)
    last = rows % (size * parts)

    def each_part():
        return [window_dataset(x, targets, T, size, shard=(part, parts), **arguments) for part in range(parts)]

    if (drops and size * parts > rows) or (not drops and 0 < last < parts):
        with pytest.raises(ValueError, match=r"`batch_size` must be at most|`rows` must leave a row for each of"):
            each_part()
        return
    whole = numbers(window_dataset(x, targets, T, size * parts, **arguments))
    divided = [numbers(dataset) for dataset in each_part()]
    assert {len(batches) for batches in divided} == {len(whole)}
    assert_same([{name: column(step, name) for name in step[0]} for step in zip(*divided, strict=True)], whole)
    for step in zip(*divided, strict=True):
        lengths = [len(batch["item_id"]) for batch in step]
        assert max(lengths) - min(lengths) <= 1


def test_a_part_is_not_divided_again():
    policies = tf.data.experimental.AutoShardPolicy
    for shard, policy in [(None, policies.DATA), ((0, 1), policies.DATA), ((1, 2), policies.OFF)]:
        dataset = window_dataset(cyclic(), [1, 2, 3, 4], T, 2, shard=shard)
        assert dataset.options().experimental_distribute.auto_shard_policy == policy


@pytest.mark.parametrize(
    ("shard", "words"),
    [
        ((2, 2), "k of `shard`, which part, must be less than n, 2; got 2. Parts count from 0"),
        ((3, 2), "k of `shard`, which part, must be less than n, 2; got 3"),
        ((-1, 2), "k of `shard`, which part, must be an integer of at least 0; got -1"),
        ((0, 0), "n of `shard`, the number of parts, must be an integer of at least 1; got 0"),
        ((0.0, 2), "k of `shard`, which part, must be an integer of at least 0; got 0.0"),
        ((0, 1, 2), r"`shard` must be a pair \(k, n\)"),
        (2, r"`shard` must be a pair \(k, n\): part k of n, from 0; got 2"),
        ("01", r"`shard` must be a pair \(k, n\): part k of n, from 0; got '01'"),
    ],
)
def test_wrong_parts_are_refused(shard, words, written):
    with pytest.raises(ValueError, match=words):
        window_dataset(cyclic(), [1, 2, 3, 4], T, 2, shard=shard)
    with pytest.raises(ValueError, match=words):
        records_of(written, shard=shard, batches=3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_len": 0},
        {"max_len": "3"},
        {"order": "newest"},
        {"side": ["rating"]},
        {"side": 3},
        {"side": ["row", "row"]},
        {"times": True},
        {"rows": [-1]},
        {"rows": [0.5]},
        {"interactions": [1, 2]},
    ],
)
def test_windows_and_a_dataset_of_them_refuse_alike(wrong):
    arguments = {"interactions": numbered(), "rows": [1], "max_len": 3, **wrong}
    with pytest.raises(ValueError, match=" must ") as one:
        windows(**arguments)
    with pytest.raises(ValueError, match=" must ") as other:
        window_dataset(**arguments, batch_size=4)
    assert str(one.value) == str(other.value)


def file_columns():
    """What files hold: a window of each row, with columns of other types."""
    columns = windows(cyclic(), np.arange(ROWS), T)
    columns["row"] = np.arange(ROWS)
    columns["hist_time"] = columns["hist_item_id"] * np.int64(2**33)
    columns["rating"] = np.linspace(0, 1, ROWS).astype(np.float32)
    columns["liked"] = np.arange(ROWS) % 3 == 0
    columns["city"] = np.array([f"é{row % 4}".encode() for row in range(ROWS)], object)
    return columns


def write_parquet(folder, columns=None, files=2, row_group_size=20, fixed=True):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = file_columns() if columns is None else columns

    def arrow(values):
        if isinstance(values, list) or values.ndim == 1:
            return pa.array(values)
        flat = pa.array(values.ravel())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if fixed else pa.array(list(values))

    table = pa.table({name: arrow(values) for name, values in columns.items()})
    paths = []
    for file in range(files):
        rows = table.num_rows // files
        paths.append(str(folder / f"part-{file}.parquet"))
        pq.write_table(table.slice(file * rows, rows), paths[-1], row_group_size=row_group_size)
    return paths


def write_records(folder, columns=None):
    return write_tfrecords(file_columns() if columns is None else columns, folder / "part", shards=3)


def record_specs(columns=None):
    columns = file_columns() if columns is None else columns
    return {
        name: tf.TensorSpec(values.shape[1:], tf.string if values.dtype == object else values.dtype)
        for name, values in columns.items()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder of Parquet files, if pyarrow is installed, and of records. Tests leave them as they are."""
    folder = tmp_path_factory.mktemp("written")
    write_records(folder)
    if importlib.util.find_spec("pyarrow") is not None:
        write_parquet(folder)
    return folder


def parquet_of(folder, batch_size=32, **options):
    paths = sorted(map(str, folder.glob("*.parquet")))
    return parquet_dataset(paths, batch_size, **{"shuffle_rows": 100, **options})


def records_of(folder, batch_size=32, **options):
    paths = sorted(map(str, folder.glob("*.tfrecord")))
    return tfrecord_dataset(paths, record_specs(), batch_size, **{"shuffle_rows": 100, **options})


both_files = pytest.mark.parametrize("make", [pytest.param(parquet_of, marks=needs_pyarrow), records_of])


@pytest.mark.smoke
@both_files
def test_files_give_back_what_was_written(make, written):
    expected = file_columns()
    for options in ({}, {"shuffle_rows": 0}):
        batches = numbers(make(written, **options))
        assert [len(batch["row"]) for batch in batches] == [32] * 9 + [12]
        assert list(batches[0]) == list(expected)
        order = np.argsort(column(batches, "row"))
        for name, values in expected.items():
            np.testing.assert_array_equal(column(batches, name)[order], values, strict=True)


@pytest.mark.slow
@pytest.mark.once
@both_files
def test_files_are_shuffled_repeatably(make, written):
    rows = [column(numbers(make(written, seed=seed)), "row").tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]
    dataset = make(written, seed=1)
    first, second = (column(numbers(dataset), "row").tolist() for _ in range(2))
    assert first == rows[0] != second
    assert sorted(second) == list(range(ROWS))
    # The first batch is a sample of a whole block of 100 rows, in no order.
    assert len({row // 20 for row in first[:32]}) > 3
    assert sorted(first[:32]) != first[:32]


@pytest.mark.slow
@pytest.mark.once
@both_files
def test_a_saved_iterator_over_files_gives_the_rest(make, written, tmp_path):
    check_saved_iterators(lambda: make(written, epochs=2), [4, 9, 13], 20, tmp_path)


@both_files
def test_a_remainder_of_files_is_dropped(make, written):
    dataset = make(written, drop_remainder=True)
    assert dataset.element_spec["hist_item_id"].shape == (32, T)
    assert [len(batch["row"]) for batch in numbers(dataset)] == [32] * 9


@pytest.mark.slow
@pytest.mark.once
@needs_pyarrow
@pytest.mark.parametrize(
    ("parts", "options"),  # seven parts of 300 rows are not equal, nor begin with a row group
    [(2, {"shuffle_rows": 100}), (7, {"shuffle_rows": 100}), (7, {"shuffle_rows": 0}), (7, {"drop_remainder": True})],
)
def test_parts_of_parquet_files_have_each_row_once_and_equal_batches(parts, options, written, monkeypatch):
    paths, read = sorted(map(str, written.glob("*.parquet"))), []
    batches_of = parquet.parquet_batches

    def watched(file, size, row_groups, **others):
        read.extend((file, group) for group in row_groups)
        return batches_of(file, size, row_groups=row_groups, **others)

    monkeypatch.setattr(parquet, "parquet_batches", watched)
    every, of_part = [], []
    for part in range(parts):
        read.clear()
        dataset = parquet_dataset(paths, 8, shard=(part, parts), seed=2, **options)
        batches = numbers(dataset)
        assert [len(batch["row"]) for batch in batches[:-1]] == [8] * (len(batches) - 1)
        assert int(dataset.cardinality()) == len(batches)
        every.append(column(batches, "row"))
        of_part.append(len(set(read)))
    assert len({len(rows) for rows in every}) == 1
    rows = np.concatenate(every)
    assert len(set(rows.tolist())) == len(rows)
    dropped = ROWS // parts % 8 if "drop_remainder" in options else 0
    assert len(rows) == (ROWS // parts - dropped) * parts
    groups = sum(pq_groups(path) for path in paths)
    assert max(of_part) <= -(-groups // parts) + 1  # each worker reads its own alone, and two of them in part


def pq_groups(path):
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).num_row_groups


@pytest.mark.slow
def test_parts_of_records_are_files_and_have_the_batches_that_are_asked_for(written):
    every = [column(numbers(records_of(written, 8, shard=(part, 3), batches=13)), "row") for part in range(3)]
    assert sorted(np.concatenate(every).tolist()) == list(range(ROWS))  # 100 rows each
    assert int(records_of(written, 8, batches=5, epochs=2).cardinality()) == 10
    assert [len(batch["row"]) for batch in numbers(records_of(written, 8, batches=5))] == [8] * 5
    with pytest.raises(tf.errors.FailedPreconditionError):
        numbers(records_of(written, 8, shard=(0, 3), batches=14))
    with pytest.raises(ValueError, match=r"`batches` must be given with `shard`, the same for all parts; got None"):
        records_of(written, shard=(0, 2))
    with pytest.raises(ValueError, match=r"`paths` must be at least 4 files, one for each part; got 3"):
        records_of(written, shard=(0, 4), batches=1)


@needs_pyarrow
def test_parquet_in_the_order_of_the_files(written):
    dataset = parquet_of(written, shuffle_rows=0)
    assert int(dataset.cardinality()) == 10
    assert column(numbers(dataset), "row").tolist() == list(range(ROWS))
    assert dataset.options().autotune.enabled is False


@needs_pyarrow
def test_parquet_lists_are_cut_and_padded(tmp_path, monkeypatch):
    lists = [[1, 2, 3, 4], [], [5], [6, 7, 8]]
    paths = write_parquet(tmp_path, {"hist": lists, "row": np.arange(4)}, files=1, row_group_size=2)
    (batch,) = numbers(parquet_dataset(paths, 4, columns=["hist"], max_len=3, shuffle_rows=0))
    assert batch["hist"].tolist() == [[1, 2, 3], [0, 0, 0], [5, 0, 0], [6, 7, 8]]
    # A row group that is read in parts, of which the second does not begin at the first value.
    monkeypatch.setitem(parquet_dataset.__globals__, "_RECORD_BATCH", 2)
    paths = write_parquet(tmp_path, {"hist": lists, "row": np.arange(4)}, files=1, row_group_size=4)
    (batch,) = numbers(parquet_dataset(paths, 4, max_len=3))
    assert sorted(batch["row"]) == [0, 1, 2, 3]
    assert sorted(batch["hist"].tolist()) == [[0, 0, 0], [1, 2, 3], [5, 0, 0], [6, 7, 8]]


@needs_pyarrow
def test_lists_of_a_slice_do_not_begin_at_the_first_value():
    import pyarrow as pa

    values = parquet_dataset.__globals__["_column_values"]
    part = pa.array([[1, 2, 3], [4], [5, 6]]).slice(1)
    assert values("hist", part, tf.TensorSpec([2], tf.int64)).tolist() == [[4, 0], [5, 6]]
    part = pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)).slice(1)
    assert values("hist", part, tf.TensorSpec([2], tf.int64)).tolist() == [[3, 4]]


@needs_pyarrow
def test_parquet_blocks_hold_whole_row_groups(tmp_path):
    # 10 groups of 30 rows; of blocks of 100 rows, each holds 3 groups: of the first 90 rows, 30 or none of each group.
    paths = write_parquet(tmp_path, row_group_size=30)
    rows = column(numbers(parquet_dataset(paths, 30, shuffle_rows=100)), "row")
    groups = []
    for start in (0, 90, 180):
        counts = np.bincount(rows[start : start + 90] // 30, minlength=10)
        assert sorted(counts.tolist()) == [0] * 7 + [30] * 3
        groups += np.flatnonzero(counts).tolist()
    assert groups != sorted(groups)


@needs_pyarrow
def test_a_damaged_parquet_file_is_named(tmp_path):
    paths = write_parquet(tmp_path)
    dataset = parquet_dataset(paths, 4, shuffle_rows=0)
    damaged = Path(paths[1])
    whole = damaged.read_bytes()
    for content in (b"", whole[:-9], b"\0" * 2000 + whole[2000:]):
        damaged.write_bytes(content)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"part-1.parquet' must be a whole Parquet file"):
            numbers(dataset)
    damaged.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"part-1.parquet' must be a whole Parquet file"):
        parquet_dataset(paths, 4)


@needs_pyarrow
def test_refusals_of_parquet_dataset(tmp_path):
    paths = write_parquet(tmp_path)
    with pytest.raises(ValueError, match="column 'shoe' must be in the files; got the columns"):
        parquet_dataset(paths, 4, columns=["shoe"])
    with pytest.raises(ValueError, match="`paths` must name at least one file; got none"):
        parquet_dataset([], 4)
    with pytest.raises(FileNotFoundError, match="there is no file 'nowhere"):
        parquet_dataset("nowhere.parquet", 4)
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1; got 0"):
        parquet_dataset(paths, 0)
    with pytest.raises(ValueError, match="`shuffle_rows` must be an integer of at least 0; got -1"):
        parquet_dataset(paths, 4, shuffle_rows=-1)
    with pytest.raises(ValueError, match="`max_len` must be an integer of at least 1; got 0"):
        parquet_dataset(paths, 4, max_len=0)
    (tmp_path / "lists").mkdir()
    lists = write_parquet(tmp_path / "lists", {"hist": [[1], [2, 3]]}, files=1)
    with pytest.raises(ValueError, match="column 'hist' must have a length"):
        parquet_dataset(lists, 4)
    with pytest.raises(ValueError, match=r"column 'row' must be int64 in all files, .*; got no such column"):
        parquet_dataset([*paths, *lists], 4, columns=["row"])
    dates = write_parquet(tmp_path / "lists", {"day": np.array(["2020-01-01"], "datetime64[s]")}, files=1)
    with pytest.raises(ValueError, match="column 'day' must be numbers, strings or lists of them; got timestamp"):
        parquet_dataset(dates, 4)
    gaps = write_parquet(tmp_path / "lists", {"item": [1, None]}, files=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="column 'item' must have no missing value; got 1"):
        list(parquet_dataset(gaps, 4))
    gaps = write_parquet(tmp_path / "lists", {"hist": [[1], [None]]}, files=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="column 'hist' must have no missing value in its lists"):
        list(parquet_dataset(gaps, 4, max_len=2))


def test_without_pyarrow_the_command_that_installs_it_is_named(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"parquet_dataset\(\) needs pyarrow: pip install"):
        parquet_dataset("events.parquet", 4)


def test_records_of_a_dataset_of_windows(tmp_path):
    x = cyclic()
    paths = write_tfrecords(window_dataset(x, np.arange(ROWS), T, 64, shuffle=False), str(tmp_path / "train"), 2)
    assert [os.path.basename(path) for path in paths] == [f"train-0000{k}-of-00002.tfrecord" for k in range(2)]
    expected = windows(x, [*range(0, ROWS, 2), *range(1, ROWS, 2)], T)
    got = numbers(tfrecord_dataset(paths, record_specs(expected), ROWS, shuffle_rows=0))
    assert_same(got, [expected])


def test_the_files_of_records_come_in_another_order_in_each_pass(tmp_path):
    paths = write_tfrecords({"row": np.arange(12)}, tmp_path / "part", shards=12)
    dataset = tfrecord_dataset(paths, {"row": tf.TensorSpec([], tf.int64)}, 12, shuffle_rows=1)
    orders = [column(numbers(dataset), "row").tolist() for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([7, 2**32 + 5], tf.int32),
        ([1, 300], tf.uint8),
        ([1, -1], tf.uint32),
        ([1, 2], tf.bool),
        ([1.0, 1e5], tf.float16),
    ],
)
def test_records_with_a_value_that_the_columns_type_does_not_hold_are_refused(tmp_path, values, dtype):
    values = np.float32(values) if dtype.is_floating else np.array(values)
    paths = write_tfrecords({"item": values}, tmp_path / "part")
    read = tfrecord_dataset(paths, {"item": tf.TensorSpec([], dtype)}, 1, shuffle_rows=0, epochs=1)
    batches = iter(read)
    assert next(batches)["item"].numpy() == values[0]
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"item.*must hold values of {dtype.name}"):
        next(batches)


def test_a_writer_that_fails_leaves_nothing_and_harms_nothing(tmp_path):
    paths = write_tfrecords({"item": np.arange(3)}, tmp_path / "part", 2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(str(path) for path in before) == paths

    def breaks_at_3(k):
        tf.debugging.assert_less(k, tf.constant(3, tf.int64))
        return {"item": k}

    with pytest.raises(tf.errors.InvalidArgumentError):
        write_tfrecords(tf.data.Dataset.range(5).batch(1).map(breaks_at_3), tmp_path / "part", 2)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_refusals_of_records(tmp_path):
    with pytest.raises(ValueError, match="`shards` must be an integer of at least 1; got 0"):
        write_tfrecords({"item": np.arange(3)}, tmp_path / "part", 0)
    with pytest.raises(ValueError, match=r"`data` must be columns by name or a tf.data.Dataset; got list"):
        write_tfrecords([1], tmp_path / "part")
    with pytest.raises(ValueError, match="`data` must hold dictionaries"):
        write_tfrecords(tf.data.Dataset.range(3), tmp_path / "part")
    with pytest.raises(ValueError, match="`data` must come to an end"):
        write_tfrecords(tf.data.Dataset.from_tensors({"item": [1]}).repeat(), tmp_path / "part")
    with pytest.raises(ValueError, match="`data` must hold at least one row; got none"):
        write_tfrecords({"item": np.arange(0)}, tmp_path / "part")
    with pytest.raises(ValueError, match="`data` must have at least one column; got none"):
        write_tfrecords({}, tmp_path / "part")
    with pytest.raises(ValueError, match=r"column 'user' must be \(3,\) or \(3, T\), .*; got \(2,\)"):
        write_tfrecords({"item": np.arange(3), "user": np.arange(2)}, tmp_path / "part")
    with pytest.raises(ValueError, match=r"column 'x' must be integers .*; got float64"):
        write_tfrecords({"x": np.zeros(3)}, tmp_path / "part")
    with pytest.raises(ValueError, match=r"column 'x' must be integers .*; got mixed"):
        write_tfrecords({"x": np.array(["a", None], object)}, tmp_path / "part")
    with pytest.raises(FileNotFoundError, match=r"`prefix` must be in a folder that exists; there is no '.*nowhere'"):
        write_tfrecords({"item": np.arange(3)}, tmp_path / "nowhere" / "part")
    assert not [*tmp_path.iterdir()]

    paths, row = write_records(tmp_path), {"row": tf.TensorSpec([], tf.int64)}
    with pytest.raises(ValueError, match=r"`columns` must map at least one name to a tf.TensorSpec"):
        tfrecord_dataset(paths, {}, 4)
    with pytest.raises(ValueError, match=r"`columns`\['row'\] must be a tf.TensorSpec of one row, shape \[\] or \[T\]"):
        tfrecord_dataset(paths, {"row": tf.TensorSpec([None], tf.int64)}, 4)
    with pytest.raises(ValueError, match="column 'shoe' must be in the records; got the columns"):
        tfrecord_dataset(paths, {"shoe": tf.TensorSpec([], tf.int64)}, 4)
    with pytest.raises(ValueError, match=r"column 'row' must be 3 values in int64_list, .*; got 1 in int64_list"):
        tfrecord_dataset(paths, {"row": tf.TensorSpec([3], tf.int64)}, 4)
    with pytest.raises(ValueError, match=r"column 'rating' must be 1 values in int64_list, .*; got 1 in float_list"):
        tfrecord_dataset(paths, {"rating": tf.TensorSpec([], tf.int64)}, 4)
    with pytest.raises(FileNotFoundError, match="there is no file 'nowhere'"):
        tfrecord_dataset(["nowhere"], row, 4)
    with pytest.raises(ValueError, match="`paths` must not repeat a name"):
        tfrecord_dataset([paths[0], paths[0]], row, 4)
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1; got 0"):
        tfrecord_dataset(paths, row, 0)


@pytest.mark.parametrize(("drop_remainder", "parts"), [(False, 1), (True, 1), (False, 2), (True, 3)])
def test_batches_of_rows_of_like_length_hold_each_row_once(drop_remainder, parts):
    rng = np.random.default_rng(0)
    starts = np.cumsum([0, *rng.integers(2, 40, 300)])
    interactions = Interactions.from_sequences(starts, rng.integers(1, 9, starts[-1]))
    rows, size = np.arange(1, len(interactions), 5), 6
    shapes, sizes = [], []
    for part in range(parts):
        arguments = {"shard": (part, parts)} if parts > 1 else {}
        batches = window_dataset(
            interactions, rows, 30, size, by_length=True, drop_remainder=drop_remainder, **arguments
        )
        read = [(batch["user_id"].numpy(), batch["hist_len"].numpy()) for batch in batches]
        assert len(read) == batches.cardinality()
        sizes.append([len(users) for users, _ in read])
        shapes += [(len(length), length.max(), length.sum()) for _, length in read]
    whole = size * parts
    assert sum(map(sum, sizes)) == (len(rows) // whole * whole if drop_remainder else len(rows))
    number, longest, total = np.array(shapes).T
    assert np.sum(number * longest) < 1.15 * np.sum(total)  # hardly any padding
    assert longest[:8].std() > 2  # not from the shortest to the longest


@pytest.mark.slow
@pytest.mark.once
@settings(deadline=None, max_examples=20)
@given(st.integers(1, 70), st.integers(1, 9))
def test_batches_of_rows_of_like_length_of_any_number(number, size):
    interactions = Interactions.from_sequences([0, 100], np.arange(1, 101))
    batches = window_dataset(interactions, np.arange(number), 5, size, by_length=True)
    found = np.concatenate([batch["item_id"].numpy() for batch in batches])
    np.testing.assert_array_equal(np.sort(found), interactions.items[:number])


def test_batches_of_rows_of_like_length_are_shuffled():
    interactions = Interactions.from_sequences([0, 3], [7, 8, 9])
    with pytest.raises(ValueError, match="`by_length` must be False"):
        window_dataset(interactions, [1, 2], 3, 2, by_length=True, shuffle=False)
