"""The model builders, and the parts for writing your own."""

from deepmatch_ext.models._arguments import Shared
from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.models.comirec import ComiRec
from deepmatch_ext.models.dssm import DSSM
from deepmatch_ext.models.fm import FM
from deepmatch_ext.models.gru4rec import GRU4Rec
from deepmatch_ext.models.hstu import HSTU
from deepmatch_ext.models.mind import MIND
from deepmatch_ext.models.ncf import NCF
from deepmatch_ext.models.sasrec import SASRec
from deepmatch_ext.models.sdm import SDM
from deepmatch_ext.models.sequence_dnn import SequenceDNN
from deepmatch_ext.models.srgnn import SRGNN
from deepmatch_ext.models.youtubednn import YoutubeDNN

__all__ = [
    "DSSM",
    "FM",
    "HSTU",
    "MIND",
    "NCF",
    "SDM",
    "SRGNN",
    "Assembly",
    "ComiRec",
    "GRU4Rec",
    "RetrievalModel",
    "SASRec",
    "SequenceDNN",
    "Shared",
    "YoutubeDNN",
    "builder",
]
