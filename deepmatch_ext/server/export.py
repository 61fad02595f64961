"""A loaded version of an export, and the checks of its requests."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

FORMAT = 1  # of the manifest


def versions(folder: Path) -> list[Path]:
    """The exported versions, the highest first."""
    return sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: -int(path.name))


def highest(folder: Path) -> ServedExport:
    """The highest version in a folder that can be served.

    Args:
        folder: The folder of the versions, as given to `export_recommender`.

    Returns:
        The version, loaded.

    Raises:
        OSError: There is no such folder.
        ValueError: None can be served; the message says why for the highest.

    Example:
        >>> import tempfile
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext import YoutubeDNN
        >>> from deepmatch_ext.serving import export_recommender
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 4, 8, embedding_name="item"), 5, "mean", "hist_len")
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = export_recommender(YoutubeDNN([history], [SparseFeat("item", 4, 8)]), folder, version=7)
        >>> export = highest(folder)
        >>> export.version, export.items
        (7, 3)
    """
    errors = [ValueError(f"{folder} has no exported version, a folder with a number for its name")]
    for path in versions(folder):
        try:
            return ServedExport(path)
        except ValueError as error:
            errors.insert(-1, error)
    raise errors[0]


@dataclass(frozen=True)
class Query:
    """A checked request, as `ServedExport.check` returns it.

    Args:
        user: The user's features by the model's names, each of the shape that the model has for one row.
        n: How many items are requested.
        seen: Ids of items that are left out.
        among: Ids of the items that may be recommended. None: all.

    Example:
        >>> query = Query({"hist_item": [3, 1, 0, 0, 0], "hist_len": [2]}, n=2, seen=[3, 1])
        >>> query.seen, query.among
        ([3, 1], None)
    """

    user: Mapping[str, Any]
    n: int
    seen: Sequence[Any] = ()
    among: frozenset[Any] | None = None


class ServedExport:
    """One version of an export, loaded.

    Args:
        path: The version's folder, as `export_recommender` returned it.

    Attributes:
        version: Its number.
        items: The number of its items.
        inputs: The manifest's entry for each user input, by the model's names.

    Raises:
        ValueError: It can't be served, such as an incomplete copy.

    Example:
        >>> import tempfile
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext import YoutubeDNN
        >>> from deepmatch_ext.serving import export_recommender
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 4, 8, embedding_name="item"), 5, "mean", "hist_len")
        >>> model = YoutubeDNN([history], [SparseFeat("item", 4, 8)])
        >>> export = ServedExport(export_recommender(model, tempfile.mkdtemp()))
        >>> query = export.check({"hist_item": [3, 1]}, n=2, seen=[3, 1])
        >>> export.recommend([query])[0]["ids"]
        [2]
    """

    def __init__(self, path: Path) -> None:
        try:
            self._load(path)
        except Exception as error:  # TensorFlow's are of many kinds
            raise ValueError(f"{path} can't be served: {' '.join(str(error).split())}") from error

    def _load(self, path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format must be {FORMAT}; got {manifest['format']}")
        for name, size in manifest["files"].items():  # TensorFlow loads half a vocabulary without an error
            if (path / name).stat().st_size != size:
                raise ValueError(f"{name} must have {size} bytes; got {(path / name).stat().st_size}")
        self.version, self.items, self.inputs = int(path.name), manifest["items"], by_name(manifest["inputs"])
        self._ids_are_text, self._no_item = manifest["item_ids"] == "string", manifest["no_item"]
        self._loaded = tf.saved_model.load(str(path))  # kept, for the signatures alone don't keep its variables
        self._recommend = {name: self._loaded.signatures[name] for name in ("recommend_unseen", "recommend_among")}
        for rows in (1, 2):  # the first call of each is slow, and shows whether anything is missing
            self.recommend([Query({name: blank(about) for name, about in self.inputs.items()}, 1)] * rows)

    def check(
        self, user: Mapping[str, Any], n: int, seen: Sequence[Any] = (), among: Sequence[Any] | None = None
    ) -> Query:
        """Checks a request, and converts it to the form that the export takes.

        Args:
            user: The user's features by the model's names. A history is a list, most recent first; it is cut to the
                model's length, and its length is counted here.
            n: How many items are requested.
            seen: Ids of items that are left out.
            among: Ids of the items that may be recommended. None: all.

        Returns:
            The query, for `recommend` or `Service.answer`.

        Raises:
            ValueError: The request can't be answered; the message tells the sender what is wrong.
        """
        if n > self.items:
            raise ValueError(f"n must be at most {self.items}, the number of items; got {n}")
        for name, ids in (("seen", seen), ("among", among or ())):
            for item in ids:
                checked_text(name, item) if self._ids_are_text else checked_int(name, item, -(2**63), 2**63 - 1)
        readable = [name for name, about in self.inputs.items() if about["kind"] != "length"]
        for name in user:
            if name not in readable:
                why = ", which is counted here" if name in self.inputs else f"; the export reads {readable}"
                raise ValueError(f"user must not have {name!r}{why}")
        for name in readable:
            if name not in user:
                raise ValueError(f"user must have {name!r}")
        row: dict[str, Any] = {}
        lengths: dict[str, tuple[str, int]] = {}  # name of a length -> the history that it is of, and how many
        for name in readable:
            about, value = self.inputs[name], user[name]
            if about["kind"] == "id":
                row[name] = [checked_id(name, about, value)]
            elif about["kind"] == "history":
                room = about["shape"][0]
                ids = [checked_id(name, about, item) for item in checked_list(name, value)[:room]]
                row[name] = ids + [about["padding"]] * (room - len(ids))
                if (length := about["length"]) is not None:
                    first, expected = lengths.setdefault(length, (name, len(value)))
                    if len(value) != expected:
                        raise ValueError(f"{name} must be as long as {first}, {expected}; got {len(value)}")
                    row[length] = [min([len(ids), *row.get(length, [])])]
                if (weights := about["weights"]) is not None:
                    if weights not in user or len(checked_list(weights, user[weights])) != len(value):
                        raise ValueError(f"user must have {weights!r}, as long as {name}, {len(value)}")
                    numbers = [checked_number(weights, self.inputs[weights], number) for number in user[weights][:room]]
                    row[weights] = [[number] for number in numbers + [0.0] * (room - len(numbers))]
            elif about["kind"] == "numbers":
                numbers = value if isinstance(value, list) else [value]
                if len(numbers) != about["shape"][0]:
                    raise ValueError(f"{name} must hold {about['shape'][0]} numbers; got {len(numbers)}")
                row[name] = [checked_number(name, about, number) for number in numbers]
        return Query(row, n, seen, None if among is None else frozenset(among))

    def recommend(self, queries: Sequence[Query]) -> list[dict[str, Any]]:
        """The answers to some queries, in their order: ``ids``, ``scores``, ``version``. Queries with the
        same ``among`` are computed together. If fewer than ``n`` items are left, an answer has fewer.
        """
        answers: list[dict[str, Any]] = [{}] * len(queries)
        for among in dict.fromkeys(query.among for query in queries):
            places = [place for place, query in enumerate(queries) if query.among == among]
            for place, answer in zip(places, self._computed([queries[k] for k in places], among), strict=True):
                answers[place] = answer
        return answers

    def _computed(self, queries: Sequence[Query], among: frozenset[Any] | None) -> list[dict[str, Any]]:
        arrays = {}
        for name, about in self.inputs.items():
            rows = [query.user[name] for query in queries]
            arrays[about["argument"]] = tf.constant(
                rows if about["dtype"] == "string" else np.array(rows, about["dtype"])
            )
        id_type = tf.string if self._ids_are_text else tf.int64
        longest = max(len(query.seen) for query in queries)
        seen = [[*query.seen, *[self._no_item] * (longest - len(query.seen))] for query in queries]
        arrays |= {"seen": tf.constant(seen, id_type), "n": tf.constant(max(query.n for query in queries))}
        if among is not None:
            arrays["among"] = tf.constant(list(among), id_type)
        found = self._recommend["recommend_unseen" if among is None else "recommend_among"](**arrays)
        ids, scores = found["item_ids"].numpy(), found["scores"].numpy()
        left = np.isfinite(scores).sum(axis=1)
        answers = []
        for row, query in enumerate(queries):
            n = min(query.n, int(left[row]))
            own = ids[row, :n].tolist()
            own = [item.decode() for item in own] if self._ids_are_text else own
            answers.append({"ids": own, "scores": scores[row, :n].tolist(), "version": self.version})
        return answers


def by_name(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's inputs by the model's names, instead of the signatures' arguments."""
    names = {argument: about["name"] for argument, about in inputs.items()}
    return {
        names[argument]: {
            **about,
            "argument": argument,
            **{part: names.get(about[part]) for part in ("length", "weights") if part in about},
        }
        for argument, about in inputs.items()
    }


