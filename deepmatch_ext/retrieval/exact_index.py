"""The exact index: TensorFlow scores all items, in blocks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._arrays import Seen
from deepmatch_ext._checks import problem
from deepmatch_ext._folders import Write
from deepmatch_ext.retrieval.index import VectorIndex
from deepmatch_ext.retrieval.top_n import USERS_AT_ONCE, best_among, compiled_best_rows, padded_seen
from deepmatch_ext.retrieval.vector_files import write_array

# Vectors that are copied or read at once.
_ROWS_AT_ONCE = 65536


class HeldVectors(VectorIndex):
    """An index that holds all vectors as one tensor, and can score all of them."""

    def _build(self, vectors: np.ndarray) -> None:
        blocks = range(0, len(vectors), _ROWS_AT_ONCE)
        self._fill(len(vectors), (self._measured("`vectors`", vectors[k : k + _ROWS_AT_ONCE], k) for k in blocks))

    def _fill(self, count: int, blocks: Iterable[np.ndarray]) -> None:
        """Makes the tensor without the second copy in memory that tf.constant() would make."""
        # TensorFlow uses memory without copying it if it begins on a multiple of 64.
        size = count * self.dimension
        memory = np.empty(size + 16, np.float32)
        start = -(memory.ctypes.data // 4) % 16
        array = memory[start : start + size].reshape(count, self.dimension)
        row = 0
        for block in blocks:
            array[row : row + len(block)] = block
            row += len(block)
        self._vectors = tf.experimental.dlpack.from_dlpack(array.__dlpack__())

    def _append(self, vectors: np.ndarray) -> None:
        self._vectors = tf.concat([self._vectors, vectors], axis=0)

    def _overwrite(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        self._vectors = tf.tensor_scatter_nd_update(self._vectors, rows[:, None], vectors)

    def _keep(self, kept: np.ndarray) -> None:
        self._vectors = tf.gather(self._vectors, np.flatnonzero(kept))

    def _exactly(
        self, vectors: np.ndarray, n: int, seen: Seen | None, among: np.ndarray | Seen | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `_search` has to find, by the scores of all items that are allowed."""
        allowed = None
        if isinstance(among, np.ndarray) and 2 * len(among) > len(self):  # a copy of these would cost more
            allowed = np.zeros(len(self), bool)
            allowed[among] = True
        elif among is not None:
            return best_among(lambda rows: tf.gather(self._vectors, rows), vectors, n, seen, among)
        rows, scores = np.empty((len(vectors), n), np.int32), np.empty((len(vectors), n), np.float32)
        users = max(USERS_AT_ONCE // (1 if vectors.ndim == 2 else vectors.shape[1]), 1)
        for start in range(0, len(vectors), users):
            stop = min(start + users, len(vectors))
            seen_here = None if seen is None else padded_seen(seen, start, stop)
            found = compiled_best_rows(vectors[start:stop], self._vectors, n, seen_here, allowed)
            rows[start:stop], scores[start:stop] = found
        return rows, scores

    def _parts(self) -> tuple[dict[str, Any], dict[str, Write]]:
        items = self._vectors
        blocks = (items[k : k + _ROWS_AT_ONCE].numpy() for k in range(0, len(self), _ROWS_AT_ONCE))
        return {}, {"vectors.npy": lambda path: write_array(path, tuple(items.shape), np.float32, blocks)}

    def _restore(self, settings: dict[str, Any], files: dict[str, Path]) -> tuple[int, int]:
        held = np.load(files["vectors.npy"], mmap_mode="r", allow_pickle=False)
        if held.ndim != 2 or held.dtype != np.float32:
            raise problem("the vectors", "be a matrix of float32", f"{held.dtype} of shape {held.shape}")
        if held.shape[1] == self.dimension:
            self._fill(len(held), (held[k : k + _ROWS_AT_ONCE] for k in range(0, len(held), _ROWS_AT_ONCE)))
        return held.shape


class ExactIndex(HeldVectors):
    """Exact search: TensorFlow computes the scores of all items and takes the largest.

    Items with equal scores are returned in the order in which they were added. The scores are float32 sums: their last
    bit may differ between machines and numbers of users, so items with nearly equal scores may change places.

    Besides its vectors it holds some 32 MB of scores while it searches. On two cores a search of 1,000,000 items of
    dimension 64 is about as fast as FAISS's flat index: `benchmarks/retrieval.py`.

    Args:
        ids: The items' ids, (V,): integers of any type, or strings. Each once.
        vectors: The items' vectors, (V, D), taken as float32.
        metric: "inner_product" or "cosine".

    Raises:
        ValueError: As `VectorIndex`.

    Example:
        >>> index = ExactIndex(["tea", "milk", "salt"], [[1, 3], [2, 2], [3, 1]])
        >>> ids, scores = index.search([[1, 0], [0, 1]], 2, exclude=([0, 1, 1], ["salt"]))
        >>> ids.tolist()
        [['milk', 'tea'], ['tea', 'milk']]
        >>> index.replace(["milk"], [[5, 5]])
        >>> index.search([[1, 0]], 1)[0].item()
        'milk'
        >>> index.remove(["milk"])
        >>> index.search([[1, 0]], 1)[0].item()
        'salt'
    """

    kind = "exact"

    @property
    def is_exact(self) -> bool:
        """True."""
        return True

    def _search(
        self, vectors: np.ndarray, n: int, seen: Seen | None, among: np.ndarray | Seen | None
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._exactly(vectors, n, seen, among)
