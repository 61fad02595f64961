"""The arguments of the report, checked before the work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import check_ids
from deepmatch_ext._checks import as_path, problem
from deepmatch_ext._frames import by_id
from deepmatch_ext.evaluation.ranks import MISSED


def check_path(path: Any) -> Path:
    checked = as_path("`path`", path)
    if checked.suffix not in (".html", ".htm") or checked.is_dir():
        raise problem("`path`", "name an .html file", repr(str(path)))
    if not checked.absolute().parent.is_dir():
        raise problem("`path`", "be in a folder that exists", repr(str(path)))
    return checked


def check_history(history: Any) -> dict[str, np.ndarray] | None:
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


def check_ranks(ranks: Any, name: str, held: np.ndarray) -> dict[str, np.ndarray]:
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


def check_item_groups(item_groups: Any, vocabulary_size: int) -> np.ndarray | None:
    """The groups as strings, (V,), empty for items without one."""
    if item_groups is None:
        return None
    groups = np.asarray(by_id("`item_groups`", item_groups), dtype=object)
    if groups.shape != (vocabulary_size,):
        raise problem(
            "`item_groups`", f"have shape ({vocabulary_size},), an entry for each id", f"shape {groups.shape}"
        )
    return np.array(["" if group is None or group is pd.NA or group != group else str(group) for group in groups])
