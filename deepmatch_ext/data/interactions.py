"""Who took what, and when: the one table that everything else is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import check_ids
from deepmatch_ext._checks import as_flag, as_text, as_texts, instance_of, listing, no_duplicates, problem, shown
from deepmatch_ext._frames import FRAMES, columns_of, is_frame, one_a_row, require_columns
from deepmatch_ext.data.ids import IdMap, own, raw_values, read_only, require_exact
from deepmatch_ext.data.kinds import History, Kinds, histories_of
from deepmatch_ext.data.user_features import read_user_features

ZONE = r"[ T].*(?:Z|[+-]\d\d(?::?\d\d)?)$"  # of text in ISO 8601


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events of users with items, sorted by user, then by time; simultaneous events keep the order of their source.

    Use :meth:`from_frame` or :meth:`from_sequences`. The constructor itself takes columns that are already sorted, and
    checks them. All arrays are read-only; writable ones are copied, so your arrays are neither frozen nor shared.

    Args:
        users: User ids from 1, (n,), ascending.
        items: Item ids from 1, (n,).
        times: Numbers or datetime64, (n,), ascending within a user. None: only the order of the rows is known.
        side: Other numeric columns by name, (n,) each, such as a rating or the day of the week.
        user_ids: The map from raw user ids to ``users``.
        item_ids: The map from raw item ids to ``items``.
        user_name: The name of the user column in a model's input.
        item_name: The name of the item column in a model's input.
        sessions: Session numbers from 1, (n,), ascending; each session belongs to one user and has ascending times. A
            sequence is then a session instead of all events of a user: histories go back only to the start of the
            session, and its items may be recommended again. None: there are no sessions.
        kinds: The kind of each event, and which kinds are to be predicted. Each kind then has a history of its own.
            None: all events are of one kind.
        user_features: Features of users, name -> values by user id, (num_users + 1, ...), 0 for id 0.
            :meth:`with_user_features` makes them from a frame.
        has_zone: True: ``times`` had a time zone (they are kept in UTC). False: they had none. None: this is unknown,
            or they are numbers. The times of later events must match it.
        session_ids: The raw id of each session, (the last session's number,), integers or strings. Two users may have
            the same one. None: the numbers are the raw ids. Without sessions they are left out.

    Raises:
        ValueError: No rows, columns of different lengths, ids outside the maps, rows out of order, times that are
            missing or infinite.

    Example:
        >>> frame = pd.DataFrame({"user_id": ["b", "a", "b"], "item_id": [7, 7, 5], "timestamp": [30, 20, 10]})
        >>> interactions = Interactions.from_frame(frame)
        >>> interactions.users.tolist(), interactions.items.tolist(), interactions.times.tolist()
        ([1, 2, 2], [2, 1, 2], [20, 10, 30])
        >>> interactions.position.tolist(), interactions.indptr.tolist()
        ([0, 0, 1], [0, 0, 1, 3])
    """

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray | None
    side: Mapping[str, np.ndarray] = field(repr=False)
    user_ids: IdMap = field(repr=False)
    item_ids: IdMap = field(repr=False)
    user_name: str = "user_id"
    item_name: str = "item_id"
    sessions: np.ndarray | None = field(default=None, repr=False)
    kinds: Kinds | None = None
    user_features: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    has_zone: bool | None = field(default=None, repr=False)
    session_ids: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for which in ("user", "item"):
            instance_of(f"`{which}_ids`", getattr(self, f"{which}_ids"), IdMap)
            as_text(f"`{which}_name`", getattr(self, f"{which}_name"))
        if not isinstance(self.side, Mapping):
            raise problem("`side`", "map names to columns", shown(self.side))
        users = _ids("`users`", self.users, len(self.user_ids))
        items = _ids("`items`", self.items, len(self.item_ids))
        of_kinds = [] if self.kinds is None else [instance_of("`kinds`", self.kinds, Kinds).name]
        no_duplicates("the names of interactions", [self.user_name, self.item_name, *of_kinds, *self.side])
        given = [("items", items), ("times", self.times), ("sessions", self.sessions), *self.side.items()]
        given += [] if self.kinds is None else [(self.kinds.name, self.kinds.values)]
        for name, column in given:
            if column is not None and np.shape(column) != users.shape:
                rule = f"have one value a row, shape {users.shape}"
                raise problem(f"column {name!r}", rule, f"shape {np.shape(column)}")
        same = users[1:] == users[:-1]
        if (users[1:] < users[:-1]).any():
            raise problem("`users`", "be sorted", "a smaller id after a larger one", "Interactions.from_frame() sorts.")
        if self.sessions is not None:
            sessions = check_ids("`sessions`", self.sessions, 1, dtype=np.int32)
            goes_on = sessions[1:] == sessions[:-1]
            if (sessions[1:] < sessions[:-1]).any() or (goes_on & ~same).any():
                rule, got = "be sorted, and each be of one user", "a smaller number after a larger one, or of two users"
                raise problem("`sessions`", rule, got, "Interactions.from_frame() sorts.")
            same &= goes_on
            object.__setattr__(self, "sessions", own(sessions))
            object.__setattr__(self, "session_ids", self._checked_session_ids())
        else:
            object.__setattr__(self, "session_ids", None)
        if self.times is not None:
            times = time_values("`times`", self.times)
            if (same & (times[1:] < times[:-1])).any():
                each, remedy = "user" if self.sessions is None else "session", "Interactions.from_frame() sorts."
                raise problem("`times`", f"be sorted within each {each}", "an earlier time after a later one", remedy)
            object.__setattr__(self, "times", own(times))
        side = {name: own(_numbers(f"column {name!r}", column)) for name, column in self.side.items()}
        object.__setattr__(self, "users", own(users))
        object.__setattr__(self, "items", own(items))
        object.__setattr__(self, "side", MappingProxyType(side))
        object.__setattr__(self, "user_features", MappingProxyType(self._checked_features()))

    def _checked_session_ids(self) -> np.ndarray:
        assert self.sessions is not None
        number = int(self.sessions[-1])
        if self.session_ids is None:
            return read_only(np.arange(1, number + 1))
        ids = raw_values("`session_ids`", self.session_ids)
        if len(ids) != number:
            raise problem("`session_ids`", f"have one a session, {number}", f"{len(ids)}")
        return own(ids)

    def _checked_features(self) -> dict[str, np.ndarray]:
        if not isinstance(self.user_features, Mapping):
            raise problem("`user_features`", "map names to values by user id", shown(self.user_features))
        no_duplicates(
            "the names of user, item and user features", [self.user_name, self.item_name, *self.user_features]
        )
        features = {}
        for name, values in self.user_features.items():
            features[as_text("a name in `user_features`", name)] = values = np.asarray(values)
            if values.shape[:1] != (self.user_vocabulary_size,) or values.dtype.kind not in "iufb":
                rule = f"be numbers by user id, {self.user_vocabulary_size} rows with that of id 0"
                raise problem(f"user feature {name!r}", rule, shown(values))
            if not np.isfinite(values).all():
                raise problem(f"user feature {name!r}", "be finite", "NaN or infinity among them")
        return {name: own(values) for name, values in features.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        columns = (self.users, self.items, self.times, dict(self.side), self.user_ids, self.item_ids)
        names = (self.user_name, self.item_name)
        others = (self.sessions, self.kinds, dict(self.user_features), self.has_zone, self.session_ids)
        return type(self), (*columns, *names, *others)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        user: str | None = "user_id",
        item: str = "item_id",
        time: str | None = "timestamp",
        side: Sequence[str] = (),
        user_ids: IdMap | None = None,
        item_ids: IdMap | None = None,
        *,
        session: str | None = None,
        kind: str | None = None,
        targets: Any = None,
        kind_ids: IdMap | None = None,
    ) -> Interactions:
        """Interactions from a frame with one row per event. The frame is not changed.

        Args:
            frame: Events in any order: a pandas or polars DataFrame, or an Arrow table.
            user: The column of raw user ids, integers or strings. None: the users of the sessions are unknown, and each
                session is a user of its own.
            item: The column of raw item ids, integers or strings.
            time: The column of times: numbers, datetimes, or text in the form 2026-11-26 09:30; those with a time zone
                are kept in UTC. None: the frame's order is the order of time.
            side: Numeric columns to keep: :func:`windows` can return their histories (``side``) or their values for the
                target (``context``), or use one as the target's weight.
            user_ids: A map made earlier; without it, the users of the frame are numbered.
            item_ids: A map made earlier; without it, the items of the frame are numbered.
            session: The column that tells a user's sessions apart, integers or strings. A user's sessions are in the
                order in which they end. None: there are no sessions.
            kind: The column of the kinds of events, such as "click" and "purchase"; strings or integers.
                Windows then have a history for each kind. None: all events are of one kind.
            targets: The kinds that are to be predicted, one or a list; a split has only rows of these kinds.
            kind_ids: A map of kinds made earlier; without it, the kinds of the frame are numbered.

        Raises:
            ImportError: The frame is not a pandas DataFrame, and pyarrow is not installed.
            ValueError: The frame is empty or lacks a column, a column has two roles, missing values or a type that
                does not fit its role, a time is infinite, or a given map does not know a user, an item or a kind; or
                one of ``kind`` and ``targets`` is given without the other, or ``targets`` are unknown kinds.

        Example:
            >>> columns = {"user_id": 1, "item_id": [7, 8, 7], "timestamp": [1, 2, 3], "event": ["see", "see", "buy"]}
            >>> interactions = Interactions.from_frame(pd.DataFrame(columns), kind="event", targets="buy")
            >>> interactions.is_target.tolist()
            [False, False, True]
        """
        if not is_frame(frame):
            raise problem("`frame`", f"be {FRAMES}", type(frame).__name__)
        side = as_texts("`side`", side)
        item, time = as_text("`item`", item), None if time is None else as_text("`time`", time)
        session = None if session is None else as_text("`session`", session)
        if user is None and session is None:
            raise problem("`user`", "name a column if there are no sessions", None)
        anonymous = user is None
        user = session if user is None else as_text("`user`", user)
        assert user is not None
        of_session = [] if session is None or anonymous else [session]
        kind = None if kind is None else as_text("`kind`", kind)
        if (kind is None) != (targets is None) or (kind is None and kind_ids is not None):
            rule = "be given together, and `kind_ids` only with them"
            raise problem("`kind` and `targets`", rule, f"{shown(kind)} and {shown(targets)}")
        of_kind = [] if kind is None else [kind]
        names = [user, *of_session, item, *([] if time is None else [time]), *of_kind, *side]
        no_duplicates("the columns user, session, item, time, kind and side", names)
        columns = columns_of("`frame`", frame, names)
        told = {name: f"Name it: {role}='...'." for role, name in (("user", user), ("item", item))}
        if time is not None:
            told[time] = "Name it, time='...', or say that the rows are in the order of time: time=None."
        require_columns(columns, names, "the frame", told)
        # A pandas column is kept, since it knows what is missing.
        given = {
            name: column if isinstance(column := columns[name], pd.Series) else one_a_row(f"column {name!r}", column)
            for name in names
        }
        if not len(given[user]):
            raise problem("`frame`", "have at least one row", "an empty frame")
        users, user_ids = _encoded(given[user], user, user_ids)
        items, item_ids = _encoded(given[item], item, item_ids)
        times = None if time is None else time_values(f"column {time!r}", given[time])
        # All sorts are stable: events of one user at one time keep the frame's order.
        sessions = session_ids = None
        if session is None:
            rows = np.argsort(users, kind="stable") if times is None else np.lexsort((times, users))
        else:
            which, raw = pd.factorize(raw_values(f"column {session!r}", given[session]))
            rows, sessions, session_ids = _by_session(users, which, raw, times)
        kinds = None
        if kind is not None:
            numbers, kind_ids = _encoded(given[kind], kind, kind_ids)
            kinds = Kinds(read_only(numbers[rows]), kind_ids, targets, kind)
        return cls(
            users=read_only(users[rows]),
            items=read_only(items[rows]),
            times=None if times is None else read_only(times[rows]),
            side={name: read_only(_numbers(f"column {name!r}", given[name])[rows]) for name in side},
            user_ids=user_ids,
            item_ids=item_ids,
            user_name=user,
            item_name=item,
            sessions=sessions,
            kinds=kinds,
            has_zone=None if time is None else has_zone(columns[time]),
            session_ids=session_ids,
        )

    def extended(self, frame: Any, *, time: str | None = "timestamp", session: str | None = None) -> Interactions:
        """These events together with those of ``frame``, such as the next day's; new users and items get new ids.

        Known users and items keep their ids, so a model of the new size (`RetrievalModel.extended`) reads old and new
        events.

        Args:
            frame: Events in any order, with the columns from which these events were read: `user_name`, `item_name`,
                `side`, and the column of kinds.
            time: The column of times. None if these events have no times; the frame's events then come last.
            session: The column of sessions, if these events have sessions. A session that a user has already goes on.

        Returns:
            New interactions. If events of one user have the same time, those of the frame come last. Features of new
            users are 0 until `with_user_features` is called again with those of all users.

        Raises:
            ValueError: As for `from_frame`; or only one of these events and the frame has times, has sessions, or has
                times in a time zone.

        Example:
            >>> frame = pd.DataFrame({"user_id": ["b", "a"], "item_id": [7, 5], "timestamp": [30, 20]})
            >>> tomorrow = pd.DataFrame({"user_id": ["a", "a"], "item_id": [9, 7], "timestamp": [50, 40]})
            >>> grown = Interactions.from_frame(frame).extended(tomorrow)
            >>> grown.users.tolist(), grown.item_ids.decode(grown.items).tolist(), grown.item_ids.values.tolist()
            ([1, 1, 1, 2], [5, 7, 9, 7], [5, 7, 9])
        """
        return extended_with_rows(self, frame, time, session)[0]

    @classmethod
    def from_sequences(
        cls,
        indptr: Any,
        items: Any,
        times: Any = None,
        user_name: str = "user_id",
        item_name: str = "item_id",
        *,
        sessions: bool = False,
    ) -> Interactions:
        """Interactions from sequences of items that are already numbered; ids and raw ids are the same numbers.

        Args:
            indptr: Sequence k, that of user k + 1, is ``items[indptr[k]:indptr[k + 1]]``; (number of users + 1,).
            items: Item ids from 1, oldest first within a user, (n,).
            times: Times of the events, (n,), or None. If they contradict the order of a sequence, the times decide.
            user_name: The name of the user column in a model's input.
            item_name: The name of the item column in a model's input.
            sessions: Whether each sequence is a session with a user of its own.

        Raises:
            ValueError: ``indptr`` does not rise from 0 to the number of items, an item id is below 1, or a time is
                missing or infinite.

        Example:
            >>> interactions = Interactions.from_sequences([0, 2, 3], [4, 1, 4])
            >>> interactions.users.tolist(), interactions.num_items
            ([1, 1, 2], 4)
        """
        bounds, items = np.asarray(indptr), np.asarray(items)
        if items.ndim != 1:
            raise problem("`items`", "be a list of item ids", f"shape {items.shape}")
        good = bounds.ndim == 1 and len(bounds) > 1 and bounds.dtype.kind in "iu"
        if not good or bounds[0] != 0 or bounds[-1] != len(items) or (bounds[1:] < bounds[:-1]).any():
            raise problem("`indptr`", f"rise from 0 to the number of items, {len(items)}", listing(np.ravel(bounds)))
        number_of_items = int(items.max()) if len(items) and items.dtype.kind in "iu" else 1
        bounds = bounds.astype(np.int64)
        users = np.repeat(np.arange(1, len(bounds), dtype=np.int32), bounds[1:] - bounds[:-1])
        zone = None
        if times is not None:
            given, times = times, time_values("`times`", times)
            zone = has_zone(given if isinstance(given, pd.Series) else pd.Series(given))
            if times.shape != items.shape:
                raise problem("`times`", f"have one value an item, {len(items)}", f"shape {times.shape}")
            rows = np.lexsort((times, users))
            items, times = read_only(items[rows]), read_only(times[rows])
        return cls(
            users=read_only(users),
            items=items,
            times=times,
            side={},
            user_ids=IdMap(np.arange(1, len(bounds))),
            item_ids=IdMap(np.arange(1, max(number_of_items, 1) + 1)),
            user_name=user_name,
            item_name=item_name,
            sessions=users if as_flag("`sessions`", sessions) else None,
            has_zone=zone,
        )

    def with_user_features(self, frame: Any) -> Interactions:
        """The same interactions with features of users, which windows and histories then contain as columns.

        Args:
            frame: One row for each user: a pandas or polars DataFrame, or an Arrow table. The raw user ids are in the
                column with the interactions' user name; a pandas DataFrame without that column has them as its index.
                All other columns are features: a number in each row, or a list of numbers, such as ids, padded with 0
                to the longest list. Users without events are left out. Convert text to numbers first, with an
                :class:`IdMap`.

        Returns:
            Interactions with these ``user_features`` instead of any former ones. Each feature is 0 for user id 0, an
            unknown user, like a model's ``item_features`` for item id 0.

        Raises:
            ImportError: The frame is not a pandas DataFrame, and pyarrow is not installed.
            ValueError: A user is repeated, a user with events is missing, a value is missing or not a number, or there
                is no feature.

        Example:
            >>> interactions = Interactions.from_sequences([0, 1, 3], [7, 8, 7])
            >>> known = pd.DataFrame({"user_id": [2, 1], "age": [30, 40]})
            >>> interactions.with_user_features(known).user_features["age"].tolist()
            [0, 40, 30]
        """
        has_rows = np.diff(self.indptr) > 0
        return replace(self, user_features=read_user_features(frame, self.user_name, self.user_ids, has_rows))

    def to_frame(self, time: str = "timestamp", session: str = "session_id") -> pd.DataFrame:
        """The events as a DataFrame with raw ids, one event per row, in the same order; `from_frame` reads it back.

        Args:
            time: The name of the column of times, if there are times.
            session: The name of the column of sessions, if there are sessions.

        Returns:
            The columns `user_name`, `item_name`, ``time`` (in UTC if the times had a time zone), ``session``, the
            column of kinds, and the side columns.

        Example:
            >>> Interactions.from_sequences([0, 2, 3], [4, 1, 4]).to_frame()
               user_id  item_id
            0        1        4
            1        1        1
            2        2        4
        """
        columns: dict[str, Any] = {
            self.user_name: self.user_ids.decode(self.users),
            self.item_name: self.item_ids.decode(self.items),
        }
        if self.times is not None:
            columns[time] = pd.Series(self.times).dt.tz_localize("UTC") if self.has_zone else self.times
        if self.sessions is not None and self.session_ids is not None:
            columns[session] = self.session_ids[self.sessions - 1]
        columns |= {} if self.kinds is None else {self.kinds.name: self.kinds.ids.decode(self.kinds.values)}
        return pd.DataFrame({**columns, **self.side})

    @cached_property
    def indptr(self) -> np.ndarray:
        """User u's rows are ``indptr[u]:indptr[u + 1]``; user 0 has none. int64, (num_users + 2,)."""
        return read_only(np.searchsorted(self.users, np.arange(self.user_vocabulary_size + 1)).astype(np.int64))

    @property
    def sequences(self) -> np.ndarray:
        """The number of each row's sequence, (n,): its session's if there are sessions, else its user's."""
        return self.users if self.sessions is None else self.sessions

    @cached_property
    def starts(self) -> np.ndarray:
        """Sequence s begins at row ``starts[s]``. int64, (the last sequence's number + 1,)."""
        if self.sessions is None:
            return self.indptr[:-1]
        return read_only(np.searchsorted(self.sessions, np.arange(self.sessions[-1] + 1)).astype(np.int64))

    @cached_property
    def position(self) -> np.ndarray:
        """The number of earlier rows of the same session or, without sessions, of the same user, int64, (n,)."""
        position = np.arange(len(self), dtype=np.int64)
        position -= self.starts[self.sequences]
        return read_only(position)

    @cached_property
    def histories(self) -> tuple[History, ...]:
        """The events from which histories are made: one entry for each kind of event, or one for all."""
        return histories_of(self.kinds, self.sequences, self.starts, self.times)

    @cached_property
    def history_lengths(self) -> np.ndarray:
        """The full number of events in each row's histories, int64, (n,); without kinds, the ``position``."""
        if self.kinds is None:
            return self.position
        of_kinds = [history.ends - history.starts[self.sequences] for history in self.histories]
        return read_only(np.asarray(np.sum(of_kinds, axis=0, dtype=np.int64)))

    @property
    def is_target(self) -> np.ndarray:
        """Which rows are to be predicted, (n,) bool: those of the target kinds, or all if there are no kinds."""
        return np.ones(len(self), bool) if self.kinds is None else self.kinds.is_target

    @property
    def num_users(self) -> int:
        """The number of users in the map, without padding; some may have no rows."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """The number of items in the map, without padding; some may have no rows."""
        return len(self.item_ids)

    @property
    def user_vocabulary_size(self) -> int:
        """Rows of a table of users, id 0 included."""
        return self.user_ids.vocabulary_size

    @property
    def item_vocabulary_size(self) -> int:
        """Rows of a table of items, id 0 included: V."""
        return self.item_ids.vocabulary_size

    def item_counts(self, rows: Any = None) -> np.ndarray:
        """How often each item occurs.

        Args:
            rows: The rows to count; None: all. Give a split's train rows, so that no held-out event leaks into the
                counts.

        Returns:
            int64, (V,), by item id; id 0 has count 0.

        Raises:
            ValueError: A row is out of range.

        Example:
            >>> interactions = Interactions.from_sequences([0, 2, 4], [1, 3, 1, 2])
            >>> interactions.item_counts().tolist(), interactions.item_counts(rows=[0, 2]).tolist()
            ([0, 2, 1, 1], [0, 2, 0, 0])
        """
        items = self.items if rows is None else self.items[check_ids("`rows`", rows, 0, len(self) - 1)]
        return np.bincount(items, minlength=self.item_vocabulary_size)

    def __len__(self) -> int:
        return len(self.users)


def extended_with_rows(
    events: Interactions, frame: Any, time: str | None, session: str | None = None
) -> tuple[Interactions, np.ndarray, np.ndarray]:
    """What `Interactions.extended` returns, and in it the rows of the former events, in their order, and the new."""
    for what, column, has in (("time", time, events.times), ("session", session, events.sessions)):
        if (column is None) != (has is None):
            rule = f"name the column of {what}s" if column is None else f"be None, as these events have no {what}s"
            raise problem(f"`{what}`", rule, shown(column))
    if not is_frame(frame):
        raise problem("`frame`", f"be {FRAMES}", type(frame).__name__)
    names = [events.user_name, events.item_name]
    columns = columns_of("`frame`", frame, names)
    require_columns(columns, names, "the frame", {})
    if not len(columns[names[0]]):
        raise problem("`frame`", "have at least one row", "an empty frame")
    user_ids, item_ids = (
        ids.extended(_of_kind(name, one_a_row(f"column {name!r}", columns[name]), ids))
        for name, ids in zip(names, (events.user_ids, events.item_ids), strict=True)
    )
    kinds, of_kind = events.kinds, dict[str, Any]()
    if kinds is not None:
        of_kind = {"kind": kinds.name, "targets": kinds.targets, "kind_ids": kinds.ids}
    user = None if names[0] == session else names[0]  # unknown: each session is a user of its own
    new = Interactions.from_frame(
        frame, user, names[1], time, [*events.side], user_ids, item_ids, session=session, **of_kind
    )
    check_same_zone(f"column {time!r}", events.has_zone, new.has_zone, "those of the events before")
    users = np.concatenate([events.users, new.users])
    times = None if events.times is None else _joined_times(time, events.times, new.times)
    sessions = session_ids = None
    if session is not None and events.sessions is not None and new.sessions is not None:
        assert events.session_ids is not None
        assert new.session_ids is not None
        _check_same_kind(session, new.session_ids, events.session_ids)
        of_each, raw = pd.factorize(np.concatenate([events.session_ids, new.session_ids]))
        numbers = np.concatenate([events.sessions, new.sessions + len(events.session_ids)])
        rows, sessions, session_ids = _by_session(users, of_each[numbers - 1], raw, times)
    else:
        rows = np.argsort(users, kind="stable") if times is None else np.lexsort((times, users))
    if kinds is not None and new.kinds is not None:
        kinds = replace(kinds, values=read_only(np.concatenate([kinds.values, new.kinds.values])[rows]))
    new_users = new.user_vocabulary_size - events.user_vocabulary_size
    both = replace(
        events,
        users=read_only(users[rows]),
        items=read_only(np.concatenate([events.items, new.items])[rows]),
        times=None if times is None else read_only(times[rows]),
        side={name: read_only(np.concatenate([column, new.side[name]])[rows]) for name, column in events.side.items()},
        user_ids=user_ids,
        item_ids=item_ids,
        sessions=sessions,
        kinds=kinds,
        user_features={
            name: np.concatenate([values, np.zeros((new_users, *values.shape[1:]), values.dtype)])
            for name, values in events.user_features.items()
        },
        has_zone=new.has_zone if events.has_zone is None else events.has_zone,
        session_ids=session_ids,
    )
    place = np.empty(len(rows), np.int64)
    place[rows] = np.arange(len(rows))
    return both, place[: len(events)], np.sort(place[len(events) :])


def tied_rows(events: Interactions) -> np.ndarray:
    """The rows that share their user and time with another one, ascending: only they can be the same event."""
    if events.sessions is not None:  # sorted by session, and a session may be another one's copy
        return np.arange(len(events))
    assert events.times is not None
    is_tie = (events.users[1:] == events.users[:-1]) & (events.times[1:] == events.times[:-1])
    return np.flatnonzero(np.append(is_tie, False) | np.append(False, is_tie))


def same_events(events: Interactions, rows: np.ndarray) -> np.ndarray:
    """Numbers for some rows, (n,): those of the same user, item, time and kind have the same number."""
    columns = {"user": events.users, "item": events.items, "time": events.times}
    columns |= {} if events.kinds is None else {"kind": events.kinds.values}
    of_rows = pd.DataFrame({name: values[rows] for name, values in columns.items() if values is not None})
    return of_rows.groupby(list(of_rows), sort=False).ngroup().to_numpy()


def _by_session(
    users: np.ndarray, which: np.ndarray, raw: np.ndarray, times: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows by user, session and time, and the sessions' numbers and raw ids; a user's sessions by their ends.

    Args:
        users: (n,).
        which: Which of ``raw`` is a row's session, (n,); two users may have the same.
        raw: The raw ids of sessions, each once.
        times: (n,). None: the rows are in the order of time.
    """
    times = np.arange(len(users)) if times is None else times
    pair, pairs = pd.factorize(users.astype(np.int64) * (int(which.max()) + 1) + which)
    in_time = np.argsort(times, kind="stable")
    rank = np.empty(len(times), np.int64)
    rank[in_time] = np.arange(len(times))
    end = np.zeros(len(pairs), np.int64)
    np.maximum.at(end, pair, rank)
    rows = np.lexsort((rank, end[pair], users))
    begins = np.append(True, np.diff(pair[rows]) != 0)
    return rows, read_only(np.cumsum(begins, dtype=np.int32)), read_only(raw[which[rows[begins]]])


