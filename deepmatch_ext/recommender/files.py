"""A recommender's folder: everything that later updates need. Reading it runs no code from the folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import problem, shown
from deepmatch_ext._folders import Folder, Write
from deepmatch_ext._keras import keras
from deepmatch_ext._plain import check_named
from deepmatch_ext._version import __version__
from deepmatch_ext.data import IdMap, Interactions, Split
from deepmatch_ext.data.kinds import Kinds
from deepmatch_ext.data.splits import PARTS
from deepmatch_ext.features import Column, SequenceColumn, column_config, read_columns
from deepmatch_ext.models._record import BUILDERS, as_json, from_plain, to_plain
from deepmatch_ext.recommender.features import Feature, FeatureTable
from deepmatch_ext.retrieval.vector_files import write_ids
from deepmatch_ext.samplers import make_sampler

FOLDER = Folder(
    what="a saved recommender",
    format="deepmatch_ext recommender",
    version=3,
    entries={
        "builder": str,
        "module": str,
        "arguments": dict,
        "columns": list,
        "settings": dict,
        "history": dict,
        "features": dict,
        "lines": dict,
    },
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
    "_learnt_since",
)


def write_recommender(folder: str | os.PathLike[str], recommender: Any) -> None:
    """What `Recommender.save` does."""
    check_builder(recommender._builder)
    check_named("`optimizer`", recommender._optimizer)
    model, events = recommender.model, recommender.interactions
    tables: Mapping[str, FeatureTable] = recommender._tables
    manifest = {
        "builder": recommender._name,
        "module": recommender._builder.__module__,
        "arguments": {name: _plain_argument(name, value) for name, value in recommender._arguments.items()},
        "columns": [column_config(column) for column in recommender._given.values()],
        "has_optimizer": recommender._optimizer is not None,
        "settings": {name: getattr(recommender, name) for name in _SETTINGS},
        "history": recommender.history,
        "features": {side: [each.plain() for each in table.features] for side, table in tables.items()},
        "left_out": {side: table.left_out for side, table in tables.items()},
        "lines": recommender._lines,
        "has_zone": events.has_zone,
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
        "model.keras": model.save,
        "events.npz": _arrays_writer(arrays),
        "users.json": _ids_writer(events.user_ids.values),
        "items.json": _ids_writer(events.item_ids.values),
    }
    if events.session_ids is not None:
        files["sessions.json"] = _ids_writer(events.session_ids)
    for side, table in tables.items():
        if table.owners is not None:
            files[f"{side}owners.json"] = _ids_writer(table.owners.values)
            files[f"{side}features.npz"] = _arrays_writer(table.values)
    FOLDER.write(folder, as_json(manifest), files)


def read_recommender(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The attributes of the recommender that `write_recommender` wrote."""
    manifest, files = FOLDER.read(folder)
    if manifest["builder"] not in BUILDERS:
        name, module = manifest["builder"], manifest["module"]
        rule = f"be of a builder that is registered; {name!r} of the module {module!r} is not"
        remedy = f"Import {module} before loading."
        if module == "__main__":
            remedy = f"Define {name} first, or move it into a module that is imported before saving and loading."
        raise problem(f"folder {str(folder)!r}", rule, "an unknown builder", remedy)
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
        IdMap(_read_ids(files["users.json"])),
        IdMap(_read_ids(files["items.json"])),
        settings["user"],
        settings["item"],
        arrays.get("sessions"),
        kinds,
        has_zone=manifest["has_zone"],
        session_ids=np.asarray(_read_ids(files["sessions.json"])) if "sessions.json" in files else None,
    )
    tables = {}
    for which, features in manifest["features"].items():
        owners, values = None, {}
        if f"{which}owners.json" in files:
            owners = IdMap(_read_ids(files[f"{which}owners.json"]))
            with np.load(files[f"{which}features.npz"], allow_pickle=False) as stored:
                values = dict(stored)
        read = [Feature.from_plain(each) for each in features]
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
        "_lines": manifest["lines"],
        "_given": {column.name: column for column in read_columns("columns", manifest["columns"])},
        "_arguments": {name: from_plain(value) for name, value in manifest["arguments"].items()},
        "_optimizer": _untrained(model.optimizer) if manifest["has_optimizer"] else None,
    }


def check_builder(builder: Any) -> None:
    """Refuses a builder that another process could not find by its name.

    Raises:
        ValueError: It is a lambda, a `functools.partial` or another function that is not registered.
    """
    name = getattr(builder, "__name__", None)
    registered = BUILDERS.get(name or "")
    if registered is not None and _place(registered) == _place(builder):  # a notebook defines its functions again
        return
    got = f"the function {name!r}"
    if name is None or name == "<lambda>":
        got = "a lambda" if name else f"an object of the class {type(builder).__name__}"
    remedy = (
        "Give the builder itself and its arguments: Recommender(YoutubeDNN, temperature=0.2). Or register a builder "
        "of your own with `deepmatch_ext.models.builder`."
    )
    raise problem("`model`", "be a builder that `load` finds by its name, to be saved", got, remedy)


def _place(function: Any) -> tuple[str, str]:
    return function.__module__, function.__qualname__


def check_restored(arguments: Mapping[str, Any], columns: Iterable[Column]) -> None:
    """Refuses to build a model from arguments whose counts or arrays `load` could not restore.

    Raises:
        ValueError: An argument or a column lacks its values; the message names it.
    """
    remedy = "A saved recommender does not hold it. Make a Recommender with it, and fit that."
    sampler = arguments.get("sampler_config")
    if sampler is not None and make_sampler(sampler).awaits_counts:
        raise problem("`sampler_config`", "have its counts", "a sampler without them, from `load`", remedy)
    for column in columns:
        table = column.sparsefeat if isinstance(column, SequenceColumn) else column
        initializer = getattr(table, "embeddings_initializer", None)
        if initializer is not None and initializer.awaits_values:
            rule = f"have the array that is the `embeddings_initializer` of {column.name!r}"
            raise problem("`columns`", rule, "a column without it, from `load`", remedy)


def _plain_argument(name: str, value: Any) -> Any:
    """A builder's argument as JSON can hold it; `from_plain` takes it back."""
    if name == "sampler_config" and value is not None:
        value = make_sampler(value)
    plain = to_plain(f"`{name}`", value.tolist() if isinstance(value, np.ndarray) else value)
    try:
        return as_json(plain)
    except TypeError:
        raise problem(f"`{name}`", "be numbers, text and lists of them, to be saved", shown(value)) from None


def _untrained(optimizer: Any) -> Any:
    return type(optimizer).from_config(optimizer.get_config())


def _arrays_writer(arrays: Mapping[str, np.ndarray]) -> Write:
    def write(path: Path) -> None:
        with path.open("wb") as file:  # a path would get a suffix
            np.savez(file, **arrays)  # type: ignore[arg-type]

    return write


def _ids_writer(ids: np.ndarray) -> Write:
    return lambda path: write_ids(path, ids)


def _read_ids(path: Path) -> list[Any]:
    return json.loads(path.read_text(encoding="ascii"))
