"""Stopping a training whose loss or weights are no longer finite, before such weights are saved."""

from __future__ import annotations

import math
from typing import Any

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
        value: (), float32: the first value that was not finite; NaN where it was among weights.
    """

    diverged: Tensor
    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("diverged", torch.zeros((), dtype=torch.bool), persistent=False)
        self.register_buffer("value", torch.zeros(()), persistent=False)

    def see(self, values: Tensor) -> None:
        """Remembers it if any of the values is not finite."""
        values = values.detach()
        bad = ~values.isfinite().all()
        shown = values if values.ndim == 0 else torch.full((), math.nan, device=values.device)
        self.value = torch.where(bad & ~self.diverged, shown.to(self.value), self.value)
        self.diverged |= bad


class WatchedTask(LightningModule):
    """A task whose training stops when its loss, or a weight, is no longer finite.

    `training_step` hands its loss to ``self.divergence.see``. Settings: `lr` among the hyper-parameters.

    Attributes:
        draws: of what a training step draws for the items of a batch; None: torch's global generator. See
            `ssl_ebm.tasks.seeding.SeededSteps`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.divergence = DivergenceWatch()
        self.draws: torch.Generator | None = None

    @property
    def objective_name(self) -> str:
        """What is trained, for the error."""
        return str(self.hparams["objective"])

    def on_train_batch_end(self, *_: Any) -> None:
        if self.global_step % CHECK_STEPS == 0:
            self._stop_if_diverged()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A checkpoint never holds weights that a non-finite loss, or gradient, has touched.
        for weights in self.parameters():
            self.divergence.see(weights)
        self._stop_if_diverged()
        checkpoint["task"] = type(self).__name__

    def _stop_if_diverged(self) -> None:
        """Waits for the device, and for all processes: they stop together."""
        if self.trainer.strategy.reduce_boolean_decision(bool(self.divergence.diverged), all=False):
            value, lr = self.divergence.value.item(), self.hparams["lr"]
            raise UserError(
                f"{self.objective_name}: the training loss is not finite ({value}) at or shortly before "
                f"optimizer step {self.global_step}; lower lr ({lr}) or set trainer.gradient_clip_val"
            )
