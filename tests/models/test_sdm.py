"""SDM's vectors from its weights, in float64, one user and one position after another; and its two histories."""

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import SDM
from deepmatch_ext._keras import input_name, keras
from tests.helpers import DIM, MAX_LEN, VOCABULARY, history_column, item_column

pytestmark = pytest.mark.slow

UNITS = 8
ROWS = 5
X = {
    "city": np.array([1, 2, 3, 1, 2]),
    "hist_item": np.array([[7, 6, 5, 4, 3, 2], [9, 0, 8, 7, 0, 0], [5, 0, 0, 0, 0, 0], [0] * 6, [3, 3, 1, 2, 0, 0]]),
    "hist_genre": np.array([[1, 2, 0, 3, 4, 1], [2, 0, 2, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0] * 6, [1, 1, 2, 2, 0, 0]]),
}
X["hist_len"] = (X["hist_item"] > 0).sum(axis=1)


def genre(name):
    return SparseFeat(name, 5, 4, embedding_name="genre")


def columns(with_user=True):
    history = [history_column(), VarLenSparseFeat(genre("hist_genre"), MAX_LEN, "mean", "hist_len")]
    return [*([SparseFeat("city", 9, 4)] if with_user else []), *history]


@pytest.fixture(scope="module")
def model():
    return randomised(SDM(columns(), [item_column()], units=UNITS, num_head=2, short_history=3, rnn_layers=2))


def vectors(model, x):
    """Without the time that it takes to trace `user_vectors`."""
    arrays = model.user_arrays(x)
    inputs = [tf.constant(arrays[input_name(tensor)]) for tensor in model.user_input]
    return keras.Model(model.user_input, model.user_emb)(inputs).numpy()


def randomised(model):
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.6, w.shape) if w.dtype.kind == "f" else w for w in model.get_weights()])
    return model


def weights_of(model, name):
    return [np.asarray(each, np.float64) for each in model.get_layer(name).get_weights()]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def dense(model, name, x):
    kernel, bias = weights_of(model, f"{name}_dense_1")
    return x @ kernel + bias


def asked(rows, query):
    return softmax(rows @ query / UNITS**0.5) @ rows if len(rows) else np.zeros(UNITS)


def lstm(model, place, rows):
    kernel, recurrent, bias = weights_of(model, f"lstm_{place}")
    h = c = np.zeros(UNITS)
    states = []
    for row in rows:
        i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states).reshape(-1, UNITS)


def self_attention(model, rows, heads=2):
    q, k, v, out = weights_of(model, "self_attention")
    width, came = UNITS // heads, []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        logits = (rows @ q)[:, part] @ (rows @ k)[:, part].T / width**0.5
        came.append(softmax(logits) @ (rows @ v)[:, part])
    return np.concatenate(came, axis=1) @ out


def layer_normalised(model, rows):
    scale, shift = weights_of(model, "normalized")
    deviation = np.sqrt(rows.var(axis=1, keepdims=True) + 1e-3)
    return (rows - rows.mean(axis=1, keepdims=True)) / deviation * scale + shift


def expected(model, row, query, short, long):
    """One user's vector from (item, genre) pairs, the most recent first."""
    items, genres = weights_of(model, "table_item")[0], weights_of(model, "table_genre")[0]

    def genre_row(id):
        return genres[id] if id else np.zeros(4)

    if query is None:
        queries = {name: weights_of(model, f"{name}_pooled")[0][0] for name in ("long_0", "long_1", "short")}
    else:
        queries = dict.fromkeys(("long_0", "long_1", "short"), query)
    of_items = np.array([dense(model, "long_0", items[i]) for i, _ in long]).reshape(-1, UNITS)
    of_genres = np.array([dense(model, "long_1", genres[g]) for _, g in long if g]).reshape(-1, UNITS)
    liked = np.concatenate([asked(of_items, queries["long_0"]), asked(of_genres, queries["long_1"])])
    long_emb = np.tanh(dense(model, "long", liked))
    states = [np.tanh(dense(model, "short", np.concatenate([items[i], genre_row(g)]))) for i, g in short[::-1]]
    if states:
        states = lstm(model, 0, states)
        states = states + lstm(model, 1, states)
        states = layer_normalised(model, states + self_attention(model, states))
    short_emb = asked(np.asarray(states), queries["short"])
    parts = [short_emb, long_emb] + ([] if query is None else [query])
    gate = sigmoid(dense(model, "gate", np.concatenate(parts)))
    fused = gate * short_emb + (1 - gate) * long_emb
    return fused / np.linalg.norm(fused)


