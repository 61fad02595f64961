"""YoutubeDNN from events to recommendations: read, split, train, judge against two baselines, recommend, save.

With no arguments it makes its own data. ``--data PATH`` takes a MovieLens folder as GroupLens ships it, RecBole's
files, or one event a row in CSV, JSON lines or Parquet: a file, a folder or a pattern::

    python examples/run_youtubednn.py
    python examples/run_youtubednn.py --data ml-1m --save model.keras --report report.html
    python examples/run_youtubednn.py --data shop.csv --user customer --item sku --time bought_at
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import pandas as pd
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN, data, evaluation
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.retrieval import top_n
from deepmatch_ext.utils import sampledsoftmaxloss

History = dict[str, list[float]]  # a figure of each epoch, by name

MAX_LEN = 50  # how much of a history the model sees
SIDE_DIM = 4  # embedding size of user attributes and genres
MAX_VALUES = 50  # an attribute with more values than this, such as a zip code, is left out


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the example; returns the exit status: 0, or 2 for arguments or data that can't be used."""
    args = parse_arguments(argv)
    try:
        check_arguments(args)
        dataset = read(args)
        split = data.leave_last_out(dataset.interactions)
        if not len(split.train_targets()):
            raise ValueError("no user has two events to train on, besides those for validation and test")
        attributes = user_attributes(dataset)
    except (OSError, ValueError) as error:
        return refused("run_youtubednn.py", args, error)

    events = dataset.interactions
    print(f"{dataset}; side: {', '.join([*attributes, *events.side]) or 'none'}")

    tf.keras.utils.set_random_seed(args.seed)
    model = build_model(split, attributes, args)
    history = train(model, split, attributes, args)

    # The history before a test item holds the validation item, which the model was not trained to predict.
    test = model_input(events, split.test, attributes)
    user_vectors, item_vectors = model.user_vectors(test), model.item_vectors()
    ranks = rank_test_items(split, test, user_vectors, item_vectors)
    figures = {name: evaluation.ranking_metrics(of_targets, ns=(10, 50)) for name, of_targets in ranks.items()}
    print("\n" + evaluation.format_table(figures, columns=["HR@10", "NDCG@10", "Recall@50"]))

    show_recommendations(dataset, split.test[:3], user_vectors[:3], item_vectors)
    plot(args.plot, history, ranks)
    if args.report is not None:
        write_report(args, split, test, user_vectors, item_vectors, history, ranks, genre_names(dataset))
    if args.save is not None:
        save_and_reload(model, args.save, test, user_vectors, item_vectors)
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="run_youtubednn.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add_data_arguments(parser)
    parser.add_argument("--users", metavar="N", type=int, default=2000, help="users to generate (default: %(default)s)")
    parser.add_argument("--epochs", metavar="N", type=int, default=30, help="at most (default: %(default)s)")
    parser.add_argument("--batch-size", metavar="N", type=int, default=1024, help="(default: %(default)s)")
    parser.add_argument("--embedding-dim", metavar="N", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--plot", metavar="PATH", default="youtubednn.png", help="(default: %(default)s)")
    parser.add_argument("--report", metavar="PATH", help="write figures and pictures to this .html file")
    parser.add_argument("--save", metavar="PATH", help="write the model to this .keras file")
    return parser.parse_args(argv)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """What `read` reads."""
    parser.add_argument("--data", metavar="PATH", help="a folder, file or pattern; without it, data are generated")
    parser.add_argument("--user", metavar="COLUMN", default="infer", help="of users, if it has no usual name")
    parser.add_argument("--item", metavar="COLUMN", default="infer", help="of items, if it has no usual name")
    times = parser.add_mutually_exclusive_group()
    times.add_argument("--time", metavar="COLUMN", default="infer", help="of times, if it has no usual name")
    times.add_argument("--in-order", action="store_true", help="there are no times: the rows are in their order")
    parser.add_argument(
        "--sep", metavar="TEXT", help="what stands between the columns of a text (default: by its name)"
    )
    parser.add_argument("--encoding", metavar="NAME", help="of a text (default: utf-8)")


def check_arguments(args: argparse.Namespace) -> None:
    """Refuses, before a long run, what would fail at its end."""
    check_at_least_one(args, "users", "epochs", "batch_size", "embedding_dim")
    if args.seed < 0:
        raise ValueError(f"--seed must be at least 0; got {args.seed}")
    files = {"plot": (".png", ".pdf", ".svg"), "report": (".html",), "save": (".keras",)}
    for name, suffixes in files.items():
        path = getattr(args, name)
        if path is not None and not path.endswith(suffixes):
            raise ValueError(f"--{name} must end in {' or '.join(suffixes)}; got {path!r}")
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise ValueError(f"--{name} must be in a folder that exists; got {path!r}")


def check_at_least_one(args: argparse.Namespace, *names: str) -> None:
    """Refuses numbers below 1."""
    for name in names:
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(args, name)}")


