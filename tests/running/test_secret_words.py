"""Secrets among the settings: in no file of a run."""

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ssl_ebm.cli import main
from ssl_ebm.errors import UserError
from ssl_ebm.report.data_arguments import make_data
from ssl_ebm.running.runs import Run
from ssl_ebm.running.secret_words import command_without_secrets
from ssl_ebm.tasks.secret_settings import without_secrets

SECRET = "s3cr3t-0123/456+789="
TOY = ["--model", "toy_task.ToyTask", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]


@pytest.mark.parametrize(
    "words",
    [
        ["--trainer.logger.init_args.api_key", SECRET],
        [f"--data.password={SECRET}"],
        ["--data.hf_token", SECRET],
        ["--TOKEN", SECRET],
        ["--data", f'{{"class_path": "a.B", "init_args": {{"access_key": "{SECRET}", "width": 3}}}}'],
        ["--data", f"{{class_path: a.B, init_args: {{width: 3, client_secret: {SECRET}}}}}"],
        ["--data.path", f"https://somewhere.org/data?token={SECRET}"],
    ],
)
def test_a_secret_of_a_command_is_hidden(words: list[str]) -> None:
    (hidden,) = {command_without_secrets(["fit", *words, "--seed", "3"])[-3].replace("HIDDEN", SECRET)}
    assert yaml.safe_load(hidden) == yaml.safe_load(words[-1])  # a mapping in YAML is one in JSON
    assert SECRET not in " ".join(command_without_secrets(["fit", *words, "--seed", "3"]))


def test_other_settings_are_left_as_they_are() -> None:
    """Texts have tokens, too; tables have keys."""
    words = [
        "--model.mask_token",
        "[MASK]",
        "--data.unit",
        "token",
        "--data.key",
        "image",
        "--model.tokens=9",
    ]
    words += [
        "--data.tokenizer",
        "words.json",
        "--trainer.logger.api_key",
        "--seed",
        "3",
        "{tokenizer: a.json}",
    ]
    assert command_without_secrets(words) == words
    for word in ("password: null", "{masking: {unit: token}}", "special_tokens: [a, b]", "keyword: a"):
        assert command_without_secrets(["--data", word]) == ["--data", word]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--data.password", "correct horse, {battery}: it's"], ["--data.password", "HIDDEN"]),
        (["--data.password=correct horse"], ["--data.password=HIDDEN"]),
        (["--data.hub-token", "it's"], ["--data.hub-token", "HIDDEN"]),
        (["--data.credentials.key", "k-123"], ["--data.credentials.key", "HIDDEN"]),
        (["-c{a: {password: b c}}"], ['-c{"a": {"password": "HIDDEN"}}']),
        (["--data", "credentials: {a: [b, c]}"], ["--data", '{"credentials": {"a": ["HIDDEN", "HIDDEN"]}}']),
        (["--data", "'{passwd: b c}'"], ["--data", '{"passwd": "HIDDEN"}']),
        (["--data", "[{secret: 12}, {a: 'it'}]"], ["--data", '[{"secret": "HIDDEN"}, {"a": "it"}]']),
        (["--data", "{password: 'a\\', name: 'b'}"], ["--data", '{"password": "HIDDEN", "name": "b"}']),
        (["--data.path", "https://a.org/b?c=d&token=e&f=g"], ["--data.path", "https://a.org/b?c=d&token=HIDDEN&f=g"]),
        (["--run_dir", "runs/token=8/seed=1"], None),
        (["--data.token", "true", "--data.password", "", "--data.secret=null"], None),
        (["--config", "run/config.yaml", "--text", "the secret: none"], None),
    ],
)  # fmt: skip
def test_a_command_shows_all_but_the_secret(words: list[str], shown: list[str] | None) -> None:
    assert command_without_secrets(words) == (shown or words)


def test_secrets_are_found_by_the_names_that_they_lie_below() -> None:
    settings: dict[str, Any] = {
        "run_dir": "runs/token=8/seed=1",
        "password": "",
        "api_key": None,
        "token": True,
        "model": {"token": 8, "unit": "token", "tokens": ["a"], "mask_token": "[MASK]"},
        "data": {
            "class_path": "a.B",
            "init_args": {
                "password": "correct horse, {battery}: 'it",
                "credentials": {"class_path": "a.C", "init_args": {"user": "me", "key": "k-123", "port": 7}},
                "servers": [{"name": "one", "token": "a\\"}, {"name": "two", "passwd": 5}],
            },
        },
    }
    shown, hidden = without_secrets(settings)
    expected = copy.deepcopy(settings)
    arguments = expected["data"]["init_args"]
    arguments["password"] = "HIDDEN"
    arguments["credentials"]["init_args"] = dict.fromkeys(("user", "key", "port"), "HIDDEN")
    arguments["servers"] = [{"name": "one", "token": "HIDDEN"}, {"name": "two", "passwd": "HIDDEN"}]
    assert shown == expected
    assert hidden == ["data.password", "data.credentials", "data.servers.token", "data.servers.passwd"]


def test_no_setting_of_a_shipped_config_is_taken_for_a_secret(repository: Path) -> None:
    configs = list((repository / "configs").rglob("*.yaml"))
    assert len(configs) > 10
    assert [path for path in configs if without_secrets(yaml.safe_load(path.read_text())).hidden] == []


