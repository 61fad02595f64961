"""DeepCTR on Keras 3: each model trains, and reloads in a fresh process; off unless called; nothing under tf-keras.

The models run in processes of their own, since the call changes the imported deepctr: this file is their script, too.
"""

import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pytest
import tensorflow as tf

with mock.patch("threading.Thread.start"):  # DeepCTR asks a package index for its newest version
    import deepctr

from deepctr import models
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepmatch_ext import compat
from deepmatch_ext._compat import KERAS_3

ROWS = 12
BEHAVIOUR = ["item", "genre"]
DNN = {"dnn_hidden_units": (4,)}
keras_3 = pytest.mark.skipif(not KERAS_3, reason="there is nothing to mend")


def plain(dense=True):
    columns = [
        SparseFeat("user", np.int64(5), 4),
        SparseFeat("item", 7, 4, use_hash=True, dtype="string", group_name="items"),
        VarLenSparseFeat(SparseFeat("tags", 6, 4, group_name="items"), 3, "mean"),
        VarLenSparseFeat(SparseFeat("seen", 6, 4), 3, "sum", "seen_len"),
    ]
    return [*columns, DenseFeat("age", 1)] if dense else columns


def sequences(*prefixes, length_name="seq_length"):
    columns = [SparseFeat("user", 5, 4), SparseFeat("item", 6, 4), SparseFeat("genre", 4, 4), DenseFeat("age", 1)]
    for prefix in prefixes:
        for name, size in (("item", 6), ("genre", 4)):
            sparse = SparseFeat(prefix + name, size, 4, embedding_name=name)
            columns.append(VarLenSparseFeat(sparse, 4, length_name=length_name))
    return columns


def histories(**options):
    return (sequences("hist_"), BEHAVIOUR), {**DNN, **options}


# name -> (positional arguments, options) that differ from two lists of `plain()` columns and one small layer
SPECIAL = {
    "AFM": ((plain(False), plain(False)), {}),
    "BST": histories(att_head_num=2),
    "CCPM": ((plain(False), plain(False)), {"conv_kernel_width": (3, 2), "conv_filters": (2, 2), **DNN}),
    "DIEN": (
        (sequences("hist_", "neg_hist_"), BEHAVIOUR),
        {"gru_type": "AUGRU", "use_negsampling": True, "alpha": np.float64(0.5), **DNN},
    ),
    "DIN": histories(dnn_use_bn=True, att_hidden_size=(4,)),
    "DSIN": ((sequences("sess_0_", "sess_1_", length_name=None), BEHAVIOUR), {"sess_max_count": 2, **DNN}),
    "EDCN": ((plain(False), plain(False)), {"tau": 0.5}),
    "ESMM": ((plain(),), {"tower_dnn_hidden_units": (4,)}),
    "MLR": ((plain(),), {"region_num": 2}),
    "MMOE": ((plain(),), {"num_experts": 2, "expert_dnn_hidden_units": (4,), "tower_dnn_hidden_units": (4,)}),
    "PLE": ((plain(),), {"expert_dnn_hidden_units": (4,), "tower_dnn_hidden_units": (4,)}),
    "PNN": ((plain(),), {"use_outter": True, **DNN}),
    "SharedBottom": ((plain(),), {"bottom_dnn_hidden_units": (4,), "tower_dnn_hidden_units": (4,)}),
}
NAMES = sorted(set(models.__all__))


def build(name):
    positional, options = SPECIAL.get(name, ((plain(), plain()), DNN))
    return getattr(models, name)(*positional, **options)


