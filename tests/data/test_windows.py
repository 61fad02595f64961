"""Windows: the history strictly before each target, against a slow loop."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmatch_ext.data import (
    Interactions,
    leave_last_out,
    read_dataset,
    seen_before,
    seen_by_users,
    user_histories,
    windows,
)
from tests.helpers import window_arguments

pytestmark = [pytest.mark.plain, pytest.mark.smoke]


def one_user(number, name="item_id"):
    return Interactions.from_sequences([0, number], np.arange(1, number + 1), item_name=name)


@pytest.mark.parametrize(
    ("earlier", "order", "expected"),
    [
        (5, "recent_first", [5, 4, 3, 2, 1, 0, 0, 0, 0, 0]),
        (12, "recent_first", [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]),
        (5, "oldest_first", [1, 2, 3, 4, 5, 0, 0, 0, 0, 0]),
        (12, "oldest_first", [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        (0, "recent_first", [0] * 10),
    ],
)
def test_the_history_of_the_documentation(earlier, order, expected):
    # Item k + 1 is in row k, so the row after items 1..k is row k.
    batch = windows(one_user(earlier + 2), [earlier], 10, order=order)
    assert batch["hist_item_id"].tolist() == [expected]
    assert batch["hist_len"].tolist() == [min(earlier, 10)]
    assert batch["item_id"].tolist() == [earlier + 1]
    assert batch["user_id"].tolist() == [1]


def slow_history(x, before, user, max_len, order, values):
    earlier = [values[row].item() for row in range(before) if x.users[row] == user]
    kept = earlier[-max_len:]
    if order == "recent_first":
        kept = kept[::-1]
    return kept + [0] * (max_len - len(kept)), len(kept), earlier


@settings(max_examples=150, deadline=None)
@given(window_arguments(), st.sampled_from([1, 7, 2**20]))
def test_against_a_slow_loop(case, block):
    x, rows, max_len, order = case
    with pytest.MonkeyPatch.context() as patch:
        # Blocks of one row and of a few: the seams must not show.
        patch.setitem(windows.__globals__, "_BLOCK_VALUES", block)
        batch = windows(x, rows, max_len, order=order, side=["rating", "day"])
    indptr, seen = seen_before(x, rows)
    assert list(batch) == ["user_id", "item_id", "hist_item_id", "hist_len", "hist_rating", "hist_day"]
    assert batch["hist_item_id"].shape == batch["hist_rating"].shape == (len(rows), max_len)
    assert [batch[name].dtype for name in ("user_id", "item_id", "hist_item_id", "hist_len")] == [np.int32] * 4
    assert (batch["hist_rating"].dtype, batch["hist_day"].dtype) == (np.float64, np.int16)
    for k, row in enumerate(rows):
        user = x.users[row]
        for name, values in [("item_id", x.items), ("rating", x.side["rating"]), ("day", x.side["day"])]:
            history, length, earlier = slow_history(x, row, user, max_len, order, values)
            assert batch[f"hist_{name}"][k].tolist() == history
            assert batch["hist_len"][k] == length
            if name == "item_id":
                assert seen[indptr[k] : indptr[k + 1]].tolist() == earlier
        assert batch["user_id"][k] == user
        assert batch["item_id"][k] == x.items[row]


@settings(max_examples=50, deadline=None)
@given(window_arguments())
def test_times_against_a_slow_loop(case):
    x, rows, max_len, order = case
    seconds = np.arange(len(x)) * 7 - 20
    for times in (seconds, seconds.astype("float64"), (seconds * 1000 + 999).astype("datetime64[ms]")):
        timed = replace(x, times=times)
        batch = windows(timed, rows, max_len, order=order, side=["day"], context=["liked"], times=True, weight="rating")
        names = ["user_id", "item_id", "hist_item_id", "hist_len", "hist_day", "hist_time", "time", "liked"]
        assert list(batch) == [*names, "sample_weight"]
        assert batch["time"].dtype == batch["hist_time"].dtype == np.int64
        assert batch["time"].tolist() == [seconds[row] for row in rows]
        for k, row in enumerate(rows):
            expected = slow_history(x, row, x.users[row], max_len, order, seconds)[0]
            assert batch["hist_time"][k].tolist() == expected
        for user, history in enumerate(user_histories(timed, x.user_ids.values, max_len, times=True)["hist_time"], 1):
            assert history.tolist() == slow_history(x, len(x), user, max_len, "recent_first", seconds)[0]


def test_times_of_kinds_of_events():
    columns = {"user_id": 1, "item_id": [7, 8, 7], "timestamp": [1, 2, 3], "event": ["see", "see", "buy"]}
    x = Interactions.from_frame(pd.DataFrame(columns), kind="event", targets=["buy"])
    batch = windows(x, [2], 2, times=True)
    assert (batch["hist_time_see"].tolist(), batch["hist_time_buy"].tolist()) == ([[2, 1]], [[0, 0]])
    assert batch["time"].tolist() == [3]


def test_times_that_are_not_there():
    with pytest.raises(ValueError, match="`interactions` must have times where `times=True`; got none"):
        windows(one_user(3), [1], 2, times=True)
    days = Interactions.from_sequences([0, 2], [1, 2], times=[0.5, 0.75])
    with pytest.raises(ValueError, match=r"must be whole numbers or datetimes .* got fractions, such as 0.5"):
        user_histories(days, [1], 2, times=True)
    with pytest.raises(ValueError, match="`times` must be True or False"):
        windows(days, [1], 2, times="yes")
    named = replace(one_user(3), times=np.arange(3), side={"time": np.arange(3)})
    with pytest.raises(ValueError, match="'hist_time'"):
        windows(named, [1], 2, side=["time"], times=True)
    with pytest.raises(ValueError, match="'time'"):
        windows(named, [1], 2, context=["time"], times=True)
    for large in (np.array([1, 2**63 + 5], "uint64"), np.array([0, 10**18])):
        with pytest.raises(ValueError, match=r"times must be at most 1e\+15 .* Count in a larger unit"):
            windows(replace(one_user(2), times=large), [1], 2, times=True)


@settings(max_examples=80, deadline=None)
@given(window_arguments(), st.data())
def test_histories_of_users_against_a_slow_loop(case, data):
    x, _, max_len, order = case
    users = data.draw(st.lists(st.integers(0, x.num_users), max_size=8))
    batch = user_histories(x, users, max_len, order=order, side=["day"])
    indptr, seen = seen_by_users(x, users)
    assert list(batch) == ["user_id", "hist_item_id", "hist_len", "hist_day"]
    assert batch["user_id"].tolist() == users
    for k, user in enumerate(users):
        history, length, earlier = slow_history(x, len(x), user, max_len, order, x.items)
        assert batch["hist_item_id"][k].tolist() == history
        assert batch["hist_day"][k].tolist() == slow_history(x, len(x), user, max_len, order, x.side["day"])[0]
        assert batch["hist_len"][k] == length
        assert seen[indptr[k] : indptr[k + 1]].tolist() == earlier


@settings(max_examples=50, deadline=None)
@given(window_arguments())
def test_nothing_at_or_after_the_target_gets_in(case):
    x, rows, max_len, order = case
    # The day column numbers all rows from 1, so that a row betrays itself.
    days = windows(x, rows, max_len, order=order, side=["day"])["hist_day"]
    assert (days <= np.array(rows, dtype=int)[:, None]).all()


def test_no_rows_no_users():
    x = one_user(3)
    assert windows(x, [], 4)["hist_item_id"].shape == (0, 4)
    assert user_histories(x, np.array([], int), 4)["hist_len"].shape == (0,)
    indptr, items = seen_before(x, [])
    assert (indptr.tolist(), items.tolist()) == ([0], [])


def test_columns_are_fresh_and_writable():
    x = one_user(5)
    batch = windows(x, [2, 4], 3)
    for column in batch.values():
        column[...] = 0
    assert x.items.tolist() == [1, 2, 3, 4, 5]


def test_the_names_of_the_interactions_are_used():
    x = Interactions.from_sequences([0, 2], [1, 2], user_name="reader", item_name="book")
    assert list(windows(x, [1], 2)) == ["reader", "book", "hist_book", "hist_len"]


def test_refusals():
    x = one_user(3)
    with pytest.raises(ValueError, match=r"`rows` must be between 0 and 2; got -1"):
        windows(x, [-1], 3)
    with pytest.raises(ValueError, match=r"`rows` must hold integers; got dtype bool\. np\.flatnonzero"):
        windows(x, np.array([True, False, True]), 3)
    with pytest.raises(ValueError, match="`max_len` must be an integer of at least 1; got 0"):
        windows(x, [1], 0)
    with pytest.raises(ValueError, match=r"`order` must be one of 'recent_first', 'oldest_first'; got '?newest"):
        windows(x, [1], 3, order="newest")
    with pytest.raises(ValueError, match=r"side column 'rating' must be a side column of the interactions; got \[\]"):
        windows(x, [1], 3, side=["rating"])
    with pytest.raises(ValueError, match=r"`user_ids` must be between 0 and 1; got 2"):
        user_histories(x, [2], 3)
    with pytest.raises(ValueError, match="`user_ids` must be between 0 and 1; got -1"):
        seen_by_users(x, [-1])
    with pytest.raises(ValueError, match="columns of the input must not repeat a name; got 'hist_len' twice"):
        windows(one_user(3, name="len"), [1], 3)


def test_windows_of_a_million_real_events():
    folder = os.environ.get("DEEPMATCH_EXT_DATA")
    if not folder or not (Path(folder) / "ml-1m").is_dir():
        pytest.skip("needs the folder of MovieLens 1M in DEEPMATCH_EXT_DATA")
    x = read_dataset(Path(folder) / "ml-1m").interactions
    rows = leave_last_out(x).train_targets()
    batch = windows(x, rows, 50)
    assert batch["hist_item_id"].shape == (len(rows), 50)