def _encoded(column: Any, name: str, ids: IdMap | None) -> tuple[np.ndarray, IdMap]:
    if ids is None:
        ids = IdMap.from_values(raw_values(f"column {name!r}", column))
    values = _of_kind(name, column, instance_of("`user_ids` and its like", ids, IdMap))
    encoded = ids.encode(values)
    if not encoded.all():
        unknown = f"unknown {listing(pd.unique(values[encoded == 0]))}"
        remedy = "Drop these rows, or begin anew with all: fit again, or make a new id map and train its tables."
        raise problem(f"column {name!r}", "hold only known values", unknown, remedy)
    return encoded, ids


def _of_kind(name: str, column: Any, ids: IdMap) -> np.ndarray:
    """The raw values of a column, which have to be of the map's kind."""
    values = raw_values(f"column {name!r}", column)
    _check_same_kind(name, values, ids.values)
    return values


def _check_same_kind(name: str, values: np.ndarray, known: np.ndarray) -> None:
    if values.dtype != known.dtype:
        kinds = {"i": "integers", "O": "strings"}
        rule = f"hold {kinds[known.dtype.kind]}, as the known ids are"
        remedy = f"Convert it, by column.astype({'int' if known.dtype.kind == 'i' else 'str'}) for example."
        raise problem(f"column {name!r}", rule, f"{kinds[values.dtype.kind]}, {listing(values)}", remedy)


