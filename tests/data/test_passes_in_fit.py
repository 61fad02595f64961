"""Passes over windows as Keras's `fit` makes them: a model learns from them, and a run that stops goes on."""

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.data import window_dataset
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.data.test_passes import T, cyclic, numbered_dataset


def small_model(x):
    items = SparseFeat("item_id", x.item_vocabulary_size, 8)
    history = SparseFeat("hist_item_id", x.item_vocabulary_size, 8, embedding_name="item_id")
    users = SparseFeat("user_id", x.user_vocabulary_size, 8)
    model = YoutubeDNN(
        [users, VarLenSparseFeat(history, T, "recency+last", "hist_len")],
        [items],
        num_sampled=10,
        user_dnn_hidden_units=(16, 8),
    )
    model.compile(tf.keras.optimizers.Adam(0.01), sampledsoftmaxloss)
    return model


@pytest.mark.slow
@pytest.mark.smoke
def test_a_model_learns_from_it():
    x = cyclic(1200)
    rows = np.flatnonzero(x.position >= 1)
    model = small_model(x)
    dataset = window_dataset(x, rows, T, 64)
    validation = window_dataset(x, rows[::7], T, 64, shuffle=False)
    losses = model.fit(dataset, epochs=8, validation_data=validation, verbose=0).history
    # 10 sampled of 30 items: a model that knows nothing is at about log(11) = 2.4.
    assert losses["loss"][0] > 1.5
    assert losses["loss"][-1] < 0.5 * losses["loss"][0]
    assert losses["val_loss"][-1] < 0.5 * losses["val_loss"][0]


def orders_seen(dataset, **options):
    """The first rows of each epoch of a `fit`, as the model got them."""
    seen = []

    def note(first):
        seen.append(first.tolist())
        return first

    noted = dataset.map(lambda batch: (tf.numpy_function(note, [batch["hist_row"][:, 0]], tf.int64), batch["hist_len"]))
    noted = noted.map(lambda rows, length: (tf.cast(tf.reshape(rows, [-1, 1]), "float32"), length))
    model = tf.keras.Sequential([tf.keras.Input([1]), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(noted, verbose=0, shuffle=False, **options)
    return seen[-5 * (options["epochs"] - options.get("initial_epoch", 0)) :]


@pytest.mark.slow
def test_a_fit_that_stops_and_goes_on_sees_what_an_undisturbed_one_sees():
    whole = orders_seen(numbered_dataset(160), epochs=4)
    assert len({str(whole[k : k + 5]) for k in range(0, 20, 5)}) == 4
    rest = orders_seen(numbered_dataset(160, first_epoch=2), epochs=4, initial_epoch=2)
    assert rest == whole[10:]
