"""Files: what every Keras wrote is read here, with equal vectors; what can't be read is refused with a reason."""

import importlib.util
import json
import pathlib
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat

import deepmatch_ext
from deepmatch_ext import YoutubeDNN
from deepmatch_ext._keras import KERAS_3
from deepmatch_ext.samplers import FrequencySampler, InBatchSampler, UniformSampler
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import DIM, VOCABULARY, history_column, item_column, small_input, small_model

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
WRITERS = sorted(path.name.split(".")[0] for path in FIXTURES.glob("*.tar.xz"))

_spec = importlib.util.spec_from_file_location("make_fixtures", FIXTURES / "make.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """writer -> the folder of what it wrote."""
    folders = {}
    for writer in WRITERS:
        folders[writer] = tmp_path_factory.mktemp(writer)
        with tarfile.open(FIXTURES / f"{writer}.tar.xz") as archive:
            archive.extractall(folders[writer], filter="data")
    return folders


def assert_expected(model, folder):
    expected = np.load(folder / "vectors.npz")
    np.testing.assert_allclose(model.user_vectors(make.model_input()), expected["users"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(model.item_vectors(), expected["items"], atol=1e-6, rtol=0)


def test_there_are_files_of_every_keras():
    assert WRITERS == ["keras2", "keras3", "tf_keras"]


# Keras 3 says so of the state of another Keras's optimizer; the vectors are whole.
@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_models_file_is_read_whichever_keras_wrote_it(written, writer):
    model = tf.keras.models.load_model(written[writer] / "model.keras")
    assert_expected(model, written[writer])
    model.run_eagerly = True
    model.fit(make.model_input(), verbose=0)  # its compilation came along, and the sampler's counts


@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.parametrize("writer", WRITERS)
def test_weights_alone_are_read_whichever_keras_wrote_them(written, writer):
    model = make.build()
    model.load_weights(written[writer] / "model.weights.h5")
    assert_expected(model, written[writer])


@pytest.mark.smoke
@pytest.mark.parametrize("writer", WRITERS)
def test_an_exported_user_encoder_is_read_whichever_keras_wrote_it(written, writer):
    loaded = tf.saved_model.load(str(written[writer] / "encoder"))
    vectors = encoded(loaded, make.model_input())
    np.testing.assert_allclose(vectors, np.load(written[writer] / "vectors.npz")["users"], atol=1e-6, rtol=0)


def encoded(loaded, x):
    serve = loaded.signatures["serving_default"]
    names = serve.structured_input_signature[1]
    (vectors,) = serve(**{name: tf.constant(x[name].reshape(len(x[name]), -1)) for name in names}).values()
    return vectors


@pytest.mark.slow
@pytest.mark.smoke
def test_a_users_encoder_is_exported_and_read_again(trained, tmp_path):
    model, x = trained
    tf.keras.Model(model.user_input, model.user_emb).export(str(tmp_path / "encoder"))
    vectors = encoded(tf.saved_model.load(str(tmp_path / "encoder")), x)
    np.testing.assert_allclose(vectors, model.user_vectors(x), atol=1e-6, rtol=0)


def changed_file(model, path, change):
    """The model's file with ``change(config)`` made to its builder's config."""
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config["config"])
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config.update(format=2),
            r"The saved model must have format 1, which deepmatch_ext .* reads; got 2\. Another version",
        ),
        (lambda config: config.update(format="x"), r"The saved model must have format 1, .*; got 'x'\."),
        (lambda config: config.pop("format"), r"The saved model must have format 1, .*; got None\."),
        (
            lambda config: config.update(builder="NoSuchModel"),
            r"The saved model's builder must be one of \[.*'YoutubeDNN'.*\]; got 'NoSuchModel'\. .* upgrade",
        ),
    ],
)
def test_a_file_of_another_version_is_refused(trained, tmp_path, change, message):
    path = changed_file(trained[0], tmp_path / "model.keras", change)
    with pytest.raises(ValueError, match=message):
        tf.keras.models.load_model(path)


def test_a_setting_that_this_version_does_not_know_is_refused(trained, tmp_path):
    path = changed_file(trained[0], tmp_path / "model.keras", lambda config: config["arguments"].update(item_towers=2))
    message = (
        r"The saved model's settings must be arguments of YoutubeDNN in deepmatch_ext .*; got also \['item_towers'\]"
    )
    with pytest.raises(ValueError, match=message):
        tf.keras.models.load_model(path)


def test_no_code_is_in_a_models_file(trained, tmp_path):
    trained[0].save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = archive.read("config.json").decode()
    assert "__lambda__" not in config
    assert json.loads(config)["config"]["format"] == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(trained, tmp_path, share):
    model, _ = trained
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
    with pytest.raises((ValueError, OSError)):  # in Keras's words
        tf.keras.models.load_model(tmp_path / "model.keras")
    before = model.get_weights()
    with pytest.raises(OSError, match=r"model.weights.h5' must be a whole file of weights; it is damaged .* Save the"):
        model.load_weights(tmp_path / "model.weights.h5")
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(FileNotFoundError, match=r"There is no file of weights '.*other.weights.h5'"):
        model.load_weights(tmp_path / "other.weights.h5")


def two_tables(first, second, size=9):
    return YoutubeDNN([history_column(), SparseFeat(first, size, 4), SparseFeat(second, size, 4)], [item_column()])


def other_sampler():
    return small_model(sampler_config=UniformSampler(5))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make_one", "make_other", "message"),
    [
        (
            lambda: two_tables("a", "b"),
            lambda: two_tables("a", "c"),
            r"none for the layers \['table_c'\], .*\['table_b'\]",
        ),
        (lambda: two_tables("a", "b"), lambda: two_tables("a", "b", 10), r"layer 'table_a' must be .*10, 4.*got.*9, 4"),
        (lambda: small_model(sampler_config=None), other_sampler, r"for layer 'candidates' must be"),
        (small_model, lambda: small_model(user_dnn_hidden_units=(8, DIM)), r"for layer 'user_dense_1' must be"),
    ],
)
def test_weights_of_another_model_are_refused(make_one, make_other, message, tmp_path):
    """Among them those of equal shapes, which Keras reads without a word: it goes by a layer's number, not its name."""
    one, model = make_one(), make_other()
    one.save_weights(tmp_path / "model.weights.h5")
    one.save(tmp_path / "model.keras")  # `load_weights` takes such a file, too
    before = model.get_weights()
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=message) as refusal:
            model.load_weights(path)
        assert "Build the model with the columns" in str(refusal.value)
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_out_of_a_whole_models_file(trained, tmp_path):
    model, x = trained
    path = tmp_path / "model.keras"
    model.save(path)
    again = small_model()
    again.load_weights(path)
    np.testing.assert_array_equal(again.user_vectors(x), model.user_vectors(x))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match=r"model.keras' must be a whole file of weights; it is damaged"):
        again.load_weights(path)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_a_file_keeps_its_compilation_whatever_was_written_before(trained, tmp_path):
    """As it writes an .h5 file, Keras 3 takes the optimizer out of what the model remembers of `compile`."""
    model, _ = trained
    for name in ("first.h5", "model.keras", "second.h5"):
        model.save(tmp_path / name)
    assert type(tf.keras.models.load_model(tmp_path / "model.keras").optimizer) is type(model.optimizer)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("given", ["loss", "metrics"])
