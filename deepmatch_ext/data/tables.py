"""One table on disk, read in pieces: text with a separator, JSON lines, or Parquet."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import pandas as pd

from deepmatch_ext._checks import listing, missing_extra, no_duplicates, one_of, problem

ROWS = 500_000  # of a piece at most

_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zip": "zip"}
_OPENERS: dict[str, Any] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}

# Stands for a separator of several characters, which pandas' fast parser does not take.
_SEPARATOR = "\x1f"

# What pandas and the decompressors raise for a file that they cannot read, or an argument that they do not take.
_FAILURES = (OSError, EOFError, ValueError, TypeError, LookupError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Table:
    """The columns and rows of a file.

    Args:
        path: The file.
        names: The names of its columns as in the file, repeats included.
        pieces: A function from some of these names to frames of these columns, with the index 0, 1, ... each.
        untyped: Columns of text in which only the text shows whether a value is a number.
        lists: Columns with several values a row.
        constants: Columns with one value for the whole file, which is not in the file.
    """

    path: Path
    names: list[str]
    pieces: Callable[[list[str]], Iterator[pd.DataFrame]]
    untyped: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    constants: frozenset[str] = frozenset()

    def frame(self) -> pd.DataFrame:
        """All rows of all columns that have a name; a repeated name is refused."""
        names = [name for name in self.names if name]
        no_duplicates(f"the columns of file {str(self.path)!r}", names)
        return pd.concat(list(self.pieces(names)), ignore_index=True)

    def with_constants(self, values: Mapping[str, str | None]) -> Table:
        """The table with more columns of text, each with one value; columns that it already has are unchanged."""
        values = {name: value for name, value in values.items() if name not in self.names}
        if not values:
            return self

        def pieces(wanted: list[str]) -> Iterator[pd.DataFrame]:
            own = [name for name in wanted if name not in values]
            # Without one of its own columns, a piece would not know how many rows it has.
            for piece in self.pieces(own or self.names[:1]):
                yield piece.assign(**{name: values[name] for name in wanted if name in values})[wanted]

        constants = frozenset(values)
        return Table(self.path, [*self.names, *values], pieces, self.untyped | constants, self.lists, constants)


def suffixes(name: str) -> tuple[str, str]:
    """The suffix of a file's form and that of its compression, in lower case: (".csv", ".gz")."""
    path = Path(name.lower())
    return (Path(path.stem).suffix, path.suffix) if path.suffix in _COMPRESSIONS else (path.suffix, "")


def unreadable(path: Path, rule: str, error: Exception, remedy: str = "") -> NoReturn:
    """Refuses a file with another library's message, in one line; some messages of pandas have several."""
    message = " ".join(str(error).split()) or type(error).__name__
    raise problem(f"file {str(path)!r}", rule, message.removesuffix("."), remedy) from None


