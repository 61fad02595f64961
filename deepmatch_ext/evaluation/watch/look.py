"""A look at a model in training: some users, rows of its tables, and the figures of these."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from deepmatch_ext._arrays import Seen, check_ids, check_vectors, seen_pairs, seen_rows
from deepmatch_ext._checks import problem
from deepmatch_ext._keras import is_table, raw_variable
from deepmatch_ext.evaluation.baselines import Popularity
from deepmatch_ext.evaluation.collapse import coverage, full_cross_entropy, likeness, popular_share, sample_rows
from deepmatch_ext.evaluation.metrics import ranking_metrics
from deepmatch_ext.evaluation.ranks import in_seen, inner_products, ranks_of
from deepmatch_ext.retrieval.top_n import top_n

_MAX_SCORES = 2**28  # pairs of user and item that a look scores, in blocks of
_BLOCK_SCORES = 2**24
_MAX_ROWS = 1000  # rows of each embedding table that are compared with their start

_MANY_ITEMS, _MANY_USERS = 100, 30  # with fewer, a perfect ranking means little


class Look:
    """What is looked at in one training: some users with their targets, some rows of the tables, and their figures."""

    def __init__(
        self,
        model: Any,
        user_input: Any,
        targets: np.ndarray | None,
        seen: Seen | None,
        popularity: Popularity | None,
        n: int,
        batch_size: int,
    ) -> None:
        self.model = model
        user_input = model.user_arrays(user_input)
        model.check_item_vectors()
        items = model.item_vectors()
        self.num_items = len(items) - 1
        self.popularity, self.n, self._batch_size = popularity, n, batch_size
        self._check(targets, seen)

        rows = slice(max(2, _MAX_SCORES // len(items)))  # the order is random: the first are a sample
        self.user_input = {name: values[rows] for name, values in user_input.items()}
        self.num_users = len(next(iter(self.user_input.values())))
        self.targets = None if targets is None else targets[rows]
        self.seen = None if seen is None else seen_rows(seen, np.arange(self.num_users))
        self._block_size = min(1024, max(1, _BLOCK_SCORES // len(items)))
        self.is_large = self.num_items >= _MANY_ITEMS and self.num_users >= _MANY_USERS

        loss_layer, candidates = getattr(model, "loss_layer", None), getattr(model, "candidates", None)
        self.loss: str | None = getattr(loss_layer, "loss", None)
        self.temperature: float | None = getattr(loss_layer, "temperature", None)
        self.sampler: Any = getattr(candidates, "sampler", None)
        users = model.user_vectors(self.user_input, self._batch_size)
        self.num_interests = users.shape[1] if users.ndim == 3 else 1
        some = [users.reshape(-1, users.shape[-1]), items[sample_rows(len(items), 1000)]]
        lengths = np.linalg.norm(np.concatenate(some), axis=1)
        self.is_unit_length = bool(lengths.any() and np.allclose(lengths[lengths > 0], 1, atol=0.01))

        self.tables = [Table(name, table, self._ids()) for name, table in _trained_tables(model)]
        if self.popularity is not None:
            counts = np.sort(self.popularity.item_counts)
            self.consumed = float(counts[-self.n :].sum() / (counts.sum() or 1))  # the fraction of the n most popular
        if self.targets is not None:
            self._held, self._num_others = in_seen(self.targets, self.seen), self._count_others()
            shares = np.bincount(self.targets) / self.num_users
            self.most_frequent = float(shares.max())
            # By chance, a rank as a fraction is uniform, with variance 1 / 12. Users who are alike rank one item alike,
            # so the mean over them is as uncertain as if there were one draw for each different target. A target that
            # is in `seen` has no rank.
            ranked = self.targets[~self._held]
            shares = np.bincount(ranked) / max(1, len(ranked))
            self.chance = 0.5 + 3 * math.sqrt(max(1 / max(1, len(ranked)), float(np.sum(shares**2))) / 12)
            if self.popularity is not None:
                score = self.popularity.score
                self.of_popularity = self._of_targets(lambda start, stop: score(np.ones(stop - start, np.int64)))

    @property
    def has_cross_entropy(self) -> bool:
        """Whether the loss estimates the cross-entropy over all items."""
        return self.targets is not None and self.loss == "softmax" and self.temperature is not None

    @property
    def names(self) -> list[str]:
        """The names of the figures."""
        names = ["score_correlation", "user_cosine", "user_rank"]
        names += ["interest_correlation"] if self.num_interests > 1 else []
        names += ["coverage"]
        names += ["row_size", "rows_changed"] if self.tables else []
        names += [] if self.popularity is None else ["popular_share"]
        if self.targets is not None:
            names += dict.fromkeys(["percentile", "HR@1", f"HR@{self.n}"])
            names += ["cross_entropy"] if self.has_cross_entropy else []
        return names

    def vectors(self) -> tuple[np.ndarray, np.ndarray]:
        """The vectors as they are now: of the users looked at, (B, D) or (B, K, D), and of all items, (V, D)."""
        return self.model.user_vectors(self.user_input, self._batch_size), self.model.item_vectors()

    def figures(self, users: np.ndarray, items: np.ndarray) -> dict[str, float]:
        """name -> figure, of the vectors and tables as they are now."""
        users, items = check_vectors(users, items)
        lists, _ = top_n(users, items, self.n, exclude=self.seen, block_size=self._block_size)
        figures = {**likeness(users, items), "coverage": coverage(lists, len(items))}
        if self.tables:
            figures["row_size"] = max(table.row_size() for table in self.tables)
            figures["rows_changed"] = min(table.changed() for table in self.tables)
        if self.popularity is not None:
            figures["popular_share"] = popular_share(lists, self.popularity.item_counts, self.seen)
        if self.targets is not None:
            figures |= self._of_targets(inner_products(users, items))
            if self.has_cross_entropy:
                assert self.temperature is not None
                entropy = full_cross_entropy(users, items, self.targets, self.temperature, self._block_size)
                figures["cross_entropy"] = entropy
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

    def _check(self, targets: np.ndarray | None, seen: Seen | None) -> None:
        if self.n > self.num_items:
            raise problem("`n`", f"be at most V - 1 = {self.num_items}, the number of items", self.n)
        if targets is not None:
            check_ids("`targets`", targets, 1, self.num_items)
        if seen is not None:
            check_ids("the item ids of `seen`", seen[1], 0, self.num_items)
        if self.popularity is not None and len(self.popularity.item_counts) != self.num_items + 1:
            got = f"shape ({len(self.popularity.item_counts)},)"
            raise problem("`item_count`", f"have shape ({self.num_items + 1},), an entry for each item id", got)


class Table:
    """Some rows of an embedding table, and their values when training began."""

    def __init__(self, name: str, weight: Any, ids: np.ndarray) -> None:
        self.name, self._table = name, raw_variable(weight)
        length = int(weight.shape[0])
        # Training may touch few rows of a large table, so half of the rows that are checked are from the inputs. (Ids
        # that are hashed are other rows; of 500 random rows, some have changed if training touched one row in a
        # hundred.)
        ids = ids[(ids >= 0) & (ids < length)]
        drawn = sample_rows(length, _MAX_ROWS if length <= _MAX_ROWS else _MAX_ROWS // 2)
        self.rows = np.union1d(drawn, ids[sample_rows(len(ids), _MAX_ROWS // 2)])
        self._first = self._read()

    def _read(self) -> np.ndarray:
        return self._table.sparse_read(self.rows).numpy()

    def changed(self) -> float:
        """The fraction of the rows that have changed."""
        return float((self._read() != self._first).any(axis=1).mean())

    def row_size(self) -> float:
        """The 99th percentile over the rows of the root mean square of a row's entries."""
        return float(np.percentile(np.sqrt(np.mean(np.square(self._read()), axis=1)), 99))


def _trained_tables(model: Any) -> Iterator[tuple[str, Any]]:
    """Layer name and weight of each embedding table that is not frozen."""
    known: set[int] = set()
    for layer in model.layers:
        for weight in layer.trainable_weights:
            if is_table(weight) and id(weight) not in known:
                known.add(id(weight))
                yield layer.name, weight
