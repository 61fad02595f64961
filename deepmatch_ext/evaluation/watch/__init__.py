"""Watching the training: a look at the vectors after every epoch, and a warning in words when something collapses.

``look`` makes the figures, ``findings`` judges them, and ``callback`` is the Keras callback that does both.
"""

from deepmatch_ext.evaluation.watch.callback import CollapseWarning, TrainingWatch

__all__ = ["CollapseWarning", "TrainingWatch"]