def text_table(
    path: Path,
    *,
    sep: str = ",",
    header: int | str | None = "infer",
    names: Iterable[str] | None = None,
    dtype: Any = None,
    encoding: str = "utf-8",
    encoding_errors: str = "strict",
    compression: str | None = "infer",
    **parsing: Any,
) -> Table:
    """A table of text. The arguments are some of those of ``pd.read_csv``.

    Args:
        path: The file.
        sep: One character, ``r"\\s+"``, or several characters that are taken literally.
        header: 0: the first row has the names of the columns. None: ``names`` has them. "infer": 0 without ``names``.
        names: The names of all columns.
        dtype: ``str``, or a mapping of columns to ``str``, for text that may look like numbers.
        encoding: The encoding of the text.
        encoding_errors: How bytes that are not text are treated.
        compression: None, "gzip", "bz2", "xz" or "zip"; "infer" uses the name of the file.
        **parsing: quoting, quotechar, doublequote, escapechar, comment, skiprows, skipinitialspace.
    """
    if not isinstance(sep, str) or not sep:
        raise problem("`sep`", r"be the text between two columns, such as ';' or '\t'", repr(sep))
    if header not in (0, "infer", None):
        raise problem("`header`", "be 0, None or 'infer'", repr(header), "Skip the lines before it: skiprows=...")
    if parsing.get("quoting", 0) not in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE):
        rule = "be csv.QUOTE_MINIMAL, csv.QUOTE_ALL or csv.QUOTE_NONE, which leave ids as they are"
        raise problem("`quoting`", rule, parsing["quoting"])
    if compression is not None:
        one_of("`compression`", compression, ["infer", *_COMPRESSIONS.values()])
    given = None if names is None else _names(names)
    if header is None and given is None:
        raise problem("`names`", "name the columns of a file without a header", "None", "Give names=[...].")
    has_header = given is None or header == 0
    literal = len(sep) > 1 and sep != r"\s+"
    options: dict[str, Any] = {
        "sep": _SEPARATOR if literal else sep,
        "encoding": encoding,
        "encoding_errors": encoding_errors,
        "index_col": False,
        "keep_default_na": False,
        "na_values": [""],
        "low_memory": False,
        **parsing,
    }

    def opened() -> Any:
        stream = _opened(path, compression)
        if not literal:
            return stream
        with stream:
            text = stream.read().decode(encoding, encoding_errors).removeprefix("\ufeff")
        if _SEPARATOR in text:
            raise OSError(f"the character {_SEPARATOR!r} in it")
        return io.StringIO(text.replace(sep, _SEPARATOR), newline="")

    with _readable(path, encoding):
        _refuse_binary(path, compression, encoding)
        with opened() as stream:
            first = pd.read_csv(stream, header=None, nrows=1, dtype=str, **options)
    found = ["" if pd.isna(value) else str(value) for value in first.iloc[0]]
    if given is not None and len(given) != len(found):
        rule = f"name as many columns as there are in file {str(path)!r}, {len(found)}"
        raise problem("`names`", rule, f"{len(given)}, {listing(given)}")
    columns = found if given is None else given

    def pieces(wanted: list[str]) -> Iterator[pd.DataFrame]:
        places = [columns.index(name) for name in wanted]
        with _readable(path, encoding):
            stream = opened()
        with stream:
            with _readable(path, encoding):
                # Columns are read by position, since pandas would rename one with a repeated name.
                reader = pd.read_csv(
                    stream,
                    header=0 if has_header else None,
                    names=list(range(len(columns))),
                    dtype=dict.fromkeys(places, str),
                    chunksize=ROWS,
                    **options,
                )
            while True:
                with _readable(path, encoding):
                    piece = next(reader, None)
                if piece is None:
                    return
                yield piece[places].set_axis(wanted, axis=1).reset_index(drop=True)

    return Table(path, columns, pieces, untyped=frozenset(columns) - _text_columns(dtype, columns))


def json_table(
    path: Path, *, encoding: str = "utf-8", encoding_errors: str = "strict", compression: str | None = "infer"
) -> Table:
    """A table of JSON lines, one object with a value for each column a line; the arguments as for `text_table`."""
    if compression is not None:
        one_of("`compression`", compression, ["infer", *_COMPRESSIONS.values()])

    def rows() -> Iterator[dict[str, Any]]:
        with _readable(path, encoding):
            stream = io.TextIOWrapper(_opened(path, compression), encoding=encoding, errors=encoding_errors)
        with stream:
            read = 0
            while True:
                with _readable(path, encoding):
                    lines = list(itertools.islice(stream, 10_000))
                if not lines:
                    return
                for number, line in enumerate(lines, start=read + 1):
                    if line.strip("\ufeff \r\n\t"):
                        yield _json_object(path, number, line.removeprefix("\ufeff"))
                read += len(lines)

    names: dict[str, None] = {}
    lists: set[str] = set()
    for row in itertools.islice(rows(), 1000):
        names.update(dict.fromkeys(row))
        lists.update(name for name, value in row.items() if isinstance(value, list))
    if not names:
        raise problem(f"file {str(path)!r}", "have one JSON object a line", "an empty file")

    def pieces(wanted: list[str]) -> Iterator[pd.DataFrame]:
        values = ([row.get(name) for name in wanted] for row in rows())
        while taken := list(itertools.islice(values, ROWS)):
            # As objects: pandas would turn integers into floats if one is missing.
            yield pd.DataFrame(taken, columns=wanted, dtype=object)

    return Table(path, list(names), pieces, lists=frozenset(lists))


def parquet_table(path: Path) -> Table:
    """A Parquet file."""
    pyarrow_parquet("read_dataset() of a Parquet file")
    with parquet_file(path) as file:
        schema = file.schema_arrow

    def pieces(wanted: list[str]) -> Iterator[pd.DataFrame]:
        for batch in parquet_batches(path, ROWS, columns=wanted):
            # Not with pandas' metadata, which would make an index of a column.
            yield batch.to_pandas(ignore_metadata=True, date_as_object=False)[wanted]

    lists = frozenset(field.name for field in schema if "list<" in str(field.type) or "list[" in str(field.type))
    return Table(path, list(schema.names), pieces, lists=lists)


