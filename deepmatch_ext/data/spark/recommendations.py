"""Recommendations for all users, from an export, on Spark's executors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from deepmatch_ext._checks import as_path, as_text, instance_of, listing, no_duplicates, positive_int, problem
from deepmatch_ext._frames import Lists, array_of, as_array
from deepmatch_ext.data.ids import raw_values
from deepmatch_ext.data.spark._sql import column_named, spark_sql

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_FORMAT = 1  # of an export's manifest


def recommend(
    users: DataFrame,
    export: str | os.PathLike[str],
    n: int,
    *,
    user: str = "user_id",
    seen: str | None = "seen",
    among: Any = None,
    batch_size: int = 1024,
) -> DataFrame:
    """Recommendations for all users, from an export of `export_recommender`, on Spark's executors.

    Each Python worker loads the export once, so it needs this package, TensorFlow, and the export under the same path.

    Args:
        users: One row per user, with a column for each input of the export, under the model's names. A history is a
            list of up to T values; only the first T of a longer one count. If a column of lengths is missing, the
            values are counted.
        export: A version's folder, as `export_recommender` returned it.
        n: Items per user, from 1 to the number of items.
        user: The column of user ids, which is passed through.
        seen: The column with each user's list of items not to recommend, in the export's ids. None: nothing is left
            out.
        among: The items that may be recommended, such as those in stock, in the export's ids; unknown ones are ignored.
            None: all.
        batch_size: The number of users computed at once.

    Returns:
        The column ``user``, ``item_ids`` (n ids) and ``scores`` (n), best first. If fewer than ``n`` items are left,
        the lists are padded with the export's ``no_item`` and the score -inf.

    Raises:
        ImportError: PySpark is not installed.
        ValueError: There is no export in the folder, ``among`` holds ids of another type than the export's, or a column
            is missing or does not fit the export's input. A missing value and an id out of range are found only while
            Spark runs: its error then names the column.

    Example:
        >>> import tempfile
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from pyspark.sql import SparkSession
        >>> from deepmatch_ext import YoutubeDNN
        >>> from deepmatch_ext.data import IdMap
        >>> from deepmatch_ext.serving import export_recommender
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 4, 8, embedding_name="item"), 5, "mean", "hist_len")
        >>> model, names = YoutubeDNN([history], [SparseFeat("item", 4, 8)]), IdMap(["tea", "milk", "bread"])
        >>> export = export_recommender(model, tempfile.mkdtemp(), item_ids=names, id_maps={"hist_item": names})
        >>> spark = SparkSession.builder.getOrCreate()
        >>> columns = "user_id string, hist_item array<string>, seen array<string>"
        >>> users = spark.createDataFrame([("ann", ["milk", "tea"], ["tea", "milk"])], columns)
        >>> recommend(users, export, n=1).select("user_id", "item_ids").show()
        +-------+--------+
        |user_id|item_ids|
        +-------+--------+
        |    ann| [bread]|
        +-------+--------+
        <BLANKLINE>
    """
    sql = spark_sql("recommend()")
    instance_of("`users`", users, sql.DataFrame)
    manifest = _manifest(export)
    n, batch_size = positive_int("`n`", n), positive_int("`batch_size`", batch_size)
    if n > manifest["items"]:
        raise problem("`n`", f"be at most {manifest['items']}, the items of the export", n)
    fields = {each.name: each.dataType for each in users.schema.fields}
    taken = [as_text("`user`", user), *_input_columns(sql, manifest, fields)]
    if seen is not None:
        remedy = "seen=None leaves nothing out." if seen not in fields else ""
        _check_input(sql, as_text("`seen`", seen), fields, manifest["item_ids"], True, remedy)
        taken.append(seen)
    allowed = None if among is None else _among(among, manifest)
    no_duplicates("the columns of the recommendations", [user, "item_ids", "scores"])
    if user not in fields:
        raise problem(f"column {user!r}", "be in `users`", f"the columns {listing(list(fields), 20)}")
    types = sql.types
    id_type = types.StringType() if manifest["item_ids"] == "string" else types.LongType()
    schema = types.StructType(
        [
            types.StructField(user, fields[user]),
            types.StructField("item_ids", types.ArrayType(id_type)),
            types.StructField("scores", types.ArrayType(types.FloatType())),
        ]
    )
    names = list(dict.fromkeys(taken))
    # Only plain values: an executor imports the function, and gets nothing else from the driver.
    work = partial(_recommended, str(export), manifest, names, n, user, seen, allowed, batch_size)
    # PySpark reads a name with a dot as a field of a struct.
    return users.select(*[column_named(sql, name).alias(f"c{place}") for place, name in enumerate(names)]).mapInArrow(
        work, schema
    )


def _recommended(
    export: str,
    manifest: dict[str, Any],
    names: Sequence[str],
    n: int,
    user: str,
    seen: str | None,
    among: list[Any] | None,
    batch_size: int,
    batches: Iterable[Any],
) -> Iterator[Any]:
    """What an executor does: turns Arrow batches of users into Arrow batches of recommendations."""
    import pyarrow as pa
    import tensorflow as tf

    id_type = manifest["item_ids"]
    signature = "recommend_among" if among is not None else "recommend" if seen is None else "recommend_unseen"
    recommender = _loaded(export).signatures[signature]
    more = {} if among is None else {"among": tf.constant(among, id_type)}
    for batch in batches:
        for start in range(0, batch.num_rows, batch_size):
            part = batch.slice(start, batch_size)
            columns = dict(zip(names, part.columns, strict=True))
            inputs = _inputs(manifest, columns)
            if seen is not None:
                inputs["seen"] = _padded(seen, columns[seen], None, manifest["no_item"])
            elif among is not None:
                inputs["seen"] = np.empty((part.num_rows, 0))
            dtypes = {name: about["dtype"] for name, about in manifest["inputs"].items()}
            dtypes |= {"seen": id_type}
            tensors = {name: tf.constant(values, dtypes[name]) for name, values in inputs.items()}
            found = recommender(**tensors, **more, n=tf.constant(n))
            ids, scores = (found[name].numpy().ravel() for name in ("item_ids", "scores"))
            if id_type == "string":
                ids = pa.array(ids.tolist(), pa.binary()).cast(pa.string())
            ends = pa.array(np.arange(0, (part.num_rows + 1) * n, n, dtype=np.int32))
            lists = [pa.ListArray.from_arrays(ends, pa.array(values)) for values in (ids, scores)]
            yield pa.RecordBatch.from_arrays([columns[user], *lists], [user, "item_ids", "scores"])


@lru_cache(maxsize=1)
def _loaded(export: str) -> Any:
    """The SavedModel, loaded once in a process."""
    import tensorflow as tf

    # Spark runs a worker for each of its cores, and sets this variable.
    with suppress(RuntimeError):  # TensorFlow has begun to compute in this process
        tf.config.threading.set_intra_op_parallelism_threads(int(os.environ.get("OMP_NUM_THREADS", "0")))
    return tf.saved_model.load(export)


def _inputs(manifest: dict[str, Any], columns: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a signature, without `n` and `seen`, from Arrow columns under the model's names."""
    about_inputs = manifest["inputs"]
    inputs: dict[str, np.ndarray] = {}
    lengths: dict[str, tuple[np.ndarray, int]] = {}
    for argument, about in about_inputs.items():
        name, kind = about["name"], about["kind"]
        if kind == "length":
            continue
        width = int(about["shape"][0])
        if kind in ("history", "weights"):
            values = _padded(name, columns[name], width, about.get("padding", 0))
            if kind == "history" and about["length"] is not None:
                counted = columns[name].value_lengths().to_numpy()
                lengths.setdefault(about["length"], (counted, width))
        elif width > 1:
            values = _padded(name, columns[name], None, 0)
            if values.shape[1:] != (width,) or (columns[name].value_lengths().to_numpy() != width).any():
                raise problem(f"column {name!r}", f"have {width} values in each row", "fewer or more")
        else:
            values = _values(name, columns[name])
        if kind in ("id", "history") and "vocabulary_size" in about:
            _check_range(name, values, about["vocabulary_size"])
        inputs[argument] = values.reshape(-1, *about["shape"])
    for argument, (counted, width) in lengths.items():
        name = about_inputs[argument]["name"]
        length = _values(name, columns[name]) if name in columns else counted
        inputs[argument] = np.minimum(length, width).reshape(-1, 1)
    return inputs


