"""A program that trains on several replicas, and compares with one process: ``tests/test_distribute.py`` runs it.

    python replicas.py '{"cases": ["sharded"]}'                                      # two replicas of one process
    python replicas.py '{"cases": ["sharded"], "index": 0, "workers": ["127.0.0.1:4001", "127.0.0.1:4002"]}'

It prints what differed, a line of JSON for each case, and fails where something is not as it should be.
"""

import functools
import inspect
import json
import os
import pathlib
import re
import sys
import time
import warnings

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import DSSM, FM, HSTU, MIND, NCF, SDM, SRGNN, ComiRec, GRU4Rec, SASRec, SequenceDNN, YoutubeDNN
from deepmatch_ext.data import Interactions, window_dataset, windows
from deepmatch_ext.evaluation import RetrievalMetrics, TrainingWatch
from deepmatch_ext.losses import LOSSES
from deepmatch_ext.optimizers import LazyAdam, RowwiseAdagrad, RowwiseAdam
from deepmatch_ext.samplers import (
    AdaptiveSampler,
    FrequencySampler,
    FullSampler,
    InBatchSampler,
    LogUniformSampler,
    MixedSampler,
    QueueSampler,
    UniformSampler,
)

warnings.simplefilter("ignore")
tf.get_logger().setLevel("ERROR")
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

SETTINGS = json.loads(sys.argv[1])
V, D, T, BATCH, ROWS = 53, 4, 6, 64, 640  # no other dimension is V
ALONE = tf.distribute.get_strategy()
CHIEF = SETTINGS.get("index", 0) == 0


@functools.cache
def strategy():
    tf.config.set_visible_devices([], "GPU")
    if "workers" in SETTINGS:
        task = {"cluster": {"worker": SETTINGS["workers"]}, "task": {"type": "worker", "index": SETTINGS["index"]}}
        os.environ["TF_CONFIG"] = json.dumps(task)
        return tf.distribute.MultiWorkerMirroredStrategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def interactions():
    """80 users of 9 events each, in which the next item often follows from the last one."""
    rng = np.random.default_rng(0)
    items = rng.integers(1, V, (80, 9))
    for place in range(1, 9):
        follows = rng.random(80) < 0.8
        items[follows, place] = (items[follows, place - 1] * 7 + 3) % (V - 1) + 1
    return Interactions.from_sequences(np.arange(0, 721, 9), items.ravel())


X = interactions()
TARGETS = np.flatnonzero(np.arange(720) % 9 > 0)  # 640 of them
ARRAYS = {name: values for name, values in windows(X, TARGETS, T).items() if name != "user_id"}
COUNTS = np.bincount(X.items, minlength=V)
GENRES = {"genre": np.arange(V) % 7}


def model(sampler=None, loss="softmax", items=(), builder=YoutubeDNN, combiner="recency+last", **arguments):
    history = SparseFeat("hist_item_id", V, D, embedding_name="item_id")
    if builder is YoutubeDNN:
        arguments = {"dnn_dropout": 0.0, "user_dnn_hidden_units": (D,), "loss": loss, **arguments}
    sampler = AdaptiveSampler(16, memory=200) if sampler is None else sampler
    user = [VarLenSparseFeat(history, T, combiner, "hist_len")]
    return builder(user, [SparseFeat("item_id", V, D), *items], sampler_config=sampler, **arguments)


def with_genres(**arguments):
    return model(items=[SparseFeat("genre", 7, 3)], item_features=GENRES, item_id_dropout=0.0, **arguments)


def batches(rows=ROWS):
    return tf.data.Dataset.from_tensor_slices({name: values[:rows] for name, values in ARRAYS.items()}).batch(BATCH)


def own_loop(made, of, dataset, epochs):
    """Mean losses of the epochs, trained as one does without `fit`."""
    variables = made.trainable_variables

    def step(batch):
        with tf.GradientTape() as tape:
            losses = tf.reshape(made(batch, training=True), [-1])
            loss = tf.nn.compute_average_loss(losses, global_batch_size=BATCH)
        gradients = tape.gradient(loss, variables)
        made.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss, [isinstance(gradient, tf.IndexedSlices) for gradient in gradients].count(True)

    @tf.function
    def train(batch):
        losses, sparse = of.run(step, args=(batch,))
        assert of.experimental_local_results(sparse)[0] > 0
        return of.reduce("SUM", losses, axis=None)

    distributed = of.experimental_distribute_dataset(dataset)
    losses = [[float(train(batch)) for batch in distributed] for _ in range(epochs)]
    return np.mean(losses, axis=1), train, next(iter(distributed))


