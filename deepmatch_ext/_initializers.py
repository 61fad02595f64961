"""The initial values of an embedding table: an initializer or an array, checked, and as plain data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from deepmatch_ext._checks import problem
from deepmatch_ext._frames import by_id
from deepmatch_ext._keras import deserialize, keras, serialize
from deepmatch_ext._plain import plain_object, settings_of

# Stands in a config for values that come with the saved weights.
SAVED = "saved with the weights"

# An initializer whose config has more numbers in lists holds data, which does not belong in a config.
_FEW_NUMBERS = 16

# Rows are L2-normalised in float32, which has to hold the sum of their squares (`L2Normalization`).
_SMALLEST, _LARGEST = 2e-6, 1e15


class TableInitializer:
    """An initializer of one table, which Keras can call; the values that it returns are checked.

    In a config it is Keras's plain data, or `SAVED` if it holds the values themselves, which come with the weights. A
    table that is rebuilt from such a config starts as NaN, and refuses look-ups until its values are loaded.

    Args:
        what: What it is, for error messages: "`embeddings_initializer` of column 'item'".
        given: A Keras initializer, its name, class or `plain` data; a function of a shape; or an array of that shape.
        shape: (V, D) of the table; row 0 is padding.

    Raises:
        ValueError: ``given`` is not an initializer, or holds values of the wrong shape, or that are not finite or are
            masked, or that float32 can't normalise; or it has an index other than the ids.
    """

    def __init__(self, what: str, given: Any, shape: tuple[int, int]) -> None:
        self.what, self._shape = what, shape
        self.awaits_values = isinstance(given, str) and given == SAVED
        self._values = None if self.awaits_values else _values_of(what, given)
        self._initializer: Any = None
        if self._values is not None:
            self._values = self._checked_array(self._values)
        elif not self.awaits_values:
            try:
                is_plain = isinstance(given, Mapping)
                read = functools.partial(deserialize, part="initializers") if is_plain else keras.initializers.get
                self._initializer = read(given)
            except (TypeError, ValueError) as error:
                rule = "be an initializer of Keras's, its name, a function of a shape, or an array"
                raise problem(what, rule, repr(given), str(error)) from error
        self._plain: Any = None

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> tf.Tensor:
        dtype = dtype or "float32"
        if self.awaits_values:
            return tf.fill(self._shape, tf.constant(np.nan, dtype))
        if self._values is not None:
            return tf.cast(tf.convert_to_tensor(self._values), dtype)
        try:
            values = tf.cast(tf.convert_to_tensor(self._initializer(shape, dtype=dtype)), dtype)
        except Exception as error:  # whatever a function of the user's raises
            rule = f"give values of shape {self._shape} when it is called with a shape and a `dtype`"
            raise problem(self.what, rule, f"{type(error).__name__}: {error}") from error
        self._check_shape(tuple(values.shape))
        if tf.executing_eagerly() and not bool(tf.reduce_all(tf.math.is_finite(values))):
            raise problem(self.what, "give finite numbers", "NaN or infinity among them")
        return values

    @property
    def holds_values(self) -> bool:
        """Whether the values themselves were given, now or before a model was saved."""
        return self._initializer is None

    def plain(self) -> Any:
        """As plain data, which a `TableInitializer` takes back.

        Raises:
            ValueError: No file could hold it: it is a lambda, or something else that is not registered.
        """
        if self._plain is None:
            holds_values = self._initializer is None or _numbers_in(settings_of(self._initializer)) > _FEW_NUMBERS
            self._plain = SAVED if holds_values else plain_object(self.what, self._initializer, "initializers", _REMEDY)
        return self._plain

    def _checked_array(self, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind not in "fiu":
            raise problem(self.what, "hold numbers", f"an array of {values.dtype}")
        self._check_shape(values.shape)
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise problem(self.what, "hold finite numbers", f"{values[row][~np.isfinite(values[row])][0]} in row {row}")
        largest = max(-float(values.min()), float(values.max()))
        if largest and not _SMALLEST <= largest <= _LARGEST:
            rule = f"have a largest number of {_SMALLEST:g} to {_LARGEST:g} in size, to be normalised in float32"
            raise problem(self.what, rule, f"{largest:g}", "Scale the array.")
        return values

    def _check_shape(self, shape: tuple[int | None, ...]) -> None:
        size, dim = self._shape
        if shape == self._shape:
            return
        remedy = ""
        if shape == (size - 1, dim):
            remedy = "Put a row for padding in front: `np.vstack([np.zeros((1, matrix.shape[1])), matrix])`."
        elif shape == (dim, size):
            remedy = "Transpose it."
        rule = f"have shape {self._shape}, a row for each id of the vocabulary; row 0 is padding"
        raise problem(self.what, rule, f"shape {shape}", remedy)

    def __eq__(self, other: object) -> bool:
        """Whether a table has the same initial values with both."""
        if not isinstance(other, TableInitializer):
            return NotImplemented
        if self._values is not None and other._values is not None:
            return self._values is other._values or np.array_equal(self._values, other._values)
        if self._initializer is None or other._initializer is None:
            return self.awaits_values and other.awaits_values
        return self._initializer is other._initializer or _as_far_as_known(self) == _as_far_as_known(other)

    def __hash__(self) -> int:
        return hash(self._shape)

    def __str__(self) -> str:
        if self._initializer is None:
            return SAVED if self.awaits_values else "an array"
        return str(getattr(self._initializer, "__name__", type(self._initializer).__name__))


_REMEDY = (
    "Give the values themselves, `tf.keras.initializers.Constant(matrix)`, which come back with the weights; or "
    "decorate it with `@tf.keras.utils.register_keras_serializable()`. `save_weights('w.weights.h5')` needs neither."
)


def table_initializer(what: str, given: Any, shape: tuple[int, int]) -> TableInitializer | None:
    """``given`` as a `TableInitializer`, unless it already is one; None stays None."""
    return given if given is None or isinstance(given, TableInitializer) else TableInitializer(what, given, shape)


def _values_of(what: str, given: Any) -> np.ndarray | None:
    """The values by id that ``given`` holds: an array, or the one in a Constant of Keras or TensorFlow."""
    kind = type(given)
    if kind.__name__ == "Constant" and kind.__module__.split(".")[0] in ("keras", "tf_keras", "tensorflow"):
        given = given.value
    elif not isinstance(given, np.ndarray | list | tuple | pd.DataFrame | tf.Tensor | tf.Variable):
        return None
    values = np.asarray(by_id(what, given))
    return values if values.ndim else None


def _numbers_in(config: Any) -> int:
    """How many numbers are in the lists and arrays of a config."""
    if isinstance(config, Mapping):
        return sum(map(_numbers_in, config.values()))
    if isinstance(config, list | tuple):
        return sum(_numbers_in(each) or 1 for each in config)
    return int(np.size(config)) if isinstance(config, np.ndarray | tf.Tensor | tf.Variable) else 0


def _as_far_as_known(initializer: TableInitializer) -> Any:
    try:
        return serialize(initializer._initializer)
    except TypeError:  # what can't be written can't be compared
        return object()
