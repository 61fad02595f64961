"""Losses as pure functions of logits. B: examples in the batch, S: sampled candidates, D: embedding size.

Every loss takes the same two tensors, which `candidate_logits` makes: the logits of the positives (B, 1) and of the
candidates (B, S). The log of each item's expected count is subtracted, and a candidate that is the positive is masked.
With that correction, each loss is minimal if ``u.i / temperature`` is the log of the item's probability, up to a
constant.

`LOSSES` holds the losses by name. To add your own, write a function and enter it there::

    def hinge(positive, candidates):  # (B, 1) and (B, S) -> (B, 1)
        return tf.reduce_mean(tf.nn.relu(1 + candidates - positive), axis=1, keepdims=True)

    LOSSES["hinge"] = hinge
    model = YoutubeDNN(user_columns, item_columns, loss="hinge")

A loss may also take any of `OTHER_ARGUMENTS`, by naming them among its arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from deepmatch_ext._checks import one_of, problem
from deepmatch_ext._keras import register
from deepmatch_ext._traced import traced_once

# Far below any logit that a loss can tell apart, and finite in float32, so that gradients stay finite.
_MASKED = -1e30


class Candidates(NamedTuple):
    """What a sampler passes to a loss: the positives of a batch, then the candidates that were drawn.

    Attributes:
        ids: (B + S,) int64; the first B are the positives.
        log_counts: (B + S,) float32, the log of the expected count of each among the candidates.
        in_batch: () bool, whether the positives are candidates, too.

    Example:
        >>> from deepmatch_ext.layers import CandidateSampler
        >>> from deepmatch_ext.samplers import UniformSampler
        >>> sampler = CandidateSampler(UniformSampler(3), vocabulary_size=50)
        >>> candidates = Candidates(*sampler(tf.constant([[7], [9]])))  # the positives of two examples
        >>> candidates.ids.shape, candidates.ids[:2].numpy().tolist(), bool(candidates.in_batch)
        (TensorShape([5]), [7, 9], False)
        >>> round(float(tf.exp(candidates.log_counts[0])), 4)  # 3 of 49 items
        0.0612
    """

    ids: Any
    log_counts: Any
    in_batch: Any


def candidate_logits(
    user_emb: tf.Tensor,
    positive_emb: tf.Tensor,
    candidate_emb: tf.Tensor,
    positive_ids: tf.Tensor,
    candidate_ids: tf.Tensor,
    positive_log_counts: tf.Tensor,
    candidate_log_counts: tf.Tensor,
    temperature: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The logits of each example's positive and of the candidates, which the batch shares.

    ``s(u, i) = u.i / temperature - log_expected_count(i)`` (the logQ correction of Bengio & Senecal 2008, as in
    ``tf.nn.sampled_softmax_loss``). A candidate that is the example's own positive (an accidental hit) is masked.

    Args:
        user_emb: (B, D) float32.
        positive_emb: (B, D) float32, the vectors of the positives.
        candidate_emb: (S, D) float32.
        positive_ids: (B,) integer ids of the positives.
        candidate_ids: (S,) integer ids of the candidates.
        positive_log_counts: (B,) float32: the log of each positive's expected count among the candidates.
        candidate_log_counts: (S,) float32: the same for the candidates.
        temperature: Divides the inner products, not the log counts.

    Returns:
        positive logits (B, 1) and candidate logits (B, S).

    Example:
        >>> users, items = tf.constant([[1.0, 0.0]]), tf.constant([[1.0, 0.0], [0.6, 0.8]])
        >>> ids, log_counts = tf.constant([7, 9]), tf.zeros([2])  # of the positive and of a candidate
        >>> positive, candidates = candidate_logits(
        ...     users, items[:1], items[1:], ids[:1], ids[1:], log_counts[:1], log_counts[1:], temperature=0.5
        ... )
        >>> positive.numpy(), candidates.numpy()
        (array([[2.]], dtype=float32), array([[1.2]], dtype=float32))
    """
    positive, candidates = _logits(
        user_emb,
        positive_emb,
        candidate_emb,
        positive_log_counts,
        candidate_log_counts,
        tf.cast(positive_ids, tf.int64),
        tf.cast(candidate_ids, tf.int64),
        tf.constant(temperature, user_emb.dtype),
    )
    return positive, candidates


