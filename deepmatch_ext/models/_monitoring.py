"""Callbacks of a `fit` that read what another callback adds to Keras's logs, such as ``val_NDCG@10``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import problem, shown, warn_caller
from deepmatch_ext._keras import keras

# Keras's own callbacks that record or show the logs.
_READERS = ("CSVLogger", "History", "ProgbarLogger", "RemoteMonitor", "TensorBoard")

_COMPARES = {"max": np.greater, "min": np.less}
_PREFERS = {"greater": "max", "gt": "max", "less": "min", "lt": "min"}  # by the name of the function


def check_callbacks(callbacks: Any) -> None:
    """Refuses objects that are not callbacks."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return
    for callback in [] if callbacks is None else tf.nest.flatten(callbacks):
        if not hasattr(callback, "set_model"):
            raise problem("`callbacks`", "be a list of Keras callbacks", shown(callback))


def agree_on_figures(callbacks: Any) -> None:
    """Makes callbacks that monitor our figures prefer the better value, and refuses those that never see the figures.

    A callback adds figures to the logs if it has `figure_modes`: name in the logs -> "max" or "min", whichever is
    better. A callback monitors one if it has a `monitor`, as EarlyStopping, ModelCheckpoint and ReduceLROnPlateau do.

    Without a ``mode``, Keras 2 considers the lowest value the best for any metric that is not an accuracy, and Keras 3
    raises an error.

    Args:
        callbacks: As `fit` takes them.

    Raises:
        ValueError: A callback's ``mode`` is the opposite of its figure's, or it comes before the callback that adds the
            figure.
    """
    listed = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else tf.nest.flatten(callbacks)
    modes: dict[str, str] = {}
    for place, callback in enumerate(listed):
        figures = getattr(callback, "figure_modes", None)
        if isinstance(figures, Mapping):
            _look_in_front(callback, figures, listed[:place], modes)
            modes.update(figures)
    for callback in listed:
        monitored = getattr(callback, "monitor", None)
        if isinstance(monitored, str) and monitored in modes and not hasattr(callback, "figure_modes"):
            _set_mode(callback, modes[monitored])


_NO_LOSS = {
    "loss": "The loss was 0 in every epoch, so the model has learnt nothing",
    "val_loss": "The loss of the evaluated examples was always 0, which says nothing of the model",
}


def warn_of_no_loss(history: Mapping[str, Any]) -> None:
    """Warns about losses that come from no comparison, such as over batches whose weights are all 0."""
    for name, text in _NO_LOSS.items():
        losses = history.get(name, [])
        if len(losses) and not np.any(losses):
            asks = "are all sample weights 0, or do the examples have no negatives?"
            warn_caller(f"{text}: {asks}", UserWarning)


def _look_in_front(giver: Any, figures: Mapping[str, str], in_front: Iterable[Any], known: Mapping[str, str]) -> None:
    """Refuses, or warns about, callbacks that read the logs before ``giver`` has added its figures."""
    name = type(giver).__name__
    for callback in in_front:
        reader = type(callback).__name__
        monitored = getattr(callback, "monitor", None)
        is_new = isinstance(monitored, str) and monitored in figures and monitored not in known
        if is_new and not hasattr(callback, "figure_modes"):
            what = f"The callback {reader}, which monitors {monitored!r},"
            raise problem(what, f"come after {name} in `callbacks`", "it before that", "It would never see the figure.")
        if isinstance(callback, tuple(getattr(keras.callbacks, each) for each in _READERS)):
            text = f"The callback {reader} comes before {name} in `callbacks`, so it does not get its figures."
            warnings.warn(f"{text} Put it after.", stacklevel=4)
    if again := sorted(set(figures).intersection(known)):
        text = f"Two callbacks add {again[0]!r} to the logs; the later one's stays."
        warnings.warn(f"{text} Give one of them a `name_format` of its own.", stacklevel=4)


def _set_mode(callback: Any, mode: str) -> None:
    """Makes a callback treat the highest (or lowest) value of what it monitors as the best."""
    what = f"`mode` of the callback {type(callback).__name__}, which monitors {callback.monitor!r},"
    rule = f"be {mode!r}, since {'higher' if mode == 'max' else 'lower'} is better"
    said = getattr(callback, "mode", None)
    if said in _COMPARES and said != mode:
        raise problem(what, rule, repr(said))
    if said is not None:
        callback.mode = mode
    compares = getattr(callback, "monitor_op", None)
    if compares is None or _prefers(compares) == mode:  # Keras 3 follows the mode when it first compares
        return
    if _name(compares) in _PREFERS:
        callback.monitor_op = _COMPARES[mode]
        if hasattr(callback, "min_delta"):
            callback.min_delta = abs(callback.min_delta) * (1 if mode == "max" else -1)
        if getattr(callback, "best", None) in (np.inf, -np.inf):  # no value of its own yet
            callback.best = -np.inf if mode == "max" else np.inf
    elif said is not None and hasattr(callback, "_reset"):  # Keras 2's ReduceLROnPlateau
        callback._reset()
    if _prefers(callback.monitor_op) != mode:
        raise problem(what, rule, "one that looks for the opposite", f"Give it mode={mode!r}.")


def _prefers(compares: Any) -> str:
    """The mode of a function that says whether its first argument is better, by whatever margin."""
    return _PREFERS.get(_name(compares)) or ("max" if compares(np.float64(1e30), np.float64(-1e30)) else "min")


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", ""))
