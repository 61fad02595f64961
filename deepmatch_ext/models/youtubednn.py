"""YoutubeDNN: Covington, Adams, Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._retrieval_model import RetrievalModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deepmatch_ext.models._arguments import Shared


@builder
def YoutubeDNN(
    make: Assembly,
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    user_dnn_hidden_units: Sequence[int] | None = None,
    dnn_activation: Any = "relu",
    dnn_use_bn: bool = False,
    l2_reg_dnn: float = 0.0,
    l2_reg_embedding: float = 0.0,
    dnn_dropout: float = 0.2,
    output_activation: Any = "linear",
    temperature: float = 0.1,
    sampler_config: Any = None,
    seed: int = 1024,
    *,
    item_dnn_hidden_units: Sequence[int] | None = None,
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """A two-tower model: pooled history and user features through dense layers, items from their table or features.

    Both sides end in L2-normalised vectors. By default, the model is trained with sampled softmax over their inner
    products. The order of the arguments is DeepMatch's.

    Args:
        user_dnn_hidden_units: Units of the user tower's dense layers. The last is the size of the user vectors and must
            equal that of the item vectors, D. None: one layer, (D,), which does well in general. With a million events
            or more, (4 D, 2 D, D) and no dropout do better. An empty list: no dense layer.

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext.utils import sampledsoftmaxloss
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, "recency+last", "len")
        >>> model = YoutubeDNN([history], [SparseFeat("item", 50, 8)])
        >>> user = {"hist_item": np.array([[3, 2, 0, 0, 0]] * 4), "len": np.array([2] * 4)}
        >>> model.compile("adam", sampledsoftmaxloss)
        >>> _ = model.fit({**user, "item": np.array([4] * 4)}, verbose=0)
        >>> tf.keras.Model(model.user_input, model.user_emb).predict(user, verbose=0).shape
        (4, 8)
        >>> model.item_vectors().shape
        (50, 8)
    """
    # Rows of tables, histories pooled as their combiners say, and numbers: (B, d) each.
    features = make.features()
    user = make.dense("user", features, make.user_units)  # (B, D)
    # The item's row of the table, or the row and its features through dense layers; candidates; the loss.
    return make.model(user)
