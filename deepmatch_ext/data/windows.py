"""Model inputs: each target with the user's history before it, as DeepCTR-shaped columns."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deepmatch_ext._arrays import check_ids, joined_slices
from deepmatch_ext._checks import (
    as_flag,
    as_text,
    as_texts,
    instance_of,
    listing,
    no_duplicates,
    one_of,
    positive_int,
    problem,
    shown,
)
from deepmatch_ext.data.interactions import Interactions
from deepmatch_ext.data.kinds import History, check_targets

ORDERS = ("recent_first", "oldest_first")
TIME = "time"  # the column of the request's times
WEIGHT = "sample_weight"  # that of weights
_LARGEST_TIME = 1e15  # models refuse larger numbers
_BLOCK_VALUES = 2**20  # values gathered at a time, so that temporaries stay at a few MB for any number of rows


def windows(
    interactions: Interactions,
    rows: Any,
    max_len: int | Mapping[Any, int],
    *,
    order: str = "recent_first",
    side: Sequence[str] = (),
    context: Sequence[str] = (),
    times: bool = False,
    weight: str | None = None,
) -> dict[str, np.ndarray]:
    """The input of a model for each target row: the user, the target item, and the history strictly before the row.

    If the interactions have sessions, a history is what came before in the same session.

    For T = 10, items 1, 2, 3, 4, 5, of which 5 is the most recent, give [5, 4, 3, 2, 1, 0, 0, 0, 0, 0]. Items 1..12
    give [12, 11, ..., 3]: the most recent are kept. "oldest_first" reverses the items that are kept, and also pads at
    the end: [1, 2, 3, 4, 5, 0, 0, 0, 0, 0] and [3, 4, ..., 12].

    If the interactions have kinds of events, each kind k has a history of its own, in columns whose names end with
    ``_k``. For the target's own kind, the history holds the events that stand before the target; events at the same
    time are in the order of the source, as without kinds. For other kinds, it holds only events with an earlier time
    than the target's. So a click that is recorded at the time of a purchase does not give the purchase away.

    Args:
        interactions: The events.
        rows: Target rows, such as a split's ``train_targets()`` or ``test``, in any order: B of them. With kinds, rows
            of those that are to be predicted.
        max_len: The history length T. With kinds of events, it may be a length for each kind that gets a history, such
            as ``{"click": 50, "purchase": 10}``.
        order: "recent_first" or "oldest_first".
        side: Side columns of ``interactions`` that get a history, too.
        context: Side columns, or the column of kinds (as their numbers), to return for the target event: what is known
            when recommendations are requested, such as the hour or the device. Later requests must provide the same
            columns.
        times: Whether to return the times of the events and of the target. The latter stands for the request's.
        weight: The side column with the weight of each target event in the loss: finite numbers, none negative.

    Returns:
        Columns by name, with u and i for the names of user and item: ``u`` int32 (B,), ``i`` int32 (B,) the target,
        ``hist_i`` int32 (B, T), ``hist_len`` int32 (B,) the number of real values in each history, and for each side
        column s ``hist_s`` (B, T) in its own type, 0 where there is padding. With kinds, ``hist_i_k``, ``hist_len_k``
        and ``hist_s_k`` for each kind k. With times, ``hist_time`` int64 (B, T) or ``hist_time_k``, and ``time`` int64
        (B,): datetimes in whole seconds since 1970, numbers as they are. Then the interactions' user features and the
        context under their own names, (B,) or (B, L) in their own types; and with a weight, ``sample_weight`` float32
        (B,), for the argument of that name of ``fit``.

    Raises:
        ValueError: A row out of range or of a kind that is not to be predicted, an unknown order, side column or kind,
            invalid weights, two columns of one name; or where times are wanted, none, fractions, or some beyond 1e15.

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
    rows = check_targets("`rows`", rows, interactions.kinds, len(interactions))
    cutter = Cutter(interactions, max_len, order, side, _NUMPY, context, weight, times)
    return cutter.windows(rows.astype(cutter.row_type))


