"""What is known of users or items beside their events: a frame's columns as the numbers that a model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import problem
from deepmatch_ext._frames import (
    FRAMES,
    Lists,
    array_of,
    columns_of,
    is_frame,
    one_a_row,
    require_columns,
    without_objects,
)
from deepmatch_ext.data.ids import IdMap, raw_values
from deepmatch_ext.features import Column, DenseColumn, SequenceColumn, SparseColumn

FEATURE_DIM = 8
_MOST_CODES = 50  # different whole numbers that are codes, such as 0 and 1, stars, months; with more they measure
_LONGEST = 20  # of lists of values
_CATEGORY, _NUMBER, _LIST = "category", "number", "list"


@dataclass(frozen=True)
class Feature:
    """How one column is read.

    Args:
        name: The column's.
        kind: A ``category``, a ``number`` or a ``list`` of categories.
        ids: Of categories: their numbers, from 1; 0 is what is missing or new.
        mean, deviation: Of numbers, which are standardised by them; what is missing counts as the mean.
        length: Of lists: how many values are kept.
        column: The DeepCTR column.
    """

    name: str
    kind: str
    ids: IdMap | None = None
    mean: float = 0.0
    deviation: float = 1.0
    length: int = 1
    column: Column | None = None

    def encoded(self, values: Any) -> np.ndarray:
        """A column (n,) as numbers, (n,) or of lists (n, length)."""
        what = f"feature {self.name!r}"
        array = array_of(what, values)
        if isinstance(array, Lists) != (self.kind == _LIST):
            raise problem(what, f"be a {self.kind}, as it was at first", "lists" if self.kind != _LIST else "no lists")
        if self.kind == _NUMBER:
            numbers = _numbers(what, array)
            return np.where(np.isfinite(numbers), (numbers - self.mean) / self.deviation, 0.0).astype(np.float32)
        assert self.ids is not None
        if isinstance(array, Lists):
            codes = self.ids.encode(_categories(what, array.values))
            return replace(array, values=codes).padded(self.length, 0).astype(np.int32)
        return self.ids.encode(_categories(what, one_a_row(what, array)))

    def extended(self, values: Any) -> Feature:
        """With the categories that are new in a column."""
        if self.ids is None:
            return self
        what, array = f"feature {self.name!r}", array_of(f"feature {self.name!r}", values)
        flat = array.values if isinstance(array, Lists) else array.reshape(-1)
        ids = self.ids.extended(_present(_categories(what, flat)))
        return self if ids is self.ids else _with_size(replace(self, ids=ids), ids.vocabulary_size)

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it, the DeepCTR column apart, which is in the model."""
        values = asdict(replace(self, column=None, ids=None))
        return {**values, "ids": None if self.ids is None else self.ids.values.tolist()}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], column: Column) -> Feature:
        """What `plain` gave, and the column."""
        return cls(**{**values, "ids": None if values["ids"] is None else IdMap(values["ids"]), "column": column})


