"""The Keras model that every builder returns: checked input, the towers as attributes, rebuilt from its builder."""

from __future__ import annotations

import functools
import inspect
import json
import operator
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from deepmatch_ext._checks import int_at_least, number_between, positive_int, problem, shown
from deepmatch_ext._frames import is_frame
from deepmatch_ext._keras import (
    KERAS_3,
    build_optimizer,
    check_loss,
    check_metrics,
    check_optimizer,
    compilation_here,
    compilation_kept,
    compile_as_saved,
    deserialize,
    eager_is_on,
    global_policy_name,
    input_name,
    keras,
    leave_jit_off,
    raw_variable,
    register,
    rename,
    require_eager,
    set_first_epoch,
    set_global_policy,
)
from deepmatch_ext._plain import plain_object
from deepmatch_ext.features import Column, SparseColumn, check_model_input, column_config, input_names
from deepmatch_ext.layers import CandidateLoss, CandidateSampler, own_objects
from deepmatch_ext.losses import sampledsoftmaxloss
from deepmatch_ext.models._arguments import OPTIONAL
from deepmatch_ext.models._checking import (
    CheckedSequence,
    CheckInWorker,
    check_batch,
    check_batch_weights,
    check_callbacks,
    check_class_weight,
    check_types,
    check_weights,
    checked_batches,
    in_rows,
    number_of_batches,
)
from deepmatch_ext.models._feeding import DEFAULT_BATCH_SIZE, Encoder, batches, without_autotuning
from deepmatch_ext.models._input_arrays import dense_batch, input_arrays
from deepmatch_ext.models._monitoring import agree_on_figures
from deepmatch_ext.models._persistence import (
    FORMAT,
    check_config,
    check_path,
    check_weights_file,
    describe_weights,
    whole_model_file,
)
from deepmatch_ext.models._resuming import TrainingPlace
from deepmatch_ext.models._tables import layer_name
from deepmatch_ext.samplers import InBatchSampler, Sampler

BUILDERS: dict[str, Callable[..., Any]] = {}


