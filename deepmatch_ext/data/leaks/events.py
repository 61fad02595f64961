"""The events of interactions, looked up by user and item, and the parts whose targets they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepmatch_ext.data.interactions import Interactions
from deepmatch_ext.data.leaks.report import Leak, leak


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


def place_of(values: np.ndarray, sought: np.ndarray) -> np.ndarray:
    """The first place of each sought value in a sorted array, the array's length where it is not in there."""
    places = np.searchsorted(values, sought)
    return np.where(values.take(places, mode="clip") == sought, places, len(values))


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
    history: np.ndarray | None
    targets: np.ndarray
    choices: np.ndarray
    certain: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Which rows have an event, (B,)."""
        return self.choices > 0

    def leaks(
        self,
        kind: str,
        severity: str,
        hits: np.ndarray,
        part: str = "",
        seen_in: str = "",
        other: np.ndarray | None = None,
        **words: Any,
    ) -> Iterator[Leak]:
        """The leak of some of the rows, ``hits`` (B,), unless there are none; ``other`` (B,) goes with the example."""
        if hits.any():
            row, parts = int(hits.argmax()), (part or self.name, seen_in or self.name)
            words |= {"row": self.rows[row], "user": self.users[row], "item": self.items[row]}
            words["other"] = None if other is None else other[row]
            yield leak(kind, severity, *parts, int(hits.sum()), len(hits), **words)