def compiled(make, optimizer, of):
    with of.scope():
        made = make()
        made.compile(optimizer())
    return made


def trained(make, optimizer, of, x=None, **arguments):
    """A model after two epochs of `fit`, and its history; of one process, by the first worker alone."""
    if of is ALONE and not CHIEF:
        return None, {}
    made = compiled(make, optimizer, of)
    fitted = made.fit(batches() if x is None else x, epochs=2, verbose=0, **arguments)
    return made, fitted.history


def check_copies(made):
    """All replicas hold the same."""
    for weight in [*made.weights, *made.optimizer.variables]:
        variable = weight if isinstance(weight, tf.Variable) else weight.value
        first, *others = [copy.numpy() for copy in getattr(variable, "values", [variable])]
        for copy in others:
            np.testing.assert_array_equal(copy, first, err_msg=weight.name)


def differences(one, history, several, other_history, x=ARRAYS, dataset=None):
    """The largest differences of one process's training and that of several replicas."""
    check_copies(several)
    dataset = batches() if dataset is None else dataset
    evaluated = several.evaluate(dataset, verbose=0)  # all workers together
    if one is None:
        return {}
    found = {
        **{name: np.abs(np.subtract(values, other_history[name])).max() for name, values in history.items()},
        "evaluated": abs(evaluated - one.evaluate(dataset, verbose=0)),
        "items": np.abs(one.item_vectors() - several.item_vectors()).max(),
        "users": np.abs(one.user_vectors(x) - several.user_vectors(x)).max(),
    }
    return {name: float(value) for name, value in found.items()}


def lazy():
    return LazyAdam(0.001)  # ten times that makes 3e-5 of roundings: as other orders of rows do in one process


def clipped():
    return LazyAdam(0.01, global_clipnorm=0.05, weight_decay=0.01)


def rowwise():
    return RowwiseAdagrad(0.005)


def rowwise_adam():
    return RowwiseAdam(0.001)


SAMPLERS = {
    "uniform": lambda: UniformSampler(16),
    "log_uniform": lambda: LogUniformSampler(16),
    "frequency": lambda: FrequencySampler(16, COUNTS, 0.75),
    "adaptive": lambda: AdaptiveSampler(16, memory=200),
    "inbatch": lambda: InBatchSampler(memory=200),
    "inbatch counted": lambda: InBatchSampler(COUNTS),
    "queue": lambda: QueueSampler(80, memory=200),
    "mixed": lambda: MixedSampler([InBatchSampler(memory=200), QueueSampler(16, memory=200)]),
    "full": lambda: FullSampler(),
}
OPTIMIZERS = {"lazy": lazy, "rowwise": rowwise, "rowwise_adam": rowwise_adam}
CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


@case
def own():
    """A loop of one's own, with an item tower, in-batch candidates and clipping; no tensor of a step has V rows."""
    make = functools.partial(with_genres, sampler=SAMPLERS["mixed"]())
    one, history = trained(make, clipped, ALONE)
    several = compiled(make, clipped, strategy())
    losses, train, batch = own_loop(several, strategy(), batches(), 2)
    yield differences(one, history, several, {"loss": losses})
    check_graph(train.get_concrete_function(batch).graph, several)


def check_graph(graph, made):
    """Nothing in a step's graph has a row for each item, and tables are only looked up and scattered by row."""
    tables = set()
    for weight in [*made.weights, *made.optimizer.variables]:
        variable = weight if isinstance(weight, tf.Variable) else weight.value
        if V in variable.shape:
            tables.update(id(copy.handle) for copy in getattr(variable, "values", [variable]))
    inside = {inner.op.name for outer, inner in graph.captures if id(outer) in tables}
    assert inside
    definition = graph.as_graph_def(add_shapes=True)
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    for node in nodes:
        for shape in node.attr["_output_shapes"].list.shape:
            assert V not in [dim.size for dim in shape.dim], (node.op, node.name)
        assert not (node.op == "ReadVariableOp" and inside.intersection(node.input)), node.name


