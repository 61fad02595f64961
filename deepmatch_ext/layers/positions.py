"""Every position of a history as a training example, so that a row trains as many predictions as it has events.

Histories list the most recent event first. The state at position k reads position k and those behind it, so it is the
user's state at that time. The item that came next is at k - 1; at position 0, it is the row's own target.

B rows, t positions of the longest history of a batch, N positions that are trained, d the size of a position's vector.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._checks import int_at_least, positive_int
from deepmatch_ext._keras import in_training, keras, register
from deepmatch_ext.layers.jagged import is_padded
from deepmatch_ext.layers.pooling import IdLayer, item_mask


@register
class UpToLongest(IdLayer):
    """Cuts off the positions at the end that are padding in all histories of a batch; at least one position stays.

    Input: ids (B, T), items in front; or a list of ids and other values of each position, (B, T, ...). Output: the
    same with t positions.

    Example:
        >>> UpToLongest()(tf.constant([[7, 5, 0, 0], [4, 0, 0, 0]])).numpy()
        array([[7, 5],
               [4, 0]], dtype=int32)
    """

    def call(self, inputs: Any) -> Any:
        several = isinstance(inputs, list | tuple)
        values = list(inputs) if several else [inputs]
        if not is_padded():
            has_item = tf.reduce_any(item_mask(values[0]), axis=0)
            longest = tf.maximum(tf.reduce_sum(tf.cast(has_item, tf.int32)), 1)
            values = [each[:, :longest] for each in values]
        else:
            values = [tf.identity(each) for each in values]
        return values if several else values[0]

    def compute_output_shape(self, input_shape: Any) -> Any:
        def shorter(shape: Any) -> tuple[int | None, ...]:
            return (shape[0], None, *shape[2:])

        several = isinstance(input_shape, list) or isinstance(input_shape[0], list | tuple | tf.TensorShape)
        return [shorter(shape) for shape in input_shape] if several else shorter(input_shape)


@register
class TrainedPositions(IdLayer):
    """The positions that a step trains, and the item that came next at each of them.

    In training, these are all positions that hold an item, and each row's first position, even if its history is
    empty. Otherwise, they are only the first positions, since evaluation uses only the row's own target.

    Input: ``[ids (B, t), targets (B, 1)]``, all of the same integer type: the items of each history, most recent first
    and in front, and the item that came next.

    Output: ``places`` (N, 2) int64, row and position, ascending; and ``items`` (N,), the item that came next at each.

    Example:
        >>> ids, targets = tf.constant([[7, 5, 0], [4, 0, 0]]), tf.constant([[9], [6]])
        >>> places, items = TrainedPositions()([ids, targets], training=True)
        >>> places.numpy().tolist(), items.numpy().tolist()
        ([[0, 0], [0, 1], [1, 0]], [9, 7, 6])
        >>> TrainedPositions()([ids, targets], training=False)[1].numpy().tolist()
        [9, 6]
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_jit = False  # how many positions there are is not known beforehand

    def call(self, inputs: Any, training: Any = None) -> tuple[tf.Tensor, tf.Tensor]:
        ids, targets = inputs
        is_first = tf.broadcast_to(tf.equal(tf.range(tf.shape(ids)[1]), 0), tf.shape(ids))
        is_trained = is_first | (item_mask(ids) & tf.cast(in_training(training), tf.bool))
        places = tf.where(is_trained)
        following = tf.concat([tf.cast(tf.reshape(targets, [-1, 1]), ids.dtype), ids[:, :-1]], axis=1)
        return places, tf.gather_nd(following, places)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None, 2), (None,)


