"""What goes in and what comes out, measured: the pipeline over many interactions, arrays beside it, vectors, rankings.

    python benchmarks/feeding.py                 # 20 million interactions; about five minutes and 5 GB
    python benchmarks/feeding.py --millions 1    # a try

Prints figures, each part in a process of its own:

- pipeline: `window_dataset` over generated interactions, histories of T = 50, batches of 1024: peak memory over the
  interpreter with TensorFlow loaded, time of a batch alone, and in `fit`: how long the steps wait for their input
  (TensorFlow's profiler, IteratorGetNext), and what a step takes with it and with one batch again and again, in turn.
- arrays: `fit` from a dictionary of NumPy arrays against `fit` from the pipeline, the same rows, in turn.
- vectors: `user_vectors` of a million users and `item_vectors` of a million items, against the time of the tower's
  matrix multiplication alone; and `evaluate_vectors` of 10,000 users over 100,000 items, against the product of
  users and items alone.

Needs an installed `deepmatch_ext`.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np

MAX_LEN, DIM, BATCH, ITEMS = 50, 64, 1024, 100_000


def memory(name):
    """MB of this process: VmRSS now, or VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def build():
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    from deepmatch_ext import YoutubeDNN
    from deepmatch_ext.optimizers import LazyAdam
    from deepmatch_ext.utils import sampledsoftmaxloss

    history = SparseFeat("hist_item_id", ITEMS + 1, DIM, embedding_name="item_id")
    model = YoutubeDNN(
        [VarLenSparseFeat(history, MAX_LEN, "mean", "hist_len")],
        [SparseFeat("item_id", ITEMS + 1, DIM)],
        user_dnn_hidden_units=(128, DIM),
        dnn_dropout=0.0,
    )
    model.compile(LazyAdam(1e-3), sampledsoftmaxloss)
    return model


def generated(millions):
    """Interactions of users with 50 events each, items Zipf-like."""
    from deepmatch_ext.data import Interactions

    rng, items = np.random.default_rng(0), np.empty(int(millions * 1_000_000), "int32")
    for start in range(0, len(items), 1_000_000):  # what draws them shall not count as the pipeline's memory
        part = items[start : start + 1_000_000]
        part[:] = rng.zipf(1.2, len(part)) % ITEMS + 1
    items[:ITEMS] = np.arange(1, ITEMS + 1)[: len(items)]
    return Interactions.from_sequences(np.arange(0, len(items) + 1, 50), items)


