"""Names kept only for programs written for DeepMatch, which find them where they look: `layers`, `inputs`, `utils`.

Each name's docstring says what to use instead. `left_behind` does so for names that are not here.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from deepmatch_ext._checks import missing_name
from deepmatch_ext.deepmatch.left_behind import LAYERS

_HOMES = {
    "attention": (
        *("AttentionSequencePoolingLayer", "ConcatAttention", "DotAttention", "SelfAttention"),
        *("SelfMultiHeadAttention", "SoftmaxWeightedSum", "UserAttention"),
    ),
    "interests": ("CapsuleLayer", "MaskUserEmbedding"),
    "layers": ("EmbeddingIndex", "InBatchSoftmaxLayer", "PoolingLayer", "RowsOf"),
    "recurrent": ("DynamicMultiRNN",),
}


def all_layers() -> dict[str, Any]:
    """DeepMatch's layers by name."""
    modules = {home: import_module(f"{__name__}.{home}") for home in _HOMES}
    return {name: getattr(modules[home], name) for home, names in _HOMES.items() for name in names}


def find_layer(module: str, name: str) -> Any:
    """What ``__getattr__`` of a module of layers returns for a name that it does not have."""
    if any(name in names for names in _HOMES.values()):
        return all_layers()[name]
    raise missing_name(module, name, LAYERS)