def pairs(row):
    return [(i, g) for i, g in zip(X["hist_item"][row], X["hist_genre"][row], strict=True) if i]


@pytest.mark.parametrize("with_user", [True, False])
def test_the_vectors_are_the_papers(model, with_user):
    if not with_user:
        model = randomised(SDM(columns(False), [item_column()], units=UNITS, num_head=2, short_history=3))
    found = vectors(model, X)
    for row in range(ROWS):
        query = None
        if with_user:
            query = np.tanh(dense(model, "query", weights_of(model, "table_city")[0][X["city"][row]]))
        of_row = expected(model, row, query, pairs(row)[:3], pairs(row)[3:])
        np.testing.assert_allclose(found[row], of_row, atol=1e-5)


def test_batches_of_one_and_second_calls_give_the_same(model):
    found = model.user_vectors(X)
    np.testing.assert_allclose(model.user_vectors(X, batch_size=1), found, atol=1e-6)
    np.testing.assert_array_equal(model.user_vectors(X), found)


def split(oldest_first=False):
    """The same histories as columns of their own, the short one of three positions."""
    x = {"city": X["city"]}
    for kind, part in (("short", slice(None, 3)), ("prefer", slice(3, None))):
        rows = [np.array(pairs(row)[part]).reshape(-1, 2) for row in range(ROWS)]
        rows = [each[::-1] if oldest_first and kind == "short" else each for each in rows]
        x[f"{kind}_len"] = np.array([len(each) for each in rows])
        for place, name in enumerate(("item", "genre")):
            x[f"{kind}_{name}"] = np.array([[*each[:, place], 0, 0, 0][:3] for each in rows])
    return x


def test_the_same_histories_by_number_by_name_and_as_deepmatch_names_them(model):
    found = vectors(model, X)
    user = [SparseFeat("city", 9, 4)]
    for kind in ("short", "prefer"):
        item = SparseFeat(f"{kind}_item", VOCABULARY, DIM, embedding_name="item")
        user += [VarLenSparseFeat(each, 3, "mean", f"{kind}_len") for each in (item, genre(f"{kind}_genre"))]
    for arguments, x in (
        ({"short_history": ["short_item", "short_genre"]}, split()),
        ({"history_feature_list": ["item", "genre"]}, split(oldest_first=True)),
    ):
        other = SDM(user, [item_column()], units=UNITS, num_head=2, **arguments)
        other.set_weights(model.get_weights())
        np.testing.assert_allclose(vectors(other, x), found, atol=1e-6)


def test_each_lstm_has_weights_of_its_own_and_dropout_is_for_training_alone(model):
    first, second = (weights_of(model, f"lstm_{place}") for place in (0, 1))
    assert all((a != b).all() for a, b in zip(first, second, strict=True))
    rates = [layer.rate for layer in model.layers if type(layer).__name__ == "RepeatableDropout"]
    assert rates == [0.2] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"short_history": 6}, r"`short_history` must be less than the `maxlen` of 'hist_item'; got 6 of 6"),
        ({"short_history": ["no such"]}, r"`short_history` must name histories among the user columns; got 'no such'"),
        ({"short_history": "hist_item"}, r"`short_history` must be a list of names; got 'hist_item'"),
        ({"short_history": ["hist_item"]}, r"`short_history` must leave a history of items for `long_history`"),
        ({"short_history": ["hist_item"], "long_history": ["hist_item"]}, r"`long_history` must not repeat a name"),
        ({"history_feature_list": ["item"]}, r"`history_feature_list` must name histories .* got 'short_item'"),
        ({"history_feature_list": ["item"], "long_history": ["hist_item"]}, r"`long_history` must be left out with"),
        ({"num_head": 3}, r"`num_head` must divide `units`, 64; got 3"),
        ({"rnn_num_res": 3}, r"`rnn_num_res` must be at most `rnn_layers`, 2; got 3"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SDM(columns(), [item_column()], **arguments)
