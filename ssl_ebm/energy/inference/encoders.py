"""Inference by an encoder that has learnt to foresee z*."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_ebm.energy.inference.base import EnergyOfLatent, Inferred
from ssl_ebm.energy.inference.descent import OptimizerName, check_descent, descend
from ssl_ebm.energy.latents import Latent
from ssl_ebm.errors import UserError


class Amortised(nn.Module):
    """z* guessed in one pass by a trained encoder, then projected into the space: z = project(Enc(y,
    context)).

    An upper bound of the minimum. The encoder is trained through `Inferred.proposal`.

    Args:
        encoder: `encoder(y, context)`, or `encoder(y)` where context is None: (B, *Y) -> (B, D).

    Raises:
        UserError: on a call: the encoder's output is not (B, D).
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        proposal = _propose(self.encoder, latent, y, context)
        z = latent.project(proposal.detach()).detach()  # (B, D)
        energies = energy_of_z(z[:, None])  # (B, 1)
        index = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        return Inferred(z, energies[:, 0], energies, index, proposal)


class AmortisedRefined(nn.Module):
    """An encoder's guess, then projected gradient steps from there; never worse than the guess.

    Args:
        encoder: as in `Amortised`.
        steps, lr, optimizer: as in `GradientDescent`.

    Raises:
        UserError: as in `Amortised` and `GradientDescent`.
    """

    def __init__(self, encoder: nn.Module, steps: int, lr: float, optimizer: OptimizerName = "sgd") -> None:
        super().__init__()
        check_descent(steps, lr, optimizer)
        self.encoder = encoder
        self.steps = steps
        self.lr = lr
        self.optimizer: OptimizerName = optimizer

    def forward(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred:
        proposal = _propose(self.encoder, latent, y, context)
        start = proposal.detach()[:, None]  # (B, 1, D)
        z, energies = descend(energy_of_z, latent, start, self.steps, self.lr, self.optimizer)
        index = torch.zeros(len(y), dtype=torch.int64, device=y.device)
        return Inferred(z[:, 0], energy_of_z(z)[:, 0], energies, index, proposal)


def _propose(encoder: nn.Module, latent: Latent, y: Tensor, context: Any) -> Tensor:
    """The encoder's output (B, D), at least float32."""
    proposal: Tensor = encoder(y) if context is None else encoder(y, context)
    if proposal.shape != (len(y), latent.dim):
        raise UserError(
            f"the encoder must return (batch, latent dim) = {(len(y), latent.dim)}, "
            f"got {tuple(proposal.shape)}"
        )
    # Steps of a descent are lost in half precision, which an encoder returns under autocast.
    return proposal.to(torch.promote_types(proposal.dtype, torch.float32))
