"""Weights & Biases beside the CSV file: whatever it does, training goes on, and no file has its key."""

import base64
import csv
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from lightning.pytorch import Callback, Trainer

from ssl_ebm.cli import main
from ssl_ebm.evaluation import loggers
from ssl_ebm.running.runs import Run

pytestmark = pytest.mark.usefixtures("own_classes", "fresh_wandb")

STEPS = 6
FIT = ["fit", "--config", "toy.yaml", "--run_dir", "run"]
KEY = "a1b2c3d4e5" * 4  # what wandb takes for one


@pytest.fixture
def fresh_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """wandb as in a new process, which reads its variables again."""
    for name in {"WANDB_MODE", *(one for one in os.environ if one.startswith("WANDB_"))}:
        monkeypatch.setenv(name, "")  # which Lightning may set, and is to be as before
        monkeypatch.delenv(name)
    wandb.teardown()
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    toy = {"class_path": "toy_task.ToyTask", "init_args": {"width": 4}}
    trainer = {"max_steps": STEPS, "accelerator": "cpu", "enable_model_summary": False}
    content = {
        "model": toy,
        "data": toy | {"class_path": "toy_task.ToyData"},
        "trainer": trainer | {"log_every_n_steps": 1},
    }
    Path("toy.yaml").write_text(yaml.safe_dump(content))
    yield
    with suppress(Exception):  # its service may be dead
        wandb.finish()
    with suppress(Exception):
        wandb.teardown()


