"""The folder of a run: who writes to it, and what it says of where the run comes from."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
import yaml
from PIL import Image

import ssl_ebm
from ssl_ebm.cli import main
from ssl_ebm.data import FontDigits, ImageFolder
from ssl_ebm.errors import UserError
from ssl_ebm.running.lock import only_run_in
from ssl_ebm.running.provenance import git_state, versions
from ssl_ebm.running.runs import Run
from ssl_ebm.running.trust import VARIABLE
from ssl_ebm.tasks.saving import last_checkpoint, previous_checkpoint

pytestmark = pytest.mark.usefixtures("own_classes")

TOY = {
    "model": {"class_path": "toy_task.ToyTask", "init_args": {"width": 4}},
    "data": {"class_path": "toy_task.ToyData", "init_args": {"width": 4}},
    "trainer": {"max_steps": 6, "accelerator": "cpu", "enable_model_summary": False},
}
SMALL = {
    "class_path": "ssl_ebm.networks.completion.ConvolutionalCompletion",
    "init_args": {"channels": 3, "parts": 4, "width": 8, "levels": 1},
}
LOCK = """
import fcntl, os, sys, time
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
file.write(f"process {os.getpid()} on a machine")
file.flush()
print("held", flush=True)
time.sleep(600)
"""


def test_a_second_run_in_a_folder_is_refused_until_the_first_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone by SIGKILL: nothing that it leaves behind is in the way. Its run at W&B stays its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    command = [sys.executable, "-c", LOCK, "run/.lock"]
    with only_run_in("run"):  # other processes see it
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert "BlockingIOError" in refused.stderr
    Path("run/.lock").write_text("")
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        Path("run/wandb_run.txt").write_text("first")
        for more in ([], ["--ckpt_path", "last"]):
            assert main(["fit", "--config", "toy.yaml", "--run_dir", "run", "--wandb", "offline", *more]) == 2
            assert wandb.run is None
        assert Path("run/wandb_run.txt").read_text() == "first"
        assert sorted(path.name for path in Path("run").iterdir()) == [".lock", "wandb_run.txt"]
        (line, _) = [one for one in capsys.readouterr().err.splitlines() if "error" in one]
        assert f"in use by another run (process {holder.pid} on" in line
    finally:
        holder.kill()
        holder.wait()
    assert main(["fit", "--config", "toy.yaml", "--run_dir", "run"]) == 0


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", without)
    with (
        pytest.warns(UserWarning, match=r"has no locks \(No locks available\)"),
        only_run_in(tmp_path / "run"),
    ):
        assert (tmp_path / "run" / ".lock").is_file()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--run_dir"), only_run_in(tmp_path / "file" / "run"):
        pass


def test_a_run_says_where_it_comes_from_and_repeats_from_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a run that was broken off, went on, and went on from the checkpoint before a damaged one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    fit = [
        "fit",
        "--config",
        "toy.yaml",
        "--seed_everything",
        "3",
        "--run_dir",
        "run",
        "--checkpoint_every",
        "1",
    ]
    assert main([*fit, "--trainer.max_steps", "2"]) == 0
    last_checkpoint("run").write_bytes(b"torn")
    with pytest.warns(UserWarning, match=r"damaged: taking run/checkpoints/previous.ckpt"):
        assert main([*fit, "--ckpt_path", "last"]) == 0

    first, second = json.loads(Path("run/run.json").read_text())
    assert first["command"] == ["ssl-ebm", *fit, "--trainer.max_steps", "2"]
    assert (first["seed"], first["resumed_from"], first["processes"]) == (3, None, 1)
    assert second["resumed_from"] == str(previous_checkpoint("run"))
    assert first["versions"] == versions()
    assert first["versions"]["torch"] == torch.__version__.partition("+")[0]

    assert main(["fit", "--config", "run/config.yaml", "--run_dir", "again"]) == 0
    (only,) = json.loads(Path("again/run.json").read_text())
    assert only["resumed_from"] is None
    one, other = (
        torch.load(last_checkpoint(name), weights_only=True)["state_dict"] for name in ("run", "again")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("older", [False, True], ids=["written now", "written with its place"])
def test_a_run_that_was_moved_acts_in_its_new_place(
    older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was copied, whose old place is another's by now."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    assert main(["fit", "--config", "toy.yaml", "--run_dir", "run", "--trainer.max_steps", "1"]) == 0
    saved = yaml.safe_load(Path("run/config.yaml").read_text())
    assert saved.get("run_dir") is saved["trainer"].get("default_root_dir") is None
    if older:
        saved["run_dir"], saved["trainer"]["default_root_dir"] = "run", "run/of/lightning"
        Path("run/config.yaml").write_text(yaml.safe_dump(saved))
    shutil.copytree("run", "archive/run")
    config = ["--config", "archive/run/config.yaml"]
    moved = Run("validate", [*config, "--ckpt_path", "last"])
    assert moved.run_dir == Path(moved.trainer.default_root_dir) == Path("archive/run")
    assert moved.setting("ckpt_path") == str(last_checkpoint("archive/run"))
    for place in ("--run_dir", "--trainer.default_root_dir"):  # the user's word
        assert Run("fit", [*config, place, "elsewhere"]).run_dir == Path("elsewhere")
    Path("mine.yaml").write_text("run_dir: elsewhere\n")
    assert Run("fit", [*config, "--config", "mine.yaml"]).run_dir == Path("elsewhere")


def test_a_run_from_the_checkpoint_of_another_place_begins_a_new_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a fresh training does: what the folder held is kept, and the run at W&B is another."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    fit = ["fit", "--config", "toy.yaml", "--run_dir", "run", "--trainer.limit_val_batches", "0"]
    assert main([*fit, "--trainer.max_steps", "2"]) == 0
    backup = last_checkpoint("run").rename("step2.ckpt")
    assert main([*fit, "--trainer.max_steps", "4"]) == 0
    again = Run("fit", [*fit[1:], "--ckpt_path", str(backup)])
    assert again._what_then() == "give the command again"  # the folder's last is another's
    again.execute()
    assert again._what_then() == "go on with --ckpt_path last"
    (start,) = json.loads(Path("run/run.json").read_text())
    assert start["resumed_from"] == "step2.ckpt"
    newest = ("run/checkpoints", "run/checkpoints.2")
    assert [torch.load(f"{one}/last.ckpt", weights_only=True)["global_step"] for one in newest] == [6, 4]


@pytest.mark.parametrize("secret", [[], ["--data.password", "s3cr3t"]])
def test_words_that_look_like_numbers_are_repeated_as_words(
    secret: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the settings are written without secrets."""
    monkeypatch.chdir(tmp_path)
    words = [
        "1e-5",
        "1.5e5",
        "-2E+3",
        "007",
        "1_000",
        "1_0e3",
        "0x1f",
        "yes",
        "null",
        "~",
        "2026-11-30",
        "1:30",
    ]
    words += [".5", "1.", "+.inf", ".nan", "-", "- a", "a: b", "12 monkeys", "", "'", "1e-5 of it"]
    rates = {"1e-5": 1e-5, "2": 1e22, "float": 0.5}
    arguments = {"name": "1e-5", "words": words, "rates": rates}
    data = ["--data", json.dumps({"class_path": "toy_task.NamedData", "init_args": arguments}), *secret]
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    given = ["fit", "--config", "toy.yaml", *data, "--trainer.max_steps", "1", "--run_dir", "run"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the secret
        assert main(given) == 0
    again = Run("fit", ["--config", "run/config.yaml", *secret]).datamodule
    assert (again.name, again.words, again.rates) == ("1e-5", words, rates)


def test_the_recorded_command_trusts_what_the_command_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE)
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(TOY))
    words = ["fit", "--trust-config", "--config", "toy.yaml", "--trainer.max_steps", "1"]
    assert main([*words, "--run_dir", "run"]) == 0
    (start,) = json.loads(Path("run/run.json").read_text())
    assert main([*start["command"][1:], "--run_dir", "again"]) == 0
    assert sorted(start["command"]) == sorted(["ssl-ebm", *words, "--run_dir", "run"])


