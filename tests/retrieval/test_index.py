"""Every index against a slow full sort in float64: one suite that all kinds must pass, and what is special in each."""

from __future__ import annotations

import importlib.util
import sys

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given

from deepmatch_ext.retrieval import ExactIndex, FaissIndex, VectorIndex, best_rows, recall
from deepmatch_ext.retrieval import faiss_index as faiss_index_module
from tests.helpers import eager_functions, true_scores

pytestmark = pytest.mark.plain

INF = float("inf")


def exact(ids, vectors, metric="inner_product"):
    return ExactIndex(ids, vectors, metric=metric)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """FAISS's threads wait for each other, which takes seconds on a busy machine."""
    faiss = sys.modules.get("faiss") or (importlib.util.find_spec("faiss") and importlib.import_module("faiss"))
    if not faiss:
        yield
        return
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def faiss_index(factory, effort=None):
    def build(ids, vectors, metric="inner_product"):
        pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
        return FaissIndex(ids, vectors, factory, metric=metric, effort=effort)

    return build


# With that much effort in so small catalogues, HNSW and IVF look at everything: so all must be right to the item.
KINDS = {
    "exact": exact,
    "Flat": faiss_index("Flat"),
    "HNSW": faiss_index("HNSW16", 1000),
    "IVF": faiss_index("IVF1,Flat", 1),
    "refined": faiss_index("HNSW16_SQ8,RFlat", 1000),
}


@pytest.fixture(params=KINDS)
def build(request):
    return KINDS[request.param]


def csr(lists):
    flat = [item for items in lists for item in items]
    return np.cumsum([0, *(len(items) for items in lists)]), flat


def without(ids, excluded, allowed):
    """For each user, what is excluded and what is not allowed."""
    return [[*out, *(item for item in ids if item not in only)] for out, only in zip(excluded, allowed, strict=True)]


def metric_scores(users, items, metric="inner_product"):
    """`true_scores` by a metric."""
    users, items = np.asarray(users, np.float64), np.asarray(items, np.float64)
    if metric == "cosine":
        users = users / np.sqrt((users**2).sum(-1, keepdims=True))
        items = items / np.sqrt((items**2).sum(-1, keepdims=True))
    return true_scores(users, items)


def nothing(ids, dtype):
    """What has to stand where no item is left: no item's id, and the type's own."""
    if dtype.kind == "O":
        return ""
    round_trip = 0 if dtype.kind == "i" else 2 ** (8 * dtype.itemsize)  # what -1 is below
    return next(k for k in [0, *(round_trip - 1 - k for k in range(len(ids)))] if k not in ids)


def assert_best(found, ids, scores, n, excluded, in_order=False):
    """Whether what was found is right, given all (N, V) scores. Without `in_order`, any of equal scores will do."""
    found_ids, found_scores = found
    assert found_ids.shape == found_scores.shape == (len(scores), n)
    assert found_scores.dtype == np.float32
    for row, left_out in enumerate(excluded):
        allowed = [k for k, item in enumerate(ids) if item not in left_out]
        ranked = sorted(allowed, key=lambda k: (-scores[row, k], k))[:n]
        filled = len(ranked)
        assert found_scores[row, :filled] == pytest.approx(scores[row, ranked], abs=1e-5)
        assert found_scores[row, filled:].tolist() == [-INF] * (n - filled)
        got = found_ids[row].tolist()
        assert got[filled:] == [nothing(ids, found_ids.dtype)] * (n - filled)
        assert len(set(got[:filled])) == filled
        assert not set(got[:filled]) & set(left_out)
        positions = {item: k for k, item in enumerate(ids)}
        assert found_scores[row, :filled] == pytest.approx([scores[row, positions[i]] for i in got[:filled]], abs=1e-5)
        if in_order:
            assert got[:filled] == [ids[k] for k in ranked]


ID_LISTS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=12, unique=True),
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12, unique=True).map(lambda x: np.array(x, np.uint64)),
    st.lists(st.integers(0, 255), min_size=1, max_size=12, unique=True).map(lambda x: np.array(x, np.uint8)),
    st.lists(st.integers(-3, 3), min_size=1, unique=True),  # 0 is an item's id often, and -1, ...
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), min_size=1, max_size=12, unique=True),
    st.lists(st.text("abcd", min_size=1), min_size=1, max_size=12, unique=True).map(np.array),  # of type U
)


@st.composite
def cases(draw):
    ids = draw(ID_LISTS)
    plain = np.asarray(ids, None if isinstance(ids, np.ndarray) else object).tolist()
    width, rows = draw(st.integers(1, 3)), draw(st.integers(0, 5))
    # Small whole numbers: inner products are exact, and ties are frequent.
    numbers = st.integers(-2, 2)
    shape = (rows, width) if draw(st.booleans()) else (rows, draw(st.integers(1, 3)), width)
    users = draw(hnp.arrays(np.float64, shape, elements=numbers))
    items = draw(hnp.arrays(np.float64, (len(plain), width), elements=numbers))
    seen = st.lists(st.sampled_from(plain), max_size=2 * len(plain))  # repeats, too
    excluded = draw(st.none() | st.lists(seen, min_size=rows, max_size=rows))
    for_all, of_each = st.lists(st.sampled_from(plain), min_size=1), st.lists(seen, min_size=rows, max_size=rows)
    among = draw(st.none() | for_all.map(lambda allowed: (allowed,)) | of_each)
    return ids, plain, users, items, draw(st.integers(1, len(plain))), excluded, among


