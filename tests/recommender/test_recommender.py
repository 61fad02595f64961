"""The whole job as one object: what it gives is what the parts give, in raw ids."""

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat

from deepmatch_ext import NCF, ComiRec, Recommender, SequenceDNN
from deepmatch_ext.data import Interactions, leave_last_out, seen_before, split_by_time, window_dataset, windows
from deepmatch_ext.data.windows import Cutter
from deepmatch_ext.evaluation import Popularity, SeenTargetsWarning, evaluate, evaluate_vectors
from deepmatch_ext.models import RetrievalModel
from deepmatch_ext.recommender.features import FeatureTable
from deepmatch_ext.recommender.held_out import split_of
from deepmatch_ext.recommender.reading import read_events
from tests.recommender.shop import EVENTS, ITEMS, NAMES, PEOPLE, SHELF, SMALL, USERS, events_of, untrained


@pytest.fixture(scope="module")
def plain():
    recommender = Recommender(**NAMES, **SMALL)
    return recommender.fit(EVENTS, validation="last", test="last", epochs=3, verbose=0)


@pytest.fixture(scope="module")
def rich():
    shelf = SHELF.assign(shop=1)  # which tells nothing
    recommender = Recommender(user_features=PEOPLE, item_features=shelf, weight="weight", **NAMES, **SMALL)
    return recommender.fit(EVENTS, epochs=2, verbose=0)


def test_recommendations_are_those_of_the_parts(plain):
    found = plain.recommend(["u7", "u3"], n=4)
    assert found.columns.tolist() == ["customer", "sku", "score", "rank", "based_on"]
    assert found["customer"].tolist() == ["u7"] * 4 + ["u3"] * 4
    assert found["rank"].tolist() == [1, 2, 3, 4] * 2
    assert set(found["based_on"]) == {"history"}
    items = plain.interactions.item_ids
    for user, lines in found.groupby("customer"):
        had = EVENTS[EVENTS["customer"] == user].sort_values("at")["sku"]
        history = items.encode(had[::-1][:5].to_numpy())
        vector = plain.model.user_vectors({"hist_sku": history[None], "hist_len": np.array([len(history)])})[0]
        scores = pd.Series(plain.model.item_vectors()[1:] @ vector, items.values).drop(had.unique())
        best = scores.sort_values(ascending=False)[:4]
        assert lines["sku"].tolist() == best.index.tolist()
        np.testing.assert_allclose(lines["score"], best, atol=1e-5)


def test_all_users_with_events_are_meant_where_none_are_named(plain, rich):
    assert set(plain.recommend(n=2)["customer"]) == set(EVENTS["customer"])
    assert set(rich.recommend(n=2)["customer"]) == set(EVENTS["customer"])  # and not the visitor


def test_who_has_no_events_gets_what_is_known_of_them(plain, rich):
    assert rich.recommend(["u1", "visitor", "nobody"], n=1)["based_on"].tolist() == [
        "history",
        "features",
        "popularity",
    ]
    found = plain.recommend(["nobody"], n=3)
    share = EVENTS["sku"].value_counts(normalize=True)
    np.testing.assert_allclose(found["score"], share.sort_values(ascending=False)[:3])
    assert (share[found["sku"]] == found["score"].to_numpy()).all()
    assert found["based_on"].tolist() == ["popularity"] * 3


def test_only_items_among_those_that_may_be_are_recommended(plain):
    stock = ["sku-01", "sku-11", "sku-21", "sku-22", "unheard of"]
    found = plain.recommend(["u0", "nobody"], n=10, among=stock, exclude_seen=False)
    assert set(found["sku"]) == set(stock[:4])
    assert found.groupby("customer").size().tolist() == [4, 4]
    had = set(EVENTS[EVENTS["customer"] == "u0"]["sku"])
    left = plain.recommend(["u0"], n=10, among=stock)
    assert set(left["sku"]) == set(stock[:4]) - had  # fewer rows, and nothing in their place
    with pytest.raises(ValueError, match="`among` must hold an item that can be recommended; got 'unheard of'"):
        plain.recommend(["u0"], among=["unheard of"])
    with pytest.raises(ValueError, match="`among` must hold an item that can be recommended; got no item"):
        plain.recommend(["u0"], among=[])
    with pytest.raises(ValueError, match="`user_ids` must be strings"):
        plain.recommend([7])


