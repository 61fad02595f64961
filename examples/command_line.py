"""What the examples' command lines share: which events to read, and errors in one line."""

from __future__ import annotations

import argparse
import sys

import pandas as pd

from deepmatch_ext import data


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """What `read` reads."""
    parser.add_argument("--data", metavar="PATH", help="a folder, file or pattern; without it, data are generated")
    parser.add_argument("--user", metavar="COLUMN", default="infer", help="the users' column, if its name is unusual")
    parser.add_argument("--item", metavar="COLUMN", default="infer", help="the items' column, if its name is unusual")
    times = parser.add_mutually_exclusive_group()
    times.add_argument("--time", metavar="COLUMN", default="infer", help="the times' column, if its name is unusual")
    times.add_argument("--in-order", action="store_true", help="no times: the rows are in chronological order")
    parser.add_argument("--sep", metavar="TEXT", help="the separator of columns in a text file (default: by its name)")
    parser.add_argument("--encoding", metavar="NAME", help="of a text file (default: utf-8)")


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
