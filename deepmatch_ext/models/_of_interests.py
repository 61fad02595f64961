"""What multi-interest models share, before and after the layer that finds the interests."""

from __future__ import annotations

from typing import Any

from deepmatch_ext._checks import problem
from deepmatch_ext._keras import keras
from deepmatch_ext.layers import LabelAwareAttention, RepeatFirstInterest
from deepmatch_ext.layers.interests import attention_power
from deepmatch_ext.models._assembly import Assembly
from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.models._towers import History, MeanOfBlocks


def events_of_history(make: Assembly) -> History:
    """The history that shares the item's table, whose rows (B, T, d) are the items' L2-normalised vectors.

    If there are other histories of the same events, such as categories, a dense layer combines their rows with those of
    the items. It is initialised to return the rows of the items.
    """
    history, *others = make.histories(unit_length=True, described=True)
    if not others:
        return history
    parts = [history.rows, *make.known_rows("more_rows", others)]
    joined = make.layer(keras.layers.Concatenate, "joined_events")(parts)
    start = MeanOfBlocks([0], make.seed("event"))
    dense = make.layer(keras.layers.Dense, "event_dense", units=history.rows.shape[-1], kernel_initializer=start)
    return history._replace(rows=dense(joined))


def model_of_interests(make: Assembly, interests: Any, p: float, some_of: Any = None) -> RetrievalModel:
    """The model whose user vectors dense layers make from the interests and the user's other features.

    Args:
        make: The builder's assembly.
        interests: (B, K, d).
        p: As for `LabelAwareAttention`, which chooses the interests to train, but not negative; infinity:
            `NearestInterest`.
        some_of: (B, T) booleans, the positions with an item, if short histories have fewer interests than K.
    """
    if (p := attention_power("`p`", p)) < 0:
        rule = "be at least 0, or training prefers the interest that is farthest from the item"
        raise problem("`p`", rule, p, "At 0 it trains all interests equally.")
    units = make.user_units  # a single layer initially returns the interests
    if units and units[-1] != make.dim:  # as DeepMatch does
        units = (*units, make.dim)
    user = make.dense("user", [interests, *make.features()], units, from_items=[interests])  # (B, K, D)
    number = []
    if some_of is not None:  # dropout makes the copies of the first differ from it
        user, *number = make.layer(RepeatFirstInterest, "surplus")([user, some_of])
    if p == float("inf"):
        return make.model(user)
    attention = make.layer(LabelAwareAttention, "label_aware_attention", p=p)
    return make.model(user, select=lambda vectors: attention([*vectors, *number]))
