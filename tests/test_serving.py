"""The export against the model it came from: in this process, and in one that has TensorFlow alone."""

import functools
import json
import keyword
import re
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext import YoutubeDNN, serving
from deepmatch_ext._keras import KERAS_3
from deepmatch_ext.data import IdMap
from deepmatch_ext.features import read_columns
from deepmatch_ext.retrieval import top_n
from deepmatch_ext.serving import export_recommender
from tests.fresh import run_python
from tests.helpers import DIM, MAX_LEN, VOCABULARY, history_column, item_column, small_input, user_part

ITEMS = VOCABULARY - 1
NAMES = IdMap([f"sku-{k:03d}" for k in range(ITEMS, 0, -1)])  # not in alphabetical order


@functools.cache  # what is exported is never changed; besides, a signature does not keep the variables of the whole
def loaded(path):
    return tf.saved_model.load(str(path))


def signature(path, name):
    function = loaded(path).signatures[name]
    return lambda **inputs: {key: value.numpy() for key, value in function(**inputs).items()}


def tensors(model, x):
    """``x`` in the shapes and types of the model's inputs."""
    return {
        tensor.name: tf.cast(tf.reshape(x[tensor.name], [-1, *tensor.shape[1:]]), tensor.dtype)
        if tensor.dtype != "string"
        else tf.reshape(tf.constant(x[tensor.name]), [-1, *tensor.shape[1:]])
        for tensor in model.user_input
    }


