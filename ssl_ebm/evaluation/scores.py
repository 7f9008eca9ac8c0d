"""Free energies of frames that did not come: does F(x, y) tell a plausible future from others?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ssl_ebm.evaluation.protocols import EnergyModel

NEGATIVES = ("other_clip", "time_shuffled", "impossible", "blurred_mean")


def partners(clips: Tensor) -> Tensor:
    """For each item the next item of the batch, cyclically, that belongs to another clip; -1 where there is
    none: (B,)."""
    count = len(clips)
    steps = torch.arange(1, count + 1)
    candidates = (torch.arange(count)[:, None] + steps) % max(count, 1)  # (B, B)
    other = clips.cpu()[candidates] != clips.cpu()[:, None]
    if count == 0:
        return torch.zeros(0, dtype=torch.int64)
    first = candidates.gather(1, other.to(torch.int64).argmax(dim=1, keepdim=True))[:, 0]
    return torch.where(other.any(dim=1), first, torch.full_like(first, -1))


def coincide(frame: Tensor, futures: Tensor) -> bool:
    """Whether ``frame`` (C, H, W) is one of the true ``futures`` (N, C, H, W), up to rounding: then it is no
    negative."""
    return bool(((futures - frame).abs().flatten(1).amax(dim=1) < 1e-4).any())


def free_energies(
    model: EnergyModel, x: Tensor, candidates: Mapping[str, Tensor], beta: float = math.inf
) -> dict[str, Tensor]:
    """F_beta(x, y) of each named set of candidates y (B, C, H, W), in one call: (B,) each."""
    names = list(candidates)
    repeated = x.repeat(len(names), *[1] * (x.dim() - 1))
    energies = model.free_energy(repeated, torch.cat([candidates[name] for name in names]), beta)
    return dict(zip(names, energies.detach().double().cpu().chunk(len(names)), strict=True))
