import numpy as np
import tensorflow as tf

from deepmatch_ext.layers import FirstRows, NearestInterest


def test_the_nearest_interest_alone_is_trained():
    interests = tf.constant([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [-2.0, 0.0]]])
    positives = tf.constant([[0.6, 0.8], [1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(interests)
        nearest = NearestInterest()([interests, positives])
    # Of the second user, -1 is above -2.
    np.testing.assert_array_equal(nearest, [[0, 1], [-1, 0]])
    np.testing.assert_array_equal(tape.gradient(nearest, interests), [[[0, 0], [1, 1]], [[1, 1], [0, 0]]])


def test_first_rows():
    vectors = tf.reshape(tf.range(8.0), [4, 2])
    np.testing.assert_array_equal(FirstRows()([tf.zeros([3, 5]), vectors]), vectors[:3])
