"""Which events a model learns from, which are used to choose its settings, and which to evaluate it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import (
    as_text,
    as_texts,
    instance_of,
    int_at_least,
    listing,
    no_duplicates,
    positive_int,
    problem,
    shown,
    warn_caller,
)
from deepmatch_ext._frames import FRAMES, columns_of, is_frame, one_a_row, require_columns
from deepmatch_ext.data.ids import own, raw_values, read_only
from deepmatch_ext.data.interactions import Interactions, same_events, tied_rows
from deepmatch_ext.data.kinds import check_targets

_ISO = re.compile(r"\d{4}(-?\d\d){0,2}($|[ T]\d)")
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Split:
    """Target rows for training, validation and test, with no row in two of them.

    A part lists rows as targets. A target's history is everything that the user did before it, in any part; with
    sessions, only what came before it in the same session. With kinds of events, targets are of the kinds that are to
    be predicted; all other events are in histories only.

    :func:`leave_last_out` and :func:`split_by_time` make splits. If the data are already split, use :meth:`from_frame`,
    for a column that says which part each event belongs to, or :meth:`from_frames`.

    Args:
        interactions: The table that the row numbers point into.
        train: Row numbers, kept as sorted int64, read-only.
        validation: Row numbers, likewise.
        test: Row numbers, likewise.

    Raises:
        ValueError: A row number out of range or of a kind that is not to be predicted, or the same row twice.
    """

    interactions: Interactions
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def __post_init__(self) -> None:
        instance_of("`interactions`", self.interactions, Interactions)
        used = np.zeros(len(self.interactions), bool)
        for name in PARTS:
            given = check_targets(f"`{name}`", getattr(self, name), self.interactions.kinds, len(self.interactions))
            is_sorted = (given[1:] > given[:-1]).all()  # then nothing of that size has to be made
            rows = given if is_sorted else np.unique(given)
            if len(rows) < len(given) or used[rows].any():
                raise problem(f"`{name}`", "hold each row once, and none of another part", "a repeated row")
            used[rows] = True
            object.__setattr__(self, name, own(rows))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.interactions, self.train, self.validation, self.test)

    @classmethod
    def from_frame(cls, frame: Any, part: str, **columns: Any) -> Split:
        """The split given by a column of a frame, and the interactions of all events in the frame.

        Warns if events of validation or test come before an event of an earlier part of the same user (or session):
        they are then in histories that training reads, as in a random split. :func:`find_leaks` gives the details.
        Warns, too, if they are events of an earlier part: of the same user, item, time and kind.

        Args:
            frame: Events in any order, as for :meth:`Interactions.from_frame`.
            part: The column that says which part an event belongs to: "train", "validation" or "test".
            columns: The arguments of :meth:`Interactions.from_frame`: ``user``, ``item``, ``time`` and so on.

        Returns:
            The split; its ``interactions`` hold all events. With kinds, events of kinds that are not to be predicted
            are in histories only. With sessions, the first event of a session is not a target of validation or test, as
            in :func:`split_by_time`.

        Raises:
            ImportError: The frame is not a pandas DataFrame, and pyarrow is not installed.
            ValueError: What :meth:`Interactions.from_frame` refuses, a part of another name, or no target to train on,
                or to validate or test on.

        Example:
            >>> frame = pd.DataFrame({"user_id": 1, "item_id": [7, 8, 9], "timestamp": [1, 2, 3]})
            >>> split = Split.from_frame(frame.assign(fold=["train", "train", "test"]), part="fold")
            >>> split.train.tolist(), split.test.tolist()
            ([0, 1], [2])
        """
        if not is_frame(frame):
            raise problem("`frame`", f"be {FRAMES}", type(frame).__name__)
        part, names = as_text("`part`", part), _names_of_columns(columns)
        no_duplicates("the columns of the events and the part", [*names, part])
        given = columns_of("`frame`", frame, [*names, part])
        require_columns(given, [*names, part], "the frame", {})
        values = raw_values(f"column {part!r}", _series(part, given[part]))
        codes = np.full(len(values), -1, np.int8)
        for code, name in enumerate(PARTS):
            codes[values == name] = code
        if (codes < 0).any():
            got = listing(pd.unique(values[codes < 0]))
            remedy = f"frame[{part!r}].replace({{...}}) gives them these names."
            raise problem(f"column {part!r}", f"hold {listing(list(PARTS))}", got, remedy)
        return _given(cls, {name: _series(name, given[name]) for name in names}, codes, columns)

    @classmethod
    def from_frames(cls, frames: Mapping[str, Any], **columns: Any) -> Split:
        """The split whose parts are separate frames, and the interactions of all of their events.

        Args:
            frames: {"train": frame, "validation": frame, "test": frame}, train and at least one other, each as for
                :meth:`Interactions.from_frame`. Events of one user at one time are in the order of the parts.
            columns: The arguments of :meth:`Interactions.from_frame`: ``user``, ``item``, ``time`` and so on.

        Returns:
            As for :meth:`from_frame`, with its warnings.

        Raises:
            ImportError: A frame is not a pandas DataFrame, and pyarrow is not installed.
            ValueError: As for :meth:`from_frame`.

        Example:
            >>> train = pd.DataFrame({"user_id": 1, "item_id": [7, 8], "timestamp": [1, 2]})
            >>> test = pd.DataFrame({"user_id": 1, "item_id": [9], "timestamp": [3]})
            >>> split = Split.from_frames({"train": train, "test": test})
            >>> split.train.tolist(), split.test.tolist()
            ([0, 1], [2])
        """
        names = _names_of_columns(columns)
        parts = list(frames) if isinstance(frames, Mapping) else []
        if "train" not in parts or len(parts) < 2 or not set(parts) <= set(PARTS):
            got = listing(parts) if parts else shown(frames)
            raise problem("`frames`", "be frames by the names 'train' and 'validation' or 'test' or both", got)
        of_parts = []
        for name in [name for name in PARTS if name in parts]:
            what = f"`frames`[{name!r}]"
            if not is_frame(frames[name]):
                raise problem(what, f"be {FRAMES}", type(frames[name]).__name__)
            given = columns_of(what, frames[name], names)
            require_columns(given, names, what, {})
            of_parts.append({column: _series(column, given[column]) for column in names})
        joined = {column: pd.concat([of[column] for of in of_parts], ignore_index=True) for column in names}
        sizes = [len(of[names[0]]) for of in of_parts]
        codes = np.repeat(np.array([PARTS.index(name) for name in PARTS if name in parts], np.int8), sizes)
        return _given(cls, joined, codes, columns)

    def train_targets(self, min_history: int = 1) -> np.ndarray:
        """The train rows with at least ``min_history`` events in their histories, int64, sorted.

        Args:
            min_history: 1 leaves out the first event of each session or user, for which a sequence model has no input.

        Raises:
            ValueError: ``min_history`` is not an integer of at least 0.

        Example:
            >>> split = leave_last_out(Interactions.from_sequences([0, 4, 6], [1, 2, 3, 4, 1, 2]))
            >>> split.train.tolist(), split.train_targets().tolist()
            ([0, 1, 4, 5], [1, 5])
        """
        int_at_least("`min_history`", min_history, 0)
        return self.train[self.interactions.history_lengths[self.train] >= min_history]

    def sequence_targets(self, max_len: int) -> np.ndarray:
        """The fewest train rows whose windows have each train event with a history as a target once, int64, sorted.

        For models that are trained at every position of a history, such as :func:`~deepmatch_ext.SASRec`: a row of
        history length T trains up to T predictions, that of its own item and those of all items in its history but the
        oldest. Each user's (or session's) last train event is such a row, and so is every T-th one before it.

        Args:
            max_len: T, the history length of the rows' windows.

        Raises:
            ValueError: There are several kinds of events, or an event of validation or test stands before a train event
                of the same user or session: as part of a history, it would be trained on.

        Example:
            >>> split = leave_last_out(Interactions.from_sequences([0, 7, 9], [1, 2, 3, 4, 5, 6, 7, 1, 2]))
            >>> rows = split.sequence_targets(max_len=2)  # of targets in rows 4 and 3, 2 and 1, and 8
            >>> rows.tolist()
            [2, 4, 8]
        """
        length, x = positive_int("`max_len`", max_len), self.interactions
        if x.kinds is not None:
            remedy = "Make interactions of only the kind that is to be predicted, or train on train_targets()."
            raise problem("`interactions`", "have one kind of events", f"{len(x.kinds.names)}", remedy)
        positions = x.history_lengths[self.train]
        # Of each sequence, sorted as the rows are: its last train event, and how many train events it has.
        is_last = np.append(np.diff(x.sequences[self.train]) != 0, True) if len(positions) else np.zeros(0, bool)
        ends = np.flatnonzero(is_last)
        missing = positions[ends] + 1 - np.diff(np.append(-1, ends))
        if (missing > 0).any():
            at = self.train[ends[np.argmax(missing > 0)]]
            rule = "hold, of each user or session, the first events up to some place"
            user = x.user_ids.decode(x.users[at : at + 1])
            got = f"{x.user_name} {listing(user)}, of whose events others stand before row {at}"
            raise problem("`train`", rule, got, "train_targets() trains each event as the target of a row of its own.")
        return self.train[
            (positions >= 1) & ((np.repeat(positions[ends], np.diff(np.append(-1, ends))) - positions) % length == 0)
        ]


_ROLES = {"user": "user_id", "item": "item_id", "time": "timestamp", "session": None, "kind": None}


def _names_of_columns(columns: Mapping[str, Any]) -> list[str]:
    """The columns that arguments of :meth:`Interactions.from_frame` name."""
    roles = {role: columns.get(role, usual) for role, usual in _ROLES.items()}
    named = [as_text(f"`{role}`", name) for role, name in roles.items() if name is not None]
    return [*dict.fromkeys([*named, *as_texts("`side`", columns.get("side", ()))])]


def _series(name: str, column: Any) -> pd.Series:
    """A column of any frame as pandas's, which knows what is missing, with the index 0, 1, ..."""
    if isinstance(column, pd.Series):
        return column.reset_index(drop=True)
    return pd.Series(one_a_row(f"column {name!r}", column))


