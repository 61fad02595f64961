"""Which new events a recommender knows already, and which are earlier than those that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import warn_caller
from deepmatch_ext.data import Interactions


@dataclass(frozen=True, eq=False)
class Day:
    """New events, compared with those that were known before."""

    is_known: np.ndarray  # (n,) bool: the same event was there before
    is_repeated: np.ndarray  # (n,) bool: the same event is given in a row before
    is_earlier: np.ndarray  # (n,) bool: its time is before the last known one
    last: Any  # the time of the last known event; None where events have no times

    @classmethod
    def among(cls, interactions: Interactions, rows: np.ndarray) -> Day:
        """The given events' ``rows`` (n,) among all events."""
        times = interactions.times
        if times is None:  # they are taken to come after all others
            nowhere = np.zeros(len(rows), bool)
            return cls(nowhere, nowhere, nowhere, None)
        is_given = np.zeros(len(interactions), bool)
        is_given[rows] = True
        last = times[~is_given].max()
        of_users = np.flatnonzero(np.isin(interactions.users, np.unique(interactions.users[rows])))
        columns = {"user": interactions.users, "item": interactions.items, "time": times}
        columns |= {} if interactions.kinds is None else {"kind": interactions.kinds.values}
        events = pd.DataFrame({name: values[of_users] for name, values in columns.items()})
        which = events.groupby(list(columns), sort=False).ngroup().to_numpy()  # equal events have equal numbers
        given = is_given[of_users]
        is_repeated = pd.Series(which[given]).duplicated().to_numpy()
        return cls(np.isin(which[given], which[~given]), is_repeated, times[rows] < last, last)

    def warn_of_update(self) -> None:
        """Warns of events that are there twice, and of events that are all older than what was known."""
        number, again = len(self.is_known), int((self.is_known | self.is_repeated).sum())
        if self.is_earlier.all():
            warn_caller(
                f"All {number} events are earlier than the last one that was known, {self.last}: are their times "
                "read correctly?",
                UserWarning,
            )
        if again:
            warn_caller(f"{again} of {number} events were there already, and are now there twice.", UserWarning)

    def warn_of_evaluation(self) -> None:
        """Warns of events that are no valid test: the model has read them, or has learnt from what came after them."""
        number, again = len(self.is_known), int(self.is_known.sum())
        earlier = int((self.is_earlier & ~self.is_known).sum())
        if again:
            warn_caller(
                f"{again:,} of {number:,} events are among those that `fit` or `update` has read: the model knows "
                "them, and figures are too high. Give events that it has not read, or hold some out: "
                'fit(events, test="last").',
                UserWarning,
            )
        if earlier:
            warn_caller(
                f"{earlier:,} of {number:,} events are earlier than the last one that the model knows, {self.last}: it "
                "has learnt from what came after them, so figures may be too high. Give later events, or hold out all "
                "from a time on: fit(events, test=time).",
                UserWarning,
            )

    @property
    def note(self) -> str:
        """What an evaluation on these events says about them."""
        wrong = int((self.is_known | self.is_earlier).sum())
        if not wrong:
            return "events after those that the model knows"
        return f"events of which {wrong:,} of {len(self.is_known):,} are not after those that the model knows"
