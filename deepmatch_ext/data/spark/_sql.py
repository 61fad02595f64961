"""PySpark, imported when it is needed."""

from __future__ import annotations

from typing import Any

from deepmatch_ext._checks import missing_extra


def spark_sql(what: str) -> Any:
    """``pyspark.sql``, with ``functions`` and ``types``."""
    try:
        import pyspark.sql.functions
        import pyspark.sql.types
    except ImportError as error:
        raise missing_extra(what, "pyspark", "spark") from error
    return pyspark.sql


def column_named(sql: Any, name: str) -> Any:
    """A column by its name, with any characters."""
    quoted = name.replace("`", "``")
    return sql.functions.col(f"`{quoted}`")
