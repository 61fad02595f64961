"""The guides' Python runs, on fewer users, each after docs/start.md; relative links of all pages lead somewhere."""

import configparser
import importlib.util
import pathlib
import re
import urllib.parse

import pytest

from tests.helpers import eager_functions

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Those that go on from start.md, or stand alone.
GUIDES = ["events.md", "features.md", "negatives-and-losses.md", "evaluation.md", "training.md", "daily-updates.md"]
# What only a block that imports it needs: an extra, without which the block is left out.
EXTRAS = {"onnxruntime": "tf2onnx"}
PAGES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/*.md"), *DOCS.rglob("*.md")}
    - {*DOCS.glob("_build/**/*")}
)


def blocks_of(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The names that the code of docs/start.md leaves behind."""
    names = {}
    whole, first, *others = blocks_of(DOCS / "start.md")
    assert whole.count("num_users=2000") == first.count("num_users=2000") == first.count("epochs=5") == 1
    whole = whole.replace("num_users=2000", "num_users=100").replace('test="last")', 'test="last", epochs=1)')
    with pytest.MonkeyPatch.context() as patch, eager_functions():
        patch.chdir(tmp_path_factory.mktemp("start"))
        for block in (whole, first.replace("num_users=2000", "num_users=100").replace("epochs=5", "epochs=1"), *others):
            exec(compile(block, "start.md", "exec"), names)
    return names


@pytest.mark.slow
def test_the_start_runs(start):
    assert len(start["best"]) == 20
    assert start["ids"].shape == (100, 10)
    assert start["model"].item_vectors().shape == (start["items"], 64)
    assert start["users"] == pytest.approx(start["user_vectors"], abs=1e-6)
    assert start["nearest"].shape == (100, 10)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*Warning. tf.lite.Interpreter is deprecated:UserWarning")
@pytest.mark.parametrize("guide", [*GUIDES, "serving.md"])
def test_a_guide_runs(guide, start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks, names = blocks_of(DOCS / guide), dict(start)
    assert blocks
    for block in blocks:
        if any(f"import {name}" in block and importlib.util.find_spec(needs) is None for name, needs in EXTRAS.items()):
            continue
        small = block.replace("num_users=500", "num_users=60").replace("epochs=5", "epochs=1")
        small = small.replace("num_users=200)", "num_users=20)")
        with eager_functions():
            exec(compile(small, guide, "exec"), names)


@pytest.mark.parametrize("guide", ["start.md", *GUIDES])
def test_what_a_guide_names_exists(guide):
    from deepmatch_ext import data, evaluation, models, optimizers, retrieval, samplers, utils

    homes = (data, evaluation, models, optimizers, retrieval, samplers, utils)
    known = {name for home in homes for name in dir(home)}
    known |= {"SparseFeat", "VarLenSparseFeat", "DenseFeat", "Interactions"}
    named = re.findall(r"`([A-Z][a-z]\w*[A-Z]\w*)`", (DOCS / guide).read_text(encoding="utf-8"))
    assert set(named) <= known


def without_code(text):
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors_of(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^()\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        url = urllib.parse.urlsplit(link)
        if url.scheme:
            continue
        target = page.parent / url.path if url.path else page
        assert target.exists(), f"{link}: there is no {target}"
        if url.fragment:
            assert url.fragment in anchors_of(target), f"{link}: there is no such heading"


def test_every_page_is_in_the_site():
    listed = {"index"}
    for path in (DOCS / "index.md", DOCS / "api" / "index.md"):
        for body in re.findall(r"^```{toctree}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE):
            names = re.findall(r"^(?:[^:\n]* <)?([\w/.-]+)>?$", body, re.MULTILINE)
            listed |= {str((path.parent / name).relative_to(DOCS)) for name in names}
    assert listed == {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES if DOCS in page.parents}


def test_every_public_module_is_in_the_reference():
    parts = [
        path for path in (ROOT / "deepmatch_ext").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    public = {f"deepmatch_ext.{path.stem}" for path in parts if not path.name.startswith("_")}
    public |= {"deepmatch_ext.data.spark"}
    public -= {"deepmatch_ext.deepmatch"}  # programs find its names in `layers`, `inputs` and `utils`
    pages = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    assert set(re.findall(r"^\.\. automodule:: (\S+)$", pages, re.MULTILINE)) == public


def test_the_citation_has_the_packages_version():
    import deepmatch_ext

    assert f"\nversion: {deepmatch_ext.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["license"] in (ROOT / "CITATION.cff").read_text()
