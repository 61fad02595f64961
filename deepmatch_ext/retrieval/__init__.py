"""Retrieval: from user and item vectors to each user's best items, and vectors to where people keep them."""

from deepmatch_ext._arrays import Seen
from deepmatch_ext.retrieval.exact_index import ExactIndex
from deepmatch_ext.retrieval.faiss_index import FaissIndex
from deepmatch_ext.retrieval.index import VectorIndex, recall
from deepmatch_ext.retrieval.pgvector import search_pgvector, write_pgvector
from deepmatch_ext.retrieval.top_n import best_rows, top_n
from deepmatch_ext.retrieval.vector_files import Vectors, read_vectors, write_vectors

__all__ = [
    "ExactIndex",
    "FaissIndex",
    "Seen",
    "VectorIndex",
    "Vectors",
    "best_rows",
    "read_vectors",
    "recall",
    "search_pgvector",
    "top_n",
    "write_pgvector",
    "write_vectors",
]
