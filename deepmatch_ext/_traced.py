"""Helpers that keep the graphs of models small: functions that all models share, and assertions of one operation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from deepmatch_ext._keras import eager_is_on


def traced_once(*ranks: int | None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a function of tensors of these ranks, without variables, so that all models share its graph.

    A rank of None is any rank.

    Tracing an operation takes longer than running it on a small batch. And TensorFlow keeps every graph with a custom
    gradient in it for ever: with a model's graph, it would keep the model's variables, too.

    Example:
        >>> @traced_once(1, 0)
        ... def scaled(values, factor):
        ...     return values * factor
        >>> scaled(tf.constant([1.0, 2.0]), tf.constant(3.0)).numpy()
        array([3., 6.], dtype=float32)
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.cache
        def traced(*dtypes: tf.DType) -> Callable[..., Any]:
            shapes = [None if rank is None else [None] * rank for rank in ranks]
            specs = [tf.TensorSpec(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
            return tf.function(function, input_signature=specs, autograph=False)

        @functools.wraps(function)
        def call(*values: tf.Tensor) -> Any:
            # Without eager mode all models share one graph, in which TensorFlow 2.15 finds no gradient of a function.
            return traced(*(value.dtype for value in values))(*values) if eager_is_on() else function(*values)

        return call

    return decorate


def assertion(condition: tf.Tensor, *what: Any) -> Any:
    """Fails with ``what``, texts and scalars, where the scalar ``condition`` is False. In eager mode, returns None.

    In a graph it is one operation; ``tf.debugging.Assert`` would trace two branches, one of which makes the message.
    """
    if tf.executing_eagerly():
        return tf.debugging.Assert(condition, what)
    return tf.raw_ops.Assert(condition=condition, data=list(what))
