"""Clips as moving pictures of a page: one strip of frames for each, played by the page's style sheet.

A strip is one picture with the frames of a clip below each other. The style sheet shows one frame of it after
the other, so that all pictures of a row keep step, which separate animated files do not.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssl_ebm.evaluation.isolation import generator_for, isolated
from ssl_ebm.evaluation.pictures import to_picture
from ssl_ebm.evaluation.protocols import KnownWorld
from ssl_ebm.evaluation.world import posterior_mean
from ssl_ebm.report.assessment import Assessment, Protocol
from ssl_ebm.tasks.frame_prediction import FramePrediction

NEXT_FRAME_CLIPS, ROLLOUT_CLIPS = 4, 2
NEXT_FRAME_SAMPLES, ROLLOUT_SAMPLES = 5, 4
HELD = 4  # ticks for which the last frame stays
QUALITY = 92  # of coloured strips, which are large; others lose nothing
_DRAWN = 23  # stream of random numbers


@dataclass(frozen=True)
class Tile:
    """One moving picture: its label, what it is (``context``, ``truth``, ``exact``, or a model's name), the
    strip as a data URI, and the share of width over height of a frame."""

    label: str
    kind: str
    strip: str
    aspect: float


@dataclass(frozen=True)
class Row:
    """Moving pictures of one clip, all of ``ticks`` frames, the first ``context`` of which were seen."""

    title: str
    rollout: bool
    context: int
    ticks: int
    tiles: list[Tile]


def strip(frames: Tensor) -> str:
    """Frames (T, C, H, W) in [0, 1], below each other, as a data URI of a WebP picture."""
    tall: NDArray[np.uint8] = np.concatenate([to_picture(frame) for frame in frames])
    coloured = frames.shape[1] == 3
    file = io.BytesIO()
    image = Image.fromarray(tall if coloured else tall[..., 0])
    image.save(file, "WEBP", lossless=not coloured, quality=QUALITY if coloured else 100, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def clip_name(dataset: Any, index: int) -> str:
    """The clip's file where there is one, else its number."""
    clips = getattr(dataset, "clips", None)
    number = int(dataset[index]["clip"])
    if isinstance(clips, Sequence):
        return str(getattr(clips[number], "name", number))
    return f"test clip {number}"


def draw_clips(
    models: Mapping[str, Sequence[FramePrediction]],
    dataset: Any,
    assessment: Assessment,
    device: torch.device | str,
    protocol: Protocol,
) -> list[Row]:
    """Rows for the first few test clips with an uncertain future, then roll-outs; networks of the first seed.

    Neither clips nor samples are picked by how they look: they are the first.
    """
    uncertain = np.flatnonzero(assessment.evaluation.uncertain)
    order = [assessment.indices[i] for i in uncertain] + assessment.indices
    chosen, seen = [], set()
    for index in order:  # neighbouring windows of one clip look alike: one of each clip
        number = int(dataset[index]["clip"])
        if number not in seen:
            seen.add(number)
            chosen.append(index)
        if len(chosen) == NEXT_FRAME_CLIPS:
            break
    nets = {name: networks[0] for name, networks in models.items()}
    with isolated(*nets.values()):
        rows = [next_frame_row(nets, dataset, index, device, protocol.seed) for index in chosen]
        if assessment.rollouts is not None:
            horizon = assessment.rollouts["latent_ebm"]["horizon"]
            rows += [
                rollout_row(nets, dataset, index, horizon, device, protocol.seed)
                for index in chosen[:ROLLOUT_CLIPS]
            ]
    return rows


def next_frame_row(
    models: Mapping[str, FramePrediction], dataset: Any, index: int, device: torch.device | str, seed: int
) -> Row:
    """Context, and after the context: what came, the exact mean where it is known, and the predictions."""
    video = dataset[index]["video"]
    context = models["latent_ebm"].context_frames
    x, y = video[:context], video[context]
    drawn = _futures(models, x, NEXT_FRAME_SAMPLES, 1, device, seed, index)
    shown = [("context", "context", x[-1]), ("what came", "truth", y)]
    if isinstance(dataset, KnownWorld):
        shown.append(("exact mean", "exact", posterior_mean(dataset.futures(index))))
    shown += [(label, kind, future[0]) for label, kind, future in drawn]
    tiles = [
        _tile(label, kind, torch.cat([x, frame[None].expand(HELD, -1, -1, -1)]))
        for label, kind, frame in shown
    ]
    return Row(clip_name(dataset, index), False, context, context + HELD, tiles)


def rollout_row(
    models: Mapping[str, FramePrediction],
    dataset: Any,
    index: int,
    horizon: int,
    device: torch.device | str,
    seed: int,
) -> Row:
    """What came beside roll-outs, in which every predicted frame becomes context of the next."""
    video = dataset[index]["video"]
    context = models["latent_ebm"].context_frames
    x = video[:context]
    futures = [("what came", "truth", video[context : context + horizon])]
    futures += _futures(models, x, ROLLOUT_SAMPLES, horizon, device, seed, index)
    tiles = [
        _tile(label, kind, torch.cat([x, future, future[-1:].expand(HELD - 1, -1, -1, -1)]))
        for label, kind, future in futures
    ]
    return Row(clip_name(dataset, index), True, context, context + horizon + HELD - 1, tiles)


def _futures(
    models: Mapping[str, FramePrediction],
    x: Tensor,
    samples: int,
    horizon: int,
    device: torch.device | str,
    seed: int,
    index: int,
) -> list[tuple[str, str, Tensor]]:
    """(label, kind, frames (horizon, C, H, W)) of the one prediction and of the samples."""
    generator = generator_for(seed, _DRAWN, index, device=device)
    seen = x[None].to(device)
    mean = models["least_squares"].sample(seen, 1, horizon)[0, 0].cpu()
    drawn = models["latent_ebm"].sample(seen, samples, horizon, generator)[0].cpu()
    return [("least squares", "least_squares", mean)] + [
        (f"sample {i + 1}", "latent_ebm", future) for i, future in enumerate(drawn)
    ]


def _tile(label: str, kind: str, frames: Tensor) -> Tile:
    return Tile(label, kind, strip(frames), frames.shape[-1] / frames.shape[-2])
