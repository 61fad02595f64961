"""What becomes of a frame's columns, by their types."""

import numpy as np
import pandas as pd
import pytest
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.data import IdMap
from deepmatch_ext.features import read_columns
from deepmatch_ext.recommender.features import FeatureTable


def table(frame, *columns):
    return FeatureTable.from_frame(
        "`item_features`", frame, "sku", {c.name: c for c in read_columns("columns", columns)}
    )


FRAME = pd.DataFrame(
    {
        "sku": ["a", "b", "c", "d"],
        "colour": ["red", None, "blue", "red"],
        "price": [1.5, 3.0, np.nan, 4.5],
        "stock": [3, 3, 7, 9],
        "on_sale": [True, False, False, True],
        "tags": [["x", "y"], [], ["y"], ["z", "x", "y"]],
        "since": pd.to_datetime(["2026-01-01"] * 4),
        "same": 1,
    }
)


def test_types_say_how_columns_are_read():
    made, lines = table(FRAME)
    values = made.by_id(IdMap(["d", "new", "b"]))
    assert values["colour"].tolist() == [0, 2, 0, 0]  # id 0, d, an item of which nothing is known, b's missing value
    assert values["stock"].tolist() == [0, 3, 0, 1]
    assert values["on_sale"].tolist() == [0, 2, 0, 1]
    assert values["tags"].tolist() == [[0, 0, 0], [3, 1, 2], [0, 0, 0], [0, 0, 0]]
    deviation = np.std([1.5, 3, 4.5])
    np.testing.assert_allclose(values["price"], [0, 1.5 / deviation, 0, 0], rtol=1e-6)
    said = dict(line.split(": ", 1) for line in lines)
    assert said["since"].startswith("left out: moments")
    assert said["same"] == "left out: the same value everywhere"
    assert said["price"].endswith("1 missing, which count as the mean")
    assert said["colour"] == 'SparseFeat("colour", 3, 8), 2 categories; 1 missing'
    assert [column.name for column in made.columns()] == ["colour", "price", "stock", "on_sale", "tags"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([k % 50 for k in range(200)], "category"),  # codes
        ([k % 51 for k in range(200)], "number"),
        ([*range(800), None], "number"),  # a price in cents; integers with a gap are floats in pandas
        ([1, 2, None], "category"),
        (pd.array([1, 2, None], "Int64"), "category"),
        (pd.array([*range(60), None], "Int64"), "number"),
        (np.arange(60, dtype=np.uint8), "number"),
        ([1.0, 2.5, 1.0], "number"),
        ([1.0, 2.0, 1.0] * 2, "number"),
        ([True, None, False], "category"),
        (pd.Categorical(np.arange(200) % 120), "category"),
        (pd.Categorical([f"title {k}" for k in range(60)]), "category"),
        ([[k] for k in range(60)], "list"),
    ],
)
def test_whole_numbers_are_codes_where_there_are_few(values, kind):
    made, lines = table(pd.DataFrame({"sku": range(len(values)), "x": values}))
    assert [each.kind for each in made.features] == [kind], lines
    is_whole = kind == "number" and len(values) > 3
    assert lines[0].endswith('different whole numbers: if they are codes, make them .astype("category")') == is_whole


def test_an_arrow_dictionary_says_that_its_values_are_categories():
    arrow = pytest.importorskip("pyarrow")
    codes = arrow.array(range(100)).dictionary_encode()
    made, _ = table(arrow.table({"sku": range(100), "x": codes}))
    assert made.features[0].kind == "category"


def test_a_column_that_is_given_says_whether_whole_numbers_are_codes():
    frame = pd.DataFrame({"sku": range(100), "few": np.arange(100) % 3, "many": range(100)})
    made, lines = table(frame, DenseFeat("few", 1), SparseFeat("many", 101, 8))
    assert [each.kind for each in made.features] == ["number", "category"]
    assert lines == ['few: DenseFeat("few"), a number, standardised', "many: 100 categories, as it was given"]


def test_texts_of_which_most_are_different_are_left_out():
    frame = pd.DataFrame({"sku": range(50), "title": [f"book {k}" for k in range(50)]})
    made, lines = table(frame)
    assert not made.features
    assert lines == ["title: left out: 50 different texts in 50 rows"]


def test_columns_that_are_given_win():
    colour, stock = SparseFeat("colour", 100, 4), DenseFeat("stock", 1)
    tags = VarLenSparseFeat(SparseFeat("tags", 50, 4), 2, "max")
    made, _ = table(FRAME, colour, stock, tags)
    columns = {column.name: column for column in made.columns()}
    assert (columns["colour"].vocabulary_size, columns["colour"].embedding_dim) == (100, 4)
    assert columns["tags"].combiner == "max"
    values = made.by_id(IdMap(["d"]))
    assert values["stock"].dtype == np.float32
    assert values["tags"].shape == (2, 2)
    with pytest.raises(ValueError, match="'colour' must be given without hashing"):
        table(FRAME, SparseFeat("colour", 100, 4, use_hash=True, dtype="string"))


def test_a_frame_of_later_replaces_rows_and_brings_new_categories():
    made, _ = table(FRAME)
    later = FRAME.iloc[[1, 2]].assign(sku=["b", "e"], colour=["green", "red"], tags=[["w"], ["x"]])
    grown = made.extended("`item_features`", later, "sku")
    values = grown.by_id(IdMap(["a", "b", "e"]))
    assert values["colour"].tolist() == [0, 2, 3, 2]
    assert values["tags"][:, 0].tolist() == [0, 1, 4, 1]
    assert grown.sizes()["colour"] == 4
    assert grown.columns()[0].vocabulary_size == 4
    assert made.by_id(IdMap(["b"]))["colour"].tolist() == [0, 0]  # as it was
    assert made.extended("`item_features`", None, "sku") is made


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (FRAME.drop(columns="sku"), "column 'sku' must be in `item_features`"),
        (pd.concat([FRAME, FRAME]), "column 'sku' of `item_features` must have each id once"),
        ([1, 2], "`item_features` must be a pandas or polars DataFrame"),
        (FRAME.assign(colour=["red", 3, "blue", "red"]), "feature 'colour' must be all integers or all strings"),
    ],
)
def test_frames_that_cannot_be_are_refused(frame, words):
    with pytest.raises(ValueError, match=words):
        table(frame)


@given(st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "c"])), min_size=2, max_size=12))
def test_categories_are_what_they_were(values):
    made, lines = table(pd.DataFrame({"sku": range(len(values)), "colour": pd.Series(values, dtype=object)}))
    present = {value for value in values if value is not None}
    if len(present) < 2:
        assert lines == ["colour: left out: the same value everywhere"]
        return
    encoded = made.by_id(IdMap(range(len(values))))["colour"][1:]
    names = [None, *sorted(present)]
    assert [names[k] for k in encoded] == values
