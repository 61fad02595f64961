"""Two stages in one program: YoutubeDNN retrieves 200 items for each user, a DeepCTR ranker puts them in order.

One list of feature columns describes users and items to both. With no arguments it makes its own data::

    python examples/run_two_stage.py
    python examples/run_two_stage.py --data ml-100k --seeds 1,2,3
    python examples/run_two_stage.py --data ml-1m --seeds 1,2,3 --hidden-units 256,128,64 --patience 3 --ranker-events 2

Which events teach what. Of each user's events, the last is for the test and the one before it for validation. The
ranker learns from up to ``--ranker-events`` before these, and everything earlier is "early":

    early ... early | ranker ... ranker | validation | test

- The first stage that is evaluated and served is trained on the early and the ranker's events.
- For the ranker's lessons, a second one with the same settings is trained on the early events alone. It retrieves 200
  items for each of the ranker's events, which it has never seen, from the history before that event. So the scores from
  which the ranker learns are those of events to come, as they will be when it serves, and not those of events that the
  first stage knows by heart.
- A lesson is a list: the item that the user took, if it was retrieved, among others that were retrieved too. Items that
  the user took later are negatives like any other: leaving them out would leak the future.
- Counts (popularity, which item follows which) are over the early events for the lessons, and over all training events
  for validation and test: a lesson's own event is never among them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import pandas as pd
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from deepctr.models import DIN, DeepFM

sys.path.insert(0, str(Path(__file__).parent))
from command_line import add_data_arguments, check_at_least_one, read, refused

from deepmatch_ext import YoutubeDNN, data, evaluation
from deepmatch_ext.compat import enable_deepctr_on_keras3
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.retrieval import top_n
from deepmatch_ext.utils import sampledsoftmaxloss

MAX_LEN = 50  # how much of a history both stages see
RANKER_DIM = 16  # the ranker's embedding size at most
SIDE_DIM = 4  # embedding size of user attributes and genres
TEMPERATURE = 0.1  # of the first stage
MAX_VALUES = 50  # an attribute with more values than this, such as a zip code, is left out
FOLLOWED = 5  # how many of the last items count for what follows

Attributes = dict[str, np.ndarray]  # of users: name -> the id of each user's value, by user id


@dataclass(frozen=True)
class Lists:
    """What the first stage retrieved for B events, C items each, best first.

    x: the user's columns and the item taken, name -> (B, ...). items: name -> (B, C), the id of each item in the lists
    (0 where fewer were left), and what is known of it.
    """

    x: dict[str, np.ndarray]
    items: dict[str, np.ndarray]

    @property
    def ids(self) -> np.ndarray:
        return self.items["item_id"]

    @property
    def taken(self) -> np.ndarray:
        """Where the item that was taken is, (B, C) bool; nowhere if it was not retrieved."""
        return self.ids == self.x["item_id"][:, None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the example; returns the exit status: 0, or 2 for arguments or data that can't be used."""
    args = parse_arguments(argv)
    try:
        seeds = check_arguments(args)
        args.seed = seeds[0]  # of the generated data
        dataset = with_genres(read(args))
        split = data.leave_last_out(dataset.interactions)
        early, lessons = early_and_lessons(split, args.ranker_events)
        attributes = user_attributes(dataset)
    except (OSError, ValueError) as error:
        return refused("run_two_stage.py", args, error)
    enable_deepctr_on_keras3()  # does nothing on tf-keras
    events = dataset.interactions
    print(dataset)
    print(f"events to learn from: {len(split.train_targets())}, of which the ranker gets {len(lessons)}")
    repeats = [leak for leak in data.find_leaks(split).leaks if leak.kind == "repeated_targets"]
    print("".join(f"{leak}\n" for leak in repeats), end="")  # what a user has had is not retrieved: a miss

    results: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        tf.keras.utils.set_random_seed(seed)
        for name, figures in two_stages(split, early, lessons, attributes, seed, args).items():
            results.setdefault(name, []).append(figures)
            print(f"  {name}: test HR@10 {figures['HR@10']:.4f}, NDCG@10 {figures['NDCG@10']:.4f}", flush=True)
    print("\nTest, " + (f"seed {seeds[0]}" if len(seeds) == 1 else f"mean of seeds {args.seeds}"))
    means = {name: {n: float(np.mean([f[n] for f in of])) for n in of[0]} for name, of in results.items()}
    columns = ["HR@10", "NDCG@10", f"Recall@{min(args.retrieve, events.num_items)}"]
    print(evaluation.format_table(means, columns))
    if len(seeds) > 1:
        print("\nStandard deviation")
        stds = {name: {n: float(np.std([f[n] for f in of], ddof=1)) for n in of[0]} for name, of in results.items()}
        print(evaluation.format_table(stds, columns))
    return 0


