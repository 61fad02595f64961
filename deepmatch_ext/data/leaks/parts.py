"""A split's parts: which event each row asks for, and what history it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepmatch_ext._arrays import check_ids
from deepmatch_ext._checks import as_text, instance_of, listing, problem
from deepmatch_ext._frames import Lists, array_of, columns_of, is_frame
from deepmatch_ext.data.interactions import Interactions, time_values
from deepmatch_ext.data.leaks.report import Leak, leak
from deepmatch_ext.data.splits import Split

_NAMES = ("train", "validation", "test")
_IDS = "The inputs have the ids of the interactions."


class Events:
    """The n events of interactions, sorted by user and item, then by moment.

    A moment is the rank of a time among all times; without times, it is the row. A pair of user and item has the number
    of its first event; a pair without events has the number n.

    Attributes:
        interactions: The events by row.
        times: The time of each moment, sorted; None without times.
        moments: The moment of each row, (n,).
        rows: The row that each event is, (n,).
        pairs: The pair of each event, (n,).
        ends: The events of pair p are ``p:ends[p]``, (n + 1,).
    """

    def __init__(self, x: Interactions) -> None:
        self.interactions, self.times, self.moments = x, None, np.arange(len(x))
        if x.times is not None:
            self.times, self.moments = np.unique(x.times, return_inverse=True)
        keys = self._key(x.users, x.items)
        self.rows = np.lexsort((self.moments, keys))
        self._keys = keys[self.rows]
        self.pairs = np.searchsorted(self._keys, self._keys)
        self.ends = np.append(np.searchsorted(self._keys, self._keys, side="right"), len(x))
        self._span = len(x) + 2  # neither -1 nor n is the moment of an event
        self._moments = self.pairs * self._span + self.moments[self.rows]

    def _key(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return users.astype(np.int64) * self.interactions.item_vocabulary_size + items

    def find(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The pair of each user and item."""
        return place_of(self._keys, self._key(users, items))

    def at(self, pairs: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """The first event of each pair that is not earlier than the moment, the pair's end if there is none."""
        return np.searchsorted(self._moments, pairs * self._span + moments)

    def match(self, users: np.ndarray, items: np.ndarray, moments: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The row of the last event that each of B targets can be, and how many it can be: (B,), (B,).

        Without moments it can be any event of the user with the item. Where it can be none, the row is any.
        """
        pairs = self.find(users, items)
        first = pairs if moments is None else self.at(pairs, moments)
        end = self.ends[pairs] if moments is None else self.at(pairs, moments + 1)
        return self.rows[end - 1], end - first


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of a part, B of them.

    Args:
        name: "train", "validation" or "test".
        rows: What an example calls each row, (B,): its number in the interactions, or in the input.
        users: (B,).
        items: The target items, (B,).
        history: (B, T), 0 is padding. None: all that the user did before, by the interactions.
        targets: The row of the interactions that each target is, or the last that it can be, (B,).
        choices: How many events it can be, (B,); 0 where an id is 0.
        certain: Whether it is certain when the target was, (B,).
    """

    name: str
    rows: np.ndarray
    users: np.ndarray
    items: np.ndarray
    history: Any
    targets: np.ndarray
    choices: np.ndarray
    certain: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Which rows have an event, (B,)."""
        return self.choices > 0

    def leaks(
        self, kind: str, severity: str, hits: np.ndarray, other: np.ndarray | None = None, **words: Any
    ) -> Iterator[Leak]:
        """The leak of some of the rows, ``hits`` (B,), unless there are none; ``other`` (B,) goes with the example."""
        if hits.any():
            columns = {"row": self.rows, "user": self.users, "item": self.items, "other": other}
            example = {name: column[hits.argmax()] for name, column in columns.items() if column is not None}
            words = {"part": self.name, "seen_in": self.name, **words, **example}
            yield leak(kind, severity, int(hits.sum()), len(hits), **words)

    def unchecked(self, remedy: str) -> Iterator[str]:
        """Sentences on the rows that findings leave out."""
        unknown, unsure = (int(rows.sum()) for rows in (~self.known, self.known & ~self.certain))
        if unknown:
            yield f"{unknown} of {len(self.rows)} rows of {self.name}, whose user or item has id 0."
        if unsure:
            yield f"when {unsure} of {len(self.rows)} targets of {self.name} were, had more than once{remedy}."


def parts_of_split(split: Split) -> tuple[Events, list[Part]]:
    x, parts = split.interactions, []
    events = Events(x)
    for name in _NAMES:
        rows = getattr(split, name)
        _, choices = events.match(x.users[rows], x.items[rows], events.moments[rows])
        parts.append(Part(name, rows, x.users[rows], x.items[rows], None, rows, choices, choices > 0))
    return events, parts


def parts_of_inputs(inputs: Any, x: Any, time: Any) -> tuple[Events, list[Part]]:
    names = list(inputs) if isinstance(inputs, Mapping) else []
    if "train" not in names or len(names) < 2 or not set(names) <= set(_NAMES):
        got = listing(names) if names else type(inputs).__name__
        raise problem("`parts`", "be a Split, or inputs by the names 'train' and 'validation' or 'test' or both", got)
    made = "Give the events that the inputs were made of; Interactions.from_frame() reads them."
    x = instance_of("`interactions`", x, Interactions, made)
    time = None if time is None else as_text("`time`", time)
    if x.times is None and time is not None:
        raise problem("`interactions`", "have times where `time` is given", "times=None")
    events = Events(x)
    return events, [_read(name, inputs[name], events, time) for name in _NAMES if name in names]


def _read(part: str, given: Any, events: Events, time: str | None) -> Part:
    """The part of an input, by the columns that have the names of the interactions, and ``time``."""
    if not (isinstance(given, Mapping) or is_frame(given)):
        raise problem(f"`parts`[{part!r}]", "be a dictionary of arrays, or a frame", type(given).__name__)
    x = events.interactions
    names = [x.user_name, x.item_name, f"hist_{x.item_name}", *([] if time is None else [time])]
    columns = columns_of(f"`parts`[{part!r}]", given, [*names, "hist_len"])
    for name in names:
        if name not in columns:
            remedy = "`user` and `item` of Interactions.from_frame() name the columns of users and items."
            got = f"the columns {listing(list(columns), 20)}"
            raise problem(f"column {name!r} of {part}", "be in the input", got, "" if name == time else remedy)
    user, item, hist, *_ = named = {name: (f"column {name!r} of {part}", columns[name]) for name in names}
    users = check_ids(named[user][0], _flat(*named[user]), 0, x.num_users, remedy=_IDS)
    number = len(users)
    items = check_ids(named[item][0], _flat(*named[item], number), 0, x.num_items, remedy=_IDS)
    history = _histories(*named[hist], number, x.num_items)
    if "hist_len" in columns:
        _check_lengths(named[hist][0], history, f"column 'hist_len' of {part}", columns["hist_len"])
    moments = None if time is None else _moments(*named[time], number, events.times)
    targets, choices = events.match(users, items, moments)
    missing = (choices == 0) & (users > 0) & (items > 0)
    if missing.any():
        row = int(missing.argmax())
        got = f"{missing.sum()} of {number} that are not, the first in row {row}: user {users[row]}, item {items[row]}"
        remedy = "Give rows of true events alone, with the ids and times of the interactions."
        raise problem(f"the targets of {part}", "be events of the interactions", got, remedy)
    certain = choices == 1 if time is None else choices > 0
    return Part(part, np.arange(number), users, items, history, targets, choices, certain)


def _flat(what: str, values: Any, number: int | None = None) -> np.ndarray:
    """A value a row, from (B,), (B, 1) or lists of one value."""
    array: Any = array_of(what, values)
    if isinstance(array, Lists) and (array.lengths == 1).all():
        array = array.padded(1)
    is_list = isinstance(array, Lists)
    if is_list or array.shape not in ((array.size,), (array.size, 1)) or number not in (None, array.size):
        got = f"lists of {array.lengths.min()} to {array.lengths.max()} values" if is_list else f"shape {array.shape}"
        raise problem(what, f"be ({'B' if number is None else number},), a value in each row", got)
    return array.reshape(-1)


def _histories(what: str, values: Any, number: int, largest: int) -> np.ndarray:
    history = array_of(what, values)
    if isinstance(history, Lists):
        if history.missing.any():
            raise problem(what, "have a list in every row", f"none in row {int(history.missing.argmax())}")
        history = history.padded(max(1, int(history.lengths.max(initial=0))))
    if history.ndim != 2 or len(history) != number or not history.shape[1]:
        raise problem(what, f"be ({number}, T), a history in each row", f"shape {history.shape}")
    if number and history.dtype.kind not in "iu":
        raise problem(what, "hold integers", f"dtype {history.dtype}", _IDS)
    if number and not 0 <= history.min() <= history.max() <= largest:
        row, column = np.argwhere((history < 0) | (history > largest))[0]
        raise problem(what, f"be between 0 and {largest}", f"{history[row, column]} in row {row}", _IDS)
    return history


def _check_lengths(what: str, history: np.ndarray, what_lengths: str, values: Any) -> None:
    lengths = _flat(what_lengths, values, len(history))
    if len(history) and lengths.dtype.kind not in "iuf":
        raise problem(what_lengths, "hold numbers", f"dtype {lengths.dtype}")
    beyond = ~(np.count_nonzero(history, axis=1) <= lengths)  # NaN, too
    if beyond.any():
        row = int(beyond.argmax())
        got = f"{listing(history[row])} with length {lengths[row]} in row {row}"
        raise problem(what, "have at most as many ids in a row as 'hist_len' says", got, "0 is padding.")


def _moments(what: str, values: Any, number: int, times: Any) -> np.ndarray:
    """The rank of each time among those of the interactions, one past the last if it is none of them."""
    given = time_values(what, _flat(what, values, number)) if number else times[:0]
    if (given.dtype.kind == "M") != (times.dtype.kind == "M"):
        raise problem("the times", "be all numbers or all datetimes", f"{given.dtype} and {times.dtype}")
    return place_of(times, given)


def place_of(values: np.ndarray, sought: np.ndarray) -> np.ndarray:
    """The first place of each sought value in a sorted array, the array's length where it is not in there."""
    places = np.searchsorted(values, sought)
    return np.where(values.take(places, mode="clip") == sought, places, len(values))
