"""What item features do for items with few events, and for items that were never trained, on MovieLens 100K.

    python benchmarks/item_features.py PATH/TO/ml-100k        # prints two tables

The item tower reads the id, the genres and the year of release, against the id alone. Needs `deepmatch_ext` installed.

1. Each user's last item held out for test, the one before it for validation, as everywhere; of the held-out events only
   those count whose item has fewer than five training events.
2. A tenth of the items is withheld: all their events are taken out, from histories too. Every event of a withheld item
   is then ranked, among the withheld items and among all.

The number of epochs is chosen once, by the validation of all items in 1. Mean and standard deviation of three seeds.
"""

import argparse
import os
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import pandas as pd
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN, data, evaluation
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.utils import sampledsoftmaxloss

MAX_LEN, DIM, FEW, GENRES = 50, 64, 5, 6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the folder of MovieLens 100K")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=30, help="at most")
    args = parser.parse_args()
    dataset = data.read_dataset(args.data)
    features = item_features(dataset)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    epochs = {}
    print(few_events(dataset.interactions, features, seeds, args.epochs, epochs).to_string(), "\n")
    print(never_trained(dataset.interactions, features, seeds, epochs).to_string())


def item_features(dataset):
    """A frame by item id: genres as lists of ids, and the period of five years in which the item came out."""
    ids = dataset.interactions.item_ids
    items = dataset.items.reindex(ids.values)
    genres = items["genres"].fillna("").str.split("|")
    names = {name: k for k, name in enumerate(sorted({g for row in genres for g in row if g}), start=1)}
    year = (
        pd.to_numeric(items["release_year"], errors="coerce")
        if "release_year" in items
        else items["title"].map(year_of_title)
    )
    return pd.DataFrame(
        {
            "genres": [[names[g] for g in row if g][:GENRES] for row in genres],
            "period": ((year.fillna(1920).clip(1920, 1999) - 1915) // 5).astype(int).to_numpy(),
        },
        index=np.arange(1, len(ids) + 1),
    )


def year_of_title(title):
    tail = str(title).strip()[-5:-1]
    return float(tail) if tail.isdigit() else np.nan


def build(interactions, features, seed):
    size = interactions.item_vocabulary_size
    item = [SparseFeat("item_id", size, DIM)]
    arguments = {}
    if features is not None:
        genres = int(max(max(row, default=0) for row in features["genres"])) + 1
        item += [
            VarLenSparseFeat(SparseFeat("genres", genres, 16), GENRES, "mean"),
            SparseFeat("period", int(features["period"].max()) + 1, 16),
        ]
        arguments = {"item_features": features}
    history = VarLenSparseFeat(
        SparseFeat("hist_item_id", size, DIM, embedding_name="item_id"), MAX_LEN, "recency+last", "hist_len"
    )
    model = YoutubeDNN([history], item, seed=seed, **arguments)
    model.compile(LazyAdam(1e-3), sampledsoftmaxloss)
    return model


def few_events(interactions, features, seeds, most_epochs, epochs):
    split = data.leave_last_out(interactions)
    train = data.windows(interactions, split.train_targets(), MAX_LEN)
    counts = interactions.item_counts(split.train)
    held_out = np.concatenate([split.validation, split.test])
    rare = held_out[counts[interactions.items[held_out]] < FEW]
    rows, seen = data.windows(interactions, rare, MAX_LEN), data.seen_before(interactions, rare)
    validation = data.windows(interactions, split.validation, MAX_LEN)
    figures = {}
    for name, of_item in (("id alone", None), ("id, genres, year", features)):
        results = []
        for seed in seeds:
            model = build(interactions, of_item, seed)
            watch = evaluation.RetrievalMetrics(
                validation,
                validation["item_id"],
                seen=data.seen_before(interactions, split.validation),
                patience=5,
                restore_best_weights=True,
            )
            model.fit(train, batch_size=1024, epochs=most_epochs, callbacks=[watch], verbose=0)
            epochs[name, seed] = watch.best_epoch + 1
            of_rare = evaluation.evaluate_vectors(
                model.user_vectors(rows), model.item_vectors(), rows["item_id"], seen=seen, ns=(50, 100, 200)
            )
            of_all = {f"all items, validation {key}": watch.best for key in [watch.monitor.removeprefix("val_")]}
            results.append({**{key: of_rare[key] for key in ("Recall@50", "Recall@100", "Recall@200")}, **of_all})
        figures[name] = summary(results)
    print(f"{len(rare)} held-out events of items with fewer than {FEW} training events")
    return pd.DataFrame(figures).T


def never_trained(interactions, features, seeds, epochs):
    results = {name: [] for name in ("id alone", "id, genres, year")}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        withheld = np.zeros(interactions.item_vocabulary_size, bool)
        withheld[1 + rng.choice(interactions.num_items, interactions.num_items // 10, replace=False)] = True
        is_new = withheld[interactions.items]
        known = without(interactions, is_new)
        train = data.windows(known, np.flatnonzero(known.position > 0), MAX_LEN)
        test = before_new_items(interactions, known, is_new)
        for name, of_item in (("id alone", None), ("id, genres, year", features)):
            model = build(known, of_item, seed)
            model.fit(train, batch_size=1024, epochs=epochs[name, seed], verbose=0)
            scores = model.user_vectors(test) @ model.item_vectors().T
            own = np.take_along_axis(scores, test["item_id"][:, None], axis=1)
            among_new = (scores[:, withheld] >= own).sum(1) - 1
            among_all = (scores[:, 1:] >= own).sum(1) - 1
            results[name].append(
                {
                    "AUC among withheld": 1 - among_new.mean() / (withheld.sum() - 1),
                    "AUC among all": 1 - among_all.mean() / (interactions.num_items - 1),
                    "Recall@50 among all": (among_all < 50).mean(),
                }
            )
    print(f"A tenth of the items withheld; chance: AUC .5, Recall@50 {50 / interactions.num_items:.4f}")
    return pd.DataFrame({name: summary(rows) for name, rows in results.items()}).T


def without(interactions, dropped):
    """The interactions less some of their events; ids stay."""
    kept = ~dropped
    times = None if interactions.times is None else interactions.times[kept]
    return replace(interactions, users=interactions.users[kept], items=interactions.items[kept], times=times, side={})


def before_new_items(interactions, known, is_new):
    """The model input of every event of a withheld item that has a history of known ones."""
    rows = np.flatnonzero(is_new)
    known_before = np.cumsum(~is_new)[rows]  # events kept up to here, in both numberings of one order
    last = known_before - 1
    has_history = (last >= 0) & (known.users[np.maximum(last, 0)] == interactions.users[rows])
    rows, last = rows[has_history], last[has_history]
    # The history up to and with the last known event: the window of that event, with the event itself in front.
    windows = data.windows(known, last, MAX_LEN)
    history = np.concatenate([windows["item_id"][:, None], windows["hist_item_id"][:, :-1]], axis=1)
    lengths = np.minimum(windows["hist_len"] + 1, MAX_LEN)
    return {"hist_item_id": history, "hist_len": lengths, "item_id": interactions.items[rows]}


def summary(rows):
    frame = pd.DataFrame(rows)
    return {name: f"{values.mean():.4f} ± {values.std():.4f}" for name, values in frame.items()}


if __name__ == "__main__":
    main()
