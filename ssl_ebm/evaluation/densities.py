"""How good an unconditional energy is: does F tell data from what is none, and are samples like data?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_ebm.data.loading import StreamData
from ssl_ebm.data.planar import Plane
from ssl_ebm.energy.objectives import GridLikelihood
from ssl_ebm.energy.sampling import Chains, EnergyOfState
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.statistics import Bootstrap, Estimate, Interval
from ssl_ebm.tasks.density_estimation import DensityEstimation

AT_ONCE = 1024  # items that an energy is asked for, or that are compared, at a time
REACH, GRID = 4.5, 180  # of the grid on which densities in the plane are integrated: extent, points a side
BORDER = 1e-3  # share of the mass in the grid's outermost cells from which it is too small
TRACED = 8  # moments of the chains that are kept
COMPARED = 500  # test items whose distance to the training items is taken
JITTER = 1e-4  # added to the variance of every entry: data may lie in a subspace
RESAMPLES = 500
RESERVED = ("test", "train", "samples", "uniform", "gaussian", "shuffled")


@dataclass(frozen=True)
class DensityEvaluation:
    """What was measured of an energy.

    Attributes:
        energies: name -> F (N,), of "test", "train", "samples" and of everything that is no data.
        auroc: name -> chance that a test item has a lower F than one of that set, for all but "test".
        real: (N, *Y), test items.
        samples: where chains from `start` ended, with their way; None where the task has no sampler.
        nearest: for each sample the nearest of all training items, (S, *Y); None likewise.
        distance: root mean squared difference per entry to the nearest training item, of "samples", "test".
        copies: share of the samples that are nearer to a training item than 99 % of the test items are: 0.01
            by chance, more if the energy has learnt items by heart. None likewise.
        nats_above_truth: see there; reads any energy as a density at the objective's beta. None where the
            true density is not known, or where F does not rise towards the border of the grid.
    """

    energies: dict[str, Tensor]
    auroc: dict[str, Interval]
    real: Tensor
    samples: Chains | None
    nearest: Tensor | None
    distance: dict[str, Interval]
    copies: float | None
    nats_above_truth: Interval | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values: means of energies, and figures as [value, low, high] with 95 % intervals."""
        nats = self.nats_above_truth
        return {
            "items": {name: len(values) for name, values in self.energies.items()},
            "mean_energy": {name: float(values.mean()) for name, values in self.energies.items()},
            "auroc": {name: one.to_json() for name, one in self.auroc.items()},
            "distance_to_training": {name: one.to_json() for name, one in self.distance.items()},
            "nearer_than_99_percent_of_test": self.copies,
            "nats_above_truth": None if nats is None else nats.to_json(),
            "acceptance": None if self.samples is None else float(self.samples.acceptance.mean()),
        }


