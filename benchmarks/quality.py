"""Recommendation quality and its cost: baselines, peers and ours, trained from raw data under one protocol.

    python benchmarks/quality.py --data FOLDER           # FOLDER holds ml-100k/, amazon-beauty/, ...
    python benchmarks/quality.py --data FOLDER --quick   # a try

docs/results.md says what is measured, quality_settings.py has what is compared. Writes quality_results/:
results.json after every run, table.md, plot.png, budget.png, samplers.png. A command that was interrupted goes on where
it was.
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
    BUDGET,
    BUDGETED,
    EPOCH_TIME,
    EQUAL_TIME,
    LIMITS,
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
    "quality_rectools.py": "rectools",
    "quality_rechub.py": "rechub",
}
PEERS = ("quality_deepmatch.py", "quality_rectools.py", "quality_rechub.py")  # they read arrays and give vectors


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
    """The figures of one held-out item in each row, by how many other items rank at least as high as it, (B,)."""
    values = {
        "HR@10": ranks < 10,
        "NDCG@10": np.where(ranks < 10, 1 / np.log2(ranks + 2.0), 0.0),
        "Recall@50": ranks < 50,
        "P@20": ranks < 20,
        "MRR@20": np.where(ranks < 20, 1 / (ranks + 1.0), 0.0),
    }
    return {name: round(float(value.mean()), 6) for name, value in values.items()}


class Progress:
    """The validation figures of a training as it goes on, which of its epochs is the best, and whether to stop.

    Args:
        epochs: The most epochs.
        patience: Stop after so many without a better NDCG@10.
        seconds: Stop before this much training; what ends later doesn't count. Some ten of the epochs are then ranked,
            however many there are.
    """

    def __init__(self, epochs=1, patience=None, seconds=None):
        self.epochs, self.patience, self.limit = epochs, patience, seconds
        self.curve, self.best_epoch, self.done, self._ranked_at = [], 0, False, 0.0

    def add(self, seconds, ranks=None):
        """Takes in an epoch that ended after ``seconds`` of training; returns whether it is the best so far.

        Args:
            seconds: Of training, since it began.
            ranks: A function that gives the ranks of the validation items, or None where nothing is ranked.
        """
        if self.limit is not None and seconds > self.limit:
            if not self.best_epoch and ranks is not None:
                sys.exit(f"no epoch ended within {self.limit} s; one that did not took {seconds:.0f} s")
            self.done = True
            return False
        last = self.curve[-1]["seconds"] if self.curve else 0.0
        epoch = len(self.curve) + 1
        self.done = epoch >= self.epochs
        self.done |= self.limit is not None and 2 * seconds - last > self.limit  # another would end too late
        due = self.limit is None or self.done or seconds - self._ranked_at >= self.limit / 10
        of_epoch = figures(ranks()) if ranks is not None and due else {}
        self.curve.append({"seconds": round(seconds, 3), **of_epoch})
        best = self.curve[self.best_epoch - 1][MONITOR] if self.best_epoch else -1.0
        is_best = bool(of_epoch) and of_epoch[MONITOR] > best
        self._ranked_at = seconds if of_epoch else self._ranked_at
        self.best_epoch = epoch if is_best else self.best_epoch
        self.done |= self.patience is not None and epoch - self.best_epoch >= self.patience
        return is_best


def ranks(users, items, held_out, block=1024):
    """How many of the items that a user has not had score at least as high as the held-out one, for a peer's worker.

    A held-out item that the user has had gets deepmatch_ext's rank for it, MISSED.

    Args:
        users: One vector for each row, (B, D), or several, (B, K, D), of which the best counts.
        items: One vector for each item id, (V, D); row 0 is padding.
        held_out: ``item_id``, ``seen_indptr`` and ``seen_items``.
    """
    result = np.empty(len(users), np.int64)
    for start in range(0, len(users), block):
        scores = users[start : start + block] @ items.T
        scores = scores.max(axis=1) if scores.ndim == 3 else scores
        rows = np.arange(len(scores))
        target = held_out["item_id"][start : start + block]
        least = scores[rows, target]
        bounds = held_out["seen_indptr"][start : start + len(rows) + 1]
        had = held_out["seen_items"][bounds[0] : bounds[-1]]
        scores[np.repeat(rows, np.diff(bounds)), had] = -np.inf
        scores[rows, target] = scores[:, 0] = -np.inf
        result[start : start + len(rows)] = (scores >= least[:, None]).sum(axis=1)
        result[start + np.repeat(rows, np.diff(bounds))[had == np.repeat(target, np.diff(bounds))]] = 2**31 - 1
    return result


def read_arrays(job):
    """A peer's input: the arrays of "events", "train", "validation" and "test", and the tables' numbers of rows."""
    with np.load(job["arrays"]) as arrays:
        parts = {
            part: {name.partition("/")[2]: arrays[name] for name in arrays.files if name.startswith(f"{part}/")}
            for part in ("events", "train", "validation", "test")
        }
        return parts, int(arrays["users"]), int(arrays["items"])


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

    def python(self, name):
        """The interpreter of an environment, which is made when it is first asked for."""
        if name not in self.args.python:
            requirements = {
                "quality": [*ENVIRONMENTS["ours"], "implicit==0.7.3", *library_requirements()],
                "deepmatch": ENVIRONMENTS["deepmatch"],
                "rectools": ["rectools[torch]==0.19.0", *ENVIRONMENTS["torch"]],
                "rechub": ["torch-rechub==0.9.0", *ENVIRONMENTS["torch"]],
            }
            make_environment(self.args.envs, name, requirements[name])
            self.args.python[name] = self.args.envs / name / "bin" / "python"
        return self.args.python[name]

    def answer(self, run, worker):
        """The worker's answer with the figures of its ranks, or ``error``."""
        folder, out = self.args.data / run["set"], self.args.out / run["ranks"]
        paths = {"data": str(folder), "out": str(out)}
        try:
            if worker in PEERS:
                cut = {name: run["settings"][name] for name in ("rows", "max_len")}
                name = "-".join(map(str, [run["set"], *cut.values()]))
                paths["arrays"] = str(write_arrays(folder, self.scratch / f"{name}.npz", **cut))
            job = {name: run[name] for name in ("settings", "limits", "seed", "rank")} | paths
            command = [self.python(WORKERS[worker]), HERE / worker, json.dumps(job)]
            answer = answer_of(command, {}, self.args.time_limit)
            if "error" in answer or not run["rank"]:
                return answer
            if worker in PEERS:
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


