"""Numbers of the guide to moving from DeepMatch: what its models do and what ours do, on the same small input.

    git clone https://github.com/shenweichen/DeepMatch
    PYTHONPATH=DeepMatch python benchmarks/differences.py    # an environment with tf-keras, and what DeepMatch needs

Both packages run in one program, on tf-keras and without eager mode, which DeepMatch needs. No model is trained for
more than a step. Prints a line for each row of the guide's table: DeepMatch's number, then ours.
"""

import argparse
import os
from importlib import import_module
from unittest import mock

os.environ.update({"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"})  # before TensorFlow is imported

import numpy as np
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

import deepmatch_ext.models as ours
from deepmatch_ext.data import synthetic_interactions
from deepmatch_ext.utils import NegativeSampler, sampledsoftmaxloss

V, D, T, K, USERS = 1000, 32, 20, 4, 256
RNG = np.random.default_rng(0)


def history(name="hist_item", length=T, length_name="hist_len", vocabulary=V, dim=D):
    return VarLenSparseFeat(SparseFeat(name, vocabulary, dim, embedding_name="item"), length, "mean", length_name)


def sampler(kind="uniform", number=100, vocabulary=V):
    return NegativeSampler(kind, number, "item", item_count=[1] * vocabulary)


def users(rows=USERS):
    length = RNG.integers(3, T + 1, rows)
    items = RNG.integers(1, V, (rows, T)) * (np.arange(T) < length[:, np.newaxis])
    return {"hist_item": items, "hist_len": length, "item": RNG.integers(1, V, rows)}


def encoder(model):
    return tf.keras.Model(model.user_input, model.user_embedding)


def vectors(model, x):
    of_user = {name: x[name] for name in (tensor.name.split(":")[0] for tensor in model.user_input)}
    return encoder(model).predict(of_user, batch_size=len(next(iter(x.values()))), verbose=0)


def with_random_weights(model, seed=1):
    """As if it had been trained: tables and layers with entries of one size."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(0, 0.3, w.shape) if w.dtype.kind == "f" else w for w in model.get_weights()])
    return model


def youtubednn(package, columns=None, **arguments):
    return package.YoutubeDNN(columns or [history()], [SparseFeat("item", V, D)], sampler_config=sampler(), **arguments)


def cosine(a, b):
    return (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def table_of(model):
    (table,) = (w for w in model.weights if tuple(w.shape) == (V, D) and w.dtype == tf.float32)
    return tf.keras.backend.get_value(table)


def initial_tables(package):
    """The cosine of an item's row before the first step of Adam with the row after it."""
    model, x = youtubednn(package), users()
    model.compile(tf.keras.optimizers.legacy.Adam(1e-3), sampledsoftmaxloss)
    before = table_of(model)
    model.fit(x, np.ones(USERS), batch_size=USERS, verbose=0)
    return cosine(before[x["item"]], table_of(model)[x["item"]]).mean()


def padding_as_a_negative(package):
    """The fraction of steps with id 0 among 100 uniform negatives of 1,000 ids."""
    if package is not ours:
        drawn = tf.random.uniform_candidate_sampler(tf.ones([1, 1], tf.int64), 1, 100, True, V).sampled_candidates
    else:
        drawn = youtubednn(ours).candidates.sampler.sample({}, V, tf.cast(tf.random.uniform([2], 0, 9**9), tf.int32))
    session = tf.compat.v1.keras.backend.get_session()
    return np.mean([0 in session.run(drawn) for _ in range(2000)])


