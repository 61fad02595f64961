"""Programs written for DeepMatch run here when the package's name in their imports is changed, and little else.

The programs below make DeepMatch's calls, as its examples do, on a few rows of their own: they keep all lines that
set up Keras, and change the numbers of epochs, rows and units. What must go on Keras 3, as the guide says, goes here.
"""

import importlib
import json
import pathlib
import re
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat
from deepctr.layers.utils import Hash

import deepmatch_ext
from deepmatch_ext import YoutubeDNN, layers, utils
from deepmatch_ext._keras import KERAS_3
from deepmatch_ext.layers import (
    CapsuleLayer,
    Dice,
    DynamicRouting,
    EmbeddingIndex,
    HashIds,
    LabelAwareAttention,
    MaskUserEmbedding,
    PoolingLayer,
    SampledSoftmaxLayer,
)
from deepmatch_ext.samplers import AdaptiveSampler, UniformSampler
from deepmatch_ext.utils import NegativeSampler, sampledsoftmaxloss
from tests.fresh import run_python
from tests.helpers import DIM, VOCABULARY, eager_functions, history_column, item_column, small_input, small_model

EAGER_OFF = "tf.compat.v1.disable_eager_execution()"
LEARNING_PHASE = r"K\.set_learning_phase\(\w+\)"

# Without DeepCTR's thread, and with the data of the example in small: users who keep to one genre.
PREPARATION = """
import sys
from unittest import mock

with mock.patch("threading.Thread.start"):
    import deepctr
import numpy as np
import pandas as pd


def ratings(users=60, movies_of_a_genre=12, genres=3, each=8):
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        genre = user % genres
        movies = rng.permutation(movies_of_a_genre)[:each] + genre * movies_of_a_genre
        rows += [(f"u{user}", f"m{m}", f"g{genre}", "FM"[user % 2], 5, place) for place, m in enumerate(movies)]
    return pd.DataFrame(rows, columns=["user_id", "movie_id", "genres", "gender", "rating", "timestamp"])


def encoded(values):
    codes, names = pd.factorize(values)
    return codes + 1, len(names) + 1


def gen_data_set(data, seq_max_len=50, negsample=0):
    train, test = [], []
    for user, one in data.sort_values("timestamp").groupby("user_id"):
        movies, genres = one["movie_id"].tolist(), one["genres"].tolist()
        for place in range(1, len(movies)):
            length = min(place, seq_max_len)
            before = slice(place - length, place)
            row = (user, movies[place], 1, movies[before][::-1], length, genres[before][::-1], genres[place], 5)
            (test if place == len(movies) - 1 else train).append(row)
    return train, test


def padded(lists, length):
    return np.array([(each + [0] * length)[:length] for each in lists])


def gen_model_input(rows, user_profile, seq_max_len):
    user, movie, label, history, length, genres, genre, _ = map(list, zip(*rows))
    x = {
        "user_id": np.array(user), "movie_id": np.array(movie), "genres": np.array(genre),
        "hist_movie_id": padded(history, seq_max_len), "hist_genres": padded(genres, seq_max_len),
        "hist_len": np.array(length), "gender": user_profile.loc[user]["gender"].values,
    }
    return x, np.array(label)
"""

EXAMPLE = """
from collections import Counter

import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat, get_feature_names
from deepmatch.models import *
from deepmatch.utils import NegativeSampler, recall_N, sampledsoftmaxloss
from tensorflow.keras import backend as K
from tensorflow.keras.models import Model

data = ratings()
SEQ_LEN, embedding_dim = 6, 8
feature_max_idx = {}
for feature in ["movie_id", "user_id", "gender", "genres"]:
    data[feature], feature_max_idx[feature] = encoded(data[feature])
    feature_max_idx[feature] = np.int64(feature_max_idx[feature])  # as scikit-learn's encoder leads to
user_profile = data[["user_id", "gender"]].drop_duplicates("user_id").set_index("user_id")
item_profile = data[["movie_id"]].drop_duplicates("movie_id")
train_set, test_set = gen_data_set(data, SEQ_LEN, 0)
train_model_input, train_label = gen_model_input(train_set, user_profile, SEQ_LEN)
test_model_input, test_label = gen_model_input(test_set, user_profile, SEQ_LEN)

user_feature_columns = [
    SparseFeat("user_id", feature_max_idx["user_id"], 16),
    SparseFeat("gender", feature_max_idx["gender"], 16),
    VarLenSparseFeat(SparseFeat("hist_movie_id", feature_max_idx["movie_id"], embedding_dim,
                                embedding_name="movie_id"), SEQ_LEN, "mean", "hist_len"),
    VarLenSparseFeat(SparseFeat("hist_genres", feature_max_idx["genres"], embedding_dim,
                                embedding_name="genres"), SEQ_LEN, "mean", "hist_len"),
]
item_feature_columns = [SparseFeat("movie_id", feature_max_idx["movie_id"], embedding_dim)]
train_counter = Counter(train_model_input["movie_id"])
item_count = [train_counter.get(i, 0) for i in range(item_feature_columns[0].vocabulary_size)]
sampler_config = NegativeSampler("frequency", num_sampled=10, item_name="movie_id", item_count=item_count)

if tf.__version__ >= "2.0.0":
    tf.compat.v1.disable_eager_execution()
else:
    K.set_learning_phase(True)

model = YoutubeDNN(user_feature_columns, item_feature_columns, user_dnn_hidden_units=(16, embedding_dim),
                   sampler_config=sampler_config)
model.compile(optimizer="adam", loss=sampledsoftmaxloss)
history = model.fit(train_model_input, train_label, batch_size=32, epochs=20, verbose=0, validation_split=0.0)
assert history.history["loss"][-1] < history.history["loss"][0]

all_item_model_input = {"movie_id": item_profile["movie_id"].values}
user_embedding_model = Model(inputs=model.user_input, outputs=model.user_embedding)
item_embedding_model = Model(model.item_input, model.item_embedding)
user_embs = user_embedding_model.predict(test_model_input, batch_size=2 ** 12)
item_embs = item_embedding_model.predict(all_item_model_input, batch_size=2 ** 12)
assert user_embs.shape == (60, 8) and item_embs.shape == (36, 8)
assert set(get_feature_names(user_feature_columns)) <= set(train_model_input)

test_true_label = {line[0]: [line[1]] for line in test_set}
best = np.argsort(-user_embs @ item_embs.T, axis=1)[:, :12]
recall = [recall_N(test_true_label[user], item_profile["movie_id"].values[best[row]], N=12)
          for row, user in enumerate(test_model_input["user_id"])]
assert np.mean(recall) > 0.8, np.mean(recall)  # 12 of 36 by chance: .33

"""