def test_a_run_names_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the fingerprint of the files, and says when it goes on with others."""
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for number in range(20):
        Image.new("L", (16, 16), number).save(f"pictures/{number}.png")
    fit = [
        "fit",
        "--model",
        "ssl_ebm.tasks.Inpainting",
        "--data",
        "ssl_ebm.data.ImageFolder",
        "--run_dir",
        "run",
    ]
    fit += ["--data.folder", "pictures", "--data.size", "16", "--data.batch_size", "4", "--data.seed", "5"]
    fit += [
        "--model.network",
        json.dumps(SMALL),
        "--trainer.accelerator",
        "cpu",
        "--trainer.limit_val_batches",
        "0",
    ]

    def latest() -> dict[str, Any]:
        return dict(json.loads(Path("run/run.json").read_text())[-1])

    assert main([*fit, "--trainer.max_steps", "1"]) == 0
    first = latest()
    assert first["data"]["name"] == "ImageFolder"
    assert first["data"]["items"] == {"train": 14, "val": 2}
    assert first["data_seed"] == first["data"]["seed"] == 5
    assert first["data"]["fingerprint"] == dict(ImageFolder("pictures").fingerprint())
    assert first["git"] == {"ssl_ebm": git_state(Path(ssl_ebm.__file__).parent), "folder": None}

    go_on = [*fit, "--ckpt_path", "last", "--trainer.max_steps"]
    with warnings.catch_warnings(record=True) as said:
        assert main([*go_on, "2"]) == 0
    assert not [one for one in said if "have changed" in str(one.message)]
    assert latest()["data"]["fingerprint"] == first["data"]["fingerprint"]
    Image.new("L", (17, 17)).save("pictures/3.png")
    with pytest.warns(UserWarning, match="the files of the data have changed since the start"):
        assert main([*go_on, "3"]) == 0
    assert latest()["data"]["fingerprint"] != first["data"]["fingerprint"]


def test_files_that_give_no_fingerprint_stop_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def fail(_: FontDigits) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(FontDigits, "fingerprint", fail)
    fit = ["fit", "--model", "ssl_ebm.tasks.Inpainting", "--model.network"]
    fit += [json.dumps(SMALL).replace('"channels": 3', '"channels": 1')]
    fit += ["--data", "ssl_ebm.data.FontDigits", "--data.size", "16", "--data.batch_size", "4"]
    fit += ["--trainer.accelerator", "cpu", "--trainer.limit_val_batches", "0", "--trainer.max_steps", "1"]
    with pytest.warns(UserWarning, match=r"run.json has no fingerprint .*Stale file handle"):
        assert main([*fit, "--run_dir", "run"]) == 0
    (start,) = json.loads(Path("run/run.json").read_text())
    assert start["data"]["name"] == "FontDigits"
    assert start["data"]["fingerprint"] is None


def test_the_state_of_a_repository_is_its_commit_and_whether_files_differ(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        names = ["-c", "user.name=Nobody", "-c", "user.email=nobody@localhost"]
        command = ["git", "-C", str(tmp_path), *names, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "-q")
    (tmp_path / "code.py").write_text("1")
    (tmp_path / ".gitignore").write_text("env\n")
    git("add", ".")
    git("commit", "-q", "-m", "First")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "changed": True}
    (tmp_path / "env").mkdir()
    assert git_state(tmp_path / "env") is None  # ignored, as an environment beside the code is
