"""DeepMatch's and DeepCTR's helpers for feature columns, for code that builds its own models with them.

`YoutubeDNN` needs none of them. Helpers that are not defined here are DeepCTR's own. They are imported on first use,
since importing DeepCTR starts a thread that queries a package index.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from deepmatch_ext._checks import problem

_DEEPCTRS = (
    "DenseFeat",
    "SparseFeat",
    "VarLenSparseFeat",
    "build_input_features",
    "embedding_lookup",
    "get_dense_input",
    "get_feature_names",
    "get_varlen_pooling_list",
    "mergeDict",
    "varlen_embedding_lookup",
)

__all__ = ["create_embedding_matrix", "input_from_feature_columns", *_DEEPCTRS]


def __getattr__(name: str) -> Any:
    if name in _DEEPCTRS:
        return getattr(_deepctr(), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def create_embedding_matrix(
    feature_columns: Iterable[Any], l2_reg: float, seed: int, prefix: str = "", seq_mask_zero: bool = True
) -> dict[str, Any]:
    """DeepCTR's ``create_embedding_matrix``: embedding_name -> Keras ``Embedding``.

    Sizes may be NumPy integers, which Keras 3 refuses. Better: `deepmatch_ext.layers.EmbeddingTable`, from which a step
    reads and updates only the rows that it needs.

    Args:
        feature_columns: DeepCTR's columns.
        l2_reg, seed, prefix, seq_mask_zero: As in DeepCTR.

    Returns:
        Layers by ``embedding_name``; each maps ids to rows of its table, (V, D).

    Example:
        >>> from deepctr.feature_column import SparseFeat
        >>> tables = create_embedding_matrix([SparseFeat("item_id", 50, 8)], l2_reg=0.0, seed=1024)
        >>> tables["item_id"](tf.constant([[3], [7]])).shape
        TensorShape([2, 1, 8])
    """
    columns = [_with_plain_sizes(column) for column in feature_columns]
    return _deepctr().create_embedding_matrix(columns, l2_reg, seed, prefix=prefix, seq_mask_zero=seq_mask_zero)


def input_from_feature_columns(
    features: Mapping[str, Any],
    feature_columns: Iterable[Any],
    l2_reg: float,
    seed: int,
    prefix: str = "",
    seq_mask_zero: bool = True,
    support_dense: bool = True,
    support_group: bool = False,
    embedding_matrix_dict: Mapping[str, Any] | None = None,
) -> tuple[Any, list[Any]]:
    """Embeddings and numbers of the columns, like DeepCTR's function of this name; the embeddings may be given.

    Args:
        features: name -> Keras input, from ``build_input_features``.
        feature_columns: DeepCTR's columns.
        l2_reg, seed, prefix, seq_mask_zero: As in `create_embedding_matrix`.
        support_dense: False refuses ``DenseFeat``.
        support_group: Return the embeddings by ``group_name``.
        embedding_matrix_dict: The embeddings to share, from `create_embedding_matrix`. None: new ones.

    Returns:
        The embeddings, each (B, 1, D): those of ``SparseFeat``, then pooled histories; and the tensors of
        ``DenseFeat``, (B, dimension).

    Raises:
        ValueError: There is a ``DenseFeat``, and ``support_dense`` is False.

    Example:
        >>> from deepctr.feature_column import DenseFeat, SparseFeat, build_input_features
        >>> columns = [SparseFeat("item_id", 50, 8), DenseFeat("price", 1)]
        >>> inputs = build_input_features(columns)
        >>> embeddings, numbers = input_from_feature_columns(inputs, columns, l2_reg=0.0, seed=1024)
        >>> tuple(embeddings[0].shape), tuple(numbers[0].shape)
        ((None, 1, 8), (None, 1))
    """
    deepctr, columns = _deepctr(), list(feature_columns or [])
    sparse = [column for column in columns if isinstance(column, deepctr.SparseFeat)]
    histories = [column for column in columns if isinstance(column, deepctr.VarLenSparseFeat)]
    numbers = deepctr.get_dense_input(features, columns)
    if numbers and not support_dense:
        raise problem("`feature_columns`", "hold no DenseFeat without `support_dense`", f"{len(numbers)} of them")
    if embedding_matrix_dict is None:
        embedding_matrix_dict = create_embedding_matrix(columns, l2_reg, seed, prefix, seq_mask_zero)
    rows = deepctr.embedding_lookup(embedding_matrix_dict, features, sparse)
    of_positions = deepctr.varlen_embedding_lookup(embedding_matrix_dict, features, histories)
    groups = deepctr.mergeDict(rows, deepctr.get_varlen_pooling_list(of_positions, features, histories))
    return (groups if support_group else list(chain.from_iterable(groups.values()))), numbers


def _with_plain_sizes(column: Any) -> Any:
    if hasattr(column, "sparsefeat"):
        return column._replace(sparsefeat=_with_plain_sizes(column.sparsefeat))
    if hasattr(column, "vocabulary_size"):
        sizes = {name: int(getattr(column, name)) for name in ("vocabulary_size", "embedding_dim")}
        return column._replace(**sizes)
    return column


def _deepctr() -> Any:
    return importlib.import_module("deepctr.feature_column")
