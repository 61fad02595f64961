"""Data sets as they lie on disk, read into one shape."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from deepmatch_ext._checks import listing, problem
from deepmatch_ext.data.interactions import Interactions

# Column names that are recognised, in lower case, the likeliest first.
_USER = ("user_id", "userid", "user", "uid")
_ITEM = ("item_id", "itemid", "item", "movieid", "movie_id", "iid")
_TIME = ("timestamp", "time", "datetime", "date")
_TITLE = ("title", "movie_title", "name")
_GENRES = ("genres", "genre", "class", "categories")

# The columns of flags in u.item, in their order.
_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in one shape, whatever files it came from.

    Args:
        name: The name of its folder or file.
        interactions: The events, with the names "user_id" and "item_id".
        users: Attributes of users as strings, indexed by raw user id, or None. It may lack users and have others.
        items: Attributes of items as strings, indexed by raw item id, or None: "title" and "genres" (as in
            "Crime|Drama") where they are known, and the file's other columns under their own names.
    """

    name: str
    interactions: Interactions
    users: pd.DataFrame | None = None
    items: pd.DataFrame | None = None


def read_dataset(
    path: str | os.PathLike[str],
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
) -> Dataset:
    """Reads a data set in one of these forms, looked for in this order:

    - a folder with one RecBole ``*.inter`` file (or that file), and ``.item`` and ``.user`` of its name beside it;
    - a folder with ``seq.npz`` (``indptr``, ``items`` and perhaps ``times``; row k is user k + 1), and ``items.csv``
      and ``users.csv`` beside it, which go by the same numbers;
    - a MovieLens folder as GroupLens ships it: ``ratings.dat`` (1M, 10M), ``u.data`` (100K) or ``ratings.csv`` (20M,
      25M, 32M, latest);
    - a file of one event a line, ``.csv`` or ``.csv.gz``, with a header.

    Ids that are all integers are read as integers, others as strings. Events of one user at one time keep the order of
    the file.

    Args:
        path: The folder or file.
        user: The column of users in a ``.csv`` or ``.inter`` file; by default a usual name is looked for.
        item: The column of items, likewise.
        time: The column of times (numbers, or dates as ISO 8601 writes them), likewise. A file with no such column is
            taken to be in the order of time.

    Raises:
        ValueError: One line: the path, what was expected there, and what was found.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "shop.csv"
        >>> _ = path.write_text("userId,sku,time\\nann,tea,2024-05-02\\nann,milk,2024-05-01\\n")
        >>> read_dataset(path, item="sku").interactions.item_ids.values.tolist()
        ['milk', 'tea']
    """
    path = Path(path)
    if not path.exists():
        raise problem(f"path {str(path)!r}", "exist", "no such file or folder")
    columns = (user, item, time)
    if path.is_file():
        if path.suffix == ".inter":
            return _recbole(path, columns)
        if path.name.endswith((".csv", ".csv.gz")):
            return _csv(path, columns)
        raise problem(f"path {str(path)!r}", "be a folder or a .csv, .csv.gz or .inter file", f"{path.name!r}")
    found = sorted(path.glob("*.inter"))
    if len(found) > 1:
        names = listing([file.name for file in found])
        raise problem(f"folder {str(path)!r}", "have one .inter file", names, "Name one of them instead.")
    if found:
        return _recbole(found[0], columns, name=path.resolve().name)
    if (path / "ratings.csv").is_file():
        data = _csv(path / "ratings.csv", columns)
        return replace(data, name=path.resolve().name, items=_movies_csv(path, data.interactions))
    for file, read in {"seq.npz": _sequences, "ratings.dat": _movielens_dat, "u.data": _movielens_100k}.items():
        if (path / file).is_file():
            if columns != (None, None, None):
                raise problem("user, item and time", f"be left out where {file} is read", listing(columns))
            return read(path)
    expected = "*.inter, seq.npz, ratings.dat, u.data or ratings.csv"
    names = listing(sorted(file.name for file in path.iterdir())) or "an empty folder"
    raise problem(f"folder {str(path)!r}", f"have one of {expected}", names, "A .csv file is named itself.")


