"""What completions are compared with: simple fills, classical methods, and controls of best-of-K."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_ebm.evaluation.completion import Completer
from ssl_ebm.networks.completion import split_occluded


class MeanFill:
    """Every hidden pixel takes the mean colour of the visible ones; grey where nothing is visible."""

    def sample(self, x: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        visible, mask = split_occluded(x)
        shown = (1 - mask).sum((2, 3), keepdim=True)
        mean = torch.where(shown > 0, visible.sum((2, 3), keepdim=True) / shown.clamp_min(1), 0.5)
        return _repeat(torch.where(mask > 0, mean, visible), samples)


class Classical:
    """OpenCV's inpainting: Telea's fast marching, or Navier-Stokes (the `bench` extra installs it).

    Args:
        method: "telea" or "navier_stokes".
        radius: of the neighbourhood of each pixel, pixels.

    Source: Telea, "An image inpainting technique based on the fast marching method" (2004); Bertalmio,
    Bertozzi, Sapiro, "Navier-Stokes, fluid dynamics, and image and video inpainting" (2001).
    """

    def __init__(self, method: str, radius: float = 3.0) -> None:
        import cv2  # an extra

        self.run = cv2.inpaint
        self.flag = {"telea": cv2.INPAINT_TELEA, "navier_stokes": cv2.INPAINT_NS}[method]
        self.radius = radius

    def sample(self, x: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        visible, mask = split_occluded(x.cpu())
        pictures = (255 * visible.permute(0, 2, 3, 1)).round().byte().numpy()
        holes = (255 * mask[:, 0]).byte().numpy()
        filled = []
        for picture, hole in zip(pictures, holes, strict=True):
            found = self.run(np.ascontiguousarray(picture.squeeze()), hole, self.radius, self.flag)
            filled.append(torch.from_numpy(np.atleast_3d(found)).permute(2, 0, 1))
        painted = torch.stack(filled).float() / 255
        return _repeat(torch.where(mask > 0, painted, visible).to(x.device), samples)


class NoisyCompletion(nn.Module):
    """A model's completion plus Gaussian noise in the hole: clamp(y_hat + sigma * noise, 0, 1).

    Args:
        model: least squares.
        sigma: standard deviation per pixel value.
    """

    def __init__(self, model: Completer, sigma: float) -> None:
        super().__init__()
        self.model, self.sigma = model, sigma

    def sample(self, x: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        mean = self.model.sample(x, 1, generator).expand(-1, samples, -1, -1, -1)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return torch.where(x[:, None, -1:] > 0, (mean + self.sigma * noise).clamp(0, 1), mean)


class CompletionEnsemble(nn.Module):
    """Sample s is the completion of member s mod members."""

    def __init__(self, members: Sequence[Completer]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.members = list(members)
        self.networks = nn.ModuleList(member for member in members if isinstance(member, nn.Module))

    def sample(self, x: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        each = -(-samples // len(self.members))
        drawn = [member.sample(x, each, generator) for member in self.members]
        return torch.stack(drawn, 2).flatten(1, 2)[:, :samples]


class CompletionBank(nn.Module):
    """The latent model with z drawn whatever x is: p(z) in place of p(z | x)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def sample(self, x: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        found: Tensor = self.model.sample(x, samples, generator, "bank")
        return found


def _repeat(pictures: Tensor, samples: int) -> Tensor:
    return pictures[:, None].expand(-1, samples, -1, -1, -1)
