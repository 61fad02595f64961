"""The HTML report: its numbers, that it stands alone, and what a browser makes of it; and the projector's files."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from deepmatch_ext.evaluation import (
    MISSED,
    SeenTargetsWarning,
    evaluate,
    evaluate_vectors,
    write_projector,
    write_report,
)
from deepmatch_ext.evaluation.report.pictures import INK, Picture, principal_axes
from tests.fresh import run_python
from tests.helpers import true_scores

matplotlib = pytest.importorskip("matplotlib")

USERS, ITEMS, DIM, GENRES = 120, 80, 8, ("Drama", "Comedy", "War")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def arguments(seed=0):
    """Three genres, each with a direction of its own; users like one of them and mostly take it."""
    rng = np.random.default_rng(seed)
    centres = np.eye(DIM)[:3]
    genre = rng.integers(3, size=ITEMS + 1)
    items = centres[genre] + 0.3 * rng.normal(size=(ITEMS + 1, DIM))
    taste = rng.integers(3, size=USERS)
    users = centres[taste] + 0.2 * rng.normal(size=(USERS, DIM))
    items[0] = 0
    targets = np.array([rng.choice(np.flatnonzero(genre[1:] == liked) + 1) for liked in taste])
    others = np.repeat(targets, 4) + rng.integers(1, ITEMS, USERS * 4)  # any item but the user's target
    seen = np.arange(USERS + 1) * 4, (others - 1) % ITEMS + 1
    names = [None, *(GENRES[g] for g in genre[1:])]
    history = {
        "loss": [4.0, 3.0, 2.5],
        "val_HR@10": [0.1, 0.3, 0.2],
        "val_Recall@10": [0.1, 0.3, 0.2],
        "val_NDCG@10": [0.05, 0.2, 0.1],
        "lr": [0.5, 0.25, 0.125],
    }
    counts = rng.integers(0, 50, ITEMS + 1)
    return {
        "user_vectors": users,
        "item_vectors": items,
        "targets": targets,
        "seen": seen,
        "history": history,
        "ranks": {"popularity": rng.integers(0, ITEMS - 1, USERS)},
        "item_count": counts,
        "item_groups": names,
        "settings": {"seed": 1, "path": "<b>&"},
    }


class Page(HTMLParser):
    """What is in a page: its elements with their attributes, its tables by their first cell, its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self.words, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def row(self, first, cells=None):
        """The first row that begins so, of a table of so many columns."""
        return next(row for row in self.rows if row and row[0] == first and cells in (None, len(row)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The path of a report with everything in it, and its figures."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    return path, write_report(path, **arguments(), name="two towers", title="A <report> & more")


@pytest.fixture(scope="module")
def page(written):
    return Page(written[0].read_text(encoding="utf-8"))


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures are made and not drawn, which takes longer than all else: for tests of numbers and words."""
    monkeypatch.setattr(Picture, "svg", lambda picture, name: "<svg></svg>")


@pytest.mark.smoke
def test_the_figures_are_those_of_evaluation(written, page):
    given = arguments()
    expected = evaluate_vectors(given["user_vectors"], given["item_vectors"], given["targets"], seen=given["seen"])
    assert list(written[1]) == ["two towers", "popularity"]
    assert written[1]["two towers"] == expected
    # The other recommender's hit rate, counted.
    assert written[1]["popularity"]["HR@10"] == np.mean(given["ranks"]["popularity"] < 10)
    assert page.row("")[1:] == list(expected)
    assert page.row("two towers") == ["two towers", *(f"{value:.4f}" for value in expected.values())]


def test_recall_at_every_length(page):
    # Ranks in float64, one user at a time.
    given = arguments()
    ranks = []
    for user, (vector, target) in enumerate(zip(given["user_vectors"], given["targets"], strict=True)):
        scores = given["item_vectors"] @ vector
        others = set(range(1, ITEMS + 1)) - set(given["seen"][1][4 * user : 4 * user + 4]) - {target}
        ranks.append(sum(scores[item] >= scores[target] for item in others))
    lengths = [1, 10, ITEMS]
    for n in lengths:
        share = np.mean([rank < n for rank in ranks])
        other = np.mean(given["ranks"]["popularity"] < n)
        assert page.row(str(n), cells=3) == [str(n), f"{share:.4f}", f"{other:.4f}"]


def test_the_pictures_and_their_keys(page):
    titles = [attributes["aria-label"] for tag, attributes in page.elements if attributes.get("role") == "img"]
    assert titles == [
        "Training loss",
        "Validation",
        "Recall against N",
        "Scores of positives and negatives",
        "Popularity of what is recommended",
        "Map of the item vectors",
    ]
    # With one target a user, recall is the hit rate: one curve. What is no validation metric stands in the table alone.
    assert "HR@10 = Recall@10 NDCG@10 A ring marks" in page.text
    assert page.row("epoch") == ["epoch", "loss", "val_HR@10", "val_Recall@10", "val_NDCG@10", "lr"]
    assert page.row("2") == ["2", "3", "0.3", "0.3", "0.2", "0.25"]
    sizes = Counter(arguments()["item_groups"][1:])
    for genre, size in sizes.items():
        assert f"{genre} ({size})" in page.text


def test_settings_and_versions_are_written_down(page):
    assert page.row("seed") == ["seed", "1"]
    assert page.row("path") == ["path", "<b>&"]  # as text
    assert page.row("matplotlib") == ["matplotlib", matplotlib.__version__]
    assert page.row("numpy") == ["numpy", np.__version__]
    assert page.text.startswith("A <report> & more A <report> & more 120 held-out events")


def test_it_loads_nothing_and_runs_nothing(written, page):
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", written[0].read_text(encoding="utf-8"))  # names, which load nothing
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "img", "object", "embed", "base", "form"}
    addresses = re.findall(r"url\(([^)]*)\)", text)
    addresses += [a[name] for _, a in page.elements for name in ("href", "xlink:href", "src") if name in a]
    assert addresses
    assert all(address.startswith("#") for address in addresses)


def test_ids_are_unique_and_references_meet_them(written, page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) > 100
    text = written[0].read_text(encoding="utf-8")
    assert {*re.findall(r'href="#([^"]+)"', text), *re.findall(r"url\(#([^)]+)\)", text)} <= set(ids)


@pytest.mark.slow
@pytest.mark.once
def test_one_set_of_arguments_makes_one_file_and_is_left_as_it_is(written, tmp_path):
    given, untouched = arguments(), arguments()
    for name in ("user_vectors", "item_vectors", "targets", "item_count"):
        given[name].flags.writeable = False
    write_report(tmp_path / "again.html", **given, name="two towers", title="A <report> & more")
    assert (tmp_path / "again.html").read_bytes() == written[0].read_bytes()
    assert given["history"] == untouched["history"]
    assert given["item_groups"] == untouched["item_groups"]


@pytest.mark.slow
@pytest.mark.once
def test_any_name_shows(tmp_path):
    names = ["喜劇", "_hidden", "$x^2$", "<i>", "a\tb"]
    given = {**arguments(), "item_groups": [pd.NA, *(names[k % 5] for k in range(ITEMS))]}
    given["ranks"] = {"$_": given["ranks"]["popularity"], "_": given["ranks"]["popularity"]}
    given["settings"] = {"template": "{{ title }}", "safe": SimpleNamespace(__html__=lambda: "<b>"), "none": None}
    write_report(tmp_path / "names.html", **given)
    text = Page((tmp_path / "names.html").read_text(encoding="utf-8")).text
    for name in [
        "{{ title }}",
        "namespace(__html__",
        "none None",
        "喜劇 (16)",
        "_hidden (16)",
        "$x^2$ (16)",
        "<i> (16)",
        "a b (16)",
        "$_ _",
    ]:
        assert name in text


def test_with_the_vectors_alone(tmp_path):
    given = arguments()
    path = tmp_path / "bare.htm"
    figures = write_report(path, given["user_vectors"], given["item_vectors"], given["targets"], ns=[5])
    assert list(figures["model"]) == ["HR@5", "NDCG@5", "MRR@5", "Recall@5"]
    page = Page(path.read_text(encoding="utf-8"))
    assert sum(attributes.get("role") == "img" for _, attributes in page.elements) == 3
    assert "Settings" not in page.text


def test_users_with_several_targets(tmp_path, undrawn):
    # User 0 has ranks 0 and 1 of 2 targets, user 1 rank 2 of one: recall at 1 is (1/2 + 0) / 2, at 2 it is (1 + 0) / 2.
    items = np.array([[0.0], [4.0], [3.0], [2.0], [1.0]])
    figures = write_report(tmp_path / "r.html", np.ones((3, 1)), items, [1, 2, 3], ns=[1, 2], groups=[0, 0, 1])
    assert figures["model"]["Recall@1"] == 0.25
    assert figures["model"]["Recall@2"] == 0.5
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.row("2")[1] == "0.5000"


def test_scores_and_popularity_in_words(tmp_path, undrawn):
    # Items 1..100 with scores 100..1 for everybody, all targets the item 1, which nobody had: no random item beats it.
    items = np.concatenate([[0.0], np.arange(100.0, 0, -1)])[:, None]
    counts = np.concatenate([[7], np.arange(100, 0, -1)])  # item 1 has 100 of 5050 events; what padding has is ignored
    path = tmp_path / "r.html"
    write_report(path, np.ones((40, 1)), items, np.ones(40, int), item_count=counts)
    text = Page(path.read_text(encoding="utf-8")).text
    assert "higher than a random item in 100.0% of the pairs" in text
    expected = "The most popular 1% of the items (1) make up 2% of what is consumed in training, 100% of what is "
    assert expected + "consumed next, 10% of what is recommended." in text
    assert "coverage of the lists of 10: 10.0%" in text  # ten different items, of a hundred
    assert "100.0% of these recommendations are a popularity recommender's" in text


@pytest.mark.slow
@pytest.mark.once
def test_of_k_interests_the_best_counts(tmp_path):
    users, texts = arguments()["user_vectors"], []
    given = {name: arguments()[name] for name in ("item_vectors", "targets", "seen")}
    # Far below the user's own, so that no score of theirs is the best; a vector of zeros is no interest.
    others = -users[:, np.newaxis] - np.arange(2)[:, np.newaxis]
    interests = np.concatenate([others[:, :1], users[:, np.newaxis], np.zeros_like(others[:, :1])], axis=1)
    scores = true_scores(interests, given["item_vectors"])
    figures = write_report(tmp_path / "k.html", interests, **given)
    expected = evaluate(lambda start, stop: scores[start:stop].astype("float32"), given["targets"], seen=given["seen"])
    assert figures["model"] == pytest.approx(expected)
    # K times the same vector is one vector.
    for vectors in (users, np.repeat(users[:, np.newaxis], 3, axis=1)):
        write_report(tmp_path / "same.html", vectors, **given)
        texts.append((tmp_path / "same.html").read_text(encoding="utf-8"))
    assert texts[0] == texts[1]


def test_scores_leave_out_what_the_user_had(tmp_path, undrawn):
    # Two users, items 1..3. Had they not had item 2, it would beat the target, item 1, in half of the pairs.
    items = np.array([[0.0], [2.0], [3.0], [1.0]])
    path = tmp_path / "r.html"
    write_report(path, np.ones((2, 1)), items, [1, 1], seen=(np.array([0, 1, 2]), np.array([2, 2])))
    assert "higher than a random item in 100.0% of the pairs" in Page(path.read_text(encoding="utf-8")).text


@pytest.mark.parametrize("how", ["miss", "leave_out"])
def test_targets_that_the_user_had(tmp_path, undrawn, how):
    given, path = arguments(), tmp_path / "r.html"
    indptr, items = given["seen"]
    held = np.arange(USERS) % 5 == 0
    items[indptr[:-1][held]] = given["targets"][held]
    ranks = given["ranks"]["popularity"]
    before = ranks.copy()
    with pytest.warns(SeenTargetsWarning, match="24 of 120 targets are in their own row's `seen`") as told:
        figures = write_report(path, **given, seen_targets=how)
    assert [warning.filename for warning in told] == [__file__]
    assert (ranks == before).all()
    page = Page(path.read_text(encoding="utf-8"))
    fate = {"miss": "counts as a miss", "leave_out": "is left out"}[how]
    assert f"Of 120 events, 24 are of an item that the user has had; each {fate}." in page.text
    vectors = given["user_vectors"], given["item_vectors"], given["targets"]
    with pytest.warns(SeenTargetsWarning):
        expected = evaluate_vectors(*vectors, seen=given["seen"], seen_targets=how)
    assert figures["model"] == pytest.approx(expected)
    # The other recommender's ranks are under the same rule, whatever they were.
    kept = ranks[~held]
    expected = (kept < 10).sum() / (len(ranks) if how == "miss" else len(kept))
    assert figures["popularity"]["HR@10"] == pytest.approx(expected)
    # The curve, the lists and the scores are of the same rows.
    assert page.row(str(ITEMS), cells=3)[2] == f"{len(kept) / (len(ranks) if how == 'miss' else len(kept)):.4f}"


def test_no_target_that_could_be_served(tmp_path, undrawn):
    items, path = np.array([[0.0], [2.0], [3.0]]), tmp_path / "r.html"
    given = {"seen": (np.array([0, 1]), np.array([2])), "user_vectors": np.ones((1, 1)), "targets": [2]}
    with pytest.warns(SeenTargetsWarning):
        figures = write_report(path, item_vectors=items, **given)
    assert set(figures["model"].values()) == {0.0}
    assert "There is no pair of a target and an item to compare." in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="`targets` must have a target that is not in `seen`"):
        write_report(path, item_vectors=items, **given, seen_targets="leave_out")


def test_principal_axes():
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(200, 5)) * [5, 1, 3, 0.5, 0.1] @ np.linalg.qr(rng.normal(size=(5, 5)))[0] + 7
    points, shares = principal_axes(vectors)
    variances = np.sort(np.linalg.eigvalsh(np.cov(vectors.T)))[::-1]
    np.testing.assert_allclose(shares, variances[:2] / variances.sum())
    np.testing.assert_allclose(np.cov(points.T), np.diag(variances[:2]), atol=1e-9)
    same, none = principal_axes(np.ones((4, 3)))
    assert not same.any()
    assert none == [0, 0]
    assert principal_axes(np.arange(4.0)[:, None])[1] == [1, 0]  # D = 1


@pytest.mark.slow
@pytest.mark.once
def test_matplotlib_is_left_as_it_was(tmp_path):
    script = """
        import sys
        import numpy as np
        import tensorflow as tf  # whose protobuf of its time warns on Python 3.12
        tf.keras.layers.Layer  # Keras 3 imports matplotlib, if it is there
        import warnings
        warnings.simplefilter("error")
        loaded = {name for name in sys.modules if name.startswith("matplotlib")}
        from deepmatch_ext.evaluation import write_report
        assert loaded == {name for name in sys.modules if name.startswith("matplotlib")}
        import matplotlib._pylab_helpers
        before, pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
        items = np.eye(5)
        write_report("r.html", items[1:], items, [1, 2, 3, 4], item_groups=list("-abcd"), item_count=np.ones(5))
        assert dict(matplotlib.rcParams) == before
        assert pyplot == ("matplotlib.pyplot" in sys.modules)
        assert not matplotlib._pylab_helpers.Gcf.figs
        print("as it was")
    """
    script = "\n".join(line.strip() for line in script.splitlines())
    done = run_python("-c", script, cwd=tmp_path)
    assert done.stdout.strip() == "as it was", done.stderr[-2000:]


@pytest.mark.parametrize(("module", "package"), [("matplotlib.figure", "matplotlib"), ("jinja2", "jinja2")])
def test_without_a_package_it_says_what_to_install(tmp_path, monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)  # importing it now fails
    with pytest.raises(ImportError, match=rf"write_report\(\) needs {package}: pip install"):
        write_report(tmp_path / "r.html", **arguments())
    assert list(tmp_path.iterdir()) == []


def test_what_fails_leaves_the_older_file(tmp_path, monkeypatch, undrawn):
    path = tmp_path / "r.html"
    path.write_text("older")

    def fail(*_):
        raise OSError("no room")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        write_report(path, **arguments())
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


BAD = {
    "vectors of two widths": ({"item_vectors": np.ones((ITEMS + 1, DIM + 1))}, "same width"),
    "NaN": ({"user_vectors": np.full((USERS, DIM), np.nan)}, "`user_vectors` must be finite"),
    "a target too many": ({"targets": np.ones(USERS + 1, int)}, "`targets`"),
    "padding as a target": ({"targets": np.zeros(USERS, int)}, "`targets`"),
    "an unknown choice": ({"seen_targets": "hit"}, "`seen_targets` must be one of 'miss', 'leave_out'"),
    "ranks with another seen": (
        {"ranks": {"p": np.full(USERS, MISSED)}},
        "the ranks of 'p' must be made with the `seen` that is given here; got MISSED in row 0",
    ),
    "seen of other rows": ({"seen": (np.zeros(3, int), np.zeros(0, int))}, "`seen`"),
    "no lengths": ({"ns": []}, "`ns`"),
    "a length that is none": ({"ns": 10}, "`ns`"),
    "Keras's object": ({"history": type("History", (), {"history": {}})()}, "fitted.history"),
    "epochs of two lengths": ({"history": {"loss": [1, 2], "val_HR@10": [1]}}, "`history`"),
    "no epoch": ({"history": {"loss": []}}, "`history`"),
    "epochs that are words": ({"history": {"loss": ["a"]}}, "`history` must hold numbers"),
    "epochs of several figures": ({"history": {"loss": [[1, 2], [3, 4]]}}, "`history`"),
    "ranks too few": ({"ranks": {"Markov": [1, 2]}}, "the ranks of 'Markov'"),
    "ranks of the model": ({"ranks": {"model": np.zeros(USERS, int)}}, "`ranks`"),
    "counts too few": ({"item_count": np.ones(ITEMS)}, "`item_count`"),
    "groups too few": ({"item_groups": ["a"] * ITEMS}, "`item_groups`"),
    "settings that are a list": ({"settings": ["seed"]}, "`settings`"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_and_nothing_written(tmp_path, kind):
    changed, named = BAD[kind]
    with pytest.raises(ValueError, match=re.escape(named)):
        write_report(tmp_path / "r.html", **{**arguments(), **changed})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["r.txt", "nowhere/r.html", "r"])
def test_a_path_that_cannot_be_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="`path`"):
        write_report(tmp_path / name, **arguments())


# In a browser.


def screenshot(path, folder, *options, size="1280,3400"):
    """Chromium's picture of a page, (height, width, 3) in 0..1, and what the page said on its console."""
    shot = folder / "shot.png"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    # No name is resolved, so a request to anywhere fails, and says so on the console.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}", *options]
    command += [f"--window-size={size}", f"--screenshot={shot}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert shot.is_file(), done.stderr[-2000:]
    from matplotlib.image import imread

    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return imread(shot)[..., :3], console


def near(image, colour, tolerance=0.03):
    """How many pixels have about this colour, as in "#0072b2"."""
    wanted = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return int((np.abs(image - wanted).max(axis=2) < tolerance).sum())


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path: apt-get install chromium")


@pytest.mark.slow
@pytest.mark.once
@needs_chromium
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_in_chromium(written, tmp_path, mode):
    options = ["--blink-settings=preferredColorScheme=0"] if mode == "dark" else []
    image, console = screenshot(written[0], tmp_path, *options)
    assert console == []
    paper = image[2, 2]
    assert paper.mean() > 0.95 if mode == "light" else paper.mean() < 0.15
    assert not near(image, INK)  # the page's ink is in its place, in the marks of the axes, too
    drawn = np.abs(image - paper).max(axis=2) > 0.3
    rows = np.flatnonzero(drawn.any(axis=1))
    assert drawn.mean() > 0.01
    assert rows[-1] - rows[0] > 1500  # the pictures have height
    # The first two lines of the pictures, and points of the map.
    for colour in ("#0072b2", "#d55e00"):
        assert near(image, colour) > 500
    # Left and right, there is something in every third of the page.
    for side in (drawn[:, :640], drawn[:, 640:]):
        for third in np.array_split(side[rows[0] : rows[0] + 1500], 3):
            assert third.mean() > 0.003


@pytest.mark.slow
@pytest.mark.once
@needs_chromium
def test_the_browser_test_would_see_an_error(tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<!doctype html><script src='http://example.com/x.js'></script><script>console.error('oh')</script>"
    )
    image, console = screenshot(path, tmp_path, size="300,300")
    assert any("oh" in line for line in console)
    assert np.abs(image - image[2, 2]).max() < 0.1  # blank


# TensorBoard's projector.


def projector_arguments():
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(7, 3)).astype(np.float32)
    return vectors, {"title": ["", *"abcde", "f\tg\nh"], "genre": ["", "喜劇", "", "x", "y", "z", "z"]}


def test_the_projector_files(tmp_path):
    vectors, labels = projector_arguments()
    write_projector(tmp_path / "logs" / "run", vectors, labels)
    folder = tmp_path / "logs" / "run"
    assert {path.name for path in folder.iterdir()} == {"tensors.tsv", "metadata.tsv", "projector_config.pbtxt"}
    read = np.loadtxt(folder / "tensors.tsv", delimiter="\t", dtype=np.float32)
    np.testing.assert_array_equal(read, vectors[1:])  # to the bit, padding left out
    lines = [line.split("\t") for line in (folder / "metadata.tsv").read_text(encoding="utf-8").splitlines()]
    assert lines[0] == ["title", "genre", "item_id"]
    assert lines[1] == ["a", "喜劇", "1"]
    assert lines[2] == ["b", "-", "2"]
    assert lines[6] == ["f g h", "z", "6"]
    assert len(lines) == 7


def test_the_projector_without_labels_has_no_header(tmp_path):
    write_projector(tmp_path, np.eye(4))
    assert (tmp_path / "metadata.tsv").read_text().split() == ["1", "2", "3"]
    write_projector(tmp_path, np.eye(4), ["-", "p", "q", "r"])  # replaced
    assert (tmp_path / "metadata.tsv").read_text().splitlines() == ["name\titem_id", "p\t1", "q\t2", "r\t3"]


@pytest.mark.parametrize(
    ("vectors", "labels", "named"),
    [
        (np.ones(3), None, "`item_vectors`"),
        (np.ones((1, 3)), None, "`item_vectors`"),
        (np.full((3, 2), np.nan), None, "`item_vectors`"),
        (np.ones((3, 2)), ["a", "b"], "the labels 'name'"),
        (np.ones((3, 2)), {"title": ["a"]}, "the labels 'title'"),
    ],
)
def test_the_projector_refuses_what_does_not_fit(tmp_path, vectors, labels, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        write_projector(tmp_path / "run", vectors, labels)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.once
def test_tensorboard_reads_the_projector_files(tmp_path):
    reason = "no TensorBoard: pip install tensorboard"
    plugin_module = pytest.importorskip("tensorboard.plugins.projector.projector_plugin", reason=reason)
    base_plugin = pytest.importorskip("tensorboard.plugins.base_plugin", reason=reason)
    from werkzeug.test import Client

    vectors, labels = projector_arguments()
    write_projector(tmp_path, vectors, labels, name='the "items"')
    no_runs = SimpleNamespace(list_runs=lambda *_, **__: [])
    plugin = plugin_module.ProjectorPlugin(base_plugin.TBContext(logdir=str(tmp_path), data_provider=no_runs))
    apps = plugin.get_plugin_apps()

    def get(route, **query):
        answer = Client(apps[route]).get("/", query_string={"run": ".", **query})
        assert answer.status_code == 200, answer.data
        return answer

    (embedding,) = get("/info").json["embeddings"]
    assert embedding["tensorName"] == 'the "items"'
    assert embedding["tensorShape"] == [6, 3]
    served = np.frombuffer(get("/tensor", name='the "items"').data, np.float32).reshape(6, 3)
    np.testing.assert_array_equal(served, vectors[1:])
    metadata = get("/metadata", name='the "items"').data.decode()
    assert metadata == pathlib.Path(tmp_path, "metadata.tsv").read_text(encoding="utf-8")