def _joined_times(name: str | None, before: np.ndarray, new: Any) -> np.ndarray:
    if (before.dtype.kind == "M") != (new.dtype.kind == "M"):
        kinds = ("datetimes", "numbers") if before.dtype.kind == "M" else ("numbers", "datetimes")
        raise problem(f"column {name!r}", f"hold {kinds[0]}, as those of the events before", kinds[1])
    joined = np.concatenate([before, new])
    # In a finer unit, datetimes far from now begin again at the other end; large integers are not exact as floats.
    for times, part in ((before, joined[: len(before)]), (new, joined[len(before) :])):
        wrong = part.astype(times.dtype) != times
        if wrong.any():
            rule = f"have a type that fits {before.dtype}, that of the events before"
            got = f"{new.dtype}: together they are {joined.dtype}, which does not have {times[wrong][0]}"
            raise problem(f"column {name!r}", rule, got, f"Convert it: column.astype('{before.dtype}').")
    return joined


def _ids(what: str, values: Any, largest: int) -> np.ndarray:
    ids = check_ids(what, values, 1, largest, dtype=np.int32)
    if not len(ids):
        raise problem(what, "hold at least one id", "none")
    return ids


def time_values(what: str, values: Any) -> np.ndarray:
    """``values`` as an array of finite numbers or of datetime64 (in UTC), (n,), none missing."""
    series = _dates_of_text(what, _series(what, values))
    if _is_moments(series.dtype) and series.dt.tz is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(series.dtype, pd.ArrowDtype) and _is_moments(series.dtype):
        _nothing_missing(what, series)
        return series.to_numpy(dtype=f"datetime64[{series.dtype.pyarrow_dtype.unit}]")
    if pd.api.types.is_datetime64_dtype(series.dtype):
        _nothing_missing(what, series)
        is_plain = isinstance(values, np.ndarray) and values.dtype.kind == "M"
        return values if is_plain else series.to_numpy()
    if not pd.api.types.is_numeric_dtype(series.dtype) or pd.api.types.is_bool_dtype(series.dtype):
        remedy = "Convert it first, with pd.to_datetime() or pd.to_numeric()."
        raise problem(what, "be numbers or datetimes", f"dtype {series.dtype}", remedy)
    numbers = _numbers(what, values)
    infinite = int(np.isinf(numbers).sum())
    if infinite:
        raise problem(what, "be finite", f"{infinite} infinite of {numbers.size}", "Drop or fill those rows.")
    if numbers.dtype.kind == "f" and numbers.dtype.itemsize < 8:
        require_exact(what, numbers, "Read the column as float64 or as integers.")
    return numbers


