"""The command line: what it answers, how it fails, and that it goes on where a killed run stood."""

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, Dataset
from toy_task import ToyTask, thread_limit

from ssl_ebm.cli import main
from ssl_ebm.data import MovingDigits
from ssl_ebm.errors import UserError
from ssl_ebm.running.runs import Run
from ssl_ebm.tasks.checkpoints import read_checkpoint

pytestmark = pytest.mark.usefixtures("own_classes")
COMMAND = [sys.executable, "-m", "ssl_ebm.cli"]


@pytest.fixture(autouse=True)
def inside_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands write under the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., str]:
    """Writes a config of the toy task, with changes like ``{"model.init_args.width": 3}``."""

    def write(changes: dict[str, object] | None = None, name: str = "toy.yaml") -> str:
        content: dict[str, object] = {
            "model": {"class_path": "toy_task.ToyTask", "init_args": {"width": 4}},
            "data": {"class_path": "toy_task.ToyData", "init_args": {"width": 4}},
            "trainer": {
                "max_steps": 6,
                "accelerator": "cpu",
                "enable_model_summary": False,
                "log_every_n_steps": 1,
            },
        }
        for key, value in (changes or {}).items():
            inner = content
            *parents, last = key.split(".")
            for parent in parents:
                inner = inner[parent]  # type: ignore[assignment]
            inner[last] = value
        (tmp_path / name).write_text(yaml.safe_dump(content))
        return name

    return write


def weights(path: str | Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a.keys() | b.keys())


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command that must fail as a user's mistake does; returns its one line."""
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ssl-ebm: error: ")
    return lines[0].removeprefix("ssl-ebm: error: ")


# --- answering ---


