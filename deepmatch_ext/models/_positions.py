"""Users as of every position of their histories: what a row of events trains, and what of it is the user now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from deepmatch_ext.layers import AtNow, AtPlaces, LossOfRows, TrainedPositions
from deepmatch_ext.models._tables import NamedLayers
from deepmatch_ext.models._towers import History


class OtherHistory(ValueError):
    """A model that every position trains has a history that could show a position what came later."""


class UserStates(NamedTuple):
    """A user as of now, and as of the positions that a step trains.

    Attributes:
        now: (B, D), the user's vector.
        trained: (N, D), the vectors of all positions while training, else those of the first.
        places: (N, 2), the row and the position of each.
        items: (N,), what came next at each.
        ids: (B, t), the history.
        max_len: T, the most positions.
    """

    now: Any
    trained: Any
    places: Any
    items: Any
    ids: Any
    max_len: int


class State(NamedTuple):
    """A state at each position that is what stands some positions behind, or at the first one cheaper to have.

    Attributes:
        values: (B, t, d).
        behind: How many positions.
        now: (B, d), what the state is at the first position; None: it is read there.
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
    """Users as of all positions, from states (B, t, d) and features (B, d).

    Args:
        read: From parts (n, d), and those of them that are made of rows of the item's table, to vectors (n, D).
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
