"""Indexes measured: exact search beside FAISS's flat index, and approximate ones' recall and speed, a user at a time.

    python benchmarks/retrieval.py                        # 1,000,000 items of dimension 64; about five minutes
    python benchmarks/retrieval.py --items 100000         # a try
    python benchmarks/retrieval.py --only exact

Each part is a process of its own. All searches are for the best 100.

- exact: `ExactIndex` and FAISS's own flat index over the same vectors with the same number of threads, in turn: 1,000
  users at once, and one at a time; medians of the rounds, and the median of the rounds' ratios. And the peak of the
  process's memory over what it had with TensorFlow and the caller's vectors loaded, as a multiple of the vectors' size:
  to build the index and to search, by metric.
- approximate: a `FaissIndex` (`--factory`), or with `--factory ScaNN` a `ScannIndex`: how long it takes to build, and
  by effort the recall, the time of 1,000 users at once, and that of a user alone against `ExactIndex`'s and flat
  FAISS's, in turn. Flat FAISS once with all threads, as it comes, and once with one, which for a single user may be
  faster; ScaNN also called directly. `--keep FOLDER` builds the index once for several runs. `--factory
  usearch` measures that library, which has no index here, in the same way.
- choose, if named by `--only`: what `choose_index` finds for recalls of .95 and .98, among vectors of three kinds
  (`of_kind`), with its frame; and, in turn with it, the fastest of `by_hand`: 28 settings of ScaNN and FAISS, called
  directly, each with the least effort that reaches the recall. Five minutes a kind with 300,000 items.

Vectors are L2-normalised. Items are like a two-tower model's, with some structure: normal in RANK directions of falling
variance (the k-th has 1/k), turned by a random rotation, with isotropic noise of a tenth of the variance. Users are
drawn in the same way. `--isotropic` draws all directions alike: the worst case for a graph, and no model's vectors.

Needs FAISS, and for ScaNN and usearch these: `pip install -e ".[faiss,scann]" usearch`.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import numpy as np

RANK, N, SCANN, USEARCH = 32, 100, "ScaNN", "usearch"
KINDS = ("a model's", "clusters", "texts'")


def memory(name):
    """MB of this process: VmRSS now, or VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def generated(count, dim, isotropic, seed):
    rng, made = np.random.default_rng(seed), np.empty((count, dim), np.float32)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0][:RANK]
    scale = 1 / np.sqrt(np.arange(1, RANK + 1))
    noise = np.sqrt(0.1 * (scale**2).sum() / dim)
    for start in range(0, count, 65536):  # little memory beside the vectors
        part = made[start : start + 65536]
        part[:] = rng.normal(size=part.shape)
        if not isotropic:
            part *= noise
            part += (rng.normal(size=(len(part), RANK)) * scale) @ turn
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return made


def of_kind(kind, count, dim, seed):
    """Vectors like a model's, as above; in 1,000 clusters, of uneven sizes; or narrow about a mean, as texts'."""
    made = generated(count, dim, False, seed)
    if kind == "clusters":
        rng, centres = np.random.default_rng(seed), generated(1000, dim, True, 0)
        made = centres[np.minimum(rng.zipf(1.2, count) - 1, 999) if seed == 1 else rng.integers(0, 1000, count)]
        made = made + rng.normal(size=made.shape).astype(np.float32) * (0.5 / dim**0.5)
    elif kind == "texts'":
        made = made + generated(1, dim, True, 0)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


class OfUsearch:
    """usearch's graph of float16, with the calls of an index."""

    def __init__(self, ids, items, threads):
        from usearch.index import Index

        self.effort, self._threads = 100, threads
        self._index = Index(ndim=items.shape[1], metric="ip", dtype="f16", connectivity=32, expansion_add=128)
        self._index.add(ids, items, threads=threads)

    def search(self, users, n):
        self._index.expansion_search = self.effort
        found = self._index.search(users if len(users) > 1 else users[0], n, threads=self._threads)
        return np.reshape(found.keys, (len(users), n)), np.reshape(found.distances, (len(users), n))


