"""Spark prepares what memory prepares, and recommends what the process itself recommends."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import warnings
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from deepctr.feature_column import SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN
from deepmatch_ext.data import (
    IdMap,
    Interactions,
    leave_last_out,
    parquet_dataset,
    seen_by_users,
    split_by_time,
    user_histories,
    windows,
)
from deepmatch_ext.data.spark import prepare, recommend, recommendations, write_windows
from deepmatch_ext.data.spark import prepared as preparing
from deepmatch_ext.retrieval import top_n
from deepmatch_ext.serving import export_recommender
from tests.helpers import run_examples

pytestmark = [
    pytest.mark.slow,
    pytest.mark.once,
    # On importing PySpark, and on closing its sockets.
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

needs_spark = pytest.mark.usefixtures("spark")


@pytest.fixture(scope="module")
def spark():
    sql = pytest.importorskip("pyspark.sql", reason='no PySpark: pip install "pyspark>=4"')
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("no Java, which Spark runs on")
    settings = {
        "spark.driver.memory": "1g",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "3",
        # Tiny data: to compile for it takes longer than to run.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.session.timeZone": "America/New_York",  # which nothing may depend on
    }
    workers = {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with mock.patch.dict(os.environ, workers):
        session = sql.SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


def frame_of(rows=400, seed=0):
    """Events with many ties in time, in no order; ``offset`` numbers the rows."""
    rng = np.random.default_rng(seed)
    users = np.array(["Zoë", "zoe", "ann", "Ann ", "10", "9", "é", "\U0001f600", "\uff5e"], object)
    return pd.DataFrame(
        {
            "who": users[rng.integers(0, len(users) - 1, rows)],  # the last has no event of these
            "item.id": rng.choice([-5, 0, 3, 20, 100, 2**40, *range(30, 60)], rows),
            "when": rng.integers(0, 30, rows),
            "rating": rng.normal(size=rows),
            "liked": rng.random(rows) < 0.5,
            "stars": rng.integers(1, 6, rows).astype(np.int16),
            "offset": np.arange(rows),
        }
    )


NAMES = {"user": "who", "item": "item.id", "time": "when", "side": ["rating", "liked", "stars"]}


def on_spark(spark, frame):
    """The rows of a frame in another order, in several partitions."""
    import pyarrow as pa

    shuffled = frame.sample(frac=1, random_state=1)
    return spark.createDataFrame(pa.Table.from_pandas(shuffled, preserve_index=False)).repartition(3)


def arrays(frame):
    """The columns of a Spark DataFrame as NumPy arrays, lists as (rows, T)."""
    table = frame.toArrow()
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return {name: np.array(values) for name, values in columns.items()}


def assert_equal(got, expected):
    assert [*got] == [*expected]
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)


def assert_same_rows(prepared, got, split):
    parts = {name: getattr(got, name) for name in ("train", "validation", "test")} | {"more": got.train_targets(3)}
    found = arrays(prepared.events.select(*[condition.alias(name) for name, condition in parts.items()]))
    rows = {"train": split.train, "validation": split.validation, "test": split.test, "more": split.train_targets(3)}
    assert_equal({name: np.flatnonzero(chosen) for name, chosen in found.items()}, rows)


@pytest.fixture(scope="module")
def prepared(spark):
    """Events with text for users, and integers for items."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # `tie_order` decides all
        made = prepare(on_spark(spark, frame_of()), **NAMES, tie_order=["offset"])
    yield made
    made.unpersist()


@pytest.fixture(scope="module")
def interactions():
    return Interactions.from_frame(frame_of(), **NAMES)


@needs_spark
def test_ids_and_order_are_those_of_memory(prepared, interactions):
    assert prepared.user_ids == interactions.user_ids
    assert prepared.item_ids == interactions.item_ids
    got = arrays(prepared.events)
    remaining = interactions.indptr[interactions.users + 1] - 1 - np.arange(len(interactions))
    expected = {"who": interactions.users, "item.id": interactions.items, "when": interactions.times}
    expected |= dict(interactions.side) | {"position": interactions.position, "remaining": remaining}
    assert_equal(got, expected)


