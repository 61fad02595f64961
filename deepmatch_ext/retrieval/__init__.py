"""Retrieval: from user and item vectors to each user's best items, and vectors in files and databases."""

from typing import TYPE_CHECKING

from deepmatch_ext._arrays import Seen
from deepmatch_ext._lazy import lazy_names
from deepmatch_ext.retrieval.diversify import diversify
from deepmatch_ext.retrieval.index import VectorIndex, recall
from deepmatch_ext.retrieval.pgvector import remove_pgvector, search_pgvector, upsert_pgvector, write_pgvector
from deepmatch_ext.retrieval.vector_files import Vectors, read_vectors, write_vectors

if TYPE_CHECKING:
    from deepmatch_ext.retrieval.choose import choose_index
    from deepmatch_ext.retrieval.exact_index import ExactIndex
    from deepmatch_ext.retrieval.faiss_index import FaissIndex
    from deepmatch_ext.retrieval.scann_index import ScannIndex
    from deepmatch_ext.retrieval.top_n import best_rows, top_n
else:  # they need TensorFlow
    _LAZY = {
        "ExactIndex": "exact_index",
        "FaissIndex": "faiss_index",
        "ScannIndex": "scann_index",
        "best_rows": "top_n",
        "choose_index": "choose",
        "top_n": "top_n",
    }
    __getattr__, __dir__ = lazy_names(__name__, _LAZY)

__all__ = [
    "ExactIndex",
    "FaissIndex",
    "ScannIndex",
    "Seen",
    "VectorIndex",
    "Vectors",
    "best_rows",
    "choose_index",
    "diversify",
    "read_vectors",
    "recall",
    "remove_pgvector",
    "search_pgvector",
    "top_n",
    "upsert_pgvector",
    "write_pgvector",
    "write_vectors",
]
