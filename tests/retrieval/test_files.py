"""What is written is read again, whole; what is damaged or foreign is refused; folders, Parquet, PostgreSQL."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings

from deepmatch_ext import _folders
from deepmatch_ext.retrieval import (
    ExactIndex,
    FaissIndex,
    VectorIndex,
    pgvector,
    read_vectors,
    remove_pgvector,
    search_pgvector,
    upsert_pgvector,
    write_pgvector,
    write_vectors,
)
from tests.fresh import run_python
from tests.helpers import run_examples

pytestmark = pytest.mark.plain

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "indexes.md"
KINDS = ["exact", "Flat", "HNSW8", "IVF2,Flat", "IVF2,SQ8", "HNSW8_SQ8,RFlat"]


def make(kind, ids, vectors, **options):
    if kind == "exact":
        return ExactIndex(ids, vectors, **options)
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    return FaissIndex(ids, vectors, kind, **options)


def answers(index):
    users = np.random.default_rng(5).normal(size=(7, index.dimension))
    ids, scores = index.search(users, len(index), exclude=(np.arange(8), np.resize(index.ids, 7)))
    return [ids.tolist(), scores.tolist()]


def vectors_of(size, width=3, seed=0):
    return np.random.default_rng(seed).normal(size=(size, width))


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["inner_product", "cosine"])
def test_a_saved_index_answers_the_same(tmp_path, kind, metric):
    index = make(kind, np.arange(20, dtype=np.int16), vectors_of(20), metric=metric)
    index.add([30, 31], vectors_of(2, seed=1))
    index.replace([30, 5], vectors_of(2, seed=2))
    index.save(tmp_path / "index")
    loaded = VectorIndex.load(tmp_path / "index")
    assert answers(loaded) == answers(index)
    assert (type(loaded), loaded.metric, loaded.is_exact) == (type(index), metric, kind in ("exact", "Flat"))
    assert loaded.ids.dtype == np.int16
    # It goes on as the first does.
    for each in (index, loaded):
        each.add([40], vectors_of(1, seed=3))
        each.replace([31], vectors_of(1, seed=4))
    assert answers(loaded) == answers(index)
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.slow
@pytest.mark.once
def test_another_process_gets_the_same(tmp_path):
    index = ExactIndex(["tea", "milk", "naïve\0\ud800", "日本"], vectors_of(4), metric="cosine")
    index.save(tmp_path / "index")
    script = f"""
        import json
        import numpy as np
        from deepmatch_ext.retrieval import VectorIndex

        index = VectorIndex.load({str(tmp_path / "index")!r})
        ids, scores = index.search({vectors_of(3, seed=9).tolist()!r}, 4)
        print(json.dumps([ids.tolist(), scores.tolist(), index.metric]))
    """
    done = run_python("-c", textwrap.dedent(script))
    assert done.returncode == 0, done.stderr[-2000:]
    ids, scores = index.search(vectors_of(3, seed=9), 4)
    assert json.loads(done.stdout) == [ids.tolist(), scores.tolist(), "cosine"]


def test_an_index_can_be_replaced_by_another(tmp_path):
    folder = tmp_path / "deep" / "index"
    make("HNSW8", range(9), vectors_of(9)).save(folder)
    (folder / "notes.txt").write_text("mine")
    other = ExactIndex(["a", "b"], vectors_of(2, 5))
    for _ in range(2):
        other.save(folder)
        assert VectorIndex.load(folder).ids.tolist() == ["a", "b"]
        # Former files are gone, those of others are left alone.
        names = sorted(re.sub("-[0-9a-f]{12}", "", name) for name in os.listdir(folder))
        assert names == ["ids.json", "manifest.json", "notes.txt", "vectors.npy"]


def test_the_manifest_says_what_it_is(tmp_path):
    make("HNSW8", range(9), vectors_of(9), metric="cosine", effort=77).save(tmp_path / "index")
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert {name: manifest[name] for name in ("kind", "metric", "dimension", "count", "ids", "settings")} == {
        "kind": "faiss",
        "metric": "cosine",
        "dimension": 3,
        "count": 9,
        "ids": "int64",
        "settings": {"factory": "HNSW8", "effort": 77},
    }
    assert set(manifest["versions"]) == {"deepmatch_ext", "numpy", "faiss"}


@pytest.mark.parametrize("when", ["data", "manifest"])
@pytest.mark.parametrize("before", [True, False])
def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch, when, before):
    folder, index = tmp_path / "index", ExactIndex([1, 2], vectors_of(2))
    if before:
        index.save(folder)
    held = sorted(os.listdir(folder)) if before else None

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((np.lib.format, "write_array_header_1_0", full) if when == "data" else (os, "replace", full)))
        with pytest.raises(OSError, match="No space left"):
            ExactIndex(["x"], vectors_of(1)).save(folder)
    assert os.listdir(tmp_path) == (["index"] if before else [])
    if before:
        assert sorted(os.listdir(folder)) == held
        assert answers(VectorIndex.load(folder)) == answers(index)


@pytest.mark.slow
@pytest.mark.once
def test_a_save_that_is_killed_leaves_what_was_there(tmp_path):
    """Killed before each of the calls that a save makes of the file system, in a process of its own."""
    folder, index = tmp_path / "index", ExactIndex([1, 2], vectors_of(2))
    index.save(folder)
    script = f"""
        import os, signal, sys
        import numpy as np
        from deepmatch_ext.retrieval import ExactIndex

        folder, index = {str(folder)!r}, ExactIndex(["x", "y"], np.eye(2))
        for step in range(100):
            if not os.fork():
                left = step

                def count(*args):
                    global left
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)

                sys.addaudithook(lambda event, args: count() if event in ("open", "os.rename", "os.remove") else None)
                index._parts = lambda: ({{}}, {{"vectors.npy": lambda path: np.save(path, np.eye(2, dtype="float32"))}})
                index.save(folder)
                os._exit(0)
            _, status = os.wait()
            print("killed" if os.WIFSIGNALED(status) else "done")
            from deepmatch_ext.retrieval.vector_files import INDEX_FOLDER
            manifest, paths = INDEX_FOLDER.read(folder)  # all checksums are right
            print(manifest["ids"])
            if not os.WIFSIGNALED(status):
                break
    """
    done = run_python("-c", textwrap.dedent(script))
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.split()
    ends, ids = lines[::2], lines[1::2]
    assert ends == ["killed"] * (len(ends) - 1) + ["done"]
    assert len(ends) > 8
    switched = ids.index("string")
    assert ids == ["int64"] * switched + ["string"] * (len(ids) - switched)
    assert switched > 4
    # The one that was not killed has removed what the others have left.
    assert len(os.listdir(folder)) == 3
    assert VectorIndex.load(folder).ids.tolist() == ["x", "y"]


def test_a_folder_has_one_writer_at_a_time(tmp_path, monkeypatch):
    """A second save comes just before the first one writes its manifest, when its files are there already."""
    folder, index = tmp_path / "index", ExactIndex(["x"], vectors_of(1))
    ExactIndex([1], vectors_of(1)).save(folder)
    write_text, refused = _folders.write_text, []

    def late(path, text):
        if not refused:
            with pytest.raises(
                ValueError, match=r"must have one writer at a time; got another one, which is saving"
            ) as told:
                ExactIndex([2], vectors_of(1)).save(folder)
            refused.append(told)
        write_text(path, text)

    monkeypatch.setattr(_folders, "write_text", late)
    index.save(folder)
    assert answers(VectorIndex.load(folder)) == answers(index)
    ExactIndex([2], vectors_of(1)).save(folder)
    assert VectorIndex.load(folder).ids.tolist() == [2]
    monkeypatch.setattr(_folders, "fcntl", None)  # Windows
    index.save(folder)
    assert answers(VectorIndex.load(folder)) == answers(index)


def test_two_that_make_the_same_folder_leave_a_whole_one(tmp_path, monkeypatch):
    folder, write_text = tmp_path / "index", _folders.write_text

    def late(path, text):
        monkeypatch.undo()
        ExactIndex([2], vectors_of(1)).save(folder)
        write_text(path, text)

    monkeypatch.setattr(_folders, "write_text", late)
    with pytest.raises(OSError, match="index"):
        ExactIndex(["x"], vectors_of(1)).save(folder)
    assert VectorIndex.load(folder).ids.tolist() == [2]
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.parametrize("after", range(1, 4))
def test_a_save_that_is_interrupted_leaves_the_old_or_the_new(tmp_path, monkeypatch, after):
    folder, old, new = tmp_path / "index", ExactIndex([1], vectors_of(1)), ExactIndex(["x"], vectors_of(1))
    old.save(folder)
    fsync, left = os.fsync, after + 1  # two data files, the manifest, the folder with the manifest's name

    def interrupted(handle):
        nonlocal left
        fsync(handle)
        left -= 1
        if not left:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        new.save(folder)
    assert answers(VectorIndex.load(folder)) == answers(new if after == 3 else old)
    assert len(os.listdir(folder)) == 3


def test_what_a_killed_save_has_left_is_removed_by_the_next(tmp_path):
    folder, index = tmp_path / "index", ExactIndex([1], vectors_of(1))
    index.save(folder)
    mine = ["notes.tmp", ".hidden", "v-1.npy"]
    for name in ["vectors-0123456789ab.npy", ".manifest.json-0123456789ab.tmp", *mine]:
        (folder / name).write_text("half")
    (folder / ".model-0123456789ab.keras-0123456789ab.tmp.keras").write_text("half")
    index.save(folder)
    left = [re.sub("-[0-9a-f]{12}", "", name) for name in os.listdir(folder)]
    assert sorted(left) == sorted(["ids.json", "manifest.json", "vectors.npy", *mine])


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def edit(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("vectors*", cut, r"file '.*vectors-.*npy' must have \d+ bytes; got \d+: it is damaged"),
        ("vectors*", flip, r"file '.*vectors-.*npy' must have the checksum of its manifest; got another"),
        ("ids*", flip, r"file '.*ids-.*json' must have the checksum of its manifest; got another"),
        ("ids*", pathlib.Path.unlink, r"folder '.*' must have the file of its manifest; got no 'ids-.*json'"),
        ("manifest.json", cut, r"must be a saved index; got a manifest.json that can't be read|"),
        ("manifest.json", flip, r"(must be a saved index; got a manifest.json that can't be read)|(checksum is wrong)"),
        ("manifest.json", pathlib.Path.unlink, r"must be a saved index; got a folder without manifest.json"),
        ("manifest.json", edit("cosine", "inner_product"), r"must have the manifest that was written; got one whose"),
        ("manifest.json", edit('"format_version": 1', '"format_version": 2'), r"version 1; got format version 2. It"),
        ("manifest.json", edit("deepmatch_ext index", "x"), r"must be a saved index; got a manifest.json of something"),
        ("manifest.json", lambda path: path.write_text("[]"), r"must be a saved index; got a manifest.json of someth"),
        ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe"), r"got a manifest.json that can't be read"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path, file, damage, message):
    folder = tmp_path / "index"
    ExactIndex(["a", "b"], vectors_of(2), metric="cosine").save(folder)
    damage(next(folder.glob(file)))
    if file == "manifest.json" and damage is cut:
        return  # the newline after the last brace
    with pytest.raises(ValueError, match=message):
        VectorIndex.load(folder)


def rewrite(folder, change):
    """Changes the manifest as one does by hand who knows how it is written: its checksum is right."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    change(manifest)
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": digest}))