def write_arrays(folder, path, rows, max_len):
    """Input for a worker without deepmatch_ext; returns ``path``.

    Args:
        folder: Of the set.
        path: Written, unless it is there.
        rows: What "train" holds: "windows", each event once as a row's item; "sequences", each event once in some
            position of a row; or "events", none, for who cuts the training events into rows itself.
        max_len: The most items of a row's history.
    """
    if path.exists():
        return path
    from quality_data import held_out_set

    from deepmatch_ext import data

    split, held_out = held_out_set(folder)
    events = split.interactions
    arrays = {"users": np.array(events.user_vocabulary_size), "items": np.array(events.item_vocabulary_size)}
    arrays |= {"events/sequences": events.sequences[split.train], "events/items": events.items[split.train]}
    of_train = {"windows": split.train_targets, "sequences": lambda: split.sequence_targets(max_len)}
    parts = {"train": (events, of_train[rows]())} if rows in of_train else {}
    for part, (source, of_part) in (parts | held_out).items():
        arrays |= {f"{part}/{name}": values for name, values in data.windows(source, of_part, max_len).items()}
        if part != "train":
            arrays[f"{part}/seen_indptr"], arrays[f"{part}/seen_items"] = data.seen_before(source, of_part)
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
    try_all(runs, args, args.recommenders, args.limits)


def test(runs, args):
    train_chosen(runs, args, "test", args.recommenders, args.limits)


def budget(runs, args):
    # Without patience: a learning rate that falls over all of the time gains most at its end.
    limits = {name: {"epochs": 10**6, "seconds": seconds} for name, seconds in args.budget.items()}
    try_all(runs, args, args.budgeted, limits)
    train_chosen(runs, args, "budget", args.budgeted, limits)


