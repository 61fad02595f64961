"""Ranks of targets among the whole catalogue, and of targets that are never recommended.

A target that ``seen`` excludes is never recommended, so its rank is ``MISSED``, and a warning says how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deepmatch_ext._arrays import Seen, check_ids, check_seen, check_vectors, seen_pairs
from deepmatch_ext._checks import as_function, one_of, positive_int, problem, warn_caller
from deepmatch_ext._interests import best_scores

Score = Callable[[int, int], np.ndarray]
"""``score(start, stop)`` returns the scores (stop - start, V) of rows start..stop; column 0 is padding."""

MISSED = 2**31 - 1
"""The rank of a target that is in its row's ``seen``: it is never recommended, so it is a miss at every N."""

SEEN_TARGETS = ("miss", "leave_out")


class SeenTargetsWarning(UserWarning):
    """Some targets are in their own row's ``seen``, whose items are not recommended. The message says how many.

    Example:
        >>> import warnings
        >>> scores, seen = np.array([[0.0, 0.1, 0.4]]), ([0, 1], [2])  # the row has had item 2
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", SeenTargetsWarning)  # or "error", to stop instead
        ...     ranks = target_ranks(lambda start, stop: scores[start:stop], [2], seen=seen)
        >>> bool(ranks[0] == MISSED)
        True
    """


def target_ranks(score: Score, targets: np.ndarray, *, seen: Seen | None = None, block_size: int = 1024) -> np.ndarray:
    """How many other items score at least as high as each row's target: 0 is best.

    Ties count against the model, so the targets of a model that gives every item the same score are ranked last. Items
    that the row has already seen are left out of the ranking. A target that is one of them gets the rank ``MISSED``,
    since ``top_n(exclude=seen)`` never returns it. When one user has several targets (several rows), the user's other
    targets are ordinary items: they are ranked, unless ``seen`` lists them.

    Args:
        score: ``score(start, stop)`` gives the scores (stop - start, V) of rows start..stop. Column 0 is padding and is
            never ranked. -inf is allowed; NaN is refused, since it would compare as lower than any target.
            The array is only read.
        targets: The target item of each row, (B,), ids 1..V-1.
        seen: The items that each row has already had, ``(indptr (B + 1,), item ids)``. See ``Seen``. Omit ``seen`` if
            your product recommends items again: all items are then ranked.
        block_size: Rows scored at once; the largest arrays held are (block_size, V).

    Returns:
        Ranks, (B,) int64, each 0..V-2 or ``MISSED``.

    Warns:
        SeenTargetsWarning: Some targets are in their own row's ``seen``.

    Raises:
        ValueError: ``targets`` is empty or holds an id out of 1..V-1, ``seen`` is not of the form described, or the
            scores have the wrong shape or hold a NaN.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[9.0, 0.1, 0.4, 0.3], [9.0, 0.5, 0.5, 0.2]])  # column 0 is padding
        >>> target_ranks(lambda start, stop: scores[start:stop], np.array([3, 1]))
        array([1, 1])
        >>> seen = np.array([0, 1, 1]), np.array([2])  # row 0 has had item 2, row 1 nothing
        >>> target_ranks(lambda start, stop: scores[start:stop], np.array([3, 1]), seen=seen)
        array([0, 1])
    """
    block_size = positive_int("`block_size`", block_size)
    targets = check_targets(targets)
    seen = None if seen is None else check_seen("`seen`", seen, len(targets))
    held = check_seen_targets(targets, seen)
    return ranks_of(score, targets, seen, held, block_size)


def ranks_of(
    score: Score, targets: np.ndarray, seen: Seen | None, held: np.ndarray, block_size: int = 1024
) -> np.ndarray:
    """``target_ranks`` without its warning, of arguments that have been checked, and ``held``, by ``in_seen``."""
    score = as_function("`score`", score)
    ranks = np.empty(len(targets), dtype=np.int64)
    vocabulary_size = None
    for start in range(0, len(targets), block_size):
        stop = min(start + block_size, len(targets))
        scores = _check_scores(score(start, stop), start, stop, vocabulary_size)
        if vocabulary_size is None:
            vocabulary_size = scores.shape[1]
            check_ids("`targets`", targets, 1, vocabulary_size - 1)
            if seen is not None:
                check_ids("the item ids of `seen`", seen[1], 0, vocabulary_size - 1)
        block_targets = targets[start:stop]
        bar = scores[np.arange(stop - start), block_targets]  # (b,): the targets' scores
        # Counting the seen items that reach the bar and taking them off costs less than masking a copy of the scores.
        at_least = np.count_nonzero(scores[:, 1:] >= bar[:, None], axis=1) - 1  # the target reaches its own bar
        if seen is not None:
            rows, items = seen_pairs(seen, start, stop)
            # A row's repeats count once.
            rows, items = np.divmod(np.unique(rows * vocabulary_size + items), vocabulary_size)
            counted = (items != 0) & (scores[rows, items] >= bar[rows])
            at_least -= np.bincount(rows[counted], minlength=stop - start)
        ranks[start:stop] = at_least
        del scores  # before the next block is made: one at a time
    ranks[held] = MISSED
    return ranks


