"""The layers; all are registered, so Keras loads models that have them without being told."""

from typing import Any

from deepmatch_ext.layers.catalogue import ItemCatalogue, KnownItems
from deepmatch_ext.layers.dropout import RepeatableDropout
from deepmatch_ext.layers.embedding import EmbeddingTable, HashIds
from deepmatch_ext.layers.history import HistoryDropout
from deepmatch_ext.layers.jagged import JaggedIds, JaggedPooling
from deepmatch_ext.layers.normalization import L2Normalization
from deepmatch_ext.layers.pooling import PaddingMask, SequenceMaskPooling, SequenceWeighting
from deepmatch_ext.layers.softmax import CandidateLoss, CandidateSampler, SampledSoftmaxLayer
from deepmatch_ext.losses import sampledsoftmaxloss

# For code written against DeepCTR, which passes `custom_objects` to `load_model`; loading works without.
custom_objects: dict[str, Any] = {
    "CandidateLoss": CandidateLoss,
    "CandidateSampler": CandidateSampler,
    "EmbeddingTable": EmbeddingTable,
    "HashIds": HashIds,
    "HistoryDropout": HistoryDropout,
    "ItemCatalogue": ItemCatalogue,
    "JaggedIds": JaggedIds,
    "JaggedPooling": JaggedPooling,
    "KnownItems": KnownItems,
    "L2Normalization": L2Normalization,
    "PaddingMask": PaddingMask,
    "RepeatableDropout": RepeatableDropout,
    "SampledSoftmaxLayer": SampledSoftmaxLayer,
    "SequenceMaskPooling": SequenceMaskPooling,
    "SequenceWeighting": SequenceWeighting,
    "sampledsoftmaxloss": sampledsoftmaxloss,
}

__all__ = [
    "CandidateLoss",
    "CandidateSampler",
    "EmbeddingTable",
    "HashIds",
    "HistoryDropout",
    "ItemCatalogue",
    "JaggedIds",
    "JaggedPooling",
    "KnownItems",
    "L2Normalization",
    "PaddingMask",
    "RepeatableDropout",
    "SampledSoftmaxLayer",
    "SequenceMaskPooling",
    "SequenceWeighting",
    "custom_objects",
]
