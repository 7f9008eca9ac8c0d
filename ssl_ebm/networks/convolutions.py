"""Convolutional building blocks that work at any height and width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_ebm.energy.stages import Staged


def grow_to(features: Tensor, like: Tensor) -> Tensor:
    """Nearest-neighbour enlargement of (B, D, h, w) to the height and width of `like` (B, _, H, W)."""
    return F.interpolate(features, size=like.shape[-2:])


def coordinates(like: Tensor) -> Tensor:
    """Row and column of every place, -1 at one edge and 1 at the other: (B, _, h, w) -> (B, 2, h, w).

    A convolution cannot tell where in the picture it is; walls, horizons and frame edges need it.
    """
    batch, _, height, width = like.shape
    rows = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)
    columns = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return grid.expand(batch, -1, -1, -1)


class ResidualBlock(Staged, nn.Module):
    """x + Conv(SiLU(GroupNorm(Conv(x)))): (B, D, h, w) -> (B, D, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.GroupNorm(8, width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.norm(self.first(x))))


class UNet(nn.Module):
    """Features that see the whole picture at every place: (B, inputs, h, w) -> fine (B, width, h, w), coarse.

    One level down for every extra entry of the levels; the way up adds the features of the way down
    (Ronneberger, Fischer, Brox, "U-Net", 2015, with sums for concatenations, which halves the cost).

    Args:
        inputs: channels that come in.
        width: channels of the finest level, a multiple of 8; all coarser levels have twice as many.
        levels: number of halvings of height and width, at least 1.
        blocks: residual blocks at each level, down and up.
    """

    def __init__(self, inputs: int, width: int, levels: int, blocks: int = 1) -> None:
        super().__init__()
        widths = [width] + [2 * width] * levels
        self.stem = nn.Conv2d(inputs, width, 3, padding=1)

        def stage(channels: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))

        self.down_stages = nn.ModuleList(stage(channels) for channels in widths)
        self.downs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 2, stride=2, padding=0) for i in range(levels)
        )
        self.ups = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1) for i in range(levels))
        self.up_stages = nn.ModuleList(stage(channels) for channels in widths[:-1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Finest features (B, width, h, w) and coarsest features (B, 2 width, h', w')."""
        features = self.down_stages[0](self.stem(x))
        passed = [features]
        for down, stage in zip(self.downs, self.down_stages[1:], strict=True):
            features = stage(down(F.pad(features, (0, features.shape[-1] % 2, 0, features.shape[-2] % 2))))
            passed.append(features)
        coarse = features
        for level in reversed(range(len(self.ups))):
            features = passed[level] + grow_to(self.ups[level](features), passed[level])
            features = self.up_stages[level](features)
        return features, coarse
