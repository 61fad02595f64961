"""What is known about users or items besides their events: a frame's columns as the numbers that a model reads."""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import listing, problem, warn_caller
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
from deepmatch_ext.features import Column, DenseColumn, SequenceColumn, SparseColumn, column_config, read_columns
from deepmatch_ext.models._input_rules import LARGEST_NUMBER

FEATURE_DIM = 8
_MOST_CODES = 50  # up to so many different whole numbers are codes, such as stars or months; more are measurements
_LONGEST = 20  # of lists of values
_CATEGORY, _NUMBER, _LIST = "category", "number", "list"
_TEXT, _BOOLEANS, _NUMBERS, _WHOLE_NUMBERS = "text", "booleans", "finite numbers", "whole numbers"


@dataclass(frozen=True)
class Feature:
    """How one column is read.

    Args:
        name: The column's name.
        kind: A ``category``, a ``number`` or a ``list`` of categories.
        holds: What its values were in the first frame, and must be in later ones: ``text``, ``booleans``,
            ``finite numbers`` or ``whole numbers``.
        ids: For categories: their numbers, from 1; 0 stands for missing and new ones.
        mean, deviation: For numbers: the mean and standard deviation to standardise them; 0 and 1 where the column's
            ``transform_fn`` reads them as they are.
        missing: What a missing number is read as: the mean, which is 0 where numbers are standardised.
        length: For lists: how many values are kept.
        column: The DeepCTR column.
    """

    name: str
    kind: str
    holds: str
    ids: IdMap | None = None
    mean: float = 0.0
    deviation: float = 1.0
    missing: float = 0.0
    length: int = 1
    column: Column | None = None

    def encoded(self, values: Any) -> np.ndarray:
        """A column (n,) as numbers, (n,) or of lists (n, length)."""
        array = self._checked(values)
        if isinstance(array, Lists):
            assert self.ids is not None
            codes = self.ids.encode(_categories(array.values))
            return replace(array, values=codes).padded(self.length, 0).astype(np.int32)
        if self.ids is not None:
            return self.ids.encode(_categories(array))
        floats = _floats(array)
        _require_size(f"feature {self.name!r}", floats)
        standardised = (floats - self.mean) / self.deviation
        return np.where(np.isnan(standardised), self.missing, standardised).astype(np.float32)

    def empty(self, values: np.ndarray) -> np.ndarray:
        """What stands for an unknown owner beside encoded ``values`` (n, ...): (1, ...)."""
        return np.full((1, *values.shape[1:]), self.missing, values.dtype)

    def extended(self, values: Any) -> Feature:
        """The feature with a column's new categories added."""
        if self.ids is None:
            return self
        array = self._checked(values)
        ids = self.ids.extended(_present(_categories(array.values if isinstance(array, Lists) else array)))
        return self if ids is self.ids else _with_size(replace(self, ids=ids), ids.vocabulary_size)

    def _checked(self, values: Any) -> np.ndarray | Lists:
        """A column as an array (n,) or as lists. Raises an error if it holds other values than the first frame's."""
        what = f"feature {self.name!r}"
        array = _read(what, values)
        if isinstance(array, Lists) != (self.kind == _LIST):
            had, got = ("lists", "none") if self.kind == _LIST else ("one value in each row", "lists")
            raise problem(what, f"hold {had}, as in the first frame", got)
        array = array if isinstance(array, Lists) else one_a_row(what, array)
        _require(what, array.values if isinstance(array, Lists) else array, self.holds, ", as in the first frame")
        return array

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        values = asdict(replace(self, column=None, ids=None))
        ids = None if self.ids is None else self.ids.values.tolist()
        return {**values, "ids": ids, "column": None if self.column is None else column_config(self.column)}

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Feature:
        """What `plain` gave."""
        ids = None if values["ids"] is None else IdMap(values["ids"])
        column = None if values["column"] is None else read_columns("columns", [values["column"]])[0]
        return cls(**{**values, "ids": ids, "column": column})


