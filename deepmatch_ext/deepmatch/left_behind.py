"""DeepMatch's names that were not carried over, and what to do instead."""

_OF_SESSIONS = "Take `deepmatch_ext.layers.{}`, as `deepmatch_ext.models.sdm` does, or keep `deepmatch.layers` for it."

LAYERS = {
    **{
        name: _OF_SESSIONS.format(instead)
        for name, instead in {
            "AttentionSequencePoolingLayer": "AttentionPooling",
            "ConcatAttention": "AttentionPooling",
            "DotAttention": "AttentionPooling",
            "SelfMultiHeadAttention": "SelfAttention",
            "SoftmaxWeightedSum": "AttentionPooling",
            "UserAttention": "AttentionPooling",
        }.items()
    },
    "DynamicMultiRNN": "Take a `tf.keras.layers.LSTM(units, return_sequences=True)` for each layer, and a mask.",
    "InBatchSoftmaxLayer": "Take `SampledSoftmaxLayer` with the sampler `deepmatch_ext.samplers.InBatchSampler`.",
    "Similarity": "Take `tf.keras.layers.Dot(axes=-1, normalize=True)`.",
}

UTILS = {
    "check_version": "This package asks no package index for newer versions.",
    "inner_product": "It sums over the batch, too. Take `tf.keras.layers.Dot(axes=-1)`.",
}
