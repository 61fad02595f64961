"""Export for serving, where neither this package nor DeepCTR is installed.

A SavedModel that recommends wherever TensorFlow runs, or the user encoder alone for TFLite and ONNX runtimes.
"""

from __future__ import annotations

import json
import keyword
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._arrays import check_floats
from deepmatch_ext._checks import (
    as_path,
    finite_number,
    int_at_least,
    no_duplicates,
    one_of,
    positive_number,
    problem,
    shown,
)
from deepmatch_ext._exchange import FORMATS, Exchange
from deepmatch_ext._files import sync, sync_folder, unfinished_folder, whole_file
from deepmatch_ext._keras import keras
from deepmatch_ext._names import plain_name
from deepmatch_ext._no_item import no_item
from deepmatch_ext._traced import assertion
from deepmatch_ext._version import __version__
from deepmatch_ext.data import IdMap
from deepmatch_ext.features import Column, DenseColumn, SequenceColumn, input_shapes
from deepmatch_ext.layers import HashIds
from deepmatch_ext.layers.jagged import padded_pooling
from deepmatch_ext.models import RetrievalModel
from deepmatch_ext.retrieval.top_n import best_rows

FORMAT = 1  # of the manifest
MANIFEST = "manifest.json"
VECTOR_DTYPES = ("float32", "float16", "int8")
_TOLERANCE = 1e-5  # between a file's vectors and the model's, as a fraction of the largest entry where that is above 1