class FeatureTable:
    """Features of users, or of items, by their raw ids.

    Args:
        owners: The raw ids, (n,), each once.
        features: How each column is read.
        values: name -> (n, ...) as `Feature.encoded` gives them.
        left_out: The names of the first frame's other columns.
    """

    def __init__(
        self,
        owners: IdMap | None,
        features: Sequence[Feature],
        values: Mapping[str, np.ndarray],
        left_out: Sequence[str] = (),
    ) -> None:
        self.owners, self.features, self.values, self.left_out = owners, list(features), dict(values), list(left_out)

    @classmethod
    def from_frame(
        cls, what: str, frame: Any, name: str, given: Mapping[str, Column]
    ) -> tuple[FeatureTable, list[str]]:
        """The table of a frame, and a line for each column that says what was made of it.

        Args:
            what: The argument's name, for error messages.
            frame: One row for each user or item, with its raw id in the column ``name``; None: nothing is known.
            name: That column.
            given: DeepCTR columns by name, for those to be read in another way than their types suggest.
        """
        if frame is None:
            return cls(None, [], {}), []
        owners, columns = _owners(what, frame, name)
        features, lines, left_out = [], [], []
        for column, values in columns.items():
            is_category = _is_of_categories(values)
            feature, line = _made(column, _read(f"{column!r} in {what}", values), given.get(column), is_category)
            lines.append(f"{column}: {line}")
            if feature is not None:
                features.append(feature)
            else:
                left_out.append(column)
        values = {each.name: each.encoded(columns[each.name]) for each in features}
        return cls(owners, features, values, left_out), lines

    def by_id(self, ids: IdMap) -> dict[str, np.ndarray]:
        """name -> (len(ids) + 1, ...) values by id; empty for id 0 and for ids about which nothing is known."""
        if self.owners is None:
            return {}
        rows = np.concatenate([[0], self.owners.encode(ids.values)])
        of_all = ((each, self.values[each.name]) for each in self.features)
        return {each.name: np.concatenate([each.empty(values), values])[rows] for each, values in of_all}

    def known(self, ids: IdMap) -> np.ndarray:
        """About which ids something is known, (len(ids) + 1,)."""
        if self.owners is None or not self.features:
            return np.zeros(ids.vocabulary_size, bool)
        return np.concatenate([[False], self.owners.encode(ids.values) > 0])

    def extended(self, what: str, frame: Any, name: str) -> FeatureTable:
        """The table with a frame's new categories and its rows, which replace those with the same raw ids.

        Warns:
            UserWarning: The frame has columns that the first one did not have; they are not read.
        """
        if frame is None:
            return self
        if self.owners is None:
            rule = "be left out, as the Recommender was made without it"
            raise problem(what, rule, "a frame", "Make a Recommender with it, and fit that.")
        owners, columns = _owners(what, frame, name)
        require_columns(columns, [feature.name for feature in self.features], what, {})
        read = {*self.left_out, *(feature.name for feature in self.features)}
        if unknown := [each for each in columns if each not in read]:
            these = ", ".join(map(repr, unknown))
            warn_caller(
                f"{what} has columns that the first frame did not have, and the model does not read them: {these}. "
                "Make and fit a Recommender with them if they matter.",
                UserWarning,
            )
        check_same_kind(f"column {name!r} of {what}", owners.values, self.owners, "as in the first frame")
        features = [feature.extended(columns[feature.name]) for feature in self.features]
        everyone = self.owners.extended(owners.values)
        places, values = everyone.encode(owners.values) - 1, {}
        for feature in features:
            before = self.values[feature.name]
            rows = np.concatenate([before, np.repeat(feature.empty(before), len(everyone) - len(before), axis=0)])
            rows[places] = feature.encoded(columns[feature.name])
            values[feature.name] = rows
        return FeatureTable(everyone, features, values, self.left_out)

    def columns(self) -> list[Column]:
        """The features' DeepCTR columns."""
        return [feature.column for feature in self.features if feature.column is not None]

    def sizes(self) -> dict[str, int]:
        """name -> the vocabulary size, of categories."""
        return {each.name: each.ids.vocabulary_size for each in self.features if each.ids is not None}


def check_same_kind(what: str, raw: np.ndarray, ids: IdMap, why: str) -> None:
    """Refuses raw ids of another type than those of a map: text where it has integers, or the reverse."""
    kinds = {"i": "integers", "O": "strings"}
    if raw.dtype != ids.values.dtype:
        got = f"{kinds[raw.dtype.kind]}, {listing(raw)}"
        raise problem(what, f"hold {kinds[ids.values.dtype.kind]}, {why}", got, "Convert one of the two columns.")


