"""Latents that are vectors of real numbers, limited by noise, by a norm, or by how many are not zero."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ssl_ebm.energy.draws import normal, uniform
from ssl_ebm.energy.latents.space import Latent, require
from ssl_ebm.energy.quadrature import Quadrature, box, disc


class Gaussian(Latent):
    """z in R^D with R(z) = 1/2 |z|^2. Reference measure: N(0, I).

    Capacity is limited by Gaussian noise of standard deviation `noise` that `perturb` adds to z before it is
    decoded: a z of unit variance then carries at most D/2 log(1 + 1/noise^2) nats (Cover & Thomas, "Elements
    of information theory", section 9.1), and R keeps z from growing to shout the noise down. noise = 0
    limits nothing but the norm. `noise` is a plain attribute, so that a schedule can raise it while training.

    Args:
        dim: D, at least 1.
        noise: standard deviation of the noise, in units of z; 0 or more.

    Raises:
        UserError: `dim` is below 1, `noise` is negative or not finite, or a z of another size is given.
    """

    unbounded = True

    def __init__(self, dim: int, noise: float) -> None:
        super().__init__(dim)
        require(
            math.isfinite(noise) and noise >= 0,
            f"latent: noise must be a finite number, 0 or more, got {noise}",
        )
        self.noise = noise

    def sample(
        self, count: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> Tensor:
        return normal((count, self.dim), self._anchor.dtype, device or self._anchor.device, generator)

    def log_density(self, z: Tensor) -> Tensor:
        """-1/2 |z|^2 - D/2 log(2 pi)."""
        return -self.regulariser(z) - 0.5 * self.dim * math.log(2 * math.pi)

    def regulariser(self, z: Tensor) -> Tensor:
        """1/2 |z|^2: (..., dim) -> (...)."""
        self.check(z)
        return 0.5 * z.square().sum(-1)

    def project(self, z: Tensor) -> Tensor:
        self.check(z)
        return z

    def perturb(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """z + noise * eps with eps ~ N(0, I): (..., dim) -> (..., dim)."""
        self.check(z)
        if self.noise == 0:
            return z
        return z + self.noise * normal(tuple(z.shape), z.dtype, z.device, generator)

    def quadrature(self, order: int = 64) -> Quadrature:
        """Nodes and log-weights for averages under N(0, I), dim 1 or 2; order^dim nodes.

        Gauss-Legendre on [-8, 8]^dim times the density, renormalised: 1e-15 of the mass lies outside. Unlike
        Gauss-Hermite it resolves narrow peaks off-centre as well as at the centre. Nodes are 25 / order
        apart, so a posterior of standard deviation s (about 1 / sqrt(beta)) needs an order of 30 / s.

        Raises:
            UserError: `dim` is above 2 or `order` below 2.
        """
        nodes, log_weights = box(self.dim, order, half_width=8.0)
        log_weights = torch.log_softmax(log_weights + self.log_density(nodes), 0)
        return Quadrature(nodes.to(self._anchor), log_weights.to(self._anchor))


class Ball(Latent):
    """z in R^D with |z| <= radius, R(z) = 0 inside. Reference measure: uniform on the ball.

    Capacity is limited by the radius, relative to how fast the decoder may vary; `project` holds the
    constraint.

    Args:
        dim: D, at least 1.
        radius: above 0, in units of z.

    Raises:
        UserError: `dim` is below 1, `radius` is not a finite positive number, or a z of another size is
            given.
    """

    def __init__(self, dim: int, radius: float) -> None:
        super().__init__(dim)
        require(
            math.isfinite(radius) and radius > 0,
            f"latent: radius must be a finite number above 0, got {radius}",
        )
        self.radius = radius

    def sample(
        self, count: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> Tensor:
        device = device or self._anchor.device
        direction = normal((count, self.dim), self._anchor.dtype, device, generator)
        # A uniform point of the ball: uniform direction, and a radius whose D-th power is uniform.
        share = uniform((count, 1), self._anchor.dtype, device, generator)
        length = self.radius * share.pow(1 / self.dim)
        norm = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        nowhere = norm == 0  # to the pole, as a `Sphere` projects it
        direction[:, :1].masked_fill_(nowhere, 1)
        return length * direction / norm.masked_fill(nowhere, 1)

    def log_density(self, z: Tensor) -> Tensor:
        """-log volume inside, -inf outside."""
        self.check(z)
        half = self.dim / 2
        log_volume = half * math.log(math.pi) - math.lgamma(half + 1) + self.dim * math.log(self.radius)
        # Points that `project` put on the surface count as inside, whatever way their norm was rounded.
        slack = 1 + 8 * torch.finfo(z.dtype).eps
        inside = torch.linalg.vector_norm(z, dim=-1) <= self.radius * slack
        return torch.full_like(z[..., 0], -log_volume).masked_fill(~inside, -math.inf)

    def project(self, z: Tensor) -> Tensor:
        self.check(z)
        # The norm is clamped from below, not the ratio from above: its gradient at z = 0 is finite that way.
        norm = torch.linalg.vector_norm(z, dim=-1, keepdim=True).clamp_min(self.radius)
        return z * (self.radius / norm)

    def quadrature(self, order: int = 64) -> Quadrature:
        """Nodes and log-weights for averages under the uniform measure, dim 1 (order nodes) or 2 (2 order^2
        nodes).

        Raises:
            UserError: `dim` is above 2 or `order` below 2.
        """
        rule = disc(order, self.radius) if self.dim == 2 else box(self.dim, order, self.radius)
        return Quadrature(rule.nodes.to(self._anchor), rule.log_weights.to(self._anchor))


class Sphere(Latent):
    """z in R^D with |z| = radius, R(z) = 0. Reference measure: uniform on the sphere.

    Density is with respect to area. With D = 1 there are two points, -radius and radius.

    Args:
        dim: D, at least 1.
        radius: above 0, in units of z.

    Raises:
        UserError: `dim` is below 1, `radius` is not a finite positive number, or a z of another size is
            given.
    """

    def __init__(self, dim: int, radius: float = 1.0) -> None:
        super().__init__(dim)
        require(
            math.isfinite(radius) and radius > 0,
            f"latent: radius must be a finite number above 0, got {radius}",
        )
        self.radius = radius

    def sample(
        self, count: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> Tensor:
        return self.project(
            normal((count, self.dim), self._anchor.dtype, device or self._anchor.device, generator)
        )

    def log_density(self, z: Tensor) -> Tensor:
        """-log area on the sphere (to a thousandth of the radius), -inf off it."""
        self.check(z)
        half = self.dim / 2
        log_area = math.log(2) + half * math.log(math.pi) - math.lgamma(half)
        log_area += (self.dim - 1) * math.log(self.radius)
        on_it = (torch.linalg.vector_norm(z, dim=-1) / self.radius - 1).abs() < 1e-3
        return torch.full_like(z[..., 0], -log_area).masked_fill(~on_it, -math.inf)

    def project(self, z: Tensor) -> Tensor:
        """radius z / |z|; the centre, from which all points are equally far, goes to (radius, 0, ..., 0)."""
        self.check(z)
        norm = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
        pole = torch.zeros_like(z)
        pole[..., 0] = self.radius
        return torch.where(norm > 0, z * (self.radius / norm.clamp_min(torch.finfo(z.dtype).tiny)), pole)


class Sparse(Latent):
    """z in R^D with R(z) = |z|_1, which few numbers other than zero keep small. Reference measure:
    independent Laplace distributions, exp(-|z|_1) / 2^D.

    With a linear decoder whose columns have a norm of at most 1, and the weight of R (the energy's
    `regularisation`) as the limit on what z can say, E(y, z) = |y - W z|^2 + regularisation * |z|_1 is sparse
    coding.

    Args:
        dim: D, at least 1; more than y has numbers for an overcomplete dictionary.

    Raises:
        UserError: `dim` is below 1, or a z of another size is given.

    Source: Olshausen & Field, "Sparse coding with an overcomplete basis set" (1997).
    """

    unbounded = True

    def sample(
        self, count: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> Tensor:
        device = device or self._anchor.device
        centred = 2 * uniform((count, self.dim), self._anchor.dtype, device, generator) - 1  # in [-1, 1)
        return -centred.sign() * (-centred.abs()).log1p().clamp_min(-40)

    def log_density(self, z: Tensor) -> Tensor:
        """-|z|_1 - D log 2."""
        return -self.regulariser(z) - self.dim * math.log(2)

    def regulariser(self, z: Tensor) -> Tensor:
        """|z|_1: (..., dim) -> (...)."""
        self.check(z)
        return z.abs().sum(-1)

    def project(self, z: Tensor) -> Tensor:
        self.check(z)
        return z

    def proximal(self, z: Tensor, step: float | Tensor) -> Tensor:
        """argmin_u 1/2 |u - z|^2 + step |u|_1: every entry moves towards 0 by `step`, and stops there."""
        self.check(z)
        return z.sign() * (z.abs() - step).clamp_min(0)