def test_similar_items_are_near_and_never_the_item_itself(plain):
    found = plain.similar_items(["sku-05", "sku-15"], n=3)
    assert found.columns.tolist() == ["sku", "similar_sku", "score", "rank"]
    items, ids = plain.model.item_vectors(), plain.interactions.item_ids
    for item, lines in found.groupby("sku"):
        cosine = pd.Series(items[1:] @ items[ids.encode(item)], ids.values).drop(item).sort_values(ascending=False)
        assert lines["similar_sku"].tolist() == cosine.index[:3].tolist()
    with pytest.raises(ValueError, match="`item_ids` must all be known to the id map; got unknown 'sku-99'"):
        plain.similar_items(["sku-99"])


def test_evaluation_is_that_of_the_parts(plain, capsys):
    figures = plain.evaluate(ns=[5])
    split = leave_last_out(plain.interactions)
    test, seen = windows(plain.interactions, split.test, 5), seen_before(plain.interactions, split.test)
    users, items = plain.model.user_vectors(test), plain.model.item_vectors()
    expected = evaluate_vectors(users, items, test["sku"], seen=seen, ns=[5])
    assert figures.loc["YoutubeDNN"].to_dict() == pytest.approx(expected)
    known = np.sort(np.append(split.train, split.validation))
    popularity = Popularity.from_interactions(plain.interactions, known)
    expected = evaluate(lambda a, b: popularity.score(test["hist_sku"][a:b, 0]), test["sku"], seen=seen, ns=[5])
    assert figures.loc["popularity"].to_dict() == pytest.approx(expected)
    assert "the test events of fit (40 events)" in capsys.readouterr().out


def test_of_later_events_new_items_count_as_missed(plain):
    later = pd.DataFrame({"customer": ["u0", "u0", "newcomer"], "sku": ["sku-09", "brand-new", "sku-01"], "at": 10_000})
    figures = plain.evaluate(later, ns=[30], exclude_seen=False, verbose=0)
    assert figures.loc["YoutubeDNN", "HR@30"] == pytest.approx(2 / 3)
    assert plain.interactions.num_items == ITEMS  # it has learnt nothing


def test_items_that_are_never_recommended_come_last_when_judged(plain, monkeypatch):
    known = plain._now.known_items
    monkeypatch.setattr(plain._now, "known_items", known[1:])
    events = pd.DataFrame({"customer": [f"u{k}" for k in range(9)], "at": 10_000})
    later = events.assign(sku=plain.interactions.item_ids.decode(known[:1])[0])
    assert plain.evaluate(later, ns=[ITEMS - 1], exclude_seen=False, verbose=0).loc["YoutubeDNN", "HR@29"] == 0


def test_there_must_be_something_to_judge_by(rich):
    with pytest.raises(ValueError, match="`events` must be given where `fit` held none out"):
        rich.evaluate()


