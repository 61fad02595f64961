"""Findings in histories: a row's own event or a later one, held-out events, items that the user never had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deepmatch_ext.data.interactions import Interactions
from deepmatch_ext.data.kinds import History
from deepmatch_ext.data.leaks.parts import Events, Part
from deepmatch_ext.data.leaks.report import Leak
from deepmatch_ext.data.windows import windows

_Marks = dict[tuple[str, str], np.ndarray]  # by finding, the item that shows it in each of B rows, or 0
_BLOCK_VALUES = 2**18  # history values looked at in one go: temporaries stay at some ten MB
_OWN, _FUTURE = ("target_in_history", "leak"), ("future_in_history", "leak")
_STRANGE, _TIED = ("strange_item_in_history", "possible"), ("same_moment", "note")
_OF_ANOTHER_KIND = ("same_moment_of_another_kind", "possible")
_FINDINGS = (_OWN, _FUTURE, _STRANGE, _OF_ANOTHER_KIND, _TIED)


def histories(events: Events, parts: Sequence[Part]) -> Iterator[Leak]:
    x = events.interactions
    for k, part in enumerate(parts):
        wrong: _Marks = {finding: np.zeros(len(part.targets), np.int64) for finding in _FINDINGS}
        held_out = [_HeldOut(events, held) for held in parts[k + 1 :]]
        covered = np.zeros(len(x), bool)
        given = [(history, None) for history in x.histories] if part.histories is None else part.histories
        for history, items in given:
            plain, width = part.known.copy(), len(x)
            if items is not None:
                rows, width = np.flatnonzero(part.known), items.shape[1]
                for block in np.split(rows, range(0, len(rows), max(1, _BLOCK_VALUES // width))):
                    plain[block] = _are_windows(x, part.targets[block], history, items[block])
                    _look_at_items(events, part, block[~plain[block]], history, items, held_out, wrong)
            starts, ends = _range(x, history, part.targets[plain], width)
            covered |= _rows_between(x, history, starts, ends)
            some = np.flatnonzero(plain)[ends > starts]
            last = ends[ends > starts] - 1
            last = last if history.rows is None else history.rows[last]
            tied = events.moments[last] == events.moments[part.targets[some]]
            wrong[_TIED][some[tied]] = x.items[last[tied]]
        for finding, items in wrong.items():
            if finding != _TIED or k > 0:  # train may have them
                yield from part.leaks(*finding, items > 0, None if finding == _OWN else items)
        for held in held_out:
            hits = held.part.known & (covered | held.needed())[held.part.targets]
            yield from held.part.leaks("held_out_in_history", "leak", hits, seen_in=part.name)


def items_before(x: Interactions, targets: np.ndarray) -> np.ndarray:
    """The items of all events that are in a history of some target rows, uncut."""
    every = [_rows_between(x, history, *_range(x, history, targets, len(x))) for history in x.histories]
    return x.items[np.any(every, axis=0)]


def _range(x: Interactions, history: History, targets: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where in its rows the history of each target begins and ends, if it is cut to a width."""
    ends = history.end(targets)
    starts = history.starts[x.sequences[targets]]
    return np.maximum(starts, ends - width), ends


def _rows_between(x: Interactions, history: History, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which of the n interactions are in one of the ranges ``starts[k]:ends[k]`` of a history's rows, (n,)."""
    number = len(x) if history.rows is None else len(history.rows)
    begins, stops = (np.bincount(places, minlength=number + 1) for places in (starts, ends))
    inside = (np.cumsum(begins - stops) > 0)[:number]
    if history.rows is None:
        return inside
    rows = np.zeros(len(x), bool)
    rows[history.rows] = inside
    return rows


def _are_windows(x: Interactions, targets: np.ndarray, history: History, given: np.ndarray) -> np.ndarray:
    """Which histories (B, T) are exactly the T events before their target, in any order, as most are: (B,)."""
    lengths = given.shape[1] if x.kinds is None else {x.kinds.ids.values[history.kind - 1]: given.shape[1]}
    expected = windows(x, targets, lengths)[f"hist_{x.item_name}{history.suffix}"]
    same = (expected == given).all(axis=1)
    same[~same] = (np.sort(expected[~same]) == np.sort(given[~same])).all(axis=1)
    return same


def _look_at_items(
    events: Events,
    part: Part,
    rows: np.ndarray,
    history: History,
    items: np.ndarray,
    held_out: Sequence[_HeldOut],
    wrong: _Marks,
) -> None:
    """Compares the items in some rows' histories with the user's events, and marks rows in ``wrong``."""
    given, vocabulary_size = items[rows], events.interactions.item_vocabulary_size
    keys = np.arange(len(rows))[:, np.newaxis] * vocabulary_size + given.astype(np.int64)
    keys, times_in = np.unique(keys[given > 0], return_counts=True)
    place, item = np.divmod(keys, vocabulary_size)
    row = rows[place]
    pair, moment = events.find(part.users[row], item, history.kind), events.moments[part.targets[row]]
    until = events.at(pair, moment + 1)
    same_kind = events.kinds[part.targets[row]] == history.kind
    own, strange = (item == part.items[row]) & same_kind, pair == len(events.rows)
    late = times_in > until - pair - own
    tied = ~late & (times_in > events.at(pair, moment) - pair)
    found = {_OWN: late & own, _FUTURE: late & ~own & ~strange, _STRANGE: strange}
    found |= {_TIED: tied & same_kind, _OF_ANOTHER_KIND: tied & ~same_kind}
    for finding, where in found.items():
        wrong[finding][row[where]] = item[where]
    for held in held_out:
        held.look(pair, until, times_in)


class _HeldOut:
    """A part, and how many of its targets must be in a history of an earlier part."""

    def __init__(self, events: Events, part: Part) -> None:
        self.part, self._events = part, events
        is_target = np.isin(events.rows, part.targets[part.known])
        self._before = np.append(0, np.cumsum(is_target))  # targets among the first k events
        self._most = np.zeros(len(events.rows) + 1, np.int64)  # of each pair, that must be in one history

    def look(self, pair: np.ndarray, until: np.ndarray, times_in: np.ndarray) -> None:
        """Records that histories contain the items of some pairs.

        Args:
            pair: The pair of the row's user and the item.
            until: The first event of the pair that is later than the row's target.
            times_in: How often the item is in the history.
        """
        # What other than a held-out target can the item be? If the pair has a held-out target that is not later than
        # this row's target, only an event that is not later either; otherwise any event.
        end = np.where(self._before[until] > self._before[pair], until, self._events.ends[pair])
        others = end - pair - (self._before[end] - self._before[pair])
        np.maximum.at(self._most, pair, times_in - others)

    def needed(self) -> np.ndarray:
        """Which of the n interactions must be in a history: of the targets of a pair, the earliest come first."""
        needed, pairs = np.empty(len(self._events.rows), bool), self._events.pairs
        needed[self._events.rows] = self._before[:-1] - self._before[pairs] < self._most[pairs]
        return needed
