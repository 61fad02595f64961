"""Reads data sets from disk into one form."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from deepmatch_ext._checks import as_flag, as_path, listing, problem
from deepmatch_ext.data.dataset import Dataset
from deepmatch_ext.data.events import INFER, Reading, read_events
from deepmatch_ext.data.known_sets import movielens_100k, movielens_dat, movies_csv, recbole, sequences
from deepmatch_ext.data.tables import (
    Table,
    json_table,
    parquet_table,
    suffixes,
    text_table,
)

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")

# The arguments of pandas for each form, besides those that `Reading` has for all.
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


def read_dataset(
    path: str | os.PathLike[str],
    user: str = INFER,
    item: str = INFER,
    time: str | None = INFER,
    *,
    verbose: bool = True,
    **options: Any,
) -> Dataset:
    """Reads a data set, and prints in one line what was read. It looks for the following, in this order:

    - a folder with one RecBole ``*.inter`` file (or that file), with the ``.item`` and ``.user`` files of the same
      name;
    - a folder with ``seq.npz`` (``indptr``, ``items`` and perhaps ``times``; row k is user k + 1), and ``items.csv``
      and ``users.csv`` with the same ids;
    - a MovieLens folder as GroupLens ships it: ``ratings.dat`` (1M, 10M), ``u.data`` (100K) or ``ratings.csv`` (20M,
      25M, 32M, latest);
    - one event per row: ``.csv``, ``.tsv``, JSON lines (``.jsonl``, ``.ndjson``), Parquet (``.parquet``), or text under
      any name with ``sep=``. All but Parquet may be compressed (``.gz``, ``.bz2``, ``.xz``, ``.zip``);
    - a folder of such files of one form, and of folders such as ``day=2024-05-01``, whose names become columns;
    - a pattern, as in ``"events/part-*.csv"``.

    Ids are kept as they are in the files. A column of text is read as integers if every id is written exactly as Python
    writes that integer; "007", "1e5" or "7.0" make it a column of strings, as does RecBole's header ``item_id:token``.
    A row of attributes belongs to the id with the same text. Users and items are numbered in the order of their raw
    ids: numerical order if all are numbers, even if they are kept as strings.

    Events of one user at one time keep the order of the files, by name, and of their rows. Times are numbers or dates
    in ISO 8601; dates with a time zone are converted to UTC. All have one, or none has.

    Args:
        path: The folder, file or pattern.
        user: The column of users; by default the column with a common name.
        item: The column of items, likewise.
        time: The column of times, likewise. None: the rows are in chronological order.
        verbose: Whether the line is printed; ``print(dataset)`` prints it, too.
        **options: Arguments of pandas under pandas' own names. For text: ``sep``, ``header``, ``names``, ``encoding``,
            ``encoding_errors``, ``compression``, ``quoting``, ``quotechar``, ``doublequote``, ``escapechar``,
            ``comment``, ``skiprows``, ``skipinitialspace``, and ``dtype`` (``str`` or ``{"sku": str}``: ids that are
            strings whatever they look like). For JSON lines: ``lines=True`` (under the name ``.json``) and the three
            from ``encoding`` to ``compression``, as for ``.inter``. For all of these and for Parquet: ``usecols`` (the
            columns to read), and ``date_format`` or ``dayfirst`` for dates that are not ISO 8601.

    Returns:
        The `Dataset`: the interactions, and the attributes of users and items that are there.

    Raises:
        ValueError: A file has no column of times, or two; a column holds lists, such as RecBole's
            ``item_id_list:token_seq``; an id or a time is missing; or a file is damaged. The message names the path,
            what was expected there, and what was found.
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
            return recbole(path, _arguments(options, ".inter"), _reading(options))
        return _event_file(path, options)
    found = sorted(path.glob("*.inter"))
    if len(found) > 1:
        names = listing([file.name for file in found])
        raise problem(f"folder {str(path)!r}", "have one .inter file", names, "Name one of them instead.")
    if found:
        return recbole(found[0], _arguments(options, ".inter"), _reading(options), path.resolve().name)
    known: dict[str, Callable[[Path], Dataset]] = {
        "seq.npz": sequences,
        "ratings.dat": movielens_dat,
        "u.data": movielens_100k,
    }
    if (path / "ratings.csv").is_file():
        data = _event_file(path / "ratings.csv", options)
        return replace(data, name=path.resolve().name, items=movies_csv(path, data.interactions))
    for file, read in known.items():
        if (path / file).is_file():
            given = {name: value for name, value in options.items() if not isinstance(value, str) or value != INFER}
            if given:
                got = ", ".join(f"{name}={value!r}" for name, value in given.items())
                raise problem("arguments for columns and for pandas", f"be left out for {file}", got)
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
    """All files in a folder, and in its subfolders, whose names show a known form."""
    return [file for file in folder.rglob("*") if _form(file.name) and file.is_file() and not _hidden(file, folder)]


def _parts(path: Path, files: Collection[Path], options: dict[str, Any]) -> Dataset:
    """Many files as one; ``path`` is the folder or the pattern."""
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
    """The arguments of a form, without those of `Reading`; refuses others."""
    common = [field.name for field in fields(Reading)]
    for name in options:
        if name not in common and name not in _OF_FORM[form]:
            rule = f"be one of {', '.join([*common, *_OF_FORM[form]])} for {form}"
            raise problem(f"argument {name!r}", rule, f"{name}={options[name]!r}")
    return {name: value for name, value in options.items() if name not in common}


def _reading(options: dict[str, Any]) -> Reading:
    return Reading(**{field.name: options[field.name] for field in fields(Reading) if field.name in options})


def _hidden(file: Path, root: Path) -> bool:
    """Whether it is a file that Spark, Hive or the system made for itself: _SUCCESS, .part-0.crc."""
    return any(part.startswith(("_", ".")) for part in file.relative_to(root).parts)


def _by_number(file: Path) -> list[Any]:
    """part-2 before part-10."""
    return [(int(text), "") if text.isdecimal() else (-1, text) for text in re.split(r"(\d+)", str(file))]


def _folders(file: Path) -> dict[str, str | None]:
    """The columns that the names of folders give, as in ``day=2024-05-01/part-0.parquet``."""
    pairs = [part.partition("=") for part in file.parts[:-1] if "=" in part]
    return {unquote(key): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for key, _, value in pairs}