def register_builder(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets models be rebuilt by the builder's name when they are loaded."""
    name, other = function.__name__, BUILDERS.get(function.__name__)
    if other is not None and (other.__module__, other.__qualname__) != (function.__module__, function.__qualname__):
        rule, got = "have a name of its own", f"that of {other.__module__}.{other.__qualname__}"
        raise problem(f"The builder {name}", rule, got)
    BUILDERS[name] = function
    return function


@dataclass(frozen=True)
class Towers:
    """The tensors that make the two encoders, and the columns that they read.

    ``item_columns`` begin with the item id. ``catalogue_emb`` is an item's vector from its id alone; None, where only
    features that come with the input say what an item is.
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
    towers as attributes, checks NumPy inputs before anything runs, and `fit`, `evaluate`, `train_on_batch` and
    `test_on_batch` need no labels: the label is the item id.

    On tf-keras it also works after ``tf.compat.v1.disable_eager_execution()``, in Keras's own graph mode.

    A copy without the weights is ``type(model).from_config(model.get_config())``. On Keras 3
    ``tf.keras.models.clone_model`` gives a plain Keras model of the same layers, without what is added here.

    Attributes:
        user_input, user_emb: ``tf.keras.Model(model.user_input, model.user_emb)`` is the user encoder, (B, D), or
            (B, K, D) with K interests.
        item_input, item_emb: the same for the item encoder, (B, D).
        user_columns, item_columns: The columns that the two read; the item's begin with its id.
        candidates: The `CandidateSampler`, whose ``sampler`` draws and whose ``step`` counts the training steps.
        loss_layer: The `CandidateLoss`, which has the ``temperature``.
        seed: The builder's.
    """

    def __init__(self, inputs: Any, outputs: Any, towers: Towers, config: Mapping[str, Any], **kwargs: Any) -> None:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            rule, remedy = "be built for one device", "Leave the strategy's scope; one process uses all its cores."
            raise problem("The model", rule, f"a tf.distribute strategy of {replicas} replicas", remedy)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self._towers = towers
        self._builder_config = _Untracked({**config, "dtype_policy": global_policy_name()})
        self._user_encoder = _Untracked(Encoder(towers.user_input, towers.user_emb))
        has_catalogue = towers.catalogue_emb is not None
        self._item_encoder = _Untracked(Encoder(towers.item_input[:1], towers.catalogue_emb) if has_catalogue else None)

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

    @property
    def user_columns(self) -> list[Column]:
        return list(self._towers.user_columns)

    @property
    def item_columns(self) -> list[Column]:
        return list(self._towers.item_columns)

    @property
    def candidates(self) -> CandidateSampler:
        return self._layer_of(CandidateSampler)

    @property
    def loss_layer(self) -> CandidateLoss:
        return self._layer_of(CandidateLoss)

    def _layer_of(self, kind: type) -> Any:
        found = [layer for layer in self.layers if isinstance(layer, kind)]
        if len(found) != 1:
            raise AttributeError(f"This model has {len(found)} layers of {kind.__name__}, not one.")
        return found[0]

    @property
    def seed(self) -> int:
        return self._builder_config.value["arguments"].get("seed", OPTIONAL["seed"])

    # DeepMatch's names.
    user_embedding = user_emb
    item_embedding = item_emb

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any) -> None:
        """Keras's ``compile``. The optimizer is enough: the output is the loss of each example already.

        Args:
            optimizer: As in Keras, by name or an instance.
            loss: None: `sampledsoftmaxloss`, which takes the output as it is. Or a function of your own.
            args, kwargs: Keras's other arguments. ``metrics`` and ``weighted_metrics`` may hold what is your own.

        Raises:
            ValueError: The loss or a metric is Keras's: it would compare each example's loss with a meaningless label.
        """
        given = inspect.signature(super().compile).bind(optimizer, loss, *args, **kwargs).arguments
        check_loss(loss)
        for name in ("metrics", "weighted_metrics"):
            check_metrics(name, given.get(name))
        super().compile(optimizer, sampledsoftmaxloss if loss is None else loss, *args, **kwargs)

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

        ``x`` is name -> array, or whatever says the same: a pandas or polars DataFrame, an Arrow table, lists, ragged
        tensors; or a dataset, generator or Sequence of batches of these. A history may come as lists of any length,
        most recent first (tf.data's ``ragged_batch`` keeps them so): zeros are left out, each is cut after its first T
        ids and padded with 0, and its length, if `x` does not have it, is counted.

        With arrays, the order of each epoch follows from the model's seed and the steps made so far, so a run repeats,
        and a run that stops and goes on sees what an undisturbed one sees, if its epochs are whole passes over the
        rows. (Without eager mode the order is Keras's.)

        Callbacks such as EarlyStopping that monitor a figure of `deepmatch_ext.evaluation`'s callbacks stand behind
        these; they need no ``mode``.

        Raises:
            ImportError: ``x`` is a table other than pandas's, and pyarrow is not installed.
            ValueError: An array in ``x`` or ``validation_data`` can't be what its column says; nothing has run then.
                Datasets, generators and sequences are refused at the batch that is wrong. Or callbacks don't agree on
                a figure: one stands in front of what adds it, or has the contrary ``mode``.
        """
        leave_jit_off(self)
        check_optimizer(self)
        check_class_weight(class_weight)
        check_callbacks(callbacks)
        agree_on_figures(callbacks)
        epochs = int_at_least("`epochs`", epochs, 0)
        validation_split = number_between("`validation_split`", validation_split, 0, 1)
        if not (isinstance(shuffle, bool | np.bool_) or (isinstance(shuffle, str) and shuffle == "batch")):
            raise problem("`shuffle`", "be True, False or 'batch'", shown(shuffle))
        set_first_epoch(self, None)  # of a run before this one
        x, y, rows = self._checked(x, y, kwargs.get("use_multiprocessing", False))
        size = positive_int("`batch_size`", DEFAULT_BATCH_SIZE if batch_size is None else batch_size)
        if isinstance(validation_data, Mapping) or is_frame(validation_data):
            validation_data = (validation_data,)
        if isinstance(validation_data, list | tuple):
            held_out_size = (kwargs.pop("validation_batch_size", None) if eager_is_on() else None) or size
            validation_data = self._validation_batches(*validation_data, batch_size=held_out_size)
        elif validation_data is not None:
            validation_data = self._checked(validation_data, None, what="`validation_data`")[0]
        if rows is not None:
            examples = _with_weights(x, y, sample_weight)
            if validation_split and validation_data is None:
                rows, examples, held_out = _split_off(examples, rows, validation_split)
                held_out_size = kwargs.pop("validation_batch_size", None) or size
                validation_data = batches(held_out, len(held_out[1]), held_out_size)
            self._check_negatives(min(rows, size))
            passes = -(-rows // size)
            place = self._training_place(kwargs.get("steps_per_epoch") or passes, kwargs, passes)
            order = functools.partial(_epoch_order, place, rows, size, shuffle == "batch") if shuffle else None
            x = batches(examples, rows, size, order)
            if kwargs.get("steps_per_epoch"):
                x = x.repeat()  # epochs may then end anywhere in the data
            y = batch_size = sample_weight = None
            validation_split = 0.0
        else:
            check_weights(sample_weight)
            if eager_is_on():
                place = self._training_place(kwargs.get("steps_per_epoch") or number_of_batches(x), kwargs)
        if eager_is_on():
            callbacks = place.among(callbacks)
        if isinstance(x, tf.data.Dataset | Iterator):
            shuffle = False  # Keras 3 warns of its own default
        build_optimizer(self)
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

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Keras's ``evaluate``: the mean sampled loss. ``y`` may be left out; the input is checked as in `fit`."""
        leave_jit_off(self)
        if kwargs.get("_use_cached_eval_dataset"):  # by `fit`, which has seen to its validation data
            return super().evaluate(x, y, batch_size, verbose, sample_weight, **kwargs)
        x, y, rows = self._checked(x, y)
        if rows is not None:
            size = positive_int("`batch_size`", DEFAULT_BATCH_SIZE if batch_size is None else batch_size)
            x = batches(_with_weights(x, y, sample_weight), rows, size)
            y = batch_size = sample_weight = None
        return super().evaluate(x, y, batch_size, verbose, sample_weight, **kwargs)

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = "auto", **kwargs: Any) -> Any:
        """Keras's ``predict``: the sampled loss of each example, (B, 1). Vectors come from `user_vectors`."""
        leave_jit_off(self)
        x, y, rows = self._checked(x, None)
        if rows is not None:
            size = positive_int("`batch_size`", DEFAULT_BATCH_SIZE if batch_size is None else batch_size)
            x, batch_size = batches((x, y), rows, size), None
        return super().predict(x, batch_size, verbose, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``train_on_batch``. ``y`` may be left out; the input is checked as in `fit`."""
        leave_jit_off(self)
        check_optimizer(self)
        x, y, _ = self._checked(x, y)
        build_optimizer(self)
        return super().train_on_batch(x, y, check_weights(sample_weight), *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``test_on_batch``. ``y`` may be left out; the input is checked as in `fit`."""
        leave_jit_off(self)
        x, y, _ = self._checked(x, y)
        return super().test_on_batch(x, y, check_weights(sample_weight), *args, **kwargs)

    def user_vectors(self, x: Any, batch_size: int = 4096) -> np.ndarray:
        """The users' vectors, (B, D) float32, as ``tf.keras.Model(model.user_input, model.user_emb).predict(x)``.

        Args:
            x: name -> array of B rows, or what else `fit` takes: a frame, lists, ragged tensors. Names that the user
                side does not read are left alone. Or a finite ``tf.data.Dataset`` of batches of them, whose vectors
                come in its order; a dataset that shuffles gives nobody that order.
            batch_size: Users encoded at a time; the vectors don't depend on it.

        Raises:
            ValueError: An array can't be what its column says, or a dataset never ends.

        With more users than fit into memory, take the vectors of a batch at a time, where the users' ids are at hand::

            for k, batch in enumerate(dataset):
                write_vectors(f"users-{k:05d}.parquet", batch["user_id"], model.user_vectors(batch))
        """
        size = positive_int("`batch_size`", batch_size)
        if isinstance(x, tf.data.Dataset):
            blocks = [self.user_vectors(batch, size) for batch in self._user_batches(x, size)]
            return np.concatenate(blocks) if blocks else np.empty((0, *self.user_emb.shape[1:]), np.float32)
        arrays = self.user_arrays(x)
        return self._user_encoder.value(arrays, len(next(iter(arrays.values()))), size)

    def user_arrays(self, x: Any) -> dict[str, np.ndarray]:
        """name -> array (B, ...) of every user input in ``x``, in the shapes and types that `user_input` has.

        Args:
            x: As for `user_vectors`, but no dataset.

        Raises:
            ValueError: An array is missing or can't be what its column says.

        Example:
            >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
            >>> from deepmatch_ext import YoutubeDNN
            >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 3, "mean", "len")
            >>> model = YoutubeDNN([history], [SparseFeat("item", 50, 8)])
            >>> arrays = model.user_arrays({"hist_item": [[7, 5], [9, 8, 7, 6]]})
            >>> arrays["hist_item"].tolist(), arrays["len"].tolist()
            ([[7, 5, 0], [9, 8, 7]], [[2], [3]])
        """
        if not (isinstance(x, Mapping) or is_frame(x)):
            remedy = "Of other batches, take the vectors of each." if isinstance(x, Iterator) else ""
            raise problem("`x`", "be user inputs by name, a frame or a tf.data.Dataset", type(x).__name__, remedy)
        arrays = input_arrays(self._towers.user_columns, x)
        check_model_input(self._towers.user_columns, arrays)
        return {input_name(tensor): _as_input(arrays[input_name(tensor)], tensor) for tensor in self.user_input}

    def _user_batches(self, dataset: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        """The dataset's user inputs, dense and in batches of ``batch_size``."""
        require_eager("`user_vectors` of a dataset")
        spec, columns = dataset.element_spec, self._towers.user_columns
        features = spec[0] if isinstance(spec, tuple) else spec
        if not isinstance(features, Mapping):
            raise problem("`x`", "give dictionaries of user inputs, or tuples of these and others", f"{spec}")
        if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise problem("`x`", "come to an end", "a dataset that repeats for ever")
        check_types(columns, features)

        def dense(*element: Any) -> dict[str, tf.Tensor]:
            batch = dense_batch(columns, element[0])
            return {name: batch[name] for name in input_names(columns)}

        return without_autotuning(dataset.map(dense).rebatch(batch_size).prefetch(1))

    def item_vectors(self, batch_size: int = 65536) -> np.ndarray:
        """The vectors of all items, (V, D) float32: row k belongs to item id k, and row 0 (padding) is zeros.

        Args:
            batch_size: Items encoded at a time.

        Raises:
            ValueError: The item column is hashed, so a row number is no item; or the model was built without the items'
                features. Encode the items: ``tf.keras.Model(model.item_input, model.item_emb).predict(...)``.
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
            ValueError: The item column is hashed, or the model was built without the items' features.
        """
        column = self._towers.item_columns[0]
        assert isinstance(column, SparseColumn)
        if self._towers.catalogue_emb is None:
            raise problem(
                "`item_features`",
                "be given to the builder, for `item_vectors`",
                None,
                "Encode the items themselves: tf.keras.Model(model.item_input, model.item_emb).predict(items).",
            )
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

    def _training_place(
        self, steps_per_epoch: int | None, fit_arguments: Mapping[str, Any], steps_per_pass: int = 1
    ) -> TrainingPlace:
        step, initial_epoch = self.candidates.step, fit_arguments.get("initial_epoch", 0)
        return TrainingPlace(self.seed, lambda: int(raw_variable(step)), steps_per_epoch, steps_per_pass, initial_epoch)

    def save(self, filepath: Any, overwrite: bool = True, *args: Any, **kwargs: Any) -> None:
        """Keras's ``save``. The file is written under another name first, so that a former one stays whole until then.

        ``tf.keras.models.load_model(filepath)`` reads a ``.keras`` file, with ``safe_mode`` on and no `custom_objects`;
        an ``.h5`` file wants ``deepmatch_ext.layers.custom_objects``. ``tf.keras.models.save_model`` does not come by
        here, and writes in place. A process that is killed while it saves leaves a hidden file with ``.tmp`` in its
        name, which may be deleted.
        """
        check_path(filepath)
        self.get_config()  # refuses what no file could hold, before anything is written
        with whole_model_file(filepath, overwrite) as path, compilation_kept(self):
            super().save(path, overwrite, *args, **kwargs)
            if path != filepath:
                describe_weights(path, self)

    def save_weights(self, filepath: Any, overwrite: bool = True, *args: Any, **kwargs: Any) -> None:
        """Keras's ``save_weights``, written as in `save`, with a description that `load_weights` checks.

        Any name that ends in ``.h5`` will do. Keras 3 wants ``.weights.h5``; for another name it writes the older
        format, which its ``load_weights`` reads.
        """
        check_path(filepath)
        name = str(filepath)
        if KERAS_3 and not args and not kwargs and name.endswith(".h5") and not name.endswith(".weights.h5"):
            self.save(filepath, overwrite, include_optimizer=False)
            return
        with whole_model_file(
            filepath, overwrite
        ) as path:  # checkpoints and shards, of several files, are left to Keras
            super().save_weights(path, overwrite, *args, **kwargs)
            if path != filepath:
                describe_weights(path, self)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``load_weights``; a ``.weights.h5`` or ``.keras`` file is first checked against the model.

        Raises:
            ValueError: The weights are another model's, or of a format that this version does not know.
            OSError: The file is damaged, or there is none.
        """
        check_path(filepath)
        if not args and not kwargs.get("skip_mismatch") and not kwargs.get("by_name"):
            check_weights_file(filepath, self)
        # Else Keras 3 asks for a package that reads other files.
        if KERAS_3 and "://" not in str(filepath) and not os.path.exists(filepath):
            raise FileNotFoundError(f"There is no file of weights {str(filepath)!r}.")
        return super().load_weights(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        frozen = [layer.name for layer in self.layers if not layer.trainable]
        plain = {key: _to_plain(f"`{key}`", value) for key, value in self._builder_config.value.items()}
        return {"format": FORMAT, "name": self.name, "frozen": frozen, **plain}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Any:
        check_config(config, BUILDERS)
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

    def compile_from_config(self, config: Any) -> None:
        """Keras's ``compile_from_config``, for a file that any Keras has written."""
        compile_as_saved(self, compilation_here(config))

    def _check_negatives(self, batch_size: int) -> None:
        """Refuses batches of one where all negatives are the batch's own: the loss would always be 0."""
        if batch_size == 1 and isinstance(self.candidates.sampler, InBatchSampler):
            remedy = "Or take another sampler, or a MixedSampler around it."
            raise problem("`batch_size`", "be at least 2 where the batch's items are the negatives", "1", remedy)

    def _checked(self, x: Any, y: Any, in_processes: bool = False, what: str = "`x`") -> tuple[Any, Any, int | None]:
        """``x`` and ``y`` as Keras takes them, after the checks that can be made before anything runs, and the rows.

        The rows are None where ``x`` is not made of arrays, and without eager mode, where Keras feeds them itself.
        """
        if isinstance(x, tf.data.Dataset):
            return self._checked_dataset(x), y, None
        if isinstance(x, list | tuple) and len(x) == len(self.inputs):
            x = {input_name(tensor): values for tensor, values in zip(self.inputs, x, strict=True)}
        if not is_frame(x) and (isinstance(x, _NO_BATCHES) or not hasattr(x, "__iter__")):
            rule = "be a dictionary of arrays, a frame, a tf.data.Dataset, a generator or a Keras Sequence"
            raise problem(what, rule, shown(x))
        if not is_frame(x):
            if isinstance(x, Iterator):
                return checked_batches(x, self._checked_batch), y, None
            if isinstance(x, keras.utils.Sequence):
                in_processes = in_processes or getattr(x, "use_multiprocessing", False)
                return CheckedSequence(x, self._check_in_worker() if in_processes else self._checked_batch), y, None
            if not isinstance(x, Mapping):
                return x, y, None
        target = self._towers.item_columns[0]
        assert isinstance(target, SparseColumn)
        x = input_arrays(self._training_columns, x)
        rows = check_model_input(self._training_columns, x, [target.name])
        if target.vocabulary_path is not None and eager_is_on():
            items = x[target.name]
            unknown = items[np.asarray(self._is_unknown(tf.constant(items)))]
            if unknown.size:
                got = f"{unknown.size} others, such as {unknown.flat[0]!r}"
                raise problem(f"Input {target.name!r}", f"hold keys of {target.vocabulary_path!r}", got)
        if not rows:
            raise problem("The model's input", "have at least one row", "none")
        if y is not None and np.shape(y)[:1] != (rows,):
            raise problem("`y`", f"have a row for each of the {rows} examples", f"shape {np.shape(y)}")
        # One rank always, (rows, 1) and not (rows,): Keras's traced functions don't survive a change of it.
        x = _as_keras_input({input_name(tensor): _as_input(x[input_name(tensor)], tensor) for tensor in self.inputs})
        y = np.zeros((rows, 1), "float32") if y is None else np.reshape(y, (len(y), -1))
        return x, y, rows if eager_is_on() else None

    @property
    def _training_columns(self) -> list[Column]:
        read = [input_name(tensor) for tensor in self.inputs]
        return [*self.user_columns, *(column for column in self.item_columns if column.name in read)]

    def _checked_batch(self, element: Any) -> tuple[Any, ...]:
        """A batch of arrays as a generator gives it: ``x`` or ``(x, y)`` or ``(x, y, sample_weight)``."""
        x, y, weights = [*element, None, None][:3] if isinstance(element, tuple) else (element, None, None)
        x, y, _ = self._checked(x, y)
        return _with_weights(x, y, weights)

    def _check_in_worker(self) -> CheckInWorker:
        inputs = {
            input_name(tensor): (tuple(tensor.shape[1:]), tf.as_dtype(tensor.dtype).as_numpy_dtype)
            for tensor in self.inputs
        }
        return CheckInWorker(self._training_columns, self._towers.item_columns[0].name, inputs)

    def _checked_dataset(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The dataset with its inputs in one rank and checked, and with labels if it has none."""
        spec = dataset.element_spec
        features = spec[0] if isinstance(spec, tuple) else spec
        if not isinstance(features, Mapping):
            return dataset
        columns, target = self._training_columns, self._towers.item_columns[0]
        assert isinstance(target, SparseColumn)
        check_types(columns, features)
        shapes = {input_name(tensor): tuple(tensor.shape[1:]) for tensor in self.inputs}
        dtypes = {input_name(tensor): tf.as_dtype(tensor.dtype) for tensor in self.inputs}

        def complete(*element: Any) -> tuple[Any, ...]:
            dense = dense_batch(columns, element[0])
            rows = tf.shape(dense[target.name])[0]
            reshaped = {name: in_rows(dense[name], name, shape, rows) for name, shape in shapes.items()}
            batch = check_batch(columns, reshaped, [target.name])
            # Of another type, each would have Keras trace its functions anew.
            batch = {
                name: values if values.dtype == tf.string else tf.cast(values, dtypes[name])
                for name, values in batch.items()
            }
            if target.vocabulary_path is not None:
                is_known = ~tf.reduce_any(self._is_unknown(batch[target.name]))
                rule = f"Input {target.name!r} must hold keys of {target.vocabulary_path!r}"
                with tf.control_dependencies([tf.debugging.Assert(is_known, [rule])]):
                    batch[target.name] = tf.identity(batch[target.name])
            labels, *weights = element[1:] or (tf.zeros([tf.shape(batch[target.name])[0], 1]),)
            return (batch, labels, *map(check_batch_weights, weights))

        return dataset.map(complete)

    def _is_unknown(self, items: tf.Tensor) -> tf.Tensor:
        """Which items their column's file of keys doesn't know: they would be trained as padding."""
        column = self._towers.item_columns[0]
        assert isinstance(column, SparseColumn)
        return tf.equal(self.get_layer(layer_name("hash", column.embedding_name))(items), 0)


# What can be iterated, and is no sequence of batches.
_NO_BATCHES = (str, bytes, list, tuple, set, range, type, np.ndarray, np.generic, tf.Tensor, tf.RaggedTensor, pd.Series)


def _epoch_order(place: TrainingPlace, rows: int, batch_size: int, whole_batches: bool) -> np.ndarray:
    """The order of the rows in their next pass, (rows,).

    ``whole_batches`` stay as they are, in another order, and what is left over stays at the end.
    """
    draw = place.next_draw()
    if not whole_batches:
        return draw.permutation(rows)
    number = rows // batch_size
    starts = draw.permutation(number)[:, np.newaxis] * batch_size
    return np.append(starts + np.arange(batch_size), np.arange(number * batch_size, rows))


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
    weights = check_weights(sample_weight)
    if isinstance(x, Mapping) and weights.shape[:1] != y.shape[:1]:
        raise problem("`sample_weight`", f"have a row for each of the {len(y)} examples", f"shape {weights.shape}")
    return (x, y, weights)


def _as_input(array: np.ndarray, tensor: Any) -> np.ndarray:
    """Checked values in an input's rank and type; of another type, each would have Keras trace its functions anew."""
    array = array.reshape(len(array), *tensor.shape[1:])
    if array.dtype.kind in "OUST":
        return array
    return array.astype(tf.as_dtype(tensor.dtype).as_numpy_dtype, copy=False)


def _as_keras_input(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Tensors where there is text: Keras 3 refuses NumPy's, and outside of graphs a mixture of tensors and arrays."""
    has_text = any(array.dtype.kind in "OUST" for array in arrays.values())
    return {name: tf.constant(array) for name, array in arrays.items()} if has_text and eager_is_on() else arrays


own_objects["RetrievalModel"] = RetrievalModel


@dataclass(frozen=True)
class _Untracked:
    """Keeps Keras from wrapping what is inside, or saving it a second time."""

    value: Any


def _to_plain(what: str, value: Any) -> Any:
    """Builder arguments as JSON can hold them; refuses what no name stands for."""
    if isinstance(value, Mapping):
        return {key: _to_plain(f"`{key}`", item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(what, item) for item in value]
    if isinstance(value, Column):
        return column_config(value)
    if isinstance(value, Sampler):
        return _plain_settings(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, type):  # a layer's class stands for its defaults
        value = value()
    if isinstance(value, keras.layers.Layer):
        return {"keras_layer": plain_object(what, value, "layers")}
    return {"keras_object": plain_object(what, value)} if callable(value) else value


def _plain_settings(sampler: Sampler) -> Any:
    settings = sampler.get_config()
    try:
        json.dumps(settings, default=operator.methodcaller("item"))  # NumPy's numbers
    except (AttributeError, TypeError, ValueError):
        what = f"`get_config` of the sampler {type(sampler).__name__}"
        remedy = "Counts and the like are its `state`, which is saved with the weights."
        raise problem(what, "give numbers, text and lists of them", repr(settings), remedy) from None
    return settings


def _from_plain(value: Any) -> Any:
    if isinstance(value, Mapping) and "keras_layer" in value:
        return deserialize(value["keras_layer"], "layers")
    if isinstance(value, Mapping) and "keras_object" in value:
        return deserialize(value["keras_object"])
    return value