def _recbole(path: Path, columns: tuple[str | None, ...], name: str | None = None) -> Dataset:
    format_ = {"sep": "\t", "quoting": csv.QUOTE_NONE}
    interactions = _interactions(path, _untyped(_table(path, **format_)), columns)
    attributes: dict[str, pd.DataFrame | None] = {}
    for side, names, given, ids in [
        ("user", _USER, columns[0], interactions.user_ids),
        ("item", _ITEM, columns[1], interactions.item_ids),
    ]:
        file, attributes[side] = path.with_suffix(f".{side}"), None
        if file.is_file():
            table = _table(file, dtype=str, **format_)
            # RecBole writes a list, such as that of genres, as words with spaces between.
            lists = [name.split(":")[0] for name in table.columns if str(name).endswith(":token_seq")]
            table = _untyped(table)
            genres = _find(table, _GENRES)
            if genres in lists:
                table[genres] = table[genres].str.replace(" ", "|")
            attributes[side] = _attributes(file, table, names, ids.values, given)
    return Dataset(name or path.stem, interactions, attributes["user"], attributes["item"])


def _sequences(path: Path) -> Dataset:
    file = path / "seq.npz"
    try:
        # np.load() leaves a file that it cannot read open; ours is closed whatever happens.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("indptr", "items", "times") if name in arrays}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error, TypeError) as error:
        _unreadable(file, "be a NumPy .npz file", error)
    if "indptr" not in found or "items" not in found:
        raise problem(f"file {str(file)!r}", "have the arrays indptr and items", listing(list(found)) or "neither")
    interactions = _located(file, Interactions.from_sequences, **found)
    tables: list[pd.DataFrame | None] = [
        _attributes(path / name, _table(path / name, dtype=str), names, ids.values) if (path / name).is_file() else None
        for name, names, ids in [
            ("users.csv", _USER, interactions.user_ids),
            ("items.csv", _ITEM, interactions.item_ids),
        ]
    ]
    return Dataset(path.resolve().name, interactions, *tables)


def _csv(path: Path, columns: tuple[str | None, ...]) -> Dataset:
    return Dataset(path.name.removesuffix(".gz").removesuffix(".csv"), _interactions(path, _table(path), columns))


def _movies_csv(path: Path, interactions: Interactions) -> pd.DataFrame | None:
    file = path / "movies.csv"
    if not file.is_file():
        return None
    table = _table(file, dtype=str).replace({"(no genres listed)": ""})
    return _attributes(file, table, _ITEM, interactions.item_ids.values)


def _movielens_dat(path: Path) -> Dataset:
    file = path / "ratings.dat"
    ratings = _dat(file, ["user_id", "item_id", "rating", "timestamp"])
    interactions = _interactions(file, ratings, (None, None, None))
    users = items = None
    if (path / "users.dat").is_file():
        table = _dat(path / "users.dat", ["user_id", "gender", "age", "occupation", "zip"], dtype=str)
        users = _attributes(path / "users.dat", table, _USER, interactions.user_ids.values)
    if (path / "movies.dat").is_file():
        table = _dat(path / "movies.dat", ["item_id", "title", "genres"], dtype=str)
        items = _attributes(path / "movies.dat", table, _ITEM, interactions.item_ids.values)
    return Dataset(path.resolve().name, interactions, users, items)


def _movielens_100k(path: Path) -> Dataset:
    file = path / "u.data"
    ratings = _table(file, sep="\t", header=None, names=["user_id", "item_id", "rating", "timestamp"])
    interactions = _interactions(file, ratings, (None, None, None))
    format_: dict[str, Any] = {
        "sep": "|",
        "header": None,
        "dtype": str,
        "encoding": "latin-1",
        "quoting": csv.QUOTE_NONE,
    }
    users = items = None
    if (path / "u.user").is_file():
        table = _table(path / "u.user", names=["user_id", "age", "gender", "occupation", "zip"], **format_)
        users = _attributes(path / "u.user", table, _USER, interactions.user_ids.values)
    if (path / "u.item").is_file():
        flags = _GENRES_100K.split("|")
        names = ["item_id", "title", "release_date", "video_date", "url", *flags]
        table = _table(path / "u.item", names=names, **format_)
        genres = np.full(len(table), "", dtype=object)
        for genre in flags:
            has = (table[genre] == "1").to_numpy()
            genres[has] += np.where(genres[has] == "", genre, f"|{genre}").astype(object)
        table = table[["item_id", "title", "release_date"]].assign(genres=genres)
        items = _attributes(path / "u.item", table, _ITEM, interactions.item_ids.values)
    return Dataset(path.resolve().name, interactions, users, items)


def _dat(path: Path, names: list[str], **options: Any) -> pd.DataFrame:
    """A table with '::' between its columns, which pandas' fast reader cannot take as they are."""
    text = io.BytesIO(path.read_bytes().replace(b"::", b"\t"))
    return _table(path, text, sep="\t", header=None, names=names, encoding="latin-1", quoting=csv.QUOTE_NONE, **options)


