"""Findings in histories: a row's own event or a later one, held-out events, items that the user never had."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from deepmatch_ext.data.leaks.events import Events
from deepmatch_ext.data.leaks.finding import Leak
from deepmatch_ext.data.leaks.parts import Case, Part
from deepmatch_ext.data.windows import windows

_BLOCK_VALUES = 2**18  # history values looked at in one go: temporaries stay at some ten MB
_CUT = "Cut each history strictly before its target"

# kind -> severity, what a row has in its history, what to do
_OF_A_ROW = {
    "target_in_history": ("leak", "{their} own target in {their} history", f"{_CUT}."),
    "future_in_history": (
        "leak",
        "an item in {their} history that the user had only after the target",
        f"{_CUT}, in the order of time.",
    ),
    "strange_item_in_history": (
        "possible",
        "an item in {their} history that the user never had, by the interactions",
        "Give the interactions that the histories were cut from; or the histories are another user's.",
    ),
    "same_moment": (
        "note",
        "an item in {their} history from the very time of the target",
        "Only the order of the source says which came first.",
    ),
}


def histories(case: Case) -> Iterator[Leak]:
    for part in case.parts.values():
        held_out = [held for source, held in case.pairs() if source is part]
        wrong = {kind: np.zeros(len(part.rows), np.int64) for kind in _OF_A_ROW}  # an item, or 0
        plain, inside = _look_at_rows(case, part, wrong["same_moment"])
        found = [(held.events >= 0) & inside[case.events.rows[held.events]] for held in held_out]
        if part.history is not None:
            rest = np.setdiff1d(part.known, plain, assume_unique=True)
            others = _look_at_items(case.events, part, part.history, rest, held_out, wrong)
            found = [hits | more for hits, more in zip(found, others, strict=True)]
        for kind, (severity, text, remedy) in _OF_A_ROW.items():
            hits = np.flatnonzero(wrong[kind])
            if len(hits) and not (kind == "same_moment" and part is case.train):
                more = "" if kind == "target_in_history" else f", with item {wrong[kind][hits[0]]} in its history"
                text = f"rows of {part.name} {{have}} {text}."
                yield from part.leak(kind, severity, part.name, hits, text, remedy, more)
        for held, hits in zip(held_out, found, strict=True):
            text = f"targets of {held.name} {{are}} in a history of {part.name}."
            remedy = f"Make {part.name} of events that are earlier than the user's targets of {held.name}."
            yield from held.leak("held_out_in_history", "leak", part.name, np.flatnonzero(hits), text, remedy)


def _look_at_rows(case: Case, part: Part, tied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Looks at the histories that are just the events before their target, as all of a split and most others are.

    Returns:
        Which rows have such a history, and which of the n interactions are in one. Marks in ``tied`` (B,) the rows
        whose last event is of the time of the target.
    """
    x = case.interactions
    rows = np.flatnonzero(part.certain)
    targets = case.events.rows[part.events[rows]]
    lengths = x.position[targets]
    if part.history is not None:
        width, plain = part.history.shape[1], np.zeros(len(rows), bool)
        for block in _blocks(np.arange(len(rows)), width):
            expected, given = windows(x, targets[block], width)[f"hist_{x.item_name}"], part.history[rows[block]]
            plain[block] = (expected == given).all(axis=1)
            if not plain[block].all():  # in another order, or of other events
                plain[block] = (np.sort(expected, axis=1) == np.sort(given, axis=1)).all(axis=1)
        rows, targets, lengths = rows[plain], targets[plain], np.minimum(lengths[plain], width)
    begins, ends = (np.bincount(places, minlength=len(x) + 1) for places in (targets - lengths, targets))
    some = np.flatnonzero(lengths)
    if x.times is not None:
        before = targets[some] - 1
        tied[rows[some]] = np.where(x.times[before] == x.times[before + 1], x.items[before], 0)
    return rows, np.cumsum(begins - ends)[:-1] > 0


def _look_at_items(
    events: Events,
    part: Part,
    history: np.ndarray,
    rows: np.ndarray,
    held_out: list[Part],
    wrong: dict[str, np.ndarray],
) -> list[np.ndarray]:
    """Holds each item of the other rows' histories against the user's events with it.

    Returns:
        For each held-out part, which of its targets must be in a history, (its B,). Marks rows in ``wrong``.
    """
    is_target, most = np.zeros((len(held_out), len(events.rows)), bool), np.zeros((len(held_out), len(events.number)))
    for k, held in enumerate(held_out):
        is_target[k, held.events[held.known]] = True
    up_to = np.pad(np.cumsum(is_target, axis=1), ((0, 0), (1, 0)))  # targets among the first k events
    rows = rows[np.argsort(part.users[rows], kind="stable")]  # what is looked up for a user lies close together
    for block in _blocks(rows, history.shape[1]):
        row, item, times_in = _distinct(block, history)
        pair = events.find(part.users[row], item)
        wrong["strange_item_in_history"][row[pair < 0]] = item[pair < 0]
        row, item, times_in, pair = (values[pair >= 0] for values in (row, item, times_in, pair))
        event = part.events[row]
        before = events.before(pair, events.moments[event])
        until = events.until(pair, events.moments[event])
        own = item == part.items[row]
        late = times_in > until - own
        for kind, where in {
            "target_in_history": late & own,
            "future_in_history": late & ~own,
            "same_moment": ~late & (times_in > before),
        }.items():
            wrong[kind][row[where]] = item[where]
        # What else than a held-out target can the item be? If one of those is not later than this row's target, only an
        # event that is not later either; otherwise any.
        start = events.starts[pair]
        for k in range(len(held_out)):
            all_held = up_to[k, start + events.number[pair]] - up_to[k, start]
            held_until = up_to[k, start + until] - up_to[k, start]
            others = np.where(held_until > 0, until - held_until, events.number[pair] - all_held)
            others -= own & ~is_target[k, event]
            np.maximum.at(most[k], pair, np.where(all_held > 0, times_in - others, 0))
    # Of the targets of a pair, as many as must be in a history, the earliest first.
    earlier = up_to[:, :-1] - up_to[:, events.starts[events.pair_of]]
    found = is_target & (earlier < most[:, events.pair_of])
    return [found[k, held.events] & (held.events >= 0) for k, held in enumerate(held_out)]


def _distinct(rows: np.ndarray, history: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct items in the histories of some rows: the row, the item, and how often it is there."""
    block = history[rows].astype(np.int64)
    width = int(block.max(initial=0)) + 1
    keys, times_in = np.unique(np.arange(len(rows))[:, np.newaxis] * width + block, return_counts=True)
    place, item = np.divmod(keys, width)
    return rows[place[item > 0]], item[item > 0], times_in[item > 0]


def _blocks(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    size = max(1, _BLOCK_VALUES // width)
    for first in range(0, len(rows), size):
        yield rows[first : first + size]
