"""Which pixels of an image are hidden: patches, blocks, halves, free-form strokes, or a mask from a file.

A mask is (B, 1, H, W) bool, True where a pixel is hidden. Masks are drawn for a whole batch at once, on the
device of the images, from a generator.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssl_ebm.energy.draws import uniform
from ssl_ebm.errors import UserError

Side = Literal["left", "right", "top", "bottom"]


@runtime_checkable
class Mask(Protocol):
    """Hides a part of every image."""

    def draw(
        self,
        count: int,
        size: tuple[int, int],
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Masks for `count` images of `size` (H, W): (count, 1, H, W) bool, True where hidden.

        Args:
            generator: of all random numbers, drawn on its own device and moved; None: the device's global
                one.

        Raises:
            UserError: the images are too small for this mask.
        """
        ...


class RandomPatches:
    """Squares of a grid, as many in every image, each set of them equally likely.

    Where a side is no multiple of the patch, the last patches are cut.

    Args:
        ratio: share of the squares that are hidden, rounded to whole squares; above 0 and below 1.
        patch: side of a square, pixels.

    Raises:
        UserError: a setting out of its range; images in which no square, or every square, would be hidden.

    Source: He et al., "Masked autoencoders are scalable vision learners" (2022), section 3.
    """

    def __init__(self, ratio: float = 0.75, patch: int = 4) -> None:
        if not 0 < ratio < 1 or patch < 1:
            raise UserError(
                f"random patches: ratio is {ratio} and patch {patch}: use a share between 0 and 1, and at "
                "least 1"
            )
        self.ratio = ratio
        self.patch = patch

    def hidden(self, size: tuple[int, int]) -> int:
        """How many squares are hidden in an image of this size."""
        rows, columns = (math.ceil(side / self.patch) for side in size)
        hidden = round(self.ratio * rows * columns)
        if not 0 < hidden < rows * columns:
            raise UserError(
                f"random patches: {hidden} of {rows * columns} squares would be hidden in "
                f"{size[0]}x{size[1]} pixels: use a smaller patch than {self.patch}, or another ratio than "
                f"{self.ratio}"
            )
        return hidden

    def draw(
        self,
        count: int,
        size: tuple[int, int],
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        rows, columns = (math.ceil(side / self.patch) for side in size)
        order = _uniform((count, rows * columns), generator, device).argsort(1)
        squares = (order.argsort(1) < self.hidden(size)).reshape(count, 1, rows, columns)
        pixels = squares.repeat_interleave(self.patch, 2).repeat_interleave(self.patch, 3)
        return pixels[..., : size[0], : size[1]]


class Blocks:
    """Rectangles, which may overlap: height, width and place are drawn evenly among those that fit.

    Args:
        blocks: in every image.
        least, most: of the height and of the width, as shares of the image's; above 0, up to 1.

    Raises:
        UserError: a setting out of its range.

    Source: Pathak et al., "Context encoders: feature learning by inpainting" (2016), section 3.3.
    """

    def __init__(self, blocks: int = 1, least: float = 0.25, most: float = 0.5) -> None:
        if blocks < 1 or not 0 < least <= most <= 1:
            raise UserError(
                f"blocks: blocks is {blocks}, least {least} and most {most}: use at least 1, and 0 < least "
                "<= most <= 1"
            )
        self.blocks = blocks
        self.least = least
        self.most = most

    def draw(
        self,
        count: int,
        size: tuple[int, int],
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        inside = torch.ones((), dtype=torch.bool, device=device)
        for axis, side in enumerate(size):
            low, high = (max(1, round(share * side)) for share in (self.least, self.most))
            shape = (count, self.blocks, 1)
            length = low + (_uniform(shape, generator, device) * (high - low + 1)).floor()
            start = (_uniform(shape, generator, device) * (side - length + 1)).floor()
            place = torch.arange(side, device=device)
            along = (place >= start) & (place < start + length)  # (B, blocks, side)
            inside = inside & (along[..., None] if axis == 0 else along[..., None, :])
        return inside.any(1, keepdim=True)


class Half:
    """One half of every image; of an odd side the smaller one.

    Args:
        sides: which halves may be hidden, each as often.

    Raises:
        UserError: no side, or one that is none; images of a single pixel in that direction.
    """

    def __init__(self, sides: list[Side] | None = None) -> None:
        self.sides = sides or ["left", "right", "top", "bottom"]
        for side in self.sides:
            if side not in ("left", "right", "top", "bottom"):
                raise UserError(f"half: no side {side!r}: use left, right, top or bottom")

    def draw(
        self,
        count: int,
        size: tuple[int, int],
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        if min(size) < 2:
            raise UserError(f"half: an image of {size[0]}x{size[1]} pixels has no halves")
        halves = []
        for side in self.sides:
            mask = torch.zeros(size, dtype=torch.bool, device=device)
            along = mask if side in ("top", "bottom") else mask.T
            middle = len(along) // 2
            along[:middle] = side in ("left", "top")
            along[len(along) - middle :] |= side in ("right", "bottom")
            halves.append(mask)
        chosen = (_uniform((count,), generator, device) * len(halves)).long()
        return torch.stack(halves)[chosen][:, None]


class Strokes:
    """Free-form strokes: lines of several pieces with round ends, that turn at random.

    Args:
        strokes: in every image.
        pieces: of each stroke.
        width: of a stroke, as a share of the image's shorter side.
        length: of a piece, the same.
        turn: largest change of direction from piece to piece, degrees.

    Raises:
        UserError: a setting out of its range.

    Source: after Yu et al., "Free-form image inpainting with gated convolution" (2019), algorithm 1.
    """

    def __init__(
        self, strokes: int = 4, pieces: int = 6, width: float = 0.12, length: float = 0.25, turn: float = 60.0
    ) -> None:
        if min(strokes, pieces) < 1 or not (0 < width <= 1 and 0 < length <= 1 and 0 <= turn <= 180):
            raise UserError(
                f"strokes: strokes {strokes}, pieces {pieces}, width {width}, length {length}, turn "
                f"{turn}: use at least 1, shares above 0 and up to 1, and 0 to 180 degrees"
            )
        self.strokes, self.pieces = strokes, pieces
        self.width, self.length, self.turn = width, length, turn

    def draw(
        self,
        count: int,
        size: tuple[int, int],
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        shorter = min(size)
        reach = torch.tensor(size, device=device, dtype=torch.float32)
        begin = _uniform((count, self.strokes, 2), generator, device) * reach
        turns = (2 * _uniform((count, self.strokes, self.pieces), generator, device) - 1) * math.radians(
            self.turn
        )
        angle = 2 * math.pi * _uniform((count, self.strokes, 1), generator, device) + turns.cumsum(2)
        steps = self.length * shorter * torch.stack([angle.sin(), angle.cos()], -1)
        corners = torch.cat([begin[:, :, None], begin[:, :, None] + steps.cumsum(2)], 2)
        corners = torch.minimum(corners.clamp_min(0), reach)  # (B, strokes, pieces + 1, 2)
        rows, columns = (torch.arange(side, device=device) + 0.5 for side in size)
        mask = torch.zeros(count, *size, dtype=torch.bool, device=device)
        for stroke in range(self.strokes):
            for piece in range(self.pieces):
                one, other = corners[:, stroke, piece], corners[:, stroke, piece + 1]  # (B, 2)
                mask |= _near(one, other, rows, columns) <= 0.5 * self.width * shorter
        return mask[:, None]


class MaskFile:
    """The same mask for every image: white (more than half) is hidden.

    Args:
        path: a picture; scaled to the images without smoothing.

    Raises:
        UserError: it cannot be read, or hides nothing or everything.
    """

    def __init__(self, path: str) -> None:
        try:
            with Image.open(path) as file:
                self.hidden = torch.from_numpy(np.asarray(file.convert("L")) > 127)
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(
                f"{path} cannot be read as a mask ({' '.join(str(error).split())}): give a picture that is "
                "white where pixels are hidden"
            ) from error
        self.path = Path(path)
        self._check(self.hidden)

    def _check(self, hidden: Tensor) -> None:
        if bool(hidden.all()) or not bool(hidden.any()):
            what = "everything" if bool(hidden.all()) else "nothing"
            raise UserError(f"the mask {self.path} hides {what}: paint white what is to be filled in")

    def draw(
        self,
        count: int,
        size: tuple[int, int],
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        rows, columns = (
            ((torch.arange(new) + 0.5) * old / new).long()
            for new, old in zip(size, self.hidden.shape, strict=True)
        )
        scaled = self.hidden[rows][:, columns]
        self._check(scaled)
        return scaled.to(device).expand(count, 1, *size)


def _uniform(shape: tuple[int, ...], generator: torch.Generator | None, device: torch.device | str) -> Tensor:
    return uniform(shape, torch.float32, device, generator)


def _near(one: Tensor, other: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Distance of every pixel from the line between two points (B, 2): (B, H, W)."""
    y, x = rows[None, :, None], columns[None, None, :]
    along = other - one
    squared = along.square().sum(1).clamp_min(1e-12)[:, None, None]
    (y0, x0), (dy, dx) = ((p[:, 0, None, None], p[:, 1, None, None]) for p in (one, along))
    share = (((y - y0) * dy + (x - x0) * dx) / squared).clamp(0, 1)
    return ((y - y0 - share * dy).square() + (x - x0 - share * dx).square()).sqrt()
