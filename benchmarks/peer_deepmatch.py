"""Step time of a model of DeepMatch's, in a whole ``fit`` from NumPy arrays; prints one JSON line.

Usage: peer_deepmatch.py VOCABULARY BATCH DIM STEPS [--model 'ComiRec {"interest_extractor": "dr"}']
"""

import inspect
import json
import os
import sys
import time
from importlib.metadata import version

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from deepmatch import models
from deepmatch.utils import NegativeSampler, sampledsoftmaxloss
from speed import HIDDEN, MAX_LEN, NUM_SAMPLED, USER_DIM, USERS, arguments, print_result, synthetic_input

tf.compat.v1.disable_eager_execution()  # DeepMatch fails in eager mode
args = arguments(sys.argv[1:5])
chosen = sys.argv[6] if len(sys.argv) > 5 else "YoutubeDNN"
name, _, further = chosen.partition(" ")
x = synthetic_input(args.vocabulary, args.batch, args.steps)
read, y = dict(x), np.ones(len(x["item"]))


def history(column, length, length_name):
    column = SparseFeat(column, args.vocabulary, args.dim, embedding_name="item")
    return VarLenSparseFeat(column, length, "mean", length_name)


user = [SparseFeat("user_id", USERS, args.dim if name == "FM" else USER_DIM)]
items, loss = [SparseFeat("item", args.vocabulary, args.dim)], sampledsoftmaxloss
if name == "SDM":
    # As ours by default: five items are the short history.
    user += [history("short_item", 5, "short_sess_length"), history("prefer_item", MAX_LEN - 5, "prefer_sess_length")]
    read |= {"short_item": x["hist_item"][:, :5], "prefer_item": x["hist_item"][:, 5:]}
    lengths = x["hist_len"]
    read |= {"short_sess_length": np.minimum(lengths, 5), "prefer_sess_length": np.maximum(lengths - 5, 1)}
elif name == "NCF":
    user, items, loss = {"user_id": USERS}, {"item": args.vocabulary}, "binary_crossentropy"
    y = np.arange(len(y)) % 2
else:
    user += [history("hist_item", MAX_LEN, "hist_len")]
# FM and DSSM take negatives from the batch alone.
in_batch = name in ("FM", "DSSM")
sampler = NegativeSampler("inbatch" if in_batch else "uniform", NUM_SAMPLED, "item", np.ones(args.vocabulary))
given = {
    "user_dnn_hidden_units": (HIDDEN, args.dim),
    "item_dnn_hidden_units": (HIDDEN, args.dim),
    "history_feature_list": ["item"],
    "units": args.dim,
    "sampler_config": sampler,
    **(json.loads(further) if further else {}),
}
builder = getattr(models, name)
takes = inspect.signature(builder).parameters
model = builder(user, items, **{key: value for key, value in given.items() if key in takes})
model.compile("adam", loss)


def fit(steps):
    few = {key: values[: args.batch * steps] for key, values in read.items()}
    start = time.perf_counter()
    model.fit(few, y[: args.batch * steps], batch_size=args.batch, shuffle=False, verbose=0)
    return time.perf_counter() - start


fit(3)
versions = {each: version(each) for each in ("deepmatch", "deepctr", "tensorflow", "tf-keras")}
print_result("deepmatch", args, x, fit(args.steps), versions, model=chosen)