def expected_top_n(model, x, n, seen=None):
    exclude = None
    if seen is not None:
        lists = [[int(item) for item in row if 1 <= item <= ITEMS] for row in seen]
        exclude = (np.cumsum([0, *map(len, lists)]), np.array([item for row in lists for item in row], np.int64))
    return top_n(model.user_vectors(x), model.item_vectors(), n, exclude=exclude)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    model, _ = trained
    return export_recommender(model, tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def named(trained, tmp_path_factory):
    """The same with original ids: item id k + 1 is sku number 29 - k."""
    return export_recommender(
        trained[0], tmp_path_factory.mktemp("named"), item_ids=NAMES, id_maps={"hist_item": NAMES}
    )


@pytest.fixture(scope="module")
def recommenders():
    """The functions behind an export's signatures, once some are made."""
    return []


@pytest.fixture
def traced_once(recommenders, monkeypatch):
    """Exports of the trained model, for tests of files alone, have the same signatures."""
    make = serving._Recommender

    def first(*arguments):
        if not recommenders:
            recommenders.append(make(*arguments))
        return recommenders[0]

    monkeypatch.setattr(serving, "_Recommender", first)


@pytest.fixture(scope="module")
def users():
    return user_part(small_input(20, seed=5))


@pytest.mark.slow
@pytest.mark.smoke
def test_the_user_vectors_are_the_model_s(trained, exported, users):
    vectors = signature(exported, "user_vector")(**tensors(trained[0], users))["user_vector"]
    np.testing.assert_allclose(vectors, trained[0].user_vectors(users), atol=1e-6)


@pytest.mark.parametrize("n", [1, 5, ITEMS])
def test_recommend_gives_what_top_n_gives(trained, exported, users, n):
    found = signature(exported, "recommend")(**tensors(trained[0], users), n=tf.constant(n))
    ids, scores = expected_top_n(trained[0], users, n)
    np.testing.assert_array_equal(found["item_ids"], ids)
    np.testing.assert_allclose(found["scores"], scores, atol=1e-6)
    assert found["item_ids"].dtype == np.int64
    assert found["scores"].dtype == np.float32


def test_seen_items_are_left_out_and_what_is_no_item_is_ignored(trained, exported, users):
    rng = np.random.default_rng(3)
    seen = rng.integers(1, VOCABULARY, (20, 7))
    seen[:, 3:5] = [0, 0]
    seen[0] = [-5, 10**12, -(2**63), VOCABULARY, 0, 4, 4]
    found = signature(exported, "recommend_unseen")(**tensors(trained[0], users), n=tf.constant(8), seen=seen)
    ids, _ = expected_top_n(trained[0], users, 8, seen)
    np.testing.assert_array_equal(found["item_ids"], ids)


@pytest.mark.parametrize("width", [0, 7])
def test_only_items_among_those_allowed_are_recommended(trained, exported, users, width):
    model, seen = trained[0], np.random.default_rng(3).integers(1, VOCABULARY, (20, width))
    stock = np.array([3, 9, 9, 17, 28, 0, -5, VOCABULARY, 10**12])  # repeats and what is no item are ignored
    found = signature(exported, "recommend_among")(
        **tensors(model, users), n=tf.constant(5), seen=tf.constant(seen, tf.int64), among=stock
    )
    exclude = np.arange(0, 20 * width + 1, max(width, 1)) if width else np.zeros(21, np.int64), seen.ravel()
    ids, scores = top_n(model.user_vectors(users), model.item_vectors(), 5, exclude=exclude, among=[3, 9, 17, 28])
    np.testing.assert_array_equal(found["item_ids"], ids)
    np.testing.assert_allclose(found["scores"], scores, atol=1e-6)
    nothing = signature(exported, "recommend_among")(
        **tensors(model, users), n=tf.constant(1), seen=np.zeros((20, 0), np.int64), among=[10**12]
    )
    assert not nothing["item_ids"].any()


def test_a_user_who_has_seen_everything_gets_id_0_and_minus_infinity(trained, exported, users):
    seen = np.tile(np.arange(1, VOCABULARY), (20, 1))
    seen[0, 9] = 0  # the first user has not had item 10
    found = signature(exported, "recommend_unseen")(**tensors(trained[0], users), n=tf.constant(2), seen=seen)
    assert found["item_ids"].tolist() == [[10, 0], *[[0, 0]] * 19]
    assert np.isfinite(found["scores"]).tolist() == [[True, False], *[[False, False]] * 19]


def test_no_users_give_no_rows(trained, exported, users):
    none = {name: values[:0] for name, values in tensors(trained[0], users).items()}
    found = signature(exported, "recommend")(**none, n=tf.constant(3))
    assert found["item_ids"].shape == found["scores"].shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, f"`n` must be from 1 to {ITEMS}"),
        ({"n": VOCABULARY}, f"`n` must be from 1 to {ITEMS}"),
        ({"seen": np.zeros((3, 2), np.int64)}, "`seen` must have a row for each user"),
        ({"hist_item": np.full((20, MAX_LEN), VOCABULARY)}, r"ids must lie in 0\.\.29"),
    ],
)
def test_the_signature_refuses_what_it_cannot_answer(trained, exported, users, change, message):
    inputs = {**tensors(trained[0], users), "n": 3, "seen": np.zeros((20, 2), np.int64), **change}
    inputs = {name: tf.cast(values, tf.int64 if name == "seen" else tf.int32) for name, values in inputs.items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        signature(exported, "recommend_unseen")(**inputs)


@pytest.mark.slow
def test_original_ids_in_and_out(trained, named, users):
    """The history comes as these, and one that nobody knows is id 0."""
    model, path, raw = trained[0], named, np.array(["", *NAMES.values], object)
    history = raw[users["hist_item"]]
    history[0, 0], known = "unknown", users["hist_item"].copy()
    known[0, 0] = 0
    seen = raw[users["hist_item"]]
    lengths = tf.constant(users["hist_len"][:, None])
    found = signature(path, "recommend_unseen")(
        hist_item=tf.constant(history), hist_len=lengths, n=tf.constant(5), seen=tf.constant(seen)
    )
    ids, scores = expected_top_n(model, {**users, "hist_item": known}, 5, users["hist_item"])
    np.testing.assert_array_equal(found["item_ids"].astype(str), raw[ids].astype(str))
    np.testing.assert_allclose(found["scores"], scores, atol=1e-6)
    stock = [raw[4], "unheard of", raw[8]]
    found = signature(path, "recommend_among")(
        hist_item=tf.constant(history), hist_len=lengths, n=tf.constant(2), seen=tf.constant([[""]] * 20), among=stock
    )
    assert {frozenset(row) for row in found["item_ids"].astype(str)} == {frozenset([raw[4], raw[8]])}


@pytest.mark.slow
@pytest.mark.once
def test_integers_of_one_s_own_among_which_0_is_an_item(trained, users, tmp_path):
    model, _ = trained
    own = np.arange(ITEMS) * 1000 - 2000  # -2000, -1000, 0, 1000, ...: item id 3 is called 0
    path = export_recommender(model, tmp_path, item_ids=own)
    assert json.loads((path / "manifest.json").read_text())["no_item"] == -1
    seen = np.concatenate([own[users["hist_item"][:, :1] - 1], np.full((20, 1), -1)], axis=1)
    found = signature(path, "recommend_unseen")(
        **tensors(model, users), n=tf.constant(ITEMS), seen=tf.constant(seen, tf.int64)
    )
    ids, _ = expected_top_n(model, users, ITEMS, users["hist_item"][:, :1])
    np.testing.assert_array_equal(found["item_ids"], np.array([-1, *own])[ids])
    assert (found["item_ids"] == 0).sum() >= 19  # the item; the place of what was seen has -1
    assert (found["item_ids"] == -1).sum(axis=1).tolist() == [1] * 20


@pytest.mark.slow
def test_vectors_of_a_part_of_the_catalogue(trained, users, tmp_path):
    model, _ = trained
    part = [7, 3, 20]
    path = export_recommender(model, tmp_path, item_ids=part, item_vectors=model.item_vectors()[part])
    found = signature(path, "recommend")(**tensors(model, users), n=tf.constant(3))
    scores = model.user_vectors(users) @ model.item_vectors()[part].T
    np.testing.assert_array_equal(found["item_ids"], np.array(part)[np.argsort(-scores, axis=1)])


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("int8", 1 / 254)])
def test_smaller_vectors_are_off_by_no_more_than_their_rounding(trained, users, tmp_path, dtype, error):
    model, _ = trained
    path = export_recommender(model, tmp_path, vector_dtype=dtype)
    found = signature(path, "recommend")(**tensors(model, users), n=tf.constant(ITEMS))
    vectors, items = model.user_vectors(users), model.item_vectors()[1:]
    # Each entry is rounded to float16's 11 bits, or to half of a 127th of the vector's largest; a score adds D of them.
    largest = np.abs(items) if dtype == "float16" else np.abs(items).max(axis=1, keepdims=True)
    bound = np.abs(vectors) @ (largest * error * np.ones_like(items)).T + 1e-6
    exact = vectors @ items.T
    given = np.take_along_axis(exact, found["item_ids"] - 1, axis=1)
    assert (np.abs(found["scores"] - given) <= np.take_along_axis(bound, found["item_ids"] - 1, axis=1)).all()
    assert np.abs(found["scores"] - given).max() > 1e-5  # they are smaller indeed
    assert (np.diff(found["scores"], axis=1) <= 0).all()


