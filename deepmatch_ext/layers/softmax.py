"""The layer that draws candidates, and the layers that compute a loss from them: sampled softmax and others.

B examples, S sampled candidates, D embedding size, V vocabulary size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import int_at_least, number_between, positive_int, positive_number, problem, shown
from deepmatch_ext._distribute import has_parameter_servers, of_all_replicas
from deepmatch_ext._keras import WholeWeights, add_state, in_training, keras, raw_variable, register
from deepmatch_ext._traced import assertion
from deepmatch_ext.layers.dropout import counted
from deepmatch_ext.losses import LOSSES, Candidates, candidate_logits, hardest, other_arguments
from deepmatch_ext.samplers import AdaptiveSampler, Sampler, UniformSampler, make_sampler

DEFAULT_NUM_SAMPLED = 512
LOWEST_TEMPERATURE = 1e-6


@register
class CandidateSampler(WholeWeights, keras.layers.Layer):
    """Draws a step's candidates and appends their ids to those of the batch's positives.

    A single look-up of these ids encodes positives and candidates through the same table or tower.

    Args:
        sampler_config: A sampler of `deepmatch_ext.samplers`, or DeepMatch's ``NegativeSampler``. None: an
            `AdaptiveSampler` of 512 candidates, or of as many as there are items if there are fewer.
        vocabulary_size: V of the item column, padding included.
        seed: The same seed gives the same draws. Each training step draws new candidates; a weight counts the steps, so
            a reloaded model continues where it stopped. Outside training, the draws depend only on the seed and the
            positives, so ``evaluate`` gives the same loss at every call and does not affect training.

    Input: ids of the positives (B, 1) or (B,), any integer type.

    Output: `deepmatch_ext.losses.Candidates`: ``ids`` (B + S,), ``log_counts`` (B + S,), and ``in_batch`` (), whether
    the positives are candidates, too. The first B ids are the positives. An in-batch sampler has S = 0. A sampler that
    learns is updated at every training step, after its draw.

    Attributes:
        step: The weight that counts the training steps.

    Raises:
        ValueError: The sampler's settings don't fit the vocabulary.
        tf.errors.InvalidArgumentError: The layer was rebuilt from its config, but its weights, which hold the sampler's
            counts, were not loaded.

    Example:
        >>> from deepmatch_ext.samplers import UniformSampler
        >>> candidates = CandidateSampler(UniformSampler(5), vocabulary_size=100)(tf.constant([[7], [9]]))
        >>> candidates.ids.shape, candidates.ids[:2].numpy().tolist()
        (TensorShape([7]), [7, 9])
    """

    def __init__(self, sampler_config: Any, vocabulary_size: int, seed: int = 1024, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")  # a precision policy must not round ids and log counts
        super().__init__(**kwargs)
        self.vocabulary_size = int_at_least("`vocabulary_size`", vocabulary_size, 2, "It includes id 0, padding.")
        self.seed = int_at_least("`seed`", seed, 0)
        self.sampler = _sampler_for(sampler_config, self.vocabulary_size)
        self.supports_jit = False  # the look-ups of a sampler's state are cheap only outside XLA

    def build(self, input_shape: Any = None) -> None:
        arrays = self.sampler.state(self.vocabulary_size)
        self._state = {name: add_state(self, f"sampler_{name}", array) for name, array in arrays.items()}
        self.step = add_state(self, "step", np.zeros((), "int64"))
        self.built = True

    def call(self, positive_ids: tf.Tensor, training: Any = None) -> Candidates:
        positives = tf.cast(tf.reshape(positive_ids, [-1]), tf.int64)
        state = self._variables()
        everyones, others = of_all_replicas(positives)  # replicas draw and learn like one with all examples
        candidates = self.sampler.sample(state, self.vocabulary_size, self._draw_seed(everyones, training))
        in_batch = [] if others is None or not self.sampler.in_batch else [others]
        ids = tf.concat([positives, *in_batch, tf.cast(candidates, tf.int64)], axis=0)
        log_counts = self.sampler.log_expected_count(state, self.vocabulary_size, ids, tf.size(everyones))
        checks: list[Any] = []
        if self.sampler.awaits_counts:  # rebuilt from its config
            message = f"{self.name}: the counts of the sampler must be loaded first; they come with the saved weights"
            checks.append(assertion(tf.reduce_all(tf.math.is_finite(log_counts)), message))
        with tf.control_dependencies(_present(ids, log_counts, *checks)):
            # Outside training there is nothing to learn from.
            seen = everyones if training is True else everyones[: tf.where(_is_on(training), tf.size(everyones), 0)]
            learnt = self.sampler.update(state, seen)
        if not isinstance(learnt, list | tuple):
            what = f"`update` of the sampler {type(self.sampler).__name__}"
            raise problem(what, "return a list of the operations that it made", shown(learnt))
        if learnt and has_parameter_servers():
            remedy = "Take UniformSampler, LogUniformSampler, or FrequencySampler with counts."
            got = f"{type(self.sampler).__name__}, whose counts the workers would write at the same time"
            raise problem("`sampler_config`", "not learn from the batches on parameter servers", got, remedy)
        with tf.control_dependencies(_present(*learnt, *checks)):
            ids, log_counts = tf.identity(ids), tf.identity(log_counts)
        return Candidates(ids, log_counts, tf.constant(self.sampler.in_batch))

    def log_counts(self, ids: tf.Tensor, batch_size: Any) -> tf.Tensor:
        """The log of the expected count of each of ``ids`` (n,) among the candidates of the next step, (n,)."""
        return self.sampler.log_expected_count(self._variables(), self.vocabulary_size, ids, batch_size)

    def _variables(self) -> dict[str, Any]:
        """The sampler's state."""
        return {name: raw_variable(weight) for name, weight in self._state.items()}

    def _draw_seed(self, positives: tf.Tensor, training: Any) -> tf.Tensor:
        """A seed: two integers, from the step in training and from the positives otherwise."""
        training = in_training(training)
        step = counted(self, _is_on(training))
        of_step = tf.stack([tf.constant(self.seed, tf.int64), step])
        if training is True:
            return of_step
        place = tf.range(1, tf.size(positives, out_type=tf.int64) + 1)
        of_batch = tf.reduce_sum(positives * (2 * place + 1))
        return tf.where(_is_on(training), of_step, tf.stack([tf.constant(-self.seed - 1, tf.int64), of_batch]))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None,), (None,), ()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sampler_config": self.sampler.get_config(),
            "vocabulary_size": self.vocabulary_size,
            "seed": self.seed,
        }


