"""The server of the examples over a real socket: answers, refusals, metrics, a change of version, the end."""

import asyncio
import contextlib
import http.client
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import tensorflow as tf
from deepctr.feature_column import DenseFeat, SparseFeat, VarLenSparseFeat

from deepmatch_ext import YoutubeDNN, server
from deepmatch_ext.data import IdMap
from deepmatch_ext.retrieval import top_n
from deepmatch_ext.serving import export_recommender
from tests.fresh import begun
from tests.helpers import MAX_LEN, VOCABULARY, history_column, item_column, user_part

pytestmark = [pytest.mark.slow, pytest.mark.plain]

for module in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(module, reason=f"{module} is not installed: pip install {module}")

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "examples" / "serve.py"
NAMES = IdMap([f"sku-{k}" for k in range(1, VOCABULARY)])


@contextlib.contextmanager
def serving(folder, *options, logs):
    """The port of a server, its process, and the file of what it says."""
    logs.mkdir()
    process = begun(SCRIPT, folder, "--port", "0", "--poll-seconds", "0.1", *options, folder=logs)
    log = logs / "stderr"
    try:
        yield port_of(log, process.is_alive), process, log
    finally:
        process.kill()
        process.join()


def port_of(log, is_alive):
    until(lambda: (log.exists() and "running on" in log.read_text()) or not is_alive(), log)
    return int(re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())[1])


