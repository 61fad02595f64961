"""DeepCTR on Keras 3: off unless called; models train, reload in a fresh process, and predict what tf-keras predicts.

The call changes the imported deepctr, so it is made in processes of their own. A few models are tried here; all of
them are by benchmarks/deepctr_models.py, by hand, and DeepCTR's own tests by benchmarks/deepctr_suite.py.
"""

import importlib.util
import json
import pathlib
import re
import textwrap

import numpy as np
import pytest

from deepmatch_ext._keras import KERAS_3
from tests.fresh import run_python

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
MODELS = ROOT / "benchmarks" / "deepctr_models.py"
PAGE = ROOT / "docs" / "deepctr-on-keras-3.md"
keras_3 = pytest.mark.skipif(not KERAS_3, reason="there is nothing to mend")

# What tf-keras predicts at weights that depend on the weights' names alone: the first rows, all outputs.
TF_KERAS_PREDICTS = {
    "DeepFM": [[0.8662529], [0.7548320], [0.8150863], [0.8619927]],
    "DIEN AUGRU": [[0.5871375], [0.6645268], [0.6066772], [0.7128251]],
    "MMOE": [[0.7026992, 0.5267925], [0.6020505, 0.4566525], [0.5867185, 0.4566525], [0.5987759, 0.4566525]],
}


def python(*arguments):
    done = run_python(*arguments)
    return done.returncode, done.stdout, done.stderr


