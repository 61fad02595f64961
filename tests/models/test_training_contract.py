"""What Keras promises of `fit` holds for these models too: weights, ways to feed it, callbacks, loops of one's own."""

import contextlib
import gc
import re
import shutil
import threading
import weakref
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext._keras import KERAS_3, check_strategy
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.samplers import InBatchSampler
from deepmatch_ext.utils import sampledsoftmaxloss
from tests.helpers import (
    DIM,
    VOCABULARY,
    history_column,
    item_column,
    put_back,
    small_input,
    small_model,
    state_of,
    user_part,
)


def compiled(**options):
    model = small_model(dnn_dropout=0.2, sampler_config=None)
    model.compile(LazyAdam(0.01), sampledsoftmaxloss, **options)
    return model


POOL = []  # compiled models, and what they and their optimizers began with


@pytest.fixture
def fresh():
    """Gives a compiled model in its first state by its place; different places, different models.

    Most of what a test of `fit` takes is the tracing of it, once for each model.
    """

    def model_at(place=0):
        while len(POOL) <= place:
            model = compiled()
            POOL.append((model, state_of(model)))
        put_back(*POOL[place])
        return POOL[place][0]

    return model_at


@pytest.fixture(scope="module")
def plain():
    """A model whose optimizer has no state: its weights are all that it learns."""
    model = small_model(dnn_dropout=0.0)
    model.compile(tf.keras.optimizers.SGD(0.5), sampledsoftmaxloss)
    model.first_weights = model.get_weights()
    return model


def weights_after(model, *args, **options):
    """The trained weights after a `fit` from the model's first ones."""
    model.set_weights(model.first_weights)
    model.fit(*args, shuffle=False, verbose=0, **options)
    return [np.array(weight) for weight in model.trainable_weights]


def weights_of_fit(fresh, *args, **options):
    """The weights of a model after a `fit` from its first state."""
    model = fresh()
    model.fit(*args, verbose=0, **options)
    return model.get_weights()


def assert_equal(some, others, atol=0.0, **options):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=0, **options)


def assert_equal_weights(one, other, atol=0.0):
    assert_equal(one.get_weights(), other.get_weights(), atol)


def own_loop(model, x, weights, batch_size=32, epochs=1):
    """Training by hand, with the definition of the loss: the weighted sum over the batch's number of examples."""
    optimizer = LazyAdam(0.01)

    @tf.function
    def step(batch, weight):
        with tf.GradientTape() as tape:
            losses = model(batch, training=True)
            loss = tf.reduce_sum(losses[:, 0] * weight) / tf.cast(tf.shape(losses)[0], tf.float32)
            loss += tf.add_n(model.losses) if model.losses else 0.0
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    two_dimensional = {name: values.reshape(len(values), -1) for name, values in x.items()}
    pairs = tf.data.Dataset.from_tensor_slices((two_dimensional, weights.astype("float32"))).batch(batch_size)
    for _ in range(epochs):
        for batch, weight in pairs:
            step(batch, weight)


WEIGHTS = np.linspace(0, 2, 96)


@pytest.mark.slow
def test_sample_weights_weigh_the_loss_and_a_loop_of_ones_own_trains_like_fit(fresh):
    x = small_input(96)
    expected = weights_of_fit(fresh, x, sample_weight=WEIGHTS, batch_size=32, epochs=2, shuffle=False)
    model = fresh()
    own_loop(model, x, WEIGHTS, epochs=2)
    assert_equal(model.get_weights(), expected, atol=1e-6)


@pytest.mark.slow
def test_examples_of_weight_zero_teach_nothing(plain):
    """All that differs between the two runs is the history of the rows whose weight is 0."""
    x, weights = small_input(64), np.tile([1.0, 0.0], 32)
    other = {**x, "hist_item": x["hist_item"].copy()}
    other["hist_item"][1::2, 0] = 7
    options = {"sample_weight": weights, "batch_size": 16}
    assert_equal(weights_after(plain, x, **options), weights_after(plain, other, **options), atol=1e-7)


@pytest.mark.slow
def test_class_weights_are_the_sample_weights_of_the_labels(fresh):
    x, labels = small_input(96), np.arange(96) % 2
    ours = weights_of_fit(fresh, x, labels, class_weight={0: 0.5, 1: 2.0}, batch_size=32, epochs=2)
    theirs = weights_of_fit(fresh, x, sample_weight=np.where(labels == 1, 2.0, 0.5), batch_size=32, epochs=2)
    assert_equal(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("weights", [{0: 1.0, 1: np.nan}, {0: np.inf}, {0: -1.0}, {0: "much"}, {0: None}, [1.0, 2.0]])
def test_class_weights_that_are_no_numbers_are_refused(weights, fresh):
    model, x = fresh(), small_input(32)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"`class_weight` must map labels to finite numbers"):
        model.fit(x, np.arange(32) % 2, class_weight=weights, verbose=0)
    with pytest.raises(ValueError, match=r"`class_weight` must map labels to finite numbers"):
        model.train_on_batch(x, np.arange(32) % 2, class_weight=weights)
    assert_equal(model.get_weights(), before)


def test_class_weights_of_one_batch_come_with_labels(plain):
    x = small_input(4)
    for inputs in (x, [x["hist_item"], x["hist_len"], x["item"]]):
        with pytest.raises(ValueError, match=r"`class_weight` must come with labels, whose weights it has; got none"):
            plain.train_on_batch(inputs, class_weight={0: 5.0, 1: 1.0})


def test_labels_that_differ_are_told_of_where_nothing_reads_them(plain):
    x, labels = small_input(8), np.arange(8) % 2
    with pytest.warns(UserWarning, match="`y` has different labels, but this loss reads none: .* loss='logistic'"):
        plain.fit(x, labels, verbose=0)
    for same in (np.ones(8), np.zeros(8)):  # as Keras wants something for a loss that is added
        plain.fit(x, same, verbose=0)


