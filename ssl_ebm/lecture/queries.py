"""With an energy learnt: given y1, what is y2? Given y, what is the nearest point of the manifold?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ssl_ebm.data.planar import Curve, plane
from ssl_ebm.energy.objectives import GridLikelihood
from ssl_ebm.energy.sampling import Descent, EnergyOfState, geometric
from ssl_ebm.evaluation.drawing import Figure, Theme, energies_on, energy_map, points
from ssl_ebm.lecture import dae
from ssl_ebm.lecture.claims import Claim, Outcome, Setting
from ssl_ebm.lecture.kmeans_spiral import coordinate_descent, k_means
from ssl_ebm.lecture.maximum_likelihood import make_energy
from ssl_ebm.lecture.training import train

TITLE = "Asking an energy"
SENTENCE = (
    "Once the energy is learnt, minimise it over what is not known: y₂ from y₁, which may have several "
    "answers, or the point of the manifold that is nearest to a given y."
)
PROTOTYPES = 150
HEIGHTS = 601  # values of y2 that are tried for each y1
GIVEN = torch.linspace(-2.2, 2.2, 23)  # values of y1
TOLERANCE = 0.25  # an answer counts as found within this distance; turns are 1.35 apart


def models(seed: int) -> dict[str, EnergyOfState]:
    """K-means, a denoising autoencoder, and the energy of a density learnt by maximum likelihood."""
    source = plane("spiral", dae.SPREAD)
    y = source.sample(4000, seed, "queries")
    start = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[:PROTOTYPES]]
    likely = make_energy(seed)

    def draw(step: int) -> Tensor:
        batch = source.sample(256, seed, f"queries/{step}")
        return batch + 0.06 * torch.randn(batch.shape, generator=torch.Generator().manual_seed(step))

    train(likely, GridLikelihood(-4.5, 4.5, 70), draw, 800, 5e-3, seed)
    return {
        "K-means": k_means(coordinate_descent(y, start.T.contiguous(), 20).prototypes),
        "DAE": dae.fit(seed),
        "likelihood": likely,
    }


def true_answers(source: Curve, y1: float) -> Tensor:
    """Heights at which the spiral crosses the line of y1: (M,)."""
    a, b = source.nodes[:-1], source.nodes[1:]
    crosses = (a[:, 0] - y1) * (b[:, 0] - y1) <= 0
    share = (y1 - a[crosses, 0]) / (b[crosses, 0] - a[crosses, 0])
    return (a[crosses, 1] + share * (b[crosses, 1] - a[crosses, 1])).float()


def answers(energy: EnergyOfState, y1: float, count: int) -> Tensor:
    """The `count` deepest separate minima over y2: tried on a grid, those within 0.4 count as one."""
    heights = torch.linspace(-3.2, 3.2, HEIGHTS)
    values = energies_on(energy, torch.stack([torch.full_like(heights, y1), heights], 1))
    middle = values[1:-1]
    lowest = ((middle <= values[:-2]) & (middle <= values[2:])).nonzero()[:, 0] + 1
    found: list[float] = []
    for place in lowest[values[lowest].argsort()].tolist():
        height = float(heights[place])
        if all(abs(height - other) > 0.4 for other in found):
            found.append(height)
    return torch.tensor(found[:count])


def second_from_first(energy: EnergyOfState, source: Curve) -> tuple[float, float]:
    """Share of the true answers that are found, given how many there are, and the error of those found."""
    hits, total, errors = 0, 0, []
    for y1 in GIVEN.tolist():
        truth = true_answers(source, y1)
        found = answers(energy, y1, len(truth))
        total += len(truth)
        if len(found):
            gap = (truth[:, None] - found).abs().amin(1)
            hits += int((gap < TOLERANCE).sum())
            errors += gap[gap < TOLERANCE].tolist()
    return hits / total, sum(errors) / max(len(errors), 1)


def nearest(energy: EnergyOfState, y: Tensor, step: float) -> Tensor:
    """Descends from y; the step falls tenfold, so that wells and ridges alike are settled in."""
    return Descent(geometric(step, step / 10, 150), max_gradient=2.0).sample(energy, y, 150).state


STEP_OF = {"K-means": 0.05, "DAE": 0.05, "likelihood": 0.002}  # F of a density is some fifty times steeper


def run(setting: Setting) -> Outcome:
    """Both queries for three models."""
    seeds = setting.seeds
    source = plane("spiral", dae.SPREAD)
    assert isinstance(source, Curve)
    recall: dict[str, list[float]] = {}
    error: dict[str, list[float]] = {}
    left: dict[str, list[float]] = {}
    shown: dict[str, EnergyOfState] = {}
    for seed in seeds:
        for name, energy in models(seed).items():
            found, missed_by = second_from_first(energy, source)
            y, distance = dae.beside(source, 500, seed)
            ends = nearest(energy, y, STEP_OF[name])
            for store, value in ((recall, found), (error, missed_by)):
                store.setdefault(name, []).append(value)
            missed = (ends - source.nearest(y)).norm(dim=1)
            left.setdefault(name, []).append(float(missed.mean() / distance.mean()))
            shown.setdefault(name, energy)
    claims = []
    for name in recall:
        id_ = name.lower().replace("-", "")
        claims += [
            Claim(
                f"queries_{id_}_answers", "L13",
                "Share of the right y2 that are among the deepest minima over y2, as many as there are "
                f"({name})",
                recall[name], least=0.8,
            ),
            Claim(
                f"queries_{id_}_error", "L13", f"Mean error of those y2, in units of y ({name})",
                error[name], most=0.1,
            ),
            Claim(
                f"queries_{id_}_nearest", "L13",
                "Distance from the nearest point of the spiral after descending the energy, over that "
                f"before ({name})",
                left[name], most=0.6,
            ),
        ]  # fmt: skip

    def draw(theme: Theme, axes: Sequence[Axes]) -> None:
        start, _ = dae.beside(source, 25, 3)
        for place, (name, energy) in zip(axes, shown.items(), strict=True):
            high = {"K-means": 0.3, "DAE": 0.3, "likelihood": 12.0}[name]
            energy_map(place, theme, energy, high=high)
            y1 = 0.8
            truth = true_answers(source, y1)
            place.axvline(y1, color=theme.second, lw=1.2)
            found = answers(energy, y1, len(truth))
            points(
                place, torch.stack([torch.full_like(found, y1), found], 1), theme.second, 8,
                "y₂ given y₁ = 0.8", marker="o", mec=theme.card,
            )  # fmt: skip
            ends = nearest(energy, start, STEP_OF[name])
            for a, b in zip(start, ends, strict=True):
                place.plot(*torch.stack([a, b]).T, color=theme.fourth, lw=1.6)
            points(place, ends, theme.fourth, 5, "nearest point", marker="o")
            place.set_title(name)
        axes[0].legend(loc="upper left", framealpha=0.9)

    caption = (
        "Three energies of the same spiral, each in its own unit. Dots on the line: the deepest minima over "
        "y₂ where y₁ is given, as many as there are answers. Short strokes: where descent of the energy "
        "leads from points beside the spiral."
    )
    return Outcome(claims, [Figure(caption, draw, columns=3, width=4.6, height=3.7)])
