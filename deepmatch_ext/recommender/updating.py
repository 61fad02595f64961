"""What `Recommender.update` makes from new events: a larger model, and the rows that it trains on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from deepmatch_ext._checks import problem
from deepmatch_ext.data import Interactions, Split, neighbours
from deepmatch_ext.data.interactions import extended_with_rows
from deepmatch_ext.data.splits import PARTS
from deepmatch_ext.features import SequenceColumn, SparseColumn
from deepmatch_ext.models import RetrievalModel
from deepmatch_ext.recommender.building import padded
from deepmatch_ext.recommender.features import FeatureTable
from deepmatch_ext.recommender.reading import check_ids, everyone
from deepmatch_ext.recommender.wording import own_names


def grown(
    recommender: Any, events: Any, tables: Mapping[str, FeatureTable], sampler_config: Any
) -> tuple[RetrievalModel, Split, np.ndarray]:
    """The model with room for what is new, all events with what is held out of them, and the rows of the new ones.

    Args:
        recommender: The `Recommender`, which is unchanged.
        events: The frame of new events.
        tables: What is known about users and items now.
        sampler_config: Another sampler, or None.
    """
    model, before = recommender.model, recommender.interactions
    ids = everyone(before, tables)
    known = replace(before, user_ids=ids["user"], item_ids=ids["item"], user_features={})
    with own_names():
        interactions, rows, is_new = extended_with_rows(known, events, recommender.time, recommender.session)
    check_ids(interactions)
    interactions = replace(interactions, user_features=tables["user"].by_id(interactions.user_ids))
    sizes, in_use = _sizes(interactions, tables), _sizes(before, recommender._tables)
    columns = [*model.user_columns, *model.item_columns]
    now = {column.name: column.vocabulary_size for column in columns if isinstance(column, SparseColumn)}
    now |= {each.name: each.sparsefeat.vocabulary_size for each in columns if isinstance(each, SequenceColumn)}
    sizes = {name: max(size, now[name]) for name, size in sizes.items() if name in now}
    in_use = {name: size for name, size in in_use.items() if name in now}
    if len(model.item_columns) > 1:
        start: dict[str, Any] = {
            "item_features": padded(tables["item"].by_id(interactions.item_ids), sizes[recommender.item])
        }
    else:
        start = {"alike": neighbours(interactions, before.item_vocabulary_size)}
    larger = model.extended(sizes, **start, sampler_config=sampler_config, in_use=in_use)
    parts = {name: np.sort(rows[getattr(recommender._split, name)]) for name in PARTS}
    learnt = is_new[interactions.is_target[is_new]]
    split = Split(interactions, **{**parts, "train": np.sort(np.append(parts["train"], learnt))})
    return larger, split, is_new


def _sizes(events: Interactions, tables: Mapping[str, FeatureTable]) -> dict[str, int]:
    """name -> the vocabulary size, of items, users and features that are categories."""
    sizes = {events.item_name: events.item_vocabulary_size, events.user_name: events.user_vocabulary_size}
    return sizes | tables["user"].sizes() | tables["item"].sizes()


def targets_of_update(
    model: RetrievalModel, split: Split, learnt: np.ndarray, max_len: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that train new events, and rows of old ones.

    Args:
        model: The model.
        split: All events with what is held out of them.
        learnt: The rows of the new events that are to be predicted.
        max_len: The length of histories.
    """
    if not model.trains_every_position:
        targets = learnt[split.interactions.history_lengths[learnt] > 0]
        return targets, np.setdiff1d(split.train_targets(), learnt, assume_unique=True)
    if len(split.validation) or len(split.test):
        rule = "be fitted without `validation` and `test` before an update, where every position is trained"
        remedy = "Held-out events are now in histories, and would be trained on: fit(events, epochs=n) holds out none."
        raise problem("The recommender", rule, "one that holds out events", remedy)
    rows = split.sequence_targets(max_len)
    number = np.zeros(len(split.interactions) + 1, np.int64)  # of new events in front of each row
    number[learnt + 1] = 1
    number = np.cumsum(number)
    trained = np.minimum(split.interactions.position[rows], max_len)
    has_new = number[rows + 1] > number[rows + 1 - trained]
    return rows[has_new], rows[~has_new]
