"""Files and folders that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = re.compile(r"\..+-[0-9a-f]{12}\.tmp(\..+)?")
"""Names of files that `whole_file` leaves if its process is killed."""


@contextmanager
def whole_file(path: Path, suffix: str = "") -> Iterator[Path]:
    """A path to write a file to, which takes the place of ``path`` when the block ends.

    If the block fails, ``path`` is as it was. A process that is killed leaves a hidden file beside ``path`` with
    ``.tmp`` in its name.

    Args:
        path: The file. A link stays one: what it points to is replaced.
        suffix: How the name to write to has to end.
    """
    path = Path(os.path.realpath(path))
    unfinished = _unfinished(path, suffix)
    try:
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file, whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which gets the name ``path`` when the block ends; nothing of this name may exist."""
    with unfinished_folder(path) as unfinished:
        yield unfinished
        sync_folder(unfinished)
        os.rename(unfinished, path)
    sync(path.parent)


@contextmanager
def unfinished_folder(path: Path) -> Iterator[Path]:
    """An empty, hidden folder beside ``path`` that the block fills and renames. If it does not, the folder is removed.

    `whole_folder` does the renaming, if the name is known in advance.
    """
    unfinished = _unfinished(path)
    unfinished.mkdir()
    try:
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def sync(path: Path) -> None:
    """Brings a file's content, or a folder's names, to the disk: after a power loss, the old or the new is there."""
    if path.is_dir():
        with suppress(OSError):  # Windows and some network drives can't do it for folders
            _fsync(path, os.O_RDONLY)
    else:
        _fsync(path, os.O_RDWR)  # Windows wants a file that may be written


def sync_folder(folder: Path) -> None:
    """`sync` for a folder and all that is in it."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unfinished(path: Path, suffix: str = "") -> Path:
    # Only the beginning of a long name, since the length of names is limited.
    return path.with_name(f".{path.name[:40]}-{secrets.token_hex(6)}.tmp{suffix}")
