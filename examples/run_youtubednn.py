"""Trains on events, compares, prints recommendations and draws a report, on data that it generates or on yours.

    python examples/run_youtubednn.py
    python examples/run_youtubednn.py --data ml-100k --save recommender
    python examples/run_youtubednn.py --data events.csv --user customer --item sku --time bought_at

Each user's last event is for the test, and the one before it decides when to stop. Attributes of users and items, in
folders that have them, are given to the model.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from command_line import add_data_arguments, check_at_least_one, read, refused

from deepmatch_ext import Recommender, data


def main(argv=None):
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
            seed=args.seed,
        )
    except (OSError, ValueError) as error:
        return refused("run_youtubednn.py", args, error)
    print(dataset)
    recommender.fit(dataset.interactions, validation="last", test="last", epochs=args.epochs)
    print()
    recommender.evaluate()
    show_recommendations(recommender, dataset.items)
    write_report(recommender, args.report)
    if args.save is not None:
        recommender.save(args.save)
        print(f"Recommender: {args.save}; Recommender.load() reads it")
    return 0


def features(known, name, without):
    """What is known about users or items by raw id, with the ids as a column, and several genres as a list."""
    if known is None or known.drop(columns=without, errors="ignore").empty:
        return None
    frame = known.drop(columns=without, errors="ignore").rename_axis(name).reset_index()
    if "genres" in frame:
        frame["genres"] = frame["genres"].fillna("").str.split("|")
    return frame


def show_recommendations(recommender, known):
    """Prints what three users had and what is recommended to them, by title if items have one."""
    events = recommender.interactions
    names = pd.Series(events.item_ids.values.astype(str), index=events.item_ids.values)
    if known is not None and "title" in known:
        names = known["title"].reindex(names.index).fillna(names)
    best = recommender.recommend(events.user_ids.values[:3], n=5)
    for user, lines in best.groupby("user_id", sort=False):
        had = events.items[events.users == events.user_ids.encode(user)]
        print(f"\nUser {user}")
        print("  had last:    " + " | ".join(names[events.item_ids.decode(had[::-1][:5])]))
        print("  recommended: " + " | ".join(names[lines["item_id"]]))


def write_report(recommender, path):
    """Writes the HTML report, if matplotlib is installed."""
    try:
        recommender.report(path)
        print(f"\nReport: {path}")
    except ImportError as error:
        print(f"\nNo report: {error}")


def parse_arguments(argv):
    parser = argparse.ArgumentParser(prog="run_youtubednn.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    add_data_arguments(parser)
    for name, default, what in [
        ("--users", 2000, "users to generate"),
        ("--epochs", 30, "at most"),
        ("--embedding-dim", 64, "the size of the items' vectors"),
        ("--seed", 1, "of all random numbers"),
    ]:
        parser.add_argument(name, metavar="N", type=int, default=default, help=f"{what} (default: %(default)s)")
    parser.add_argument("--report", metavar="PATH", default="report.html", help="(default: %(default)s)")
    parser.add_argument("--save", metavar="PATH", help="write the recommender to this folder")
    return parser.parse_args(argv)


def check_arguments(args):
    """Raises errors before a long run, instead of at its end."""
    check_at_least_one(args, "users", "epochs", "embedding_dim")
    if args.seed < 0:
        raise ValueError(f"--seed must be at least 0; got {args.seed}")
    if not args.report.endswith(".html"):
        raise ValueError(f"--report must end in .html; got {args.report!r}")
    for name, path in (("report", args.report), ("save", args.save)):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise ValueError(f"--{name} must be in a folder that exists; got {path!r}")
    if args.save is not None and Path(args.save).exists():
        raise ValueError(f"--save must be a folder that does not exist yet; got {args.save!r}")


if __name__ == "__main__":
    sys.exit(main())
