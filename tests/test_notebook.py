"""The notebook runs from top to bottom in a fresh interpreter, and is stored without outputs."""

import json
import pathlib

import pytest

from tests.fresh import run_python

NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "quickstart.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def run(cells, folder):
    """Runs cells in an interpreter of their own, a mark after each; gives what came back."""
    pytest.importorskip("matplotlib")
    script = "\n".join(f"{cell}\nprint('ran cell {number}')" for number, cell in enumerate(cells))
    eagerly = "import tensorflow as tf\ntf.config.run_functions_eagerly(True)\n"  # tracing takes longer than this
    (folder / "cells.py").write_text(eagerly + script, encoding="utf-8")
    return run_python("cells.py", cwd=folder)


def code_cells(notebook):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.once
def test_every_cell_runs(notebook, tmp_path):
    cells = code_cells(notebook)
    sizes = "NUM_USERS, EPOCHS = 1500, 8"
    assert sum(sizes in cell for cell in cells) == 1
    small = [cell.replace(sizes, "NUM_USERS, EPOCHS = 100, 1") for cell in cells]
    done = run(small, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    marks = [line for line in done.stdout.splitlines() if line.startswith("ran cell ")]
    assert marks == [f"ran cell {number}" for number in range(len(cells))]
    assert "equal after reloading: True" in done.stdout
    assert done.stdout.count("recommended:") == 3
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.slow
@pytest.mark.once
def test_a_cell_that_fails_is_seen(tmp_path):
    done = run(["x = 1", "assert x == 2", "x = 3"], tmp_path)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr
    assert [line for line in done.stdout.splitlines() if "ran" in line] == ["ran cell 0"]


def test_it_is_a_notebook_without_outputs(notebook):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | (
            {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        )
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
