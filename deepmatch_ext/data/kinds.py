"""Kinds of events, such as clicks and purchases: which are to be predicted, and the history of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from deepmatch_ext._arrays import check_ids
from deepmatch_ext._checks import as_list, as_text, instance_of, listing, no_duplicates, problem, shown
from deepmatch_ext.data.ids import IdMap, own, read_only


@dataclass(frozen=True, eq=False)
class Kinds:
    """The kind of each event, and the kinds that are to be predicted; a part of :class:`Interactions`.

    Args:
        values: The number of each row's kind, from 1, (n,).
        ids: The map from raw kinds, such as "click", to these numbers.
        targets: The raw kinds that are to be predicted: one, or a list.
        name: The name of the column of kinds.

    Raises:
        ValueError: A number is not in the map, or ``targets`` are unknown, repeated or empty.

    Example:
        >>> kinds = Kinds(np.array([1, 1, 2]), IdMap(["click", "purchase"]), "purchase")
        >>> kinds.is_target.tolist()
        [False, False, True]
    """

    values: np.ndarray = field(repr=False)
    ids: IdMap
    targets: tuple[Any, ...]
    name: str = "kind"

    def __post_init__(self) -> None:
        instance_of("`ids` of kinds", self.ids, IdMap)
        as_text("`name` of kinds", self.name)
        values = check_ids(f"the kinds in column {self.name!r}", self.values, 1, len(self.ids), dtype=np.int32)
        object.__setattr__(self, "values", own(values))
        targets, known = as_targets(self.targets), self.ids.values.tolist()
        for target in targets:
            if target not in known:
                rule = f"name kinds in column {self.name!r}, which are {listing(known, 10)}"
                raise problem("`targets`", rule, shown(target))
        object.__setattr__(self, "targets", tuple(targets))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.values, self.ids, self.targets, self.name)

    @property
    def names(self) -> list[str]:
        """Each kind's suffix in the names of columns, after an underscore, in the order of the kinds' numbers."""
        return [str(raw) for raw in self.ids.values.tolist()]

    @cached_property
    def target_numbers(self) -> np.ndarray:
        """The numbers of the kinds that are to be predicted."""
        return self.ids.encode(np.array(self.targets, self.ids.values.dtype))

    @cached_property
    def is_target(self) -> np.ndarray:
        """Which rows are events that are to be predicted, (n,) bool."""
        chosen = np.zeros(self.ids.vocabulary_size, bool)
        chosen[self.target_numbers] = True
        return read_only(chosen[self.values])

    @cached_property
    def target_rows(self) -> np.ndarray:
        """The rows of events that are to be predicted, ascending."""
        return read_only(np.flatnonzero(self.is_target))


def as_targets(values: Any) -> list[Any]:
    """The raw kinds that are to be predicted, one or several, as a list of Python's integers or strings."""
    rule = "be a kind that is to be predicted, or a list of them"
    kinds = str | int | np.integer
    targets = [values] if isinstance(values, kinds) else as_list("`targets`", rule, values)
    if not targets:
        raise problem("`targets`", rule, "none")
    for target in targets:
        if isinstance(target, bool | np.bool_) or not isinstance(target, kinds):
            raise problem("`targets`", rule, shown(target))
    no_duplicates("`targets`", [str(target) for target in targets])
    return [str(target) if isinstance(target, str) else int(target) for target in targets]


@dataclass(frozen=True, eq=False)
class History:
    """The events from which histories are made: those of one kind, or all.

    The history of row r is ``rows[starts[s]:ends[r]]``, oldest first, where s is the row's sequence.

    Args:
        kind: The number of the kind; 0 if there are no kinds.
        suffix: The ending of its columns' names, such as "_click", or "".
        rows: The rows of the kind, (m,), sorted. None: all rows.
        starts: The position in ``rows`` at which each sequence begins.
        ends: The position in ``rows`` at which each row's history ends, (n,). None: at the row itself.
    """

    kind: int
    suffix: str
    rows: Any
    starts: np.ndarray
    ends: Any

    def of(self, values: np.ndarray) -> np.ndarray:
        """The values of its rows, (m,)."""
        return values if self.rows is None else values[self.rows]

    def end(self, rows: np.ndarray) -> np.ndarray:
        """Where the histories of some rows end, int64."""
        return rows if self.ends is None else self.ends[rows].astype(np.int64)

    def place(self, rows: np.ndarray) -> np.ndarray:
        """How many of its rows come before each of some rows of the table."""
        return rows if self.rows is None else np.searchsorted(self.rows, rows)


def histories_of(kinds: Kinds | None, sequences: np.ndarray, starts: np.ndarray, times: Any) -> tuple[History, ...]:
    """The histories of interactions with these columns: one for each kind, or one if there are no kinds.

    Events of a row's own kind are in its history if they come before it, as without kinds. Events of another kind are
    in it only if their time is earlier. At the same time, they are often a second record of the row's own event; and if
    a table was joined from one table for each kind, the order of its rows does not say which event came first.
    """
    if kinds is None:
        return (History(0, "", None, starts, None),)
    number = len(sequences)
    dtype = np.int32 if number < 2**31 else np.int64
    every = np.arange(number, dtype=dtype)
    first = every  # of the rows with the same sequence and time
    if times is not None:
        begins = np.ones(number, bool)
        begins[1:] = (sequences[1:] != sequences[:-1]) | (times[1:] != times[:-1])
        first = np.maximum.accumulate(np.where(begins, every, 0))
    found = []
    for kind, name in enumerate(kinds.names, start=1):
        is_kind = kinds.values == kind
        before = np.append(0, np.cumsum(is_kind, dtype=dtype)).astype(dtype)  # rows of the kind among the first r
        ends = before[np.where(is_kind, every, first)]
        rows = np.flatnonzero(is_kind)
        found.append(History(kind, f"_{name}", read_only(rows), read_only(before[starts]), read_only(ends)))
    return tuple(found)


def check_targets(what: str, rows: Any, kinds: Kinds | None, number: int) -> np.ndarray:
    """``rows`` as numbers of rows that are to be predicted, int64."""
    rows = check_ids(what, rows, 0, number - 1)
    if kinds is not None and not kinds.is_target[rows].all():
        others = rows[~kinds.is_target[rows]]
        rule = f"be rows of the kinds that are to be predicted, {listing(list(kinds.targets))}"
        kind = listing(kinds.ids.decode(kinds.values[others[:1]]))
        got = f"{len(others)} of other kinds, such as row {others[0]} of {kind}"
        raise problem(what, rule, got, "np.flatnonzero(interactions.is_target) are all allowed rows.")
    return rows
