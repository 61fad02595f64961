"""A small shop: who bought what, and what is known of both."""

from unittest import mock

import numpy as np
import pandas as pd

from deepmatch_ext import Recommender
from deepmatch_ext._keras import build_optimizer

ITEMS, USERS = 30, 40


def events_of(seed=0, each=8):
    """Users who go through the items of one aisle in order, by names; 3 aisles of 10."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(USERS):
        aisle, start = user % 3, rng.integers(10)
        for place in range(each):
            rows.append((f"u{user}", f"sku-{10 * aisle + (start + place) % 10:02}", 100 * place + user, 1.0 + place))
    events = pd.DataFrame(rows, columns=["customer", "sku", "at", "weight"])
    return events.sample(frac=1, random_state=seed, ignore_index=True)


EVENTS = events_of()
SHELF = pd.DataFrame(
    {
        "sku": [f"sku-{k:02}" for k in range(ITEMS + 1)],
        "aisle": [f"aisle {k // 10}" for k in range(ITEMS)] + ["aisle 0"],
    }
)
PEOPLE = pd.DataFrame(
    {"customer": [f"u{k}" for k in range(USERS)] + ["visitor"], "taste": [k % 3 for k in range(USERS + 1)]}
)
NAMES = {"user": "customer", "item": "sku", "time": "at"}
SMALL = {"embedding_dim": 8, "max_len": 5, "batch_size": 64, "seed": 1, "num_sampled": 15}


def _without_training(recommender, *_):
    build_optimizer(recommender.model)
    recommender.history, recommender._found = {"loss": [1.0]}, None
    return 1


def untrained():
    """Within it, what a fit or an update makes is there, and nothing is learnt: to trace it takes longest."""
    return mock.patch.object(Recommender, "_train", _without_training)
