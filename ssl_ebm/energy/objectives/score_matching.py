"""Score matching: the gradient of F is to be that of -log p of the data; flat at the data, curved around it.

    p is proportional to exp(-F); its score is s(y) = -dF/dy

None of the three needs Z, samples of the model, or negatives. All need a second derivative of F, so F must
be smooth (SiLU or softplus units, not ReLU), and a `LatentEnergy` must have a finite latent: UserError.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ssl_ebm.energy.latents import FiniteLatent
from ssl_ebm.energy.objectives.base import check_learns
from ssl_ebm.energy.sampling import EnergyOfState
from ssl_ebm.energy.sampling.chains import normal_like
from ssl_ebm.energy.unconditional import LatentEnergy
from ssl_ebm.errors import UserError


class ScoreMatching(nn.Module):
    """L = mean 1/2 |dF/dy|^2 - tr d2F/dy2, exact; costs one backward pass per dimension of y.

    Equals 1/2 E|s_model - s_data|^2 up to a constant of the data (Hyvarinen 2005, theorem 1).

    Source: Hyvarinen, "Estimation of non-normalized statistical models by score matching" (2005), equation 4.
    """

    second_derivatives = True

    def forward(
        self,
        model: EnergyOfState,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        y, slope, nothing = _slope(model, y)
        with torch.enable_grad():
            flat = slope.flatten(1)  # (B, D)
            trace = torch.zeros_like(flat[:, 0])
            for d in range(flat.shape[1]):
                (row,) = torch.autograd.grad(flat[:, d].sum(), y, create_graph=True, materialize_grads=True)
                trace = trace + row.flatten(1)[:, d]
        return (0.5 * flat.square().sum(1) - trace).mean() + nothing


class SlicedScoreMatching(nn.Module):
    """L = mean 1/2 |dF/dy|^2 - v' d2F/dy2 v over random directions v; costs one backward pass for each.

    Its expectation over v (mean 0, covariance I) is that of `ScoreMatching`.

    Args:
        directions: of N(0, I) per datum, 1 or more.

    Raises:
        UserError: directions is below 1.

    Source: Song, Garg, Shi, Ermon, "Sliced score matching" (2019), equation 8 (the variance-reduced form).
    """

    second_derivatives = True

    def __init__(self, directions: int = 1) -> None:
        super().__init__()
        if directions < 1:
            raise UserError(f"sliced score matching: directions is {directions}: use at least 1")
        self.directions = directions

    def forward(
        self,
        model: EnergyOfState,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        y, slope, nothing = _slope(model, y)
        curvature = torch.zeros((), dtype=y.dtype, device=y.device)
        for _ in range(self.directions):
            v = normal_like(y, generator)
            with torch.enable_grad():
                slope_along = (slope * v).sum()
                (along,) = torch.autograd.grad(slope_along, y, create_graph=True, materialize_grads=True)
            curvature = curvature + (along * v).flatten(1).sum(1).mean()
        return 0.5 * slope.flatten(1).square().sum(1).mean() - curvature / self.directions + nothing


class DenoisingScoreMatching(nn.Module):
    """L = mean 1/2 |sigma dF/dy(y + sigma xi) - xi|^2: the score of the data blurred by noise of size sigma.

    The score of y + sigma xi given y is -xi / sigma; weighted by sigma^2 the loss does not depend on the
    unit of y. exp(-F) becomes the density of the blurred data, not of the data.

    Args:
        noise: sigma, above 0, in units of y.

    Raises:
        UserError: noise is not a number above 0.

    Source: Vincent, "A connection between score matching and denoising autoencoders" (2011), equation 10.
    """

    second_derivatives = True

    def __init__(self, noise: float) -> None:
        super().__init__()
        if not 0 < noise < math.inf:
            raise UserError(f"denoising score matching: noise is {noise}: use a number above 0")
        self.noise = noise

    def forward(
        self,
        model: EnergyOfState,
        y: Tensor,
        generator: torch.Generator | None = None,
        index: Tensor | None = None,
    ) -> Tensor:
        xi = normal_like(y, generator)
        _, slope, nothing = _slope(model, y + self.noise * xi)
        return 0.5 * (self.noise * slope - xi).flatten(1).square().sum(1).mean() + nothing


def _slope(model: EnergyOfState, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """y as a leaf, dF/dy with its graph, and 0 with the graph of F: it makes the gradient of a last bias, on
    which no slope depends, a zero and not a nothing, which training on several processes needs.

    Raises:
        UserError: a `LatentEnergy` with a continuous z, whose second derivatives are not those of F.
    """
    if isinstance(model, LatentEnergy) and not isinstance(model.model.latent, FiniteLatent):
        raise UserError(
            "score matching differentiates F twice, which is wrong for a minimum over the z of a "
            f"{type(model.model.latent).__name__}: use OneHot or Quantised, or an objective such as "
            "ContrastiveDivergence"
        )
    check_learns(model)
    y = y.detach().requires_grad_()
    with torch.enable_grad():
        total = model(y).sum()
        (slope,) = torch.autograd.grad(total, y, create_graph=True)
    return y, slope, 0 * total
