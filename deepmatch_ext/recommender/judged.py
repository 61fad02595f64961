"""Events that a recommender has not learnt from, and the ranks of their items by it and by others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from deepmatch_ext._arrays import Seen, joined_slices
from deepmatch_ext._checks import listing, problem
from deepmatch_ext.data import Interactions, seen_before, windows
from deepmatch_ext.data.interactions import extended_with_rows
from deepmatch_ext.evaluation import (
    Markov,
    Popularity,
    format_table,
    inner_products,
    ranking_metrics,
    target_ranks,
    write_report,
)
from deepmatch_ext.evaluation.baselines import ALS, ItemKNN, has_implicit
from deepmatch_ext.evaluation.ranks import MISSED, Score
from deepmatch_ext.features import SequenceColumn, SparseColumn
from deepmatch_ext.recommender.days import Day, names_of_events, warn_of_learnt
from deepmatch_ext.recommender.wording import own_names, own_words

# A miss even where a list has room for all items. `MISSED` itself says that the user had the item, which reports check.
_OF_NEW_ITEMS = MISSED - 1


@dataclass(frozen=True, eq=False)
class Judged:
    """Events to be predicted, from what is known before each of them."""

    interactions: Interactions
    rows: np.ndarray
    known: np.ndarray  # the rows that peers learn from
    is_met: np.ndarray  # which rows, of all kinds, came before those that are predicted
    is_blind: np.ndarray  # which of the predicted events are of users of whom the model knows nothing before
    user_vectors: np.ndarray
    note: str

    @property
    def targets(self) -> np.ndarray:
        return self.interactions.items[self.rows]

    @property
    def blind_note(self) -> str:
        """A note on users about whom nothing is known; empty if there are none."""
        number = int(self.is_blind.sum())
        if not number:
            return ""
        return (
            f"{number:,} of them by users without a history or features, whom the model ranks by an empty history; "
            "`recommend` gives them what is popular"
        )


def history_names(item: str, interactions: Interactions) -> list[str]:
    """The names of the columns of items that users had, one for each kind of events."""
    return [f"hist_{item}{history.suffix}" for history in interactions.histories]


def judged_events(recommender: Any, events: Any) -> Judged:
    """The events for `Recommender.evaluate`, and the model's vectors of the users before each of them."""
    split = recommender._split
    if events is not None:
        of_events = (recommender.interactions, events, recommender.time, recommender.session)
        with own_names():
            interactions, known, rows = extended_with_rows(*of_events)
        day, is_target = Day.among(interactions, rows), interactions.is_target
        day.warn_of_evaluation(names_of_events(recommender))
        note, new = day.note, rows
        rows, known = rows[is_target[rows]], np.sort(known[is_target[known]])
        if interactions.kinds is not None and not len(rows):
            rule = f"have an event of a kind that is to be predicted, {listing(list(interactions.kinds.targets))}"
            raise problem("`events`", rule, "none")
        features = recommender._tables["user"].by_id(interactions.user_ids)
        interactions = replace(interactions, user_features=features)
    elif len(split.test):
        interactions, rows, note = recommender.interactions, split.test, "the test events of fit"
        known = np.sort(np.append(split.train, split.validation))
    elif len(split.validation):
        interactions, rows, known = recommender.interactions, split.validation, split.train
        note = "the validation events of fit, which said when to stop: a little high"
    else:
        remedy = 'Give later ones, or fit with validation="last" or test="last".'
        raise problem("`events`", "be given where `fit` held none out", None, remedy)
    if events is None and recommender._learnt_since:
        warn_of_learnt(recommender._learnt_since)
        note += f", before {recommender._learnt_since:,} that `update` has learnt from"
    x = windows(interactions, rows, recommender.max_len)
    is_met = np.ones(len(interactions), bool)
    is_met[rows if events is None else new] = False
    # The model does not know new items and users.
    histories = history_names(recommender.item, interactions)
    is_known = recommender._tables["user"].known(interactions.user_ids)[interactions.users[rows]]
    for column in recommender.user_columns:
        table = column.sparsefeat if isinstance(column, SequenceColumn) else column
        if isinstance(table, SparseColumn) and table.name == recommender.user:
            x[table.name] = np.where(x[table.name] < table.vocabulary_size, x[table.name], 0)
            is_known |= x[table.name] > 0
        elif column.name in histories:
            x[column.name] = np.where(x[column.name] < len(recommender._now.item_vectors), x[column.name], 0)
            is_known |= x[column.name].any(axis=1)
    return Judged(interactions, rows, known, is_met, ~is_known, recommender.model.user_vectors(x), note)


