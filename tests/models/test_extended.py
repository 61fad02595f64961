"""Models that grow: what they knew is kept, and new rows begin where something is known of them."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext._keras import optimizer_variables
from deepmatch_ext.data import IdMap
from deepmatch_ext.optimizers import LazyAdam, RowwiseAdagrad, RowwiseAdam
from deepmatch_ext.retrieval import top_n
from deepmatch_ext.samplers import (
    AdaptiveSampler,
    FrequencySampler,
    InBatchSampler,
    MixedSampler,
    QueueSampler,
    UniformSampler,
)
from tests.helpers import DIM, VOCABULARY, history_column, item_column, small_input, small_model

LARGER = VOCABULARY + 5
CATALOGUE = pd.DataFrame({"genre": np.arange(VOCABULARY - 1) % 4}, index=range(1, VOCABULARY))
NEW = pd.DataFrame({"genre": [4, 0, 5, 1, 2]}, index=range(VOCABULARY, LARGER))


def rich_model(optimizer, sampler_config):
    """A model with a catalogue and a table beside the item's, trained for two epochs; and its input."""
    columns = [history_column("recency+last"), SparseFeat("user", 10, 4)]
    model = YoutubeDNN(
        columns, [item_column(), SparseFeat("genre", 4, 4)], sampler_config=sampler_config, item_features=CATALOGUE
    )
    model.compile(optimizer, run_eagerly=True)
    x = {**small_input(), "user": np.arange(64) % 10}
    model.fit(x, batch_size=32, epochs=2, verbose=0)
    return model, x


@pytest.fixture(scope="module")
def grown():
    sampler = MixedSampler([InBatchSampler(memory=50), QueueSampler(9, memory=50), UniformSampler(5)])
    model, x = rich_model(LazyAdam(1e-2), sampler)
    larger = model.extended({"item": LARGER, "user": 12, "genre": 6}, item_features=NEW)
    return model, larger, x


def weights_of(model, layer):
    return dict(zip((w.name.split("/")[-1].split(":")[0] for w in layer.weights), layer.get_weights(), strict=True))


@pytest.mark.smoke
def test_what_a_model_knew_is_kept(grown):
    model, larger, x = grown
    np.testing.assert_allclose(larger.item_vectors()[:VOCABULARY], model.item_vectors(), atol=1e-6)
    np.testing.assert_allclose(larger.user_vectors(x), model.user_vectors(x), atol=1e-6)
    for layer in model.layers:
        after = weights_of(larger, larger.get_layer(layer.name))
        for name, before in weights_of(model, layer).items():
            kept = after[name][: len(before)] if before.ndim else after[name]
            np.testing.assert_array_equal(kept, before, err_msg=f"{layer.name} {name}")


def test_the_optimizers_state_is_kept_and_that_of_new_rows_begins_anew(grown):
    model, larger, _ = grown
    before, after = optimizer_variables(model), optimizer_variables(larger)
    assert int(larger.optimizer.iterations) == 4
    grew = 0
    for old, new in zip(before, after, strict=True):
        old, new = np.asarray(old.numpy()), np.asarray(new.numpy())
        np.testing.assert_array_equal(new[: len(old)] if old.ndim else new, old)
        grew += old.shape != new.shape
        if old.shape != new.shape:
            assert not new[len(old) :].any()
    assert grew == 6  # two moments of three tables


def test_counts_that_were_learnt_are_kept_and_new_items_have_none(grown):
    model, larger, _ = grown
    before, after = (weights_of(each, each.candidates) for each in (model, larger))
    counts = [name for name in before if name.endswith("_count")]
    assert len(counts) == 2
    for name in counts:
        np.testing.assert_array_equal(after[name], np.append(before[name], np.zeros(5, int)))
    assert after["step"] == before["step"] == 4


