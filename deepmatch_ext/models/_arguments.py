"""The builders' arguments, explained once, and how they get into every builder's signature and documentation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from deepmatch_ext._checks import problem


class Shared(TypedDict, total=False):
    """The arguments that every builder takes by ``**shared: Unpack[Shared]``, for type checkers.

    The documentation of each builder, such as `YoutubeDNN`, explains them.

    Example:
        >>> from typing_extensions import Unpack
        >>> from deepmatch_ext.models import Assembly, RetrievalModel, builder
        >>> @builder
        ... def Pooled(
        ...     make: Assembly, user_feature_columns: Any, item_feature_columns: Any, **shared: Unpack[Shared]
        ... ) -> RetrievalModel:
        ...     '''The user's features and pooled history through a linear layer.'''
        ...     return make.model(make.dense("user", make.features(), (make.dim,)))
        >>> set(Shared.__annotations__) <= set(inspect.signature(Pooled).parameters)
        True
    """

    num_sampled: int | None
    loss: str
    gbce_t: float
    num_hard: int | None
    item_features: Any
    item_id_dropout: float
    history_dropout: float
    exclude_features: Sequence[str]
    check_ids: bool
    table_dtype: str


DEFAULTS: Shared = {
    "num_sampled": None,
    "loss": "softmax",
    "gbce_t": 0.75,
    "num_hard": None,
    "item_features": None,
    "item_id_dropout": 0.1,
    "history_dropout": 0.0,
    "exclude_features": (),
    "check_ids": True,
    "table_dtype": "float32",
}

# Arguments that a builder declares itself, if it has them, so that they come in DeepMatch's order. The values here are
# what an assembly uses for arguments that the builder does not declare.
OPTIONAL: dict[str, Any] = {
    "user_dnn_hidden_units": None,
    "item_dnn_hidden_units": None,
    "dnn_activation": "relu",
    "dnn_use_bn": False,
    "l2_reg_dnn": 0.0,
    "l2_reg_embedding": 0.0,
    "dnn_dropout": 0.0,
    "output_activation": "linear",
    "temperature": 0.1,
    "sampler_config": None,
    "seed": 1024,
    "history_times": None,
    "request_time": None,
}

# The loss of labelled pairs, which draws no negatives.
LABELLED = "logistic"

# DeepMatch's name -> ours: a builder that declares the former does not take the latter.
ALIASES = {"loss_type": "loss"}

_MEANINGS = """
user_feature_columns: DeepCTR columns of the user side: ``SparseFeat``, ``VarLenSparseFeat``, ``DenseFeat``. A history
    shares the item's table by its ``embedding_name``, and lists the most recent item first. Its ``combiner`` is
    DeepCTR's ``mean``, ``sum`` or ``max``, or ``sqrtn``, ``last``, ``recency`` (the mean weighted by 1/rank), or
    several joined by ``+``; ``recency+last`` is best for predicting the next item. An array (V, D) as
    ``embeddings_initializer``, or a Constant of one, is a pretrained table; row 0 is padding.
item_feature_columns: First a ``SparseFeat``, the item id; id 0 is padding and is never drawn as a negative. Then,
    optionally, columns of any kind that describe the item.
user_dnn_hidden_units: Units of the user tower's dense layers. The last is the size of the user vectors and must equal
    that of the item vectors, D. None: one layer, (D,). An empty list: no dense layer.
item_dnn_hidden_units: Units of the item tower's dense layers; the last is the size of the item vectors. None: no layer
    if the id is the only column, else one of the id's ``embedding_dim``. An empty list: no layer; the embeddings of
    several columns, which must all have the id's ``embedding_dim``, are added up.
num_blocks: The number of blocks, which are applied one after the other.
num_heads: The number of heads of the blocks' attention, a divisor of D.
block_dropout: Dropout rate of the inputs of the blocks and of what each block adds or returns, in [0, 1).
dnn_activation: Activation between the dense layers: a name, ``"dice"`` (`deepmatch_ext.layers.Dice`), or a registered
    function; or a Keras layer such as PReLU, as a class or an instance. Each use gets a copy with its own
    weights.
dnn_use_bn: Whether to apply batch normalisation before each activation.
l2_reg_dnn: L2 regularisation of the dense kernels.
l2_reg_embedding: L2 regularisation of the embedding rows that a step looks up.
dnn_dropout: Dropout rate of the inputs of each dense layer, in [0, 1).
output_activation: Activation of the last dense layer, in the forms of `dnn_activation`.
temperature: Divides the inner products in the loss; must be above 0.
sampler_config: The source of negatives: a sampler of `deepmatch_ext.samplers` or DeepMatch's ``NegativeSampler``.
    None: `AdaptiveSampler`, which learns the items' frequencies.
seed: Seed of the initial weights, dropout and negatives. With the same seed and order of the data, a run on a
    CPU is exactly reproducible.
history_times: The name of a user column with the times of the history's events, ``DenseFeat("hist_time", maxlen,
    "int64")``, as `deepmatch_ext.data.windows` returns it with ``times=True``; lists if the history is lists. The
    model then also learns how much an event counts from the time that has passed since. None: only the order counts.
request_time: With `history_times`, the name of the column of the request's time, ``DenseFeat("time", 1, "int64")``.
    Time is then measured up to the request, and at earlier positions up to the next event. In training and evaluation,
    the request's time is that of the target, so figures can only be compared with others for which it is known.
