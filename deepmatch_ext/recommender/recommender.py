"""From a table of events to recommendations in one's own ids, today and tomorrow."""

from __future__ import annotations

import inspect
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from deepmatch_ext._arrays import Seen
from deepmatch_ext._checks import (
    as_flag,
    as_text,
    int_at_least,
    listing,
    number_between,
    positive_int,
    problem,
    shown,
    warn_caller,
)
from deepmatch_ext._frames import FRAMES, as_array, columns_of, is_frame
from deepmatch_ext.data import (
    IdMap,
    Interactions,
    Split,
    leave_last_out,
    neighbours,
    seen_before,
    seen_by_users,
    split_by_time,
    windows,
)
from deepmatch_ext.data.interactions import extended_with_rows, has_zone
from deepmatch_ext.data.splits import PARTS, moment
from deepmatch_ext.data.window_dataset import window_dataset
from deepmatch_ext.evaluation import (
    SeenTargetsWarning,
    format_table,
    ranking_metrics,
    write_report,
)
from deepmatch_ext.evaluation.baselines import has_implicit
from deepmatch_ext.evaluation.callback import RetrievalMetrics
from deepmatch_ext.features import Column, SequenceColumn, SparseColumn, read_columns
from deepmatch_ext.models import RetrievalModel, YoutubeDNN
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.recommender.days import Day
from deepmatch_ext.recommender.features import FeatureTable, check_same_kind
from deepmatch_ext.recommender.files import check_restored, read_recommender, write_recommender
from deepmatch_ext.recommender.judged import Judged, history_names, judged_events, ranks_of_all
from deepmatch_ext.recommender.snapshot import Snapshot
from deepmatch_ext.retrieval.top_n import top_n
from deepmatch_ext.samplers import make_sampler
from deepmatch_ext.serving import export_recommender

LAST = "last"
_PATIENCE = 3
_BLOCK = 8192  # users at a time


