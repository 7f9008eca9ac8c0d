"""K-means as an energy-based model: E(y, z) = |y - W z|^2 with z one-hot, on a spiral."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from ssl_ebm.data.planar import plane
from ssl_ebm.energy import Enumeration, OneHot, PredictiveEnergy
from ssl_ebm.energy.sampling import Descent
from ssl_ebm.energy.unconditional import LatentEnergy
from ssl_ebm.evaluation.drawing import Figure, Theme, curve, energy_map, grid_of, points
from ssl_ebm.lecture.claims import Claim, Outcome, Setting
from ssl_ebm.lecture.training import exponent

TITLE = "K-means: wells around prototypes"
SENTENCE = (
    "With E(y, z) = |y - Wz|² and a one-hot z the energy is low around K prototypes and grows quadratically "
    "away from them; alternating between z and W makes faster progress than gradient steps."
)
PROTOTYPES = 20
POINTS = 2000
SWEEPS = 30  # passes over the data, of either training
STEP_SIZES = (0.3, 1.0, 3.0, 10.0, 20.0, 40.0)  # of gradient descent, tuned by its own end


@dataclass(frozen=True)
class Trained:
    """Mean energy after each pass, and the prototypes at the end (2, K)."""

    energy: list[float]
    prototypes: Tensor


def k_means(prototypes: Tensor) -> LatentEnergy:
    """F(y) = min_k |y - w_k|^2 with prototypes (2, K) as the columns of W."""
    decoder = nn.Linear(prototypes.shape[1], prototypes.shape[0], bias=False)
    with torch.no_grad():
        decoder.weight.copy_(prototypes)
    return LatentEnergy(PredictiveEnergy(decoder, OneHot(prototypes.shape[1])), Enumeration())


def coordinate_descent(y: Tensor, start: Tensor, sweeps: int) -> Trained:
    """Lloyd's algorithm: z* for every y, then each prototype to the mean of its points; one pass a sweep.

    A prototype without points stays where it is. Source: Lloyd, "Least squares quantization in PCM" (1982).
    """
    model = k_means(start)
    weight: Tensor = model.model.decoder.weight  # type: ignore[assignment]
    energies = []
    with torch.no_grad():
        for _ in range(sweeps):
            found = model.model.infer(Enumeration(), y, None)
            energies.append(float(found.energy.mean()))
            counts = found.z.sum(0)  # (K,)
            sums = y.T @ found.z  # (2, K)
            weight.copy_(torch.where(counts > 0, sums / counts.clamp_min(1), weight))
    return Trained(energies, weight.detach().clone())


def gradient_descent(y: Tensor, start: Tensor, sweeps: int, step_size: float) -> Trained:
    """W moves down the gradient of the mean of F over all data; one pass a step."""
    model = k_means(start)
    weight: Tensor = model.model.decoder.weight  # type: ignore[assignment]
    energies = []
    for _ in range(sweeps):
        loss = model(y).mean()
        energies.append(float(loss.detach()))
        (slope,) = torch.autograd.grad(loss, weight)
        with torch.no_grad():
            weight -= step_size * slope
    return Trained(energies, weight.detach().clone())


def safe_step(y: Tensor, start: Tensor) -> float:
    """1 / L, with L = 2 max_k n_k / N the largest curvature of the mean energy, n_k points nearest to k.

    The largest cluster takes a step of coordinate descent, smaller ones a part of it.
    """
    counts = k_means(start).model.infer(Enumeration(), y, None).z.sum(0)
    return len(y) / (2 * float(counts.max()))


def zero_energy_points(model: LatentEnergy) -> int:
    """Different points with F = 0 that descent from a grid over the plane ends in."""
    start = grid_of(3.5, 40)
    ends = Descent(0.25).sample(model, start, 60).state
    with torch.no_grad():
        reached = ends[model(ends) < 1e-6]
    return len((reached * 100).round().unique(dim=0))


def growth(model: LatentEnergy, prototypes: Tensor, seed: int) -> float:
    """Exponent of F against the distance from a prototype, nearer to it than to any other."""
    generator = torch.Generator().manual_seed(seed)
    w = prototypes.T  # (K, 2)
    reach = 0.5 * (torch.cdist(w, w) + 1e9 * torch.eye(len(w))).amin(1)  # half-way to the next
    direction = torch.randn(200, len(w), 2, generator=generator)
    direction = direction / direction.norm(dim=2, keepdim=True)
    radius = reach * (0.05 + 0.9 * torch.rand(200, len(w), generator=generator))
    with torch.no_grad():
        energy = model((w + radius[..., None] * direction).reshape(-1, 2))
    return exponent(radius.flatten(), energy)


def run(setting: Setting) -> Outcome:
    """Trains both ways from the same prototypes, K points of the data."""
    seeds = setting.seeds
    source = plane("spiral")
    lloyd, safe, tuned, counts, exponents = [], [], [], [], []
    for seed in seeds:
        y = source.sample(POINTS, seed, "kmeans")
        chosen = torch.randperm(POINTS, generator=torch.Generator().manual_seed(seed))[:PROTOTYPES]
        start = y[chosen].T.contiguous()
        lloyd.append(coordinate_descent(y, start, SWEEPS))
        safe.append(gradient_descent(y, start, SWEEPS, safe_step(y, start)))
        tried = [gradient_descent(y, start, SWEEPS, size) for size in STEP_SIZES]
        tuned.append(min(tried, key=lambda one: one.energy[-1]))
        model = k_means(lloyd[-1].prototypes)
        counts.append(float(zero_energy_points(model)))
        exponents.append(growth(model, lloyd[-1].prototypes, seed))
    at_ten = [g.energy[10] / c.energy[10] for g, c in zip(safe, lloyd, strict=True)]
    claims = [
        Claim(
            "kmeans_work", "L11",
            "Energy after 10 passes over the data, gradient descent with step 1/L over coordinate descent, "
            "from the same prototypes",
            at_ten, least=1.0,
        ),
        Claim(
            "kmeans_zeros", "L11",
            f"Number of points with zero energy that descent from all over the plane finds, of {PROTOTYPES} "
            "prototypes",
            counts, PROTOTYPES, PROTOTYPES,
        ),
        Claim(
            "kmeans_growth", "L11", "Exponent of the energy against the distance from a prototype, inside "
            "of its cell (by construction 2)",
            exponents, 1.95, 2.05,
        ),
    ]  # fmt: skip
    shown = k_means(lloyd[0].prototypes)
    cloud = source.sample(POINTS, seeds[0], "kmeans")

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        energy_map(axes[0], theme, shown, high=0.4)
        points(axes[0], cloud[:600], theme.data, 1.5, "data")
        points(axes[0], lloyd[0].prototypes.T, theme.second, 7, "prototypes", marker="o", mec=theme.card)
        axes[0].legend(loc="upper left", framealpha=0.9)
        passes = list(range(SWEEPS))
        for i, (c, s, t) in enumerate(zip(lloyd, safe, tuned, strict=True)):
            curve(axes[1], passes, c.energy, theme.first, "" if i else "coordinate descent")
            curve(axes[1], passes, s.energy, theme.second, "" if i else "gradient descent, step 1/L", ls="--")
            curve(axes[1], passes, t.energy, theme.soft, "" if i else "the same, best of 6 steps", lw=1.2)
        axes[1].set(xlabel="passes over the data", ylabel="mean energy", yscale="log")
        axes[1].legend()

    ends = [tuned_one.energy[-1] / c.energy[-1] for tuned_one, c in zip(tuned, lloyd, strict=True)]
    caption = (
        f"Left: energy of K-means with {PROTOTYPES} prototypes on the spiral: a well around each of them, "
        "and a chain of wells where the data is. Right: mean energy while training, a line for each seed. "
        "Coordinate descent needs no step size; gradient descent with the best of 6, chosen by its own "
        f"result, ends at {min(ends):.2f} to {max(ends):.2f} times its energy."
    )
    return Outcome(claims, [Figure(caption, draw, columns=2)])
