"""Whatever comes in trains, or is refused with our error: no crash, no hang, no NaN, no silent wrong answer.

A modest number of cases here; thousands with ``BAD_INPUT_CASES=2000``, which also draws others at every run.
"""

import gc
import itertools
import os
import re
import signal
from contextlib import contextmanager, suppress

import hypothesis.extra.numpy as npst
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from hypothesis import HealthCheck, Phase, event, given, note, settings
from hypothesis import strategies as st

from deepmatch_ext import YoutubeDNN, samplers
from deepmatch_ext.data import Interactions, windows
from deepmatch_ext.features import read_columns
from deepmatch_ext.models._input_rules import check_model_input
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import DIM, MAX_LEN, VOCABULARY, history_column, item_column

# Lengths are drawn apart from their histories.
pytestmark = pytest.mark.filterwarnings("ignore:Input .* has rows with more ids than:UserWarning")

CASES = int(os.environ.get("BAD_INPUT_CASES", "0"))


def cases(few, factor=1.0):
    """So many cases here; of the thousands that are asked for, a share that goes with what a case costs."""
    return settings(
        max_examples=max(1, int(CASES * factor)) if CASES else few,
        derandomize=not CASES,
        deadline=None,
        database=None,
        # To shrink a failure takes many more cases than to find it.
        phases=[Phase.generate, Phase.shrink] if CASES else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def no_hang(seconds=120):
    def ring(*_):
        raise TimeoutError(f"still running after {seconds} s")

    former = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


OURS = re.compile(r" must .*; got ", re.DOTALL)


def result_or_refusal(function):
    """The function's result, or None where it is refused as we refuse."""
    try:
        with no_hang():
            result = function()
    except ValueError as error:
        if not OURS.search(str(error)):
            raise
        event("refused")
        return None
    event("accepted")
    return result


@st.composite
def mostly(draw, good, bad):
    """One of the good values, or once in a while one that may be bad."""
    return draw(bad if draw(st.integers(0, 11)) == 0 else good)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.integers(0, 3), max_size=3),
)
NAMES = st.sampled_from(["a", "b", "c", "item", "hist", "len", "loss", "städt", "x y", ""])
SIZES = mostly(st.integers(2, 9), ODD)
COMBINERS = mostly(
    st.sampled_from(["mean", "sum", "max", "sqrtn", "last", "recency", "recency:0.5", "recency+last"]),
    st.sampled_from(["", "median", "recency:-1", "recency:x", "mean+", "recency:inf", None, 3]),
)


@st.composite
def sparse_columns(draw):
    return SparseFeat(
        draw(NAMES),
        draw(SIZES),
        draw(mostly(st.just(DIM), st.one_of(ODD, st.just("auto")))),
        use_hash=draw(mostly(st.just(False), st.booleans())),
        dtype=draw(
            mostly(st.sampled_from(["int32", "int64"]), st.sampled_from(["string", "float32", "int8", "x", None]))
        ),
        embedding_name=draw(mostly(st.sampled_from(["table", "other", None]), ODD)),
        trainable=draw(st.booleans()),
    )


@st.composite
def history_columns(draw):
    length = draw(mostly(st.sampled_from(["len", None]), st.sampled_from(["a", "", 3])))
    weight = draw(mostly(st.none(), st.sampled_from(["w", "a", "len"])))
    return VarLenSparseFeat(
        draw(sparse_columns()),
        draw(mostly(st.integers(1, 5), ODD)),
        draw(COMBINERS),
        length,
        weight,
        draw(st.booleans()),
    )


@st.composite
def dense_columns(draw):
    dtype = draw(mostly(st.sampled_from(["float32", "float64", "int32"]), st.sampled_from(["string", "x", None])))
    return DenseFeat(draw(NAMES), draw(mostly(st.integers(1, 3), ODD)), dtype)


COLUMNS = st.lists(mostly(st.one_of(sparse_columns(), history_columns(), dense_columns()), ODD), max_size=4)

ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "user_dnn_hidden_units": mostly(st.sampled_from([(DIM,), (5, DIM), None]), ODD),
        "dnn_activation": mostly(st.sampled_from(["relu", "tanh"]), ODD),
        "dnn_use_bn": st.booleans(),
        "l2_reg_dnn": mostly(st.floats(0, 1), ODD),
        "l2_reg_embedding": mostly(st.floats(0, 1), ODD),
        "dnn_dropout": mostly(st.floats(0, 0.9), ODD),
        "temperature": mostly(st.floats(0.01, 10), ODD),
        "history_dropout": mostly(st.floats(0, 0.9), ODD),
        "seed": mostly(st.integers(0, 2**40), ODD),
        "loss": mostly(st.sampled_from(["softmax", "bpr", "gbce"]), ODD),
        "gbce_t": mostly(st.floats(0, 1), ODD),
        "num_sampled": mostly(st.integers(1, 4), ODD),
        "exclude_features": mostly(st.just(()), ODD),
    },
)


