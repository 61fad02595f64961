"""Events that are too many for one machine: ids, splits and windows on Spark, as in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmatch_ext._checks import (
    as_path,
    as_text,
    as_texts,
    instance_of,
    int_at_least,
    listing,
    no_duplicates,
    one_of,
    positive_int,
    problem,
    shown,
    warn_caller,
)
from deepmatch_ext.data.ids import IdMap
from deepmatch_ext.data.spark._sql import column_named, spark_sql
from deepmatch_ext.data.splits import two_moments
from deepmatch_ext.data.windows import ORDERS, WEIGHT

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_COUNTED = ("position", "remaining")  # columns of `PreparedEvents.events` besides those of the caller


def prepare(
    events: DataFrame,
    user: str = "user_id",
    item: str = "item_id",
    time: str | None = "timestamp",
    side: Sequence[str] = (),
    user_ids: IdMap | None = None,
    item_ids: IdMap | None = None,
    *,
    tie_order: Sequence[str] = (),
) -> PreparedEvents:
    """`Interactions.from_frame` for a Spark DataFrame: the same ids, the same order of events, the same checks.

    Users and items are numbered from 1 in the order of their raw ids. Spark does not keep the order of a DataFrame's
    rows, so ``tie_order`` orders the events of one user at one time. Events that are equal in it, too, are sorted by
    item id, then by the side columns. The result does not depend on the order of the rows, but it may differ from that
    of `Interactions.from_frame`, which keeps the order of the frame. A warning counts such events.

    The events are read several times, and then kept sorted by user and time, in memory and on disk
    (``DataFrame.persist``), until ``prepared.unpersist()``. Persist ``events`` if reading them twice may give different
    rows.

    Args:
        events: One row per event, in any order.
        user: The column of raw user ids, integers or strings.
        item: The column of raw item ids, integers or strings.
        time: The column of times: numbers, timestamps or dates. None: ``tie_order`` is the chronological order.
        side: Numeric columns to keep, such as a rating.
        user_ids: A map made earlier; without it, the users of the events are numbered.
        item_ids: A map made earlier; without it, the items of the events are numbered.
        tie_order: Columns that say in which order the events of one user at one time happened, such as an offset in a
            log.

    Returns:
        The `PreparedEvents`.

    Raises:
        ImportError: PySpark is not installed.
        ValueError: There are no events, a column is missing, a column has two roles, missing values or a type that
            does not fit its role, a time is infinite, or a given map does not know a user or an item.

    Warns:
        UserWarning: Neither the times nor ``tie_order`` say in which order some events happened.

    Example:
        >>> from pyspark.sql import SparkSession
        >>> spark = SparkSession.builder.getOrCreate()
        >>> events = [("bob", 7, 20), ("ann", 7, 30), ("ann", 9, 40), ("ann", 5, 10)]
        >>> prepared = prepare(spark.createDataFrame(events, ["user_id", "item_id", "timestamp"]))
        >>> prepared.events.show()
        +-------+-------+---------+--------+---------+
        |user_id|item_id|timestamp|position|remaining|
        +-------+-------+---------+--------+---------+
        |      1|      1|       10|       0|        2|
        |      1|      2|       30|       1|        1|
        |      1|      3|       40|       2|        0|
        |      2|      2|       20|       0|        0|
        +-------+-------+---------+--------+---------+
        <BLANKLINE>
        >>> prepared.item_ids.decode([1, 2, 3]).tolist()
        [5, 7, 9]
        >>> prepared.unpersist()  # when all is done
    """
    sql = spark_sql("prepare()")
    types = sql.types
    instance_of("`events`", events, sql.DataFrame, "Interactions.from_frame() takes other frames.")
    user, item = as_text("`user`", user), as_text("`item`", item)
    time = None if time is None else as_text("`time`", time)
    side, tie_order = as_texts("`side`", side), as_texts("`tie_order`", tie_order)
    if time is None and not tie_order:
        raise problem("`time`", "name a column if `tie_order` names none, since a DataFrame has no order", None)
    roles = [user, item, *([] if time is None else [time]), *side]
    no_duplicates("the columns user, item, time and side, and those made here", [*roles, *_COUNTED])
    no_duplicates("`tie_order`", tie_order)
    fields = {each.name: each.dataType for each in events.schema.fields}
    for name in (*roles, *tie_order):
        if name not in fields:
            remedy = "Name it: time='...'." if name == time else ""
            raise problem(f"column {name!r}", "be in `events`", f"the columns {listing(list(fields), 20)}", remedy)
    raw_user, raw_item = (_raw_id(sql, name, fields[name]) for name in (user, item))
    numbers = (types.IntegralType, types.FloatType, types.DoubleType)
    moments = (types.TimestampType, types.TimestampNTZType, types.DateType)
    for name in side:
        _of_type(f"column {name!r}", "be numeric", fields[name], (*numbers, types.BooleanType))
    if time is not None:
        _of_type(f"column {time!r}", "be numbers or timestamps", fields[time], (*numbers, *moments))
    _check_values(sql, events, fields, [*roles, *tie_order], [user, item], time)

    table = events.select(
        raw_user.alias("raw_user"),
        raw_item.alias("raw_item"),
        *([] if time is None else [_time(sql, time, fields[time]).alias("time")]),
        *[column_named(sql, name).alias(f"side_{place}") for place, name in enumerate(side)],
        *[column_named(sql, name).alias(f"tie_{place}") for place, name in enumerate(tie_order)],
    )
    table = _with_ids(sql, table, "user", user, user_ids)
    table = _with_ids(sql, table, "item", item, item_ids)
    table = _in_order(sql, table, len(side), [f"tie_{place}" for place in range(len(tie_order))], time is not None)
    prepared = PreparedEvents(table.persist(), user, item, time, tuple(side), user_ids, item_ids)
    try:
        _check_ids_and_ties(sql, prepared, user_ids, item_ids)
    except BaseException:
        prepared.unpersist()
        raise
    return prepared


@dataclass(frozen=True, eq=False)
class PreparedEvents:
    """What `prepare` returns: events by id, sorted by user and time, on Spark.

    Choose rows by conditions on the columns of ``events``: those of a split, or your own.

    Attributes:
        user_name, item_name, time_name: The names of the columns of users, items and times; ``time_name`` is None if
            there are no times.
        side: The names of the side columns.

    Example:
        >>> split = prepared.leave_last_out()  # `prepared` is that of the example of `prepare`
        >>> prepared.windows(split.test, max_len=3).show()  # a model's input for the last event of user 1
        +-------+-------+------------+--------+
        |user_id|item_id|hist_item_id|hist_len|
        +-------+-------+------------+--------+
        |      1|      3|   [2, 1, 0]|       2|
        +-------+-------+------------+--------+
        <BLANKLINE>
        >>> prepared.item_counts(split.train).tolist()  # for a sampler
        [0, 1, 1, 0]
    """

    _table: DataFrame = field(repr=False)
    user_name: str
    item_name: str
    time_name: str | None
    side: tuple[str, ...]
    _user_ids: IdMap | None = field(repr=False)
    _item_ids: IdMap | None = field(repr=False)

    @cached_property
    def events(self) -> DataFrame:
        """One row per event: user id, item id, time and side columns under their own names, and ``position`` and
        ``remaining``, the numbers of earlier and of later events of the same user.

        Users are in the order of their ids, from one partition to the next, and a user's events in chronological order.
        """
        functions = spark_sql("PreparedEvents").functions
        named = {"user": self.user_name, "item": self.item_name}
        named |= {} if self.time_name is None else {"time": self.time_name}
        named |= {self._side_column(name): name for name in self.side}
        return self._table.select(*[functions.col(old).alias(new) for old, new in named.items()], *_COUNTED)

    @cached_property
    def user_ids(self) -> IdMap:
        """The map from raw user ids, on the driver."""
        return self._id_map("user") if self._user_ids is None else self._user_ids

    @cached_property
    def item_ids(self) -> IdMap:
        """The map from raw item ids, on the driver."""
        return self._id_map("item") if self._item_ids is None else self._item_ids

    def leave_last_out(self, min_interactions: int = 3) -> SparkSplit:
        """`deepmatch_ext.data.leave_last_out`: tests on each user's last event, validates on the one before it.

        Raises:
            ValueError: ``min_interactions`` is below 3, or no user has that many events.
        """
        int_at_least("`min_interactions`", min_interactions, 3)
        functions = spark_sql("PreparedEvents").functions
        position, remaining = (functions.col(name) for name in _COUNTED)
        most = int(self._table.agg(functions.max("position")).collect()[0][0]) + 1
        if most < min_interactions:
            rule = f"have a user with at least {min_interactions} events"
            raise problem("`events`", rule, f"{most} events of one user at most")
        judged = position + remaining + 1 >= min_interactions
        return SparkSplit(
            train=~judged | (remaining >= 2), validation=judged & (remaining == 1), test=judged & (remaining == 0)
        )

    def split_by_time(self, validation_from: Any, test_from: Any) -> SparkSplit:
        """`deepmatch_ext.data.split_by_time`: trains on the events before a time, tests on those after.

        Args:
            validation_from: The first time of validation: a number, or for timestamps and dates anything that
                pd.Timestamp takes. A time without a zone is in UTC, whatever the time zone of the Spark session is.
            test_from: The first time of test, later than ``validation_from``.

        Raises:
            ValueError: There are no times, the arguments do not fit them or are not in order, or no row is left to
                train or test on.
        """
        if self.time_name is None:
            raise problem("`events`", "have times", "time=None", "leave_last_out() needs the order of events alone.")
        sql = spark_sql("PreparedEvents")
        functions, time_type = sql.functions, self._table.schema["time"].dataType
        is_number = isinstance(time_type, sql.types.NumericType)
        like = np.empty(0, np.float64 if is_number else "datetime64[us]")
        has_zone = None if is_number else isinstance(time_type, sql.types.TimestampType)
        start, end = two_moments(validation_from, test_from, like, has_zone)
        first, last = (_literal(sql, each, time_type) for each in (start, end))
        time = functions.col("time")
        trained, tested = (
            int(each or 0)
            for each in self._table.agg(*map(functions.count_if, (time < first, time >= last))).collect()[0]
        )
        if not trained:
            raise problem("`validation_from`", "leave rows to train on, so be later", repr(validation_from))
        if not tested:
            raise problem("`test_from`", "leave rows to test on, so be earlier", repr(test_from))
        time = column_named(sql, self.time_name)
        return SparkSplit(train=time < first, validation=(time >= first) & (time < last), test=time >= last)

    def windows(
        self,
        rows: Column | None,
        max_len: int,
        *,
        order: str = "recent_first",
        side: Sequence[str] = (),
        context: Sequence[str] = (),
        weight: str | None = None,
    ) -> DataFrame:
        """`deepmatch_ext.data.windows`: the input of a model for each target row, in the order of ``events``.

        Args:
            rows: Which rows are targets, a condition on the columns of ``events``, such as ``split.train_targets()`` or
                ``split.test``. None: all.
            max_len: The history length T.
            order: "recent_first" or "oldest_first".
            side: Side columns whose history is wanted too.
            context: Side columns to return for the target event: what is known when recommendations are asked for.
            weight: The side column with the weight of each target event in the loss: finite numbers, none negative.
                The events are read once to check them.

        Returns:
            Columns by name, with u, i for the names of user and item: ``u``, ``i``, ``hist_i`` (T integers, padded with
            0), ``hist_len``, for each side column s ``hist_s`` in its own type, the context under its own names, and
            with a weight ``sample_weight``, a float.

        Raises:
            ValueError: An unknown order or side column, two columns of one name, invalid weights, or ``rows`` that are
                not a condition.
        """
        sql = spark_sql("PreparedEvents")
        functions = sql.functions
        max_len, side, names = self._history_arguments(max_len, order, side)
        context = as_texts("`context`", context)
        for name in context:
            self._check_side_column("context column", name)
        of_targets = {name: column_named(sql, name) for name in context}
        names += [*context, *([] if weight is None else [WEIGHT])]
        no_duplicates("the columns of the input", names)
        if weight is not None:
            of_targets[WEIGHT] = self._weights(weight)
        before = sql.Window.partitionBy(column_named(sql, self.user_name)).orderBy("position").rowsBetween(-max_len, -1)

        def history(name: str) -> Column:
            past = functions.collect_list(column_named(sql, name)).over(before)
            past = functions.reverse(past) if order == "recent_first" else past
            zero = functions.lit(0).cast(self.events.schema[name].dataType)
            return functions.concat(past, functions.array_repeat(zero, functions.lit(max_len) - functions.size(past)))

        histories = [history(name) for name in (self.item_name, *side)]
        lengths = functions.least("position", functions.lit(max_len))
        made = [histories[0], lengths, *histories[1:], *of_targets.values()]
        # Under names that no column of the caller has, until the rows are chosen.
        hidden = [f"\0{place}" for place in range(len(made))]
        table = self.events.select("*", *[column.alias(name) for name, column in zip(hidden, made, strict=True)])
        if rows is not None:
            self._check_rows(rows)
            table = table.where(rows)
        old = [self.user_name, self.item_name, *hidden]
        return table.select(*[column_named(sql, a).alias(b) for a, b in zip(old, names, strict=True)])

    def users(self, max_len: int, *, order: str = "recent_first", side: Sequence[str] = ()) -> DataFrame:
        """All users as `recommend` takes them: one row per user, with all of the user's events as history, in raw ids.

        The export must take raw ids: ``item_ids=prepared.item_ids`` and ``id_maps={"hist_item_id":
        prepared.item_ids}`` in `export_recommender`, and the user's map likewise if the user's id is an input.

        Args:
            max_len: The history length T.
            order: "recent_first" or "oldest_first".
            side: Side columns whose history is wanted too.

        Returns:
            Columns by name, with u, i for the names of user and item: ``u`` the raw id, ``hist_i`` up to T raw ids,
            without padding, ``hist_len``, for each side column s ``hist_s``, and ``seen``: the raw ids of all items
            that the user had, in no particular order.

        Raises:
            ValueError: As for `windows`.
        """
        sql = spark_sql("PreparedEvents")
        functions = sql.functions
        max_len, side, names = self._history_arguments(max_len, order, side)
        user, _, hist, hist_len, *hist_side = names
        no_duplicates("the columns of users", [user, hist, hist_len, *hist_side, "seen"])
        columns = ["raw_item", *(self._side_column(name) for name in side)]
        recent = functions.when(functions.col("remaining") < max_len, functions.struct("remaining", *columns))
        grouped = self._table.groupBy("user").agg(
            functions.first("raw_user").alias("raw_user"),
            functions.sort_array(functions.collect_list(recent), asc=order == "recent_first").alias("hist"),
            functions.collect_set("raw_item").alias("seen"),
        )
        histories = [functions.col(f"hist.{column}") for column in columns]
        return grouped.select(
            functions.col("raw_user").alias(user),
            histories[0].alias(hist),
            functions.size("hist").alias(hist_len),
            *[column.alias(name) for column, name in zip(histories[1:], hist_side, strict=True)],
            "seen",
        )

    def item_counts(self, rows: Column | None = None) -> np.ndarray:
        """`Interactions.item_counts`: how often each item occurs, for samplers.

        Args:
            rows: The rows to count, as for `windows`. Give a split's ``train``, so that no held-out item leaks into the
                counts.

        Returns:
            int64, (V,), by item id; id 0 has count 0.
        """
        if rows is not None:
            self._check_rows(rows)
        table = self.events if rows is None else self.events.where(rows)
        found = table.groupBy(column_named(spark_sql("PreparedEvents"), self.item_name)).count().toArrow()
        counts = np.zeros(self.item_ids.vocabulary_size, np.int64)
        counts[found.column(0).to_numpy()] = found.column(1).to_numpy()
        return counts

    def unpersist(self) -> None:
        """Frees the memory and disk that the events take. Later results are computed again from the source."""
        self._table.unpersist()

    def _check_rows(self, rows: Any) -> None:
        if not isinstance(rows, spark_sql("PreparedEvents").Column):
            rule = "be a condition on the columns of `events`, such as a split's `test`, or None"
            raise problem("`rows`", rule, shown(rows))

    def _history_arguments(self, max_len: int, order: str, side: Sequence[str]) -> tuple[int, list[str], list[str]]:
        """The checked T and side columns, and the names of a window's columns."""
        max_len, side = positive_int("`max_len`", max_len), as_texts("`side`", side)
        one_of("`order`", order, ORDERS)
        for name in side:
            self._check_side_column("side column", name)
        names = [self.user_name, self.item_name, f"hist_{self.item_name}", "hist_len", *(f"hist_{s}" for s in side)]
        no_duplicates("the columns of the input", names)
        return max_len, side, names

    def _check_side_column(self, what: str, name: str) -> None:
        if name not in self.side:
            raise problem(f"{what} {name!r}", "be a side column of the events", repr([*self.side]))

    def _weights(self, weight: str) -> Column:
        """The column of weights as floats, after a check of all of them."""
        sql = spark_sql("PreparedEvents")
        self._check_side_column("weight column", as_text("`weight`", weight))
        values = column_named(sql, weight).cast("double")
        is_wrong = ~values.between(0.0, float(np.finfo(np.float32).max))
        wrong = self.events.where(is_wrong).agg(sql.functions.count(sql.functions.lit(1)), sql.functions.first(values))
        number, example = wrong.collect()[0]
        if number:
            got = f"{number} others, such as {example}"
            raise problem(f"weight column {weight!r}", "hold finite numbers that are not negative", got)
        return values.cast("float")

    def _side_column(self, name: str) -> str:
        return f"side_{self.side.index(name)}"

    def _id_map(self, which: str) -> IdMap:
        functions = spark_sql("PreparedEvents").functions
        pairs = self._table.groupBy(which).agg(functions.first(f"raw_{which}")).toArrow()
        ids, values = (pairs.column(place).to_numpy() for place in (0, 1))
        return IdMap(values[np.argsort(ids)])


