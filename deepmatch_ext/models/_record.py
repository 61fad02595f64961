"""The record from which a model is rebuilt: its builder's name and the arguments, as plain data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deepmatch_ext._checks import problem
from deepmatch_ext._keras import deserialize, keras
from deepmatch_ext._plain import plain_object
from deepmatch_ext.features import Column, column_config
from deepmatch_ext.samplers import Sampler

BUILDERS: dict[str, Callable[..., Any]] = {}


def register_builder(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets models be rebuilt by the builder's name when they are loaded."""
    name, other = function.__name__, BUILDERS.get(function.__name__)
    if other is not None and (other.__module__, other.__qualname__) != (function.__module__, function.__qualname__):
        rule, got = "have a name of its own", f"that of {other.__module__}.{other.__qualname__}"
        raise problem(f"The builder {name}", rule, got)
    BUILDERS[name] = function
    return function


def as_json(value: Any) -> Any:
    """What is read again of ``value`` as JSON, in which NumPy's numbers are Python's.

    Raises:
        TypeError: JSON can't hold it.
    """
    return json.loads(json.dumps(value, default=_number))


def _number(value: Any) -> Any:
    if not isinstance(value, np.generic):
        raise TypeError(f"{type(value).__name__} is no number")
    return value.item()


def to_plain(what: str, value: Any) -> Any:
    """Builder arguments in a form that JSON can hold; refuses functions without a registered name."""
    if isinstance(value, Mapping):
        return {key: to_plain(f"`{key}`", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(what, item) for item in value]
    if isinstance(value, Column):
        return column_config(value)
    if isinstance(value, Sampler):
        return _plain_settings(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, type):  # a layer's class stands for its defaults
        value = value()
    if isinstance(value, keras.layers.Layer):
        return {"keras_layer": plain_object(what, value, "layers")}
    return {"keras_object": plain_object(what, value)} if callable(value) else value


def _plain_settings(sampler: Sampler) -> Any:
    settings = sampler.get_config()
    try:
        return as_json(settings)
    except (TypeError, ValueError):
        what = f"`get_config` of the sampler {type(sampler).__name__}"
        remedy = "Counts and the like are its `state`, which is saved with the weights."
        raise problem(what, "return numbers, text and lists of them", repr(settings), remedy) from None


def from_plain(value: Any) -> Any:
    if isinstance(value, Mapping) and "keras_layer" in value:
        return deserialize(value["keras_layer"], "layers")
    if isinstance(value, Mapping) and "keras_object" in value:
        return deserialize(value["keras_object"])
    return value
