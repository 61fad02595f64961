"""What an export and the server of the examples do, measured: smaller vectors, and load over HTTP.

    python benchmarks/serving.py vectors --data ml-100k    # about three minutes
    python benchmarks/serving.py load                      # about two; needs `hey` (Debian's package of that name)

- vectors: item vectors kept as float32, float16 and int8: how many of each user's best 10 and 100 stay the same, and
  what that does to HR@10 and Recall@50, through the exported signature; mean of three seeds. Each user's last item is
  held out, and when to stop is chosen on the item before it.
- load: `examples/serve.py` on this machine, with the load generator beside it: 30 s at saturation, 30 s while a new
  version takes over, and 30 s at half of saturation. Requests carry a history of 50 items and leave these out; 10 items
  are asked for. Requests a second, latencies in ms, failures.

Needs an installed `deepmatch_ext`, and for the load its extra `serve`.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN, data
from deepmatch_ext.evaluation import RetrievalMetrics
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.serving import VECTOR_DTYPES, export_recommender
from deepmatch_ext.utils import sampledsoftmaxloss

SERVER = Path(__file__).resolve().parents[1] / "examples" / "serve.py"
MAX_LEN, DIM = 50, 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["vectors", "load"])
    parser.add_argument("--data", help="vectors: a MovieLens folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--items", type=int, default=100_000, help="load: in the catalogue (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=30, help="load: of each measurement (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=32, help="load: at saturation (default: %(default)s)")
    args = parser.parse_args()
    if args.part == "vectors" and args.data is None:
        parser.error("vectors needs --data")
    with tempfile.TemporaryDirectory() as folder:
        vectors(args, Path(folder)) if args.part == "vectors" else load(args, Path(folder))


def build(items):
    history = SparseFeat("hist_item_id", items + 1, DIM, embedding_name="item_id")
    model = YoutubeDNN(
        [VarLenSparseFeat(history, MAX_LEN, "recency+last", "hist_len")], [SparseFeat("item_id", items + 1, DIM)]
    )
    model.compile(LazyAdam(1e-3), sampledsoftmaxloss)
    return model


def vectors(args, folder):
    events = data.read_dataset(args.data).interactions
    split = data.leave_last_out(events)
    train = data.windows(events, split.train_targets(), MAX_LEN)
    validation, test = (data.windows(events, rows, MAX_LEN) for rows in (split.validation, split.test))
    indptr, had = data.seen_before(events, split.test)
    seen = np.zeros((len(split.test), np.diff(indptr).max()), np.int64)  # padded with 0
    for user, (start, stop) in enumerate(itertools.pairwise(indptr)):
        seen[user, : stop - start] = had[start:stop]
    rows = []
    for seed in args.seeds:
        tf.keras.utils.set_random_seed(seed)
        model = build(events.num_items)
        watch = RetrievalMetrics(
            validation,
            validation["item_id"],
            seen=data.seen_before(events, split.validation),
            ns=[10],
            patience=4,
            restore_best_weights=True,
        )
        model.fit(train, batch_size=1024, epochs=30, callbacks=[watch], verbose=0)
        best = {}
        for dtype in VECTOR_DTYPES:
            served = tf.saved_model.load(str(export_recommender(model, folder, vector_dtype=dtype)))
            user = {
                "hist_item_id": tf.constant(test["hist_item_id"], tf.int32),
                "hist_len": tf.constant(test["hist_len"].reshape(-1, 1), tf.int32),
            }
            found = served.signatures["recommend_unseen"](**user, n=tf.constant(100), seen=tf.constant(seen))
            best[dtype] = found["item_ids"].numpy()
            hit = best[dtype] == test["item_id"].reshape(-1, 1)
            rows.append(
                [
                    VECTOR_DTYPES.index(dtype),
                    overlap(best["float32"], best[dtype], 10),
                    overlap(best["float32"], best[dtype], 100),
                    hit[:, :10].any(axis=1).mean(),
                    hit[:, :50].any(axis=1).mean(),
                ]
            )
    rows = np.array(rows)
    print("| item vectors | bytes an item | of the best 10 | of the best 100 | HR@10 | Recall@50 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for place, (dtype, size) in enumerate(zip(VECTOR_DTYPES, (4 * DIM, 2 * DIM, DIM + 4), strict=True)):
        means = rows[rows[:, 0] == place, 1:].mean(axis=0)
        print(f"| {dtype} | {size} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |")


def overlap(exact, other, n):
    """How many of each row's first n are the same items, on average, as a share."""
    return np.mean([len(np.intersect1d(a, b)) / n for a, b in zip(exact[:, :n], other[:, :n], strict=True)])


