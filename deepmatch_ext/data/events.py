"""From tables of events on disk to interactions: the roles of columns, ids that are kept as they are, times."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from deepmatch_ext._checks import listing, no_duplicates, problem
from deepmatch_ext.data.ids import IdMap, raw_values
from deepmatch_ext.data.interactions import ZONE, Interactions, has_zone, time_values
from deepmatch_ext.data.tables import Table, unreadable, whole_numbers

INFER = "infer"

# Column names that are recognised, by their letters and digits in lower case. If a file has the first of a list,
# others of the list are ordinary columns.
USUAL = {
    "user": ("userid", "user", "uid"),
    "item": ("itemid", "item", "movieid", "iid"),
    "time": (
        *("timestamp", "time", "datetime", "date", "ts", "timestampms"),
        *("eventtimestamp", "eventtime", "eventdate", "eventdatetime", "eventts"),
        *("unixtime", "unixtimestamp", "unixreviewtime", "createdat", "creationtime", "creationdate"),
        *("ordertimestamp", "ordertime", "orderdate", "orderdatetime", "orderedat", "invoicedate"),
        *("purchasetimestamp", "purchasetime", "purchasedate", "purchasedat", "boughtat"),
        *("transactiontimestamp", "transactiontime", "transactiondate", "tdat"),
        *("clicktimestamp", "clicktime", "clickedat", "viewedat", "visitedat", "watchedat", "listenedat", "playedat"),
        *("ratingtimestamp", "ratingdate", "ratedat", "reviewtimestamp", "reviewdate", "reviewedat"),
        *("interactiontimestamp", "interactiontime", "interactiondate", "actiontime", "actiondate", "occurredat"),
    ),
}
EXAMPLES = {"user": "'user_id'", "item": "'item_id'", "time": "'timestamp'"}

_ONE_ZONE = "have a time zone in every row or in none"
_ALIKE = "Write them alike, such as 2024-05-01T10:00Z."
_NO_TIMES: tuple[np.ndarray, bool | None] = np.empty(0), None
_HISTORY = re.compile(r"hist|_list$|_seq$|sequence|^prev|^past")


class Columns(NamedTuple):
    """The columns of users, items and times; a time of None means that the rows are in chronological order."""

    user: str
    item: str
    time: str | None


@dataclass(frozen=True)
class Reading:
    """How events are read.

    Args:
        user: The column of users, or "infer".
        item: The column of items, or "infer".
        time: The column of times, "infer", or None: the rows are in chronological order.
        usecols: The columns to look at; None: all.
        date_format: The format of dates, as for ``pd.to_datetime``.
        dayfirst: Whether dates are written 31/12/2024 (True) or 12/31/2024 (False).
    """

    user: str = INFER
    item: str = INFER
    time: str | None = INFER
    usecols: Sequence[str] | None = None
    date_format: str | None = None
    dayfirst: bool | None = None

    def __post_init__(self) -> None:
        for role in ("user", "item", "time"):
            given = getattr(self, role)
            if not isinstance(given, str) and (role != "time" or given is not None):
                rule = "be the name of a column" + (", or None for rows in the order of time" if role == "time" else "")
                raise problem(f"`{role}`", rule, repr(given))
        if self.usecols is not None:
            names = [self.usecols] if isinstance(self.usecols, str) else list(self.usecols)
            if not all(isinstance(name, str) for name in names):
                raise problem("`usecols`", "be a list of column names", listing(names))
            object.__setattr__(self, "usecols", names)
        if self.date_format is not None and self.dayfirst is not None:
            raise problem("`dayfirst`", "be left out if date_format says how dates are written", self.dayfirst)
        if self.date_format is not None and "%" not in str(self.date_format):
            raise problem("`date_format`", "be a format such as '%d/%m/%Y'", repr(self.date_format))
        if self.dayfirst not in (None, True, False):
            raise problem("`dayfirst`", "be True or False", repr(self.dayfirst))
        if self.time is None and (self.date_format is not None or self.dayfirst is not None):
            rule = "be left out with time=None, which reads no times"
            raise problem("`date_format` and `dayfirst`", rule, f"{self.date_format!r} and {self.dayfirst!r}")


def read_events(tables: Sequence[Table], reading: Reading) -> tuple[Interactions, str]:
    """The events of tables with the same columns, and which columns they come from, in words.

    Events of one user at one time keep the order of the tables and their rows.
    """
    first = tables[0]
    columns, others = _columns(first, reading)
    _refuse_histories(first, columns, others)
    parts: list[_Part] = []
    kinds: dict[str, str] = {}  # of ids, by column
    for table in tables:
        for part in _parts(table, first, columns, reading):
            for name, (codes, values) in [(columns.user, part.users), (columns.item, part.items)]:
                if len(codes) and kinds.setdefault(name, values.dtype.kind) != values.dtype.kind:
                    what = f"column {name!r} of file {str(table.path)!r}"
                    raise problem(what, "hold integers or strings throughout all files", "both")
            parts.append(part)
    if not any(len(part.users[0]) for part in parts):
        raise problem(f"file {str(first.path)!r}", "have at least one row of events", "none")
    users, user_ids = _numbered([part.users for part in parts], columns.user in first.untyped)
    items, item_ids = _numbered([part.items for part in parts], columns.item in first.untyped)
    frame = pd.DataFrame({"user_id": users, "item_id": items})
    if columns.time is not None:
        frame["timestamp"] = _joined(first, columns.time, [part.times for part in parts])
    interactions = Interactions.from_frame(frame, time=None if columns.time is None else "timestamp")
    zones = {part.has_zone for part in parts if len(part.times)}
    if {True, False} <= zones:
        what = f"column {columns.time!r} of file {str(first.path)!r} and the others"
        raise problem(what, _ONE_ZONE, "files with and files without one", _ALIKE)
    unread = [name for name in others if name]
    note = f"columns {', '.join(filter(None, columns))}" + (f" (not read: {_few(unread)})" if unread else "")
    zone = zones.pop() if len(zones) == 1 else None
    return replace(interactions, user_ids=user_ids, item_ids=item_ids, has_zone=zone), note


def find(names: Sequence[str], role: str) -> list[str]:
    """The columns with usual names for a role, the likeliest first; the first usual name excludes the others."""
    usual = USUAL[role]
    found = sorted((name for name in names if plain(name) in usual), key=lambda name: usual.index(plain(name)))
    return [name for name in found if plain(name) == usual[0]] or found


def plain(name: str) -> str:
    """The letters and digits of a name in lower case: "eventtime" for "Event_time"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True)
