"""Findings among targets: one event in two parts or in counts, what train doesn't know or knows too late, repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from deepmatch_ext._checks import problem
from deepmatch_ext._frames import Lists, array_of
from deepmatch_ext.data.leaks.events import Events, Part
from deepmatch_ext.data.leaks.report import Leak, leak


def duplicates(events: Events, parts: Sequence[Part]) -> Iterator[Leak]:
    for source, held in combinations(parts, 2):
        # Of events of one user, item and time, the first stands for all.
        ours, theirs = (
            events.at(events.find(part.users, part.items), events.moments[part.targets]) for part in (held, source)
        )
        both = held.certain & np.isin(ours, theirs[source.known])
        for severity, hits in (("leak", both & (held.choices == 1)), ("possible", both & (held.choices > 1))):
            yield from held.leaks("duplicate_target", severity, hits, seen_in=source.name)


def repeated(events: Events, parts: Sequence[Part]) -> Iterator[Leak]:
    first = events.rows[events.pairs]  # of each user with an item
    for held in parts[1:]:
        yield from held.leaks("repeated_targets", "note", held.known & ~np.isin(held.targets, first))


def new_ids(events: Events, parts: Sequence[Part]) -> Iterator[Leak]:
    known = {"items": _items_of_train(events, parts[0]), "users": parts[0].users}
    for held in parts[1:]:
        for name, ids in (("items", held.items), ("users", held.users)):
            every = np.unique(ids[ids > 0])
            new = np.setdiff1d(every, known[name])
            if len(new):
                words = {"new": new[0], "rows": f"{np.isin(ids, new).sum()} of {len(ids)}"}
                yield leak(f"new_{name}", "note", held.name, "train", len(new), len(every), **words)


def _items_of_train(events: Events, train: Part) -> np.ndarray:
    """The items that are a target or in a history of train."""
    if train.history is not None:
        return np.union1d(train.items, train.history)
    x = events.interactions
    last = np.full(x.user_vocabulary_size, -1)
    np.maximum.at(last, train.users, train.targets)
    return x.items[np.arange(len(x)) <= last[x.users]]


def later_in_train(events: Events, parts: Sequence[Part]) -> Iterator[Leak]:
    train, times = parts[0], events.times
    if times is None:
        return
    moments = np.where(train.certain, events.moments[train.targets], -1)
    for held in parts[1:]:
        first = events.moments[held.targets[held.certain]].min(initial=len(times) - 1)
        # It is held-out rows that are known too early, and train's that are counted.
        words = {"part": held.name, "first": times[first], "other": times[moments]}
        yield from train.leaks("later_in_train", "note", moments > first, **words)


def counts(events: Events, parts: Sequence[Part], item_count: Any) -> Iterator[Leak]:
    """What is counted beyond all events that are not held out has to be held-out events."""
    x, given = events.interactions, array_of("`item_count`", item_count)
    every = x.item_counts()
    if isinstance(given, Lists) or given.shape != every.shape or given.dtype.kind not in "iuf":
        got = "lists" if isinstance(given, Lists) else f"{given.dtype} of shape {given.shape}"
        raise problem("`item_count`", f"be a count for each item id, ({len(every)},)", got)
    given = np.append(0, given[1:])  # padding is not counted
    wrong = ~((given >= 0) & (given <= every) & (given == np.floor(given)))
    if wrong.any():
        item = int(wrong.argmax())
        rule = "count events of the interactions, so be whole numbers and at most how often each item is in them"
        got = f"{given[item]:g} for item {item}, which is in {every[item]}"
        raise problem("`item_count`", rule, got, "Give the counts as they were before smoothing, a power or a scale.")
    held = {part.name: np.unique(part.targets[part.known]) for part in parts[1:]}
    free = every - x.item_counts(np.unique(np.concatenate([*held.values()])))
    above = np.maximum(given - free, 0).astype(np.int64)
    names = [name for name, rows in held.items() if above[x.items[rows]].any()]
    if names:
        item, total = int(above.argmax()), sum(len(held[name]) for name in names)
        words = {"item": item, "counted": given[item], "free": free[item]}
        yield leak("held_out_in_counts", "leak", " and ".join(names), "train", int(above.sum()), total, **words)
