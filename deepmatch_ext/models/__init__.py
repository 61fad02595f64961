"""The model builders."""

from typing import Any

from deepmatch_ext._checks import missing_name
from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.models.youtubednn import YoutubeDNN

__all__ = ["RetrievalModel", "YoutubeDNN"]

_LEFT_BEHIND = dict.fromkeys(
    ("ComiRec", "DSSM", "FM", "MIND", "NCF", "SDM"),
    "Of DeepMatch's models only YoutubeDNN is here; keep `deepmatch.models` for the others.",
)


def __getattr__(name: str) -> Any:
    raise missing_name(__name__, name, _LEFT_BEHIND)
