"""The page: a template, ``page.html``, that Jinja2 fills in. What comes from the caller is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deepmatch_ext._checks import missing_extra
from deepmatch_ext.evaluation.report.pictures import GRID, INK, Picture


@dataclass(frozen=True)
class Table:
    """A table with column names; ``title`` is the heading over it, or the line that unfolds it."""

    title: str
    head: Sequence[Any]
    rows: Sequence[Sequence[Any]]


def require_jinja2() -> Any:
    """The package, or an error that says how to install it."""
    try:
        import jinja2
    except ImportError as error:
        raise missing_extra("write_report()", "jinja2", "report") from error
    return jinja2


def page(
    title: str,
    ranked: str,
    figures: Table,
    of_lists: str,
    pictures: Sequence[Picture],
    words: Sequence[Table],
    numbers: Sequence[Table],
) -> str:
    """The HTML of the page.

    Args:
        title: The headline.
        ranked: A sentence about what was ranked.
        figures: The metrics of each recommender.
        of_lists: A sentence about the lists.
        pictures: The pictures, in their order.
        words: Tables of text: settings, versions.
        numbers: Tables that are folded away.
    """
    jinja2 = require_jinja2()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deepmatch_ext.evaluation.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html").render(
        title=title,
        ranked=ranked,
        figures=figures,
        of_lists=of_lists,
        pictures=pictures,
        words=words,
        numbers=numbers,
        ink=INK,
        grid=GRID,
    )
