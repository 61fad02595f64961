"""The sets of quality.py as they are held out. Needs deepmatch_ext."""

import numpy as np

from deepmatch_ext import data


def held_out_set(folder):
    """What is trained on, and what is ranked.

    Users: each one's last item is the test, the one before it the validation. Sessions, where the folder holds
    train.npz and test.npz as SR-GNN splits them: the clicks of the last tenth of the training sessions but each one's
    first are the validation; the test are the published cases. What a session holds is never left out of a ranking.

    Returns:
        The split, and for "validation" and "test" the interactions and the rows in them that have to be ranked.
    """
    if (folder / "test.npz").exists():
        return _sessions(folder)
    split = data.leave_last_out(data.read_dataset(folder, verbose=False).interactions)
    return split, {part: (split.interactions, getattr(split, part)) for part in ("validation", "test")}


def _sessions(folder):
    with np.load(folder / "train.npz") as train, np.load(folder / "test.npz") as test:
        events = data.Interactions.from_sequences(train["indptr"], train["items"], sessions=True)
        indptr, prefixes, targets = test["indptr"], test["items"], test["targets"]
    is_later = events.sessions > events.sessions.max() * 9 // 10
    split = data.Split(events, np.flatnonzero(~is_later), np.flatnonzero(is_later & (events.position > 0)), [])
    ends = indptr[1:] + np.arange(1, len(indptr))  # each prefix with its target behind it
    items = np.insert(prefixes, indptr[1:], targets)
    cases = data.Interactions.from_sequences(np.append(0, ends), items, sessions=True)
    return split, {"validation": (events, split.validation), "test": (cases, ends - 1)}
