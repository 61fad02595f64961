"""A recommender's folder: everything that it goes on with tomorrow, read back without running any code of its own."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import problem
from deepmatch_ext._folders import Folder, Write
from deepmatch_ext._keras import keras
from deepmatch_ext._version import __version__
from deepmatch_ext.data import IdMap, Interactions, Split
from deepmatch_ext.data.kinds import Kinds
from deepmatch_ext.data.splits import PARTS
from deepmatch_ext.models._record import BUILDERS
from deepmatch_ext.recommender.features import Feature, FeatureTable
from deepmatch_ext.retrieval.vector_files import write_ids

FOLDER = Folder(
    what="a saved recommender",
    format="deepmatch_ext recommender",
    version=1,
    entries={"builder": str, "settings": dict, "history": dict, "features": dict},
)
_SETTINGS = (
    "user",
    "item",
    "time",
    "kind",
    "targets",
    "weight",
    "session",
    "exclude_seen",
    "max_len",
    "batch_size",
    "seed",
    "epochs",
    "_dim",
)


def write_recommender(folder: str | os.PathLike[str], recommender: Any) -> None:
    """What `Recommender.save` does."""
    model, events = recommender.model, recommender.interactions
    tables: Mapping[str, FeatureTable] = recommender._tables
    manifest = {
        "builder": recommender._name,
        "settings": {name: getattr(recommender, name) for name in _SETTINGS},
        "history": recommender.history,
        "features": {side: [each.plain() for each in table.features] for side, table in tables.items()},
        "left_out": {side: table.left_out for side, table in tables.items()},
        "versions": {"deepmatch_ext": __version__, "tensorflow": tf.__version__},
    }
    arrays = {"users": events.users, "items": events.items}
    arrays |= {name: getattr(events, name) for name in ("times", "sessions") if getattr(events, name) is not None}
    arrays |= {f"side_{name}": values for name, values in events.side.items()}
    if events.kinds is not None:
        arrays["kinds"] = events.kinds.values
        manifest["kinds"] = events.kinds.ids.values.tolist()
    arrays |= {name: getattr(recommender._split, name) for name in PARTS}
    files: dict[str, Write] = {
        "model.keras": _model_writer(model),
        "events.npz": _arrays_writer(arrays),
        "users.json": _ids_writer(events.user_ids),
        "items.json": _ids_writer(events.item_ids),
    }
    for side, table in tables.items():
        if table.owners is not None:
            files[f"{side}owners.json"] = _ids_writer(table.owners)
            files[f"{side}features.npz"] = _arrays_writer(table.values)
    FOLDER.write(folder, json.loads(json.dumps(manifest, default=float)), files)


def read_recommender(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The attributes of the recommender that `write_recommender` wrote."""
    manifest, files = FOLDER.read(folder)
    try:
        return _read(manifest, files)
    except (KeyError, TypeError, OSError) as error:
        rule, got = "hold a recommender, as its manifest says", f"{type(error).__name__}: {error}"
        raise problem(f"folder {str(folder)!r}", rule, got) from error


def _read(manifest: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    model = keras.models.load_model(files["model.keras"])
    with np.load(files["events.npz"], allow_pickle=False) as stored:
        arrays = dict(stored)
    side = {name.removeprefix("side_"): values for name, values in arrays.items() if name.startswith("side_")}
    settings = manifest["settings"]
    kinds = None
    if "kinds" in arrays:
        kinds = Kinds(arrays["kinds"], IdMap(manifest["kinds"]), settings["targets"], settings["kind"])
    interactions = Interactions(
        arrays["users"],
        arrays["items"],
        arrays.get("times"),
        side,
        _read_ids(files["users.json"]),
        _read_ids(files["items.json"]),
        settings["user"],
        settings["item"],
        arrays.get("sessions"),
        kinds,
    )
    columns = {column.name: column for column in [*model.user_columns, *model.item_columns]}
    tables = {}
    for which, features in manifest["features"].items():
        owners, values = None, {}
        if f"{which}owners.json" in files:
            owners = _read_ids(files[f"{which}owners.json"])
            with np.load(files[f"{which}features.npz"], allow_pickle=False) as stored:
                values = dict(stored)
        read = [Feature.from_plain(each, columns[each["name"]]) for each in features]
        tables[which] = FeatureTable(owners, read, values, manifest["left_out"][which])
    interactions = replace(interactions, user_features=tables["user"].by_id(interactions.user_ids))
    return {
        **settings,
        "interactions": interactions,
        "history": manifest["history"],
        "_builder": BUILDERS[manifest["builder"]],
        "_model": model,
        "_split": Split(interactions, **{name: arrays[name] for name in PARTS}),
        "_tables": tables,
        "_lines": {which: [] for which in tables},
        "_given": {},
        "_arguments": {},
        "_optimizer": None,
    }


def _model_writer(model: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with_suffix = path.with_name(f"{path.name}.keras")
        model.save(with_suffix)
        shutil.move(with_suffix, path)

    return write


def _arrays_writer(arrays: Mapping[str, np.ndarray]) -> Write:
    def write(path: Path) -> None:
        with path.open("wb") as file:  # a path would get a suffix
            np.savez(file, **arrays)  # type: ignore[arg-type]

    return write


def _ids_writer(ids: IdMap) -> Write:
    return lambda path: write_ids(path, ids.values)


def _read_ids(path: Path) -> IdMap:
    return IdMap(json.loads(path.read_text(encoding="ascii")))
