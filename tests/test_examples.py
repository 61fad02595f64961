"""The examples as a user runs them: on generated data, on files, and on files that can't be used."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from deepmatch_ext import data

SCRIPT = pathlib.Path(__file__).parents[1] / "examples" / "run_youtubednn.py"
DATA = os.environ.get("DEEPMATCH_EXT_DATA")


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("run_youtubednn", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(example, tmp_path, capsys):
    """Runs main() with small settings; gives the exit status, what it printed, and what it complained of."""

    def run_main(*arguments):
        if "--plot" not in arguments:
            arguments = [*arguments, "--plot", tmp_path / "plot.png"]
        status = example.main(list(map(str, ["--epochs", "1", "--embedding-dim", "8", *arguments])))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_main


def figures(printed):
    """name -> its numbers, of the table in what was printed."""
    table = re.search(r"^ +HR@10 +NDCG@10 +Recall@50\n((?:\S+(?: +\d\.\d{4}){3}\n)+)", printed, re.M)
    rows = [line.split() for line in table[1].splitlines()]
    return {name: [float(number) for number in numbers] for name, *numbers in rows}


def is_plot(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000


def small_events(num_users=30, num_items=40, length=12):
    """Distinct items for each user, oldest first, the low numbers more often."""
    rng = np.random.default_rng(7)
    chance = 1 / np.arange(1, num_items + 1)
    return [rng.choice(num_items, length, replace=False, p=chance / chance.sum()) for _ in range(num_users)]


@pytest.fixture
def csv_file(tmp_path):
    """A shop's file: columns of its own names, strings as ids, the newest event first."""
    rows = [
        f"customer {user},sku-{item},2024-05-{1 + day:02d}"
        for user, items in enumerate(small_events())
        for day, item in reversed(list(enumerate(items)))
    ]
    path = tmp_path / "shop.csv"
    path.write_text("\n".join(["customer,sku,bought_at", *rows, ""]))
    return path


@pytest.fixture
def movielens_folder(tmp_path):
    """The three files of MovieLens 1M, in small: 30 users, 40 films."""
    folder = tmp_path / "ml-tiny"
    folder.mkdir()
    ratings = [
        f"{user}::{100 + item}::5::{978300000 + place}"
        for user, items in enumerate(small_events(), start=1)
        for place, item in enumerate(items)
    ]
    # Four ages in three bands of five years; a zip code for everyone; user 30 is not in the file.
    ages = [1, 25, 26, 56]
    users = [f"{user}::{'FM'[user % 2]}::{ages[user % 4]}::{user % 3}::{10000 + user}" for user in range(1, 30)]
    movies = [f"{100 + item}::Film {item} (1999)::{['Drama', 'Comedy|War'][item % 2]}" for item in range(40)]
    for name, lines in {"ratings.dat": ratings, "users.dat": users, "movies.dat": movies}.items():
        (folder / name).write_text("\n".join([*lines, ""]))
    return folder


def test_generated_data_by_default(run, tmp_path):
    saved, plot = tmp_path / "model.keras", tmp_path / "curves.png"
    status, printed, complaints = run("--users", 80, "--save", saved, "--plot", plot)
    assert status == 0
    assert complaints == ""
    assert printed.startswith("generated: 80 users, 1200 items, ")
    assert "side: user_first_genre, genre" in printed
    assert "val_HR@10" in printed  # in Keras's progress bar
    assert list(figures(printed)) == ["popularity", "Markov", "YoutubeDNN"]
    # Three users' histories and five recommendations each, by title.
    lists = re.findall(r"^  recommended: (.*)$", printed, re.M)
    assert len(lists) == 3
    for titles in lists:
        assert len(set(titles.split(" | "))) == 5
        assert all(re.fullmatch(r"[A-Z][a-z]+ \d+", title) for title in titles.split(" | "))
    assert is_plot(plot)
    assert saved.is_file()
    assert "its vectors are equal" in printed


