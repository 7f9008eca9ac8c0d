"""Least squares predicts the average of all futures; a latent variable predicts each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from ssl_ebm.energy import Enumeration, OneHot, PredictiveEnergy
from ssl_ebm.evaluation.drawing import Figure, Theme, points
from ssl_ebm.lecture.claims import Claim, Outcome, Setting
from ssl_ebm.lecture.training import train
from ssl_ebm.networks import Mlp

TITLE = "Least squares averages the futures"
SENTENCE = (
    "If several futures are possible, the prediction with the smallest squared error is their average, "
    "which is none of them. A latent variable picks one: varying it gives all."
)
NOISE = 0.05
STEPS, BATCH = 1200, 256


@dataclass(frozen=True)
class World:
    """y is one of `futures(x)` (B, K, D), equally likely, plus noise; x (B, D_x) is uniform on [-2, 2]."""

    name: str
    inputs: int
    futures: Callable[[Tensor], Tensor]

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = 4 * torch.rand(count, self.inputs, generator=generator) - 2
        ways = self.futures(x)
        which = torch.randint(ways.shape[1], (count,), generator=generator)
        y = ways[torch.arange(count), which]
        return x, y + NOISE * torch.randn(y.shape, generator=generator)


def _fork(x: Tensor) -> Tensor:
    """Two branches that part at x = 0: (B, 1) -> (B, 2, 1)."""
    gap = torch.nn.functional.softplus(3 * x) / 3
    return torch.stack([gap, -gap], 1)


def _turns(x: Tensor) -> Tensor:
    """A step of length 1 from x, straight on or to the right, away from the centre: (B, 2) -> (B, 2, 2)."""
    ahead = x / x.norm(dim=1, keepdim=True).clamp_min(1e-6)
    aside = torch.stack([ahead[:, 1], -ahead[:, 0]], 1)
    return x[:, None] + torch.stack([ahead, aside], 1)


WORLDS = (World("one dimension", 1, _fork), World("two dimensions", 2, _turns))


class Decoder(nn.Module):
    """y = Mlp(x) z: one prediction for each code, from one pass."""

    def __init__(self, inputs: int, outputs: int, codes: int) -> None:
        super().__init__()
        self.network = Mlp(inputs, outputs * codes, width=96, depth=2)
        self.shape = (codes, outputs)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x (B, D_x), z (B, S, K) -> (B, S, D)."""
        ways = self.network(x).unflatten(1, self.shape)  # (B, K, D)
        return z @ ways


def fit(world: World, codes: int, seed: int) -> PredictiveEnergy:
    """min_z |y - Dec(x, z)|^2 on average, z one of `codes`; one code is least squares."""
    torch.manual_seed(seed)
    outputs = world.futures(torch.zeros(1, world.inputs)).shape[2]
    model = PredictiveEnergy(Decoder(world.inputs, outputs, codes), OneHot(codes))

    def draw(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return torch.cat(world.draw(BATCH, generator), 1)

    def objective(model: PredictiveEnergy, both: Tensor, generator: torch.Generator) -> Tensor:
        x, y = both[:, : world.inputs], both[:, world.inputs :]
        return model.infer(Enumeration(), y, x).energy.mean()

    train(model, objective, draw, STEPS, 5e-3, seed)
    return model


def predictions(model: PredictiveEnergy, x: Tensor) -> Tensor:
    """All of them: (B, K, D)."""
    codes = model.latent.enumerate()  # type: ignore[operator]
    with torch.no_grad():
        return model.decode(x, codes.expand(len(x), -1, -1))


def run(setting: Setting) -> Outcome:
    """Least squares and two codes, in one and in two dimensions."""
    seeds = setting.seeds
    claims, shown = [], {}
    for world in WORLDS:
        mean_error, branch_error, missed = [], [], []
        for seed in seeds:
            one, two = fit(world, 1, seed), fit(world, 2, seed)
            if seed == seeds[0]:
                shown[world.name] = (one, two)
            x, _ = world.draw(2000, torch.Generator().manual_seed(seed + 77))
            x = x[x[:, 0] > 0.5] if world.inputs == 1 else x[x.norm(dim=1) > 0.5]
            ways = world.futures(x)
            spread = (ways - ways.mean(1, keepdim=True)).norm(dim=2).mean()
            mean_error.append(float((predictions(one, x)[:, 0] - ways.mean(1)).norm(dim=1).mean() / spread))
            missed.append(float((predictions(one, x) - ways).norm(dim=2).amin(1).mean() / spread))
            gaps = torch.cdist(ways, predictions(two, x))  # (B, futures, predictions)
            branch_error.append(
                float(torch.maximum(gaps.amin(1).amax(1), gaps.amin(2).amax(1)).mean() / spread)
            )
        id_ = "blur_1d" if world.inputs == 1 else "blur_2d"
        claims += [
            Claim(
                f"{id_}_average", "L5",
                "Distance of the least-squares prediction from the average of both futures, over the "
                f"distance of a future from that average ({world.name})",
                mean_error, most=0.1,
            ),
            Claim(
                f"{id_}_nowhere", "L5",
                f"Distance of the least-squares prediction from the nearer future, same unit ({world.name})",
                missed, least=0.85,
            ),
            Claim(
                f"{id_}_branches", "L6",
                "Largest distance between the latent model's two predictions and the two futures, matched "
                f"both ways, same unit ({world.name})",
                branch_error, most=0.15,
            ),
        ]  # fmt: skip

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        world = WORLDS[0]
        x, y = world.draw(600, torch.Generator().manual_seed(5))
        one, two = shown[world.name]
        points(axes[0], torch.cat([x, y], 1), theme.soft, 2, "data")
        line = torch.linspace(-2, 2, 200)[:, None]
        styles = ((one, theme.second, "least squares", "-"), (two, theme.first, "latent model, each z", "--"))
        for model, colour, label, style in styles:
            ways = predictions(model, line)[..., 0]
            for k in range(ways.shape[1]):
                axes[0].plot(line[:, 0], ways[:, k], style, color=colour, lw=2.4, label="" if k else label)
        axes[0].set(xlabel="x", ylabel="y", title="one dimension")
        axes[0].legend()
        world = WORLDS[1]
        angle = torch.tensor(np.linspace(0, 2 * math.pi, 9)[:-1], dtype=torch.float32)
        x = 1.2 * torch.stack([angle.cos(), angle.sin()], 1)
        one, two = shown[world.name]
        ways, blurred, sharp = world.futures(x), predictions(one, x), predictions(two, x)
        points(axes[1], x, theme.data, 5, "x")
        points(axes[1], ways.flatten(0, 1), theme.soft, 9, "futures", marker="o", mfc="none")
        for made, colour, label in ((blurred, theme.second, "least squares"), (sharp, theme.first, "each z")):
            for k in range(made.shape[1]):
                for start, end in zip(x, made[:, k], strict=True):
                    axes[1].plot(*torch.stack([start, end]).T, color=colour, lw=1.3)
            points(axes[1], made.flatten(0, 1), colour, 6, label, marker="o")
        axes[1].set(xlabel="$y_1$", ylabel="$y_2$", aspect="equal", title="two dimensions")
        axes[1].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0))  # beside the ring of futures

    caption = (
        "Left: y is one of two branches. Least squares runs between them, where no data is; a one-hot z of "
        "two values has a prediction for each. Right: from each x the next place is straight on or to the "
        "right."
    )
    return Outcome(claims, [Figure(caption, draw, columns=2)])
