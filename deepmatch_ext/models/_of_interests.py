"""What models of several interests share, once the interests are there."""

from __future__ import annotations

from typing import Any

from deepmatch_ext.layers import LabelAwareAttention, RepeatFirstInterest
from deepmatch_ext.layers.interests import attention_power
from deepmatch_ext.models._assembly import Assembly
from deepmatch_ext.models._retrieval_model import RetrievalModel


def model_of_interests(make: Assembly, interests: Any, p: float, some_of: Any = None) -> RetrievalModel:
    """The model whose user vectors are made by dense layers of the interests and the user's other features.

    Args:
        make: The builder's assembly.
        interests: (B, K, d).
        p: As for `LabelAwareAttention`, which chooses what is trained; infinity: `NearestInterest`.
        some_of: (B, T) booleans, the positions with an item, if short histories have fewer interests than K.
    """
    p = attention_power("`p`", p)
    units = make.user_units  # a single layer begins as the interests
    if units and units[-1] != make.dim:  # as DeepMatch does
        units = (*units, make.dim)
    user = make.dense("user", [interests, *make.features()], units, from_items=[interests])  # (B, K, D)
    number = []
    if some_of is not None:  # dropout has made the copies of the first differ from it
        user, *number = make.layer(RepeatFirstInterest, "surplus")([user, some_of])
    if p == float("inf"):
        return make.model(user)
    attention = make.layer(LabelAwareAttention, "label_aware_attention", p=p)
    return make.model(user, select=lambda vectors: attention([*vectors, *number]))