def with_genres(dataset: data.Dataset) -> data.Dataset:
    """The data set with the first genre of each event's item as a side column, where genres are known."""
    genres = genre_names(dataset)
    if genres is None:
        return dataset
    events, genre_ids = dataset.interactions, ids_of(genres)
    return replace(dataset, interactions=replace(events, side={"genre": genre_ids[events.items]}))


def genre_names(dataset: data.Dataset) -> pd.Series | None:
    """The first genre of each item, in the order of item ids from 1; None where none is known."""
    if dataset.items is None or "genres" not in dataset.items:
        return None
    genres = dataset.items["genres"].reindex(dataset.interactions.item_ids.values).str.split("|").str[0]
    return None if genres.isna().all() else genres


def user_attributes(dataset: data.Dataset) -> dict[str, np.ndarray]:
    """name -> the id of each user's value, (number of users + 1,), for the attributes that can tell users apart."""
    attributes: dict[str, np.ndarray] = {}
    if dataset.users is None:
        return attributes
    table = dataset.users.reindex(dataset.interactions.user_ids.values)
    for name, values in table.items():
        if str(name).lower() == "age":
            values = pd.to_numeric(values, errors="coerce") // 5  # bands of five years
        if 2 <= values.nunique() <= min(MAX_VALUES, len(table) / 5):
            attributes["user_" + re.sub(r"\W", "_", str(name))] = ids_of(values)
    return attributes