def export_recommender(
    model: RetrievalModel,
    folder: str | os.PathLike[str],
    *,
    item_ids: Any = None,
    item_vectors: Any = None,
    id_maps: Mapping[str, IdMap] | None = None,
    scaling: Mapping[str, tuple[float, float]] | None = None,
    vector_dtype: str = "float32",
    version: int | None = None,
) -> Path:
    """Writes a SavedModel that turns user features into vectors and recommendations, as a new version in ``folder``.

    It has four signatures, and loads with ``tf.saved_model.load``, TensorFlow Serving and the like, where neither this
    package nor DeepCTR is installed:

    ==================== =================================== ===========================================
    signature            reads                               returns
    ==================== =================================== ===========================================
    ``user_vector``      the user's features                 ``user_vector`` (B, D) or (B, K, D)
    ``recommend``        these, and ``n`` ()                 ``item_ids`` (B, n), ``scores`` (B, n)
    ``recommend_unseen`` these, ``n`` and ``seen`` (B, S)    the same, without the items in ``seen``
    ``recommend_among``  all of these, and ``among`` (A,)    the same, only from the items in ``among``
    ==================== =================================== ===========================================

    Features have the names, shapes and types of ``model.user_input``. A name that a signature can't have, such as one
    with characters other than ASCII letters, digits and underscores, is replaced with a unique name that it can have;
    ``manifest.json`` lists these names. ``n`` is an int32 from 1 to the number of items. ``seen`` holds item ids as
    they are returned, padded with anything that is not an item's id. ``among`` holds the ids of the items that may be
    recommended to all users of the request, such as those in stock; unknown ids are ignored.

    The best item comes first; with equal scores, the one that is first in the catalogue. If fewer than ``n`` items are
    left, the row is padded with score -inf and the manifest's ``no_item``: ``""``, or for integers the first of 0, -1,
    -2, ... that is not an item's id. With K interests an item's score is its best over the K, and it is returned once;
    the manifest's ``interests`` is K, or null for a model with one vector per user.

    A version is a folder whose name is a number, as TensorFlow Serving expects. It is written under another name and
    then renamed, so a server that watches the folder finds it whole or not at all. Existing versions are never changed.
    ``manifest.json`` is beside the SavedModel: it has what a server needs to check requests, and the size of each file,
    so that an incomplete copy is recognised.

    Args:
        model: What a builder such as `YoutubeDNN` returned.
        folder: The folder of the versions, which is created if necessary.
        item_ids: The items' own ids, integers or strings, in the order of the model's ids: an `IdMap`, or an array
            whose element ``k`` is item id ``k + 1``. None: the model's ids, 1..V-1.
        item_vectors: With ``item_ids``: vectors (len(item_ids), D) in their order, instead of those of the whole
            catalogue; for a hashed item column, or if only a part of the catalogue may be recommended.
        id_maps: name of a user input -> `IdMap`: this input takes raw ids in the export, such as a history of the
            items' own ids. Raw ids that the map does not know become 0.
        scaling: name of a user input of numbers -> (mean, deviation): this input takes raw numbers in the export, and
            the model reads ``(number - mean) / deviation``. NaN, a missing number, counts as the mean.
            ``manifest.json`` has both.
        vector_dtype: The type in which item vectors are stored: ``float32``, ``float16``, or ``int8`` (each vector's
            entries as 127ths of its largest entry). The table in which histories are looked up is unchanged.
        version: The new version's number, 1 or more. None: one above the highest in ``folder``.

    Returns:
        The new version's folder.

    Raises:
        ValueError: An argument can't be used, or the version exists; nothing is written then.

    Example:
        >>> import tempfile
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext import YoutubeDNN
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 4, 8, embedding_name="item"), 5, "mean", "hist_len")
        >>> model = YoutubeDNN([history], [SparseFeat("item", 4, 8)])
        >>> names = IdMap(["tea", "milk", "bread"])
        >>> path = export_recommender(model, tempfile.mkdtemp(), item_ids=names, id_maps={"hist_item": names})
        >>> path.name
        '1'
        >>> served = tf.saved_model.load(str(path))  # in any process that has TensorFlow
        >>> user = {"hist_item": tf.constant([["milk", "tea", "", "", ""]]), "hist_len": tf.constant([[2]])}
        >>> recommend = served.signatures["recommend_unseen"]
        >>> recommend(**user, n=tf.constant(1), seen=tf.constant([["milk", "tea"]]))["item_ids"].numpy()
        array([[b'bread']], dtype=object)
    """
    _check_model(model)
    one_of("`vector_dtype`", vector_dtype, VECTOR_DTYPES)
    folder = as_path("`folder`", folder)
    if folder.exists() and not folder.is_dir():
        raise problem("`folder`", "be a folder", f"the file {str(folder)!r}")
    if version is not None:
        version = int_at_least("`version`", version, 1)
        if (folder / str(version)).exists():
            raise problem(
                "`version`",
                "be new, since a version that exists is never changed",
                f"{version}, which is in {str(folder)!r}",
                "Leave it out for the next number.",
            )
    columns = model.user_columns
    id_maps, scaling = _checked_maps(columns, id_maps), _checked_scaling(columns, scaling)
    ids, vectors = _catalogue(model, item_ids, item_vectors)
    arguments = _arguments(tensor.name for tensor in model.user_input)

    recommender = _Recommender(model, ids, _stored(vectors, vector_dtype), id_maps, scaling, arguments)
    manifest = {
        "format": FORMAT,
        "written_by": {"deepmatch_ext": __version__, "tensorflow": tf.__version__},
        "signatures": sorted(recommender.signatures),
        "items": len(vectors),
        "dim": vectors.shape[1],
        "interests": None if len(model.user_emb.shape) == 2 else int(model.user_emb.shape[1]),
        "vector_dtype": vector_dtype,
        "item_ids": recommender.id_dtype.name,
        "no_item": recommender.no_item,
        "inputs": _inputs(columns, id_maps, scaling, arguments),
    }
    return _write(recommender, manifest, folder, version)


def export_user_encoder(model: RetrievalModel, path: str | os.PathLike[str]) -> Path:
    """Writes the user encoder as one file for TFLite or ONNX runtimes, on a phone or in a service without TensorFlow.

    The file takes the user's features under the same names as `export_recommender`'s, which for names of ASCII letters,
    digits and underscores are the model's own. It returns ``user_vector``, (B, D) or (B, K, D) in float32, for any B
    from 1. A TFLite file has one signature and needs only TFLite's builtin operations; an ONNX file has opset 18. Items
    are not part of it: `write_vectors` writes their vectors, for an index.

    Before the file gets its name, its runtime computes the vectors of a few generated users, together and one by one,
    which must equal those of ``model.user_vectors`` to within 1e-5. One user has no history, and one has the same item
    throughout.

    An id outside 0..V-1 is an error in the file, as it is in the model.

    Args:
        model: What a builder such as `YoutubeDNN` returned, without hashed user columns, since these runtimes can't
            hash.
        path: The file, which is replaced. Its suffix is the format: ``.tflite``, or ``.onnx``, which needs the extra
            ``onnx``.

    Returns:
        The path.

    Raises:
        ValueError: An argument can't be used, the format can't hold the model, such as an `SDM` in TFLite, or the
            vectors differ. An existing file is unchanged.
        ImportError: tf2onnx or onnxruntime is not installed.

    Example:
        >>> import tempfile
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext import YoutubeDNN
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 4, 8, embedding_name="item"), 5, "mean", "hist_len")
        >>> model = YoutubeDNN([history], [SparseFeat("item", 4, 8)])
        >>> export_user_encoder(model, f"{tempfile.mkdtemp()}/user.tflite").name
        'user.tflite'
    """
    _check_model(model)
    path = as_path("`path`", path)
    exchange = FORMATS[one_of("The suffix of `path`", path.suffix, tuple(FORMATS))]
    if path.is_dir():
        raise problem("`path`", "be a file or not exist yet", f"the folder {str(path)!r}")
    for column in model.user_columns:
        sparse = column.sparsefeat if isinstance(column, SequenceColumn) else column
        if not isinstance(sparse, DenseColumn) and sparse.use_hash:
            raise problem(
                f"The user column {column.name!r}",
                f"take ids, since {exchange.name} has no operation that hashes or looks up text",
                "a hashed column",
                "Encode its values with an IdMap before the model, or use export_recommender.",
            )
    content = _user_encoder(model, exchange)
    with whole_file(path, path.suffix) as unfinished:
        unfinished.write_bytes(content)
    return path


