"""Columns as tensors, and the dense layers that make a vector from them.

B examples, T history positions, K interests, D size of the vectors.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tensorflow as tf

from deepmatch_ext._checks import as_flag, number_between, problem
from deepmatch_ext._keras import batch_normalization, keras, register
from deepmatch_ext.features import Column, DenseColumn, SequenceColumn, SparseColumn
from deepmatch_ext.layers import (
    ItemsInFront,
    JaggedIds,
    JaggedPooling,
    L2Normalization,
    PaddingMask,
    RepeatableDropout,
    SequenceMaskPooling,
    SequenceWeighting,
    UpToLongest,
)
from deepmatch_ext.layers.activation import activation_layer, check_activation
from deepmatch_ext.layers.pooling import combiner_poolings
from deepmatch_ext.models._tables import NamedLayers, Tables, derived_seed


class Feature(NamedTuple):
    """One column as a tensor.

    Attributes:
        values: (B, d).
        table: The ``embedding_name`` of the table whose rows, or pooled rows, the values are; None for numbers.
    """

    values: Any
    table: str | None


class History(NamedTuple):
    """A history's positions, most recent first.

    Attributes:
        rows: (B, T, D) the rows of their table; at padding, whatever row 0 holds.
        valid: (B, T) booleans, which positions hold an item: the first n of a history of n items.
        ids: (B, T) the items themselves, as row numbers of their table.
        recency_decay: The decay, if the column's ``combiner`` contains ``recency`` or ``recency:DECAY``, else 0.
        max_len: The column's ``maxlen``.
        times: (B, T, 1), the events' times, if they are known.
    """

    rows: Any
    valid: Any
    ids: Any
    recency_decay: float = 0.0
    max_len: int = 0
    times: Any = None


class Features:
    """A side's columns as tensors: rows of embedding tables, pooled histories, and numbers."""

    def __init__(self, tables: Tables, seed: int, layers: NamedLayers) -> None:
        self._tables, self._seed, self._layers = tables, seed, layers

    def __call__(self, columns: Sequence[Column], inputs: Mapping[str, Any]) -> list[Feature]:
        """The features in DeepCTR's order: single ids, histories, numbers.

        Args:
            columns: The columns to read.
            inputs: Their inputs by name, in which ids are row numbers of their tables.
        """
        sparse: list[Feature] = []
        pooled: list[Feature] = []
        dense: list[Feature] = []
        for column in columns:
            if isinstance(column, SparseColumn):
                sparse.append(self._row(column, inputs[column.name]))
            elif isinstance(column, SequenceColumn):
                pooled += self._pooled_history(column, inputs)
            else:
                dense.append(Feature(self._numbers(column, inputs[column.name]), None))
        return sparse + pooled + dense

    def history(self, column: SequenceColumn, inputs: Mapping[str, Any]) -> History:
        """A history's rows, times their weights if the column has any, and which of its positions hold an item."""
        return self.histories([column], inputs)[0]

    def histories(
        self,
        columns: Sequence[SequenceColumn],
        inputs: Mapping[str, Any],
        unit_length: bool = False,
        up_to_longest: bool = False,
        rows_of: Callable[[Any], Any] | None = None,
        times: str | None = None,
    ) -> list[History]:
        """Histories of the same events: position t of each belongs to the t-th item of the first.

        Where the first has an item, another history may have id 0, such as an unknown category, and is not valid there.
        The first one's rows are those of its table, or what ``rows_of`` makes from its ids (B, t). It gets the input
        ``times`` (B, T, 1) as its times.
        """
        names = [column.name for column in columns]
        weights = {column.name: column.weight_name for column in columns if column.weight_name is not None}
        beside = [*weights.values(), *([] if times is None else [times])]
        read = [inputs[name] for name in [*names, *beside]]
        moved = self._layers(ItemsInFront, "in_front", *names)(read if len(read) > 1 else read[0])
        if up_to_longest:
            moved = self._layers(UpToLongest, "up_to_longest", *names)(moved)
        moved = dict(zip([*names, *beside], moved if len(read) > 1 else [moved], strict=True))
        found, first = [], moved[names[0]]
        for column in columns:
            ids = moved[column.name]
            valid = self._layers(PaddingMask, "mask", column.name)(ids if column is columns[0] else [first, ids])
            of_table = functools.partial(self._tables.rows, column.sparsefeat)
            rows = (rows_of or of_table)(ids) if column is columns[0] else of_table(ids)
            if unit_length:
                rows = self._layers(L2Normalization, "unit_rows", column.name)(rows)
            if column.weight_name is not None:
                weighting = self._layers(SequenceWeighting, "weighted", column.name, weight_norm=column.weight_norm)
                rows = weighting([rows, valid, moved[column.weight_name]])
            arguments = [arguments for _, arguments in combiner_poolings(column.name, column.combiner)]
            decay = max(each.get("recency_decay", 0.0) for each in arguments)
            of_events = moved[times] if times is not None and column is columns[0] else None
            found.append(History(rows, valid, ids, decay, column.maxlen, of_events))
        return found

    def _row(self, column: SparseColumn, ids: Any) -> Feature:
        flat = self._layers(keras.layers.Reshape, "flat", column.name, target_shape=(column.embedding_dim,))
        return Feature(flat(self._tables.rows(column, ids)), column.embedding_name)

    def _pooled_history(self, column: SequenceColumn, inputs: Mapping[str, Any]) -> list[Feature]:
        """The history pooled by each part of its combiner, (B, d) each."""
        padded: list[Any] = []
        jagged: list[Any] = []
        pooled = []
        for place, (pooling, arguments) in enumerate(combiner_poolings(column.name, column.combiner)):
            if arguments.get("nth", 1) > column.maxlen:
                rule = f"name items of the history, of which there are at most {column.maxlen}"
                raise problem(f"`combiner` of column {column.name!r}", rule, f"last:{arguments['nth']}")
            # A weight for each position, or a pooling of all positions together, takes (B, T, D).
            if column.weight_name is not None or pooling is not SequenceMaskPooling:
                padded = padded or [*self.history(column, inputs)[:2]]
                layer, read = pooling, padded
                if "seed" in inspect.signature(pooling).parameters:
                    arguments["seed"] = derived_seed(self._seed, "pooled", column.name, place)
            else:
                jagged = jagged or self._jagged(column, inputs[column.name])
                layer, read = JaggedPooling, jagged
            values = self._layers(layer, "pooled", column.name, place, **arguments)(read)
            if len(values.shape) != 2 or values.shape[1] is None:
                rule, got = "return one vector for each history, (B, d)", f"shape {tuple(values.shape)}"
                raise problem(f"The pooling {pooling.__name__} of column {column.name!r}", rule, got)
            pooled.append(Feature(values, column.sparsefeat.embedding_name))
        return pooled

    def _jagged(self, column: SequenceColumn, ids: Any) -> list[Any]:
        unique_ids, *places = self._layers(JaggedIds, "ids", column.name)(ids)
        return [self._tables.rows(column.sparsefeat, unique_ids), *places]

    def _numbers(self, column: DenseColumn, values: Any) -> Any:
        dtype = tf.as_dtype(column.dtype)
        if column.transform_fn is not None:
            dtype = _transformed_dtype(column)  # Keras 3 knows only its shape
            # In float32 under every policy: a logarithm, say, may be what makes numbers small enough for float16.
            transform = {"function": column.transform_fn, "dtype": "float32"}
            values = self._layers(keras.layers.Lambda, "transformed", column.name, **transform)(values)
        if dtype.is_floating:
            return values
        # Integers can't be concatenated with embeddings; a scale of 1 turns them into floats.
        return self._layers(keras.layers.Rescaling, "float", column.name, scale=1.0)(values)


