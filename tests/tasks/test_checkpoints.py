"""Rebuilding a task from a checkpoint."""

from pathlib import Path

import pytest
import torch
from toy_task import OtherTask, PrivateTask, ToyData, ToyTask

from ssl_ebm.errors import UserError
from ssl_ebm.running.runs import Run
from ssl_ebm.tasks.checkpoints import load_task, read_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the toy task of width 3, written by a run."""
    run_dir = tmp_path_factory.mktemp("run")
    arguments = ["--model", "toy_task.ToyTask", "--model.width", "3", "--data", "toy_task.ToyData"]
    arguments += ["--data.width", "3", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    Run("fit", [*arguments, "--run_dir", str(run_dir)]).execute()
    return run_dir / "checkpoints" / "last.ckpt"


def test_settings_and_weights_come_back(checkpoint: Path) -> None:
    model = load_task(checkpoint, ToyTask)
    assert model.hparams["width"] == 3
    assert not model.training
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert torch.equal(model.layer.weight, saved["layer.weight"])


def test_another_task_is_named(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="is a checkpoint of ToyTask, not of OtherTask"):
        load_task(checkpoint, OtherTask)


def test_a_secret_that_a_checkpoint_hides_is_no_setting(checkpoint: Path, tmp_path: Path) -> None:
    content = read_checkpoint(checkpoint)
    content["hyper_parameters"]["server"] = {"api_key": "HIDDEN"}
    torch.save(content, tmp_path / "hidden.ckpt")
    assert load_task(tmp_path / "hidden.ckpt", ToyTask).hparams["width"] == 3  # which takes no server


def test_a_secret_that_a_checkpoint_hides_is_given_again(tmp_path: Path) -> None:
    task = PrivateTask(api_key="k3y")
    content = {"state_dict": task.state_dict(), "hyper_parameters": {"api_key": "HIDDEN"}}
    torch.save({**content, "task": "PrivateTask"}, tmp_path / "hidden.ckpt")
    with pytest.raises(
        UserError, match="leaves out api_key, which looks like a secret: give it to load_task"
    ):
        load_task(tmp_path / "hidden.ckpt", PrivateTask)
    assert load_task(tmp_path / "hidden.ckpt", PrivateTask, api_key="k3y").hparams["api_key"] == "k3y"


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "task": "ToyTask", "data": ToyData()}, tmp_path / "code.ckpt")
    with pytest.raises(UserError, match=r"code\.ckpt is no checkpoint"):
        read_checkpoint(tmp_path / "code.ckpt")
