"""The optimizer that the tasks share, run by a Trainer, against the formulas of AdamW and of its schedule."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from two_futures import trainer

from ssl_ebm.errors import UserError
from ssl_ebm.tasks.optimization import adamw_with_cosine

STEPS, WARM_UP, LR, DECAY, CLIP = 6, 2, 0.1, 0.2, 1.5


class Linear(LightningModule):
    """A loss whose gradient is whatever the batch says."""

    def __init__(self, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        generator = torch.Generator().manual_seed(0)
        self.matrix = torch.nn.Parameter(torch.randn(2, 3, generator=generator))
        self.bias = torch.nn.Parameter(torch.randn(3, generator=generator))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.matrix * batch[:2]).sum() + (self.bias * batch[2]).sum()

    def configure_optimizers(self) -> Any:
        return adamw_with_cosine(self, LR, DECAY, WARM_UP, self.momentum)


def train(gradients: Tensor, steps: int, momentum: float = 0.9, **settings: Any) -> Linear:
    model = Linear(momentum)
    trainer(steps, **settings).fit(model, DataLoader(list(gradients), batch_size=None))
    return model


@pytest.mark.parametrize(("precision", "momentum"), [("32-true", 0.9), ("bf16-mixed", 0.9), ("32-true", 0.0)])
def test_weights_are_those_of_the_formula(precision: str, momentum: float) -> None:
    gradients = torch.randn(STEPS, 3, 3, generator=torch.Generator().manual_seed(1))
    model = train(gradients, STEPS, momentum, precision=precision, gradient_clip_val=CLIP)

    start = Linear()
    weights = np.concatenate([start.matrix.detach().numpy(), start.bias.detach().numpy()[None]]).astype(float)
    decay = np.array([[DECAY], [DECAY], [0.0]])  # on matrices alone
    mean, square = np.zeros((3, 3)), np.zeros((3, 3))
    clipped = 0
    for step, gradient in enumerate(gradients.numpy().astype(float)):
        norm = np.linalg.norm(gradient)
        clipped += norm > CLIP
        gradient = gradient * min(1.0, CLIP / norm)
        lr = LR * min(1.0, (step + 1) / (WARM_UP + 1)) * (1 + math.cos(math.pi * step / STEPS)) / 2
        mean = momentum * mean + (1 - momentum) * gradient
        square = 0.99 * square + 0.01 * gradient**2
        unbiased = mean / (1 - momentum ** (step + 1)), square / (1 - 0.99 ** (step + 1))
        weights = weights * (1 - lr * decay) - lr * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    assert clipped >= 2
    assert model.matrix.detach().numpy() == pytest.approx(weights[:2], abs=1e-5)
    assert model.bias.detach().numpy() == pytest.approx(weights[2], abs=1e-5)


def test_a_training_without_end_is_refused() -> None:
    with pytest.raises(UserError, match=r"max_steps or trainer\.max_epochs"):
        train(torch.zeros(1, 3, 3), steps=-1)
