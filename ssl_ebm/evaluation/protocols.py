"""What the evaluation asks of a model and of a set of clips; it knows no class of the floors below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class FramePredictor(Protocol):
    """Draws next frames from the context alone."""

    context_frames: int

    def sample(
        self, x: Tensor, samples: int, horizon: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, T, C, H, W) -> (B, S, horizon, C, H, W)."""
        ...


@runtime_checkable
class EnergyModel(Protocol):
    """Gives a free energy F(x, y): low where y is a plausible next frame of x."""

    def free_energy(self, x: Tensor, y: Tensor, beta: float = math.inf) -> Tensor:
        """(B, T, C, H, W), (B, C, H, W) -> (B,)."""
        ...


@runtime_checkable
class CandidateEnergyModel(Protocol):
    """Rates several y of one x at several temperatures, and looks at x once: many times faster."""

    def free_energies(self, x: Tensor, y: Tensor, betas: Sequence[float]) -> Tensor:
        """(B, T, C, H, W), (B, N, C, H, W) -> (len(betas), B, N), each as ``free_energy`` gives it."""
        ...


@runtime_checkable
class LatentPredictor(Protocol):
    """Has a latent z that can be inferred from the next frame, drawn without it, and decoded."""

    def infer(self, x: Tensor, y: Tensor) -> Tensor:
        """z (B, D) of least energy."""
        ...

    def decode(self, x: Tensor, z: Tensor) -> Tensor:
        """z (B, S, D) -> frames (B, S, C, H, W)."""
        ...

    def prior_sample(
        self, x: Tensor, samples: int, generator: torch.Generator | None = None, source: str = "learned"
    ) -> Tensor:
        """z (B, S, D), from x alone."""
        ...


def has_latent(model: object) -> bool:
    """Whether ``model`` predicts through a latent: a least-squares network has the methods, but no z."""
    return isinstance(model, LatentPredictor) and getattr(model, "objective", None) != "least_squares"


class Clips(Protocol):
    """A map-style dataset of items with ``video`` (T, C, H, W) in [0, 1], ``clip``, the clip's number, and
    where it is known ``group``, a number that the clips of one recording share."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class Futures(Protocol):
    """All distinct next frames (N, C, H, W) of a context and their probability (N,)."""

    @property
    def frames(self) -> Tensor: ...

    @property
    def probability(self) -> Tensor: ...


@runtime_checkable
class KnownWorld(Protocol):
    """A dataset that knows the distribution of the next frame."""

    def futures(self, index: int) -> Futures: ...

    def impossible(self, index: int) -> Tensor | None: ...


def finite_latent(model: object) -> bool:
    """Whether the model's latent has codes to enumerate, so that ``energies_by_code`` can be asked."""
    latent = getattr(model, "latent", None)
    known = latent is None or hasattr(latent, "enumerate")
    return known and callable(getattr(model, "energies_by_code", None))