def refused(program: str, args: argparse.Namespace, error: Exception) -> int:
    """Says in one line what can't be used; returns the exit status."""
    message = " ".join(str(error).split())
    source = "" if args.data is None or args.data in message else f"{args.data}: "
    print(f"{program}: error: {source}{message}", file=sys.stderr)
    return 2


def read(args: argparse.Namespace) -> data.Dataset:
    """The data set, with the first genre of each event's item as a side column where genres are known."""
    if args.data is None:
        made = data.synthetic_interactions(num_users=args.users, seed=args.seed)
        items = pd.DataFrame({"title": made.item_titles, "genres": [title.split(" ")[0] for title in made.item_titles]})
        users = pd.DataFrame({"first_genre": made.user_genres.astype(str)})
        dataset = data.Dataset("generated", made.interactions, users, items)
    else:
        time = None if args.in_order else args.time
        options = {name: getattr(args, name) for name in ("sep", "encoding") if getattr(args, name) is not None}
        dataset = data.read_dataset(args.data, args.user, args.item, time, verbose=False, **options)
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
    """name -> the id of each user's value, (number of users + 1,), of the attributes that can tell users apart."""
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


def model_input(events: data.Interactions, rows: np.ndarray, attributes: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the model reads for each target row: the item, the history before it and the user's attributes."""
    columns = data.windows(events, rows, MAX_LEN, side=list(events.side))
    return {**columns, **{name: ids[columns["user_id"]] for name, ids in attributes.items()}}


def build_model(split: data.Split, attributes: dict[str, np.ndarray], args: argparse.Namespace) -> Any:
    """YoutubeDNN on DeepCTR's feature columns, compiled."""
    events, dim = split.interactions, args.embedding_dim
    item = SparseFeat("item_id", events.item_vocabulary_size, dim)
    hist_item = SparseFeat("hist_item_id", events.item_vocabulary_size, dim, embedding_name="item_id")
    user_columns = [VarLenSparseFeat(hist_item, MAX_LEN, combiner="recency+last", length_name="hist_len")]
    for name, values in events.side.items():
        hist_side = SparseFeat(f"hist_{name}", int(values.max()) + 1, SIDE_DIM)
        user_columns.append(VarLenSparseFeat(hist_side, MAX_LEN, combiner="recency", length_name="hist_len"))
    for name, ids in attributes.items():
        user_columns.append(SparseFeat(name, int(ids.max()) + 1, SIDE_DIM))
    # One hidden layer: with features beside the history it does better on validation than the default, none.
    model = YoutubeDNN(user_columns, [item], user_dnn_hidden_units=(2 * dim, dim), seed=args.seed)
    model.compile(LazyAdam(1e-3), sampledsoftmaxloss)
    return model


def train(model: Any, split: data.Split, attributes: dict[str, np.ndarray], args: argparse.Namespace) -> History:
    """Fits the model until the ranking of the validation items gets no better; returns Keras's history."""
    validation = model_input(split.interactions, split.validation, attributes)
    watch = evaluation.RetrievalMetrics(
        validation,
        validation["item_id"],
        seen=data.seen_before(split.interactions, split.validation),
        ns=[10],
        patience=4,
        restore_best_weights=True,
    )
    columns = model_input(split.interactions, split.train_targets(), attributes)
    fitted = model.fit(columns, batch_size=args.batch_size, epochs=args.epochs, callbacks=[watch], verbose=1)
    print(f"Best epoch: {watch.best_epoch + 1}, {watch.monitor} {watch.best:.4f}")
    return fitted.history


def rank_test_items(
    split: data.Split, test: dict[str, Any], user_vectors: np.ndarray, item_vectors: np.ndarray
) -> dict[str, np.ndarray]:
    """name of a recommender -> the rank of each test item among all items that its user has not had, 0 the best.

    A test item that the user has had is never recommended: its rank is `evaluation.MISSED`.
    """
    events = split.interactions
    known = np.sort(np.concatenate([split.train, split.validation]))
    popularity = evaluation.Popularity.from_interactions(events, known)
    markov = evaluation.Markov.from_interactions(events, known)
    last_items, seen = test["hist_item_id"][:, 0], data.seen_before(events, split.test)
    scores = {
        "popularity": lambda start, stop: popularity.score(last_items[start:stop]),
        "Markov": lambda start, stop: markov.score(last_items[start:stop]),
        "YoutubeDNN": evaluation.inner_products(user_vectors, item_vectors),
    }
    return {name: evaluation.target_ranks(score, test["item_id"], seen=seen) for name, score in scores.items()}


def show_recommendations(
    dataset: data.Dataset, rows: np.ndarray, user_vectors: np.ndarray, item_vectors: np.ndarray
) -> None:
    """Prints what the users of some test rows had before, what is recommended, and what they took."""
    events = dataset.interactions
    raw_ids = pd.Index(events.item_ids.values)
    names = pd.Series(raw_ids.astype(str), index=raw_ids)
    if dataset.items is not None and "title" in dataset.items:
        names = dataset.items["title"].reindex(raw_ids).fillna(names)
    names = ["", *names]  # by item id
    indptr, had = seen = data.seen_before(events, rows)
    best, _ = top_n(user_vectors, item_vectors, min(5, events.num_items), exclude=seen)
    for place, row in enumerate(rows):
        history = had[indptr[place] : indptr[place + 1]][::-1]
        print(f"\nUser {events.user_ids.decode([events.users[row]])[0]}")
        print("  had last:    " + " | ".join(names[item] for item in history[:5]))
        print("  recommended: " + " | ".join(names[item] for item in best[place] if item))
        print("  took:        " + names[events.items[row]])


def plot(path: str, history: History, ranks: dict[str, np.ndarray]) -> None:
    """Draws the training and how recall grows with the number of recommendations, if matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("\nNo plot without matplotlib: pip install matplotlib")
        return
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, len(history["loss"]) + 1)
    left.plot(epochs, history["loss"], ".-", color="tab:gray", label="training loss")
    left.set(xlabel="epoch", ylabel="training loss")
    quality = left.twinx()
    quality.plot(epochs, history["val_NDCG@10"], ".-", color="tab:blue", label="validation NDCG@10")
    quality.set_ylabel("validation NDCG@10")
    left.legend(handles=[*left.lines, *quality.lines], loc="center right")
    lengths = np.arange(1, 101)
    for name, of_targets in ranks.items():
        right.plot(lengths, [(of_targets < n).mean() for n in lengths], label=name)
    right.set(xlabel="N", ylabel="recall of the test item at N")
    right.legend()
    figure.savefig(path, dpi=120)
    print(f"\nPlot: {path}")


def write_report(
    args: argparse.Namespace,
    split: data.Split,
    test: dict[str, Any],
    user_vectors: np.ndarray,
    item_vectors: np.ndarray,
    history: History,
    ranks: dict[str, np.ndarray],
    genres: pd.Series | None,
) -> None:
    """Writes the HTML report of what has been trained and measured, if matplotlib is installed."""
    try:
        evaluation.write_report(
            args.report,
            user_vectors,
            item_vectors,
            test["item_id"],
            seen=data.seen_before(split.interactions, split.test),
            history=history,
            ranks={name: of_targets for name, of_targets in ranks.items() if name != "YoutubeDNN"},
            item_count=split.interactions.item_counts(split.train),
            item_groups=None if genres is None else [None, *genres],
            settings=vars(args),
            title=f"YoutubeDNN on {args.data or 'generated data'}",
            name="YoutubeDNN",
        )
    except ImportError as error:
        print(f"\nNo report: {error}")
    else:
        print(f"Report: {args.report}")


def save_and_reload(
    model: Any, path: str, test: dict[str, Any], user_vectors: np.ndarray, item_vectors: np.ndarray
) -> None:
    """Saves the model and checks that what is loaded again gives the same vectors."""
    model.save(path)
    loaded = tf.keras.models.load_model(path)
    same = np.array_equal(loaded.user_vectors(test), user_vectors)
    same = same and np.array_equal(loaded.item_vectors(), item_vectors)
    print(f"Model: {path}; loaded again, its vectors are {'equal' if same else 'NOT equal'}")


if __name__ == "__main__":
    sys.exit(main())