def evaluate_density(
    task: DensityEstimation,
    data: StreamData,
    against: Mapping[str, StreamData],
    items: int = 2000,
    samples: int = 64,
    seed: int = 0,
) -> DensityEvaluation:
    """Measures a task on the test split, leaving no trace in it.

    Args:
        task: any energy.
        data: what it was trained on.
        against: other data of the same shape, whose test items are to have higher energies.
        items: items of every set, at most; spread evenly over the set, for files may be sorted by class.
        samples: chains.
        seed: of all draws.

    Raises:
        UserError: a set with a name that has a meaning here, or of another shape; fewer than 2 test items; an
            energy that is not finite.
    """
    check_names(against)
    with isolated(task):
        real = collect(task, data, "test", items)
        others = {name: collect(task, one, "test", items) for name, one in against.items()}
        for name, one in others.items():
            check_alike(name, one[0], type(data).__name__, real[0])
        others |= stand_ins(real, generator_for(seed))
        chains = None
        if task.sampler is not None:
            every = max(1, task.hparams["sample_steps"] // TRACED)
            chains = task.sample(samples, generator_for(seed, 1), record_every=every)
            others["samples"] = chains.state.cpu()
        sets = {"test": real, "train": collect(task, data, "train", items), **others}
        found = {name: energies_of(task, y) for name, y in sets.items()}
        for name, values in found.items():
            if not bool(values.isfinite().all()):
                raise UserError(f"F is not finite on {name} ({int((~values.isfinite()).sum())} items)")
        truth, nats = getattr(data, "source", None), None
        if isinstance(truth, Plane):
            gaps, outside = _gaps_from_truth(
                lambda y: energies_of(task, y), real, truth.log_density(real), model_beta(task)
            )
            if outside < BORDER and bool(gaps.isfinite().all()):
                nats = _mean(gaps)
        near, distance, copies = None, {}, None
        if chains is not None:
            near, theirs = nearest(chains.state.cpu(), task, data)
            _, usual = nearest(spread(real, COMPARED), task, data)
            distance = {"samples": _mean(theirs), "test": _mean(usual)}
            copies = float((theirs < usual.quantile(0.01)).double().mean())
    auroc = {
        name: separation(found["test"], values, paired=name == "shuffled")
        for name, values in found.items()
        if name != "test"
    }
    return DensityEvaluation(found, auroc, real, chains, near, distance, copies, nats)


def model_beta(task: DensityEstimation) -> float:
    """The inverse temperature at which exp(-beta F) is the model: its objective's, or that of the objective's
    chains; 1 where neither has one."""
    chains = getattr(task.objective, "sampler", None)
    return float(getattr(task.objective, "beta", getattr(chains, "beta", 1.0)))


def check_names(against: Mapping[str, StreamData]) -> None:
    """Raises UserError for a set with a name that has a meaning of its own."""
    for name in against:
        if name in RESERVED:
            raise UserError(f"against has a set named {name!r}, which means something else: rename it")


def check_alike(name: str, one: Tensor, data: str, real: Tensor) -> None:
    """Raises UserError unless items of two sets have one shape."""
    if one.shape != real.shape:
        raise UserError(
            f"{name} has the shape {tuple(one.shape)} and {data} {tuple(real.shape)}: give sets of one shape"
        )


def spread(y: Tensor, count: int) -> Tensor:
    """At most `count` items, spread evenly over a set."""
    count = min(count, len(y))
    return y[torch.arange(count) * len(y) // max(count, 1)]


def collect(task: DensityEstimation, data: StreamData, split: str, items: int) -> Tensor:
    """y of at most `items` items of a split, spread evenly over it: (N, *Y)."""
    dataset = dataset_of(data, split)
    return items_of(task, dataset, spread(torch.arange(len(dataset)), items).tolist())


def dataset_of(data: StreamData, split: str) -> Any:
    """The dataset of "train" or "test", its items as they are: without augmentation."""
    data.setup({"train": "fit", "test": "test"}[split])
    dataset = getattr(data, f"{split}_dataset")
    return dataset.plain() if hasattr(dataset, "plain") else dataset


def items_of(task: DensityEstimation, dataset: Any, places: Sequence[int]) -> Tensor:
    """y of these items: (N, *Y)."""
    many = getattr(dataset, "__getitems__", lambda indices: [dataset[i] for i in indices])(places)
    return torch.stack([task.data_of(item) for item in many])


def stand_ins(real: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """What is no data, made from data (N, *Y) alone, N of 2 or more; each (N, *Y).

    uniform     every entry uniform between the least and the greatest entry of the data
    gaussian    normal, with the data's mean and covariance (each variance 1e-4 larger), cut to the same range
                where Y is an image
    shuffled    images with their places permuted, each in its own way
    """
    count = len(real)
    if count < 2:
        raise UserError("a density is measured on 2 test items at least")
    low, high = real.min(), real.max()
    flat = real.flatten(1)
    centred = flat - flat.mean(0)
    mixed = torch.randn(count, count, generator=generator) @ centred / (count - 1) ** 0.5
    around = torch.randn(flat.shape, generator=generator) * JITTER**0.5
    gaussian = (flat.mean(0) + mixed + around).reshape(real.shape)
    made = {"uniform": low + (high - low) * torch.rand(real.shape, generator=generator), "gaussian": gaussian}
    if real.ndim == 4:
        made["gaussian"] = gaussian.clamp(low, high)
        pixels = real.flatten(2)
        order = torch.rand(count, 1, pixels.shape[2], generator=generator).argsort(2)
        made["shuffled"] = pixels.gather(2, order.expand_as(pixels)).reshape(real.shape)
    return made


def energies_of(task: DensityEstimation, y: Tensor) -> Tensor:
    """F, a few items at a time: (N, *Y) -> (N,), on the CPU."""
    return torch.cat([task.free_energy(part.to(task.device)).detach().cpu() for part in y.split(AT_ONCE)])


def separation(real: Tensor, other: Tensor, paired: bool = False) -> Interval:
    """AUROC: the chance that F is lower for a test item than for one of another set, ties counted half.

    0.5: F does not tell them apart; 1: it always does; below 0.5 it takes the others for more likely. The
    95 % interval is that of resampled items, of both sets independently.

    Args:
        real, other: F, (N,) and (M,).
        paired: item i of the other set was made of item i of the test set; they are resampled together.
    """
    ordered, place = np.unique(real.double().numpy(), return_inverse=True)
    below = np.searchsorted(ordered, other.double().numpy(), side="left")  # distinct values below each
    up_to = np.searchsorted(ordered, other.double().numpy(), side="right")
    random = np.random.default_rng(0)
    areas = []
    for resample in range(RESAMPLES + 1):
        first, second = (
            random.multinomial(len(y), np.full(len(y), 1 / len(y))) if resample else np.ones(len(y), int)
            for y in (real, other)
        )
        second = first if paired else second
        counts = np.concatenate([[0], np.cumsum(np.bincount(place, first, len(ordered)))])
        wins = (second * (counts[below] + counts[up_to])).sum() / 2
        areas.append(wins / (len(real) * len(other)))
    return Estimate(float(areas[0]), np.array(areas[1:])).interval()


def nearest(y: Tensor, task: DensityEstimation, data: StreamData) -> tuple[Tensor, Tensor]:
    """The nearest training item of each (N, *Y), in either orientation where training mirrors its images.

    Returns:
        Items (N, *Y), and the root mean squared difference per entry (N,).
    """
    dataset = dataset_of(data, "train")
    least = torch.full((len(y),), math.inf)
    found = torch.zeros_like(y)
    for first in range(0, len(dataset), AT_ONCE):
        part = items_of(task, dataset, range(first, min(first + AT_ONCE, len(dataset))))
        for train in (part, part.flip(-1)) if getattr(data, "flip", False) else (part,):
            distance = torch.cdist(
                y.flatten(1), train.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
            )
            nearer, index = distance.min(1)
            better = nearer < least
            least[better] = nearer[better]
            found[better] = train[index[better]]
    return found, least / math.prod(y.shape[1:]) ** 0.5


def nats_above_truth(
    energy: EnergyOfState, unseen: Tensor, true_log_density: Tensor, beta: float = 1.0
) -> float:
    """KL(truth | exp(-beta F) / Z), in nats, estimated on unseen points of the plane; 0 is perfect.

    Z is that of a grid: mass outside of it counts as 0.

    Args:
        energy: F, (N, 2) -> (N,).
        unseen: (N, 2), drawn from the truth.
        true_log_density: of those points, (N,), in nats.
        beta: inverse temperature.
    """
    gaps, _ = _gaps_from_truth(energy, unseen, true_log_density, beta)
    return float(gaps.mean())


def _gaps_from_truth(
    energy: EnergyOfState, unseen: Tensor, true_log_density: Tensor, beta: float
) -> tuple[Tensor, float]:
    """log of truth over model at each point (N,), and the share of the mass in the outermost cells."""
    exact = GridLikelihood(-REACH, REACH, GRID, beta=beta)
    with torch.no_grad():
        energies = energy(exact.grid)
        border = (exact.grid.abs() > REACH * (1 - 2 / GRID)).any(1)
        outside = (-beta * energies).softmax(0)[border].sum()
        log_partition = torch.logsumexp(-beta * energies, 0) + exact.log_cell
        return true_log_density + beta * energy(unseen) + log_partition, float(outside)


def _mean(values: Tensor) -> Interval:
    return Bootstrap(np.arange(len(values)), resamples=RESAMPLES).mean(values.numpy()[None]).interval()
