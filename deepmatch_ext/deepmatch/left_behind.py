"""DeepMatch's names that were not carried over, and what to do instead."""

LAYERS = {
    "Similarity": "Take `tf.keras.layers.Dot(axes=-1, normalize=True)`.",
    "inbatch_softmax_cross_entropy_with_logits": "Take the layer `InBatchSoftmaxLayer`, which computes it.",
    "squash": "Take `deepmatch_ext.layers.DynamicRouting`, whose interests are squashed.",
}

UTILS = {
    "check_version": "This package asks no package index for newer versions. Take its call out.",
}
