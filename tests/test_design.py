"""The examples of docs/design.md run, and do what the page says."""

import importlib
import pathlib
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext.layers.pooling import POOLINGS
from deepmatch_ext.losses import LOSSES
from tests.fresh import run_python

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "design.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("design")
    (folder / "attentive.py").write_text(BLOCKS[0])
    sys.path.insert(0, str(folder))
    yield importlib.import_module("attentive")
    sys.path.remove(str(folder))


def test_the_model_is_short():
    lines = [line for line in BLOCKS[0].splitlines() if line.strip() and not line.strip().startswith("#")]
    assert BLOCKS[0].startswith("# attentive.py\n")
    assert len(lines) < 40


@pytest.mark.slow
@pytest.mark.once
def test_the_model_keeps_every_promise(module, monkeypatch):
    monkeypatch.setattr("deepmatch_ext.testing._fresh_process.run_python", run_python)
    exec(compile(BLOCKS[1], "design.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.once
def test_the_other_examples_run(module, monkeypatch, tmp_path):
    for registry in (POOLINGS, LOSSES):
        monkeypatch.setitem(registry, "removed afterwards", None)  # so that all of it is put back
    names = {}
    for block in BLOCKS[2:]:
        exec(compile(block, "design.md", "exec"), names)
        model = names["model"]
        rows = 32
        x = {"hist_item_id": np.ones((rows, 50), int), "hist_len": np.full(rows, 50), "item_id": np.arange(1, rows + 1)}
        model.compile("adam", run_eagerly=True)
        assert np.isfinite(model.train_on_batch(x))
    POOLINGS.pop("attention"), LOSSES.pop("hinge")

    # The sampler's log counts are those of its draws.
    sampler, ids = names["HeadSampler"](4000, head=3), tf.range(11, dtype=tf.int64)
    drawn = np.bincount(sampler.sample({}, 11, tf.constant([1, 2], tf.int64)), minlength=11)
    expected = np.exp(sampler.log_expected_count({}, 11, ids, tf.constant(8)))
    assert drawn[0] == 0
    np.testing.assert_allclose(drawn[1:], expected[1:], atol=6 * np.sqrt(expected.max()))

    path = tmp_path / "log.txt"
    path.write_text("2026-11-01T09:30 u17 bought sku-3\n2026-11-01T09:29 u17 bought 007\n2026-11-01T09:31 u17 saw 8\n")
    read = names["read_log"](path)
    assert read.item_ids.decode(read.items).tolist() == ["007", "sku-3"]
