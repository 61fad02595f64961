"""The Keras model that every builder returns: checked input, the towers as attributes, rebuilt from its builder."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._arrays import Seen, check_ids
from deepmatch_ext._checks import int_at_least, listing, number_between, positive_int, problem, shown, warn_caller
from deepmatch_ext._distribute import writes_files
from deepmatch_ext._frames import is_frame
from deepmatch_ext._keras import (
    KERAS_3,
    build_for_strategy,
    build_optimizer,
    check_compilation,
    check_loss,
    check_metrics,
    check_one_batch,
    check_optimizer,
    check_strategy,
    compilation_here,
    compilation_kept,
    compile_as_saved,
    compiled_with,
    eager_is_on,
    global_policy_name,
    hidden_from_checkpoints,
    input_name,
    keras,
    leave_jit_off,
    raw_variable,
    register,
    rename,
    set_first_epoch,
    set_global_policy,
    several_steps,
    verbosity,
    without_a_number,
)
from deepmatch_ext._plain import check_named
from deepmatch_ext.features import Column, SparseColumn, with_table_sizes
from deepmatch_ext.layers import (
    CandidateLoss,
    CandidateSampler,
    EmbeddingTable,
    HashIds,
    PairProbability,
    TrainedPositions,
    own_objects,
)
from deepmatch_ext.losses import sampledsoftmaxloss
from deepmatch_ext.models._arguments import OPTIONAL
from deepmatch_ext.models._examples import (
    ArrayReader,
    Examples,
    Reader,
    as_batch_size,
    checked_counts,
    number_of_batches,
    user_batches,
)
from deepmatch_ext.models._executions import steps_per_execution
from deepmatch_ext.models._extending import extended
from deepmatch_ext.models._feeding import Encoder
from deepmatch_ext.models._input_rules import EventTimes, check_class_weight, check_some_weight, tell_of_labels
from deepmatch_ext.models._monitoring import agree_on_figures, check_callbacks, warn_of_no_loss
from deepmatch_ext.models._persistence import (
    FORMAT,
    check_config,
    check_path,
    check_weights_file,
    describe_weights,
    whole_model_file,
)
from deepmatch_ext.models._record import BUILDERS, from_plain, to_plain
from deepmatch_ext.models._resuming import TrainingPlace
from deepmatch_ext.optimizers import LAZY
from deepmatch_ext.samplers import InBatchSampler


@dataclass(frozen=True)
class Towers:
    """The tensors that make up the two encoders, and the columns that they read.

    ``item_columns`` begin with the item id. ``catalogue_emb`` is an item's vector given its id alone; None if the
    item's features come with the input. ``times`` names the inputs of the events' times, if the model reads any.
    """

    user_input: list[Any]
    user_emb: Any
    item_input: list[Any]
    item_emb: Any
    catalogue_emb: Any
    user_columns: list[Column]
    item_columns: list[Column]
    times: EventTimes | None = None


@register
class RetrievalModel(keras.Model):
    """A training model from user and item inputs to the loss of each example, (B, 1).

    It is a functional Keras model: ``compile``, ``fit``, ``evaluate``, ``save`` and the rest are Keras's. It adds the
    towers as attributes, checks NumPy inputs before anything runs, and `fit`, `evaluate`, `train_on_batch` and
    `test_on_batch` need no labels: the label is the item id.

    A model with the loss ``logistic`` is trained on labelled pairs: its output is the probability that the user chooses
    the item, labels are 1 and 0, and Keras's own losses and metrics can be used.

    On tf-keras it also works after ``tf.compat.v1.disable_eager_execution()``, in Keras's own graph mode.

    A copy without the weights is ``type(model).from_config(model.get_config())``. On Keras 3
    ``tf.keras.models.clone_model`` gives a plain Keras model of the same layers, without these additions.

    Attributes:
        user_input, user_emb: ``tf.keras.Model(model.user_input, model.user_emb)`` is the user encoder, (B, D), or
            (B, K, D) with K interests.
        item_input, item_emb: the same for the item encoder, (B, D).
        user_columns, item_columns: The columns that the encoders read; those of the item begin with its id.
        candidates: The `CandidateSampler`, whose ``sampler`` draws and whose ``step`` counts the training steps. None
            for a model of labelled pairs.
        loss_layer: The `CandidateLoss`, which has the ``temperature``. None for a model of labelled pairs.
        seed: The builder's argument.
        trains_every_position: Whether a row trains, at every position of its history, the item that came next.

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext import YoutubeDNN
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 3, "mean", "len")
        >>> model = YoutubeDNN([history], [SparseFeat("item", 50, 8)])
        >>> model.compile("adam")
        >>> _ = model.fit({"hist_item": [[7, 5], [9, 8, 7]], "item": np.array([4, 6])}, verbose=0)
        >>> model.user_vectors({"hist_item": [[7, 5]]}).shape, model.item_vectors().shape
        ((1, 8), (50, 8))
    """

    def __init__(self, inputs: Any, outputs: Any, towers: Towers, config: Mapping[str, Any], **kwargs: Any) -> None:
        check_strategy()
        shape = tuple(towers.user_emb.shape)
        if len(shape) not in (2, 3) or None in shape[1:]:
            raise problem("`user_emb`", "have shape (B, D) or (B, K, D), of known D and K", f"shape {shape}")
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        self._towers = towers
        self._builder_config = _Untracked({**config, "dtype_policy": global_policy_name()})
        self._user_encoder = _Untracked(Encoder(towers.user_input, towers.user_emb))
        has_catalogue = towers.catalogue_emb is not None
        self._item_encoder = _Untracked(Encoder(towers.item_input[:1], towers.catalogue_emb) if has_catalogue else None)
        read, target = {input_name(tensor) for tensor in self.inputs}, towers.item_columns[0]
        assert isinstance(target, SparseColumn)
        columns = [*towers.user_columns, *(column for column in towers.item_columns if column.name in read)]
        self._has_labels = any(isinstance(layer, PairProbability) for layer in self.layers)
        # Since `compile`: the functions of several steps an execution, and what was trainable.
        self._compiled_state: _Untracked = _Untracked({})
        policy = self._builder_config.value["dtype_policy"]
        self._reader = _Untracked(
            Reader(columns, self.inputs, target, self._is_unknown, self._has_labels, towers.times, policy)
        )

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
    def candidates(self) -> CandidateSampler | None:
        return self._layer_of(CandidateSampler)

    @property
    def loss_layer(self) -> CandidateLoss | None:
        return self._layer_of(CandidateLoss)

    @property
    def trains_every_position(self) -> bool:
        """Whether a row trains, at every position of its history, what came next: see `Assembly.user_states`."""
        return self._layer_of(TrainedPositions) is not None

    def _layer_of(self, kind: type) -> Any:
        found = [layer for layer in self.layers if isinstance(layer, kind)]
        if len(found) > 1:
            raise AttributeError(f"This model has {len(found)} layers of {kind.__name__}, not one.")
        return found[0] if found else None

    @property
    def seed(self) -> int:
        return self._builder_config.value["arguments"].get("seed", OPTIONAL["seed"])

    # DeepMatch's names.
    user_embedding = user_emb
    item_embedding = item_emb

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any) -> None:
        """Keras's ``compile``. It needs only the optimizer, since the model's output is the loss of each example.

        Layers are frozen by ``trainable = False`` before it, or it is called again with a new optimizer: `fit` and
        `train_on_batch` refuse a model whose layers were frozen or freed since.

        Args:
            optimizer: As in Keras, by name or an instance.
            loss: None: `sampledsoftmaxloss`, which takes the output as it is. Or a function of your own. With labels
                (the builder's loss ``logistic``): any loss of probabilities; None: ``"binary_crossentropy"``.
            args, kwargs: Keras's other arguments. ``metrics`` and ``weighted_metrics`` may hold your own metrics,
                and with labels also Keras's.

        Raises:
            ValueError: The loss or a metric is Keras's: it would compare each example's loss with a meaningless label.
                Or, with labels, the loss is `sampledsoftmaxloss`. Or tables are bfloat16, and the optimizer is not one
                of `deepmatch_ext.optimizers`. Or the optimizer has a ``loss_scale_factor``.
        """
        self._compiled_state.value.clear()
        self._compiled_state.value["trainable"] = set(map(id, self.trainable_variables))
        if factor := getattr(optimizer, "loss_scale_factor", None):
            rule = "have no `loss_scale_factor`, since Keras cannot scale the gradients of tables"
            raise problem("`optimizer`", rule, factor, "Under mixed_float16 Keras scales the loss by itself.")
        if not isinstance(optimizer, LAZY):
            for layer in self.layers:
                if isinstance(layer, EmbeddingTable) and layer.table_dtype != "float32":
                    rule = f"round tables of {layer.table_dtype} at random, or small steps are lost"
                    raise problem("`optimizer`", rule, shown(optimizer), "Take LazyAdam or RowwiseAdam.")
        if self._has_labels:
            if loss is sampledsoftmaxloss:
                rule, got = "be of probabilities and labels, with the builder's loss 'logistic'", "`sampledsoftmaxloss`"
                raise problem("`loss`", rule, got, 'compile(optimizer) takes "binary_crossentropy".')
            super().compile(optimizer, "binary_crossentropy" if loss is None else loss, *args, **kwargs)
            return
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

        ``x`` is name -> array, or the same in another form: a pandas or polars DataFrame, an Arrow table, lists, ragged
        tensors; or a dataset, generator or Sequence of batches of these. A history may be lists of any length, most
        recent first (tf.data's ``ragged_batch`` preserves them): zeros are left out, each list is cut after its first T
        ids and padded with 0, and its length is counted, unless `x` contains it. Its weights, and other histories of
        the same events, are then lists of the same lengths. Beside an array, they are as wide as it is, or as long as
        the row's length says.

        In place of names, a list or tuple may have the inputs in the order of ``model.inputs``. The elements of a
        dataset are then ``((...), y)`` or ``((...), y, sample_weight)``, or ``((...),)`` without labels.

        Under a strategy of `tf.distribute`, a batch is for all replicas together, and each replica takes its part of
        it. ``x`` may also be a function from a ``tf.distribute.InputContext`` to the dataset of one worker, in batches
        for one replica, so that no worker prepares data that others train on: see docs/distributed.md. Such a function
        also works in one process.

        With arrays, the order of each epoch depends on the model's seed and the steps made so far. A run can therefore
        be repeated, and a resumed run sees the same order as an uninterrupted one, if its epochs are whole passes over
        the rows. (Without eager mode, the order is Keras's.)

        A run of a thousand steps or more makes 16 steps per execution, as with ``steps_per_execution``, if each epoch
        passes over the data once, there is one replica, and no callback does anything at a batch.

        ``verbose="auto"`` shows a progress bar in a terminal or a notebook, and elsewhere, as in a log file, prints a
        line for each epoch.

        Callbacks such as EarlyStopping that monitor a figure of `deepmatch_ext.evaluation`'s callbacks must come after
        these callbacks in the list. They need no ``mode``.

        Args:
            x: The inputs, as described above.
            y: Labels from 0 to 1, (rows,) or (rows, 1), for the loss ``logistic`` only.
            sample_weight: The weight of each row in the loss, (rows,), from 0 and above 0 in some row.
            shuffle: Whether the rows of arrays are shuffled before each epoch.
            batch_size, epochs, verbose, callbacks, validation_split, validation_data, class_weight, kwargs: As in
            Keras.

        Returns:
            Keras's ``History``.

        Raises:
            ImportError: ``x`` is a table other than pandas's, and pyarrow is not installed.
            ValueError: An array in ``x`` or ``validation_data`` does not fit its column, or labels or weights are
                masked or out of range; nothing has run then. Datasets, generators and sequences are refused at the
                first wrong batch. Or a callback comes before the one that adds its figure, or has the opposite
                ``mode``. Or layers were frozen or freed since `compile`. Or an argument of Keras's, such as
                ``steps_per_epoch``, is not one that it takes.

        Warns:
            UserWarning: The loss, or that of the held-out examples, is 0 in every epoch, as it is for batches whose
                weights are all 0. Or labels in ``y`` differ, and nothing reads them. Or the columns ``y`` or
                ``sample_weight`` have the index of the frame ``x``, in another order.
        """
        leave_jit_off(self)
        check_optimizer(self)
        check_compilation(self)
        check_class_weight(class_weight, x, y)
        check_callbacks(callbacks)
        agree_on_figures(callbacks)
        epochs = int_at_least("`epochs`", epochs, 0)
        validation_split = number_between("`validation_split`", validation_split, 0, 1)
        if not (isinstance(shuffle, bool | np.bool_) or (isinstance(shuffle, str) and shuffle == "batch")):
            raise problem("`shuffle`", "be True, False or 'batch'", shown(shuffle))
        verbose, kwargs = verbosity(verbose), checked_counts(kwargs)
        set_first_epoch(self, None)  # left by an earlier run
        reader, steps = self._reader.value, kwargs.get("steps_per_epoch")
        in_processes = kwargs.get("use_multiprocessing", False)
        examples = reader.read(x, y, sample_weight, in_processes=in_processes, steps=steps)
        size = as_batch_size(batch_size)
        held_out = reader.held_out(validation_data, kwargs.get("validation_steps"))
        if examples.are_fed_here and held_out is None and validation_split:
            examples, held_out = examples.split(validation_split)
        if not self._has_labels:
            tell_of_labels(y, class_weight)
        self._check_compared(examples, size)
        if held_out is not None:
            held_out_size = kwargs.get("validation_batch_size", size)
            self._check_compared(held_out, held_out_size, "The number of held-out rows in a batch", "held out")
            validation_data = held_out.x if held_out.y is None and held_out.weights is None else held_out.parts
            if held_out.are_fed_here:
                validation_data = held_out.batches(held_out_size)
                kwargs.pop("validation_batch_size", None)
            elif held_out.steps is not None:
                kwargs["validation_steps"] = held_out.steps
        if examples.are_fed_here:
            passes = -(-examples.rows // size)
            place = self._training_place(steps or passes, kwargs, passes)
            whole_batches_of = size if shuffle == "batch" else None
            order = functools.partial(place.next_order, examples.rows, whole_batches_of) if shuffle else None
            batches = examples.batches(size, order)
            # With steps of its own, an epoch may end anywhere in the data.
            examples, batch_size, validation_split = Examples(batches.repeat() if steps else batches), None, 0.0
        elif eager_is_on():
            place = self._training_place(steps or examples.steps or number_of_batches(examples.x), kwargs)
        if examples.steps is not None:
            kwargs["steps_per_epoch"] = examples.steps
        if eager_is_on():
            callbacks = place.among(callbacks)
        if isinstance(examples.x, tf.data.Dataset | tf.distribute.DistributedDataset | Iterator):
            shuffle = False  # Keras 3 warns of its own default
        self._check_trainable()
        build_optimizer(self)
        whole_passes = 0 if kwargs.get("steps_per_epoch") else epochs - kwargs.get("initial_epoch", 0)
        at_once = steps_per_execution(self, examples.x, whole_passes, callbacks)
        with several_steps(self, at_once, self._compiled_state.value):
            done = super().fit(
                examples.x,
                examples.y,
                batch_size,
                epochs,
                verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                class_weight=class_weight,
                sample_weight=examples.weights,
                **kwargs,
            )
        warn_of_no_loss(done.history)
        return done

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Keras's ``evaluate``: the mean sampled loss. ``y`` may be left out; the input is checked as in `fit`.

        Raises:
            ValueError: As in `fit`; also for rows whose weights are all 0, or that are compared with no negatives.

        Warns:
            UserWarning: The loss is 0, as it is if batches of a dataset have no negatives, or weights that are all 0.
        """
        leave_jit_off(self)
        check_compilation(self)
        if kwargs.get("_use_cached_eval_dataset"):  # by `fit`, which has prepared its validation data
            return super().evaluate(x, y, batch_size, verbosity(verbose), sample_weight, **kwargs)
        check_callbacks(kwargs.get("callbacks"))
        verbose, kwargs = verbosity(verbose), checked_counts(kwargs)
        examples = self._reader.value.read(x, y, sample_weight, steps=kwargs.get("steps"))
        self._check_compared(examples, as_batch_size(batch_size), of="evaluated")
        found = super().evaluate(**{**kwargs, **examples.for_keras(batch_size)}, verbose=verbose)
        warn_of_no_loss({"val_loss": [found["loss"]] if isinstance(found, Mapping) else np.ravel(found)[:1]})
        return found

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = "auto", **kwargs: Any) -> Any:
        """Keras's ``predict``: the sampled loss of each example, (B, 1), or, with labels, its probability.

        Vectors come from `user_vectors`.
        """
        leave_jit_off(self)
        check_callbacks(kwargs.get("callbacks"))
        verbose, kwargs = verbosity(verbose), checked_counts(kwargs)
        given = self._reader.value.read(x, asks_labels=False).for_keras(batch_size)
        return super().predict(given["x"], given.get("batch_size"), verbose, **kwargs)

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Keras's ``train_on_batch``. ``y`` may be left out; the input is checked as in `fit`.

        Warns:
            UserWarning: The rows have no negatives, or weights that are all 0, so that the loss is 0.
        """
        leave_jit_off(self)
        check_optimizer(self)
        check_one_batch(self, "train_on_batch")
        check_class_weight(class_weight, x, y)
        given = self._one_batch(x, y, sample_weight, "trained on")
        self._check_trainable()
        build_optimizer(self)
        return super().train_on_batch(given.x, given.y, given.weights, class_weight, *args, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``test_on_batch``. ``y`` may be left out; the input is checked as in `train_on_batch`."""
        leave_jit_off(self)
        check_one_batch(self, "test_on_batch")
        given = self._one_batch(x, y, sample_weight, "evaluated")
        return super().test_on_batch(given.x, given.y, given.weights, *args, **kwargs)

    def _one_batch(self, x: Any, y: Any, sample_weight: Any, of: str) -> Examples:
        given = self._reader.value.read(x, y, sample_weight)
        try:
            self._check_compared(given, given.rows or 0, "The number of rows", of)
        except ValueError as error:  # a loop may end with such a batch
            warn_caller(f"{error} The loss of this batch is 0.", UserWarning)
        return given

    def train_step(self, data: Any) -> Any:
        return without_a_number(self, super().train_step(data))

    def test_step(self, data: Any) -> Any:
        return without_a_number(self, super().test_step(data))

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        build_for_strategy(self)

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        return {**super()._trackable_children(save_type, **kwargs), **hidden_from_checkpoints(self, save_type)}

    def user_vectors(self, x: Any, batch_size: int = 4096) -> np.ndarray:
        """The users' vectors, float32, as from ``tf.keras.Model(model.user_input, model.user_emb).predict(x)``.

        They are (B, D), or (B, K, D) for a model of K interests. Everything that takes user vectors accepts both; with
        K interests, an item's score is its best over the interests. If a user has fewer than K interests, one of them
        is repeated, which changes no best score. Zeros would, since their score of 0 is higher than all negative ones.

        Args:
            x: name -> array of B rows, or another form that `fit` takes: a frame, lists, ragged tensors. Names that
                the user side does not read are ignored. Or a finite ``tf.data.Dataset`` of batches of these; the
                vectors come in its order, which is not known if the dataset shuffles.
            batch_size: Users encoded at a time; the vectors don't depend on it.

        Raises:
            ValueError: An array does not fit its column, or a dataset never ends.

        If the vectors do not fit in memory, compute those of one batch at a time, with the users' ids::

            for k, batch in enumerate(dataset):
                write_vectors(f"users-{k:05d}.parquet", batch["user_id"], model.user_vectors(batch))
        """
        size = positive_int("`batch_size`", batch_size)
        if isinstance(x, tf.data.Dataset):
            user_inputs = user_batches(self._towers.user_columns, x, size, self._towers.times)
            blocks = [self.user_vectors(batch, size) for batch in user_inputs]
            return np.concatenate(blocks) if blocks else np.empty((0, *self.user_emb.shape[1:]), np.float32)
        arrays = self.user_arrays(x)
        return self._user_encoder.value(arrays, len(next(iter(arrays.values()))), size)

    def user_arrays(self, x: Any) -> dict[str, np.ndarray]:
        """name -> array (B, ...) of every user input in ``x``, in the shapes and types that `user_input` has.

        Args:
            x: As for `user_vectors`, except a dataset.

        Raises:
            ValueError: An array is missing or does not fit its column.

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
            remedy = "Take the vectors of each batch by itself." if isinstance(x, Iterator) else ""
            raise problem("`x`", "be user inputs by name, a frame or a tf.data.Dataset", type(x).__name__, remedy)
        times, policy = self._towers.times, self._builder_config.value["dtype_policy"]
        return ArrayReader.of(self._towers.user_columns, self.user_input, times=times, policy=policy).arrays(x)[0]

    def item_vectors(self, batch_size: int = 65536, ids: Any = None) -> np.ndarray:
        """The vectors of all items, (V, D) float32: row k belongs to item id k, and row 0 (padding) is zeros.

        Args:
            batch_size: Items encoded at a time.
            ids: Item ids (n,) whose vectors (n, D) to return. None: all V. If the table has rows to spare, which are
                not items, ``np.arange(item_ids.vocabulary_size)`` leaves them out. If not all vectors fit in memory,
                write those of some ids at a time: `deepmatch_ext.retrieval.write_vectors`.

        Raises:
            ValueError: An id is out of range. Or the item column is hashed, so that a row is not an item; or the model
                was built without the items' features. Then encode the items yourself:
                ``tf.keras.Model(model.item_input, model.item_emb).predict(...)``.

        Example:
            >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
            >>> from deepmatch_ext import YoutubeDNN
            >>> from deepmatch_ext.retrieval import top_n
            >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 3, "mean", "len")
            >>> model = YoutubeDNN([history], [SparseFeat("item", 50, 8)])
            >>> users = model.user_vectors({"hist_item": [[7, 5], [9]]})
            >>> ids, scores = top_n(users, model.item_vectors(), n=10)
            >>> ids.shape, model.item_vectors(ids=[7, 5]).shape
            ((2, 10), (2, 8))
        """
        column = self.check_item_vectors()
        last = column.vocabulary_size - 1
        ids = np.arange(last + 1) if ids is None else check_ids("`ids`", ids, 0, last)
        size = positive_int("`batch_size`", batch_size)
        vectors = self._item_encoder.value({column.name: ids}, len(ids), size)
        vectors[ids == 0] = 0.0
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

    def extended(
        self,
        vocabulary_sizes: Mapping[str, int],
        *,
        item_features: Any = None,
        alike: Seen | None = None,
        sampler_config: Any = None,
        in_use: Mapping[str, int] | None = None,
    ) -> RetrievalModel:
        """A copy of this model with larger tables, for new items and users, that continues its training.

        Rows, dense layers, the optimizer's state, the counts of samplers that learn, the number of steps and the
        features of the catalogue are kept, so known items keep their vectors. A new item's row starts as the row of id
        0 if the model has item features, since that row stands for items known only by their features; otherwise it
        starts as in a new model. If ``alike`` has n items for it, the row is rotated towards their mean by n / (n +
        30), so that few items have little effect, and gets their mean length. A new row of any other table starts as
        the mean of that table's rows.

        This model is unchanged, so both are in memory until it is deleted.

        Args:
            vocabulary_sizes: name -> the new vocabulary size, for columns whose tables grow; a history may stand for
                its item. It is the ``vocabulary_size`` of the map from `IdMap.extended`, or more, to have rows to spare
                for future items. Until then these rows have vectors, too: `item_vectors(ids=)` leaves them out.
            item_features: With features in the catalogue: those of the new items, and of others that have changed, by
                item id, in the forms that the builder takes.
            alike: For each of the first k new rows, in the order of their ids, the ids of similar known items,
                ``(indptr (k + 1,), ids)``; an item may have none. `deepmatch_ext.data.neighbours` finds them.
            sampler_config: A sampler to replace the present one. It is needed for new items if the present one was
                given counts.
            in_use: name -> the number of rows in use, for columns whose tables have rows to spare in this model: the
                ``vocabulary_size`` of the map before `IdMap.extended`. The rows to spare start as new rows do, and
                ``alike`` begins with the first of them. In a table that was given as an array, they stay unchanged.

        Returns:
            A model of the same builder, compiled as this one is.

        Raises:
            ValueError: A name is not a column's, its table is hashed or was given as an array, or a size is smaller
                than before; or features of the new items are missing, or more rows are in use than there are. The
                message names it.

        Example:
            >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
            >>> from deepmatch_ext import YoutubeDNN
            >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 3, "mean", "len")
            >>> model = YoutubeDNN([history], [SparseFeat("item", 50, 8)])
            >>> larger = model.extended({"item": 52}, alike=([0, 2, 2], [7, 9]))
            >>> larger.item_vectors().shape, np.allclose(larger.item_vectors()[:50], model.item_vectors())
            ((52, 8), True)
            >>> roomy = model.extended({"item": 60}, alike=([0, 2, 2], [7, 9]))  # two new items, and 8 rows to spare
            >>> roomy.item_vectors(ids=np.arange(52)).shape
            (52, 8)
            >>> next_day = roomy.extended({"item": 60}, in_use={"item": 52}, alike=([0, 1], [7]))  # a third one
        """
        config = self.get_config()

        def rebuilt(sizes: Mapping[str, int], changed: Mapping[str, Any]) -> Any:
            arguments = dict(config["arguments"])
            for side in ("user_feature_columns", "item_feature_columns"):
                arguments[side] = [with_table_sizes(column, sizes) for column in arguments[side]]
            return self._rebuilt({**config, "arguments": arguments}, changed)

        return extended(self, vocabulary_sizes, item_features, alike, sampler_config, in_use, rebuilt)

    def _training_place(
        self, steps_per_epoch: int | None, fit_arguments: Mapping[str, Any], steps_per_pass: int = 1
    ) -> TrainingPlace:
        step = self.optimizer.iterations if self.candidates is None else self.candidates.step
        initial_epoch = fit_arguments.get("initial_epoch", 0)
        return TrainingPlace(self.seed, lambda: int(raw_variable(step)), steps_per_epoch, steps_per_pass, initial_epoch)

    def save(self, filepath: Any, overwrite: bool = True, *args: Any, **kwargs: Any) -> None:
        """Keras's ``save``. The file is written under another name first, so an existing one stays whole until the end.

        ``tf.keras.models.load_model(filepath)`` reads a ``.keras`` file, with ``safe_mode`` on and no `custom_objects`;
        an ``.h5`` file needs ``deepmatch_ext.layers.custom_objects``. ``tf.keras.models.save_model`` does not use this
        method and writes in place. A process that is killed while it saves leaves a hidden file with ``.tmp`` in its
        name, which may be deleted.

        Under a MultiWorkerMirroredStrategy all workers call it, and the first one writes the file.

        Args:
            filepath: The file, ``.keras``, or a name that Keras's ``save`` takes.
            overwrite: Whether an existing file is replaced. Otherwise Keras asks.
            args, kwargs: Keras's other arguments.

        Raises:
            ValueError: The model has an argument that no file can hold, such as a lambda as activation; nothing is
                written then.

        Warns:
            UserWarning: A loss or a metric is a function that is not registered with Keras, without which the file
                can't be loaded.

        Example:
            >>> import tempfile
            >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
            >>> from deepmatch_ext import YoutubeDNN
            >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 3, "mean", "len")
            >>> model = YoutubeDNN([history], [SparseFeat("item", 50, 8)])
            >>> path = tempfile.mkdtemp() + "/model.keras"
            >>> model.save(path)
            >>> again = tf.keras.models.load_model(path)
            >>> bool((again.item_vectors() == model.item_vectors()).all())
            True
        """
        check_path(filepath)
        self.get_config()  # refuses what no file could hold, before anything is written
        self._tell_of_nameless()
        with whole_model_file(filepath, overwrite, self._writes_files()) as path, compilation_kept(self):
            super().save(path, overwrite, *args, **kwargs)
            if path != filepath:
                describe_weights(path, self)

    def save_weights(self, filepath: Any, overwrite: bool = True, *args: Any, **kwargs: Any) -> None:
        """Keras's ``save_weights``, written as in `save`, with a description that `load_weights` checks.

        Any name that ends in ``.h5`` is allowed. Keras 3 requires ``.weights.h5``; for other names, the older format is
        written, which its ``load_weights`` reads.
        """
        check_path(filepath)
        name = str(filepath)
        if KERAS_3 and not args and not kwargs and name.endswith(".h5") and not name.endswith(".weights.h5"):
            self.save(filepath, overwrite, include_optimizer=False)
            return
        # Checkpoints and shards, which have several files, are left to Keras.
        with whole_model_file(filepath, overwrite, self._writes_files()) as path:
            super().save_weights(path, overwrite, *args, **kwargs)
            if path != filepath:
                describe_weights(path, self)

    def _tell_of_nameless(self) -> None:
        for name in ("loss", "metrics", "weighted_metrics"):
            try:
                check_named(f"`{name}` of `compile`", compiled_with(self, name))
            except ValueError as error:
                warn_caller(f"{error} Otherwise only load_model(path, compile=False) reads the file.", UserWarning)

    def _writes_files(self) -> bool:
        return writes_files(self.distribute_strategy)

    def load_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras's ``load_weights``; a ``.weights.h5`` or ``.keras`` file is first checked against the model.

        Raises:
            ValueError: The weights are another model's, or of a format that this version does not know.
            OSError: The file is damaged or does not exist.
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
        plain = {key: to_plain(f"`{key}`", value) for key, value in self._builder_config.value.items()}
        return {"format": FORMAT, "name": self.name, "frozen": frozen, **plain}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Any:
        check_config(config, BUILDERS)
        return cls._rebuilt(config)

    @staticmethod
    def _rebuilt(config: Mapping[str, Any], changed: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """A model of the same config, except some arguments."""
        policy = global_policy_name()
        set_global_policy(config["dtype_policy"])
        try:
            arguments = {key: from_plain(value) for key, value in config["arguments"].items()}
            model = BUILDERS[config["builder"]](**{**arguments, **changed})
        finally:
            set_global_policy(policy)
        rename(model, config["name"])
        for name in config["frozen"]:
            model.get_layer(name).trainable = False
        return model

    def compile_from_config(self, config: Any) -> None:
        """Keras's ``compile_from_config``, for a file written by any version of Keras."""
        compile_as_saved(self, compilation_here(config))

    def _check_trainable(self) -> None:
        """Refuses weights that were frozen or freed since `compile`.

        tf-keras trains what was trainable then, and Keras 3 what was trainable when it last traced the step, which it
        does again for several steps per execution.
        """
        trainable = set(map(id, self.trainable_variables))
        if changed := trainable ^ self._compiled_state.value.get("trainable", trainable):
            names = [layer.name for layer in self.layers if not changed.isdisjoint(map(id, layer.weights))]
            remedy = "Call `compile` again, with a new optimizer."
            got = f"another one since for {listing(names)}"
            raise problem("`trainable` of each layer", "be as it was when the model was compiled", got, remedy)

    def _check_compared(
        self, examples: Examples, batch_size: int, what: str = "`batch_size`", of: str = "trained on"
    ) -> None:
        """Refuses rows that are compared with nothing, whose loss is always 0: all weigh 0, or have no negatives.

        Args:
            examples: Checked if they are arrays; batches are not known in advance.
            batch_size: Rows in a batch.
            what: Says what the number of rows in a batch is, for the error message.
            of: What is done with the rows.
        """
        if examples.rows is None:
            return
        check_some_weight(examples.weights, of)
        of_batch = self.candidates is not None and isinstance(self.candidates.sampler, InBatchSampler)
        if min(examples.rows, batch_size) == 1 and of_batch and not self.trains_every_position:
            remedy = "Or take another sampler, or a MixedSampler around it."
            raise problem(what, "be at least 2 if the batch's items are the negatives", "1", remedy)

    def _is_unknown(self, items: tf.Tensor) -> tf.Tensor:
        """Which items are not in their column's file of keys: they would be trained as padding."""
        column = self._towers.item_columns[0]
        assert isinstance(column, SparseColumn)
        of_file = [
            layer
            for layer in self.layers
            if isinstance(layer, HashIds) and layer.vocabulary_path == column.vocabulary_path
        ]
        return tf.equal(of_file[0](items), 0)


own_objects["RetrievalModel"] = RetrievalModel


@dataclass(frozen=True)
class _Untracked:
    """Keeps Keras from wrapping the value, or from saving it a second time."""

    value: Any
