"""From columns to tower tensors: the shared tables, the user side's input, and the dense layers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deepmatch_ext._compat import keras
from deepmatch_ext.features import Column, DenseColumn, SequenceColumn, SparseColumn, table_columns
from deepmatch_ext.layers import (
    EmbeddingTable,
    HashIds,
    JaggedIds,
    JaggedPooling,
    PaddingMask,
    SequenceMaskPooling,
    SequenceWeighting,
)
from deepmatch_ext.layers.pooling import combiner_poolings


def derived_seed(seed: int, *place: Any) -> int:
    """A seed for one place of a model, so that no two weights start alike."""
    return zlib.crc32(repr((seed, *place)).encode()) & 0x7FFFFFFF


def layer_name(*parts: Any) -> str:
    """A layer's name in the characters that every Keras takes; different parts give different names."""
    name = "_".join(map(str, parts))
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    return plain if plain == name else f"{plain}_{zlib.crc32(name.encode()):08x}"


class Tables:
    """The embedding tables of a model, one for each ``embedding_name``, and the way from a column's input to rows."""

    def __init__(self, columns: Iterable[Column], l2_reg: float, seed: int) -> None:
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

    def rows(self, column: SparseColumn, ids: Any) -> Any:
        """The rows of ``ids``: their shape + (D,)."""
        return self._tables[column.embedding_name](ids)


def concatenated_features(columns: Sequence[Column], inputs: Mapping[str, Any], tables: Tables) -> Any:
    """What a tower's dense layers read, (B, width): embeddings, pooled histories, then numbers, as in DeepCTR."""
    sparse: list[Any] = []
    pooled: list[Any] = []
    dense: list[Any] = []
    for column in columns:
        if isinstance(column, SparseColumn):
            rows = tables.rows(column, tables.ids(column, inputs[column.name]))
            sparse.append(keras.layers.Reshape((column.embedding_dim,), name=layer_name("flat", column.name))(rows))
        elif isinstance(column, SequenceColumn):
            pooled.extend(_pooled_history(column, inputs, tables))
        else:
            dense.append(_numbers(column, inputs[column.name]))
    parts = sparse + pooled + dense
    return parts[0] if len(parts) == 1 else keras.layers.Concatenate(name="user_features")(parts)


def _pooled_history(column: SequenceColumn, inputs: Mapping[str, Any], tables: Tables) -> list[Any]:
    """The history pooled in each of its combiner's ways, (B, D) each."""
    poolings = combiner_poolings(column.name, column.combiner)
    ids = tables.ids(column.sparsefeat, inputs[column.name])
    lengths = None if column.length_name is None else inputs[column.length_name]
    if column.weight_name is not None:
        return _weighted_history(column, poolings, ids, lengths, inputs[column.weight_name], tables)
    unique_ids, *places = JaggedIds(name=layer_name("ids", column.name))(ids if lengths is None else [ids, lengths])
    rows = tables.rows(column.sparsefeat, unique_ids)
    return [
        JaggedPooling(**pooling, name=layer_name("pooled", column.name, place))([rows, *places])
        for place, pooling in enumerate(poolings)
    ]


def _weighted_history(
    column: SequenceColumn, poolings: list[dict[str, Any]], ids: Any, lengths: Any, weights: Any, tables: Tables
) -> list[Any]:
    """As `_pooled_history`, each position's embedding times its weight first, which takes (B, T, D)."""
    valid = PaddingMask(name=layer_name("mask", column.name))(ids) if lengths is None else lengths
    rows = tables.rows(column.sparsefeat, ids)
    rows = SequenceWeighting(column.weight_norm, name=layer_name("weighted", column.name))([rows, valid, weights])
    return [
        SequenceMaskPooling(**pooling, name=layer_name("pooled", column.name, place))([rows, valid])
        for place, pooling in enumerate(poolings)
    ]


def _numbers(column: DenseColumn, values: Any) -> Any:
    if column.transform_fn is None:
        # Integers can't stand beside embeddings; a scale of 1 makes floats of them.
        is_float = column.dtype.startswith("float")
        return values if is_float else keras.layers.Rescaling(1.0, name=layer_name("float", column.name))(values)
    return keras.layers.Lambda(column.transform_fn, name=layer_name("transformed", column.name))(values)


def dense_tower(
    features: Any,
    hidden_units: Sequence[int],
    activation: Any,
    output_activation: Any,
    use_bn: bool,
    l2_reg: float,
    dropout: float,
    seed: int,
) -> Any:
    """Dense layers from (B, width) to (B, hidden_units[-1]); no layer at all gives ``features`` back.

    Dropout falls on what each layer reads, so the tower's output is whole.
    """
    regularizer = keras.regularizers.L2(l2_reg) if l2_reg else None
    hidden = features
    for place, units in enumerate(hidden_units, start=1):
        if dropout:
            dropout_seed = derived_seed(seed, "dropout", place)
            hidden = keras.layers.Dropout(dropout, seed=dropout_seed, name=f"user_dropout_{place}")(hidden)
        hidden = keras.layers.Dense(
            units,
            kernel_initializer=keras.initializers.GlorotNormal(seed=derived_seed(seed, "dense", place)),
            kernel_regularizer=regularizer,
            name=f"user_dense_{place}",
        )(hidden)
        if use_bn:
            hidden = keras.layers.BatchNormalization(name=f"user_bn_{place}")(hidden)
        function = output_activation if place == len(hidden_units) else activation
        hidden = keras.layers.Activation(function, name=f"user_activation_{place}")(hidden)
    return hidden
