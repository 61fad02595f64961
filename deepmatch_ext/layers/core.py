"""Where programs written for DeepMatch look for its layers; see `deepmatch_ext.deepmatch`."""

from importlib import import_module
from typing import Any

from deepmatch_ext.layers.interests import LabelAwareAttention
from deepmatch_ext.layers.softmax import SampledSoftmaxLayer

_DEEPMATCHS = ["CapsuleLayer", "EmbeddingIndex", "InBatchSoftmaxLayer", "MaskUserEmbedding", "PoolingLayer"]
__all__ = ["LabelAwareAttention", "SampledSoftmaxLayer", *_DEEPMATCHS]


def __getattr__(name: str) -> Any:
    return import_module("deepmatch_ext.deepmatch").find_layer(__name__, name)