def _transformed_dtype(column: DenseColumn) -> tf.DType:
    """The dtype of what ``transform_fn`` makes of a column, which must be vectors of numbers."""
    what, rule = f"`transform_fn` of column {column.name!r}", "make one tensor (B, d) of numbers from another"
    dtype = "float32" if column.dtype.startswith("float") else column.dtype
    trace = tf.function(lambda values: column.transform_fn(values), autograph=False)
    try:
        made = trace.get_concrete_function(tf.TensorSpec((None, column.dimension), dtype)).structured_outputs
        shape, kind = tuple(made.shape), tf.as_dtype(made.dtype)
    except Exception as error:  # whatever a function of the user's raises
        remedy = "It takes a tensor, so NumPy's functions do not work: use TensorFlow's, such as tf.math.log1p."
        got = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise problem(what, rule, got if len(got) <= 200 else f"{got[:196]} ...", remedy) from error
    if kind == tf.string or len(shape) != 2 or shape[0] is not None or shape[1] is None:
        raise problem(what, rule, f"{kind.name} of shape {shape}")
    return kind


@dataclass(frozen=True)
class DenseSettings:
    """Checked settings of dense layers, named like builders' arguments."""

    dnn_activation: Any = "relu"
    output_activation: Any = "linear"
    dnn_use_bn: bool = False
    l2_reg_dnn: float = 0.0
    dnn_dropout: float = 0.0
    seed: int = field(default=1024, kw_only=True)

    def __post_init__(self) -> None:
        check_activation("`dnn_activation`", self.dnn_activation)
        check_activation("`output_activation`", self.output_activation)
        checked = {
            "dnn_use_bn": as_flag("`dnn_use_bn`", self.dnn_use_bn),
            "l2_reg_dnn": number_between("`l2_reg_dnn`", self.l2_reg_dnn, 0, float("inf")),
            "dnn_dropout": number_between("`dnn_dropout`", self.dnn_dropout, 0, 1),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


class DenseLayers:
    """Dense layers by side; the same side returns the same layers.

    Dropout is applied to the input of each layer, not to the output of the last. A single layer, and a shortcut, is
    initialised to average the inputs that are rows of `item_table`, if their size equals the output size: user vectors
    then start close to the items of their history.
    """

    def __init__(self, settings: DenseSettings, item_table: str, layers: NamedLayers) -> None:
        self._settings, self._item_table, self._layers = settings, item_table, layers

    def __call__(self, side: str, features: Sequence[Feature], units: Sequence[int], shortcut: bool = False) -> Any:
        """(B, units[-1]), or (B, K, units[-1]) if a feature is (B, K, d); without units, the concatenated features.

        With a ``shortcut``, a linear layer of the input is added, and the last layer is initialised with zeros.
        """
        hidden = self._joined(side, [feature.values for feature in features])
        starts = [*itertools.accumulate((feature.values.shape[-1] for feature in features), initial=0)]
        from_items = [
            start
            for feature, start in zip(features, starts, strict=False)
            if feature.table == self._item_table and [*units[-1:]] == [feature.values.shape[-1]]
        ]
        linear = None
        for place, width in enumerate(units, start=1):
            is_last = place == len(units)
            hidden = self._dropped(hidden, side, place)
            if shortcut and place == 1:
                linear = self._dense(hidden, side, "linear", units[-1], self._start(side, "linear", from_items))
            start = self._start(side, place, from_items if len(units) == 1 else [])
            if shortcut and is_last:
                start = keras.initializers.Zeros()
            hidden = self._dense(hidden, side, place, width, start)
            if linear is not None and is_last:
                hidden = self._layers(keras.layers.Add, side, "added")([linear, hidden])
            activation = self._settings.output_activation if is_last else self._settings.dnn_activation
            hidden = self._activated(hidden, side, place, activation)
        return hidden

    def _joined(self, side: str, parts: list[Any]) -> Any:
        """The concatenated parts; (B, d) is repeated for each of K if another is (B, K, d)."""
        interests = [part.shape[1] for part in parts if len(part.shape) == 3]
        if interests:
            repeat = self._layers(keras.layers.RepeatVector, side, "repeat", n=interests[0])
            parts = [part if len(part.shape) == 3 else repeat(part) for part in parts]
        return parts[0] if len(parts) == 1 else self._layers(keras.layers.Concatenate, side, "features")(parts)

    def _seed(self, side: str, part: str, place: Any) -> int:
        of_side = [] if side == "user" else [side]  # the user side's seeds have no side in them
        return derived_seed(self._settings.seed, *of_side, part, place)

    def _start(self, side: str, place: Any, from_items: Sequence[int]) -> Any:
        seed = self._seed(side, "dense", place)
        return MeanOfBlocks(from_items, seed) if from_items else keras.initializers.GlorotNormal(seed=seed)

    def _dropped(self, values: Any, side: str, place: Any) -> Any:
        rate = self._settings.dnn_dropout
        if not rate:
            return values
        seed = self._seed(side, "dropout", place)
        return self._layers(RepeatableDropout, side, "dropout", place, rate=rate, seed=seed)(values)

    def _dense(self, values: Any, side: str, place: Any, units: int, start: Any) -> Any:
        l2 = self._settings.l2_reg_dnn
        dense = self._layers(
            keras.layers.Dense,
            *(side, "dense", place),
            units=units,
            kernel_initializer=start,
            kernel_regularizer=keras.regularizers.L2(l2) if l2 else None,
        )
        return dense(values)

    def _activated(self, values: Any, side: str, place: Any, activation: Any) -> Any:
        if self._settings.dnn_use_bn:
            values = self._layers(batch_normalization, side, "bn", place)(values)
        return self._layers(activation_layer, side, "activation", place, activation=activation)(values)


@register
class MeanOfBlocks(keras.initializers.Initializer):
    """Glorot's normal kernel, in which some blocks of inputs are the identity, so that the layer starts as their mean.

    Args:
        starts: The first input of each block. Each block is as wide as the layer.
        seed: Seed of the rest.
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
