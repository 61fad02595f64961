"""Lists of items in raw ids: the best ones for users, and those that are similar to other items."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import Seen
from deepmatch_ext._checks import listing, no_duplicates, problem
from deepmatch_ext._frames import as_array, is_frame, is_list
from deepmatch_ext.data import IdMap, seen_by_users
from deepmatch_ext.data.ids import raw_values
from deepmatch_ext.recommender.snapshot import Snapshot
from deepmatch_ext.retrieval.top_n import top_n

_OWN = ("score", "rank", "based_on")  # columns of the lists, beside those of raw ids
_BLOCK = 8192  # users at a time


def check_columns(recommender: Any) -> None:
    """Refuses a column in two roles, and raw ids in a column of the lists' own."""
    roles = ("user", "item", "time", "session", "kind", "weight")
    names = {role: getattr(recommender, role) for role in roles}
    no_duplicates(f"the columns {', '.join(roles)}", [name for name in names.values() if name is not None])
    for role in ("user", "item"):
        if names[role] in _OWN:
            rule = "have another name than the lists' own columns " + ", ".join(_OWN)
            raise problem(f"`{role}`", rule, repr(names[role]), "Rename the column in the events and the features.")


def recommended(recommender: Any, user_ids: Any, n: int, among: Any, exclude_seen: bool) -> pd.DataFrame:
    """What `Recommender.recommend` returns."""
    events, now = recommender.interactions, recommender._now
    allowed = _allowed(recommender, among)
    if user_ids is None:
        user_ids = events.user_ids.decode(np.flatnonzero(now.has_events))
    raw = _raw_ids("`user_ids`", user_ids, recommender.user)
    users = _encoded("`user_ids`", events.user_ids, raw)
    based_on = np.select([now.has_events[users], now.has_features[users]], ["history", "features"], "popularity")
    n = min(n, len(allowed))
    ids, scores = np.zeros((len(raw), n), np.int64), np.full((len(raw), n), -np.inf, np.float64)
    popular = based_on == "popularity"
    if popular.any():
        ids[popular], scores[popular] = _most_popular(now, allowed, n)
    rest = np.flatnonzero(~popular)
    for start in range(0, len(rest), _BLOCK):
        block = rest[start : start + _BLOCK]
        x = now.histories(users[block])
        seen = seen_by_users(events, users[block]) if exclude_seen else None
        ids[block], scores[block] = _best(now, recommender.model.user_vectors(x), n, allowed, seen)
    lists, rows = _lists(events.item_ids, recommender.item, ids, scores)
    lists.insert(0, recommender.user, raw[rows])
    return lists.assign(based_on=based_on[rows])


def similar(recommender: Any, item_ids: Any, n: int, among: Any) -> pd.DataFrame:
    """What `Recommender.similar_items` returns."""
    events, now, name = recommender.interactions, recommender._now, recommender.item
    allowed = _allowed(recommender, among)
    raw = _raw_ids("`item_ids`", item_ids, name)
    items = _encoded("`item_ids`", events.item_ids, raw, unknown="error").astype(np.int64)
    if not now.is_known[items].all():
        rule = "be items that were trained or have features: others' vectors are random"
        remedy = "Events that are held out are not trained: fit(events, epochs=n) learns from all events."
        raise problem("`item_ids`", rule, listing(raw[~now.is_known[items]]), remedy)
    itself = np.arange(len(items) + 1), items
    ids, scores = _best(now, now.item_vectors[items], min(n, len(allowed)), allowed, itself)
    lists, rows = _lists(events.item_ids, f"similar_{name}", ids, scores)
    lists.insert(0, name, raw[rows])
    return lists


def _allowed(recommender: Any, among: Any) -> np.ndarray:
    """The ids of the items that may be in lists, ascending."""
    now = recommender._now
    if among is None:
        return now.known_items
    raw = _raw_ids("`among`", among, recommender.item)
    if not raw.size:
        raise problem("`among`", "hold an item that can be recommended", "no item")
    ids = np.unique(_encoded("`among`", recommender.interactions.item_ids, raw))
    allowed = ids[now.is_known[ids]]
    if not len(allowed):
        raise problem("`among`", "hold an item that can be recommended", listing(raw))
    return allowed


def _best(
    now: Snapshot, vectors: np.ndarray, n: int, allowed: np.ndarray, seen: Seen | None
) -> tuple[np.ndarray, np.ndarray]:
    return top_n(vectors, now.item_vectors, n, among=allowed, exclude=seen)


def _most_popular(now: Snapshot, allowed: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    counts = now.item_counts
    best = allowed[np.argsort(-counts[allowed], kind="stable")][:n]
    return best, counts[best] / counts.sum()


def _lists(item_ids: IdMap, name: str, ids: np.ndarray, scores: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """Lists (B, n) as a frame of raw ids, scores and ranks, and which list each line is of; 0 is no item."""
    rows, ranks = np.nonzero(ids)
    raw = item_ids.decode(ids[rows, ranks])
    return pd.DataFrame({name: raw, "score": scores[rows, ranks], "rank": ranks + 1}), rows


def _raw_ids(what: str, values: Any, name: str) -> np.ndarray:
    """The raw ids that an argument holds, (n,), as `raw_values` gives them.

    Args:
        what: The argument's name, for error messages.
        values: One id or several.
        name: The column of such ids in the events.
    """
    if is_frame(values) and hasattr(values, "columns"):  # a column of pandas or polars has Arrow's streams, too
        raise problem(what, "be raw ids", f"a {type(values).__name__}", f"Give its column: frame[{name!r}].")
    array = as_array(values)
    if array.ndim > 1 or (array.dtype == object and any(map(is_list, set(map(type, array.ravel()))))):
        rule = "be one list of raw ids" + (", for all users or items asked for" if what == "`among`" else "")
        got = f"an array of shape {array.shape}" if array.ndim > 1 else "lists in a list"
        raise problem(what, rule, got, "Make a call for each list if they differ; np.ravel(array) makes one of them.")
    raw = array.ravel()
    if pd.api.types.infer_dtype(raw, skipna=True) == "boolean":
        raise problem(what, "be raw ids", "booleans", "Give the ids that a mask selects: ids[mask].")
    return raw_values(what, raw)


def _encoded(what: str, ids: IdMap, raw: np.ndarray, **options: Any) -> np.ndarray:
    """Ids of an argument's raw values; error messages name the argument."""
    try:
        return ids.encode(raw, **options)
    except ValueError as error:
        raise ValueError(re.sub(r"^`?values`? ", f"{what} ", str(error))) from None
