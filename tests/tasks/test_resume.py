"""Frame prediction that is killed with SIGKILL ends with the weights of a training that was left alone."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_task import thread_limit
from two_futures import SMALL

from ssl_ebm.cli import main

STEPS, EPOCH, EVERY = 150, 8, 5  # checkpoints fall into the middle of epochs
COMMAND = [
    "fit",
    *("--data", "ssl_ebm.data.MovingDigits", "--data.size", "16", "--data.digit_size", "8"),
    *("--data.context_frames", "2", "--data.batch_size", "4", "--data.train_clips", str(4 * EPOCH)),
    *("--data.val_clips", "4", "--data.glyphs_per_digit", "2", "--checkpoint_every", str(EVERY)),
    *("--trainer.accelerator", "cpu", "--trainer.max_steps", str(STEPS), "--trainer.deterministic", "true"),
    *(word for name, value in SMALL.items() for word in (f"--model.{name}", str(value))),
]


def steps_taken(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["global_step"] if checkpoint.exists() else 0


def kill_in_the_middle(command: list[str], checkpoint: Path, delay: float) -> None:
    """Starts a training, and kills it that many seconds after it has written its next checkpoint."""
    before = steps_taken(checkpoint)
    process = subprocess.Popen([sys.executable, "-m", "ssl_ebm.cli", *command], env=thread_limit())
    end = time.monotonic() + 120
    while steps_taken(checkpoint) == before:
        assert time.monotonic() < end, "no checkpoint was written"
        assert process.poll() is None, "training ended"
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("latent", "kills"), [("one_hot", 1), ("gaussian", 2)])
def test_a_killed_training_goes_on_bit_for_bit(
    latent: str, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at a random moment, gone on, and killed again: noise, memories, schedules and data all go on."""
    monkeypatch.chdir(tmp_path)
    command = [*COMMAND, "--model.latent", latent, "--trainer.enable_progress_bar", "false"]
    assert main([*command, "--run_dir", "whole"]) == 0
    killed = [*command, "--run_dir", "killed", "--ckpt_path", "last"]
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    for _ in range(kills):
        kill_in_the_middle(killed, checkpoint, delay=random.uniform(0, 0.2))
    assert EVERY <= steps_taken(checkpoint) < STEPS
    assert main(killed) == 0
    whole, again = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("whole", "killed")
    )
    assert whole["global_step"] == again["global_step"] == STEPS
    assert whole["state_dict"].keys() == again["state_dict"].keys()
    for name, value in whole["state_dict"].items():  # weights, and what the prior remembers
        assert torch.equal(again["state_dict"][name], value), name
