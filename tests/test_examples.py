"""The examples as a user runs them: on generated data, on files, and on files that can't be used."""

import importlib.util
import os
import pathlib
import re
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from deepmatch_ext import Recommender, data
from tests.fresh import run_python
from tests.helpers import eager_functions

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
SCRIPT = FOLDER / "run_youtubednn.py"
DATA = os.environ.get("DEEPMATCH_EXT_DATA")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return load(SCRIPT)


@pytest.fixture
def run(example, tmp_path, capsys):
    """Runs main() with small settings; gives the exit status, what it printed, and what it complained of."""

    def run_main(*arguments):
        if "--report" not in arguments:
            arguments = [*arguments, "--report", tmp_path / "report.html"]
        status = example.main(list(map(str, ["--epochs", "1", "--embedding-dim", "8", *arguments])))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_main


def figures(printed):
    """name -> its numbers, of the table in what was printed."""
    table = re.search(r"^ +HR@10 +NDCG@10 +HR@50 +NDCG@50\n((?:\S+(?: +\d\.\d{4}){4}\n)+)", printed, re.M)
    rows = [line.split() for line in table[1].splitlines()]
    return {name: [float(number) for number in numbers] for name, *numbers in rows}


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


@pytest.mark.slow
def test_generated_data_by_default(run, tmp_path):
    saved, report = tmp_path / "recommender", tmp_path / "report.html"
    status, printed, complaints = run("--users", 80, "--save", saved)
    assert status == 0
    assert complaints == ""
    assert re.match(r"generated: [\d,]+ rows, 80 users, 1,200 items, times from .* \(as Unix seconds: 2020-", printed)
    counted = re.search(r" events of 80 users with ([\d,]+) items\nwithout events: ([\d,]+) items", printed)
    assert sum(int(number.replace(",", "")) for number in counted.groups()) == 1200
    assert 'item feature genres: VarLenSparseFeat(SparseFeat("genres"' in printed
    assert "val_HR@10" in printed  # in the line of each epoch
    assert [*figures(printed)][:2] == ["popularity", "Markov"]
    # Three users' histories and five recommendations each, by title.
    lists = re.findall(r"^  recommended: (.*)$", printed, re.M)
    assert len(lists) == 3
    for titles in lists:
        assert len(set(titles.split(" | "))) == 5
        assert all(re.fullmatch(r"[A-Z][a-z]+ \d+", title) for title in titles.split(" | "))
    # The report has the same figures.
    page = report.read_text(encoding="utf-8")
    assert f"<td>YoutubeDNN</td><td>{figures(printed)['YoutubeDNN'][0]:.4f}</td>" in page
    assert page.count("<figcaption>") == 6
    assert len(Recommender.load(saved).recommend(n=2)) == 160


@pytest.fixture
def quickly(monkeypatch):
    """Without graphs, and without the report: the first test of this file has both."""
    monkeypatch.setattr(Recommender, "report", lambda self, path: None)
    with eager_functions():
        yield


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.usefixtures("quickly")
def test_a_csv_file_with_columns_of_its_own_names(run, csv_file):
    columns = ["--user", "customer", "--item", "sku", "--time", "bought_at"]
    status, printed, complaints = run("--data", csv_file, *columns)
    assert (status, complaints) == (0, "")
    assert printed.startswith(
        "shop: 360 rows, 30 users, 40 items, times from 2024-05-01 to 2024-05-12; columns customer"
    )
    assert "recommended: sku-" in printed  # no titles: the file's own ids

    # The protocol on popularity, in plain Python: the last item of each user is the test item, all before it is
    # counted, what the user had is left out, and an item as popular as the target stands before it.
    events = small_events()
    counts = Counter(item for items in events for item in items[:-1])
    ranks = []
    for items in events:
        others = set(range(40)) - set(items)
        ranks.append(sum(counts[item] >= counts[items[-1]] for item in others))
    gains = [1 / np.log2(rank + 2) for rank in ranks]
    expected = [np.mean([rank < 10 for rank in ranks]), np.mean([gain * (gain > 1 / np.log2(11.5)) for gain in gains])]
    table = figures(printed)
    assert table["popularity"] == pytest.approx([*expected, 1.0, np.mean(gains)], abs=5e-5)  # no rank can be 50

    _, again, _ = run("--data", csv_file, *columns)
    assert figures(again) == table, "one seed, one result"


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.usefixtures("quickly")
def test_a_movielens_folder_with_what_it_knows(run, movielens_folder):
    with pytest.warns(UserWarning, match="^1 of 30 users of the events have no row in `user_features`, such as 30"):
        status, printed, complaints = run("--data", movielens_folder)
    assert (status, complaints) == (0, "")
    assert printed.startswith("ml-tiny: 360 rows, 30 users, 40 items, ")
    for line in (
        'user feature gender: SparseFeat("gender", 3, 8), 2 categories',
        "user feature zip: left out: 29 different texts in 29 rows",
        'item feature genres: VarLenSparseFeat(SparseFeat("genres", 4, 8), 2, "mean"), 3 categories',
    ):
        assert line in printed
    assert "recommended: Film " in printed


