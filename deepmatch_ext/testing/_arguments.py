"""Values of arguments: valid ones that differ from the defaults, and invalid ones."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np

from deepmatch_ext.features import (
    SparseColumn,
)
from deepmatch_ext.samplers import (
    AdaptiveSampler,
    FrequencySampler,
    FullSampler,
    InBatchSampler,
    LogUniformSampler,
    MixedSampler,
    QueueSampler,
    Sampler,
    UniformSampler,
)
from deepmatch_ext.testing._data import DIM, item_features
from deepmatch_ext.testing._trial import Trial

# A second value for arguments that many models have. A model's other numbers and flags are changed by their type.
_OTHER_VALUES: dict[str, Any] = {
    "user_dnn_hidden_units": (12, DIM),
    "item_dnn_hidden_units": (12, DIM),
    "dnn_activation": "tanh",
    "output_activation": "tanh",
    "loss": "bpr",
    "loss_type": "bpr",
    "num_hard": 5,
    "sampler_config": UniformSampler(7),
    "num_sampled": 11,
}


# Values that arguments must refuse, besides those of the wrong type.
_ODD_VALUES: dict[str, list[Any]] = {
    "user_dnn_hidden_units": [64, "64", [0], [2.5], ["a"]],
    "item_dnn_hidden_units": [64, "64", [0], [2.5], ["a"]],
    "l2_reg_dnn": [-1.0],
    "l2_reg_embedding": [-1.0],
    "dnn_dropout": [-0.1, 1.0],
    "history_dropout": [-0.1, 1.0],
    "item_id_dropout": [-0.1, 1.0],
    "temperature": [0.0, -1.0, float("inf")],
    "gbce_t": [-0.1, 1.1],
    "seed": [-1],
    "num_sampled": [0, -1, 2.5, "ten"],
    "num_hard": [0, -1, 2.5, "ten"],
    "sampler_config": ["strange", 3],
    "exclude_features": ["text", ["no column"]],
}


class _Nothing:
    """An object that no argument takes."""

    def __repr__(self) -> str:
        return "an object"


def every_sampler(vocabulary_size: int) -> dict[str, Sampler]:
    """Name -> a sampler of each kind, for a small vocabulary."""
    counts = np.arange(vocabulary_size)
    return {
        "uniform": UniformSampler(9),
        "log_uniform": LogUniformSampler(9),
        "frequency": FrequencySampler(9, counts),
        "adaptive": AdaptiveSampler(9),
        "inbatch": InBatchSampler(),
        "queue": QueueSampler(9, memory=50),
        "mixed": MixedSampler([InBatchSampler(), UniformSampler(9)]),
        "full": FullSampler(),
    }


def other_value(name: str, parameter: inspect.Parameter, left_out: SparseColumn) -> Any:
    """A value that is not the argument's default; None if none can be found."""
    if name == "exclude_features":
        return (left_out.name,)
    default = parameter.default
    if name in _OTHER_VALUES:
        return None if _OTHER_VALUES[name] == default else _OTHER_VALUES[name]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2 or 0.125
    return None


def odd_values(name: str, parameter: inspect.Parameter) -> list[Any]:
    """Values that the argument must refuse."""
    default, nothing = parameter.default, _Nothing()
    if default is parameter.empty:  # columns
        return [None, "text", [nothing], 3]
    odd = [nothing, *_ODD_VALUES.get(name, [])]
    if isinstance(default, bool):
        return [*odd, "yes", None, 2.5]
    if isinstance(default, int):
        return [*odd, "three", 2.5, float("nan"), None]
    if isinstance(default, float):
        return [*odd, "half", float("nan"), None]
    if isinstance(default, str):
        return [*odd, "no such name", 3]
    return odd


def call_with(trial: Trial, name: str, value: Any) -> dict[str, Any]:
    """The trial's arguments, including columns, with another value for one, and without those that conflict with it."""
    columns = dict(zip(trial.column_parameters, (trial.user_columns, trial.item_columns), strict=True))
    arguments = {**columns, **trial.arguments, name: value}
    for other in {"num_sampled": ["sampler_config"], "sampler_config": ["num_sampled"]}.get(name, []):
        arguments.pop(other, None)
    if len(trial.item_columns) > 1 and "item_features" in trial.parameters:
        arguments.setdefault("item_features", item_features(trial.item_columns))
    return arguments


def is_named(error: BaseException, name: str) -> bool:
    """Whether an error's text contains the argument's name."""
    return re.search(rf"\b{re.escape(name)}\b", str(error)) is not None
