"""Trains DeepMatch's YoutubeDNN under quality.py's protocol; prints one JSON line.

Usage: quality_deepmatch.py JOB, as quality.py makes it. Needs NumPy and DeepMatch; the arrays that quality.py cut with
deepmatch_ext are its input, and it hands back the vectors of the best epoch, which quality.py ranks.
"""

import os
from importlib.metadata import version

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from deepmatch.models import YoutubeDNN
from deepmatch.utils import NegativeSampler, sampledsoftmaxloss
from quality import Progress, clock, print_result, ranks, read_arrays, read_job, save


def main():
    job = read_job()
    parts, user_size, item_size = read_arrays(job)
    train, validation = parts["train"], parts["validation"]
    labels = np.ones(len(train["item_id"]))
    tf.compat.v1.disable_eager_execution()  # DeepMatch fails in eager mode
    tf.keras.utils.set_random_seed(job["seed"])
    model = build_model(job["settings"], user_size, item_size, train["item_id"], job["seed"])
    user_encoder = tf.keras.Model(model.user_input, model.user_embedding)
    item_encoder = tf.keras.Model(model.item_input, model.item_embedding)

    def vectors(part=None):
        if part is None:
            return item_encoder.predict({"item_id": np.arange(item_size)}, batch_size=4096)
        return user_encoder.predict(inputs(part, model.user_input), batch_size=4096)

    progress, seconds, best_weights, now = Progress(**job["limits"]), 0.0, None, clock(job)
    while not progress.done:
        start = now()
        model.fit(inputs(train, model.inputs), labels, batch_size=job["settings"]["batch_size"], verbose=0)
        seconds += now() - start
        rank = (lambda: ranks(vectors(validation), vectors(), validation)) if job["rank"] else None
        if progress.add(seconds, rank):
            best_weights = model.get_weights()
    if job["rank"]:
        model.set_weights(best_weights)
        save(job, {"items": vectors(), **{part: vectors(parts[part]) for part in job["rank"]}})
    versions = {name: version(name) for name in ("deepmatch", "deepctr", "tensorflow", "tf-keras")}
    print_result(progress, seconds, versions)


def build_model(settings, user_size, item_size, targets, seed):
    dim, name = settings["dim"], settings["sampler"]
    history = SparseFeat("hist_item_id", item_size, dim, embedding_name="item_id")
    counts = np.bincount(targets, minlength=item_size).tolist() if name == "frequency" else None
    model = YoutubeDNN(
        [
            SparseFeat("user_id", user_size, dim),
            VarLenSparseFeat(history, settings["max_len"], "mean", "hist_len"),
        ],
        [SparseFeat("item_id", item_size, dim)],
        user_dnn_hidden_units=settings["user_dnn_hidden_units"],
        temperature=settings["temperature"],
        sampler_config=NegativeSampler(name, settings["num_sampled"], "item_id", counts),
        seed=seed,
    )
    model.compile("adam", sampledsoftmaxloss)
    return model


def inputs(columns, tensors):
    return {name: columns[name] for name in (tensor.name.partition(":")[0] for tensor in tensors)}


if __name__ == "__main__":
    main()
