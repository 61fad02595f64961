"""From a builder's arguments to a model: everything that all models share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
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
    warn_caller,
)
from deepmatch_ext._keras import keras, require_eager, require_eager_on_keras_3, warn_of_fixed_phase
from deepmatch_ext.features import (
    Column,
    DenseColumn,
    SequenceColumn,
    SparseColumn,
    build_inputs,
    input_names,
    read_columns,
)
from deepmatch_ext.layers import (
    ByPosition,
    CandidateLoss,
    CandidateSampler,
    FirstRows,
    L2Normalization,
    NearestInterest,
    PairProbability,
    WithoutPadding,
)
from deepmatch_ext.layers.softmax import default_sampler
from deepmatch_ext.losses import LOSSES, Candidates
from deepmatch_ext.models._arguments import ALIASES, DEFAULTS, LABELLED, OPTIONAL, full_documentation, full_signature
from deepmatch_ext.models._input_rules import EventTimes
from deepmatch_ext.models._items import ItemFeatures
from deepmatch_ext.models._positions import OtherHistory, UserStates, loss_of_rows, user_states
from deepmatch_ext.models._record import register_builder
from deepmatch_ext.models._retrieval_model import RetrievalModel, Towers
from deepmatch_ext.models._tables import NamedLayers, Tables, derived_seed, row_ids, with_history_dropout
from deepmatch_ext.models._towers import DenseLayers, DenseSettings, Feature, Features, History
from deepmatch_ext.samplers import SAVED, InBatchSampler, Sampler, make_sampler

P = ParamSpec("P")


def builder(
    function: Callable[Concatenate[Assembly, P], RetrievalModel],
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    table_stddev: float | None = None,
) -> Callable[P, RetrievalModel]:
    """Turns a function from an `Assembly` and arguments to a model into a model builder.

    The builder takes the arguments without the assembly. Its signature and documentation list the shared arguments
    instead of ``**shared``, and explain every argument that models share. A saved model is rebuilt by the builder's
    name, so the module of a custom builder must be imported before its models are loaded.

    Args:
        function: Takes an `Assembly`, ``user_feature_columns``, ``item_feature_columns``, then arguments with defaults:
            its own; any of `OPTIONAL`, which the assembly reads by name; and ``**shared: Unpack[Shared]``.
        prepare: A function that is applied first to the arguments, given by name; for a builder that takes other forms
            of columns.
        table_stddev: The standard deviation of the tables' initial rows, unless a column has an initializer. None: 0.05
            with hidden layers in the user tower, else 0.01. A model that L2-normalises the rows that it reads learns
            faster from small rows, whatever its tower.

    Raises:
        ValueError: Another builder has the function's name, or its parameters do not begin as described.

    Example:
        >>> @builder
        ... def LastItem(make, user_feature_columns, item_feature_columns, seed=1024, **shared):
        ...     '''The user's features, averaged with learnt weights.'''
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
        arguments = dict(given.arguments) if prepare is None else prepare(dict(given.arguments))
        model = function(Assembly(name, arguments, table_stddev), **arguments)  # type: ignore[call-arg]
        if not isinstance(model, RetrievalModel):
            raise problem(f"The builder {name}", "return what `make.model` returns", type(model).__name__)
        return model

    build.__signature__ = signature  # type: ignore[attr-defined]
    build.__doc__ = full_documentation(function, signature)
    register_builder(build)
    return build