@pytest.mark.parametrize("kind", KINDS)
@given(case=cases())
def test_equals_a_full_sort(kind, case):
    ids, plain, users, items, n, excluded, among = case
    index = KINDS[kind](ids, items)

    def pairs(lists):  # NumPy's own strings would lose a NUL at the end
        return csr(lists)[0], np.array(csr(lists)[1], index.ids.dtype)

    left_out = [[]] * len(users) if excluded is None else excluded
    exclude = None if excluded is None else pairs(excluded)
    if isinstance(among, tuple):
        left_out, among = without(plain, left_out, among * len(users)), np.array(among[0], index.ids.dtype)
    elif among is not None:
        left_out, among = without(plain, left_out, among), pairs(among)
    with eager_functions():  # each shape would be traced; the tests below search in graphs
        found = index.search(users, n, exclude=exclude, among=among)
    assert_best(found, plain, metric_scores(users, items), n, left_out, in_order=kind == "exact")
    assert found[0].dtype == index.ids.dtype == (object if isinstance(plain[0], str) else np.asarray(ids).dtype)
    assert index.ids.tolist() == plain
    assert len(index) == len(plain)


@pytest.mark.parametrize("metric", ["inner_product", "cosine"])
@pytest.mark.parametrize("shape", [(15, 9), (7, 3, 9)])
def test_a_wide_catalogue(build, metric, shape):
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(700, 9)), rng.normal(size=shape)
    ids = rng.permutation(10_000)[:700]
    excluded = [rng.choice(ids, size).tolist() for size in rng.integers(0, 300, len(users))]
    index = build(ids, items, metric=metric)
    assert_best(index.search(users, 30), ids.tolist(), metric_scores(users, items, metric), 30, [[]] * len(users))
    found = index.search(users, 30, exclude=csr(excluded))
    assert_best(found, ids.tolist(), metric_scores(users, items, metric), 30, excluded)
    for size in (20, 600):
        allowed = rng.choice(ids, size, replace=False)
        left_out = without(ids.tolist(), excluded, [set(allowed.tolist())] * len(users))
        found = index.search(users, 30, exclude=csr(excluded), among=allowed)
        assert_best(found, ids.tolist(), metric_scores(users, items, metric), 30, left_out)


def test_items_are_added_and_replaced(build):
    rng = np.random.default_rng(1)
    items, users = rng.normal(size=(60, 4)), rng.normal(size=(8, 4))
    ids = [f"item {k}" for k in range(60)]
    index = build(ids[:40], items[:40])
    index.add(ids[40:55], items[40:55])
    index.add(ids[55:], items[55:])
    for _ in range(2):  # replaced vectors are replaced again
        changed = rng.choice(60, 20, replace=False)
        items[changed] = rng.normal(size=(20, 4))
        index.replace([ids[k] for k in changed], items[changed])
    assert len(index) == 60
    excluded = [rng.choice(ids, 20).tolist() for _ in users]
    scores = metric_scores(users, items)
    assert_best(index.search(users, 60), ids, scores, 60, [[]] * 8)
    assert_best(index.search(users, 25, exclude=csr(excluded)), ids, scores, 25, excluded)


@st.composite
def histories(draw):
    """An index's items as they come and go: steps (what, ids, vectors), with the vectors left after each."""
    vectors = st.lists(st.integers(-2, 2), min_size=2, max_size=2)
    held = {k: draw(vectors) for k in range(draw(st.integers(1, 6)))}
    steps = [("build", list(held), list(held.values()), dict(held))]
    for _ in range(draw(st.integers(1, 5))):
        what = draw(st.sampled_from(["add", "replace", "remove"]))
        pool = [k for k in range(12) if k not in held] if what == "add" else list(held)
        most = len(held) - 1 if what == "remove" else 3
        if not pool or not most:
            continue
        ids = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=most, unique=True))
        given = [draw(vectors) for _ in ids]
        if what == "remove":
            held = {k: vector for k, vector in held.items() if k not in ids}
        else:
            held = {**held, **dict(zip(ids, given, strict=True))}
        steps.append((what, ids, given, held))
    return steps


@pytest.mark.parametrize("kind", KINDS)
@given(steps=histories())
def test_items_come_and_go(kind, steps):
    _, ids, vectors, _ = steps[0]
    index = KINDS[kind](ids, vectors)
    users = np.array([[1, 0], [-2, 1]])
    for what, ids, vectors, held in steps:
        if what == "remove":
            index.remove(ids)
        elif what != "build":
            getattr(index, what)(ids, vectors)
        items = list(held)
        assert index.ids.tolist() == items
        scores = metric_scores(users, list(held.values()))
        assert_best(index.search(users, len(items)), items, scores, len(items), [[]] * 2, in_order=kind == "exact")
        left_out = without(items, [[items[0]], []], [items[::2]] * 2)
        found = index.search(users, len(items), exclude=([0, 1, 1], items[:1]), among=[*items[::2], 99])
        assert_best(found, items, scores, len(items), left_out, in_order=kind == "exact")


