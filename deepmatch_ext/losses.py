"""Losses as pure functions of logits. B: examples in the batch, S: sampled candidates, D: embedding size.

Every loss takes the same two tensors, which `candidate_logits` makes: the positives' logits (B, 1) and the candidates'
(B, S), each less the log of how often it was to be expected, a candidate that is the positive masked. With that
correction each of them is least where ``u.i / temperature`` is the log of the item's chance, up to a constant.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from deepmatch_ext._keras import register

# Far below any logit that a loss can tell apart, and finite in float32, so that gradients stay finite.
_MASKED = -1e30


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
    """Logits of each example's positive and of the candidates it shares with the batch.

    ``s(u, i) = u.i / temperature - log_expected_count(i)`` (the logQ correction of Bengio & Senecal 2008, as in
    ``tf.nn.sampled_softmax_loss``). A candidate that is the example's own positive (an accidental hit) is masked.

    Args:
        user_emb: (B, D) float32.
        positive_emb: (B, D) float32, the vectors of the positives.
        candidate_emb: (S, D) float32.
        positive_ids: (B,) integer ids of the positives.
        candidate_ids: (S,) integer ids of the candidates.
        positive_log_counts: (B,) float32: log of how often each positive was to be expected among the candidates.
        candidate_log_counts: (S,) float32: the same for the candidates.
        temperature: Divides the inner products, and nothing else.

    Returns:
        positive logits (B, 1) and candidate logits (B, S).
    """
    positive = tf.reduce_sum(user_emb * positive_emb, axis=1) / temperature - positive_log_counts
    candidates = tf.matmul(user_emb, candidate_emb, transpose_b=True) / temperature - candidate_log_counts[tf.newaxis]
    # Without eager mode `==` would compare Python objects.
    is_hit = tf.equal(positive_ids[:, tf.newaxis], candidate_ids[tf.newaxis])
    return positive[:, tf.newaxis], tf.where(is_hit, tf.constant(_MASKED, candidates.dtype), candidates)


def softmax_with_candidates(positive: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of the positive against the candidates: ``-log(e^p / (e^p + sum of e^c))``.

    Args:
        positive: (B, 1) logits of the positives.
        candidates: (B, S) logits of the candidates, the positive not among them (masked).

    Returns:
        (B, 1) the loss of each example.
    """
    logits = tf.concat([positive, candidates], axis=1)
    first = tf.zeros([tf.shape(logits)[0]], tf.int32)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=first, logits=logits)[:, tf.newaxis]


def bpr(positive: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
    """BPR (Rendle et al., UAI 2009): the mean of ``-log sigmoid(p - c)`` over the candidates.

    Args:
        positive: (B, 1) logits of the positives.
        candidates: (B, S) logits of the candidates, the positive not among them (masked).

    Returns:
        (B, 1) the loss of each example.
    """
    # Masked ones are at minus infinity, so they add nothing.
    total = tf.reduce_sum(tf.nn.softplus(candidates - positive), axis=1, keepdims=True)
    return total / tf.maximum(_count(candidates), 1.0)


def gbce(positive: tf.Tensor, candidates: tf.Tensor, sampling_rate: Any, calibration: float) -> tf.Tensor:
    """gBCE (Petrov & Macdonald, "gSASRec", RecSys 2023): binary cross-entropy that sampling doesn't make overconfident.

    ``-(b log sigmoid(p) + sum of log(1 - sigmoid(c))) / (S + 1)``, where `gbce_power` gives ``b``.

    Args:
        positive: (B, 1) logits of the positives.
        candidates: (B, S) logits of the candidates, the positive not among them (masked).
        sampling_rate: Scalar in (0, 1], the share of all items that the candidates are.
        calibration: t in [0, 1]: 0 is plain binary cross-entropy, 1 undoes the effect of sampling.

    Returns:
        (B, 1) the loss of each example.
    """
    of_positive = gbce_power(sampling_rate, calibration) * tf.nn.softplus(-positive)
    of_candidates = tf.reduce_sum(tf.nn.softplus(candidates), axis=1, keepdims=True)
    return (of_positive + of_candidates) / (_count(candidates) + 1.0)


def gbce_power(sampling_rate: Any, calibration: float) -> Any:
    """What gBCE weighs the positive with: ``b = a (t (1 - 1/a) + 1/a)`` of the sampling rate a and the calibration t.

    Args:
        sampling_rate: As in `gbce`.
        calibration: As in `gbce`.

    Returns:
        The power of its paper, in (0, 1].
    """
    return 1.0 - calibration + calibration * sampling_rate  # the same, without a difference of large numbers


def hardest(candidates: tf.Tensor, num_hard: int) -> tf.Tensor:
    """The highest logits of each example.

    Args:
        candidates: (B, S) logits.
        num_hard: n, how many to keep; all, if there are fewer.

    Returns:
        (B, min(n, S)), the highest first.
    """
    return tf.math.top_k(candidates, tf.minimum(num_hard, tf.shape(candidates)[1])).values


def _count(candidates: tf.Tensor) -> tf.Tensor:
    """(B, 1) how many candidates are not masked."""
    return tf.reduce_sum(tf.cast(candidates > _MASKED / 2, candidates.dtype), axis=1, keepdims=True)


@register
def sampledsoftmaxloss(y_true: Any, y_pred: tf.Tensor) -> tf.Tensor:
    """The Keras loss of a training model, whose output is already the loss of each example.

    Args:
        y_true: Ignored: the label is the item id, a model input. Anything of B rows will do.
        y_pred: (B, 1), the model's output.

    Returns:
        (B,) the loss of each example, so that Keras applies sample weights and takes the mean.
    """
    return tf.reshape(tf.cast(y_pred, tf.float32), [-1])
