"""How good an unconditional energy is: does F tell data from what is none, and are samples like data?"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from ssl_ebm.evaluation.statistics import Bootstrap, Interval
from ssl_ebm.tasks.density_estimation import DensityEstimation

AT_ONCE = 512  # items that an energy is asked for at a time
REACH, GRID = 4.5, 180  # of the grid on which densities in the plane are integrated: extent, points a side
TRACED = 8  # moments of the chains that are kept
JITTER = 1e-4  # added to the variance of every entry: data may lie in a subspace


@dataclass(frozen=True)
class DensityEvaluation:
    """What was measured of an energy.

    Attributes:
        energies: name -> F (N,), of "test", "train", "samples" and of everything that is no data.
        auroc: name -> chance that a test item has a lower F than one of that set, for all but "test".
        real: (N, *Y), test items.
        samples: where chains from `start` ended, with their way; None where the task has no sampler.
        nearest: for each of the first samples the nearest training item, (S, *Y); None likewise.
        distance: root mean squared distance per entry to the nearest training item, of "samples" and "test":
            samples far nearer than test items are copies.
        nats_above_truth: KL(data | exp(-F) / Z), in nats, where the true density is known; else None.
    """

    energies: dict[str, Tensor]
    auroc: dict[str, Interval]
    real: Tensor
    samples: Chains | None
    nearest: Tensor | None
    distance: dict[str, Interval]
    nats_above_truth: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values: means of energies, and figures as [value, low, high] with 95 % intervals."""
        return {
            "items": {name: len(values) for name, values in self.energies.items()},
            "mean_energy": {name: float(values.mean()) for name, values in self.energies.items()},
            "auroc": {name: one.to_json() for name, one in self.auroc.items()},
            "distance_to_training": {name: one.to_json() for name, one in self.distance.items()},
            "nats_above_truth": self.nats_above_truth,
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
        items: test items of every set, at most.
        samples: chains; an eighth of them, and moments, are shown on their way.
        seed: of all draws.

    Raises:
        UserError: sets of different shapes, or an energy that is not finite.
    """
    with isolated(task):
        real = collect(task, data, "test", items)
        train = collect(task, data, "train", 20_000)
        generator = generator_for(seed)
        others = {name: collect(task, one, "test", items) for name, one in against.items()}
        for name, one in others.items():
            if one.shape[1:] != real.shape[1:]:
                raise UserError(
                    f"{name} has the shape {tuple(one.shape[1:])} and {type(data).__name__} "
                    f"{tuple(real.shape[1:])}: give sets of one shape"
                )
        others |= stand_ins(real, generator)
        chains = None
        if task.sampler is not None:
            every = max(1, task.hparams["sample_steps"] // TRACED)
            chains = task.sample(samples, generator_for(seed, 1), record_every=every)
            others["samples"] = chains.state.cpu()
        energies = {"test": real, "train": train[:items], **others}
        found = {name: energies_of(task, y) for name, y in energies.items()}
        for name, values in found.items():
            if not bool(values.isfinite().all()):
                raise UserError(f"F is not finite on {name} ({int((~values.isfinite()).sum())} items)")
        truth = getattr(data, "source", None)
        nats = None
        if isinstance(truth, Plane):
            log_density = truth.log_density(real)
            if bool(log_density.isfinite().all()):
                nats = nats_above_truth(task.free_energy, real, log_density)
    near, distance = None, {}
    if chains is not None:
        shown = chains.state.cpu()
        near, squared = nearest(shown, train)
        _, theirs = nearest(real[:samples], train)
        distance = {"samples": _mean(squared.sqrt()), "test": _mean(theirs.sqrt())}
    auroc = {name: separation(found["test"], values) for name, values in found.items() if name != "test"}
    return DensityEvaluation(found, auroc, real, chains, near, distance, nats)


def collect(task: DensityEstimation, data: StreamData, split: str, items: int) -> Tensor:
    """y of the first `items` of a split: (N, *Y)."""
    data.setup({"train": "fit", "test": "test"}[split])
    dataset = getattr(data, f"{split}_dataset")
    count = min(items, len(dataset))
    places = [i * len(dataset) // count for i in range(count)]  # evenly: files may be sorted by class
    many = getattr(dataset, "__getitems__", lambda indices: [dataset[i] for i in indices])(places)
    return torch.stack([task.data_of(item) for item in many])


def stand_ins(real: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """What is no data, made from data (N, *Y) alone; each (N, *Y).

    uniform     every entry uniform between the least and the greatest entry of the data
    gaussian    normal, with the data's mean and covariance, cut to the same range where Y is an image
    shuffled    images with their places permuted, each in its own way
    """
    low, high = real.min(), real.max()
    flat = real.flatten(1).double()
    made = {"uniform": low + (high - low) * torch.rand(real.shape, generator=generator)}
    covariance = torch.cov(flat.T) + JITTER * torch.eye(flat.shape[1], dtype=flat.dtype)
    noise = torch.randn(flat.shape, generator=generator, dtype=flat.dtype)
    drawn = flat.mean(0) + noise @ torch.linalg.cholesky(covariance).T
    made["gaussian"] = drawn.to(real.dtype).reshape(real.shape)
    if real.ndim == 4:
        made["gaussian"] = made["gaussian"].clamp(low, high)
        pixels = real.flatten(2)
        order = torch.rand(len(real), 1, pixels.shape[2], generator=generator).argsort(2)
        made["shuffled"] = pixels.gather(2, order.expand_as(pixels)).reshape(real.shape)
    return made


def energies_of(task: DensityEstimation, y: Tensor) -> Tensor:
    """F, a few items at a time: (N, *Y) -> (N,), on the CPU."""
    return torch.cat([task.free_energy(part.to(task.device)).detach().cpu() for part in y.split(AT_ONCE)])


def separation(real: Tensor, other: Tensor) -> Interval:
    """AUROC: the chance that F is lower for a test item than for one of another set, ties counted half.

    0.5: F does not tell them apart; 1: it always does; below 0.5 it takes the others for more likely. The
    interval (95 %) is that of resampled items; of unequal numbers the smaller.
    """
    count = min(len(real), len(other))
    pairs = real[:count].numpy()[None], other[:count].numpy()[None]
    return Bootstrap(np.arange(count), resamples=500).auroc(*pairs).interval()


def nearest(y: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest training item (N, *Y), and its mean squared distance per entry (N,)."""
    distance = torch.cdist(y.flatten(1), train.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    least, index = distance.min(1)
    return train[index], least.square() / math.prod(y.shape[1:])


def nats_above_truth(energy: EnergyOfState, unseen: Tensor, true_log_density: Tensor) -> float:
    """KL(truth | exp(-F) / Z) in nats, estimated on unseen points of the plane, Z on a grid: 0 is perfect.

    Args:
        energy: F, (N, 2) -> (N,).
        unseen: (N, 2), drawn from the truth.
        true_log_density: of those points, (N,), in nats.
    """
    exact = GridLikelihood(-REACH, REACH, GRID)
    with torch.no_grad():
        return float((true_log_density - exact.log_density(energy, unseen)).mean())


def _mean(values: Tensor) -> Interval:
    return Bootstrap(np.arange(len(values)), resamples=500).mean(values.numpy()[None]).interval()
