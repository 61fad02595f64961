"""Trains a model of ours under quality.py's protocol; prints one JSON line.

Usage: quality_ours.py JOB, as quality.py makes it; needs deepmatch_ext.
"""

import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from quality import Progress, clock, print_result, read_job, save
from quality_data import held_out_set

import deepmatch_ext
from deepmatch_ext import __version__, data, evaluation, optimizers
from deepmatch_ext.samplers import make_sampler
from deepmatch_ext.utils import sampledsoftmaxloss


def main():
    job = read_job()
    settings, max_len = job["settings"], job["settings"]["columns"]["max_len"]
    split, parts = held_out_set(Path(job["data"]))
    held_out = {part: HeldOut(events, rows, max_len) for part, (events, rows) in parts.items()}
    rows = split.sequence_targets(max_len) if settings["rows"] == "sequences" else split.train_targets()
    train = data.windows(split.interactions, rows, max_len)
    tf.keras.utils.set_random_seed(job["seed"])
    model = build_model(split, settings, job["seed"])
    falls_from = settings["optimizer"]["learning_rate"] if settings["falls"] else None
    watch = Watch(Progress(**job["limits"]), held_out["validation"], job["rank"], clock(job), falls_from)
    model.fit(train, batch_size=settings["batch_size"], epochs=watch.progress.epochs, callbacks=[watch], verbose=0)
    seconds = watch.fit_seconds()
    if job["rank"]:
        model.set_weights(watch.best_weights)
        save(job, {part: held_out[part].ranks(model) for part in job["rank"]})
    keras = "keras" if hasattr(tf.keras, "Operation") else "tf-keras"
    versions = {"deepmatch_ext": __version__} | {name: version(name) for name in ("deepctr", "tensorflow", keras)}
    print_result(watch.progress, seconds, versions)


class HeldOut:
    """An item of each row, which a model has to rank high among those that the user has not had."""

    def __init__(self, events, rows, max_len, times=False):
        self.columns, self.seen = data.windows(events, rows, max_len, times=times), data.seen_before(events, rows)

    def ranks(self, model):
        return self.ranks_by(model.user_vectors(self.columns), model.item_vectors())

    def ranks_by(self, user_vectors, item_vectors):
        score = evaluation.inner_products(user_vectors, item_vectors)
        return evaluation.target_ranks(score, self.columns["item_id"], seen=self.seen)


class Watch(tf.keras.callbacks.Callback):
    """Ranks the validation items after epochs, off the clock; keeps the best epoch's weights; stops.

    Where ``falls_from`` is a learning rate, it falls from there by half a cosine over the seconds that there are.
    """

    def __init__(self, progress, validation, rank, now, falls_from=None):
        super().__init__()
        self.progress, self.validation, self.rank, self._now = progress, validation, rank, now
        self.best_weights, self._falls_from = None, falls_from
        self._start, self._paused = now(), 0.0

    def fit_seconds(self):
        return self._now() - self._start - self._paused

    def on_train_batch_begin(self, batch, logs=None):
        if self._falls_from and batch % 8 == 0:
            done = min(1.0, self.fit_seconds() / self.progress.limit)
            self.model.optimizer.learning_rate.assign(self._falls_from * max(0.02, 0.5 * (1 + np.cos(np.pi * done))))

    def on_epoch_end(self, epoch, logs=None):
        seconds, paused_at = self.fit_seconds(), self._now()
        if self.progress.add(seconds, (lambda: self.validation.ranks(self.model)) if self.rank else None):
            self.best_weights = self.model.get_weights()
        self.model.stop_training = self.progress.done
        self._paused += self._now() - paused_at


def build_model(split, settings, seed):
    events, columns = split.interactions, settings["columns"]
    size, dim = events.item_vocabulary_size, columns["dim"]
    history = SparseFeat("hist_item_id", size, dim, embedding_name="item_id")
    user_columns = [VarLenSparseFeat(history, columns["max_len"], columns["combiner"], "hist_len")]
    if columns["user_id"]:
        user_columns.insert(0, SparseFeat("user_id", events.user_vocabulary_size, dim))
    arguments = dict(settings["model"])
    if settings["sampler"] is not None:
        counts = events.item_counts(split.train_targets())
        arguments["sampler_config"] = make_sampler(with_counts(settings["sampler"], counts))
    builder = getattr(deepmatch_ext, settings["builder"])
    model = builder(user_columns, [SparseFeat("item_id", size, dim)], seed=seed, **arguments)
    name = settings["optimizer"]["name"]
    optimizer = getattr(optimizers if hasattr(optimizers, name) else tf.keras.optimizers, name)
    model.compile(optimizer(settings["optimizer"]["learning_rate"]), sampledsoftmaxloss)
    return model


def with_counts(spec, counts):
    """A sampler's settings with the counts where it says ``"item_count": "train"``, at any depth."""
    if isinstance(spec, dict):
        return {k: counts if (k, v) == ("item_count", "train") else with_counts(v, counts) for k, v in spec.items()}
    return [with_counts(each, counts) for each in spec] if isinstance(spec, list) else spec


if __name__ == "__main__":
    main()
