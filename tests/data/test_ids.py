"""Id maps: round trips, the fate of unknown values, and what is refused."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmatch_ext.data import IdMap
from deepmatch_ext.retrieval import top_n

pytestmark = [pytest.mark.plain, pytest.mark.smoke]

# No NUL in the strings: pandas 2.1 takes "a" and "a\\0" for one value.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
raw_ids = st.lists(st.integers(-(2**62), 2**62), min_size=1, unique=True) | st.lists(texts, min_size=1, unique=True)


def test_ids_follow_the_order_of_the_values():
    ids = IdMap([30, 10, 20])
    assert ids.values.tolist() == [30, 10, 20]
    assert ids.encode([10, 20, 30]).tolist() == [2, 3, 1]  # 30 is first, so it has id 1
    assert ids.vocabulary_size == 4  # three values and padding
    assert len(ids) == 3


def test_from_values_sorts_and_takes_repeats():
    assert IdMap.from_values([30, 10, 30, 20]).values.tolist() == [10, 20, 30]
    # By text, "10" comes before "9".
    assert IdMap.from_values(["b", "9", "10", "b"]).values.tolist() == ["10", "9", "b"]


@settings(max_examples=50, deadline=None)
@given(raw_ids)
def test_round_trip(values):
    ids = IdMap(values)
    encoded = ids.encode(values)
    assert encoded.dtype == np.int32
    assert encoded.tolist() == list(range(1, len(values) + 1))
    assert ids.decode(encoded).tolist() == values
    assert all(value in ids for value in values)


@settings(max_examples=50, deadline=None)
@given(raw_ids)
def test_from_values_is_the_sorted_map(values):
    assert IdMap.from_values([*values, *values]) == IdMap(sorted(values))


@pytest.mark.parametrize(
    "values",
    [
        np.array([5, 3], np.uint8),
        np.array([5.0, 3.0]),
        pd.Series([5, 3], dtype="Int64"),
        pd.Series([5, 3]).astype("category"),
        (5, 3),
        range(5, 1, -2),
        {5: "a", 3: "b"}.keys(),
        np.array([5, 3], dtype=object),
        [np.int64(5), np.int32(3)],
    ],
)
def test_integers_come_in_many_forms(values):
    ids = IdMap(values)
    assert ids == IdMap([5, 3])
    assert ids.values.dtype == np.int64
    assert ids.encode(values).tolist() == [1, 2]


@pytest.mark.parametrize(
    "values", [np.array(["x", "y"]), pd.Series(["x", "y"]), pd.Series(["x", "y"]).astype("category"), ("x", "y")]
)
def test_strings_come_in_many_forms(values):
    ids = IdMap(values)
    assert ids == IdMap(["x", "y"])
    assert ids.encode(values).tolist() == [1, 2]
    assert all(type(value) is str for value in ids.values)


def test_unknown_and_missing_values_are_padding():
    assert IdMap(["a", "b"]).encode(["b", "z", None, np.nan]).tolist() == [2, 0, 0, 0]
    assert IdMap([1, 2]).encode(np.array([2, np.nan, 7])).tolist() == [2, 0, 0]
    assert IdMap([1, 2]).encode(pd.array([2, None], dtype="Int64")).tolist() == [2, 0]
    large = 2**53 + 1
    assert IdMap([large - 1, large]).encode(pd.array([large, None], dtype="Int64")).tolist() == [2, 0]
    assert IdMap(["a"]).encode([]).tolist() == []
    assert IdMap([1]).encode(pd.Series([], dtype=object)).tolist() == []


def test_unknown_values_are_named_where_they_are_an_error():
    message = r"`values` must all be known to the id map; got unknown 10, 11, 12, 13, 14 and 2 more\."
    with pytest.raises(ValueError, match=message):
        IdMap([1]).encode([1, *range(10, 17), 10], unknown="error")
    with pytest.raises(ValueError, match="unknown None"):
        IdMap(["a"]).encode(["a", None], unknown="error")


def test_any_shape():
    ids = IdMap(["a", "b", "c"])
    assert ids.encode([["a", "x"], ["c", "b"]]).tolist() == [[1, 0], [3, 2]]
    assert ids.decode(np.array([[1, 3]])).tolist() == [["a", "c"]]
    assert ids.decode(np.zeros((0, 3), int)).shape == (0, 3)
    assert int(ids.encode("b")) == 2


@pytest.mark.parametrize("unfit", [[4, 0], [-1]])
def test_decode_refuses_ids_outside_the_map(unfit):
    with pytest.raises(ValueError, match=rf"`ids` must lie in 0\.\.3; got {unfit[0]}\."):
        IdMap([7, 8, 9]).decode(unfit)


@pytest.mark.parametrize(
    ("values", "empty"),
    [
        (["tea", "milk"], ""),
        ([7, 8], 0),
        ([0, 1, 2], -1),
        ([-2, 0, -1, 5], -3),
        ([-1, 3], 0),
    ],
)
def test_id_0_decodes_to_what_no_item_is_called(values, empty):
    ids = IdMap(values)
    assert ids.no_item == empty
    for dtype in (np.int64, np.int32, np.uint8, np.uint64):
        decoded = ids.decode(np.array([[2, 0], [0, 1]], dtype))
        assert decoded.tolist() == [[values[1], empty], [empty, values[0]]]
        assert decoded.dtype == ids.values.dtype
    assert ids.encode(decoded).tolist() == [[2, 0], [0, 1]]
    assert ids.values.tolist() == values
    assert ids.decode(0) == empty
    assert ids.decode(1) == values[0]


def test_a_map_with_an_empty_string_decodes_whatever_is_an_item():
    ids = IdMap(["", "a"])
    assert ids.decode([2, 1]).tolist() == ["a", ""]
    with pytest.raises(ValueError, match="raw values must hold no empty string, which stands where there is no"):
        ids.decode([2, 0])


def test_short_lists_of_top_n_decode():
    ids, scores = top_n(np.ones((2, 1)), np.array([[0.0], [1.0], [2.0]]), 2, exclude=(np.array([0, 1, 1]), [2]))
    assert IdMap(["tea", "milk"]).decode(ids).tolist() == [["tea", ""], ["milk", "tea"]]
    assert IdMap([0, 5]).decode(ids).tolist() == [[0, -1], [5, 0]]
    assert np.isneginf(scores).tolist() == [[False, True], [False, False]]


def test_decode_refuses_floats():
    with pytest.raises(ValueError, match="`ids` must be integers; got dtype float64"):
        IdMap([7]).decode([1.0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "at least one raw id"),
        ([1, 2, 1], "`values` must be unique; got 1. IdMap.from_values"),
        (["a", None], "no missing value; got 1 missing of 2"),
        ([1.0, float("nan")], "no missing value"),
        (["a", 1], "all integers or all strings; got mixed-integer"),
        ([True, False], "all integers or all strings; got boolean"),
        (np.array([True]), "got dtype bool"),
        ([b"a"], "got bytes"),
        ([1.5, 2.0], "whole numbers or strings; got 1.5"),
        ([float("inf")], "64-bit"),
        ([2.0**53 + 2], "at most 9007199254740992 as float64, which cannot tell larger ones apart; got 90071992547409"),
        (np.float32([2**24, 2**24 + 2]), "at most 16777216 as float32.*; got 16777218.* Read them as integers"),
        (np.float16([2050]), "at most 2048 as float16"),
        ([2**63], "64-bit integers; got a number past .* Pass such ids as strings"),
        ([1, 2**63], "64-bit integers; got a number past"),
        ([2**70], "all integers or all strings|64-bit"),
        (np.array([2**63], np.uint64), "64-bit"),
        ([[1, 2]], "list of at least one"),
        ([[1, 2], [3]], "all integers or all strings; got mixed"),
        (5, "list of at least one"),
    ],
)
def test_refusals(values, message):
    with pytest.raises(ValueError, match=message):
        IdMap(values)


def test_kinds_do_not_mix():
    # "1" silently unknown to a map of integers would turn every user into padding.
    with pytest.raises(ValueError, match="`values` must be integers, as the known ids are; got strings, '1'"):
        IdMap([1, 2]).encode(["1"])
    with pytest.raises(ValueError, match="`values` must be strings"):
        IdMap(["1"]).encode([1])
    with pytest.raises(ValueError, match=r"`unknown` must be one of 'padding', 'error'; got '?drop"):
        IdMap([1]).encode([1], unknown="drop")


@pytest.mark.parametrize("raw", [np.array([3, 1]), np.array(["b", "a"], dtype=object)])
def test_a_map_never_changes(raw):
    before = raw.tolist()
    ids = IdMap(raw)
    raw[0] = raw[1]
    assert ids.values.tolist() == before
    assert raw.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        ids.values[0] = 5
    with pytest.raises(AttributeError):
        ids.values = np.array([1])


def test_equality_membership_and_pickle():
    ids = IdMap([1, 2])
    assert ids == IdMap([1, 2])
    assert hash(ids) == hash(IdMap([1, 2]))
    assert ids != IdMap([2, 1])
    assert ids != IdMap(["1", "2"])
    assert ids != [1, 2]
    assert 1 in ids
    assert 3 not in ids
    assert "1" not in ids
    assert True not in ids
    assert pickle.loads(pickle.dumps(ids)) == ids
    assert repr(IdMap(range(1, 8))) == "IdMap(1, 2, 3, 4, 5 and 2 more)"
