"""What a table and its optimizer's state take, by arithmetic and as measured: one line for each combination.

    python benchmarks/memory.py --vocabulary 4e6

Trains YoutubeDNN for some steps, each combination in a process of its own. The peak is of resident memory, beside that
of the same program with a table of 1,000 rows. Arithmetic: bytes a row, of D numbers in the table and in its state.
"""

import argparse
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

BYTES = {"float32": 4, "bfloat16": 2}
STATE = {"LazyAdam": lambda dim: 8 * dim, "RowwiseAdam": lambda dim: 8, "RowwiseAdagrad": lambda dim: 4}


def measure(size, dim, optimizer, table_dtype):
    """Peak memory in MB, and the median time of a step in ms."""
    import numpy as np
    import tensorflow as tf
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    from deepmatch_ext import YoutubeDNN, optimizers
    from deepmatch_ext.samplers import UniformSampler

    history = SparseFeat("hist_item_id", size, dim, embedding_name="item_id")
    columns = [VarLenSparseFeat(history, 20, "recency+last", "hist_len")], [SparseFeat("item_id", size, dim)]
    model = YoutubeDNN(*columns, sampler_config=UniformSampler(100), table_dtype=table_dtype)
    model.compile(getattr(optimizers, optimizer)(1e-2))
    rng, rows = np.random.default_rng(0), 256 * 200
    x = {"item_id": rng.integers(1, size, rows), "hist_item_id": rng.integers(1, size, (rows, 20))}
    x["hist_len"] = np.full(rows, 20)
    times = []

    class Times(tf.keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            times.append(time.perf_counter() - self.start)

    model.fit(x, batch_size=256, verbose=0, callbacks=[Times()])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, 1000 * float(np.median(times[20:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=float, default=4e6)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(*measure(int(args.vocabulary), args.dim, *args.one))
        return
    print("| table | optimizer | bytes a row | MB by arithmetic | MB measured | ms a step |")
    print("| --- | --- | --: | --: | --: | --: |")
    for optimizer, state in STATE.items():
        for dtype, of_number in BYTES.items():
            (least, _), (peak, step) = (
                map(float, run(size, args.dim, optimizer, dtype)) for size in (1e3, args.vocabulary)
            )
            row = args.dim * of_number + state(args.dim)
            arithmetic = args.vocabulary * row / 1e6
            print(
                f"| {dtype} | {optimizer} | {row} | {arithmetic:,.0f} | {peak - least:,.0f} | {step:.1f} |", flush=True
            )


def run(size, dim, optimizer, dtype):
    command = [sys.executable, __file__, "--vocabulary", str(size), "--dim", str(dim), "--one", optimizer, dtype]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


if __name__ == "__main__":
    main()
