"""Which new events a recommender knows already, and which are earlier than those that it knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import warn_caller
from deepmatch_ext.data import Interactions
from deepmatch_ext.data.interactions import same_events


def names_of_events(recommender: Any) -> list[str]:
    """The columns by which a recommender's events are the same."""
    names = recommender.user, recommender.item, recommender.time, recommender.kind
    return [name for name in names if name is not None]


def dropping(names: list[str]) -> str:
    """What to do about events that are the same by some columns."""
    return f"Unless they happened twice, drop them: events.drop_duplicates({names})."


def warn_of_learnt(number: int) -> None:
    """Warns that a model is judged by what `fit` held out after `update` has learnt from later events."""
    warn_caller(
        f"`update` has learnt from {number:,} events since `fit` held these out, so figures may be too high. Give "
        "events to `evaluate` before `update` learns from them.",
        UserWarning,
    )


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
        which = same_events(interactions, of_users)
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

    def warn_of_evaluation(self, names: list[str]) -> None:
        """Warns of events that are no valid test.

        The model has read them, or has learnt from what came after them, or they are in their own histories.

        Args:
            names: The columns by which events are the same.
        """
        number, again = len(self.is_known), int(self.is_known.sum())
        twice = int((self.is_repeated & ~self.is_known).sum())
        earlier = int((self.is_earlier & ~self.is_known).sum())
        if again:
            warn_caller(
                f"{again:,} of {number:,} events are among those that `fit` or `update` has read: the model knows "
                "them, and figures are too high. Give events that it has not read, or hold some out: "
                'fit(events, test="last").',
                UserWarning,
            )
        if twice:
            warn_caller(
                f"{twice:,} of {number:,} events repeat another row: the same {', '.join(names)}. Each is to be "
                f"predicted again, from a history that has it already. {dropping(names)}",
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
