"""Sessions that end with what they began with, of users with a brand: what SDM finds that pooled histories do not.

    python benchmarks/intents.py        # prints a table; needs deepmatch_ext alone

Generated clicks (`synthetic_intents`). Every model reads the same two histories: the clicks of the session, and all of
the user's before the target. Targets are the last clicks of the sessions: those of the users' last sessions are the
test, those of the last but one the validation, and the earlier ones are for training. Each model has the same processor
time. Settings are those of `SETTINGS` that are best on validation with the first seed; the epoch is chosen there, too.
The test is ranked once by each run. `Three poolings` is YoutubeDNN with three of them at once.
"""

import argparse
import os
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import pandas as pd
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from interests import runs_of_best, vectors_of, watch_of

from deepmatch_ext import data, models
from deepmatch_ext.evaluation import evaluate_vectors
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.samplers import FullSampler

SESSION, PAST, BATCH, DIM = 10, 20, 512, 16  # the lengths of the histories, the size of the vectors
DEEP = {"user_dnn_hidden_units": (64, DIM), "dnn_dropout": 0.0}
OF_SDM = {"units": 32, "dropout_rate": 0.0}
SETTINGS = {  # row -> what is tried on validation; the combiner is that of the session
    "YoutubeDNN": [{"combiner": each, **tower} for each in ("mean", "recency", "recency+last") for tower in ({}, DEEP)],
    "Three poolings": [{"combiner": "mean+recency+last", **tower} for tower in ({}, DEEP)],
    "SDM": [{"rnn_layers": 1, **OF_SDM}, {"rnn_layers": 2, **OF_SDM}],
}


class Clicks:
    """Targets with both histories."""

    def __init__(self, events, rows):
        session = data.windows(events, rows, SESSION)
        past = data.windows(replace(events, sessions=None), rows, PAST)
        self.targets = past.pop("item_id")
        self.input = {"session_item": session["hist_item_id"], "session_len": session["hist_len"], **past}

    def figures(self, users, items):
        return evaluate_vectors(users, items, self.targets, ns=[10, 50])


class Split:
    """The last session of each user, the last but one, and the earlier ones."""

    def __init__(self, events):
        self.vocabulary_size = events.item_vocabulary_size
        left = events.sessions[events.indptr[1:][events.users] - 1] - events.sessions  # of the user's sessions
        ends = np.append(events.sessions[1:] != events.sessions[:-1], True)
        self.train, self.validation, self.test = (
            Clicks(events, np.flatnonzero(ends & part)) for part in (left > 1, left == 1, left == 0)
        )


def built(name, split, settings, seed):
    settings = dict(settings)
    combiner, rate = settings.pop("combiner", "mean"), settings.pop("learning_rate", 1e-2)

    def history(name, length, length_name, combiner):
        column = SparseFeat(name, split.vocabulary_size, DIM, embedding_name="item_id")
        return VarLenSparseFeat(column, length, combiner, length_name)

    session = history("session_item", SESSION, "session_len", combiner)
    past = history("hist_item_id", PAST, "hist_len", "mean")
    builder, further = (models.SDM, {"short_history": ["session_item"]}) if name == "SDM" else (models.YoutubeDNN, {})
    items = [SparseFeat("item_id", split.vocabulary_size, DIM)]
    model = builder([session, past], items, sampler_config=FullSampler(), seed=seed, **settings, **further)
    model.compile(LazyAdam(rate))
    return model


def run(name, split, settings, seed, seconds):
    """Trains one model; its figures."""
    model = built(name, split, settings, seed)

    def judged(model):
        return split.validation.figures(*vectors_of(model, split.validation.input))["HR@10"]

    watch = watch_of(judged, seconds, patience=10**6)
    x = {**split.train.input, "item_id": split.train.targets}
    model.fit(x, batch_size=BATCH, epochs=10**6, verbose=0, callbacks=[watch])
    model.set_weights(watch.weights)
    found = split.test.figures(*vectors_of(model, split.test.input))
    return {"validation": watch.best, **found, "epoch": watch.best_epoch, "epochs": watch.curve[-1][0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3", help="of the models; the first one also chooses")
    parser.add_argument("--data-seed", type=int, default=2)
    parser.add_argument("--only", default="", help="what the rows' names begin with, such as SDM")
    parser.add_argument("--seconds", type=float, default=30, help="of processor time, for each model")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    split = Split(data.synthetic_intents(seed=args.data_seed))
    table = {}
    for name, candidates in SETTINGS.items():
        if not name.startswith(tuple(args.only.split(","))):
            continue

        def trained(settings, seed, name=name):
            result = run(name, split, settings, seed, args.seconds)
            print(name, settings, f"seed {seed}", {key: round(float(v), 4) for key, v in result.items()}, flush=True)
            return result

        chosen, runs = runs_of_best(candidates, seeds, trained)
        table[name] = {"settings": chosen, **runs.mean(), "spread": runs["HR@10"].std(ddof=0)}
    print(pd.DataFrame(table).T.round(4).to_string())


if __name__ == "__main__":
    main()
