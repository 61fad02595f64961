"""Spark beside memory: preparing events, and recommendations for all users, on one machine.

    python benchmarks/spark.py                 # 20 million events, two workers
    python benchmarks/spark.py --millions 1    # a try

Each part in a process of its own, over the same Parquet file of events (50 a user, items Zipf-like, shuffled):

- memory: `Interactions.from_frame`, `leave_last_out`, and the training windows (T = 50), written by pyarrow.
- spark: `prepare`, `leave_last_out`, the training windows written by `write_windows`, and `item_counts`.
- equal: whether both wrote the same rows in the same order.
- recommend on spark, recommend in memory: 10 items for each user by one export of an untrained model (D = 64), seen
  items left out; whether the lists are the same.

Peak memory is that of the process and all that it started, at most, asked for twice a second. Needs an installed
`deepmatch_ext`, PySpark and Java.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np

MAX_LEN, DIM, ITEMS, OF_USER, N = 50, 64, 100_000, 50, 10


class Peak:
    """The most memory (proportional set size) that this process and its descendants took together, in MB."""

    def __enter__(self):
        self.most, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self):
        while not self._done.wait(0.5):
            self.most = max(self.most, sum(map(pss, descendants(os.getpid()))))


def descendants(root):
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found = {root}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def pss(process):
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def generate(folder, millions):
    """Events by raw ids, in no order; a user's times differ."""
    import pyarrow as pa
    import pyarrow.parquet

    rng, rows = np.random.default_rng(0), int(millions * 1_000_000)
    order = rng.permutation(rows)
    table = {
        "user_id": order // OF_USER * 7 + 3,
        "item_id": rng.zipf(1.2, rows) % ITEMS,
        "timestamp": order % OF_USER * 60 + 1_700_000_000,
    }
    pa.parquet.write_table(pa.table(table), folder / "events.parquet", row_group_size=1_000_000)


def session(workers, heap):
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {
        "spark.driver.memory": heap,
        "spark.sql.shuffle.partitions": "32",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    made = SparkSession.builder.master(f"local[{workers}]").config(map=settings).getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    return made


def timed(what, run):
    start, processor = time.perf_counter(), processor_seconds()
    result = run()
    wall, processor = time.perf_counter() - start, processor_seconds() - processor
    print(f"  {what}: {wall:.1f} s, {processor:.1f} s of processor time", flush=True)
    return result


def processor_seconds():
    """Of this process and all that it started and that still run: on a busy machine wall time says little."""
    total = 0
    for process in descendants(os.getpid()):
        try:
            user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
        except OSError:  # it has ended
            continue
        total += int(user) + int(system)
    return total / os.sysconf("SC_CLK_TCK")


def in_memory(folder, options):
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet

    from deepmatch_ext.data import Interactions, leave_last_out, windows

    def read():
        return Interactions.from_frame(pd.read_parquet(folder / "events.parquet"))

    interactions = timed("read and Interactions.from_frame", read)
    rows = timed("leave_last_out", lambda: leave_last_out(interactions).train_targets())

    def write():
        writer = None
        for start in range(0, len(rows), 1_000_000):
            columns = windows(interactions, rows[start : start + 1_000_000], MAX_LEN)
            hist = pa.FixedSizeListArray.from_arrays(pa.array(columns["hist_item_id"].ravel()), MAX_LEN)
            table = pa.table({**columns, "hist_item_id": hist})
            writer = writer or pa.parquet.ParquetWriter(folder / "memory.parquet", table.schema)
            writer.write_table(table, row_group_size=10_000)
        writer.close()

    timed(f"windows of {len(rows):,} rows, written", write)


def on_spark(folder, options):
    from deepmatch_ext.data.spark import prepare, write_windows

    spark = timed("a session", lambda: session(options.workers, options.heap))
    events = spark.read.parquet(str(folder / "events.parquet"))
    prepared = timed("prepare", lambda: prepare(events))
    split = timed("leave_last_out", prepared.leave_last_out)
    windows = prepared.windows(split.train_targets(), MAX_LEN)
    timed("windows, written", lambda: write_windows(windows, folder / "spark"))
    timed("item_counts", lambda: prepared.item_counts(split.train))
    spark.stop()


def equal(folder, options):
    files = sorted((folder / "spark").glob("*.parquet"))
    pairs = zip(rows_of([folder / "memory.parquet"]), rows_of(files), strict=True)
    number = 0
    for ours, theirs in pairs:
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name], err_msg=name)
        number += len(ours["hist_len"])
    print(f"  {number:,} rows are equal, in the same order")


