"""From columns to tower tensors: the shared tables, what comes before a tower, and the towers themselves."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from deepmatch_ext._keras import keras, register
from deepmatch_ext._names import plain_name
from deepmatch_ext.features import (
    Column,
    DenseColumn,
    SequenceColumn,
    SparseColumn,
    input_names,
    table_columns,
)
from deepmatch_ext.layers import (
    EmbeddingTable,
    HashIds,
    HistoryDropout,
    HistoryItems,
    JaggedIds,
    JaggedPooling,
    PaddingMask,
    RepeatableDropout,
    SequenceMaskPooling,
    SequenceWeighting,
)
from deepmatch_ext.layers.activation import activation_layer
from deepmatch_ext.layers.pooling import combiner_poolings


def derived_seed(seed: int, *place: Any) -> int:
    """A seed for one place of a model, so that no two weights start alike."""
    return zlib.crc32(repr((seed, *place)).encode()) & 0x7FFFFFFF


def layer_name(*parts: Any) -> str:
    """A layer's name in the characters that every Keras takes; different parts give different names."""
    return plain_name("_".join(map(str, parts)), also=".-")


class Tables:
    """The embedding tables of a model, one for each ``embedding_name``, and the way from a column's input to rows."""

    def __init__(self, columns: Iterable[Column], l2_reg: float, seed: int, check_ids: bool, stddev: float) -> None:
        columns = list(columns)
        self._has_padding = {
            column.sparsefeat.embedding_name for column in columns if isinstance(column, SequenceColumn)
        }
        self._tables: dict[str, Any] = {}
        self._hashes: dict[str, Any] = {}
        for name, sharing in table_columns(columns).items():
            given = [column.embeddings_initializer for column in sharing if column.embeddings_initializer is not None]
            self._tables[name] = EmbeddingTable(
                sharing[0].vocabulary_size,
                sharing[0].embedding_dim,
                embeddings_initializer=given[0] if given else None,
                l2_reg=l2_reg,
                seed=derived_seed(seed, "table", name),
                trainable=sharing[0].trainable,
                check_ids=check_ids,
                stddev=stddev,
                name=layer_name("table", name),
            )

    def keep_padding(self, embedding_name: str) -> None:
        """Keeps bucket 0 of a hashed column free, as in a history; DeepCTR's DIN does so for its query columns."""
        self._has_padding.add(embedding_name)

    def ids(self, column: SparseColumn, values: Any) -> Any:
        """A column's input as row numbers of its table."""
        if not column.use_hash:
            return values
        name = column.embedding_name
        if name not in self._hashes:
            mask_zero = name in self._has_padding
            self._hashes[name] = HashIds(
                column.vocabulary_size, mask_zero, column.vocabulary_path, name=layer_name("hash", name)
            )
        return self._hashes[name](values)

    def history(self, column: SequenceColumn, inputs: Mapping[str, Any]) -> Any:
        """A history's input as row numbers of its table, (B, T), up to its length if it has one."""
        ids = self.ids(column.sparsefeat, inputs[column.name])
        if column.length_name is None:
            return ids
        return HistoryItems(name=layer_name("items", column.name))([ids, inputs[column.length_name]])

    def rows(self, column: SparseColumn, ids: Any) -> Any:
        """The rows of ``ids``: their shape + (D,)."""
        return self._tables[column.embedding_name](ids)


def row_ids(columns: Iterable[Column], inputs: Mapping[str, Any], tables: Tables) -> dict[str, Any]:
    """The columns' inputs, ids that are hashed as row numbers of their tables, and histories up to their lengths."""
    ready = {name: inputs[name] for name in input_names(columns)}
    for column in columns:
        if isinstance(column, SequenceColumn):
            ready[column.name] = tables.history(column, inputs)
        elif isinstance(column, SparseColumn):
            ready[column.name] = tables.ids(column, inputs[column.name])
    return ready


