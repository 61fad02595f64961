"""Interactions: sorting, ties, id maps, and refusals that name the column."""

import copy
import pickle
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmatch_ext.data import IdMap, Interactions, Split

pytestmark = [pytest.mark.plain, pytest.mark.smoke]


def frame_of(*rows, columns=("user_id", "item_id", "timestamp")):
    return pd.DataFrame(list(rows), columns=list(columns))


FRAME = frame_of(("b", 7, 30), ("a", 9, 20), ("b", 5, 10), ("a", 7, 20), ("b", 9, 10))


def test_sorted_by_user_then_time_and_ties_keep_the_files_order():
    x = Interactions.from_frame(FRAME)
    # a: 9 and 7 both at 20, in the file's order. b: 5 then 9 at 10, then 7 at 30. Items 5, 7, 9 have ids 1, 2, 3.
    assert x.user_ids.decode(x.users).tolist() == ["a", "a", "b", "b", "b"]
    assert x.item_ids.decode(x.items).tolist() == [9, 7, 5, 9, 7]
    assert x.items.tolist() == [3, 2, 1, 3, 2]
    assert x.times.tolist() == [20, 20, 10, 10, 30]
    assert x.indptr.tolist() == [0, 0, 2, 5]
    assert x.position.tolist() == [0, 1, 0, 1, 2]
    assert (x.num_users, x.num_items, x.user_vocabulary_size, x.item_vocabulary_size, len(x)) == (2, 3, 3, 4, 5)
    assert x.users.dtype == x.items.dtype == np.int32
    assert x.indptr.dtype == np.int64


def test_without_a_time_column_the_files_order_is_the_order():
    x = Interactions.from_frame(FRAME, time=None)
    assert x.item_ids.decode(x.items).tolist() == [9, 7, 7, 5, 9]
    assert x.times is None


events = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(events, st.booleans())
def test_against_a_stable_python_sort(rows, timed):
    x = Interactions.from_frame(frame_of(*rows), time="timestamp" if timed else None)
    expected = sorted(rows, key=lambda row: (row[0], row[2]) if timed else row[0])
    assert x.user_ids.decode(x.users).tolist() == [user for user, _, _ in expected]
    assert x.item_ids.decode(x.items).tolist() == [item for _, item, _ in expected]
    for user in range(x.user_vocabulary_size):
        mine = np.flatnonzero(x.users == user)
        assert list(range(x.indptr[user], x.indptr[user + 1])) == mine.tolist()
        assert x.position[mine].tolist() == list(range(len(mine)))


@settings(max_examples=40, deadline=None)
@given(events, st.randoms(use_true_random=False))
def test_the_order_of_different_users_in_the_file_does_not_matter(rows, random):
    # A shuffle that keeps each user's own order: users take turns at random.
    turns = [user for user, _, _ in rows]
    random.shuffle(turns)
    queues = {user: iter([row for row in rows if row[0] == user]) for user in turns}
    shuffled = [next(queues[user]) for user in turns]
    one, two = (Interactions.from_frame(frame_of(*each)) for each in (rows, shuffled))
    assert one.users.tolist() == two.users.tolist()
    assert one.items.tolist() == two.items.tolist()
    assert one.times.tolist() == two.times.tolist()
    assert one.item_ids == two.item_ids


def test_the_callers_frame_stays_as_it_is():
    frame = FRAME.assign(rating=[1.0, 2.0, 3.0, 4.0, 5.0])
    frame.index = [9, 9, 3, 1, 0]  # an index of any kind plays no part
    before = frame.copy(deep=True)
    x = Interactions.from_frame(frame, side=["rating"])
    pd.testing.assert_frame_equal(frame, before)
    frame.loc[:, "rating"] = 0.0
    assert x.side["rating"].tolist() == [2.0, 4.0, 3.0, 5.0, 1.0]


def test_everything_is_read_only():
    x = Interactions.from_frame(FRAME.assign(rating=1), side=["rating"])
    for array in [x.users, x.items, x.times, x.side["rating"], x.indptr, x.position]:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(TypeError):
        x.side["other"] = x.items
    with pytest.raises(AttributeError):
        x.users = x.items


