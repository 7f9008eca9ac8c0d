"""Where a run comes from: its settings in `config.yaml`; its command, code, versions, seeds, machine and data
in `run.json`.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_warn

import ssl_ebm
from ssl_ebm import __version__
from ssl_ebm.data.loading import StreamData
from ssl_ebm.errors import UserError, in_one_line
from ssl_ebm.files import sha256_of, write_whole
from ssl_ebm.tasks.config_files import settings_as_yaml
from ssl_ebm.tasks.learning_rate import global_batch
from ssl_ebm.tasks.saving import BeforeFirstStep, goes_on_in
from ssl_ebm.tasks.secret_settings import shown_description, without_secrets

VERSIONS_OF = ("torch", "lightning", "torchvision", "torchmetrics", "numpy")
GIT_PATIENCE = 20  # seconds

CONFIG, RECORD = "config.yaml", "run.json"  # of a run, in its folder
PLACES = ("run_dir", "trainer.default_root_dir")  # settings that say where that is


class SaveConfig(BeforeFirstStep, SaveConfigCallback):
    """Writes the resolved settings of a training run to ``run_dir/config.yaml``, beside its checkpoints. Of
    settings that look like a secret it leaves the values out: whoever reads the file must give them
    again."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing: Lightning's own writes them here, before it has read the checkpoint."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if trainer.is_global_zero:
            self._text = self._settings()

    def change_folder(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save_config(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        write_whole(Path(trainer.default_root_dir) / CONFIG, self._text, on_disk=True)

    def _settings(self) -> str:
        """As YAML, without secrets, of which a warning tells."""
        config = self.config.clone()
        config["ckpt_path"] = None  # a repetition begins where the run began
        for place in PLACES:  # the folder of this file, wherever that is by then
            config[place] = None
        text = self.parser.dump(config)
        shown, hidden = without_secrets(yaml.safe_load(text))
        if hidden:
            text = settings_as_yaml(shown)
            names = sorted({name.rpartition(".")[2] for name in hidden})
            rank_zero_warn(
                f"{CONFIG}, {RECORD} and checkpoints leave out what looks like a secret, which a repetition "
                f"needs again: {', '.join(names)} (variables of the environment are a better place for it)"
            )
        return text


def versions() -> dict[str, str]:
    """Of Python, this package, and what the figures depend on."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS_OF}
    return {"python": platform.python_version(), "ssl_ebm": __version__, **found}


def _peak_rate(trainer: Trainer) -> float | None:
    """The highest learning rate of the optimizers, before a schedule; None where there is no optimizer."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return max((group.get("initial_lr", group["lr"]) for group in groups), default=None)


def _described(data: Any) -> dict[str, Any] | None:
    """What a DataModule says of itself, and the fingerprint of its files; None where it says nothing."""
    said = shown_description(data)
    return None if said is None else {**said, "fingerprint": _fingerprint(data)}


def _fingerprint(data: Any) -> Mapping[str, object] | None:
    """That of the files of a set of this package; None where there is none, or it cannot be taken."""
    try:
        return data.fingerprint() if isinstance(data, StreamData) else None
    except (OSError, UserError) as error:
        rank_zero_warn(f"{RECORD} has no fingerprint of the data's files ({in_one_line(error)})")
        return None


def git_state(folder: str | Path) -> dict[str, Any] | None:
    """The commit of the repository that holds a folder, and whether its tracked files differ from it.

    None where there is no repository, or where it ignores the folder (as an environment with this package).
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_PATIENCE, check=True)
        return done.stdout.strip()

    try:
        if not git("ls-files", "."):
            return None
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return None


def _warn_of_other_data(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Where the files of the data are not those that the start before saw."""
    seen, found = ((one.get("data") or {}).get("fingerprint") for one in (before, now))
    if None not in (seen, found) and seen != found:
        rank_zero_warn("the files of the data have changed since the start that this run goes on from")


class RunRecord(BeforeFirstStep):
    """Adds this start of a training to `run_dir/run.json`: a list, for a run may be broken off and go on.

    Together with `run_dir/config.yaml` it says what a repetition needs. The environment is not written: it
    may hold secrets.

    Args:
        run_dir: folder of the run.
        command: as it was given.
        seed: of the run.
        resumed_from: the checkpoint that it goes on from; a fresh start (None) begins a new list, and so does
            one from a checkpoint of another folder.
        began_from: the checkpoint whose weights a fresh start takes; its SHA-256 is written as well.
    """

    def __init__(
        self,
        run_dir: str | Path,
        command: Sequence[str],
        seed: int,
        resumed_from: str | None = None,
        began_from: str | None = None,
    ) -> None:
        self.path = Path(run_dir) / RECORD
        self.command = list(command)
        self.seed = seed
        self.resumed_from = resumed_from
        self.began_from = began_from

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if not self._is_due:
            return
        earlier: list[Any] = []
        if goes_on_in(self.path.parent, self.resumed_from):
            with contextlib.suppress(OSError, ValueError):
                earlier = json.loads(self.path.read_text(encoding="utf-8"))
        now = self.describe(trainer)
        before = earlier[-1].get("learning_rate") if earlier else None
        if before not in (None, now["learning_rate"]):
            rank_zero_warn(
                f"the learning rate of the checkpoint, {before:g}, goes on: {now['learning_rate']:g} is that "
                "of a fresh start"
            )
            now["learning_rate"] = before
        _warn_of_other_data(earlier[-1] if earlier else {}, now)
        starts = without_secrets([*earlier, now]).settings
        self._text = json.dumps(starts, indent=1, default=str) + "\n"
        scale = {name: now[name] for name in ("learning_rate", "items_of_step") if now[name] is not None}
        for logger in trainer.loggers:
            logger.log_hyperparams(scale)

    def change_folder(self, trainer: Trainer, pl_module: LightningModule) -> None:
        write_whole(self.path, self._text, on_disk=True)

    def describe(self, trainer: Trainer) -> dict[str, Any]:
        """What is written of one start, as plain values."""
        data = getattr(trainer, "datamodule", None)
        start = self.began_from
        return {
            "command": self.command,
            "folder": os.getcwd(),
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "resumed_from": self.resumed_from,
            "began_from": start and {"path": start, "sha256": sha256_of(start)},
            "seed": self.seed,
            "data_seed": getattr(data, "seed", None),
            "data": _described(data),
            "processes": trainer.world_size,
            "items_of_step": global_batch(trainer),
            "learning_rate": _peak_rate(trainer),
            "device": str(trainer.strategy.root_device),
            "precision": trainer.precision,
            "machine": f"{socket.gethostname()}: {platform.platform()}",
            "versions": versions(),
            "git": {
                "ssl_ebm": git_state(Path(ssl_ebm.__file__).parent),
                "folder": git_state(os.getcwd()),
            },
        }
