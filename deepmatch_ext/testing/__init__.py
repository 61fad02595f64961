"""`check_model` checks that a builder, such as your own, keeps the promises of all models of this package.

Nothing here needs a test framework. With pytest, a test for each of the `CHECKS` tells more than a single one for all::

    @pytest.fixture(scope="module")
    def trial():
        return Trial(MyModel)

    @pytest.mark.parametrize("name", CHECKS)
    def test_my_model(name, trial):
        CHECKS[name](trial)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deepmatch_ext.testing._checks import CHECKS
from deepmatch_ext.testing._samplers import check_sampler
from deepmatch_ext.testing._trial import Trial

__all__ = ["CHECKS", "Trial", "check_model", "check_sampler"]


def check_model(builder: Callable[..., Any], columns: Any = None, **arguments: Any) -> None:
    """Checks that a builder's models keep the promises of all models of this package.

    It builds small models, generates data for them, and trains, saves, reloads and exports them, in a minute or so on
    two cores. `CHECKS` contains each check by name; a check's docstring says what it requires.

    Args:
        builder: A function like `YoutubeDNN`: user columns, item columns, and then arguments that have defaults. Files
            are also read in a fresh process, so the builder has to be in a module and not in an interactive session.
        columns: ``(user columns, item columns)`` of the models, if the builder does not take every kind: DeepCTR's, or
            this package's. A history must share the item's table, the item must have integer ids, and the vocabulary
            must be small, since 512 rows have to teach which item follows which. None: columns of every kind are tried.
        arguments: The builder's other arguments, which are given to every model. If the checks cannot find a second
            value for an argument, because its default is None or text, they check that it is saved only if it is given
            here.

    Raises:
        AssertionError: A promise is broken; the message says which, what was expected and what was found.
        ValueError: ``builder`` or ``columns`` are not of the form described.

    Example::

        from deepmatch_ext.testing import check_model
        from my_models import MyModel

        def test_my_model():
            check_model(MyModel, num_layers=2)
    """
    trial = Trial(builder, columns, **arguments)
    for check in CHECKS.values():
        check(trial)