def test_the_constructor_copies_what_can_still_be_written():
    items, times, rating = np.array([1, 2], np.int32), np.array([5, 6]), np.array([0.5, 1.5])
    one = IdMap([1])
    x = Interactions(np.array([1, 1], np.int32), items, times, {"rating": rating}, one, IdMap([1, 2]))
    for array in (items, times, rating):
        assert array.flags.writeable
        array[0] = 9
    assert (x.items[0], x.times[0], x.side["rating"][0]) == (1, 5, 0.5)
    again = Interactions(x.users, x.items, x.times, x.side, one, x.item_ids)
    assert np.shares_memory(again.times, x.times)  # read-only arrays are not copied


def test_read_only_views_of_what_can_be_written_are_copied():
    items, rating = np.array([1, 2], np.int32), np.array([0.5, 1.5])
    views = [array.view() for array in (items, rating)]
    for view in views:
        view.setflags(write=False)  # as pandas 3 gives a column
    x = replace(Interactions.from_sequences([0, 2], views[0]), side={"rating": views[1]})
    items[0], rating[0] = 9, 9
    assert (x.items[0], x.side["rating"][0]) == (1, 0.5)


def test_copies_and_other_processes_get_the_same():
    x = Interactions.from_frame(FRAME.assign(rating=1), side=["rating"])
    for y in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert y.items.tolist() == x.items.tolist()
        assert y.side["rating"].tolist() == [1] * 5
        assert y.user_ids.values.tolist() == ["a", "b"]
        assert y.user_name == "user_id"
        assert not y.times.flags.writeable
    split = Split(x, train=[0, 2], validation=[3], test=[4])
    assert pickle.loads(pickle.dumps(split)).train.tolist() == [0, 2]
    assert not copy.deepcopy(split).train.flags.writeable


def test_given_maps_are_kept():
    users, items = IdMap(["z", "a", "b"]), IdMap([9, 7, 5, 1])
    x = Interactions.from_frame(FRAME, user_ids=users, item_ids=items)
    assert x.user_ids is users
    assert x.item_ids is items
    assert x.users.tolist() == [2, 2, 3, 3, 3]
    assert x.indptr.tolist() == [0, 0, 0, 2, 5]  # user 1, "z", has no rows
    assert x.num_users == 3
    with pytest.raises(ValueError, match=r"column 'item_id' must hold only known values; got unknown 7"):
        Interactions.from_frame(FRAME, item_ids=IdMap([9, 5]))
    with pytest.raises(ValueError, match=r"column 'user_id' must hold integers, as the known ids are; got strings"):
        Interactions.from_frame(FRAME, user_ids=IdMap([1]))


def test_counts_of_rows():
    x = Interactions.from_frame(FRAME)  # items by id: 3, 2, 1, 3, 2
    assert x.item_counts().tolist() == [0, 1, 2, 2]
    counts = x.item_counts([0, 3])
    assert counts.tolist() == [0, 0, 0, 2]
    assert counts.dtype == np.int64
    assert x.item_counts([]).tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"`rows` must be between 0 and 4; got 5 at position 0 \(2 out of range"):
        x.item_counts([5, -1])
    with pytest.raises(ValueError, match="flatnonzero"):
        x.item_counts(x.items > 1)


def test_sequences():
    x = Interactions.from_sequences(np.array([0, 2, 2, 4]), np.array([4, 1, 2, 4]), np.array([1, 2, 5, 5]))
    assert x.users.tolist() == [1, 1, 3, 3]  # the second sequence is empty
    assert x.items.tolist() == [4, 1, 2, 4]
    assert x.num_users == 3
    assert x.num_items == 4
    assert x.item_ids.values.tolist() == [1, 2, 3, 4]
    # Times that contradict the order win; a tie keeps it.
    assert Interactions.from_sequences([0, 3], [1, 2, 3], [9, 4, 4]).items.tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1, 2]), "`indptr` must rise from 0 to the number of items, 2; got 1, 2"),
        (([0, 3], [1, 2]), "`indptr` must rise"),
        (([0, 2, 1, 2], [1, 2]), "`indptr` must rise"),
        (([0], []), "`indptr` must rise"),
        (([0, 0], []), "`users` must hold at least one id"),
        (([0, 2], [0, 2]), r"`items` must be between 1 and 2; got 0"),
        (([0, 2], [1.0, 2.0]), "`items` must hold integers; got dtype float64"),
        (([0, 2], [1, 2], [1]), "`times` must have one value an item, 2"),
        (([0, 2], [1, 2], [1, np.nan]), "`times` must have no missing value"),
    ],
)
def test_sequences_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Interactions.from_sequences(*arguments)


