"""Inference that draws z from its posterior in place of minimising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_ebm.energy.inference.base import EnergyOfLatent, Inferred
from ssl_ebm.energy.latents import FiniteLatent, Latent, Sphere
from ssl_ebm.energy.sampling import Langevin, Sampler
from ssl_ebm.errors import UserError


@dataclass(frozen=True)
class PosteriorSampling:
    """z ~ p(z | x, y), proportional to pi(z) exp(-beta E(x, y, z)), with pi the latent's reference measure.

    Candidates are the ends of `chains` chains per item, started from pi; z is the last draw of the first of
    them, not the best. `energies` (B, chains) are without gradient.

    Args:
        sampler: its beta is the posterior's.
        steps: of each chain, 1 or more.
        chains: per item, 1 or more.

    Raises:
        UserError: a setting out of its range; on a call: a finite latent (`posterior` is exact there), a
            `Sphere`, a `Ball` with a sampler that refuses no step, and as the sampler. What is not finite is
            left in the energy, where a training's loss will show it.
    """

    sampler: Sampler
    steps: int
    chains: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.chains < 1:
            raise UserError(
                f"posterior sampling: steps is {self.steps} and chains {self.chains}: use at least 1"
            )

    def __call__(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        if isinstance(latent, FiniteLatent):
            raise UserError("posterior sampling: a finite latent's posterior is exact: use Enumeration")
        if isinstance(latent, Sphere):
            raise UserError("posterior sampling: chains leave a Sphere at once: use Ball or Gaussian")

        if isinstance(self.sampler, Langevin) and not latent.unbounded:
            raise UserError(
                f"posterior sampling: {type(self.sampler).__name__} leaves a {type(latent).__name__}: use "
                "Metropolis, Mala or Hmc"
            )

        def candidates(state: Tensor) -> Tensor:  # the first chain of every item, then the second ones
            return state.unflatten(0, (self.chains, len(y))).transpose(0, 1)

        def energy(state: Tensor) -> Tensor:
            z = candidates(state)
            return (energy_of_z(z) - latent.log_density(z) / self.sampler.beta).T.flatten()

        start = latent.sample(self.chains * len(y), generator, y.device)
        z = candidates(self.sampler.sample(energy, start, self.steps, generator, check=False).state)
        with torch.no_grad():
            energies = energy_of_z(z)
        index = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        return Inferred(z[:, 0], energy_of_z(z[:, :1])[:, 0], energies, index)
