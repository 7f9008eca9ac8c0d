"""Seven ways to keep energy low on the data and higher elsewhere, on the same sets of points."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from ssl_ebm.data.planar import Plane, PlaneName, plane
from ssl_ebm.energy import (
    Amortised,
    Ball,
    Enumeration,
    Fista,
    GradientDescent,
    OneHot,
    PredictiveEnergy,
    Quantised,
    Sparse,
)
from ssl_ebm.energy.noise import GaussianNoise, UniformNoise
from ssl_ebm.energy.objectives import (
    Amortisation,
    Contractive,
    ContrastiveDivergence,
    Denoising,
    DenoisingScoreMatching,
    GridLikelihood,
    LatentBank,
    Margin,
    MonteCarloLikelihood,
    NoiseContrastive,
    PersistentContrastiveDivergence,
    PushDown,
    ReplayBuffer,
    SampledLikelihood,
    ScoreMatching,
    SlicedScoreMatching,
    Variational,
    VectorQuantisation,
)
from ssl_ebm.energy.sampling import Hmc, Langevin, Metropolis, Sampler
from ssl_ebm.energy.unconditional import (
    GaussianMixture,
    LatentEnergy,
    ReconstructionEnergy,
    VariationalEnergy,
)
from ssl_ebm.evaluation.densities import nats_above_truth
from ssl_ebm.evaluation.drawing import Figure, Theme, energies_on, energy_map
from ssl_ebm.lecture.claims import Claim, Outcome, Setting
from ssl_ebm.lecture.maximum_likelihood import make_energy
from ssl_ebm.lecture.training import auroc, exponent, train
from ssl_ebm.networks import Dictionary, Mlp
from ssl_ebm.report.tables import table

TITLE = "Seven strategies, one table"
SENTENCE = (
    "Energy can be pushed down on the data and up everywhere (C1), or at chosen points (C2); a map can be "
    "trained to lead back (C3); the volume of low energy can be bounded (A1) or penalised (A2); a "
    "reconstruction can be made constant (A3), the energy flat at the data and curved around it (A4)."
)
SETS: tuple[PlaneName, ...] = ("two_moons", "eight_gaussians")
POINTS, BATCH = 4000, 256
OFF = 0.45  # distance from the manifold beyond which a point counts as off it: three to four times the noise
NEAR, FAR = 0.25, 0.7  # distances over which the growth of the energy is measured
RESTRAINT = 0.01  # of energies, where chains that arrive late would let them run away
NOISE = UniformNoise((2,), -4.0, 4.0)  # where chains begin
LOW_ENERGY = 0.95  # AUROC that counts as having learnt where the data is


@dataclass(frozen=True)
class Method:
    """A model and an objective for points in the plane.

    Attributes:
        strategy: one of the seven.
        name: of the method.
        make: seed, data -> (energy, objective).
        steps, lr: of the training.
        density: whether exp(-F) is meant to be the density.
    """

    strategy: str
    name: str
    make: Callable[[int, Tensor], tuple[nn.Module, nn.Module]]
    steps: int = 500
    lr: float = 5e-3
    density: bool = False


def _scalar(objective: Callable[[], nn.Module]) -> Callable[[int, Tensor], tuple[nn.Module, nn.Module]]:
    return lambda seed, data: (make_energy(seed), objective())


def _autoencoder(
    code: int, objective: Callable[[], nn.Module]
) -> Callable[[int, Tensor], tuple[nn.Module, nn.Module]]:
    return lambda seed, data: (ReconstructionEnergy(Mlp(2, code, 96, 2), Mlp(code, 2, 96, 2)), objective())


def _linear(seed: int, data: Tensor) -> tuple[nn.Module, nn.Module]:
    return ReconstructionEnergy(nn.Linear(2, 1), nn.Linear(1, 2)), PushDown()


def _k_means(seed: int, data: Tensor) -> tuple[nn.Module, nn.Module]:
    decoder = nn.Linear(24, 2, bias=False)
    nn.init.normal_(decoder.weight, std=1.5)
    return LatentEnergy(PredictiveEnergy(decoder, OneHot(24)), Enumeration()), PushDown()


def _untrained(seed: int, data: Tensor) -> tuple[nn.Module, nn.Module]:
    model, objective = _k_means(seed, data)
    with torch.no_grad():
        model.model.decoder.weight.copy_(data[:24].T)  # type: ignore[operator, union-attr]
    return model, objective


def _mixture(seed: int, data: Tensor) -> tuple[nn.Module, nn.Module]:
    return GaussianMixture(24, 2), PushDown()


def _sparse(seed: int, data: Tensor) -> tuple[nn.Module, nn.Module]:
    # 2 |W|^2 of 16 columns of norm 1 is 32 at most.
    model = PredictiveEnergy(Dictionary(2, 16), Sparse(16), regularisation=0.05)
    return LatentEnergy(model, Fista(30, 32.0)), PushDown()


def _sparse_autoencoder(seed: int, data: Tensor) -> tuple[nn.Module, nn.Module]:
    model = PredictiveEnergy(Dictionary(2, 16), Sparse(16), regularisation=0.05)
    return LatentEnergy(model, Amortised(Mlp(2, 16, 96, 2))), Amortisation()


def _variational(seed: int, data: Tensor) -> tuple[nn.Module, nn.Module]:
    return VariationalEnergy(Mlp(2, 4, 96, 2), Mlp(2, 2, 96, 2), beta=20.0), Variational()


def _quantised(seed: int, data: Tensor) -> tuple[nn.Module, nn.Module]:
    latent = Quantised(32, 2)
    with torch.no_grad():
        latent.codebook.mul_(1.5)
    model = PredictiveEnergy(Mlp(2, 2, 96, 1), latent)
    return LatentEnergy(model, Amortised(Mlp(2, 2, 96, 1))), VectorQuantisation()


def _enumerated(seed: int, data: Tensor) -> tuple[nn.Module, nn.Module]:
    model = PredictiveEnergy(Mlp(2, 2, 96, 1), Quantised(24, 2))
    return LatentEnergy(model, Enumeration()), PushDown()


def _bank(seed: int, data: Tensor) -> tuple[nn.Module, nn.Module]:
    latent = Ball(1, 1.0)
    model = PredictiveEnergy(Mlp(1, 2, 96, 3), latent)
    inference = GradientDescent(40, 0.05, "adam", restarts=8)
    return LatentEnergy(model, inference), LatentBank(POINTS, latent)


def _persistent(sampler: Sampler, steps: int, refresh: float) -> Callable[[], nn.Module]:
    return lambda: PersistentContrastiveDivergence(
        sampler, steps, ReplayBuffer(2048, NOISE, refresh), RESTRAINT
    )


UNTRAINED = "24 points of the data, untrained"
METHODS = (
    Method("C1", "maximum likelihood, exact", _scalar(lambda: GridLikelihood(-4.5, 4.5, 60)), density=True),
    Method(
        "C2", "maximum likelihood, Monte Carlo",
        _scalar(lambda: MonteCarloLikelihood(UniformNoise((2,), -4.5, 4.5), 2048)), density=True,
    ),
    # Steps as wide as the gap between two of the Gaussians cross it; along a gradient no chain does. So few
    # leapfrog steps from noise would not arrive: with HMC chains live on, and the eight have unequal shares.
    Method(
        "C2", "maximum likelihood, MCMC",
        _scalar(lambda: SampledLikelihood(Metropolis(1.0), 30, NOISE)), 500, 1e-3, density=True,
    ),
    Method(
        "C2", "maximum likelihood, persistent HMC",
        _scalar(_persistent(Hmc(0.2, leapfrog_steps=3), 3, refresh=0.0)), 500, 1e-3, density=True,
    ),
    Method(
        "C2", "contrastive divergence, CD-8",
        _scalar(lambda: ContrastiveDivergence(Langevin(0.01), 8, restraint=RESTRAINT)), 700, 1e-3,
        density=True,
    ),
    Method(
        "C2", "persistent contrastive divergence",
        _scalar(_persistent(Langevin(0.01), 8, refresh=0.02)), 700, 1e-3, density=True,
    ),
    Method(
        "C2", "noise-contrastive estimation",
        _scalar(lambda: NoiseContrastive(GaussianNoise((2,), 0.0, 2.2), 4)), density=True,
    ),
    Method("C2", "margin, kicked points", _scalar(lambda: Margin(1.0, 4.0))),
    Method("C3", "denoising autoencoder", _autoencoder(64, lambda: Denoising(0.35)), 800),
    Method("none", UNTRAINED, _untrained, 0),
    Method("A1", "PCA, one component", _linear, 300),
    Method("A1", "K-means, 24 prototypes", _k_means, 400, 5e-2),
    Method("A1", "Gaussian mixture, 24 components", _mixture, 500, 3e-2, density=True),
    Method("A2", "sparse coding", _sparse, 300),
    Method("A2", "sparse autoencoder", _sparse_autoencoder),
    Method("A2", "noisy latent (VAE)", _variational),
    Method("A2", "vector quantisation by an encoder", _quantised, 800),
    Method("A2", "learnt codes, all tried", _enumerated),
    Method("A2", "latent bank (GLO), one number", _bank, 800, 1e-2),
    Method("A3", "contractive autoencoder", _autoencoder(16, lambda: Contractive(0.1)), 800),
    Method("A4", "score matching, exact", _scalar(ScoreMatching), density=True),
    Method("A4", "score matching, sliced", _scalar(SlicedScoreMatching), density=True),
    Method("A4", "score matching, denoising", _scalar(lambda: DenoisingScoreMatching(0.15)), density=True),
)  # fmt: skip


# The method of each strategy that the claims are about; the table has all.
SHOWN = {
    "C1": "maximum likelihood, exact",
    "C2": "noise-contrastive estimation",
    "C3": "denoising autoencoder",
    "A1": "Gaussian mixture, 24 components",
    "A2": "learnt codes, all tried",
    "A3": "contractive autoencoder",
    "A4": "score matching, denoising",
}


@dataclass(frozen=True)
class Measured:
    """Of a method on a set: nats above the truth (NaN: it is no density), AUROC, exponent, seconds."""

    nats: float
    auroc: float
    exponent: float
    seconds: float


def fit(method: Method, source: Plane, seed: int) -> nn.Module:
    """The energy after training on POINTS points."""
    torch.manual_seed(seed)
    data = source.sample(POINTS, seed, "seven")
    model, objective = method.make(seed, data)

    def draw(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return torch.randint(POINTS, (BATCH,), generator=generator)

    def with_index(both: nn.ModuleList, index: Tensor, generator: torch.Generator) -> Tensor:
        loss: Tensor = objective(model, data[index], generator, index)
        return loss

    # parameters of the objective (a log-partition, a bank) learn with the model's
    train(nn.ModuleList([model, objective]), with_index, draw, method.steps, method.lr, seed)
    return model


def measure(method: Method, source: Plane, seed: int) -> tuple[Measured, nn.Module]:
    """Trains and rates."""
    began = time.monotonic()
    model = fit(method, source, seed)
    seconds = time.monotonic() - began
    unseen = source.sample(1500, seed, "unseen")
    box = UniformNoise((2,), -3.6, 3.6).sample(6000, torch.Generator().manual_seed(seed))
    distance = source.distance(box)
    energy, real = energies_on(model, box), energies_on(model, unseen)
    between = (distance > NEAR) & (distance < FAR)
    above = (energy[between] - real.median()).clamp_min(1e-4)
    nats = nats_above_truth(model, unseen, source.log_density(unseen)) if method.density else float("nan")
    area = auroc(real, energy[distance > OFF])
    return Measured(nats, area, exponent(distance[between], above), seconds), model


def run(setting: Setting) -> Outcome:
    """Every method on every set."""
    seeds = setting.seeds
    found: dict[tuple[str, str], list[Measured]] = {}
    shown: dict[str, nn.Module] = {}
    for name in SETS:
        source = plane(name)
        for method in METHODS:
            for seed in seeds:
                measured, model = measure(method, source, seed)
                found.setdefault((method.name, name), []).append(measured)
                if name == SETS[0] and seed == seeds[0]:
                    shown[method.name] = model
    claims = []
    for strategy, chosen in SHOWN.items():
        worst = [min(found[chosen, name][i].auroc for name in SETS) for i in range(len(seeds))]
        claims.append(
            Claim(
                f"seven_{strategy.lower()}", "L9",
                f"{strategy}, {chosen}: chance that a point of the data has less energy than one off the "
                f"manifold, the worse of {len(SETS)} sets",
                worst, least=LOW_ENERGY,
            )
        )  # fmt: skip
    exact = [max(found[METHODS[0].name, name][i].nats for name in SETS) for i in range(len(seeds))]
    said = "KL divergence from the truth, C1, the worse set, nats"
    claims.append(Claim("seven_density", "L9", said, exact, most=0.15))

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        highs = {"C1": 12.0, "C2": 12.0, "A1": 12.0, "A4": 12.0}
        for place, (strategy, name) in zip(axes, [*SHOWN.items(), ("none", UNTRAINED)], strict=True):
            energy_map(place, theme, shown[name], high=highs.get(strategy, 0.5), bar="")
            place.set_title(f"{strategy}: {name.split(',')[0].split(' (')[0]}", fontsize=11)
            place.set(xticks=[-3, 0, 3], yticks=[-3, 0, 3])

    caption = (
        "Energy after training on the moons, one method of each strategy. Scales differ: an energy that is a "
        "density has a unit, a reconstruction error another. Last, and in the table of all methods, "
        f"{UNTRAINED}: to tell the data from points far off is easy, the density is not."
    )
    return Outcome(claims, [Figure(caption, draw, columns=4, width=3.3, height=3.3, rows=2)], [_table(found)])


def _table(found: dict[tuple[str, str], list[Measured]]) -> str:
    """Means over the seeds."""
    headings = ["method"]
    for name in SETS:
        words = name.replace("_", " ")
        headings += [f"{words}: KL, nats", "AUROC", "growth", "s"]
    rows = []
    for method in METHODS:
        cells = []
        for name in SETS:
            several = found[method.name, name]
            mean = [sum(getattr(one, field) for one in several) / len(several) for field in _FIELDS]
            cells += [
                "–" if math.isnan(value) else f"{value:.{digits}f}"
                for value, digits in zip(mean, (2, 3, 1, 1), strict=True)
            ]
        rows.append((f"{method.strategy} {method.name}", cells))
    return table(headings, rows, empty="")


_FIELDS = ("nats", "auroc", "exponent", "seconds")