def test_without_matplotlib_one_line_says_what_to_install(example, capsys):
    class WithoutMatplotlib:
        def report(self, path):
            raise ImportError("it needs matplotlib: pip install matplotlib")

    example.write_report(WithoutMatplotlib(), "report.html")
    assert capsys.readouterr().out.strip() == "No report: it needs matplotlib: pip install matplotlib"


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
    "users of two events": lambda folder: write(folder / "short.csv", b"user,item,ts\na,x,1\na,y,2\nb,x,1\nb,y,2\n"),
    "users of three events": lambda folder: write(
        folder / "three.csv", b"user,item,ts\na,x,1\na,y,2\na,z,3\nb,x,1\nb,z,2\nb,y,3\n"
    ),
    "no column of times": lambda folder: write(folder / "bare.csv", b"user,item\na,x\na,y\na,z\na,u\nb,x\nb,z\nb,y\n"),
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
        (["--save", str(FOLDER)], "examples"),
        (["--report", "report.pdf"], "report.pdf"),
        (["--report", "/no/such/folder/report.html"], "/no/such/folder/report.html"),
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
    def faulty(*_, **__):
        raise ValueError("a bug")

    monkeypatch.setattr(example.Recommender, "fit", faulty)
    with pytest.raises(ValueError, match="a bug"):
        example.main(["--data", str(csv_file), "--user", "customer", "--item", "sku", "--embedding-dim", "8"])


@pytest.mark.slow
@pytest.mark.once
def test_as_a_program(tmp_path):
    path = BAD["other columns"](tmp_path)
    done = run_python(SCRIPT, "--data", path)
    assert done.returncode == 2
    # TensorFlow may have something to say on stderr as it starts.
    own = [line for line in done.stderr.splitlines() if line.startswith("run_youtubednn.py: ")]
    assert len(own) == 1
    assert str(path) in own[0]
    assert "Traceback" not in done.stderr
    assert "Warning: " not in done.stderr


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(not DATA, reason="DEEPMATCH_EXT_DATA does not name the folder of the real data sets")
def test_one_epoch_of_movielens_100k(run):
    status, printed, _ = run("--data", pathlib.Path(DATA) / "ml-100k", "--embedding-dim", 64)
    assert status == 0
    assert "100,000 rows, 943 users, 1,682 items, times from " in printed
    table = figures(printed)
    assert table["YoutubeDNN"][2] > table["popularity"][2]  # HR@50, after a single epoch


# Several workers.


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.skipif(not os.environ.get("DEEPMATCH_EXT_REPLICAS"), reason="DEEPMATCH_EXT_REPLICAS asks for it")
def test_two_workers_give_what_one_process_gives():
    """In processes of its own, which it starts: two workers, and one process after them."""
    small = ["--epochs", 1, "--users", 40, "--batch", 64]
    done = run_python(FOLDER / "run_distributed.py", "--workers", 2, *small)
    assert done.returncode == 0, done.stderr[-2000:]
    losses = re.findall(r"^(worker 0|worker 1|one process): [12] replicas, losses \[(\d+\.\d+)\], ", done.stdout, re.M)
    assert {name for name, _ in losses} == {"worker 0", "worker 1", "one process"}
    assert np.ptp([float(loss) for _, loss in losses]) <= 1e-3
    assert re.search(r"^2 workers and one process: item vectors are the same, \S+ apart at most$", done.stdout, re.M)


@pytest.mark.parametrize("arguments", [["--workers", 3, "--batch", 256], ["--epochs", 0], ["--workers", 0]])
def test_several_workers_refuse_what_cannot_be(arguments, capsys):
    assert load(FOLDER / "run_distributed.py").main(list(map(str, arguments))) == 2
    assert capsys.readouterr().err.startswith("run_distributed.py: error: --workers, --users and --epochs must be")


# Two stages.

SMALL = ["--epochs", 1, "--embedding-dim", 8, "--retrieve", 20, "--negatives", 5, "--ranker-events", 4]


@pytest.fixture(scope="module")
def two_stage():
    return load(FOLDER / "run_two_stage.py")


