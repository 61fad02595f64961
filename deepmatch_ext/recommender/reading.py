"""Reads events for a recommender, and raises an error or warns if they can't be right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from deepmatch_ext._checks import listing, problem, shown, warn_caller
from deepmatch_ext._frames import FRAMES, columns_of, is_frame
from deepmatch_ext.data import IdMap, Interactions
from deepmatch_ext.data.interactions import check_same_zone, has_zone, same_events, tied_rows
from deepmatch_ext.recommender.days import dropping
from deepmatch_ext.recommender.features import FeatureTable, check_same_kind
from deepmatch_ext.recommender.wording import own_names


def read_events(recommender: Any, events: Any) -> Interactions:
    """The events of `Recommender.fit`, with the ids of users and items for whom only features are known."""
    if not isinstance(events, Interactions):
        require_frame(events, ", or Interactions")
        columns = recommender.user, recommender.item, recommender.time
        side = [] if recommender.weight is None else [recommender.weight]
        kinds = {"kind": recommender.kind, "targets": recommender.targets}
        with own_names():
            events = Interactions.from_frame(events, *columns, side, session=recommender.session, **kinds)
    else:
        _check_same(recommender, events)
    ids = everyone(events, recommender._tables)
    features = recommender._tables["user"].by_id(ids["user"])
    events = replace(events, user_ids=ids["user"], item_ids=ids["item"], user_features=features)
    check_ids(events)
    warn_of_unknown(events, recommender._tables, np.arange(len(events)))
    return events


def _check_same(recommender: Any, events: Interactions) -> None:
    """Refuses interactions that were made in another way than a recommender reads a frame, or know more than it reads.

    They know no names of columns of times and sessions, only whether there are any.
    """
    kinds, weight, table = events.kinds, recommender.weight, recommender._tables["user"]
    for name, given in (
        ("user", events.user_name),
        ("item", events.item_name),
        ("kind", None if kinds is None else kinds.name),
    ):
        if given != (own := getattr(recommender, name)):
            raise problem(f"`{name}`", f"be {given!r}, as in the events", repr(own))
    if kinds is not None and set(recommender.targets or []) != set(kinds.targets):
        got = "None" if recommender.targets is None else listing(recommender.targets)
        raise problem("`targets`", f"be {listing(kinds.targets)}, as in the events", got)
    for name, values in (("time", events.times), ("session", events.sessions)):
        if ((own := getattr(recommender, name)) is None) != (values is None):
            rule = f"be None, as the events have no {name}s"
            if own is None:
                rule = f"name the column of {name}s in later events, as these have {name}s"
            raise problem(f"`{name}`", rule, repr(own))
    if weight is not None and weight not in events.side:
        remedy = f"Interactions.from_frame(..., side=[{weight!r}]) keeps a column."
        raise problem("`weight`", "name a side column of the events", repr(weight), remedy)
    if lost := [name for name in events.user_features if name not in {*table.values, *table.left_out}]:
        remedy = "Give them to the recommender, which reads no others: Recommender(user_features=frame)."
        raise problem("`events`", "have no user features of their own", listing(lost), remedy)


def everyone(events: Interactions, tables: Mapping[str, FeatureTable]) -> dict[str, IdMap]:
    """The maps of users and of items; those for whom only features are known come after those with events."""
    ids = {"user": events.user_ids, "item": events.item_ids}
    for side, table in tables.items():
        if table.owners is not None:
            what = f"column {getattr(events, f'{side}_name')!r} of `{side}_features`"
            check_same_kind(what, table.owners.values, ids[side], "as in the events")
            ids[side] = ids[side].extended(table.owners.values)
    return ids


def require_frame(events: Any, more: str = "") -> None:
    """Refuses anything that is not a frame."""
    if not is_frame(events):
        raise problem("`events`", f"be {FRAMES}{more}", shown(events), "pd.read_csv(path) reads a file.")


def check_later(recommender: Any, events: Any) -> None:
    """Refuses anything that is not a frame, and times that can't be compared with those of `fit`."""
    require_frame(events)
    if recommender.time is not None:
        column = columns_of("`events`", events, [recommender.time]).get(recommender.time)
        now = None if column is None else has_zone(column)
        what, known = f"column {recommender.time!r} of `events`", recommender.interactions.has_zone
        check_same_zone(what, known, now, "in the events of `fit`")


def check_ids(events: Interactions) -> None:
    """Refuses the empty string as an id, which stands for no item in an export and in padded lists."""
    for name, ids in ((events.user_name, events.user_ids), (events.item_name, events.item_ids)):
        if "" in ids:
            remedy = "Drop those rows, or give them an id."
            raise problem(f"column {name!r}", "hold ids that are not empty", "''", remedy)


def check_weights(events: Interactions, weight: str | None, rows: np.ndarray, remedy: str = "") -> None:
    """Refuses events of which none counts in the loss."""
    if weight is not None and not events.side.get(weight, np.ones(len(events)))[rows].any():
        rule = "be above 0 in at least one event that is trained on"
        raise problem(f"column {weight!r}", rule, "0 in all of them", remedy)


def warn_of_one_time(events: Interactions) -> None:
    """Warns of events whose times say nothing about their order."""
    times = events.times
    if times is not None and (times == times[0]).all():
        warn_caller(
            f"All {len(events):,} events have the same time, {times[0]}, so a user's events are in the order of the "
            "table's rows: are their times read correctly? If the rows are in chronological order, give time=None.",
            UserWarning,
        )


def warn_of_repeated(events: Interactions, names: list[str]) -> None:
    """Warns of events that are there twice: the same by the columns ``names``."""
    times = events.times
    if times is None or (times == times[0]).all():  # then times say nothing
        return
    rows = tied_rows(events)
    again = len(rows) - np.unique(same_events(events, rows)).size
    if again:
        warn_caller(
            f"{again:,} of {len(events):,} events repeat another row: the same {', '.join(names)}. Each is learnt from "
            f"again, and a held-out one may be known from its copy. {dropping(names)}",
            UserWarning,
        )


def warn_of_unknown(events: Interactions, tables: Mapping[str, FeatureTable], rows: np.ndarray) -> None:
    """Warns of items and users in some rows that have no features, if others have some."""
    for side, column, ids, by in (
        ("item", events.items, events.item_ids, "ids"),
        ("user", events.users, events.user_ids, "histories"),
    ):
        table = tables[side]
        if not table.features:
            continue
        numbers, counts = np.unique(column[rows], return_counts=True)
        without = ~table.known(ids)[numbers]
        if without.any():
            example = listing(ids.decode(numbers[without][:1]))
            warn_caller(
                f"{int(without.sum())} of {len(numbers)} {side}s of the events have no row in `{side}_features`, such "
                f"as {example}, in {int(counts[without].sum())} events: they are known by their {by} alone.",
                UserWarning,
            )
