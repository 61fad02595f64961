"""The package as a whole: imports only point down and leave the process as it was; docstring examples run."""

import ast
import configparser
import functools
import graphlib
import importlib
import importlib.util
import inspect
import os
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

import deepmatch_ext
from deepmatch_ext._checks import missing_extra
from deepmatch_ext.serving import export_recommender
from tests.fresh import run_python
from tests.helpers import eager_functions, run_examples

ROOT = pathlib.Path(deepmatch_ext.__file__).parent
MODULES = sorted(info.name for info in pkgutil.walk_packages([str(ROOT)], "deepmatch_ext."))

# Which parts of the package a part may import. Keras-free parts know nothing of models, and models nothing of them.
CHECKS, FRAMES = {"_checks"}, {"_checks", "_frames"}
KERAS = CHECKS | {"_distribute", "_keras", "_traced"}
MAY_IMPORT = {
    "_version": set(),
    "_lazy": set(),
    "_checks": set(),
    "_distribute": CHECKS,
    "_keras": CHECKS | {"_distribute"},
    "_traced": CHECKS | {"_keras"},
    "_files": set(),
    "_folders": CHECKS | {"_files"},
    "_arrays": FRAMES,
    "_interests": {"_arrays"},
    "_no_item": CHECKS,
    "_frames": CHECKS,
    "_names": set(),
    "_passes": CHECKS,
    "_exchange": CHECKS,
    "_plain": KERAS,
    "_initializers": KERAS | FRAMES | {"_plain"},
    "features": KERAS | {"_plain", "_initializers"},
    "deepmatch": CHECKS | {"deepmatch"},
    "deepmatch.attention": KERAS | {"layers"},
    "deepmatch.interests": KERAS | {"layers"},
    "deepmatch.layers": KERAS | {"layers", "losses", "samplers"},
    "deepmatch.recurrent": KERAS | {"layers"},
    "deepmatch.utils": KERAS | {"deepmatch", "layers", "samplers"},
    "inputs": {"deepmatch"},
    "samplers": FRAMES | {"samplers"},
    "losses": KERAS,
    "optimizers": KERAS,
    "layers": KERAS | {"_plain", "_initializers", "features", "samplers", "losses", "layers"},
    "models": KERAS
    | FRAMES
    | {"_arrays", "_files", "_initializers", "_names", "_passes", "_plain", "_version"}
    | {"features", "samplers", "losses", "layers", "optimizers", "models"},
    "data": FRAMES | {"_arrays", "_files", "_lazy", "_no_item", "data"},
    "data.window_dataset": CHECKS | {"_arrays", "_passes", "data"},
    "data.parquet": FRAMES | {"_passes", "data"},
    "data.tfrecords": FRAMES | {"_files", "_passes", "data"},
    "retrieval": FRAMES | {"_arrays", "_files", "_folders", "_interests", "_lazy", "_no_item", "_version", "retrieval"},
    "evaluation": FRAMES | {"_arrays", "_files", "_interests", "_lazy", "retrieval", "evaluation"},
    "evaluation.watch": KERAS | FRAMES | {"_arrays", "retrieval", "evaluation"},
    "evaluation.callback": KERAS | FRAMES | {"_arrays", "retrieval", "evaluation"},
    "compat": KERAS | {"compat"},
    "utils": CHECKS | {"deepmatch", "losses"},
    "serving": KERAS
    | {"_arrays", "_exchange", "_files", "_names", "_no_item", "_version"}
    | {"data", "features", "layers", "models", "retrieval"},
    "server": CHECKS | {"server"},
    "recommender": KERAS
    | FRAMES
    | {"_arrays", "_folders", "_plain", "_version", "data", "evaluation", "features", "models", "optimizers"}
    | {"retrieval", "samplers", "serving", "recommender"},
    "testing": KERAS
    | {"features", "layers", "losses", "models", "optimizers", "retrieval", "samplers", "serving", "testing"},
}
KERAS_FREE = {"data", "retrieval", "evaluation", "_arrays", "_checks", "_files", "_frames", "_interests"}
# Of those, the modules that use TensorFlow.
USE_TENSORFLOW = {
    *("data.window_dataset", "data.parquet", "data.tfrecords", "data.spark.recommendations"),
    *("retrieval.exact_index", "retrieval.top_n"),
}


