"""NumPy arrays into a model and vectors out of it, without waiting.

Keras feeds arrays through tf.data with its autotuning on, whose thread sleeps for 10, 20, 40, ... ms and is waited for
at the end of every epoch and every call: an epoch can take twice its work. Here it is off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf


def batches(arrays: Any, rows: int, batch_size: int, order: Callable[[], np.ndarray] | None = None) -> tf.data.Dataset:
    """``arrays`` in batches, the last one smaller if they don't come out even.

    Args:
        arrays: A structure (tuples, dictionaries) of arrays or tensors, each of ``rows`` rows.
        rows: Their number of rows.
        batch_size: Rows in a batch.
        order: Called at the start of every epoch for the order of its rows, (rows,) int64. None: as they are.
    """
    tensors = tf.nest.map_structure(tf.convert_to_tensor, arrays)
    starts = tf.data.Dataset.range(0, rows, batch_size)
    if order is None:
        dataset = starts.map(lambda start: _each(tensors, lambda tensor: tensor[start : start + batch_size]))
    else:

        def drawn(_: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.numpy_function(order, [], tf.int64), [rows])

        orders = tf.data.Dataset.from_tensors(0).map(drawn)
        picked = orders.flat_map(lambda rows: starts.map(lambda start: rows[start : start + batch_size]))
        dataset = picked.map(lambda rows: _each(tensors, lambda tensor: tf.gather(tensor, rows)))
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-rows // batch_size)))
    return without_autotuning(dataset.prefetch(2))


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset without the thread that the end of every epoch would wait for."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def encode(encoder: Any, arrays: Mapping[str, np.ndarray], rows: int, batch_size: int) -> np.ndarray:
    """A tower's vectors, (rows, D) float32, computed in blocks of ``batch_size``.

    Args:
        encoder: A Keras model from named inputs to (B, D).
        arrays: name -> array of ``rows`` rows, for each of the encoder's inputs.
    """
    shapes = {tensor.name: [-1, *tensor.shape[1:]] for tensor in encoder.inputs}
    specs = {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in encoder.inputs}
    # Every block is a full one (the last begins earlier), so there is one shape to trace.
    block = min(batch_size, rows)

    @tf.function(input_signature=[specs])
    def vectors(inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return tf.cast(encoder([inputs[tensor.name] for tensor in encoder.inputs], training=False), tf.float32)

    out = np.empty((rows, encoder.outputs[0].shape[-1]), np.float32)
    for start in range(0, rows, batch_size):
        start = min(start, rows - block)
        inputs = {name: tf.convert_to_tensor(arrays[name][start : start + block]) for name in specs}
        inputs = {name: tf.reshape(_cast(tensor, specs[name].dtype), shapes[name]) for name, tensor in inputs.items()}
        out[start : start + block] = vectors(inputs).numpy()
    return out


def _each(tensors: Any, function: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    return tf.nest.map_structure(function, tensors)


def _cast(tensor: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tensor if dtype == tf.string else tf.cast(tensor, dtype)
