"""A real SLURM cluster, where there is one: ``sbatch scripts/slurm.sbatch``, ended early and queued again.

Options that a cluster needs go into SSL_EBM_SBATCH (``--partition cpu --nodes 2``); on several nodes pytest's
``--basetemp`` names a folder that all of them see. Takes a few minutes: SLURM waits before a second start.
"""

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.skipif(shutil.which("sbatch") is None, reason="no SLURM here (sbatch)"),
    pytest.mark.timeout(1800),
    pytest.mark.slow,
]
JOB = "--nodes 1 --ntasks-per-node 2 --gpus-per-node 0 --cpus-per-task 1 --time 10"
TRAINING = (
    "--config configs/frame_prediction/quickstart_latent_ebm.yaml --data.train_clips 64 --data.val_clips 8 "
    "--data.batch_size 4 --model.width 8 --trainer.max_steps 400 --trainer.accelerator cpu "
    "--checkpoint_every 10"
)


def _run(*command: str, **more: Any) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, **more).stdout


@pytest.fixture
def submit(repository: Path) -> Iterator[Callable[[Path], str]]:
    """Starts a training in a folder; the number of its job, which does not outlive the test."""
    jobs: list[str] = []

    def start(folder: Path) -> str:
        jobs.append(_submit(repository, folder))
        return jobs[-1]

    yield start
    subprocess.run(["scancel", *jobs], capture_output=True, timeout=60)


def _submit(repository: Path, folder: Path) -> str:
    job = [*shlex.split(JOB), *shlex.split(os.environ.get("SSL_EBM_SBATCH", ""))]
    training = [*shlex.split(TRAINING), "--run_dir", str(folder), "--wandb", "offline"]
    said = _run(
        "sbatch", "--output", f"{folder}.out", *job, "scripts/slurm.sbatch", *training, cwd=repository
    )
    return re.findall(r"\d+", said)[-1]


def _wait(condition: Callable[[], bool], output: Path) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, output.read_text() if output.exists() else "the job did not start"
        time.sleep(0.5)


def _is_complete(output: Path) -> bool:
    return output.exists() and "max_steps=400` reached" in output.read_text()


def _weights(folder: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 400
    weights: dict[str, Any] = checkpoint["state_dict"]
    return weights


@pytest.mark.parametrize("end", ["time is nearly over", "taken away"])
def test_a_job_that_is_queued_again_goes_on_bit_for_bit(
    end: str, submit: Callable[[Path], str], tmp_path: Path
) -> None:
    whole, broken_off = tmp_path / "whole", tmp_path / "broken_off"
    outputs = [Path(f"{folder}.out") for folder in (whole, broken_off)]
    submit(whole)
    job = submit(broken_off)
    _wait((broken_off / "checkpoints" / "last.ckpt").exists, outputs[1])
    if end == "taken away":  # as for a job of higher priority
        _run("scontrol", "requeue", job)
    else:  # what --signal=USR1@180 has SLURM do
        _run("scancel", "--signal=USR1", job)
    for output in outputs:
        _wait(partial(_is_complete, output), output)
    said = outputs[1].read_text()
    signal = "SIGTERM" if end == "taken away" else "SIGUSR1"
    assert re.search(rf"ssl-ebm: {signal}: stopped after optimizer step \d+; --ckpt_path last goes on", said)
    assert "Restored all states from the checkpoint" in said
    assert "stopped after" not in outputs[0].read_text()
    one, other = _weights(whole), _weights(broken_off)
    assert all(torch.equal(weights, other[name]) for name, weights in one.items())
    logged = list((broken_off / "wandb").glob("offline-run-*"))
    assert len(logged) == 2  # two parts of one run
    assert len({folder.name.rsplit("-", 1)[1] for folder in logged}) == 1