def values_for(shape, dtype, size, rows):
    """Arrays that an input of ids or numbers takes, by its shape and type; ``size`` bounds the ids."""
    shape = (rows, *shape)
    if dtype == "string":
        return npst.arrays(object, shape, elements=st.sampled_from(["0", "x", "yy", "Ü"]))
    if dtype.startswith("float"):
        return npst.arrays(np.float64, shape, elements=st.floats(-1e6, 1e6))
    return npst.arrays(np.int64, shape, elements=st.integers(0, size - 1))


@st.composite
def spoilt(draw, values):
    """The values, or once in a while something like them that may be bad."""
    if draw(st.integers(0, 9)):
        return values
    how = draw(st.sampled_from(["type", "shape", "rows", "one", "none", "list", "odd"]))
    if how == "type":
        dtype = draw(
            st.sampled_from(["int8", "uint64", "float16", "float32", "float64", "bool", "str", "object", "complex64"])
        )
        try:
            with np.errstate(over="ignore"):  # 1e6 is infinite in float16, and to be refused
                return values.astype(dtype)
        except (TypeError, ValueError):
            return values
    if how == "shape":
        return draw(st.sampled_from([values.ravel(), values[..., None], values[:, :-1], values.T]))
    if how == "rows":
        return values[:-1]
    if how == "list":
        return values.tolist()
    if how == "none":
        return None
    if how == "odd":
        return draw(ODD)
    spoilt = values.astype(object) if draw(st.booleans()) else values.copy()
    if spoilt.size:
        spot = draw(st.integers(0, spoilt.size - 1))
        bad = [-1, 10**6, 2**31, 2**63, np.nan, np.inf, -np.inf, 1e38, 1e300, 0.5, None, "x", b"x"]
        with suppress(TypeError, ValueError, OverflowError):  # it doesn't fit the type
            spoilt.flat[spot] = draw(st.sampled_from(bad))
    return spoilt


@st.composite
def inputs_for(draw, model, rows=6):
    """Inputs by name for all that the model reads, some of them spoilt; and those that are what they should be."""
    from deepmatch_ext.features import input_shapes
    from deepmatch_ext.models._input_rules import id_column

    x, good = {}, {}
    columns = [*model._towers.user_columns, model._towers.item_columns[0]]
    for column in columns:
        for name, (shape, dtype) in input_shapes(column).items():
            ids = id_column(column, name)
            size = ids.vocabulary_size if ids is not None else getattr(column, "maxlen", 2) + 1
            values = draw(values_for(shape, dtype, min(size, 100), rows))
            if column is columns[-1]:
                values = np.where(values == 0, 1, values) if dtype != "string" else np.full(values.shape, "x", object)
            x[name], good[name] = draw(spoilt(values)), values
    if draw(st.integers(0, 19)) == 0 and x:
        x.pop(draw(st.sampled_from(sorted(x))))
    return x, good


def assert_sound(model, x):
    for weight in model.get_weights():
        assert weight.dtype.kind not in "f" or np.isfinite(weight).all()
    vectors = model.user_vectors(x)
    assert np.isfinite(vectors).all()
    norms = np.linalg.norm(vectors, axis=1)
    assert np.all((np.abs(norms - 1) < 1e-3) | (norms < 1e-3))


_built = itertools.count(1)


@pytest.fixture(autouse=True, scope="module")
def _clear():
    """Leaves what Keras and TensorFlow kept of the models built here to nobody."""
    yield
    tf.keras.backend.clear_session()
    gc.collect()


@pytest.mark.slow
@cases(15, 0.1)
@given(COLUMNS, st.lists(mostly(sparse_columns(), ODD), min_size=1, max_size=1), ARGUMENTS, st.data())
def test_columns_and_arguments_build_a_model_that_trains_or_are_refused(users, items, arguments, data):
    note(f"{users} {items} {arguments}")
    if next(_built) % 20 == 0:
        gc.collect()  # models refer to themselves, and Python's collector waits for many more objects than they are
    model = result_or_refusal(lambda: YoutubeDNN(users, items, **arguments))
    if model is None:
        return
    _, x = data.draw(inputs_for(model))
    # Mostly eagerly, since most of what a case takes is the tracing.
    model.compile(LazyAdam(0.01), sampledsoftmaxloss, run_eagerly=data.draw(st.integers(0, 5)) > 0)
    model.fit(x, batch_size=4, verbose=0)
    assert_sound(model, x)


