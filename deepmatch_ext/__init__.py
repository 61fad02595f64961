"""The retrieval stage beside DeepCTR: two-tower models with sampled softmax on DeepCTR's feature columns.

``import deepmatch_ext`` loads the whole package and TensorFlow, after which Keras can load saved models. ``from
deepmatch_ext.data import ...`` loads TensorFlow only for the names that need it, and so do ``evaluation`` and
``retrieval``. ``server`` has to be imported explicitly, and needs only TensorFlow.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from deepmatch_ext._lazy import imported_for
from deepmatch_ext._version import __version__

if TYPE_CHECKING:
    from deepmatch_ext import (
        data,
        evaluation,
        inputs,
        layers,
        losses,
        models,
        optimizers,
        recommender,
        retrieval,
        samplers,
        serving,
        utils,
    )
    from deepmatch_ext.models import (
        DSSM,
        FM,
        HSTU,
        MIND,
        NCF,
        SDM,
        SRGNN,
        ComiRec,
        GRU4Rec,
        SASRec,
        SequenceDNN,
        YoutubeDNN,
    )
    from deepmatch_ext.recommender import Recommender

__all__ = [
    "DSSM",
    "FM",
    "HSTU",
    "MIND",
    "NCF",
    "SDM",
    "SRGNN",
    "ComiRec",
    "GRU4Rec",
    "Recommender",
    "SASRec",
    "SequenceDNN",
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
    "recommender",
    "retrieval",
    "samplers",
    "serving",
    "utils",
]

_BUILDERS = [name for name in __all__ if name[0].isupper() and name != "Recommender"]
_PLAIN = ("data", "evaluation", "retrieval", "server")


def load() -> None:
    """Imports all parts, as ``import deepmatch_ext`` does."""
    import_module("deepmatch_ext._keras")  # first, since it says what is missing, where other modules just fail
    for name in set(__all__).difference(_BUILDERS, ["Recommender", "__version__", "custom_objects"]):
        import_module(f"deepmatch_ext.{name}")
    globals().update({name: getattr(sys.modules["deepmatch_ext.models"], name) for name in _BUILDERS})
    globals()["Recommender"] = sys.modules["deepmatch_ext.recommender"].Recommender


if not TYPE_CHECKING:  # or no name would be unknown to type checkers

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        load()
        # `custom_objects` is made when it is asked for.
        return sys.modules["deepmatch_ext.layers"].custom_objects if name == "custom_objects" else globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "tensorflow" in sys.modules or imported_for(__name__).split(".")[1:2] not in [[name] for name in _PLAIN]:
    load()
