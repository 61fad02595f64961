"""FAISS as a `VectorIndex`, for catalogues for which an exact search takes too long."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepmatch_ext._arrays import Seen, seen_rows
from deepmatch_ext._checks import missing_extra, positive_int, problem
from deepmatch_ext._folders import Write, check_record
from deepmatch_ext._interests import best_first, search_each
from deepmatch_ext.retrieval.index import VectorIndex, distinct, is_full, unseen
from deepmatch_ext.retrieval.top_n import best_among, compiled_best_rows

# Vectors taken out of FAISS at once, where all of them are looked at.
_ROWS_AT_ONCE = 65536
# If too few items are found in IVF's lists, this many times as many lists are read.
_WIDER = (1, 4, 16, 64)
# A candidate in a graph costs about as much as scoring this many items one after the other.
_NEIGHBOURS = 32
# From this many items on, a graph's vectors are laid out by neighbourhood: fewer fit in the processor's cache anyway.
_MANY = 2**15


class FaissIndex(VectorIndex):
    """An index of the FAISS library, which the extra ``faiss`` installs.

    Johnson et al., "Billion-scale similarity search with GPUs" (2017), and for HNSW Malkov and Yashunin, "Efficient and
    robust approximate nearest neighbor search using Hierarchical Navigable Small World graphs" (2016).

    Args:
        ids: The items' ids, (V,): integers of any type, or strings. Each once.
        vectors: The items' vectors, (V, D), taken as float32. IVF and PQ learn from them.
        factory: The index to build, as a string for FAISS's ``index_factory``, from these families:

            - ``"Flat"``: exact.
            - ``"HNSW32"``: a graph of 32 neighbours for each item: fast to search, slow to build, with some 270 bytes
              per item in addition to its vector. It is designed for L2-normalised vectors or "cosine"; with
              "inner_product" and vectors of different lengths, its recall is lower.
            - ``"HNSW32_SQfp16"``: the same with vectors in 16 bits: half the memory for them, and less to read.
            - ``"IVF4096,Flat"``: 4096 lists of items, of which a search reads a few. About sqrt(V) to 16 sqrt(V) lists.
            - ``"IVF4096,PQ16"``: the same with vectors compressed to 16 bytes each (product quantisation; D must be a
              multiple of 16): scores are approximate, too. ``"HNSW32,PQ16"`` compresses a graph's.
            - ``"IVF4096,PQ64x4fs,Refine(SQfp16)"``: lists of codes of 64 times 4 bits (so D must be a multiple of 64),
              of which many are read at a time. Four times as many candidates as are returned, plus 100, are then scored
              again with vectors in 16 bits. It is half as large as a graph, and somewhat faster. ``Refine`` also works
              with a graph.
        metric: "inner_product" or "cosine".
        effort: How much a search examines: candidates in the graph (HNSW's ``efSearch``; at least as many as it
            returns), or lists (IVF's ``nprobe``). A larger value is slower and finds more; `recall` measures how much.
            By default 128 candidates, or 1/64 of the lists. If these do not have the ``n`` items that a search asks
            for, it examines more, and in the end all items.

    Attributes:
        effort: As given; it may be changed at any time. None if a search examines everything.

    Raises:
        ImportError: FAISS is not installed.
        ValueError: As `VectorIndex`, or FAISS can't make such an index of these vectors.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(500, 16))
        >>> index = FaissIndex(range(500), vectors, "HNSW16", metric="cosine")
        >>> index.search(vectors[[7, 8]], 3)[0][:, 0].tolist()
        [7, 8]
    """

    kind = "faiss"
    _last: tuple[tuple[Any, ...], Any]  # what the last search of all items asked for, and FAISS's parameters for it

    def __init__(
        self,
        ids: Any,
        vectors: Any,
        factory: str = "HNSW32",
        *,
        metric: str = "inner_product",
        effort: int | None = None,
    ) -> None:
        _faiss()
        self.factory = str(factory)
        self._effort = effort if effort is None else positive_int("`effort`", effort)
        super().__init__(ids, vectors, metric=metric)

    @property
    def is_exact(self) -> bool:
        """Whether the index is flat."""
        return self._family == "Flat"

    @property
    def effort(self) -> int | None:
        """How much a search examines: ``efSearch`` of HNSW, ``nprobe`` of IVF."""
        if self._family == "HNSW":
            return self._effort or 128
        if self._family == "IVF":
            return min(self._effort or max(self._searched.nlist // 64, 1), self._searched.nlist)
        return None

    @effort.setter
    def effort(self, value: int | None) -> None:
        self._effort = value if value is None else positive_int("`effort`", value)

    def _build(self, vectors: np.ndarray) -> None:
        faiss, vectors = _faiss(), self._measured("`vectors`", vectors)
        families = ", ".join(repr(name) for name in ("Flat", "HNSW32", "IVF4096,Flat", "IVF4096,PQ16"))
        rule = f"be a factory string like {families}"
        for name, number in re.findall(r"([A-Za-z]+)_?(\d+)", self.factory):  # FAISS accepts these and ends the process
            least = 2 if name == "HNSW" else 1
            if int(number) < least:
                raise problem("`factory`", f"{rule}, with {name} of at least {least}", repr(self.factory))
        try:
            index = self._made()
        except RuntimeError as error:
            raise problem("`factory`", rule, f"{self.factory!r}: {_reason(error)}") from None
        self._adopt(index)
        if self._family is None or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise problem("`factory`", f"{rule}, for inner products", repr(self.factory))
        if self._family == "IVF" and self._searched.nlist > len(vectors):
            raise problem("`factory`", f"have at most {len(vectors)} lists, the number of items", repr(self.factory))
        try:
            index.train(vectors)
        except RuntimeError as error:
            rule = f"be an index for which {len(vectors)} vectors are enough"
            raise problem("`factory`", rule, f"{self.factory!r}: {_reason(error)}") from None
        order = np.arange(len(vectors))
        if self._family == "HNSW" and len(vectors) >= _MANY:
            order = _by_neighbourhood(vectors)
            vectors = vectors[order]
        index.add(vectors)
        self._set_rows(order)

    def _made(self) -> Any:
        """What the factory string stands for, still empty."""
        faiss = _faiss()
        compressed = re.fullmatch(r"HNSW(\d+)[_,]PQ(\d+)", self.factory)
        if compressed:  # FAISS's own factory would compare these by distance, whatever it is told
            neighbours, size = map(int, compressed.groups())
            try:
                return faiss.IndexHNSWPQ(self.dimension, size, neighbours, 8, faiss.METRIC_INNER_PRODUCT)
            except TypeError:
                got = f"{self.factory!r}, which FAISS {faiss.__version__} can't"
                raise problem("`factory`", "be of inner products", got, "Newer versions of faiss-cpu can.") from None
        return faiss.index_factory(self.dimension, self.factory, faiss.METRIC_INNER_PRODUCT)

    def _adopt(self, index: Any) -> None:
        faiss = _faiss()
        kinds = {"Flat": faiss.IndexFlat, "HNSW": faiss.IndexHNSW, "IVF": faiss.IndexIVF}
        self._index = self._searched = index
        if isinstance(index, faiss.IndexRefine):
            self._searched = faiss.downcast_index(index.base_index)
        self._family = next((name for name, kind in kinds.items() if isinstance(self._searched, kind)), None)
        if self._family == "Flat" and self._searched is not index:
            self._family = None  # there is nothing to refine

    def _append(self, vectors: np.ndarray) -> None:
        self._index.add(vectors)
        self._set_rows(np.concatenate([self._row_of, np.arange(len(self), len(self) + len(vectors))]))

    def _overwrite(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        if self._family == "Flat":
            held = _faiss().rev_swig_ptr(self._index.get_xb(), self._index.ntotal * self.dimension)
            held.reshape(-1, self.dimension)[rows] = vectors
            return
        # A graph can't forget a vector: the old one still leads to others, but isn't returned.
        self._index.add(vectors)
        old = np.isin(self._row_of, rows)
        self._set_rows(np.concatenate([np.where(old, -1, self._row_of), rows]))

    def _keep(self, kept: np.ndarray) -> None:
        if self._family == "Flat":
            self._index.remove_ids(_faiss().IDSelectorBitmap(np.packbits(~kept, bitorder="little")))
            self._set_rows(np.arange(self._index.ntotal))
            return
        # A graph can't forget a vector, as above, and what stays in lists keeps its number.
        is_kept = (self._row_of >= 0) & kept[self._row_of]
        self._set_rows(np.where(is_kept, (np.cumsum(kept) - 1)[self._row_of], -1))

    def _search(
        self, vectors: np.ndarray, n: int, seen: Seen | None, among: np.ndarray | Seen | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(among, tuple):
            return self._search_own(vectors, n, seen, among)
        if among is not None and self._is_few(len(among), n):
            return best_among(self._vectors_of, vectors, n, seen, among)
        choice = self._all
        if among is not None:
            allowed = np.zeros(len(self), bool)
            allowed[among] = True
            choice = self._choice(allowed)
            seen = None if seen is None else _only(seen, allowed)
        if seen is not None:
            seen = distinct(seen, len(self))
        return search_each(lambda users, n, seen: self._search_one(users, n, seen, choice), vectors, n, seen)

    def _search_own(self, vectors: np.ndarray, n: int, seen: Seen | None, among: Seen) -> tuple[np.ndarray, np.ndarray]:
        """As `_search`, with a set for each user. FAISS takes one set in a call."""
        rows, scores = np.full((len(vectors), n), -1, np.int64), np.full((len(vectors), n), -np.inf, np.float32)
        among = distinct(among, len(self))
        few = np.array([self._is_few(count, n) for count in np.diff(among[0]).tolist()], bool)
        users = np.flatnonzero(few)
        seen_by_few = None if seen is None else seen_rows(seen, users)
        found = best_among(self._vectors_of, vectors[users], n, seen_by_few, seen_rows(among, users))
        rows[users], scores[users] = found
        for user in np.flatnonzero(~few):
            seen_by_user = None if seen is None else seen_rows(seen, np.array([user]))
            own = among[1][among[0][user] : among[0][user + 1]]
            rows[user], scores[user] = self._search(vectors[user : user + 1], n, seen_by_user, own)
        return rows, scores

    def _is_few(self, count: int, n: int) -> bool:
        """Whether scoring all allowed items takes less time than FAISS takes to find the best of them.

        ``count`` of V items are allowed, so FAISS has to look at V / ``count`` times as much.
        """
        if not count or self._family == "Flat":
            return True
        if self._family == "HNSW":
            return max(self.effort or 0, n) * len(self._row_of) // count * _NEIGHBOURS >= count
        # A vector that lies in a list is found by reading the lists; one that refines them, by its number.
        return self._searched is not self._index and (self.effort or 1) * len(self) >= count * self._searched.nlist

    def _search_one(
        self, vectors: np.ndarray, n: int, seen: Seen | None, choice: _Choice
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `_search`, of users (N, D) of one vector each."""
        rows, scores = self._unseen(vectors, n, seen, choice, 1)
        if is_full(rows):
            return rows, scores
        wanted = np.minimum(n, choice.count - (0 if seen is None else np.diff(seen[0])))
        for wider in [*(_WIDER[1:] if self._family == "IVF" else []), None]:
            few = np.flatnonzero(np.count_nonzero(rows >= 0, axis=1) < wanted)
            if not few.size:
                break
            of_few = None if seen is None else seen_rows(seen, few)
            rows[few], scores[few] = self._unseen(vectors[few], n, of_few, choice, wider)
        return rows, scores

    def _unseen(
        self, vectors: np.ndarray, n: int, seen: Seen | None, choice: _Choice, wider: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The items found with ``wider`` times the effort, or if that is None among all items, without seen ones."""
        if seen is None:
            return self._found(vectors, n, choice, wider)
        return unseen(lambda users, k: self._found(users, k, choice, wider), vectors, n, seen, choice.count)

    def _found(self, vectors: np.ndarray, k: int, choice: _Choice, wider: int | None) -> tuple[np.ndarray, np.ndarray]:
        """What FAISS finds, best first. For a single user each call here matters: the graph takes half a ms."""
        if wider is None:
            return self._by_all(vectors, k, choice)
        parameters = self._parameters_of_all(k, wider) if choice is self._all else self._parameters(k, choice, wider)
        scores, found = self._index.search(np.ascontiguousarray(vectors), k, params=parameters)
        rows, missing = self._row_of[found], found < 0  # -1 is some row: there is at least one
        if missing.any():
            rows[missing], scores[missing] = -1, -np.inf
        return rows, scores

    def _by_all(self, vectors: np.ndarray, k: int, choice: _Choice) -> tuple[np.ndarray, np.ndarray]:
        """The best of all stored vectors: nothing may lead to some parts of a graph, as around equal vectors."""
        rows, scores = np.empty((len(vectors), 0), np.int64), np.empty((len(vectors), 0), np.float32)
        for start in range(0, len(self._row_of), _ROWS_AT_ONCE):
            allowed = choice.allowed[start : start + _ROWS_AT_ONCE]
            held = self._index.reconstruct_n(start, len(allowed))[allowed]
            best, best_scores = compiled_best_rows(vectors, held, min(k, len(held)))
            found = self._row_of[start : start + _ROWS_AT_ONCE][allowed][best]
            rows = np.concatenate([rows, found], axis=1)
            rows, scores = best_first(rows, np.concatenate([scores, best_scores], axis=1), k)
        short = k - rows.shape[1]
        if short > 0:
            rows = np.pad(rows, ((0, 0), (0, short)), constant_values=-1)
            scores = np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf)
        return rows, scores

    def _vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """The stored vectors of some of our rows, (m, D)."""
        if not len(rows):
            return np.empty((0, self.dimension), np.float32)
        return self._index.reconstruct_batch(self._place_of[rows])

    def _parameters_of_all(self, k: int, wider: int) -> Any:
        """`_parameters` for all items; those of the last search are reused, since making them takes 40 us."""
        asked = (self._all, self.effort, k, wider)
        known, parameters = self._last
        if known != asked:
            parameters = self._parameters(k, self._all, wider)
            self._last = asked, parameters
        return parameters

    def _parameters(self, k: int, choice: _Choice, wider: int) -> Any:
        faiss = _faiss()
        options = {} if choice.selector is None else {"sel": choice.selector}
        refined = self._searched is not self._index
        # With codes of four bits, most of the best k are among this many candidates, which are scored again.
        candidates = 4 * k + 100 if refined else k
        parameters = None
        if self._family == "HNSW":
            # Vectors that aren't returned are candidates, too.
            width = max(self.effort or 0, candidates) * len(self._row_of) // choice.count
            parameters = faiss.SearchParametersHNSW(efSearch=min(width, len(self._row_of)), **options)
        elif self._family == "IVF":
            width = min((self.effort or 1) * wider * len(self) // choice.count, self._searched.nlist)
            parameters = faiss.SearchParametersIVF(nprobe=width, **options)
        if refined:
            return faiss.IndexRefineSearchParameters(k_factor=candidates / k, base_index_params=parameters)
        return parameters

    def _set_rows(self, row_of: np.ndarray) -> None:
        """Maps FAISS's rows, in the order in which they were added, to ours; -1 for the vector of no item."""
        current = np.flatnonzero(row_of >= 0)
        self._row_of, self._place_of = row_of, np.empty(len(current), np.int64)
        self._place_of[row_of[current]] = current
        self._all, self._last = self._choice(), ((), None)

    def _choice(self, allowed: np.ndarray | None = None) -> _Choice:
        """The vectors of the items of ``allowed`` (V,), or of all items."""
        current = self._row_of >= 0
        if allowed is not None:
            current &= allowed[self._row_of]
        selector = None if current.all() else _faiss().IDSelectorBitmap(np.packbits(current, bitorder="little"))
        return _Choice(current, int(np.count_nonzero(current)), selector)

    def _parts(self) -> tuple[dict[str, Any], dict[str, Write]]:
        faiss, index, row_of = _faiss(), self._index, self._row_of
        return {"factory": self.factory, "effort": self._effort}, {
            "index.faiss": lambda path: faiss.write_index(index, str(path)),
            "rows.npy": lambda path: np.save(path, row_of, allow_pickle=False),
        }

    def _restore(self, settings: dict[str, Any], files: dict[str, Path]) -> tuple[int, int]:
        check_record("the settings", settings, {"factory": str})
        self.factory, self.effort = settings["factory"], settings["effort"]
        self._adopt(_faiss().read_index(str(files["index.faiss"])))
        rows = np.load(files["rows.npy"], allow_pickle=False)
        current = np.sort(rows[rows >= 0])
        if len(rows) != self._index.ntotal or (current != np.arange(len(current))).any():
            raise problem("the rows", "be those of the vectors", f"{len(rows)} for {self._index.ntotal}")
        self._set_rows(rows)
        return len(current), self._index.d

    @staticmethod
    def _versions() -> dict[str, str]:
        return {"faiss": _faiss().__version__}


@dataclass(frozen=True, eq=False)
class _Choice:
    """The vectors that a search may return.

    Args:
        allowed: Which of FAISS's rows, (rows,) bool.
        count: Their number.
        selector: The same for FAISS. None: all.
    """

    allowed: np.ndarray
    count: int
    selector: Any


def _only(seen: Seen, allowed: np.ndarray) -> Seen:
    """Without the rows that are not ``allowed`` (V,)."""
    indptr, rows = seen
    kept = allowed[rows]
    return np.concatenate([[0], np.cumsum(kept)])[indptr], rows[kept]


def _by_neighbourhood(vectors: np.ndarray) -> np.ndarray:
    """An order of the vectors in which similar ones are near each other, (V,).

    A search looks at thousands of vectors near the user's. If these are together in memory, it waits less for memory:
    measured at a million items, it takes 0.7 to 0.9 times as long and finds the same. FAISS adds vectors to the graph
    in an order of its own, so the graph is as good.
    """
    cells = 2 * int(len(vectors) ** 0.5)
    means = _faiss().Kmeans(vectors.shape[1], cells, niter=4, max_points_per_centroid=64)
    means.train(vectors)
    _, cell = means.index.search(vectors, 1)
    # From each cell to the nearest one that is not yet in the order.
    centres = means.centroids
    lengths = np.einsum("cd,cd->c", centres, centres)
    turn, left, here = np.empty(cells, np.int64), np.ones(cells, bool), 0
    for k in range(cells):
        turn[here], left[here] = k, False
        distance = np.where(left, lengths - 2 * (centres @ centres[here]), np.inf)
        here = int(distance.argmin())
    return np.argsort(turn[cell[:, 0]], kind="stable")


def _reason(error: RuntimeError) -> str:
    """FAISS's message, without the place in its own code."""
    return " ".join(str(error).split()).split(": ", 1)[-1].removeprefix("Error: ")


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise missing_extra("FaissIndex", "faiss-cpu", "faiss") from error
    return faiss