def test_a_column_in_another_order_than_its_frame_is_told_of(plain):
    x = small_input(8)
    frame = pd.DataFrame({name: list(values) for name, values in x.items()}).sample(frac=1, random_state=0)
    for name, column in (("sample_weight", pd.Series(np.arange(1.0, 9))), ("y", pd.Series(np.ones(8)))):
        text = rf"`{name}` has the index of the frame in another order, .* order: {name}\.loc\[frame\.index\]"
        with pytest.warns(UserWarning, match=text):
            plain.fit(frame, **{name: column}, verbose=0)
        plain.fit(frame, **{name: column.loc[frame.index]}, verbose=0)
        plain.fit(frame, **{name: column.set_axis(column.index + 100)}, verbose=0)  # no order in common


def batch_of(x, start, size=32):
    return {name: values[start : start + size] for name, values in x.items()}


class Batches(tf.keras.utils.Sequence):
    def __init__(self, x, **options):
        super().__init__(**options)
        self.x = x

    def __len__(self):
        return 3

    def __getitem__(self, place):
        return (batch_of(self.x, 32 * place),)


def ways_to_feed(x):
    labels = np.ones((96, 1), "float32")
    yield "arrays", x, {"batch_size": 32}
    yield "arrays and labels", x, {"y": labels[:, 0], "batch_size": 32}
    yield "a list of arrays", [x["hist_item"], x["hist_len"], x["item"]], {"batch_size": 32}
    yield "dataset", tf.data.Dataset.from_tensor_slices(x).batch(32), {}
    yield "dataset of tuples of one", tf.data.Dataset.from_tensor_slices((x,)).batch(32), {}
    listed = (x["hist_item"], x["hist_len"], x["item"])
    yield "dataset of tuples of inputs", tf.data.Dataset.from_tensor_slices((listed,)).batch(32), {}
    yield "dataset without labels", tf.data.Dataset.from_tensor_slices((listed, None, labels)).batch(32), {}
    yield "dataset of pairs", tf.data.Dataset.from_tensor_slices((x, labels)).batch(32), {}
    yield "generator of x", (batch_of(x, start) for _ in range(2) for start in (0, 32, 64)), {"steps_per_epoch": 3}
    pairs = ((batch_of(x, start), np.ones(32)) for _ in range(2) for start in (0, 32, 64))
    yield "generator of pairs", pairs, {"steps_per_epoch": 3}
    yield "sequence", Batches(x), {}


@pytest.mark.slow
def test_every_way_to_feed_it_trains_alike(fresh):
    x, expected = small_input(96), None
    for name, data, options in ways_to_feed(x):
        weights = weights_of_fit(fresh, data, epochs=2, shuffle=False, **options)
        expected = expected or weights
        assert_equal(weights, expected, err_msg=name)


BAD = [
    ("item", 0, r"Input 'item' must hold ids in 1..29.* 0 is padding"),
    ("item", VOCABULARY, r"Input 'item' must hold ids in 1..29"),
    ("hist_item", -1, r"Input 'hist_item' must hold ids in 0..29"),
    ("hist_len", 7, r"Input 'hist_len' must hold lengths in 0..6, the history's `maxlen`"),
    ("hist_len", -1, r"Input 'hist_len' must hold lengths in 0..6"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_what_is_refused_in_arrays_is_refused_at_its_batch_elsewhere(name, value, message, plain):
    """And teaches nothing. (What counts the steps may have counted the one that failed: it doesn't wait for data.)"""
    good = small_input(96)
    x = {**good, name: good[name].copy()}
    x[name][70] = value
    expected = weights_after(plain, batch_of(good, 0, 64), batch_size=32)  # the two batches before it
    for kind, data, options in ways_to_feed(x):
        # All but datasets are checked by what checks arrays: once will do.
        if kind not in ("dataset", *(("generator of x", "generator of pairs", "sequence") if name == "item" else ())):
            continue
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)) as refusal:
            weights_after(plain, data, **options)
        assert re.search(message, str(refusal.value).replace("\\'", "'"))  # TensorFlow writes \' in its asserts
        assert_equal([np.array(weight) for weight in plain.trainable_weights], expected, err_msg=kind)


@pytest.mark.slow
def test_eager_mode_trains_like_the_graph(fresh):
    x, eager = small_input(96), compiled(run_eagerly=True)
    eager.fit(x, batch_size=32, shuffle=False, verbose=0)
    assert_equal(eager.get_weights(), weights_of_fit(fresh, x, batch_size=32, shuffle=False), atol=1e-5)


@pytest.mark.slow
def test_validation_leaves_the_training_as_it_was_and_repeats(fresh):
    x, validation = small_input(96), small_input(40, seed=9)
    expected = weights_of_fit(fresh, x, batch_size=32, epochs=2, shuffle=False)
    model = fresh()
    model.fit(x, batch_size=32, epochs=2, shuffle=False, verbose=0, validation_data=(validation, np.ones(40)))
    assert_equal(model.get_weights(), expected)
    assert model.evaluate(validation, verbose=0) == model.evaluate(validation, verbose=0)


@pytest.mark.slow
def test_a_validation_split_holds_the_last_rows_out(fresh):
    x, histories = small_input(64), []
    first, last = ({name: values[part] for name, values in x.items()} for part in (slice(48), slice(48, None)))
    for arguments in ({"x": x, "validation_split": 0.25}, {"x": first, "validation_data": last}):
        histories.append(fresh().fit(**arguments, batch_size=16, epochs=2, verbose=0).history)
    assert histories[0] == histories[1]
    assert set(histories[0]) == {"loss", "val_loss"}
    with pytest.raises(ValueError, match=r"`validation_split` must leave a row on both sides; got 0.999 of 64 rows"):
        fresh().fit(x, validation_split=0.999, verbose=0)


