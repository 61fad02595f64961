"""One HTML file that shows how a model recommends: pictures, numbers, settings. Nothing in it is loaded from elsewhere.

matplotlib draws the curves and axes; names that come from the caller (genres, settings, recommenders) are HTML, so any
script and any character shows. Ink and paper follow the reader's light or dark mode.
"""

from __future__ import annotations

import html
import io
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import Seen, check_ids, check_seen, check_vectors, seen_pairs, seen_rows
from deepmatch_ext._checks import as_path, missing_extra, problem
from deepmatch_ext._files import write_text
from deepmatch_ext.evaluation.baselines import check_item_counts
from deepmatch_ext.evaluation.collapse import coverage, popular_share, sample_rows
from deepmatch_ext.evaluation.metrics import (
    MISSED,
    check_groups,
    check_seen_targets,
    in_seen,
    ranking_metrics,
    ranks_of,
)
from deepmatch_ext.retrieval.top_n import top_n

_MAX_POINTS = 2000  # items on the map: more would hide each other
_MAX_GROUPS = 12  # groups on the map with a colour and a shape of their own
_MAX_USERS, _NEGATIVES = 20_000, 10  # whose scores are drawn, and random items for each of them
_LONGEST_LIST = 1000  # where the curve of recall ends

# Colours that the colour-blind tell apart (Okabe and Ito, "Color Universal Design", 2008), those of them that show on
# white and on black; and a second mark beside the colour: dashes for lines, shapes for points.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "6 2", "2 2", "8 2 2 2", "10 4", "4 1 1 1 1 1")  # as SVG writes them
_SHAPES = ("o", "^")
_GREY = "#888888"
# matplotlib draws with these, and the page's own colours take their place.
_INK, _GRID, _PAPER = "#010203", "#040506", "#070809"
_PAGE_COLOURS = {_INK: "currentColor", _GRID: "var(--grid)", _PAPER: "var(--paper)"}

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --soft: #5c5c5c; --grid: #d9d9d9; }
@media (prefers-color-scheme: dark) { :root { --paper: #161616; --ink: #ececec; --soft: #a8a8a8; --grid: #3d3d3d; } }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 0 0 .25rem; }
p, figcaption { color: var(--soft); margin: .25rem 0 1rem; max-width: 60rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: 2rem 2.5rem;
  margin: 2rem 0; }
figure { margin: 0; }
figure svg.plot { display: block; width: 100%; height: auto; }
.key { display: flex; flex-wrap: wrap; gap: .1rem 1.2rem; margin: .25rem 0; padding: 0; list-style: none;
  font-size: .9rem; }
.key svg { vertical-align: middle; margin-right: .4rem; }
.tables { overflow-x: auto; margin: 1rem 0 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--grid); text-align: right; }
th:first-child, td:first-child, .words td, .words th { text-align: left; overflow-wrap: anywhere; }
summary { cursor: pointer; margin: .5rem 0; }
"""


@dataclass(frozen=True)
class _Picture:
    """A picture with its name, its key (mark and name of each series) and what it says in a sentence."""

    title: str
    figure: Any
    key: Sequence[tuple[str, str]]
    caption: str


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

    The file stands alone: it loads nothing, runs no script, and the same arguments give the same file on one machine.
    The pictures:

    - training: the loss and the validation metrics after each epoch (with `history`);
    - recall against N, beside that of other recommenders (with `ranks`);
    - the scores of the targets and of random items, none of which the user has had;
    - what is recommended against what is consumed, by popularity (with `item_count`);
    - a map of the item vectors along their two principal axes, coloured by group (with `item_groups`).

    All users are ranked twice, which takes as long as evaluating the model twice. matplotlib draws (it is not imported
    before), and neither its settings nor its current figure change.

    Args:
        path: The file to write, ``.html``. It appears whole or not at all; an older one is replaced.
        user_vectors: (B, D) one vector for each held-out event.
        item_vectors: (V, D) one vector for each item id; row 0 is padding.
        targets: (B,) the item ids of the held-out events.
        seen: The items that each row has had before and that are not recommended, ``(indptr (B + 1,), items)``:
            `deepmatch_ext.data.seen_before` makes them. Where the product recommends items again, leave it out.
        seen_targets: What a target counts as that is in its own row's `seen`, for every recommender in the report:
            "miss", a miss at every N, as it is served; or "leave_out", the row counts nowhere in the report.
        ns: Metrics at each of these lengths; the first is also the length of the lists whose popularity is drawn.
        groups: (B,) which rows belong to one user, where users have several held-out events.
        history: name -> its figure after each epoch: ``model.fit(...).history``.
        ranks: name of another recommender -> its ranks of the same targets, (B,), as `target_ranks` gives them with
            the same `seen`.
        item_count: (V,) how often each item occurs in the training data.
        item_groups: (V,) the group of each item, such as its genre, by item id; None or "" where there is none.
        settings: What to write down beside the figures: name -> anything that can be printed.
        title: The headline.
        name: What the model is called in tables and pictures.

    Returns:
        name -> its metrics, of the model and of the other recommenders.

    Raises:
        ImportError: There is no matplotlib.
        ValueError: The arrays don't fit each other, every row is left out, or the file can't be there.

    Warns:
        SeenTargetsWarning: Some targets are in their own row's `seen`. The page says how many, too.

    Example:
        >>> import tempfile
        >>> rng = np.random.default_rng(0)
        >>> users, items = rng.normal(size=(20, 4)), rng.normal(size=(31, 4))
        >>> path = Path(tempfile.mkdtemp()) / "report.html"
        >>> figures = write_report(path, users, items, rng.integers(1, 31, 20), settings={"seed": 1})
        >>> list(figures["model"])[:2], path.read_text(encoding="utf-8")[:15]
        (['HR@10', 'NDCG@10'], '<!doctype html>')
    """
    _matplotlib_figure()  # before the work
    path = _check_path(path)
    users, items = check_vectors(user_vectors, item_vectors)
    num_users, vocabulary_size = len(users), len(items)
    targets = check_ids("`targets`", targets, 1, vocabulary_size - 1, length=num_users)
    seen = None if seen is None else check_seen("`seen`", seen, num_users, vocabulary_size)
    ns = tuple(ns) if isinstance(ns, Iterable) else ns
    ranking_metrics(np.zeros(1, np.int64), ns)  # refuses what can't be, before the work
    groups = None if groups is None else check_groups(groups, num_users)
    epochs = _check_history(history)
    held = in_seen(targets, seen)
    others = _check_ranks(ranks, name, held)
    counts = None if item_count is None else check_item_counts("`item_count`", item_count)
    if counts is not None and len(counts) != vocabulary_size:
        raise problem("`item_count`", f"have shape ({vocabulary_size},)", f"shape {counts.shape}")
    group_names = _check_item_groups(item_groups, vocabulary_size)
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
    model_ranks = ranks_of(lambda start, stop: users[start:stop] @ items.T, targets, seen, held)
    all_ranks = {name: model_ranks, **others}
    figures = {who: ranking_metrics(of_targets, ns, groups=groups) for who, of_targets in all_ranks.items()}
    lists, _ = top_n(users, items, min(ns[0], vocabulary_size - 1), exclude=seen)
    positives, negatives, wins = _scores(users, items, targets, seen, held)
    recall_at, recalls = _recalls(all_ranks, vocabulary_size - 1, groups)

    pictures = [] if epochs is None else _training_pictures(epochs)
    pictures.append(_recall_picture(recall_at, recalls))
    pictures.append(_score_picture(positives, negatives, wins))
    if counts is not None:
        pictures.append(_popularity_picture(counts, targets, lists))
    pictures.append(_map_picture(items, counts, group_names))

    facts = [f"coverage of the lists of {lists.shape[1]}: {coverage(lists, vocabulary_size):.1%} of what they could be"]
    if counts is not None:
        share = popular_share(lists, counts, seen)
        facts.append(f"{share:.1%} of these recommendations are a popularity recommender's, too")
    less = "" if seen is None else ", less those that the user has had"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p>{num_users:,} held-out events, each ranked among all {vocabulary_size - 1:,} items{less}; "
        f"a tie counts against the model.{repeats}</p>",
        _table(["", *figures[name]], [[who, *(f"{x:.4f}" for x in of.values())] for who, of in figures.items()]),
        f"<p>{_text(name)}: {'; '.join(facts)}.</p>",
        '<div class="pictures">',
        *(_picture_html(picture, number) for number, picture in enumerate(pictures)),
        "</div>",
    ]
    if settings:
        parts += ["<h2>Settings</h2>", _table(["setting", "value"], [[k, v] for k, v in settings.items()], "words")]
    parts += ["<h2>Versions</h2>", _table(["", "version"], list(_versions().items()), "words")]
    parts += ["<h2>The numbers behind the pictures</h2>"]
    if epochs is not None:
        rows = [[n + 1, *(f"{v[n]:.4g}" for v in epochs.values())] for n in range(len(next(iter(epochs.values()))))]
        parts.append(_details("Every figure of every epoch", _table(["epoch", *epochs], rows)))
    recall_rows = [[n, *(f"{of[k]:.4f}" for of in recalls.values())] for k, n in enumerate(recall_at)]
    parts.append(_details("Recall at N", _table(["N", *recalls], recall_rows)))
    write_text(path, _page(title, parts))
    return figures


