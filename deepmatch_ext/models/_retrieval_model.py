"""The Keras model that every builder returns: checked input, the towers as attributes, rebuilt from its builder."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import number_between, positive_int, problem
from deepmatch_ext._compat import (
    deserialize,
    global_policy_name,
    keras,
    leave_jit_off,
    raw_variable,
    register,
    rename,
    serialize,
    set_global_policy,
)
from deepmatch_ext.features import Column, SparseColumn, check_model_input, column_config
from deepmatch_ext.models._feeding import DEFAULT_BATCH_SIZE, Encoder, batches
from deepmatch_ext.samplers import Sampler

BUILDERS: dict[str, Callable[..., Any]] = {}


def builder(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets models be rebuilt by the builder's name when they are loaded."""
    BUILDERS[function.__name__] = function
    return function


@dataclass(frozen=True)
class Towers:
    """The tensors that make the two encoders, and the columns that they read.

    ``item_columns`` begin with the item id, and ``catalogue_emb`` is an item's vector from its id alone.
    """

    user_input: list[Any]
    user_emb: Any
    item_input: list[Any]
    item_emb: Any
    catalogue_emb: Any
    user_columns: list[Column]
    item_columns: list[Column]


@register
class RetrievalModel(keras.Model):
    """A training model from user and item inputs to the loss of each example, (B, 1).

    It is a functional Keras model: ``compile``, ``fit``, ``evaluate``, ``save`` and the rest are Keras's. It adds the
    towers as attributes, checks NumPy inputs before anything runs, and `fit` and `evaluate` need no labels: the label
    is the item id.

    Attributes:
        user_input, user_emb: ``tf.keras.Model(model.user_input, model.user_emb)`` is the user encoder, (B, D).
        item_input, item_emb: the same for the item encoder.
    """

    def __init__(self, inputs: Any, outputs: Any, towers: Towers, config: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self._towers = towers
        self._builder_config = _Untracked({**config, "dtype_policy": global_policy_name()})
        self._user_encoder = _Untracked(Encoder(towers.user_input, towers.user_emb))
        self._item_encoder = _Untracked(Encoder(towers.item_input[:1], towers.catalogue_emb))

    @property
    def user_input(self) -> list[Any]:
        return list(self._towers.user_input)

    @property
    def user_emb(self) -> Any:
        return self._towers.user_emb

    @property
    def item_input(self) -> list[Any]:
        return list(self._towers.item_input)

    @property
    def item_emb(self) -> Any:
        return self._towers.item_emb

    # DeepMatch's names.
    user_embedding = user_emb
    item_embedding = item_emb

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: Any = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Keras's ``fit``. ``y`` may be left out: the label is the item id.

        With arrays, the order of each epoch follows from the model's seed and the steps made so far, so a run repeats,
        and a run that stops and goes on sees what an undisturbed one sees.

        Raises:
            ValueError: An array in ``x`` or ``validation_data`` can't be what its column says; nothing has run then.
        """
        leave_jit_off(self)
        x, y, rows = self._checked(x, y)
        size = positive_int("`batch_size`", DEFAULT_BATCH_SIZE if batch_size is None else batch_size)
        if isinstance(validation_data, Mapping):
            validation_data = (validation_data,)
        if isinstance(validation_data, list | tuple):
            held_out_size = kwargs.pop("validation_batch_size", None) or size
            validation_data = self._validation_batches(*validation_data, batch_size=held_out_size)
        elif validation_data is not None:
            validation_data = self._checked(validation_data, None)[0]
        if rows is not None:
            if shuffle not in (True, False, "batch"):
                raise problem("`shuffle`", "be True, False or 'batch'", repr(shuffle))
            examples = _with_weights(x, y, sample_weight)
            if validation_split and validation_data is None:
                rows, examples, held_out = _split_off(examples, rows, validation_split)
                held_out_size = kwargs.pop("validation_batch_size", None) or size
                validation_data = batches(held_out, len(held_out[1]), held_out_size)
            order = self._epoch_order(rows, size, shuffle == "batch") if shuffle else None
            x = batches(examples, rows, size, order)
            if kwargs.get("steps_per_epoch"):
                x = x.repeat()  # epochs may then end anywhere in the data
            y = batch_size = sample_weight = None
            validation_split = 0.0
        if isinstance(x, tf.data.Dataset):
            shuffle = False  # Keras 3 warns of its own default
        return super().fit(
            x,
            y,
            batch_size,
            epochs,
            verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            **kwargs,
        )

    def evaluate(self, x: Any = None, y: Any = None, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Keras's ``evaluate``: the mean sampled loss. ``y`` may be left out; the input is checked as in `fit`."""
        leave_jit_off(self)
        x, y, rows = self._checked(x, y)
        if rows is not None:
            size = positive_int("`batch_size`", DEFAULT_BATCH_SIZE if batch_size is None else batch_size)
            x = batches(_with_weights(x, y, kwargs.pop("sample_weight", None)), rows, size)
            y = batch_size = None
        return super().evaluate(x, y, batch_size, **kwargs)

    def predict(self, x: Any, batch_size: int | None = None, **kwargs: Any) -> Any:
        """Keras's ``predict``: the sampled loss of each example, (B, 1). Vectors come from `user_vectors`."""
        leave_jit_off(self)
        x, y, rows = self._checked(x, None)
        if rows is not None:
            size = positive_int("`batch_size`", DEFAULT_BATCH_SIZE if batch_size is None else batch_size)
            x, batch_size = batches((x, y), rows, size), None
        return super().predict(x, batch_size, **kwargs)

    def user_vectors(self, x: Mapping[str, Any], batch_size: int = 4096) -> np.ndarray:
        """The users' vectors, (B, D) float32, as ``tf.keras.Model(model.user_input, model.user_emb).predict(x)``.

        Args:
            x: name -> array of B rows; names that the user side does not read are left alone.
            batch_size: Users encoded at a time; the vectors don't depend on it.

        Raises:
            ValueError: An array can't be what its column says.
        """
        rows = self.check_user_input(x)
        arrays = {tensor.name: _array(x[tensor.name], tensor) for tensor in self.user_input}
        return self._user_encoder.value(arrays, rows, positive_int("`batch_size`", batch_size))

    def check_user_input(self, x: Mapping[str, Any]) -> int:
        """The number of rows in ``x``, user inputs by name.

        Raises:
            ValueError: An array is missing or can't be what its column says.
        """
        return check_model_input(self._towers.user_columns, x)

    def item_vectors(self, batch_size: int = 65536) -> np.ndarray:
        """The vectors of all items, (V, D) float32: row k belongs to item id k, and row 0 (padding) is zeros.

        Args:
            batch_size: Items encoded at a time.

        Raises:
            ValueError: The item column is hashed, so a row number is no item. Encode the items themselves:
                ``tf.keras.Model(model.item_input, model.item_emb).predict(...)``.
        """
        column = self.check_item_vectors()
        ids = {column.name: np.arange(column.vocabulary_size)}
        size = positive_int("`batch_size`", batch_size)
        vectors = self._item_encoder.value(ids, column.vocabulary_size, size)
        vectors[0] = 0.0
        return vectors

    def check_item_vectors(self) -> SparseColumn:
        """The item column, if `item_vectors` can be taken.

        Raises:
            ValueError: The item column is hashed.
        """
        column = self._towers.item_columns[0]
        assert isinstance(column, SparseColumn)
        if column.use_hash:
            raise problem(
                f"Item column {column.name!r}",
                "have integer ids, not hashed ones, for `item_vectors`",
                "use_hash=True",
                "Encode the items themselves: tf.keras.Model(model.item_input, model.item_emb).predict(items).",
            )
        return column

    def _validation_batches(self, x: Any, y: Any = None, sample_weight: Any = None, *, batch_size: int) -> Any:
        x, y, rows = self._checked(x, y)
        held_out = _with_weights(x, y, sample_weight)
        return held_out if rows is None else batches(held_out, rows, batch_size)

    def _epoch_order(self, rows: int, batch_size: int, whole_batches: bool) -> Callable[[], np.ndarray]:
        """Draws the order of an epoch's rows, from the seed and the number of the epoch's first step.

        ``whole_batches`` stay as they are, in another order, and what is left over stays at the end.

        The steps are read once, here: tf.data draws an order on a thread of its own, beside the step that counts.
        """
        seed = self._builder_config.value["arguments"]["seed"]
        first, steps = int(raw_variable(self.get_layer("candidates").step)) + 1, -(-rows // batch_size)
        epochs = itertools.count()

        def order() -> np.ndarray:
            draw = np.random.default_rng([seed, first + next(epochs) * steps])
            if not whole_batches:
                return draw.permutation(rows)
            number = rows // batch_size
            starts = draw.permutation(number)[:, np.newaxis] * batch_size
            return np.append(starts + np.arange(batch_size), np.arange(number * batch_size, rows))

        return order

    def get_config(self) -> dict[str, Any]:
        frozen = [layer.name for layer in self.layers if not layer.trainable]
        plain = {key: _to_plain(value) for key, value in self._builder_config.value.items()}
        return {"name": self.name, "frozen": frozen, **plain}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Any:
        if config["builder"] not in BUILDERS:
            raise problem("The saved model's builder", f"be one of {sorted(BUILDERS)}", config["builder"])
        policy = global_policy_name()
        set_global_policy(config["dtype_policy"])
        try:
            arguments = {key: _from_plain(value) for key, value in config["arguments"].items()}
            model = BUILDERS[config["builder"]](**arguments)
        finally:
            set_global_policy(policy)
        rename(model, config["name"])
        for name in config["frozen"]:
            model.get_layer(name).trainable = False
        return model

    def _checked(self, x: Any, y: Any) -> tuple[Any, Any, int | None]:
        """``x`` and ``y`` as Keras takes them, after the checks that can be made before anything runs, and the rows.

        The rows are None where ``x`` is not made of arrays.
        """
        if isinstance(x, tf.data.Dataset):
            return self._checked_dataset(x), y, None
        if isinstance(x, list | tuple) and len(x) == len(self.inputs):
            x = {tensor.name: values for tensor, values in zip(self.inputs, x, strict=True)}
        if x is None:
            raise problem("`x`", "be a dictionary of arrays or a tf.data.Dataset", None)
        if not isinstance(x, Mapping):
            return x, y, None
        towers = self._towers
        target = towers.item_columns[0]
        rows = check_model_input([*towers.user_columns, target], x, [target.name])
        if not rows:
            raise problem("The model's input", "have at least one row", "none")
        if y is not None and np.shape(y)[:1] != (rows,):
            raise problem("`y`", f"have a row for each of the {rows} examples", f"shape {np.shape(y)}")
        # One rank always, (rows, 1) and not (rows,): Keras's traced functions don't survive a change of it.
        x = {tensor.name: _array(x[tensor.name], tensor) for tensor in self.inputs}
        return x, np.zeros((rows, 1), "float32") if y is None else np.reshape(y, (len(y), -1)), rows

    def _checked_dataset(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The dataset with its inputs in one rank, and with labels if it has none."""
        spec = dataset.element_spec
        features = spec[0] if isinstance(spec, tuple) else spec
        if not isinstance(features, Mapping):
            return dataset
        inputs = {tensor.name: tensor.shape[1:] for tensor in self.inputs}
        for name, shape in inputs.items():
            if name not in features:
                raise problem("The dataset's elements", f"have {name!r}", f"only {sorted(features)}")
            if features[name].shape.rank is not None and features[name].shape.rank < len(shape):
                got = f"{name!r} of shape {features[name].shape}"
                raise problem("The dataset", "be batched", got, "Call `.batch(batch_size)` on it.")

        def complete(*element: Any) -> tuple[Any, ...]:
            reshaped = {name: tf.reshape(element[0][name], [-1, *shape]) for name, shape in inputs.items()}
            rows = tf.shape(next(iter(reshaped.values())))[0]
            return (reshaped, *(element[1:] or (tf.zeros([rows, 1]),)))

        return dataset.map(complete)


def _split_off(examples: tuple[Any, ...], rows: int, share: float) -> tuple[int, tuple[Any, ...], tuple[Any, ...]]:
    """How many rows stay, these, and the last ``share`` of them, as Keras's ``validation_split`` takes them."""
    kept = int(rows * (1 - number_between("`validation_split`", share, 0, 1)))
    if not 0 < kept < rows:
        raise problem("`validation_split`", "leave a row on both sides", f"{share} of {rows} rows")
    return (
        kept,
        tf.nest.map_structure(lambda values: values[:kept], examples),
        tf.nest.map_structure(lambda values: values[kept:], examples),
    )


def _with_weights(x: Any, y: Any, sample_weight: Any) -> tuple[Any, ...]:
    if sample_weight is None:
        return (x, y)
    weights = np.asarray(sample_weight)
    if isinstance(x, Mapping) and weights.shape[:1] != y.shape[:1]:
        raise problem("`sample_weight`", f"have a row for each of the {len(y)} examples", f"shape {weights.shape}")
    return (x, y, weights)


def _array(values: Any, tensor: Any) -> Any:
    array = np.asarray(values)
    array = array.reshape(len(array), *tensor.shape[1:])
    return tf.constant(array) if array.dtype.kind in "OUST" else array  # Keras 3 refuses NumPy strings


@dataclass(frozen=True)
class _Untracked:
    """Keeps Keras from wrapping what is inside, or saving it a second time."""

    value: Any


def _to_plain(value: Any) -> Any:
    """Builder arguments as JSON can hold them; refuses what no name stands for."""
    if isinstance(value, Mapping):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, Column):
        return column_config(value)
    if isinstance(value, Sampler):
        return value.get_config()
    if isinstance(value, np.generic):
        return value.item()
    if callable(value):
        if getattr(value, "__name__", "") == "<lambda>":
            raise problem(
                "An activation", "have a name if the model is to be saved", "a lambda", "Use a registered def."
            )
        return {"keras_object": serialize(value)}
    return value


def _from_plain(value: Any) -> Any:
    if isinstance(value, Mapping) and "keras_object" in value:
        return deserialize(value["keras_object"])
    return value