@pytest.mark.slow
def test_inputs_of_either_rank_and_any_integer_type_can_follow_each_other(fresh):
    model, x = fresh(), small_input(32)
    two_dimensional = {**x, "item": x["item"][:, None], "hist_len": x["hist_len"][:, None]}
    for form in (x, two_dimensional, {name: values.astype("int8") for name, values in x.items()}):
        batches = tf.data.Dataset.from_tensor_slices(form).batch(32)
        model.fit(form, verbose=0, validation_data=form, steps_per_epoch=None)
        model.fit(batches, verbose=0, validation_data=batches)
    small = YoutubeDNN([history_column(dtype="int8")], [item_column(dtype="uint16")], num_sampled=5)
    small.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    small.fit(x, verbose=0)


@pytest.mark.slow
def test_the_order_of_an_epoch_follows_from_seed_and_steps_however_threads_run(fresh):
    model = fresh()
    model.fit(small_input(64), batch_size=16, epochs=2, verbose=0)  # 8 steps
    place = model._training_place(4, {}, 4)
    for first_step in (9, 13, 17):
        np.testing.assert_array_equal(place.next_order(64), np.random.default_rng([1024, first_step]).permutation(64))


@pytest.mark.slow
def test_bad_datasets_are_refused(fresh):
    model, x = fresh(), small_input(64)
    with pytest.raises(ValueError, match=r"The dataset must be batched; got 'hist_len' of shape"):
        model.fit(tf.data.Dataset.from_tensor_slices(x), verbose=0)
    with pytest.raises(ValueError, match=r"`x` must be a dictionary of arrays, a frame, .*; got None"):
        model.fit()
    with pytest.raises(ValueError, match=r"The dataset's elements must have 'item'; got only"):
        model.fit(tf.data.Dataset.from_tensor_slices(user_part(x)).batch(8), verbose=0)
    x["hist_item"][5, 0] = 99
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Input .{1,3}hist_item.{1,3} must hold ids in 0..29"):
        model.fit(tf.data.Dataset.from_tensor_slices(x).batch(8), verbose=0)


@pytest.mark.slow
def test_a_dataset_of_tuples_of_inputs_is_held_to_the_same_rules(plain):
    x, labels, weights = small_input(8), np.zeros(8), np.ones(8)
    wrong = [
        ({"item": 0 * x["item"]}, weights, r"item.{1,3} must hold ids in 1..29"),
        ({"hist_len": 100 + x["hist_len"]}, weights, r"hist_len.{1,3} must hold lengths in 0..6"),
        ({}, -weights, r"sample_weight.{1,3} must hold finite numbers"),
        ({}, np.nan * weights, r"sample_weight.{1,3} must hold finite numbers"),
    ]
    for changed, given, message in wrong:
        inputs = tuple({**x, **changed}[name] for name in ("hist_item", "hist_len", "item"))
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            plain.fit(tf.data.Dataset.from_tensors((inputs, labels, given)), verbose=0)
    for others in (inputs, (inputs[:2],), inputs[0]):
        with pytest.raises(ValueError, match=r"elements must hold `x` by name, or as a tuple of the inputs hist"):
            plain.fit(tf.data.Dataset.from_tensors(others), verbose=0)


def test_a_dataset_of_another_type_is_refused_before_anything_runs(fresh):
    model, x = fresh(), small_input(32)
    for name, values, message in [
        ("item", x["item"] + 0.5, r"The dataset's 'item' must be of dtype int32; got float64"),
        ("hist_item", x["hist_item"].astype(str), r"The dataset's 'hist_item' must be of dtype int32; got string"),
        (
            "hist_len",
            x["hist_len"].astype("complex64"),
            r"The dataset's 'hist_len' must be of dtype int32; got complex64",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fit(tf.data.Dataset.from_tensor_slices({**x, name: values}).batch(8), verbose=0)


@pytest.mark.slow
def test_a_dataset_of_another_shape_is_refused(fresh):
    """Never cut into other rows: twelve ids a row would make two histories of six."""
    model, x = fresh(), small_input(32)
    before = model.get_weights()
    wide = {**x, "hist_item": np.tile(x["hist_item"], 2)}
    with pytest.raises(ValueError, match=r"The dataset's 'hist_item' must have the shape \('batch', 6\); got .*12"):
        model.fit(tf.data.Dataset.from_tensor_slices(wide).batch(8), verbose=0)
    spec = {name: tf.TensorSpec([None] * values.ndim, values.dtype) for name, values in wide.items()}
    unknown = tf.data.Dataset.from_generator(lambda: iter([wide]), output_signature=spec)
    turned = {**x, "hist_item": x["hist_item"].T}
    others = tf.data.Dataset.from_generator(lambda: iter([turned]), output_signature=spec)
    for dataset in (unknown, others):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"Input .{1,3}hist_item.{1,3} must hold values of shape"
        ):
            model.fit(dataset, verbose=0)
    for weight, former in zip(model.weights, before, strict=True):
        if "step" not in weight.name:  # counted before the data is waited for
            np.testing.assert_array_equal(weight, former)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "int8", "bool"])
