"""Which items are drawn as negatives, and the log of how often each was to be expected.

A sampler draws S candidate ids, with replacement, that a whole batch shares; id 0 is padding and never drawn. For any
id it tells the log of the count with which it was to be expected among the candidates, ``log(S q(id))``: what the logQ
correction of sampled softmax subtracts (Bengio & Senecal 2008; ``tf.nn.sampled_softmax_loss``).

Samplers are plain settings. What they need at every step (an alias table, say) is an array of their `state`, which
`CandidateSampler` keeps as weights: so it is saved with the model's weights and not in its config. A sampler that
learns, from the positives that go by, changes its state in `update`.
"""

from deepmatch_ext.samplers.base import SAVED, Sampler, State, make_sampler, stream
from deepmatch_ext.samplers.combined import MixedSampler
from deepmatch_ext.samplers.fixed import (
    FrequencySampler,
    FullSampler,
    LogUniformSampler,
    UniformSampler,
    alias_table,
)
from deepmatch_ext.samplers.learnt import (
    DEFAULT_MEMORY,
    SMALLEST_SHARE,
    AdaptiveSampler,
    CountedShares,
    InBatchSampler,
    QueueSampler,
    RecentShares,
)

__all__ = [
    "DEFAULT_MEMORY",
    "SAVED",
    "SMALLEST_SHARE",
    "AdaptiveSampler",
    "CountedShares",
    "FrequencySampler",
    "FullSampler",
    "InBatchSampler",
    "LogUniformSampler",
    "MixedSampler",
    "QueueSampler",
    "RecentShares",
    "Sampler",
    "State",
    "UniformSampler",
    "alias_table",
    "make_sampler",
    "stream",
]