def _table(path: Path, source: Any = None, **options: Any) -> pd.DataFrame:
    """pd.read_csv() of ``path`` (or of ``source``, its text), with every way to fail told in one line."""
    rule = "be a text table"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(8192)
        if b"\0" in head:
            raise problem(f"file {str(path)!r}", rule, "binary data")
        with warnings.catch_warnings():
            # Lines longer than the header are cut with a warning; half-read data is no data.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path if source is None else source,
                index_col=False,
                keep_default_na=False,
                na_values=[""],
                low_memory=False,
                **options,
            )
    except pd.errors.EmptyDataError:
        raise problem(f"file {str(path)!r}", rule, "an empty file") from None
    except UnicodeDecodeError as error:
        _unreadable(path, f"be text in {options.get('encoding', 'utf-8')}", error)
    except (pd.errors.ParserError, pd.errors.ParserWarning, OSError, EOFError, zlib.error) as error:
        _unreadable(path, rule, error)


def _interactions(path: Path, table: pd.DataFrame, columns: tuple[str | None, ...]) -> Interactions:
    found = []
    for role, given, usual in zip(("user", "item", "time"), columns, (_USER, _ITEM, _TIME), strict=True):
        name = _find(table, usual) if given is None else given
        if given is not None and given not in table.columns:
            raise problem(f"file {str(path)!r}", f"have the {role} column {given!r}", _columns(table))
        if name is None and role != "time":
            rule = f"have a column of {role}s, such as {usual[0]!r}"
            raise problem(f"file {str(path)!r}", rule, _columns(table), f"Name it: {role}='...'.")
        found.append(name)
    user, item, time = found
    if time is not None and not pd.api.types.is_numeric_dtype(table[time]):
        try:
            table[time] = pd.to_datetime(table[time], format="ISO8601", utc=True)
        except (ValueError, TypeError, OverflowError) as error:
            _unreadable(path, f"hold numbers or ISO 8601 dates in column {time!r}", error)
    interactions = _located(path, Interactions.from_frame, table, user=user, item=item, time=time)
    return replace(interactions, user_name="user_id", item_name="item_id")


def _attributes(
    path: Path, table: pd.DataFrame, usual: tuple[str, ...], raw_ids: np.ndarray, given: str | None = None
) -> pd.DataFrame:
    """``table`` of strings, indexed by raw id, with title and genres under these names."""
    key = given if given in table.columns else _find(table, usual)
    if key is None:
        raise problem(f"file {str(path)!r}", f"have a column of ids, such as {usual[0]!r}", _columns(table))
    if raw_ids.dtype.kind == "i":
        # An id that is no integer belongs to no event. Not by way of floats, which large ids don't survive.
        keys = [_integer(text) for text in table[key]]
        whole = np.array([number is not None for number in keys], bool)
        table = table[whole].assign(**{key: np.array([number for number in keys if number is not None], np.int64)})
    repeated = table[key][table[key].duplicated()].unique()
    if len(repeated):
        raise problem(f"file {str(path)!r}", f"have each id of column {key!r} once", f"{listing(repeated)} repeated")
    renames = {_find(table, _TITLE): "title", _find(table, _GENRES): "genres"}
    return table.set_index(key).rename(columns={old: new for old, new in renames.items() if old is not None})


def _integer(text: Any) -> int | None:
    """The 64-bit integer that a string is, whole floats included."""
    if not isinstance(text, str) or not re.fullmatch(r"\s*[+-]?\d+(\.0*)?\s*", text):
        return None
    number = int(text.partition(".")[0])
    return number if -(2**63) <= number < 2**63 else None


def _find(table: pd.DataFrame, usual: tuple[str, ...]) -> str | None:
    """The column of ``table`` with the first of the ``usual`` names, whatever its case."""
    by_lower_case = {str(name).lower(): str(name) for name in reversed(table.columns)}
    return next((by_lower_case[name] for name in usual if name in by_lower_case), None)


def _untyped(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns=lambda name: str(name).split(":")[0])


def _columns(table: pd.DataFrame) -> str:
    return f"the columns {listing(list(table.columns), 20)}"


def _located(path: Path, make: Any, *args: Any, **kwargs: Any) -> Interactions:
    try:
        return make(*args, **kwargs)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _unreadable(path: Path, rule: str, error: Exception) -> NoReturn:
    # Some of pandas' messages have several lines.
    raise problem(f"file {str(path)!r}", rule, " ".join(str(error).split()) or type(error).__name__) from None
