"""Evaluation: ranks of the targets over the whole catalogue, the metrics that follow, and baselines to compare with."""

from deepmatch_ext.evaluation.baselines import Markov, Popularity
from deepmatch_ext.evaluation.callback import RetrievalMetrics
from deepmatch_ext.evaluation.metrics import (
    Seen,
    evaluate,
    evaluate_vectors,
    format_table,
    ranking_metrics,
    target_ranks,
)

__all__ = [
    "Markov",
    "Popularity",
    "RetrievalMetrics",
    "Seen",
    "evaluate",
    "evaluate_vectors",
    "format_table",
    "ranking_metrics",
    "target_ranks",
]
