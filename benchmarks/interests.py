"""Several interests a user against one vector: ComiRec, MIND and YoutubeDNN, ours and DeepMatch's, on new users.

    python benchmarks/interests.py FOLDER/ml-1m                        # ours; needs deepmatch_ext alone
    PYTHONPATH=. DM/bin/python benchmarks/interests.py FOLDER/ml-1m --only DeepMatch   # an environment with DeepMatch

The protocol is ComiRec's: users are split 8:1:1. All events of a training user are targets, each with what came before
it. Of a validation or test user the first four fifths of the events are the input, and the others are the targets.
All items are ranked but those of the input; with K interests, N items for each are merged by score, each item once.
Recall@50 and HR@50 are averaged over users. Every candidate in `SETTINGS` is trained with the first seed; that with
the best recall on the validation users is trained with each seed, and the epoch is chosen on them, too. `--seconds` of
processor time are the same for all. The test users are ranked once by each run. Prints a line for each run and a table.
"""

import argparse
import os
import sys
import time
from importlib import import_module

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
os.environ.update({"TF_USE_LEGACY_KERAS": "1"} if "DeepMatch" in " ".join(sys.argv) else {})

import numpy as np
import pandas as pd

from deepmatch_ext import data

N = 50
CLASSES = {  # row -> class, arguments that make it this model
    "YoutubeDNN": ("YoutubeDNN", {}),
    "ComiRec-SA": ("ComiRec", {"interest_extractor": "sa"}),
    "ComiRec-DR": ("ComiRec", {"interest_extractor": "dr"}),
    "MIND": ("MIND", {}),
}
FAST, SLOW = {"learning_rate": 3e-3}, {"learning_rate": 1e-3}


def of_interests(better, other):
    """Both learning rates with K = 4, and smaller K with the better one."""
    return [{"k_max": 4, **better}, {"k_max": 4, **other}, {"k_max": 2, **better}, {"k_max": 1, **better}]


SETTINGS = {  # what is tried on validation; `ours` and `deepmatchs` say what is the same for all
    "YoutubeDNN": [FAST, SLOW, {"combiner": "mean", **FAST}],
    "ComiRec-SA": of_interests(FAST, SLOW),
    "ComiRec-DR": of_interests(SLOW, FAST),
    "MIND": of_interests(SLOW, FAST),
    "DeepMatch's ComiRec-SA": of_interests(FAST, SLOW),
    "DeepMatch's ComiRec-DR": of_interests(FAST, SLOW),
    "DeepMatch's MIND": of_interests(FAST, SLOW),
}


class Users:
    """Held-out users: what goes in, and the items that should come out."""

    def __init__(self, events, users, max_len):
        length = np.diff(events.indptr)[users]
        users = users[length >= 2]
        begin, end = events.indptr[users], events.indptr[users + 1]
        first = begin + np.clip((0.8 * (end - begin)).astype(int), 1, end - begin - 1)
        self.input = data.windows(events, first, max_len)
        self.seen = data.seen_before(events, first)
        self.rows = np.concatenate([np.arange(*pair) for pair in zip(first, end, strict=True)])
        self.of = np.repeat(np.arange(len(users)), end - first)
        self.items = events.items[self.rows]

    def figures(self, user_vectors, item_vectors):
        """Recall@50 and HR@50; as arrays of a user each, whether each target is found, too."""
        from deepmatch_ext.retrieval import top_n

        ids, _ = top_n(user_vectors, item_vectors, N, exclude=self.seen)
        found = np.zeros((len(ids), len(item_vectors)), bool)
        np.put_along_axis(found, ids, True, axis=1)
        self.found = found[self.of, self.items]
        hits = np.bincount(self.of, self.found)
        return {"Recall@50": float((hits / np.bincount(self.of)).mean()), "HR@50": float((hits > 0).mean())}


