"""What a check raises if a promise is broken, and comparisons of vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from deepmatch_ext._checks import shown

TOLERANCE = 1e-5  # of vectors that should be equal, relative to the largest entry


class Broken(AssertionError):
    """A broken promise, in words."""


@contextmanager
def saying(who: str) -> Iterator[None]:
    """Turns a broken promise, or an unexpected error, into an AssertionError that begins with who failed."""
    try:
        yield
    except Broken as broken:
        raise AssertionError(f"{who}: {broken}") from None
    except Exception as error:
        raise AssertionError(f"{who}: no error was expected; got {one_line(error)}") from error


def expect(holds: Any, expected: str, got: Any) -> None:
    """Raises `Broken` unless ``holds``, saying what was expected and what was found, as a phrase or a value."""
    if not holds:
        raise Broken(f"{expected}; got {got if isinstance(got, str) else shown(got)}")


def expect_equal(came: Any, expected: Any, what: str, tolerance: float = TOLERANCE) -> None:
    """Equal up to a ``tolerance``, relative to the largest expected value."""
    came, expected = np.asarray(came), np.asarray(expected)
    expect(came.shape == expected.shape, f"{what}, of shape {expected.shape}", f"shape {came.shape}")
    expect(np.isfinite(came).all(), what, "NaN or infinity")
    if came.size:
        difference = float(np.abs(came.astype(np.float64) - expected).max())
        expect(
            difference <= tolerance * max(1.0, float(np.abs(expected).max())), what, f"a difference of {difference:.2g}"
        )


def expect_equal_weights(
    model: Any, expected: Sequence[np.ndarray], what: str, came: Sequence[np.ndarray] | None = None
) -> None:
    """Equal weights, of the model or of ``came``, up to a tolerance."""
    for weight, one, other in zip(model.weights, came or model.get_weights(), expected, strict=True):
        expect_equal(one, other, f"{what}, {getattr(weight, 'path', weight.name)!r} too")


def expect_best(ids: np.ndarray, came: np.ndarray, scores: np.ndarray, who: str) -> None:
    """Each user's best items, each once; of scores that differ only by rounding, either may come first."""
    n, ids = ids.shape[1], np.asarray(ids, np.int64)
    expected = np.take_along_axis(scores, best(scores, n), axis=1)
    expect(all(len(set(row)) == n for row in ids.tolist()), f"{who} must find each item once", "an item twice")
    expect_equal(came, expected, f"{who} must give the scores of the best items")
    expect_equal(np.take_along_axis(scores, ids, axis=1), expected, f"{who} must find the best items")


def scores_of(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Inner products (B, V) of user vectors (B, D) with item vectors (V, D); the best for (B, K, D); padding -inf."""
    scores = users @ items.T
    scores = scores.max(axis=1) if scores.ndim == 3 else scores
    scores[:, 0] = -np.inf
    return scores


def best(scores: np.ndarray, n: int) -> np.ndarray:
    """The ids (B, n) of the highest scores (B, V), the best first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :n]


def one_line(error: BaseException) -> str:
    """An error's class and the beginning of its text."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 1200 else text[:1200] + ' ...'}"


def as_json(value: Any) -> Any:
    """Plain data as it comes back from a file."""
    return json.loads(json.dumps(value, default=lambda each: each.item()))


def rows_where(condition: np.ndarray, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Rows of ``some`` where the condition holds, else of ``others``."""
    return np.where(condition.reshape(-1, *[1] * (others.ndim - 1)), some, others)
