"""From a table of events to recommendations in your own ids, today and tomorrow."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmatch_ext._checks import as_flag, as_text, int_at_least, number_between, positive_int, problem, shown
from deepmatch_ext.data import Split
from deepmatch_ext.data.kinds import as_targets
from deepmatch_ext.features import Column, read_columns
from deepmatch_ext.models import RetrievalModel, YoutubeDNN
from deepmatch_ext.recommender.building import built, columns_of_model, tell, tower
from deepmatch_ext.recommender.days import Day, names_of_events
from deepmatch_ext.recommender.exported import exported
from deepmatch_ext.recommender.features import FeatureTable
from deepmatch_ext.recommender.files import check_restored, read_recommender, write_recommender
from deepmatch_ext.recommender.held_out import split_of
from deepmatch_ext.recommender.judged import Judged, figures_of, judged_events, report_of
from deepmatch_ext.recommender.lists import check_columns, recommended, similar
from deepmatch_ext.recommender.reading import (
    check_later,
    check_weights,
    read_events,
    warn_of_one_time,
    warn_of_repeated,
    warn_of_unknown,
)
from deepmatch_ext.recommender.snapshot import Snapshot
from deepmatch_ext.recommender.training import trained
from deepmatch_ext.recommender.updating import grown, targets_of_update
from deepmatch_ext.samplers import make_sampler


class Recommender:
    """Trains a model on a table of events and recommends in the table's own ids.

    Each method combines other parts of the package in a few lines. Use these parts directly for what this object does
    not offer: `Interactions`, `windows`, the model (`model`), `evaluate`, the indexes, `export_recommender`.

    Args:
        model: A builder of a model that trains without labels, such as `YoutubeDNN`, `ComiRec` or `DSSM`. A
            `YoutubeDNN` gets deep layers where there are at least 100 events for each item and ten for each weight of
            the layers; `fit` says so.
        user_features: A frame with one row for each user and the column ``user``. It may have users who have no events
            yet. Text, booleans and columns of pandas' type "category" are read as categories, and so are whole numbers
            with at most 50 different values, also if gaps have made floats of them; other floats and whole numbers are
            read as numbers, and lists as lists of categories. `fit` prints what it made of each column.
        item_features: The same for items, with the column ``item``.
        columns: DeepCTR columns that replace those of the same names, for data to be read in another way than its type
            suggests. Numbers are standardised, unless their column has a ``transform_fn``. The name of the history is
            ``hist_`` and the item's name. A column with the user's name gives each user an embedding.
        user, item, time: Names of columns of the events' table. ``time=None``: its rows are in chronological order.
            ``user`` and ``item`` can't be ``score``, ``rank`` or ``based_on``, which are columns of recommendations.
        max_len: How many of a user's last items the model reads.
        embedding_dim: The size of the items' vectors.
        optimizer: A Keras optimizer. None: ``LazyAdam(1e-3)``.
        batch_size: The number of events in a training step; approximate if the model trains every position of its rows.
        seed: The seed of all random numbers.
        kind, targets: The column of kinds of events, such as clicks and purchases, and the kinds that are to be
            predicted. Each kind has a history of its own: see `Interactions.from_frame`.
        weight: The column of numbers that say how much each event counts in the loss.
        session: The column of sessions, if events come in sessions.
        exclude_seen: Whether items that the user had are left out of recommendations, validation and tests. Give False
            if users take the same items again.
        arguments: Further arguments of the builder, such as ``sampler_config`` or ``temperature``.

    Attributes:
        model: The trained `RetrievalModel`.
        interactions: All events so far. Their ``user_ids`` and ``item_ids`` are the maps to raw ids.
        user_columns, item_columns: The columns that the model was built with.
        history: What Keras's ``fit`` has recorded: name -> a value for each pass of `fit` and for each `update`.
        epochs: The number of passes that `fit` made, up to the best one.

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
        self.kind = None if kind is None else as_text("`kind`", kind)
        self.targets = None if targets is None else as_targets(targets)
        self.exclude_seen = as_flag("`exclude_seen`", exclude_seen)
        check_columns(self)
        known = inspect.signature(model).parameters
        if unknown := [name for name in arguments if name not in known]:
            what = getattr(model, "__name__", "the builder")
            raise TypeError(
                f"Recommender() got an unexpected argument {unknown[0]!r}, which {what} does not have either"
            )
        for name in ("history_times", "request_time"):
            if arguments.get(name) is not None:
                rule = "be left out of a Recommender, which makes no columns of times"
                raise problem(f"`{name}`", rule, shown(arguments[name]), "`windows(..., times=True)` does.")
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
        self.epochs = self._learnt_since = 0
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

    def __repr__(self) -> str:
        events = "not fitted" if self._model is None else f"{len(self.interactions):,} events"
        return f"Recommender({self._builder.__name__}, user={self.user!r}, item={self.item!r}: {events})"

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
        """Trains on a table of events, one per row, in any order.

        Args:
            events: A pandas or polars DataFrame or an Arrow table with the columns ``user``, ``item`` and ``time``; or
                `Interactions`.
            validation: What is held out to decide when to stop: ``"last"`` for each user's last event, or a time for
                all events from then on; of events in a time zone, a time without one is in UTC. None: training takes
                ``epochs`` passes over all events.
            test: What is held out for `evaluate`, given in the same way. If both are ``"last"``, a user's last event is
                for the test and the one before it for validation; a time must be later than that of ``validation``.
            epochs: Passes over the events, at most. None: 10, or 30 with ``validation``. With ``validation``, the best
                pass is kept, and training stops after five passes without improvement.
            verbose: 0 prints nothing. 1 prints what was made of the columns and shows a progress bar; if the output is
                not a terminal or notebook, it prints a line for each epoch, as 2 always does.

        Returns:
            The recommender itself.

        Raises:
            ValueError: The table or an argument can't be used; the message says what to do. Or the recommender was
                loaded, and had counts for its sampler or a pretrained table, which `save` leaves out.

        Warns:
            UserWarning: An item or a user has no features where others have, all events have the same time, or some are
                in the table twice: of the same user, item, time and kind.
        """
        epochs = (10 if validation is None else 30) if epochs is None else positive_int("`epochs`", epochs)
        verbose = _as_verbosity(verbose)
        check_restored(self._arguments, self._given.values())
        interactions = read_events(self, events)
        split = split_of(interactions, validation, test)
        if not len(split.train_targets()):
            raise problem("`events`", "have a user with two events to train on", "none")
        check_weights(interactions, self.weight, split.train_targets())
        warn_of_one_time(interactions)
        warn_of_repeated(interactions, names_of_events(self))
        user_columns, item_columns = columns_of_model(self, interactions)
        self._dim = item_columns[0].embedding_dim  # type: ignore[union-attr]
        layers = tower(self, interactions, user_columns)
        if verbose:
            tell(interactions, user_columns, self._lines, layers)
        model = built(self, interactions, user_columns, item_columns, layers)
        targets = split.sequence_targets(self.max_len) if model.trains_every_position else split.train_targets()
        self.history, self.epochs, self._learnt_since = {}, 0, 0
        self._go_on_with(model, split)
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

        New items start from their features or, without any, near the items around them in histories
        (`deepmatch_ext.data.neighbours`). What `fit` held out stays held out.

        Args:
            events: A table with the same columns as that of `fit`. If events have times, rows may be in any order.
            user_features, item_features: Features of new users and items, and of others that have changed, in frames
                whose columns have the names and the types of the first ones; integers are accepted where floats were.
            sampler_config: A sampler whose counts include the new items, if the model's sampler has counts.
            epochs: Passes over the new events. 0 trains nothing: histories get longer and new items get their first
                vectors, in seconds.
            replay: How many old events are trained on for each new one, so that the model does not forget. They are
                drawn at random, separately for each pass.
            verbose: As in `fit`.

        Returns:
            The recommender itself. If an argument raises an error, the recommender is unchanged.

        Raises:
            ValueError: The recommender is not fitted, or a table can't be used, such as one with text in a column of
                numbers, with times in a time zone where those of `fit` had none, or with weights that are all 0; or the
                model trains every position, and `fit` held out events.

        Warns:
            UserWarning: An item or a user of the events has no features where others have, a frame of features has a
                column that the first one did not have, some events are already known, or all events are earlier than
                the last known one.
        """
        self._fitted()
        verbose = _as_verbosity(verbose)
        check_later(self, events)
        sampler_config = None if sampler_config is None else make_sampler(sampler_config)
        epochs, replay = int_at_least("`epochs`", epochs, 0), number_between("`replay`", replay, 0, float("inf"))
        tables = {
            "user": self._tables["user"].extended("`user_features`", user_features, self.user),
            "item": self._tables["item"].extended("`item_features`", item_features, self.item),
        }
        larger, split, is_new = grown(self, events, tables, sampler_config)
        interactions = split.interactions
        learnt = is_new[interactions.is_target[is_new]]
        targets, old = targets_of_update(larger, split, learnt, self.max_len) if epochs else (learnt[:0], learnt[:0])
        if len(targets):
            check_weights(interactions, self.weight, targets, "update(events, epochs=0) trains on none of them.")
        # From here on nothing is refused.
        warn_of_unknown(interactions, tables, is_new)
        Day.among(interactions, is_new).warn_of_update()
        self._tables = tables
        self._go_on_with(larger, split)
        drawn = min(len(old), round(replay * epochs * len(targets)))
        chosen = np.random.default_rng([self.seed, len(interactions)]).choice(old, drawn, replace=False)
        if len(targets) and epochs:
            self._learnt_since += len(learnt)
            # All passes shuffled into one, since each has old events of its own.
            self._train(np.sort(np.concatenate([np.repeat(targets, epochs), chosen])), 1, False, verbose)
        return self

    def _go_on_with(self, model: RetrievalModel, split: Split) -> None:
        self._model, self._split, self.interactions, self._found = model, split, split.interactions, None

    def _train(self, targets: np.ndarray, epochs: int, validated: bool, verbose: int) -> int:
        """Trains on some rows; returns the passes up to the best one."""
        passes, self.history = trained(self, targets, epochs, validated, verbose)
        self._found = None
        return passes

    # Recommending.

    @property
    def _now(self) -> Snapshot:
        if self._found is None:
            self._found = Snapshot(self.model, self.interactions, self._split, self._tables, self.max_len)
        return self._found

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
            ``user_features``; or ``popularity``, for all others, whose scores are the items' fractions of all events. A
            user for whom fewer than ``n`` items are left has fewer rows.

        Raises:
            ValueError: Ids are text where the events have integers or the reverse, are missing (None, NaN), or are
                given as a mask, a frame or lists in a list; or no item of ``among`` is known.
        """
        self._fitted()
        return recommended(self, user_ids, positive_int("`n`", n), among, self._excludes(exclude_seen))

    def similar_items(self, item_ids: Any, n: int = 10, *, among: Any = None) -> pd.DataFrame:
        """The ``n`` items whose vectors are nearest to that of each given item.

        Args:
            item_ids: Raw item ids.
            n, among: As in `recommend`.

        Returns:
            A frame with the columns item, ``similar_`` and the item's name, ``score`` (the cosine) and ``rank``.

        Raises:
            ValueError: An item is not known, or has neither features nor an event that was trained on; or ids are not
                given as in `recommend`.
        """
        self._fitted()
        return similar(self, item_ids, positive_int("`n`", n), among)

    # Evaluation.

    def evaluate(
        self, events: Any = None, *, ns: Sequence[int] = (10, 50), exclude_seen: bool | None = None, verbose: int = 1
    ) -> pd.DataFrame:
        """How well the model predicts the held-out events, compared with popularity and other recommenders.

        The item of each event is ranked among all items, given what its user did before it. Popularity and a
        first-order Markov chain are always included for comparison. Item-kNN and ALS are included if ``implicit`` is
        installed, with settings that are not tuned to these data. They read the same histories as the model, including
        those of new users, and the chain starts from a history's last event, of any kind. Without a history, they rank
        by popularity. The model then ranks by the user's features or, without any, by an empty history; a printed line
        counts the events of users who have neither. `recommend` gives those users popular items, so for them the
        figures are not those of its lists.

        Args:
            events: Events that are later than those of `fit` and `update`, in a table of the same columns. An item
                that is new to a recommender counts as missed by it. None: what `fit` held out for the test, or else for
                validation, whose figures are a little high because they decided when to stop.
            ns: The lengths of the lists.
            exclude_seen: Whether items that the user had before are left out of the ranking, as `recommend` does. None:
                the recommender's own setting.
            verbose: 0 prints nothing.

        Returns:
            A frame with a row for each recommender and a column for each of ``HR@10``, ``NDCG@10`` and so on.

        Raises:
            ValueError: No events were given, and `fit` held none out.

        Warns:
            UserWarning: Some of ``events`` are known to the model already, are given twice, or are earlier than the
                last known one; or none were given, and `update` has learnt from events since `fit` held some out.
        """
        verbose = _as_verbosity(verbose)
        judged = self._judged(events)
        figures = figures_of(self, judged, ns, self._excludes(exclude_seen), bool(verbose))
        return pd.DataFrame.from_dict(figures, orient="index")

    def report(self, path: str | os.PathLike[str], events: Any = None, *, exclude_seen: bool | None = None) -> None:
        """Writes an HTML file with figures and pictures for the events that `evaluate` ranks: see `write_report`.

        Args:
            path: The file, ``.html``.
            events, exclude_seen: As in `evaluate`.

        Raises:
            ImportError: matplotlib or Jinja2 is not installed.
            ValueError: No events were given, and `fit` held none out; or the file can't be written there.
        """
        report_of(self, path, self._judged(events), self._excludes(exclude_seen))

    def _judged(self, events: Any) -> Judged:
        self._fitted()
        if events is not None:
            check_later(self, events)
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
        After `load`, `fit` makes the same kind of model as before, with the arguments, columns and optimizer that were
        given.

        Args:
            folder: The folder, which is created.

        Raises:
            ValueError: The folder holds something else, or another process or thread is saving to it; or the model
                can't be saved, such as one whose builder is a lambda or a `functools.partial`, or whose optimizer is of
                a class that is not registered with Keras. Nothing is written then.
        """
        self._fitted()
        write_recommender(folder, self)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Recommender:
        """Reads a recommender that `save` wrote.

        Args:
            folder: The folder.

        Raises:
            ValueError: The folder does not hold a recommender, is damaged, or its builder is a custom one that is not
                imported; the message names the builder's module.
        """
        recommender = object.__new__(cls)
        recommender.__dict__.update(read_recommender(folder), _found=None)
        return recommender

    def export(self, folder: str | os.PathLike[str], **options: Any) -> Path:
        """Writes a SavedModel that recommends without this package, as a new version in ``folder``.

        It reads raw values, as the frames of events and features hold them: item ids, categories and numbers. It
        standardises the numbers itself; NaN, a missing number, counts as the mean, but is refused where the column has
        a ``transform_fn``, which reads numbers as they are. Booleans are 1 and 0.

        Args:
            folder: The folder of the versions, which is created if necessary.
            options: Further arguments of `export_recommender`, such as ``vector_dtype``.

        Returns:
            The new version's folder.
        """
        self._fitted()
        return exported(self, folder, **options)


def _as_verbosity(verbose: Any) -> int:
    """0, 1 or 2, as Keras means them; "auto" is 1."""
    if isinstance(verbose, str) and verbose == "auto":
        return 1
    if not isinstance(verbose, bool | int | np.bool_ | np.integer) or verbose not in (0, 1, 2):
        raise problem("`verbose`", "be True, False, 0, 1 or 2", shown(verbose))
    return int(verbose)