def _series(what: str, values: Any) -> pd.Series:
    try:
        return pd.Series(values, copy=False)
    except (TypeError, ValueError):  # a set, say, or an array of several dimensions
        raise problem(what, "be a list of values", shown(values)) from None


def _dates_of_text(what: str, series: pd.Series) -> pd.Series:
    """Datetimes from text in ISO 8601, such as 2026-11-26 or 2026-11-26T09:30Z; other columns unchanged."""
    if not pd.api.types.is_string_dtype(series.dtype) or not len(series) or series.isna().all():
        return series
    _nothing_missing(what, series)
    text = series.astype(str)
    is_iso = text.str.match(r"\d{4}-\d\d-\d\d($|[ T]\d)")
    if not is_iso.all():
        rule, row = "be numbers or datetimes, or text such as 2026-11-26 09:30", int(np.argmin(is_iso))
        remedy = "Convert it first: pd.to_datetime(column, format='%d.%m.%Y'), say, or pd.to_numeric(column)."
        raise problem(what, rule, f"{text.iloc[row]!r} in row {row}", remedy)
    zoned = text.str.contains(ZONE)
    if zoned.any() and not zoned.all():
        raise problem(what, "have a time zone in every row or in none", f"{int(zoned.sum())} of {len(text)}")
    try:
        return pd.Series(pd.to_datetime(text, format="ISO8601", utc=bool(zoned.all())))
    except ValueError as error:
        found = str(error).splitlines()[0].partition(" You might want")[0]
        raise problem(what, "hold dates that exist", found.rstrip(".")) from None


