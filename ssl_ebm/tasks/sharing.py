"""What several processes must agree on so that they train as one that has the whole batch.

DistributedDataParallel averages gradients over processes. That is the gradient of the whole batch where a
loss is a mean over items, and where what is drawn for an item does not depend on the process that holds it.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from ssl_ebm.energy.draws import ItemGenerator


def place_of(module: LightningModule) -> tuple[int, int]:
    """Number of processes and which of them this is; (1, 0) outside of a Trainer."""
    trainer = module._trainer  # `trainer` raises where there is none
    return (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)


def item_generator(module: LightningModule, seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose numbers for an item of a batch do not depend on the process that holds it."""
    processes, rank = place_of(module)
    return ItemGenerator(device, processes, rank).manual_seed(seed)


def mean_of_all(module: LightningModule, total: Tensor, count: Tensor) -> Tensor:
    """total / count where counts differ among processes: () each, to be averaged over the processes.

        total_r / mean_s(count_s), whose mean over r is sum_r(total_r) / sum_s(count_s)

    The mean of the processes' own means is another number. A count of 0 everywhere gives 0. All processes
    must call it, so they are asked in training alone, in which each makes every step; in an evaluation it is
    this process's own mean, which the caller weights.
    """
    trainer: Any = module._trainer
    # Whole numbers have no mean: it would be rounded.
    count = count.detach().to(torch.promote_types(total.dtype, torch.float32))
    processes = place_of(module)[0]
    if not module.training or processes == 1:
        return total / count.clamp_min(1)
    # One may have counted nothing, so the least mean above 0 is 1 / processes.
    return total / trainer.strategy.reduce(count, reduce_op="mean").clamp_min(1 / processes)


def of_all_processes(module: LightningModule, values: Tensor) -> Tensor:
    """Values (B, *) of this process's items -> (processes * B, *) in the order of the batch, detached."""
    if place_of(module)[0] == 1:
        return values
    found = module.all_gather(values.detach())
    assert isinstance(found, Tensor)
    return found.transpose(0, 1).flatten(0, 1)  # item i of process r stands at i * processes + r
