"""Fresh processes in no time: forked from one that has imported TensorFlow and DeepCTR, and done nothing else."""

import contextlib
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
import types

CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()


def optimize_graphs():
    """Whether TensorFlow shall optimise graphs, which takes longer than a test runs them, and changes last digits."""
    return os.environ.get("TESTS_OPTIMIZE_GRAPHS") == "1"


def _server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    return context


def free_addresses(number):
    """Addresses of this machine that nobody listens at; all ports are taken before one is given back."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def forked(function, *arguments):
    """A process that has begun to call a function of a module; one that came to an end has freed what it held."""
    process = _server().Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def run_python(*arguments, cwd=None, input=""):
    """``subprocess.run([sys.executable, *arguments])``, of a script, or code after ``-c``, without TensorFlow's start.

    What depends on the start itself, such as environment variables and what an import does, needs a real one.
    """
    arguments = [str(argument) for argument in arguments]
    if not CAN_FORK:
        return subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=cwd, input=input
        )
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "stdin"), "w") as file:
            file.write(input)
        process = _server().Process(target=_run, args=(arguments, cwd or os.getcwd(), folder))
        process.start()
        process.join()
        texts = {}
        for stream in ("stdout", "stderr"):
            path = os.path.join(folder, stream)
            with open(path, errors="replace") as file:
                texts[stream] = file.read()
        return subprocess.CompletedProcess(arguments, process.exitcode, **texts)


def _run(arguments, cwd, folder):
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        with open(os.path.join(folder, stream), "w" if number else "r") as file:
            os.dup2(file.fileno(), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # multiprocessing has closed it
    os.chdir(cwd)
    status = 0
    try:
        if arguments[0] == "-c":
            sys.argv, sys.path[0] = ["-c", *arguments[2:]], ""
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(arguments[1], "<string>", "exec"), vars(main))
        else:
            sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.abspath(arguments[0]))
            runpy.run_path(arguments[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else end.code is not None
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)