class FeatureTable:
    """Features of users, or of items, by their raw ids.

    Args:
        owners: The raw ids, (n,), each once.
        features: How each column is read.
        values: name -> (n, ...) as `Feature.encoded` gives them.
    """

    def __init__(self, owners: IdMap | None, features: Sequence[Feature], values: Mapping[str, np.ndarray]) -> None:
        self.owners, self.features, self.values = owners, list(features), dict(values)

    @classmethod
    def from_frame(
        cls, what: str, frame: Any, name: str, given: Mapping[str, Column]
    ) -> tuple[FeatureTable, list[str]]:
        """The table of a frame, and a line for each column that says what was made of it.

        Args:
            what: The argument's name, for error messages.
            frame: One row for each user or item, with its raw id in the column ``name``; None: nothing is known.
            name: That column.
            given: DeepCTR columns by name, for those that are to be read otherwise than their types say.
        """
        if frame is None:
            return cls(None, [], {}), []
        owners, columns = _owners(what, frame, name)
        features, lines = [], []
        for column, values in columns.items():
            is_category = _is_of_categories(values)
            feature, line = _made(column, array_of(f"{column!r} in {what}", values), given.get(column), is_category)
            lines.append(f"{column}: {line}")
            if feature is not None:
                features.append(feature)
        return cls(owners, features, {each.name: each.encoded(columns[each.name]) for each in features}), lines

    def by_id(self, ids: IdMap) -> dict[str, np.ndarray]:
        """name -> (len(ids) + 1, ...) values by id; those of id 0, and of ids of which nothing is known, are empty."""
        if self.owners is None:
            return {}
        rows = np.concatenate([[0], self.owners.encode(ids.values)])
        return {name: np.concatenate([_empty(values), values])[rows] for name, values in self.values.items()}

    def known(self, ids: IdMap) -> np.ndarray:
        """Of which ids something is known, (len(ids) + 1,)."""
        if self.owners is None or not self.features:
            return np.zeros(ids.vocabulary_size, bool)
        return np.concatenate([[False], self.owners.encode(ids.values) > 0])

    def extended(self, what: str, frame: Any, name: str) -> FeatureTable:
        """With the rows of a frame, in place of those of the same raw ids, and with its new categories."""
        if frame is None:
            return self
        if self.owners is None:
            raise problem(what, "be given to the Recommender at first, to be known later", "a frame")
        owners, columns = _owners(what, frame, name)
        require_columns(columns, [feature.name for feature in self.features], what, {})
        features = [feature.extended(columns[feature.name]) for feature in self.features]
        everyone = self.owners.extended(owners.values)
        places, values = everyone.encode(owners.values) - 1, {}
        for feature in features:
            before = self.values[feature.name]
            rows = np.concatenate([before, np.repeat(_empty(before), len(everyone) - len(before), axis=0)])
            rows[places] = feature.encoded(columns[feature.name])
            values[feature.name] = rows
        return FeatureTable(everyone, features, values)

    def columns(self) -> list[Column]:
        """The features' DeepCTR columns."""
        return [feature.column for feature in self.features if feature.column is not None]

    def sizes(self) -> dict[str, int]:
        """name -> the vocabulary size, of categories."""
        return {each.name: each.ids.vocabulary_size for each in self.features if each.ids is not None}


def _owners(what: str, frame: Any, name: str) -> tuple[IdMap, dict[str, Any]]:
    if not is_frame(frame):
        raise problem(what, f"be {FRAMES}", type(frame).__name__)
    columns = dict(columns_of(what, frame))
    if name not in columns and isinstance(frame, pd.DataFrame) and frame.index.name == name:
        columns[name] = frame.index
    require_columns(columns, [name], what, {})
    raw = raw_values(f"column {name!r} of {what}", one_a_row(f"column {name!r} of {what}", columns.pop(name)))
    twice = pd.Series(raw).duplicated()
    if twice.any():
        rule = "have each id once"
        raise problem(f"column {name!r} of {what}", rule, f"{raw[twice.to_numpy()][0]!r} more than once")
    return IdMap(raw), columns


