"""Training on several replicas with `tf.distribute`, so that n of them with batches of B / n do what one does with B.

Every replica holds all variables. What a step learns is computed identically on all replicas, and each writes it into
its own copy: gradients are summed over the replicas first, and positives are gathered. Nothing has to be merged
afterwards, and the copies stay equal. If there is only one replica, none of this adds an operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import problem


def number_of_replicas() -> int:
    """The number of replicas of the strategy whose scope or step this is; 1 if there is none."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync) if tf.distribute.has_strategy() else 1


def replica_context() -> Any:
    """The context of a step on one of several replicas; None elsewhere, and if there is only one replica."""
    return tf.distribute.get_replica_context() if number_of_replicas() > 1 else None


def replica_id() -> int:
    """Which of several replicas this is, from 0; 0 if there is only one."""
    context = replica_context()
    return 0 if context is None else int(tf.get_static_value(context.replica_id_in_sync_group))


def own_copy(variable: Any) -> Any:
    """This replica's copy of a variable that has one for each replica; outside a step, the first copy.

    Looking up some rows of the variable that stands for all copies would read every row.
    """
    if not isinstance(variable, tf.distribute.DistributedValues):
        return variable
    copies = copies_of(variable)
    return copies[replica_id() % len(copies)]


def copies_of(variable: Any) -> Sequence[Any]:
    """The copies of a variable in this process, one for each replica; the variable itself if it has no others."""
    return variable.values if isinstance(variable, tf.distribute.DistributedValues) else (variable,)


def has_parameter_servers(strategy: Any = None) -> bool:
    """Whether variables lie on servers of their own, which workers read and write without waiting for each other."""
    strategy = tf.distribute.get_strategy() if strategy is None else strategy
    return isinstance(strategy, tf.distribute.experimental.ParameterServerStrategy)


def shards_of(variable: Any) -> Sequence[Any]:
    """The parts, by rows, of a variable that lies on several parameter servers; any other variable itself."""
    return variable.variables if hasattr(variable, "variables") else (variable,)


def check_step(what: str, variable: Any) -> None:
    """Refuses to train outside a strategy's step, where only one of a variable's copies would be written."""
    is_copied = isinstance(variable, tf.distribute.DistributedValues)
    if is_copied and variable.distribute_strategy.num_replicas_in_sync > 1 and replica_context() is None:
        remedy = "Or train with `fit`."
        raise problem(what, "run in `strategy.run`, on each replica", "a call outside of it", remedy)


def of_all_replicas(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Vectors (n,), int64, of all replicas one after the other, and those of the others; None if there are none."""
    context = replica_context()
    if context is None:
        return values, None
    own = tf.constant(replica_id(), values.dtype)
    gathered = context.all_gather(tf.stack([values, tf.fill(tf.shape(values), own)], axis=1), axis=0)
    return gathered[:, 0], tf.boolean_mask(gathered[:, 0], tf.not_equal(gathered[:, 1], own))


def summed_by_row(gradient: Any) -> Any:
    """A sparse gradient with each row once; a dense one as it is."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    parts = _lookups(gradient)
    values = [_at_least_float32(part.values) for part in parts]
    rows, place = tf.unique(tf.concat([part.indices for part in parts], axis=0))
    if not _are_different(parts[0].indices):
        summed = tf.math.unsorted_segment_sum(values[0], place, tf.size(rows))
        return tf.IndexedSlices(summed, rows, gradient.dense_shape)
    end = tf.shape(values[0])[0]  # the first part's rows come first among all, in their order
    summed = tf.pad(values[0], [[0, tf.size(rows) - end], [0, 0]])
    for further in values[1:]:
        start, end = end, end + tf.shape(further)[0]
        summed = tf.tensor_scatter_nd_add(summed, place[start:end, tf.newaxis], further)
    return tf.IndexedSlices(summed, rows, gradient.dense_shape)


def _lookups(gradient: tf.IndexedSlices) -> list[tf.IndexedSlices]:
    """The gradients of a table's look-ups, that of unique ids first; all as one, if none is known to have unique ids.

    TensorFlow concatenates them. Concatenating and then summing all rows takes longer than adding the few rows of the
    other look-ups to those of a history's unique items.
    """
    rows, values = _put_together(gradient.indices), _put_together(gradient.values)
    if len(rows) != len(values) or gradient.values.shape.rank != 2:
        return [gradient]
    parts = [tf.IndexedSlices(*each) for each in zip(values, rows, strict=True)]
    parts.sort(key=lambda part: not _are_different(part.indices))
    return parts if _are_different(parts[0].indices) else [gradient]


def _put_together(values: tf.Tensor) -> list[tf.Tensor]:
    """The tensors that were concatenated to make this one; the tensor itself, if that is not known."""
    is_known = tf.is_symbolic_tensor(values) and values.op.type == "ConcatV2"
    return list(values.op.inputs)[:-1] if is_known else [values]


def _are_different(rows: tf.Tensor) -> bool:
    """Whether a tensor is known to hold each number once, because ``tf.unique`` returned it."""
    while tf.is_symbolic_tensor(rows) and rows.op.type in ("Reshape", "Identity", "Cast") and rows.dtype.is_integer:
        rows = rows.op.inputs[0]
    return tf.is_symbolic_tensor(rows) and rows.op.type == "Unique" and rows.value_index == 0


def _at_least_float32(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(values, tf.float32) if values.dtype == tf.bfloat16 else values


def summed_gradients(gradients: Sequence[Any]) -> list[Any]:
    """Each gradient summed over the replicas; a sparse one stays sparse, with each row once.

    Repeated rows are summed before the exchange, too, so that fewer bytes are sent.
    """
    summed = [summed_by_row(gradient) for gradient in gradients]
    context = replica_context()
    if context is None or not summed:
        return summed
    return [summed_by_row(gradient) for gradient in context.all_reduce(tf.distribute.ReduceOp.SUM, summed)]


def writes_files(strategy: Any) -> bool:
    """Whether this process is the one of several workers, the chief, that writes files; True where it is alone."""
    return bool(strategy.extended.should_checkpoint)


def has_several_workers(strategy: Any) -> bool:
    """Whether replicas of the strategy are in other processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and (
        strategy.num_replicas_in_sync > len(strategy.extended.worker_devices)
    )


def check_workers_agree(strategy: Any, what: str, number: int, remedy: str = "") -> None:
    """Refuses, on all workers, a number that differs between them: they would wait for each other in vain."""
    if not has_several_workers(strategy):
        return

    def everyones() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_gather(tf.constant([number], tf.int64), axis=0)

    gather = tf.function(lambda: strategy.run(everyones), autograph=False)
    gathered = strategy.experimental_local_results(gather())[0].numpy()
    if len(set(gathered.tolist())) > 1:
        raise problem(what, "be the same on all workers", f"{gathered.tolist()}", remedy)
