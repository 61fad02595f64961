"""Where DeepMatch's programs look for its layers; see `deepmatch_ext.deepmatch`."""

from deepmatch_ext.deepmatch.interests import CapsuleLayer, MaskUserEmbedding
from deepmatch_ext.deepmatch.layers import EmbeddingIndex, PoolingLayer
from deepmatch_ext.layers.interests import LabelAwareAttention
from deepmatch_ext.layers.softmax import SampledSoftmaxLayer

__all__ = [
    "CapsuleLayer",
    "EmbeddingIndex",
    "LabelAwareAttention",
    "MaskUserEmbedding",
    "PoolingLayer",
    "SampledSoftmaxLayer",
]
