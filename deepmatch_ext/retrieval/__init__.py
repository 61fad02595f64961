"""Retrieval: from user and item vectors to each user's best items, and vectors to where people keep them."""

from deepmatch_ext.retrieval.exact import Seen, best_rows, top_n
from deepmatch_ext.retrieval.faiss_index import FaissIndex
from deepmatch_ext.retrieval.files import Vectors, read_vectors, write_vectors
from deepmatch_ext.retrieval.index import ExactIndex, VectorIndex, recall
from deepmatch_ext.retrieval.pgvector import search_pgvector, write_pgvector

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
