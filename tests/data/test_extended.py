"""Maps and interactions that grow from day to day, and what stands near new items."""

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.data import IdMap, Interactions, neighbours, windows

pytestmark = pytest.mark.plain

raw_ids = st.lists(st.integers(-3, 9), min_size=1, max_size=12)


@given(raw_ids, raw_ids)
def test_a_map_that_grows_keeps_its_ids_and_numbers_the_new_ones_in_order(old, new):
    for kind in (int, str):
        before = IdMap.from_values([kind(value) for value in old])
        after = before.extended([kind(value) for value in new])
        assert after.values[: len(before)].tolist() == before.values.tolist()
        added = sorted({kind(value) for value in new} - {kind(value) for value in old})
        assert after.values[len(before) :].tolist() == added


def test_a_map_refuses_what_is_no_id_of_its_kind():
    with pytest.raises(ValueError, match="be integers"):
        IdMap([1, 2]).extended(["a"])
    with pytest.raises(ValueError, match="no missing value"):
        IdMap(["a"]).extended(["b", None])


events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 6), st.sampled_from(["see", "buy"])),
    min_size=1,
    max_size=15,
)


def frame_of(rows):
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "kind"])
    return frame.assign(rating=np.arange(len(frame)) / 2, session=frame["item_id"] % 3)


def columns(x, kinds):
    found = [x.user_ids.decode(x.users), x.item_ids.decode(x.items), x.side["rating"]]
    found += [] if x.times is None else [x.times]
    found += [] if x.sessions is None else [x.session_ids[x.sessions - 1]]
    return sorted_by_user([*found, *([x.kinds.ids.decode(x.kinds.values)] if kinds else [])])


def sorted_by_user(found):
    order = np.argsort(found[0], kind="stable")
    return [column[order].tolist() for column in found]


@given(events, events, st.booleans(), st.booleans(), st.booleans())
def test_events_of_two_days_are_those_of_one_frame(first, second, with_times, with_kinds, with_sessions):
    today, tomorrow = frame_of(first), frame_of(second)
    time = "timestamp" if with_times else None
    kinds = {}
    if with_kinds:
        kinds = {"kind": "kind", "targets": "buy", "kind_ids": IdMap(["buy", "see"])}
    session = "session" if with_sessions else None
    before = Interactions.from_frame(today, time=time, side=["rating"], session=session, **kinds)
    grown = before.extended(tomorrow, time=time, session=session)
    whole = Interactions.from_frame(pd.concat([today, tomorrow]), time=time, side=["rating"], session=session, **kinds)
    assert columns(grown, with_kinds) == columns(whole, with_kinds)
    np.testing.assert_array_equal(np.sort(grown.position), np.sort(whole.position))
    assert grown.item_ids.values[: before.num_items].tolist() == before.item_ids.values.tolist()


@given(events, st.booleans(), st.booleans())
def test_a_frame_of_interactions_is_read_back_as_they_are(rows, with_times, with_sessions):
    time, session = "timestamp" if with_times else None, "kind" if with_sessions else None
    x = Interactions.from_frame(frame_of(rows), time=time, side=["rating"], session=session)
    frame = x.to_frame(session="kind")
    assert sorted(frame.columns) == sorted(["user_id", "item_id", "rating", *filter(None, [time, session])])
    back = Interactions.from_frame(frame, time=time, side=["rating"], session=session)
    for name in ("users", "items", "times", "sessions"):
        np.testing.assert_array_equal(getattr(back, name), getattr(x, name), err_msg=name)
    assert back.item_ids == x.item_ids
    np.testing.assert_array_equal(back.side["rating"], x.side["rating"])


def test_a_session_goes_on_tomorrow():
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5], "timestamp": [1, 2, 1], "s": ["a", "a", "b"]})
    tomorrow = pd.DataFrame({"user_id": [1, 3, 1], "item_id": [7, 5, 8], "timestamp": 9, "s": ["a", "a", "c"]})
    grown = Interactions.from_frame(frame, session="s").extended(tomorrow, session="s")
    assert grown.users.tolist() == [1, 1, 1, 1, 2, 3]
    assert grown.sessions.tolist() == [1, 1, 1, 2, 3, 4]
    assert grown.session_ids.tolist() == ["a", "c", "b", "a"]
    assert windows(grown, [2], 5)["hist_len"].tolist() == [2]
    with pytest.raises(ValueError, match="column 's' must hold strings, as the known ids are"):
        grown.extended(tomorrow.assign(s=1), session="s")


def test_sessions_of_unknown_users_go_on():
    clicks = pd.DataFrame({"item_id": [5, 6, 7, 5], "timestamp": range(4), "s": ["a", "b", "a", "c"]})
    grown = Interactions.from_frame(clicks[:2], user=None, session="s").extended(clicks[2:], session="s")
    assert grown.users.tolist() == grown.sessions.tolist() == [1, 1, 2, 3]
    numbered = Interactions.from_sequences([0, 2, 3], [5, 6, 5], sessions=True)
    more = pd.DataFrame({"user_id": [2, 3], "item_id": [7, 7], "s": [2, 3]})
    assert numbered.extended(more, time=None, session="s").sessions.tolist() == [1, 1, 2, 2, 3]