@pytest.fixture(scope="module")
def rich_model(_clear):
    """A model with every kind of input, compiled."""
    users = [
        history_column("recency+last"),
        VarLenSparseFeat(SparseFeat("tags", 9, 4), 3, "mean", weight_name="weights"),
        SparseFeat("city", 20, 4, use_hash=True, dtype="string"),
        SparseFeat("code", 20, 4, use_hash=True, dtype="int64"),
        DenseFeat("numbers", 2),
        DenseFeat("count", 1, "int32"),
    ]
    model = YoutubeDNN(users, [item_column()], history_dropout=0.1, sampler_config=samplers.AdaptiveSampler(5, 64))
    model.compile(LazyAdam(0.01), sampledsoftmaxloss)
    model.initial = model.get_weights()
    return model


@pytest.mark.slow
@cases(30, 0.5)
@given(st.data())
def test_arrays_train_the_model_or_are_refused_and_leave_it_as_it_was(rich_model, data):
    x, _ = data.draw(inputs_for(rich_model))
    weights = data.draw(mostly(st.none(), npst.arrays(np.float64, 6)))
    rich_model.set_weights(rich_model.initial)
    done = result_or_refusal(lambda: rich_model.fit(x, sample_weight=weights, batch_size=3, verbose=0))
    if done is None:
        for a, b in zip(rich_model.get_weights(), rich_model.initial, strict=True):
            np.testing.assert_array_equal(a, b)
    else:
        assert_sound(rich_model, x)


@pytest.mark.slow
@pytest.mark.once
@cases(50, 1.0)
@given(st.data())
def test_users_have_the_vectors_of_their_values_or_are_refused(rich_model, data):
    """What is taken in another type or form counts as what it says: the same vectors as from the plain values."""
    x, good = data.draw(inputs_for(rich_model))
    rich_model.set_weights(rich_model.initial)
    vectors = result_or_refusal(lambda: rich_model.user_vectors(x))
    if vectors is None:
        return
    assert np.isfinite(vectors).all()
    plain = {}
    for name, values in good.items():
        if name == "item":  # which no vector is made of
            continue
        taken = np.asarray(x.get(name, values))
        if values.dtype == object:
            text = [each.decode() if isinstance(each, bytes) else str(each) for each in taken.ravel()]
            plain[name] = np.array(text, object).reshape(len(taken), -1)
        else:
            plain[name] = taken.astype(values.dtype).reshape(len(taken), *values.shape[1:])
    np.testing.assert_allclose(vectors, rich_model.user_vectors(plain), atol=1e-5)


@pytest.mark.slow
@pytest.mark.once
@cases(12, 0.2)
@given(st.data())
def test_datasets_train_the_model_or_are_refused_at_their_batch(rich_model, data):
    x, _ = data.draw(inputs_for(rich_model))
    try:
        dataset = tf.data.Dataset.from_tensor_slices(dict(x)).batch(3)
    except (ValueError, TypeError, tf.errors.OpError):  # no dataset can be made of it
        return
    rich_model.set_weights(rich_model.initial)

    def train():
        try:
            rich_model.fit(dataset, verbose=0)
        except tf.errors.InvalidArgumentError as error:
            if not re.search(r"Input .{1,3}\w+.{1,3} must hold ", str(error)):
                raise

    result_or_refusal(train)
    for weight in rich_model.get_weights():
        assert weight.dtype.kind not in "f" or np.isfinite(weight).all()


@st.composite
def sampler_of(draw, depth=0):
    number = mostly(st.integers(1, 9), ODD)
    counts = mostly(
        npst.arrays(np.int64, st.integers(8, 10), elements=st.integers(0, 1000)),
        st.one_of(ODD, npst.arrays(np.float64, st.integers(0, 10))),
    )
    memory = mostly(st.integers(1, 50), ODD)
    kinds = {
        "UniformSampler": lambda: samplers.UniformSampler(draw(number)),
        "LogUniformSampler": lambda: samplers.LogUniformSampler(draw(number)),
        "FrequencySampler": lambda: samplers.FrequencySampler(
            draw(number), draw(counts), draw(mostly(st.floats(-2, 2), ODD))
        ),
        "AdaptiveSampler": lambda: samplers.AdaptiveSampler(
            draw(number), draw(memory), draw(mostly(st.floats(0.01, 1), ODD))
        ),
        "InBatchSampler": lambda: samplers.InBatchSampler(draw(counts), draw(memory)),
        "QueueSampler": lambda: samplers.QueueSampler(draw(number), draw(counts), draw(memory)),
        "FullSampler": samplers.FullSampler,
    }
    if depth == 0:
        kinds["MixedSampler"] = lambda: samplers.MixedSampler(
            [draw(sampler_of(depth=1))() for _ in range(draw(st.integers(0, 3)))]
        )
    return kinds[draw(st.sampled_from(sorted(kinds)))]


