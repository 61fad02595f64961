"""Warnings and errors of the package's parts, in the terms of `Recommender`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deepmatch_ext._checks import warn_caller
from deepmatch_ext.evaluation import SeenTargetsWarning


@contextmanager
def own_names(**names: str) -> Iterator[None]:
    """Names arguments of `Recommender` in errors about those of other functions, by default `events` for `frame`.

    Args:
        names: Another function's argument -> the one of `Recommender` that was passed on.
    """
    names = names or {"frame": "events"}
    try:
        yield
    except ValueError as error:
        said = re.sub(f"`({'|'.join(names)})`", lambda found: f"`{names[found[1]]}`", str(error))
        if said == str(error):
            raise
        raise ValueError(said) from None


class own_words:  # used as a function
    """Warns of held-out events whose items the user had before, in the terms of `Recommender`."""

    def __enter__(self) -> None:
        self._catching = warnings.catch_warnings(record=True)
        self._caught: Any = self._catching.__enter__()
        warnings.simplefilter("always", SeenTargetsWarning)

    def __exit__(self, *error: Any) -> None:
        self._catching.__exit__(*error)
        told = set()  # each part of the work finds the same ones
        for each in self._caught:
            if not issubclass(each.category, SeenTargetsWarning):
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
                continue
            number = str(each.message).partition(" targets")[0]
            if number in told:
                continue
            told.add(number)
            warn_caller(
                f"{number} held-out events are of items that the user had before, which are not recommended and so are "
                "missed. If users take items again, give Recommender(..., exclude_seen=False).",
                SeenTargetsWarning,
            )
