"""Training on several replicas, in processes of their own: what differs from one process is printed and checked there.

A strategy is made once in a process, so `tests/replicas.py` runs several cases in each.
"""

import concurrent.futures
import json
import os
import pathlib
import socket

import pytest

from tests.fresh import run_python

PROGRAM = pathlib.Path(__file__).with_name("replicas.py")
ALL = pytest.mark.skipif(
    not os.environ.get("DEEPMATCH_EXT_REPLICAS"), reason="DEEPMATCH_EXT_REPLICAS=1 asks for all cases, many minutes"
)


def run_cases(kind, folder, *cases, **settings):
    """What the first process printed, after all of them came to their end."""
    settings = {"cases": cases, "folder": str(folder), **settings}
    each = [settings]
    if kind == "workers":
        with socket.socket() as one, socket.socket() as other:
            for each_socket in (one, other):
                each_socket.bind(("127.0.0.1", 0))
            workers = [f"127.0.0.1:{each_socket.getsockname()[1]}" for each_socket in (one, other)]
        each = [{**settings, "workers": workers, "index": index} for index in range(2)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        done = list(pool.map(run_python, [PROGRAM] * len(each), map(json.dumps, each)))
    for process in done:
        assert process.returncode == 0, process.stderr[-3000:]
    return [json.loads(line) for line in done[0].stdout.splitlines()]


@pytest.mark.slow
def test_two_replicas_of_a_process_do_what_one_does(tmp_path):
    assert len(run_cases("mirrored", tmp_path, "own")) == 1


@pytest.mark.slow
def test_two_workers_do_what_one_process_does(tmp_path):
    assert len(run_cases("workers", tmp_path, "sharded")) == 1


@ALL
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mirrored", "workers"])
def test_every_sampler_with_every_loss_and_optimizer(kind, tmp_path):
    assert run_cases(kind, tmp_path, "own", "sharded", "arrays", "fitted", "models", "matrix")
