"""A split's parts: which event each row asks for, and what history it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import check_ids
from deepmatch_ext._checks import as_text, instance_of, listing, problem
from deepmatch_ext._frames import Lists, array_of, columns_of, is_frame
from deepmatch_ext.data.interactions import Interactions, time_values
from deepmatch_ext.data.leaks.events import Events
from deepmatch_ext.data.leaks.finding import Leak, counted
from deepmatch_ext.data.splits import Split

_PARTS = ("train", "validation", "test")
_MUST_NOT_KNOW = (("train", "validation"), ("train", "test"), ("validation", "test"))
_IDS = "The inputs have the ids of the interactions."


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of a part, B of them.

    Args:
        name: "train", "validation" or "test".
        rows: What an example calls each row, (B,): its number in the interactions, or in the input.
        users: (B,).
        items: The target items, (B,).
        history: (B, T), 0 is padding. None: all that the user did before, by the interactions.
        events: The event that each target is, or the last that it can be, (B,); -1 where an id is 0.
        choices: How many events it can be, (B,).
        certain: Whether it is certain when the target was, (B,).
    """

    name: str
    rows: np.ndarray
    users: np.ndarray
    items: np.ndarray
    history: np.ndarray | None
    events: np.ndarray
    choices: np.ndarray
    certain: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """The rows that have an event."""
        return np.flatnonzero(self.events >= 0)

    def leak(
        self, kind: str, severity: str, seen_in: str, rows: np.ndarray, text: str, remedy: str, more: str = ""
    ) -> Iterator[Leak]:
        """The leak of some of the rows, unless there are none: "3 of 9 " and ``text``, with the first as an example."""
        if len(rows):
            sentence = counted(len(rows), len(self.rows), text)
            row = rows[0]
            example = f"Row {self.rows[row]}: user {self.users[row]}, item {self.items[row]}{more}."
            yield Leak(kind, severity, self.name, seen_in, len(rows), len(self.rows), sentence, example, remedy)


@dataclass(frozen=True, eq=False)
class Case:
    """A split and what is known of it.

    Args:
        interactions: All events.
        events: The same, looked up by user and item.
        parts: By name.
        by_time: Whether targets are known by their row or time, and not by user and item alone.
        unchecked: Sentences for the report.
    """

    interactions: Interactions
    events: Events
    parts: dict[str, Part]
    by_time: bool
    unchecked: tuple[str, ...]

    @property
    def train(self) -> Part:
        return self.parts["train"]

    @property
    def held_out(self) -> list[Part]:
        """Validation and test."""
        return [part for part in self.parts.values() if part is not self.train]

    def pairs(self) -> Iterator[tuple[Part, Part]]:
        """Each part with one whose targets it must not know."""
        for source, held in _MUST_NOT_KNOW:
            if source in self.parts and held in self.parts:
                yield self.parts[source], self.parts[held]


def case_of_split(split: Split) -> Case:
    x, parts = split.interactions, {}
    events = Events(x)
    for name in _PARTS:
        rows = getattr(split, name)
        at, users, items = events.place[rows], x.users[rows], x.items[rows]
        _, choices = events.match(users, items, events.moments[at])
        parts[name] = Part(name, rows, users, items, None, at, choices, np.ones(len(rows), bool))
    return Case(x, events, parts, True, _without_times(x))


def case_of_inputs(parts: Any, x: Any, time: Any) -> Case:
    names = list(parts) if isinstance(parts, Mapping) else []
    if "train" not in names or len(names) < 2 or not set(names) <= set(_PARTS):
        got = listing(names) if names else type(parts).__name__
        raise problem("`parts`", "be a Split, or inputs by the names 'train' and 'validation' or 'test' or both", got)
    made = "Give the events that the inputs were made of; Interactions.from_frame() reads them."
    x = instance_of("`interactions`", x, Interactions, made)
    time = None if time is None else as_text("`time`", time)
    if x.times is None and time is not None:
        raise problem("`interactions`", "have times where `time` is given", "times=None")
    events, read, unchecked = Events(x), {}, []
    for name in [name for name in _PARTS if name in names]:
        part = read[name] = _read(name, parts[name], x, events, time)
        number, known = len(part.rows), len(part.known)
        unsure = known - int(part.certain.sum())
        if known < number:
            unchecked.append(f"{number - known} of {number} rows of {name}, whose user or item has id 0.")
        if unsure:
            remedy = "" if x.times is None else "; give `time`"
            unchecked.append(f"when {unsure} of {number} targets of {name} were, had more than once{remedy}.")
    return Case(x, events, read, time is not None, (*unchecked, *_without_times(x)))


def _without_times(x: Interactions) -> tuple[str, ...]:
    return () if x.times is not None else ("what was later across users, as the interactions have no times.",)


