"""Vectors in PostgreSQL with the pgvector extension: written in bulk, searched there."""

from __future__ import annotations

import json
import secrets
from typing import Any

import numpy as np

from deepmatch_ext._arrays import ALL_ITEMS, Seen, check_users
from deepmatch_ext._checks import listing, missing_extra, one_of, positive_int, problem
from deepmatch_ext._folders import read_record
from deepmatch_ext._interests import search_each
from deepmatch_ext._no_item import no_item
from deepmatch_ext.retrieval.index import spare, unit_vectors
from deepmatch_ext.retrieval.rows import raw_among, raw_ids, raw_seen, require_kind, require_unique
from deepmatch_ext.retrieval.vector_files import METRICS, check_items

_MARK = "deepmatch_ext vectors "  # begins the comment on a table that write_pgvector() made
# Of each metric: pgvector's operator, its operator class, and a score as a line of its distance.
_OPERATORS = {"inner_product": ("<#>", "vector_ip_ops", 0.0), "cosine": ("<=>", "vector_cosine_ops", 1.0)}
_MOST = 1000  # that an HNSW index can be asked for


def write_pgvector(
    connection: Any, table: str, ids: Any, vectors: Any, *, metric: str = "inner_product", hnsw: bool = False
) -> None:
    """Writes vectors to a table of PostgreSQL, ``id`` (bigint or text, the primary key) and ``vector`` (D), with COPY.

    A table that this function wrote before is replaced, in one transaction: readers see the old rows or the new ones.
    Keep other columns in a table of your own, and grant privileges again after a replacement. The extra ``pgvector``
    installs psycopg and the package pgvector.

    Args:
        connection: An open psycopg 3 connection. The work is committed, unless it is within a transaction of yours.
        table: The table's name, or "schema.table".
        ids: (V,) unique integers or strings.
        vectors: (V, D), taken as float32. pgvector takes D up to 16,000, and up to 2,000 with an index.
        metric: How the vectors are compared, "inner_product" or "cosine". It is recorded with the table.
        hnsw: Whether to build an HNSW index for the metric. Searches are then fast, but approximate.

    Raises:
        ImportError: psycopg or pgvector is not installed.
        ValueError: There is another table of this name, ids are repeated or do not fit in 64 bits, strings are empty
            or have the character NUL, vectors are not finite or, with "cosine", one is of length zero.
        psycopg.Error: The database reports an error. The existing table is unchanged.

    Example:
        >>> import psycopg
        >>> with psycopg.connect("dbname=postgres") as connection:
        ...     write_pgvector(connection, "items", ["tea", "milk"], [[3, 0], [3, 4]], metric="cosine", hnsw=True)
        ...     ids, scores = search_pgvector(connection, "items", [[0, 1]], n=1)
        >>> ids, scores.round(3)
        (array([['milk']], dtype=object), array([[0.8]], dtype=float32))
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
        _copy(cursor, new, keys, vectors)
        cursor.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (id)").format(new))
        if hnsw:
            kind = sql.SQL(operator_class)
            cursor.execute(sql.SQL("CREATE INDEX ON {} USING hnsw (vector {})").format(new, kind))
        cursor.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(new, sql.Literal(_MARK + json.dumps(about))))
        cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
        cursor.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(new, sql.Identifier(table.split(".")[-1])))


def upsert_pgvector(connection: Any, table: str, ids: Any, vectors: Any) -> None:
    """Adds items to a table that `write_pgvector` wrote, or replaces the vectors of those that it has.

    Args:
        connection: An open psycopg 3 connection. The work is committed, unless it is within a transaction of yours.
        table: The table's name, or "schema.table".
        ids: (k,) unique, integers or strings as the table's.
        vectors: (k, D), for the table's metric.

    Raises:
        ImportError: psycopg or pgvector is not installed.
        ValueError: The table is not one that `write_pgvector` wrote, or the arguments don't fit it. Nothing is written.

    Example:
        >>> import psycopg
        >>> with psycopg.connect("dbname=postgres") as connection:
        ...     write_pgvector(connection, "items", ["tea", "milk"], [[1, 0], [0, 1]])
        ...     upsert_pgvector(connection, "items", ["milk", "rice"], [[0, 3], [2, 2]])
        ...     ids, scores = search_pgvector(connection, "items", [[0, 1]], n=3)
        >>> ids.tolist(), scores.tolist()
        ([['milk', 'rice', 'tea']], [[3.0, 2.0, 0.0]])
    """
    sql = _sql()
    ids, vectors = check_items(ids, vectors)
    with connection.transaction(), connection.cursor() as cursor:
        about, kind = _about(cursor, table), _kind(cursor, table)
        keys = _keys("`ids`", ids, kind)
        _check_dimension(vectors, about)
        if about["metric"] == "cosine":
            unit_vectors("`vectors`", vectors)  # refuses those of length zero
        name, new = _identifier(table), sql.Identifier(f"new_{secrets.token_hex(6)}")
        cursor.execute(sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {})").format(new, name))
        _copy(cursor, new, keys, vectors)
        rows = "INSERT INTO {} (id, vector) SELECT id, vector FROM {} "
        query = sql.SQL(rows + "ON CONFLICT (id) DO UPDATE SET vector = excluded.vector").format(name, new)
        cursor.execute(query)
        cursor.execute(sql.SQL("DROP TABLE {}").format(new))


def remove_pgvector(connection: Any, table: str, ids: Any) -> None:
    """Takes items out of a table that `write_pgvector` wrote.

    Args:
        connection: An open psycopg 3 connection. The work is committed, unless it is within a transaction of yours.
        table: The table's name, or "schema.table".
        ids: (k,) unique, integers or strings as the table's. k may be 0.

    Raises:
        ImportError: psycopg or pgvector is not installed.
        ValueError: The table is not one that `write_pgvector` wrote or does not have one of the items, one is repeated,
            or no item would be left. Nothing is removed then.

    Example:
        >>> import psycopg
        >>> with psycopg.connect("dbname=postgres") as connection:
        ...     write_pgvector(connection, "items", [7, 8, 9], [[1, 0], [0, 1], [1, 1]])
        ...     remove_pgvector(connection, "items", [9])
        ...     ids, _ = search_pgvector(connection, "items", [[2, 1]], n=2)
        >>> ids.tolist()
        [[7, 8]]
    """
    sql = _sql()
    ids = raw_ids("`ids`", ids)
    require_unique("`ids`", ids, "Name each item once.")
    with connection.transaction(), connection.cursor() as cursor:
        _about(cursor, table)
        kind, name = _kind(cursor, table), _identifier(table)
        query = sql.SQL(f"DELETE FROM {{}} WHERE id = ANY(%s::{kind}[]) RETURNING id").format(name)
        removed = {item for (item,) in cursor.execute(query, [_keys("`ids`", ids, kind)]).fetchall()}
        unknown = [item for item in ids.tolist() if item not in removed]
        if unknown:
            raise problem("`ids`", "be in the table", f"{listing(unknown)}, which it does not have")
        if removed and not cursor.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(name)).fetchone()[0]:
            raise problem("`ids`", "leave an item in the table", f"all {len(removed)}", "Drop the table.")


def search_pgvector(
    connection: Any,
    table: str,
    vectors: Any,
    n: int,
    *,
    exclude: Seen | None = None,
    among: Any | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Each user's best ``n`` items of a table that `write_pgvector` wrote, best first, by the table's metric.

    Without an index in the database the search is exact. PostgreSQL removes excluded items only after the search in an
    index, so HNSW is asked for ``n`` items plus as many as the user has excluded, up to 1000, or for more if the
    connection's ``hnsw.ef_search`` is larger. If fewer than ``n`` items remain, all rows of the table are read for that
    user. The connection's settings and an open transaction are not changed.

    Args:
        connection: An open psycopg 3 connection.
        table: The table's name, or "schema.table".
        vectors: Users' vectors, (N, D); or (N, K, D) for K interests: an item's score is then its best over the
            K, and it is returned once. There is a query for each vector; of equal scores the lowest id comes first.
        n: How many items to return, at least 1.
        exclude: The items that a user must not get, by their ids, ``(indptr (N + 1,), ids)``.
        among: The items that may be found: ids (m,) for all users, or a pair ``(indptr (N + 1,), ids)`` with a set for
            each, as in `VectorIndex.search`. They are sent with every user's query. None: all items.

    Returns:
        ``(ids, scores)``: (N, n) int64 or objects that are all ``str``, and (N, n) float32. If fewer than ``n``
        items are left for a user, the row is padded with score -inf and the id ``""``, or for integers the first of 0,
        -1, -2, ... that is not an id of the table.

    Raises:
        ImportError: psycopg or pgvector is not installed.
        ValueError: The table is not one that `write_pgvector` wrote, the arguments don't fit it, or it has none of the
            items of an ``among`` for all users.

    Example:
        >>> import psycopg
        >>> users, had = [[2, 1], [0, 1]], ([0, 1, 1], [9])  # the first user has had item 9, the second nothing
        >>> with psycopg.connect("dbname=postgres") as connection:
        ...     write_pgvector(connection, "items", [7, 8, 9], [[1, 0], [0, 2], [1, 1]])
        ...     ids, scores = search_pgvector(connection, "items", users, n=2, exclude=had)
        >>> ids.tolist(), scores.tolist()
        ([[7, 8], [8, 9]], [[2.0, 2.0], [2.0, 1.0]])
    """
    sql = _sql()
    n = positive_int("`n`", n)
    vectors, _ = check_users("`vectors`", vectors, "N")
    # It only reads: a rollback undoes its settings, which a transaction of the caller's would keep.
    with connection.transaction(force_rollback=True), connection.cursor(binary=True) as cursor:
        about, kind = _about(cursor, table), _kind(cursor, table)
        _check_dimension(vectors, about)
        if about["metric"] == "cosine":
            vectors = unit_vectors("`vectors`", vectors)
        if exclude is None:
            exclude = np.zeros(len(vectors) + 1, np.int64), np.empty(0, np.int64)
        indptr, seen = raw_seen("`exclude`", exclude, len(vectors))
        _keys("the ids of `exclude`", seen, kind)  # refuses those that the database can't hold
        allowed = None if among is None else _allowed(cursor, table, kind, among, vectors)
        operator, _, best = _OPERATORS[about["metric"]]
        query = (
            "SELECT id, {best} - (vector {operator} {user}::text::vector) FROM {table} "
            "WHERE id <> ALL({seen}::{kind}[]) {only} "
            "ORDER BY (vector {operator} {user}::text::vector) {change} LIMIT {n}"
        )
        parts = {
            "best": sql.Literal(best), "operator": sql.SQL(operator), "table": _identifier(table), "n": sql.Literal(n),
            "kind": sql.SQL(kind), "user": sql.Placeholder("user"), "seen": sql.Placeholder("seen"),
            "only": sql.SQL("" if allowed is None else f"AND id = ANY(%(allowed)s::{kind}[])"),
        }  # fmt: skip
        # No index has the order of a sum, so the second reads the whole table.
        by_index, by_all = (sql.SQL(query).format(**parts, change=sql.SQL(change)) for change in ("", "+ 0"))
        known: list[Any] = []  # ids that are found, in order: what `search_each` knows as rows

        def search(vectors: np.ndarray, n: int, seen: Seen | None) -> tuple[np.ndarray, np.ndarray]:
            assert seen is not None
            found = _found(cursor, by_index, by_all, vectors, n, seen, allowed)
            known[:] = sorted({item for items in found for item, _ in items})
            row_of = {item: row for row, item in enumerate(known)}
            rows, scores = np.full((len(vectors), n), -1), np.full((len(vectors), n), -np.inf, np.float32)
            for user, items in enumerate(found):
                rows[user, : len(items)] = [row_of[item] for item, _ in items]
                scores[user, : len(items)] = [score for _, score in items]
            return rows, scores

        rows, scores = search_each(search, vectors, n, (indptr, seen))
        if (rows < 0).any():
            known.append(_no_item(cursor, table, kind))  # the last, for -1
    return np.array(known, object if kind == "text" else np.int64)[rows], scores


