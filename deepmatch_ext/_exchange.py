"""A model as one file for a runtime other than TensorFlow's: TFLite and ONNX.

Each format is a writer, from a model of Keras inputs to the file's content, and a reader, which runs the content on
NumPy arrays, so that the runtime's results can be compared before anybody relies on a file.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deepmatch_ext._checks import missing_extra, problem

_OPSET = 18  # of ONNX, which onnxruntime 1.14 and later run


class Exchange(NamedTuple):
    """A file format: its name in messages, and what writes and runs its content.

    Args:
        write: Takes ``(function, specs)``: a function of keyword arguments that returns a dictionary of tensors, and
            the arguments' names, shapes and types.
        run: Takes ``(content, arrays)``, the arrays by the arguments' names; returns the results by their names.
    """

    name: str
    write: Callable[[Callable[..., Any], Sequence[tf.TensorSpec]], bytes]
    run: Callable[[bytes, Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def _write_tflite(function: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> bytes:
    lite = _lite()
    concrete = tf.function(function, autograph=False).get_concrete_function(**{spec.name: spec for spec in specs})
    holder = tf.Module()
    holder.resources = list(concrete.graph.variables)
    converter = lite.TFLiteConverter.from_concrete_functions([concrete], holder)
    converter.target_spec.supported_ops = [lite.OpsSet.TFLITE_BUILTINS]
    try:
        return converter.convert()
    except Exception as error:  # of several classes, none of them public
        unknown = sorted(set(re.findall(r"'tf\.(\w+)' op ", str(error))))
        raise _cannot("TFLite", ", ".join(unknown) if unknown else _line(error)) from error


def _run_tflite(content: bytes, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        # From 2.19 on TensorFlow says that its interpreter moves to a package of its own.
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated", UserWarning)
        interpreter = _lite().Interpreter(model_content=content)
    return interpreter.get_signature_runner()(**arrays)


def _lite() -> Any:
    try:
        return tf.lite
    except AttributeError:
        raise ImportError(f"TFLite needs a TensorFlow with tf.lite, such as 2.21; this is {tf.__version__}") from None


def _write_onnx(function: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> bytes:
    tf2onnx, _ = _onnx()
    names = [spec.name for spec in specs]
    by_place = tf.function(lambda *values: function(**dict(zip(names, values, strict=True))), autograph=False)
    try:
        written, _ = tf2onnx.convert.from_function(by_place, input_signature=list(specs), opset=_OPSET)
        return written.SerializeToString()
    except Exception as error:  # tf2onnx has no classes of its own
        raise _cannot("ONNX", _line(error)) from error


def _run_onnx(content: bytes, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    _, onnxruntime = _onnx()
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # an operation that tf2onnx has passed on as it was, say
        raise _cannot("ONNX", _line(error)) from error
    try:
        results = session.run(None, {put.name: arrays[put.name] for put in session.get_inputs()})
    except Exception as error:  # onnxruntime has a class for each status
        raise RuntimeError(_line(error)) from error
    return dict(zip([result.name for result in session.get_outputs()], results, strict=True))


def _onnx() -> tuple[Any, Any]:
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise missing_extra("ONNX", "tf2onnx onnxruntime", "onnx") from error
    return tf2onnx, onnxruntime


def _cannot(name: str, what: str) -> ValueError:
    return problem("The model", f"be made of what {name}'s converter knows", what)


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


FORMATS = {
    ".tflite": Exchange("TFLite", _write_tflite, _run_tflite),
    ".onnx": Exchange("ONNX", _write_onnx, _run_onnx),
}