def blank(about: Mapping[str, Any]) -> Any:
    """A row of an input without any information."""
    return np.full(about["shape"], about.get("padding", "" if about["dtype"] == "string" else 0), object).tolist()


def checked_id(name: str, about: Mapping[str, Any], value: Any) -> Any:
    """``value``, if the input can take it."""
    if about["dtype"] == "string":
        return checked_text(name, value)
    if "vocabulary_size" in about:
        return checked_int(name, value, 0, about["vocabulary_size"] - 1)
    limits = tf.as_dtype(about["dtype"])  # hashed, or looked up in a map: any number of the type
    return checked_int(name, value, limits.min, limits.max)


def checked_text(name: str, value: Any) -> str:
    """``value`` if it is text that can be encoded, unlike JSON's lone surrogates."""
    if type(value) is not str or value.encode(errors="ignore").decode() != value:
        raise ValueError(f"{name} must hold strings; got {reprlib.repr(value)}")
    return value


def checked_int(name: str, value: Any, low: int, high: int) -> int:
    """``value`` if it is an integer in low..high."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must hold integers from {low} to {high}; got {reprlib.repr(value)}")
    return value


def checked_number(name: str, about: Mapping[str, Any], value: Any) -> float:
    """``value`` if it is a number that the input's type holds."""
    limits = tf.as_dtype(about["dtype"])
    if limits.is_integer:
        return checked_int(name, value, limits.min, limits.max)
    if type(value) not in (int, float) or not abs(value) <= float(limits.max):  # NaN is not
        raise ValueError(f"{name} must hold numbers that {about['dtype']} holds; got {reprlib.repr(value)}")
    return value


def checked_list(name: str, value: Any) -> list[Any]:
    """``value`` if it is a list."""
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list; got {reprlib.repr(value)}")
    return value
