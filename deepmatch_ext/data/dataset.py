"""A data set in one form, from any kind of files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from deepmatch_ext.data.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in one form, from any kind of files. ``print(dataset)`` says in one line what it holds.

    Args:
        name: The name of its folder or file.
        interactions: The events, with the names "user_id" and "item_id".
        users: Attributes of users as strings, indexed by raw user id, or None. Some users may be missing, and users
            without events may be there.
        items: Attributes of items as strings, indexed by raw item id, or None: "title" and "genres" (as in
            "Crime|Drama") if they are known, and the file's other columns under their own names.
        note: What ``print(dataset)`` says besides the numbers, such as the columns that were read.

    Example:
        >>> events = Interactions.from_sequences([0, 2, 3], [2, 1, 2], times=[10, 20, 15])
        >>> dataset = Dataset("shop", events, items=pd.DataFrame({"title": ["Tea", "Milk"]}, index=[1, 2]))
        >>> print(dataset)
        shop: 3 rows, 2 users, 2 items, times from 10 to 20; attributes of 2 of 2 items
        >>> of_user_1 = events.items[events.users == 1]
        >>> dataset.items.loc[events.item_ids.decode(of_user_1), "title"].tolist()
        ['Milk', 'Tea']
    """

    name: str
    interactions: Interactions
    users: pd.DataFrame | None = None
    items: pd.DataFrame | None = None
    note: str = ""

    def __str__(self) -> str:
        x = self.interactions
        numbers = {"row": len(x), "user": x.num_users, "item": x.num_items}
        counts = ", ".join(f"{number:,} {what}{'s' * (number != 1)}" for what, number in numbers.items())
        known = [
            f"{int(pd.Index(ids.values).isin(table.index).sum()):,} of {len(ids):,} {side}"
            for side, table, ids in [("users", self.users, x.user_ids), ("items", self.items, x.item_ids)]
            if table is not None
        ]
        parts = [
            f"{counts}, {_from_to(x.times)}",
            *([f"attributes of {' and '.join(known)}"] if known else []),
            *filter(None, [self.note]),
        ]
        return f"{self.name}: {'; '.join(parts)}"


def _from_to(times: np.ndarray | None) -> str:
    """The first and the last time as they are written and, if they are probably Unix times, as dates."""
    if times is None:
        return "no times: the order of the rows"
    first, last = times.min(), times.max()
    if times.dtype.kind == "M":
        return f"times from {_date(first, first, last)} to {_date(last, first, last)}"
    text = f"times from {first} to {last}"
    for name, each in {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}.items():
        if first / each >= 631_152_000 and last / each < 4_102_444_800:  # 1990 to 2099
            dates = [pd.Timestamp(int(moment / each), unit="s").date() for moment in (first, last)]
            return f"{text} (as Unix {name}: {dates[0]} to {dates[1]})"
    return text


def _date(moment: np.datetime64, *both: np.datetime64) -> str:
    whole_days = all(each == each.astype("datetime64[D]") for each in both)
    return str(moment.astype("datetime64[D]" if whole_days else "datetime64[s]")).replace("T", " ")
