"""Popularity, first-order Markov, item-kNN or ALS under quality.py's protocol; prints one JSON line.

Usage: quality_baselines.py JOB, as quality.py makes it; needs deepmatch_ext, and implicit for item-kNN and ALS.

These count events, and need none as a target. To rank an item they count all that came before it: for the test items,
the validation items too.
"""

import os
from importlib.metadata import version

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as implicit asks: its own threads are busy

import numpy as np
from quality import Progress, clock, print_result, read_job, save

from deepmatch_ext import __version__, data, evaluation


def main():
    job = read_job()
    split = data.leave_last_out(data.read_dataset(job["data"], verbose=False).interactions)
    parts = {"validation": (split.train, split.validation)}
    parts["test"] = (np.sort(np.concatenate([split.train, split.validation])), split.test)
    fit = {"popularity": popularity, "Markov": markov, "item-kNN": item_knn, "ALS": als}[job["settings"]["method"]]
    settings = {name: value for name, value in job["settings"].items() if name != "method"}
    if job["settings"]["method"] == "ALS":
        settings["random_state"] = job["seed"]
    progress, ranks, now = Progress(**job["limits"]), {}, clock(job)
    for part in job["rank"]:
        known, rows = parts[part]
        start = now()
        score = fit(split.interactions, known, rows, **settings)
        seconds = now() - start
        ranks[part] = evaluation.target_ranks(
            score, split.interactions.items[rows], seen=data.seen_before(split.interactions, rows)
        )
        if part == "validation":
            progress.add(seconds, ranks[part])
    save(job, ranks)
    versions = {"deepmatch_ext": __version__} | ({"implicit": version("implicit")} if settings else {})
    print_result(progress, seconds, versions)


# Each takes the events, the known rows and the rows to rank, and gives a function of a range of the latter.


def popularity(events, known, rows):
    counts = evaluation.Popularity.from_interactions(events, known)
    return lambda start, stop: counts.score(events.items[rows[start:stop] - 1])


def markov(events, known, rows):
    chain = evaluation.Markov.from_interactions(events, known)
    return lambda start, stop: chain.score(events.items[rows[start:stop] - 1])


def item_knn(events, known, rows, similarity, K):
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender

    matrix = user_items(events, known)
    kinds = {"cosine": CosineRecommender, "tfidf": TFIDFRecommender, "bm25": BM25Recommender}
    model = kinds[similarity](K=K)
    model.fit(matrix, show_progress=False)
    users = events.users[rows]
    return lambda start, stop: (matrix[users[start:stop]] @ model.similarity).toarray()


def als(events, known, rows, **settings):
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(**settings)
    model.fit(user_items(events, known), show_progress=False)
    users = events.users[rows]
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
