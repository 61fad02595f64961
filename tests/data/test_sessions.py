"""Sessions: histories that end where the session began, splits of whole sessions, items that are recommended again."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.data import (
    Interactions,
    find_leaks,
    leave_last_out,
    seen_before,
    seen_by_users,
    split_by_time,
    synthetic_sessions,
    user_histories,
    window_dataset,
    windows,
)
from deepmatch_ext.evaluation import Markov

pytestmark = pytest.mark.plain


@st.composite
def session_events(draw):
    """Events in any order: users share names of sessions, and sessions of one user overlap in time."""
    event = st.tuples(st.integers(1, 3), st.sampled_from("ab"), st.integers(1, 5), st.integers(0, 9))
    events = draw(st.lists(event, min_size=1, max_size=25))
    return pd.DataFrame(events, columns=["user_id", "session", "item_id", "timestamp"])


def slow_sessions(frame, with_users=True):
    """(user, session) -> [(time, place in the frame, item)], sorted."""
    sessions = {}
    for place, (user, session, item, time) in enumerate(frame.itertuples(index=False)):
        sessions.setdefault((user if with_users else None, session), []).append((time, place, item))
    return {key: sorted(events) for key, events in sessions.items()}


def lists(seen):
    return [seen[1][start:stop].tolist() for start, stop in zip(seen[0][:-1], seen[0][1:], strict=True)]


@pytest.mark.slow
@pytest.mark.once
@given(session_events(), st.integers(1, 6))
def test_windows_against_a_slow_loop(frame, max_len):
    before = frame.copy()
    x = Interactions.from_frame(frame, session="session")
    pd.testing.assert_frame_equal(frame, before)
    sessions = slow_sessions(frame)
    cases = sorted(
        (user, item, [i for _, _, i in events[:k]][::-1][:max_len])
        for (user, _), events in sessions.items()
        for k, (_, _, item) in enumerate(events)
    )
    rows = np.arange(len(x))
    cut = windows(x, rows, max_len)
    users, items = x.user_ids.decode(cut["user_id"]).tolist(), x.item_ids.decode(cut["item_id"]).tolist()
    histories = [x.item_ids.decode(h[:n]).tolist() for h, n in zip(cut["hist_item_id"], cut["hist_len"], strict=True)]
    assert sorted(zip(users, items, histories, strict=True)) == cases
    assert len(np.unique(x.sessions)) == len(sessions)
    (batch,) = window_dataset(x, rows, max_len, len(x), shuffle=False)
    for name, values in cut.items():
        np.testing.assert_array_equal(batch[name], values)
    # A user now is in the session that ends last.
    now = user_histories(x, np.arange(x.user_vocabulary_size), max_len)
    assert now["hist_len"][0] == 0
    for user in range(1, x.user_vocabulary_size):
        raw = x.user_ids.decode([user])[0]
        last = max((events for key, events in sessions.items() if key[0] == raw), key=lambda events: events[-1][:2])
        expected = [item for _, _, item in last][::-1][:max_len]
        assert x.item_ids.decode(now["hist_item_id"][user][: now["hist_len"][user]]).tolist() == expected
    # Nothing is left out of a ranking.
    assert lists(seen_before(x, rows)) == [[]] * len(x)
    assert lists(seen_by_users(x, [0, 1])) == [[], []]


@given(session_events(), st.integers(1, 8))
def test_a_split_keeps_sessions_whole(frame, start):
    x = Interactions.from_frame(frame, session="session")
    sessions = slow_sessions(frame)
    ends = [events[-1][0] for events in sessions.values()]
    try:
        split = split_by_time(x, start, start + 1)
    except ValueError:
        assert min(ends) >= start or max(ends) < start + 1
        return
    assert x.times[split.train].max() < start  # training knows nothing of what came later
    expected = {"train": 0, "validation": 0, "test": 0}
    for events in sessions.values():
        part = "train" if events[-1][0] < start else "validation" if events[-1][0] < start + 1 else "test"
        expected[part] += len(events) - (part != "train")
    assert {name: len(getattr(split, name)) for name in expected} == expected
    for name in ("validation", "test"):
        assert (windows(x, getattr(split, name), 3)["hist_len"] > 0).all()
    assert set(x.sessions[split.train]).isdisjoint(x.sessions[np.concatenate([split.validation, split.test])])


@given(session_events())
def test_nobody_knows_whose_the_sessions_are(frame):
    x = Interactions.from_frame(frame, user=None, session="session")
    sessions = slow_sessions(frame, with_users=False)
    assert x.user_name == "session"
    assert x.num_users == len(sessions)
    assert x.user_ids.decode(x.users[x.position == 0]).tolist() == sorted(key for _, key in sessions)
    for user, name in enumerate(x.user_ids.values, start=1):
        items = x.item_ids.decode(x.items[x.users == user]).tolist()
        assert items == [item for _, _, item in sessions[None, name]]


def test_sequences_are_sessions():
    x = Interactions.from_sequences([0, 3, 3, 5], [7, 8, 7, 8, 7], sessions=True)
    assert x.sessions.tolist() == [1, 1, 1, 3, 3]
    assert windows(x, [2, 4], 3)["hist_item_id"].tolist() == [[8, 7, 0], [8, 0, 0]]
    assert user_histories(x, [0, 1, 2, 3], 3)["hist_len"].tolist() == [0, 3, 0, 2]
    assert lists(seen_before(x, [2, 4])) == [[], []]
    same = pickle.loads(pickle.dumps(x))
    assert same.sessions.tolist() == x.sessions.tolist()


def test_markov_counts_no_pair_across_sessions():
    frame = pd.DataFrame({"user_id": [1] * 4, "s": [1, 1, 2, 2], "item_id": [1, 2, 3, 1], "timestamp": range(4)})
    x = Interactions.from_frame(frame, session="s")
    scores = Markov.from_interactions(x, np.arange(4)).score(np.array([1, 2, 3])).round(3)
    assert scores[:, 1:].tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]  # 2 -> 3 is no pair


def test_what_is_refused():
    frame = pd.DataFrame({"user_id": [1, 1], "s": [1, 1], "item_id": [1, 2], "timestamp": [1, 2]})
    x = Interactions.from_frame(frame, session="s")
    with pytest.raises(ValueError, match=r"`interactions` must have no sessions; got sessions. split_by_time\(\)"):
        leave_last_out(x)
    with pytest.raises(ValueError, match="`user` must name a column if there are no sessions"):
        Interactions.from_frame(frame, user=None)
    with pytest.raises(ValueError, match="column 'nowhere' must be in the frame"):
        Interactions.from_frame(frame, session="nowhere")
    with pytest.raises(ValueError, match="column 's' must"):
        Interactions.from_frame(frame.assign(s=[1.5, None]), session="s")
    of_two_users = {"users": [1, 2], "items": [1, 1], "times": None, "side": {}, "item_ids": x.item_ids}
    user_ids = Interactions.from_sequences([0, 1, 2], [1, 1]).user_ids
    with pytest.raises(ValueError, match="`sessions` must be sorted, and each be of one user"):
        Interactions(**of_two_users, user_ids=user_ids, sessions=[1, 1])
    with pytest.raises(ValueError, match=r"column 'sessions' must have one value a row, shape \(2,\)"):
        Interactions(**of_two_users, user_ids=user_ids, sessions=[1])


def test_repeats_are_no_finding():
    x = synthetic_sessions(200, 20)
    middle = x.times[x.position == 0][100]
    report = find_leaks(split_by_time(x, middle, middle + 3600))
    assert not {"repeated_targets", "target_in_history"} & {leak.kind for leak in report.leaks}
