"""Checks of arguments, and one phrasing for every error: what, the rule, what was given, what to do."""

from __future__ import annotations

import operator
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

LARGEST_INT = 2**63 - 1


def problem(what: str, rule: str, got: Any, remedy: str = "") -> ValueError:
    """The ValueError to raise: ``what`` must ``rule``; got ``got``. ``remedy``

    Args:
        what: The argument, column or input, as the caller knows it.
        rule: The rule for it, as a verb phrase: "be greater than 0".
        got: The value received, or a phrase that describes it. A string is a phrase: `shown` puts quotes around one
            that is a value.
        remedy: A whole sentence that says what to do, if that is not clear from the rule.
    """
    return ValueError(f"{what} must {rule}; got {got if isinstance(got, str) else shown(got)}. {remedy}".rstrip())


def missing_name(module: str, name: str, left_behind: Mapping[str, str]) -> Exception:
    """What a module's ``__getattr__`` raises for a name that it does not have.

    Args:
        module: The module's ``__name__``.
        name: What was asked for.
        left_behind: DeepMatch's names that were not carried over, and what to do instead, a whole sentence.
    """
    if name in left_behind:
        return ImportError(f"DeepMatch's {name} is not carried over into {module}. {left_behind[name]}", name=module)
    return AttributeError(f"module {module!r} has no attribute {name!r}")


def warn_caller(text: str, category: type[Warning]) -> None:
    """Warns, with the line outside this package that led here as the location, however deep the calls are."""
    package, depth, frame = str(Path(__file__).parent), 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, category, stacklevel=depth)


def missing_extra(what: str, package: str, extra: str) -> ImportError:
    """What to raise where a package of an optional extra is not installed.

    Args:
        what: What needs it.
        package: What pip calls it; several with a space between.
        extra: The extra of this package that installs it in a suitable version.
    """
    names, quoted = " and ".join(package.split()), " ".join(f'"{name}"' for name in package.split())
    clone = f'pip install -e ".[{extra}]"'
    return ImportError(f"{what} needs {names}: pip install {quoted}, or from a clone of deepmatch_ext {clone}")


def listing(values: Any, most: int = 5) -> str:
    """The first few of ``values`` and how many more there are, for an error message."""
    shown = ", ".join(repr(value) for value in np.asarray(values[:most]).tolist())
    return shown + (f" and {len(values) - most} more" if len(values) > most else "")


def shown(value: Any) -> str:
    """A value as a message shows it: text in quotes, arrays by their type and shape, nothing too long."""
    if isinstance(value, bool | int | float | np.bool_ | np.number) and not isinstance(value, np.floating):
        return str(value)
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        if not np.shape(value) and hasattr(value, "tolist"):
            return repr(value.tolist())
        return f"{type(value).__name__} of {value.dtype}, shape {value.shape}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:196]} ..."


def positive_int(what: str, value: Any, remedy: str = "") -> int:
    """``value`` as a Python int >= 1 (NumPy integers are accepted, booleans and floats are not)."""
    return int_at_least(what, value, 1, remedy)


def int_at_least(what: str, value: Any, least: int, remedy: str = "") -> int:
    """``value`` as a Python int >= ``least``, of 64 bits."""
    try:
        number = least - 1 if isinstance(value, bool | np.bool_) else operator.index(value)
    except Exception:  # arrays, classes and the like have an __index__ that raises errors of its own
        number = least - 1
    if number < least:
        raise problem(what, f"be an integer of at least {least}", shown(value), remedy)
    if number > LARGEST_INT:
        raise problem(what, f"be an integer of at most {LARGEST_INT}", shown(value), remedy)
    return number


def positive_number(what: str, value: Any, remedy: str = "") -> float:
    """``value`` as a finite float > 0."""
    number = finite_number(what, value, remedy)
    if not number > 0:
        raise problem(what, "be a finite number greater than 0", shown(value), remedy)
    return number


def number_between(what: str, value: Any, low: float, high: float, remedy: str = "") -> float:
    """``value`` as a float with low <= value < high."""
    number = _number(what, value, remedy)
    if not low <= number < high:
        raise problem(what, f"be at least {low:g} and less than {high:g}", shown(value), remedy)
    return number


