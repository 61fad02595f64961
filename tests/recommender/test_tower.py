"""How deep a YoutubeDNN the recommender makes, by the number of events."""

import numpy as np
import pandas as pd
import pytest
from deepctr.feature_column import SparseFeat

from deepmatch_ext import ComiRec, Recommender
from deepmatch_ext.data import Interactions
from deepmatch_ext.recommender.building import columns_of_model, tower

DIM = 4  # 8 x 16 + 16 x 8 + 8 x 4 weights, so deep from 2,880 events on


def frame(events, items):
    ids = np.random.default_rng(0).permutation(np.arange(events) % items)
    return pd.DataFrame({"user_id": np.arange(events) % 40, "item_id": ids})


def layers(events, items, **arguments):
    recommender = Recommender(time=None, embedding_dim=DIM, **arguments)
    interactions = Interactions.from_frame(frame(events, items), time=None)
    return tower(recommender, interactions, columns_of_model(recommender, interactions)[0])


@pytest.mark.parametrize(("events", "items", "deep"), [(2880, 28, True), (2879, 28, False), (3000, 30, True)])
def test_many_events_for_each_weight_make_it_deep(events, items, deep):
    assert layers(events, items) == ({"user_dnn_hidden_units": (16, 8, 4), "dnn_dropout": 0.0} if deep else {})


def test_few_events_for_each_item_do_not():
    assert layers(2999, 30) == {}


def test_users_features_make_two_layers_of_few_events():
    users = pd.DataFrame({"user_id": np.arange(40), "age": np.arange(40) / 2})
    assert layers(300, 30, user_features=users) == {"user_dnn_hidden_units": (8, 4)}
    assert layers(3000, 30, user_features=users)["user_dnn_hidden_units"] == (16, 8, 4)


def test_users_ids_alone_make_no_second_layer():
    ids = SparseFeat("user_id", 2, 8)
    assert layers(300, 30, columns=[ids]) == {}
    users = pd.DataFrame({"user_id": np.arange(40), "age": np.arange(40) / 2})
    assert layers(300, 30, columns=[ids], user_features=users) == {"user_dnn_hidden_units": (8, 4)}


@pytest.mark.parametrize("arguments", [{"user_dnn_hidden_units": [4]}, {"model": ComiRec}])
def test_what_is_given_stays_and_other_models_have_layers_of_their_own(arguments):
    assert layers(3000, 30, **arguments) == {}


@pytest.mark.slow
@pytest.mark.once
def test_it_is_built_so_and_said(capsys):
    recommender = Recommender(time=None, embedding_dim=DIM, max_len=3, batch_size=4096, dnn_dropout=0.1)
    recommender.fit(frame(3000, 30), epochs=1, verbose=2)
    arguments = recommender.model.get_config()["arguments"]
    assert (list(arguments["user_dnn_hidden_units"]), arguments["dnn_dropout"]) == ([16, 8, 4], 0.1)
    assert (
        "100 events for each item: dense layers of 16, 8, 4 units (user_dnn_hidden_units=)" in capsys.readouterr().out
    )