def replace_file(folder, name, write):
    """Puts another file in the place of one, with its right size and checksum."""
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / manifest["files"][name]["file"]
    write(path)
    about = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    rewrite(folder, lambda manifest: manifest["files"][name].update(about))


MISSING = object()
OTHERS = [MISSING, None, "x", -1, 0, 1, 2.5, True, [], [[1]], {}, {"a": 1}, 10**30]
ENTRIES = ["kind", "metric", "dimension", "count", "ids", "settings", "files"]


@pytest.mark.parametrize("kind", ["exact", "HNSW8"])
def test_a_manifest_written_by_hand_is_refused_or_means_the_same(tmp_path, kind):
    index = make(kind, ["a", "b", "c"], vectors_of(3))
    index.save(tmp_path / "index")
    whole = (tmp_path / "index" / "manifest.json").read_text()
    files = json.loads(whole)["files"]
    places = [(name,) for name in ENTRIES]
    places += [("files", name) for name in files] + [("files", n, key) for n in files for key in files[n]]
    places += [("settings", name) for name in json.loads(whole)["settings"]]
    refused = taken = 0
    for *within, last in places:
        for other in OTHERS:

            def change(manifest, within=within, last=last, other=other):
                for name in within:
                    manifest = manifest[name]
                manifest.pop(last) if other is MISSING else manifest.update({last: other})

            rewrite(tmp_path / "index", change)
            try:
                same = answers(VectorIndex.load(tmp_path / "index"))
            except ValueError as error:
                refused += bool(re.match(r"('.*' in the|the) manifest of folder|(folder|file) '.*' must", str(error)))
            else:
                assert same == answers(index), (within, last, other)
                taken += 1
            (tmp_path / "index" / "manifest.json").write_text(whole)
    # An exact index has no settings to be wrong; of a graph, "x" is text for a factory, and None and 1 are efforts.
    assert taken == (2 if kind == "exact" else 3)
    assert refused + taken == len(places) * len(OTHERS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.update(count=7),
            r"must hold 7 items of dimension 3, as its manifest says; got 2 ids, and .* \(2, 3",
        ),
        (lambda m: m.update(dimension=4), r"must hold 2 items of dimension 4, as its manifest says; got 2 ids"),
        (
            lambda m: m.update(ids="int8"),
            r"as its manifest says; got ValueError: the ids must be of type int8; got 'a'",
        ),
        (lambda m: m.pop("metric"), r"'metric' in the manifest of folder '.*' must be one of 'inner_pro.*; got none"),
        (lambda m: m.update(count="2"), r"'count' in the manifest of folder '.*' must be of type int; got '2'"),
        (lambda m: m["files"].pop("ids.json"), r"as its manifest says; got KeyError: 'ids.json'"),
        (
            lambda m: m["files"]["ids.json"].update(file="../secret"),
            r"the manifest of folder '.*' on 'ids.json' must name a file as save\(\) does; got '../secret'",
        ),
    ],
)
def test_a_false_manifest_is_refused_with_the_reason(tmp_path, change, message):
    ExactIndex(["a", "b"], vectors_of(2)).save(tmp_path / "index")
    rewrite(tmp_path / "index", change)
    with pytest.raises(ValueError, match=message):
        VectorIndex.load(tmp_path / "index")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("ids.json", lambda path: path.write_text('["a", "a"]')),
        ("ids.json", lambda path: path.write_text('["a", ""]')),
        ("ids.json", lambda path: path.write_text('["a", 1]')),
        ("ids.json", lambda path: path.write_text('["a"]')),
        ("ids.json", lambda path: path.write_text("5")),
        ("ids.json", lambda path: path.write_text("[" * 100_000)),
        ("vectors.npy", lambda path: path.write_bytes(b"rubbish")),
        ("vectors.npy", lambda path: write_npy(path, np.eye(2))),
        ("vectors.npy", lambda path: write_npy(path, np.zeros(6, np.float32))),
        ("vectors.npy", lambda path: write_npy(path, np.zeros((3, 3), np.float32))),
        ("vectors.npy", lambda path: write_npy(path, np.zeros((2, 2), np.float32))),
        ("index.faiss", lambda path: path.write_bytes(b"rubbish")),
        ("rows.npy", lambda path: write_npy(path, np.array([0, 0]))),
        ("rows.npy", lambda path: write_npy(path, np.array([0, 5]))),
        ("rows.npy", lambda path: write_npy(path, np.array([0]))),
        ("rows.npy", lambda path: write_npy(path, np.array([1, -1]))),
    ],
)
def test_files_that_are_not_what_the_manifest_says_are_refused(tmp_path, name, write):
    make("exact" if name == "vectors.npy" else "HNSW8", ["a", "b"], vectors_of(2)).save(tmp_path / "index")
    replace_file(tmp_path / "index", name, write)
    with pytest.raises(ValueError, match=r"folder '.*index' must hold .*, as its manifest says; got"):
        VectorIndex.load(tmp_path / "index")


