"""Step time of the same model in PyTorch, written by hand: a jagged EmbeddingBag, sparse gradients, SparseAdam.

Usage: TORCH_THREADS=1 peer_torch.py VOCABULARY BATCH DIM STEPS   (prints one JSON line)
Try 1 and 2 threads and take the faster: with more than one it can stall when anything else runs on the machine.
"""

import os
import sys
import time

import numpy as np
import torch
from speed import HIDDEN, MAX_LEN, NUM_SAMPLED, USER_DIM, USERS, arguments, print_result, synthetic_input
from torch import nn
from torch.nn import functional

torch.set_num_threads(int(os.environ.get("TORCH_THREADS", "1")))
args = arguments(sys.argv[1:])
x = synthetic_input(args.vocabulary, args.batch, args.steps)
user, item, length, history = (x[name].astype("int64") for name in ("user_id", "item", "hist_len", "hist_item"))
valid = np.arange(MAX_LEN) < length[:, None]

item_table = nn.Embedding(args.vocabulary, args.dim, sparse=True)
user_table = nn.Embedding(USERS, USER_DIM, sparse=True)
nn.init.normal_(item_table.weight, 0, 0.01)
nn.init.normal_(user_table.weight, 0, 0.01)
tower = nn.Sequential(nn.Linear(args.dim + USER_DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, args.dim))
optimizers = [
    torch.optim.SparseAdam([item_table.weight, user_table.weight], 1e-3),
    torch.optim.Adam(tower.parameters(), 1e-3),
]


def step(k):
    rows = slice(k * args.batch, (k + 1) * args.batch)
    ids = torch.from_numpy(history[rows][valid[rows]])
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(length[rows])[:-1]]))
    target = torch.from_numpy(item[rows])
    pooled = functional.embedding_bag(ids, item_table.weight, offsets, mode="mean", sparse=True)
    features = torch.cat([user_table(torch.from_numpy(user[rows])), pooled], 1)
    user_emb = functional.normalize(tower(features), dim=-1) / 0.05
    negative = torch.randint(1, args.vocabulary, (NUM_SAMPLED,))
    candidates = functional.normalize(item_table(torch.cat([target, negative])), dim=-1)
    positive_logits = (user_emb * candidates[: args.batch]).sum(1, keepdim=True)
    negative_logits = user_emb @ candidates[args.batch :].T
    negative_logits = negative_logits.masked_fill(target[:, None] == negative[None], -1e9)
    logits = torch.cat([positive_logits, negative_logits], 1)
    loss = functional.cross_entropy(logits, torch.zeros(args.batch, dtype=torch.long))
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


def fit(steps):
    start = time.perf_counter()
    for k in range(steps):
        step(k)
    return time.perf_counter() - start


fit(3)
print_result("torch", args, x, fit(args.steps), {"torch": torch.__version__}, threads=torch.get_num_threads())