class _Place:
    """A piece of a table, whose first row is row number ``row`` of the file, counted from 1 without a header."""

    table: Table
    row: int

    def column(self, name: Any) -> str:
        return f"column {name!r} of file {str(self.table.path)!r}"

    def first(self, where: Any) -> tuple[int, int]:
        """The first place in the piece where something is true, and its row of the file."""
        place = int(np.flatnonzero(np.asarray(where))[0])
        return place, self.row + place


class _Part(NamedTuple):
    """A piece of a table: for users and items, each row's place among the unique raw ids, and these; times, if any.

    ``has_zone`` says whether the times are in a time zone; None for numbers, and if only some times are.
    """

    users: tuple[np.ndarray, np.ndarray]
    items: tuple[np.ndarray, np.ndarray]
    times: np.ndarray
    has_zone: bool | None


def _parts(table: Table, first: Table, columns: Columns, reading: Reading) -> Iterator[_Part]:
    """The pieces of a table that has the columns which were found in the first."""
    for name in filter(None, columns):
        if table.names.count(name) != 1:
            rule = f"have the column {name!r} once" + (f", as {first.path.name!r} has" if table is not first else "")
            got = f"{table.names.count(name)} of that name" if name in table.names else _listed(table.names)
            raise problem(f"file {str(table.path)!r}", rule, got)
    row = 1
    for piece in table.pieces([name for name in columns if name is not None]):
        where = _Place(table, row)
        _refuse_headers(where, piece, columns)
        users, items = (_id_part(where, piece[name]) for name in (columns.user, columns.item))
        times, zone = _NO_TIMES if columns.time is None else _times(where, piece[columns.time], reading)
        yield _Part(users, items, times, zone)
        row += len(piece)