def seconds_of(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def pipeline(millions, steps=300):
    import tensorflow as tf

    from deepmatch_ext.data import leave_last_out, window_dataset

    model = build()  # what a program has loaded before it has any data
    before = memory("VmRSS")
    interactions = generated(millions)
    rows = leave_last_out(interactions).train_targets()
    dataset = window_dataset(interactions, rows, MAX_LEN, BATCH)
    batches = iter(dataset)
    one = {name: tf.constant(values) for name, values in next(batches).items()}
    alone = seconds_of(lambda: [next(batches) for _ in range(steps)]) / steps
    # The model's own memory comes with its first step; it is no part of the pipeline.
    over = memory("VmHWM") - before
    print(f"{len(interactions):,} interactions, {len(rows):,} rows, T = {MAX_LEN}, batch {BATCH}")
    print(
        f"peak memory over the interpreter with TensorFlow: {over:,.0f} MB; a batch alone, eager: {alone * 1e3:.2f} ms"
    )

    again = tf.data.Dataset.from_tensors(one).repeat(steps)
    options = tf.data.Options()
    options.autotune.enabled = False
    inputs = {"pipeline": dataset.take(steps), "one batch": again.with_options(options)}
    times = {name: [] for name in inputs}
    for name in inputs:
        model.fit(inputs[name].take(20), verbose=0)
    for _ in range(5):
        for name, each in inputs.items():
            times[name].append(seconds_of(lambda each=each: model.fit(each, verbose=0)) / steps * 1e3)
    added = statistics.median(a - b for a, b in zip(*times.values(), strict=True))
    middle = {name: statistics.median(values) for name, values in times.items()}
    print(
        ", ".join(f"a step from {name}: {value:.2f} ms" for name, value in middle.items()), f"; added: {added:.2f} ms"
    )
    waited, step = waiting(lambda: model.fit(inputs["pipeline"], verbose=0), steps)
    print(f"waiting for input, profiled: {waited:.2f} ms of a step of {step:.2f} ms: {waited / step:.1%}")


def waiting(run, steps):
    """Milliseconds a step in IteratorGetNext, and of a whole step, while profiled."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder, tf.profiler.experimental.ProfilerOptions(host_tracer_level=2))
        seconds = seconds_of(run)
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    total = 0
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            if "IteratorGetNext" in plane.event_metadata[event.metadata_id].name:
                total += event.duration_ps / 1e9
    return total / steps, seconds / steps * 1e3


def arrays(millions):
    from deepmatch_ext.data import leave_last_out, window_dataset, windows

    interactions = generated(min(millions, 1))
    rows = leave_last_out(interactions).train_targets()[: BATCH * 300]
    model = build()
    inputs = {
        "arrays": windows(interactions, rows, MAX_LEN),
        "pipeline": window_dataset(interactions, rows, MAX_LEN, BATCH),
    }
    times = {name: [] for name in inputs}

    def fit(x):
        model.fit(x, batch_size=BATCH if isinstance(x, dict) else None, verbose=0)

    for x in inputs.values():
        fit(x)
    for _ in range(5):
        for name, x in inputs.items():
            times[name].append(seconds_of(lambda x=x: fit(x)))
    ratio = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
    print(f"{len(rows):,} rows: fit from arrays takes {ratio:.2f} times what fit from the pipeline takes")


def vectors(_):
    import tensorflow as tf

    from deepmatch_ext.evaluation import evaluate_vectors

    model, rng, users = build(), np.random.default_rng(0), 1_000_000
    history = (rng.zipf(1.2, (users, MAX_LEN)) % ITEMS + 1).astype("int32")
    x = {"hist_item_id": history, "hist_len": np.full(users, MAX_LEN, "int32")}
    model.user_vectors({name: values[:5000] for name, values in x.items()})
    took = seconds_of(lambda: model.user_vectors(x))
    # What can't be less: gathering the rows of the histories and the tower's two multiplications, in the same blocks.
    table = tf.Variable(tf.random.normal([ITEMS + 1, DIM]))
    kernels = tf.random.normal([DIM, 128]), tf.random.normal([128, DIM])

    @tf.function
    def least(ids):
        pooled = tf.reduce_sum(tf.nn.embedding_lookup(table, ids), axis=1)
        return tf.nn.relu(pooled @ kernels[0]) @ kernels[1]

    least(history[:4096])
    plain = seconds_of(lambda: [least(history[s : s + 4096]).numpy() for s in range(0, users, 4096)])
    print(
        f"user_vectors of {users:,} users, T = {MAX_LEN}: {took:.1f} s; a padded look-up, sum, 2 matmuls: {plain:.1f} s"
    )
    took = seconds_of(model.item_vectors)
    weights = model.get_layer("table_item_id").get_weights()[0]
    plain = seconds_of(lambda: weights / np.linalg.norm(weights, axis=1, keepdims=True))
    print(f"item_vectors of {ITEMS:,} items: {took:.2f} s; normalised by NumPy: {plain:.2f} s")
    user, item = rng.normal(size=(10_000, DIM)).astype("float32"), rng.normal(size=(ITEMS, DIM)).astype("float32")
    targets = rng.integers(1, ITEMS, 10_000)
    took = seconds_of(lambda: evaluate_vectors(user, item, targets))
    plain = seconds_of(lambda: [user[s : s + 1024] @ item.T for s in range(0, 10_000, 1024)])
    print(f"ranking {ITEMS:,} items for 10,000 users: {took:.1f} s; the scores alone: {plain:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=20, help="of interactions (default: %(default)s)")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for part in (pipeline, arrays, vectors):
        process = context.Process(target=part, args=(args.millions,))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
