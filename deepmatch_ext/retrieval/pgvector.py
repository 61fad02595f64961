"""Vectors in PostgreSQL with the pgvector extension: written in bulk, searched there."""

from __future__ import annotations

import json
import secrets
import struct
from typing import Any

import numpy as np

from deepmatch_ext._arrays import Seen, check_floats, check_seen
from deepmatch_ext._checks import listing, missing_extra, one_of, positive_int, problem
from deepmatch_ext._no_item import no_item
from deepmatch_ext.retrieval.index import spare, unit_vectors
from deepmatch_ext.retrieval.rows import raw_ids
from deepmatch_ext.retrieval.vector_files import METRICS, check_items, read_record

_MARK = "deepmatch_ext vectors "  # begins the comment on a table that write_pgvector() made
# Of each metric: pgvector's operator, its operator class, and a score as a line of its distance.
_OPERATORS = {"inner_product": ("<#>", "vector_ip_ops", 0.0), "cosine": ("<=>", "vector_cosine_ops", 1.0)}
_MOST = 1000  # that an HNSW index can be asked for


def write_pgvector(
    connection: Any, table: str, ids: Any, vectors: Any, *, metric: str = "inner_product", hnsw: bool = False
) -> None:
    """Writes vectors to a table of PostgreSQL, ``id`` (bigint or text, the primary key) and ``vector`` (D), by COPY.

    A table that this function wrote before is replaced, in one transaction: readers see the old rows or the new. Other
    columns belong in a table of yours beside it, and grants have to be given anew. The connection is psycopg's,
    which the extra ``pgvector`` brings.

    Args:
        connection: An open psycopg 3 connection. The work is committed, unless it is within a transaction of yours.
        table: The table's name, or "schema.table".
        ids: (V,) unique integers or strings.
        vectors: (V, D), taken as float32. pgvector takes D up to 16,000, and up to 2,000 with an index.
        metric: What the vectors are to be compared by, "inner_product" or "cosine". It is recorded with the table.
        hnsw: Whether to build an HNSW index for the metric. Searches are fast then, and approximate.

    Raises:
        ImportError: psycopg is not installed.
        ValueError: There is another table of this name, ids are repeated or are no 64-bit integers, strings are empty
            or have the character NUL, vectors are not finite or, with "cosine", one is of length zero.
        psycopg.Error: What the database refuses. The former table is as it was.
    """
    sql = _sql()
    operator_class = _OPERATORS[one_of("`metric`", metric, METRICS)][1]
    ids, vectors = check_items(ids, vectors)
    if metric == "cosine":
        unit_vectors("`vectors`", vectors)  # refuses those of length zero; the table gets the vectors as they are
    keys = _keys("`ids`", ids)
    name, new = _identifier(table), _identifier(table, f"new_{secrets.token_hex(6)}")
    about = {"format_version": 1, "metric": metric, "dimension": vectors.shape[1]}
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
        if _exists(cursor, table):
            _about(cursor, table)
        kind, size = sql.SQL("text" if ids.dtype == object else "bigint"), sql.Literal(vectors.shape[1])
        cursor.execute(sql.SQL("CREATE TABLE {} (id {}, vector vector({}) NOT NULL)").format(new, kind, size))
        with cursor.copy(sql.SQL("COPY {} (id, vector) FROM STDIN WITH (FORMAT BINARY)").format(new)) as copy:
            for part in _binary_rows(keys, vectors):
                copy.write(part)
        cursor.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(new))
        if hnsw:
            kind = sql.SQL(operator_class)
            cursor.execute(sql.SQL("CREATE INDEX ON {} USING hnsw (vector {})").format(new, kind))
        cursor.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(new, sql.Literal(_MARK + json.dumps(about))))
        cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
        cursor.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(new, sql.Identifier(table.split(".")[-1])))


