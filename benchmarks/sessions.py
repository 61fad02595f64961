"""The next click of Diginetica's sessions: SRGNN, SequenceDNN, YoutubeDNN, a Recommender, session kNN, Markov.

    python benchmarks/sessions.py FOLDER                    # FOLDER holds train.npz and test.npz, as SR-GNN splits it
    python benchmarks/sessions.py FOLDER --validation       # train on nine tenths, rank the last tenth's cases
    python benchmarks/sessions.py FOLDER --only SRGNN --epochs 5

``train.npz``: ``indptr`` and ``items``, sessions in the order of time, clicks oldest first. ``test.npz``: the same of
the cases' prefixes, and ``targets``. All items are ranked, those of the session included. Prints a JSON line for each.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import SRGNN, Recommender, SequenceDNN, YoutubeDNN, evaluation
from deepmatch_ext.data import Interactions, Split, windows
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.samplers import AdaptiveSampler

MAX_LEN, DIM, BATCH, NEGATIVES = 20, 100, 512, 2048
SESSIONS = 128  # in a batch of SequenceDNN, some 500 clicks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--validation", action="store_true", help="rank the last tenth of the training sessions")
    parser.add_argument("--only", default="", help="what the rows' names begin with, such as SRGNN,Markov")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--model", type=json.loads, default={}, help="more arguments of SRGNN and SequenceDNN, as JSON")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    data = Sessions(args.folder, args.validation)
    rows = {
        "Markov": lambda: data.figures(markov(data)),
        "session kNN": lambda: data.figures(session_knn(data)),
        "YoutubeDNN": lambda: trained(data, YoutubeDNN, args.epochs, seed=args.seed),
        "SequenceDNN": lambda: trained(
            data, SequenceDNN, args.epochs, data.sequences, SESSIONS, seed=args.seed, **args.model
        ),
        "SRGNN": lambda: trained(data, SRGNN, args.epochs, seed=args.seed, **args.model),
        "Recommender": lambda: recommender(data, args.seed),
    }
    for name, run in rows.items():
        if name.startswith(tuple(args.only.split(","))):
            print(json.dumps({"name": name, **run()}), flush=True)


class Sessions:
    """Training sessions, and the cases to rank: what was clicked before, and the next click."""

    def __init__(self, folder, validation):
        with np.load(folder / "train.npz") as train, np.load(folder / "test.npz") as test:
            indptr, items = train["indptr"], train["items"]
            prefixes, of_test, targets = test["indptr"], test["items"], test["targets"]
        self.vocabulary_size = int(max(items.max(), targets.max())) + 1
        sessions = Interactions.from_sequences(indptr, items, sessions=True)
        self.last = len(indptr) - 1 - ((len(indptr) - 1) // 10 if validation else 0)
        # Every prefix of a session is a case, with the click after it as the target.
        rows = np.flatnonzero(sessions.position > 0)
        is_train = sessions.sessions[rows] <= self.last
        self.interactions, self.train_rows = sessions, np.flatnonzero(sessions.sessions <= self.last)
        self.trained = indptr[: self.last + 1], items[: indptr[self.last]]
        self.train = windows(sessions, rows[is_train], MAX_LEN)
        whole = Split(sessions, self.train_rows, [], []).sequence_targets(MAX_LEN)
        self.sequences = windows(sessions, whole, MAX_LEN)  # each click once, in some position of one of these
        if validation:
            held_out, rows = sessions, rows[~is_train]
        else:
            ends = prefixes[1:] + np.arange(1, len(prefixes))  # each prefix with its target behind it
            cases = Interactions.from_sequences(np.append(0, ends), np.insert(of_test, prefixes[1:], targets))
            held_out, rows = cases, ends - 1
        self.cases, self.held_out = (held_out, rows), windows(held_out, rows, MAX_LEN)

    def figures(self, score, block_size=512):
        """P@20 and MRR@20 of a scorer, as `evaluate` takes it."""
        found = evaluation.evaluate(score, self.held_out["item_id"], ns=[20], block_size=block_size)
        return {"P@20": round(found["HR@20"], 4), "MRR@20": round(found["MRR@20"], 4)}


def markov(data):
    items = data.interactions.items[data.train_rows]
    sessions = data.interactions.sessions[data.train_rows]
    pair = sessions[1:] == sessions[:-1]
    chain = evaluation.Markov.fit(items[:-1][pair], items[1:][pair], data.vocabulary_size)
    return lambda start, stop: chain.score(data.held_out["hist_item_id"][start:stop, 0])


def session_knn(data, neighbours=100):
    """V-SkNN (Ludewig & Jannach, UMUAI 2018): the clicks of the nearest training sessions, by later clicks first."""
    import scipy.sparse

    items, sessions = data.interactions.items[data.train_rows], data.interactions.sessions[data.train_rows] - 1
    shape = (data.last, data.vocabulary_size)
    clicked = scipy.sparse.csr_matrix((np.ones(len(items), "float32"), (sessions, items)), shape)
    clicked.data[:] = 1
    size = np.maximum(clicked.getnnz(axis=1), 1)
    by_item = (scipy.sparse.diags(1 / np.sqrt(size)) @ clicked).T.tocsr()

    def score(start, stop):
        history, length = (data.held_out[name][start:stop] for name in ("hist_item_id", "hist_len"))
        # The k-th last of n clicks weighs (n - k + 1) / n.
        weights = np.maximum(length[:, np.newaxis] - np.arange(history.shape[1]), 0) / length[:, np.newaxis]
        row, place = np.nonzero(history)
        given = (weights[row, place].astype("float32"), (row, history[row, place]))
        near = (scipy.sparse.csr_matrix(given, (stop - start, data.vocabulary_size)) @ by_item).tocsr()
        for k in range(stop - start):  # the nearest of each case
            of_case = near.data[near.indptr[k] : near.indptr[k + 1]]
            if len(of_case) > neighbours:
                of_case[of_case < np.partition(of_case, -neighbours)[-neighbours]] = 0
        return (near @ clicked).toarray()

    return score


def trained(data, builder, epochs, rows=None, batch_size=BATCH, learning_rate=2e-3, **arguments):
    """Figures after each epoch; the learning rate falls to a fifth for the last two, and to a fifth of that at last."""
    history = SparseFeat("hist_item_id", data.vocabulary_size, DIM, embedding_name="item_id")
    session = VarLenSparseFeat(history, MAX_LEN, "recency+last", "hist_len")
    items = [SparseFeat("item_id", data.vocabulary_size, DIM)]
    model = builder([session], items, sampler_config=AdaptiveSampler(NEGATIVES), **arguments)
    model.compile(LazyAdam(learning_rate))
    curve = []
    for epoch in range(epochs):
        if epoch >= epochs - 2:
            learning_rate /= 5
            model.optimizer.learning_rate.assign(learning_rate)
        wall, processor = time.perf_counter(), time.process_time()
        model.fit(data.train if rows is None else rows, batch_size=batch_size, verbose=0)
        seconds = {"wall s": time.perf_counter() - wall, "CPU s": time.process_time() - processor}
        score = evaluation.inner_products(model.user_vectors(data.held_out), model.item_vectors())
        curve.append({**data.figures(score), **{name: round(value, 1) for name, value in seconds.items()}})
        print(json.dumps({"epoch": epoch + 1, **curve[-1]}), flush=True)
    versions = {"tensorflow": tf.__version__, "keras": getattr(tf.keras, "__version__", "")}
    return {**curve[-1], "epochs": epochs, "arguments": arguments, **versions}


def recommender(data, seed):
    """A Recommender with nothing set; the last tenth of the sessions that it gets says when to stop."""
    indptr, items = data.trained
    sessions = np.repeat(np.arange(1, len(indptr)), np.diff(indptr))  # their order stands for their time
    events = Interactions.from_sequences(indptr, items, times=sessions, sessions=True)
    began = time.process_time()
    made = Recommender(session="session", seed=seed).fit(events, validation=int(sessions[-1] * 9 // 10 + 1), verbose=0)
    seconds = round(time.process_time() - began)
    score = evaluation.inner_products(
        made.model.user_vectors(windows(*data.cases, made.max_len)), made.model.item_vectors()
    )
    return {**data.figures(score), "epochs": made.epochs, "CPU s": seconds}


if __name__ == "__main__":
    main()