def test_weights_of_a_dataset_may_have_any_type(dtype, plain):
    x, weights = small_input(32), np.tile([1, 0], 16)
    expected = weights_after(plain, x, sample_weight=weights)
    data = tf.data.Dataset.from_tensors((x, np.zeros((32, 1), "float32"), weights.astype(dtype)))
    assert_equal(weights_after(plain, data), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("is_known", [True, False], ids=["static shapes", "unknown shapes"])
def test_weights_of_a_dataset_are_one_a_row(is_known, plain):
    """One weight for a batch would be every row's, and a column of them has the rows' numbers."""
    x, weights = small_input(32), np.tile([1.0, 0.0], 16)
    expected = weights_after(plain, x, sample_weight=weights)
    assert_equal(weights_after(plain, x, sample_weight=weights[:, None]), expected)

    def dataset(of):
        element = (x, np.zeros((32, 1), "float32"), of)
        if is_known:
            return tf.data.Dataset.from_tensors(element)
        spec = tf.nest.map_structure(lambda values: tf.TensorSpec([None] * values.ndim, values.dtype), element)
        unknown = tf.data.Dataset.from_generator(lambda: iter([element]), output_signature=spec)
        return unknown.apply(tf.data.experimental.assert_cardinality(1))

    rule = r"sample_weight.{1,3} must hold values of shape \(.{1,3}batch.{1,3},\), in as many rows as the other inputs"
    for others in (weights[:1], weights[:31], weights[None], weights.sum()):
        with pytest.raises(tf.errors.InvalidArgumentError, match=rule):
            weights_after(plain, dataset(others))
    assert_equal(weights_after(plain, dataset(weights[:, None])), expected, atol=1e-6)


def test_inputs_of_a_dataset_with_other_numbers_of_rows_are_refused_before_anything_runs(fresh):
    model, x = fresh(), small_input(32)
    for name in x:
        rule = rf"The inputs of a batch of the dataset must have equal numbers of rows; got .*{name!r}: 31"
        with pytest.raises(ValueError, match=rule):
            model.fit(tf.data.Dataset.from_tensors({**x, name: x[name][:31]}), verbose=0)


@pytest.mark.slow
def test_weights_that_are_no_numbers_or_all_zero_are_refused(fresh):
    model, x = fresh(), small_input(32)
    before, weights = model.get_weights(), np.ones(32)
    with pytest.raises(
        ValueError, match=r"^`sample_weight` must be other than 0 in at least one row .* 0 in all of 32"
    ):
        model.fit(x, sample_weight=0 * weights, verbose=0)
    weights[5] = np.nan
    labels = np.zeros((32, 1))
    refused = pytest.raises(
        (ValueError, tf.errors.InvalidArgumentError), match=r"sample_weight.{1,3} must hold finite numbers"
    )
    for options in ({}, {"steps_per_epoch": 1}):
        with refused:
            model.fit(x, sample_weight=weights, verbose=0, **options)
    for one_batch in (model.train_on_batch, model.test_on_batch):
        with refused:
            one_batch(x, sample_weight=weights)
        with refused:
            one_batch(x, labels, weights)
    with refused:
        model.fit(iter([(x, labels, weights)]), steps_per_epoch=1, verbose=0)
    with refused:
        model.fit(tf.data.Dataset.from_tensors((x, labels, weights)), verbose=0)
    for weight, former in zip(model.weights, before, strict=True):
        if "step" not in weight.name:  # counted before the data is waited for
            np.testing.assert_array_equal(weight, former)


@pytest.mark.slow
def test_masked_weights_and_labels_are_refused(plain):
    """What is hidden is no data."""
    x, hidden = small_input(4), np.ma.array(np.ones(4), mask=[False, True, True, True])
    for name in ("sample_weight", "y"):
        rule = rf"`{name}` must have no masked values; got 3 masked\. Fill them first"
        for call in (plain.fit, plain.evaluate, plain.train_on_batch):
            with pytest.raises(ValueError, match=rule):
                call(x, **{name: hidden})
    plain.fit(x, sample_weight=np.ma.array(np.ones(4), mask=False), verbose=0)


def test_any_iterator_is_checked(fresh):
    bad = {**small_input(32), "item": np.zeros(32, "int32")}
    with pytest.raises(ValueError, match=r"Input 'item' must hold ids in 1\.\.29"):
        fresh().fit(iter([(bad,)]), steps_per_epoch=1, verbose=0)


@pytest.mark.slow
@pytest.mark.skipif(not KERAS_3, reason="tf-keras asks every Sequence for its length")
def test_a_dataset_in_python_need_have_no_end(fresh):
    class Endless(tf.keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, place):
            return (batch_of(small_input(96), place % 3 * 32),)

    ours = weights_of_fit(fresh, Endless(), steps_per_epoch=3, epochs=2, shuffle=False)
    assert_equal(ours, weights_of_fit(fresh, Batches(small_input(96)), epochs=2, shuffle=False))


@pytest.mark.slow
def test_unknown_keys_are_refused_as_targets(tmp_path):
    (tmp_path / "keys.csv").write_text("1,red\n2,green\n")
    hashed = {"use_hash": True, "vocabulary_path": str(tmp_path / "keys.csv"), "dtype": "string"}
    history = VarLenSparseFeat(SparseFeat("h", 3, DIM, embedding_name="i", **hashed), 2, "mean", "n")
    model = YoutubeDNN([history], [SparseFeat("i", 3, DIM, **hashed)], num_sampled=2)
    model.compile("adam", sampledsoftmaxloss)
    x = {"h": np.array([["red", "blue"]] * 4), "n": np.full(4, 2), "i": np.array(["red", "green", "red", "green"])}
    model.fit(x, verbose=0)  # in a history it is unknown and no more
    x["i"][2] = "blue"
    with pytest.raises(ValueError, match=r"Input 'i' must hold keys of '.*keys.csv'; got 1 others, such as .*blue"):
        model.fit(x, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Input .{1,3}i.{1,3} must hold keys of .*keys.csv"):
        model.fit(tf.data.Dataset.from_tensor_slices(x).batch(4), verbose=0)


def test_two_initializers_for_one_table_are_refused():
    zeros, ones = tf.keras.initializers.Zeros(), tf.keras.initializers.Ones()
    YoutubeDNN([history_column(embeddings_initializer=ones)], [item_column(embeddings_initializer=ones)])
    with pytest.raises(ValueError, match=r"'hist_item' and 'item', which share the table 'item', must have the same"):
        YoutubeDNN([history_column(embeddings_initializer=zeros)], [item_column(embeddings_initializer=ones)])


def test_the_check_of_ids_in_the_graph_can_be_left_out(tmp_path):
    checked, unchecked = small_model(), small_model(check_ids=False)
    unchecked.save(tmp_path / "model.keras")
    unchecked.compile("adam", sampledsoftmaxloss)
    tables = [
        model.get_layer("table_item") for model in (checked, tf.keras.models.load_model(tmp_path / "model.keras"))
    ]
    assert [table.check_ids for table in tables] == [True, False]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"table_item: ids must lie in 0\.\.29; got ids from, to"):
        tables[0](tf.constant([VOCABULARY]))
    with contextlib.suppress(tf.errors.InvalidArgumentError):  # TensorFlow's own, on a CPU
        tables[1](tf.constant([VOCABULARY]))
    with pytest.raises(ValueError, match=r"Input 'item' must hold ids in 1\.\.29"):  # on the way in all the same
        unchecked.fit({**small_input(32), "item": np.full(32, VOCABULARY)}, verbose=0)


class Stop(tf.keras.callbacks.Callback):
    """What a fault does: ends the process's `fit` in the midst of an epoch."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


RUN = {"batch_size": 32, "epochs": 4, "verbose": 0}  # 3 steps an epoch


@pytest.fixture(scope="module")
def undisturbed():
    """A model after such a run, and what its step was traced with."""
    model, traced = compiled(), []
    train_step = model.train_step
    model.train_step = lambda data: traced.append(data) or train_step(data)
    model.fit(small_input(96), **RUN)
    return model, traced


@pytest.mark.slow
def test_a_step_is_traced_once(undisturbed):
    """Twice if it created the optimizer's variables."""
    assert len(undisturbed[1]) == 1


def interrupted(models, folder, steps, change=lambda: None):
    """A run that stops after some steps and goes on in another model."""
    x, backup = small_input(96), tf.keras.callbacks.BackupAndRestore
    with pytest.raises(KeyboardInterrupt):
        models(0).fit(x, callbacks=[backup(str(folder)), Stop(steps)], **RUN)
    change()
    model = models(1)
    return model, model.fit(x, callbacks=[backup(str(folder))], **RUN)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [2, 7])
