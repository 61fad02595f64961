"""SDM: Lv et al., "SDM: Sequential Deep Matching Model for Online Large-scale Recommender System", CIKM 2019."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepmatch_ext._checks import int_at_least, no_duplicates, number_between, positive_int, problem, shown
from deepmatch_ext._keras import keras
from deepmatch_ext.features import SequenceColumn
from deepmatch_ext.layers import (
    AttentionPooling,
    GatedSum,
    MultiHeadSelfAttention,
    OldestFirst,
    Positions,
    RepeatableDropout,
    WithoutPadding,
)
from deepmatch_ext.layers.activation import activation_layer
from deepmatch_ext.models._assembly import Assembly, builder
from deepmatch_ext.models._retrieval_model import RetrievalModel
from deepmatch_ext.models._towers import History

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from deepmatch_ext.models._arguments import Shared


@builder
def SDM(
    make: Assembly,
    user_feature_columns: Sequence[Any],
    item_feature_columns: Sequence[Any],
    history_feature_list: Sequence[str] | None = None,
    units: int = 64,
    rnn_layers: int = 2,
    dropout_rate: float = 0.2,
    rnn_num_res: int = 1,
    num_head: int = 4,
    l2_reg_embedding: float = 1e-6,
    dnn_activation: Any = "tanh",
    temperature: float = 0.05,
    sampler_config: Any = None,
    seed: int = 1024,
    *,
    short_history: int | Sequence[str] = 5,
    long_history: Sequence[str] | None = None,
    item_dnn_hidden_units: Sequence[int] | None = None,
    **shared: Unpack[Shared],
) -> RetrievalModel:
    """The current session, by LSTM and attention, and long-term interests, by attention, combined by a gate.

    The current session's items and their features go through LSTMs, from the oldest to the most recent, and
    multi-head self-attention; attention with the user's other features as the query pools the states.
    Each of the longer histories is pooled by attention, too. A gate weights the two element by element. All vectors are
    L2-normalised. The order and the defaults of the arguments are DeepMatch's.

    Args:
        history_feature_list: DeepMatch's names of histories: ``x`` stands for the histories ``short_x`` and
            ``prefer_x``. As in its programs, ``short_x`` has the OLDEST item first; all other histories have the
            most recent first. None: see `short_history` and `long_history`.
        units: The width of all layers. If it is not the items' D, a layer of D follows.
        rnn_layers: The number of LSTMs, each with weights of its own.
        dropout_rate: Dropout rate of the inputs of each LSTM and of the output of the self-attention, in [0, 1).
        rnn_num_res: How many of the LSTMs, counted from the last, have a residual connection.
        num_head: The number of heads of the self-attention, a divisor of `units`.
        dnn_activation: Activation of the dense layers of user, session and long histories, as in other models.
        short_history: The current session: the number of most recent positions of `long_history`, which then has only
            the others; or names of separate histories, such as the items of the current session and their categories.
            These must have the same ``maxlen``, and the first says which positions hold an item.
        long_history: The names of the histories that show long-term interests. They must have the same ``maxlen``, and
            the first is that of the items. None: the history that shares the item's table, and those with the same
            length.

    Example:
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> item, genre = SparseFeat("hist_item", 50, 8, embedding_name="item"), SparseFeat("hist_genre", 9, 4)
        >>> histories = [VarLenSparseFeat(each, 20, "mean", "len") for each in (item, genre)]
        >>> model = SDM(histories, [SparseFeat("item", 50, 8)], units=8, short_history=5)
        >>> model.user_emb.shape[1]
        8
    """
    units, num_head = positive_int("`units`", units), positive_int("`num_head`", num_head)
    if units % num_head:
        raise problem("`num_head`", f"divide `units`, {units}", num_head)
    layers = positive_int("`rnn_layers`", rnn_layers)
    if int_at_least("`rnn_num_res`", rnn_num_res, 0) > layers:
        raise problem("`rnn_num_res`", f"be at most `rnn_layers`, {layers}", rnn_num_res)
    rate = number_between("`dropout_rate`", dropout_rate, 0, 1)

    def dense(name: str, parts: list[Any]) -> Any:
        activation = make.layer(activation_layer, name, "activated", activation=dnn_activation)
        return activation(make.dense(name, parts, (units,)))

    def dropout(name: str, values: Any) -> Any:
        return make.layer(RepeatableDropout, name, "dropout", rate=rate, seed=make.seed(name, "dropout"))(values)

    def pooled(name: str, rows: Any, valid: Any) -> Any:
        return make.layer(AttentionPooling, name, "pooled", seed=make.seed(name, "pooled"))([rows, valid, *query])

    short, long = _histories(make, history_feature_list, short_history, long_history)
    features = make.features()
    query = [dense("query", features)] if features else []  # (B, units); without, the layers learn one

    liked = [
        pooled(f"long_{place}", make.dense(f"long_{place}", [history.rows], (units,)), history.valid)
        for place, history in enumerate(long)
    ]
    long_emb = dense("long", liked)  # (B, units)

    valid = short[0].valid
    states = dense("short", make.known_rows("short", short))  # (B, T, units)
    if history_feature_list is None:
        states = make.layer(OldestFirst, "oldest_first")([states, valid])
    for place in range(layers):
        lstm = make.layer(
            keras.layers.LSTM,
            *("lstm", place),
            units=units,
            return_sequences=True,
            kernel_initializer=keras.initializers.GlorotUniform(seed=make.seed("lstm", place, "kernel")),
            recurrent_initializer=keras.initializers.Orthogonal(seed=make.seed("lstm", place, "recurrent")),
        )
        came = lstm(dropout(f"lstm_{place}", states), mask=valid)
        came = make.layer(WithoutPadding, "lstm", place, "valid")([came, valid])
        is_residual = place >= layers - rnn_num_res
        states = make.layer(keras.layers.Add, "residual", place)([states, came]) if is_residual else came
    of_attention = {"num_heads": num_head, "seed": make.seed("self_attention")}
    attention = make.layer(MultiHeadSelfAttention, "self_attention", **of_attention)
    attended = dropout("self_attention", attention([states, valid]))
    states = make.layer(keras.layers.Add, "residual", "self_attention")([states, attended])
    states = make.layer(keras.layers.LayerNormalization, "normalized")(states)
    short_emb = pooled("short", states, valid)  # (B, units)

    gate = make.dense("gate", [short_emb, long_emb, *query], (units,))
    user = make.layer(GatedSum, "fused")([gate, short_emb, long_emb])  # (B, units)
    return make.model(user if units == make.dim else make.dense("user", [user], (make.dim,)))


def _histories(make: Assembly, deepmatchs: Any, short: Any, long: Any) -> list[list[History]]:
    """The positions of the short histories, and of the long ones."""
    histories = {column.name: column for column in make.user_columns if isinstance(column, SequenceColumn)}

    def checked(what: str, names: Any, prefix: str = "") -> list[str]:
        if not isinstance(names, list | tuple) or not names:
            raise problem(what, "be a list of names", shown(names))
        names = [f"{prefix}{name}" for name in names]
        for name in names:
            if name not in histories:
                raise problem(what, "name histories among the user columns", repr(name), f"There are {[*histories]}.")
        no_duplicates(what, names)
        return names

    has_names = isinstance(short, list | tuple | str)
    if deepmatchs is not None:
        if long is not None or has_names:
            given, value = ("`short_history`", short) if has_names else ("`long_history`", long)
            raise problem(given, "be left out with `history_feature_list`, which names the histories", shown(value))
        names = (checked("`history_feature_list`", deepmatchs, prefix) for prefix in ("short_", "prefer_"))
        return [make.histories(each) for each in names]

    number = 0 if has_names else positive_int("`short_history`", short)
    short_names = checked("`short_history`", short) if has_names else []
    if long is None:
        of_items = [name for name in make.item_histories() if name not in short_names]
        if not of_items:
            remedy = "A number takes that many positions of the history."
            raise problem("`short_history`", "leave a history of items for `long_history`", shown(short), remedy)
        length = histories[of_items[0]].length_name
        others = [name for name, column in histories.items() if length is not None and column.length_name == length]
        long = [of_items[0], *(name for name in others if name not in (of_items[0], *short_names))]
    long_names = checked("`long_history`", long)
    no_duplicates("`short_history` and `long_history`", [*short_names, *long_names])
    if has_names:
        return [make.histories(short_names), make.histories(long_names)]
    if number >= histories[long_names[0]].maxlen:
        rule, got = f"be less than the `maxlen` of {long_names[0]!r}", f"{number} of {histories[long_names[0]].maxlen}"
        raise problem("`short_history`", rule, got)
    now = make.layer(Positions, "now", start=0, stop=number)
    before = make.layer(Positions, "before", start=number)
    read = make.histories(long_names)
    return [[History(*map(part, each[:3])) for each in read] for part in (now, before)]
