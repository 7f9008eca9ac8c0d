"""Trainings on a disk that fills up: the system refuses to let any file grow beyond a size."""

from __future__ import annotations

import csv
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_task import ToyTask

from ssl_ebm.cli import main
from ssl_ebm.running.failures import remedy_for
from ssl_ebm.running.metrics import WholeTable
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.saving import is_whole, last_checkpoint

ROOM = 6_000  # bytes: rows of 250 steps, no checkpoint
STEPS = 400
FIT = ["fit", "--model", "toy_task.ToyTask", "--model.width", "1000", "--data", "toy_task.ToyData"]
FIT += ["--data.width", "1000", "--trainer.max_steps", str(STEPS), "--trainer.log_every_n_steps", "1"]
FIT += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
FIT += ["--trainer.enable_model_summary", "false", "--trainer.limit_val_batches", "0"]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets how large files may become, -1: any size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before[0] if size < 0 else size, before[1]))

    yield limit
    limit(-1)


def at_steps(done: dict[int, Callable[[], Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has something done after some steps of the toy task, when their checkpoints and metrics are written."""

    def on_train_batch_end(task: ToyTask, *_: Any) -> None:
        done.get(task.global_step, lambda: None)()

    monkeypatch.setattr(ToyTask, "on_train_batch_end", on_train_batch_end)


def rows(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics" / "version_0" / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_disk_that_fills_up_stops_a_training_in_one_line(
    tmp_path: Path,
    room: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Metrics can be written no more than checkpoints; with room again it goes on as if nothing had been."""
    assert main([*FIT, "--run_dir", str(tmp_path / "whole")]) == 0
    run = tmp_path / "run"
    command = [*FIT, "--run_dir", str(run), "--checkpoint_every", "150"]
    capsys.readouterr()
    at_steps({150: lambda: room(ROOM)}, monkeypatch)
    with pytest.warns(UserWarning, match="rows of .* could not be written"):
        assert main(command) == 2
    room(-1)
    at_steps({}, monkeypatch)
    [line] = capsys.readouterr().err.splitlines()
    last = last_checkpoint(run)
    assert line.startswith(f"ssl-ebm: error: cannot write {last} (File too large): make room")
    assert is_whole(last)
    assert read_checkpoint(last)["global_step"] == 150
    steps = [int(row["step"]) for row in rows(run)]
    assert steps == list(range(len(steps)))
    assert 150 < len(steps) < 300

    assert main([*command, "--ckpt_path", "last"]) == 0
    found, expected = (
        torch.load(last_checkpoint(tmp_path / name), weights_only=True) for name in ("run", "whole")
    )
    assert found["state_dict"].keys() == expected["state_dict"].keys()
    for name, weights in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][name], weights)


def test_a_training_goes_on_while_metrics_cannot_be_written(
    tmp_path: Path, room: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a row that is torn in the middle; in the end each is there once."""
    at_steps({150: lambda: room(ROOM), 350: lambda: room(-1)}, monkeypatch)
    with pytest.warns(UserWarning, match="metrics wait in memory.* File too large") as said:
        assert main([*FIT, "--run_dir", str(tmp_path)]) == 0
    assert len([one for one in said if "metrics" in str(one.message)]) == 1
    found = rows(tmp_path)
    assert [int(row["step"]) for row in found] == list(range(STEPS))
    assert all(float(row["loss"]) > 0 for row in found)


def test_rows_are_not_written_twice_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = WholeTable(str(tmp_path))
    table.log_metrics({"loss": 1.0}, 0)
    table.save()
    write = csv.DictWriter.writerows

    def interrupted(self: Any, rows: Any) -> None:
        write(self, rows)
        raise KeyboardInterrupt

    table.log_metrics({"loss": 2.0}, 1)
    with monkeypatch.context() as patch:
        patch.setattr(csv.DictWriter, "writerows", interrupted)
        with pytest.raises(KeyboardInterrupt):
            table.save()
    table.save()
    assert Path(table.metrics_file_path).read_text().split() == ["loss,step", "1.0,0", "2.0,1"]


def test_a_new_column_that_cannot_be_written_loses_no_row(
    tmp_path: Path, room: Callable[[int], None]
) -> None:
    table = WholeTable(str(tmp_path))
    for step in range(20):
        table.log_metrics({"loss": step / 7}, step)
    table.save()
    before = Path(table.metrics_file_path).read_text()
    table.log_metrics({"loss": 1.0, "accuracy": 0.5}, 20)
    room(50)
    with pytest.raises(Exception, match="too large"):
        table.save()
    room(-1)
    assert Path(table.metrics_file_path).read_text() == before
    assert os.listdir(tmp_path) == ["metrics.csv"]
    table.save()
    with open(table.metrics_file_path, newline="") as file:
        found = list(csv.DictReader(file))
    assert [int(row["step"]) for row in found] == list(range(21))
    assert [row["accuracy"] for row in found] == [""] * 20 + ["0.5"]
    assert float(found[3]["loss"]) == 3 / 7


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "cannot write a.csv ({}): make room"),
        (errno.EDQUOT, "cannot write a.csv ({}): make room"),
        (errno.EFBIG, "cannot write a.csv ({}): make room"),
        (errno.EIO, "cannot read or write a.csv ({}): look at the storage"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_wherever_that_is(number: int, remedy: str) -> None:
    reason = os.strerror(number)
    error = RuntimeError("of a logger")
    error.__cause__ = OSError(number, reason, "a.csv")
    assert remedy_for(error, None) == f"{remedy.format(reason)}, and go on with --ckpt_path last"
    assert remedy_for(OSError(errno.ENOENT, "No such file or directory", "a.csv"), None) is None