def test_a_run_that_stops_goes_on_with_backup_and_restore_as_if_nothing_had_been(steps, tmp_path, fresh, undisturbed):
    model, history = interrupted(fresh, tmp_path / "backup", steps)
    assert_equal_weights(model, undisturbed[0])
    assert len(history.epoch) == 4 - steps // 3
    # Keras 3 keeps the restored epoch on the model: another call of `fit` would begin there.
    assert len(model.fit(small_input(96), batch_size=32, epochs=1, verbose=0).epoch) == 1


@pytest.mark.slow
def test_a_run_goes_on_in_a_model_made_anew(tmp_path, fresh, undisturbed):
    model, history = interrupted(lambda place: compiled() if place else fresh(), tmp_path / "backup", 5)
    assert_equal_weights(model, undisturbed[0])
    assert history.epoch == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.skipif(not KERAS_3, reason="tf-keras has the epoch and the weights in one checkpoint")
@pytest.mark.parametrize("metadata", ['{"epoch": 1, "batch": 0}', '{"epo', None])
def test_a_backup_whose_epoch_was_not_written_goes_on_where_its_weights_are(metadata, tmp_path, fresh, undisturbed):
    """Killed after the weights of two epochs were written, and before or while the number of the epoch was."""

    def change():
        path = tmp_path / "backup" / "training_metadata.json"
        path.unlink() if metadata is None else path.write_text(metadata)

    model, history = interrupted(fresh, tmp_path / "backup", 7, change)
    assert_equal_weights(model, undisturbed[0])
    assert history.epoch == [2, 3]


@pytest.mark.slow
def test_the_same_model_goes_on_after_an_interruption(tmp_path, fresh, undisturbed):
    model = fresh()
    assert interrupted(lambda place: model, tmp_path / "backup", 7)[1].epoch == [2, 3]
    assert_equal_weights(model, undisturbed[0])


@pytest.mark.slow
def test_a_run_goes_on_in_a_model_that_was_loaded_before(tmp_path, fresh, undisturbed):
    """As a script does that loads its last checkpoint whenever it starts."""
    first = fresh(1)
    first.fit(small_input(96), **{**RUN, "epochs": 1})
    first.save(tmp_path / "first.keras")
    models = {0: fresh, 1: lambda place: tf.keras.models.load_model(tmp_path / "first.keras")}
    model, history = interrupted(lambda place: models[place](place), tmp_path / "backup", 7)
    assert history.epoch == [2, 3]
    assert_equal_weights(model, undisturbed[0])


@pytest.mark.slow
def test_a_frame_trains_like_its_columns():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user": rng.integers(1, 9, 64), "item": rng.integers(1, 9, 64), "more": "text"})
    weights = []
    for x in (frame, {name: frame[name].to_numpy() for name in ("user", "item")}):
        model = YoutubeDNN([SparseFeat("user", 9, 4)], [SparseFeat("item", 9, 4)], seed=1)
        model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
        fitted = model.fit(x, batch_size=32, validation_data=x, verbose=0)
        weights.append([*model.get_weights(), np.array(fitted.history["val_loss"])])
    assert all((a == b).all() for a, b in zip(*weights, strict=True))
    with pytest.raises(ValueError, match=r"must have 'user'; got only \['item'\]"):
        model.fit(frame[["item"]], verbose=0)


