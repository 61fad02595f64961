"""From ids to rows: hashing as in DeepCTR, and embedding tables from which a step reads only the rows it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import (
    as_flag,
    int_at_least,
    number_between,
    one_of,
    positive_int,
    positive_number,
    problem,
    shown,
)
from deepmatch_ext._initializers import table_initializer
from deepmatch_ext._keras import (
    WholeWeights,
    add_table,
    compute_dtype,
    eager_is_on,
    keras,
    raw_variable,
    register,
    variables_behind,
)
from deepmatch_ext._traced import assertion
from deepmatch_ext.layers.pooling import item_mask

_BLOCK_ROWS = 2**16
TABLE_DTYPES = ("float32", "bfloat16")


@register
class EmbeddingTable(WholeWeights, keras.layers.Layer):
    """An embedding table that is looked up by row, so that a step's cost depends on its ids, not on the table's size.

    Gradients stay ``tf.IndexedSlices``. Share one instance between a history and an item to share the table.

    Args:
        vocabulary_size: V, the number of rows; row 0 is padding.
        embedding_dim: D.
        embeddings_initializer: A Keras initializer, its name, a function of a shape, or an array (V, D). None: normal
            with standard deviation ``stddev``, drawn from ``seed`` block by block, so that a large table never takes
            twice its memory, as it would with Keras's initializers. An array, or a Constant of one, is not part of
            the layer's config: a table that is rebuilt from the config needs its saved weights.
        seed, stddev: Seed and standard deviation of that default.
        check_ids: Whether ids are checked. Without the check, an id out of range silently reads zeros on a GPU, and on
            a CPU the error does not name the table.
        l2_reg: Adds ``l2_reg * sum(row ** 2)`` over the distinct rows of each look-up to the loss. (Over the whole
            table, as in Keras's regularisers, every step would read and update every row.)
        table_dtype: ``float32``, or ``bfloat16`` for half the memory. Rows become float32 when they are looked up. When
            they are written, the optimizers of `deepmatch_ext.optimizers` round them up or down at random, so that many
            small updates are right on average.

    Input: integer ids of any shape. Output: that shape + (D,), in the layer's compute dtype.

    Raises:
        ValueError: The initializer's values have the wrong shape, or are not finite.
        tf.errors.InvalidArgumentError: An id is outside 0..V-1. Or the layer was rebuilt from its config, but its
            weights, which hold the table's values, were not loaded.

    Example:
        >>> EmbeddingTable(10, 4)(tf.constant([[1, 2, 0]])).shape
        TensorShape([1, 3, 4])
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_dim: int,
        embeddings_initializer: Any = None,
        l2_reg: float = 0.0,
        seed: int = 1024,
        check_ids: bool = True,
        stddev: float = 0.05,
        table_dtype: str = "float32",
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("autocast", False)  # float16 would round ids that come as floats
        super().__init__(**kwargs)
        self.table_dtype = one_of("`table_dtype`", table_dtype, TABLE_DTYPES)
        self.check_ids = as_flag("`check_ids`", check_ids)
        self.vocabulary_size = positive_int("`vocabulary_size`", vocabulary_size)
        self.embedding_dim = positive_int("`embedding_dim`", embedding_dim)
        self.embeddings_initializer = table_initializer(
            f"`embeddings_initializer` of {self.name!r}",
            embeddings_initializer,
            (self.vocabulary_size, self.embedding_dim),
        )
        self.l2_reg = number_between("`l2_reg`", l2_reg, 0, float("inf"))
        self.seed = int_at_least("`seed`", seed, 0)
        self.stddev = positive_number("`stddev`", stddev)

    def build(self, input_shape: Any = None) -> None:
        self.embeddings = add_table(
            self,
            "embeddings",
            (self.vocabulary_size, self.embedding_dim),
            self.table_dtype,
            self.embeddings_initializer or ("zeros" if eager_is_on() else self._normal),
            self.trainable,
        )
        if self.embeddings_initializer is None and eager_is_on():
            with tf.init_scope():
                self._fill_normal(variables_behind(self.embeddings))
        self.built = True

    def _normal_blocks(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Row numbers and values, block by block."""
        for start in range(0, self.vocabulary_size, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, self.vocabulary_size)
            shape = [stop - start, self.embedding_dim]
            yield tf.range(start, stop), tf.random.stateless_normal(shape, [self.seed, start], stddev=self.stddev)

    def _fill_normal(self, copies: Sequence[tf.Variable]) -> None:
        for rows, values in self._normal_blocks():
            for table in copies:
                table.scatter_update(tf.IndexedSlices(tf.cast(values, table.dtype), rows))

    def _normal(self, shape: Any, dtype: Any = None, **_: Any) -> tf.Tensor:
        """The same values in one piece, as an initializer: without eager mode, only a session can write to a table."""
        return tf.cast(tf.concat([values for _, values in self._normal_blocks()], axis=0), self.table_dtype)

    def call(self, ids: tf.Tensor) -> tf.Tensor:
        if ids.dtype not in (tf.int32, tf.int64):  # DeepCTR's columns may have any dtype
            ids = tf.cast(ids, tf.int64)
        table = raw_variable(self.embeddings)
        with tf.control_dependencies([check for check in self._checks(ids) if check is not None]):
            rows = tf.nn.embedding_lookup(table, ids)
        if self.l2_reg:
            different, _ = tf.unique(tf.reshape(ids, [-1]))
            rows_of_ids = tf.cast(tf.nn.embedding_lookup(table, different), tf.float32)
            self.add_loss(self.l2_reg * tf.reduce_sum(tf.square(rows_of_ids)))
        return tf.cast(rows, compute_dtype(self))

    def _checks(self, ids: tf.Tensor) -> list[Any]:
        checks = []
        if self.check_ids:
            smallest, largest = tf.reduce_min(ids), tf.reduce_max(ids)
            rule = f"{self.name}: ids must lie in 0..{self.vocabulary_size - 1}; got ids from, to"
            in_range = (smallest >= 0) & (largest < self.vocabulary_size)
            checks.append(assertion(in_range, rule, smallest, largest))
        if self.embeddings_initializer is not None and self.embeddings_initializer.awaits_values:
            padding = tf.nn.embedding_lookup(raw_variable(self.embeddings), tf.zeros([1], tf.int64))
            message = f"{self.name}: the values of the table must be loaded first; they come with the saved weights"
            checks.append(assertion(tf.reduce_all(tf.math.is_finite(padding)), message))
        return checks

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*input_shape, self.embedding_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "embedding_dim": self.embedding_dim,
            "embeddings_initializer": None
            if self.embeddings_initializer is None
            else self.embeddings_initializer.plain(),
            "l2_reg": self.l2_reg,
            "seed": self.seed,
            "check_ids": self.check_ids,
            "stddev": self.stddev,
            "table_dtype": self.table_dtype,
        }


@register
class HashIds(keras.layers.Layer):
    """Hashes integers, floats or strings to ids, into the same buckets as DeepCTR's ``Hash``.

    Values are hashed as text, so the integer 3 ("3") and the float 3.0 ("3.000000") fall into different buckets.

    Args:
        num_buckets: V.
        mask_zero: Reserve bucket 0 for padding (the value 0, or the strings "0" and ""); all else falls into 1..V-1.
        vocabulary_path: A text file of ``id,key`` lines. Keys are looked up there, and unknown ones become 0.

    Attributes:
        vocabulary: The file's keys as a lookup table, or None.

    Input: numbers or strings of any shape. Output: int64 ids of that shape.

    Raises:
        ValueError: The file does not exist or does not have such lines.

    Example:
        >>> HashIds(100, mask_zero=True)(tf.constant([["0", "Lund"]])).numpy()
        array([[ 0, 56]])
    """

    def __init__(
        self, num_buckets: int, mask_zero: bool = False, vocabulary_path: str | None = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("dtype", "int64")  # no precision policy may change ids
        kwargs.setdefault("autocast", False)  # Keras 3 would turn floats into integers
        super().__init__(**kwargs)
        self.num_buckets = positive_int("`num_buckets`", num_buckets)
        self.mask_zero = as_flag("`mask_zero`", mask_zero)
        self.vocabulary_path = vocabulary_path
        self.supports_jit = False  # strings have no XLA kernels
        self.vocabulary: Any = None
        if vocabulary_path is not None:
            if not isinstance(vocabulary_path, str | os.PathLike) or not os.path.isfile(vocabulary_path):
                raise problem("`vocabulary_path`", "be a file of `id,key` lines", shown(vocabulary_path))
            lines = tf.lookup.TextFileInitializer(vocabulary_path, tf.string, 1, tf.int64, 0, delimiter=",")
            self.vocabulary = tf.lookup.StaticHashTable(lines, default_value=0)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        keys = inputs if inputs.dtype == tf.string else tf.strings.as_string(inputs)
        if self.vocabulary_path is not None:
            return self.vocabulary.lookup(keys)
        if not self.mask_zero:
            return tf.strings.to_hash_bucket_fast(keys, self.num_buckets)
        buckets = tf.strings.to_hash_bucket_fast(keys, self.num_buckets - 1) + 1
        return tf.where(item_mask(inputs), buckets, tf.zeros_like(buckets))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_buckets": self.num_buckets,
            "mask_zero": self.mask_zero,
            "vocabulary_path": self.vocabulary_path,
        }
