"""For DeepCTR's builders on Keras 3: a model that takes NumPy strings, and a Lambda that saves without code."""

from __future__ import annotations

import importlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import problem
from deepmatch_ext._keras import build_optimizer, keras, register


@register
class DeepCTRModel(keras.Model):
    """A model that one of DeepCTR's builders made: Keras's functional model, whose features may be NumPy strings.

    Keras 3 refuses arrays and pandas columns of strings, but not tensors; here they become tensors on the way in.
    """

    # Keras saves and rebuilds a subclass as a functional model only if its parameters are these.
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for tensor in tf.nest.flatten(kwargs["inputs"] if "inputs" in kwargs else args[0]):
            if not tensor._keras_history.operation._outbound_nodes:
                # DIN doesn't read its history's length, and Keras 3.12 refuses an input that nothing reads.
                keras.layers.Identity()(tensor)
        super().__init__(*args, **kwargs)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``fit``."""
        if isinstance(kwargs.get("validation_data"), tuple | list):
            features, *rest = kwargs["validation_data"]
            kwargs["validation_data"] = (_tensors(features), *rest)
        build_optimizer(self)
        return super().fit(_tensors(x), y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``evaluate``."""
        return super().evaluate(_tensors(x), y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``predict``."""
        return super().predict(_tensors(x), *args, **kwargs)

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``train_on_batch``."""
        build_optimizer(self)
        return super().train_on_batch(_tensors(x), *args, **kwargs)

    def test_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``test_on_batch``."""
        return super().test_on_batch(_tensors(x), *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Keras's ``predict_on_batch``."""
        return super().predict_on_batch(_tensors(x))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Keras's ``compute_metrics``, of labels (B,), too: some metrics want the shape of the predictions, (B, 1)."""
        y = tf.nest.map_structure(lambda one: keras.ops.expand_dims(one, 1) if len(one.shape) == 1 else one, y)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def add_loss(self, loss: Any) -> None:
        """Keras's ``add_loss``. A loss that a layer has already added to the model (DIEN's) is not added again."""
        if not getattr(loss, "in_the_model", False):
            super().add_loss(loss)


def _tensors(x: Any) -> Any:
    """``x`` with its arrays of strings as tensors, and all else unchanged."""
    if isinstance(x, Mapping):
        return {name: _tensors(values) for name, values in x.items()}
    if isinstance(x, tuple | list):
        return type(x)(_tensors(values) for values in x)
    kind = getattr(getattr(x, "dtype", None), "kind", "")
    if kind not in ("O", "S", "T", "U"):
        return x
    values = np.asarray(x)
    is_text = kind != "O" or (values.size > 0 and isinstance(values.flat[0], str | bytes))
    return tf.convert_to_tensor(values.astype(object), tf.string) if is_text else x


@register
class PlacedLambda(keras.layers.Lambda):
    """Keras's Lambda for the functions in DeepCTR's own code, saved as their position in it.

    Keras saves a Python lambda as bytecode and loads it in unsafe mode only. This layer saves the module and the line
    instead, and the version of DeepCTR in which they are valid.
    """

    def __init__(self, function: Any, mask: Any = None, **kwargs: Any) -> None:
        super().__init__(function, mask=mask, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The layer's config, without code."""
        config = keras.layers.Layer.get_config(self)
        return {**config, "function": _place(self.function), "mask": self.mask}

    @classmethod
    def from_config(cls, config: dict[str, Any], **_: Any) -> PlacedLambda:
        """The reverse of `get_config`."""
        return cls(**{**config, "function": _function_at(**config["function"])})


def _version() -> str:
    return str(importlib.import_module("deepctr").__version__)


def _place(function: Any) -> dict[str, Any]:
    return {"deepctr": _version(), "module": function.__module__, "line": function.__code__.co_firstlineno}


def _function_at(deepctr: str, module: str, line: int) -> Any:
    if deepctr != _version():
        raise problem(
            "The file", f"be from a model of the installed deepctr, {_version()}", f"one of deepctr {deepctr}",
            f"Install deepctr=={deepctr}, or build the model again and load its weights.",
        )  # fmt: skip
    if module == "deepctr.feature_column" or module.startswith("deepctr.models."):  # where `PlacedLambda` is used
        home = vars(importlib.import_module(module))
        for code in _codes(home, module):
            if code.co_firstlineno == line and not code.co_freevars:
                return types.FunctionType(code, home)
    raise problem("The file", "name a function of DeepCTR's models", f"line {line} of {module}")


def _codes(home: Mapping[str, Any], module: str) -> Iterator[types.CodeType]:
    """The code of the module's functions and of the functions in them, the innermost last."""
    found = [f.__code__ for f in home.values() if isinstance(f, types.FunctionType) and f.__module__ == module]
    while found:
        code = found.pop(0)
        yield code
        found.extend(inner for inner in code.co_consts if isinstance(inner, types.CodeType))