def _owners(what: str, frame: Any, name: str) -> tuple[IdMap, dict[str, Any]]:
    if not is_frame(frame):
        raise problem(what, f"be {FRAMES}", type(frame).__name__)
    columns = dict(columns_of(what, frame))
    if name not in columns and isinstance(frame, pd.DataFrame) and frame.index.name == name:
        columns[name] = frame.index
    require_columns(columns, [name], what, {})
    raw = raw_values(f"column {name!r} of {what}", one_a_row(f"column {name!r} of {what}", columns.pop(name)))
    if not len(raw):
        raise problem(what, "have at least one row", "an empty frame", "Leave it out if nothing is known.")
    twice = pd.Series(raw).duplicated()
    if twice.any():
        rule = "have each id once"
        raise problem(f"column {name!r} of {what}", rule, f"{raw[twice.to_numpy()][0]!r} more than once")
    return IdMap(raw), columns


def _read(what: str, values: Any) -> np.ndarray | Lists:
    """A frame's column, with Python's decimals as floats."""
    array = array_of(what, values)
    if isinstance(array, Lists) or pd.api.types.infer_dtype(array.ravel(), skipna=True) != "decimal":
        return array
    return _floats(one_a_row(what, array))


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
        values = one_a_row(what, values)
        holds = _BOOLEANS if _are_booleans(values) else _NUMBERS
        _require(what, values, holds)
        good = _floats(_present(values))
        _require_size(what, good)
        if not len(good) or good.min() == good.max():
            return None, "left out: the same number everywhere"
        mean = float(good.mean())
        feature, how = Feature(name, _NUMBER, holds, mean=mean, deviation=float(good.std())), "standardised"
        if given is not None and given.transform_fn is not None:
            feature, how = Feature(name, _NUMBER, holds, missing=mean), "as it is, for its transform_fn"
        missing = f"; {rows - len(good)} missing, which count as the mean" if len(good) < rows else ""
        line = f'DenseFeat("{name}"), a number, {how}{missing}'
        if given is None and (good == np.floor(good)).all():
            different = len(np.unique(good))
            line += f'; {different:,} different whole numbers: if they are codes, make them .astype("category")'
        return replace(feature, column=given or DenseColumn(name)), line
    sparse = given.sparsefeat if isinstance(given, SequenceColumn) else given
    if isinstance(sparse, SparseColumn) and sparse.use_hash:
        remedy = "Categories are numbered here, and new ones get new numbers."
        raise problem(f"The column {name!r}", "be given without hashing", "use_hash=True", remedy)
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return None, "left out: datetimes. Make a number or a category of them."
    flat = values.values if isinstance(values, Lists) else one_a_row(what, values)
    present = _present(_categories(flat))
    raw_values(what, present)
    different = len(pd.unique(present))
    if different < 2:
        return None, "left out: the same value everywhere"
    is_text = given is None and not is_category and isinstance(values, np.ndarray) and present.dtype == object
    if is_text and different > max(rows / 2, 20):
        return None, f"left out: {different:,} different texts in {rows:,} rows"
    ids = IdMap.from_values(present)
    holds = _TEXT if ids.values.dtype == object else _BOOLEANS if _are_booleans(flat) else _WHOLE_NUMBERS
    if isinstance(values, Lists):
        length = given.maxlen if isinstance(given, SequenceColumn) else int(min(max(values.lengths.max(), 1), _LONGEST))
        sparse = SparseColumn(name, ids.vocabulary_size, FEATURE_DIM, embedding_name=name)
        feature = Feature(name, _LIST, holds, ids, length=length, column=given or SequenceColumn(sparse, length))
        line = f'VarLenSparseFeat(SparseFeat("{name}", {ids.vocabulary_size}, {FEATURE_DIM}), {length}, "mean")'
    else:
        column = given or SparseColumn(name, ids.vocabulary_size, FEATURE_DIM, embedding_name=name)
        feature = Feature(name, _CATEGORY, holds, ids, column=column)
        line = f'SparseFeat("{name}", {ids.vocabulary_size}, {FEATURE_DIM})'
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            line += f', whole numbers with gaps (if they measure something: columns=[DenseFeat("{name}", 1)])'
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
    """Whether a column measures something: floats do, and so do whole numbers with many different values."""
    if isinstance(values, Lists):
        return False
    present = without_objects(_present(values))  # nullable integers with gaps are objects in pandas
    if present.dtype.kind not in "fiu":
        return False
    has_gaps = len(present) < len(values)
    if present.dtype.kind == "f" and not (has_gaps and (present == np.floor(present)).all()):
        return True  # integers with gaps are floats in pandas
    return len(np.unique(present)) > _MOST_CODES


