"""Checks of arguments and one phrasing for every refusal: what, the rule, what came, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def problem(what: str, rule: str, got: Any, remedy: str = "") -> ValueError:
    """The ValueError to raise: ``what`` must ``rule``; got ``got``. ``remedy``

    Args:
        what: The argument, column or input, as the caller knows it.
        rule: What holds for it, as a verb phrase: "be greater than 0".
        got: The value received, or a phrase that describes it. A string stands as it is.
        remedy: A whole sentence that says what to do, if that is not plain from the rule.
    """
    text = f"{what} must {rule}; got {got if isinstance(got, str) else repr(got)}."
    return ValueError(f"{text} {remedy}".rstrip())


def missing_name(module: str, name: str, left_behind: Mapping[str, str]) -> Exception:
    """What a module's ``__getattr__`` raises for a name that it has not.

    Args:
        module: The module's ``__name__``.
        name: What was asked for.
        left_behind: DeepMatch's names that were not carried over, and what to do instead, a whole sentence.
    """
    if name in left_behind:
        return ImportError(f"DeepMatch's {name} is not carried over into {module}. {left_behind[name]}", name=module)
    return AttributeError(f"module {module!r} has no attribute {name!r}")


def missing_extra(what: str, package: str, extra: str) -> ImportError:
    """What to raise where a package of an optional extra is not installed.

    Args:
        what: What needs it.
        package: What pip calls it.
        extra: The extra of this package that brings it, in a version that fits.
    """
    clone = f'pip install -e ".[{extra}]"'
    return ImportError(f'{what} needs {package}: pip install "{package}", or from a clone of deepmatch_ext {clone}')


def listing(values: Any, most: int = 5) -> str:
    """The first few of ``values`` and how many more there are, for an error message."""
    shown = ", ".join(repr(value) for value in np.asarray(values[:most]).tolist())
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")


def positive_int(what: str, value: Any, remedy: str = "") -> int:
    """``value`` as a Python int >= 1 (NumPy integers are welcome, booleans and floats are not)."""
    return int_at_least(what, value, 1, remedy)


def int_at_least(what: str, value: Any, least: int, remedy: str = "") -> int:
    """``value`` as a Python int >= ``least``."""
    is_integer = hasattr(value, "__index__") and not isinstance(value, bool)
    if not is_integer or int(value) < least:
        raise problem(what, f"be an integer of at least {least}", value, remedy)
    return int(value)


def positive_number(what: str, value: Any, remedy: str = "") -> float:
    """``value`` as a finite float > 0."""
    number = _number(what, value)
    if not 0 < number < float("inf"):
        raise problem(what, "be a finite number greater than 0", value, remedy)
    return number


def number_between(what: str, value: Any, low: float, high: float, remedy: str = "") -> float:
    """``value`` as a float with low <= value < high."""
    number = _number(what, value)
    if not low <= number < high:
        raise problem(what, f"be at least {low:g} and less than {high:g}", value, remedy)
    return number


def one_of(what: str, value: Any, allowed: Iterable[str]) -> str:
    """``value`` if it is one of the allowed names."""
    allowed = list(allowed)
    if value not in allowed:
        raise problem(what, "be one of " + ", ".join(repr(name) for name in allowed), repr(value))
    return str(value)


def no_duplicates(what: str, names: Iterable[Any]) -> None:
    """Refuses a name that comes twice."""
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise problem(what, "not repeat a name", f"{name!r} twice", "Rename one of the two or leave it out.")
        seen.add(name)


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool | str):
        raise problem(what, "be a number", value)
    try:
        return float(value)
    except (TypeError, ValueError):
        raise problem(what, "be a number", value) from None