def _values(name: str, column: Any) -> np.ndarray:
    """A column of single values, (B,)."""
    if column.null_count:
        raise problem(f"column {name!r}", "have no missing value", f"{column.null_count} missing")
    values = array_of(f"column {name!r}", column)
    assert isinstance(values, np.ndarray)
    return values


def _padded(name: str, column: Any, width: int | None, padding: Any) -> np.ndarray:
    """A column of lists, (B, width); None: as wide as the longest."""
    missing = column.null_count + column.flatten().null_count
    if missing:
        raise problem(f"column {name!r}", "have no missing list and no missing value in one", f"{missing} missing")
    lists = array_of(f"column {name!r}", column)
    assert isinstance(lists, Lists)
    return lists.padded(int(lists.lengths.max(initial=0)) if width is None else width, padding)


def _check_range(name: str, values: np.ndarray, vocabulary_size: int) -> None:
    wrong = (values < 0) | (values >= vocabulary_size)
    if wrong.any():
        remedy = "The export takes raw ids if it was written with id_maps={...}."
        raise problem(f"column {name!r}", f"lie in 0..{vocabulary_size - 1}", listing(np.unique(values[wrong])), remedy)


def _among(among: Any, manifest: dict[str, Any]) -> list[Any]:
    """The allowed ids, of the export's type."""
    ids = raw_values("`among`", as_array(among).ravel())
    if not len(ids):
        raise problem("`among`", "hold at least one item id", "none", "Leave it out to recommend all items.")
    kind = {"string": "strings"}.get(manifest["item_ids"], "integers")
    if (ids.dtype == object) != (kind == "strings"):
        raise problem("`among`", f"hold {kind}, as the export's item ids are", listing(ids))
    return ids.tolist()