@pytest.mark.parametrize("arguments", [[], ["--help"], ["compare", "--help"], ["sample", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = f"""
import sys
from ssl_ebm.cli import main
from ssl_ebm.errors import UserError
try:
    status = main({arguments})
except SystemExit as stop:
    status = stop.code
assert not {{"torch", "lightning", "jsonargparse", "numpy"}} & set(sys.modules)
sys.exit(status)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "usage: ssl-ebm" in done.stdout


def test_fit_help_names_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in ("--model", "--data", "--trainer.max_steps", "--run_dir", "--checkpoint_every", "--wandb"):
        assert name in text


# --- mistakes of the user ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainer.nonsense": 1}, ["trainer.nonsense"]),
        ({"modle": 1}, ["modle"]),
        ({"model.init_args.widht": 4}, ["widht", "toy_task.ToyTask"]),
        ({"trainer.max_steps": "many"}, ["trainer.max_steps", "int", "many"]),
        ({"model.init_args.width": "wide"}, ["width", "wide"]),
        ({"model.init_args.beta": -1}, ["beta", "-1"]),
        ({"model.class_path": "toy_task.NoSuchTask"}, ["NoSuchTask"]),
        ({"checkpoint_every": 0}, ["checkpoint_every", "0"]),
        ({"read_timeout": 10**400}, ["a number of the settings is too large"]),
        ({"trainer": "\0"}, ["a setting cannot be read", "null byte"]),
        ({"seed_everything": 10**30}, ["seed_everything", "use 0 to 4294967295"]),
        ({"seed_everything": -1}, ["seed_everything is -1: use 0 to 4294967295"]),
        ({"trainer.strategy": "no_such_strategy"}, ["no_such_strategy"]),
    ],
)
def test_wrong_setting_is_named(
    changes: dict[str, object],
    words: list[str],
    config: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = error_of(capsys, "fit", "--config", config(changes))
    assert all(word in message for word in words), message
    assert "NoneType" not in message


def test_wrong_overrides_are_named(config: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "beta" in error_of(capsys, "fit", "--config", config(), "--model.beta", "-1")
    assert "--nonsense" in error_of(capsys, "fit", "--config", config(), "--nonsense", "3")
    assert "missing.yaml" in error_of(capsys, "fit", "--config", "missing.yaml")
    Path("broken.yaml").write_text("model: [unclosed")
    assert "line 1" in error_of(capsys, "fit", "--config", "broken.yaml")
    assert "data" in error_of(capsys, "fit")


def test_wrong_commands_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no-such-command" in error_of(capsys, "no-such-command")
    assert "--config" in error_of(capsys, "compare", "--out", "x")
    assert "--samples" in error_of(
        capsys, "sample", "--ckpt", "a", "--input", "b", "--out", "c.gif", "--samples", "x"
    )


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_wrong_checkpoint_is_named(
    command: str, config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", config({"model.class_path": "toy_task.OtherTask"}, "other.yaml")]) == 0
    capsys.readouterr()
    Path("junk.ckpt").write_text("junk")
    torch.save([1, 2], "list.ckpt")
    for path, words in {
        "missing.ckpt": ["missing.ckpt"],
        "junk.ckpt": ["junk.ckpt"],
        "list.ckpt": ["list.ckpt"],
        "runs/other/checkpoints/last.ckpt": ["OtherTask", "ToyTask"],
    }.items():
        message = error_of(capsys, command, "--config", config(), "--ckpt_path", path)
        assert all(word in message for word in words), message


def test_checkpoint_of_other_settings(config: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", config()]) == 0
    capsys.readouterr()
    wider = config({"model.init_args.width": 5, "data.init_args.width": 5})
    assert "last.ckpt" in error_of(capsys, "fit", "--config", wider, "--ckpt_path", "last")


# --- running ---


def test_fit_test_and_predict(config: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", config(), "--model.pause", "0.001", "--wandb", "off"]) == 0
    resolved = yaml.safe_load(Path("runs/toy/config.yaml").read_text())
    assert resolved["model"]["init_args"] == {"width": 4, "beta": 1.0, "noise": 0.1, "pause": 0.001}
    assert resolved["seed_everything"] == 0
    assert "loss" in Path("runs/toy/metrics/version_0/metrics.csv").read_text()

    # The settings of the model come from the checkpoint, whatever the config says.
    assert main(["test", "--config", config({"model.init_args.width": 9}), "--ckpt_path", "last"]) == 0
    assert "val_mean" in capsys.readouterr().out

    assert main(["predict", "--config", config(), "--ckpt_path", "last"]) == 0
    predicted = torch.cat(torch.load("runs/toy/predictions.pt", weights_only=True))
    model = ToyTask(width=4)
    model.load_state_dict(weights("runs/toy/checkpoints/last.ckpt"))
    rows = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(predicted, model.layer(rows))


def test_the_resolved_config_repeats_the_run(config: Callable[..., str]) -> None:
    assert main(["fit", "--config", config(), "--seed_everything", "3", "--model.beta", "2"]) == 0
    assert main(["fit", "--config", "runs/toy/config.yaml", "--run_dir", "runs/again"]) == 0
    assert same(weights("runs/toy/checkpoints/last.ckpt"), weights("runs/again/checkpoints/last.ckpt"))


def test_a_fresh_start_keeps_the_earlier_run(
    config: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["fit", "--config", config()]) == 0
    first = weights("runs/toy/checkpoints/last.ckpt")
    assert main(["fit", "--config", config(), "--seed_everything", "1"]) == 0
    assert f"its checkpoints are now in {Path('runs/toy/checkpoints.1')}" in caplog.text
    assert same(first, weights("runs/toy/checkpoints.1/last.ckpt"))
    assert not same(first, weights("runs/toy/checkpoints/last.ckpt"))


def content_of_settings(path: str) -> Any:
    return yaml.safe_load(Path(path).read_text())


def test_a_start_that_fails_leaves_the_earlier_run(
    config: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def content() -> dict[str, bytes]:
        of_run = ("config.yaml", "run.json", "checkpoints/last.ckpt")
        return {name: Path("runs/toy", name).read_bytes() for name in of_run}

    assert main(["fit", "--config", config()]) == 0
    first = content()
    Path("empty").mkdir()
    for folder in ("nowhere", "empty"):
        Path("pictures.yaml").write_text(
            f"data: {{class_path: ssl_ebm.data.ImageFolder, init_args: {{folder: {folder}}}}}\n"
        )
        task = ["--model", "ssl_ebm.tasks.Inpainting", "--run_dir", "runs/toy"]
        assert main(["fit", "--config", "pictures.yaml", *task]) == 2
    assert main(["fit", "--config", config(), "--trainer.fast_dev_run", "true"]) == 0
    assert content() == first
    assert not Path("runs/toy/checkpoints.1").exists()
    with pytest.raises(RuntimeError, match="shapes"):  # data there, but of another width
        main(["fit", "--config", config(), "--data.width", "5"])
    assert content() == first
    assert not Path("runs/toy/checkpoints.1").exists()

    def fail(*_: Any) -> None:
        raise RuntimeError("after a step")

    monkeypatch.setattr(ToyTask, "on_train_batch_end", fail)
    with pytest.raises(RuntimeError, match="after a step"):
        main(["fit", "--config", config(), "--data.rows", "16"])
    assert Path("runs/toy/checkpoints.1/last.ckpt").read_bytes() == first["checkpoints/last.ckpt"]
    assert content_of_settings("runs/toy/config.yaml")["data"]["init_args"]["rows"] == 16
    assert not Path("runs/toy/checkpoints").exists()  # old weights never stand under new settings


def test_resuming_names_the_checkpoints_of_earlier_runs(
    config: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["fit", "--config", config()]) == 0
    Path("runs/toy/checkpoints").rename("runs/toy/checkpoints.2")
    assert main(["fit", "--config", config(), "--ckpt_path", "last"]) == 0
    assert f"(of earlier runs: {Path('runs/toy/checkpoints.2')})" in caplog.text


def test_the_config_of_a_run_knows_its_folder(config: Callable[..., str]) -> None:
    assert main(["fit", "--config", config()]) == 0
    assert main(["predict", "--config", "runs/toy/config.yaml", "--ckpt_path", "last"]) == 0
    assert Path("runs/toy/predictions.pt").exists()
    Path("checkpoints").mkdir()  # of another program
    assert main(["fit", "--config", config(name="config.yaml")]) == 0  # of no run
    assert Path("runs/config/checkpoints").exists()


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_weights_that_nothing_has_learnt_are_asked_for(
    command: str, config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = error_of(capsys, command, "--config", config())
    assert "--ckpt_path FILE, last for that of runs/toy, or none" in message
    assert not Path("runs/toy").exists()
    assert main([command, "--config", config(), "--ckpt_path", "none"]) == 0


def test_training_goes_on_to_the_weights_of_an_uninterrupted_run(config: Callable[..., str]) -> None:
    """From each of 12 steps, across the ends of epochs (5 steps) and validations, with noise in each step."""
    short = {"trainer.val_check_interval": 2, "trainer.check_val_every_n_epoch": None}
    name = config({**short, "trainer.max_steps": 12})
    assert main(["fit", "--config", name]) == 0
    expected = weights("runs/toy/checkpoints/last.ckpt")
    for step in range(1, 13):
        run = ["--run_dir", f"runs/{step}", "--checkpoint_every", "1"]
        assert main(["fit", "--config", name, *run, "--trainer.max_steps", str(step)]) == 0
        assert main(["fit", "--config", name, *run, "--ckpt_path", "last"]) == 0
        assert same(expected, weights(f"runs/{step}/checkpoints/last.ckpt")), step


@pytest.mark.slow
def test_a_killed_run_goes_on(config: Callable[..., str], tmp_path: Path) -> None:
    """After SIGKILL in the middle of training, the same command ends as if nothing had been."""
    name = config({"trainer.max_steps": 60, "model.init_args.pause": 0.05})
    assert main(["fit", "--config", name, "--run_dir", "runs/whole"]) == 0

    command = [*COMMAND, "fit", "--config", name, "--ckpt_path", "last", "--checkpoint_every", "1"]
    killed = subprocess.Popen(command, cwd=tmp_path, env=thread_limit(), stderr=subprocess.PIPE, text=True)
    _wait_for(Path("runs/toy/checkpoints/last.ckpt"), killed)
    time.sleep(0.5)
    killed.send_signal(signal.SIGKILL)
    _, messages = killed.communicate(timeout=180)
    assert killed.returncode == -signal.SIGKILL
    assert "starts from scratch" in messages
    assert torch.load("runs/toy/checkpoints/last.ckpt", weights_only=True)["global_step"] < 60

    assert main(command[len(COMMAND) :]) == 0
    assert same(weights("runs/whole/checkpoints/last.ckpt"), weights("runs/toy/checkpoints/last.ckpt"))


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("on_train_start", "give the command again"),  # the folder's checkpoint is of another training
        ("on_train_end", "go on with --ckpt_path last"),
    ],
)
def test_ctrl_c_in_a_training_says_how_it_goes_on(
    moment: str,
    words: str,
    config: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ToyTask, moment, stopped)
    assert main(["fit", "--config", config()]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"ssl-ebm: interrupted; {words}"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("fit", "--ckpt_path last goes on from the last checkpoint"),
        ("compare", "the same command goes on"),
        ("representations", "the same command goes on"),
        ("shard", "the same command goes on"),
        ("lecture", "what was whole is in its folder; the same command begins anew"),
        ("benchmark", "what was whole is in its folder; the same command begins anew"),
    ],
)
def test_ctrl_c_says_how_a_command_goes_on(
    command: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssl_ebm.cli.dispatch", stopped)
    assert main([command]) == 130
    assert capsys.readouterr().err.startswith(f"ssl-ebm: interrupted; {words}")


@pytest.mark.slow
def test_ctrl_c_keeps_the_last_checkpoint(config: Callable[..., str], tmp_path: Path) -> None:
    name = config({"trainer.max_steps": 10_000, "model.init_args.pause": 0.05})
    command = [*COMMAND, "fit", "--config", name, "--checkpoint_every", "1"]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=thread_limit(),
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, Ctrl-C is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    _wait_for(Path("runs/toy/checkpoints/last.ckpt"), run)
    run.send_signal(signal.SIGINT)
    _, messages = run.communicate(timeout=180)
    assert run.returncode == 130
    assert messages.splitlines()[-1].startswith("ssl-ebm: interrupted")
    assert "Traceback" not in messages
    assert torch.load("runs/toy/checkpoints/last.ckpt", weights_only=True)["global_step"] >= 1


def _at_the_end(fails: bool) -> dict[str, object]:
    """Settings of a training with a callback of the user's."""
    callback = {"class_path": "toy_task.AtTheEnd", "init_args": {"fails": fails}}
    return {"trainer.callbacks": [callback]}


def test_what_fails_when_training_ends_costs_no_weights(config: Callable[..., str]) -> None:
    assert main(["fit", "--config", config(), "--run_dir", "runs/whole"]) == 0
    with pytest.raises(OSError, match="nothing is there to measure"):
        Run("fit", ["--config", config(_at_the_end(fails=True))]).execute()
    assert same(weights("runs/whole/checkpoints/last.ckpt"), weights("runs/toy/checkpoints/last.ckpt"))


@pytest.mark.parametrize("every", [3, 4])
def test_weights_that_a_callback_sets_when_training_ends_are_saved(
    every: int, config: Callable[..., str]
) -> None:
    """Also where the last step has its checkpoint already; the one before it is of an earlier step."""
    settings = ["--config", config(_at_the_end(fails=False)), "--checkpoint_every", str(every)]
    assert main(["fit", *settings]) == 0
    assert all(bool((values == 7).all()) for values in weights("runs/toy/checkpoints/last.ckpt").values())
    previous = torch.load("runs/toy/checkpoints/previous.ckpt", weights_only=True)
    assert previous["global_step"] == every
    assert not any(bool((values == 7).any()) for values in previous["state_dict"].values())


def _wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def _ask_for_a_pebibyte(*_: Any) -> None:
    torch.empty(2**50)


@pytest.mark.parametrize(
    ("moment", "then"),
    [
        (
            "on_train_batch_start",
            "then give the command again",
        ),  # the folder's checkpoint is another training's
        ("on_train_batch_end", "then go on with --ckpt_path last"),
    ],
)
def test_want_of_memory_says_what_to_lower(moment: str, then: str, config: Callable[..., str]) -> None:
    run = Run("fit", ["--config", config()])
    greedy = Callback()
    setattr(greedy, moment, _ask_for_a_pebibyte)
    run.trainer.callbacks.append(greedy)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=rf"out of memory: lower data.batch_size.*; {then}$"):
        run.execute()


class _Deadly(Dataset[Any]):
    """Its worker is killed at an item, as by a system that has no memory left."""

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        if index == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return [torch.ones(4)]


def test_a_worker_that_dies_is_said_with_what_to_do(config: Callable[..., str]) -> None:
    run = Run("fit", ["--config", config()])
    run.datamodule.train_dataloader = lambda: DataLoader(_Deadly(), batch_size=2, num_workers=1)
    with pytest.raises(UserError, match=r"a worker that loads data was ended.*lower data.workers"):
        run.execute()


def test_a_worker_whose_pipe_ends_before_its_signal_comes_is_said_too(
    config: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def end_of_the_pipe(*_: object, **__: object) -> None:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGCHLD)).start()
        raise ConnectionResetError(104, "Connection reset by peer")

    def answer(*_: object) -> None:  # as torch does
        answered.set()
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    run = Run("fit", ["--config", config()])
    monkeypatch.setattr(run.trainer, "fit", end_of_the_pipe)
    before = signal.signal(signal.SIGCHLD, answer)
    try:
        with pytest.raises(UserError, match=r"a worker that loads data was ended.*lower data.workers"):
            run.execute()
        assert answered.is_set()  # nothing is left that could interrupt what comes next
    finally:
        signal.signal(signal.SIGCHLD, before)


class _Hanging(Dataset[Any]):
    """Reads of a later item never come back, as from a network drive that is gone."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if index >= len(self):  # of the second epoch
            time.sleep(3600)
        return self.dataset[index]


def test_a_read_that_hangs_stops_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = MovingDigits.make_dataset
    monkeypatch.setattr(MovingDigits, "make_dataset", lambda data, split: _Hanging(real(data, split)))
    settings = ["--data", "ssl_ebm.data.MovingDigits", "--data.train_clips", "16", "--data.batch_size", "4"]
    settings += ["--data.val_clips", "4", "--model.width", "8", "--run_dir", "run"]
    settings += ["--trainer.accelerator", "cpu", "--trainer.max_steps", "7"]
    settings += ["--trainer.limit_val_batches", "0", "--checkpoint_every", "1"]
    more = ["--data.workers", "1", "--read_timeout", "6", "--trainer.enable_progress_bar", "false"]
    assert "gave no batch for 6 s: the storage hangs" in error_of(capsys, "fit", *settings, *more)
    assert read_checkpoint("run/checkpoints/last.ckpt")["global_step"] == 4


HANGING = """
import time
from lightning.pytorch import Callback
from ssl_ebm.data import MovingDigits

class Hanging(MovingDigits):
    def make_dataset(self, split):
        return Items(super().make_dataset(split))

class Items:
    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        if index >= len(self):  # of the second epoch
            open("pipe").read()  # which nothing is ever written to
        return self.dataset[index]

class Slow(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 2:
            time.sleep(4)
"""


@pytest.mark.slow
def test_a_read_that_hangs_in_the_process_itself_ends_it(tmp_path: Path) -> None:
    """And no step that is as slow; what was logged is written."""
    Path("hanging_data.py").write_text(HANGING)
    os.mkfifo("pipe")
    settings = [*FRAMES, "--data", "hanging_data.Hanging", "--data.workers", "0", "--read_timeout", "3"]
    settings += ["--trainer.callbacks+=hanging_data.Slow", "--trainer.enable_progress_bar", "false"]
    settings += ["--trainer.max_steps", "7", "--trainer.log_every_n_steps", "1", "--checkpoint_every", "1"]
    environment = thread_limit()
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    settings += ["--trainer.limit_val_batches", "0"]
    done = subprocess.run(
        [*COMMAND, "fit", *settings], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "ssl-ebm: error: the data loader gave no batch for 3 s: the"
    )
    assert "Traceback" not in done.stderr
    assert read_checkpoint("run/checkpoints/last.ckpt")["global_step"] == 4
    lines = Path("run/metrics/version_0/metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + 4


class _Waiting(_Hanging):
    """The read of a later item comes back when it has been given up."""

    def __init__(self, dataset: Any, given_up: threading.Event) -> None:
        super().__init__(dataset)
        self.given_up = given_up

    def __getitem__(self, index: int) -> Any:
        assert index < len(self) or self.given_up.wait(60)
        return self.dataset[index % len(self)]


@pytest.mark.parametrize("by_command", [True, False], ids=["command", "script"])
def test_a_read_that_hangs_ends_no_process_of_a_script(
    by_command: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that of the command."""
    given_up, statuses, warned = threading.Event(), list[int](), list[str]()

    def end(status: int) -> None:
        statuses.append(status)
        given_up.set()

    def warn(message: str, *_: Any, **__: Any) -> None:
        if "gave no batch for 0.5 s: the storage hangs" in str(message):
            warned.append(str(message))
            given_up.set()

    real = MovingDigits.make_dataset
    monkeypatch.setattr(
        MovingDigits, "make_dataset", lambda data, split: _Waiting(real(data, split), given_up)
    )
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(warnings, "warn", warn)
    settings = [*FRAMES, "--data.workers", "0", "--read_timeout", "0.5", "--trainer.max_steps", "6"]
    settings += ["--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"]
    if by_command:
        assert main(["fit", *settings]) == 0  # its process would have ended
    else:
        Run("fit", settings).execute()
    assert read_checkpoint("run/checkpoints/last.ckpt")["global_step"] == 6
    assert (statuses, len(warned)) == (([2], 0) if by_command else ([], 1))


FRAMES = ["--data", "ssl_ebm.data.MovingDigits", "--data.train_clips", "16", "--data.batch_size", "4"]
FRAMES += ["--data.val_clips", "4", "--model.width", "8", "--run_dir", "run", "--trainer.accelerator", "cpu"]


def test_the_largest_loss_is_a_setting(capsys: pytest.CaptureFixture[str]) -> None:
    settings = [*FRAMES, "--trainer.max_steps", "2", "--trainer.limit_val_batches", "0"]
    settings += ["--trainer.enable_progress_bar", "false"]
    message = error_of(capsys, "fit", *settings, "--max_loss", "1e-6")
    assert "beyond max_loss (1e-06)" in message
    assert message.endswith("or raise max_loss")
    assert main(["fit", *settings, "--max_loss", "inf"]) == 0


def test_a_full_disk_leaves_the_old_predictions(
    config: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--config", config()]) == 0
    predict = ["predict", "--config", config(), "--ckpt_path", "last"]
    assert main(predict) == 0
    before = Path("runs/toy/predictions.pt").read_bytes()
    capsys.readouterr()
    Path("runs/toy/predictions.partial.pt").symlink_to("/dev/full")  # the system's own disk without room
    message = error_of(capsys, *predict)
    assert message.startswith("cannot write runs/toy/predictions.pt (No space left on device): make room")
    assert Path("runs/toy/predictions.pt").read_bytes() == before
    assert not Path("runs/toy/predictions.partial.pt").is_symlink()


class _KilledError(Exception):
    pass


class _KillAfter(Callback):
    """Breaks training off after a step, when its checkpoint has been written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise _KilledError


def test_frame_prediction_goes_on_to_the_weights_of_an_uninterrupted_run() -> None:
    """The real task and data, before, at and after the end of an epoch (4 steps), on schedules of 7 steps."""
    settings = ["--model.width", "8", "--model.codes", "6", "--data", "ssl_ebm.data.MovingDigits"]
    settings += ["--data.batch_size", "4", "--data.train_clips", "16", "--data.val_clips", "8"]
    settings += ["--trainer.accelerator", "cpu", "--trainer.max_steps", "7", "--checkpoint_every", "1"]
    Run("fit", [*settings, "--run_dir", "whole"]).execute()
    for step in (2, 4, 5):
        again = [*settings, "--run_dir", str(step), "--ckpt_path", "last"]
        run = Run("fit", again)
        run.trainer.callbacks.append(_KillAfter(step))  # type: ignore[attr-defined]
        with pytest.raises(_KilledError):
            run.execute()
        Run("fit", again).execute()
        assert same(weights("whole/checkpoints/last.ckpt"), weights(f"{step}/checkpoints/last.ckpt")), step


def test_a_warning_of_the_package_is_one_line() -> None:
    """In a process of its own, where Lightning is imported later and has a format of its own."""
    code = """
import warnings
from ssl_ebm.cli import main
main([])
from ssl_ebm.tasks import precision
precision.emulates_bfloat16 = lambda: True
precision.bearable("bf16-mixed", "cpu")
warnings.warn("of another package")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    first, second, *_ = done.stderr.splitlines()
    assert first.startswith("ssl-ebm: warning: this processor has no arithmetic for bfloat16")
    assert first.endswith("in place of trainer.precision bf16-mixed")
    assert second == "<string>:8: UserWarning: of another package"
