"""Guessing the latent from the truth: Enc(y, h) for amortised inference."""

import torch
from torch import Tensor, nn

from ssl_ebm.networks.transport import Context


class BasisEncoder(nn.Module):
    """z = Enc(y, h) from how well y agrees with each picture of the decoder's basis.

    An encoder of the raw pixels of (x, y) tends to learn nothing, and the latent is ignored. The inner
    products of what the rest leaves unexplained, y - rest, with the basis are what a linear decoder needs.

    Args:
        basis: N, pictures in the context's basis.
        features: size of the context's feature vector.
        dim: D of the latent.
    """

    def __init__(self, basis: int, features: int, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(basis + features),
            nn.Linear(basis + features, 2 * features),
            nn.SiLU(),
            nn.Linear(2 * features, features),
            nn.SiLU(),
            nn.Linear(features, dim),
        )

    def forward(self, y: Tensor, h: Context) -> Tensor:
        """(B, C, H, W), Context -> (B, D)."""
        missing = (y - h.rest).flatten(1)[..., None]  # (B, C H W, 1)
        agreement = (h.basis @ missing)[..., 0]  # (B, N)
        return self.net(torch.cat([agreement, h.features], 1))