def logged_steps() -> list[int]:
    with Path("run/metrics/version_0/metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["loss"]]


def files_with(secret: str) -> list[Path]:
    """Files below this folder that have it, as it is or as a header of HTTP has it."""
    forms = (secret.encode(), base64.b64encode(f"api:{secret}".encode()))
    files = [path for path in Path().rglob("*") if path.is_file()]
    assert Path("run/checkpoints/last.ckpt") in files
    return [path for path in files if any(form in path.read_bytes() for form in forms)]


@pytest.mark.parametrize("why", ["missing", "unreachable"])
def test_wandb_that_cannot_start_does_not_stop_training(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "ModuleNotFoundError"
    if why == "missing":
        monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]  # where nobody listens any more
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(loggers, "WANDB_PATIENCE", 2)
        said = "CommError"  # of the connection: a key of another form is an AuthenticationError
    with pytest.warns(UserWarning, match=rf"logging goes on without wandb \({said}"):
        assert main([*FIT, "--wandb", "online"]) == 0
    assert logged_steps() == list(range(STEPS))
    assert files_with(KEY) == []


class _Refusal(BaseHTTPRequestHandler):
    """Says 401 to everything."""

    asked: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(self.headers.get("Authorization", ""))
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815  # as http.server calls it

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def refusing_server() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the authorizations that it was given."""
    _Refusal.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusal)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", _Refusal.asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_key_that_wandb_rejects_does_not_stop_training_and_is_written_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of another form, which never leaves this machine, and one that the server says 401 to."""
    with refusing_server() as (address, asked):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        for key, reason in {"not-a-key-0123456789": "AuthenticationError", KEY: "401"}.items():
            monkeypatch.setenv("WANDB_API_KEY", key)
            wandb.teardown()
            with pytest.warns(UserWarning, match=f"goes on without wandb .*{reason}") as said:
                assert main([*FIT, "--wandb", "online"]) == 0
            assert all(key not in str(one.message) for one in said)
            assert logged_steps() == list(range(STEPS))
            assert files_with(key) == []
    assert f"Basic {base64.b64encode(f'api:{KEY}'.encode()).decode()}" in asked


def test_an_offline_run_writes_the_key_nowhere() -> None:
    """Searched for in all bytes of its files; those of wandb say that it was this run."""
    assert main([*FIT, "--wandb", "offline"]) == 0
    wandb.finish()
    wandb.teardown()  # its files are whole
    (record,) = Path("run/wandb").glob("offline-run-*/*.wandb")
    assert Path("run/wandb_run.txt").read_bytes() in record.read_bytes()
    assert files_with(KEY) == []


def test_a_secret_given_as_a_setting_of_data_is_not_told_to_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files hold the command."""
    private = ["--data", "toy_task.PrivateData", "--data.user", "me", "--data.api_token", KEY]
    command = [*FIT, *private, "--wandb", "offline"]
    monkeypatch.setattr(sys, "argv", ["ssl-ebm", *command])
    with pytest.warns(UserWarning, match="leave out what looks like a secret"):
        assert main(command) == 0
    assert sys.argv[1:] == command
    wandb.finish()
    wandb.teardown()
    (record,) = Path("run/wandb").glob("offline-run-*/*.wandb")
    assert b"--data.api_token" in record.read_bytes()
    assert files_with(KEY) == []


class _KillService(Callback):
    """Kills wandb's service at a step."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            (service,) = [one for one in _children() if b"wandb-core" in one[1]]
            os.kill(service[0], signal.SIGKILL)
            os.waitpid(service[0], 0)


def _children() -> Iterator[tuple[int, bytes]]:
    """Process numbers and command lines."""
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(OSError):
                yield int(child), Path("/proc", child, "cmdline").read_bytes()


class _FullDisk(Callback):
    """wandb finds no room at a step."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            (logger,) = [one for one in trainer.loggers if isinstance(one, loggers.WandbLogger)]
            logger.experiment.log = self._fail  # type: ignore[method-assign]

    def _fail(self, *_: Any) -> None:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("fault", "reason"), [(_KillService(), "ConnectionResetError"), (_FullDisk(), "No space left on device")]
)
def test_wandb_that_fails_in_the_middle_does_not_stop_training(fault: Callback, reason: str) -> None:
    run = Run(FIT[0], [*FIT[1:], "--wandb", "offline"])
    run.trainer.callbacks.append(fault)  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="without wandb") as said:
        run.execute()
    (line,) = [str(one.message) for one in said if "wandb" in str(one.message)]
    assert reason in line
    assert run.trainer.global_step == STEPS
    assert logged_steps() == list(range(STEPS))
    wandb.teardown()  # as at the end of the process, where an error would be printed


def test_a_run_that_goes_on_is_the_same_run_of_wandb() -> None:
    """Also after a start that was refused; and a fresh start is another."""
    Path("broken").mkdir()
    Path("broken/0.png").write_bytes(b"no picture")
    broken = ["--data", "ssl_ebm.data.ImageFolder", "--data.folder", "broken"]
    for more in (["--trainer.max_steps", "3"], broken, ["--ckpt_path", "last"], []):
        assert main([*FIT, "--wandb", "offline", *more]) == (2 if more == broken else 0)
        wandb.finish()
    records = sorted(Path("run/wandb").glob("offline-run-*/*.wandb"), key=lambda one: one.stat().st_mtime_ns)
    first, refused, second, third = [record.stem for record in records]
    assert first == second != third == f"run-{Path('run/wandb_run.txt').read_text()}"
    assert refused not in {first, third}


def test_wandb_that_is_wanted_in_vain_is_said() -> None:
    with pytest.warns(UserWarning, match="trainer.logger is set, and so --wandb offline does nothing: leave"):
        assert main([*FIT, "--wandb", "offline", "--trainer.logger", "false"]) == 0
    again = [*FIT[1:], "--ckpt_path", "last"]
    for command in ("validate", "test", "predict"):
        with pytest.warns(UserWarning, match=f"{command} writes to run alone: leave --wandb out"):
            assert main([command, *again, "--wandb", "offline"]) == 0
    Path("toy.yaml").write_text(Path("toy.yaml").read_text() + "wandb: offline\n")  # as of a training
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*wandb")
        assert main(["test", *again]) == 0
    assert not Path("run/wandb").exists()
