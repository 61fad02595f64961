"""A program that trains with parameter servers, which ``tests/test_distribute.py`` starts beside it.

    python servers.py '{"cluster": {"chief": [...], "worker": [...], "ps": [...]}, "folder": "..."}'
    python servers.py '{"cluster": ..., "folder": "...", "epochs": 3}'  # goes on from a checkpoint

It prints a line of JSON of what was seen, and fails where something is not as it should be.
"""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext._keras import KERAS_3
from deepmatch_ext.optimizers import LazyAdam, RowwiseAdagrad
from deepmatch_ext.samplers import AdaptiveSampler, FrequencySampler, UniformSampler

V, D, T, BATCH, STEPS = 4000, 4, 5, 32, 40
TAKEN = 60  # items that occur


def serve(cluster, job, index):
    """A server, until it is killed."""
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)
    tf.distribute.Server(cluster, job, index, protocol="grpc", config=config, start=True).join()


def arrays():
    rng = np.random.default_rng(0)
    history = rng.integers(1, TAKEN, (1024, T))
    length = rng.integers(1, T + 1, 1024)
    history[np.arange(T) >= length[:, np.newaxis]] = 0
    return {"item_id": history[:, 0] * 7 % TAKEN + 1, "hist_item_id": history, "hist_len": length}


def model(sampler):
    history = SparseFeat("hist_item_id", V, D, embedding_name="item_id")
    columns = [VarLenSparseFeat(history, T, "recency+last", "hist_len")], [SparseFeat("item_id", V, D)]
    return YoutubeDNN(*columns, dnn_dropout=0.0, sampler_config=sampler)


def dataset(context):
    batches = tf.data.Dataset.from_tensor_slices(arrays())
    return batches.shuffle(1024, seed=context.input_pipeline_id).batch(BATCH, drop_remainder=True)


def refused(call, *words):
    with pytest.raises(ValueError, match=words[0]) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value


def own_loop(strategy, made):
    """The mean loss of the first and of the last ten steps, trained by a coordinator without `fit`."""
    optimizer, variables = LazyAdam(1e-2), made.trainable_variables
    with strategy.scope():
        optimizer.build(variables)

    def step(batch):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(made(batch, training=True))
        gradients = tape.gradient(loss, variables)
        assert [isinstance(gradient, tf.IndexedSlices) for gradient in gradients].count(True) == 2  # of two shards
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    @tf.function
    def train(iterator):
        return strategy.run(step, args=(next(iterator),))

    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)

    def of_worker():
        return strategy.distribute_datasets_from_function(lambda context: dataset(context).repeat())

    iterator = iter(coordinator.create_per_worker_dataset(of_worker))
    losses = [coordinator.schedule(train, args=(iterator,)) for _ in range(STEPS)]
    coordinator.join()
    losses = [float(loss.fetch()) for loss in losses]
    return np.mean(losses[:10]), np.mean(losses[-10:])


def strategy_of(cluster):
    cluster = tf.train.ClusterSpec(cluster)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")
    partitioner = tf.distribute.experimental.partitioners.FixedShardsPartitioner(2)
    return tf.distribute.ParameterServerStrategy(
        resolver, variable_partitioner=lambda shape, dtype, **_: partitioner(shape, dtype) if shape[0] == V else [1]
    )


def train_on(cluster, folder, epochs):
    """Goes on from the last checkpoint, if there is one, and writes one after each epoch."""
    strategy, x = strategy_of(cluster), arrays()
    with strategy.scope():
        made = model(FrequencySampler(20, np.bincount(x["item_id"], minlength=V)))
        made.compile(LazyAdam(1e-2))
        made.optimizer.build(made.trainable_variables)
        checkpoint = tf.train.Checkpoint(model=made, optimizer=made.optimizer)
        manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)
        checkpoint.restore(manager.latest_checkpoint)
    for _ in range(epochs):
        losses = made.fit(dataset, steps_per_epoch=STEPS, verbose=0).history["loss"]
        manager.save()
        print(json.dumps([int(made.optimizer.iterations), losses[0]]), flush=True)


def coordinate(cluster, folder):
    strategy = strategy_of(cluster)
    if KERAS_3:
        with strategy.scope():
            refused(lambda: model(UniformSampler(20)), "ParameterServerStrategy", "tf-keras", "TF_USE_LEGACY_KERAS")
        return
    x, seen = arrays(), {}
    counts = np.bincount(x["item_id"], minlength=V)
    with strategy.scope():
        refused(lambda: model(AdaptiveSampler(20)), "sampler_config", "AdaptiveSampler", "FrequencySampler")
        made = {kind: model(FrequencySampler(20, counts)) for kind in ("lazy", "rowwise", "own")}
        made["lazy"].compile(LazyAdam(1e-2))
        made["rowwise"].compile(RowwiseAdagrad(0.1))
    shards = [weight for weight in made["lazy"].trainable_variables if "part" in weight.name]
    assert len({weight.device for weight in shards}) == 2
    assert [tuple(weight.shape) for weight in shards] == [(V // 2, D)] * 2
    refused(lambda: made["lazy"].fit(x), "`x`", "InputContext", "parameter servers")
    refused(lambda: made["lazy"].fit(dataset), "number of steps", "steps_per_epoch")
    for kind in ("lazy", "rowwise"):
        losses = made[kind].fit(dataset, steps_per_epoch=STEPS, epochs=3, verbose=0).history["loss"]
        assert losses[-1] < 0.8 * losses[0], losses
        seen[kind] = losses
    assert sorted(tuple(part.shape) for part in made["rowwise"].optimizer.variables)[-1] == (V,)  # a number a row
    first, last = own_loop(strategy, made["own"])
    assert last < 0.9 * first, (first, last)

    items, users = made["lazy"].item_vectors(), made["lazy"].user_vectors(x)
    assert items.shape == (V, D)
    made["lazy"].save(f"{folder}/model.keras")
    tf.train.Checkpoint(model=made["lazy"], optimizer=made["lazy"].optimizer).write(f"{folder}/checkpoint")
    np.savez(f"{folder}/vectors.npz", items=items, users=users)
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    (train_on if "epochs" in settings else coordinate)(**settings)
