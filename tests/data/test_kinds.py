"""Kinds of events: a history for each, strictly before the target; what is predicted, split, seen and counted."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmatch_ext.data import (
    IdMap,
    Interactions,
    Kinds,
    Split,
    leave_last_out,
    seen_before,
    seen_by_users,
    split_by_time,
    user_histories,
    window_dataset,
    windows,
)
from deepmatch_ext.evaluation import Markov

pytestmark = pytest.mark.plain

COLUMNS = ["user_id", "item_id", "timestamp", "event", "session"]


@st.composite
def kind_events(draw):
    """A frame of events in any order, with the kinds a, b and c, and how to read it."""
    event = st.tuples(
        st.integers(1, 3), st.integers(1, 5), st.integers(0, 5), st.sampled_from("abc"), st.integers(1, 2)
    )
    frame = pd.DataFrame(draw(st.lists(event, min_size=1, max_size=15)), columns=COLUMNS)
    frame["place"] = np.arange(len(frame))
    there = sorted(set(frame["event"]))
    targets = draw(st.lists(st.sampled_from(there), min_size=1, unique=True))
    has_times, has_sessions = draw(st.booleans()), draw(st.booleans())
    reading = {"time": "timestamp" if has_times else None, "session": "session" if has_sessions else None}
    return frame, {"kind": "event", "targets": targets, "side": ["place"], **reading}


def slow_history(frame, reading, place, kind):
    """The places in the frame of one event's history of a kind, most recent first; ``place`` None: of user 1 now."""
    of_time = frame["place"] if reading["time"] is None else frame["timestamp"]
    found = []
    for other in range(len(frame)):
        if any(frame[name][other] != frame[name][place] for name in ["user_id", *filter(None, [reading["session"]])]):
            continue
        own_kind = frame["event"][place] == kind
        earlier = of_time[other] < of_time[place]
        tied = of_time[other] == of_time[place] and other < place
        if frame["event"][other] == kind and (earlier or (tied and own_kind)):
            found.append((of_time[other], other))
    return [other for _, other in sorted(found, reverse=True)]


@settings(max_examples=30)
@given(kind_events(), st.integers(1, 4), st.sampled_from(["recent_first", "oldest_first"]))
def test_against_a_slow_loop(case, max_len, order):
    frame, reading = case
    before = frame.copy()
    x = Interactions.from_frame(frame, **reading)
    pd.testing.assert_frame_equal(frame, before)
    kinds = sorted(set(frame["event"]))
    lengths = {kind: max_len + number for number, kind in enumerate(kinds)}
    rows = np.flatnonzero(x.is_target)
    assert sorted(x.side["place"][rows]) == [p for p in range(len(frame)) if frame["event"][p] in reading["targets"]]
    cut = windows(x, rows, lengths, order=order, side=["place"], context=["place"])
    of_kinds = [f"hist_{name}_{kind}" for kind in kinds for name in ("item_id", "len", "place")]
    assert list(cut) == ["user_id", "item_id", *of_kinds, "place"]
    for number, row in enumerate(rows):
        place = x.side["place"][row]
        assert cut["place"][number] == place
        assert x.item_ids.decode(cut["item_id"][[number]]) == frame["item_id"][place]
        assert x.user_ids.decode(cut["user_id"][[number]]) == frame["user_id"][place]
        total = 0
        for kind, length in lengths.items():
            every = slow_history(frame, reading, place, kind)
            total += len(every)
            expected = every[:length] if order == "recent_first" else every[:length][::-1]
            padding = [0] * (length - len(expected))
            assert cut[f"hist_len_{kind}"][number] == len(expected)
            assert cut[f"hist_place_{kind}"][number].tolist() == expected + padding
            items = x.item_ids.encode(frame["item_id"][expected]).tolist()
            assert cut[f"hist_item_id_{kind}"][number].tolist() == items + padding
        assert x.history_lengths[row] == total
    for array in cut.values():
        assert array.flags.writeable


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("order", ["recent_first", "oldest_first"])
def test_batches_equal_windows(order):
    draw = np.random.default_rng(0).integers
    columns = [draw(1, high, 80) for high in (5, 9, 12, 4)]
    frame = pd.DataFrame(dict(zip(COLUMNS, columns, strict=False))).assign(place=np.arange(80))
    x = Interactions.from_frame(frame, kind="event", targets=[1, 3], side=["place"])
    rows = np.flatnonzero(x.is_target)
    options = {"order": order, "side": ["place"], "context": ["event", "place"]}
    expected = windows(x, rows, {1: 3, 2: 9}, **options)
    (batch,) = window_dataset(x, rows, {1: 3, 2: 9}, len(rows), shuffle=False, **options)
    assert list(batch) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(batch[name].numpy(), values, strict=True)


