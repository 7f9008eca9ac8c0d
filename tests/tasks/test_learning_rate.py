"""A learning rate that follows the batch: lr * items of a step / reference."""

import json
import math
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from several_processes import BATCH, ItemData, join, masked_text
from torch.utils.data import DataLoader
from two_futures import trainer

from ssl_ebm.cli import main
from ssl_ebm.errors import UserError
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.saving import last_checkpoint

LR, REFERENCE = 5e-3, 32  # the rate of `masked_text`


def fitted(processes: int, accumulated: int, reference: int | None = REFERENCE, **settings: Any) -> Any:
    """The Trainer of a task, after two steps on batches of BATCH items in each process."""
    task = masked_text("token")
    task.lr_reference_batch = reference
    strategy = "ddp" if processes > 1 else "auto"
    fitter = trainer(
        2, precision="64-true", devices=processes, strategy=strategy, accumulate_grad_batches=accumulated,
        limit_val_batches=0,
    )  # fmt: skip
    fitter.fit(task, **(settings or {"datamodule": ItemData(BATCH, 0, 0)}))
    return fitter


def peaks(fitter: Any) -> set[float]:
    """The learning rates of the schedule before its factor."""
    return set(fitter.lr_scheduler_configs[0].scheduler.base_lrs)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_the_rate_grows_with_the_items_of_a_step(accumulated: int) -> None:
    fitter = fitted(1, accumulated)
    peak = LR * BATCH * accumulated / REFERENCE
    assert peaks(fitter) == {peak}
    # One step of warm-up, then a cosine of two steps: its first factor is 1/2, its second cos^2(pi / 4).
    (schedule,) = [config.scheduler for config in fitter.lr_scheduler_configs]
    assert [schedule.lr_lambdas[0](step) for step in (0, 1)] == pytest.approx(
        [0.5, math.cos(math.pi / 4) ** 2]
    )


def test_without_a_reference_the_rate_is_that_of_the_setting() -> None:
    assert peaks(fitted(1, 3, reference=None)) == {LR}


def in_one_of_two(rank: int, port: int, folder: Path) -> None:
    join(rank, port, 2)
    found = {accumulated: peaks(fitted(2, accumulated)) for accumulated in (1, 3)}
    (folder / f"{rank}.json").write_text(json.dumps({key: list(value) for key, value in found.items()}))


@pytest.mark.slow
def test_two_processes_have_twice_the_rate(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(in_one_of_two, (port, tmp_path), nprocs=2)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found == {str(k): [LR * 2 * k * BATCH / REFERENCE] for k in (1, 3)}


def test_data_without_a_batch_size_is_warned_of() -> None:
    data = ItemData(BATCH, 0, 0)
    items = DataLoader(data.make_dataset("train"), batch_size=BATCH)
    with pytest.warns(UserWarning, match=r"lr_reference_batch is 32, but .* 0\.005 as it stands"):
        assert peaks(fitted(1, 1, train_dataloaders=items)) == {LR}


def test_a_reference_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="lr_reference_batch is 0"):
        fitted(1, 1, reference=0)


def test_the_setting_of_a_run_and_what_its_files_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that goes on keeps the checkpoint's rate, also with another batch, and says so."""
    monkeypatch.chdir(tmp_path)
    fit = [
        "fit", "--model.width", "8", "--model.features", "8", "--model.codes", "3", "--model.lr", "1e-3",
        "--data", "ssl_ebm.data.MovingDigits", "--data.batch_size", "8", "--data.train_clips", "64",
        "--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "0", "--run_dir", "run",
        "--lr_reference_batch", "4", "--trainer.accumulate_grad_batches", "2",
    ]  # fmt: skip
    assert main([*fit, "--trainer.max_steps", "1"]) == 0
    more = ["--trainer.max_steps", "2", "--ckpt_path", "last", "--data.batch_size", "4"]
    with pytest.warns(UserWarning, match=r"the checkpoint, 0\.004, goes on: 0\.002 is that of a fresh start"):
        assert main([*fit, *more]) == 0
    first, second = json.loads(Path("run/run.json").read_text())
    assert (first["items_of_step"], first["learning_rate"]) == (16, 4e-3)
    assert (second["items_of_step"], second["learning_rate"]) == (8, 4e-3)
    schedule = read_checkpoint(last_checkpoint("run"))["lr_schedulers"][0]
    assert schedule["base_lrs"] == [4e-3, 4e-3]
    logged = "\n".join(path.read_text() for path in Path("run").rglob("hparams.yaml"))
    assert "learning_rate: 0.004" in logged
    assert "items_of_step: 16" in logged
