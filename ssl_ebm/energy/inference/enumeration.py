"""Exact inference: every value of a finite latent is tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_ebm.energy.inference.base import EnergyOfLatent, Inferred
from ssl_ebm.energy.latents import FiniteLatent, Latent
from ssl_ebm.errors import UserError


@dataclass(frozen=True)
class Enumeration:
    """Exact: tries every value of a finite latent.

    Ties go to the lowest index. A NaN energy wins, so that it is seen.

    Args:
        gradient: "all": `energies` (B, K) are differentiable (a loss over all codes needs it); "minimum":
            the K energies are computed without a graph and the best code is evaluated again with one, which
            saves K - 1 backward passes. With dropout the second evaluation differs from the first.
        chunk: values tried at a time; None: all at once. Bounds the memory where no graph is kept (under
            no_grad, or with gradient "minimum").

    Raises:
        UserError: `chunk` is below 1, `gradient` is neither; on a call: the latent is not finite.
    """

    gradient: Literal["all", "minimum"] = "all"
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.gradient not in ("all", "minimum"):
            raise UserError(f'enumeration: gradient must be "all" or "minimum", got {self.gradient!r}')
        if self.chunk is not None and self.chunk < 1:
            raise UserError(f"enumeration: chunk must be at least 1, got {self.chunk}")

    def __call__(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        if not isinstance(latent, FiniteLatent):
            raise UserError(
                f"enumeration needs a latent with finitely many values (OneHot, Quantised), not "
                f"{type(latent).__name__}: use gradient descent or an encoder"
            )
        codes = latent.enumerate().to(y.device)  # (K, D)
        candidates = codes.expand(len(y), -1, -1)  # (B, K, D)
        again = self.gradient == "minimum" and torch.is_grad_enabled()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not again):
            parts = candidates.split(self.chunk or len(codes), dim=1)
            energies = torch.cat([energy_of_z(part) for part in parts], dim=1)  # (B, K)
        index = energies.detach().argmin(1)  # (B,)
        best = codes[index]  # (B, D); learnt codes are parameters, so they stay in the graph of the energy
        energy = energy_of_z(best[:, None])[:, 0] if again else energies.gather(1, index[:, None])[:, 0]
        return Inferred(best.detach(), energy, energies, index)
