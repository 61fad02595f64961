"""Which items are drawn as negatives, and how often each is expected among them.

A sampler draws S candidate ids, with replacement, which the whole batch shares; id 0 is padding and is never drawn. For
any id, the sampler gives the log of its expected count among the candidates, ``log(S q(id))``. The logQ correction of
sampled softmax subtracts this log (Bengio & Senecal 2008; ``tf.nn.sampled_softmax_loss``).

A sampler object holds only settings. The arrays that it needs at every step, such as an alias table, are its `state`.
`CandidateSampler` keeps the state as weights, so it is saved with the model's weights and not in its config. A sampler
that learns from the positives of each batch changes its state in `update`.
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