@case
def sharded():
    """Each worker cuts its own windows, in `fit` of a function; callbacks, figures and one whole file."""
    every = {name: values for name, values in windows(X, np.arange(8, 720, 9), T).items() if name != "user_id"}

    def dataset(context):
        part = (context.input_pipeline_id, context.num_input_pipelines)
        size = context.get_per_replica_batch_size(BATCH)
        return window_dataset(X, TARGETS, T, size, seed=3, drop_remainder=True, shard=part).map(without_users)

    def callbacks():
        return [
            RetrievalMetrics(every, every["item_id"]),
            TrainingWatch(every),
            tf.keras.callbacks.EarlyStopping("val_NDCG@10", patience=2),
        ]

    make = functools.partial(model, SAMPLERS["queue"]())
    one, history = trained(make, rowwise, ALONE, dataset, callbacks=callbacks())
    several, other_history = trained(make, rowwise, strategy(), dataset, callbacks=callbacks())
    yield differences(one, history, several, other_history)
    folder = pathlib.Path(SETTINGS["folder"])
    several.save(folder / "model.keras")
    several.save_weights(folder / "model.weights.h5")
    if CHIEF:
        again = tf.keras.models.load_model(folder / "model.keras")
        np.testing.assert_array_equal(again.item_vectors(), several.item_vectors())
        one.load_weights(folder / "model.weights.h5")
        np.testing.assert_array_equal(one.item_vectors(), several.item_vectors())
        assert {path.name for path in folder.iterdir()} - {"done-1"} == {"model.keras", "model.weights.h5"}


def without_users(batch):
    return {name: values for name, values in batch.items() if name != "user_id"}


@case
def arrays():
    """Arrays in `fit`, in an order by chance, with a part held out."""
    settings = {"batch_size": BATCH, "validation_split": 0.2}
    one, history = trained(model, lazy, ALONE, ARRAYS, **settings)
    yield differences(one, history, *trained(model, lazy, strategy(), ARRAYS, **settings))


@case
def refused():
    """What would train wrongly, or not at all, is refused by name before anything runs."""
    made = compiled(model, lazy, strategy())
    some = {name: tf.constant(values[:8].reshape(8, -1)) for name, values in ARRAYS.items()}

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(made(some, training=False))
        variables = made.trainable_variables
        made.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    def compiled_with(**settings):
        with strategy().scope():
            other = model()
            other.compile(lazy(), **settings)
        return other

    def in_float16():
        tf.keras.mixed_precision.set_global_policy("mixed_float16")
        try:
            return compiled_with()
        finally:
            tf.keras.mixed_precision.set_global_policy("float32")

    distributed = strategy().experimental_distribute_dataset(batches())
    unknown = batches().filter(lambda _: True)
    cases = {
        "Training of the layer 'candidates' must run in `strategy.run`": lambda: made(some, training=True),
        "A step of LazyAdam must run in `strategy.run`": step,
        "`steps_per_execution` must be 1 on 2 replicas; got 5": lambda: compiled_with(steps_per_execution=5).fit(
            ARRAYS
        ),
        "The precision policy must not be mixed_float16 on several replicas": lambda: in_float16().fit(ARRAYS),
        "`x` must be a dataset, or a function": lambda: made.fit(distributed),
        "The function `x` must return a tf.data.Dataset; got 3": lambda: made.fit(lambda _: 3),
        "batches of the function `x` must be known": lambda: made.fit(lambda _: unknown),
        "The number of batches of the function `validation_data` must be known": lambda: made.fit(
            ARRAYS, validation_data=lambda _: unknown
        ),
        "`y` and `sample_weight` must come with the batches": lambda: made.fit(lambda _: batches(), np.ones(3)),
    }
    if hasattr(tf.keras, "Operation"):
        cases["`train_on_batch` must be called on one replica"] = lambda: made.train_on_batch(ARRAYS)
        cases["`test_on_batch` must be called on one replica"] = lambda: made.test_on_batch(ARRAYS)
    if "workers" not in SETTINGS:
        cases["must be a multiple of 2, this worker's replicas; got 9"] = lambda: made.fit(lambda _: batches().take(9))
    else:
        one_more = batches().take(3 + CHIEF)
        cases["The number of batches of the function `x` must be the same on all workers; got [4, 3]"] = lambda: (
            made.fit(lambda _: one_more)
        )
    for words, call in cases.items():
        with pytest.raises(ValueError, match=re.escape(words)):
            call()
    return ()


@case
def fitted():
    """Weight decay, a schedule, and Keras's own optimizers where they do the same; the last batch smaller."""
    adam = functools.partial(tf.keras.optimizers.SGD, 0.1)
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)
    for name, optimizer in {"clipped": clipped, "SGD": adam, "schedule": lambda: LazyAdam(schedule)}.items():
        make = functools.partial(with_genres, sampler=SAMPLERS["inbatch"]())
        one, history = trained(make, optimizer, ALONE, batches(620))
        yield {"case": name, **differences(one, history, *trained(make, optimizer, strategy(), batches(620)))}


