"""What the workers of benchmarks/quality.py share: figures, ranks of vectors, and when a training stops."""

import importlib
import itertools
import pathlib
import sys

import numpy as np
import pytest

from deepmatch_ext import evaluation

BENCHMARKS = str(pathlib.Path(__file__).parent.parent / "benchmarks")


@pytest.fixture(scope="module")
def quality():
    sys.path.insert(0, BENCHMARKS)
    yield importlib.import_module("quality")
    sys.path.remove(BENCHMARKS)


def test_figures_are_those_of_the_definitions(quality):
    found = quality.figures(np.array([0, 1, 9, 10, 19, 20, 49, 50]))
    assert found["HR@10"] == 3 / 8
    assert found["Recall@50"] == 7 / 8
    assert found["P@20"] == 5 / 8
    assert found["NDCG@10"] == pytest.approx((1 + 1 / np.log2(3) + 1 / np.log2(11)) / 8, abs=1e-6)
    assert found["MRR@20"] == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11 + 1 / 20) / 8, abs=1e-6)


@pytest.mark.parametrize("shape", [(9, 4), (9, 2, 4)])
def test_a_peers_worker_ranks_as_the_library_does(quality, shape):
    rng = np.random.default_rng(0)
    users, items = rng.integers(-2, 3, shape).astype("float32"), rng.integers(-2, 3, (13, 4)).astype("float32")
    indptr = np.append(0, np.cumsum(np.arange(9) % 4))
    seen = indptr, rng.integers(1, 13, indptr[-1])
    targets = np.array([next(i for i in range(1, 13) if i not in seen[1][a:b]) for a, b in itertools.pairwise(indptr)])
    held_out = {"item_id": targets, "seen_indptr": indptr, "seen_items": seen[1]}
    expected = evaluation.target_ranks(evaluation.inner_products(users, items), targets, seen=seen)
    np.testing.assert_array_equal(quality.ranks(users, items, held_out, block=4), expected)


def test_training_stops_before_an_epoch_that_would_end_too_late(quality):
    progress = quality.Progress(epochs=100, seconds=10)
    assert progress.add(4, lambda: np.array([3]))
    assert not progress.done
    assert not progress.add(8, lambda: np.array([5]))
    assert progress.done
    assert [epoch["HR@10"] for epoch in progress.curve] == [1, 1]
    assert progress.best_epoch == 1


def test_within_a_budget_epochs_are_ranked_some_ten_times(quality):
    progress, ranked = quality.Progress(epochs=10**4, seconds=100), []
    for epoch in range(1, 1000):
        progress.add(epoch / 8, lambda: ranked.append(0) or np.array([20]))
        if progress.done:
            break
    assert epoch == 800
    assert 9 <= len(ranked) <= 11
    assert "NDCG@10" in progress.curve[-1]
    assert "NDCG@10" not in progress.curve[0]


def test_what_ends_after_the_budget_does_not_count(quality):
    progress = quality.Progress(epochs=100, seconds=10)
    progress.add(4, lambda: np.array([3]))
    assert not progress.add(11, lambda: np.array([0]))
    assert progress.done
    assert len(progress.curve) == 1
    with pytest.raises(SystemExit, match="no epoch ended within 10 s; one that did not took 11 s"):
        quality.Progress(epochs=100, seconds=10).add(11, lambda: np.array([0]))


def test_settings_of_every_recommender_have_words(quality):
    report, settings = importlib.import_module("quality_report"), importlib.import_module("quality_settings")
    for _, _, candidates in (settings.RECOMMENDERS | settings.BUDGETED).values():
        for each in itertools.chain(*candidates.values()):
            assert report.described(each)
    assert "user_dnn_hidden_units none" in report.described(settings.BUDGETED["SequenceDNN"][2]["amazon-toys"][0])
