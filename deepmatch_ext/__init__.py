"""The retrieval stage beside DeepCTR: two-tower models with sampled softmax on DeepCTR's feature columns."""

from typing import Any

from deepmatch_ext import _keras as _keras  # first, since it says what is missing where the rest would stumble
from deepmatch_ext import (
    data,
    evaluation,
    inputs,
    layers,
    losses,
    models,
    optimizers,
    retrieval,
    samplers,
    serving,
    utils,
)
from deepmatch_ext._version import __version__
from deepmatch_ext.models import DSSM, FM, YoutubeDNN

__all__ = [
    "DSSM",
    "FM",
    "YoutubeDNN",
    "__version__",
    "custom_objects",
    "data",
    "evaluation",
    "inputs",
    "layers",
    "losses",
    "models",
    "optimizers",
    "retrieval",
    "samplers",
    "serving",
    "utils",
]


def __getattr__(name: str) -> Any:
    if name == "custom_objects":  # made when it is asked for
        return layers.custom_objects
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
