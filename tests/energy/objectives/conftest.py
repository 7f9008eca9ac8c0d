"""Energies small enough to know everything about."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ssl_ebm.energy.objectives import GridLikelihood


class Bowl(nn.Module):
    """F(y) = 1/2 precision |y|^2 + offset: exp(-F) is N(0, I / precision), up to a factor."""

    def __init__(self, precision: float = 1.0, offset: float = 0.0) -> None:
        super().__init__()
        self.log_precision = nn.Parameter(torch.tensor(precision, dtype=torch.float64).log())
        self.offset = nn.Parameter(torch.tensor(offset, dtype=torch.float64))

    def forward(self, y: Tensor) -> Tensor:
        return 0.5 * self.log_precision.exp() * y.square().flatten(1).sum(1) + self.offset


def gradient(loss: Tensor, model: nn.Module) -> Tensor:
    """All parameters' gradients in one vector."""
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), found, strict=True)]
    return torch.cat([part.flatten() for part in parts])


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@pytest.fixture
def network() -> nn.Module:
    """A smooth energy in two dimensions with several wells, that grows far away."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1)
    ).double()
    with torch.no_grad():
        layers[0].weight *= 3

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = layers

        def forward(self, y: Tensor) -> Tensor:
            out: Tensor = 6 * self.layers(y)[:, 0] + 0.5 * y.square().sum(1)
            return out

    return Net()


@pytest.fixture
def exact() -> GridLikelihood:
    return GridLikelihood(-6.0, 6.0, points=120).double()


@pytest.fixture
def data() -> Tensor:
    """(512, 2): two blobs."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.tensor([[1.5, 0.0], [-1.5, 1.0]], dtype=torch.float64)
    which = torch.randint(2, (512,), generator=generator)
    return centres[which] + 0.3 * torch.randn(512, 2, dtype=torch.float64, generator=generator)


Energy = Callable[[Tensor], Tensor]
