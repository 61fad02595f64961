"""A recommender that was saved and loaded goes on as the one that was saved."""

import functools
import json
import re

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import Recommender, YoutubeDNN
from deepmatch_ext.models import builder
from deepmatch_ext.models._record import BUILDERS, as_json
from deepmatch_ext.optimizers import RowwiseAdam
from deepmatch_ext.samplers import FrequencySampler, MixedSampler, UniformSampler
from deepmatch_ext.utils import NegativeSampler
from tests.fresh import run_python
from tests.recommender.shop import EVENTS, ITEMS, NAMES, PEOPLE, SHELF, SMALL, USERS, untrained

SMALLER = {name: value for name, value in SMALL.items() if name != "num_sampled"}
MADE = {
    "temperature": 0.3,
    "sampler_config": MixedSampler([UniformSampler(5), UniformSampler(7)]),
    "dnn_activation": tf.keras.layers.PReLU,
    "exclude_features": ["taste"],
    "optimizer": RowwiseAdam(tf.keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9), beta_1=0.8),
    "columns": [
        VarLenSparseFeat(SparseFeat("hist_sku", ITEMS + 2, 8, embedding_name="sku"), 5, "last"),
        SparseFeat("customer", USERS + 2, 8),
        SparseFeat("aisle", 9, 4),
    ],
}


def made_of(recommender):
    """What tells one kind of model from another, as JSON."""
    model = recommender.model
    config = {**model.get_config(), "optimizer": model.optimizer.get_config()}
    return json.loads(re.sub(r'(p_re_lu|youtube_dnn)_\d+"', r'\1"', json.dumps(config, default=float)))  # Keras counts


@pytest.fixture(autouse=True)
def _nothing_is_trained():
    """What a fit makes is compared here, not what it learns."""
    with untrained():
        yield


@pytest.fixture
def saved(tmp_path):
    def of(recommender):
        recommender.save(tmp_path / "shop")
        return Recommender.load(tmp_path / "shop")

    return of


@pytest.mark.slow
@pytest.mark.once
def test_what_was_given_is_given_to_the_next_fit_after_loading(saved, capsys):
    recommender = Recommender(user_features=PEOPLE, item_features=SHELF, **NAMES, **SMALLER, **MADE)
    recommender.fit(EVENTS, epochs=1)
    said, made = capsys.readouterr().out.splitlines()[:5], made_of(recommender)
    assert made["arguments"]["temperature"] == 0.3
    assert made["optimizer"]["beta_1"] == pytest.approx(0.8)
    assert "item feature aisle: 3 categories, as it was given" in said
    loaded = saved(recommender)
    assert made_of(loaded) == made
    loaded.fit(EVENTS, epochs=1)
    assert capsys.readouterr().out.splitlines()[:5] == said
    assert made_of(loaded) == made

    day = EVENTS.tail(3).assign(at=9000, sku=["sku-01", "new", "sku-02"])
    new = SHELF.head(1).assign(sku="new", aisle="aisle 9")
    for each in (recommender, loaded):
        each.update(day, item_features=new, epochs=1)
    again = saved(loaded)
    for each in (recommender, loaded, again):
        each.fit(EVENTS, epochs=1, verbose=0)
    assert made_of(again) == made_of(loaded) == made_of(recommender)


ONES = [np.int64(1), [np.int64(1)], np.array([1]), {1}, pd.Index([1])]
BUYS = [np.str_("buy"), np.array(["buy"]), pd.Series(["buy"]), ("buy",)]


@pytest.mark.parametrize(("targets", "own"), [(each, [1]) for each in ONES] + [(each, ["buy"]) for each in BUYS])
def test_targets_in_any_form_are_a_list_of_pythons_own(targets, own):
    assert json.dumps(Recommender(kind="kind", targets=targets).targets) == json.dumps(own)


@pytest.mark.slow
def test_targets_are_the_same_after_loading(saved):
    recommender = Recommender(kind="kind", targets=np.int64(1), **NAMES, **SMALLER)
    loaded = saved(recommender.fit(EVENTS.assign(kind=np.where(EVENTS["at"] % 200 < 100, 1, 2)), epochs=1, verbose=0))
    assert loaded.targets == [1]
    assert loaded.interactions.kinds.targets == (1,)