@pytest.mark.parametrize(
    "times",
    [
        pd.to_datetime(["2024-01-03", "2024-01-02", "2024-01-01", "2024-01-02", "2024-01-01"]),
        pd.to_datetime(["2024-01-03", "2024-01-02", "2024-01-01", "2024-01-02", "2024-01-01"]).tz_localize(
            "Asia/Tokyo"
        ),
        pd.array([30, 20, 10, 20, 10], dtype="Int64"),
        np.array([0.3, 0.2, 0.1, 0.2, 0.1]),
    ],
)
def test_kinds_of_time(times):
    assert_sorted_by(times)


@pytest.mark.parametrize("kind", ["timestamp[us][pyarrow]", "timestamp[s, Asia/Tokyo][pyarrow]"])
def test_times_of_pyarrow(kind):
    pytest.importorskip("pyarrow", reason="pandas needs pyarrow for them")
    moments = pd.Series(pd.to_datetime(["2024-01-03", "2024-01-02", "2024-01-01", "2024-01-02", "2024-01-01"]))
    x = assert_sorted_by(moments.dt.tz_localize("Asia/Tokyo" if "Tokyo" in kind else None).astype(kind))
    assert x.times[2] == np.datetime64("2023-12-31T15:00" if "Tokyo" in kind else "2024-01-01")  # in UTC


def test_moments_with_a_time_zone_are_in_utc():
    moments = pd.Series(pd.to_datetime(["2024-01-01", "2024-01-02"])).dt.tz_localize("Asia/Tokyo")
    for times in (moments, moments.tolist(), np.array(moments.tolist()), pd.Index(moments)):
        x = Interactions.from_sequences([0, 2], [1, 2], times)
        assert x.times.dtype.kind == "M"
        assert x.times.tolist() == np.array(["2023-12-31T15", "2024-01-01T15"], x.times.dtype).tolist()


def assert_sorted_by(times):
    x = Interactions.from_frame(FRAME.assign(timestamp=times))
    assert x.items.tolist() == [3, 2, 1, 3, 2]
    assert isinstance(x.times, np.ndarray)
    assert x.times.dtype.kind in "ifM"
    return x


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_decimals_of_a_database_are_numbers(kind):
    frame = {"user_id": [1, 1, 2], "item_id": [7, 8, 7], "price": [Decimal("1.5"), Decimal("2"), Decimal("0.25")]}
    x = Interactions.from_frame(pytest.importorskip(kind).DataFrame(frame), time=None, side=["price"])
    assert x.side["price"].tolist() == [1.5, 2, 0.25]
    gap = pd.DataFrame({**frame, "price": [Decimal("1.5"), None, Decimal("2")]})
    with pytest.raises(ValueError, match="column 'price' must have no missing value; got 1 missing of 3"):
        Interactions.from_frame(gap, time=None, side=["price"])


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (FRAME[:0], {}, "`frame` must have at least one row"),
        (FRAME.drop(columns="item_id"), {}, "column 'item_id' must be in the frame; got the columns 'user_id', "),
        (FRAME.drop(columns="timestamp"), {}, "column 'timestamp' must be in the frame;.*time=None"),
        (FRAME, {"side": ["rating"]}, "column 'rating' must be in the frame; got"),
        (
            FRAME,
            {"side": ["item_id"]},
            "columns user, session, item, time, kind and side must not repeat a name; got 'item_id' twice",
        ),
        (FRAME, {"time": "user_id"}, "'user_id' twice"),
        (
            pd.concat([FRAME, FRAME[["user_id"]]], axis=1),
            {},
            "The columns of `frame` .* got 'user_id' twice",
        ),
        (FRAME.assign(user_id=["a", None, "b", "b", "b"]), {}, "column 'user_id' must have no missing value; got 1"),
        (FRAME.assign(item_id=[1, np.nan, 2, 3, 4]), {}, "column 'item_id' must have no missing value; got 1"),
        (FRAME.assign(item_id=[1.5, 1, 2, 3, 4]), {}, "column 'item_id' must be whole numbers or strings; got 1.5"),
        (FRAME.assign(timestamp=[1, np.nan, 2, 3, 4]), {}, "column 'timestamp' must have no missing value"),
        (FRAME.assign(timestamp=pd.to_datetime([None, 1, 2, 3, 4])), {}, "column 'timestamp' must have no missing"),
        (FRAME.assign(timestamp=list("abcde")), {}, "column 'timestamp' must be numbers or datetimes.*to_datetime"),
        (FRAME.assign(timestamp=True), {}, "column 'timestamp' must be numbers or datetimes; got dtype bool"),
        (
            FRAME.assign(timestamp=np.float32(1_700_000_000)),
            {},
            "column 'timestamp' must be at most 16777216 as float32, which cannot tell larger ones apart; got 17000000",
        ),
        (FRAME.assign(genre="x"), {"side": ["genre"]}, "column 'genre' must be numeric.*IdMap"),
        (FRAME.assign(rating=[1, None, 2, 3, 4]), {"side": ["rating"]}, "column 'rating' must have no missing value"),
        ({"user_id": [1]}, {}, "`frame` must be a pandas or polars DataFrame, or an Arrow table; got dict"),
    ],
)
def test_frames_refused(frame, options, message):
    with pytest.raises(ValueError, match=message):
        Interactions.from_frame(frame, **options)


