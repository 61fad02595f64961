"""Killed while it trains, a run loses nothing (benchmarks/faults.py does more); what can't work says what to do."""

import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

from tests.fresh import run_python

ROOT = pathlib.Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.once
def test_a_killed_run_goes_on_to_the_weights_of_an_undisturbed_one():
    options = [*("--kills", "1", "--runs", "1"), *("--rows", "500", "--items", "20000", "--epochs", "6")]
    done = run_python(ROOT / "benchmarks" / "faults.py", *options, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "kills 1," in done.stdout
    assert "files read 1, lost 0" in done.stdout  # the kill came while the file was being written anew
    # One, unless a machine that is busy let a run come to its end before it was killed.
    assert re.search(r"^runs (\d+), resumed to equal weights \1$", done.stdout, re.MULTILINE), done.stdout


FULL = """
    import resource, signal, sys
    import numpy as np
    import tensorflow as tf
    from pathlib import Path

    sys.path.insert(0, "tests/models/fixtures")
    import make
    from deepmatch_ext.utils import sampledsoftmaxloss

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    model, x = make.build(), make.model_input()
    # Eagerly, since a process that is made for this need not trace what it runs twice.
    model.compile("adam", sampledsoftmaxloss, run_eagerly=True)
    model.fit(x, verbose=0)
    paths = [folder / "model.keras", folder / "model.weights.h5"]
    model.save(paths[0])
    model.save_weights(paths[1])
    former, vectors = [path.read_bytes() for path in paths], model.user_vectors(x)
    model.fit(x, verbose=0)
    # No file may grow beyond half of what it takes, as on a disk with that much left.
    for save, path in zip((model.save, model.save_weights), paths):
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(path.read_bytes()) // 2, resource.RLIM_INFINITY))
        try:
            save(path)
        except OSError as error:
            print("refused:", type(error).__name__)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert sorted(folder.iterdir()) == sorted(paths), list(folder.iterdir())
    assert [path.read_bytes() for path in paths] == former
    np.testing.assert_array_equal(tf.keras.models.load_model(paths[0]).user_vectors(x), vectors)
    save(paths[1])
    print("whole", flush=True)
"""


@pytest.mark.slow
@pytest.mark.once
def test_a_full_disk_is_an_error_and_leaves_the_former_file(tmp_path):
    pytest.importorskip("resource", reason="limits on the size of a file are Unix's")
    done = run_python("-c", textwrap.dedent(FULL), tmp_path, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split().count("refused:") == 2
    assert done.stdout.strip().endswith("whole")


ENVIRONMENT = """
    import os, sys
    {before}
    try:
        import deepmatch_ext
    except ImportError as error:
        print(error)
    else:
        print("imported")
"""


def what_import_says(before, python=sys.executable, **environment):
    import os

    variables = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"} | environment
    variables["PYTHONPATH"] = str(ROOT)
    script = textwrap.dedent(ENVIRONMENT).format(before=before)
    command = [python, "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, cwd=ROOT.parent)
    return done.stdout.strip() or done.stderr[-2000:]


def test_an_old_python_is_refused():
    said = what_import_says("sys.version_info = (3, 9, 18, 'final', 0)")
    assert said.startswith("deepmatch_ext needs Python 3.10 or newer; this is Python 3."), said
    assert "virtual environment" in said


def test_an_old_tensorflow_is_refused():
    stand_in = "import types; old = sys.modules['tensorflow'] = types.ModuleType('tensorflow')"
    said = what_import_says(f"{stand_in}; old.__version__ = '2.14.1'")
    assert "needs TensorFlow 2.15 or newer; this is TensorFlow 2.14.1. Upgrade it: `pip install --up" in said, said


@pytest.mark.slow
@pytest.mark.once
def test_legacy_keras_without_its_package_is_refused():
    import tensorflow as tf

    if tf.__version__.startswith("2.15"):
        pytest.skip("TensorFlow 2.15 brings Keras 2 along")
    said = what_import_says("sys.modules['tf_keras'] = None", TF_USE_LEGACY_KERAS="1")
    assert "TF_USE_LEGACY_KERAS is set, but tf-keras is not installed. Install it" in said, said
