"""A masked autoencoder as a network that completes pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_ebm.errors import UserError
from ssl_ebm.networks.completion import Completion, check_occluded, split_occluded, spread_levels
from ssl_ebm.networks.masked_autoencoder import MaskedAutoencoder, hidden_patches, unpatchify


class PatchCompletion(nn.Module):
    """A `MaskedAutoencoder` that completes: it sees the patches of which no pixel is hidden.

    Args:
        size: (H, W) of the pictures, multiples of the patch; one number for both.
        patch, channels, width, depth, heads, decoder_width, decoder_depth, decoder_heads: as there.
        parts: M, pictures that z adds; 0 where there is no z.
        normalised: predict every patch with its own mean and deviation taken out. These are predicted as
            well, by a head that teaches the rest nothing, so that pictures can be shown.

    Raises:
        UserError: as `MaskedAutoencoder`; on a call: an x of another shape.

    Source: He et al., "Masked autoencoders are scalable vision learners" (2022).
    """

    def __init__(
        self,
        size: int | tuple[int, int] = 32,
        patch: int = 4,
        channels: int = 3,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        decoder_width: int = 96,
        decoder_depth: int = 2,
        decoder_heads: int = 3,
        parts: int = 0,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        if parts < 0:
            raise UserError(f"patch completion: parts is {parts}: use at least 0")
        self.autoencoder = MaskedAutoencoder(
            size, patch, channels, width, depth, heads, decoder_width, decoder_depth, decoder_heads,
            statistics=normalised,
        )  # fmt: skip
        self.channels, self.patch, self.parts, self.features = channels, patch, parts, width
        self.normalised = normalised
        self.draw_parts = nn.Linear(decoder_width, parts * patch * patch * channels) if parts else None
        if self.draw_parts is not None:
            nn.init.normal_(self.draw_parts.weight, std=0.1 * decoder_width**-0.5)  # the mean is learnt first
            nn.init.zeros_(self.draw_parts.bias)

    @property
    def encoder(self) -> nn.Module:
        """timm's VisionTransformer."""
        return self.autoencoder.encoder

    def forward(self, x: Tensor, visible: int | None = None) -> Completion:
        """x (B, C + 1, H, W) of `occlude`.

        Args:
            visible: how many patches are visible, where that is the same for all pictures (see
                `MaskedAutoencoder.encode`).
        """
        check_occluded(x, self.channels)
        images, mask = split_occluded(x)
        network, size = self.autoencoder, self.autoencoder.size
        if tuple(x.shape[2:]) != size:
            raise UserError(
                f"this network completes pictures of {size} pixels, got {tuple(x.shape[2:])}: set the size "
                "of the data, or of the network, to the other's"
            )
        hidden = hidden_patches(mask, self.patch)
        tokens, keep = network.encode(images, hidden, visible)
        seen = torch.ones_like(keep) if visible is not None else ~hidden.gather(1, keep)
        weight = seen[..., None].to(tokens)
        features = (tokens[:, 1:] * weight).sum(1) / weight.sum(1).clamp_min(1)
        decoded = network.decoder_tokens(tokens, keep, hidden)
        mean = unpatchify(network.predict(decoded), self.patch, size)
        parts = mean.new_zeros(len(mean), 0, *mean.shape[1:])
        if self.draw_parts is not None:
            drawn = self.draw_parts(decoded).unflatten(2, (self.parts, -1))  # (B, N, M, p p C)
            flat = drawn.transpose(1, 2).flatten(0, 1)
            parts = unpatchify(flat, self.patch, size).unflatten(0, (len(mean), self.parts))
        levels = None
        if network.statistics is not None:
            figures = network.statistics(decoded.detach())  # (B, N, 2)
            rows = size[0] // self.patch
            spread = figures.transpose(1, 2).unflatten(2, (rows, -1))  # (B, 2, rows, columns)
            levels = spread_levels(torch.stack([spread[:, 0], spread[:, 1].exp()], 1), self.patch)
        return Completion(mean, parts, features, mask, images, levels)

    def representation(self, images: Tensor) -> Tensor:
        """Mean of the patches' tokens, with nothing hidden: (B, C, H, W) -> (B, width)."""
        return self.autoencoder.representation(images)
