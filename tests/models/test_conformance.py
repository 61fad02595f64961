"""Registered builders keep the promises of `deepmatch_ext.testing`, and each check sees a model that breaks one."""

import dataclasses
import functools
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepmatch_ext import FM, SDM, SequenceDNN, YoutubeDNN, losses, samplers, testing
from deepmatch_ext._keras import keras, raw_variable
from deepmatch_ext.features import build_inputs, read_columns
from deepmatch_ext.layers import CandidateLoss, CandidateSampler, EmbeddingTable, L2Normalization
from deepmatch_ext.models import builder
from deepmatch_ext.models._record import BUILDERS, register_builder
from deepmatch_ext.models._retrieval_model import RetrievalModel, Towers
from deepmatch_ext.models._tables import NamedLayers, Tables, row_ids
from deepmatch_ext.models._towers import DenseLayers, DenseSettings, Features
from deepmatch_ext.retrieval import ExactIndex
from deepmatch_ext.testing import CHECKS, Trial, _fresh_process, check_model
from deepmatch_ext.testing._arguments import every_sampler
from deepmatch_ext.testing._data import planted
from deepmatch_ext.testing._expect import best, scores_of
from tests.fresh import run_python
from tests.helpers import history_column, item_column

OURS = {name: function for name, function in BUILDERS.items() if function.__module__.startswith("deepmatch_ext.")}

register = keras.utils.register_keras_serializable("test_conformance")


ONE_DIM = {
    "user": [
        SparseFeat("city", 19, 8, use_hash=True, dtype="string"),
        history_column("recency+last"),
        VarLenSparseFeat(SparseFeat("hist_genre", 11, 8), 6, "mean", weight_name="rating"),
    ],
    "items": [item_column()],
}


# Models that every position trains, of histories whose columns belong together.
EVERY_POSITION = ("SequenceDNN", "SASRec", "HSTU", "GRU4Rec")
PER_POSITION = [
    SparseFeat("city", 19, 4, use_hash=True, dtype="string"),
    history_column(),
    VarLenSparseFeat(SparseFeat("hist_genre", 11, 4), 6, "mean", "hist_len"),
    DenseFeat("age", 3),
]


real_run_python = _fresh_process.run_python


@pytest.fixture(scope="module", autouse=True)
def _fresh_processes_in_no_time():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fresh_process, "run_python", run_python)
        yield


@pytest.fixture(scope="module")
def trial_of():
    def trial(function):
        own = [(ONE_DIM["user"], ONE_DIM["items"])] if function is FM else []
        if function.__name__ in EVERY_POSITION:
            own = [([history_column()], [item_column()])]
        if function is SequenceDNN:
            own = [(PER_POSITION, [item_column(), SparseFeat("genre", 7, 8)])]
        few_layers = {"rnn_layers": 1, "units": 8} if function is SDM else {}  # to trace LSTMs takes long
        if function is SequenceDNN:
            few_layers = {"blocks": ["ligr"], "block_dropout": 0.0, "item_dnn_hidden_units": []}
        if function.__name__ in EVERY_POSITION[1:]:  # with dropout, so small a model learns slowly
            few_layers = {"num_blocks": 1, "block_dropout": 0.0}
        return Trial(function, *own, **few_layers)

    return functools.cache(trial)


# One of one vector a user and one of several are tried on every Keras; what else they have of Keras is the same.
EVERYWHERE = ("YoutubeDNN", "ComiRec")


# SequenceDNN is checked with one kind of block, and these with what their own blocks could break.
OF_BLOCKS = ("attributes", "recorded", "bad_arguments", "columns", "whole_tables", "vectors")

# What these have of samplers and losses is YoutubeDNN's, or of several interests ComiRec's.
OTHERS_LOSSES = ("MIND", "SDM", "SRGNN")


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize(
    "model", [model if model in EVERYWHERE else pytest.param(model, marks=pytest.mark.once) for model in OURS]
)
def test_every_model_keeps_every_promise(model, name, trial_of, request):
    if model in EVERY_POSITION[1:]:
        if name not in OF_BLOCKS:
            pytest.skip("checked with SequenceDNN, which it shares with this model")
        request.getfixturevalue("briefly")  # that a model learns is not asked
    if model in OTHERS_LOSSES and name == "samplers_and_losses":
        pytest.skip("checked with a model that it shares them with")
    CHECKS[name](trial_of(OURS[model]))