def write_npy(path, array):
    with path.open("wb") as file:
        np.save(file, array)


@pytest.mark.parametrize("depth", [400, 990, 100_000])
def test_a_manifest_nested_deep_is_refused(tmp_path, depth):
    (tmp_path / "manifest.json").write_text('{"format": ' + "[" * depth + "]" * depth + "}")
    with pytest.raises(ValueError, match=r"folder '.*' must be a saved index; got a manifest.json"):
        VectorIndex.load(tmp_path)
    with pytest.raises(ValueError, match=r"must be a saved index; got a manifest.json .* Save to another place"):
        ExactIndex([1], [[1.0]]).save(tmp_path)


def test_a_foreign_folder_is_refused(tmp_path):
    folder, index = tmp_path / "photos", ExactIndex([1, 2], vectors_of(2))
    with pytest.raises(ValueError, match=r"folder '.*photos' must be a saved index; got no such folder"):
        ExactIndex.load(folder)
    folder.mkdir()
    (folder / "cat.jpg").write_text("meow")
    with pytest.raises(ValueError, match=r"must be a saved index; got a folder without manifest.json"):
        ExactIndex.load(folder)
    with pytest.raises(ValueError, match=r"got a folder without manifest.json. Save to another place, or remove it"):
        index.save(folder)
    with pytest.raises(ValueError, match=r"cat.jpg' must be a folder or not exist yet; got a file"):
        index.save(folder / "cat.jpg")
    with pytest.raises(ValueError, match=r"cat.jpg' must be a saved index; got a file"):
        ExactIndex.load(folder / "cat.jpg")
    assert os.listdir(folder) == ["cat.jpg"]
    (tmp_path / "empty").mkdir()
    index.save(tmp_path / "empty")
    assert answers(ExactIndex.load(tmp_path / "empty")) == answers(index)


def test_an_index_of_another_kind_is_refused(tmp_path):
    ExactIndex([1, 2], vectors_of(2)).save(tmp_path / "index")
    with pytest.raises(
        ValueError, match=r"must be an index of kind 'faiss'; got 'exact'. VectorIndex.load\(\) reads any"
    ):
        FaissIndex.load(tmp_path / "index")


def test_a_folder_can_be_moved(tmp_path):
    index = ExactIndex([1, 2], vectors_of(2))
    index.save(tmp_path / "index")
    shutil.move(tmp_path / "index", tmp_path / "elsewhere")
    assert answers(VectorIndex.load(tmp_path / "elsewhere")) == answers(index)


# Parquet.

parquet = pytest.mark.skipif(
    not importlib.util.find_spec("pyarrow"), reason="read_vectors and write_vectors need pyarrow"
)
CHARACTERS = st.characters(codec="utf-8")


