"""The contents of the report: figures, pictures, settings."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from deepmatch_ext._arrays import Seen, check_ids, check_item_counts, check_seen, check_vectors, seen_pairs, seen_rows
from deepmatch_ext._checks import problem
from deepmatch_ext._files import write_text
from deepmatch_ext._interests import best_pair_scores
from deepmatch_ext.evaluation.beyond_accuracy import beyond_accuracy
from deepmatch_ext.evaluation.collapse import coverage, popular_share, sample_rows
from deepmatch_ext.evaluation.metrics import check_groups, ranking_metrics
from deepmatch_ext.evaluation.ranks import check_seen_targets, in_seen, inner_products, ranks_of
from deepmatch_ext.evaluation.report.arguments import check_history, check_item_groups, check_path, check_ranks
from deepmatch_ext.evaluation.report.page import Table, page, require_jinja2
from deepmatch_ext.evaluation.report.pictures import (
    map_picture,
    popularity_picture,
    recall_picture,
    require_matplotlib,
    score_picture,
    training_pictures,
)

_MAX_USERS, _NEGATIVES = 20_000, 10  # whose scores are drawn, and random items for each of them
_LONGEST_LIST = 1000  # where the curve of recall ends


def write_report(
    path: str | os.PathLike[str],
    user_vectors: Any,
    item_vectors: Any,
    targets: Any,
    *,
    seen: Seen | None = None,
    seen_targets: str = "miss",
    ns: Sequence[int] = (10, 50),
    groups: Any = None,
    history: Mapping[str, Sequence[float]] | None = None,
    ranks: Mapping[str, Any] | None = None,
    item_count: Any = None,
    item_groups: Any = None,
    settings: Mapping[str, Any] | None = None,
    title: str = "Retrieval report",
    name: str = "model",
) -> dict[str, dict[str, float]]:
    """Writes one HTML file with the figures, the pictures and the settings of a trained model.

    The file is self-contained: it loads nothing and runs no script. The same arguments give the same file on one
    machine. The pictures:

    - training: the loss and the validation metrics after each epoch (with `history`);
    - recall against N, also of other recommenders (with `ranks`);
    - the scores of the targets, and of random items, none of which the user has had;
    - what is recommended compared with what is consumed, by popularity (with `item_count`);
    - a map of the item vectors along their two principal axes, coloured by group (with `item_groups`).

    With `item_count`, the report also has a table with the metrics of `beyond_accuracy`. All users are ranked twice,
    which takes as long as evaluating the model twice. matplotlib draws the pictures; it is imported only here, and
    neither its settings nor its current figure change. Names may be in any script.

    Args:
        path: The file to write, ``.html``. It is written completely or not at all; an existing file is replaced.
        user_vectors: (B, D) one vector for each held-out event; or (B, K, D) for K interests, as `inner_products`
            takes them.
        item_vectors: (V, D) one vector for each item id; row 0 is padding.
        targets: (B,) the item ids of the held-out events.
        seen: The items that each row has had before and that are not recommended, ``(indptr (B + 1,), items)``:
            `deepmatch_ext.data.seen_before` makes them. Omit `seen` if your product recommends items again.
        seen_targets: How to treat a target that is in its own row's `seen`, for every recommender in the report: "miss"
            counts it as a miss at every N, since it is never recommended; "leave_out" leaves the row out of the whole
            report.
        ns: Metrics at each of these lengths; the first is also the length of the lists whose popularity is drawn.
        groups: (B,) which rows belong to one user, if users have several held-out events.
        history: name -> its figure after each epoch: ``model.fit(...).history``.
        ranks: name of another recommender -> its ranks of the same targets, (B,), as `target_ranks` returns them with
            the same `seen`.
        item_count: (V,) how often each item occurs in the training data.
        item_groups: (V,) the group of each item, such as its genre, by item id; None or "" for items without one.
        settings: Settings to list in the report: name -> anything that can be printed.
        title: The headline.
        name: The name of the model in tables and pictures.

    Returns:
        name -> its metrics, of the model and of the other recommenders.

    Raises:
        ImportError: matplotlib or Jinja2 is not installed; the extra ``report`` installs both.
        ValueError: The arrays don't fit each other, every row is left out, or the file can't be written there.

    Warns:
        SeenTargetsWarning: Some targets are in their own row's `seen`. The page also says how many.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> rng = np.random.default_rng(0)
        >>> users, items = rng.normal(size=(20, 4)), rng.normal(size=(31, 4))
        >>> path = Path(tempfile.mkdtemp()) / "report.html"
        >>> figures = write_report(path, users, items, rng.integers(1, 31, 20), settings={"seed": 1})
        >>> list(figures["model"])[:2], path.read_text(encoding="utf-8")[:15]
        (['HR@10', 'NDCG@10'], '<!doctype html>')
    """
    from deepmatch_ext.retrieval.top_n import top_n  # which imports TensorFlow

    require_matplotlib(), require_jinja2()  # before the work
    path = check_path(path)
    users, items = check_vectors(user_vectors, item_vectors)
    num_users, vocabulary_size = len(users), len(items)
    targets = check_ids("`targets`", targets, 1, vocabulary_size - 1, length=num_users)
    seen = None if seen is None else check_seen("`seen`", seen, num_users, vocabulary_size)
    ns = tuple(ns) if isinstance(ns, Iterable) else ns
    ranking_metrics(np.zeros(1, np.int64), ns)  # refuses what can't be, before the work
    groups = None if groups is None else check_groups(groups, num_users)
    epochs = check_history(history)
    held = in_seen(targets, seen)
    others = check_ranks(ranks, name, held)
    counts = None if item_count is None else check_item_counts("`item_count`", item_count, vocabulary_size)
    group_names = check_item_groups(item_groups, vocabulary_size)
    if not isinstance(settings, Mapping | None):
        raise problem("`settings`", "be a dictionary", type(settings).__name__)

    check_seen_targets(targets, seen, seen_targets)
    repeats = ""
    if held.any():
        fate = "counts as a miss" if seen_targets == "miss" else "is left out"
        repeats = f" Of {num_users:,} events, {held.sum():,} are of an item that the user has had; each {fate}."
    if seen_targets == "leave_out" and held.any():
        kept = np.flatnonzero(~held)
        users, targets, num_users = users[kept], targets[kept], len(kept)
        seen = None if seen is None else seen_rows(seen, kept)
        groups = None if groups is None else groups[kept]
        others = {who: of_targets[kept] for who, of_targets in others.items()}
        held = held[kept]
    model_ranks = ranks_of(inner_products(users, items), targets, seen, held)
    all_ranks = {name: model_ranks, **others}
    figures = {who: ranking_metrics(of_targets, ns, groups=groups) for who, of_targets in all_ranks.items()}
    lists, _ = top_n(users, items, min(ns[0], vocabulary_size - 1), exclude=seen)
    positives, negatives, wins = _scores(users, items, targets, seen, held)
    recall_at, recalls = _recalls(all_ranks, vocabulary_size - 1, groups)

    pictures = [] if epochs is None else training_pictures(epochs)
    pictures.append(recall_picture(recall_at, recalls))
    pictures.append(score_picture(positives, negatives, wins))
    if counts is not None:
        pictures.append(popularity_picture(counts, targets, lists))
    pictures.append(map_picture(items, counts, group_names))

    less = "" if seen is None else ", less those that the user has had"
    ranked = (
        f"{num_users:,} held-out events, each ranked among all {vocabulary_size - 1:,} items{less}; a tie counts "
        f"against the model.{repeats}"
    )
    covered = coverage(lists, vocabulary_size)
    of_lists = f"{name}: coverage of the lists of {lists.shape[1]}: {covered:.1%} of the items that they could hold"
    if counts is not None:
        share = popular_share(lists, counts, seen)
        of_lists += f"; {share:.1%} of these recommendations are a popularity recommender's, too"
    words = [Table("Versions", ["", "version"], list(_versions().items()))]
    if settings:
        words.insert(0, Table("Settings", ["setting", "value"], [(key, str(value)) for key, value in settings.items()]))
    numbers = [_table("Recall at N", "N", recall_at, recalls)]
    if epochs is not None:
        each = range(1, 1 + len(next(iter(epochs.values()))))
        numbers.insert(0, _table("Every figure of every epoch", "epoch", each, epochs, ".4g"))
    if counts is not None and lists.any():
        of_n = beyond_accuracy(
            lists, counts, lists.shape[1:], targets=targets, item_vectors=items, categories=group_names
        )
        numbers.append(Table("Beyond accuracy", ["", name], [(key, f"{value:.4f}") for key, value in of_n.items()]))
    rows = [[who, *(f"{value:.4f}" for value in of_who.values())] for who, of_who in figures.items()]
    table = Table("", ["", *figures[name]], rows)
    write_text(path, page(title, ranked, table, f"{of_lists}.", pictures, words, numbers))
    return figures


def _table(title: str, first: str, rows: Iterable[int], columns: Mapping[str, Any], form: str = ".4f") -> Table:
    """A table of figures by column, with the numbers of the rows in front."""
    return Table(
        title, [first, *columns], [[row, *(f"{of[k]:{form}}" for of in columns.values())] for k, row in enumerate(rows)]
    )


def _recalls(ranks: Mapping[str, np.ndarray], num_items: int, groups: Any) -> tuple[list[int], dict[str, list[float]]]:
    longest = min(_LONGEST_LIST, num_items)
    even = {round(float(n)) for n in np.geomspace(1, longest, 40)}
    lengths = sorted(even.union(n for n in (10, 20, 50, 100, 200, 500) if n < longest))
    recalls = {}
    for who, of_targets in ranks.items():
        metrics = ranking_metrics(of_targets, lengths, groups=groups)
        recalls[who] = [metrics[f"Recall@{n}"] for n in lengths]
    return lengths, recalls


def _scores(
    users: np.ndarray, items: np.ndarray, targets: np.ndarray, seen: Seen | None, held: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Scores of targets and of random unseen items, and the fraction of a user's pairs that the target wins.

    Targets that are in ``seen``, as ``held`` (B,) says, are left out: each would be the only item of its pairs that the
    user has had, and would nearly always win.
    """
    rankable = np.flatnonzero(~held)
    rows = rankable[np.sort(sample_rows(len(rankable), _MAX_USERS))]
    drawn = np.random.default_rng(0).integers(1, len(items), size=(len(rows), _NEGATIVES))
    keep = drawn != targets[rows, None]
    if seen is not None:
        pair_rows, pair_items = seen_pairs(seen, 0, len(users))
        had = np.unique(pair_rows * len(items) + pair_items)
        keep &= ~np.isin(rows[:, None] * len(items) + drawn, had)
    positives = best_pair_scores(users[rows], items[targets[rows]])
    scores = np.stack([best_pair_scores(users[rows], items[column]) for column in drawn.T], axis=1)
    better = np.where(scores < positives[:, None], 1.0, np.where(scores == positives[:, None], 0.5, 0.0))
    return positives, scores[keep], float(better[keep].mean()) if keep.any() else float("nan")


def _versions() -> dict[str, str]:
    """Versions of the packages that are loaded; nothing is imported for it."""
    versions = {"Python": platform.python_version()}
    for module in ("deepmatch_ext", "tensorflow", "keras", "tf_keras", "deepctr", "numpy", "pandas", "matplotlib"):
        version = getattr(sys.modules.get(module), "__version__", None)
        if version is not None:
            versions[module] = str(version)
    return {**versions, "system": f"{platform.system()} {platform.machine()}"}
