"""Data sets as they lie on disk, read into one shape."""

from __future__ import annotations

import csv
import glob
import os
import re
import warnings
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from deepmatch_ext._checks import as_flag, as_path, listing, problem
from deepmatch_ext.data.events import EXAMPLES, INFER, Reading, find, plain, read_events
from deepmatch_ext.data.ids import IdMap
from deepmatch_ext.data.interactions import Interactions
from deepmatch_ext.data.tables import (
    Table,
    json_table,
    parquet_table,
    suffixes,
    text_table,
    unreadable,
    whole_number,
)

_TITLE = ("title", "movietitle", "name")
_GENRES = ("genres", "genre", "class", "categories")

# The columns of flags in u.item, in their order.
_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
)

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")

# The arguments of pandas that a form takes, beside those that `Reading` has for all.
_BYTES = ("encoding", "encoding_errors", "compression")
_TEXT = (
    *("sep", "header", "names", "dtype", *_BYTES),
    *("quoting", "quotechar", "doublequote", "escapechar", "comment", "skiprows", "skipinitialspace"),
)
_OF_FORM: dict[str, tuple[str, ...]] = {
    "text": _TEXT,
    "JSON lines": ("lines", *_BYTES),
    "Parquet": (),
    ".inter": _BYTES,
}

# RecBole's types of columns. The last two hold several values a row, with spaces between.
_RECBOLE = ("token", "float", "token_seq", "float_seq")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in one shape, whatever files it came from. ``print(dataset)`` says in one line what it holds.

    Args:
        name: The name of its folder or file.
        interactions: The events, with the names "user_id" and "item_id".
        users: Attributes of users as strings, indexed by raw user id, or None. It may lack users and have others.
        items: Attributes of items as strings, indexed by raw item id, or None: "title" and "genres" (as in
            "Crime|Drama") where they are known, and the file's other columns under their own names.
        note: What ``print(dataset)`` says beside the numbers, such as the columns that were read.
    """

    name: str
    interactions: Interactions
    users: pd.DataFrame | None = None
    items: pd.DataFrame | None = None
    note: str = ""

    def __str__(self) -> str:
        x = self.interactions
        numbers = {"row": len(x), "user": x.num_users, "item": x.num_items}
        counts = ", ".join(f"{number:,} {what}{'s' * (number != 1)}" for what, number in numbers.items())
        known = [
            f"{int(pd.Index(ids.values).isin(table.index).sum()):,} of {len(ids):,} {side}"
            for side, table, ids in [("users", self.users, x.user_ids), ("items", self.items, x.item_ids)]
            if table is not None
        ]
        parts = [
            f"{counts}, {_from_to(x.times)}",
            *([f"attributes of {' and '.join(known)}"] if known else []),
            *filter(None, [self.note]),
        ]
        return f"{self.name}: {'; '.join(parts)}"


def read_dataset(
    path: str | os.PathLike[str],
    user: str = INFER,
    item: str = INFER,
    time: str | None = INFER,
    *,
    verbose: bool = True,
    **options: Any,
) -> Dataset:
    """Reads a data set, and prints in one line what was read. These are looked for in this order:

    - a folder with one RecBole ``*.inter`` file (or that file), and ``.item`` and ``.user`` of its name beside it;
    - a folder with ``seq.npz`` (``indptr``, ``items`` and perhaps ``times``; row k is user k + 1), and ``items.csv``
      and ``users.csv`` beside it, which go by the same numbers;
    - a MovieLens folder as GroupLens ships it: ``ratings.dat`` (1M, 10M), ``u.data`` (100K) or ``ratings.csv`` (20M,
      25M, 32M, latest);
    - one event a row: ``.csv``, ``.tsv``, JSON lines (``.jsonl``, ``.ndjson``), Parquet (``.parquet``), or text under
      any name with ``sep=``. Each but Parquet may be packed (``.gz``, ``.bz2``, ``.xz``, ``.zip``);
    - a folder of such files of one form, and of folders such as ``day=2024-05-01``, whose names are columns;
    - a pattern, as in ``"events/part-*.csv"``.

    Ids stay what they are in the files. A column of text is read as integers if every id is written exactly as Python
    writes that integer; "007", "1e5" or "7.0" make it a column of strings, as does RecBole's header ``item_id:token``.
    Rows of attributes belong to an id if they have the same text. Users and items are numbered in the order of their
    raw ids, of numbers if all are numbers (as strings, too).

    Events of one user at one time keep the order of the files, by name, and of their rows. Times are numbers or dates
    as ISO 8601 writes them; dates with a time zone are converted to UTC, others are taken to be in UTC.

    Args:
        path: The folder, file or pattern.
        user: The column of users; by default a usual name is looked for.
        item: The column of items, likewise.
        time: The column of times, likewise. None says that the rows are in the order of time.
        verbose: False prints nothing; ``print(dataset)`` does.
        **options: Arguments of pandas under pandas' own names. For text: ``sep``, ``header``, ``names``, ``encoding``,
            ``encoding_errors``, ``compression``, ``quoting``, ``quotechar``, ``doublequote``, ``escapechar``,
            ``comment``, ``skiprows``, ``skipinitialspace``, and ``dtype`` (``str`` or ``{"sku": str}``: ids that are
            strings whatever they look like). For JSON lines: ``lines=True`` (under the name ``.json``) and the three
            from ``encoding`` to ``compression``, as for ``.inter``. For all of these and for Parquet: ``usecols`` (the
            columns to look at), and ``date_format`` or ``dayfirst`` for dates that are not ISO 8601.

    Raises:
        ValueError: One line: the path, what was expected there, and what was found. So for a file in which no column of
            times is found, or two; for a column that holds lists, such as RecBole's ``item_id_list:token_seq``; for an
            id or a time that is missing; and for a damaged file among many.
        ImportError: A Parquet file without pyarrow.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "shop.csv"
        >>> _ = path.write_text("userId;sku;when\\nann;007;02.05.2024\\nann;7;01.05.2024\\n")
        >>> shop = read_dataset(path, item="sku", time="when", sep=";", dayfirst=True)
        shop: 2 rows, 1 user, 2 items, times from 2024-05-01 to 2024-05-02; columns userId, sku, when
        >>> shop.interactions.item_ids.decode(shop.interactions.items).tolist()
        ['7', '007']
    """
    verbose = as_flag("`verbose`", verbose)
    data = _read(as_path("`path`", path), {"user": user, "item": item, "time": time, **options})
    if verbose:
        print(data)
    return data


def _read(path: Path, options: dict[str, Any]) -> Dataset:
    if not path.exists():
        if not glob.has_magic(str(path)):
            raise problem(f"path {str(path)!r}", "exist", "no such file or folder")
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        inside = [file for folder in found if folder.is_dir() for file in _event_files(folder)]
        return _parts(path, {*inside, *(file for file in found if file.is_file())}, options)
    if path.is_file():
        if suffixes(path.name)[0] == ".inter":
            return _recbole(path, options)
        return _event_file(path, options)
    found = sorted(path.glob("*.inter"))
    if len(found) > 1:
        names = listing([file.name for file in found])
        raise problem(f"folder {str(path)!r}", "have one .inter file", names, "Name one of them instead.")
    if found:
        return _recbole(found[0], options, name=path.resolve().name)
    known: dict[str, Callable[[Path], Dataset]] = {
        "seq.npz": _sequences,
        "ratings.dat": _movielens_dat,
        "u.data": _movielens_100k,
    }
    if (path / "ratings.csv").is_file():
        data = _event_file(path / "ratings.csv", options)
        return replace(data, name=path.resolve().name, items=_movies_csv(path, data.interactions))
    for file, read in known.items():
        if (path / file).is_file():
            given = {name: value for name, value in options.items() if not isinstance(value, str) or value != INFER}
            if given:
                got = ", ".join(f"{name}={value!r}" for name, value in given.items())
                raise problem("arguments for columns and for pandas", f"be left out where {file} is read", got)
            return read(path)
    if inside := _event_files(path):
        return _parts(path, inside, options)
    expected = "*.inter, seq.npz, ratings.dat, u.data, ratings.csv, or files that end in " + ", ".join(
        [*_SEPARATORS, *_JSON_LINES, _PARQUET[0]]
    )
    names = listing(sorted(file.name for file in path.iterdir())) or "an empty folder"
    raise problem(f"folder {str(path)!r}", f"have one of {expected}", names)


def _event_file(path: Path, options: dict[str, Any]) -> Dataset:
    interactions, note = read_events([_table(path, options)], _reading(options))
    suffix, packed = suffixes(path.name)
    return Dataset(path.name[: len(path.name) - len(suffix + packed)], interactions, note=note)


def _event_files(folder: Path) -> list[Path]:
    """All files in a folder, and in those inside it, of a form that their names tell."""
    return [file for file in folder.rglob("*") if _form(file.name) and file.is_file() and not _hidden(file, folder)]


def _parts(path: Path, files: Collection[Path], options: dict[str, Any]) -> Dataset:
    """Many files as one; ``path`` is the folder, or the pattern, that they were found by."""
    root = path
    while glob.has_magic(str(root)) and not root.exists():
        root = root.parent
    files = sorted((file for file in files if not _hidden(file, root)), key=_by_number)
    if not files:
        raise problem(f"path {str(path)!r}", "match a file", "none")
    if len({_form(file.name, options) for file in files}) > 1:
        remedy = "Name the file of events, or give a pattern such as 'part-*.csv'."
        raise problem(f"path {str(path)!r}", "hold files of one form", listing([file.name for file in files]), remedy)
    unpacked: dict[str, Path] = {}
    for file in files:
        other = unpacked.setdefault(str(file)[: len(str(file)) - len(suffixes(file.name)[1])], file)
        if other is not file:
            raise problem(f"path {str(path)!r}", "hold each file once", f"{other.name!r} and {file.name!r}")
    tables = [_table(file, options).with_constants(_folders(file.relative_to(root))) for file in files]
    interactions, note = read_events(tables, _reading(options))
    return Dataset(root.resolve().name, interactions, note=f"{len(files)} file{'s' * (len(files) != 1)}; {note}")


def _form(name: str, options: Mapping[str, Any] | None = None) -> str | None:
    suffix, packed = suffixes(name)
    given = options or {}
    if suffix in _JSON_LINES or (suffix == ".json" and "lines" in given):
        return "JSON lines"
    if suffix in _PARQUET and not packed:
        return "Parquet"
    return "text" if suffix in _SEPARATORS or "sep" in given else None


def _table(path: Path, options: dict[str, Any]) -> Table:
    form, suffix = _form(path.name, options), suffixes(path.name)[0]
    if form is None:
        endings = ", ".join([*_SEPARATORS, *_JSON_LINES, _PARQUET[0]])
        remedy = "Text under another name is read with sep=','; .json with one object a line with lines=True."
        rule = f"end in {endings} or be a folder" if suffix == ".inter" else f"end in {endings}, .inter, or be a folder"
        remedy = "An .inter file is named by itself." if suffix == ".inter" else remedy
        raise problem(f"path {str(path)!r}", rule, repr(path.name), remedy)
    given = _arguments(options, form)
    if form == "text":
        return text_table(path, **{"sep": _SEPARATORS.get(suffix), **given})
    if form == "JSON lines":
        if given.pop("lines", True) is not True:
            raise problem("`lines`", "be True", repr(options["lines"]), "Only JSON with one object a line is read.")
        return json_table(path, **given)
    return parquet_table(path)


def _arguments(options: dict[str, Any], form: str) -> dict[str, Any]:
    """The arguments of a form, those of `Reading` apart; refuses those that it does not have."""
    common = [field.name for field in fields(Reading)]
    for name in options:
        if name not in common and name not in _OF_FORM[form]:
            rule = f"be one of {', '.join([*common, *_OF_FORM[form]])} where {form} is read"
            raise problem(f"argument {name!r}", rule, f"{name}={options[name]!r}")
    return {name: value for name, value in options.items() if name not in common}


def _reading(options: dict[str, Any]) -> Reading:
    return Reading(**{field.name: options[field.name] for field in fields(Reading) if field.name in options})


def _hidden(file: Path, root: Path) -> bool:
    """Whether Spark, Hive or the system put it there for themselves: _SUCCESS, .part-0.crc."""
    return any(part.startswith(("_", ".")) for part in file.relative_to(root).parts)


def _by_number(file: Path) -> list[Any]:
    """part-2 before part-10."""
    return [(int(text), "") if text.isdecimal() else (-1, text) for text in re.split(r"(\d+)", str(file))]


def _folders(file: Path) -> dict[str, str | None]:
    """The columns that the names of folders give, as in ``day=2024-05-01/part-0.parquet``."""
    pairs = [part.partition("=") for part in file.parts[:-1] if "=" in part]
    return {unquote(key): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for key, _, value in pairs}


def _recbole(path: Path, options: dict[str, Any], name: str | None = None) -> Dataset:
    format_ = {"sep": "\t", "quoting": csv.QUOTE_NONE, **_arguments(options, ".inter")}
    interactions, note = read_events([_typed(text_table(path, **format_))], _reading(options))
    attributes: dict[str, pd.DataFrame | None] = {}
    stem, packed = path.name[: -len("".join(suffixes(path.name)))], suffixes(path.name)[1]
    for side, ids in [("user", interactions.user_ids), ("item", interactions.item_ids)]:
        beside = [path.with_name(f"{stem}.{side}{end}") for end in dict.fromkeys([packed, ""])]
        file = next((file for file in beside if file.is_file()), None)
        attributes[side] = None
        if file is not None:
            typed = _typed(text_table(file, **format_))
            table = typed.frame()
            # RecBole writes a list, such as that of genres, as words with spaces between.
            genres = _first(table, _GENRES)
            if genres in typed.lists:
                table[genres] = table[genres].str.replace(" ", "|")
            attributes[side] = _attributes(file, table, side, ids, options[side])
    return Dataset(name or stem, interactions, attributes["user"], attributes["item"], note)


def _typed(table: Table) -> Table:
    """A RecBole table whose header, as in ``user_id:token``, has told what it says of its columns."""
    pairs = [name.rpartition(":") if ":" in name else (name, "", "") for name in table.names]
    for name, _, kind in pairs:
        if kind and kind not in _RECBOLE:
            rule = f"have columns of the types {', '.join(_RECBOLE)}"
            raise problem(f"file {str(table.path)!r}", rule, repr(f"{name}:{kind}"))
    names = [name for name, _, _ in pairs]
    old = dict(zip(names, table.names, strict=True))

    def pieces(wanted: list[str]) -> Any:
        for piece in table.pieces([old[name] for name in wanted]):
            yield piece.set_axis(wanted, axis=1)

    text = {name for name, _, kind in pairs if kind == "token"}
    lists = frozenset(name for name, _, kind in pairs if kind.endswith("_seq"))
    return Table(table.path, names, pieces, untyped=frozenset(names) - text, lists=lists)


def _sequences(path: Path) -> Dataset:
    file = path / "seq.npz"
    try:
        # np.load() leaves a file that it cannot read open; ours is closed whatever happens.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in ("indptr", "items", "times") if name in arrays}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error, TypeError) as error:
        unreadable(file, "be a NumPy .npz file", error)
    if "indptr" not in found or "items" not in found:
        raise problem(f"file {str(file)!r}", "have the arrays indptr and items", listing(list(found)) or "neither")
    try:
        interactions = Interactions.from_sequences(**found)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    tables: list[pd.DataFrame | None] = [
        _attributes(path / name, text_table(path / name).frame(), side, ids) if (path / name).is_file() else None
        for name, side, ids in [
            ("users.csv", "user", interactions.user_ids),
            ("items.csv", "item", interactions.item_ids),
        ]
    ]
    return Dataset(path.resolve().name, interactions, users=tables[0], items=tables[1])


def _movies_csv(path: Path, interactions: Interactions) -> pd.DataFrame | None:
    file = path / "movies.csv"
    if not file.is_file():
        return None
    table = text_table(file).frame().replace({"(no genres listed)": ""})
    return _attributes(file, table, "item", interactions.item_ids)


def _movielens_dat(path: Path) -> Dataset:
    format_: dict[str, Any] = {"sep": "::", "encoding": "latin-1", "quoting": csv.QUOTE_NONE}
    ratings = text_table(path / "ratings.dat", names=["user_id", "item_id", "rating", "timestamp"], **format_)
    interactions, note = read_events([ratings], Reading())
    users = items = None
    if (path / "users.dat").is_file():
        names = ["user_id", "gender", "age", "occupation", "zip"]
        table = text_table(path / "users.dat", names=names, **format_).frame()
        users = _attributes(path / "users.dat", table, "user", interactions.user_ids)
    if (path / "movies.dat").is_file():
        table = text_table(path / "movies.dat", names=["item_id", "title", "genres"], **format_).frame()
        items = _attributes(path / "movies.dat", table, "item", interactions.item_ids)
    return Dataset(path.resolve().name, interactions, users, items, note)


def _movielens_100k(path: Path) -> Dataset:
    ratings = text_table(path / "u.data", sep="\t", names=["user_id", "item_id", "rating", "timestamp"])
    interactions, note = read_events([ratings], Reading())
    format_: dict[str, Any] = {"sep": "|", "encoding": "latin-1", "quoting": csv.QUOTE_NONE}
    users = items = None
    if (path / "u.user").is_file():
        names = ["user_id", "age", "gender", "occupation", "zip"]
        table = text_table(path / "u.user", names=names, **format_).frame()
        users = _attributes(path / "u.user", table, "user", interactions.user_ids)
    if (path / "u.item").is_file():
        flags = _GENRES_100K.split("|")
        names = ["item_id", "title", "release_date", "video_date", "url", *flags]
        table = text_table(path / "u.item", names=names, **format_).frame()
        genres = np.full(len(table), "", dtype=object)
        for genre in flags:
            has = (table[genre] == "1").to_numpy()
            genres[has] += np.where(genres[has] == "", genre, f"|{genre}").astype(object)
        table = table[["item_id", "title", "release_date"]].assign(genres=genres)
        items = _attributes(path / "u.item", table, "item", interactions.item_ids)
    return Dataset(path.resolve().name, interactions, users, items, note)


def _attributes(path: Path, table: pd.DataFrame, side: str, ids: IdMap, given: str = INFER) -> pd.DataFrame:
    """``table`` of strings, indexed by raw id, with title and genres under these names.

    A row belongs to an id of the same text.
    """
    found = find(list(table.columns), side)
    key = given if given in table.columns else found[0] if found else None
    if key is None:
        rule = f"have a column of ids, such as {EXAMPLES[side]}"
        raise problem(f"file {str(path)!r}", rule, f"the columns {listing(list(table.columns), 20)}")
    # A row without an id belongs to nothing.
    table = table[table[key].notna()]
    texts = pd.Index(ids.values.astype(str), dtype=object)
    if len(table) and not texts.isin(table[key]).any():
        warnings.warn(
            f"file {str(path)!r}: no id in column {key!r}, such as {listing(table[key].tolist(), 3)}, "
            f"is one of the {side}s of the events, such as {listing(texts, 3)}.",
            stacklevel=5,  # the caller of read_dataset()
        )
    if ids.values.dtype.kind == "i":
        # An id that is another text than that of an integer belongs to no event.
        numbers = [whole_number(text) for text in table[key]]
        whole = np.array([number is not None for number in numbers], bool)
        table = table[whole].assign(**{key: np.array([n for n in numbers if n is not None], np.int64)})
    repeated = table[key][table[key].duplicated()].unique()
    if len(repeated):
        raise problem(f"file {str(path)!r}", f"have each id of column {key!r} once", f"{listing(repeated)} repeated")
    renames = {_first(table, _TITLE): "title", _first(table, _GENRES): "genres"}
    return table.set_index(key).rename(columns={old: new for old, new in renames.items() if old is not None})


def _first(table: pd.DataFrame, usual: tuple[str, ...]) -> str | None:
    """The column of ``table`` with the first of the ``usual`` names."""
    names = {plain(str(name)): str(name) for name in reversed(table.columns)}
    return next((names[name] for name in usual if name in names), None)


def _from_to(times: np.ndarray | None) -> str:
    """From when to when, as the times are written and, if they are probably Unix times, as dates."""
    if times is None:
        return "no times: the order of the rows"
    first, last = times.min(), times.max()
    if times.dtype.kind == "M":
        return f"times from {_date(first, first, last)} to {_date(last, first, last)}"
    text = f"times from {first} to {last}"
    for name, each in {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}.items():
        if first / each >= 631_152_000 and last / each < 4_102_444_800:  # 1990 to 2099
            dates = [pd.Timestamp(int(moment / each), unit="s").date() for moment in (first, last)]
            return f"{text} (as Unix {name}: {dates[0]} to {dates[1]})"
    return text


def _date(moment: np.datetime64, *both: np.datetime64) -> str:
    whole_days = all(each == each.astype("datetime64[D]") for each in both)
    return str(moment.astype("datetime64[D]" if whole_days else "datetime64[s]")).replace("T", " ")