@functools.cache
def imports_of(path):
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module)
    return names


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_point_down(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts == ("__init__",):
        return
    name = ".".join(parts)
    own = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]  # of a.b.c the line for a.b goes before a
    allowed = next(MAY_IMPORT[part] for part in own if part in MAY_IMPORT)
    for imported in imports_of(path):
        top, _, rest = imported.partition(".")
        if top == "deepmatch_ext":
            assert rest.split(".")[0] in allowed, f"{name} imports {imported}"
        assert top not in ("keras", "tf_keras", "deepctr"), f"{name} imports {imported}: only _keras knows Keras"
        if parts[0] in KERAS_FREE and name not in USE_TENSORFLOW:
            assert top != "tensorflow", f"{name} imports {imported}"


def test_imports_go_in_no_circle():
    names = {name: ROOT.joinpath(*name.split(".")[1:]) for name in MODULES}
    graph = {
        name: set(imports_of(path / "__init__.py" if path.is_dir() else path.with_suffix(".py")))
        for name, path in names.items()
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_folders_go_in_no_circle():
    graph = {}
    for path in ROOT.rglob("*.py"):
        own = path.relative_to(ROOT).with_suffix("").parts[0]
        if own != "__init__":
            parts = {name.split(".")[1] for name in imports_of(path) if name.startswith("deepmatch_ext.")}
            graph.setdefault(own, set()).update(parts - {own})
    list(graphlib.TopologicalSorter(graph).static_order())


# Examples that need a package besides those of the extra `test`: they are left out where it is missing.
EXAMPLES_NEED = {"ALS": "implicit", "ItemKNN": "implicit", "ScannIndex": "scann"}
# Examples that need a server or a Spark session: tests/retrieval/test_files.py and tests/data/test_spark.py run them.
RUN_ELSEWHERE = ("data.spark.prepared", "data.spark.recommendations", "retrieval.pgvector")


def can_run(example):
    package = EXAMPLES_NEED.get(example.name.rpartition(".")[2])
    return package is None or importlib.util.find_spec(package) is not None


@pytest.fixture(scope="module")
def export_once(tmp_path_factory):
    """`export_recommender` for the server's examples: they export one model, so all but the first get a copy."""
    first = []

    def export(model, folder, version=1):
        if not first:
            first.append(export_recommender(model, tmp_path_factory.mktemp("first")))
        return pathlib.Path(shutil.copytree(first[0], pathlib.Path(folder, str(version))))

    return export


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith(RUN_ELSEWHERE)])
def test_the_examples_in_docstrings_run(name, monkeypatch, export_once):
    if name.startswith("deepmatch_ext.server."):
        monkeypatch.setattr("deepmatch_ext.serving.export_recommender", export_once)
    with eager_functions():
        run_examples(importlib.import_module(name), can_run)