def test_ids_of_sessions_that_do_not_fit_are_refused():
    columns = {"users": [1, 1], "items": [1, 2], "times": None, "side": {}}
    ids = {"user_ids": IdMap([5]), "item_ids": IdMap([7, 8])}
    with pytest.raises(ValueError, match="`session_ids` must have one a session, 2; got 1"):
        Interactions(**columns, **ids, sessions=[1, 2], session_ids=["a"])
    with_sessions = Interactions(**columns, **ids, sessions=[1, 1], session_ids=["a"])
    assert replace(with_sessions, sessions=None).session_ids is None


def test_new_users_have_no_features_yet():
    frame = pd.DataFrame({"user_id": [1], "item_id": [5], "timestamp": [1]})
    known = Interactions.from_frame(frame).with_user_features(pd.DataFrame({"age": [30]}, index=[1]))
    grown = known.extended(frame.assign(user_id=7))
    assert grown.user_features["age"].tolist() == [0, 30, 0]


def test_frames_that_disagree_with_the_events_are_refused():
    frame = pd.DataFrame({"user_id": [1], "item_id": [5], "timestamp": [1]})
    x = Interactions.from_frame(frame)
    with pytest.raises(ValueError, match="`time` must name the column of times"):
        x.extended(frame, time=None)
    with pytest.raises(ValueError, match="`session` must be None"):
        x.extended(frame, session="user_id")
    with pytest.raises(ValueError, match="column 'timestamp' must hold numbers"):
        x.extended(frame.assign(timestamp=pd.Timestamp("2026-01-01")))
    with pytest.raises(ValueError, match="column 'item_id' must hold integers"):
        x.extended(frame.assign(item_id="a"))
    with pytest.raises(ValueError, match="column 'user_id' must be in the frame"):
        x.extended(frame.drop(columns="user_id"))


def test_times_with_a_zone_do_not_follow_those_without_one():
    frame = pd.DataFrame({"user_id": [1], "item_id": [5], "timestamp": [pd.Timestamp("2026-01-01 09:00")]})
    zoned = frame.assign(timestamp=frame["timestamp"].dt.tz_localize("Europe/Berlin"))
    naive, aware = Interactions.from_frame(frame), Interactions.from_frame(zoned)
    with pytest.raises(ValueError, match=r"^column 'timestamp' must have no time zone, as those of the events before"):
        naive.extended(zoned)
    with pytest.raises(ValueError, match=r"^column 'timestamp' must have a time zone, as those of the events before"):
        aware.extended(frame)
    assert pickle.loads(pickle.dumps(aware)).has_zone is True
    # What goes out as a frame says so, too; where nothing is known, what comes next decides.
    assert aware.extended(aware.to_frame()).times.tolist() == [aware.times[0].item()] * 2
    assert replace(naive, has_zone=None).extended(zoned).has_zone is True
    assert Interactions.from_sequences([0, 1], [1], zoned["timestamp"]).has_zone is True


@given(st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=8), min_size=1, max_size=4), st.integers(1, 3))
def test_neighbours_are_the_old_items_near_a_new_one(sequences, reach):
    lengths = [len(each) for each in sequences]
    x = Interactions.from_sequences(np.cumsum([0, *lengths]), np.concatenate(sequences))
    first_new = 5
    if first_new > x.item_vocabulary_size:
        with pytest.raises(ValueError, match="`first_new`"):
            neighbours(x, first_new, reach=reach)
        return
    expected = {item: [] for item in range(first_new, x.item_vocabulary_size)}
    for sequence in sequences:
        for place, item in enumerate(sequence):
            if item >= first_new:
                near = sequence[max(place - reach, 0) : place] + sequence[place + 1 : place + 1 + reach]
                expected[item] += [other for other in near if other < first_new]
    indptr, items = neighbours(x, first_new, reach=reach)
    found = [sorted(items[start:stop].tolist()) for start, stop in itertools.pairwise(indptr)]
    assert found == [sorted(each) for each in expected.values()]


@pytest.mark.parametrize(
    ("before", "later"),
    [
        (np.array(["9999-12-31"], "datetime64[s]"), np.array(["2026-11-26"], "datetime64[ns]")),
        (np.array(["2026-11-26"], "datetime64[ns]"), np.array(["9999-12-31"], "datetime64[s]")),
        (np.array([2**60 + 1]), np.array([5.0])),
    ],
)
def test_times_that_do_not_fit_together_are_refused(before, later):
    """Otherwise the year 9999 would become 1816, and the latest event the oldest."""
    events = Interactions.from_frame(pd.DataFrame({"user_id": [1], "item_id": [1], "timestamp": before}))
    with pytest.raises(ValueError, match=r"column 'timestamp' must have a type that fits .*Convert it: column\.astype"):
        events.extended(pd.DataFrame({"user_id": [1], "item_id": [2], "timestamp": later}))
    if before.dtype.kind == "M":
        now = events.extended(pd.DataFrame({"user_id": [1], "item_id": [2], "timestamp": later.astype(before.dtype)}))
        assert np.isin(before, now.times).all()
