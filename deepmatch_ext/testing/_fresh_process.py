"""Files of a trained model, read in another process than the one that wrote them."""

from __future__ import annotations

import functools
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepmatch_ext._keras import input_name, keras
from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.serving import export_recommender
from deepmatch_ext.testing._data import BATCH, as_tensors, labels_for
from deepmatch_ext.testing._expect import as_json, one_line

# At first only TensorFlow, for the export; then this package and the module that the builder is in.
_SCRIPT = """
import json, os, sys
sys.path[:0] = json.loads(sys.argv[2])
import numpy as np
import tensorflow as tf
os.chdir(sys.argv[1])
try:
    served = tf.saved_model.load("export/1")
    with np.load("export.npz", allow_pickle=False) as arrays:
        user = {name: tf.constant(arrays[name]) for name in arrays}
    found = served.signatures["recommend"](**user, n=tf.constant(5))
    found.update(served.signatures["user_vector"](**user))
    assert "deepmatch_ext" not in sys.modules
    np.savez("export_came.npz", **{name: values.numpy() for name, values in found.items()})
except Exception as error:
    with open("export_came.txt", "w") as file:
        file.write(f"{type(error).__name__}: {error}")
from deepmatch_ext.testing._fresh_process import in_fresh_process
in_fresh_process()
"""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def read_again(
    builder: Callable[..., Any],
    model: RetrievalModel,
    half: bytes,
    users: Mapping[str, np.ndarray],
    x: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Writes the trained model's files, reads them in a fresh process, and returns the results by way of reading."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            export_recommender(model, folder / "export")
            _write_inputs(folder / "export.npz", _export_inputs(model, users, folder / "export" / "1"))
            not_exported = ""
        except Exception as error:
            not_exported = one_line(error)
        model.save_weights(folder / "model.weights.h5")
        (folder / "config.json").write_text(json.dumps(as_json(model.get_config())))
        (folder / "half.keras").write_bytes(half)
        _write_inputs(folder / "users.npz", users)
        _write_inputs(folder / "x.npz", x)
        module = inspect.unwrap(builder).__module__
        main = getattr(sys.modules.get("__main__"), "__file__", None)
        if module == "__main__" and main is not None:
            module = os.path.abspath(main)
        (folder / "module.txt").write_text(module)
        paths = json.dumps([os.path.abspath(path) for path in sys.path])
        done = run_python("-c", _SCRIPT, name, paths)
        came: dict[str, Any] = {}
        for way in ("file", "weights", "resumed", "export"):
            if (folder / f"{way}_came.npz").exists():
                with np.load(folder / f"{way}_came.npz") as arrays:
                    came[way] = dict(arrays)
            elif (folder / f"{way}_came.txt").exists():
                came[way] = " ".join((folder / f"{way}_came.txt").read_text().split())[:500]
            else:
                came[way] = f"the process ended: {done.stderr.strip()[-500:]}"
        if not_exported:
            came["export"] = not_exported
        return came


def _export_inputs(model: RetrievalModel, users: Mapping[str, np.ndarray], export: Path) -> dict[str, np.ndarray]:
    """The users under the names, and in the shapes and types, of the export's signatures."""
    inputs = json.loads((export / "manifest.json").read_text())["inputs"]
    tensors = as_tensors(model.user_input, users, len(next(iter(users.values()))))
    by_name = dict(zip(map(input_name, model.user_input), tensors, strict=True))
    return {argument: by_name[about["name"]].numpy() for argument, about in inputs.items()}


def _write_inputs(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes text as NumPy's own strings, so that no pickle has to be read."""
    np.savez(path, **{name: _own_strings(values) for name, values in arrays.items()})  # type: ignore[arg-type]


def _own_strings(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "O":
        return values
    text = [each.decode() if isinstance(each, bytes) else each for each in values.ravel()]
    return np.array(text, str).reshape(values.shape)


def in_fresh_process() -> None:
    """Reads the files in the working folder: a whole model, only the weights, and a run that is resumed."""
    import importlib
    import runpy

    module = Path("module.txt").read_text()
    if os.path.isabs(module):
        runpy.run_path(module, run_name="__mp_main__")  # as multiprocessing does it
    else:
        importlib.import_module(module)
    with np.load("users.npz") as arrays:
        users = dict(arrays)
    with np.load("x.npz") as arrays:
        x = dict(arrays)

    @functools.cache
    def loaded() -> Any:
        return keras.models.load_model("half.keras")

    def whole() -> dict[str, np.ndarray]:
        return {"user": loaded().user_vectors(users), "item": loaded().item_vectors()}

    def rebuilt() -> dict[str, np.ndarray]:
        model = RetrievalModel.from_config(json.loads(Path("config.json").read_text()))
        model.load_weights("model.weights.h5")
        tensors = as_tensors(model.user_input, users, len(next(iter(users.values()))))
        user = keras.Model(model.user_input, model.user_emb)(tensors)  # once, so not worth tracing
        return {"user": np.asarray(user), "item": model.item_vectors()}

    def resumed() -> dict[str, np.ndarray]:
        loaded().fit(x, labels_for(loaded(), len(next(iter(x.values())))), BATCH, epochs=1, verbose=0)
        return {f"{k}": weight for k, weight in enumerate(loaded().get_weights())}

    for way, read in {"file": whole, "weights": rebuilt, "resumed": resumed}.items():
        try:
            np.savez(f"{way}_came.npz", **read())  # type: ignore[arg-type]
        except Exception as error:
            Path(f"{way}_came.txt").write_text(one_line(error))
