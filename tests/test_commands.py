"""The scripts of `benchmarks` and `examples` accept the commands that the pages show."""

import argparse
import os
import pathlib
import re
import runpy
import shlex
import sys
from unittest import mock

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *(ROOT / "docs").rglob("*.md")})
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("examples/*.py")])


class ParsedError(Exception):
    """Stops a script when its arguments have been read."""


def commands_of(path):
    """Every command in the text: script, and the arguments as the shell would split them."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    if path.suffix == ".py":
        lines += re.findall(r"^ {4}.*\bpython .*$", text.split('"""')[1], re.MULTILINE)
    else:
        lines += re.findall(r"`([^`]+)`", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))
    for line in lines:
        if found := re.search(r"\bpython3? ((?:benchmarks|examples)/\w+\.py)\b(.*)", line, re.DOTALL):
            yield found[1], shlex.split(found[2], comments=True)


COMMANDS = [(page, *command) for page in [*PAGES, *SCRIPTS] for command in commands_of(page)]


def parsed(script, arguments, monkeypatch):
    """What the script reads from its arguments; it is stopped before it does anything with them."""

    def stop(parser, args=None, namespace=None):
        raise ParsedError(original(parser, args, namespace))

    def stop_if_all_is_known(parser, args=None, namespace=None):
        options, unknown = original(parser, args, namespace)
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        raise ParsedError(options)

    original = argparse.ArgumentParser.parse_known_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop_if_all_is_known)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(ParsedError) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return stopped.value.args[0]


@pytest.fixture
def undone(monkeypatch):
    """Lets scripts import each other, and undoes what they do to Python."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), str(ROOT / "examples"), *sys.path])
    with mock.patch.dict(os.environ):
        yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith((f"{ROOT}/benchmarks", f"{ROOT}/examples")):
            del sys.modules[name]


def test_commands_are_found():
    """The one that is spread over two lines of a paragraph, and the one with a backslash."""
    shown = [(page.name, script, arguments) for page, script, arguments in COMMANDS]
    assert ("README.md", "benchmarks/sessions.py", ["FOLDER"]) in shown
    assert any("--arguments" in arguments and '{"history_dropout": 0.2}' in arguments for _, _, arguments in shown)
    assert any(name == "performance.md" and "--models" in arguments for name, _, arguments in shown)


@pytest.mark.slow
@pytest.mark.once
def test_scripts_accept_the_commands(undone, monkeypatch, capsys):
    wrong = []
    for page, script, arguments in COMMANDS:
        try:
            with monkeypatch.context() as patch:
                parsed(script, arguments, patch)
        except SystemExit:
            complaint = capsys.readouterr().err.splitlines()[-1]
            wrong.append(f"{page.relative_to(ROOT)}: {shlex.join([script, *arguments])}: {complaint}")
    assert not wrong, "\n".join(wrong)
