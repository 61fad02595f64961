"""The models' pages: examples run, arguments exist, figures are those of today's models, the index links to them."""

import importlib.util
import inspect
import pathlib
import re

import pytest

from deepmatch_ext import models
from deepmatch_ext._keras import KERAS_3
from deepmatch_ext.models._record import BUILDERS
from tests.helpers import eager_functions

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "models"
PAGES = {
    f"{name.lower()}.md": name for name, kind in BUILDERS.items() if kind.__module__.startswith("deepmatch_ext.models.")
}


def text_of(page):
    return (FOLDER / page).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("page", PAGES)
def test_the_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL)
    assert blocks
    names = {}
    with eager_functions():
        for block in blocks:
            exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_arguments_that_a_page_names_exist(page):
    assert re.match(rf"# {PAGES[page]}\b", text_of(page))
    section = re.search(r"^## Arguments.*?(?=^## )", text_of(page), re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^(?:\| |- )(`\w+`(?:, `\w+`)*)", section[0], re.MULTILINE)
    assert rows
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named <= set(inspect.signature(getattr(models, PAGES[page])).parameters)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(not KERAS_3, reason="figures are drawn from Keras 3's models")
def test_figures_are_of_today(monkeypatch):
    pytest.importorskip("pydot")
    spec = importlib.util.spec_from_file_location("figures", FOLDER / "figures.py")
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    for page, name in PAGES.items():
        text = text_of(page)
        assert "```mermaid" in text
        assert figures.drawn(name, text) == text, f"{page}: run docs/models/figures.py"


def test_the_index_links_to_every_page():
    assert {*PAGES, "README.md"} == {path.name for path in FOLDER.glob("*.md")}
    for page in PAGES:
        assert f"]({page})" in text_of("README.md")
