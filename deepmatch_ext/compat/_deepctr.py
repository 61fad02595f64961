"""What `enable_deepctr_on_keras3` changes in DeepCTR 0.9.4, and why.

Names are replaced in DeepCTR's modules and methods on its classes, so whatever was imported from it before sees the
change, too. Only Keras 3 comes here.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import tensorflow as tf

from deepmatch_ext._keras import keras
from deepmatch_ext.compat import _dien
from deepmatch_ext.compat._model import DeepCTRModel, PlacedLambda

_DONE = "_mended_for_keras3"


def apply() -> None:
    """Patches the imported deepctr, once."""
    deepctr = importlib.import_module("deepctr")
    if getattr(deepctr, _DONE, False):
        return
    layers = importlib.import_module("deepctr.layers")
    for layer in _layer_classes(layers):
        _mend_layer(layer)
    _mend_configs(layers)
    layers.Concat.compute_mask = _mask_of_concat
    layers.Hash.build = _without_jit(layers.Hash.build)
    _mend_builders(deepctr)
    _mend_bst(importlib.import_module("deepctr.models.sequence.bst"), layers)
    _dien.mend(importlib.import_module("deepctr.models.sequence.dien"), layers)
    # `.h5` files name classes without their package, so the classes must be among the custom objects, and so must the
    # operations in the graph.
    classes = [DeepCTRModel, PlacedLambda, _dien.AuxiliaryLoss, *_mask_operations()]
    layers.custom_objects.update({one.__name__: one for one in classes})
    setattr(deepctr, _DONE, True)


def _layer_classes(layers: ModuleType) -> Iterator[Any]:
    for info in pkgutil.iter_modules(layers.__path__, "deepctr.layers."):
        module = importlib.import_module(info.name)
        for thing in list(vars(module).values()):
            if isinstance(thing, type) and issubclass(thing, keras.layers.Layer) and thing.__module__ == info.name:
                yield thing


def _mend_layer(layer: Any) -> None:
    layer.add_weight = _add_weight
    # Keras 3 does not run `call` of a layer that has its own `compute_output_shape`, so layers inside it would get
    # their weights at the first batch only, and a model that was just built could not load any.
    layer.compute_output_spec = keras.Operation.compute_output_spec
    importlib.import_module("keras.saving").register_keras_serializable("deepctr")(layer)


def _add_weight(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Keras's ``add_weight`` for a caller who gives the name first, as Keras 2 allowed, or a shape as one integer."""
    if args and isinstance(args[0], str):
        kwargs["name"], args = args[0], args[1:]
    if args:
        kwargs["shape"], args = args[0], args[1:]
    shape = kwargs.get("shape", ())
    kwargs["shape"] = (shape,) if isinstance(shape, int) else tuple(int(size) for size in shape)
    return keras.layers.Layer.add_weight(self, *args, **kwargs)


def _mend_configs(layers: ModuleType) -> None:
    """Three layers save an argument wrongly or not at all; reloaded, they would compute something else."""
    for layer, complete in {
        layers.InteractingLayer: lambda self: {"scaling": self.scaling},
        layers.CIN: lambda self: {"l2_reg": self.l2_reg},
        layers.RegulationModule: lambda self: {"tau": 1.0 / self.tau},
    }.items():
        layer.get_config = _completed(layer.get_config, complete)


def _completed(get_config: Callable[[Any], Any], complete: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(get_config)
    def get_completed_config(self: Any) -> dict[str, Any]:
        return {**get_config(self), **complete(self)}

    return get_completed_config


def _mask_of_concat(self: Any, inputs: Any, mask: Any = None) -> Any:
    """What is valid in all inputs, (B, T), in Keras's own operations, which know symbolic tensors."""
    masks = list(mask or ())
    if not self.supports_masking or all(one is None for one in masks):
        return None
    if self.axis in (-1, len(inputs[0].shape) - 1):
        return functools.reduce(keras.ops.logical_and, [one for one in masks if one is not None])
    whole = [
        keras.ops.ones_like(x[..., 0], "bool") if one is None else one for x, one in zip(inputs, masks, strict=True)
    ]
    return keras.ops.concatenate(whole, axis=self.axis)


def _without_jit(build: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(build)
    def build_without_jit(self: Any, input_shape: Any) -> None:
        self.supports_jit = False  # operations on strings have no XLA kernel, which Keras would want on a GPU
        build(self, input_shape)

    return build_without_jit


def _mend_builders(deepctr: ModuleType) -> None:
    importlib.import_module("deepctr.models")
    for info in pkgutil.walk_packages(deepctr.__path__, "deepctr."):
        if info.name.startswith("deepctr.models."):
            module = importlib.import_module(info.name)
            _replace(module, Model=DeepCTRModel, Lambda=PlacedLambda, Embedding=_embedding)
    _replace(importlib.import_module("deepctr.feature_column"), Lambda=PlacedLambda)
    # `Lambda` there takes the user's `transform_fn` and stays Keras's.
    _replace(importlib.import_module("deepctr.inputs"), Embedding=_embedding)


def _replace(module: ModuleType, **names: Any) -> None:
    for name, thing in names.items():
        if hasattr(module, name):
            setattr(module, name, thing)


def _embedding(input_dim: Any, output_dim: Any, **kwargs: Any) -> Any:
    """Keras 3 refuses sizes that are NumPy's integers."""
    return keras.layers.Embedding(int(input_dim), int(output_dim), **kwargs)


def _mend_bst(bst: Any, layers: Any) -> None:
    """The builder asks symbolic tensors for ``get_shape()``, which Keras 3's don't have."""
    concat_func = bst.concat_func

    def transformer(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        layer = layers.Transformer(*args, **kwargs)
        return lambda inputs: _with_get_shape(layer(inputs))

    bst.concat_func = lambda *args, **kwargs: _with_get_shape(concat_func(*args, **kwargs))
    bst.Transformer = transformer


def _with_get_shape(tensor: Any) -> Any:
    tensor.get_shape = lambda: tf.TensorShape(tensor.shape)
    return tensor


def _mask_operations() -> list[type]:
    tensor = keras.KerasTensor((1,))
    results = [keras.ops.not_equal(tensor, 0), keras.ops.logical_and(tensor, tensor)]
    return [type(result._keras_history.operation) for result in results]