def rows_of(files, rows=10_000):
    """The rows of Parquet files in blocks of equal size, wherever row groups end."""
    import pyarrow as pa
    import pyarrow.parquet

    held = None
    for file in files:
        for batch in pa.parquet.ParquetFile(file).iter_batches(rows):
            table = pa.Table.from_batches([batch])
            columns = {}
            for name in table.column_names:
                column = table[name].combine_chunks()
                flat = column.flatten() if pa.types.is_nested(column.type) else column
                columns[name] = flat.to_numpy().reshape(len(column), -1)
            held = columns if held is None else {k: np.concatenate([held[k], columns[k]]) for k in held}
            while len(held["hist_len"]) >= rows:
                yield {name: values[:rows] for name, values in held.items()}
                held = {name: values[rows:] for name, values in held.items()}
    yield held


def export(folder, items):
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    from deepmatch_ext import YoutubeDNN
    from deepmatch_ext.serving import export_recommender

    size = items.vocabulary_size
    history = SparseFeat("hist_item_id", size, DIM, embedding_name="item_id")
    model = YoutubeDNN(
        [VarLenSparseFeat(history, MAX_LEN, "mean", "hist_len")],
        [SparseFeat("item_id", size, DIM)],
        user_dnn_hidden_units=(128, DIM),
    )
    return export_recommender(model, folder / "export", item_ids=items, id_maps={"hist_item_id": items})


def recommend_on_spark(folder, options):
    from deepmatch_ext.data.spark import prepare, recommend

    spark = session(options.workers, options.heap)
    prepared = prepare(spark.read.parquet(str(folder / "events.parquet")))
    path = export(folder, prepared.item_ids)
    found = recommend(prepared.users(MAX_LEN), path, N)
    timed("users and recommend, written", lambda: found.write.parquet(str(folder / "recommended")))
    spark.stop()


def recommend_in_memory(folder, options):
    import pandas as pd
    import tensorflow as tf

    from deepmatch_ext.data import Interactions, seen_by_users, user_histories

    interactions = Interactions.from_frame(pd.read_parquet(folder / "events.parquet"))
    served = tf.saved_model.load(str(folder / "export" / "1"))
    users, raw = np.arange(1, interactions.num_users + 1), interactions.item_ids
    nobody = raw.no_item

    def run():
        found = []
        for start in range(0, len(users), 1024):
            part = users[start : start + 1024]
            x, (indptr, items) = user_histories(interactions, part, MAX_LEN), seen_by_users(interactions, part)
            numbers = np.diff(indptr)
            seen = np.full((len(part), numbers.max()), nobody)
            seen[np.arange(seen.shape[1]) < numbers[:, None]] = raw.decode(items)
            lists = served.signatures["recommend_unseen"](
                hist_item_id=tf.constant(raw.decode(x["hist_item_id"])),
                hist_len=tf.constant(x["hist_len"][:, None]),
                n=tf.constant(N),
                seen=tf.constant(seen),
            )
            found.append(lists["item_ids"].numpy())
        return np.concatenate(found)

    ids = timed(f"{len(users):,} users in the process", run)
    spark = pd.read_parquet(folder / "recommended").sort_values("user_id")
    assert (spark["user_id"].to_numpy() == interactions.user_ids.values).all()
    same = (np.stack(spark["item_ids"].to_list()) == ids).all(axis=1)
    print(f"  Spark gives {same.mean():.2%} of the users the same list")


PARTS = {
    "memory": in_memory,
    "spark": on_spark,
    "equal": equal,
    "recommend on spark": recommend_on_spark,
    "recommend in memory": recommend_in_memory,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=20, help="millions of events")
    parser.add_argument("--workers", type=int, default=2, help="threads of Spark, and Python workers")
    parser.add_argument("--heap", default="3g", help="memory of Java")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of: %(default)s")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        with Peak() as peak:
            PARTS[options.part](options.folder, options)
        print(f"  peak memory: {peak.most:,.0f} MB")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder, options.millions)
        for part in options.parts.split(","):
            print(f"{part}, {options.millions:g} million events", flush=True)
            subprocess.run([sys.executable, *sys.argv, "--part", part, "--folder", name], check=True)


if __name__ == "__main__":
    main()
