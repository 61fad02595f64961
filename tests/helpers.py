"""Columns, data and small models that tests share, and the examples of docstrings."""

import contextlib
import doctest

import numpy as np
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from hypothesis import strategies as st

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.data import IdMap, Interactions

VOCABULARY, DIM, MAX_LEN = 30, 8, 6


def csr(lists):
    """Lists of ids as `Seen`: (indptr, item ids)."""
    return (
        np.cumsum([0, *(len(items) for items in lists)]),
        np.array([item for items in lists for item in items], dtype=np.int64),
    )


def true_scores(users, items):
    """Inner products (B, V) in float64; of users (B, K, D) the best of K, where zeros beside others are no interest."""
    users, items = np.asarray(users, np.float64), np.asarray(items, np.float64)
    if users.ndim == 2:
        return users @ items.T
    interests = [[vector for vector in user if vector.any()] or user for user in users]
    return np.array([np.max(user @ items.T, axis=0) for user in interests]).reshape(len(users), len(items))


@contextlib.contextmanager
def eager_functions():
    """Functions run as they are: to trace them is all that takes time where a model trains on a few rows."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def run_examples(module, can_run=lambda example: True, **names):
    """Runs the examples in the docstrings of a module, which know these names, and fails if one of them does."""
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(module, extraglobs={"np": np, "tf": tf, **names}):
        if can_run(example):
            runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


def history_column(combiner="mean", **options):
    sparse = SparseFeat("hist_item", VOCABULARY, DIM, embedding_name="item", **options)
    return VarLenSparseFeat(sparse, MAX_LEN, combiner, "hist_len")


def item_column(**options):
    return SparseFeat("item", VOCABULARY, DIM, **options)


def small_input(rows=64, seed=0):
    """Histories, most recent first and padded at the end, in which the next item follows from the last one."""
    rng = np.random.default_rng(seed)
    length = rng.integers(1, MAX_LEN + 1, rows).astype("int32")
    history = rng.integers(1, VOCABULARY, (rows, MAX_LEN)).astype("int32")
    item = (history[:, 0] % (VOCABULARY - 1) + 1).astype("int32")
    history[np.arange(MAX_LEN)[None] >= length[:, None]] = 0
    return {"hist_item": history, "hist_len": length, "item": item}


def user_part(x):
    return {name: values for name, values in x.items() if name != "item"}


def small_model(combiner="recency+last", **arguments):
    arguments.setdefault("num_sampled", 20) if "sampler_config" not in arguments else None
    arguments.setdefault("user_dnn_hidden_units", (16, DIM))
    return YoutubeDNN([history_column(combiner)], [item_column()], **arguments)


def user_vectors(model, x, **options):
    encoder = tf.keras.Model(inputs=model.user_input, outputs=model.user_emb)
    return encoder.predict(user_part(x), verbose=0, **options)


@st.composite
def window_arguments(draw, min_rows=0):
    """Interactions of a few users, target rows, a history length and an order, for `windows` and its like."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any))
    size = sum(sizes)
    items = draw(st.lists(st.integers(1, 7), min_size=size, max_size=size))
    users = np.repeat(np.arange(1, len(sizes) + 1), sizes)
    side = {
        "rating": np.linspace(0.5, 1.5, size),
        "day": np.arange(1, size + 1, dtype=np.int16),
        "liked": np.arange(size) % 2 == 0,
    }
    x = Interactions(users, items, None, side, IdMap(np.arange(1, len(sizes) + 1)), IdMap(np.arange(1, 8)))
    rows = draw(st.lists(st.integers(0, size - 1), min_size=min_rows, max_size=12))
    return x, rows, draw(st.integers(1, 12)), draw(st.sampled_from(["recent_first", "oldest_first"]))


def state_of(model):
    """The weights of a model that was just compiled, and of its optimizer, for `put_back`."""
    model.optimizer.build(model.trainable_variables)
    return model.get_weights(), [np.array(variable) for variable in model.optimizer.variables]


def put_back(model, state):
    """Makes a model what it was: to train it again, rather than another, saves the tracing of `fit`."""
    model.set_weights(state[0])
    for variable, value in zip(model.optimizer.variables, state[1], strict=True):
        variable.assign(value)
