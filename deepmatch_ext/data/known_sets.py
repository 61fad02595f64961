"""Readers of public data sets: RecBole's, MovieLens's, and item sequences in NumPy files."""

from __future__ import annotations

import csv
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from deepmatch_ext._checks import listing, problem
from deepmatch_ext.data.dataset import Dataset
from deepmatch_ext.data.events import EXAMPLES, INFER, Reading, find, plain, read_events
from deepmatch_ext.data.ids import IdMap
from deepmatch_ext.data.interactions import Interactions
from deepmatch_ext.data.tables import Table, suffixes, text_table, unreadable, whole_number

_TITLE = ("title", "movietitle", "name")
_GENRES = ("genres", "genre", "class", "categories")

# The columns of flags in u.item, in their order.
_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
)

# RecBole's types of columns. The last two hold several values a row, with spaces between.
_RECBOLE = ("token", "float", "token_seq", "float_seq")


def recbole(path: Path, given: Mapping[str, Any], reading: Reading, name: str | None = None) -> Dataset:
    """RecBole's ``NAME.inter``, with ``NAME.user`` and ``NAME.item`` beside it."""
    format_ = {"sep": "\t", "quoting": csv.QUOTE_NONE, **given}
    interactions, note = read_events([_typed(text_table(path, **format_))], reading)
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
            attributes[side] = _attributes(file, table, side, ids, getattr(reading, side))
    return Dataset(name or stem, interactions, attributes["user"], attributes["item"], note)


def _typed(table: Table) -> Table:
    """A RecBole table with the types of columns that its header gives, as in ``user_id:token``."""
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


def sequences(path: Path) -> Dataset:
    """Item sequences in ``seq.npz``, with ``users.csv`` and ``items.csv`` beside it."""
    file = path / "seq.npz"
    try:
        # np.load() leaves a file open if it cannot read it; ours is always closed.
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


def movies_csv(path: Path, interactions: Interactions) -> pd.DataFrame | None:
    """MovieLens's ``movies.csv``, beside ``ratings.csv``."""
    file = path / "movies.csv"
    if not file.is_file():
        return None
    table = text_table(file).frame().replace({"(no genres listed)": ""})
    return _attributes(file, table, "item", interactions.item_ids)


def movielens_dat(path: Path) -> Dataset:
    """MovieLens 1M and 10M: ``ratings.dat``, with ``users.dat`` and ``movies.dat`` beside it."""
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


def movielens_100k(path: Path) -> Dataset:
    """MovieLens 100K: ``u.data``, with ``u.user`` and ``u.item`` beside it."""
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

    A row belongs to the id with the same text.
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
        # An id that is not written as an integer belongs to no event.
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
