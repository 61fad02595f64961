"""Users' vectors at every position of their histories: those that a row of events trains, and the current one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from deepmatch_ext.layers import AtNow, AtPlaces, LossOfRows, TrainedPositions
from deepmatch_ext.models._tables import NamedLayers
from deepmatch_ext.models._towers import History


class OtherHistory(ValueError):
    """A model that trains every position has a history that could reveal later events to a position."""


class UserStates(NamedTuple):
    """A user's current vector, and the vectors at the positions that a step trains.

    Attributes:
        now: (B, D), the user's current vector.
        trained: (N, D), the vectors at all positions in training, else those at the first positions.
        places: (N, 2), the row and the position of each.
        items: (N,), the item that came next at each.
        ids: (B, t), the history.
        max_len: T, the maximum number of positions.
    """

    now: Any
    trained: Any
    places: Any
    items: Any
    ids: Any
    max_len: int


class State(NamedTuple):
    """A state at each position: the values some positions behind it.

    Attributes:
        values: (B, t, d).
        behind: How many positions further back the state is read.
        now: (B, d), the state at the first position, if it can be had more cheaply; None: it is read from ``values``.
    """

    values: Any
    behind: int = 0
    now: Any = None


def user_states(
    read: Callable[[list[Any], list[Any]], Any],
    states: Sequence[Any],
    features: Sequence[Any],
    from_items: Sequence[Any],
    history: History,
    target: Any,
    layers: NamedLayers,
) -> UserStates:
    """Users' vectors at all positions, from states (B, t, d) and features (B, d).

    Args:
        read: A function from the parts (n, d), and a list of those that are made from rows of the item's table, to
            vectors (n, D).
        states, from_items, history: As for `Assembly.user_states`.
        features: The user's.
        target: (B, 1), the rows' own items.
        layers: The model's.
    """
    places, items = layers(TrainedPositions, "trained_positions")([history.ids, target])
    states = [state if isinstance(state, State) else State(state) for state in states]

    def at_places(state: State) -> Any:
        return layers(AtPlaces, "at_places", state.behind, behind=state.behind)([state.values, places])

    def now(state: State) -> Any:
        return layers(AtNow, "now", state.behind, behind=state.behind)(state.values) if state.now is None else state.now

    def vectors(at: Callable[[State], Any], at_row: Callable[[Any], Any]) -> Any:
        parts = [at(state) for state in states]
        of_items = [
            part for part, state in zip(parts, states, strict=True) if any(state.values is each for each in from_items)
        ]
        return read([*parts, *map(at_row, features)], of_items)

    trained = vectors(at_places, lambda values: at_places(State(values)))
    return UserStates(vectors(now, lambda values: values), trained, places, items, history.ids, history.max_len)


def loss_of_rows(losses: Any, user: UserStates, layers: NamedLayers) -> Any:
    """(B, 1) from the losses of the positions, (N, 1)."""
    return layers(LossOfRows, "loss_of_rows", max_len=user.max_len)([losses, user.places, user.ids])
