"""DeepMatch's layers of sessions and of pairs, against their formulas in float64, one row after another."""

import numpy as np
import pytest

from deepmatch_ext import utils
from deepmatch_ext._keras import build_optimizer, keras
from deepmatch_ext.layers import (
    AttentionSequencePoolingLayer,
    ConcatAttention,
    DotAttention,
    DynamicMultiRNN,
    InBatchSoftmaxLayer,
    SelfAttention,
    SelfMultiHeadAttention,
    SoftmaxWeightedSum,
    UserAttention,
)
from deepmatch_ext.utils import NegativeSampler

B, T, C = 4, 5, 4
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(B, T, C)).astype("float32")
LENGTHS = np.array([[5], [3], [1], [0]])
VALID = np.arange(T) < LENGTHS
ROWS[~VALID] = 7e3  # what stands at padding is nobody's
USER = RNG.normal(size=(B, 1, 3)).astype("float32")


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def with_other_weights(layer, inputs):
    """The layer with weights that are not the first ones, and its weights in float64 by name."""
    layer(inputs)
    kept = list(layer.trainable_weights)
    for weight in kept:
        weight.assign(RNG.normal(size=weight.shape))
    return {weight.name.split("/")[-1].split(":")[0]: np.asarray(weight, "float64") for weight in kept}


def layer_norm(x, gamma, beta):
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * gamma + beta


def test_inner_product_is_of_each_row():
    x, y = RNG.normal(size=(2, 6, 3)).astype("float32")
    np.testing.assert_allclose(utils.inner_product(x, y, 0.5), (x * y).sum(axis=1, keepdims=True) / 0.5, rtol=1e-5)


def test_in_batch_softmax():
    users, items = RNG.normal(size=(2, 4, 3))
    ids, counts = np.array([[1], [2], [1], [3]]), [0, 7, 2, 1]
    spec = NegativeSampler("inbatch", 4, "item", item_count=counts)
    logits = users @ items.T / 0.5 - np.log(np.array(counts)[ids[:, 0]] / 10)
    logits[0, 2] = logits[2, 0] = -np.inf  # the same item
    expected = -np.log(np.diag(softmax(logits)))
    layer = InBatchSoftmaxLayer(spec._asdict(), temperature=0.5)
    inputs = [users.astype("float32"), items.astype("float32"), ids]
    for each in (layer, InBatchSoftmaxLayer(spec, 0.5)):
        np.testing.assert_allclose(each(inputs), expected[:, np.newaxis], rtol=1e-5)
    again = InBatchSoftmaxLayer.from_config(layer.get_config())
    again.build([np.shape(each) for each in inputs])
    again.set_weights(layer.get_weights())
    np.testing.assert_allclose(again(inputs), expected[:, np.newaxis], rtol=1e-5)
    with pytest.raises(ValueError, match="`sampler_config` must be DeepMatch's NegativeSampler with an `item_count`"):
        InBatchSoftmaxLayer(NegativeSampler("uniform", 4, "item"))