def public_names():
    """Name -> function or class, of all that the reference has, but for DeepCTR's own."""
    found = {}
    for page in (ROOT.parent / "docs" / "api").glob("*.md"):
        for name in re.findall(r"^\.\. automodule:: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            module = importlib.import_module(name)
            names = getattr(module, "__all__", None)
            if names is None:
                names = [each for each, thing in vars(module).items() if getattr(thing, "__module__", None) == name]
            things = {f"{name}.{each}": getattr(module, each) for each in names if not each.startswith("_")}
            found |= {
                each: thing
                for each, thing in things.items()
                if (inspect.isfunction(thing) or inspect.isclass(thing)) and not thing.__module__.startswith("deepctr.")
            }
    return found


# It trains models for a minute; tests/test_design.py runs the example of docs/design.md.
WITHOUT_EXAMPLE = {"deepmatch_ext.testing.check_model"}


def test_every_public_name_has_an_example():
    names = public_names()
    assert len(names) > 150
    without = set()
    for name, thing in names.items():
        own = [each for key, each in vars(thing).items() if not key.startswith("_")] if inspect.isclass(thing) else []
        if not any(">>> " in (getattr(each, "__doc__", None) or "") for each in [thing, *own]):
            without.add(name)
    assert without == WITHOUT_EXAMPLE


@pytest.mark.smoke
def test_every_public_name_exists_and_is_documented():
    for name in ["deepmatch_ext", *MODULES]:
        module = importlib.import_module(name)
        assert module.__doc__, name
        for public in getattr(module, "__all__", []):
            thing = getattr(module, public)
            if getattr(thing, "__module__", name).startswith("deepctr."):
                continue  # handed through from DeepCTR, which documents few of them
            assert getattr(thing, "__doc__", "documented"), f"{name}.{public}"


# Whatever of this package has loaded TensorFlow, Keras reads the files of its models.
REGISTERED = """
import tensorflow as tf
saving = getattr(tf.keras, "saving", None) or __import__("keras").saving
for name in ("RetrievalModel", "CandidateLoss", "LazyAdam"):
    assert saving.get_registered_object(f"deepmatch_ext>{name}") is not None, name
"""


@pytest.mark.slow
@pytest.mark.once
def test_plain_parts_need_no_tensorflow(tmp_path):
    """A fresh process that reads, splits and measures imports no TensorFlow, until it asks for what needs it."""
    script = """
        import io, pathlib, pickle, sys
        import numpy as np
        import pandas as pd
        from deepmatch_ext.data import Interactions, Split, find_leaks, leave_last_out, read_dataset, split_by_time
        from deepmatch_ext.data import IdMap, seen_before, synthetic_interactions, user_histories, windows
        from deepmatch_ext.evaluation import Markov, Popularity, evaluate, evaluate_vectors, likeness, ranking_metrics
        from deepmatch_ext.evaluation import popular_share, target_ranks, write_projector
        from deepmatch_ext.retrieval import Vectors, read_vectors

        pathlib.Path("events.csv").write_text("user_id,item_id,timestamp\\n" + "".join(
            f"{user},{item},{time}\\n" for user in "ab" for time, item in enumerate([1, 2, 3, user == "a"])
        ))
        x = read_dataset("events.csv").interactions
        x = pickle.loads(pickle.dumps(x))
        assert Interactions.from_frame(pd.read_csv("events.csv")).items.tolist() == x.items.tolist()
        split = leave_last_out(x)
        split_by_time(x, 2, 3)
        columns = windows(x, split.test, 3)
        assert find_leaks(split, item_count=x.item_counts(split.train)).serious == ()
        user_histories(x, [1, 2], 3)
        seen, targets = seen_before(x, split.validation), x.items[split.validation]
        popularity = Popularity(x.item_counts(split.train))
        last = x.items[split.validation - 1]
        for score in (popularity.score, Markov.from_interactions(x, split.train).score):
            evaluate(lambda start, stop: score(last[start:stop]), targets, seen=seen)
        users, items = np.ones((2, 4)), np.ones((x.item_vocabulary_size, 4))
        evaluate_vectors(users, items, targets, seen=seen)
        likeness(users, items)
        popular_share(np.array([[1], [2]]), popularity.item_counts)
        write_projector("projector", items)
        synthetic_interactions(20, 30, mean_length=6, num_genres=3)
        loaded = [name for name in sys.modules if name.split(".")[0] in ("tensorflow", "keras", "tf_keras")]
        assert not loaded, loaded[:5]

        import deepmatch_ext
        from deepmatch_ext import data, evaluation
        assert "tensorflow" not in sys.modules
        for package in (deepmatch_ext, data, evaluation):
            assert set(package.__all__) <= set(dir(package))
            assert not hasattr(package, "no_such_name")
        assert "tensorflow" not in sys.modules
        assert data.window_dataset.__name__ == "window_dataset"
        assert "tensorflow" in sys.modules
        exec(sys.argv[1])
        import deepmatch_ext.retrieval.top_n
        for package in (deepmatch_ext, data, evaluation, deepmatch_ext.retrieval):
            for name in package.__all__:
                getattr(package, name)
        assert callable(deepmatch_ext.retrieval.top_n)
        assert "deepctr" not in sys.modules  # which would look for an update
        print("plain")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), REGISTERED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.strip().endswith("plain"), done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(
    "imports",
    [
        """
import sys
tensorflow = sys.modules.pop("tensorflow", None)  # as before a process has imported it
from deepmatch_ext.data import Interactions
assert "tensorflow" not in sys.modules and "deepmatch_ext.models" not in sys.modules
if tensorflow:
    sys.modules["tensorflow"] = tensorflow
from deepmatch_ext.layers import custom_objects
""",
        "import tensorflow; from deepmatch_ext.data import Interactions",
    ],
    ids=["layers after data", "data after tensorflow"],
)
def test_what_loads_tensorflow_makes_all_classes_known_to_keras(imports):
    done = run_python("-c", f"{imports}\n{REGISTERED}print('registered')")
    assert done.stdout.strip().endswith("registered"), done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.smoke
def test_import_leaves_the_process_as_it_was():
    """No thread, no socket, no seed, no log level, no eager mode."""
    script = """
        import logging, random, socket, sys, threading, warnings
        import numpy as np
        import tensorflow as tf

        warnings.simplefilter("error")
        assert not [name for name in sys.modules if name.startswith("deepmatch_ext")]

        def refuse(*args, **kwargs):
            raise AssertionError("a socket was opened")

        socket.socket.connect = socket.getaddrinfo = refuse
        random.seed(1), np.random.seed(1), tf.random.set_seed(1)
        before = [random.getstate(), np.random.get_state()[1].tolist(), tf.random.get_global_generator().state.numpy()]
        levels = [logging.getLogger().level, tf.get_logger().level]
        threads = threading.active_count()

        import deepmatch_ext

        after = [random.getstate(), np.random.get_state()[1].tolist(), tf.random.get_global_generator().state.numpy()]
        assert before[:2] == after[:2] and (before[2] == after[2]).all()
        assert levels == [logging.getLogger().level, tf.get_logger().level]
        assert threads == threading.active_count()
        assert tf.executing_eagerly()
        assert tf.keras.mixed_precision.global_policy().name == "float32"
        print("as it was")
    """
    done = run_python("-c", textwrap.dedent(script))
    assert done.stdout.strip() == "as it was", done.stderr[-2000:]


@pytest.mark.slow
def test_a_mixed_state_of_two_keras_versions_is_refused():
    pytest.importorskip("tf_keras")
    script = """
        import os
        import tensorflow as tf
        os.environ["TF_USE_LEGACY_KERAS"] = "1"  # too late
        import deepmatch_ext
    """
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False, env=environment
    )
    assert "ImportError: TensorFlow is in a mixed state" in done.stderr, done.stderr[-2000:]


def test_what_is_no_module_is_installed_too():
    config = configparser.ConfigParser()
    config.read(ROOT.parent / "setup.cfg")
    named = {
        ROOT.parent.joinpath(*package.split("."), name)
        for package, names in config["options.package_data"].items()
        for name in names.split()
    }
    others = {path for path in ROOT.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert named == others


def test_a_missing_package_is_named_as_its_extra_names_it():
    config = configparser.ConfigParser()
    config.read(ROOT.parent / "setup.cfg")
    calls = [
        [argument.value for argument in node.args[1:]]
        for path in ROOT.rglob("*.py")
        if "missing_extra" in (text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "missing_extra"
    ]
    assert {extra for _, extra in calls} == {
        *("baselines", "faiss", "onnx", "parquet", "pgvector", "report", "scann", "serve", "spark")
    }
    for packages, extra in calls:
        lines = config["options.extras_require"][extra].split()
        for package in packages.split():
            assert any(line.startswith(package + ">") for line in lines)
    assert str(missing_extra("FaissIndex", "faiss-cpu", "faiss")) == (
        'FaissIndex needs faiss-cpu: pip install "faiss-cpu", or from a clone of deepmatch_ext '
        'pip install -e ".[faiss]"'
    )