@needs_spark
def test_windows_of_all_rows(prepared, interactions):
    side = ["stars", "liked", "rating"]
    got = arrays(prepared.windows(None, 60, order="oldest_first", side=side))
    assert_equal(got, windows(interactions, np.arange(len(interactions)), 60, order="oldest_first", side=side))


@needs_spark
def test_the_context_and_the_weight_of_a_target_are_its_own(prepared, interactions, tmp_path):
    """Users, items and times repeat, so nothing could be joined to the windows afterwards."""
    columns = {"side": ["stars"], "context": ["liked", "stars"], "weight": "stars"}
    split, ours = leave_last_out(interactions), prepared.leave_last_out()
    expected = windows(interactions, split.train_targets(), 5, **columns)
    made = prepared.windows(ours.train_targets(), 5, **columns)
    assert_equal(arrays(made), expected)
    assert dict(made.dtypes)["sample_weight"] == "float"
    # As files, they are what `fit` takes: columns, labels and weights.
    write_windows(made, tmp_path / "train")
    files = sorted((tmp_path / "train").glob("*.parquet"))
    weighted = {"max_len": 5, "shuffle_rows": 0, "weight": "sample_weight"}
    x, _, weights = next(iter(parquet_dataset(files, len(split.train_targets()), **weighted)))
    np.testing.assert_array_equal(weights, expected.pop("sample_weight"))
    assert_equal({name: x[name].numpy() for name in expected}, expected)
    # Booleans are weights of 0 and 1.
    found = arrays(prepared.windows(None, 1, weight="liked"))["sample_weight"]
    np.testing.assert_array_equal(found, interactions.side["liked"].astype(np.float32))


@needs_spark
def test_files_hold_the_rows_of_memory_in_their_order(prepared, interactions, tmp_path):
    ours, split = prepared.leave_last_out(), leave_last_out(interactions)
    parts = {
        "train": (ours.train_targets(min_history=2), split.train_targets(min_history=2)),
        "test": (ours.test, split.test),
    }
    for name, (condition, rows) in parts.items():
        write_windows(prepared.windows(condition, 5, side=["liked", "stars"]), tmp_path / name, row_group_rows=10)
        assert (tmp_path / name / "_SUCCESS").exists()
        files = sorted((tmp_path / name).glob("*.parquet"))
        expected = windows(interactions, rows, 5, side=["liked", "stars"])
        batch = next(iter(parquet_dataset(files, len(rows), max_len=5, shuffle_rows=0)))
        got = {name: batch[name].numpy() for name in expected}
        assert_equal(got, expected)
        assert {name: values.dtype for name, values in got.items()} == {
            name: values.dtype for name, values in expected.items()
        }
    import pyarrow.parquet

    first = pyarrow.parquet.ParquetFile(sorted((tmp_path / "train").glob("*.parquet"))[0])
    assert first.metadata.row_group(0).num_rows == 10
    with pytest.raises(Exception, match="already exists"):
        write_windows(prepared.windows(None, 5), tmp_path / "train")


@needs_spark
def test_counts(prepared, interactions):
    np.testing.assert_array_equal(prepared.item_counts(), interactions.item_counts())
    got = prepared.item_counts(prepared.events["rating"] > 0.5)
    np.testing.assert_array_equal(got, interactions.item_counts(np.flatnonzero(interactions.side["rating"] > 0.5)))
    assert got.dtype == np.int64


@needs_spark
def test_users_with_few_events_are_all_train(prepared, interactions):
    least = int(np.bincount(interactions.users).max())
    assert_same_rows(prepared, prepared.leave_last_out(least), leave_last_out(interactions, least))
    with pytest.raises(ValueError, match=rf"`events` must have a user with at least {least + 1} events; got {least} "):
        prepared.leave_last_out(least + 1)