def test_a_function_that_a_file_can_only_name_is_told_of(given, tmp_path):
    def own(labels, loss):
        return loss

    model, path = small_model(), tmp_path / "model.keras"
    model.compile("sgd", loss=sampledsoftmaxloss)
    model.save(path)
    model.compile("sgd", **{given: own if given == "loss" else [own]})
    with pytest.warns(UserWarning, match=rf"^`{given}` of `compile` must be registered with Keras, .*'own'.* compile"):
        model.save(path)
    again = tf.keras.models.load_model(path, compile=False)
    np.testing.assert_array_equal(again.item_vectors(), model.item_vectors())


@pytest.mark.parametrize("change", [{"format": 2}, {"format": None}])
def test_weights_of_another_version_are_refused(trained, tmp_path, change):
    trained[0].save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        description = json.loads(bytes(file["deepmatch_ext"][()]))
        del file["deepmatch_ext"]
        text = json.dumps({**description, **change}).encode()
        file.create_dataset("deepmatch_ext", data=np.frombuffer(text, np.uint8))
    with pytest.raises(ValueError, match=r"The weights in '.*' must have format 1, .*; got (2|None)\. Another version"):
        small_model().load_weights(tmp_path / "model.weights.h5")


def test_a_save_that_fails_leaves_the_former_file_and_nothing_else(trained, tmp_path, monkeypatch):
    model, x = trained
    expected = model.user_vectors(x)
    path, weights = tmp_path / "model.keras", tmp_path / "model.weights.h5"
    model.save(path)
    model.save_weights(weights)
    former = [path.read_bytes(), weights.read_bytes()]

    def fail(*args, **kwargs):
        raise OSError("no space left")

    # In the midst of it: the config is written by then, the weights are not.
    monkeypatch.setattr(type(model.get_layer("user_emb")), "save_own_variables", fail, raising=False)
    for save in (lambda: model.save(path), lambda: model.save_weights(weights)):
        with pytest.raises(OSError, match="no space left"):
            save()
    assert sorted(tmp_path.iterdir()) == [path, weights]
    assert [path.read_bytes(), weights.read_bytes()] == former
    np.testing.assert_array_equal(tf.keras.models.load_model(path).user_vectors(x), expected)


