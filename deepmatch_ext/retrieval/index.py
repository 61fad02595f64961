"""The base of all indexes of vectors, and the recall of an index."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from deepmatch_ext._arrays import ALL_ITEMS, Seen, check_users, seen_pairs, seen_rows
from deepmatch_ext._checks import instance_of, listing, one_of, positive_int, problem
from deepmatch_ext._folders import Write
from deepmatch_ext._interests import best_first
from deepmatch_ext._version import __version__
from deepmatch_ext.retrieval.rows import Ids, raw_among, raw_ids, raw_seen, require_unique
from deepmatch_ext.retrieval.vector_files import (
    INDEX_FOLDER,
    METRICS,
    check_items,
    read_ids,
    write_ids,
)

# Products of entries within this stay far inside float32.
_LARGEST = 1e15
# Candidates held at once: rows and scores of 12 bytes each, and their sorting.
_CANDIDATES = 2**22
_KINDS = ("exact_index", "faiss_index", "scann_index")  # modules, which import this one

Find = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


class VectorIndex(ABC):
    """The vectors of items under your own ids, and the search for those nearest to users' vectors.

    `ExactIndex`, `FaissIndex` and `ScannIndex` are subclasses. An index is built from ids and vectors. The metric and
    the type of the ids are saved with it.

    Several threads may search at once, but not while `add`, `replace` or `remove` run. A server that must not pause can
    change or load a second index, and then use it instead of the first.

    Args:
        ids: The items' ids, (V,): integers of any type, or strings. Each once.
        vectors: The items' vectors, (V, D), taken as float32; they are copied.
        metric: "inner_product", or "cosine": the inner product of L2-normalised vectors; the items' vectors are
            normalised here, and the users' in `search`.

    Attributes:
        metric: As given.
        dimension: D, the size of a vector.

    Raises:
        ValueError: Ids are repeated or neither integers nor strings, one is ``""``, or there are none; vectors are not
            finite, larger than 1e15, or don't fit the ids; or, with "cosine", one is of length zero.

    Example:
        >>> import tempfile
        >>> from deepmatch_ext.retrieval import ExactIndex
        >>> index = ExactIndex(["tea", "milk", "salt"], [[1, 3], [2, 2], [3, 1]])
        >>> index.add(["rice"], [[4, 0]])
        >>> index.search([[1, 0]], n=2, among=["tea", "milk", "rice"])  # of items in stock
        (array([['rice', 'milk']], dtype=object), array([[4., 2.]], dtype=float32))
        >>> folder = tempfile.mkdtemp() + "/index"
        >>> index.save(folder)
        >>> VectorIndex.load(folder)
        ExactIndex(4 items of dimension 2, inner_product)
    """

    kind: ClassVar[str]

    def __init__(self, ids: Any, vectors: Any, *, metric: str = "inner_product") -> None:
        self.metric = one_of("`metric`", metric, METRICS)
        ids, vectors = check_items(ids, vectors)
        self._ids, self.dimension = Ids(ids), int(vectors.shape[1])
        self._build(vectors)

    @property
    def ids(self) -> np.ndarray:
        """The items' ids, (V,), read-only: integers as given, or objects that are all ``str``."""
        return self._ids.values

    @property
    def no_item(self) -> int | str:
        """The id in `search`'s result at positions for which no item is left; it is never the id of an item.

        It is ``""``, or for integers the first of 0, -1, -2, ... that is not an item's id; in an unsigned type -1 is
        the largest value. It may change with `add` and `remove`.
        """
        return self._ids.no_item

    @property
    @abstractmethod
    def is_exact(self) -> bool:
        """Whether `search` always finds the best items."""

    def search(
        self, vectors: Any, n: int, *, exclude: Seen | None = None, among: Any | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each user's ``n`` items with the largest scores, best first.

        Args:
            vectors: Users' vectors, (N, D); or (N, K, D) for K interests: an item's score is then its best
                over the K, and it is returned once. A zero vector is ignored if the user has others.
            n: How many items to return, 1..V.
            exclude: The ids of items that a user must not get, ``(indptr (N + 1,), ids)``: user ``k`` does not get
                ``ids[indptr[k]:indptr[k + 1]]``. Ids that the index does not have are ignored.
            among: The ids of items that may be found, such as those in stock: (m,) for all users; or, as in
                ``exclude``, a pair ``(indptr (N + 1,), ids)`` with a set for each user, which may be empty. Ids that
                the index does not have are ignored. None: all items.

        Returns:
            ``(ids, scores)``: (N, n) in the type of the index's ids, and (N, n) float32. If fewer than ``n`` items
            are left for a user, the row is padded with `no_item` and score -inf.

        Raises:
            ValueError: The vectors are not finite or not of the index's dimension, ``n`` is out of 1..V, ``exclude`` or
                ``among`` is not of the form described, or the index has none of the items of an ``among`` for all
                users.
        """
        vectors, largest = check_users("`vectors`", vectors, "N")
        if vectors.shape[-1] != self.dimension:
            raise problem("`vectors`", f"have the index's dimension, {self.dimension}", f"shape {vectors.shape}")
        n = positive_int("`n`", n)
        if n > len(self):
            raise problem("`n`", f"be at most {len(self)}, the number of items", n)
        seen = None if exclude is None else self._seen_rows("`exclude`", raw_seen("`exclude`", exclude, len(vectors)))
        allowed = None if among is None else self._allowed_rows(among, len(vectors))
        rows, scores = self._search(self._measured("`vectors`", vectors, largest=largest), n, seen, allowed)
        return self._ids.at(rows), scores

    def add(self, ids: Any, vectors: Any) -> None:
        """Adds new items.

        Args:
            ids: (k,) in the type of the index's ids.
            vectors: (k, D).

        Raises:
            ValueError: The index has one of them, one is repeated, or an id or vector cannot be used, as for the class.
                Nothing is added then.
        """
        ids, vectors = self._items(ids, vectors)
        joined = self._ids.joined("`ids`", ids)
        self._append(self._measured("`vectors`", vectors))
        self._ids = joined

    def replace(self, ids: Any, vectors: Any) -> None:
        """Replaces the vectors of known items.

        Args:
            ids: (k,) in the type of the index's ids.
            vectors: (k, D).

        Raises:
            ValueError: The index does not have one of them, one is repeated, or a vector cannot be used, as for the
                class. Nothing is replaced then.
        """
        ids, vectors = self._items(ids, vectors)
        rows = self._ids.rows("`ids`", ids)
        if (rows < 0).any():
            got = f"{listing(ids[rows < 0])}, which it does not have"
            raise problem("`ids`", "be in the index", got, "add() takes new items.")
        self._overwrite(rows, self._measured("`vectors`", vectors))

    def remove(self, ids: Any) -> None:
        """Takes items out of the index; `add` can bring them back.

        The others keep their order. FAISS's graphs and lists keep the vectors in memory, but never return them.

        Args:
            ids: (k,) in the type of the index's ids; k may be 0.

        Raises:
            ValueError: The index does not have one of them, one is repeated, or no item would be left. Nothing is
                removed then.
        """
        ids = raw_ids("`ids`", ids)
        require_unique("`ids`", ids, "Name each item once.")
        rows = self._ids.rows("`ids`", ids)
        if (rows < 0).any():
            raise problem("`ids`", "be in the index", f"{listing(ids[rows < 0])}, which it does not have")
        if not len(rows):
            return
        if len(rows) == len(self):
            raise problem("`ids`", "leave an item in the index", f"all {len(self)}", "Build another index.")
        kept = np.ones(len(self), bool)
        kept[rows] = False
        ids_left = Ids(self.ids[kept])
        self._keep(kept)
        self._ids = ids_left

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the index into a folder of its own, with a manifest and the checksums of its files.

        A new folder is written completely or not at all. A saved index that is already there is replaced in one step:
        `load` reads the old one or the new one, even if this process is killed. While one process or thread is
        replacing it, another is refused (not on Windows and on network drives without locks).

        Args:
            folder: The folder, which is created.

        Raises:
            ValueError: There is something else in the folder, or another process or thread is saving to it.
            OSError: The index can't be written. An index saved before is still intact.
        """
        settings, files = self._parts()
        manifest = {
            "kind": self.kind,
            "metric": self.metric,
            "dimension": self.dimension,
            "count": len(self),
            "ids": self._ids.dtype,
            "settings": settings,
            "versions": {"deepmatch_ext": __version__, "numpy": np.__version__, **self._versions()},
        }
        INDEX_FOLDER.write(folder, manifest, {"ids.json": lambda path: write_ids(path, self.ids), **files})

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Any:
        """Reads an index that `save` wrote. ``VectorIndex.load`` reads any kind, ``ExactIndex.load`` exact ones.

        Args:
            folder: The folder of the saved index.

        Raises:
            ValueError: The folder is not a saved index, is damaged (all checksums are compared), or is of another kind;
                the message says what is wrong.
        """
        manifest, files = INDEX_FOLDER.read(folder)
        for module in _KINDS:  # a class is known once its module is loaded, which takes TensorFlow
            import_module(f"deepmatch_ext.retrieval.{module}")
        kinds = {each.kind: each for each in _kinds_below(VectorIndex) if issubclass(each, cls)}
        if manifest["kind"] not in kinds:
            rule = "be an index of kind " + " or ".join(repr(kind) for kind in kinds)
            raise problem(f"folder {str(folder)!r}", rule, repr(manifest["kind"]), "VectorIndex.load() reads any.")
        index = object.__new__(kinds[manifest["kind"]])
        index.metric, index.dimension = manifest["metric"], manifest["dimension"]
        try:
            index._ids = Ids(read_ids(files["ids.json"], manifest["ids"]))
            held = index._restore(manifest["settings"], files)
        except (ValueError, TypeError, KeyError, RecursionError, RuntimeError) as error:  # the last are the libraries'
            rule = f"hold an index of kind {manifest['kind']!r}, as its manifest says"
            raise problem(f"folder {str(folder)!r}", rule, f"{type(error).__name__}: {error}") from error
        if not held == (len(index), index.dimension) == (manifest["count"], manifest["dimension"]):
            rule = f"hold {manifest['count']} items of dimension {manifest['dimension']}, as its manifest says"
            got = f"{len(index)} ids, and vectors of shape {held}"
            raise problem(f"folder {str(folder)!r}", rule, got)
        return index

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} items of dimension {self.dimension}, {self.metric})"

    def _items(self, ids: Any, vectors: Any) -> tuple[np.ndarray, np.ndarray]:
        ids, vectors = check_items(ids, vectors)
        if vectors.shape[1] != self.dimension:
            raise problem("`vectors`", f"have the index's dimension, {self.dimension}", f"shape {vectors.shape}")
        return ids, vectors

    def _measured(self, what: str, vectors: np.ndarray, first: int = 0, largest: float | None = None) -> np.ndarray:
        """Vectors whose inner products are the metric's scores.

        ``first`` is the number of their first row, ``largest`` their largest absolute value, where it is known.
        """
        if self.metric == "cosine":
            return unit_vectors(what, vectors, first)
        if largest is None:
            largest = max(-vectors.min(), vectors.max()) if vectors.size else 0.0
        if largest > _LARGEST:
            raise problem(what, f"have no entry beyond {_LARGEST:g}", f"{np.abs(vectors).max():g}", "Scale them down.")
        return vectors

    def _seen_rows(self, what: str, seen: tuple[np.ndarray, np.ndarray]) -> Seen:
        """The rows of each user's ids, in CSR form, without ids that the index does not have."""
        indptr, ids = seen
        rows = self._ids.rows(f"the ids of {what}", ids)
        known = rows >= 0
        return np.concatenate([[0], np.cumsum(known)])[indptr], rows[known]

    def _allowed_rows(self, among: Any, users: int) -> np.ndarray | Seen:
        """The rows that may be found: (m,) for all users, ascending, or `Seen` of each."""
        ids = raw_among("`among`", among, users)
        if isinstance(ids, tuple):
            return self._seen_rows("`among`", ids)
        rows = self._ids.rows("the ids of `among`", ids)
        allowed = np.zeros(len(self), bool)
        allowed[rows[rows >= 0]] = True
        if not allowed.any():
            raise problem("`among`", "hold an item of the index", f"{listing(ids)}, which it does not have", ALL_ITEMS)
        return np.flatnonzero(allowed)

    # What a subclass implements. Rows are numbers of ids; vectors are prepared by `_measured`, except in `_build`.

    @abstractmethod
    def _build(self, vectors: np.ndarray) -> None:
        """Stores the first vectors, as they were given, without keeping the array, and applies `_measured`."""

    @abstractmethod
    def _append(self, vectors: np.ndarray) -> None:
        """Stores further vectors."""

    @abstractmethod
    def _overwrite(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        """Replaces some vectors."""

    @abstractmethod
    def _keep(self, kept: np.ndarray) -> None:
        """Removes all but ``kept`` (V,) bool, whose rows are then numbered again."""

    @abstractmethod
    def _search(
        self, vectors: np.ndarray, n: int, seen: Seen | None, among: np.ndarray | Seen | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows and scores, (N, n), of the best for (N, D) or (N, K, D); -1 and -inf where there are no more."""

    @abstractmethod
    def _parts(self) -> tuple[dict[str, Any], dict[str, Write]]:
        """The entries of the manifest, and the functions that write the files."""

    @abstractmethod
    def _restore(self, settings: dict[str, Any], files: dict[str, Path]) -> tuple[int, int]:
        """Reads what `_parts` wrote. Returns the shape of the vectors in the files."""

    @staticmethod
    def _versions() -> dict[str, str]:
        """Versions of the libraries that its files depend on."""
        return {}


def _kinds_below(parent: type) -> list[type[VectorIndex]]:
    """The classes of indexes that can be made."""
    found: list[type[VectorIndex]] = []
    children: list[Any] = parent.__subclasses__()
    for child in children:
        found += [child] if "kind" in vars(child) else []
        found += _kinds_below(child)
    return found


def recall(
    index: VectorIndex,
    exact: VectorIndex,
    vectors: Any,
    n: int,
    *,
    exclude: Seen | None = None,
    among: Any | None = None,
) -> float:
    """The fraction of each user's exact best ``n`` items that an index finds, averaged over users.

    Args:
        index: Any index.
        exact: An exact one of the same items.
        vectors: Users' vectors, (N, D) or (N, K, D), N at least 1. A thousand determine the recall to about 0.01.
        n: How many items to compare.
        exclude: As in `VectorIndex.search`.
        among: As in `VectorIndex.search`.

    Returns:
        A number in 0..1. Users for whom no item is left do not count; if there are no other users, it is 1.

    Raises:
        ValueError: ``exact`` is not exact, or the two have different metrics, dimensions or ids.

    Example:
        >>> from deepmatch_ext.retrieval import ExactIndex
        >>> vectors = np.random.default_rng(0).normal(size=(1000, 8))
        >>> whole, half = ExactIndex(range(1000), vectors), ExactIndex(range(1000), vectors)
        >>> half.replace(range(500), np.zeros((500, 8)))
        >>> bool(0.4 < recall(half, whole, vectors[:100], n=10) < 0.6)
        True
    """
    instance_of("`index`", index, VectorIndex)
    if not instance_of("`exact`", exact, VectorIndex).is_exact:
        raise problem("`exact`", "be an exact index", repr(exact))
    same = index.metric == exact.metric and index.dimension == exact.dimension
    if not same or len(index) != len(exact):
        raise problem(
            "`exact`", "have the metric, the dimension and the items of the other", f"{exact!r} and {index!r}"
        )
    missing = exact.ids[index._ids.rows("the ids of `exact`", exact.ids) < 0]
    if len(missing):
        raise problem("`exact`", "have the ids of the other", f"{listing(missing)}, which that one does not have")
    best, found = (each.search(vectors, n, exclude=exclude, among=among) for each in (exact, index))
    if not len(best[0]):
        raise problem("`vectors`", "hold at least one user", "none")
    return share_found(exact, best, found)


def share_found(exact: VectorIndex, wanted: tuple[np.ndarray, np.ndarray], got: tuple[np.ndarray, np.ndarray]) -> float:
    """`recall` of two results of `search`, the first one of ``exact``."""
    (best, scores), (found, found_scores) = wanted, got
    # Pairs of user and row of `exact`, each at most once.
    users = np.arange(len(best))[:, None] * len(exact)
    pairs = (users + exact._ids.rows("", best.ravel()).reshape(best.shape))[~np.isneginf(scores)]
    pairs_found = (users + exact._ids.rows("", found.ravel()).reshape(best.shape))[~np.isneginf(found_scores)]
    owners = pairs // len(exact)
    if not len(owners):
        return 1.0
    hits = np.bincount(owners, weights=np.isin(pairs, pairs_found), minlength=len(best))
    counts = np.bincount(owners, minlength=len(best))
    return float((hits[counts > 0] / counts[counts > 0]).mean())


def unit_vectors(what: str, vectors: np.ndarray, first: int = 0) -> np.ndarray:
    """L2-normalised vectors in the same directions. ``first`` is the number of their first row."""
    lengths = np.sqrt(np.einsum("...d,...d->...", vectors, vectors, dtype=np.float64))
    if not lengths.all():
        row = int(np.argwhere(lengths == 0)[0][0])
        raise problem(what, "have no vector of length zero, which has no cosine", f"one at row {first + row}")
    return np.divide(vectors, lengths[..., None], dtype=np.float32, casting="same_kind")


def unseen(find: Find, vectors: np.ndarray, n: int, seen: Seen, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Each user's ``n`` best items that ``find`` gives, without seen ones; -1 and -inf where there are no more.

    Args:
        find: Takes vectors (B, D) and a number k, and returns rows and scores (B, k), best first.
        vectors: (N, D).
        n: How many items to return.
        seen: The rows that each user must not get.
        count: How many items there are at most; no more are asked for.
    """
    rows, scores = np.full((len(vectors), n), -1), np.full((len(vectors), n), -np.inf, np.float32)
    more = spare(np.diff(seen[0]))  # of n + s items, n are left whatever s items have been seen
    for extra in np.unique(more):
        group = np.flatnonzero(more == extra)
        k = min(n + int(extra), max(count, n))
        for start in range(0, len(group), max(_CANDIDATES // k, 1)):
            users = group[start : start + max(_CANDIDATES // k, 1)]
            found, found_scores = find(vectors[users], k)
            if extra:
                owners, items = seen_pairs(seen_rows(seen, users), 0, len(users))
                most = max(found.max(initial=0), items.max(initial=0)) + 1
                key = np.arange(len(users))[:, None] * most
                found[np.isin(found + key, items + owners * most) & (found >= 0)] = -1
                found_scores[found < 0] = -np.inf
                found, found_scores = best_first(found, found_scores, n)
            rows[users], scores[users] = found, found_scores
    return rows, scores


def is_full(rows: np.ndarray) -> bool:
    """Whether no user of rows (N, n), best first, lacks an item. Of one user, it takes a third of NumPy's time."""
    return min(rows[:, -1].tolist(), default=0) >= 0


def distinct(seen: Seen, count: int) -> Seen:
    """Without repeats, given rows below ``count``."""
    users, rows = seen_pairs(seen, 0, len(seen[0]) - 1)
    users, rows = np.divmod(np.unique(users * count + rows), count)
    return np.searchsorted(users, np.arange(len(seen[0]))), rows


def spare(counts: np.ndarray) -> np.ndarray:
    """How many candidates to ask for beyond ``n`` if ``counts`` items are excluded, which may all be among the best.

    A power of two, so that users with similar numbers are searched together, and a few who have seen much do not slow
    down all.
    """
    return np.where(counts, 2 ** np.ceil(np.log2(np.maximum(counts, 1))), 0).astype(np.int64)
