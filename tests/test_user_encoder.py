"""The user encoder as one file, by the runtimes that read it: TFLite's own interpreter, and onnxruntime."""

import sys

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN, models, serving
from deepmatch_ext.models import ComiRec
from deepmatch_ext.serving import export_user_encoder
from tests.helpers import MAX_LEN, VOCABULARY, history_column, item_column

pytestmark = pytest.mark.filterwarnings("ignore:.*Warning. tf.lite.Interpreter is deprecated:UserWarning")


def tflite(path):
    """The file's signature as a function of NumPy arrays."""
    return tf.lite.Interpreter(str(path)).get_signature_runner()


def onnx(path):
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda **inputs: {"user_vector": session.run(["user_vector"], inputs)[0]}


READERS = {".tflite": tflite, ".onnx": onnx}


@pytest.fixture(params=READERS)
def suffix(request):
    if request.param == ".onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    return request.param


def of_every_length(seed=1):
    """Histories of 0, 1, ..., MAX_LEN items, the first of a user who has none."""
    lengths = np.arange(MAX_LEN + 1, dtype=np.int32)[:, None]
    history = np.random.default_rng(seed).integers(1, VOCABULARY, (MAX_LEN + 1, MAX_LEN)).astype(np.int32)
    return {"hist_item": history * (np.arange(MAX_LEN) < lengths), "hist_len": lengths}


def assert_vectors(path, model, users, names=None):
    """The file gives the model's vectors of all users at once and of each alone."""
    encode, expected = READERS[path.suffix](path), model.user_vectors(users)
    named = {(names or {}).get(name, name): values for name, values in users.items()}
    each = [slice(row, row + 1) for row in range(len(expected))]
    for some in [slice(None), *each]:
        vectors = encode(**{name: values[some] for name, values in named.items()})["user_vector"]
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected[some], atol=1e-5)


@pytest.mark.slow
def test_vectors_of_histories_of_every_length(trained, suffix, tmp_path):
    path = export_user_encoder(trained[0], tmp_path / f"user{suffix}")
    users = of_every_length()
    assert_vectors(path, trained[0], users)
    for unknown in (-1, VOCABULARY):
        users["hist_item"][2, 0] = unknown
        with pytest.raises(Exception, match=r"out of (data )?bounds"):
            READERS[suffix](path)(**users)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.slow
@pytest.mark.once
def test_every_kind_of_user_feature_every_pooling_and_several_interests(suffix, tmp_path):
    columns = [
        history_column("recency"),
        VarLenSparseFeat(SparseFeat("genres", 9, 4, dtype="int64"), 3, "mean+sum+max+sqrtn+last+recency:0.5"),
        VarLenSparseFeat(SparseFeat("tags", 9, 4), 3, "mean", "tags_len", "weights"),
        SparseFeat("性别", 3, 4),
        DenseFeat("age", 2),
    ]
    model = ComiRec(columns, [item_column()], user_dnn_hidden_units=(8,))
    rng = np.random.default_rng(2)
    rows = MAX_LEN + 1
    users = {
        **of_every_length(),
        "genres": rng.integers(0, 9, (rows, 3)),
        "tags": rng.integers(0, 9, (rows, 3)).astype(np.int32),
        "tags_len": np.full((rows, 1), 3, np.int32),
        "weights": rng.random((rows, 3, 1), np.float32),
        "性别": rng.integers(0, 3, (rows, 1)).astype(np.int32),
        "age": rng.normal(size=(rows, 2)).astype(np.float32),
    }
    names = serving._arguments(users)
    assert names["age"] == "age"
    assert names["性别"].isascii()
    path = export_user_encoder(model, tmp_path / f"user{suffix}")
    assert_vectors(path, model, users, names)


