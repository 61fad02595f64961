"""Processor time of a step of the authors' SR-GNN in PyTorch, on the data that sessions.py reads; prints one JSON line.

    git clone https://github.com/CRIPAC-DIG/SR-GNN && git -C SR-GNN checkout e21cfa4
    python benchmarks/peer_srgnn.py SR-GNN FOLDER      # FOLDER holds train.npz

Their model, batches, loss and optimizer, with the settings of their main.py. The clicks before each target are cut to
the last 20, as sessions.py cuts them for SRGNN. Needs NumPy, PyTorch and networkx; one thread, unless TORCH_THREADS
says otherwise.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

MAX_LEN = 20
OPTIONS = {"batchSize": 100, "hiddenSize": 100, "lr": 1e-3, "l2": 1e-5, "lr_dc": 0.1, "lr_dc_step": 3, "step": 1}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="of https://github.com/CRIPAC-DIG/SR-GNN")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm-up", type=int, default=5, help="steps before these (default: %(default)s)")
    args = parser.parse_args()
    sys.path.insert(0, str(args.checkout / "pytorch_code"))
    import torch
    from model import SessionGraph, forward
    from utils import Data

    torch.set_num_threads(int(os.environ.get("TORCH_THREADS", "1")))
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # which their code draws from
    clicks, targets, size = cases(args.folder / "train.npz")
    batch = OPTIONS["batchSize"]
    some = np.random.permutation(len(targets))[: (args.warm_up + args.steps) * batch]  # noqa: NPY002
    data = Data(([clicks(case) for case in some], targets[some]), shuffle=True)
    model = SessionGraph(argparse.Namespace(**OPTIONS, nonhybrid=False), size)
    seconds = []
    for rows in data.generate_batch(batch):
        began = time.process_time()
        model.optimizer.zero_grad()
        wanted, scores = forward(model, rows, data)
        loss = model.loss_function(scores, torch.Tensor(wanted).long() - 1)
        loss.backward()
        model.optimizer.step()
        seconds.append(time.process_time() - began)
    mean, steps = float(np.mean(seconds[args.warm_up :])), -(-len(targets) // batch)
    found = {"processor_s_a_step": round(mean, 4), "steps_an_epoch": steps, "processor_s_an_epoch": round(mean * steps)}
    print(json.dumps({**found, "threads": torch.get_num_threads(), "torch": torch.__version__}))


def cases(path):
    """The clicks before each target as a function of its number, the targets, and the size of the vocabulary."""
    with np.load(path) as train:
        indptr, items = train["indptr"], train["items"]
    begins = np.repeat(indptr[:-1], np.diff(indptr))
    rows = np.flatnonzero(np.arange(len(items)) > begins)
    return (
        lambda case: items[max(begins[rows[case]], rows[case] - MAX_LEN) : rows[case]].tolist(),
        items[rows],
        (int(items.max()) + 1),
    )


if __name__ == "__main__":
    main()