@given(kind_events(), st.integers(1, 4))
def test_one_kind_is_none(case, max_len):
    frame, reading = case
    frame["event"] = "a"
    x = Interactions.from_frame(frame, **{**reading, "targets": "a"})
    plain = Interactions.from_frame(frame, **{**reading, "kind": None, "targets": None})
    rows = np.arange(len(x))
    expected = {
        name + "_a" if name.startswith("hist") else name: values
        for name, values in windows(plain, rows, max_len, side=["place"]).items()
    }
    for name, values in windows(x, rows, max_len, side=["place"]).items():
        np.testing.assert_array_equal(values, expected[name], strict=True)
    assert x.history_lengths.tolist() == plain.position.tolist()
    users = np.arange(x.user_vocabulary_size)
    for name, values in user_histories(x, users, max_len).items():
        np.testing.assert_array_equal(values, user_histories(plain, users, max_len)[name.removesuffix("_a")])
    for one, other in zip(seen_before(x, rows), seen_before(plain, rows), strict=True):
        assert one.tolist() == other.tolist()
    start, end = 1, 3
    for split in (leave_last_out, lambda x: split_by_time(x, start, end)):
        parts = []
        for interactions in (x, plain):
            try:
                made = split(interactions)
                parts.append([made.train.tolist(), made.validation.tolist(), made.test.tolist()])
            except ValueError as error:
                parts.append(str(error).replace(" that are to be predicted", ""))
        assert parts[0] == parts[1]


# What one customer did: a click and the purchase at one time, recorded by two systems.
SHOP = pd.DataFrame(
    [(1, 7, 10, "click"), (1, 8, 20, "click"), (1, 8, 20, "purchase"), (1, 9, 30, "click"), (1, 7, 40, "purchase")]
    + [(1, 9, 50, "purchase"), (1, 9, 50, "click"), (1, 7, 60, "click"), (2, 7, 5, "click")],
    columns=COLUMNS[:4],
)
X = Interactions.from_frame(SHOP, kind="event", targets="purchase")


def test_a_click_at_the_moment_of_the_purchase_is_not_in_its_history():
    assert X.items.tolist() == [1, 2, 2, 3, 1, 3, 3, 1, 1]  # items 7, 8, 9 have ids 1, 2, 3
    assert np.flatnonzero(X.is_target).tolist() == [2, 4, 5]
    cut = windows(X, [2, 4, 5], 4)
    assert cut["item_id"].tolist() == [2, 1, 3]
    assert cut["hist_item_id_click"].tolist() == [[1, 0, 0, 0], [3, 2, 1, 0], [3, 2, 1, 0]]
    assert cut["hist_len_click"].tolist() == [1, 3, 3]
    assert cut["hist_item_id_purchase"].tolist() == [[0, 0, 0, 0], [2, 0, 0, 0], [1, 2, 0, 0]]
    assert cut["hist_len_purchase"].tolist() == [0, 1, 2]
    # Nor does the order of the file matter, if only the tie is turned around.
    turned = Interactions.from_frame(SHOP.iloc[[0, 2, 1, *range(3, 9)]], kind="event", targets="purchase")
    assert turned.kinds.values.tolist()[1:3] == [2, 1]
    for name, values in windows(turned, np.flatnonzero(turned.is_target), 4).items():
        assert values.tolist() == cut[name].tolist()


