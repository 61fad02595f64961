"""DSSM: Huang et al., "Learning Deep Structured Semantic Models for Web Search using Clickthrough Data", CIKM 2013."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._retrieval_model import RetrievalModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deepmatch_ext.models._arguments import Shared


@builder
def DSSM(
    make: Assembly,
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    user_dnn_hidden_units: Sequence[int] = (64, 32),
    item_dnn_hidden_units: Sequence[int] = (64, 32),
    dnn_activation: Any = "relu",
    dnn_use_bn: bool = False,
    l2_reg_dnn: float = 0.0,
    l2_reg_embedding: float = 1e-6,
    dnn_dropout: float = 0.0,
    loss_type: str = "softmax",
    temperature: float = 0.05,
    sampler_config: Any = None,
    seed: int = 1024,
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """Two towers of dense layers, one for the user and one for the item, compared by cosine similarity.

    As in the paper, the score is the cosine similarity of the two towers' outputs, and training uses a softmax with a
    temperature over the positive and sampled negatives. The paper's towers read hashed letter trigrams of text; these
    read DeepCTR's columns. The order and the defaults of the arguments are DeepMatch's.

    Args:
        user_dnn_hidden_units: Units of the user tower's dense layers; the last is the size of the vectors, D.
        item_dnn_hidden_units: Units of the item tower's dense layers, which end in the same size. An empty list: the
            sum of the item's embeddings.

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext.utils import NegativeSampler
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, "mean", "len")
        >>> items = [SparseFeat("item", 50, 8), SparseFeat("genre", 4, 8)]
        >>> sampler = NegativeSampler("inbatch", 0, "item", item_count=np.ones(50))
        >>> model = DSSM([history], items, sampler_config=sampler)
        >>> model.compile("adam")
        >>> user = {"hist_item": np.array([[3, 2, 0, 0, 0]] * 4), "len": np.array([2] * 4)}
        >>> _ = model.fit({**user, "item": np.array([4, 5, 6, 7]), "genre": np.array([1, 2, 3, 1])}, verbose=0)
        >>> tf.keras.Model(model.item_input, model.item_emb).predict(
        ...     {"item": np.array([4, 5]), "genre": np.array([1, 2])}, verbose=0
        ... ).shape
        (2, 32)
    """
    return make.model(make.dense("user", make.features(), make.user_units))
