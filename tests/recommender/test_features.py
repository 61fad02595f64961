"""What becomes of a frame's columns, by their types."""

import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.data import IdMap
from deepmatch_ext.features import read_columns
from deepmatch_ext.recommender.building import padded
from deepmatch_ext.recommender.features import Feature, FeatureTable


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
    assert said["since"].startswith("left out: datetimes")
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


def test_a_column_that_is_given_as_a_number_must_hold_numbers():
    frame = pd.DataFrame({"sku": range(3), "x": [True, False, True]})
    made, _ = table(frame, DenseFeat("x", 1))
    np.testing.assert_allclose(made.by_id(IdMap([0, 1]))["x"], [0, 2**-0.5, -(2**0.5)], rtol=1e-6)
    for values in (["1", "2", "N/A"], [*DATES, None], [1.5, True, 2]):
        with pytest.raises(ValueError, match=r"^feature 'x' must hold finite numbers; got"):
            table(frame.assign(x=values), DenseFeat("x", 1))


def test_a_number_with_a_transform_is_read_as_it_is():
    frame = pd.DataFrame({"sku": ["a", "b", "c"], "spent": [1.5, 4.5, np.nan]})
    made, lines = table(frame, DenseFeat("spent", 1, transform_fn=np.log))
    assert lines == [
        'spent: DenseFeat("spent"), a number, as it is, for its transform_fn; 1 missing, which count as the mean'
    ]
    # log(0) is no number, so items of which nothing is known (id 0, "new") have the mean, too.
    assert made.by_id(IdMap(["b", "new", "c"]))["spent"].tolist() == [3, 4.5, 3, 3]
    grown = made.extended("`item_features`", frame[:1].assign(sku="d", spent=None), "sku")
    assert grown.by_id(IdMap(["d"]))["spent"].tolist() == [3, 3]
    assert padded(made.by_id(IdMap(["b"])), 3)["spent"].tolist() == [3, 4.5, 3]  # so has a row to spare


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


def test_a_column_that_the_first_frame_did_not_have_is_told_of():
    """What the first one had and what was left out of it, such as `same`, is known."""
    made, _ = table(FRAME)
    with pytest.warns(UserWarning, match="the model does not read them: 'brand', 'weight'. Make and fit") as told:
        grown = made.extended("`item_features`", FRAME.assign(brand="y", weight=2.0), "sku")
    assert len(told) == 1
    with pytest.warns(UserWarning, match="'brand'"):
        grown.extended("`item_features`", FRAME.assign(brand="y"), "sku")


LEARNT = pd.DataFrame(
    {
        "sku": range(4),
        "price": [1.5, 3.0, np.nan, 4.5],
        "colour": ["red", None, "blue", "red"],
        "aisle": [1, 2, 2, None],
        "on_sale": [True, None, False, True],
        "tags": [["x", "y"], [], ["y"], ["x"]],
        "codes": [[1, 2], [], [2], [3]],
    }
)
DATES = pd.to_datetime(["2026-01-01", "2026-01-02"])


@pytest.fixture(scope="module")
def learnt():
    return table(LEARNT)[0]


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("price", ["1.5", "2"], "hold finite numbers, .* got text in 2 of 2 values, such as '1.5'. pd.to_numeric"),
        ("price", [2.5, "N/A"], "got text in 1 of 2 values, such as 'N/A'. pd.to_numeric"),
        ("price", np.array(["1.5", "2"]), "got text in 2 of 2 values, such as '1.5'"),
        ("price", [True, False], "got booleans in 2 of 2 values, such as True. Convert"),
        ("price", [True, None], "got booleans in 1 of 2 values"),
        ("price", [True, "2"], "got booleans and text in 2 of 2 values"),
        ("price", DATES, "got datetimes in 2 of 2 values, such as 2026-01-01 00:00:00. Convert"),
        ("price", [*DATES.date], "got datetimes in 2 of 2 values, such as 2026-01-01."),
        ("price", DATES - DATES[0], "got values of the type timedelta64 in 2 of 2 values"),
        ("price", [1.0, np.inf], r"got other numbers in 1 of 2 values, such as inf. column.replace\(\["),
        ("price", [1j, 2], "got values of the type complex"),
        ("price", [b"1", b"2"], "got values of the type bytes"),
        ("price", [[1.5], [2.5, 3]], "hold one value in each row, as in the first frame; got lists"),
        ("colour", [1, 2], "hold text, as in the first frame; got numbers in 2 of 2 values, such as 1"),
        ("colour", ["red", 3], "got numbers in 1 of 2 values, such as 3"),
        ("colour", [True, False], "got booleans"),
        ("colour", DATES, "got datetimes"),
        (
            "aisle",
            ["1", "2"],
            "hold whole numbers, as in the first frame; got text in 2 of 2 values, such as '1'. pd.to_",
        ),
        ("aisle", [1.5, 2], "got other numbers in 1 of 2 values, such as 1.5"),
        ("aisle", [np.inf, 2], "got other numbers in 1 of 2 values, such as inf"),
        ("aisle", [True, False], "got booleans"),
        ("on_sale", ["True", "False"], "hold booleans, as in the first frame; got text"),
        ("on_sale", [1, 7], "got other numbers in 1 of 2 values, such as 7"),
        ("tags", [[1], [2, 3]], "hold text, as in the first frame; got numbers in 3 of 3 values"),
        ("tags", ["x", "y"], "hold lists, as in the first frame; got none"),
        ("codes", [["1"], [2, 3]], "hold whole numbers, as in the first frame; got text in 1 of 3 values, such as '1'"),
    ],
)
def test_a_later_column_of_another_type_is_refused(learnt, name, values, words):
    later = LEARNT.iloc[:2].assign(**{name: values})
    before = later.copy()
    with pytest.raises(ValueError, match=rf"^feature '{name}' must .*{words}"):
        learnt.extended("`item_features`", later, "sku")
    pd.testing.assert_frame_equal(later, before)