def has_zone(column: Any) -> bool | None:
    """Whether a frame's column of times, in a form that `time_values` takes, has a time zone; None for numbers."""
    dtype: Any = column.dtype if isinstance(column, pd.Series) else getattr(column, "type", None)  # or Arrow's
    dtype = getattr(dtype, "pyarrow_dtype", dtype)
    if hasattr(dtype, "tz"):
        return dtype.tz is not None
    series = column if isinstance(column, pd.Series) else pd.Series(one_a_row("the times", column))
    if pd.api.types.is_string_dtype(series.dtype) and len(series):  # all rows have one or none: see `time_values`
        return bool(series.iloc[:1].astype(str).str.contains(ZONE).any())
    return False if series.dtype.kind == "M" else None


def check_same_zone(what: str, before: bool | None, now: bool | None, whose: str) -> None:
    """Refuses times with a time zone after times without one, and the reverse: they can't be compared.

    Args:
        what: The column of the later times.
        before, now: Whether they have one, as from `has_zone`.
        whose: The earlier times, for the error message.
    """
    if before is None or now is None or before == now:
        return
    rule, got, remedy = "have a time zone", "times without one", "column.dt.tz_localize(zone) says which it is."
    if now:
        rule, got = "have no time zone", "times with one"
        remedy = "column.dt.tz_convert(zone).dt.tz_localize(None) makes local times of them."
    raise problem(what, f"{rule}, as {whose}", got, remedy)


