"""A task as it is, as a function from a batch to features: of any layers, pooled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning import LightningModule
from torch import Tensor

from ssl_ebm.errors import UserError
from ssl_ebm.tasks.features import Features, Pooling


class Frozen:
    """A task as a function of a batch, in evaluation mode, without gradients.

    Args:
        task: has `inputs` and `representation`.
        layer, pooling: what is taken, as `Features` takes it.

    Raises:
        UserError: a task without a representation, or as `Features`.
    """

    def __init__(self, task: LightningModule, layer: str | None = None, pooling: Pooling = "mean") -> None:
        if not hasattr(task, "representation") or not hasattr(task, "inputs"):
            raise UserError(f"{type(task).__name__} has no representation: there is nothing to probe")
        self.task: Any = task
        self.features = Features(task, layer, pooling)

    def __call__(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B, D) float, or (B, T, D) where nothing is pooled."""
        inputs = self.task.inputs(batch).to(self.task.device)
        if inputs.is_floating_point():
            weights = (one.dtype for one in self.task.parameters() if one.is_floating_point())
            inputs = inputs.to(next(weights, inputs.dtype))
        return self.features(inputs).float()

    def seen(self, batch: Mapping[str, Tensor], features: Tensor) -> Tensor | None:
        """Which of the features (B, T, D) of a batch stand for input, (B, T) bool: of text, those that are no
        padding; None: all.
        """
        return self.features.seen(self.task.inputs(batch).to(features.device), features)
