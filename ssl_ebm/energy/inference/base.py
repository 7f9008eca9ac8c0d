"""What an inference is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ssl_ebm.energy.latents import FiniteLatent, Latent

EnergyOfLatent = Callable[[Tensor], Tensor]
"""Candidates z (B, S, D) -> energies (B, S)."""


class SplitEnergy(Protocol):
    """An `EnergyOfLatent` that knows its parts: smooth(z) + regularisation * R(z).

    Attributes:
        regularisation: weight of R(z), 0 or more.
    """

    @property
    def regularisation(self) -> float: ...

    def smooth(self, z: Tensor) -> Tensor:
        """The differentiable part: candidates z (B, S, D) -> (B, S)."""
        ...

    def __call__(self, z: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Inferred:
    """What an inference found.

    Attributes:
        z: (B, D), detached: the best candidate.
        energy: (B,), E at z: differentiable in the parameters, not in z.
        energies: (B, S), of all the candidates that were compared: the K codes of an enumeration (the exact
            free energy at any temperature is a function of these), the restarts of a descent, one for an
            encoder. Differentiable only where the inference says so.
        index: (B,) int64, which candidate is z; the code's number for an enumeration.
        proposal: (B, D), the encoder's own output with its graph, where there is an encoder. It is what
            trains the encoder, by energy_of_z(proposal[:, None]) or by its distance to z (Kavukcuoglu,
            Ranzato, LeCun, "Fast inference in sparse coding algorithms", 2008).
    """

    z: Tensor
    energy: Tensor
    energies: Tensor
    index: Tensor
    proposal: Tensor | None = None


class Inference(Protocol):
    """How to find z*.

    One that differentiates a gradient of the energy says so by an attribute `second_derivatives`, True:
    torch.compile cannot.

    Args of a call:
        energy_of_z: candidates (B, S, D) -> energies (B, S).
        latent: the space of z.
        y: (B, *Y); gives the batch size and the device, and is the encoder's input where there is one.
        context: what the encoder sees beside y; None: the encoder is called with y alone.
        generator: for starting points.
    """

    def __call__(
        self,
        energy_of_z: EnergyOfLatent,
        latent: Latent,
        y: Tensor,
        context: Any = None,
        generator: torch.Generator | None = None,
    ) -> Inferred: ...


def starts(
    latent: Latent, items: int, each: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """So many starting points for each item, from the latent's reference measure: (items, each, D).

    Drawn for all items, then for all again: so an item's do not depend on how many processes share the batch
    (see `ItemGenerator`).
    """
    return latent.sample(each * items, generator, device).unflatten(0, (each, items)).transpose(0, 1)


def fitting(latent: Latent) -> str:
    """What to use in place of an inference that does not take this latent, for its error."""
    return "Enumeration" if isinstance(latent, FiniteLatent) else "GradientDescent"
