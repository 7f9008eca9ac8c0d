"""F(x, y) as a minimum over z, and as -1/beta log of an average over z, at many temperatures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from ssl_ebm.data.planar import plane
from ssl_ebm.energy import Ball, Enumeration, Gaussian, PredictiveEnergy, free_energy, importance_free_energy
from ssl_ebm.evaluation.drawing import Figure, Theme, curve, energy_map
from ssl_ebm.lecture.claims import Claim, Outcome, Setting
from ssl_ebm.lecture.kmeans_spiral import coordinate_descent, k_means

TITLE = "The free energy, from hot to cold"
SENTENCE = (
    "F(x, y) is the minimum over z of E(x, y, z), or -1/β log of the average of exp(-βE) over z: hot, the "
    "average energy; cold, the minimum."
)
BETAS = (0.1, 0.3, 1.0, 3.2, 10.0, math.inf)
PROTOTYPES = 20
OUTPUTS, DIM, SAMPLES = 6, 3, 1000  # of the estimate by importance sampling


class Ellipse(nn.Module):
    """y = x + (1.1 sqrt(2) cos(2 z), 0.9 sqrt(2) sin(2 z)): a continuous z in [-pi/2, pi/2] goes around once.

    The lecture's ellipse with the radii 1.1 and 0.9 of its text.
    """

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x (B, 2), z (B, S, 1) -> (B, S, 2)."""
        angle = 2 * z[..., 0]
        return x[:, None] + math.sqrt(2) * torch.stack([1.1 * angle.cos(), 0.9 * angle.sin()], -1)


def laws(energies: Tensor, log_weights: Tensor | None = None) -> tuple[float, float, float]:
    """How far F_beta is from its laws, in units of the energy's spread, energies (B, S):

    the largest rise of F where beta grows (0 or less is right), distance of a hot F from the average, and of
    a cold F from the minimum.
    """
    ladder = [free_energy(energies, beta, log_weights) for beta in (*BETAS[:-1], 1e2, 1e4, math.inf)]
    spread = float(energies.max() - energies.min())
    rise = max(float((cold - warm).max()) for warm, cold in pairwise(ladder)) / spread
    weights = torch.full_like(energies, 1 / energies.shape[1]) if log_weights is None else log_weights.exp()
    average = (weights * energies).sum(1)
    hot = float((free_energy(energies, 1e-6, log_weights) - average).abs().max()) / spread
    cold = float((free_energy(energies, 1e6, log_weights) - ladder[-1]).abs().max()) / spread
    return rise, hot, cold


