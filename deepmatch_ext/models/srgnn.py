"""SR-GNN: Wu et al., "Session-based Recommendation with Graph Neural Networks", AAAI 2019."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmatch_ext._checks import as_flag, number_between, positive_int
from deepmatch_ext._keras import keras
from deepmatch_ext.layers import (
    GatedSessionGraph,
    L2Normalization,
    RepeatableDropout,
    SequenceMaskPooling,
    SessionReadout,
)
from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._retrieval_model import RetrievalModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deepmatch_ext.models._arguments import Shared


@builder
def SRGNN(
    make: Assembly,
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    steps: int = 1,
    click_dropout: float = 0.2,
    user_dnn_hidden_units: Sequence[int] | None = None,
    dnn_activation: Any = "relu",
    dnn_use_bn: bool = False,
    l2_reg_dnn: float = 0.0,
    l2_reg_embedding: float = 0.0,
    dnn_dropout: float = 0.2,
    output_activation: Any = "linear",
    temperature: float = 0.07,
    sampler_config: Any = None,
    seed: int = 1024,
    *,
    recent: bool = True,
    item_dnn_hidden_units: Sequence[int] | None = None,
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """A session as the graph of its items, whose states are propagated along the edges.

    The history that shares the item's table is the session. Its items are the nodes, and an edge leads from a click's
    item to the next click's, so a session that returns to an item has a cycle. A gated cell updates each item's state
    with those of its neighbours (`deepmatch_ext.layers.GatedSessionGraph`); soft attention sums the states of the
    clicks (`SessionReadout`). Dense layers make the session's vector from this sum, the last click's state, the mean
    of the clicks weighted by 1/rank, the last click itself, and the user's other features; the paper has only the first
    two. Histories with the ``length_name`` and the ``maxlen`` of the session, such as the category of each click, are
    read beside the clicks.

    Time and memory grow with the square of ``maxlen``: 20 to 50 clicks are enough.

    Args:
        steps: The number of propagations.
        click_dropout: Dropout rate of the clicks' rows, in [0, 1).
        user_dnn_hidden_units: Units of the dense layers after the graph. The last is the size of the user vectors and
            must equal that of the item vectors, D. None, as in the paper: one layer, (D,).
        recent: Whether the dense layers read the mean of the clicks weighted by 1/rank and the last click itself.
            False, as in the paper: of the clicks, they read only the attention's sum and the last click's state.

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> session = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, length_name="len")
        >>> model = SRGNN([session], [SparseFeat("item", 50, 8)])
        >>> model.user_vectors({"hist_item": np.array([[3, 2, 3, 0, 0]]), "len": np.array([3])}).shape
        (1, 8)
    """
    recent = as_flag("`recent`", recent)
    steps, rate = positive_int("`steps`", steps), number_between("`click_dropout`", click_dropout, 0, 1)
    clicks, *others = make.histories()  # of each: rows (B, T, d), valid (B, T), ids (B, T)
    rows = clicks.rows
    if others:
        rows = make.layer(keras.layers.Concatenate, "click")([rows, *make.known_rows("known", others)])
    rows = make.layer(L2Normalization, "unit_rows")(rows)
    if rate:
        rows = make.layer(RepeatableDropout, "click_dropout", rate=rate, seed=make.seed("click_dropout"))(rows)
    if rows.shape[-1] != make.dim:
        rows = make.dense("clicks", [rows], (make.dim,))
    graph = make.layer(GatedSessionGraph, "graph", steps=steps, seed=make.seed("graph"))
    states = graph([rows, clicks.valid, clicks.ids])  # (B, T, D)
    readout = make.layer(SessionReadout, "readout", seed=make.seed("readout"))
    whole, last = readout([states, clicks.valid])  # (B, D) each
    of_rows = [
        make.layer(SequenceMaskPooling, "pooled", mode, mode=mode, recency_decay=decay)([rows, clicks.valid])
        for mode, decay in ((("mean", 1.0), ("last", 0.0)) if recent else ())
    ]
    of_items = [last, *of_rows]
    user = make.dense("user", [whole, *of_items, *make.features()], make.user_units, from_items=of_items)
    return make.model(user)
