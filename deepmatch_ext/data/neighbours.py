"""Which items are near an item in histories: all that is known about a new one."""

from __future__ import annotations

import numpy as np

from deepmatch_ext._checks import instance_of, positive_int, problem
from deepmatch_ext.data.ids import read_only
from deepmatch_ext.data.interactions import Interactions


def neighbours(interactions: Interactions, first_new: int, *, reach: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The known items that users had near each new item, for the argument ``alike`` of `RetrievalModel.extended`.

    Args:
        interactions: The events, including those with new items.
        first_new: The first new item's id: the vocabulary size of the map before it was extended.
        reach: How many events before and after an event with a new item count, within the same sequence.

    Returns:
        ``indptr`` int64 (k + 1,) and ``items`` int32, for k new items: ``first_new + j`` had
        ``items[indptr[j]:indptr[j + 1]]`` near it, each as often as it occurred there.

    Raises:
        ValueError: ``first_new`` is above the vocabulary size or below 1.

    Example:
        >>> interactions = Interactions.from_sequences([0, 3, 6], [1, 2, 5, 3, 4, 5])
        >>> indptr, items = neighbours(interactions, 4, reach=1)
        >>> indptr.tolist(), items.tolist()  # of the items 4 and 5
        ([0, 1, 2], [3, 2])
    """
    interactions = instance_of("`interactions`", interactions, Interactions)
    first_new, reach = positive_int("`first_new`", first_new), positive_int("`reach`", reach)
    size = interactions.item_vocabulary_size
    if first_new > size:
        raise problem("`first_new`", f"be at most the vocabulary size, {size}", first_new)
    items, sequences = interactions.items, interactions.sequences
    rows = np.flatnonzero(items >= first_new)
    pairs = []
    for step in (*range(-reach, 0), *range(1, reach + 1)):
        near = rows + step
        kept = (near >= 0) & (near < len(items))
        here, near = rows[kept], near[kept]
        kept = (sequences[near] == sequences[here]) & (items[near] < first_new)
        pairs.append((items[here[kept]], items[near[kept]]))
    new, old = (np.concatenate(part) for part in zip(*pairs, strict=True))
    order = np.argsort(new, kind="stable")
    indptr = np.searchsorted(new[order], np.arange(first_new, size + 1)).astype(np.int64)
    return read_only(indptr), read_only(old[order])