def _given(cls: type[Split], events: dict[str, pd.Series], codes: np.ndarray, columns: Mapping[str, Any]) -> Split:
    """The split of events whose parts have the numbers ``codes``, (n,)."""
    code = "part of the split"
    while code in events:
        code += "_"
    side = [*as_texts("`side`", columns.get("side", ())), code]
    x = Interactions.from_frame(pd.DataFrame({**events, code: codes}), **{**columns, "side": side})
    of_rows = x.side[code]
    x = replace(x, side={name: values for name, values in x.side.items() if name != code})
    is_target = [x.is_target, x.is_target, x.is_target]
    if x.sessions is not None:
        is_target[1:] = [x.is_target & (x.history_lengths > 0)] * 2
    rows = [np.flatnonzero((of_rows == number) & of) for number, of in enumerate(is_target)]
    if not len(rows[0]) or not len(rows[1]) + len(rows[2]):
        got = ", ".join(f"{len(of)} of {name}" for name, of in zip(PARTS, rows, strict=True))
        raise problem("the parts", "hold targets to train on, and others to validate or test on", got)
    split = cls(x, *map(read_only, rows))
    _warn_of_order(split)
    _warn_of_copies(split)
    return split


def _warn_of_order(split: Split) -> None:
    """Warns of held-out targets that are in histories of an earlier part."""
    x, found = split.interactions, []
    for earlier, held in combinations(PARTS, 2):
        rows, targets = getattr(split, held), getattr(split, earlier)
        last = np.full(len(x.starts), -1, np.int64)  # of each sequence, its last target of the earlier part
        np.maximum.at(last, x.sequences[targets], targets)
        early = rows[rows < last[x.sequences[rows]]]
        if len(early):
            user, item = x.user_ids.decode(x.users[early[:1]]), x.item_ids.decode(x.items[early[:1]])
            example = f"row {early[0]}, {x.user_name} {listing(user)}, {x.item_name} {listing(item)}"
            found.append(f"{len(early)} of {len(rows)} of {held} before one of {earlier}, such as {example}")
    if found:
        which = "user" if x.sessions is None else "session"
        warn_caller(
            f"Held-out events come before others of the same {which}, whose histories hold them: {'; '.join(found)}. "
            "leave_last_out() and split_by_time() hold out what is last; find_leaks() says more of this split.",
            UserWarning,
        )