class Assembly:
    """The parts from which a builder makes its model.

    It checks the arguments and columns, makes the inputs and the embedding tables, and turns columns into tensors. The
    builder makes the user's vector, or vectors, from these tensors. `model` does the rest: the item side, the
    candidates, the loss, and the record of all arguments from which the model is rebuilt.

    Args:
        name: The builder's name.
        arguments: All of the builder's arguments by name. The assembly reads those that models share.
        table_stddev: As for `builder`.

    Attributes:
        user_columns: The user side's columns, without the excluded ones.
        item_columns: The item side's columns; the first is `item`.
        item: The column of the item id.
        dim: D, the size of the vectors.
        user_units: The units of the user tower's dense layers: the argument ``user_dnn_hidden_units``, or ``(dim,)``.
        item_units: The units of the item tower's dense layers.
        request_time: (B, 1) int64, if the builder has the argument and it is given; else None.

    Raises:
        ValueError: An argument or column cannot be used; the message names it.

    Example:
        >>> from deepmatch_ext.layers import AttentionPooling
        >>> @builder
        ... def Attended(make, user_feature_columns, item_feature_columns, temperature=0.1, seed=1024, **shared):
        ...     '''The history through attention, beside the user's other features.'''
        ...     history = make.history()  # rows (B, T, D), and which of them are items (B, T)
        ...     attention = make.layer(AttentionPooling, "attention", seed=make.seed("attention"))
        ...     pooled = attention([history.rows, history.valid])  # (B, D)
        ...     return make.model(make.dense("user", [pooled, *make.features()], (make.dim,)))
        >>> from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, length_name="len")
        >>> model = Attended([history, DenseFeat("age", 1)], [SparseFeat("item", 50, 8)], num_hard=10)
        >>> model.user_vectors({"hist_item": [[3, 2], [7]], "age": [0.3, 0.5]}).shape
        (2, 8)
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], table_stddev: float | None = None) -> None:
        require_eager_on_keras_3(name)
        warn_of_fixed_phase(name)
        self._name, self._arguments, self._layers = name, dict(arguments), NamedLayers()
        self._taken: set[str] = set()
        given = {**OPTIONAL, **DEFAULTS, **{ALIASES.get(key, key): value for key, value in arguments.items()}}
        self._read_columns(given)
        self._read_units(given)
        self._seed = int_at_least("`seed`", given["seed"], 0)
        dense = {key: given[key] for key in DenseSettings.__dataclass_fields__ if key != "seed"}
        settings = DenseSettings(**dense, seed=self._seed)
        self._make_inputs(given, table_stddev)
        # A builder that takes none of these may be for labelled pairs, which only `model` can tell.
        self._given, takes_a_loss = given, {"loss", "sampler_config", *ALIASES} & arguments.keys()
        self._of_loss = self._read_loss(given["loss"]) if takes_a_loss else None
        self._dense = DenseLayers(settings, self.item.embedding_name, self._layers)
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
        self.item_units = checked_units("`item_dnn_hidden_units`", units)
        if not self.item_units:
            _check_that_they_add_up(self.item_columns)
        self.dim = self.item_units[-1] if self.item_units else self.item.embedding_dim
        units = given["user_dnn_hidden_units"]
        self.user_units = checked_units("`user_dnn_hidden_units`", (self.dim,) if units is None else units)

    def _read_loss(self, loss: str) -> tuple[Sampler | None, Any]:
        """The sampler, and the layer that makes the output; labelled pairs need no sampler."""
        argument = next((key for key in self._arguments if ALIASES.get(key) == "loss"), "loss")
        given, size = self._given, self.item.vocabulary_size
        if one_of(f"`{argument}`", loss, (*LOSSES, LABELLED)) != LABELLED:
            sampler = _sampler_for(given["sampler_config"], given["num_sampled"], size)
            self._check_negatives(sampler)
            of_loss = {name: given[name] for name in ("temperature", "gbce_t", "num_hard")}
            return sampler, self._layers(CandidateLoss, "loss", **of_loss, loss=loss, vocabulary_size=size)
        for name in ("sampler_config", "num_sampled", "num_hard"):
            if given[name] is not None:
                rule, remedy = f"be left out with the loss {LABELLED!r}", "The labels say what is negative."
                raise problem(f"`{name}`", rule, shown(given[name]), remedy)
        number_between("`gbce_t`", given["gbce_t"], 0, 1 + 1e-9)  # used by another loss, but checked all the same
        return None, self._layers(PairProbability, "probability", temperature=given["temperature"])

    def _check_negatives(self, sampler: Sampler) -> None:
        if not self._item_features.catalogue and not isinstance(sampler, InBatchSampler):
            rule = "be given if several columns describe the item and other items than the batch's are negatives"
            remedy = "Or take `InBatchSampler` as the `sampler_config`."
            raise problem("`item_features`", rule, None, remedy)

    def _make_inputs(self, given: Mapping[str, Any], stddev: float | None) -> None:
        """Makes the model's inputs, the tables, and the inputs' ids as row numbers of these tables."""
        history_dropout = number_between("`history_dropout`", given["history_dropout"], 0, 1)
        id_dropout = number_between("`item_id_dropout`", given["item_id_dropout"], 0, 1)
        l2_reg = number_between("`l2_reg_embedding`", given["l2_reg_embedding"], 0, float("inf"))
        check_ids = as_flag("`check_ids`", given["check_ids"])
        described_by = self.item_columns[1:]
        if described_by and given["item_features"] is not None:
            # In Keras 2's graph mode, training would need the item encoder's inputs, too.
            require_eager("`item_features`")
        columns = [*self.user_columns, *self.item_columns]
        self._inputs = build_inputs(columns)
        # Rows are L2-normalised, so one step of Adam rotates a small row more than a large one: with a large initial
        # scale, rare items hardly move from their random start. With hidden layers small tables do worse. See "What the
        # defaults rest on" in docs/results.md.
        stddev = stddev or (0.05 if len(self.user_units) > 1 else 0.01)
        self._tables = functools.partial(
            Tables,
            l2_reg=l2_reg,
            seed=self._seed,
            check_ids=check_ids,
            stddev=stddev,
            table_dtype=given["table_dtype"],
            layers=self._layers,
        )
        tables = self._tables(columns)
        tables.keep_padding(self.item.embedding_name)
        self._features = Features(tables, self._seed, self._layers)
        self._user_rows = row_ids(self.user_columns, self._inputs, tables)
        self._read_times(given)
        if history_dropout:
            of_history = (self.user_columns, self._user_rows, history_dropout, self._seed, self._layers, self._times)
            self._user_rows = with_history_dropout(*of_history)
        self._item_rows = row_ids(self.item_columns, self._inputs, tables)
        self._item_features = ItemFeatures(
            self.item, described_by, given["item_features"], id_dropout, self.seed("known"), tables, self._layers
        )

    def _read_times(self, given: Mapping[str, Any]) -> None:
        """Reads the columns of times, which `features` leaves out."""
        self._times: EventTimes | None = None
        self.request_time: Any = None
        if given["history_times"] is None:
            if given["request_time"] is not None:
                raise problem("`request_time`", "be None without `history_times`", shown(given["request_time"]))
            return
        histories = {each.name: each for each in self.user_columns if isinstance(each, SequenceColumn)}
        first = histories[self.item_histories()[0]]
        name = self._time_column("history_times", first.maxlen)
        as_numbers = self._layers(
            keras.layers.Reshape, "positions", name, target_shape=(first.maxlen, 1), dtype="int64"
        )
        self._user_rows[name] = as_numbers(self._inputs[name])
        if given["request_time"] is not None:
            if given["request_time"] == name:
                raise problem("`request_time`", "name another column than `history_times`", repr(name))
            self.request_time = self._inputs[self._time_column("request_time", 1)]
        self._times = EventTimes(first, name, given["request_time"])
        for column in self.user_columns:
            if isinstance(column, DenseColumn) and column.dtype == "int64" and column.name not in self._taken:
                warn_caller(
                    f"Column {column.name!r} is read as a number, like any DenseFeat. If it holds times, name it as "
                    "`request_time`, or leave it out.",
                    UserWarning,
                )

    def _time_column(self, argument: str, dimension: int) -> str:
        """The name of the column that an argument names."""
        name = self._arguments[argument]
        column = next((each for each in self.user_columns if each.name == name), None)
        rule = f'be the name of a user column DenseFeat(name, {dimension}, "int64")'
        if not isinstance(column, DenseColumn):
            raise problem(f"`{argument}`", rule, shown(name), "`exclude_features` must not name it.")
        if (column.dimension, column.dtype) != (dimension, "int64") or column.transform_fn is not None:
            more = "" if column.transform_fn is None else ", transform_fn"
            got = f"DenseFeat({column.name!r}, {column.dimension}, {column.dtype!r}{more})"
            raise problem(f"`{argument}`", rule, got)
        self._taken.add(column.name)
        return column.name

    def seed(self, *place: Any) -> int:
        """A seed for one part of the model, such as ``seed("attention", 1)``; other parts have other seeds."""
        return derived_seed(self._seed, *place)

    def layer(self, layer_class: Callable[..., Any], *name: Any, **arguments: Any) -> Any:
        """The layer ``layer_class(**arguments, name=...)``; a second call with the same name returns the same layer.

        Make all layers by this method. Otherwise, Keras names them differently in each model, so saved weights are not
        found again. Also, functions that `model` calls several times, for inputs and for candidates, must use the same
        layers each time.

        Args:
            layer_class: A Keras layer's class.
            name: The parts of the layer's name, such as ``"block", 1``.
            arguments: The layer's other arguments.
        """
        return self._layers(layer_class, *name, **arguments)

    def history(self, name: str | None = None, unit_length: bool = False) -> History:
        """The positions of one history, which `features` leaves out from then on.

        Args:
            name: The column's name. None: the first history that shares the item's table.
            unit_length: Whether the rows are L2-normalised, as item vectors are; the column's weights are applied
                afterwards.

        Returns:
            ``rows`` (B, T, D), ``valid`` (B, T) and ``ids`` (B, T), most recent first; and ``times`` (B, T, 1) of the
            items' history, if the builder's ``history_times`` names them.

        Raises:
            ValueError: There is no such history.
        """
        return self.histories([self.item_histories()[0] if name is None else name], unit_length)[0]

    def histories(
        self,
        names: Sequence[str] | None = None,
        unit_length: bool = False,
        up_to_longest: bool = False,
        described: bool = False,
    ) -> list[History]:
        """The positions of histories of the same events, such as items and their categories, each as from `history`.

        Position t of each belongs to the t-th item of the first.

        Args:
            names: The columns' names, which must have the same ``maxlen``. None: the first history that shares the
                item's table, and all histories with its ``length_name`` and ``maxlen``.
            unit_length: Whether the rows are L2-normalised.
            up_to_longest: Whether T is the number of items of the batch's longest history, instead of ``maxlen``.
            described: Whether the rows of the first history are the items' vectors, which include their
                ``item_features``, instead of rows of the item's table. The item side must be the one that `model` makes
                by default. If the item id is the only item column, nothing changes.

        Returns:
            For each name, what `history` returns.

        Raises:
            ValueError: There is no such history, or they differ in length.
        """
        histories = {column.name: column for column in self.user_columns if isinstance(column, SequenceColumn)}
        if names is None:
            first = histories[self.item_histories()[0]]
            others = [
                each.name
                for each in histories.values()
                if each is not first and each.length_name is not None
                if (each.length_name, each.maxlen) == (first.length_name, first.maxlen)
            ]
            names = [first.name, *others]
        for name in names:
            if name not in histories:
                raise problem("`user_feature_columns`", f"have a history {name!r}", f"only {sorted(histories)}")
        columns = [histories[name] for name in names]
        for column in columns:
            if column.maxlen != columns[0].maxlen:
                rule = f"have the `maxlen` of {columns[0].name!r}, which it belongs to, {columns[0].maxlen}"
                raise problem(f"Column {column.name!r}", rule, column.maxlen)
        self._taken.update(names)
        is_described = described and self._item_features.catalogue and len(self.item_columns) > 1
        rows_of = self._vectors_by_position if is_described else None
        known = self._times
        times = known.events if known is not None and known.history.name == names[0] else None
        return self._features.histories(columns, self._user_rows, unit_length, up_to_longest, rows_of, times)

    def _vectors_by_position(self, ids: Any) -> Any:
        """(B, t, D), the items' vectors."""
        vectors = self._item_vectors(self._features_of(self.item_columns, self._item_features(ids)))
        return self._layers(ByPosition, "history_vectors")([vectors, ids])

    def _item_vectors(self, parts: list[Any]) -> Any:
        """(n, D) from the item's features, as `model` makes the item side by default."""
        if self.item_units or len(parts) == 1:
            return self.dense("item", parts, self.item_units)
        return self._layers(keras.layers.Add, "item_added")(parts)

    def known_rows(self, name: str, histories: Sequence[History]) -> list[Any]:
        """The rows of histories (B, T, d), with zeros where they hold nothing: at padding, and at unknown ids.

        Args:
            name: The name of the layers that do this.
            histories: As from `histories`.
        """
        return [
            self._layers(WithoutPadding, name, place)([each.rows, each.valid]) for place, each in enumerate(histories)
        ]

    def item_histories(self) -> list[str]:
        """The names of the histories that share the item's table.

        Raises:
            ValueError: There is none.
        """
        histories = [column for column in self.user_columns if isinstance(column, SequenceColumn)]
        table = self.item.embedding_name
        names = [column.name for column in histories if column.sparsefeat.embedding_name == table]
        if not names:
            rule = "have a history that shares the item's table by its `embedding_name`"
            raise problem("`user_feature_columns`", rule, "none")
        return names

    def features(self, tables: str | None = None, dim: int | None = None) -> list[Any]:
        """The user columns as tensors (B, d): embeddings, pooled histories and numbers.

        Histories that `history` or `histories` returned before are left out.

        Args:
            tables: A name for further tables, for models in which a feature has more than one embedding. None: the
                embeddings that the columns describe.
            dim: The size of the further embeddings.
        """
        columns = [column for column in self.user_columns if column.name not in self._taken]
        return self._features_of(columns, self._user_rows, tables, dim)

    def _features_of(
        self, columns: Sequence[Column], rows: Mapping[str, Any], tables: str | None = None, dim: int | None = None
    ) -> list[Any]:
        if tables is None:
            return self._noted(self._features(columns, rows))
        further = [_with_further_table(column, tables, dim) for column in columns]
        features = Features(self._tables(further), self._seed, self._layers.under(tables))
        return self._noted(features(further, rows))

    def _noted(self, features: Sequence[Feature]) -> list[Any]:
        """The features' values; remembers their tables."""
        self._tables_of += features
        return [feature.values for feature in features]

    def dense(
        self,
        side: str,
        parts: Sequence[Any],
        units: Sequence[int],
        from_items: Sequence[Any] = (),
        shortcut: bool = False,
    ) -> Any:
        """Dense layers over the concatenated parts, with the settings of the builder's ``dnn_`` arguments.

        Args:
            side: The layers' name; the same name gives the same layers.
            parts: Tensors (B, d). If some are (B, K, d), the others are repeated K times.
            units: The widths of the layers. If there are none, the concatenated parts themselves are returned.
            from_items: The parts that are made from rows of the item's table, besides those from `features`. A single
                layer is initialised as the mean of all such parts.
            shortcut: Whether a linear layer of the parts, initialised as the mean of the parts from the item's table,
                is added to the layers' output, which is initially 0.

        Returns:
            (B, units[-1]), or (B, K, units[-1]).
        """
        known = [*self._tables_of, *(Feature(part, self.item.embedding_name) for part in from_items)]
        tables = [next((table for values, table in known if values is part), None) for part in parts]
        return self._dense(side, [Feature(*pair) for pair in zip(parts, tables, strict=True)], units, shortcut)

    def user_states(
        self,
        states: Sequence[Any],
        history: History,
        from_items: Sequence[Any] = (),
        read: Callable[[list[Any], list[Any]], Any] | None = None,
    ) -> UserStates:
        """The user's state at every position of the history, for a model that is trained at each of them.

        The state at position k reads position k and those behind it, which are older. The item at k - 1 is the one that
        came next; for position 0, that is the row's own target. A vector is made from each state and the user's
        `features`, which are the same for all positions. No feature may depend on later events, as counts of the user's
        events or the context of a target do. A row's weight applies to all of its positions.

        Args:
            states: (B, T, d) each, T as in the history, or a `State` of such a tensor. A state must not depend on
                positions before its own, which are later in time.
            history: The positions, as from `histories`.
            from_items: The states that are made from rows of the item's table, as for `dense`.
            read: A function from the parts (n, d), and a list of those that are made from rows of the item's table, to
                vectors (n, D). It is called several times and must use the same layers each time. None: dense layers of
                `user_units`.

        Returns:
            What `model` takes as the user.

        Raises:
            ValueError: There is another history, which could reveal later events to a position; a history's weights are
                normalised over the whole history; or examples have labels, or hold their items' features.
        """
        others = [each.name for each in self.user_columns if isinstance(each, SequenceColumn)]
        if others := [name for name in others if name not in self._taken]:
            rule = "have no histories besides that of the items and those with its `length_name` and `maxlen`"
            remedy = "Every position is trained, and another history would show what came later."
            raise OtherHistory(*problem("`user_feature_columns`", rule, repr(others[0]), remedy).args)
        for column in self.user_columns:
            if isinstance(column, SequenceColumn) and column.weight_name is not None and column.weight_norm:
                rule = "have `weight_norm=False` if every position is trained"
                remedy = "A softmax of the weights would depend on later positions."
                raise problem(f"Column {column.name!r}", rule, "True", remedy)
        if self._of_loss is None or self._of_loss[0] is None:
            remedy = "Each position is trained on what came next, which no label says."
            raise problem("`loss`", f"be another than {LABELLED!r}", repr(LABELLED), remedy)
        if not self._item_features.catalogue:
            rule = "be given if several columns describe the item and every position of a history is trained"
            raise problem("`item_features`", rule, None)

        def dense(parts: list[Any], of_items: list[Any]) -> Any:
            return self.dense("user", parts, self.user_units, of_items)

        target = self._item_rows[self.item.name]
        return user_states(read or dense, states, self.features(), from_items, history, target, self._layers)

    def model(
        self,
        user: Any,
        item: Callable[[list[Any]], Any] | None = None,
        select: Callable[[list[Any]], Any] | None = None,
        beside: Callable[[Callable[..., list[Any]]], Any] | None = None,
    ) -> RetrievalModel:
        """The model that learns to score these user vectors against the item vectors.

        Both are L2-normalised. The positives and the candidates go through the item side together; a candidate's vector
        never reaches the user side.

        Args:
            user: (B, D), or (B, K, D) for K interests of each user; or what `user_states` returned.
            item: A function from the item's features, (n, d) each, to its vector (n, D). It is called for inputs, for
                candidates and for whole catalogues, and must use the same layers each time. None: dense layers of
                `item_units`, or the sum of the item's embeddings if there are none.
            select: With K interests: a layer from ``[interests (B, K, D), positives (B, D)]`` to the vector (B, D) that
                is trained. None: the interest with the highest inner product (`NearestInterest`).
            beside: For a model of labelled pairs: a function whose result, (B, 1), is added to the inner product in the
                logit of a pair. Its argument is a function like `features`, but for the pair's item. The model's output
                is then each pair's probability, and it takes labels.

        Raises:
            ValueError: The user's and the items' vectors have different sizes.
        """
        item = item or self._item_vectors
        unit_length = self._layers(L2Normalization, "unit_length")

        def vectors_of(inputs: Mapping[str, Any]) -> Any:
            vectors = item(self._features_of(self.item_columns, inputs))
            if vectors.shape[-1] != self.dim:
                raise problem("The items' vectors", f"have size {self.dim}", vectors.shape[-1])
            return unit_length(vectors)

        def encode(ids: Any, **options: Any) -> Any:
            return vectors_of(self._item_features(ids, **options))

        of_positions = user if isinstance(user, UserStates) else None
        user = user.now if isinstance(user, UserStates) else user
        self._check_size(user)
        to_user_emb = self._layers(L2Normalization, "user_emb")
        user_emb, item_id = to_user_emb(user), self._item_rows[self.item.name]
        item_emb = encode(item_id, given=self._item_rows)

        drawn_by, output = self._of_loss or self._read_loss(LABELLED if beside else DEFAULTS["loss"])
        if beside is not None and drawn_by is not None:
            raise problem("The loss of a model with `beside`", f"be {LABELLED!r}", shown(self._given["loss"]))
        positives = of_positions.items if of_positions else item_id
        sampler = candidates = None
        if drawn_by is not None:
            seed, size = self.seed("sampler"), self.item.vocabulary_size
            of_sampler = {"sampler_config": drawn_by, "vocabulary_size": size, "seed": seed}
            sampler = self._layers(CandidateSampler, "candidates", **of_sampler)
            candidates = Candidates(*sampler(positives))
        given = {} if self._item_features.catalogue else {"given": self._item_rows}
        read = self._item_features(candidates.ids if candidates else item_id, positives=positives, **given)
        read_emb = vectors_of(read)
        trained = to_user_emb(of_positions.trained) if of_positions else user_emb
        if len(user_emb.shape) == 3:
            of_positives = self._layers(FirstRows, "positives", dtype="float32")([user_emb, read_emb])
            trained = (select or self._layers(NearestInterest, "nearest_interest"))([user_emb, of_positives])
        logits = [beside(functools.partial(self._features_of, self.item_columns, read))] if beside else []
        outputs = output([trained, read_emb, *(candidates or ()), *logits])
        if of_positions:
            outputs = loss_of_rows(outputs, of_positions, self._layers)

        if taken := sorted(self._layers.names().intersection(self._inputs)):
            raise problem("The names of inputs", "differ from those of the model's layers", repr(taken[0]))
        user_input = [self._inputs[name] for name in input_names(self.user_columns)]
        item_input = [self._inputs[name] for name in input_names(self.item_columns)]
        catalogue_emb = encode(item_id) if self._item_features.catalogue else None
        return RetrievalModel(
            inputs=[*user_input, *(item_input[:1] if self._item_features.catalogue else item_input)],
            outputs=outputs,
            towers=Towers(
                user_input,
                user_emb,
                item_input,
                item_emb,
                catalogue_emb,
                self.user_columns,
                self.item_columns,
                self._times,
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
        """Every argument as it was read, from which the model is rebuilt."""
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


def _with_further_table(column: Column, tables: str, dim: int | None) -> Column:
    """The column with an embedding in a table of another name and size."""
    if isinstance(column, SequenceColumn):
        return replace(column, sparsefeat=_with_further_table(column.sparsefeat, tables, dim))  # type: ignore[arg-type]
    if not isinstance(column, SparseColumn):
        return column
    name, size = f"{tables}_{column.embedding_name}", positive_int("`dim`", dim)
    return replace(column, embedding_name=name, embedding_dim=size, embeddings_initializer=None)


def checked_units(what: str, units: Any) -> tuple[int, ...]:
    """The widths of dense layers, as an argument gives them."""
    if not isinstance(units, list | tuple):
        older = "DeepMatch's older versions had `num_sampled` in this position; give it by its name."
        raise problem(what, "be a list of integers", shown(units), older if isinstance(units, int) else "")
    return tuple(positive_int(f"Every element of {what}", each) for each in units)


def _sampler_for(sampler_config: Any, num_sampled: Any, vocabulary_size: int) -> Sampler:
    if sampler_config is None:
        return default_sampler(vocabulary_size, num_sampled)
    if num_sampled is not None:
        raise problem("`num_sampled`", "be given in `sampler_config`, if there is one", num_sampled)
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


def _check_that_they_add_up(item_columns: list[Column]) -> None:
    """Checks that an item's embeddings have one size: without a dense layer, they are added up."""
    size = item_columns[0].embedding_dim  # type: ignore[union-attr]
    for column in item_columns[1:]:
        embedded = column.sparsefeat if isinstance(column, SequenceColumn) else column
        got = embedded.embedding_dim if isinstance(embedded, SparseColumn) else "numbers, which have no embedding"
        if got != size:
            rule = f"have the id's `embedding_dim`, {size}, where `item_dnn_hidden_units` is empty"
            raise problem(f"Item column {column.name!r}", rule, got, "The item's embeddings are then added up.")


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