@register
class ByPosition(keras.layers.Layer):
    """Reshapes the vectors of all items of all histories, one after the other, to one vector for each position.

    Input: ``[vectors (B t, d), ids (B, t)]``. Output: (B, t, d).

    Example:
        >>> ByPosition()([tf.constant([[7.0], [5.0], [4.0], [0.0]]), tf.constant([[7, 5], [4, 0]])]).shape
        TensorShape([2, 2, 1])
    """

    def call(self, inputs: Any) -> tf.Tensor:
        vectors, ids = inputs
        return tf.reshape(vectors, [*tf.unstack(tf.shape(ids)), vectors.shape[-1]])

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[1], input_shape[0][-1])


class _At(keras.layers.Layer):
    """The base class of layers that read a history some positions behind a given one."""

    def __init__(self, behind: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.behind = int_at_least("`behind`", behind, 0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "behind": self.behind}


@register
class AtPlaces(_At):
    """The values at the places of `TrainedPositions`, or some positions behind them; or the values of their rows.

    Args:
        behind: How many positions further back to read; behind the last position, the values are zeros.

    Input: ``[values (B, t, d) or (B, d), places (N, 2)]``. Output: (N, d).

    Example:
        >>> values, places = tf.constant([[[7.0], [5.0]], [[4.0], [0.0]]]), tf.constant([[0, 0], [0, 1], [1, 0]])
        >>> AtPlaces()([values, places]).numpy().ravel(), AtPlaces(behind=1)([values, places]).numpy().ravel()
        (array([7., 5., 4.], dtype=float32), array([5., 0., 0.], dtype=float32))
    """

    def call(self, inputs: Any) -> tf.Tensor:
        values, places = inputs
        if values.shape.rank == 2:
            return tf.gather(values, places[:, 0])
        if not self.behind:
            return tf.gather_nd(values, places)
        row, position = tf.unstack(places, axis=1)
        length = tf.shape(values, out_type=places.dtype)[1]
        there = tf.stack([row, tf.minimum(position + self.behind, length - 1)], axis=1)
        is_there = tf.cast(position + self.behind < length, values.dtype)
        return tf.gather_nd(values, there) * is_there[:, tf.newaxis]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None, input_shape[0][-1])


@register
class AtNow(_At):
    """The values at the first position, which is the user's current state, or some positions behind it.

    Args:
        behind: How many positions further back to read; behind the last position, the values are zeros.

    Input: (B, t, d). Output: (B, d).

    Example:
        >>> AtNow(behind=1)(tf.constant([[[7.0], [5.0]]])).numpy()
        array([[5.]], dtype=float32)
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if inputs.shape[1] is not None and inputs.shape[1] <= self.behind:
            return tf.zeros_like(inputs[:, 0])
        return tf.reduce_sum(inputs[:, self.behind : self.behind + 1], axis=1)  # an empty sum is zero

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], input_shape[-1])


@register
class LossOfRows(keras.layers.Layer):
    """Turns losses of positions into losses of rows: their sum, divided by the maximum number of positions in a row.

    Each position then counts the same in all batches. If the sum were divided by the number of positions in the batch,
    a position in a batch of short histories would count more.

    Args:
        max_len: T, the maximum number of positions.

    Input: ``[losses (N, 1), places (N, 2), ids (B, t)]``. Output: (B, 1) float32. Outside training, each row has one
    position, and its loss is returned unchanged.

    Example:
        >>> losses, places = tf.constant([[1.0], [2.0], [6.0]]), tf.constant([[0, 0], [0, 1], [1, 0]])
        >>> LossOfRows(max_len=4)([losses, places, tf.constant([[7, 5], [4, 0]])], training=True).numpy().ravel()
        array([0.75, 1.5 ], dtype=float32)
    """

    def __init__(self, max_len: int, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        self.max_len = positive_int("`max_len`", max_len)

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        losses, places, ids = inputs
        of_rows = tf.math.unsorted_segment_sum(tf.cast(losses, tf.float32), places[:, 0], tf.shape(ids)[0])
        return of_rows / tf.where(tf.cast(in_training(training), tf.bool), float(self.max_len), 1.0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[2][0], 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_len": self.max_len}
