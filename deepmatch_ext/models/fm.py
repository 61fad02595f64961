"""FM: Rendle, "Factorization Machines", ICDM 2010, in a form with two towers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmatch_ext._checks import problem
from deepmatch_ext._keras import keras
from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._retrieval_model import RetrievalModel

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deepmatch_ext.models._arguments import Shared


@builder
def FM(
    make: Assembly,
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    l2_reg_embedding: float = 1e-6,
    loss_type: str = "softmax",
    temperature: float = 0.05,
    sampler_config: Any = None,
    seed: int = 1024,
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """Each side's vector is the sum of its fields' embeddings; the inner product sums all pairs across the two sides.

    Of a factorization machine's pairs of fields, only those between user and item, and the item's own terms, affect the
    ranking of items for one user. The item's own terms are left out. As in DeepMatch, the sums are L2-normalised. The
    order and the defaults of the arguments are DeepMatch's.

    Args:
        user_feature_columns: ``SparseFeat`` and ``VarLenSparseFeat`` of the same ``embedding_dim``; a history counts
            once for each part of its combiner.
        item_feature_columns: The same for the item side, the item id first.

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, "mean", "len")
        >>> model = FM([SparseFeat("city", 9, 8), history], [SparseFeat("item", 50, 8)])
        >>> model.user_emb.shape[1]
        8
    """
    for what, columns in {
        "user_feature_columns": make.user_columns,
        "item_feature_columns": make.item_columns,
    }.items():
        for column in columns:
            of = getattr(column, "sparsefeat", column)
            if getattr(of, "embedding_dim", None) != make.dim:
                rule = f"have embeddings of one `embedding_dim`, the item's, {make.dim}"
                raise problem(f"`{what}`", rule, repr(column.name))

    def summed(side: str, fields: list[Any]) -> Any:
        return fields[0] if len(fields) == 1 else make.layer(keras.layers.Add, side, "sum")(fields)

    return make.model(summed("user", make.features()), item=lambda fields: summed("item", fields))
