"""How many training steps an execution of the graph makes."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._keras import executes_single_steps, sees_batches
from deepmatch_ext.models._examples import number_of_batches

STEPS = 16  # Keras takes a fifth of a step of 256 examples between two executions
WORTH = 1000  # steps in all: fewer save less than it takes to trace a loop of them


def steps_per_execution(model: Any, batches: Any, epochs: int, callbacks: Any) -> int:
    """Several in a long run, where nothing can tell them from single ones; else 1.

    Args:
        model: Compiled.
        batches: A dataset that an epoch passes over once, or anything else, which is left alone.
        epochs: How often.
        callbacks: As `fit` takes them. One that does something at each batch gets each.
    """
    if not isinstance(batches, tf.data.Dataset) or not executes_single_steps(model):
        return 1
    if (number_of_batches(batches) or 0) * epochs < WORTH:
        return 1
    listed = getattr(callbacks, "callbacks", None) or tf.nest.flatten(callbacks)
    return 1 if any(callback is not None and sees_batches(callback) for callback in listed) else STEPS
