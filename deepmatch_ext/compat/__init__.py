"""Compatibility with other packages: DeepCTR's own models on Keras 3."""

from __future__ import annotations

import importlib

from deepmatch_ext._checks import problem
from deepmatch_ext._keras import KERAS_3

__all__ = ["TESTED_DEEPCTR", "enable_deepctr_on_keras3"]

TESTED_DEEPCTR = ("0.9.4",)
"""The versions of deepctr that `enable_deepctr_on_keras3` knows."""


def enable_deepctr_on_keras3() -> bool:
    """Lets DeepCTR's own models and layers build, train, predict, save and reload on Keras 3.

    DeepCTR is written for Keras 2; most of its models can't be built on Keras 3. This call patches the imported
    ``deepctr`` in place, for this process: no file is changed. Call it once in every program that builds or loads such
    models, before it does so. The call may come before or after ``from deepctr.models import ...``, and calling it
    again does nothing. Under Keras 2 and tf-keras, where DeepCTR works by itself, it changes nothing.

    After the call, models that were saved whole as ``.keras`` load without ``custom_objects``;
    docs/deepctr-on-keras-3.md lists the exceptions and their workarounds.

    The call imports deepctr, which asks a package index for its newest version, in a thread of its own.

    Returns:
        Whether DeepCTR is patched: True on Keras 3, False on Keras 2 and tf-keras, where nothing was done.

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
