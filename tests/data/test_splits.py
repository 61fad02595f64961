"""Splits: parts that never overlap, and nothing of the future in train."""

import datetime
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmatch_ext.data import Interactions, Split, find_leaks, leave_last_out, split_by_time, windows

pytestmark = [pytest.mark.plain, pytest.mark.smoke]

lengths = st.lists(st.integers(0, 8), min_size=1, max_size=12).filter(lambda sizes: max(sizes) >= 3)


def sequences(sizes, times=None):
    return Interactions.from_sequences(np.cumsum([0, *sizes]), np.arange(1, sum(sizes) + 1), times)


def test_leave_last_out_by_hand():
    # User 1 has rows 0-3, user 2 rows 4-5 (too few), user 3 none, user 4 rows 6-8.
    split = leave_last_out(sequences([4, 2, 0, 3]))
    assert split.test.tolist() == [3, 8]
    assert split.validation.tolist() == [2, 7]
    assert split.train.tolist() == [0, 1, 4, 5, 6]
    assert split.train_targets().tolist() == [1, 5]
    assert split.train_targets(0).tolist() == [0, 1, 4, 5, 6]
    assert split.train_targets(2).tolist() == []


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(3, 5))
def test_leave_last_out_partitions_the_rows(sizes, min_interactions):
    x = sequences(sizes)
    if max(sizes) < min_interactions:
        with pytest.raises(ValueError, match=f"a user with at least {min_interactions} events"):
            leave_last_out(x, min_interactions)
        return
    split = leave_last_out(x, min_interactions)
    assert sorted([*split.train, *split.validation, *split.test]) == list(range(len(x)))
    for user, size in enumerate(sizes, start=1):
        mine = list(range(x.indptr[user], x.indptr[user + 1]))
        held_out = 2 if size >= min_interactions else 0
        assert [row for row in mine if row in split.train] == mine[: size - held_out]
        assert [row for row in mine if row in split.validation] == mine[size - held_out : size - 1][: held_out // 2]
        assert [row for row in mine if row in split.test] == mine[size - 1 :][: held_out // 2]
    for part in (split.train, split.validation, split.test):
        assert part.dtype == np.int64
        assert not part.flags.writeable


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=1, max_size=30), st.data())
def test_split_by_time_never_trains_on_the_future(rows, data):
    frame = pd.DataFrame(rows, columns=["user_id", "timestamp"]).assign(item_id=1)
    x = Interactions.from_frame(frame)
    start = data.draw(st.integers(0, 9))
    end = data.draw(st.integers(start + 1, 10))
    if x.times.min() >= start or x.times.max() < end:
        with pytest.raises(ValueError, match="leave rows to"):
            split_by_time(x, start, end)
        return
    split = split_by_time(x, start, end)
    assert split.train.tolist() == [row for row in range(len(x)) if x.times[row] < start]
    assert split.validation.tolist() == [row for row in range(len(x)) if start <= x.times[row] < end]
    assert split.test.tolist() == [row for row in range(len(x)) if end <= x.times[row]]


@pytest.mark.parametrize("kind", [str, pd.Timestamp, datetime.datetime.fromisoformat, np.datetime64])
def test_split_by_dates(kind):
    days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"])
    x = Interactions.from_frame(pd.DataFrame({"user_id": 1, "item_id": [1, 2, 3], "timestamp": days}))
    split = split_by_time(x, kind("2024-01-02"), kind("2024-01-03"))
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0], [1], [2])


def test_split_by_dates_with_a_time_zone():
    days = pd.to_datetime(["2024-01-01T00:00Z", "2024-01-02T00:00Z", "2024-01-03T00:00Z"])
    x = Interactions.from_frame(pd.DataFrame({"user_id": 1, "item_id": [1, 2, 3], "timestamp": days}))
    # 9 o'clock in Tokyo is midnight UTC.
    split = split_by_time(x, "2024-01-02T09:00+09:00", "2024-01-03")
    assert split.validation.tolist() == [1]
    x = Interactions.from_frame(pd.DataFrame({"user_id": 1, "item_id": [1, 2, 3], "timestamp": days.tz_localize(None)}))
    with pytest.raises(
        ValueError, match="`test_from` must have no time zone, as the times of the events; got '2024-01-0"
    ):
        split_by_time(x, "2024-01-02", "2024-01-03T09:00+09:00")


