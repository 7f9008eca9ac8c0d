"""Where the numbers of a run go beside its CSV file: Weights & Biases, where it is wanted and works."""

import secrets
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from ssl_ebm.files import write_whole
from ssl_ebm.tasks.saving import BeforeFirstStep

WandbMode = Literal["off", "offline", "online"]
WANDB_RUN = "wandb_run.txt"
WANDB_PATIENCE = 30  # seconds to wait for the network before going on without it


class CarefulWandb(WandbLogger):
    """Logs to Weights & Biases until that fails (its service has died, the disk is full): then a warning says
    so, once, and whoever logs goes on without it."""

    has_failed = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._try(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self._try(super().log_hyperparams, params)

    def _try(self, log: Callable[..., None], *values: Any) -> None:
        if self.has_failed:
            return
        try:
            log(*values)
        except Exception as error:  # no failure of a logger may stop training
            self.has_failed = True
            _warn_of(error)
            if isinstance(error, ConnectionError):
                _forget_service()


def _warn_of(error: Exception, what: str = "logging goes on without wandb") -> None:
    reason = " ".join(str(error).split())[:200]
    warnings.warn(f"{what} ({type(error).__name__}: {reason})", stacklevel=3)


def _forget_service() -> None:
    """Of a service that has died: wandb would look for it when the process ends, and print a traceback."""
    import wandb

    with suppress(Exception):
        wandb.teardown()


def wandb_logger(
    run_dir: str | Path, wandb: WandbMode = "off", project: str = "ssl_ebm", resumed: bool = False
) -> WandbLogger | None:
    """Starts a run at Weights & Biases; None where it is off, not installed, or cannot start (no network, not
    logged in): then a warning says so.

    A start that resumes goes on in the run whose identifier `KeepWandbRun` wrote; any other gets a new one.
    """
    if wandb == "off":
        return None
    try:
        known = _known_run(Path(run_dir)) if resumed else None
        new = secrets.token_hex(4)
        logger = _start_wandb(Path(run_dir), known or new, offline=wandb == "offline", project=project)
        if wandb == "offline":
            rank_zero_info(f"wandb is offline; to upload the run: wandb sync {run_dir}/wandb/offline-run-*")
        return logger
    except Exception as error:  # as in `CarefulWandb`
        _warn_of(error)
    return None


def end_wandb(trainer: Trainer) -> None:
    """Ends the trainer's run at Weights & Biases: while it lasts, the next training of this process would log
    to it too."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            try:
                logger.experiment.finish()
            except Exception as error:  # as when it started
                if not getattr(logger, "has_failed", False):
                    _warn_of(error, "wandb did not end")


class KeepWandbRun(BeforeFirstStep):
    """Writes the identifier of the run at Weights & Biases to ``run_dir/wandb_run.txt``, for a start that
    resumes.

    Args:
        run_dir: folder of the run.
        run: its identifier.
    """

    def __init__(self, run_dir: str | Path, run: str) -> None:
        self.path = Path(run_dir) / WANDB_RUN
        self.run = run

    def change_folder(self, trainer: Trainer, pl_module: LightningModule) -> None:
        write_whole(self.path, self.run)


def _known_run(run_dir: Path) -> str | None:
    """The identifier that an earlier start has written."""
    path = run_dir / WANDB_RUN
    return path.read_text().strip() if path.is_file() else None


def _start_wandb(run_dir: Path, run: str, offline: bool, project: str) -> CarefulWandb:
    import wandb

    logger = CarefulWandb(
        name=run_dir.name,
        id=run,
        resume="allow",
        project=project,
        save_dir=run_dir,
        offline=offline,
        settings=wandb.Settings(init_timeout=WANDB_PATIENCE, console="off", silent=True),
    )
    _ = logger.experiment  # starts it now, where a failure can still be handled
    return logger


def log_file(trainer: Trainer, method: str, key: str, path: Path) -> None:
    """Hands a file to all loggers that have the method, "log_image" or "log_video".

    One that fails costs a warning, not the training.
    """
    kind = "images" if method == "log_image" else "videos"
    for logger in trainer.loggers:
        if not hasattr(logger, method):
            continue
        try:
            getattr(logger, method)(key=key, **{kind: [str(path)]}, step=trainer.global_step)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            rank_zero_warn(f"{type(logger).__name__} took no {path.name}: {reason}")
