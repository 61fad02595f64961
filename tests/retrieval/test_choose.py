"""`choose_index` takes the fastest index that finds enough, and says what it measured."""

import numpy as np
import pytest

from deepmatch_ext.retrieval import ExactIndex, FaissIndex, choose, choose_index, recall

pytestmark = pytest.mark.plain


@pytest.fixture(scope="module")
def catalogue():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 16))
    vectors = centres[rng.integers(0, 60, 5000)] + 0.5 * rng.normal(size=(5000, 16))
    return [f"sku-{k}" for k in range(5000)], vectors, centres[rng.integers(0, 60, 100)] + rng.normal(size=(100, 16))


def slowed(monkeypatch, seconds):
    """`_milliseconds` by a table, since a test must not depend on a clock."""

    def milliseconds(indexes, users, n, at_once):
        return [seconds[getattr(index, "factory", type(index).__name__)] for index in indexes]

    monkeypatch.setattr(choose, "_milliseconds", milliseconds)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(("graph", "lists", "chosen"), [(1, 2, "HNSW16"), (2, 1, "IVF16,Flat"), (9, 9, "ExactIndex")])
def test_the_fastest_of_those_that_find_enough(catalogue, monkeypatch, graph, lists, chosen):
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    slowed(monkeypatch, {"ExactIndex": 5, "HNSW16": graph, "IVF16,Flat": lists, "IVF16,PQ4x4": 0.1})
    ids, vectors, users = catalogue
    factories = ["HNSW16", "IVF16,PQ4x4", "IVF16,Flat"]
    index, tried = choose_index(ids, vectors, users, 20, 0.9, metric="cosine", factories=factories)
    assert tried["index"][0] == chosen
    assert getattr(index, "factory", type(index).__name__) == chosen
    assert set(tried["index"]) == {"ExactIndex", *factories}
    row = tried.set_index("index")
    assert not row.loc["IVF16,PQ4x4", "enough"]  # its codes are too coarse, however many it reads
    assert row.loc["IVF16,PQ4x4", "effort"] == 16
    assert tried["index"].iloc[-1] == "IVF16,PQ4x4"
    exact = ExactIndex(ids, vectors, metric="cosine")
    for name in ("HNSW16", "IVF16,Flat"):
        found, effort = row.loc[name, "recall"], int(row.loc[name, "effort"])
        assert found >= 0.9
        assert effort < 200
        less = FaissIndex(ids, vectors, name, metric="cosine", effort=max(int(effort / 1.5), 1))
        least = 20 if name == "HNSW16" else 1  # a graph looks at as many as it returns
        assert effort <= least or recall(less, exact, users, 20) < found
    if chosen != "ExactIndex":
        assert index.effort == row.loc[chosen, "effort"]
        assert recall(index, exact, users, 20) == pytest.approx(row.loc[chosen, "recall"], abs=1e-4)


def test_the_one_that_is_taken_stands_first(catalogue, monkeypatch):
    """Of two that are nearly equal, each may be the faster one in the other's turn."""
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    times = iter([[9.0], [9.0, 1.0], [0.5, 0.6]])
    monkeypatch.setattr(choose, "_milliseconds", lambda *_: next(times))
    ids, vectors, users = catalogue
    index, tried = choose_index(ids[:200], vectors[:200], users, 5, 0.0, factories=["HNSW8", "IVF2,Flat"])
    assert index.factory == "HNSW8"
    assert tried["index"].tolist() == ["HNSW8", "IVF2,Flat", "ExactIndex"]
    assert tried["ms"].tolist() == [1.0, 0.6, 9.0]


def test_few_items_are_all_scored(catalogue):
    ids, vectors, users = catalogue
    index, tried = choose_index(ids[:4000], vectors[:4000], users, 10)
    assert isinstance(index, ExactIndex)
    assert tried["index"].tolist() == ["ExactIndex"]
    assert tried["ms"][0] > 0


def test_what_is_installed_is_tried(catalogue, monkeypatch):
    found = {"scann": True, "faiss": None}
    monkeypatch.setattr(choose, "find_spec", found.get)
    assert choose._usual(100_000, 64) == ["ScaNN"]
    found |= {"scann": None, "faiss": True}
    assert choose._usual(1_000_000, 64) == ["IVF2048,PQ64x4fs,Refine(SQfp16)", "HNSW32_SQfp16"]
    assert choose._usual(1_000_000, 63) == ["HNSW32_SQfp16"]
    assert choose._usual(4095, 64) == []


@pytest.mark.slow
@pytest.mark.once
def test_all_that_are_installed_are_timed(catalogue):
    ids, vectors, users = catalogue
    index, tried = choose_index(ids, vectors, users.reshape(50, 2, 16), 10, 0.8, at_once=3)
    assert len(tried) >= 1 + len(choose._usual(5000, 16))
    assert (tried["ms"] > 0).all()
    assert tried["enough"][0]
    found, _ = index.search(users[:1], 10)
    assert set(found[0]) <= set(ids)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"least_recall": 1.5}, "`least_recall` must be at least 0 and less than 1; got 1.5"),
        ({"at_once": 0}, "`at_once` must be an integer of at least 1; got 0"),
        ({"users": np.ones((0, 16))}, "`users` must hold at least one user; got none"),
        ({"users": np.ones((3, 4))}, "`vectors` must have the index's dimension, 16"),
        ({"factories": "ScaNN"}, "`factories` must be a list of names; got 'ScaNN'"),
        ({"n": 6000}, "`n` must be at most 5000, the number of items"),
    ],
)
def test_what_can_not_be_used_is_refused(catalogue, arguments, message):
    ids, vectors, users = catalogue
    with pytest.raises(ValueError, match=message):
        choose_index(**{"ids": ids, "vectors": vectors, "users": users, "n": 10, **arguments})
