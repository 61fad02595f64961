"""Where programs written for DeepMatch look for its helpers for feature columns; see `deepmatch_ext.deepmatch`."""

from typing import Any

from deepmatch_ext.deepmatch import inputs as _inputs
from deepmatch_ext.deepmatch.inputs import create_embedding_matrix as create_embedding_matrix
from deepmatch_ext.deepmatch.inputs import input_from_feature_columns as input_from_feature_columns

__all__ = list(_inputs.__all__)


def __getattr__(name: str) -> Any:
    return getattr(_inputs, name)
