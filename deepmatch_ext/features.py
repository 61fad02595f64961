"""DeepCTR's feature columns, read into plain frozen objects, and the Keras inputs that they stand for.

Columns are recognised by their attributes, so this package never has to import DeepCTR itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import as_function, as_list, int_at_least, no_duplicates, positive_int, problem, shown
from deepmatch_ext._initializers import TableInitializer, table_initializer
from deepmatch_ext._keras import NOT_IN_NAMES, keras
from deepmatch_ext._plain import is_registered, nameless


@dataclass(frozen=True)
class SparseColumn:
    """One id per example, (B, 1); the attributes are those of DeepCTR's ``SparseFeat``.

    Its table has shape (``vocabulary_size``, ``embedding_dim``). Columns with the same ``embedding_name`` share one.

    Example:
        >>> from deepctr.feature_column import SparseFeat
        >>> [column] = read_columns("columns", [SparseFeat("city", 100, embedding_dim=8)])
        >>> column.vocabulary_size, column.embedding_name, column.dtype
        (100, 'city', 'int32')
    """

    name: str
    vocabulary_size: int
    embedding_dim: int
    use_hash: bool = False
    vocabulary_path: str | None = None
    dtype: str = "int32"
    embeddings_initializer: TableInitializer | None = None  # None: the user gave none
    embedding_name: str = ""
    trainable: bool = True

    def __post_init__(self) -> None:
        limits = None if self.use_hash else whole_numbers(self.dtype)
        is_size = isinstance(self.vocabulary_size, int)  # else it is refused where the column is read
        if limits is not None and is_size and self.vocabulary_size - 1 > limits[1]:
            rule = f"be at most {limits[1] + 1}, since its `dtype`, {self.dtype}, does not tell larger ids apart"
            remedy = "Give the column dtype='int64'."
            raise problem(f"`vocabulary_size` of column {self.name!r}", rule, self.vocabulary_size, remedy)


@dataclass(frozen=True)
class SequenceColumn:
    """Up to ``maxlen`` ids per example, (B, T), most recent first; attributes as in DeepCTR's ``VarLenSparseFeat``.

    Example:
        >>> item = SparseColumn("hist_item_id", 50, 8, embedding_name="item_id")  # in the table of the item column
        >>> history = SequenceColumn(item, maxlen=5, combiner="recency+last", length_name="hist_len")
        >>> history.name, input_names([history])
        ('hist_item_id', ['hist_item_id', 'hist_len'])
    """

    sparsefeat: SparseColumn
    maxlen: int
    combiner: str = "mean"
    length_name: str | None = None
    weight_name: str | None = None
    weight_norm: bool = True

    @property
    def name(self) -> str:
        return self.sparsefeat.name


@dataclass(frozen=True)
class DenseColumn:
    """A vector of numbers per example, (B, ``dimension``); the attributes are those of DeepCTR's ``DenseFeat``.

    Example:
        >>> input_shapes(DenseColumn("position", dimension=2))
        {'position': ((2,), 'float32')}
    """

    name: str
    dimension: int = 1
    dtype: str = "float32"
    transform_fn: Any = None


Column = SparseColumn | SequenceColumn | DenseColumn

# Up to these, a dtype of floats holds every whole number.
_WHOLE = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**24, "float64": 2**53}


def whole_numbers(dtype: str) -> tuple[int, int] | None:
    """The least and the largest whole number between which a dtype holds them all; None for text.

    Example:
        >>> whole_numbers("uint8"), whole_numbers("float16"), whole_numbers("string")
        ((0, 255), (-2048, 2048), None)
    """
    if dtype in _WHOLE:
        return -_WHOLE[dtype], _WHOLE[dtype]
    kind = tf.as_dtype(dtype)
    return (int(kind.min), int(kind.max)) if kind.is_integer else None


def read_columns(what: str, columns: Iterable[Any]) -> list[Column]:
    """Checked, frozen columns from DeepCTR's ``SparseFeat``, ``VarLenSparseFeat`` and ``DenseFeat``.

    Args:
        what: The argument's name, for error messages.
        columns: DeepCTR's columns, this module's, or what `column_config` wrote.

    Returns:
        The columns, in their order.

    Raises:
        ValueError: An element is not a column, a size is not a positive integer, a ``dtype`` does not hold all ids of
            its column, a ``transform_fn`` is no function, or a name is empty or occurs twice.

    Example:
        >>> from deepctr.feature_column import DenseFeat, SparseFeat
        >>> read_columns("user_feature_columns", [DenseFeat("age", 1)])
        [DenseColumn(name='age', dimension=1, dtype='float32', transform_fn=None)]
        >>> read_columns("user_feature_columns", [SparseFeat("city", 100, embedding_dim=0)])
        Traceback (most recent call last):
        ...
        ValueError: `embedding_dim` of column 'city' must be an integer of at least 1; got 0.
    """
    rule = "be a list of DeepCTR feature columns"
    if isinstance(columns, Mapping):
        raise problem(f"`{what}`", rule, shown(columns))
    read = [_read_column(what, column) for column in as_list(f"`{what}`", rule, columns)]
    for name in input_names(read):
        if not isinstance(name, str) or not name:  # Keras would give its input another name
            raise problem(f"The names in `{what}`", "be text, and not empty", repr(name))
        if NOT_IN_NAMES and NOT_IN_NAMES in name:
            rule = f"have no {NOT_IN_NAMES!r} in them, which Keras 3 refuses in an input's name"
            raise problem(f"The names in `{what}`", rule, repr(name), "Rename it, or set TF_USE_LEGACY_KERAS=1.")
    no_duplicates(f"The columns of `{what}`", [column.name for column in read])
    return read


def _read_column(what: str, column: Any) -> Column:
    if isinstance(column, Mapping):
        return _column_from_config(column)
    if hasattr(column, "sparsefeat"):
        sequence = SequenceColumn(
            sparsefeat=_read_sparse(column.sparsefeat),
            maxlen=positive_int(f"`maxlen` of column {column.sparsefeat.name!r}", column.maxlen),
            combiner=column.combiner,
            length_name=column.length_name,
            weight_name=column.weight_name,
            weight_norm=bool(column.weight_norm),
        )
        names = [sequence.name, sequence.length_name, sequence.weight_name]
        no_duplicates(f"The inputs of column {sequence.name!r}", [name for name in names if name is not None])
        return sequence
    if hasattr(column, "vocabulary_size"):
        return _read_sparse(column)
    if hasattr(column, "dimension"):
        dimension = positive_int(f"`dimension` of column {column.name!r}", column.dimension)
        dtype = _dtype_name(column)
        if column.transform_fn is not None:
            as_function(f"`transform_fn` of column {column.name!r}", column.transform_fn)
        if dtype == "string" and column.transform_fn is None:
            raise problem(f"`dtype` of column {column.name!r}", "be of numbers", dtype)
        return DenseColumn(column.name, dimension, dtype, column.transform_fn)
    raise problem(f"Every element of `{what}`", "be a SparseFeat, VarLenSparseFeat or DenseFeat", column)


def _read_sparse(column: Any) -> SparseColumn:
    of = f"of column {column.name!r}"
    dim = column.embedding_dim
    size = int_at_least(f"`vocabulary_size` {of}", column.vocabulary_size, 2, "It includes id 0, padding.")
    if isinstance(dim, str) and dim == "auto":
        dim = 6 * int(size**0.25)  # DeepCTR's rule
    dim = positive_int(f"`embedding_dim` {of}", dim)
    read = SparseColumn(
        name=column.name,
        vocabulary_size=size,
        embedding_dim=dim,
        use_hash=bool(column.use_hash),
        vocabulary_path=column.vocabulary_path,
        dtype=_dtype_name(column),
        embeddings_initializer=_read_initializer(column.name, column.embeddings_initializer, (size, dim)),
        embedding_name=column.embedding_name or column.name,
        trainable=bool(column.trainable),
    )
    if read.dtype == "string" and not read.use_hash:
        raise problem(f"`use_hash` {of}", "be True for strings", read.use_hash, "Or encode the strings as integers.")
    if read.vocabulary_path and not read.use_hash:
        raise problem(f"`use_hash` {of}", "be True where `vocabulary_path` is given, as in DeepCTR", read.use_hash)
    return read


def _dtype_name(column: Any) -> str:
    """A column's dtype as a name; it may come as ``tf.int32`` or NumPy's type, too."""
    try:
        return str(tf.as_dtype(column.dtype).name)
    except TypeError:
        raise problem(f"`dtype` of column {column.name!r}", "be a TensorFlow dtype", repr(column.dtype)) from None


def _read_initializer(column_name: str, given: Any, shape: tuple[int, int]) -> TableInitializer | None:
    """None if the user gave none: DeepCTR then puts one RandomNormal with one fixed seed on every column."""
    if type(given).__name__ == "RandomNormal":
        config = given.get_config()
        if (config["mean"], config["stddev"], config["seed"]) == (0.0, 0.0001, 2020):
            return None
    return table_initializer(f"`embeddings_initializer` of column {column_name!r}", given, shape)


def column_config(column: Column) -> dict[str, Any]:
    """``column`` as plain data; `read_columns` takes it back.

    Raises:
        ValueError: ``transform_fn`` or the initializer has no registered name; it is a lambda, for example.

    Example:
        >>> config = column_config(DenseColumn("age"))
        >>> config
        {'kind': 'DenseColumn', 'name': 'age', 'dimension': 1, 'dtype': 'float32', 'transform_fn': None}
        >>> read_columns("columns", [config]) == [DenseColumn("age")]
        True
    """
    plain = {field.name: getattr(column, field.name) for field in fields(column)}
    if isinstance(column, SequenceColumn):
        plain["sparsefeat"] = column_config(column.sparsefeat)
    if plain.get("embeddings_initializer") is not None:
        plain["embeddings_initializer"] = plain["embeddings_initializer"].plain()
    transform = plain.get("transform_fn")
    if transform is not None:
        if not is_registered(transform):
            remedy = (
                "Decorate it with `@tf.keras.utils.register_keras_serializable()`, or transform the data beforehand."
            )
            raise nameless(f"`transform_fn` of column {column.name!r}", transform, remedy)
        plain["transform_fn"] = keras.utils.get_registered_name(transform)
    return {"kind": type(column).__name__, **plain}


def with_table_sizes(config: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """What `column_config` wrote, with other vocabulary sizes.

    Args:
        config: A column as plain data, which stays as it is.
        sizes: embedding_name -> the new vocabulary size. Tables that it does not name keep theirs.

    Example:
        >>> config = column_config(SparseColumn("item_id", 50, 8, embedding_name="item_id"))
        >>> with_table_sizes(config, {"item_id": 60})["vocabulary_size"]
        60
    """
    if "sparsefeat" in config:
        return {**config, "sparsefeat": with_table_sizes(config["sparsefeat"], sizes)}
    if config.get("embedding_name") in sizes:
        return {**config, "vocabulary_size": sizes[config["embedding_name"]]}
    return dict(config)


def _column_from_config(config: Mapping[str, Any]) -> Column:
    plain = {key: value for key, value in config.items() if key != "kind"}
    if config["kind"] == "SequenceColumn":
        sparse = _column_from_config(plain.pop("sparsefeat"))
        assert isinstance(sparse, SparseColumn)
        return SequenceColumn(sparsefeat=sparse, **plain)
    if config["kind"] == "SparseColumn":
        shape = plain["vocabulary_size"], plain["embedding_dim"]
        initializer = _read_initializer(plain["name"], plain["embeddings_initializer"], shape)
        return SparseColumn(**{**plain, "embeddings_initializer": initializer})
    if plain["transform_fn"] is not None:
        name = plain["transform_fn"]
        plain["transform_fn"] = keras.utils.get_registered_object(name)
        if plain["transform_fn"] is None:
            raise problem(
                f"`transform_fn` of column {plain['name']!r}",
                "be registered before the model is loaded",
                f"no function registered as {name!r}",
                "Import the module that defines it first.",
            )
    return DenseColumn(**plain)


def input_shapes(column: Column) -> dict[str, tuple[tuple[int, ...], str]]:
    """name -> (shape without the batch, dtype) of every input of a column, as in DeepCTR's build_input_features.

    Example:
        >>> item = SparseColumn("hist_item_id", 50, 8, embedding_name="item_id")
        >>> input_shapes(SequenceColumn(item, maxlen=5, length_name="hist_len"))
        {'hist_item_id': ((5,), 'int32'), 'hist_len': ((1,), 'int32')}
    """
    if isinstance(column, SparseColumn):
        return {column.name: ((1,), column.dtype)}
    if isinstance(column, DenseColumn):
        return {column.name: ((column.dimension,), column.dtype)}
    shapes: dict[str, tuple[tuple[int, ...], str]] = {column.name: ((column.maxlen,), column.sparsefeat.dtype)}
    if column.weight_name is not None:
        shapes[column.weight_name] = ((column.maxlen, 1), "float32")
    if column.length_name is not None:
        shapes[column.length_name] = ((1,), "int32")
    return shapes


def input_names(columns: Iterable[Column]) -> list[str]:
    """The names of all inputs that the columns read, each once.

    Example:
        >>> histories = [
        ...     SequenceColumn(SparseColumn(name, 50, 8), maxlen=5, length_name="hist_len")
        ...     for name in ("hist_item_id", "hist_category")
        ... ]
        >>> input_names([*histories, DenseColumn("age")])
        ['hist_item_id', 'hist_len', 'hist_category', 'age']
    """
    return list(dict.fromkeys(name for column in columns for name in input_shapes(column)))


def build_inputs(columns: Sequence[Column]) -> dict[str, Any]:
    """A Keras input for every name that the columns read, with the names, shapes and dtypes of DeepCTR's inputs.

    Args:
        columns: What `read_columns` returned. Two histories may share one length.

    Returns:
        name -> ``keras.Input``, in the columns' order.

    Raises:
        ValueError: Two columns read an input of the same name in different shapes or types.

    Example:
        >>> inputs = build_inputs([SparseColumn("city", 100, 8), DenseColumn("position", dimension=2)])
        >>> {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        {'city': (None, 1), 'position': (None, 2)}
    """
    shapes: dict[str, tuple[tuple[int, ...], str]] = {}
    for column in columns:
        for name, shape in input_shapes(column).items():
            if shapes.setdefault(name, shape) != shape:
                raise problem(f"Input {name!r}", "have one shape and dtype", f"{shapes[name]} and {shape}")
    return {name: keras.Input(shape=shape, name=name, dtype=dtype) for name, (shape, dtype) in shapes.items()}


def table_columns(columns: Iterable[Column]) -> dict[str, list[SparseColumn]]:
    """embedding_name -> the columns that look ids up in that table.

    Raises:
        ValueError: Two columns name the same table and differ in its size, in how ids become rows, in ``trainable``, or
            in the initializers that they give.

    Example:
        >>> history = SequenceColumn(SparseColumn("hist_item_id", 50, 8, embedding_name="item_id"), maxlen=5)
        >>> tables = table_columns([history, SparseColumn("item_id", 50, 8, embedding_name="item_id")])
        >>> [column.name for column in tables["item_id"]]
        ['hist_item_id', 'item_id']
    """
    tables: dict[str, list[SparseColumn]] = {}
    for column in columns:
        if isinstance(column, DenseColumn):
            continue
        sparse = column.sparsefeat if isinstance(column, SequenceColumn) else column
        sharing = tables.setdefault(sparse.embedding_name, [])
        for attribute in ("vocabulary_size", "embedding_dim", "use_hash", "vocabulary_path", "trainable"):
            if sharing and getattr(sharing[0], attribute) != getattr(sparse, attribute):
                raise problem(
                    f"Columns {sharing[0].name!r} and {sparse.name!r}, which share the table "
                    f"{sparse.embedding_name!r},",
                    f"have the same `{attribute}`",
                    f"{getattr(sharing[0], attribute)!r} and {getattr(sparse, attribute)!r}",
                    "Give one of them an `embedding_name` of its own, or make them equal.",
                )
        _check_initializers(sharing, sparse)
        sharing.append(sparse)
    return tables


def _check_initializers(sharing: list[SparseColumn], column: SparseColumn) -> None:
    """Refuses a second initializer of one table: one of them would be silently ignored."""
    if column.embeddings_initializer is None:
        return
    for other in sharing:
        given = [other.embeddings_initializer, column.embeddings_initializer]
        if given[0] is not None and given[0] != given[1]:
            raise problem(
                f"Columns {other.name!r} and {column.name!r}, which share the table {column.embedding_name!r},",
                "have the same `embeddings_initializer`, or only one of them any",
                " and ".join(map(str, given)),
                "Give it to one of them alone.",
            )
