"""What recommending needs from all events and all items, computed once for many calls."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from deepmatch_ext.data import Interactions, Split
from deepmatch_ext.data.windows import Cutter, numpy_cutter
from deepmatch_ext.models import RetrievalModel
from deepmatch_ext.recommender.features import FeatureTable


class Snapshot:
    """The state of a recommender between two changes of its model or its events; each change makes a new snapshot.

    Args:
        model: The trained model.
        interactions: All events.
        split: What was held out of them.
        tables: What is known about users and items.
        max_len: The length of histories.
    """

    def __init__(
        self,
        model: RetrievalModel,
        interactions: Interactions,
        split: Split,
        tables: Mapping[str, FeatureTable],
        max_len: int,
    ) -> None:
        self._model, self._events, self._split = model, interactions, split
        self._tables, self._max_len = tables, max_len

    @cached_property
    def item_vectors(self) -> np.ndarray:
        """(number of items + 1, D), by item id; without rows to spare."""
        return self._model.item_vectors()[: self._events.item_vocabulary_size]

    @cached_property
    def is_known(self) -> np.ndarray:
        """Which items can be recommended: those that training has met or that have features. (number of items + 1,)."""
        met = np.ones(len(self._events), bool)
        met[self._split.validation] = met[self._split.test] = False
        known = self._events.item_counts(np.flatnonzero(met)) > 0
        if len(self._model.item_columns) > 1:
            known |= self._tables["item"].known(self._events.item_ids)
        return known

    @cached_property
    def known_items(self) -> np.ndarray:
        """Their ids, ascending."""
        return np.flatnonzero(self.is_known)

    @cached_property
    def item_counts(self) -> np.ndarray:
        """The events of each item, of the kinds that are recommended for, (number of items + 1,)."""
        return self._events.item_counts(np.flatnonzero(self._events.is_target))

    @cached_property
    def has_events(self) -> np.ndarray:
        """Which users have events, by user id, (number of users + 1,)."""
        return np.diff(self._events.indptr) > 0

    @cached_property
    def has_features(self) -> np.ndarray:
        """About which users something is known, by user id, (number of users + 1,)."""
        return self._tables["user"].known(self._events.user_ids)

    @cached_property
    def _cutter(self) -> Cutter:
        return numpy_cutter(self._events, self._max_len)

    def histories(self, users: np.ndarray) -> dict[str, np.ndarray]:
        """`user_histories` of user ids (B,)."""
        return self._cutter.users(users)
