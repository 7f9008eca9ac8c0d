"""Deterministic rules for averages over a latent of one or two dimensions.

A rule is a list of nodes z_s and weights w_s that sum to 1, so that the average of f is sum_s w_s f(z_s).
Weights are kept as logs because `free_energy` adds them to -beta E inside a logsumexp.

Source: Golub & Welsch, "Calculation of Gauss quadrature rules" (1969), in numpy's `leggauss`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_ebm.errors import UserError


class Quadrature(NamedTuple):
    """Nodes (S, D) and log-weights (S,), logsumexp(log_weights) = 0."""

    nodes: Tensor
    log_weights: Tensor


def box(dim: int, order: int, half_width: float) -> Quadrature:
    """Uniform average over the box [-half_width, half_width]^dim by a product of Gauss-Legendre rules,
    float64.

    Exact for polynomials up to degree 2 order - 1 in each coordinate. S = order^dim nodes, so dim is 1 or 2.

    Raises:
        UserError: `dim` is not 1 or 2, or `order` is below 2.
    """
    _check(dim, order)
    node, weight = np.polynomial.legendre.leggauss(order)
    z = torch.from_numpy(node) * half_width
    log_w = torch.from_numpy(weight / 2).log()
    if dim == 1:
        return Quadrature(z[:, None], log_w)
    return Quadrature(torch.cartesian_prod(z, z), (log_w[:, None] + log_w[None, :]).flatten())


def disc(order: int, radius: float) -> Quadrature:
    """Uniform average over the disc |z| <= radius in two dimensions, float64, S = 2 order^2 nodes.

    Polar: Gauss-Legendre in the squared radius (in which the uniform measure is flat), equidistant angles.

    Raises:
        UserError: `order` is below 2.
    """
    _check(2, order)
    node, weight = np.polynomial.legendre.leggauss(order)
    length = radius * torch.from_numpy((node + 1) / 2).sqrt()  # (order,)
    angle = torch.arange(2 * order, dtype=torch.float64) * (math.pi / order)  # (2 order,)
    circle = torch.stack([angle.cos(), angle.sin()], -1)  # (2 order, 2)
    nodes = (length[:, None, None] * circle[None]).reshape(-1, 2)
    log_w = torch.from_numpy(weight / 2).log() - math.log(2 * order)
    return Quadrature(nodes, log_w.repeat_interleave(2 * order))


def _check(dim: int, order: int) -> None:
    if dim not in (1, 2):
        raise UserError(
            f"quadrature: z has {dim} dimensions; it takes 1 or 2, use importance sampling instead"
        )
    if order < 2:
        raise UserError(f"quadrature: order must be at least 2, got {order}")
