"""Telling apart, pixel by pixel, things that overlap: by where each of them was in earlier frames."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_ebm.networks.motion import moved_by, part_motions
from ssl_ebm.networks.stages import Stage

HISTORY = 2  # frames before the last that are brought to it


class Refinement(nn.Module):
    """Masks and fill of whole blocks -> masks and fill of single pixels.

    Every part of the frame (the layers and the rest) has one estimated motion. Earlier frames are moved along
    with it: a pixel that a part has held all the time stays in its place, what belongs to another part runs
    away. A small network at full resolution compares them with the last frame. No gradient flows through the
    motions.

    Source: layers as sets of pixels with a common motion: Wang, Adelson, "Representing moving images with
    layers" (1994).

    Args:
        channels: C of the frames.
        frames: T of the context, at least 2.
        parts: layers and the rest, the rest last.
        width: channels of the network.
        cell: side of the blocks of `cost`, pixels.
    """

    def __init__(self, channels: int, frames: int, parts: int, width: int, cell: int) -> None:
        super().__init__()
        self.cell = cell
        self.history = min(HISTORY, frames - 1)
        outputs = channels + parts
        self.network = Stage(
            nn.Conv2d(channels * (1 + self.history * parts) + outputs, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, outputs, 1),
        )
        self._start_unchanged()

    @torch.no_grad()
    def _start_unchanged(self) -> None:
        last = self.network[-1]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, cost: Tensor, fill: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Refined fill, refined masks, and the motion of every part.

        Args:
            x: frames (B, T, C, H, W).
            cost: of `block_matching` of the last two frames, (B, shifts, H / cell, W / cell).
            fill: logits of what the layers hide, (B, C, H, W).
            masks: logits of the parts, (B, parts, H, W).

        Returns:
            fill (B, C, H, W), masks (B, parts, H, W), motions (B, parts, shifts), each summing to 1.
        """
        with torch.no_grad():
            motions = part_motions(F.avg_pool2d(masks.softmax(1), self.cell), cost)
            evidence = [x[:, -1]]
            for age in range(1, self.history + 1):
                pictures = x[:, -1 - age, None].expand(-1, masks.shape[1], -1, -1, -1)
                for _ in range(age):
                    pictures = moved_by(pictures, motions)
                evidence.append(pictures.flatten(1, 2))
        change = self.network(torch.cat([*evidence, fill, masks], 1))
        more_fill, more_mask = change.split([fill.shape[1], masks.shape[1]], 1)
        return fill + more_fill, masks + more_mask, motions