@pytest.mark.parametrize("text", ["03.01.2024", "3/1/2024", "Jan 3 2024", "03-01-2024"])
def test_split_by_dates_that_could_be_read_in_two_ways(text):
    """pandas takes the first number for the month."""
    x = sequences([4], pd.date_range("2024-01-01", periods=4).to_numpy())
    with pytest.raises(ValueError, match=r"`validation_from` must be .* text such as 2026-11-26 09:30; got"):
        split_by_time(x, text, "2024-01-04")
    for same in ("2024-01-03", "2024-01-03T00:00", "20240103", pd.Timestamp("2024-01-03"), np.datetime64("2024-01-03")):
        assert split_by_time(x, same, "2024-01-04").validation.tolist() == [2]


def test_refusals():
    x, timed = sequences([4]), sequences([4], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="`min_interactions` must be an integer of at least 3; got 2"):
        leave_last_out(x, 2)
    with pytest.raises(ValueError, match="`interactions` must have times; got times=None"):
        split_by_time(x, 2, 3)
    with pytest.raises(ValueError, match="`validation_from` must be earlier than `test_from`; got 3 and 3"):
        split_by_time(timed, 3, 3)
    with pytest.raises(ValueError, match="`validation_from` must leave rows to train on, so be later than 1; got 1"):
        split_by_time(timed, 1, 3)
    with pytest.raises(ValueError, match="`test_from` must leave rows to test on, so be at most 4; got 5"):
        split_by_time(timed, 2, 5)
    with pytest.raises(ValueError, match="`validation_from` must be a number, as the times are; got '2024-01-01'"):
        split_by_time(timed, "2024-01-01", 3)
    dated = sequences([4], pd.date_range("2024-01-01", periods=4).to_numpy())
    for moment in (3, "soon", None):
        with pytest.raises(ValueError, match="`validation_from` must be a datetime, as the times are"):
            split_by_time(dated, moment, "2024-01-03")
    with pytest.raises(ValueError, match="`min_history` must be an integer of at least 0"):
        leave_last_out(x).train_targets(-1)


def test_a_split_is_not_changed_with_the_columns_it_was_made_of():
    rows = np.array([0, 1])
    view = rows.view()
    view.setflags(write=False)  # as pandas 3 gives a column
    split = Split(sequences([4]), train=view, validation=[2], test=[3])
    rows[0] = 3
    assert split.train.tolist() == [0, 1]
    again = Split(split.interactions, split.train, [2], [3])
    assert again.train is split.train  # what nobody can write to is not copied
    whole = leave_last_out(sequences([4]))
    assert Split(whole.interactions, whole.train, [2], [3]).train is whole.train


def test_a_split_made_by_hand_is_checked():
    x = sequences([4])
    assert Split(x, train=[1, 0], validation=[], test=[3]).train.tolist() == [0, 1]
    with pytest.raises(ValueError, match="`validation` must hold each row once, and none of another part"):
        Split(x, train=[0, 1], validation=[1], test=[3])
    with pytest.raises(ValueError, match="`train` must hold each row once"):
        Split(x, train=[0, 0], validation=[1], test=[3])
    with pytest.raises(ValueError, match=r"`test` must be between 0 and 3; got 4"):
        Split(x, train=[0], validation=[1], test=[4])


FOLDS = pd.DataFrame(
    [(1, 7, 30, "test"), (1, 8, 10, "train"), (2, 7, 5, "train"), (1, 9, 20, "validation"), (2, 9, 9, "test")],
    columns=["user_id", "item_id", "timestamp", "fold"],
)


def parts_of(split):
    return [getattr(split, name).tolist() for name in ("train", "validation", "test")]


def test_a_column_says_which_part_an_event_is_of():
    before = FOLDS.copy()
    split = Split.from_frame(FOLDS, part="fold")
    pd.testing.assert_frame_equal(FOLDS, before)
    assert split.interactions.item_ids.decode(split.interactions.items).tolist() == [8, 9, 7, 7, 9]
    assert parts_of(split) == [[0, 3], [1], [2, 4]]
    assert split.train_targets().tolist() == []
    assert dict(split.interactions.side) == {}
    split = Split.from_frame(FOLDS.sort_values("timestamp"), part="fold", side=["timestamp"], time=None)
    assert split.interactions.side["timestamp"].tolist() == [10, 20, 30, 5, 9]
    other = Split.from_frame(FOLDS.rename(columns={"user_id": "u"}).astype({"fold": "category"}), "fold", user="u")
    assert parts_of(other) == parts_of(split)


