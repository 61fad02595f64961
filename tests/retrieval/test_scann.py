"""`ScannIndex`: what is its own. What all indexes share is tested in `test_index.py`."""

import sys

import numpy as np
import pytest

from deepmatch_ext.retrieval import ExactIndex, ScannIndex, VectorIndex, choose_index, recall
from tests.helpers import true_scores

pytestmark = pytest.mark.plain

V, D = 6000, 15  # the last dimension is a block of its own


def test_without_the_library_the_extra_is_named(monkeypatch):
    for name in {"scann", *(each for each in sys.modules if each.startswith("scann."))}:  # as if never imported
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'ScannIndex needs scann: pip install "scann", or from a clone .*\[scann\]"'):
        ScannIndex([1, 2], np.eye(2))


@pytest.fixture(scope="module")
def catalogue():
    """Vectors around some centres, under ids that are not their rows, and users near them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, D))
    vectors = centres[rng.integers(0, 60, V)] + 0.5 * rng.normal(size=(V, D))
    users = centres[rng.integers(0, 60, 80)] + 0.5 * rng.normal(size=(80, D))
    return np.arange(V) * 3 + 10, vectors.astype(np.float32), users.astype(np.float32)


@pytest.fixture(scope="module")
def built(catalogue):
    try:
        return ScannIndex(*catalogue[:2], metric="cosine"), ExactIndex(*catalogue[:2], metric="cosine")
    except ImportError:
        pytest.skip("ScannIndex needs scann")


@pytest.fixture
def index(built):
    index, _ = built
    yield index
    index.effort, index.rescored = None, 4


def test_more_effort_finds_more_and_all_lists_nearly_everything(index, built, catalogue):
    _, exact = built
    _, _, users = catalogue
    assert (index.leaves, index.effort, index.is_exact) == (155, 15, False)
    for parts in ([users], users[:40, np.newaxis]):  # all at once, and each of some alone
        found = []
        for index.effort in (1, 8, 155):
            found.append(np.mean([recall(index, exact, part, 20) for part in parts]))
        assert found == sorted(found)
        assert found[0] < 0.95
        assert found[2] > 0.99
    index.effort = 1000
    assert index.effort == 155


def test_what_codes_hardly_tell_apart_is_found_if_more_is_scored_again(built):
    """Vectors in all directions alike: of these, all lists are not enough."""
    rng = np.random.default_rng(1)
    vectors, users = rng.normal(size=(5000, 32)), rng.normal(size=(100, 32))
    index, exact = ScannIndex(range(5000), vectors, effort=1000), ExactIndex(range(5000), vectors)
    for parts in ([users], users[:40, np.newaxis]):
        found = []
        for index.rescored in (2, 4, 20):
            found.append(np.mean([recall(index, exact, part, 20) for part in parts]))
        assert found == sorted(found)
        assert found[0] < 0.97
        assert found[1] < 0.999 <= found[2]  # ScaNN's codes, learnt by threads, are not the same every time
    _, tried = choose_index(range(5000), vectors, users, 20, 0.999, factories=["ScaNN"])
    (row,) = tried[tried["index"] == "ScaNN"].itertuples()
    assert row.enough
    assert row.rescored > 4
    index.effort, index.rescored = row.effort, row.rescored
    assert recall(index, exact, users, 20) == pytest.approx(row.recall, abs=0.01)  # lists differ a little


def test_scores_are_those_of_the_vectors(index, catalogue):
    ids, vectors, users = catalogue
    scores = true_scores(*(each / np.linalg.norm(each, axis=1, keepdims=True) for each in (users, vectors)))
    for number in (1, 5, 80):  # one alone, a few, and many at once
        found, found_scores = index.search(users[:number], 30)
        rows = np.searchsorted(ids, found)
        np.testing.assert_allclose(found_scores, np.take_along_axis(scores[:number], rows, axis=1), atol=1e-5)
        assert (np.diff(found_scores) <= 0).all()
        assert all(len(set(row)) == 30 for row in found.tolist())


@pytest.mark.parametrize("number", [1, 40])
def test_excluded_items_are_not_found_and_others_are_in_their_place(index, built, catalogue, number):
    _, exact = built
    users = catalogue[2][:number]
    best, _ = exact.search(users, 60)
    seen = np.concatenate([np.repeat(row[: k % 60], 2) for k, row in enumerate(best, 17)])  # each of them twice
    indptr = np.cumsum([0, *(2 * (k % 60) for k in range(17, 17 + number))])
    index.effort = index.leaves
    assert recall(index, exact, users, 20, exclude=(indptr, seen)) > 0.98
    found, _ = index.search(users, 20, exclude=(indptr, seen))
    for k, row in enumerate(found):
        assert not set(row) & set(seen[indptr[k] : indptr[k + 1]])


def test_where_the_lists_have_too_few_all_items_are_scored(index, built, catalogue):
    _, exact = built
    ids, _, users = catalogue
    index.effort = 1
    for number in (1, 3):
        found, scores = index.search(users[:number], 2000)
        expected, expected_scores = exact.search(users[:number], 2000)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
        assert (found == expected).mean() > 0.99  # but for equal scores
    seen = np.tile(ids[7:], 2)  # all but seven, each of them twice
    found, scores = index.search(users[:1], 10, exclude=([0, len(seen)], seen))
    assert set(found[0, :7].tolist()) == set(ids[:7].tolist())
    assert found[0, 7:].tolist() == [index.no_item] * 3
    assert np.isneginf(scores[0, 7:]).all()


def test_allowed_items_are_all_scored(index, built, catalogue):
    _, exact = built
    ids, _, users = catalogue
    index.effort = 1
    for among in (ids[::2], ids[:40], (np.arange(0, 6), ids[:5])):
        found, expected = (each.search(users[:5], 7, among=among) for each in (index, exact))
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_an_item_is_found_once_by_the_best_of_several_vectors(index, built, catalogue):
    _, exact = built
    users = catalogue[2].reshape(40, 2, D)
    index.effort = index.leaves
    found, scores = index.search(users, 20)
    expected, expected_scores = exact.search(users, 20)
    assert all(len(set(row)) == 20 for row in found.tolist())
    assert (found == expected).mean() > 0.95
    np.testing.assert_allclose(scores, expected_scores, atol=0.02)


def test_what_changes_and_what_is_saved_is_found(catalogue, built, tmp_path):
    ids, vectors, users = catalogue
    index = ScannIndex(ids[:-500], vectors[:-500], 40, effort=40, rescored=7)
    index.add(ids[-500:], vectors[-500:])
    index.remove(ids[:300])
    vectors = vectors.copy()
    vectors[1000:1100] = vectors[:100]
    index.replace(ids[1000:1100], vectors[:100])
    exact = ExactIndex(ids[300:], vectors[300:])
    assert index.leaves == 40
    assert recall(index, exact, users, 20) > 0.98
    for number in range(2):
        index.save(tmp_path / "index")
        loaded = VectorIndex.load(tmp_path / "index")
        assert (type(loaded), loaded.leaves, loaded.effort, loaded.is_exact) == (ScannIndex, 40, 40 - number, False)
        assert loaded.rescored == 7 - number
        for found, expected in zip(loaded.search(users, 30), index.search(users, 30), strict=True):
            np.testing.assert_array_equal(found, expected)
        index.effort, index.rescored = 39, 6
    loaded.add([1], users[:1] * 100)
    assert loaded.search(users[:1], 1)[0].tolist() == [[1]]
    with pytest.raises(ValueError, match="be an index of kind 'exact'; got 'scann'"):
        ExactIndex.load(tmp_path / "index")
    (archive,) = (tmp_path / "index").glob("scann*.zip")
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="damaged"):
        VectorIndex.load(tmp_path / "index")


def test_few_items_are_all_scored(built, tmp_path):
    index = ScannIndex(["a", "b", "c"], np.eye(3))
    assert index.is_exact
    assert index.search([[1.0, 3.0, 2.0]], 3)[0].tolist() == [["b", "c", "a"]]
    index.save(tmp_path / "index")
    assert VectorIndex.load(tmp_path / "index").search([[1.0, 3.0, 2.0]], 1)[0].tolist() == [["b"]]
    with pytest.raises(ValueError, match=r"`leaves` must be at most 3, the number of items; got 4"):
        ScannIndex([1, 2, 3], np.eye(3), 4)
    for arguments in ({"leaves": 0}, {"effort": 0}, {"rescored": 0}):
        with pytest.raises(ValueError, match="must be an integer of at least 1; got 0"):
            ScannIndex([1, 2, 3], np.eye(3), **arguments)


def test_it_is_imported_beside_any_tensorflow(built):
    """ScaNN's operations are made for one version of TensorFlow; they are not loaded, and not said to be absent."""
    assert sys.modules.get("scann.scann_ops.py.scann_ops", "nothing") == "nothing"
