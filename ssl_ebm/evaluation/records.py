"""What an evaluation keeps: a few numbers for each training seed and clip, from which every figure is
computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class ModelRecord:
    """One model: M training seeds by N clips by S samples; NaN where a figure does not exist.

    Attributes:
        squared_error: (M, N, S), summed over the pixel values of a frame.
        ssim: (M, N, S).
        mean_frame_error: (M, N), squared error of the mean of the S samples.
        gradient: (M, N), gradient energy, mean over samples.
        diversity: (M, N), mean squared distance of two samples per pixel value.
        lpips: (M, N), of the first sample.
        coverage, precision, total_variation: (M, N), where the world is known and has several futures.
        energy, energy_beta: F and F_beta, (M, N) each, of "real", "noise" and of each negative.
        oracle_error: (M, N), squared error with z inferred from y.
        swap_copied: (M, N), 1 where the swapped z brought the other clip's picture along.
        in_a_row: samples depend on those before them, so that the best of K is that of K in a row.
    """

    squared_error: Array
    ssim: Array
    mean_frame_error: Array
    gradient: Array
    diversity: Array
    lpips: Array
    coverage: Array
    precision: Array
    total_variation: Array
    oracle_error: Array
    swap_copied: Array
    energy: dict[str, Array] = field(default_factory=dict)
    energy_beta: dict[str, Array] = field(default_factory=dict)
    in_a_row: bool = False

    @classmethod
    def empty(cls, seeds: int, clips: int, samples: int, in_a_row: bool = False) -> ModelRecord:
        """All figures NaN."""
        per_sample, per_clip = (seeds, clips, samples), (seeds, clips)
        values: dict[str, Array] = {
            f.name: np.full(per_sample if f.name in ("squared_error", "ssim") else per_clip, np.nan)
            for f in fields(cls)
            if not f.name.startswith("energy") and f.name != "in_a_row"
        }
        return cls(**values, in_a_row=in_a_row)  # type: ignore[arg-type]  # the two dictionaries have defaults

    @property
    def seeds(self) -> int:
        """M."""
        return len(self.squared_error)


@dataclass
class BoundsRecord:
    """What the exact posterior mean and an exact sampler reach on each clip (see :class:`world.Bounds`)."""

    mean_squared_error: Array  # (N,)
    mean_gradient: Array  # (N,)
    best_squared_error: Array  # (N, K)
    total_variation: Array  # (N,)
    coverage: Array  # (N,)

    @classmethod
    def empty(cls, clips: int, best_of: int) -> BoundsRecord:
        """Everything NaN."""
        return cls(*(np.full(s, np.nan) for s in [clips, clips, (clips, best_of), clips, clips]))


@dataclass
class FrameEvaluation:
    """All models on the same N clips.

    Attributes:
        models: by name.
        bounds: None where the truth is unknown.
        clip: (N,), number of the clip that an item comes from.
        recording: (N,), the first clip of the recording that it was cut from: the unit of resampling.
        gradient: (N,), gradient energy of the true next frame.
        uncertain: (N,) bool, items whose future is uncertain; ``uncertain_by`` says how that is known.
        pixels: values in a frame, C * H * W.
        samples, best_of: S and the K's.
        beta: inverse temperature of ``energy_beta``.
        split, seed: of the clips, and of all draws of the evaluation.
    """

    models: dict[str, ModelRecord]
    bounds: BoundsRecord | None
    clip: NDArray[np.int64]
    recording: NDArray[np.int64]
    gradient: Array
    uncertain: NDArray[np.bool_]
    uncertain_by: str
    pixels: int
    samples: int
    best_of: tuple[int, ...]
    beta: float
    split: str
    seed: int
    model_seeds: tuple[int, ...] = ()


def group_of(item: Mapping[str, Any]) -> int:
    """A number that items of one recording share: ``group``, or where there is none the clip."""
    return int(item.get("group", item["clip"]))


def first_clips(clip: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each group by the least number of its clips, (N,), (N,) -> (N,)."""
    groups, index = np.unique(group, return_inverse=True)
    first = np.full(len(groups), np.iinfo(np.int64).max)
    np.minimum.at(first, index, clip)
    return first[index]


def most_diverse(diversity: Array, share: float) -> NDArray[np.bool_]:
    """The ``share`` of items with the largest diversity, (M, N) -> (N,): which futures are uncertain, judged
    from x alone."""
    mean = diversity.mean(axis=0)
    count = max(1, round(share * len(mean)))
    chosen = np.zeros(len(mean), dtype=bool)
    chosen[np.argsort(-mean, kind="stable")[:count]] = True
    return chosen


def check_best_of(best_of: Sequence[int], samples: int) -> tuple[int, ...]:
    """The K's in ascending order, each between 1 and ``samples``."""
    ordered = tuple(sorted(set(best_of)))
    if not ordered or ordered[0] < 1 or ordered[-1] > samples:
        raise ValueError(
            f"best of {list(best_of)} needs numbers between 1 and {samples}, the samples of a clip"
        )
    return ordered
