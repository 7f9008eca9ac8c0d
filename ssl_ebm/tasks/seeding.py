"""Random numbers of training that do not depend on what ran before."""

from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class SeededSteps(Callback):
    """Makes torch's global random numbers in a training step a function of (seed, process, step).

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

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self._batch_of_step = self._batch_of_step + 1 if trainer.global_step == self._step else 0
        self._step = trainer.global_step
        place = (self.seed, trainer.global_rank, self._step, self._batch_of_step)
        _seed_torch(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1))


def _seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which spends a stack trace on every call where CUDA is absent.

    A GPU that trains has been initialised; asking whether one exists looks for its driver at every step.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