@pytest.mark.smoke
@parquet
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.one_of(
        st.lists(st.text(CHARACTERS, min_size=1), min_size=1, unique=True),
        st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True).map(lambda x: np.array(x, np.int64)),
        st.lists(st.integers(0, 2**64 - 1), min_size=1, unique=True).map(lambda x: np.array(x, np.uint64)),
        st.lists(st.integers(-128, 127), min_size=1, unique=True).map(lambda x: np.array(x, np.int8)),
    ),
    shape=st.tuples(st.integers(1, 4)) | st.tuples(st.integers(1, 3), st.integers(1, 4)),
    metric=st.sampled_from(["inner_product", "cosine"]),
)
def test_parquet_round_trip(tmp_path, ids, shape, metric):
    vectors = vectors_of(len(ids), np.prod(shape)).astype(np.float32).reshape(-1, *shape)
    price = pd.Series(np.arange(len(ids)) / 3, index=np.arange(len(ids))[::-1])  # by place, not by the frame's index
    write_vectors(
        tmp_path / "v.parquet", ids, vectors, metric=metric, metadata={"price": price, "title": ["é"] * len(ids)}
    )
    found = read_vectors(tmp_path / "v.parquet")
    assert found.ids.tolist() == np.asarray(ids, dtype=getattr(ids, "dtype", object)).tolist()
    assert found.ids.dtype == getattr(ids, "dtype", object)
    assert found.vectors.shape == vectors.shape
    assert (found.vectors == vectors).all()
    assert found.vectors.dtype == np.float32
    assert found.metric == metric
    assert found.metadata.columns.tolist() == ["price", "title"]
    assert found.metadata["price"].tolist() == price.tolist()
    assert os.listdir(tmp_path) == ["v.parquet"]


@parquet
def test_parquet_is_plain_to_others(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet

    write_vectors(tmp_path / "v.parquet", [7, 8], [[1.0, 2.0], [3.0, 4.0]], metadata=pd.DataFrame({"n": [1, None]}))
    table = pyarrow.parquet.read_table(tmp_path / "v.parquet")
    assert table.schema.field("vector").type == arrow.list_(arrow.float32(), 2)
    assert table.to_pydict() == {"id": [7, 8], "vector": [[1.0, 2.0], [3.0, 4.0]], "n": [1.0, None]}
    assert pd.read_parquet(tmp_path / "v.parquet")["vector"][1].tolist() == [3.0, 4.0]


@parquet
def test_parquet_of_users_with_k_interests_is_plain_to_others(tmp_path):
    import pyarrow as arrow
    import pyarrow.parquet

    path = tmp_path / "v.parquet"
    users = np.asfortranarray([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[0.0, 0.0], [7.0, 8.0], [0.0, 0.0]]])
    write_vectors(path, ["ann", "bob"], users)
    table = pyarrow.parquet.read_table(path)
    assert table.schema.field("vector").type == arrow.list_(arrow.list_(arrow.float32(), 2), 3)
    # Bob has one interest, and whoever reads the file is not to take zeros for others.
    assert table["vector"].to_pylist() == [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[7.0, 8.0]] * 3]
    assert [each.tolist() for each in pd.read_parquet(path)["vector"][0]] == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    with pytest.raises(ValueError, match=r"`vectors` must have shape \(V, D\); got shape \(2, 3, 2\)"):
        ExactIndex(["ann", "bob"], users)  # holds items, of one vector each

    def refused(column, message):
        changed = arrow.table({"id": ["ann", "bob"], "vector": column}).replace_schema_metadata(table.schema.metadata)
        pyarrow.parquet.write_table(changed, path)
        with pytest.raises(ValueError, match=message):
            read_vectors(path)

    pair = arrow.list_(arrow.float32(), 2)
    kind = r"must have one column 'vector' of 2 float32, or of K times as many; got "
    refused(arrow.array([[[1.0, 2]], [[3.0, 4]]], arrow.list_(pair)), kind + "list<")
    refused(arrow.array([[[1.0]], [[3.0]]], arrow.list_(arrow.list_(arrow.float32(), 1), 1)), kind + "fixed_size_list<")
    refused(arrow.array([[[[1.0, 2]]], [[[3.0, 4]]]], arrow.list_(arrow.list_(pair, 1), 1)), kind + "fixed_size_list<")
    refused(arrow.array([[[1.0, 2]], [[3.0, None]]], arrow.list_(pair, 1)), "must have no null in the columns")


