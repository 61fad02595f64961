"""The parts of a split, or of the inputs that any other code made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepmatch_ext._arrays import check_ids
from deepmatch_ext._checks import as_text, instance_of, listing, problem
from deepmatch_ext._frames import Lists, array_of, columns_of, is_frame
from deepmatch_ext.data.interactions import Interactions, time_values
from deepmatch_ext.data.leaks.events import Events, Part, place_of
from deepmatch_ext.data.splits import Split

_NAMES = ("train", "validation", "test")
_IDS = "The inputs have the ids of the interactions."


def parts_of_split(split: Split) -> tuple[Events, list[Part]]:
    x, parts = split.interactions, []
    events = Events(x)
    for name in _NAMES:
        rows = getattr(split, name)
        _, choices = events.match(x.users[rows], x.items[rows], events.moments[rows])
        parts.append(Part(name, rows, x.users[rows], x.items[rows], None, rows, choices, choices > 0))
    return events, parts


def parts_of_inputs(inputs: Any, x: Any, time: Any) -> tuple[Events, list[Part]]:
    names = list(inputs) if isinstance(inputs, Mapping) else []
    if "train" not in names or len(names) < 2 or not set(names) <= set(_NAMES):
        got = listing(names) if names else type(inputs).__name__
        raise problem("`parts`", "be a Split, or inputs by the names 'train' and 'validation' or 'test' or both", got)
    made = "Give the events that the inputs were made of; Interactions.from_frame() reads them."
    x = instance_of("`interactions`", x, Interactions, made)
    time = None if time is None else as_text("`time`", time)
    if x.times is None and time is not None:
        raise problem("`interactions`", "have times where `time` is given", "times=None")
    events = Events(x)
    return events, [_read(name, inputs[name], events, time) for name in _NAMES if name in names]


def _read(part: str, given: Any, events: Events, time: str | None) -> Part:
    """The part of an input, by the columns that have the names of the interactions, and ``time``."""
    if not (isinstance(given, Mapping) or is_frame(given)):
        raise problem(f"`parts`[{part!r}]", "be a dictionary of arrays, or a frame", type(given).__name__)
    x = events.interactions
    names = [x.user_name, x.item_name, f"hist_{x.item_name}", *([] if time is None else [time])]
    columns = columns_of(f"`parts`[{part!r}]", given, [*names, "hist_len"])
    for name in names:
        if name not in columns:
            remedy = "`user` and `item` of Interactions.from_frame() name the columns of users and items."
            got = f"the columns {listing(list(columns), 20)}"
            raise problem(f"column {name!r} of {part}", "be in the input", got, "" if name == time else remedy)
    user, item, hist, *_ = named = {name: (f"column {name!r} of {part}", columns[name]) for name in names}
    users = check_ids(named[user][0], _flat(*named[user]), 0, x.num_users, remedy=_IDS)
    number = len(users)
    items = check_ids(named[item][0], _flat(*named[item], number), 0, x.num_items, remedy=_IDS)
    history = _histories(*named[hist], number, x.num_items)
    if "hist_len" in columns:
        _check_lengths(named[hist][0], history, f"column 'hist_len' of {part}", columns["hist_len"])
    moments = None if time is None else _moments(*named[time], number, events.times)
    targets, choices = events.match(users, items, moments)
    missing = (choices == 0) & (users > 0) & (items > 0)
    if missing.any():
        row = int(missing.argmax())
        got = f"{missing.sum()} of {number} that are not, the first in row {row}: user {users[row]}, item {items[row]}"
        remedy = "Give rows of true events alone, with the ids and times of the interactions."
        raise problem(f"the targets of {part}", "be events of the interactions", got, remedy)
    certain = choices == 1 if time is None else choices > 0
    return Part(part, np.arange(number), users, items, history, targets, choices, certain)


def _flat(what: str, values: Any, number: int | None = None) -> np.ndarray:
    """A value a row, from (B,), (B, 1) or lists of one value."""
    array = array_of(what, values)
    if isinstance(array, Lists) and (array.lengths == 1).all():
        array = array.padded(1)
    is_list = isinstance(array, Lists)
    if is_list or array.shape not in ((array.size,), (array.size, 1)) or number not in (None, array.size):
        got = f"lists of {array.lengths.min()} to {array.lengths.max()} values" if is_list else f"shape {array.shape}"
        raise problem(what, f"be ({'B' if number is None else number},), a value in each row", got)
    return array.reshape(-1)


def _histories(what: str, values: Any, number: int, largest: int) -> np.ndarray:
    history = array_of(what, values)
    if isinstance(history, Lists):
        if history.missing.any():
            raise problem(what, "have a list in every row", f"none in row {int(history.missing.argmax())}")
        history = history.padded(max(1, int(history.lengths.max(initial=0))))
    if history.ndim != 2 or len(history) != number or not history.shape[1]:
        raise problem(what, f"be ({number}, T), a history in each row", f"shape {history.shape}")
    if number and history.dtype.kind not in "iu":
        raise problem(what, "hold integers", f"dtype {history.dtype}", _IDS)
    if number and not 0 <= history.min() <= history.max() <= largest:
        row, column = np.argwhere((history < 0) | (history > largest))[0]
        raise problem(what, f"be between 0 and {largest}", f"{history[row, column]} in row {row}", _IDS)
    return history


def _check_lengths(what: str, history: np.ndarray, what_lengths: str, values: Any) -> None:
    lengths = _flat(what_lengths, values, len(history))
    if len(history) and lengths.dtype.kind not in "iuf":
        raise problem(what_lengths, "hold numbers", f"dtype {lengths.dtype}")
    beyond = ~(np.count_nonzero(history, axis=1) <= lengths)  # NaN, too
    if beyond.any():
        row = int(beyond.argmax())
        got = f"{listing(history[row])} with length {lengths[row]} in row {row}"
        raise problem(what, "have at most as many ids in a row as 'hist_len' says", got, "0 is padding.")


def _moments(what: str, values: Any, number: int, times: np.ndarray) -> np.ndarray:
    """The rank of each time among those of the interactions, one past the last if it is none of them."""
    given = time_values(what, _flat(what, values, number)) if number else times[:0]
    if (given.dtype.kind == "M") != (times.dtype.kind == "M"):
        raise problem("the times", "be all numbers or all datetimes", f"{given.dtype} and {times.dtype}")
    return place_of(times, given)
