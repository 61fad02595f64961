"""Recommendation quality and its cost: baselines, DeepMatch and ours, trained from raw data under one protocol.

    python benchmarks/quality.py --data FOLDER           # FOLDER holds ml-100k/, amazon-beauty/, ml-1m/
    python benchmarks/quality.py --data FOLDER --quick   # a try

docs/results.md says what is measured, quality_settings.py has what is compared. Writes quality_results/:
results.json after every run, table.md, plot.png, samplers.png. A command that was interrupted goes on where it was.
Needs an installed deepmatch_ext, NumPy and matplotlib; the rest goes into virtual environments that this makes. The
worker scripts take their job, the stopping rule and the form of their answer from here.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from quality_report import plots, table
from quality_settings import (
    EPOCH_TIME,
    EQUAL_TIME,
    LIMITS,
    MAX_LEN,
    MONITOR,
    RECOMMENDERS,
    ROUNDS,
    SAMPLERS,
    SETS,
    TIMED_EPOCHS,
    sampler_settings,
)
from speed import ENVIRONMENTS, answer_of, library_requirements, machine, make_environment

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # for what imports TensorFlow later
HERE = Path(__file__).resolve().parent
WORKERS = {  # script -> the environment it runs in
    "quality_ours.py": "quality",
    "quality_baselines.py": "quality",
    "quality_deepmatch.py": "deepmatch",
}


# What the workers share.


def read_job():
    """What to do: a JSON object with the settings, the limits, the seed, the held-out parts to rank, and paths."""
    return json.loads(sys.argv[1])


def clock(job):
    """The clock to train by: a function that gives seconds.

    The processor's, all threads together, which other work on the machine changes little. Where nothing is ranked,
    epochs are timed in turn, and there it is the wall clock.
    """
    return time.process_time if job["rank"] else time.perf_counter


def figures(ranks):
    """The figures of users with one held-out item each, by how many other items rank at least as high as it, (B,)."""
    gain = np.where(ranks < 10, 1 / np.log2(ranks + 2.0), 0.0)
    values = {"HR@10": (ranks < 10).mean(), "NDCG@10": gain.mean(), "Recall@50": (ranks < 50).mean()}
    return {name: round(float(value), 6) for name, value in values.items()}


class Progress:
    """The validation figures after each epoch, which epoch is the best, and whether to stop.

    Args:
        epochs: The most epochs.
        patience: Stop after so many without a better NDCG@10.
        seconds: Stop before this much training; what ends later doesn't count.
    """

    def __init__(self, epochs=1, patience=None, seconds=None):
        self.epochs, self.patience, self.limit = epochs, patience, seconds
        self.curve, self.best_epoch, self.done = [], 0, False

    def add(self, seconds, ranks=None):
        """Takes in an epoch that ended after ``seconds`` of training; returns whether it is the best so far."""
        if self.limit is not None and seconds > self.limit:
            if not self.curve:
                sys.exit(f"no epoch ended within {self.limit} s")
            self.done = True
            return False
        last = self.curve[-1]["seconds"] if self.curve else 0.0
        best = self.curve[self.best_epoch - 1][MONITOR] if self.best_epoch else -1.0
        self.curve.append({"seconds": round(seconds, 3), **({} if ranks is None else figures(ranks))})
        epoch, is_best = len(self.curve), ranks is not None and self.curve[-1][MONITOR] > best
        if is_best:
            self.best_epoch = epoch
        self.done = epoch >= self.epochs
        self.done |= self.patience is not None and epoch - self.best_epoch >= self.patience
        self.done |= self.limit is not None and 2 * seconds - last > self.limit  # another would end too late
        return is_best


def save(job, arrays):
    """Leaves ranks, or the vectors they follow from, for quality.py."""
    np.savez(job["out"], **arrays)


def print_result(progress, seconds, versions):
    epochs = np.diff([0.0, *(epoch["seconds"] for epoch in progress.curve)])
    result = {
        "seconds": round(seconds, 2),
        "epochs": len(epochs),
        "best_epoch": progress.best_epoch,
        "seconds_first_epoch": round(float(epochs[0]), 3),  # it traces, too
        "seconds_per_epoch": round(float(np.median(epochs[1:] if len(epochs) > 1 else epochs)), 3),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, **versions},
        "curve": progress.curve,
    }
    print(json.dumps(result), flush=True)


# The runs. One is named by its part, set, recommender and seed (for epoch-time the round), and while choosing by its
# settings; it is done again if anything in its job has changed.


def key(run):
    return (run["part"], run["set"], run["name"], run["seed"]) + (
        (json.dumps(run["settings"], sort_keys=True),) if run["part"] == "choose" else ()
    )


class Runs:
    """Makes the runs that results.json doesn't have yet, and writes it after each."""

    def __init__(self, args, scratch):
        self.args, self.scratch = args, Path(scratch)
        self.file = args.out / "results.json"
        self.results = {"machine": machine(), "runs": []}
        if self.file.exists() and not args.fresh:
            self.results = json.loads(self.file.read_text())
        (args.out / "ranks").mkdir(exist_ok=True)

    def __call__(self, part, set_name, name, worker, settings, limits, seed, rank):
        job = {"settings": settings, "limits": limits, "seed": seed, "rank": rank}
        digest = hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()[:12]
        run = {"part": part, "set": set_name, "name": name, **job}
        old = self.find(run)
        if old is not None and old["digest"] == digest and "error" not in old:
            return old
        slug = re.sub(r"\W+", "-", f"{part} {set_name} {name} {seed}").strip("-")
        run |= {"digest": digest, "ranks": f"ranks/{slug}-{digest}.npz", "load before": round(os.getloadavg()[0], 2)}
        run |= self.answer(run, worker)
        self.results["runs"] = [r for r in self.results["runs"] if key(r) != key(run)] + [run]
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(self.results, indent=1))
        new.replace(self.file)  # whole, whenever this is interrupted
        (self.args.out / "table.md").write_text(table(self.results))
        shown = run.get("error") or (
            f"validation {run['validation'][MONITOR]:.4f}, {run['epochs']} epochs, {run['seconds']:.0f} s"
            if rank
            else f"{run['seconds_per_epoch']:.2f} s an epoch"
        )
        print(f"{part}, {set_name}, {name}, {seed}: {shown}", flush=True)
        return run

    def find(self, run):
        return next((r for r in self.results["runs"] if key(r) == key(run)), None)

    def answer(self, run, worker):
        """The worker's answer with the figures of its ranks, or ``error``."""
        folder, out = self.args.data / run["set"], self.args.out / run["ranks"]
        paths = {"data": str(folder), "out": str(out)}
        try:
            if worker == "quality_deepmatch.py":
                paths["arrays"] = str(write_arrays(folder, self.scratch / f"{run['set']}.npz"))
            job = {name: run[name] for name in ("settings", "limits", "seed", "rank")} | paths
            command = [self.args.python[WORKERS[worker]], HERE / worker, json.dumps(job)]
            answer = answer_of(command, {}, self.args.time_limit)
            if "error" in answer or not run["rank"]:
                return answer
            if worker == "quality_deepmatch.py":
                rank_vectors(out, run["rank"], paths["arrays"])
            with np.load(out) as ranks:
                answer |= {part: figures(ranks[part]) for part in run["rank"]}
        except (OSError, ValueError, ImportError) as error:
            return {"error": " ".join(str(error).split())}
        # The same model ranked twice, by the worker and, of DeepMatch, here: a few ties by rounding at the most.
        best = answer["curve"][answer["best_epoch"] - 1][MONITOR]
        if abs(best - answer["validation"][MONITOR]) > 1e-3:
            return {"error": f"validation {MONITOR} {best} became {answer['validation'][MONITOR]} when ranked again"}
        return answer


