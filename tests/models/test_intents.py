"""Sessions that end with what they began with, of users whose past tells the brand: SDM combines the two."""

from dataclasses import replace

import numpy as np
import pytest
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.data import synthetic_intents, windows
from deepmatch_ext.evaluation import evaluate_vectors
from deepmatch_ext.models import SDM
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.samplers import FullSampler

SESSION, PAST, DIM = 8, 15, 16


@pytest.mark.slow
@pytest.mark.once
def test_what_a_session_began_with_and_the_user_s_past_are_found_together():
    events = synthetic_intents(2000, mean_length=6, seed=1)
    ends = np.append(events.sessions[1:] != events.sessions[:-1], True)
    of_test = events.sessions == events.sessions[events.indptr[1:][events.users] - 1]  # the users' last sessions

    def inputs(rows):
        """The session's clicks before the last one, and all of the user's."""
        session = windows(events, rows, SESSION)
        past = windows(replace(events, sessions=None), rows, PAST)
        return {**past, "session_item": session["hist_item_id"], "session_len": session["hist_len"]}

    train, test = inputs(np.flatnonzero(ends & ~of_test)), inputs(np.flatnonzero(ends & of_test))
    size = events.item_vocabulary_size

    def hits(builder, combiner, epochs, **arguments):
        session = SparseFeat("session_item", size, DIM, embedding_name="item_id")
        past = SparseFeat("hist_item_id", size, DIM, embedding_name="item_id")
        histories = [
            VarLenSparseFeat(session, SESSION, combiner, "session_len"),
            VarLenSparseFeat(past, PAST, "mean", "hist_len"),
        ]
        model = builder(histories, [SparseFeat("item_id", size, DIM)], sampler_config=FullSampler(), **arguments)
        model.compile(LazyAdam(0.01))
        model.fit(train, batch_size=256, epochs=epochs, verbose=0)
        return evaluate_vectors(model.user_vectors(test), model.item_vectors(), test["item_id"], ns=[10])["HR@10"]

    sdm = hits(SDM, "mean", 6, short_history=["session_item"], units=32, rnn_layers=1, dropout_rate=0.0)
    # `mean` is the best of YoutubeDNN's poolings and towers here: see benchmarks/intents.py.
    pooled = hits(YoutubeDNN, "mean", 6)
    assert sdm > 1.15 * pooled, (sdm, pooled)
