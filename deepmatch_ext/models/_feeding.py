"""Feeds NumPy arrays to a model and returns its vectors, without waiting.

Keras feeds arrays through tf.data with autotuning. The autotuning thread sleeps for 10, 20, 40, ... ms, and the end of
every epoch and call waits for it, so an epoch can take twice as long as its work. Here autotuning is off.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._keras import eager_is_on, input_name, keras
from deepmatch_ext._passes import in_passes, mapped


def batches(arrays: Any, rows: int, batch_size: int, order: Callable[[], np.ndarray] | None = None) -> tf.data.Dataset:
    """``arrays`` in batches, the last one smaller if the rows don't divide evenly.

    Args:
        arrays: A structure (tuples, dictionaries) of arrays or tensors, each of ``rows`` rows.
        rows: Their number of rows.
        batch_size: Rows in a batch.
        order: Called at the start of every epoch for the order of its rows, (rows,) int64. None: as they are. The
            caller keeps a reference to it while the batches are read.
    """
    tensors = tf.nest.map_structure(tf.convert_to_tensor, arrays)
    starts, number = tf.data.Dataset.range(0, rows, batch_size), -(-rows // batch_size)

    def from_start(start: tf.Tensor) -> Any:
        return tf.nest.map_structure(lambda tensor: tensor[start : start + batch_size], tensors)

    def of_rows(rows: tf.Tensor) -> Any:
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors)

    if order is None:
        return in_passes(None, lambda _: starts, number, from_start)
    # TensorFlow never releases a numpy_function's function, and this one holds the whole model.
    order_of = weakref.ref(order)

    def next_order() -> np.ndarray:
        order = order_of()
        return np.arange(rows) if order is None else order()  # None: prefetched, but never used

    def drawn(_: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(next_order, [], tf.int64), [rows])

    def one_pass(order: tf.Tensor) -> tf.data.Dataset:
        return starts.map(lambda start: order[start : start + batch_size])

    return in_passes(mapped(tf.data.Dataset.from_tensors(0), drawn), one_pass, number, of_rows)


class Encoder:
    """A tower as a function from named arrays to vectors, computed in blocks. It is built at the first call."""

    def __init__(self, inputs: list[Any], output: Any) -> None:
        self._inputs, self._output = inputs, output
        self._shape = tuple(output.shape[1:])
        self._specs = {input_name(tensor): tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs}

    @functools.cached_property
    def _model(self) -> Any:
        return keras.Model(self._inputs, self._output)

    @functools.cached_property
    def _vectors(self) -> Any:
        model, names = self._model, list(self._specs)

        @tf.function(input_signature=[self._specs], autograph=False)
        def vectors(arrays: Mapping[str, tf.Tensor]) -> tf.Tensor:
            return tf.cast(model([arrays[name] for name in names], training=False), tf.float32)

        # The function itself, called in several models, makes TensorFlow warn about retracing.
        return vectors.get_concrete_function()

    def __call__(self, arrays: Mapping[str, np.ndarray], rows: int, batch_size: int) -> np.ndarray:
        """Vectors (rows, D) or (rows, K, D), float32, of ``arrays``, name -> array of ``rows`` rows."""
        if not eager_is_on():
            return np.asarray(self._model.predict(dict(arrays), batch_size), np.float32)
        out = np.empty((rows, *self._shape), np.float32)
        for start in range(0, rows, batch_size):
            stop = min(start + batch_size, rows)
            block = {name: _as_spec(arrays[name][start:stop], spec) for name, spec in self._specs.items()}
            out[start:stop] = self._vectors(block).numpy()
        return out


def _as_spec(values: np.ndarray, spec: tf.TensorSpec) -> tf.Tensor:
    tensor = tf.reshape(tf.convert_to_tensor(values), [-1, *spec.shape[1:]])
    return tensor if spec.dtype == tf.string else tf.cast(tensor, spec.dtype)
