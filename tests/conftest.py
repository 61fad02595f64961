"""What all tests share: a quiet TensorFlow, DeepCTR without its version check, one small trained model."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import warnings
from unittest import mock

import hypothesis
import numpy as np
import pytest

with warnings.catch_warnings():  # of protobuf's, on Python 3.12 with the TensorFlow of its time
    warnings.simplefilter("ignore", DeprecationWarning)
    import tensorflow as tf

# DeepCTR asks a package index for its newest version, in a thread, when it is imported.
with mock.patch("threading.Thread.start"):
    import deepctr  # noqa: F401

from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from hypothesis import strategies as st

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.data import IdMap, Interactions
from deepmatch_ext.utils import sampledsoftmaxloss

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "20"))
hypothesis.settings.register_profile("default", deadline=None, max_examples=EXAMPLES, derandomize=True)
hypothesis.settings.load_profile("default")

VOCABULARY, DIM, MAX_LEN = 30, 8, 6


def pytest_xdist_auto_num_workers(config):
    """Workers for the whole suite alone: for a few files they save less than TensorFlow takes to start in them."""
    return min(os.cpu_count(), 4) if config.args == config.getini("testpaths") else 0


def processor_seconds():
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    began = processor_seconds()
    try:
        return (yield)
    finally:
        item.user_properties.append(("processor_seconds", processor_seconds() - began))


def pytest_terminal_summary(terminalreporter):
    """Names tests that the marker `slow` is missing from, so that the others stay fast."""
    for report in terminalreporter.getreports("passed"):
        seconds = dict(report.user_properties).get("processor_seconds", 0)
        if report.when == "call" and seconds > 2 and "slow" not in report.keywords:
            terminalreporter.line(f"{report.nodeid} took {seconds:.1f} s of processor time: mark it slow")


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    doctest_namespace.update(np=np, tf=tf)


def csr(lists):
    """Lists of ids as `Seen`: (indptr, item ids)."""
    return (
        np.cumsum([0, *(len(items) for items in lists)]),
        np.array([item for items in lists for item in items], dtype=np.int64),
    )


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


@pytest.fixture(scope="session")
def trained():
    """A small model after a short `fit`, with its input. Tests leave it as it is."""
    model = small_model()
    model.compile(tf.keras.optimizers.Adam(0.01), sampledsoftmaxloss)
    x = small_input(512)
    model.fit(x, batch_size=64, epochs=3, verbose=0)
    return model, x