def test_new_items_of_a_catalogue_begin_from_their_features(grown):
    _, larger, _ = grown
    encoder = tf.keras.Model(larger.item_input, larger.item_emb)
    features = {"item": np.zeros((5, 1), "int32"), "genre": NEW[["genre"]].to_numpy("int32")}
    expected = encoder.predict(features, verbose=0)
    np.testing.assert_allclose(larger.item_vectors()[VOCABULARY:], expected, atol=1e-6)
    # Once an item is trained, its row is read. It is the one that stood for it.
    table = larger.get_layer("table_item").get_weights()[0]
    np.testing.assert_array_equal(table[VOCABULARY:], np.repeat(table[:1], 5, axis=0))
    # Of new categories, and of new users, nothing is known: they begin in the midst of the others.
    for name, size in (("user", 10), ("genre", 4)):
        rows = larger.get_layer(f"table_{name}").get_weights()[0]
        np.testing.assert_allclose(rows[size:], np.repeat(rows[1:size].mean(0, keepdims=True), 2, axis=0), rtol=1e-5)


@pytest.mark.slow
def test_a_larger_model_trains_on_new_items(grown):
    _, larger, x = grown
    before, copy = larger.item_vectors(), larger.extended({})
    copy.run_eagerly = True
    new = {**x, "item": np.resize(np.arange(VOCABULARY, LARGER), 64), "user": np.arange(64) % 12}
    copy.fit(new, batch_size=32, epochs=3, verbose=0)
    # The users' vectors move towards those of the new items, which are known from then on by their own rows.
    gain = np.sum(copy.user_vectors(new) * copy.item_vectors()[new["item"]], axis=1)
    assert gain.mean() > np.sum(larger.user_vectors(new) * before[new["item"]], axis=1).mean() + 0.1
    np.testing.assert_array_equal(larger.item_vectors(), before)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [LazyAdam, RowwiseAdagrad, RowwiseAdam, tf.keras.optimizers.Adam])
