"""SampledSoftmaxLayer and CandidateSampler against tf.nn, full softmax and NumPy float64."""

import numpy as np
import pytest
import tensorflow as tf

from deepmatch_ext.layers import CandidateSampler, SampledSoftmaxLayer
from deepmatch_ext.losses import candidate_logits, sampledsoftmaxloss, softmax_with_candidates
from deepmatch_ext.samplers import FrequencySampler, InBatchSampler, LogUniformSampler, UniformSampler
from deepmatch_ext.utils import NegativeSampler

V, B, D = 11, 5, 4
RNG = np.random.default_rng(0)
ITEMS = RNG.normal(size=(V, D)).astype("float32")
USERS = RNG.normal(size=(B, D)).astype("float32")
POSITIVES = np.array([[3], [1], [10], [3], [7]], "int32")
COUNTS = np.array([0, 5, 1, 9, 2, 3, 0, 4, 1, 1, 7])
SAMPLERS = [UniformSampler(8), LogUniformSampler(8), FrequencySampler(8, COUNTS), FrequencySampler(8, COUNTS, 0.5)]


def tower_form(sampler, temperature=1.0, seed=1, users=USERS, items=ITEMS, training=True):
    ids, log_counts = CandidateSampler(sampler, V, seed)(tf.constant(POSITIVES), training=training)
    rows = tf.gather(items, ids)
    loss = SampledSoftmaxLayer(sampler, temperature)([tf.constant(users), rows, ids, log_counts])
    return loss, ids.numpy(), log_counts.numpy()


@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_equals_tf_nn_sampled_softmax_loss_given_the_same_candidates(sampler, temperature):
    # All different: of a candidate drawn twice, tf.nn masks one accidental hit only.
    ids = np.concatenate([POSITIVES[:, 0], np.random.default_rng(1).permutation(np.arange(1, V))[:8]])
    state = {name: tf.constant(array) for name, array in sampler.state(V).items()}
    log_counts = sampler.log_expected_count(state, V, tf.constant(ids, tf.int64), tf.constant(B))
    layer = SampledSoftmaxLayer(sampler, temperature)
    loss = layer([tf.constant(USERS), tf.gather(ITEMS, ids), tf.constant(ids), log_counts])
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
        return SampledSoftmaxLayer(temperature=0.3)([users, rows, tf.constant(ids), tf.zeros(len(ids))])

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
    again(tf.constant(POSITIVES))
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
        (lambda: CandidateSampler(UniformSampler(3), 1), r"`vocabulary_size` must be an integer of at least 2"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
