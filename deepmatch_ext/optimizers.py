"""Optimizers that update only the rows of embedding tables that a batch looked up.

Keras's own optimizers decay the moments of every row at every step, so a step reads and writes the whole table and its
moments. The optimizers here leave all other rows and their state unchanged, so the cost of a step depends only on the
batch. Variables with ordinary gradients (dense layers) are updated by Keras's own optimizer.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import as_flag, finite_number, number_between, positive_number, problem, shown
from deepmatch_ext._distribute import summed_gradients
from deepmatch_ext._keras import (
    KERAS_3,
    SummedBefore,
    add_float32_state,
    add_row_state,
    apply_dense,
    check_on_replica,
    current_learning_rate,
    is_table,
    keras,
    raw_variable,
    register,
    require_eager,
    slot_index,
    uses_weight_decay,
)

_REFUSED = {
    "use_ema": "a moving average of the weights changes every row at every step",
    "gradient_accumulation_steps": "an accumulator of the gradient is as large as the table; take a larger batch",
    "loss_scale_factor": "gradients of float32 tables need none; under mixed_float16 Keras wraps the optimizer itself",
    "jit_compile": "look-ups of rows are slow under XLA",
}

# The checks of an optimizer's settings; None and settings that it does not have are left alone.
_SETTINGS: dict[str, Callable[[str, Any], Any]] = {
    "beta_1": functools.partial(number_between, low=0, high=1),
    "beta_2": functools.partial(number_between, low=0, high=1),
    "epsilon": positive_number,
    "weight_decay": functools.partial(number_between, low=0, high=math.inf),
    "initial_accumulator_value": functools.partial(number_between, low=0, high=math.inf),
    "amsgrad": as_flag,
}


class _LazyRows(SummedBefore):
    """The base class of the lazy optimizers. A subclass also derives from a Keras optimizer, and updates the rows."""

    _dense_optimizer: Any

    _clipping: tuple[str, float] | None

    def __init__(self, learning_rate: Any, **kwargs: Any) -> None:
        clipping = _take_clipping(type(self).__name__, kwargs)
        super().__init__(_checked_rate(learning_rate), **kwargs)  # type: ignore[call-arg]
        self._clipping = clipping
        for name, check in _SETTINGS.items():
            if getattr(self, name, None) is not None:
                check(f"`{name}`", getattr(self, name))

    def apply(self, grads: Iterable[Any], trainable_variables: Iterable[Any] | None = None) -> None:
        """Keras 3's entry: one step for gradients, dense or ``tf.IndexedSlices``, of the variables."""
        if trainable_variables is None:
            trainable_variables = self._trainable_variables  # type: ignore[attr-defined]
        self._step(list(zip(grads, trainable_variables, strict=True)))

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]], *args: Any, **kwargs: Any) -> Any:
        """One step for (gradient, variable) pairs; the gradients are dense or ``tf.IndexedSlices``."""
        self._step(list(grads_and_vars))
        return self.iterations  # type: ignore[attr-defined]

    def _step(self, grads_and_vars: list[tuple[Any, Any]]) -> None:
        for _, variable in grads_and_vars[:1]:
            check_on_replica(f"A step of {type(self).__name__}", variable)
        with tf.init_scope():
            self.build([variable for _, variable in grads_and_vars])  # type: ignore[attr-defined]  # at most once
        pairs = [(gradient, variable) for gradient, variable in grads_and_vars if gradient is not None]
        gradients = _clipped(summed_gradients([gradient for gradient, _ in pairs]), self._clipping)
        dense: list[tuple[Any, Any]] = []
        rate = current_learning_rate(self)
        for gradient, (_, variable) in zip(gradients, pairs, strict=True):
            if isinstance(gradient, tf.IndexedSlices):
                self._update_rows(variable, gradient.indices, gradient.values, rate)
            else:
                dense.append((gradient, variable))
        apply_dense(self._dense_optimizer, self, dense)

    def _update_rows(self, variable: Any, rows: tf.Tensor, gradient: tf.Tensor, rate: tf.Tensor) -> None:
        """Updates ``rows`` (n,), all different, of a variable and of its state by their ``gradient`` (n, D)."""
        table = raw_variable(variable)
        before = tf.cast(tf.nn.embedding_lookup(table, rows), gradient.dtype)
        index = slot_index(self, variable)
        step = self._row_step(index, gradient, rows, rate)
        if uses_weight_decay(self, variable):
            step += before * (rate * self.weight_decay)  # type: ignore[attr-defined]
        # Writing rows is several times as fast as subtracting from them in place, which runs on one thread.
        after = before - step
        if table.dtype == tf.bfloat16:
            seed = tf.stack([tf.cast(self.iterations, tf.int64), index])  # type: ignore[attr-defined]
            after = rounded_at_random(after, seed)
        table.scatter_update(tf.IndexedSlices(after, rows))

    def add_variable_from_reference(self, *args: Any, **kwargs: Any) -> Any:
        """State like a variable's, in float32 even for a table of bfloat16; argument names depend on Keras."""
        variable, name = [*args, *kwargs.values()][:2]
        if is_table(variable) and raw_variable(variable).dtype == tf.bfloat16:
            return add_float32_state(self, variable, name)
        return super().add_variable_from_reference(*args, **kwargs)  # type: ignore[misc]

    def _row_step(self, index: int, gradient: tf.Tensor, rows: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """What is subtracted from the rows, (n, D); updates their state, the optimizer's ``index``-th."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()  # type: ignore[misc]
        for name in ("jit_compile", "use_ema", "gradient_accumulation_steps", "loss_scale_factor"):
            config.pop(name, None)
        return {**config, **dict([self._clipping] if self._clipping else [])}


@register
class LazyAdam(_LazyRows, keras.optimizers.Adam):
    """Adam that updates only the rows that a batch touched, with their moments; everything else is as in Keras's Adam.

    A row's moments decay when the row is touched, not at every step; the bias correction counts all steps.
    (TensorFlow's and PyTorch's sparse Adam do the same.)

    Args:
        learning_rate: A float, or a Keras learning-rate schedule.
        beta_1, beta_2, epsilon, amsgrad: As in ``tf.keras.optimizers.Adam``.
        weight_decay: Decoupled, on dense variables and on the rows that a batch touched.
        clipnorm, global_clipnorm, clipvalue: As in Keras; at most one of them. If a batch has a row several times, its
            gradients are summed first.
        name: The optimizer's name.

    Raises:
        ValueError: A setting is out of range: a beta not in 0..1 or 1 itself, an ``epsilon`` of 0, anything negative.
            Or ``use_ema``, ``gradient_accumulation_steps``, ``loss_scale_factor`` or ``jit_compile`` is given: they
            would touch every row at every step, or are useless here; the message says why.

    Example:
        >>> optimizer = LazyAdam(1e-3, clipnorm=1.0)
        >>> table = tf.Variable([[1.0], [1.0], [1.0]])
        >>> gradient = tf.IndexedSlices(tf.constant([[5.0], [5.0]]), tf.constant([2, 2]))
        >>> _ = optimizer.apply_gradients([(gradient, table)])
        >>> [round(float(value), 4) for value in table[:, 0]]
        [1.0, 1.0, 0.999]
    """

    _dense_optimizer = keras.optimizers.Adam

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        name: str = "lazy_adam",
        **kwargs: Any,
    ) -> None:
        # By name: tf-keras has another one between them.
        kwargs |= {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "amsgrad": amsgrad}
        super().__init__(learning_rate, name=name, **kwargs)

    def _row_step(self, index: int, gradient: tf.Tensor, rows: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        count = tf.cast(self.iterations + 1, tf.float32)
        correction = tf.sqrt(1 - tf.pow(self.beta_2, count)) / (1 - tf.pow(self.beta_1, count))
        mean = _moved(self._momentums[index], rows, gradient, self.beta_1)
        square = _moved(self._velocities[index], rows, tf.square(gradient), self.beta_2)
        if self.amsgrad:
            largest = raw_variable(self._velocity_hats[index])
            square = tf.maximum(square, tf.nn.embedding_lookup(largest, rows))
            largest.scatter_update(tf.IndexedSlices(square, rows))
        return mean * (rate * correction) / (tf.sqrt(square) + self.epsilon)


@register
class RowwiseAdam(_LazyRows, keras.optimizers.Adam):
    """Adam with one second moment for each row of an embedding table, which decays at every step, and no first moment.

    With g a row's gradient, n the steps since the row was last touched, and t all steps::

        v = beta_2 ** n v + (1 - beta_2) mean(g ** 2)
        row -= learning_rate sqrt(1 - beta_2 ** t) g / (sqrt(v) + epsilon)

    In Adam, a gradient moves a row over many steps, in total by the learning rate times g / sqrt(v). Since v decays
    while the row is not touched, a row that is seldom touched takes larger steps. The same holds here, except that a
    row takes the whole step at once. In `LazyAdam`, moments do not change in between, and rare items learn more slowly.
    A table's state is two numbers for each row, instead of `LazyAdam`'s 2 D. (One second moment per row: Adafactor,
    Shazeer & Stern, ICML 2018, and FBGEMM's partial row-wise Adam.) Dense variables are updated by Keras's Adam.

    Args:
        learning_rate: A float, or a Keras learning-rate schedule.
        beta_1: As in ``tf.keras.optimizers.Adam``, for dense variables.
        beta_2, epsilon: As in ``tf.keras.optimizers.Adam``.
        weight_decay, clipnorm, global_clipnorm, clipvalue, name: As in `LazyAdam`.

    Raises:
        ValueError: As in `LazyAdam`.

    Example:
        >>> optimizer = RowwiseAdam(1e-3)
        >>> table = tf.Variable([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
        >>> gradient = tf.IndexedSlices(tf.constant([[4.0, 4.0]]), tf.constant([2]))
        >>> _ = optimizer.apply_gradients([(gradient, table)])
        >>> table[:, 0].numpy().round(4)
        array([1.   , 1.   , 0.999], dtype=float32)
    """

    _dense_optimizer = keras.optimizers.Adam

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "rowwise_adam",
        **kwargs: Any,
    ) -> None:
        kwargs |= {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
        super().__init__(learning_rate, name=name, **kwargs)

    def add_variable_from_reference(self, *args: Any, **kwargs: Any) -> Any:
        """State like a variable's, or one number per row for an embedding table; argument names depend on Keras."""
        variable = [*args, *kwargs.values()][0]
        if is_table(variable):
            return add_row_state(self, variable, 0.0)
        return super().add_variable_from_reference(*args, **kwargs)

    def _row_step(self, index: int, gradient: tf.Tensor, rows: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        # In place of Adam's first moment is the step in which a row was last touched.
        squares, touched = raw_variable(self._velocities[index]), raw_variable(self._momentums[index])
        count = tf.cast(self.iterations + 1, tf.float32)
        decay = tf.pow(self.beta_2, count - tf.nn.embedding_lookup(touched, rows))
        square = tf.nn.embedding_lookup(squares, rows) * decay + (1 - self.beta_2) * _squares(gradient, squares)
        squares.scatter_update(tf.IndexedSlices(square, rows))
        touched.scatter_update(tf.IndexedSlices(tf.fill(tf.shape(square), count), rows))
        return _times(gradient, rate * tf.sqrt(1 - tf.pow(self.beta_2, count)) / (tf.sqrt(square) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("amsgrad")
        return config


@register
class RowwiseAdagrad(_LazyRows, keras.optimizers.Adagrad):
    """Adagrad with one number of state for each row of an embedding table; it updates only rows that a batch touched.

    ``a += mean(g ** 2); row -= learning_rate g / sqrt(a + epsilon)``: a table's state is 1/D of Adagrad's and 1/(2 D)
    of Adam's (as in Facebook's DLRM and TensorFlow Recommenders' embedding accelerators). Dense variables are
    updated by Keras's Adagrad.

    Args:
        learning_rate: A float, or a Keras learning-rate schedule. Adagrad needs larger ones than Adam.
        initial_accumulator_value, epsilon: As in ``tf.keras.optimizers.Adagrad``.
        weight_decay, clipnorm, global_clipnorm, clipvalue, name: As in `LazyAdam`.

    Raises:
        ValueError: As in `LazyAdam`.

    Example:
        >>> optimizer = RowwiseAdagrad(0.1, initial_accumulator_value=0.0)
        >>> table = tf.Variable([[1.0], [1.0], [1.0]])
        >>> gradient = tf.IndexedSlices(tf.constant([[5.0]]), tf.constant([2]))
        >>> _ = optimizer.apply_gradients([(gradient, table)])
        >>> [round(float(value), 4) for value in table[:, 0]]
        [1.0, 1.0, 0.9]
    """

    _dense_optimizer = keras.optimizers.Adagrad

    def __init__(
        self,
        learning_rate: Any = 0.05,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        name: str = "rowwise_adagrad",
        **kwargs: Any,
    ) -> None:
        kwargs |= {"initial_accumulator_value": initial_accumulator_value, "epsilon": epsilon}
        super().__init__(learning_rate, name=name, **kwargs)

    def add_variable_from_reference(self, variable: Any, *args: Any, **kwargs: Any) -> Any:
        """State like ``variable``, or one number per row for an embedding table."""
        if is_table(variable):
            return add_row_state(self, variable, self.initial_accumulator_value)
        return super().add_variable_from_reference(variable, *args, **kwargs)

    def _row_step(self, index: int, gradient: tf.Tensor, rows: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        state = raw_variable(self._accumulators[index])
        after = tf.nn.embedding_lookup(state, rows) + _squares(gradient, state)
        state.scatter_update(tf.IndexedSlices(after, rows))
        return _times(gradient, rate / tf.sqrt(after + self.epsilon))


LAZY = (LazyAdam, RowwiseAdam, RowwiseAdagrad)
"""The optimizers above."""


def rounded_at_random(values: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """float32 as bfloat16, rounded up or down at random, without bias.

    Otherwise every step smaller than 1/256 of a value would be lost. (Stochastic rounding, as in Gupta et al., "Deep
    Learning with Limited Numerical Precision", ICML 2015.)

    Args:
        values: (n, D) float32, finite.
        seed: (2,) integers. The same seed gives the same values.

    Returns:
        (n, D) bfloat16.

    Example:
        >>> values = tf.fill([10_000, 1], 1 + 1 / 512)  # a quarter of the way to the next bfloat16, 1 + 1 / 128
        >>> rounded = tf.cast(rounded_at_random(values, seed=tf.constant([1, 2])), tf.float32).numpy()
        >>> np.unique(rounded).tolist(), round(512 * float(rounded.mean() - 1), 1)
        ([1.0, 1.0078125], 1.0)
    """
    bits = tf.bitcast(values, tf.int32)
    noise = tf.random.stateless_uniform(tf.shape(values), seed, 0, 2**16, tf.int32)
    # The upper half of a float32 is a bfloat16; the noise carries into it as often as the lower half is large.
    return tf.cast(tf.bitcast(tf.bitwise.bitwise_and(bits + noise, -(2**16)), tf.float32), tf.bfloat16)


def _checked_rate(learning_rate: Any) -> Any:
    """A learning rate as Keras takes it: a number, a schedule, or a function without arguments."""
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return learning_rate
    if callable(learning_rate) and not isinstance(learning_rate, type):
        return learning_rate
    rate = finite_number("`learning_rate`", learning_rate, "Or give a schedule of tf.keras.optimizers.schedules.")
    if rate < 0:
        raise problem("`learning_rate`", "be at least 0", shown(learning_rate))
    return rate


def _take_clipping(class_name: str, arguments: dict[str, Any]) -> tuple[str, float] | None:
    """Takes the clipping out of an optimizer's arguments, since Keras clips before it sums repeated rows.

    Refuses options that can't work on single rows, and Keras's graph mode, which has its own optimizers.
    """
    require_eager(class_name)
    for name, reason in _REFUSED.items():
        if arguments.pop(name, None):
            raise problem(f"`{name}`", f"be left out of {class_name}", True, f"Reason: {reason}.")
    if not KERAS_3:
        arguments["jit_compile"] = False
    given = {name: arguments.pop(name, None) for name in ("clipnorm", "global_clipnorm", "clipvalue")}
    limits = {name: positive_number(f"`{name}`", value) for name, value in given.items() if value is not None}
    if len(limits) > 1:
        raise problem("The optimizer", "clip in one way", f"{sorted(limits)}")
    return next(iter(limits.items()), None)


def _moved(state: Any, rows: tf.Tensor, target: tf.Tensor, decay: Any) -> tf.Tensor:
    """Moves ``rows`` of a moving average towards ``target`` (n, D), and returns them."""
    state = raw_variable(state)
    before = tf.nn.embedding_lookup(state, rows)
    after = before + (target - before) * (1 - decay)
    state.scatter_update(tf.IndexedSlices(after, rows))
    return after


def _squares(gradient: tf.Tensor, state: Any) -> tf.Tensor:
    """The squares of a gradient (n, D), or their means (n,) where ``state`` has one number for each row.

    A table that Keras's own Embedding made has state of the table's shape.
    """
    if state.shape.rank > 1:
        return tf.square(gradient)
    # Reads the gradient once; the mean of the squares would write the squares first.
    return tf.square(tf.math.reduce_euclidean_norm(gradient, axis=1)) / tf.cast(tf.shape(gradient)[1], gradient.dtype)


def _times(gradient: tf.Tensor, rates: tf.Tensor) -> tf.Tensor:
    """A gradient (n, D), times rates of its shape or one for each row, (n,)."""
    return gradient * (rates[:, tf.newaxis] if rates.shape.rank == 1 else rates)


def _clipped(gradients: list[Any], clipping: tuple[str, float] | None) -> list[Any]:
    if clipping is None:
        return gradients
    name, limit = clipping
    values = [gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients]
    if name == "clipnorm":
        values = [tf.clip_by_norm(value, limit) for value in values]
    elif name == "clipvalue":
        values = [tf.clip_by_value(value, -limit, limit) for value in values]
    else:
        values, _ = tf.clip_by_global_norm(values, limit)
    return [
        tf.IndexedSlices(value, gradient.indices, gradient.dense_shape)
        if isinstance(gradient, tf.IndexedSlices)
        else value
        for gradient, value in zip(gradients, values, strict=True)
    ]
