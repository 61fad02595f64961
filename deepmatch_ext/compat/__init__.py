"""Other packages beside this one: DeepCTR's own models on Keras 3."""

from __future__ import annotations

import importlib

from deepmatch_ext._checks import problem
from deepmatch_ext._keras import KERAS_3

__all__ = ["TESTED_DEEPCTR", "enable_deepctr_on_keras3"]

TESTED_DEEPCTR = ("0.9.4",)
"""The versions of deepctr that `enable_deepctr_on_keras3` knows."""


def enable_deepctr_on_keras3() -> bool:
    """Lets DeepCTR's own models and layers build, train, predict, save and reload on Keras 3.

    DeepCTR is written for Keras 2; on Keras 3 most of its models fail as they are built. This call mends the imported
    ``deepctr`` in place, for this process: no file is changed. Call it once, before models are built or loaded, in
    every program that does so; before or after ``from deepctr.models import ...`` makes no difference, and calling it
    again does nothing. Under Keras 2 and tf-keras, where DeepCTR works by itself, it touches nothing.

    Models saved whole as ``.keras`` load again after the call without ``custom_objects``; docs/deepctr-on-keras-3.md
    has the exceptions and the way round them.

    Importing deepctr, which this does, asks a package index for its newest version, in a thread of DeepCTR's.

    Returns:
        Whether DeepCTR is mended: True on Keras 3, False on Keras 2 and tf-keras, where nothing was done.

    Raises:
        ValueError: The installed deepctr is not one of `TESTED_DEEPCTR`.

    Example:
        >>> from deepmatch_ext.compat import enable_deepctr_on_keras3
        >>> enable_deepctr_on_keras3() == hasattr(tf.keras, "Operation")  # whether this is Keras 3
        True
    """
    if not KERAS_3:
        return False
    version = importlib.import_module("deepctr").__version__
    if version not in TESTED_DEEPCTR:
        raise problem(
            "The installed deepctr",
            f"be {' or '.join(TESTED_DEEPCTR)}, the versions that were tested on Keras 3",
            version,
            f"Install deepctr=={TESTED_DEEPCTR[-1]}, or use tf-keras: set TF_USE_LEGACY_KERAS=1 before TensorFlow is "
            "imported.",
        )
    importlib.import_module("deepmatch_ext.compat._deepctr").apply()
    return True
