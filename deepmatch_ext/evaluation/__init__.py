"""Evaluation: ranks of the targets over the whole catalogue, the metrics that follow, baselines to compare with,
a watch on the training, and a report in pictures."""

from typing import TYPE_CHECKING

from deepmatch_ext._arrays import Seen
from deepmatch_ext._lazy import lazy_names
from deepmatch_ext.evaluation.baselines import ALS, ItemKNN, Markov, Popularity
from deepmatch_ext.evaluation.beyond_accuracy import beyond_accuracy
from deepmatch_ext.evaluation.collapse import likeness, popular_share
from deepmatch_ext.evaluation.metrics import evaluate, evaluate_vectors, format_table, ranking_metrics
from deepmatch_ext.evaluation.projector import write_projector
from deepmatch_ext.evaluation.ranks import MISSED, SeenTargetsWarning, inner_products, target_ranks
from deepmatch_ext.evaluation.report import write_report

if TYPE_CHECKING:
    from deepmatch_ext.evaluation.callback import RetrievalMetrics
    from deepmatch_ext.evaluation.watch import CollapseWarning, TrainingWatch
else:  # they need Keras
    _LAZY = {"RetrievalMetrics": "callback", "CollapseWarning": "watch", "TrainingWatch": "watch"}
    __getattr__, __dir__ = lazy_names(__name__, _LAZY)

__all__ = [
    "ALS",
    "MISSED",
    "CollapseWarning",
    "ItemKNN",
    "Markov",
    "Popularity",
    "RetrievalMetrics",
    "Seen",
    "SeenTargetsWarning",
    "TrainingWatch",
    "beyond_accuracy",
    "evaluate",
    "evaluate_vectors",
    "format_table",
    "inner_products",
    "likeness",
    "popular_share",
    "ranking_metrics",
    "target_ranks",
    "write_projector",
    "write_report",
]
