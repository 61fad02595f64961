"""Findings in histories: a row's own event or a later one, held-out events, items that the user never had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deepmatch_ext.data.interactions import Interactions
from deepmatch_ext.data.leaks.parts import Events, Part
from deepmatch_ext.data.leaks.report import Leak
from deepmatch_ext.data.windows import windows

_Marks = dict[tuple[str, str], np.ndarray]  # by finding, the item that shows it in each of B rows, or 0
_BLOCK_VALUES = 2**18  # history values looked at in one go: temporaries stay at some ten MB
_OWN, _FUTURE = ("target_in_history", "leak"), ("future_in_history", "leak")
_STRANGE, _TIED = ("strange_item_in_history", "possible"), ("same_moment", "note")


def histories(events: Events, parts: Sequence[Part]) -> Iterator[Leak]:
    x = events.interactions
    for k, part in enumerate(parts):
        wrong: _Marks = {finding: np.zeros(len(part.targets), np.int64) for finding in (_OWN, _FUTURE, _STRANGE, _TIED)}
        held_out = [_HeldOut(events, held) for held in parts[k + 1 :]]
        plain, width = part.known.copy(), len(x)
        if part.history is not None:
            rows, width = np.flatnonzero(part.known), part.history.shape[1]
            for block in np.split(rows, range(0, len(rows), max(1, _BLOCK_VALUES // width))):
                plain[block] = _are_windows(x, part.targets[block], part.history[block])
                _look_at_items(events, part, block[~plain[block]], held_out, wrong)
        targets = part.targets[plain]
        lengths = np.minimum(x.position[targets], width)
        tied = (lengths > 0) & (events.moments[targets - 1] == events.moments[targets])
        wrong[_TIED][plain] = np.where(tied, x.items[targets - 1], 0)
        for finding, items in wrong.items():
            if finding != _TIED or k > 0:  # train may have them
                yield from part.leaks(*finding, items > 0, None if finding == _OWN else items)
        covered = between(x, targets - lengths, targets)
        for held in held_out:
            hits = held.part.known & (covered | held.needed())[held.part.targets]
            yield from held.part.leaks("held_out_in_history", "leak", hits, seen_in=part.name)


def between(x: Interactions, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which of the n interactions are in one of the ranges ``starts[k]:ends[k]``, (n,)."""
    begins, stops = (np.bincount(rows, minlength=len(x)) for rows in (starts, ends))
    return np.cumsum(begins - stops) > 0


def _are_windows(x: Interactions, targets: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Which histories (B, T) are just the T events before their target, in any order, as most are: (B,)."""
    expected = windows(x, targets, given.shape[1])[f"hist_{x.item_name}"]
    same = (expected == given).all(axis=1)
    same[~same] = (np.sort(expected[~same]) == np.sort(given[~same])).all(axis=1)
    return same


def _look_at_items(events: Events, part: Part, rows: np.ndarray, held_out: Sequence[_HeldOut], wrong: _Marks) -> None:
    """Holds each item of some rows' histories against the user's events with it, and marks rows in ``wrong``."""
    history, vocabulary_size = part.history[rows], events.interactions.item_vocabulary_size
    keys = np.arange(len(rows))[:, np.newaxis] * vocabulary_size + history.astype(np.int64)
    keys, times_in = np.unique(keys[history > 0], return_counts=True)
    place, item = np.divmod(keys, vocabulary_size)
    row = rows[place]
    pair, moment = events.find(part.users[row], item), events.moments[part.targets[row]]
    until = events.at(pair, moment + 1)
    own, strange = item == part.items[row], pair == len(events.rows)
    late = times_in > until - pair - own
    tied = ~late & (times_in > events.at(pair, moment) - pair)
    for finding, where in {_OWN: late & own, _FUTURE: late & ~own & ~strange, _STRANGE: strange, _TIED: tied}.items():
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
        """Takes in that histories have items of some pairs.

        Args:
            pair: The pair of the row's user and the item.
            until: The first event of the pair that is later than the row's target.
            times_in: How often the item is in the history.
        """
        # What else than a held-out target can the item be? If one of those is not later than this row's target, only an
        # event that is not later either; otherwise any.
        end = np.where(self._before[until] > self._before[pair], until, self._events.ends[pair])
        others = end - pair - (self._before[end] - self._before[pair])
        np.maximum.at(self._most, pair, times_in - others)

    def needed(self) -> np.ndarray:
        """Which of the n interactions must be in a history: of the targets of a pair, the earliest come first."""
        needed, pairs = np.empty(len(self._events.rows), bool), self._events.pairs
        needed[self._events.rows] = self._before[:-1] - self._before[pairs] < self._most[pairs]
        return needed
