"""What stands in a list where no item is left: one rule for `top_n`, every index, exports and `IdMap.decode`."""

from __future__ import annotations

import itertools

import numpy as np

from deepmatch_ext._checks import problem


def no_item(what: str, ids: np.ndarray) -> int | str:
    """``""`` among strings; among integers the first of 0, -1, -2, ... that is not in ``ids``.

    In an unsigned type -1 is the type's largest value, -2 the one below it, and so on.

    Args:
        what: The ids' name in an error message.
        ids: (V,) integers, or objects that are all ``str``.

    Raises:
        ValueError: Every such value is an item's id.
    """
    if ids.dtype == object:
        if (ids == "").any():
            raise problem(what, "hold no empty string, which stands where there is no item", "one")
        return ""
    signed = ids.astype(f"i{ids.itemsize}")  # an unsigned type's largest value becomes -1
    taken = set(signed[signed <= 0].tolist())
    value = next(value for value in itertools.count(0, -1) if value not in taken)
    if value < np.iinfo(signed.dtype).min:
        got = f"{ids.dtype} with all of these"
        rule = "leave one of 0, -1, -2, ... (unsigned: 0 and the largest) to stand where there is no item"
        raise problem(what, rule, got, "Pass a wider integer type.")
    return int(np.array(value).astype(ids.dtype))