# DeepMatch's example of in-batch softmax, for both of its models that take it. The item's genre comes with the input.
TOWERS = """
from collections import Counter

import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat
from deepmatch.models import *
from deepmatch.utils import NegativeSampler, recall_N, sampledsoftmaxloss
from tensorflow.keras.models import Model

data = ratings()
SEQ_LEN, embedding_dim = 6, 8
feature_max_idx = {}
for feature in ["movie_id", "user_id", "gender", "genres"]:
    data[feature], feature_max_idx[feature] = encoded(data[feature])
user_profile = data[["user_id", "gender"]].drop_duplicates("user_id").set_index("user_id")
item_profile = data[["movie_id", "genres"]].drop_duplicates("movie_id")
train_set, test_set = gen_data_set(data, SEQ_LEN, 0)
train_model_input, train_label = gen_model_input(train_set, user_profile, SEQ_LEN)
test_model_input, test_label = gen_model_input(test_set, user_profile, SEQ_LEN)
user_feature_columns = [
    SparseFeat("user_id", feature_max_idx["user_id"], embedding_dim),
    SparseFeat("gender", feature_max_idx["gender"], embedding_dim),
    VarLenSparseFeat(SparseFeat("hist_movie_id", feature_max_idx["movie_id"], embedding_dim,
                                embedding_name="movie_id"), SEQ_LEN, "mean", "hist_len"),
    VarLenSparseFeat(SparseFeat("hist_genres", feature_max_idx["genres"], embedding_dim,
                                embedding_name="genres"), SEQ_LEN, "mean", "hist_len"),
]
item_feature_columns = [SparseFeat("movie_id", feature_max_idx["movie_id"], embedding_dim),
                        SparseFeat("genres", feature_max_idx["genres"], embedding_dim)]
train_counter = Counter(train_model_input["movie_id"])
item_count = [train_counter.get(i, 0) for i in range(item_feature_columns[0].vocabulary_size)]
sampler_config = NegativeSampler("inbatch", num_sampled=5, item_name="movie_id", item_count=item_count)

tf.compat.v1.disable_eager_execution()

# And its example of labels: a movie of another genre for each that was seen.
other = (train_model_input["movie_id"] + 11) % 36 + 1
labelled_input = {name: np.concatenate([values] * 2) for name, values in train_model_input.items()}
labelled_input["movie_id"] = np.concatenate([train_model_input["movie_id"], other])
labelled_input["genres"] = np.concatenate([train_model_input["genres"], train_model_input["genres"] % 3 + 1])
labels = np.repeat([1, 0], len(other))

for Builder, loss_type in [(DSSM, "softmax"), (FM, "softmax"), (DSSM, "logistic")]:
    if loss_type == "softmax":
        model = Builder(user_feature_columns, item_feature_columns, loss_type="softmax", sampler_config=sampler_config)
        model.compile(optimizer="adam", loss=sampledsoftmaxloss)
    else:
        model = Builder(user_feature_columns, item_feature_columns, loss_type="logistic")
        model.compile(optimizer="adam", loss="binary_crossentropy")
        train_model_input, train_label = labelled_input, labels
    history = model.fit(train_model_input, train_label, batch_size=32, epochs=6, verbose=0, validation_split=0.0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    all_item_model_input = {"movie_id": item_profile["movie_id"].values, "genres": item_profile["genres"].values}
    user_embedding_model = Model(inputs=model.user_input, outputs=model.user_embedding)
    item_embedding_model = Model(inputs=model.item_input, outputs=model.item_embedding)
    user_embs = user_embedding_model.predict(test_model_input, batch_size=2 ** 12)
    item_embs = item_embedding_model.predict(all_item_model_input, batch_size=2 ** 12)
    test_true_label = {line[0]: [line[1]] for line in test_set}
    best = np.argsort(-user_embs @ item_embs.T, axis=1)[:, :12]
    recall = [recall_N(test_true_label[user], item_profile["movie_id"].values[best[row]], N=12)
              for row, user in enumerate(test_model_input["user_id"])]
    assert np.mean(recall) > 0.7, (Builder.__name__, loss_type, np.mean(recall))  # 12 of 36 by chance: .33

"""

# Its examples of several interests: a user's list is made of those of each interest.
INTERESTS = (
    TOWERS[: TOWERS.index("# And its example of labels")]
    .replace("in-batch", "sampled")
    .replace("""                        SparseFeat("genres", feature_max_idx["genres"], embedding_dim)]""", "]")
    .replace('"inbatch", num_sampled=5', '"frequency", num_sampled=10')
    + """
for Builder, arguments in [(MIND, {"dynamic_k": True}), (ComiRec, {})]:
    model = Builder(user_feature_columns, item_feature_columns, k_max=2, user_dnn_hidden_units=(16, embedding_dim),
                    sampler_config=sampler_config, seed=1, **arguments)  # of 1 to 4, all reach .8 and most .95
    model.compile(optimizer="adam", loss=sampledsoftmaxloss)
    history = model.fit(train_model_input, train_label, batch_size=32, epochs=7, verbose=0, validation_split=0.0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    user_embedding_model = Model(inputs=model.user_input, outputs=model.user_embedding)
    item_embedding_model = Model(inputs=model.item_input, outputs=model.item_embedding)
    user_embs = user_embedding_model.predict(test_model_input, batch_size=2 ** 12)
    item_embs = item_embedding_model.predict({"movie_id": item_profile["movie_id"].values}, batch_size=2 ** 12)
    assert user_embs.shape == (60, 2, 8)
    test_true_label = {line[0]: [line[1]] for line in test_set}
    recall = []
    for row, user in enumerate(test_model_input["user_id"]):
        found = {}
        for k in range(2):
            scores = user_embs[row, k] @ item_embs.T
            for place in np.argsort(-scores)[:12]:
                movie = item_profile["movie_id"].values[place]
                found[movie] = max(found.get(movie, -1), scores[place])
        best = sorted(found, key=found.get, reverse=True)
        recall.append(recall_N(test_true_label[user], best, N=12))
    assert np.mean(recall) > 0.55, (Builder.__name__, arguments, np.mean(recall))  # by chance: .33

"""
)