def test_a_csv_file_with_columns_of_its_own_names(run, csv_file, tmp_path):
    columns = ["--user", "customer", "--item", "sku", "--time", "bought_at"]
    status, printed, complaints = run("--data", csv_file, *columns)
    assert (status, complaints) == (0, "")
    assert printed.startswith("shop: 30 users, 40 items, 360 events; side: none\n")
    assert "recommended: sku-" in printed  # no titles: the file's own ids
    assert is_plot(tmp_path / "plot.png")

    # The protocol on popularity, in plain Python: the last item of each user is the test item, all before it is
    # counted, what the user had is left out, and an item as popular as the target stands before it.
    events = small_events()
    counts = Counter(item for items in events for item in items[:-1])
    ranks = []
    for items in events:
        others = set(range(40)) - set(items)
        ranks.append(sum(counts[item] >= counts[items[-1]] for item in others))
    gains = [1 / np.log2(rank + 2) if rank < 10 else 0 for rank in ranks]
    expected = [np.mean([rank < 10 for rank in ranks]), np.mean(gains), 1.0]  # no rank can be 50 or more
    table = figures(printed)
    assert table["popularity"] == pytest.approx(expected, abs=5e-5)
    assert list(table) == ["popularity", "Markov", "YoutubeDNN"]

    _, again, _ = run("--data", csv_file, *columns)
    assert figures(again) == table, "one seed, one result"


def test_a_movielens_folder_with_its_side_features(run, movielens_folder, tmp_path):
    status, printed, complaints = run("--data", movielens_folder)
    assert (status, complaints) == (0, "")
    assert "ml-tiny: 30 users, 40 items, 360 events; side: user_gender, user_age, user_occupation, genre\n" in printed
    assert list(figures(printed)) == ["popularity", "Markov", "YoutubeDNN"]
    assert "recommended: Film " in printed
    assert is_plot(tmp_path / "plot.png")


def test_held_out_items_are_no_training_targets(example):
    class Model:
        def fit(self, columns, callbacks, **options):
            self.targets, (self.watch,) = columns["item_id"].tolist(), callbacks
            self.watch.best_epoch, self.watch.best = 0, 0.0
            return SimpleNamespace(history={})

    # User 1 had 1..5, user 2 had 6..9: the last is for the test, the one before it for validation, and the first has
    # no history to predict it from.
    split = data.leave_last_out(data.Interactions.from_sequences([0, 5, 9], list(range(1, 10))))
    model = Model()
    example.train(model, split, {}, example.parse_arguments([]))
    assert sorted(model.targets) == [2, 3, 7]
    assert model.watch.targets.tolist() == [4, 8]


def test_side_features_by_id(example, movielens_folder):
    dataset = example.read(example.parse_arguments(["--data", str(movielens_folder)]))
    attributes = example.user_attributes(dataset)
    # Users 1..5 are M, F, M, F, M, and F is numbered first; id 0 is nobody, and nothing is known of user 30.
    assert attributes["user_gender"][:6].tolist() == [0, 2, 1, 2, 1, 2]
    assert [ids[30] for ids in attributes.values()] == [0, 0, 0]
    # Ages 25, 26, 56, 1 of users 1..4: 25 and 26 are in one band of five years, the youngest band is numbered first.
    assert attributes["user_age"][:5].tolist() == [0, 2, 2, 3, 1]
    # Film 100 + k has item id k + 1; Comedy, before Drama, has id 1 and is the first genre where k is odd.
    events = dataset.interactions
    np.testing.assert_array_equal(events.side["genre"], np.where(events.items % 2, 2, 1))


def test_without_known_genres_or_users_there_are_no_side_features(example, movielens_folder, monkeypatch):
    events = data.read_dataset(movielens_folder).interactions
    nothing = pd.DataFrame({"genres": [np.nan] * 2}, index=[100, 101], dtype=object)
    monkeypatch.setattr(example.data, "read_dataset", lambda *_: data.Dataset("bare", events, None, nothing))
    dataset = example.read(example.parse_arguments(["--data", "bare"]))
    assert dict(dataset.interactions.side) == {}
    assert example.user_attributes(dataset) == {}


