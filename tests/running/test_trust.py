"""Files from strangers run no code: configs, and checkpoints."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from ssl_ebm.cli import commands, main
from ssl_ebm.errors import UserError
from ssl_ebm.report import finetuning
from ssl_ebm.running.runs import Run
from ssl_ebm.running.trust import VARIABLE, check_configs
from ssl_ebm.tasks.checkpoints import read_checkpoint
from ssl_ebm.tasks.naming import ForeignNameError, of_a_checkpoint

EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass Callback:\n    pass\n"
PLACES = {
    "as a callback": "trainer: {callbacks: [{class_path: stranger.Callback}]}",
    "as the model": "model: {class_path: stranger.Callback}",
    "by its name alone": "data: stranger.Callback",
    "for a callable": (
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.LambdaCallback, "
        "init_args: {setup: stranger.Callback}}]}"
    ),
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
    assert Path("ran").exists()  # the trace is one that would have been seen


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
        assert check_configs(words).arguments == words


def test_the_command_line_and_the_environment_are_the_users_own(
    stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stranger / "config.yaml").write_text(PLACES["as the model"] + "\n")
    words, words_of_file = ["--model", "stranger.Callback"], ["--config", "config.yaml"]
    assert check_configs(words).arguments == words
    assert check_configs(["--trust_config", "--config", "config.yaml"])[:2] == (words_of_file, None)
    monkeypatch.setenv(VARIABLE, "1")
    assert check_configs(words_of_file)[:2] == (words_of_file, None)
    monkeypatch.setenv(VARIABLE, "0")
    for name, file in (("--config", "config.yaml"), ("-c", "config.yaml"), ("--model", "inner.txt")):
        with pytest.raises(UserError, match="stranger"):
            check_configs([name, file])
        with pytest.raises(UserError, match="stranger"):
            check_configs([f"{name}={file}"])


COMMAND = {"class_path": "ssl_ebm.cli.main", "init_args": {"arguments": ["fit", "--model=stranger.Callback"]}}
PICKLE = {"path_or_url": "evil.pt", "weights_only": False}
HOSTILE = {  # what could be called from a config, as a callback's function
    "a command": COMMAND,
    "a pickle": {"class_path": "lightning.fabric.utilities.cloud_io._load", "init_args": PICKLE},
    "a class by another name": {
        "class_path": "lightning.pytorch.cli.instantiate_class",
        "init_args": {"args": [], "init": {"class_path": "stranger.Callback-x"}},
    },
    "without a dot": {"class_path": "stranger-x.Callback"},
}


@pytest.mark.parametrize("payload", HOSTILE)
def test_a_config_calls_no_function(payload: str, stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trusted packages have some that run whatever they are given."""
    torch.save(_Evil(), "evil.pt")
    hook = {
        "class_path": "lightning.pytorch.callbacks.LambdaCallback",
        "init_args": {"setup": HOSTILE[payload]},
    }
    Path("config.yaml").write_text(json.dumps({"trainer": {"callbacks": [hook]}}))
    for command in (["fit"], ["compare", "--out", "out"]):
        assert main([*command, "--config", "config.yaml"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "config.yaml names" in line
        assert "--trust_config" in line
        assert not Path("ran").exists()


@pytest.mark.parametrize(
    "logger",
    [
        "{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: 'memory://here'}}",
        "{class_path: lightning.pytorch.loggers.CSVLogger, init_args: {save_dir: 'simplecache::memory://here'}}",
        "{class_path: lightning.pytorch.loggers.MLFlowLogger, init_args: {tracking_uri: x}}",
    ],
)
def test_a_config_sends_nothing_to_an_address(
    logger: str, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("config.yaml").write_text(f"trainer: {{logger: {logger}}}\n")
    assert main(["fit", "--config", "config.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.yaml names" in line


def _layer(activation: Any) -> dict[str, Any]:
    arguments = {"d_model": 8, "nhead": 2, "activation": activation}
    return {"class_path": "torch.nn.TransformerEncoderLayer", "init_args": arguments}


def _loading(function: str) -> dict[str, Any]:
    return {"class_path": function, "init_args": {"f": "evil.pt", "weights_only": False}}


@pytest.mark.parametrize(
    "energy",
    [
        _layer(COMMAND),
        _layer(_loading("torch.load")),
        {
            "class_path": "torch.nn.Linear",
            "init_args": {"in_features": 2, "out_features": 2, "device": COMMAND},
        },
        {
            "class_path": "torch.nn.Linear",
            "init_args": {"in_features": 2, "out_features": 2, "device": _loading("torch.load")},
        },
        _layer({"class_path": "ssl_ebm.files.write_whole", "init_args": {"path": "ran", "text": ""}}),
        _layer({"class_path": "torch.hub.load_state_dict_from_url", "init_args": {"url": "file:evil.pt"}}),
    ],
)
def test_settings_of_a_checkpoint_call_no_function(
    energy: dict[str, Any], stranger: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(_Evil(), "evil.pt")
    task = "DensityEstimation"
    settings = {"energy": energy, "objective": {}}
    torch.save({"task": task, "state_dict": {}, "hyper_parameters": settings}, "some.ckpt")
    config = repository / "configs" / "density" / "moons_persistent.yaml"
    before = {path.name for path in Path().iterdir()}
    for command in (
        ["export", "--ckpt", "some.ckpt", "--format", "safetensors", "--out", "out.safetensors"],
        ["validate", "--config", str(config), "--ckpt_path", "some.ckpt"],
    ):
        assert main(command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "some.ckpt" in line
        assert not Path("ran").exists()
        assert {path.name for path in Path().iterdir()} == before


TOY = ["--model", "toy_task.ToyTask", "--data", "toy_task.ToyData"]


def test_own_classes_on_the_command_line_need_no_trust(
    stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor do their checkpoints; a config that names them does, as it could be anybody's."""
    quick = ["--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--run_dir", "run"]
    assert main(["fit", *TOY, *quick]) == 0
    for command in ("validate", "test", "predict"):
        assert main([command, *TOY, "--run_dir", "run", "--ckpt_path", "last"]) == 0
    capsys.readouterr()
    assert main(["fit", "--config", "run/config.yaml", "--run_dir", "again"]) == 2
    assert "--trust_config" in capsys.readouterr().err
    for flag in ("--trust_config", "--trust-config"):
        assert main(["fit", "--config", "run/config.yaml", "--run_dir", "again", flag]) == 0


@pytest.mark.parametrize("flag", ["--trust_config", "--trust-config"])
def test_both_spellings_trust_in_every_command(
    flag: str, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command is called where names are not judged; without the flag they are."""
    ckpt, out = ["--ckpt", "a.ckpt"], ["--out", "out.png"]
    every = {
        "compare": ["--config", "a.yaml", *out],
        "sample": [*ckpt, "--input", "a.mp4", *out],
        "inpaint": [*ckpt, "--input", "a.png", *out],
        "fill": [*ckpt, "a [MASK]"],
        "score": [*ckpt, "a text"],
        "export": [*ckpt, "--format", "timm", *out],
        "probe": [*ckpt, "--data", "data.yaml", *out],
        "finetune": [*ckpt, "--data", "data.yaml", *out],
    }
    for name, words in every.items():
        seen: list[bool] = []
        monkeypatch.setattr(commands, name, lambda _, seen=seen: seen.append(names_are_judged()))
        assert main([name, *words]) == 0, name
        assert main([name, *words, flag]) == 0, name
        assert seen == [True, False], name


def names_are_judged() -> bool:
    """Whether a checkpoint may not name what it likes."""
    try:
        of_a_checkpoint("subprocess.Popen", is_class=True)
    except ForeignNameError:
        return True
    return False


def test_a_class_that_is_not_there_is_said(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for data in ("no_such_module.Data", "{class_path: no_such_module.Data}"):
        Path("config.yaml").write_text(f"data: {data}\n")
        assert main(["fit", "--config", "config.yaml"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search("no_such_module.Data(: no module named 'no_such_module'| is not there)", line)


def test_words_in_a_file_bar_nothing_that_the_user_names(stranger: Path) -> None:
    """Not even where they are names of classes, and in a process that has loaded them."""
    import toy_task

    assert toy_task.ToyTask
    Path("config.yaml").write_text("run_dir: ToyTask\ntrainer: {max_steps: 1, accelerator: cpu}\n")
    assert main(["fit", "--config", "config.yaml", *TOY]) == 0
    Path("config.yaml").write_text("trainer: {max_steps: 1, accelerator: cpu, profiler: ToyTask}\n")
    checked = check_configs(["--config", "config.yaml", *TOY])
    assert checked.barred is not None
    assert "toy_task.ToyTask" not in checked.barred
    assert "toy_task.ToyTask" in (check_configs(["--config", "config.yaml"]).barred or ())


def test_words_of_a_file_that_finetune_hands_on_are_not_the_users_own(stranger: Path) -> None:
    """A class that comes to be there after the check; one that is loaded, which a checkpoint names, too."""
    (stranger / "stranger.py").rename("later.py")
    Path("data.yaml").write_text(
        "class_path: ssl_ebm.data.ImageFolder\n"
        "init_args: {folder: x, classes: [stranger.Callback, MeanSquaredError]}\n"
    )
    described, checked = finetuning._described("data.yaml", ["--data.size", "8"])
    assert described["init_args"]["folder"] == "x"
    assert checked.barred is not None
    assert "stranger.Callback" in checked.barred
    assert not {"stranger.Callback", "MeanSquaredError"} & checked.own
    named = finetuning._described("data.yaml", ["--data.folder", "stranger.Callback"])[1]
    assert named.barred is not None
    assert "stranger.Callback" in named.own - named.barred
    assert finetuning._described("data.yaml", ["--trust_config"])[1].barred is None
    Path("later.py").rename("stranger.py")
    word = json.dumps({"class_path": "stranger.Callback"})
    with pytest.raises(argparse.ArgumentError, match=r"stranger\.Callback is not there"):
        Run("fit", checked._replace(arguments=["--data", word]))
    assert not Path("ran").exists()
    with pytest.raises(argparse.ArgumentError):  # for it is no data
        Run("fit", ["--data", word])
    assert Path("ran").exists()


FORGED = "[ class_path 'stranger.Callback': Option 'b' is not accepted"


@pytest.mark.parametrize(
    "config",
    [
        f'trainer: {{max_steps: "{FORGED}"}}',
        f'trainer: {{"{FORGED}": 1}}',
        f'model: {{class_path: ssl_ebm.tasks.Inpainting, init_args: {{lr: "{FORGED}"}}}}',
        f'model: {{class_path: ssl_ebm.tasks.Inpainting, init_args: {{"{FORGED}": 1}}}}',
        "model: {class_path: ssl_ebm.tasks.Inpainting, init_args: {network: {class_path: "
        f'ssl_ebm.networks.patch_completion.PatchCompletion, init_args: {{width: "{FORGED}"}}}}}}}}',
    ],
    ids=["a number", "a key", "an argument", "a name", "a part"],
)
def test_a_forged_message_imports_nothing(config: str, stranger: Path) -> None:
    Path("config.yaml").write_text(config + "\n")
    assert main(["fit", "--config", "config.yaml"]) == 2
    assert not Path("ran").exists()
    assert "stranger" not in sys.modules


def test_data_named_like_a_module_import_nothing(stranger: Path) -> None:
    Path("stranger.csv").write_text("a,b\n")
    Path("config.yaml").write_text("data: {class_path: ssl_ebm.data.Text, init_args: {path: stranger.csv}}\n")
    check_configs(["--config", "config.yaml"])
    assert main(["fit", *TOY, "--data.length", "4", "--start_from", "stranger.csv"]) == 2
    check_configs(["--data", "toy_task.ToyData", "--data.path", "stranger.csv"])
    assert not Path("ran").exists()


def test_the_address_of_a_schema_is_for_editors(stranger: Path) -> None:
    Path("config.yaml").write_text('"$schema": https://json.schemastore.org/x\nrun_dir: x\n')
    assert check_configs(["--config", "config.yaml"]).arguments == ["--config", "config.yaml"]


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
