"""A builder with small columns and data, and the models that its checks share."""

from __future__ import annotations

import functools
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepmatch_ext._checks import problem, shown
from deepmatch_ext._keras import keras
from deepmatch_ext.features import (
    Column,
    SparseColumn,
    input_names,
    read_columns,
)
from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.testing._data import (
    BATCH,
    ROWS,
    default_item,
    default_user_columns,
    every_kind,
    is_history,
    item_features,
    labels_for,
    planted,
    with_negatives,
)
from deepmatch_ext.testing._expect import best, scores_of
from deepmatch_ext.testing._fresh_process import read_again

TOP = 3  # items for each user in the check of whether the next item was learnt


class Trial:
    """A builder with small columns and data, and what its checks share: a trained model and reloaded files.

    Args:
        builder, columns, arguments: As for `check_model`.

    Example:
        >>> from deepmatch_ext import YoutubeDNN
        >>> from deepmatch_ext.testing import CHECKS
        >>> CHECKS["attributes"](Trial(YoutubeDNN, num_sampled=20))
    """

    def __init__(self, builder: Callable[..., Any], columns: Any = None, **arguments: Any) -> None:
        if not callable(builder) or not hasattr(builder, "__name__"):
            raise problem("`builder`", "be a function such as YoutubeDNN", shown(builder))
        if columns is not None and (not isinstance(columns, tuple | list) or len(columns) != 2):
            raise problem("`columns`", "be a pair, user columns and item columns", shown(columns))
        self.builder, self.arguments = builder, arguments
        self.name: str = builder.__name__
        self.has_own_columns = columns is not None
        self.user_columns = read_columns("columns[0]", default_user_columns() if columns is None else columns[0])
        self.item_columns = read_columns("columns[1]", [default_item()] if columns is None else columns[1])
        self.item = _item_of(self.item_columns)
        if self.item.embedding_name not in [c.sparsefeat.embedding_name for c in self.user_columns if is_history(c)]:
            rule, got = "have a history that shares the item's table by its `embedding_name`", "none"
            raise problem("`columns[0]`", rule, got)
        self.parameters = dict(inspect.signature(builder).parameters)
        self.column_parameters = list(self.parameters)[:2]
        self._has_labels: bool | None = None  # known once there is a model

    # Models and data.

    def model(
        self, user: Sequence[Column] | None = None, items: Sequence[Column] | None = None, **changes: Any
    ) -> RetrievalModel:
        """A new model, with the given columns or arguments in place of the trial's."""
        user = self.user_columns if user is None else user
        items = self.item_columns if items is None else items
        arguments = {**self.arguments, **changes}
        if len(items) > 1 and "item_features" in self.parameters:
            arguments.setdefault("item_features", item_features(items))
        model = self.builder([*user], [*items], **arguments)
        if isinstance(model, RetrievalModel):
            self._has_labels = model.candidates is None
        return model

    def data(self, rows: int, seed: int, user: Sequence[Column] | None = None, items: Any = None) -> dict[str, Any]:
        """Rows of model inputs in which the next item follows from the last; for labelled pairs, in half of them."""
        x = self._positives(rows, seed, user, items)
        if self._has_labels is None:
            self.model()
        return with_negatives(x, self.item.name) if self._has_labels else x

    def _positives(self, rows: int, seed: int, user: Any = None, items: Any = None) -> dict[str, Any]:
        return planted(
            self.user_columns if user is None else user, self.item_columns if items is None else items, rows, seed
        )

    @functools.cached_property
    def x(self) -> dict[str, np.ndarray]:
        """The rows that models are trained with."""
        return self.data(ROWS, 0)

    @functools.cached_property
    def users(self) -> dict[str, np.ndarray]:
        """Other rows, with the user side only."""
        return {name: values for name, values in self.held_out.items() if name in input_names(self.user_columns)}

    @functools.cached_property
    def held_out(self) -> dict[str, np.ndarray]:
        """Rows that no model is trained with."""
        return self._positives(ROWS // 2, 1)

    def kinds(self) -> list[tuple[list[Column], list[Column]]]:
        """The pair of user and item columns that was given, or pairs that together have every kind."""
        if self.has_own_columns:
            return [(self.user_columns, self.item_columns)]
        return every_kind("item_features" in self.parameters)

    def every_item(self) -> dict[str, np.ndarray]:
        """The item side's inputs, of all items: ids, and the features that the models were built with."""
        ids = {self.item.name: np.arange(self.item.vocabulary_size).astype(self.item.dtype)}
        given = self.arguments.get("item_features")
        return {**ids, **(given if isinstance(given, Mapping) else item_features(self.item_columns))}

    # What is trained and read again once, for several checks.

    @functools.cached_property
    def learnt(self) -> Learnt:
        """A model that was trained until it stopped learning, what it learnt, and a run of it that is resumed."""
        return Learnt(self)

    @property
    def trained(self) -> RetrievalModel:
        return self.learnt.model

    @functools.cached_property
    def read_again(self) -> dict[str, Any]:
        """What a fresh process computed from the trained model's files: arrays, or the text of an error."""
        return read_again(self.builder, self.trained, self.learnt.two_epochs.half, self.users, self.x)


class Learnt:
    """A model trained until it has learnt enough, and its results. It is kept, compiled, for further runs."""

    MOST_EPOCHS = 40

    def __init__(self, trial: Trial) -> None:
        self.trial, self.model = trial, trial.model()
        self.model.compile(LazyAdam(0.04))
        self._first = _state(self.model)
        self.epochs, self.hits = 0, 0.0
        while self.epochs < self.MOST_EPOCHS and self.hits < self.least:
            self.model.fit(trial.x, labels_for(self.model, ROWS), BATCH, epochs=5, verbose=0)
            self.epochs, self.hits = self.epochs + 5, self.hit_rate()
        self.user_vectors = self.model.user_vectors(trial.users)
        self.item_vectors = self.model.item_vectors()

    @property
    def chance(self) -> float:
        """The hit rate of a random ranking."""
        return TOP / (self.trial.item.vocabulary_size - 1)

    @property
    def least(self) -> float:
        """The hit rate that is required."""
        return max(0.5, 3 * self.chance)

    @contextmanager
    def from_the_start(self) -> Iterator[RetrievalModel]:
        """The model as it was before training, for another run; at the end, its trained state is restored."""
        trained = _state(self.model)
        _put_back(self.model, self._first)
        try:
            yield self.model
        finally:
            _put_back(self.model, trained)

    def hit_rate(self) -> float:
        """Fraction of the held-out rows whose item is among the `TOP` nearest."""
        scores = scores_of(self.model.user_vectors(self.trial.users), self.model.item_vectors())
        target = self.trial.held_out[self.trial.item.name].astype(np.int64).reshape(-1)
        return float(np.mean(np.any(best(scores, TOP) == target[:, np.newaxis], axis=1)))

    @functools.cached_property
    def two_epochs(self) -> TwoEpochs:
        """A run of two epochs, the second of which another process repeats."""
        with self.from_the_start() as model, tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            vectors: dict[str, np.ndarray] = {}

            def save(epoch: int, logs: Any) -> None:
                if epoch == 0:
                    vectors.update(user=model.user_vectors(self.trial.users), item=model.item_vectors())
                    model.save(path)

            saver = keras.callbacks.LambdaCallback(on_epoch_end=save)
            model.fit(self.trial.x, labels_for(model, ROWS), BATCH, epochs=2, verbose=0, callbacks=[saver])
            return TwoEpochs(path.read_bytes(), vectors, model.get_weights())


@dataclass(frozen=True)
class TwoEpochs:
    """A model's file and its vectors (by side, "user" and "item") after one epoch, and its weights after two."""

    half: bytes
    half_vectors: dict[str, np.ndarray]
    weights: list[np.ndarray]


def _item_of(items: Sequence[Column]) -> SparseColumn:
    if not items or not isinstance(items[0], SparseColumn) or items[0].use_hash:
        raise problem("`columns[1]`", "begin with a SparseFeat of integer ids, the item", shown(items[:1]))
    return items[0]


def _state(model: RetrievalModel) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights of a compiled model, and of its optimizer."""
    model.optimizer.build(model.trainable_variables)
    return model.get_weights(), [np.array(variable) for variable in model.optimizer.variables]


def _put_back(model: RetrievalModel, state: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    """Restores a model's state: training the same model again, instead of a new one, saves tracing."""
    model.set_weights(state[0])
    for variable, value in zip(model.optimizer.variables, state[1], strict=True):
        variable.assign(value)