@dataclass(frozen=True, eq=False)
class SparkSplit:
    """`Split` on Spark: conditions on the columns of ``prepared.events``. A row meets at most one of them.

    Args:
        train: The rows to learn from.
        validation: The rows to choose settings by.
        test: The rows to evaluate on.

    Example:
        >>> split = prepared.split_by_time(35, 40)  # `prepared` is that of the example of `prepare`
        >>> chosen = {"is_target": split.train_targets(), "is_test": split.test}
        >>> prepared.events.withColumns(chosen).select("user_id", "timestamp", *chosen).show()
        +-------+---------+---------+-------+
        |user_id|timestamp|is_target|is_test|
        +-------+---------+---------+-------+
        |      1|       10|    false|  false|
        |      1|       30|     true|  false|
        |      1|       40|    false|   true|
        |      2|       20|    false|  false|
        +-------+---------+---------+-------+
        <BLANKLINE>
    """

    train: Column
    validation: Column
    test: Column

    def train_targets(self, min_history: int = 1) -> Column:
        """The train rows with at least ``min_history`` earlier events of their user, a condition like ``train``.

        Raises:
            ValueError: ``min_history`` is not an integer of at least 0.
        """
        int_at_least("`min_history`", min_history, 0)
        return self.train & (spark_sql("SparkSplit").functions.col("position") >= min_history)


