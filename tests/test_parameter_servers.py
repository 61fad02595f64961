"""Training with parameter servers, which `tests/servers.py` does with processes of its own."""

import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext._keras import KERAS_3, keras
from deepmatch_ext.optimizers import LazyAdam
from tests import servers
from tests.fresh import forked, free_addresses, run_python

PROGRAM = pathlib.Path(servers.__file__)


@contextlib.contextmanager
def a_cluster(**numbers):
    """Addresses of a chief, and of servers that are there until the end of the block, by job."""
    addresses = iter(free_addresses(sum(numbers.values())))
    cluster = {job: list(itertools.islice(addresses, number)) for job, number in numbers.items()}
    places = [(job, index) for job, of in cluster.items() for index in range(len(of)) if job != "chief"]
    processes = [forked(servers.serve, cluster, *place) for place in places]
    try:
        yield cluster, dict(zip(places, processes, strict=True))
    finally:
        for process in processes:
            process.kill()
            process.join()


@pytest.mark.slow
@pytest.mark.skipif(tf.__version__.startswith("2.15."), reason="tried with TensorFlow 2.21")
def test_tables_lie_on_parameter_servers(tmp_path):
    """`servers.py` looks at training; what it has saved is that of one process."""
    with a_cluster(chief=1, worker=1, ps=2) as (cluster, _):
        done = run_python(PROGRAM, json.dumps({"cluster": cluster, "folder": str(tmp_path)}))
    assert done.returncode == 0, done.stderr[-3000:]
    if KERAS_3:  # refused
        return
    expected, x = np.load(tmp_path / "vectors.npz"), servers.arrays()
    reloaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(reloaded.item_vectors(), expected["items"], atol=1e-6)
    np.testing.assert_allclose(reloaded.user_vectors(x), expected["users"], atol=1e-6)
    history = reloaded.fit(x, batch_size=servers.BATCH, verbose=0).history["loss"]
    assert history[0] < json.loads(done.stdout)["lazy"][0]

    alone = servers.model(servers.FrequencySampler(20, np.bincount(x["item_id"], minlength=servers.V)))
    alone.compile(LazyAdam(1e-2))
    alone.optimizer.build(alone.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=alone, optimizer=alone.optimizer)
    checkpoint.read(str(tmp_path / "checkpoint")).assert_existing_objects_matched()
    np.testing.assert_allclose(alone.item_vectors(), expected["items"], atol=1e-6)
    assert int(alone.optimizer.iterations) == 3 * servers.STEPS


@pytest.mark.slow
@pytest.mark.skipif(KERAS_3, reason="Keras 3 does not train with parameter servers")
@pytest.mark.skipif(tf.__version__.startswith("2.15."), reason="tried with TensorFlow 2.21")
def test_the_page_s_code_runs(tmp_path):
    with a_cluster(chief=1, worker=1, ps=2) as (cluster, _):
        config = {"cluster": cluster, "task": {"type": "chief", "index": 0}, "rpc_layer": "grpc"}
        settings = {"page": "servers", "folder": str(tmp_path), "TF_CONFIG": config}
        done = run_python(PROGRAM.with_name("distributed_page.py"), json.dumps(settings))
    assert done.returncode == 0, done.stderr[-3000:]


ASKED = os.environ.get("DEEPMATCH_EXT_REPLICAS")


@pytest.mark.slow
@pytest.mark.skipif(KERAS_3 or not ASKED, reason="DEEPMATCH_EXT_REPLICAS asks for it, with tf-keras")
def test_a_lost_server_is_restored_from_a_checkpoint(tmp_path):
    """A worker that dies is done without; a server that dies ends the run, and the next one goes on."""

    def settings(cluster, epochs):
        return json.dumps({"cluster": cluster, "folder": str(tmp_path / "checkpoints"), "epochs": epochs})

    with a_cluster(chief=1, worker=2, ps=2) as (cluster, processes):
        command = [sys.executable, str(PROGRAM), settings(cluster, 1000)]
        environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, env=environment, **pipes) as run:
            try:
                epochs = (json.loads(line) for line in run.stdout if line.startswith("["))
                first = next(epochs)
                processes["worker", 1].kill()
                last = [next(epochs) for _ in range(3)][-1]
                processes["ps", 1].kill()
                for each in epochs:  # what it had made when it failed
                    last = each
                assert run.wait(timeout=100) != 0
            finally:
                run.kill()
    assert last[1] < first[1]
    with a_cluster(chief=1, worker=1, ps=1) as (cluster, _):
        done = run_python(PROGRAM, settings(cluster, 1))
    assert done.returncode == 0, done.stderr[-3000:]
    steps, loss = json.loads(done.stdout)
    assert steps == last[0] + servers.STEPS
    assert loss < first[1]
