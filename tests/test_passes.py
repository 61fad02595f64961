"""Orders of rows that are in memory: what a draw decides, and what it leaves."""

import numpy as np
import pytest

from deepmatch_ext._passes import permutation

pytestmark = pytest.mark.plain


def test_a_draw_decides_the_order_of_all_rows():
    np.testing.assert_array_equal(
        permutation(np.random.default_rng([7, 1]), 50), np.random.default_rng([7, 1]).permutation(50)
    )


@pytest.mark.parametrize(("rows", "batch_size"), [(50, 8), (48, 8), (7, 8), (8, 8), (5, 1)])
def test_whole_batches_stay_as_they_are_and_what_is_left_over_stays_at_the_end(rows, batch_size):
    order = permutation(np.random.default_rng(3), rows, batch_size)
    whole = rows // batch_size * batch_size
    assert order[whole:].tolist() == list(range(whole, rows))
    blocks = order[:whole].reshape(-1, batch_size)
    assert (blocks == blocks[:, :1] + np.arange(batch_size)).all()
    assert sorted(blocks[:, 0].tolist()) == list(range(0, whole, batch_size))
    if len(blocks) > 4:
        assert order[:whole].tolist() != list(range(whole))
