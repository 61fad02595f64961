"""Lazy optimizers against NumPy float64 over several steps, and dense variables against Keras's own."""

import inspect

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext._distribute import summed_by_row
from deepmatch_ext.layers import EmbeddingTable
from deepmatch_ext.optimizers import LazyAdam, RowwiseAdagrad, RowwiseAdam
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import put_back, small_input, small_model, state_of

V, D = 6, 3
START = np.random.default_rng(0).normal(size=(V, D)).astype("float32")
# Three steps of (rows, gradient); the second has a row twice, the third touches other rows.
STEPS = [
    ([1, 4], np.random.default_rng(1).normal(size=(2, D))),
    ([4, 2, 4], np.random.default_rng(2).normal(size=(3, D))),
    ([0, 1, 5], 3 * np.random.default_rng(3).normal(size=(3, D))),
]


def dense_and_summed(rows, gradient):
    total = np.zeros((V, D))
    np.add.at(total, rows, gradient)
    return total, sorted(set(rows))


def numpy_lazy_adam(steps, rate=0.1, b1=0.9, b2=0.999, eps=1e-7, decay=0.0, clip=lambda g: g, amsgrad=False):
    w, m, v, largest = START.astype("float64"), np.zeros((V, D)), np.zeros((V, D)), np.zeros((V, D))
    for t, (rows, gradient) in enumerate(steps, start=1):
        lr = rate(t - 1) if callable(rate) else rate
        total, touched = dense_and_summed(rows, gradient)
        total = clip(total)
        for row in touched:
            m[row] = b1 * m[row] + (1 - b1) * total[row]
            v[row] = b2 * v[row] + (1 - b2) * total[row] ** 2
            largest[row] = np.maximum(largest[row], v[row])
            second = largest[row] if amsgrad else v[row]
            step = lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m[row] / (np.sqrt(second) + eps)
            w[row] -= step + lr * decay * w[row]
    return w


def table_and_step(optimizer):
    """A table layer, and a function that applies one sparse gradient to it."""
    table = EmbeddingTable(V, D)
    table.build()
    table.set_weights([START])
    (weight,) = table.trainable_weights

    optimizer.build([weight])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, D])])
    def step(rows, gradient):
        optimizer.apply_gradients([(tf.IndexedSlices(gradient, rows, [V, D]), weight)])

    return table, lambda rows, gradient: step(tf.constant(rows), tf.constant(gradient, tf.float32))


def run(optimizer, steps=STEPS):
    table, step = table_and_step(optimizer)
    for rows, gradient in steps:
        step(rows, gradient)
    return table.get_weights()[0]