# Its example of SDM: the last movies, the oldest first, and those before them.
SESSIONS = (
    TOWERS[: TOWERS.index("user_feature_columns = [")].replace(
        "from tensorflow.keras.models", "from tensorflow.keras import backend as K\nfrom tensorflow.keras.models"
    )
    + """
def sessions(x):
    # The short session has the oldest first, as DeepMatch's `gen_data_set_sdm` makes it.
    length = x["hist_len"]
    short_len, prefer_len = np.minimum(length, SHORT), np.maximum(length - SHORT, 0)
    y = {name: values for name, values in x.items() if "hist" not in name}
    y |= {"short_sess_length": short_len, "prefer_sess_length": prefer_len}
    for name in ("movie_id", "genres"):
        rows = x[f"hist_{name}"]
        y[f"short_{name}"] = padded([row[:n][::-1].tolist() for row, n in zip(rows, short_len)], SHORT)
        y[f"prefer_{name}"] = padded([row[SHORT:].tolist() for row in rows], SEQ_LEN)
    return y


SHORT = 2
train_model_input, test_model_input = sessions(train_model_input), sessions(test_model_input)
user_feature_columns = [SparseFeat("user_id", feature_max_idx["user_id"], 16),
                        SparseFeat("gender", feature_max_idx["gender"], 16)]
for name in ("movie_id", "genres"):
    for kind, length in (("short", SHORT), ("prefer", SEQ_LEN)):
        user_feature_columns.append(VarLenSparseFeat(
            SparseFeat(f"{kind}_{name}", feature_max_idx[name], embedding_dim, embedding_name=name), length, "mean",
            f"{kind}_sess_length"))
item_feature_columns = [SparseFeat("movie_id", feature_max_idx["movie_id"], embedding_dim)]
train_counter = Counter(train_model_input["movie_id"])
item_count = [train_counter.get(i, 0) for i in range(item_feature_columns[0].vocabulary_size)]
sampler_config = NegativeSampler("frequency", num_sampled=5, item_name="movie_id", item_count=item_count)

K.set_learning_phase(True)

if tf.__version__ >= "2.0.0":
    tf.compat.v1.disable_eager_execution()
else:
    K.set_learning_phase(True)

model = SDM(user_feature_columns, item_feature_columns, history_feature_list=["movie_id", "genres"],
            units=embedding_dim, sampler_config=sampler_config)
model.compile(optimizer="adam", loss=sampledsoftmaxloss)
history = model.fit(train_model_input, train_label, batch_size=32, epochs=13, verbose=0, validation_split=0.0)
assert history.history["loss"][-1] < history.history["loss"][0]

K.set_learning_phase(False)
user_embedding_model = Model(inputs=model.user_input, outputs=model.user_embedding)
item_embedding_model = Model(inputs=model.item_input, outputs=model.item_embedding)
user_embs = user_embedding_model.predict(test_model_input, batch_size=2 ** 12)
item_embs = item_embedding_model.predict({"movie_id": item_profile["movie_id"].values}, batch_size=2 ** 12)
best = np.argsort(-user_embs @ item_embs.T, axis=1)[:, :12]
recall = [recall_N([line[1]], item_profile["movie_id"].values[best[row]], N=12) for row, line in enumerate(test_set)]
assert np.mean(recall) > 0.6, np.mean(recall)  # by chance: .33

"""
)

# Its example of NCF: columns as dicts, labels, and the probability of each pair.
PAIRS = """
import tensorflow as tf
from deepmatch.models import NCF

data = ratings()
feature_max_idx = {}
for feature in ["movie_id", "user_id", "gender", "genres"]:
    data[feature], feature_max_idx[feature] = encoded(data[feature])
user_profile = data[["user_id", "gender"]].drop_duplicates("user_id").set_index("user_id")
train_set, test_set = gen_data_set(data, 6, 0)
train_model_input, _ = gen_model_input(train_set, user_profile, 6)
test_model_input, _ = gen_model_input(test_set, user_profile, 6)


def labelled(x):
    # A movie of another genre for each that was seen; in turn, as validation takes the last rows.
    y = {name: np.repeat(values, 2, axis=0) for name, values in x.items()}
    y["movie_id"][1::2] = (y["movie_id"][1::2] + 11) % 36 + 1
    return y, np.tile([1, 0], len(x["movie_id"]))


train_model_input, train_label = labelled(train_model_input)
test_model_input, test_label = labelled(test_model_input)
user_feature_columns = {"user_id": feature_max_idx["user_id"], "gender": feature_max_idx["gender"]}
item_feature_columns = {"movie_id": feature_max_idx["movie_id"]}
tf.compat.v1.disable_eager_execution()
model = NCF(user_feature_columns, item_feature_columns, user_gmf_embedding_dim=20, item_gmf_embedding_dim=20,
            user_mlp_embedding_dim=32, item_mlp_embedding_dim=32, dnn_hidden_units=[128, 64, 32])
model.compile("adam", "binary_crossentropy", metrics=["binary_crossentropy"])
history = model.fit(train_model_input, train_label, batch_size=64, epochs=8, verbose=0, validation_split=0.2)
assert history.history["loss"][-1] < history.history["loss"][0]
pred_ans = model.predict(test_model_input, batch_size=64)
right = np.mean(pred_ans[::2] > pred_ans[1::2])
assert pred_ans.shape == (120, 1) and right > 0.65, right  # by chance: .5

"""