def inner_products(user_vectors: np.ndarray, item_vectors: np.ndarray) -> Score:
    """The scores of two towers, for ``target_ranks`` and ``evaluate``: inner products in float32, the best of K.

    Args:
        user_vectors: One vector for each row, (B, D), taken as float32; or (B, K, D) for K interests: an item's score
            is then the largest of its K inner products. A zero vector is ignored if the row has others.
        item_vectors: One vector for each item id, (V, D), taken as float32. Row 0 is padding.

    Returns:
        ``score(start, stop)``, which gives the scores (stop - start, V) of rows start..stop.

    Raises:
        ValueError: The vectors are not finite or their shapes do not fit.

    Example:
        >>> import numpy as np
        >>> items = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> interests = np.array([[[3.0, 0.0], [0.0, 2.0]]])  # of one user
        >>> inner_products(interests, items)(0, 1)
        array([[0., 3., 2.]], dtype=float32)
    """
    users, items = check_vectors(user_vectors, item_vectors)
    return lambda start, stop: best_scores(users[start:stop], items)


def _check_scores(values: Any, start: int, stop: int, vocabulary_size: int | None) -> np.ndarray:
    scores = np.asarray(values)
    what = f"score({start}, {stop})"
    width = "V" if vocabulary_size is None else vocabulary_size
    fits = scores.ndim == 2 and len(scores) == stop - start and vocabulary_size in (None, scores.shape[1])
    if not fits or scores.shape[1] < 2:
        raise problem(what, f"return shape ({stop - start}, {width}), V at least 2", f"shape {scores.shape}")
    if scores.dtype.kind not in "iuf":
        raise problem(what, "return numbers", f"dtype {scores.dtype}")
    if np.isnan(scores[:, 1:].min()):  # min hands NaN on
        row, item = np.argwhere(np.isnan(scores[:, 1:]))[0]
        raise problem(what, "have no NaN", f"NaN for row {start + row}, item {item + 1}", "NaN can't be ranked.")
    return scores


def check_targets(values: Any) -> np.ndarray:
    targets = check_ids("`targets`", values, 1, remedy="Id 0 is padding: leave rows without a target out.")
    if targets.size == 0:
        raise problem("`targets`", "hold at least one item id", "none")
    return targets


NO_SEEN = (
    "If your product recommends items again, leave `seen` out: repeats then rank like any other item. If `seen` holds "
    "the very events to be predicted, end it before them, as seen_before() does."
)


def check_seen_targets(targets: np.ndarray, seen: Seen | None, seen_targets: str | None = None) -> np.ndarray:
    """``in_seen``, with a warning of such targets; refuses to leave all rows out.

    Args:
        targets: (B,), checked.
        seen: Checked for B rows.
        seen_targets: The caller's choice. None: the caller has none, and returns ranks.
    """
    if seen_targets is not None:
        one_of("`seen_targets`", seen_targets, SEEN_TARGETS)
    held = in_seen(targets, seen)
    if not held.any():
        return held
    count, row = int(held.sum()), int(held.argmax())
    if seen_targets == "leave_out":
        if count == len(targets):
            rule = "have a target that is not in `seen` with seen_targets='leave_out'"
            raise problem("`targets`", rule, f"{count:,} that are all in their own row's `seen`", NO_SEEN)
        done = f"These rows count in no average: {len(targets) - count:,} are left."
    else:
        done = (
            "Each is a miss at every N, since it is never recommended; seen_targets='leave_out' leaves its row out of "
            "the averages."
        )
    found = f"{count:,} of {len(targets):,} targets are in their own row's `seen`, whose items are not recommended"
    warn_caller(f"{found}; the first is item {targets[row]} in row {row}. {done} {NO_SEEN}", SeenTargetsWarning)
    return held


def in_seen(targets: np.ndarray, seen: Seen | None) -> np.ndarray:
    """Which targets are in their own row's ``seen``, (B,) bool."""
    held = np.zeros(len(targets), dtype=bool)
    if seen is not None:
        indptr, items = seen
        places = np.flatnonzero(items == np.repeat(targets, np.diff(indptr)))
        held[np.searchsorted(indptr, places, side="right") - 1] = True
    return held