def _warn_of_copies(split: Split) -> None:
    """Warns of held-out targets that an earlier part has, too: of the same user, item, time and kind."""
    x, found = split.interactions, []
    if x.times is None:
        return
    tied = tied_rows(x)
    numbers = np.full(len(x), -1)
    numbers[tied] = same_events(x, tied)
    for earlier, held in combinations(PARTS, 2):
        rows = getattr(split, held)
        again = rows[(numbers[rows] >= 0) & np.isin(numbers[rows], numbers[getattr(split, earlier)])]
        if len(again):
            user, item = x.user_ids.decode(x.users[again[:1]]), x.item_ids.decode(x.items[again[:1]])
            example = f"{x.user_name} {listing(user)}, {x.item_name} {listing(item)}, time {x.times[again[0]]}"
            found.append(f"{len(again)} of {len(rows)} of {held} are in {earlier}, too, such as {example}")
    if found:
        warn_caller(
            f"Held-out events are known from an earlier part: {'; '.join(found)}. Unless they happened twice, drop "
            "them from one of the two, or figures are too high.",
            UserWarning,
        )


def leave_last_out(interactions: Interactions, min_interactions: int = 3) -> Split:
    """Tests on each user's last event, validates on the one before it, and trains on all earlier ones.

    With kinds of events, only those that are to be predicted are counted and split. All others are only in histories.

    Args:
        interactions: The events.
        min_interactions: All events of a user with fewer events than this are in train. At least 3, so that each user
            in the evaluation is also trained on.

    Returns:
        The `Split`, whose parts are row numbers of the interactions.

    Raises:
        ValueError: ``min_interactions`` is below 3, no user has that many events, or there are sessions.

    Example:
        >>> split = leave_last_out(Interactions.from_sequences([0, 4, 6], [1, 2, 3, 4, 1, 2]))
        >>> split.train.tolist(), split.validation.tolist(), split.test.tolist()
        ([0, 1, 4, 5], [2], [3])
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    int_at_least("`min_interactions`", min_interactions, 3)
    if interactions.sessions is not None:
        remedy = "split_by_time() tests on later sessions, as a whole."
        raise problem("`interactions`", "have no sessions", "sessions", remedy)
    targets, ends = np.arange(len(interactions)), interactions.indptr
    if interactions.kinds is not None:
        targets = np.flatnonzero(interactions.is_target)
        ends = np.searchsorted(targets, interactions.indptr)
    counts = np.diff(ends)
    last = ends[1:][counts >= min_interactions] - 1
    if not len(last):
        which = "" if interactions.kinds is None else " that are to be predicted"
        got = f"{int(counts.max())} events of one user at most"
        raise problem("`interactions`", f"have a user with at least {min_interactions} events{which}", got)
    train = np.ones(len(targets), bool)
    train[last] = train[last - 1] = False
    return Split(interactions, train=read_only(targets[train]), validation=targets[last - 1], test=targets[last])


def split_by_time(interactions: Interactions, validation_from: Any, test_from: Any) -> Split:
    """Trains on the events before a point in time, and validates and tests on those after it, as a live system would.

    Users and items that first appear after that time are kept: their train count is 0. With kinds of events, only those
    that are to be predicted are targets.

    Sessions stay whole: the time of its last event decides which part a session belongs to, so training knows no event
    after the point in time. The first event of a session has no history, so it is not a target of validation or test.

    Args:
        interactions: The events, with times.
        validation_from: The time at which validation starts: a number, or for datetimes what pd.Timestamp takes, as
            text in ISO 8601. Times that had a time zone are kept in UTC, and a value without a zone is read as UTC:
            give it with its zone. Where times had no zone, it must have none either.
        test_from: The time at which test starts, later than ``validation_from``.

    Returns:
        The `Split`, whose parts are row numbers of the interactions.

    Raises:
        ValueError: No times, moments that do not fit them or are not in order, or nothing left to train or test on.

    Example:
        >>> interactions = Interactions.from_sequences([0, 2, 4], [1, 2, 1, 3], times=[10, 30, 20, 25])
        >>> split = split_by_time(interactions, validation_from=20, test_from=30)
        >>> split.train.tolist(), split.validation.tolist(), split.test.tolist()
        ([0], [2, 3], [1])
    """
    times = instance_of("`interactions`", interactions, Interactions).times
    if times is None:
        raise problem("`interactions`", "have times", "times=None", "leave_last_out() needs the order of events alone.")
    start, end = two_moments(validation_from, test_from, times, interactions.has_zone)
    targets, times, has_history = timed_targets(interactions, times)
    if not len(targets):
        raise problem("`interactions`", "have events that are to be predicted", "none")
    first, last = times.min(), times.max()
    if first >= start:
        raise problem("`validation_from`", f"leave rows to train on, so be later than {first}", repr(validation_from))
    if last < end:
        raise problem("`test_from`", f"leave rows to test on, so be at most {last}", repr(test_from))
    return Split(
        interactions,
        train=read_only(targets[times < start]),
        validation=read_only(targets[(times >= start) & (times < end) & has_history]),
        test=read_only(targets[(times >= end) & has_history]),
    )


def timed_targets(interactions: Interactions, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The events to be predicted, with the times that put them in a part, and which of them validation or test may use.

    With sessions, the time is that of the session's last event, and a session's first event is for training alone.

    Args:
        interactions: The events.
        times: Theirs.
    """
    targets = np.flatnonzero(interactions.is_target)
    if interactions.sessions is None:
        return targets, times[targets], np.ones(len(targets), bool)
    begins = np.flatnonzero(interactions.position == 0)
    number = np.diff(np.append(begins, len(times)))
    of_sessions = np.repeat(times[begins + number - 1], number)
    return targets, of_sessions[targets], interactions.history_lengths[targets] > 0


