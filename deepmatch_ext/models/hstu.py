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
    history_times: str | None = None,
    request_time: str | None = None,
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """Attention without softmax and with a gate, so repeated events add up (`deepmatch_ext.layers.HSTUBlock`).

    By default, what matters is the distance between positions. The paper's bias by time comes with `history_times` and
    `request_time`.

    Every position of the history is trained. `deepmatch_ext.data.Split.sequence_targets`, not ``train_targets``,
    returns the rows in which each event with a history is a target once. Histories with the ``length_name`` and the
    ``maxlen`` of the item history, such as the rating or the category of each item, are read beside the items. The
    user's other features and the state go through a linear layer. These features and a row's weight apply to all of its
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
