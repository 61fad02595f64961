"""The model builders."""

from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.models.youtubednn import YoutubeDNN

__all__ = ["RetrievalModel", "YoutubeDNN"]
