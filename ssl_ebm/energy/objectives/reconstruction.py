"""Reconstruct y: from a corrupted copy, or by a map that is as constant as it can be.

Both shape F(y) = |y - Dec(Enc(y))|^2, a `ReconstructionEnergy`.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_ebm.energy.energies import squared_error
from ssl_ebm.energy.sampling.chains import normal_like
from ssl_ebm.energy.unconditional import ReconstructionEnergy
from ssl_ebm.errors import UserError


class Denoising(nn.Module):
    """L = mean |y - G(y + noise * xi)|^2: G learns the way from off the manifold back to it.

    The best G(y) - y is noise^2 times the score of the blurred data (Alain & Bengio 2014), so F(y) = |y -
    G(y)|^2 grows with the square of the distance from the manifold, as far as the noise reaches.

    Args:
        noise: standard deviation of the corruption, above 0, in units of y.

    Raises:
        UserError: noise is not a number above 0.

    Source: Vincent et al., "Extracting and composing robust features with denoising autoencoders" (2008).
    """

    def __init__(self, noise: float) -> None:
        super().__init__()
        if not 0 < noise < math.inf:
            raise UserError(f"denoising: noise is {noise}: use a number above 0")
        self.noise = noise

    def forward(
        self,
        model: ReconstructionEnergy,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        back = model.reconstruct(y + self.noise * normal_like(y, generator))
        return squared_error(y, back[:, None]).mean()


class Contractive(nn.Module):
    """L = mean F(y) + weight * |dG/dy|_F^2: reconstruct the data by a map that hardly moves with y.

    With `of` "reconstruction" G is Dec(Enc(y)), and a weight of sigma^2 makes it, to first order, a denoising
    autoencoder of that noise. With "encoder" it is Enc alone, as first published: that needs decoder weights
    tied to the encoder's, or the decoder undoes any contraction by its scale.

    The squared norm of the Jacobian is estimated without bias by E_v |v' dG/dy|^2, v ~ N(0, I).

    Args:
        weight: of the Jacobian, above 0.
        of: whose Jacobian.
        directions: v per datum, 1 or more.

    Raises:
        UserError: a setting out of its range.

    Source: Rifai et al., "Contractive auto-encoders" (2011), equation 1 (the encoder's); Alain & Bengio,
    "What regularized auto-encoders learn from the data-generating distribution" (2014), equation 6 (the
    reconstruction's); estimate: Hutchinson (1990).
    """

    second_derivatives = True

    def __init__(
        self,
        weight: float,
        of: Literal["reconstruction", "encoder"] = "reconstruction",
        directions: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < weight < math.inf or directions < 1:
            raise UserError(f"contractive: weight is {weight} and directions {directions}: use above 0 and 1")
        if of not in ("reconstruction", "encoder"):
            raise UserError(f"contractive: of must be reconstruction or encoder, got {of!r}")
        self.weight = weight
        self.of = of
        self.directions = directions

    def forward(
        self,
        model: ReconstructionEnergy,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            code = model.encoder(y)
            made = model.decoder(code)
            mapped = code if self.of == "encoder" else made
            norm = torch.zeros((), dtype=y.dtype, device=y.device)
            for _ in range(self.directions):
                v = normal_like(mapped, generator)
                (pulled,) = torch.autograd.grad(mapped, y, v, create_graph=True)
                norm = norm + pulled.flatten(1).square().sum(1).mean()
            return squared_error(y, made[:, None]).mean() + self.weight * norm / self.directions