def _read(part: str, given: Any, x: Interactions, events: Events, time: str | None) -> Part:
    """The part of an input, by the columns that have the names of the interactions, and ``time``."""
    if not (isinstance(given, Mapping) or is_frame(given)):
        raise problem(f"`parts`[{part!r}]", "be a dictionary of arrays, or a frame", type(given).__name__)
    names = [x.user_name, x.item_name, f"hist_{x.item_name}", *([] if time is None else [time])]
    columns = columns_of(f"`parts`[{part!r}]", given, [*names, "hist_len"])
    for name in names:
        if name not in columns:
            remedy = "`user` and `item` of Interactions.from_frame() name the columns of users and items."
            got = f"the columns {listing(list(columns), 20)}"
            raise problem(f"column {name!r} of {part}", "be in the input", got, "" if name == time else remedy)
    what = {name: f"column {name!r} of {part}" for name in [*names, "hist_len"]}
    user, item, hist = names[:3]
    users = check_ids(what[user], _flat(what[user], columns[user]), 0, x.num_users, remedy=_IDS)
    number = len(users)
    items = check_ids(what[item], _flat(what[item], columns[item], number), 0, x.num_items, remedy=_IDS)
    history = _histories(what[hist], columns[hist], number, x.num_items)
    if "hist_len" in columns:
        lengths = _flat(what["hist_len"], columns["hist_len"], number)
        if number and lengths.dtype.kind not in "iuf":
            raise problem(what["hist_len"], "hold numbers", f"dtype {lengths.dtype}")
        beyond = np.flatnonzero(~(np.count_nonzero(history, axis=1) <= lengths))
        if len(beyond):
            got = f"{listing(history[beyond[0]])} with length {lengths[beyond[0]]} in row {beyond[0]}"
            raise problem(what[hist], "have at most as many ids in a row as 'hist_len' says", got, "0 is padding.")
    moments = None if time is None else _moments(what[time], columns[time], number, events.times)
    at, choices = events.match(users, items, moments)
    missing = np.flatnonzero((choices == 0) & (users > 0) & (items > 0))
    if len(missing):
        row = missing[0]
        got = f"{len(missing)} of {number} that are not, the first in row {row}: user {users[row]}, item {items[row]}"
        remedy = "Give rows of true events alone, with the ids and times of the interactions."
        raise problem(f"the targets of {part}", "be events of the interactions", got, remedy)
    certain = choices == 1 if time is None else choices > 0
    return Part(part, np.arange(number), users, items, history, at, choices, certain)


def _flat(what: str, values: Any, number: int | None = None) -> np.ndarray:
    """A value a row, from (B,), (B, 1) or lists of one value."""
    array = array_of(what, values)
    if isinstance(array, Lists) and (array.lengths == 1).all():
        array = array.padded(1)
    shape = f"({'B' if number is None else number},), a value in each row"
    if isinstance(array, Lists):
        raise problem(what, f"be {shape}", f"lists of {array.lengths.min()} to {array.lengths.max()} values")
    if array.shape not in ((array.size,), (array.size, 1)) or number not in (None, array.size):
        raise problem(what, f"be {shape}", f"shape {array.shape}")
    return array.reshape(-1)


def _histories(what: str, values: Any, number: int, largest: int) -> np.ndarray:
    history = array_of(what, values)
    if isinstance(history, Lists):
        if history.missing.any():
            raise problem(what, "have a list in every row", f"none in row {int(history.missing.argmax())}")
        history = history.padded(max(1, int(history.lengths.max(initial=0))))
    if history.ndim != 2 or len(history) != number or not history.shape[1]:
        raise problem(what, f"be ({number}, T), a history in each row", f"shape {history.shape}")
    if history.size and history.dtype.kind not in "iu":
        raise problem(what, "hold integers", f"dtype {history.dtype}", _IDS)
    if history.size and not 0 <= history.min() <= history.max() <= largest:
        row, column = np.argwhere((history < 0) | (history > largest))[0]
        raise problem(what, f"be between 0 and {largest}", f"{history[row, column]} in row {row}", _IDS)
    return history


def _moments(what: str, values: Any, number: int, times: np.ndarray | None) -> np.ndarray:
    """The rank of each time among those of the interactions, -1 if it is none of them."""
    assert times is not None
    # What pandas reads best as it is: its own columns, which know time zones, and lists of datetimes.
    is_list = isinstance(values, list) and len(values) > 0 and np.ndim(values[0]) == 0
    given = values if is_list or isinstance(values, pd.Series | pd.Index) else _flat(what, values, number)
    given = _flat(what, time_values(what, given), number)
    if number and (given.dtype.kind == "M") != (times.dtype.kind == "M"):
        raise problem("the times", "be all numbers or all datetimes", f"{given.dtype} and {times.dtype}")
    places = np.minimum(np.searchsorted(times, given), len(times) - 1) if number else np.zeros(0, np.int64)
    return np.where(times[places] == given, places, -1) if number else places