def _copy(cursor: Any, table: Any, keys: list[Any], vectors: np.ndarray) -> None:
    """Rows into a table, in bulk."""
    from pgvector import Vector

    with cursor.copy(_sql().SQL("COPY {} (id, vector) FROM STDIN WITH (FORMAT BINARY)").format(table)) as copy:
        # As bytes: to know the type `vector`, psycopg would have to be told of it on the caller's connection.
        copy.set_types(["text" if isinstance(keys[0], str) else "int8", "bytea"])
        for key, vector in zip(keys, vectors, strict=True):
            copy.write_row((key, Vector(vector).to_binary()))


def _check_dimension(vectors: np.ndarray, about: dict[str, Any]) -> None:
    if vectors.shape[-1] != about["dimension"]:
        raise problem("`vectors`", f"have the table's dimension, {about['dimension']}", f"shape {vectors.shape}")


def _allowed(cursor: Any, table: str, kind: str, among: Any, vectors: np.ndarray) -> list[list[Any]]:
    """The ids that each vector's user may get, one list for each of the vectors (N, D) or (N, K, D)."""
    what, count = "the ids of `among`", len(vectors)
    interests = 1 if vectors.ndim == 2 else vectors.shape[1]
    ids = raw_among("`among`", among, count)
    if isinstance(ids, tuple):
        keys, indptr = _keys(what, ids[1], kind), ids[0]
        return [keys[indptr[k] : indptr[k + 1]] for k in range(count) for _ in range(interests)]
    keys = _keys(what, ids, kind)
    query = _sql().SQL(f"SELECT EXISTS (SELECT FROM {{}} WHERE id = ANY(%s::{kind}[]))").format(_identifier(table))
    if not cursor.execute(query, [keys]).fetchone()[0]:
        raise problem("`among`", "hold an item of the table", f"{listing(ids)}, which it does not have", ALL_ITEMS)
    return [keys] * (count * interests)