class Recommender:
    """Trains a model on a table of events and recommends in the table's own ids.

    Each method is a few lines over parts of the package, which do what this object does not: `Interactions`, `windows`,
    the model (`model`), `evaluate`, the indexes, `export_recommender`.

    Args:
        model: A builder such as `YoutubeDNN`, `ComiRec` or `DSSM`, of a model that trains without labels.
        user_features: A frame with one row for each user and the column ``user``. It may have users who have no events
            yet. Text, booleans and columns of pandas' type "category" are categories, and so are whole numbers with at
            most 50 different values; floats and other whole numbers are numbers; lists are lists of categories. `fit`
            prints what it made of each column.
        item_features: The same of items, with the column ``item``.
        columns: DeepCTR columns that replace those of the same names, for what should be read otherwise than its type
            says. The history's name is ``hist_`` and the item's name. A column of the user's name gives each user an
            embedding.
        user, item, time: Names of columns of the events' table. ``time=None``: its rows are in the order of time.
        max_len: How many of a user's last items the model reads.
        embedding_dim: The size of the items' vectors.
        optimizer: A Keras optimizer. None: ``LazyAdam(1e-3)``.
        batch_size: Events in a training step, about so many with a model that trains every position of its rows.
        seed: The seed of everything random.
        kind, targets: The column of kinds of events, such as clicks and purchases, and the kinds that are to be
            predicted. Each kind has a history of its own: see `Interactions.from_frame`.
        weight: The column of numbers that say how much each event counts in the loss.
        session: The column of sessions, if events come in sessions.
        exclude_seen: Whether items that the user had are left out of recommendations, validation and tests. False where
            people buy the same items again.
        arguments: Further arguments of the builder, such as ``sampler_config`` or ``temperature``.

    Attributes:
        model: The trained `RetrievalModel`.
        interactions: All events so far. Their ``user_ids`` and ``item_ids`` are the maps to raw ids.
        user_columns, item_columns: The columns that the model was built with.
        history: What Keras's ``fit`` has recorded: name -> a value for each pass of `fit` and for each `update`.
        epochs: The passes that `fit` made; those after the best are not counted.

    Raises:
        ValueError: An argument can't be used; the message names it.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> events = pd.DataFrame({"user_id": rng.integers(0, 40, 600), "item_id": rng.integers(0, 30, 600)})
        >>> events["sku"] = "sku-" + events.pop("item_id").astype(str)
        >>> recommender = Recommender(item="sku", time=None, embedding_dim=8)
        >>> _ = recommender.fit(events, epochs=1, verbose=0)
        >>> list(recommender.recommend([7], n=3).columns)
        ['user_id', 'sku', 'score', 'rank', 'based_on']
        >>> list(recommender.similar_items(["sku-5"], n=3).columns)
        ['sku', 'similar_sku', 'score', 'rank']

        The next day's events, of a new user and with a new item, first show how good the model is:

        >>> today = pd.DataFrame({"user_id": [99, 99, 99], "sku": ["sku-5", "sku-6", "sku-30"]})
        >>> figures = recommender.evaluate(today, ns=[10], verbose=0)
        >>> list(figures.columns), "popularity" in figures.index
        (['HR@10', 'NDCG@10', 'MRR@10', 'Recall@10'], True)

        Then the model learns from them:

        >>> import tempfile
        >>> _ = recommender.update(today)
        >>> folder = tempfile.mkdtemp() + "/recommender"
        >>> recommender.save(folder)
        >>> Recommender.load(folder).recommend([99], n=1)["based_on"].item()
        'history'
    """

    def __init__(
        self,
        model: Callable[..., RetrievalModel] = YoutubeDNN,
        user_features: Any = None,
        item_features: Any = None,
        columns: Sequence[Any] = (),
        *,
        user: str = "user_id",
        item: str = "item_id",
        time: str | None = "timestamp",
        max_len: int = 50,
        embedding_dim: int = 64,
        optimizer: Any = None,
        batch_size: int = 1024,
        seed: int = 1024,
        kind: str | None = None,
        targets: Any = None,
        weight: str | None = None,
        session: str | None = None,
        exclude_seen: bool = True,
        **arguments: Any,
    ) -> None:
        if not callable(model):
            raise problem("`model`", "be a builder such as YoutubeDNN", shown(model))
        self.user, self.item = as_text("`user`", user), as_text("`item`", item)
        self.time = None if time is None else as_text("`time`", time)
        self.session = None if session is None else as_text("`session`", session)
        self.weight = None if weight is None else as_text("`weight`", weight)
        self.kind, self.targets, self.exclude_seen = kind, targets, as_flag("`exclude_seen`", exclude_seen)
        known = inspect.signature(model).parameters
        if unknown := [name for name in arguments if name not in known]:
            what = getattr(model, "__name__", "the builder")
            raise TypeError(
                f"Recommender() got an unexpected argument {unknown[0]!r}, which {what} does not have either"
            )
        self.max_len, self.batch_size = positive_int("`max_len`", max_len), positive_int("`batch_size`", batch_size)
        self.seed = int_at_least("`seed`", seed, 0)
        self._builder, self._arguments, self._optimizer = model, arguments, optimizer
        self._given = {column.name: column for column in read_columns("columns", columns)}
        self._dim = positive_int("`embedding_dim`", embedding_dim)
        self._tables: dict[str, FeatureTable] = {}
        self._lines: dict[str, list[str]] = {}
        for side, frame, name in (("user", user_features, self.user), ("item", item_features, self.item)):
            what = f"`{side}_features`"
            self._tables[side], self._lines[side] = FeatureTable.from_frame(what, frame, name, self._given)
        self._model: RetrievalModel | None = None
        self.epochs = 0
        self._has_zone: bool | None = None
        self._found: Snapshot | None = None
        self.history: dict[str, list[float]] = {}

    @property
    def model(self) -> RetrievalModel:
        return self._fitted()

    @property
    def user_columns(self) -> list[Column]:
        return self.model.user_columns

    @property
    def item_columns(self) -> list[Column]:
        return self.model.item_columns

    def _fitted(self) -> RetrievalModel:
        """The model, which everything but `fit` needs."""
        if self._model is None:
            raise problem("The recommender", "be fitted first", "one without a model", "Call fit(events).")
        return self._model

    # Training.

    def fit(
        self,
        events: Any,
        validation: Any = None,
        test: Any = None,
        *,
        epochs: int | None = None,
        verbose: int = 1,
    ) -> Recommender:
        """Trains on a table of events, one a row, in any order.

        Args:
            events: A pandas or polars DataFrame or an Arrow table with the columns ``user``, ``item`` and ``time``; or
                `Interactions`.
            validation: What is held out to decide when to stop: ``"last"`` for each user's last event, or a time for
                all events from then on. None: training takes ``epochs`` passes over all events.
            test: What is held out for `evaluate`, given in the same way. If both are ``"last"``, a user's last event is
                for the test and the one before it for validation; a time must be later than that of ``validation``.
            epochs: Passes over the events, at most. None: 10, or with ``validation`` 30, of which the best is kept;
                training stops after three passes without improvement.
            verbose: 0 prints nothing. 1 prints what was made of the columns and shows a progress bar; where the output
                is no terminal or notebook, it prints a line for each epoch, as 2 always does.

        Returns:
            The recommender itself.

        Raises:
            ValueError: The table or an argument can't be used; the message says what to do. Of a loaded recommender,
                also if it was made with counts for its sampler or with a pretrained table, which `save` leaves out.

        Warns:
            UserWarning: An item has no features where others have, or all events have the same time.
        """
        epochs = (10 if validation is None else 30) if epochs is None else positive_int("`epochs`", epochs)
        verbose = _as_verbosity(verbose)
        check_restored(self._arguments, self._given.values())
        interactions = self._read(events)
        split = _split(interactions, validation, test)
        if not len(split.train_targets()):
            raise problem("`events`", "have a user with two events to train on", "none")
        self._check_weights(interactions, split.train_targets())
        _warn_of_one_time(interactions)
        user_columns, item_columns = self._columns(interactions)
        if verbose:
            self._tell(interactions, user_columns)
        described = {}
        if len(item_columns) > 1:
            size = cast(SparseColumn, item_columns[0]).vocabulary_size
            described = {"item_features": _padded(self._tables["item"].by_id(interactions.item_ids), size)}
        deep = {}
        if self._builder is YoutubeDNN and len(user_columns) > 1:
            deep = {"user_dnn_hidden_units": (2 * self._dim, self._dim)}
        arguments = {**deep, "seed": self.seed, **described, **self._arguments}
        try:
            built = self._builder(user_columns, item_columns, **arguments)
        except ValueError as error:
            if interactions.kinds is None or not any(repr(column.name) in str(error) for column in user_columns):
                raise
            raise self._no_kinds(interactions.kinds.name, str(error)) from error
        if not isinstance(built, RetrievalModel) or built.candidates is None:
            rule = "be a builder of models that learn from what users took, without labels"
            raise problem("`model`", rule, shown(self._builder))
        if built.trains_every_position and self.weight is not None:
            rule = "be left out with a model that trains every position: a row's weight would count for all of them"
            raise problem("`weight`", rule, repr(self.weight))
        if built.trains_every_position and interactions.kinds is not None:
            remedy = "Give the events of the kind that is to be predicted alone."
            raise self._no_kinds(interactions.kinds.name, remedy)
        targets = split.sequence_targets(self.max_len) if built.trains_every_position else split.train_targets()
        optimizer = LazyAdam(1e-3) if self._optimizer is None else self._optimizer
        if hasattr(optimizer, "get_config"):  # Keras's serve one model each
            optimizer = type(optimizer).from_config(optimizer.get_config())
        built.compile(optimizer)
        self._model, self.history, self.epochs = built, {}, 0
        self.interactions, self._split, self._found = interactions, split, None
        self._has_zone = self._zone(events)
        self.epochs = self._train(targets, epochs, validation is not None, verbose)
        return self

    def update(
        self,
        events: Any,
        *,
        user_features: Any = None,
        item_features: Any = None,
        sampler_config: Any = None,
        epochs: int = 4,
        replay: float = 3.0,
        verbose: int = 0,
    ) -> Recommender:
        """Continues training with new events; for new users and items the model grows (`RetrievalModel.extended`).

        New items start from their features or, without any, near the items that stand around them in histories
        (`deepmatch_ext.data.neighbours`). What `fit` held out stays held out.

        Args:
            events: A table with the same columns as that of `fit`. If events have times, their order does not matter.
            user_features, item_features: Features of new users and items, and of others that have changed, in frames
                whose columns have the names and the types of the first ones; integers may stand where floats were.
            sampler_config: A sampler that has counts of the new items, too, if the model's sampler has counts.
            epochs: Passes over the new events. 0 trains nothing: histories get longer and new items get their first
                vectors, in seconds.
            replay: How many old events are trained on beside each new one, so that the model does not forget. They are
                drawn at random, others for each pass.
            verbose: As in `fit`.

        Returns:
            The recommender itself. If an argument is refused, the recommender is unchanged.

        Raises:
            ValueError: The recommender is not fitted, or a table can't be used, such as one with text in a column of
                numbers, or with times in a time zone where those of `fit` had none; or the model trains every position,
                and `fit` held out events.

        Warns:
            UserWarning: A new item has no features where others have, a frame of features has a column that the first
                one did not have, some events are already known, or all events are earlier than the last known one.
        """
        model, before = self.model, self.interactions
        verbose = _as_verbosity(verbose)
        self._check_later(events)
        sampler_config = None if sampler_config is None else make_sampler(sampler_config)
        epochs, replay = int_at_least("`epochs`", epochs, 0), number_between("`replay`", replay, 0, float("inf"))
        tables = {
            "user": self._tables["user"].extended("`user_features`", user_features, self.user),
            "item": self._tables["item"].extended("`item_features`", item_features, self.item),
        }
        everyone = self._everyone(before, tables)
        known = replace(before, user_ids=everyone["user"], item_ids=everyone["item"], user_features={})
        interactions, rows, is_new = extended_with_rows(known, events, self.time, self.session)
        self._check_ids(interactions.user_ids, interactions.item_ids)
        interactions = replace(interactions, user_features=tables["user"].by_id(interactions.user_ids))
        sizes = {self.item: interactions.item_vocabulary_size, self.user: interactions.user_vocabulary_size}
        sizes |= tables["user"].sizes() | tables["item"].sizes()
        columns = [*model.user_columns, *model.item_columns]
        now = {column.name: column.vocabulary_size for column in columns if isinstance(column, SparseColumn)}
        now |= {each.name: each.sparsefeat.vocabulary_size for each in columns if isinstance(each, SequenceColumn)}
        sizes = {name: max(size, now[name]) for name, size in sizes.items() if name in now}
        if len(model.item_columns) > 1:
            start: dict[str, Any] = {
                "item_features": _padded(tables["item"].by_id(interactions.item_ids), sizes[self.item])
            }
        else:
            start = {"alike": neighbours(interactions, min(now[self.item], interactions.item_vocabulary_size))}
        larger = model.extended(sizes, **start, sampler_config=sampler_config)
        parts = {name: np.sort(rows[getattr(self._split, name)]) for name in PARTS}
        learnt = is_new[interactions.is_target[is_new]]
        split = Split(interactions, **{**parts, "train": np.sort(np.append(parts["train"], learnt))})
        targets, old = self._targets_of_update(split, learnt) if epochs else (learnt[:0], learnt[:0])
        # From here on nothing is refused.
        self._warn_of_unknown(interactions, tables["item"], is_new)
        Day.among(interactions, is_new).warn_of_update()
        self._model, self._tables = larger, tables
        self.interactions, self._split, self._found = interactions, split, None
        drawn = min(len(old), round(replay * epochs * len(targets)))
        chosen = np.random.default_rng([self.seed, len(interactions)]).choice(old, drawn, replace=False)
        if len(targets) and epochs:
            # All passes shuffled into one, since each has old events of its own.
            self._train(np.sort(np.concatenate([np.repeat(targets, epochs), chosen])), 1, False, verbose)
        return self

    def _targets_of_update(self, split: Split, is_new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows that train new events, and rows of old ones."""
        if not self.model.trains_every_position:
            targets = is_new[split.interactions.history_lengths[is_new] > 0]
            return targets, np.setdiff1d(split.train_targets(), is_new, assume_unique=True)
        if len(split.validation) or len(split.test):
            rule = "be fitted without `validation` and `test` before an update, where every position is trained"
            remedy = (
                "Held-out events are now in histories, and would be trained on: fit(events, epochs=n) holds out none."
            )
            raise problem("The recommender", rule, "one that holds out events", remedy)
        rows = split.sequence_targets(self.max_len)
        number = np.zeros(len(split.interactions) + 1, np.int64)  # of new events in front of each row
        number[is_new + 1] = 1
        number = np.cumsum(number)
        trained = np.minimum(split.interactions.position[rows], self.max_len)
        has_new = number[rows + 1] > number[rows + 1 - trained]
        return rows[has_new], rows[~has_new]

    def _read(self, events: Any) -> Interactions:
        if not isinstance(events, Interactions):
            _require_frame(events, ", or Interactions")
            side = [] if self.weight is None else [self.weight]
            kinds = {"kind": self.kind, "targets": self.targets}
            events = Interactions.from_frame(
                events, self.user, self.item, self.time, side, session=self.session, **kinds
            )
        for name, own in (("user", self.user), ("item", self.item)):
            if getattr(events, f"{name}_name") != own:
                raise problem(f"`{name}`", f"be {getattr(events, f'{name}_name')!r}, as in the events", repr(own))
        # Those of whom only features are known are behind those with events.
        ids = self._everyone(events, self._tables)
        self._check_ids(*ids.values())
        self._warn_of_unknown(events, self._tables["item"], np.arange(len(events)))
        features = self._tables["user"].by_id(ids["user"])
        return replace(events, user_ids=ids["user"], item_ids=ids["item"], user_features=features)

    def _everyone(self, events: Interactions, tables: Mapping[str, FeatureTable]) -> dict[str, IdMap]:
        """The maps of users and of items, with those of whom only features are known."""
        ids = {"user": events.user_ids, "item": events.item_ids}
        for side, table in tables.items():
            if table.owners is not None:
                what = f"column {getattr(self, side)!r} of `{side}_features`"
                check_same_kind(what, table.owners.values, ids[side], "as in the events")
                ids[side] = ids[side].extended(table.owners.values)
        return ids

    def _check_ids(self, user_ids: IdMap, item_ids: IdMap) -> None:
        """Refuses the empty text as an id, which stands for no item in an export and in padded lists."""
        for name, ids in ((self.user, user_ids), (self.item, item_ids)):
            if "" in ids:
                remedy = "Drop those rows, or give them an id."
                raise problem(f"column {name!r}", "hold ids that are not empty", "''", remedy)

    def _check_weights(self, events: Interactions, rows: np.ndarray) -> None:
        """Refuses events of which none counts in the loss."""
        if self.weight is not None and not events.side.get(self.weight, np.ones(len(events)))[rows].any():
            rule = "be above 0 in at least one event that is trained on"
            raise problem(f"column {self.weight!r}", rule, "0 in all of them")

    def _no_kinds(self, name: str, why: str) -> ValueError:
        """The error to raise of a builder that reads one history alone."""
        rule = f"be left out with {self._name}, which can't read a history for each kind of events"
        return problem("`kind`", rule, repr(name), why)

    def _zone(self, events: Any) -> bool | None:
        """Whether the times of a frame are in a time zone; None if that can't be told, as of numbers."""
        if self.time is None or isinstance(events, Interactions):
            return None
        column = columns_of("`events`", events, [self.time]).get(self.time)
        return None if column is None else has_zone(column)

    def _check_later(self, events: Any) -> None:
        """Refuses what is no frame, and times that can't be compared with those of `fit`."""
        _require_frame(events)
        now = self._zone(events)
        if now is None or self._has_zone is None or now == self._has_zone:
            return
        rule, got, remedy = "have a time zone", "times without one", "column.dt.tz_localize(zone) says which it is."
        if now:
            rule, got = "have no time zone", "times with one"
            remedy = "column.dt.tz_convert(zone).dt.tz_localize(None) makes local times of them."
        raise problem(f"column {self.time!r} of `events`", f"{rule}, as in the events of `fit`", got, remedy)

    def _warn_of_unknown(self, events: Interactions, table: FeatureTable, rows: np.ndarray) -> None:
        """Tells of items in some rows that have no features, where others have."""
        if not table.features:
            return
        items, counts = np.unique(events.items[rows], return_counts=True)
        without = ~table.known(events.item_ids)[items]
        if without.any():
            warn_caller(
                f"{int(without.sum())} of {len(items)} items of the events have no row in `item_features`, such as "
                f"{events.item_ids.decode(items[without][:1])[0]!r}, in {int(counts[without].sum())} events: they are "
                "known by their ids alone.",
                UserWarning,
            )

    def _columns(self, events: Interactions) -> tuple[list[Column], list[Column]]:
        """The model's columns: those that were given, and for the rest what their types say."""
        given = dict(self._given)
        size = events.item_vocabulary_size
        item = given.pop(self.item, SparseColumn(self.item, size, self._dim, embedding_name=self.item))
        if not isinstance(item, SparseColumn) or item.use_hash:
            raise problem("`columns`", f"have a SparseFeat without hashing as {self.item!r}", shown(item))
        self._dim = item.embedding_dim
        columns: list[Column] = []
        for name, history in zip(history_names(self.item, events), events.histories, strict=True):
            length = f"hist_len{history.suffix}"
            hist = given.pop(name, SequenceColumn(replace(item, name=name), self.max_len, "recency+last", length))
            if not isinstance(hist, SequenceColumn) or hist.maxlen != self.max_len:
                rule = f"have as {name!r} a VarLenSparseFeat with the maxlen of `max_len`, {self.max_len}"
                raise problem("`columns`", rule, shown(hist))
            columns.append(replace(hist, sparsefeat=_of_size(hist.sparsefeat, size), length_name=length))
        if self.user in given:
            columns.append(_of_size(given.pop(self.user), events.user_vocabulary_size))
        of_items = [_of_size(item, size), *self._tables["item"].columns()]
        columns += self._tables["user"].columns()
        if unknown := sorted(given.keys() - {column.name for column in [*columns, *of_items]}):
            raise problem("`columns`", "be of what the frames have", repr(unknown[0]))
        return columns, of_items

    def _tell(self, events: Interactions, columns: Sequence[Column]) -> None:
        of_events = {"user": np.unique(events.users).size, "item": np.unique(events.items).size}
        print(f"{len(events):,} events of {of_events['user']:,} users with {of_events['item']:,} items")
        more = {"user": events.num_users - of_events["user"], "item": events.num_items - of_events["item"]}
        if said := [f"{number:,} {side}{'s' * (number > 1)}" for side, number in more.items() if number]:
            print(f"without events: {' and '.join(said)}")
        for hist, _ in zip(columns, events.histories, strict=False):
            assert isinstance(hist, SequenceColumn)
            print(f'{hist.name}: the last {hist.maxlen} items, pooled by "{hist.combiner}"')
        for side in ("user", "item"):
            for line in self._lines[side]:
                print(f"{side} feature {line}")

    def _train(self, targets: np.ndarray, epochs: int, validated: bool, verbose: int) -> int:
        """Trains on some rows; returns the passes up to the best one."""
        watch = []
        if validated:
            rows = self._split.validation
            x = windows(self.interactions, rows, self.max_len)
            seen = seen_before(self.interactions, rows) if self.exclude_seen else None
            with own_words():
                watch = [
                    RetrievalMetrics(x, x[self.item], seen=seen, ns=[10], patience=_PATIENCE, restore_best_weights=True)
                ]
        events, seed = self.interactions, self.seed + len(self.history.get("loss", []))  # later passes: other orders
        size = self.batch_size
        if self.model.trains_every_position:
            of_rows = np.minimum(events.position[targets], self.max_len)
            size = max(1, round(size * len(targets) / int(np.sum(of_rows))))
        x = window_dataset(events, targets, self.max_len, size, weight=self.weight, seed=seed)
        done = self.model.fit(x, epochs=epochs, callbacks=watch, verbose="auto" if verbose == 1 else verbose)
        before = len(self.history.get("loss", []))
        for name in {**self.history, **done.history}:
            figures = self.history.get(name, [np.nan] * before)
            self.history[name] = [*figures, *done.history.get(name, [np.nan] * len(done.epoch))]
        best = watch[0].best_epoch if watch else None
        passes = len(done.epoch) if best is None else best + 1
        self._found = None
        if watch and verbose:
            more = ", the most that were allowed: more may be better" if best == epochs - 1 else ""
            print(f"best after {passes} epochs{more}; fit(events, epochs={passes}) learns from all events")
        return passes

    # Recommending.

    @property
    def _now(self) -> Snapshot:
        if self._found is None:
            self._found = Snapshot(self.model, self.interactions, self._split, self._tables, self.max_len)
        return self._found

    def _among(self, among: Any) -> np.ndarray:
        if among is None:
            return self._now.known_items
        raw = _raw_ids("`among`", among, self.item)
        if not raw.size:
            raise problem("`among`", "hold an item that can be recommended", "no item")
        ids = np.unique(_encoded("`among`", self.interactions.item_ids, raw))
        allowed = ids[self._now.is_known[ids]]
        if not len(allowed):
            raise problem("`among`", "hold an item that can be recommended", listing(raw))
        return allowed

    def recommend(
        self, user_ids: Any = None, n: int = 10, *, among: Any = None, exclude_seen: bool | None = None
    ) -> pd.DataFrame:
        """The best ``n`` items for each user, from all events so far.

        Args:
            user_ids: Raw user ids, in any order. None: all users who have events.
            n: How many items for each user.
            among: Raw ids of the items that may be recommended, such as those in stock; unknown ids are ignored. None:
                all items.
            exclude_seen: Whether items that the user had are left out. None: the recommender's own setting.

        Returns:
            A frame with a row for each recommendation, users in the order given, best first: user, item, ``score``,
            ``rank`` from 1, and ``based_on``: ``history``; ``features``, for users who have no events but a row in
            ``user_features``; or ``popularity``, for all others, whose score is the item's fraction of all events. A
            user for whom fewer than ``n`` items are left has fewer rows.

        Raises:
            ValueError: Ids are text where the events have integers or the reverse, or a mask or a frame; or no item of
                ``among`` is known.
        """
        model, events, now = self.model, self.interactions, self._now
        n, exclude_seen = positive_int("`n`", n), self._excludes(exclude_seen)
        allowed = self._among(among)
        if user_ids is None:
            user_ids = events.user_ids.decode(np.flatnonzero(now.has_events))
        raw = _raw_ids("`user_ids`", user_ids, self.user)
        users = _encoded("`user_ids`", events.user_ids, raw)
        based_on = np.select([now.has_events[users], now.has_features[users]], ["history", "features"], "popularity")
        n = min(n, len(allowed))
        ids, scores = np.zeros((len(raw), n), np.int64), np.full((len(raw), n), -np.inf, np.float64)
        popular = based_on == "popularity"
        if popular.any():
            ids[popular], scores[popular] = self._most_popular(allowed, n)
        rest = np.flatnonzero(~popular)
        for start in range(0, len(rest), _BLOCK):
            block = rest[start : start + _BLOCK]
            x = now.histories(users[block])
            seen = seen_by_users(events, users[block]) if exclude_seen else None
            ids[block], scores[block] = self._best(model.user_vectors(x), n, allowed, seen)
        lists, rows = self._lists(self.item, ids, scores)
        lists.insert(0, self.user, raw[rows])
        return lists.assign(based_on=based_on[rows])

    def similar_items(self, item_ids: Any, n: int = 10, *, among: Any = None) -> pd.DataFrame:
        """For each of some items, the ``n`` items whose vectors are nearest.

        Args:
            item_ids: Raw item ids.
            n, among: As in `recommend`.

        Returns:
            A frame with the columns item, ``similar_`` and the item's name, ``score`` (the cosine) and ``rank``.

        Raises:
            ValueError: An item is not known.
        """
        self._fitted()
        events, n, allowed = self.interactions, positive_int("`n`", n), self._among(among)
        raw = _raw_ids("`item_ids`", item_ids, self.item)
        items = _encoded("`item_ids`", events.item_ids, raw, unknown="error").astype(np.int64)
        n = min(n, len(allowed))
        itself = np.arange(len(items) + 1), items
        ids, scores = self._best(self._now.item_vectors[items], n, allowed, itself)
        lists, rows = self._lists(f"similar_{self.item}", ids, scores)
        lists.insert(0, self.item, raw[rows])
        return lists

    def _lists(self, name: str, ids: np.ndarray, scores: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """Lists (B, n) as a frame of raw ids, scores and ranks, and which list each line is of; 0 is no item."""
        rows, ranks = np.nonzero(ids)
        raw = self.interactions.item_ids.decode(ids[rows, ranks])
        return pd.DataFrame({name: raw, "score": scores[rows, ranks], "rank": ranks + 1}), rows

    def _best(
        self, vectors: np.ndarray, n: int, allowed: np.ndarray, seen: Seen | None
    ) -> tuple[np.ndarray, np.ndarray]:
        return top_n(vectors, self._now.item_vectors, n, among=allowed, exclude=seen)

    def _most_popular(self, allowed: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        counts = self._now.item_counts
        best = allowed[np.argsort(-counts[allowed], kind="stable")][:n]
        return best, counts[best] / counts.sum()

    # What it is worth.

    def evaluate(
        self, events: Any = None, *, ns: Sequence[int] = (10, 50), exclude_seen: bool | None = None, verbose: int = 1
    ) -> pd.DataFrame:
        """How well the model predicts the held-out events, beside popularity and other recommenders.

        The item of each event is ranked among all items, by what its user did before it. Popularity and a first-order
        Markov chain are always there for comparison. Item-kNN and ALS are there if ``implicit`` is installed, with
        settings that were not tuned to these data. They read the same histories as the model, those of new users, too,
        and the chain leads from a history's last event, of any kind. Without a history, they rank by popularity.

        Args:
            events: Events that are later than those of `fit` and `update`, in a table of the same columns. A new item
                counts as missed. None: what `fit` held out for the test, or else for validation, whose figures are a
                little high because they decided when to stop.
            ns: The lengths of the lists.
            exclude_seen: Whether items that the user had before are left out of the ranking, as `recommend` does. None:
                the recommender's own setting.
            verbose: 0 prints nothing.

        Returns:
            A frame with a row for each recommender and a column for each of ``HR@10``, ``NDCG@10`` and so on.

        Raises:
            ValueError: No events were given, and `fit` held none out.

        Warns:
            UserWarning: Some of ``events`` are known to the model already, or are earlier than the last known one.
        """
        verbose = _as_verbosity(verbose)
        judged = self._judged(events)
        with own_words():
            ranks = ranks_of_all(self, judged, self._excludes(exclude_seen))
        figures = {name: ranking_metrics(of_events, ns) for name, of_events in ranks.items()}
        if verbose:
            shown_first = [f"{metric}@{n}" for n in ns for metric in ("HR", "NDCG")]
            print(format_table(figures, shown_first))
            print(f"{judged.note} ({len(judged.rows):,} events)")
            if not has_implicit():
                print("item-kNN and ALS beside them: pip install implicit")
        return pd.DataFrame.from_dict(figures, orient="index")

    def report(self, path: str | os.PathLike[str], events: Any = None, *, exclude_seen: bool | None = None) -> None:
        """Writes figures and pictures of the events that `evaluate` ranks into one HTML file: see `write_report`.

        Args:
            path: The file, ``.html``.
            events, exclude_seen: As in `evaluate`.

        Raises:
            ImportError: matplotlib or Jinja2 is not installed.
            ValueError: No events were given, and `fit` held none out; or the file can't be written there.
        """
        judged, exclude_seen = self._judged(events), self._excludes(exclude_seen)
        size, items = judged.interactions.item_vocabulary_size, self._now.item_vectors
        with own_words():
            ranks = ranks_of_all(self, judged, exclude_seen)
            ranks.pop(self._name)
            write_report(
                path,
                judged.user_vectors,
                np.concatenate([items, np.zeros((size - len(items), items.shape[1]), np.float32)]),
                judged.targets,
                seen=seen_before(judged.interactions, judged.rows) if exclude_seen else None,
                history=self.history,
                ranks=ranks,
                item_count=judged.interactions.item_counts(judged.known),
                settings={"model": self._name, "events": judged.note},
                title=f"{self._name} on {len(judged.interactions):,} events",
                name=self._name,
            )

    def _judged(self, events: Any) -> Judged:
        self._fitted()
        if events is not None:
            self._check_later(events)
        return judged_events(self, events)

    def _excludes(self, exclude_seen: bool | None) -> bool:
        return self.exclude_seen if exclude_seen is None else as_flag("`exclude_seen`", exclude_seen)

    @property
    def _name(self) -> str:
        return str(getattr(self._builder, "__name__", "model"))

    # Files.

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes everything into a folder: the model with its optimizer, events, id maps, features, settings.

        A folder that already holds a recommender is replaced in one step. `load` reads it, and `update` continues.
        After `load`, `fit` makes the same kind of model as before, with the arguments, columns and optimizer given.

        Args:
            folder: The folder, which is created.

        Raises:
            ValueError: The folder holds something else, or the model can't be saved, such as one whose builder is a
                lambda or a `functools.partial`, or whose optimizer is of a class that is not registered with Keras;
                nothing is written then.
        """
        self._fitted()
        write_recommender(folder, self)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Recommender:
        """Reads a recommender that `save` wrote.

        Args:
            folder: The folder.

        Raises:
            ValueError: The folder does not hold a recommender, is damaged, or its builder is one of your own that is
                not imported; the message names its module.
        """
        recommender = object.__new__(cls)
        recommender.__dict__.update(read_recommender(folder), _found=None)
        return recommender

    def export(self, folder: str | os.PathLike[str], **options: Any) -> Path:
        """Writes a SavedModel that recommends without this package, as a new version in ``folder``.

        It reads raw values, as the frames of events and features hold them: item ids, categories and numbers. It
        standardises the numbers itself; NaN, a missing one, counts as the mean. Booleans are 1 and 0.

        Args:
            folder: The folder of the versions, which is created if necessary.
            options: Further arguments of `export_recommender`, such as ``vector_dtype``.

        Returns:
            The new version's folder.
        """
        self._fitted()
        known, events = self._now.known_items, self.interactions
        maps = {**dict.fromkeys(history_names(self.item, events), events.item_ids), self.user: events.user_ids}
        features = self._tables["user"].features
        maps |= {each.name: each.ids for each in features if each.ids is not None}
        scaling = {each.name: (each.mean, each.deviation) for each in features if each.ids is None}
        read = {column.name for column in self.model.user_columns}
        return export_recommender(
            self.model,
            folder,
            item_ids=events.item_ids.decode(known),
            item_vectors=self._now.item_vectors[known],
            id_maps={name: ids for name, ids in maps.items() if name in read},
            scaling={name: pair for name, pair in scaling.items() if name in read},
            **options,
        )


def _raw_ids(what: str, values: Any, name: str) -> np.ndarray:
    """The raw ids that an argument holds, (n,).

    Args:
        what: The argument's name, for error messages.
        values: One id or several.
        name: The column of such ids in the events.
    """
    if is_frame(values) and hasattr(values, "columns"):  # a column of pandas or polars has Arrow's streams, too
        raise problem(what, "be raw ids", f"a {type(values).__name__}", f"Give its column: frame[{name!r}].")
    raw = as_array(values).ravel()
    if pd.api.types.infer_dtype(raw, skipna=True) == "boolean":
        raise problem(what, "be raw ids", "booleans", "Give the ids that a mask selects: ids[mask].")
    return raw


def _encoded(what: str, ids: IdMap, raw: np.ndarray, **options: Any) -> np.ndarray:
    """Ids of an argument's raw values, with its name in what is refused."""
    try:
        return ids.encode(raw, **options)
    except ValueError as error:
        raise ValueError(re.sub(r"^`?values`? ", f"{what} ", str(error))) from None


def _require_frame(events: Any, more: str = "") -> None:
    if not is_frame(events):
        raise problem("`events`", f"be {FRAMES}{more}", shown(events), "pd.read_csv(path) reads a file.")


def _as_verbosity(verbose: Any) -> int:
    """0, 1 or 2, as Keras means them; "auto" is 1."""
    if isinstance(verbose, str) and verbose == "auto":
        return 1
    if not isinstance(verbose, bool | int | np.bool_ | np.integer) or verbose not in (0, 1, 2):
        raise problem("`verbose`", "be True, False, 0, 1 or 2", shown(verbose))
    return int(verbose)


class own_words:  # used as a function
    """Tells of held-out events whose items the user had before in the terms of `Recommender`."""

    def __enter__(self) -> None:
        self._catching = warnings.catch_warnings(record=True)
        self._caught: Any = self._catching.__enter__()
        warnings.simplefilter("always", SeenTargetsWarning)

    def __exit__(self, *error: Any) -> None:
        self._catching.__exit__(*error)
        told = set()  # each part of the work finds the same ones
        for each in self._caught:
            if not issubclass(each.category, SeenTargetsWarning):
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
                continue
            number = str(each.message).partition(" targets")[0]
            if number in told:
                continue
            told.add(number)
            warn_caller(
                f"{number} held-out events are of items that the user had before, which are not recommended and so are "
                "missed. Where things are taken again: Recommender(..., exclude_seen=False).",
                SeenTargetsWarning,
            )


def _warn_of_one_time(events: Interactions) -> None:
    """Tells of events whose times say nothing of their order."""
    times = events.times
    if times is not None and (times == times[0]).all():
        warn_caller(
            f"All {len(events):,} events have the same time, {times[0]}, so a user's events are in the order of the "
            "table's rows: are their times read right? If the rows are in the order of time: time=None.",
            UserWarning,
        )


def _split(interactions: Interactions, validation: Any, test: Any) -> Split:
    """What `Recommender.fit` holds out."""
    given = [each for each in (validation, test) if each is not None]
    by_last = [isinstance(each, str) and each == LAST for each in given]
    for name, each in (("validation", validation), ("test", test)):
        if isinstance(each, str) and each != LAST and not each[:1].isdigit():
            raise problem(f"`{name}`", f'be "{LAST}" or a moment', repr(each))
    if any(by_last) and not all(by_last):
        raise problem("`validation` and `test`", f'both be "{LAST}" or moments', f"{shown(validation)}, {shown(test)}")
    none = np.empty(0, np.int64)
    every = np.flatnonzero(interactions.is_target)
    if not given:
        return Split(interactions, every, none, none)
    if all(by_last):
        split = leave_last_out(interactions)
        if len(given) == 2:
            return split
        train = np.setdiff1d(every, split.test, assume_unique=True)
        held_out = {"validation": none, "test": none, "validation" if test is None else "test": split.test}
        return Split(interactions, train, **held_out)
    if len(given) == 2:
        return split_by_time(interactions, validation, test)
    what = "validation" if test is None else "test"
    if interactions.times is None:
        raise problem(f"`{what}`", f'be "{LAST}" where events have no times', shown(given[0]))
    is_later = interactions.times >= moment(f"`{what}`", given[0], interactions.times)
    if is_later.all() or not is_later.any():
        raise problem(f"`{what}`", "have events on both sides", f"{given[0]!r}")
    held_out = {"validation": none, "test": none, what: every[is_later[every]]}
    return Split(interactions, every[~is_later[every]], **held_out)


def _of_size(column: Any, size: int) -> Any:
    """The column with at least ``size`` rows."""
    return replace(column, vocabulary_size=max(size, column.vocabulary_size))


def _padded(arrays: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Values by id with rows to spare, (size, ...)."""
    padded = {}
    for name, values in arrays.items():
        spare = np.zeros((size - len(values), *values.shape[1:]), values.dtype)
        padded[name] = np.concatenate([values, spare]) if len(spare) else values
    return padded
