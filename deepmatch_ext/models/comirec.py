"""ComiRec: Cen et al., "Controllable Multi-Interest Framework for Recommendation", KDD 2020."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmatch_ext._checks import as_flag, number_between, one_of, positive_int
from deepmatch_ext.layers import DynamicRouting, SelfAttentiveInterests
from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._of_interests import events_of_history, model_of_interests
from deepmatch_ext.models._retrieval_model import RetrievalModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deepmatch_ext.models._arguments import Shared


@functools.partial(builder, table_stddev=0.01)
def ComiRec(
    make: Assembly,
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    k_max: int = 2,
    p: float = 100.0,
    interest_extractor: str = "sa",
    add_pos: bool = True,
    user_dnn_hidden_units: Sequence[int] | None = None,
    dnn_activation: Any = "relu",
    dnn_use_bn: bool = False,
    l2_reg_dnn: float = 0.0,
    l2_reg_embedding: float = 1e-6,
    dnn_dropout: float = 0.0,
    output_activation: Any = "linear",
    sampler_config: Any = None,
    seed: int = 1024,
    *,
    routing_scale: float = 5.0,
    temperature: float = 0.1,
    item_dnn_hidden_units: Sequence[int] | None = None,
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """K vectors for each user, one for each interest that the history shows.

    Self-attention (``sa``) or dynamic routing (``dr``) extracts the interests from the history that shares the item's
    table. If its ``combiner`` contains ``recency``, recent items count more. Histories with the same ``length_name``
    and ``maxlen``, such as categories, are read beside its items. The dense layers read each interest and the user's
    other features. Training prefers the interest that is nearest to the positive, and an item's score is its
    best over the interests. All vectors are L2-normalised. The order of the arguments is DeepMatch's.

    Args:
        k_max: K, the number of interests.
        p: How much training prefers the nearest interest: `deepmatch_ext.layers.LabelAwareAttention`. At least 0, which
            trains all interests equally. The paper trains only the nearest, as ``float("inf")`` does
            (`NearestInterest`) and 100 nearly does.
        interest_extractor: ``sa``, `SelfAttentiveInterests`, or ``dr``, `DynamicRouting`; in upper or lower case.
        add_pos: With ``sa``: whether the attention depends on positions.
        user_dnn_hidden_units: Units of the dense layers after the interests. None: one layer of D, which is
            initialised to return the interests. If the last is not the items' D, a layer of D is appended, as in
            DeepMatch. An empty list, as in the paper: no dense layer; the user must then have no other features.
        routing_scale: With ``dr``: how sharply items are routed to interests. At 0 all interests stay near the mean of
            the history; the larger it is, the more each interest stands for one group of its items.

    Returns:
        A Keras model from user and item inputs to each example's loss (B, 1), with the attributes ``user_input``,
        ``user_emb`` (B, K, D), ``item_input`` and ``item_emb`` (B, D) (also as ``user_embedding``, ``item_embedding``).

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, "mean", "len")
        >>> model = ComiRec([history], [SparseFeat("item", 50, 8)], k_max=4, user_dnn_hidden_units=())
        >>> model.user_vectors({"hist_item": np.array([[3, 2, 0, 0, 0]]), "len": np.array([2])}).shape
        (1, 4, 8)
    """
    k_max, add_pos = positive_int("`k_max`", k_max), as_flag("`add_pos`", add_pos)
    scale = number_between("`routing_scale`", routing_scale, 0, float("inf"))
    lower = interest_extractor.lower() if isinstance(interest_extractor, str) else interest_extractor  # as DeepMatch
    extractor = one_of("`interest_extractor`", lower, ("sa", "dr"))
    history = events_of_history(make)  # rows (B, T, D), and which of them are items (B, T)
    of_extractor = {
        "num_interests": k_max,
        "recency_decay": history.recency_decay,
        "seed": make.seed("interests"),
    }
    if extractor == "sa":
        layer = make.layer(SelfAttentiveInterests, "interests", add_pos=add_pos, **of_extractor)
    else:
        layer = make.layer(DynamicRouting, "interests", scale=scale, **of_extractor)
    interests = layer([history.rows, history.valid])  # (B, K, D)
    return model_of_interests(make, interests, p)
