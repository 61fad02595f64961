"""What a recommender is judged by: which events it may be, and what stands beside the model."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext import Recommender
from deepmatch_ext.data import Interactions
from deepmatch_ext.evaluation import MISSED, Markov, SeenTargetsWarning, inner_products
from deepmatch_ext.evaluation.baselines import has_implicit
from deepmatch_ext.recommender.features import FeatureTable
from deepmatch_ext.recommender.judged import (
    chain,
    items_before,
    judged_events,
    last_rows,
    ranks_of_all,
    with_new_items_last,
)
from tests.data.test_kinds import kind_events, slow_history
from tests.recommender.shop import EVENTS, NAMES, SMALL, USERS, untrained

TOMORROW = EVENTS[:20].assign(at=10_000 + np.arange(20))


@pytest.fixture(scope="module")
def plain():
    with untrained():
        return Recommender(**NAMES, **SMALL).fit(EVENTS, test="last", epochs=1, verbose=0)


def warned_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught]


def test_events_after_those_of_fit_are_no_reason_to_warn(plain, capsys):
    assert warned_of(lambda: plain.evaluate(TOMORROW, exclude_seen=False)) == []
    assert "events after those that the model knows (20 events)" in capsys.readouterr().out


def test_new_items_are_missed_by_all_even_where_a_list_has_room_for_every_item(plain):
    later = TOMORROW[:4].assign(sku=["sku-01", "brand-new", "brand-new", "sku-02"], customer=["u1", "u2", "u2", "u3"])
    figures = plain.evaluate(later, ns=[1000], exclude_seen=False, verbose=0)
    assert (figures["HR@1000"] == 0.5).all(), figures
    judged = judged_events(plain, later)
    with pytest.warns(SeenTargetsWarning):  # "u2" had it by then
        ranks = ranks_of_all(plain, judged, exclude_seen=True)
    of_new = [of_events[judged.targets == judged.targets.max()].tolist() for of_events in ranks.values()]
    assert of_new == [[MISSED - 1, MISSED]] * len(ranks)  # the second as `write_report` expects


def test_new_items_come_last_in_the_vectors_of_a_report(plain):
    later = TOMORROW[:3].assign(sku=["sku-01", "brand-new", "sku-02"])
    judged = judged_events(plain, later)
    users, items = with_new_items_last(plain, judged)
    scores = inner_products(users, items)(0, 3)
    np.testing.assert_allclose(scores[:, 1:-1], judged.user_vectors @ plain._now.item_vectors[1:].T, atol=1e-6)
    assert (scores[:, 1:].argmin(axis=1) == len(items) - 2).all()  # "brand-new", the last of all


def test_events_of_users_of_whom_nothing_is_known_are_counted(plain, capsys, monkeypatch):
    # "b" begins with an item that the model does not know, so of the event after that nothing is known either.
    rows = [("a", "sku-01"), ("a", "sku-02"), ("b", "brand-new"), ("b", "sku-03"), ("u1", "sku-29")]
    later = pd.DataFrame(rows, columns=["customer", "sku"]).assign(at=10_000 + np.arange(5))
    plain.evaluate(later, exclude_seen=False)
    assert "(5 events)\n3 of them by users without a history or features, whom" in capsys.readouterr().out
    people = pd.DataFrame({"customer": ["b", "c"], "taste": ["x", "y"]})
    table, _ = FeatureTable.from_frame("`user_features`", people, "customer", {})
    monkeypatch.setitem(plain._tables, "user", table)
    assert judged_events(plain, later).blind_note.startswith("1 of them by users")
    assert judged_events(plain, later[1:2].assign(customer="u1")).blind_note == ""


def test_events_that_the_model_knows_are_told_of(plain, capsys):
    # All of them, those that `fit` held out among them: they are in histories.
    (said,) = warned_of(lambda: plain.evaluate(EVENTS, exclude_seen=False))
    assert said.startswith("320 of 320 events are among those that `fit` or `update` has read")
    assert 'fit(events, test="last")' in said
    assert "320 of 320 are not after those that the model knows (320 events)" in capsys.readouterr().out
    # Two of the same in one table are not known for that, and told of by themselves.
    mixed = pd.concat([EVENTS[:3], TOMORROW[:1], TOMORROW])
    known, repeated = warned_of(lambda: plain.evaluate(mixed, exclude_seen=False, verbose=0))
    assert known.startswith("3 of 24 events are among those")
    assert repeated.startswith("1 of 24 events repeat another row: the same customer, sku, at. Each is to be predicted")
    assert repeated.endswith("drop them: events.drop_duplicates(['customer', 'sku', 'at']).")


def test_events_before_the_last_known_one_are_told_of(plain, tmp_path):
    last = EVENTS["at"].max()
    both = pd.concat([TOMORROW, EVENTS[:7].assign(at=last - 0.5), EVENTS[:2].assign(at=last + 0.5)])
    (said,) = warned_of(lambda: plain.evaluate(both, exclude_seen=False, verbose=0))
    assert said.startswith(f"7 of 29 events are earlier than the last one that the model knows, {float(last)}")
    assert "fit(events, test=time)" in said


def test_events_of_an_update_are_known_too(plain, tmp_path):
    plain.save(tmp_path / "before")
    recommender = Recommender.load(tmp_path / "before").update(TOMORROW, epochs=0)
    with pytest.warns(UserWarning, match="^20 of 20 events are among those"):
        recommender.evaluate(TOMORROW, exclude_seen=False, verbose=0)


@pytest.mark.slow
def test_what_fit_held_out_is_no_fair_test_once_an_update_has_learnt(plain, tmp_path, capsys):
    plain.save(tmp_path / "before")
    recommender = Recommender.load(tmp_path / "before")
    with untrained():
        recommender.update(TOMORROW, epochs=0)
        assert warned_of(lambda: recommender.evaluate(verbose=0)) == []  # nothing has been learnt
        recommender.update(TOMORROW.assign(at=TOMORROW["at"] + 1000))
    recommender.save(tmp_path / "after")
    for updated in (recommender, Recommender.load(tmp_path / "after")):
        with pytest.warns(UserWarning, match="^`update` has learnt from 20 events since `fit` held these out"):
            updated.evaluate()
        assert "the test events of fit, before 20 that `update` has learnt from" in capsys.readouterr().out
    with untrained():
        recommender.fit(EVENTS, test="last", epochs=1, verbose=0)
    assert warned_of(lambda: recommender.evaluate(verbose=0)) == []


def test_a_session_that_goes_on_after_fit_has_its_history(tmp_path):
    clicks = EVENTS.sort_values("at").assign(visit=EVENTS["customer"] + "'s")
    before, later = clicks[:-USERS], clicks[-USERS:]  # a click of each
    with untrained():
        recommender = Recommender(session="visit", **NAMES, **SMALL).fit(before, epochs=1, verbose=0)
        recommender.save(tmp_path / "clicks")
        recommender = Recommender.load(tmp_path / "clicks")
        judged = judged_events(recommender, later)
        assert not judged.is_blind.any()
        served = recommender._now.histories(judged.interactions.users[judged.rows])
        np.testing.assert_allclose(judged.user_vectors, recommender.model.user_vectors(served), atol=1e-6)
        recommender.update(later)
    assert recommender.interactions.sessions[-1] == USERS
    assert recommender.interactions.position[judged.rows].tolist() == [7] * USERS


def slow_last(frame, reading, place):
    """The place of the last event of any kind before one, as `slow_history` has it; None if there is none."""
    found = [each for kind in set(frame["event"]) for each in slow_history(frame, reading, place, kind)[:1]]
    of_time = frame["place"] if reading["time"] is None else frame["timestamp"]
    return max(found, key=lambda each: (of_time[each], each), default=None)


@given(kind_events(), st.integers(0, 2**15 - 1))
def test_the_chain_goes_from_what_came_last_of_any_kind(case, held_out):
    frame, reading = case
    x = Interactions.from_frame(frame, **reading)
    places, size = x.side["place"], x.item_vocabulary_size
    is_held_out = np.array([bool(held_out >> place & 1) for place in places]) & x.is_target
    row_of, pairs = np.argsort(places), np.zeros((size, size))
    last = last_rows(x)
    for row in range(len(x)):
        before = slow_last(frame, reading, places[row])
        assert last[row] == (-1 if before is None else row_of[before])
        if x.is_target[row] and not is_held_out[row] and before is not None and not is_held_out[row_of[before]]:
            pairs[x.items[row_of[before]], x.items[row]] += 1
    known = np.flatnonzero(x.is_target & ~is_held_out)
    found = chain(x, known, last, ~is_held_out).score(np.arange(size))
    np.testing.assert_array_equal(found.round(3), pairs)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5), st.booleans()), min_size=1, max_size=20))
def test_without_kinds_the_chain_is_that_of_the_rows(events):
    events.sort(key=lambda event: event[0])
    users, items, is_known = map(np.array, zip(*events, strict=True))
    x = Interactions.from_frame(pd.DataFrame({"user_id": users, "item_id": items}), time=None)
    known, every = np.flatnonzero(is_known), np.arange(x.item_vocabulary_size)
    expected = Markov.from_interactions(x, known).score(every)
    np.testing.assert_array_equal(chain(x, known, last_rows(x), is_known).score(every), expected)


@given(kind_events())
def test_items_before_are_those_of_all_histories(case):
    frame, reading = case
    x = Interactions.from_frame(frame, **reading)
    indptr, items = items_before(x, np.arange(len(x)))
    names = x.item_ids.decode(items)
    for row, place in enumerate(x.side["place"]):
        histories = [slow_history(frame, reading, place, kind) for kind in set(frame["event"])]
        expected = sorted(frame["item_id"][other] for each in histories for other in each)
        assert sorted(names[indptr[row] : indptr[row + 1]]) == expected


@pytest.mark.slow
@untrained()
def test_markov_reads_the_clicks_that_the_model_reads():
    # Who clicks item k buys item k + 1 next; what is clicked is drawn, so purchases do not follow each other.
    rng = np.random.default_rng(0)
    clicked = rng.integers(0, 10, (60, 4))
    rows = pd.DataFrame({"customer": np.repeat(np.arange(60), 4), "sku": clicked.ravel(), "at": np.tile(range(4), 60)})
    bought = rows.assign(sku=(rows["sku"] + 1) % 10, at=rows["at"] + 0.5, kind="buy")
    recommender = Recommender(kind="kind", targets="buy", exclude_seen=False, **NAMES, **{**SMALL, "num_sampled": 5})
    recommender.fit(pd.concat([rows.assign(kind="click"), bought]), test="last", epochs=1, verbose=0)
    assert recommender.evaluate(ns=[1], verbose=0).loc["Markov", "HR@1"] == 1


@pytest.mark.skipif(not has_implicit(), reason="the package `implicit` is not installed")
def test_who_came_after_fit_is_scored_by_item_knn_and_als_too(plain):
    # Newcomers go through an aisle of 10 as all others do. Of their first event nothing is known but popularity.
    walks = [(k, 10 * (k % 3) + (k + place) % 10, 10_000 + place) for k in range(9) for place in range(5)]
    later = pd.DataFrame(
        [(f"new {k}", f"sku-{item:02}", at) for k, item, at in walks], columns=["customer", "sku", "at"]
    )
    figures = plain.evaluate(later, ns=[10], verbose=0)
    # An aisle has 10 items, of which a newcomer had some: all of the last four are found.
    assert figures.loc["item-kNN", "HR@10"] >= 0.8
    assert figures.loc["ALS", "HR@10"] >= figures.loc["popularity", "HR@10"] + 0.2, figures
    first = later.drop_duplicates("customer")
    figures = plain.evaluate(first, ns=[10], verbose=0)
    assert figures.loc["item-kNN"].tolist() == figures.loc["popularity"].tolist() == figures.loc["Markov"].tolist()
