"""Energies with a generator inside: how badly the best that (x, z) can say explains y.

Source: LeCun et al., "A tutorial on energy-based learning" (2006); lecture (NYU Deep Learning 2020, week
7-2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssl_ebm.energy.inference import Inference, Inferred
from ssl_ebm.energy.latents import FiniteLatent, Latent
from ssl_ebm.energy.stages import Staged
from ssl_ebm.errors import UserError

Cost = Callable[[Tensor, Tensor], Tensor]
"""(y (B, *Y), y_hat (B, S, *Y)) -> (B, S), 0 or more."""


def squared_error(y: Tensor, y_hat: Tensor) -> Tensor:
    """C(y, y_hat) = |y - y_hat|^2, summed over y's dimensions: (B, *Y), (B, S, *Y) -> (B, S).

    Unit: that of y, squared. Half-precision inputs are summed into float32: a sum over the pixels of a frame
    in bfloat16 has steps as large as the differences between candidates.

    Raises:
        UserError: the shapes do not match (broadcasting would compare the wrong things).
    """
    if y.shape != y_hat.shape[:1] + y_hat.shape[2:]:
        raise UserError(
            f"y is {tuple(y.shape)}, but the predictions (batch, candidates, ...) are {tuple(y_hat.shape)}"
        )
    wide = torch.promote_types(torch.promote_types(y.dtype, y_hat.dtype), torch.float32)
    error = y_hat.to(wide) - y.unsqueeze(1).to(wide)  # (B, S, *Y)
    return error.square().sum(tuple(range(2, error.ndim))) if error.ndim > 2 else error.square()


class PredictiveEnergy(Staged, nn.Module):
    """E(x, y, z) = C(y, Dec(h, z)) + regularisation * R(z), with the context h = Pred(x).

    The context is computed once per batch by `context` and handed to `decode` and `energy`: K candidates of
    z cost one pass of the predictor and K of the decoder.

    Unconditional energy E(y, z) = C(y, Dec(z)) + regularisation * R(z): leave `predictor` out and use h =
    None everywhere.

    Where z has several values, all of which are tried, their predictions and costs are a stage (`Staged`),
    unless the decoder has stages of its own.

    Args:
        decoder: `decoder(h, z)`, or `decoder(z)` where h is None: z (B, S, D) -> y_hat (B, S, *Y). Folding S
            into the batch, or bringing z in late so that most of the work is shared, is its business.
        latent: the space of z; holds R and D.
        predictor: x -> h, one tensor or any structure of tensors that the decoder takes. None: h = x.
        cost: C; `squared_error` (sum over y's dimensions) by default.
        regularisation: weight of R(z), 0 or more, finite.

    Raises:
        UserError: `regularisation` is negative or not finite.
    """

    def __init__(
        self,
        decoder: nn.Module,
        latent: Latent,
        predictor: nn.Module | None = None,
        cost: Cost = squared_error,
        regularisation: float = 1.0,
    ) -> None:
        super().__init__()
        if not (math.isfinite(regularisation) and regularisation >= 0):
            raise UserError(f"regularisation must be a finite number, 0 or more, got {regularisation}")
        self.decoder = decoder
        self.latent = latent
        self.predictor = predictor
        self.cost = cost
        self.regularisation = regularisation
        several = isinstance(latent, FiniteLatent) and latent.codes > 1
        inside = any(isinstance(part, Staged) for part in decoder.modules())
        self.stages = ("misfit",) if several and not inside else ()

    def context(self, x: Any) -> Any:
        """h = Pred(x). To be called once per batch, whatever the number of candidates."""
        return x if self.predictor is None else self.predictor(x)

    def decode(self, h: Any, z: Tensor) -> Tensor:
        """Predictions y_hat for candidates: z (B, S, D) -> (B, S, *Y). h = None: unconditional.

        Raises:
            UserError: z is not (B, S, D) with the latent's D, or the decoder's output is not (B, S, ...).
        """
        if z.ndim != 3:
            raise UserError(f"z must be (batch, candidates, {self.latent.dim}), got {tuple(z.shape)}")
        self.latent.check(z)
        y_hat = self.decoder(z) if h is None else self.decoder(h, z)
        if y_hat.shape[:2] != z.shape[:2]:
            raise UserError(
                f"the decoder must return (batch, candidates, ...) = {tuple(z.shape[:2])} + y's shape, "
                f"got {tuple(y_hat.shape)}"
            )
        return y_hat

    def energy(self, y: Tensor, h: Any, z: Tensor) -> Tensor:
        """E of each candidate: y (B, *Y), z (B, S, D) -> (B, S). Differentiable in parameters, y, h and z.

        Raises:
            UserError: as `decode`; as the cost (`squared_error` compares shapes); or the cost does not
                return (B, S).
        """
        return self.misfit(y, h, z) + self.regularisation * self.latent.regulariser(z)

    def misfit(self, y: Tensor, h: Any, z: Tensor) -> Tensor:
        """C(y, Dec(h, z)) alone, without R(z): y (B, *Y), z (B, S, D) -> (B, S). Errors as `energy`."""
        cost = self.cost(y, self.decode(h, z))  # (B, S)
        if cost.shape != z.shape[:2]:
            raise UserError(
                f"cost must return (batch, candidates) = {tuple(z.shape[:2])}, got {tuple(cost.shape)}"
            )
        return cost

    def infer(
        self, inference: Inference, y: Tensor, h: Any, generator: torch.Generator | None = None
    ) -> Inferred:
        """z* = argmin_z E by the given inference: y (B, *Y) -> z (B, D), energy (B,)."""
        return inference(_EnergyGiven(self, y, h), self.latent, y, h, generator)

    def forward(self, x: Any, y: Tensor, z: Tensor) -> Tensor:
        """E(x, y, z) from the beginning, context included: z (B, S, D) -> (B, S)."""
        return self.energy(y, self.context(x), z)


@dataclass(frozen=True)
class _EnergyGiven:
    """E(x, y, .) as a function of z alone, which knows its smooth part: a `SplitEnergy`."""

    model: PredictiveEnergy
    y: Tensor
    h: Any

    @property
    def regularisation(self) -> float:
        return self.model.regularisation

    def smooth(self, z: Tensor) -> Tensor:
        return self.model.misfit(self.y, self.h, z)

    def __call__(self, z: Tensor) -> Tensor:
        return self.model.energy(self.y, self.h, z)


def check_finite(energies: Tensor, where: str) -> Tensor:
    """Returns `energies` (B,) or (B, S) unchanged if all are finite.

    Waits for the device: call it once in a while (at the end of an epoch, or of a failing step), not in
    every step.

    Raises:
        UserError: names `where`, how many are not finite, and the place and value of the first.
    """
    bad = ~torch.isfinite(energies.detach())
    if bool(bad.any()):
        first = tuple(int(i) for i in bad.nonzero()[0])
        names = ("item", "candidate", "index", "index")
        place = ", ".join(f"{name} {i}" for name, i in zip(names, first, strict=False))
        raise UserError(
            f"{where}: {int(bad.sum())} of {bad.numel()} energies are not finite, the first at {place} "
            f"({energies.detach()[first].item()}); lower the learning rate or look at that input"
        )
    return energies