def _columns(table: Table, reading: Reading) -> tuple[Columns, list[str]]:
    """The columns of users, items and times, and all others that may be read."""
    names = table.names
    if reading.usecols is not None:
        for name in reading.usecols:
            if name not in names:
                raise problem("`usecols`", f"name columns of file {str(table.path)!r}, {_few(names)}", repr(name))
        names = [name for name in names if name in reading.usecols]
    chosen: dict[str, str | None] = {}
    for role in ("user", "item", "time"):
        given = getattr(reading, role)
        if given is None or given in names:
            chosen[role] = given
            continue
        if given != INFER:
            raise problem(f"file {str(table.path)!r}", f"have the {role} column {given!r}", _listed(names))
        found = find(names, role)
        # A time column in the file is preferred to a day in the name of a folder.
        found = [name for name in found if name not in table.constants] or found
        if len(set(found)) > 1:
            remedy = f"Say which: {role}={found[0]!r}, for example."
            raise problem(f"file {str(table.path)!r}", f"have one column of {role}s", f"{_few(found)}", remedy)
        if not found:
            _refuse_lists(table, [name for name in table.lists if _HISTORY.search(name.lower())])
            raise _not_found(table, names, role)
        chosen[role] = found[0]
    columns = Columns(**chosen)  # type: ignore[arg-type]
    no_duplicates(f"the columns of users, items and times in file {str(table.path)!r}", filter(None, columns))
    return columns, [name for name in names if name not in columns]


def _not_found(table: Table, names: Sequence[str], role: str) -> ValueError:
    remedy = f"Name it: {role}='...'."
    if role == "time":
        remedy = "Name it, time='...', or say that the rows are in the order of time: time=None."
    elif len(names) == 1 and (separator := re.search(r"[;\t|:,]+|\s+", names[0])):
        remedy = f"If {separator[0]!r} separates the columns, give sep={separator[0]!r}."
    elif any(re.fullmatch(r"[-+.:/ TZ]*\d[-+\d.:/ TZ]*", name) for name in names):
        remedy += " A file without a header is read with header=None, names=['user_id', 'item_id', ...]."
    rule = f"have a column of {role}s, such as {EXAMPLES[role]}"
    return problem(f"file {str(table.path)!r}", rule, _listed(names), remedy)


def _refuse_histories(table: Table, columns: Columns, others: Sequence[str]) -> None:
    """Refuses a column that holds several items per row: reading one item per row would lose the others."""
    _refuse_lists(table, [name for name in columns if name in table.lists])
    named = [name for name in others if _HISTORY.search(name.lower()) and others.count(name) == 1]
    _refuse_lists(table, [name for name in named if name in table.lists])
    looked_at = [*named, *(name for name in others if name in table.lists and name not in named)]
    if not looked_at or table.names.count(columns.item) != 1:
        return
    piece = next(table.pieces([columns.item, *looked_at]), None)
    if piece is None:
        return
    items = set(piece[columns.item].dropna().astype(str))
    for name in looked_at:
        values = [_several(value) for value in piece[name].head(10_000)]
        if name in named and any(len(each) > 1 for each in values):
            _refuse_lists(table, [name])
        tokens = [token for each in values for token in each]
        if name in table.lists and sum(token in items for token in tokens) * 2 > len(tokens):
            _refuse_lists(table, [name])


def _refuse_lists(table: Table, names: Sequence[str]) -> None:
    if names:
        remedy = "Write a row for each item, in the order of time, or leave the column out: usecols=[...]."
        got = f"several values a row in column {names[0]!r}"
        raise problem(f"file {str(table.path)!r}", "have one user, one item and one time a row", got, remedy)


def _several(value: Any) -> list[str]:
    if isinstance(value, str):
        return [token for token in re.split(r"[\s,;|\[\]'\"]+", value) if token]
    return [str(token) for token in value] if isinstance(value, list | tuple | np.ndarray) else []


