"""Kills training at random moments and looks at what is left: python benchmarks/faults.py

A run trains with ``BackupAndRestore`` and saves its model after every epoch. It is killed (SIGKILL) again and again,
started again each time, and let through in the end. The moments are random, counted from the first step that a process
makes; every second kill waits for the next file that is being written in the place of a former one. Afterwards:

    read, lost  the files of the model that could and could not be read after a kill; none may be lost
    resumed     the runs whose weights ended equal, bit for bit, to those of a run that nothing disturbed; all must
    in a save   the kills that fell into the writing of a file, seen by the unfinished file that they left

Options: ``--kills N`` (20), ``--runs N`` (5, or a few more) that they are spread over, ``--seed N``, ``--rows N``,
``--items N``. ``TF_USE_LEGACY_KERAS=1`` does it with tf-keras.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

EPOCHS, BATCH_SIZE, DIM, MAX_LEN = 12, 256, 16, 10


def train(folder: Path, rows: int, items: int, say: Callable[[str], None]) -> float:
    """Trains, or goes on where the process before was killed. Gives the seconds since the first step."""
    from unittest import mock

    import tensorflow as tf

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
    model = YoutubeDNN(user, [SparseFeat("item", items, DIM)], history_dropout=0.2)
    model.compile(LazyAdam(1e-2), sampledsoftmaxloss)

    class Begun(tf.keras.callbacks.Callback):
        """Says so once, when all is traced and restored and the first step is made."""

        at = 0.0

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if not self.at:
                self.at = time.perf_counter()
                say("training")

    begun = Begun()
    callbacks = [
        begun,
        tf.keras.callbacks.BackupAndRestore(str(folder / "backup")),
        tf.keras.callbacks.ModelCheckpoint(str(folder / "model.keras")),
    ]
    model.fit(x, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0, callbacks=callbacks)
    np.savez(folder / "unfinished.npz", *model.get_weights())
    os.replace(folder / "unfinished.npz", folder / "final.npz")
    say("done")
    return time.perf_counter() - begun.at


class Run:
    """A run in a folder of its own, one process after another."""

    def __init__(self, folder: Path, rows: int, items: int) -> None:
        folder.mkdir()
        self.folder = folder
        self._command = [sys.executable, __file__, "--child", str(folder), "--rows", str(rows), "--items", str(items)]

    def start(self) -> subprocess.Popen[str]:
        """A process that has made its first step."""
        with open(self.folder / "errors.txt", "a") as errors:
            process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        if process.stdout.readline().strip() not in ("training", "done"):  # or nothing was left to do
            process.wait()
            raise RuntimeError(f"the process ended early:\n{(self.folder / 'errors.txt').read_text()[-3000:]}")
        return process

    def finish(self) -> None:
        """Lets a process through to the end."""
        if self.start().wait() != 0:
            raise RuntimeError(f"the run failed:\n{(self.folder / 'errors.txt').read_text()[-3000:]}")

    def wait_for_a_save(self, process: subprocess.Popen[str], before: set[Path]) -> None:
        """Waits until a file is being written while there is a former one, or the process ends."""
        model = self.folder / "model.keras"
        while process.poll() is None and not (model.exists() and unfinished_files(self.folder) - before):
            time.sleep(0.0005)

    def weights(self) -> list[np.ndarray]:
        with np.load(self.folder / "final.npz") as arrays:
            return [arrays[f"arr_{k}"] for k in range(len(arrays))]


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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        train(arguments.child, arguments.rows, arguments.items, functools.partial(print, flush=True))
        return

    chance = random.Random(arguments.seed)
    killed = in_save = lost = readable = resumed = 0
    with tempfile.TemporaryDirectory() as work:
        undisturbed = Run(Path(work) / "undisturbed", arguments.rows, arguments.items)
        seconds = train(undisturbed.folder, arguments.rows, arguments.items, lambda word: None)
        print(f"undisturbed: {EPOCHS} epochs in {seconds:.1f} s")
        number = 0
        while killed < arguments.kills:  # a run may end before all of its kills
            run = Run(Path(work) / f"run{number}", arguments.rows, arguments.items)
            kills = min(-(-arguments.kills // arguments.runs), arguments.kills - killed)
            done = 0
            while done < kills and not (run.folder / "final.npz").exists():
                before = unfinished_files(run.folder)
                process = run.start()
                # So that the kills of one run fall all over it.
                time.sleep(chance.uniform(0, 1.5 * seconds / (kills + 1)))
                if (killed + done) % 2 == 0:
                    run.wait_for_a_save(process, before)
                process.send_signal(signal.SIGKILL)
                if (code := process.wait()) != -signal.SIGKILL:
                    if code:
                        raise RuntimeError(f"the run failed:\n{(run.folder / 'errors.txt').read_text()[-3000:]}")
                    continue  # it had ended
                done += 1
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
    print(f"runs {number}, resumed to equal weights {resumed}")
    if lost or resumed < number or not readable:
        sys.exit(1)


if __name__ == "__main__":
    main()
