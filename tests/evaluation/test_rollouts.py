"""Curves over the horizon of trajectories whose errors are known."""

import math
from typing import Any

import pytest
import torch

from ssl_ebm.evaluation.rollouts import evaluate_rollouts, summarise_rollouts

HORIZON = 3
# Grey frames whose level is off by this much: (samples, horizon). Sample 0 starts best and ends worst.
OFFSETS = torch.tensor([[0.01, 0.3, 0.3], [0.1, 0.1, 0.1], [0.2, 0.02, 0.2]])


class GreyClips:
    """Black context, then frames of one grey level with one bright pixel."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict[str, Any]:
        video = torch.zeros(2 + HORIZON, 1, 8, 8)
        video[2:] = 0.5
        video[2:, 0, 4, 4] = 0.7
        return {"video": video, "clip": torch.tensor(index)}


class OffsetModel:
    context_frames = 2

    def sample(self, x: torch.Tensor, samples: int, horizon: int = 1, generator: Any = None) -> torch.Tensor:
        truth = GreyClips()[0]["video"][2:]
        frames = truth + OFFSETS[:samples, :horizon, None, None, None]
        return frames.expand(len(x), -1, -1, -1, -1, -1)


def test_curves_of_known_errors() -> None:
    evaluation = evaluate_rollouts(
        {"model": [OffsetModel()]}, GreyClips(), horizon=HORIZON, samples=3, batch_size=2
    )
    curves = summarise_rollouts(evaluation, resamples=50)["model"]

    def decibels(offset: float) -> float:
        return -20 * math.log10(offset)

    each = [figure[0] for figure in curves["psnr_best_of"]]
    followed = [figure[0] for figure in curves["psnr_best_trajectory"]]
    assert each == pytest.approx([decibels(0.01), decibels(0.02), decibels(0.1)], rel=1e-3)
    assert followed == pytest.approx([decibels(0.1)] * 3, rel=1e-3)  # the least error over all frames
    assert [figure[0] for figure in curves["gradient_energy_ratio"]] == pytest.approx([1.0] * 3, rel=1e-4)
    assert (curves["K"], curves["horizon"], curves["clips"], curves["seeds"]) == (3, 3, 5, 1)
    assert curves["recordings"] == 5


def test_recordings_are_drawn_where_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = GreyClips.__getitem__
    monkeypatch.setattr(GreyClips, "__getitem__", lambda self, i: clips(self, i) | {"group": 9 - i // 2})
    evaluation = evaluate_rollouts(
        {"model": [OffsetModel()]}, GreyClips(), horizon=HORIZON, samples=3, batch_size=2
    )
    assert evaluation.recording.tolist() == [0, 0, 2, 2, 4]
    summary = summarise_rollouts(evaluation, resamples=10)["model"]
    assert (summary["clips"], summary["recordings"]) == (5, 3)


def test_clips_that_are_too_short_are_refused() -> None:
    with pytest.raises(ValueError, match="need clips of 6 frames; these have 5"):
        evaluate_rollouts({"model": [OffsetModel()]}, GreyClips(), horizon=4, samples=3)