@pytest.mark.slow
def test_a_folder_holds_all_that_tomorrow_needs(rich, tmp_path):
    folder = tmp_path / "shop"
    rich.save(folder)
    loaded = Recommender.load(folder)
    pd.testing.assert_frame_equal(loaded.recommend(n=5), rich.recommend(n=5))
    pd.testing.assert_frame_equal(loaded.recommend(["visitor", "x"]), rich.recommend(["visitor", "x"]))
    tomorrow = pd.DataFrame(
        {
            "customer": ["u1", "newcomer", "u2", "newcomer"] * 5,
            "sku": ["sku-03", "sku-04", "brand-new", "brand-new"] * 5,
            "at": np.arange(20) + 5000,
            "weight": 1.0,
        }
    )
    with pytest.raises(ValueError, match="column 'weight' must be in the frame"):
        loaded.update(tomorrow.drop(columns="weight"))
    pd.testing.assert_frame_equal(loaded.recommend(n=5), rich.recommend(n=5))  # nothing has changed
    before = tomorrow.copy()
    new = pd.DataFrame({"sku": ["brand-new"], "aisle": ["aisle 3"], "shop": 1, "brand": "y"})
    without = pytest.warns(UserWarning, match="1 of 3 users .* no row in `user_features`, .* 'newcomer'")
    with without, pytest.warns(UserWarning, match="the model does not read them: 'brand'"):
        loaded.update(tomorrow, item_features=new)
    pd.testing.assert_frame_equal(tomorrow, before)
    assert loaded.interactions.num_items == ITEMS + 2
    assert "newcomer" in loaded.interactions.user_ids
    assert loaded.recommend(["newcomer"], n=1)["based_on"].tolist() == ["history"]
    assert "brand-new" in loaded.recommend(["u5"], n=ITEMS + 2)["sku"].tolist()
    loaded.save(folder)
    again = Recommender.load(folder)
    pd.testing.assert_frame_equal(again.recommend(n=3), loaded.recommend(n=3))
    assert json.loads((folder / "manifest.json").read_text())["format"] == "deepmatch_ext recommender"
    assert rich.interactions.num_items == ITEMS + 1  # another object


@pytest.mark.slow
def test_a_day_of_events_teaches_what_is_new(plain, tmp_path):
    plain.save(tmp_path / "before")
    recommender = Recommender.load(tmp_path / "before")
    # Whoever had the first aisle's items takes a new one.
    firsts = [f"u{k}" for k in range(0, USERS, 3)]
    day = pd.DataFrame({"customer": firsts, "sku": "novelty", "at": 9000})
    recommender.update(day.iloc[:-2], epochs=3)
    scores = recommender.recommend(n=ITEMS + 1, exclude_seen=False).query("sku == 'novelty'")
    score = scores.set_index("customer")["score"]
    others = [f"u{k}" for k in range(USERS) if k % 3]
    assert score[firsts[-2:]].mean() > score[others].mean() + 0.2  # these two have not had it yet
    assert len(recommender.history["loss"]) == len(plain.history["loss"]) + 1
    assert np.isnan(recommender.history["val_NDCG@10"][-1])
    assert recommender.epochs == plain.epochs


def test_a_call_passes_over_no_events_until_there_are_new_ones(plain, tmp_path, monkeypatch):
    plain.save(tmp_path / "before")
    recommender = Recommender.load(tmp_path / "before")
    asked = {"user_ids": ["u1", "nobody"], "n": 3, "exclude_seen": False}
    before = recommender.recommend(**asked)
    with monkeypatch.context() as patch:
        # Each of these reads all events.
        for owner, name in ((Interactions, "item_counts"), (Cutter, "__init__"), (FeatureTable, "known")):
            patch.setattr(owner, name, lambda *_: pytest.fail("all events are read again"))
        pd.testing.assert_frame_equal(recommender.recommend(**asked), before)
        recommender.recommend(["u2"], among=["sku-01"], exclude_seen=False)
        recommender.similar_items(["sku-05"], n=1)
    day = pd.DataFrame({"customer": ["u1"] * 300 + ["nobody"], "sku": "sku-17", "at": np.arange(301) + 9000})
    recommender.update(day, epochs=0)
    after = recommender.recommend(["u1", "nobody", "another"], n=3, exclude_seen=False)
    assert after["based_on"].unique().tolist() == ["history", "popularity"]
    popular = after[after["customer"] == "another"].iloc[0]
    had = (EVENTS["sku"] == "sku-17").sum() + 301
    assert (popular["sku"], popular["score"]) == ("sku-17", pytest.approx(had / (len(EVENTS) + 301)))
    left = recommender.recommend(["u1"], n=ITEMS)["sku"]
    assert "sku-17" not in set(left)
    vector = recommender.model.user_vectors({"hist_sku": np.full((1, 5), 17 + 1), "hist_len": np.array([5])})
    best = recommender.model.item_vectors()[1:] @ vector[0]
    np.testing.assert_allclose(after["score"][:3], np.sort(best)[::-1][:3], atol=1e-5)