def two_moments(validation_from: Any, test_from: Any, times: np.ndarray, has_zone: bool | None) -> tuple[Any, Any]:
    """Both as `moment`, the first one the earlier."""
    start = moment("`validation_from`", validation_from, times, has_zone)
    end = moment("`test_from`", test_from, times, has_zone)
    if not start < end:
        raise problem("`validation_from`", "be earlier than `test_from`", f"{validation_from!r} and {test_from!r}")
    return start, end


def moment(what: str, value: Any, times: np.ndarray, has_zone: bool | None = None) -> Any:
    """``value`` in the unit of ``times``; ``has_zone`` says whether these had a time zone, if that is known."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.timedelta64)
    if times.dtype.kind != "M":
        if not is_number or value != value:
            raise problem(what, "be a number, as the times are", repr(value))
        return value
    is_other_text = isinstance(value, str) and not _ISO.match(value)  # pandas would read 03.04.2026 as 4 March
    try:
        moment = None if is_number or is_other_text else pd.Timestamp(value)
    except (ValueError, TypeError):
        moment = None
    if moment is None or pd.isna(moment):
        raise problem(what, "be a datetime, as the times are, or text such as 2026-11-26 09:30", repr(value))
    if has_zone is False and moment.tzinfo is not None:
        raise problem(what, "have no time zone, as the times of the events", repr(value))
    return (moment if moment.tzinfo is None else moment.tz_convert("UTC").tz_localize(None)).to_datetime64()
