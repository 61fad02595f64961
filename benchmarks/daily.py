"""Days of events, one after the other: `Recommender.update` beside training again each day, and beside no updates.

    python benchmarks/daily.py FOLDER/amazon-beauty --days 14

FOLDER is what `read_dataset` reads, with times; or it has a `seq.npz` of sequences without, of which an event's time is
its place in its user's sequence, so that everybody continues every day. The first events, by time, are what the first
day begins with; the rest is cut into days of as many events each.

On each day, each policy predicts the day's events, each by what its user did before it, and then learns from them:

- never: the model of the first day; new items can't be found;
- histories: `update(epochs=0)`: new items begin where something is known of them, and nothing is trained;
- update: `update`;
- again: `fit` on all events so far.

With `--random-starts`, new items of `histories` and `update` start from random vectors, not near the items around them.
With `--spare N` the first model has N rows to spare, which new items take before its table grows; with `--as-they-are`,
these begin as training has left them, not as new rows do.

Figures are over all events of all days, all items ranked but those that the user had. A young item is a known one that
was first seen on one of the seven days before. Seconds are those of the processor, for learning alone.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import pandas as pd
from deepctr.feature_column import SparseFeat

from deepmatch_ext import Recommender
from deepmatch_ext.data import read_dataset
from deepmatch_ext.evaluation import ranking_metrics
from deepmatch_ext.models import RetrievalModel
from deepmatch_ext.recommender import updating
from deepmatch_ext.recommender.judged import judged_events, ranks_of_all

POLICIES = ("never", "histories", "update", "again")
EXTENDED = RetrievalModel.extended


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--first", type=float, default=0.8, help="the fraction of events before the first day")
    parser.add_argument(
        "--epochs", type=int, help="of `fit`; by default, the best for the last tenth of the first events"
    )
    parser.add_argument("--replay", type=float, default=3.0, help="of `update`")
    parser.add_argument("--passes", type=int, default=4, help="of `update` over the day's events")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--random-starts", action="store_true", help="new items start from random vectors")
    parser.add_argument("--spare", type=int, default=0, help="rows to spare for new items in the first model")
    parser.add_argument("--as-they-are", action="store_true", help="rows to spare are not initialised again")
    args = parser.parse_args()
    if args.random_starts:
        updating.neighbours = no_neighbours
    if args.as_they_are:
        RetrievalModel.extended = extended_as_they_are

    events = read(args.data)
    start = int(len(events) * args.first)
    bounds = np.linspace(start, len(events), args.days + 1).astype(int)
    base = events[:start]
    args.columns = [SparseFeat("item_id", base["item_id"].nunique() + 1 + args.spare, 64)] if args.spare else []
    epochs = args.epochs
    if epochs is None:
        tried = made(args).fit(base, validation=int(0.9 * start), verbose=0)
        epochs = int(np.nanargmax(tried.history["val_NDCG@10"])) + 1
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        made(args).fit(base, epochs=epochs, verbose=0).save(Path(folder) / "first")
        print(f"{start:,} events first, {epochs} epochs in {time.process_time() - began:.0f} s", flush=True)
        rows = {}
        for policy in args.policies.split(","):
            rows[policy] = run(policy, Recommender.load(Path(folder) / "first"), events, bounds, epochs, args)
            print(policy, rows[policy], flush=True)
    print(pd.DataFrame(rows).T.to_string())


def read(path):
    """Events in the order of time, which is their number."""
    if (path / "seq.npz").exists() and "times" not in np.load(path / "seq.npz"):
        stored = np.load(path / "seq.npz")
        lengths = np.diff(stored["indptr"])
        users = np.repeat(np.arange(len(lengths)), lengths)
        place = np.arange(len(users)) - np.repeat(stored["indptr"][:-1], lengths)
        when = (place + np.random.default_rng(0).random(len(users))) / lengths[users]
        events = pd.DataFrame({"user_id": users, "item_id": stored["items"], "when": when})
    else:
        x = read_dataset(path, verbose=False).interactions
        events = pd.DataFrame({"user_id": x.users, "item_id": x.items, "when": x.times})
    events = events.sort_values("when", kind="stable", ignore_index=True)
    return events.assign(timestamp=np.arange(len(events))).drop(columns="when")


def made(args):
    return Recommender(columns=args.columns, seed=args.seed)


def no_neighbours(interactions, first_new):
    """`neighbours` that finds nothing around a new item, whose row then starts as in a new model."""
    return np.zeros(interactions.item_vocabulary_size - first_new + 1, np.int64), np.empty(0, np.int32)


def extended_as_they_are(model, sizes, *, alike, in_use, **given):
    """`RetrievalModel.extended` to which all rows are in use."""
    indptr, items = alike
    skipped = min(model.item_columns[0].vocabulary_size - in_use["item_id"], len(indptr) - 1)
    indptr = indptr[skipped:]
    return EXTENDED(model, sizes, alike=(indptr - indptr[0], items[indptr[0] :]), **given)


def run(policy, recommender, events, bounds, epochs, args):
    seconds, found = 0.0, []
    for day, (begin, end) in enumerate(itertools.pairwise(bounds)):
        today = events[begin:end]
        if policy != "never":
            found.append(predicted(recommender, today))
        began = time.process_time()
        if policy == "again":
            recommender = made(args).fit(events[:end], epochs=epochs, verbose=0)
        elif policy != "never":
            recommender.update(today, replay=args.replay, epochs=args.passes if policy == "update" else 0)
        seconds += time.process_time() - began
        print(f"  {policy}, day {day + 1}: {seconds:.0f} s", flush=True)
    if policy == "never":
        found = [predicted(recommender, events[bounds[0] :])]
    times, ranks = (np.concatenate(part) for part in zip(*found, strict=True))
    items = events["item_id"].to_numpy()
    first = pd.Series(np.arange(len(items))).groupby(items).min()[items[times]].to_numpy()
    today = np.searchsorted(bounds, times, side="right") - 1
    is_young = (first < bounds[today]) & (first >= bounds[np.maximum(today - 7, 0)])
    all_of = ranking_metrics(ranks, [10, 50])
    young = ranking_metrics(ranks[is_young], [50])["Recall@50"] if is_young.any() else float("nan")
    return {
        "HR@10": round(all_of["HR@10"], 4),
        "NDCG@10": round(all_of["NDCG@10"], 4),
        "Recall@50": round(all_of["Recall@50"], 4),
        "young: Recall@50": round(young, 4),
        "young events": int(is_young.sum()),
        "new, not to be found": round(float((first >= bounds[today]).mean()), 3),
        "seconds": round(seconds, 1),
    }


def predicted(recommender, today):
    """The times of events, and the ranks of their items."""
    judged = judged_events(recommender, today)
    ranks = ranks_of_all(recommender, judged, True)[recommender._name]
    return judged.interactions.times[judged.rows], ranks


if __name__ == "__main__":
    main()
