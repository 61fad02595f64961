"""Features of users by user id, from a frame with one row for each user."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import listing, problem
from deepmatch_ext._frames import (
    FRAMES,
    Lists,
    array_of,
    columns_of,
    is_frame,
    missing_values,
    one_a_row,
    without_objects,
)
from deepmatch_ext.data.ids import IdMap, raw_values, read_only


def read_user_features(frame: Any, user_name: str, user_ids: IdMap, needed: np.ndarray) -> dict[str, np.ndarray]:
    """name -> values by user id, (num_users + 1, ...), 0 for id 0 and for users that are not in the frame.

    Args:
        frame: A pandas DataFrame whose index is the raw user id, or a frame of any kind with the column ``user_name``.
        user_name: The name of the column of users.
        user_ids: The map from raw user ids.
        needed: By user id, whether the frame must have the user, (num_users + 1,).
    """
    what = "the frame of user features"
    if not is_frame(frame):
        raise problem(what, f"be {FRAMES}", type(frame).__name__)
    columns = dict(columns_of(what, frame))
    ids = _user_ids(what, frame, columns.pop(user_name, None), user_name, user_ids)
    if not columns:
        raise problem(what, "have a column besides the users", "none")
    known = ids > 0
    missing = needed.copy()
    missing[ids] = False
    if missing.any():
        raw = user_ids.decode(np.flatnonzero(missing))
        got = f"none for {len(raw)} of {np.count_nonzero(needed)}, {listing(raw)}"
        remedy = "Give them a row; unknown users have 0 in a column of ids."
        raise problem(what, "have a row for each user with events", got, remedy)
    features = {}
    for name, column in columns.items():
        values = _numbers(f"column {name!r} of user features", column)
        by_id = np.zeros((user_ids.vocabulary_size, *values.shape[1:]), values.dtype)
        by_id[ids[known]] = values[known]
        features[name] = read_only(by_id)
    return features


def _user_ids(what: str, frame: Any, column: Any, user_name: str, user_ids: IdMap) -> np.ndarray:
    """The user id of each row, 0 for unknown users."""
    raw: Any
    if column is not None:
        where = f"column {user_name!r} of user features"
        raw = column if isinstance(column, pd.Series) else one_a_row(where, column)
    elif isinstance(frame, pd.DataFrame):
        raw, where = frame.index, "the index of user features"
    else:
        got = listing(list(columns_of(what, frame)), 20)
        raise problem(what, f"have the raw user ids in a column {user_name!r}", f"the columns {got}")
    values = raw_values(where, raw)
    if len(values) and values.dtype != user_ids.values.dtype:
        kinds = {"i": "integers", "O": "strings"}
        rule = f"hold raw user ids, {kinds[user_ids.values.dtype.kind]}"
        remedy = "" if column is not None else f"Or name a column {user_name!r}."
        raise problem(where, rule, f"{kinds[values.dtype.kind]}, {listing(values)}", remedy)
    index = pd.Index(values, dtype=values.dtype)
    repeated = index[index.duplicated()].unique()
    if len(repeated):
        raise problem(where, "hold each user once", f"{listing(repeated)} more than once", "Keep one row of each user.")
    return user_ids.encode(values)


def _numbers(what: str, column: Any) -> np.ndarray:
    """(rows,) or (rows, L) numbers, none missing; lists are padded with 0."""
    values = array_of(what, column)
    rows = len(values)
    if isinstance(values, Lists):
        if values.missing.any():
            remedy = "Give an empty list where there are no values."
            raise problem(what, "have a list in every row", f"{int(values.missing.sum())} missing of {rows}", remedy)
        flat = values.values
    else:
        flat = values
    missing = missing_values(flat)
    if missing:
        raise problem(
            what,
            "have no missing value",
            f"{missing} missing of {flat.size}",
            "Fill them; in a column of ids, 0 means none.",
        )
    plain = without_objects(flat)
    if plain.dtype.kind not in "iufb":
        remedy = "Number its values first, for example with IdMap.from_values(column).encode(column)."
        raise problem(what, "hold numbers", f"dtype {plain.dtype}", remedy)
    if plain.dtype.kind == "f" and not np.isfinite(plain).all():
        raise problem(what, "hold finite numbers", "infinity among them")
    if not isinstance(values, Lists):
        return plain
    width = int(values.lengths.max(initial=0))
    return Lists(plain, values.lengths, values.missing).padded(max(width, 1))
