"""ScaNN as a `VectorIndex`, for catalogues for which an exact search takes too long."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from deepmatch_ext._arrays import Seen, seen_rows
from deepmatch_ext._checks import missing_extra, positive_int, problem
from deepmatch_ext._folders import Write, check_record
from deepmatch_ext._interests import search_each
from deepmatch_ext.retrieval.exact_index import HeldVectors
from deepmatch_ext.retrieval.index import distinct, is_full, unseen

# With fewer items nothing is faster than scoring all of them.
FEW = 4096
# From this many users on, a search is worth several threads.
_MANY_USERS = 32
# The largest number of vectors from which the lists' centres are learnt.
_SAMPLE = 250_000
# ScaNN's files except the vectors, which an index has anyway.
_FILES = (
    "ah_codebook.pb",
    "datapoint_to_token.npy",
    "hashed_dataset.npy",
    "scann_assets.pbtxt",
    "scann_config.pb",
    "serialized_partitioner.pb",
)


class ScannIndex(HeldVectors):
    """An index of the ScaNN library, which the extra ``scann`` installs (Linux and macOS).

    Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization" (ICML 2020). Items are kept in
    lists, as codes of four bits for every two dimensions, and a search reads a few of the lists. The best items found
    are scored again with the vectors themselves, so scores are exact and only the choice of items is approximate.

    The vectors are held twice, once by ScaNN. `add`, `replace` and `remove` build ScaNN's part again, which takes 8 s
    for 300,000 items, so change many items at a time. A search with ``among`` scores all items that are allowed, as
    `ExactIndex` does. With fewer than 4,096 items, every search scores all of them.

    Args:
        ids: The items' ids, (V,): integers of any type, or strings. Each once.
        vectors: The items' vectors, (V, D), taken as float32.
        leaves: The number of lists. By default 2 sqrt(V).
        metric: "inner_product" or "cosine".
        effort: How many lists a search reads, by default a tenth of them. A larger value is slower and finds more;
            `deepmatch_ext.retrieval.recall` measures how much. If these lists have too few items, all items are scored.
        rescored: How many items are scored again with the vectors themselves: this many times ``n + 25``, the best by
            their codes. If reading more lists finds no more, as of items that are close together, a larger value does.

    Attributes:
        leaves: The number of lists.
        effort: As given; it may be changed at any time.
        rescored: As given; it may be changed at any time.

    Raises:
        ImportError: ScaNN is not installed.
        ValueError: As `VectorIndex`, or there are more lists than items.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(5000, 16))
        >>> index = ScannIndex(range(5000), vectors, metric="cosine", effort=20)
        >>> index.search(vectors[[7, 8]], 3)[0][:, 0].tolist()
        [7, 8]
    """

    kind = "scann"
    _searcher: Any  # ScaNN's, or None with few items

    def __init__(
        self,
        ids: Any,
        vectors: Any,
        leaves: int | None = None,
        *,
        metric: str = "inner_product",
        effort: int | None = None,
        rescored: int = 4,
    ) -> None:
        _scann()
        self._leaves = leaves if leaves is None else positive_int("`leaves`", leaves)
        self.effort, self.rescored = effort, rescored
        super().__init__(ids, vectors, metric=metric)

    @property
    def is_exact(self) -> bool:
        """Whether there are so few items that all of them are scored."""
        return self._searcher is None

    @property
    def leaves(self) -> int:
        """The number of lists."""
        return self._leaves or max(round(2 * len(self) ** 0.5), 1)

    @property
    def effort(self) -> int:
        """How many lists a search reads."""
        return min(self._effort or max(self.leaves // 10, 1), self.leaves)

    @effort.setter
    def effort(self, value: int | None) -> None:
        self._effort = value if value is None else positive_int("`effort`", value)

    @property
    def rescored(self) -> int:
        """How many times ``n + 25`` items are scored again."""
        return self._rescored

    @rescored.setter
    def rescored(self, value: int) -> None:
        self._rescored = positive_int("`rescored`", value)

    def _build(self, vectors: np.ndarray) -> None:
        if self._leaves is not None and self._leaves > len(vectors):
            raise problem("`leaves`", f"be at most {len(vectors)}, the number of items", self._leaves)
        super()._build(vectors)
        self._train()

    def _append(self, vectors: np.ndarray) -> None:
        super()._append(vectors)
        self._train()

    def _overwrite(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        super()._overwrite(rows, vectors)
        self._train()

    def _keep(self, kept: np.ndarray) -> None:
        super()._keep(kept)
        self._train()

    def _train(self) -> None:
        """Builds ScaNN's part from the vectors."""
        vectors = self._vectors.numpy()
        self._searcher = None
        if len(vectors) < FEW:
            return
        lists = min(self._leaves or round(2 * len(vectors) ** 0.5), len(vectors))
        made = _scann().builder(vectors, 1, "dot_product")
        made = made.tree(lists, lists, training_sample_size=min(len(vectors), _SAMPLE))
        # A dimension beside the last pair is a block of its own; .2 is what the authors advise.
        made = made.score_ah(2, anisotropic_quantization_threshold=0.2)
        self._searcher = made.reorder(1).build()

    def _search(
        self, vectors: np.ndarray, n: int, seen: Seen | None, among: np.ndarray | Seen | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._searcher is None or among is not None:
            return self._exactly(vectors, n, seen, among)
        return search_each(self._search_one, vectors, n, seen)

    def _search_one(self, vectors: np.ndarray, n: int, seen: Seen | None) -> tuple[np.ndarray, np.ndarray]:
        """As `_search`, of users (N, D) of one vector each."""
        if seen is None:
            rows, scores = self._found(vectors, n)
            if is_full(rows):
                return rows, scores
            left = np.full(len(vectors), len(self))
        else:
            seen = distinct(seen, len(self))
            rows, scores = unseen(self._found, vectors, n, seen, len(self))
            left = len(self) - np.diff(seen[0])
        few = np.flatnonzero(np.count_nonzero(rows >= 0, axis=1) < np.minimum(n, left))
        if few.size:
            of_few = None if seen is None else seen_rows(seen, few)
            rows[few], scores[few] = self._exactly(vectors[few], n, of_few, None)
        return rows, scores

    def _found(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """What ScaNN finds, best first; -1 and -inf where the lists have no more."""
        again, effort = min(self._rescored * (k + 25), len(self)), self.effort
        if len(vectors) == 1:
            rows, scores = self._searcher.search(vectors[0], k, again, effort)
            rows, scores = np.asarray(rows, np.int64)[None], np.asarray(scores)[None]
            if rows.shape[1] < k:
                missing = ((0, 0), (0, k - rows.shape[1]))
                return np.pad(rows, missing, constant_values=-1), np.pad(scores, missing, constant_values=-np.inf)
            return rows, scores
        search = (
            self._searcher.search_batched_parallel if len(vectors) >= _MANY_USERS else self._searcher.search_batched
        )
        rows, scores = search(np.ascontiguousarray(vectors), k, again, effort)
        rows, scores = rows.astype(np.int64), np.array(scores)
        missing = np.isnan(scores)
        rows[missing], scores[missing] = -1, -np.inf
        return rows, scores

    def _parts(self) -> tuple[dict[str, Any], dict[str, Write]]:
        _, files = super()._parts()
        if self._searcher is not None:
            files["scann.zip"] = self._write
        return {"leaves": self._leaves, "effort": self._effort, "rescored": self._rescored}, files

    def _write(self, path: Path) -> None:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path, "w") as archive:
            self._searcher.serialize(folder, relative_path=True)
            for name in _FILES:
                archive.write(Path(folder, name), name)

    def _restore(self, settings: dict[str, Any], files: dict[str, Path]) -> tuple[int, int]:
        check_record("the settings", settings, {"rescored": int})
        self._leaves, self.effort, self.rescored = settings["leaves"], settings["effort"], settings["rescored"]
        shape, self._searcher = super()._restore(settings, files), None
        if "scann.zip" in files:
            with tempfile.TemporaryDirectory() as folder:
                with zipfile.ZipFile(files["scann.zip"]) as archive:
                    for name in _FILES:
                        archive.extract(name, folder)
                Path(folder, "dataset.npy").symlink_to(Path(files["vectors.npy"]).resolve())
                self._searcher = _scann().load_searcher(folder)
        return shape

    @staticmethod
    def _versions() -> dict[str, str]:
        from importlib.metadata import version

        return {"scann": version("scann")}


def _scann() -> Any:
    """The part of ScaNN that works on arrays.

    Its other part is operations for one version of TensorFlow, and importing the package fails with any other version.
    In that case, it is imported here as if TensorFlow were not installed.
    """
    others = "scann.scann_ops.py.scann_ops"
    is_known = others in sys.modules
    if not is_known:
        sys.modules[others] = None  # type: ignore[assignment]  # Python's way to say that there is no such module
    try:
        from scann.scann_ops.py import scann_ops_pybind
    except ImportError as error:
        raise missing_extra("ScannIndex", "scann", "scann") from error
    finally:
        if not is_known:
            del sys.modules[others]
    return scann_ops_pybind