def write_windows(windows: DataFrame, folder: str | os.PathLike[str], *, row_group_rows: int = 10_000) -> None:
    """Writes windows as Parquet files that `parquet_dataset` reads and mixes well: ``folder/part-*.parquet``.

    The files, sorted by name, have the rows in the order of the DataFrame. Spark writes ``_SUCCESS`` last.

    Args:
        windows: What `PreparedEvents.windows` returned.
        folder: A new folder, or a URL that Spark can write to.
        row_group_rows: Rows in a row group, at most. `parquet_dataset` shuffles the row groups, then the rows of many
            at once.

    Raises:
        ValueError: An argument is invalid.
        pyspark.errors.AnalysisException: The folder exists.

    Example:
        >>> import glob, tempfile
        >>> from deepmatch_ext.data import parquet_dataset
        >>> folder = tempfile.mkdtemp() + "/windows"
        >>> rows = prepared.events["position"] >= 1  # `prepared` is that of the example of `prepare`
        >>> write_windows(prepared.windows(rows, max_len=3), folder)
        >>> files = sorted(glob.glob(folder + "/*.parquet"))
        >>> [batch] = parquet_dataset(files, batch_size=1024, max_len=3, shuffle_rows=0)
        >>> batch["hist_item_id"].numpy().tolist(), batch["item_id"].numpy().tolist()
        ([[1, 0, 0], [2, 1, 0]], [2, 3])
    """
    instance_of("`windows`", windows, spark_sql("write_windows()").DataFrame)
    as_path("`folder`", folder)  # checked, but not taken: a path has one slash where a URL has two
    rows = positive_int("`row_group_rows`", row_group_rows)
    windows.write.option("parquet.block.row.count.limit", rows).parquet(os.fspath(folder))


