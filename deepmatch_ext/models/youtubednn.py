"""YoutubeDNN: Covington, Adams, Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepmatch_ext._checks import int_at_least, no_duplicates, number_between, positive_int, positive_number, problem
from deepmatch_ext._compat import keras
from deepmatch_ext.features import SparseColumn, build_inputs, input_names, read_columns
from deepmatch_ext.layers import CandidateSampler, L2Normalization, SampledSoftmaxLayer
from deepmatch_ext.layers.softmax import default_sampler
from deepmatch_ext.models._retrieval_model import RetrievalModel, Towers, builder
from deepmatch_ext.models._towers import Tables, concatenated_features, dense_tower, derived_seed
from deepmatch_ext.samplers import make_sampler

_LAYER_NAMES = {"user_features", "user_emb", "item_row", "unit_length", "candidates", "loss"}


@builder
def YoutubeDNN(
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    user_dnn_hidden_units: Sequence[int] | None = None,
    dnn_activation: Any = "relu",
    dnn_use_bn: bool = False,
    l2_reg_dnn: float = 0.0,
    l2_reg_embedding: float = 0.0,
    dnn_dropout: float = 0.0,
    output_activation: Any = "linear",
    temperature: float = 0.05,
    sampler_config: Any = None,
    seed: int = 1024,
    *,
    num_sampled: int | None = None,
) -> RetrievalModel:
    """A two-tower model: pooled history and user features through dense layers, items from their table.

    Both sides end in vectors of length one, and the model is trained with sampled softmax over their inner products.
    The order of the arguments is DeepMatch's.

    Args:
        user_feature_columns: DeepCTR columns of the user side: ``SparseFeat``, ``VarLenSparseFeat``, ``DenseFeat``. A
            history shares the item's table by its ``embedding_name``, and lists the most recent first. Its
            ``combiner`` is DeepCTR's ``mean``, ``sum`` or ``max``, or ``sqrtn``, ``last``, ``recency`` (the mean
            weighted by 1/rank), or several joined by ``+``; ``recency+last`` recommends best.
        item_feature_columns: One ``SparseFeat``: the item id. Id 0 is padding and never drawn as a negative.
        user_dnn_hidden_units: Units of the user tower's dense layers. The last is the vectors' size and must be the
            item's ``embedding_dim``, D. None: (4 D, 2 D, D). An empty list: no dense layer.
        dnn_activation: Activation between the dense layers: a name, or a registered function.
        dnn_use_bn: Batch normalization before each activation.
        l2_reg_dnn: L2 of the dense kernels.
        l2_reg_embedding: L2 of the embedding rows that a step looks up.
        dnn_dropout: Share of what each dense layer reads that is dropped while training, in [0, 1).
        output_activation: Activation of the last dense layer.
        temperature: Divides the inner products in the loss, above 0.
        sampler_config: Where negatives come from: a sampler of `deepmatch_ext.samplers` or DeepMatch's
            ``NegativeSampler``. None: uniform.
        seed: Of the initial weights, dropout and negatives; with it and a fixed order of the data, a run repeats
            exactly on a CPU.
        num_sampled: Without a `sampler_config`: how many uniform negatives; 100, or all items if there are fewer.

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
    user_columns = read_columns("user_feature_columns", user_feature_columns)
    item_columns = read_columns("item_feature_columns", item_feature_columns)
    item = _item_column(item_columns)
    if not user_columns:
        raise problem("`user_feature_columns`", "have at least one column", "none", "A history of items, say.")
    names = [*input_names(user_columns), item.name]
    no_duplicates("The names of user and item inputs", names)
    if reserved := sorted(_LAYER_NAMES.intersection(names)):
        raise problem(
            "The names of inputs", f"be none of {sorted(_LAYER_NAMES)}, the model's layers", repr(reserved[0])
        )
    dim = item.embedding_dim
    if user_dnn_hidden_units is None:
        user_dnn_hidden_units = (4 * dim, 2 * dim, dim)
    if not isinstance(user_dnn_hidden_units, list | tuple):
        raise problem("`user_dnn_hidden_units`", "be a list of integers", user_dnn_hidden_units)
    hidden_units = tuple(
        positive_int("Every element of `user_dnn_hidden_units`", units) for units in user_dnn_hidden_units
    )
    temperature = positive_number("`temperature`", temperature)
    dropout = number_between("`dnn_dropout`", dnn_dropout, 0, 1)
    l2_reg_dnn = number_between("`l2_reg_dnn`", l2_reg_dnn, 0, float("inf"))
    l2_reg_embedding = number_between("`l2_reg_embedding`", l2_reg_embedding, 0, float("inf"))
    seed = int_at_least("`seed`", seed, 0)
    if sampler_config is None:
        sampler = default_sampler(item.vocabulary_size, num_sampled)
    elif num_sampled is None:
        sampler = make_sampler(sampler_config)
    else:
        raise problem("`num_sampled`", "be given in `sampler_config` where there is one", num_sampled)

    inputs = build_inputs([*user_columns, *item_columns])
    item_input = [inputs[item.name]]
    user_input = [tensor for name, tensor in inputs.items() if name != item.name]
    tables = Tables([*user_columns, *item_columns], l2_reg_embedding, seed)
    tables.keep_padding(item.embedding_name)
    unit_length = L2Normalization(name="unit_length")

    # The user tower: features -> dense layers -> a vector of length one.
    features = concatenated_features(user_columns, inputs, tables)
    user_hidden = dense_tower(
        features, hidden_units, dnn_activation, output_activation, dnn_use_bn, l2_reg_dnn, dropout, seed
    )
    if user_hidden.shape[-1] != dim:
        raise problem(
            "`user_dnn_hidden_units`",
            f"end in the item's `embedding_dim`, {dim}",
            f"{user_hidden.shape[-1]}" + ("" if hidden_units else ", the width of the user's features"),
        )
    user_emb = L2Normalization(name="user_emb")(user_hidden)

    # The item tower: the item's row of the table, at length one.
    item_id = tables.ids(item, inputs[item.name])
    item_row = keras.layers.Reshape((dim,), name="item_row")(tables.rows(item, item_id))
    item_emb = unit_length(item_row)

    # The loss: the positives and the drawn candidates go through the item tower in one look-up.
    candidates = CandidateSampler(sampler, item.vocabulary_size, derived_seed(seed, "sampler"), name="candidates")
    ids, log_counts = candidates(item_id)
    candidate_emb = unit_length(tables.rows(item, ids))
    loss = SampledSoftmaxLayer(candidates.sampler, temperature, name="loss")([user_emb, candidate_emb, ids, log_counts])

    arguments = {
        "user_feature_columns": user_columns,
        "item_feature_columns": item_columns,
        "user_dnn_hidden_units": hidden_units,
        "dnn_activation": dnn_activation,
        "dnn_use_bn": bool(dnn_use_bn),
        "l2_reg_dnn": l2_reg_dnn,
        "l2_reg_embedding": l2_reg_embedding,
        "dnn_dropout": dropout,
        "output_activation": output_activation,
        "temperature": temperature,
        "sampler_config": candidates.sampler,
        "seed": seed,
    }
    return RetrievalModel(
        inputs=[*user_input, *item_input],
        outputs=loss,
        towers=Towers(user_input, user_emb, item_input, item_emb, user_columns, item_columns),
        config={"builder": "YoutubeDNN", "arguments": arguments},
        name="youtube_dnn",
    )


def _item_column(item_columns: list[Any]) -> SparseColumn:
    if len(item_columns) != 1 or not isinstance(item_columns[0], SparseColumn):
        raise problem(
            "`item_feature_columns`",
            "be one SparseFeat, the item id",
            f"{[type(column).__name__ for column in item_columns]}",
        )
    return item_columns[0]