class Split:
    """Users 8:1:1, at random by a seed of their own: training rows, validation and test users."""

    def __init__(self, events, parts=(8, 1, 1), max_len=50):
        self.events, self.max_len = events, max_len
        users = 1 + np.random.default_rng(0).permutation(events.num_users)
        bounds = np.cumsum(parts)[:-1] * len(users) // sum(parts)
        train, validation, test = (np.sort(part) for part in np.split(users, bounds))
        in_train = np.isin(events.users, train)
        self.train = np.flatnonzero(in_train & (events.position > 0))
        self.validation, self.test = (Users(events, part, max_len) for part in (validation, test))


def watch_of(judged, seconds, patience, every=1):
    """A callback that keeps the epoch for which ``judged(model)`` is largest, and stops; it is off its own clock."""
    import tensorflow as tf

    class Watch(tf.keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.best, self.best_epoch, self.weights, self.curve = -1.0, 0, None, []
            self._start, self._paused = time.process_time(), 0.0

        def on_train_batch_end(self, batch, logs=None):
            if time.process_time() - self._start - self._paused > seconds:
                self.model.stop_training = True

        def on_epoch_end(self, epoch, logs=None):
            now = time.process_time()
            self.seconds = now - self._start - self._paused
            if (epoch + 1) % every == 0 or self.seconds > seconds:
                found = judged(self.model)
                self.curve.append((epoch + 1, round(self.seconds, 1), round(found, 4)))
                if found > self.best:
                    self.best, self.best_epoch, self.weights = found, epoch + 1, self.model.get_weights()
            self.model.stop_training = self.seconds > seconds or epoch + 1 - self.best_epoch >= patience
            self._paused += time.process_time() - now

    return Watch()


def vectors_of(model, x):
    if hasattr(model, "user_vectors"):
        return model.user_vectors(x), model.item_vectors()
    return model.encode(x)


def ours(name, split, settings, seed, dim):
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    from deepmatch_ext import models
    from deepmatch_ext.optimizers import LazyAdam

    settings = dict(settings)
    size, combiner = split.events.item_vocabulary_size, settings.pop("combiner", "recency+last")
    rate = settings.pop("learning_rate", 1e-3)
    history = SparseFeat("hist_item_id", size, dim, embedding_name="item_id")
    columns = [VarLenSparseFeat(history, split.max_len, combiner, "hist_len")], [SparseFeat("item_id", size, dim)]
    builder, arguments = CLASSES[name]
    model = getattr(models, builder)(*columns, seed=seed, **arguments, **settings)
    model.compile(LazyAdam(rate))
    return model


def deepmatchs(name, split, settings, seed, dim):
    """DeepMatch's model as its example makes it, with its user id left out, since the users ranked are new.

    Its vectors are not normalised. What must be done for it to run: eager mode off.
    """
    import tensorflow as tf
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat
    from deepmatch.utils import NegativeSampler, sampledsoftmaxloss

    tf.keras.backend.clear_session()  # a second model in one graph has other names
    tf.keras.utils.set_random_seed(seed)
    settings = dict(settings)
    size, rate = split.events.item_vocabulary_size, settings.pop("learning_rate", 1e-3)
    counts = split.events.item_counts(split.train).tolist()
    history = SparseFeat("hist_item_id", size, dim, embedding_name="item_id")
    columns = [VarLenSparseFeat(history, split.max_len, "mean", "hist_len")], [SparseFeat("item_id", size, dim)]
    builder, arguments = CLASSES[name.removeprefix("DeepMatch's ")]
    sampler = NegativeSampler("frequency", 512, "item_id", counts)
    units = {"user_dnn_hidden_units": (dim,)}
    model = getattr(import_module("deepmatch.models"), builder)(
        *columns, sampler_config=sampler, seed=seed, **units, **arguments, **settings
    )
    model.compile(tf.keras.optimizers.legacy.Adam(rate), sampledsoftmaxloss)
    users, items = (tf.keras.Model(model.user_input, model.user_embedding), None)
    items = tf.keras.Model(model.item_input, model.item_embedding)

    def encode(x):
        x = {tensor.name.partition(":")[0]: x[tensor.name.partition(":")[0]] for tensor in model.user_input}
        ids = {"item_id": np.arange(size)}
        return users.predict(x, batch_size=4096, verbose=0), items.predict(ids, batch_size=4096, verbose=0)

    model.encode = encode
    return model


def run(name, split, settings, seed, *, dim=64, batch=1024, epochs=100, seconds=1e9, patience=10, every=1):
    """Trains one model; its figures on validation and test users, and what it cost."""
    build = deepmatchs if name.startswith("DeepMatch") else ours
    model = build(name, split, settings, seed, dim)
    x = data.windows(split.events, split.train, split.max_len)
    x = {key: x[key] for key in ("hist_item_id", "hist_len", "item_id")}
    y = np.ones(len(split.train)) if build is deepmatchs else None

    def judged(model):
        return split.validation.figures(*vectors_of(model, split.validation.input))["Recall@50"]

    watch = watch_of(judged, seconds, patience, every)
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=[watch])
    model.set_weights(watch.weights)
    users, items = vectors_of(model, split.test.input)
    return {
        "validation": watch.best,
        **split.test.figures(users, items),
        "epoch": watch.best_epoch,
        "CPU s": round(watch.seconds),
        "users": users,
        "items": items,
        "curve": watch.curve,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the folder of a data set that `read_dataset` knows")
    parser.add_argument("--only", default="", help="what the rows' names begin with, such as MIND,ComiRec")
    parser.add_argument("--seeds", default="1,2,3", help="the first one also chooses (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=30, help="at most (default: %(default)s)")
    parser.add_argument("--patience", type=int, default=2, help="epochs without a better recall (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1e9, help="of processor time for a run, at most")
    parser.add_argument("--candidates", type=int, help="of each row, the first so many (default: all)")
    parser.add_argument("--dim", type=int, default=64)
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    names = [name for name in SETTINGS if name.startswith(tuple(args.only.split(",")))]
    if "TF_USE_LEGACY_KERAS" in os.environ:
        import tensorflow as tf

        tf.compat.v1.disable_eager_execution()
    else:
        names = [name for name in names if not name.startswith("DeepMatch")]
    split = Split(data.read_dataset(args.data, verbose=False).interactions)
    limits = {"epochs": args.epochs, "patience": args.patience, "dim": args.dim, "seconds": args.seconds}
    table = {}
    for name in names:

        def trained(settings, seed, name=name):
            result = run(name, split, settings, seed, **limits)
            told(name, settings, seed, result)
            return result

        settings, runs = runs_of_best(SETTINGS[name][: args.candidates], seeds, trained)
        figures = runs[["Recall@50", "HR@50", "epoch", "CPU s"]]
        table[name] = {
            "settings": settings,
            **{key: f"{figures[key].mean():.4f} ± {figures[key].std(ddof=0):.4f}" for key in ("Recall@50", "HR@50")},
            "epoch": figures["epoch"].tolist(),
            "CPU s": round(figures["CPU s"].mean()),
        }
    print(pd.DataFrame(table).T.to_string())


def runs_of_best(candidates, seeds, trained):
    """The settings that are best on validation with the first seed, and the figures with each seed, a row each."""
    tried = [trained(settings, seeds[0]) for settings in candidates]
    best = max(range(len(tried)), key=lambda place: tried[place]["validation"])
    return candidates[best], pd.DataFrame([tried[best], *(trained(candidates[best], seed) for seed in seeds[1:])])


def told(name, settings, seed, result):
    shown = {key: value for key, value in result.items() if key not in ("users", "items")}
    print(name, settings, f"seed {seed}", shown, flush=True)


if __name__ == "__main__":
    main()
