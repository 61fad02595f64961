"""Checks of a model's attributes, and of the vectors that it returns."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._keras import global_policy_name, input_name, is_table, keras, raw_variable, set_global_policy
from deepmatch_ext.features import (
    SequenceColumn,
    SparseColumn,
    input_names,
)
from deepmatch_ext.models._input_rules import is_item
from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.retrieval.exact_index import ExactIndex
from deepmatch_ext.testing._checks.check import check
from deepmatch_ext.testing._data import BATCH, as_tensors
from deepmatch_ext.testing._expect import expect, expect_best, expect_equal, rows_where, scores_of
from deepmatch_ext.testing._trial import Trial


@check
def attributes(trial: Trial) -> None:
    """Models are `RetrievalModel`s with ``user_input``, ``user_emb``, ``item_input``, ``item_emb``, a loss per row."""
    model = trial.model()
    expect(isinstance(model, RetrievalModel), "the builder must return a RetrievalModel", type(model).__name__)
    users, items = [input_name(t) for t in model.user_input], [input_name(t) for t in model.item_input]
    wanted = input_names(trial.user_columns)
    expect(set(users) == set(wanted), f"`user_input` must be the inputs of the user columns, {wanted}", f"{users}")
    wanted = input_names(trial.item_columns)
    expect(items == wanted, f"`item_input` must be the inputs of the item columns, {wanted}", f"{items}")
    user_shape, item_shape = tuple(model.user_emb.shape), tuple(model.item_emb.shape)
    expect(
        len(user_shape) in (2, 3) and None not in user_shape[1:],
        "`user_emb` must have shape (B, D) or (B, K, D)",
        user_shape,
    )
    expect(item_shape == (None, user_shape[-1]), f"`item_emb` must have shape (B, {user_shape[-1]})", item_shape)
    users_of = keras.Model(inputs=model.user_input, outputs=model.user_emb)
    items_of = keras.Model(inputs=model.item_input, outputs=model.item_emb)
    x = as_tensors(model.user_input, trial.users, 4)
    encoded = users_of(x)
    expect(tuple(encoded.shape) == (4, *user_shape[1:]), "the user encoder must give a row a user", f"{encoded.shape}")
    some = {name: values[1:5] for name, values in trial.every_item().items()}
    encoded = items_of(as_tensors(model.item_input, some, 4))
    expect(tuple(encoded.shape) == (4, item_shape[1]), "the item encoder must give a row an item", f"{encoded.shape}")
    losses = model(as_tensors(model.inputs, trial.x, 4))
    expect(tuple(losses.shape) == (4, 1), "the model's output must be a loss for each row, (B, 1)", f"{losses.shape}")
    expect(np.isfinite(losses).all(), "the losses must be finite", f"{np.ravel(losses)}")


@check
def vectors(trial: Trial) -> None:
    """``keras.Model(user_input, user_emb).predict`` equals `user_vectors`, at every batch size and at every call.

    A surplus interest repeats another one of the user's interests, and is not zeros.
    """
    model = trial.trained
    expected = trial.learnt.user_vectors
    rows = len(expected)
    expect(np.isfinite(expected).all(), "user vectors must be finite", "NaN or infinity")
    if expected.ndim == 3:
        zeros = np.all(expected == 0, axis=2)
        mixed = np.count_nonzero(zeros.any(axis=1) & ~zeros.all(axis=1))
        rule = "a surplus interest must repeat another one of the user, since the scores of zeros beat negative ones"
        expect(not mixed, rule, f"zeros for {mixed} users")
    encoder = keras.Model(inputs=model.user_input, outputs=model.user_emb)
    some = {name: values[:20] for name, values in trial.users.items()}
    for size in (1, 7, 20):
        what = f"`user_vectors` with batch_size={size} must equal those of another size and an earlier call"
        expect_equal(model.user_vectors(some, batch_size=size), expected[:20], what)
    arrays = dict(zip(map(input_name, model.user_input), as_tensors(model.user_input, trial.users, rows), strict=True))
    size = rows // 2 + 1  # the last batch has another size
    what = f"tf.keras.Model(user_input, user_emb).predict(x, batch_size={size}) must equal `user_vectors`"
    expect_equal(encoder.predict(arrays, batch_size=size, verbose=0), expected, what)
    encoded = _encoded(model.item_input, model.item_emb, trial.every_item())
    what = "tf.keras.Model(item_input, item_emb) must equal `item_vectors`"
    expect_equal(encoded[1:], trial.learnt.item_vectors[1:], what)
    expect(not trial.learnt.item_vectors[0].any(), "row 0 of `item_vectors`, padding, must be zeros", "others")


@check
def padding(trial: Trial) -> None:
    """Padding changes no vector, whatever its row in a table holds and wherever it is; empty histories are accepted."""
    model, users = trial.trained, trial.users
    empty, gaps = dict(users), dict(users)
    for column in trial.user_columns:
        if isinstance(column, SequenceColumn):
            histories = [name for name in (column.name, column.weight_name) if name is not None]
            empty |= {name: _zeros(users[name]) for name in histories}
            gaps |= {name: _with_gap(users[name], users[column.name]) for name in histories}
            if column.length_name is not None:
                empty[column.length_name] = _zeros(users[column.length_name])
    expect(np.isfinite(model.user_vectors(empty)).all(), "users without a history must have finite vectors", "NaN")
    what = "an id 0 within a history must change no user vector"
    expect_equal(model.user_vectors(gaps), trial.learnt.user_vectors, what)

    of_histories = {_shape(column.sparsefeat) for column in trial.user_columns if isinstance(column, SequenceColumn)}
    # In their tables, row 0 may be a bucket like any other.
    hashed = {_shape(column) for column in trial.user_columns if isinstance(column, SparseColumn) and column.use_hash}
    weights = model.get_weights()
    other = [
        np.concatenate([weight[:1] + 1, weight[1:]])
        if is_table(variable) and weight.shape in of_histories - hashed
        else weight
        for variable, weight in zip(model.weights, weights, strict=True)
    ]
    model.set_weights(other)
    try:
        what = "what a table holds for id 0 must change no user vector"
        expect_equal(model.user_vectors(users), trial.learnt.user_vectors, what)
    finally:
        model.set_weights(weights)


def _with_gap(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Values of each position with a 0 after the first one, in histories that have room for it."""
    moved = np.concatenate([values[:, :1], _zeros(values[:, :1]), values[:, 1:-1]], axis=1)
    return rows_where(~is_item(ids)[:, -1], moved, values)


