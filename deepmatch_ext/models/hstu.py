"""HSTU: Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers", ICML 2024."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmatch_ext._checks import positive_int
from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._encoding import encoded
from deepmatch_ext.models._retrieval_model import RetrievalModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deepmatch_ext.models._arguments import Shared


@builder
def HSTU(
    make: Assembly,
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    num_blocks: int = 2,
    num_heads: int = 1,
    block_dropout: float = 0.2,
    l2_reg_embedding: float = 0.0,
    dnn_dropout: float = 0.0,
    temperature: float = 0.1,
    sampler_config: Any = None,
    seed: int = 1024,
    *,
    item_dnn_hidden_units: Sequence[int] | None = None,
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """Attention without softmax and with a gate, so what occurs often adds up (`deepmatch_ext.layers.HSTUBlock`).

    Positions are known by how far behind another one they are; the paper's bias by time is left out.

    Every position of the history is trained: `deepmatch_ext.data.Split.sequence_targets`, not ``train_targets``, gives
    the rows that hold each event with a history once as a target. Histories that share the ``length_name`` of the
    items' history and have its ``maxlen``, such as the rating or the category of each item, say more of the same
    events. The user's other features join the state in a linear layer; they, and a row's weight, count for all of its
    positions, so they must not change with events.

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, length_name="len")
        >>> model = HSTU([history], [SparseFeat("item", 50, 8)])
        >>> model.user_vectors({"hist_item": np.array([[3, 2, 0, 0, 0]]), "len": np.array([2])}).shape
        (1, 8)
    """
    blocks = ["hstu"] * positive_int("`num_blocks`", num_blocks)
    return make.model(encoded(make, blocks, num_heads, block_dropout))
