"""Small grey images for the examples: Fashion-MNIST or MNIST where its files are, else digits of a font."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_ebm.data.glyphs import find_idx, font_glyphs, read_idx
from ssl_ebm.lecture.claims import Setting

SIZE = 28  # pixels a side
_FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}


def check_images(setting: Setting) -> None:
    """Raises UserError for a folder that lacks one of the files."""
    if setting.images is not None:
        for name in _FILES.values():
            find_idx(setting.images, name)


def grey_images(setting: Setting, count: int, seed: int, split: str) -> Tensor:
    """`count` images of "train" or "test", (count, 1, 28, 28) in [0, 1]; the splits share none."""
    if setting.images is None:
        glyphs = font_glyphs(SIZE, -(-count // 10), seed, f"lecture/{split}")
        return torch.from_numpy(glyphs.images)[:count, None]
    pixels = torch.from_numpy(read_idx(find_idx(setting.images, _FILES[split])).copy())
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))[:count]
    return pixels[order, None].float() / 255


def patches(images: Tensor, side: int, count: int, seed: int) -> Tensor:
    """Random squares without their mean, of norm 1; flat ones are left out: (count, side^2)."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    while sum(map(len, found)) < count:
        which = torch.randint(len(images), (count,), generator=generator)
        row, column = torch.randint(images.shape[-1] - side + 1, (2, count), generator=generator)
        windows = images.unfold(2, side, 1).unfold(3, side, 1)  # (N, 1, R, C, side, side)
        cut = windows[which, 0, row, column].flatten(1)
        cut = cut - cut.mean(1, keepdim=True)
        norm = cut.norm(dim=1, keepdim=True)
        found.append((cut / norm.clamp_min(1e-6))[norm[:, 0] > 0.5])
    return torch.cat(found)[:count]