# What a process does that has TensorFlow alone: loads each export, and writes down what it recommends.
STRANGER = """
    import json, sys
    for name in ["deepmatch_ext", *sys.modules]:
        if name.split(".")[0] in ("deepmatch_ext", "deepctr"):
            sys.modules[name] = None  # importing it fails now
    import numpy as np, tensorflow as tf
    answers = {}
    for name, case in json.load(sys.stdin).items():
        served = tf.saved_model.load(case["path"])
        user = {name: tf.constant(values, dtype) for name, (values, dtype) in case["user"].items()}
        vectors = served.signatures["user_vector"](**user)["user_vector"]
        found = served.signatures["recommend"](**user, n=tf.constant(case["n"]))["item_ids"].numpy()
        answers[name] = {"vectors": vectors.numpy().tolist(), "ids": found.astype(str).tolist()}
    assert not {name.split(".")[0] for name, module in sys.modules.items() if module} & {"deepmatch_ext", "deepctr"}
    print(json.dumps(answers))
"""


def hashed_model(folder):
    """Strings, hashed or looked up in a file, integers hashed, a weighted history, and numbers that are transformed."""
    cities = folder / "cities.csv"
    cities.write_text("1,Lund\n2,Oslo\n3,Rome\n")
    hist = SparseFeat("hist", 40, 8, embedding_name="sku", use_hash=True, dtype="string")
    tags = SparseFeat("tags", 40, 4, use_hash=True, dtype="string")
    columns = [
        VarLenSparseFeat(hist, 4, "recency+last"),
        VarLenSparseFeat(tags, 3, "mean", "tags_len", "tags_weight"),
        SparseFeat("city", 4, 4, use_hash=True, vocabulary_path=str(cities), dtype="string"),
        SparseFeat("number", 20, 4, use_hash=True),
        DenseFeat("age", 2, transform_fn=lambda values: values / 10),
    ]
    skus = np.array([f"sku-{k}" for k in range(12)])
    user = {
        "hist": np.array([["sku-1", "sku-2", "0", "0"], ["sku-9", "0", "0", "0"], ["0"] * 4]),
        "tags": np.array([["new", "red", "0"], ["old", "0", "0"], ["0", "0", "0"]]),
        "tags_len": np.array([2, 1, 0], np.int32),
        "tags_weight": np.array([[1.0, 3.0, 0.0], [2.0, 0.0, 0.0], [0.0] * 3], np.float32)[:, :, None],
        "city": np.array(["Oslo", "Rome", "Paris"]),
        "number": np.array([7, 123456, 0], np.int32),
        "age": np.array([[30, 1], [55, 0], [18, -2]], np.float32),
    }
    model = YoutubeDNN(columns, [SparseFeat("sku", 40, 8, use_hash=True, dtype="string")])
    encoder = tf.keras.Model(model.item_input, model.item_emb)
    return model, user, skus, encoder(tf.constant(skus[:, None])).numpy(), cities


