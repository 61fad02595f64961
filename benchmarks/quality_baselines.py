"""Popularity, first-order Markov, item-kNN or ALS under quality.py's protocol; prints one JSON line.

Usage: quality_baselines.py JOB, as quality.py makes it; needs deepmatch_ext, and implicit for item-kNN and ALS.

These count events, and need none as a target. To rank an item they count all that came before it: for the test items,
the validation items too.
"""

import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as implicit asks: its own threads are busy

import numpy as np
from quality import Progress, clock, print_result, read_job, save
from quality_data import held_out_set

from deepmatch_ext import __version__, data, evaluation


def main():
    job = read_job()
    split, held_out = held_out_set(Path(job["data"]))
    events = split.interactions
    known = {"validation": split.train, "test": np.setdiff1d(np.arange(len(events)), split.test)}
    fit = {"popularity": popularity, "Markov": markov, "item-kNN": item_knn, "ALS": als}[job["settings"]["method"]]
    settings = {name: value for name, value in job["settings"].items() if name != "method"}
    if job["settings"]["method"] == "ALS":
        settings["random_state"] = job["seed"]
    progress, ranks, now = Progress(**job["limits"]), {}, clock(job)
    for part in job["rank"]:
        source, rows = held_out[part]
        start = now()
        score = fit(events, known[part], source, rows, **settings)
        seconds = now() - start
        ranks[part] = evaluation.target_ranks(score, source.items[rows], seen=data.seen_before(source, rows))
        if part == "validation":
            progress.add(seconds, lambda: ranks["validation"])
    save(job, ranks)
    versions = {"deepmatch_ext": __version__} | ({"implicit": version("implicit")} if settings else {})
    print_result(progress, seconds, versions)


# Each takes the events and their known rows, and the events and rows to rank; it gives a function of a range of these.


def popularity(events, known, source, rows):
    counts = evaluation.Popularity.from_interactions(events, known)
    return lambda start, stop: counts.score(source.items[rows[start:stop] - 1])


def markov(events, known, source, rows):
    chain = evaluation.Markov.from_interactions(events, known)
    return lambda start, stop: chain.score(source.items[rows[start:stop] - 1])


def item_knn(events, known, source, rows, similarity, K):
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender

    matrix = user_items(events, known)
    kinds = {"cosine": CosineRecommender, "tfidf": TFIDFRecommender, "bm25": BM25Recommender}
    model = kinds[similarity](K=K)
    model.fit(matrix, show_progress=False)
    users = source.users[rows]
    return lambda start, stop: (matrix[users[start:stop]] @ model.similarity).toarray()


def als(events, known, source, rows, **settings):
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(**settings)
    model.fit(user_items(events, known), show_progress=False)
    users = source.users[rows]
    return lambda start, stop: model.user_factors[users[start:stop]] @ model.item_factors.T


def user_items(events, rows):
    """1 where a user has had an item, (users + 1, V)."""
    import scipy.sparse

    shape = (events.user_vocabulary_size, events.item_vocabulary_size)
    matrix = scipy.sparse.csr_matrix((np.ones(len(rows), "float32"), (events.users[rows], events.items[rows])), shape)
    matrix.data[:] = 1
    return matrix


if __name__ == "__main__":
    main()