def with_history_dropout(
    columns: Iterable[Column], inputs: Mapping[str, Any], rate: float, seed: int
) -> dict[str, Any]:
    """``inputs`` after whole items have been left out; what shares a length loses the same positions."""
    groups: dict[Any, list[str]] = {}
    for column in columns:
        if isinstance(column, SequenceColumn):
            names = groups.setdefault(column.length_name or (column.name,), [])
            names += [name for name in (column.name, column.weight_name) if name is not None]
    left = dict(inputs)
    for length, names in groups.items():
        of = length if isinstance(length, str) else names[0]
        dropout = HistoryDropout(rate, derived_seed(seed, "history", of), name=layer_name("history_dropout", of))
        left.update(zip(names, dropout([left[name] for name in names]), strict=True))
    return left


@register
class MeanOfBlocks(keras.initializers.Initializer):
    """Glorot's normal kernel in which some blocks of inputs begin as the identity: the layer begins as their mean.

    Args:
        starts: Where the blocks begin among the inputs. Each is as wide as the layer.
        seed: Of the rest.
    """

    def __init__(self, starts: Sequence[int], seed: int) -> None:
        self.starts, self.seed = [*starts], seed

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
        kernel = keras.initializers.GlorotNormal(seed=self.seed)(shape, dtype)
        rows = tf.concat([start + tf.range(shape[1]) for start in self.starts], axis=0)
        identity = tf.eye(shape[1], dtype=kernel.dtype) / len(self.starts)
        return tf.tensor_scatter_nd_update(kernel, rows[:, tf.newaxis], tf.tile(identity, [len(self.starts), 1]))

    def get_config(self) -> dict[str, Any]:
        return {"starts": self.starts, "seed": self.seed}