def until(holds, log=None):
    """Waits for what another process does; a minute is for a machine that is very busy."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, log and log.read_text()
        time.sleep(0.02)


def ask(port, method, path, body=None):
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        text = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def recommend(port, body):
    status, _, text = ask(port, "POST", "/recommend", body)
    return status, json.loads(text)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """An export of the small model with original ids."""
    return export_recommender(
        trained[0], tmp_path_factory.mktemp("plain"), item_ids=NAMES, id_maps={"hist_item": NAMES}
    )


@pytest.fixture(scope="module")
def plain(exported, tmp_path_factory):
    """A server of that; two requests, or 30 items, are its most."""
    folder, without = exported.parent, tmp_path_factory.mktemp("without")
    # A new process, in which DeepCTR and pandas can't be imported.
    for name in ("deepctr", "pandas"):
        (without / f"{name}.py").write_text("raise ImportError('not here')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(without), str(ROOT)]), "PYTHONUNBUFFERED": "1"}
    command, log = [sys.executable, str(SCRIPT), str(folder), "--port", "0", "--max-n", "20"], without / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        yield port_of(log, lambda: process.poll() is None)
    finally:
        process.kill()
        process.wait()


def expected(model, x, n, seen=()):
    exclude = (np.array([0, len(seen)]), np.array(seen, np.int64))
    ids, scores = top_n(model.user_vectors(x), model.item_vectors(), n, exclude=exclude)
    left = np.isfinite(scores[0])
    return ids[0][left], scores[0][left]


def row(x, k):
    return {name: values[k : k + 1] for name, values in user_part(x).items()}


def history(x, k):
    return NAMES.decode(x["hist_item"][k, : x["hist_len"][k]]).tolist()


def test_recommendations_are_the_model_s(trained, plain):
    model, x = trained
    for k in range(3):
        had = history(x, k)
        status, answer = recommend(plain, {"user": {"hist_item": had}, "n": 5, "seen": had})
        ids, scores = expected(model, row(x, k), 5, NAMES.encode(had))
        assert (status, answer["version"]) == (200, 1)
        assert answer["ids"] == NAMES.decode(ids).tolist()
        assert answer["scores"] == pytest.approx(scores.tolist(), abs=1e-6)


def test_the_page_s_requests_are_answered(tmp_path):
    """Those of docs/serving.md, with histories of 5: to this server, and the one that TensorFlow Serving takes."""
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    history = VarLenSparseFeat(SparseFeat("hist_item_id", 30, 4, embedding_name="item_id"), 5, "mean", "hist_len")
    model = YoutubeDNN([history], [SparseFeat("item_id", 30, 4)], num_sampled=4)
    export_recommender(model, tmp_path / "exports")
    had = {"hist_item_id": np.array([[5, 4, 3, 0, 0]]), "hist_len": np.array([3])}
    ids, scores = expected(model, had, 10, seen=[5, 4, 3])

    [command] = re.findall(r"^curl localhost:8000/recommend .*$", page, re.MULTILINE)
    _, address, option, body = shlex.split(command)
    assert (address, option) == ("localhost:8000/recommend", "--json")
    with serving(tmp_path / "exports", logs=tmp_path / "logs") as (port, _, _):
        status, answer = recommend(port, json.loads(body))
    assert (status, answer["ids"]) == (200, ids.tolist())
    assert answer["scores"] == pytest.approx(scores.tolist(), abs=1e-6)
    [shown] = re.findall(r"^```text\n(.*)\n```", page, re.MULTILINE)
    assert list(answer) == re.findall(r'"(\w+)":', shown)

    [command] = re.findall(r"^curl localhost:8501.*?^}'$", page, re.MULTILINE | re.DOTALL)
    *_, option, body = shlex.split(command)
    asked = json.loads(body)
    signature = tf.saved_model.load(str(tmp_path / "exports" / "1")).signatures[asked["signature_name"]]
    of_inputs = signature.structured_input_signature[1]
    found = signature(**{name: tf.constant(value, of_inputs[name].dtype) for name, value in asked["inputs"].items()})
    assert (option, found["item_ids"].numpy().tolist()) == ("-d", [ids.tolist()])


def test_ten_without_being_asked_a_long_history_is_cut_and_unknown_ids_are_no_fault(trained, plain):
    model, _ = trained
    had = [f"sku-{k}" for k in range(1, MAX_LEN + 3)]  # most recent first: the last two are too old
    had[1] = "withdrawn"
    cut = {"hist_item": np.array([[1, 0, 3, 4, 5, 6]]), "hist_len": np.array([MAX_LEN])}
    status, answer = recommend(plain, {"user": {"hist_item": had}, "seen": ["sku-9", "withdrawn"]})
    assert status == 200
    assert answer["ids"] == NAMES.decode(expected(model, cut, 10, [9])[0]).tolist()


def test_only_items_among_those_allowed_are_recommended_also_in_one_batch(trained, plain):
    model, x = trained
    had, stock = history(x, 0), ["sku-3", "sku-17", "sku-9", "withdrawn"]
    bodies = [{"among": stock}, {}, {"among": stock[:1]}, {"among": []}, {"among": [*stock[1:], stock[0]]}] * 4
    answers = {}

    def ask_for(k):
        answers[k] = recommend(plain, {"user": {"hist_item": had}, "n": 9, **bodies[k]})

    clients = [threading.Thread(target=ask_for, args=(k,)) for k in range(len(bodies))]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    scores = model.item_vectors() @ model.user_vectors(row(x, 0))[0]
    order = sorted([3, 17, 9], key=lambda item: -scores[item])
    best = NAMES.decode(order).tolist(), NAMES.decode(np.argsort(-scores[1:])[:9] + 1).tolist(), ["sku-3"], []
    for k in range(len(bodies)):
        assert (answers[k][0], answers[k][1]["ids"]) == (200, best[[0, 1, 2, 3, 0][k % 5]])
    assert recommend(plain, {"user": {"hist_item": had}, "among": [3]}) == (
        422,
        {"detail": "among must hold strings; got 3"},
    )


def test_users_nothing_is_known_of_and_users_who_have_seen_nearly_everything(plain):
    status, answer = recommend(plain, {"user": {"hist_item": []}, "n": 3})
    assert (status, len(answer["ids"])) == (200, 3)
    status, answer = recommend(plain, {"user": {"hist_item": []}, "n": 3, "seen": NAMES.values[1:].tolist()})
    assert (status, answer["ids"]) == (200, ["sku-1"])


USER = {"hist_item": ["sku-1"]}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "the body must be JSON"),
        (b"[" * 100_000, 400, ""),
        (b"x" * 2**20 + b"x", 413, "the body must be at most 1048576 bytes"),
        (b"\xff\xfe", 400, ""),
        ([], 422, "the body"),
        ({}, 422, "user: Field required"),
        ({"user": 3}, 422, "user: Input should be a valid dictionary"),
        ({"user": {}}, 422, "user must have 'hist_item'"),
        ({"user": {**USER, "hist": []}}, 422, "user must not have 'hist'; the export reads ['hist_item']"),
        ({"user": {**USER, "hist_len": 1}}, 422, "user must not have 'hist_len', which is counted here"),
        ({"user": {"hist_item": "sku-1"}}, 422, "hist_item must be a list; got 'sku-1'"),
        ({"user": {"hist_item": [1]}}, 422, "hist_item must hold strings; got 1"),
        ({"user": {"hist_item": [["sku-1"]]}}, 422, "hist_item must hold strings; got ['sku-1']"),
        ({"user": {"hist_item": ["\ud800"]}}, 422, "hist_item must hold strings; got '\\ud800'"),
        ({"user": USER, "n": 0}, 422, "n: Input should be greater than or equal to 1"),
        ({"user": USER, "n": 21}, 422, "n must be at most 20; got 21"),
        ({"user": USER, "n": 2.5}, 422, "n: Input should be a valid integer"),
        ({"user": USER, "n": True}, 422, "n: Input should be a valid integer"),
        ({"user": USER, "seen": "sku-1"}, 422, "seen: Input should be a valid list"),
        ({"user": USER, "seen": ["sku-1", 4]}, 422, "seen must hold strings; got 4"),
        ({"user": USER, "seen": [None]}, 422, "seen must hold strings; got None"),
        ({"user": USER, "seen": [["sku-1"]]}, 422, "seen must hold strings; got ['sku-1']"),
        ({"user": USER, "top": 3}, 422, "top: Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(plain, body, status, message):
    got, answer = recommend(plain, body)
    assert (got, answer["detail"][: len(message)]) == (status, message)
    assert list(answer) == ["detail"]


def test_other_types_paths_and_methods(plain):
    connection = http.client.HTTPConnection("127.0.0.1", plain, timeout=60)
    connection.request("POST", "/recommend", json.dumps({"user": USER}), {"Content-Type": "text/plain"})
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())) == (
        415,
        {"detail": "the content type must be application/json"},
    )
    connection.close()
    assert ask(plain, "GET", "/")[0] == 404
    assert ask(plain, "GET", "/recommend")[0] == 405


def test_health(plain):
    status, _, text = ask(plain, "GET", "/health")
    assert (status, json.loads(text)) == (200, {"status": "ok", "version": 1, "items": VOCABULARY - 1, "failed": {}})


def test_a_body_that_is_announced_too_large_is_not_waited_for(plain):
    lines = ["POST /recommend HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {100 * 2**20}"]
    with socket.create_connection(("127.0.0.1", plain), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", "{"]).encode())
        answer = b""
        while b"}" not in answer:
            part = connection.recv(65536)
            assert part, "closed without an answer"
            answer += part
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"the body must be at most 1048576 bytes" in answer


def test_metrics_count_what_happened(plain):
    from prometheus_client.parser import text_string_to_metric_families

    def read():
        status, headers, text = ask(plain, "GET", "/metrics")
        assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}

    before = read()
    for body in [{"user": USER}, {"user": USER}, {"user": {}}]:
        recommend(plain, body)
    ask(plain, "GET", "/secret/of/a/kind")
    after = read()

    def grown(*key):
        return after.get(key, 0) - before.get(key, 0)

    assert grown("recommend_requests_total", "/recommend", "200") == 2
    assert grown("recommend_requests_total", "/recommend", "422") == 1
    assert grown("recommend_requests_total", "404", "other") == 1
    assert grown("recommend_seconds_count") == grown("recommend_batch_size_sum") == 2
    assert (after["recommend_version",], after["recommend_waiting",]) == (1, 0)


def test_many_at_once_each_get_their_own(trained, plain):
    model, x = trained
    wrong, rows = [], list(range(120))

    def client(mine):
        for k in mine:
            had, n = history(x, k), k % 7 + 1
            status, answer = recommend(plain, {"user": {"hist_item": had}, "n": n, "seen": had[: k % 3]})
            ids, _ = expected(model, row(x, k), n, NAMES.encode(had[: k % 3]) if k % 3 else [])
            if (status, answer.get("ids")) != (200, NAMES.decode(ids).tolist()):
                wrong.append((k, status, answer))

    clients = [threading.Thread(target=client, args=(rows[start::8],)) for start in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    assert wrong == []


def test_inputs_of_every_kind(tmp_path):
    columns = [
        history_column("mean"),
        VarLenSparseFeat(SparseFeat("genre", 9, 4), 3, "mean", "hist_len"),
        VarLenSparseFeat(
            SparseFeat("tags", 20, 4, use_hash=True, dtype="string"), 3, "mean", "tags_len", "tags' weights"
        ),
        SparseFeat("city", 20, 4, use_hash=True, dtype="string"),
        SparseFeat("职业", 5, 4),
        DenseFeat("age", 1),
        DenseFeat("taste", 2),
    ]
    model = YoutubeDNN(columns, [item_column()])
    export_recommender(model, tmp_path / "export")
    user = {
        "hist_item": [4, 2, 9, 7],
        "genre": [1, 2, 3, 4],
        "tags": ["new", "red"],
        "tags' weights": [1, 0.5],
        "city": "Malmö",
        "职业": 3,
        "age": 31,
        "taste": [0.5, -1],
    }
    x = {
        "hist_item": np.array([[4, 2, 9, 0, 0, 0]]),
        "hist_len": np.array([3]),  # the shorter of the two that share it
        "genre": np.array([[1, 2, 3]]),
        "tags": np.array([["new", "red", "0"]]),
        "tags_len": np.array([2]),
        "tags' weights": np.array([[[1.0], [0.5], [0.0]]]),
        "city": np.array(["Malmö"]),
        "职业": np.array([3]),
        "age": np.array([31.0]),
        "taste": np.array([[0.5, -1.0]]),
    }
    refusals = {
        "hist_item must hold integers from 0 to 29; got 30": {"hist_item": [30, 2, 3, 4]},
        "genre must be as long as hist_item, 4; got 3": {"genre": [1, 2, 3]},
        'user must have "tags\' weights", as long as tags, 2': {"tags' weights": [1]},
        "tags' weights must hold numbers that float32 holds; got 'a'": {"tags' weights": ["a", 1]},
        "职业 must hold integers from 0 to 4; got 5": {"职业": 5},
        "职业 must hold integers from 0 to 4; got True": {"职业": True},
        "city must hold strings; got None": {"city": None},
        "age must hold numbers that float32 holds; got nan": {"age": float("nan")},
        "age must hold numbers that float32 holds; got inf": {"age": float("inf")},
        "age must hold numbers that float32 holds; got 100": {"age": 10**400},
        "taste must hold 2 numbers; got 1": {"taste": 3},
    }
    with serving(tmp_path / "export", logs=tmp_path / "logs") as (port, _, _):
        status, answer = recommend(port, {"user": user, "n": 29, "seen": [4, 2, -8]})
        assert status == 200, answer
        assert answer["ids"] == expected(model, x, 29, [4, 2])[0].tolist()
        for message, change in refusals.items():
            status, answer = recommend(port, {"user": {**user, **change}})
            assert (status, answer["detail"][: len(message)]) == (422, message)
        assert (
            recommend(port, {"user": user, "n": 30})[1]["detail"] == "n must be at most 29, the number of items; got 30"
        )
        assert recommend(port, {"user": user, "seen": ["4"]})[0] == 422
        assert recommend(port, {"user": user, "seen": [2**63]})[0] == 422
        message = "seen must hold integers from -9223372036854775808 to 9223372036854775807; got None"
        assert recommend(port, {"user": user, "seen": [None]}) == (422, {"detail": message})


def test_a_new_version_takes_over_under_load_and_the_end_waits_for_who_is_under_way(trained, tmp_path):
    model, x = trained
    folder = tmp_path / "export"
    numbered = {version: IdMap([f"v{version}-{k}" for k in range(1, VOCABULARY)]) for version in (1, 2)}
    export_recommender(model, folder, item_ids=numbered[1])
    answers, stop = [], threading.Event()

    def client():
        while not stop.is_set():
            k = len(answers) % 50
            answers.append(
                (k, recommend(port, {"user": {"hist_item": x["hist_item"][k, : x["hist_len"][k]].tolist()}}))
            )

    def health():
        status, _, text = ask(port, "GET", "/health")
        assert (status, json.loads(text)["status"]) == (200, "ok")
        return json.loads(text)

    def version():
        return health()["version"]

    with serving(folder, logs=tmp_path / "logs") as (port, process, log):
        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        until(lambda: len(answers) > 50)
        # It is copied in bit by bit, served when it is whole, and until then /health says what is missing.
        whole, copy = export_recommender(model, tmp_path / "elsewhere", item_ids=numbered[2]), folder / "2"
        copy.mkdir()
        until(lambda: "manifest.json" in health()["failed"].get("2", ""), log)
        shutil.copy(whole / "manifest.json", copy)
        until(lambda: "fingerprint.pb" in health()["failed"].get("2", ""), log)
        assert version() == 1
        shutil.copytree(whole, copy, dirs_exist_ok=True)
        until(lambda: version() == 2, log)
        assert health()["failed"] == {}
        more = len(answers)
        until(lambda: len(answers) > more + 50)
        # A version that can't be loaded changes nothing.
        broken = folder / "3"
        shutil.copytree(whole, folder / ".3")
        (folder / ".3" / "saved_model.pb").write_bytes(bytes((whole / "saved_model.pb").stat().st_size))
        (folder / ".3").rename(broken)
        until(lambda: health()["failed"].get("3", "").startswith(f"{broken} can't be served: "), log)
        assert 'recommend_loads_total{result="failed"}' in ask(port, "GET", "/metrics")[2]
        assert version() == 2
        # And the highest version taken away is the one before it served again.
        shutil.rmtree(broken)
        shutil.rmtree(copy)
        until(lambda: version() == 1, log)
        assert health()["failed"] == {}
        stop.set()
        for thread in clients:
            thread.join()
        assert {answer.get("version") for _, (_, answer) in answers} == {1, 2}
        best, _ = top_n(
            model.user_vectors({name: values[:50] for name, values in user_part(x).items()}), model.item_vectors(), 10
        )
        for k, (status, answer) in answers:
            assert status == 200, answer
            assert answer["ids"] == numbered[answer["version"]].decode(best[k]).tolist()

        # A request of which half has come when the signal does is answered, and a new one is not taken.
        body = json.dumps({"user": {"hist_item": [3]}}).encode()
        lines = ["POST /recommend HTTP/1.1", "Host: x", "Content-Type: application/json"]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as half:
            half.sendall(head + body[:5])
            time.sleep(0.3)  # for the server to read it
            os.kill(process.pid, signal.SIGTERM)

            def is_closed():
                with socket.socket() as new:
                    return new.connect_ex(("127.0.0.1", port)) != 0

            until(is_closed, log)
            assert process.is_alive()
            half.sendall(body[5:])
            answer = b""
            while part := half.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        assert json.loads(answer.split(b"\r\n\r\n")[1])["version"] == 1
        process.join(60)
        assert process.exitcode in (0, -signal.SIGTERM), log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("kind", ["missing", "empty", "rubbish", "another format"])
def test_an_export_that_cannot_be_served_gets_one_line(tmp_path, kind, capsys):
    folder = tmp_path / "export"
    if kind != "missing":
        folder.mkdir()
    if kind in ("rubbish", "another format"):
        (folder / "4").mkdir()
        (folder / "4" / "manifest.json").write_text({"rubbish": "{", "another format": '{"format": 99}'}[kind])
    assert example().main([str(folder)]) == 2
    assert re.fullmatch(r"serve\.py: error: .*export.*\n", capsys.readouterr().err)


# The service by itself, with an export that can be told what to do.


def example():
    spec = importlib.util.spec_from_file_location("serve", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FakeExport:
    version, items = 1, 9

    def __init__(self):
        self.batches, self.go_on = [], threading.Event()

    def check(self, user, n, seen, among):
        return user

    def recommend(self, queries):
        self.go_on.wait(60)
        self.batches.append(list(queries))
        if "bad" in queries:
            raise ValueError("it was bad")
        return [f"answer to {query}" for query in queries]


@pytest.fixture
def loads(monkeypatch):
    """Version -> why it can't be served, for exports that are not loaded; and which were tried, in order."""
    reasons, tried = {}, []

    def load(path):
        tried.append(int(path.name))
        if int(path.name) in reasons:
            raise ValueError(reasons[int(path.name)])
        export = FakeExport()
        export.version = int(path.name)
        return export

    for module in (server.export, server.service):
        monkeypatch.setattr(module, "ServedExport", load)
    return reasons, tried


