"""The callback that ranks held-out items after every epoch of ``fit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepmatch_ext._arrays import Seen, check_ids, check_seen, seen_rows
from deepmatch_ext._checks import as_flag, one_of, positive_int, problem
from deepmatch_ext._frames import arrays_of
from deepmatch_ext._keras import keras
from deepmatch_ext.evaluation.metrics import NAME_FORMAT, check_groups, check_ns, metrics_of, ranking_metrics
from deepmatch_ext.evaluation.ranks import check_seen_targets, check_targets, inner_products, ranks_of


class RetrievalMetrics(keras.callbacks.Callback):
    """Ranks each user's held-out item among all items after every epoch, and adds the metrics to Keras's logs.

    The metrics appear beside the loss, as ``val_HR@10`` and so on, in the progress bar, in ``History``, and for
    callbacks that come after this one. `fit` makes Keras's EarlyStopping, ModelCheckpoint and similar callbacks treat
    the highest value as the best, and raises an error if they come before this one. The loss says little about quality:
    it is sampled, and it keeps falling long after the ranking has stopped improving.

    `best`, the best weights and `patience` refer to the epochs of one call of ``fit``. They are reset if Keras's
    BackupAndRestore resumes a run.

    Args:
        user_input: The model's user inputs of the held-out events, B rows in any form that `user_vectors` takes by
            name: a dictionary of arrays or lists, or a frame.
        targets: (B,) the item ids of the held-out events.
        seen: The items that each row has had before, ``(indptr (B + 1,), items)``, which are left out of the ranking:
            `deepmatch_ext.data.seen_before` makes them. Omit `seen` if your product recommends items again.
        seen_targets: How to treat a target that is in its own row's `seen`: "miss" counts it as a miss at every N,
            since it is never recommended; "leave_out" leaves the row out of every average, and does not encode it.
        ns: The cut-offs N of the metrics.
        groups: (B,) which rows belong to one user, if users have several held-out events.
        monitor: The metric for early stopping and the best weights; higher is better. None: NDCG at 10.
        patience: Training stops after this many epochs without a better `monitor`. None: never.
        restore_best_weights: Whether the weights of the best epoch are restored when training ends.
        batch_size: Users encoded at a time.
        name_format: How the metrics are named after ``val_``. For experiment trackers that reject ``@``, such as
            MLflow, give ``"{metric}_at_{n}"``.

    Attributes:
        figure_modes: The metrics' names in the logs, each with ``"max"``, since higher is better.
        best: The best value of `monitor`, and ``best_epoch`` its epoch, counted from 0.

    Raises:
        ValueError: `monitor` is not among the metrics, the arrays don't fit each other, or every row is left out.

    Warns:
        SeenTargetsWarning: Some targets are in their own row's `seen`. The warning comes once, here.

    Example:
        >>> watch = RetrievalMetrics({"hist_item": [[1, 0]], "hist_len": [1]}, targets=[2], patience=3)
        >>> watch.monitor
        'val_NDCG@10'
    """

    def __init__(
        self,
        user_input: Any,
        targets: Any,
        *,
        seen: Seen | None = None,
        seen_targets: str = "miss",
        ns: Sequence[int] = (10, 50),
        groups: Any = None,
        monitor: str | None = None,
        patience: int | None = None,
        restore_best_weights: bool = False,
        batch_size: int = 4096,
        name_format: str = NAME_FORMAT,
    ) -> None:
        super().__init__()
        self.user_input = arrays_of("`user_input`", user_input)
        self.targets = check_targets(targets)
        for name, values in self.user_input.items():
            if len(values) != len(self.targets):
                raise problem(
                    f"Input {name!r}", f"have a row for each of the {len(self.targets)} targets", f"{len(values)} rows"
                )
        self.seen = None if seen is None else check_seen("`seen`", seen, len(self.targets))
        self.groups = None if groups is None else check_groups(groups, len(self.targets))
        self.ns, self.name_format = check_ns(ns), name_format
        names = ranking_metrics(np.zeros(1, np.int64), self.ns, name_format=name_format)
        self.figure_modes = {f"val_{name}": "max" for name in names}
        default = f"val_{name_format.format(metric='NDCG', n=10)}"
        self.monitor = one_of("`monitor`", default if monitor is None else monitor, self.figure_modes)
        self.patience = patience if patience is None else positive_int("`patience`", patience)
        self.restore_best_weights = as_flag("`restore_best_weights`", restore_best_weights)
        self.batch_size = positive_int("`batch_size`", batch_size)
        self._held = check_seen_targets(self.targets, self.seen, seen_targets)
        if seen_targets == "leave_out" and self._held.any():
            kept = np.flatnonzero(~self._held)
            self.user_input = {name: values[kept] for name, values in self.user_input.items()}
            self.targets, self._held = self.targets[kept], self._held[kept]
            self.seen = None if self.seen is None else seen_rows(self.seen, kept)
            self.groups = None if self.groups is None else self.groups[kept]
        self.best = -np.inf
        self.best_epoch: int | None = None
        self._best_weights: list[np.ndarray] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self.best, self.best_epoch, self._best_weights = -np.inf, None, None
        self.model.user_arrays(self.user_input)
        vocabulary_size = self.model.check_item_vectors().vocabulary_size
        check_ids("`targets`", self.targets, 1, vocabulary_size - 1)
        if self.seen is not None:
            check_seen("`seen`", self.seen, len(self.targets), vocabulary_size)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        metrics = {f"val_{name}": value for name, value in self.evaluate().items()}
        if logs is not None:
            logs.update(metrics)
        if metrics[self.monitor] > self.best:
            self.best, self.best_epoch = metrics[self.monitor], epoch
            if self.restore_best_weights:
                self._best_weights = self.model.get_weights()
        elif self.patience is not None and self.best_epoch is not None and epoch - self.best_epoch >= self.patience:
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        if self._best_weights is not None:
            self.model.set_weights(self._best_weights)
            self._best_weights = None

    def evaluate(self) -> dict[str, float]:
        """The metrics of the current model."""
        users = self.model.user_vectors(self.user_input, self.batch_size)
        score = inner_products(users, self.model.item_vectors())
        ranks = ranks_of(score, self.targets, self.seen, self._held)
        return metrics_of(ranks, self.targets, self.ns, self.groups, "miss", self.name_format)
