"""DeepMatch's layers, for code that builds models of its own with them.

They work on whole item tables, which suits small catalogues: a step of such a model costs what its table costs. The
layers that `YoutubeDNN` is made of read only the rows that a step needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import as_flag, as_list, int_at_least, one_of, problem
from deepmatch_ext._keras import keras, register

__all__ = ["EmbeddingIndex", "PoolingLayer", "RowsOf"]


@register
class EmbeddingIndex(keras.layers.Layer):
    """Gives the same ids at every call: every item's, to look a whole table up.

    Better: `EmbeddingTable` on the ids that a step needs, and `CandidateSampler` for those of the negatives.

    Args:
        index: The ids, (V,).

    Input: anything. Output: (V,) int32.

    Example:
        >>> EmbeddingIndex([0, 1, 2])(tf.constant([[7]])).numpy()
        array([0, 1, 2], dtype=int32)
    """

    def __init__(self, index: Iterable[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        ids = as_list("`index`", "be a list of ids", index)
        self.index = [int_at_least("Each of `index`", each, 0) for each in ids]

    def call(self, x: Any) -> tf.Tensor:
        return tf.constant(self.index, tf.int32)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (len(self.index),)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "index": self.index}


@register
class PoolingLayer(keras.layers.Layer):
    """Pools several tensors of one shape into one: the embeddings of an item's several features, say.

    Better: further columns in `YoutubeDNN`'s ``item_feature_columns``. For the positions of a history there is
    `SequenceMaskPooling`.

    Args:
        mode: ``mean``, ``sum`` or ``max``.
        supports_masking: Whether a Keras mask is handed on.

    Input: a list of tensors of one shape, or one tensor. Output: that shape.

    Example:
        >>> PoolingLayer("mean")([tf.constant([[1.0, 2.0]]), tf.constant([[3.0, 0.0]])]).numpy()
        array([[2., 1.]], dtype=float32)
    """

    def __init__(self, mode: str = "mean", supports_masking: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mode = one_of("`mode`", mode, _POOLINGS)
        self.supports_masking = as_flag("`supports_masking`", supports_masking)

    def call(self, inputs: Any, mask: Any = None) -> tf.Tensor:
        tensors = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        return tf.identity(tensors[0]) if len(tensors) == 1 else _POOLINGS[self.mode](tf.stack(tensors, -1), axis=-1)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return (mask[0] if isinstance(mask, list) else mask) if self.supports_masking else None

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode, "supports_masking": self.supports_masking}


_POOLINGS = {"mean": tf.reduce_mean, "sum": tf.reduce_sum, "max": tf.reduce_max}


@register
class RowsOf(keras.layers.Layer):
    """Rows of a table that is a tensor; `deepmatch_ext.utils.get_item_embedding` is made of it.

    Input: ``[table (V, D), ids (B, 1)]``. Output: (B, D).
    """

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != 2:
            raise problem("The input", "be a table and ids", f"{len(input_shape)} tensors")
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        table, ids = inputs
        return tf.gather(table, tf.cast(tf.reshape(ids, [-1]), tf.int64))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        table, ids = input_shape
        return (ids[0], table[1])