def write_arrays(folder, path):
    """Input for a worker without deepmatch_ext: windows, what users have had, and the tables' sizes; returns `path`."""
    if path.exists():
        return path
    from deepmatch_ext import data

    split = data.leave_last_out(data.read_dataset(folder, verbose=False).interactions)
    events = split.interactions
    arrays = {"users": np.array(events.user_vocabulary_size), "items": np.array(events.item_vocabulary_size)}
    for part, rows in {"train": split.train_targets(), "validation": split.validation, "test": split.test}.items():
        arrays |= {f"{part}/{name}": values for name, values in data.windows(events, rows, MAX_LEN).items()}
        if part != "train":
            arrays[f"{part}/seen_indptr"], arrays[f"{part}/seen_items"] = data.seen_before(events, rows)
    np.savez(path, **arrays)
    return path


def rank_vectors(path, parts, arrays_path):
    """Puts ranks in the place of the vectors in ``path``."""
    from deepmatch_ext.evaluation import inner_products, target_ranks

    def ranks(users, items, targets, seen):
        return target_ranks(inner_products(users, items), targets, seen=seen)

    with np.load(path) as vectors, np.load(arrays_path) as arrays:
        found = {
            part: ranks(
                vectors[part],
                vectors["items"],
                arrays[f"{part}/item_id"],
                (arrays[f"{part}/seen_indptr"], arrays[f"{part}/seen_items"]),
            )
            for part in parts
        }
    np.savez(path, **found)


# The parts of the command.


def choose(runs, args):
    for set_name in args.sets:
        for name, (worker, _, candidates) in args.recommenders.items():
            if len(candidates[set_name]) > 1:
                for settings in candidates[set_name]:
                    limits = args.limits[set_name]
                    runs("choose", set_name, name, worker, settings, limits, args.seeds[0], ["validation"])


