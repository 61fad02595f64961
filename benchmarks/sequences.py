"""Quality for processor time of models that every position trains, beside YoutubeDNN on windows.

    python benchmarks/sequences.py FOLDER                                   # FOLDER holds ml-1m/, amazon-beauty/, ...
    python benchmarks/sequences.py FOLDER --set ml-1m --only SequenceDNN --seconds 400 --seeds 1 2 3
    python benchmarks/sequences.py FOLDER --set ml-1m --only SequenceDNN --members 3

The protocol is that of quality.py: each user's last item is the test, the one before it the validation, and all items
are ranked but those that the user had. Only runs whose names say so know the request's time, which is the target's.
Training stops after so many processor seconds, over which the learning rate falls by half a cosine where a model's
settings say so. Prints a JSON line for every few epochs, and one for the epoch that validates best. The settings were
chosen on validation. With ``--members``, so many models of different seeds are trained, each as long, and their
vectors, end to end, are ranked, too.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pandas as pd
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from item_features import GENRES
from item_features import item_features as film_features
from quality import figures
from quality_ours import HeldOut

import deepmatch_ext
from deepmatch_ext import data, optimizers

DIM, USER_DIM = 64, 16
AGAIN = "hist_item_again"  # the history with a table of its own
LINEAR = {"user_dnn_hidden_units": [], "pooled": "recency+last", "dnn_dropout": 0.2}  # for few events
DEEP = {"user_dnn_hidden_units": [256, 128, 64], "dnn_dropout": 0.0}  # YoutubeDNN's for many


def run(
    builder,
    max_len,
    batch_size,
    learning_rate,
    falls=False,
    attributes=False,
    times=(),
    beside=(),
    optimizer="LazyAdam",
    seconds=None,
    **model,
):
    return {
        "builder": builder,
        "max_len": max_len,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "falls": falls,
        "attributes": attributes,
        "times": times,
        "beside": beside,
        "optimizer": optimizer,
        "seconds": seconds,
        "model": model,
    }


FALLING = run("SequenceDNN", 50, 128, 2e-3, falls=True, optimizer="RowwiseAdam", **LINEAR)
OF_USERS = run(
    "SequenceDNN",
    *(200, 16, 4e-3),
    falls=True,
    beside=("user_id",),
    optimizer="RowwiseAdam",
    seconds=600,
    dnn_dropout=0.2,
)
FILMS = run("SequenceDNN", 100, 64, 2e-3, falls=True, optimizer="RowwiseAdam", **{**LINEAR, "dnn_dropout": 0.3})
YOUTUBEDNN = run("YoutubeDNN", 50, 1024, 1e-3)
EVENTS, REQUEST = ("history_times",), ("history_times", "request_time")  # which times a model reads
SUM = {"item_dnn_hidden_units": [], "item_id_dropout": 0.0}  # an item's vector is the sum of its embeddings
OF_AMAZON = {
    "YoutubeDNN": YOUTUBEDNN,
    "SequenceDNN": run("SequenceDNN", 50, 128, 2e-3, falls=True),
    "SequenceDNN, linear": run("SequenceDNN", 50, 128, 1e-3, **LINEAR),
    "SequenceDNN, linear, falling": FALLING,
    "SequenceDNN, attributes": run(
        "SequenceDNN",
        *(50, 128, 2e-3),
        falls=True,
        attributes=True,
        optimizer="RowwiseAdam",
        **LINEAR,
        **SUM,
    ),
}
RUNS = {
    "ml-1m": {
        "YoutubeDNN": YOUTUBEDNN,
        "YoutubeDNN, deep": run("YoutubeDNN", 50, 1024, 1e-3, **DEEP),
        "SequenceDNN": run("SequenceDNN", 200, 16, 4e-3, falls=True, optimizer="RowwiseAdam"),
        "User's id: SequenceDNN": OF_USERS,
        "Further columns: SequenceDNN": {**OF_USERS, "beside": ("user_id", AGAIN)},
        "SASRec": run("SASRec", 200, 16, 2e-3, falls=True),
        "HSTU": run("HSTU", 200, 16, 2e-3, falls=True),
        "GRU4Rec": run("GRU4Rec", 200, 16, 2e-3, falls=True),
    },
    "ml-100k": {
        "YoutubeDNN": YOUTUBEDNN,
        "SequenceDNN": run("SequenceDNN", 200, 8, 2e-3, falls=True, dnn_dropout=0.3),
        "SequenceDNN, linear": FILMS,
        "User's id: YoutubeDNN": {**YOUTUBEDNN, "beside": ("user_id",)},
        "User's id: SequenceDNN, linear": {**FILMS, "beside": ("user_id",)},
        "Times: SequenceDNN, linear": {**FILMS, "times": EVENTS},
        "Request's time: SequenceDNN, linear": {**FILMS, "times": REQUEST},
        "SequenceDNN, attributes": run(
            "SequenceDNN",
            *(100, 64, 2e-3),
            falls=True,
            attributes=True,
            optimizer="RowwiseAdam",
            **{**LINEAR, "dnn_dropout": 0.5},
            **SUM,
        ),
    },
    "amazon-beauty": {
        **OF_AMAZON,
        "User's id: SequenceDNN, linear": {**FALLING, "beside": ("user_id",)},
        "Times: SequenceDNN, linear": {**FALLING, "times": EVENTS},
        "Request's time: SequenceDNN, linear": {**FALLING, "times": REQUEST},
    },
    "amazon-toys": OF_AMAZON,
}
SECONDS = {"ml-1m": 400, "ml-100k": 40, "amazon-beauty": 100, "amazon-toys": 100}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=RUNS, help="without, all of them")
    parser.add_argument("--only", default="", help="what the runs' names begin with")
    parser.add_argument("--seconds", type=float, help="processor seconds of training, in place of the run's own")
    parser.add_argument("--optimizer", choices=["LazyAdam", "RowwiseAdam"], help="in place of the runs' own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--members", type=int, default=1, help="of each ensemble (default: one model alone)")
    args = parser.parse_args()
    for name in [args.set] if args.set else RUNS:
        dataset = data.read_dataset(args.folder / name, verbose=False)
        split = data.leave_last_out(dataset.interactions)
        for run_name, its_own in RUNS[name].items():
            settings = {**its_own, "optimizer": args.optimizer or its_own["optimizer"]}
            for seed in args.seeds if run_name.startswith(args.only) else []:
                members = []
                for member in range(args.members):
                    its_seed = seed + member * len(args.seeds)
                    seconds = args.seconds or its_own["seconds"] or SECONDS[name]
                    best, vectors = trained(args.folder / name, dataset, split, settings, seconds, its_seed)
                    print(json.dumps({"set": name, "run": run_name, "seed": its_seed, **best}), flush=True)
                    members.append(vectors)
                if args.members > 1:
                    found = together(split, settings["max_len"], members)
                    print(json.dumps({"set": name, "run": f"{run_name}, {len(members)} of them", **found}), flush=True)


def trained(folder, dataset, split, settings, seconds, seed):
    """The figures of the epoch that validates best, and its vectors of users, by part, and of items."""
    events, max_len, size = split.interactions, settings["max_len"], settings["batch_size"]
    rows = split.train_targets() if settings["builder"] == "YoutubeDNN" else split.sequence_targets(max_len)
    vocabulary = events.item_vocabulary_size
    history = SparseFeat("hist_item_id", vocabulary, DIM, embedding_name="item_id")
    columns = [VarLenSparseFeat(history, max_len, "recency+last", "hist_len")]
    if "user_id" in settings["beside"]:
        columns.append(SparseFeat("user_id", events.user_vocabulary_size, USER_DIM))
    if AGAIN in settings["beside"]:
        columns.append(VarLenSparseFeat(SparseFeat(AGAIN, vocabulary, DIM), max_len, "recency+last", "hist_len"))
    items, arguments = [SparseFeat("item_id", vocabulary, DIM)], dict(settings["model"])
    for argument in settings["times"]:
        name, dimension = {"history_times": ("hist_time", max_len), "request_time": ("time", 1)}[argument]
        columns.append(DenseFeat(name, dimension, "int64"))
        arguments[argument] = name
    if settings["attributes"]:
        columns_of_items, arguments["item_features"] = attributes(folder, dataset)
        items += columns_of_items
    model = getattr(deepmatch_ext, settings["builder"])(columns, items, seed=seed, **arguments)
    model.compile(getattr(optimizers, settings["optimizer"])(settings["learning_rate"]))
    times = bool(settings["times"])
    held_out = parts_held_out(split, max_len, times)
    clock = Clock(held_out, seconds, settings["learning_rate"] if settings["falls"] else None)
    train = data.windows(events, rows, max_len, times=times)
    for inputs in (train, *(part.columns for part in held_out.values())):
        inputs[AGAIN] = inputs["hist_item_id"]
    model.fit(train, batch_size=size, epochs=10_000, callbacks=[clock], verbose=0)
    return {**clock.best, "tensorflow": tf.__version__, "machine": platform.machine()}, clock.vectors


def parts_held_out(split, max_len, times=False):
    return {name: HeldOut(split.interactions, getattr(split, name), max_len, times) for name in ("validation", "test")}


def together(split, max_len, members):
    """The figures of the members' vectors end to end, whose inner product is the sum of the members' scores."""
    vectors = {name: np.concatenate([each[name] for each in members], axis=1) for name in members[0]}
    return ranked(parts_held_out(split, max_len), vectors)


def ranked(held_out, vectors):
    validation, test = (figures(part.ranks_by(vectors[name], vectors["items"])) for name, part in held_out.items())
    return {"NDCG@10 of validation": validation["NDCG@10"], **test}


def attributes(folder, dataset):
    """The columns of the items' attributes, and their values by item id: films have genres and a period."""
    item_ids = dataset.interactions.item_ids
    if not (folder / "attributes.npz").exists():
        frame = film_features(dataset)
        genres = SparseFeat("genres", 1 + max(max(row, default=0) for row in frame["genres"]), DIM)
        period = SparseFeat("period", 1 + int(frame["period"].max()), DIM)
        return [VarLenSparseFeat(genres, GENRES, "mean"), period], frame
    with np.load(folder / "attributes.npz") as arrays:
        starts, values = arrays["indptr"], arrays["attributes"]
    raw = np.asarray(item_ids.values, int)
    lists = [values[starts[item] : starts[item + 1]].tolist() for item in raw]
    frame = pd.DataFrame({"attributes": lists}, index=np.arange(1, len(raw) + 1))
    embedding = SparseFeat("attributes", int(values.max()) + 1, DIM)
    return [VarLenSparseFeat(embedding, max(map(len, lists)), "mean")], frame