def user_histories(
    interactions: Interactions,
    user_ids: Any,
    max_len: int | Mapping[Any, int],
    *,
    order: str = "recent_first",
    side: Sequence[str] = (),
    times: bool = False,
) -> dict[str, np.ndarray]:
    """The input of a model for a prediction now: all events of a user are in the history, and there is no target item.

    If the interactions have sessions, the history is each user's last session.

    Args:
        interactions: The events.
        user_ids: User ids (``interactions.user_ids.encode(raw)``), (B,). Id 0, an unknown user, and a user without
            rows have an empty history.
        max_len: The history length T, or that of each kind of events, as for :func:`windows`.
        order: "recent_first" or "oldest_first".
        side: Side columns of ``interactions`` that get a history, too.
        times: Whether to return the events' times.

    Returns:
        The columns of :func:`windows` without the item, the context, the time and the weight. If the model reads a
        context or the time, add these columns with their values at the time of the request.

    Raises:
        ValueError: As for :func:`windows`, and for a user id that the map does not have.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 5], [7, 8, 9, 8, 7])
        >>> user_histories(interactions, [2, 0], max_len=3)["hist_item_id"].tolist()
        [[7, 8, 0], [0, 0, 0]]
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    users = check_ids("`user_ids`", user_ids, 0, interactions.num_users)
    return numpy_cutter(interactions, max_len, order, side, times).users(users)


def seen_before(interactions: Interactions, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """All items that the user of each row had before it, however long ago: evaluation leaves them out of the ranking.

    The row's own item is among them if the user had it before. Such a target would not be recommended, so it counts as
    a miss, with a warning. If your product recommends items again, evaluate without ``seen``. Sessions repeat items, so
    nothing counts as seen if the interactions have sessions. With kinds of events, only the items of the kinds to be
    predicted count: a clicked item may still be bought.

    Args:
        interactions: The events.
        rows: Target rows, (B,).

    Returns:
        ``indptr`` int64 (B + 1,) and ``items`` int32: row number k had ``items[indptr[k]:indptr[k + 1]]``, oldest
        first, with repeats. The arrays grow with the histories: for very many rows, call this for a batch at a time.

    Raises:
        ValueError: A row out of range, or of a kind that is not to be predicted.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 5], [7, 8, 9, 8, 7])
        >>> indptr, items = seen_before(interactions, [2, 4])
        >>> indptr.tolist(), items.tolist()
        ([0, 2, 3], [7, 8, 8])
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    rows = check_targets("`rows`", rows, interactions.kinds, len(interactions))
    return _seen(interactions, rows - interactions.position[rows], rows)


