"""The optimizer and the schedule that the tasks share."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch.nn import Parameter

from ssl_ebm.errors import UserError
from ssl_ebm.tasks.learning_rate import peak_rate

# Where torch updates all weights in one pass; on a processor that takes a third of the time.
FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")


def total_steps(module: LightningModule) -> float:
    """Optimizer steps of the whole training, inf where it has no end (max_steps = max_epochs = -1)."""
    return module.trainer.estimated_stepping_batches


def progress_of(module: LightningModule) -> float:
    """Share of the training that is done, 0 to 1; 0 where it has no end, 1 outside of a training."""
    trainer = module._trainer  # `trainer` raises where there is none
    if trainer is None or not trainer.training:
        return 1.0
    return min(1.0, module.global_step / total_steps(module))


def adamw_with_cosine(
    module: LightningModule,
    lr: float,
    weight_decay: float,
    warmup_steps: int,
    momentum: float = 0.9,
    second_momentum: float = 0.99,  # a few thousand steps are too few for a memory of thousands
    rates: Sequence[tuple[Sequence[Parameter], float]] | None = None,
) -> Any:
    """AdamW (decay on matrices and convolutions alone), linear warm-up, cosine to zero at the last step.

    `momentum` and `second_momentum` are beta1 and beta2 of AdamW. The peak is `peak_rate` of `lr`.

    Args:
        rates: parameters, each list with the factor of its learning rate; None: all of the module, 1.

    Raises:
        UserError: the training has no end; a number is out of its range.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019).
    """
    groups: list[dict[str, Any]] = []
    lr = peak_rate(module, lr)
    for parameters, rate in rates or [(list(module.parameters()), 1.0)]:
        trained = [p for p in parameters if p.requires_grad and p.numel()]
        matrices, others = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
        groups.append({"params": matrices, "lr": lr * rate, "weight_decay": weight_decay})
        groups.append({"params": others, "lr": lr * rate, "weight_decay": 0.0})
    fused = module.device.type in FUSED_DEVICES
    try:
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=(momentum, second_momentum), fused=fused)
    except ValueError as error:  # a number out of its range
        raise UserError(f"AdamW: {error}: set lr, weight_decay, momentum or second_momentum") from error
    # A fused optimizer offers to undo a gradient scaler's factor itself, and then Lightning (2.6) refuses to
    # clip gradients in any mixed precision, with a scaler or without. The scaler can undo it as well.
    optimizer._step_supports_amp_scaling = False
    total = max(1, total_steps(module))
    if math.isinf(total):
        raise UserError(
            "the training has no end, which its learning rate and temperature need: set trainer.max_steps or "
            "trainer.max_epochs"
        )

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / (warmup_steps + 1))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