def test_a_strategy_that_does_not_train_here_is_refused():
    class TPUStrategy:
        num_replicas_in_sync = 2

    rule = r"The model must be built under another strategy; got the scope of a TPUStrategy\. Take .*MirroredStrategy"
    with (
        mock.patch.object(tf.distribute, "get_strategy", return_value=TPUStrategy()),
        mock.patch.object(tf.distribute, "has_strategy", return_value=True),
        pytest.raises(ValueError, match=rule),
    ):
        check_strategy()


@pytest.mark.slow
def test_evaluate_and_predict_take_keras_positional_arguments(plain, capsys):
    x = small_input()
    labels = np.ones((64, 1))
    assert plain.evaluate(x, labels, 32, 0) == pytest.approx(plain.evaluate(x, batch_size=32, verbose=0))
    assert plain.predict(x, 32, 0).shape == (64, 1)
    assert plain.evaluate(x, labels, 32, 0, np.full(64, 2.0)) == pytest.approx(2 * plain.evaluate(x, verbose=0))
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_evaluation_and_prediction_stop_after_so_many_steps(plain):
    x = small_input(64)
    part = batch_of(x, 0)
    assert plain.evaluate(x, batch_size=16, steps=2, verbose=0) == plain.evaluate(part, batch_size=16, verbose=0)
    np.testing.assert_array_equal(
        plain.predict(x, batch_size=16, steps=2, verbose=0), plain.predict(part, batch_size=16, verbose=0)
    )


@pytest.mark.slow
def test_callbacks_save_and_stop_early(tmp_path, fresh):
    x, held_out = small_input(96), small_input(32, seed=9)
    model, uncompiled = fresh(), small_model(sampler_config=None)
    callbacks = [
        tf.keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), monitor="val_loss", save_best_only=True),
        tf.keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.weights.h5"), save_weights_only=True),
        # The loss falls, and "max" takes the first epoch for the best.
        tf.keras.callbacks.EarlyStopping(monitor="val_loss", mode="max", patience=1, restore_best_weights=True),
    ]
    history = model.fit(x, validation_data=held_out, batch_size=32, epochs=6, verbose=0, callbacks=callbacks)
    losses = history.history["val_loss"]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 2
    assert sorted(path.name for path in tmp_path.glob("*.weights.h5")) == ["1.weights.h5", "2.weights.h5"]
    best = tf.keras.models.load_model(tmp_path / "best.keras")
    assert best.evaluate(held_out, verbose=0) == pytest.approx(losses[1], rel=1e-5)
    uncompiled.load_weights(tmp_path / "1.weights.h5")
    assert_equal_weights(model, uncompiled)


def test_tensorboard_logs(tmp_path, fresh):
    pytest.importorskip("tensorboard", reason="TensorBoard is not among the test requirements")
    callback = tf.keras.callbacks.TensorBoard(str(tmp_path / "logs"), histogram_freq=1, write_graph=False)
    fresh().fit(small_input(96), validation_data=small_input(32), verbose=0, callbacks=[callback])
    assert list((tmp_path / "logs").rglob("events*"))


def test_a_model_can_be_read_in_its_summary(capsys):
    small_model().summary(line_length=120)
    text = capsys.readouterr().out
    for name in ("hist_item", "hist_len", "table_item", "user_dense_1", "user_emb", "candidates", "loss"):
        assert name in text


def test_a_model_can_be_read_in_its_plot(tmp_path):
    pytest.importorskip("pydot")
    model = small_model()
    graph = tf.keras.utils.model_to_dot(model, show_shapes=True, show_layer_names=True).to_string()
    for layer in model.layers:
        assert layer.name in graph
    if shutil.which("dot"):  # graphviz, which draws it
        tf.keras.utils.plot_model(model, str(tmp_path / "model.png"), show_shapes=True)
        assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_models_in_one_process_leave_each_other_alone(fresh, plain):
    x = small_input(96)
    expected = weights_of_fit(fresh, x, batch_size=32, epochs=2)
    first, second = fresh(), plain
    for _ in range(2):
        first.fit(x, batch_size=32, verbose=0)
        second.fit(x, batch_size=32, verbose=0)
    assert_equal(first.get_weights(), expected)
    assert np.abs(first.item_vectors() - second.item_vectors()).max() > 0.01


# As errors these end in tracebacks that autograph keeps, with all that they hold.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_that_nobody_holds_leaves_the_memory():
    """Whatever it has done, and with all graphs that read its tables: these stay in memory as long as a graph does."""
    x, known = small_input(64), weakref.WeakSet()
    for turn in range(2):
        model = small_model("mean", user_dnn_hidden_units=(DIM,))
        model.compile(LazyAdam(0.01))
        model.fit(x, validation_data=x, verbose=0)
        model.fit(tf.data.Dataset.from_tensor_slices(x).batch(32), verbose=0)
        model.user_vectors(x)
        model.item_vectors()
        reference = weakref.ref(model)
        del model
        gc.collect()
        assert reference() is None
        left = [each for each in gc.get_objects() if isinstance(each, tf.__internal__.FuncGraph)]
        # What is traced once for all models was traced for the first.
        assert turn == 0 or all(each in known for each in left)
        known.update(left)
        del left


