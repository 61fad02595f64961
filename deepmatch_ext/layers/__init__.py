"""The layers. All are registered with Keras, so models that contain them load without ``custom_objects``.

The dictionary ``custom_objects`` is for code written for DeepCTR and DeepMatch, which passes it to `load_model`. If
DeepCTR has already been imported, it also contains DeepCTR's layers.
"""

import sys
from importlib import import_module
from typing import Any

from deepmatch_ext.layers.activation import Dice
from deepmatch_ext.layers.attention import (
    AttentionPooling,
    GatedSum,
    MultiHeadSelfAttention,
    OldestFirst,
    Positions,
    WithoutPadding,
)
from deepmatch_ext.layers.catalogue import ItemCatalogue, KnownItems
from deepmatch_ext.layers.dropout import RepeatableDropout
from deepmatch_ext.layers.embedding import EmbeddingTable, HashIds
from deepmatch_ext.layers.graph import GatedSessionGraph, SessionReadout
from deepmatch_ext.layers.history import HistoryDropout
from deepmatch_ext.layers.interests import (
    DynamicRouting,
    FirstRows,
    LabelAwareAttention,
    NearestInterest,
    RepeatFirstInterest,
    SelfAttentiveInterests,
)
from deepmatch_ext.layers.jagged import JaggedIds, JaggedPooling
from deepmatch_ext.layers.normalization import L2Normalization
from deepmatch_ext.layers.pooling import (
    HistoryItems,
    ItemsInFront,
    PaddingMask,
    SequenceMaskPooling,
    SequenceWeighting,
)
from deepmatch_ext.layers.positions import AtNow, AtPlaces, ByPosition, LossOfRows, TrainedPositions, UpToLongest
from deepmatch_ext.layers.sequence import HSTUBlock, PooledStates, TransformerBlock
from deepmatch_ext.layers.softmax import CandidateLoss, CandidateSampler, PairProbability, SampledSoftmaxLayer
from deepmatch_ext.layers.times import SinceLastEvent, TimeBuckets
from deepmatch_ext.losses import sampledsoftmaxloss

_LAYERS: tuple[Any, ...] = (
    AtNow,
    AtPlaces,
    AttentionPooling,
    ByPosition,
    CandidateLoss,
    CandidateSampler,
    Dice,
    DynamicRouting,
    EmbeddingTable,
    FirstRows,
    GatedSessionGraph,
    GatedSum,
    HSTUBlock,
    HashIds,
    HistoryDropout,
    HistoryItems,
    ItemCatalogue,
    ItemsInFront,
    JaggedIds,
    JaggedPooling,
    KnownItems,
    L2Normalization,
    LabelAwareAttention,
    LossOfRows,
    MultiHeadSelfAttention,
    NearestInterest,
    OldestFirst,
    PaddingMask,
    PairProbability,
    PooledStates,
    Positions,
    RepeatFirstInterest,
    RepeatableDropout,
    SampledSoftmaxLayer,
    SelfAttentiveInterests,
    SequenceMaskPooling,
    SequenceWeighting,
    SessionReadout,
    SinceLastEvent,
    TimeBuckets,
    TrainedPositions,
    TransformerBlock,
    UpToLongest,
    WithoutPadding,
)

# `models` adds its own classes: for a model in an .h5 file, Keras 3 looks for the class nowhere else.
own_objects: dict[str, Any] = {
    **{layer.__name__: layer for layer in _LAYERS},
    "sampledsoftmaxloss": sampledsoftmaxloss,
}


def __getattr__(name: str) -> Any:
    deepmatch = import_module("deepmatch_ext.deepmatch")  # it builds on this package
    if name == "custom_objects":
        import_module("deepmatch_ext").load()  # models add their own
        # DeepCTR is not imported for this: importing it starts a thread that queries a package index.
        deepctr_layers = sys.modules.get("deepctr.layers")
        return {**getattr(deepctr_layers, "custom_objects", {}), **own_objects, **deepmatch.all_layers()}
    return deepmatch.find_layer(__name__, name)


__all__ = [
    "AtNow",
    "AtPlaces",
    "AttentionPooling",
    "AttentionSequencePoolingLayer",
    "ByPosition",
    "CandidateLoss",
    "CandidateSampler",
    "CapsuleLayer",
    "ConcatAttention",
    "Dice",
    "DotAttention",
    "DynamicMultiRNN",
    "DynamicRouting",
    "EmbeddingIndex",
    "EmbeddingTable",
    "FirstRows",
    "GatedSessionGraph",
    "GatedSum",
    "HSTUBlock",
    "HashIds",
    "HistoryDropout",
    "HistoryItems",
    "InBatchSoftmaxLayer",
    "ItemCatalogue",
    "ItemsInFront",
    "JaggedIds",
    "JaggedPooling",
    "KnownItems",
    "L2Normalization",
    "LabelAwareAttention",
    "LossOfRows",
    "MaskUserEmbedding",
    "MultiHeadSelfAttention",
    "NearestInterest",
    "OldestFirst",
    "PaddingMask",
    "PairProbability",
    "PooledStates",
    "PoolingLayer",
    "Positions",
    "RepeatFirstInterest",
    "RepeatableDropout",
    "RowsOf",
    "SampledSoftmaxLayer",
    "SelfAttention",
    "SelfAttentiveInterests",
    "SelfMultiHeadAttention",
    "SequenceMaskPooling",
    "SequenceWeighting",
    "SessionReadout",
    "SinceLastEvent",
    "SoftmaxWeightedSum",
    "TimeBuckets",
    "TrainedPositions",
    "TransformerBlock",
    "UpToLongest",
    "UserAttention",
    "WithoutPadding",
    "custom_objects",
]
