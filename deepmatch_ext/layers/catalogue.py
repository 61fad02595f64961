"""The item features that a model stores, and the replacement of the ids of items that were never trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import as_flag, int_at_least, problem, shown
from deepmatch_ext._distribute import of_all_replicas
from deepmatch_ext._keras import WholeWeights, add_state, in_training, keras, raw_variable, register
from deepmatch_ext._traced import assertion
from deepmatch_ext.layers.dropout import DroppingLayer


@register
class ItemCatalogue(WholeWeights, keras.layers.Layer):
    """Keeps the features of all items and looks them up by item id.

    Args:
        features: name -> (shape of one item's values, their type), for each feature in the catalogue.
        vocabulary_size: V.
        values: name -> array (V, ...), the values by item id. None: they come with saved weights.

    Input: item ids (n,) or (n, 1). Output: a list of (n, ...), in the order of ``features``.

    Raises:
        tf.errors.InvalidArgumentError: The layer was rebuilt from its config, but its weights, which hold the values,
            were not loaded.

    Example:
        >>> catalogue = ItemCatalogue({"genre": ((), "int32")}, 4, {"genre": np.array([0, 7, 8, 7], "int32")})
        >>> [values.numpy().tolist() for values in catalogue(tf.constant([3, 2]))]
        [[7, 8]]
    """

    def __init__(self, features: Any, vocabulary_size: int, values: Any = None, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        try:
            self.features = {name: (tuple(shape), str(dtype)) for name, (shape, dtype) in features.items()}
        except Exception:
            rule = "map names to the shape and the type of an item's values"
            raise problem("`features`", rule, shown(features)) from None
        self.vocabulary_size = int_at_least("`vocabulary_size`", vocabulary_size, 2)
        self._initial, self._awaits_values = values, values is None
        self.supports_jit = False

    def build(self, input_shape: Any = None) -> None:
        self._values: list[Any] = []
        for name, (shape, dtype) in self.features.items():
            shape = (self.vocabulary_size, *shape)
            values = np.full(shape, _absent(dtype), dtype) if self._initial is None else self._initial[name]
            values = np.asarray(values, dtype)
            if values.shape != shape:
                raise problem(f"The values of {name!r}", f"have shape {shape}", f"{values.shape}")
            self._values.append(add_state(self, f"feature_{len(self._values)}", values))
        self._initial = None
        self.built = True

    def call(self, ids: tf.Tensor) -> list[tf.Tensor]:
        ids = tf.cast(tf.reshape(ids, [-1]), tf.int64)
        checks = []
        if self._awaits_values:
            first = raw_variable(self._values[0])
            value = tf.reshape(tf.nn.embedding_lookup(first, tf.zeros([1], tf.int64)), [-1])[0]
            is_there = tf.math.is_finite(value) if value.dtype.is_floating else value != _absent(value.dtype.name)
            message = f"{self.name}: the features of the items must be loaded first; they come with the saved weights"
            checks.append(assertion(is_there, message))
        with tf.control_dependencies([check for check in checks if check is not None]):
            return self._rows(ids)

    def _rows(self, ids: tf.Tensor) -> list[tf.Tensor]:
        return [tf.nn.embedding_lookup(raw_variable(values), ids) for values in self._values]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return [(None, *shape) for shape, _ in self.features.values()]

    def get_config(self) -> dict[str, Any]:
        features = {name: [list(shape), dtype] for name, (shape, dtype) in self.features.items()}
        return {**super().get_config(), "features": features, "vocabulary_size": self.vocabulary_size}


def _absent(dtype: str) -> Any:
    """The placeholder for values that come with saved weights."""
    return np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max


@register
class KnownItems(DroppingLayer):
    """Replaces the ids of items that were never trained with 0, the id of unknown items.

    In training, some ids are replaced at random, so that the model learns to encode items from their features and the
    row of id 0 alone. (DropoutNet, Volkovs et al., NeurIPS 2017, drops whole inputs for the same reason.)

    Args:
        vocabulary_size: V.
        rate: The fraction of ids that are replaced in training, in [0, 1).
        seed: Seed of that choice.
        all_known: Whether all items count as trained from the start, since their rows have been given.

    Input: ids (n,) or (n, 1); or ``[ids, positives]``, with the ids of a batch's positives, which training marks as
    trained. Output: ids (n,).

    Example:
        >>> known = KnownItems(vocabulary_size=9, rate=0.0)
        >>> _ = known([tf.constant([3]), tf.constant([3])], training=True)
        >>> known(tf.constant([3, 4])).numpy().tolist()
        [3, 0]
    """

    def __init__(
        self, vocabulary_size: int, rate: float, seed: int = 1024, all_known: bool = False, **kwargs: Any
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(rate, seed, **kwargs)
        self.all_known = as_flag("`all_known`", all_known)
        self.vocabulary_size = int_at_least("`vocabulary_size`", vocabulary_size, 2)
        self.supports_jit = False

    def build(self, input_shape: Any = None) -> None:
        self._is_trained = add_state(self, "is_trained", np.full(self.vocabulary_size, self.all_known, "int32"))
        super().build(input_shape)

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        ids, positives = inputs if isinstance(inputs, list | tuple) else (inputs, None)
        ids, is_trained = tf.cast(tf.reshape(ids, [-1]), tf.int64), raw_variable(self._is_trained)
        training = in_training(training)
        if training is False:
            return tf.where(self._is_known(ids), ids, tf.zeros_like(ids))
        if positives is not None:
            positives, _ = of_all_replicas(tf.cast(tf.reshape(positives, [-1]), tf.int64))
            if training is not True:
                positives = positives[: tf.where(tf.cast(training, tf.bool), tf.size(positives), 0)]
            marked = is_trained.scatter_update(tf.IndexedSlices(tf.ones_like(positives, tf.int32), positives))
            with tf.control_dependencies([] if marked is None else [marked]):
                ids = tf.identity(ids)
        kept = self._kept(tf.shape(ids), training)
        if training is not True:
            kept = tf.where(tf.cast(training, tf.bool), kept, self._is_known(ids))
        return tf.where(kept, ids, tf.zeros_like(ids))

    def _is_known(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.nn.embedding_lookup(raw_variable(self._is_trained), ids) > 0

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None,)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "vocabulary_size": self.vocabulary_size, "all_known": self.all_known}