def test_parts_are_frames_of_their_own():
    frames = {name: FOLDS[FOLDS["fold"] == name].drop(columns="fold") for name in ("test", "train", "validation")}
    split = Split.from_frames(frames)
    assert parts_of(split) == [[0, 3], [1], [2, 4]]
    assert split.interactions.times.tolist() == [10, 20, 30, 5, 9]
    assert parts_of(Split.from_frames({"train": frames["train"], "test": frames["test"]})) == [[0, 2], [], [1, 3]]
    # At one time, train comes first; so it does in the order of the rows.
    same = {name: frame.assign(timestamp=1) for name, frame in frames.items()}
    assert parts_of(Split.from_frames(same)) == parts_of(Split.from_frames(frames, time=None)) == parts_of(split)


@pytest.mark.parametrize("kind", ["polars", "pyarrow"])
def test_parts_of_other_frames(kind):
    library = pytest.importorskip(kind)
    pytest.importorskip("pyarrow")
    frame = (library.DataFrame if kind == "polars" else library.table)(FOLDS.to_dict("list"))
    assert parts_of(Split.from_frame(frame, "fold")) == [[0, 3], [1], [2, 4]]
    assert parts_of(Split.from_frames({"train": FOLDS[1:3], "test": frame[:1]})) == [[0, 2], [], [1]]


folds = st.tuples(st.integers(1, 3), st.integers(0, 5), st.sampled_from(["train", "validation", "test"]))


@settings(max_examples=60)
@given(st.lists(folds, min_size=1, max_size=15))
def test_given_parts_against_a_slow_loop(rows):
    frame = pd.DataFrame(rows, columns=["user_id", "timestamp", "part"])
    frame["item_id"] = np.arange(1, len(frame) + 1)  # an item says which row it is
    names = set(frame["part"])
    if "train" not in names or names == {"train"}:
        with pytest.raises(ValueError, match="the parts must hold targets to train on, and others"):
            Split.from_frame(frame, "part")
        return
    order = ["train", "validation", "test"]
    early = [
        sum(
            any(
                rows[other][0] == user and rows[other][2] == order[earlier] and (time, place) < (rows[other][1], other)
                for other in range(len(rows))
            )
            for place, (user, time, part) in enumerate(rows)
            if part == order[held]
        )
        for earlier, held in [(0, 1), (0, 2), (1, 2)]
    ]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        split = Split.from_frame(frame, "part")
    found = [int(number) for each in told for number in re.findall(r"(\d+) of \d+ of", str(each.message))]
    assert found == [number for number in early if number]
    for name in order:
        assert set(split.interactions.items[getattr(split, name)]) == set(frame["item_id"][frame["part"] == name])


def test_held_out_events_in_front_of_train_are_told_of():
    rule = "before others of the same user, whose histories hold them: 1 of 2 of test before one of train, such as row"
    with pytest.warns(UserWarning, match=rule) as told:
        split = Split.from_frame(FOLDS.assign(timestamp=[5, 10, 5, 20, 9]), "fold")
    assert "row 0, user_id 1, item_id 7; 1 of 2 of test before one of validation, such as" in str(told[0].message)
    assert told[0].filename == __file__
    assert find_leaks(split).serious[0].kind == "held_out_in_history"


def test_held_out_events_that_are_copies_of_earlier_ones_are_told_of():
    parts = {name: FOLDS[FOLDS["fold"] == name].drop(columns="fold") for name in ("train", "validation", "test")}
    copied = {**parts, "test": pd.concat([parts["test"], parts["validation"]])}
    words = r"1 of 3 of test are in validation, too, such as user_id 1, item_id 9, time 20\. Unless they happened twice"
    # Each copy is before a later event of test, but after all of the part that has it.
    with pytest.warns(UserWarning, match=f"^Held-out events are known from an earlier part: {words}") as told:
        Split.from_frames(copied)
    assert len(told) == 1
    # Of another kind, or at another time, it is no copy; without times, nobody knows.
    Split.from_frames({**parts, "test": pd.concat([parts["test"], parts["validation"].assign(timestamp=21)])})
    Split.from_frames(copied, time=None)
    of_kinds = {name: frame.assign(kind=name) for name, frame in parts.items()}
    of_kinds["test"] = pd.concat([of_kinds["test"], parts["validation"].assign(kind="test")])
    Split.from_frames(of_kinds, kind="kind", targets=["train", "validation", "test"])


