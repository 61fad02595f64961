"""Watches the training: it looks at the vectors after every epoch, and warns in words if something collapses.

``look`` makes the figures, ``findings`` judges them, and ``callback`` is the Keras callback that does both.
"""

from deepmatch_ext.evaluation.watch.callback import CollapseWarning, TrainingWatch

__all__ = ["CollapseWarning", "TrainingWatch"]
