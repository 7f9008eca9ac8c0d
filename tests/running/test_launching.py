"""What a process knows of those that were started with it, and which commands refuse to be several."""

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ssl_ebm.cli import main
from ssl_ebm.cli.parser import TRAINER_COMMANDS, make_parser
from ssl_ebm.report import training
from ssl_ebm.running.launching import environment_of_one, processes_launched

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
TORCHRUN |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"}
SRUN = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_ID": "7"}
ALONE: list[dict[str, str]] = [
    {},
    {"WORLD_SIZE": "2"},  # nobody says which of them this is
    {**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"},
    {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},  # a batch script
    {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},
    {**SRUN, "SLURM_JOB_NAME": "bash"},  # srun --ntasks 2 --pty bash
]
REFUSED = {
    "compare": ["--config", "a.yaml", "--out", "out"],
    "finetune": ["--ckpt", "a.ckpt", "--data", "ssl_ebm.data.FontDigits", "--out", "out"],
    "probe": ["--ckpt", "a.ckpt", "--data", "ssl_ebm.data.FontDigits", "--out", "out"],
    "representations": ["--out", "out"],
    "lecture": ["--out", "out"],
    "benchmark": ["--out", "out"],
    "shard": [".", "out"],
    "sample": ["--ckpt", "a.ckpt", "--input", "a.mp4", "--out", "out.gif"],
    "inpaint": ["--ckpt", "a.ckpt", "--input", "a.png", "--out", "out.png"],
    "export": ["--ckpt", "a.ckpt", "--format", "timm", "--out", "out"],
    "fill": ["--ckpt", "a.ckpt", "a [MASK]"],
    "score": ["--ckpt", "a.ckpt", "a text"],
}


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what a launcher says, and nothing else of its kind."""
    for name in {*TORCHRUN, *SRUN}:
        monkeypatch.delenv(name, raising=False)

    def says(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return says


@pytest.mark.parametrize("variables", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
@pytest.mark.parametrize("command", REFUSED)
def test_a_command_for_one_process_refuses_to_be_one_of_several(
    command: str,
    variables: dict[str, str],
    launcher: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    launcher(variables)
    assert main([command, *REFUSED[command]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"ssl-ebm: error: {command} is for one process, and torchrun or srun has started 2:"
    )
    assert list(tmp_path.iterdir()) == []


def test_each_command_is_for_one_process_or_several() -> None:
    (every,) = [one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction)]
    assert set(every.choices) == {*REFUSED, *TRAINER_COMMANDS}


@pytest.mark.parametrize("variables", ALONE)
def test_one_process_is_one(variables: dict[str, str], launcher: Any) -> None:
    launcher(variables)
    assert processes_launched() == 1


def test_a_training_that_a_command_starts_is_none_of_a_launchers(
    launcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at the same time would meet at one port. The rest of the environment is theirs, too."""
    launcher(TORCHRUN | SRUN | {"WORLD_SIZE": "1", "SLURM_NTASKS": "1", "MY_OWN": "kept"})
    started: list[dict[str, str]] = []
    monkeypatch.setattr(training.subprocess, "Popen", lambda *_, env, **__: started.append(env))
    entry: Any = SimpleNamespace(name="a", steps=3, settings={}, path=Path("a.yaml"), overrides=())
    training.Training(entry, 0, tmp_path).start(threads=1, gpu=None)
    (environment,) = started
    assert environment["MY_OWN"] == "kept"
    assert environment["SLURM_JOB_ID"] == "7"
    assert {*TORCHRUN, *SRUN} & {*environment, *environment_of_one()} == {"SLURM_JOB_ID"}
