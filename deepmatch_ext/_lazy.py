"""Imports on first use, so that programs that need only the plain parts do not wait for TensorFlow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package (PEP 562) for names that need TensorFlow.

    The first use of one loads all of deepmatch_ext, so that Keras knows its classes as after ``import deepmatch_ext``.

    Args:
        package: Its ``__name__``.
        homes: name -> the module in the package that has it. Type checkers and editors don't see these: give them the
            imports under ``typing.TYPE_CHECKING``.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        import_module("deepmatch_ext").load()
        value = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # so that this runs once for a name
        return value

    class Package(ModuleType):
        def __setattr__(self, name: str, value: Any) -> None:
            # Python binds a module in its package: `top_n`, where the package's `top_n` is a function.
            if isinstance(value, ModuleType) and homes.get(name) == name:
                value = getattr(value, name)
            super().__setattr__(name, value)

    sys.modules[package].__class__ = Package
    return get, lambda: sorted({*vars(sys.modules[package]), *homes})


def imported_for(package: str) -> str:
    """What the running import statement asks for: ``package`` itself, or a module in it.

    Python imports a package before a module in it, and does not tell the package why. But Python's import system is
    written in Python and is among the callers. If it is not found there, the answer is ``package``.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_name == "_find_and_load" and frame.f_globals.get("__name__") == "importlib._bootstrap":
            name = str(frame.f_locals.get("name"))
            if name != package:
                return name if name.startswith(f"{package}.") else package
    return package