def seen_by_users(interactions: Interactions, user_ids: Any) -> tuple[np.ndarray, np.ndarray]:
    """All items that each user had, in the form of :func:`seen_before`: recommendations leave them out.

    With sessions nothing counts as seen; with kinds of events, only those to be predicted count.

    Args:
        interactions: The events.
        user_ids: User ids, (B,); id 0 had nothing.

    Returns:
        ``indptr`` int64 (B + 1,) and ``items`` int32, as for :func:`seen_before`.

    Raises:
        ValueError: A user id that the map does not have.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 5], [7, 8, 9, 8, 7])
        >>> indptr, items = seen_by_users(interactions, [2, 0])
        >>> indptr.tolist(), items.tolist()
        ([0, 2, 2], [8, 7])
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    users = check_ids("`user_ids`", user_ids, 0, interactions.num_users)
    return _seen(interactions, interactions.indptr[users], interactions.indptr[users + 1])


def _seen(interactions: Interactions, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The items of the events to be predicted in the rows ``starts[k]:ends[k]`` for each k; none with sessions."""
    if interactions.sessions is not None:
        ends = starts
    if interactions.kinds is None:
        return joined_slices(interactions.items, starts, ends - starts)
    targets = interactions.kinds.target_rows
    starts, ends = np.searchsorted(targets, starts), np.searchsorted(targets, ends)
    indptr, rows = joined_slices(targets, starts, ends - starts)
    return indptr, interactions.items[rows]


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
        max_len, order, side, context, weight, times: As for :func:`windows`.
        operations: NumPy's, or TensorFlow's of the same meaning.

    Raises:
        ValueError: As for :func:`windows`.

    Attributes:
        row_type: The NumPy type of the row numbers that it takes.
    """

    def __init__(
        self,
        interactions: Interactions,
        max_len: int | Mapping[Any, int],
        order: str,
        side: Sequence[str],
        operations: Operations,
        context: Sequence[str] = (),
        weight: str | None = None,
        times: bool = False,
    ) -> None:
        recent_first = one_of("`order`", order, ORDERS) == "recent_first"
        lengths = _lengths(interactions, max_len)
        self._do, take_up = operations, operations.array
        self.row_type = operations.row_type(len(interactions) + max(lengths.values()))
        times = as_flag("`times`", times)
        of_events = [(name, _side_column(interactions, "side column", name)) for name in as_texts("`side`", side)]
        of_events += [(TIME, _whole_times(interactions))] if times else []
        self._histories = [
            _HistoryCutter(
                interactions, history, lengths[history.kind], recent_first, of_events, operations, self.row_type
            )
            for history in interactions.histories
            if history.kind in lengths
        ]
        context = as_texts("`context`", context)
        of_targets = {name: _context_column(interactions, name) for name in context}
        if times:
            of_targets = {TIME: of_events[-1][1], **of_targets}
        if weight is not None:
            of_targets[WEIGHT] = _weights(interactions, weight)
        self._user_name, self._item_name = interactions.user_name, interactions.item_name
        names = [name for history in self._histories for name in history.names]
        names += [*interactions.user_features, *([TIME] if times else []), *context]
        names += [] if weight is None else [WEIGHT]
        no_duplicates("the columns of the input", [self._user_name, self._item_name, *names])
        self._users = take_up(interactions.users)
        self._sequences = self._users if interactions.sessions is None else take_up(interactions.sessions)
        # The items of histories of all events are those of the targets.
        self._items = None if interactions.kinds is None else take_up(interactions.items)
        self._features = {name: take_up(values) for name, values in interactions.user_features.items()}
        self._of_targets = {name: take_up(values) for name, values in of_targets.items()}

    def windows(self, rows: Any) -> dict[str, Any]:
        """What :func:`windows` returns, for ``rows`` (B,) of the row type."""
        take = self._do.take
        users, sequences = take(self._users, rows), take(self._sequences, rows)
        items = self._histories[0].items(rows) if self._items is None else take(self._items, rows)
        columns = {self._user_name: users, self._item_name: items}
        for history in self._histories:
            columns |= history.of_rows(rows, sequences)
        columns |= {name: take(values, users) for name, values in self._features.items()}
        return columns | {name: take(values, rows) for name, values in self._of_targets.items()}

    def users(self, users: Any) -> dict[str, Any]:
        """What :func:`user_histories` returns, for user ids (B,)."""
        columns = {self._user_name: self._do.int32(users)}
        for history in self._histories:
            columns |= history.of_users(users)
        return columns | {name: self._do.take(values, users) for name, values in self._features.items()}


class _HistoryCutter:
    """Cuts the history of one kind of events, or of all.

    Args:
        interactions: As for :func:`windows`.
        history: Which events it is made of.
        max_len: Its length.
        recent_first: Whether the most recent comes first.
        beside: Further columns of the events by name: side columns, and the times.
        do: NumPy's or TensorFlow's operations.
        row_type: Of the numbers of rows.

    Attributes:
        names: The names of its columns: of items, lengths, and further columns.
    """

    def __init__(
        self,
        interactions: Interactions,
        history: History,
        max_len: int,
        recent_first: bool,
        beside: Sequence[tuple[str, np.ndarray]],
        do: Operations,
        row_type: Any,
    ) -> None:
        self._max_len, self._recent_first, self._do = max_len, recent_first, do
        columns = [history.of(column) for column in (interactions.items, *(column for _, column in beside))]
        self._number = len(columns[0])
        of_events = (interactions.item_name, "len", *(name for name, _ in beside))
        item, length, *sides = (f"hist_{name}{history.suffix}" for name in of_events)
        self.names = [item, length, *sides]
        self._columns = [self._readable(column) for column in columns]
        self._starts = do.array(history.starts.astype(row_type))
        self._ends = None if history.ends is None else do.array(history.ends.astype(row_type))
        ends = interactions.indptr[1:]
        # Where the last sequence of each user begins.
        last = interactions.starts[interactions.sequences[ends - 1]]
        last = np.where(ends > interactions.indptr[:-1], last, ends)
        self._of_users = [do.array(history.place(each).astype(row_type)) for each in (last, ends)]

    def _readable(self, column: Any) -> Any:
        """A column in the order in which histories are read, followed by zeros for a history that begins at its end."""
        ordered = column[::-1] if self._recent_first else column
        return self._do.array(np.concatenate([ordered, np.zeros(self._max_len, column.dtype)]))

    def items(self, rows: Any) -> Any:
        """The items of rows, if all rows are its events."""
        return self._do.take(self._columns[0], self._number - 1 - rows if self._recent_first else rows)

    def of_rows(self, rows: Any, sequences: Any) -> dict[str, Any]:
        """The history of each row, whose sequence is given beside it."""
        ends = rows if self._ends is None else self._do.take(self._ends, rows)
        return self._cut(self._do.take(self._starts, sequences), ends)

    def of_users(self, users: Any) -> dict[str, Any]:
        """The history of each user now."""
        return self._cut(*(self._do.take(values, users) for values in self._of_users))

    def _cut(self, starts: Any, ends: Any) -> dict[str, Any]:
        """The last events of ``starts[k]:ends[k]``, for each k."""
        lengths = self._do.minimum(ends - starts, self._max_len)
        # Read backwards, row r lies at n - 1 - r and its history starts one further on.
        starts = self._number - ends if self._recent_first else ends - lengths
        items, *sides = self._do.slices(self._columns, starts, lengths, self._max_len)
        return dict(zip(self.names, [items, self._do.int32(lengths), *sides], strict=True))


def _lengths(interactions: Interactions, max_len: Any) -> dict[int, int]:
    """The length of each history that is wanted, by the number of its kind."""
    if not isinstance(max_len, Mapping):
        length = positive_int("`max_len`", max_len)
        return {history.kind: length for history in interactions.histories}
    if interactions.kinds is None:
        raise problem("`max_len`", "be one number where the interactions have no kinds", shown(max_len))
    known = interactions.kinds.ids.values.tolist()
    for kind in max_len:
        if kind not in known:
            raise problem("`max_len`", f"name kinds among {listing(known, 10)}", shown(kind))
    if not max_len:
        raise problem("`max_len`", "name at least one kind", "none")
    return {known.index(kind) + 1: positive_int(f"`max_len`[{kind!r}]", each) for kind, each in max_len.items()}


def _side_column(interactions: Interactions, what: str, name: str) -> np.ndarray:
    if name not in interactions.side:
        raise problem(f"{what} {name!r}", "be a side column of the interactions", repr([*interactions.side]))
    return interactions.side[name]


def _context_column(interactions: Interactions, name: str) -> np.ndarray:
    if interactions.kinds is not None and name == interactions.kinds.name:
        return interactions.kinds.values
    return _side_column(interactions, "context column", name)


def _whole_times(interactions: Interactions) -> np.ndarray:
    """(n,) int64."""
    times = interactions.times
    if times is None:
        raise problem("`interactions`", "have times where `times=True`", "none")
    if times.dtype.kind == "M":
        return times.astype("datetime64[s]").astype(np.int64)
    too_large = ~(abs(times.astype(np.float64)) <= _LARGEST_TIME)
    if too_large.any():
        got, remedy = f"{times[too_large][0]}", "Count in a larger unit: seconds are enough."
        raise problem(
            "the interactions' times", f"be at most {_LARGEST_TIME:g} in size where `times=True`", got, remedy
        )
    if times.dtype.kind == "f" and (times != np.floor(times)).any():
        got, remedy = f"fractions, such as {times[times != np.floor(times)][0]}", "Count in a smaller unit."
        raise problem("the interactions' times", "be whole numbers or datetimes where `times=True`", got, remedy)
    return times.astype(np.int64)


def _weights(interactions: Interactions, weight: Any) -> np.ndarray:
    values = _side_column(interactions, "weight column", as_text("`weight`", weight))
    wrong = ~((values >= 0) & (values <= np.finfo(np.float32).max))
    if wrong.any():
        got = f"{np.count_nonzero(wrong)} others, such as {values[wrong][0]}"
        raise problem(f"weight column {weight!r}", "hold finite numbers that are not negative", got)
    return values.astype(np.float32)


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


def numpy_cutter(
    interactions: Interactions,
    max_len: int | Mapping[Any, int],
    order: str = "recent_first",
    side: Sequence[str] = (),
    times: bool = False,
) -> Cutter:
    """A cutter for `user_histories` in NumPy; if it is kept, it passes over the events only once."""
    return Cutter(interactions, max_len, order, side, _NUMPY, times=times)