def test_the_constructor_refuses_rows_out_of_order():
    two, arguments = IdMap([1, 2]), {"side": {}, "user_ids": IdMap([1, 2]), "item_ids": IdMap([1, 2])}
    with pytest.raises(ValueError, match="`users` must be sorted"):
        Interactions(users=[2, 1], items=[1, 1], times=None, **arguments)
    with pytest.raises(ValueError, match="`times` must be sorted within each user"):
        Interactions(users=[1, 1], items=[1, 1], times=[2, 1], **arguments)
    with pytest.raises(ValueError, match=r"`users` must be between 1 and 2; got 3"):
        Interactions(users=[1, 3], items=[1, 1], times=None, **arguments)
    with pytest.raises(ValueError, match=r"column 'items' must have one value a row, shape \(2,\)"):
        Interactions(users=[1, 1], items=[1], times=None, **arguments)
    with pytest.raises(ValueError, match="'item_id' twice"):
        Interactions([1], [1], None, {"item_id": [1]}, two, two)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2026-11-26", "2026-11-25"], ["2026-11-25", "2026-11-26"]),
        (["2026-11-26 10:00", "2026-11-26 09:30:01.5"], ["2026-11-26T09:30:01.5", "2026-11-26T10:00"]),
        (["2026-11-26T10:00:00+01:00", "2026-11-26T09:30:00Z"], ["2026-11-26T09:00", "2026-11-26T09:30"]),
    ],
)
def test_dates_that_are_written_as_iso_8601_are_read(texts, expected):
    frame = pd.DataFrame({"user_id": 1, "item_id": [2, 3], "timestamp": texts})
    times = Interactions.from_frame(frame).times
    np.testing.assert_array_equal(times, np.array(expected, times.dtype))
    assert frame["timestamp"].tolist() == texts


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["2026-11-26", "26.11.2026"], "be numbers or datetimes, or text such as .*; got '26.11.2026' in row 1"),
        (["2026-13-26", "2026-11-26"], r"hold dates that exist; got .*2026-13-26[^:]*\.$"),
        (["2026-02-30", "2026-11-26"], r"hold dates that exist; got .*2026-02-30[^:]*\.$"),
        (["2026-11-26", "2026-11-26T09:30:00Z"], "have a time zone in every row or in none; got 1 of 2"),
        (["1", "2"], "be numbers or datetimes"),
        ([None, "2026-11-26"], "have no missing value; got 1 missing of 2"),
    ],
)
def test_other_texts_are_no_times(texts, words):
    frame = pd.DataFrame({"user_id": 1, "item_id": [2, 3], "timestamp": texts})
    with pytest.raises(ValueError, match=f"column 'timestamp' must {words}"):
        Interactions.from_frame(frame)


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_infinite_times_are_refused(infinite):
    frame = frame_of((1, 2, 3.0), (1, 3, infinite))
    interactions = Interactions.from_frame(frame.head(1))
    refused = r"must be finite; got 1 infinite of 2. Drop or fill those rows"
    for times in (frame["timestamp"], frame["timestamp"].astype("Float32")):
        with pytest.raises(ValueError, match=f"column 'timestamp' {refused}"):
            Interactions.from_frame(frame.assign(timestamp=times))
    with pytest.raises(ValueError, match=f"column 'timestamp' {refused}"):
        interactions.extended(frame)
    with pytest.raises(ValueError, match=f"`times` {refused}"):
        Interactions.from_sequences([0, 2], [1, 2], times=[infinite, 3])
    with pytest.raises(ValueError, match="`times` must be finite; got 1 infinite of 1"):
        replace(interactions, times=np.array([infinite]))
