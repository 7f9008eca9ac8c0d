"""Measures trained models and their controls on test clips."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from ssl_ebm.data.clip_data import ClipData
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.controls import Bank, Ensemble, MatchedNoise, matched_sigma
from ssl_ebm.evaluation.prediction import BEST_OF, UNCERTAIN_SHARE, evaluate_frames
from ssl_ebm.evaluation.protocols import FramePredictor, LatentPredictor
from ssl_ebm.evaluation.records import FrameEvaluation, most_diverse
from ssl_ebm.evaluation.rollouts import evaluate_rollouts, summarise_rollouts
from ssl_ebm.evaluation.summary import summarise
from ssl_ebm.tasks.frame_prediction import FramePrediction

NOISE_CLIPS = 64  # validation clips that set the strength of the noise control
VALUES_AT_ONCE = 2**25  # pixel values of the samples of one batch: 128 MB
REHEARSED_CLIPS, ROLLED_OUT = 8, 2

Progress = Callable[[str, int, int], None]  # phase, clips done, clips in all


@dataclass(frozen=True)
class Protocol:
    """How models are measured.

    Attributes:
        clips: test clips, spread evenly over the test split.
        samples: futures drawn of each.
        horizon: frames of a roll-out; fewer where the clips are shorter.
        rollout_clips, rollout_samples: the same for roll-outs.
        beta: inverse temperature of the second set of free energies.
        seed: of all draws.
    """

    clips: int = 1024
    samples: int = 100
    horizon: int = 10
    rollout_clips: int = 48
    rollout_samples: int = 10
    beta: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clips", "samples", "horizon", "rollout_clips", "rollout_samples"):
            least = 1 if name == "horizon" else 2
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}: use at least {least}")

    @property
    def best_of(self) -> tuple[int, ...]:
        return tuple(k for k in BEST_OF if k <= self.samples)


@dataclass(frozen=True)
class Assessment:
    """Figures of :func:`summarise` and of :func:`summarise_rollouts`, the record behind them, and seconds."""

    figures: dict[str, Any]
    rollouts: dict[str, Any] | None
    evaluation: FrameEvaluation
    indices: list[int]  # test items that were evaluated
    noise: list[float]  # standard deviation of the noise control, for each seed
    seconds: dict[str, float]


def evenly(count: int, total: int) -> list[int]:
    """At most ``count`` of 0..total - 1, evenly spread: neighbours may come from one clip."""
    count = min(count, total)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def assess(
    models: Mapping[str, Sequence[FramePrediction]],
    data: ClipData,
    protocol: Protocol,
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    progress: Progress = lambda phase, done, total: None,
) -> Assessment:
    """Draws futures from the networks of every seed and from the controls, and scores them."""
    began = time.monotonic()
    data.setup("test")
    data.setup("validate")
    least_squares, latent = list(models["least_squares"]), list(models["latent_ebm"])
    pixels = int(np.prod(data.frame_shape))
    batch_size = max(2, min(32, VALUES_AT_ONCE // (protocol.samples * pixels)))
    for model in (*least_squares, *latent):
        model.to(device)
    noise = [noise_strength(model, data, protocol, device) for model in latent]
    everyone: dict[str, Sequence[FramePredictor]] = {
        "least_squares": least_squares,
        "latent_ebm": latent,
        "matched_noise": [MatchedNoise(*pair) for pair in zip(least_squares, noise, strict=True)],
    }
    if len(least_squares) > 1:
        everyone["ensemble"] = [Ensemble(least_squares)]
    everyone["bank"] = [Bank(cast(LatentPredictor, model)) for model in latent]

    decided = sharpened(least_squares, latent[0])
    if latent[0].hparams["sharpness"] != 1:
        everyone["sharpened"] = decided
    indices = evenly(protocol.clips, len(data.test_dataset))
    prepared = time.monotonic()
    evaluation = evaluate_frames(
        everyone,
        data.test_dataset,
        indices,
        samples=protocol.samples,
        best_of=protocol.best_of,
        beta=protocol.beta,
        seed=protocol.seed,
        model_seeds=seeds,
        device=device,
        batch_size=batch_size,
        progress=lambda done, total: progress("evaluation", done, total),
    )
    figures = summarise(evaluation)
    frames_done = time.monotonic()

    rollouts = None
    horizon = min(protocol.horizon, data.eval_future_frames)
    if horizon > 1:
        rolling = {"least_squares": least_squares, "latent_ebm": latent}
        if latent[0].hparams["rollout_sharpness"] != 1:
            rolling["sharpened"] = decided
        rolled = evaluate_rollouts(
            rolling,
            data.test_dataset,
            evenly(protocol.rollout_clips, len(data.test_dataset)),
            horizon=horizon,
            samples=protocol.rollout_samples,
            seed=protocol.seed,
            device=device,
            progress=lambda done, total: progress("roll-outs", done, total),
        )
        rollouts = summarise_rollouts(rolled)
    seconds = {
        "preparation": prepared - began,
        "evaluation": frames_done - prepared,
        "rollouts": time.monotonic() - frames_done,
    }
    return Assessment(figures, rollouts, evaluation, indices, noise, seconds)


def sharpened(least_squares: Sequence[FramePrediction], like: FramePrediction) -> list[FramePrediction]:
    """Least squares whose predictions are as decided as those of `like`: the control for what that gains."""
    copies = [copy.deepcopy(model) for model in least_squares]
    for model in copies:
        model.hparams.update({name: like.hparams[name] for name in ("sharpness", "rollout_sharpness")})
    return copies


def noise_strength(
    model: FramePrediction, data: ClipData, protocol: Protocol, device: torch.device | str
) -> float:
    """Standard deviation per pixel value of the model's samples on validation clips with an uncertain future.

    Where the data does not say which those are, the ones with the most diverse samples.
    """
    dataset = data.val_dataset
    indices = evenly(4 * NOISE_CLIPS, len(dataset))
    known = [bool(dataset[i]["uncertain"]) for i in indices] if "uncertain" in dataset[0] else None
    if known is not None:
        chosen = [i for i, uncertain in zip(indices, known, strict=True) if uncertain][:NOISE_CLIPS]
        return matched_sigma(model, dataset, chosen or indices, seed=protocol.seed, device=device)
    each = np.array([matched_sigma(model, dataset, [i], seed=protocol.seed, device=device) for i in indices])
    return float(np.sqrt(np.mean(each[most_diverse(each[None], UNCERTAIN_SHARE)] ** 2)))


def rehearse(
    models: Mapping[str, FramePrediction], data: ClipData, protocol: Protocol, seeds: int
) -> tuple[float, float]:
    """Measures untrained models on a few clips: what would fail after hours of training fails now.

    Returns:
        Seconds that evaluation and roll-outs will take, roughly.
    """
    few = Protocol(
        clips=REHEARSED_CLIPS,
        samples=protocol.samples,
        horizon=protocol.horizon,
        rollout_clips=ROLLED_OUT,
        rollout_samples=protocol.rollout_samples,
    )
    for _ in range(2):  # the first time also loads libraries
        done = assess({name: [model] for name, model in models.items()}, data, few, [0])
    clips = min(protocol.clips, len(data.test_dataset))
    rolled = min(protocol.rollout_clips, len(data.test_dataset))
    frames = done.seconds["preparation"] + done.seconds["evaluation"] * clips / len(done.indices)
    return seeds * frames, seeds * done.seconds["rollouts"] * rolled / ROLLED_OUT