def _is_moments(dtype: Any) -> bool:
    """Whether a type is pandas' own for datetimes, with a time zone or without, or pyarrow's."""
    return dtype.kind == "M" if isinstance(dtype, pd.ArrowDtype) else pd.api.types.is_datetime64_any_dtype(dtype)


def _numbers(what: str, values: Any) -> np.ndarray:
    series = _series(what, values)
    if pd.api.types.infer_dtype(series, skipna=True) == "decimal":  # of a database
        values = series = series.astype(float)
    if not pd.api.types.is_numeric_dtype(series.dtype) or series.dtype.kind == "c":
        remedy = "Number its values first, for example with IdMap.from_values(column).encode(column)."
        raise problem(what, "be numeric", f"dtype {series.dtype}", remedy)
    _nothing_missing(what, series)
    if isinstance(values, np.ndarray):
        # Not through pandas, whose result is read-only and would look like an array of our own.
        return values
    # pandas' own nullable types (Int64, Float32) name the NumPy type that holds their values.
    dtype: Any = getattr(series.dtype, "numpy_dtype", series.dtype)
    return series.to_numpy(dtype=dtype)


def _nothing_missing(what: str, series: pd.Series) -> None:
    missing = int(series.isna().sum())
    if missing:
        raise problem(what, "have no missing value", f"{missing} missing of {len(series)}", "Drop or fill those rows.")
