"""Time between the positions of a history, in buckets by its logarithm, and what a model learns for each bucket.

B rows, q positions that look back, t positions of the history.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import as_flag, positive_int
from deepmatch_ext._keras import compute_dtype, keras, register
from deepmatch_ext._traced import traced_once
from deepmatch_ext.layers.pooling import IdLayer

BUCKETS = 64  # as many as an int64 has powers of two
_NEVER = 2**62  # later than any event
_NUDGE = 1e-5  # to float32's logarithm of a power of two, which may be a little less than a whole number


@register
class TimeBuckets(IdLayer):
    """How long before position k the event at position j was: the bucket of d units of time is floor(log2(1 + d)).

    Logarithmic buckets of relative time, as in HSTU (Zhai et al., ICML 2024), but to base 2, and up to rounding. They
    need no unit: if times are in milliseconds instead of seconds, all events move to higher buckets together.

    Args:
        of_next: Whether position k stands for the moment at which the next event comes, which is when recommendations
            are requested: its time is that of position k - 1, and for position 0 that of the request. Otherwise, it
            stands for the moment of its own event.
        first_only: Whether to return only position 0, the current one.

    Input: ``[times (B, t, 1) int64, valid (B, t)]``, most recent first and padding last; with ``of_next``, then also
    the request's times (B, 1) int64.

    Output: (B, t, t) int32, or (B, 1, t) with ``first_only``: element (k, j) for position k and the event at j. 0 where
    the event at j is later, or padding.

    Example:
        >>> times, valid, request = tf.constant([[[70], [60], [0]]]), tf.constant([[True] * 3]), tf.constant([[100]])
        >>> TimeBuckets()([times, valid]).numpy()[0].tolist()  # differences of 10, 70 and 60
        [[0, 3, 6], [0, 0, 5], [0, 0, 0]]
        >>> TimeBuckets(of_next=True)([times, valid, request]).numpy()[0].tolist()  # 30, 40, 100; 10, 70; 60
        [[4, 5, 6], [0, 3, 6], [0, 0, 5]]
    """

    def __init__(self, of_next: bool = False, first_only: bool = False, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "int32")
        super().__init__(**kwargs)
        self.of_next, self.first_only = as_flag("`of_next`", of_next), as_flag("`first_only`", first_only)

    def call(self, inputs: Any) -> tf.Tensor:
        times, valid, *request = inputs
        times = tf.cast(tf.squeeze(times, axis=2), tf.int64)
        now = tf.concat([*(tf.cast(time, tf.int64) for time in request), times], axis=1)
        now = now[:, :1] if self.first_only else now[:, : tf.shape(times)[1]]
        times = tf.where(tf.cast(valid, tf.bool), times, _NEVER)
        passed = tf.cast(1 + tf.maximum(now[:, :, tf.newaxis] - times[:, tf.newaxis], 0), tf.float32)
        return tf.cast(tf.math.log(passed) * (1 / math.log(2)) + _NUDGE, tf.int32)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch, length = input_shape[1]
        return (batch, 1 if self.first_only else length, length)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "of_next": self.of_next, "first_only": self.first_only}


@register
class SinceLastEvent(keras.layers.Layer):
    """A learnt vector for the time since each position's own event, initially zeros.

    A weighted mean of events can only prefer some to others; this says what to do after a pause of some length.

    Args:
        dim: D, the size of the vectors.

    Input: ``[buckets (B, q, t), valid (B, t)]``, the first from `TimeBuckets`.

    Output: (B, q, D), in the layer's compute dtype; zeros where a position holds no event.

    Example:
        >>> SinceLastEvent(dim=4)([tf.constant([[[4, 5], [0, 3]]]), tf.constant([[True, True]])]).shape
        TensorShape([1, 2, 4])
    """

    def __init__(self, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = positive_int("`dim`", dim)

    def build(self, input_shape: Any = None) -> None:
        self.rows = self.add_weight(name="rows", shape=(BUCKETS, self.dim), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Any) -> tf.Tensor:
        buckets, valid = inputs
        _, positions, length = tf.unstack(tf.shape(buckets))
        is_own = tf.equal(tf.range(positions)[:, tf.newaxis], tf.range(length))  # TFLite has no diagonal parts
        rows = tf.gather(self.rows, tf.reduce_sum(tf.where(is_own, buckets, 0), axis=2))
        rows = tf.where(tf.cast(valid, tf.bool)[:, :positions, tf.newaxis], rows, 0.0)
        return tf.cast(rows, compute_dtype(self))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[0][:2], self.dim)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dim": self.dim}


def of_buckets(values: Any, buckets: tf.Tensor, training: Any) -> tf.Tensor:
    """(B, n, q, t): ``values`` (n, `BUCKETS`) of the buckets (B, q, t)."""
    values = tf.cast(values, tf.float32)
    taken = _taken(values, buckets) if training is True else _gathered(values, buckets)
    return tf.ensure_shape(taken, [None, values.shape[0], *buckets.shape[1:]])


def _gathered(values: tf.Tensor, buckets: tf.Tensor) -> tf.Tensor:
    return tf.transpose(tf.gather(values, buckets, axis=1), [1, 0, 2, 3])


@traced_once(2, 3)
def _taken(values: tf.Tensor, buckets: tf.Tensor) -> tf.Tensor:
    """The gradient is the sum by bucket; TensorFlow's would have a row for each element."""

    @tf.custom_gradient
    def taken(values: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            by_value = tf.reshape(tf.transpose(upstream, [1, 0, 2, 3]), [tf.shape(values)[0], -1])
            flat = tf.reshape(buckets, [-1])
            return tf.map_fn(lambda of: tf.math.unsorted_segment_sum(of, flat, BUCKETS), by_value)

        return _gathered(values, buckets), gradient

    result: tf.Tensor = taken(values)
    return result
