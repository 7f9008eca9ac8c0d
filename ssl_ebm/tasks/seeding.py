"""Random numbers of training that do not depend on what ran before, nor on how a batch is split."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ssl_ebm.tasks.sharing import item_generator


class SeededSteps(Callback):
    """Makes the random numbers of a training step a function of (seed, step), and of nothing else.

    torch's global ones are also those of the process. A task that draws for the items of a batch (masks,
    noise) draws from its attribute `draws`, set here for the time of a step: the same numbers for any number
    of processes. With one process it is None, and the global ones serve.

    So a run that resumes from a checkpoint draws what the uninterrupted run would have drawn, without saving
    the generators of all processes and devices, and nothing that is drawn between two steps (validation,
    pictures) changes the training. With accumulated gradients each batch of a step has numbers of its own.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._step = -1
        self._batch_of_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = -1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._batch_of_step = self._batch_of_step + 1 if trainer.global_step == self._step else 0
        self._step = trainer.global_step
        if trainer.world_size == 1:
            _seed_torch(self._seed_of(0))
            return
        _seed_torch(self._seed_of(1 + trainer.global_rank))
        if hasattr(pl_module, "draws"):
            pl_module.draws = item_generator(pl_module, self._seed_of(0), pl_module.device)  # type: ignore[assignment]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if hasattr(pl_module, "draws"):
            pl_module.draws = None  # type: ignore[assignment]

    def _seed_of(self, stream: int) -> int:
        """Stream 0 is for the items of the whole batch, 1 + r is process r's own."""
        place = (self.seed, stream, self._step, self._batch_of_step)
        return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)


def _seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which spends a stack trace on every call where CUDA is absent.

    A GPU that trains has been initialised; asking whether one exists looks for its driver at every step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
