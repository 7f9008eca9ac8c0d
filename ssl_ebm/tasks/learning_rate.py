"""The learning rate of a recipe, on a batch of another size than the recipe's."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from ssl_ebm.errors import UserError


def global_batch(trainer: Trainer) -> int | None:
    """Items in an optimizer step: of a batch of one process, times processes, times accumulated batches.

    None where the DataModule has no `batch_size`.
    """
    items = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
    if not isinstance(items, int):
        return None
    return items * trainer.world_size * trainer.accumulate_grad_batches


def peak_rate(module: LightningModule, lr: float) -> float:
    """The peak learning rate of this training.

        lr * global_batch / reference

    where the module has an attribute `lr_reference_batch` (the reference, in items); else lr. One step on k
    times as many items then goes about as far as k steps did. What is given in optimizer steps (warm-up,
    max_steps) stays as it is.

    Where the data says no batch size, lr is taken as it is, with a warning.

    Raises:
        UserError: a reference below 1.

    Source: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour" (2017), section 2.1; He
    et al., "Masked autoencoders are scalable vision learners" (2022), table 8.
    """
    reference: int | None = getattr(module, "lr_reference_batch", None)
    trainer = module._trainer  # `trainer` raises where there is none
    if reference is None or trainer is None:
        return lr
    if reference < 1:
        raise UserError(f"lr_reference_batch is {reference}: use at least 1 item, or leave it out")
    batch = global_batch(trainer)
    if batch is None:
        rank_zero_warn(
            f"lr_reference_batch is {reference}, but the data does not say how many items a batch has: the "
            f"learning rate is {lr:g} as it stands; give the DataModule an attribute batch_size"
        )
        return lr
    rate = lr * batch / reference
    rank_zero_info(f"learning rate {rate:g}: {lr:g} for every {reference:,} items, and a step has {batch:,}")
    return rate