@traced_once(2, 2, 2, 1, 1, 1, 1, 0)
def _logits(
    user_emb: tf.Tensor,
    positive_emb: tf.Tensor,
    candidate_emb: tf.Tensor,
    positive_log_counts: tf.Tensor,
    candidate_log_counts: tf.Tensor,
    positive_ids: tf.Tensor,
    candidate_ids: tf.Tensor,
    temperature: tf.Tensor,
) -> Any:
    """`candidate_logits`, whose gradient passes over (B, S) three times, two of them to multiply matrices."""
    # Without eager mode `==` would compare Python objects.
    is_hit = tf.equal(positive_ids[:, tf.newaxis], candidate_ids[tf.newaxis])

    @tf.custom_gradient
    def logits(
        user_emb: tf.Tensor,
        positive_emb: tf.Tensor,
        candidate_emb: tf.Tensor,
        positive_log_counts: tf.Tensor,
        candidate_log_counts: tf.Tensor,
    ) -> Any:
        scaled = user_emb / temperature  # divides D numbers for each example, not S
        positive = tf.reduce_sum(scaled * positive_emb, axis=1) - positive_log_counts
        candidates = tf.matmul(scaled, candidate_emb, transpose_b=True) - candidate_log_counts[tf.newaxis]

        def gradient(of_positive: tf.Tensor, of_candidates: tf.Tensor) -> tuple[tf.Tensor, ...]:
            of_candidates = tf.where(is_hit, tf.zeros([], of_candidates.dtype), of_candidates)
            of_scaled = of_positive * positive_emb + tf.matmul(of_candidates, candidate_emb)
            of_candidate_emb = tf.matmul(of_candidates, scaled, transpose_a=True)
            of_log_counts = -of_positive[:, 0], -tf.reduce_sum(of_candidates, axis=0)
            return of_scaled / temperature, of_positive * scaled, of_candidate_emb, *of_log_counts

        masked = tf.where(is_hit, tf.constant(_MASKED, candidates.dtype), candidates)
        return (positive[:, tf.newaxis], masked), gradient

    return logits(user_emb, positive_emb, candidate_emb, positive_log_counts, candidate_log_counts)