def _user_encoder(model: RetrievalModel, exchange: Exchange) -> bytes:
    """The file's content, after its vectors of generated users were compared with the model's."""
    arguments = _arguments(tensor.name for tensor in model.user_input)
    encoder = keras.Model(model.user_input, model.user_emb)

    ids = {column.name for column in model.user_columns if not isinstance(column, DenseColumn)}

    def encode(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        encoded = []
        for tensor in model.user_input:
            values = inputs[arguments[tensor.name]]
            if tensor.name in ids:  # onnxruntime would count a negative id from the end of the table
                values = tf.where(values < 0, values.dtype.max, values)
            encoded.append(values)
        return {"user_vector": tf.cast(encoder(encoded, training=False), tf.float32)}

    specs = [_spec(tensor, {}, arguments) for tensor in model.user_input]
    with padded_pooling():
        content = exchange.write(encode, specs)
    users = _made_up_users(model.user_columns)
    expected = model.user_vectors(users)
    given = {arguments[name]: values for name, values in users.items()}
    each = [{name: values[row : row + 1] for name, values in given.items()} for row in range(len(expected))]
    try:
        vectors = exchange.run(content, given)["user_vector"]
        alone = np.concatenate([exchange.run(content, one)["user_vector"] for one in each])
    except RuntimeError as error:
        raise problem(f"The {exchange.name} file", "run", f"{type(error).__name__}: {error}") from error
    difference = np.inf
    if vectors.shape == alone.shape == expected.shape:
        difference = float(max(np.abs(vectors - expected).max(), np.abs(alone - expected).max()))
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        rule = f"return the model's user vectors, to {_TOLERANCE:g}"
        raise problem(f"The {exchange.name} file", rule, f"a difference of {difference:.2g}")
    return content


def _made_up_users(columns: Sequence[Column]) -> dict[str, np.ndarray]:
    """Features of five users, in the shapes and types of the model's inputs.

    The first has no history, and the last one has the same item again and again.
    """
    rng = np.random.default_rng(0)
    users: dict[str, np.ndarray] = {}
    for column in columns:
        shapes = input_shapes(column)
        for name, (shape, dtype) in shapes.items():
            users[name] = rng.random((5, *shape)).astype(dtype)
        if isinstance(column, DenseColumn):
            continue
        sparse = column.sparsefeat if isinstance(column, SequenceColumn) else column
        shape, dtype = shapes[column.name]
        users[column.name] = rng.integers(1, sparse.vocabulary_size, (5, *shape)).astype(dtype)
        if isinstance(column, SequenceColumn):
            lengths = np.array([[0], [1], [(column.maxlen + 1) // 2], [column.maxlen], [column.maxlen]])
            users[column.name][-1] = users[column.name][-1, 0]
            users[column.name][np.arange(column.maxlen) >= lengths] = 0
            if column.length_name is not None:
                users[column.length_name] = lengths.astype(shapes[column.length_name][1])
    return users


def _check_model(model: Any) -> None:
    if not isinstance(model, RetrievalModel):
        raise problem("`model`", "be what a builder such as YoutubeDNN returns", type(model).__name__)


class _Recommender:
    """The functions behind the signatures."""

    def __init__(
        self,
        model: RetrievalModel,
        ids: IdMap | None,
        stored: tuple[np.ndarray, np.ndarray | None],
        id_maps: Mapping[str, IdMap],
        scaling: Mapping[str, tuple[float, float]],
        arguments: Mapping[str, str],
    ) -> None:
        vectors, scales = stored
        self._arguments, self._scaling = arguments, scaling
        self._vectors = tf.Variable(vectors, trainable=False)
        self._scales = None if scales is None else tf.Variable(scales, trainable=False)
        self._tables = {name: _table(known) for name, known in id_maps.items()}
        # Tables of keys are resources that the export has to hold.
        self._vocabularies = [layer.vocabulary for layer in model.layers if isinstance(layer, HashIds)]
        self.id_dtype: tf.DType = tf.int64
        self.no_item: int | str = 0
        self._places, self._ids = None, None
        if ids is not None:
            self.id_dtype, self.no_item = _no_item(ids)
            same = [name for name, known in id_maps.items() if known == ids]
            self._places = self._tables[same[0]] if same else _table(ids)
            self._ids = tf.Variable([self.no_item, *ids.values], dtype=self.id_dtype, trainable=False)
        self._user_input = list(model.user_input)
        self._encoder = keras.Model(model.user_input, model.user_emb)
        self._vectors_of = tf.function(self._encoded, autograph=False)  # one trace of the model for all signatures

        user = {spec.name: spec for spec in (_spec(tensor, id_maps, arguments) for tensor in self._user_input)}
        n = {"n": tf.TensorSpec([], tf.int32, "n")}
        seen = {"seen": tf.TensorSpec([None, None], self.id_dtype, "seen")}
        among = {"among": tf.TensorSpec([None], self.id_dtype, "among")}
        self.signatures = {
            "user_vector": tf.function(self._user_vector, autograph=False).get_concrete_function(**user),
        }
        for name, more in (("recommend", {}), ("recommend_unseen", seen), ("recommend_among", {**seen, **among})):
            function = tf.function(self._recommend, autograph=False)
            self.signatures[name] = function.get_concrete_function(**user, **n, **more)

    def trackable(self) -> tf.Module:
        """What a SavedModel of the signatures has to hold: only the variables and tables that they use."""
        variables = {v.ref(): v for function in self.signatures.values() for v in function.graph.variables}
        tables = [*self._tables.values(), *self._vocabularies, *([] if self._places is None else [self._places])]
        module = tf.Module()
        module.resources = [*variables.values(), *tables]
        return module

    def _user_vector(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"user_vector": self._vectors_of(inputs)}

    def _recommend(
        self, n: tf.Tensor, seen: tf.Tensor | None = None, among: tf.Tensor | None = None, **inputs: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        items = int(self._vectors.shape[0])
        in_range = assertion((n >= 1) & (n <= items), f"`n` must be from 1 to {items}, the items; got", n)
        users = tf.debugging.check_numerics(self._vectors_of(inputs), "A user's vector must be finite")
        checks = [in_range]
        if seen is not None:
            message = "`seen` must have a row for each user"
            checks.append(tf.debugging.assert_equal(tf.shape(seen)[0], tf.shape(users)[0], message))
            seen = self._rows(seen)
        if among is not None:
            allowed = self._rows(among)
            allowed = tf.boolean_mask(allowed, (allowed >= 0) & (allowed < items))[:, tf.newaxis]
            among = tf.scatter_nd(allowed, tf.ones_like(allowed[:, 0]), tf.constant([items], tf.int64)) > 0
        with tf.control_dependencies([check for check in checks if check is not None]):
            rows, scores = best_rows(users, self._vectors, n, seen, among=among, scales=self._scales)
        places = tf.cast(rows, tf.int64) + 1  # 0 for no item
        return {"item_ids": places if self._ids is None else tf.gather(self._ids, places), "scores": scores}

    def _rows(self, ids: tf.Tensor) -> tf.Tensor:
        """The row numbers of items' vectors; an id that is not an item's gets a number outside their range."""
        return (ids if self._places is None else self._places.lookup(ids)) - 1

    def _encoded(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        encoded = []
        for tensor in self._user_input:
            values = inputs[self._arguments[tensor.name]]
            if tensor.name in self._tables:
                values = tf.cast(self._tables[tensor.name].lookup(values), tensor.dtype)
            if tensor.name in self._scaling:
                values = tf.cast(_scaled(values, *self._scaling[tensor.name]), tensor.dtype)
            encoded.append(values)
        return tf.cast(self._encoder(encoded, training=False), tf.float32)


def _scaled(values: tf.Tensor, mean: float, deviation: float) -> tf.Tensor:
    """Raw numbers as the model reads them, of the same shape; NaN as the mean. In float64, as in `Recommender`."""
    scaled = (tf.cast(values, tf.float64) - mean) / deviation
    return tf.where(tf.math.is_nan(scaled), tf.zeros_like(scaled), scaled)


def _spec(tensor: Any, id_maps: Mapping[str, IdMap], arguments: Mapping[str, str]) -> tf.TensorSpec:
    dtype = _no_item(id_maps[tensor.name])[0] if tensor.name in id_maps else tensor.dtype
    return tf.TensorSpec(tensor.shape, dtype, arguments[tensor.name])


def _arguments(names: Iterable[str]) -> dict[str, str]:
    """name of an input -> its name in the signatures, for which upper and lower case are the same."""
    arguments = {name: _argument(name) for name in names}
    times = Counter(argument.lower() for argument in arguments.values())
    for name, argument in arguments.items():
        if times[argument.lower()] > 1 and argument != argument.lower():
            arguments[name] = f"{argument}_{zlib.crc32(name.encode()):08x}"
    no_duplicates("The user inputs in the export's signatures", [argument.lower() for argument in arguments.values()])
    return arguments


def _argument(name: str) -> str:
    """A name that works as a signature's input besides `n`, `seen` and `among`, and as a Python argument."""
    begins_well = name[0].isascii() and name[0].isalpha()
    is_taken = name.lower() in ("n", "seen", "among") or name == "self" or keyword.iskeyword(name)
    return plain_name(name, prefix="" if begins_well and not is_taken else "arg_")


def _table(ids: IdMap) -> tf.lookup.StaticHashTable:
    """Maps raw ids to 1, 2, ..., and unknown ones to 0."""
    numbers = tf.range(1, len(ids) + 1, dtype=tf.int64)
    known = tf.lookup.KeyValueTensorInitializer(tf.constant(ids.values, _no_item(ids)[0]), numbers)
    return tf.lookup.StaticHashTable(known, default_value=0)


def _no_item(ids: IdMap) -> tuple[tf.DType, Any]:
    """The type of raw ids, and a value of that type that is not one of them."""
    return tf.string if ids.values.dtype.kind == "O" else tf.int64, ids.no_item


def _catalogue(model: RetrievalModel, item_ids: Any, item_vectors: Any) -> tuple[IdMap | None, np.ndarray]:
    """The items' own ids, if there are any, and the items' vectors (N, D), padding left out."""
    ids = item_ids if item_ids is None or isinstance(item_ids, IdMap) else IdMap(item_ids)
    if ids is not None:
        no_item("`item_ids`", ids.values)
    if item_vectors is None:
        vectors, _ = check_floats("The item vectors", ["(N, D)"], model.item_vectors()[1:])
        if ids is not None and len(ids) != len(vectors):
            raise problem(
                "`item_ids`",
                f"have an id for each of the model's {len(vectors)} items",
                f"{len(ids)}",
                "For a part of the catalogue, give its `item_vectors`, too.",
            )
    else:
        if ids is None:
            raise problem("`item_vectors`", "come with `item_ids`, which say whose they are", "vectors alone")
        vectors, _ = check_floats("`item_vectors`", ["(N, D)"], item_vectors)
        expected = (len(ids), int(model.user_emb.shape[-1]))
        if vectors.shape != expected:
            raise problem("`item_vectors`", f"have shape {expected}, a row for each of `item_ids`", vectors.shape)
    return ids, vectors


def _stored(vectors: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The vectors as they are stored, and with int8 the factor of each item's scores."""
    if dtype == "int8":
        largest = np.abs(vectors).max(axis=1)
        scales = np.where(largest > 0, largest, 1) / np.float32(127)
        return np.rint(vectors / scales[:, None]).astype(np.int8), scales.astype(np.float32)
    limit = float(np.finfo(dtype).max)
    if vectors.size and np.abs(vectors).max() > limit:
        raise problem("The item vectors", f"be within {dtype}, {limit:g}", f"{np.abs(vectors).max():g}")
    return vectors.astype(dtype), None


def _checked_maps(columns: Sequence[Column], id_maps: Mapping[str, IdMap] | None) -> dict[str, IdMap]:
    if id_maps is None:
        return {}
    if not isinstance(id_maps, Mapping):
        raise problem("`id_maps`", "be a dictionary, name of a user input -> IdMap", type(id_maps).__name__)
    sparse = {
        column.name: column.sparsefeat if isinstance(column, SequenceColumn) else column
        for column in columns
        if not isinstance(column, DenseColumn)
    }
    for name, known in id_maps.items():
        what = f"`id_maps[{name!r}]`"
        if name not in sparse or sparse[name].use_hash:
            able = sorted(name for name, column in sparse.items() if not column.use_hash)
            raise problem(what, f"be for a user input of ids that are not hashed, one of {able}", repr(name))
        if not isinstance(known, IdMap):
            raise problem(what, "be an IdMap", type(known).__name__)
        no_item(what, known.values)
        if known.vocabulary_size > sparse[name].vocabulary_size:
            rule = f"have at most {sparse[name].vocabulary_size - 1} raw ids, as many as the column has room for"
            raise problem(what, rule, f"{len(known)}")
    return dict(id_maps)


def _checked_scaling(
    columns: Sequence[Column], scaling: Mapping[str, tuple[float, float]] | None
) -> dict[str, tuple[float, float]]:
    if scaling is None:
        return {}
    if not isinstance(scaling, Mapping):
        raise problem("`scaling`", "be a dictionary, name of a user input -> (mean, deviation)", shown(scaling))
    numbers = sorted(column.name for column in columns if isinstance(column, DenseColumn))
    checked = {}
    for name, pair in scaling.items():
        what = f"`scaling[{name!r}]`"
        if name not in numbers:
            raise problem(what, f"be for a user input of numbers, one of {numbers}", repr(name))
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise problem(what, "be a pair, (mean, deviation)", shown(pair))
        mean, deviation = finite_number(f"The mean in {what}", pair[0]), pair[1]
        checked[name] = mean, positive_number(f"The deviation in {what}", deviation)
    return checked


def _inputs(
    columns: Sequence[Column],
    id_maps: Mapping[str, IdMap],
    scaling: Mapping[str, tuple[float, float]],
    arguments: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """The manifest's entry for each user input, from which requests are checked and filled."""
    inputs: dict[str, dict[str, Any]] = {}
    for column in columns:
        for name, (shape, dtype) in input_shapes(column).items():
            inputs[arguments[name]] = {"name": name, "kind": "numbers", "shape": list(shape), "dtype": dtype}
        if column.name in scaling:
            inputs[arguments[column.name]].update(zip(("mean", "deviation"), scaling[column.name], strict=True))
        if isinstance(column, DenseColumn):
            continue
        about = inputs[arguments[column.name]]
        sparse = column.sparsefeat if isinstance(column, SequenceColumn) else column
        about["kind"] = "id"
        if column.name in id_maps:
            raw_dtype, padding = _no_item(id_maps[column.name])
            about["dtype"] = raw_dtype.name
        else:
            padding = "0" if sparse.dtype == "string" else 0
            if not sparse.use_hash:
                about["vocabulary_size"] = sparse.vocabulary_size
        if isinstance(column, SequenceColumn):
            about.update(kind="history", padding=padding, length=None, weights=None)
            for kind, companion in [("length", column.length_name), ("weights", column.weight_name)]:
                if companion is not None:
                    about[kind] = arguments[companion]
                    inputs[arguments[companion]]["kind"] = kind
    return inputs


def _write(recommender: _Recommender, manifest: Mapping[str, Any], folder: Path, version: int | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with unfinished_folder(folder / "version") as unfinished:
        # An export is not trained, and custom gradients can't be saved.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(recommender.trackable(), str(unfinished), recommender.signatures, options)
        paths = sorted(path for path in unfinished.rglob("*") if path.is_file())
        files = {path.relative_to(unfinished).as_posix(): path.stat().st_size for path in paths}
        (unfinished / MANIFEST).write_text(json.dumps({**manifest, "files": files}, indent=1) + "\n", encoding="utf-8")
        sync_folder(unfinished)
        while True:
            target = folder / str(_highest(folder) + 1 if version is None else version)
            try:
                unfinished.rename(target)
                break
            except OSError:
                if version is not None or not target.exists():
                    raise
                # Another export took the number between the look and the renaming.
    sync(folder)
    return target


def _highest(folder: Path) -> int:
    return max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)