def _manifest(export: str | os.PathLike[str]) -> dict[str, Any]:
    path = as_path("`export`", export) / "manifest.json"
    if not path.is_file():
        remedy = "export_recommender() returns it."
        raise problem(
            "`export`", "be the folder of an export's version", f"{str(export)!r}, without {path.name}", remedy
        )
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest.get("format") != _FORMAT:
        raise problem("`export`", f"be of format {_FORMAT}", f"format {manifest.get('format')!r} in {str(path)!r}")
    return manifest


def _input_columns(sql: Any, manifest: dict[str, Any], fields: dict[str, Any]) -> list[str]:
    """The columns of ``users`` that the export reads."""
    columns = []
    for about in manifest["inputs"].values():
        name, kind = about["name"], about["kind"]
        if kind == "length" and name not in fields:
            continue
        is_list = kind in ("history", "weights") or (kind == "numbers" and about["shape"] != [1])
        _check_input(sql, name, fields, about["dtype"], is_list)
        columns.append(name)
    return columns


def _check_input(sql: Any, name: str, fields: dict[str, Any], dtype: str, is_list: bool, remedy: str = "") -> None:
    """Refuses a column that the export can't read as ``dtype``."""
    if name not in fields:
        raise problem(f"column {name!r}", "be in `users`", f"the columns {listing(list(fields), 20)}", remedy)
    types = sql.types
    families = {"string": ("text", types.StringType), "int32": ("integers", types.IntegralType)}
    families["int64"] = families["int32"]
    family, kind = families.get(dtype, ("numbers", (types.IntegralType, types.FloatType, types.DoubleType)))
    got = fields[name]
    fits = isinstance(got, types.ArrayType) and isinstance(got.elementType, kind) if is_list else isinstance(got, kind)
    if not fits:
        rule = f"hold {'lists of ' if is_list else ''}{family}, as the export reads it"
        raise problem(f"column {name!r}", rule, got.simpleString(), remedy)
