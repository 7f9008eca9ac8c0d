"""Files from strangers run no code: configs, and checkpoints."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_ebm.cli import main
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.trust import VARIABLE, check_configs, names_foreign_code
from ssl_ebm.tasks.checkpoints import read_checkpoint

EVIL = "from pathlib import Path\nPath('ran').touch()\nclass Callback:\n    pass\n"
PLACES = {
    "as a callback": "trainer: {callbacks: [{class_path: stranger.Callback}]}",
    "as the model": "model: {class_path: stranger.Callback}",
    "by its name alone": "data: stranger.Callback",
    "for a callable": "trainer: {logger: {class_path: ssl_ebm.x.Y, init_args: {call: stranger.Callback}}}",
    "in another file": "model: inner.txt",
}


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a module that leaves a trace when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    (tmp_path / "stranger.py").write_text(EVIL)
    (tmp_path / "inner.txt").write_text("class_path: stranger.Callback\n")
    return tmp_path


@pytest.mark.parametrize("place", PLACES)
def test_a_config_imports_no_module_of_a_stranger(
    place: str, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stranger / "config.yaml").write_text(PLACES[place] + "\n")
    assert main(["fit", "--config", "config.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "names stranger.Callback" in line
    assert "--trust_config" in line
    assert not Path("ran").exists()
    assert main(["fit", "--config", "config.yaml", "--trust_config"]) == 2  # for it is no task
    assert Path("ran").exists() == ("callable" not in place)  # the trace is one that would have been seen


def test_the_command_line_and_the_environment_are_the_users_own(
    stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stranger / "config.yaml").write_text(PLACES["as the model"] + "\n")
    words = ["--model", "stranger.Callback"]
    assert check_configs(words) == words
    assert check_configs(["--trust_config", "--config", "config.yaml"]) == ["--config", "config.yaml"]
    monkeypatch.setenv(VARIABLE, "1")
    assert check_configs(["--config", "config.yaml"]) == ["--config", "config.yaml"]
    monkeypatch.setenv(VARIABLE, "0")
    for name, file in (("--config", "config.yaml"), ("-c", "config.yaml"), ("--model", "inner.txt")):
        with pytest.raises(UserError, match="stranger"):
            check_configs([name, file])
        with pytest.raises(UserError, match="stranger"):
            check_configs([f"{name}={file}"])


def test_file_names_and_trusted_classes_pass(stranger: Path) -> None:
    for text in ("ssl_ebm.tasks.MaskedText", "torch.nn.SiLU", "torchmetrics.Metric"):
        assert not names_foreign_code(text)
    for text in ("photos.v2", "clip.mp4", "0.5", "a b.c", "words", "no_such_module.X"):
        assert not names_foreign_code(text)
    for text in ("os.system", "subprocess.Popen", "torch.hub.load", "stranger.Callback", "torch.nnx"):
        assert names_foreign_code(text)


class _Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_a_checkpoint_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "task": "MaskedText", "evil": _Evil()}, "evil.ckpt")
    Path("evil.png").touch()
    for command in (
        ["fill", "--ckpt", "evil.ckpt", "a [MASK]"],
        ["inpaint", "--ckpt", "evil.ckpt", "--input", "evil.png", "--out", "out.png"],
        ["export", "--ckpt", "evil.ckpt", "--format", "safetensors", "--out", "out.safetensors"],
        ["fit", "--data", "ssl_ebm.data.MovingDigits", "--ckpt_path", "evil.ckpt"],
    ):
        assert main(command) == 2
        assert "evil.ckpt is no checkpoint" in capsys.readouterr().err
    with pytest.raises(UserError):
        read_checkpoint("evil.ckpt")
    assert not Path("ran").exists()
    torch.load("evil.ckpt", weights_only=False)
    assert Path("ran").exists()  # it is malicious indeed
