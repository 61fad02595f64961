"""NCF: He et al., "Neural Collaborative Filtering", WWW 2017."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deepmatch_ext._checks import positive_int, problem
from deepmatch_ext._keras import keras
from deepmatch_ext.features import SparseColumn
from deepmatch_ext.layers.activation import activation_layer
from deepmatch_ext.models._assembly import Assembly, builder, checked_units
from deepmatch_ext.models._retrieval_model import RetrievalModel

_OF_DICT = 20  # DeepMatch's size of an embedding


def _columns_of_sizes(arguments: dict[str, Any]) -> dict[str, Any]:
    """Columns in place of dicts of vocabulary sizes, as DeepMatch's NCF takes them."""
    arguments = dict(arguments)
    for side in ("user", "item"):
        columns, size = f"{side}_feature_columns", f"{side}_gmf_embedding_dim"
        dim, arguments[size] = arguments[size], None
        if isinstance(arguments[columns], Mapping):
            dim = _OF_DICT if dim is None else positive_int(f"`{size}`", dim)
            arguments[columns] = [
                SparseColumn(name, vocabulary_size, dim) for name, vocabulary_size in arguments[columns].items()
            ]
        elif dim is not None:
            rule = f"be left out if `{columns}` are DeepCTR's, which have an `embedding_dim`"
            raise problem(f"`{size}`", rule, dim)
    return arguments


@functools.partial(builder, prepare=_columns_of_sizes)
def NCF(
    make: Assembly,
    user_feature_columns: Sequence[Any] | Mapping[str, int],
    item_feature_columns: Sequence[Any] | Mapping[str, int],
    user_gmf_embedding_dim: int | None = None,
    item_gmf_embedding_dim: int | None = None,
    user_mlp_embedding_dim: int = 20,
    item_mlp_embedding_dim: int = 20,
    dnn_use_bn: bool = False,
    dnn_hidden_units: Sequence[int] = (64, 32),
    dnn_activation: Any = "relu",
    l2_reg_dnn: float = 0.0,
    l2_reg_embedding: float = 1e-6,
    dnn_dropout: float = 0.0,
    seed: int = 1024,
    *,
    temperature: float = 0.1,
    item_features: Any = None,
    item_id_dropout: float = 0.1,
    history_dropout: float = 0.0,
    exclude_features: Sequence[str] = (),
    check_ids: bool = True,
    table_dtype: str = "float32",
) -> RetrievalModel:
    """NeuMF: the probability that a user chooses an item, by factorization (GMF) and a multi-layer perceptron (MLP).

    The model itself scores pairs: its output is ``sigmoid(u.i / temperature + w.MLP(p, q) + b)``, it is
    trained with labels, 1 and 0, and ``model.predict(x)`` gives the probability of each pair. To recommend with the
    whole model, every item has to be scored for a user.

    ``user_emb`` and ``item_emb``, and with them `user_vectors`, an index and an export, come from the GMF half alone,
    since the MLP's scores are not inner products of vectors. Retrieve with these vectors, and rank the result with the
    whole model.

    Rendle et al., "Neural Collaborative Filtering vs. Matrix Factorization Revisited", RecSys 2020, found that the
    inner product alone does better than the MLP: take `FM` or `YoutubeDNN` unless you need NCF.

    The two halves have embeddings of their own. The weights of GMF's product, which the paper writes as h, are part of
    the user's embedding. The order of the arguments is DeepMatch's.

    Args:
        user_feature_columns: DeepCTR's columns, or a dict, name -> vocabulary size, as for DeepMatch's NCF. If
            there are several, a linear layer maps their embeddings to the items' D in the GMF half.
        item_feature_columns: The same for the item, the id first.
        user_gmf_embedding_dim: The size of the embeddings of a dict's columns in the GMF half; None: 20.
        item_gmf_embedding_dim: The same for the item, D; None: 20.
        user_mlp_embedding_dim: The size of the MLP's embedding of each user column.
        item_mlp_embedding_dim: The same for the item columns.
        dnn_hidden_units: Units of the MLP's layers. An empty list: its logit is linear in the embeddings.

    Returns:
        A Keras model from user and item inputs to the probability of each pair (B, 1), with the attributes
        ``user_input``, ``user_emb``, ``item_input`` and ``item_emb`` (also as ``user_embedding``, ``item_embedding``).

    Example:
        >>> model = NCF({"user": 20, "city": 5}, {"item": 50}, user_mlp_embedding_dim=8, item_mlp_embedding_dim=8)
        >>> model.compile("adam", "binary_crossentropy")
        >>> x = {"user": np.array([3, 3]), "city": np.array([1, 1]), "item": np.array([7, 9])}
        >>> _ = model.fit(x, np.array([1, 0]), verbose=0)
        >>> model.predict(x, verbose=0).shape, model.user_vectors(x).shape, model.item_vectors().shape
        ((2, 1), (2, 20), (50, 20))
    """
    of_user = positive_int("`user_mlp_embedding_dim`", user_mlp_embedding_dim)
    of_item = positive_int("`item_mlp_embedding_dim`", item_mlp_embedding_dim)
    units = checked_units("`dnn_hidden_units`", dnn_hidden_units)

    features = make.features()
    is_one = len(features) == 1 and features[0].shape[-1] == make.dim
    user = features[0] if is_one else make.dense("user", features, (make.dim,))  # (B, D)
    user_parts = make.features("mlp_user", of_user)

    def mlp(features_of_item: Callable[..., list[Any]]) -> Any:
        hidden = make.dense("mlp", [*user_parts, *features_of_item("mlp_item", of_item)], units)
        if units:
            hidden = make.layer(activation_layer, "mlp", "activated", activation=dnn_activation)(hidden)
        start = keras.initializers.GlorotNormal(seed=make.seed("mlp", "logit"))
        return make.layer(keras.layers.Dense, "mlp", "logit", units=1, kernel_initializer=start)(hidden)

    return make.model(user, beside=mlp)
