"""DeepCTR's own tests on Keras 3, with and without `enable_deepctr_on_keras3`: how many pass.

    git clone --branch v0.9.4 https://github.com/shenweichen/DeepCTR
    python benchmarks/deepctr_suite.py DeepCTR/tests           # mended
    python benchmarks/deepctr_suite.py DeepCTR/tests --plain   # as it is

The tests are copied and ported to Keras 3's own calls, by the replacements below and no others; the rest of the
arguments goes to pytest. Under tf-keras the tests run as they are.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

from deepmatch_ext._keras import KERAS_3

# (where, what, by what): what Keras 3 calls otherwise.
PORT = [
    # File names end as Keras 3 demands.
    ("utils*.py", "'_weights.h5'", "'.weights.h5'"),
    # A function in a Lambda is saved by its name, and so must be registered.
    (
        "utils*.py",
        "def transform_fn(x): return",
        "@tf.keras.utils.register_keras_serializable('tests')\n        def transform_fn(x): return",
    ),
    # Layers take no `batch_input_shape`.
    ("utils.py", "layer_config['batch_input_shape'] = input_shape", ""),
    # Strings come as tensors.
    (
        "utils.py",
        "    # instantiation\n",
        "    if input_dtype == tf.string:\n        input_data = tf.constant(input_data)\n",
    ),
    # A symbolic tensor's dtype is a string.
    ("utils.py", "K.dtype(y)", "y.dtype"),
    # The metric of the binary cross-entropy wants labels in a column.
    ("utils.py", "model.fit(x, y, ", "model.fit(x, np.reshape(y, (-1, 1)), "),
    # Eager mode stays on, and DIEN is tested, which DeepCTR leaves out on TensorFlow 2.
    ("models/DIEN_test.py", "tf.compat.v1.disable_eager_execution()  # todo\n        return", "pass"),
    # There is no learning phase.
    ("layers/sequence_test.py", "tf.keras.backend.set_learning_phase(True)", "pass"),
]

CONFTEST = """
from unittest import mock
with mock.patch("threading.Thread.start"):  # DeepCTR asks a package index for its newest version
    import deepctr
{enable}
"""
ENABLE = "from deepmatch_ext.compat import enable_deepctr_on_keras3\nenable_deepctr_on_keras3()"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", type=pathlib.Path, help="the folder `tests` of DeepCTR's source")
    parser.add_argument("--plain", action="store_true", help="without `enable_deepctr_on_keras3`")
    parser.add_argument("--whole-as", choices=["h5", "keras"], default="h5", help="how whole models are saved")
    arguments, for_pytest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        tests = pathlib.Path(folder, "tests")
        shutil.copytree(arguments.tests, tests)
        pathlib.Path(folder, "conftest.py").write_text(CONFTEST.format(enable="" if arguments.plain else ENABLE))
        replacements = PORT + [("utils*.py", "+ '.h5'", f"+ '.{arguments.whole_as}'")]
        for where, what, by_what in replacements:
            for path in tests.glob(where) if KERAS_3 else ():
                path.write_text(path.read_text(encoding="utf-8").replace(what, by_what), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "python_files=*_test.py"]
        return subprocess.run([*command, *(for_pytest or ["tests"])], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
