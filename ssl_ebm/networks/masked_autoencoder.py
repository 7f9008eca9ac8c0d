"""A masked autoencoder: a Vision Transformer that sees a part of an image's patches, and a light decoder that
predicts all of them.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import torch
from einops import rearrange
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from ssl_ebm.errors import UserError
from ssl_ebm.networks.transformer import Block


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images (B, C, H, W) cut into squares, row by row: (B, N, patch * patch * C), channels last."""
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch)


def unpatchify(patches: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: (B, N, patch * patch * C) -> (B, C, H, W)."""
    rows = size[0] // patch
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=patch, q=patch)


def hidden_patches(mask: Tensor, patch: int) -> Tensor:
    """Patches of which any pixel is hidden: (B, 1, H, W) bool -> (B, N) bool."""
    return max_pool2d(mask.float(), patch).flatten(1) > 0


def sine_positions(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed codes of the places of a grid of patches, (rows * columns, width).

        first half: of the column, second half: of the row; each sin(place * w), then cos(place * w), with
        w = 10000^(-k / (width / 4)), k = 0 .. width / 4 - 1

    Raises:
        UserError: the width is no multiple of 4.

    Source: He et al. (2022), appendix A.1; Chen et al. (2021), MoCo v3.
    """
    if width % 4:
        raise UserError(
            f"masked autoencoder: a width of {width} is no multiple of 4: use one for its positions"
        )
    waves = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    halves = [torch.outer(place.flatten(), waves) for place in (columns, rows)]
    return torch.cat([wave for angle in halves for wave in (angle.sin(), angle.cos())], 1).float()


class MaskedAutoencoder(nn.Module):
    """Predicts the pixels of all patches from those that are visible.

    The encoder is timm's VisionTransformer, run on the visible patches alone, so that 3/4 hidden is 1/4 of
    its work; its weights load in plain timm. The decoder is a narrow one of the same blocks, on all places,
    with a learnt token where a patch is hidden.

    Args:
        size: (H, W) of the images, multiples of the patch; one number for both.
        patch: side of a patch, pixels.
        channels: colours.
        width, depth, heads: of the encoder.
        decoder_width, decoder_depth, decoder_heads: of the decoder.
        statistics: also predict the mean and the log standard deviation of every patch's pixels, by a second
            head on the decoder's tokens, so that a network whose targets are normalised patches can show
            pictures.

    Raises:
        UserError: sizes that do not fit together; on a call: images or masks of another shape.

    Source: He et al., "Masked autoencoders are scalable vision learners" (2022).
    """

    mask_token: Tensor
    decoder_positions: Tensor

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
        statistics: bool = False,
    ) -> None:
        super().__init__()
        self.size: tuple[int, int] = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.patch, self.channels = patch, channels
        if patch < 1 or any(side < patch or side % patch for side in self.size):
            raise UserError(f"masked autoencoder: {self.size} pixels are no multiple of the patch, {patch}")
        for name, wide, count in (("width", width, heads), ("decoder_width", decoder_width, decoder_heads)):
            if min(wide, count) < 1 or wide % count:
                raise UserError(f"masked autoencoder: {name} {wide} is no multiple of its {count} heads")
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        grid = (self.size[0] // patch, self.size[1] // patch)
        self.encoder = timm_vit.VisionTransformer(
            img_size=self.size, patch_size=patch, in_chans=channels, num_classes=0, embed_dim=width,
            depth=depth, num_heads=heads, norm_layer=norm, block_fn=Block,
        )  # fmt: skip
        places = torch.cat([torch.zeros(1, width), sine_positions(grid, width)])
        self.encoder.pos_embed = nn.Parameter(places[None], requires_grad=False)
        self.embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        places = torch.cat([torch.zeros(1, decoder_width), sine_positions(grid, decoder_width)])
        self.register_buffer("decoder_positions", places[None], persistent=False)
        self.decoder = nn.Sequential(
            *(
                Block(decoder_width, decoder_heads, qkv_bias=True, norm_layer=norm)
                for _ in range(decoder_depth)
            ),
            norm(decoder_width),
        )
        self.predict = nn.Linear(decoder_width, patch * patch * channels)
        self.statistics = nn.Linear(decoder_width, 2) if statistics else None
        self._start()

    def _start(self) -> None:
        """Initial weights as in the paper: Xavier's for matrices, patches seen as one."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        projection = self.encoder.patch_embed.proj
        nn.init.xavier_uniform_(projection.weight.view(projection.out_channels, -1))
        nn.init.normal_(cast(Tensor, self.encoder.cls_token), std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

    @property
    def patches(self) -> int:
        """N, patches of an image."""
        return math.prod(self.size) // self.patch**2

    def encode(self, images: Tensor, hidden: Tensor, visible: int | None = None) -> tuple[Tensor, Tensor]:
        """Tokens of the visible patches.

        Args:
            images: (B, C, H, W).
            hidden: (B, N) bool.
            visible: how many patches are visible, where that is the same for all images: then the others are
                left out. None: all are carried along, and no patch looks at a hidden one.

        Returns:
            Tokens (B, 1 + V, width), the first one of the whole image; and which patch each of the others is,
            (B, V). V is `visible`, or N.
        """
        self._check(images)
        if hidden.shape != (len(images), self.patches):
            raise UserError(
                f"masked autoencoder: hidden must be ({len(images)}, {self.patches}), got "
                f"{tuple(hidden.shape)}"
            )
        encoder = self.encoder
        places, whole = cast(Tensor, encoder.pos_embed), cast(Tensor, encoder.cls_token)
        tokens = encoder.patch_embed(images) + places[:, 1:]  # (B, N, width)
        order = hidden.int().argsort(dim=1, stable=True)  # the visible ones first
        keep = order[:, : self.patches if visible is None else visible]
        tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[2]))
        first = (whole + places[:, :1]).expand(len(images), -1, -1)
        tokens = encoder.norm_pre(torch.cat([first, tokens], 1))
        seen = None
        if visible is None:
            seen = torch.cat([torch.ones_like(hidden[:, :1]), ~hidden.gather(1, keep)], 1)[:, None, None]
        for block in encoder.blocks:
            tokens = block(tokens, attn_mask=seen)
        return encoder.norm(tokens), keep

    def decoder_tokens(self, tokens: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """The decoder's tokens of all patches: (B, 1 + V, width) -> (B, N, decoder_width).

        `predict` makes pixels of them, and `statistics` their mean and log standard deviation.
        """
        known = self.embed(tokens)
        width = known.shape[2]
        everywhere = self.mask_token.to(known).expand(len(known), self.patches, -1)
        everywhere = everywhere.scatter(1, keep[..., None].expand(-1, -1, width), known[:, 1:])
        everywhere = torch.where(hidden[..., None], self.mask_token.to(known), everywhere)
        everywhere = torch.cat([known[:, :1], everywhere], 1) + self.decoder_positions
        decoded: Tensor = self.decoder(everywhere)
        return decoded[:, 1:]

    def decode(self, tokens: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """Pixels of all patches: (B, 1 + V, width) -> (B, N, patch * patch * C)."""
        pixels: Tensor = self.predict(self.decoder_tokens(tokens, keep, hidden))
        return pixels

    def forward(self, images: Tensor, hidden: Tensor, visible: int | None = None) -> Tensor:
        """Predicted pixels of all patches, (B, N, patch * patch * C), from those that are not hidden."""
        tokens, keep = self.encode(images, hidden, visible)
        return self.decode(tokens, keep, hidden)

    def _check(self, images: Tensor) -> None:
        if tuple(images.shape[1:]) != (self.channels, *self.size):
            raise UserError(
                f"masked autoencoder: images must be (batch, {self.channels}, {self.size[0]}, "
                f"{self.size[1]}), got {tuple(images.shape)}: give the data that size"
            )

    def representation(self, images: Tensor) -> Tensor:
        """Mean of the patches' tokens, with nothing hidden: (B, C, H, W) -> (B, width)."""
        self._check(images)
        tokens: Tensor = self.encoder.forward_features(images)
        return tokens[:, 1:].mean(1)