def search_pgvector(
    connection: Any, table: str, vectors: Any, n: int, *, exclude: Seen | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Each user's ``n`` items of a table that `write_pgvector` wrote, best first, by the table's metric.

    Without an index in the database it is exact. PostgreSQL leaves excluded items out after it has asked an index, so
    HNSW is asked for ``n`` and as many more as the user has excluded, up to 1000, or for more where the connection's
    ``hnsw.ef_search`` says so. Where ``n`` don't come of it, all rows of the table are looked at for that user. The
    connection's settings and an open transaction are as before afterwards.

    Args:
        connection: An open psycopg 3 connection.
        table: The table's name, or "schema.table".
        vectors: Users' vectors, (N, D).
        n: How many items to return, at least 1.
        exclude: The items that a user must not get, by their ids, ``(indptr (N + 1,), ids)``.

    Returns:
        ``(ids, scores)``: (N, n) int64 or objects that are all ``str``, and (N, n) float32. Where fewer than ``n``
        items are left for a user, the rest of the row has score -inf, and for the id ``""``, or the first of 0, -1,
        -2, ... that is no id of the table.

    Raises:
        ImportError: psycopg is not installed.
        ValueError: The table is not one that `write_pgvector` wrote, or the arguments don't fit it.
    """
    sql = _sql()
    n = positive_int("`n`", n)
    vectors, _ = check_floats("`vectors`", ["(N, D)"], vectors)
    # It only reads: a rollback undoes its settings, which a transaction of the caller's would keep.
    with connection.transaction(force_rollback=True), connection.cursor(binary=True) as cursor:
        about, kind = _about(cursor, table), _kind(cursor, table)
        if vectors.shape[1] != about["dimension"]:
            raise problem("`vectors`", f"have the table's dimension, {about['dimension']}", f"shape {vectors.shape}")
        if about["metric"] == "cosine":
            vectors = unit_vectors("`vectors`", vectors)
        if exclude is None:
            exclude = np.zeros(len(vectors) + 1, np.int64), np.empty(0, np.int64)
        indptr, seen = _excluded(exclude, len(vectors), kind)
        operator, _, best = _OPERATORS[about["metric"]]
        query = (
            "SELECT id, {best} - (vector {operator} {user}::text::vector) FROM {table} "
            "WHERE id <> ALL({seen}::{kind}[]) ORDER BY (vector {operator} {user}::text::vector) {change} LIMIT {n}"
        )
        parts = {
            "best": sql.Literal(best), "operator": sql.SQL(operator), "table": _identifier(table), "n": sql.Literal(n),
            "kind": sql.SQL(kind), "user": sql.Placeholder("user"), "seen": sql.Placeholder("seen"),
        }  # fmt: skip
        # No index has the order of a sum, so the second reads the whole table.
        by_index, by_all = (sql.SQL(query).format(**parts, change=sql.SQL(change)) for change in ("", "+ 0"))
        ids = np.zeros((len(vectors), n), object if kind == "text" else np.int64)
        scores = np.full((len(vectors), n), -np.inf, np.float32)
        filled = np.zeros(len(vectors), np.int64)
        asked = np.minimum(n + spare(np.diff(indptr)), _MOST)
        asking = 0
        for row in np.argsort(asked, kind="stable"):
            if asked[row] > asking:
                asking = int(asked[row])
                _widen(cursor, asking)
            text = "[" + ",".join(map(repr, vectors[row].tolist())) + "]"
            user = {"user": text, "seen": seen[indptr[row] : indptr[row + 1]]}
            found = cursor.execute(by_index, user).fetchall()
            if len(found) < n:
                found = cursor.execute(by_all, user).fetchall()
            filled[row] = len(found)
            for at, (item, score) in enumerate(found):
                ids[row, at], scores[row, at] = item, score
        empty = np.arange(n) >= filled[:, None]
        if empty.any():
            ids[empty] = _no_item(cursor, table, kind)
    return ids, scores


def _widen(cursor: Any, asked: int) -> None:
    """Has HNSW look for that many at least, until the transaction ends."""
    # Before the extension's library is in use the setting has no value, and stands for 40.
    held = "coalesce(nullif(current_setting('hnsw.ef_search', true), '')::int, 40)"
    query = f"SELECT set_config('hnsw.ef_search', %(asked)s::text, true) WHERE {held} < %(asked)s::int"
    cursor.execute(query, {"asked": asked})


def _no_item(cursor: Any, table: str, kind: str) -> int | str:
    """What is no id of the table."""
    if kind == "text":
        return ""
    query = _sql().SQL("SELECT id FROM {} WHERE id <= 0 ORDER BY id DESC LIMIT %s").format(_identifier(table))
    most = 1
    while True:  # as far as 0, -1, -2, ... are ids: mostly 0 is none, or the only one
        found = [item for (item,) in cursor.execute(query, [most]).fetchall()]
        value = no_item("the table's ids", np.array(found, np.int64))
        if -int(value) < most:
            return value
        most *= 100


def _excluded(exclude: Any, users: int, kind: str) -> tuple[np.ndarray, list[Any]]:
    if not isinstance(exclude, tuple | list) or len(exclude) != 2:
        raise problem("`exclude`", "be a pair (indptr, ids)", type(exclude).__name__)
    seen = raw_ids("the ids of `exclude`", exclude[1])
    if len(seen) and (seen.dtype == object) != (kind == "text"):
        own, other = ("strings", "integers") if kind == "text" else ("integers", "strings")
        raise problem("the ids of `exclude`", f"be {own}, as the table's ids are", f"{other}, {listing(seen)}")
    indptr, _ = check_seen("`exclude`", (exclude[0], np.zeros(len(seen), np.int64)), users)
    return indptr, _keys("the ids of `exclude`", seen)


def _keys(what: str, ids: np.ndarray) -> list[Any]:
    """Ids as what PostgreSQL's bigint or text can hold."""
    keys = ids.tolist()
    if ids.dtype == object:
        wrong = [key for key in keys if "\0" in key]
        if wrong:
            raise problem(what, "have no character NUL, which PostgreSQL's text can't hold", listing(wrong))
    elif len(ids) and ids.max() > np.iinfo(np.int64).max:
        raise problem(what, "fit in PostgreSQL's bigint", f"{ids.max()}", "Pass such ids as strings.")
    return keys


def _binary_rows(keys: list[Any], vectors: np.ndarray) -> Any:
    """The bytes of PostgreSQL's binary COPY, of which each field is its length and its value, the big end first."""
    size = vectors.shape[1]
    # pgvector's own format: the dimension and a zero, two bytes each, and the numbers.
    head = struct.pack(">ihh", 4 + 4 * size, size, 0)
    yield b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
    for start in range(0, len(keys), 4096):
        part = np.ascontiguousarray(vectors[start : start + 4096], ">f4")
        rows = []
        for key, vector in zip(keys[start : start + 4096], part, strict=True):
            value = key.encode() if isinstance(key, str) else struct.pack(">q", key)
            rows += [struct.pack(">hi", 2, len(value)), value, head, vector.tobytes()]
        yield b"".join(rows)
    yield struct.pack(">h", -1)


def _sql() -> Any:
    try:
        from psycopg import sql
    except ImportError as error:
        raise missing_extra("PostgreSQL", "psycopg[binary]", "pgvector") from error
    return sql


def _identifier(table: str, last: str | None = None) -> Any:
    sql = _sql()
    parts = table.split(".")
    return sql.Identifier(*parts[:-1], last or parts[-1])


def _exists(cursor: Any, table: str) -> bool:
    return cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [_quoted(cursor, table)]).fetchone()[0]


def _about(cursor: Any, table: str) -> dict[str, Any]:
    """What the comment on a table says of its vectors."""
    what, rule = f"table {table!r}", "be one that write_pgvector() wrote"
    if not _exists(cursor, table):
        raise problem(what, rule, "no such table")
    query = "SELECT coalesce(obj_description(to_regclass(%s), 'pg_class'), '')"
    comment = cursor.execute(query, [_quoted(cursor, table)]).fetchone()[0]
    if not comment.startswith(_MARK):
        raise problem(what, rule, "another table", "Take another name, or drop it first.")
    return read_record(f"the comment on {what}", comment[len(_MARK) :], {"metric": METRICS, "dimension": int})


def _kind(cursor: Any, table: str) -> str:
    query = "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'id'"
    found = cursor.execute(query, [_quoted(cursor, table)]).fetchone()
    if found not in (("bigint",), ("text",)):
        raise problem(f"the column 'id' of table {table!r}", "be bigint or text", found[0] if found else "none")
    return found[0]


def _quoted(cursor: Any, table: str) -> str:
    return _identifier(table).as_string(cursor)
