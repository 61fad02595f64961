"""Trains a transformer of RecTools under quality.py's protocol; prints one JSON line.

Usage: quality_rectools.py JOB, as quality.py makes it. Needs NumPy and RecTools with PyTorch. It gets the training
events, which RecTools cuts itself, and hands back the vectors of the best epoch, which quality.py ranks.
"""

from importlib.metadata import version

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from quality import Progress, clock, print_result, ranks, read_arrays, read_job, save
from rectools import Columns, models
from rectools.dataset import Dataset
from rectools.models.nn.transformers.ligr import LiGRLayers

UNKNOWN = -1e9  # the score of an item that RecTools has no vector for


def main():
    job = read_job()
    parts, _, item_size = read_arrays(job)
    settings = job["settings"]
    torch.set_num_threads(1)  # a second one adds processor time
    lightning.seed_everything(job["seed"], verbose=False)
    watch = Watch(job, parts, item_size)
    arguments = dict(settings["arguments"])
    if arguments.pop("ligr", False):
        arguments["transformer_layers_type"] = LiGRLayers
    watch.model = getattr(models, settings["model"])(
        session_max_len=settings["max_len"], get_trainer_func=watch.trainer, **arguments
    )
    watch.model.fit(dataset_of(**parts["events"]))
    if job["rank"]:
        watch.model.torch_model.load_state_dict(watch.best_weights)
        save(job, watch.vectors(job["rank"]))
    versions = {name: version(name) for name in ("rectools", "torch", "pytorch-lightning")}
    print_result(watch.progress, watch.seconds, versions)


def dataset_of(sequences, items):
    frame = {Columns.User: sequences, Columns.Item: items, Columns.Weight: 1.0}
    order = pd.to_datetime(np.arange(len(items)), unit="s")  # events of a user are sorted already
    return Dataset.construct(pd.DataFrame({**frame, Columns.Datetime: order}))


class Watch(lightning.Callback):
    """Ranks the validation items after parts of epochs, off the clock; keeps the best weights; stops.

    An epoch on the larger sets takes as long as a budget, so here it is a part of one that counts as an epoch.
    """

    def __init__(self, job, parts, item_size):
        self.parts, self.item_size, self.rank, self.now = parts, item_size, job["rank"], clock(job)
        self.progress, self.steps = Progress(**job["limits"]), job["settings"]["steps"]
        self.model, self.best_weights, self.seconds, self._began = None, None, 0.0, 0.0

    def __deepcopy__(self, memo):  # RecTools copies the trainer
        return self

    def trainer(self):
        return lightning.Trainer(
            max_epochs=-1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            callbacks=[self],
        )

    def on_train_start(self, trainer, module):
        self._began = self.now()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step % self.steps:
            return
        self.seconds += self.now() - self._began
        if self.progress.add(self.seconds, self.validation_ranks if self.rank else None):
            self.best_weights = {name: value.clone() for name, value in self.model.torch_model.state_dict().items()}
        trainer.should_stop = self.progress.done
        module.train()
        self._began = self.now()

    def validation_ranks(self):
        vectors = self.vectors(["validation"])
        return ranks(vectors["validation"], vectors["items"], self.parts["validation"])

    @torch.no_grad()
    def vectors(self, parts):
        """Users' and items'. One component more makes items that RecTools doesn't know score ``UNKNOWN``."""
        network, prepared = self.model.torch_model.eval(), self.model.data_preparator
        table = network.item_model.get_all_embeddings()
        known = prepared.get_known_item_ids().astype(int)
        internal = np.zeros(self.item_size, int)
        internal[known] = prepared.get_known_items_sorted_internal_ids()
        items = np.zeros((self.item_size, table.shape[1] + 1), "float32")
        items[:, -1] = UNKNOWN
        is_cosine = network.similarity_module.distance.value == "cosine"
        rows = torch.nn.functional.normalize(table) if is_cosine else table
        items[known] = np.pad(rows.numpy()[internal[known]], ((0, 0), (0, 1)))
        return {"items": items} | {part: self._users(network, table, internal, part) for part in parts}

    def _users(self, network, table, internal, part):
        found = internal[self.parts[part]["hist_item_id"][:, ::-1]]  # the oldest first, padding in front, as RecTools'
        found = np.take_along_axis(found, np.argsort(found != 0, axis=1, kind="stable"), axis=1)
        users = [network.encode_sessions({"x": batch}, table)[:, -1] for batch in torch.from_numpy(found).split(256)]
        return np.pad(torch.cat(users).numpy(), ((0, 0), (0, 1)), constant_values=1)


if __name__ == "__main__":
    main()