@case
def models():
    """Every model of the library."""
    for builder in (DSSM, FM, MIND, ComiRec, SDM, SRGNN, SequenceDNN, SASRec, HSTU, GRU4Rec):
        arguments = {"block_dropout": 0.0, "num_blocks": 1} | {
            "dnn_dropout": 0.0,
            "dropout_rate": 0.0,
            "click_dropout": 0.0,
            "l2_reg_embedding": 0.0,
            "units": D,
        }
        takes = inspect.signature(builder).parameters
        arguments = {name: value for name, value in arguments.items() if name in takes}
        combiner = "mean" if builder in (DSSM, FM) else "recency+last"
        make = functools.partial(model, builder=builder, combiner=combiner, **arguments)
        rows = BATCH if builder is MIND else ROWS  # routing makes much of roundings, as of the order of rows in a batch
        one, history = trained(make, lazy, ALONE, batches(rows))
        found = differences(one, history, *trained(make, lazy, strategy(), batches(rows)))
        yield {"case": builder.__name__, **found}


@case
def labelled():
    """NCF, which has labels in place of candidates."""
    x = {"user": np.repeat(np.arange(1, 81), 8), "item_id": ARRAYS["item_id"]}
    dataset = tf.data.Dataset.from_tensor_slices((x, np.arange(ROWS) % 3 > 0)).batch(BATCH)

    def make():
        return NCF({"user": 81}, {"item_id": V}, D, D, D, D, dnn_hidden_units=(8, D), l2_reg_embedding=0.0)

    def compiled_for_labels(of):
        with of.scope():
            made = make()
            made.compile(lazy(), "binary_crossentropy")
        return made

    def fitted_in(of):
        if of is ALONE and not CHIEF:
            return None, {}
        made = compiled_for_labels(of)
        return made, made.fit(dataset, epochs=2, verbose=0).history

    one, history = fitted_in(ALONE)
    yield differences(one, history, *fitted_in(strategy()), x, dataset)


class Death(tf.keras.callbacks.Callback):
    """Ends this process without a word in an epoch, as a machine that is gone does."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if SETTINGS["dies"] == [SETTINGS["index"], self.epoch] and batch == 4:
            os._exit(9)


@case
def resumed():
    """Four epochs with dropout and a backup after each, and a worker that dies if it is told so."""
    folder = pathlib.Path(SETTINGS["folder"])
    of = strategy()
    made = compiled(functools.partial(model, dnn_dropout=0.2, history_dropout=0.2), lazy, of)
    callbacks = [tf.keras.callbacks.BackupAndRestore(str(folder / "backup")), Death()]
    history = made.fit(ARRAYS, batch_size=BATCH, epochs=4, verbose=0, callbacks=callbacks)
    check_copies(made)
    if CHIEF:
        weights = {f"weight_{k}": weight for k, weight in enumerate(made.get_weights())}
        np.savez(folder / "result.npz", losses=history.history["loss"], epochs=history.epoch, **weights)
    return ()


@case
def matrix():
    """Every sampler, loss and optimizer; each with each other if that is asked for."""
    losses = [*LOSSES, "hard"]
    pairs = [(loss, name) for name in OPTIMIZERS for loss in losses]
    for k, (sampler, make_sampler) in enumerate(SAMPLERS.items()):
        for loss, name in pairs if SETTINGS.get("every") else [pairs[3 * k % len(pairs)]]:
            hard = {"num_hard": 5} if loss == "hard" else {}
            make = functools.partial(model, make_sampler(), "softmax" if hard else loss, **hard)
            one, history = trained(make, OPTIMIZERS[name], ALONE)
            found = differences(one, history, *trained(make, OPTIMIZERS[name], strategy()))
            yield {"case": f"{sampler}, {loss}, {name}", **found}


def main():
    of, too_far = strategy(), []
    for name in SETTINGS["cases"]:
        for found in CASES[name]():
            # Mixtures, the hardest negatives and interests choose, so a rounding may show.
            chooses = name == "models" or any(word in found.get("case", "") for word in ("mixed", "hard"))
            limit = 1e-4 if chooses else 1e-5
            wrong = {key: value for key, value in found.items() if key != "case" and not value <= limit}
            if CHIEF:
                print(json.dumps({"case": name, **found}), flush=True)
            too_far += [(name, found)] if wrong else []
    assert not too_far, too_far
    assert of.num_replicas_in_sync == 2
    wait_for_the_others()


def wait_for_the_others():
    """A worker that ends at once closes its sockets, from which another may still read what it sent last."""
    folder, number = pathlib.Path(SETTINGS["folder"]), len(SETTINGS.get("workers", [1]))
    (folder / f"done-{SETTINGS.get('index', 0)}").touch()
    began = time.monotonic()
    while len(list(folder.glob("done-*"))) < number and time.monotonic() - began < 60:
        time.sleep(0.05)


if __name__ == "__main__":
    main()