def take(step, folder):
    """One step of benchmarks/deepctr_models.py with a few models, in a process: model -> what went wrong."""
    _, _, complaints = python(MODELS, step, folder, *TF_KERAS_PREDICTS)
    result = folder / f"{step}.json"
    assert result.exists(), complaints[-2000:]
    return json.loads(result.read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of models that were trained and saved, and what went wrong there."""
    folder = tmp_path_factory.mktemp("models")
    return folder, take("train", folder)


@pytest.fixture(scope="module")
def reloaded(trained):
    return take("reload", trained[0])


@pytest.mark.once
@keras_3
def test_the_page_runs(tmp_path):
    """The code of docs/deepctr-on-keras-3.md, in a process of its own."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    done = run_python("-c", "\n".join(blocks), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.once
@keras_3
@pytest.mark.parametrize("case", TF_KERAS_PREDICTS)
def test_a_model_trains_and_saves(case, trained):
    """With strings as NumPy arrays and labels of shape (B,); no weight appears only in training."""
    assert case not in trained[1], trained[1][case]


@pytest.mark.once
@keras_3
@pytest.mark.parametrize("case", TF_KERAS_PREDICTS)
def test_a_model_reloads_in_a_fresh_process(case, reloaded):
    """Whole, without custom objects and in safe mode; and by its weights."""
    assert case not in reloaded, reloaded[case]


@(pytest.mark.once if KERAS_3 else pytest.mark.slow)  # on Keras 3, of models that were trained
@pytest.mark.parametrize("case", TF_KERAS_PREDICTS)
def test_at_equal_weights_predictions_are_tf_keras_s(case, request, tmp_path):
    if KERAS_3:
        folder = request.getfixturevalue("trained")[0]
    elif case.startswith("DIEN"):
        pytest.skip("does not run in eager mode there")
    else:
        folder = tmp_path
        spec = importlib.util.spec_from_file_location("deepctr_models", MODELS)
        deepctr_models = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(deepctr_models)
        deepctr_models.predict(case, folder)
    rows = np.load(folder / f"{case}.given.npy")[: len(TF_KERAS_PREDICTS[case])]
    np.testing.assert_allclose(rows, TF_KERAS_PREDICTS[case], atol=1e-6)


# What the call does, step by step, in one process.

STEPS = """
    import importlib, json, pathlib, pkgutil, sys
    from unittest import mock
    import numpy as np
    import tensorflow as tf

    with mock.patch("threading.Thread.start"):
        import deepctr
    from deepctr.feature_column import DenseFeat, SparseFeat
    from deepctr.models import DeepFM

    def state():
        '''Everything in DeepCTR's modules and classes, and what is in their dictionaries.'''
        found = {}
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == "deepctr":
                for key, thing in vars(module).items():
                    if not key.startswith("__"):
                        found[name, key] = dict(thing) if isinstance(thing, dict) else thing
                        if isinstance(thing, type) and thing.__module__ == name:
                            found.update({(name, key, inner): value for inner, value in vars(thing).items()})
        return found

    columns = [SparseFeat("user", 5, 4), DenseFeat("age", 1)]
    x = {"user": np.arange(20) % 5, "age": np.linspace(0, 1, 20)}
    y = (np.arange(20) % 3 == 0).astype("float32")
    result = {}

    before = state()
    import deepmatch_ext
    from deepmatch_ext import compat
    result["importing leaves it alone"] = state() == before
    try:
        DeepFM(columns, columns)
        result["DeepFM"] = "works"
    except Exception as error:
        result["DeepFM"] = f"{type(error).__name__}: {error}"

    with mock.patch.object(deepctr, "__version__", "0.9.3"):
        try:
            result["0.9.3"] = compat.enable_deepctr_on_keras3()
        except ValueError as error:
            result["0.9.3"] = str(error)
    result["refusing leaves it alone"] = state() == before

    result["call"] = compat.enable_deepctr_on_keras3()
    mended = state()
    result["the call leaves it alone"] = mended == before
    result["called again"] = compat.enable_deepctr_on_keras3()
    result["the second call leaves it alone"] = state() == mended

    model = DeepFM(columns, columns)
    model.compile("adam", "binary_crossentropy", metrics=["binary_crossentropy", "accuracy"])
    figures = model.evaluate(x, y, batch_size=20, return_dict=True, verbose=0)
    result["evaluate"] = [figures["binary_crossentropy"], figures["accuracy"]]
    result["predict"] = model.predict(x, verbose=0)[:, 0].tolist()

    folder = pathlib.Path(sys.argv[1])
    if result["call"]:
        rng = np.random.default_rng(0)
        sequence, scores = rng.normal(size=(4, 5, 3)), rng.random((4, 5, 1))
        lengths = np.array([[5], [3], [1], [0]])
        inputs = [tf.constant(sequence, tf.float32), tf.constant(lengths), tf.constant(scores, tf.float32)]
        arrays = {"sequence": sequence, "lengths": lengths, "scores": scores}
        for kind in ("GRU", "AGRU", "AUGRU"):
            gru = deepctr.layers.DynamicGRU(2, gru_type=kind, return_sequence=True)
            last = deepctr.layers.DynamicGRU(2, gru_type=kind, return_sequence=False)
            given = inputs[:2] if kind == "GRU" else inputs
            gru(given), last(given)
            weights = [rng.normal(size=weight.shape) for weight in gru.weights]
            gru.set_weights(weights), last.set_weights(weights)
            arrays.update({f"{kind} {weight.name}": value for weight, value in zip(gru.weights, weights)})
            arrays[f"{kind} states"], arrays[f"{kind} last"] = gru(given), last(given)
        np.savez(folder / "gru.npz", **arrays)
    (folder / "result.json").write_text(json.dumps(result))
"""


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    status, _, complaints = python("-c", textwrap.dedent(STEPS), folder)
    assert status == 0, complaints[-2000:]
    return folder, json.loads((folder / "result.json").read_text())


@pytest.mark.smoke
def test_importing_this_package_leaves_deepctr_alone(steps):
    assert steps[1]["importing leaves it alone"]


@pytest.mark.smoke
def test_it_is_off_unless_called(steps):
    if KERAS_3:
        # DeepCTR's own `self.add_weight('linear_kernel', shape=...)`: what Keras 3 takes first is the shape.
        assert "add_weight" in steps[1]["DeepFM"]
    else:
        assert steps[1]["DeepFM"] == "works"


@pytest.mark.smoke
def test_a_version_that_was_not_tested_is_refused_by_name(steps):
    if KERAS_3:
        assert (
            "be 0.9.4, the versions that were tested on Keras 3; got 0.9.3. Install deepctr==0.9.4"
            in (steps[1]["0.9.3"])
        )
    else:
        assert steps[1]["0.9.3"] is False  # nothing is done, so any version will do
    assert steps[1]["refusing leaves it alone"]


@pytest.mark.smoke
def test_it_acts_on_keras_3_alone(steps):
    assert steps[1]["call"] == steps[1]["called again"] == KERAS_3
    assert steps[1]["the call leaves it alone"] != KERAS_3


@pytest.mark.smoke
def test_a_second_call_changes_nothing(steps):
    assert steps[1]["the second call leaves it alone"]


@pytest.mark.smoke
def test_metrics_of_labels_in_one_dimension(steps):
    p, y = np.array(steps[1]["predict"]), np.arange(20) % 3 == 0
    expected = [-np.mean(np.where(y, np.log(p), np.log(1 - p))), np.mean((p > 0.5) == y)]
    np.testing.assert_allclose(steps[1]["evaluate"], expected, atol=1e-5)


@keras_3
@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["GRU", "AGRU", "AUGRU"])
def test_dien_s_recurrent_layers_follow_the_paper(kind, steps):
    """Zhou et al., DIEN, 2019: equations 2 to 5 and 12 to 16; here in NumPy, one row and one step after another."""
    arrays = np.load(steps[0] / "gru.npz")
    gates_kernel, gates_bias, kernel, bias = (
        arrays[f"{kind} {name}"] for name in ("gates_kernel", "gates_bias", "candidate_kernel", "candidate_bias")
    )
    states = np.zeros((4, 5, 2))
    last = np.zeros((4, 1, 2))
    for row, length in enumerate(arrays["lengths"][:, 0]):
        h = np.zeros(2)
        for t in range(length):
            x, a = arrays["sequence"][row, t], arrays["scores"][row, t, 0]
            gates = 1 / (1 + np.exp(-(np.concatenate([x, h]) @ gates_kernel + gates_bias)))
            r, u = gates[:2], gates[2:]
            candidate = np.tanh(np.concatenate([x, r * h]) @ kernel + bias)
            # TensorFlow's update gate keeps the state, and the paper's lets the candidate in; so does the attention.
            keep = {"GRU": u, "AGRU": 1 - a, "AUGRU": (1 - a) * u}[kind]
            h = keep * h + (1 - keep) * candidate
            states[row, t] = h
        last[row] = h
    np.testing.assert_allclose(arrays[f"{kind} states"], states, atol=1e-6)
    np.testing.assert_allclose(arrays[f"{kind} last"], last, atol=1e-6)


