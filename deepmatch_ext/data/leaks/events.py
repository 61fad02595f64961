"""The events of interactions, looked up by user and item."""

from __future__ import annotations

import numpy as np

from deepmatch_ext.data.interactions import Interactions


class Events:
    """The n events of interactions, sorted by user and item, then by moment.

    A moment is the rank of a time among all times; without times, it is the row.

    Attributes:
        rows: The row of the interactions that each event is, (n,).
        place: The reverse: which event each row is, (n,).
        moments: The moment of each event, (n,).
        pair_of: The pair of user and item of each event, (n,), numbered from 0 to P - 1.
        starts: The events of pair p are ``starts[p]:starts[p + 1]``, (P + 1,).
        number: How many events each pair has, (P,).
        times: The time of each moment, sorted; None without times.
    """

    def __init__(self, x: Interactions) -> None:
        self._width = x.item_vocabulary_size
        self.times, moments = None, np.arange(len(x))
        if x.times is not None:
            self.times, moments = np.unique(x.times, return_inverse=True)
        keys = x.users.astype(np.int64) * self._width + x.items
        self.rows = np.lexsort((moments, keys))
        self.place = np.argsort(self.rows)
        self.moments = moments[self.rows]
        self._pairs, self.starts, self.number = np.unique(keys[self.rows], return_index=True, return_counts=True)
        self.pair_of = np.repeat(np.arange(len(self.number)), self.number)
        self._span = int(self.moments.max()) + 2  # one too many, so that no event has the moment -1
        self._keys = self.pair_of * self._span + self.moments

    def find(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The pair of each user and item, -1 if the user never had the item."""
        keys = users.astype(np.int64) * self._width + items
        places = np.minimum(np.searchsorted(self._pairs, keys), len(self._pairs) - 1)
        return np.where(self._pairs[places] == keys, places, -1)

    def before(self, pairs: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """How many events of each pair are earlier than the moment."""
        return np.searchsorted(self._keys, pairs * self._span + moments) - self.starts[pairs]

    def until(self, pairs: np.ndarray, moments: np.ndarray) -> np.ndarray:
        """How many events of each pair are of the moment or earlier."""
        return self.before(pairs, moments + 1)

    def match(self, users: np.ndarray, items: np.ndarray, moments: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The last event that each of B targets can be, and how many it can be: (B,), (B,). -1 and 0 if it is none.

        Without moments it can be any event of the user with the item.
        """
        pairs = self.find(users, items)
        before = 0 if moments is None else self.before(pairs, moments)
        until = self.number[pairs] if moments is None else self.until(pairs, moments)
        choices = np.where(pairs >= 0, until - before, 0)
        return np.where(choices > 0, self.starts[pairs] + until - 1, -1), choices
