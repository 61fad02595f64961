"""The retrieval stage beside DeepCTR: two-tower models with sampled softmax on DeepCTR's feature columns."""

from deepmatch_ext import data, evaluation, layers, losses, models, optimizers, retrieval, samplers, serving, utils
from deepmatch_ext._version import __version__
from deepmatch_ext.layers import custom_objects
from deepmatch_ext.models import YoutubeDNN

__all__ = [
    "YoutubeDNN",
    "__version__",
    "custom_objects",
    "data",
    "evaluation",
    "layers",
    "losses",
    "models",
    "optimizers",
    "retrieval",
    "samplers",
    "serving",
    "utils",
]
