"""Densities whose moments are known: a correlated Gaussian, and two modes on the line by quadrature."""

from __future__ import annotations

import torch
from torch import Tensor

COVARIANCE = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -0.5], dtype=torch.float64)


def gaussian(y: Tensor) -> Tensor:
    """Minus the log density of N(MEAN, COVARIANCE), up to a constant: (N, 2) -> (N,)."""
    gap = y - MEAN
    return 0.5 * (gap @ torch.linalg.inv(COVARIANCE) * gap).sum(-1)


def gaussian_draws(count: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return MEAN + noise @ torch.linalg.cholesky(COVARIANCE).T


def two_modes(y: Tensor) -> Tensor:
    """(y^2 - 1)^2 + y / 2: wells near -1 and 1, the left one deeper: (N, 1) -> (N,)."""
    return (y[:, 0].square() - 1).square() + 0.5 * y[:, 0]


def two_modes_moments(beta: float = 1.0) -> tuple[float, float, float]:
    """Mean, second moment and mass left of 0 under exp(-beta E), on a grid of [-4, 4]."""
    y = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    p = torch.softmax(-beta * two_modes(y[:, None]), 0)
    return (float((p * y).sum()), float((p * y * y).sum()), float(p[y < 0].sum()))


def two_modes_draws(count: int, generator: torch.Generator, beta: float = 1.0) -> Tensor:
    """Exact, but for the grid of 0.0004."""
    y = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    index = torch.multinomial(
        torch.softmax(-beta * two_modes(y[:, None]), 0), count, True, generator=generator
    )
    return y[index][:, None]
