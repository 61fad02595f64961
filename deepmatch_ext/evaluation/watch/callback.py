"""The callback: it looks at the model after every epoch, records figures and warns."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from deepmatch_ext._arrays import Seen, check_ids, check_item_counts, check_seen, seen_rows
from deepmatch_ext._checks import int_at_least, one_of, positive_int, problem
from deepmatch_ext._frames import arrays_of
from deepmatch_ext._keras import keras, raw_variable, require_eager
from deepmatch_ext.evaluation.baselines import Popularity
from deepmatch_ext.evaluation.collapse import sample_rows
from deepmatch_ext.evaluation.metrics import NAME_FORMAT, check_name_format
from deepmatch_ext.evaluation.ranks import SEEN_TARGETS, check_seen_targets
from deepmatch_ext.evaluation.watch.findings import (
    MAY_PASS,
    Finding,
    after_epoch,
    before_training,
    not_finite,
    passing,
    unchecked,
)
from deepmatch_ext.evaluation.watch.look import Look

# Which values of the figures are farther from collapse.
_MODES = {
    **dict.fromkeys(
        ["score_correlation", "user_cosine", "interest_correlation", "row_size", "popular_share", "cross_entropy"],
        "min",
    ),
    **dict.fromkeys(["user_rank", "coverage", "rows_changed", "percentile"], "max"),
}


class CollapseWarning(UserWarning):
    """Training is going wrong in a way that the loss alone does not show.

    `TrainingWatch` issues this warning. If warnings are turned into errors, the first one stops the training.

    Example:
        >>> import warnings
        >>> from deepctr.feature_column import SparseFeat, VarLenSparseFeat
        >>> from deepmatch_ext import YoutubeDNN
        >>> history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 5, "mean", "len")
        >>> model = YoutubeDNN([history], [SparseFeat("item", 50, 8)], temperature=3.0)
        >>> model.compile("adam")
        >>> x = {"hist_item": [[3, 2], [4]], "item": np.array([4, 5])}
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", CollapseWarning)
        ...     try:
        ...         model.fit(x, callbacks=[TrainingWatch({"hist_item": x["hist_item"]})], verbose=0)
        ...     except CollapseWarning as warning:
        ...         print(str(warning).partition(":")[0])
        The temperature, 3, is too high for 49 items
    """


class TrainingWatch(keras.callbacks.Callback):
    """Checks the vectors of some users after every epoch, and warns in words when something has collapsed.

    Each `CollapseWarning` is issued once. With user inputs alone, the watch warns if

    - all users get the same scores, or their vectors differ along one direction only;
    - the K interests of a user are nearly equal;
    - vectors are NaN or of length zero, or rows of embedding tables grow out of bounds;
    - an embedding table that should be trained has not changed (frozen tables are ignored);
    - the temperature does not suit L2-normalised vectors, or the training loss is too low to be true.

    With `targets` it also warns if the ranking is no better than random or too good to be true, and if the inputs
    contain the target; with `item_count`, if the lists are those of a popularity recommender; with both, if the ranking
    is no better than by popularity. Training with the watch is bit for bit the same as without it.

    Args:
        user_input: The model's user inputs, of held-out events if there are `targets`: B rows in any form that
            `user_vectors` takes by name, a dictionary of arrays or lists or a frame. A few hundred rows are enough.
        targets: (B,) the item ids of these held-out events.
        item_count: (V,) how often each item occurs in the training data.
        seen: The items that each row has had before and that are not recommended, ``(indptr (B + 1,), items)``:
            `deepmatch_ext.data.seen_before` makes them. Omit `seen` if your product recommends items again.
        seen_targets: How to treat a target that is in its own row's `seen`: "miss" counts it as a miss at every N,
            since it is never recommended; "leave_out" leaves the row out of the check.
        n: The length of the lists.
        num_users: How many of the rows to check. With more than 250,000 items it is fewer, so that a check scores at
            most 2^28 pairs of user and item. On two cores a check takes 0.4 s with 10,000 items, 3 s with 100,000 and
            7 s with 1,000,000.
        patience: For how many training steps (not epochs) vectors, lists and ranking may look collapsed. They do so at
            first even in healthy training, since popularity is learnt first.
        batch_size: Users encoded at a time.
        name_format: How the hit rates are named. For experiment trackers that reject ``@``, give ``"{metric}_at_{n}"``.

    Attributes:
        figure_modes: The figures' names in the logs, each with ``"max"`` or ``"min"``: which values are farther from
            collapse. Callbacks after this one that monitor a figure use it.
        history: name -> the figure after each epoch. Keras's logs have them too, as ``watch_<name>``:

            - ``score_correlation``, ``user_cosine``, ``user_rank``, and with K interests ``interest_correlation``: as
              in `deepmatch_ext.evaluation.likeness`.
            - ``coverage``: the number of different items in the lists, divided by the largest number that they could
              hold.
            - ``row_size``: the root mean square of a row's entries: its 99th percentile over the rows of an embedding
              table, for the table where that is largest.
            - ``rows_changed``: the fraction of an embedding table's rows that have changed, for the table where it is
              smallest.
            - ``popular_share``: the fraction of the lists that a popularity recommender would have made too.
            - ``percentile``: the fraction of the other items that rank below the target, 0.5 at random. Only for
              targets that are not in `seen`; NaN if there are none.
            - ``HR@1``, ``HR@<n>``: the fraction of the targets in the first place, and in the first n places.
            - ``cross_entropy``: that of the targets over all items; log(V - 1) for a uniform guess. Only with the
              softmax loss.
        warned: name -> the text of each warning so far.
        unchecked: What can't be checked, one sentence each, because a custom model lacks attributes of a
            `RetrievalModel`: ``loss_layer`` with ``loss`` and ``temperature``, ``candidates`` with ``sampler``.

    Raises:
        ValueError: The arrays don't fit each other, or fewer than two rows remain; or, when training begins, they don't
            fit the model.

    Warns:
        SeenTargetsWarning: Some targets are in their own row's `seen`. The warning comes once, here.

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
                rule = "have at least 2 that are not in `seen` with seen_targets='leave_out'"
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
        self.unchecked: tuple[str, ...] = ()
        self._look: Look | None = None
        self._absent_at: dict[str, int] = {}  # the last step without the collapse
        self._steps = self._iterations = 0

    def on_train_begin(self, logs: Any = None) -> None:
        if self._look is not None and self._look.model is self.model:
            return  # the same training goes on, in another call of `fit`
        self._look = Look(
            self.model, self.user_input, self.targets, self.seen, self.popularity, self.n, self.batch_size
        )
        self.history = {self._names[figure]: [] for figure in self._look.names}
        self.warned, self._absent_at, self._steps = {}, {}, 0
        self.unchecked = tuple(unchecked(self._look))
        self._warn(before_training(self._look))

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._iterations = _optimizer_steps(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        look = self._look
        assert look is not None
        self._steps += _optimizer_steps(self.model) - self._iterations
        loss = float((logs or {}).get("loss", math.nan))
        users, items = look.vectors()
        found = list(not_finite(users, items, (logs or {}).get("loss")))
        if np.isfinite(users).all() and np.isfinite(items).all():
            figures = look.figures(users, items)
            found += after_epoch(look, users, items, figures, loss, self._steps)
            found += self._lasting(passing(look, figures))
        else:
            figures = dict.fromkeys(look.names, math.nan)
        for figure, value in figures.items():
            name = self._names[figure]
            self.history[name].append(value)
            if logs is not None:
                logs[f"watch_{name}"] = value
        self._warn((name, f"After epoch {epoch + 1}, {text}") for name, text in found)

    def _lasting(self, found: Iterable[Finding]) -> list[Finding]:
        """What has been found in every look for `patience` steps."""
        present = dict(found)
        for name in MAY_PASS.difference(present):
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


def _optimizer_steps(model: Any) -> int:
    return int(raw_variable(model.optimizer.iterations).numpy())
