"""How a split leaks: what training, or a model's input, knows of the events that the model is judged on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import as_text, listing, one_of, problem
from deepmatch_ext._frames import Lists, array_of, columns_of, is_frame
from deepmatch_ext.data.interactions import Interactions, time_values
from deepmatch_ext.data.splits import Split
from deepmatch_ext.data.windows import windows

_PARTS = ("train", "validation", "test")
_MUST_NOT_KNOW = (("train", "validation"), ("train", "test"), ("validation", "test"))
_SEVERITIES = ("leak", "possible", "note")
_LARGEST_ID = 2**31 - 1  # so that a user and an item together fit into int64
_BLOCK_VALUES = 2**18  # history values looked at in one go: temporaries stay at some ten MB


@dataclass(frozen=True)
class Leak:
    """One way in which a split leaks. As a string it is a sentence, an example, and what to do.

    Args:
        kind: A name from the list in :func:`find_leaks`.
        severity: "leak": training, or the input, knows what the model is asked. "possible": it does, unless there is a
            harmless reason that what was given can't tell. "note": common and mild; to know when figures are read.
        part: The part whose targets are known too early: "train", "validation", "test", or for counts two of them.
        seen_in: The part that knows them.
        count: How many of ``total`` rows, targets, ids or events, as ``text`` says.
        total: Out of how many.
        text: The finding as a sentence.
        example: One case of it. A row is one of the interactions for a :class:`Split`, else one of the part's input.
        remedy: What to do.
    """

    kind: str
    severity: str
    part: str
    seen_in: str
    count: int
    total: int
    text: str
    example: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.text} {self.example} {self.remedy}"


@dataclass(frozen=True)
class LeakReport:
    """What :func:`find_leaks` found, and what it could not look at. Print it.

    Args:
        leaks: The findings, gravest first.
        unchecked: What was not looked at, and what to give for it.
    """

    leaks: tuple[Leak, ...]
    unchecked: tuple[str, ...]

    @property
    def serious(self) -> tuple[Leak, ...]:
        """The findings of severity "leak": ``assert not find_leaks(split).serious`` guards a pipeline."""
        return tuple(leak for leak in self.leaks if leak.severity == "leak")

    def __str__(self) -> str:
        lines = [str(leak) for leak in self.leaks] or ["No leak found."]
        return "\n".join(lines + [f"not checked: {what}" for what in self.unchecked])


def find_leaks(
    parts: Split | Mapping[str, Any],
    interactions: Interactions | None = None,
    *,
    item_count: Any = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    order: str = "recent_first",
) -> LeakReport:
    """Says how a split leaks: a :class:`Split`, or the inputs that any other code made for a model.

    The kinds, with the severity "leak" where what was given makes them certain, else "possible":

    - "target_in_history": a row's own event is in its history.
    - "future_in_history": a history has an event that is later than the row's target.
    - "duplicate_target": one event, the same user, item and time, is a target in two parts. "possible" where the
      interactions have it more than once.
    - "held_out_in_history": a target of validation or test is in a history of train, or one of test in a history of
      validation; be it earlier than that history's target or not.
    - "held_out_in_counts": ``item_count`` counts events of validation or test.
    - "strange_item_in_history", always "possible": an item that the user never had, by the interactions.

    And always a "note":

    - "new_items", "new_users": ids of targets of validation or test that train does not know.
    - "later_in_train": targets of train that are later than the first of validation or test.
    - "same_moment": histories of validation or test with events of the very time of their target.
    - "repeated_targets": targets of validation or test that are items the user had before. Figures that are made with
      ``seen`` count them as misses.

    Inputs alone show little: an item that a user has in two places may be had twice, or leak. With the
    ``interactions`` that the inputs came from, a history's items are held against the user's events one by one: a
    repeat is no leak, a history may leave events out, and events of one time may be in any order. Where users repeat
    items, give ``time`` too; without it a target that the user had more than once is taken as the last time, where
    least is found.

    Args:
        parts: A split; its histories are all that the user did before a row, as :func:`windows` cuts them. Or inputs
            by part, {"train": {...}, "validation": {...}, "test": {...}}, train and at least one other. Each has, with
            u, i for the names of user and item, ``u`` and ``i``, integer ids (B,) or (B, 1); ``hist_i`` (B, T), padded
            with 0, or a list in each row; and perhaps ``hist_len`` (B,) or (B, 1). Arrays by name, or a
            pandas, polars or Arrow frame. Rows of true events only, no negatives. Id 0 is padding or unknown. All
            arrays are only read.
        interactions: The events that the inputs came from, in the ids of the inputs.
        item_count: What the sampler was given, (V,), by item id: counts as they are, before a power or a scale.
        user: The name of the users' column; by default that of the interactions, or "user_id".
        item: The name of the items' column; by default that of the interactions, or "item_id".
        time: The name of a column of the inputs, the times of the targets: numbers or datetimes, (B,) or (B, 1).
        order: "recent_first" or "oldest_first", the order of the histories.

    Returns:
        The findings, gravest first, and what was not looked at.

    Raises:
        ValueError: A part or a column is missing or has a wrong shape or type, an id is out of range, a history has
            values beyond its length, a target is no event of the interactions, or the counts are no counts.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 6], [1, 2, 3, 3, 1, 2], times=[10, 20, 30, 12, 24, 36])
        >>> report = find_leaks(Split(interactions, train=[0, 1, 5], validation=[], test=[2, 4]))
        >>> for leak in report.leaks:
        ...     print(leak.severity, "-", leak.text, leak.example)
        leak - 1 of 2 targets of test is in a history of train. Row 4: user 2, item 1.
        note - 1 of 3 targets of train is later than the first target of test, of 24. Row 5: user 2, item 2, of 36.
        >>> train = {"user_id": [1], "item_id": [2], "hist_item_id": [[1, 0, 0]]}
        >>> test = {"user_id": [1], "item_id": [3], "hist_item_id": [[3, 2, 1]]}
        >>> print(find_leaks({"train": train, "test": test}, interactions, item_count=[0, 1, 1, 0]))
        leak: 1 of 1 rows of test has its own target in its history. Row 0: user 1, item 3. Cut each history strictly \
