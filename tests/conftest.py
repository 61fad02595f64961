"""What all tests share: a quiet TensorFlow, DeepCTR without its version check, one small trained model."""

import functools
import gc
import os
import sys
import typing

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import warnings
from unittest import mock

import hypothesis
import pytest

from tests.fresh import start_server

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "20"))
hypothesis.settings.register_profile("default", deadline=None, max_examples=EXAMPLES, derandomize=True)
hypothesis.settings.load_profile("default")


def as_written(dataset):
    """Without the autotuning and the rewriting of data passes, which take longer than those of tests do."""
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options)


def pytest_configure(config):
    """Imports TensorFlow before any test does, and only where tests run: xdist's controller can do without it."""
    is_controller = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if is_controller and not config.option.collectonly:
        return
    gc.set_threshold(100_000, 50, 100)  # models are large, and few are dropped
    if sys.version_info < (3, 12):  # where Python itself remembers what a protocol has: TensorFlow asks for each tensor
        typing._get_protocol_attrs = functools.cache(typing._get_protocol_attrs)
    with warnings.catch_warnings():  # of protobuf's, on Python 3.12 with the TensorFlow of its time
        warnings.simplefilter("ignore", DeprecationWarning)
        import tensorflow as tf
    # DeepCTR asks a package index for its newest version, in a thread, when it is imported.
    with mock.patch("threading.Thread.start"):
        import deepctr  # noqa: F401
    # To optimise a graph takes longer than a test runs it, and changes last digits.
    is_optimised = os.environ.get("TESTS_OPTIMIZE_GRAPHS") == "1"
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not is_optimised})
    if not is_optimised:  # tests' operations are too small for several threads, which wait for each other
        tf.config.threading.set_intra_op_parallelism_threads(1)
        remember_no_stacks()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # 10 bits of a float32, on GPUs that can
    start_server()  # before TensorFlow has threads, and without what only tests here have
    # All iterators begin here. To destroy one takes until the thread of its autotuning wakes up, up to a minute:
    # Python's collector would stand still for each that a failed `fit` left behind.
    tf.data.Dataset._apply_debug_options = as_written


def remember_no_stacks():
    """Gives all operations of graphs one stack, which errors show: to walk the deep stacks of tests takes a 25th."""
    from tensorflow.python.util import tf_stack

    stack = tf_stack.extract_stack()
    tf_stack.extract_stack = lambda stacklevel=1: stack


def pytest_xdist_auto_num_workers(config):
    """Workers for the whole suite alone: for a few files they save less than TensorFlow takes to start in them."""
    return min(os.cpu_count(), 4) if config.args == config.getini("testpaths") else 0


def pytest_collection_finish(session):
    """What is imported stays, and is most of what Python's collector would look through again and again."""
    gc.collect()
    gc.freeze()


def processor_seconds():
    """Of this process and of those that it has waited for."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    began = processor_seconds()
    try:
        return (yield)
    finally:
        item.user_properties.append(("processor_seconds", processor_seconds() - began))


def pytest_terminal_summary(terminalreporter):
    """Names tests that the marker `slow` is missing from, so that the others stay fast."""
    for report in terminalreporter.getreports("passed"):
        seconds = dict(report.user_properties).get("processor_seconds", 0)
        if report.when == "call" and seconds > 2 and "slow" not in report.keywords:
            terminalreporter.line(f"{report.nodeid} took {seconds:.1f} s of processor time: mark it slow")


@pytest.fixture(scope="session")
def trained():
    """A small model after a short `fit`, with its input. Tests leave it as it is."""
    import tensorflow as tf

    from deepmatch_ext.utils import sampledsoftmaxloss
    from tests.helpers import small_input, small_model

    model = small_model()
    model.compile(tf.keras.optimizers.Adam(0.01), sampledsoftmaxloss)
    x = small_input(512)
    model.fit(x, batch_size=64, epochs=3, verbose=0)
    return model, x
