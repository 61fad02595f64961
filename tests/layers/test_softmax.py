"""SampledSoftmaxLayer and CandidateSampler against tf.nn, full softmax and NumPy float64."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext.layers import CandidateLoss, CandidateSampler, SampledSoftmaxLayer
from deepmatch_ext.losses import (
    LOSSES,
    Candidates,
    bpr,
    candidate_logits,
    gbce,
    hardest,
    sampledsoftmaxloss,
    softmax_with_candidates,
)
from deepmatch_ext.samplers import (
    AdaptiveSampler,
    FrequencySampler,
    FullSampler,
    InBatchSampler,
    LogUniformSampler,
    MixedSampler,
    QueueSampler,
    UniformSampler,
)
from deepmatch_ext.utils import NegativeSampler

V, B, D = 11, 5, 4
RNG = np.random.default_rng(0)
ITEMS = RNG.normal(size=(V, D)).astype("float32")
USERS = RNG.normal(size=(B, D)).astype("float32")
POSITIVES = np.array([[3], [1], [10], [3], [7]], "int32")
COUNTS = np.array([0, 5, 1, 9, 2, 3, 0, 4, 1, 1, 7])
SAMPLERS = [UniformSampler(8), LogUniformSampler(8), FrequencySampler(8, COUNTS), FrequencySampler(8, COUNTS, 0.5)]


def tower_form(sampler, temperature=1.0, seed=1, users=USERS, items=ITEMS, training=True):
    candidates = Candidates(*CandidateSampler(sampler, V, seed)(tf.constant(POSITIVES), training=training))
    rows = tf.gather(items, candidates.ids)
    loss = SampledSoftmaxLayer(sampler, temperature)([tf.constant(users), rows, *candidates])
    return loss, candidates.ids.numpy(), candidates.log_counts.numpy()


@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_equals_tf_nn_sampled_softmax_loss_given_the_same_candidates(sampler, temperature):
    # All different: of a candidate drawn twice, tf.nn masks one accidental hit only.
    ids = np.concatenate([POSITIVES[:, 0], np.random.default_rng(1).permutation(np.arange(1, V))[:8]])
    state = {name: tf.constant(array) for name, array in sampler.state(V).items()}
    log_counts = sampler.log_expected_count(state, V, tf.constant(ids, tf.int64), tf.constant(B))
    layer = SampledSoftmaxLayer(sampler, temperature)
    loss = layer([tf.constant(USERS), tf.gather(ITEMS, ids), tf.constant(ids), log_counts, tf.constant(False)])
    expected = tf.nn.sampled_softmax_loss(
        weights=tf.constant(ITEMS),
        biases=tf.zeros(V),
        labels=tf.constant(POSITIVES, tf.int64),
        inputs=tf.constant(USERS) / temperature,
        num_sampled=8,
        num_classes=V,
        sampled_values=(tf.constant(ids[B:], tf.int64), tf.exp(log_counts)[:B, None], tf.exp(log_counts)[B:]),
    )
    assert loss.shape == (B, 1)
    np.testing.assert_allclose(loss[:, 0], expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("sampler", [*SAMPLERS, InBatchSampler(COUNTS)], ids=lambda sampler: sampler.name)
def test_equals_the_formula_in_float64(sampler):
    temperature = 0.5
    loss, ids, log_counts = tower_form(sampler, temperature)
    q = log_counts.astype("float64")
    first = 0 if sampler.name == "inbatch" else B
    users, items = USERS.astype("float64"), ITEMS.astype("float64")
    for row in range(B):
        positive = np.exp(users[row] @ items[ids[row]] / temperature - q[row])
        others = sum(
            np.exp(users[row] @ items[ids[c]] / temperature - q[c])
            for c in range(first, len(ids))
            if ids[c] != ids[row]
        )
        np.testing.assert_allclose(loss[row, 0], -np.log(positive / (positive + others)), rtol=1e-5)


def test_in_batch_by_hand():
    # Users and items are orthogonal unit vectors: u0.i1 = u1.i2 = 1, u0.i2 = u1.i1 = 0; counts 1 : 3, batch of 2.
    items = tf.constant([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    layer = SampledSoftmaxLayer(NegativeSampler("inbatch", 1, "item", [0, 1, 3]))
    loss = layer([items, tf.eye(2), tf.constant([[1], [2]])], training=True)
    # Row 0: e^1 / (2/4) against e^0 / (2 * 3/4). Row 1: e^1 / (6/4) against e^0 / (2/4).
    e = np.e
    expected = [-np.log(2 * e / (2 * e + 2 / 3)), -np.log(2 * e / 3 / (2 * e / 3 + 2))]
    np.testing.assert_allclose(loss[:, 0], expected, rtol=1e-6)


def test_full_softmax_in_value_and_gradient_when_every_item_is_a_candidate():
    ids = np.concatenate([POSITIVES[:, 0], np.arange(V)])

    def sampled(users, items):
        rows = tf.gather(items, ids)
        return SampledSoftmaxLayer(temperature=0.3)(
            [users, rows, tf.constant(ids), tf.zeros(len(ids)), tf.constant(False)]
        )

    def full(users, items):
        logits = tf.matmul(users, items, transpose_b=True) / 0.3
        return tf.nn.sparse_softmax_cross_entropy_with_logits(POSITIVES[:, 0], logits)[:, None]

    results = []
    for function in (sampled, full):
        users, items = tf.Variable(USERS), tf.Variable(ITEMS)
        with tf.GradientTape() as tape:
            loss = function(users, items)
            total = tf.reduce_sum(loss)
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(total, [users, items])]
        results.append([loss, *gradients])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_accidental_hits_are_masked():
    # Without the mask the second candidate, the positive itself, would make the loss log(2) or more.
    user, item = tf.constant([[1.0, 0.0]]), tf.constant([[1.0, 0.0]])
    candidates, ids = tf.constant([[-20.0, 0.0], [1.0, 0.0]]), tf.constant([2, 1])
    logits = candidate_logits(user, item, candidates, tf.constant([1]), ids, tf.zeros(1), tf.zeros(2), 1.0)
    np.testing.assert_allclose(softmax_with_candidates(*logits), [[0.0]], atol=1e-6)


def largest_difference(function, values):
    """Between the gradient that a function states and what its values say, in float64."""
    theoretical, numerical = tf.test.compute_gradient(function, [tf.constant(each, tf.float64) for each in values])
    return max(np.max(np.abs(a - b), initial=0.0) for a, b in zip(theoretical, numerical, strict=True))


def test_the_gradient_of_logits_is_their_slope():
    rng = np.random.default_rng(5)
    ids, others = tf.constant([4, 7, 2]), tf.constant([7, 9, 7, 1])  # the second one's positive is drawn twice
    weights = rng.normal(size=(3, 5))

    def weighted(user, positive, candidate, log_counts, other_log_counts):
        of_positives, of_candidates = candidate_logits(
            user, positive, candidate, ids, others, log_counts, other_log_counts, 0.3
        )
        is_masked = of_candidates < -1e29
        of_candidates = tf.where(is_masked, tf.zeros_like(of_candidates), of_candidates)
        return tf.reduce_sum(tf.concat([of_positives, of_candidates], axis=1) * weights)

    shapes = (3, 2), (3, 2), (4, 2), (3,), (4,)
    assert largest_difference(weighted, [rng.normal(size=shape) for shape in shapes]) < 1e-6


def test_masked_logits_have_no_gradient_whatever_the_loss():
    candidate = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(candidate)
        ids = tf.constant([7]), tf.constant([9, 7])
        user = tf.constant([[1.0, 1.0]])
        _, logits = candidate_logits(user, user, candidate, *ids, tf.zeros(1), tf.zeros(2), 1.0)
        value = tf.reduce_sum(logits)
    np.testing.assert_array_equal(tape.gradient(value, candidate), [[1, 1], [0, 0]])


@pytest.mark.parametrize("masked", [[], [(0, 1)], [(0, 0), (0, 1), (0, 2)]])
def test_the_gradient_of_the_softmax_is_its_slope(masked):
    rng = np.random.default_rng(6)
    positive, candidates, weights = rng.normal(size=(2, 1)), rng.normal(size=(2, 3)), rng.normal(size=(2, 1))
    for place in masked:
        candidates[place] = -1e30
    function = lambda *logits: tf.reduce_sum(softmax_with_candidates(*logits) * weights)  # noqa: E731
    assert largest_difference(function, [positive, candidates]) < 1e-6


@pytest.mark.parametrize("candidates", [np.zeros((2, 0)), np.full((2, 3), -np.inf)])
def test_the_softmax_of_no_candidates_is_nothing(candidates):
    positive = tf.constant([[0.3], [-2.0]])
    with tf.GradientTape() as tape:
        tape.watch(positive)
        loss = softmax_with_candidates(positive, tf.constant(candidates, tf.float32))
    np.testing.assert_array_equal(loss, [[0], [0]])
    np.testing.assert_array_equal(tape.gradient(loss, positive), [[0], [0]])


def test_a_batch_of_one_item_in_batch_has_no_candidates_and_no_loss():
    layer = SampledSoftmaxLayer(InBatchSampler(COUNTS))
    with tf.GradientTape() as tape:
        items = tf.Variable(ITEMS)
        tape.watch(items)
        loss = layer([items, tf.constant(USERS[:2]), tf.constant([[3], [3]])])
    np.testing.assert_allclose(loss, [[0.0], [0.0]], atol=1e-6)
    assert np.all(np.isfinite(tf.convert_to_tensor(tape.gradient(loss, items))))


@pytest.mark.parametrize("sampler", [*SAMPLERS, InBatchSampler(COUNTS)], ids=lambda sampler: sampler.name)
def test_both_call_forms_agree(sampler):
    tower, _, _ = tower_form(sampler, 0.5, seed=7)
    layer = SampledSoftmaxLayer(sampler, 0.5, seed=7)
    three = layer([tf.constant(ITEMS), tf.constant(USERS), tf.constant(POSITIVES)], training=True)
    np.testing.assert_allclose(tower, three, rtol=1e-6)


def test_the_older_form_with_num_sampled_alone():
    loss = SampledSoftmaxLayer(num_sampled=5)([tf.constant(ITEMS), tf.constant(USERS), tf.constant(POSITIVES)])
    assert loss.shape == (B, 1)
    assert np.all(np.isfinite(loss))
    assert SampledSoftmaxLayer()([tf.constant(ITEMS), tf.constant(USERS), tf.constant(POSITIVES)]).shape == (B, 1)


def test_training_draws_anew_and_evaluation_repeats_and_counts_nothing():
    layer = CandidateSampler(UniformSampler(10), V, seed=3)

    def draw(training, positives=POSITIVES):
        return layer(tf.constant(positives), training=training)[0].numpy()[len(positives) :].tolist()

    evaluation = draw(False)
    first, second = draw(True), draw(True)
    assert first != second
    assert draw(False) == evaluation == draw(None)
    assert draw(False, POSITIVES[:3]) != evaluation
    again = CandidateSampler(UniformSampler(10), V, seed=3)
    again(tf.constant(POSITIVES), training=False)
    assert again(tf.constant(POSITIVES), training=True)[0].numpy()[B:].tolist() == first


def test_the_draws_are_the_same_under_tf_function():
    eager, graph = CandidateSampler(UniformSampler(10), V, seed=3), CandidateSampler(UniformSampler(10), V, seed=3)
    call = tf.function(lambda ids: graph(ids, training=True))
    for _ in range(3):
        ids = tf.constant(POSITIVES)
        np.testing.assert_array_equal(eager(ids, training=True)[0], call(ids)[0])


@pytest.mark.parametrize("layer", [CandidateSampler(FrequencySampler(8, COUNTS), V, 5)])
def test_counts_travel_with_the_weights_and_not_with_the_config(layer):
    layer(tf.constant(POSITIVES))
    config = layer.get_config()
    assert config["sampler_config"]["item_count"] == "saved with the weights"
    again = CandidateSampler.from_config(config)
    again.build(POSITIVES.shape)
    again.set_weights(layer.get_weights())
    for ours, theirs in zip(layer(tf.constant(POSITIVES)), again(tf.constant(POSITIVES)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_loss_hands_each_examples_loss_through():
    loss = sampledsoftmaxloss(tf.zeros((3, 1)), tf.constant([[1.0], [2.0], [6.0]]))
    assert loss.numpy().tolist() == [1.0, 2.0, 6.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SampledSoftmaxLayer(UniformSampler(3), temperature=0),
            r"`temperature` must be a finite number greater",
        ),
        (lambda: SampledSoftmaxLayer(UniformSampler(3), temperature=-1), r"`temperature` must be .* got -1"),
        (lambda: SampledSoftmaxLayer(num_sampled=0), r"`num_sampled` must be an integer of at least 1; got 0"),
        (lambda: SampledSoftmaxLayer(UniformSampler(3), num_sampled=3), r"`num_sampled` must be given in the sampler"),
        (lambda: SampledSoftmaxLayer({"sampler": "best"}), r"The sampler's name must be one of"),
        (lambda: CandidateSampler(UniformSampler(V), V), r"`num_sampled` must be at most 10"),
        (lambda: CandidateSampler(FrequencySampler(3, COUNTS), V + 1), r"`item_count` must have an entry for each"),
        (lambda: CandidateLoss(loss="best"), r"`loss` must be one of 'softmax', 'bpr', 'gbce'; got 'best'"),
        (lambda: CandidateLoss(loss="gbce"), r"`vocabulary_size` must be an integer of at least 2; got None"),
        (lambda: CandidateLoss(gbce_t=1.5), r"`gbce_t` must be at least 0"),
        (lambda: CandidateSampler(UniformSampler(3), 1), r"`vocabulary_size` must be an integer of at least 2"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Every sampler against full softmax: averaged over draws, the gradient goes to that of all items, and away from it
# when the correction is switched off.
MANY = 400
POPULARITY = np.concatenate([[0], 1 / np.arange(1, MANY + 1)])
POPULARITY /= POPULARITY.sum()
FEW_TIMES = np.maximum(1, POPULARITY * 5000).round()
UNBIASED = {
    "frequency": FrequencySampler(MANY, FEW_TIMES),
    "frequency, distorted": FrequencySampler(MANY, FEW_TIMES, 0.5),
    "log_uniform": LogUniformSampler(MANY),
    "adaptive": AdaptiveSampler(MANY, memory=20_000),
    "in-batch, counts known": InBatchSampler(FEW_TIMES),
    "in-batch, counts estimated": InBatchSampler(memory=20_000),
    "queue": QueueSampler(MANY, memory=20_000),
    "mixed": MixedSampler([InBatchSampler(memory=20_000), UniformSampler(MANY // 4)]),
}


def distances(sampler, draws=40, num_hard=None):
    """How far the mean gradient to the user vectors is from full softmax's, as a share of the latter.

    With the correction, and without it. The users stay; positives and candidates are drawn again and again.
    """
    rng = np.random.default_rng(3)
    items = rng.normal(size=(MANY + 1, D)).astype("float32")
    users = tf.Variable(rng.normal(size=(MANY, D)) / 2, dtype=tf.float32)
    # Of softmax over all items: the items' mean, weighted by their probabilities, less the positive.
    exponentials = np.exp(users.numpy().astype("float64") @ items[1:].T)
    mean_item = exponentials @ items[1:] / exponentials.sum(axis=1, keepdims=True)
    layer = CandidateSampler(sampler, MANY + 1, seed=5)
    layer.build((MANY,))
    candidates = functools.partial(layer, training=True)
    candidates = tf.function(candidates) if draws > 5 else candidates
    if isinstance(sampler, AdaptiveSampler | InBatchSampler | QueueSampler | MixedSampler):
        for _ in range(60):  # until the memory is full
            candidates(tf.constant(rng.choice(MANY + 1, MANY, p=POPULARITY)))
    corrected, uncorrected, full = 0.0, 0.0, 0.0
    loss, tensors = loss_of(num_hard), tf.constant(items)
    for _ in range(draws):
        positives = rng.choice(MANY + 1, MANY, p=POPULARITY)
        drawn = Candidates(*candidates(tf.constant(positives)))
        uniform = drawn._replace(log_counts=tf.zeros_like(drawn.log_counts))
        corrected += user_gradient(loss, users, tensors, drawn).numpy() / draws
        uncorrected += user_gradient(loss, users, tensors, uniform).numpy() / draws
        full += (mean_item - items[positives]) / draws
    return [np.linalg.norm(found - full) / np.linalg.norm(full) for found in (corrected, uncorrected)]


@functools.cache  # `user_gradient` is traced for each
def loss_of(num_hard):
    return CandidateLoss(num_hard=num_hard)


@tf.function
def user_gradient(layer, users, items, candidates):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer([users, tf.gather(items, candidates.ids), *candidates]))
    return tape.gradient(loss, users)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", UNBIASED)
def test_the_correction_makes_the_gradient_that_of_full_softmax(name):
    corrected, uncorrected = distances(UNBIASED[name])
    assert corrected < 0.08
    assert uncorrected > 5 * corrected


@pytest.mark.slow
@pytest.mark.once
def test_uniform_candidates_need_no_correction_and_all_items_are_full_softmax():
    assert distances(UniformSampler(MANY))[0] < 0.1
    assert distances(FullSampler(), draws=1)[0] < 1e-6


@pytest.mark.slow
@pytest.mark.once
def test_hard_negatives_come_nearer_to_all_candidates_the_more_are_kept():
    few, half, every = (distances(UniformSampler(MANY), 5, num_hard=n)[0] for n in (20, MANY // 2, MANY))
    assert few > 2 * half > 2 * every
    assert every == pytest.approx(distances(UniformSampler(MANY), draws=5)[0], rel=1e-3)


LOGITS = np.array([[0.5], [-1.0]]), np.array([[0.2, -1e30, 2.0], [0.1, 0.3, -0.4]])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_bpr_by_hand():
    (p,), (q,) = LOGITS[0]
    first = np.mean([-np.log(sigmoid(p - 0.2)), -np.log(sigmoid(p - 2.0))])  # one of three is masked
    second = np.mean([-np.log(sigmoid(q - c)) for c in (0.1, 0.3, -0.4)])
    result = bpr(*(tf.constant(x, tf.float32) for x in LOGITS))
    np.testing.assert_allclose(result[:, 0], [first, second], rtol=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.75, 1.0])
def test_gbce_by_hand(t):
    rate = 0.25
    power = rate * (t * (1 - 1 / rate) + 1 / rate)
    assert power == pytest.approx({0.0: 1.0, 1.0: rate}.get(t, power))  # plain, and wholly calibrated
    (p,), (q,) = LOGITS[0]
    first = -(power * np.log(sigmoid(p)) + sum(np.log(1 - sigmoid(c)) for c in (0.2, 2.0))) / 3
    second = -(power * np.log(sigmoid(q)) + sum(np.log(1 - sigmoid(c)) for c in (0.1, 0.3, -0.4))) / 4
    result = gbce(*(tf.constant(x, tf.float32) for x in LOGITS), rate, t)
    np.testing.assert_allclose(result[:, 0], [first, second], rtol=1e-6)


@pytest.mark.parametrize("bias", [0.0, -0.3])
def test_gbce_of_uniform_candidates_is_that_of_its_paper(bias):
    """Logits without any correction, on a level of their own, and the sampling rate that the candidates are of all."""
    t, temperature = 0.75, 0.5
    candidates = CandidateSampler(UniformSampler(5), V, 1)(tf.constant(POSITIVES), training=True)
    ids = candidates[0]
    layer = CandidateLoss(temperature, "gbce", t, vocabulary_size=V)
    layer.build(None)
    layer.bias.assign(bias)
    result = layer([tf.constant(USERS), tf.gather(ITEMS, ids), *candidates])
    rate = 5 / (V - 1)
    power = rate * (t * (1 - 1 / rate) + 1 / rate)
    logits = (USERS @ ITEMS[ids].T + bias) / temperature + np.log(power / 5)
    for row in range(B):
        others = [logits[row, c] for c in range(B, B + 5) if ids[c] != ids[row]]
        expected = -(power * np.log(sigmoid(logits[row, row])) + sum(np.log(1 - sigmoid(c)) for c in others))
        np.testing.assert_allclose(result[row, 0], expected / (len(others) + 1), rtol=1e-5)


def test_gbce_learns_its_bias():
    layer = CandidateLoss(loss="gbce", vocabulary_size=V)
    with tf.GradientTape() as tape:
        loss = layer([tf.constant(USERS), tf.constant(ITEMS), tf.range(V), tf.zeros(V), tf.constant(False)])
    assert abs(tape.gradient(loss, layer.trainable_weights)[0]) > 0


@pytest.mark.parametrize("loss", ["softmax", "bpr", "gbce"])
def test_masked_candidates_have_no_gradient(loss):
    candidates = tf.constant(LOGITS[1], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(candidates)
        positive = tf.constant(LOGITS[0], tf.float32)
        value = {
            "softmax": lambda: softmax_with_candidates(positive, candidates),
            "bpr": lambda: bpr(positive, candidates),
            "gbce": lambda: gbce(positive, candidates, 0.3, 0.5),
        }[loss]()
    gradient = tape.gradient(value, candidates).numpy()
    assert gradient[0, 1] == 0
    assert np.all(np.isfinite(gradient))
    assert np.count_nonzero(gradient) == 5


def test_the_hardest_have_the_highest_logits():
    candidates = tf.constant(LOGITS[1], tf.float32)
    np.testing.assert_allclose(hardest(candidates, 2), [[2.0, 0.2], [0.3, 0.1]])
    assert hardest(candidates, 7).shape == (2, 3)


def test_a_learning_sampler_learns_while_training_only():
    layer = CandidateSampler(AdaptiveSampler(8, memory=20), V, seed=3)
    layer(tf.constant(POSITIVES), training=True)
    before = [weight.copy() for weight in layer.get_weights()]
    layer(tf.constant(POSITIVES), training=False)
    layer(tf.constant(POSITIVES))
    for ours, theirs in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    tf.function(lambda ids: layer(ids, training=True))(tf.constant(POSITIVES))
    assert any(not np.array_equal(ours, theirs) for ours, theirs in zip(layer.get_weights(), before, strict=True))


def test_the_draw_of_a_step_does_not_know_the_steps_own_positives():
    layer = CandidateSampler(AdaptiveSampler(8, memory=5, uniform_share=1e-6), V, seed=3)
    layer.build()
    at_first = {name: weight.numpy() for name, weight in layer._state.items()}["recent"]
    ids, log_counts, _ = layer(tf.constant([[9]] * 5), training=True)
    assert set(ids[5:].numpy()) <= set(at_first)
    share = np.mean(at_first == 9)
    np.testing.assert_allclose(np.exp(log_counts[0]) / 8, share + 1e-6 / 10, atol=1e-6)
    ids, _, _ = layer(tf.constant([[9]] * 5), training=True)
    assert set(ids[5:].numpy()) == {9}


def test_a_loss_of_ones_own_is_a_function_and_a_line(monkeypatch):
    def hinge(positive, candidates, drawn):
        return tf.reduce_sum(tf.nn.relu(1 + candidates - positive), axis=1, keepdims=True) / drawn

    monkeypatch.setitem(LOSSES, "hinge", hinge)
    drawn = Candidates(tf.constant([1, 2, 3]), tf.zeros(3), tf.constant(False))
    inputs = [tf.constant([[1.0, 0.0]]), tf.constant([[0.5, 9.0], [1.0, 9.0], [-2.0, 9.0]]), *drawn]
    # (1 + 1 - 0.5 + 0) / 2: the second candidate, at -2, is far enough below.
    assert CandidateLoss(loss="hinge")(inputs).numpy().tolist() == [[0.75]]
    # Of in-batch candidates the positive is one of three, masked.
    assert CandidateLoss(loss="hinge")([*inputs[:-1], tf.constant(True)]).numpy().tolist() == [[0.5]]
    monkeypatch.setitem(LOSSES, "hinge", lambda positive, candidates, margin: positive)
    message = r"The loss 'hinge' must take the two logits, and besides only drawn, num_items, .*; got 'margin'"
    with pytest.raises(ValueError, match=message):
        CandidateLoss(loss="hinge")
