"""From columns' inputs to rows of the embedding tables that they share."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from deepmatch_ext._checks import problem
from deepmatch_ext._names import plain_name
from deepmatch_ext.features import Column, SequenceColumn, SparseColumn, input_names, table_columns
from deepmatch_ext.layers import EmbeddingTable, HashIds, HistoryDropout, HistoryItems
from deepmatch_ext.models._input_rules import EventTimes, inputs_of_events


def derived_seed(seed: int, *place: Any) -> int:
    """A seed for one part of a model, so that no two weights start alike."""
    return zlib.crc32(repr((seed, *place)).encode()) & 0x7FFFFFFF


def layer_name(*parts: Any) -> str:
    """A layer's name in the characters that every Keras takes; different parts give different names."""
    return plain_name("_".join(map(str, parts)), also=".-")


class NamedLayers:
    """A model's layers by name; the same name returns the same layer."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[Any, Any]] = {}
        self._prefix: tuple[Any, ...] = ()

    def under(self, *prefix: Any) -> NamedLayers:
        """The same layers, whose names get a prefix from here on."""
        view = NamedLayers()
        view._layers, view._prefix = self._layers, (*self._prefix, *prefix)
        return view

    def __call__(self, layer_class: Any, *name: Any, **arguments: Any) -> Any:
        """The layer of this name, made by ``layer_class(**arguments, name=...)`` if there is none yet.

        Raises:
            ValueError: There is another layer of this name.
        """
        full_name = layer_name(*self._prefix, *name)
        if full_name not in self._layers:
            self._layers[full_name] = layer_class, layer_class(**arguments, name=full_name)
        made_by, layer = self._layers[full_name]
        if made_by is not layer_class:
            raise problem(f"The layer {full_name!r}", "have a name of its own", f"that of {layer}")
        return layer

    def names(self) -> set[str]:
        """The names of all layers so far."""
        return set(self._layers)


class Tables:
    """The embedding tables of a model, one for each ``embedding_name``, and the look-up of a column's input in them."""

    def __init__(
        self,
        columns: Iterable[Column],
        l2_reg: float,
        seed: int,
        check_ids: bool,
        stddev: float,
        table_dtype: str,
        layers: NamedLayers,
    ) -> None:
        columns, self._layers = list(columns), layers
        self._has_padding = {
            column.sparsefeat.embedding_name for column in columns if isinstance(column, SequenceColumn)
        }
        self._tables: dict[str, Any] = {}
        for name, sharing in table_columns(columns).items():
            given = [column.embeddings_initializer for column in sharing if column.embeddings_initializer is not None]
            self._tables[name] = layers(
                EmbeddingTable,
                *("table", name),
                vocabulary_size=sharing[0].vocabulary_size,
                embedding_dim=sharing[0].embedding_dim,
                embeddings_initializer=given[0] if given else None,
                l2_reg=l2_reg,
                seed=derived_seed(seed, "table", name),
                trainable=sharing[0].trainable,
                check_ids=check_ids,
                stddev=stddev,
                table_dtype=table_dtype,
            )

    def keep_padding(self, embedding_name: str) -> None:
        """Keeps bucket 0 of a hashed column free, as in a history; DeepCTR's DIN does so for its query columns."""
        self._has_padding.add(embedding_name)

    def holds_values(self, column: SparseColumn) -> bool:
        """Whether the rows of a column's table were given, such as those of a pretrained one."""
        initializer = self._tables[column.embedding_name].embeddings_initializer
        return initializer is not None and initializer.holds_values

    def ids(self, column: SparseColumn, values: Any) -> Any:
        """A column's input as row numbers of its table."""
        if not column.use_hash:
            return values
        name = column.embedding_name
        hashed = self._layers(
            HashIds,
            *("hash", name),
            num_buckets=column.vocabulary_size,
            mask_zero=name in self._has_padding,
            vocabulary_path=column.vocabulary_path,
        )
        return hashed(values)

    def history(self, column: SequenceColumn, inputs: Mapping[str, Any]) -> Any:
        """A history's input as row numbers of its table, (B, T), up to its length if it has one."""
        ids = self.ids(column.sparsefeat, inputs[column.name])
        if column.length_name is None:
            return ids
        return self._layers(HistoryItems, "items", column.name)([ids, inputs[column.length_name]])

    def rows(self, column: SparseColumn, ids: Any) -> Any:
        """The rows of ``ids``: their shape + (D,)."""
        return self._tables[column.embedding_name](ids)


def row_ids(columns: Iterable[Column], inputs: Mapping[str, Any], tables: Tables) -> dict[str, Any]:
    """The columns' inputs, with hashed ids as row numbers of their tables, and histories cut to their lengths."""
    ready = {name: inputs[name] for name in input_names(columns)}
    for column in columns:
        if isinstance(column, SequenceColumn):
            ready[column.name] = tables.history(column, inputs)
        elif isinstance(column, SparseColumn):
            ready[column.name] = tables.ids(column, inputs[column.name])
    return ready


def with_history_dropout(
    columns: Iterable[Column],
    inputs: Mapping[str, Any],
    rate: float,
    seed: int,
    layers: NamedLayers,
    times: EventTimes | None,
) -> dict[str, Any]:
    """``inputs`` after history dropout; histories that share a length lose the same positions.

    Args:
        columns, inputs: The user's.
        rate, seed: The settings of the dropout.
        layers: The model's.
        times: What is known of the events' times, whose input is (B, T, 1) here.
    """
    groups: dict[Any, list[str]] = {}
    for column in columns:
        if isinstance(column, SequenceColumn):
            names = groups.setdefault(column.length_name or (column.name,), [])
            names += inputs_of_events(column, times)
    left = dict(inputs)
    for length, names in groups.items():
        of = length if isinstance(length, str) else names[0]
        dropout = layers(HistoryDropout, "history_dropout", of, rate=rate, seed=derived_seed(seed, "history", of))
        left.update(zip(names, dropout([left[name] for name in names]), strict=True))
    return left
