"""Model files: written whole or not at all, and checked when they are read."""

from __future__ import annotations

import inspect
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deepmatch_ext._checks import problem, shown
from deepmatch_ext._files import whole_file
from deepmatch_ext._version import __version__

# The format of the config in a model's file and of the description in a file of weights. A higher number marks files
# that this version would read wrongly. A new argument of a builder needs no new number: other versions refuse it by
# its name.
FORMAT = 1

_SUFFIXES = (".weights.h5", ".keras", ".h5", ".hdf5")
_DESCRIPTION = "deepmatch_ext"


def check_config(config: Mapping[str, Any], builders: Mapping[str, Callable[..., Any]]) -> None:
    """Refuses a saved config that this version can't rebuild a model from.

    Raises:
        ValueError: It has another format, or it names a builder or an argument that this version does not have.
    """
    _check_format("The saved model", config.get("format"))
    if config["builder"] not in builders:
        raise problem("The saved model's builder", f"be one of {sorted(builders)}", repr(config["builder"]), _NEWER)
    unknown = set(config["arguments"]) - set(inspect.signature(builders[config["builder"]]).parameters)
    if unknown:
        known = f"be arguments of {config['builder']} in deepmatch_ext {__version__}"
        raise problem("The saved model's settings", known, f"also {sorted(unknown)}", _NEWER)


def check_path(filepath: Any) -> None:
    """Refuses what is neither a path nor an open file."""
    if not isinstance(filepath, str | os.PathLike) and not hasattr(filepath, "write"):
        raise problem("`filepath`", "be a path", shown(filepath))


@contextmanager
def whole_model_file(filepath: Any, overwrite: bool = True, kept: bool = True) -> Iterator[Any]:
    """A name to write to instead of ``filepath``, which is replaced once all is written, and otherwise unchanged.

    Folders, remote paths, and files that Keras asks about first are left to Keras.

    Args:
        filepath, overwrite: As in Keras's ``save``.
        kept: Whether the file is kept. If there are several workers, all have to save, since reading some variables
            takes all workers; only one keeps the file.
    """
    path = os.fspath(filepath) if isinstance(filepath, str | os.PathLike) else ""
    if path and not kept:
        with tempfile.TemporaryDirectory() as folder:
            yield os.path.join(folder, os.path.basename(path.rstrip("/")))
        return
    suffix = next((suffix for suffix in _SUFFIXES if path.endswith(suffix)), "")
    if not suffix or "://" in path or os.path.isdir(path) or (os.path.exists(path) and not overwrite):
        yield filepath
        return
    with whole_file(Path(path), suffix) as unfinished:
        yield str(unfinished)


def describe_weights(filepath: Any, model: Any) -> None:
    """Writes into a ``.weights.h5`` or ``.keras`` file which weights it holds."""
    text = json.dumps({"format": FORMAT, "weights": _weights_of(model)})
    if _has_suffix(filepath, ".keras") and zipfile.is_zipfile(filepath):
        with zipfile.ZipFile(filepath, "a") as archive:
            archive.writestr(f"{_DESCRIPTION}.json", text)
    elif _has_suffix(filepath, ".weights.h5"):
        import h5py  # comes with Keras

        with h5py.File(filepath, "a") as file:
            file.create_dataset(_DESCRIPTION, data=np.frombuffer(text.encode(), np.uint8))


def _description(filepath: Any) -> str | None:
    if _has_suffix(filepath, ".keras"):
        with zipfile.ZipFile(filepath) as archive:
            name = f"{_DESCRIPTION}.json"
            return archive.read(name).decode() if name in archive.namelist() else None
    import h5py

    with h5py.File(filepath, "r") as file:
        return bytes(file[_DESCRIPTION][()]).decode() if _DESCRIPTION in file else None


def check_weights_file(filepath: Any, model: Any) -> None:
    """Refuses a ``.weights.h5`` or ``.keras`` file that is damaged or another model's.

    A file without a description is left to Keras, as are files of other kinds.

    Raises:
        FileNotFoundError, OSError: There is no such file, or it is damaged.
        ValueError: The file has another format, or its weights are not the model's.
    """
    if not _has_suffix(filepath, ".weights.h5", ".keras") or "://" in str(filepath):
        return
    if not os.path.isfile(filepath):
        raise FileNotFoundError(f"There is no file of weights {str(filepath)!r}.")
    try:
        text = _description(filepath)
    except (OSError, zipfile.BadZipFile) as error:
        # On this kind of error Keras's BackupAndRestore falls back to its former file.
        what = f"{str(filepath)!r} must be a whole file of weights; it is damaged or of another kind"
        raise OSError(f"{what}: {error} Save the weights again, or take an older file.") from error
    if text is None:
        return
    description = json.loads(text)
    of = f"The weights in {str(filepath)!r}"
    _check_format(of, description.get("format"))
    theirs, ours = description["weights"], json.loads(json.dumps(_weights_of(model)))
    if theirs == ours:
        return
    remedy = "Build the model with the columns, units, sampler and items that it was saved with."
    if set(theirs) != set(ours):
        missing, unknown = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
        raise problem(of, "be this model's", f"none for the layers {missing}, and some for {unknown}", remedy)
    layer = next(name for name in ours if theirs[name] != ours[name])
    raise problem(f"{of} for layer {layer!r}", f"be {ours[layer]}", f"{theirs[layer]}", remedy)


_NEWER = f"The file may come from a newer version than {__version__}: upgrade deepmatch_ext."


def _check_format(what: str, number: Any) -> None:
    if number != FORMAT:
        rule = f"have format {FORMAT}, which deepmatch_ext {__version__} reads"
        raise problem(what, rule, shown(number), "Another version of deepmatch_ext wrote it.")


def _has_suffix(filepath: Any, *suffixes: str) -> bool:
    return isinstance(filepath, str | os.PathLike) and str(filepath).endswith(suffixes)


def _weights_of(model: Any) -> dict[str, dict[str, list[int]]]:
    """layer -> weight -> shape, the same in every Keras."""
    return {
        layer.name: {weight.name.split(":")[0].split("/")[-1]: list(weight.shape) for weight in layer.weights}
        for layer in model.layers
        if layer.weights
    }