def pyarrow_parquet(what: str) -> Any:
    """``pyarrow.parquet``, which ``what`` needs."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra(what, "pyarrow", "parquet") from error
    return pyarrow.parquet


@contextmanager
def parquet_file(path: str | Path) -> Iterator[Any]:
    """An open ``pyarrow.parquet.ParquetFile``; the error names a file that is incomplete."""
    try:
        file = pyarrow_parquet("A Parquet file").ParquetFile(path)
    except (*_FAILURES, NotImplementedError) as error:
        unreadable(Path(path), "be a whole Parquet file", error)
    with file:
        yield file


def parquet_batches(path: str | Path, rows: int, **options: Any) -> Iterator[Any]:
    """Record batches of a Parquet file; the options are those of pyarrow's ``iter_batches``."""
    with parquet_file(path) as file:
        batches = file.iter_batches(rows, **options)
        while True:
            try:
                batch = next(batches, None)
            except (*_FAILURES, NotImplementedError) as error:
                unreadable(Path(path), "be a whole Parquet file", error)
            if batch is None:
                return
            yield batch


def whole_numbers(texts: np.ndarray) -> np.ndarray | None:
    """The numbers, int64, if every text is one exactly as Python writes it, else None: "7", but not "07" or "7.0"."""
    try:
        numbers = texts.astype(np.int64)
    except (ValueError, OverflowError):
        return None
    same = numbers.astype(str).astype(object) == texts
    return numbers if np.all(same) and np.all(numbers > np.iinfo(np.int64).min) else None


def whole_number(text: str) -> int | None:
    """The number that `whole_numbers` would give for one text."""
    numbers = whole_numbers(np.array([text], dtype=object))
    return None if numbers is None else int(numbers[0])


@contextmanager
def _readable(path: Path, encoding: str) -> Iterator[None]:
    """Refuses, in one line, a text that cannot be read."""
    rule = "be a text table"
    try:
        with warnings.catch_warnings():
            # Lines longer than the header would be cut with only a warning; half-read data is no data.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except pd.errors.EmptyDataError:
        raise problem(f"file {str(path)!r}", rule, "an empty file") from None
    except UnicodeError as error:
        remedy = "Give the encoding that it is in, such as encoding='latin-1' or encoding='utf-16'."
        unreadable(path, f"be text in {encoding}", error, remedy)
    except (*_FAILURES, pd.errors.ParserWarning) as error:
        unreadable(path, rule, error)


def _opened(path: Path, compression: str | None) -> IO[bytes]:
    if compression == "infer":
        compression = _COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        return path.open("rb")
    if compression != "zip":
        return _OPENERS[compression](path)
    with zipfile.ZipFile(path) as archive:
        files = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(files) != 1:
            raise OSError(f"an archive of {len(files)} files, {listing(files)}" if files else "an empty archive")
        return archive.open(files[0])


def _refuse_binary(path: Path, compression: str | None, encoding: str) -> None:
    """A NUL ends a value in some versions of pandas, which would make two ids one."""
    if b"\0" in "a".encode(encoding):  # UTF-16, UTF-32
        return
    with _opened(path, compression) as stream:
        if any(b"\0" in block for block in iter(lambda: stream.read(2**20), b"")):
            raise UnicodeError("binary data")


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    rule = "have one JSON object a line"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise problem(f"file {str(path)!r}", rule, f"in line {number}: {error}") from None
    if not isinstance(row, dict):
        raise problem(f"file {str(path)!r}", rule, f"a {type(row).__name__} in line {number}")
    return row


def _names(names: Iterable[str]) -> list[str]:
    given = [names] if isinstance(names, str) else list(names)
    if not given or not all(isinstance(name, str) for name in given):
        raise problem("`names`", "be a list of column names", listing(given) or "none")
    no_duplicates("`names`", given)
    return given


def _text_columns(dtype: Any, columns: list[str]) -> frozenset[str]:
    if dtype is None:
        return frozenset()
    wanted = dtype if isinstance(dtype, Mapping) else dict.fromkeys(columns, dtype)
    if not all(kind in (str, "str", "string", object) for kind in wanted.values()):
        raise problem("`dtype`", "be str, or a mapping of columns to str", repr(dtype))
    for name in wanted:
        if name not in columns:
            raise problem("`dtype`", f"name columns among {listing(columns, 20)}", repr(name))
    return frozenset(wanted)