def ids_of(values: pd.Series) -> np.ndarray:
    """Numbers from 1 for the values, 0 where one is missing; in front a 0 for the user or item that has id 0."""
    return np.concatenate([[0], data.IdMap.from_values(values.dropna()).encode(values)]).astype(np.int32)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="run_two_stage.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add_data_arguments(parser)
    parser.add_argument("--users", metavar="N", type=int, default=1000, help="users to generate (default: %(default)s)")
    parser.add_argument("--seeds", default="1", help="one or several, as in 1,2,3 (default: %(default)s)")
    parser.add_argument("--rankers", default="DIN", help="DIN, DeepFM or DIN,DeepFM (default: %(default)s)")
    parser.add_argument("--retrieve", metavar="N", type=int, default=200, help="items per list (default: %(default)s)")
    parser.add_argument("--ranker-events", metavar="N", type=int, default=10, help="per user (default: %(default)s)")
    parser.add_argument("--negatives", metavar="N", type=int, default=20, help="per lesson (default: %(default)s)")
    parser.add_argument("--epochs", metavar="N", type=int, default=30, help="of each stage at most (%(default)s)")
    parser.add_argument("--embedding-dim", metavar="N", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--hidden-units", metavar="N,N", help="of the first stage, as in 256,128,64 (default: its own)")
    parser.add_argument("--batch-size", metavar="N", type=int, default=1024, help="of the first stage (%(default)s)")
    parser.add_argument("--learning-rate", metavar="X", type=float, default=1e-3, help="of its Adam (%(default)s)")
    parser.add_argument(
        "--patience", metavar="N", type=int, default=8, help="epochs without progress, first stage (%(default)s)"
    )
    parser.add_argument(
        "--ranker-validation",
        metavar="N",
        type=int,
        default=1000,
        help="users that stop the ranker, at most %(default)s",
    )
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> list[int]:
    """The seeds; refuses, before a long run, what would fail later."""
    check_at_least_one(args, "users", "retrieve", "ranker_events", "negatives", "epochs", "embedding_dim")
    check_at_least_one(args, "batch_size", "patience", "ranker_validation")
    if not 0 < args.learning_rate < float("inf"):
        raise ValueError(f"--learning-rate must be a number above 0; got {args.learning_rate}")
    if not all(units.isdigit() and int(units) for units in (args.hidden_units or "1").split(",")):
        raise ValueError(f"--hidden-units must be numbers with commas between them; got {args.hidden_units!r}")
    if args.negatives >= args.retrieve:
        raise ValueError(f"--negatives must be less than --retrieve, {args.retrieve}; got {args.negatives}")
    if not set(args.rankers.split(",")) <= {"DIN", "DeepFM"}:
        raise ValueError(f"--rankers must be DIN, DeepFM or both with a comma between them; got {args.rankers!r}")
    if not all(seed.strip().isdigit() for seed in args.seeds.split(",")):
        raise ValueError(f"--seeds must be numbers with commas between them; got {args.seeds!r}")
    return [int(seed) for seed in args.seeds.split(",")]


def early_and_lessons(split: data.Split, ranker_events: int) -> tuple[np.ndarray, np.ndarray]:
    """The train rows in two parts: early ones, and each user's last few, at most half, from which the ranker learns.

    Both are sorted row numbers.
    """
    events = split.interactions
    counts = np.bincount(events.users[split.train], minlength=events.user_vocabulary_size)
    is_late = events.position >= (counts - np.minimum(ranker_events, counts // 2))[events.users]
    late = is_late[split.train]
    lessons = split.train[late]
    lessons = lessons[events.position[lessons] >= 1]
    if not len(lessons) or late.all():
        raise ValueError("no user has two events to train on, besides those for validation and test")
    return split.train[~late], lessons


def model_input(events: data.Interactions, rows: np.ndarray, attributes: Attributes) -> dict[str, np.ndarray]:
    """The columns of some events: the item, the history before it and the user's attributes."""
    columns = data.windows(events, rows, MAX_LEN, side=list(events.side))
    return {**columns, **{name: ids[columns["user_id"]] for name, ids in attributes.items()}}


def feature_columns(events: data.Interactions, attributes: Attributes, dim: int) -> tuple[list[Any], list[Any]]:
    """The user's and the item's columns, for both stages."""
    item = SparseFeat("item_id", events.item_vocabulary_size, dim)
    hist_item = SparseFeat("hist_item_id", events.item_vocabulary_size, dim, embedding_name="item_id")
    user = [VarLenSparseFeat(hist_item, MAX_LEN, combiner="recency+last", length_name="hist_len")]
    user += [SparseFeat(name, int(ids.max()) + 1, SIDE_DIM, group_name="side") for name, ids in attributes.items()]
    return user, [item]


def two_stages(
    split: data.Split,
    early: np.ndarray,
    lessons: np.ndarray,
    attributes: Attributes,
    seed: int,
    args: argparse.Namespace,
) -> dict[str, dict[str, float]]:
    """Trains both stages; the test figures of the first alone and of both."""
    events = split.interactions
    columns = feature_columns(events, attributes, args.embedding_dim)
    first = build_first(columns, args, seed)
    epochs = train_first(first, split, attributes, args)
    print(f"seed {seed}: the first stage was best after epoch {epochs}", flush=True)
    of_early = build_first(columns, args, seed)
    x = model_input(events, early[events.position[early] >= 1], attributes)
    of_early.fit(x, batch_size=args.batch_size, epochs=epochs, verbose=0)

    to_learn = retrieve(of_early, events, lessons, early, attributes, args.retrieve)
    some = np.random.default_rng(seed).permutation(split.validation)[: args.ranker_validation]
    validation = retrieve(first, events, np.sort(some), split.train, attributes, args.retrieve)
    test = retrieve(first, events, split.test, split.train, attributes, args.retrieve)
    to_learn, validation, test = standardised(to_learn, validation, test)

    as_retrieved = -np.broadcast_to(np.arange(test.ids.shape[1], dtype=np.float32), test.ids.shape)
    figures = {"first stage": list_metrics(test, as_retrieved)}
    for kind in args.rankers.split(","):
        ranker = build_ranker(kind, columns, to_learn, seed)
        train_ranker(ranker, to_learn, validation, args.negatives, args.epochs, seed)
        figures[f"first stage, then {kind}"] = list_metrics(test, score_lists(ranker, test))
    return figures


# The first stage.


def build_first(columns: tuple[list[Any], list[Any]], args: argparse.Namespace, seed: int) -> Any:
    """The first stage, compiled."""
    user, item = columns
    # The history alone retrieves better than with the user's attributes beside it (validation NDCG@10 on MovieLens
    # 100K: .114 and .106). The ranker reads them.
    attributes = [column.name for column in user[1:]]
    tower = {"user_dnn_hidden_units": tuple(map(int, args.hidden_units.split(",")))} if args.hidden_units else {}
    model = YoutubeDNN(user, item, **tower, temperature=TEMPERATURE, seed=seed, exclude_features=attributes)
    model.compile(LazyAdam(args.learning_rate), sampledsoftmaxloss)
    return model


def train_first(model: Any, split: data.Split, attributes: Attributes, args: argparse.Namespace) -> int:
    """Trains on all train events and leaves the model as it is best on validation; returns that epoch, from 1.

    Both stages are compared with this model: ``--patience`` must not stop it too early.
    """
    events = split.interactions
    validation = model_input(events, split.validation, attributes)
    watch = evaluation.RetrievalMetrics(
        validation,
        validation["item_id"],
        seen=data.seen_before(events, split.validation),
        ns=[10],
        patience=args.patience,
        restore_best_weights=True,
    )
    x = model_input(events, split.train_targets(), attributes)
    model.fit(x, batch_size=args.batch_size, epochs=args.epochs, callbacks=[watch], verbose=0)
    return (watch.best_epoch or 0) + 1


def retrieve(
    model: Any, events: data.Interactions, rows: np.ndarray, known: np.ndarray, attributes: Attributes, n: int
) -> Lists:
    """The lists of the first stage for some events, with what the ``known`` events tell about the items in them."""
    x = model_input(events, rows, attributes)
    user_vectors, item_vectors = model.user_vectors(x), model.item_vectors()
    seen = data.seen_before(events, rows)
    ids, scores = top_n(user_vectors, item_vectors, min(n, events.num_items), exclude=seen)
    logits = np.where(ids > 0, scores / TEMPERATURE, -np.inf)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    items = {
        # The first stage's own score: the log of an item's softmax probability within its list.
        "score": np.maximum(logits, -20.0),
        "place": np.broadcast_to(np.log1p(np.arange(ids.shape[1])), ids.shape),
        "popularity": np.log1p(events.item_counts(known))[ids],
        "follows": follows(ids, x["hist_item_id"], events, known),
        **likeness(ids, x["hist_item_id"], item_vectors),
    }
    items = {"item_id": ids.astype(np.int32), **{name: values.astype(np.float32) for name, values in items.items()}}
    if "genre" in events.side:
        genres = np.zeros(events.item_vocabulary_size, np.int32)
        genres[events.items] = events.side["genre"]
        items["genre"] = genres[ids]
        items["genre_share"] = genre_share(items["genre"], x)
    return Lists(x, items)


def follows(ids: np.ndarray, history: np.ndarray, events: data.Interactions, known: np.ndarray) -> np.ndarray:
    """The log of how often each item of a list came after the user's last items, later ones weighted more."""
    markov, counts = evaluation.Markov.from_interactions(events, known), events.item_counts(known)
    shares = np.full(ids.shape, 1e-4)
    for start in range(0, len(ids), 256):
        block = slice(start, start + 256)
        for back in range(FOLLOWED):
            last = history[block, back]
            after = np.take_along_axis(markov.score(last), ids[block], axis=1)
            shares[block] += np.where(last > 0, 1 / (1 + back) / (1 + counts[last]), 0)[:, None] * after
    return np.log(shares)


def likeness(ids: np.ndarray, history: np.ndarray, item_vectors: np.ndarray) -> dict[str, np.ndarray]:
    """How near each item of a list is to the user's last item, to the nearest of the history, and to all of it.

    Cosines of the first stage's item vectors; in the last one, an item of the history counts by 1 / rank. A user's
    single vector can't hold all of this.
    """
    weights = (history > 0) / (1 + np.arange(history.shape[1]))
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    names = ("like_last", "like_nearest", "like_history")
    likeness = {name: np.empty(ids.shape, np.float32) for name in names}
    for start in range(0, len(ids), 64):
        block = slice(start, start + 64)
        cosines = item_vectors[history[block]] @ item_vectors[ids[block]].transpose(0, 2, 1)  # (b, T, C)
        likeness["like_last"][block] = cosines[:, 0]
        likeness["like_nearest"][block] = cosines.max(axis=1)
        likeness["like_history"][block] = np.einsum("bt,btc->bc", weights[block], cosines)
    return likeness


def genre_share(genres: np.ndarray, x: dict[str, np.ndarray]) -> np.ndarray:
    """The fraction of the history that has the genre of each item of a list."""
    same = np.zeros(genres.shape, np.float32)
    for past in x["hist_genre"].T:
        same += (genres == past[:, None]) & (past > 0)[:, None]
    return same / np.maximum(x["hist_len"], 1)[:, None]


def standardised(to_learn: Lists, *others: Lists) -> list[Lists]:
    """The lists with numbers of mean 0 and standard deviation 1 in the first of them."""
    scales = {}
    for name, values in to_learn.items.items():
        if values.dtype.kind == "f":
            real = values[to_learn.ids > 0]
            scales[name] = float(real.mean()), float(real.std()) or 1.0
    return [
        Lists(lists.x, {**lists.items, **{name: (lists.items[name] - m) / s for name, (m, s) in scales.items()}})
        for lists in (to_learn, *others)
    ]


# The second stage.


def build_ranker(kind: str, columns: tuple[list[Any], list[Any]], lists: Lists, seed: int) -> Any:
    """A DeepCTR model on the first stage's columns and what is known of the items in a list."""
    user, item = [[smaller(column) for column in part] for part in columns]
    dense = [DenseFeat(name, 1) for name, values in lists.items.items() if values.dtype.kind == "f"]
    if "genre" in lists.items:
        item = [*item, SparseFeat("genre", int(lists.items["genre"].max()) + 1, SIDE_DIM, group_name="side")]
    if kind == "DIN":
        columns = [*user, *item, *dense]
        sizes = {"dnn_hidden_units": (64, 32), "att_hidden_size": (32, 16)}
        return DIN(columns, ["item_id"], **sizes, seed=seed, task="regression")
    history, *attributes = user  # which DeepFM pools as DeepCTR can
    columns = [history._replace(combiner="mean"), *attributes, *item, *dense]
    return DeepFM(columns, columns, dnn_hidden_units=(64, 32), seed=seed, task="regression")


def smaller(column: Any) -> Any:
    """The column with an embedding that can be learnt from the ranker's lessons, a part of the events."""
    if isinstance(column, VarLenSparseFeat):
        return column._replace(sparsefeat=smaller(column.sparsefeat))
    return column._replace(embedding_dim=min(column.embedding_dim, RANKER_DIM))


def train_ranker(
    ranker: Any, lessons: Lists, validation: Lists, negatives: int, epochs: int, seed: int, patience: int = 2
) -> int:
    """Trains on lists, until the order of the validation lists no longer improves; returns the best epoch, from 1."""
    negatives = min(negatives, lessons.ids.shape[1] - 1)
    size = 1 + negatives
    which = np.flatnonzero(lessons.taken.any(axis=1))
    taken, real = lessons.taken[which], lessons.ids[which] > 0

    def listwise(labels: Any, scores: Any) -> Any:
        """The cross-entropy of the softmax over a lesson's items."""
        labels, scores = tf.reshape(labels, [-1, size]), tf.reshape(scores, [-1, size])
        return tf.nn.softmax_cross_entropy_with_logits(labels, scores)

    ranker.compile(tf.keras.optimizers.Adam(1e-3), listwise)
    labels = np.tile(np.eye(1, size, dtype=np.float32)[0], len(which))  # the first of each lesson was taken
    rng = np.random.default_rng(seed)
    best, best_epoch, weights = -1.0, 0, ranker.get_weights()
    for epoch in range(1, epochs + 1):
        # Others of the list at random: those with the lowest of random keys. The taken one and padding come last.
        keys = rng.random(taken.shape) + 2 * taken + 2 * ~real
        others = np.argpartition(keys, negatives, axis=1)[:, :negatives]
        places = np.concatenate([taken.argmax(axis=1)[:, None], others], axis=1)
        order = rng.permutation(len(which))
        x = ranker_input(ranker, lessons, which[order], places[order])
        loss = ranker.fit(x, labels, batch_size=64 * size, shuffle=False, verbose=0).history["loss"][0]
        ndcg = list_metrics(validation, score_lists(ranker, validation))["NDCG@10"]
        print(f"  ranker, epoch {epoch}: loss {loss:.4f}, validation NDCG@10 {ndcg:.4f}", flush=True)
        if ndcg > best:
            best, best_epoch, weights = ndcg, epoch, ranker.get_weights()
        elif epoch - best_epoch >= patience:
            break
    ranker.set_weights(weights)
    return best_epoch


def ranker_input(ranker: Any, lists: Lists, which: np.ndarray, places: np.ndarray) -> dict[str, np.ndarray]:
    """One row for each of the ``places`` (b, c) in the lists of the events ``which`` (b,): name -> (b c, ...)."""
    rows = {}
    for tensor in ranker.inputs:
        if tensor.name in lists.items:
            rows[tensor.name] = np.take_along_axis(lists.items[tensor.name][which], places, axis=1).ravel()
        else:
            rows[tensor.name] = np.repeat(lists.x[tensor.name][which], places.shape[1], axis=0)
    return rows


def score_lists(ranker: Any, lists: Lists, block: int = 16) -> np.ndarray:
    """The ranker's score of every item in the lists, (B, C); padding gets -inf."""
    scores = np.empty(lists.ids.shape, np.float32)
    for start in range(0, len(scores), block):
        which = np.arange(start, min(start + block, len(scores)))
        every = np.broadcast_to(np.arange(scores.shape[1]), (len(which), scores.shape[1]))
        scores[which] = np.reshape(ranker.predict_on_batch(ranker_input(ranker, lists, which, every)), every.shape)
    return np.where(lists.ids > 0, scores, -np.inf)


def list_metrics(lists: Lists, scores: np.ndarray) -> dict[str, float]:
    """The metrics of lists in the order of ``scores`` (B, C), over all events: what was not retrieved counts as missed.

    The rank of the item taken is the number of others in its list with a score at least as high.
    """
    taken = lists.taken
    bar = np.where(taken, scores, -np.inf).max(axis=1, keepdims=True)
    ranks = np.count_nonzero((scores >= bar) & ~taken & (lists.ids > 0), axis=1)
    missed = max(10, scores.shape[1])
    ranks = np.where(taken.any(axis=1), ranks, missed)
    return evaluation.ranking_metrics(ranks, [10, scores.shape[1]])


if __name__ == "__main__":
    sys.exit(main())
