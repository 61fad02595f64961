"""The report's pictures. Each is a figure of its own, so nothing of matplotlib's shared state is changed.

matplotlib draws the curves and axes. Names that come from the caller (genres, recommenders) are in the page's keys, so
every script and character is shown.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepmatch_ext._checks import missing_extra
from deepmatch_ext.evaluation.collapse import sample_rows

_MAX_POINTS = 2000  # items on the map: more would hide each other
_MAX_GROUPS = 12  # groups on the map with a colour and a shape of their own

# Those of the colours that the colour-blind can tell apart (Okabe and Ito, "Color Universal Design", 2008) that are
# visible on white and on black. Dashes for lines and shapes for points distinguish them, too.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "6 2", "2 2", "8 2 2 2", "10 4", "4 1 1 1 1 1")  # as SVG writes them
_SHAPES = ("o", "^")
_GREY = "#888888"
# matplotlib draws with these, and the page's style sheet puts its own colours in their place.
INK, GRID = "#010203", "#040506"


@dataclass(frozen=True)
class Mark:
    """An entry of a picture's key: a name with its line (and its dashes), or its point (and its shape)."""

    name: str
    colour: str
    dashes: str = ""
    shape: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture with its name, its key and a caption."""

    title: str
    figure: Any
    key: Sequence[Mark]
    caption: str

    def svg(self, name: str) -> str:
        """The figure as an SVG element, whose ids all begin with ``name``."""
        from matplotlib import rc_context

        self.figure.draw_without_rendering()  # makes the ticks
        for number, artist in enumerate(self.figure.findobj()):
            artist.set_gid(f"{name}-{number}")
        buffer = io.StringIO()
        metadata = dict.fromkeys(["Creator", "Date", "Format", "Type"])
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            self.figure.savefig(buffer, format="svg", facecolor="none", metadata=metadata)
        svg = buffer.getvalue()
        return svg[svg.index("<svg") :]  # without the head of an XML file


def require_matplotlib() -> Any:
    """matplotlib's `Figure`, or an error that says how to install it."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("write_report()", "matplotlib", "report") from error
    return Figure


def training_pictures(epochs: Mapping[str, np.ndarray]) -> list[Picture]:
    pictures = []
    losses = {name: values for name, values in epochs.items() if name in ("loss", "val_loss")}
    metrics: dict[str, np.ndarray] = {}
    for name, values in epochs.items():
        if name.startswith("val_") and name != "val_loss":
            # With one target per user, the curves of hit rate and recall are equal.
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


def _epochs_picture(title: str, ylabel: str, curves: Mapping[str, np.ndarray], ring: bool) -> Picture:
    figure, axes = _axes("epoch", ylabel)
    for number, values in enumerate(curves.values()):
        x = np.arange(1, len(values) + 1)
        _line(axes, x, values, number, marker="." if len(x) < 60 else "", markersize=7)
        if ring and np.isfinite(values).any():
            best = int(np.nanargmax(values))
            axes.plot(x[best], values[best], "o", markersize=11, markerfacecolor="none", markeredgecolor=INK)
    axes.xaxis.get_major_locator().set_params(integer=True)
    if ring:
        axes.set_ylim(bottom=0)
    caption = "A ring marks each curve's best epoch." if ring else "After each epoch of training."
    return Picture(title, figure, _line_key(curves), caption)


def recall_picture(lengths: list[int], recalls: Mapping[str, list[float]]) -> Picture:
    figure, axes = _axes("N, length of the list (log scale)", "recall at N (fraction of targets)")
    for number, values in enumerate(recalls.values()):
        _line(axes, lengths, values, number)
    _log_x(axes, lengths[-1])
    axes.set_ylim(bottom=0)
    return Picture("Recall against N", figure, _line_key(recalls), "How many of the targets are in lists of N items.")


def score_picture(positives: np.ndarray, negatives: np.ndarray, wins: float) -> Picture:
    figure, axes = _axes("score (inner product of user and item)", "fraction of pairs in a bin (%)")
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
        caption = f"A user's target scores higher than a random item in {wins:.1%} of the pairs; 50% is random."
    return Picture("Scores of positives and negatives", figure, _line_key(series), caption)


def popularity_picture(counts: np.ndarray, targets: np.ndarray, lists: np.ndarray) -> Picture:
    figure, axes = _axes("items, the most popular first (log scale)", "fraction of events or recommendations (%)")
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
        f"The most popular 1% of the items ({place + 1:,}) make up {', '.join(shares)}. A curve above the others has "
        "more best-sellers."
    )
    return Picture("Popularity of what is recommended", figure, _line_key(series), caption)


def map_picture(items: np.ndarray, counts: np.ndarray | None, groups: np.ndarray | None) -> Picture:
    num_items = len(items) - 1
    if num_items <= _MAX_POINTS:
        rows, which = np.arange(1, num_items + 1), f"all {num_items:,} items"
    elif counts is not None:
        rows = 1 + np.argsort(-counts[1:], kind="stable")[:_MAX_POINTS]
        which = f"the {_MAX_POINTS:,} most consumed items"
    else:
        rows, which = 1 + sample_rows(num_items, _MAX_POINTS), f"{_MAX_POINTS:,} items drawn at random"
    points, shares = principal_axes(items[rows].astype(np.float64))
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
            key.append(Mark(f"{names[group]} ({sizes[group]:,})", colour, shape=shape))
        if rest.any():
            left = len(names) - len(largest) - (1 if "" in names else 0)
            words = [f"{left} other groups"] * (left > 0) + ["no group"] * ("" in names)
            key.append(Mark(f"{' and '.join(words)} ({np.count_nonzero(rest):,})", _GREY, shape="s"))
    caption = f"A point is an item: {which}. Items near each other are recommended to the same users."
    return Picture("Map of the item vectors", figure, key, caption)


def principal_axes(vectors: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The vectors (n, D) along their two principal axes, (n, 2), and the fraction of the variance along each."""
    centred = vectors - vectors.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    directions = (
        directions * np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])[:, None]
    )
    points = np.zeros((len(vectors), 2))
    points[:, : min(2, len(directions))] = centred @ directions[:2].T
    total = float((singular**2).sum()) or 1.0
    return points, [float(value**2) / total for value in [*singular, 0.0, 0.0][:2]]


def _axes(xlabel: str, ylabel: str) -> tuple[Any, Any]:
    figure = require_matplotlib()(figsize=(6.4, 4.0), layout="constrained", facecolor="none")
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.set_xlabel(xlabel, color=INK, fontsize=11)
    axes.set_ylabel(ylabel, color=INK, fontsize=11)
    axes.tick_params(which="both", colors=INK, labelsize=10)
    axes.grid(visible=True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
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


def _line_key(names: Iterable[str]) -> list[Mark]:
    return [
        Mark(name, _COLOURS[number % len(_COLOURS)], dashes=_DASHES[number % len(_DASHES)])
        for number, name in enumerate(names)
    ]