@keras_3
@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (
            {"deepctr": "0.9.3", "module": "deepctr.models.ccpm", "line": 60},
            r"one of deepctr 0\.9\.3\. Install deepctr==",
        ),
        ({"deepctr": "0.9.4", "module": "deepctr.models.ccpm", "line": 1}, r"line 1 of deepctr\.models\.ccpm"),
        (
            {"deepctr": "0.9.4", "module": "deepctr.utils", "line": 21},
            r"line 21 of deepctr\.utils",
        ),  # would ask a package index
        ({"deepctr": "0.9.4", "module": "os", "line": 1}, "line 1 of os"),
    ],
)
def test_a_file_can_name_functions_of_this_deepctr_s_models_only(function, complaint):
    from deepmatch_ext.compat._model import PlacedLambda

    with pytest.raises(ValueError, match=complaint):
        PlacedLambda.from_config({"function": function})


@keras_3
def test_a_function_of_deepctr_is_saved_as_its_place():
    """A named one, which FGCNN uses, as well as lambdas."""
    from deepctr.models import fgcnn

    from deepmatch_ext.compat._model import PlacedLambda

    config = PlacedLambda(fgcnn.unstack, name="unstack").get_config()
    assert json.loads(json.dumps(config)) == config
    # (B, fields, D) is taken apart into the fields, (B, 1, D) each.
    fields = PlacedLambda.from_config(config).function(np.arange(12.0).reshape(2, 3, 2))
    assert [field.numpy().tolist() for field in fields] == [
        [[[0, 1]], [[6, 7]]],
        [[[2, 3]], [[8, 9]]],
        [[[4, 5]], [[10, 11]]],
    ]