def test_removed_items_stay_away_until_they_are_added(build, tmp_path):
    rng = np.random.default_rng(4)
    items, users, ids = rng.normal(size=(60, 4)), rng.normal(size=(8, 4)), [f"item {k}" for k in range(60)]
    index = build(ids, items)
    index.replace(ids[::7], -items[::7])
    index.remove({*ids[:50]})  # a set, and more than are left
    index.remove([])
    index.save(tmp_path / "index")
    for each in (index, VectorIndex.load(tmp_path / "index")):
        assert each.ids.tolist() == ids[50:]
        with pytest.raises(ValueError, match=r"`n` must be at most 10"):
            each.search(users, 11)
        with pytest.raises(ValueError, match=r"`ids` must be in the index; got 'item 3', which it does not have. add"):
            each.replace(ids[3:4], items[3:4])
        held = np.where(np.arange(60)[:, None] % 7, items, -items)
        assert_best(each.search(users, 10), ids[50:], metric_scores(users, held[50:]), 10, [[]] * 8)
        each.add(ids[3:5], items[3:5])
        assert each.ids.tolist() == [*ids[50:], *ids[3:5]]
        scores = metric_scores(users, [*held[50:], *items[3:5]])
        assert_best(each.search(users, 12), [*ids[50:], *ids[3:5]], scores, 12, [[]] * 8)


def test_what_stands_where_no_item_is_left_follows_the_items(build):
    index = build([0, 5], np.eye(2))
    assert index.no_item == -1
    index.remove([0])
    assert index.no_item == 0
    assert index.search([[1.0, 2.0]], 1, exclude=([0, 1], [5]))[0].tolist() == [[0]]


def test_a_user_who_has_seen_everything_gets_nothing(build):
    index = build([0, 7, 9], np.eye(3))
    ids, scores = index.search(np.ones((2, 3)), 2, exclude=([0, 4, 5], [9, 7, 0, 9, 9]))
    assert ids[0].tolist() == [-1, -1]  # 0 is an item
    assert scores.tolist() == [[-INF, -INF], [1.0, 1.0]]
    assert set(ids[1].tolist()) == {0, 7}


@pytest.mark.parametrize(
    ("ids", "empty"),
    [
        ([1, 2], 0),
        ([0, 1], -1),
        ([-1, 0, -3], -2),
        ([-1, 5], 0),
        (np.array([0, 1], np.uint16), 65535),
        (np.array([0, 65535], np.uint16), 65534),
        (np.array([0, 2**64 - 1], np.uint64), 2**64 - 2),
        (np.array([0, 3], ">i4"), -1),
        (["a", "0"], ""),
    ],
)
def test_what_stands_where_no_item_is_left_is_no_item_s_id(build, ids, empty):
    index = build(ids, np.ones((len(ids), 2)))
    found, scores = index.search([[1.0, 1.0]], 2, exclude=([0, len(ids)], ids))
    assert index.no_item == empty
    assert found.tolist() == [[empty, empty]]
    assert scores.tolist() == [[-INF, -INF]]


def test_an_added_item_is_not_mistaken_for_no_item(build, tmp_path):
    index = build([7, 8], np.eye(2))
    assert index.no_item == 0
    index.add([0, -1], np.eye(2))
    assert index.no_item == -2
    assert index.search([[1.0, 1.0]], 3, exclude=([0, 2], [0, 7]))[0][0, 2] == -2
    index.save(tmp_path / "index")
    assert VectorIndex.load(tmp_path / "index").no_item == -2


def test_ids_have_to_leave_something_for_no_item(build):
    ids = np.arange(256, dtype=np.uint8)
    message = r"`ids` must leave one of 0, -1, -2, ... .* to stand where there is no item; got .*int8 with all of these"
    for values in (ids, ids.astype(np.int8)):
        with pytest.raises(ValueError, match=message + r"\. Pass a wider integer type\."):
            build(values, np.ones((256, 1)))
    index = build(ids[:255], np.ones((255, 1)))
    assert index.no_item == 255
    with pytest.raises(ValueError, match=message):
        index.add(ids[255:], [[1.0]])
    assert len(index) == 255
    assert build(ids.astype(np.int16), np.ones((256, 1))).no_item == -1


def test_seen_items_that_the_index_has_not_are_ignored(build):
    index = build(np.array([1, 2, 3], np.int8), np.eye(3))
    ids, _ = index.search([[3.0, 2.0, 1.0]], 2, exclude=([0, 3], [1, 400, -7]))
    assert ids.tolist() == [[2, 3]]
    ids, _ = index.search([[3.0, 2.0, 1.0]], 2, exclude=([0, 2], np.array([2**63 + 5, 2], np.uint64)))
    assert ids.tolist() == [[1, 3]]


def test_only_allowed_items_are_found(build):
    index = build(np.array([4, 5, 6, 7], np.int16), [[4.0], [3.0], [2.0], [1.0]])
    users = [[1.0], [-1.0]]
    # In any order, repeated, and with ids that the index does not have, even in its type.
    for among in ([7, 5, 5, 70_000, -3], {5, 7}, (k for k in (5, 7)), np.array([5, 7, 2**63], np.uint64)):
        ids, scores = index.search(users, 3, among=among)
        assert ids.tolist() == [[5, 7, 0], [7, 5, 0]]
        assert scores.tolist() == [[3.0, 1.0, -INF], [-1.0, -3.0, -INF]]
    assert index.search(users, 1, among=[7, 5])[0].tolist() == [[5], [7]]  # two ids, and no pair
    for among in (([0, 2, 2], [7, 5]), [np.array([0, 2, 2]), np.array([7, 5])]):  # the second user may get nothing
        assert index.search(users, 2, among=among)[0].tolist() == [[5, 7], [0, 0]]
    assert index.search(users, 2, exclude=([0, 1, 1], [5]), among=[7, 5])[0].tolist() == [[7, 0], [7, 5]]
    assert index.search(users, 2, exclude=([0, 1, 1], [5]), among=([0, 2, 3], [7, 5, 6]))[0].tolist() == [
        [7, 0],
        [6, 0],
    ]
    assert index.search(users, 2, among=([0, 0, 0], []))[0].tolist() == [[0, 0], [0, 0]]
    assert index.search(np.ones((0, 1)), 2, among=[7])[0].shape == (0, 2)
    assert index.search(np.ones((0, 1)), 2, among=([0], []))[0].shape == (0, 2)


