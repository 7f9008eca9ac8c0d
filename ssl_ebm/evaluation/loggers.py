"""Where the numbers of a run go: a CSV file always, Weights & Biases where it is wanted and works."""

import warnings
from pathlib import Path
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

WandbMode = Literal["off", "offline", "online"]
WANDB_PATIENCE = 30  # seconds to wait for the network before going on without it


def make_loggers(run_dir: str | Path, wandb: WandbMode = "off", project: str = "ssl_ebm") -> list[Logger]:
    """CSV under ``run_dir/metrics/version_N/metrics.csv``, and Weights & Biases as ``wandb`` says.

    A start that resumes gets the next version: nothing that was logged is overwritten. Where wandb is not
    installed, or cannot start (no network, not logged in), a warning says so and the CSV goes on.
    """
    loggers: list[Logger] = [CSVLogger(run_dir, name="metrics")]
    if wandb != "off":
        try:
            loggers.append(_start_wandb(Path(run_dir), offline=wandb == "offline", project=project))
        except Exception as error:  # no failure of a logger may stop training
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"logging goes on without wandb ({type(error).__name__}: {reason})", stacklevel=2)
    return loggers


def _start_wandb(run_dir: Path, offline: bool, project: str) -> WandbLogger:
    import wandb

    run_dir.mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(
        name=run_dir.name,
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