def test_each_pass_over_new_events_has_old_ones_of_its_own(plain, tmp_path, monkeypatch):
    plain.save(tmp_path / "before")
    recommender, trained = Recommender.load(tmp_path / "before"), []
    monkeypatch.setattr(Recommender, "_train", lambda self, rows, *_: trained.append(rows))
    day = pd.DataFrame({"customer": ["u1", "u2", "nobody"], "sku": "sku-03", "at": 9000})
    recommender.update(day, epochs=5, replay=2.5)
    rows, counts = np.unique(trained[0], return_counts=True)
    is_new = recommender.interactions.times[rows] == 9000
    assert counts[is_new].tolist() == [5, 5]  # before the third event there is nothing
    assert (is_new.sum(), (~is_new).sum(), counts[~is_new].max()) == (2, 25, 1)
    held_out = np.concatenate([recommender._split.validation, recommender._split.test])
    assert not np.isin(rows, held_out).any()
    recommender.update(day.assign(at=9001), epochs=0)
    assert len(trained) == 1
    recommender.update(day.assign(at=9002), replay=1e9)
    assert np.unique(trained[1]).size == len(recommender._split.train_targets())  # all that there are


@pytest.mark.slow
@pytest.mark.once
def test_a_model_of_every_position_is_trained_on_rows_that_hold_each_event_once(monkeypatch):
    taken = []

    def noted(interactions, targets, max_len, size, **arguments):
        taken.append((len(targets), size))
        return window_dataset(interactions, targets, max_len, size, **arguments)

    monkeypatch.setattr("deepmatch_ext.recommender.training.window_dataset", noted)
    settings = {**NAMES, **SMALL, "pooled": "last", "user_dnn_hidden_units": []}  # little to trace
    recommender = Recommender(SequenceDNN, **settings, dnn_dropout=0.0)
    recommender.fit(EVENTS, epochs=2, verbose=0)
    # 7 targets of each user in rows of 5 and 2, so 3.5 on average: 64 events are 18 rows.
    assert taken == [(2 * USERS, 18)]
    later = events_of(seed=0, each=10)
    later = later[later["at"] >= 800]  # two more of each user
    recommender.update(later, epochs=1, replay=0.0)
    assert taken[1][0] == USERS  # of the 9 targets, the last row's 5 have both
    assert len(recommender.interactions) == 10 * USERS
    assert recommender.recommend(["u7"], n=3)["sku"].str.startswith("sku-").all()

    held_out = Recommender(SequenceDNN, **settings).fit(EVENTS, validation="last", epochs=1, verbose=0)
    with pytest.raises(ValueError, match="must be fitted without `validation` and `test`"):
        held_out.update(later)
    assert len(held_out.interactions) == 8 * USERS
    with pytest.raises(ValueError, match="`weight` must be left out"):
        Recommender(SequenceDNN, weight="weight", **settings).fit(EVENTS, epochs=1, verbose=0)


def test_days_that_look_wrong_are_told_of(plain, tmp_path):
    plain.save(tmp_path / "before")
    recommender = Recommender.load(tmp_path / "before")
    day = pd.DataFrame({"customer": ["u1", "u2"], "sku": ["sku-03", "sku-04"], "at": [9000, 9001]})
    recommender.update(day, epochs=0)
    with pytest.warns(UserWarning, match="1 of 2 events were there already, and are now there twice"):
        recommender.update(pd.concat([day[:1], day[:1].assign(at=9002)]), epochs=0)
    with pytest.warns(UserWarning, match="All 1 events are earlier than the last one that was known, 9002"):
        recommender.update(day[:1].assign(at=1), epochs=0)
    with pytest.warns(UserWarning, match="2 of 3 events were there already, and are now there twice"):
        recommender.update(pd.concat([day[:1].assign(at=9003)] * 3), epochs=0)  # within one table, too
    with pytest.raises(ValueError, match=r"^`events` must have at least one row; got an empty frame"):
        recommender.update(day[:0])


def test_users_without_features_are_told_of():
    of_another_system = PEOPLE.assign(customer=[f"c{k}" for k in range(len(PEOPLE))])
    recommender = Recommender(user_features=of_another_system, **NAMES, **SMALL)
    words = "^40 of 40 users of the events have no row in `user_features`, such as 'u0', in 320 events: .* histories"
    with pytest.warns(UserWarning, match=words):
        read_events(recommender, EVENTS)