def softmax_with_candidates(positive: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the positive against the candidates: ``-log(e^p / (e^p + sum of e^c))``.

    Args:
        positive: (B, 1) logits of the positives.
        candidates: (B, S) logits of the candidates, with the positive masked.

    Returns:
        (B, 1) the loss of each example.

    Example:
        >>> softmax_with_candidates(tf.constant([[0.0]]), tf.constant([[0.0, 0.0]])).numpy().round(3)  # log 3
        array([[1.099]], dtype=float32)
    """
    loss: tf.Tensor = _softmax(positive, candidates)
    return loss


@traced_once(2, 2)
def _softmax(positive: tf.Tensor, candidates: tf.Tensor) -> Any:
    """`softmax_with_candidates`, whose gradient passes over (B, S) once."""

    @tf.custom_gradient
    def loss(positive: tf.Tensor, candidates: tf.Tensor) -> Any:
        largest = tf.reduce_max(candidates, axis=1, keepdims=True)
        largest = tf.where(tf.math.is_finite(largest), largest, tf.zeros([], largest.dtype))  # there may be none
        weights = tf.exp(candidates - largest)
        total = tf.reduce_sum(weights, axis=1, keepdims=True)
        # log(1 + e^(log of the sum - p)): two thirds of the time of a cross-entropy of the concatenated logits.
        margin = tf.math.log(total) + largest - positive

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            of_margin = upstream * tf.sigmoid(margin)
            return -of_margin, weights * (of_margin / total)

        return tf.nn.softplus(margin), gradient

    return loss(positive, candidates)


def bpr(positive: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
    """BPR (Rendle et al., UAI 2009): the mean of ``-log sigmoid(p - c)`` over the candidates.

    Args:
        positive: (B, 1) logits of the positives.
        candidates: (B, S) logits of the candidates, with the positive masked.

    Returns:
        (B, 1) the loss of each example.

    Example:
        >>> bpr(tf.constant([[0.0]]), tf.constant([[0.0, 0.0]])).numpy().round(3)  # log 2
        array([[0.693]], dtype=float32)
    """
    # Masked candidates are at minus infinity, so they add nothing.
    total = tf.reduce_sum(tf.nn.softplus(candidates - positive), axis=1, keepdims=True)
    return total / tf.maximum(_count(candidates), 1.0)


def gbce(positive: tf.Tensor, candidates: tf.Tensor, sampling_rate: Any, calibration: float) -> tf.Tensor:
    """gBCE (Petrov & Macdonald, "gSASRec", RecSys 2023): binary cross-entropy, calibrated for negative sampling.

    ``-(b log sigmoid(p) + sum of log(1 - sigmoid(c))) / (S + 1)``, where `gbce_power` gives ``b``.

    Args:
        positive: (B, 1) logits of the positives.
        candidates: (B, S) logits of the candidates, with the positive masked.
        sampling_rate: Scalar in (0, 1], the number of candidates divided by the number of items.
        calibration: t in [0, 1]: 0 is plain binary cross-entropy, 1 undoes the effect of sampling.

    Returns:
        (B, 1) the loss of each example.

    Example:
        >>> logits = tf.constant([[0.0]]), tf.constant([[0.0, 0.0]])
        >>> gbce(*logits, sampling_rate=0.1, calibration=0.0).numpy().round(3)  # log 2
        array([[0.693]], dtype=float32)
    """
    of_positive = gbce_power(sampling_rate, calibration) * tf.nn.softplus(-positive)
    of_candidates = tf.reduce_sum(tf.nn.softplus(candidates), axis=1, keepdims=True)
    return (of_positive + of_candidates) / (_count(candidates) + 1.0)


def gbce_power(sampling_rate: Any, calibration: float) -> Any:
    """gBCE's weight of the positive: ``b = a (t (1 - 1/a) + 1/a)``, with the sampling rate a and the calibration t.

    Args:
        sampling_rate: As in `gbce`.
        calibration: As in `gbce`.

    Returns:
        The paper's power, in (0, 1].

    Example:
        >>> gbce_power(0.1, 0.0), round(gbce_power(0.1, 1.0), 3)
        (1.0, 0.1)
    """
    return 1.0 - calibration + calibration * sampling_rate  # the same, without a difference of large numbers


def gbce_of_samples(
    positive: tf.Tensor,
    candidates: tf.Tensor,
    drawn: tf.Tensor,
    num_items: int,
    calibration: float,
    bias: tf.Tensor,
) -> tf.Tensor:
    """`gbce` of logits that are corrected for the expected counts, with a learnt bias.

    Binary cross-entropy needs logits far below 0 for nearly all items, but inner products of L2-normalised vectors are
    bounded and around 0. So the logits here are ``(u.i + b) / temperature + log(power / S)``. If all inner products are
    0, positives and candidates then have the same weight. The bias b is the same for all items and changes no ranking.
    The log counts are relative to uniform candidates, for which the logits are ``u.i / temperature``, as in the paper.

    Args:
        positive: (B, 1) logits of the positives.
        candidates: (B, S) logits of the candidates, with the positive masked.
        drawn: () float32, the number of candidates that were drawn, S.
        num_items: The number of items without padding, V - 1.
        calibration: t, as in `gbce`.
        bias: () float32, b divided by the temperature.

    Returns:
        (B, 1) the loss of each example.

    Example:
        >>> logits = tf.constant([[2.0]]), tf.constant([[0.0, -2.0]])
        >>> settings = {"drawn": tf.constant(2.0), "num_items": 20, "calibration": 0.75}
        >>> gbce_of_samples(*logits, **settings, bias=tf.constant(0.0)).numpy().round(3)
        array([[0.248]], dtype=float32)
    """
    rate = tf.clip_by_value(drawn / num_items, 1e-12, 1.0)
    level = bias + tf.math.log(rate) + tf.math.log(gbce_power(rate, calibration) / drawn)
    return gbce(positive + level, candidates + level, rate, calibration)


# name -> function of the positives' logits (B, 1) and the candidates' (B, S), and of `OTHER_ARGUMENTS` that it names,
# to the loss of each example, (B, 1).
LOSSES: dict[str, Callable[..., tf.Tensor]] = {
    "softmax": softmax_with_candidates,
    "bpr": bpr,
    "gbce": gbce_of_samples,
}
"""The losses by name, for a model's ``loss=``. Enter your own here."""

OTHER_ARGUMENTS = {
    "drawn": "() float32, how many candidates were drawn, S",
    "num_items": "int, the number of items without padding, V - 1",
    "calibration": "float, a model's `gbce_t`",
    "bias": "() float32, a learnt weight, 0 at first, divided by the temperature as the logits are",
}
"""The arguments that a loss may take besides the logits, and their values."""


def other_arguments(loss: str) -> set[str]:
    """Which of `OTHER_ARGUMENTS` the loss takes.

    Raises:
        ValueError: There is no loss of this name, or it has an argument that is not one of these.

    Example:
        >>> sorted(other_arguments("gbce")), other_arguments("bpr")
        (['bias', 'calibration', 'drawn', 'num_items'], set())
    """
    takes = [*inspect.signature(LOSSES[one_of("`loss`", loss, tuple(LOSSES))]).parameters][2:]
    if unknown := [name for name in takes if name not in OTHER_ARGUMENTS]:
        rule = f"take the two logits, and besides only {', '.join(OTHER_ARGUMENTS)}"
        raise problem(f"The loss {loss!r}", rule, repr(unknown[0]))
    return set(takes)


def hardest(candidates: tf.Tensor, num_hard: int) -> tf.Tensor:
    """The highest logits of each example.

    Args:
        candidates: (B, S) logits.
        num_hard: How many to keep, n; all, if there are fewer.

    Returns:
        (B, min(n, S)), the highest first.

    Example:
        >>> hardest(tf.constant([[1.0, 3.0, 2.0]]), 2).numpy()
        array([[3., 2.]], dtype=float32)
    """
    return tf.math.top_k(candidates, tf.minimum(num_hard, tf.shape(candidates)[1])).values


def _count(candidates: tf.Tensor) -> tf.Tensor:
    """(B, 1) how many candidates are not masked."""
    return tf.reduce_sum(tf.cast(candidates > _MASKED / 2, candidates.dtype), axis=1, keepdims=True)


@register
def sampledsoftmaxloss(y_true: Any, y_pred: tf.Tensor) -> tf.Tensor:
    """The Keras loss of a training model, whose output is already the loss of each example.

    Args:
        y_true: Ignored: the label is the item id, a model input. Any tensor of B rows.
        y_pred: (B, 1), the model's output.

    Returns:
        (B,) the loss of each example, so that Keras applies sample weights and takes the mean.

    Example:
        >>> sampledsoftmaxloss(None, tf.constant([[0.5], [1.5]])).numpy()
        array([0.5, 1.5], dtype=float32)
    """
    return tf.reshape(tf.cast(y_pred, tf.float32), [-1])