@needs_spark
def test_split_by_time_of_numbers(prepared, interactions):
    for moments in [(10, 20), (9.5, 29), (np.int64(1), np.float32(28.5))]:
        assert_same_rows(prepared, prepared.split_by_time(*moments), split_by_time(interactions, *moments))
    for moments, words in [
        ((20, 10), "`validation_from` must be earlier than `test_from`"),
        ((0, 10), "`validation_from` must leave rows to train on"),
        ((10, 30), "`test_from` must leave rows to test on"),
        (("2024-01-01", 10), "`validation_from` must be a number"),
    ]:
        for each in (lambda m: split_by_time(interactions, *m), lambda m: prepared.split_by_time(*m)):
            with pytest.raises(ValueError, match=words):
                each(moments)


@needs_spark
@pytest.mark.parametrize("kind", ["timestamp", "timestamp_ntz", "date"])
def test_split_by_time_of_moments(spark, kind):
    frame = frame_of(100)
    # Around the hour that clocks in New York skip, and with a moment that is finer than Spark's times.
    frame["when"] = pd.Timestamp("2024-03-10 06:50:00.000001", tz="UTC") + pd.to_timedelta(frame["when"] * 61, "s")
    moments = ("2024-03-10 06:59:09.0000005", "2024-03-10 03:10:00-04:00")
    if kind == "timestamp_ntz":
        frame["when"] = frame["when"].dt.tz_localize(None)
        moments = (moments[0], "2024-03-10 07:10:00")
    if kind == "date":
        frame["when"] = pd.Timestamp("2024-03-01") + pd.to_timedelta(np.arange(100) // 5, "D")
        moments = ("2024-03-10", "2024-03-13 19:00")
    events = on_spark(spark, frame.assign(when=frame["when"].astype(str)))
    events = events.withColumn("when", events["when"].cast(kind))
    names = {**NAMES, "side": []}
    prepared, interactions = prepare(events, **names, tie_order=["offset"]), Interactions.from_frame(frame, **names)
    split = split_by_time(interactions, *moments)
    assert min(map(len, (split.train, split.validation, split.test))) > 9
    assert_same_rows(prepared, prepared.split_by_time(*moments), split)
    for each in (lambda *m: split_by_time(interactions, *m), prepared.split_by_time):
        if kind != "timestamp":
            with pytest.raises(ValueError, match="`test_from` must have no time zone, as the times of the events"):
                each(moments[0], "2024-03-14 00:00+05:00")
    prepared.unpersist()


@needs_spark
def test_ties_that_nothing_decides_go_by_item_and_side_columns_and_are_counted(spark):
    frame = frame_of(200, seed=2)
    frame = pd.concat([frame, frame[:20]])  # equal rows are not worth a word
    in_order = frame.sort_values(["when", "item.id", "rating", "liked", "stars"])
    interactions = Interactions.from_frame(in_order, **NAMES)
    same = np.diff(interactions.times) == 0
    same &= np.diff(interactions.users) == 0
    others = [interactions.items, *interactions.side.values()]
    ties = int((same & np.any([np.diff(column.astype(float)) != 0 for column in others], axis=0)).sum())
    assert ties > 50
    with pytest.warns(
        UserWarning, match=rf"^{ties} events follow another of one user at one time .*tie_order="
    ) as told:
        prepared = prepare(on_spark(spark, frame), **NAMES)
    assert told[0].filename == __file__
    got = arrays(prepared.windows(None, 5, side=["rating"]))
    assert_equal(got, windows(interactions, np.arange(len(interactions)), 5, side=["rating"]))
    prepared.unpersist()


@needs_spark
def test_events_without_times_are_in_the_order_of_tie_order(spark):
    frame = frame_of(60).drop(columns="when")
    frame["item.id"] = frame["item.id"].astype(float)  # as pandas has it where there was a gap
    prepared = prepare(on_spark(spark, frame), "who", "item.id", None, tie_order=["offset"])
    interactions = Interactions.from_frame(frame, "who", "item.id", None)
    assert prepared.item_ids == interactions.item_ids
    assert_equal(arrays(prepared.windows(None, 4)), windows(interactions, np.arange(60), 4))
    with pytest.raises(ValueError, match="`events` must have times; got time=None"):
        prepared.split_by_time(1, 2)
    prepared.unpersist()


@needs_spark
def test_maps_made_earlier(spark, interactions):
    users = IdMap([*interactions.user_ids.values, "\uff5e"])
    items = IdMap([2**40, 7, -5, 0, 3, 20, 100, *range(30, 60)])
    frame = frame_of(50)
    prepared = prepare(on_spark(spark, frame), **NAMES, user_ids=users, item_ids=items, tie_order=["offset"])
    expected = Interactions.from_frame(frame, **NAMES, user_ids=users, item_ids=items)
    assert_equal(arrays(prepared.windows(None, 4)), windows(expected, np.arange(50), 4))
    np.testing.assert_array_equal(prepared.item_counts(), expected.item_counts())
    assert prepared.user_ids is users
    prepared.unpersist()
    with pytest.raises(ValueError, match=r"'item.id' must hold only known values; got \d+ rows with unk"):
        prepare(on_spark(spark, frame), **NAMES, item_ids=IdMap([3, 20]), tie_order=["offset"])
    with pytest.raises(ValueError, match=r"column 'item.id' must hold strings, as the known ids are; got bigint"):
        prepare(on_spark(spark, frame), **NAMES, item_ids=IdMap(["3", "20"]))


@needs_spark
def test_strings_that_spark_would_compare_without_case_are_different_ids(spark):
    events = spark.sql(
        "SELECT u COLLATE UTF8_LCASE AS u, i, t FROM VALUES ('a', 1, 1), ('A', 2, 2), ('a', 3, 3) v(u, i, t)"
    )
    prepared = prepare(events, "u", "i", "t")
    assert prepared.user_ids.values.tolist() == ["A", "a"]
    assert arrays(prepared.events)["u"].tolist() == [1, 2, 2]
    prepared.unpersist()


@needs_spark
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"user": "nobody"}, "column 'nobody' must be in `events`; got the columns 'who', 'item.id'"),
        ({"time": "at"}, r"column 'at' must be in `events`; .* Name it: time="),
        ({"time": None}, "`time` must name a column if `tie_order` names none"),
        ({"item": "who"}, "must not repeat a name; got 'who' twice"),
        ({"user": "rating"}, r"column 'rating' must be whole numbers up to 2\*\*53, or strings; got 2 others of 2"),
        ({"user": "liked"}, "column 'liked' must be all integers or all strings; got the type boolean. Cast it first"),
        ({"side": ["note"]}, "column 'note' must be numeric; got the type string"),
        ({"time": "endless"}, "column 'endless' must be finite; got 1 infinite of 2. Drop or fill those rows"),
        ({"time": "note"}, "column 'note' must be numbers or timestamps; got the type string"),
        ({"item": "gap"}, "column 'gap' must have no missing value; got 1 missing of 2"),
        ({"side": ["hole"]}, "column 'hole' must have no missing value; got 1 missing of 2"),
        ({"tie_order": ["gap"]}, "column 'gap' must have no missing value; got 1 missing of 2"),
        ({"events": pd.DataFrame()}, "`events` must be of the class DataFrame; got .*Interactions.from_frame"),
        ({"events": "none"}, "`events` must have at least one row; got none"),
    ],
)
def test_what_can_only_be_an_error_is_refused(spark, change, words):
    values = (
        "('a', 1, 1, 0.5D, true, 1, 1D, 'x', 1D), "
        "('b', 1, 1, 0.5D, false, NULL, double('NaN'), 'y', -double('Infinity'))"
    )
    events = spark.sql(
        f"SELECT * FROM VALUES {values} v(who, `item.id`, when, rating, liked, gap, hole, note, endless)"
    )
    change = {
        name: events.where("false") if isinstance(value, str) and value == "none" else value
        for name, value in change.items()
    }
    with pytest.raises(ValueError, match=words):
        prepare(**{"events": events, **NAMES, "side": [], **change})


