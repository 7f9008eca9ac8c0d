"""Contrastive divergence: kick a training point, roll down the energy, push up where it lands."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from ssl_ebm.data.planar import Plane, plane
from ssl_ebm.energy.noise import UniformNoise
from ssl_ebm.energy.objectives import (
    ContrastiveDivergence,
    GridLikelihood,
    PersistentContrastiveDivergence,
    ReplayBuffer,
)
from ssl_ebm.energy.sampling import EnergyOfState, Langevin
from ssl_ebm.evaluation.densities import REACH, nats_above_truth
from ssl_ebm.evaluation.drawing import Figure, Theme, energies_on, energy_map, points
from ssl_ebm.lecture.claims import Claim, Outcome, Setting
from ssl_ebm.lecture.maximum_likelihood import make_energy
from ssl_ebm.lecture.training import batches_of, train
from ssl_ebm.networks import PointEnergy

TITLE = "Contrastive divergence: kick, roll down, push up"
SENTENCE = (
    "Take a training point, let it move down the energy for a while, and push up where it lands: this "
    "carves the energy around the data. Chains that live on find the wells far from it, too."
)
STEPS, BATCH = 1200, 256
LEARNING_RATE, RESTRAINT = 1e-3, 0.01  # short chains let energies run away without the latter
OFF = 0.5  # distance from the manifold beyond which mass is spurious
STEP_SIZE = 0.01
KICK = 0.3  # standard deviation, in units of y


def objectives() -> dict[str, nn.Module]:
    """CD-1, CD-10 and persistent CD with as many Langevin steps as CD-10."""
    sampler = Langevin(STEP_SIZE)
    return {
        "CD-1": ContrastiveDivergence(sampler, 1, KICK, RESTRAINT),
        "CD-10": ContrastiveDivergence(sampler, 10, KICK, RESTRAINT),
        "persistent CD": PersistentContrastiveDivergence(
            sampler, 10, ReplayBuffer(2048, UniformNoise((2,), -4.0, 4.0), refresh=0.02), RESTRAINT
        ),
    }


def spurious_mass(energy: EnergyOfState, source: Plane) -> float:
    """Share of exp(-F) / Z that lies further than OFF from the manifold, on a grid."""
    exact = GridLikelihood(-REACH, REACH, 180)
    p = torch.softmax(-energies_on(energy, exact.grid), 0)
    return float(p[source.distance(exact.grid) > OFF].sum())


def run(setting: Setting) -> Outcome:
    """All three on the moons, from the same start."""
    seeds = setting.seeds
    source = plane("two_moons")
    nats: dict[str, list[float]] = {}
    mass: dict[str, list[float]] = {}
    shown: dict[str, PointEnergy] = {}
    for seed in seeds:
        data = source.sample(20_000, seed, "cd")
        unseen = source.sample(2000, seed, "unseen")
        truth = source.log_density(unseen)
        models = {"before": make_energy(seed)}
        for name, objective in objectives().items():
            models[name] = make_energy(seed)
            train(models[name], objective, batches_of(data, BATCH, seed), STEPS, LEARNING_RATE, seed)
        for name, model in models.items():
            nats.setdefault(name, []).append(nats_above_truth(model, unseen, truth))
            mass.setdefault(name, []).append(spurious_mass(model, source))
        shown = shown or models
    claims = [
        Claim(
            f"cd_density_{id_}", "L16",
            f"KL divergence from the truth, {name}, over that before training",
            [a / b for a, b in zip(nats[name], nats["before"], strict=True)], most=most,
        )
        for name, id_, most in (("CD-10", "cd10", 0.5), ("persistent CD", "persistent", 0.3))
    ] + [
        Claim(
            "cd_order", "L16", "KL divergence from the truth, CD-1 minus persistent CD, nats",
            [a - b for a, b in zip(nats["CD-1"], nats["persistent CD"], strict=True)], least=0.0,
        ),
        Claim(
            "cd_spurious_before", "L16",
            f"Share of the model's mass further than {OFF:g} from the manifold, before training",
            mass["before"], least=0.3,
        ),
        Claim(
            "cd_spurious_after", "L16", "The same after persistent CD", mass["persistent CD"], most=0.05,
        ),
    ]  # fmt: skip

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        for place, (name, model) in zip(axes, shown.items(), strict=True):
            energy_map(place, theme, model, high=10.0, bar="energy F(y)" if name == "persistent CD" else "")
            generator = torch.Generator().manual_seed(1)
            for y in source.sample(10, 4, "kicks"):
                kicked = y + KICK * torch.randn(2, generator=generator)
                path = _path(model, kicked, generator)
                place.plot(*torch.stack([y, kicked]).T, color=theme.second, lw=1.4)
                place.plot(*path.T, color=theme.fourth, lw=2.0)
                points(place, path[-1:], theme.fourth, 5, marker="o")
            points(place, source.sample(200, 4, "dots"), theme.data, 1.5)
            place.set_title(name)

    caption = (
        "Energy before and after training, in one colour scale. Points: data. From ten of them a kick "
        "(thin) and then ten Langevin steps (thick) to where CD-10 pushes up. CD-1 takes one of these "
        "steps; persistent chains go on from where they were, and find low energy far from the data."
    )
    return Outcome(claims, [Figure(caption, draw, columns=4, width=3.5, height=3.6)])


def _path(energy: EnergyOfState, start: Tensor, generator: torch.Generator) -> Tensor:
    """The ten steps that CD-10 takes from one point: (11, 2)."""
    draws = Langevin(STEP_SIZE).sample(energy, start[None], 10, generator, record_every=1).draws[:, 0]
    return torch.cat([start[None], draws])
