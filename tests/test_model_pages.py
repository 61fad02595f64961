"""The examples on the models' pages run, and the index links to every page."""

import inspect
import pathlib
import re

import numpy as np
import pytest

from deepmatch_ext import models

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "models"
PAGES = sorted(path.name for path in FOLDER.glob("*.md") if path.name != "README.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page):
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (FOLDER / page).read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, page, "exec"), names)
    assert np.isfinite(names["model"].user_vectors(names["x"])).all()
    if "ids" in names:
        assert names["ids"].shape == (8, 10)


def test_the_index_links_to_every_page():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert f"]({page})" in index


@pytest.mark.parametrize("page", PAGES)
def test_arguments_that_a_page_names_exist(page):
    text = (FOLDER / page).read_text(encoding="utf-8")
    builder = getattr(models, text.split("\n")[0].removeprefix("# "))
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert named
    assert set(named) <= set(inspect.signature(builder).parameters)
