"""Networks of small images: energies, encoders, decoders. Smooth, for sampling: units are SiLU."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ssl_ebm.errors import UserError
from ssl_ebm.networks.few_channels import FewChannelConv2d
from ssl_ebm.networks.linear import Linear
from ssl_ebm.networks.stages import PairedStages


class ImageEncoder(nn.Module):
    """Images to codes, without normalisation: (B, C, H, W) in [0, 1] -> (B, outputs).

    Convolutions of stride 2 (5x5, then 3x3) halve height and width, rounding up, at every level; a hidden
    layer sees all places. Without batch statistics, so that the energy of an image is its own. Channels are
    the last dimension in memory, which oneDNN's convolutions are faster for, backward above all.

    Args:
        outputs: size of the code.
        size: (H, W) of the images.
        channels: colours, 1 or 3.
        width: channels of the first level, doubled at every next one.
        levels: halvings, 1 or more; H and W must be at least 2^levels.

    Raises:
        UserError: a setting out of its range, or images of another shape.
    """

    def __init__(
        self,
        outputs: int,
        size: tuple[int, int] = (28, 28),
        channels: int = 1,
        width: int = 32,
        levels: int = 3,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if min(outputs, channels, width, levels) < 1 or min(size) < 2**levels:
            raise UserError(
                f"{name}: outputs {outputs}, channels {channels}, width {width}, levels {levels}: use at "
                f"least 1; size {tuple(size)}: use at least {2 ** max(levels, 1)} pixels"
            )
        self.shape = (channels, *size)
        widths = [channels, *(width * 2**i for i in range(levels))]
        layers: list[nn.Module] = []
        for level, (into, out) in enumerate(pairwise(widths)):
            side = 3 if level else 5
            convolution = nn.Conv2d if level else FewChannelConv2d
            layers += [convolution(into, out, side, stride=2, padding=side // 2), nn.SiLU()]
        places = 1
        for pixels in size:
            for _ in range(levels):
                pixels = -(-pixels // 2)
            places *= pixels
        hidden = widths[-1]
        self.convolutions = PairedStages(*layers).to(memory_format=torch.channels_last)
        self.hidden = PairedStages(Linear(hidden * places, hidden), nn.SiLU())
        self.head = nn.Linear(hidden, outputs)

    def features(self, y: Tensor) -> Tensor:
        """The hidden layer: (B, C, H, W) -> (B, width * 2^(levels - 1))."""
        if y.ndim != 4 or tuple(y.shape[1:]) != self.shape:
            raise UserError(
                f"{type(self).__name__}: y must be (batch, {', '.join(map(str, self.shape))}), got "
                f"{tuple(y.shape)}"
            )
        places: Tensor = self.convolutions(2 * y - 1)
        found: Tensor = self.hidden(places.permute(0, 2, 3, 1).flatten(1))  # as they lie in memory
        return found

    def forward(self, y: Tensor) -> Tensor:
        code: Tensor = self.head(self.features(y))
        return code


class ImageEnergy(nn.Module):
    """F(y) of an image: an `ImageEncoder` with one output, (B, C, H, W) in [0, 1] -> (B,).

    Args:
        size, channels, width, levels: as there.
    """

    def __init__(
        self, size: tuple[int, int] = (28, 28), channels: int = 1, width: int = 32, levels: int = 3
    ) -> None:
        super().__init__()
        self.network = ImageEncoder(1, size, channels, width, levels)

    def features(self, y: Tensor) -> Tensor:
        """The hidden layer: (B, C, H, W) -> (B, width * 2^(levels - 1))."""
        return self.network.features(y)

    def forward(self, y: Tensor) -> Tensor:
        energy: Tensor = self.network(y)[:, 0]
        return energy


class ImageDecoder(nn.Module):
    """Images from codes: (..., D) -> (..., C, H, W), by doublings of height and width from H / 2^levels.

    Channels are the last dimension in memory, as in `ImageEncoder`.

    Args:
        inputs: D.
        size: (H, W), multiples of 2^levels.
        channels: colours.
        width: channels of the finest level; doubled at every coarser one.
        levels: doublings, 1 or more.

    Raises:
        UserError: a setting out of its range.
    """

    def __init__(
        self, inputs: int, size: tuple[int, int], channels: int = 1, width: int = 32, levels: int = 2
    ) -> None:
        super().__init__()
        if inputs < 1 or channels < 1 or width < 1 or levels < 1 or any(side % 2**levels for side in size):
            raise UserError(
                f"ImageDecoder: size {tuple(size)} must be multiples of {2**levels}, and inputs, channels, "
                "width and levels at least 1"
            )
        widths = [width * 2**i for i in reversed(range(levels + 1))]
        self.shape = (widths[0], size[0] // 2**levels, size[1] // 2**levels)
        self.start = nn.Linear(inputs, widths[0] * self.shape[1] * self.shape[2])
        layers: list[nn.Module] = []
        for into, out in pairwise(widths):
            layers += [nn.SiLU(), nn.ConvTranspose2d(into, out, 4, stride=2, padding=1)]
        self.layers = PairedStages(*layers, nn.SiLU(), nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        flat = z.reshape(-1, z.shape[-1])
        coarse = self.start(flat).reshape(-1, *self.shape)
        image: Tensor = self.layers(coarse.contiguous(memory_format=torch.channels_last))
        return image.reshape(*z.shape[:-1], *image.shape[1:])
