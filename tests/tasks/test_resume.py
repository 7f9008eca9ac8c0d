"""Frame prediction that is broken off ends with the weights of a training that was left alone."""

import random
import re
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
SETTINGS = [
    *("--data", "ssl_ebm.data.MovingDigits", "--data.size", "16", "--data.digit_size", "8"),
    *("--data.context_frames", "2", "--data.batch_size", "4", "--data.train_clips", str(4 * EPOCH)),
    *("--data.val_clips", "4", "--data.glyphs_per_digit", "2", "--checkpoint_every", str(EVERY)),
    *("--trainer.accelerator", "cpu", "--trainer.max_steps", str(STEPS), "--trainer.deterministic", "true"),
    *(word for name, value in SMALL.items() for word in (f"--model.{name}", str(value))),
]


# What SLURM offers: a launcher that says who the one process is, and a command that queues a job again.
SRUN = """#!/bin/sh
[ "$1 $2" = "--cpus-per-task=1 --kill-on-bad-exit=1" ] || exit 9
shift 2
export SLURM_JOB_ID=4711 SLURM_JOB_NAME=training SLURM_NTASKS=1 SLURM_NNODES=1 SLURM_NTASKS_PER_NODE=1
export SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
exec "$@"
"""
SCONTROL = """#!/bin/sh
echo "$@" >> scontrol.log
"""


def steps_taken(checkpoint: Path) -> int:
    return torch.load(checkpoint, weights_only=True)["global_step"] if checkpoint.exists() else 0


def end_in_the_middle(
    command: list[str], checkpoint: Path, number: signal.Signals, environment: dict[str, str]
) -> str:
    """Starts a training, and sends it a signal a moment after it has written its next checkpoint.

    Returns what it said, when it has ended with that signal's status.
    """
    before = steps_taken(checkpoint)
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while steps_taken(checkpoint) == before:
        assert time.monotonic() < end, "no checkpoint was written"
        assert process.poll() is None, "training ended"
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.2))
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number), messages
    return messages


def in_slurm(folder: Path, repository: Path) -> tuple[list[str], dict[str, str]]:
    """The command that runs a training as a SLURM job does, and its environment."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    environment = thread_limit()
    environment |= {"PATH": f"{folder}:{environment['PATH']}", "PYTHON": sys.executable}
    return [str(repository / "scripts" / "slurm.sbatch")], environment


@pytest.mark.slow
@pytest.mark.parametrize(
    ("latent", "signals"),
    [("one_hot", [signal.SIGKILL]), ("gaussian", [signal.SIGUSR1, signal.SIGTERM])],
    ids=["killed", "asked to stop by SLURM"],
)
def test_a_training_that_was_broken_off_goes_on_bit_for_bit(
    latent: str,
    signals: list[signal.Signals],
    tmp_path: Path,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At a random moment, gone on, and broken off again: noise, memories, schedules and data all go on."""
    monkeypatch.chdir(tmp_path)
    settings = [*SETTINGS, "--model.latent", latent, "--trainer.enable_progress_bar", "false"]
    assert main(["fit", *settings, "--run_dir", "whole"]) == 0
    broken = [*settings, "--run_dir", "broken"]
    checkpoint = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    last = ["--ckpt_path", "last"]
    if signals == [signal.SIGKILL]:
        launch, environment = [sys.executable, "-m", "ssl_ebm.cli", "fit", *broken, *last], thread_limit()
    else:
        script, environment = in_slurm(tmp_path, repository)
        launch = [*script, *broken]
    for number in signals:
        said = end_in_the_middle(launch, checkpoint, number, environment)
        if number != signal.SIGKILL:
            assert f"{number.name}: stopped after optimizer step {steps_taken(checkpoint)}" in said
            assert "Traceback" not in said
    if signal.SIGUSR1 in signals:  # and SIGTERM queues nothing
        assert Path("scontrol.log").read_text() == "requeue 4711\n"
    assert EVERY <= steps_taken(checkpoint) < STEPS
    assert main(["fit", *broken, *last]) == 0
    assert_the_same(tmp_path / "broken", tmp_path / "whole", STEPS, monkeypatch, repository)


def assert_the_same(
    run: Path, other: Path, steps: int, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    """Weights, what the prior remembers, the optimizer and its schedule, to the last bit."""
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    from kill_test import differences

    found, expected = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (run, other)
    )
    assert found["global_step"] == expected["global_step"] == steps
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert expected[part]
        assert list(differences(found[part], expected[part], part)) == []


def killed_at(batch: int, rank: int | None = None) -> list[str]:
    words = ["--trainer.callbacks+=killing.KillAtBatch", "--trainer.callbacks.batch", str(batch)]
    return words if rank is None else [*words, "--trainer.callbacks.rank", str(rank)]


FEW = 30  # optimizer steps
SHORT = [*SETTINGS, "--trainer.max_steps", str(FEW), "--model.latent", "one_hot"]
SHORT += ["--trainer.enable_progress_bar", "false", "--ckpt_path", "last"]


@pytest.mark.slow
def test_a_training_that_was_killed_between_two_batches_of_a_step_goes_on_bit_for_bit(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batches to a step, and what remains of an epoch's eight to its last: the steps end with the
    batches 2, 5 and 7 of an epoch. The process ends before the second and the third batch of a step."""
    monkeypatch.chdir(tmp_path)
    settings = [*SHORT, "--trainer.accumulate_grad_batches", "3"]
    assert main(["fit", *settings, "--run_dir", "whole"]) == 0
    broken = [*settings, "--run_dir", "broken"]
    for batch, step in ((2 * EPOCH + 4, 7), (6 * EPOCH + 5, 19)):
        command = [sys.executable, "-m", "ssl_ebm.cli", "fit", *broken, *killed_at(batch)]
        done = subprocess.run(command, env=thread_limit(), capture_output=True, text=True, timeout=240)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert steps_taken(tmp_path / "broken" / "checkpoints" / "last.ckpt") == step // EVERY * EVERY
    assert main(["fit", *broken]) == 0
    assert_the_same(tmp_path / "broken", tmp_path / "whole", FEW, monkeypatch, repository)


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_bit_for_bit(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By torchrun, with gloo: first one of them dies, then both."""
    monkeypatch.chdir(tmp_path)
    launch = [str(repository / "scripts" / "launch_multi_gpu.sh"), "--processes", "2", "--", "fit"]
    environment = {**thread_limit(), "PYTHON": sys.executable}

    def train(run: str, *more: str) -> subprocess.CompletedProcess[str]:
        command = [*launch, *SHORT, "--data.batch_size", "2", "--run_dir", run, *more]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)

    assert train("whole").returncode == 0
    for batch, rank in ((8, 1), (22, None)):
        done = train("broken", *killed_at(batch, rank))
        assert done.returncode != 0
        assert re.search(r"exitcode +: -9", done.stderr), done.stderr
        assert steps_taken(tmp_path / "broken" / "checkpoints" / "last.ckpt") == batch // EVERY * EVERY
    done = train("broken")
    assert done.returncode == 0, done.stderr
    assert_the_same(tmp_path / "broken", tmp_path / "whole", FEW, monkeypatch, repository)
