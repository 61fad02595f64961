"""Step time of the same model in PyTorch, written by hand, its tables PyTorch's own or FBGEMM's.

Usage: TORCH_THREADS=1 peer_torch.py VOCABULARY BATCH DIM STEPS [--tables fbgemm]   (prints one JSON line)
PyTorch's: a jagged EmbeddingBag, sparse gradients, SparseAdam. FBGEMM's: table-batched embeddings, whose backward pass
updates the rows, by row-wise Adagrad, since it has no Adam on a CPU; the items' histories, targets and negatives are
bags of one look-up. Try 1 and 2 threads and take the faster: with more than one it can stall when anything else runs on
the machine.
"""

import argparse
import os
import time

import numpy as np
import torch
from speed import HIDDEN, MAX_LEN, NUM_SAMPLED, USER_DIM, USERS, print_result, synthetic_input
from torch import nn
from torch.nn import functional

torch.set_num_threads(int(os.environ.get("TORCH_THREADS", "1")))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("vocabulary", "batch", "dim", "steps"):
        parser.add_argument(name, type=lambda text: int(float(text)))
    parser.add_argument("--tables", choices=["torch", "fbgemm"], default="torch")
    args = parser.parse_args()
    x = synthetic_input(args.vocabulary, args.batch, args.steps)
    fit = Step(args, x, {"torch": OfTorch, "fbgemm": OfFbgemm}[args.tables](args.vocabulary, args.dim)).fit
    fit(3)
    versions = {"torch": torch.__version__}
    if args.tables == "fbgemm":
        import fbgemm_gpu

        versions["fbgemm"] = fbgemm_gpu.__version__
    print_result(args.tables, args, x, fit(args.steps), versions, threads=torch.get_num_threads())


class OfTorch:
    """Tables of PyTorch."""

    def __init__(self, vocabulary, dim):
        self.items = nn.Embedding(vocabulary, dim, sparse=True)
        self.users = nn.Embedding(USERS, USER_DIM, sparse=True)
        nn.init.normal_(self.items.weight, 0, 0.01)
        nn.init.normal_(self.users.weight, 0, 0.01)
        self.optimizers = [torch.optim.SparseAdam([self.items.weight, self.users.weight], 1e-3)]

    def look_up(self, user, history, length, singles):
        """Users' rows, the means of their histories, and the rows of single items."""
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(length)[:-1]]))
        pooled = functional.embedding_bag(history, self.items.weight, offsets, mode="mean", sparse=True)
        return self.users(user), pooled, self.items(singles)


class OfFbgemm:
    """Tables of FBGEMM: `SplitTableBatchedEmbeddingBagsCodegen`."""

    def __init__(self, vocabulary, dim):
        self.items, self.users = self._table(vocabulary, dim), self._table(USERS, USER_DIM)
        self.optimizers = []

    @staticmethod
    def _table(rows, dim):
        import fbgemm_gpu.split_table_batched_embeddings_ops_training as fbgemm

        table = fbgemm.SplitTableBatchedEmbeddingBagsCodegen(
            [(rows, dim, fbgemm.EmbeddingLocation.HOST, fbgemm.ComputeDevice.CPU)],
            optimizer=fbgemm.OptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=0.05,
            eps=1e-7,
            pooling_mode=fbgemm.PoolingMode.MEAN,
        )
        nn.init.normal_(table.split_embedding_weights()[0], 0, 0.01)
        return table

    def look_up(self, user, history, length, singles):
        sizes = np.concatenate([[0], length, np.ones(len(singles), "int64")])
        found = self.items(torch.cat([history, singles]), torch.from_numpy(np.cumsum(sizes)))
        users = self.users(user, torch.arange(len(user) + 1))
        return users, found[: len(length)], found[len(length) :]


class Step:
    """The model around the tables, and its training."""

    def __init__(self, args, x, tables):
        self.args, self.tables = args, tables
        user, item, length, history = (x[name].astype("int64") for name in ("user_id", "item", "hist_len", "hist_item"))
        self.user, self.item, self.length, self.history = user, item, length, history
        self.valid = np.arange(MAX_LEN) < length[:, None]
        self.tower = nn.Sequential(nn.Linear(args.dim + USER_DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, args.dim))
        self.optimizers = [*tables.optimizers, torch.optim.Adam(self.tower.parameters(), 1e-3)]

    def step(self, k):
        batch = self.args.batch
        rows = slice(k * batch, (k + 1) * batch)
        history, target = torch.from_numpy(self.history[rows][self.valid[rows]]), torch.from_numpy(self.item[rows])
        negative = torch.randint(1, self.args.vocabulary, (NUM_SAMPLED,))
        singles = torch.cat([target, negative])
        user, pooled, candidates = self.tables.look_up(
            torch.from_numpy(self.user[rows]), history, self.length[rows], singles
        )
        user_emb = functional.normalize(self.tower(torch.cat([user, pooled], 1)), dim=-1) / 0.05
        candidates = functional.normalize(candidates, dim=-1)
        positive_logits = (user_emb * candidates[:batch]).sum(1, keepdim=True)
        negative_logits = user_emb @ candidates[batch:].T
        negative_logits = negative_logits.masked_fill(target[:, None] == negative[None], -1e9)
        logits = torch.cat([positive_logits, negative_logits], 1)
        loss = functional.cross_entropy(logits, torch.zeros(batch, dtype=torch.long))
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()

    def fit(self, steps):
        start = time.perf_counter()
        for k in range(steps):
            self.step(k)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
