"""Ranking metrics over the whole catalogue. Every metric follows from the ranks of the targets.

``target_ranks`` turns scores into ranks, ``ranking_metrics`` turns ranks into metrics, ``evaluate`` does both.
No sampled negatives: every item of the vocabulary is ranked (Krichene and Rendle, "On Sampled Metrics for Item
Recommendation", KDD 2020, show why).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import Seen, check_ids, check_seen
from deepmatch_ext._checks import as_texts, one_of, positive_int, problem, shown
from deepmatch_ext.evaluation.ranks import (
    MISSED,
    NO_SEEN,
    SEEN_TARGETS,
    Score,
    check_seen_targets,
    check_targets,
    inner_products,
    ranks_of,
)

NAME_FORMAT = "{metric}@{n}"


def ranking_metrics(
    ranks: np.ndarray,
    ns: Sequence[int] = (10, 50),
    *,
    groups: np.ndarray | None = None,
    seen_targets: str = "miss",
    name_format: str = NAME_FORMAT,
) -> dict[str, float]:
    """Hit rate, NDCG, MRR and recall at each N, averaged over users.

    A user is one row, or with ``groups`` all the rows of one group. For a user with ranks r (0 is best):

    - ``HR@N``: 1 if any r < N.
    - ``NDCG@N``: the sum of 1 / log2(r + 2) over r < N, divided by its value if min(number of targets, N) targets
      took the first places (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002).
    - ``MRR@N``: 1 / (smallest r + 1) if that is below N, else 0.
    - ``Recall@N``: the fraction of the user's targets with r < N. With one target it equals ``HR@N``.

    Args:
        ranks: The number of other items ranked at or before each target, (B,), as ``target_ranks`` returns it;
            ``MISSED`` for a target that is in ``seen``.
        ns: The cut-offs N, each at least 1.
        groups: The user of each row, (B,), integers or strings in any order. A user's rows should be different targets
            in one ranking (the same scores and seen items). Two targets cannot share a place: the user's i-th best
            rank (from 0) is taken as at least i, which keeps every figure within 0..1.
        seen_targets: How to treat a rank of ``MISSED``: "miss" counts it as a miss at every N, since the target is
            never recommended; "leave_out" leaves the row out of every average.
        name_format: How the metrics are named, from ``metric`` and ``n``. For experiment trackers that reject ``@``,
            give ``"{metric}_at_{n}"``.

    Returns:
        ``{"HR@10": ..., "NDCG@10": ..., "MRR@10": ..., "Recall@10": ..., "HR@50": ...}``, all within 0..1.

    Raises:
        ValueError: ``ranks`` is empty or negative, ``ns`` is empty or below 1, ``groups`` has another shape, every row
            is left out, or ``name_format`` does not name metric and n.

    Example:
        >>> import numpy as np
        >>> ranking_metrics(np.array([0, 3]), ns=[2])
        {'HR@2': 0.5, 'NDCG@2': 0.5, 'MRR@2': 0.5, 'Recall@2': 0.5}
        >>> ranking_metrics(np.array([0, 3]), ns=[2], groups=np.array([7, 7]))["Recall@2"]
        0.5
        >>> [ranking_metrics(np.array([0, MISSED]), [2], seen_targets=how)["HR@2"] for how in ("miss", "leave_out")]
        [0.5, 1.0]
    """
    ns = check_ns(ns)
    one_of("`seen_targets`", seen_targets, SEEN_TARGETS)
    check_name_format(name_format)
    ranks = check_ids("`ranks`", ranks, 0)
    if ranks.size == 0:
        raise problem("`ranks`", "hold at least one rank", "none")
    users = np.arange(len(ranks)) if groups is None else check_groups(groups, len(ranks))
    if seen_targets == "leave_out":
        kept = ranks != MISSED
        if not kept.any():
            rule = "hold a rank that is not MISSED, with seen_targets='leave_out'"
            raise problem("`ranks`", rule, f"{len(ranks)} that are", NO_SEEN)
        ranks, users = ranks[kept], np.unique(users[kept], return_inverse=True)[1]
    num_targets = np.bincount(users)
    order = np.lexsort((ranks, users))
    users, ranks = users[order], ranks[order]
    place = np.arange(len(ranks)) - np.repeat(np.cumsum(num_targets) - num_targets, num_targets)  # 0, 1, ... a user
    # Rows of one user that were scored apart may both claim a place: rounding, or other seen items.
    ranks = np.maximum(ranks, place)
    best = ranks[place == 0]
    metrics: dict[str, float] = {}
    for n in ns:
        within = min(n, MISSED)  # which is a miss at every N
        hit, hits_first = ranks < within, best < within
        gain = np.where(hit, 1 / np.log2(ranks + 2.0), 0.0)
        most = np.minimum(num_targets, n)
        ideal = np.cumsum(1 / np.log2(np.arange(most.max()) + 2.0))[most - 1]
        figures = {
            "HR": hits_first.mean(),
            "NDCG": (np.bincount(users, weights=gain) / ideal).mean(),
            "MRR": np.where(hits_first, 1 / (best + 1.0), 0.0).mean(),
            "Recall": (np.bincount(users, weights=hit) / num_targets).mean(),
        }
        metrics |= {name_format.format(metric=metric, n=n): float(value) for metric, value in figures.items()}
    return metrics


def evaluate(
    score: Score,
    targets: np.ndarray,
    *,
    seen: Seen | None = None,
    seen_targets: str = "miss",
    ns: Sequence[int] = (10, 50),
    groups: np.ndarray | None = None,
    block_size: int = 1024,
    name_format: str = NAME_FORMAT,
) -> dict[str, float]:
    """The ranking metrics of any scorer: ``ranking_metrics`` of its ``target_ranks``.

    Args:
        score: As in ``target_ranks``: ``score(start, stop)`` gives the scores (stop - start, V).
        targets: The target item of each row, (B,), ids 1..V-1.
        seen: The items that each row has already had and that are not recommended, ``(indptr (B + 1,), item ids)``.
            Omit ``seen`` if your product recommends items again: repeats then rank like any other item.
        seen_targets: How to treat a target that is in its own row's ``seen``: "miss" counts it as a miss at every N,
            since it is never recommended; "leave_out" leaves the row out of every average.
        ns: The cut-offs N, each at least 1.
        groups: The user of each row, (B,), if users may have several targets. An item that is a target of the same user
            twice counts once, by its first row that is not left out.
        block_size: Rows scored at once.
        name_format: As in ``ranking_metrics``.

    Returns:
        The metrics that ``ranking_metrics`` describes.

    Raises:
        ValueError: As ``target_ranks`` and ``ranking_metrics``.

    Warns:
        SeenTargetsWarning: Some targets are in their own row's ``seen``.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.0, 0.1, 0.4, 0.3], [0.0, 0.6, 0.5, 0.2]])
        >>> evaluate(lambda start, stop: scores[start:stop], np.array([2, 3]), ns=[1])
        {'HR@1': 0.5, 'NDCG@1': 0.5, 'MRR@1': 0.5, 'Recall@1': 0.5}
    """
    ns = check_ns(ns)  # before the scoring, which may take long
    block_size = positive_int("`block_size`", block_size)
    check_name_format(name_format)
    targets = check_targets(targets)
    users = None if groups is None else check_groups(groups, len(targets))
    seen = None if seen is None else check_seen("`seen`", seen, len(targets))
    held = check_seen_targets(targets, seen, seen_targets)
    return metrics_of(ranks_of(score, targets, seen, held, block_size), targets, ns, users, seen_targets, name_format)


def metrics_of(
    ranks: np.ndarray,
    targets: np.ndarray,
    ns: Sequence[int],
    users: np.ndarray | None,
    seen_targets: str,
    name_format: str,
) -> dict[str, float]:
    """``ranking_metrics`` of the ranks of ``targets``, each target of a user once; ``users`` as by `check_groups`."""
    if users is not None:
        kept = np.flatnonzero(ranks != MISSED) if seen_targets == "leave_out" else np.arange(len(ranks))
        _, first = np.unique(users[kept] * (targets.max() + 1) + targets[kept], return_index=True)
        ranks, users = ranks[kept[first]], users[kept[first]]
    return ranking_metrics(ranks, ns, groups=users, seen_targets=seen_targets, name_format=name_format)


def evaluate_vectors(
    user_vectors: np.ndarray,
    item_vectors: np.ndarray,
    targets: np.ndarray,
    *,
    seen: Seen | None = None,
    seen_targets: str = "miss",
    ns: Sequence[int] = (10, 50),
    groups: np.ndarray | None = None,
    block_size: int = 1024,
    name_format: str = NAME_FORMAT,
) -> dict[str, float]:
    """The ranking metrics of two towers: the score is the inner product in float32; with K interests, the best of K.

    Args:
        user_vectors: One vector for each row, (B, D); or (B, K, D) for K interests, as ``inner_products`` takes them.
        item_vectors: One vector for each item id, (V, D). Row 0 is padding and is never ranked.
        targets: The target item of each row, (B,), ids 1..V-1.
        seen: As in ``evaluate``.
        seen_targets: As in ``evaluate``.
        ns: As in ``evaluate``.
        groups: As in ``evaluate``.
        block_size: Rows scored at once; the largest arrays held are (block_size, V).
        name_format: As in ``ranking_metrics``.

    Returns:
        The metrics that ``ranking_metrics`` describes.

    Raises:
        ValueError: As ``evaluate``, or the vectors are not finite or their shapes do not fit.

    Warns:
        SeenTargetsWarning: As ``evaluate``.

    Example:
        >>> import numpy as np
        >>> items = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> evaluate_vectors(items[[1, 2]], items, np.array([1, 2]), ns=[1])["HR@1"]
        1.0
    """
    score = inner_products(user_vectors, item_vectors)
    targets = check_ids("`targets`", targets, 1, len(item_vectors) - 1, length=len(user_vectors))
    return evaluate(
        score,
        targets,
        seen=seen,
        seen_targets=seen_targets,
        ns=ns,
        groups=groups,
        block_size=block_size,
        name_format=name_format,
    )


def format_table(
    rows: Mapping[str, Mapping[str, float]], columns: Sequence[str] = ("HR@10", "NDCG@10", "Recall@50")
) -> str:
    """An aligned plain-text table of figures, one line for each model, to print.

    Args:
        rows: The figures of each model by its name, as ``evaluate`` returns them.
        columns: The figures to show. A model without one of them shows "-".

    Returns:
        The lines, joined by newlines, with four decimals.

    Raises:
        ValueError: No row has a figure of that name.

    Example:
        >>> print(format_table({"popularity": {"HR@10": 0.086}, "Markov": {"HR@10": 0.145}}, columns=["HR@10"]))
                     HR@10
        popularity  0.0860
        Markov      0.1450
    """
    if not isinstance(rows, Mapping) or not all(isinstance(figures, Mapping) for figures in rows.values()):
        raise problem("`rows`", "be the figures of each model by its name", shown(rows))
    columns = as_texts("`columns`", columns)
    for column in columns:
        if rows and not any(column in figures for figures in rows.values()):
            known = list(dict.fromkeys(name for figures in rows.values() for name in figures))
            raise problem("`columns`", f"name figures that a row has ({', '.join(known)})", shown(column))
    lines = [["", *columns]]
    for name, figures in rows.items():
        lines.append([name, *(f"{figures[column]:.4f}" if column in figures else "-" for column in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def check_ns(ns: Any) -> list[int]:
    if not isinstance(ns, Iterable) or isinstance(ns, str | bytes) or (hasattr(ns, "ndim") and ns.ndim != 1):
        raise problem("`ns`", "be a sequence of integers", shown(ns))
    checked = [positive_int("each of `ns`", n) for n in ns]
    if not checked:
        raise problem("`ns`", "hold at least one cut-off", "none")
    return checked


def check_name_format(name_format: Any) -> str:
    """``name_format`` if it makes a different name for each metric and n."""
    try:
        names = {name_format.format(metric=metric, n=n) for metric in ("HR", "MRR") for n in (1, 10)}
    except Exception:  # whatever is no such text
        names = set()
    if len(names) < 4:
        raise problem("`name_format`", "be text with {metric} and {n} in it", shown(name_format))
    return str(name_format)


def check_groups(values: Any, length: int) -> np.ndarray:
    """``values`` renumbered 0..users-1, (length,)."""
    groups = np.asarray(values)
    if groups.shape != (length,):
        raise problem("`groups`", f"have shape ({length},)", f"shape {groups.shape}")
    kind = str(groups.dtype) if groups.dtype != object else pd.api.types.infer_dtype(groups, skipna=False)
    if groups.dtype.kind == "f" or (groups.dtype == object and kind not in ("integer", "string", "bytes")):
        raise problem("`groups`", "hold integers or strings, none missing", kind)
    return np.unique(groups, return_inverse=True)[1]
