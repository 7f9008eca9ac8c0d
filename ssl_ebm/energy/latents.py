"""The spaces that a latent variable z lives in.

A latent says what the observed x does not. One that can say everything makes the energy flat (every y is
cheap), one that can say nothing gives back the average of all y, so each space here limits what z can say by
a setting that is seen: the number of codes, the noise added to z, the radius of a ball.

Every space carries a probability measure pi, its *reference measure*: `sample` draws from it and
`log_density` is its log-density (log-probability for a finite space). The free energy at inverse temperature
beta is an average under pi (`ssl_ebm.energy.free_energy`); for the uniform pi of a finite space or a ball
that is the 1/|Z| of the textbook formula.

Source: LeCun, Chopra, Hadsell, Ranzato, Huang, "A tutorial on energy-based learning" (2006), section 4
(latent variable architectures).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ssl_ebm.energy.quadrature import Quadrature, box, disc
from ssl_ebm.errors import UserError


class Latent(nn.Module, ABC):
    """A space of latents: vectors z of `dim` numbers, a regulariser R(z), a reference measure, a projection.

    Tensors made by a latent have the device and the floating dtype that the module was moved to.

    Raises:
        UserError: `dim` is below 1.
    """

    _anchor: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        _require(dim >= 1, f"latent: dim must be at least 1, got {dim}")
        self.dim = dim
        # Carries device and dtype for spaces without parameters; not a part of any checkpoint.
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)

    @abstractmethod
    def sample(
        self, count: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> Tensor:
        """`count` independent draws from the reference measure, (count, dim).

        Drawn on the generator's device (the CPU without one) and then moved: the same seed gives the same z
        everywhere.
        """

    @abstractmethod
    def log_density(self, z: Tensor) -> Tensor:
        """Log of the reference measure at z (..., dim) -> (...), in nats; -inf outside of the space."""

    @abstractmethod
    def project(self, z: Tensor) -> Tensor:
        """The nearest point of the space, in Euclidean distance: (..., dim) -> (..., dim). Idempotent."""

    def regulariser(self, z: Tensor) -> Tensor:
        """R(z), in the energy's unit: (..., dim) -> (...). Zero unless a space says otherwise.

        Raises:
            UserError: z's last dimension is not `dim`.
        """
        self.check(z)
        return torch.zeros_like(z[..., 0])

    def perturb(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """z as the decoder sees it in training, (..., dim): z itself, unless a space limits z by noise.

        Not called by an energy, which is a function: training calls it between inference and decoding.
        """
        return z

    def check(self, z: Tensor) -> None:
        """Raises UserError when z's last dimension is not `dim`. Reads shapes alone."""
        found = z.shape[-1] if z.ndim else "no dimension"
        _require(
            z.ndim > 0 and z.shape[-1] == self.dim,
            f"latent: {type(self).__name__} has dim {self.dim}, but z's last dimension is {found}",
        )


class FiniteLatent(Latent):
    """A latent with finitely many values: minima and sums over z are exact. Reference measure: uniform."""

    codes: int

    @abstractmethod
    def enumerate(self) -> Tensor:
        """All values of z, (K, dim). Differentiable where the values are learnt."""

    @abstractmethod
    def nearest(self, z: Tensor) -> Tensor:
        """Index of the value nearest to z in Euclidean distance: (..., dim) -> (...) int64."""

    def sample(
        self, count: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> Tensor:
        origin = generator.device if generator is not None else torch.device("cpu")
        index = torch.randint(self.codes, (count,), generator=generator, device=origin)
        device = device or self._anchor.device
        return self.enumerate().to(device)[index.to(device)]

    def log_density(self, z: Tensor) -> Tensor:
        """-log K: every value is equally likely. z is taken to be one of the values."""
        self.check(z)
        return torch.full_like(z[..., 0], -math.log(self.codes))

    def project(self, z: Tensor) -> Tensor:
        return self.enumerate()[self.nearest(z)]


class OneHot(FiniteLatent):
    """z is one of the K corners e_1 .. e_K of the simplex, R(z) = 0. Capacity: log K nats, set by `codes`.

    With a linear decoder, E(y, z) = |y - W z|^2 is K-means (LeCun et al. 2006; lecture, K-means example).

    Args:
        codes: K, at least 1; also `dim`.

    Raises:
        UserError: `codes` is below 1, or a z of another size is given.
    """

    def __init__(self, codes: int) -> None:
        _require(codes >= 1, f"latent: codes must be at least 1, got {codes}")
        super().__init__(codes)
        self.codes = codes

    def enumerate(self) -> Tensor:
        return torch.eye(self.codes, device=self._anchor.device, dtype=self._anchor.dtype)  # (K, K)

    def nearest(self, z: Tensor) -> Tensor:
        # |z - e_k|^2 = |z|^2 + 1 - 2 z_k: the nearest corner is the largest entry.
        self.check(z)
        return z.argmax(-1)

    def project(self, z: Tensor) -> Tensor:
        return one_hot(self.nearest(z), self.codes).to(z.dtype)


class Quantised(FiniteLatent):
    """z is one of K learnt vectors, R(z) = 0. Capacity: log K nats, set by `codes`.

    Two ways to train the codebook: enumerate it (its values are in the graph, so the energy moves them), or
    `quantise` an encoder's output (then the codebook needs a term of its own, as in van den Oord et al.
    2017, equation 3).

    Source: van den Oord, Vinyals, Kavukcuoglu, "Neural discrete representation learning" (2017), section 3.

    Args:
        codes: K, at least 1.
        dim: D, at least 1. The codebook (K, D) starts as draws from N(0, 1): unit variance is what a
            decoder's first layer expects of its input.

    Raises:
        UserError: `codes` or `dim` is below 1, or a z of another size is given.
    """

    def __init__(self, codes: int, dim: int) -> None:
        _require(codes >= 1, f"latent: codes must be at least 1, got {codes}")
        super().__init__(dim)
        self.codes = codes
        self.codebook = nn.Parameter(torch.randn(codes, dim))

    def enumerate(self) -> Tensor:
        return self.codebook  # (K, D)

    def nearest(self, z: Tensor) -> Tensor:
        self.check(z)
        with torch.no_grad():
            # Not |z|^2 + |e|^2 - 2 z.e, whose rounding swaps neighbours when the codes lie close together.
            distance = torch.cdist(
                z.reshape(-1, self.dim), self.codebook, compute_mode="donot_use_mm_for_euclid_dist"
            )
            return distance.argmin(-1).reshape(z.shape[:-1])

    def quantise(self, z: Tensor) -> Tensor:
        """Nearest code in the forward pass, identity in the backward pass: (..., dim) -> (..., dim).

        The straight-through estimator (Bengio, Leonard, Courville 2013). The codebook gets no gradient from
        here.
        """
        return z + (self.project(z) - z).detach()


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

    def __init__(self, dim: int, noise: float) -> None:
        super().__init__(dim)
        _require(
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
        _require(
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
        origin = generator.device if generator is not None else torch.device("cpu")
        share = torch.rand((count, 1), generator=generator, device=origin, dtype=self._anchor.dtype).to(
            device
        )
        length = self.radius * share.pow(1 / self.dim)
        return length * direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)

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


def normal(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Standard normal numbers, drawn on the generator's device (the CPU without one) and then moved."""
    origin = generator.device if generator is not None else torch.device("cpu")
    return torch.randn(shape, generator=generator, device=origin, dtype=dtype).to(device)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)