# A model of one's own, and those that break a promise each.


def assembled(name, user_feature_columns, item_feature_columns, arguments, *, table=None, user=(), items=(), loss=()):
    """The last item through a dense layer against the items of the same table, with further layers where given."""
    columns = read_columns("user_feature_columns", user_feature_columns)
    (item,) = read_columns("item_feature_columns", item_feature_columns)
    seed, dim = arguments.get("seed", 1), item.embedding_dim
    inputs = build_inputs([*columns, item])
    tables = Tables([*columns, item], 0.0, seed, True, 0.01, "float32", NamedLayers())
    if table is not None:
        tables._tables["item"] = table(item.vocabulary_size, dim, seed=seed, stddev=0.01, name="table_item")
    features, layers = Features(tables, seed, NamedLayers()), NamedLayers()
    dense = DenseLayers(DenseSettings("linear", seed=seed), "item", layers)
    user_emb = dense("user", features(columns, row_ids(columns, inputs, tables)), (dim,))
    for layer in user:
        user_emb = layer(user_emb)
    user_emb = L2Normalization(name="user_emb")(user_emb)
    unit_length = L2Normalization(name="unit_length")

    def encode(ids):
        ((vectors, _),) = features([item], {item.name: ids})
        for layer in items:
            vectors = layer(vectors)
        return unit_length(vectors)

    sampler = arguments.get("sampler_config") or samplers.AdaptiveSampler(20)
    candidates = CandidateSampler(sampler, item.vocabulary_size, seed, name="candidates")
    drawn = losses.Candidates(*candidates(inputs[item.name]))
    make_loss = CandidateLoss(
        arguments.get("temperature", 0.1),
        arguments.get("loss", "softmax"),
        vocabulary_size=item.vocabulary_size,
        name="loss",
    )
    each = make_loss([user_emb, encode(drawn.ids), *drawn])
    for layer in loss:
        each = layer(each)
    item_emb, user_input = encode(inputs[item.name]), [inputs[name] for name in inputs if name != item.name]
    recorded = {
        "user_feature_columns": columns,
        "item_feature_columns": [item],
        **({"sampler_config": candidates.sampler} if "sampler_config" in arguments else {}),
        **{key: value for key, value in arguments.items() if key != "sampler_config"},
    }
    return RetrievalModel(
        inputs=[*user_input, inputs[item.name]],
        outputs=each,
        towers=Towers(user_input, user_emb, [inputs[item.name]], item_emb, item_emb, columns, [item]),
        config={"builder": name, "arguments": recorded},
    )


@register_builder
def Own(user_feature_columns, item_feature_columns, temperature=0.1, sampler_config=None, loss="softmax", seed=1):
    arguments = {"temperature": temperature, "sampler_config": sampler_config, "loss": loss, "seed": seed}
    return assembled("Own", user_feature_columns, item_feature_columns, arguments)


def broken(name, **changes):
    """A registered builder of the same model with other layers; they are made for each model."""

    def build(user_feature_columns, item_feature_columns, seed=1):
        made = {key: make() if key != "table" else make for key, make in changes.items()}
        return assembled(name, user_feature_columns, item_feature_columns, {"seed": seed}, **made)

    build.__name__ = name
    return register_builder(build)


@pytest.fixture
def briefly(monkeypatch):
    """Models are trained for a few epochs, whether they learn or not."""
    monkeypatch.setattr("deepmatch_ext.testing._trial.Learnt.MOST_EPOCHS", 5)


def assert_fails(trial, check, message):
    with pytest.raises(AssertionError, match=message) as failure:
        CHECKS[check](trial)
    assert str(failure.value).startswith(f"{trial.name} fails the check {check!r}: ")


@register
class Noise(keras.layers.Layer):
    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs))


@pytest.mark.slow
@pytest.mark.once
def test_vectors_that_change_from_call_to_call(briefly):
    message = r"`user_vectors` with batch_size=1 must equal those of another size and an earlier call; got a difference"
    assert_fails(Trial(broken("Noisy", user=lambda: [Noise()])), "vectors", message)


