"""Frames as pictures: a labelled grid of frames, and the same grid moving in time as an animation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssl_ebm.files import whole

Picture = NDArray[np.uint8]  # (height, width, 3)

CONTEXT, TRUTH, PREDICTED = (0x88, 0x88, 0x88), (0x1B, 0x7F, 0x4B), (0xD9, 0x6C, 0x00)  # frame borders
BACKGROUND, INK = (0xFF, 0xFF, 0xFF), (0x22, 0x22, 0x22)
BORDER, GAP, HEADING = 2, 6, 16  # pixels
SMALLEST_CELL = 80  # pixels a side: smaller frames are enlarged by a whole factor, pixels kept sharp

Colour = tuple[int, int, int]


def to_picture(frame: Tensor, scale: int = 1) -> Picture:
    """A frame (C, H, W) in [0, 1] (clamped) as 8-bit RGB; any number of channels other than 3 is averaged to
    grey."""
    frame = frame.detach().float().cpu()
    if frame.shape[0] != 3:
        frame = frame.mean(0, keepdim=True).expand(3, -1, -1)
    levels = (frame.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(1, 2, 0)
    return np.repeat(np.repeat(levels.numpy(), scale, axis=0), scale, axis=1)


def frame_grid(
    rows: Sequence[Sequence[Tensor]],
    headings: Sequence[str] = (),
    borders: Sequence[Colour] = (),
    scale: int | None = None,
) -> Picture:
    """A grid of frames (C, H, W), all of one size, with a heading above and a border colour for each column.

    Rows may differ in length. ``scale``: pixels of the picture for a pixel of a frame; by default frames get
    at least 80 pixels a side.
    """
    height, width = rows[0][0].shape[-2:]
    scale = scale or max(1, -(-SMALLEST_CELL // min(height, width)))
    columns = max(len(row) for row in rows)
    cell_h, cell_w = height * scale + 2 * BORDER, width * scale + 2 * BORDER
    top = HEADING if any(headings) else 0
    size = (columns * (cell_w + GAP) + GAP, top + len(rows) * (cell_h + GAP) + GAP)
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=11)
    for column, heading in enumerate(headings):
        draw.text((GAP + column * (cell_w + GAP), 3), heading, fill=INK, font=font)
    for r, row in enumerate(rows):
        for c, frame in enumerate(row):
            left, upper = GAP + c * (cell_w + GAP), top + GAP + r * (cell_h + GAP)
            colour = borders[c] if c < len(borders) else CONTEXT
            draw.rectangle((left, upper, left + cell_w - 1, upper + cell_h - 1), fill=colour)
            picture.paste(Image.fromarray(to_picture(frame, scale)), (left + BORDER, upper + BORDER))
    return np.asarray(picture)


def animated_grid(
    rows: Sequence[Sequence[Tensor]],
    headings: Sequence[str] = (),
    context_frames: int = 0,
    scale: int | None = None,
) -> list[Picture]:
    """The grid at each time step: cells are clips (T, C, H, W) of one length.

    The first ``context_frames`` steps have grey borders; after them the first column, the truth, has green
    ones and the predictions have orange ones.
    """
    columns = max(len(row) for row in rows)
    pictures = []
    for t in range(rows[0][0].shape[0]):
        borders = [CONTEXT] * columns if t < context_frames else [TRUTH] + [PREDICTED] * (columns - 1)
        pictures.append(frame_grid([[clip[t] for clip in row] for row in rows], headings, borders, scale))
    return pictures


def write_png(picture: Picture, path: str | Path) -> Path:
    """Writes one picture; makes the folder."""
    with whole(path) as partial:
        Image.fromarray(picture).save(partial)
    return Path(path)


def write_gif(pictures: Sequence[Picture], path: str | Path, frames_per_second: float = 4.0) -> Path:
    """Writes an endless animation; makes the folder. Equal neighbours stay separate frames of equal
    length."""
    images = [Image.fromarray(picture).quantize(colors=128, dither=Image.Dither.NONE) for picture in pictures]
    milliseconds = round(1000.0 / frames_per_second)
    animated: Any = {"save_all": True, "append_images": images[1:], "duration": milliseconds, "loop": 0}
    with whole(path) as partial:
        images[0].save(partial, optimize=False, **animated)
    return Path(path)