@register
class CandidateLoss(keras.layers.Layer):
    """The loss of each example, from the logits of its positive and of the candidates.

    The logits are ``s(u, i) = u.i / temperature - log_expected_count(i)``; a candidate that is the example's positive
    is left out. The losses are functions of these logits, by name in `deepmatch_ext.losses.LOSSES`:

    - ``softmax``: sampled softmax, ``-log(e^s(positive) / (e^s(positive) + sum over candidates of e^s))``.
    - ``bpr``: Bayesian personalised ranking, the mean of ``-log sigmoid(s(positive) - s(candidate))``.
    - ``gbce``: generalised binary cross-entropy, see `deepmatch_ext.losses.gbce_of_samples`.
    - your own losses, if you add them to `LOSSES`.

    Args:
        temperature: Divides the inner products.
        loss: A name in `LOSSES`.
        gbce_t: The calibration of gbce, in [0, 1].
        num_hard: Each example keeps only this many candidates, those with the highest logits. None: all. The gradient
            is then that of the largest terms of the sum over the candidates, so it is biased.
        vocabulary_size: V, which gbce needs.

    Attributes:
        bias: The scalar bias, a weight; only for a loss that takes one, such as gbce.

    Input: ``[user_emb (B, D), item_emb (B + S, D), ids (B + S,), log_counts (B + S,), in_batch ()]``: the last three
    are the `Candidates` of a `CandidateSampler`, ``item_emb`` the vectors of ``ids``.

    Output: (B, 1) float32, the loss of each example.

    Raises:
        ValueError: An unknown loss, a temperature not above 0, gbce without a vocabulary size.

    Example:
        >>> users, items = tf.constant([[1.0, 0.0]]), tf.constant([[1.0, 0.0], [0.0, 1.0]])  # a positive, a candidate
        >>> candidates = [tf.constant([7, 9]), tf.zeros([2]), tf.constant(False)]
        >>> CandidateLoss()([users, items, *candidates]).numpy().round(3)  # log(1 + e^(0 - 1))
        array([[0.313]], dtype=float32)
    """

    def __init__(
        self,
        temperature: float = 1.0,
        loss: str = "softmax",
        gbce_t: float = 0.75,
        num_hard: int | None = None,
        vocabulary_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.temperature = checked_temperature(temperature)
        self._takes, self.loss = other_arguments(loss), loss
        self.gbce_t = number_between("`gbce_t`", gbce_t, 0, 1 + 1e-9)
        self.num_hard = None if num_hard is None else positive_int("`num_hard`", num_hard)
        self.vocabulary_size = vocabulary_size
        if "num_items" in self._takes:
            remedy = f"The loss {loss} needs it."
            self.vocabulary_size = int_at_least("`vocabulary_size`", vocabulary_size, 2, remedy)
        self.supports_jit = False

    def build(self, input_shape: Any) -> None:
        if "bias" in self._takes:
            self.bias = self.add_weight(name="bias", shape=(), initializer="zeros")
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        user_emb, item_emb, *candidates = inputs
        return self._loss_of(user_emb, item_emb, Candidates(*candidates))

    def _loss_of(self, user_emb: tf.Tensor, item_emb: tf.Tensor, candidates: Candidates) -> tf.Tensor:
        ids, log_counts, in_batch = candidates
        batch = tf.shape(user_emb)[0]
        of_all = tf.cast(item_emb, tf.float32), ids, log_counts
        sizes = tf.stack([batch, tf.shape(ids)[0] - batch])
        # The gradient of a split is one concatenation; of two slices, two padded sums.
        of_positives, of_candidates = zip(*(tf.split(values, sizes, num=2) for values in of_all), strict=True)
        static = tf.get_static_value(in_batch)
        if static is None:
            first = tf.where(in_batch, 0, batch)
            of_candidates = tuple(values[first:] for values in of_all)
        elif static:
            of_candidates = of_all
        positive_emb, positive_ids, positive_log_counts = of_positives
        candidate_emb, candidate_ids, candidate_log_counts = of_candidates
        positive, logits = candidate_logits(
            tf.cast(user_emb, tf.float32),
            positive_emb,
            candidate_emb,
            positive_ids,
            candidate_ids,
            positive_log_counts,
            candidate_log_counts,
            self.temperature,
        )
        others: dict[str, Any] = {
            "drawn": tf.cast(tf.size(candidate_ids), tf.float32),
            "num_items": self.vocabulary_size and self.vocabulary_size - 1,
            "calibration": self.gbce_t,
            "bias": self.bias / self.temperature if "bias" in self._takes else None,
        }
        if self.num_hard is not None:
            logits = hardest(logits, self.num_hard)
        losses = LOSSES[self.loss](positive, logits, **{name: others[name] for name in self._takes})
        if losses.shape.rank is not None and (losses.shape.rank != 2 or losses.shape[1] not in (1, None)):
            raise problem(f"The loss {self.loss!r}", "return one number per example, (B, 1)", f"shape {losses.shape}")
        return tf.ensure_shape(losses, [None, 1])

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        return (input_shape[0][0], 1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "loss": self.loss,
            "gbce_t": self.gbce_t,
            "num_hard": self.num_hard,
            "vocabulary_size": self.vocabulary_size,
        }


@register
class PairProbability(keras.layers.Layer):
    """The probability that a user chooses an item, ``sigmoid(u.i / temperature)``, for labelled pairs.

    Args:
        temperature: Divides the inner products.

    Input: ``[user_emb (B, D), item_emb (B, D)]``, and optionally a third input, (B, 1), which is added to the logits.
    Output: (B, 1) float32.

    Example:
        >>> vectors = tf.constant([[0.6, 0.8], [1.0, 0.0]])
        >>> PairProbability(temperature=0.5)([vectors, tf.constant([[0.6, 0.8], [0.0, 1.0]])]).numpy().round(3)
        array([[0.881],
               [0.5  ]], dtype=float32)
    """

    def __init__(self, temperature: float = 1.0, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.temperature = checked_temperature(temperature)

    def call(self, inputs: Any) -> tf.Tensor:
        user_emb, item_emb, *others = (tf.cast(each, tf.float32) for each in inputs)
        logits = tf.reduce_sum(user_emb * item_emb, axis=1, keepdims=True) / self.temperature
        return tf.sigmoid(tf.add_n([logits, *others]))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        return (input_shape[0][0], 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature}


@register
class SampledSoftmaxLayer(CandidateLoss):
    """The sampled softmax loss of each example.

    ``-log(e^s(u, positive) / (e^s(u, positive) + sum over candidates c of e^s(u, c)))`` with
    ``s(u, i) = u.i / temperature - log_expected_count(i)``; a candidate that is the example's positive is left out.
    It equals ``tf.nn.sampled_softmax_loss`` given the same candidates and expected counts, and full softmax
    cross-entropy when every item is a candidate and the log counts are zero.

    Args:
        sampler_config: A sampler of `deepmatch_ext.samplers`, or DeepMatch's ``NegativeSampler`` (or its
            ``_asdict()``). None: `num_sampled` uniform candidates, or if that is None too, the default of
            `CandidateSampler`.
        temperature: Divides the inner products.
        num_sampled: The number of uniform candidates, if no sampler is given.
        seed: The same seed gives the same draws.

    Input, one of:
        - ``[user_emb (B, D), item_emb (B + S, D), ids (B + S,), log_counts (B + S,), in_batch ()]``: as
          for `CandidateLoss`. A step reads only these rows of the item table.
        - ``[item_weights (V, D), user_emb (B, D), item_id (B, 1)]``: DeepMatch's and ``tf.nn.sampled_softmax_loss``'s
          order, for tables small enough to be read whole at every step. The candidates are drawn here.

    Output: (B, 1) float32, the loss of each example.

    Raises:
        ValueError: An unknown sampler, settings that don't fit the vocabulary, a temperature not above 0.

    Example:
        >>> items, users = tf.eye(4), tf.constant([[0.0, 5.0, 0.0, 0.0]])
        >>> loss = SampledSoftmaxLayer(num_sampled=3)([items, users, tf.constant([[1]])])
        >>> loss.shape
        TensorShape([1, 1])
    """

    def __init__(
        self,
        sampler_config: Any = None,
        temperature: float = 1.0,
        num_sampled: int | None = None,
        seed: int = 1024,
        **kwargs: Any,
    ) -> None:
        if other := [name for name in _OF_OTHER_LOSSES if name in kwargs]:
            raise problem(f"`{other[0]}`", "be given to `CandidateLoss`, since this is the softmax", kwargs[other[0]])
        super().__init__(temperature, **kwargs)
        self.sampler = None if sampler_config is None else make_sampler(sampler_config)
        if sampler_config is not None and num_sampled is not None:
            raise problem("`num_sampled`", "be given in the sampler, if there is one", num_sampled)
        self.num_sampled = num_sampled if num_sampled is None else positive_int("`num_sampled`", num_sampled)
        self.seed = int_at_least("`seed`", seed, 0)

    def build(self, input_shape: Any) -> None:
        if len(input_shape) == 3:
            vocabulary_size = input_shape[0][0]
            if vocabulary_size is None:
                raise problem("The item weights", "have a static first dimension, the vocabulary size", "None")
            sampler = self.sampler or default_sampler(vocabulary_size, self.num_sampled)
            self._candidates = CandidateSampler(sampler, vocabulary_size, self.seed, name="candidates")
            self._candidates.build(input_shape[2])
        elif len(input_shape) != 5:
            raise problem("The input", "have three tensors or five, as the class describes", f"{len(input_shape)}")
        self.built = True

    def call(self, inputs: Any, training: Any = None) -> tf.Tensor:
        if len(inputs) != 3:
            return super().call(inputs)
        item_weights, user_emb, item_id = inputs
        candidates = Candidates(*self._candidates(item_id, training=training))
        return self._loss_of(user_emb, tf.nn.embedding_lookup(item_weights, candidates.ids), candidates)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        return (input_shape[1][0] if len(input_shape) == 3 else input_shape[0][0], 1)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        for name in _OF_OTHER_LOSSES:
            config.pop(name)
        sampler = None if self.sampler is None else self.sampler.get_config()
        return {**config, "sampler_config": sampler, "num_sampled": self.num_sampled, "seed": self.seed}


_OF_OTHER_LOSSES = ("loss", "gbce_t", "num_hard", "vocabulary_size")


def checked_temperature(temperature: Any) -> float:
    """The temperature, checked to be large enough that the logits fit in float32."""
    number = positive_number("`temperature`", temperature)
    if number < LOWEST_TEMPERATURE:
        rule, remedy = f"be at least {LOWEST_TEMPERATURE:g}", "0.05 to 0.3 are usual."
        raise problem("`temperature`", rule, shown(temperature), remedy)
    return number


def default_sampler(vocabulary_size: int, num_sampled: int | None = None) -> Sampler:
    """A uniform sampler of ``num_sampled``, if that is given; else an adaptive one of 512, or of all items if fewer."""
    if num_sampled is not None:
        return UniformSampler(num_sampled)
    return AdaptiveSampler(min(DEFAULT_NUM_SAMPLED, vocabulary_size - 1))


def _sampler_for(sampler_config: Any, vocabulary_size: int) -> Sampler:
    sampler = default_sampler(vocabulary_size) if sampler_config is None else make_sampler(sampler_config)
    sampler.check(vocabulary_size)
    return sampler


def _is_on(training: Any) -> tf.Tensor:
    return tf.cast(in_training(training), tf.bool)


def _present(*operations: Any) -> list[Any]:
    """The operations that are not None; in eager mode they have already run, and some are None."""
    return [operation for operation in operations if operation is not None]
