"""The one place where K scores become one, against scores in float64."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from deepmatch_ext._interests import best_pair_scores, best_scores, nearest_interests
from tests.helpers import true_scores

pytestmark = pytest.mark.plain

NUMBERS = st.integers(-3, 3).filter(bool)  # no zeros: those are passed over before


@st.composite
def users_and_items(draw):
    rows, interests, width = draw(st.integers(0, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    shape = draw(st.sampled_from([(rows, width), (rows, interests, width)]))
    users = draw(hnp.arrays(np.float32, shape, elements=NUMBERS))
    return users, draw(hnp.arrays(np.float32, (rows, width), elements=NUMBERS))


@given(users_and_items())
def test_scores_are_the_best_of_the_interests(case):
    users, items = case
    expected = true_scores(users, items)
    assert best_scores(users, items).tolist() == expected.tolist()
    assert best_pair_scores(users, items).tolist() == np.diag(expected).tolist()
    for user, item, nearest in zip(users, items, nearest_interests(users, items), strict=True):
        assert nearest @ item == max(interest @ item for interest in np.atleast_2d(user))


def test_of_equally_near_interests_the_first_is_taken():
    users, items = np.array([[[1.0, 2.0], [2.0, 1.0]]]), np.array([[1.0, 1.0]])
    assert nearest_interests(users, items).tolist() == [[1.0, 2.0]]


def test_users_are_never_changed():
    users, items = np.ones((2, 3, 2), np.float32), np.ones((2, 2), np.float32)
    users.flags.writeable = items.flags.writeable = False  # a write raises
    best_scores(users, items)
    best_pair_scores(users, items)
