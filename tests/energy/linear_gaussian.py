"""The one continuous latent whose free energy is known in closed form: a linear decoder.

E(y, z) = |y - A z|^2 + lam/2 |z|^2, z in R^D with reference measure N(0, I).
With M = (1 + beta lam) I + 2 beta A'A and c = 2 beta A'y, completing the square gives

    F_beta = |y|^2 + (log det M - c' M^-1 c) / (2 beta),    p(z | y) = N(M^-1 c, M^-1),

and at zero temperature ridge regression: z* = (A'A + lam/2 I)^-1 A'y.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl_ebm.energy import Gaussian, PredictiveEnergy


@dataclass(frozen=True)
class LinearGaussian:
    """A: (P, D) float64, lam: weight of R."""

    A: Tensor
    lam: float

    def model(self) -> PredictiveEnergy:
        outputs, dim = self.A.shape
        decoder = nn.Linear(dim, outputs, bias=False, dtype=torch.float64)
        with torch.no_grad():
            decoder.weight.copy_(self.A)
        return PredictiveEnergy(decoder, Gaussian(dim, noise=0.0).double(), regularisation=self.lam)

    def posterior(self, y: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        """Mean (B, D) and covariance (D, D) of p(z | y)."""
        precision = self._precision(beta)
        return torch.linalg.solve(precision, 2 * beta * self.A.T @ y.T).T, torch.linalg.inv(precision)

    def free_energy(self, y: Tensor, beta: float) -> Tensor:
        c = 2 * beta * y @ self.A  # (B, D)
        quadratic = (c * torch.linalg.solve(self._precision(beta), c.T).T).sum(-1)
        return y.square().sum(-1) + (torch.logdet(self._precision(beta)) - quadratic) / (2 * beta)

    def ridge(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z* (B, D) and F = min E (B,)."""
        gram = self.A.T @ self.A + 0.5 * self.lam * torch.eye(self.A.shape[1], dtype=torch.float64)
        z = torch.linalg.solve(gram, self.A.T @ y.T).T
        return z, (y - z @ self.A.T).square().sum(-1) + 0.5 * self.lam * z.square().sum(-1)

    def average(self, y: Tensor) -> Tensor:
        """E_{z ~ N(0, I)}[E] (B,): the limit of beta -> 0."""
        return y.square().sum(-1) + self.A.square().sum() + 0.5 * self.lam * self.A.shape[1]

    def _precision(self, beta: float) -> Tensor:
        eye = torch.eye(self.A.shape[1], dtype=torch.float64)
        return (1 + beta * self.lam) * eye + 2 * beta * self.A.T @ self.A


def gaussian(model: PredictiveEnergy) -> Gaussian:
    assert isinstance(model.latent, Gaussian)
    return model.latent


def weight(model: PredictiveEnergy) -> Tensor:
    assert isinstance(model.decoder, nn.Linear)
    return model.decoder.weight


def example(dim: int, outputs: int = 4, lam: float = 0.7, seed: int = 0) -> LinearGaussian:
    generator = torch.Generator().manual_seed(seed)
    return LinearGaussian(torch.randn(outputs, dim, generator=generator, dtype=torch.float64), lam)