def chosen(args):
    import faiss

    from deepmatch_ext.retrieval import ExactIndex, choose_index

    faiss.omp_set_num_threads(args.threads)
    for kind in KINDS:
        items, users = (of_kind(kind, count, args.dim, seed) for count, seed in [(args.items, 1), (1000, 2)])
        items, users, ids = np.float32(items), np.float32(users), np.arange(len(items))
        best = ExactIndex(ids, items).search(users, N)[0]
        settings = list(by_hand(items, args.threads))
        for least in (0.95, 0.98):
            index, tried = choose_index(ids, items, users, N, least)
            print(
                f"{kind}, recall {least}: {index!r}, effort {index.effort}\n{tried.to_string(index=False)}", flush=True
            )
            found = {name: least_effort(*setting, users[:300], best[:300], least) for name, setting in settings}
            found = {name: search for name, search in found.items() if search}
            times = alone({name: (search, 50) for name, search in found.items()}, users, 3)
            name = min(times, key=lambda each: statistics.median(times[each]))
            times = alone({name: (found[name], 200), "choose_index's": (index.search, 200)}, users, args.rounds)
            share = ratio(times, name, "choose_index's")
            print(f"the fastest by hand, of {len(found)} that reach it: {told(times)}; {share:.2f} of its speed")


