"""A split's parts: which event each row is to predict, and which history it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepmatch_ext._arrays import check_ids
from deepmatch_ext._checks import as_text, instance_of, listing, problem
from deepmatch_ext._frames import Lists, array_of, columns_of, one_a_row, require_columns
from deepmatch_ext.data.interactions import Interactions, time_values
from deepmatch_ext.data.kinds import History
from deepmatch_ext.data.leaks.report import Leak, leak
from deepmatch_ext.data.splits import PARTS, Split

_IDS = "The inputs have the ids of the interactions."
_COLUMNS = "`user` and `item` of Interactions.from_frame() name the columns of users and items."


class Events:
    """The n events of interactions, sorted by user, item and kind, then by moment.

    A moment is the rank of a time among all times; without times, it is the row. A pair of user and item, in events of
    one kind, has the number of its first event; a pair without events has the number n.

    Attributes:
        interactions: The events by row.
        times: The time of each moment, sorted; None without times.
        moments: The moment of each row, (n,).
        rows: The row that each event is, (n,).
        pairs: The pair of each event, (n,).
        ends: The events of pair p are ``p:ends[p]``, (n + 1,).
        alike: The first event of the same user, item, kind and moment as each row, (n,).
        kinds: The number of each row's kind, (n,); 0 without kinds.
        target_kinds: The numbers of the kinds that are to be predicted.
    """

    def __init__(self, x: Interactions) -> None:
        self.times: Any = None
        self.interactions, self.moments = x, np.arange(len(x))
        if x.times is not None:
            self.times, self.moments = np.unique(x.times, return_inverse=True)
        self.kinds, self.target_kinds, self._number_of_kinds = np.zeros(len(x), np.int64), np.zeros(1, np.int64), 1
        if x.kinds is not None:
            self.kinds, self.target_kinds = x.kinds.values, x.kinds.target_numbers
            self._number_of_kinds = x.kinds.ids.vocabulary_size
        keys = self._key(x.users, x.items, self.kinds)
        self.rows = np.lexsort((self.moments, keys))
        self._keys = keys[self.rows]
        self.pairs = np.searchsorted(self._keys, self._keys)
        self.ends = np.append(np.searchsorted(self._keys, self._keys, side="right"), len(x))
        self._span = len(x) + 2  # neither -1 nor n is the moment of an event
        self._moments = self.pairs * self._span + self.moments[self.rows]
        self.alike = np.searchsorted(self._moments, self._moments)[np.argsort(self.rows)]

    def _key(self, users: np.ndarray, items: np.ndarray, kinds: Any) -> np.ndarray:
        of_items = users.astype(np.int64) * self.interactions.item_vocabulary_size + items
        return of_items * self._number_of_kinds + kinds

    def find(self, users: np.ndarray, items: np.ndarray, kind: int) -> np.ndarray:
        """The pair of each user and item, in events of a kind."""
        return place_of(self._keys, self._key(users, items, kind))

    def at(self, pairs: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """The first event of each pair that is not earlier than the moment, the pair's end if there is none."""
        return np.searchsorted(self._moments, pairs * self._span + moments)


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of a part, B of them.

    Args:
        name: "train", "validation" or "test".
        users: (B,).
        items: The target items, (B,).
        histories: Histories that the rows have, (B, T) each, 0 is padding, with the events that each is made of. None:
            all that :func:`windows` would give, uncut.
        targets: The row of the interactions that each target is, (B,).
        known: Whether that row is known, (B,); if not, ``targets`` has an arbitrary row.
    """

    name: str
    users: np.ndarray
    items: np.ndarray
    histories: list[tuple[History, np.ndarray]] | None
    targets: np.ndarray
    known: np.ndarray

    def leaks(self, kind: str, severity: str, hits: np.ndarray, others: Any = None, **words: Any) -> Iterator[Leak]:
        """The leak of the rows ``hits`` (B,), if there are any; ``others`` (B,) are the items in histories."""
        if hits.any():
            k = int(hits.argmax())
            row = self.targets[k] if self.histories is None else k
            other = "" if others is None else f", with item {others[k]} in its history"
            example = f"Row {row}: user {self.users[k]}, item {self.items[k]}{other}."
            words = {"part": self.name, "seen_in": self.name, **words}
            yield leak(kind, severity, int(hits.sum()), len(hits), example, **words)


def parts_of_split(split: Split) -> tuple[Events, list[Part]]:
    x = split.interactions
    rows = {name: getattr(split, name) for name in PARTS}
    parts = [Part(name, x.users[of], x.items[of], None, of, np.ones(len(of), bool)) for name, of in rows.items()]
    return Events(x), parts


def parts_of_inputs(inputs: Any, x: Any, time: Any) -> tuple[Events, list[Part]]:
    names = list(inputs) if isinstance(inputs, Mapping) else []
    if "train" not in names or len(names) < 2 or not set(names) <= set(PARTS):
        got = listing(names) if names else type(inputs).__name__
        raise problem("`parts`", "be a Split, or inputs by the names 'train' and 'validation' or 'test' or both", got)
    made = "Give the events that the inputs were made of; Interactions.from_frame() reads them."
    x = instance_of("`interactions`", x, Interactions, made)
    time = None if time is None else as_text("`time`", time)
    if x.times is None and time is not None:
        raise problem("`interactions`", "have times where `time` is given", "times=None")
    events = Events(x)
    return events, [_read(name, inputs[name], events, time) for name in PARTS if name in names]


def _read(part: str, given: Any, events: Events, time: str | None) -> Part:
    """The part of an input, by the columns that have the names of the interactions, and ``time``."""
    x = events.interactions
    user, item = x.user_name, x.item_name
    by_name = {f"hist_{item}{history.suffix}": history for history in x.histories}
    names = [user, item, *([] if time is None else [time])]
    lengths_of = [f"hist_len{history.suffix}" for history in x.histories]
    columns = columns_of(f"`parts`[{part!r}]", given, [*names, *by_name, *lengths_of])
    # With several kinds, a model may read the histories of only some.
    hists = [name for name in by_name if name in columns] or [*by_name]
    require_columns(columns, [*names, *hists], f"the input of {part}", dict.fromkeys([user, item, *hists], _COLUMNS))
    what = {name: f"column {name!r} of {part}" for name in [*names, *hists, *lengths_of] if name in columns}
    read = {name: (_histories if name in by_name else one_a_row)(what[name], columns[name]) for name in what}
    lengths = {name: len(values) for name, values in read.items()}
    if len(set(lengths.values())) > 1:
        raise problem(f"the columns of {part}", "have the same number of rows", lengths)
    users = check_ids(what[user], read[user], 0, x.num_users, remedy=_IDS)
    items = check_ids(what[item], read[item], 0, x.num_items, remedy=_IDS)
    for hist in hists:
        history, length = read[hist], f"hist_len{by_name[hist].suffix}"
        check_ids(what[hist], history.ravel(), 0, x.num_items, remedy=_IDS, dtype=history.dtype)
        if length in read:
            # The input does not say whether a model reads an id beyond the length.
            beyond = np.count_nonzero(history, axis=1) > check_ids(what[length], read[length], 0)
            if beyond.any():
                got = f"more in row {beyond.argmax()}"
                raise problem(what[hist], f"have no more ids in a row than {length!r} says", got, "0 is padding.")
    targets, known = _targets(part, events, users, items, None if time is None else (what[time], read[time]))
    return Part(part, users, items, [(by_name[hist], read[hist]) for hist in hists], targets, known)


def _targets(part: str, events: Events, users: np.ndarray, items: np.ndarray, time: Any) -> tuple[Any, Any]:
    """The row of the interactions that each target is, and whether it is known.

    Args:
        part, events: The part and the events.
        users, items: Of the targets, (B,).
        time: What the column of times is called, and its values. None: they are not given.
    """
    moments = None
    if time is not None and len(users):
        times = time_values(*time)
        if (times.dtype.kind == "M") != (events.times.dtype.kind == "M"):
            raise problem("the times", "be all numbers or all datetimes", f"{times.dtype} and {events.times.dtype}")
        moments = place_of(events.times, times)
    rows, found = np.zeros(len(users), np.int64), np.zeros(len(users), np.int64)
    for kind in events.target_kinds.tolist():
        first = events.find(users, items, kind)
        end = events.ends[first]
        if moments is not None:
            first, end = events.at(first, moments), events.at(first, moments + 1)
        is_one = end > first
        rows[is_one] = events.rows[end[is_one] - 1]
        # Events that have the same time, too, count as one.
        found += is_one if moments is not None else end - first
    missing = (found == 0) & (users > 0) & (items > 0)
    if missing.any():
        row = int(missing.argmax())
        got = f"{missing.sum()} that are none, the first in row {row}: user {users[row]}, item {items[row]}"
        remedy = "Give rows of true events alone, with the ids and times of the interactions."
        which = "" if events.interactions.kinds is None else " of the kinds that are to be predicted"
        raise problem(f"the targets of {part}", f"be events of the interactions{which}", got, remedy)
    # Without times, it is unknown which of several events a target is.
    return rows, found == 1


def _histories(what: str, values: Any) -> np.ndarray:
    """(B, T), 0 is padding, of such an array or of lists."""
    history = array_of(what, values)
    if isinstance(history, Lists):
        if history.missing.any():
            raise problem(what, "have a list in every row", f"none in row {int(history.missing.argmax())}")
        history = (
            history.padded(int(history.lengths.max())) if len(history.values) else np.zeros((len(history), 1), int)
        )
    if history.ndim != 2 or not history.shape[1]:
        raise problem(what, "be (B, T), a history in each row", f"shape {history.shape}")
    return history


def place_of(values: np.ndarray, sought: np.ndarray) -> np.ndarray:
    """The first place of each sought value in a sorted array, the array's length where it is not in there."""
    places = np.searchsorted(values, sought)
    return np.where(values.take(places, mode="clip") == sought, places, len(values))
