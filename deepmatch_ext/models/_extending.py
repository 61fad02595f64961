"""Gives a model larger tables: it keeps what it has learnt, and new rows start from what is known about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._arrays import Seen, check_pair, check_seen
from deepmatch_ext._checks import int_at_least, problem, shown
from deepmatch_ext._distribute import has_parameter_servers
from deepmatch_ext._initializers import SAVED
from deepmatch_ext._keras import (
    compile_as_saved,
    optimizer_variables,
    raw_variable,
    require_eager,
    variables_behind,
)
from deepmatch_ext.features import Column, SequenceColumn, SparseColumn, table_columns
from deepmatch_ext.layers import CandidateSampler, EmbeddingTable, ItemCatalogue, KnownItems
from deepmatch_ext.models._catalogue import given_items
from deepmatch_ext.models._tables import layer_name

_BLOCK_ROWS = 2**16
# With this many similar items, a new item starts half way to their mean. Of 0, 10 and 30, this is best on the days of
# MovieLens 100K (benchmarks/daily.py), and hardly worse on Amazon's. With 0, all users get the newest items.
ALIKE_FOR_HALF = 30


def extended(
    model: Any,
    vocabulary_sizes: Mapping[str, int],
    item_features: Any,
    alike: Seen | None,
    sampler_config: Any,
    in_use: Mapping[str, int] | None,
    rebuilt: Callable[[Mapping[str, int], Mapping[str, Any]], Any],
) -> Any:
    """What `RetrievalModel.extended` returns.

    Args:
        model, vocabulary_sizes, item_features, alike, sampler_config, in_use: As there.
        rebuilt: Makes a new model of the builder, from V by table and the changed arguments.
    """
    require_eager("`extended`")
    if has_parameter_servers(model.distribute_strategy):
        remedy = "Save its weights, and extend it in a process of its own."
        raise problem("The model", "not be on parameter servers, to be extended", "one that is", remedy)
    columns = [*model.user_columns, *model.item_columns]
    tables = table_columns(columns)
    sizes = _sizes(vocabulary_sizes, columns, tables)
    item = model.item_columns[0]
    before = item.vocabulary_size
    used = _rows_in_use(in_use, columns, tables)
    new_items = sizes.get(item.embedding_name, before) - before
    has_catalogue = any(isinstance(layer, ItemCatalogue) for layer in model.layers)
    changed = {} if sampler_config is None else {"sampler_config": sampler_config}
    if item_features is not None:
        if not has_catalogue:
            raise problem("`item_features`", "be left out of a model that was built without them", "some")
        changed["item_features"] = item_features
        _check_described(item, item_features, before, new_items)
    elif new_items and has_catalogue:
        remedy = "Give those of the new items, by item id; what is known of the others is kept."
        raise problem("`item_features`", "be given for new items, as the model was built with features", None, remedy)
    first_new = used[item.embedding_name]
    starts = None if alike is None else _check_alike(alike, before + new_items - first_new, first_new)
    _check_pretrained(tables, sizes, item.embedding_name if starts is not None and np.diff(starts[0]).all() else None)
    with model.distribute_strategy.scope():
        larger = rebuilt(sizes, changed)
        _copy_layers(model, larger, item.embedding_name, used, starts, item_features, sampler_config is not None)
        _copy_compilation(model, larger)
    return larger


def _sizes(given: Any, columns: list[Column], tables: Mapping[str, list[SparseColumn]]) -> dict[str, int]:
    """V by table, of the tables that grow."""
    if not isinstance(given, Mapping):
        raise problem("`vocabulary_sizes`", "map names of columns to their new sizes", shown(given))
    table_of = _table_of(columns, tables)
    sizes: dict[str, int] = {}
    for name, size in given.items():
        if name not in table_of:
            raise problem("`vocabulary_sizes`", f"have names of columns with ids, {sorted(table_of)}", repr(name))
        column = tables[table_of[name]][0]
        if column.use_hash:
            remedy = "Hashed ids have room for new ones; with more buckets the old ones would move."
            raise problem(f"Column {name!r}", "not be hashed, to be extended", "use_hash=True", remedy)
        what = f"The size of {name!r} in `vocabulary_sizes`"
        size = int_at_least(what, size, column.vocabulary_size, "Tables don't shrink.")
        if sizes.setdefault(table_of[name], size) != size:
            raise problem(what, f"be {sizes[table_of[name]]}, as another column of its table has", size)
    return sizes


def _table_of(columns: list[Column], tables: Mapping[str, list[SparseColumn]]) -> dict[str, str]:
    """The table of each column of ids, by the column's name or the table's own."""
    sparse = [column.sparsefeat if isinstance(column, SequenceColumn) else column for column in columns]
    table_of = {each.name: each.embedding_name for each in sparse if isinstance(each, SparseColumn)}
    return table_of | {name: name for name in tables}


def _rows_in_use(given: Any, columns: list[Column], tables: Mapping[str, list[SparseColumn]]) -> dict[str, int]:
    """How many rows of each table are kept: all, if its values were given, since they may include those of new ids."""
    if given is not None and not isinstance(given, Mapping):
        raise problem("`in_use`", "map names of columns to numbers of rows", shown(given))
    table_of = _table_of(columns, tables)
    used: dict[str, int] = {}
    for name, rows in (given or {}).items():
        if name not in table_of:
            raise problem("`in_use`", f"have names of columns with ids, {sorted(table_of)}", repr(name))
        column, what = tables[table_of[name]][0], f"The number of {name!r} in `in_use`"
        if column.use_hash:
            raise problem(f"Column {name!r}", "not be hashed, to have rows to spare", "use_hash=True")
        most = column.vocabulary_size
        if (rows := int_at_least(what, rows, 2)) > most:
            raise problem(what, f"be at most the table's rows, {most}", rows)
        used[table_of[name]] = max(rows, used.get(table_of[name], 0))  # another column may share the table
    return {
        name: each[0].vocabulary_size if _holds_an_array(each) else used.get(name, each[0].vocabulary_size)
        for name, each in tables.items()
    }


def _holds_an_array(columns: list[SparseColumn]) -> bool:
    """Whether the values of a table were given."""
    given = [column.embeddings_initializer for column in columns if column.embeddings_initializer is not None]
    return any(each.plain() == SAVED for each in given)


def _check_pretrained(tables: Mapping[str, list[SparseColumn]], sizes: Mapping[str, int], known: str | None) -> None:
    """Refuses to invent rows of tables whose values were given, except ``known``."""
    for name, size in sizes.items():
        grows = size > tables[name][0].vocabulary_size
        if grows and name != known and _holds_an_array(tables[name]):
            rule, remedy = "be initialised by an initializer, to be extended", "Build a model with a larger array."
            raise problem(f"The table {name!r}", rule, "an array", remedy)


def _check_alike(alike: Any, new_items: int, first_new: int) -> Seen:
    """``alike`` for all new items; those that it does not cover have no similar items."""
    rows = min(max(np.size(check_pair("`alike`", alike)[0]) - 1, 0), new_items)
    indptr, items = check_seen("`alike`", alike, rows, first_new)
    return np.pad(indptr, (0, new_items - rows), "edge"), items


def _check_described(item: SparseColumn, item_features: Any, before: int, new_items: int) -> None:
    missing = np.setdiff1d(np.arange(before, before + new_items), given_items(item, item_features, before + new_items))
    if len(missing):
        got = f"none of the item ids {missing[:5].tolist()}" + ("..." if len(missing) > 5 else "")
        raise problem("`item_features`", "describe each new item", got)


def _copy_layers(
    model: Any,
    larger: Any,
    item_table: str,
    used: Mapping[str, int],
    starts: Seen | None,
    item_features: Any,
    new_sampler: bool,
) -> None:
    layers = {layer.name: layer for layer in model.layers}
    has_unknown = any(isinstance(layer, KnownItems) for layer in model.layers)
    rows_of = {layer_name("table", name): rows for name, rows in used.items()}
    for layer in larger.layers:
        old = layers[layer.name]
        if isinstance(layer, CandidateSampler) and new_sampler:
            _copy(old.step, layer.step)
        elif isinstance(layer, CandidateSampler):
            _copy_sampler(old, layer)
        elif isinstance(layer, ItemCatalogue) and item_features is not None:
            given = given_items(model.item_columns[0], item_features, layer.vocabulary_size)
            kept = np.setdiff1d(range(old.vocabulary_size), given)
            for theirs, ours in zip(old.weights, layer.weights, strict=True):
                _copy(theirs, ours, kept)
        elif isinstance(layer, EmbeddingTable):
            kept = rows_of.get(layer.name, old.vocabulary_size)
            _copy(old.embeddings, layer.embeddings, None if kept == old.vocabulary_size else np.arange(kept))
            if layer.vocabulary_size == kept:
                continue
            table, new = raw_variable(old.embeddings), range(kept, layer.vocabulary_size)
            if layer.name != layer_name("table", item_table):
                _write(layer.embeddings, new, _mean(table, range(1, kept)))
                continue
            if has_unknown:  # the row of items that are known by their features alone
                _write(layer.embeddings, new, table[:1])
            if starts is not None:
                _write_means(table, layer.embeddings, starts, kept)
        else:
            for theirs, ours in zip(old.weights, layer.weights, strict=True):
                _copy(theirs, ours)


def _copy_sampler(old: Any, layer: Any) -> None:
    state = {name: weight.numpy() for name, weight in old._variables().items()}
    for name, values in layer.sampler.grown(state, layer.vocabulary_size).items():
        for copy in variables_behind(layer._state[name]):
            copy.assign(values)
    _copy(old.step, layer.step)


def _copy(theirs: Any, ours: Any, rows: Any = None) -> None:
    """Copies a weight, or ``rows`` of it, into one that may have more of them."""
    source = raw_variable(theirs)
    if rows is None and tuple(source.shape) == tuple(ours.shape):
        for copy in variables_behind(ours):
            copy.assign(source)
        return
    rows = np.arange(source.shape[0]) if rows is None else rows
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = tf.constant(rows[start : start + _BLOCK_ROWS], tf.int64)
        values = tf.gather(source, block)
        for copy in variables_behind(ours):
            copy.scatter_update(tf.IndexedSlices(values, block))


def _write(weight: Any, rows: range, value: tf.Tensor) -> None:
    """Writes one row's value (1, D) to ``rows``."""
    for start in range(rows.start, rows.stop, _BLOCK_ROWS):
        block = tf.range(start, min(start + _BLOCK_ROWS, rows.stop), dtype=tf.int64)
        for copy in variables_behind(weight):
            copy.scatter_update(tf.IndexedSlices(tf.repeat(tf.cast(value, copy.dtype), tf.size(block), axis=0), block))