def test_events_of_the_targets_kind_at_one_time_keep_the_order_of_the_file():
    basket = pd.DataFrame([(1, 7, 1, "click"), (1, 8, 2, "buy"), (1, 9, 2, "buy")], columns=COLUMNS[:4])
    x = Interactions.from_frame(basket, kind="event", targets="buy")
    assert windows(x, [1, 2], 2)["hist_item_id_buy"].tolist() == [[0, 0], [2, 0]]


def test_now():
    batch = user_histories(X, [1, 2, 0], {"click": 3, "purchase": 2})
    assert list(batch) == [
        *("user_id", "hist_item_id_click", "hist_len_click", "hist_item_id_purchase", "hist_len_purchase"),
    ]
    assert batch["hist_item_id_click"].tolist() == [[1, 3, 3], [1, 0, 0], [0, 0, 0]]
    assert batch["hist_item_id_purchase"].tolist() == [[3, 1], [0, 0], [0, 0]]
    assert batch["hist_len_purchase"].tolist() == [2, 0, 0]
    # A kind that is not named has no columns.
    assert list(user_histories(X, [1], {"purchase": 2})) == ["user_id", "hist_item_id_purchase", "hist_len_purchase"]


def test_splits_are_of_what_is_to_be_predicted():
    split = leave_last_out(X)
    assert [split.train.tolist(), split.validation.tolist(), split.test.tolist()] == [[2], [4], [5]]
    assert split.train_targets().tolist() == [2]  # a click came before it
    assert split.train_targets(2).tolist() == []
    by_time = split_by_time(X, 30, 45)
    assert [by_time.train.tolist(), by_time.validation.tolist(), by_time.test.tolist()] == [[2], [4], [5]]
    with pytest.raises(ValueError, match="`test_from` must leave rows to test on, so be at most 50; got 55"):
        split_by_time(X, 30, 55)  # a click at 60 is no target
    with pytest.raises(ValueError, match="have a user with at least 4 events that are to be predicted; got 3 events"):
        leave_last_out(X, 4)
    with pytest.raises(
        ValueError, match="`test` must be rows of the kinds that are to be predicted, 'purchase'; got 1"
    ):
        Split(X, train=[2], validation=[4], test=[6])
    assert X.item_counts(split.train).tolist() == [0, 0, 1, 0]


def test_markov_counts_what_was_bought_after_what():
    scores = Markov.from_interactions(X, [2, 4, 5]).score([1, 2, 3]).round(3)
    assert scores[:, 1:].tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]  # 2, 1, 3 were bought, with clicks between them


def test_what_was_bought_is_seen_and_what_was_clicked_is_not():
    indptr, items = seen_before(X, [5])
    assert (indptr.tolist(), items.tolist()) == ([0, 2], [2, 1])
    indptr, items = seen_by_users(X, [2, 1])
    assert (indptr.tolist(), items.tolist()) == ([0, 0, 3], [2, 1, 3])


def test_a_session_has_histories_of_its_own_kinds():
    frame = SHOP[:6].assign(session=[1, 1, 1, 2, 2, 2])
    x = Interactions.from_frame(frame, kind="event", targets="purchase", session="session")
    cut = windows(x, np.flatnonzero(x.is_target), 3)
    assert cut["hist_item_id_click"].tolist() == [[1, 0, 0], [3, 0, 0], [3, 0, 0]]
    assert cut["hist_item_id_purchase"].tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert user_histories(x, [1], 2)["hist_len_purchase"].tolist() == [2]
    assert seen_before(x, [5])[1].tolist() == []


def test_kinds_that_are_numbers_and_a_map_made_earlier():
    frame = SHOP.assign(event=SHOP["event"].map({"click": 1, "purchase": 4}))
    x = Interactions.from_frame(frame, kind="event", targets=[4])
    assert x.kinds.targets == (4,)
    assert "hist_item_id_4" in windows(x, [2], {4: 2})
    # A day without a purchase, for histories.
    clicks = frame[frame["event"] == 1]
    day = Interactions.from_frame(clicks, kind="event", targets=4, kind_ids=x.kinds.ids, item_ids=x.item_ids)
    now = user_histories(day, [1], 2)
    assert now["hist_item_id_1"].tolist() == [[1, 3]]
    assert now["hist_item_id_4"].tolist() == [[0, 0]]
    assert now["hist_len_4"].tolist() == [0]
    for split in (leave_last_out, lambda x: split_by_time(x, 10, 20)):
        with pytest.raises(ValueError, match="`interactions` must have "):
            split(day)
    with pytest.raises(ValueError, match="column 'event' must hold only known values; got unknown 4"):
        Interactions.from_frame(frame, kind="event", targets=1, kind_ids=IdMap([1]))


