"""`find_leaks`: all findings of a split, or of model inputs that other code made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from deepmatch_ext._arrays import check_item_counts
from deepmatch_ext._checks import problem
from deepmatch_ext.data.interactions import Interactions
from deepmatch_ext.data.leaks.histories import histories, items_before
from deepmatch_ext.data.leaks.parts import Events, Part, parts_of_inputs, parts_of_split
from deepmatch_ext.data.leaks.report import SEVERITIES, Leak, LeakReport, leak
from deepmatch_ext.data.splits import Split

_UNKNOWN = "an id is 0, or the user had the item more than once; then give `time`."


def find_leaks(
    parts: Split | Mapping[str, Any],
    interactions: Interactions | None = None,
    *,
    item_count: Any = None,
    time: str | None = None,
) -> LeakReport:
    """Finds leaks in a :class:`Split`, or in model inputs that other code made.

    Findings of severity "leak" are certain:

    - "target_in_history": a row's own event is in its history.
    - "future_in_history": a history has an event that is later than the row's target.
    - "duplicate_target": one event (the same user, item and time) is a target in two parts. The severity is "possible"
      if the interactions contain the event more than once.
    - "held_out_in_history": a target of validation or test is in a history of train, or a target of test is in a
      history of validation, whether or not it is earlier than that history's target.
    - "held_out_in_counts": ``item_count`` counts events of validation or test. The severity is "possible" if events of
      kinds that are not to be predicted would explain it.

    Findings of severity "possible":

    - "strange_item_in_history": an item that the user never had, according to the interactions.
    - "same_moment_of_another_kind": a history of another kind of events than the target's has an event at exactly the
      target's time, such as the click that is recorded with a purchase. :func:`windows` leaves these out.

    Findings of severity "note":

    - "new_items", "new_users": ids among the targets of validation or test that are not in train.
    - "later_in_train": targets of train that are later than the first of validation or test.
    - "same_moment": histories of validation or test with events at exactly the time of their target.
    - "repeated_targets": targets of validation or test that are items the user had before. Metrics that are computed
      with ``seen`` count them as misses.

    With kinds of events, each history is compared with the user's events of its kind, and targets are events of the
    kinds that are to be predicted.

    A history's items are compared with the user's events one by one. A repeat is not a leak; a history may leave events
    out and be in any order. If users repeat items, give ``time``. Without it, rows whose user had the target's item
    more than once are not checked, since it is unknown which of these events is the target.

    Args:
        parts: A split; its histories are all of the user's events before a row, as :func:`windows` cuts them. Or inputs
            by part, {"train": {...}, "validation": {...}, "test": {...}}, train and at least one other, with their
            ``interactions``. With u and i for the interactions' names of the user and item columns, each input has
            ``u`` and ``i``, integer ids (B,) or (B, 1); ``hist_i`` (B, T), padded with 0, or a list in each row; and
            optionally ``hist_len``, integers (B,) or (B, 1). With kinds of events, it has ``hist_i_k`` and
            ``hist_len_k`` for each kind k that the model reads. An input is a mapping of names to arrays, or a pandas,
            polars or Arrow frame. Its rows must all be real events, not negatives. Id 0 is padding or unknown. No array
            is changed.
        interactions: The events that the inputs came from, with the ids and the column names of the inputs. Leave it
            out with a split, which has its own.
        item_count: The counts given to the sampler, (V,), by item id: how often each item occurs, before smoothing, a
            power or a scale. They include held-out events if they count an item more often than it occurs in the
            interactions outside validation and test.
        time: The name of the inputs' column with the times of the targets: numbers or datetimes, (B,) or (B, 1).

    Returns:
        The findings, the most serious first, and what was not checked.

    Raises:
        ValueError: A part or a column is missing or has a wrong shape or type, an id is out of range, a history has
            values beyond its length, a target is not an event of the interactions, or the counts do not fit the
            interactions.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 6], [1, 2, 3, 3, 1, 2], times=[10, 20, 30, 12, 24, 36])
        >>> report = find_leaks(Split(interactions, train=[0, 1, 5], validation=[], test=[2, 4]))
        >>> for leak in report.leaks:
        ...     print(leak.severity, "-", leak.text, leak.example)
        leak - 1 of 2 targets of test in a history of train. Row 4: user 2, item 1.
        note - 1 of 3 targets of train later than the first target of test, of 24. Row 5: user 2, item 2.
        >>> train = {"user_id": [1], "item_id": [2], "hist_item_id": [[1, 0, 0]]}
        >>> test = {"user_id": [1], "item_id": [3], "hist_item_id": [[3, 2, 1]]}
        >>> report = find_leaks({"train": train, "test": test}, interactions, item_count=[0, 2, 2, 2])
        >>> for leak in report.serious:
        ...     print(leak)
        leak: 1 of 1 rows of test with their own target in the history. Row 0: user 1, item 3. Cut each history \
strictly before its target.
        leak: 1 of 1 events of test, at least, counted in `item_count`. Item 3: 2 counted, of which 1 can be of \