def _raw_id(sql: Any, name: str, kind: Any) -> Any:
    """A column of raw ids as bigint, or as strings that are compared character by character."""
    types = sql.types
    numbers = (types.IntegralType, types.FloatType, types.DoubleType)
    rule = "be all integers or all strings"
    _of_type(f"column {name!r}", rule, kind, (types.StringType, types.CharType, types.VarcharType, *numbers))
    return column_named(sql, name).cast(types.LongType() if isinstance(kind, numbers) else types.StringType())


def _of_type(what: str, rule: str, kind: Any, allowed: tuple[Any, ...]) -> None:
    if not isinstance(kind, allowed):
        raise problem(what, rule, f"the type {kind.simpleString()}", "Cast it first.")


def _time(sql: Any, name: str, kind: Any) -> Any:
    column = column_named(sql, name)
    return column.cast("timestamp_ntz") if isinstance(kind, sql.types.DateType) else column


def _check_values(
    sql: Any, events: Any, fields: dict[str, Any], names: Sequence[str], ids: Sequence[str], time: str | None
) -> None:
    """Reads the events once: refuses none at all, missing values, other ids than whole numbers, and infinite times."""
    functions = sql.functions
    floats = (sql.types.FloatType, sql.types.DoubleType)
    checks, whole = [], [name for name in ids if isinstance(fields[name], floats)]
    names = list(dict.fromkeys(names))
    for name in names:
        column = column_named(sql, name)
        is_missing = column.isNull()
        checks.append(is_missing | functions.isnan(column) if isinstance(fields[name], floats) else is_missing)
    for name in whole:
        column = column_named(sql, name)
        checks.append((column != functions.floor(column)) | (functions.abs(column) > 2**53))
    finite = [time] if time is not None and isinstance(fields[time], floats) else []
    checks += [functions.abs(column_named(sql, name)) == float("inf") for name in finite]
    number, *counts = events.agg(functions.count(functions.lit(1)), *map(functions.count_if, checks)).collect()[0]
    if not number:
        raise problem("`events`", "have at least one row", "none")
    for name, count in zip(names, counts, strict=False):
        if count:
            got = f"{count} missing of {number}"
            raise problem(f"column {name!r}", "have no missing value", got, "Drop or fill those rows.")
    for name, count in zip(whole, counts[len(names) :], strict=False):
        if count:
            rule = "be whole numbers up to 2**53, or strings"
            raise problem(f"column {name!r}", rule, f"{count} others of {number}")
    for name in finite:
        if counts[-1]:
            got = f"{counts[-1]} infinite of {number}"
            raise problem(f"column {name!r}", "be finite", got, "Drop or fill those rows.")