def input_for(model):
    rng = np.random.default_rng(3)
    length = rng.integers(1, 5, ROWS)
    x = {
        "user": rng.integers(0, 5, ROWS),
        "tags": rng.integers(0, 6, (ROWS, 3)),
        "seen": rng.integers(0, 6, (ROWS, 3)),
        "seen_len": rng.integers(1, 4, ROWS),
        "age": rng.random(ROWS).astype("float32"),
        "seq_length": length,
        "sess_length": rng.integers(1, 3, ROWS),
    }
    for prefix in ("", "hist_", "neg_hist_", "sess_0_", "sess_1_"):
        for name, size in (("item", 6), ("genre", 4)):
            x[prefix + name] = rng.integers(1, size, (ROWS, 4) if prefix else ROWS)
    specs = {tensor.name.split(":")[0]: tensor for tensor in model.inputs}
    if specs["item"].dtype == "string":
        x["item"] = np.array([f"item {i}" for i in x["item"]])  # a NumPy array of strings
    return {name: x[name] for name in specs}


def predicted(model):
    return np.hstack(model.predict(input_for(model), verbose=0)).reshape(ROWS, -1)


def write(name, folder):
    model = build(name)
    weights = len(model.weights)
    y = (np.arange(ROWS) % 2).astype("float32")
    model.compile("adam", "binary_crossentropy")
    model.fit(input_for(model), [y] * len(model.outputs) if len(model.outputs) > 1 else y, verbose=0)
    assert len(model.weights) == weights, "weights appeared only as the model was called"
    np.save(folder / f"{name}.npy", predicted(model))
    model.save_weights(folder / f"{name}.weights.h5")
    model.save(folder / f"{name}.keras")


def read(name, folder):
    expected = np.load(folder / f"{name}.npy")
    whole = tf.keras.models.load_model(folder / f"{name}.keras")
    np.testing.assert_allclose(predicted(whole), expected, atol=1e-6)
    model = build(name)
    model.load_weights(folder / f"{name}.weights.h5")
    np.testing.assert_allclose(predicted(model), expected, atol=1e-6)


def run(step, folder, names=NAMES):
    """A fresh process that takes one step with each model; name -> what went wrong."""
    command = [sys.executable, __file__, step, str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return folder, run("write", folder)


@pytest.fixture(scope="module")
def reloaded(written):
    return run("read", written[0])


@keras_3
@pytest.mark.parametrize("name", NAMES)
def test_each_model_trains_and_reloads_in_a_fresh_process(name, written, reloaded):
    """Whole, without custom objects and in safe mode, and by its weights."""
    assert not written[1][name]
    assert not reloaded[name]


@keras_3
def test_it_is_off_unless_called(tmp_path):
    assert run("plain", tmp_path, ["DeepFM"])["DeepFM"]


@keras_3
def test_a_version_that_was_not_tested_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(deepctr, "__version__", "0.9.3")
    with pytest.raises(ValueError, match=r"be 0\.9\.4, .*; got 0\.9\.3\. Install deepctr==0\.9\.4"):
        compat.enable_deepctr_on_keras3()


@pytest.mark.skipif(KERAS_3, reason="for tf-keras")
def test_under_tf_keras_nothing_is_touched():
    homes = [module for name, module in sys.modules.items() if name.startswith("deepctr.")]
    before = [dict(vars(module)) for module in homes] + [dict(vars(deepctr.layers.Concat))]
    assert compat.enable_deepctr_on_keras3() is False
    assert before == [dict(vars(module)) for module in homes] + [dict(vars(deepctr.layers.Concat))]


def main(step, folder, *names):
    if step != "plain":
        assert compat.enable_deepctr_on_keras3()
        mended = deepctr.layers.Concat.compute_mask, deepctr.layers.Hash.build, models.wdl.Model
        assert compat.enable_deepctr_on_keras3()  # the second call changes nothing
        assert mended == (deepctr.layers.Concat.compute_mask, deepctr.layers.Hash.build, models.wdl.Model)
    problems = {}
    for name in names:
        try:
            (read if step == "read" else write)(name, pathlib.Path(folder))
            problems[name] = ""
        except Exception as error:
            problems[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(problems))


if __name__ == "__main__":
    main(*sys.argv[1:])
