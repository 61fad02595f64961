"""Training on several replicas with `tf.distribute`, so that n of them with batches of B / n do what one does with B.

Every replica holds all variables. What a step learns is computed alike on all of them and written into each one's own
copy: gradients are summed over the replicas first, and positives are gathered. So nothing has to be merged afterwards,
and the copies stay equal. Where there is one replica, none of this adds an operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import problem


def number_of_replicas() -> int:
    """Of the strategy whose scope or step this is; 1 where there is none."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync) if tf.distribute.has_strategy() else 1


def replica_context() -> Any:
    """The context of a step on one of several replicas; None elsewhere, and where there is one replica."""
    return tf.distribute.get_replica_context() if number_of_replicas() > 1 else None


def replica_id() -> int:
    """Which of several replicas this is, from 0; 0 where there is one."""
    context = replica_context()
    return 0 if context is None else int(tf.get_static_value(context.replica_id_in_sync_group))


def own_copy(variable: Any) -> Any:
    """Of a variable with a copy for each replica this replica's, or the first one outside of a step.

    A look-up of some rows of what stands for all copies would read every row.
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
    """The parts, by rows, of a variable that lies on several parameter servers; of any other the variable itself."""
    return variable.variables if hasattr(variable, "variables") else (variable,)


def check_step(what: str, variable: Any) -> None:
    """Refuses to train outside of a strategy's step, where one alone of a variable's copies would be written."""
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
    """The gradients of a table's look-ups, that of different ids first; all as one, where none is known to have these.

    TensorFlow puts them one after the other. To do so and to sum all rows again takes longer than to add the few rows
    of the others to those of a history's different items.
    """
    rows, values = _put_together(gradient.indices), _put_together(gradient.values)
    if len(rows) != len(values) or gradient.values.shape.rank != 2:
        return [gradient]
    parts = [tf.IndexedSlices(*each) for each in zip(values, rows, strict=True)]
    parts.sort(key=lambda part: not _are_different(part.indices))
    return parts if _are_different(parts[0].indices) else [gradient]


def _put_together(values: tf.Tensor) -> list[tf.Tensor]:
    """The tensors that were put one after the other to make this one; itself, where that is not known."""
    is_known = tf.is_symbolic_tensor(values) and values.op.type == "ConcatV2"
    return list(values.op.inputs)[:-1] if is_known else [values]


def _are_different(rows: tf.Tensor) -> bool:
    """Whether a tensor is known to hold each number once, being what ``tf.unique`` found."""
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
    """Refuses a number that differs between workers, which would wait for each other in vain, on all of them."""
    if not has_several_workers(strategy):
        return

    def everyones() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_gather(tf.constant([number], tf.int64), axis=0)

    gather = tf.function(lambda: strategy.run(everyones), autograph=False)
    gathered = strategy.experimental_local_results(gather())[0].numpy()
    if len(set(gathered.tolist())) > 1:
        raise problem(what, "be the same on all workers", f"{gathered.tolist()}", remedy)
