"""The next item on a public set: every model with its defaults, in the same time, under the protocol of quality.py.

    python benchmarks/models.py FOLDER/ml-100k --seconds 40
    python benchmarks/models.py FOLDER/ml-100k --only YoutubeDNN --epochs 12 --replicas 2

Leave-last-out; all items are ranked but those that the user had; the epoch is chosen on validation, and test is ranked
once. Each model gets the history of item ids (T = 50, D = 64, `recency+last` where a model pools it) and nothing else;
DSSM has towers of one layer, SDM's short history is the last five items, K is 4. NCF reads the user's id in place of
the history, and pairs with labels, four random items for each event; its half that retrieves is ranked. Batches of
1024, `LazyAdam(1e-3)`. Prints a line for each run, and a table of means. With ``--replicas`` a `MirroredStrategy`
divides each batch; give a number of epochs then, since it makes them slower.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import pandas as pd
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from quality import Progress, figures
from quality_ours import HeldOut, Watch

from deepmatch_ext import data, models
from deepmatch_ext.optimizers import LazyAdam

DIM, MAX_LEN, BATCH, NEGATIVES = 64, 50, 1024, 4
ROWS = {  # row -> builder, arguments
    "YoutubeDNN": ("YoutubeDNN", {}),
    "DSSM": ("DSSM", {"user_dnn_hidden_units": (DIM,), "item_dnn_hidden_units": (DIM,)}),
    "FM": ("FM", {}),
    "ComiRec-SA": ("ComiRec", {"k_max": 4}),
    "ComiRec-DR": ("ComiRec", {"k_max": 4, "interest_extractor": "dr"}),
    "MIND": ("MIND", {"k_max": 4}),
    "SDM": ("SDM", {"short_history": 5}),
    "SRGNN": ("SRGNN", {}),
    "NCF": ("NCF", {}),
}


def strategy_of(replicas):
    if replicas == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    return tf.distribute.MirroredStrategy([f"CPU:{place}" for place in range(replicas)])


def built(row, events, seed, further):
    name, arguments = ROWS[row]
    size = events.item_vocabulary_size
    item = SparseFeat("item_id", size, DIM)
    user = SparseFeat("hist_item_id", size, DIM, embedding_name="item_id")
    user = VarLenSparseFeat(user, MAX_LEN, "recency+last", "hist_len")
    if name == "NCF":
        user = SparseFeat("user_id", events.user_vocabulary_size, DIM)
    model = getattr(models, name)([user], [item], seed=seed, **arguments, **further)
    model.compile(LazyAdam(1e-3))
    return model


def with_labels(train, vocabulary_size, seed):
    """The events as pairs of label 1, and as many random ones of label 0 as `NEGATIVES` says for each."""
    rng, number = np.random.default_rng(seed), len(train["item_id"])
    x = {name: np.repeat(train[name], 1 + NEGATIVES, axis=0) for name in ("user_id", "item_id")}
    y = np.arange(len(x["item_id"])) % (1 + NEGATIVES) == 0
    x["item_id"] = np.where(y, x["item_id"], rng.integers(1, vocabulary_size, number * (1 + NEGATIVES)))
    return x, y.astype("float32")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the folder of a data set that `read_dataset` knows")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", default="", help="what the rows' names begin with, such as DSSM,FM")
    parser.add_argument("--seconds", type=float, default=40, help="of processor time for a training")
    parser.add_argument("--epochs", type=int, help="of each training, in place of a time")
    parser.add_argument("--replicas", type=int, default=1, help="that divide each batch")
    parser.add_argument("--arguments", type=json.loads, default={}, help="further ones of the builders, as JSON")
    args = parser.parse_args()
    strategy = strategy_of(args.replicas)
    split = data.leave_last_out(data.read_dataset(args.data, verbose=False).interactions)
    events = split.interactions
    held_out = {name: HeldOut(events, getattr(split, name), MAX_LEN) for name in ("validation", "test")}
    train = data.windows(events, split.train_targets(), MAX_LEN)
    table = {}
    for row in ROWS:
        if not row.startswith(tuple(args.only.split(","))):
            continue
        runs = []
        for seed in map(int, args.seeds.split(",")):
            with strategy.scope():
                model = built(row, events, seed, args.arguments)
            x, y = (train, None) if row != "NCF" else with_labels(train, events.item_vocabulary_size, seed)
            progress = Progress(args.epochs) if args.epochs else Progress(10**4, seconds=args.seconds)
            watch = Watch(progress, held_out["validation"], True, time.process_time)
            model.fit(x, y, batch_size=BATCH, epochs=progress.epochs, callbacks=[watch], verbose=0)
            model.set_weights(watch.best_weights)
            ranks = held_out["test"].ranks(model)
            runs.append(figures(ranks))
            print(row, f"seed {seed}", {key: round(float(value), 4) for key, value in runs[-1].items()}, flush=True)
        table[row] = pd.DataFrame(runs).mean()
    print(pd.DataFrame(table).T.round(4).to_string())


if __name__ == "__main__":
    main()
