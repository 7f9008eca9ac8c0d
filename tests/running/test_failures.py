"""What is said of errors that Lightning and PyTorch raise."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_backbones import batch_for, text_network
from torch.utils.data import DataLoader
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
