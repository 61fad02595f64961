"""Passes over rows, as tf.data datasets: how each is ordered, and how an iterator is saved in the middle of one.

A pass is an epoch. Each iteration of a dataset, so each epoch of Keras's ``fit``, goes on with the next pass. A single
draw determines the order of a pass: a key, from which TensorFlow computes where each row goes, or a whole order.

tf.data's autotuning is off: its thread sleeps for 10, 20, 40, ... ms and the end of every epoch waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import int_at_least, one_of, positive_int, problem, shown

# At tf.random.experimental.index_shuffle's fixed 4 rounds, neighbours stay neighbours: of 1,000,000 rows, the new
# places of row k and row k + 1 correlate by 0.4. At 16 no test that we made tells it from a permutation by NumPy.
_ROUNDS = 16


def in_passes(
    draws: tf.data.Dataset | None,
    one_pass: Callable[[Any], tf.data.Dataset],
    batches: int | None = None,
    read: Callable[[Any], Any] | None = None,
    is_part: bool = False,
) -> tf.data.Dataset:
    """``one_pass(draw)`` for each draw, one after the other.

    A draw is made when its first batch is read, not when an iterator is made: Keras makes iterators that it never uses.

    Args:
        draws: One element for each pass, which decides its order. None: one pass, for which nothing is drawn.
        one_pass: Returns the batches of a pass, or the rows of each batch.
        batches: The number of batches in all; None if it is unknown.
        read: Makes a batch from its rows. tf.data runs it faster here than within the passes.
        is_part: Whether this is one worker's part, which a strategy must not divide.
    """
    dataset = one_pass(None) if draws is None else draws.flat_map(_unconverted(one_pass))
    if read is not None:
        dataset = mapped(dataset, read)
    if batches is not None:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(batches))
    return without_autotuning(dataset.prefetch(2), is_part)


def keyed_passes(
    one_pass: Callable[[tf.Tensor], tf.data.Dataset],
    seed: int,
    epochs: int,
    first_epoch: int,
    batches: int | None = None,
    read: Callable[[Any], Any] | None = None,
    is_part: bool = False,
) -> tf.data.Dataset:
    """``epochs`` times ``one_pass(key)``, each with the next key, (2,) int64, and each of ``batches`` batches.

    tf.data itself counts the passes, in C++, each time that the random numbers are iterated, and saves the count with
    an iterator that has not reached its end. So anything that reads ahead past an epoch's end comes after all epochs.
    """
    seed = int_at_least("`seed`", seed, 0)
    epochs = positive_int("`epochs`", epochs)
    keys = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(2).batch(2, drop_remainder=True)
    for _ in range(int_at_least("`first_epoch`", first_epoch, 0)):
        iter(keys)  # a pass that was made before
    draws = tf.data.Dataset.range(epochs).flat_map(_unconverted(lambda _: keys))
    return in_passes(draws, one_pass, None if batches is None else batches * epochs, read, is_part)


def mapped(dataset: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    """``dataset.map(function)`` of a function without control flow on tensors."""
    return dataset.map(_unconverted(function))


def _unconverted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that AutoGraph leaves alone, with what it calls: it would add a second to a process's first `fit`."""
    unconverted: Callable[..., Any] = tf.autograph.experimental.do_not_convert(function)
    return unconverted


def without_autotuning(dataset: tf.data.Dataset, is_part: bool = False) -> tf.data.Dataset:
    """The dataset without the thread that the end of every epoch would wait for.

    Several workers divide its batches, not its files: the batches of a step are then those of one process. They
    don't divide a dataset that is one worker's part.
    """
    policies = tf.data.experimental.AutoShardPolicy
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_distribute.auto_shard_policy = policies.OFF if is_part else policies.DATA
    return dataset.with_options(options)


def is_not_divided(dataset: tf.data.Dataset) -> bool:
    """Whether workers don't divide a dataset, since it is one worker's part."""
    policy = dataset.options().experimental_distribute.auto_shard_policy
    return bool(policy == tf.data.experimental.AutoShardPolicy.OFF)


def weighted(batch: Mapping[str, tf.Tensor], weight: str) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
    """A batch as ``fit`` takes it with weights: the other columns, labels of 1, (B, 1), and the column of weights (B,).

    Each row is an event that happened, so its label is 1.
    """
    columns = dict(batch)
    weights = tf.cast(columns.pop(weight), tf.float32)
    return columns, tf.ones_like(weights)[:, tf.newaxis], weights


def check_weight(weight: Any, specs: Mapping[str, tf.TensorSpec]) -> None:
    """Refuses the argument ``weight`` if it is not one of the columns, or a column without a number in each row."""
    if weight is None:
        return
    one_of("`weight`", weight, specs)
    spec = specs[weight]
    if spec.shape.rank or not (spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool):
        raise problem(f"column {weight!r}, the weight,", "be a number in each row", f"{spec.dtype.name}, {spec.shape}")
    if len(specs) == 1:
        raise problem("`columns`", "name a column beside the weight", "none")


def check_shard(shard: Any) -> tuple[int, int]:
    """The argument ``shard``, part k of n; (0, 1) for None."""
    if shard is None:
        return 0, 1
    if not isinstance(shard, list | tuple) or len(shard) != 2:
        raise problem("`shard`", "be a pair (k, n): part k of n, from 0", shown(shard))
    number = positive_int("n of `shard`, the number of parts,", shard[1])
    part = int_at_least("k of `shard`, which part,", shard[0], 0)
    if part >= number:
        raise problem("k of `shard`, which part,", f"be less than n, {number}", part, "Parts count from 0.")
    return part, number


def shuffled(indices: tf.Tensor, key: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Where ``indices`` (int64, from 0 to number - 1) go in the permutation of ``key``, which takes no memory."""
    key = tf.concat([key, tf.zeros([1], key.dtype)], 0)  # the op wants three numbers
    last = tf.cast(number - 1, tf.int64)
    return tf.raw_ops.RandomIndexShuffle(index=indices, seed=key, max_index=last, rounds=_ROUNDS)


def permutation(draw: np.random.Generator, rows: int, batch_size: int | None = None) -> np.ndarray:
    """A whole order of ``rows`` rows, (rows,) int64; with a batch size, of whole batches, then the rows left over.

    For rows that are in memory: the draw may come from anywhere, so a run may begin with any pass.
    """
    if batch_size is None:
        return draw.permutation(rows)
    number = rows // batch_size
    starts = draw.permutation(number)[:, np.newaxis] * batch_size
    return np.append(starts + np.arange(batch_size), np.arange(number * batch_size, rows))


def check_batch_size(value: Any, rows: int, drop_remainder: bool, parts: int = 1) -> int:
    """The batch size, at most all rows where the remainder is dropped, for each of ``parts`` parts."""
    size = positive_int("`batch_size`", value)
    if drop_remainder and size * parts > rows:
        most = f"the number of rows, {rows}" if parts == 1 else f"{rows // parts}, a part of {rows} rows"
        raise problem("`batch_size`", f"be at most {most}, where the remainder is dropped", size)
    return size
