"""Ends a training where a test wants it to end."""

import os
import signal
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback


class KillAtBatch(Callback):
    """SIGKILL to the own process at the beginning of a batch.

    Args:
        batch: its number since training began, counted from 0.
        rank: of the one process that ends so; None: all.
    """

    def __init__(self, batch: int, rank: int | None = None) -> None:
        self.batch, self.rank = batch, rank

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        here = trainer.fit_loop.epoch_loop.total_batch_idx == self.batch
        if here and self.rank in (None, trainer.global_rank):
            os.kill(os.getpid(), signal.SIGKILL)
