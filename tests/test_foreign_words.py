"""An argument of a wrong kind is refused in our words, wherever it comes in: what, the rule, what came.

A modest number of cases here; thousands with ``BAD_INPUT_CASES=2000``, which also draws others at every run.
"""

import copy
import inspect
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from deepmatch_ext import Recommender, YoutubeDNN, data, evaluation, layers, optimizers, retrieval, samplers
from deepmatch_ext.utils import NegativeSampler
from tests.helpers import small_input, small_model, user_part

CASES = int(os.environ.get("BAD_INPUT_CASES", "0"))


class Strange:
    """Nobody's business."""

    def __repr__(self):
        return "<a strange object>"


ODD = {
    "none": None,
    "true": True,
    "minus one": -1,
    "zero": 0,
    "a half": 1.5,
    "nan": float("nan"),
    "infinity": float("inf"),
    "a large integer": 2**70,
    "a small integer": np.iinfo(np.int64).min,
    "a large number": 1e300,
    "a float32": np.float32(0.5),
    "text": "strange",
    "no text": "",
    "digits": "1",
    "bytes": b"strange",
    "an empty list": [],
    "a list": [1],
    "lists": [[1, 2]],
    "a mixed list": ["strange", 1],
    "a pair": (1, 2),
    "an empty dictionary": {},
    "a dictionary": {"a": 1},
    "a set": {1, 2},
    "a range": range(3),
    "an object": Strange(),
    "a function": lambda *arguments: 1,
    "a class": int,
    "a path": Path("/nowhere/strange"),
    "three dimensions": np.zeros((2, 2, 2)),
    "complex numbers": np.array([1 + 2j]),
    "days": np.array(["2020-01-01"], "datetime64[D]"),
    "objects": np.array([1, None], object),
    "an empty array": np.array([], float),
    "a text without dimension": np.array("strange"),
    "a masked array": np.ma.masked_array([1, 2], [0, 1]),
    "a frame": pd.DataFrame({"a": [1]}),
    "a series": pd.Series([1, 2]),
    "a missing value": pd.NA,
    "a tensor": tf.constant([1, 2]),
    "a ragged tensor": tf.ragged.constant([[1], [2, 3]]),
}


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """name -> (a public function, arguments that it takes)."""
    folder = tmp_path_factory.mktemp("foreign")
    made = data.Interactions.from_sequences([0, 4, 8, 12], [1, 2, 3, 4, 2, 3, 4, 5, 5, 4, 3, 1], times=range(12))
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": list("aba"), "timestamp": [1, 2, 3], "rating": [0.5, 1, 2]})
    of_kinds = frame.assign(kind=["see", "buy", "buy"], part=["train", "train", "test"], part_id=1, session=1)
    split, kinds = data.leave_last_out(made), data.IdMap(["see", "buy"])
    ids, popularity = data.IdMap(["a", "b"]), evaluation.Popularity([0, 5, 4, 3, 2, 1])
    users, items = np.eye(3, 2) + 0.1, np.arange(12.0).reshape(6, 2)
    targets, seen = np.array([1, 2, 3]), (np.array([0, 1, 2, 2]), np.array([4, 5]))
    counts = np.array([0, 5, 4, 3, 2, 1])
    inputs, sampler = user_part(small_input(4)), samplers.UniformSampler(5)
    index = retrieval.ExactIndex(range(5), items[1:])
    index.save(folder / "index")
    csv = folder / "shop.csv"
    csv.write_text("user_id,item_id,timestamp\n1,tea,1\n1,milk,2\n")
    records = data.write_tfrecords({"a": np.arange(4), "b": np.ones(4, "float32")}, folder / "records")

    def fresh(name):
        return lambda **given: getattr(retrieval.ExactIndex(range(5), items[1:]), name)(**given)

    def score(start, stop):
        return np.arange(18.0).reshape(3, 6)[start:stop]

    of_targets = {"targets": targets, "seen": seen, "seen_targets": "miss", "ns": [1], "groups": None}
    rated = data.Interactions.from_frame(of_kinds, side=["rating"], kind="kind", targets=["see", "buy"])
    windows = {"interactions": rated, "max_len": {"see": 3}, "order": "recent_first", "side": "rating"}
    of_target = {"context": ["rating"], "weight": "rating"}
    passes = {"batch_size": 2, "seed": 0, "epochs": 1, "first_epoch": 0, "drop_remainder": False}
    table = {
        data.IdMap: {"values": ["a", "b"]},
        data.IdMap.from_values: {"values": ["a", "b"]},
        ids.encode: {"values": ["a"], "unknown": "padding"},
        ids.decode: {"ids": [1, 2]},
        data.Interactions.from_frame: {
            "frame": of_kinds,
            "user": "user_id",
            "item": "item_id",
            "time": "timestamp",
            "side": ["part_id"],
            "user_ids": None,
            "item_ids": None,
            "session": "session",
            "kind": "kind",
            "targets": ["buy"],
            "kind_ids": kinds,
        },
        data.Interactions.from_sequences: {
            "indptr": [0, 2, 4],
            "items": [1, 2, 3, 4],
            "times": None,
            "user_name": "user",
            "item_name": "item",
        },
        data.Interactions: {
            "users": np.array([1, 1]),
            "items": np.array([1, 2]),
            "times": None,
            "side": {},
            "user_ids": data.IdMap([1]),
            "item_ids": data.IdMap([1, 2]),
            "user_name": "user",
            "item_name": "item",
            "sessions": None,
            "kinds": None,
            "user_features": {},
        },
        data.Kinds: {"values": [1, 2], "ids": kinds, "targets": ["buy"], "name": "kind"},
        made.with_user_features: {"frame": pd.DataFrame({"age": [1, 2, 3]}, index=[1, 2, 3])},
        made.item_counts: {"rows": [1, 2]},
        data.Split.from_frame: {"frame": of_kinds, "part": "part", "side": ["rating"], "kind": None, "targets": None},
        data.Split.from_frames: {"frames": {"train": frame, "test": frame}, "user": "user_id", "session": None},
        data.Split: {"interactions": made, "train": [0, 1], "validation": [2], "test": [3]},
        split.train_targets: {"min_history": 1},
        data.leave_last_out: {"interactions": made, "min_interactions": 3},
        data.split_by_time: {"interactions": made, "validation_from": 4, "test_from": 9},
        data.windows: {**windows, **of_target, "rows": [1, 2]},
        data.user_histories: {**windows, "user_ids": [1]},
        data.seen_before: {"interactions": made, "rows": [1]},
        data.seen_by_users: {"interactions": made, "user_ids": [1]},
        data.read_dataset: {"path": csv, "user": "infer", "item": "infer", "time": "timestamp", "verbose": False},
        data.window_dataset: {**windows, **of_target, **passes, "rows": [0, 1, 2], "shuffle": True},
        data.write_tfrecords: {"data": {"a": np.arange(3)}, "prefix": folder / "written", "shards": 1},
        data.tfrecord_dataset: {
            "paths": records,
            "columns": {"a": tf.TensorSpec([], tf.int64), "b": tf.TensorSpec([], tf.float32)},
            "weight": "b",
            "shuffle_rows": 10,
            **passes,
        },
        data.find_leaks: {
            "parts": split,
            "interactions": None,
            "item_count": None,
            "time": None,
        },
        data.synthetic_interactions: {"num_users": 5, "num_items": 30, "mean_length": 8, "num_genres": 3, "seed": 0},
        evaluation.target_ranks: {"score": score, "targets": targets, "seen": seen, "block_size": 2},
        evaluation.ranking_metrics: {
            "ranks": np.array([0, 1, 2]),
            "ns": [1, 2],
            "groups": None,
            "seen_targets": "miss",
        },
        evaluation.evaluate: {"score": score, "block_size": 2, **of_targets},
        evaluation.evaluate_vectors: {"user_vectors": users, "item_vectors": items, "block_size": 2, **of_targets},
        evaluation.format_table: {"rows": {"a": {"HR@10": 0.1}}, "columns": ["HR@10"]},
        evaluation.Popularity: {"item_counts": counts},
        popularity.score: {"last_items": [1]},
        evaluation.Popularity.from_interactions: {"interactions": made, "rows": [0, 1]},
        evaluation.Markov.from_interactions: {"interactions": made, "rows": [0, 1]},
        evaluation.Markov.fit: {
            "previous_items": [1, 2],
            "next_items": [2, 3],
            "vocabulary_size": 6,
            "item_counts": None,
        },
        evaluation.Markov.from_interactions(made, [0, 1, 2]).score: {"last_items": [1]},
        evaluation.likeness: {"user_vectors": users, "item_vectors": items},
        evaluation.popular_share: {"lists": np.array([[1, 2], [3, 0], [5, 4]]), "item_count": counts, "seen": seen},
        evaluation.RetrievalMetrics: {
            "user_input": inputs,
            "targets": [1, 2, 3, 4],
            "seen": None,
            "ns": (10,),
            "groups": None,
            "patience": None,
            "restore_best_weights": False,
            "batch_size": 10,
        },
        evaluation.TrainingWatch: {
            "user_input": inputs,
            "targets": [1, 2, 3, 4],
            "item_count": None,
            "seen": None,
            "n": 3,
            "num_users": 4,
            "patience": 3,
            "batch_size": 3,
        },
        evaluation.write_projector: {"folder": folder / "projector", "item_vectors": items, "labels": None},
        retrieval.top_n: {"user_vectors": users, "item_vectors": items, "n": 2, "exclude": seen, "block_size": 2},
        retrieval.diversify: {
            "ids": np.array([[1, 2], [3, 0]]),
            "scores": np.array([[0.5, 0.4], [0.3, 0.2]]),
            "categories": ["", "a", "b", "b", "a", "a"],
            "n": 1,
            "penalty": 0.1,
        },
        retrieval.ExactIndex: {"ids": [1, 2], "vectors": np.eye(2), "metric": "cosine"},
        index.search: {"vectors": users, "n": 2, "exclude": seen},
        fresh("add"): {"ids": [9], "vectors": np.ones((1, 2))},
        fresh("replace"): {"ids": [1], "vectors": np.ones((1, 2))},
        index.save: {"folder": folder / "saved"},
        retrieval.VectorIndex.load: {"folder": folder / "index"},
        retrieval.recall: {"index": index, "exact": index, "vectors": users, "n": 2, "exclude": None},
        samplers.UniformSampler: {"num_sampled": 3},
        samplers.LogUniformSampler: {"num_sampled": 3},
        samplers.FrequencySampler: {"num_sampled": 3, "item_count": counts, "distortion": 1.0},
        samplers.InBatchSampler: {"item_count": None, "memory": 10},
        samplers.AdaptiveSampler: {"num_sampled": 3, "memory": 10, "uniform_share": 0.1},
        samplers.QueueSampler: {"num_sampled": 3, "item_count": None, "memory": 10},
        samplers.MixedSampler: {"samplers": [samplers.InBatchSampler(), sampler]},
        samplers.make_sampler: {"spec": sampler},
        NegativeSampler: {"sampler": "frequency", "num_sampled": 3, "item_name": "item", "item_count": counts},
        optimizers.LazyAdam: {"learning_rate": 1e-3},
        optimizers.RowwiseAdagrad: {"learning_rate": 1e-3},
        optimizers.RowwiseAdam: {"learning_rate": 1e-3},
        layers.CandidateLoss: {
            "temperature": 1.0,
            "loss": "softmax",
            "gbce_t": 0.5,
            "num_hard": 2,
            "vocabulary_size": 9,
        },
        layers.PairProbability: {"temperature": 1.0},
        layers.CandidateSampler: {"sampler_config": None, "vocabulary_size": 9, "seed": 1},
        layers.EmbeddingIndex: {"index": [0, 1]},
        layers.EmbeddingTable: {
            "vocabulary_size": 9,
            "embedding_dim": 4,
            "l2_reg": 0.0,
            "seed": 1,
            "check_ids": True,
            "stddev": 0.1,
        },
        layers.HashIds: {"num_buckets": 9, "mask_zero": False, "vocabulary_path": None},
        layers.HistoryDropout: {"rate": 0.1, "seed": 1},
        layers.ItemCatalogue: {"features": {"a": ((1,), "int32")}, "vocabulary_size": 5},
        layers.JaggedPooling: {"mode": "mean", "keepdims": False, "recency_decay": 0.0},
        layers.KnownItems: {"vocabulary_size": 5, "rate": 0.1, "seed": 1, "all_known": False},
        layers.L2Normalization: {"axis": -1},
        layers.PoolingLayer: {"mode": "mean", "supports_masking": False},
        layers.RepeatableDropout: {"rate": 0.1, "seed": 1},
        layers.SampledSoftmaxLayer: {"sampler_config": None, "temperature": 1.0, "num_sampled": None, "seed": 1},
        layers.SequenceMaskPooling: {"mode": "mean", "keepdims": False, "recency_decay": 0.0},
        layers.SequenceWeighting: {"weight_norm": True},
    }
    told = {"user_features": pd.DataFrame({"user_id": [1, 2], "age": [1.5, 2.5]})}
    told["item_features"] = pd.DataFrame({"item_id": ["a", "b"], "price": [1.0, 2.5]})
    sizes = {"max_len": 3, "embedding_dim": 4, "batch_size": 4, "num_sampled": 1}
    unfitted, recommender = Recommender(**sizes), Recommender(**told, **sizes).fit(frame, epochs=1, verbose=0)
    recommender.save(folder / "shop")
    later = frame.assign(timestamp=[11, 12, 13])

    def changed(which, method):
        return lambda **given: getattr(copy.copy(which), method)(**given)

    held_out = {"validation": None, "test": None}
    named = {"user": "user_id", "item": "item_id", "time": "timestamp", "kind": None, "targets": None, "weight": None}
    table |= {
        Recommender: {
            **told,
            **sizes,
            **named,
            "model": YoutubeDNN,
            "columns": [],
            "optimizer": None,
            "seed": 1,
            "session": None,
            "exclude_seen": True,
        },
        changed(unfitted, "fit"): {"events": frame, **held_out, "epochs": 1, "verbose": 0},
        changed(recommender, "update"): {
            **told,
            "events": later,
            "sampler_config": None,
            "epochs": 0,
            "replay": 1.0,
            "verbose": 0,
        },
        recommender.recommend: {"user_ids": [1], "n": 1, "among": ["a"], "exclude_seen": True},
        recommender.similar_items: {"item_ids": ["a"], "n": 1, "among": ["b"]},
        recommender.evaluate: {"events": later, "ns": [1], "exclude_seen": True, "verbose": 0},
        recommender.save: {"folder": folder / "shop"},
        Recommender.load: {"folder": folder / "shop"},
    }
    model = small_model()
    table[model.user_vectors] = {"x": inputs, "batch_size": 3}
    table[model.item_vectors] = {"batch_size": 5}
    return list(table.items())


def refused_in_our_words(error, value):
    message = str(error)
    ours = isinstance(error, (ValueError, FileNotFoundError)) and (" must " in message or "There is no" in message)
    return ours and not (isinstance(value, str) and value and f"got {value}." in message)


@pytest.mark.slow
@pytest.mark.once
@settings(
    max_examples=CASES * 5 or 250,
    derandomize=not CASES,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(choice=st.data())
def test_an_odd_argument_is_taken_or_refused_in_our_words(calls, choice, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    function, good = choice.draw(st.sampled_from(calls), "function")
    name = choice.draw(st.sampled_from(sorted(good)), "argument")
    odd = choice.draw(st.sampled_from(sorted(set(ODD) - {"a class" if name == "score" else ""})), "value")
    note(f"{getattr(function, '__qualname__', function)}({name}={odd})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**{**good, name: ODD[odd]})
        except Exception as error:
            if not refused_in_our_words(error, ODD[odd]):
                raise


@pytest.mark.slow
@pytest.mark.once
def test_all_these_calls_can_be_made(calls):
    """Else what is refused would not be the odd argument."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for function, good in calls:
            taken = inspect.signature(function).parameters
            assert set(good) <= set(taken) or {"given", "columns"} & set(taken)
            function(**good)