train. Count train alone, as interactions.item_counts(split.train) does.
    """
    if isinstance(parts, Split):
        if interactions is not None or time is not None:
            raise problem("`interactions` and `time`", "be left out beside a Split, which has its own", "one of them")
        events, read = parts_of_split(parts)
    else:
        events, read = parts_of_inputs(parts, interactions, time)
    looks = (_duplicates, histories, _repeated, _new_ids, _later_in_train)
    found = [finding for look in looks for finding in look(events, read)]
    unknown = {part.name: f"{np.sum(~part.known)} of {len(part.known)}" for part in read if not part.known.all()}
    unchecked = [f"{number} rows of {name}: {_UNKNOWN}" for name, number in unknown.items()]
    if events.times is None:
        unchecked.append("what was later across users, as the interactions have no times.")
    if item_count is None:
        unchecked.append("the sampler's counts; give `item_count`.")
    else:
        found += _counts(events, read, item_count)
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return LeakReport(tuple(found), tuple(unchecked))


def _duplicates(events: Events, parts: Sequence[Part]) -> Iterator[Leak]:
    several = np.bincount(events.alike) > 1
    for source, held in combinations(parts, 2):
        ours, theirs = events.alike[held.targets], events.alike[source.targets[source.known]]
        both = held.known & np.isin(ours, theirs)
        for severity, hits in (("leak", both & ~several[ours]), ("possible", both & several[ours])):
            yield from held.leaks("duplicate_target", severity, hits, seen_in=source.name)


def _repeated(events: Events, parts: Sequence[Part]) -> Iterator[Leak]:
    if events.interactions.sessions is not None:  # sessions repeat items, and no item is left out of a ranking
        return
    x = events.interactions
    targets = np.flatnonzero(x.is_target)
    pairs = x.users[targets].astype(np.int64) * x.item_vocabulary_size + x.items[targets]
    first = targets[np.unique(pairs, return_index=True)[1]]  # of each user with an item
    for held in parts[1:]:
        yield from held.leaks("repeated_targets", "note", held.known & ~np.isin(held.targets, first))


def _new_ids(events: Events, parts: Sequence[Part]) -> Iterator[Leak]:
    train = parts[0]
    if train.histories is None:
        histories = [items_before(events.interactions, train.targets)]
    else:
        histories = [items for _, items in train.histories]
    known = {"item": (train.items, *histories), "user": (train.users,)}
    for held in parts[1:]:
        for name, ids in (("item", held.items), ("user", held.users)):
            every = np.unique(ids[ids > 0])
            new = every[~np.any([np.isin(every, those) for those in known[name]], axis=0)]
            if len(new):
                words = {"part": held.name, "seen_in": "train", "rows": f"{np.isin(ids, new).sum()} of {len(ids)}"}
                yield leak(f"new_{name}s", "note", len(new), len(every), f"{name.title()} {new[0]}.", **words)


def _later_in_train(events: Events, parts: Sequence[Part]) -> Iterator[Leak]:
    train, times = parts[0], events.times
    if times is None:
        return
    moments = np.where(train.known, events.moments[train.targets], -1)
    for held in parts[1:]:
        first = events.moments[held.targets[held.known]].min(initial=len(times) - 1)
        # The held-out rows are the ones known too early; the rows of train are the ones counted.
        yield from train.leaks("later_in_train", "note", moments > first, part=held.name, first=times[first])


def _counts(events: Events, parts: Sequence[Part], item_count: Any) -> Iterator[Leak]:
    """Counts above those of all events that are not held out must include held-out events."""
    x = events.interactions
    every = x.item_counts()
    given = check_item_counts("`item_count`", item_count, len(every))
    wrong = (given > every) | (given % 1 > 0)
    if wrong.any():
        item = int(wrong.argmax())
        rule = "count events of the interactions, so be whole numbers and at most how often each item is in them"
        got = f"{given[item]:g} for item {item}, which is in {every[item]}"
        raise problem("`item_count`", rule, got, "Give the counts as they were before smoothing, a power or a scale.")
    parts_held = {part.name: np.unique(part.targets[part.known]) for part in parts[1:]}
    rows_held = np.unique(np.concatenate([*parts_held.values()]))
    # Events of kinds that are not to be predicted may be counted, too; as a rule they are not.
    of_targets = x.item_counts(np.flatnonzero(x.is_target))
    for severity, counted in (("leak", every), ("possible", of_targets)):
        free = counted - x.item_counts(rows_held)
        above = np.maximum(given - free, 0)
        held = {name: rows for name, rows in parts_held.items() if above[x.items[rows]].any()}
        if held and (given <= counted).all():
            item, total = int(above.argmax()), sum(map(len, held.values()))
            example = f"Item {item}: {given[item]:g} counted, of which {free[item]} can be of train."
            yield leak("held_out_in_counts", severity, int(above.sum()), total, example, " and ".join(held), "train")
            return
