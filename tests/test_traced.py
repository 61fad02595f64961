"""Functions that all models share, and assertions of one operation."""

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext._traced import assertion, traced_once


def test_a_function_is_traced_once_for_each_type():
    traces = []

    @traced_once(2, 0)
    def scaled(values, factor):
        traces.append(values.dtype)
        return values * factor

    for values in (np.ones((2, 3)), np.ones((5, 1)), np.ones((0, 3))):
        np.testing.assert_array_equal(scaled(tf.constant(values), tf.constant(3.0, tf.float64)), values * 3)
    step = tf.function(lambda values: scaled(values, tf.constant(2.0)))
    np.testing.assert_array_equal(step(tf.ones([4, 2])), np.full((4, 2), 2))
    assert traces == [tf.float64, tf.float32]


@pytest.mark.parametrize("in_graph", [False, True])
def test_an_assertion_fails_with_what_it_is_given(in_graph):
    def checked(value):
        check = assertion(value < 3, "must be below 3; got", value)
        with tf.control_dependencies([] if check is None else [check]):
            return value * 2

    checked = tf.function(checked) if in_graph else checked
    assert checked(tf.constant(2)).numpy() == 4
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)must be below 3; got.*5"):
        checked(tf.constant(5))
