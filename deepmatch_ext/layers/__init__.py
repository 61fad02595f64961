"""The layers; all are registered, so Keras loads models that have them without being told."""

from typing import Any

from deepmatch_ext.layers.embedding import EmbeddingTable, HashIds
from deepmatch_ext.layers.jagged import JaggedIds, JaggedPooling
from deepmatch_ext.layers.normalization import L2Normalization
from deepmatch_ext.layers.pooling import PaddingMask, SequenceMaskPooling, SequenceWeighting
from deepmatch_ext.layers.softmax import CandidateSampler, SampledSoftmaxLayer
from deepmatch_ext.losses import sampledsoftmaxloss

# For code written against DeepCTR, which passes `custom_objects` to `load_model`; loading works without.
custom_objects: dict[str, Any] = {
    "CandidateSampler": CandidateSampler,
    "EmbeddingTable": EmbeddingTable,
    "HashIds": HashIds,
    "JaggedIds": JaggedIds,
    "JaggedPooling": JaggedPooling,
    "L2Normalization": L2Normalization,
    "PaddingMask": PaddingMask,
    "SampledSoftmaxLayer": SampledSoftmaxLayer,
    "SequenceMaskPooling": SequenceMaskPooling,
    "SequenceWeighting": SequenceWeighting,
    "sampledsoftmaxloss": sampledsoftmaxloss,
}

__all__ = [
    "CandidateSampler",
    "EmbeddingTable",
    "HashIds",
    "JaggedIds",
    "JaggedPooling",
    "L2Normalization",
    "PaddingMask",
    "SampledSoftmaxLayer",
    "SequenceMaskPooling",
    "SequenceWeighting",
    "custom_objects",
]