def test_two_strings_are_a_set_of_two_items(build):
    index = build(["ab", "cd", "e"], np.eye(3))
    for among in (["ab", "cd"], ("ab", "cd"), np.array(["ab", "cd"])):
        assert index.search([[1.0, 2.0, 3.0]], 3, among=among)[0].tolist() == [["cd", "ab", ""]]


def test_the_best_of_several_vectors_counts_once(build):
    index = build(["a", "b", "c"], [[4.0, 1.0], [0.0, 3.0], [1.0, 1.0]])
    # By the first vector a 4, b 0, c 1; by the second a 1, b 3, c 1.
    ids, scores = index.search([[[1.0, 0.0], [0.0, 1.0]]], 3)
    assert ids.tolist() == [["a", "b", "c"]]
    assert scores.tolist() == [[4.0, 3.0, 1.0]]


@pytest.mark.parametrize("metric", ["inner_product", "cosine"])
def test_zeros_beside_other_vectors_are_no_interest(build, metric):
    index = build(["a", "b"], [[-3.0, -4.0], [-1.0, 0.0]], metric=metric)
    ids, scores = index.search([[[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]], 2)
    assert scores[0] == pytest.approx([-1.0, -3.0] if metric == "inner_product" else [-0.6, -1.0])
    assert ids[0].tolist() == (["b", "a"] if metric == "inner_product" else ["a", "b"])
    assert (ids[0].tolist(), scores[0].tolist()) == (ids[1].tolist(), scores[1].tolist())


def test_cosine_is_the_metric_of_directions(build):
    index = build([1, 2], [[100.0, 100.0], [0.0, 1.0]], metric="cosine")
    ids, scores = index.search([[0.0, 5.0]], 2)
    assert ids.tolist() == [[2, 1]]
    assert scores[0] == pytest.approx([1.0, np.sqrt(0.5)])
    index.replace([2], [[-3.0, 0.0]])
    assert index.search([[0.0, 5.0]], 2)[1][0] == pytest.approx([np.sqrt(0.5), 0.0])


@pytest.mark.parametrize("metric", ["inner_product", "cosine"])
def test_arguments_are_copied_and_never_changed(build, metric):
    ids, vectors, users = np.arange(4), np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[:, None].repeat(2, 1)
    indptr, seen = np.array([0, 1, 1, 1, 1]), np.array([3])
    for array in (ids, vectors, users, indptr, seen):
        array.flags.writeable = False  # a write raises
    index = build(ids, vectors, metric=metric)
    before = index.search(users, 4, exclude=(indptr, seen))
    for array in (ids, vectors):
        array.flags.writeable = True
        array[:] = 9  # the index has its own
    after = index.search(users, 4, exclude=(indptr, seen))
    assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_no_users_give_no_rows(build):
    index = build([1, 2], np.eye(2))
    for users in (np.empty((0, 2)), np.empty((0, 3, 2))):
        ids, scores = index.search(users, 2, exclude=([0], np.array([])))
        assert ids.shape == scores.shape == (0, 2)


@pytest.mark.parametrize(
    ("ids", "vectors", "metric", "message"),
    [
        ([1, 2, 1, 2], np.ones((4, 2)), "cosine", r"`ids` must be unique; got 1, 2 repeated. Keep one vector"),
        (["a", "a"], np.ones((2, 2)), "cosine", r"`ids` must be unique; got 'a' repeated"),
        ([1, "a"], np.ones((2, 2)), "cosine", r"`ids` must be all integers or all strings; got mixed-integer"),
        (["a", None], np.ones((2, 2)), "cosine", r"`ids` must be all integers or all strings; got"),
        ([1.0, 2.0], np.ones((2, 2)), "cosine", r"`ids` must be all integers or all strings; got floating"),
        ([True, False], np.ones((2, 2)), "cosine", r"`ids` must be all integers or all strings; got boolean"),
        ([b"a", b"b"], np.ones((2, 2)), "cosine", r"`ids` must be all integers or all strings; got bytes"),
        (["a", ""], np.ones((2, 2)), "cosine", r"`ids` must hold no empty string, which stands where there is no"),
        ([1, 2**64], np.ones((2, 2)), "cosine", r"`ids` must be all integers or all strings; got integers past 64 bit"),
        ([[1], [2]], np.ones((2, 2)), "cosine", r"`ids` must be one-dimensional"),
        ([], np.ones((0, 2)), "cosine", r"`ids` must hold at least one id; got none"),
        ([1, 2], np.ones((3, 2)), "cosine", r"`vectors` must have a row for each of the 2 ids; got shape \(3, 2\)"),
        ([1, 2], np.ones(2), "cosine", r"`vectors` must have shape \(V, D\); got shape \(2,\)"),
        ([1, 2], np.ones((2, 0)), "cosine", r"`vectors` must have shape \(V, D\)"),
        ([1, 2], [[1, 1], [1, np.nan]], "cosine", r"`vectors` must be finite; got nan at row 1, column 1"),
        ([1, 2], [[1, 1], [0, 0]], "cosine", r"`vectors` must have no vector of length zero, .* got one at row 1"),
        ([1, 2], [[1, 1], [1, 1e20]], "inner_product", r"`vectors` must have no entry beyond 1e\+15; got 1e\+20"),
        ([1, 2], np.ones((2, 2)), "euclid", r"`metric` must be one of 'inner_product', 'cosine'"),
    ],
)
def test_refuses_to_be_built(build, ids, vectors, metric, message):
    with pytest.raises(ValueError, match=message):
        build(ids, vectors, metric=metric)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, r"`n` must be an integer of at least 1; got 0"),
        ({"n": 4}, r"`n` must be at most 3, the number of items; got 4"),
        ({"vectors": np.ones((2, 5))}, r"`vectors` must have the index's dimension, 2; got shape \(2, 5\)"),
        ({"vectors": np.ones(2)}, r"`vectors` must have shape \(N, D\) or \(N, K, D\); got shape \(2,\)"),
        ({"vectors": np.ones((2, 0, 2))}, r"`vectors` must have at least one vector for each user"),
        ({"vectors": [[1.0, INF], [1, 1]]}, r"`vectors` must be finite; got inf at row 0, column 1"),
        ({"vectors": np.ones((2, 3, 5))}, r"`vectors` must have the index's dimension, 2; got shape \(2, 3, 5\)"),
        ({"vectors": [[[0, 0], [0, 0]]] * 2}, r"`vectors` must have no vector of length zero, .* got one at row 0"),
        ({"vectors": [[[1, 1], [1, np.nan]]] * 2}, r"be finite; got nan at row 0, vector 1, column 1"),
        ({"vectors": [[1, 1], [0, 0]]}, r"`vectors` must have no vector of length zero, .* got one at row 1"),
        ({"exclude": [1, 2, 3]}, r"`exclude` must be a pair \(indptr, item ids\); got list"),
        ({"exclude": ([0, 1, 2], ["a", "b"])}, r"the ids of `exclude` must be integers, as .*; got strings, 'a', 'b'"),
        ({"exclude": ([0, 1], [1])}, r"the indptr of `exclude` must have shape \(3,\)"),
        ({"exclude": ([0, 2, 1], [1])}, r"the indptr of `exclude` must start at 0, never fall and end at .*, 1"),
        ({"among": []}, r"`among` must hold at least one id; got none\. Leave it out to search all items\."),
        ({"among": set()}, r"`among` must hold at least one id; got none"),
        ({"among": [8, 9]}, r"`among` must hold an item of the index; got 8, 9, which it does not have\. Leave it out"),
        ({"among": 3}, r"`among` must be ids \(m,\), a set for all users, or a pair \(indptr, ids\), .*; got 3"),
        ({"among": np.ones((3, 1), int)}, r"`among` must be ids \(m,\), .*; got ndarray of int64, shape \(3, 1\)"),
        (
            {"among": np.array([True, False, True])},
            r"`among` must hold ids; got a mask of shape \(3,\)\. `index.ids\[m",
        ),
        ({"among": [True, False]}, r"`among` must hold ids; got a mask of shape \(2,\)"),
        ({"among": [1.0, 2.0]}, r"`among` must be all integers or all strings; got floating"),
        ({"among": ["a", "b", "c"]}, r"the ids of `among` must be integers, as .*; got strings, 'a', 'b', 'c'"),
        ({"among": "abc"}, r"`among` must be ids \(m,\), .*; got 'abc'"),
        ({"among": ([0, 1], [1])}, r"the indptr of `among` must have shape \(3,\)"),
        ({"among": ([0, 1, 2], ["a", "b"])}, r"the ids of `among` must be integers, as .*; got strings, 'a', 'b'"),
    ],
)
def test_refuses_to_search(build, arguments, message):
    index = build([1, 2, 3], [[1, 1], [1, 0], [0, 1]], metric="cosine")
    with pytest.raises(ValueError, match=message):
        index.search(**{"vectors": np.ones((2, 2)), "n": 2, **arguments})