@pytest.fixture
def run_two(two_stage, capsys):
    """Runs the two stages with small settings; gives the exit status, what it printed, and what it complained of."""

    def run_main(*arguments):
        status = two_stage.main(list(map(str, [*SMALL, *arguments])))
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_main


def two_stage_table(printed):
    rows = re.findall(r"^(first stage\S*(?: then \w+)?) +(\d\.\d{4}) +(\d\.\d{4}) +(\d\.\d{4})$", printed, re.M)
    return {name: list(map(float, numbers)) for name, *numbers in rows}


def test_side_features_by_id(two_stage, example, movielens_folder):
    dataset = two_stage.with_genres(example.read(example.parse_arguments(["--data", str(movielens_folder)])))
    attributes = two_stage.user_attributes(dataset)
    # Users 1..5 are M, F, M, F, M, and F is numbered first; id 0 is nobody, and nothing is known of user 30.
    assert attributes["user_gender"][:6].tolist() == [0, 2, 1, 2, 1, 2]
    assert [ids[30] for ids in attributes.values()] == [0, 0, 0]
    # Ages 25, 26, 56, 1 of users 1..4: 25 and 26 are in one band of five years, the youngest band is numbered first.
    assert attributes["user_age"][:5].tolist() == [0, 2, 2, 3, 1]
    # Film 100 + k has item id k + 1; Comedy, before Drama, has id 1 and is the first genre where k is odd.
    events = dataset.interactions
    np.testing.assert_array_equal(events.side["genre"], np.where(events.items % 2, 2, 1))


def test_without_known_genres_or_users_there_are_no_side_features(two_stage, movielens_folder):
    events = data.read_dataset(movielens_folder).interactions
    nothing = pd.DataFrame({"genres": [np.nan] * 2}, index=[100, 101], dtype=object)
    dataset = two_stage.with_genres(data.Dataset("bare", events, None, nothing))
    assert dict(dataset.interactions.side) == {}
    assert two_stage.user_attributes(dataset) == {}


