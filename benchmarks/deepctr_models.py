"""DeepCTR's models, tiny: trained, reloaded in another process, and compared with tf-keras at equal weights.

    python benchmarks/deepctr_models.py train new     # on Keras 3: predicts at given weights, trains, saves
    python benchmarks/deepctr_models.py reload new    # the whole file, and the weights into a model built again
    TF_USE_LEGACY_KERAS=1 python benchmarks/deepctr_models.py predict old
    python benchmarks/deepctr_models.py compare new old

Names of cases after the folder take only these. On tf-keras DIEN runs in graph mode alone, so with ``--graph``:

    TF_USE_LEGACY_KERAS=1 python benchmarks/deepctr_models.py predict old DIEN "DIEN AGRU" --graph # and so on
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

with mock.patch("threading.Thread.start"):  # DeepCTR asks a package index for its newest version
    from deepctr import models

from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepmatch_ext._keras import KERAS_3
from deepmatch_ext.compat import enable_deepctr_on_keras3

ROWS, STEPS = 12, 4


def plain(dense: bool = True, groups: bool = False) -> list[Any]:
    """Columns of most kinds: a NumPy integer as a size, hashed strings, pooled lists."""
    group = [{"group_name": f"g{i}"} if groups else {} for i in range(2)]
    columns = [
        SparseFeat("user", np.int64(5), 4, **group[0]),
        SparseFeat("name", 7, 4, use_hash=True, dtype="string", **group[1]),
        VarLenSparseFeat(SparseFeat("tags", 6, 4, **group[1]), 3, "mean"),
        VarLenSparseFeat(SparseFeat("seen", 6, 4, **group[0]), 3, "sum", "seen_len", "seen_weight"),
    ]
    return [*columns, DenseFeat("age", 1)] if dense else columns


def sequences(*prefixes: str, length_name: str | None = "seq_length") -> list[Any]:
    """Columns of items and genres, and sequences of both."""
    columns: list[Any] = [SparseFeat("user", 5, 4), SparseFeat("item", 6, 4), SparseFeat("genre", 4, 4)]
    for prefix in prefixes:
        for name, size in (("item", 6), ("genre", 4)):
            sparse = SparseFeat(prefix + name, size, 4, embedding_name=name)
            columns.append(VarLenSparseFeat(sparse, STEPS, length_name=length_name))
    return [*columns, DenseFeat("age", 1)]


DNN = {"dnn_hidden_units": (8, 4)}
TOWER = {"tower_dnn_hidden_units": (4,)}
HISTORY = (sequences("hist_"), ["item", "genre"])
NEGATIVES = (sequences("hist_", "neg_hist_"), ["item", "genre"])
SESSIONS = (sequences("sess_0_", "sess_1_", length_name=None), ["item", "genre"])
SPARSE = (plain(False), plain(False))
CONVOLUTIONS = {"conv_kernel_width": (3, 2), "conv_filters": (2, 2)}

# Case -> positional arguments (two lists of all columns unless given) and options. A case is named by its model.
CASES: dict[str, tuple[tuple[Any, ...] | None, dict[str, Any]]] = {
    "AFM": (SPARSE, {}),
    "AutoInt": (None, {"att_layer_num": 2, **DNN}),
    "BST": (HISTORY, {"transformer_num": 2, "att_head_num": 2, **DNN}),
    "CCPM": (SPARSE, {**CONVOLUTIONS, **DNN}),
    "DCN": (None, DNN),
    "DCN matrix": (None, {"cross_parameterization": "matrix", **DNN}),
    "DCNMix": (None, {"low_rank": 3, "num_experts": 2, **DNN}),
    "DIEN": (HISTORY, DNN),
    "DIEN AIGRU": (HISTORY, {"gru_type": "AIGRU", **DNN}),
    "DIEN AGRU": (HISTORY, {"gru_type": "AGRU", **DNN}),
    "DIEN AUGRU": (NEGATIVES, {"gru_type": "AUGRU", "use_negsampling": True, "alpha": np.float64(0.5), **DNN}),
    "DIFM": (None, DNN),
    "DIN": (HISTORY, {"dnn_use_bn": True, "att_hidden_size": (4,), **DNN}),
    "DSIN": (SESSIONS, {"sess_max_count": 2, **DNN}),
    "DSIN bias": (SESSIONS, {"sess_max_count": 2, "bias_encoding": True, **DNN}),
    "DeepFEFM": (None, DNN),
    "DeepFM": (None, {"dnn_use_bn": True, **DNN}),
    "EDCN": (SPARSE, {"tau": 0.5}),
    "EDCN attention": (SPARSE, {"bridge_type": "attention_pooling"}),
    "ESMM": ((plain(),), TOWER),
    "FGCNN": (None, {**CONVOLUTIONS, "new_maps": (2, 2), "pooling_width": (2, 2), **DNN}),
    "FLEN": ((plain(groups=True), plain(groups=True)), DNN),
    "FNN": (None, DNN),
    "FiBiNET": (None, DNN),
    "FwFM": (None, DNN),
    "IFM": (None, DNN),
    "MLR": ((plain(),), {"region_num": 2, "bias_feature_columns": [DenseFeat("age", 1)]}),
    "MMOE": ((plain(),), {"num_experts": 2, "expert_dnn_hidden_units": (4,), "gate_dnn_hidden_units": (4,), **TOWER}),
    "NFM": (None, {"bi_dropout": 0.1, **DNN}),
    "ONN": (None, DNN),
    "ONN sum": (None, {"reduce_sum": True, **DNN}),
    "PLE": ((plain(),), {"expert_dnn_hidden_units": (4,), **TOWER}),
    "PNN": ((plain(),), {"use_outter": True, **DNN}),
    "SharedBottom": ((plain(),), {"bottom_dnn_hidden_units": (8,), **TOWER}),
    "WDL": (None, DNN),
    "xDeepFM": (None, {"cin_layer_size": (4, 4), "l2_reg_cin": 0.1, **DNN}),
}


def build(case: str) -> Any:
    """The model of a case, with its first weights."""
    positional, options = CASES[case]
    return getattr(models, case.split()[0])(*(positional or (plain(), plain())), **options)


def input_for(model: Any) -> dict[str, np.ndarray]:
    """A batch for the inputs of a model, always the same; strings as a NumPy array."""
    rng = np.random.default_rng(3)
    length = rng.integers(1, STEPS + 1, ROWS)
    x = {
        "user": rng.integers(0, 5, ROWS),
        "name": np.array([f"name {i}" for i in rng.integers(0, 9, ROWS)]),
        "item": rng.integers(1, 6, ROWS),
        "genre": rng.integers(1, 4, ROWS),
        "tags": rng.integers(0, 6, (ROWS, 3)),
        "seen": rng.integers(0, 6, (ROWS, 3)),
        "seen_len": rng.integers(1, 4, ROWS),
        "seen_weight": rng.random((ROWS, 3, 1)),
        "age": rng.random(ROWS),
        "seq_length": length,
        "sess_length": rng.integers(1, 3, ROWS),
    }
    for prefix in ("hist_", "neg_hist_", "sess_0_", "sess_1_"):
        for name, size in (("item", 6), ("genre", 4)):
            x[prefix + name] = rng.integers(1, size, (ROWS, STEPS)) * (np.arange(STEPS) < length[:, None])
    names = [tensor.name for tensor in model.inputs] if KERAS_3 else model.input_names
    return {name: x[name] for name in names}


def labels_for(model: Any) -> Any:
    """Labels of shape (B,) for each output."""
    y = (np.arange(ROWS) % 2).astype("float32")
    return [y] * len(model.outputs) if len(model.outputs) > 1 else y


def predictions(model: Any) -> np.ndarray:
    """(B, outputs) of the model's own batch."""
    found = model.predict(input_for(model), verbose=0)
    return np.hstack(found) if isinstance(found, list) else found


