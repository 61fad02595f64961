"""What all checks share."""

from __future__ import annotations

import functools
from collections.abc import Callable

from deepmatch_ext.testing._expect import Broken, one_line
from deepmatch_ext.testing._trial import Trial


def check(function: Callable[[Trial], None]) -> Callable[[Trial], None]:
    """Makes a check, whose failure says the builder, the check, what was expected and what came."""

    @functools.wraps(function)
    def checked(trial: Trial) -> None:
        failing = f"{trial.name} fails the check {function.__name__!r}: "
        try:
            function(trial)
        except Broken as broken:
            raise AssertionError(f"{failing}{broken}") from None
        except Exception as error:
            raise AssertionError(f"{failing}no error was expected; got {one_line(error)}") from error

    return checked