def test_users_vectors_beyond_float32s_products_are_refused(build):
    index = build([1, 2], np.eye(2))
    with pytest.raises(ValueError, match=r"`vectors` must have no entry beyond 1e\+15; got 1e\+16\. Scale them down"):
        index.search([[1.0, -1e16]], 1)
    assert index.search(np.array([[0.5, 1.0]], ">f4"), 1)[0].tolist() == [[2]]


@given(
    users=hnp.arrays(np.float32, (2, 3), elements=st.floats(-100, 100, width=32)),
    place=st.tuples(st.integers(0, 1), st.integers(0, 2)),
    wrong=st.sampled_from([np.nan, INF, -INF, 1e16, -1e16, 3e38]),
    repeats=st.sampled_from([1, 1000]),
)
def test_no_search_takes_a_number_that_is_not_finite_or_too_large(users, place, wrong, repeats):
    """Wherever it stands, among few numbers, which are checked in another way, and among many."""
    index, users = exact([1, 2], [[1, 0, 0], [0, 1, 0]]), np.repeat(users, repeats, axis=0)
    index.search(users, 1)
    users[place] = wrong
    with pytest.raises(ValueError, match=r"`vectors` must (be finite|have no entry beyond 1e\+15)"):
        index.search(users, 1)


def test_refuses_changes_and_is_as_it_was(build):
    index = build(np.array([1, 2, 3], np.int8), np.eye(3))
    for change, ids, vectors, message in [
        (index.add, [4, 2], np.eye(2, 3), r"`ids` must be new; got 2, which the index has. replace\(\) takes"),
        (index.add, [4, 4], np.eye(2, 3), r"`ids` must be unique; got 4 repeated"),
        (index.add, [4, 400], np.eye(2, 3), r"`ids` must fit in int8, the type of the index's ids; got 400"),
        (index.add, ["a"], np.eye(1, 3), r"`ids` must be integers, as the index's ids are; got strings, 'a'"),
        (index.add, [4], np.eye(1, 2), r"`vectors` must have the index's dimension, 3; got shape \(1, 2\)"),
        (index.add, [4], [[1, np.nan, 1]], r"`vectors` must be finite"),
        (
            index.replace,
            [2, 5],
            np.eye(2, 3),
            r"`ids` must be in the index; got 5, which it does not have. add\(\) takes",
        ),
        (index.replace, [400], np.eye(1, 3), r"`ids` must be in the index; got 400"),
        (index.replace, ["a"], np.eye(1, 3), r"`ids` must be integers"),
        (index.replace, [1], [[1, np.inf, 1]], r"`vectors` must be finite"),
        (index.remove, [2, 5], None, r"`ids` must be in the index; got 5, which it does not have"),
        (index.remove, [2, 2], None, r"`ids` must be unique; got 2 repeated. Name each item once"),
        (index.remove, ["2"], None, r"`ids` must be integers, as the index's ids are; got strings, '2'"),
        (index.remove, [True, False, False], None, r"`ids` must be all integers or all strings; got boolean"),
        (index.remove, 2, None, r"`ids` must be one-dimensional; got shape \(\)"),
        (index.remove, [3, 1, 2], None, r"`ids` must leave an item in the index; got all 3. Build another index"),
    ]:
        with pytest.raises(ValueError, match=message):
            change(ids) if vectors is None else change(ids, vectors)
    assert_best(index.search(np.eye(3), 3), [1, 2, 3], np.eye(3), 3, [[]] * 3)


