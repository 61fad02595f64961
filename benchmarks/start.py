"""What the start costs: the imports, and the first steps of a model and of the next one, in fresh processes.

Usage: start.py [--rounds N] [--models 'YoutubeDNN;ComiRec']; on tf-keras with TF_USE_LEGACY_KERAS=1.
Prints the medians in seconds: `import tensorflow`, what `import deepmatch_ext` takes after it, and for each model a
`fit` of four steps of a process's first model, of another one like it, which finds traced what all models share, and
of that one again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

BATCH, DIM, VOCABULARY, STEPS = 256, 64, 10_000, 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", default="YoutubeDNN;DSSM;ComiRec;MIND;SASRec;SRGNN")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(seconds(args.one)))
        return
    print("| model | import tensorflow | import deepmatch_ext | first fit | another model's | again |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model in args.models.split(";"):
        runs = [of_process(model) for _ in range(args.rounds)]
        medians = [f"{statistics.median(run[name] for run in runs):.2f}" for name in runs[0]]
        print("|", " | ".join([model, *medians]), "|", flush=True)


def of_process(model):
    done = subprocess.run([sys.executable, __file__, "--one", model], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def seconds(model):
    began = time.perf_counter()
    import tensorflow  # noqa: F401

    with_tensorflow = time.perf_counter()
    import deepmatch_ext  # noqa: F401

    times = {"tensorflow": with_tensorflow - began, "deepmatch_ext": time.perf_counter() - with_tensorflow}
    from ours import built
    from speed import synthetic_input

    from deepmatch_ext.optimizers import LazyAdam

    x = synthetic_input(VOCABULARY, BATCH, STEPS)

    def fit(fitted):
        began = time.perf_counter()
        fitted.fit(x, batch_size=BATCH, verbose=0)
        return time.perf_counter() - began

    models = [built(model, VOCABULARY, DIM) for _ in range(2)]
    for each in models:
        each.compile(LazyAdam())
    return {**times, "first": fit(models[0]), "second": fit(models[1]), "again": fit(models[1])}


if __name__ == "__main__":
    main()