@register
class Blind(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 0 + 1


@pytest.mark.slow
@pytest.mark.once
def test_a_model_that_learns_nothing_and_does_not_read_its_input(trial_of, briefly):
    trial = Trial(broken("Ignorant", user=lambda: [Blind()]), (trial_of(YoutubeDNN).user_columns, [item_column()]))
    assert_fails(trial, "learns", r"the hit rate at 3 must be at least 0\.50 after 5 epochs; got 0\.[0-2]\d$")
    assert_fails(trial, "columns", r"`user_emb` must depend on input 'hist_\w+'; got the same")


@pytest.mark.slow
def test_an_evaluation_that_finds_what_was_not_learnt(trial_of, monkeypatch):
    trial = trial_of(YoutubeDNN)
    monkeypatch.setattr(trial.learnt, "hit_rate", lambda: 1.0)
    assert_fails(
        trial, "learns", r"after training on shuffled targets the hit rate at 3 must be at most 0\.\d\d; got 1\.00"
    )


# Of whole tables.


class WithMean(EmbeddingTable):
    def call(self, ids):
        return super().call(ids) - tf.reduce_mean(raw_variable(self.embeddings), axis=0)


class WithPenalty(EmbeddingTable):
    def call(self, ids):
        self.add_loss(1e-6 * tf.nn.l2_loss(raw_variable(self.embeddings)))
        return super().call(ids)


class WithHiddenRead(EmbeddingTable):
    """Without a gradient, and in a branch."""

    def call(self, ids):
        table = raw_variable(self.embeddings)
        norm = tf.cond(tf.size(ids) > 0, lambda: tf.norm(tf.stop_gradient(table)), lambda: 0.0)
        return super().call(ids) + 0 * norm


class WithDecay(EmbeddingTable):
    """Writes the whole."""

    def call(self, ids):
        table = raw_variable(self.embeddings)
        with tf.control_dependencies([table.assign_sub(tf.zeros(table.shape))]):
            return super().call(ids)


class WithOneHot(EmbeddingTable):
    """Leaves the table alone, but has a number for each of its rows."""

    def call(self, ids):
        rows = super().call(ids)
        return rows + 0 * tf.reduce_sum(tf.one_hot(tf.reshape(ids, [-1]), self.vocabulary_size))


def few_columns():
    """A history and the item, whose table is the only one."""
    return [history_column("recency+last")], [item_column()]


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (WithMean, r"the gradient of '.*table_item.*' must be tf.IndexedSlices.*; got a tensor of shape \(997, 8\)"),
        (
            WithPenalty,
            r"the gradient of '.*table_item.*' must be tf.IndexedSlices.*; got a tensor of shape \(997, 8\)",
        ),
        (WithHiddenRead, r"look rows of '.*table_item.*' up, .*; got the operation ReadVariableOp"),
        (WithDecay, r"look rows of '.*table_item.*' up, .*; got the operation AssignSubVariableOp"),
        (
            WithOneHot,
            r"no tensor .* row for each id of a vocabulary; got shape \[-?\d+, 997\] from the operation OneHot",
        ),
    ],
)
def test_whole_tables(table, message):
    assert_fails(Trial(broken(table.__name__, table=table), few_columns()), "whole_tables", message)


@pytest.mark.slow
def test_a_sampler_of_every_item():
    message = r"no tensor .* row for each id of a vocabulary; got shape \[996\] from the operation "
    assert_fails(Trial(Own, few_columns(), sampler_config=samplers.FullSampler()), "whole_tables", message)


# Of arguments.


@register_builder
def Forgetful(user_feature_columns, item_feature_columns, temperature=0.1, seed=1):
    model = Own(user_feature_columns, item_feature_columns, temperature, seed=seed)
    recorded = {k: v for k, v in model._builder_config.value["arguments"].items() if k.endswith("columns")}
    model._builder_config = dataclasses.replace(
        model._builder_config, value={"builder": "Forgetful", "dtype_policy": "float32", "arguments": recorded}
    )
    return model


@register_builder
def Defaulting(user_feature_columns, item_feature_columns, width=2, seed=1):
    columns = (user_feature_columns, item_feature_columns)
    return assembled("Defaulting", *columns, {"width": 2, "seed": seed})