def test_copies_and_other_processes_get_the_same():
    for y in (copy.deepcopy(X), pickle.loads(pickle.dumps(X))):
        assert y.kinds.values.tolist() == X.kinds.values.tolist()
        assert (y.kinds.ids, y.kinds.targets, y.kinds.name) == (IdMap(["click", "purchase"]), ("purchase",), "event")
        assert not y.kinds.values.flags.writeable
        assert windows(y, [5], 2)["hist_item_id_click"].tolist() == [[3, 2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "event"}, "`kind` and `targets` must be given together, .* got 'event' and None"),
        ({"targets": "buy"}, "`kind` and `targets` must be given together"),
        ({"kind_ids": IdMap(["click"])}, "`kind_ids` only with them"),
        (
            {"kind": "event", "targets": "buy"},
            "`targets` must name kinds in column 'event', which are 'click', 'purchase'; got 'buy'",
        ),
        (
            {"kind": "event", "targets": []},
            "`targets` must be a kind that is to be predicted, or a list of them; got none",
        ),
        ({"kind": "event", "targets": [None]}, "`targets` must be a kind that is to be predicted"),
        ({"kind": "event", "targets": True}, "`targets` must be a kind that is to be predicted"),
        ({"kind": "event", "targets": ["click", "click"]}, "`targets` must not repeat a name; got 'click' twice"),
        ({"kind": "what", "targets": "click"}, "column 'what' must be in the frame"),
        ({"kind": "item_id", "targets": 7}, "must not repeat a name; got 'item_id' twice"),
    ],
)
def test_frames_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Interactions.from_frame(SHOP, **options)


def test_refusals():
    missing = SHOP.assign(event=[None, *SHOP["event"][1:]])
    with pytest.raises(ValueError, match="column 'event' must have no missing value; got 1 missing of 9"):
        Interactions.from_frame(missing, kind="event", targets="purchase")
    rule = "`rows` must be rows of the kinds that are to be predicted, 'purchase'; got 2 of other kinds, such as row 0 "
    for call in (windows, lambda x, rows, max_len: window_dataset(x, rows, max_len, 2)):
        with pytest.raises(ValueError, match=rule):
            call(X, [2, 0, 1], 3)
    with pytest.raises(ValueError, match="`rows` must be rows of the kinds"):
        seen_before(X, [0])
    with pytest.raises(ValueError, match="`max_len` must name kinds among 'click', 'purchase'; got 'view'"):
        windows(X, [2], {"view": 3})
    with pytest.raises(ValueError, match=r"`max_len`\['click'\] must be an integer of at least 1; got 0"):
        windows(X, [2], {"click": 0})
    with pytest.raises(ValueError, match="`max_len` must name at least one kind; got none"):
        windows(X, [2], {})
    plain = Interactions.from_frame(SHOP)
    with pytest.raises(ValueError, match="`max_len` must be one number where the interactions have no kinds"):
        windows(plain, [2], {"click": 3})
    with pytest.raises(ValueError, match="the kinds in column 'kind' must be between 1 and 1; got 2 at position 1"):
        Kinds([1, 2], IdMap(["click"]), "click")
    one = {"users": [1], "items": [1], "times": None, "side": {}, "user_ids": IdMap([1]), "item_ids": IdMap([1])}
    with pytest.raises(ValueError, match=r"column 'kind' must have one value a row, shape \(1,\); got shape \(2,\)"):
        Interactions(**one, kinds=Kinds([1, 1], IdMap(["click"]), "click"))
    with pytest.raises(ValueError, match="`kinds` must be of the class Kinds; got"):
        Interactions(**one, kinds=[1])
