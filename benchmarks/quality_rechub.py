"""Trains a model of torch-rechub under quality.py's protocol; prints one JSON line.

Usage: quality_rechub.py JOB, as quality.py makes it. Needs NumPy and torch-rechub; the rows that quality.py cut with
deepmatch_ext are its input, and it hands back the vectors of the best epoch, which quality.py ranks.

Where version 0.9 as it is would not learn, it is helped, from outside:

- SASRec: MatchTrainer's loss of pairs takes one negative score for a row, and fails on one for each position; its
  negatives of the batch fail on an attribute that the model doesn't have. So the model's two logits are trained with
  the loss of the paper, binary cross-entropy, where there is no padding.
- ComirecSA: it keeps its temperature and doesn't use it, so the loss divides by it. Its weights are drawn from [0, 1),
  which makes all attention alike, so they are drawn again, by Glorot.
- ComirecDR is left out: its weights are memory that nobody has written to.
"""

import copy
import os
from importlib.metadata import version

os.environ["TQDM_DISABLE"] = "1"

import torch
from quality import Progress, clock, print_result, ranks, read_arrays, read_job, save
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.basic.initializers import XavierNormal
from torch_rechub.models.matching import ComirecSA, SASRec
from torch_rechub.trainers import MatchTrainer


def main():
    job = read_job()
    parts, user_size, item_size = read_arrays(job)
    torch.set_num_threads(1)  # a second one adds processor time
    torch.manual_seed(job["seed"])
    peer = {"SASRec": OfSASRec, "ComirecSA": OfComirec}[job["settings"]["model"]](job["settings"], user_size, item_size)
    progress, seconds, best_weights, now = Progress(**job["limits"]), 0.0, None, clock(job)

    def validation_ranks():
        return ranks(peer.users(parts["validation"]), peer.items(), parts["validation"])

    while not progress.done:
        start = now()
        peer.train_epoch(parts["train"])
        seconds += now() - start
        if progress.add(seconds, validation_ranks if job["rank"] else None):
            best_weights = copy.deepcopy(peer.model.state_dict())
    if job["rank"]:
        peer.model.load_state_dict(best_weights)
        save(job, {"items": peer.items(), **{part: peer.users(parts[part]) for part in job["rank"]}})
    print_result(progress, seconds, {name: version(name) for name in ("torch-rechub", "torch")})


def shuffled(columns, batch_size):
    """The rows in batches, in a new order."""
    order = torch.randperm(len(columns["item_id"]))
    tensors = {name: torch.from_numpy(values).long() for name, values in columns.items()}
    for batch in order.split(batch_size):
        yield {name: values[batch] for name, values in tensors.items()}


def oldest_first(history):
    """(B, T), the most recent first and padding at the end, as it comes; the oldest first, padding still at the end."""
    turned = history.flip(1)
    return turned.gather(1, torch.argsort((turned == 0).int(), dim=1, stable=True))


class Peer:
    """A model, one epoch of its training, and its vectors."""

    def __init__(self, settings, user_size, item_size):
        self.settings, self.user_size, self.item_size = settings, user_size, item_size
        self.dim = settings["dim"]

    def sequence(self, name, shared_with=None):
        given = {"pooling": "concat", "padding_idx": 0, "initializer": XavierNormal(), "shared_with": shared_with}
        return SequenceFeature(name, self.item_size, self.dim, **given)

    @torch.no_grad()
    def users(self, columns):
        self.model.eval()
        self.model.mode = "user"
        tensors = {name: torch.from_numpy(columns[name]).long() for name in ("user_id", "hist_item_id")}
        batches = zip(*(values.split(512) for values in tensors.values()), strict=True)
        found = [self.model(self.user_input(dict(zip(tensors, batch, strict=True)))) for batch in batches]
        self.model.mode = None
        return torch.cat(found).numpy()


class OfSASRec(Peer):
    def __init__(self, settings, *sizes):
        super().__init__(settings, *sizes)
        features = [self.sequence("seq"), self.sequence("pos", "seq"), self.sequence("neg", "seq")]
        self.model = SASRec(features, max_len=settings["max_len"], **settings["arguments"])
        self.optimizer = torch.optim.Adam(self.model.parameters(), settings["learning_rate"], betas=(0.9, 0.98))

    def train_epoch(self, rows):
        self.model.train()
        for batch in shuffled(rows, self.settings["batch_size"]):
            history = oldest_first(batch["hist_item_id"])
            lengths = (history != 0).sum(dim=1, keepdim=True)
            following = torch.cat([history[:, 1:], torch.zeros_like(history[:, :1])], dim=1)
            following.scatter_(1, lengths - 1, batch["item_id"][:, None])
            negative = torch.randint(1, self.item_size, history.shape)
            logits = self.model({"seq": history, "pos": following, "neg": negative})
            of_positive, of_negative = (each[history != 0] for each in logits)
            cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
            loss = cross_entropy(of_positive, torch.ones_like(of_positive))
            loss = loss + cross_entropy(of_negative, torch.zeros_like(of_negative))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def user_input(self, columns):
        return {"seq": oldest_first(columns["hist_item_id"])}

    def items(self):
        return self.model.item_emb.embed_dict["seq"].weight.detach().numpy().copy()


class OfComirec(Peer):
    def __init__(self, settings, *sizes):
        super().__init__(settings, *sizes)
        user = SparseFeature("user_id", self.user_size, self.dim, initializer=XavierNormal())
        self.item = SparseFeature("item_id", self.item_size, self.dim, initializer=XavierNormal())
        history, negatives = self.sequence("hist_item_id", "item_id"), self.sequence("negatives", "item_id")
        self.model = ComirecSA([user], [history], [self.item], [negatives], **settings["arguments"])
        attention = self.model.multi_interest_sa
        for weights in (attention.W1, attention.W2, self.model.convert_user_weight):
            torch.nn.init.xavier_normal_(weights)
        optimizer = {"lr": settings["learning_rate"], "weight_decay": settings["weight_decay"]}
        self.trainer = MatchTrainer(self.model, mode=2, optimizer_params=optimizer)  # the first of a list is the item
        cross_entropy = torch.nn.CrossEntropyLoss()
        self.trainer.criterion = lambda scores, first: cross_entropy(scores / settings["temperature"], first)

    def train_epoch(self, rows):
        self.trainer.train_one_epoch(self.batches(rows))

    def batches(self, rows):
        for batch in shuffled(rows, self.settings["batch_size"]):
            shape = (len(batch["item_id"]), self.settings["negatives"])
            x = {name: batch[name] for name in ("user_id", "hist_item_id", "item_id")}
            yield x | {"negatives": torch.randint(1, self.item_size, shape)}, torch.zeros(shape[0])

    def user_input(self, columns):
        return columns

    def items(self):
        table = self.model.embedding.embed_dict["item_id"].weight.detach()
        return torch.nn.functional.normalize(table).numpy()


if __name__ == "__main__":
    main()
