"""A sequence encoder that every position trains: what recency says, blocks of attention, and dense layers behind."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._encoding import encoded
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
    pooled: str = "recency:0.7+recency:1.4+last+last:2+last:3",
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
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """The last items and two recency-weighted means through dense layers, trained at every position of the history.

    A row trains as many predictions as its history has items: `deepmatch_ext.data.Split.sequence_targets`, not
    ``train_targets``, gives the rows that hold each event with a history once as a target. The state at a position is
    what `pooled` says of what stands there and behind it, and what `blocks` make of it; the vector is a linear layer of
    the state, which begins as the mean of its rows, and the dense layers of it, added. Histories that share the
    ``length_name`` of the items' history and have its ``maxlen``, such as the rating or the category of each item, say
    more of the same events. Where `item_features` describe the items, what stands at a position is the item's vector,
    of all that describes it. The user's other features, and a row's weight, count for all of its positions, so they
    must not change with events.

    Args:
        blocks: The blocks that the rows go through one after the other: ``sasrec``, ``ligr``, ``hstu``, ``gru``; none
            by default.
        pooled: What stands beside the blocks' state, in the words of a column's ``combiner``; the columns' own is not
            read. Empty: nothing.
        user_dnn_hidden_units: Units of the dense layers that are added to the linear one. The last must be the items'
            D. None: (4 D, D). (D,) or an empty list: the linear layer alone.

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, length_name="len")
        >>> model = SequenceDNN([history], [SparseFeat("item", 50, 8)])
        >>> model.user_vectors({"hist_item": np.array([[3, 2, 0, 0, 0]]), "len": np.array([2])}).shape
        (1, 8)
    """
    units = (4 * make.dim, make.dim) if user_dnn_hidden_units is None else make.user_units or (make.dim,)
    return make.model(encoded(make, blocks, num_heads, block_dropout, pooled, units))
