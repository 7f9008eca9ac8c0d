"""Where the numbers of a run go beside its CSV file: Weights & Biases, where it is wanted and works."""

import secrets
import warnings
from pathlib import Path
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

WandbMode = Literal["off", "offline", "online"]
WANDB_PATIENCE = 30  # seconds to wait for the network before going on without it


def wandb_logger(
    run_dir: str | Path, wandb: WandbMode = "off", project: str = "ssl_ebm", resumed: bool = False
) -> WandbLogger | None:
    """Starts a run at Weights & Biases; None where it is off, not installed, or cannot start (no network, not
    logged in): then a warning says so.

    A start that resumes goes on in the run whose name is in ``run_dir/wandb_run.txt``; any other writes a new
    name there. So whoever calls this holds the folder's lock.
    """
    if wandb == "off":
        return None
    try:
        name = _wandb_run(Path(run_dir), resumed)
        logger = _start_wandb(Path(run_dir), name, offline=wandb == "offline", project=project)
        if wandb == "offline":
            rank_zero_info(f"wandb is offline; to upload the run: wandb sync {run_dir}/wandb/offline-run-*")
        return logger
    except Exception as error:  # no failure of a logger may stop training
        reason = " ".join(str(error).split())[:200]
        warnings.warn(f"logging goes on without wandb ({type(error).__name__}: {reason})", stacklevel=2)
    return None


def end_wandb(trainer: Trainer) -> None:
    """Ends the trainer's run at Weights & Biases: while it lasts, the next training of this process would log
    to it too."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            try:
                logger.experiment.finish()
            except Exception as error:  # as when it started
                reason = " ".join(str(error).split())[:200]
                warnings.warn(f"wandb did not end ({type(error).__name__}: {reason})", stacklevel=2)


@rank_zero_only
def _wandb_run(run_dir: Path, resumed: bool) -> str:
    """The identifier of the run: that of the start before, where this one goes on."""
    path = run_dir / "wandb_run.txt"
    if resumed and path.is_file() and (known := path.read_text().strip()):
        return known
    new = secrets.token_hex(4)
    run_dir.mkdir(parents=True, exist_ok=True)
    path.write_text(new)
    return new


def _start_wandb(run_dir: Path, run: str | None, offline: bool, project: str) -> WandbLogger:
    import wandb

    logger = WandbLogger(
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
