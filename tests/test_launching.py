"""One config on several processes."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toy_task import thread_limit

from ssl_ebm.cli import main
from ssl_ebm.tasks.signals import PATIENCE

pytestmark = pytest.mark.usefixtures("own_classes")

CONFIG: dict[str, Any] = {
    "model": {"class_path": "toy_task.ToyTask", "init_args": {"noise": 0.0}},
    "data": {"class_path": "toy_task.ToyData"},
    "trainer": {"max_steps": 3, "accelerator": "cpu"},
}


def _free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_two_processes_run_the_config_of_one(
    machines: int, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(yaml.safe_dump(CONFIG))
    options = ["--processes", "2"]
    if machines == 2:  # the script is started on each
        options = ["--nodes", "2", "--processes", "1", "--rendezvous", f"localhost:{_free_port()}"]
    script = str(repository / "scripts" / "launch_multi_gpu.sh")
    command = [script, *options, "--", "fit", "--config", "toy.yaml", "--run_dir", "runs/two"]
    logs = [tmp_path / f"{number}.log" for number in range(machines)]
    launchers = []
    for log in logs:
        with log.open("w") as file:
            start = {"stderr": file, "env": thread_limit(), "start_new_session": True}
            launchers.append(subprocess.Popen(command, **start))  # type: ignore[call-overload]
    try:
        ended = [launcher.wait(timeout=240) for launcher in launchers]
    finally:
        for launcher in launchers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, signal.SIGKILL)
    said = "".join(log.read_text() for log in logs)
    assert ended == [0] * machines, said
    assert "distributed_backend=gloo" in said
    assert "MEMBER: 2/2" in said

    # Each process took its half of the batch, and the steps were those of one process with the whole batch.
    assert main(["fit", "--config", "toy.yaml", "--run_dir", "runs/one"]) == 0
    one, two = (torch.load(f"runs/{n}/checkpoints/last.ckpt", weights_only=True) for n in ("one", "two"))
    for name in ("layer.weight", "layer.bias"):
        torch.testing.assert_close(one["state_dict"][name], two["state_dict"][name], rtol=1e-5, atol=1e-6)

    # What was written is one run, which a single process can take up.
    assert two["global_step"] == 3
    assert yaml.safe_load(Path("runs/two/config.yaml").read_text())["trainer"]["devices"] == "auto"
    more = ["--run_dir", "runs/two", "--ckpt_path", "last", "--trainer.max_steps", "5"]
    assert main(["fit", "--config", "toy.yaml", *more]) == 0
    assert torch.load("runs/two/checkpoints/last.ckpt", weights_only=True)["global_step"] == 5


@pytest.mark.slow
def test_two_processes_validate_test_and_predict_as_one_does(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each half of the items: 40, in batches of 8."""
    monkeypatch.chdir(tmp_path)
    Path("toy.yaml").write_text(yaml.safe_dump(CONFIG))
    assert main(["fit", "--config", "toy.yaml", "--run_dir", "run"]) == 0
    launch = [str(repository / "scripts" / "launch_multi_gpu.sh"), "--processes", "2", "--"]
    found: dict[str, list[float]] = {}
    for command in ("validate", "test", "predict"):
        arguments = [command, "--config", "toy.yaml", "--run_dir", "run", "--ckpt_path", "last"]
        done = subprocess.run(
            [*launch, *arguments], capture_output=True, text=True, timeout=240, env=thread_limit()
        )
        assert done.returncode == 0, done.stderr
        assert "MEMBER: 2/2" in done.stderr
        assert main(arguments) == 0
        if command != "predict":
            files = [Path("run", command, version, "metrics.csv") for version in ("version_0", "version_1")]
            found[command] = [float(file.read_text().split()[1].split(",")[-1]) for file in files]
    for of_two, of_one in found.values():
        assert of_two == pytest.approx(of_one, rel=1e-5)
    whole, first, second = (
        torch.cat(torch.load(f"run/predictions{rank}.pt", weights_only=True)) for rank in ("", ".0", ".1")
    )
    assert len(first) == len(second) == 20
    shared = torch.stack([first, second], 1).flatten(0, 1)  # items in turn
    torch.testing.assert_close(shared, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_other_commands_say_that_they_are_for_one_process(tmp_path: Path, repository: Path) -> None:
    script = str(repository / "scripts" / "launch_multi_gpu.sh")
    command = [script, "--processes", "2", "--", "lecture", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=thread_limit())
    assert done.returncode != 0
    assert "ssl-ebm: error: lecture is for one process, and torchrun or srun has started 2" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    endless = {**CONFIG, "trainer": {**CONFIG["trainer"], "max_steps": 100_000}}
    Path("toy.yaml").write_text(yaml.safe_dump(endless))
    script = str(repository / "scripts" / "launch_multi_gpu.sh")
    fit = ["fit", "--config", "toy.yaml", "--run_dir", "run", "--checkpoint_every", "5"]
    command = [script, "--processes", "2", "--", *fit]
    launcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=thread_limit())
    end = time.monotonic() + 120
    while not Path("run/checkpoints/last.ckpt").exists():
        assert time.monotonic() < end, "no checkpoint was written"
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.05)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGTERM)
    _, said = launcher.communicate(timeout=120)
    step = torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert said.count("SIGTERM: stopped after optimizer step") == 1
    assert f"SIGTERM: stopped after optimizer step {step};" in said
    assert re.search(r"exitcode +: 143", said)  # torchrun lists those that it has not ended itself


