"""DeepMatch's layers, for code that builds its own models with them.

They work on whole item tables, which suits small catalogues: the cost of a step grows with the table. The layers that
`YoutubeDNN` is made of read only the rows that a step needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import as_flag, as_list, int_at_least, one_of, problem, shown
from deepmatch_ext._keras import keras, register
from deepmatch_ext.layers.softmax import CandidateLoss, CandidateSampler
from deepmatch_ext.losses import Candidates
from deepmatch_ext.samplers import make_sampler

__all__ = ["EmbeddingIndex", "InBatchSoftmaxLayer", "PoolingLayer", "RowsOf"]


@register
class EmbeddingIndex(keras.layers.Layer):
    """Returns the same ids at every call: those of all items, to look up a whole table.

    Better: `EmbeddingTable` on the ids that a step needs, and `CandidateSampler` for the ids of the negatives.

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
    """Pools several tensors of the same shape into one, such as the embeddings of an item's features.

    Better: further columns in `YoutubeDNN`'s ``item_feature_columns``. For the positions of a history, use
    `SequenceMaskPooling`.

    Args:
        mode: ``mean``, ``sum`` or ``max``.
        supports_masking: Whether a Keras mask is passed on.

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
class InBatchSoftmaxLayer(CandidateLoss):
    """The softmax loss of each example, with the positives of the other examples in the batch as negatives.

    Each logit is corrected by the item's count. An item that several examples have is not a negative of any of them,
    whereas in DeepMatch it is. Better: a builder's ``sampler_config``, which takes `InBatchSampler` and others.

    Args:
        sampler_config: DeepMatch's ``NegativeSampler`` or its ``_asdict()``, with ``item_count``, (V,): how often each
            id occurs in the training data. Its ``sampler`` is not read.
        temperature: Divides the inner products.

    Input: ``[user_emb (B, D), item_emb (B, D), item_id (B, 1)]``. Output: (B, 1) float32.

    Example:
        >>> counts = {"sampler": "inbatch", "num_sampled": 2, "item_name": "item", "item_count": [0, 5, 5]}
        >>> users, items = tf.constant([[1.0, 0.0], [0.0, 1.0]]), tf.constant([[1.0, 0.0], [0.0, 1.0]])
        >>> loss = InBatchSoftmaxLayer(counts)([users, items, tf.constant([[1], [2]])])
        >>> loss.numpy().round(3).ravel()  # log(1 + e^(0 - 1))
        array([0.313, 0.313], dtype=float32)
    """

    def __init__(
        self, sampler_config: Any, temperature: float = 1.0, vocabulary_size: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(temperature, **kwargs)
        given = sampler_config._asdict() if hasattr(sampler_config, "_asdict") else sampler_config
        counts = given.get("item_count") if isinstance(given, Mapping) else None
        if counts is None:
            rule = "be DeepMatch's NegativeSampler with an `item_count`, or its `_asdict()`"
            remedy = "`CandidateSampler` and `CandidateLoss` can learn the counts."
            raise problem("`sampler_config`", rule, shown(sampler_config), remedy)
        self.sampler = make_sampler({"sampler": "inbatch", "item_count": counts})
        size = len(counts) if vocabulary_size is None else vocabulary_size  # a saved layer's counts are weights
        self.vocabulary_size: int = int_at_least("`vocabulary_size`", size, 2)

    def build(self, input_shape: Any) -> None:
        if len(input_shape) != 3:
            rule = "be the users' vectors, the items' and the items' ids"
            raise problem("The input of InBatchSoftmaxLayer", rule, f"{len(input_shape)} tensors")
        self._candidates = CandidateSampler(self.sampler, self.vocabulary_size, name="candidates")
        self._candidates.build(input_shape[2])
        self.built = True

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        user_emb, item_emb, item_id = inputs
        return self._loss_of(user_emb, item_emb, Candidates(*self._candidates(item_id, training=training)))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in ("loss", "gbce_t", "num_hard"):
            del config[name]
        return {**config, "sampler_config": self.sampler.get_config()}


@register
class RowsOf(keras.layers.Layer):
    """Looks up rows of a table that is a tensor; `deepmatch_ext.utils.get_item_embedding` uses it.

    Input: ``[table (V, D), ids (B, 1)]``. Output: (B, D).

    Raises:
        ValueError: The input is not two tensors.

    Example:
        >>> table = tf.constant([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
        >>> RowsOf()([table, tf.constant([[2], [1]])]).numpy()
        array([[3., 4.],
               [1., 2.]], dtype=float32)
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
