"""Pairs that no inner product of small vectors tells: what the whole of NCF knows that two towers do not.

    python benchmarks/pairs.py              # prints a table; needs deepmatch_ext alone
    python benchmarks/pairs.py --dim 32     # vectors that are large enough

Generated pairs (`synthetic_pairs`), 8:1:1 for training, validation and test. Every model reads the ids and the
features of both sides, has embeddings and vectors of the same size, learns from the labels, and is trained for the same
processor time. The figure is the AUC: of a pair that was taken and one that was not, how often the former scores
higher. The probabilities themselves have 0.9. The learning rate is the one of `RATES` that is best on validation with
the first seed; the epoch is chosen there, too. The test is scored once by each run.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import pandas as pd
import tensorflow as tf
from deepctr.feature_column import SparseFeat
from interests import runs_of_best, watch_of

from deepmatch_ext import data, models
from deepmatch_ext.optimizers import LazyAdam

BATCH = 256
RATES = [{"learning_rate": rate} for rate in (1e-2, 3e-3, 1e-3)]
USER, ITEM, LABEL = ["user_id", "segment"], ["item_id", "category"], "taken"


def arguments_of(name, dim):
    if name == "NCF":
        return {"user_mlp_embedding_dim": dim, "item_mlp_embedding_dim": dim}
    towers = {"user_dnn_hidden_units": (64, dim), "item_dnn_hidden_units": (64, dim)}
    return {"loss_type": "logistic", **(towers if name == "DSSM" else {})}


def built(name, pairs, dim, learning_rate, seed):
    user, item = ([SparseFeat(each, int(pairs[each].max()) + 1, dim) for each in side] for side in (USER, ITEM))
    model = getattr(models, name)(user, item, seed=seed, **arguments_of(name, dim))
    model.compile(LazyAdam(learning_rate))
    return model


def inputs(pairs):
    return {name: pairs[name].to_numpy() for name in [*USER, *ITEM]}


def auc(scores, pairs):
    ranks, taken = pd.Series(scores).rank().to_numpy(), pairs[LABEL].to_numpy() > 0
    above = ranks[taken].sum() - taken.sum() * (taken.sum() + 1) / 2
    return above / (taken.sum() * (~taken).sum())


def judged(model, pairs):
    return auc(model.predict(inputs(pairs), batch_size=4096, verbose=0)[:, 0], pairs)


def of_vectors(model, pairs):
    """The AUC of the inner products of the model's vectors."""
    items = tf.keras.Model(model.item_input, model.item_emb)
    items = items.predict({name: pairs[name].to_numpy() for name in ITEM}, batch_size=4096, verbose=0)
    return auc((model.user_vectors(inputs(pairs)) * items).sum(axis=1), pairs)


def run(name, parts, settings, seed, dim, seconds):
    train, validation, test = parts
    model = built(name, pd.concat(parts), dim, **settings, seed=seed)
    watch = watch_of(lambda model: judged(model, validation), seconds, patience=10**6)
    y = train[LABEL].to_numpy()
    model.fit(inputs(train), y, batch_size=BATCH, epochs=10**6, verbose=0, callbacks=[watch])
    model.set_weights(watch.weights)
    figures = {"AUC": judged(model, test), "of the vectors": of_vectors(model, test)}
    return {"validation": watch.best, **figures, "epoch": watch.best_epoch, "epochs": watch.curve[-1][0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3", help="of the models; the first one also chooses")
    parser.add_argument("--data-seed", type=int, default=2)
    parser.add_argument("--dim", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15, help="of processor time, for each model")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    pairs = data.synthetic_pairs(seed=args.data_seed)
    parts = np.split(np.arange(len(pairs)), [len(pairs) * 8 // 10, len(pairs) * 9 // 10])
    parts = [pairs.iloc[rows] for rows in parts]
    table = {}
    for name in ("NCF", "DSSM", "FM"):

        def trained(settings, seed, name=name):
            result = run(name, parts, settings, seed, args.dim, args.seconds)
            print(name, settings, f"seed {seed}", {key: round(float(v), 4) for key, v in result.items()}, flush=True)
            return result

        chosen, runs = runs_of_best(RATES, seeds, trained)
        table[name] = {**chosen, **runs.mean(), "spread": runs["AUC"].std(ddof=0)}
    print(pd.DataFrame(table).T.round(4).to_string())


if __name__ == "__main__":
    main()