def _found(
    cursor: Any,
    by_index: Any,
    by_all: Any,
    vectors: np.ndarray,
    n: int,
    seen: Seen,
    allowed: list[list[Any]] | None,
) -> list[list[Any]]:
    """For each vector (N, D) the ids and scores that the first query finds, or if they are too few, the second."""
    from pgvector import Vector

    found: list[list[Any]] = [[]] * len(vectors)
    asked, asking = np.minimum(n + spare(np.diff(seen[0])), _MOST), 0
    for user in np.argsort(asked, kind="stable"):
        if asked[user] > asking:
            asking = int(asked[user])
            _widen(cursor, asking)
        left_out = seen[1][seen[0][user] : seen[0][user + 1]].tolist()
        values = {"user": Vector(vectors[user]).to_text(), "seen": left_out}
        wanted = n
        if allowed is not None:
            values["allowed"] = allowed[user]
            wanted = min(n, len(allowed[user]))
        found[user] = cursor.execute(by_index, values).fetchall()
        if len(found[user]) < wanted:
            found[user] = cursor.execute(by_all, values).fetchall()
    return found


def _widen(cursor: Any, asked: int) -> None:
    """Makes HNSW look for at least that many, until the transaction ends."""
    # Before the extension's library is loaded the setting has no value, which means 40.
    held = "coalesce(nullif(current_setting('hnsw.ef_search', true), '')::int, 40)"
    query = f"SELECT set_config('hnsw.ef_search', %(asked)s::text, true) WHERE {held} < %(asked)s::int"
    cursor.execute(query, {"asked": asked})


def _no_item(cursor: Any, table: str, kind: str) -> int | str:
    """A value that is not an id of the table."""
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


def _keys(what: str, ids: np.ndarray, kind: str | None = None) -> list[Any]:
    """Ids in types that PostgreSQL's bigint or text can hold, of that ``kind`` if it is given."""
    if kind is not None:
        require_kind(what, ids, kind == "text", "the table's")
    keys = ids.tolist()
    if ids.dtype == object:
        wrong = [key for key in keys if "\0" in key]
        if wrong:
            raise problem(what, "have no character NUL, which PostgreSQL's text can't hold", listing(wrong))
    elif len(ids) and ids.max() > np.iinfo(np.int64).max:
        raise problem(what, "fit in PostgreSQL's bigint", f"{ids.max()}", "Pass such ids as strings.")
    return keys


def _sql() -> Any:
    """psycopg's module that composes SQL, if everything needed here is installed."""
    try:
        import pgvector  # noqa: F401
        from psycopg import sql
    except ImportError as error:
        raise missing_extra("PostgreSQL", "pgvector psycopg[binary]", "pgvector") from error
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
