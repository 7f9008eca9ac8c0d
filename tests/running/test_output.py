"""Commands whose standard output, or error, has no room."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.trainer.connectors import data_connector
from toy_task import ToyData, ToyTask, thread_limit

from ssl_ebm.running.output import LossyStream, lossy_output
from ssl_ebm.running.quiet import quieten
from ssl_ebm.tasks.checkpoints import read_checkpoint

FIT = ["fit", "--model", "toy_task.ToyTask", "--data", "toy_task.ToyData", "--run_dir", "run"]
FIT += ["--trainer.max_steps", "6", "--trainer.accelerator", "cpu"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("both", [False, True], ids=["output", "output and error"])
def test_a_training_whose_output_has_no_room_goes_on(both: bool, tmp_path: Path) -> None:
    """As with `fit > log` on a disk that is full, where the table of the model is the first to fail."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "ssl_ebm.cli", *FIT],
            stdout=full,
            stderr=full if both else subprocess.PIPE,
            env=thread_limit(),
            cwd=tmp_path,
            text=True,
            timeout=180,
        )
    assert done.returncode == 0, done.stderr
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 6
    if not both:
        said = "cannot write to standard output (No space left on device): what does not fit is lost"
        assert done.stderr.count(said) == 1
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_lines_come_again_when_there_is_room(tmp_path: Path) -> None:
    """And whole ones, of which nothing is told twice."""
    warned, limit = io.StringIO(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with open(tmp_path / "log", "w") as file:
        stream = LossyStream(file, "the log", warned)
        print("first", file=stream, flush=True)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(file.name), limit[1]))
            for number in range(3):
                print(f"lost {number}", file=stream, flush=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        print("last", file=stream, flush=True)
        assert (tmp_path / "log").read_text() == "first\nlast\n"
        assert warned.getvalue().count("cannot write to the log (File too large)") == 1


def test_a_closed_pipe_is_no_want_of_room() -> None:
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError), open(write, "w") as file:
        print("a", file=LossyStream(file, "a pipe", io.StringIO()), flush=True)


def test_what_waits_at_the_end_is_lost_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open(tmp_path / "log", "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        monkeypatch.setattr(sys, "stderr", warned := io.StringIO())
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
            with lossy_output():
                print("a line that waits in the buffer")
            assert isinstance(sys.stdout, LossyStream)  # for the flush when Python ends
            sys.stdout.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "cannot write to standard output" in warned.getvalue()


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_stays_closed(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `2>&-`."""
    monkeypatch.setattr(sys, closed, None)
    with lossy_output():
        assert getattr(sys, closed) is None
        print("nobody hears this", file=getattr(sys, closed))
    assert getattr(sys, closed) is None


class _HookedTask(ToyTask):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


class _HookedData(ToyData):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


def test_a_warning_that_the_hook_of_a_task_is_not_called_stays() -> None:
    """Lightning says it in nearly the words with which it says that it is called."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        quieten()
        for data in (ToyData(), _HookedData()):
            data_connector.warning_cache.clear()
            data_connector._DataHookSelector(_HookedTask(), data).get_instance("on_before_batch_transfer")
    assert [
        "It will use the implementation from `LightningDataModule`" in str(one.message) for one in said
    ] == [True]
