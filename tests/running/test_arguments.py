"""Settings of a part of an object that a YAML file describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssl_ebm.cli import main
from ssl_ebm.errors import UserError
from ssl_ebm.running.arguments import merge_parts, names_a_task, read_arguments
from ssl_ebm.running.runs import Run

CONFIG = """\
model:
  class_path: ssl_ebm.tasks.DensityEstimation
  init_args:
    energy: {class_path: ssl_ebm.networks.PointEnergy, init_args: {width: 8, confine: 0.1}}
    objective:
      class_path: ssl_ebm.energy.objectives.ContrastiveDivergence
      init_args:
        steps: 2
        sampler: {class_path: ssl_ebm.energy.sampling.Langevin, init_args: {step_size: 0.1}}
    lr: 0.01
data: {class_path: ssl_ebm.data.PlanePoints}
trainer: {max_steps: 2, logger: false}
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "points.yaml"
    path.write_text(CONFIG)
    return str(path)


def settings(config: str, *arguments: str) -> dict[str, Any]:
    run = Run("fit", ["--config", config, *arguments])
    return dict(run.model.hparams)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.energy.width", "16"],
        ["--model.energy.init_args.width=16"],
        ["--model.init_args.energy.width", "16"],
    ],
)
def test_one_argument_changes_and_the_others_stay(config: str, arguments: list[str]) -> None:
    found = settings(config, *arguments, "--model.lr", "0.5", "--model.objective.sampler.step_size=0.3")
    assert found["energy"]["init_args"] == {"width": 16, "confine": 0.1}
    assert found["objective"]["init_args"]["sampler"]["init_args"]["step_size"] == 0.3
    assert found["objective"]["init_args"]["steps"] == 2
    assert found["lr"] == 0.5


def test_another_class_starts_from_no_arguments(config: str) -> None:
    path = "ssl_ebm.energy.sampling.Mala"
    arguments = ["--model.objective.sampler.class_path", path, "--model.objective.sampler.step_size", "0.2"]
    sampler = settings(config, *arguments)["objective"]["init_args"]["sampler"]
    assert sampler["class_path"] == path
    assert sampler["init_args"]["step_size"] == 0.2
    assert "max_gradient" not in sampler["init_args"]


def test_what_is_no_part_of_a_description_stays_as_it_was_written(config: str) -> None:
    words = [
        "--config",
        config,
        "--model.lr=1",
        "--model.energy",
        "x.Y",
        "--trainer.max_steps",
        "-1",
        "--flag",
    ]
    assert merge_parts(words) == words
    assert merge_parts(["--model.energy.width", "3"]) == ["--model.energy.width", "3"]


def test_later_files_win_and_lists_of_words_keep_their_order(config: str, tmp_path: Path) -> None:
    second = tmp_path / "second.yaml"
    second.write_text("model: {init_args: {energy: {class_path: a.B, init_args: {width: 3}}}}")
    words = ["--config", config, f"--config={second}", "--model.energy.depth", "1", "--seed_everything", "4"]
    *rest, name, value = merge_parts(words)
    assert rest == ["--config", config, f"--config={second}", "--seed_everything", "4"]
    assert name == "--model.energy"
    assert json.loads(value) == {"class_path": "a.B", "init_args": {"width": 3, "depth": 1}}


def test_a_description_on_the_command_line_replaces_the_files(config: str) -> None:
    whole = '{"class_path": "x.Y", "init_args": {"depth": 2}}'
    words = ["--config", config, "--model.energy", whole, "--model.energy.width", "3"]
    *_, value = merge_parts(words)
    assert json.loads(value) == {"class_path": "x.Y", "init_args": {"depth": 2, "width": 3}}


@pytest.mark.parametrize("text", ["model: {class_path: a.B, init_args: }", "model: 3", "[1", "\x00\xff\xfe"])
def test_a_file_that_describes_nothing_is_left_to_the_parser(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(text.encode("latin-1"))
    words = ["--config", str(path), "--model.energy.width", "3"]
    assert merge_parts(words) == words


def test_a_value_that_is_no_yaml(config: str) -> None:
    with pytest.raises(UserError, match=r"--model.energy.width \[1 is no YAML"):
        merge_parts(["--config", config, "--model.energy.width", "[1"])
    [*_, value] = merge_parts(["--config", config, "--model.energy.width", "2020-01-01"])
    assert "2020-01-01" in value
    [*_, value] = merge_parts(["--config", config, "--model.energy.width", "2020-13-45"])
    assert "2020-13-45" in value


def test_a_config_may_be_attached_to_its_letter(config: str) -> None:
    for words in ([f"-c{config}"], [f"-c={config}"], ["-c", config], ["--flag", f"-c{config}"]):
        last = list(read_arguments(words))[-1]
        assert (last.name, last.value) == ("-c", config)
    assert names_a_task([f"-c{config}"])
    *rest, name, _ = merge_parts([f"-c{config}", "--model.energy.width", "16"])
    assert rest == [f"-c{config}"]
    assert name == "--model.energy"


def test_a_file_or_an_argument_names_the_task(config: str, tmp_path: Path) -> None:
    assert names_a_task(["--config", config])
    assert names_a_task(["-c", config])
    assert names_a_task(["--model=ssl_ebm.tasks.DensityEstimation"])
    assert not names_a_task(["--model.lr", "1", "--config", str(tmp_path / "missing.yaml")])


def test_an_unknown_argument_of_a_part_is_named(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", config, "--model.energy.widht", "3"]) == 2
    assert "widht" in capsys.readouterr().err


def test_ones_own_energy(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A class of the user's own module, where Python finds it; else the line says what to do."""
    (tmp_path / "ones_own_energy.py").write_text(
        "from ssl_ebm.networks import PointEnergy\nclass Mine(PointEnergy):\n    pass\n"
    )
    arguments = ["--config", config, "--model.energy.class_path", "ones_own_energy.Mine"]
    arguments += ["--run_dir", str(tmp_path / "run")]
    assert main(["fit", *arguments]) == 2
    assert "No module named 'ones_own_energy': install it, or set PYTHONPATH" in capsys.readouterr().err
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["fit", *arguments]) == 0


def test_what_the_command_line_gives_prevails_over_a_checkpoint(config: str, tmp_path: Path) -> None:
    """Which prevails over a config file."""
    run = ["--run_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
    assert main(["fit", "--config", config, *run, "--trainer.max_steps", "1", "--model.lr", "0.02"]) == 0
    Path(config).write_text(CONFIG.replace("steps: 2", "steps: 9").replace("0.01", "0.04"))
    words = ["--config", config, *run, "--ckpt_path", "last"]

    def found(*given: str) -> tuple[float, int, float, float]:
        made = Run("test", [*words, *given]).model.hparams
        inner = made["objective"]["init_args"]
        return made["lr"], inner["steps"], inner["sampler"]["init_args"]["step_size"], made["weight_decay"]

    kept = found()
    assert kept[:3] == (0.02, 2, 0.1)
    assert found("--model.lr", "0.5") == (0.5, *kept[1:])
    assert found("--model.objective.sampler.step_size", "0.3") == (0.02, 2, 0.3, kept[3])
    assert found("--model.init_args.weight_decay=0.25") == (*kept[:3], 0.25)


def test_other_settings_than_the_weights_go_with_are_said(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--config", config, "--run_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"]
    assert main(["fit", *run, "--trainer.max_steps", "1"]) == 0
    assert main(["test", *run, "--ckpt_path", "last", "--model.energy.width", "16"]) == 2
    assert "last.ckpt was written with other settings of the model: use those" in capsys.readouterr().err