class Tower:
    """What columns say, as one vector: embeddings, pooled histories and numbers, in DeepCTR's order, then dense layers.

    It can be applied to several sets of inputs, and its layers are the same each time. Dropout falls on what each dense
    layer reads, so the tower's output is whole. No dense layer at all gives the concatenated features. One alone begins
    as the mean of what comes from the table `item_table`, if that has the vectors' size: so users begin near the items
    of their history, in place of a random rotation away that every item has to be learnt through.
    """

    def __init__(
        self,
        side: str,
        columns: Sequence[Column],
        tables: Tables,
        hidden_units: Sequence[int],
        activation: Any,
        output_activation: Any,
        use_bn: bool,
        l2_reg: float,
        dropout: float,
        seed: int,
        item_table: str,
    ) -> None:
        self._side, self._columns, self._tables, self._item_table = side, columns, tables, item_table
        self._hidden_units, self._seed = hidden_units, seed
        self._activations = [*[activation] * (len(hidden_units) - 1), output_activation][: len(hidden_units)]
        self._use_bn, self._l2_reg, self._dropout = use_bn, l2_reg, dropout
        self._layers: dict[str, Any] = {}

    def __call__(self, inputs: Mapping[str, Any]) -> Any:
        """The tower's tensor, (B, width), from inputs by name, in which ids are row numbers of their tables."""
        sparse: list[Any] = []
        pooled: list[Any] = []
        dense: list[Any] = []
        for column in self._columns:
            if isinstance(column, SparseColumn):
                sparse.append(self._flat_row(column, inputs[column.name]))
            elif isinstance(column, SequenceColumn):
                pooled.extend(self._pooled_history(column, inputs))
            else:
                dense.append(self._numbers(column, inputs[column.name]))
        hidden = self._joined(sparse + pooled + dense)
        for place, (units, activation) in enumerate(zip(self._hidden_units, self._activations, strict=True), start=1):
            hidden = self._dense(place, units, activation, hidden)
        return hidden

    def _item_blocks(self, dim: int) -> list[int]:
        """Where vectors of size ``dim`` from the item's table begin among the joined features."""
        widths: list[tuple[bool, int]] = []
        for column in sorted(self._columns, key=lambda column: isinstance(column, SequenceColumn)):
            if isinstance(column, DenseColumn):
                continue  # they come last
            of = column.sparsefeat if isinstance(column, SequenceColumn) else column
            times = len(combiner_poolings(column.name, column.combiner)) if isinstance(column, SequenceColumn) else 1
            widths += [(of.embedding_name == self._item_table, of.embedding_dim)] * times
        starts = itertools.accumulate((width for _, width in widths), initial=0)
        return [start for (is_item, width), start in zip(widths, starts, strict=False) if is_item and width == dim]

    def _layer(self, make: Any, *name: Any, **arguments: Any) -> Any:
        full_name = layer_name(*name)
        if full_name not in self._layers:
            self._layers[full_name] = make(**arguments, name=full_name)
        return self._layers[full_name]

    def _joined(self, parts: list[Any]) -> Any:
        return parts[0] if len(parts) == 1 else self._layer(keras.layers.Concatenate, self._side, "features")(parts)

    def _flat_row(self, column: SparseColumn, ids: Any) -> Any:
        flat = self._layer(keras.layers.Reshape, "flat", column.name, target_shape=(column.embedding_dim,))
        return flat(self._tables.rows(column, ids))

    def _pooled_history(self, column: SequenceColumn, inputs: Mapping[str, Any]) -> list[Any]:
        """The history pooled in each of its combiner's ways, (B, D) each."""
        ids = inputs[column.name]
        if column.weight_name is not None:
            # Each position's embedding times its weight, which takes (B, T, D).
            valid = self._layer(PaddingMask, "mask", column.name)(ids)
            weighting = self._layer(SequenceWeighting, "weighted", column.name, weight_norm=column.weight_norm)
            rows = weighting([self._tables.rows(column.sparsefeat, ids), valid, inputs[column.weight_name]])
            pooling_layer, read = SequenceMaskPooling, [rows, valid]
        else:
            jagged = self._layer(JaggedIds, "ids", column.name)(ids)
            pooling_layer, read = JaggedPooling, [self._tables.rows(column.sparsefeat, jagged[0]), *jagged[1:]]
        return [
            self._layer(pooling_layer, "pooled", column.name, place, **pooling)(read)
            for place, pooling in enumerate(combiner_poolings(column.name, column.combiner))
        ]

    def _numbers(self, column: DenseColumn, values: Any) -> Any:
        if column.transform_fn is not None:
            return self._layer(keras.layers.Lambda, "transformed", column.name, function=column.transform_fn)(values)
        if column.dtype.startswith("float"):
            return values
        # Integers can't stand beside embeddings; a scale of 1 makes floats of them.
        return self._layer(keras.layers.Rescaling, "float", column.name, scale=1.0)(values)

    def _dense(self, place: int, units: int, activation: Any, hidden: Any) -> Any:
        side = self._side
        # The user side's seeds have no side in them, so that models begin as they always have.
        seeds = [derived_seed(self._seed, *([] if side == "user" else [side]), part, place) for part in _SEEDED]
        if self._dropout:
            dropout = self._layer(RepeatableDropout, side, "dropout", place, rate=self._dropout, seed=seeds[0])
            hidden = dropout(hidden)
        blocks = self._item_blocks(units) if len(self._hidden_units) == 1 else []
        dense = self._layer(
            keras.layers.Dense,
            *(side, "dense", place),
            units=units,
            kernel_initializer=(
                MeanOfBlocks(blocks, seeds[1]) if blocks else keras.initializers.GlorotNormal(seed=seeds[1])
            ),
            kernel_regularizer=keras.regularizers.L2(self._l2_reg) if self._l2_reg else None,
        )
        hidden = dense(hidden)
        if self._use_bn:
            hidden = self._layer(keras.layers.BatchNormalization, side, "bn", place)(hidden)
        return self._layer(activation_layer, side, "activation", place, activation=activation)(hidden)


_SEEDED = ("dropout", "dense")