@needs_spark
def test_refusals_of_windows(prepared, tmp_path):
    for arguments, words in [
        ({"rows": [1, 2]}, "`rows` must be a condition on the columns of `events`"),
        ({"max_len": 0}, "`max_len` must be an integer of at least 1; got 0"),
        ({"order": "recent"}, "`order` must be one of 'recent_first', 'oldest_first'; got 'recent'"),
        ({"side": ["price"]}, "side column 'price' must be a side column of the events"),
        ({"context": ["when"]}, "context column 'when' must be a side column of the events"),
        ({"context": ["liked", "liked"]}, "must not repeat a name; got 'liked' twice"),
        ({"weight": "price"}, "weight column 'price' must be a side column of the events"),
        ({"weight": "rating"}, r"'rating' must hold finite numbers that are not negative; got \d+ others, such as -"),
    ]:
        with pytest.raises(ValueError, match=words):
            prepared.windows(**{"rows": None, "max_len": 3, **arguments})


T, DIM = 4, 8


@pytest.fixture(scope="module")
def served(interactions, tmp_path_factory):
    """A model of users and their histories, and its export, which takes and gives raw ids."""
    users, items = interactions.user_ids, interactions.item_ids
    model = YoutubeDNN(
        [
            SparseFeat("who", users.vocabulary_size, DIM),
            VarLenSparseFeat(
                SparseFeat("hist_item.id", items.vocabulary_size, DIM, embedding_name="item.id"), T, "mean", "hist_len"
            ),
        ],
        [SparseFeat("item.id", items.vocabulary_size, DIM)],
        user_dnn_hidden_units=(DIM,),
    )
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape).astype(weight.dtype) for weight in model.get_weights()])
    maps = {"who": users, "hist_item.id": items}
    return model, export_recommender(model, tmp_path_factory.mktemp("export"), item_ids=items, id_maps=maps)


