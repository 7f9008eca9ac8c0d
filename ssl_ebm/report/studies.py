"""What a comparison measures, for each kind of task, and the page that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from ssl_ebm.data.clip_data import ClipData
from ssl_ebm.data.images import ImageData
from ssl_ebm.errors import UserError
from ssl_ebm.report.animation import draw_clips
from ssl_ebm.report.assessment import Progress, Protocol, assess, rehearse
from ssl_ebm.report.bars import resampled
from ssl_ebm.report.completions import assess_completions, draw_completions
from ssl_ebm.report.completions_page import render_completions
from ssl_ebm.report.page import render
from ssl_ebm.tasks.frame_prediction import FramePrediction
from ssl_ebm.tasks.inpainting import Inpainting

Models = Mapping[str, Sequence[Any]]
REHEARSED = 16  # pictures


@dataclass(frozen=True)
class Measured:
    """What was found of all models.

    Attributes:
        figures: `models` (blocks by part, for controls as well), `differences`, `bounds`, `uncertain_by`.
        rollouts: of futures; None where there are none.
        evaluated: on what.
        protocol: what else there is to say of how it was measured.
        page: HTML, made from the content of results.json.
    """

    figures: dict[str, Any]
    rollouts: dict[str, Any] | None
    evaluated: dict[str, Any]
    protocol: dict[str, Any]
    page: Callable[[dict[str, Any]], str]


class FrameStudy:
    """Next frames of clips."""

    task: type[Any] = FramePrediction
    unit = "clips"

    def rehearse(
        self, models: Mapping[str, Any], data: Any, protocol: Protocol, seeds: int
    ) -> tuple[float, float]:
        """Measures untrained models on a little; returns seconds that the whole will take, in two phases."""
        return rehearse(models, data, protocol, seeds)

    def measure(
        self,
        models: Models,
        data: Any,
        protocol: Protocol,
        seeds: Sequence[int],
        device: torch.device,
        progress: Progress,
    ) -> Measured:
        """Measures trained models on the test split, and draws some of it."""
        assessment = assess(models, data, protocol, seeds, device, progress)
        clips = draw_clips(models, data.test_dataset, assessment, device, protocol)
        figures = assessment.figures
        evaluated = {
            "split": "test",
            "items": len(assessment.indices),
            "uncertain_items": int(assessment.evaluation.uncertain.sum()),
            "uncertain_by": figures["uncertain_by"],
        }
        drawn = resampled(next(iter(figures["models"].values()))["all"])
        noise = {
            "noise_standard_deviation": dict(zip(map(str, seeds), assessment.noise, strict=True)),
            "interval": f"95 %, bootstrap over {drawn} and training seeds",
        }
        return Measured(
            figures, assessment.rollouts, evaluated, noise, lambda results: render(results, clips)
        )


class CompletionStudy:
    """Pictures with a hole."""

    task: type[Any] = Inpainting
    unit = "pictures"

    def rehearse(
        self, models: Mapping[str, Any], data: Any, protocol: Protocol, seeds: int
    ) -> tuple[float, float]:
        """Measures untrained models on a little; returns seconds that the whole will take, and 0."""
        few = Protocol(clips=REHEARSED, samples=protocol.samples)
        one = {name: [model] for name, model in models.items()}
        began = time.monotonic()
        found = assess_completions(one, data, few, [0])
        each = (time.monotonic() - began) / found.evaluated["items"]
        return seeds * each * min(protocol.clips, len(data.test_dataset)), 0.0

    def measure(
        self,
        models: Models,
        data: Any,
        protocol: Protocol,
        seeds: Sequence[int],
        device: torch.device,
        progress: Progress,
    ) -> Measured:
        """Measures trained models on the test split, and draws some of it."""
        found = assess_completions(models, data, protocol, seeds, device, progress)
        rows = draw_completions(models, data.test_dataset, found, device, protocol.seed)
        how = {
            "noise_standard_deviation": dict(zip(map(str, seeds), found.noise, strict=True)),
            "interval": "95 %, bootstrap over test pictures, or groups of them, and training seeds",
            "classical": found.classical,
        }
        return Measured(
            found.figures, None, found.evaluated, how, lambda results: render_completions(results, rows)
        )


Study = FrameStudy | CompletionStudy


def study_of(model: Any) -> Study:
    """The one that goes with a task.

    Raises:
        UserError: there is none.
    """
    for study in (FrameStudy(), CompletionStudy()):
        if isinstance(model, study.task):
            return study
    raise UserError(
        f"compare takes frame prediction and inpainting, and this config trains {type(model).__name__}"
    )


def check_data(path: Any, model: Any, data: Any) -> None:
    """Whether the data goes with the model.

    Raises:
        UserError: it does not.
    """
    if isinstance(model, Inpainting):
        if not isinstance(data, ImageData):
            raise UserError(f"{path} has no images as its data: set data.class_path to one of ssl_ebm.data")
        return
    if not isinstance(data, ClipData):
        raise UserError(f"{path} has no clips as its data: set data.class_path to one of ssl_ebm.data")
    model = cast(FramePrediction, model)
    if model.context_frames != data.context_frames:
        raise UserError(
            f"{path}: the model sees {model.context_frames} frames and data.context_frames is "
            f"{data.context_frames}: set both to the same number"
        )
    if model.hparams["channels"] != data.frame_shape[0]:
        raise UserError(
            f"{path}: model.channels is {model.hparams['channels']} and frames have {data.frame_shape[0]}: "
            "set it to that"
        )
