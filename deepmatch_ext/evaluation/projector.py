"""Vectors for TensorBoard's projector: a map that can be rotated and searched, with labels."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepmatch_ext._arrays import check_item_vectors
from deepmatch_ext._checks import as_list, as_path, problem
from deepmatch_ext._files import write_text
from deepmatch_ext._frames import by_id


def write_projector(
    folder: str | os.PathLike[str],
    item_vectors: Any,
    labels: Mapping[str, Sequence[Any]] | Sequence[Any] | None = None,
    *,
    name: str = "items",
) -> None:
    """Writes what ``tensorboard --logdir FOLDER`` shows in its projector.

    Writes three files, ``tensors.tsv``, ``metadata.tsv`` and, last, ``projector_config.pbtxt``. Existing files with
    these names are replaced; each folder holds one set of vectors. Neither TensorBoard nor TensorFlow is needed. The
    projector itself draws at most 100,000 points.

    Args:
        folder: The log folder, which is created if necessary.
        item_vectors: (V, D) one vector for each item id. Row 0, padding, is left out.
        labels: Labels of each item, by item id: a list of V names, or column -> list of V values. The item id is added
            as the last column, unless it is among the labels.
        name: The name of the vectors.

    Raises:
        ValueError: The arrays don't fit each other.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = tempfile.mkdtemp()
        >>> write_projector(folder, np.eye(3), {"title": ["", "Dune", "Heat"], "genre": ["", "SF", "Crime"]})
        >>> [line.split("\\t") for line in Path(folder, "metadata.tsv").read_text(encoding="utf-8").splitlines()]
        [['title', 'genre', 'item_id'], ['Dune', 'SF', '1'], ['Heat', 'Crime', '2']]
    """
    vectors, _ = check_item_vectors(item_vectors)
    if labels is None:
        labels = {}
    elif not isinstance(labels, Mapping):
        labels = {"name": labels}
    columns: dict[str, list[Any]] = {}
    for column, values in labels.items():
        rule = f"be {len(vectors)} entries, one for each item id and one for padding"
        what = f"the labels {column!r}"
        columns[str(column)] = as_list(what, rule, by_id(what, values))
        if len(columns[str(column)]) != len(vectors):
            raise problem(what, rule, f"{len(columns[str(column)])}")
    columns.setdefault("item_id", list(range(len(vectors))))
    # The projector takes the first line for a header only if there are several columns.
    lines = ["\t".join(map(_cell, columns))] if len(columns) > 1 else []
    lines += ["\t".join(map(_cell, row)) for row in zip(*(values[1:] for values in columns.values()), strict=True)]
    numbers = io.StringIO()
    np.savetxt(numbers, vectors[1:], fmt="%.9g", delimiter="\t")  # 9 digits make the same float32
    config = [
        "embeddings {",
        f"  tensor_name: {json.dumps(str(name), ensure_ascii=False)}",
        f"  tensor_shape: {len(vectors) - 1}",
        f"  tensor_shape: {vectors.shape[1]}",
        '  tensor_path: "tensors.tsv"',
        '  metadata_path: "metadata.tsv"',
        "}",
    ]
    place = as_path("`folder`", folder)
    place.mkdir(parents=True, exist_ok=True)
    write_text(place / "tensors.tsv", numbers.getvalue())
    write_text(place / "metadata.tsv", "\n".join([*lines, ""]))
    write_text(place / "projector_config.pbtxt", "\n".join([*config, ""]))


def _cell(value: Any) -> str:
    """A value on one line and in one column; the projector refuses empty names."""
    return " ".join(str(value).split()) or "-"