def test_items_without_features_are_told_of():
    columns = [SparseFeat("aisle", 4, 4)]
    recommender = Recommender(item_features=SHELF.drop(index=[3, 4]), columns=columns, **NAMES, **SMALL)
    with pytest.warns(
        UserWarning, match="2 of 30 items of the events have no row in `item_features`, such as 'sku-03'"
    ):
        read_events(recommender, EVENTS)


def test_targets_that_the_user_had_are_told_of_in_its_own_words(plain):
    later = pd.DataFrame({"customer": ["u0", "u3"], "sku": [EVENTS.query("customer == 'u0'")["sku"].iloc[0], "sku-29"]})
    with pytest.warns(SeenTargetsWarning, match=r"^1 of 2 held-out events are of items .* exclude_seen=False\)\.$"):
        plain.evaluate(later.assign(at=10_000), verbose=0)
    plain.evaluate(later.assign(at=10_000), exclude_seen=False, verbose=0)


@pytest.mark.slow
def test_an_export_recommends_the_same(rich, tmp_path):
    served = tf.saved_model.load(str(rich.export(tmp_path / "exports")))
    had = EVENTS[EVENTS["customer"] == "u4"].sort_values("at")["sku"].tolist()
    user = {"hist_sku": tf.constant([had[::-1][:5]]), "hist_len": tf.constant([[5]])}
    user["taste"] = tf.constant([[1]], "int64")
    unseen = served.signatures["recommend_unseen"](**user, n=tf.constant(4), seen=tf.constant([had]))
    expected = rich.recommend(["u4"], n=4)
    assert [name.decode() for name in unseen["item_ids"].numpy()[0]] == expected["sku"].tolist()
    np.testing.assert_allclose(unseen["scores"].numpy()[0], expected["score"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.once
@untrained()
def test_an_export_takes_what_the_frames_of_features_hold(tmp_path):
    rng = np.random.default_rng(0)
    people = PEOPLE.assign(age=rng.normal(40.0, 12.0, USERS + 1), income=rng.uniform(1e4, 9e4, USERS + 1))
    people.loc[3, "age"] = np.nan
    people = people.assign(member=people["age"] > 40, visits=rng.integers(1, 900, USERS + 1))
    visits = DenseFeat("visits", 1, transform_fn=tf.math.log)  # which reads the number as it is
    recommender = Recommender(user_features=people, columns=[visits], **NAMES, **SMALL)
    recommender.fit(EVENTS, epochs=1, verbose=0)
    path = recommender.export(tmp_path / "exports")
    recommend = tf.saved_model.load(str(path)).signatures["recommend"]
    for row in people.iloc[[3, 4]].to_dict("records"):
        had = EVENTS[EVENTS["customer"] == row["customer"]].sort_values("at")["sku"].tolist()
        user = {"hist_sku": tf.constant([had[::-1][:5]]), "hist_len": tf.constant([[5]])}
        user |= {name: tf.constant([[row[name]]], tf.float32) for name in ("age", "income", "visits")}
        user |= {"taste": tf.constant([[row["taste"]]], "int64"), "member": tf.constant([[row["age"] > 40]], "int64")}
        found = recommend(**user, n=tf.constant(5))
        expected = recommender.recommend([row["customer"]], n=5, exclude_seen=False)
        assert [name.decode() for name in found["item_ids"].numpy()[0]] == expected["sku"].tolist()
        np.testing.assert_allclose(found["scores"].numpy()[0], expected["score"], atol=1e-5)
    inputs = json.loads((path / "manifest.json").read_text())["inputs"]
    assert "mean" not in inputs["visits"]
    assert (inputs["income"]["mean"], inputs["income"]["deviation"]) == pytest.approx(
        (people["income"].mean(), people["income"].std(ddof=0))
    )


@pytest.mark.slow
@untrained()
def test_what_was_made_of_the_frames_is_said(capsys):
    columns = [SparseFeat("aisle", 9, 4), SparseFeat("customer", USERS + 2, 8), SparseFeat("sku", 60, 8)]
    recommender = Recommender(item_features=SHELF, columns=columns, **NAMES, **SMALL)
    assert repr(recommender) == "Recommender(YoutubeDNN, user='customer', item='sku': not fitted)"
    recommender.fit(EVENTS, epochs=1)
    assert repr(recommender) == "Recommender(YoutubeDNN, user='customer', item='sku': 320 events)"
    said = capsys.readouterr().out
    assert "320 events of 40 users with 30 items\nwithout events: 1 item\n" in said
    assert 'hist_sku: the last 5 items, pooled by "recency+last"' in said
    assert "item feature aisle: 3 categories, as it was given" in said
    assert [column.name for column in recommender.user_columns] == ["hist_sku", "customer"]
    assert recommender.item_columns[1].embedding_dim == 4
    # Rows to spare are no items.
    assert recommender.model.item_vectors().shape == (60, 8)
    assert set(recommender.recommend(n=60)["sku"]) == set(SHELF["sku"])


@pytest.mark.slow
@untrained()
def test_new_items_take_rows_to_spare_first(monkeypatch):
    asked, extended = [], RetrievalModel.extended
    monkeypatch.setattr(
        RetrievalModel, "extended", lambda self, sizes, **given: asked.append(given) or extended(self, sizes, **given)
    )
    recommender = Recommender(columns=[SparseFeat("sku", ITEMS + 3, 8)], **NAMES, **SMALL).fit(
        EVENTS, epochs=1, verbose=0
    )
    day = pd.DataFrame({"customer": ["u1", "u2"], "sku": ["new 1", "sku-01"], "at": [9000, 9001]})
    recommender.update(day, epochs=1)
    assert recommender.model.item_vectors().shape == (ITEMS + 3, 8)
    found = recommender.recommend(["u3"], n=60, exclude_seen=False)["sku"]
    assert set(found) == {*EVENTS["sku"], "new 1"}  # and not the row to spare that is left
    recommender.update(day.assign(sku=["new 2", "new 3"], at=9002), epochs=0)
    assert recommender.model.item_vectors().shape == (ITEMS + 4, 8)
    # Both begin near what is around them, though one takes a row to spare.
    assert asked[1]["in_use"] == {"sku": ITEMS + 2}
    indptr, _ = asked[1]["alike"]
    assert (np.diff(indptr) > 0).tolist() == [True, True]


@pytest.mark.slow
@pytest.mark.once
def test_kinds_of_events_have_histories_of_their_own():
    clicks = EVENTS.assign(kind="click", at=EVENTS["at"] - 1)
    events = pd.concat([EVENTS.assign(kind="buy"), clicks])
    recommender = Recommender(ComiRec, kind="kind", targets="buy", **NAMES, **SMALL)
    recommender.fit(events, validation="last", epochs=1, verbose=0)
    assert [column.name for column in recommender.user_columns] == ["hist_sku_buy", "hist_sku_click"]
    assert recommender.evaluate(verbose=0).index.tolist()[0] == "popularity"
    window = pd.DataFrame({"customer": ["w"], "sku": ["sku-03"], "at": [9000], "kind": ["click"]})
    recommender.update(window)
    assert recommender.recommend(["w"], n=1)["based_on"].tolist() == ["history"]


@pytest.mark.parametrize(
    ("held_out", "sizes"),
    [
        ({}, (320, 0, 0)),
        ({"validation": "last"}, (280, 40, 0)),
        ({"test": "last"}, (280, 0, 40)),
        ({"validation": "last", "test": "last"}, (240, 40, 40)),
        ({"validation": 700}, (280, 40, 0)),
        ({"validation": 600, "test": 700}, (240, 40, 40)),
    ],
)
def test_what_is_held_out(held_out, sizes):
    events = Interactions.from_frame(EVENTS, "customer", "sku", "at")
    split = split_of(events, held_out.get("validation"), held_out.get("test"))
    assert (len(split.train), len(split.validation), len(split.test)) == sizes


@pytest.mark.parametrize("held_out", ["validation", "test"])
def test_sessions_stay_whole_and_their_first_events_are_not_held_out(held_out):
    rng = np.random.default_rng(0)
    bounds = np.append(0, np.cumsum(rng.integers(1, 5, 60)))
    times = np.sort(rng.integers(0, 100, 60)).repeat(np.diff(bounds)) + rng.integers(0, 30, bounds[-1])
    events = Interactions.from_sequences(bounds, rng.integers(1, 9, bounds[-1]), times, sessions=True)
    split, both = split_of(events, **{"validation": None, "test": None, held_out: 50}), split_by_time(events, 50, 80)
    np.testing.assert_array_equal(split.train, both.train)
    np.testing.assert_array_equal(np.sort([*both.validation, *both.test]), getattr(split, held_out))
    single = Interactions.from_sequences([0, 2, 3], [1, 2, 3], [1, 2, 50], sessions=True)
    with pytest.raises(ValueError, match=f"`{held_out}` must leave later sessions with more than one event; got 10"):
        split_of(single, **{"validation": None, "test": None, held_out: 10})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "YoutubeDNN"}, "`model` must be a builder"),
        ({"max_len": 0}, "`max_len`"),
        ({"model": SequenceDNN, "history_times": "hist_time"}, "`history_times` must be left out of a Recommender"),
        ({"user": "score"}, "`user` must have another name than the lists' own columns score, rank, .*; got 'score'"),
        ({"item": "rank"}, "`item` must have another name"),
        ({"item": "based_on"}, "`item` must have another name"),
        ({"item": "customer"}, "the columns user, item, time, session, kind, weight must not repeat a name; got 'cust"),
        ({"weight": "at"}, "must not repeat a name; got 'at' twice"),
        ({"session": "customer"}, "must not repeat a name; got 'customer' twice"),
        ({"kind": "sku", "targets": "sku-01"}, "must not repeat a name; got 'sku' twice"),
        ({"item_features": SHELF.drop(columns="sku")}, "column 'sku' must be in `item_features`"),
    ],
)
def test_bad_arguments_are_refused_at_once(arguments, words):
    with pytest.raises(ValueError, match=words):
        Recommender(**{**NAMES, **arguments})