@needs_spark
def test_all_users_get_what_the_process_recommends(prepared, interactions, served):
    model, export = served
    ids = np.arange(1, interactions.num_users + 1)
    x = user_histories(interactions, ids, T)
    vectors, items = model.user_vectors(x), model.item_vectors()
    raw = interactions.user_ids.decode(ids)

    users = prepared.users(T)
    assert users.columns == ["who", "hist_item.id", "hist_len", "seen"]
    for seen in ("seen", None):
        exclude = seen_by_users(interactions, ids) if seen else None
        best, scores = top_n(vectors, items, 12, exclude=exclude)
        assert (best == 0).any() == (seen is not None)  # some users have less than 12 items left
        got = arrays(recommend(users, export, 12, user="who", seen=seen, batch_size=2))
        order = [got["who"].tolist().index(user) for user in raw]
        assert sorted(order) == list(range(len(raw)))
        np.testing.assert_array_equal(got["item_ids"][order], interactions.item_ids.decode(best))
        np.testing.assert_allclose(got["scores"][order], scores, rtol=1e-5, atol=1e-6)
        stock = interactions.item_ids.values[[2, 5, 9]]
        best, _ = top_n(vectors, items, 3, exclude=exclude, among=[3, 6, 10])
        got = arrays(recommend(users, export, 3, user="who", seen=seen, among=[*stock, stock[0]]))
        order = [got["who"].tolist().index(user) for user in raw]
        np.testing.assert_array_equal(got["item_ids"][order], interactions.item_ids.decode(best))


