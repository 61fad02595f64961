"""Users who follow three tastes in turns: several interests find items of all three, one vector of fewer."""

from dataclasses import replace

import numpy as np
import pytest
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.data import seen_before, synthetic_interactions, windows
from deepmatch_ext.evaluation import likeness
from deepmatch_ext.models import MIND, ComiRec
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.retrieval import top_n

MAX_LEN, DIM, N = 12, 8, 50
OF_INTERESTS = {
    "MIND": (MIND, {}),
    "sa": (ComiRec, {"interest_extractor": "sa"}),
    "dr": (ComiRec, {"interest_extractor": "dr"}),
}


class Trial:
    """New users: the first four fifths of their events go in, the others are to be found."""

    def __init__(self, tastes, combiner, epochs, rate, batch_size):
        made = synthetic_interactions(700, 400, mean_length=24, num_genres=20, seed=1, tastes=tastes)
        self.events = replace(made.interactions, side={})
        self.combiner, self.epochs, self.rate, self.batch_size = combiner, epochs, rate, batch_size
        length = np.diff(self.events.indptr)[self.events.users]
        cut = np.maximum(length * 4 // 5, 1)
        held_out = self.events.users > 600
        self.train = windows(self.events, np.flatnonzero(~held_out & (self.events.position > 0)), MAX_LEN)
        first = np.flatnonzero(held_out & (self.events.position == cut))
        self.test, self.seen = windows(self.events, first, MAX_LEN), seen_before(self.events, first)
        self.targets = held_out & (self.events.position >= cut)

    def recall(self, builder, **arguments):
        """Of the targets, how many are among the first N; and the vectors."""
        size = self.events.item_vocabulary_size
        history = SparseFeat("hist_item_id", size, DIM, embedding_name="item_id")
        columns = [VarLenSparseFeat(history, MAX_LEN, self.combiner, "hist_len")], [SparseFeat("item_id", size, DIM)]
        model = builder(*columns, **arguments)
        model.compile(LazyAdam(self.rate))
        model.fit(self.train, batch_size=self.batch_size, epochs=self.epochs, verbose=0)
        users, items = model.user_vectors(self.test), model.item_vectors()
        ids, _ = top_n(users, items, N, exclude=self.seen)
        found = np.zeros((self.events.user_vocabulary_size, size), bool)
        found[self.test["user_id"][:, np.newaxis], ids] = True
        return found[self.events.users[self.targets], self.events.items[self.targets]].mean(), users, items


@pytest.fixture(scope="module")
def three_tastes():
    trial = Trial(3, "mean", epochs=12, rate=2e-2, batch_size=512)
    return trial, trial.recall(YoutubeDNN)[0]


@pytest.fixture(scope="module")
def one_taste():
    trial = Trial(1, "recency", epochs=6, rate=4e-2, batch_size=1024)
    return trial, trial.recall(YoutubeDNN)[0]


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", OF_INTERESTS)
def test_planted_tastes_are_found_by_several_interests(three_tastes, name):
    trial, of_one_vector = three_tastes
    builder, arguments = OF_INTERESTS[name]
    recall, users, items = trial.recall(builder, k_max=4, **arguments)
    assert recall > 1.2 * of_one_vector
    assert likeness(users, items)["interest_correlation"] < 0.8


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", OF_INTERESTS)
def test_one_interest_is_enough_for_one_taste(one_taste, name):
    trial, of_one_vector = one_taste
    builder, arguments = OF_INTERESTS[name]
    assert trial.recall(builder, k_max=1, **arguments)[0] > 0.97 * of_one_vector
