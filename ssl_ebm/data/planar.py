"""Sets of points in the plane whose density and manifold are known: spiral, moons, rings and others.

All but the checkerboard are a curve (or a few points) with Gaussian noise around it, so the density is a sum
over points of the curve, and the distance to the manifold one to its nearest point.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ssl_ebm.data.loading import StreamData, check_least
from ssl_ebm.data.randomness import uniforms
from ssl_ebm.errors import UserError

PlaneName = Literal["spiral", "two_moons", "eight_gaussians", "checkerboard", "rings"]
EXTENT = 3.0  # all sets lie within [-EXTENT, EXTENT]^2, but for noise
NODES = 1024  # points that stand for a curve: neighbours are less than 0.04 apart
LEAST_NOISE = 0.02  # around a curve: with less its nodes show in the density


class Plane(ABC):
    """A distribution in the plane.

    Attributes:
        name: which.
        noise: standard deviation of the noise around the manifold, in units of y.
    """

    name: str
    noise: float

    @abstractmethod
    def draw(self, uniform: NDArray[np.float64]) -> Tensor:
        """Points from uniform numbers in [0, 1): (N, 4) -> (N, 2) float32."""

    @abstractmethod
    def log_density(self, y: Tensor) -> Tensor:
        """(B, 2) -> (B,), in nats; exact for points and boxes, to 1e-3 for curves."""

    @abstractmethod
    def distance(self, y: Tensor) -> Tensor:
        """To the manifold without noise: (B, 2) -> (B,); 0 inside of a set that has an area."""

    def sample(self, count: int, seed: int, stream: str = "sample") -> Tensor:
        """`count` independent points, (count, 2) float32; a pure function of its arguments."""
        return self.draw(uniforms(seed, f"{self.name}/{stream}", np.arange(count), 4))


class Curve(Plane):
    """Points spread evenly along curves, with Gaussian noise.

    Args:
        name: of the set.
        nodes: (M, 2), in order along each curve and equally spaced in probability.
        noise: standard deviation, above 0.
    """

    def __init__(self, name: str, nodes: NDArray[np.float64], noise: float) -> None:
        if not 0 < noise < math.inf:
            raise UserError(f"{name}: noise is {noise}: use a number above 0")
        self.name = name
        self.noise = noise
        self.nodes = torch.from_numpy(nodes)  # float64

    def draw(self, uniform: NDArray[np.float64]) -> Tensor:
        index = np.floor(uniform[:, 0] * len(self.nodes)).astype(np.int64)
        # Box-Muller: two uniform numbers, the first not zero, make two normal ones.
        radius = np.sqrt(-2 * np.log1p(-uniform[:, 1]))
        angle = 2 * math.pi * uniform[:, 2]
        normal = torch.from_numpy(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1))
        return (self.nodes[torch.from_numpy(index)] + self.noise * normal).float()

    def log_density(self, y: Tensor) -> Tensor:
        parts = []
        for part in y.double().split(1024):
            squared = torch.cdist(part, self.nodes.to(y.device), compute_mode="donot_use_mm_for_euclid_dist")
            parts.append(torch.logsumexp(-0.5 * (squared / self.noise).square(), 1))
        constant = math.log(len(self.nodes)) + math.log(2 * math.pi * self.noise**2)
        return (torch.cat(parts) - constant).to(y.dtype)

    def distance(self, y: Tensor) -> Tensor:
        parts = [
            torch.cdist(part, self.nodes.to(y.device), compute_mode="donot_use_mm_for_euclid_dist").amin(1)
            for part in y.double().split(1024)
        ]
        return torch.cat(parts).to(y.dtype)

    def nearest(self, y: Tensor) -> Tensor:
        """The nearest point of the curve, up to the spacing of its nodes: (B, 2) -> (B, 2)."""
        nodes = self.nodes.to(y.device)
        index = torch.cdist(y.double(), nodes, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        return nodes[index].to(y.dtype)


class Checkerboard(Plane):
    """Uniform on the black squares of a board of 4 x 4 squares that fills [-EXTENT, EXTENT]^2; no noise."""

    name = "checkerboard"
    noise = 0.0
    squares = 4

    def draw(self, uniform: NDArray[np.float64]) -> Tensor:
        row = np.floor(uniform[:, 0] * self.squares)
        column = 2 * np.floor(uniform[:, 1] * self.squares / 2) + row % 2
        side = 2 * EXTENT / self.squares
        inside = np.clip(uniform[:, 2:], 1e-6, 1 - 1e-6)  # rounding must not carry a point over the border
        places = np.stack([column, row], 1) + inside
        return torch.from_numpy(places * side - EXTENT).float()

    def log_density(self, y: Tensor) -> Tensor:
        area = 2 * EXTENT**2  # half of the board
        return torch.full_like(y[:, 0], -math.log(area)).masked_fill(~self._black(y), -math.inf)

    def distance(self, y: Tensor) -> Tensor:
        side = 2 * EXTENT / self.squares
        corners = [
            (column * side - EXTENT, row * side - EXTENT)
            for row in range(self.squares)
            for column in range(row % 2, self.squares, 2)
        ]
        gaps = [
            torch.stack(
                [
                    (low - y[:, d]).clamp_min(0) + (y[:, d] - low - side).clamp_min(0)
                    for d, low in enumerate(one)
                ]
            ).norm(dim=0)
            for one in corners
        ]
        return torch.stack(gaps).amin(0)

    def _black(self, y: Tensor) -> Tensor:
        place = (y + EXTENT) / (2 * EXTENT / self.squares)
        inside = ((place >= 0) & (place < self.squares)).all(1)
        return inside & (place.floor().sum(1) % 2 == 0)


def plane(name: PlaneName, noise: float | None = None) -> Plane:
    """One of the sets.

        spiral           two turns, radius 0.3 to 3, evenly spread along its length; noise 0.05
        two_moons        two half circles of radius 1.8 that reach into each other; noise 0.12
        eight_gaussians  on a circle of radius 2.4; noise 0.15
        rings            circles of radius 1, 2 and 3, evenly spread along their length; noise 0.06
        checkerboard     8 of 16 squares, uniform; no noise

    Args:
        name: which.
        noise: standard deviation, above 0; None: the one above.

    Raises:
        UserError: no such set; a noise that is too small, or any for the checkerboard.
    """
    if name == "checkerboard":
        if noise is not None:
            raise UserError("checkerboard: it has no noise: leave noise at null")
        return Checkerboard()
    if name not in _CURVES:
        raise UserError(f"no set of points {name!r}: use one of {', '.join([*_CURVES, 'checkerboard'])}")
    make, usual = _CURVES[name]
    if noise is not None and name != "eight_gaussians" and noise < LEAST_NOISE:
        raise UserError(f"{name}: noise is {noise}: use at least {LEAST_NOISE}")
    return Curve(name, make(), usual if noise is None else noise)


def _spiral() -> NDArray[np.float64]:
    angle = np.linspace(0, 4 * math.pi, 200_001)
    radius = 0.3 + (EXTENT - 0.3) * angle / angle[-1]
    path = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return _evenly(path, NODES)


def _two_moons() -> NDArray[np.float64]:
    angle = (np.arange(NODES // 2) + 0.5) / (NODES // 2) * math.pi
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
    return 1.8 * (np.concatenate([upper, lower]) - [0.5, 0.25])


def _eight_gaussians() -> NDArray[np.float64]:
    angle = np.arange(8) / 8 * 2 * math.pi
    return 2.4 * np.stack([np.cos(angle), np.sin(angle)], 1)


def _rings() -> NDArray[np.float64]:
    counts = [NODES // 6, NODES // 3, NODES // 2]
    circles = []
    for radius, count in zip((1.0, 2.0, 3.0), counts, strict=True):
        angle = np.arange(count) / count * 2 * math.pi
        circles.append(radius * np.stack([np.cos(angle), np.sin(angle)], 1))
    return np.concatenate(circles)


def _evenly(path: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """`count` points of a finely sampled path, equally spaced along its length."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    places = (np.arange(count) + 0.5) / count * length[-1]
    return np.stack([np.interp(places, length, path[:, d]) for d in (0, 1)], 1)


