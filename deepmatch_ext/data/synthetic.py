"""Generated events with the structure of real ones, for tests, examples and benchmarks without a download."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from deepmatch_ext._checks import int_at_least, positive_int, positive_number, problem
from deepmatch_ext.data.ids import IdMap, read_only
from deepmatch_ext.data.interactions import Interactions

_GENRES = (
    "Western Comedy Drama Thriller Romance Action Crime Horror Musical Mystery War Fantasy Adventure Animation "
    "Documentary Noir Satire Sport Heist Spy Samurai Opera Biopic Disaster Fable Courtroom Medical Prison Zombie "
    "Superhero Parody Travel Ballet Pirate Robot Epic"
)

# How the next item is chosen; set so that popularity, transitions and longer histories are each informative, in the
# proportions of MovieLens (tests/data/test_synthetic.py checks that).
_LATENT_SIZE = 16
_SPREAD = 0.8  # the distance of an item's latent vector from its genre's centre
_RECENT = 12  # past items that act on the next one, the one j steps back with weight 1 / j
_SUCCESSORS = 3  # likely next items of each item
_TASTE, _HOME, _FOLLOW, _POPULAR = 7.5, 2.0, 1.8, 0.8  # logits: recent items, home taste, successors, popularity
_DRIFT = 0.05  # the probability, at each event, that a user's home genre changes
_SEVERAL_TASTE, _SEVERAL_HOME = 8.0, 8.0  # instead of _TASTE and _HOME, and without drift, if users have several


@dataclass(frozen=True, eq=False)
class SyntheticData:
    """Events, and features of their items and users. All arrays are read-only; entry 0 is padding.

    Args:
        interactions: The events; raw ids and ids are the same numbers.
        item_genres: Genre ids from 1, int32, (V,), by item id.
        item_titles: Words such as "Western 17", objects, (V,), by item id.
        user_genres: The genre with which each user began, int32, (number of users + 1,), by user id; with several
            tastes, that of each taste, (number of users + 1, tastes).

    Example:
        >>> data = synthetic_interactions(num_users=50, num_items=60, mean_length=10, num_genres=3)
        >>> data.item_genres.shape, data.item_titles.shape, data.user_genres.shape
        ((61,), (61,), (51,))
        >>> genres = data.item_genres[data.interactions.items]  # of each event
        >>> bool(np.mean(genres == data.user_genres[data.interactions.users]) > 0.5)  # a third, if at random
        True
    """

    interactions: Interactions
    item_genres: np.ndarray
    item_titles: np.ndarray
    user_genres: np.ndarray


def synthetic_interactions(
    num_users: int = 3000,
    num_items: int = 1200,
    mean_length: float = 40,
    num_genres: int = 12,
    seed: int = 0,
    tastes: int = 1,
) -> SyntheticData:
    """Seeded events in which popularity predicts a little, the last item more, and the recent items together most.

    Items have Zipf popularity, a genre, a latent vector near their genre's, and a few successors. A user's next item is
    drawn from a softmax over the items that the user has not had. Its logits add popularity, similarity to the user's
    recent items (with weights 1, 1/2, 1/3, ... backwards) and to a home genre that sometimes changes, and whether the
    item is a successor of the recent items. No user has an item twice. Times are in seconds over about two years.

    A user with several tastes switches between them: each event belongs to one of them, drawn at random, and depends
    only on that taste's home genre and earlier items. Each taste begins in a genre of its own.

    Args:
        num_users: The number of users, each with at least 5 events.
        num_items: The number of items.
        mean_length: The mean number of events of a user, from 6 to a third of the items.
        num_genres: The number of genres, 2 to 36.
        seed: The same seed gives the same data.
        tastes: The number of tastes of each user, at most the number of genres. If there are several, the interactions
            have a side column ``taste`` with the number, from 1, of the taste that an event belongs to.

    Returns:
        The `SyntheticData`: the interactions, and the genres of items and users.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> data = synthetic_interactions(num_users=50, num_items=60, mean_length=10, num_genres=3)
        >>> data.interactions.num_users, data.interactions.num_items
        (50, 60)
        >>> sorted({title.split()[0] for title in data.item_titles[1:]})
        ['Comedy', 'Drama', 'Western']
    """
    positive_int("`num_users`", num_users)
    int_at_least("`num_items`", num_items, 30)
    int_at_least("`num_genres`", num_genres, 2)
    names = _GENRES.split()
    if num_genres > len(names):
        raise problem("`num_genres`", f"be at most {len(names)}", num_genres)
    if not 6 <= positive_number("`mean_length`", mean_length) <= num_items / 3:
        raise problem("`mean_length`", f"lie between 6 and a third of num_items, {num_items / 3:g}", mean_length)
    if positive_int("`tastes`", tastes) > num_genres:
        raise problem("`tastes`", f"be at most num_genres, {num_genres}", tastes)
    rng = np.random.default_rng(int_at_least("`seed`", seed, 0))

    genres = rng.integers(num_genres, size=num_items)
    centres = _unit(rng.standard_normal((num_genres, _LATENT_SIZE)))
    noise = _unit(rng.standard_normal((num_items, _LATENT_SIZE)))
    latent = _unit(centres[genres] + _SPREAD * noise)
    log_popularity = -np.log(rng.permutation(num_items) + 10.0)
    base = np.exp(_POPULAR * (log_popularity - log_popularity.max())).astype(np.float32)
    # Successors are drawn from the whole catalogue, popular ones more often, so that genre alone does not predict them.
    successors = rng.choice(num_items, size=(num_items, _SUCCESSORS), p=base / base.sum(dtype=np.float64))

    drawn = 5 + rng.gamma(1.5, (mean_length - 5) / 1.5, size=num_users)
    lengths = np.sort(np.minimum(drawn, num_items // 2).astype(np.int64))[::-1]
    if tastes == 1:
        home = rng.integers(num_genres, size=(num_users, 1))
    else:
        home = rng.permuted(np.tile(np.arange(num_genres), (num_users, 1)), axis=1)[:, :tastes]
    first_home = home.copy()
    chosen = np.zeros((num_users, lengths[0]), np.int32)
    taste_of = np.zeros((num_users, lengths[0]), np.int32)
    recent = np.zeros((num_users, tastes, _RECENT), np.int32)  # the items of each taste, most recent first
    events = np.zeros((num_users, tastes), np.int64)
    like_recent, like_home = (_TASTE, _HOME) if tastes == 1 else (_SEVERAL_TASTE, _SEVERAL_HOME)
    back = np.arange(_RECENT)
    open_ = np.ones((num_users, num_items), np.float32)  # 0 where the user had the item
    for step in range(lengths[0]):
        # Users are sorted by length, so those still active are the first ones.
        active = int(np.searchsorted(-lengths, -step))
        users = np.arange(active)
        taste = rng.integers(tastes, size=active) if tastes > 1 else np.zeros(active, np.int64)
        if tastes == 1:
            moved = rng.random(active) < _DRIFT
            home[:active][moved] = rng.integers(num_genres, size=(int(moved.sum()), 1))
        before = recent[users, taste]
        weights = (back < events[users, taste, None]) / (back + 1.0)
        wanted = like_home * centres[home[users, taste]]
        total = np.maximum(weights.sum(axis=1, keepdims=True), 1.0)  # the weight of one step back is 1
        wanted += like_recent * np.einsum("uk,ukd->ud", weights / total, latent[before])
        logits = (wanted @ latent.T).astype(np.float32)
        for lag in range(min(step, _RECENT)):
            logits[users[:, None], successors[before[:, lag]]] += np.float32(_FOLLOW) * weights[:, lag, None]
        # Of exponential clocks with these rates, item i's rings first with the softmax's probability. A float32 clock
        # may show exactly 0, which would make 0 / 0 of an item that the user had.
        rates = np.exp(logits) * base * open_[:active]
        clocks = np.maximum(rng.standard_exponential(rates.shape, dtype=np.float32), np.float32(1e-30))
        item = np.argmax(rates / clocks, axis=1)
        chosen[:active, step], taste_of[:active, step] = item, taste + 1
        open_[users, item] = 0
        recent[users, taste] = np.column_stack([item, before[:, :-1]])
        events[users, taste] += 1

    order = rng.permutation(num_users)  # so that user 1 is not the busiest
    lengths, chosen, taste_of, first_home = lengths[order], chosen[order], taste_of[order], first_home[order]
    real = np.arange(chosen.shape[1]) < lengths[:, None]
    start = rng.integers(0, 2 * 365 * 86400, size=(num_users, 1))
    gaps = 1 + rng.exponential(6 * 3600, size=chosen.shape).astype(np.int64)
    times = 1_600_000_000 + start + np.cumsum(gaps, axis=1)
    first_home = np.concatenate([np.zeros((1, tastes), np.int64), first_home + 1])
    per_genre = np.zeros(num_items, np.int64)
    for genre in range(num_genres):
        per_genre[genres == genre] = np.arange(1, 1 + (genres == genre).sum())
    titles = [f"{names[genre]} {number}" for genre, number in zip(genres, per_genre, strict=True)]
    interactions = Interactions(
        users=np.repeat(np.arange(1, num_users + 1, dtype=np.int32), lengths),
        items=chosen[real] + 1,
        times=times[real],
        side={"taste": taste_of[real]} if tastes > 1 else {},
        user_ids=IdMap(np.arange(1, num_users + 1)),
        item_ids=IdMap(np.arange(1, num_items + 1)),
    )
    return SyntheticData(
        interactions=interactions,
        item_genres=read_only(np.concatenate([[0], genres + 1]).astype(np.int32)),
        item_titles=read_only(np.array(["", *titles], dtype=object)),
        user_genres=read_only((first_home[:, 0] if tastes == 1 else first_home).astype(np.int32)),
    )


# How the next click of a session is chosen.
_AGAIN, _BACK, _ONWARDS = 0.8, 0.35, 0.7


def synthetic_sessions(
    num_sessions: int = 5000, num_items: int = 500, mean_length: float = 8, seed: int = 0
) -> Interactions:
    """Seeded sessions that return to earlier items, and continue from there as they did before.

    Each session is anonymous: a user of its own. If the session had the current item before, the next click is, with
    probability 0.8, the one that followed it last time. Otherwise it returns to any earlier item of the session with
    probability 0.35, goes to one of the item's three successors in the catalogue with probability 0.455, or else jumps
    to any item, with popular items more likely. The last click therefore predicts the next one a little, the other
    clicks more, and the order of the clicks within the session most.

    Args:
        num_sessions: The number of sessions, each with at least 2 clicks. They begin one hour apart, in order.
        num_items: The number of items.
        mean_length: The mean number of clicks of a session, above 2.
        seed: The same seed gives the same sessions.

    Returns:
        The interactions, with sessions and with times in seconds.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> sessions = synthetic_sessions(num_sessions=100, num_items=50)
        >>> sessions.num_items, sessions.user_name, int(sessions.sessions[-1])
        (50, 'session_id', 100)
    """
    positive_int("`num_sessions`", num_sessions)
    int_at_least("`num_items`", num_items, 10)
    if positive_number("`mean_length`", mean_length) <= 2:
        raise problem("`mean_length`", "be above 2", mean_length)
    rng = np.random.default_rng(int_at_least("`seed`", seed, 0))
    popularity = 1 / (rng.permutation(num_items) + 10.0)
    below = np.cumsum(popularity / popularity.sum())
    successors = rng.integers(num_items, size=(num_items, _SUCCESSORS))

    lengths = np.sort(1 + rng.geometric(1 / (mean_length - 1), size=num_sessions))[::-1]
    clicks = np.zeros((num_sessions, lengths[0]), np.int32)
    every = np.arange(num_sessions)
    for step in range(lengths[0]):
        active = int(np.searchsorted(-lengths, -step))  # the longest come first
        anywhere = np.minimum(np.searchsorted(below, rng.random(active)), num_items - 1)
        if step == 0:
            clicks[:, 0] = anywhere
            continue
        before, last = clicks[:active, :step], clicks[:active, step - 1]
        left = before[:, :-1] == last[:, np.newaxis]  # where the session was at this item, and went on
        latest = np.max(np.where(left, np.arange(1, step), 0), axis=1, initial=0)
        draw = rng.random((3, active))
        again = (latest > 0) & (draw[0] < _AGAIN)
        back, onwards = draw[1] < _BACK, draw[2] < _ONWARDS
        follower = successors[last, rng.integers(_SUCCESSORS, size=active)]
        earlier = before[every[:active], rng.integers(step, size=active)]
        new = np.where(back, earlier, np.where(onwards, follower, anywhere))
        clicks[:active, step] = np.where(again, before[every[:active], latest], new)

    order = rng.permutation(num_sessions)  # so that the longest session is not the first
    lengths, clicks = lengths[order], clicks[order]
    real = np.arange(clicks.shape[1]) < lengths[:, np.newaxis]
    times = 1_600_000_000 + 3600 * every[:, np.newaxis] + 30 * np.arange(clicks.shape[1])
    sessions = np.repeat(np.arange(1, num_sessions + 1, dtype=np.int32), lengths)
    return Interactions(
        users=sessions,
        items=clicks[real] + 1,
        times=times[real],
        side={},
        user_ids=IdMap(np.arange(1, num_sessions + 1)),
        item_ids=IdMap(np.arange(1, num_items + 1)),
        user_name="session_id",
        sessions=sessions,
    )


# How a session with an intent ends.
_KEPT, _LOYAL = 0.9, 0.6


def synthetic_intents(
    num_users: int = 3000,
    num_items: int = 120,
    num_categories: int = 6,
    num_brands: int = 5,
    mean_sessions: float = 6,
    mean_length: float = 7,
    seed: int = 0,
) -> Interactions:
    """Seeded sessions that end in the category they began with, and mostly in the user's constant favourite brand.

    Each item belongs to a category and a brand. Each user has one brand that never changes, and each click is on an
    item of that brand with probability 0.6, otherwise of any brand. The first click of a session shows what the user
    came for. The user then looks at items of any category, and the last click, the one to be predicted, is in the
    category of the first with probability 0.9, otherwise in any. The order of a session's clicks therefore predicts the
    category, since it shows which click was the first. The earlier sessions predict the brand. Within its category and
    brand, a click is more often on one of the popular items.

    Args:
        num_users: The number of users.
        num_items: The number of items, at least one for each pair of a category and a brand.
        num_categories: The number of categories, at least 2.
        num_brands: The number of brands.
        mean_sessions: The mean number of sessions of a user, above 2; each has at least 2.
        mean_length: The mean number of clicks of a session, above 3; each has at least 3.
        seed: The same seed gives the same sessions.

    Returns:
        Interactions with sessions and the side columns ``category`` and ``brand``, both from 1.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> events = synthetic_intents(num_users=50, num_items=100)
        >>> events.num_users, sorted(events.side), int(events.side["category"].max())
        (50, ['brand', 'category'], 6)
    """
    positive_int("`num_users`", num_users)
    int_at_least("`num_categories`", num_categories, 2)
    positive_int("`num_brands`", num_brands)
    int_at_least("`num_items`", num_items, num_categories * num_brands)
    for name, value, least in (("mean_sessions", mean_sessions, 2), ("mean_length", mean_length, 3)):
        if positive_number(f"`{name}`", value) <= least:
            raise problem(f"`{name}`", f"be above {least}", value)
    rng = np.random.default_rng(int_at_least("`seed`", seed, 0))
    cells = num_categories * num_brands
    cell_of = rng.permutation(np.arange(num_items) % cells)
    by_cell = np.argsort(cell_of, kind="stable")  # the items of a cell beside one another, the popular ones first
    size = np.bincount(cell_of)
    first = np.cumsum(size) - size

    brand = rng.integers(num_brands, size=num_users)
    sessions = 1 + rng.geometric(1 / (mean_sessions - 1), size=num_users)
    user = np.repeat(np.arange(num_users), sessions)
    length = 2 + rng.geometric(1 / (mean_length - 2), size=len(user))
    shape = len(user), length.max()
    category = rng.integers(num_categories, size=shape)
    kept = rng.random(len(user)) < _KEPT
    every = np.arange(len(user))
    category[every[kept], length[kept] - 1] = category[kept, 0]
    loyal = rng.random(shape) < _LOYAL
    of_brand = np.where(loyal, brand[user][:, np.newaxis], rng.integers(num_brands, size=shape))
    cell = category * num_brands + of_brand
    item = by_cell[first[cell] + (size[cell] * rng.random(shape) ** 2).astype(np.int64)]

    real = np.arange(shape[1]) < length[:, np.newaxis]
    which = every - np.repeat(np.cumsum(sessions) - sessions, sessions)  # of its user's sessions
    begin = 1_600_000_000 + rng.integers(86400, size=num_users)[user] + 86400 * which
    times = begin[:, np.newaxis] + 30 * np.arange(shape[1])
    return Interactions(
        users=np.repeat(user + 1, length).astype(np.int32),
        items=(item[real] + 1).astype(np.int32),
        times=times[real],
        side={"category": (category[real] + 1).astype(np.int32), "brand": (of_brand[real] + 1).astype(np.int32)},
        user_ids=IdMap(np.arange(1, num_users + 1)),
        item_ids=IdMap(np.arange(1, num_items + 1)),
        sessions=np.repeat(np.arange(1, len(user) + 1, dtype=np.int32), length),
    )


_TAKEN = 0.9  # the probability of an item of a category that the segment takes; 1 - _TAKEN of the others


def synthetic_pairs(
    num_users: int = 600,
    num_items: int = 400,
    num_segments: int = 24,
    num_categories: int = 24,
    pairs_per_user: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Seeded pairs of a user and an item, with labels that only the combination of two features predicts.

    Each user belongs to a segment, and each item to a category. A segment takes half of the categories, drawn at random
    for each segment, so what one segment takes says nothing about the others. Each user is shown random items, and
    takes an item with probability 0.9 if the segment takes its category, otherwise with probability 0.1. The segment
    alone predicts nothing, and the category alone little. The table of segments by categories has nearly full rank, so
    inner products of vectors of size D can represent it only if D is large enough.

    Args:
        num_users: The number of users.
        num_items: The number of items, at least one for each category.
        num_segments: The number of segments.
        num_categories: The number of categories, at least 2.
        pairs_per_user: The number of items that each user is shown; an item may be shown again.
        seed: The same seed gives the same pairs.

    Returns:
        A row for each pair, in random order: ``user_id``, ``segment``, ``item_id`` and ``category``, int32 from 1, and
        ``taken``, the label, float32.

    Raises:
        ValueError: An argument out of range.

    Example:
        >>> pairs = synthetic_pairs(num_users=50, num_items=60)
        >>> len(pairs), pairs.columns.tolist()
        (5000, ['user_id', 'segment', 'item_id', 'category', 'taken'])
    """
    positive_int("`num_users`", num_users)
    positive_int("`num_segments`", num_segments)
    int_at_least("`num_categories`", num_categories, 2)
    int_at_least("`num_items`", num_items, num_categories)
    rng = np.random.default_rng(int_at_least("`seed`", seed, 0))
    takes = rng.permuted(np.tile(np.arange(num_categories) % 2 == 0, (num_segments, 1)), axis=1)
    segment = rng.integers(num_segments, size=num_users)
    category = rng.permutation(np.arange(num_items) % num_categories)
    user = rng.permutation(np.repeat(np.arange(num_users), positive_int("`pairs_per_user`", pairs_per_user)))
    item = rng.integers(num_items, size=len(user))
    taken = takes[segment[user], category[item]] ^ (rng.random(len(user)) >= _TAKEN)
    ids = {"user_id": user, "segment": segment[user], "item_id": item, "category": category[item]}
    return pd.DataFrame(
        {**{name: (values + 1).astype(np.int32) for name, values in ids.items()}, "taken": taken.astype(np.float32)}
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
