"""Kills training at random moments and looks at what is left: python benchmarks/faults.py

A run trains with ``BackupAndRestore`` and saves its model after every epoch. It is killed (SIGKILL) again and again,
started again each time, and let through in the end. The moments are random, counted from the first step that a process
makes; every second kill waits for the next file that is being written in the place of a former one. Afterwards:

    read, lost  the files of the model that could and could not be read after a kill; none may be lost
    resumed     the runs whose weights ended equal, bit for bit, to those of a run that nothing disturbed; all must
    in a save   the kills that fell into the writing of a file, seen by the unfinished file that they left
    after       the seconds that the other workers took to end after a kill; none may be alive after two minutes

Options: ``--kills N`` (20), ``--runs N`` (5, or a few more) that they are spread over, ``--workers N`` (1): with 2, a
run is two workers under ``MultiWorkerMirroredStrategy``, of which a random one is killed, ``--seed N``, ``--rows N``,
``--items N``, ``--epochs N`` (12). ``TF_USE_LEGACY_KERAS=1`` does it with tf-keras.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE, DIM, MAX_LEN = 256, 16, 10
AT_MOST = 120  # seconds that the others of a killed worker may take to end


def train(connection: Connection, folder: Path, rows: int, items: int, epochs: int, config: str | None) -> None:
    """Trains, or goes on where the processes before were killed: one process, or the worker of a ``TF_CONFIG``."""
    with open(folder / "errors.txt", "a") as errors:
        os.dup2(errors.fileno(), sys.stderr.fileno())
    from unittest import mock

    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if config is not None:
        os.environ["TF_CONFIG"] = config
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with mock.patch("threading.Thread.start"):
        from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    from deepmatch_ext import YoutubeDNN
    from deepmatch_ext.optimizers import LazyAdam
    from deepmatch_ext.utils import sampledsoftmaxloss

    rng = np.random.default_rng(0)
    x = {
        "hist_item": rng.integers(1, items, (rows, MAX_LEN)).astype("int32"),
        "hist_len": rng.integers(1, MAX_LEN + 1, rows).astype("int32"),
        "item": rng.integers(1, items, rows).astype("int32"),
    }
    x["hist_item"][np.arange(MAX_LEN) >= x["hist_len"][:, None]] = 0
    history = SparseFeat("hist_item", items, DIM, embedding_name="item")
    user = [VarLenSparseFeat(history, MAX_LEN, "recency+last", "hist_len")]
    with strategy.scope():
        model = YoutubeDNN(user, [SparseFeat("item", items, DIM)], history_dropout=0.2)
        model.compile(LazyAdam(1e-2), sampledsoftmaxloss)

    class Begun(tf.keras.callbacks.Callback):
        """Says so once, when all is traced and restored and the first step is made."""

        at = 0.0

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if not self.at:
                self.at = time.perf_counter()
                connection.send("training")

    begun = Begun()
    callbacks = [
        begun,
        tf.keras.callbacks.BackupAndRestore(str(folder / "backup")),
        tf.keras.callbacks.ModelCheckpoint(str(folder / "model.keras")),
    ]
    model.fit(x, batch_size=BATCH_SIZE, epochs=epochs, verbose=0, callbacks=callbacks)
    seconds = time.perf_counter() - begun.at
    if strategy.extended.should_checkpoint:  # the first of several workers, or one process
        np.savez(folder / "unfinished.npz", *model.get_weights())
        os.replace(folder / "unfinished.npz", folder / "final.npz")
    connection.send(seconds)
    with suppress(EOFError):  # a worker that ends at once closes sockets that another may still read from
        connection.recv()


class Run:
    """A run in a folder of its own: one process, or several workers, after another."""

    def __init__(self, folder: Path, rows: int, items: int, epochs: int, workers: int) -> None:
        folder.mkdir()
        self.folder, self.processes, self._connections = folder, [], []
        self._sizes, self._workers = (rows, items, epochs), workers

    def start(self) -> list[Any]:
        """Starts the processes, and waits until each has said that it made its first step, or came to the end."""
        # Forked from a process that has imported TensorFlow, which takes longer than all else.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tensorflow"])
        cluster = {"worker": free_addresses(self._workers)}
        self.processes, self._connections = [], []
        for index in range(self._workers):
            config = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
            here, there = context.Pipe()
            arguments = (there, self.folder, *self._sizes, config if self._workers > 1 else None)
            self.processes.append(context.Process(target=train, args=arguments))
            self._connections.append(here)
            self.processes[-1].start()
            there.close()
        return [self._hear(place) for place in range(self._workers)]

    def finish(self) -> float:
        """Lets the processes through to the end. Gives the seconds since the first step."""
        said = [self._hear(place) if word == "training" else word for place, word in enumerate(self.start())]
        self.end()
        return max(said)

    def _hear(self, place: int) -> Any:
        try:
            return self._connections[place].recv()
        except EOFError:
            self.processes[place].join()
            raise RuntimeError(f"a process ended early:\n{self.errors()}") from None

    def end(self) -> float:
        """Waits for what still runs to come to its end, for a limited time; gives the seconds."""
        began = time.perf_counter()
        for connection in self._connections:
            connection.close()
        for process in self.processes:
            process.join(max(0.0, AT_MOST - (time.perf_counter() - began)))
        seconds = time.perf_counter() - began
        for process in self.processes:
            process.kill()
            process.join()
        return seconds

    def wait_for_a_save(self, process: Any, before: set[Path]) -> None:
        """Waits until a file is being written while there is a former one, or the process ends."""
        model = self.folder / "model.keras"
        while not (model.exists() and unfinished_files(self.folder) - before):
            if not process.is_alive() or (self.folder / "final.npz").exists():
                return
            time.sleep(0.0005)

    def errors(self) -> str:
        return (self.folder / "errors.txt").read_text()[-3000:]

    def weights(self) -> list[np.ndarray]:
        with np.load(self.folder / "final.npz") as arrays:
            return [arrays[f"arr_{k}"] for k in range(len(arrays))]


def free_addresses(number: int) -> list[str]:
    with ExitStack() as stack:  # all ports are taken before one is given back
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def unfinished_files(folder: Path) -> set[Path]:
    """What a kill in the midst of writing leaves: ours has .tmp in its name, TensorFlow's _temp."""
    # Files come and go meanwhile: `os.walk` does not mind.
    found = {Path(parent, name) for parent, folders, files in os.walk(folder) for name in [*folders, *files]}
    return {path for path in found if ".tmp." in path.name or "_temp" in path.name}