def test_ids_can_be_whatever_a_frame_has(build):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"sku": ["x", "y"], "number": [3, 4]})
    assert build(frame["sku"], np.eye(2)).ids.tolist() == ["x", "y"]
    assert build(frame["sku"].astype("string"), np.eye(2)).ids.tolist() == ["x", "y"]
    assert build(frame["number"].astype("Int64"), np.eye(2)).ids.tolist() == [3, 4]
    assert build(frame.set_index("number").index, np.eye(2)).ids.tolist() == [3, 4]
    assert build(range(5, 7), np.eye(2)).ids.tolist() == [5, 6]


# best_rows, the function of tensors.


@st.composite
def tensors(draw):
    rows, count, width = draw(st.integers(0, 4)), draw(st.integers(0, 70)), draw(st.integers(1, 2))
    numbers = st.integers(-2, 2)
    shape = (rows, width) if draw(st.booleans()) else (rows, draw(st.integers(1, 3)), width)
    users = draw(hnp.arrays(np.float32, shape, elements=numbers))
    items = draw(hnp.arrays(np.float32, (count, width), elements=numbers))
    rows_or_not = st.integers(-3, count + 3) | st.sampled_from([2**31, 2**32, -(2**32)])
    some_rows = st.integers(0, 30).flatmap(lambda size: hnp.arrays(np.int64, (rows, size), elements=rows_or_not))
    seen, among = draw(some_rows), draw(st.none() | some_rows)
    return users, items, draw(st.integers(1, 80)), seen, among, draw(st.sampled_from([1, 64, 200, 10**6]))


def slow_best_rows(users, items, n, seen, among=None):
    rows, scores = [], []
    for row, score in enumerate(true_scores(users, items)):
        allowed = set(range(len(items))) - set(seen[row].tolist())
        if among is not None:
            allowed &= set(among[row].tolist())
        ranked = sorted(allowed, key=lambda k: (-score[k], k))[:n]
        rows.append(ranked + [-1] * (n - len(ranked)))
        scores.append([score[k] for k in ranked] + [-INF] * (n - len(ranked)))
    return rows, scores


@given(tensors())
def test_best_rows_equals_a_full_sort_at_any_block_size(case):
    users, items, n, seen, among, block_numbers = case
    rows, scores = best_rows(users, items, n, seen, among=among, block_numbers=block_numbers)
    assert (rows.numpy().tolist(), scores.numpy().tolist()) == slow_best_rows(users, items, n, seen, among)
    if among is not None and len(users):  # the first user's for all
        allowed = np.isin(np.arange(len(items)), among[0])
        rows, scores = best_rows(users, items, n, seen, among=allowed, block_numbers=block_numbers)
        expected = slow_best_rows(users, items, n, seen, among[[0] * len(users)])
        assert (rows.numpy().tolist(), scores.numpy().tolist()) == expected
    # Integers with their scales, as an export keeps them; none seen.
    scales = np.float32([1, 2, 0.5])[np.arange(len(items)) % 3]
    rows, scores = best_rows(users, items.astype(np.int8), n, scales=scales, block_numbers=block_numbers)
    unseen = np.full((len(users), 1), -1)
    assert (rows.numpy().tolist(), scores.numpy().tolist()) == slow_best_rows(users, items * scales[:, None], n, unseen)


def test_best_rows_passes_over_zeros_beside_other_vectors():
    users = np.float32([[[0, 0], [1, 0], [0, 0]], [[0, 0], [0, 0], [0, 0]]])
    rows, scores = best_rows(users, np.float32([[-3, 5], [-1, 9]]), 2)
    assert rows.numpy().tolist() == [[1, 0], [0, 1]]  # the second user has no interest: all scores are 0
    assert scores.numpy().tolist() == [[-1, -3], [0, 0]]


