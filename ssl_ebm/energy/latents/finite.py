"""Latents with finitely many values: minima and averages over z are exact."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ssl_ebm.energy.latents.space import FiniteLatent, require


class OneHot(FiniteLatent):
    """z is one of the K corners e_1 .. e_K of the simplex, R(z) = 0. Capacity: log K nats, set by `codes`.

    With a linear decoder, E(y, z) = |y - W z|^2 is K-means (LeCun et al. 2006; lecture, K-means example).

    Args:
        codes: K, at least 1; also `dim`.

    Raises:
        UserError: `codes` is below 1, or a z of another size is given.
    """

    def __init__(self, codes: int) -> None:
        require(codes >= 1, f"latent: codes must be at least 1, got {codes}")
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
        require(codes >= 1, f"latent: codes must be at least 1, got {codes}")
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
