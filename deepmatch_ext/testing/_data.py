"""Small columns of every kind, and rows in which the next item follows from the last one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import tensorflow as tf

from deepmatch_ext._keras import input_name
from deepmatch_ext.features import (
    Column,
    DenseColumn,
    SequenceColumn,
    SparseColumn,
)

VOCABULARY, DIM, MAX_LEN = 30, 8, 6
ROWS, BATCH = 512, 32  # of the training data


def planted(user: Sequence[Column], items: Sequence[Column], rows: int, seed: int) -> dict[str, np.ndarray]:
    """Random inputs of the columns; the item is the successor of the last item of a history that shares its table.

    Args:
        user: The user's columns. Histories are most recent first and padded at the end, and are never empty.
        items: The item's columns, the id first.
        rows: The number of rows.
        seed: The seed of the draws.

    Returns:
        name -> array of ``rows`` rows.
    """
    rng = np.random.default_rng(seed)
    x: dict[str, np.ndarray] = {}
    lengths: dict[str, np.ndarray] = {}
    last: dict[str, np.ndarray] = {}
    for column in [*user, *items]:
        if isinstance(column, DenseColumn):
            x[column.name] = rng.standard_normal((rows, column.dimension)).astype(column.dtype)
        elif isinstance(column, SparseColumn):
            x[column.name] = _raw(column, rng.integers(1, column.vocabulary_size, rows))
        else:
            drawn = rng.integers(1, column.maxlen + 1, rows)
            length = drawn if column.length_name is None else lengths.setdefault(column.length_name, drawn)
            valid = np.arange(column.maxlen) < np.minimum(length, column.maxlen)[:, np.newaxis]
            ids = rng.integers(1, column.sparsefeat.vocabulary_size, (rows, column.maxlen)) * valid
            x[column.name] = _raw(column.sparsefeat, ids)
            last.setdefault(column.sparsefeat.embedding_name, ids[:, 0])
            if column.length_name is not None:
                x[column.length_name] = length.astype("int32")
            if column.weight_name is not None:
                weights = rng.uniform(0.5, 2, (rows, column.maxlen, 1)) * valid[..., np.newaxis]
                x[column.weight_name] = weights.astype("float32")
    if items and isinstance(items[0], SparseColumn) and items[0].embedding_name in last:
        following = last[items[0].embedding_name] % (items[0].vocabulary_size - 1) + 1
        x[items[0].name] = _raw(items[0], following)
    return x


def with_negatives(x: Mapping[str, np.ndarray], item: str) -> dict[str, np.ndarray]:
    """Rows for a model of labelled pairs: every other row has another row's item, as `labels_for` says."""
    items = x[item].copy()
    items[1::2] = np.roll(items[1::2], 1, axis=0)
    return {**x, item: items}


def labels_for(model: Any, rows: int) -> np.ndarray | None:
    """The labels that a model takes with rows of `with_negatives`; None if it takes none."""
    return None if model.candidates is not None else (np.arange(rows) % 2 == 0).astype("float32")


def item_features(items: Sequence[Column]) -> dict[str, np.ndarray]:
    """Features of all items, as a builder's ``item_features`` takes them: name -> array (V, ...)."""
    item = items[0]
    assert isinstance(item, SparseColumn)
    return planted([], items[1:], item.vocabulary_size, 7)


def as_tensors(inputs: Sequence[Any], x: Mapping[str, Any], rows: int) -> list[tf.Tensor]:
    """The first rows of ``x`` in the shapes and types of Keras inputs."""
    tensors = []
    for tensor in inputs:
        values = tf.convert_to_tensor(x[input_name(tensor)][:rows])
        shaped = tf.reshape(values, [rows, *tensor.shape[1:]])
        dtype = tf.as_dtype(tensor.dtype)
        tensors.append(shaped if dtype == tf.string else tf.cast(shaped, dtype))
    return tensors


def _raw(column: SparseColumn, ids: np.ndarray) -> np.ndarray:
    """Ids as the column's inputs have them; padding stays 0."""
    if column.vocabulary_path:
        lines = Path(column.vocabulary_path).read_text(encoding="utf-8").splitlines()
        keys = [line.split(",", 1)[1] for line in lines if "," in line]
        text = np.array(["0", *keys], object)[np.where(ids == 0, 0, (ids - 1) % len(keys) + 1)]
        return text if column.dtype == "string" else text.astype(column.dtype)
    if column.dtype == "string":
        return np.array(["0", *(f"id-{k}" for k in range(1, column.vocabulary_size))], object)[ids]
    return ids.astype(column.dtype)


def default_item() -> SparseColumn:
    """The item's only column."""
    return SparseColumn("item", VOCABULARY, DIM, embedding_name="item")


def default_user_columns() -> list[Column]:
    """A history of items, in which the last one counts beside the mean."""
    history = SparseColumn("hist_item", VOCABULARY, DIM, embedding_name="item")
    return [SequenceColumn(history, MAX_LEN, "recency+last", "hist_len")]


def every_kind(with_item_features: bool) -> list[tuple[list[Column], list[Column]]]:
    """Pairs of user and item columns that together contain every kind of column."""
    rated = SparseColumn("hist_rated", VOCABULARY, DIM, embedding_name="item")
    category = SparseColumn("hist_category", 11, 4, embedding_name="category")
    user: list[Column] = [
        SparseColumn("user", 17, 4, dtype="int64", embedding_name="user"),
        SparseColumn("city", 19, 4, use_hash=True, dtype="string", embedding_name="city"),
        *default_user_columns(),
        SequenceColumn(category, MAX_LEN, "mean"),
        SequenceColumn(rated, MAX_LEN, "mean", "rated_len", "rating"),
        DenseColumn("age", 3),
    ]
    items: list[Column] = [default_item()]
    if with_item_features:
        of_item = SparseColumn("category", 11, 4, embedding_name="category")
        tags = SequenceColumn(SparseColumn("tags", 13, 4, embedding_name="tags"), 3, "mean")
        items += [of_item, tags, DenseColumn("price", 2)]
    text: dict[str, Any] = {"use_hash": True, "dtype": "string", "embedding_name": "item"}
    hashed = SequenceColumn(SparseColumn("hist_item", 97, DIM, **text), MAX_LEN, "recency+last", "hist_len")
    return [(user, items), ([hashed], [SparseColumn("item", 97, DIM, **text)])]


def of_size(column: Column, sizes: Mapping[str, int]) -> Column:
    """The column with the vocabulary size of its table in ``sizes``."""
    if isinstance(column, DenseColumn):
        return column
    if isinstance(column, SequenceColumn):
        sparse = of_size(column.sparsefeat, sizes)
        return dataclasses.replace(column, sparsefeat=sparse)  # type: ignore[arg-type]
    size = sizes.get(column.embedding_name, column.vocabulary_size)
    return dataclasses.replace(column, vocabulary_size=size, embeddings_initializer=None)


def is_history(column: Column) -> TypeGuard[SequenceColumn]:
    """Whether it is a column of several ids."""
    return isinstance(column, SequenceColumn)


def sparse(columns: Iterable[Column]) -> Iterator[SparseColumn]:
    """The columns that have a table."""
    for column in columns:
        if not isinstance(column, DenseColumn):
            yield column.sparsefeat if isinstance(column, SequenceColumn) else column
