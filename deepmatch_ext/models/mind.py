"""MIND: Li et al., "Multi-Interest Network with Dynamic Routing for Recommendation at Tmall", CIKM 2019."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmatch_ext._checks import as_flag, number_between, positive_int
from deepmatch_ext.layers import DynamicRouting
from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._of_interests import events_of_history, model_of_interests
from deepmatch_ext.models._retrieval_model import RetrievalModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deepmatch_ext.models._arguments import Shared


@functools.partial(builder, table_stddev=0.01)
def MIND(
    make: Assembly,
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    k_max: int = 2,
    p: float = 100.0,
    dynamic_k: bool = False,
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
    rounds: int = 3,
    routing_scale: float = 2.0,
    temperature: float = 0.1,
    item_dnn_hidden_units: Sequence[int] | None = None,
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """K vectors for each user, by routing the history's items to K capsules.

    The history that shares the item's table is routed (`deepmatch_ext.layers.DynamicRouting`, with one matrix for all);
    if its ``combiner`` contains ``recency``, recent items count more in the interests. Histories with the
    same ``length_name`` and ``maxlen``, such as categories, are read beside its items. The dense layers read each
    interest and the user's other features. Label-aware attention weights the interests that a positive trains, and an
    item's score is its best over the interests. All vectors are L2-normalised. The order of the arguments is
    DeepMatch's.

    Args:
        k_max: K, the number of interests.
        p: How much label-aware attention prefers the nearest interest: `deepmatch_ext.layers.LabelAwareAttention`. At
            least 0, which trains all interests equally. ``float("inf")`` trains only the nearest (`NearestInterest`).
        dynamic_k: Whether a user with n items has ``max(1, min(K, log2(n)))`` interests. The others repeat the first.
        user_dnn_hidden_units: Units of the dense layers after the interests. None: one layer of D, which is
            initialised to return the interests. If the last is not the items' D, a layer of D is appended, as in
            DeepMatch. An empty list: no dense layer; the user must then have no other features.
        rounds: The number of rounds of routing.
        routing_scale: How sharply items are routed to interests. At 0 the routing follows the random logits; the
            larger it is, the more each interest stands for one group of the history's items.

    Returns:
        A Keras model from user and item inputs to each example's loss (B, 1), with the attributes ``user_input``,
        ``user_emb`` (B, K, D), ``item_input`` and ``item_emb`` (B, D) (also as ``user_embedding``, ``item_embedding``).

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, "mean", "len")
        >>> model = MIND([history], [SparseFeat("item", 50, 8)], k_max=3, dynamic_k=True)
        >>> tuple(model.user_emb.shape[1:])
        (3, 8)
    """
    dynamic_k = as_flag("`dynamic_k`", dynamic_k)
    history = events_of_history(make)  # rows (B, T, D), and which of them are items (B, T)
    of_routing = {
        "num_interests": positive_int("`k_max`", k_max),
        "rounds": positive_int("`rounds`", rounds),
        "scale": number_between("`routing_scale`", routing_scale, 0, float("inf")),
        "dynamic_k": dynamic_k,
        "shared": True,
        "recency_decay": history.recency_decay,
        "seed": make.seed("interests"),
    }
    interests = make.layer(DynamicRouting, "interests", **of_routing)([history.rows, history.valid])  # (B, K, D)
    return model_of_interests(make, interests, p, some_of=history.valid if dynamic_k else None)