def ranks_of_all(recommender: Any, judged: Judged, exclude_seen: bool) -> dict[str, np.ndarray]:
    """name of a recommender -> the rank of each event's item."""
    events, known, rows = judged.interactions, judged.known, judged.rows
    last, last_items = last_rows(events), np.append(events.items, 0)  # row -1: none
    popularity = Popularity.from_interactions(events, known)
    markov = chain(events, known, last, judged.is_met)
    scores: dict[str, Score] = {
        "popularity": lambda start, stop: popularity.score(last_items[last[rows[start:stop]]]),
        "Markov": lambda start, stop: markov.score(last_items[last[rows[start:stop]]]),
    }
    if has_implicit():
        for name, peer in (("item-kNN", ItemKNN), ("ALS", ALS)):
            scores[name] = partial(_of_histories, peer.from_interactions(events, known), popularity, events, rows)
    inner = inner_products(judged.user_vectors, recommender._now.item_vectors)
    unknown = np.ones(events.item_vocabulary_size, bool)
    unknown[recommender._now.known_items] = False

    def own(start: int, stop: int) -> np.ndarray:
        block = np.full((stop - start, len(unknown)), -np.inf, np.float32)
        block[:, : len(recommender._now.item_vectors)] = inner(start, stop)
        block[:, unknown] = -np.inf
        return block

    scores[recommender._name] = own
    seen = seen_before(events, rows) if exclude_seen else None
    ranks = {name: target_ranks(score, judged.targets, seen=seen) for name, score in scores.items()}
    unmet = events.item_counts(known) == 0
    for name, of_events in ranks.items():
        is_new = (unknown if name == recommender._name else unmet)[judged.targets]
        of_events[is_new] = np.maximum(of_events[is_new], _OF_NEW_ITEMS)
    return ranks


def figures_of(
    recommender: Any, judged: Judged, ns: Sequence[int], exclude_seen: bool, verbose: bool
) -> dict[str, dict[str, float]]:
    """name of a recommender -> its figures for lists of the lengths ``ns``; prints them where ``verbose``."""
    with own_words():
        ranks = ranks_of_all(recommender, judged, exclude_seen)
    figures = {name: ranking_metrics(of_events, ns) for name, of_events in ranks.items()}
    if verbose:
        shown_first = [f"{metric}@{n}" for n in ns for metric in ("HR", "NDCG")]
        print(format_table(figures, shown_first))
        print(f"{judged.note} ({len(judged.rows):,} events)")
        if judged.blind_note:
            print(judged.blind_note)
        if not has_implicit():
            print("item-kNN and ALS beside them: pip install implicit")
    return figures


def report_of(recommender: Any, path: str | os.PathLike[str], judged: Judged, exclude_seen: bool) -> None:
    """What `Recommender.report` does."""
    name, events = recommender._name, judged.interactions
    users, items = with_new_items_last(recommender, judged)
    with own_words():
        ranks = ranks_of_all(recommender, judged, exclude_seen)
        ranks.pop(name)
        write_report(
            path,
            users,
            items,
            judged.targets,
            seen=seen_before(events, judged.rows) if exclude_seen else None,
            history=recommender.history,
            ranks=ranks,
            item_count=events.item_counts(judged.known),
            settings={"model": name, "events": ", ".join(filter(None, [judged.note, judged.blind_note]))},
            title=f"{name} on {len(events):,} events",
            name=name,
        )


def with_new_items_last(recommender: Any, judged: Judged) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of users and of all items, with one more entry by which new items score lower than all others."""
    users, known, items = judged.user_vectors, recommender._now.known_items, recommender._now.item_vectors
    lowest = -1.01 * np.linalg.norm(users, axis=-1).max() * np.linalg.norm(items[known], axis=-1).max()
    wide = np.zeros((judged.interactions.item_vocabulary_size, items.shape[1] + 1), np.float32)
    wide[:, -1] = lowest
    wide[known, :-1], wide[known, -1] = items[known], 0
    has_vector = users.any(axis=-1, keepdims=True)  # where it has none, an interest is ignored
    return np.concatenate([users, has_vector], axis=-1, dtype=np.float32), wide


def last_rows(interactions: Interactions) -> np.ndarray:
    """The row of the last event in the histories of each row, whatever its kind, int64 (n,); -1 if there is none."""
    rows = np.arange(len(interactions))
    last = np.full(len(rows), -1)
    for history in interactions.histories:
        ends = history.end(rows)
        has_any = ends > history.starts[interactions.sequences]
        place = ends[has_any] - 1
        last[has_any] = np.maximum(last[has_any], place if history.rows is None else history.rows[place])
    return last


def chain(interactions: Interactions, known: np.ndarray, last: np.ndarray, is_met: np.ndarray) -> Markov:
    """The chain from the last event, of any kind, to events in rows ``known``; only events that are met begin one."""
    pair = (last[known] >= 0) & is_met[last[known]]
    items, after = interactions.items, known[pair]
    return Markov.fit(
        items[last[after]], items[after], interactions.item_vocabulary_size, interactions.item_counts(known)
    )


def items_before(interactions: Interactions, rows: np.ndarray) -> Seen:
    """The items of all histories of some rows, as ``(indptr, items)``."""
    owners, items = [], []
    for history in interactions.histories:
        starts, ends = history.starts[interactions.sequences[rows]], history.end(rows)
        owners.append(np.repeat(np.arange(len(rows)), ends - starts))
        items.append(joined_slices(history.of(interactions.items), starts, ends - starts)[1])
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.searchsorted(owner[order], np.arange(len(rows) + 1)), np.concatenate(items)[order]


def _of_histories(
    scorer: ItemKNN | ALS, popularity: Popularity, events: Interactions, rows: np.ndarray, start: int, stop: int
) -> np.ndarray:
    """The scores of histories; popularity if nothing is known about their items, as in `Markov`."""
    scores = scorer.score_histories(items_before(events, rows[start:stop]))
    scores[~scores.any(axis=1)] = popularity.item_counts
    return scores
