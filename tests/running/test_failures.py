"""What is said of errors that Lightning and PyTorch raise."""

import contextlib
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_backbones import batch_for, text_network
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from toy_task import thread_limit
from two_futures import trainer

from ssl_ebm.running.failures import remedy_for
from ssl_ebm.tasks import MaskedText


@pytest.mark.parametrize(("before", "after"), [("adamw", "muon"), ("muon", "adamw")])
def test_a_checkpoint_of_another_optimizer(before: Any, after: Any, tmp_path: Path) -> None:
    batches = DataLoader([batch_for("text")], batch_size=None)
    path = tmp_path / "a.ckpt"
    fitter = trainer(1)
    fitter.fit(MaskedText(text_network(), optimizer=before), batches)
    fitter.save_checkpoint(path)
    with pytest.raises(ValueError, match="parameter groups") as error:
        trainer(2).fit(
            MaskedText(text_network(), optimizer=after), batches, ckpt_path=path, weights_only=True
        )
    remedy = remedy_for(error.value, str(path))
    assert remedy is not None
    assert f"{path} was written with another optimizer: use that" in remedy
    assert f"--start_from {path}" in remedy


@pytest.mark.parametrize("hangs", [False, True], ids=["closed", "hangs"])
def test_an_end_comes_where_nothing_can_be_said(hangs: bool, tmp_path: Path) -> None:
    """The log may lie on the storage that hangs: here nobody reads a pipe that is full, or closed."""
    reading, writing = os.pipe()
    if hangs:
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
    else:
        os.close(reading)
    program = "from ssl_ebm.running import failures; failures.LAST_WORDS = 0.5\n"
    program += "with failures.ending_for_hanging_reads(): failures.give_up_hanging_read(3)()"
    done = subprocess.run([sys.executable, "-c", program], stderr=writing, env=thread_limit(), timeout=120)
    assert done.returncode == 2


class _Torn(Dataset[torch.Tensor]):
    """Of a file that ends too soon."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        raise EOFError("No data left in file")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_end_of_a_file_is_no_workers_death(workers: int) -> None:
    """Also in a process that has had workers."""
    list(DataLoader(torch.arange(2), num_workers=1))  # type: ignore[arg-type]
    with pytest.raises(EOFError) as error:
        next(iter(DataLoader(_Torn(), num_workers=workers)))
    assert remedy_for(error.value, None) is None


def test_without_workers_no_pipe_of_one_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def end_of_the_pipe(*_: object) -> None:
        raise ConnectionResetError(104, "Connection reset by peer")

    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # as before torch starts some, or after a training
    try:
        monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_try_get_data", end_of_the_pipe)
        with pytest.raises(ConnectionResetError) as error:
            next(iter(DataLoader(torch.arange(2), num_workers=1)))  # type: ignore[arg-type]
        assert "a worker that loads data was ended" in str(remedy_for(error.value, None))
        assert remedy_for(EOFError("Ran out of input"), None) is None
        assert remedy_for(ConnectionResetError(104, "Connection reset by peer"), None) is None
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_weights_of_no_checkpoint_are_not_laid_to_one() -> None:
    with pytest.raises(RuntimeError, match="state_dict") as error:
        torch.nn.Linear(2, 1).load_state_dict({})
    assert remedy_for(error.value, None) is None
    assert (
        remedy_for(error.value, "a.ckpt") == "a.ckpt was written with other settings of the model: use those"
    )


def test_an_overflow_in_code_of_ones_own_is_no_setting() -> None:
    for overflow in (lambda: math.exp(1000), lambda: 10.0**400):
        with pytest.raises(OverflowError) as error:
            overflow()
        assert remedy_for(error.value, None) is None
    with pytest.raises(OverflowError) as error:
        range(2**70).__len__()
    assert "a setting is too large for this machine" in str(remedy_for(error.value, None))
