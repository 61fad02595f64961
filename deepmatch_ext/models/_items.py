"""The item side: from item ids to vectors, for positives, candidates and whole catalogues alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import problem
from deepmatch_ext.features import Column, SparseColumn
from deepmatch_ext.layers import ItemCatalogue, KnownItems
from deepmatch_ext.models._catalogue import catalogue_shapes, read_catalogue
from deepmatch_ext.models._tables import NamedLayers, Tables, row_ids
from deepmatch_ext.samplers import SAVED


class ItemFeatures:
    """The features of an item besides its id: given with the input, or looked up in the model's catalogue.

    Args:
        item: The column of the id.
        described_by: The other columns of the item; none, if items have only an id.
        item_features: Their values by item id; `SAVED` if they come with the model's weights; None if each example
            holds its item's own.
        id_dropout: The fraction of ids that are dropped during training.
        seed: Seed of the dropout.
        tables, layers: The model's.

    Attributes:
        catalogue: Whether every item can be encoded given its id alone.
    """

    def __init__(
        self,
        item: SparseColumn,
        described_by: Sequence[Column],
        item_features: Any,
        id_dropout: float,
        seed: int,
        tables: Tables,
        layers: NamedLayers,
    ) -> None:
        if not described_by and item_features is not None:
            raise problem("`item_features`", "be left out where the item id is the only item column", "one")
        if described_by and item.use_hash:
            raise problem(
                f"Item column {item.name!r}",
                "have integer ids, not hashed ones, if other columns describe the item",
                "use_hash=True",
                "`deepmatch_ext.data.IdMap` makes ids.",
            )
        self._item, self._described_by = item, described_by
        self.catalogue = not described_by or item_features is not None
        if described_by:
            size = item.vocabulary_size
            of_known = {"vocabulary_size": size, "rate": id_dropout, "seed": seed}
            self._known = layers(KnownItems, "known_items", **of_known, all_known=tables.holds_values(item))
        if described_by and self.catalogue:
            shapes = {name: shape for column in described_by for name, shape in catalogue_shapes(column).items()}
            values = None
            if not (isinstance(item_features, str) and item_features == SAVED):  # else a model is being loaded
                values = self._values(shapes, item_features, tables)
            self._names = [*shapes]
            self._lookup = layers(ItemCatalogue, "catalogue", features=shapes, vocabulary_size=size, values=values)

    def _values(self, names: Mapping[str, Any], item_features: Any, tables: Tables) -> dict[str, np.ndarray]:
        arrays = read_catalogue(self._item.name, self._described_by, item_features, self._item.vocabulary_size)
        # Keras 3 takes no NumPy strings.
        tensors = {name: tf.constant(a) if a.dtype.kind in "OUS" else a for name, a in arrays.items()}
        rows = row_ids(self._described_by, tensors, tables)
        return {name: np.asarray(rows[name]) for name in names}

    def __call__(self, ids: Any, given: Mapping[str, Any] | None = None, positives: Any = None) -> Mapping[str, Any]:
        """The item columns' inputs by name, ids as row numbers of their tables.

        Args:
            ids: Any number of item ids.
            given: The features that were given with the ids; None: the catalogue's.
            positives: In training, the batch's own items.
        """
        if not self._described_by:
            return {self._item.name: ids}
        if given is None:
            given = dict(zip(self._names, self._lookup(ids), strict=True))
        return {**given, self._item.name: self._known(ids if positives is None else [ids, positives])}