@needs_spark
def test_histories_of_users(prepared, interactions):
    users = arrays(prepared.users(3, order="oldest_first", side=["stars"]).drop("seen"))
    ids = interactions.user_ids.encode(users["who"])
    expected = user_histories(interactions, ids, 3, order="oldest_first", side=["stars"])
    assert (expected["hist_len"] == 3).all()
    np.testing.assert_array_equal(users["hist_item.id"], interactions.item_ids.decode(expected["hist_item.id"]))
    np.testing.assert_array_equal(users["hist_stars"], expected["hist_stars"])
    np.testing.assert_array_equal(users["hist_len"], expected["hist_len"])


@needs_spark
def test_lists_of_any_length_and_text_as_ids(spark, tmp_path):
    """Short histories are padded, long ones cut, lengths counted; text comes out as text."""
    names = IdMap(["tea", "0", "milk", "bread"])
    history = VarLenSparseFeat(SparseFeat("hist_item", 5, DIM, embedding_name="item"), 3, "mean", "hist_len")
    model = YoutubeDNN([history], [SparseFeat("item", 5, DIM)], user_dnn_hidden_units=(DIM,))
    export = export_recommender(model, tmp_path, item_ids=names, id_maps={"hist_item": names})
    users = spark.createDataFrame(
        [
            (7, ["tea", "milk"], ["tea", "milk", "coffee"]),
            (8, ["0", "tea", "milk", "bread", "tea"], []),
            (9, [], ["tea", "milk", "bread"]),
        ],
        "user_id bigint, hist_item array<string>, seen array<string>",
    )
    got = recommend(users, export, 4).orderBy("user_id").toArrow().to_pylist()
    x = {"hist_item": np.array([[1, 3, 0], [2, 1, 3], [0, 0, 0]]), "hist_len": np.array([2, 3, 0])}
    seen = (np.array([0, 2, 2, 5]), np.array([1, 3, 1, 3, 4]))
    best, scores = top_n(model.user_vectors(x), model.item_vectors(), 4, exclude=seen)
    assert [row["user_id"] for row in got] == [7, 8, 9]
    assert [row["item_ids"] for row in got] == names.decode(best).tolist()
    assert got[2]["item_ids"][1:] == ["", "", ""]
    np.testing.assert_allclose([row["scores"] for row in got], scores, rtol=1e-5, atol=1e-6)


@needs_spark
def test_the_examples_run(spark):
    events = [("bob", 7, 20), ("ann", 7, 30), ("ann", 9, 40), ("ann", 5, 10)]  # those of the example of `prepare`
    prepared = prepare(spark.createDataFrame(events, ["user_id", "item_id", "timestamp"]))
    for module in (preparing, recommendations):
        run_examples(module, prepared=prepared)
    prepared.unpersist()


@needs_spark
def test_refusals_of_recommend(spark, prepared, served, tmp_path):
    export = served[1]
    users = prepared.users(T)
    for change, words in [
        ({"export": tmp_path}, "`export` must be the folder of an export's version; got .*without manifest.json"),
        ({"n": 37}, "`n` must be at most 36, the items of the export; got 37"),
        ({"among": ["a"]}, "`among` must hold integers, as the export's item ids are; got 'a'"),
        ({"among": []}, "`among` must hold at least one item id; got none"),
        ({"user": "user_id"}, "column 'user_id' must be in `users`; got the columns 'who'"),
        ({"users": users.drop("seen")}, "column 'seen' must be in `users`; .*seen=None leaves nothing out"),
        ({"users": users.drop("hist_item.id")}, "column 'hist_item.id' must be in `users`"),
        (
            {"users": users.withColumn("hist_item.id", users.who)},
            "column 'hist_item.id' must hold lists of integers, as the export reads it; got string",
        ),
        ({"users": pd.DataFrame()}, "`users` must be of the class DataFrame"),
    ]:
        with pytest.raises(ValueError, match=words):
            recommend(**{"users": users, "export": export, "n": 2, "user": "who", **change})
    missing = users.selectExpr("who", "`hist_item.id`", "nullif(hist_len, hist_len) AS hist_len", "seen")
    with pytest.raises(Exception, match="column 'hist_len' must have no missing value; got"):
        recommend(missing, export, 2, user="who").toArrow()