def test_a_model_that_does_not_grow_trains_on_as_the_one_before(optimizer):
    model = small_model(sampler_config=AdaptiveSampler(10, memory=40), dnn_dropout=0.1)
    model.compile(optimizer(1e-2), run_eagerly=True)
    x = small_input()
    model.fit(x, batch_size=32, verbose=0)
    same = model.extended({})
    same.run_eagerly = True
    for each in (model, same):
        each.fit(x, batch_size=32, verbose=0)
    for before, after in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_new_items_begin_the_nearer_to_those_that_are_alike_the_more_there_are():
    model = small_model()
    near = [7] * 20 + [9] * 10 + [7]
    larger = model.extended({"hist_item": VOCABULARY + 3}, alike=([0, 30, 31, 31], near))
    as_new = model.extended({"hist_item": VOCABULARY + 3}).get_layer("table_item").get_weights()[0][VOCABULARY:]
    table, norm = model.get_layer("table_item").get_weights()[0], np.linalg.norm
    rows = larger.get_layer("table_item").get_weights()[0][VOCABULARY:]
    for row, chance, mean, length, share in [
        (rows[0], as_new[0], (2 * table[7] + table[9]) / 3, (2 * norm(table[7]) + norm(table[9])) / 3, 30 / 60),
        (rows[1], as_new[1], table[7], norm(table[7]), 1 / 31),
    ]:
        direction = share * mean / norm(mean) + (1 - share) * chance / norm(chance)
        np.testing.assert_allclose(row, length * direction / norm(direction), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(rows[2], as_new[2])
    assert 0 < np.abs(rows[2]).max() < 1
    assert model.item_vectors().shape == (VOCABULARY, DIM)
    assert not hasattr(larger, "optimizer") or larger.optimizer is None


def test_tables_of_any_name_grow():
    history = VarLenSparseFeat(SparseFeat("hist", VOCABULARY, DIM, embedding_name="影片 id"), 5, "mean", "len")
    model = YoutubeDNN([history], [SparseFeat("影片 id", VOCABULARY, DIM)], num_sampled=5)
    larger = model.extended({"影片 id": VOCABULARY + 1}, alike=([0, 1], [7]))
    np.testing.assert_allclose(larger.item_vectors()[:VOCABULARY], model.item_vectors(), atol=1e-6)


@pytest.mark.slow
def test_a_sampler_with_counts_needs_those_of_the_new_items():
    model = small_model(sampler_config=FrequencySampler(10, np.arange(VOCABULARY)))
    with pytest.raises(ValueError, match="`sampler_config` must be given for a larger vocabulary"):
        model.extended({"item": LARGER})
    counts = np.append(np.arange(VOCABULARY), [3, 0, 0, 1, 2])
    larger = model.extended({"item": LARGER}, sampler_config=FrequencySampler(10, counts))
    expected = FrequencySampler(10, counts).state(LARGER)["log_q"]
    np.testing.assert_array_equal(weights_of(larger, larger.candidates)["sampler_log_q"], expected)


def described():
    return YoutubeDNN(
        [history_column()],
        [item_column(), SparseFeat("genre", 4, 4)],
        num_sampled=5,
        item_features=CATALOGUE,
    )


def test_what_cannot_be_is_refused_by_name():
    model = small_model()
    for sizes, words in [
        ({"colour": 9}, r"`vocabulary_sizes` must have names of columns with ids, \['hist_item', 'item'\]"),
        ({"item": VOCABULARY - 1}, "'item' in `vocabulary_sizes` must be .* at least 30.* Tables don't shrink"),
        ({"item": LARGER, "hist_item": LARGER + 1}, "'hist_item' in `vocabulary_sizes` must be 35, as another column"),
        ([("item", 40)], "`vocabulary_sizes` must map names"),
        ({"item": 40.5}, "'item' in `vocabulary_sizes` must be an integer"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.extended(sizes)
    with pytest.raises(ValueError, match="`alike`"):
        model.extended({"item": VOCABULARY + 1}, alike=([0, 1], [VOCABULARY]))
    with pytest.raises(ValueError, match="`item_features` must be left out"):
        model.extended({"item": VOCABULARY + 1}, item_features=CATALOGUE)
    pretrained = small_model_with_table()
    with pytest.raises(ValueError, match="The table 'item' must be initialised by an initializer"):
        pretrained.extended({"item": VOCABULARY + 1})
    hashed = YoutubeDNN(
        [history_column(), SparseFeat("city", 10, 4, use_hash=True, dtype="string")], [item_column()], num_sampled=5
    )
    with pytest.raises(ValueError, match="Column 'city' must not be hashed"):
        hashed.extended({"city": 20})
    with pytest.raises(ValueError, match="Column 'city' must not be hashed, to have rows to spare"):
        hashed.extended({}, in_use={"city": 5})
    rich = described()
    with pytest.raises(ValueError, match="`item_features` must be given for new items"):
        rich.extended({"item": LARGER})
    with pytest.raises(ValueError, match=r"`item_features` must describe each new item; got none of .*\[32, 33, 34\]"):
        rich.extended({"item": LARGER, "genre": 6}, item_features=NEW.iloc[:2])


def test_rows_to_spare_have_vectors_that_are_left_out_by_their_ids():
    model, ids = small_model(), IdMap(range(100, 100 + VOCABULARY))  # one more item than the model has
    near = ([0, 30], np.full(30, 7))
    larger = model.extended({"item": VOCABULARY + 50}, alike=near)
    exact = model.extended({"item": VOCABULARY + 1}, alike=near)
    in_use = larger.item_vectors(ids=np.arange(ids.vocabulary_size))
    np.testing.assert_array_equal(in_use[:VOCABULARY], exact.item_vectors()[:VOCABULARY])
    # The new item is half way to its like, wherever its random start was; the rows behind it are at random.
    assert in_use[VOCABULARY] @ in_use[7] > 0.5
    assert abs(larger.item_vectors()[VOCABULARY + 1 :] @ in_use[7]).mean() < 0.5
    users = larger.user_vectors(small_input())
    lists, _ = top_n(users, in_use, ids.vocabulary_size - 1)  # all items
    assert set(ids.decode(lists).ravel()) == set(ids.values)
    lists, _ = top_n(users, larger.item_vectors(), VOCABULARY + 49)
    with pytest.raises(ValueError, match=r"`ids` must lie in 0\.\.30; got .* item_vectors\(ids=np\.arange"):
        ids.decode(lists)
    with pytest.raises(ValueError, match=r"the indptr of `alike` must have shape \(2,\)"):
        model.extended({"item": VOCABULARY + 1}, alike=([0, 1, 2], [7, 7]))


def table_of(model, name="item"):
    return model.get_layer(f"table_{name}").get_weights()[0]


def fresh_table(size):
    """The item table of a new model of a larger vocabulary."""
    history = VarLenSparseFeat(SparseFeat("hist_item", size, DIM, embedding_name="item"), 6, "last", "hist_len")
    return table_of(YoutubeDNN([history], [SparseFeat("item", size, DIM)], user_dnn_hidden_units=(16, DIM)))


def test_rows_to_spare_begin_as_new_rows_do_once_they_are_taken():
    model, norm = small_model(), np.linalg.norm
    fresh, near = table_of(model), [7] * 20 + [9] * 10
    moved = fresh.copy()
    moved[25:] = 0.5  # as negatives they were pushed about
    model.get_layer("table_item").set_weights([moved])
    for size in (VOCABULARY, LARGER):
        larger = model.extended({"item": size}, in_use={"hist_item": 25}, alike=([0, 30], near))
        rows, as_new = table_of(larger), fresh_table(size)
        np.testing.assert_array_equal(rows[:25], fresh[:25])
        np.testing.assert_array_equal(rows[26:], as_new[26:])
        mean = (2 * fresh[7] + fresh[9]) / 3
        direction = mean / norm(mean) + as_new[25] / norm(as_new[25])
        np.testing.assert_allclose(rows[25] / norm(rows[25]), direction / norm(direction), rtol=1e-4, atol=1e-6)
    # Rows that were given may be those of items to come.
    pretrained = small_model_with_table()
    np.testing.assert_array_equal(table_of(pretrained.extended({}, in_use={"item": 25})), table_of(pretrained))
    for in_use, words in [
        ({"colour": 9}, r"`in_use` must have names of columns with ids, \['hist_item', 'item'\]"),
        ({"item": VOCABULARY + 1}, "The number of 'item' in `in_use` must be at most the table's rows, 30; got 31"),
        (25, "`in_use` must map names of columns to numbers of rows; got 25"),
    ]:
        with pytest.raises(ValueError, match=words):
            model.extended({}, in_use=in_use)
    with pytest.raises(ValueError, match="`alike`"):
        model.extended({}, in_use={"item": 25}, alike=([0, 1], [25]))


def test_rows_to_spare_of_other_tables_begin_in_the_midst_of_the_others():
    model = described()
    larger = model.extended({}, in_use={"item": 25, "genre": 3})
    items, genres = table_of(model), table_of(model, "genre")
    np.testing.assert_array_equal(table_of(larger)[25:], np.repeat(items[:1], VOCABULARY - 25, axis=0))
    np.testing.assert_allclose(table_of(larger, "genre")[3], genres[1:3].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(table_of(larger, "genre")[:3], genres[:3])


def small_model_with_table():
    table = np.random.default_rng(0).normal(size=(VOCABULARY, DIM)).astype("float32")
    item = SparseFeat("item", VOCABULARY, DIM, embeddings_initializer=tf.keras.initializers.Constant(table))
    return YoutubeDNN([history_column()], [item], num_sampled=5)


def test_features_that_have_changed_are_taken_and_others_kept():
    model = described()
    changed = pd.DataFrame({"genre": [3]}, index=[1])
    genres = model.extended({}, item_features=changed).get_layer("catalogue").get_weights()[0].ravel()
    np.testing.assert_array_equal(genres, [0, 3, *CATALOGUE["genre"][1:]])
