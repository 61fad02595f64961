"""Ids of items as the caller has them, integers or strings, and the rows that an index knows them by."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import ALL_ITEMS, check_pair, check_seen, is_pair
from deepmatch_ext._checks import listing, problem, shown
from deepmatch_ext._frames import as_array
from deepmatch_ext._no_item import no_item


def raw_ids(what: str, values: Any) -> np.ndarray:
    """``values`` as a new array of integers of their own type, or of objects that are all ``str``: (V,)."""
    array = as_array(values)
    if array.ndim != 1:
        raise problem(what, "be one-dimensional", f"shape {array.shape}")
    if not array.size:  # NumPy makes an empty list a float array
        return np.empty(0, np.int64)
    if array.dtype.kind in "iu":
        return array.astype(array.dtype.newbyteorder("="))  # pandas takes the machine's order of bytes alone
    kind = "string" if array.dtype.kind in "UT" else pd.api.types.infer_dtype(array, skipna=False)
    if kind == "string":
        return np.array(array.tolist(), dtype=object)
    if kind == "integer":
        array = np.array(array.tolist())
        if array.dtype.kind in "iu":
            return array
        kind = "integers past 64 bits"  # NumPy makes floats or objects of them
    raise problem(what, "be all integers or all strings", kind if kind != "mixed" else "values of several kinds")


def raw_seen(what: str, seen: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """What each of ``rows`` users must not get, in CSR form: (indptr (rows + 1,), ids by `raw_ids`)."""
    indptr, items = check_pair(what, seen)
    ids = raw_ids(f"the ids of {what}", items)
    return check_seen(what, (indptr, np.zeros(len(ids), np.int64)), rows)[0], ids


def raw_among(what: str, among: Any, rows: int) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """The items that may be recommended: ids (m,) by `raw_ids` for all users, or by `raw_seen` a set for each."""
    if is_pair(among):
        return raw_seen(what, among, rows)
    values = as_array(among)
    if values.size and isinstance(values.flat[0], bool | np.bool_):
        raise problem(what, "hold ids", f"a mask of shape {values.shape}", "`index.ids[mask]` makes ids of it.")
    if values.ndim != 1:
        rule = "be ids (m,), a set for all users, or a pair (indptr, ids), a set for each"
        raise problem(what, rule, shown(among))
    if not len(values):
        raise problem(what, "hold at least one id", "none", ALL_ITEMS)
    return raw_ids(what, values)


def require_kind(what: str, ids: np.ndarray, are_strings: bool, whose: str) -> None:
    """Refuses integers if ids are strings, and the reverse."""
    if len(ids) and (ids.dtype == object) != are_strings:
        own, other = ("strings", "integers") if are_strings else ("integers", "strings")
        raise problem(what, f"be {own}, as {whose} ids are", f"{other}, {listing(ids)}")


def require_unique(what: str, ids: np.ndarray, remedy: str = "Keep one vector for each item.") -> None:
    """Refuses repeated ids."""
    index = _index(ids)
    if not index.is_unique:
        raise problem(what, "be unique", f"{listing(index[index.duplicated()].unique())} repeated", remedy)


class Ids:
    """The ids of an index; id number ``k`` belongs to row ``k``.

    Args:
        values: (V,) as from `raw_ids`, unique.

    Attributes:
        no_item: The id at positions without an item.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.no_item = no_item("`ids`", values)
        self._and_no_item = np.append(values, np.array([self.no_item], values.dtype))
        self._and_no_item.setflags(write=False)
        self.values = self._and_no_item[:-1]

    @property
    def dtype(self) -> str:
        """ "string", or the name of the integers' type."""
        return "string" if self.values.dtype == object else self.values.dtype.name

    def rows(self, what: str, ids: Any) -> np.ndarray:
        """The row of each of ``ids``, (k,) int64; -1 for unknown ones."""
        ids = raw_ids(what, ids)
        if not len(ids):
            return np.empty(0, np.int64)
        require_kind(what, ids, self.values.dtype == object, "the index's")
        if self.values.dtype == object:
            return self._lookup.get_indexer(_index(ids))
        # pandas would compare a mixture of signed and unsigned as floats.
        able = fits(ids, self.values.dtype)
        rows = self._lookup.get_indexer(_index(np.where(able, ids, ids.dtype.type(0)).astype(self.values.dtype)))
        return np.where(able, rows, -1)

    def joined(self, what: str, ids: np.ndarray) -> Ids:
        """These ids followed by further ones, which must be new."""
        require_kind(what, ids, self.values.dtype == object, "the index's")
        if self.values.dtype != object and not fits(ids, self.values.dtype).all():
            wrong = ids[~fits(ids, self.values.dtype)]
            raise problem(what, f"fit in {self.values.dtype}, the type of the index's ids", listing(wrong))
        there = self.rows(what, ids) >= 0
        if there.any():
            got = f"{listing(ids[there])}, which the index has"
            raise problem(what, "be new", got, "replace() takes new vectors for known items.")
        return Ids(np.concatenate([self.values, ids.astype(self.values.dtype)]))

    def at(self, rows: np.ndarray) -> np.ndarray:
        """The ids of ``rows`` of any shape; `no_item` where the row is -1."""
        return self._and_no_item[rows]

    @cached_property
    def _lookup(self) -> pd.Index:
        return _index(self.values)

    def __len__(self) -> int:
        return len(self.values)


def fits(ids: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Which of some integers another type of integers can hold."""
    bounds = np.iinfo(dtype)
    return (ids >= bounds.min) & (ids <= bounds.max)


def _index(values: np.ndarray) -> pd.Index:
    # dtype=object keeps newer pandas from making its own string array of it.
    return pd.Index(values, dtype=values.dtype)
