"""A tiny world whose futures are known, and models of it that are right, or wrong in one way each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

SIZE, PATCH, CONTEXT = 16, 6, 2
PROBABILITY = (0.35, 0.3, 0.2, 0.15)


@dataclass
class ToyFutures:
    frames: Tensor
    probability: Tensor


class ToyWorld:
    """A textured patch in the top left corner, then in the middle; next it jumps to one of four corners.

    Where the patch is dim (every third clip) it stays in the middle for certain.
    """

    def __init__(self, clips: int = 24, seed: int = 0, frames: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.patches = 0.5 + 0.5 * torch.rand(clips, PATCH, PATCH, generator=generator)
        self.patches[::3] *= 0.4
        weights = torch.tensor(PROBABILITY).expand(clips, -1)
        self.chosen = torch.multinomial(weights, 1, generator=generator)[:, 0]
        self.frames = frames
        self.by_context = {self.context(i).numpy().tobytes(): i for i in range(clips)}

    def __len__(self) -> int:
        return len(self.patches)

    def frame(self, index: int, row: int, column: int) -> Tensor:
        frame = torch.zeros(1, SIZE, SIZE)
        frame[0, row : row + PATCH, column : column + PATCH] = self.patches[index]
        return frame

    def context(self, index: int) -> Tensor:
        return torch.stack([self.frame(index, 0, 0), self.frame(index, 5, 5)])

    def certain(self, index: int) -> bool:
        return index % 3 == 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        futures = self.futures(index).frames
        y = futures[0 if self.certain(index) else int(self.chosen[index])]
        video = torch.cat([self.context(index), y[None].expand(self.frames, -1, -1, -1)])
        return {
            "video": video,
            "clip": torch.tensor(index),
            "uncertain": torch.tensor(not self.certain(index)),
        }

    def futures(self, index: int) -> ToyFutures:
        if self.certain(index):
            return ToyFutures(self.frame(index, 5, 5)[None], torch.ones(1))
        places = [(1, 1), (1, 9), (9, 1), (9, 9)]
        return ToyFutures(
            torch.stack([self.frame(index, *place) for place in places]), torch.tensor(PROBABILITY)
        )

    def impossible(self, index: int) -> Tensor | None:
        return None if self.certain(index) else self.frame(index, 10, 5)

    def states(self, x: Tensor) -> list[int]:
        """Which clips the contexts (B, T, C, H, W) belong to."""
        return [self.by_context[context.cpu().contiguous().numpy().tobytes()] for context in x]


class ToyModel(nn.Module):
    """The exact model of the world as a latent-variable energy model: z is a one-hot code of the future."""

    context_frames = CONTEXT
    codes = len(PROBABILITY)

    def __init__(self, world: ToyWorld) -> None:
        super().__init__()
        self.world = world
        self.dropout = nn.Dropout()

    def table(self, x: Tensor) -> Tensor:
        """What each code decodes to, (B, K, C, H, W)."""
        frames = [self.world.futures(i).frames for i in self.world.states(x)]
        return torch.stack([f if len(f) > 1 else f.expand(self.codes, -1, -1, -1) for f in frames])

    def prior_sample(
        self,
        x: Tensor,
        samples: int,
        generator: torch.Generator | None = None,
        source: str = "learned",
    ) -> Tensor:
        weights = torch.tensor(PROBABILITY) if source == "learned" else torch.ones(self.codes)
        drawn = torch.multinomial(weights.expand(len(x), -1), samples, replacement=True, generator=generator)
        return nn.functional.one_hot(drawn, self.codes).float()

    def decode(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.einsum("bsk,bkchw->bschw", z, self.table(x))

    def sample(
        self, x: Tensor, samples: int, horizon: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        drawn = self.decode(x, self.prior_sample(x, samples, generator))
        return drawn.unsqueeze(2).expand(-1, -1, horizon, -1, -1, -1)

    def energies_by_code(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.table(x) - y.unsqueeze(1)).square().flatten(2).sum(2)

    def infer(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.one_hot(self.energies_by_code(x, y).argmin(1), self.codes).float()

    def free_energy(self, x: Tensor, y: Tensor, beta: float = math.inf) -> Tensor:
        energies = self.energies_by_code(x, y)
        if math.isinf(beta):
            return energies.amin(1)
        return -(torch.logsumexp(-beta * energies, 1) - math.log(self.codes)) / beta


class MeanModel(ToyModel):
    """Perfect least squares: the exact posterior mean."""

    objective = "least_squares"

    def mean(self, x: Tensor) -> Tensor:
        return torch.einsum("k,bkchw->bchw", torch.tensor(PROBABILITY), self.table(x))

    def sample(
        self, x: Tensor, samples: int, horizon: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.mean(x)[:, None, None].expand(-1, samples, horizon, -1, -1, -1)

    def free_energy(self, x: Tensor, y: Tensor, beta: float = math.inf) -> Tensor:
        return (self.mean(x) - y).square().flatten(1).sum(1)


class CopyModel(ToyModel):
    """A latent that can say everything: z is the picture itself, so the energy is flat."""

    def decode(self, x: Tensor, z: Tensor) -> Tensor:
        return z.unflatten(2, x.shape[2:])

    def prior_sample(
        self,
        x: Tensor,
        samples: int,
        generator: torch.Generator | None = None,
        source: str = "learned",
    ) -> Tensor:
        return torch.rand(len(x), samples, x[0, 0].numel(), generator=generator)

    def infer(self, x: Tensor, y: Tensor) -> Tensor:
        return y.flatten(1)

    def free_energy(self, x: Tensor, y: Tensor, beta: float = math.inf) -> Tensor:
        return 1.0 + 0.001 * y.flatten(1).sum(1) / y[0].numel()

    energies_by_code = None  # type: ignore[assignment]  # z is continuous


class DeafModel(ToyModel):
    """Ignores its latent: every code decodes to the posterior mean."""

    def table(self, x: Tensor) -> Tensor:
        mean = torch.einsum("k,bkchw->bchw", torch.tensor(PROBABILITY), super().table(x))
        return mean.unsqueeze(1).expand(-1, self.codes, -1, -1, -1)


@pytest.fixture
def world() -> ToyWorld:
    return ToyWorld()


@pytest.fixture
def make_world() -> Callable[..., ToyWorld]:
    return ToyWorld


@pytest.fixture
def exact(world: ToyWorld) -> ToyModel:
    return ToyModel(world)


@pytest.fixture
def mean(world: ToyWorld) -> MeanModel:
    return MeanModel(world)


@pytest.fixture
def copier(world: ToyWorld) -> CopyModel:
    return CopyModel(world)


@pytest.fixture
def deaf(world: ToyWorld) -> DeafModel:
    return DeafModel(world)
