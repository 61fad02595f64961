"""Step time of DeepMatch's YoutubeDNN, in a whole ``fit`` from NumPy arrays; prints one JSON line.

Usage: peer_deepmatch.py VOCABULARY BATCH DIM STEPS
"""

import os
import sys
import time
from importlib.metadata import version

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from deepmatch.models import YoutubeDNN
from deepmatch.utils import NegativeSampler, sampledsoftmaxloss
from speed import HIDDEN, MAX_LEN, NUM_SAMPLED, USER_DIM, USERS, arguments, print_result, synthetic_input

tf.compat.v1.disable_eager_execution()  # DeepMatch fails in eager mode
args = arguments(sys.argv[1:])
x = synthetic_input(args.vocabulary, args.batch, args.steps)
y = np.ones(len(x["item"]))
history = SparseFeat("hist_item", args.vocabulary, args.dim, embedding_name="item")
model = YoutubeDNN(
    [SparseFeat("user_id", USERS, USER_DIM), VarLenSparseFeat(history, MAX_LEN, "mean", "hist_len")],
    [SparseFeat("item", args.vocabulary, args.dim)],
    user_dnn_hidden_units=(HIDDEN, args.dim),
    sampler_config=NegativeSampler("uniform", NUM_SAMPLED, "item"),
)
model.compile("adam", sampledsoftmaxloss)


def fit(steps):
    few = {name: values[: args.batch * steps] for name, values in x.items()}
    start = time.perf_counter()
    model.fit(few, y[: args.batch * steps], batch_size=args.batch, shuffle=False, verbose=0)
    return time.perf_counter() - start


fit(3)
versions = {name: version(name) for name in ("deepmatch", "deepctr", "tensorflow", "tf-keras")}
print_result("deepmatch", args, x, fit(args.steps), versions)
