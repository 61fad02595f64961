"""Model inputs: each target with the user's history before it, as DeepCTR-shaped columns."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepmatch_ext._arrays import check_ids, joined_slices
from deepmatch_ext._checks import as_texts, instance_of, no_duplicates, one_of, positive_int, problem
from deepmatch_ext.data.interactions import Interactions

ORDERS = ("recent_first", "oldest_first")
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

    If the interactions have sessions, a history is what came before in the same session.

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
    rows = check_ids("`rows`", rows, 0, len(interactions) - 1)
    cutter = Cutter(interactions, max_len, order, side, _NUMPY)
    return cutter.windows(rows.astype(cutter.row_type))


def user_histories(
    interactions: Interactions,
    user_ids: Any,
    max_len: int,
    *,
    order: str = "recent_first",
    side: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """The input of a model for prediction now: all that each user did is history, and there is no target item.

    If the interactions have sessions, the history is each user's last session.

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
    users = check_ids("`user_ids`", user_ids, 0, interactions.num_users)
    return Cutter(interactions, max_len, order, side, _NUMPY).users(users)


def seen_before(interactions: Interactions, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """All items that the user of each row had before it, uncut: what evaluation leaves out of a ranking.

    The row's own item is among them if the user had it before: such a target is never served, so it counts as a miss,
    with a warning. Where the product recommends items again, evaluate without ``seen``. Sessions repeat items: if the
    interactions have sessions, nothing counts as seen.

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
    rows = check_ids("`rows`", rows, 0, len(interactions) - 1)
    number = interactions.position[rows] if interactions.sessions is None else np.zeros(len(rows), np.int64)
    return joined_slices(interactions.items, rows - number, number)


def seen_by_users(interactions: Interactions, user_ids: Any) -> tuple[np.ndarray, np.ndarray]:
    """All items that each user had, in the form of :func:`seen_before`: what serving leaves out.

    If the interactions have sessions, nothing counts as seen.

    Args:
        interactions: The events.
        user_ids: User ids, (B,); id 0 had nothing.

    Returns:
        ``indptr`` int64 (B + 1,) and ``items`` int32, as for :func:`seen_before`.

    Raises:
        ValueError: A user id that the map does not have.
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    users = check_ids("`user_ids`", user_ids, 0, interactions.num_users)
    starts = interactions.indptr[users]
    number = interactions.indptr[users + 1] - starts if interactions.sessions is None else np.zeros_like(starts)
    return joined_slices(interactions.items, starts, number)


class Operations(NamedTuple):
    """What cutting windows asks of NumPy, or of TensorFlow."""

    row_type: Callable[[int], Any]  # of numbers below a limit
    array: Callable[[np.ndarray], Any]  # of NumPy's
    take: Callable[[Any, Any], Any]  # (values, places) -> values[places]
    minimum: Callable[[Any, int], Any]
    int32: Callable[[Any], Any]
    slices: Callable[[list[Any], Any, Any, int], list[Any]]  # as `_slices`


class Cutter:
    """Cuts windows from columns that NumPy or TensorFlow holds.

    Args:
        interactions: The events.
        max_len, order, side: As for :func:`windows`.
        operations: NumPy's, or TensorFlow's of the same meaning.

    Raises:
        ValueError: As for :func:`windows`.

    Attributes:
        row_type: The NumPy type of the row numbers that it takes.
    """

    def __init__(
        self,
        interactions: Interactions,
        max_len: int,
        order: str,
        side: Sequence[str],
        operations: Operations,
    ) -> None:
        self._max_len = positive_int("`max_len`", max_len)
        self._recent_first = one_of("`order`", order, ORDERS) == "recent_first"
        side = as_texts("`side`", side)
        for name in side:
            if name not in interactions.side:
                rule = "be a side column of the interactions"
                raise problem(f"side column {name!r}", rule, repr([*interactions.side]))
        self._user_name, self._item_name = interactions.user_name, interactions.item_name
        self._side_names = [f"hist_{name}" for name in side]
        self._hist_name = f"hist_{self._item_name}"
        names = [self._user_name, self._item_name, self._hist_name, *self._side_names, "hist_len"]
        no_duplicates("the columns of the input", names)
        self._do, self._number = operations, len(interactions)
        self.row_type = operations.row_type(self._number + self._max_len)
        self._users = operations.array(interactions.users)
        self._sequences = self._users if interactions.sessions is None else operations.array(interactions.sessions)
        self._starts = operations.array(interactions.starts.astype(self.row_type))
        ends = interactions.indptr[1:]
        # Where the last sequence of each user begins.
        last = interactions.starts[interactions.sequences[ends - 1]]
        last = np.where(ends > interactions.indptr[:-1], last, ends)
        self._of_users = [operations.array(each.astype(self.row_type)) for each in (last, ends)]
        self._columns = [self._readable(column) for column in (interactions.items, *map(interactions.side.get, side))]

    def _readable(self, column: Any) -> Any:
        """A column in the order in which histories are read, and zeros behind it for one that begins at its end."""
        ordered = column[::-1] if self._recent_first else column
        return self._do.array(np.concatenate([ordered, np.zeros(self._max_len, column.dtype)]))

    def windows(self, rows: Any) -> dict[str, Any]:
        """What :func:`windows` returns, for ``rows`` (B,) of the row type."""
        users = self._do.take(self._users, rows)
        places = self._number - 1 - rows if self._recent_first else rows
        items = self._do.take(self._columns[0], places)
        starts = self._do.take(self._starts, self._do.take(self._sequences, rows))
        histories = self._histories(rows, rows - starts)
        return {self._user_name: users, self._item_name: items, **histories}

    def users(self, users: Any) -> dict[str, Any]:
        """What :func:`user_histories` returns, for user ids (B,)."""
        starts, ends = (self._do.take(values, users) for values in self._of_users)
        histories = self._histories(ends, ends - starts)
        return {self._user_name: self._do.int32(users), **histories}

    def _histories(self, ends: Any, available: Any) -> dict[str, Any]:
        """The histories of the ``available`` rows before each of ``ends``."""
        lengths = self._do.minimum(available, self._max_len)
        # Read backwards, row r lies at n - 1 - r and its history starts one further on.
        starts = self._number - ends if self._recent_first else ends - lengths
        histories = self._do.slices(self._columns, starts, lengths, self._max_len)
        of_sides = zip(self._side_names, histories[1:], strict=True)
        return {self._hist_name: histories[0], "hist_len": self._do.int32(lengths), **dict(of_sides)}


def _slices(columns: list[np.ndarray], starts: np.ndarray, lengths: np.ndarray, width: int) -> list[np.ndarray]:
    """``values[starts[k]:starts[k] + lengths[k]]`` of each column for each k, padded with 0 to ``width``."""
    return [_padded_slices(values, starts, lengths, width) for values in columns]


def _padded_slices(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    every = np.lib.stride_tricks.sliding_window_view(values, width)
    out = np.empty((len(starts), width), values.dtype)
    block = max(1, _BLOCK_VALUES // width)
    for first in range(0, len(starts), block):
        part = slice(first, first + block)
        out[part] = every[starts[part]]
        out[part][np.arange(width) >= lengths[part, None]] = 0
    return out


_NUMPY = Operations(
    row_type=lambda limit: np.int64,
    array=np.asarray,
    take=operator.getitem,
    minimum=np.minimum,
    int32=lambda values: values.astype(np.int32),
    slices=_slices,
)
