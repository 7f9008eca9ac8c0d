"""Stopping a training whose loss or weights are no longer finite, before such weights are saved."""

import torch
from lightning import LightningModule
from torch import Tensor, nn

from ssl_ebm.errors import UserError

# Optimizer steps between two looks at the loss, each of which waits for the device.
CHECK_STEPS = 50


class DivergenceWatch(nn.Module):
    """Remembers, on the device, whether anything was not finite; asking it is what waits for the device.

    Attributes:
        diverged: (), bool; in no checkpoint.
    """

    diverged: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("diverged", torch.zeros((), dtype=torch.bool), persistent=False)

    def see(self, values: Tensor) -> None:
        """Remembers it if any of the values is not finite."""
        self.diverged |= ~values.detach().isfinite().all()

    def stop_if_diverged(self, task: LightningModule) -> None:
        """Waits for the device, and for all processes: they stop together.

        Raises:
            UserError: something was not finite, in whichever process.
        """
        if task.trainer.strategy.reduce_boolean_decision(bool(self.diverged), all=False):
            lr = task.hparams["lr"]
            raise UserError(
                f"{task.hparams['objective']}: the training loss is not finite at or shortly before "
                f"optimizer step {task.global_step}; lower lr ({lr}) or set trainer.gradient_clip_val"
            )