def _with_ids(sql: Any, table: Any, which: str, name: str, ids: IdMap | None) -> Any:
    """The table with the ids of ``raw_user`` or ``raw_item``, 0 for values that are not in a given map."""
    functions, raw = sql.functions, f"raw_{which}"
    if ids is None:
        number = functions.row_number().over(sql.Window.orderBy(raw))
        known = table.select(raw).distinct().select(raw, number.alias(which))
    else:
        ids = instance_of("`user_ids` and `item_ids`", ids, IdMap)
        got, own = table.schema[raw].dataType, "integers" if ids.values.dtype.kind == "i" else "strings"
        if isinstance(got, sql.types.StringType) != (own == "strings"):
            raise problem(f"column {name!r}", f"hold {own}, as the known ids are", got.simpleString())
        import pyarrow as pa

        pairs = {raw: pa.array(ids.values), which: pa.array(np.arange(1, len(ids) + 1, dtype=np.int32))}
        known = table.sparkSession.createDataFrame(pa.table(pairs))
    joined = table.join(known, raw, "left")
    return joined.withColumn(which, functions.coalesce(functions.col(which), functions.lit(0)))


def _in_order(sql: Any, table: Any, sides: int, ties: Sequence[str], has_time: bool) -> Any:
    """The table sorted by user and time, with ``position`` and ``remaining``.

    ``tie`` marks events that only the item and side columns distinguish from the one before.
    """
    functions = sql.functions
    decided = [*(["time"] if has_time else []), *ties]
    others = ["item", *(f"side_{place}" for place in range(sides))]
    in_time = sql.Window.partitionBy("user").orderBy(*decided, *others)
    all_of_user = sql.Window.partitionBy("user").rowsBetween(
        sql.Window.unboundedPreceding, sql.Window.unboundedFollowing
    )
    # The window functions keep these partitions, so users stay in order from one to the next.
    table = table.repartitionByRange("user")
    number = functions.count(functions.lit(1)).over(all_of_user).cast("int")
    same = functions.lit(True)
    for name in decided:
        same &= functions.col(name) == functions.lag(name).over(in_time)
    differs = functions.lit(False)
    for name in others:
        differs |= functions.col(name) != functions.lag(name).over(in_time)
    table = table.withColumn("position", functions.row_number().over(in_time) - 1)
    table = table.withColumn("tie", functions.coalesce(same & differs, functions.lit(False)))
    table = table.withColumn("remaining", number - functions.col("position") - 1)
    kept = [name for name in table.columns if not name.startswith("tie_")]
    return table.select(*kept)


