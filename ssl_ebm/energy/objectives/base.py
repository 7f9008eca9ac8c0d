"""What an objective is: a number that falls as the energy takes the shape of the data."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ssl_ebm.energy.inference import Amortised, AmortisedRefined
from ssl_ebm.energy.latents import FiniteLatent, Quantised
from ssl_ebm.energy.unconditional import LatentEnergy
from ssl_ebm.errors import UserError


class Objective(Protocol):
    """How an energy is shaped.

    One that differentiates a gradient of the energy says so by an attribute `second_derivatives`, True:
    torch.compile cannot.

    Args of a call:
        model: y (B, *Y) -> F(y) (B,); some objectives need more of it and say so. An encoder that infers z
            learns from `Amortisation` and `VectorQuantisation` alone; the others refuse one that is to learn.
        y: (B, *Y), data.
        generator: of all random numbers; None: the global one.
        index: (B,) int64, the place of each y in its data set, for objectives that keep something for each.

    Returns:
        The loss, ().
    """

    def __call__(
        self,
        model: Any,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor: ...


def check_learns(model: Any) -> None:
    """Raises UserError for a `LatentEnergy` with an encoder, or codes that it chooses from, that are to learn
    and would not: F is E at a z without gradient."""
    if not isinstance(model, LatentEnergy) or not isinstance(model.inference, Amortised | AmortisedRefined):
        return
    latent = model.model.latent
    if any(p.requires_grad for part in (model.inference, latent) for p in part.parameters()):
        parts, use = f"the encoder of {type(model.inference).__name__}", "Amortisation"
        if isinstance(latent, Quantised):
            parts, use = f"{parts} or its codes", "VectorQuantisation, with Amortised inference"
        elif isinstance(latent, FiniteLatent):
            use = "Enumeration"
        raise UserError(f"no gradient of F reaches {parts}, which would never learn: use {use}")