class Clock(tf.keras.callbacks.Callback):
    """Stops after so many processor seconds of training; ranks after epochs, off the clock."""

    def __init__(self, held_out, seconds, learning_rate):
        super().__init__()
        self.held_out, self.seconds, self.learning_rate = held_out, seconds, learning_rate
        self.spent, self.began, self.ranked_at, self.best = 0.0, 0.0, 0.0, {"NDCG@10 of validation": -1.0}
        self.vectors = {}

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.process_time()

    def on_train_batch_begin(self, batch, logs=None):
        if self.learning_rate and batch % 8 == 0:
            done = min(1.0, (self.spent + time.process_time() - self.began) / self.seconds)
            falling = max(0.02, 0.5 * (1 + np.cos(np.pi * done)))
            self.model.optimizer.learning_rate.assign(self.learning_rate * falling)

    def on_epoch_end(self, epoch, logs=None):
        self.spent += time.process_time() - self.began
        self.model.stop_training = self.spent >= self.seconds
        if not self.model.stop_training and self.spent - self.ranked_at < self.seconds / 8:
            return
        self.ranked_at = self.spent
        vectors = {name: self.model.user_vectors(part.columns) for name, part in self.held_out.items()}
        vectors["items"] = self.model.item_vectors()
        found = {**ranked(self.held_out, vectors), "epoch": epoch + 1, "CPU s": round(self.spent)}
        print(json.dumps(found), flush=True)
        if found["NDCG@10 of validation"] > self.best["NDCG@10 of validation"]:
            self.best, self.vectors = found, vectors


if __name__ == "__main__":
    main()
