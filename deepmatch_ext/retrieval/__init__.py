"""Retrieval: from user and item vectors to each user's best items."""

from deepmatch_ext.retrieval.exact import Seen, top_n

__all__ = ["Seen", "top_n"]
