"""Inference by gradient steps on z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_ebm.energy.autograd import needs_gradients
from ssl_ebm.energy.inference.base import EnergyOfLatent, Inferred, starts
from ssl_ebm.energy.latents import Latent, Quantised
from ssl_ebm.errors import UserError

OptimizerName = Literal["sgd", "adam"]


@dataclass(frozen=True)
class GradientDescent:
    """Projected gradient steps on z from random starts; keeps the best point seen, so more steps never hurt.

    z <- project(z - lr * step(dE/dz)). A local minimum: `restarts` starts per item, drawn from the latent's
    reference measure, run side by side as candidates. `energies` (B, restarts) are without gradient.

    Costs `steps` forward and backward passes of the decoder over B * restarts candidates, and two forward
    passes at the end. Candidates must not see each other: no batch statistics in the decoder.

    Args:
        steps: number of steps, 1 or more.
        lr: step size, above 0: units of z per unit of gradient (sgd), or about units of z per step (adam).
        optimizer: "sgd" (plain gradient) or "adam" (Kingma & Ba 2015, torch's default moments).
        restarts: starting points per item, 1 or more.

    Raises:
        UserError: a setting out of its range; on a call: under `torch.inference_mode`, which forbids
            gradients; a codebook that is to be trained, which no gradient would reach.
    """

    steps: int
    lr: float
    optimizer: OptimizerName = "sgd"
    restarts: int = 1

    def __post_init__(self) -> None:
        check_descent(self.steps, self.lr, self.optimizer)
        if self.restarts < 1:
            raise UserError(f"gradient descent: restarts must be at least 1, got {self.restarts}")

    def __call__(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        if isinstance(latent, Quantised) and latent.codebook.requires_grad and torch.is_grad_enabled():
            raise UserError(
                "gradient descent: the codes of Quantised would get no gradient and never learn: use "
                "Enumeration, or Amortised with VectorQuantisation"
            )
        start = starts(latent, len(y), self.restarts, generator, y.device)
        z, energies = descend(energy_of_z, latent, start, self.steps, self.lr, self.optimizer)
        index = energies.argmin(1)  # (B,)
        best = z[torch.arange(len(y), device=z.device), index]  # (B, D)
        return Inferred(best, energy_of_z(best[:, None])[:, 0], energies, index)


def descend(
    energy_of_z: EnergyOfLatent,
    latent: Latent,
    start: Tensor,
    steps: int,
    lr: float,
    optimizer: OptimizerName,
) -> tuple[Tensor, Tensor]:
    """Best point on the path of projected descent: z (B, S, D) and its energies (B, S), both detached."""
    needs_gradients("inference by gradient steps")
    z = latent.project(start).detach().clone().requires_grad_()
    optim = torch.optim.SGD([z], lr=lr) if optimizer == "sgd" else torch.optim.Adam([z], lr=lr)
    best_z, best = z.detach().clone(), None
    with torch.enable_grad():
        for _ in range(steps):
            energies = energy_of_z(z)  # (B, S)
            # Candidates do not see each other, so the gradient of the sum is each one's own. Only z's is
            # asked for: parameters collect nothing here.
            (z.grad,) = torch.autograd.grad(energies.sum(), z, materialize_grads=True)
            best_z, best = _keep_best(best_z, best, z.detach(), energies.detach())
            optim.step()
            with torch.no_grad():
                z.copy_(latent.project(z))
    with torch.no_grad():
        last = energy_of_z(z)
    return _keep_best(best_z, best, z.detach(), last)


def _keep_best(best_z: Tensor, best: Tensor | None, z: Tensor, energies: Tensor) -> tuple[Tensor, Tensor]:
    # A NaN on the way is never better; a NaN at the start stays, and so reaches the loss.
    if best is None:
        return z.clone(), energies
    better = energies < best  # (B, S)
    return torch.where(better[..., None], z, best_z), torch.where(better, energies, best)


def check_descent(steps: int, lr: float, optimizer: str) -> None:
    """Raises UserError for a setting out of its range."""
    if steps < 1:
        raise UserError(f"gradient descent: steps must be at least 1, got {steps}")
    if not 0 < lr < float("inf"):
        raise UserError(f"gradient descent: lr must be a finite number above 0, got {lr}")
    if optimizer not in ("sgd", "adam"):
        raise UserError(f'gradient descent: optimizer must be "sgd" or "adam", got {optimizer!r}')
