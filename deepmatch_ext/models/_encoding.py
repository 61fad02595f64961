"""What the sequence encoders share: blocks by name, poolings beside them, and the user's vector at each position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from deepmatch_ext._checks import number_between, one_of, positive_int, problem, shown
from deepmatch_ext._keras import keras
from deepmatch_ext.layers import (
    AtNow,
    HSTUBlock,
    L2Normalization,
    OldestFirst,
    PooledStates,
    RepeatableDropout,
    SequenceMaskPooling,
    SinceLastEvent,
    TimeBuckets,
    TransformerBlock,
    WithoutPadding,
)
from deepmatch_ext.layers.pooling import combiner_poolings
from deepmatch_ext.models._assembly import Assembly
from deepmatch_ext.models._positions import State, UserStates
from deepmatch_ext.models._towers import History


class TimeBetween(NamedTuple):
    """The time between positions, as `TimeBuckets`.

    Attributes:
        all: (B, t, t), for every position.
        now: (B, 1, t), for the first one alone, which is all that a request needs.
    """

    all: Any
    now: Any


class OfBlocks(NamedTuple):
    """What all blocks of a model share.

    Attributes:
        history: The history that they read.
        time: The time between its events, if it is known.
        num_heads: The number of attention heads.
        rate: The dropout rate.
    """

    history: History
    time: TimeBetween | None
    num_heads: int
    rate: float


def _attention(layer: Any, **arguments: Any) -> Callable[..., Any]:
    def block(make: Assembly, place: int, states: Any, of: OfBlocks) -> Any:
        sizes = {"num_heads": of.num_heads, "rate": of.rate, "max_len": of.history.max_len}
        made = make.layer(layer, "block", place, **sizes, seed=make.seed("block", place), **arguments)
        return made([states, of.history.valid, *([] if of.time is None else [of.time.all])])

    return block


def _gru(make: Assembly, place: int, states: Any, of: OfBlocks) -> Any:
    valid, rate = of.history.valid, of.rate
    turned = make.layer(OldestFirst, "oldest_first")
    gru = make.layer(
        keras.layers.GRU,
        *("block", place),
        units=states.shape[-1],
        return_sequences=True,
        kernel_initializer=keras.initializers.GlorotUniform(seed=make.seed("block", place, "kernel")),
        recurrent_initializer=keras.initializers.Orthogonal(seed=make.seed("block", place, "recurrent")),
    )
    found = gru(turned([states, valid]), mask=valid)
    found = make.layer(WithoutPadding, "block", place, "valid")([found, valid])
    if rate:
        dropout = make.layer(RepeatableDropout, "dropout", place, rate=rate, seed=make.seed("dropout", place))
        found = dropout(found)
    return turned([found, valid])


DEFAULT_POOLED = "recency:0.7+recency:1.4+last+last:2+last:3"
"""The poolings of a `SequenceDNN` that is given none; shorter histories do without the items that they don't have."""

BLOCKS: dict[str, Callable[..., Any]] = {
    "sasrec": _attention(TransformerBlock),
    "ligr": _attention(TransformerBlock, gated=True),
    "hstu": _attention(HSTUBlock),
    "gru": _gru,
}
"""The blocks by name. Each is a function of the assembly, the block's number, states (B, t, d), and what all blocks
share. It returns new states."""


