"""Does z say which of the futures comes, or does it carry the picture?

A latent of too much capacity copies y into z: then the error with z inferred from y is far below that of the
best sample with z from x, and z decodes to the same picture in any context.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_ebm.evaluation.protocols import LatentPredictor


@dataclass(frozen=True)
class SwapTest:
    """Squared errors (B,), summed over pixels, of frames decoded with an inferred z.

    oracle: z inferred from (x_i, y_i), decoded in x_i, against y_i.
    to_source: z inferred from (x_j, y_j), decoded in x_i, against y_j: near 0 if z carries the picture.
    to_context: the same frame against clip i's futures, the nearest where they are known, else y_i.

    NaN where no other clip is in the batch. Trivial for a decoder that only moves the context's pixels: it
    cannot paint y_j.
    """

    oracle: Tensor
    to_source: Tensor
    to_context: Tensor

    @property
    def copied(self) -> Tensor:
        """1 where the decoded frame is nearer to the clip that z came from than to its context's own, else
        0; NaN kept."""
        copied = (self.to_source < self.to_context).double()
        return torch.where(self.to_source.isnan(), self.to_source, copied)


def swap_test(
    model: LatentPredictor, x: Tensor, y: Tensor, partner: Tensor, futures: list[Tensor] | None = None
) -> SwapTest:
    """One batch: x (B, T, C, H, W), y (B, C, H, W), ``partner`` (B,) the index j for each i or -1,
    ``futures`` (N_i, C, H, W)."""
    z = model.infer(x, y)  # (B, D)
    index = partner.clamp_min(0).to(x.device)
    frames = model.decode(x, torch.stack([z, z[index]], dim=1))  # (B, 2, C, H, W): own z, partner's z
    own, swapped = frames[:, 0], frames[:, 1]
    if futures is None:
        to_context = _error(swapped, y)
    else:
        nearest = [_error(f.to(s.device), s[None]).amin() for f, s in zip(futures, swapped, strict=True)]
        to_context = torch.stack(nearest)
    missing = (partner < 0).to(x.device)
    return SwapTest(
        oracle=_error(own, y).double().cpu(),
        to_source=_error(swapped, y[index]).masked_fill(missing, float("nan")).double().cpu(),
        to_context=to_context.masked_fill(missing, float("nan")).double().cpu(),
    )


def _error(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).sum(dim=1)
