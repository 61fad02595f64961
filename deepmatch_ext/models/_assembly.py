"""From a builder's arguments to a model: what all models share, once."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec

from deepmatch_ext._checks import (
    as_flag,
    int_at_least,
    no_duplicates,
    number_between,
    one_of,
    positive_int,
    problem,
    shown,
)
from deepmatch_ext._keras import require_eager, require_eager_on_keras_3
from deepmatch_ext.features import Column, SequenceColumn, SparseColumn, build_inputs, input_names, read_columns
from deepmatch_ext.layers import (
    CandidateLoss,
    CandidateSampler,
    FirstRows,
    L2Normalization,
    NearestInterest,
    PairProbability,
)
from deepmatch_ext.layers.softmax import default_sampler
from deepmatch_ext.losses import LOSSES, Candidates
from deepmatch_ext.models._arguments import ALIASES, DEFAULTS, LABELLED, OPTIONAL, full_documentation, full_signature
from deepmatch_ext.models._items import ItemFeatures
from deepmatch_ext.models._record import register_builder
from deepmatch_ext.models._retrieval_model import RetrievalModel, Towers
from deepmatch_ext.models._tables import NamedLayers, Tables, derived_seed, row_ids, with_history_dropout
from deepmatch_ext.models._towers import DenseLayers, DenseSettings, Feature, Features, History
from deepmatch_ext.samplers import SAVED, InBatchSampler, Sampler, make_sampler

P = ParamSpec("P")


def builder(function: Callable[Concatenate[Assembly, P], RetrievalModel]) -> Callable[P, RetrievalModel]:
    """Makes a model builder of a function from an `Assembly` and arguments to a model.

    The builder takes the arguments alone. Its signature and its documentation have the shared arguments in place of
    ``**shared``, and the meaning of every argument that has one in all models. A model that it built reloads by the
    builder's name, so the module of a builder of your own must be imported before its models are loaded.

    Args:
        function: Takes an `Assembly`, ``user_feature_columns``, ``item_feature_columns``, then arguments that have
            defaults: of its own; those of `OPTIONAL` that it wants, which the assembly reads by their names; and
            ``**shared: Unpack[Shared]``.

    Raises:
        ValueError: Another builder has the function's name, or its parameters do not begin as described.

    Example:
        >>> @builder
        ... def LastItem(make, user_feature_columns, item_feature_columns, seed=1024, **shared):
        ...     '''The user's features, averaged with weights that are learnt.'''
        ...     return make.model(make.dense("user", make.features(), (make.dim,)))
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, "last", "len")
        >>> LastItem([history], [SparseFeat("item", 50, 8)], history_dropout=0.1).user_emb.shape[1]
        8
    """
    signature, name = full_signature(function), function.__name__

    @functools.wraps(function)
    def build(*args: P.args, **kwargs: P.kwargs) -> RetrievalModel:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}() {error}") from None
        given.apply_defaults()
        arguments = dict(given.arguments)
        model = function(Assembly(name, arguments), **arguments)  # type: ignore[call-arg]
        if not isinstance(model, RetrievalModel):
            raise problem(f"The builder {name}", "return what `make.model` gives", type(model).__name__)
        return model

    build.__signature__ = signature  # type: ignore[attr-defined]
    build.__doc__ = full_documentation(function, signature)
    register_builder(build)
    return build


class Assembly:
    """What a builder makes its model with.

    It checks the arguments and columns, makes the inputs and the embedding tables, and turns columns into tensors. What
    a builder writes itself is how the user's vector, or vectors, come of these. `model` does the rest: the item side,
    candidates, loss, and the record of all arguments that the model is rebuilt from.

    Args:
        name: The builder's name.
        arguments: The builder's arguments by name, all of them. Those that other models have, too, are read here.

    Attributes:
        user_columns: The user side's columns, without those that are excluded.
        item_columns: The item side's; the first is `item`.
        item: The item id's column.
        dim: D, the size of the vectors.
        user_units: The units of the user tower's dense layers: the argument ``user_dnn_hidden_units``, or ``(dim,)``.
        item_units: The units of the item tower's.

    Raises:
        ValueError: An argument or column cannot be used; the message names it.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        require_eager_on_keras_3(name)
        self._name, self._arguments, self._layers = name, dict(arguments), NamedLayers()
        given = {**OPTIONAL, **DEFAULTS, **{ALIASES.get(key, key): value for key, value in arguments.items()}}
        self._read_columns(given)
        self._read_units(given)
        self._seed = int_at_least("`seed`", given["seed"], 0)
        dense = {key: given[key] for key in DenseSettings.__dataclass_fields__ if key != "seed"}
        settings = DenseSettings(**dense, seed=self._seed)
        self._read_loss(given)
        self._make_inputs(given)
        self._dense = DenseLayers(settings, self.item.embedding_name, self._layers)
        self._taken: set[str] = set()
        self._tables_of: list[Feature] = []

    def _read_columns(self, given: Mapping[str, Any]) -> None:
        columns = read_columns("user_feature_columns", given["user_feature_columns"])
        self.user_columns = _without(columns, given["exclude_features"])
        self.item_columns = read_columns("item_feature_columns", given["item_feature_columns"])
        self.item = _item_column(self.item_columns)
        if not self.user_columns:
            raise problem("`user_feature_columns`", "have at least one column", "none", "A history of items, say.")
        names = [*input_names(self.user_columns), *input_names(self.item_columns)]
        no_duplicates("The names of user and item inputs", names)

    def _read_units(self, given: Mapping[str, Any]) -> None:
        units = given["item_dnn_hidden_units"]
        if units is None:
            units = (self.item.embedding_dim,) if len(self.item_columns) > 1 else ()
        self.item_units = _units("`item_dnn_hidden_units`", units)
        self.dim = self.item_units[-1] if self.item_units else self.item.embedding_dim
        units = given["user_dnn_hidden_units"]
        self.user_units = _units("`user_dnn_hidden_units`", (self.dim,) if units is None else units)

    def _read_loss(self, given: Mapping[str, Any]) -> None:
        """The sampler, and the layer that makes the output; labelled pairs need no sampler."""
        argument = next((key for key in self._arguments if ALIASES.get(key) == "loss"), "loss")
        loss, size = one_of(f"`{argument}`", given["loss"], (*LOSSES, LABELLED)), self.item.vocabulary_size
        if loss != LABELLED:
            self._sampler: Sampler | None = _sampler_for(given["sampler_config"], given["num_sampled"], size)
            of_loss = {name: given[name] for name in ("temperature", "gbce_t", "num_hard")}
            self._output: Any = self._layers(CandidateLoss, "loss", **of_loss, loss=loss, vocabulary_size=size)
            return
        for name in ("sampler_config", "num_sampled", "num_hard"):
            if given[name] is not None:
                rule, remedy = f"be left out with the loss {LABELLED!r}", "The labels say what is negative."
                raise problem(f"`{name}`", rule, shown(given[name]), remedy)
        self._sampler = None
        self._output = self._layers(PairProbability, "probability", temperature=given["temperature"])

    def _make_inputs(self, given: Mapping[str, Any]) -> None:
        """The model's inputs, the tables, and the inputs' ids as rows of these."""
        history_dropout = number_between("`history_dropout`", given["history_dropout"], 0, 1)
        id_dropout = number_between("`item_id_dropout`", given["item_id_dropout"], 0, 1)
        l2_reg = number_between("`l2_reg_embedding`", given["l2_reg_embedding"], 0, float("inf"))
        check_ids = as_flag("`check_ids`", given["check_ids"])
        described_by = self.item_columns[1:]
        if described_by and given["item_features"] is not None:
            # In Keras 2's graph mode the training would want the item encoder's inputs, too.
            require_eager("`item_features`")
        columns = [*self.user_columns, *self.item_columns]
        self._inputs = build_inputs(columns)
        # Rows are L2-normalised, so one step of Adam rotates a small row more than a large one: with a large initial
        # scale, rare items hardly move from their random start. With hidden layers small tables do worse. See "What the
        # defaults rest on" in benchmarks/README.md.
        stddev = 0.05 if len(self.user_units) > 1 else 0.01
        tables = Tables(columns, l2_reg, self._seed, check_ids, stddev, self._layers)
        tables.keep_padding(self.item.embedding_name)
        self._features = Features(tables, self._seed, self._layers)
        self._user_rows = row_ids(self.user_columns, self._inputs, tables)
        if history_dropout:
            of_history = (self.user_columns, self._user_rows, history_dropout, self._seed, self._layers)
            self._user_rows = with_history_dropout(*of_history)
        self._item_rows = row_ids(self.item_columns, self._inputs, tables)
        self._item_features = ItemFeatures(
            self.item, described_by, given["item_features"], id_dropout, self.seed("known"), tables, self._layers
        )
        if not self._item_features.catalogue and not isinstance(self._sampler, InBatchSampler | None):
            rule = "be given where several columns describe the item, and other items than the batch's are negatives"
            remedy = "Or take `InBatchSampler` as the `sampler_config`."
            raise problem("`item_features`", rule, None, remedy)

    def seed(self, *place: Any) -> int:
        """A seed for one place of the model, such as ``seed("attention", 1)``; other places have other seeds."""
        return derived_seed(self._seed, *place)

    def layer(self, layer_class: Callable[..., Any], *name: Any, **arguments: Any) -> Any:
        """The layer ``layer_class(**arguments, name=...)``; a second call with the same name gives the same layer.

        A layer that is made otherwise has the name that Keras gives it, which changes from model to model, so that its
        weights are not found again. And what `model` calls several times, for inputs and for candidates, has to apply
        the same layers.
        """
        return self._layers(layer_class, *name, **arguments)

    def history(self, name: str | None = None, unit_length: bool = False) -> History:
        """The positions of one history, which `features` leaves out from then on.

        Args:
            name: The column's. None: the first that shares the item's table.
            unit_length: Whether the rows are L2-normalised, as the items' vectors are; the column's weights come after.

        Returns:
            ``rows`` (B, T, D) and ``valid`` (B, T), most recent first.

        Raises:
            ValueError: There is no such history.
        """
        histories = {column.name: column for column in self.user_columns if isinstance(column, SequenceColumn)}
        if name is None:
            table = self.item.embedding_name
            of_items = [key for key, column in histories.items() if column.sparsefeat.embedding_name == table]
            if not of_items:
                rule = "have a history that shares the item's table by its `embedding_name`"
                raise problem("`user_feature_columns`", rule, "none")
            name = of_items[0]
        elif name not in histories:
            raise problem("`user_feature_columns`", f"have a history {name!r}", f"only {sorted(histories)}")
        self._taken.add(name)
        return self._features.history(histories[name], self._user_rows, unit_length)

    def features(self) -> list[Any]:
        """What the user columns say, (B, d) each: ids, pooled histories, numbers; without histories that were taken."""
        columns = [column for column in self.user_columns if column.name not in self._taken]
        return self._noted(self._features(columns, self._user_rows))

    def _noted(self, features: Sequence[Feature]) -> list[Any]:
        """The features' values, whose tables are kept in mind."""
        self._tables_of += features
        return [feature.values for feature in features]

    def dense(self, side: str, parts: Sequence[Any], units: Sequence[int]) -> Any:
        """Dense layers over what is given, made as the builder's ``dnn_`` arguments say.

        Args:
            side: The layers' name; of the same name, they are the same layers.
            parts: Tensors (B, d), or (B, K, d), which the others are repeated for.
            units: The widths of the layers; none: the parts side by side. A single layer of D begins as the mean of
                those parts of size D that are interests, (B, K, D), or come from the item's table.

        Returns:
            (B, units[-1]), or (B, K, units[-1]).
        """
        of_items = self.item.embedding_name
        tables = [
            next(
                (table for values, table in self._tables_of if values is part),
                of_items if len(part.shape) == 3 else None,
            )
            for part in parts
        ]
        return self._dense(side, [Feature(*pair) for pair in zip(parts, tables, strict=True)], units)

    def model(
        self,
        user: Any,
        item: Callable[[list[Any]], Any] | None = None,
        select: Callable[[list[Any]], Any] | None = None,
    ) -> RetrievalModel:
        """The model that learns to score these user vectors against the items'.

        Both are L2-normalised. The positives and the candidates go through the item side together; a candidate's vector
        never reaches the user side.

        Args:
            user: (B, D), or (B, K, D) for K interests of each user.
            item: From the item's features, (n, d) each, to its vector (n, D). It is called for inputs, for candidates
                and for whole catalogues, with the same layers each time. None: dense layers of `item_units`.
            select: With K interests: a layer from ``[interests (B, K, D), positives (B, D)]`` to the vector (B, D) that
                is trained. None: the interest with the highest inner product (`NearestInterest`).

        Raises:
            ValueError: The user's and the items' vectors have different sizes.
        """
        item = item or (lambda parts: self.dense("item", parts, self.item_units))
        unit_length = self._layers(L2Normalization, "unit_length")

        def encode(ids: Any, **options: Any) -> Any:
            inputs = self._item_features(ids, **options)
            vectors = item(self._noted(self._features(self.item_columns, inputs)))
            if vectors.shape[-1] != self.dim:
                raise problem("The items' vectors", f"have size {self.dim}", vectors.shape[-1])
            return unit_length(vectors)

        self._check_size(user)
        user_emb = self._layers(L2Normalization, "user_emb")(user)
        item_id = self._item_rows[self.item.name]
        item_emb = encode(item_id, given=self._item_rows)

        sampler = candidates = None
        if self._sampler is not None:
            seed, size = self.seed("sampler"), self.item.vocabulary_size
            of_sampler = {"sampler_config": self._sampler, "vocabulary_size": size, "seed": seed}
            sampler = self._layers(CandidateSampler, "candidates", **of_sampler)
            candidates = Candidates(*sampler(item_id))
        given = {} if self._item_features.catalogue else {"given": self._item_rows}
        read_emb = encode(candidates.ids if candidates else item_id, positives=item_id, **given)
        trained = user_emb
        if len(user_emb.shape) == 3:
            positives = self._layers(FirstRows, "positives", dtype="float32")([user_emb, read_emb])
            trained = (select or self._layers(NearestInterest, "nearest_interest"))([user_emb, positives])
        outputs = self._output([trained, read_emb, *(candidates or ())])

        if taken := sorted(self._layers.names().intersection(self._inputs)):
            raise problem("The names of inputs", "be none of those of the model's layers", repr(taken[0]))
        user_input = [self._inputs[name] for name in input_names(self.user_columns)]
        item_input = [self._inputs[name] for name in input_names(self.item_columns)]
        catalogue_emb = encode(item_id) if self._item_features.catalogue else None
        return RetrievalModel(
            inputs=[*user_input, *(item_input[:1] if self._item_features.catalogue else item_input)],
            outputs=outputs,
            towers=Towers(
                user_input, user_emb, item_input, item_emb, catalogue_emb, self.user_columns, self.item_columns
            ),
            config={"builder": self._name, "arguments": self._record(sampler and sampler.sampler)},
            name=_snake_case(self._name),
        )

    def _check_size(self, user: Any) -> None:
        if user.shape[-1] != self.dim:
            has_units = "user_dnn_hidden_units" in self._arguments
            what = "`user_dnn_hidden_units`" if has_units else "The user's vectors"
            rule = f"end in the size of the items' vectors, {self.dim}" if has_units else f"have size {self.dim}"
            got = f"{user.shape[-1]}" + ("" if self.user_units else ", the width of the user's features")
            raise problem(what, rule, got)

    def _record(self, sampler: Any) -> dict[str, Any]:
        """What the model is rebuilt from: every argument, as it was read."""
        recorded = {
            **self._arguments,
            "user_feature_columns": self.user_columns,
            "item_feature_columns": self.item_columns,
        }
        if "exclude_features" in recorded:
            recorded["exclude_features"] = ()  # the columns above are those that are read
        if "sampler_config" in recorded and recorded.get("num_sampled") is None:
            recorded["sampler_config"] = sampler
        if recorded.get("item_features") is not None:
            recorded["item_features"] = SAVED
        return recorded


