"""Files from strangers run no code: configs, and checkpoints."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from ssl_ebm.cli import main
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.trust import VARIABLE, check_configs, names_foreign_code
from ssl_ebm.tasks.checkpoints import read_checkpoint

EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Callback:\n    pass\n"
PLACES = {
    "as a callback": "trainer: {callbacks: [{class_path: stranger.Callback}]}",
    "as the model": "model: {class_path: stranger.Callback}",
    "by its name alone": "data: stranger.Callback",
    "for a callable": "trainer: {logger: {class_path: ssl_ebm.x.Y, init_args: {call: stranger.Callback}}}",
    "in another file": "model: inner.txt",
    "in a text that is read once more": "data: '{class_path: stranger.Callback}'",
    "in a list of lines": "trainer: {callbacks: lines.txt}",
    "in a file by its address": "data: file://FOLDER/inner.yaml",
    "in a file of a nested class": (
        "data: {class_path: ssl_ebm.data.LabelledShare, init_args: {data: inner.yaml}}"
    ),
    "beside a date that is none": "data: {class_path: stranger.Callback, dict_kwargs: {x: 2020-13-45}}",
    "beside a date that is none, inside": "data: undated.yaml",
}
LONG = b"#" * 1_000_001
NESTED = b"dict_kwargs: {x: " + b"[" * 60 + b"]" * 60 + b"}"
FORMS = {
    "attached": ["-cconfig.yaml"],
    "attached, behind an argument": ["--seed_everything", "-cconfig.yaml"],
    "a callback": ["--trainer.callbacks", "inner.yaml"],
    "a callback more": ["--trainer.callbacks+=inner.txt"],
    "a logger": ["--trainer.logger", "inner.txt"],
    "callbacks in a list": ["--trainer.callbacks", "[inner.txt]"],
    "data inside of data": ["--data=ssl_ebm.data.LabelledShare", "--data.data", "inner.txt"],
    "by its address": ["--config", "file://FOLDER/config.yaml"],
    "settings that name it": ["--config", "{data: inner.txt}"],
}


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with a module that leaves a trace when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / "stranger.py").write_text(EVIL)
    for name in ("inner.txt", "inner.yaml"):
        (tmp_path / name).write_text("class_path: stranger.Callback\n")
    (tmp_path / "undated.yaml").write_text("class_path: stranger.Callback\ndict_kwargs: {x: 2020-13-45}\n")
    (tmp_path / "lines.txt").write_text("lightning.pytorch.callbacks.Timer\nstranger.Callback\n")
    yield tmp_path
    sys.modules.pop("stranger", None)


@pytest.mark.parametrize("place", PLACES)
def test_a_config_imports_no_module_of_a_stranger(
    place: str, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stranger / "config.yaml").write_text(PLACES[place].replace("FOLDER", str(stranger)) + "\n")
    assert main(["fit", "--config", "config.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "names stranger.Callback" in line
    assert "--trust_config" in line
    assert not Path("ran").exists()
    assert main(["fit", "--config", "config.yaml", "--trust_config"]) == 2  # for it is no task
    assert Path("ran").exists() == ("callable" not in place)  # the trace is one that would have been seen


@pytest.mark.parametrize("form", FORMS)
def test_a_file_imports_no_module_of_a_stranger_in_whatever_form_it_is_given(
    form: str, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stranger / "config.yaml").write_text("data: stranger.Callback\n")
    words = [word.replace("FOLDER", str(stranger)) for word in FORMS[form]]
    assert main(["fit", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "names stranger.Callback" in line
    assert not Path("ran").exists()
    main(["fit", *words, "--trust_config"])
    assert Path("ran").exists() or "behind" in form


@pytest.mark.parametrize("content", [LONG, NESTED], ids=["long", "nested"])
@pytest.mark.parametrize("name", ["inner.yaml", "inner.txt"])
@pytest.mark.parametrize(
    "config", ["data: NAME", "data: {class_path: ssl_ebm.data.LabelledShare, init_args: {data: NAME}}"]
)
def test_a_file_that_is_not_checked_is_not_read(
    content: bytes, name: str, config: str, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stranger / "config.yaml").write_text(config.replace("NAME", name))
    (stranger / name).write_bytes(b"class_path: stranger.Callback\n" + content)
    assert main(["fit", "--config", "config.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line
    assert "--trust_config" in line
    assert not Path("ran").exists()
    main(["fit", "--config", "config.yaml", "--trust_config"])
    assert Path("ran").exists()


def test_the_parser_opens_no_addresses(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trusted or not: what is behind one can be another thing for whoever checks it."""
    fsspec.filesystem("memory").pipe("/inner.yaml", b"class_path: stranger.Callback\n")
    (stranger / "config.yaml").write_text("data: memory://inner.yaml\n")
    for words in (["config.yaml"], ["memory://inner.yaml"], ["config.yaml", "--trust_config"]):
        assert main(["fit", "--config", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "memory://inner.yaml" in line
    assert not Path("ran").exists()


def test_a_config_that_can_be_read_once_is_not_read(
    stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe.yaml")
    for name in ("pipe.yaml", "-"):
        assert main(["fit", "--config", name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "to a file, and give that" in line


def test_an_argument_of_the_class_that_is_chosen_in_the_end(stranger: Path) -> None:
    """A file names a class that takes text there, and the command line one that takes an object."""
    Path("config.yaml").write_text("data: {class_path: ssl_ebm.data.Text, init_args: {data: inner.txt}}\n")
    for words in (["--data", "ssl_ebm.data.LabelledShare"], ["--data.class_path=ssl_ebm.data.LabelledShare"]):
        with pytest.raises(UserError, match="stranger"):
            check_configs(["--config", "config.yaml", *words])


def test_a_link_to_a_config_is_read_from_where_it_stands(stranger: Path) -> None:
    (stranger / "links").mkdir()
    (stranger / "config.yaml").write_text("data: beside.yaml\n")
    (stranger / "links" / "beside.yaml").write_text("class_path: stranger.Callback\n")
    (stranger / "links" / "config.yaml").symlink_to(stranger / "config.yaml")
    assert main(["fit", "--config", "links/config.yaml"]) == 2
    assert not Path("ran").exists()


def test_an_abbreviated_argument_is_none(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--dat", "inner.yaml"], ["--conf=inner.yaml"], ["--mod", "inner.yaml"]):
        assert main(["fit", *words]) == 2
        assert words[0].partition("=")[0] in capsys.readouterr().err
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["reviews.csv", "corpus.txt", "photo.png", "tokenizer.json", "big.txt"])
def test_data_are_no_settings(name: str, stranger: Path) -> None:
    """Neither where a file names them nor on the command line, whatever they hold."""
    content = {"photo.png": b"\x89PNG\xff", "big.txt": b"os.path\n" * 200_000}
    (stranger / name).write_bytes(content.get(name, b"os.path\n{stranger.Callback: [\n"))
    config = "data: {class_path: ssl_ebm.data.Text, init_args: {path: NAME, tokenizer: NAME}}\nrun_dir: NAME"
    (stranger / "config.yaml").write_text(config.replace("NAME", name))
    (stranger / "part.yaml").write_text(f"data: {{init_args: {{path: {name}}}}}")
    inside = f'{{"class_path": "ssl_ebm.data.Text", "init_args": {{"path": "{name}"}}}}'
    for words in (
        ["--config", "config.yaml", "--data.tokenizer", name],
        ["--config", "part.yaml", "--data", "ssl_ebm.data.Text"],
        ["--data", "ssl_ebm.data.LabelledShare", "--data.data", inside],
        ["--data", "ssl_ebm.data.Text", f"--data.init_args.path={name}", "--start_from", name],
    ):
        assert check_configs(words) == words


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
    for text in (
        "ssl_ebm.tasks.MaskedText", "torch.nn.SiLU", "torchmetrics.Metric", "torch.nn.functional.gelu",
        "torch.optim.AdamW", "torch.optim.lr_scheduler.LinearLR", "lightning.pytorch.callbacks.Timer",
        "torch.nn.Embedding.from_pretrained", "ssl_ebm.no_such_module.X", "ssl_ebm.tasks.NoSuchTask",
    ):  # fmt: skip
        assert not names_foreign_code(text)
    for text in (
        "ssl_ebm.evaluation.lock.os.system", "ssl_ebm.report.training.subprocess.Popen",
        "ssl_ebm.evaluation.lock.os", "ssl_ebm.tasks.checkpoints.torch.hub.load",
        "torch.nn.modules.module.torch.hub", "lightning.pytorch.cli.os.system",
    ):  # fmt: skip
        assert names_foreign_code(text), text
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


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.parametrize(
    "settings",
    [
        {"_class_path": "stranger.Callback"},
        {"network": "{class_path: stranger.Callback}"},
        {"network": "inner.txt"},
    ],
    ids=["by its name", "in a text that is read once more", "in a file beside it"],
)
def test_settings_of_a_checkpoint_import_no_module_of_a_stranger(
    settings: dict[str, str],
    command: str,
    stranger: Path,
    repository: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lightning makes the class that they name."""
    content = {"task": "FramePrediction", "state_dict": {}, "hyper_parameters": settings}
    torch.save(content, stranger / "some.ckpt")
    config = repository / "configs" / "frame_prediction" / "quickstart_latent_ebm.yaml"
    assert main([command, "--config", str(config), "--ckpt_path", str(stranger / "some.ckpt")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"(some.ckpt|inner.txt) names stranger.Callback", line)
    assert not Path("ran").exists()