def is_readable(path: Path) -> bool:
    import tensorflow as tf

    import deepmatch_ext  # noqa: F401

    try:
        return bool(np.isfinite(tf.keras.models.load_model(path).item_vectors()).all())
    except Exception as error:  # whatever it is, the file is lost
        print(f"{path}: {error}")
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()

    chance = random.Random(arguments.seed)
    killed = in_save = lost = readable = resumed = hung = 0
    slowest = 0.0
    with tempfile.TemporaryDirectory() as work:

        def new_run(name: str) -> Run:
            sizes = (arguments.rows, arguments.items, arguments.epochs)
            return Run(Path(work) / name, *sizes, arguments.workers)

        undisturbed = new_run("undisturbed")
        seconds = undisturbed.finish()
        print(f"undisturbed: {arguments.epochs} epochs in {seconds:.1f} s", flush=True)
        number = 0
        while killed < arguments.kills:  # a run may end before all of its kills
            run = new_run(f"run{number}")
            kills = min(-(-arguments.kills // arguments.runs), arguments.kills - killed)
            done = 0
            while done < kills and not (run.folder / "final.npz").exists():
                before = unfinished_files(run.folder)
                run.start()
                victim = chance.choice(run.processes)
                # So that the kills of one run fall all over it.
                time.sleep(chance.uniform(0, 1.5 * seconds / (kills + 1)))
                if (killed + done) % 2 == 0:
                    run.wait_for_a_save(victim, before)
                victim.kill()
                after = run.end()
                if victim.exitcode != -signal.SIGKILL:
                    if victim.exitcode:
                        raise RuntimeError(f"the run failed:\n{run.errors()}")
                    continue  # it had ended
                done += 1
                slowest, hung = max(slowest, after), hung + (after > AT_MOST)
                in_save += bool(unfinished_files(run.folder) - before)
                model = run.folder / "model.keras"
                if model.exists():
                    whole = is_readable(model)
                    readable, lost = readable + whole, lost + (not whole)
            killed += done
            if not (run.folder / "final.npz").exists():
                run.finish()
            same = all(np.array_equal(a, b) for a, b in zip(run.weights(), undisturbed.weights(), strict=True))
            resumed += same
            number += 1
            print(f"run {number}: {done} kills, weights {'equal' if same else 'DIFFERENT'}", flush=True)
    print(f"kills {killed}, in a save {in_save}; files read {readable}, lost {lost}")
    if arguments.workers > 1:
        print(f"after a kill the others ended in {slowest:.1f} s at most; alive after {AT_MOST} s: {hung}")
    print(f"runs {number}, resumed to equal weights {resumed}")
    if lost or resumed < number or not readable or hung:
        sys.exit(1)


if __name__ == "__main__":
    main()
