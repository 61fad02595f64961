"""What `fit` has to know about a resumed run."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._distribute import check_workers_agree, writes_files
from deepmatch_ext._keras import drop_torn_backup, keras, redirect_backup, set_first_epoch
from deepmatch_ext._passes import permutation


class TrainingPlace(keras.callbacks.Callback):
    """The position of a run after callbacks such as ``BackupAndRestore`` have restored its weights.

    The weights count the training steps. This number determines the next epoch and the order of its rows, both as in an
    uninterrupted run.

    Args:
        seed: Determines the order of the rows, together with the number of the step that begins a pass over them.
        steps_made: Returns the number of training steps that the weights have counted.
        steps_per_epoch: Of this run; None if unknown.
        steps_per_pass: The steps that see each row once; an epoch, unless that was given another length.
        initial_epoch: The run's first epoch, if it is not resumed.
    """

    def __init__(
        self,
        seed: int,
        steps_made: Callable[[], int],
        steps_per_epoch: int | None,
        steps_per_pass: int = 1,
        initial_epoch: int = 0,
    ) -> None:
        super().__init__()
        self._seed, self._steps_made, self._steps_per_pass = seed, steps_made, steps_per_pass
        self._steps_per_epoch, self._initial_epoch = steps_per_epoch, initial_epoch
        self._at_first = steps_made()
        self._backups: list[Any] = []
        self._nowhere: Any = None
        self._former: list[dict[str, Any]] = []
        self._orders_from(self._at_first)

    def among(self, callbacks: Any) -> Any:
        """The callbacks of a call of ``fit``, with this one after those that restore weights."""
        if isinstance(callbacks, keras.callbacks.CallbackList):  # the caller's, and complete
            return callbacks
        callbacks = [] if callbacks is None else tf.nest.flatten(callbacks)
        self._backups = [each for each in callbacks if isinstance(each, keras.callbacks.BackupAndRestore)]
        for backup in self._backups:
            drop_torn_backup(backup)
        return [*callbacks, self]

    def on_train_begin(self, logs: Any = None) -> None:
        # There may be fewer steps than before: the same model again, restored from a backup of an earlier `fit`.
        strategy = self.model.distribute_strategy
        remedy = "Give the workers' BackupAndRestore one folder that all of them see."
        check_workers_agree(strategy, "The number of training steps made", self._steps_made(), remedy)
        if not writes_files(strategy):  # this worker has read the first one's backup
            self._nowhere = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            self._former = [redirect_backup(backup, self._nowhere.name) for backup in self._backups]
        self._at_first = min(self._at_first, self._steps_made())
        self._orders_from(self._at_first)
        if self._steps_per_epoch is None:
            return
        epochs, rest = divmod(self._steps_made() - self._at_first, self._steps_per_epoch)
        self._orders_from(self._at_first + epochs * self._steps_per_epoch)
        if self._backups and epochs > 0 and not rest:
            set_first_epoch(self.model, self._initial_epoch + epochs)

    def on_train_end(self, logs: Any = None) -> None:
        for backup, former in zip(self._backups, self._former, strict=False):
            vars(backup).update(former)
        self._nowhere, self._former = None, []

    def _orders_from(self, steps: int) -> None:
        self._first, self._passes = steps + 1, itertools.count()

    def next_order(self, rows: int, whole_batches_of: int | None = None) -> np.ndarray:
        """The order of the rows in the next pass over them, (rows,); `permutation` explains whole batches.

        tf.data calls this on a different thread from the one that counts the steps, so the count is not read here.
        """
        draw = np.random.default_rng([self._seed, self._first + next(self._passes) * self._steps_per_pass])
        return permutation(draw, rows, whole_batches_of)
