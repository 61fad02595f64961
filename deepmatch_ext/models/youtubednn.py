"""YoutubeDNN: Covington, Adams, Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import (
    as_flag,
    int_at_least,
    no_duplicates,
    number_between,
    positive_int,
    problem,
    shown,
)
from deepmatch_ext._keras import require_eager, require_eager_on_keras_3
from deepmatch_ext.features import Column, SparseColumn, build_inputs, input_names, read_columns
from deepmatch_ext.layers import CandidateLoss, CandidateSampler, ItemCatalogue, KnownItems, L2Normalization
from deepmatch_ext.layers.activation import check_activation
from deepmatch_ext.layers.softmax import checked_temperature, default_sampler
from deepmatch_ext.models._catalogue import catalogue_shapes, read_catalogue
from deepmatch_ext.models._retrieval_model import RetrievalModel, Towers, builder
from deepmatch_ext.models._towers import Tables, Tower, derived_seed, row_ids, with_history_dropout
from deepmatch_ext.samplers import SAVED, make_sampler

_LAYER_NAMES = {
    *("user_features", "user_emb", "item_features", "unit_length", "candidates", "catalogue", "known_items", "loss")
}


@builder
def YoutubeDNN(
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    user_dnn_hidden_units: Sequence[int] | None = None,
    dnn_activation: Any = "relu",
    dnn_use_bn: bool = False,
    l2_reg_dnn: float = 0.0,
    l2_reg_embedding: float = 0.0,
    dnn_dropout: float = 0.2,
    output_activation: Any = "linear",
    temperature: float = 0.1,
    sampler_config: Any = None,
    seed: int = 1024,
    *,
    num_sampled: int | None = None,
    loss: str = "softmax",
    gbce_t: float = 0.75,
    item_features: Any = None,
    item_dnn_hidden_units: Sequence[int] | None = None,
    item_id_dropout: float = 0.1,
    history_dropout: float = 0.0,
    exclude_features: Sequence[str] = (),
    check_ids: bool = True,
) -> RetrievalModel:
    """A two-tower model: pooled history and user features through dense layers, items from their table or features.

    Both sides end in vectors of length one, and the model is trained with sampled softmax over their inner products.
    The order of the arguments is DeepMatch's.

    Args:
        user_feature_columns: DeepCTR columns of the user side: ``SparseFeat``, ``VarLenSparseFeat``, ``DenseFeat``. A
            history shares the item's table by its ``embedding_name``, and lists the most recent first. Its
            ``combiner`` is DeepCTR's ``mean``, ``sum`` or ``max``, or ``sqrtn``, ``last``, ``recency`` (the mean
            weighted by 1/rank), or several joined by ``+``; ``recency+last`` recommends best. An array (V, D) as
            ``embeddings_initializer``, or Constant of one, is a pretrained table; row 0 is padding.
        item_feature_columns: First a ``SparseFeat``, the item id; id 0 is padding and never drawn as a negative. Then,
            if wanted, columns of any kind that describe the item.
        user_dnn_hidden_units: Units of the user tower's dense layers. The last is the vectors' size and must be the
            items', D. None: one layer, (D,), which does well everywhere; with a million events or more, (4 D, 2 D, D)
            and no dropout do better. An empty list: no dense layer.
        dnn_activation: Activation between the dense layers: a name, ``"dice"`` (`deepmatch_ext.layers.Dice`), or a
            registered function; or a Keras layer such as PReLU, as a class or an instance, of which every place gets a
            copy with its own weights.
        dnn_use_bn: Batch normalization before each activation.
        l2_reg_dnn: L2 of the dense kernels.
        l2_reg_embedding: L2 of the embedding rows that a step looks up.
        dnn_dropout: Share of what each dense layer reads that is dropped while training, in [0, 1).
        output_activation: Activation of the last dense layer, given as `dnn_activation` is.
        temperature: Divides the inner products in the loss, above 0.
        sampler_config: Where negatives come from: a sampler of `deepmatch_ext.samplers` or DeepMatch's
            ``NegativeSampler``. None: `AdaptiveSampler`, which learns the items' frequencies.
        seed: Of the initial weights, dropout and negatives; with it and a fixed order of the data, a run repeats
            exactly on a CPU.
        num_sampled: Without a `sampler_config`: how many uniform negatives, as in DeepMatch's older versions.
        loss: What is made of the logits: ``softmax`` (sampled softmax), ``bpr`` or ``gbce``, as `CandidateLoss` says.
        gbce_t: The calibration of ``gbce``, in [0, 1].
        item_features: With several item columns: their values by item id, as the model keeps them for positives and
            negatives. A pandas DataFrame whose index is the item id; a polars DataFrame or Arrow table with the ids in
            the column of the item's name; or name -> array (V, ...), row k for item id k. What belongs to a
            ``VarLenSparseFeat`` may be lists of any length; items that a frame leaves out have 0. Training reads the
            item id alone.
        item_dnn_hidden_units: Units of the item tower's dense layers, the last of them the size of the vectors. None:
            no layer for the id alone, else one of the id's ``embedding_dim``.
        item_id_dropout: With several item columns: the share of items that are encoded from their features alone
            while training. So are, always, items that were never trained, and id 0 in `item_input`.
        history_dropout: The share of a history's items that are left out while training, in [0, 1).
        exclude_features: Names of user columns that are not read, such as the user id, where one list of columns
            serves a ranker, too.
        check_ids: Whether every look-up checks that its ids are in their table. ``fit``, ``evaluate``, ``predict`` and
            `user_vectors` check what they are given in any case; without this, a loop of your own, or an encoder that
            is called by itself, reads zeros for an id out of range on a GPU. The checks take about 2 % of a step's
            time on a CPU (a million items, batches of 256).

    Returns:
        A Keras model from user and item inputs to each example's loss (B, 1), with the attributes ``user_input``,
        ``user_emb`` (B, D), ``item_input`` and ``item_emb`` (B, D) (also as ``user_embedding``, ``item_embedding``).

    Raises:
        ValueError: An argument or column can't be used; the message names it.

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext.utils import sampledsoftmaxloss
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, "recency+last", "len")
        >>> model = YoutubeDNN([history], [SparseFeat("item", 50, 8)])
        >>> user = {"hist_item": np.array([[3, 2, 0, 0, 0]] * 4), "len": np.array([2] * 4)}
        >>> model.compile("adam", sampledsoftmaxloss)
        >>> _ = model.fit({**user, "item": np.array([4] * 4)}, verbose=0)
        >>> tf.keras.Model(model.user_input, model.user_emb).predict(user, verbose=0).shape
        (4, 8)
        >>> model.item_vectors().shape
        (50, 8)
    """
    require_eager_on_keras_3("YoutubeDNN")
    user_columns = _without(read_columns("user_feature_columns", user_feature_columns), exclude_features)
    item_columns = read_columns("item_feature_columns", item_feature_columns)
    item, described_by = _item_column(item_columns), item_columns[1:]
    if not user_columns:
        raise problem("`user_feature_columns`", "have at least one column", "none", "A history of items, say.")
    names = [*input_names(user_columns), *input_names(item_columns)]
    no_duplicates("The names of user and item inputs", names)
    if reserved := sorted(_LAYER_NAMES.intersection(names)):
        raise problem(
            "The names of inputs", f"be none of {sorted(_LAYER_NAMES)}, the model's layers", repr(reserved[0])
        )
    if item_dnn_hidden_units is None:
        item_dnn_hidden_units = (item.embedding_dim,) if described_by else ()
    item_units = _units("`item_dnn_hidden_units`", item_dnn_hidden_units)
    dim = item_units[-1] if item_units else item.embedding_dim
    hidden_units = _units("`user_dnn_hidden_units`", (dim,) if user_dnn_hidden_units is None else user_dnn_hidden_units)
    check_ids, dnn_use_bn = as_flag("`check_ids`", check_ids), as_flag("`dnn_use_bn`", dnn_use_bn)
    check_activation("`dnn_activation`", dnn_activation)
    check_activation("`output_activation`", output_activation)
    temperature = checked_temperature(temperature)
    dropout = number_between("`dnn_dropout`", dnn_dropout, 0, 1)
    history_dropout = number_between("`history_dropout`", history_dropout, 0, 1)
    item_id_dropout = number_between("`item_id_dropout`", item_id_dropout, 0, 1)
    l2_reg_dnn = number_between("`l2_reg_dnn`", l2_reg_dnn, 0, float("inf"))
    l2_reg_embedding = number_between("`l2_reg_embedding`", l2_reg_embedding, 0, float("inf"))
    if described_by:  # in Keras 2's graph mode the training would want the item encoder's inputs, too
        require_eager("An item of several columns")
    seed = int_at_least("`seed`", seed, 0)
    if sampler_config is None:
        sampler = default_sampler(item.vocabulary_size, num_sampled)
    elif num_sampled is None:
        sampler = make_sampler(sampler_config)
    else:
        raise problem("`num_sampled`", "be given in `sampler_config` where there is one", num_sampled)

    inputs = build_inputs([*user_columns, *item_columns])
    user_input = [inputs[name] for name in input_names(user_columns)]
    item_input = [inputs[name] for name in input_names(item_columns)]
    # Rows that become vectors of length one turn the more with each step of Adam the smaller they are; items with few
    # events stay near where larger ones were drawn. With hidden layers small tables do worse. See "What the defaults
    # rest on" in benchmarks/README.md.
    stddev = 0.05 if len(hidden_units) > 1 else 0.01
    tables = Tables([*user_columns, *item_columns], l2_reg_embedding, seed, check_ids, stddev)
    tables.keep_padding(item.embedding_name)
    unit_length = L2Normalization(name="unit_length")
    dense_settings = (dnn_activation, output_activation, dnn_use_bn, l2_reg_dnn, dropout, seed, item.embedding_name)

    # The user tower: features -> dense layers -> a vector of length one.
    user_rows = row_ids(user_columns, inputs, tables)
    if history_dropout:
        user_rows = with_history_dropout(user_columns, user_rows, history_dropout, seed)
    user_hidden = Tower("user", user_columns, tables, hidden_units, *dense_settings)(user_rows)
    if user_hidden.shape[-1] != dim:
        raise problem(
            "`user_dnn_hidden_units`",
            f"end in the size of the items' vectors, {dim}",
            f"{user_hidden.shape[-1]}" + ("" if hidden_units else ", the width of the user's features"),
        )
    user_emb = L2Normalization(name="user_emb")(user_hidden)

    # The item tower: the item's row of the table, or that and its features through dense layers, at length one.
    item_tower = Tower("item", item_columns, tables, item_units, *dense_settings)
    encode = _item_encoder(item, described_by, item_features, item_tower, tables, item_id_dropout, seed)
    item_rows = row_ids(item_columns, inputs, tables)
    item_id = item_rows[item.name]
    item_emb = unit_length(encode(item_id, given=item_rows))

    # The loss: the positives and the drawn candidates go through the item tower together.
    candidates = CandidateSampler(sampler, item.vocabulary_size, derived_seed(seed, "sampler"), name="candidates")
    ids, log_counts = candidates(item_id)
    candidate_emb = unit_length(encode(ids, positives=item_id))
    loss_layer = CandidateLoss(
        candidates.sampler, temperature, loss, gbce_t, vocabulary_size=item.vocabulary_size, name="loss"
    )

    arguments = {
        "user_feature_columns": user_columns,
        "item_feature_columns": item_columns,
        "user_dnn_hidden_units": hidden_units,
        "dnn_activation": dnn_activation,
        "dnn_use_bn": dnn_use_bn,
        "l2_reg_dnn": l2_reg_dnn,
        "l2_reg_embedding": l2_reg_embedding,
        "dnn_dropout": dropout,
        "output_activation": output_activation,
        "temperature": temperature,
        "sampler_config": candidates.sampler if num_sampled is None else None,
        "seed": seed,
        "num_sampled": num_sampled,
        "loss": loss,
        "gbce_t": gbce_t,
        "item_features": SAVED if described_by else None,
        "item_dnn_hidden_units": item_units,
        "item_id_dropout": item_id_dropout,
        "history_dropout": history_dropout,
        "exclude_features": (),  # the columns above are those that are read
        "check_ids": check_ids,
    }
    towers = Towers(
        user_input, user_emb, item_input, item_emb, unit_length(encode(item_id)), user_columns, item_columns
    )
    return RetrievalModel(
        inputs=[*user_input, inputs[item.name]],
        outputs=loss_layer([user_emb, candidate_emb, ids, log_counts]),
        towers=towers,
        config={"builder": "YoutubeDNN", "arguments": arguments},
        name="youtube_dnn",
    )


def _item_encoder(
    item: SparseColumn,
    described_by: Sequence[Column],
    item_features: Any,
    tower: Tower,
    tables: Tables,
    id_dropout: float,
    seed: int,
) -> Callable[..., Any]:
    """A function from item ids to the item tower's tensor, the features given or from the catalogue."""
    if not described_by:
        if item_features is not None:
            raise problem("`item_features`", "be left out where the item id is the only item column", "one")
        return lambda ids, given=None, positives=None: tower({item.name: ids})
    if item.use_hash:
        raise problem(
            f"Item column {item.name!r}",
            "have integer ids where other columns describe the item, not hashed ones",
            "use_hash=True",
            "`deepmatch_ext.data.IdMap` makes ids.",
        )
    if item_features is None:
        raise problem("`item_features`", "be given where several columns describe the item", None)
    shapes = {name: shape for column in described_by for name, shape in catalogue_shapes(column).items()}
    values = None
    if not (isinstance(item_features, str) and item_features == SAVED):  # else a model is being loaded
        arrays = read_catalogue(item.name, described_by, item_features, item.vocabulary_size)
        # Keras 3 takes no NumPy strings.
        tensors = {name: tf.constant(a) if a.dtype.kind in "OUS" else a for name, a in arrays.items()}
        rows = row_ids(described_by, tensors, tables)
        values = {name: np.asarray(rows[name]) for name in shapes}
    catalogue = ItemCatalogue(shapes, item.vocabulary_size, values, name="catalogue")
    known = KnownItems(item.vocabulary_size, id_dropout, derived_seed(seed, "known"), name="known_items")

    def encode(ids: Any, given: Mapping[str, Any] | None = None, positives: Any = None) -> Any:
        features = dict(zip(shapes, catalogue(ids), strict=True)) if given is None else given
        return tower({**features, item.name: known(ids if positives is None else [ids, positives])})

    return encode


def _without(columns: list[Column], names: Sequence[str]) -> list[Column]:
    if isinstance(names, str) or not isinstance(names, Collection):
        raise problem("`exclude_features`", "be a list of names", repr(names))
    for name in names:
        if name not in [column.name for column in columns]:
            raise problem("`exclude_features`", "hold names of user columns", repr(name))
    return [column for column in columns if column.name not in names]


def _units(what: str, units: Any) -> tuple[int, ...]:
    if not isinstance(units, list | tuple):
        older = "DeepMatch's older versions had `num_sampled` in this place; give it by its name."
        raise problem(what, "be a list of integers", shown(units), older if isinstance(units, int) else "")
    return tuple(positive_int(f"Every element of {what}", each) for each in units)


def _item_column(item_columns: list[Column]) -> SparseColumn:
    if not item_columns or not isinstance(item_columns[0], SparseColumn):
        raise problem(
            "`item_feature_columns`",
            "begin with a SparseFeat, the item id",
            f"{[type(column).__name__ for column in item_columns]}",
        )
    return item_columns[0]
