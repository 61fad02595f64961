"""The fastest index that finds enough, found by trying."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import check_users
from deepmatch_ext._checks import number_between, positive_int, problem, shown
from deepmatch_ext.retrieval.exact_index import ExactIndex
from deepmatch_ext.retrieval.faiss_index import FaissIndex
from deepmatch_ext.retrieval.index import VectorIndex, share_found
from deepmatch_ext.retrieval.scann_index import FEW, ScannIndex

# Searches timed of each index, a round each in turn.
_SEARCHES, _ROUNDS = 50, 3
# The relative precision to which the least effort is found.
_PRECISION = 1.06
# What is tried for `ScannIndex.rescored`, its default among them.
_RESCORED = (2, 3, 4, 6, 9, 13)

Share = Callable[[Any], float]


def choose_index(
    ids: Any,
    vectors: Any,
    users: Any,
    n: int,
    least_recall: float = 0.95,
    *,
    metric: str = "inner_product",
    at_once: int = 1,
    factories: Sequence[str] | None = None,
) -> tuple[VectorIndex, pd.DataFrame]:
    """Builds several indexes, and returns the fastest one that reaches the recall, with what was measured.

    For each index, it looks for the least ``effort`` that reaches the recall, for ScaNN together with ``rescored``, and
    measures the time of a search with these. The indexes are measured in turn, and nothing else should run on the
    machine meanwhile. Each index is built, which takes minutes for a million items; two at a time are in memory besides
    `ExactIndex`'s vectors.

    Args:
        ids: The items' ids, (V,), as for `VectorIndex`.
        vectors: The items' vectors, (V, D).
        users: Users' vectors like those of later searches, (N, D) or (N, K, D). A thousand users determine the recall
            to about 0.01.
        n: How many items a search returns.
        least_recall: The fraction of the exact best ``n`` to be found, in [0, 1).
        metric: "inner_product" or "cosine".
        at_once: The number of users in one search.
        factories: What to try besides `ExactIndex`: ``"ScaNN"``, and factory strings of `FaissIndex`. By default those
            of installed libraries: ScaNN, lists with 4-bit codes, and a graph.

    Returns:
        The index, with its ``effort`` and ``rescored`` set, and a frame with a row for each index that was tried: first
        the returned one, then the others that reached the recall, sorted by time, then the rest. Its columns are
        ``index``, ``effort``, ``rescored``, ``recall``, ``ms`` for a search, ``build_s``, and ``enough``, whether the
        recall was reached.

    Raises:
        ImportError: A library of ``factories`` is not installed.
        ValueError: As `VectorIndex` and its ``search``.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(2000, 16))
        >>> index, tried = choose_index(range(2000), vectors, vectors[:50], n=10)
        >>> index  # of so few items nothing is faster
        ExactIndex(2000 items of dimension 16, inner_product)
    """
    least_recall = number_between("`least_recall`", least_recall, 0, 1)
    at_once = positive_int("`at_once`", at_once)
    users, _ = check_users("`users`", users, "N")
    if not len(users):
        raise problem("`users`", "hold at least one user", "none")
    exact, seconds = _built(lambda: ExactIndex(ids, vectors, metric=metric))
    if factories is None:
        factories = _usual(len(exact), exact.dimension)
    elif isinstance(factories, str):
        raise problem("`factories`", "be a list of names", shown(factories))
    best, chosen = exact, "ExactIndex"
    wanted = exact.search(users, n)
    rows: list[tuple[Any, ...]] = [
        ("ExactIndex", None, None, 1.0, _milliseconds([exact], users, n, at_once)[0], seconds, True)
    ]

    def found_by(index: Any) -> float:
        return share_found(exact, wanted, index.search(users, n))

    for factory in factories:
        index, seconds = _built(partial(_made, factory, ids, vectors, metric))
        found = _tuned(index, found_by, least_recall, lambda index: _milliseconds([index], users, n, at_once)[0])
        before, now = _milliseconds([best, index], users, n, at_once)
        rescored = getattr(index, "rescored", None)
        rows.append((factory, index.effort, rescored, found, now, seconds, found >= least_recall))
        if found >= least_recall and now < before:
            best, chosen = index, factory
    tried = pd.DataFrame(rows, columns=["index", "effort", "rescored", "recall", "ms", "build_s", "enough"])
    # Its time in its own turn may have been another's, if these are nearly equal.
    order = np.lexsort([tried["ms"], ~tried["enough"], tried["index"] != chosen])
    tried = tried.iloc[order].reset_index(drop=True)
    return best, tried.astype({"effort": "Int64", "rescored": "Int64"}).round({"recall": 4, "ms": 3, "build_s": 1})


def _usual(count: int, dimension: int) -> list[str]:
    """What may be faster than an exact search, of what is installed."""
    if count < FEW:
        return []
    found = ["ScaNN"] if find_spec("scann") else []
    if find_spec("faiss"):
        lists = 2 ** int(np.log2(min(4 * count**0.5, count / 39)))  # FAISS wants 39 vectors to learn a list from
        found += [f"IVF{lists},PQ{dimension}x4fs,Refine(SQfp16)"] if dimension % 2 == 0 else []
        found += ["HNSW32_SQfp16"]
    return found


def _made(factory: str, ids: Any, vectors: Any, metric: str) -> Any:
    if factory == "ScaNN":
        return ScannIndex(ids, vectors, metric=metric)
    return FaissIndex(ids, vectors, factory, metric=metric)


def _built(make: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return make(), time.perf_counter() - start


def _tuned(index: Any, found_by: Share, least: float, milliseconds: Callable[[Any], float]) -> float:
    """Sets what makes the index reach the recall in the least time, or else find most; returns the recall.

    `ScannIndex.rescored` goes up from its default, and then down from it, as long as that helps.
    """

    def tried() -> tuple[tuple[bool, float], float, dict[str, int]]:
        found = _least_effort(index, found_by, least)
        cost = (True, -found) if found < least else (False, milliseconds(index))
        return cost, found, {"effort": index.effort, "rescored": index.rescored}

    if not isinstance(index, ScannIndex) or index.is_exact:
        return _least_effort(index, found_by, least)
    best, default = tried(), _RESCORED.index(index.rescored)
    for values in (_RESCORED[default + 1 :], _RESCORED[:default][::-1]):
        for index.rescored in values:
            this = tried()
            if this[0] >= best[0]:
                break
            best = this
    _, found, settings = best
    for name, value in settings.items():
        setattr(index, name, value)
    return found


def _least_effort(index: Any, found_by: Share, least: float) -> float:
    """Sets the least effort that reaches the recall, or the largest; returns the recall."""

    def with_effort(effort: int) -> float:
        index.effort = effort
        return found_by(index)

    if index.effort is None:
        return found_by(index)
    low, high = 0, 1
    found = with_effort(high)
    # Of lists there are no more than `effort` shows; a graph's candidates have no such bound.
    while found < least and index.effort == high and high < len(index):
        low, high = high, min(2 * high, len(index))
        found = with_effort(high)
    high = index.effort
    while found >= least and high > max(low * _PRECISION, low + 1):
        middle = (low + high) // 2
        there = with_effort(middle)
        if there >= least:
            high, found = middle, there
        else:
            low = middle
    index.effort = high
    return found


def _milliseconds(indexes: list[VectorIndex], users: np.ndarray, n: int, at_once: int) -> list[float]:
    """The median time of a search of each, measured in turn."""
    times: list[list[float]] = [[] for _ in indexes]
    groups = [users[(start + np.arange(at_once)) % len(users)] for start in range(0, _SEARCHES * at_once, at_once)]
    for _ in range(_ROUNDS + 1):
        for index, measured in zip(indexes, times, strict=True):
            for group in groups:
                start = time.perf_counter()
                index.search(group, n)
                measured.append((time.perf_counter() - start) * 1e3)
    return [float(np.median(each[len(groups) :])) for each in times]  # the first round warms up
