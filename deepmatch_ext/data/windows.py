"""Model inputs: each target with the user's history before it, as DeepCTR-shaped columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepmatch_ext._checks import as_texts, instance_of, no_duplicates, one_of, positive_int, problem
from deepmatch_ext.data.interactions import Interactions, row_numbers

_ORDERS = ("recent_first", "oldest_first")
_BLOCK_VALUES = 2**20  # values gathered at a time: temporaries stay at a few MB whatever the number of rows


def windows(
    interactions: Interactions,
    rows: Any,
    max_len: int,
    *,
    order: str = "recent_first",
    side: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """The input of a model for each target row: the user, the target item, and the history strictly before the row.

    Items 1, 2, 3, 4, 5, of which 5 is the most recent, give [5, 4, 3, 2, 1, 0, 0, 0, 0, 0] where there is room for 10.
    Items 1..12 give [12, 11, ..., 3]: the most recent survive. "oldest_first" turns what survives around and pads at
    the end as well: [1, 2, 3, 4, 5, 0, 0, 0, 0, 0] and [3, 4, ..., 12].

    Args:
        interactions: The events.
        rows: Target rows, such as a split's ``train_targets()`` or ``test``, in any order: B of them.
        max_len: The history length T.
        order: "recent_first" or "oldest_first".
        side: Side columns of ``interactions`` whose history is wanted too.

    Returns:
        Columns by name, with u, i for the names of user and item: ``u`` int32 (B,), ``i`` int32 (B,) the target item,
        ``hist_i`` int32 (B, T), ``hist_len`` int32 (B,) the number of real values in each history, and for each side
        column s ``hist_s`` (B, T) in its own type, 0 where there is padding.

    Raises:
        ValueError: A row out of range, an unknown order or side column, or two columns of one name.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 5], [7, 8, 9, 8, 7])
        >>> for name, column in windows(interactions, rows=[2, 3], max_len=4).items():
        ...     print(name, column.tolist())
        user_id [1, 2]
        item_id [9, 8]
        hist_item_id [[8, 7, 0, 0], [0, 0, 0, 0]]
        hist_len [2, 0]
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    rows = row_numbers("`rows`", rows, len(interactions))
    columns = {
        interactions.user_name: interactions.users[rows],
        interactions.item_name: interactions.items[rows],
    }
    return _with_history(interactions, columns, rows, interactions.position[rows], max_len, order, side)


def user_histories(
    interactions: Interactions,
    user_ids: Any,
    max_len: int,
    *,
    order: str = "recent_first",
    side: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """The input of a model for prediction now: all that each user did is history, and there is no target item.

    Args:
        interactions: The events.
        user_ids: User ids (``interactions.user_ids.encode(raw)``), (B,). Id 0, an unknown user, and a user without
            rows have an empty history.
        max_len: The history length T.
        order: "recent_first" or "oldest_first".
        side: Side columns of ``interactions`` whose history is wanted too.

    Returns:
        The columns of :func:`windows`, the item apart.

    Raises:
        ValueError: As for :func:`windows`, and for a user id that the map does not have.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 5], [7, 8, 9, 8, 7])
        >>> user_histories(interactions, [2, 0], max_len=3)["hist_item_id"].tolist()
        [[7, 8, 0], [0, 0, 0]]
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    users = row_numbers("`user_ids`", user_ids, interactions.user_vocabulary_size, "user ids")
    ends = interactions.indptr[users + 1]
    columns = {interactions.user_name: users.astype(np.int32)}
    return _with_history(interactions, columns, ends, ends - interactions.indptr[users], max_len, order, side)


def seen_before(interactions: Interactions, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """All items that the user of each row had before it, uncut: what evaluation leaves out of a ranking.

    The row's own item is among them if the user had it before: such a target is never served, so it counts as a miss,
    with a warning. Where the product recommends items again, evaluate without ``seen``.

    Args:
        interactions: The events.
        rows: Target rows, (B,).

    Returns:
        ``indptr`` int64 (B + 1,) and ``items`` int32: row number k had ``items[indptr[k]:indptr[k + 1]]``, oldest
        first, repeats included. Histories add up: for very many rows, call this a batch at a time.

    Raises:
        ValueError: A row out of range.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 5], [7, 8, 9, 8, 7])
        >>> indptr, items = seen_before(interactions, [2, 4])
        >>> indptr.tolist(), items.tolist()
        ([0, 2, 3], [7, 8, 8])
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    rows = row_numbers("`rows`", rows, len(interactions))
    return _ragged(interactions.items, rows - interactions.position[rows], interactions.position[rows])


def seen_by_users(interactions: Interactions, user_ids: Any) -> tuple[np.ndarray, np.ndarray]:
    """All items that each user had, in the form of :func:`seen_before`: what serving leaves out.

    Args:
        interactions: The events.
        user_ids: User ids, (B,); id 0 had nothing.

    Returns:
        ``indptr`` int64 (B + 1,) and ``items`` int32, as for :func:`seen_before`.

    Raises:
        ValueError: A user id that the map does not have.
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    users = row_numbers("`user_ids`", user_ids, interactions.user_vocabulary_size, "user ids")
    starts = interactions.indptr[users]
    return _ragged(interactions.items, starts, interactions.indptr[users + 1] - starts)


def _with_history(
    interactions: Interactions,
    columns: dict[str, np.ndarray],
    ends: np.ndarray,
    available: np.ndarray,
    max_len: int,
    order: str,
    side: Sequence[str],
) -> dict[str, np.ndarray]:
    """``columns`` and the histories of the ``available`` rows before each of ``ends``."""
    max_len = positive_int("`max_len`", max_len)
    one_of("`order`", order, _ORDERS)
    side = as_texts("`side`", side)
    for name in side:
        if name not in interactions.side:
            raise problem(f"side column {name!r}", "be a side column of the interactions", repr([*interactions.side]))
    hist_names = [f"hist_{name}" for name in [interactions.item_name, *side]]
    no_duplicates("the columns of the input", [*columns, *hist_names, "hist_len"])

    lengths = np.minimum(available, max_len)
    values = [interactions.items, *(interactions.side[name] for name in side)]
    if order == "recent_first":
        # Read backwards, row r lies at n - 1 - r and its history starts one further on.
        starts, values = len(interactions) - ends, [column[::-1] for column in values]
    else:
        starts = ends - lengths
    histories = [_slices(column, starts, lengths, max_len) for column in values]
    columns[hist_names[0]] = histories[0]
    columns["hist_len"] = lengths.astype(np.int32)
    columns.update(zip(hist_names[1:], histories[1:], strict=True))
    return columns


def _slices(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    """``values[starts[k]:starts[k] + lengths[k]]`` for each k, padded with 0 to ``width``."""
    padded = np.concatenate([values, np.zeros(width, values.dtype)])
    every = np.lib.stride_tricks.sliding_window_view(padded, width)
    out = np.empty((len(starts), width), values.dtype)
    block = max(1, _BLOCK_VALUES // width)
    for first in range(0, len(starts), block):
        part = slice(first, first + block)
        out[part] = every[starts[part]]
        out[part][np.arange(width) >= lengths[part, None]] = 0
    return out


def _ragged(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``values[starts[k]:starts[k] + lengths[k]]`` for each k, one after the other, and where each begins."""
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return indptr, values[np.repeat(starts - indptr[:-1], lengths) + np.arange(indptr[-1])]