def chosen(runs, set_name, name, candidates):
    """The settings with the best validation figure, or None where none has one."""
    if len(candidates) == 1:
        return candidates[0]
    found = [
        run
        for run in runs.results["runs"]
        if (run["part"], run["set"], run["name"]) == ("choose", set_name, name)
        and run["settings"] in candidates
        and "error" not in run
    ]
    return max(found, key=lambda run: run["validation"][MONITOR])["settings"] if found else None


def test(runs, args):
    for seed in args.seeds:
        for set_name in args.sets:
            for name, (worker, seeded, candidates) in args.recommenders.items():
                settings = chosen(runs, set_name, name, candidates[set_name])
                if settings is None:
                    print(f"test, {set_name}, {name}: nothing has been chosen; see --parts choose", flush=True)
                elif seeded or seed == args.seeds[0]:
                    limits = args.limits[set_name]
                    runs("test", set_name, name, worker, settings, limits, seed, ["validation", "test"])


def samplers(runs, args):
    for seed in args.seeds:
        for set_name in args.sets:
            for name in args.samplers:
                settings = sampler_settings(name, set_name)
                limits = {"epochs": 10**4, "seconds": args.equal_time[set_name]}
                worker, rank = "quality_ours.py", ["validation", "test"]
                runs("samplers", set_name, name, worker, settings, limits, seed, rank)


def epoch_time(runs, args):
    for number in range(1, args.rounds + 1):
        for set_name in args.sets:
            for name in args.epoch_time:
                worker, settings = EPOCH_TIME[name]
                runs("epoch-time", set_name, name, worker, settings, {"epochs": TIMED_EPOCHS}, number, [])


PARTS = {"choose": choose, "test": test, "samplers": samplers, "epoch-time": epoch_time}


def main():
    args = arguments()
    environments = {"deepmatch": ENVIRONMENTS["deepmatch"]}
    environments["quality"] = [*ENVIRONMENTS["ours"], "implicit==0.7.3", *library_requirements()]
    for name in environments.keys() - args.python.keys():
        make_environment(args.envs, name, environments[name])
        args.python[name] = args.envs / name / "bin" / "python"
    with tempfile.TemporaryDirectory() as scratch:
        runs = Runs(args, scratch)
        for part in args.parts:
            PARTS[part](runs, args)
            plots(runs.results, args.out)
    print((args.out / "table.md").read_text())


def arguments():
    def names(allowed):
        def parse(value):
            found = value.split(",")
            if unknown := set(found) - set(allowed):
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)} not among {', '.join(allowed)}")
            return found

        return parse

    def interpreter(value):
        name, _, path = value.partition("=")
        if name not in WORKERS.values() or not Path(path).is_file():
            raise argparse.ArgumentTypeError("must be quality=PYTHON or deepmatch=PYTHON")
        return name, Path(path).absolute()

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the sets' folders")
    parser.add_argument("--sets", type=names(SETS), default=list(SETS), help="default: ml-100k,amazon-beauty,ml-1m")
    parser.add_argument("--parts", type=names(PARTS), default=list(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--only", default="", help="what the rows' names begin with, such as ours,DeepMatch")
    parser.add_argument("--seeds", default="1,2,3", help="the first one also chooses (default: %(default)s)")
    parser.add_argument("--envs", type=Path, default=Path(tempfile.gettempdir(), "deepmatch_ext_benchmarks"))
    parser.add_argument(
        "--python", type=interpreter, action="append", default=[], help="an environment that is there: deepmatch=PYTHON"
    )
    parser.add_argument("--out", type=Path, default=Path("quality_results"))
    parser.add_argument("--fresh", action="store_true", help="leave out what results.json has")
    parser.add_argument("--time-limit", type=float, default=7200, help="of one run, in seconds")
    parser.add_argument("--quick", action="store_true", help="a try: ml-100k, few settings and epochs, one seed")
    args = parser.parse_args()
    args.seeds = [int(seed) for seed in args.seeds.split(",")]
    args.limits, args.equal_time, args.rounds = LIMITS, EQUAL_TIME, ROUNDS
    begins = tuple(args.only.split(","))
    args.recommenders = {name: value for name, value in RECOMMENDERS.items() if name.startswith(begins)}
    args.samplers = [name for name in SAMPLERS if name.startswith(begins)]
    args.epoch_time = [name for name in EPOCH_TIME if name.startswith(begins)]
    if args.quick:
        args.sets, args.seeds, args.out = ["ml-100k"], args.seeds[:1], args.out / "quick"
        args.limits, args.equal_time = {"ml-100k": {"epochs": 2}}, {"ml-100k": 10}
        args.rounds = 1
        args.recommenders = {
            name: (worker, seeded, {"ml-100k": candidates["ml-100k"][:2]})
            for name, (worker, seeded, candidates) in args.recommenders.items()
        }
    args.envs, args.out = args.envs.resolve(), args.out.resolve()
    args.python = dict(args.python)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / ".gitignore").write_text("*\n")
    return args


if __name__ == "__main__":
    main()
