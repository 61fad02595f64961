"""DeepMatch's names that were not carried over, and what to do instead."""

MODELS = dict.fromkeys(
    ("NCF", "SDM"),
    "ComiRec, DSSM, FM, MIND and YoutubeDNN are here; keep `deepmatch.models` for the others.",
)

_OF_OTHER_MODELS = "It belongs to models that are not here; keep `deepmatch.layers` for them."

LAYERS = {
    **dict.fromkeys(
        (
            "AttentionSequencePoolingLayer",
            "CapsuleLayer",
            "ConcatAttention",
            "DotAttention",
            "DynamicMultiRNN",
            "MaskUserEmbedding",
            "SelfAttention",
            "SelfMultiHeadAttention",
            "SoftmaxWeightedSum",
            "UserAttention",
        ),
        _OF_OTHER_MODELS,
    ),
    "InBatchSoftmaxLayer": "Take `SampledSoftmaxLayer` with the sampler `deepmatch_ext.samplers.InBatchSampler`.",
    "Similarity": "Take `tf.keras.layers.Dot(axes=-1, normalize=True)`.",
}

UTILS = {
    "check_version": "This package asks no package index for newer versions.",
    "inner_product": "It sums over the batch, too. Take `tf.keras.layers.Dot(axes=-1)`.",
}