def plain(tensor):
    """Values and type of a tensor, as JSON can hold them."""
    if tensor.dtype == tf.string:
        return tensor.numpy().astype(str).tolist(), "string"
    return tensor.numpy().tolist(), tensor.dtype.name


@pytest.mark.slow
@pytest.mark.smoke
def test_in_a_process_without_this_package(trained, exported, named, users, tmp_path):
    hashed, hashed_user, skus, sku_vectors, cities = hashed_model(tmp_path)
    cases = {
        "plain": (trained[0], users, exported),
        "named": (trained[0], users, named),
        "hashed": (
            hashed,
            hashed_user,
            export_recommender(hashed, tmp_path / "hashed", item_ids=skus, item_vectors=sku_vectors),
        ),
    }
    cities.unlink()  # it came along
    orders = {
        name: {"path": str(path), "n": 5, "user": {key: plain(x) for key, x in tensors(model, x).items()}}
        for name, (model, x, path) in cases.items()
    }
    orders["named"]["user"]["hist_item"] = np.array(["", *NAMES.values])[users["hist_item"]].tolist(), "string"
    done = run_python("-c", textwrap.dedent(STRANGER), input=json.dumps(orders))
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    for name, (model, x, _) in cases.items():
        np.testing.assert_allclose(answers[name]["vectors"], model.user_vectors(x), atol=1e-6, err_msg=name)
    ids, _ = expected_top_n(trained[0], users, 5)
    assert answers["plain"]["ids"] == ids.astype(str).tolist()
    assert answers["named"]["ids"] == NAMES.decode(ids).tolist()
    best = np.argsort(-hashed.user_vectors(hashed_user) @ sku_vectors.T, axis=1, kind="stable")[:, :5]
    assert answers["hashed"]["ids"] == skus[best].tolist()


