"""YoutubeDNN on several workers, which give what one process gives: started from one command, on this machine::

    python examples/run_distributed.py --workers 2

On several machines, start a worker on each with an environment variable ``TF_CONFIG`` of its own, as Kubernetes, Ray
Train and others set it. What a worker runs is `train`; nothing in it knows how it was started. docs/distributed.md says
who sends what, and when it is worth it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

MAX_LEN = 20  # how much of a history the model sees
DIM = 16
LARGEST_DIFFERENCE = 1e-4  # of L2-normalised item vectors: floats are added in another order


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the example; returns the exit status: 0, 1 if the results differ or a worker failed, 2 for bad arguments."""
    parser = argparse.ArgumentParser(description="Trains on several workers, and in one process, and compares.")
    parser.add_argument("--workers", type=int, default=2, help="processes, each with a part of every batch")
    parser.add_argument("--batch", type=int, default=256, help="rows per step, over all workers")
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--train-into", help=argparse.SUPPRESS)  # a file: this process is one of those that train
    args = parser.parse_args(argv)
    if min(args.workers, args.users, args.epochs) < 1 or args.batch % args.workers or args.batch < 1:
        complaint = "--workers, --users and --epochs must be at least 1, and --batch a multiple of --workers"
        print(f"run_distributed.py: error: {complaint}", file=sys.stderr)
        return 2
    if args.train_into:
        train(args.batch, args.users, args.epochs, Path(args.train_into))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return compare(args.workers, [*(sys.argv[1:] if argv is None else argv)], Path(folder))


def train(batch: int, users: int, epochs: int, path: Path) -> None:
    """Trains, as one of several workers where ``TF_CONFIG`` says so, and writes item vectors and the model."""
    import numpy as np
    import tensorflow as tf

    several = "TF_CONFIG" in os.environ
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if several else tf.distribute.get_strategy()

    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    from deepmatch_ext import YoutubeDNN, data
    from deepmatch_ext.optimizers import LazyAdam

    interactions = data.synthetic_interactions(users, 1_000, seed=1).interactions
    rows = data.leave_last_out(interactions).train_targets()
    vocabulary_size = interactions.item_vocabulary_size

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        """This worker's part of every batch: it cuts no window that another one trains on."""
        windows = data.window_dataset(
            interactions,
            rows,
            MAX_LEN,
            context.get_per_replica_batch_size(batch),
            drop_remainder=True,
            shard=(context.input_pipeline_id, context.num_input_pipelines),
        )
        return windows.map(lambda x: {name: x[name] for name in ("item_id", "hist_item_id", "hist_len")})

    history = SparseFeat("hist_item_id", vocabulary_size, DIM, embedding_name="item_id")
    with strategy.scope():
        model = YoutubeDNN(
            [VarLenSparseFeat(history, MAX_LEN, "recency+last", "hist_len")],
            [SparseFeat("item_id", vocabulary_size, DIM)],
            dnn_dropout=0.0,  # each replica would drop other values
        )
        model.compile(LazyAdam(0.01))
    began = time.perf_counter()
    losses = model.fit(dataset, epochs=epochs, verbose=0).history["loss"]
    seconds = time.perf_counter() - began
    replicas = strategy.num_replicas_in_sync
    name = f"worker {strategy.cluster_resolver.task_id}" if several else "one process"
    print(
        f"{name}: {replicas} replicas, losses {[round(float(loss), 4) for loss in losses]}, {seconds:.1f} s", flush=True
    )
    np.save(path, model.item_vectors())
    if several:
        model.save(path.with_name("model.keras"))  # all call it, and the first worker writes the file


def compare(workers: int, arguments: list[str], folder: Path) -> int:
    """Starts the workers and then one process, and says whether their item vectors are the same."""
    import numpy as np

    if not succeed([worker_command(arguments, folder / f"{k}.npy") for k in range(workers)], tf_configs(workers)):
        return 1
    if not succeed([worker_command(arguments, folder / "one.npy")], [None]):
        return 1
    one, *several = (np.load(folder / f"{name}.npy") for name in ("one", *range(workers)))
    difference = max(float(np.abs(one - vectors).max()) for vectors in several)
    same = difference <= LARGEST_DIFFERENCE
    found = "are the same" if same else "DIFFER"
    print(f"{workers} workers and one process: item vectors {found}, {difference:.1e} apart at most")
    return 0 if same else 1


def worker_command(arguments: list[str], path: Path) -> list[str]:
    return [sys.executable, __file__, *arguments, "--train-into", str(path)]


def tf_configs(workers: int) -> list[str]:
    """``TF_CONFIG`` of each worker: where all of them are, and which one it is."""
    with ExitStack() as stack:  # all ports are taken before one is given back
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]}
    return [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": k}}) for k in range(workers)]


def succeed(commands: list[list[str]], configs: Sequence[str | None]) -> bool:
    """Runs processes at the same time; one that fails ends the others. Whether all of them succeeded."""
    processes: list[subprocess.Popen[Any]] = []
    try:
        for command, config in zip(commands, configs, strict=True):
            environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
            environment["CUDA_VISIBLE_DEVICES"] = "-1"  # the workers would share a GPU of this machine
            processes.append(
                subprocess.Popen(command, env=environment if config is None else {**environment, "TF_CONFIG": config})
            )
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                print("A worker failed; the others are ended.", file=sys.stderr)
                return False
            time.sleep(0.1)
        return not any(process.returncode for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