@pytest.mark.slow
@pytest.mark.once
def test_two_stages():
    """In a process of its own, since on Keras 3 it changes the imported DeepCTR."""
    settings = map(str, ["--users", 120, "--rankers", "DIN,DeepFM", *SMALL])
    eagerly = """
import runpy, sys
import tensorflow as tf
tf.config.run_functions_eagerly(True)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = run_python("-c", eagerly, FOLDER / "run_two_stage.py", *settings)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.match(r"generated: [\d,]+ rows, 120 users, 1,200 items, ", done.stdout)
    table = two_stage_table(done.stdout)
    assert list(table) == ["first stage", "first stage, then DIN", "first stage, then DeepFM"]
    # The second stage orders what the first retrieved.
    retrieved = {figures[2] for figures in table.values()}
    assert len(retrieved) == 1
    assert min(retrieved) > 0
    assert len({tuple(figures[:2]) for figures in table.values()}) > 1


def test_the_ranker_s_lessons_come_between_what_the_first_stage_knows_and_validation(two_stage):
    # User 1 had 1..9, user 2 had 10..13, user 3 had 14..16; the last is for the test, the one before for validation.
    events = data.Interactions.from_sequences([0, 9, 13, 16], list(range(1, 17)))
    split = data.leave_last_out(events)
    early, lessons = two_stage.early_and_lessons(split, ranker_events=3)
    # Of user 1's seven train events the last three; of user 2's two the last one, half of them; of user 3's one, none.
    assert events.items[early].tolist() == [1, 2, 3, 4, 10, 14]
    assert events.items[lessons].tolist() == [5, 6, 7, 11]


def test_what_is_retrieved_for_the_lessons_knows_nothing_of_them(two_stage, monkeypatch):
    """Which events each first stage is trained on and retrieves for, and which are counted for each list."""
    trained, asked, counted = [], [], []

    class Model:
        def __init__(self, vocabulary_size):
            self.items = np.random.default_rng(len(trained)).normal(size=(vocabulary_size, 4)).astype("float32")

        def fit(self, x, callbacks=(), **options):
            self.learnt = sorted(x["item_id"].tolist())
            trained.append(self.learnt)
            for watch in callbacks:
                watch.best_epoch = 0

        def user_vectors(self, x):
            asked.append((self.learnt, sorted(x["item_id"].tolist())))
            return np.ones((len(x["item_id"]), 4), np.float32)

        def item_vectors(self):
            return self.items

    class Stop(Exception):
        pass

    def stop(ranker, lessons, validation, *_):
        raise Stop(lessons.x["item_id"].tolist(), validation.x["item_id"].tolist())

    follows = two_stage.follows

    def counting(ids, history, events, known):
        counted.append(sorted(events.items[known].tolist()))
        return follows(ids, history, events, known)

    events = data.Interactions.from_sequences([0, 9, 13], list(range(1, 14)))
    split = data.leave_last_out(events)
    monkeypatch.setattr(two_stage, "build_first", lambda *_: Model(events.item_vocabulary_size))
    monkeypatch.setattr(two_stage, "build_ranker", lambda *_: None)
    monkeypatch.setattr(two_stage, "train_ranker", stop)
    monkeypatch.setattr(two_stage, "follows", counting)
    early, lessons = two_stage.early_and_lessons(split, ranker_events=3)
    args = two_stage.parse_arguments(["--retrieve", "5", "--embedding-dim", "4"])
    with pytest.raises(Stop) as stopped:
        two_stage.two_stages(split, early, lessons, {}, 1, args)
    assert stopped.value.args == ([5, 6, 7, 11], [8, 12])
    # Targets of the first stage that is judged (users' first events have no history), and of the one for the lessons.
    assert trained == [[2, 3, 4, 5, 6, 7, 11], [2, 3, 4]]
    # What the one that retrieves has learnt, and for what it retrieves: the lessons, validation, the test.
    assert asked == [(trained[1], [5, 6, 7, 11]), (trained[0], [8, 12]), (trained[0], [9, 13])]
    # What is counted for the lessons, for validation and for the test.
    everything = [1, 2, 3, 4, 5, 6, 7, 10, 11]
    assert counted == [[1, 2, 3, 4, 10], everything, everything]


def test_the_order_of_lists_is_judged_over_all_events(two_stage):
    # Event 0 took the item 7, second by score; event 1 took 9, tied for the first place; event 2's was not retrieved.
    ids = np.array([[5, 7, 8], [9, 4, 0], [1, 2, 3]])
    lists = two_stage.Lists({"item_id": np.array([7, 9, 6])}, {"item_id": ids})
    scores = np.array([[0.5, 0.4, 0.1], [0.3, 0.3, -np.inf], [3, 2, 1]])
    figures = two_stage.list_metrics(lists, scores)
    assert figures["HR@10"] == pytest.approx(2 / 3)
    assert figures["Recall@3"] == pytest.approx(2 / 3)
    assert figures["NDCG@10"] == pytest.approx(2 / np.log2(3) / 3)


def test_a_lesson_is_the_item_taken_and_others_that_were_retrieved(two_stage):
    # Event 0's item is third in its list, which ends in padding; event 1's was not retrieved, so it teaches nothing.
    ids = np.array([[4, 5, 6, 7, 0], [1, 2, 3, 4, 5]])
    x = {"item_id": np.array([6, 9]), "user": np.array([70, 71])}
    lists = two_stage.Lists(x, {"item_id": ids, "score": ids / 10})
    rows = []

    class Ranker:
        inputs = tuple(SimpleNamespace(name=name) for name in ("user", "item_id", "score"))

        def compile(self, optimizer, loss):
            self.loss = loss

        def fit(self, x, labels, **options):
            rows.append({name: values.tolist() for name, values in x.items()})
            # Equal scores: log of the number of items in the lesson.
            assert np.allclose(self.loss(labels[:, None], np.zeros((len(labels), 1), "float32")), np.log(3))
            assert labels.tolist() == [1, 0, 0]
            return SimpleNamespace(history={"loss": [0.0]})

        def predict_on_batch(self, x):
            return np.asarray(x["score"])[:, None]

        def get_weights(self):
            return len(rows)

        def set_weights(self, weights):
            self.weights = weights

    ranker = Ranker()
    best = two_stage.train_ranker(ranker, lists, lists, negatives=2, epochs=9, seed=0)
    assert (best, ranker.weights) == (1, 1)  # no epoch was better, and two without progress were enough
    assert len(rows) == 3
    for row in rows:
        assert row["user"] == [70] * 3
        assert row["item_id"][0] == 6
        assert set(row["item_id"][1:]) < {4, 5, 7}
        assert len(set(row["item_id"])) == 3
        assert row["score"] == [item / 10 for item in row["item_id"]]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seeds", "1,x"], "--seeds"),
        (["--negatives", 20, "--retrieve", 20], "--negatives"),
        (["--epochs", 0], "--epochs"),
        (["--ranker-validation", 0], "--ranker-validation"),
        (["--hidden-units", "64,"], "--hidden-units"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--data", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_two_stages_refuse_what_cannot_be(run_two, arguments, named):
    status, printed, complaints = run_two(*arguments)
    assert (status, printed) == (2, "")
    assert re.fullmatch(rf"run_two_stage\.py: error: .*{re.escape(named)}.*\n", complaints), complaints