def test_a_version_that_fails_is_tried_again_later_each_time(loads, monkeypatch, caplog):
    reasons, tried = loads
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(server.service, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    service = server.Service(pathlib.Path(), FakeExport(), max_batch=4, max_waiting=9, poll_seconds=1)

    def look(*numbers):
        tried.clear()
        asyncio.run(service._change_over([pathlib.Path(str(number)) for number in numbers]))
        return list(tried), service.export.version, {number: each.reason for number, each in service.failures.items()}

    reasons[2] = "half a copy"
    # After 1, 2, 4, ... seconds, and never more than a minute.
    for wait in (1, 2, 4, 8, 16, 32, 60, 60):
        assert look(2, 1) == ([2], 1, {2: "half a copy"})
        clock.now += wait - 0.1
        assert look(2, 1) == ([], 1, {2: "half a copy"})
        clock.now += 0.1
    assert [record.getMessage() for record in caplog.records] == ["Version 1 stays: half a copy"]
    # The next lower one is served meanwhile.
    reasons[3] = "broken"
    del reasons[2]
    assert look(3, 2, 1) == ([3, 2], 2, {3: "broken"})
    assert look(3, 2, 1) == ([], 2, {3: "broken"})
    # Taken away, it is forgotten; a new one of its number is tried at once.
    assert look(2, 1) == ([], 2, {})
    assert look(3, 2, 1) == ([3], 2, {3: "broken"})
    clock.now += 1
    del reasons[3]
    assert look(3, 2, 1) == ([3], 3, {})
    # The highest taken away, the one before it is served; an empty folder changes nothing.
    assert look() == ([], 3, {})
    assert look(2, 1) == ([2], 2, {})


def test_a_server_begins_with_the_highest_version_that_can_be_served(loads, tmp_path):
    reasons, tried = loads
    for name in ("1", "2", "10", ".11.unfinished", "notes"):
        (tmp_path / name).mkdir()
    assert server.highest(tmp_path).version == 10
    reasons.update({10: "still being copied", 2: "broken"})
    assert server.highest(tmp_path).version == 1
    assert tried == [10, 10, 2, 1]
    reasons[1] = "broken too"
    with pytest.raises(ValueError, match="still being copied"):
        server.highest(tmp_path)


def test_half_a_file_is_not_served(exported, tmp_path):
    path = shutil.copytree(exported, tmp_path / "1")
    names = list(json.loads((path / "manifest.json").read_text())["files"])
    assert {"saved_model.pb", "variables/variables.index"} < set(names)
    for name in names:
        whole = (path / name).read_bytes()
        (path / name).write_bytes(whole[:-1])
        with pytest.raises(
            ValueError, match=f"can't be served: {name} must have {len(whole)} bytes; got {len(whole) - 1}"
        ):
            server.ServedExport(path)
        (path / name).unlink()
        with pytest.raises(ValueError, match=f"can't be served: .*No such file.*{name}"):
            server.ServedExport(path)
        (path / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("messages", "status", "said"),
    [
        ([], 408, "the body must arrive within 0.05 s"),
        ([{"body": b"{", "more_body": True}], 408, "the body must arrive within 0.05 s"),
        ([{"body": b" " * 2**19, "more_body": True}] * 3, 413, "the body must be at most 1048576 bytes"),
    ],
)
def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch, messages, status, said):
    monkeypatch.setattr(server.app, "LONGEST_BODY", 0.05)
    service = server.Service(pathlib.Path(), FakeExport(), max_batch=4, max_waiting=9, poll_seconds=1)
    left, sent = list(messages), []

    async def receive():
        if left:
            return {"type": "http.request", **left.pop(0)}
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/recommend", "headers": headers, "query_string": b""}
    asyncio.run(asyncio.wait_for(server.make_app(service, 20)(scope, receive, send), 30))
    assert (sent[0]["status"], json.loads(sent[1]["body"])) == (status, {"detail": said})
    assert ((b"connection", b"close") in sent[0]["headers"]) == (status == 408)
    assert f'recommend_requests_total{{path="/recommend",status="{status}"}} 1.0' in service.metrics.text().decode()


