"""What a fresh process of `tests.fresh` has imported."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import warnings
from unittest import mock

from tests.fresh import optimize_graphs

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import tensorflow as tf

tf.keras.layers.Layer  # loads Keras  # noqa: B018

tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not optimize_graphs()})

# DeepCTR asks a package index for its newest version, in a thread, when it is imported.
with mock.patch("threading.Thread.start"):
    import deepctr  # noqa: F401