@pytest.mark.slow
def test_a_clone_is_a_model_of_the_same_layers(trained):
    """On Keras 3 a plain one without our attributes: there `clone_model` asks no functional model for its own way."""
    model, x = trained
    clone = tf.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    tensors = {name: tf.constant(values.reshape(len(values), -1)) for name, values in x.items()}
    np.testing.assert_allclose(clone(tensors), model(tensors), atol=1e-6)
    assert hasattr(clone, "user_input") != KERAS_3
    again = type(model).from_config(model.get_config())  # what docs tell to do instead
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again.user_vectors(x), model.user_vectors(x))
    clone.compile(LazyAdam(0.01), sampledsoftmaxloss, run_eagerly=True)
    clone.fit(batch_of(tensors, 0), np.zeros((32, 1)), verbose=0)  # and leaves the first one alone
    np.testing.assert_array_equal(again.item_vectors(), model.item_vectors())


@pytest.mark.slow
def test_threads_predict_at_once(trained):
    model, x = trained
    users, items = model.user_vectors(x), model.item_vectors()
    fresh, wrong = small_model(), []
    fresh.set_weights(model.get_weights())  # nothing is traced yet: the threads race for it

    def predict():
        for _ in range(5):
            if not np.array_equal(fresh.user_vectors(x), users) or not np.array_equal(fresh.item_vectors(), items):
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def fit_from_workers(model, x):
    """Keras's workers make the batches; they are forked from a process in which TensorFlow runs."""
    options = {"workers": 2, "use_multiprocessing": True}
    batches = Batches(x, **(options if KERAS_3 else {}))
    model.fit(batches, epochs=2, shuffle=False, verbose=0, **({} if KERAS_3 else options))


@pytest.mark.slow
def test_forked_workers_feed_a_fit_and_are_checked(fresh):
    x, model = small_input(96), fresh()
    fit_from_workers(model, x)
    weights = model.get_weights()
    assert_equal(weights, weights_of_fit(fresh, x, batch_size=32, epochs=2, shuffle=False))
    x["hist_len"][70] = 7
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"Input .{1,3}hist_len.{1,3} must hold len"):
        fit_from_workers(model, x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 1e-38}, "`temperature` must be at least 1e-06; got 1e-38"),
        ({"dnn_activation": "relo"}, "`dnn_activation` must be a name that Keras knows.*; got 'relo'"),
        ({"output_activation": 3}, "`output_activation` must be a name that Keras knows.*; got 3"),
        ({"dnn_use_bn": "no"}, "`dnn_use_bn` must be True or False; got 'no'"),
        ({"user_dnn_hidden_units": "64"}, "`user_dnn_hidden_units` must be a list of integers; got '64'"),
    ],
)
def test_arguments_of_a_builder_are_refused_in_our_words(arguments, message):
    with pytest.raises(ValueError, match=message):
        small_model(**{"user_dnn_hidden_units": (DIM,), **arguments})


@pytest.mark.slow
def test_a_batch_of_one_has_no_negatives_of_its_own(plain):
    model = small_model(sampler_config=InBatchSampler())
    model.compile("sgd", run_eagerly=True)
    for x, options in ((small_input(4), {"batch_size": 1}), (small_input(1), {})):
        with pytest.raises(ValueError, match=r"`batch_size` must be at least 2 if the batch's items are the neg"):
            model.fit(x, verbose=0, **options)
        with pytest.raises(ValueError, match=r"`batch_size` must be at least 2 if the batch's items are the neg"):
            model.evaluate(x, verbose=0, **options)
    held_out = r"The number of held-out rows in a batch must be at least 2 if .* the negatives; got 1\. Or take another"
    for options in (
        {"validation_data": small_input(1)},
        {"validation_data": small_input(4), "validation_batch_size": 1},
        {"validation_split": 0.25},
    ):
        with pytest.raises(ValueError, match=held_out):
            model.fit(small_input(4), verbose=0, **options)
    for one_batch in (model.train_on_batch, model.test_on_batch):
        with pytest.warns(UserWarning, match=r"The number of rows must be at least 2 if .* loss of this batch is 0"):
            assert one_batch(small_input(1)) == 0
    with pytest.warns(UserWarning, match="The loss of the evaluated examples was always 0, which says nothing"):
        model.evaluate(tf.data.Dataset.from_tensors(small_input(1)), verbose=0)
    plain.fit(small_input(2), batch_size=1, verbose=0)  # its negatives are drawn


