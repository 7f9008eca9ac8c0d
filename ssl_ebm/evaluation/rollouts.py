"""Several frames ahead: how best-of-K and sharpness fall with the horizon."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.prediction import load_items
from ssl_ebm.evaluation.protocols import Clips, FramePredictor
from ssl_ebm.evaluation.records import first_clips, group_of
from ssl_ebm.evaluation.samples import gradient_energy, squared_error
from ssl_ebm.evaluation.statistics import Bootstrap
from ssl_ebm.evaluation.summary import figure

Array = NDArray[np.float64]
_SAMPLES = 11  # stream of random numbers


@dataclass
class RolloutEvaluation:
    """N clips, H frames ahead, S trajectories of each of M networks.

    squared_error: name -> (M, N, S, H), summed over pixel values. gradient: name -> (M, N, H), mean over
        trajectories.
    true_gradient: (N, H). clip: (N,). recording: (N,), the first clip of the recording that it was cut from.
    """

    squared_error: dict[str, Array]
    gradient: dict[str, Array]
    true_gradient: Array
    clip: NDArray[np.int64]
    recording: NDArray[np.int64]
    pixels: int
    samples: int
    split: str
    seed: int


def evaluate_rollouts(
    models: Mapping[str, Sequence[FramePredictor]],
    dataset: Clips,
    clips: Sequence[int] | None = None,
    *,
    horizon: int,
    samples: int = 20,
    split: str = "test",
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> RolloutEvaluation:
    """Rolls every model out over ``horizon`` frames; the clips must hold as many after the context."""
    indices = list(range(len(dataset))) if clips is None else [int(i) for i in clips]
    everyone = [model for networks in models.values() for model in networks]
    for model in everyone:
        if isinstance(model, nn.Module):
            model.to(device)
    context = everyone[0].context_frames
    shape = {name: (len(networks), len(indices)) for name, networks in models.items()}
    result = RolloutEvaluation(
        squared_error={name: np.zeros((*s, samples, horizon)) for name, s in shape.items()},
        gradient={name: np.zeros((*s, horizon)) for name, s in shape.items()},
        true_gradient=np.zeros((len(indices), horizon)),
        clip=np.zeros(len(indices), dtype=np.int64),
        recording=np.zeros(len(indices), dtype=np.int64),
        pixels=0,
        samples=samples,
        split=split,
        seed=seed,
    )
    with isolated(*everyone):
        for start in range(0, len(indices), batch_size):
            rows = slice(start, min(start + batch_size, len(indices)))
            items = load_items(dataset, indices[rows])
            video = torch.stack([item["video"] for item in items]).to(device)
            if video.shape[1] < context + horizon:
                raise ValueError(
                    f"{horizon} frames ahead need clips of {context + horizon} frames; "
                    f"these have {video.shape[1]}"
                )
            x, truth = video[:, :context], video[:, context : context + horizon]  # (B, H, C, H, W)
            result.clip[rows] = [int(item["clip"]) for item in items]
            result.recording[rows] = [group_of(item) for item in items]
            result.true_gradient[rows] = gradient_energy(truth).cpu().numpy()
            result.pixels = truth[0, 0].numel()
            for name, networks in models.items():
                for m, model in enumerate(networks):
                    generator = generator_for(seed, _SAMPLES, start, m, device=device)
                    drawn = model.sample(x, samples, horizon, generator)  # (B, S, H, C, H, W)
                    for h in range(horizon):
                        error = squared_error(drawn[:, :, h], truth[:, h])
                        result.squared_error[name][m, rows, :, h] = error.cpu().numpy()
                    result.gradient[name][m, rows] = gradient_energy(drawn).mean(1).cpu().numpy()
            if progress is not None:
                progress(rows.stop, len(indices))
    result.recording = first_clips(result.clip, result.recording)
    return result


def summarise_rollouts(evaluation: RolloutEvaluation, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Curves over the horizon h = 1..H, a figure ``[value, low, high]`` each.

    ``{name: {"psnr_best_of": [...], "psnr_best_trajectory": [...], "gradient_energy_ratio": [...], "K": S,
    "horizon": H, ...}}``

    psnr_best_of: dB, pooled; at each h by itself the frame of least error among S trajectories.
    psnr_best_trajectory: dB, pooled; the one trajectory of least error over all H frames (Denton and Fergus,
        Stochastic video generation with a learned prior, 2018), followed through.
    gradient_energy_ratio: samples over true frames, sums over clips and trajectories.
    """
    bootstrap = Bootstrap(evaluation.clip, resamples, seed, evaluation.recording)
    result = {}
    for name, error in evaluation.squared_error.items():
        best = error.sum(axis=3).argmin(axis=2)  # (M, N)
        followed = np.take_along_axis(error, best[:, :, None, None], axis=2)[:, :, 0]  # (M, N, H)
        steps = range(error.shape[3])
        result[name] = {
            "psnr_best_of": [
                figure(bootstrap.psnr(error[..., h].min(axis=2), evaluation.pixels)) for h in steps
            ],
            "psnr_best_trajectory": [
                figure(bootstrap.psnr(followed[..., h], evaluation.pixels)) for h in steps
            ],
            "gradient_energy_ratio": [
                figure(bootstrap.ratio(evaluation.gradient[name][..., h], evaluation.true_gradient[:, h]))
                for h in steps
            ],
            "K": evaluation.samples,
            "horizon": error.shape[3],
            "clips": bootstrap.clips,
            "recordings": bootstrap.recordings,
            "seeds": len(error),
            "split": evaluation.split,
            "seed": evaluation.seed,
        }
    return result
