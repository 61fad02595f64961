"""Checks of what another process reads."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deepmatch_ext.testing._checks.check import check
from deepmatch_ext.testing._expect import expect, expect_best, expect_equal, expect_equal_weights, scores_of
from deepmatch_ext.testing._trial import Trial


@check
def reload(trial: Trial) -> None:
    """A ``.keras`` file gives equal vectors in a fresh process."""
    what, vectors = "a model that a fresh process loads from its .keras file", trial.learnt.two_epochs.half_vectors
    _expect_same_vectors(trial, "file", what, vectors)


@check
def reload_weights(trial: Trial) -> None:
    """A model that is rebuilt in a fresh process, from its config and its file of weights, gives equal vectors."""
    what, learnt = "a model that a fresh process rebuilds and loads the weights of", trial.learnt
    _expect_same_vectors(trial, "weights", what, {"user": learnt.user_vectors, "item": learnt.item_vectors})


@check
def resume(trial: Trial) -> None:
    """A run that stops after an epoch and resumes in a fresh process ends with the weights of an uninterrupted one."""
    came = _of_fresh_process(trial, "resumed")
    what = "a run that was saved, loaded and resumed must end with the weights of an uninterrupted one"
    weights = [came[f"{k}"] for k in range(len(came))]
    expect_equal_weights(trial.trained, trial.learnt.two_epochs.weights, what, weights)


@check
def export(trial: Trial) -> None:
    """An export gives the model's vectors and best items, in a process that has not imported this package."""
    came = _of_fresh_process(trial, "export")
    users, items = trial.learnt.user_vectors, trial.learnt.item_vectors
    expect_equal(came["user_vector"], users, "the export's signature user_vector must give `user_vectors`")
    expect_best(came["item_ids"], came["scores"], scores_of(users, items), "the export's signature recommend")


def _of_fresh_process(trial: Trial, way: str) -> dict[str, np.ndarray]:
    came = trial.read_again[way]
    expect(isinstance(came, dict), "a fresh process must read what was written", came)
    return came


def _expect_same_vectors(trial: Trial, way: str, what: str, expected: Mapping[str, np.ndarray]) -> None:
    came = _of_fresh_process(trial, way)
    expect_equal(came["user"], expected["user"], f"{what} must give equal user vectors")
    expect_equal(came["item"], expected["item"], f"{what} must give equal item vectors")
