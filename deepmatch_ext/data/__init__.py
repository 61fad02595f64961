"""From raw events to a model's input: id maps, interactions, splits and their leaks, windows, generated data."""

from typing import TYPE_CHECKING

from deepmatch_ext._lazy import lazy_names
from deepmatch_ext.data.dataset import Dataset
from deepmatch_ext.data.ids import IdMap
from deepmatch_ext.data.interactions import Interactions
from deepmatch_ext.data.kinds import Kinds
from deepmatch_ext.data.leaks import Leak, LeakReport, find_leaks
from deepmatch_ext.data.neighbours import neighbours
from deepmatch_ext.data.readers import read_dataset
from deepmatch_ext.data.splits import Split, leave_last_out, split_by_time
from deepmatch_ext.data.synthetic import (
    SyntheticData,
    synthetic_intents,
    synthetic_interactions,
    synthetic_pairs,
    synthetic_sessions,
)
from deepmatch_ext.data.windows import seen_before, seen_by_users, user_histories, windows

if TYPE_CHECKING:
    from deepmatch_ext.data.parquet import parquet_dataset
    from deepmatch_ext.data.tfrecords import tfrecord_dataset, write_tfrecords
    from deepmatch_ext.data.window_dataset import window_dataset
else:  # they need TensorFlow
    _LAZY = {
        "parquet_dataset": "parquet",
        "tfrecord_dataset": "tfrecords",
        "window_dataset": "window_dataset",
        "write_tfrecords": "tfrecords",
    }
    __getattr__, __dir__ = lazy_names(__name__, _LAZY)

__all__ = [
    "Dataset",
    "IdMap",
    "Interactions",
    "Kinds",
    "Leak",
    "LeakReport",
    "Split",
    "SyntheticData",
    "find_leaks",
    "leave_last_out",
    "neighbours",
    "parquet_dataset",
    "read_dataset",
    "seen_before",
    "seen_by_users",
    "split_by_time",
    "synthetic_intents",
    "synthetic_interactions",
    "synthetic_pairs",
    "synthetic_sessions",
    "tfrecord_dataset",
    "user_histories",
    "window_dataset",
    "windows",
    "write_tfrecords",
]
