"""Networks that complete a picture with a hole: what they see of it, and one completion for every z."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ssl_ebm.errors import UserError
from ssl_ebm.networks.convolutions import UNet, coordinates
from ssl_ebm.networks.stages import Stage


class Completion(NamedTuple):
    """What a network makes of the visible part, for any number of z.

    Attributes:
        mean: (B, C, H, W), the completion where z says nothing.
        parts: (B, M, C, H, W), pictures that z adds.
        features: (B, F) of the visible part.
        mask: (B, 1, H, W), 1 where pixels are hidden.
        visible: (B, C, H, W), the picture, 0 where it is hidden.
        levels: (B, 2, C or 1, H, W) mean and standard deviation that turn normalised pixels into intensities;
            None where `mean` and `parts` are intensities.
    """

    mean: Tensor
    parts: Tensor
    features: Tensor
    mask: Tensor
    visible: Tensor
    levels: Tensor | None = None


class CompletionNetwork(Protocol):
    """What a network must be that `ssl_ebm.tasks.Inpainting` trains: an `nn.Module` that maps x (B, C + 1, H,
    W) of `occlude` to a `Completion`.

    Attributes:
        channels: C, colours of a picture.
        parts: M, pictures that z adds; 0 for least squares alone.
        features: F, numbers in the representation.
    """

    channels: int
    parts: int
    features: int

    def __call__(self, x: Tensor) -> Completion: ...


def check_network(network: object) -> None:
    """Raises UserError unless it has the attributes of a `CompletionNetwork`."""
    missing = [name for name in CompletionNetwork.__annotations__ if not hasattr(network, name)]
    if missing:
        raise UserError(
            f"network: {type(network).__name__} has no {', '.join(missing)}: it needs what "
            "ssl_ebm.networks.completion.CompletionNetwork says"
        )


def occlude(images: Tensor, mask: Tensor) -> Tensor:
    """x of a picture with a hole: (B, C, H, W), (B, 1, H, W) bool -> (B, C + 1, H, W).

    Hidden pixels are 0, and the last channel is the mask: nothing of the hidden part is in x.
    """
    shown = images.masked_fill(mask, 0.0)
    return torch.cat([shown, mask.to(shown)], 1)


def split_occluded(x: Tensor) -> tuple[Tensor, Tensor]:
    """The picture (B, C, H, W) and its mask (B, 1, H, W) of an x that `occlude` made."""
    return x[:, :-1], x[:, -1:]


def check_occluded(x: Tensor, channels: int) -> None:
    """Raises UserError unless x is of pictures with so many channels."""
    if x.ndim != 4 or x.shape[1] != channels + 1:
        raise UserError(
            f"this network completes pictures of {channels} channels with a mask behind them, got "
            f"{tuple(x.shape)}"
        )


class PartsDecoder(nn.Module):
    """Dec(h, z) = the hidden part of mean + sum_m a_m(z) parts_m, with a = z A: one product for all z.

    The network draws mean and parts once for a picture, so that an energy of 64 codes costs little more than
    one of a single prediction. A row of A begins as a draw of its own: codes that begin alike learn alike.

    Args:
        dim: of z.
        parts: M, pictures that z mixes.
    """

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(dim, parts))

    def forward(self, h: Completion, z: Tensor) -> Tensor:
        """z (B, S, D) -> (B, S, C, H, W), 0 where the picture is visible."""
        flat = torch.bmm(z @ self.mix, h.parts.flatten(2)).view(*z.shape[:2], *h.mean.shape[1:])
        return (h.mean[:, None] + flat) * h.mask[:, None]


class ConvolutionalCompletion(nn.Module):
    """A context encoder for dense holes: a U-Net that sees the visible part, the mask and where it is.

    Works at any height and width.

    Args:
        channels: colours of a picture.
        parts: M, pictures that z adds.
        width: channels of the finest features, a multiple of 8.
        levels: halvings of the feature map; the coarsest one should see the whole hole.
        blocks: residual blocks at each level.
        cell: side of the pixel blocks that one feature stands for.
        features: size F of the representation.

    Raises:
        UserError: a setting out of its range; on a call: an x of another number of channels.

    Source: Pathak et al., "Context encoders: feature learning by inpainting" (2016); here with the skips of a
    U-Net and without an adversary.
    """

    def __init__(
        self,
        channels: int = 3,
        parts: int = 32,
        width: int = 48,
        levels: int = 3,
        blocks: int = 1,
        cell: int = 2,
        features: int = 128,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("channels", channels, 1), ("parts", parts, 0), ("width", width, 8), ("levels", levels, 1),
            ("blocks", blocks, 1), ("cell", cell, 1), ("features", features, 1),
        ):  # fmt: skip
            if value < least:
                raise UserError(f"convolutional completion: {name} is {value}: use at least {least}")
        if width % 8:
            raise UserError(f"convolutional completion: width is {width}: use a multiple of 8")
        self.channels, self.parts, self.cell, self.features = channels, parts, cell, features
        self.net = UNet((channels + 1) * cell**2 + 2, width, levels, blocks)
        self.summary = nn.Sequential(nn.Linear(4 * width, features), nn.SiLU(), nn.Linear(features, features))
        self.draw = Stage(nn.SiLU(), nn.Conv2d(width, (1 + parts) * channels * cell**2, 3, padding=1))
        last = self.draw[1]
        assert isinstance(last, nn.Conv2d)
        with torch.no_grad():  # parts begin faint: the mean is learnt first
            last.weight.mul_(0.1)
            last.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Completion:
        check_occluded(x, self.channels)
        visible, mask = split_occluded(x)
        height, width = x.shape[2:]
        right, below = -width % self.cell, -height % self.cell
        whole = F.pad(torch.cat([2 * visible - 1 + mask, mask], 1), (0, right, 0, below))
        cells = F.pixel_unshuffle(whole, self.cell)
        fine, coarse = self.net(torch.cat([cells, coordinates(cells)], 1))
        features = self.summary(torch.cat([coarse.mean((2, 3)), coarse.amax((2, 3))], 1))
        drawn = F.pixel_shuffle(self.draw(fine), self.cell)[..., :height, :width]
        pictures = drawn.unflatten(1, (1 + self.parts, self.channels))
        return Completion(0.5 + pictures[:, 0], pictures[:, 1:], features, mask, visible)


def patch_levels(images: Tensor, patch: int) -> Tensor:
    """Mean and standard deviation of patches over pixels and colours: (B, C, H, W) -> (B, 2, 1, H, W).

    As He et al. (2022) normalise their targets: variance unbiased, plus 1e-6.
    """
    cells = rearrange(images, "b c (h p) (w q) -> b h w (c p q)", p=patch, q=patch)
    mean = cells.mean(3)
    squares = (cells - mean[..., None]).square().sum(3)  # an eighth of the time of `var` on a processor
    variance = squares / max(1, cells.shape[3] - 1)
    return spread_levels(torch.stack([mean, (variance + 1e-6).sqrt()], 1), patch)


def spread_levels(levels: Tensor, patch: int) -> Tensor:
    """Figures of patches (B, 2, rows, columns) at every pixel: (B, 2, 1, H, W)."""
    return levels.repeat_interleave(patch, 2).repeat_interleave(patch, 3)[:, :, None]
