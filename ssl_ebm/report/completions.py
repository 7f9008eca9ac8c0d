"""Measures trained inpainting models, their controls and classical methods on test pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_ebm.data.images import ImageData
from ssl_ebm.evaluation.completion import Completer, evaluate_completions, summarise_completions
from ssl_ebm.evaluation.completion_controls import (
    Classical,
    CompletionBank,
    CompletionEnsemble,
    MeanFill,
    NoisyCompletion,
)
from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.prediction import load_items
from ssl_ebm.evaluation.samples import squared_error
from ssl_ebm.report.assessment import Progress, Protocol, evenly
from ssl_ebm.tasks.inpainting import Inpainting

NOISE_PICTURES = 128  # of the validation split, that set the strength of the noise control
SHOWN, SHOWN_SAMPLES = 6, 5
_NOISE, _DRAWN = 31, 32  # streams of random numbers


@dataclass(frozen=True)
class CompletionAssessment:
    """Figures of all models, on what they were measured, and the strength of the noise control."""

    figures: dict[str, Any]
    evaluated: dict[str, Any]
    indices: list[int]
    noise: list[float]
    classical: str


def assess_completions(
    models: Mapping[str, Sequence[Inpainting]],
    data: ImageData,
    protocol: Protocol,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    progress: Progress = lambda phase, done, total: None,
) -> CompletionAssessment:
    """Completes test pictures with the networks of every seed and with all controls, and scores the hole.

    Telea's and Navier-Stokes inpainting are among them where OpenCV is installed.
    """
    data.setup("test")
    data.setup("validate")
    least_squares, latent = list(models["least_squares"]), list(models["latent_ebm"])
    mask = latent[0].mask
    noise = [hole_noise(model.to(device), data, protocol.seed, device) for model in latent]
    everyone: dict[str, Sequence[Completer]] = {
        "least_squares": least_squares,
        "latent_ebm": latent,
        "matched_noise": [NoisyCompletion(*pair) for pair in zip(least_squares, noise, strict=True)],
    }
    if len(least_squares) > 1:
        everyone["ensemble"] = [CompletionEnsemble(least_squares)]
    everyone["bank"] = [CompletionBank(model) for model in latent]
    everyone["mean_fill"] = [MeanFill()]
    try:
        everyone |= {name: [Classical(name)] for name in ("telea", "navier_stokes")}
        classical = "OpenCV"
    except ImportError:
        classical = "OpenCV is not installed (pip install 'ssl_ebm[bench]'): not measured"
    indices = evenly(protocol.clips, len(data.test_dataset))
    evaluation = evaluate_completions(
        everyone,
        data.test_dataset,
        mask,
        indices,
        samples=protocol.samples,
        best_of=protocol.best_of,
        seed=protocol.seed,
        model_seeds=seeds,
        device=device,
        progress=lambda done, total: progress("evaluation", done, total),
    )
    found = summarise_completions(evaluation)
    figures = {
        "models": {name: {"all": block} for name, block in found["models"].items()},
        "differences": {name: {"all": block} for name, block in found["differences"].items()},
        "bounds": None,
        "uncertain_by": None,
    }
    evaluated = {
        "split": "test",
        "items": len(indices),
        "hidden_share": float(evaluation.hidden.mean() / data.test_dataset[0]["image"].numel()),
        "mask": latent[0].hparams["mask"],
    }
    return CompletionAssessment(figures, evaluated, indices, noise, classical)


def hole_noise(model: Inpainting, data: ImageData, seed: int, device: torch.device | str) -> float:
    """Standard deviation per hidden pixel value of the model's samples, on validation pictures."""
    indices = evenly(NOISE_PICTURES, len(data.val_dataset))
    total, count = 0.0, 0.0
    with isolated(model):
        for start in range(0, len(indices), 32):
            images = _images(data.val_dataset, indices[start : start + 32]).to(device)
            x = model.occluded(images, generator_for(seed, _DRAWN, start))
            drawn = model.sample(x, 20, generator_for(seed, _NOISE, start, device=device))
            total += float(drawn.var(1).double().sum())
            count += float(x[:, -1].sum()) * drawn.shape[2]
    return (total / max(count, 1.0)) ** 0.5


def _images(dataset: Any, indices: Sequence[int]) -> Tensor:
    """(N, C, H, W)."""
    return torch.stack([item["image"] for item in load_items(dataset, list(indices))])


@dataclass(frozen=True)
class CompletedPicture:
    """Pictures of one row, with what they are: (label, kind, picture (C, H, W))."""

    tiles: list[tuple[str, str, Tensor]]


def draw_completions(
    models: Mapping[str, Sequence[Inpainting]],
    dataset: Any,
    assessment: CompletionAssessment,
    device: torch.device | str,
    seed: int = 0,
) -> list[CompletedPicture]:
    """A few of the test pictures that were measured, spread evenly over them: masked, completed by least
    squares and by samples of the EBM (networks of the first seed), and as they are.

    Args:
        models: those that were measured.
        dataset: the test pictures.
        assessment: which of them were measured.
        device: to compute on.
        seed: of the masks, which are not those of the figures, and of the samples.
    """
    indices = evenly(SHOWN, len(assessment.indices))
    chosen = [assessment.indices[i] for i in indices]
    truth = _images(dataset, chosen)
    first = {name: networks[0] for name, networks in models.items()}
    x = first["latent_ebm"].occluded(truth.to(device), generator_for(seed, _DRAWN, 0))
    with isolated(*first.values()):
        mean = first["least_squares"].sample(x, 1)[:, 0].cpu()
        drawn = first["latent_ebm"].sample(x, 20, generator_for(seed, _DRAWN, 99, device=device)).cpu()
    nearest = squared_error(drawn, truth).argmin(1)
    hole = x[:, -1:].cpu()
    shown = x[:, :-1].cpu() * (1 - hole) + 0.5 * hole
    rows = []
    for b in range(len(chosen)):
        tiles = [("what is seen", "context", shown[b]), ("the truth", "truth", truth[b])]
        tiles.append(("least squares", "least_squares", mean[b]))
        tiles += [(f"sample {s + 1}", "latent_ebm", drawn[b, s]) for s in range(SHOWN_SAMPLES)]
        tiles.append(("nearest of 20", "latent_ebm", drawn[b, nearest[b]]))
        rows.append(CompletedPicture(tiles))
    return rows
