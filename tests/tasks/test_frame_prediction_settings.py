"""Settings of frame prediction: mistakes are named in one line, and the two objectives are of one size."""

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from two_futures import small

from ssl_ebm.cli import main
from ssl_ebm.errors import UserError
from ssl_ebm.tasks import FramePrediction


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"beta": -1}, ["beta", "-1"]),
        ({"beta": 0}, ["beta", "0"]),
        ({"beta": math.nan}, ["beta", "nan"]),
        ({"width": 12}, ["width", "12", "multiple of 8"]),
        ({"width": 0}, ["width", "0"]),
        ({"anneal": 2}, ["anneal", "2"]),
        ({"anneal": math.nan}, ["anneal", "nan"]),
        ({"context_frames": 1}, ["context_frames", "1"]),
        ({"codes": 0}, ["codes", "0"]),
        ({"lr": 0.0}, ["lr", "0"]),
        ({"lr": math.inf}, ["lr", "inf"]),
        ({"initial_temperature": 0.0}, ["initial_temperature"]),
        ({"sharpness": 0.0}, ["sharpness", "0"]),
        ({"detail": -1}, ["detail", "-1"]),
        ({"paint_anchors": True, "paints": 0}, ["paint_anchors", "paints"]),
        ({"latent": "gaussian", "latent_noise": -0.1}, ["noise", "-0.1"]),
        ({"latent": "gaussian", "latent_noise": math.inf}, ["noise", "inf"]),
        ({"latent": "gaussian", "inference": "enumeration"}, ["enumeration", "gaussian"]),
        ({"latent": "ball", "inference": "enumeration"}, ["enumeration", "ball"]),
        ({"latent": "one_hot", "inference": "gradient"}, ["gradient", "one_hot"]),
        ({"latent": "quantised", "inference": "amortised"}, ["amortised", "quantised"]),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        small(**settings)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_the_command_says_it_in_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in [("beta", "-1"), ("width", "12")]:
        assert main(["fit", "--data", "ssl_ebm.data.MovingDigits", f"--model.{name}", value]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert name in lines[0]
        assert value in lines[0]


@pytest.mark.parametrize("shape", [(2, 3, 1, 16, 16), (2, 2, 3, 16, 16), (2, 1, 16, 16)])
def test_a_context_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="sees 2 frames of 1 channels"):
        small().sample(torch.rand(shape), 3)


def test_a_clip_without_a_next_frame_is_refused() -> None:
    with pytest.raises(UserError, match=r"clips have 2 frames.*future_frames"):
        small().split({"video": torch.rand(1, 2, 1, 16, 16)})


@pytest.mark.parametrize("latent", ["one_hot", "quantised", "gaussian", "ball"])
def test_one_config_serves_both_objectives(latent: str) -> None:
    """Least squares has no use for the latent and its inference, and does not complain of them."""
    inference = "enumeration" if latent in ("one_hot", "quantised") else "gradient"
    settings: dict[str, Any] = {"latent": latent, "inference": inference}
    for objective in ("least_squares", "latent_ebm"):
        small(objective, **settings)


def count(task: FramePrediction) -> int:
    return sum(p.numel() for p in task.parameters())


def test_the_objectives_have_as_many_parameters_by_default() -> None:
    assert count(FramePrediction("latent_ebm")) == pytest.approx(
        count(FramePrediction("least_squares")), rel=0.1
    )


def test_every_setting_is_documented_and_saved() -> None:
    names = list(inspect.signature(FramePrediction.__init__).parameters)[1:]
    assert sorted(small().hparams) == sorted(names)
    documentation = inspect.getdoc(FramePrediction) or ""
    for name in names:
        assert f"\n    {name}: " in documentation, name
