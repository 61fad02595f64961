"""Where programs written for DeepMatch look for its attention layers; see `deepmatch_ext.deepmatch`."""

from importlib import import_module
from typing import Any

_DEEPMATCHS = [
    "AttentionSequencePoolingLayer",
    "ConcatAttention",
    "DotAttention",
    "SelfAttention",
    "SelfMultiHeadAttention",
    "SoftmaxWeightedSum",
    "UserAttention",
]
__all__ = [*_DEEPMATCHS]


def __getattr__(name: str) -> Any:
    return import_module("deepmatch_ext.deepmatch").find_layer(__name__, name)