@pytest.mark.slow
def test_an_evaluation_in_which_no_row_weighs_anything_is_refused(plain):
    """Its loss would be 0, the best of all."""
    x, none = small_input(4), np.zeros(4)
    rule = r"`sample_weight` must be other than 0 in at least one row that is {}; got 0 in all of {}"
    with pytest.raises(ValueError, match=rule.format("evaluated", 4)):
        plain.evaluate(x, sample_weight=none)
    for one_batch, done in ((plain.train_on_batch, "trained on"), (plain.test_on_batch, "evaluated")):
        with pytest.warns(UserWarning, match=rule.format(done, 4)):
            assert one_batch(x, sample_weight=none) == 0
    with pytest.raises(ValueError, match=rule.format("held out", 4)):
        plain.fit(x, validation_data=(x, None, none), verbose=0)
    with pytest.raises(ValueError, match=rule.format("held out", 1)):
        plain.fit(x, sample_weight=np.array([1, 1, 1, 0]), validation_split=0.25, verbose=0)
    dataset = tf.data.Dataset.from_tensors((x, None, none))
    with pytest.warns(UserWarning, match="The loss of the evaluated examples was always 0, which says nothing"):
        plain.fit(x, validation_data=dataset, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": 3}, r"`x` must be a dictionary of arrays, a frame, .*; got 3"),
        ({"x": "data.csv"}, r"`x` must be .*; got 'data.csv'"),
        ({"x": np.zeros((2, 2))}, r"`x` must be .*; got ndarray of float64, shape \(2, 2\)"),
        ({"validation_data": 3}, r"`validation_data` must be a dictionary of arrays, a frame, .*; got 3"),
        ({"epochs": "3"}, r"`epochs` must be an integer of at least 0; got '3'"),
        ({"validation_batch_size": -3}, r"`validation_batch_size` must be an integer of at least 1; got -3"),
        ({"validation_batch_size": 0}, r"`validation_batch_size` must be an integer of at least 1; got 0"),
        ({"validation_steps": 2.5}, r"`validation_steps` must be an integer of at least 1; got 2\.5"),
        ({"steps_per_epoch": 0}, r"`steps_per_epoch` must be an integer of at least 1; got 0"),
        ({"steps_per_epoch": 2.5}, r"`steps_per_epoch` must be an integer of at least 1; got 2\.5"),
        ({"initial_epoch": "1"}, r"`initial_epoch` must be an integer of at least 0; got '1'"),
        ({"validation_freq": 0}, r"`validation_freq` must be an integer of at least 1; got 0"),
        ({"validation_freq": [2, "3"]}, r"`validation_freq` must be an integer of at least 1; got '3'"),
        ({"verbose": "2"}, r"`verbose` must be 'auto', 0, 1 or 2; got '2'"),
        ({"verbose": 3}, r"`verbose` must be 'auto', 0, 1 or 2; got 3"),
        ({"epochs": 2**70}, r"`epochs` must be an integer of at most"),
        ({"callbacks": "stop"}, r"`callbacks` must be a list of Keras callbacks; got 'stop'"),
        ({"callbacks": [None]}, r"`callbacks` must be a list of Keras callbacks; got None"),
        ({"shuffle": "yes"}, r"`shuffle` must be True, False or 'batch'; got 'yes'"),
        ({"validation_split": "half"}, r"`validation_split` must be a number; got 'half'"),
        ({"class_weight": {"a": 1}}, r"`class_weight` must map integer labels .*; got the label 'a'"),
        (
            {"class_weight": {1: 2.0}},
            r"`class_weight` must come with labels, whose weights it has; got none\. Weigh rows",
        ),
        ({"class_weight": {1: 2.0}, "x": [*small_input(4).values()]}, r"`class_weight` must come with labels"),
        (
            {"class_weight": {1: 2.0}, "x": tf.data.Dataset.from_tensors(small_input(4))},
            r"`class_weight` must come with labels",
        ),
        (
            {"validation_data": (small_input(4), None, None, None)},
            r"`validation_data` must be x, \(x, y\) or .*; got 4",
        ),
        (
            {"x": tf.data.Dataset.from_tensors({**small_input(4), "hist_item": small_input(4)["hist_item"] > 5})},
            r"The dataset's 'hist_item' must hold ids in .*; got booleans\. A mask selects ids",
        ),
        ({"sample_weight": np.array([1.0, 1, -0.5, 0])}, r"`sample_weight` must hold finite numbers in 0\.\..*-0\.5"),
        (
            {"x": {**small_input(4), "hist_item": small_input(4)["hist_item"] > 5}},
            r"'hist_item' must hold ids .*booleans",
        ),
    ],
)
def test_arguments_of_fit_are_refused_in_our_words(plain, arguments, message):
    with pytest.raises(ValueError, match=message):
        plain.fit(**{"x": small_input(4), "verbose": 0, **arguments})


@pytest.mark.slow
def test_arguments_of_evaluate_and_predict_are_refused_in_our_words(plain):
    x = small_input(4)
    for call in (plain.evaluate, plain.predict):
        for arguments, message in [
            ({"steps": 0}, "`steps` must be an integer of at least 1; got 0"),
            ({"steps": "1"}, "`steps` must be an integer of at least 1; got '1'"),
            ({"verbose": None}, "`verbose` must be 'auto', 0, 1 or 2; got None"),
            ({"callbacks": "stop"}, "`callbacks` must be a list of Keras callbacks; got 'stop'"),
            ({"batch_size": 0}, "`batch_size` must be an integer of at least 1; got 0"),
            ({"batch_size": "2", "x": tf.data.Dataset.from_tensors(x)}, "`batch_size` must be an integer of at least"),
        ]:
            with pytest.raises(ValueError, match=message):
                call(**{"x": x, **arguments})


@pytest.mark.slow
def test_whole_numbers_of_fit_may_be_numpys_or_left_out(plain):
    x, one = small_input(4), np.int64(1)
    counts = dict.fromkeys(("steps_per_epoch", "validation_steps", "validation_batch_size"), one)
    options = {"validation_data": x, "batch_size": 2, "epochs": 2, "validation_freq": (2,), "verbose": np.int64(0)}
    history = plain.fit(x, **options, **counts).history
    assert (len(history["loss"]), len(history["val_loss"])) == (2, 1)
    plain.fit(x, verbose=False, **dict.fromkeys((*counts, "initial_epoch")))


@pytest.mark.slow
def test_a_layer_that_is_frozen_or_freed_after_compile_is_refused(plain):
    """Or what is trained would depend on the Keras, and on the number of steps; test_youtubednn.py compiles again."""
    x, table = small_input(4), plain.get_layer("table_item")
    rule = r"`trainable` of each layer must be as it was .* compiled; got another one since for 'table_item'\. Call"
    table.trainable = False
    try:
        for train in (plain.fit, plain.train_on_batch):
            with pytest.raises(ValueError, match=rule):
                train(x)
        plain.test_on_batch(x)
    finally:
        table.trainable = True
    plain.train_on_batch(x)


@pytest.mark.parametrize("path", [3, None, ["model.keras"]])
def test_files_that_are_no_paths_are_refused(plain, path):
    for call in (plain.save, plain.save_weights, plain.load_weights):
        with pytest.raises(ValueError, match="`filepath` must be a path; got "):
            call(path)