@cases(50, 1.0)
@given(sampler_of(), mostly(st.integers(2, 12), st.integers(2, 3)), st.integers(1, 5))
def test_samplers_draw_items_and_know_how_often_or_are_refused(make, vocabulary_size, batch):
    from deepmatch_ext.layers import CandidateLoss, CandidateSampler

    sampler = result_or_refusal(make)
    layer = sampler and result_or_refusal(lambda: CandidateSampler(sampler, vocabulary_size))
    if layer is None:
        return
    positives = tf.constant(np.arange(batch)[:, None] % (vocabulary_size - 1) + 1)
    for _ in range(3):
        ids, log_counts, in_batch = layer(positives, training=True)
        assert ids.shape == log_counts.shape
        assert np.all((ids >= 1) & (ids < vocabulary_size))
        assert np.isfinite(log_counts).all()
        vectors = tf.random.stateless_normal([len(ids), 4], [1, 2])
        loss = CandidateLoss(0.1)([vectors[:batch], vectors, ids, log_counts, in_batch])
        assert np.isfinite(loss).all()
    again = samplers.make_sampler(sampler.get_config())
    assert again.get_config() == sampler.get_config()


RAW = st.one_of(
    st.integers(-5, 5),
    st.integers(2**53, 2**70),
    st.text(max_size=2),
    st.sampled_from([None, np.nan, np.inf, 1.5, 2.0, True, b"a", pd.Timestamp(5), pd.NaT, pd.NA]),
)


@st.composite
def frames(draw):
    rows = draw(st.integers(0, 6))

    def column(good):
        values = draw(mostly(st.lists(good, min_size=rows, max_size=rows), st.lists(RAW, min_size=rows, max_size=rows)))
        dtype = draw(st.sampled_from([None, None, None, "object"]))
        return pd.Series(values, dtype=dtype if dtype or values else "int64")

    frame = pd.DataFrame(
        {
            "user_id": column(draw(st.sampled_from([st.integers(-5, 5), st.text(max_size=2)]))),
            "item_id": column(draw(st.sampled_from([st.integers(-5, 5), st.text(max_size=2)]))),
            "timestamp": column(draw(st.sampled_from([st.integers(0, 9), st.floats(0, 9)]))),
            "rating": column(st.floats(0, 5)),
        }
    )
    if draw(st.integers(0, 14)) == 0:
        frame = frame.drop(columns=draw(st.sampled_from(list(frame.columns))))
    if draw(st.integers(0, 14)) == 0:
        frame = pd.concat([frame, frame[["user_id"]]], axis=1) if "user_id" in frame else frame
    return frame


@pytest.mark.slow
@pytest.mark.smoke
@cases(120, 1.0)
@given(frames(), mostly(st.just(()), st.sampled_from([("rating",), ("user_id",), ("nothing",), "rating"])), st.data())
def test_frames_become_interactions_that_say_the_same_or_are_refused(frame, side, data):
    before = frame.copy(deep=True)
    made = result_or_refusal(lambda: Interactions.from_frame(frame, side=side))
    pd.testing.assert_frame_equal(frame, before)
    if made is None:
        return
    # The same events, by their raw ids.
    theirs = sorted(zip(frame["user_id"].tolist(), frame["item_id"].tolist(), strict=True), key=repr)
    ours = zip(made.user_ids.decode(made.users).tolist(), made.item_ids.decode(made.items).tolist(), strict=True)
    assert sorted(ours, key=repr) == theirs or sorted(map(repr, ours)) == sorted(map(repr, theirs))
    rows = data.draw(mostly(st.lists(st.integers(0, len(made) - 1), max_size=4), st.one_of(ODD, st.just([99]))))
    length = data.draw(mostly(st.integers(1, 4), ODD))
    x = result_or_refusal(lambda: windows(made, rows, length))
    if x is not None:
        column = history_like(made, int(length))
        check_model_input(read_columns("columns", column), x)


def history_like(made, length):
    items = SparseFeat("hist_item_id", max(made.item_vocabulary_size, 2), 4)
    return [VarLenSparseFeat(items, length, "mean", "hist_len"), SparseFeat("item_id", made.item_vocabulary_size, 4)]


def test_the_constants_of_these_tests_fit_the_model(rich_model):
    assert (rich_model.item_vectors().shape, MAX_LEN) == ((VOCABULARY, DIM), 6)