def try_all(runs, args, recommenders, limits):
    """Ranks the validation items after every candidate, where there are several."""
    for set_name in args.sets:
        for name, (worker, _, candidates) in recommenders.items():
            if len(candidates.get(set_name, [])) > 1:
                for settings in candidates[set_name]:
                    runs("choose", set_name, name, worker, settings, limits[set_name], args.seeds[0], ["validation"])


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


def train_chosen(runs, args, part, recommenders, limits):
    """Ranks the test items, with every seed, after the best candidate of those that the set has."""
    for seed in args.seeds:
        for set_name in args.sets:
            for name, (worker, seeded, candidates) in recommenders.items():
                if set_name not in candidates or not (seeded or seed == args.seeds[0]):
                    continue
                settings = chosen(runs, set_name, name, candidates[set_name])
                if settings is None:
                    print(f"{part}, {set_name}, {name}: nothing has been chosen; see --parts choose", flush=True)
                else:
                    rank = ["validation", "test"]
                    runs(part, set_name, name, worker, settings, limits[set_name], seed, rank)


def samplers(runs, args):
    for seed in args.seeds:
        for set_name in (name for name in args.sets if name in args.equal_time):
            for name in args.samplers:
                settings = sampler_settings(name, set_name)
                limits = {"epochs": 10**4, "seconds": args.equal_time[set_name]}
                worker, rank = "quality_ours.py", ["validation", "test"]
                runs("samplers", set_name, name, worker, settings, limits, seed, rank)


def epoch_time(runs, args):
    for number in range(1, args.rounds + 1):
        for set_name in (name for name in args.sets if name in args.equal_time):
            for name in args.epoch_time:
                worker, settings = EPOCH_TIME[name]
                runs("epoch-time", set_name, name, worker, settings, {"epochs": TIMED_EPOCHS}, number, [])


PARTS = {"choose": choose, "test": test, "budget": budget, "samplers": samplers, "epoch-time": epoch_time}


def main():
    args = arguments()
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
            raise argparse.ArgumentTypeError(f"must be NAME=PYTHON, NAME one of {', '.join(WORKERS.values())}")
        return name, Path(path).absolute()

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the sets' folders")
    parser.add_argument("--sets", type=names(SETS), default=list(SETS), help=f"default: {','.join(SETS)}")
    parser.add_argument("--parts", type=names(PARTS), default=list(PARTS), help=f"default: {','.join(PARTS)}")
    parser.add_argument("--only", default="", help="what the rows' names begin with, such as ours,DeepMatch")
    parser.add_argument("--seeds", default="1,2,3", help="the first one also chooses (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="of processor time, for the part budget, in place of a set's own")
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
    args.limits, args.budget, args.equal_time, args.rounds = LIMITS, BUDGET, EQUAL_TIME, ROUNDS
    if args.seconds:
        args.budget = dict.fromkeys(SETS, args.seconds)
    begins = tuple(args.only.split(","))
    args.recommenders = {name: value for name, value in RECOMMENDERS.items() if name.startswith(begins)}
    args.budgeted = {name: value for name, value in BUDGETED.items() if name.startswith(begins)}
    args.samplers = [name for name in SAMPLERS if name.startswith(begins)]
    args.epoch_time = [name for name in EPOCH_TIME if name.startswith(begins)]
    if args.quick:
        args.sets, args.seeds, args.out = ["ml-100k"], args.seeds[:1], args.out / "quick"
        args.limits, args.budget, args.equal_time = {"ml-100k": {"epochs": 2}}, {"ml-100k": 20}, {"ml-100k": 10}
        args.rounds = 1
        for recommenders in (args.recommenders, args.budgeted):
            for name, (worker, seeded, candidates) in recommenders.items():
                recommenders[name] = (worker, seeded, {s: candidates[s][:2] for s in args.sets if s in candidates})
    args.envs, args.out = args.envs.resolve(), args.out.resolve()
    args.python = dict(args.python)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / ".gitignore").write_text("*\n")
    return args


if __name__ == "__main__":
    main()