@pytest.mark.parametrize("interests", [(), (2,)])
def test_best_rows_works_in_a_graph_that_is_saved(tmp_path, interests):
    rng = np.random.default_rng(0)
    users, items = rng.integers(-3, 4, (3, *interests, 4)), rng.integers(-3, 4, (100, 4))
    seen = rng.integers(-1, 100, (3, 20))

    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.items = tf.Variable(items, dtype=tf.float16)

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, *interests, 4], tf.float32),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([None, None], tf.int64),
            ]
        )
        def recommend(self, users, n, seen):
            return best_rows(users, self.items, n, seen, block_numbers=100)

    tf.saved_model.save(Module(), str(tmp_path / "module"))
    loaded = tf.saved_model.load(str(tmp_path / "module"))
    for n in (5, 100, 120):  # chosen at call time
        rows, scores = loaded.recommend(tf.constant(users, tf.float32), n, tf.constant(seen))
        assert (rows.numpy().tolist(), scores.numpy().tolist()) == slow_best_rows(users, items, n, seen)


# Approximate ones.


@pytest.fixture(scope="module")
def clustered():
    """2,000 L2-normalised vectors around 40 centres."""
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(40, 16))[rng.integers(0, 40, 2000)] + 0.5 * rng.normal(size=(2000, 16))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(
    ("factory", "low", "high", "least"),
    [
        ("HNSW8", 4, 200, 0.99),
        ("HNSW8_SQfp16", 4, 200, 0.99),
        ("IVF16,Flat", 1, 16, 0.99),
        # At 4 or 8 bytes of 4 * 16 the scores are coarse, until they are refined.
        ("IVF16,PQ8x4", 1, 16, 0.3),
        ("HNSW8,PQ8", 4, 200, 0.3),
        ("IVF16,PQ8x4fs,RFlat", 1, 16, 0.95),
        ("IVF16,PQ16x4fs,Refine(SQfp16)", 1, 16, 0.99),
    ],
)
def test_more_effort_finds_more(clustered, factory, low, high, least):
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    whole = ExactIndex(range(2000), clustered)
    try:
        index = FaissIndex(range(2000), clustered, factory, effort=low)
    except ValueError as error:
        if "Newer versions of faiss-cpu can." not in str(error):
            raise
        pytest.skip(str(error))
    assert not index.is_exact
    users = clustered[:200]
    little = recall(index, whole, users, 20)
    index.effort = high
    much = recall(index, whole, users, 20)
    assert 0.05 < little < much
    assert much > least
    scores = index.search(users, 20)[1]
    coarse = "PQ" in factory and "R" not in factory
    assert scores[:, 0] == pytest.approx(np.ones(200), abs=0.3 if coarse else 1e-3)  # inner products, not distances


