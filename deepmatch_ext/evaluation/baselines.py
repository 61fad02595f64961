"""Baselines for comparison.

Popularity and a first-order Markov chain need no training. Both have ``score(last_items) -> (b, V)``, so that the same
``evaluate`` runs on them::

    evaluate(lambda start, stop: baseline.score(last_items[start:stop]), targets, seen=seen)

Item-kNN and ALS are those of the package ``implicit``. They score users by id, or by any history. A model that does not
beat the Markov chain has learnt no more than which item follows which.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any, Protocol

import numpy as np

from deepmatch_ext._arrays import Seen, check_ids, check_item_counts, check_pair, check_seen
from deepmatch_ext._checks import int_at_least, missing_extra, problem, shown


class InteractionsLike(Protocol):
    """What ``from_interactions`` reads: a row for each interaction, sorted by sequence, then by time."""

    @property
    def sequences(self) -> np.ndarray: ...

    @property
    def users(self) -> np.ndarray: ...

    @property
    def items(self) -> np.ndarray: ...

    @property
    def item_vocabulary_size(self) -> int: ...

    @property
    def is_target(self) -> np.ndarray: ...

    def item_counts(self, rows: np.ndarray) -> np.ndarray: ...


class Popularity:
    """Scores every item by how often it occurs, independently of the user.

    Args:
        item_counts: Occurrences of each item in the training rows, (V,), not negative. The entry of id 0, padding, is
            ignored.

    Raises:
        ValueError: The counts are not one-dimensional, not finite, negative, or of fewer than two ids.

    Example:
        >>> import numpy as np
        >>> Popularity(np.array([0, 5, 2])).score(np.array([1]))
        array([[0., 5., 2.]])
    """

    def __init__(self, item_counts: np.ndarray) -> None:
        self.item_counts = check_item_counts("`item_counts`", item_counts)

    @classmethod
    def from_interactions(cls, interactions: InteractionsLike, rows: np.ndarray) -> Popularity:
        """The popularity of items in training rows.

        Args:
            interactions: The events.
            rows: The training rows, (n,), ascending.

        Raises:
            ValueError: The rows do not ascend.
        """
        rows = _check_rows(interactions, rows)
        return cls(interactions.item_counts(rows))

    def score(self, last_items: np.ndarray) -> np.ndarray:
        """The item counts for each user.

        Args:
            last_items: The last item of each user, (b,), which is not used here.

        Returns:
            (b, V), a read-only view that takes no memory.
        """
        last_items = check_ids("`last_items`", last_items, 0, len(self.item_counts) - 1)
        return np.broadcast_to(self.item_counts, (len(last_items), len(self.item_counts)))


class Markov:
    """Scores every item by how often it came right after the user's last item.

    Popularity breaks ties, by a term of at most 1e-6. If the last item was never followed by anything, or is 0 (no
    history), popularity alone determines the order. The distinct pairs are kept in CSR form: memory grows with their
    number, not with V x V.

    Source: the first-order chain that Rendle et al. factorise in "Factorizing Personalized Markov Chains for
    Next-Basket Recommendation" (WWW 2010), here not factorised. Build it with ``fit`` or ``from_interactions``.

    Example:
        >>> import numpy as np
        >>> markov = Markov.fit(np.array([1, 1, 2]), np.array([2, 2, 3]), vocabulary_size=4)
        >>> markov.score(np.array([1, 2, 0])).round(3)  # item 2 came twice after item 1
        array([[0., 0., 2., 0.],
               [0., 0., 0., 1.],
               [0., 0., 0., 0.]])
        >>> int(markov.score(np.array([0])).argmax())  # no history: the most popular item
        2
    """

    def __init__(self, indptr: np.ndarray, next_items: np.ndarray, counts: np.ndarray, tie_break: np.ndarray) -> None:
        self._indptr = indptr  # (V + 1,): the pairs of item i are indptr[i]:indptr[i + 1]
        self._next_items = next_items  # (distinct pairs,)
        self._counts = counts  # (distinct pairs,)
        self._tie_break = tie_break  # (V,)

    @classmethod
    def fit(
        cls,
        previous_items: np.ndarray,
        next_items: np.ndarray,
        vocabulary_size: int,
        item_counts: np.ndarray | None = None,
    ) -> Markov:
        """Counts the pairs (previous item, next item).

        Args:
            previous_items: The first item of each pair, (n,), ids 1..V-1.
            next_items: The item that came right after it, (n,), ids 1..V-1.
            vocabulary_size: V: the number of items + 1, for the padding id 0.
            item_counts: The popularity that breaks ties, (V,). Without it, the occurrences in ``next_items``.

        Raises:
            ValueError: Ids out of range, or arrays whose shapes do not fit.
        """
        vocabulary_size = int_at_least("`vocabulary_size`", vocabulary_size, 2)
        previous_items = check_ids("`previous_items`", previous_items, 1, vocabulary_size - 1)
        next_items = check_ids("`next_items`", next_items, 1, vocabulary_size - 1, length=len(previous_items))
        if item_counts is None:
            item_counts = np.bincount(next_items, minlength=vocabulary_size)
        popularity = check_item_counts("`item_counts`", item_counts, vocabulary_size)
        pairs, counts = np.unique(previous_items * vocabulary_size + next_items, return_counts=True)
        first, second = np.divmod(pairs, vocabulary_size)
        indptr = np.searchsorted(first, np.arange(vocabulary_size + 1))
        return cls(indptr, second, counts, 1e-6 * popularity / (popularity.max() or 1.0))

    @classmethod
    def from_interactions(cls, interactions: InteractionsLike, rows: np.ndarray) -> Markov:
        """The chain of training rows.

        A pair is two adjacent rows of the same user, or session if there are sessions, both of them among ``rows``.
        With kinds of events, rows of kinds that are not to be predicted are skipped.

        Args:
            interactions: The events.
            rows: The training rows, (n,), ascending.

        Raises:
            ValueError: The rows do not ascend.

        Example:
            >>> from deepmatch_ext.data import Interactions, leave_last_out
            >>> split = leave_last_out(Interactions.from_sequences([0, 4, 8], [1, 2, 3, 4, 1, 2, 4, 3]))
            >>> markov = Markov.from_interactions(split.interactions, split.train)
            >>> markov.score(np.array([1])).round(3)  # item 2 came twice after item 1
            array([[0., 0., 2., 0., 0.]])
        """
        rows = _check_rows(interactions, rows)
        before, after = rows[:-1], rows[1:]
        sequences, items = np.asarray(interactions.sequences), np.asarray(interactions.items)
        place = np.cumsum(interactions.is_target)
        pair = (place[after] == place[before] + 1) & (sequences[after] == sequences[before])
        return cls.fit(
            items[before[pair]],
            items[after[pair]],
            interactions.item_vocabulary_size,
            interactions.item_counts(rows),
        )

    def score(self, last_items: np.ndarray) -> np.ndarray:
        """The scores of every item after each of ``last_items``.

        Args:
            last_items: The last item of each user, (b,), ids 0..V-1; 0 means no history.

        Returns:
            Transition counts plus the tie-breaking popularity, (b, V) float64. In float32, the popularity term would be
            lost beside a count of 16.

        Raises:
            ValueError: An id out of range.
        """
        last_items = check_ids("`last_items`", last_items, 0, len(self._tie_break) - 1)
        scores = np.tile(self._tie_break, (len(last_items), 1))
        starts = self._indptr[last_items]
        lengths = self._indptr[last_items + 1] - starts
        rows = np.repeat(np.arange(len(last_items)), lengths)
        ends = np.cumsum(lengths)
        pairs = np.arange(len(rows)) + np.repeat(starts - (ends - lengths), lengths)
        scores[rows, self._next_items[pairs]] += self._counts[pairs]  # each (row, item) comes once
        return scores


def has_implicit() -> bool:
    """Whether ``implicit`` is installed, which `ItemKNN` and `ALS` need."""
    return importlib.util.find_spec("implicit") is not None


class _Implicit:
    """A model of the package ``implicit``, fitted to which users had which items."""

    def __init__(self, user_items: Any, model: Any) -> None:
        self._user_items, self._model = user_items, model

    @classmethod
    def _matrix(cls, interactions: InteractionsLike, rows: np.ndarray) -> Any:
        """1 where a user has had an item, (users + 1, V), CSR."""
        if not has_implicit():
            raise missing_extra(cls.__name__, "implicit", "baselines")
        rows = _check_rows(interactions, rows)
        users, items = np.asarray(interactions.users)[rows], np.asarray(interactions.items)[rows]
        return _ones(users, items, (int(np.max(interactions.users)) + 1, interactions.item_vocabulary_size))

    def _users(self, users: Any) -> np.ndarray:
        return check_ids("`users`", users, 0, self._user_items.shape[0] - 1)

    def _histories(self, histories: Seen) -> Any:
        """1 where a history has an item, (b, V), CSR."""
        vocabulary_size = self._user_items.shape[1]
        rows = len(check_pair("`histories`", histories)[0]) - 1
        indptr, items = check_seen("`histories`", histories, rows, vocabulary_size)
        owners = np.repeat(np.arange(rows), np.diff(indptr))
        return _ones(owners[items > 0], items[items > 0], (rows, vocabulary_size))


class ItemKNN(_Implicit):
    """Scores items by similarity to a user's items: the cosine between the users of two items, for the k nearest.

    It is the ``CosineRecommender`` of the package ``implicit``, which it needs. Build it with ``from_interactions``.

    Raises:
        ImportError: ``implicit`` is not installed.

    Example:
        >>> from deepmatch_ext.data import Interactions
        >>> interactions = Interactions.from_sequences([0, 2, 4, 6], [1, 2, 1, 3, 4, 3])
        >>> knn = ItemKNN.from_interactions(interactions, np.arange(6))
        >>> knn.score(np.array([3])).round(2)  # user 3 had items 3 and 4
        array([[0.  , 0.5 , 0.  , 1.71, 1.71]])
        >>> knn.score_histories(([0, 1], [2])).round(2)  # a new user, who had item 2
        array([[0.  , 0.71, 1.  , 0.  , 0.  ]])
    """

    @classmethod
    def from_interactions(cls, interactions: InteractionsLike, rows: np.ndarray, *, k: int = 100) -> ItemKNN:
        """Fits to training rows.

        Args:
            interactions: The events.
            rows: The training rows, (n,), ascending.
            k: The number of nearest items of each item.

        Raises:
            ImportError: ``implicit`` is not installed.
            ValueError: The rows do not ascend.
        """
        matrix = cls._matrix(interactions, rows)
        from implicit.nearest_neighbours import CosineRecommender

        model = CosineRecommender(K=k)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of the format of its own matrix
            model.fit(matrix, show_progress=False)
        return cls(matrix, model)

    def score(self, users: np.ndarray) -> np.ndarray:
        """The scores of every item for users of the interactions.

        Args:
            users: User ids, (b,), from 0 to the largest of the interactions.

        Returns:
            (b, V); zeros for a user without training rows.

        Raises:
            ValueError: An id out of range.
        """
        return (self._user_items[self._users(users)] @ self._model.similarity).toarray()

    def score_histories(self, histories: Seen) -> np.ndarray:
        """The scores of every item for any histories, such as those of users without training rows.

        Args:
            histories: The item ids that each user has had, ``(indptr (b + 1,), item ids)``, as `seen_before` gives
                them. Id 0 and repeats do not count.

        Returns:
            (b, V); zeros for a history without any item of the training rows.

        Raises:
            ValueError: An id is out of range, or ``histories`` are not of the form described.
        """
        return (self._histories(histories) @ self._model.similarity).toarray()


class ALS(_Implicit):
    """Alternating least squares on which user had which item (Hu, Koren and Volinsky, ICDM 2008).

    It needs the package ``implicit``. Build it with ``from_interactions``.

    Raises:
        ImportError: ``implicit`` is not installed.

    Example:
        >>> from deepmatch_ext.data import Interactions
        >>> had = [1, 2, 3, 1, 2, 4, 5, 6, 5, 6]  # items 1 to 3 by users 1 and 2, items 4 to 6 by users 3 and 4
        >>> interactions = Interactions.from_sequences([0, 3, 5, 8, 10], had)
        >>> als = ALS.from_interactions(interactions, np.arange(10), factors=2)
        >>> scores = als.score_histories(([0, 1], [5]))  # of a new user, who had item 5
        >>> scores.shape, bool(scores[0, 4:].min() > scores[0, 1:4].max())
        ((1, 7), True)
    """

    @classmethod
    def from_interactions(
        cls, interactions: InteractionsLike, rows: np.ndarray, *, factors: int = 64, seed: int = 1024
    ) -> ALS:
        """Fits to training rows.

        Args:
            interactions: The events.
            rows: The training rows, (n,), ascending.
            factors: The size of the vectors.
            seed: Seed of their random initialisation.

        Raises:
            ImportError: ``implicit`` is not installed.
            ValueError: The rows do not ascend.
        """
        matrix = cls._matrix(interactions, rows)
        from implicit.als import AlternatingLeastSquares

        with _one_blas_thread():
            model = AlternatingLeastSquares(factors=factors, random_state=seed)
            model.fit(matrix, show_progress=False)
        return cls(matrix, model)

    def score(self, users: np.ndarray) -> np.ndarray:
        """The scores of every item for users of the interactions.

        Args:
            users: User ids, (b,), from 0 to the largest of the interactions.

        Returns:
            (b, V); zeros for a user without training rows.

        Raises:
            ValueError: An id out of range.
        """
        return self._model.user_factors[self._users(users)] @ self._model.item_factors.T

    def score_histories(self, histories: Seen) -> np.ndarray:
        """The scores of every item for any histories, by a least-squares step for each one; see `ItemKNN`.

        Args:
            histories: The item ids that each user has had, ``(indptr (b + 1,), item ids)``.

        Returns:
            (b, V); zeros for an empty history.

        Raises:
            ValueError: An id is out of range, or ``histories`` are not of the form described.
        """
        matrix = self._histories(histories)
        with _one_blas_thread():
            vectors = self._model.recalculate_user(np.arange(matrix.shape[0]), matrix)
        return vectors @ self._model.item_factors.T


def _ones(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Any:
    """1 in some places of a matrix, CSR; repeats count once."""
    import scipy.sparse  # comes with implicit

    matrix = scipy.sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape)
    matrix.data[:] = 1
    return matrix


def _one_blas_thread() -> Any:
    """A context for ``implicit``, which has threads of its own and warns where BLAS has more than one."""
    from threadpoolctl import threadpool_limits  # comes with implicit

    return threadpool_limits(1, "blas")


def _check_rows(interactions: InteractionsLike, rows: Any) -> np.ndarray:
    if not all(hasattr(interactions, name) for name in ("sequences", "items", "item_vocabulary_size", "item_counts")):
        raise problem("`interactions`", "be Interactions", shown(interactions))
    rows = check_ids("`rows`", rows, 0, len(interactions.items) - 1)
    if (rows[1:] <= rows[:-1]).any():
        raise problem("`rows`", "ascend, without repeats", "rows out of order", "Sort them: np.unique(rows).")
    return rows