_CURVES = {
    "spiral": (_spiral, 0.05),
    "two_moons": (_two_moons, 0.12),
    "eight_gaussians": (_eight_gaussians, 0.15),
    "rings": (_rings, 0.06),
}


class PlaneDataset(Dataset[dict[str, Tensor]]):
    """Points of a plane set; item i is a pure function of (seed, split, i), if `fresh` new beyond the length.

    An item: point (2,) float32; where the same points come again, index int64 of the point.
    """

    def __init__(self, source: Plane, count: int, seed: int, split: str, fresh: bool) -> None:
        self.source, self.count, self.seed, self.split, self.fresh = source, count, seed, split, fresh

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        """The items of a batch at once."""
        place = np.asarray(indices)
        if not self.fresh:
            place = place % self.count
        points = self.source.draw(uniforms(self.seed, f"{self.source.name}/{self.split}", place, 4))
        if self.fresh:
            return [{"point": point} for point in points]
        index = torch.as_tensor(place, dtype=torch.int64)
        return [{"point": point, "index": one} for point, one in zip(points, index, strict=True)]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]


class PlanePoints(StreamData):
    """Batches {"point": (B, 2) float32 within about [-3, 3]} of a set in the plane.

    Args:
        name: of the set (see `plane`).
        noise: around it; None: the usual.
        train_points, val_points, test_points: sizes of the splits.
        fresh: new training points in every epoch, so that the number of steps is all that limits the data;
            False: the same `train_points` again, and batches have their "index" (B,) int64 (a latent bank
            needs it).
        batch_size, workers, seed: as in `StreamData`.

    Raises:
        UserError: a setting out of its range.
    """

    def __init__(
        self,
        name: PlaneName = "spiral",
        noise: float | None = None,
        train_points: int = 10_000,
        val_points: int = 2000,
        test_points: int = 5000,
        fresh: bool = True,
        batch_size: int = 256,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        check_least(train_points=(train_points, 1), val_points=(val_points, 1), test_points=(test_points, 1))
        self.source = plane(name, noise)
        self.counts = {"train": train_points, "val": val_points, "test": test_points}
        self.fresh = fresh

    def make_dataset(self, split: str) -> PlaneDataset:
        return PlaneDataset(
            self.source, self.counts[split], self.seed, split, self.fresh and split == "train"
        )

    def settings(self) -> dict[str, Any]:
        return {"set": self.source.name, "noise": self.source.noise, "fresh": self.fresh}