before its target.
        note: 1 of 1 items among the targets of test is not in train but has an id. Item 3. Embeddings of such ids are \
never trained, those of 1 of 1 targets of test. A map of all events gives such ids, a live system has none: report \
these targets apart.
    """
    one_of("`order`", order, ["recent_first", "oldest_first"])
    if isinstance(parts, Split):
        for name, value in {"interactions": interactions, "user": user, "item": item, "time": time}.items():
            if value is not None:
                raise problem(f"`{name}`", "be left out beside a Split, which has its own", type(value).__name__)
        case = _case_of_split(parts)
    else:
        case = _case_of_inputs(parts, interactions, user, item, time)
    found = [*_duplicates(case), *_histories(case, order), *_new_ids(case), *_later_in_train(case)]
    unchecked = case.unchecked
    if item_count is None:
        unchecked = (*unchecked, "the sampler's counts; give `item_count`.")
    else:
        found += _counts(case, item_count)
    found.sort(key=lambda leak: _SEVERITIES.index(leak.severity))
    return LeakReport(tuple(found), unchecked)


class _Events:
    """Known events, sorted by user and item, then by moment. A moment is the rank of a time, or a row's number.

    Attributes:
        source: Which of the given events each is, (n,).
        moments: The moment of each, (n,).
        pair_of: The pair of user and item of each, (n,), numbered from 0 to P - 1.
        starts: The events of pair p are ``starts[p]:starts[p + 1]``, (P + 1,).
        number: How many each pair has, (P,).
    """

    def __init__(self, users: np.ndarray, items: np.ndarray, moments: np.ndarray, distinct: bool) -> None:
        self._width = int(items.max(initial=0)) + 1
        pairs = users.astype(np.int64) * self._width + items
        self.source = np.lexsort((moments, pairs))
        pairs, self.moments = pairs[self.source], moments[self.source].astype(np.int64)
        if distinct:
            again = (pairs[1:] == pairs[:-1]) & (self.moments[1:] == self.moments[:-1])
            kept = np.flatnonzero(np.append(True, ~again)[: len(pairs)])
            self.source, pairs, self.moments = self.source[kept], pairs[kept], self.moments[kept]
        first = np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]
        self._pairs = pairs[first]
        self.pair_of = np.cumsum(first) - 1
        self.starts = np.append(np.flatnonzero(first), len(pairs))
        self.number = np.diff(self.starts)
        self._span = int(self.moments.max(initial=0)) + 2  # one too many, so that moment -1 is nobody's
        self._keys = self.pair_of * self._span + self.moments

    def __len__(self) -> int:
        return len(self.moments)

    def find(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The pair of each user and item, or -1."""
        if not len(self._pairs):
            return np.full(len(users), -1)
        pairs = users.astype(np.int64) * self._width + items
        places = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        return np.where((self._pairs[places] == pairs) & (items > 0) & (items < self._width), places, -1)

    def before(self, pairs: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """How many events of each pair are earlier than the moment."""
        return self._count(pairs, moments)

    def until(self, pairs: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """How many events of each pair are of the moment or earlier."""
        return self._count(pairs, moments + 1)

    def last_alike(self, events: np.ndarray) -> np.ndarray:
        """The last event of the same user, item and moment."""
        pairs = self.pair_of[events]
        return self.starts[pairs] + self.until(pairs, self.moments[events]) - 1

    def _count(self, pairs: np.ndarray, moments: np.ndarray) -> np.ndarray:
        starts = self.starts[pairs]
        counts = (self.moments[starts] < moments).astype(np.int64)
        several = np.flatnonzero((counts > 0) & (self.number[pairs] > 1))
        keys = pairs[several] * self._span + moments[several]
        counts[several] = np.searchsorted(self._keys, keys) - starts[several]
        return counts


@dataclass(frozen=True, eq=False)
class _Part:
    """The rows of a part, B of them.

    Args:
        name: "train", "validation" or "test".
        rows: What an example calls each row, (B,): its number in the interactions, or in the input.
        users: (B,).
        items: The target items, (B,).
        history: (B, T), 0 is padding. None: all that the user did before, by the interactions.
        events: Each target's event among the known ones, the last that it can be, (B,); -1 where an id is 0.
        choices: How many events it can be, (B,).
        exact: Whether the event is known to be the one, (B,).
    """

    name: str
    rows: np.ndarray
    users: np.ndarray
    items: np.ndarray
    history: np.ndarray | None
    events: np.ndarray
    choices: np.ndarray
    exact: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """The rows that have an event."""
        return np.flatnonzero(self.events >= 0)

    def example(self, row: int, more: str = "") -> str:
        return f"Row {self.rows[row]}: user {self.users[row]}, item {self.items[row]}{more}."


@dataclass(frozen=True, eq=False)
class _Case:
    """What is known.

    Args:
        parts: By name, in the order of `_PARTS`.
        events: Those of the interactions, or else the targets of all parts.
        interactions: None where there are inputs alone.
        times: The distinct times that moments are the ranks of, sorted. None: moments are something else.
        by_time: Whether targets are known by their time or row, and not by user and item alone.
        unchecked: Sentences for the report.
    """

    parts: dict[str, _Part]
    events: _Events
    interactions: Interactions | None
    times: np.ndarray | None
    by_time: bool
    unchecked: tuple[str, ...]

    @property
    def ordered(self) -> bool:
        """Whether moments say what came first."""
        return self.interactions is not None or self.by_time

    @property
    def severity(self) -> str:
        """Of a finding that rests on knowing all events of a user with an item."""
        return "possible" if self.interactions is None else "leak"

    @property
    def doubt(self) -> str:
        if self.interactions is not None:
            return ""
        return " It is no leak if the user had the item once more, before; `interactions` would tell."

    def pairs(self) -> Iterator[tuple[_Part, _Part]]:
        for source, held in _MUST_NOT_KNOW:
            if source in self.parts and held in self.parts:
                yield self.parts[source], self.parts[held]


def _case_of_split(split: Split) -> _Case:
    x = split.interactions
    events, times = _events_of(x)
    place = np.empty(len(x), np.int64)
    place[events.source] = np.arange(len(x))
    parts = {}
    for name in _PARTS:
        rows = getattr(split, name)
        at = place[rows]
        pairs, moments = events.pair_of[at], events.moments[at]
        choices = events.until(pairs, moments) - events.before(pairs, moments)
        parts[name] = _Part(name, rows, x.users[rows], x.items[rows], None, at, choices, np.ones(len(rows), bool))
    unchecked = () if times is not None else ("what was later across users, as the interactions have no times.",)
    return _Case(parts, events, x, times, by_time=True, unchecked=unchecked)


def _events_of(x: Interactions) -> tuple[_Events, np.ndarray | None]:
    """The events, and the distinct times; without times, a moment is a row."""
    if x.times is None:
        return _Events(x.users, x.items, np.arange(len(x)), distinct=False), None
    times = np.unique(x.times)
    return _Events(x.users, x.items, np.searchsorted(times, x.times), distinct=False), times


@dataclass(frozen=True, eq=False)
class _Input:
    """The columns of a part's input: users (B,), items (B,), history (B, T), times (B,) or None."""

    users: np.ndarray
    items: np.ndarray
    history: np.ndarray
    times: np.ndarray | None


def _case_of_inputs(parts: Any, x: Interactions | None, user: str | None, item: str | None, time: str | None) -> _Case:
    names = list(parts) if isinstance(parts, Mapping) else []
    if "train" not in names or len(names) < 2 or not set(names) <= set(_PARTS):
        got = listing(names) if names else type(parts).__name__
        raise problem("`parts`", "be a Split, or inputs by the names 'train' and 'validation' or 'test' or both", got)
    if x is not None and not isinstance(x, Interactions):
        raise problem("`interactions`", "be Interactions", type(x).__name__, "Interactions.from_frame() makes them.")
    if x is not None and x.times is None and time is not None:
        raise problem("`interactions`", "have times where `time` is given", "times=None")
    names_given = {"user": user, "item": item, "time": time}
    user, item, time = (name if name is None else as_text(f"`{role}`", name) for role, name in names_given.items())
    user = user or (x.user_name if x is not None else "user_id")
    item = item or (x.item_name if x is not None else "item_id")
    inputs = {name: _read_input(name, parts[name], user, item, time) for name in _PARTS if name in names}
    if x is not None:
        events, times = _events_of(x)
        moments = _ranks(inputs, times) if times is not None and time is not None else {}
    else:
        times = None if time is None else _all_times(inputs)
        moments = {} if times is None else _ranks(inputs, times)
        events = _events_of_inputs(inputs, moments)

    read, unchecked = {}, []
    for name, columns in inputs.items():
        users, items = columns.users, columns.items
        at, choices = _matched(name, users, items, moments.get(name), events)
        read[name] = _Part(name, np.arange(len(users)), users, items, columns.history, at, choices, choices == 1)
        unknown, unsure = int((at < 0).sum()), int((choices > 1).sum())
        if unknown:
            unchecked.append(f"{unknown} of {len(users)} rows of {name}, whose user or item has id 0.")
        if unsure and time is None:
            remedy = "" if times is None else "; give `time`"
            unchecked.append(f"when {unsure} of {len(users)} targets of {name} were, had more than once{remedy}.")
    if x is None and time is None:
        unchecked.append("what was later, in histories and across users; give `interactions` or `time`.")
    elif times is None:
        unchecked.append("what was later across users, as the interactions have no times.")
    return _Case(read, events, x, times, by_time=time is not None, unchecked=tuple(unchecked))


def _read_input(part: str, inputs: Any, user: str, item: str, time: str | None) -> _Input:
    if not (isinstance(inputs, Mapping) or is_frame(inputs)):
        raise problem(f"`parts`[{part!r}]", "be a dictionary of arrays, or a frame", type(inputs).__name__)
    history_name = f"hist_{item}"
    names = [user, item, history_name, *([] if time is None else [time])]
    inputs = columns_of(f"`parts`[{part!r}]", inputs, [*names, "hist_len"])
    for name in names:
        if name not in inputs:
            got = f"the columns {listing(list(inputs), 20)}"
            remedy = "`user`, `item` and `time` are the names of columns."
            raise problem(f"column {name!r} of {part}", "be in the input", got, remedy)
    users = _checked_ids(f"column {user!r} of {part}", _flat(f"column {user!r} of {part}", inputs[user]))
    number = len(users)
    items = _checked_ids(f"column {item!r} of {part}", _flat(f"column {item!r} of {part}", inputs[item], number))
    what = f"column {history_name!r} of {part}"
    history = array_of(what, inputs[history_name])
    if isinstance(history, Lists):
        if history.missing.any():
            raise problem(what, "have a list in every row", f"none in row {int(history.missing.argmax())}")
        history = history.padded(max(1, int(history.lengths.max(initial=0))))
    if history.ndim != 2 or len(history) != number or not history.shape[1]:
        raise problem(what, f"be ({number}, T), a history in each row", f"shape {history.shape}")
    _checked_ids(what, history)
    if "hist_len" in inputs:
        lengths = _flat(f"column 'hist_len' of {part}", inputs["hist_len"], number)
        for rows in _blocks(np.arange(number), history.shape[1]):
            beyond = np.count_nonzero(history[rows], axis=1) > lengths[rows]
            if beyond.any():
                row = rows[beyond.argmax()]
                got = f"{listing(history[row])} with length {lengths[row]} in row {row}"
                raise problem(what, "have at most as many ids in a row as 'hist_len' says", got, "0 is padding.")
    if time is None:
        return _Input(users, items, history, None)
    what, times = f"column {time!r} of {part}", inputs[time]
    if np.ndim(times) != 1 or not isinstance(times, list | np.ndarray | pd.Series | pd.Index):
        times = _flat(what, times, number)
    return _Input(users, items, history, _flat(what, time_values(what, times), number))


def _flat(what: str, values: Any, number: int | None = None) -> np.ndarray:
    array = array_of(what, values)
    if isinstance(array, Lists):
        if (array.lengths != 1).any():
            got = f"lists of {array.lengths.min()} to {array.lengths.max()} values"
            raise problem(what, f"be ({'B' if number is None else number},), a value in each row", got)
        array = array.padded(1)
    if array.shape not in ((array.size,), (array.size, 1)) or number not in (None, array.size):
        raise problem(what, f"be ({'B' if number is None else number},), a value in each row", f"shape {array.shape}")
    return array.reshape(-1)


def _checked_ids(what: str, array: np.ndarray) -> np.ndarray:
    remedy = "IdMap numbers raw values."
    if array.size and array.dtype.kind not in "iu":
        raise problem(what, "be integer ids", f"dtype {array.dtype}", remedy)
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0 or high > _LARGEST_ID:
        raise problem(what, f"be ids in 0..{_LARGEST_ID}", low if low < 0 else high, remedy)
    return array.astype(np.int64) if array.ndim == 1 else array


def _blocks(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    size = max(1, _BLOCK_VALUES // width)
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _all_times(inputs: dict[str, _Input]) -> np.ndarray:
    columns = [each.times for each in inputs.values() if each.times is not None and len(each.times)]
    for column in columns:
        _same_kind(column, columns[0])
    return np.unique(np.concatenate(columns)) if columns else np.zeros(0, np.int64)


def _same_kind(times: np.ndarray, others: np.ndarray) -> None:
    if (times.dtype.kind == "M") != (others.dtype.kind == "M"):
        raise problem("the times", "be all numbers or all datetimes", f"{times.dtype} and {others.dtype}")


def _ranks(inputs: dict[str, _Input], times: np.ndarray) -> dict[str, np.ndarray]:
    """The moment of each row by part, (B,): the rank of its time, or -1 if it is none of ``times``."""
    moments = {}
    for name, each in inputs.items():
        assert each.times is not None
        if not len(each.times):
            moments[name] = np.zeros(0, np.int64)
            continue
        _same_kind(each.times, times)
        places = np.minimum(np.searchsorted(times, each.times), len(times) - 1)
        moments[name] = np.where(times[places] == each.times, places, -1)
    return moments


def _events_of_inputs(inputs: dict[str, _Input], moments: dict[str, np.ndarray]) -> _Events:
    """The distinct targets of all parts; without times, all of one moment."""
    users = np.concatenate([each.users for each in inputs.values()])
    items = np.concatenate([each.items for each in inputs.values()])
    moment = np.concatenate(list(moments.values())) if moments else np.zeros(len(users), np.int64)
    known = (users > 0) & (items > 0)
    return _Events(users[known], items[known], moment[known], distinct=True)


def _matched(
    part: str, users: np.ndarray, items: np.ndarray, moments: np.ndarray | None, events: _Events
) -> tuple[np.ndarray, np.ndarray]:
    """The last event that each target can be, -1 where an id is 0, and how many it can be: (B,), (B,)."""
    asked = np.flatnonzero((users > 0) & (items > 0))
    pairs = events.find(users[asked], items[asked])
    before, until = np.zeros((2, len(asked)), np.int64)
    found = np.flatnonzero(pairs >= 0)
    if moments is None:
        until[found] = events.number[pairs[found]]
    else:
        before[found] = events.before(pairs[found], moments[asked[found]])
        until[found] = events.until(pairs[found], moments[asked[found]])
    missing = until == before
    if missing.any():
        row = asked[missing.argmax()]
        got = f"{int(missing.sum())} of {len(users)} that are not, the first in row {row}: user {users[row]}, item "
        remedy = "Give rows of true events alone, with the ids and times of the interactions."
        raise problem(f"the targets of {part}", "be events of the interactions", f"{got}{items[row]}", remedy)
    at, choices = np.full(len(users), -1), np.zeros(len(users), np.int64)
    at[asked] = events.starts[pairs] + until - 1
    choices[asked] = until - before
    return at, choices


def _counted(count: int, total: int, text: str) -> str:
    """ "3 of 9 " and ``text``, whose {are}, {have}, {their} agree with the number."""
    one = count == 1
    return f"{count} of {total} " + text.format(
        are="is" if one else "are", have="has" if one else "have", their="its" if one else "their"
    )


def _duplicates(case: _Case) -> Iterator[Leak]:
    for source, held in case.pairs():
        rows = held.known
        # Of events of one user, item and time, the last stands for all.
        ours, theirs = (case.events.last_alike(part.events[part.known]) for part in (held, source))
        counts = [np.bincount(events, minlength=len(case.events)) for events in (ours, theirs)]
        both = counts[1][ours] > 0
        certain = both & (held.choices[rows] == 1) & case.ordered
        # By user and item alone, it can be a repeat unless there are more targets than events.
        too_many = counts[0][ours] + counts[1][ours] > held.choices[rows]
        possible = both & ~certain & (too_many | case.by_time)
        text = f"targets of {held.name} {{are}} also a target of {source.name}, of the same user"
        remedy = "Keep each event in one part."
        for severity, hits in (("leak", rows[certain]), ("possible", rows[possible])):
            if severity == "possible" and case.interactions is not None:
                text += " at the same time" if case.by_time else ", more often than there are events"
                remedy = "Drop repeated rows from the source; it is no leak if the user did have the item twice."
            elif severity == "possible":
                remedy += " It is no leak if the user had the item twice; `interactions` and `time` would tell."
            if len(hits):
                count, total = len(hits), len(held.users)
                sentence = _counted(count, total, f"{text}.")
                example = held.example(hits[0])
                yield Leak(
                    "duplicate_target", severity, held.name, source.name, count, total, sentence, example, remedy
                )


class _Watch:
    """Which targets of a part turn up in the histories of another part.

    Attributes:
        part: The part with the targets.
        held: Which events are targets of it, (n,).
        up_to: How many of the first k events are, (n + 1,).
        covered: Events found in a history because it is known row by row, (n,).
        most: How many of a pair's targets are in one history at most, where their number shows it, (P,).
    """

    def __init__(self, part: _Part, events: _Events) -> None:
        self.part, self._events = part, events
        self.held = np.zeros(len(events), bool)
        self.held[part.events[part.known]] = True
        self.up_to = np.append(0, np.cumsum(self.held))
        self.covered = np.zeros(len(events), bool)
        self.most = np.zeros(len(events.number), np.int64)

    def per_pair(self) -> np.ndarray:
        """How many events of each pair are targets of the part, (P,)."""
        return np.diff(self.up_to[self._events.starts])

    def found(self) -> np.ndarray:
        """The rows of the part whose event turned up."""
        pair_of = self._events.pair_of
        earlier = self.up_to[:-1] - self.up_to[self._events.starts[pair_of]]  # targets of the pair before this one
        found = self.held & (self.covered | (earlier < self.most[pair_of]))
        return self.part.known[found[self.part.events[self.part.known]]]


class _Wrong:
    """Per row, (B,), an item of its history that should not be there, or 0."""

    def __init__(self, number: int) -> None:
        self.own, self.future, self.strange, self.tied = np.zeros((4, number), np.int64)


def _histories(case: _Case, order: str) -> Iterator[Leak]:
    for part in case.parts.values():
        watches = [_Watch(held, case.events) for source, held in case.pairs() if source is part]
        wrong = _Wrong(len(part.users))
        if case.ordered:
            rest = part.known
            if case.interactions is not None:
                plain = _look_at_windows(case.interactions, case.events, part, order, watches, wrong)
                rest = np.setdiff1d(rest, plain, assume_unique=True)
            if len(rest):
                _look_at_items(case, part, rest, watches, wrong)
        else:
            _look_without_order(case, part, order, watches, wrong)
        yield from _wrong_items(case, part, wrong)
        yield from _repeated_targets(case, part, wrong)
        for watch in watches:
            hits = watch.found()
            if len(hits):
                name, count, total = watch.part.name, len(hits), len(watch.part.users)
                text = _counted(count, total, f"targets of {name} {{are}} in a history of {part.name}.")
                remedy = f"Make {part.name} of events that are earlier than the user's targets of {name}.{case.doubt}"
                example = watch.part.example(hits[0])
                severity = case.severity
                yield Leak("held_out_in_history", severity, name, part.name, count, total, text, example, remedy)


def _look_at_windows(
    x: Interactions, events: _Events, part: _Part, order: str, watches: list[_Watch], wrong: _Wrong
) -> np.ndarray:
    """Looks at the histories that are exactly the rows before their target, and says which they are.

    Nothing in them is later than the target, but a held-out event may be among them.
    """
    rows = np.flatnonzero(part.exact)
    targets = events.source[part.events[rows]]
    lengths = x.position[targets]
    if part.history is not None:
        width = part.history.shape[1]
        plain = np.zeros(len(rows), bool)
        for block in _blocks(np.arange(len(rows)), width):
            expected = windows(x, targets[block], width, order=order)[f"hist_{x.item_name}"]
            plain[block] = (expected == part.history[rows[block]]).all(axis=1)
        rows, targets, lengths = rows[plain], targets[plain], np.minimum(lengths[plain], width)
    # Each history begins at a row and ends at another: the rows that at least one history is over.
    begins, ends = (np.bincount(places, minlength=len(x) + 1) for places in (targets - lengths, targets))
    inside = np.cumsum(begins - ends)[:-1] > 0
    for watch in watches:
        watch.covered |= inside[events.source]
    if x.times is not None:
        some = np.flatnonzero(lengths)
        tied = some[x.times[targets[some] - 1] == x.times[targets[some]]]
        wrong.tied[rows[tied]] = x.items[targets[tied] - 1]
    return rows


def _look_at_items(case: _Case, part: _Part, rows: np.ndarray, watches: list[_Watch], wrong: _Wrong) -> None:
    """Holds each item of any other history against the user's events with it."""
    assert part.history is not None
    events = case.events
    rows = rows[np.argsort(part.users[rows], kind="stable")]  # what is looked up for a user lies close together
    held_of_pair = [watch.per_pair() for watch in watches]
    for block in _blocks(rows, part.history.shape[1]):
        row, items, times_in = _distinct(part.history[block])
        row = block[row]
        pairs = events.find(part.users[row], items)
        known = pairs >= 0
        if case.interactions is not None:
            wrong.strange[row[~known]] = items[~known]
        else:
            times_in = np.ones_like(times_in)  # of the user's events, only those that are targets are known
        row, items, times_in, pairs = row[known], items[known], times_in[known], pairs[known]
        event = part.events[row]
        moments = events.moments[event]
        before, until = events.before(pairs, moments), events.until(pairs, moments)
        own = items == part.items[row]
        late = times_in > until - own
        tied = ~late & (times_in > before)
        for found, where in ((wrong.own, late & own), (wrong.future, late & ~own), (wrong.tied, tied)):
            found[row[where]] = items[where]
        for watch, held in zip(watches, held_of_pair, strict=True):
            asked = np.flatnonzero(held[pairs])
            pair = pairs[asked]
            starts = events.starts[pair]
            held_until = watch.up_to[starts + until[asked]] - watch.up_to[starts]
            # What else than a target of the watched part can the item be? If one of those is not later than this row's
            # target, only an event that is not later either; otherwise any.
            others = np.where(held_until > 0, until[asked] - held_until, events.number[pair] - held[pair])
            others -= own[asked] & ~watch.held[event[asked]]
            np.maximum.at(watch.most, pair, times_in[asked] - others)


def _distinct(history: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct items of each row of (B, T), padding apart: the row, the item, and how often it is there."""
    width = history.shape[1]
    history = np.sort(history.astype(np.int32), axis=1)  # padding comes first
    last = history != 0
    last[:, :-1] &= history[:, :-1] != history[:, 1:]
    places = np.flatnonzero(last)  # where each item has its last place
    rows = places // width
    begins = np.append(0, places[:-1] + 1)[: len(places)]  # after the item before it, or after the row's padding
    begins = np.maximum(begins, rows * width + (history == 0).sum(axis=1)[rows])
    return rows, history.reshape(-1)[places].astype(np.int64), places + 1 - begins


def _look_without_order(case: _Case, part: _Part, order: str, watches: list[_Watch], wrong: _Wrong) -> None:
    """What inputs alone tell: a target that is the most recent of its own history, and targets in other histories."""
    assert part.history is not None
    width = part.history.shape[1]
    for block in _blocks(np.argsort(part.users, kind="stable"), width):
        history = part.history[block]
        if order == "recent_first":
            recent = history[:, 0]
        else:
            recent = history[np.arange(len(block)), width - 1 - (history[:, ::-1] != 0).argmax(axis=1)]
        wrong.own[block] = np.where(recent == part.items[block], recent, 0)
        if watches:
            pairs = case.events.find(np.repeat(part.users[block], width), history.reshape(-1).astype(np.int64))
            for watch in watches:
                watch.most[pairs[pairs >= 0]] = 1


def _wrong_items(case: _Case, part: _Part, wrong: _Wrong) -> Iterator[Leak]:
    cut = "Cut each history strictly before its target"
    own = "{have} {their} own target in {their} history" + ("" if case.ordered else ", as its most recent item")
    strange = "Give the interactions that the histories were cut from; or the histories are another user's."
    kinds = [
        ("target_in_history", case.severity, wrong.own, own, f"{cut}.{case.doubt}"),
        (
            "future_in_history",
            case.severity,
            wrong.future,
            "{have} an item in {their} history that the user had only after the target",
            f"{cut}, in the order of time.{case.doubt}",
        ),
        (
            "strange_item_in_history",
            "possible",
            wrong.strange,
            "{have} an item in {their} history that the user never had, by the interactions",
            strange,
        ),
    ]
    if part.name != "train":
        tied = "{have} an item in {their} history from the very time of the target"
        kinds.append(("same_moment", "note", wrong.tied, tied, "Only the order of the source says which came first."))
    for kind, severity, items, text, remedy in kinds:
        hits = np.flatnonzero(items)
        if len(hits):
            count, total = len(hits), len(items)
            more = "" if kind == "target_in_history" else f", with item {items[hits[0]]} in its history"
            sentence = _counted(count, total, f"rows of {part.name} {text}.")
            example = part.example(hits[0], more)
            yield Leak(kind, severity, part.name, part.name, count, total, sentence, example, remedy)


def _repeated_targets(case: _Case, part: _Part, wrong: _Wrong) -> Iterator[Leak]:
    if part.name == "train":
        return
    events, known = case.events, part.events[part.known]
    repeated = np.zeros(len(part.users), bool)
    if case.interactions is not None:
        repeated[part.known] = known > events.starts[events.pair_of[known]]  # it has earlier events of the pair
    else:
        assert part.history is not None
        if case.ordered:
            repeated[part.known] = events.before(events.pair_of[known], events.moments[known]) > 0
        for block in _blocks(np.flatnonzero((part.items > 0) & (wrong.own == 0)), part.history.shape[1]):
            repeated[block] |= (part.history[block] == part.items[block, None]).any(axis=1)
    source = "" if case.interactions is not None else ", by the histories"
    hits = np.flatnonzero(repeated)
    if len(hits):
        count, total = len(hits), len(repeated)
        text = _counted(count, total, f"targets of {part.name} {{are}} of an item that the user had before{source}.")
        remedy = (
            "Figures that are made with `seen` count them as misses, since what a user had is not recommended; "
            "seen_targets='leave_out' leaves them out. Where items are recommended again, leave `seen` out."
        )
        example = part.example(hits[0])
        yield Leak("repeated_targets", "note", part.name, part.name, count, total, text, example, remedy)


def _new_ids(case: _Case) -> Iterator[Leak]:
    train = case.parts["train"]
    for held in case.parts.values():
        if held is train:
            continue
        for name, ids, new in (
            ("item", held.items, _items_not_in_train(case, held.items)),
            ("user", held.users, np.setdiff1d(held.users, train.users)),
        ):
            new = new[new > 0]
            if len(new):
                count, total = len(new), len(np.unique(ids[ids > 0]))
                text = f"{name}s among the targets of {held.name} {{are}} not in train but {{have}} an id."
                rows = f"{int(np.isin(ids, new).sum())} of {len(ids)} targets of {held.name}"
                remedy = (
                    f"Embeddings of such ids are never trained, those of {rows}. A map of all events gives such ids, "
                    "a live system has none: report these targets apart."
                )
                sentence, example = _counted(count, total, text), f"{name.capitalize()} {new[0]}."
                yield Leak(f"new_{name}s", "note", held.name, "train", count, total, sentence, example, remedy)


def _items_not_in_train(case: _Case, items: np.ndarray) -> np.ndarray:
    """Those of ``items``, once each, that are neither a target nor in a history of train."""
    train, x = case.parts["train"], case.interactions
    left = np.setdiff1d(items, train.items)
    if train.history is None:
        assert x is not None
        last = np.full(x.user_vocabulary_size, -1)
        np.maximum.at(last, train.users, train.rows)
        return np.setdiff1d(left, x.items[np.arange(len(x)) < last[x.users]])
    for block in _blocks(np.arange(len(train.items)), train.history.shape[1]):
        if not len(left):
            break
        left = left[~np.isin(left, train.history[block].astype(np.int64))]
    return left


def _later_in_train(case: _Case) -> Iterator[Leak]:
    if case.times is None:
        return
    # A target that can be any of several events, and one that is unknown (event -1), have no certain time.
    moments = np.append(case.events.moments, -1)
    certain = {name: np.where(part.exact, moments[part.events], -1) for name, part in case.parts.items()}
    train, later = case.parts["train"], certain.pop("train")
    for name, moment in certain.items():
        first = moment[moment >= 0].min(initial=len(case.times))
        hits = np.flatnonzero(later > first)
        if len(hits):
            count, total = len(hits), len(train.users)
            text = f"targets of train {{are}} later than the first target of {name}, of {case.times[first]}."
            remedy = (
                "So training knows other users' futures. Leave-last-out does by nature; split_by_time() splits as a "
                "live system would."
            )
            sentence = _counted(count, total, text)
            example = train.example(hits[0], f", of {case.times[later[hits[0]]]}")
            yield Leak("later_in_train", "note", name, "train", count, total, sentence, example, remedy)


def _counts(case: _Case, item_count: Any) -> Iterator[Leak]:
    x, train = case.interactions, case.parts["train"]
    largest = max(int(part.items.max(initial=0)) for part in case.parts.values())
    counts = _checked_counts(item_count, largest + 1 if x is None else x.item_vocabulary_size)

    def count(items: np.ndarray) -> np.ndarray:
        numbers = np.bincount(items, minlength=len(counts))
        numbers[0] = 0
        return numbers

    held = {name: count(part.items) for name, part in case.parts.items() if name != "train" and len(part.items)}
    every = np.sum([*held.values(), np.zeros_like(counts)], axis=0)
    # What counting train can mean: its targets, or those with a history, or with the events before them, or all events
    # that are not held out.
    bases = [count(train.items)]
    if x is not None:
        bases.append(np.maximum(count(x.items) - every, 0))
        bases.append(count(x.items[_before_or_in_train(case)]))
        if train.history is None:
            bases.append(count(train.items[x.position[train.rows] > 0]))
    if any((counts == base).all() for base in bases):
        return
    choices = [names for names in (["test"], ["validation"], ["validation", "test"]) if set(names) <= set(held)]
    totals = [np.sum([held[name] for name in names], axis=0) for names in choices]
    most = np.max(bases, axis=0)
    above = np.maximum(counts - most, 0)  # more than train has
    for names, total in zip(choices, totals, strict=True):
        for base in bases:
            if (counts == base + total).all():
                yield _counts_leak("leak", names, counts, base, total, total)
                return
    if not above.any():
        return
    # Either held-out events explain all that is above, or there is room for all of them, and more is counted as well.
    explain = [k for k, total in enumerate(totals) if (above <= total).all()]
    include = [k for k, total in enumerate(totals) if (above >= total).all() and total.any()]
    if explain:
        k = min(explain, key=lambda k: totals[k].sum())
        severity = "possible" if x is None else "leak"
        yield _counts_leak(severity, choices[k], counts, most, above, totals[k])
    elif include:
        k = max(include, key=lambda k: totals[k].sum())
        yield _counts_leak("possible", choices[k], counts, most, totals[k], totals[k])


def _before_or_in_train(case: _Case) -> np.ndarray:
    """The rows of the interactions, (n,), that are not held out, and a user's first or up to the last of train's."""
    x, events, train = case.interactions, case.events, case.parts["train"]
    assert x is not None
    last = np.full(x.user_vocabulary_size, -1)
    np.maximum.at(last, train.users[train.known], events.source[train.events[train.known]])
    rows = (np.arange(len(x)) <= last[x.users]) | (x.position == 0)
    for part in case.parts.values():
        if part is not train:
            rows[events.source[part.events[part.known]]] = False
    return rows


def _counts_leak(
    severity: str, names: list[str], counts: np.ndarray, base: np.ndarray, taken: np.ndarray, total: np.ndarray
) -> Leak:
    part, item = " and ".join(names), int(taken.argmax())
    remedy = "Count train alone, as interactions.item_counts(split.train) does."
    if severity == "leak":
        least = "" if (taken == total).all() else ", at least,"
        text = f"events of {part}{least} {{are}} counted in `item_count`."
    else:
        text = f"events of {part} may be counted in `item_count`, which is above the counts of train."
        remedy += " It is no leak if the counts were raised otherwise, or have events of train that are no targets."
    sentence = _counted(int(taken.sum()), int(total.sum()), text)
    example = f"Item {item}: {counts[item]} counted, {base[item]} of them in train."
    kind, count = "held_out_in_counts", int(taken.sum())
    return Leak(kind, severity, part, "train", count, int(total.sum()), sentence, example, remedy)


def _checked_counts(item_count: Any, least: int) -> np.ndarray:
    """``item_count`` as a new int64 array, (V,) with V >= ``least``, in which padding has none."""
    counts = np.asarray(item_count)
    if counts.ndim != 1 or len(counts) < least or counts.dtype.kind not in "iuf":
        rule = f"be a count for each item id, ({least},)"
        raise problem("`item_count`", rule, f"{counts.dtype} of shape {counts.shape}")
    wrong = ~np.isfinite(counts) | (counts < 0) | (counts != np.floor(counts))
    if wrong.any():
        remedy = "Give the counts as they were before a power, a scale or a share."
        raise problem("`item_count`", "be whole numbers of at least 0", listing(counts[wrong]), remedy)
    counts = counts.astype(np.int64)
    counts[0] = 0
    return counts