# The shapes of DeepMatch's own tests, and a model that is built of its parts.
PARTS = """
from collections import Counter

import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat, build_input_features
from deepctr.layers import DNN
from deepctr.layers.utils import NoMask, combined_dnn_input
from deepmatch.inputs import create_embedding_matrix, input_from_feature_columns
from deepmatch.layers import custom_objects
from deepmatch.layers.core import EmbeddingIndex, PoolingLayer, SampledSoftmaxLayer
from deepmatch.models import YoutubeDNN
from deepmatch.utils import NegativeSampler, get_item_embedding, l2_normalize, sampledsoftmaxloss
from tensorflow.keras.models import Model, load_model, save_model

tf.compat.v1.disable_eager_execution()
x = {
    "user": np.array([0, 1, 2, 1]), "gender": np.array([0, 1, 0, 1]), "item": np.array([1, 2, 3, 1]),
    "hist_item": np.array([[1, 2, 3, 0], [1, 2, 3, 0], [1, 2, 0, 0], [3, 0, 0, 0]]),
    "hist_len": np.array([3, 3, 2, 1]),
}
y = np.ones(4)
user_feature_columns = [
    SparseFeat("user", 3), SparseFeat("gender", 2, dtype=tf.int32),
    VarLenSparseFeat(SparseFeat("hist_item", vocabulary_size=4, embedding_dim=4, embedding_name="item"), maxlen=4,
                     length_name="hist_len"),
]
item_feature_columns = [SparseFeat("item", 4, embedding_dim=4)]
item_count = [Counter(x["item"]).get(i, 0) for i in range(4)]
folder, KERAS_2 = sys.argv[1], not hasattr(tf.keras, "Operation")


def check_model(name, model, whole_file=True):
    model.compile("adam", sampledsoftmaxloss)
    model.fit(x, y, batch_size=10, validation_split=0.5, verbose=0)
    users, items = (Model(inputs=model.user_input, outputs=model.user_embedding),
                    Model(inputs=model.item_input, outputs=model.item_embedding))
    before = users.predict(x, batch_size=2 ** 12), items.predict(x, batch_size=2 ** 12)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate(before), axis=1), 1, rtol=1e-5)
    # Keras 3's own models want the latter name, and tf-keras can't write it without eager mode.
    weights = f"{folder}/{name}_weights.h5" if whole_file or KERAS_2 else f"{folder}/{name}.weights.h5"
    model.save_weights(weights)
    model.set_weights([np.zeros_like(each) for each in model.get_weights()])
    model.load_weights(weights)
    np.testing.assert_array_equal(users.predict(x, batch_size=2 ** 12), before[0])
    if whole_file:
        save_model(model, f"{folder}/{name}.h5")
        loaded = load_model(f"{folder}/{name}.h5", custom_objects)
        for old, new in zip(model.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        loaded.compile("adam", sampledsoftmaxloss)  # Keras 3 does not restore an optimizer from such a file
        loaded.fit(x, y, verbose=0)
    print(name, flush=True)


for sampler in ["inbatch", "adaptive"]:
    config = NegativeSampler(sampler, num_sampled=2, item_name="item", item_count=item_count, distortion=1.0)
    tf.keras.backend.clear_session()  # without eager mode all models are in one graph, which each step goes through
    check_model(sampler, YoutubeDNN(user_feature_columns, item_feature_columns, user_dnn_hidden_units=(16, 4),
                                    dnn_activation="dice", sampler_config=config))


def own_model(loss_layer):
    tables = create_embedding_matrix(user_feature_columns + item_feature_columns, 1e-6, seed=1)
    user, item = build_input_features(user_feature_columns), build_input_features(item_feature_columns)
    sparse, dense = input_from_feature_columns(user, user_feature_columns, 1e-6, seed=1, embedding_matrix_dict=tables)
    user_emb = l2_normalize(DNN((16, 4), output_activation="linear", seed=1)(combined_dnn_input(sparse, dense)))
    index = EmbeddingIndex(list(range(4)))(item["item"])
    weights = l2_normalize(PoolingLayer()([NoMask()(tables["item"](index))]))
    model = Model(list(user.values()) + list(item.values()), loss_layer([weights, user_emb, item["item"]]))
    model.__setattr__("user_input", list(user.values()))
    model.__setattr__("user_embedding", user_emb)
    model.__setattr__("item_input", list(item.values()))
    model.__setattr__("item_embedding", get_item_embedding(weights, item["item"]))
    return model


config = NegativeSampler("uniform", 2, "item")
check_model("own", own_model(SampledSoftmaxLayer(config._asdict(), temperature=0.05)), whole_file=False)
"""

OLDER = """
check_model("older", YoutubeDNN(user_feature_columns, item_feature_columns, num_sampled=2,
                                user_dnn_hidden_units=(16, 4)))
check_model("older own", own_model(SampledSoftmaxLayer(num_sampled=2)), whole_file=False)
"""