def by_importance(seed: int) -> tuple[float, float]:
    """F_beta of E(y, z) = |y - W z|^2, z ~ N(0, I), estimated from samples of the posterior's marginals.

    Returns:
        The mean distance from the exact value, in nats (beta times the energy's unit), and the mean effective
        sample size, as a share of the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    weights, z, noise = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((OUTPUTS, DIM), (200, DIM), (200, OUTPUTS))
    )
    y = z @ weights.T + noise
    eye = torch.eye(DIM, dtype=torch.float64)
    posterior = torch.linalg.inv(eye + 2 * weights.T @ weights)  # covariance of z given y, at beta = 1
    mean = 2 * y @ weights @ posterior
    std = posterior.diagonal().sqrt().expand_as(mean)
    latent = Gaussian(DIM, 0.0).double()

    def energy(z: Tensor) -> Tensor:
        return (y[:, None] - z @ weights.T).square().sum(2)

    found = importance_free_energy(energy, latent, mean, std, 1.0, SAMPLES, generator)
    covariance = weights @ weights.T + 0.5 * torch.eye(OUTPUTS, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(torch.zeros(OUTPUTS, dtype=torch.float64), covariance)
    exact = -normal.log_prob(y) - OUTPUTS / 2 * math.log(math.pi)
    error = float((found.free_energy - exact).abs().mean())
    return error, float(found.effective_sample_size.mean()) / SAMPLES


def run(setting: Setting) -> Outcome:
    """An unconditional energy with a finite z (K-means), and a conditional one with a continuous z."""
    seeds = setting.seeds
    finite, continuous = [], []
    source = plane("spiral")
    for seed in seeds:
        y = source.sample(1000, seed, "free")
        start = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[:PROTOTYPES]]
        model = k_means(coordinate_descent(y, start.T.contiguous(), 20).prototypes).double()
        points = 3 * torch.randn(200, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with torch.no_grad():
            finite.append(laws(model.model.infer(Enumeration(), points, None).energies))
        ellipse, rule = conditional()
        x = torch.randn(200, 2, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
        nodes = rule[0].expand(len(points), -1, -1)
        continuous.append(laws(ellipse.energy(points, x, nodes), rule[1]))
    kinds = (
        ("finite", "finite z, unconditional", finite),
        ("continuous", "continuous z, given x", continuous),
    )
    claims = []
    for id_, name, found in kinds:
        claims += [
            Claim(
                f"free_energy_{id_}_monotone", "L8",
                f"Largest rise of F as beta grows, over the spread of the energies ({name})",
                [f[0] for f in found], most=1e-9,
            ),
            Claim(
                f"free_energy_{id_}_hot", "L8",
                f"Distance of F at beta = 1e-6 from the average energy, over the spread ({name})",
                [f[1] for f in found], most=1e-3,
            ),
            Claim(
                f"free_energy_{id_}_cold", "L8",
                f"Distance of F at beta = 1e6 from the minimum, over the spread ({name})",
                [f[2] for f in found], most=1e-3,
            ),
        ]  # fmt: skip
    sampled = [by_importance(seed) for seed in seeds]
    claims += [
        Claim(
            "free_energy_importance", "L8",
            f"Distance of F estimated by {SAMPLES} samples of the posterior's marginals from the exact one, "
            f"z of {DIM} dimensions, in nats",
            [one[0] for one in sampled], most=0.1,
        ),
        Claim(
            "free_energy_effective_samples", "L8",
            "Effective sample size of that estimate, as a share of its samples",
            [one[1] for one in sampled], least=0.1,
        ),
    ]  # fmt: skip
    cloud = source.sample(1000, seeds[0], "free")
    start = cloud[torch.randperm(1000, generator=torch.Generator().manual_seed(seeds[0]))[:PROTOTYPES]]
    shown = k_means(coordinate_descent(cloud, start.T.contiguous(), 20).prototypes)

    def maps(theme: Theme, axes: Sequence[Axes]) -> None:
        for place, beta in zip(axes, (0.3, 3.2, math.inf), strict=True):

            def at(y: Tensor, beta: float = beta) -> Tensor:
                return free_energy(shown.model.infer(Enumeration(), y, None).energies, beta)

            energy_map(place, theme, at, high=4.0, bar="F(y) above its minimum" if math.isinf(beta) else "")
            place.set_title("β = ∞ (minimum)" if math.isinf(beta) else f"β = {beta:g}")

    def slices(theme: Theme, axes: Sequence[Axes]) -> None:
        line = torch.stack([torch.linspace(-3.2, 3.2, 400), torch.zeros(400)], 1)
        energies = shown.model.infer(Enumeration(), line, None).energies.detach()
        ellipse, (nodes, log_weights) = conditional()
        given = ellipse.energy(
            line.double(), torch.zeros(400, 2, dtype=torch.float64), nodes.expand(400, -1, -1)
        )
        shades = [theme.second, theme.fourth, theme.soft, theme.third, theme.first, theme.ink]
        for beta, shade in zip(BETAS, shades, strict=True):
            label = "β = ∞" if math.isinf(beta) else f"β = {beta:g}"
            curve(axes[0], line[:, 0].tolist(), free_energy(energies, beta).tolist(), shade, label)
            curve(axes[1], line[:, 0].tolist(), free_energy(given, beta, log_weights).tolist(), shade, label)
        axes[0].set(title="K-means, finite z", ylabel="$F_β(y)$", xlabel="$y_1$, at $y_2 = 0$", ylim=(0, 12))
        axes[1].set(
            title="ellipse around x, continuous z", ylabel="$F_β(x, y)$", xlabel="$y_1$, at $y_2 = 0$, x = 0",
            ylim=(0, 12),
        )  # fmt: skip
        axes[0].legend(ncols=2)

    return Outcome(
        claims,
        [
            Figure(
                "Free energy of K-means on the spiral: hot, one bowl around the mean of the prototypes; "
                "cold, a well for each.",
                maps, columns=3, width=3.9, height=3.6,
            ),
            Figure(
                "The same along a line, and for a conditional energy whose z goes around an ellipse: F falls "
                "from the average over z to the minimum as β grows.",
                slices, columns=2,
            ),
        ],
    )  # fmt: skip


def conditional() -> tuple[PredictiveEnergy, tuple[Tensor, Tensor]]:
    """E(x, y, z) = |y - Ellipse(x, z)|^2 with z on an interval, and nodes and log-weights for averages."""
    latent = Ball(1, math.pi / 2).double()
    rule = latent.quadrature(512)
    return PredictiveEnergy(Ellipse(), latent), (rule.nodes[None], rule.log_weights)