# Pictures. Each is a figure of its own, so nothing of matplotlib's shared state is read or changed.


def _matplotlib_figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("write_report()", "matplotlib", "report") from error
    return Figure


def _axes(xlabel: str, ylabel: str) -> tuple[Any, Any]:
    figure = _matplotlib_figure()(figsize=(6.4, 4.0), layout="constrained", facecolor="none")
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.set_xlabel(xlabel, color=_INK, fontsize=11)
    axes.set_ylabel(ylabel, color=_INK, fontsize=11)
    axes.tick_params(which="both", colors=_INK, labelsize=10)
    axes.grid(visible=True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
    return figure, axes


def _line(axes: Any, x: Any, y: Any, number: int, **options: Any) -> None:
    dashes = [float(length) for length in _DASHES[number % len(_DASHES)].split()]
    options.setdefault("linewidth", 2.0)
    # Dashes are in points here and scaled by the line's width: undone, so that they look as in the key.
    style = (0, [length / options["linewidth"] * 1.2 for length in dashes]) if dashes else "-"
    axes.plot(x, y, color=_COLOURS[number % len(_COLOURS)], linestyle=style, **options)


def _log_x(axes: Any, largest: float, smallest: float = 1) -> None:
    axes.set_xscale("log")
    axes.set_xlim(smallest, max(largest, smallest * 2))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_minor_formatter(lambda value, _: "")


def _training_pictures(epochs: Mapping[str, np.ndarray]) -> list[_Picture]:
    pictures = []
    losses = {name: values for name, values in epochs.items() if name in ("loss", "val_loss")}
    metrics: dict[str, np.ndarray] = {}
    for name, values in epochs.items():
        if name.startswith("val_") and name != "val_loss":
            # With one target a user, hit rate and recall are one curve.
            same = next((other for other in metrics if np.array_equal(metrics[other], values, equal_nan=True)), None)
            if same is None:
                metrics[name.removeprefix("val_")] = values
            else:
                metrics = {(f"{n} = {name.removeprefix('val_')}" if n == same else n): v for n, v in metrics.items()}
    if losses:
        pictures.append(_epochs_picture("Training loss", "loss (nats)", losses, ring=False))
    if metrics:
        pictures.append(_epochs_picture("Validation", "metric, mean over users", metrics, ring=True))
    return pictures


def _epochs_picture(title: str, ylabel: str, curves: Mapping[str, np.ndarray], ring: bool) -> _Picture:
    figure, axes = _axes("epoch", ylabel)
    for number, values in enumerate(curves.values()):
        x = np.arange(1, len(values) + 1)
        _line(axes, x, values, number, marker="." if len(x) < 60 else "", markersize=7)
        if ring and np.isfinite(values).any():
            best = int(np.nanargmax(values))
            axes.plot(x[best], values[best], "o", markersize=11, markerfacecolor="none", markeredgecolor=_INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if ring:
        axes.set_ylim(bottom=0)
    caption = "A ring marks each curve's best epoch." if ring else "After each epoch of training."
    return _Picture(title, figure, _line_key(curves), caption)


def _recalls(ranks: Mapping[str, np.ndarray], num_items: int, groups: Any) -> tuple[list[int], dict[str, list[float]]]:
    longest = min(_LONGEST_LIST, num_items)
    even = {round(float(n)) for n in np.geomspace(1, longest, 40)}
    lengths = sorted(even.union(n for n in (10, 20, 50, 100, 200, 500) if n < longest))
    recalls = {}
    for who, of_targets in ranks.items():
        metrics = ranking_metrics(of_targets, lengths, groups=groups)
        recalls[who] = [metrics[f"Recall@{n}"] for n in lengths]
    return lengths, recalls


def _recall_picture(lengths: list[int], recalls: Mapping[str, list[float]]) -> _Picture:
    figure, axes = _axes("N, length of the list (log scale)", "recall at N (share of targets)")
    for number, values in enumerate(recalls.values()):
        _line(axes, lengths, values, number)
    _log_x(axes, lengths[-1])
    axes.set_ylim(bottom=0)
    return _Picture("Recall against N", figure, _line_key(recalls), "How many of the targets are in lists of N items.")


def _scores(
    users: np.ndarray, items: np.ndarray, targets: np.ndarray, seen: Seen | None, held: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Scores of targets and of random unseen items, and the share of a user's pairs of them that are in order.

    Targets that are in ``seen``, as ``held`` (B,) says, are left out: each would be the only item among the pairs that
    its user has had, and would nearly always win.
    """
    rankable = np.flatnonzero(~held)
    rows = rankable[np.sort(sample_rows(len(rankable), _MAX_USERS))]
    drawn = np.random.default_rng(0).integers(1, len(items), size=(len(rows), _NEGATIVES))
    keep = drawn != targets[rows, None]
    if seen is not None:
        pair_rows, pair_items = seen_pairs(seen, 0, len(users))
        had = np.unique(pair_rows * len(items) + pair_items)
        keep &= ~np.isin(rows[:, None] * len(items) + drawn, had)
    positives = np.einsum("bd,bd->b", users[rows], items[targets[rows]])
    scores = np.stack([np.einsum("bd,bd->b", users[rows], items[column]) for column in drawn.T], axis=1)
    better = np.where(scores < positives[:, None], 1.0, np.where(scores == positives[:, None], 0.5, 0.0))
    return positives, scores[keep], float(better[keep].mean()) if keep.any() else float("nan")


def _score_picture(positives: np.ndarray, negatives: np.ndarray, wins: float) -> _Picture:
    figure, axes = _axes("score (inner product of user and item)", "share of pairs in a bin (%)")
    series = {"targets": positives, "random items that the user has not had": negatives}
    both = np.concatenate([positives, negatives])
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
    bins = np.linspace(low, high if high > low else low + 1, 51)
    for number, values in enumerate(series.values()):
        share = 100 * np.histogram(values, bins)[0] / max(1, len(values))
        axes.stairs(share, bins, fill=True, color=_COLOURS[number], alpha=0.25)
        _line(axes, np.repeat(bins, 2)[1:-1], np.repeat(share, 2), number, linewidth=1.6)
    axes.set_ylim(bottom=0)
    caption = "There is no pair of a target and an item to compare."
    if len(negatives):
        caption = f"A user's target scores higher than a random item in {wins:.1%} of the pairs; by chance in half."
    return _Picture("Scores of positives and negatives", figure, _line_key(series), caption)


def _popularity_picture(counts: np.ndarray, targets: np.ndarray, lists: np.ndarray) -> _Picture:
    figure, axes = _axes("items, the most popular first (log scale)", "share of events or recommendations (%)")
    order = 1 + np.lexsort((np.arange(len(counts) - 1), -counts[1:]))
    series = {
        "consumed in training": counts,
        "consumed next, the targets": np.bincount(targets, minlength=len(counts)),
        f"recommended, lists of {lists.shape[1]}": np.bincount(lists[lists > 0], minlength=len(counts)),
    }
    curves = {}
    for number, (what, occurrences) in enumerate(series.items()):
        curves[what] = 100 * np.cumsum(occurrences[order]) / max(1, occurrences.sum())
        _line(axes, np.arange(1, len(counts)), curves[what], number, drawstyle="steps-post")
    _log_x(axes, len(counts) - 1)
    axes.set_ylim(0, 101)
    place = max(1, (len(counts) - 1) // 100) - 1
    shares = [f"{curve[place]:.0f}% of what is {what.split(',')[0]}" for what, curve in curves.items()]
    caption = (
        f"The most popular 1% of the items ({place + 1:,}) make up {', '.join(shares)}. A curve above the others leans "
        "more on best-sellers."
    )
    return _Picture("Popularity of what is recommended", figure, _line_key(series), caption)


def _map_picture(items: np.ndarray, counts: np.ndarray | None, groups: np.ndarray | None) -> _Picture:
    num_items = len(items) - 1
    if num_items <= _MAX_POINTS:
        rows, which = np.arange(1, num_items + 1), f"all {num_items:,} items"
    elif counts is not None:
        rows = 1 + np.argsort(-counts[1:], kind="stable")[:_MAX_POINTS]
        which = f"the {_MAX_POINTS:,} most consumed items"
    else:
        rows, which = 1 + sample_rows(num_items, _MAX_POINTS), f"{_MAX_POINTS:,} items drawn at random"
    points, shares = _principal_axes(items[rows].astype(np.float64))
    labels = [f"principal axis {n + 1} ({share:.0%} of the variance)" for n, share in enumerate(shares)]
    figure, axes = _axes(*labels)
    axes.set_aspect("equal", adjustable="datalim")
    key = []
    if groups is None:
        axes.plot(*points.T, "o", color=_COLOURS[0], markersize=4.5, markeredgewidth=0, alpha=0.6)
    else:
        names, numbers, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)
        largest = [n for n in np.lexsort((names, -sizes)) if names[n]][:_MAX_GROUPS]
        rest = ~np.isin(numbers, largest)
        if rest.any():
            axes.plot(*points[rest].T, "s", color=_GREY, markersize=3.5, markeredgewidth=0, alpha=0.5)
        for place, group in enumerate(largest):
            colour, shape = _COLOURS[place % len(_COLOURS)], _SHAPES[place // len(_COLOURS)]
            chosen = points[numbers == group].T
            axes.plot(*chosen, shape, color=colour, markersize=5, markeredgewidth=0, alpha=0.8)
            key.append((_point_mark(colour, shape), f"{names[group]} ({sizes[group]:,})"))
        if rest.any():
            left = len(names) - len(largest) - (1 if "" in names else 0)
            words = [f"{left} other groups"] * (left > 0) + ["no group"] * ("" in names)
            key.append((_point_mark(_GREY, "s"), f"{' and '.join(words)} ({np.count_nonzero(rest):,})"))
    caption = f"A point is an item: {which}. Items near each other are recommended to the same users."
    return _Picture("Map of the item vectors", figure, key, caption)


def _principal_axes(vectors: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The vectors (n, D) along their two principal axes, (n, 2), and the share of the variance along each."""
    centred = vectors - vectors.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    directions = (
        directions * np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])[:, None]
    )
    points = np.zeros((len(vectors), 2))
    points[:, : min(2, len(directions))] = centred @ directions[:2].T
    total = float((singular**2).sum()) or 1.0
    return points, [float(value**2) / total for value in [*singular, 0.0, 0.0][:2]]


# HTML.


def _line_key(names: Iterable[str]) -> list[tuple[str, str]]:
    marks = []
    for number, name in enumerate(names):
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
        line = f'<path d="M0 6H30" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash or "none"}"/>'
        marks.append((f'<svg width="30" height="12" aria-hidden="true">{line}</svg>', name))
    return marks


def _point_mark(colour: str, shape: str) -> str:
    shapes = {"o": "M6 1a5 5 0 1 0 .01 0z", "^": "M6 1L11 11H1z", "s": "M2 2H10V10H2z"}
    return f'<svg width="12" height="12" aria-hidden="true"><path d="{shapes[shape]}" fill="{colour}"/></svg>'


def _picture_html(picture: _Picture, number: int) -> str:
    key = "".join(f"<li>{mark}{_text(name)}</li>" for mark, name in picture.key)
    return "\n".join(
        [
            f"<figure><h2>{_text(picture.title)}</h2>",
            _inline_svg(picture.figure, number, picture.title),
            f'<ul class="key">{key}</ul>' if key else "",
            f"<figcaption>{_text(picture.caption)}</figcaption></figure>",
        ]
    )


def _inline_svg(figure: Any, number: int, title: str) -> str:
    """The figure as an SVG element: the page's colours, ids that no other picture has, and no address in it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", facecolor="none", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # HTML knows both namespaces
    ids = {found: f"p{number}-{place}" for place, found in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg)))}
    svg = re.sub(r'(\bid="|href="#|url\(#)([^")]+)', lambda match: match[1] + ids.get(match[2], match[2]), svg)
    for drawn, colour in _PAGE_COLOURS.items():
        svg = svg.replace(drawn, colour)
    return svg.replace("<svg", f'<svg class="plot" role="img" aria-label="{_text(title)}"', 1)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    heads = "".join(f'<th scope="col">{_text(name)}</th>' for name in head)
    lines = ["<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    table = f"<thead><tr>{heads}</tr></thead>\n<tbody>{' '.join(lines)}</tbody>"
    return f'<div class="tables"><table class="{kind}">{table}</table></div>'


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{_text(summary)}</summary>{content}</details>"


def _page(title: str, parts: Sequence[str]) -> str:
    # The policy keeps any browser from loading anything, whatever is in the page.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
    ]
    return "\n".join([*head, *(part for part in parts if part), "</body></html>", ""])


def _text(value: Any) -> str:
    return html.escape(str(value))


def _versions() -> dict[str, str]:
    """Of what is loaded; nothing is imported for it."""
    versions = {"Python": platform.python_version()}
    for module in ("deepmatch_ext", "tensorflow", "keras", "tf_keras", "deepctr", "numpy", "pandas", "matplotlib"):
        version = getattr(sys.modules.get(module), "__version__", None)
        if version is not None:
            versions[module] = str(version)
    return {**versions, "system": f"{platform.system()} {platform.machine()}"}


# Checks.


def _check_path(path: Any) -> Path:
    checked = as_path("`path`", path)
    if checked.suffix not in (".html", ".htm") or checked.is_dir():
        raise problem("`path`", "name an .html file", repr(str(path)))
    if not checked.absolute().parent.is_dir():
        raise problem("`path`", "be in a folder that exists", repr(str(path)))
    return checked


def _check_history(history: Any) -> dict[str, np.ndarray] | None:
    if history is None:
        return None
    if not isinstance(history, Mapping):
        remedy = "Give `fitted.history`, where `fitted` is what `fit` returned." if hasattr(history, "history") else ""
        raise problem("`history`", "be a dictionary, name -> figures", type(history).__name__, remedy)
    try:
        epochs = {str(name): np.asarray(values, dtype=np.float64) for name, values in history.items()}
    except (TypeError, ValueError) as error:
        raise problem("`history`", "hold numbers, one for each epoch", str(error)) from None
    shapes = {name: values.shape for name, values in epochs.items()}
    first = next(iter(shapes.values()), ())
    if set(shapes.values()) != {first} or len(first) != 1 or first == (0,):
        remedy = "Fill epochs without a figure with NaN."
        raise problem("`history`", "have a figure for each epoch under each name", f"shapes {shapes}", remedy)
    return epochs


def _check_ranks(ranks: Any, name: str, held: np.ndarray) -> dict[str, np.ndarray]:
    """The ranks of other recommenders, with ``MISSED`` where the target is in ``seen``, as ``held`` (B,) says."""
    if ranks is None:
        return {}
    if not isinstance(ranks, Mapping):
        raise problem("`ranks`", "be a dictionary, name -> ranks", type(ranks).__name__)
    if name in ranks:
        raise problem("`ranks`", "be of other recommenders", f"{name!r}, the model's `name`")
    checked = {}
    for who, of_targets in ranks.items():
        of_targets = check_ids(f"the ranks of {who!r}", of_targets, 0, length=len(held))
        elsewhere = np.flatnonzero((of_targets == MISSED) & ~held)
        if elsewhere.size:
            got = f"MISSED in row {elsewhere[0]}, whose target is not in `seen`"
            raise problem(f"the ranks of {who!r}", "be made with the `seen` that is given here", got)
        checked[str(who)] = np.where(held, MISSED, of_targets)
    return checked


def _check_item_groups(item_groups: Any, vocabulary_size: int) -> np.ndarray | None:
    """The groups as strings, (V,), empty where there is none."""
    if item_groups is None:
        return None
    groups = np.asarray(item_groups, dtype=object)
    if groups.shape != (vocabulary_size,):
        raise problem(
            "`item_groups`", f"have shape ({vocabulary_size},), an entry for each id", f"shape {groups.shape}"
        )
    return np.array(["" if group is None or group is pd.NA or group != group else str(group) for group in groups])
