"""Fresh processes in no time: forked from one that has imported TensorFlow and DeepCTR, and done nothing else."""

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
import types
import warnings
from multiprocessing import forkserver, resource_tracker
from unittest import mock

CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()


def start_server():
    """Makes a copy of this process, which has imported TensorFlow and DeepCTR, into the server that others fork from.

    Python's own way is to start another process, which would have to import all of it again.
    """
    if not CAN_FORK:
        return
    resource_tracker.ensure_running()
    forkserver.set_forkserver_preload([])
    with mock.patch("multiprocessing.util.spawnv_passfds", _copy), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which are pytest-xdist's and not copied
        forkserver.ensure_running()


def _copy(path, command, files):
    """Python's `spawnv_passfds` of ``python -c code``, in a copy of this process."""
    process = os.fork()
    if process:
        return process
    try:
        gc.freeze()
        warnings.resetwarnings()  # pytest's, for those that Python begins with
        for ignored in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", ignored)
        faulthandler.disable()
        kept = sorted({0, 1, 2, *files})
        for before, after in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(before + 1, after)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(k, "w" if k else "r", 1, closefd=False) for k in range(3))
        forkserver._forkserver.__init__()  # whose lock is held here
        exec(command[-1], {})
    finally:
        os._exit(0)


def free_addresses(number):
    """Addresses of this machine that nobody listens at; all ports are taken before one is given back."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def forked(function, *arguments, daemon=True):
    """A process that has begun to call a function of a module; one that came to an end has freed what it held.

    A daemon ends with this process, and may have no processes of its own.
    """
    process = multiprocessing.get_context("forkserver").Process(target=function, args=arguments, daemon=daemon)
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
        process = begun(*arguments, folder=folder, cwd=cwd, input=input)
        process.join()
        texts = {}
        for stream in ("stdout", "stderr"):
            path = os.path.join(folder, stream)
            with open(path, errors="replace") as file:
                texts[stream] = file.read()
        return subprocess.CompletedProcess(arguments, process.exitcode, **texts)


def begun(*arguments, folder, cwd=None, input=""):
    """The process of `run_python`, which writes what it prints into the files stdout and stderr of a folder."""
    with open(os.path.join(folder, "stdin"), "w") as file:
        file.write(input)
    return forked(_run, [str(argument) for argument in arguments], cwd or os.getcwd(), folder, daemon=False)


def _run(arguments, cwd, folder):
    start_server()  # for programs that fork from a server, too
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