def _mean(table: tf.Variable, rows: range) -> tf.Tensor:
    total = tf.zeros([1, table.shape[1]], tf.float32)
    for start in range(rows.start, rows.stop, _BLOCK_ROWS):
        block = tf.range(start, min(start + _BLOCK_ROWS, rows.stop))
        total += tf.reduce_sum(tf.cast(tf.gather(table, block), tf.float32), axis=0, keepdims=True)
    return total / len(rows)


def _write_means(table: tf.Variable, weight: Any, starts: Seen, first_new: int) -> None:
    """Rotates each new row from its random start towards the mean of the rows of similar items.

    The fewer similar items there are, the smaller the rotation. A mean is near many users' vectors, so an item with a
    single known event would otherwise be recommended to everybody. The new row gets the mean length of those rows,
    since an optimizer's first steps rotate a short row far.
    """
    indptr, items = starts
    number = np.diff(indptr)
    new = np.repeat(np.arange(len(number)), number)
    total, length = np.zeros((len(number), table.shape[1]), np.float32), np.zeros((len(number), 1), np.float32)
    for start in range(0, len(items), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        of_items = tf.cast(tf.gather(table, items[block]), tf.float32).numpy()
        np.add.at(total, new[block], of_items)
        np.add.at(length, new[block], np.linalg.norm(of_items, axis=1, keepdims=True))
    some = np.flatnonzero(number)
    rows, count = first_new + some, number[some, np.newaxis].astype(np.float32)
    by_chance = tf.cast(tf.gather(raw_variable(weight), rows), tf.float32).numpy()
    share = count / (count + ALIKE_FOR_HALF)
    direction = _unit(share * _unit(total[some]) + (1 - share) * _unit(by_chance))
    values = tf.constant(length[some] / count * direction, tf.float32)
    for copy in variables_behind(weight):
        copy.scatter_update(tf.IndexedSlices(tf.cast(values, copy.dtype), rows))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _copy_compilation(model: Any, larger: Any) -> None:
    """Compiles the larger model like the other one, with its optimizer's state."""
    if getattr(model, "optimizer", None) is None:
        return
    compile_as_saved(larger, model.get_compile_config())
    if int(raw_variable(model.optimizer.iterations)):
        for theirs, ours in zip(optimizer_variables(model), optimizer_variables(larger), strict=True):
            _copy(theirs, ours)