FEW = {"num_blocks": 1, "num_heads": 1}
TIMES = {"history_times": "hist_time", "request_time": "time"}


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(
    ("builder", "arguments", "refused"),  # the last as the table of docs/serving.md says
    [
        (models.DSSM, {"user_dnn_hidden_units": (8,), "item_dnn_hidden_units": (8,)}, []),
        (models.FM, {}, []),
        (models.NCF, {}, []),
        (models.MIND, {}, []),
        (models.MIND, {"dynamic_k": True}, [".tflite"]),
        (models.SequenceDNN, {}, []),
        (models.SequenceDNN, TIMES, []),
        (models.SASRec, {**FEW, **TIMES}, []),
        (models.HSTU, FEW, []),
        (models.SRGNN, {}, [".onnx"]),
        (models.GRU4Rec, {}, [".tflite"]),
        (models.SDM, {"units": 8, "num_head": 2, "short_history": 3}, [".tflite"]),
        (models.ComiRec, {"interest_extractor": "dr"}, []),
        (YoutubeDNN, {"loss": "logistic"}, []),
        (YoutubeDNN, {"table_dtype": "bfloat16"}, [".tflite"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_vectors_of_other_models(builder, arguments, refused, suffix, tmp_path):
    columns, users = [history_column()], of_every_length()
    if "request_time" in arguments:
        columns += [DenseFeat("hist_time", MAX_LEN, "int64"), DenseFeat("time", 1, "int64")]
        users["time"] = np.full((len(users["hist_item"]), 1), 10**9)
        users["hist_time"] = users["time"] - np.cumsum(np.arange(1, MAX_LEN + 1) ** 5)
    model = builder(columns, [item_column()], **arguments)
    for layer in model.layers if "request_time" in arguments else ():  # what is learnt of the time begins with zeros
        weights = layer.get_weights()
        layer.set_weights(
            [each if each.any() else np.sin(np.arange(each.size)).reshape(each.shape) for each in weights]
        )
    if suffix in refused:
        with pytest.raises(ValueError, match=r"The (ONNX|TFLite) file must|The model must"):
            export_user_encoder(model, tmp_path / f"user{suffix}")
        assert not [*tmp_path.iterdir()]
        return
    path = export_user_encoder(model, tmp_path / f"user{suffix}")
    assert_vectors(path, model, users)


@pytest.mark.slow
@pytest.mark.once
def test_a_model_of_mixed_float16_is_refused(suffix, tmp_path):
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = YoutubeDNN([history_column()], [item_column()], user_dnn_hidden_units=(8,))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    with pytest.raises(ValueError, match=r"The (ONNX|TFLite) file must|The model must"):
        export_user_encoder(model, tmp_path / f"user{suffix}")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("user.pb", r"The suffix of `path` must be one of .*\.tflite.*got '\.pb'"),
        ("", "`path` must be a path; got ''"),
        ("folder.tflite", "`path` must be a file or not exist yet; got the folder"),
    ],
)
def test_paths_that_cannot_be_used(trained, tmp_path, path, message):
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(ValueError, match=message):
        export_user_encoder(trained[0], tmp_path / path if path else path)


def test_what_is_no_model_of_a_builder(tmp_path):
    with pytest.raises(ValueError, match="`model` must be what a builder such as YoutubeDNN returns; got list"):
        export_user_encoder([], tmp_path / "user.tflite")


@pytest.mark.parametrize(
    "column",
    [
        SparseFeat("city", 9, 4, use_hash=True, dtype="string"),
        VarLenSparseFeat(SparseFeat("city", 9, 4, use_hash=True), 3, "mean"),
    ],
)
def test_hashed_columns_are_refused(tmp_path, column):
    model = YoutubeDNN([history_column(), column], [item_column()], user_dnn_hidden_units=(8,))
    message = "The user column 'city' must take ids, since TFLite has no operation that hashes .* got a hashed column"
    with pytest.raises(ValueError, match=message):
        export_user_encoder(model, tmp_path / "user.tflite")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("failure", ["other vectors", "no number", "another shape", "does not run"])
def test_a_file_that_does_not_give_the_model_s_vectors_is_not_written(trained, tmp_path, monkeypatch, failure):
    model, _ = trained

    def run(content, arrays):
        vectors = model.user_vectors(arrays)
        if failure == "does not run":
            raise RuntimeError("gather index out of bounds")
        changed = {"other vectors": vectors + 2e-5, "no number": vectors * np.nan, "another shape": vectors[:1]}
        return {"user_vector": changed[failure]}

    monkeypatch.setitem(serving.FORMATS, ".tflite", serving.Exchange("TFLite", lambda function, specs: b"new", run))
    path = tmp_path / "user.tflite"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="The TFLite file must "):
        export_user_encoder(model, path)
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_missing_extra_is_named(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r'pip install "tf2onnx" "onnxruntime".*\[onnx\]'):
        export_user_encoder(trained[0], tmp_path / "user.onnx")