def finite_number(what: str, value: Any, remedy: str = "") -> float:
    """``value`` as a float that is neither NaN nor infinite."""
    number = _number(what, value, remedy)
    if not abs(number) < float("inf"):
        raise problem(what, "be a finite number", shown(value), remedy)
    return number


def as_flag(what: str, value: Any) -> bool:
    """``value`` if it is True or False; the text "False", for example, would count as True."""
    if not isinstance(value, bool | np.bool_ | int | np.integer) or value not in (0, 1):
        raise problem(what, "be True or False", shown(value))
    return bool(value)


def one_of(what: str, value: Any, allowed: Iterable[str]) -> str:
    """``value`` if it is one of the allowed names."""
    allowed = list(allowed)
    if not isinstance(value, str) or value not in allowed:
        raise problem(what, "be one of " + ", ".join(repr(name) for name in allowed), shown(value))
    return str(value)


def as_text(what: str, value: Any) -> str:
    """``value`` if it is text, and not empty."""
    if not isinstance(value, str) or not value:
        raise problem(what, "be text, and not empty", shown(value))
    return str(value)


def as_texts(what: str, values: Any) -> list[str]:
    """A list of names; a single name stands for a list of one."""
    if isinstance(values, str):
        return [values]
    names = as_list(what, "be a list of names", values)
    for name in names:
        if not isinstance(name, str):
            raise problem(what, "be a list of names, which are text", f"{shown(name)} among them")
    return names


def as_list(what: str, rule: str, values: Any) -> list[Any]:
    """The elements of ``values``, which must not be text."""
    if isinstance(values, str | bytes):
        raise problem(what, rule, shown(values))
    try:
        return list(values)
    except Exception:  # not an iterable, or an array without dimensions
        raise problem(what, rule, shown(values)) from None


def as_path(what: str, value: Any) -> Path:
    """``value`` as a path. (A number would be taken for an open file, and closed.)"""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise problem(what, "be a path", shown(value))
    return Path(value)


def existing_files(what: str, paths: Any) -> list[str]:
    """The paths of one file or of several, each of which exists."""
    if not isinstance(paths, str | os.PathLike | Iterable) or isinstance(paths, bytes):
        raise problem(what, "be a path or a list of paths", shown(paths))
    is_one = isinstance(paths, str | os.PathLike)
    given = [paths] if is_one else as_list(what, "be a path or a list of paths", paths)
    files = [str(as_path(f"Each of {what}", path)) for path in given]
    if not files:
        raise problem(what, "name at least one file", "none")
    no_duplicates(what, files)
    for file in files:
        if not os.path.isfile(file):
            raise FileNotFoundError(f"{what} must be files that exist; there is no file {file!r}.")
    return files


def instance_of(what: str, value: Any, kind: Any, remedy: str = "") -> Any:
    """``value`` if it is of the class ``kind``."""
    if not isinstance(value, kind):
        raise problem(what, f"be of the class {kind.__name__}", shown(value), remedy)
    return value


def as_function(what: str, value: Any) -> Any:
    """``value`` if it can be called."""
    if not callable(value):
        raise problem(what, "be a function", shown(value))
    return value


def no_duplicates(what: str, names: Iterable[Any]) -> None:
    """Refuses a name that occurs twice."""
    seen: set[Any] = set()
    for name in names:
        try:
            repeated = name in seen
        except Exception:  # a list, say, or a tensor
            raise problem(what, "be text", shown(name)) from None
        if repeated:
            raise problem(what, "not repeat a name", f"{name!r} twice", "Rename one of the two or leave it out.")
        seen.add(name)


def _number(what: str, value: Any, remedy: str = "") -> float:
    number = np.asarray(value) if isinstance(value, int | float | np.number | np.ndarray) else None
    if number is None or isinstance(value, bool) or number.ndim or number.dtype.kind not in "iufO":
        raise problem(what, "be a number", shown(value), remedy)
    try:
        return float(number)
    except OverflowError:
        raise problem(what, "be a number that fits in 64 bits", shown(value), remedy) from None
