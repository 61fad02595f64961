"""What a recommender is judged by: which events it may be, and what stands beside the model."""

import warnings

import numpy as np
import pandas as pd
import pytest

from deepmatch_ext import Recommender
from tests.recommender.test_recommender import EVENTS, NAMES, SMALL

TOMORROW = EVENTS[:20].assign(at=10_000 + np.arange(20))


@pytest.fixture(scope="module")
def plain():
    return Recommender(**NAMES, **SMALL).fit(EVENTS, test="last", epochs=1, verbose=0)


def warned_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught]


def test_events_after_those_of_fit_are_no_reason_to_warn(plain, capsys):
    assert warned_of(lambda: plain.evaluate(TOMORROW, exclude_seen=False)) == []
    assert "events after those that the model knows (20 events)" in capsys.readouterr().out


def test_events_that_the_model_knows_are_told_of(plain, capsys):
    # All of them, those that `fit` held out among them: they are in histories.
    (said,) = warned_of(lambda: plain.evaluate(EVENTS, exclude_seen=False))
    assert said.startswith("320 of 320 events are among those that `fit` or `update` has read")
    assert 'fit(events, test="last")' in said
    assert "320 of 320 are not after those that the model knows (320 events)" in capsys.readouterr().out
    # Two of the same in one table are not known for that.
    mixed = pd.concat([EVENTS[:3], TOMORROW[:1], TOMORROW])
    with pytest.warns(UserWarning, match="^3 of 24 events are among those"):
        plain.evaluate(mixed, exclude_seen=False, verbose=0)


def test_events_before_the_last_known_one_are_told_of(plain, tmp_path):
    last = EVENTS["at"].max()
    both = pd.concat([TOMORROW, EVENTS[:7].assign(at=last - 0.5), EVENTS[:2].assign(at=last + 0.5)])
    (said,) = warned_of(lambda: plain.evaluate(both, exclude_seen=False, verbose=0))
    assert said.startswith(f"7 of 29 events are earlier than the last one that the model knows, {float(last)}")
    assert "fit(events, test=time)" in said


def test_events_of_an_update_are_known_too(plain, tmp_path):
    plain.save(tmp_path / "before")
    recommender = Recommender.load(tmp_path / "before").update(TOMORROW, epochs=0)
    with pytest.warns(UserWarning, match="^20 of 20 events are among those"):
        recommender.evaluate(TOMORROW, exclude_seen=False, verbose=0)
