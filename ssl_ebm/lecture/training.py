"""The training loop of the examples, and what they measure of an energy in the plane."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

Draw = Callable[[int], Tensor]
"""Step -> a batch of data (B, *Y)."""


def train(
    model: nn.Module,
    objective: Any,
    draw: Draw,
    steps: int,
    lr: float,
    seed: int,
    after_step: Callable[[int], None] | None = None,
) -> None:
    """AdamW without decay, cosine to zero, gradients cut to norm 10; parameters of the objective learn too.

    The objective is given a generator of its own, seeded by `seed`.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if isinstance(objective, nn.Module):
        known = {id(p) for p in parameters}
        parameters += [p for p in objective.parameters() if p.requires_grad and id(p) not in known]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = objective(model, draw(step), generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        if after_step is not None:
            after_step(step)


def batches_of(data: Tensor, size: int, seed: int) -> Draw:
    """Random batches of `size` from data (N, *Y), a pure function of (seed, step)."""

    def draw(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return data[torch.randint(len(data), (size,), generator=generator)]

    return draw


def exponent(distance: Tensor, energy: Tensor) -> float:
    """b of energy = a * distance^b, by least squares of the logarithms: (N,), (N,), both above 0."""
    slope, _ = np.polyfit(distance.log().double().numpy(), energy.log().double().numpy(), 1)
    return float(slope)


def auroc(low: Tensor, high: Tensor) -> float:
    """Chance that a value of `low` lies below one of `high`, ties counted half: (N,), (M,)."""
    _, rank = torch.cat([low, high]).unique(return_inverse=True)
    # ranks in [0, 1]: torchmetrics would squeeze other scores through a sigmoid, which makes ties
    scores = rank.double() / max(int(rank.max()), 1)
    above = torch.cat([torch.zeros(len(low)), torch.ones(len(high))]).long()
    return float(binary_auroc(scores, above))
