"""Leaks: what is planted is found, to the number; our own splits and windows have none."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmatch_ext.data import (
    Interactions,
    Split,
    find_leaks,
    leave_last_out,
    read_dataset,
    seen_before,
    split_by_time,
    synthetic_interactions,
    windows,
)
from deepmatch_ext.data.leaks import histories as histories_module

pytestmark = pytest.mark.plain

# Three users, five items, all times different. Rows 0-4, 5-8 and 9-11.
FRAME = pd.DataFrame(
    [(1, 1, 10), (1, 2, 20), (1, 3, 30), (1, 4, 40), (1, 5, 50)]
    + [(2, 3, 15), (2, 2, 25), (2, 5, 35), (2, 1, 45)]
    + [(3, 2, 5), (3, 4, 18), (3, 1, 28)],
    columns=["user_id", "item_id", "timestamp"],
)
X = Interactions.from_frame(FRAME)


def deepmatch_inputs(frame, max_len=6, until=lambda place, number: place, tests=1):
    """Train and test as DeepMatch's examples make them; ``until`` says how much of a user's list a history is of."""
    rows = {"train": [], "test": []}
    for user, own in frame.sort_values("timestamp").groupby("user_id"):
        items, times = own["item_id"].tolist(), own["timestamp"].tolist()
        for place in range(1, len(items)):
            history = items[: until(place, len(items))][::-1][:max_len]
            part = "test" if place >= len(items) - tests else "train"
            rows[part].append(
                (user, items[place], history + [0] * (max_len - len(history)), len(history), times[place])
            )
    return {
        part: dict(
            zip(
                ["user_id", "item_id", "hist_item_id", "hist_len", "time"],
                map(np.array, zip(*of, strict=True)),
                strict=True,
            )
        )
        for part, of in rows.items()
    }


def found(report, *severities):
    """{(kind, part, seen_in): (count, total)} of the findings of some severities."""
    return {
        (leak.kind, leak.part, leak.seen_in): (leak.count, leak.total)
        for leak in report.leaks
        if not severities or leak.severity in severities
    }


MODES = {"by user and item": {}, "by time": {"time": "time"}}


@pytest.mark.parametrize("mode", MODES)
def test_a_right_pipeline_has_none(mode):
    report = find_leaks(deepmatch_inputs(FRAME), X, item_count=[0, 0, 2, 1, 2, 1], **MODES[mode])
    # The first test target is of 28 (user 3). Train targets of 30, 40 and 35 are later, 20, 25 and 18 are not.
    assert found(report) == {("later_in_train", "test", "train"): (3, 6)}
    assert report.serious == ()
    assert [leak.severity for leak in report.leaks] == ["note"]


@pytest.mark.parametrize("mode", MODES)
def test_histories_one_too_long(mode):
    inputs = deepmatch_inputs(FRAME, until=lambda place, number: place + 1)
    report = find_leaks(inputs, X, **MODES[mode])
    # All 6 train rows and all 3 test rows have their own target.
    assert found(report, "leak", "possible") == {
        ("target_in_history", "train", "train"): (6, 6),
        ("target_in_history", "test", "test"): (3, 3),
    }
    assert {leak.severity for leak in report.leaks} - {"note"} == {"leak"}
    assert "Row 0: user 1, item 2." in str(report)
    # One history alone.
    right = deepmatch_inputs(FRAME)
    right["test"]["hist_item_id"][1] = inputs["test"]["hist_item_id"][1]
    right["test"]["hist_len"] += 1
    assert found(find_leaks(right, X, **MODES[mode]), "leak") == {("target_in_history", "test", "test"): (1, 3)}


@pytest.mark.parametrize("mode", MODES)
def test_histories_of_all_that_a_user_ever_did(mode):
    report = find_leaks(deepmatch_inputs(FRAME, until=lambda place, number: number), X, **MODES[mode])
    # In all 6 train rows there is the test item at least; after a test target there is nothing.
    expected = {
        ("held_out_in_history", "test", "train"): (3, 3),
        ("future_in_history", "train", "train"): (6, 6),
        ("target_in_history", "train", "train"): (6, 6),
        ("target_in_history", "test", "test"): (3, 3),
    }
    assert found(report, "leak") == found(report, "leak", "possible") == expected


def test_one_item_of_the_future():
    inputs = deepmatch_inputs(FRAME)
    # User 1, target 3 (row 1 of train): the history 2, 1 becomes 2, 4, 1, and 4 was had at 40.
    inputs["train"]["hist_item_id"][1] = [2, 4, 1, 0, 0, 0]
    inputs["train"]["hist_len"][1] = 3
    for options in MODES.values():
        report = find_leaks(inputs, X, **options)
        assert found(report, "leak") == {("future_in_history", "train", "train"): (1, 6)}
        assert found(report, "possible") == {}
        assert "Row 1: user 1, item 3, with item 4 in its history." in report.leaks[0].example


def test_a_repeat_is_no_leak_and_one_too_many_is():
    # Item 1 at 10, 30 and 50.
    x = Interactions.from_frame(FRAME[:5].assign(item_id=[1, 2, 1, 3, 1]))
    inputs = deepmatch_inputs(FRAME[:5].assign(item_id=[1, 2, 1, 3, 1]))
    assert inputs["test"]["hist_item_id"].tolist() == [[3, 1, 2, 1, 0, 0]]
    for options in MODES.values():
        assert found(find_leaks(inputs, x, **options), "leak", "possible") == {}
    # With a third 1, the test target itself is in there. Without times, which 1 it is can't be told.
    inputs["test"] |= {"hist_item_id": np.array([[1, 3, 1, 2, 1, 0]]), "hist_len": np.array([5])}
    assert found(find_leaks(inputs, x, time="time"), "leak", "possible") == {
        ("target_in_history", "test", "test"): (1, 1)
    }
    assert any("1 of 1 rows of test" in what for what in find_leaks(inputs, x).unchecked)
    # In a history of train, before 3 (at 40), the third one is of the future; and it is the test target.
    inputs = deepmatch_inputs(FRAME[:5].assign(item_id=[1, 2, 1, 3, 1]))
    assert inputs["train"]["item_id"].tolist() == [2, 1, 3]
    inputs["train"]["hist_item_id"][2] = [1, 1, 2, 1, 0, 0]
    inputs["train"]["hist_len"][2] = 4
    assert found(find_leaks(inputs, x, time="time"), "leak", "possible") == {
        ("future_in_history", "train", "train"): (1, 3),
        ("held_out_in_history", "test", "train"): (1, 1),
    }


@pytest.mark.parametrize("mode", ["split", "by time"])
def test_targets_that_the_user_had_before(mode):
    # User 1 takes items 1, 2, 1 (validation), 2 (test); user 2 takes 3, 4, 4 (validation), 5 (test). Row 2 repeats row
    # 0, row 3 row 1, and row 6 row 5.
    frame = pd.DataFrame(
        [(1, 1, 10), (1, 2, 20), (1, 1, 30), (1, 2, 40), (2, 3, 15), (2, 4, 25), (2, 4, 35), (2, 5, 45)],
        columns=["user_id", "item_id", "timestamp"],
    )
    x = Interactions.from_frame(frame)
    split = leave_last_out(x)
    rows = {"train": split.train_targets(), "validation": split.validation, "test": split.test}
    inputs = {name: {**windows(x, of, 3), "time": x.times[of]} for name, of in rows.items()}
    report = find_leaks(split) if mode == "split" else find_leaks(inputs, x, **MODES[mode])
    assert report.serious == ()
    notes = {leak.part: leak for leak in report.leaks if leak.kind == "repeated_targets"}
    assert {leak.severity for leak in notes.values()} == {"note"}
    counts = {part: (leak.count, leak.total) for part, leak in notes.items()}
    assert counts == {"validation": (2, 2), "test": (1, 2)}
    assert notes["test"].text == "1 of 2 targets of test with an item that the user had before."
    assert notes["test"].example == f"Row {3 if mode == 'split' else 0}: user 1, item 2."
    assert "count them as misses" in notes["test"].remedy


def one_user(*items):
    """Events of user 1 at 0, 1, 2, ..."""
    return Interactions.from_sequences([0, len(items)], list(items), np.arange(len(items)))


def inputs_of(x, train, test):
    """Inputs with times; each part is a list of (row of the target, history)."""
    return {
        part: {
            "user_id": x.users[[row for row, _ in of]],
            "item_id": x.items[[row for row, _ in of]],
            "time": x.times[[row for row, _ in of]],
            "hist_item_id": padded([history for _, history in of], 3),
        }
        for part, of in {"train": train, "test": test}.items()
    }


def padded(histories, width):
    return np.array([[*history, *[0] * (width - len(history))] for history in histories], int).reshape(-1, width)


HELD = ("held_out_in_history", "test", "train")


def test_which_of_several_events_a_history_has():
    # Item 5 is had at 1, which is a test target, and at 3, in train. At 2 only the first can be in a history.
    x = one_user(9, 5, 8, 5)
    inputs = inputs_of(x, train=[(2, [5]), (3, [8])], test=[(1, [9])])
    assert found(find_leaks(inputs, x, time="time"), "leak", "possible") == {HELD: (1, 1)}
    # Both 5s are of the future at 1: the one at 2 is train's, so that of test need not be in there.
    x = one_user(9, 8, 5, 5)
    inputs = inputs_of(x, train=[(1, [5]), (2, [9])], test=[(3, [9])])
    assert found(find_leaks(inputs, x, time="time"), "leak", "possible") == {
        ("future_in_history", "train", "train"): (1, 2)
    }
    # With two 5s it is.
    inputs["train"]["hist_item_id"][0] = [5, 5, 0]
    assert found(find_leaks(inputs, x, time="time"), "leak", "possible") == {
        ("future_in_history", "train", "train"): (1, 2),
        HELD: (1, 1),
    }
    # Test has the 5s at 3 and 4, train's histories two 5s, of which the one at 1 explains one.
    x = one_user(9, 5, 8, 5, 5)
    inputs = inputs_of(x, train=[(2, [5, 5])], test=[(3, [9]), (4, [9])])
    assert found(find_leaks(inputs, x, time="time"), "leak", "possible") == {
        ("future_in_history", "train", "train"): (1, 1),
        HELD: (1, 2),
    }
    # Test has the 5 at 3 and an unknown item, train's history two 5s: they can be those at 1 and 4.
    x = one_user(4, 5, 3, 5, 5)
    inputs = inputs_of(x, train=[(2, [5, 5])], test=[(3, [4]), (4, [4])])
    inputs["test"]["item_id"][1] = 0
    assert found(find_leaks(inputs, x, time="time"), "leak", "possible") == {
        ("future_in_history", "train", "train"): (1, 1)
    }
    # A target of test that is one of train as well, with an earlier 5 in its history.
    x = one_user(5, 8, 5)
    inputs = inputs_of(x, train=[(2, [5])], test=[(2, [5])])
    assert found(find_leaks(inputs, x, time="time"), "leak", "possible") == {
        ("duplicate_target", "test", "train"): (1, 1)
    }


def test_without_times_a_target_had_twice_is_not_looked_at():
    # Both 5s and both 4s look alike; at the last 5 there would be a held-out 4 before train's first 5.
    x = one_user(4, 5, 4, 5)
    split = leave_last_out(x)
    inputs = {name: windows(x, getattr(split, name), 1) for name in ("train", "validation", "test")}
    assert inputs["train"]["hist_item_id"].tolist() == [[0], [4]]
    report = find_leaks(inputs, x, item_count=np.zeros(6))
    assert report.leaks == ()
    # Each item is had twice, so no row's event is certain.
    assert report.unchecked == tuple(
        f"{of} rows of {name}: an id is 0, or the user had the item more than once; then give `time`."
        for of, name in [("2 of 2", "train"), ("1 of 1", "validation"), ("1 of 1", "test")]
    )
    # User 1's target 1 is of 20, before its repeat of 70; the first test target that has a certain time is of 40.
    frame = pd.DataFrame(
        [(1, 2, 10), (1, 1, 20), (1, 3, 25), (1, 1, 70), (2, 2, 5), (2, 1, 7), (2, 3, 40)],
        columns=["user_id", "item_id", "timestamp"],
    )
    assert found(find_leaks(deepmatch_inputs(frame), Interactions.from_frame(frame))) == {}


@pytest.mark.parametrize("mode", MODES)
def test_test_rows_among_the_train_rows(mode):
    inputs = deepmatch_inputs(FRAME)
    both = {name: np.concatenate([inputs["train"][name], inputs["test"][name][1:]]) for name in inputs["train"]}
    report = find_leaks({"train": both, "test": inputs["test"]}, X, **MODES[mode])
    assert found(report, "leak") == {("duplicate_target", "test", "train"): (2, 3)}
    assert found(report, "possible") == {}
    assert report.leaks[0].example == "Row 1: user 2, item 1."
    # Between validation and test, too.
    report = find_leaks({**inputs, "validation": inputs["test"]}, X, **MODES[mode])
    assert found(report, "leak", "possible") == {("duplicate_target", "test", "validation"): (3, 3)}


def test_an_event_that_the_source_has_twice():
    frame = pd.DataFrame([(1, 1, 10), (1, 2, 20), (1, 3, 30), (1, 3, 30)], columns=["user_id", "item_id", "timestamp"])
    x = Interactions.from_frame(frame)
    split = Split(x, train=[0, 1, 2], validation=[], test=[3])
    inputs = {name: windows(x, rows, 3) for name, rows in {"train": split.train, "test": split.test}.items()}
    timed = {name: {**inputs[name], "time": x.times[getattr(split, name)]} for name in inputs}
    for report in (find_leaks(split), find_leaks(timed, x, time="time")):
        assert found(report, "leak") == {}
        assert found(report, "possible") == {("duplicate_target", "test", "train"): (1, 1)}
        # It has the other one, of the same moment, in its history.
        assert found(report, "note") == {
            ("same_moment", "test", "test"): (1, 1),
            ("repeated_targets", "test", "test"): (1, 1),
        }
    # By user and item alone there are two events for two targets, so nothing is said.
    assert found(find_leaks(inputs, x), "leak", "possible") == {}


COUNTS = {  # by item id. Test has one event of item 5 and two of item 1, and the other events are 0, 1, 3, 2, 2, 1
    "train's targets": ([0, 0, 2, 1, 2, 1], None),
    "all but test": ([0, 1, 3, 2, 2, 1], None),
    "less": ([0, 0, 1, 1, 0, 0], None),
    "all": ([0, 3, 3, 2, 2, 2], (3, 3)),
    "train's targets and test": ([0, 2, 2, 1, 2, 2], (2, 3)),  # user 1's first event may be one of the two of item 1
    "one of test": ([0, 1, 3, 2, 2, 2], (1, 3)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    counts, number = COUNTS[name]
    for of_items in (counts, np.array(counts, float)):
        report = find_leaks(deepmatch_inputs(FRAME), X, item_count=of_items)
        assert found(report, "leak") == ({("held_out_in_counts", "test", "train"): number} if number else {})
        assert not any("item_count" in what for what in report.unchecked)


def test_padding_is_not_counted():
    # An unknown item is user 2's test target: id 0. The other two, 5 and 1, are counted; of item 1, which has three
    # events, one is held out.
    report = find_leaks(changed(item_id=[5, 0, 1]), X, item_count=[7, 3, 3, 2, 2, 2])
    assert found(report, "leak") == {("held_out_in_counts", "test", "train"): (2, 2)}


def test_counts_of_a_split():
    split = leave_last_out(X)
    for counts in (X.item_counts(split.train), X.item_counts(split.train_targets())):
        assert find_leaks(split, item_count=counts).serious == ()
    for rows in (split.validation, split.test, np.concatenate([split.validation, split.test])):
        report = find_leaks(split, item_count=X.item_counts(split.train) + X.item_counts(rows))
        (leak,) = report.serious
        # Item 1 is in both parts, so the parts that it may be of are named.
        assert leak.kind == "held_out_in_counts"
        assert leak.count == len(rows)
        assert set(leak.part.split(" and ")) >= {
            name for name in ("validation", "test") if rows is getattr(split, name)
        }
    # Without validation's input, its events are not held out; all of test's are found all the same.
    inputs = {"train": windows(X, split.train_targets(), 3), "test": windows(X, split.test, 3)}
    report = find_leaks(inputs, X, item_count=X.item_counts())
    assert found(report, "leak") == {("held_out_in_counts", "test", "train"): (3, 3)}
    leak = report.serious[0]
    assert leak.text == "3 of 3 events of test, at least, counted in `item_count`."
    # Item 1 is user 1's first, and the test target of users 2 and 3.
    assert leak.example == "Item 1: 3 counted, of which 1 can be of train."


def test_rows_of_train_after_the_users_test_rows():
    # User 1 tests on rows 1 and 4, of which 1 is before train rows 2 and 3; user 2 on row 5, before rows 6 to 8.
    split = Split(X, train=[0, 2, 3, 6, 7, 8, 9, 10], validation=[11], test=[1, 4, 5])
    report = find_leaks(split)
    assert found(report, "leak") == {("held_out_in_history", "test", "train"): (2, 3)}
    assert report.serious[0].example == "Row 1: user 1, item 2."
    inputs = {name: windows(X, getattr(split, name), 4) for name in ("train", "validation", "test")}
    assert found(find_leaks(inputs, X), "leak") == {("held_out_in_history", "test", "train"): (2, 3)}
    # With histories of one item: row 2 has row 1 in it, row 6 has row 5.
    inputs = {name: windows(X, getattr(split, name), 1) for name in inputs}
    assert found(find_leaks(inputs, X), "leak") == {("held_out_in_history", "test", "train"): (2, 3)}
    # Row 7 has only row 6, so without row 6 in train nobody has row 5.
    inputs["train"] = windows(X, [0, 2, 3, 7, 8], 1)
    assert found(find_leaks(inputs, X), "leak") == {("held_out_in_history", "test", "train"): (1, 3)}


def test_ids_that_train_does_not_know():
    frame = pd.concat([FRAME, pd.DataFrame({"user_id": [1, 9, 9], "item_id": [6, 6, 7], "timestamp": [60, 61, 62]})])
    x = Interactions.from_frame(frame)
    split = split_by_time(x, 36, 46)
    # Before 36: users 1 to 3 and items 1 to 5. Test: user 1 with 5 and 6, user 4 (raw 9) with 6 and 7.
    assert x.user_ids.decode([4]).tolist() == [9]
    expected = {("new_items", "test", "train"): (2, 3), ("new_users", "test", "train"): (1, 2)}
    assert found(find_leaks(split)) == expected
    inputs = {name: windows(x, getattr(split, name), 4) for name in ("train", "validation", "test")}
    assert found(find_leaks(inputs, x)) == expected
    assert "3 of 4 targets of test" in find_leaks(inputs, x).leaks[0].remedy
    # An item that only a history has is known; an id 0 is no id.
    inputs["train"]["hist_item_id"][3, 0], inputs["train"]["hist_len"][3] = 7, 1
    inputs["test"]["item_id"][1] = 0
    inputs["test"]["user_id"][2:] = 0
    report = find_leaks(inputs, x)
    assert found(report, "note") == {("new_items", "test", "train"): (1, 3)}
    assert any("3 of 4 rows of test" in what for what in report.unchecked)


def test_an_item_that_the_user_never_had():
    inputs = deepmatch_inputs(FRAME)
    inputs["test"]["hist_item_id"][2] = [4, 3, 0, 0, 0, 0]  # user 3 never had 3
    assert found(find_leaks(inputs, X), "leak", "possible") == {("strange_item_in_history", "test", "test"): (1, 3)}


# Ties in time and repeats of items are likely; so are users with too few events to be held out.
events = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 6)), min_size=3, max_size=40)


def interactions_of(rows, timed):
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    return Interactions.from_frame(frame, time="timestamp" if timed else None)


def check_that_a_good_split_is_clean(split, max_len, min_history, order, random):
    x = split.interactions
    counts = [x.item_counts(split.train), x.item_counts(split.train_targets(min_history))]
    for count in counts:
        assert find_leaks(split, item_count=count).serious == ()
    inputs, timed = {}, {}
    for name in ("train", "validation", "test"):
        rows = split.train_targets(min_history) if name == "train" else getattr(split, name).copy()
        rows = np.array(random.sample(rows.tolist(), len(rows)), int)
        inputs[name] = windows(x, rows, max_len, order=order)
        timed[name] = {**inputs[name], "time": np.zeros(len(rows)) if x.times is None else x.times[rows]}
    for count in counts:
        assert find_leaks(inputs, x, item_count=count).serious == ()
        if x.times is not None:
            assert find_leaks(timed, x, item_count=count, time="time").serious == ()


arguments = (st.integers(1, 8), st.integers(0, 2), st.sampled_from(["recent_first", "oldest_first"]))


@pytest.mark.slow
@pytest.mark.once
@settings(max_examples=50)
@given(events, st.booleans(), *arguments, st.randoms(use_true_random=False))
def test_leave_last_out_is_clean(rows, timed, max_len, min_history, order, random):
    x = interactions_of(rows, timed)
    if np.diff(x.indptr).max() < 3:
        return
    check_that_a_good_split_is_clean(leave_last_out(x), max_len, min_history, order, random)


@pytest.mark.slow
@pytest.mark.once
@settings(max_examples=50)
@given(events, st.integers(1, 5), st.integers(1, 5), *arguments, st.randoms(use_true_random=False))
def test_split_by_time_is_clean(rows, start, more, max_len, min_history, order, random):
    x = interactions_of(rows, timed=True)
    if x.times.min() >= start or x.times.max() < start + more:
        return
    split = split_by_time(x, start, start + more)
    check_that_a_good_split_is_clean(split, max_len, min_history, order, random)
    assert not any(leak.kind == "later_in_train" for leak in find_leaks(split).leaks)


def random_parts(data, number):
    """Three lists of row numbers that share none; some rows are in no part."""
    part = np.array(data.draw(st.lists(st.integers(0, 3), min_size=number, max_size=number)))
    return {name: np.flatnonzero(part == k) for k, name in enumerate(["train", "validation", "test"])}


@pytest.mark.slow
@pytest.mark.once
@settings(max_examples=50)
@given(events, st.booleans(), st.data())
def test_any_split_against_a_slow_loop(rows, timed, data):
    x = interactions_of(rows, timed)
    parts = random_parts(data, len(x))
    expected = {}
    for source, held in [("train", "validation"), ("train", "test"), ("validation", "test")]:
        hits = [row for row in parts[held] if any(x.users[r] == x.users[row] and r > row for r in parts[source])]
        expected["held_out_in_history", held, source] = (len(hits), len(parts[held]))
        if timed:
            alike = [(x.users[row], x.items[row], x.times[row]) for row in parts[source]]
            hits = [row for row in parts[held] if (x.users[row], x.items[row], x.times[row]) in alike]
            expected["duplicate_target", held, source] = (len(hits), len(parts[held]))
    known = set(x.items[[r for r in range(len(x)) if any(x.users[r] == x.users[t] and r <= t for t in parts["train"])]])
    for held in ("validation", "test"):
        new, every = set(x.items[parts[held]]) - known, set(x.items[parts[held]])
        expected["new_items", held, "train"] = (len(new), len(every))
        new, every = set(x.users[parts[held]]) - set(x.users[parts["train"]]), set(x.users[parts[held]])
        expected["new_users", held, "train"] = (len(new), len(every))
        if timed and len(parts[held]):
            later = [row for row in parts["train"] if x.times[row] > min(x.times[parts[held]])]
            expected["later_in_train", held, "train"] = (len(later), len(parts["train"]))
            tied = [
                row
                for row in parts[held]
                if any(x.users[r] == x.users[row] and x.times[r] == x.times[row] for r in range(row))
            ]
            expected["same_moment", held, held] = (len(tied), len(parts[held]))
        indptr, had = seen_before(x, parts[held])
        repeats = [item in had[a:b] for item, a, b in zip(x.items[parts[held]], indptr, indptr[1:], strict=False)]
        expected["repeated_targets", held, held] = (sum(repeats), len(parts[held]))
    assert found(find_leaks(Split(x, **parts))) == {key: of for key, of in expected.items() if of[0]}


@pytest.mark.slow
@pytest.mark.once
@settings(max_examples=50)
@given(events, st.data(), st.sampled_from([1, 5, 2**18]))
def test_any_histories_against_a_slow_loop(rows, data, block):
    x = interactions_of(rows, timed=True)
    inputs, expected = {}, {}
    for name, part in random_parts(data, len(x)).items():
        lists = [data.draw(st.lists(st.integers(1, int(x.items.max())), max_size=5)) for _ in part]
        number = Counter()
        for row, history in zip(part, lists, strict=True):
            kinds = set()
            for item, times_in in Counter(history).items():
                own = [r for r in range(len(x)) if x.users[r] == x.users[row] and x.items[r] == item and r != row]
                until = [r for r in own if x.times[r] <= x.times[row]]
                before = [r for r in own if x.times[r] < x.times[row]]
                if not own and item != x.items[row]:
                    kinds.add("strange_item_in_history")
                elif times_in > len(until):
                    kinds.add("target_in_history" if item == x.items[row] else "future_in_history")
                elif times_in > len(before) and name != "train":
                    kinds.add("same_moment")
            again = [r for r in range(len(x)) if (x.users[r], x.items[r]) == (x.users[row], x.items[row]) and r != row]
            if name != "train" and any(x.times[r] <= x.times[row] for r in again):
                kinds.add("repeated_targets")
            number.update(kinds)
        expected |= {(kind, name, name): (count, len(part)) for kind, count in number.items()}
        columns = {"user_id": x.users[part], "item_id": x.items[part], "time": x.times[part]}
        inputs[name] = {**columns, "hist_item_id": padded(lists, 5)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histories_module, "_BLOCK_VALUES", block)
        report = found(find_leaks(inputs, x, time="time"))
    assert {key: of for key, of in report.items() if key[1] == key[2]} == expected


@pytest.mark.slow
@pytest.mark.once
@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6)), min_size=3, max_size=30), st.data())
def test_held_out_items_in_any_histories_against_a_slow_loop(rows, data):
    # Each user has an item once: then a held-out item in a history is the held-out event.
    taken = Counter()
    events = []
    for user, moment in rows:
        taken[user] += 1
        events.append((user, taken[user], moment))
    x = interactions_of(events, timed=True)
    inputs, expected = {}, {}
    parts = random_parts(data, len(x))
    for name, part in parts.items():
        lists = [data.draw(st.lists(st.integers(1, int(x.items.max())), max_size=4)) for _ in part]
        columns = {"user_id": x.users[part], "item_id": x.items[part], "time": x.times[part]}
        inputs[name] = {**columns, "hist_item_id": padded(lists, 4)}
    for source, held in [("train", "validation"), ("train", "test"), ("validation", "test")]:
        had = {
            (user, item)
            for user, history in zip(inputs[source]["user_id"], inputs[source]["hist_item_id"], strict=True)
            for item in history
        }
        hits = [row for row in parts[held] if (x.users[row], x.items[row]) in had]
        if hits:
            expected["held_out_in_history", held, source] = (len(hits), len(parts[held]))
    for options in MODES.values():
        report = find_leaks(inputs, x, **options)
        assert {key: of for key, of in found(report, "leak").items() if key[0] == "held_out_in_history"} == expected
        assert not any(leak.kind == "duplicate_target" for leak in report.leaks)


def test_generated_data_with_a_leak_in_a_few_histories():
    x = synthetic_interactions(num_users=300, num_items=100, mean_length=15, seed=2).interactions
    split = leave_last_out(x)
    parts = {"train": split.train_targets(), "validation": split.validation, "test": split.test}
    inputs = {name: windows(x, rows, 20) for name, rows in parts.items()}
    assert find_leaks(inputs, x, item_count=x.item_counts(split.train)).serious == ()
    rng = np.random.default_rng(3)
    rows = rng.choice(len(parts["train"]), 40, replace=False)
    # The test item of the row's user takes the place of the most recent item.
    test_item = np.zeros(x.user_vocabulary_size, int)
    test_item[inputs["test"]["user_id"]] = inputs["test"]["item_id"]
    users = inputs["train"]["user_id"][rows]
    inputs["train"]["hist_item_id"][rows, 0] = test_item[users]
    report = find_leaks(inputs, x)
    assert found(report, "leak") == {
        ("future_in_history", "train", "train"): (40, len(parts["train"])),
        ("held_out_in_history", "test", "train"): (len(set(users)), 300),
    }


def test_it_reads_as_sentences():
    inputs = deepmatch_inputs(FRAME, until=lambda place, number: place + 1)
    text = str(find_leaks(inputs, X))
    assert text.splitlines() == [
        "leak: 6 of 6 rows of train with their own target in the history. Row 0: user 1, item 2. "
        "Cut each history strictly before its target.",
        "leak: 3 of 3 rows of test with their own target in the history. Row 0: user 1, item 5. "
        "Cut each history strictly before its target.",
        "note: 3 of 6 targets of train later than the first target of test, of 28. Row 1: user 1, item 3. "
        "Training knows other users' futures: always with leave_last_out(), never with split_by_time().",
        "not checked: the sampler's counts; give `item_count`.",
    ]
    clean = find_leaks(split_by_time(X, 36, 46), item_count=np.zeros(6))
    assert str(clean) == "No leak found."
    untimed = Interactions.from_frame(FRAME, time=None)
    assert find_leaks(leave_last_out(untimed), item_count=np.zeros(6)).unchecked == (
        "what was later across users, as the interactions have no times.",
    )
    assert find_leaks(deepmatch_inputs(FRAME), untimed, item_count=np.zeros(6)).unchecked == (
        "what was later across users, as the interactions have no times.",
    )


def test_any_shape_type_and_name_and_nothing_is_changed():
    inputs = deepmatch_inputs(FRAME, until=lambda place, number: number)
    expected = find_leaks(inputs, X, time="time", item_count=[0, 3, 3, 2, 2, 2])
    other = {}
    for part, columns in inputs.items():
        other[part] = {
            "reader": columns["user_id"][:, None].tolist(),
            "book": columns["item_id"][:, None].astype(np.uint64),
            "hist_book": columns["hist_item_id"].astype(np.uint64),
            "hist_len": columns["hist_len"][:, None].astype(np.int8),
            "when": columns["time"][:, None].astype(float),
            "name": ["of no", "interest"],
        }
        for column in (*columns.values(), *other[part].values()):
            if isinstance(column, np.ndarray):
                column.setflags(write=False)
    counts = np.array([0.0, 3, 3, 2, 2, 2])
    assert find_leaks(inputs, X, time="time", item_count=[0, 3, 3, 2, 2, 2]) == expected
    # The names are those of the interactions.
    renamed = FRAME.rename(columns={"user_id": "reader", "item_id": "book"})
    x = Interactions.from_frame(renamed, user="reader", item="book")
    assert find_leaks(other, x, time="when", item_count=counts) == expected
    assert counts.tolist() == [0, 3, 3, 2, 2, 2]
    # Datetimes with and without a zone.
    dated = renamed.assign(timestamp=pd.to_datetime(FRAME["timestamp"], unit="s"))
    x = Interactions.from_frame(dated, user="reader", item="book")
    for part in other:
        other[part]["when"] = pd.Series(pd.to_datetime(inputs[part]["time"], unit="s", utc=True)).dt.tz_convert(
            "Asia/Tokyo"
        )
    assert found(find_leaks(other, x, time="when", item_count=counts)) == found(expected)
    for part in other:
        other[part]["when"] = other[part]["when"].tolist()
    assert found(find_leaks(other, x, time="when", item_count=counts)) == found(expected)
    for part in other:
        other[part]["when"] = np.array(other[part]["when"])[:, np.newaxis]
    assert found(find_leaks(other, x, time="when", item_count=counts)) == found(expected)
    for part in other:
        other[part]["when"] = pd.to_datetime(inputs[part]["time"], unit="s").to_numpy()[:, np.newaxis]
    assert found(find_leaks(other, x, time="when", item_count=counts)) == found(expected)


def test_empty_parts():
    inputs = deepmatch_inputs(FRAME)
    none = {name: column[:0] for name, column in inputs["test"].items()}
    for options in MODES.values():
        for train in (inputs["train"], none):
            assert found(find_leaks({"train": train, "test": none}, X, item_count=np.zeros(6), **options)) == {}
    assert found(find_leaks(Split(X, train=[], validation=[], test=[]), item_count=np.zeros(6))) == {}


def test_histories_that_are_all_empty():
    # User 1's test history is empty, and so are the others': only that train has later targets is left to find.
    report = find_leaks(changed(hist_item_id=[[], [], []]), X)
    assert found(report) == {("later_in_train", "test", "train"): (3, 6)}


def changed(part="test", **columns):
    inputs = deepmatch_inputs(FRAME)
    return {**inputs, part: {**inputs[part], **columns}}


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        (FRAME, {}, "`parts` must be a Split, or inputs by the names 'train' and .*; got DataFrame"),
        ({"train": {}}, {}, "`parts` must be a Split, or inputs by the names.*; got 'train'"),
        ({"train": {}, "dev": {}}, {}, "`parts` must be .*; got 'train', 'dev'"),
        ({"train": FRAME, "test": FRAME}, {}, r"column 'hist_item_id' must be in the input of train; got the columns"),
        (
            {"train": [1], "test": [1]},
            {},
            r"`parts`\['train'\] must be a dictionary, a pandas or polars DataFrame, or .*; got list",
        ),
        (leave_last_out(X), {}, "`interactions` and `time` must be left out beside a Split"),
        (leave_last_out(X), {"interactions": None, "time": "time"}, "`interactions` and `time` must be left out"),
        (
            changed(),
            {"interactions": None},
            "`interactions` must be of the class Interactions; got None. Give the even",
        ),
        (changed(), {"interactions": FRAME}, "`interactions` must be of the class Interactions; got "),
        (
            changed(),
            {"interactions": Interactions.from_frame(FRAME.rename(columns={"item_id": "movie"}), item="movie")},
            "column 'movie' must be in the input of train; got the columns 'user_id'.* `user` and `item` of Inter",
        ),
        (changed(), {"time": "when"}, "column 'when' must be in the input of train; got [^.]*[.]$"),
        (changed(), {"time": ["time"]}, "`time` must be text"),
        (
            changed(item_id=[1, 2]),
            {},
            "the columns of test must have the same number of rows; got {'user_id': 3, 'item_id': 2, 'hist_item_id': 3",
        ),
        (changed(user_id=[[1, 2]]), {}, "column 'user_id' of test must have one value in each row; got lists"),
        (changed(user_id=["a", "b", "c"]), {}, "column 'user_id' of test must hold integers; got dtype object"),
        (changed(item_id=[1, -2, 1]), {}, r"column 'item_id' of test must be between 0 and 5; got -2 at position 1"),
        (changed(item_id=[1, 6, 1]), {}, "column 'item_id' of test must be between 0 and 5; got 6"),
        (changed(item_id=[1, 2**40, 1]), {}, "column 'item_id' of test must be between 0 and 5; got 1099511627776"),
        (changed(hist_item_id=[1, 2, 3]), {}, r"column 'hist_item_id' of test must be \(B, T\).*; got shape \(3,\)"),
        (changed(hist_item_id=np.zeros((3, 0), int)), {}, r"column 'hist_item_id' of test must be \(B, T\)"),
        (changed(hist_item_id=np.zeros((3, 2))), {}, "column 'hist_item_id' of test must hold integers; got dtype fl"),
        (changed(hist_item_id=[[1, 0], [2, -1], [3, 0]]), {}, "'hist_item_id' of test must be between 0 and 5; got -1"),
        (
            changed(hist_item_id=[[1, 0], [2, 9], [3, 0]]),
            {},
            r"got 9 at position 3 \(1 out of range in all\). The inputs have the ids of the inter",
        ),
        (
            changed(hist_len=[4, 2, 2]),
            {},
            "column 'hist_item_id' of test must have no more ids in a row than 'hist_len' says; got more in row 1.",
        ),
        (changed(hist_len=["4", "2", "2"]), {}, "column 'hist_len' of test must hold integers; got dtype object"),
        (changed(hist_len=[4, np.nan, 2]), {}, "column 'hist_len' of test must hold integers; got dtype float64"),
        (changed(time=[1, 2, np.nan]), {"time": "time"}, "column 'time' of test must have no missing value"),
        (changed(time=[1, 2]), {"time": "time"}, "the columns of test must have the same number of rows"),
        (
            changed(time=pd.date_range("2024-01-01", periods=3)),
            {"time": "time"},
            "the times must be all numbers or all datetimes; got datetime64",
        ),
        (
            changed(),
            {"time": "time", "interactions": Interactions.from_frame(FRAME, time=None)},
            "`interactions` must have times where `time` is given; got times=None",
        ),
        (
            changed(item_id=[4, 4, 1]),
            {},
            "the targets of test must be events of the interactions; got 1 that are none, the first in row 1: "
            "user 2, item 4. Give rows of true events",
        ),
        (changed(time=[50, 45, 27]), {"time": "time"}, "1 that are none, the first in row 2"),
        (changed(), {"item_count": np.ones((6, 1))}, r"`item_count` must have shape \(6,\); got shape \(6, 1\)"),
        (changed(), {"item_count": np.ones(5)}, r"`item_count` must have shape \(6,\); got shape \(5,\)"),
        (changed(), {"item_count": [[1]] * 5 + [[1, 2]]}, r"`item_count` must have shape \(6,\); got \[\[1\], "),
        (changed(), {"item_count": ["a"] * 6}, "`item_count` must hold numbers"),
        (changed(), {"item_count": np.ones(6) / 2}, "`item_count` must count events .*; got 0.5 for item 1, .*power"),
        (changed(), {"item_count": -np.ones(6)}, "`item_count` must be finite and not negative; got -1"),
        (changed(), {"item_count": np.full(6, np.nan)}, "`item_count` must be finite"),
        (changed(), {"item_count": X.item_counts() + 1}, "got 4 for item 1, which is in 3. Give .* before smoothing"),
    ],
)
def test_refusals(parts, options, message):
    with pytest.raises(ValueError, match=message):
        find_leaks(parts, **{"interactions": X, **options})


def test_leave_last_out_of_real_data_has_no_serious_leak():
    folder = os.environ.get("DEEPMATCH_EXT_DATA")
    if not folder or not (Path(folder) / "ml-1m").is_dir():
        pytest.skip("needs the folder of MovieLens 1M in DEEPMATCH_EXT_DATA")
    x = read_dataset(Path(folder) / "ml-1m").interactions
    split = leave_last_out(x)
    parts = {"train": split.train_targets(), "validation": split.validation, "test": split.test}
    inputs = {name: windows(x, rows, 50) for name, rows in parts.items()}
    assert find_leaks(inputs, x, item_count=x.item_counts(split.train)).serious == ()


# Kinds of events: user 1 sees 1, 2 and 3, and buys 1, 2 and 3 after that, 3 at the moment at which 3 is seen again.
KINDS = pd.DataFrame(
    [(1, 1, 10, "see"), (1, 1, 15, "buy"), (1, 2, 20, "see"), (1, 2, 25, "buy"), (1, 3, 30, "see")]
    + [(1, 3, 40, "see"), (1, 3, 40, "buy"), (1, 1, 50, "see"), (2, 2, 5, "see"), (2, 2, 6, "buy")],
    columns=["user_id", "item_id", "timestamp", "kind"],
)
XK = Interactions.from_frame(KINDS, kind="kind", targets="buy")


def inputs_of_kinds(split, max_len=4):
    x = split.interactions
    rows = {"train": split.train, "validation": split.validation, "test": split.test}
    return {name: {**windows(x, of, max_len), "time": x.times[of]} for name, of in rows.items()}


@pytest.mark.parametrize("mode", ["split", *MODES])
def test_kinds_that_are_cut_rightly_have_none(mode):
    split = leave_last_out(XK)
    assert [split.train.tolist(), split.validation.tolist(), split.test.tolist()] == [[1, 9], [3], [6]]
    counts = XK.item_counts(split.train)
    if mode == "split":
        report = find_leaks(split, item_count=counts)
    else:
        report = find_leaks(inputs_of_kinds(split), XK, item_count=counts, **MODES[mode])
    assert found(report) == {("new_items", "test", "train"): (1, 1)}  # 3 is seen, but not in train's histories


@pytest.mark.parametrize("mode", MODES)
def test_leaks_across_kinds_are_found(mode):
    split = leave_last_out(XK)

    def report(part, name, row, values, **options):
        inputs = inputs_of_kinds(split)
        inputs[part][name][row] = values
        del inputs[part]["hist_len_see"], inputs[part]["hist_len_buy"]
        return found(find_leaks(inputs, XK, **MODES[mode], **options), "leak", "possible")

    # Train's first target is 1, bought at 15. 1 is seen before and, at 50, after that.
    assert report("train", "hist_item_id_see", 0, [1, 0, 0, 0]) == {}
    assert report("train", "hist_item_id_see", 0, [1, 1, 0, 0]) == {("future_in_history", "train", "train"): (1, 2)}
    assert report("train", "hist_item_id_see", 0, [2, 1, 0, 0]) == {("future_in_history", "train", "train"): (1, 2)}
    # It is in what it buys itself, and so is what is bought later, of validation and of test.
    assert report("train", "hist_item_id_buy", 0, [1, 0, 0, 0]) == {("target_in_history", "train", "train"): (1, 2)}
    assert report("train", "hist_item_id_buy", 0, [3, 2, 0, 0]) == {
        ("future_in_history", "train", "train"): (1, 2),
        ("held_out_in_history", "validation", "train"): (1, 1),
        ("held_out_in_history", "test", "train"): (1, 1),
    }
    # User 2 has seen and bought 2 alone. What was only seen was not bought.
    assert report("train", "hist_item_id_see", 1, [2, 1, 0, 0]) == {
        ("strange_item_in_history", "train", "train"): (1, 2)
    }
    assert report("validation", "hist_item_id_buy", 0, [3, 1, 0, 0]) == {
        ("future_in_history", "validation", "validation"): (1, 1),
        ("held_out_in_history", "test", "validation"): (1, 1),
    }
    # 3 is bought at 40, and seen at 30 and at that moment: the second time may be the purchase itself.
    assert report("test", "hist_item_id_see", 0, [3, 2, 1, 0]) == {}
    assert report("test", "hist_item_id_see", 0, [3, 3, 2, 1]) == {
        ("same_moment_of_another_kind", "test", "test"): (1, 1)
    }
    assert report("test", "hist_item_id_see", 0, [1, 3, 2, 1]) == {("future_in_history", "test", "test"): (1, 1)}


def test_held_out_targets_of_each_kind_are_found_in_a_split():
    # All rows are targets. The purchase in row 1 and the view in row 2 are test, before row 3 of train.
    x = Interactions.from_frame(KINDS, kind="kind", targets=["see", "buy"])
    assert XK.kinds.ids.decode(x.kinds.values[:4]).tolist() == ["see", "buy", "see", "buy"]
    for test in ([1], [2], [1, 2]):
        report = find_leaks(Split(x, train=[0, 3], validation=[], test=test))
        assert found(report, "leak") == {("held_out_in_history", "test", "train"): (len(test), len(test))}
    assert find_leaks(Split(x, train=[0, 1], validation=[], test=[2, 3])).serious == ()


def test_held_out_purchases_in_counts_may_be_clicks():
    split = leave_last_out(XK)
    counts = XK.item_counts(np.flatnonzero(XK.is_target))
    assert counts.tolist() == [0, 1, 2, 1]
    report = find_leaks(split, item_count=counts)
    assert found(report, "leak", "possible") == {("held_out_in_counts", "validation and test", "train"): (2, 2)}
    assert report.serious == ()
    assert found(find_leaks(split, item_count=XK.item_counts()), "leak") == {
        ("held_out_in_counts", "validation and test", "train"): (2, 2)
    }


def test_a_model_may_read_the_history_of_one_kind():
    inputs = inputs_of_kinds(leave_last_out(XK))
    for part in inputs.values():
        del part["hist_item_id_see"], part["hist_len_see"]
    assert find_leaks(inputs, XK).serious == ()
    del inputs["train"]["hist_item_id_buy"]
    with pytest.raises(ValueError, match="column 'hist_item_id_buy' must be in the input of train"):
        find_leaks(inputs, XK)
    inputs = inputs_of_kinds(leave_last_out(XK))
    inputs["test"]["hist_len_see"][:] = 1
    with pytest.raises(
        ValueError, match="column 'hist_item_id_see' of test must have no more ids in a row than 'hist_len"
    ):
        find_leaks(inputs, XK)
    inputs = inputs_of_kinds(leave_last_out(XK))
    inputs["train"]["item_id"][0] = 3  # seen, and bought later
    inputs["train"]["time"][0] = 30
    with pytest.raises(
        ValueError, match="must be events of the interactions of the kinds that are to be predicted; got 1"
    ):
        find_leaks(inputs, XK, time="time")


event_of_kind = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(0, 6), st.sampled_from("abc"))


@settings(max_examples=40)
@given(st.lists(event_of_kind, min_size=4, max_size=20), st.booleans(), st.sampled_from([2, 30]))
def test_own_windows_of_kinds_never_leak(rows, has_times, max_len):
    frame = pd.DataFrame(rows, columns=KINDS.columns)
    targets = sorted(set(frame["kind"]))[:2]
    x = Interactions.from_frame(frame, time="timestamp" if has_times else None, kind="kind", targets=targets)
    try:
        split = leave_last_out(x)
    except ValueError:
        return
    rows = {"train": split.train, "validation": split.validation, "test": split.test}
    inputs = {name: windows(x, of, max_len) for name, of in rows.items()}
    of_time = {}
    if has_times:
        inputs = {name: {**part, "time": x.times[rows[name]]} for name, part in inputs.items()}
        of_time = {"time": "time"}
    # An event twice in the source is told of, and so it should be.
    for report in (find_leaks(split), find_leaks(inputs, x, **of_time)):
        assert {leak.kind for leak in report.leaks if leak.severity != "note"} <= {"duplicate_target"}
