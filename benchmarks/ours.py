"""Step time of a model of deepmatch_ext, in a whole ``fit`` from NumPy arrays; prints one JSON line.

Usage: ours.py VOCABULARY BATCH DIM STEPS [--items I] [--steps-per-execution K] [--optimizer NAME] [--profile]
``--model`` is a builder's name, and its further arguments as JSON: ``--model 'ComiRec {"interest_extractor": "dr"}'``.
On tf-keras with TF_USE_LEGACY_KERAS=1. ``--users 1e5`` times the vectors of so many users, too.
``--profile`` prints the operations that take most of 20 more steps, before.
"""

import argparse
import inspect
import json
import os
import re
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from speed import HIDDEN, MAX_LEN, NUM_SAMPLED, USER_DIM, USERS, print_result, synthetic_input

import deepmatch_ext
from deepmatch_ext import optimizers
from deepmatch_ext.samplers import UniformSampler

PROFILED_STEPS = 20
TOP = 15


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("vocabulary", "batch", "dim", "steps"):
        parser.add_argument(name, type=lambda text: int(float(text)))
    parser.add_argument("--items", type=lambda text: int(float(text)), help="how many of the V occur in histories")
    parser.add_argument("--steps-per-execution", type=int, default=1)
    parser.add_argument("--optimizer", default="LazyAdam", help="of deepmatch_ext, or of Keras (default: %(default)s)")
    parser.add_argument("--model", default="YoutubeDNN")
    parser.add_argument("--users", type=lambda text: int(float(text)), help="whose vectors are computed, three times")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    x = synthetic_input(args.items or args.vocabulary, args.batch, args.steps)
    if args.items:
        for name in ("hist_item", "item"):
            x[name] *= args.vocabulary // args.items  # spread over the whole table

    model = built(args.model, args.vocabulary, args.dim)
    y = None if model.candidates else np.arange(len(x["item"])) % 2
    optimizer = getattr(optimizers if hasattr(optimizers, args.optimizer) else tf.keras.optimizers, args.optimizer)
    model.compile(optimizer(1e-3), steps_per_execution=args.steps_per_execution)

    def fit(steps):
        few = {name: values[: args.batch * steps] for name, values in x.items()}
        labels = None if y is None else y[: args.batch * steps]
        start, used = time.perf_counter(), time.process_time()
        model.fit(few, labels, batch_size=args.batch, shuffle=False, verbose=0)
        return time.perf_counter() - start, time.process_time() - used

    fit(3 * args.steps_per_execution)
    seconds, used = fit(args.steps)
    extra = {"steps_per_execution": args.steps_per_execution, "optimizer": args.optimizer, "model": args.model}
    extra["processor_ms_per_step"] = round(used / args.steps * 1e3, 3)  # of all threads
    if args.users:
        extra["user_vectors_s"] = encoding_seconds(model, x, args.users)
    if args.profile:
        extra["profile"] = profile(lambda: fit(PROFILED_STEPS)[0], min(PROFILED_STEPS, args.steps))
        for line in extra["profile"]:
            print(f"{line['ms']:9.3f} ms a step  x{line['times']:<5.1f} {line['operation']}")
    keras = "keras" if hasattr(tf.keras, "Operation") else "tf-keras"
    versions = {name: version(name) for name in ("tensorflow", keras)}
    print_result("ours", args, x, seconds, versions, **extra)


def built(model, vocabulary, dim):
    """The model with the sizes of `speed`, and without dropout, since the peers have none."""
    name, _, further = model.partition(" ")
    builder = getattr(deepmatch_ext, name)
    takes = inspect.signature(builder).parameters
    # The sums of a factorization machine are of embeddings of one size.
    user = SparseFeat("user_id", USERS, dim if name == "FM" else USER_DIM)
    history = SparseFeat("hist_item", vocabulary, dim, embedding_name="item")
    arguments = {
        "user_dnn_hidden_units": (HIDDEN, dim),
        "units": dim,
        "dnn_dropout": 0.0,
        "dropout_rate": 0.0,
        **({"item_dnn_hidden_units": (HIDDEN, dim)} if name == "DSSM" else {}),
        "sampler_config": UniformSampler(NUM_SAMPLED),
        **(json.loads(further) if further else {}),
    }
    columns = [user, VarLenSparseFeat(history, MAX_LEN, "mean", "hist_len")]
    given = {key: value for key, value in arguments.items() if key in takes}
    return builder(columns, [SparseFeat("item", vocabulary, dim)], **given)


def encoding_seconds(model, x, users):
    """The median of three passes over users whose histories are those of the input, again and again."""
    rows = np.arange(users) % len(x["item"])
    of_users = {name: values[rows] for name, values in x.items() if name != "item"}
    seconds = []
    for _ in range(4):  # the first one traces
        start = time.perf_counter()
        model.user_vectors(of_users)
        seconds.append(time.perf_counter() - start)
    return round(float(np.median(seconds[1:])), 3)


def profile(run, steps):
    """The operations that take longest in ``run()``, with milliseconds and calls a step; the first line is all."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    milliseconds, times = Counter(), Counter()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder, tf.profiler.experimental.ProfilerOptions(host_tracer_level=2))
        seconds = run()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            name = plane.event_metadata[event.metadata_id].name
            if re.fullmatch(r"[\w/.]+:[A-Z_]\w+", name):  # an operation of the graph: path/name:Type
                name = name.removeprefix("StatefulPartitionedCall/")
                milliseconds[name] += event.duration_ps / 1e9 / steps
                times[name] += 1 / steps
    total = f"all operations, over all threads; the step takes {seconds / steps * 1e3:.2f} ms while profiled"
    lines = [(total, sum(milliseconds.values()), sum(times.values()))]
    lines += [(name, ms, times[name]) for name, ms in milliseconds.most_common(TOP)]
    return [{"operation": name, "ms": round(ms, 3), "times": round(count, 1)} for name, ms, count in lines]


if __name__ == "__main__":
    main()