def _zeros(values: np.ndarray) -> np.ndarray:
    return np.full_like(values, "0" if values.dtype.kind == "O" else 0)


def _shape(column: SparseColumn) -> tuple[int, int]:
    return column.vocabulary_size, column.embedding_dim


@check
def mixed_precision(trial: Trial) -> None:
    """With 16 bits the vectors are finite and near those of float32, and embedding tables stay float32."""
    for name in ("mixed_bfloat16", "mixed_float16"):
        _check_policy(trial, name)


def _check_policy(trial: Trial, of_check: str) -> None:
    policy = global_policy_name()
    set_global_policy(of_check)
    try:
        model = trial.model()
    finally:
        set_global_policy(policy)
    model.set_weights(trial.trained.get_weights())
    for weight in model.weights:
        if is_table(weight) or tuple(weight.shape)[:1] == (trial.item.vocabulary_size,):
            dtype = tf.as_dtype(raw_variable(weight).dtype)
            name = getattr(weight, "path", weight.name)
            expect(not dtype.is_floating or dtype == tf.float32, f"the table {name!r} must stay float32", dtype.name)
    for what, came, expected in (
        ("user", _encoded(model.user_input, model.user_emb, trial.users), trial.learnt.user_vectors),
        ("item", model.item_vectors(), trial.learnt.item_vectors),
    ):
        expect_equal(came, expected, f"under {of_check} the {what} vectors must be near those of float32", 0.1)
    losses = np.asarray(model(as_tensors(model.inputs, trial.x, BATCH), training=True))
    expect(np.isfinite(losses).all(), f"under {of_check} the losses must be finite", "NaN or infinity")


def _encoded(inputs: list[Any], output: Any, x: Mapping[str, np.ndarray]) -> np.ndarray:
    """The vectors of all rows of ``x``, from a tower that runs eagerly, since tracing it is not worth the time."""
    return np.asarray(keras.Model(inputs, output)(as_tensors(inputs, x, len(next(iter(x.values()))))), np.float32)


@check
def index(trial: Trial) -> None:
    """An index of the item vectors, saved and loaded, finds each user's best items."""
    users, items = trial.learnt.user_vectors, trial.learnt.item_vectors
    with tempfile.TemporaryDirectory() as folder:
        ExactIndex(np.arange(1, len(items)), items[1:]).save(folder + "/index")
        ids, scores = ExactIndex.load(folder + "/index").search(users, 5)
    expect_best(ids, scores, scores_of(users, items), "the index")
