"""How a recommender trains its model on some of its events."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepmatch_ext.data import seen_before, windows
from deepmatch_ext.data.window_dataset import window_dataset
from deepmatch_ext.evaluation.callback import RetrievalMetrics
from deepmatch_ext.recommender.wording import own_words

_PATIENCE = 5


def trained(
    recommender: Any, targets: np.ndarray, epochs: int, validated: bool, verbose: int
) -> tuple[int, dict[str, list[float]]]:
    """Trains the model; returns the passes up to the best one, and the history with theirs appended.

    Args:
        recommender: The `Recommender`.
        targets: The rows to train on.
        epochs: Passes over them, at most.
        validated: Whether the events that are held out for validation say when to stop.
        verbose: As `Recommender.fit` has it.
    """
    events, model, history = recommender.interactions, recommender.model, recommender.history
    watch = []
    if validated:
        rows = recommender._split.validation
        x = windows(events, rows, recommender.max_len)
        seen = seen_before(events, rows) if recommender.exclude_seen else None
        with own_words():
            watch = [
                RetrievalMetrics(
                    x, x[recommender.item], seen=seen, ns=[10], patience=_PATIENCE, restore_best_weights=True
                )
            ]
    before = len(history.get("loss", []))
    size = recommender.batch_size
    if model.trains_every_position:
        of_rows = np.minimum(events.position[targets], recommender.max_len)
        size = max(1, round(size * len(targets) / int(np.sum(of_rows))))
    seed = recommender.seed + before  # later passes: other orders
    x = window_dataset(events, targets, recommender.max_len, size, weight=recommender.weight, seed=seed)
    done = model.fit(x, epochs=epochs, callbacks=watch, verbose="auto" if verbose == 1 else verbose)
    joined = {}
    for name in {**history, **done.history}:
        figures = history.get(name, [np.nan] * before)
        joined[name] = [*figures, *done.history.get(name, [np.nan] * len(done.epoch))]
    best = watch[0].best_epoch if watch else None
    passes = len(done.epoch) if best is None else best + 1
    if watch and verbose:
        all_of_them = best == epochs - 1
        more = f", as many as were made: fit(..., epochs={2 * epochs}) may find a better number" if all_of_them else ""
        print(f"best after {passes} epochs{more}; fit(events, epochs={passes}) learns from all events")
    return passes, joined
