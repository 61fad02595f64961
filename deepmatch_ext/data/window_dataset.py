"""A tf.data dataset of windows, cut while the model trains.

It shuffles without Python state: each pass draws a key from ``seed``, and all of its order follows from the key. The
same holds for `parquet_dataset` and `tfrecord_dataset`. ``tf.random.set_seed``, if it is used, changes the order, too,
as everywhere in tf.data.

So an iterator can be saved at any moment with ``tf.train.Checkpoint(iterator=iterator)``: restored into an iterator of
the same dataset, even in another process, it gives exactly the batches that were still to come. Use ``epochs=`` for an
iterator over several epochs; tf.data's own ``repeat`` loses count when it is saved near an epoch's end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import as_flag, instance_of, problem
from deepmatch_ext._passes import check_batch_size, check_shard, keyed_passes, shuffled, weighted
from deepmatch_ext.data.interactions import Interactions
from deepmatch_ext.data.kinds import check_targets
from deepmatch_ext.data.windows import WEIGHT, Cutter, Operations

_BLOCK = 16  # batches among which rows of similar length are grouped


def window_dataset(
    interactions: Interactions,
    rows: Any,
    max_len: int | Mapping[Any, int],
    batch_size: int,
    *,
    order: str = "recent_first",
    side: Sequence[str] = (),
    context: Sequence[str] = (),
    times: bool = False,
    weight: str | None = None,
    shuffle: bool = True,
    by_length: bool = False,
    seed: int = 0,
    epochs: int = 1,
    first_epoch: int = 0,
    drop_remainder: bool = False,
    shard: tuple[int, int] | None = None,
) -> tf.data.Dataset:
    """Batches of :func:`windows`, cut while the model trains. Only the interactions are held in memory, whatever T is.

    Each pass gives every row once. All rows are shuffled (not only within a buffer), differently in each pass and
    without extra memory. For events in a DataFrame, use :meth:`Interactions.from_frame` first.

    Args:
        interactions: The events.
        rows: Target rows, such as a split's ``train_targets()``.
        max_len: The history length T, or that of each kind of events, as for :func:`windows`.
        batch_size: Rows in a batch, B; the last batch may be smaller.
        order: "recent_first" or "oldest_first".
        side: Side columns of ``interactions`` whose history is wanted too.
        context: Side columns whose value for the target event is wanted, as for :func:`windows`.
        times: Whether the times of the events and of the target are wanted, as for :func:`windows`.
        weight: The side column of weights, as for :func:`windows`.
        shuffle: False gives the rows in their own order.
        by_length: Whether the rows of a batch have histories of similar length: each run of 16 batches is sorted by
            length and cut into batches, and these are shuffled. Use it for models whose step time depends on the
            batch's longest history, that is, models that are trained at every position.
        seed: Decides the order of the first pass, of the second, and so on.
        epochs: Passes in one iteration. Leave it at 1 for Keras's ``fit``, where every epoch is one iteration.
        first_epoch: Passes that an earlier process has made. If it equals Keras's ``initial_epoch``, a resumed run sees
            the same orders as an uninterrupted one.
        drop_remainder: Whether a smaller last batch is left out. The rows left out differ from pass to pass.
        shard: (k, n): batches of part k of n, from 0, for training on n workers. At each step, the batches of all parts
            together hold the rows of one batch of n B without ``shard``. Each worker cuts only its own rows.

    Returns:
        A dataset of dictionaries, equal in names, values and types to ``windows(interactions, rows of the batch,
        max_len)``: columns (B,) and histories (B, T), for ``model.fit(dataset, epochs=3)`` or a custom loop. With a
        weight, tuples as ``fit`` takes them: such a dictionary, labels, which are all 1 (B, 1), and weights (B,).

    Raises:
        ValueError: What :func:`windows` refuses, no rows, weights that are 0 in all rows, a size below 1, a batch
            larger than the number of rows if the remainder is dropped, k not less than n in `shard`, or a last batch
            with fewer rows than parts.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 5], [7, 8, 9, 8, 7])
        >>> for batch in window_dataset(interactions, [1, 2, 4], max_len=2, batch_size=2, shuffle=False):
        ...     print(batch["item_id"].numpy().tolist(), batch["hist_item_id"].numpy().tolist())
        [8, 9] [[7, 0], [8, 7]]
        [7] [[8, 0]]
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    shuffle, drop_remainder = as_flag("`shuffle`", shuffle), as_flag("`drop_remainder`", drop_remainder)
    by_length = as_flag("`by_length`", by_length)
    if by_length and not shuffle:
        raise problem("`by_length`", "be False where nothing is shuffled", "True")
    targets = check_targets("`rows`", rows, interactions.kinds, len(interactions))
    if not len(targets):
        raise problem("`rows`", "hold at least one row", "none")
    part, parts = check_shard(shard)
    batch_size = check_batch_size(batch_size, len(targets), drop_remainder, parts)
    whole = batch_size * parts  # the batch of all parts
    if not drop_remainder and 0 < len(targets) % whole < parts:
        rule, remedy = f"leave a row for each of {parts} parts in the last batch", "Or set drop_remainder=True."
        raise problem("`rows`", rule, f"{len(targets) % whole}", remedy)
    cutter = Cutter(interactions, max_len, order, side, _TENSORFLOW, context, weight, times)
    if weight is not None and not interactions.side[weight][targets].any():
        raise problem(f"weight column {weight!r}", "be above 0 in at least one of the rows", "0 in all of them")
    number = len(targets)
    row_tensor = tf.convert_to_tensor(targets.astype(cutter.row_type))
    longest = max(max_len.values()) if isinstance(max_len, Mapping) else max_len
    lengths = tf.convert_to_tensor(
        np.minimum(interactions.history_lengths[targets], longest).astype("int32") if by_length else [0]
    )

    stop = number - number % whole if drop_remainder else number
    starts = tf.data.Dataset.range(0, stop, whole)

    def one_pass(key: tf.Tensor) -> tf.data.Dataset:
        def rows_of(start: tf.Tensor) -> tf.Tensor:
            if by_length:
                indices = _alike(start, key, lengths, number, stop, whole)
            else:
                indices = tf.range(start, tf.minimum(start + whole, number))
            if parts > 1:
                size = tf.size(indices, tf.int64)
                indices = indices[size * part // parts : size * (part + 1) // parts]
            if shuffle and not by_length:
                indices = shuffled(indices, key, number)
            if drop_remainder:
                indices = tf.ensure_shape(indices, [batch_size])
            return tf.gather(row_tensor, indices)

        return starts.map(rows_of)

    def read(rows: tf.Tensor) -> Any:
        return cutter.windows(rows) if weight is None else weighted(cutter.windows(rows), WEIGHT)

    return keyed_passes(one_pass, seed, epochs, first_epoch, -(-stop // whole), read, parts > 1)


def _alike(start: tf.Tensor, key: tf.Tensor, lengths: tf.Tensor, number: int, stop: int, size: int) -> tf.Tensor:
    """The batch that begins at ``start``, of rows of like length: the rows of `_BLOCK` batches are sorted by length."""
    first = start // (_BLOCK * size) * (_BLOCK * size)
    last = tf.minimum(first + _BLOCK * size, stop)
    indices = shuffled(tf.range(first, last), key, number)
    indices = tf.gather(indices, tf.argsort(tf.gather(lengths, indices), stable=True))
    whole = (last - first) // size  # a smaller batch stays the last
    place = (start - first) // size
    drawn = shuffled(tf.clip_by_value(place, 0, tf.maximum(whole - 1, 0)), key + first, tf.maximum(whole, 1))
    place = tf.where(place < whole, drawn, place)
    return indices[place * size : (place + 1) * size]


def _slices(columns: list[tf.Tensor], starts: tf.Tensor, lengths: tf.Tensor, width: int) -> list[tf.Tensor]:
    steps = tf.range(width, dtype=starts.dtype)[tf.newaxis]
    padding = tf.cast(columns[0].shape[0] - 1, starts.dtype)  # a place where every column is 0
    places = tf.where(steps < lengths[:, tf.newaxis], starts[:, tf.newaxis] + steps, padding)
    return [tf.gather(column, places) for column in columns]


_TENSORFLOW = Operations(
    row_type=lambda limit: np.int32 if limit < 2**31 else np.int64,
    array=tf.convert_to_tensor,
    take=tf.gather,
    minimum=tf.minimum,
    int32=lambda values: tf.cast(values, tf.int32),
    slices=_slices,
)
