"""Two workers on this machine: the time of a step by the size of the table, and the bytes that a worker sends.

    python benchmarks/replicas.py                              # V = 10^4, 10^5 and 10^6, in rounds
    python benchmarks/replicas.py --delay-ms 1 --gigabits 1    # with a slow network between them, too
    python benchmarks/replicas.py --delay-ms 1 --gigabits 1 --namespaces    # each in a network namespace of its own

YoutubeDNN, D = 64, batches of 256 of both workers together, T = 20, 100 uniform negatives, LazyAdam; the items of a
batch are drawn from the whole vocabulary. All processes of all sizes are started first, and then asked for some steps
one after the other, again and again, so that whatever else the machine does slows all of them alike. Of the rounds it
prints the medians: the wall time of a step, and the processor time of both workers.

Then the workers reach each other through a relay in this program, which counts what each sends (gRPC and all, without
the headers of TCP and IP). Beside it stands what the formula of docs/distributed.md gives for the rows that the
gradients had. With ``--delay-ms`` or ``--gigabits`` the relay holds back what it carries, as a network does, in every
second round.

With ``--namespaces`` (root, Linux, iproute2) each worker is in a network namespace of its own, joined to the relay by a
pair of veth devices; ``tc`` limits their rate (tbf) in the slow rounds, and the relay delays alone.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

DIM, BATCH, MAX_LEN, SAMPLED = 64, 256, 20, 100


def work(size: int) -> None:
    """Trains as many steps as each line of the input says, and answers with seconds and rows."""
    from unittest import mock

    import numpy as np
    import tensorflow as tf

    several = "TF_CONFIG" in os.environ
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if several else tf.distribute.get_strategy()
    with mock.patch("threading.Thread.start"):  # DeepCTR asks for its newest version
        from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    from deepmatch_ext import YoutubeDNN
    from deepmatch_ext.optimizers import LazyAdam
    from deepmatch_ext.samplers import UniformSampler

    history = SparseFeat("hist_item_id", size, DIM, embedding_name="item_id")
    with strategy.scope():
        model = YoutubeDNN(
            [VarLenSparseFeat(history, MAX_LEN, "recency+last", "hist_len")],
            [SparseFeat("item_id", size, DIM)],
            sampler_config=UniformSampler(SAMPLED),
        )
        optimizer = LazyAdam(1e-3)
        model.compile(optimizer)
    variables = model.trainable_variables
    dense = sum(int(np.prod(each.shape)) for each in variables if each.shape[0] != size)

    def step(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            losses = tf.reshape(model(batch, training=True), [-1])
            loss = tf.nn.compute_average_loss(losses, global_batch_size=BATCH)
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        sparse = [each for each in gradients if isinstance(each, tf.IndexedSlices)]
        return loss, tf.add_n([tf.size(tf.unique(each.indices)[0]) for each in sparse])

    @tf.function
    def train(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        losses, rows = strategy.run(step, args=(batch,))
        return losses, rows

    rng = np.random.default_rng(0)
    shapes = {"item_id": (50 * BATCH,), "hist_item_id": (50 * BATCH, MAX_LEN)}
    x = {name: rng.integers(1, size, shape, dtype=np.int32) for name, shape in shapes.items()}
    x["hist_len"] = np.full(50 * BATCH, MAX_LEN, np.int32)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(BATCH, drop_remainder=True).repeat()
    batches = iter(strategy.experimental_distribute_dataset(dataset))
    for _ in range(5):
        train(next(batches))
    print(json.dumps({"dense": dense}), flush=True)
    for line in sys.stdin:
        wall, processor, rows = time.perf_counter(), time.process_time(), []
        for _ in range(int(line)):
            rows.append(strategy.experimental_local_results(train(next(batches))[1])[0])
        rows = [int(each) for each in rows]
        found = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor, "rows": rows}
        print(json.dumps(found), flush=True)


class Network:
    """What a worker sends to the other: counted, and held back if there is a delay or a rate."""

    def __init__(self) -> None:
        self.sent, self.delay, self.rate = 0, 0.0, 0.0
        self._free, self._lock = 0.0, threading.Lock()

    def due(self, size: int) -> float:
        """When something of this size, handed over now, arrives."""
        with self._lock:
            self.sent += size
            self._free = max(self._free, time.perf_counter()) + (size / self.rate if self.rate else 0.0)
            return self._free + self.delay


def relay(listener: socket.socket, address: str, there: Network, back: Network) -> None:
    """Carries what comes to a socket to an address, and what comes from there back."""
    host, port = address.split(":")
    while True:
        try:
            near, _ = listener.accept()
        except OSError:  # closed: the workers have ended
            return
        try:
            far = socket.create_connection((host, int(port)))
        except OSError:  # it does not listen yet, and will be asked again
            near.close()
            continue
        for source, sink, network in ((near, far, there), (far, near, back)):
            sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting: queue.SimpleQueue = queue.SimpleQueue()
            threading.Thread(target=take, args=(source, network, waiting), daemon=True).start()
            threading.Thread(target=deliver, args=(sink, waiting), daemon=True).start()


def take(source: socket.socket, network: Network, waiting: queue.SimpleQueue) -> None:
    try:
        while data := source.recv(2**16):
            waiting.put((network.due(len(data)), data))
    except OSError:
        pass
    waiting.put((0.0, b""))


def deliver(sink: socket.socket, waiting: queue.SimpleQueue) -> None:
    while True:
        due, data = waiting.get()
        if not data:
            sink.close()
            return
        time.sleep(max(0.0, due - time.perf_counter()))
        try:
            sink.sendall(data)
        except OSError:
            return


class Namespaces:
    """A network namespace for each of two workers; a pair of veth devices joins each to this program's."""

    NAMES = ("deepmatch-ext-0", "deepmatch-ext-1")

    def __enter__(self) -> Namespaces:
        for k, name in enumerate(self.NAMES):
            ip(f"netns add {name}")
            ip(f"link add dm{k} type veth peer name dm{k}in netns {name}")
            ip(f"addr add {self.outside(k)}/24 dev dm{k}")
            ip(f"link set dm{k} up")
            ip(f"-n {name} addr add {self.inside(k)}/24 dev dm{k}in")
            ip(f"-n {name} link set dm{k}in up")
            ip(f"-n {name} link set lo up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.NAMES:
            ip(f"netns del {name}")

    def inside(self, k: int) -> str:
        return f"10.213.{k}.2"

    def outside(self, k: int) -> str:
        return f"10.213.{k}.1"

    def command(self, k: int, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.NAMES[k], *command]

    def limit(self, bytes_a_second: float) -> None:
        """What each worker may send a second; 0: all it can."""
        for k, name in enumerate(self.NAMES):
            tc = ["tc", "-n", name, "qdisc"]
            subprocess.run([*tc, "del", "dev", f"dm{k}in", "root"], stderr=subprocess.DEVNULL, check=False)
            if bytes_a_second:
                rate = f"rate {8 * bytes_a_second:.0f}bit burst 64kb latency 50ms".split()
                subprocess.run([*tc, "add", "dev", f"dm{k}in", "root", "tbf", *rate], check=True)


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


class Group:
    """The processes that train together on a table of one size: two workers, or one process."""

    def __init__(self, size: int, workers: int, relayed: bool = False, spaces: Namespaces | None = None) -> None:
        self.size, self.networks = size, [Network() for _ in range(workers)]
        addresses = free_addresses(workers) if spaces is None else [f"{spaces.inside(k)}:4001" for k in range(workers)]
        hosts = ["127.0.0.1" if spaces is None else spaces.outside(1 - k) for k in range(workers if relayed else 0)]
        self._listeners = [socket.create_server((host, 0)) for host in hosts]
        for k, listener in enumerate(self._listeners):  # how the other worker reaches worker k
            arguments = (listener, addresses[k], self.networks[1 - k], self.networks[k])
            threading.Thread(target=relay, args=arguments, daemon=True).start()
        self._processes = []
        for k in range(workers):
            seen = ["{}:{}".format(*each.getsockname()) for each in self._listeners] or [*addresses]
            seen[k] = addresses[k]
            config = {"cluster": {"worker": seen}, "task": {"type": "worker", "index": k}}
            environment = {**os.environ, "TF_CONFIG": json.dumps(config)} if workers > 1 else None
            command = [sys.executable, __file__, "--work", str(size)]
            command = command if spaces is None else spaces.command(k, command)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._processes.append(subprocess.Popen(command, env=environment, **pipes))
        self.dense = self._answers()[0]["dense"]

    def train(self, steps: int) -> list[dict]:
        for process in self._processes:
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        return self._answers()

    def _answers(self) -> list[dict]:
        lines = [process.stdout.readline() for process in self._processes]
        if not all(lines):
            self.close()
            raise RuntimeError("a process ended early")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        for listener in self._listeners:
            listener.close()


def free_addresses(number: int) -> list[str]:
    with ExitStack() as stack:  # all ports are taken before one is given back
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def median_ms(answers: list[list[dict]], steps: int) -> tuple[float, float]:
    """The medians of rounds: wall time of a step, and processor time of all processes of a group."""
    wall = [max(each["wall"] for each in group) for group in answers]
    processor = [sum(each["processor"] for each in group) for group in answers]
    return 1000 * statistics.median(wall) / steps, 1000 * statistics.median(processor) / steps


def time_sizes(sizes: list[int], rounds: int, steps: int, stack: ExitStack) -> None:
    """Two workers, and one process, for each size in turn."""
    names = [(workers, size) for workers in (1, 2) for size in sizes]
    groups = {}
    for workers, size in names:
        groups[workers, size] = Group(size, workers)
        stack.callback(groups[workers, size].close)
    answers: dict[tuple[int, int], list] = {name: [] for name in names}
    for _ in range(rounds):
        for name, group in groups.items():
            answers[name].append(group.train(steps))
    print(f"{rounds} rounds of {steps} steps, {sum(os.getloadavg()[:1]):.1f} processes running:")
    for workers, size in names:
        wall, processor = median_ms(answers[workers, size], steps)
        # Of each round by itself, since the rounds differ more than the sizes do.
        over = [
            statistics.median(
                sum(each[kind] for each in of_size) / sum(each[kind] for each in of_first)
                for of_size, of_first in zip(answers[workers, size], answers[workers, sizes[0]], strict=True)
            )
            for kind in ("wall", "processor")
        ]
        what = "two workers" if workers == 2 else "one process"
        print(
            f"  {what}, V {size:.0e}: {wall:.1f} ms a step, {over[0]:.2f} times the first; "
            f"processor {processor:.1f} ms, {over[1]:.2f} times",
            flush=True,
        )


def count_bytes(
    sizes: list[int],
    rounds: int,
    steps: int,
    slow: tuple[float, float] | None,
    stack: ExitStack,
    spaces: Namespaces | None,
) -> None:
    """The bytes of a step through the relay, and its time with a slow network in turn with a fast one."""
    for size in sizes:
        group = Group(size, 2, relayed=True, spaces=spaces)
        stack.callback(group.close)
        group.train(steps)
        before, began = sum(each.sent for each in group.networks), time.perf_counter()
        time.sleep(2)
        idle = (sum(each.sent for each in group.networks) - before) / (time.perf_counter() - began)
        answers: dict[bool, list] = {False: [], True: []}
        sent, expected = 0.0, 0.0
        for number in range(rounds * (2 if slow else 1)):
            is_slow = bool(number % 2)
            for network in group.networks:
                network.delay, network.rate = slow if slow and is_slow else (0.0, 0.0)
                network.rate = 0.0 if spaces else network.rate
            if spaces and slow:
                spaces.limit(slow[1] if is_slow else 0.0)
            before, began = sum(each.sent for each in group.networks), time.perf_counter()
            found = group.train(steps)
            sent += sum(each.sent for each in group.networks) - before - idle * (time.perf_counter() - began)
            # Both send as many rows as the one that has more; half of the weights of dense layers, twice; positives.
            rows = sum(max(pair) for pair in zip(*(each["rows"] for each in found), strict=True))
            expected += 2 * (rows * (4 * DIM + 8) + steps * (4 * group.dense + 8 * BATCH))
            answers[is_slow].append(found)
        number = 2 * steps * sum(map(len, answers.values()))
        print(
            f"V {size:.0e}: a worker sends {sent / number:,.0f} bytes a step, and {idle / 2:,.0f} a second while idle; "
            f"by the formula {expected / number:,.0f}, {sent / expected - 1:+.1%}"
        )
        for is_slow, of_network in answers.items():
            if of_network:
                wall, processor = median_ms(of_network, steps)
                how = f"{1000 * slow[0]:g} ms away, {slow[1] * 8e-9:g} Gbit/s" if is_slow and slow else "a fast network"
                print(f"  {how}: {wall:.1f} ms a step, processor {processor:.1f} ms", flush=True)
        group.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e4, 1e5, 1e6], help="of the vocabulary")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40, help="of a round")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="one way, between the workers")
    parser.add_argument("--gigabits", type=float, default=0.0, help="a second, that each worker can send; 0: no limit")
    parser.add_argument("--namespaces", action="store_true", help="a network namespace for each worker (as root)")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work)
        return
    sizes = [int(size) for size in args.sizes]
    slow = (args.delay_ms / 1000, args.gigabits * 1e9 / 8) if args.delay_ms or args.gigabits else None
    with ExitStack() as stack:
        if not args.namespaces:
            time_sizes(sizes, args.rounds, args.steps, stack)
    with ExitStack() as stack:
        spaces = stack.enter_context(Namespaces()) if args.namespaces else None
        count_bytes(sizes, args.rounds, args.steps, slow, stack, spaces)


if __name__ == "__main__":
    main()
