"""Functions, layers and the like as plain data in a file; what another process could not rebuild is refused."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from deepmatch_ext._checks import problem
from deepmatch_ext._keras import deserialize, keras, serialize

_REMEDY = (
    "Decorate it with `@tf.keras.utils.register_keras_serializable()`, in a module that is imported before loading."
)


def plain_object(what: str, value: Any, part: str | None = None, remedy: str = _REMEDY) -> Any:
    """``value`` as plain data, which `deserialize` takes back in any process that has imported what it needs.

    Args:
        what: What it is, for error messages.
        value: A function, a layer, an initializer or another object of Keras's or of the user's.
        part: Keras's module for objects of the kind: "layers", "initializers". None for functions.
        remedy: What to do about one that has no name.

    Raises:
        ValueError: It is, or holds, something that Keras does not find again: a lambda or another function or class
            that is not registered.
    """
    check_named(what, value, remedy)
    try:
        value = _of_keras(value)
        plain = serialize(value)
        if isinstance(value, keras.layers.Layer) or not _is_kerass(value):
            deserialize(json.loads(json.dumps(plain)), part)
    except Exception as error:  # whatever Keras, or the user's own class, raises
        raise nameless(what, value, remedy, ", which Keras can't make again") from error
    return plain


def check_named(what: str, value: Any, remedy: str = _REMEDY) -> None:
    """Refuses a function, or an object's class, that is neither registered nor Keras's own; its parts, too.

    Keras writes only the name of such a function: the file can't be read, or is read with Keras's own of that name.

    Raises:
        ValueError: As in `plain_object`.
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            check_named(what, each, remedy)
    elif hasattr(value, "get_config") and not isinstance(value, type):
        if not _is_named(type(value)):
            raise nameless(what, value, remedy)
        check_settings_named(what, value, remedy)
    elif callable(value) and not _is_named(value):
        raise nameless(what, value, remedy)


def check_settings_named(what: str, value: Any, remedy: str = _REMEDY) -> None:
    """Checks the parts of an object as `check_named` does, but not its own class."""
    settings = settings_of(value)
    if settings is None:
        raise nameless(what, value, remedy, " without a `get_config`")
    check_named(what, [getattr(value, name, None) for name in settings], remedy)


def settings_of(value: Any) -> dict[str, Any] | None:
    """An object's config; None where it has none."""
    try:
        return dict(value.get_config())
    except (AttributeError, NotImplementedError, TypeError):  # Keras's own, and of functions
        return None


def is_registered(value: Any) -> bool:
    """Whether Keras finds a function or class by a name that it was registered under."""
    if not hasattr(value, "__name__"):
        return False
    return keras.utils.get_registered_object(keras.utils.get_registered_name(value)) is value


def nameless(what: str, value: Any, remedy: str = _REMEDY, why: str = "") -> ValueError:
    """The error to raise about a function or object that Keras can't make again."""
    return problem(what, "be registered with Keras, which makes it again by its name", f"{_name(value)}{why}", remedy)


def _is_named(value: Any) -> bool:
    return hasattr(value, "__name__") and (
        _module(value) in ("keras", "tf_keras", "tensorflow") or is_registered(value)
    )


def _is_kerass(value: Any) -> bool:
    return _module(value if hasattr(value, "__name__") else type(value)) in ("keras", "tf_keras")


def _module(value: Any) -> str:
    return str(getattr(value, "__module__", "")).split(".")[0]


def _name(value: Any) -> str:
    if isinstance(value, functools.partial) or not callable(value) or not hasattr(value, "__name__"):
        return f"an object of the class {type(value).__name__}"
    return "a lambda" if value.__name__ == "<lambda>" else f"the function {value.__name__!r}"


def _of_keras(value: Any) -> Any:
    """TensorFlow's functions and initializers as Keras's of the same name: not every Keras reloads TensorFlow's."""
    if hasattr(value, "get_config") and _module(type(value)) == "tensorflow":
        kind = getattr(keras.initializers, type(value).__name__, None)
        settings = {name: setting for name, setting in value.get_config().items() if name != "dtype"}
        return value if kind is None else kind(**settings)
    if _module(value) == "tensorflow" and hasattr(value, "__name__"):
        try:
            return keras.activations.get(value.__name__)
        except ValueError:
            return value
    return value