def _made(name: str, values: np.ndarray | Lists, given: Column | None, is_category: bool) -> tuple[Feature | None, str]:
    """How a column is read, or None where it is left out, and a line that says so.

    Args:
        name, values: The column.
        given: The DeepCTR column that says how.
        is_category: Whether its type in the frame is that of categories.
    """
    what, rows = f"feature {name!r}", len(values)
    if given is None and isinstance(values, np.ndarray) and values.ndim > 1:
        return None, f"left out: an array of shape {values.shape[1:]} in each row. Give a column for each number."
    if isinstance(given, DenseColumn) or (given is None and not is_category and _is_number(values)):
        numbers = _numbers(what, values)
        good = numbers[np.isfinite(numbers)]
        if not len(good) or good.min() == good.max():
            return None, "left out: the same number everywhere"
        feature = Feature(name, _NUMBER, mean=float(good.mean()), deviation=float(good.std()))
        missing = f"; {rows - len(good)} missing, which count as the mean" if len(good) < rows else ""
        line = f'DenseFeat("{name}"), a number, standardised{missing}'
        if given is None and (good == np.floor(good)).all():
            different = len(np.unique(good))
            line += f'; {different:,} different whole numbers: if they are codes, make them .astype("category")'
        return replace(feature, column=given or DenseColumn(name)), line
    sparse = given.sparsefeat if isinstance(given, SequenceColumn) else given
    if isinstance(sparse, SparseColumn) and sparse.use_hash:
        remedy = "Categories are numbered here, and new ones get new numbers."
        raise problem(f"The column {name!r}", "be given without hashing", "use_hash=True", remedy)
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return None, "left out: moments. Make a number or a category of them."
    flat = values.values if isinstance(values, Lists) else one_a_row(what, values)
    present = _present(_categories(what, flat))
    different = len(pd.unique(present))
    if different < 2:
        return None, "left out: the same value everywhere"
    is_text = given is None and not is_category and isinstance(values, np.ndarray) and present.dtype == object
    if is_text and different > max(rows / 2, 20):
        return None, f"left out: {different:,} different texts in {rows:,} rows"
    ids = IdMap.from_values(present)
    if isinstance(values, Lists):
        length = given.maxlen if isinstance(given, SequenceColumn) else int(min(max(values.lengths.max(), 1), _LONGEST))
        sparse = SparseColumn(name, ids.vocabulary_size, FEATURE_DIM, embedding_name=name)
        feature = Feature(name, _LIST, ids, length=length, column=given or SequenceColumn(sparse, length))
        line = f'VarLenSparseFeat(SparseFeat("{name}", {ids.vocabulary_size}, {FEATURE_DIM}), {length}, "mean")'
    else:
        column = given or SparseColumn(name, ids.vocabulary_size, FEATURE_DIM, embedding_name=name)
        feature = Feature(name, _CATEGORY, ids, column=column)
        line = f'SparseFeat("{name}", {ids.vocabulary_size}, {FEATURE_DIM})'
    missing = "" if len(present) == len(flat) else f"; {len(flat) - len(present)} missing"
    if given is not None:
        return _with_size(feature, ids.vocabulary_size), f"{len(ids):,} categories, as it was given{missing}"
    return feature, f"{line}, {len(ids):,} categories{missing}"


def _with_size(feature: Feature, size: int) -> Feature:
    """The feature with a column of at least ``size`` rows."""
    column = feature.column
    if isinstance(column, SequenceColumn):
        sparse = replace(column.sparsefeat, vocabulary_size=max(size, column.sparsefeat.vocabulary_size))
        return replace(feature, column=replace(column, sparsefeat=sparse))
    assert isinstance(column, SparseColumn)
    return replace(feature, column=replace(column, vocabulary_size=max(size, column.vocabulary_size)))


def _is_of_categories(values: Any) -> bool:
    """Whether a frame's column has the type that says so: pandas' "category", Arrow's dictionary."""
    dtype = getattr(values, "dtype", None)
    arrow = getattr(dtype, "pyarrow_dtype", getattr(values, "type", None))
    return isinstance(dtype, pd.CategoricalDtype) or type(arrow).__name__ == "DictionaryType"


def _is_number(values: np.ndarray | Lists) -> bool:
    """Whether a column measures something: floats do, and whole numbers of which there are many different ones."""
    if isinstance(values, Lists):
        return False
    present = without_objects(_present(values))  # nullable integers with gaps are objects in pandas
    if present.dtype.kind not in "fiu":
        return False
    has_gaps = len(present) < len(values)
    if present.dtype.kind == "f" and not (has_gaps and (present == np.floor(present)).all()):
        return True  # integers with gaps are floats in pandas
    return len(np.unique(present)) > _MOST_CODES


def _numbers(what: str, values: Any) -> np.ndarray:
    """Numbers, (n,) float64, NaN for what is none."""
    return pd.to_numeric(pd.Series(one_a_row(what, values)), errors="coerce").to_numpy(np.float64)


def _categories(what: str, values: np.ndarray) -> np.ndarray:
    """Values as an id map takes them, missing ones still among them."""
    values = values.astype(np.int64) if values.dtype.kind == "b" else values
    if values.dtype == object:
        present = _present(values)
        if pd.api.types.infer_dtype(present, skipna=False) == "boolean":
            return pd.Series(values).map({True: 1, False: 0}).to_numpy()
    raw_values(what, _present(values))
    return values


def _present(values: np.ndarray) -> np.ndarray:
    return values[~pd.isna(values)]


def _empty(values: np.ndarray) -> np.ndarray:
    return np.zeros((1, *values.shape[1:]), values.dtype)
