"""Findings among targets: one event in two parts or in counts, what train doesn't know or knows too late, repeats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from deepmatch_ext._checks import problem
from deepmatch_ext._frames import Lists, array_of
from deepmatch_ext.data.leaks.finding import Leak, counted
from deepmatch_ext.data.leaks.parts import Case


def duplicates(case: Case) -> Iterator[Leak]:
    events = case.events
    for source, held in case.pairs():
        # Of events of one user, item and time, the first stands for all.
        ours, theirs = (
            events.before(events.pair_of[known], events.moments[known]) + events.starts[events.pair_of[known]]
            for known in (part.events[part.known] for part in (held, source))
        )
        both, one = np.isin(ours, theirs), held.choices[held.known] == 1
        text = f"targets of {held.name} {{are}} also a target of {source.name}, of the same user"
        options = "duplicate_target", "leak", source.name
        yield from held.leak(*options, held.known[both & one], f"{text}.", "Keep each event in one part.")
        if case.by_time:  # else it can be a repeat
            options = "duplicate_target", "possible", source.name
            remedy = "Drop repeated rows from the source; it is no leak if the user did have the item twice."
            yield from held.leak(*options, held.known[both & ~one], f"{text} at the same time.", remedy)


def repeated(case: Case) -> Iterator[Leak]:
    if case.interactions.sessions is not None:  # which repeat items by nature, and leave none out of a ranking
        return
    remedy = (
        "Figures that are made with `seen` count them as misses, since what a user had is not recommended; "
        "seen_targets='leave_out' leaves them out. Where items are recommended again, leave `seen` out."
    )
    for part in case.held_out:
        events = part.events[part.known]
        hits = part.known[events > case.events.starts[case.events.pair_of[events]]]  # the pair has earlier events
        text = f"targets of {part.name} {{are}} of an item that the user had before."
        yield from part.leak("repeated_targets", "note", part.name, hits, text, remedy)


def new_ids(case: Case) -> Iterator[Leak]:
    known_items = _items_of_train(case)
    for held in case.held_out:
        for name, ids, known in (("item", held.items, known_items), ("user", held.users, case.train.users)):
            new = np.setdiff1d(ids[ids > 0], known)
            if len(new):
                count, total = len(new), len(np.unique(ids[ids > 0]))
                text = f"{name}s among the targets of {held.name} {{are}} not in train but {{have}} an id."
                rows = f"{int(np.isin(ids, new).sum())} of {len(ids)} targets of {held.name}"
                remedy = (
                    f"Embeddings of such ids are never trained, those of {rows}. A map of all events gives such ids, "
                    "a live system has none: report these targets apart."
                )
                sentence, example = counted(count, total, text), f"{name.capitalize()} {new[0]}."
                yield Leak(f"new_{name}s", "note", held.name, "train", count, total, sentence, example, remedy)


def _items_of_train(case: Case) -> np.ndarray:
    """The items that are a target or in a history of train."""
    train, x = case.train, case.interactions
    if train.history is not None:
        return np.union1d(train.items, train.history)
    last = np.full(x.user_vocabulary_size, -1)
    np.maximum.at(last, train.users, train.rows)
    return x.items[np.arange(len(x)) <= last[x.users]]


def later_in_train(case: Case) -> Iterator[Leak]:
    times, train = case.events.times, case.train
    if times is None:
        return
    remedy = (
        "So training knows other users' futures. Leave-last-out does by nature; split_by_time() splits as a live "
        "system would."
    )
    moments = np.where(train.certain, case.events.moments[train.events], -1)
    for held in case.held_out:
        first = case.events.moments[held.events[held.certain]].min(initial=len(times))
        hits = np.flatnonzero(moments > first)
        if len(hits):
            # It is held-out rows that are known too early, and train's that are counted.
            text = f"targets of train {{are}} later than the first target of {held.name}, of {times[first]}."
            more = f", of {times[moments[hits[0]]]}"
            (leak,) = train.leak("later_in_train", "note", "train", hits, text, remedy, more)
            yield replace(leak, part=held.name)


def counts(case: Case, item_count: Any) -> Iterator[Leak]:
    """What is counted beyond all events that are not held out has to be held-out events."""
    x, given = case.interactions, array_of("`item_count`", item_count)
    every = x.item_counts()
    if isinstance(given, Lists) or given.shape != every.shape or given.dtype.kind not in "iuf":
        got = "lists" if isinstance(given, Lists) else f"{given.dtype} of shape {given.shape}"
        raise problem("`item_count`", f"be a count for each item id, ({len(every)},)", got)
    given = np.append(0, given[1:])  # padding is not counted
    wrong = np.flatnonzero(~((given >= 0) & (given <= every) & (given == np.floor(given))))
    if len(wrong):
        rule = "count events of the interactions, so be whole numbers and at most how often each item is in them"
        got = f"{given[wrong[0]]:g} for item {wrong[0]}, which is in {every[wrong[0]]}"
        remedy = "Give the counts as they were before smoothing, a power or a scale."
        raise problem("`item_count`", rule, got, remedy)
    held = {part.name: case.events.rows[np.unique(part.events[part.known])] for part in case.held_out}
    free = every - x.item_counts(np.unique(np.concatenate([*held.values()])))
    above = np.maximum(given - free, 0).astype(np.int64)
    parts = [name for name, rows in held.items() if above[x.items[rows]].any()]
    if parts:
        count, total, item = int(above.sum()), sum(len(held[name]) for name in parts), int(above.argmax())
        name = " and ".join(parts)
        sentence = counted(count, total, f"events of {name}, at least, {{are}} counted in `item_count`.")
        example = f"Item {item}: {given[item]:g} counted, of which {free[item]} can be of train."
        remedy = "Count train alone, as interactions.item_counts(split.train) does."
        yield Leak("held_out_in_counts", "leak", name, "train", count, total, sentence, example, remedy)