def norm_clip(limit):
    return lambda g: g * min(1.0, limit / np.sqrt((g**2).sum()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reference"),
    [
        ({}, {}),
        ({"amsgrad": True}, {"amsgrad": True}),
        ({"amsgrad": True, "beta_2": 0.5}, {"amsgrad": True, "b2": 0.5}),  # second moments fall in between
        ({"weight_decay": 0.3}, {"decay": 0.3}),
        ({"clipnorm": 0.5}, {"clip": norm_clip(0.5)}),
        ({"global_clipnorm": 0.5}, {"clip": norm_clip(0.5)}),
        ({"clipvalue": 0.1}, {"clip": lambda g: np.clip(g, -0.1, 0.1)}),
        ({"beta_1": 0.5, "beta_2": 0.9, "epsilon": 0.01}, {"b1": 0.5, "b2": 0.9, "eps": 0.01}),
    ],
)
def test_lazy_adam_equals_numpy(arguments, reference):
    np.testing.assert_allclose(run(LazyAdam(0.1, **arguments)), numpy_lazy_adam(STEPS, **reference), atol=1e-5)


@pytest.mark.slow
def test_lazy_adam_follows_a_schedule():
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    expected = numpy_lazy_adam(STEPS, rate=lambda t: 0.1 * 0.5**t)
    np.testing.assert_allclose(run(LazyAdam(schedule)), expected, atol=1e-5)


def test_rowwise_adagrad_equals_numpy():
    w, a = START.astype("float64"), np.full(V, 0.1)
    for rows, gradient in STEPS:
        total, touched = dense_and_summed(rows, gradient)
        for row in touched:
            a[row] += (total[row] ** 2).mean()
            w[row] -= 0.1 * total[row] / np.sqrt(a[row] + 1e-7)
    optimizer = RowwiseAdagrad(0.1)
    np.testing.assert_allclose(run(optimizer), w, atol=1e-5)
    shapes = [tuple(variable.shape) for variable in variables_of(optimizer)]
    assert (V,) in shapes
    assert (V, D) not in shapes


@pytest.mark.parametrize(("arguments", "decay"), [({}, 0.999), ({"beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.01}, 0.7)])
def test_rowwise_adam_equals_numpy(arguments, decay):
    w, square, last = START.astype("float64"), np.zeros(V), np.zeros(V)
    for t, (rows, gradient) in enumerate(STEPS * 2, start=1):
        total, touched = dense_and_summed(rows, gradient)
        for row in touched:
            square[row] = decay ** (t - last[row]) * square[row] + (1 - decay) * (total[row] ** 2).mean()
            last[row] = t
            step = 0.1 * np.sqrt(1 - decay**t) * total[row]
            w[row] -= step / (np.sqrt(square[row]) + arguments.get("epsilon", 1e-7))
    optimizer = RowwiseAdam(0.1, **arguments)
    np.testing.assert_allclose(run(optimizer, STEPS * 2), w, atol=1e-5)
    shapes = [tuple(variable.shape) for variable in variables_of(optimizer)]
    assert shapes.count((V,)) == 2
    assert (V, D) not in shapes


@pytest.mark.slow
def test_a_row_that_is_seldom_touched_moves_under_rowwise_adam_as_far_as_under_adam():
    gradient, moved = tf.constant([[1.0, -1.0, 1.0]]), []
    for make in (RowwiseAdam, tf.keras.optimizers.Adam, LazyAdam):
        optimizer, table = make(0.01), tf.Variable(np.zeros((2, D), "float32"))
        optimizer.build([table])

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
        def step(rows, optimizer=optimizer, table=table):
            values = tf.repeat(gradient, tf.size(rows), axis=0)
            optimizer.apply_gradients([(tf.IndexedSlices(values, rows, tf.constant([2, D])), table)])

        for k in range(200):
            step(tf.constant([0, 1] if k % 20 == 0 else [0]))
        moved.append(-table.numpy()[1, 0])
    rowwise, adam, lazy = moved
    assert 0.8 < rowwise / adam < 1.2
    assert lazy < adam / 2


TABLE = tf.Variable(START)


def summed_gradient(first, others, further):
    """Of three look-ups of a table, the second of different rows."""
    with tf.GradientTape() as tape:
        different = tf.cast(tf.unique(first)[0], tf.int64)
        found = [tf.nn.embedding_lookup(TABLE, rows) for rows in (others, different, tf.reshape(further, [-1]))]
        loss = tf.add_n([factor * tf.reduce_sum(tf.sin(rows)) for factor, rows in enumerate(found, start=1)])
    return summed_by_row(tape.gradient(loss, TABLE))


ONE, TWO = tf.TensorSpec([None], tf.int64), tf.TensorSpec([1, None], tf.int64)
in_a_graph = tf.function(summed_gradient, input_signature=[tf.TensorSpec([None], tf.int32), ONE, TWO])


@given(*(st.lists(st.integers(0, V - 1), max_size=size) for size in (9, 5, 4)))
def test_each_row_of_several_lookups_is_summed(first, others, further):
    expected = np.zeros((V, D))
    for factor, rows in enumerate((others, sorted(set(first)), further), start=1):
        rows = np.array(rows, int)
        np.add.at(expected, rows, factor * np.cos(START.astype("float64"))[rows])
    ids = tf.constant(first, tf.int32), tf.constant(others, tf.int64), tf.constant([further], tf.int64)
    for way in (summed_gradient, in_a_graph):  # where it is not known, and where it is, that the second are different
        gradient = way(*ids)
        assert sorted(gradient.indices.numpy()) == sorted({*first, *others, *further})
        np.testing.assert_allclose(tf.convert_to_tensor(gradient), expected, atol=1e-5)


def test_different_rows_of_a_lookup_are_not_summed_again():
    types = {operation.type for operation in in_a_graph.get_concrete_function().graph.get_operations()}
    assert "TensorScatterAdd" in types
    assert "UnsortedSegmentSum" not in types


def variables_of(optimizer):
    return optimizer.variables() if callable(optimizer.variables) else optimizer.variables


@pytest.mark.parametrize("optimizer", [kind(0.1, weight_decay=0.1) for kind in (LazyAdam, RowwiseAdagrad, RowwiseAdam)])
def test_rows_that_no_batch_touched_and_their_state_stay(optimizer):
    table, step = table_and_step(optimizer)
    step(*STEPS[0])
    before = [
        np.array(variable) for variable in variables_of(optimizer) if variable.shape.rank and variable.shape[0] == V
    ]
    weights = table.get_weights()[0]
    step([3, 3], np.ones((2, D)))
    after = [
        np.array(variable) for variable in variables_of(optimizer) if variable.shape.rank and variable.shape[0] == V
    ]
    others = [0, 1, 2, 4, 5]
    np.testing.assert_array_equal(table.get_weights()[0][others], weights[others])
    assert before
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a[others], b[others])
        assert not np.array_equal(a[3], b[3])


@pytest.mark.parametrize("arguments", [{}, {"weight_decay": 0.1}, {"clipnorm": 0.3}, {"clipvalue": 0.1}])
@pytest.mark.parametrize(
    ("lazy", "keras_class"),
    [
        (LazyAdam, tf.keras.optimizers.Adam),
        (RowwiseAdagrad, tf.keras.optimizers.Adagrad),
        (RowwiseAdam, tf.keras.optimizers.Adam),
    ],
)
def test_dense_variables_behave_as_under_keras(lazy, keras_class, arguments):
    results = []
    for make in (lazy, keras_class):
        optimizer, variable = make(0.1, **arguments), tf.Variable(START)
        for k in range(3):
            gradient = tf.constant(np.random.default_rng(k).normal(size=(V, D)), tf.float32)
            optimizer.apply_gradients([(gradient, variable)])
        results.append(variable.numpy())
        assert int(optimizer.iterations) == 3
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


def test_dense_and_sparse_together_share_the_global_norm_and_count_one_step():
    optimizer = LazyAdam(0.1, global_clipnorm=1.0)
    table, dense = tf.Variable(START), tf.Variable([1.0, 2.0])
    gradient = tf.IndexedSlices(tf.constant([[3.0, 0, 0]]), tf.constant([2]), tf.constant([V, D]))
    optimizer.apply_gradients([(gradient, table), (tf.constant([0.0, 4.0]), dense)])
    assert int(optimizer.iterations) == 1
    moment = next(np.array(v) for v in variables_of(optimizer) if tuple(v.shape) == (V, D))
    # The norm over both is 5, so the gradient's 3 becomes 0.6, and the first moment 0.1 of it.
    np.testing.assert_allclose(moment[2], [0.06, 0, 0], atol=1e-6)


@pytest.mark.parametrize("optimizer_class", [LazyAdam, RowwiseAdagrad, RowwiseAdam])
@pytest.mark.parametrize("name", ["use_ema", "gradient_accumulation_steps", "loss_scale_factor", "jit_compile"])
def test_what_touches_every_row_is_refused_with_the_reason(optimizer_class, name):
    with pytest.raises(ValueError, match=rf"`{name}` must be left out of {optimizer_class.__name__}.* Reason: "):
        optimizer_class(**{name: 2})
    with pytest.raises(ValueError, match=r"The optimizer must clip in one way; got \['clipnorm', 'clipvalue'\]"):
        optimizer_class(clipnorm=1.0, clipvalue=1.0)
    with pytest.raises(ValueError, match=r"`clipnorm` must be a finite number greater than 0"):
        optimizer_class(clipnorm=-1.0)


WRONG_SETTINGS = {
    "beta_1": [2.0, 1.0, -0.1, float("nan"), "a"],
    "beta_2": [1.0],
    "epsilon": [0.0, -1.0, float("inf")],
    "weight_decay": [-1.0, "a"],
    "initial_accumulator_value": [-1.0, float("nan")],
    "amsgrad": ["no"],
}


@pytest.mark.parametrize("optimizer_class", [LazyAdam, RowwiseAdagrad, RowwiseAdam])
@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_settings_out_of_range_are_refused(optimizer_class, name):
    if name != "weight_decay" and name not in inspect.signature(optimizer_class).parameters:
        pytest.skip("has no such setting")
    for value in WRONG_SETTINGS[name]:
        with pytest.raises(ValueError, match=rf"`{name}` must be .*; got|{name}"):
            optimizer_class(**{name: value})


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: LazyAdam(0.01, clipnorm=1.0), marks=pytest.mark.smoke),
        lambda: RowwiseAdagrad(0.1, weight_decay=0.01),
        lambda: RowwiseAdam(0.01, beta_2=0.99),
    ],
)
def test_a_run_resumes_after_reload_with_the_optimizers_state(make, tmp_path):
    x = small_input(96)

    def fit(model, epochs):
        model.fit(x, batch_size=32, epochs=epochs, shuffle=False, verbose=0)

    first = small_model()
    first.compile(make(), sampledsoftmaxloss)
    untrained = state_of(first)
    fit(first, 4)
    undisturbed = first.get_weights()
    put_back(first, untrained)
    fit(first, 2)
    first.save(tmp_path / "model.keras")
    second = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(second.optimizer) is type(first.optimizer)
    assert second.optimizer.get_config() == first.optimizer.get_config()
    fit(second, 2)
    for ours, theirs in zip(second.get_weights(), undisturbed, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
def test_mixed_precision_with_loss_scaling_trains():
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = small_model()
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(LazyAdam(0.01))
        model.compile(optimizer, sampledsoftmaxloss)
        before = model.get_layer("table_item").get_weights()[0]
        losses = model.fit(small_input(256), batch_size=32, epochs=4, verbose=0).history["loss"]
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    after = model.get_layer("table_item").get_weights()[0]
    assert losses[-1] < losses[0]
    assert np.all(np.isfinite(after))
    assert not np.array_equal(before, after)
