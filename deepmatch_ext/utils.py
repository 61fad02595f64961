"""Where programs written for DeepMatch look for its helpers; see `deepmatch_ext.deepmatch`."""

from typing import Any

from deepmatch_ext._checks import missing_name
from deepmatch_ext.deepmatch.left_behind import UTILS
from deepmatch_ext.deepmatch.utils import NegativeSampler, get_item_embedding, inner_product, l2_normalize, recall_N
from deepmatch_ext.losses import sampledsoftmaxloss

__all__ = ["NegativeSampler", "get_item_embedding", "inner_product", "l2_normalize", "recall_N", "sampledsoftmaxloss"]


def __getattr__(name: str) -> Any:
    raise missing_name(__name__, name, UTILS)
