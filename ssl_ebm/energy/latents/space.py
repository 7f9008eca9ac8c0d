"""What every space of latents offers: draws, a density, a projection, a regulariser."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ssl_ebm.energy.draws import for_items
from ssl_ebm.errors import UserError


class Latent(nn.Module, ABC):
    """A space of latents: vectors z of `dim` numbers, a regulariser R(z), a reference measure, a projection.

    Tensors made by a latent have the device and the floating dtype that the module was moved to.

    Raises:
        UserError: `dim` is below 1.
    """

    unbounded = False  # whether every vector of `dim` numbers is a point of the space
    _anchor: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        require(dim >= 1, f"latent: dim must be at least 1, got {dim}")
        self.dim = dim
        # Carries device and dtype for spaces without parameters; not a part of any checkpoint.
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)

    @abstractmethod
    def sample(
        self, count: int, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> Tensor:
        """`count` independent draws from the reference measure, (count, dim).

        Drawn on the generator's device and then moved: a generator of the CPU gives the same z everywhere.
        Without one they are drawn where they stay, by the global generator of that device.
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
        require(
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
        device = device or self._anchor.device
        origin = generator.device if generator is not None else device

        def draw(count: int) -> Tensor:
            return torch.randint(self.codes, (count,), generator=generator, device=origin)

        index = for_items(count, generator, draw)
        return self.enumerate().to(device)[index.to(device)]

    def log_density(self, z: Tensor) -> Tensor:
        """-log K: every value is equally likely. z is taken to be one of the values."""
        self.check(z)
        return torch.full_like(z[..., 0], -math.log(self.codes))

    def project(self, z: Tensor) -> Tensor:
        return self.enumerate()[self.nearest(z)]


def require(condition: bool, message: str) -> None:
    """Raises UserError with this message unless the condition holds."""
    if not condition:
        raise UserError(message)