def _check_ids_and_ties(sql: Any, prepared: PreparedEvents, user_ids: IdMap | None, item_ids: IdMap | None) -> None:
    functions, table = sql.functions, prepared._table
    checks = (functions.col("user") == 0, functions.col("item") == 0, functions.col("tie"))
    unknown_users, unknown_items, ties = table.agg(*map(functions.count_if, checks)).collect()[0]
    for which, name, unknown in [
        ("user", prepared.user_name, unknown_users),
        ("item", prepared.item_name, unknown_items),
    ]:
        if unknown:
            some = table.where(functions.col(which) == 0).select(f"raw_{which}").distinct().limit(6).collect()
            remedy = "Drop these rows, or make a new id map and train its tables."
            got = f"{unknown} rows with unknown {listing([row[0] for row in some])}"
            raise problem(f"column {name!r}", "hold only known values", got, remedy)
    if ties:
        where = "one user at one time" if prepared.time_name else "one user"
        warn_caller(
            f"{ties} events follow another of {where} that is equal to them in `tie_order`; these are in the order "
            "of their item ids here, and in that of the rows in Interactions.from_frame(). Name columns that say in "
            "which order such events happened: tie_order=['...'].",
            UserWarning,
        )


def _literal(sql: Any, value: Any, kind: Any) -> Any:
    """A time as a column that can be compared with times of type ``kind``, in any time zone of the session."""
    if isinstance(kind, sql.types.NumericType):
        return sql.functions.lit(value.item() if isinstance(value, np.number) else value)
    micros = value.astype("datetime64[us]")
    micros += np.timedelta64(int(micros < value), "us")  # times have no finer part: at or after the next one
    if isinstance(kind, sql.types.TimestampNTZType):
        return sql.functions.lit(str(micros)).cast("timestamp_ntz")
    return sql.functions.lit(f"{micros}+00:00").cast("timestamp")
