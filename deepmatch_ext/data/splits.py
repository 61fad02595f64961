"""Which events a model learns from, which choose its settings, and which judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import check_ids
from deepmatch_ext._checks import instance_of, int_at_least, problem
from deepmatch_ext.data.ids import own, read_only
from deepmatch_ext.data.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Split:
    """Target rows for training, validation and test, no row in two of them.

    A row is in a part as a target. Its history is whatever the user did before it, in any part; with sessions, in the
    same session.

    Args:
        interactions: The table that the row numbers point into.
        train: Row numbers, kept as sorted int64, read-only.
        validation: Row numbers, likewise.
        test: Row numbers, likewise.

    Raises:
        ValueError: A row number out of range, or the same row twice.
    """

    interactions: Interactions
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def __post_init__(self) -> None:
        instance_of("`interactions`", self.interactions, Interactions)
        used = np.zeros(len(self.interactions), bool)
        for name in ("train", "validation", "test"):
            given = check_ids(f"`{name}`", getattr(self, name), 0, len(self.interactions) - 1)
            is_sorted = (given[1:] > given[:-1]).all()  # then nothing of that size has to be made
            rows = given if is_sorted else np.unique(given)
            if len(rows) < len(given) or used[rows].any():
                raise problem(f"`{name}`", "hold each row once, and none of another part", "a repeated row")
            used[rows] = True
            object.__setattr__(self, name, own(rows))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.interactions, self.train, self.validation, self.test)

    def train_targets(self, min_history: int = 1) -> np.ndarray:
        """The train rows with at least ``min_history`` earlier rows of their session or user, int64, sorted.

        Args:
            min_history: 1 leaves out the first event of each session or user, for which a sequence model has nothing to
                go by.
        """
        int_at_least("`min_history`", min_history, 0)
        return self.train[self.interactions.position[self.train] >= min_history]


def leave_last_out(interactions: Interactions, min_interactions: int = 3) -> Split:
    """Tests on each user's last event, validates on the one before it, and trains on all earlier ones.

    Args:
        interactions: The events.
        min_interactions: A user with fewer events than this is all train. At least 3, so that each user who is
            judged is trained on as well.

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
    counts = np.diff(interactions.indptr)
    last = interactions.indptr[1:][counts >= min_interactions] - 1
    if not len(last):
        got = f"{int(counts.max())} events of one user at most"
        raise problem("`interactions`", f"have a user with at least {min_interactions} events", got)
    train = np.ones(len(interactions), bool)
    train[last] = train[last - 1] = False
    return Split(interactions, train=read_only(np.flatnonzero(train)), validation=last - 1, test=last)


def split_by_time(interactions: Interactions, validation_from: Any, test_from: Any) -> Split:
    """Trains on what came before a moment, validates and tests on what came after it, as a live system would.

    Users and items that first appear after the moment are kept: their train count is 0.

    Sessions stay whole: each is in the part that its last event's time says, so training knows no event from after
    the moment. The first event of a session has nothing before it and is no target of validation and test.

    Args:
        interactions: The events, with times.
        validation_from: The first moment of validation: a number, or for datetimes anything that pd.Timestamp takes.
            Times that had a zone are in UTC here, and so is a moment without one: give it with its zone.
        test_from: The first moment of test, later than ``validation_from``.

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
    start, end = moment("`validation_from`", validation_from, times), moment("`test_from`", test_from, times)
    if not start < end:
        raise problem("`validation_from`", "be earlier than test_from", f"{validation_from!r} and {test_from!r}")
    is_target = np.ones(len(times), bool)
    if interactions.sessions is not None:
        begins = np.flatnonzero(interactions.position == 0)
        number = np.diff(np.append(begins, len(times)))
        times, is_target = np.repeat(times[begins + number - 1], number), interactions.position > 0
    first, last = times.min(), times.max()
    if first >= start:
        raise problem("`validation_from`", f"leave rows to train on, so be later than {first}", repr(validation_from))
    if last < end:
        raise problem("`test_from`", f"leave rows to test on, so be at most {last}", repr(test_from))
    return Split(
        interactions,
        train=read_only(np.flatnonzero(times < start)),
        validation=read_only(np.flatnonzero((times >= start) & (times < end) & is_target)),
        test=read_only(np.flatnonzero((times >= end) & is_target)),
    )


def moment(what: str, value: Any, times: np.ndarray) -> Any:
    """``value`` in the unit of ``times``."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.timedelta64)
    if times.dtype.kind != "M":
        if not is_number or value != value:
            raise problem(what, "be a number, as the times are", repr(value))
        return value
    try:
        moment = None if is_number else pd.Timestamp(value)
    except (ValueError, TypeError):
        moment = None
    if moment is None or pd.isna(moment):
        raise problem(what, "be a datetime, as the times are", repr(value))
    return (moment if moment.tzinfo is None else moment.tz_convert("UTC").tz_localize(None)).to_datetime64()