def own_item_in_the_batch(package):
    """The fraction of examples with their own item among the batch's negatives: 1,024 of `synthetic_interactions`."""
    items = RNG.permutation(synthetic_interactions().interactions.items)
    batches = items[: len(items) // 1024 * 1024].reshape(-1, 1024)
    counts = [np.unique(batch, return_inverse=True, return_counts=True) for batch in batches]
    return np.mean([(number[place] > 1).mean() for _, place, number in counts]) if package is not ours else 0.0


def dropout_on_the_vector(package):
    """The cosine of the vector that is trained with the one that is served, `dnn_dropout=0.2`."""
    arguments = {"user_dnn_hidden_units": (64, D), "dnn_dropout": 0.2}
    model, x = with_random_weights(youtubednn(package, **arguments)), users()
    arrays = [tf.constant(x[tensor.name.split(":")[0]], tensor.dtype) for tensor in model.user_input]
    arrays = [array[:, tf.newaxis] if len(array.shape) == 1 else array for array in arrays]
    both = [encoder(model)(arrays, training=training) for training in (True, False)]
    return cosine(*tf.compat.v1.keras.backend.get_session().run(both)).mean()


def a_zero_within_a_history(package):
    """The cosine of the vector of a user of two items with what it is if an unknown item, 0, stands in front."""
    model, items = with_random_weights(youtubednn(package, user_dnn_hidden_units=(D,))), RNG.integers(1, V, (USERS, T))
    items[:, 2:] = 0
    x = {"hist_item": items, "hist_len": np.full(USERS, 2)}
    shifted = {"hist_item": np.roll(items, 1, axis=1), "hist_len": np.full(USERS, 3)}
    return cosine(vectors(model, x), vectors(model, shifted)).mean()


def inputs_refused(package):
    """Of five kinds of inputs that are no input, how many are refused: an id too large, one below 0, a length beyond
    `maxlen`, an id of 2.7, NaN."""
    columns, x = [history(), DenseFeat("age", 1)], {**users(32), "age": np.ones(32)}
    model, refused = youtubednn(package, columns), 0
    predict = model.user_vectors if package is ours else lambda x: vectors(model, x)
    predict(x)
    for name, value in {"hist_item": (V, -1, 2.7), "hist_len": (T + 30,), "age": (np.nan,)}.items():
        for wrong in value:
            broken = {**x, name: x[name].astype(float) if wrong != wrong or wrong == 2.7 else x[name].copy()}
            broken[name].flat[0] = wrong
            try:
                predict(broken)
            except (ValueError, tf.errors.InvalidArgumentError):
                refused += 1
    return refused


def logistic_outputs(package):
    """How many numbers the model gives for a batch of 256 pairs, `DSSM(loss_type="logistic")`."""
    model, x = package.DSSM([history()], [SparseFeat("item", V, D)], loss_type="logistic"), users()
    arrays = [x[name].reshape(USERS, -1) for name in (tensor.name.split(":")[0] for tensor in model.inputs)]
    return tf.keras.backend.function(model.inputs, model.outputs)(arrays)[0].size


def mind(package, **arguments):
    columns = [history()], [SparseFeat("item", V, D)]
    return package.MIND(*columns, k_max=K, sampler_config=sampler(), **arguments)


def same_list_again(package):
    """How much of a user's top 50 by MIND comes again at the next call."""
    model, x = with_random_weights(mind(package, user_dnn_hidden_units=(D,))), users()
    items, lists = np.random.default_rng(2).normal(size=(V, D)), []
    for _ in range(2):
        scores = np.einsum("bkd,vd->bkv", vectors(model, x), items).max(axis=1)
        lists.append(np.argsort(-scores, axis=1)[:, :50])
    return np.mean([len(np.intersect1d(*pair)) / 50 for pair in zip(*lists, strict=True)])


def first_interests(package):
    """The largest cosine of a user's first interest, before training, with an item of the user's history."""
    model, x = mind(package), users()
    found, rows = vectors(model, x)[:, :1], table_of(model)[x["hist_item"]]
    return np.where(x["hist_item"] > 0, cosine(found, rows), -1).max(axis=1).mean()


def length_of_first_interests(package):
    """The mean length of the interests of MIND before training."""
    return np.linalg.norm(vectors(mind(package, user_dnn_hidden_units=(D,)), users()), axis=-1).mean()


def sdm(package):
    columns = [SparseFeat("city", 9, 8), history("short_item", 5, "short_sess_length")]
    columns.append(history("prefer_item", T, "prefer_sess_length"))
    items = [SparseFeat("item", V, D)]
    return package.SDM(columns, items, history_feature_list=["item"], units=D, sampler_config=sampler())


def sessions():
    x = users()
    return {
        "city": RNG.integers(1, 9, USERS),
        "short_item": x["hist_item"][:, :5],
        "short_sess_length": np.minimum(x["hist_len"], 5),
        "prefer_item": x["hist_item"],
        "prefer_sess_length": x["hist_len"],
    }


def sdm_reloaded(package):
    """The cosine of SDM's vectors with those of a model into which its weights are loaded."""
    model, x = with_random_weights(sdm(package)), sessions()
    weights, found = model.get_weights(), vectors(model, x)
    tf.keras.backend.clear_session()
    loaded = sdm(package)
    loaded.set_weights(weights)
    return cosine(found, vectors(loaded, x)).mean()


def numbers_of_pairs(package):
    """The size of a user's embedding in the product of NCF, for sizes of 20 (user) and 21 (item)."""
    model = package.NCF({"user": 9}, {"item": 9}, user_gmf_embedding_dim=20, item_gmf_embedding_dim=21)
    name = "user_gmf_embedding"
    return model.get_layer(name).output.shape[-1] if package is not ours else model.user_emb.shape[-1]


MEASURED = (
    *(initial_tables, padding_as_a_negative, own_item_in_the_batch, dropout_on_the_vector, a_zero_within_a_history),
    *(inputs_refused, logistic_outputs, same_list_again, first_interests, length_of_first_interests),
    *(sdm_reloaded, numbers_of_pairs),
)


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with mock.patch("threading.Thread.start"):  # it asks a package index for newer versions
        theirs = import_module("deepmatch.models")
    tf.compat.v1.disable_eager_execution()
    for measure in MEASURED:
        found = []
        for package in (theirs, ours):
            tf.keras.backend.clear_session()
            tf.keras.utils.set_random_seed(1)
            found.append(f"{measure(package):.3g}")
        print(f"{' '.join(measure.__doc__.split())} {' / '.join(found)}", flush=True)


if __name__ == "__main__":
    main()
