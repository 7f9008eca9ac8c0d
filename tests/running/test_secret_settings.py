"""Secrets among the settings: in no file of a run."""

import json
from pathlib import Path

import pytest

from ssl_ebm.cli import main
from ssl_ebm.running.runs import Run
from ssl_ebm.running.secret_settings import command_without_secrets, secrets_in, without_secrets

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
    assert hidden == words[-1]
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
    for text in ("password: null\n", "masking: {unit: token}", "special_tokens: [a, b]", "keyword: a"):
        assert without_secrets(text) == text
        assert secrets_in(text) == []


def test_no_setting_of_a_shipped_config_is_taken_for_a_secret(repository: Path) -> None:
    configs = list((repository / "configs").rglob("*.yaml"))
    assert len(configs) > 10
    assert [path for path in configs if secrets_in(path.read_text())] == []


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
