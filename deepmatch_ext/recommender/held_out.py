"""Which events `Recommender.fit` holds out, for a test and to decide when to stop."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepmatch_ext._checks import problem, shown
from deepmatch_ext.data import Interactions, Split, leave_last_out, split_by_time
from deepmatch_ext.data.splits import moment, timed_targets
from deepmatch_ext.recommender.wording import own_names

LAST = "last"


def split_of(interactions: Interactions, validation: Any, test: Any) -> Split:
    """What `Recommender.fit` holds out."""
    given = [each for each in (validation, test) if each is not None]
    by_last = [isinstance(each, str) and each == LAST for each in given]
    for name, each in (("validation", validation), ("test", test)):
        if isinstance(each, str) and each != LAST and not each[:1].isdigit():
            raise problem(f"`{name}`", f'be "{LAST}" or a time', repr(each))
    if any(by_last) and not all(by_last):
        raise problem("`validation` and `test`", f'both be "{LAST}" or times', f"{shown(validation)}, {shown(test)}")
    if any(by_last) and interactions.sessions is not None:
        what = "test" if validation is None else "validation"
        rule = "be a time where events have sessions, which are held out as a whole"
        raise problem(f"`{what}`", rule, repr(LAST))
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
        with own_names(validation_from="validation", test_from="test", interactions="events"):
            split = split_by_time(interactions, validation, test)
        for what, where in (("validation", "before `test`"), ("test", "to test on")):
            if not len(getattr(split, what)):
                rule = f"leave events with a history {where}"
                raise problem(f"`{what}`", rule, f"{shown(validation)} and {shown(test)}")
        return split
    what = "validation" if test is None else "test"
    if interactions.times is None:
        raise problem(f"`{what}`", f'be "{LAST}" where events have no times', shown(given[0]))
    targets, times, has_history = timed_targets(interactions, interactions.times)
    is_later = times >= moment(f"`{what}`", given[0], interactions.times, interactions.has_zone)
    if is_later.all() or not is_later.any():
        raise problem(f"`{what}`", "have events on both sides", f"{given[0]!r}")
    if not (is_later & has_history).any():
        rule = "leave later sessions with more than one event"
        raise problem(f"`{what}`", rule, f"{given[0]!r}", "A session's first event can't be predicted.")
    held_out = {"validation": none, "test": none, what: targets[is_later & has_history]}
    return Split(interactions, targets[~is_later], **held_out)
