"""Users who follow three tastes in turns: several interests find items of all three, one vector of fewer."""

from dataclasses import replace

import numpy as np
import pytest
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.data import seen_before, synthetic_interactions, windows
from deepmatch_ext.evaluation import likeness
from deepmatch_ext.models import MIND
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.retrieval import top_n

MAX_LEN, DIM = 12, 8


@pytest.mark.slow
@pytest.mark.once
def test_planted_tastes_are_found_by_several_interests():
    made = synthetic_interactions(700, 200, mean_length=24, num_genres=10, seed=1, tastes=3)
    events = replace(made.interactions, side={})
    length = np.diff(events.indptr)[events.users]
    cut = np.maximum(length * 4 // 5, 1)
    held_out = events.users > 600
    train = windows(events, np.flatnonzero(~held_out & (events.position > 0)), MAX_LEN)
    first = np.flatnonzero(held_out & (events.position == cut))
    test, seen = windows(events, first, MAX_LEN), seen_before(events, first)
    targets = held_out & (events.position >= cut)

    history = SparseFeat("hist_item_id", len(made.item_genres), DIM, embedding_name="item_id")
    columns = (
        [VarLenSparseFeat(history, MAX_LEN, "mean", "hist_len")],
        [SparseFeat("item_id", len(made.item_genres), DIM)],
    )
    recall = {}
    for builder, arguments in ((YoutubeDNN, {}), (MIND, {"k_max": 4})):
        model = builder(*columns, **arguments)
        model.compile(LazyAdam(2e-2))
        model.fit(train, batch_size=512, epochs=10, verbose=0)
        users, items = model.user_vectors(test), model.item_vectors()
        ids, _ = top_n(users, items, 20, exclude=seen)
        found = np.zeros((events.user_vocabulary_size, len(items)), bool)
        found[test["user_id"][:, np.newaxis], ids] = True
        recall[builder.__name__] = found[events.users[targets], events.items[targets]].mean()
    assert recall["MIND"] > 1.15 * recall["YoutubeDNN"]
    assert likeness(users, items)["interest_correlation"] < 0.8
