"""A program that runs the code of docs/distributed.md: `tests/test_distribute.py` starts its workers.

    python distributed_page.py '{"folder": "...", "page": "workers", "TF_CONFIG": {"cluster": ..., "task": ...}}'

What the page leaves to its readers, such as data and columns, is small here; numbers and folders are changed to fit.
"""

import json
import os
import pathlib
import re
import sys
import tempfile

import numpy as np
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.data import Interactions, window_dataset, windows
from deepmatch_ext.optimizers import LazyAdam, RowwiseAdagrad
from deepmatch_ext.retrieval import read_vectors, write_vectors
from deepmatch_ext.samplers import FrequencySampler

V, USERS, EACH = 600, 40, 9
TEXT = (pathlib.Path(__file__).parents[1] / "docs" / "distributed.md").read_text(encoding="utf-8")
WORKERS, SERVERS = (
    re.findall(r"^```python\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
    for part in TEXT.split("\n## Tables larger than a machine's memory\n")
)


def given():
    """The names that the page takes from other pages."""
    items = np.random.default_rng(0).integers(1, V, USERS * EACH)
    interactions = Interactions.from_sequences(np.arange(0, USERS * EACH + 1, EACH), items)
    rows = np.flatnonzero(np.arange(USERS * EACH) % EACH)
    history = SparseFeat("hist_item_id", V, 4, embedding_name="item_id")
    x = windows(interactions, rows, 50)
    names = {
        "user_columns": [VarLenSparseFeat(history, 50, "recency+last", "hist_len")],
        "item_columns": [SparseFeat("item_id", V, 4)],
        "interactions": interactions,
        "rows": rows,
        "x": x,
        "item_count": np.bincount(items, minlength=V),
        "item_ids": np.arange(1, V),
        "original_ids": [f"sku-{item}" for item in range(1, V)],
    }
    parts = (YoutubeDNN, LazyAdam, RowwiseAdagrad, FrequencySampler, window_dataset, write_vectors)
    return {"np": np, "tf": tf, "tempfile": tempfile, **names, **{part.__name__: part for part in parts}}


def run(block, names, *changes):
    """Runs a block in which each of some texts, which must stand there, is another one."""
    for old, new in changes:
        assert old in block, f"{old!r} is not in:\n{block}"
        block = block.replace(old, new)
    exec(compile(block, "distributed.md", "exec"), names)


def workers(names, folder):
    program, of_a_worker, loop, backup, checkpoints = WORKERS
    run(program, names, ("epochs=3", "epochs=1"))
    model = names["model"]
    assert names["strategy"].num_replicas_in_sync == 2
    assert (folder / "model.keras").exists() or names["strategy"].cluster_resolver.task_id
    small = ("get_per_replica_batch_size(1024)", "get_per_replica_batch_size(64)")
    run(of_a_worker, names, small, ("epochs=3", "epochs=1"))
    before = model.item_vectors()
    names["batches"] = tf.data.Dataset.from_tensor_slices(names["x"]).batch(64, drop_remainder=True)
    names["optimizer"] = model.optimizer
    run(loop, names)
    assert np.abs(model.item_vectors() - before).max() > 0
    run(backup, names, ("/shared", str(folder)), ("epochs=10", "epochs=2"))
    for number in (0, 1):  # a first run, and one that goes on
        run(checkpoints, names, ("/shared", str(folder)))
        assert names["first_epoch"] == number
        data = window_dataset(names["interactions"], names["rows"], 50, 64, first_epoch=number)
        save = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: names["manager"].save(epoch + 1))
        model.fit(data, initial_epoch=number, epochs=number + 1, callbacks=[save], verbose=0)
        run(loop, names)  # no worker goes on before the chief has written its checkpoint


def servers(names, folder):
    program, in_blocks = SERVERS
    small = ("min_shard_bytes=2**24", "min_shard_bytes=2**12"), ("10_000", "5")
    names["dataset"] = lambda context: tf.data.Dataset.from_tensor_slices(names["x"]).batch(64)
    run(program, names, *small)
    model = names["model"]
    table = [weight for weight in model.trainable_variables if "part" in weight.name]
    assert len({weight.device for weight in table}) == 2
    run(in_blocks, names, ("array_split(item_ids, 100)", "array_split(item_ids, 10)"))
    written = read_vectors(folder / "items.parquet")
    assert written.ids.tolist() == names["original_ids"]
    np.testing.assert_allclose(written.vectors, model.item_vectors()[1:], atol=1e-6)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    os.environ["TF_CONFIG"] = json.dumps(settings["TF_CONFIG"])
    os.chdir(settings["folder"])
    {"workers": workers, "servers": servers}[settings["page"]](given(), pathlib.Path(settings["folder"]))
