"""Maximum likelihood: exact on a grid, and with the model's own samples in place of the integral."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from ssl_ebm.data.planar import plane
from ssl_ebm.energy.noise import UniformNoise
from ssl_ebm.energy.objectives import GridLikelihood, MonteCarloLikelihood, SampledLikelihood
from ssl_ebm.energy.sampling import Hmc, Langevin, Metropolis
from ssl_ebm.evaluation.densities import nats_above_truth
from ssl_ebm.evaluation.drawing import Figure, Theme, energies_on, grid_of, square
from ssl_ebm.lecture.claims import Claim, Outcome, Setting
from ssl_ebm.lecture.training import batches_of, train
from ssl_ebm.networks import PointEnergy

TITLE = "Maximum likelihood: down on data, up everywhere"
SENTENCE = (
    "The loss of maximum likelihood pushes the energy down on the data and up wherever exp(-βF) puts its "
    "mass; the second term is an integral, intractable in general, which samples estimate."
)
SETS = ("eight_gaussians", "spiral")
CHAINS = 4000
COMPARED_AT = 30  # steps: the density has begun to take shape, and chains still cross between its modes


def make_energy(seed: int) -> PointEnergy:
    """A smooth energy with waves of 1, 2 and 4 radians per unit, and a bowl."""
    torch.manual_seed(seed)
    return PointEnergy(2, 64, 2, confine=0.1, frequencies=3)


def estimators() -> dict[str, nn.Module]:
    """The integral by four kinds of samples; a chain has 1,200 evaluations of F, with or without slope."""
    begin = UniformNoise((2,), -3.0, 3.0)
    return {
        "Monte Carlo": MonteCarloLikelihood(UniformNoise((2,), -4.5, 4.5), samples=20_000),
        "MCMC (Metropolis)": SampledLikelihood(Metropolis(0.4, warmup=100), 1100, begin, CHAINS),
        "Langevin": SampledLikelihood(Langevin(0.01), 1200, begin, CHAINS),
        "HMC": SampledLikelihood(Hmc(0.15, warmup=20, leapfrog_steps=10), 100, begin, CHAINS),
    }


def gradient(loss: Tensor, model: nn.Module) -> Tensor:
    """In one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def run(setting: Setting) -> Outcome:
    """Learns two densities exactly; on the way, compares estimated gradients with the exact one."""
    seeds = setting.seeds
    gaps: dict[str, list[float]] = {name: [] for name in SETS}
    cosines: dict[str, list[float]] = {name: [] for name in estimators()}
    lengths: dict[str, list[float]] = {name: [] for name in estimators()}
    shown: dict[str, PointEnergy] = {}
    for seed in seeds:
        for name in SETS:
            source = plane(name)  # type: ignore[arg-type]
            data = source.sample(20_000, seed, "ml")
            model = make_energy(seed)
            exact = GridLikelihood(-4.5, 4.5, 70)

            def compare(step: int, model: PointEnergy = model, data: Tensor = data, seed: int = seed) -> None:
                if step != COMPARED_AT:
                    return
                fine, y = GridLikelihood(-4.5, 4.5, 150), data[:4000]
                truth = gradient(fine(model, y), model)
                for kind, estimator in estimators().items():
                    generator = torch.Generator().manual_seed(seed)
                    found = gradient(estimator(model, y, generator), model)
                    cosines[kind].append(float(torch.cosine_similarity(found, truth, dim=0)))
                    lengths[kind].append(float((found @ truth) / (truth @ truth)))

            watch = compare if name == SETS[0] else None
            train(model, exact, batches_of(data, 256, seed), 900, 5e-3, seed, watch)
            unseen = source.sample(2000, seed, "unseen")
            gaps[name].append(nats_above_truth(model, unseen, source.log_density(unseen)))
            shown.setdefault(name, model)
    claims = [
        Claim(
            f"ml_density_{name}", "L10",
            "KL divergence of the learnt density from the truth, nats, exact likelihood, "
            f"{name.replace('_', ' ')}",
            found, -0.05, most,
        )
        for (name, found), most in zip(gaps.items(), (0.1, 0.3), strict=True)
    ]  # fmt: skip
    for kind in cosines:
        id_ = kind.split()[0].lower() if kind != "Monte Carlo" else "monte_carlo"
        claims += [
            Claim(
                f"ml_cosine_{id_}", "L10",
                f"Cosine between the gradient estimated by {kind} and the exact one, after {COMPARED_AT} "
                "steps",
                cosines[kind], least=0.85,
            ),
            Claim(
                f"ml_length_{id_}", "L10",
                "Length of the estimated gradient along the exact one, over the exact length: its bias, "
                f"{kind}",
                lengths[kind], 0.75, 1.25,
            ),
        ]  # fmt: skip

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        grid = grid_of(3.6)
        fine = GridLikelihood(-4.5, 4.5, 180)
        for i, name in enumerate(SETS):
            truth = plane(name).log_density(grid).exp()  # type: ignore[arg-type]
            with torch.no_grad():
                log_partition = fine.log_partition(shown[name])
            learnt = (-energies_on(shown[name], grid) - log_partition).exp()
            high = float(truth.quantile(0.998))
            for axis, density, title in ((axes[2 * i], truth, "true"), (axes[2 * i + 1], learnt, "learnt")):
                side = round(len(grid) ** 0.5)
                axis.imshow(
                    density.reshape(side, side).numpy(), origin="lower", extent=(-3.6, 3.6, -3.6, 3.6),
                    cmap=theme.scale.removesuffix("_r"), vmin=0, vmax=high, aspect="equal",
                )  # fmt: skip
                square(axis, 3.6)
                axis.set_title(f"{title} density")

    caption = (
        "Densities in the plane, each pair in one colour scale: the truth, and exp(-F) / Z after training "
        "with the exact likelihood on a grid."
    )
    return Outcome(claims, [Figure(caption, draw, columns=4, width=3.3, height=3.4)])
