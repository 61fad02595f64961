import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deepmatch_ext.layers import AtNow, AtPlaces, LossOfRows, TrainedPositions, UpToLongest

HISTORIES = st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=5)


def padded(histories, width=6):
    return np.array([[*each, *[0] * (width - len(each))] for each in histories], "int32").reshape(-1, width)


@given(HISTORIES)
def test_a_batch_is_cut_after_its_longest_history(histories):
    ids = padded(histories)
    cut, doubled = UpToLongest()([tf.constant(ids), tf.constant(ids[..., np.newaxis] * 2.0)])
    longest = max(1, *map(len, histories))
    np.testing.assert_array_equal(cut, ids[:, :longest])
    np.testing.assert_array_equal(doubled, ids[:, :longest, np.newaxis] * 2.0)


@given(HISTORIES, st.data())
def test_each_position_is_trained_on_what_came_next(histories, data):
    targets = data.draw(st.lists(st.integers(1, 9), min_size=len(histories), max_size=len(histories)))
    ids = padded(histories)
    inputs = [tf.constant(ids), tf.constant(targets, tf.int32)[:, tf.newaxis]]
    places, items = TrainedPositions()(inputs, training=True)
    expected = []
    for row, (history, target) in enumerate(zip(histories, targets, strict=True)):
        following = [target, *history]
        expected += [(row, place, following[place]) for place in range(max(1, len(history)))]
    assert [
        (*place, item) for place, item in zip(places.numpy().tolist(), items.numpy().tolist(), strict=True)
    ] == expected
    places, items = TrainedPositions()(inputs, training=False)
    assert places.numpy().tolist() == [[row, 0] for row in range(len(histories))]
    assert items.numpy().tolist() == targets


@given(st.integers(1, 4), st.integers(0, 5))
def test_what_stands_behind_a_place(length, behind):
    values = np.arange(1.0, 2 * length + 1).reshape(2, length, 1).astype("float32")
    places = [(row, position) for row in range(2) for position in range(length)]
    expected = [values[row, position + behind, 0] if position + behind < length else 0.0 for row, position in places]
    found = AtPlaces(behind)([tf.constant(values), tf.constant(places, tf.int64)])
    np.testing.assert_array_equal(found.numpy()[:, 0], expected)
    np.testing.assert_array_equal(AtNow(behind)(values).numpy()[:, 0], expected[::length])


def test_a_row_says_the_same_at_all_of_its_places():
    found = AtPlaces()([tf.constant([[1.0], [2.0]]), tf.constant([[0, 0], [0, 1], [1, 0]], tf.int64)])
    assert found.numpy().tolist() == [[1], [1], [2]]


def test_a_rows_loss_is_the_sum_of_its_positions_by_the_most_that_there_can_be():
    losses, places = tf.constant([[1.0], [2.0], [6.0]]), tf.constant([[0, 0], [0, 1], [2, 0]], tf.int64)
    ids = tf.constant([[7, 5], [0, 0], [4, 0]])
    assert LossOfRows(4)([losses, places, ids], training=True).numpy().tolist() == [[0.75], [0], [1.5]]
    now = tf.constant([[0, 0], [1, 0], [2, 0]], tf.int64)
    assert LossOfRows(4)([losses, now, ids], training=False).numpy().tolist() == [[1], [2], [6]]


@pytest.mark.parametrize(("layer", "value"), [(AtNow, -1), (AtPlaces, 1.5), (LossOfRows, 0)])
def test_wrong_numbers_are_refused(layer, value):
    with pytest.raises(ValueError, match=r"`behind`|`max_len`"):
        layer(value)