def _units(what: str, units: Any) -> tuple[int, ...]:
    if not isinstance(units, list | tuple):
        older = "DeepMatch's older versions had `num_sampled` in this place; give it by its name."
        raise problem(what, "be a list of integers", shown(units), older if isinstance(units, int) else "")
    return tuple(positive_int(f"Every element of {what}", each) for each in units)


def _sampler_for(sampler_config: Any, num_sampled: Any, vocabulary_size: int) -> Sampler:
    if sampler_config is None:
        return default_sampler(vocabulary_size, num_sampled)
    if num_sampled is not None:
        raise problem("`num_sampled`", "be given in `sampler_config` where there is one", num_sampled)
    return make_sampler(sampler_config)


def _without(columns: list[Column], names: Sequence[str]) -> list[Column]:
    if isinstance(names, str) or not isinstance(names, Collection):
        raise problem("`exclude_features`", "be a list of names", repr(names))
    for name in names:
        if name not in [column.name for column in columns]:
            raise problem("`exclude_features`", "hold names of user columns", repr(name))
    return [column for column in columns if column.name not in names]


def _item_column(item_columns: list[Column]) -> SparseColumn:
    if not item_columns or not isinstance(item_columns[0], SparseColumn):
        raise problem(
            "`item_feature_columns`",
            "begin with a SparseFeat, the item id",
            f"{[type(column).__name__ for column in item_columns]}",
        )
    return item_columns[0]


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
