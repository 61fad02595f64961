"""What all checks share."""

from __future__ import annotations

import functools
from collections.abc import Callable

from deepmatch_ext.testing._expect import saying
from deepmatch_ext.testing._trial import Trial


def check(function: Callable[[Trial], None]) -> Callable[[Trial], None]:
    """Makes a check, whose failure names the builder and the check, what was expected and what was found."""

    @functools.wraps(function)
    def checked(trial: Trial) -> None:
        with saying(f"{trial.name} fails the check {function.__name__!r}"):
            function(trial)

    return checked