@pytest.mark.parametrize("scale", [True, False])
def test_scores(scale):
    divisor = C**0.5 if scale else 1
    query = RNG.normal(size=(B, 2, C)).astype("float32")
    np.testing.assert_allclose(
        DotAttention(scale)([query, ROWS]), np.einsum("bqc,btc->bqt", query, ROWS) / divisor, rtol=1e-4, atol=1e-4
    )
    layer, queries = ConcatAttention(scale), np.repeat(USER, T, axis=1)
    w = with_other_weights(layer, [queries, ROWS])
    both = np.concatenate([w["of_query"], w["of_key"]])
    expected = np.tanh(np.concatenate([queries, ROWS], axis=2) @ both + w["bias"]) @ w["weigh"] / divisor
    for each in (queries, USER):
        np.testing.assert_allclose(layer([each, ROWS]), np.swapaxes(expected, 1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("future_binding", [False, True])
def test_softmax_weighted_sum(future_binding):
    scores, values = RNG.normal(size=(2, B, T, T)).astype("float32")
    found = SoftmaxWeightedSum(future_binding=future_binding)([scores, values, VALID[:, np.newaxis]]).numpy()
    for b in range(B):
        for q in range(T):
            seen = VALID[b] & ((np.arange(T) <= q) | (not future_binding))
            expected = softmax(scores[b, q, seen].astype("float64")) @ values[b, seen] if seen.any() else 0
            np.testing.assert_allclose(found[b, q], expected, atol=1e-5)


def test_the_weights_of_a_sum_are_dropped_in_training_alone():
    inputs = [np.zeros((200, 1, 4), "float32"), np.ones((200, 4, 1), "float32"), np.ones((200, 1, 4), bool)]
    layer = SoftmaxWeightedSum(dropout_rate=0.5)
    np.testing.assert_allclose(layer(inputs), 1, rtol=1e-6)
    # Each of four weights is 0 or twice a quarter.
    assert set(np.unique(np.round(layer(inputs, training=True), 4))) == {0, 0.5, 1, 1.5, 2}


def test_attention_pooling_of_a_history():
    layer = AttentionSequencePoolingLayer()
    w = with_other_weights(layer, [USER, ROWS, LENGTHS])
    found = layer([USER, ROWS, LENGTHS]).numpy()
    assert found.shape == (B, 1, C)
    for b, n in enumerate(LENGTHS[:, 0]):
        hidden = np.tanh(USER[b] @ w["of_query"] + ROWS[b, :n] @ w["of_key"] + w["bias"])
        scores = (hidden @ w["weigh"])[:, 0] / C**0.5
        np.testing.assert_allclose(found[b, 0], softmax(scores) @ ROWS[b, :n] if n else 0, atol=1e-5)


@pytest.mark.parametrize("of_lengths", [True, False])
def test_self_attention(of_lengths):
    layer = SelfAttention()
    mask = LENGTHS if of_lengths else np.repeat(VALID[:, np.newaxis], T, axis=1)
    w = with_other_weights(layer, [ROWS, mask])
    found = layer([ROWS, mask]).numpy()
    for b, n in enumerate(LENGTHS[:, 0]):
        rows = ROWS[b, :n].astype("float64")
        scores = rows @ rows.T / C**0.5
        states = [softmax(scores[t, : t + 1]) @ rows[: t + 1] for t in range(n)]
        expected = np.mean([layer_norm(state, **w) for state in states], axis=0) if n else 0
        np.testing.assert_allclose(found[b, 0], expected, atol=1e-4)


@pytest.mark.parametrize("future_binding", [False, True])
def test_multi_head_self_attention(future_binding):
    layer = SelfMultiHeadAttention(num_units=C, head_num=2, future_binding=future_binding)
    w = with_other_weights(layer, [ROWS, LENGTHS])
    found = layer([ROWS, LENGTHS]).numpy()
    for b, n in enumerate(LENGTHS[:, 0]):
        rows = ROWS[b, :n].astype("float64")
        query, key, value = np.split(rows @ w["projections"], 3, axis=1)
        heads = np.zeros((n, C))
        for columns in (slice(0, 2), slice(2, 4)):
            scores = query[:, columns] @ key[:, columns].T / 2**0.5
            if future_binding:
                scores[np.triu_indices(n, 1)] = -np.inf
            heads[:, columns] = softmax(scores) @ value[:, columns] if n else 0
        expected = layer_norm(heads @ w["joined"] + rows, w["gamma"], w["beta"])
        np.testing.assert_allclose(found[b, :n], expected, atol=1e-4)
        np.testing.assert_array_equal(found[b, n:], 0)


@pytest.mark.parametrize("use_res", [False, True])
def test_user_attention(use_res):
    layer = UserAttention(num_units=C, use_res=use_res)
    w = with_other_weights(layer, [USER, ROWS, LENGTHS])
    found = layer([USER, ROWS, LENGTHS]).numpy()
    for b, n in enumerate(LENGTHS[:, 0]):
        rows = ROWS[b, :n].astype("float64")
        scores = np.tanh(USER[b, 0] @ w["kernel"] + w["bias"]) @ rows.T / C**0.5
        expected = softmax(scores) @ rows + use_res * rows.mean(axis=0) if n else 0
        np.testing.assert_allclose(found[b, 0], expected, atol=1e-4)


def test_an_lstm_by_hand():
    layer = DynamicMultiRNN(num_units=2, num_layers=1, num_residual_layers=0, forget_bias=3.0)
    found = layer([ROWS, LENGTHS]).numpy()
    kernel, recurrent, bias = (np.asarray(weight, "float64") for weight in layer.trainable_weights)
    assert bias.tolist() == [0, 0, 3, 3, 0, 0, 0, 0]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for b, n in enumerate(LENGTHS[:, 0]):
        state = memory = np.zeros(2)
        for t in range(n):
            enter, forget, new, leave = np.split(ROWS[b, t] @ kernel + state @ recurrent + bias, 4)
            memory = sigmoid(forget) * memory + sigmoid(enter) * np.tanh(new)
            state = sigmoid(leave) * np.tanh(memory)
            np.testing.assert_allclose(found[b, t], state, atol=1e-5)
        np.testing.assert_array_equal(found[b, n:], 0)


@pytest.mark.parametrize("rnn_type", ["LSTM", "GRU"])
def test_a_stack_of_recurrent_layers(rnn_type):
    layer = DynamicMultiRNN(None, rnn_type, dropout_rate=0.5)
    found = layer([ROWS, LENGTHS]).numpy()
    first, second = (
        DynamicMultiRNN(None, rnn_type, num_layers=1, num_residual_layers=0, dropout_rate=0) for _ in range(2)
    )
    weights = [weight for weight in layer.get_weights() if np.ndim(weight)]  # without the dropout's step
    assert (weights[0] != weights[len(weights) // 2]).any()  # a cell each
    for place, each in enumerate((first, second)):
        each.build([(None, T, C), (None, 1)])
        half = len(weights) // 2
        for weight, value in zip(each.trainable_weights, weights[place * half :][:half], strict=True):
            weight.assign(value)
    below = first([ROWS, LENGTHS])
    np.testing.assert_allclose(found, below + second([below, LENGTHS]), atol=1e-5)  # the last one is residual
    last = DynamicMultiRNN(None, rnn_type, return_sequence=False, dropout_rate=0.5)
    last.build([(None, T, C), (None, 1)])
    last.set_weights(layer.get_weights())
    of_last = last([ROWS, LENGTHS]).numpy()
    expected = [found[b, n - 1] if n else 0 * found[b, 0] for b, n in enumerate(LENGTHS[:, 0])]
    np.testing.assert_allclose(of_last[:, 0], expected, atol=1e-6)
    assert np.abs(layer([ROWS, LENGTHS], training=True) - found).max() > 0.01


LAYERS = [
    *(AttentionSequencePoolingLayer(0.1), ConcatAttention(False), DotAttention(False)),
    DynamicMultiRNN(4, "GRU", False, 3, 2, 0.1, 0.5),
    *(SelfAttention(False, 0.1, False, False, 7), SelfMultiHeadAttention(6, 3, False, 0.1, False, False, False, 7)),
    *(SoftmaxWeightedSum(0.1, True, 7), UserAttention(4, "relu", False, 0.1, False, 7)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_layer_comes_back_with_all_that_it_was_given(layer):
    config = layer.get_config()
    assert type(layer).from_config(config).get_config() == config
    # DeepMatch's names, by which its programs give them.
    deepmatchs = {key: value for key, value in config.items() if key not in ("name", "dtype", "trainable")}
    assert type(layer)(**deepmatchs).get_config().keys() == config.keys()


@pytest.mark.parametrize(
    ("layer", "inputs", "message"),
    [
        (SelfMultiHeadAttention(8, 4), [ROWS, LENGTHS], r"`num_units` must be the width of the rows, 4, .*; got 8"),
        (SelfMultiHeadAttention(4, 3), [ROWS, LENGTHS], r"`head_num` must divide `num_units`, 4; got 3"),
        (UserAttention(8), [USER, ROWS, LENGTHS], r"`num_units` must be the width of the rows, 4; got 8"),
        (UserAttention(), [USER, ROWS], r"The input of UserAttention must be a list of 3 tensors"),
        (DotAttention(), [USER, ROWS], r"The query must have the width of the keys, 4; got 3"),
        (DynamicMultiRNN(8, num_layers=1), [ROWS, LENGTHS], r"`num_units` must be the width of the rows, 4, if all"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(layer, inputs, message):
    with pytest.raises(ValueError, match=message):
        layer(inputs)


@pytest.mark.slow
def test_a_model_of_them_trains_and_reloads(tmp_path):
    user, rows, length, item = keras.Input((1, 3)), keras.Input((T, C)), keras.Input((1,)), keras.Input((1,))
    lengths = keras.layers.Rescaling(1.0)(length)
    states = DynamicMultiRNN(num_units=C)([rows, lengths])
    states = SelfMultiHeadAttention(num_units=C, head_num=2)([states, lengths])
    short = UserAttention(num_units=C)([user, states, lengths])
    long = AttentionSequencePoolingLayer(0.2)([user, rows, lengths])
    user_emb = keras.layers.Flatten()(keras.layers.Concatenate()([short, long]))
    item_emb = keras.layers.Dense(2 * C)(item)
    loss = InBatchSoftmaxLayer(NegativeSampler("inbatch", 4, "item", [0, 2, 1, 1])._asdict(), 0.5)
    model = keras.Model([user, rows, length, item], loss([user_emb, item_emb, keras.layers.Flatten()(item)]))
    model.compile("adam", utils.sampledsoftmaxloss)
    x = [USER, np.where(VALID[:, :, None], ROWS, 0), LENGTHS.astype("float32"), np.array([[1.0], [2], [1], [3]])]
    build_optimizer(model)  # or its variables are made in the first step, which is then traced twice
    before = np.mean(model(x))
    model.fit(x, np.ones(B), epochs=20, verbose=0)
    after = np.asarray(model(x))
    assert after.mean() < before
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(loaded(x), after, rtol=1e-5)
