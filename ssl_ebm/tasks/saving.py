"""Writing checkpoints so that a run which is killed at any moment can go on where it stood."""

import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from ssl_ebm.files import whole


class WholeFileIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: the path holds the old file or the new one.

    Lightning writes to the system's temporary folder first; a move from another file system is a copy, and a
    copy can be cut short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        with whole(path) as partial:
            super().save_checkpoint(checkpoint, partial, storage_options)


def checkpoint_folder(run_dir: str | Path) -> Path:
    """Where a run keeps its checkpoints."""
    return Path(run_dir) / "checkpoints"


def last_checkpoint(run_dir: str | Path) -> Path:
    """Where a run keeps its newest checkpoint (which need not exist yet)."""
    return checkpoint_folder(run_dir) / "last.ckpt"


def put_aside_checkpoints(run_dir: str | Path) -> Path | None:
    """Renames the checkpoints of an earlier run in this folder: a fresh start never mixes with them.

    Returns their new place (``checkpoints.1``, ``checkpoints.2``, ...), or None where there were none.
    """
    folder = checkpoint_folder(run_dir)
    if not folder.exists():
        return None
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(aside)
    return aside


class LastCheckpoint(Checkpoint):
    """Keeps one checkpoint, ``last.ckpt``: every ``every_n_steps`` optimizer steps and when training ends.

    No checkpoint is chosen by a validation score: for a latent-variable model the loss of the z that was
    inferred from the true y says nothing about predictions.

    The checkpoint also says which class of task wrote it (entry ``task``) and what data it saw (entry
    ``data``: what the DataModule's ``describe`` returns).

    Args:
        run_dir: folder of the run; the checkpoint goes to ``run_dir/checkpoints/last.ckpt``.
        every_n_steps: optimizer steps between two checkpoints.
    """

    def __init__(self, run_dir: str | Path, every_n_steps: int) -> None:
        self.path = last_checkpoint(run_dir)
        self.every_n_steps = every_n_steps
        self._saved_step = 0

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint.setdefault("task", type(pl_module).__name__)
        describe = getattr(getattr(trainer, "datamodule", None), "describe", None)
        if describe is not None:
            checkpoint["data"] = describe()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        # With accumulated gradients several batches share a step: the first of them has just made it.
        if trainer.global_step % self.every_n_steps == 0:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False) or trainer.global_step == self._saved_step:
            return
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_step = trainer.global_step