GUIDE = (pathlib.Path(__file__).parents[2] / "docs" / "moving-from-deepmatch.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)

PROGRAMS = {
    "example": PREPARATION + EXAMPLE,
    "towers": PREPARATION + TOWERS,
    "interests": PREPARATION + INTERESTS,
    "sessions": PREPARATION + SESSIONS,
    "pairs": PREPARATION + PAIRS,
    "parts": PREPARATION + PARTS + OLDER,
}


def moved(program):
    """The program with the package's name changed, and on Keras 3 without the learning phase that it does not have."""
    assert EAGER_OFF in program
    renamed = re.sub(r"\bdeepmatch\b", "deepmatch_ext", program)
    assert "`K.set_learning_phase(...)`" in GUIDE.partition("\n## ")[0]
    return re.sub(LEARNING_PHASE, "pass", renamed) if KERAS_3 else renamed


@pytest.fixture
def _predictions_are_not_traced(monkeypatch):
    """A program predicts once with an encoder, which takes less than to trace it."""
    predict = tf.keras.Model.predict

    def eagerly(*args, **kwargs):
        before = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        try:
            return predict(*args, **kwargs)
        finally:
            tf.config.run_functions_eagerly(before)

    monkeypatch.setattr(tf.keras.Model, "predict", eagerly)


@pytest.mark.slow
@pytest.mark.usefixtures("_predictions_are_not_traced")
@pytest.mark.filterwarnings("ignore")  # the programs call what Keras calls old: .h5 files
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.smoke] * (each == "example")) for each in PROGRAMS]
)
def test_a_program_runs_when_the_name_is_changed_without_the_line_that_deepmatch_needs(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", str(tmp_path)])
    program = compile(moved(PROGRAMS[name]).replace(EAGER_OFF, "pass"), name, "exec")
    tf.keras.utils.set_random_seed(1)  # by chance alone, one run in ten learns half as much as another
    tf.config.run_functions_eagerly(name == "parts")  # four models of a few steps: to trace them is all that takes time
    try:
        exec(program, {})
    finally:
        tf.config.run_functions_eagerly(False)


GRAPH_MODE = """
import sys
import warnings
from unittest import mock

with mock.patch("threading.Thread.start"):
    import deepctr
import numpy as np
import tensorflow as tf

tf.compat.v1.disable_eager_execution()
sys.path.insert(0, sys.argv[2])
from tests.helpers import DIM, VOCABULARY, history_column, item_column, small_input, small_model, user_part
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from deepmatch_ext import YoutubeDNN
from deepmatch_ext.evaluation import RetrievalMetrics, TrainingWatch
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.samplers import AdaptiveSampler, FullSampler, InBatchSampler, MixedSampler, UniformSampler
from deepmatch_ext.utils import sampledsoftmaxloss

folder, x = sys.argv[1], small_input(256)

# Full softmax, by hand.
model = small_model("mean", sampler_config=FullSampler(), temperature=0.5, dnn_dropout=0.0, l2_reg_embedding=0.01)
logits = model.user_vectors(x) @ model.item_vectors()[1:].T / 0.5
loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(256), x["item"] - 1]
np.testing.assert_allclose(model.predict(x)[:, 0], loss, atol=1e-5)

# The loss of a weighted batch is the sum of weight times loss over its number of rows, as Keras has it; and the L2 is
# that of the history's rows, of the candidates', and twice more of the positives', as the guide says.
model.compile(tf.keras.optimizers.legacy.SGD(0.5), sampledsoftmaxloss)
squares = (model.get_layer("table_item").get_weights()[0] ** 2).sum(axis=1)
l2 = 0.01 * (2 * squares[1:].sum() + 2 * squares[np.unique(x["item"])].sum())
weights = np.random.default_rng(0).random(256) * np.tile([0, 3], 128)
np.testing.assert_allclose(model.test_on_batch(x, sample_weight=weights), (weights * loss).mean() + l2, rtol=1e-5)
found = model.fit(x, sample_weight=weights, batch_size=256, verbose=0).history["loss"]
np.testing.assert_allclose(found, (weights * loss).mean() + l2, rtol=1e-5)

# It learns, counts its steps and what goes by, and gives the same loss at every look.
model = small_model("recency+last", sampler_config=AdaptiveSampler(20, memory=100), dnn_dropout=0.0)
start = model.get_layer("table_item").get_weights()[0]
model.compile(tf.keras.optimizers.legacy.Adam(0.01), sampledsoftmaxloss)
found = model.fit(x, epochs=8, batch_size=64, verbose=0, validation_split=0.25).history
assert len(found["val_loss"]) == 8 and found["loss"][-1] < found["loss"][0], found
assert model.evaluate(x, verbose=0) == model.evaluate(x, verbose=0)
assert np.isfinite([model.train_on_batch(x), model.test_on_batch(x)]).all()
weights = model.get_layer("candidates").weights
state = {weight.name.split("/")[-1]: tf.keras.backend.get_value(weight) for weight in weights}
assert state["step:0"] == 8 * 3 + 1 and state["sampler_count:0"].sum() == 100, state
model.save_weights(folder + "/weights.h5")
model.save(folder + "/whole.h5")
np.savez(folder + "/vectors.npz", start=start, users=model.user_vectors(x), items=model.item_vectors())

# All kinds of columns and of input.
columns = [history_column(), SparseFeat("city", 50, 4, use_hash=True, dtype="string"), DenseFeat("age", 2)]
more = {**x, "city": np.array(["Lund", "Rom"] * 128), "age": np.random.default_rng(0).random((256, 2))}
model = YoutubeDNN(
    columns, [item_column()], user_dnn_hidden_units=(9, DIM), dnn_use_bn=True,
    l2_reg_dnn=1e-5, history_dropout=0.3, sampler_config=MixedSampler([InBatchSampler(), UniformSampler(9)]),
)
model.compile("adam", sampledsoftmaxloss)
metrics = RetrievalMetrics(user_part(more), x["item"])
weights = np.random.default_rng(0).random(256)
found = model.fit(more, verbose=0, validation_data=more, callbacks=[metrics], sample_weight=weights).history
assert "val_HR@10" in found and "val_loss" in found
model.fit(tf.data.Dataset.from_tensor_slices(more).batch(64), verbose=0)
assert model.user_vectors(more).shape == (256, DIM) and model.item_vectors().shape == (VOCABULARY, DIM)


# Ids may come as floats, and a hashed target is not padding.
history = VarLenSparseFeat(SparseFeat("h", 9, 4, use_hash=True, dtype="int64", embedding_name="i"), 2, "mean", "n")
hashed = YoutubeDNN([history], [SparseFeat("i", 9, 4, use_hash=True, dtype="int64")], num_sampled=2)
hashed.compile("adam", sampledsoftmaxloss)
ids = {"h": np.array([[1, 2]] * 4), "n": np.full(4, 2), "i": np.array([3, 4, 5, 6])}
hashed.fit(tf.data.Dataset.from_tensor_slices(ids).batch(4), verbose=0)
try:
    hashed.fit(tf.data.Dataset.from_tensor_slices({**ids, "i": np.zeros(4, int)}).batch(4), verbose=0)
except tf.errors.InvalidArgumentError as error:
    assert "no padding" in str(error)
else:
    raise AssertionError("padding was trained")
floats = [SparseFeat("city", 9, 4, dtype="float32"), history_column()]
model = YoutubeDNN(floats, [item_column()], num_sampled=2)
model.compile("adam", sampledsoftmaxloss)
model.fit(tf.data.Dataset.from_tensor_slices({**x, "city": np.full(256, 3.0)}).batch(64), verbose=0)


def refused(call, *words):
    try:
        call()
    except RuntimeError as error:
        assert all(word in str(error) for word in ("tf.compat.v1.disable_eager_execution()", *words)), error
    else:
        raise AssertionError("not refused")


refused(lambda: LazyAdam(1e-3), "LazyAdam")
refused(lambda: TrainingWatch(user_part(x)), "TrainingWatch")
described = {"genre": np.ones(VOCABULARY, int)}
items = [item_column(), SparseFeat("genre", 5, 4)]
refused(lambda: YoutubeDNN([history_column()], items, item_features=described), "item_features")
model.compile(tf.keras.optimizers.Adam(), sampledsoftmaxloss)
refused(lambda: model.fit(more), "tf.keras.optimizers.legacy.Adam")

# A phase that is fixed when a model is built stays so for it.
for phase, what_follows in ((1, "vectors differ from call to call"), (0, "`fit` trains without dropout")):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        tf.keras.backend.set_learning_phase(phase)
        model = small_model()
    (text,) = [str(each.message) for each in told if "YoutubeDNN was built" in str(each.message)]
    assert f"`K.set_learning_phase({phase})`" in text and what_follows in text, text
    assert (model.user_vectors(x) != model.user_vectors(x)).any() == bool(phase)
"""


@pytest.fixture(scope="module")
def without_eager_mode(tmp_path_factory):
    """What became of the programs after the line, "done" or the error's text; and their folder."""
    folder = tmp_path_factory.mktemp("graph")
    (guide,) = [block for block in BLOCKS if EAGER_OFF in block]
    programs = {name: moved(program) for name, program in PROGRAMS.items()} | {"guide": guide}
    if not KERAS_3:
        programs["numbers"] = GRAPH_MODE
    (folder / "programs.json").write_text(json.dumps(programs))
    done = run_python("-c", textwrap.dedent(RUNNER), folder, pathlib.Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "outcome.json").read_text()), folder


