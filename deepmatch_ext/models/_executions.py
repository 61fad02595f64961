"""How many training steps one execution of the graph runs."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._keras import executes_single_steps, sees_batches
from deepmatch_ext.models._examples import number_of_batches

STEPS = 16  # between two executions, Keras takes a fifth of the time of a step of 256 examples
WORTH = 1000  # steps in all: fewer save less time than it takes to trace a loop of steps


def steps_per_execution(model: Any, batches: Any, epochs: int, callbacks: Any) -> int:
    """Several in a long run, if nothing can tell the difference; else 1.

    Args:
        model: Compiled.
        batches: A dataset that an epoch passes over once; for anything else the result is 1.
        epochs: The number of epochs.
        callbacks: As `fit` takes them. If one of them does something at each batch, the result is 1.
    """
    if not isinstance(batches, tf.data.Dataset) or not executes_single_steps(model):
        return 1
    if (number_of_batches(batches) or 0) * epochs < WORTH:
        return 1
    listed = getattr(callbacks, "callbacks", None) or tf.nest.flatten(callbacks)
    return 1 if any(callback is not None and sees_batches(callback) for callback in listed) else STEPS
