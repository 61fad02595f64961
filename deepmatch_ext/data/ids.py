"""Raw ids of users or items, and their row numbers in embedding tables."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import listing, one_of, problem
from deepmatch_ext._frames import as_array
from deepmatch_ext._no_item import no_item


class IdMap:
    """Numbers raw ids from 1; id 0 is reserved for padding and for unknown values.

    The map never changes: ``values[k]`` always has id ``k + 1``, so a table stays valid as long as the map it was
    trained with is kept.

    Args:
        values: Unique raw values, all integers or all strings; their order is kept. Whole floats count as integers,
            because pandas converts integers to floats in a column that had missing values.

    Raises:
        ValueError: ``values`` is empty, has repeated or missing values, or holds neither integers nor strings.

    Example:
        >>> ids = IdMap.from_values(["tea", "milk", "tea"])
        >>> ids.values.tolist(), ids.vocabulary_size
        (['milk', 'tea'], 3)
        >>> ids.encode(["tea", "coffee", "milk"]).tolist()
        [2, 0, 1]
        >>> ids.decode([2, 1]).tolist()
        ['tea', 'milk']
    """

    def __init__(self, values: Any) -> None:
        array = raw_values("values", values).copy()  # an array of strings comes back as it is
        if array.ndim != 1 or not len(array):
            raise problem("`values`", "be a list of at least one raw id", f"shape {array.shape}")
        index = _index(array)
        if not index.is_unique:
            repeated = index[index.duplicated()].unique()
            raise problem("`values`", "be unique", listing(repeated), "IdMap.from_values() takes repeats and sorts.")
        self._values = read_only(array)

    @classmethod
    def from_values(cls, values: Any) -> IdMap:
        """The map of all values that occur, in sorted order. Values may be repeated.

        Args:
            values: Raw values in any order, such as a column of a frame.

        Raises:
            ValueError: As for ``IdMap(values)``, except that repeats are allowed.
        """
        return cls(np.sort(_index(raw_values("values", values).ravel()).unique().to_numpy()))

    def extended(self, values: Any) -> IdMap:
        """The map extended by new raw values: known values keep their ids, and new ones get the next numbers.

        Args:
            values: Raw values in any order, of the map's own kind. They may be repeated or already known.

        Returns:
            A new map, with the new values in sorted order; or the map itself if there are none.
            `RetrievalModel.extended` makes a model of the new size.

        Raises:
            ValueError: Strings for a map of integers or the reverse, or a missing value.

        Example:
            >>> ids = IdMap(["tea", "milk"])
            >>> ids.extended(["coffee", "milk", "bread"]).values.tolist()
            ['tea', 'milk', 'bread', 'coffee']
        """
        raw = raw_values("values", values).ravel()
        new = np.sort(_index(raw[self.encode(raw) == 0]).unique().to_numpy())
        return IdMap(np.concatenate([self._values, new])) if len(new) else self

    @property
    def values(self) -> np.ndarray:
        """The raw values, read-only, (len(self),): int64, or objects that are all ``str``."""
        return self._values

    @property
    def vocabulary_size(self) -> int:
        """Rows an embedding table needs: the number of raw values plus 1 for id 0."""
        return len(self._values) + 1

    @cached_property
    def no_item(self) -> int | str:
        """What id 0 decodes to: ``""``, or for integers the first of 0, -1, -2, ... that is not a raw value.

        Raises:
            ValueError: ``""`` is a raw value of the map.
        """
        return no_item("The raw values", self._values)

    def encode(self, values: Any, *, unknown: str = "padding") -> np.ndarray:
        """Ids of raw values.

        Args:
            values: Raw values of any shape, of the map's own kind (integers or strings). A missing value (None, NaN)
                counts as unknown.
            unknown: What happens to unknown values: "padding" gives them id 0, "error" raises an error.

        Returns:
            int32, in the shape of ``values``, each in 0..len(self).

        Raises:
            ValueError: Strings for a map of integers or the reverse, or unknown values with ``unknown="error"``.
        """
        one_of("`unknown`", unknown, ["padding", "error"])
        raw = as_array(values)
        flat = raw.ravel()
        present = ~pd.isna(flat)
        known = raw_values("values", flat[present])
        ids = np.zeros(len(flat), np.int32)
        if len(known):
            if known.dtype != self._values.dtype:
                own, other = ("integers", "strings") if self._values.dtype.kind == "i" else ("strings", "integers")
                raise problem("`values`", f"be {own}, as the known ids are", f"{other}, {listing(known)}")
            ids[present] = self._lookup.get_indexer(_index(known)) + 1
        if unknown == "error" and not ids.all():
            raise problem("`values`", "all be known to the id map", f"unknown {listing(pd.unique(flat[ids == 0]))}")
        return ids.reshape(raw.shape)

    def decode(self, ids: Any) -> np.ndarray:
        """Raw values of ids, which may come from `top_n`: its lists are padded with id 0 if too few items are left.

        Args:
            ids: Integers of any shape, each in 0..len(self).

        Returns:
            Raw values, in the shape of ``ids``, with `no_item` for id 0.

        Raises:
            ValueError: An id is out of range or not an integer, or one is 0 and ``""`` is a raw value.

        Example:
            >>> ids = IdMap(["tea", "milk", "bread"])
            >>> ids.decode([[3, 1], [2, 0]]).tolist()
            [['bread', 'tea'], ['milk', '']]
        """
        array = np.asarray(ids)
        if array.size == 0:
            return np.empty(array.shape, self._values.dtype)
        if array.dtype.kind not in "iu":
            raise problem("`ids`", "be integers", f"dtype {array.dtype}")
        wrong = (array < 0) | (array > len(self))
        if wrong.any():
            remedy = (
                "If a model has rows to spare: item_vectors(ids=np.arange(item_ids.vocabulary_size)) leaves them out."
            )
            raise problem("`ids`", f"lie in 0..{len(self)}", listing(np.unique(array[wrong])), remedy)
        flat = array.ravel().astype(np.int64)
        values = self._values[flat - 1]  # for id 0 some value: there is at least one
        if not flat.all():
            values[flat == 0] = self.no_item
        return values.reshape(array.shape)

    @cached_property
    def _lookup(self) -> pd.Index:
        return _index(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, value: object) -> bool:
        return value in self._lookup

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IdMap):
            return NotImplemented
        return self._values.dtype == other._values.dtype and np.array_equal(self._values, other._values)

    def __hash__(self) -> int:
        return hash((len(self), self._values[0], self._values[-1]))

    def __repr__(self) -> str:
        return f"IdMap({listing(self._values)})"


def raw_values(what: str, values: Any) -> np.ndarray:
    """``values`` as int64 or as objects that are all ``str``; anything else is refused under the name ``what``."""
    array, limit = as_array(values), np.iinfo(np.int64).max
    missing = pd.isna(array)
    if missing.any():
        got = f"{int(missing.sum())} missing of {array.size}"
        raise problem(what, "have no missing value", got, "Drop or fill them.")
    if array.dtype.kind == "O":
        kind = pd.api.types.infer_dtype(array.ravel(), skipna=False)
        if kind == "string":
            return array
        if kind not in ("integer", "floating", "mixed-integer-float", "empty"):
            raise problem(what, "be all integers or all strings", kind)
        array = np.array(array.tolist(), dtype=None if array.size else np.int64)
        if kind == "integer" and array.dtype.kind in "fO":  # as NumPy holds what 64 bits do not
            raise problem(what, "fit in 64-bit integers", f"a number past {limit}", "Pass such ids as strings.")
    if array.dtype.kind == "U":
        return array.astype(object)
    if array.dtype.kind not in "iuf":
        raise problem(what, "be all integers or all strings", f"dtype {array.dtype}")
    is_float, numbers = array.dtype.kind == "f", array
    if is_float:
        numbers = array.astype(np.result_type(array, np.float64), copy=False)
    if is_float and not (numbers == np.floor(numbers)).all():
        raise problem(what, "be whole numbers or strings", listing(numbers[numbers != np.floor(numbers)]))
    if numbers.size and (numbers.max() > limit or numbers.min() < -limit):
        raise problem(what, "fit in 64-bit integers", f"a number past {limit}", "Pass such ids as strings.")
    if is_float:
        require_exact(what, array, "Read them as integers.")
    return numbers.astype(np.int64)


def require_exact(what: str, floats: np.ndarray, remedy: str) -> None:
    """Refuses floats so large that their type does not hold every whole number: different ones may have become one."""
    limit = 2 ** (np.finfo(floats.dtype).nmant + 1)
    wrong = floats[np.abs(floats.astype(np.float64)) > limit]
    if wrong.size:
        rule = f"be at most {limit} as {floats.dtype}, which cannot tell larger ones apart"
        raise problem(what, rule, listing(wrong), remedy)


def read_only(array: np.ndarray) -> np.ndarray:
    """Makes an array of our own, and the array it is a view of, read-only. Never use it on a caller's array."""
    array.setflags(write=False)
    if isinstance(array.base, np.ndarray):  # as np.flatnonzero gives
        array.base.setflags(write=False)
    return array


def own(array: np.ndarray) -> np.ndarray:
    """The array itself if nobody can write to it, else a read-only copy.

    A caller's array stays writable and separate. Read-only views of pandas' columns change with the frame, so they are
    copied, too.
    """
    held = array
    while isinstance(held.base, np.ndarray):
        held = held.base
    closed = held.flags.owndata and not held.flags.writeable and not array.flags.writeable
    return array if closed else read_only(array.copy())


def _index(values: np.ndarray) -> pd.Index:
    # dtype=object keeps newer pandas from making its own string array of it.
    return pd.Index(values, dtype=values.dtype)