@pytest.mark.parametrize(
    ("name", "values", "encoded"),
    [
        ("price", [3, 0], [0, -3 / np.std([1.5, 3, 4.5])]),
        ("price", [Decimal("3.0"), None], [0, 0]),
        ("price", pd.array([3, None], "Int64"), [0, 0]),
        ("price", [None, None], [0, 0]),
        ("price", pd.to_datetime([None, None]), [0, 0]),
        ("colour", pd.Categorical(["red", None]), [2, 0]),
        ("colour", np.array(["blue", "red"]), [1, 2]),
        ("colour", [np.nan, np.nan], [0, 0]),
        ("aisle", [2.0, np.nan], [2, 0]),
        ("aisle", pd.Categorical([9, 1]), [3, 1]),
        ("aisle", np.array([1, 2], np.uint8), [1, 2]),
        ("on_sale", [1, 0], [2, 1]),
        ("on_sale", [0.0, np.nan], [1, 0]),
        ("on_sale", pd.array([True, None], "boolean"), [2, 0]),
        ("tags", [[], ["y"]], [[0, 0], [2, 0]]),
        ("tags", [[], []], [[0, 0], [0, 0]]),
        ("codes", [[2.0], [1]], [[2, 0], [1, 0]]),
    ],
)
def test_a_later_column_may_hold_the_same_values_in_another_type(learnt, name, values, encoded):
    grown = learnt.extended("`item_features`", LEARNT.iloc[:2].assign(**{name: values}), "sku")
    np.testing.assert_allclose(grown.by_id(IdMap([0, 1]))[name][1:], encoded, rtol=1e-6)


def test_what_a_column_must_hold_is_saved(learnt):
    for feature in learnt.features:
        assert Feature.from_plain(json.loads(json.dumps(feature.plain()))) == feature


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (FRAME.drop(columns="sku"), "column 'sku' must be in `item_features`"),
        (pd.concat([FRAME, FRAME]), "column 'sku' of `item_features` must have each id once"),
        (FRAME[:0], "`item_features` must have at least one row; got an empty frame. Leave it out"),
        ([1, 2], "`item_features` must be a pandas or polars DataFrame"),
        (FRAME.assign(colour=["red", 3, "blue", "red"]), "feature 'colour' must be all integers or all strings"),
        (
            FRAME.assign(price=[1.5, np.inf, 2, 3]),
            "feature 'price' must hold finite numbers; got other numbers in 1 of 4",
        ),
    ],
)
def test_frames_that_cannot_be_are_refused(frame, words):
    with pytest.raises(ValueError, match=words):
        table(frame)


@pytest.mark.parametrize(("number", "shown"), [(-1.7e308, "-1.7e[+]308"), (2e15, "2e[+]15")])
def test_numbers_that_would_hide_all_others_are_refused(learnt, number, shown):
    frame = LEARNT.assign(price=[1.5, number, 3.0, 4.5])
    for read in (lambda: table(frame), lambda: learnt.extended("`item_features`", frame, "sku")):
        with pytest.raises(ValueError, match=rf"^feature 'price' must .* most 1e\+15 .*; got {shown} in 1 of 4 values"):
            read()


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_decimals_are_numbers(kind):
    library = pytest.importorskip(kind)
    prices = [Decimal("9.50"), Decimal("2.00"), None, Decimal("1.00")]
    made, lines = table(library.DataFrame({"sku": range(4), "price": prices}))
    assert lines == ['price: DenseFeat("price"), a number, standardised; 1 missing, which count as the mean']
    floats, _ = table(pd.DataFrame({"sku": range(4), "price": [9.5, 2, np.nan, 1]}))
    np.testing.assert_array_equal(made.values["price"], floats.values["price"])


def test_whole_numbers_with_gaps_are_categories_and_the_line_says_how_to_change_that():
    frame = pd.DataFrame({"sku": range(4), "price": [10, 20, np.nan, 10]})
    _, (line,) = table(frame)
    assert line.startswith('price: SparseFeat("price", 3, 8), whole numbers with gaps (if they measure something: ')
    _, (line,) = table(frame, DenseFeat("price", 1))
    assert line.startswith('price: DenseFeat("price"), a number')


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