def load(args, folder):
    if shutil.which("hey") is None:
        sys.exit("`hey` is not installed: apt-get install hey")
    rng = np.random.default_rng(0)
    export = export_recommender(build(args.items), folder / "export")
    had = rng.integers(1, args.items + 1, MAX_LEN).tolist()
    body = folder / "body.json"
    body.write_text(json.dumps({"user": {"hist_item_id": had}, "n": 10, "seen": had}))
    log = folder / "log.txt"
    with log.open("w") as out:
        command = [sys.executable, str(SERVER), str(export.parent), "--port", "0"]
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        while not (port := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())):
            if server.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.1)
        url = f"http://127.0.0.1:{port[1]}/recommend"
        print(f"{args.items} items, D = {DIM}, histories of {MAX_LEN}; {os.cpu_count()} cores for server and generator")
        print("| | requests a second | p50 | p99 | slowest | failed | load average before |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        hammer(url, body, 3, args.clients)
        saturated = row("saturation", hammer(url, body, args.seconds, args.clients))
        # A copy, renamed when it is whole, as an export is.
        copy = f"sleep {args.seconds / 3} && cp -r 1 .2 && mv .2 2"
        with subprocess.Popen(["sh", "-c", copy], cwd=export.parent):
            row("saturation, a new version", hammer(url, body, args.seconds, args.clients))
        clients = max(1, args.clients // 2)
        row("half of saturation", hammer(url, body, args.seconds, clients, saturated / 2 / clients))
        print(re.findall(r"Version 2.*", log.read_text()) or "The new version was NOT served")
    finally:
        server.terminate()
        server.wait()


def hammer(url, body, seconds, clients, rate=None):
    """What `hey` says of some seconds of load; with a rate, so many requests a second from each client."""
    before = os.getloadavg()[0]
    command = ["hey", "-z", f"{seconds}s", "-c", str(clients), "-m", "POST", "-T", "application/json", "-D", str(body)]
    limit = [] if rate is None else ["-q", f"{rate:.2f}"]
    said = subprocess.run([*command, *limit, url], capture_output=True, text=True, check=True).stdout
    statuses = {int(status): int(count) for status, count in re.findall(r"\[(\d+)\]\s+(\d+) responses", said)}
    errors = said.partition("Error distribution")[2]
    return {
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1]),
        **{f"p{p}": 1000 * float(re.search(rf" {p}%+ in ([\d.]+) secs", said)[1]) for p in (50, 99)},
        "slowest": 1000 * float(re.search(r"Slowest:\s+([\d.]+)", said)[1]),
        "failed": sum(statuses.values()) - statuses.get(200, 0) + sum(map(int, re.findall(r"\[(\d+)\]", errors))),
        "before": before,
    }


def row(name, result):
    """Prints a line of the table; returns the requests a second."""
    print(
        f"| {name} | {result['rate']:.0f} | {result['p50']:.1f} | {result['p99']:.1f} | {result['slowest']:.0f} "
        f"| {result['failed']} | {result['before']:.1f} |",
        flush=True,
    )
    return result["rate"]


if __name__ == "__main__":
    main()
