"""Training on several replicas, in processes of their own: what differs from one process is printed and checked there.

A strategy is made once in a process, so `tests/replicas.py` runs several cases in each.
"""

import concurrent.futures
import json
import os
import pathlib
import time
from importlib.metadata import version

import numpy as np
import pytest

from tests.fresh import free_addresses, run_python

pytestmark = pytest.mark.skipif(version("tensorflow").startswith("2.15."), reason="tried with TensorFlow 2.21")

PROGRAM = pathlib.Path(__file__).with_name("replicas.py")
ASKED = os.environ.get("DEEPMATCH_EXT_REPLICAS", "")
EVERY = ASKED == "all"
ALL = pytest.mark.skipif(
    not ASKED, reason='DEEPMATCH_EXT_REPLICAS is neither "1", for minutes of all cases, nor "all", for each with each'
)


def run_cases(kind, folder, *cases, **settings):
    """What the first process printed, after all of them came to their end."""
    done = run(kind, folder, *cases, **settings)
    for process in done:
        assert process.returncode == 0, process.stderr[-3000:]
    return [json.loads(line) for line in done[0].stdout.splitlines()]


def run(kind, folder, *cases, **settings):
    """The processes of some cases, after they came to their end."""
    settings = {"cases": cases, "folder": str(folder), **settings}
    each = [settings]
    if kind == "workers":
        workers = free_addresses(2)
        each = [{**settings, "workers": workers, "index": index} for index in range(2)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(run_python, [PROGRAM] * len(each), map(json.dumps, each)))


@pytest.mark.slow
def test_two_replicas_of_a_process_do_what_one_does(tmp_path):
    assert len(run_cases("mirrored", tmp_path, "own", "refused")) == 1


@pytest.mark.slow
def test_two_workers_do_what_one_process_does(tmp_path):
    assert len(run_cases("workers", tmp_path, "sharded")) == 1


@pytest.mark.slow
@pytest.mark.once
def test_the_page_s_code_runs_on_two_workers(tmp_path):
    task = {"cluster": {"worker": free_addresses(2)}}
    each = [{**task, "task": {"type": "worker", "index": index}} for index in range(2)]
    settings = [json.dumps({"page": "workers", "folder": str(tmp_path), "TF_CONFIG": config}) for config in each]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        done = list(pool.map(run_python, [PROGRAM.with_name("distributed_page.py")] * 2, settings))
    assert [process.returncode for process in done] == [0, 0], done[0].stderr[-3000:] + done[1].stderr[-3000:]


@ALL
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mirrored", "workers"])
def test_every_sampler_with_every_loss_and_optimizer(kind, tmp_path):
    cases = ("own", "sharded", "refused", "arrays", "fitted", "models", "labelled", "matrix")
    assert run_cases(kind, tmp_path, *cases, every=EVERY)


@ALL
@pytest.mark.slow
def test_a_run_of_which_a_worker_died_goes_on_to_the_weights_of_an_undisturbed_one(tmp_path):
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    for folder in (undisturbed, stopped):
        folder.mkdir()
    assert [process.returncode for process in run("workers", undisturbed, "resumed", dies=None)] == [0, 0]
    began = time.monotonic()
    alive, dead = run("workers", stopped, "resumed", dies=[1, 2])
    assert dead.returncode == 9
    assert alive.returncode not in (0, 9), "it went on alone"
    assert time.monotonic() - began < 120, "it waited for the dead one"
    assert not (stopped / "result.npz").exists()
    done = run("workers", stopped, "resumed", dies=None)
    assert [process.returncode for process in done] == [0, 0], done[0].stderr[-3000:]
    with np.load(undisturbed / "result.npz") as expected, np.load(stopped / "result.npz") as found:
        assert found["epochs"].tolist() == [2, 3]
        np.testing.assert_array_equal(found["losses"], expected["losses"][2:])
        for name in set(expected) - {"losses", "epochs"}:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert {path.name for path in stopped.iterdir()} <= {"result.npz", "backup", "done-0", "done-1"}