# What SLURM offers on one node: a launcher of two tasks, each of which is told who it is, and a command that
# queues a job again.
SRUN = """#!/bin/sh
[ "$1 $2" = "--cpus-per-task=1 --kill-on-bad-exit=1" ] || exit 9
shift 2
export SLURM_JOB_ID=NUMBER SLURM_JOB_NAME=training SLURM_NNODES=1 SLURM_NODEID=0
export SLURM_NTASKS=2 SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS_PER_NODE=2
for task in 0 1; do
    (export SLURM_PROCID=$task SLURM_LOCALID=$task && exec "$@") &
    echo $! >> tasks
done
status=0
for task in $(cat tasks); do
    wait "$task" || status=$?
done
rm tasks
exit $status
"""
SCONTROL = '#!/bin/sh\necho "$@" >> scontrol.log\n'


@pytest.mark.slow
def test_two_tasks_of_slurm_save_at_one_step_and_go_on_as_the_job_does(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is queued again once, and ends with the weights of one process that nobody has disturbed."""
    monkeypatch.chdir(tmp_path)
    job = str(20_000 + os.getpid() % 9_000)  # whose last digits are a port
    for name, text in (("srun", SRUN.replace("NUMBER", job)), ("scontrol", SCONTROL)):
        Path(name).write_text(text)
        Path(name).chmod(0o755)
    environment = thread_limit()
    environment |= {"PATH": f"{tmp_path}:{environment['PATH']}", "PYTHON": sys.executable}
    config = {**CONFIG, "trainer": {**CONFIG["trainer"], "max_steps": 120}}
    Path("toy.yaml").write_text(yaml.safe_dump(config))
    settings = [
        "--config",
        "toy.yaml",
        "--run_dir",
        "two",
        "--checkpoint_every",
        "5",
        "--model.pause",
        "0.05",
    ]
    command = [str(repository / "scripts" / "slurm.sbatch"), *settings]
    start = {"stderr": subprocess.PIPE, "text": True, "env": environment, "start_new_session": True}
    launched = subprocess.Popen(command, **start)  # type: ignore[call-overload]
    try:
        end = time.monotonic() + 120
        while not Path("two/checkpoints/last.ckpt").exists():
            assert time.monotonic() < end, "no checkpoint was written"
            assert launched.poll() is None, launched.communicate()
            time.sleep(0.05)
        for task in Path("tasks").read_text().split():  # SLURM tells all
            os.kill(int(task), signal.SIGUSR1)
        _, said = launched.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launched.pid, signal.SIGKILL)
    step = torch.load("two/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert launched.returncode == 128 + signal.SIGUSR1, said
    assert said.count(f"SIGUSR1: stopped after optimizer step {step};") == said.count("stopped after") == 1
    assert 0 < step < 120
    assert Path("scontrol.log").read_text() == f"requeue {job}\n"

    again = subprocess.run(
        [*command, "--model.pause", "0"], capture_output=True, text=True, env=environment, timeout=240
    )
    assert again.returncode == 0, again.stderr
    first, second = json.loads(Path("two/run.json").read_text())
    assert first["processes"] == second["processes"] == 2
    assert main(["fit", "--config", "toy.yaml", "--run_dir", "one"]) == 0
    one, two = (torch.load(f"{n}/checkpoints/last.ckpt", weights_only=True) for n in ("one", "two"))
    assert two["global_step"] == 120
    for name, value in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], value, rtol=1e-5, atol=1e-6)


def test_a_job_is_told_early_and_may_be_queued_again(repository: Path) -> None:
    """By the lines that sbatch reads: the signal that training waits for, to all tasks, three minutes before
    the time is over; the output of a second start goes behind that of the first."""
    script = (repository / "scripts" / "slurm.sbatch").read_text()
    head = script.partition("\nset ")[0]  # sbatch reads no further than the first command
    asked = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in head.splitlines()[1:]
        if line.startswith("#SBATCH")
    )
    assert script.count("#SBATCH") == len(asked)
    assert asked["signal"] == "USR1@180"  # with B: before it, the shell alone would be told
    assert asked["requeue"] == ""
    assert asked["open-mode"] == "append"
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert PATIENCE < 180  # a validation is broken off in time


def test_wrong_options_are_named(repository: Path) -> None:
    script = str(repository / "scripts" / "launch_multi_gpu.sh")
    for arguments, word in [
        (["--processes", "2"], "no command"),
        (["--nodes", "2", "--", "fit"], "--rendezvous"),
        (["--gpu", "2", "--", "fit"], "--gpu"),
    ]:
        done = subprocess.run([script, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert word in done.stderr
