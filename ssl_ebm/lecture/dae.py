"""A denoising autoencoder learns the way back to the manifold; its energy grows quadratically off it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from ssl_ebm.data.planar import Curve, plane
from ssl_ebm.energy.objectives import Denoising
from ssl_ebm.energy.unconditional import ReconstructionEnergy
from ssl_ebm.evaluation.drawing import Figure, Theme, curve, energies_on, energy_map, points, square
from ssl_ebm.lecture.claims import Claim, Outcome, Setting
from ssl_ebm.lecture.training import exponent, train
from ssl_ebm.networks import Mlp

TITLE = "Denoising autoencoder: a field that points home"
SENTENCE = (
    "Corrupt a training point and learn to reconstruct it: the reconstruction points to the manifold of "
    "the data, and the energy |y - G(y)|² grows quadratically away from it."
)
CORRUPTION = 0.25  # standard deviation; neighbouring turns of the spiral are 1.35 apart
SPREAD = 0.02  # of the data around the spiral
STEPS, BATCH = 2500, 512
NEAR, FAR = 0.06, 0.35  # distances at which the growth of the energy is measured


def fit(seed: int, steps: int = STEPS) -> ReconstructionEnergy:
    """Two networks with a code wider than y: nothing but the corruption keeps them from the identity."""
    torch.manual_seed(seed)
    model = ReconstructionEnergy(Mlp(2, 128, 128, 2), Mlp(128, 2, 128, 1))
    source = plane("spiral", SPREAD)

    def draw(step: int) -> Tensor:
        return source.sample(BATCH, seed, f"dae/{step}")

    train(model, Denoising(CORRUPTION), draw, steps, 3e-3, seed)
    return model


def beside(source: Curve, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points at known distances from the spiral, on either side, and their distances: (N, 2), (N,)."""
    generator = torch.Generator().manual_seed(seed)
    nodes = source.nodes.float()
    along = torch.randint(40, len(nodes) - 40, (count,), generator=generator)
    way = nodes[along + 1] - nodes[along - 1]
    normal = torch.stack([-way[:, 1], way[:, 0]], 1) / way.norm(dim=1, keepdim=True)
    distance = NEAR + (FAR - NEAR) * torch.rand(count, generator=generator)
    side = torch.randint(2, (count,), generator=generator) * 2 - 1
    y = nodes[along] + (side * distance)[:, None] * normal
    return y, source.distance(y)


def run(setting: Setting) -> Outcome:
    """Exponent of the energy, and how near a few reconstructions come to the nearest point of the spiral."""
    seeds = setting.seeds
    source = plane("spiral", SPREAD)
    assert isinstance(source, Curve)
    exponents, left, shown, profile = [], [], None, None
    for seed in seeds:
        model = fit(seed)
        y, distance = beside(source, 4000, seed)
        energy = energies_on(model, y)
        exponents.append(exponent(distance, energy))
        with torch.no_grad():
            back = model.reconstruct(model.reconstruct(model.reconstruct(y)))
        left.append(float((back - source.nearest(y)).norm(dim=1).mean() / distance.mean()))
        if shown is None:
            shown, profile = model, (distance, energy)
    assert shown is not None
    assert profile is not None
    claims = [
        Claim(
            "dae_growth", "L15",
            f"Exponent of the energy against the distance from the manifold, from {NEAR:g} to {FAR:g}",
            exponents, 1.7, 2.3,
        ),
        Claim(
            "dae_nearest", "L15",
            "Distance from the nearest point of the manifold after three reconstructions, over that before",
            left, most=0.5,
        ),
    ]  # fmt: skip
    field_model, (distance, energy) = shown, profile

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        axis = torch.linspace(-3.3, 3.3, 23)
        grid = torch.cartesian_prod(axis, axis)
        with torch.no_grad():
            arrow = field_model.reconstruct(grid) - grid
        points(axes[0], source.nodes[::8], theme.second, 2.5, "manifold")
        axes[0].quiver(
            *grid.T.numpy(), *arrow.T.numpy(), color=theme.first, angles="xy", scale_units="xy", scale=1.6,
            width=0.004,
        )  # fmt: skip
        square(axes[0], 3.6)
        axes[0].set_title("G(y) - y")
        energy_map(axes[1], theme, field_model, high=0.3)
        points(axes[1], source.nodes[::16], theme.second, 1.2)
        edges = np.linspace(NEAR, FAR, 13)
        middle, mean = [], []
        for low, high in pairwise(edges):
            inside = (distance >= low) & (distance < high)
            middle.append(float(distance[inside].mean()))
            mean.append(float(energy[inside].mean()))
        curve(axes[2], middle, mean, theme.first, "energy, mean", marker="o", ms=4)
        scale = mean[0] / middle[0] ** 2
        curve(axes[2], middle, [scale * d * d for d in middle], theme.soft, "distance²", ls="--", lw=1.5)
        axes[2].set(xscale="log", yscale="log", xlabel="distance from the manifold", ylabel="energy F(y)")
        axes[2].set_xticks([0.1, 0.2, 0.3], ["0.1", "0.2", "0.3"])
        axes[2].set_xticks([], minor=True)
        axes[2].legend()

    caption = (
        "Left: where the autoencoder moves a point, shortened; arrows lead to the spiral, and change their "
        "mind half-way between two turns. Middle: its energy. Right: growth of the energy, both axes "
        "logarithmic."
    )
    return Outcome(claims, [Figure(caption, draw, columns=3, width=4.2)])
