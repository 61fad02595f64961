"""What a recommender refuses or tells of: the argument, the rule and what to do."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from deepctr.feature_column import SparseFeat

from deepmatch_ext import Recommender, SequenceDNN
from deepmatch_ext.data import Interactions
from deepmatch_ext.data.interactions import has_zone
from deepmatch_ext.evaluation import SeenTargetsWarning
from deepmatch_ext.recommender.building import tell
from deepmatch_ext.recommender.reading import read_events, warn_of_repeated
from tests.recommender.shop import EVENTS, ITEMS, NAMES, PEOPLE, SHELF, SMALL, USERS, untrained

DAYS = pd.to_datetime("2026-01-01") + pd.to_timedelta(EVENTS["at"], "h")
IN_UTC = EVENTS.assign(at=DAYS.dt.tz_localize("UTC"))
VISITS = {"session": "visit"}
LATER = pd.DataFrame({"customer": ["u1", "u2"], "sku": ["sku-03", "sku-04"], "at": [9000, 9001]})


@pytest.fixture(scope="module")
def fitted():
    recommender = Recommender(user_features=PEOPLE, item_features=SHELF, **NAMES, **SMALL)
    with untrained():
        return recommender.fit(EVENTS, test="last", epochs=1, verbose=0)


@pytest.fixture(scope="module")
def dated():
    events = Interactions.from_frame(IN_UTC, "customer", "sku", "at")  # which remember the zone
    with untrained():
        return Recommender(**NAMES, **SMALL).fit(events, epochs=1, verbose=0)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("recommend", ["u1"]),
        ("similar_items", ["sku-01"]),
        ("evaluate", []),
        ("evaluate", [LATER]),
        ("report", ["report.html"]),
        ("update", [LATER]),
        ("save", ["shop"]),
        ("export", ["exports"]),
    ],
)
def test_everything_else_asks_for_a_fit_first(method, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^The recommender must be fitted first; .* Call fit\(events\)\.$"):
        getattr(Recommender(**NAMES, **SMALL), method)(*arguments)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        ("recommend", {"user_ids": EVENTS}, r"`user_ids` must be raw ids; got a DataFrame. .* frame\['customer'\]"),
        ("recommend", {"user_ids": [True, False]}, "`user_ids` must be raw ids; got booleans"),
        ("recommend", {"user_ids": [1.5]}, "`user_ids` must be whole numbers or strings"),
        ("recommend", {"user_ids": ["u1", None]}, "`user_ids` must have no missing value; got 1 missing of 2. Drop or"),
        ("recommend", {"user_ids": ["u1"], "among": [np.nan]}, "`among` must have no missing value; got 1 mi"),
        ("similar_items", {"item_ids": [None, "sku-01"]}, "`item_ids` must have no missing value; got 1 missing of 2"),
        ("recommend", {"among": SHELF}, r"`among` must be raw ids; got a DataFrame. Give its column: frame\['sku'\]"),
        ("recommend", {"among": SHELF["aisle"] == "aisle 0"}, r"`among` must be raw ids; got booleans. .* ids\[mask\]"),
        ("similar_items", {"item_ids": SHELF}, "`item_ids` must be raw ids; got a DataFrame"),
        ("similar_items", {"item_ids": ["sku-01"], "among": [True]}, "`among` must be raw ids; got booleans"),
        (
            "recommend",
            {"user_ids": ["u1", "u2"], "among": [["sku-01", "sku-02"], ["sku-03", "sku-04"]]},
            r"`among` must be one list of raw ids, for all users or items asked for; got an array of shape \(2, 2\)",
        ),
        (
            "similar_items",
            {"item_ids": ["sku-01"], "among": (np.array([0, 2]), np.array(["sku-01", "sku-02", "sku-03"]))},
            "`among` must be one list of raw ids, for all users or items asked for; got lists in a list. Make a call",
        ),
        ("recommend", {"user_ids": SHELF[["sku"]].to_numpy()}, "`user_ids` must be one list of raw ids; got an array"),
        ("recommend", {"user_ids": [["u1"], ["u2", "u3"]]}, "`user_ids` must be one list of raw ids; got lists in a"),
        ("similar_items", {"item_ids": [SHELF["sku"]]}, "`item_ids` must be one list of raw ids; got"),
        ("update", {"events": "events.csv"}, r"`events` must be a pandas .* got 'events.csv'. pd.read_csv\(path\)"),
        ("evaluate", {"events": "events.csv"}, r"`events` must be a pandas .* got 'events.csv'. pd.read_csv\(path\)"),
        ("report", {"path": "a.html", "events": "events.csv"}, r"`events` must be a pandas .* got 'events.csv'"),
        ("update", {"events": LATER.assign(sku=["", "sku-01"])}, "column 'sku' must hold ids that are not empty"),
        ("update", {"events": LATER.assign(customer=["u1", ""])}, "column 'customer' must hold ids that are not empty"),
        (
            "update",
            {"events": LATER, "item_features": SHELF.assign(sku=range(ITEMS + 1))},
            "column 'sku' of `item_features` must hold strings, as in the first frame; got integers, 0, 1",
        ),
        ("update", {"events": LATER, "sampler_config": "x"}, "`sampler_config` must be a sampler"),
        ("update", {"events": LATER, "verbose": "loud"}, "`verbose` must be True, False, 0, 1 or 2; got 'loud'"),
        ("evaluate", {"verbose": "loud"}, "`verbose` must be True, False, 0, 1 or 2; got 'loud'"),
        ("fit", {"events": EVENTS[:0]}, "`events` must have at least one row; got an empty frame"),
        ("evaluate", {"events": EVENTS[:0]}, "`events` must have at least one row; got an empty frame"),
        ("update", {"events": LATER, "item_features": SHELF[:0]}, "`item_features` must have at least one row; got an"),
        ("fit", {"events": EVENTS, "verbose": 3}, "`verbose` must be True, False, 0, 1 or 2; got 3"),
        ("fit", {"events": EVENTS.replace("sku-07", "")}, "column 'sku' must hold ids that are not empty; got ''"),
        ("fit", {"events": EVENTS.replace("u7", "")}, "column 'customer' must hold ids that are not empty; got ''"),
    ],
)
def test_the_argument_is_named(fitted, method, arguments, words):
    events = fitted.interactions
    with pytest.raises(ValueError, match=f"^{words}"):
        getattr(fitted, method)(**arguments)
    assert fitted.interactions is events


@pytest.mark.parametrize(
    ("named", "held_out", "words"),
    [
        ({}, {"validation": 500, "test": 400}, "`validation` must be earlier than `test`; got 500 and 400"),
        ({}, {"validation": 400, "test": 9000}, "`test` must leave rows to test on, so be at most 739; got 9000"),
        ({}, {"validation": 439.1, "test": 439.2}, "`validation` must leave events with a history before `test`; got"),
        ({}, {"validation": "2026-01-01", "test": 9000}, "`validation` must be a number, as the times are"),
        (VISITS, {"test": "last"}, "`test` must be a time where events have sessions, .*; got 'last'"),
        (VISITS, {"validation": "last", "test": "last"}, "`validation` must be a time where events have sessions"),
        (VISITS, {"validation": 705, "test": 739}, "`test` must leave events with a history to test on; got 705 and"),
    ],
)
def test_what_is_held_out_is_named_as_it_was_given(named, held_out, words):
    visits = EVENTS.assign(visit=np.where(EVENTS["at"] < 739, EVENTS["customer"], "alone"))
    with pytest.raises(ValueError, match=f"^{words}"):
        Recommender(**named, **NAMES, **SMALL).fit(visits, **held_out, verbose=0)


def test_an_evaluation_needs_an_event_to_predict():
    bought = EVENTS.assign(what=np.where(EVENTS["at"] % 3 == 0, "buy", "see"))
    with untrained():
        recommender = Recommender(kind="what", targets="buy", **NAMES, **SMALL).fit(bought, epochs=1, verbose=0)
    with pytest.raises(ValueError, match=r"^`events` must have an event of a kind .* predicted, 'buy'; got"):
        recommender.evaluate(LATER.assign(what="see"))


@untrained()
def test_integers_of_any_type_are_ids_and_stay_integers():
    large = 2**53 + 1
    events = pd.DataFrame({"user_id": np.repeat([large, large + 1], 3), "item_id": [1, 2, 3, 1, 2, 3]})
    recommender = Recommender(time=None, embedding_dim=4).fit(events, epochs=1, verbose=0)
    for users in (pd.Series([large], dtype="Int64"), pd.array([large], dtype="UInt64"), [large], np.array([large])):
        ids = recommender.recommend(users, n=1, exclude_seen=False)["user_id"]
        assert ids.dtype == np.int64
        assert ids.tolist() == [large]
    with pytest.raises(ValueError, match="`user_ids` must have no missing value; got 1 missing of 2"):
        recommender.recommend(pd.Series([large, None], dtype="Int64"))


@untrained()
def test_items_without_a_trained_vector_have_no_similar_ones():
    # "sku-30" is on the shelf alone. "novelty" is the last of "u1", which is held out.
    events = pd.concat([EVENTS, pd.DataFrame({"customer": ["u1"], "sku": "novelty", "at": 9000})])
    bare = Recommender(**NAMES, **SMALL).fit(events, test="last", epochs=1, verbose=0)
    words = r"^`item_ids` must be items that were trained or have features: .* got 'novelty'. Events that are held out"
    with pytest.raises(ValueError, match=words):
        bare.similar_items(["sku-01", "novelty"])
    bare.similar_items("sku-01")


def test_items_with_features_have_similar_ones_before_they_are_trained(fitted):
    assert len(fitted.similar_items("sku-30", n=3)) == 3


def test_a_column_that_was_left_out_cannot_be_given():
    shelf = SHELF.assign(shop=1)
    recommender = Recommender(item_features=shelf, columns=[SparseFeat("shop", 9, 4)], **NAMES, **SMALL)
    words = "are not left out; got 'shop', left out: the same value everywhere"
    with pytest.raises(ValueError, match=f"^`columns` must name columns of the frames that {words}"):
        recommender.fit(EVENTS, verbose=0)


def test_ids_of_features_are_of_the_type_of_the_events_own():
    of_numbers = SHELF.assign(sku=range(ITEMS + 1))
    words = "column 'sku' of `item_features` must hold strings, as in the events; got integers, 0, 1, 2, 3, 4 and 26"
    with pytest.raises(ValueError, match=f"^{words}"):
        Recommender(item_features=of_numbers, **NAMES, **SMALL).fit(EVENTS, verbose=0)
    people = PEOPLE.assign(customer=range(USERS + 1))
    with pytest.raises(ValueError, match=r"^column 'customer' of `user_features` must hold strings"):
        Recommender(user_features=people, **NAMES, **SMALL).fit(EVENTS, verbose=0)
    with pytest.raises(ValueError, match=r"^column 'sku' must hold ids that are not empty"):
        Recommender(item_features=SHELF.replace("sku-30", ""), **NAMES, **SMALL).fit(EVENTS, verbose=0)


OF_KINDS = EVENTS.assign(kind=np.where(EVENTS["at"] % 200 < 100, "buy", "click"))
KINDS = {"kind": "kind", "targets": "click"}
AGES = pd.DataFrame({"customer": PEOPLE["customer"], "age": range(len(PEOPLE))})


@pytest.mark.parametrize(
    ("own", "read", "words"),
    [
        ({"user": "who"}, {}, "`user` must be 'customer', as in the events; got 'who'"),
        ({**KINDS, "targets": "buy"}, KINDS, "`targets` must be 'click', as in the events; got 'buy'"),
        ({**KINDS, "targets": None}, KINDS, "`targets` must be 'click', as in the events; got None"),
        (KINDS, {}, "`kind` must be None, as in the events; got 'kind'"),
        ({}, KINDS, "`kind` must be 'kind', as in the events; got None"),
        ({"session": "weight"}, {}, "`session` must be None, as the events have no sessions; got 'weight'"),
        ({}, {"session": "weight"}, "`session` must name the column of sessions in later events, as .*; got None"),
        ({"time": None}, {}, "`time` must name the column of times in later events, as these have times; got None"),
        ({}, {"time": None}, "`time` must be None, as the events have no times; got 'at'"),
        (
            {"weight": "weight"},
            {},
            r"`weight` must name a side column of the events; got 'weight'. .*side=\['weight'\]",
        ),
    ],
)
def test_interactions_are_those_that_the_recommender_was_told_of(own, read, words):
    events = Interactions.from_frame(OF_KINDS, **{**NAMES, **read})
    with pytest.raises(ValueError, match=f"^{words}"):
        read_events(Recommender(**{**NAMES, **own}, **SMALL), events)


def test_interactions_in_the_recommenders_own_way_are_taken():
    own = {**NAMES, "kind": "kind", "targets": ["click", "buy"]}
    events = Interactions.from_frame(OF_KINDS, side=["weight"], **own)
    own["targets"] = np.array(["buy", "click"])
    assert len(read_events(Recommender(weight="weight", **own, **SMALL), events)) == len(EVENTS)


def test_user_features_of_interactions_are_not_dropped():
    events = Interactions.from_frame(EVENTS, **NAMES).with_user_features(AGES)
    words = r"^`events` must have no user features .*; got 'age'. .* Recommender\(user_features=frame\)\.$"
    with pytest.raises(ValueError, match=words):
        read_events(Recommender(**NAMES, **SMALL), events)
    assert "age" in read_events(Recommender(user_features=AGES, **NAMES, **SMALL), events).user_features


@untrained()
def test_weights_have_a_sum():
    recommender = Recommender(weight="weight", **NAMES, **SMALL)
    with pytest.raises(ValueError, match=r"^column 'weight' must be above 0 in at least one event .* 0 in all of them"):
        recommender.fit(EVENTS.assign(weight=0.0), verbose=0)
    recommender.fit(EVENTS, epochs=1, verbose=0)
    before, nothing = recommender.interactions, LATER.assign(weight=0.0)
    with pytest.raises(ValueError, match=r"^column 'weight' must be above 0 in at least one .* epochs=0\) trains"):
        recommender.update(nothing)
    assert recommender.interactions is before
    recommender.update(nothing, epochs=0)
    assert len(recommender.interactions) == len(EVENTS) + 2


def test_kinds_are_refused_where_every_position_is_trained():
    recommender = Recommender(SequenceDNN, kind="kind", targets="buy", **NAMES, **SMALL)
    events = EVENTS.assign(kind=np.where(EVENTS["at"] % 200 < 100, "buy", "click"))
    with pytest.raises(
        ValueError, match=r"^`kind` must be left out with SequenceDNN, which can't read a history for each"
    ):
        recommender.fit(events, verbose=0)


def test_what_else_a_builder_refuses_is_its_own_error():
    def Failing(user_feature_columns, item_feature_columns, num_sampled, seed):
        raise ValueError(f"{user_feature_columns[0].name!r} is too long")

    events = EVENTS.assign(kind=np.where(EVENTS["at"] % 200 < 100, "buy", "click"))
    with pytest.raises(ValueError, match=r"^'hist_sku_buy' is too long$"):
        Recommender(Failing, kind="kind", targets="buy", **NAMES, **SMALL).fit(events, verbose=0)


@pytest.mark.parametrize("times", [[9000, 9000], ["2027-01-01T00:00Z"] * 2])
def test_times_without_a_zone_do_not_follow_those_with_one(dated, times):
    naive = LATER.assign(at=pd.to_datetime(["2027-01-01", "2027-01-02"]))
    for method in (dated.update, dated.evaluate):
        with pytest.raises(ValueError, match=r"^column 'at' of `events` must have a time zone, as in the events of"):
            method(naive)
    plain = Recommender(**NAMES, **SMALL)
    plain.__dict__.update(dated.__dict__, interactions=replace(dated.interactions, has_zone=False))
    with pytest.raises(ValueError, match=r"^column 'at' of `events` must have no time zone, as in the events of"):
        plain.update(LATER.assign(at=naive["at"].dt.tz_localize("Europe/Berlin")))
    with pytest.raises(ValueError, match=r"^column 'at'"):
        plain.update(LATER.assign(at=times))


def test_events_remember_whether_their_times_have_a_zone(dated, tmp_path):
    recommender = Recommender(**NAMES, **SMALL)
    assert [read_events(recommender, each).has_zone for each in (IN_UTC, EVENTS.assign(at=DAYS), EVENTS)] == [
        *(True, False, None)
    ]
    dated.save(tmp_path / "dated")
    assert Recommender.load(tmp_path / "dated").interactions.has_zone is True


def test_whether_times_have_a_zone():
    text = pd.Series(["2026-01-01T00:00Z", "2026-01-01T00:00+02:00"])
    moments = pd.to_datetime(pd.Series(["2026-01-01"]))
    assert [has_zone(text), has_zone(text.str[:10])] == [True, False]
    assert [has_zone(moments.dt.tz_localize("UTC")), has_zone(moments), has_zone(pd.Series([1]))] == [True, False, None]
    arrow = pytest.importorskip("pyarrow")
    for kind, expected in ((arrow.timestamp("us", "UTC"), True), (arrow.timestamp("us"), False)):
        column = arrow.table({"at": arrow.array([1], kind)})["at"]
        assert has_zone(column) is has_zone(pd.Series(column.to_pandas(types_mapper=pd.ArrowDtype))) is expected
    assert has_zone(arrow.table({"at": ["2026-01-01T00:00Z"]})["at"]) is True


@untrained()
def test_times_that_tell_no_order_are_told_of():
    recommender = Recommender(**NAMES, **SMALL)
    with pytest.warns(UserWarning, match="All 320 events have the same time, 7, so .* time=None"):
        recommender.fit(EVENTS.assign(at=7), epochs=1, verbose=0)


def of_sessions(frame):
    return Interactions.from_frame(frame.assign(day=range(len(frame))), **NAMES, session="day")


@pytest.mark.parametrize("read", [lambda frame: Interactions.from_frame(frame, **NAMES), of_sessions])
def test_events_that_repeat_another_row_are_told_of(read):
    names, twice = [*NAMES.values()], pd.concat([EVENTS, EVENTS[:3], EVENTS[:1]])
    with pytest.warns(
        UserWarning, match=r"^4 of 324 events repeat another row: the same customer, sku, at\. .*"
    ) as told:
        warn_of_repeated(read(twice), names)
    assert str(told[0].message).endswith("drop them: events.drop_duplicates(['customer', 'sku', 'at']).")
    # Neither other items at that time, nor other times, nor times that say nothing.
    warn_of_repeated(read(EVENTS.assign(at=EVENTS["at"] // 300)), names)
    warn_of_repeated(read(twice.assign(at=range(324))), names)
    warn_of_repeated(read(twice.assign(at=7)), names)


def test_events_of_two_kinds_repeat_no_row():
    both = pd.concat([EVENTS.assign(kind="buy"), EVENTS.assign(kind="click")])
    warn_of_repeated(Interactions.from_frame(both, **NAMES, **KINDS), [*NAMES.values(), "kind"])


@untrained()
def test_fit_tells_of_events_that_repeat_another_row():
    recommender = Recommender(**NAMES, **SMALL)
    with pytest.warns(UserWarning, match="^320 of 640 events repeat another row"):
        recommender.fit(pd.concat([EVENTS, EVENTS]), epochs=1, verbose=0)


def test_users_and_items_are_counted_by_their_events(capsys):
    people = pd.concat([PEOPLE, pd.DataFrame({"customer": ["guest"], "taste": [1]})])
    recommender = Recommender(user_features=people, item_features=SHELF, **NAMES, **SMALL)
    tell(read_events(recommender, EVENTS), [], recommender._lines, {})
    # PEOPLE has a visitor beside the 40 who bought; SHELF has an item that nobody bought.
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["320 events of 40 users with 30 items", "without events: 2 users and 1 item"]


@pytest.mark.slow
@pytest.mark.once
def test_a_report_tells_once_of_targets_that_the_user_had(fitted, tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    had = EVENTS[EVENTS["customer"] == "u0"]["sku"].iloc[0]
    later = LATER.assign(customer=["u0", "u3"], sku=[had, "sku-29"])
    with pytest.warns(SeenTargetsWarning, match=r"^1 of 2 held-out events .* exclude_seen=False\)\.$") as told:
        fitted.report(tmp_path / "report.html", later)
    assert len(told) == 1