@contextmanager
def eagerly() -> Iterator[None]:
    """To trace a model takes longer than to run it once."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def set_given_weights(model: Any) -> None:
    """Random weights that are the same on both Keras, which number layers of one kind differently.

    A weight is known by its path without those numbers and by its shape, and among such by the order of the numbers.
    """
    weights = list(model.weights)
    if not tf.executing_eagerly():  # tf-keras does not know the weights of DIEN's second GRU, if it is no plain one
        others = tf.compat.v1.global_variables()
        weights += [one for one in others if re.match(r"gru2/(gates|candidate)/", one.name)]
    places: Counter[str] = Counter()
    values = {}
    for path, i in sorted((numbered(weight), i) for i, weight in enumerate(weights)):
        shape = tuple(weights[i].shape)
        kind = "/".join(name for name, _ in path) + f" {shape}"
        places[kind] += 1
        given = np.random.default_rng(zlib.crc32(f"{kind} {places[kind]}".encode())).normal(0.1, 0.5, shape)
        values[i] = np.abs(given) + 0.5 if path[-1][0] in ("gamma", "moving_variance") else given
    values = [values[i] for i in range(len(weights))]
    if KERAS_3:
        model.set_weights(values)
    else:
        tf.keras.backend.batch_set_value(list(zip(weights, values, strict=True)))


def numbered(weight: Any) -> list[tuple[str, int]]:
    """The path of a weight, each name with its running number: ``a/dense_2/kernel`` is a 0, dense 2, kernel 0."""
    path = weight.path if KERAS_3 else weight.name.split(":")[0]
    path = re.sub(r"^(gru\d)/(?:gru_cell/)?(gates|candidate)/", r"\1/\2_", path)
    return [(name, int(number or 0)) for name, number in re.findall(r"([^/]+?)(?:_(\d+))?(?:/|$)", path)]


def predict(case: str, folder: pathlib.Path) -> Any:
    """Predictions at given weights; returns the model."""
    model = build(case)
    set_given_weights(model)
    np.save(folder / f"{case}.given.npy", predictions(model))
    return model


def train(case: str, folder: pathlib.Path) -> None:
    """Predicts at given weights, trains, and saves: the predictions, the weights and the whole model."""
    with eagerly():
        model = predict(case, folder)
    number = len(model.weights)
    model.compile("adam", "binary_crossentropy")
    model.fit(input_for(model), labels_for(model), verbose=0)
    assert len(model.weights) == number, "weights appeared only as the model was called"
    with eagerly():
        np.save(folder / f"{case}.trained.npy", predictions(model))
    model.save_weights(folder / f"{case}.weights.h5")
    model.save(folder / f"{case}.keras")


def reload(case: str, folder: pathlib.Path) -> None:
    """The whole model, without custom objects and in safe mode, and the weights alone: the predictions are the same."""
    expected = np.load(folder / f"{case}.trained.npy")
    assert np.ptp(expected) > 1e-4, "the predictions are all alike"
    whole = tf.keras.models.load_model(folder / f"{case}.keras")
    model = build(case)
    model.load_weights(folder / f"{case}.weights.h5")
    with eagerly():
        np.testing.assert_allclose(predictions(whole), expected, atol=1e-6)
        np.testing.assert_allclose(predictions(model), expected, atol=1e-6)


def compare(case: str, folder: pathlib.Path, other: pathlib.Path) -> str:
    """The largest difference of the predictions at given weights."""
    ours, theirs = (np.load(where / f"{case}.given.npy") for where in (folder, other))
    difference = np.abs(ours - theirs).max()
    assert difference < 1e-6, f"the predictions differ by {difference:.2g}"
    return f"differs by {difference:.2g}, of predictions between {theirs.min():.3f} and {theirs.max():.3f}"


def restore_tensorflow_1() -> None:
    """What DIEN's copy of TensorFlow 1's `dynamic_rnn` looks for inside TensorFlow, and no longer finds there."""
    for module, names in {
        "ops.array_ops": {"stack": tf.stack, "unstack": tf.unstack},
        "ops.control_flow_ops": {
            "Assert": tf.debugging.Assert,
            "cond": tf.compat.v1.cond,
            "while_loop": tf.compat.v1.while_loop,
        },
        "util.nest": {"is_sequence": tf.nest.is_nested},
    }.items():
        vars(importlib.import_module(f"tensorflow.python.{module}")).update(names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["predict", "train", "reload", "compare"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", help="cases; with compare, the other folder first")
    parser.add_argument("--graph", action="store_true", help="without eager mode")
    arguments = parser.parse_args()
    step, names = globals()[arguments.step], arguments.names
    others = [pathlib.Path(names.pop(0))] if step is compare else []
    if arguments.graph:
        tf.compat.v1.disable_eager_execution()
        restore_tensorflow_1()
    enable_deepctr_on_keras3()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    problems = {}
    for case in names or CASES:
        try:
            result = step(case, arguments.folder, *others)
        except Exception as error:
            result = problems[case] = f"{type(error).__name__}: {error}"
        print(f"{case}: {result if isinstance(result, str) else 'passed'}", flush=True)
    (arguments.folder / f"{arguments.step}.json").write_text(json.dumps(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
