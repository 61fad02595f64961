"""The whole workflow in one object: from a table of events to recommendations in your own ids, today and tomorrow."""

from deepmatch_ext.recommender.recommender import Recommender

__all__ = ["Recommender"]