def encoded(
    make: Assembly,
    blocks: Sequence[str],
    num_heads: int,
    block_dropout: float,
    pooled: str = "",
    units: Sequence[int] | None = None,
) -> UserStates:
    """The user's vector at each position.

    Args:
        make: The model's assembly.
        blocks: Names in `BLOCKS`: the history goes through them one after the other.
        num_heads: The number of attention heads of the blocks.
        block_dropout: The dropout rate of the blocks' input and of what each block adds or returns.
        pooled: The poolings that are used beside the blocks' state, written like a column's ``combiner``.
        units: The units of the dense layers; with several of them, a linear layer is added. None: one linear layer.
    """
    rate, num_heads = number_between("`block_dropout`", block_dropout, 0, 1), positive_int("`num_heads`", num_heads)
    if isinstance(blocks, str) or not isinstance(blocks, Sequence):
        raise problem("`blocks`", "be a list of names", shown(blocks))
    if not blocks and not pooled:
        raise problem("`blocks`", "name at least one where `pooled` is empty", shown(blocks))
    if blocks and make.dim % num_heads:
        raise problem("`num_heads`", f"divide the size of the vectors, {make.dim}", num_heads)
    history, *others = make.histories(unit_length=True, up_to_longest=True, described=True)
    rows = make.layer(WithoutPadding, "history_rows")([history.rows, history.valid])  # (B, t, d)
    more = make.known_rows("more_rows", others)
    poolings = _poolings(pooled, history.max_len)
    time = _time_between(make, history, blocks, poolings)
    beside = [_pooled(make, place, rows, history, time, each) for place, each in enumerate(poolings)]
    since = []
    if time is not None and make.request_time is not None:
        vectors = make.layer(SinceLastEvent, "since_last_event", dim=make.dim)
        since = [_state(make, lambda of: vectors([of, history.valid]), time)]
    if not blocks:
        return _read_out(make, [*beside, *more, *since], [*(state.values for state in beside)], history, units)
    states = make.layer(keras.layers.Concatenate, "joined_events")([rows, *more]) if more else rows
    if states.shape[-1] != make.dim:
        start = keras.initializers.GlorotNormal(seed=make.seed("event"))
        states = make.layer(keras.layers.Dense, "event_dense", units=make.dim, kernel_initializer=start)(states)
    if rate:
        dropout = make.layer(RepeatableDropout, "event_dropout", rate=rate, seed=make.seed("event_dropout"))
        states = dropout(states)
    for place, name in enumerate(blocks):
        block = BLOCKS[one_of("Every element of `blocks`", name, tuple(BLOCKS))]
        states = block(make, place, states, OfBlocks(history, time, num_heads, rate))
    states = make.layer(L2Normalization, "unit_states")(states)
    return _read_out(make, [states, *beside, *since], [states, *(state.values for state in beside)], history, units)


def _poolings(pooled: str, max_len: int) -> list[dict[str, Any]]:
    if not isinstance(pooled, str):
        raise problem("`pooled`", "be text, such as 'recency+last'", shown(pooled))
    found = combiner_poolings("pooled", pooled) if pooled else []
    if any(pooling is not SequenceMaskPooling or arguments["mode"] == "max" for pooling, arguments in found):
        raise problem("`pooled`", "be made of mean, sum, sqrtn, recency and last", repr(pooled))
    fit = [arguments for _, arguments in found if arguments.get("nth", 1) <= max_len]
    if len(fit) < len(found) and pooled != DEFAULT_POOLED:
        last = max(arguments.get("nth", 1) for _, arguments in found)
        raise problem("`pooled`", f"name items of the history, of which there are at most {max_len}", f"last:{last}")
    return fit


def _time_between(
    make: Assembly, history: History, blocks: Sequence[str], poolings: Sequence[dict[str, Any]]
) -> TimeBetween | None:
    if history.times is None:
        return None
    of_next = make.request_time is not None
    if not of_next and not {*blocks} - {"gru"} and all(each["mode"] == "last" for each in poolings):
        rule = "be None where neither a block with attention nor a weighted pooling reads it"
        raise problem("`history_times`", rule, "a column")
    read = [history.times, history.valid, *([make.request_time] if of_next else [])]
    of_all = make.layer(TimeBuckets, "time_buckets", of_next=of_next)
    of_first = make.layer(TimeBuckets, "time_buckets", "now", of_next=of_next, first_only=True)
    return TimeBetween(of_all(read), of_first(read))


def _state(make: Assembly, states_of: Callable[[Any], Any], time: TimeBetween) -> State:
    """What ``states_of`` makes of the time between positions."""
    return State(states_of(time.all), now=make.layer(AtNow, "now", 0, behind=0)(states_of(time.now)))


def _pooled(
    make: Assembly, place: int, rows: Any, history: History, time: TimeBetween | None, arguments: dict[str, Any]
) -> State:
    if arguments["mode"] == "last":
        return State(rows, arguments.get("nth", 1) - 1)
    if time is not None:
        pooling = make.layer(PooledStates, "pooled", place, **arguments)
        return _state(make, lambda of: pooling([rows, history.valid, of]), time)
    now = make.layer(SequenceMaskPooling, "pooled_now", place, **arguments)([rows, history.valid])
    return State(make.layer(PooledStates, "pooled", place, **arguments)([rows, history.valid]), now=now)


def _read_out(
    make: Assembly, states: Sequence[Any], from_items: Sequence[Any], history: History, units: Sequence[int] | None
) -> UserStates:
    units = (make.dim,) if units is None else units

    def read(parts: list[Any], of_items: list[Any]) -> Any:
        return make.dense("user", parts, units, of_items, shortcut=len(units) > 1)

    return make.user_states(states, history, from_items, read)
