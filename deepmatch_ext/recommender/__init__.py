"""The whole job as one object: from a table of events to recommendations in one's own ids, today and tomorrow."""

from deepmatch_ext.recommender.recommender import Recommender

__all__ = ["Recommender"]