RUNNER = """
    import json, os, sys, traceback
    from unittest import mock

    with mock.patch("threading.Thread.start"):
        import deepctr

    import tensorflow as tf

    os.chdir(sys.argv[1])
    outcome = {}
    for name, program in json.load(open("programs.json")).items():
        if not hasattr(tf.keras, "Operation"):  # where they train, each in a graph and a session of its own
            tf.keras.backend.clear_session()
            tf.compat.v1.reset_default_graph()
        tf.keras.utils.set_random_seed(1)
        try:
            exec(compile(program, name, "exec"), {})
        except Exception:
            outcome[name] = traceback.format_exc()[-3000:]
        else:
            outcome[name] = "done"
    json.dump(outcome, open("outcome.json", "w"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PROGRAMS, "guide"])
def test_a_program_runs_with_that_line_or_is_told_that_keras_3_can_not(name, without_eager_mode):
    said = without_eager_mode[0][name]
    if KERAS_3:
        assert f"Keras 3 can neither train nor predict after `{EAGER_OFF}`" in said
    else:
        assert said == "done", said


@pytest.mark.slow
@pytest.mark.skipif(KERAS_3, reason="Keras 3 needs eager mode")
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_without_eager_mode_the_numbers_are_the_same(without_eager_mode):
    """The loss is right, tables start as in eager mode, and files that are written there are read here."""
    outcome, tmp_path = without_eager_mode
    assert outcome["numbers"] == "done", outcome["numbers"]
    x, saved = small_input(256), np.load(tmp_path / "vectors.npz")
    model = small_model("recency+last", sampler_config=AdaptiveSampler(20, memory=100), dnn_dropout=0.0)
    np.testing.assert_array_equal(model.get_layer("table_item").get_weights()[0], saved["start"])
    model.load_weights(tmp_path / "weights.h5")
    loaded = tf.keras.models.load_model(tmp_path / "whole.h5", layers.custom_objects, compile=False)
    for each in (model, loaded):
        np.testing.assert_allclose(each.user_vectors(x), saved["users"], atol=1e-6)
        np.testing.assert_allclose(each.item_vectors(), saved["items"], atol=1e-6)


# The names of DeepMatch 0.3.2 that are there, and those that say what to do instead.
CORE = (
    *("CapsuleLayer", "EmbeddingIndex", "InBatchSoftmaxLayer", "LabelAwareAttention", "MaskUserEmbedding"),
    *("PoolingLayer", "SampledSoftmaxLayer"),
)
INTERACTION = (
    *("AttentionSequencePoolingLayer", "ConcatAttention", "DotAttention", "SelfAttention", "SelfMultiHeadAttention"),
    *("SoftmaxWeightedSum", "UserAttention"),
)
CARRIED_OVER = {
    "models": ["ComiRec", "DSSM", "FM", "MIND", "NCF", "SDM", "YoutubeDNN"],
    "models.ncf": ["NCF"],
    "models.sdm": ["SDM"],
    "models.comirec": ["ComiRec"],
    "models.mind": ["MIND"],
    "models.dssm": ["DSSM"],
    "models.fm": ["FM"],
    "models.youtubednn": ["YoutubeDNN"],
    "utils": [
        *("NegativeSampler", "get_item_embedding", "inner_product", "l2_normalize", "recall_N"),
        "sampledsoftmaxloss",
    ],
    "layers": [*CORE, *INTERACTION, "DynamicMultiRNN", "custom_objects"],
    "layers.core": CORE,
    "layers.interaction": INTERACTION,
    "layers.sequence": ["DynamicMultiRNN"],
    "inputs": [
        *("SparseFeat", "VarLenSparseFeat", "create_embedding_matrix", "embedding_lookup", "get_dense_input"),
        *("varlen_embedding_lookup", "get_varlen_pooling_list", "mergeDict", "input_from_feature_columns"),
    ],
}
LEFT_BEHIND = {
    "utils": ["check_version"],
    "layers": ["Similarity"],
    "layers.core": ["inbatch_softmax_cross_entropy_with_logits", "squash"],
}


def flat(names):
    return [(module, name) for module, each in names.items() for name in each]


@pytest.mark.parametrize(("module", "name"), flat(CARRIED_OVER))
def test_a_name_is_there(module, name):
    exec(f"from deepmatch_ext.{module} import {name}", {})


@pytest.mark.parametrize(("module", "name"), flat(LEFT_BEHIND))
def test_a_name_that_is_not_there_says_so(module, name):
    with pytest.raises(ImportError, match=f"DeepMatch's {name} is not carried over .*(?:[Kk]eep|Take|asks no)"):
        exec(f"from deepmatch_ext.{module} import {name}", {})


def test_other_names_are_missing_as_they_are_anywhere():
    for module in ("models", "utils", "layers", "inputs"):
        assert not hasattr(importlib.import_module(f"deepmatch_ext.{module}"), "Nothing")
    with pytest.raises(ImportError, match="cannot import name"):
        from deepmatch_ext.models import Nothing  # noqa: F401


def test_custom_objects_hold_deepctrs_and_ours():
    assert layers.custom_objects["Hash"] is Hash
    assert layers.custom_objects["SampledSoftmaxLayer"] is SampledSoftmaxLayer
    assert deepmatch_ext.custom_objects.keys() == layers.custom_objects.keys()


def test_negative_sampler_of_every_kind_is_taken():
    for name in ("inbatch", "uniform", "frequency", "adaptive"):
        spec = NegativeSampler(name, 5, "item", item_count=list(range(VOCABULARY)), distortion=0.5)
        model = small_model(sampler_config=spec)
        assert model.candidates.sampler.name == name
        assert spec._asdict()["item_name"] == "item"


def test_num_sampled_in_its_old_place_is_named():
    with pytest.raises(ValueError, match=r"`user_dnn_hidden_units` must be a list .*`num_sampled` in this position"):
        YoutubeDNN([history_column()], [item_column()], 5)


def test_columns_may_have_tensorflow_dtypes():
    columns = [SparseFeat("user", 9, 4, dtype=tf.int64), DenseFeat("age", 1, tf.float32), history_column()]
    model = YoutubeDNN(columns, [item_column(dtype=np.int32)], num_sampled=5)
    assert [tensor.dtype for tensor in model.inputs] == ["int64", "float32", "int32", "int32", "int32"]
    with pytest.raises(ValueError, match="`dtype` of column 'user' must be a TensorFlow dtype; got 'number'"):
        YoutubeDNN([SparseFeat("user", 9, dtype="number")], [item_column()])


# The parts, by hand.


def test_l2_normalize_along_any_axis():
    x = np.array([[3.0, 0.0], [4.0, 2.0]], "float32")
    np.testing.assert_allclose(utils.l2_normalize(tf.constant(x)), [[1, 0], [4 / 20**0.5, 2 / 20**0.5]], rtol=1e-6)
    np.testing.assert_allclose(utils.l2_normalize(tf.constant(x), axis=0), [[0.6, 0], [0.8, 1]], rtol=1e-6)


@pytest.mark.parametrize(("mode", "pooled"), [("mean", [[2.0, 1.0]]), ("sum", [[4.0, 2.0]]), ("max", [[3.0, 2.0]])])
def test_pooling_layer_pools_tensors_of_one_shape(mode, pooled):
    layer = PoolingLayer.from_config(PoolingLayer(mode).get_config())
    np.testing.assert_array_equal(layer([tf.constant([[1.0, 2.0]]), tf.constant([[3.0, 0.0]])]), pooled)
    np.testing.assert_array_equal(layer([tf.constant([[1.0, 2.0]])]), [[1.0, 2.0]])


def test_pooling_layer_hands_a_mask_on_if_it_is_asked_to():
    mask = tf.constant([[True, False]])
    assert PoolingLayer(supports_masking=True).compute_mask([None], [mask]) is mask
    assert PoolingLayer().compute_mask([None], [mask]) is None


def test_capsules_as_deepmatch_calls_them():
    rows = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    lengths, number = np.array([[4], [2], [1]]), np.array([[3], [2], [1]])
    layer = CapsuleLayer.from_config(CapsuleLayer(input_units=5, out_units=2, max_len=4, k_max=3).get_config())
    found = layer([rows, lengths]).numpy()
    np.testing.assert_array_equal(layer([rows, lengths]), found)
    routing = DynamicRouting(3, shared=True)
    wide = np.pad(np.array(layer.get_weights()[0]), [[0, 0], [0, 3]])  # the same but for zeros
    routing.build([(None, 4, 5), (None, 4)])
    routing.set_weights([wide])
    np.testing.assert_allclose(routing([rows, np.arange(4) < lengths])[:, :, :2], found, atol=1e-6)
    of_number = layer([rows, lengths, number]).numpy()
    assert [len(np.unique(each, axis=0)) for each in of_number] == [3, 2, 1]
    # What other layers have made of the surplus ones is the first again.
    masked = MaskUserEmbedding(3)([found, number]).numpy()
    np.testing.assert_array_equal(masked, [found[0], found[1][[0, 1, 0]], found[2][[0, 0, 0]]])


def test_label_aware_attention_as_deepmatch_calls_it():
    interests = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    target, number = interests[:, 2:] * 0.5, np.array([[3], [2]])
    expected = LabelAwareAttention(p=7.0)([interests, target[:, 0]])
    for layer in (LabelAwareAttention(3, 7.0), LabelAwareAttention(k_max=3, pow_p=7.0)):
        np.testing.assert_array_equal(layer([interests, target]), expected)
        np.testing.assert_array_equal(
            LabelAwareAttention.from_config(layer.get_config())([interests, target]), expected
        )
    assert LabelAwareAttention(k_max=3).p == 1
    two = LabelAwareAttention(p=7.0)([interests[1:, :2], target[1:, 0]])
    np.testing.assert_allclose(LabelAwareAttention(3, 7.0)([interests, target, number])[1:], two, atol=1e-6)


def test_embedding_index_and_the_rows_of_a_table():
    layer = EmbeddingIndex.from_config(EmbeddingIndex(range(3)).get_config())
    np.testing.assert_array_equal(layer(tf.constant([[9]])), [0, 1, 2])
    table = tf.constant([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(utils.get_item_embedding(table, tf.constant([[2], [0]])), [[3, 4], [0, 0]])


@pytest.mark.parametrize("argument", [{"loss": "bpr"}, {"gbce_t": 0.5}, {"vocabulary_size": 9}])
def test_sampled_softmax_layer_refuses_what_it_would_not_keep(argument):
    with pytest.raises(ValueError, match="must be given to `CandidateLoss`"):
        SampledSoftmaxLayer(UniformSampler(5), **argument)


@pytest.mark.slow
def test_batches_need_no_labels():
    x = small_input()
    model = small_model()
    model.compile("sgd", sampledsoftmaxloss, run_eagerly=True)
    before = model.user_vectors(x)
    loss = model.test_on_batch(x)
    assert loss == pytest.approx(model.evaluate(x, batch_size=64, verbose=0), rel=1e-5)
    model.reset_metrics()  # Keras 3.12 would give the mean with the batches before
    with pytest.warns(UserWarning, match="`sample_weight` must be other than 0 .* The loss of this batch is 0"):
        assert model.train_on_batch(x, sample_weight=np.zeros(64)) == 0
    np.testing.assert_array_equal(model.user_vectors(x), before)
    assert model.train_on_batch(x, np.ones(64)) > 0
    assert (model.user_vectors(x) != before).any()
    with pytest.raises(ValueError, match="Input 'item' must hold ids"):
        model.train_on_batch({**x, "item": x["item"] * 0})


@pytest.mark.parametrize("mask_zero", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "string"])
def test_hash_ids_are_deepctrs_buckets(dtype, mask_zero):
    values = np.array([[0, 3, 117, -2, 0]])
    ids = tf.constant(values.astype(str)) if dtype == "string" else tf.constant(values + 0, dtype)
    if dtype.startswith("float"):
        ids += [[0, 0, 0, 0, 0.5]]
    expected = Hash(1000, mask_zero, dtype=None if dtype == "string" else dtype)(ids)
    np.testing.assert_array_equal(HashIds(1000, mask_zero)(ids), expected)


def test_dice_by_hand():
    x = np.array([[1.0, -4.0], [3.0, 0.0]], "float32")
    layer = Dice(epsilon=1e-9)
    layer.build((None, 2))
    alpha, mean, variance = [0.5, 0.0], [1.0, 2.0], [4.0, 1.0]
    layer.set_weights([np.array(each) for each in (alpha, mean, variance)])
    share = 1 / (1 + np.exp(-(x - mean) / np.sqrt(variance)))
    np.testing.assert_allclose(layer(x, training=False), share * x + (1 - share) * alpha * x, rtol=1e-5)
    share = 1 / (1 + np.exp(-(x - x.mean(axis=0)) / x.std(axis=0)))
    np.testing.assert_allclose(layer(x, training=True), share * x + (1 - share) * alpha * x, rtol=1e-5)


ACTIVATIONS = {
    "dice": lambda: "dice",
    "a class": lambda: tf.keras.layers.PReLU,
    "an instance": lambda: tf.keras.layers.PReLU(alpha_initializer=tf.keras.initializers.Constant(0.3)),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_that_are_layers_have_weights_of_their_own_and_reload(activation, tmp_path):
    x = small_input()
    given = ACTIVATIONS[activation]()
    model = small_model(user_dnn_hidden_units=(16, 16, DIM), dnn_activation=given, output_activation=given)
    # One in a graph is enough: to trace it takes longer than a few steps.
    model.compile(tf.keras.optimizers.SGD(0.1), sampledsoftmaxloss, run_eagerly=activation != "dice")
    model.fit(x, verbose=0)
    places = [model.get_layer(f"user_activation_{place}") for place in (1, 2, 3)]
    assert [each.weights[0].shape for each in places] == [(16,), (16,), (DIM,)]
    assert (np.asarray(places[0].get_weights()[0]) != np.asarray(places[1].get_weights()[0])).any()
    if activation == "an instance":
        assert np.allclose(places[0].get_weights()[0], 0.3, atol=0.1)
    with eager_functions():
        expected = model.user_vectors(x)
        for name in ("model.keras", "model.h5"):
            model.save(tmp_path / name)
            loaded = tf.keras.models.load_model(tmp_path / name, layers.custom_objects)
            np.testing.assert_array_equal(loaded.user_vectors(x), expected)


# The guide.


@pytest.mark.slow
def test_the_guides_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:
        if EAGER_OFF not in block:
            exec(compile(block, "moving-from-deepmatch.md", "exec"), names)
    # Every user keeps to four of the eight movies; half of them would be found by chance.
    assert names["recall"] > 0.9
    assert names["figures"]["HR@10"] == 1
    assert (tmp_path / "model.keras").exists()


def test_the_guides_figure_of_drawn_routing():
    """DeepMatch's routing in NumPy, twice for the same users: three rounds from logits that are drawn at each call."""
    [shown] = re.findall(
        r"With T 20, K 4, D 16 and standard normal rows, (\.\d\d) of a user's top 50 of 1,000 items", GUIDE
    )
    length, interests, dim, users = 20, 4, 16, 500
    rng = np.random.default_rng(0)
    items = rng.normal(size=(1000, dim))
    glorot = np.sqrt(6 / (dim + dim))
    mapped = items[rng.integers(0, 1000, (users, length))] @ rng.uniform(-glorot, glorot, (dim, dim))

    def top_50():
        logits = rng.normal(size=(users, length, interests))
        while (far := np.abs(logits) > 2).any():  # a truncated normal distribution
            logits[far] = rng.normal(size=np.count_nonzero(far))
        for _ in range(3):
            weights = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
            capsules = np.einsum("utk,utd->ukd", weights, mapped)
            squares = (capsules**2).sum(axis=2, keepdims=True)
            capsules *= np.sqrt(squares) / (1 + squares)  # squashed
            logits = logits + np.einsum("ukd,utd->utk", capsules, mapped)
        return np.argsort(-(capsules @ items.T).max(axis=1), axis=1)[:, :50]

    first, second = top_50(), top_50()
    again = np.mean([np.isin(*pair).mean() for pair in zip(first, second, strict=True)])
    assert again == pytest.approx(float(shown), abs=0.01)


def test_the_guide_names_what_exists():
    for path in re.findall(r"deepmatch_ext(?:\.\w+)+", GUIDE):
        module, _, name = path.rpartition(".")
        try:
            importlib.import_module(path)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), name), path