@register_builder
def Misnamed(user_feature_columns, item_feature_columns, seed=1):
    return Own(user_feature_columns, item_feature_columns, seed=seed)


@pytest.mark.parametrize(
    ("function", "check", "message"),
    [
        (Forgetful, "recorded", r"must be recorded, or it reloads as its default; got no \['seed', 'temperature'\]"),
        (Defaulting, "recorded", r"`width` must be recorded as it was given, 3; got 2"),
        (Misnamed, "recorded", r"`builder` must be the registered name of the builder; got 'Own'"),
        (Defaulting, "bad_arguments", r"width=an object must be refused with a ValueError that names `width`; got a m"),
    ],
)
def test_arguments(function, check, message):
    assert_fails(Trial(function), check, message)


def test_an_error_that_does_not_name_the_argument():
    @register_builder
    def Terse(user_feature_columns, item_feature_columns, seed=1):
        if not isinstance(seed, int):
            raise ValueError("no integer")
        return Own(user_feature_columns, item_feature_columns, seed=seed)

    message = r"seed=an object must be refused with a ValueError that names `seed`; got ValueError: no integer"
    assert_fails(Trial(Terse), "bad_arguments", message)


# Of losses and numbers.


@register
class MeanOfBatch(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 0 + tf.reduce_mean(inputs)


@register
class Heavy(keras.layers.Layer):
    """Weighs the rows by itself, but adds a mean that no weight has a say in."""

    def call(self, inputs):
        self.add_loss(tf.reduce_mean(inputs))
        return inputs


@register
class FloatsAlone(keras.layers.Layer):
    def call(self, inputs):
        return inputs if inputs.dtype == tf.float32 else inputs * float("nan")


def test_losses_of_other_rows():
    message = r"the loss of a row must not depend on what other rows say of their users; got a difference"
    assert_fails(Trial(broken("Averaging", loss=lambda: [MeanOfBatch()])), "sample_weight", message)


@pytest.mark.slow
@pytest.mark.once
def test_numbers_that_are_not_finite(trial_of):
    @register_builder
    def Bursting(user_feature_columns, item_feature_columns, loss="softmax"):
        layers = [Times(float("inf"))] if loss == "gbce" else []
        return assembled("Bursting", user_feature_columns, item_feature_columns, {"loss": loss}, loss=layers)

    message = r"the loss 'gbce' must have finite losses; got \[inf, "
    assert_fails(Trial(Bursting), "samplers_and_losses", message)
    message = r"under mixed_bfloat16 the user vectors must be near those of float32; got NaN"
    assert_fails(Trial(broken("Narrow", user=lambda: [FloatsAlone()])), "mixed_precision", message)


@register
class Times(keras.layers.Layer):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor


def test_what_is_no_model():
    def plain(user_feature_columns, item_feature_columns):
        model = Own(user_feature_columns, item_feature_columns)
        return tf.keras.Model(model.inputs, model.outputs)

    assert_fails(Trial(plain), "attributes", r"the builder must return a RetrievalModel; got Functional")

    def failing(user_feature_columns, item_feature_columns):
        raise KeyError("dim")

    assert_fails(Trial(failing), "attributes", r"no error was expected; got KeyError: 'dim'")


# Of other processes.


@register
class Offset(keras.layers.Layer):
    """Has what no file has, and another one in every model."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.offset = np.random.default_rng().normal(size=8).astype("float32")

    def call(self, inputs):
        return inputs + self.offset


@register
class InPython(keras.layers.Layer):
    """A function that no export can take along."""

    def call(self, inputs):
        same = tf.numpy_function(lambda values: values, [tf.stop_gradient(inputs)], inputs.dtype)
        return inputs + 0 * tf.ensure_shape(same, inputs.shape)


Elsewhere = broken("Elsewhere", user=lambda: [Offset(), InPython()])


@pytest.mark.slow
@pytest.mark.once
def test_what_another_process_reads(briefly):
    trial = Trial(Elsewhere)
    message = r"loads from its .keras file must give equal user vectors; got a difference of \d"
    assert_fails(trial, "reload", message)
    assert_fails(trial, "reload_weights", r"rebuilds and loads the weights of must give equal user vectors; got a diff")
    assert_fails(trial, "resume", r"must end with the weights of an uninterrupted one, '.*' too; got a difference of")
    assert_fails(trial, "export", r"a fresh process must read what was written; got \w+: .*PyFunc")
    assert_fails(trial, "repeats", r"two models of one seed must train to equal weights, '.*' too; got a difference of")


@builder
def Unmasked(make, user_feature_columns, item_feature_columns, padding="row", seed=1, **shared):
    """The mean over all positions, or over those of items with a weight of their place; or of no items."""
    rows, valid, *_ = make.history()
    pooled = make.layer(PaddedMean, "mean", padding=padding)([rows, valid])
    return make.model(make.dense("user", [pooled, *make.features()], (make.dim,)))


@register
class PaddedMean(keras.layers.Layer):
    def __init__(self, padding, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, inputs):
        rows, valid = inputs
        weights = tf.cast(valid, rows.dtype)[:, :, None]
        if self.padding == "row":
            return rows[:, 0] + tf.reduce_mean(rows, axis=1)
        return rows[:, 0] * weights[:, 0] + tf.reduce_sum(weights * rows, axis=1) / tf.reduce_sum(weights, axis=1)


@pytest.mark.slow
@pytest.mark.once
def test_padding(briefly):
    message = r"what a table holds for id 0 must change no user vector; got a difference"
    assert_fails(Trial(Unmasked), "padding", message)
    message = r"users without a history must have finite vectors; got NaN"
    assert_fails(Trial(Unmasked, padding="none"), "padding", message)


@pytest.mark.slow
def test_an_index_that_finds_others(trial_of, monkeypatch):
    search = ExactIndex.search
    monkeypatch.setattr(ExactIndex, "search", lambda index, vectors, n: search(index, -vectors, n))
    assert_fails(
        trial_of(YoutubeDNN), "index", r"the index must give the scores of the best items; got a difference of"
    )


# The suite itself.


def test_every_check_is_documented_and_every_sampler_is_tried():
    assert all(check.__doc__ for check in CHECKS.values())
    registered = {
        name for name, kind in samplers.base._SAMPLERS.items() if kind.__module__.startswith(samplers.__name__)
    }
    tried = {sampler.name for sampler in every_sampler(30).values()}
    assert tried == registered


def test_the_best_score_of_k_vectors_counts():
    users = np.array([[[1.0, 0.0], [0.0, 1.0]]])  # one user, two interests
    items = np.array([[9.0, 9.0], [3.0, 1.0], [0.0, 2.0], [1.0, 1.0]])  # row 0 is padding
    assert scores_of(users, items).tolist() == [[-np.inf, 3.0, 2.0, 1.0]]
    assert best(scores_of(users, items), 2).tolist() == [[1, 2]]


def test_planted_rows_follow_from_the_last_item():
    x = planted(read_columns("u", [history_column()]), read_columns("i", [item_column()]), 50, 3)
    assert (x["item"] == x["hist_item"][:, 0] % 29 + 1).all()
    assert ((x["hist_item"] > 0).sum(axis=1) == x["hist_len"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("YoutubeDNN",), "`builder` must be a function such as YoutubeDNN; got 'YoutubeDNN'"),
        ((YoutubeDNN, 3), r"`columns` must be a pair, user columns and item columns; got 3"),
        ((YoutubeDNN, ([DenseFeat("age")], [item_column()])), r"`columns\[0\]` must have a history that shares"),
        ((YoutubeDNN, ([history_column()], [])), r"`columns\[1\]` must begin with a SparseFeat of integer ids"),
    ],
)
def test_what_is_checked_wrongly_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_model(*arguments)


@pytest.mark.slow
@pytest.mark.once
def test_a_fresh_process_is_a_new_one():
    done = real_run_python("-c", "import sys; print(sys.argv[1:], 'tensorflow' in sys.modules)", "a", "b c")
    assert done.stdout == "['a', 'b c'] False\n"


def test_it_needs_no_test_framework():
    for path in pathlib.Path(testing.__file__).parent.glob("*.py"):
        assert not re.search(r"^\s*(import|from) pytest", path.read_text(), re.MULTILINE)