def test_bad_events_are_refused_before_anything_is_built():
    recommender = Recommender(**NAMES, **SMALL)
    with pytest.raises(ValueError, match="The recommender must be fitted first"):
        recommender.recommend(["u1"])
    with pytest.raises(ValueError, match=r"`events` must be a pandas .* got 'events.csv'. pd.read_csv\(path\) reads"):
        recommender.fit("events.csv")
    with pytest.raises(ValueError, match="`validation` must be \"last\" or a time; got 'lst'"):
        recommender.fit(EVENTS, validation="lst")
    with pytest.raises(TypeError, match="unexpected argument 'embeding_dim', which YoutubeDNN does not have either"):
        Recommender(**NAMES, embeding_dim=8)
    with pytest.raises(ValueError, match=r"column 'user_id' must be in the frame.*Name it: user='...'"):
        Recommender(item="sku", time="at").fit(EVENTS)
    with pytest.raises(ValueError, match="column 'at' must be in the frame"):
        recommender.fit(EVENTS.drop(columns="at"))
    with pytest.raises(ValueError, match='`validation` and `test` must both be "last" or times'):
        recommender.fit(EVENTS, validation="last", test=700)
    with pytest.raises(ValueError, match="`validation` must have events on both sides"):
        recommender.fit(EVENTS, validation=10**6)
    with pytest.raises(ValueError, match="`events` must have a user with two events"):
        recommender.fit(EVENTS.drop_duplicates("customer"))
    with pytest.raises(ValueError, match=r"`columns` must name columns of the frames that .*; got 'colour'\."):
        Recommender(columns=[SparseFeat("colour", 5, 4)], **NAMES, **SMALL).fit(EVENTS)
    with pytest.raises(ValueError, match="`model` must be a builder of models that learn from what users took"):
        Recommender(NCF, **NAMES, embedding_dim=8).fit(EVENTS, verbose=0)