def test_given_parts_of_sessions_and_kinds():
    frame = FOLDS.assign(session=[1, 1, 2, 1, 3], kind=["buy", "see", "buy", "buy", "see"])
    split = Split.from_frame(frame, "fold", session="session")
    assert parts_of(split) == [[0, 3], [1], [2]]  # the session of row 4 begins with it
    split = Split.from_frame(frame, "fold", kind="kind", targets="buy")
    assert parts_of(split) == [[3], [1], [2]]
    assert windows(split.interactions, split.validation, 2)["hist_len_see"].tolist() == [1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Split.from_frame(FOLDS, "part"), "column 'part' must be in the frame"),
        (lambda: Split.from_frame(FOLDS, "item_id"), "must not repeat a name; got 'item_id' twice"),
        (lambda: Split.from_frame(FOLDS, None), "`part` must be text"),
        (
            lambda: Split.from_frame({"fold": []}, "fold"),
            "`frame` must be a pandas or polars DataFrame, or an Arrow table",
        ),
        (
            lambda: Split.from_frame(FOLDS.replace({"test": "valid"}), "fold"),
            r"column 'fold' must hold 'train', 'validation', 'test'; got 'valid'\. frame\['fold'\]\.replace",
        ),
        (lambda: Split.from_frame(FOLDS.assign(fold=1), "fold"), "column 'fold' must hold 'train', .* got 1"),
        (
            lambda: Split.from_frame(FOLDS.assign(fold=[*"abcd", None]), "fold"),
            "column 'fold' must have no missing value; got 1 missing of 5",
        ),
        (
            lambda: Split.from_frame(FOLDS[1:3], "fold"),
            "the parts must hold targets to train on, .*got 2 of train, 0 of v",
        ),
        (lambda: Split.from_frame(FOLDS.drop(columns="timestamp"), "fold"), "column 'timestamp' must be in the frame"),
        (lambda: Split.from_frames({"test": FOLDS}), "`frames` must be frames by the names 'train' and .* got 'test'"),
        (lambda: Split.from_frames([FOLDS, FOLDS]), "`frames` must be frames by the names"),
        (
            lambda: Split.from_frames({"train": FOLDS, "test": FOLDS.drop(columns="item_id")}),
            r"column 'item_id' must be in `frames`\['test'\]; got the columns",
        ),
        (lambda: Split.from_frames({"train": FOLDS, "test": 1}), r"`frames`\['test'\] must be a pandas or polars"),
        (
            lambda: Split.from_frames({"train": FOLDS, "test": FOLDS.astype({"item_id": str})}),
            "column 'item_id' must be all integers or all strings; got mixed",
        ),
    ],
)
def test_given_parts_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 5), st.data())
def test_sequence_targets_hold_each_event_once(lengths, max_len, data):
    starts = np.cumsum([0, *lengths])
    trained = [data.draw(st.integers(0, length)) for length in lengths]  # the first events of each user
    rows = np.concatenate([start + np.arange(number) for start, number in zip(starts, trained, strict=False)])
    x = Interactions.from_sequences(starts, np.arange(1, starts[-1] + 1))  # every event has an item of its own
    split = Split(x, rows.astype(np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    targets = split.sequence_targets(max_len)
    cut = windows(x, targets, max_len)
    # What a row trains: its item, and those of its history in front of which something is left.
    following = np.concatenate([cut["item_id"][:, np.newaxis], cut["hist_item_id"][:, :-1]], axis=1)
    found = following[np.arange(max_len) < cut["hist_len"][:, np.newaxis]]
    np.testing.assert_array_equal(np.sort(found), x.items[split.train_targets()])
    assert (np.diff(targets) > 0).all()
    assert len(targets) == sum(-(-max(number - 1, 0) // max_len) for number in trained)


def test_sequence_targets_of_sessions_and_what_they_refuse():
    frame = pd.DataFrame({"user_id": 1, "item_id": [7, 8, 9, 7, 8], "timestamp": range(5), "session": [1, 1, 1, 2, 2]})
    x = Interactions.from_frame(frame, session="session")
    everything = Split(x, np.arange(5), [], [])
    assert everything.sequence_targets(10).tolist() == [2, 4]
    assert everything.sequence_targets(1).tolist() == [1, 2, 4]
    with pytest.raises(ValueError, match="`train` must hold, of each user or session, the first events"):
        Split(x, [0, 2, 3, 4], [1], []).sequence_targets(10)
    with pytest.raises(ValueError, match="`max_len`"):
        everything.sequence_targets(0)
    kinds = Interactions.from_frame(frame.assign(kind="click"), kind="kind", targets="click")
    with pytest.raises(ValueError, match="one kind of events"):
        Split(kinds, np.arange(5), [], []).sequence_targets(10)