def _refuse_headers(where: _Place, piece: pd.DataFrame, columns: Columns) -> None:
    """A header among the rows: several files were joined, or names were given for a file that has its own header."""
    if not where.table.untyped or piece.empty:
        return
    user, item = piece[columns.user], piece[columns.item]
    is_header = ((user == columns.user) & (item == columns.item)).fillna(False)
    if where.row == 1 and plain(str(user.iloc[0])) in USUAL["user"] and plain(str(item.iloc[0])) in USUAL["item"]:
        is_header.iloc[0] = True
    if is_header.any():
        row = where.first(is_header)[1]
        remedy = "If `names` replace a header, give header=0." if row == 1 else "Take it out."
        raise problem(f"file {str(where.table.path)!r}", "have no header among its rows", f"one in row {row}", remedy)


def _nothing_missing(where: _Place, column: pd.Series) -> None:
    missing = column.isna()
    if missing.any():
        rule = "have a value in every row"
        got = f"{int(missing.sum())} missing of {len(column)}, the first in row {where.first(missing)[1]}"
        raise problem(where.column(column.name), rule, got)


def _id_part(where: _Place, column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The unique raw ids of a piece, and for each row the place of its id among them."""
    _nothing_missing(where, column)
    untyped = column.name in where.table.untyped
    codes, uniques = pd.factorize(column if untyped else raw_values(where.column(column.name), column))
    values = np.asarray(uniques, dtype=object if untyped else None)
    texts = values if values.dtype.kind == "O" else ()
    if broken := [text for text in texts if "\n" in text or "\r" in text]:
        remedy = "An opening quote without its closing one joins lines: quoting=3 reads quotes as they are."
        raise problem(where.column(column.name), "hold ids of one line", listing(broken, 1)[:99], remedy)
    if any(re.fullmatch(r"\s*\[.*,.*\]\s*", text) for text in texts if "[" in text):
        _refuse_lists(where.table, [str(column.name)])
    return codes, values


def _numbered(parts: Sequence[tuple[np.ndarray, np.ndarray]], untyped: bool) -> tuple[np.ndarray, IdMap]:
    """The place of each row's id among the sorted raw ids, and their map."""
    parts = [part for part in parts if len(part[0])]
    merged, values = pd.factorize(np.concatenate([values for _, values in parts]))
    ends = np.cumsum([len(values) for _, values in parts])
    codes = np.concatenate([merged[end - len(v) : end][c] for end, (c, v) in zip(ends, parts, strict=True)])
    # Text that is all numbers keeps the order of the numbers, so that the type in a header doesn't change the order.
    numbers = whole_numbers(values) if values.dtype.kind == "O" else values
    order = np.argsort(values if numbers is None else numbers, kind="stable")
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return places[codes], IdMap((numbers if untyped and numbers is not None else values)[order])


def _joined(table: Table, name: str, parts: Sequence[np.ndarray]) -> np.ndarray:
    parts = [part for part in parts if len(part)]
    if len({part.dtype.kind == "M" for part in parts}) > 1:
        what = f"column {name!r} of file {str(table.path)!r}"
        raise problem(what, "hold numbers or dates throughout", "numbers in some rows and dates in others")
    return np.concatenate(parts)


def _times(where: _Place, column: pd.Series, reading: Reading) -> tuple[np.ndarray, bool | None]:
    """Numbers, or datetime64 in UTC, and whether they have a time zone, as in `_Part`."""
    _nothing_missing(where, column)
    what, told = where.column(column.name), reading.date_format is not None or reading.dayfirst is not None
    if column.empty:
        return _NO_TIMES
    if column.dtype == object or isinstance(column.dtype, pd.StringDtype):
        kind = pd.api.types.infer_dtype(column)
        if kind == "string":
            return _dates_or_numbers(where, column.astype(object), reading)
        if kind not in ("integer", "floating", "mixed-integer-float"):
            raise problem(what, "hold numbers or dates throughout", kind)
        column = column.infer_objects()
        column = column.astype(float) if column.dtype == object else column
    if told and pd.api.types.is_integer_dtype(column):
        return _dates_or_numbers(where, column.astype(str).astype(object), reading)
    if told:
        remedy = "Leave date_format and dayfirst out."
        raise problem(what, "hold text if a format of dates is given", f"dtype {column.dtype}", remedy)
    if pd.api.types.is_float_dtype(column):
        _refuse_first(where, column, ~np.isfinite(column.to_numpy(float)), "hold finite numbers")
    return time_values(what, column), has_zone(column)


def _dates_or_numbers(where: _Place, texts: pd.Series, reading: Reading) -> tuple[np.ndarray, bool | None]:
    if reading.date_format is not None:
        rule = f"hold dates written as {reading.date_format!r}"
        zone = re.search("%[zZ]", reading.date_format) is not None
        return _parsed(where, texts, texts, rule, format=reading.date_format), zone
    if reading.dayfirst is not None:
        day, month = ("day", "month") if reading.dayfirst else ("month", "day")
        parts = texts.str.extract(rf"^(?P<{day}>\d\d?)([./-])(?P<{month}>\d\d?)\2(?P<year>\d{{4}})(?P<rest>\D.*)?$")
        rest = parts["rest"].fillna("").str.replace(r"^([ T])(\d:)", r"\g<1>0\2", regex=True)
        iso = parts["year"] + "-" + parts["month"].str.zfill(2) + "-" + parts["day"].str.zfill(2) + rest
        rule = f"hold dates such as {'31/12/2024' if reading.dayfirst else '12/31/2024'}, as dayfirst says"
        return _parsed(where, texts, iso, rule, format="ISO8601"), _zone_of_text(where, texts, iso)
    numbers = _numbers(texts)
    if numbers is not None:
        return numbers, None
    iso = texts.str.replace(r" (UTC|GMT)$", "Z", regex=True)
    remedy = "Say how dates are written: date_format='%d/%m/%Y', for example, or dayfirst=True."
    dates = _parsed(where, texts, iso, "hold numbers or ISO 8601 dates", remedy, format="ISO8601")
    return dates, _zone_of_text(where, texts, iso)


def _zone_of_text(where: _Place, texts: pd.Series, dates: pd.Series) -> bool:
    """Whether all have a time zone, or none; ``dates`` are the ``texts`` in ISO 8601."""
    zoned = dates.str.contains(ZONE)
    _refuse_first(where, texts, zoned != zoned.iloc[0], _ONE_ZONE, _ALIKE)
    return bool(zoned.iloc[0])


def _numbers(texts: pd.Series) -> np.ndarray | None:
    values = texts.to_numpy(dtype=object)
    for dtype in (np.int64, np.float64):
        try:
            numbers = values.astype(dtype)
        except (ValueError, OverflowError):
            continue
        # Python reads "1_000", "nan" and "inf" as numbers.
        return numbers if np.isfinite(numbers).all() and not any("_" in text for text in values) else None
    return None


def _parsed(where: _Place, texts: pd.Series, written: pd.Series, rule: str, remedy: str = "", **how: Any) -> np.ndarray:
    """Dates; ``written`` is how pandas reads the ``texts``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            dates = pd.to_datetime(written, utc=True, errors="coerce", **how)
    except (ValueError, TypeError, OverflowError) as error:
        unreadable(where.table.path, f"{rule} in column {texts.name!r}", error, remedy)
    # pandas reads "now" and "today" as the current time.
    wrong = dates.isna() | ~texts.str.contains(r"\d")
    # Numbers among dates are reported as such, unless some value is neither a number nor a date.
    numbers = wrong & texts.str.fullmatch(r"[-+]?\d+(\.\d*)?")
    _refuse_first(where, texts, wrong & ~numbers, rule, remedy)
    _refuse_first(where, texts, numbers, rule + " throughout", remedy)
    return time_values(where.column(texts.name), dates)


def _refuse_first(where: _Place, column: pd.Series, wrong: Any, rule: str, remedy: str = "") -> None:
    if np.any(wrong):
        place, row = where.first(wrong)
        raise problem(where.column(column.name), rule, f"{listing([column.iloc[place]])} in row {row}", remedy)


def _few(names: Sequence[str]) -> str:
    return listing(list(names))


def _listed(names: Sequence[str]) -> str:
    return f"the columns {listing(list(names), 20)}"