def by_hand(items, threads):
    """Yields a name, a search(users, n, effort) by a library itself, and the largest effort."""
    import faiss

    from deepmatch_ext.retrieval.scann_index import _scann

    root = len(items) ** 0.5
    for leaves in (round(root), round(2 * root), round(4 * root)):
        made = _scann().builder(items, N, "dot_product")
        made = made.tree(leaves, leaves, training_sample_size=min(len(items), 250_000))
        made = made.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(N).build()
        for again in (200, 300, 400, 500, 800, 1500):

            def search(users, n, effort, made=made, again=again):
                if len(users) == 1:
                    return made.search(users[0], n, again, effort)[0][np.newaxis]
                return made.search_batched(users, n, again, effort)[0]

            yield f"ScaNN, {leaves} leaves, {again} scored again", (search, leaves)
    for lists in (2 ** round(np.log2(2 * root)), 2 ** round(np.log2(4 * root))):
        factory = f"IVF{lists},PQ{items.shape[1]}x4fs,Refine(SQfp16)"
        faiss.omp_set_num_threads(threads)
        index = faiss.index_factory(items.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        index.train(items)
        index.add(items)
        for again in (200, 300, 500, 800, 1500):

            def search(users, n, effort, index=index, again=again):
                of_lists = faiss.SearchParametersIVF(nprobe=effort)
                parameters = faiss.IndexRefineSearchParameters(k_factor=again / n, base_index_params=of_lists)
                return index.search(users, n, params=parameters)[1]

            yield f"FAISS, {factory}, {again} scored again", (search, lists)


def least_effort(search, largest, users, best, least):
    """The search with the least effort that reaches the recall, found by bisection; None if the largest does not."""

    def reaches(effort):
        return shared(search(users, N, effort), best) >= least

    if not reaches(largest):
        return None
    low, high = 0, largest
    while high > max(1.06 * low, low + 1):
        middle = round((max(low, 1) * high) ** 0.5) if high > 2 * max(low, 1) else (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return lambda users, n: search(users, n, high)


def shared(found, others):
    """The fraction of each user's N items that another search finds, too; the mean."""
    return np.mean([len(np.intersect1d(*pair)) for pair in zip(found, others, strict=True)]) / N


def in_turn(runs, rounds):
    """name -> milliseconds of each round, after one that isn't counted."""
    times = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def alone(searches, users, rounds):
    """name -> milliseconds of a user alone, in each round, of `searches`: name -> (search, how many of the users)."""
    runs = {
        name: lambda search=search, count=count: [search(users[k : k + 1], N) for k in range(count)]
        for name, (search, count) in searches.items()
    }
    times = in_turn(runs, rounds)
    return {name: [each / searches[name][1] for each in times[name]] for name in times}


def told(times):
    return ", ".join(
        f"{name} {statistics.median(each):,.2f} ms ({min(each):,.2f}-{max(each):,.2f})" for name, each in times.items()
    )


def ratio(times, one, other):
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def exact_memory(args, metric):
    from deepmatch_ext.retrieval import ExactIndex

    items = generated(args.items, args.dim, args.isotropic, seed=1)
    users = generated(1000, args.dim, args.isotropic, seed=2)
    size = items.nbytes / 2**20
    ExactIndex(range(1000), items[:1000], metric=metric).search(users, N)  # what TensorFlow loads for any search
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    index = ExactIndex(np.arange(len(items)), items, metric=metric)
    built = memory("VmHWM") - before
    index.search(users, N)
    searched = memory("VmHWM") - before
    print(
        f"memory, {metric}: vectors {size:.0f} MB; peak to build {built:.0f} MB, {built / size:.2f} times, "
        f"and with searching {searched:.0f} MB, {searched / size:.2f} times"
    )


def exact(args):
    import faiss
    import tensorflow as tf

    from deepmatch_ext.retrieval import ExactIndex

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    items = generated(args.items, args.dim, args.isotropic, seed=1)
    users = generated(1000, args.dim, args.isotropic, seed=2)
    index = ExactIndex(np.arange(len(items)), items)
    found = index.search(users, N)[0]
    flat = faiss.IndexFlatIP(args.dim)
    flat.add(items)
    print(f"items that both find: {shared(found, flat.search(users, N)[1]):.6f}; threads: {args.threads}")
    runs = {"exact": lambda: index.search(users, N), "FAISS flat": lambda: flat.search(users, N)}
    times = in_turn(runs, args.rounds)
    print(f"1,000 users: {told(times)}; exact / flat: {ratio(times, 'exact', 'FAISS flat'):.2f}")
    seen = np.arange(0, 1000 * 50 + 1, 50), np.random.default_rng(3).choice(len(items), 1000 * 50)
    times = in_turn({"exact": runs["exact"], "exact without 50": lambda: index.search(users, N, exclude=seen)}, 3)
    print(f"1,000 users, 50 seen items each left out: {told(times)}")
    times = alone({"exact": (index.search, 20), "FAISS flat": (flat.search, 20)}, users, args.rounds)
    print(f"one user: {told(times)}; exact / flat: {ratio(times, 'exact', 'FAISS flat'):.2f}")


def approximate(args):
    import faiss
    import tensorflow as tf

    from deepmatch_ext.retrieval import ExactIndex, FaissIndex, ScannIndex, VectorIndex

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    items = generated(args.items, args.dim, args.isotropic, seed=1)
    users = generated(1000, args.dim, args.isotropic, seed=2)
    ids = np.arange(len(items))
    whole = ExactIndex(ids, items)
    if args.keep and Path(args.keep).exists():
        index = VectorIndex.load(args.keep)
    else:
        before = memory("VmRSS")
        start = time.perf_counter()
        if args.factory == USEARCH:
            index = OfUsearch(ids, items, args.threads)
        else:
            index = ScannIndex(ids, items) if args.factory == SCANN else FaissIndex(ids, items, args.factory)
        took, held = time.perf_counter() - start, memory("VmRSS") - before
        print(f"{args.factory}: built in {took:.0f} s, {held:.0f} MB")
        if args.keep:
            index.save(args.keep)
    flat = faiss.IndexFlatIP(args.dim)
    flat.add(items)

    def flat_alone(users, n):
        faiss.omp_set_num_threads(1)
        flat.search(users, n)
        faiss.omp_set_num_threads(args.threads)

    searches = {
        args.factory: (index.search, 200),
        "exact": (whole.search, 20),
        "FAISS flat": (flat.search, 20),
        "FAISS flat, one thread": (flat_alone, 20),
    }
    together = {args.factory: lambda: index.search(users, N)}
    if args.factory == SCANN:

        def itself(users, n, several=False):
            searcher = index._searcher
            search = searcher.search_batched_parallel if several else searcher.search
            return search(users if several else users[0], n, index.rescored * (n + 25), index.effort)

        searches["ScaNN itself"] = (itself, 200)
        together["ScaNN itself"] = lambda: itself(users, N, True)
    best = whole.search(users, N)[0]
    for effort in args.efforts:
        index.effort = effort
        found = shared(index.search(users, N)[0], best)
        times = alone(searches, users, args.rounds)
        print(
            f"effort {effort}: recall@{N} {found:.4f}; 1,000 users: {told(in_turn(together, args.rounds))}; "
            f"one user: {told(times)}; "
            + "; ".join(f"{name} / it: {ratio(times, name, args.factory):.1f}" for name in list(searches)[1:])
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--dim", type=int, default=64, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each library (default: all cores)")
    parser.add_argument(
        "--only", choices=["exact", "approximate", "choose"], help="one part (default: exact, approximate)"
    )
    parser.add_argument("--isotropic", action="store_true", help="vectors of all directions alike")
    parser.add_argument("--factory", default="HNSW32_SQfp16", help="the approximate index (default: %(default)s)")
    parser.add_argument("--efforts", type=int, nargs="+", default=[200, 250, 300], help="(default: %(default)s)")
    parser.add_argument("--keep", help="a folder where the built index is kept, and found the next time")
    args = parser.parse_args()
    if args.keep and args.factory == USEARCH:
        parser.error(f"--keep keeps indexes of deepmatch_ext, not {USEARCH}'s")
    context = multiprocessing.get_context("spawn")
    parts = {
        "exact": [(exact_memory, "inner_product"), (exact_memory, "cosine"), (exact,)],
        "approximate": [(approximate,)],
        "choose": [(chosen,)],
    }
    for name, calls in parts.items():
        for part, *more in calls if name == args.only or (args.only is None and name != "choose") else []:
            process = context.Process(target=part, args=(args, *more))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