def test_a_worker_loads_the_export_once(served):
    pa = pytest.importorskip("pyarrow", reason="no pyarrow")
    batch = pa.RecordBatch.from_pydict(
        {"who": ["ann"], "hist_item.id": [[3, 20]], "hist_len": pa.array([2], pa.int32()), "seen": [[3]]}
    )
    names = ["who", "hist_item.id", "hist_len", "seen"]
    work = (
        recommendations._recommended,
        str(served[1]),
        recommendations._manifest(served[1]),
        names,
        2,
        "who",
        "seen",
        None,
        8,
    )
    recommendations._loaded.cache_clear()
    with mock.patch.object(tf.saved_model, "load", side_effect=tf.saved_model.load) as load:
        for _ in range(2):  # tasks of one worker
            found = [row for part in work[0](*work[1:], [batch, batch]) for row in part.to_pylist()]
            assert len(found) == 2
    assert load.call_count == 1


def test_ids_that_the_model_has_no_room_for_are_refused():
    pa = pytest.importorskip("pyarrow", reason="no pyarrow")
    about = {"name": "hist", "kind": "history", "shape": [2], "dtype": "int32", "vocabulary_size": 5, "length": None}
    for value in (-1, 5):
        with pytest.raises(ValueError, match=rf"column 'hist' must lie in 0..4; got {value}. The export takes"):
            recommendations._inputs({"inputs": {"hist": about}}, {"hist": pa.array([[1, value]])})


def test_without_pyspark(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("pyspark")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyspark", None)  # importing it now fails
    for call in (lambda: prepare(None), lambda: recommend(None, "", 1), lambda: write_windows(None, "")):
        with pytest.raises(ImportError, match=r'needs pyspark: pip install "pyspark", .*pip install -e "\.\[spark\]"'):
            call()


def test_importing_it_loads_neither_pyspark_nor_tensorflow():
    code = "import sys, deepmatch_ext.data.spark; print({'pyspark', 'tensorflow'} & sys.modules.keys())"
    # In a process of its own: what an import does depends on nothing that was imported before.
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@needs_spark
@pytest.mark.filterwarnings("ignore::UserWarning")  # an export that is loaded warns of its gradients
def test_the_page_runs(spark, tmp_path):
    """The code of docs/spark.md, one block after the other; the page leaves out how the model is made."""
    page = (pathlib.Path(__file__).parents[2] / "docs" / "spark.md").read_text(encoding="utf-8")
    page = re.sub(r'"(events|train|test|exports|recommended)(?=["/])', rf'"{tmp_path}/\1', page)  # Java has its own
    rng = np.random.default_rng(0)
    events = pd.DataFrame({"user_id": rng.integers(0, 20, 200), "item_id": rng.integers(0, 30, 200)})
    events = events.assign(timestamp=np.arange(200), offset=np.arange(200))
    (tmp_path / "events").mkdir()
    events.to_parquet(tmp_path / "events" / "0.parquet")
    preparing, training, recommending = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names = {}
    exec(compile(preparing, "spark.md", "exec"), names)
    exec(compile(training, "spark.md", "exec"), names)
    size = len(names["prepared"].item_ids) + 1
    history = SparseFeat("hist_item_id", size, 4, embedding_name="item_id")
    names["model"] = YoutubeDNN([VarLenSparseFeat(history, 50, "mean", "hist_len")], [SparseFeat("item_id", size, 4)])
    names["model"].compile("adam")
    names["model"].fit(names["train"], verbose=0)
    exec(compile(recommending, "spark.md", "exec"), names)
    found = pd.read_parquet(tmp_path / "recommended")
    assert sorted(found["user_id"]) == sorted(set(events["user_id"]))
