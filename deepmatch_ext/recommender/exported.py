"""A recommender as a SavedModel that reads raw values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from deepmatch_ext.features import DenseColumn
from deepmatch_ext.recommender.judged import history_names
from deepmatch_ext.serving import export_recommender


def exported(recommender: Any, folder: str | os.PathLike[str], **options: Any) -> Path:
    """What `Recommender.export` does."""
    events, now, model = recommender.interactions, recommender._now, recommender.model
    maps: dict[str, Any] = dict.fromkeys(history_names(recommender.item, events), events.item_ids)
    maps[recommender.user] = events.user_ids
    features = recommender._tables["user"].features
    maps |= {each.name: each.ids for each in features if each.ids is not None}
    numbers = [each for each in features if isinstance(each.column, DenseColumn)]
    scaling = {each.name: (each.mean, each.deviation) for each in numbers if each.column.transform_fn is None}
    read = {column.name for column in model.user_columns}
    return export_recommender(
        model,
        folder,
        item_ids=events.item_ids.decode(now.known_items),
        item_vectors=now.item_vectors[now.known_items],
        id_maps={name: ids for name, ids in maps.items() if name in read},
        scaling={name: pair for name, pair in scaling.items() if name in read},
        **options,
    )
