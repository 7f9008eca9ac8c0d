"""Free energies of frames that did not come: does F(x, y) tell a plausible future from others?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ssl_ebm.evaluation.protocols import CandidateEnergyModel, EnergyModel

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
    model: EnergyModel, x: Tensor, candidates: Mapping[str, Tensor], betas: Sequence[float] = (math.inf,)
) -> list[dict[str, Tensor]]:
    """F_beta(x, y) of each named set of candidates y (B, C, H, W): for each beta, name -> (B,)."""
    names = list(candidates)
    y = torch.stack([candidates[name] for name in names], dim=1)  # (B, N, C, H, W)
    if isinstance(model, CandidateEnergyModel):
        table = model.free_energies(x, y, betas)
    else:
        repeated = x.repeat_interleave(len(names), dim=0)
        rows = [model.free_energy(repeated, y.flatten(0, 1), beta) for beta in betas]
        table = torch.stack(rows).unflatten(1, (len(x), len(names)))
    table = table.detach().double().cpu()  # (len(betas), B, N)
    return [dict(zip(names, row.unbind(1), strict=True)) for row in table]
