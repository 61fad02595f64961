"""Checks of what a builder records, and of what it refuses."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from deepmatch_ext._checks import shown
from deepmatch_ext.features import (
    Column,
    SparseColumn,
    column_config,
)
from deepmatch_ext.models._record import BUILDERS, to_plain
from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.testing._arguments import call_with, is_named, odd_values, other_value
from deepmatch_ext.testing._checks.check import check
from deepmatch_ext.testing._data import DIM, VOCABULARY
from deepmatch_ext.testing._expect import Broken, as_json, expect, one_line
from deepmatch_ext.testing._trial import Trial


@check
def recorded(trial: Trial) -> None:
    """A model's config has every argument of the builder's signature, as given; a rebuilt model has an equal config."""
    left_out = SparseColumn("left_out", VOCABULARY, DIM, embedding_name="left_out")
    others = {name: other_value(name, parameter, left_out) for name, parameter in trial.parameters.items()}
    together = {name: value for name, value in others.items() if value is not None and name not in trial.arguments}
    alone: dict[str, Any] = {}

    def check(given: dict[str, Any]) -> None:
        user = [*trial.user_columns, *([left_out] if "exclude_features" in given else [])]
        _check_record(trial, trial.model(user, **given), user, given)

    check({})
    while together:  # with as few models as possible
        try:
            check(together)
            break
        except ValueError as error:
            named = next((name for name in together if is_named(error, name)), None)
            if named is None:
                raise
            alone[named] = together.pop(named)
    for name, value in alone.items():
        try:
            check({name: value})
        except ValueError as error:
            if not is_named(error, name):
                raise  # else it is not a value that the argument takes


def _check_record(trial: Trial, model: RetrievalModel, user: Sequence[Column], given: Mapping[str, Any]) -> None:
    config = model.get_config()
    made_by = BUILDERS.get(config.get("builder", ""))
    expect(
        made_by is not None and inspect.unwrap(made_by) is inspect.unwrap(trial.builder),
        "the config's `builder` must be the registered name of the builder",
        repr(config.get("builder")),
    )
    recorded, expected = config["arguments"], list(trial.parameters)
    missing, unknown = sorted(set(expected) - set(recorded)), sorted(set(recorded) - set(expected))
    expect(
        not missing, "every argument of the signature must be recorded, or it reloads as its default", f"no {missing}"
    )
    expect(not unknown, "the recorded arguments must be arguments of the signature", f"also {unknown}")
    excluded = given.get("exclude_features", ())
    given = {**trial.arguments, **given}
    for name, parameter in trial.parameters.items():
        if name in trial.column_parameters or name in ("item_features", "exclude_features"):
            continue
        value = given.get(name, parameter.default)
        if value is None or value is parameter.empty:
            continue  # the record may say what None stood for
        plain = as_json(to_plain(name, value))
        what = f"`{name}` must be recorded as it was given, {shown(plain)}"
        expect(as_json(recorded[name]) == plain, what, shown(recorded[name]))
    for name, columns in zip(trial.column_parameters, (user, trial.item_columns), strict=True):
        came = as_json(recorded[name])
        read = [as_json(column_config(column)) for column in columns]
        without = [column for column in read if _name_in(column) not in excluded]
        was_excluded = came == without and not recorded.get("exclude_features")
        expect(
            came == read or (excluded and was_excluded),
            f"`{name}` must be recorded as it was given",
            f"the columns {[_name_in(column) for column in came]}",
        )
    again = type(model).from_config(json.loads(json.dumps(config))).get_config()
    expect(as_json(again) == as_json(config), "a model rebuilt from its config must have the same config", "another")


def _name_in(config: Mapping[str, Any]) -> str:
    return str(config["sparsefeat"]["name"] if "sparsefeat" in config else config["name"])


@check
def bad_arguments(trial: Trial) -> None:
    """An invalid value of an argument is refused with a ValueError that names the argument."""
    for name, parameter in trial.parameters.items():
        for value in odd_values(name, parameter):
            what = f"{name}={shown(value)} must be refused with a ValueError that names `{name}`"
            try:
                trial.builder(**call_with(trial, name, value))
            except ValueError as error:
                expect(is_named(error, name), what, one_line(error))
            except Exception as error:
                raise Broken(f"{what}; got {one_line(error)}") from error
            else:
                raise Broken(f"{what}; got a model")
