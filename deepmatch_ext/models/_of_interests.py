"""What models of several interests share, once the interests are there."""

from __future__ import annotations

from typing import Any

from deepmatch_ext._checks import finite_number
from deepmatch_ext.layers import LabelAwareAttention
from deepmatch_ext.models._assembly import Assembly
from deepmatch_ext.models._retrieval_model import RetrievalModel


def model_of_interests(make: Assembly, interests: Any, p: float) -> RetrievalModel:
    """The model whose user vectors are made by dense layers of the interests and the user's other features.

    Args:
        make: The builder's assembly.
        interests: (B, K, d).
        p: As for `LabelAwareAttention`, which chooses what is trained.
    """
    units = make.user_units  # a single layer begins as the interests
    if units and units[-1] != make.dim:  # as DeepMatch does
        units = (*units, make.dim)
    user = make.dense("user", [interests, *make.features()], units, from_items=[interests])  # (B, K, D)
    return make.model(user, select=make.layer(LabelAwareAttention, "label_aware_attention", p=finite_number("`p`", p)))
