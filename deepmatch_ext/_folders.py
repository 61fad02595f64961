"""Folders with a manifest and data files, which are replaced as a whole and checked for damage when they are read.

Data files have names that are used only once, and the manifest says which of them are current. Replacing the manifest,
in one step, therefore replaces everything, and the folder's content is complete at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmatch_ext._checks import as_path, problem
from deepmatch_ext._files import UNFINISHED, sync, whole_folder, write_text

fcntl: Any
try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

_MANIFEST = "manifest.json"
_OURS = re.compile(r"[a-z.]+-[0-9a-f]{12}(\.[a-z]+)?")  # a name that is used once

OTHER_VERSION = "It needs another version of deepmatch_ext."

Write = Callable[[Path], None]
"""Writes one file at the path that it is given."""


@dataclass(frozen=True)
class Folder:
    """A kind of folder.

    Args:
        what: What such a folder is, for error messages: "a saved index".
        format: What its manifest calls it.
        version: The version of the format.
        entries: The entries that its manifest must have, and their types, as `check_record` takes them.
    """

    what: str
    format: str
    version: int
    entries: Mapping[str, type | tuple[str, ...]]

    def write(self, folder: str | os.PathLike[str], manifest: Mapping[str, Any], files: Mapping[str, Write]) -> None:
        """Writes the files and the manifest: a new folder appears whole, an existing one is replaced whole.

        Raises:
            ValueError: ``folder`` is something else, or is being written to by another process or thread.
            OSError: The folder can't be written, or another process has made it in the meantime. Its previous content
                is still there.
        """
        folder = as_path("`folder`", folder)
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with whole_folder(folder) as unfinished:
                self._write_files(unfinished, manifest, files)
            return
        if not folder.is_dir():
            raise problem(f"folder {str(folder)!r}", "be a folder or not exist yet", "a file")
        with _one_writer(folder):
            if any(folder.iterdir()):
                self._read_manifest(folder, "Save to another place, or remove it first.")
            try:
                self._write_files(folder, manifest, files)
            finally:
                self._remove_unused(folder)

    def _write_files(self, folder: Path, manifest: Mapping[str, Any], files: Mapping[str, Write]) -> None:
        entries = {}
        for name, write in files.items():
            stem, dot, suffix = name.partition(".")
            path = folder / f"{stem}-{secrets.token_hex(6)}{dot}{suffix}"
            write(path)
            sync(path)
            entries[name] = {"file": path.name, "bytes": path.stat().st_size, "sha256": _digest(path)}
        content = {"format": self.format, "format_version": self.version, **manifest, "files": entries}
        write_text(folder / _MANIFEST, json.dumps({**content, "sha256": _content_digest(content)}, indent=2) + "\n")

    def _remove_unused(self, folder: Path) -> None:
        """Removes what the manifest does not name: of former saves or, if it was not replaced, of the present one."""
        used = set()
        if (folder / _MANIFEST).exists():
            used = {entry["file"] for entry in self._read_manifest(folder)["files"].values()}
        for path in folder.iterdir():
            is_ours = _OURS.fullmatch(path.name) or UNFINISHED.fullmatch(path.name)
            if is_ours and path.name not in used:
                path.unlink(missing_ok=True)

    def read(self, folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Path]]:
        """The manifest of a folder, and the paths of its files, whose checksums are all verified.

        Raises:
            ValueError: ``folder`` is not of this kind, or it is damaged; the message says what is wrong.
        """
        folder = as_path("`folder`", folder)
        manifest = self._read_manifest(folder)
        while True:
            try:
                return manifest, {name: _checked(folder, entry) for name, entry in manifest["files"].items()}
            except FileNotFoundError as error:
                before, manifest = manifest, self._read_manifest(folder)
                if manifest == before:  # else it has just been replaced
                    name = Path(error.filename).name
                    raise problem(f"folder {str(folder)!r}", "have the file of its manifest", f"no {name!r}") from None

    def _read_manifest(self, folder: Path, remedy: str = "") -> dict[str, Any]:
        what, rule = f"folder {str(folder)!r}", f"be {self.what}"
        if not folder.is_dir():
            raise problem(what, rule, "a file" if folder.exists() else "no such folder", remedy)
        try:
            content = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            checksum = content.pop("sha256", None) if isinstance(content, dict) else None
            is_whole = checksum == _content_digest(content)
        except FileNotFoundError:
            raise problem(what, rule, f"a folder without {_MANIFEST}", remedy) from None
        except (ValueError, OSError, RecursionError) as error:
            raise problem(what, rule, f"a {_MANIFEST} that can't be read ({type(error).__name__})", remedy) from None
        if not isinstance(content, dict) or content.get("format") != self.format:
            raise problem(what, rule, f"a {_MANIFEST} of something else", remedy)
        if content.get("format_version") != self.version:
            version = f"format version {content.get('format_version')!r}"
            raise problem(what, f"be of format version {self.version}", version, OTHER_VERSION)
        if not is_whole:
            raise problem(what, "have the manifest that was written", "one whose checksum is wrong: it is damaged")
        # Only a manifest that was written by hand lacks what follows.
        manifest = f"the manifest of {what}"
        check_record(manifest, content, {**self.entries, "files": dict})
        for name, entry in content["files"].items():
            check_record(f"{manifest} on {name!r}", entry, {"file": str, "bytes": int, "sha256": str})
            if not _OURS.fullmatch(entry["file"]):
                raise problem(f"{manifest} on {name!r}", "name a file as save() does", repr(entry["file"]))
        return content


def read_record(what: str, text: str | bytes, expected: Mapping[str, type | tuple[str, ...]]) -> dict[str, Any]:
    """JSON as `check_record` takes it."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise problem(what, "be JSON", f"what can't be read ({type(error).__name__})") from None
    check_record(what, record, expected)
    return record


def check_record(what: str, record: Any, expected: Mapping[str, type | tuple[str, ...]]) -> None:
    """Refuses anything but a dictionary with the entries, each of the given type or one of the given strings."""
    if not isinstance(record, dict):
        raise problem(what, "be a dictionary", type(record).__name__)
    for name, kind in expected.items():
        value = record.get(name)
        if isinstance(kind, tuple) and value not in kind:
            rule = "be one of " + ", ".join(map(repr, kind))
        elif isinstance(kind, type) and type(value) is not kind:  # True is no int
            rule = f"be of type {kind.__name__}"
        else:
            continue
        raise problem(f"{name!r} in {what}", rule, reprlib.repr(value) if name in record else "none")


@contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    """Refuses a second writer to a folder until the block ends, or the process, however it ends.

    The folder itself is locked, so no file remains. Where there are no such locks, as on Windows and some network
    drives, nothing is refused.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        rule, remedy = "have one writer at a time", "Save again when it is done, or to another place."
        raise problem(f"folder {str(folder)!r}", rule, "another one, which is saving to it", remedy) from None
    except OSError:  # a network drive
        pass
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process forked meanwhile has the handle, too
        os.close(handle)


def _checked(folder: Path, entry: Mapping[str, Any]) -> Path:
    path = folder / Path(entry["file"]).name
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise problem(f"file {str(path)!r}", f"have {entry['bytes']} bytes", f"{size}: it is damaged")
    if _digest(path) != entry["sha256"]:
        raise problem(f"file {str(path)!r}", "have the checksum of its manifest", "another: it is damaged")
    return path


def _content_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