@pytest.mark.parametrize("targets", [[], [1.5], [True], 1.0, [["buy"]], [1, 1]])
def test_targets_that_no_kind_can_be_are_refused_at_once(targets):
    with pytest.raises(ValueError, match="`targets` must"):
        Recommender(kind="kind", targets=targets)


def test_numpys_numbers_become_pythons_of_the_same_type():
    given = {"a": np.int64(2**60 + 1), "b": [np.float32(0.5), np.bool_(True)]}
    assert json.dumps(as_json(given)) == '{"a": 1152921504606846977, "b": [0.5, true]}'


def test_an_argument_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    recommender = Recommender(**NAMES, **SMALLER).fit(EVENTS, epochs=1, verbose=0)
    recommender._arguments["chosen"] = {1, 2}
    with pytest.raises(
        ValueError, match=r"`chosen` must be numbers, text and lists of them, to be saved; got \{1, 2\}"
    ):
        recommender.save(tmp_path / "shop")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_nothing_that_was_given_is_the_default_after_loading(saved):
    recommender = Recommender(sampler_config=NegativeSampler("uniform", 6, "sku"), **NAMES, **SMALLER)
    recommender.fit(EVENTS, epochs=1, verbose=0)
    made, loaded = made_of(recommender), saved(recommender)
    assert made_of(loaded.fit(EVENTS, epochs=1, verbose=0)) == made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sampler_config": FrequencySampler(5, np.ones(ITEMS + 1))}, "`sampler_config` must have its counts"),
        (
            {"columns": [SparseFeat("sku", ITEMS + 1, 8, embeddings_initializer=np.eye(ITEMS + 1, 8) + 0.1)]},
            "`columns` must have the array that is the `embeddings_initializer` of 'sku'",
        ),
    ],
)
def test_what_a_folder_does_not_hold_is_asked_for(saved, given, words):
    recommender = Recommender(**NAMES, **SMALLER, **given).fit(EVENTS, epochs=1, verbose=0)
    loaded = saved(recommender)
    loaded.recommend(["u1"])
    with pytest.raises(ValueError, match=f"{words}.*Make a Recommender with it, and fit that"):
        loaded.fit(EVENTS, epochs=1, verbose=0)


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (lambda *columns, **arguments: YoutubeDNN(*columns, **arguments), "a lambda"),
        (functools.partial(YoutubeDNN, temperature=0.2), "an object of the class partial"),
    ],
)
def test_a_builder_without_a_name_is_refused_before_anything_is_written(model, got, tmp_path):
    recommender = Recommender(model, **NAMES, **SMALLER).fit(EVENTS, epochs=1, verbose=0)
    with pytest.raises(ValueError, match=rf"^`model` must be a builder that `load` finds .* got {got}\. Give the"):
        recommender.save(tmp_path / "shop")
    assert not [*tmp_path.iterdir()]


def test_an_optimizer_without_a_name_is_refused_before_anything_is_written(tmp_path):
    class Slow(RowwiseAdam):
        pass

    recommender = Recommender(optimizer=Slow(0.1), **NAMES, **SMALLER).fit(EVENTS, epochs=1, verbose=0)
    with pytest.raises(ValueError, match=r"^`optimizer` must be registered with Keras, .* the class Slow"):
        recommender.save(tmp_path / "shop")
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_builder_of_one_s_own_is_found_once_its_module_is_imported(tmp_path):
    @builder
    def LastItems(make, user_feature_columns, item_feature_columns, seed=1024, **shared):
        return make.model(make.dense("user", make.features(), (make.dim,)))

    LastItems.__module__ = "shops.models"
    try:
        Recommender(LastItems, **NAMES, **SMALL).fit(EVENTS, epochs=1, verbose=0).save(tmp_path / "shop")
    finally:
        del BUILDERS["LastItems"]
    code = f"from deepmatch_ext import Recommender; Recommender.load({str(tmp_path / 'shop')!r})"
    error = run_python("-c", code).stderr.splitlines()[-1]
    assert "'LastItems' of the module 'shops.models' is not" in error
    assert error.endswith("Import shops.models before loading.")