def test_without_matplotlib_one_line_says_what_to_install(example, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # importing it now fails
    example.plot(str(tmp_path / "none.png"), {"loss": [1.0], "val_NDCG@10": [0.1]}, {"Markov": np.array([3])})
    assert capsys.readouterr().out.strip() == "No plot without matplotlib: pip install 'deepmatch_ext[examples]'"
    assert not (tmp_path / "none.png").exists()


def write(path, content):
    path.write_bytes(content)
    return path


BAD = {
    "a missing path": lambda folder: folder / "nowhere",
    "an empty file": lambda folder: write(folder / "empty.csv", b""),
    "a header alone": lambda folder: write(folder / "header.csv", b"user_id,item_id,timestamp\n"),
    "other columns": lambda folder: write(folder / "other.csv", b"colour,size\nred,5\n"),
    "a value of many lines": lambda folder: write(folder / "lines.csv", b'user,item,time\na,b,"one\ntwo"\n'),
    "binary rubbish": lambda folder: write(folder / "rubbish.csv", bytes(range(256)) * 20),
    "rubbish in a known file": lambda folder: write(folder / "u.data", bytes(range(256)) * 20).parent,
    "a folder with nothing known": lambda folder: write(folder / "notes.txt", b"hello").parent,
    "users of two events": lambda folder: write(folder / "short.csv", b"user,item\na,x\na,y\nb,x\nb,y\n"),
    "users of three events": lambda folder: write(folder / "three.csv", b"user,item\na,x\na,y\na,z\nb,x\nb,z\nb,y\n"),
}


@pytest.mark.parametrize("kind", BAD)
def test_data_that_cannot_be_used_get_one_line(run, tmp_path, kind):
    path = BAD[kind](tmp_path)
    status, printed, complaints = run("--data", path)
    assert status == 2
    assert printed == ""
    assert re.fullmatch(r"run_youtubednn\.py: error: .+\n", complaints), complaints  # `.` is no newline
    assert str(path) in complaints


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--epochs", 0], "--epochs"),
        (["--seed", -1], "--seed"),
        (["--save", "model.h5"], "model.h5"),
        (["--plot", "plot.txt"], "plot.txt"),
        (["--plot", "/no/such/folder/plot.png"], "/no/such/folder/plot.png"),
    ],
)
def test_arguments_that_would_fail_after_training_are_refused_before(run, arguments, named):
    status, printed, complaints = run(*arguments)
    assert (status, printed) == (2, "")
    assert re.fullmatch(rf"run_youtubednn\.py: error: .*{re.escape(named)}.*\n", complaints), complaints


def test_an_unknown_option_is_argparse_s(example):
    with pytest.raises(SystemExit) as error:
        example.main(["--dataset", "x"])
    assert error.value.code == 2


def test_a_fault_while_training_is_not_taken_for_bad_data(example, csv_file, monkeypatch):
    def faulty(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(example, "train", faulty)
    with pytest.raises(ValueError, match="a bug"):
        example.main(["--data", str(csv_file), "--user", "customer", "--item", "sku", "--embedding-dim", "8"])


def test_as_a_program(tmp_path):
    path = BAD["other columns"](tmp_path)
    done = subprocess.run(
        [sys.executable, SCRIPT, "--data", path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    # TensorFlow may have something to say on stderr as it starts.
    own = [line for line in done.stderr.splitlines() if line.startswith("run_youtubednn.py: ")]
    assert len(own) == 1
    assert str(path) in own[0]
    assert "Traceback" not in done.stderr
    assert "Warning: " not in done.stderr


@pytest.mark.skipif(not DATA, reason="DEEPMATCH_EXT_DATA does not name the folder of the real data sets")
def test_one_epoch_of_movielens_100k(run):
    status, printed, _ = run("--data", pathlib.Path(DATA) / "ml-100k", "--embedding-dim", 64)
    assert status == 0
    assert "943 users, 1682 items, 100000 events; side: user_age, user_gender, user_occupation, genre" in printed
    table = figures(printed)
    assert table["YoutubeDNN"][2] > table["popularity"][2]  # Recall@50, after a single epoch
