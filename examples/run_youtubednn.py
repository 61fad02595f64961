"""Trains on events, compares, recommends in words and draws: the whole job, on data that it generates or on yours.

    python examples/run_youtubednn.py
    python examples/run_youtubednn.py --data ml-100k --save recommender
    python examples/run_youtubednn.py --data events.csv --user customer --item sku --time bought_at

Each user's last event is for the test and the one before it says when to stop. What is known of users and items, in
folders that have it, is given to the model.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import pandas as pd

from deepmatch_ext import Recommender, data


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the example; returns the exit status: 0, or 2 for arguments or data that can't be used."""
    args = parse_arguments(argv)
    try:
        check_arguments(args)
        dataset = read(args)
        if not len(data.leave_last_out(dataset.interactions).train_targets()):
            raise ValueError("no user has two events to train on, besides those for validation and test")
        recommender = Recommender(
            user_features=features(dataset.users, "user_id", []),
            item_features=features(dataset.items, "item_id", ["title"]),
            embedding_dim=args.embedding_dim,
            batch_size=args.batch_size,
            seed=args.seed,
        )
    except (OSError, ValueError) as error:
        return refused("run_youtubednn.py", args, error)
    print(dataset)
    recommender.fit(dataset.interactions, validation="last", test="last", epochs=args.epochs)
    print()
    recommender.evaluate()
    show_recommendations(recommender, dataset)
    write_report(recommender, args.report)
    if args.save is not None:
        recommender.save(args.save)
        print(f"Recommender: {args.save}; Recommender.load() reads it")
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
    parser.add_argument("--report", metavar="PATH", default="report.html", help="(default: %(default)s)")
    parser.add_argument("--save", metavar="PATH", help="write the recommender to this folder")
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
    if not args.report.endswith(".html"):
        raise ValueError(f"--report must end in .html; got {args.report!r}")
    for name in ("report", "save"):
        path = getattr(args, name)
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise ValueError(f"--{name} must be in a folder that exists; got {path!r}")
    if args.save is not None and Path(args.save).exists():
        raise ValueError(f"--save must be a folder that does not exist yet; got {args.save!r}")


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
    """The data set that was asked for, or a generated one."""
    if args.data is None:
        made = data.synthetic_interactions(num_users=args.users, seed=args.seed)
        items = pd.DataFrame({"title": made.item_titles, "genres": [title.split(" ")[0] for title in made.item_titles]})
        users = pd.DataFrame({"first_genre": made.user_genres.astype(str)})
        return data.Dataset("generated", made.interactions, users[1:], items[1:])  # id 0 is padding
    time = None if args.in_order else args.time
    options = {name: getattr(args, name) for name in ("sep", "encoding") if getattr(args, name) is not None}
    return data.read_dataset(args.data, args.user, args.item, time, verbose=False, **options)


def features(known: pd.DataFrame | None, name: str, without: list[str]) -> pd.DataFrame | None:
    """What is known of users or items by raw id, with the ids as a column, and several genres as a list."""
    if known is None or known.drop(columns=without, errors="ignore").empty:
        return None
    frame = known.drop(columns=without, errors="ignore").rename_axis(name).reset_index()
    if "genres" in frame:
        frame["genres"] = frame["genres"].fillna("").str.split("|")
    return frame


def show_recommendations(recommender: Recommender, dataset: data.Dataset) -> None:
    """Prints what three users had and what is recommended to them."""
    events = recommender.interactions
    names = pd.Series(events.item_ids.values.astype(str), index=events.item_ids.values)
    if dataset.items is not None and "title" in dataset.items:
        names = dataset.items["title"].reindex(names.index).fillna(names)
    best = recommender.recommend(events.user_ids.values[:3], n=5)
    for user, lines in best.groupby("user_id", sort=False):
        had = events.items[events.users == events.user_ids.encode(user)]
        print(f"\nUser {user}")
        print("  had last:    " + " | ".join(names[events.item_ids.decode(had[::-1][:5])]))
        print("  recommended: " + " | ".join(names[lines["item_id"]]))


def write_report(recommender: Recommender, path: str) -> None:
    """Writes the HTML report, if matplotlib is installed."""
    try:
        recommender.report(path)
    except ImportError as error:
        print(f"\nNo report: {error}")
    else:
        print(f"\nReport: {path}")


if __name__ == "__main__":
    sys.exit(main())
