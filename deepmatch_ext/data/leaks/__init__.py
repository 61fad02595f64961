"""Leaks of a split: what training, or a model's input, knows about the events that the model is evaluated on."""

from deepmatch_ext.data.leaks.find import find_leaks
from deepmatch_ext.data.leaks.report import Leak, LeakReport

__all__ = ["Leak", "LeakReport", "find_leaks"]