@parquet
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_vectors_come_in_blocks_where_memory_does_not_hold_them(tmp_path, shape):
    vectors = np.random.default_rng(0).normal(size=(10, *shape)).astype("float32")
    ids, price = np.arange(5, 15), np.arange(10.0)
    write_vectors(tmp_path / "whole.parquet", ids, vectors, metadata={"price": price})
    write_vectors(tmp_path / "blocks.parquet", ids, iter(np.split(vectors, [4, 4, 9])), metadata={"price": price})
    whole, blocks = (read_vectors(tmp_path / f"{name}.parquet") for name in ("whole", "blocks"))
    np.testing.assert_array_equal(blocks.vectors, vectors)
    np.testing.assert_array_equal(blocks.ids, whole.ids)
    pd.testing.assert_frame_equal(blocks.metadata, whole.metadata)
    for wrong, message in [
        ([vectors[:9]], "must have a row for each of the 10 ids; got 9"),
        ([vectors, vectors[:1]], "must have a row for each of the 10 ids; got 11 or more"),
        ([vectors[:9], vectors[9:, ..., :2]], "`vectors` must have blocks"),
        ([vectors[:9], np.full_like(vectors[9:], np.nan)], "`vectors` must be finite"),
        ([], "must have a row for each of the 10 ids; got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_vectors(tmp_path / "wrong.parquet", ids, iter(wrong))
    assert sorted(os.listdir(tmp_path)) == ["blocks.parquet", "whole.parquet"]


@parquet
def test_parquet_refuses(tmp_path, monkeypatch):
    path = tmp_path / "v.parquet"
    write_vectors(path, [1, 2], vectors_of(2))
    good = path.read_bytes()
    for arguments, message in [
        ({"ids": [1, 1]}, r"`ids` must be unique"),
        ({"ids": ["", "a"]}, r"`ids` must hold no empty string"),
        ({"vectors": [[1.0], [np.nan]]}, r"`vectors` must be finite"),
        ({"vectors": [1.0, 2.0]}, r"`vectors` must have shape \(V, D\) or \(V, K, D\); got shape \(2,\)"),
        ({"vectors": np.ones((3, 2, 1))}, r"`vectors` must have a row for each of the 2 ids; got shape \(3, 2, 1\)"),
        ({"vectors": np.ones((2, 0, 1))}, r"`vectors` must have at least one vector for each user"),
        ({"metric": "l2"}, r"`metric` must be one of"),
        ({"metadata": {"id": [1, 2]}}, r"`metadata` must have no column 'id' or 'vector', and none twice; got 'id'"),
        ({"metadata": {"x": [1]}}, r"`metadata` 'x' must have 2 values, one for each id; got 1"),
        ({"metadata": {"x": [1, "a"]}}, r"`metadata` 'x' must be of one type that Parquet knows; got "),
        ({"metadata": {"x": [1, 2**70]}}, r"`metadata` 'x' must be of one type that Parquet knows; got "),
        (
            {"metadata": pd.DataFrame([[1, 2]] * 2, columns=["x", "x"])},
            r"The columns of `metadata` must not repeat a name; got 'x' twice",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            write_vectors(path, **{"ids": [1, 2], "vectors": [[1.0], [2.0]], **arguments})
        assert path.read_bytes() == good
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_vectors(path, [1], [[1.0]])
    assert path.read_bytes() == good
    assert os.listdir(tmp_path) == ["v.parquet"]


@parquet
def test_parquet_that_is_damaged_or_foreign_is_refused(tmp_path):
    path = tmp_path / "v.parquet"
    write_vectors(path, np.arange(1000), vectors_of(1000, 8))
    good = path.read_bytes()
    for at in (100, len(good) // 2, len(good) - 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ValueError, match=r"file '.*v.parquet' must be a Parquet file that is whole; got"):
            read_vectors(path)
    path.write_bytes(good[:-100])
    with pytest.raises(ValueError, match=r"must be a Parquet file that is whole"):
        read_vectors(path)
    pd.DataFrame({"id": [1]}).to_parquet(path)
    with pytest.raises(ValueError, match=r"must be one that write_vectors\(\) wrote; got another Parquet file. Read"):
        read_vectors(path)
    with pytest.raises(FileNotFoundError):
        read_vectors(tmp_path / "none.parquet")


@parquet
@pytest.mark.parametrize("ids", [[1, 2], ["a", "b"]])
def test_parquet_with_other_metadata_or_columns_is_refused(tmp_path, ids):
    import pyarrow as arrow
    import pyarrow.parquet

    path = tmp_path / "v.parquet"
    write_vectors(path, ids, vectors_of(2), metadata={"n": [1, 2]})
    table = pyarrow.parquet.read_table(path)
    about = json.loads(table.schema.metadata[b"deepmatch_ext"])

    def refused(table, text, message):
        pyarrow.parquet.write_table(table.replace_schema_metadata({"deepmatch_ext": text}), path)
        with pytest.raises(ValueError, match=r"file '.*v.parquet'.* must .*; got") as caught:
            read_vectors(path)
        assert message in str(caught.value)

    for name in ("format_version", "metric", "dimension", "count"):
        for other in OTHERS:
            changed = {key: value for key, value in about.items() if key != name}
            changed |= {} if other is MISSING else {name: other}
            if other is True or other != about[name]:
                refused(table, json.dumps(changed), "")
    for text in ("{", "[1]", '"x"', "3", "\ud800".encode("utf-8", "surrogatepass"), "[" * 100_000):
        refused(table, text, "metadata")
    good = json.dumps(about)
    null = arrow.array([None, *ids[1:]])
    for changed, message in [
        (table.drop_columns(["id"]), "must have one column 'id' of integers or strings; got None"),
        (table.drop_columns(["vector"]), "must have one column 'vector' of 3 float32, or of K times as many; got None"),
        (table.append_column("id", table["id"]), "must have one column 'id' of integers or strings; got None"),
        (table.set_column(0, "id", null), "must have no null in the columns 'id' and 'vector'; got some"),
        (table.set_column(0, "id", arrow.array([1.5, 2.0])), "of integers or strings; got double"),
        (table.set_column(1, "vector", arrow.array([[1.0], [2.0]])), "of 3 float32, or of K times as many; got list<"),
        (table.set_column(1, "vector", arrow.array([1.0, 2.0])), "of 3 float32, or of K times as many; got double"),
        (
            table.set_column(1, "vector", arrow.array([[1.0, 2, 3], None], arrow.list_(arrow.float32(), 3))),
            "",  # older versions of pyarrow don't read it
        ),
        (
            table.set_column(1, "vector", arrow.array([[1.0, 2, 3], [1, 2, None]], arrow.list_(arrow.float32(), 3))),
            "must have no null",
        ),
    ]:
        refused(changed, good, message)


def test_without_pyarrow_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: read_vectors(tmp_path / "x"), lambda: write_vectors(tmp_path / "x", [1], [[1.0]])):
        with pytest.raises(ImportError, match=r"_vectors\(\) needs pyarrow: pip install"):
            call()


@pytest.mark.parametrize("missing", ["psycopg", "pgvector"])
def test_without_psycopg_or_pgvector_the_command_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    for call in (lambda: write_pgvector(None, "x", [1], [[1.0]]), lambda: search_pgvector(None, "x", [[1.0]], 1)):
        with pytest.raises(
            ImportError, match=r"PostgreSQL needs pgvector and psycopg\[binary\]: pip install \"pgv.* \"psycopg\[b"
        ):
            call()


# PostgreSQL. The package pgserver brings the server's programs; run as root, its own start would make a system user.


@pytest.fixture(scope="module")
def connection():
    pgserver = importlib.util.find_spec("pgserver")
    if not pgserver or not importlib.util.find_spec("psycopg") or not importlib.util.find_spec("pgvector"):
        pytest.skip("needs PostgreSQL: pip install pgserver pgvector 'psycopg[binary]' (Linux, Python 3.11)")
    import psycopg

    programs = pathlib.Path(pgserver.origin).parent / "pginstall" / "bin"
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path has to be short
    data, as_user = folder / "data", {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    run = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **as_user}
    server = None
    try:
        try:
            subprocess.run([programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust"], check=True, **run)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"PostgreSQL can't be started here: {error}")
        options = ["-c", "listen_addresses=", "-c", "fsync=off"]
        server = subprocess.Popen([programs / "postgres", "-D", data, "-k", folder, *options], **run)
        for _ in range(300):
            assert server.poll() is None, "PostgreSQL has ended"
            try:
                connection = psycopg.connect(host=str(folder), user="postgres", dbname="postgres")
                break
            except psycopg.OperationalError:
                time.sleep(0.1)
        else:
            pytest.fail("PostgreSQL takes no connection")
        with connection:
            yield connection
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # ends it at once, in order
            server.wait(30)
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.once
def test_the_examples_of_postgresql_run(connection, monkeypatch):
    monkeypatch.setenv("PGHOST", connection.info.host)
    monkeypatch.setenv("PGUSER", connection.info.user)
    run_examples(pgvector)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("metric", ["inner_product", "cosine"])
@pytest.mark.parametrize("strings", [True, False])
def test_postgresql_finds_what_the_exact_index_finds(connection, metric, strings):
    ids = [f"it's \\{k}\t日本" for k in range(5000)] if strings else np.arange(5000) * 2**50 - 2**60
    vectors, users = vectors_of(5000, 8), vectors_of(6, 8, seed=1)
    seen = np.arange(0, 70, 10), [ids[k] for k in np.random.default_rng(2).integers(0, 5000, 60)]
    write_pgvector(connection, "items", ids, vectors, metric=metric)
    index = ExactIndex(ids, vectors, metric=metric)
    some = [ids[k] for k in np.random.default_rng(3).integers(0, 5000, 300)]
    unknown = some + ["no item" if strings else 17]
    each = np.array([0, 100, 110, 110, 200, 250, 300]), some  # the third user gets nothing
    for exclude, among in [(None, None), (seen, None), (None, some), (seen, unknown), (None, each), (seen, each)]:
        found_ids, found_scores = search_pgvector(connection, "items", users, 20, exclude=exclude, among=among)
        ids_there, scores = index.search(users, 20, exclude=exclude, among=among)
        assert found_ids.tolist() == ids_there.tolist()
        assert found_scores == pytest.approx(scores, abs=1e-5)
    # What other programs read from it is what was written.
    text = connection.execute(
        "SELECT vector::text FROM items WHERE id = %s", [ids[7].item() if not strings else ids[7]]
    )
    assert json.loads(text.fetchone()[0]) == pytest.approx(vectors[7].astype(np.float32).tolist(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("metric", ["inner_product", "cosine"])
@pytest.mark.parametrize("strings", [True, False])
def test_postgresql_finds_the_best_of_k_interests(connection, metric, strings):
    rng = np.random.default_rng(3)
    ids = [f"item {k:03d}" for k in range(300)] if strings else np.arange(300)
    vectors, users = rng.integers(-3, 4, (300, 4)) + 0.5, rng.normal(size=(6, 3, 4)).round(1)
    users[2, 1], users[3, [0, 2]] = users[2, 0], 0  # surplus interests: one again, and zeros
    write_pgvector(connection, "items", ids, vectors, metric=metric)
    index = ExactIndex(ids, vectors, metric=metric)
    had = np.array([0, 0, 200, 200, 500, 500, 800]), [ids[k] for k in rng.permutation(900) % 300][:800]
    for n in (1, 20, 305):
        for exclude, among in ((None, None), (had, None), (had, ids[:150]), (had, (np.arange(0, 301, 50), ids))):
            found, scores = search_pgvector(connection, "items", users, n, exclude=exclude, among=among)
            expected = index.search(users, min(n, 300), exclude=exclude, among=among)[1]
            assert scores[:, :300] == pytest.approx(expected, abs=1e-5)
            assert np.isneginf(scores[:, 300:]).all()
            for row, left in enumerate(np.isfinite(scores).sum(axis=1)):
                mine = found[row, :left].tolist()
                assert len(set(mine)) == left
                of_mine = index.search(users[row : row + 1], 300)
                score_of = dict(zip(of_mine[0][0].tolist(), of_mine[1][0].tolist(), strict=True))
                assert [score_of[item] for item in mine] == pytest.approx(scores[row, :left].tolist(), abs=1e-5)
                assert not set(mine) & set(had[1][had[0][row] : had[0][row + 1]] if exclude else [])
                assert set(found[row, left:].tolist()) <= {"" if strings else -1}
    assert search_pgvector(connection, "items", users[:0], 3)[0].shape == (0, 3)


def test_postgresql_puts_the_lowest_of_equally_good_ids_first(connection):
    write_pgvector(connection, "few", [30, 4, 200], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    ids, scores = search_pgvector(connection, "few", [[[1.0, 0.0], [0.0, 1.0]]], 3)
    assert (ids.tolist(), scores.tolist()) == ([[4, 30, 200]], [[1.0, 1.0, 1.0]])


@pytest.mark.parametrize("strings", [True, False])
def test_postgresql_s_items_come_and_go(connection, strings):
    ids = [f"it's {k}" for k in range(30)] if strings else np.arange(30)
    vectors, users = vectors_of(30, 4), vectors_of(3, 4, seed=1)
    write_pgvector(connection, "shelf", ids[:20], vectors[:20], metric="cosine")
    index = ExactIndex(ids[:20], vectors[:20], metric="cosine")
    upsert_pgvector(connection, "shelf", ids[15:], -vectors[15:])
    index.replace(ids[15:20], -vectors[15:20])
    index.add(ids[20:], -vectors[20:])
    for each in (ids[:10], ids[25:], []):
        remove_pgvector(connection, "shelf", each)
        index.remove(each)
        found, scores = search_pgvector(connection, "shelf", users, 30)
        expected = index.search(users, len(index))
        assert found[:, : len(index)].tolist() == expected[0].tolist()
        assert scores[:, : len(index)] == pytest.approx(expected[1], abs=1e-5)
        assert np.isneginf(scores[:, len(index) :]).all()
    with connection.transaction():  # of the caller's, twice
        upsert_pgvector(connection, "shelf", ids[:1], vectors[:1])
        upsert_pgvector(connection, "shelf", ids[:1], vectors[1:2])
    index.add(ids[:1], vectors[1:2])
    assert search_pgvector(connection, "shelf", users, 1)[0].tolist() == index.search(users, 1)[0].tolist()
    other = [7] if strings else ["7"]
    for call, message in [
        (
            lambda: remove_pgvector(connection, "shelf", [ids[12], ids[5]]),
            r"`ids` must be in the table; got .*5.?, which",
        ),
        (lambda: remove_pgvector(connection, "shelf", [ids[12], ids[12]]), r"`ids` must be unique"),
        (lambda: remove_pgvector(connection, "shelf", other), r"`ids` must be (strings|integers), as the table's ids"),
        (
            lambda: remove_pgvector(connection, "shelf", [*ids[10:25], ids[0]]),
            r"`ids` must leave an item .*; got all 16",
        ),
        (lambda: remove_pgvector(connection, "none", ids), r"table 'none' must be one that write_pgvector\(\) wrote"),
        (lambda: upsert_pgvector(connection, "shelf", other, vectors[:1]), r"`ids` must be (strings|integers), as the"),
        (lambda: upsert_pgvector(connection, "shelf", ids[:1], vectors[:1, :2]), r"must have the table's dimension, 4"),
        (lambda: upsert_pgvector(connection, "shelf", ids[:1], np.zeros((1, 4))), r"length zero"),
        (lambda: upsert_pgvector(connection, "none", ids, vectors), r"table 'none' must be one that write_pgvector"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    assert connection.execute("SELECT count(*) FROM shelf").fetchone() == (16,)
    assert connection.execute("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'new%'").fetchone() == (0,)
    connection.commit()


def test_postgresql_connections_stay_as_they_are(connection):
    """What a caller reads of a vector is text, unless it has registered pgvector's types itself."""
    write_pgvector(connection, "few", [1], [[1.0, 0.5]])
    search_pgvector(connection, "few", [[1.0, 0.0]], 1)
    assert connection.execute("SELECT vector FROM few").fetchone() == ("[1,0.5]",)


@pytest.mark.slow
@pytest.mark.once
def test_postgresql_with_an_index_and_few_items_left(connection):
    connection.execute("CREATE SCHEMA IF NOT EXISTS shop")
    vectors = vectors_of(500, 8)
    write_pgvector(connection, "shop.items", range(500), vectors, metric="cosine", hnsw=True)
    ids, _ = search_pgvector(connection, "shop.items", vectors[:5], 1)
    assert ids[:, 0].tolist() == [0, 1, 2, 3, 4]
    plan = "\n".join(row[0] for row in connection.execute("SELECT indexdef FROM pg_indexes WHERE schemaname = 'shop'"))
    assert "USING hnsw (vector vector_cosine_ops)" in plan
    # Another table takes its place, with fewer rows than are asked for.
    write_pgvector(connection, "shop.items", ["a", "b"], [[1.0], [2.0]])
    ids, scores = search_pgvector(connection, "shop.items", [[1.0], [1.0]], 3, exclude=([0, 1, 3], ["b", "a", "b"]))
    assert ids.tolist() == [["a", "", ""], ["", "", ""]]
    assert scores.tolist() == [[1.0] + [-np.inf] * 2, [-np.inf] * 3]
    assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'shop'").fetchone()[0] == 1


@pytest.mark.parametrize("index", ["hnsw", "ivfflat"])
@pytest.mark.parametrize("autocommit", [True, False])
def test_postgresql_finds_as_many_as_there_are_and_leaves_the_settings_alone(connection, index, autocommit):
    vectors, users = vectors_of(1500, 4), vectors_of(5, 4, seed=1)
    whole = ExactIndex(np.arange(1500), vectors)
    write_pgvector(connection, "items", np.arange(1500), vectors, hnsw=index == "hnsw")
    if index == "ivfflat":
        connection.execute("CREATE INDEX ON items USING ivfflat (vector vector_ip_ops) WITH (lists = 30)")
    # The first has had nothing, the second the 60 nearest, the third nearly all, the others all of it and three times.
    had = [[], whole.search(users, 60)[0][1].tolist(), list(range(1495)), list(range(1500)), [*range(1400)] * 3]
    exclude = np.cumsum([0, *map(len, had)]), [item for items in had for item in items]
    connection.commit()
    connection.autocommit = autocommit
    try:
        with connection.transaction():
            # So small a table is read whole otherwise.
            connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL hnsw.ef_search = 7")
            plan = connection.execute("EXPLAIN SELECT id FROM items ORDER BY vector <#> '[1,0,0,0]' LIMIT 5").fetchall()
            assert "Index Scan" in plan[1][0]
            for n in (1, 10, 100, 1499, 1600):
                for seen, left in [(None, [1500] * 5), (exclude, [1500, 1440, 5, 0, 100])]:
                    ids, scores = search_pgvector(connection, "items", users, n, exclude=seen)
                    found = np.isfinite(scores)
                    assert found.sum(axis=1).tolist() == [min(n, most) for most in left]
                    assert (ids[~found] == -1).all()  # 0 is an item
                    for row, items in enumerate(had if seen else [[]] * 5):
                        mine = ids[row][found[row]]
                        assert len(set(mine.tolist()) - set(items)) == len(mine)
                        assert scores[row][found[row]] == pytest.approx((vectors @ users[row])[mine], abs=1e-5)
                # Of every third item, which an index doesn't know of, as many as are left.
                ids, scores = search_pgvector(connection, "items", users, n, exclude=exclude, among=range(0, 1500, 3))
                left = [500 - len({item for item in items if item % 3 == 0}) for items in had]
                assert np.isfinite(scores).sum(axis=1).tolist() == [min(n, most) for most in left]
                assert (ids[np.isfinite(scores)] % 3 == 0).all()
            assert connection.execute("SHOW hnsw.ef_search").fetchone() == ("7",)
            connection.execute("CREATE TEMPORARY TABLE mine ON COMMIT DROP AS SELECT 1 AS x")
            search_pgvector(connection, "items", users, 100)
            assert connection.execute("SELECT x FROM mine").fetchall() == [(1,)]
        search_pgvector(connection, "items", users, 100)
        assert connection.info.transaction_status == 0  # none, as before
        assert connection.execute("SHOW hnsw.ef_search").fetchone() == ("40",)
    finally:
        connection.rollback()
        connection.autocommit = False


def test_postgresql_asks_an_index_for_what_a_user_has_left(connection):
    """The 60 nearest were had: HNSW gives 40 unless it is asked for more."""
    vectors, users = vectors_of(3000, 8), vectors_of(4, 8, seed=1)
    whole = ExactIndex(np.arange(1, 3001), vectors, metric="cosine")
    write_pgvector(connection, "items", np.arange(1, 3001), vectors, metric="cosine", hnsw=True)
    exclude = np.arange(0, 241, 60), whole.search(users, 60)[0].ravel()
    with connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        for n, seen in [(100, None), (10, exclude), (3001, exclude)]:
            ids, scores = search_pgvector(connection, "items", users, n, exclude=seen)
            wanted = whole.search(users, min(n, 3000), exclude=seen)[0]
            there = np.isfinite(scores)
            assert there.sum(axis=1).tolist() == [min(n, 3000 - (60 if seen else 0))] * 4
            assert (ids[~there] == 0).all()
            common = [len(set(a) & set(b)) / n for a, b in zip(ids.tolist(), wanted.tolist(), strict=True)]
            assert min(common) > 0.9


@pytest.mark.parametrize(
    ("ids", "empty"), [([5, 6], 0), ([0, 5], -1), (range(-250, 3), -251), ([-1, 0, -3], -2), (["a"], "")]
)
def test_postgresql_calls_no_item_by_what_is_no_id_of_the_table(connection, ids, empty):
    write_pgvector(connection, "few", ids, np.ones((len(ids), 1)))
    found, scores = search_pgvector(connection, "few", [[1.0]], len(ids) + 2)
    assert sorted(found[0, : len(ids)].tolist()) == sorted(ids)
    assert found[0, len(ids) :].tolist() == [empty, empty]
    assert np.isfinite(scores).sum() == len(ids)


@pytest.mark.slow
@pytest.mark.once
def test_postgresql_refuses_and_keeps_what_is_there(connection, monkeypatch):
    connection.execute("DROP TABLE IF EXISTS plain; CREATE TABLE plain (id int)")
    write_pgvector(connection, "kept", [1, 2], [[1.0, 0.0], [0.0, 1.0]], metric="cosine")
    for call, message in [
        (lambda: write_pgvector(connection, "plain", [1], [[1.0]]), r"table 'plain' must be one that write_pgvector"),
        (lambda: search_pgvector(connection, "none", [[1.0]], 1), r"table 'none' must be .*; got no such table"),
        (lambda: write_pgvector(connection, "kept", ["a\0"], [[1.0]]), r"no character NUL"),
        (lambda: write_pgvector(connection, "kept", [""], [[1.0]]), r"`ids` must hold no empty string"),
        (lambda: write_pgvector(connection, "kept", [2**63], [[1.0]]), r"fit in PostgreSQL's bigint"),
        (lambda: write_pgvector(connection, "kept", [1, 1], [[1.0], [1.0]]), r"`ids` must be unique"),
        (lambda: write_pgvector(connection, "kept", [1], [[0.0]], metric="cosine"), r"length zero"),
        (lambda: write_pgvector(connection, "kept", [1], [[np.nan]]), r"`vectors` must be finite"),
        (lambda: search_pgvector(connection, "kept", [[np.nan, 0.0]], 1), r"`vectors` must be finite"),
        (lambda: search_pgvector(connection, "kept", [[1.0]], 1), r"must have the table's dimension, 2"),
        (lambda: search_pgvector(connection, "kept", [[[1.0]]], 1), r"dimension, 2; got shape \(1, 1, 1\)"),
        (lambda: search_pgvector(connection, "kept", [1.0], 1), r"shape \(N, D\) or \(N, K, D\); got shape \(1,\)"),
        (
            lambda: write_pgvector(connection, "kept", [1], [[[1.0]]]),
            r"must have shape \(V, D\); got shape \(1, 1, 1\)",
        ),
        (lambda: search_pgvector(connection, "kept", [[0.0, 0.0]], 1), r"length zero"),
        (lambda: search_pgvector(connection, "kept", [[1.0, 0.0]], 1, exclude=([0, 1], ["a"])), r"must be integers"),
        (lambda: search_pgvector(connection, "kept", [[1.0, 0.0]], 1, among=["a"]), r"`among` must be integers"),
        (lambda: search_pgvector(connection, "kept", [[1.0, 0.0]], 1, among=[]), r"`among` must hold at least one id"),
        (
            lambda: search_pgvector(connection, "kept", [[1.0, 0.0]], 1, among=[7]),
            r"`among` must hold an item of the ta",
        ),
        (lambda: search_pgvector(connection, "kept", [[1.0, 0.0]], 1, among=[2**63]), r"fit in PostgreSQL's bigint"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    # Broken off in the middle of the rows, and a value that PostgreSQL does not take.
    import pgvector

    monkeypatch.setattr(pgvector.Vector, "to_binary", lambda _: b"\0")
    with pytest.raises(Exception, match=r"insufficient data|COPY new_"):
        write_pgvector(connection, "kept", [5], [[1.0]])
    assert search_pgvector(connection, "kept", [[1.0, 0.1]], 2)[0].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "about",
    ["{", "[]", "{}", '{"metric": "l2", "dimension": 1}', '{"metric": "cosine", "dimension": "1"}', "[" * 10**5],
)
def test_postgresql_refuses_a_table_whose_comment_was_changed(connection, about):
    write_pgvector(connection, "changed", [1], [[1.0]])
    connection.execute(f"COMMENT ON TABLE changed IS 'deepmatch_ext vectors {about}'")
    with pytest.raises(ValueError, match=r"the comment on table 'changed' must "):
        search_pgvector(connection, "changed", [[1.0]], 1)
    connection.execute("DROP TABLE changed")


def test_postgresql_refuses_a_table_whose_ids_were_changed(connection):
    write_pgvector(connection, "changed", [1], [[1.0]])
    connection.execute("ALTER TABLE changed ALTER id TYPE double precision")
    with pytest.raises(
        ValueError, match=r"column 'id' of table 'changed' must be bigint or text; got double precision"
    ):
        search_pgvector(connection, "changed", [[1.0]], 1)
    connection.execute("ALTER TABLE changed DROP id")
    with pytest.raises(ValueError, match=r"column 'id' of table 'changed' must be bigint or text; got none"):
        search_pgvector(connection, "changed", [[1.0]], 1)
    connection.execute("DROP TABLE changed")


@pytest.mark.slow
@pytest.mark.once
def test_the_code_of_the_docs_runs(tmp_path, monkeypatch, request):
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    pytest.importorskip("pyarrow", reason="write_vectors needs pyarrow")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL):
        if "CONNECTION" in block:
            continue  # in the next test
        exec(compile(block, DOCS.name, "exec"), names)
    assert names["same"].ids[0] == "sku-0"
    assert names["items"].metric == "cosine"
    assert not {"sku-1", "sku-2"} & set(names["ids"][0].tolist())
    assert names["ids"].shape == (2, 10)
    assert set(names["available"].ravel().tolist()) <= set(names["in_stock"].tolist())
    assert sorted(names["own"][0].tolist()) == ["sku-1", "sku-2", "sku-3"]


@pytest.mark.slow
@pytest.mark.once
def test_the_code_of_the_docs_on_postgresql_runs(connection):
    [block] = [
        block
        for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
        if "CONNECTION" in block
    ]
    connection.commit()
    info = connection.info
    names = {
        "CONNECTION": f"host={info.host} user={info.user} dbname={info.dbname}",
        "item_ids": np.array([f"sku-{k}" for k in range(100)]),
        "item_vectors": vectors_of(100),
        "user_vectors": vectors_of(3, seed=1),
        "seen": ([0, 2, 2], ["sku-1", "sku-2"]),
    }
    exec(compile(block, DOCS.name, "exec"), names)
    assert names["ids"].shape == (2, 10)

    # The page's own SQL, with all numbers of the vector that it begins.
    [query] = re.findall(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    user = names["user_vectors"][2]
    assert "'[0.1, ...]'" in query
    found = connection.execute(query.replace("[0.1, ...]", str(user.tolist()))).fetchall()
    ids, _ = search_pgvector(connection, "items", user[np.newaxis], 10, exclude=([0, 2], ["sku-1", "sku-2"]))
    assert [row[0] for row in found] == ids[0].tolist()
