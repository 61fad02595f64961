"""The checks. The docstring of each is the promise that it checks; a failure says what was found."""

from __future__ import annotations

from collections.abc import Callable

from deepmatch_ext.testing._checks.arguments import bad_arguments, recorded
from deepmatch_ext.testing._checks.files import export, reload, reload_weights, resume
from deepmatch_ext.testing._checks.tables import whole_tables
from deepmatch_ext.testing._checks.training import columns, learns, repeats, sample_weight, samplers_and_losses
from deepmatch_ext.testing._checks.vectors import attributes, index, mixed_precision, padding, vectors
from deepmatch_ext.testing._trial import Trial

CHECKS: dict[str, Callable[[Trial], None]] = {
    function.__name__: function
    for function in (
        *(attributes, recorded, bad_arguments, columns, whole_tables, vectors, learns, padding, mixed_precision),
        *(repeats, sample_weight, samplers_and_losses, index, reload, reload_weights, resume, export),
    )
}
"""Name -> check. A check takes a `Trial`, and raises AssertionError if the builder's models break its promise."""

__all__ = ["CHECKS"]