num_sampled: The number of uniform negatives, if there is no `sampler_config`, as in DeepMatch's older versions.
loss: The loss: ``softmax`` (sampled softmax), ``bpr``, ``gbce``, or another name in
    `deepmatch_ext.losses.LOSSES`. Or ``logistic``: the model's output is the probability that the user chooses the
    item, ``sigmoid(u.i / temperature)``; `fit` takes labels, 1 and 0, and no negatives are drawn.
gbce_t: The calibration of ``gbce``, in [0, 1].
num_hard: Each example keeps only this many negatives, the hardest. None: all.
item_features: With several item columns: their values by item id, which the model stores for positives and negatives.
    A pandas or polars DataFrame or Arrow table with the ids in the column of the item's name; a pandas DataFrame
    without that column has them as its index; or name -> array, with the ids under the item's name, or else (V, ...),
    row k for item id k. Values of a ``VarLenSparseFeat`` may be lists of any length; items that are left out get zeros.
    Training then reads only the item id. None: each example holds its item's features, and the items of the batch are
    the negatives (`InBatchSampler`).
item_id_dropout: With several item columns: the fraction of items whose id is dropped during training, so that only
    their features are encoded. At inference this is always done for items that were never trained, and for id 0.
history_dropout: The fraction of a history's items that are left out during training, in [0, 1).
exclude_features: Names of user columns that are ignored, such as the user id, for when a ranker uses the same list
    of columns.
check_ids: Whether every look-up checks that its ids are in their table. ``fit``, ``evaluate``, ``predict`` and
    `user_vectors` always check their input. Without this check, a custom training loop, or an encoder that is called
    directly, reads zeros for an id out of range on a GPU. The checks take about 2 % of a step's time on a CPU (a
    million items, batches of 256).
table_dtype: The type of the embedding tables: ``float32``, or ``bfloat16`` for half the memory, which needs an
    optimizer of `deepmatch_ext.optimizers`. Arithmetic is in float32 in both cases.
"""

_RETURNS = """Returns:
    A Keras model from user and item inputs to each example's loss (B, 1), or to its probability if examples have
    labels. Its attributes are ``user_input``, ``user_emb``, ``item_input`` and ``item_emb`` (the last also as
    ``user_embedding`` and ``item_embedding``)."""

_RAISES = """Raises:
    ValueError: An argument or column cannot be used; the message names it."""


def full_signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature without the assembly, and with every shared argument in place of ``**shared``."""
    signature = inspect.signature(function)
    if [*signature.parameters][1:3] != ["user_feature_columns", "item_feature_columns"]:
        rule = "have the parameters make, user_feature_columns, item_feature_columns, and then arguments with defaults"
        raise problem(f"The builder {function.__name__}", rule, ", ".join(signature.parameters) or "none")
    _, *given = signature.parameters.values()
    own = [parameter for parameter in given if parameter.kind is not parameter.VAR_KEYWORD]
    if len(own) < len(given):
        names = {ALIASES.get(parameter.name, parameter.name) for parameter in own}
        types = Shared.__annotations__
        own += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_name_of(types[name]))
            for name, default in DEFAULTS.items()
            if name not in names
        ]
    return signature.replace(parameters=own)


def _name_of(annotation: Any) -> Any:
    return getattr(annotation, "__forward_arg__", annotation)


def full_documentation(function: Callable[..., Any], signature: inspect.Signature) -> str | None:
    """The docstring, with every argument explained: in the builder's own words if it has them, else as for all."""
    if function.__doc__ is None:  # none was written, or Python leaves them out
        return None
    own, before, after = _sections(inspect.cleandoc(function.__doc__))
    meanings = _entries(_MEANINGS)
    for theirs, ours in ALIASES.items():
        first, *rest = meanings[ours]
        meanings[theirs] = [first.replace(ours, theirs, 1), *rest]
    meanings |= own
    lines = ["Args:", *(f"    {line}" for name in signature.parameters for line in meanings.get(name, [f"{name}:"]))]
    parts = [before, "\n".join(lines)]
    parts += [text for text in (_RETURNS, _RAISES) if f"\n{text.partition(':')[0]}:\n" not in f"\n{after}"]
    return "\n\n".join(part for part in [*parts, after] if part) + "\n"


def _sections(text: str) -> tuple[dict[str, list[str]], str, str]:
    """The entries under ``Args:``, the text before that heading, and the sections that follow."""
    heading = re.search(r"^(Args|Returns|Raises|Example|Examples):", text, re.MULTILINE)
    if heading is None:
        return {}, text.rstrip(), ""
    before, rest = text[: heading.start()].rstrip(), text[heading.start() :]
    if heading[1] != "Args":
        return {}, before, rest.rstrip()
    block, *others = re.split(r"^(?=\S)", rest.partition("\n")[2], maxsplit=1, flags=re.MULTILINE)
    return _entries(inspect.cleandoc("\n" + block)), before, "".join(others).rstrip()


def _entries(text: str) -> dict[str, list[str]]:
    """name -> lines, of ``name: text`` whose further lines are indented."""
    entries: dict[str, list[str]] = {}
    for line in text.strip("\n").splitlines():
        if named := re.match(r"(\w+): ", line):
            entries[named[1]] = [line]
        elif line.strip():
            entries[[*entries][-1]].append(line)
    return entries
