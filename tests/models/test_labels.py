"""Models of labelled pairs: the loss `logistic`."""

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat

from deepmatch_ext import DSSM, YoutubeDNN
from deepmatch_ext._keras import keras
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import DIM, VOCABULARY, history_column, item_column, small_input

RULE = r"must hold numbers from 0 to 1: 1 where the user took the item, 0 where not; got"


@pytest.fixture(scope="module")
def pairs():
    """Half the rows have an item at random, labelled 0."""
    x, rng = small_input(512), np.random.default_rng(1)
    y = rng.integers(0, 2, 512)
    item = np.where(y, x["item"], rng.integers(1, VOCABULARY, 512)).astype("int32")
    return {**x, "item": item, "genre": item % 4 + 1}, y


@pytest.fixture(scope="module")
def model():
    """It may be trained or not. The features of an item come with it."""
    items = [item_column(), SparseFeat("genre", 5, 3)]
    model = DSSM([history_column("last")], items, (DIM,), (DIM,), loss_type="logistic")
    model.compile(keras.optimizers.Adam(0.02), metrics=["AUC"])
    return model


@pytest.fixture(scope="module")
def learnt(model, pairs):
    """After a short run on the pairs."""
    model.fit(*pairs, epochs=20, verbose=0)
    return model


@pytest.mark.slow
def test_the_output_is_the_probability_of_the_pair(learnt, pairs):
    x, y = pairs
    items = np.asarray(keras.Model(learnt.item_input, learnt.item_emb)([x["item"][:, None], x["genre"][:, None]]))
    logits = np.einsum("bd,bd->b", learnt.user_vectors(x), items) / 0.05
    expected = 1 / (1 + np.exp(-logits.astype("float64")))
    probability = learnt.predict(x, verbose=0)[:, 0]
    np.testing.assert_allclose(probability, expected, atol=1e-4)
    loss, auc = learnt.evaluate(x, y, verbose=0)
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    assert loss == pytest.approx(-np.mean(np.where(y, np.log(clipped), np.log(1 - clipped))), rel=1e-3)
    assert auc > 0.9
    assert learnt.candidates is None
    assert learnt.loss_layer is None


@pytest.mark.slow
def test_labels_come_with_datasets_and_batches_too_and_a_file_trains_on(learnt, pairs, tmp_path):
    x, y = pairs
    expected = learnt.evaluate(x, y, batch_size=256, verbose=0)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(256)
    assert learnt.evaluate(dataset, verbose=0) == pytest.approx(expected, rel=1e-5)
    learnt.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    assert loaded.evaluate(x, y, batch_size=256, verbose=0) == pytest.approx(expected, rel=1e-5)
    batches = ((dict(batch), labels) for batch, labels in dataset.as_numpy_iterator())
    loaded.fit(batches, steps_per_epoch=2, verbose=0)
    with pytest.raises(ValueError, match=rf"`y` {RULE} None. The loss 'logistic' needs labels"):
        loaded.fit(dataset.map(lambda x, y: x), verbose=0)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="numbers from 0 to 1"):
        loaded.fit(dataset.map(lambda x, y: (x, y + 1)), verbose=0)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, rf"`y` {RULE} None"),
        (np.full(512, 2), rf"`y` {RULE} 512 others, such as 2"),
        (np.full(512, np.nan), rf"`y` {RULE} 512 others, such as nan"),
        (["yes"] * 512, rf"`y` {RULE} <U3"),
        (np.ones((512, 2)), r"`y` must have one label a row; got shape \(512, 2\)"),
    ],
)
def test_labels_that_cannot_be_are_refused(model, pairs, y, message):
    for train in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ValueError, match=message):
            train(pairs[0], y)


def test_what_makes_no_sense_with_labels_is_refused(model):
    columns = [history_column()], [item_column()]
    for name, value in {"num_sampled": 5, "num_hard": 5, "sampler_config": {"sampler": "full"}}.items():
        with pytest.raises(ValueError, match=rf"`{name}` must be left out with the loss 'logistic'"):
            YoutubeDNN(*columns, loss="logistic", **{name: value})
    with pytest.raises(ValueError, match=r"`loss` must be of probabilities and labels, .*; got `sampledsoftmaxloss`"):
        model.compile("adam", sampledsoftmaxloss)
