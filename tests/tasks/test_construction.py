"""Settings that no constructor should meet, and models that no machine bears."""

import itertools
from pathlib import Path

import pytest
from torch import nn

from ssl_ebm.cli import main
from ssl_ebm.errors import UserError
from ssl_ebm.tasks import DensityEstimation
from ssl_ebm.tasks.building import build
from ssl_ebm.tasks.construction import MOST_TENSORS, of_bearable_size, refuse_nulls

PICTURES = ["--data", "ssl_ebm.data.FontDigits", "--data.size", "16", "--trainer.accelerator", "cpu"]
PICTURES += ["--trainer.fast_dev_run", "true", "--run_dir", "run"]


@pytest.fixture(autouse=True)
def inside_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands write under the current folder."""
    monkeypatch.chdir(tmp_path)


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["fit", *words]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    return line


def test_a_model_of_too_many_parts_is_stopped_in_its_making() -> None:
    with pytest.raises(UserError, match="over 20,000 tensors"), of_bearable_size():
        nn.ModuleList(nn.Linear(1, 1) for _ in itertools.count())
    with of_bearable_size():
        for _ in range(MOST_TENSORS // 2 - 1):
            nn.Linear(1, 1)
    nn.ModuleList(nn.Linear(1, 1, device="meta") for _ in range(MOST_TENSORS))  # outside nothing counts


def test_a_model_that_is_larger_than_memory_is_stopped_in_its_making() -> None:
    with (
        pytest.raises(UserError, match=r"the weights of the model need .* lower its width"),
        of_bearable_size(),
    ):
        nn.Linear(2**20, 2**24, device="meta")  # 64 TiB, which "meta" does not take
    with of_bearable_size():
        nn.Linear(8, 8)


def test_null_is_for_settings_that_have_one() -> None:
    """Also for those that a class hands on to its parent."""
    path = "ssl_ebm.data.VideoFolder"
    refuse_nulls(path, {"frame_rate": None, "stride": None, "batch_size": 3, "unknown": None}, "data")
    for name in ("folder", "on_broken", "batch_size"):
        with pytest.raises(UserError, match=rf"data.{name} is null: give a value of type"):
            refuse_nulls(path, {name: None}, "data")


def test_nulls_in_a_config_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--model", "ssl_ebm.tasks.Inpainting"]
    assert "data.train_images is null" in error_of(capsys, *model, *PICTURES, "--data.train_images", "null")
    assert "model.codes is null" in error_of(capsys, *model, *PICTURES, "--model.codes", "null")
    linear = {"in_features": 2, "out_features": 2, "bias": None}
    with pytest.raises(UserError, match=r"energy.bias is null"):
        build({"class_path": "torch.nn.Linear", "init_args": linear}, nn.Module, "energy")


def test_data_of_another_task_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    said = error_of(capsys, "--model", "ssl_ebm.tasks.FramePrediction", *PICTURES)
    assert "the task needs 'video', and the data give" in said
    assert "image" in said


def test_what_is_no_objective_is_said() -> None:
    energy = {"class_path": "ssl_ebm.networks.ImageEnergy", "init_args": {"size": [16, 16], "width": 8}}
    with pytest.raises(UserError, match="ImageEnergy is no objective"):
        DensityEstimation(energy, energy, input="image")