@pytest.mark.usefixtures("own_classes")
def test_a_secret_given_as_a_setting_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = ["--data", "toy_task.PrivateData", "--data.user", "somebody", "--data.api_token", SECRET]
    command = ["fit", *TOY, *data, "--run_dir", "run"]
    with pytest.warns(UserWarning, match=r"leave out what looks like a secret.*: api_token \("):
        assert main(command) == 0
    files = [path for path in Path("run").rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    (start,) = json.loads(Path("run/run.json").read_text())
    assert start["command"] == ["ssl-ebm", *(word.replace(SECRET, "HIDDEN") for word in command)]

    # With the secret again, the settings repeat the run.
    again = Run("fit", ["--config", "run/config.yaml", "--data.api_token", SECRET, "--run_dir", "again"])
    assert (again.datamodule.user, again.datamodule.api_token) == ("somebody", SECRET)


@pytest.mark.usefixtures("own_classes")
def test_settings_of_which_a_secret_was_left_out_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They train with no placeholder; all other settings are as they were."""
    monkeypatch.chdir(tmp_path)
    data = {
        "class_path": "toy_task.PrivateData",
        "init_args": {
            "user": "somebody",
            "api_token": "correct horse, {battery}: it's",
            "credentials": {"user": "k-124", "keys": ["k-123"]},
        },
    }
    quiet = ["--trainer.enable_progress_bar", "false"]
    with pytest.warns(UserWarning, match=r"a secret.*: api_token, credentials \("):
        assert main(["fit", *TOY, *quiet, "--data", json.dumps(data), "--run_dir", "run"]) == 0
    for secret in (b"correct", b"battery", b"k-123", b"k-124"):
        assert [
            path for path in Path("run").rglob("*") if path.is_file() and secret in path.read_bytes()
        ] == []
    (start,) = json.loads(Path("run/run.json").read_text())
    assert start["data"]["server"] == {"name": "a", "password": "HIDDEN"}
    capsys.readouterr()
    again = ["fit", "--config", "run/config.yaml", "--run_dir", "again"]
    assert main(again) == 2
    assert capsys.readouterr().err == (
        "ssl-ebm: error: data.api_token is HIDDEN, which stands for what was left out of a file: give it "
        "(--data.api_token VALUE)\n"
    )
    with pytest.raises(UserError, match=r"data\.api_token is HIDDEN"):
        make_data("run/config.yaml", ["--data.width", "4"])
    again += ["--data.api_token", "a"]
    assert main(again) == 2
    assert "data.credentials is HIDDEN" in capsys.readouterr().err
    assert not Path("again").exists()
    run = Run("fit", [*again[1:], "--data.credentials", '{"user": "b", "keys": ["c"]}'])
    assert (run.datamodule.user, run.datamodule.api_token) == ("somebody", "a")
    assert run.datamodule.credentials == {"user": "b", "keys": ["c"]}


@pytest.mark.usefixtures("own_classes")
def test_a_secret_that_a_task_keeps_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the checkpoints of Lightning's own callback neither, nor in what a logger gets."""
    monkeypatch.chdir(tmp_path)
    weights = {"save_weights_only": True, "filename": "weights", "every_n_train_steps": 1}
    callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": weights}
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "run"}}
    model = {"api_key": SECRET, "server": {"name": "a", "password": SECRET}, "width": 3}
    described = {"class_path": "toy_task.PrivateTask", "init_args": model}
    words = ["--model", json.dumps(described), "--data", "toy_task.ToyData", "--data.width", "3"]
    words += ["--trainer.callbacks", json.dumps([callback]), "--trainer.logger", json.dumps(logger)]
    with pytest.warns(UserWarning, match=r"a secret.*: api_key, password \("):
        assert main(["fit", *words, *TOY[2:], "--run_dir", "run"]) == 0
    files = [path for path in Path("run").rglob("*") if path.is_file()]
    assert {"weights.ckpt", "last.ckpt", "hparams.yaml"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in b"".join(contents(path))] == []
    for path in files:
        if path.suffix == ".ckpt":
            kept = torch.load(path, weights_only=True)["hyper_parameters"]
            assert (kept["api_key"], kept["server"]["name"], kept["width"]) == ("HIDDEN", "a", 3)


def contents(path: Path) -> list[bytes]:
    """Of a file, or of all parts of an archive."""
    if path.suffix != ".ckpt":
        return [path.read_bytes()]
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]


@pytest.mark.usefixtures("own_classes")
def test_a_secret_that_a_checkpoint_hides_is_the_users_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other settings are those of the checkpoint."""
    monkeypatch.chdir(tmp_path)
    server = json.dumps({"name": "a", "password": SECRET})
    words = ["--model", "toy_task.PrivateTask", "--model.api_key", SECRET, "--model.server", server]
    data = ["--data", "toy_task.ToyData", "--data.width", "3"]
    with pytest.warns(UserWarning, match="a secret"):
        assert main(["fit", *words, "--model.width", "3", *data, *TOY[2:], "--run_dir", "run"]) == 0
    again = [*data, "--trainer.accelerator", "cpu", "--run_dir", "run", "--ckpt_path", "last"]
    given = Run("validate", [*words, *again]).model.hparams
    assert (given["api_key"], given["server"], given["width"]) == (SECRET, json.loads(server), 3)
    without = Run("validate", [*words[:2], *again]).model.hparams
    assert (without["api_key"], without["server"], without["width"]) == (None, None, 3)
    goes_on = Run("fit", [*words, "--model.width", "3", *again])
    assert goes_on.model.hparams["api_key"] == SECRET


def test_settings_that_are_no_plain_values_stay_as_they_are() -> None:
    """As of a task of one's own: a tensor is like no other value, and equal to none."""
    settings = {"weights": torch.ones(3), "table": np.zeros((2, 2)), "key": None, "password": torch.ones(2)}
    shown, hidden = without_secrets(settings)
    assert (shown["weights"] is settings["weights"], shown["table"] is settings["table"]) == (True, True)
    assert (shown["password"], hidden) == ("HIDDEN", ["password"])