def test_a_link_to_a_file_stays_one(trained, tmp_path):
    (tmp_path / "link.keras").symlink_to(tmp_path / "model.keras")
    trained[0].save(tmp_path / "link.keras")
    assert (tmp_path / "link.keras").is_symlink()
    assert not (tmp_path / "model.keras").is_symlink()
    tf.keras.models.load_model(tmp_path / "link.keras")


@pytest.mark.skipif(KERAS_3, reason="Keras 3 has no such formats")
def test_tensorflows_own_formats_are_left_to_keras(trained, tmp_path):
    model, x = trained
    model.save_weights(tmp_path / "checkpoint")
    again = small_model()
    again.load_weights(tmp_path / "checkpoint").expect_partial()
    np.testing.assert_array_equal(again.user_vectors(x), model.user_vectors(x))


COUNTS = np.arange(VOCABULARY)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "how"), [(FrequencySampler(5, COUNTS), "from_config"), (InBatchSampler(COUNTS), "clone_model")]
)
def test_a_rebuilt_model_without_its_weights_does_not_train_with_counts_that_it_has_not(sampler, how):
    model, x = small_model(sampler_config=sampler), small_input(32)
    again = type(model).from_config(model.get_config()) if how == "from_config" else tf.keras.models.clone_model(model)
    again.compile("adam", deepmatch_ext.utils.sampledsoftmaxloss, run_eagerly=True)
    before = [weight.numpy() for weight in again.trainable_weights]
    labels = np.zeros((32, 1))
    tensors = {name: tf.constant(values.reshape(32, -1)) for name, values in x.items()}
    for train in (lambda: again.fit(tensors, labels, verbose=0), lambda: again.train_on_batch(tensors, labels)):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"candidates: the counts of the sampler must be loaded first"
        ):
            train()
    for weight, value in zip(again.trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
    again.set_weights(model.get_weights())
    again.fit(tensors, labels, verbose=0)


def test_a_rebuilt_model_without_its_weights_has_no_item_vectors_from_features():
    model = make.build()
    again = type(model).from_config(model.get_config())
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"catalogue: the features of the items must be loaded first"
    ):
        again.item_vectors()
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again.item_vectors(), model.item_vectors())


@pytest.mark.slow
def test_a_sampler_of_ones_own_reloads_once_its_module_is_imported(tmp_path):
    class EveryOther(UniformSampler):
        name = "every_other"

        def __init__(self, num_sampled, step=2):
            super().__init__(num_sampled)
            self.step = step

        def get_config(self):
            return {**super().get_config(), "step": self.step}

    model, x = small_model(sampler_config=EveryOther(5, step=3)), small_input(32)
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    sampler = again.get_layer("candidates").sampler
    assert (type(sampler), sampler.step) == (EveryOther, 3)
    again.compile("adam", deepmatch_ext.utils.sampledsoftmaxloss, run_eagerly=True)
    again.fit(x, verbose=0)
    deepmatch_ext.samplers.base._SAMPLERS.pop("every_other")  # as in a process that has not imported it
    with pytest.raises(
        ValueError, match=r"The sampler's name must be one of .*; got 'every_other'\. .*import its module"
    ):
        tf.keras.models.load_model(tmp_path / "model.keras")


def test_samplers_of_ones_own_that_no_file_could_hold_are_refused():
    class Nameless(UniformSampler):
        pass

    with pytest.raises(ValueError, match=r"The sampler Nameless must have a `name` of its own; got 'uniform'"):
        small_model(sampler_config=Nameless(5))
    with pytest.raises(ValueError, match=r"`name` of the sampler Copy must not be that of UniformSampler"):
        type("Copy", (UniformSampler,), {"name": "uniform"})

    class Forgetful(UniformSampler):
        name = "forgetful"

        def __init__(self, power):
            super().__init__(5)

    with pytest.raises(ValueError, match=r"The sampler Forgetful must have a `get_config` of its own; .* takes power"):
        small_model(sampler_config=Forgetful(2)).get_config()
    deepmatch_ext.samplers.base._SAMPLERS.pop("forgetful")
