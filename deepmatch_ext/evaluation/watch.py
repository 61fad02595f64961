"""Watching the training: a look at the vectors after every epoch, and a warning in words when something collapses."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from deepmatch_ext._arrays import Seen, check_ids, check_seen, seen_pairs, seen_rows
from deepmatch_ext._checks import int_at_least, one_of, positive_int, problem
from deepmatch_ext._frames import arrays_of
from deepmatch_ext._keras import is_table, keras, raw_variable, require_eager
from deepmatch_ext.evaluation.baselines import Popularity, check_item_counts
from deepmatch_ext.evaluation.collapse import (
    coverage,
    full_cross_entropy,
    highest_temperature,
    likeness,
    lowest_loss,
    popular_share,
    sample_rows,
)
from deepmatch_ext.evaluation.metrics import (
    NAME_FORMAT,
    SEEN_TARGETS,
    check_name_format,
    check_seen_targets,
    in_seen,
    ranking_metrics,
    ranks_of,
)
from deepmatch_ext.retrieval.top_n import top_n

# Where warnings begin. "Healthy": runs on ml-100k, ml-1m, Amazon Beauty and synthetic_interactions that ended with a
# good ranking: uniform, frequency and in-batch samplers, temperatures 0.02 to 0.5, vectors of size 8, 16 and 64.
# They all learn popularity first, and look collapsed during their first 100 to 400 steps of Adam: hence `patience`.
_MAX_CORRELATION = 0.98  # healthy: up to 0.999 in those steps, below 0.9 after them
_MIN_RANK = 1.1  # one direction has 95% of the variance; healthy: 1.3 to 2 while the first tastes come up, then 2 to 30
_MAX_ROW_SIZE = (
    10.0  # healthy: below 0.25. Rows start at 0.05 at most; at 10, a step of Adam turns them by a 200th of that
)
# CLIP (Radford et al., 2021) clips 1 / temperature at 100. HR@10 on synthetic data after 720 steps, at temperatures
# 0.1, 0.02, 0.01, 0.005 and 0.002: 0.22, 0.19, 0.17, 0.10 and 0.08, with 0.09 for popularity.
_MAX_LOGIT = 100.0
_MAX_FIRST = 0.9  # share of unseen targets ranked first; healthy: below 0.1
_MIN_LOSS = 0.05  # exp(-0.05) = 0.95 is then the target's probability among a step's candidates; healthy: loss above 2
_MIN_CANDIDATES = 20  # S of them and a loss L leave up to L / (S log 2) of the items above the target: with one, 7%
_MAX_ZEROS = 0.01
_MIN_STEPS = 30  # before that, mixed precision may have skipped every step to find its loss scale
_MANY_ITEMS, _MANY_USERS = 100, 30  # with fewer, a perfect ranking means little

_MAX_SCORES = 2**28  # pairs of user and item that a look scores, in blocks of
_BLOCK_SCORES = 2**24
_MAX_ROWS = 1000  # rows of each embedding table that are compared with what they were

# Which values of the figures are farther from what is warned of.
_MODES = {
    **dict.fromkeys(["score_correlation", "user_cosine", "row_size", "popular_share", "cross_entropy"], "min"),
    **dict.fromkeys(["user_rank", "coverage", "rows_changed", "percentile"], "max"),
}

Finding = tuple[str, str]  # the name of what was found, and the text of the warning


class CollapseWarning(UserWarning):
    """Training goes wrong in a way that the loss alone doesn't show.

    ``warnings.simplefilter("error", CollapseWarning)`` stops the training there.
    """


class TrainingWatch(keras.callbacks.Callback):
    """Looks at the vectors of some users after every epoch, and warns in words when something has collapsed.

    Each `CollapseWarning` comes once. With user inputs alone, the watch tells when

    - all users get the same scores, or their vectors differ along one direction only;
    - vectors are NaN or of length zero, or rows of embedding tables grow out of bounds;
    - an embedding table that should be trained has not changed (frozen tables are left alone);
    - the temperature doesn't suit vectors of length one, or the training loss is too low to be true.

    With `targets` it tells when the ranking is no better than chance, or too good to be true, and when the inputs hold
    the target; with `item_count` when the lists are those of a popularity recommender; with both when the ranking is
    no better than popularity's. The training goes on as it would without the watch, bit by bit.

    Args:
        user_input: The model's user inputs, of held-out events where there are `targets`: B rows of anything that
            `user_vectors` takes by name, a dictionary of arrays or lists or a frame. A few hundred rows will do.
        targets: (B,) the item ids of these held-out events.
        item_count: (V,) how often each item occurs in the training data.
        seen: The items that each row has had before and that are not recommended, ``(indptr (B + 1,), items)``:
            `deepmatch_ext.data.seen_before` makes them. Where the product recommends items again, leave it out.
        seen_targets: What a target counts as that is in its own row's `seen`: "miss", a miss at every N, as it is
            served; or "leave_out", the row is not looked at.
        n: The length of the lists.
        num_users: How many of the rows to look at. Above 250,000 items there are fewer, so that a look scores at most
            2^28 pairs of user and item: measured on two cores, it takes 0.4 s with 10,000 items, 3 s with 100,000 and
            7 s with 1,000,000.
        patience: For how many training steps (not epochs) vectors, lists and ranking may look collapsed: healthy ones
            do at first, since popularity is learnt first.
        batch_size: Users encoded at a time.
        name_format: How the hit rates are named. Experiment trackers that refuse ``@`` take ``"{metric}_at_{n}"``.

    Attributes:
        figure_modes: The figures' names in the logs, each with ``"max"`` or ``"min"``: which values are farther from
            what the watch warns of. Callbacks behind this one that monitor a figure go by it.
        history: name -> the figure after each epoch. Keras's logs have them too, as ``watch_<name>``:

            - ``score_correlation``, ``user_cosine``, ``user_rank``: as in `deepmatch_ext.evaluation.likeness`.
            - ``coverage``: the different items in the lists, as a share of those that there is room for.
            - ``row_size``: of the rows of embedding tables, the root mean square of their entries; the 99th largest in
              100, of the table where it is largest.
            - ``rows_changed``: the share of an embedding table's rows that have changed; of the table where it is
              smallest.
            - ``popular_share``: the share of the lists that a popularity recommender would have made too.
            - ``percentile``: the share of the other items that rank below the target; 0.5 by chance. Only of
              targets that are not in `seen`; NaN if there are none.
            - ``HR@1``, ``HR@<n>``: the share of the targets in the first place, and in the first n.
            - ``cross_entropy``: of the targets, over all items; log(V - 1) for one who knows nothing. With the softmax
              loss only.
        warned: name -> the text of each warning so far.

    Raises:
        ValueError: The arrays don't fit each other, or fewer than two rows remain; when training begins: they don't fit
            the model.

    Warns:
        SeenTargetsWarning: Some targets are in their own row's `seen`. Told once, here.

    Example:
        >>> import warnings
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext import YoutubeDNN
        >>> from deepmatch_ext.utils import sampledsoftmaxloss
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, "mean", "len")
        >>> model = YoutubeDNN([history], [SparseFeat("item", 50, 8)], temperature=3.0)
        >>> model.compile("adam", sampledsoftmaxloss)
        >>> user = {"hist_item": np.array([[3, 2, 0, 0, 0], [4, 0, 0, 0, 0]]), "len": np.array([2, 1])}
        >>> watch = TrainingWatch(user)
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", CollapseWarning)
        ...     _ = model.fit({**user, "item": np.array([4, 5])}, verbose=0, callbacks=[watch])
        >>> watch.warned["temperature_too_high"][:45]
        'The temperature, 3, is too high for 49 items:'
        >>> sorted(watch.history)
        ['coverage', 'row_size', 'rows_changed', 'score_correlation', 'user_cosine', 'user_rank']
    """

    def __init__(
        self,
        user_input: Any,
        targets: Any = None,
        *,
        item_count: Any = None,
        seen: Seen | None = None,
        seen_targets: str = "miss",
        n: int = 10,
        num_users: int = 1000,
        patience: int = 500,
        batch_size: int = 4096,
        name_format: str = NAME_FORMAT,
    ) -> None:
        require_eager(type(self).__name__)
        super().__init__()
        arrays = arrays_of("`user_input`", user_input)
        lengths = {name: len(values) for name, values in arrays.items()}
        if len(set(lengths.values())) != 1 or min(lengths.values()) < 2:
            raise problem("`user_input`", "have the same number of rows in every array, at least 2", f"{lengths}")
        length = next(iter(lengths.values()))
        num_users = int_at_least("`num_users`", num_users, 2)
        targets = None if targets is None else check_ids("`targets`", targets, 1, length=length)
        seen = None if seen is None else check_seen("`seen`", seen, length)
        kept = np.arange(length)
        if targets is None:
            one_of("`seen_targets`", seen_targets, SEEN_TARGETS)
        else:
            held = check_seen_targets(targets, seen, seen_targets)
            kept = np.flatnonzero(~held) if seen_targets == "leave_out" else kept
            if len(kept) < 2:
                rule = "have at least 2 that are not in `seen` where seen_targets='leave_out'"
                raise problem("`targets`", rule, f"{len(kept)} of {length}")
        rows = kept[sample_rows(len(kept), num_users)]
        self.user_input = {name: values[rows] for name, values in arrays.items()}
        self.targets = None if targets is None else targets[rows]
        self.seen = None if seen is None else seen_rows(seen, rows)
        self.popularity = None if item_count is None else Popularity(check_item_counts("`item_count`", item_count))
        self.n = positive_int("`n`", n)
        self.patience = int_at_least("`patience`", patience, 0)
        self.batch_size = positive_int("`batch_size`", batch_size)
        hits = {f"HR@{k}": check_name_format(name_format).format(metric="HR", n=k) for k in (1, self.n)}
        self._names = {**dict(zip(_MODES, _MODES, strict=True)), **hits}
        self.figure_modes = {f"watch_{name}": _MODES.get(figure, "max") for figure, name in self._names.items()}
        self.history: dict[str, list[float]] = {}
        self.warned: dict[str, str] = {}
        self._look: _Look | None = None
        self._absent_at: dict[str, int] = {}  # the step at which a collapse was last not there
        self._steps = self._iterations = 0

    def on_train_begin(self, logs: Any = None) -> None:
        if self._look is not None and self._look.model is self.model:
            return  # the same training goes on, in another call of `fit`
        self._look = _Look(self, self.model)
        self.history = {self._names[figure]: [] for figure in self._look.names}
        self.warned, self._absent_at, self._steps = {}, {}, 0
        self._warn(_of_temperature(self._look))
        self._warn(_of_input(self._look))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._iterations = _optimizer_steps(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        look = self._look
        assert look is not None
        self._steps += _optimizer_steps(self.model) - self._iterations
        loss = float((logs or {}).get("loss", math.nan))
        users, items = look.vectors()
        found = list(_of_finiteness(users, items, (logs or {}).get("loss")))
        if np.isfinite(users).all() and np.isfinite(items).all():
            figures = look.figures(users, items)
            found += _of_tables(look, self._steps)
            found += _of_zeros(users, items)
            found += _of_perfection(look, figures, loss)
            found += self._lasting(_of_likeness(look, figures), _of_lists(look, figures), _of_ranking(look, figures))
        else:
            figures = dict.fromkeys(look.names, math.nan)
        for figure, value in figures.items():
            name = self._names[figure]
            self.history[name].append(value)
            if logs is not None:
                logs[f"watch_{name}"] = value
        self._warn((name, f"After epoch {epoch + 1}, {text}") for name, text in found)

    def _lasting(self, *found: Iterator[Finding]) -> list[Finding]:
        """What has been found at every look for `patience` steps."""
        present = {name: text for part in found for name, text in part}
        for name in _MAY_PASS.difference(present):
            self._absent_at[name] = self._steps
        return [
            (name, text)
            for name, text in present.items()
            if self._steps - self._absent_at.get(name, 0) >= self.patience
        ]

    def _warn(self, found: Iterable[Finding]) -> None:
        for name, text in found:
            if name not in self.warned:
                self.warned[name] = text
                warnings.warn(text, CollapseWarning, stacklevel=3)


class _Look:
    """What is looked at in one training: some users with their targets, some rows of the tables, and their figures."""

    def __init__(self, watch: TrainingWatch, model: Any) -> None:
        self.model = model
        user_input = model.user_arrays(watch.user_input)
        model.check_item_vectors()
        items = model.item_vectors()
        self.num_items = len(items) - 1
        self._check(watch, len(items))

        rows = slice(max(2, _MAX_SCORES // len(items)))  # the order is random: the first are a sample
        self.user_input = {name: values[rows] for name, values in user_input.items()}
        self.num_users = len(next(iter(self.user_input.values())))
        self.targets = None if watch.targets is None else watch.targets[rows]
        self.seen = None if watch.seen is None else seen_rows(watch.seen, np.arange(self.num_users))
        self.popularity, self.n, self._batch_size = watch.popularity, watch.n, watch.batch_size
        self._block_size = min(1024, max(1, _BLOCK_SCORES // len(items)))
        self.is_large = self.num_items >= _MANY_ITEMS and self.num_users >= _MANY_USERS

        loss = next((layer for layer in model.layers if layer.name == "loss"), None)
        self.is_softmax = getattr(loss, "loss", "softmax") == "softmax"
        self.temperature: float | None = getattr(loss, "temperature", None)
        self.num_sampled: int | None = getattr(getattr(loss, "sampler", None), "num_sampled", None)
        users = model.user_vectors(self.user_input, self._batch_size)
        lengths = np.linalg.norm(np.concatenate([users, items[sample_rows(len(items), 1000)]]), axis=1)
        self.is_unit_length = bool(lengths.any() and np.allclose(lengths[lengths > 0], 1, atol=0.01))

        self.tables = [_Table(name, table, self._ids()) for name, table in _trained_tables(model)]
        if self.popularity is not None:
            counts = np.sort(self.popularity.item_counts)
            self.consumed = float(counts[-self.n :].sum() / (counts.sum() or 1))  # what the n most popular make up
        if self.targets is not None:
            self._held, self._num_others = in_seen(self.targets, self.seen), self._count_others()
            shares = np.bincount(self.targets) / self.num_users
            self.most_frequent = float(shares.max())
            # By chance a rank is uniform, with variance 1 / 12 as a share. Users who are alike rank one item alike, so
            # the mean over them is as uncertain as if there were one draw for each different target. A target that is
            # in `seen` has no rank.
            ranked = self.targets[~self._held]
            shares = np.bincount(ranked) / max(1, len(ranked))
            self.chance = 0.5 + 3 * math.sqrt(max(1 / max(1, len(ranked)), float(np.sum(shares**2))) / 12)
            if self.popularity is not None:
                score = self.popularity.score
                self.of_popularity = self._of_targets(lambda start, stop: score(np.ones(stop - start, np.int64)))

    @property
    def names(self) -> list[str]:
        """The names of the figures."""
        names = ["score_correlation", "user_cosine", "user_rank", "coverage"]
        names += ["row_size", "rows_changed"] if self.tables else []
        names += [] if self.popularity is None else ["popular_share"]
        if self.targets is not None:
            names += dict.fromkeys(["percentile", "HR@1", f"HR@{self.n}"])
            names += ["cross_entropy"] if self.is_softmax and self.temperature is not None else []
        return names

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """The vectors as they are now: of the users looked at (B, D), and of all items (V, D)."""
        return self.model.user_vectors(self.user_input, self._batch_size), self.model.item_vectors()

    def figures(self, users: np.ndarray, items: np.ndarray) -> dict[str, float]:
        """name -> figure, of the vectors and tables as they are now."""
        lists, _ = top_n(users, items, self.n, exclude=self.seen, block_size=self._block_size)
        figures = {**likeness(users, items), "coverage": coverage(lists, len(items))}
        if self.tables:
            figures["row_size"] = max(table.row_size() for table in self.tables)
            figures["rows_changed"] = min(table.changed() for table in self.tables)
        if self.popularity is not None:
            figures["popular_share"] = popular_share(lists, self.popularity.item_counts, self.seen)
        if self.targets is not None:
            figures |= self._of_targets(lambda start, stop: users[start:stop] @ items.T)
            if self.is_softmax and self.temperature is not None:
                figures["cross_entropy"] = full_cross_entropy(
                    users, items, self.targets, self.temperature, self._block_size
                )
        return figures

    def _of_targets(self, score: Any) -> dict[str, float]:
        assert self.targets is not None
        ranks = ranks_of(score, self.targets, self.seen, self._held, self._block_size)
        metrics = ranking_metrics(ranks, sorted({1, self.n}))
        hits = {name: value for name, value in metrics.items() if name.startswith("HR")}
        below = (1 - ranks / self._num_others)[~self._held]
        return {"percentile": float(below.mean()) if below.size else math.nan, **hits}

    def _count_others(self) -> np.ndarray:
        """How many items each target that is not in `seen` is ranked against, (B,)."""
        others = np.full(self.num_users, self.num_items - 1)
        if self.seen is not None:
            rows, items = seen_pairs(self.seen, 0, self.num_users)
            rows, items = np.divmod(np.unique(rows * (self.num_items + 1) + items), self.num_items + 1)
            others -= np.bincount(rows[items > 0], minlength=self.num_users)
        return np.maximum(others, 1)

    def _ids(self) -> np.ndarray:
        """All integers in the inputs and targets looked at: what is looked up in tables is among them."""
        arrays = [values for values in self.user_input.values() if values.dtype.kind in "iu"]
        arrays += [] if self.targets is None else [self.targets]
        return np.unique(
            np.concatenate([np.zeros(0, np.int64), *(values.ravel().astype(np.int64) for values in arrays)])
        )

    def _check(self, watch: TrainingWatch, vocabulary_size: int) -> None:
        if watch.n > self.num_items:
            raise problem("`n`", f"be at most V - 1 = {self.num_items}, the number of items", watch.n)
        if watch.targets is not None:
            check_ids("`targets`", watch.targets, 1, self.num_items)
        if watch.seen is not None:
            check_ids("the item ids of `seen`", watch.seen[1], 0, self.num_items)
        if watch.popularity is not None and len(watch.popularity.item_counts) != vocabulary_size:
            got = f"shape ({len(watch.popularity.item_counts)},)"
            raise problem("`item_count`", f"have shape ({vocabulary_size},), an entry for each item id", got)


class _Table:
    """Some rows of an embedding table, and what they were when training began."""

    def __init__(self, name: str, weight: Any, ids: np.ndarray) -> None:
        self.name, self._table = name, raw_variable(weight)
        length = int(weight.shape[0])
        # Training may touch few rows of a large table, so half of those looked at are from the inputs. (Ids that are
        # hashed are other rows; of 500 random ones some have changed if training touched one row in a hundred.)
        ids = ids[(ids >= 0) & (ids < length)]
        drawn = sample_rows(length, _MAX_ROWS if length <= _MAX_ROWS else _MAX_ROWS // 2)
        self.rows = np.union1d(drawn, ids[sample_rows(len(ids), _MAX_ROWS // 2)])
        self._first = self._read()

    def _read(self) -> np.ndarray:
        return self._table.sparse_read(self.rows).numpy()

    def changed(self) -> float:
        """The share of the rows that are no longer what they were."""
        return float((self._read() != self._first).any(axis=1).mean())

    def row_size(self) -> float:
        """The root mean square of the entries of a row, of the 99th largest row in 100."""
        return float(np.percentile(np.sqrt(np.mean(np.square(self._read()), axis=1)), 99))


# What is looked for. Each function yields what it finds; its text goes on from "After epoch 3, ", save those that speak
# before training. Each says what was seen, why it is bad, and what to try.

# Healthy training shows these at first.
_MAY_PASS = {"users_alike", "one_direction", "popular_lists", "no_better_than_chance", "no_better_than_popularity"}


def _of_temperature(look: _Look) -> Iterator[Finding]:
    if look.temperature is None or not look.is_unit_length:
        return
    temperature, choices = look.temperature, look.num_items if look.is_softmax else 2
    highest = highest_temperature(choices)
    if temperature > highest:
        text = (
            f"The temperature, {temperature:g}, is too high for {look.num_items} items: with vectors of length one, "
            f"logits lie within {1 / temperature:.3g} of 0, and no vectors bring the loss below "
            f"{lowest_loss(temperature, choices):.2f}, where knowing nothing costs {math.log(choices):.2f}. Training "
            f"can learn little. Give a temperature below {highest:.2f}; 0.05 to 0.3 are usual."
        )
        yield "temperature_too_high", text
    elif 1 / temperature > _MAX_LOGIT:
        text = (
            f"The temperature, {temperature:g}, is too low: with vectors of length one, logits reach "
            f"{1 / temperature:.0f}, so the softmax is all on one candidate, and only that one and the target have a "
            f"gradient. Training is slow and jumps. Give a temperature of at least {1 / _MAX_LOGIT:g}; 0.05 to 0.3 are "
            "usual."
        )
        yield "temperature_too_low", text


def _of_input(look: _Look) -> Iterator[Finding]:
    if look.targets is None or not look.is_large:
        return
    for name, values in look.user_input.items():
        if values.dtype.kind not in "iu":
            continue
        own, others = _share_holding(values, look.targets), _share_holding(values, np.roll(look.targets, 1))
        # What holds others' targets as well holds most items, or numbers that are no items.
        if own > 0.95 and others < 0.5:
            text = (
                f"The input {name!r} holds the target itself in {own:.0%} of the rows looked at, and another row's "
                f"target in {others:.0%}. A model that is shown what it shall predict learns to copy it: its loss "
                "falls below what is possible in use, where it fails. End each history before its target. (Where users "
                "take the same items again and again, this may be as it should.)"
            )
            yield "target_in_input", text


def _of_finiteness(users: np.ndarray, items: np.ndarray, loss: Any) -> Iterator[Finding]:
    bad = [int((~np.isfinite(vectors)).any(axis=1).sum()) for vectors in (users, items)]
    if any(bad) or (loss is not None and not math.isfinite(loss)):
        text = (
            f"the training loss is {'unknown' if loss is None else f'{loss:.3g}'}, and the vectors of {bad[0]} of the "
            f"{len(users)} users looked at and of {bad[1]} of the {len(items) - 1} items hold NaN or infinity. No "
            "training gets out of that. Start again from sound weights, with a lower learning rate or with gradients "
            "clipped (`clipnorm`), and look for NaN and very large numbers in the dense inputs."
        )
        yield "not_finite", text


def _of_zeros(users: np.ndarray, items: np.ndarray) -> Iterator[Finding]:
    of_users, of_items = ((~vectors.any(axis=1)).mean() for vectors in (users, items[1:]))
    if max(of_users, of_items) > _MAX_ZEROS:
        text = (
            f"the vectors of {of_users:.1%} of the users and {of_items:.1%} of the items have length zero. Such a user "
            "gets arbitrary items, such an item is not found, and no gradient reaches what made the vector. Look for "
            "ReLUs that are always off (`output_activation='relu'`, too high a learning rate), for empty histories, "
            "and for too strong an L2 penalty."
        )
        yield "zero_vectors", text


def _of_tables(look: _Look, steps: int) -> Iterator[Finding]:
    for table in look.tables:
        if steps >= _MIN_STEPS and not table.changed():
            text = (
                f"not one of the {len(table.rows)} rows looked at of the embedding table {table.name!r} has changed in "
                f"{steps} steps. What is looked up there stays as it was drawn. See whether the learning rate is 0, "
                "and whether the loss depends on the table. (A table that is not to be trained should say so: "
                "`trainable=False` on its column.)"
            )
            yield f"never_updated:{table.name}", text
        if table.row_size() > _MAX_ROW_SIZE:
            text = (
                f"the largest rows of the embedding table {table.name!r} have entries with a root mean square of "
                f"{table.row_size():.3g}; they start at 0.05 at most. Rows that are brought to length one turn the "
                "less with each step the larger they are, until training stands still; others drown the features "
                "beside them. Lower the learning rate, clip gradients (`clipnorm`), or set `l2_reg_embedding`."
            )
            yield f"rows_explode:{table.name}", text


def _of_perfection(look: _Look, figures: Mapping[str, float], loss: float) -> Iterator[Finding]:
    many = look.num_sampled is None or look.num_sampled >= _MIN_CANDIDATES
    if look.is_softmax and look.is_large and many and loss < _MIN_LOSS:
        first = f", and {figures['HR@1']:.1%} of the targets looked at are ranked first" if "HR@1" in figures else ""
        text = (
            f"the training loss is {loss:.3g}: the target is told from the candidates with a probability of "
            f"{min(1, math.exp(-loss)):.1%}{first}. Hardly any data allow that. Either the input holds the target, or "
            "the model knows the training rows by heart, or the candidates are too easy. Compare with the ranking of "
            "held-out targets: if it is as good, suspect a leak; if it is far worse, overfitting. (Sample weights far "
            "below 1 make the loss small, too.)"
        )
        yield "loss_too_low", text
    if "HR@1" in figures and look.is_large and figures["HR@1"] > _MAX_FIRST and look.most_frequent < 0.5:
        text = (
            f"{figures['HR@1']:.1%} of the targets looked at are ranked first among {look.num_items} items. Hardly any "
            "held-out data allow that. Look for the target in the input: a history that ends one item too late, or a "
            "feature that is known only afterwards. (With rows that the model is trained on, it is overfitting.)"
        )
        yield "ranking_too_good", text


def _of_likeness(look: _Look, figures: Mapping[str, float]) -> Iterator[Finding]:
    # Seen on Amazon Beauty and ml-1m with uniform negatives, temperature 0.05 and Adam at 0.003: for more than 1000
    # steps a correlation of 0.999, and a ranking behind popularity. On Beauty each of the three cures brought it below
    # 0.5 in 645 steps.
    correlation, rank = figures["score_correlation"], figures["user_rank"]
    dim = look.model.user_emb.shape[-1]
    if correlation > _MAX_CORRELATION:
        text = (
            f"all users get nearly the same scores: those of two users have a correlation of {correlation:.3f} over "
            f"the items (their vectors, a mean cosine of {figures['user_cosine']:.3f}). Everyone is recommended the "
            f"same: the lists of {look.num_users} users have {figures['coverage']:.1%} of the items that there is room "
            "for. A lower learning rate, a temperature nearer to 0.1 or a sampler by frequency in place of a uniform "
            "one have each cured it. Otherwise look for a tower whose output hardly depends on its input: a bias that "
            "dominates, ReLUs that are always off, a feature of far larger numbers than the others."
        )
        yield "users_alike", text
    elif dim >= 4 and rank < _MIN_RANK:
        text = (
            f"the users' vectors differ along {rank:.2f} of {dim} directions: nearly all that the model tells of a "
            "user is a place on one scale. Look for a layer of the tower with too few units or with ReLUs that are "
            "always off, and for a feature that drowns the others; lower the learning rate if the loss jumps."
        )
        yield "one_direction", text


def _of_lists(look: _Look, figures: Mapping[str, float]) -> Iterator[Finding]:
    if look.popularity is None:
        return
    share = figures["popular_share"]
    if share > (1 + look.consumed) / 2:  # more than halfway from what is consumed to nothing else
        text = (
            f"{share:.0%} of the recommendations are the {look.n} most popular items that the user has not had; of the "
            f"consumption, the {look.n} most popular items are {look.consumed:.1%}. The model does little more than a "
            "list of best-sellers. Train longer or with a higher learning rate, use a sampler by frequency (whose "
            "effect the loss corrects for), and see whether the histories reach the model."
        )
        yield "popular_lists", text


def _of_ranking(look: _Look, figures: Mapping[str, float]) -> Iterator[Finding]:
    if look.targets is None:
        return
    percentile, hits = figures["percentile"], figures[f"HR@{look.n}"]
    if percentile <= look.chance < 0.9:  # with so few targets that chance might reach 0.9, nothing can be said
        loss = ""
        if "cross_entropy" in figures:
            loss = (
                f" (a cross-entropy of {figures['cross_entropy']:.2f} over all items; knowing nothing costs "
                f"{math.log(look.num_items):.2f})"
            )
        text = (
            f"the targets rank above {percentile:.1%} of the other items{loss}. Chance gives 50%, and with these "
            f"targets up to {look.chance:.1%}. Nothing that helps has been learnt. Look at the learning rate and the "
            "temperature, and whether inputs and targets are of the same rows and ids."
        )
        yield "no_better_than_chance", text
    elif look.popularity is not None:
        popular = look.of_popularity
        if percentile <= popular["percentile"] and hits <= popular[f"HR@{look.n}"]:
            text = (
                f"the targets rank above {percentile:.1%} of the other items, and {hits:.1%} of them are in the first "
                f"{look.n}. The most popular items, the same for everyone, reach {popular['percentile']:.1%} and "
                f"{popular[f'HR@{look.n}']:.1%}. Train longer or with another learning rate or temperature, and see "
                "whether the histories reach the model."
            )
            yield "no_better_than_popularity", text


def _share_holding(values: np.ndarray, targets: np.ndarray) -> float:
    """The share of rows whose ``values`` (B, ...) hold the row's target (B,)."""
    return float((values.reshape(len(values), -1) == targets[:, None]).any(axis=1).mean())


def _trained_tables(model: Any) -> Iterator[tuple[str, Any]]:
    """Layer name and weight of each embedding table that is not frozen."""
    known: set[int] = set()
    for layer in model.layers:
        for weight in layer.trainable_weights:
            if is_table(weight) and id(weight) not in known:
                known.add(id(weight))
                yield layer.name, weight


def _optimizer_steps(model: Any) -> int:
    return int(raw_variable(model.optimizer.iterations).numpy())