# Vectors that graphs and lists don't lead to: of very different lengths, or a hundred times the same.
LAYOUTS = {
    "lengths": lambda rng: rng.normal(size=(600, 8)) * rng.lognormal(0, 1.5, (600, 1)),
    "repeats": lambda rng: np.repeat(rng.normal(size=(6, 8)), 100, axis=0),
}
LITTLE_EFFORT = [
    "HNSW4",
    "HNSW4_SQ8,RFlat",
    "IVF32,Flat",
    "IVF32_HNSW4,Flat",
    "IVF32,SQ8",
    "IVF32,PQ4x4fs",
    "IVF32,PQ4x4fs,RFlat",
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("factory", LITTLE_EFFORT)
def test_as_many_are_found_as_there_are_with_however_little_effort(factory, layout, monkeypatch):
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    rng = np.random.default_rng(3)
    items, users = LAYOUTS[layout](rng), rng.normal(size=(6, 8))
    monkeypatch.setattr(faiss_index_module, "_NEIGHBOURS", 0)  # a graph is searched, however few are allowed
    index = FaissIndex(range(600), items, factory, effort=1)
    for replaced in (range(0), range(0, 600, 2)):
        if replaced:
            index.replace(replaced, items[::2])
            index.add(range(600, 900), items[:300])
            index.remove(range(600, 900))
        for n in (1, 50, 599, 600):
            # Nothing had, a few, the best 300, the best 300 twice, all but one, and all.
            best = np.argsort(-metric_scores(users, items), axis=1)
            had = [[], best[1, :5], best[2, :300], np.tile(best[3, :300], 2), best[4, 1:], best[5]]
            found_ids, scores = index.search(users, n, exclude=csr(had))
            found = np.isfinite(scores)
            assert found.sum(axis=1).tolist() == [min(n, 600 - len(set(map(int, items)))) for items in had]
            assert found_ids[~found].tolist() == [-1] * np.count_nonzero(~found)
            for allowed in (rng.choice(600, 300, replace=False), rng.choice(600, 5, replace=False)):
                own = [allowed[: 100 * k] for k in range(6)]  # one set for all, and a set for each
                for among, of_each in ((allowed, [allowed] * 6), (csr(own), own)):
                    ids, scores_among = index.search(users, n, exclude=csr(had), among=among)
                    left = [set(map(int, of)) - set(map(int, out)) for of, out in zip(of_each, had, strict=True)]
                    assert np.isfinite(scores_among).sum(axis=1).tolist() == [min(n, len(of)) for of in left]
                    for row, of in zip(ids.tolist(), left, strict=True):
                        assert len(set(row) & of) == min(n, len(of))
                        assert set(row) <= of | {-1}
            for row, items_had in enumerate(had):
                mine = found_ids[row][found[row]].tolist()
                assert len(set(mine) - set(map(int, items_had))) == len(mine)
            assert np.isfinite(index.search(users, n)[1]).all()
            assert np.isfinite(index.search(users[None], n)[1]).all()


def test_replaced_vectors_don_t_take_the_place_of_others(clustered):
    """A graph can't forget them: without more of an effort, two in three of its candidates were no items here."""
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    whole, index = ExactIndex(range(2000), clustered), FaissIndex(range(2000), clustered, "HNSW8", effort=40)
    before = recall(index, whole, clustered[:200], 20)
    for _ in range(2):
        index.replace(range(2000), clustered)
    assert recall(index, whole, clustered[:200], 20) > before - 0.03 > 0.8


def test_a_large_graph_is_laid_out_by_neighbourhood_and_answers_the_same(clustered, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    monkeypatch.setattr(faiss_index_module, "_MANY", 1800)
    order = faiss_index_module._by_neighbourhood(clustered.astype(np.float32))
    assert sorted(order.tolist()) == list(range(2000))
    # Neighbours in it are alike: within one of 40 clusters cosines are about 0.8, between any two about 0.
    beside = [np.einsum("vd,vd->v", v[1:], v[:-1]).mean() for v in (clustered, clustered[order])]
    assert abs(beside[0]) < 0.1
    assert beside[1] > 0.6
    items, users, ids = clustered.copy(), clustered[:20], [f"item {k}" for k in range(2000)]
    index = FaissIndex(ids[:1900], items[:1900], "HNSW16", effort=2000)
    assert index._row_of.tolist() != list(range(1900))
    assert_changed_and_loaded_it_answers_the_same(index, ids, items, users, tmp_path / "graph")


def test_refined_codes_change_and_reload(clustered, tmp_path):
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    items, users, ids = clustered.copy(), clustered[:20], [f"item {k}" for k in range(2000)]
    index = FaissIndex(ids[:1900], items[:1900], "IVF4,PQ16x4fs,RFlat", effort=4)
    assert_changed_and_loaded_it_answers_the_same(index, ids, items, users, tmp_path / "codes")


def assert_changed_and_loaded_it_answers_the_same(index, ids, items, users, folder):
    """With the last items added and every third replaced, in place."""
    index.add(ids[len(index) :], items[len(index) :])
    items[::3] = -items[::3]
    index.replace(ids[::3], items[::3])
    index.save(folder)
    excluded = [[ids[k], ids[k + 1]] for k in range(20)]
    for each in (index, VectorIndex.load(folder)):
        assert_best(each.search(users, 5), ids, metric_scores(users, items), 5, [[]] * 20)
        assert_best(each.search(users, 5, exclude=csr(excluded)), ids, metric_scores(users, items), 5, excluded)


def test_recall_is_the_share_that_is_found():
    whole = ExactIndex(["a", "b", "c", "d"], [[4.0], [3.0], [2.0], [1.0]])
    other = ExactIndex(["d", "c", "b", "a"], [[4.0], [2.0], [3.0], [1.0]])
    # The best two are a and b, the other's d and b; of a, b and c it has b and c. From below: d and c, and a and c.
    assert recall(other, whole, [[1.0]], 2) == 0.5
    assert recall(other, whole, [[1.0]], 3) == pytest.approx(2 / 3)
    assert recall(other, whole, [[1.0], [-1.0]], 2) == 0.5
    assert recall(whole, whole, [[1.0], [-1.0]], 4) == 1.0
    # Without a and d, both have b, c; the user without items doesn't count.
    assert recall(other, whole, [[1.0], [1.0]], 2, exclude=csr([["a", "d"], ["a", "b", "c", "d"]])) == 1.0


def test_recall_refuses_what_can_not_be_compared(clustered):
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    whole, hnsw = ExactIndex(range(100), clustered[:100]), FaissIndex(range(100), clustered[:100], "HNSW8")
    for index, other, message in [
        (whole, hnsw, r"`exact` must be an exact index; got FaissIndex\(100 items of dimension 16, inner_product\)"),
        (hnsw, ExactIndex(range(100), clustered[:100], metric="cosine"), r"`exact` must have the metric"),
        (hnsw, ExactIndex(range(99), clustered[:99]), r"`exact` must have the metric, the dimension and the items"),
        (hnsw, ExactIndex(range(1, 101), clustered[:100]), r"must have the ids of the other; got 100, which that"),
    ]:
        with pytest.raises(ValueError, match=message):
            recall(index, other, clustered[:3], 5)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nonsense", r"`factory` must be a factory string like 'Flat', .*; got 'nonsense'"),
        ("PQ8", r"`factory` must be a factory string like"),  # known to FAISS, not to us
        ("Flat,RFlat", r"`factory` must be a factory string like"),  # there is nothing to refine
        ("HNSW1", r"`factory` must be .*, with HNSW of at least 2; got 'HNSW1'"),  # FAISS would end the process
        ("IVF0,Flat", r"`factory` must be .*, with IVF of at least 1"),
        ("IVF4,PQ4x0", r"`factory` must be .*, with x of at least 1"),
        ("IVF500,Flat", r"`factory` must have at most 100 lists, the number of items; got 'IVF500,Flat'"),
        ("IVF4,PQ3", r"`factory` must be .*; got 'IVF4,PQ3'"),  # 16 is no multiple of 3
        ("IVF4,PQ8", r"`factory` must be an index for which 100 vectors are enough; got 'IVF4,PQ8'"),
    ],
)
def test_faiss_says_what_is_wrong(clustered, factory, message):
    pytest.importorskip("faiss", reason="FaissIndex needs faiss-cpu")
    with pytest.raises(ValueError, match=message):
        FaissIndex(range(100), clustered[:100], factory)


def test_without_faiss_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"FaissIndex needs faiss-cpu: pip install"):
        FaissIndex([1], [[1.0]])


def test_the_base_is_no_index():
    with pytest.raises(TypeError, match="abstract"):
        VectorIndex([1], [[1.0]])
