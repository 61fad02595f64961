"""SequenceDNN: recency pooling, optional attention blocks and dense layers, trained at every position."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._encoding import DEFAULT_POOLED, encoded
from deepmatch_ext.models._retrieval_model import RetrievalModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deepmatch_ext.models._arguments import Shared


@functools.partial(builder, table_stddev=0.01)
def SequenceDNN(
    make: Assembly,
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    blocks: Sequence[str] = (),
    pooled: str = DEFAULT_POOLED,
    num_heads: int = 1,
    block_dropout: float = 0.2,
    user_dnn_hidden_units: Sequence[int] | None = None,
    dnn_activation: Any = "relu",
    dnn_use_bn: bool = False,
    l2_reg_dnn: float = 0.0,
    l2_reg_embedding: float = 0.0,
    dnn_dropout: float = 0.1,
    output_activation: Any = "linear",
    temperature: float = 0.1,
    sampler_config: Any = None,
    seed: int = 1024,
    *,
    item_dnn_hidden_units: Sequence[int] | None = None,
    history_times: str | None = None,
    request_time: str | None = None,
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """The last items and two recency-weighted means through dense layers, trained at every position of the history.

    A row trains as many predictions as its history has items. `deepmatch_ext.data.Split.sequence_targets`, not
    ``train_targets``, returns the rows in which each event with a history is a target once. The state at a position
    joins the poolings of `pooled`, over the event there and the older ones, and the output of `blocks`. The user's
    vector is the sum of a linear layer of the state, which starts as the mean of its parts, and the dense layers.
    Histories with the ``length_name`` and the ``maxlen`` of the item history, such as the rating or the category of
    each item, are read beside the items. If `item_features` describe the items, a position reads the item's vector with
    all its features; `item_id_dropout` then drops ids in histories, too. The user's other features and a row's weight
    apply to all of its positions, so they must not change with events.

    Args:
        blocks: The blocks that the history goes through, one after the other: ``sasrec``, ``ligr``, ``hstu``, ``gru``.
            None by default.
        pooled: The poolings used beside the blocks' state, written like a column's ``combiner``; the columns' own
            combiners are ignored. Empty: none. A history shorter than 3 items does without ``last:2`` and ``last:3`` of
            the default.
        user_dnn_hidden_units: Units of the dense layers that are added to the linear one. The last must be the items'
            D. None: (4 D, D). (D,) or an empty list: only the linear layer.

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, length_name="len")
        >>> model = SequenceDNN([history], [SparseFeat("item", 50, 8)])
        >>> model.user_vectors({"hist_item": np.array([[3, 2, 0, 0, 0]]), "len": np.array([2])}).shape
        (1, 8)
    """
    units = (4 * make.dim, make.dim) if user_dnn_hidden_units is None else make.user_units or (make.dim,)
    return make.model(encoded(make, blocks, num_heads, block_dropout, pooled, units))