def _require(what: str, values: np.ndarray, holds: str, why: str = "") -> None:
    """Refuses a column in which a value, (n,), is neither missing nor what the column must hold.

    Text is refused where there were numbers even if it can be read as one: "1,5" and "N/A" stand beside "1.5".
    """
    kinds = _kinds(values)
    of_numbers = kinds == _NUMBERS
    fits = pd.isna(values)
    if holds in (_TEXT, _BOOLEANS):
        fits |= kinds == holds
    if holds != _TEXT and of_numbers.any():
        floats = np.full(len(values), np.nan)
        floats[of_numbers] = _floats(values[of_numbers])
        if holds == _BOOLEANS:
            fits |= np.isin(floats, [0, 1])
        else:
            fits |= np.isfinite(floats) & ((holds == _NUMBERS) | (floats == np.floor(floats)))
    if fits.all():
        return
    wrong = np.flatnonzero(~fits)
    own_name = "numbers" if holds == _TEXT else "other numbers"
    found = [own_name if kind == _NUMBERS else kind for kind in pd.unique(kinds[wrong])]
    first = pd.Series(values[wrong[:1]]).iloc[0]
    got = f"{' and '.join(found)} in {len(wrong):,} of {len(values):,} values"
    got += f", such as {repr(first) if isinstance(first, str) else first}"
    remedy = "Convert the column first."
    if holds in (_NUMBERS, _WHOLE_NUMBERS) and _TEXT in found:
        remedy = 'pd.to_numeric(column, errors="coerce") reads numbers from text; all else becomes missing.'
    elif holds == _NUMBERS and found == [own_name]:
        remedy = "column.replace([np.inf, -np.inf], np.nan) makes them missing."
    raise problem(what, f"hold {holds}{why}", got, remedy)


def _require_size(what: str, floats: np.ndarray) -> None:
    """Refuses numbers, (n,), next to which all others are the same: their deviation can overflow."""
    is_large = np.abs(floats) > LARGEST_NUMBER
    if is_large.any():
        got = f"{floats[is_large][0]:g} in {int(is_large.sum()):,} of {len(floats):,} values"
        remedy = "If it stands for a missing number, column.replace(number, np.nan) says so; else divide the column."
        raise problem(what, f"hold numbers of at most {LARGEST_NUMBER:g} in size", got, remedy)


def _kinds(values: np.ndarray) -> np.ndarray:
    """What each value is: text, booleans, finite numbers (or others), or a name for anything else, (n,)."""
    if values.dtype == object:
        named = {kind: _kind(kind) for kind in set(map(type, values))}
        return np.array([named[type(value)] for value in values], dtype=object)
    return np.broadcast_to(np.array(_kind(values.dtype.type), dtype=object), values.shape)


def _kind(kind: type) -> str:
    if issubclass(kind, str):
        return _TEXT
    if issubclass(kind, bool | np.bool_):
        return _BOOLEANS
    if issubclass(kind, numbers.Real | Decimal) and not issubclass(kind, np.timedelta64):
        return _NUMBERS
    if issubclass(kind, datetime.date | np.datetime64):
        return "datetimes"
    return f"values of the type {kind.__name__}"


def _are_booleans(values: np.ndarray) -> bool:
    return bool((_kinds(_present(values)) == _BOOLEANS).all())


def _floats(values: np.ndarray) -> np.ndarray:
    """Numbers or booleans as float64, NaN for missing ones, (n,)."""
    floats, is_present = np.full(len(values), np.nan), ~pd.isna(values)
    floats[is_present] = values[is_present].astype(np.float64)
    return floats


def _categories(values: np.ndarray) -> np.ndarray:
    """Values as an id map takes them, missing ones still among them."""
    if values.dtype.kind == "b":
        return values.astype(np.int64)
    if values.dtype == object and len(present := _present(values)) and _are_booleans(present):
        return pd.Series(values).map({True: 1, False: 0}).to_numpy()
    return values


def _present(values: np.ndarray) -> np.ndarray:
    return values[~pd.isna(values)]