def run_service(exports, queries, **limits):
    """What comes of queries that are all there before the first batch is done: answers or exceptions."""

    async def run():
        limits_ = {"max_batch": 4, "max_waiting": 100, **limits}
        service = server.Service(pathlib.Path(), exports[0], poll_seconds=1, **limits_)
        running = asyncio.create_task(service.run())
        first = asyncio.create_task(service.answer(exports[0], "first"))
        await asyncio.sleep(0.05)  # the first is being computed, alone
        asked = [asyncio.create_task(service.answer(export, query)) for export, query in queries]
        await asyncio.sleep(0.05)
        for export in exports:
            export.go_on.set()
        answers = await asyncio.gather(first, *asked, return_exceptions=True)
        running.cancel()
        return answers[1:]

    return asyncio.run(run())


def test_what_waits_is_computed_together_in_order_up_to_the_limit():
    export = FakeExport()
    answers = run_service([export], [(export, k) for k in range(6)])
    assert answers == [f"answer to {k}" for k in range(6)]
    assert export.batches == [["first"], [0, 1, 2, 3], [4, 5]]


def test_a_query_goes_to_the_export_that_checked_it():
    old, new = FakeExport(), FakeExport()
    run_service([old, new], [(old, "a"), (old, "b"), (new, "c"), (new, "d")])
    assert (old.batches, new.batches) == ([["first"], ["a", "b"]], [["c", "d"]])


def test_one_bad_query_does_not_spoil_the_others():
    export = FakeExport()
    answers = run_service([export], [(export, "a"), (export, "bad"), (export, "c")])
    assert [answers[0], answers[2]] == ["answer to a", "answer to c"]
    assert str(answers[1]) == "it was bad"


def test_more_than_may_wait_get_503():
    export = FakeExport()
    answers = run_service([export], [(export, k) for k in range(5)], max_waiting=3)
    assert answers[:3] == [f"answer to {k}" for k in range(3)]
    assert [type(error) for error in answers[3:]] == [server.TooManyWait] * 2
    full = server.Service(pathlib.Path(), export, max_waiting=0)
    sent, body = [], json.dumps({"user": {}}).encode()

    async def receive():
        return {"type": "http.request", "body": body}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/recommend", "headers": headers, "query_string": b""}
    asyncio.run(server.make_app(full)(scope, receive, send))
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"retry-after"]) == (503, b"1")