def test_an_export_holds_what_it_needs_and_no_more(exported):
    assert {path.name for path in exported.iterdir()} >= {"saved_model.pb", "variables", "manifest.json"}
    names = [name for name, _ in tf.train.list_variables(str(exported / "variables" / "variables"))]
    shapes = [shape for _, shape in tf.train.list_variables(str(exported / "variables" / "variables")) if shape]
    # The table of the history, two dense layers, the item vectors; no sampler's counts, no optimizer's moments.
    assert sorted(shapes) == sorted([[VOCABULARY, DIM], [2 * DIM, 16], [16], [16, DIM], [DIM], [ITEMS, DIM]]), names
    paths = [path for path in exported.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert json.loads((exported / "manifest.json").read_text()) == {
        "files": {str(path.relative_to(exported)): path.stat().st_size for path in paths},
        "format": 1,
        "written_by": {"deepmatch_ext": "0.1.0", "tensorflow": tf.__version__},
        "signatures": ["recommend", "recommend_among", "recommend_unseen", "user_vector"],
        "items": ITEMS,
        "dim": DIM,
        "interests": None,
        "vector_dtype": "float32",
        "item_ids": "int64",
        "no_item": 0,
        "inputs": {
            "hist_item": {
                "name": "hist_item",
                "kind": "history",
                "shape": [MAX_LEN],
                "dtype": "int32",
                "vocabulary_size": VOCABULARY,
                "padding": 0,
                "length": "hist_len",
                "weights": None,
            },
            "hist_len": {"name": "hist_len", "kind": "length", "shape": [1], "dtype": "int32"},
        },
    }


@pytest.mark.slow
@pytest.mark.once
def test_versions_are_numbered_and_never_touched(trained, exported, traced_once, tmp_path):
    model, _ = trained
    assert exported.name == "1"
    folder = tmp_path / "made" / "here"
    assert export_recommender(model, folder, version=7) == folder / "7"
    assert export_recommender(model, str(folder)) == folder / "8"
    before = (folder / "7" / "saved_model.pb").stat()
    with pytest.raises(ValueError, match=r"`version` must be new, .*; got 7, which is in"):
        export_recommender(model, folder, version=7)
    assert (folder / "7" / "saved_model.pb").stat() == before
    assert sorted(path.name for path in folder.iterdir()) == ["7", "8"]


@pytest.mark.slow
def test_a_number_that_another_export_took_meanwhile_is_left_to_it(trained, traced_once, tmp_path, monkeypatch):
    (tmp_path / "1" / "variables").mkdir(parents=True)
    too_early, look = [0], serving._highest
    monkeypatch.setattr(serving, "_highest", lambda folder: too_early.pop() if too_early else look(folder))
    assert export_recommender(trained[0], tmp_path).name == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.slow
def test_nothing_is_left_behind_when_writing_fails(trained, traced_once, tmp_path, monkeypatch):
    def full(*arguments, **options):
        tf.io.gfile.makedirs(arguments[1])
        raise OSError("No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full)
    with pytest.raises(OSError, match="No space"):
        export_recommender(trained[0], tmp_path)
    assert list(tmp_path.iterdir()) == []


# Names that no signature can have, that it would take for one, that it has itself, and that Python can't say.
NAMES_OF_COLUMNS = ["性别", "年龄", "user id", "user_id", "1st", "City", "city", "n", "self", "class", "kwargs"]


@pytest.mark.slow
@pytest.mark.once
def test_inputs_of_any_names_stay_apart(tmp_path):
    history = VarLenSparseFeat(
        SparseFeat("hist-items v2", VOCABULARY, DIM, embedding_name="item"), MAX_LEN, "mean", "len.1"
    )
    columns = [history, *(SparseFeat(name, 3, 2) for name in NAMES_OF_COLUMNS)]
    model = YoutubeDNN(columns, [item_column()], user_dnn_hidden_units=(DIM,))
    path = export_recommender(model, tmp_path)
    inputs = json.loads((path / "manifest.json").read_text())["inputs"]
    named = {about["name"]: argument for argument, about in inputs.items()}
    assert set(named) == {"hist-items v2", "len.1", *NAMES_OF_COLUMNS}
    assert len({argument.lower() for argument in inputs}) == len(inputs)
    assert inputs[named["hist-items v2"]]["length"] == named["len.1"]
    for name in ("user_id", "city", "kwargs"):
        assert named[name] == name  # what a signature can have, and nothing else wants, stays

    rng = np.random.default_rng(0)
    user = {"hist-items v2": np.array([[4, 9, 0, 0, 0, 0]]), "len.1": np.array([2])}
    user |= {name: rng.integers(0, 3, 1) for name in NAMES_OF_COLUMNS}
    given = {named[name]: tensor for name, tensor in tensors(model, user).items()}
    found = signature(path, "recommend")(**given, n=tf.constant(4))
    np.testing.assert_array_equal(found["item_ids"], expected_top_n(model, user, 4)[0])


ODD_NAMES = ["é", "è", "user-id", "user_id", "arg_1st", "_x", " ", "...", "CITY", "City", "N", "seen", "None", "a_B"]


@given(st.lists(st.sampled_from(ODD_NAMES) | st.text(min_size=1, max_size=4), unique=True, min_size=1))
def test_names_in_signatures(names):
    arguments = serving._arguments(names)
    assert arguments == serving._arguments(names[::-1])
    assert len({argument.lower() for argument in [*arguments.values(), "n", "seen"]}) == len(names) + 2
    for argument in arguments.values():
        assert re.fullmatch("[A-Za-z][A-Za-z0-9_]*", argument)
        assert not keyword.iskeyword(argument)
    alone = {name: serving._arguments([name])[name] for name in names}
    # Other columns have a say in a name's form only where letters' case alone tells them apart.
    assert all(arguments[name].startswith(alone[name]) for name in names)
    assert all(arguments[name] == alone[name] for name in names if alone[name] == alone[name].lower())


@pytest.mark.skipif(not KERAS_3, reason="Keras 2 takes them")
def test_a_name_that_keras_refuses_is_refused():
    with pytest.raises(ValueError, match=r"The names in `columns` must have no '/' in them, .*; got 'a/b'\. Rename it"):
        read_columns("columns", [SparseFeat("a/b", 9, 4)])


@pytest.mark.slow
def test_a_vector_that_is_not_finite_is_no_recommendation(tmp_path):
    model = YoutubeDNN([history_column(), DenseFeat("age", 1)], [item_column()])
    path = export_recommender(model, tmp_path)
    user = {**user_part(small_input(2)), "age": np.array([np.nan, 1], np.float32)}
    with pytest.raises(tf.errors.InvalidArgumentError, match="A user's vector must be finite"):
        signature(path, "recommend")(**tensors(model, user), n=tf.constant(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "model.keras"}, "`model` must be what a builder such as YoutubeDNN returns; got str"),
        ({"vector_dtype": "int4"}, "`vector_dtype` must be one of 'float32', 'float16', 'int8'; got 'int4'"),
        ({"version": 0}, "`version` must be an integer of at least 1"),
        ({"item_ids": ["a", "b"]}, "`item_ids` must have an id for each of the model's 29 items; got 2"),
        ({"item_ids": ["a", "a"]}, "must be unique"),
        ({"item_ids": ["a", ""]}, "`item_ids` must hold no empty string"),
        ({"item_vectors": np.ones((2, DIM))}, "`item_vectors` must come with `item_ids`"),
        ({"item_ids": [1, 2], "item_vectors": np.ones((2, 3))}, r"`item_vectors` must have shape \(2, 8\)"),
        ({"item_ids": [1, 2], "item_vectors": np.full((2, DIM), np.nan)}, "`item_vectors` must be finite; .* row 0"),
        (
            {"item_ids": [1, 2], "item_vectors": np.full((2, DIM), 1e5), "vector_dtype": "float16"},
            "item vectors must be within float16, 65504; got 100000",
        ),
        ({"id_maps": [NAMES]}, "`id_maps` must be a dictionary"),
        ({"id_maps": {"hist_len": NAMES}}, r"`id_maps\['hist_len'\]` must be for a user input of ids .*'hist_item'"),
        ({"id_maps": {"hist_item": {"a": 1}}}, r"`id_maps\['hist_item'\]` must be an IdMap; got dict"),
        ({"id_maps": {"hist_item": IdMap(range(VOCABULARY))}}, "must have at most 29 raw ids"),
        ({"id_maps": {"hist_item": IdMap(["", "a"])}}, "must hold no empty string"),
        ({"scaling": [1, 2]}, "`scaling` must be a dictionary"),
        ({"scaling": {"hist_item": (0, 1)}}, r"`scaling\['hist_item'\]` must be for a user input of numbers"),
    ],
)
def test_refuses_what_does_not_fit_before_anything_is_written(trained, tmp_path, arguments, message):
    folder = tmp_path / "export"
    with pytest.raises(ValueError, match=message):
        export_recommender(**{"model": trained[0], "folder": folder, **arguments})
    assert not folder.exists()


def test_a_file_in_the_folder_s_place_is_refused(trained, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="`folder` must be a folder; got the file"):
        export_recommender(trained[0], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_a_reloaded_model_exports_alike(trained, users, tmp_path):
    model, _ = trained
    model.save(tmp_path / "model.keras")
    path = export_recommender(tf.keras.models.load_model(tmp_path / "model.keras"), tmp_path / "export")
    found = signature(path, "recommend")(**tensors(model, users), n=tf.constant(5))
    np.testing.assert_array_equal(found["item_ids"], expected_top_n(model, users, 5)[0])
