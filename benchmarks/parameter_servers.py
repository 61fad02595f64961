"""A table on parameter servers: time of a step, and the memory of each process, by the size of the table.

    TF_USE_LEGACY_KERAS=1 python benchmarks/parameter_servers.py --vocabulary 1e6 1e7     # two servers, two workers

All processes run on this machine. YoutubeDNN with 100 uniform negatives, T = 20; the items of a batch are drawn from
the whole vocabulary. The first steps, in which functions are traced, are not counted. Prints a line for each size.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def serve(cluster, job, index):
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)
    tf.distribute.Server(cluster, job, index, protocol="grpc", config=config, start=True).join()


def resident_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1000


def measure(cluster, processes, size, args):
    import numpy as np
    import tensorflow as tf
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    from deepmatch_ext import YoutubeDNN
    from deepmatch_ext.optimizers import LazyAdam, RowwiseAdagrad
    from deepmatch_ext.samplers import UniformSampler

    spec = tf.train.ClusterSpec(cluster)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(spec, rpc_layer="grpc")
    partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(2**20, args.shards)
    strategy = tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
    optimizer = {"LazyAdam": LazyAdam, "RowwiseAdagrad": RowwiseAdagrad}[args.optimizer]
    history = SparseFeat("hist_item_id", size, args.dim, embedding_name="item_id")
    with strategy.scope():
        model = YoutubeDNN(
            [VarLenSparseFeat(history, 20, "recency+last", "hist_len")],
            [SparseFeat("item_id", size, args.dim)],
            sampler_config=UniformSampler(100),
        )
        model.compile(optimizer(1e-2))

    def dataset(context):
        rng = np.random.default_rng(context.input_pipeline_id)
        rows = 100 * args.batch
        ids = {"item_id": (rows,), "hist_item_id": (rows, 20)}
        x = {name: rng.integers(1, size, shape, dtype=np.int32) for name, shape in ids.items()}
        x["hist_len"] = np.full(rows, 20, np.int32)
        return tf.data.Dataset.from_tensor_slices(x).batch(args.batch)

    model.fit(dataset, steps_per_epoch=20, verbose=0)
    start = time.perf_counter()
    model.fit(dataset, steps_per_epoch=args.steps, verbose=0)
    each = 1000 * (time.perf_counter() - start) / args.steps
    memory = {name: resident_mb(process.pid) for name, process in processes.items()}
    memory["coordinator"] = resident_mb(os.getpid())
    print(f"V {size:.0e} x {args.dim}, {args.optimizer}: {each:.1f} ms a step; peak MB {memory}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=float, nargs="+", default=[1e6])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--shards", type=int, default=8, help="of each table; a part is held twice while it is made")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256, help="of each worker")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--optimizer", default="LazyAdam", choices=["LazyAdam", "RowwiseAdagrad"])
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--cluster", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(**json.loads(args.serve))
    elif args.cluster:
        places = json.loads(args.cluster)
        pids = {name: argparse.Namespace(pid=pid) for name, pid in places["pids"].items()}
        measure(places["cluster"], pids, int(args.vocabulary[0]), args)
    else:
        for size in args.vocabulary:  # processes of their own for each size
            run(size, {"chief": 1, "worker": args.workers, "ps": args.servers})


def run(size, jobs):
    with ExitStack() as stack:  # all ports are taken before one is given back
        sockets = {job: [stack.enter_context(socket.socket()) for _ in range(n)] for job, n in jobs.items()}
        for each in [each for of in sockets.values() for each in of]:
            each.bind(("127.0.0.1", 0))
        cluster = {job: [f"127.0.0.1:{each.getsockname()[1]}" for each in of] for job, of in sockets.items()}
    processes = {}
    try:
        for job in ("worker", "ps"):
            for index in range(jobs[job]):
                place = json.dumps({"cluster": cluster, "job": job, "index": index})
                processes[f"{job}{index}"] = subprocess.Popen([sys.executable, __file__, "--serve", place])
        places = json.dumps({"cluster": cluster, "pids": {name: each.pid for name, each in processes.items()}})
        command = [sys.executable, __file__, *sys.argv[1:], "--vocabulary", str(size), "--cluster", places]
        subprocess.run(command, check=True)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
