"""Writing checkpoints so that a run which is killed at any moment can go on where it stood."""

import os
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.utilities import rank_zero_info

from ssl_ebm.errors import UserError
from ssl_ebm.files import whole
from ssl_ebm.tasks.secret_settings import shown_description, without_secrets

HYPER_PARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")  # Lightning's names in a checkpoint
FOLDER = 0x10  # the bit of MS-DOS in the attributes of a part of an archive


class WholeFileIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, waits for the disk, and renames it: the path holds the old file
    or the new one, also after a power failure.

    Lightning writes to the system's temporary folder first; a move from another file system is a copy, and a
    copy can be cut short. Of hyper-parameters it writes no secrets (`hide_secrets`).

    Raises:
        UserError: it cannot be written (a full disk); the file that was there before stays.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        hide_secrets(checkpoint)
        with whole(path, on_disk=True) as partial, open(partial, "wb") as file:
            torch.save(checkpoint, file)


def is_whole(path: str | Path) -> bool:
    """Whether a checkpoint is there, and holds what was written.

    torch's format is a ZIP archive: every part has its CRC-32, and the list of parts stands at the end, where
    a torn file has none. torch itself does not look at the checksums, and of a part that is marked as a
    folder it takes what happens to be in memory for the content.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            folders = any(part.external_attr & FOLDER for part in archive.infolist())
            return archive.testzip() is None and not folders
    except Exception:  # of another type for each way in which the list can be wrong
        return False


def checkpoint_folder(run_dir: str | Path) -> Path:
    """Where a run keeps its checkpoints."""
    return Path(run_dir) / "checkpoints"


def last_checkpoint(run_dir: str | Path) -> Path:
    """Where a run keeps its newest checkpoint (which need not exist yet)."""
    return checkpoint_folder(run_dir) / "last.ckpt"


def previous_checkpoint(run_dir: str | Path) -> Path:
    """Where a run keeps the checkpoint before the newest one, in case that one is damaged."""
    return checkpoint_folder(run_dir) / "previous.ckpt"


def _can_be_read(path: Path) -> bool:
    """Whether torch can read it, too, whose reading of the list of parts is stricter. No weights are read."""
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # as in `is_whole`
        return False
    return True


def newest_whole(run_dir: str | Path) -> Path | None:
    """The newest checkpoint of a run that is not damaged; None where there is none at all.

    Raises:
        UserError: all are damaged.
    """
    found = [path for path in (last_checkpoint(run_dir), previous_checkpoint(run_dir)) if path.exists()]
    for path in found:
        if is_whole(path) and _can_be_read(path):
            return path
    if found:
        raise UserError(f"{' and '.join(map(str, found))} damaged: train from scratch, without --ckpt_path")
    return None


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


def aside_checkpoints(run_dir: str | Path) -> list[Path]:
    """Where `put_aside_checkpoints` has put those of earlier runs, the oldest first."""
    folder = checkpoint_folder(run_dir)
    found = [one for one in folder.parent.glob(f"{folder.name}.*") if one.suffix[1:].isdigit()]
    return sorted(found, key=lambda one: int(one.suffix[1:]))


def goes_on_in(run_dir: str | Path, resumed_from: str | Path | None) -> bool:
    """Whether a training from this checkpoint (None: from scratch) goes on with the one in this folder: it is
    the folder's last checkpoint, or the one before."""
    if resumed_from is None:
        return False
    own = (last_checkpoint(run_dir), previous_checkpoint(run_dir))
    return Path(resumed_from).resolve() in [path.resolve() for path in own]


def make_room(run_dir: str | Path, resumed_from: str | Path | None) -> None:
    """Puts aside what a start that does not go on with the training in this folder, or one from the
    checkpoint before the last, would write over.

    Whoever calls this holds the folder's lock, and has read the checkpoint, which may be put aside as well.
    """
    last = last_checkpoint(run_dir)
    if resumed_from is None or not goes_on_in(run_dir, resumed_from):
        aside = put_aside_checkpoints(run_dir)
        if aside is not None:
            rank_zero_info(f"{run_dir} holds an earlier run: its checkpoints are now in {aside}")
    elif Path(resumed_from).resolve() != last.resolve() and last.exists():
        os.replace(last, last.with_name("aside.ckpt"))


class BeforeFirstStep(Callback, ABC):
    """What changes the folder of a run before the first optimizer step, once its gradients are there (or the
    training has ended without one): a start that data or settings do not let come so far leaves an earlier
    run as it is, to the byte.

    The first process alone does it; a `fast_dev_run` leaves nothing. Where a task steps past Lightning's
    optimizers it is done after the batch of the first step, before a checkpoint is written.
    """

    _is_due = False
    _began = 0  # optimizer step

    @abstractmethod
    def change_folder(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is to be done."""

    @property
    def is_due(self) -> bool:
        """Whether it has yet to be done."""
        return self._is_due

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_due = trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False)
        self._began = trainer.global_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._is_due:
            self._is_due = False
            self.change_folder(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step > self._began:
            self.on_before_optimizer_step(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_before_optimizer_step(trainer, pl_module)


class MakeRoom(BeforeFirstStep):
    """`make_room`, before anything else is written.

    Args:
        run_dir: folder of the run.
        resumed_from: the checkpoint that this run goes on from, see `goes_on_in`; None: it begins.
    """

    def __init__(self, run_dir: str | Path, resumed_from: str | Path | None) -> None:
        self.run_dir = Path(run_dir)
        self.resumed_from = resumed_from

    def change_folder(self, trainer: Trainer, pl_module: LightningModule) -> None:
        make_room(self.run_dir, self.resumed_from)


def hide_secrets(checkpoint: dict[str, Any]) -> None:
    """Hides what looks like a secret among the hyper-parameters that a task or DataModule has kept by
    `save_hyperparameters`: whoever makes it again from the checkpoint gives that anew."""
    for part in HYPER_PARAMETERS:
        shown = without_secrets(checkpoint.get(part, {}))
        if shown.hidden:
            checkpoint[part] = shown.settings


def note_data(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Says in a checkpoint what data it saw: entry ``data``, what the DataModule's ``describe`` returns, if
    it has that, without secrets. Once is enough."""
    if "data" in checkpoint:
        return
    described = shown_description(getattr(trainer, "datamodule", None))
    if described is not None:
        checkpoint["data"] = described


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``, written every ``every_n_steps`` optimizer steps and when training ends, and the
    one before it, ``previous.ckpt``.

    No checkpoint is chosen by a validation score: for a latent-variable model the loss of the z that was
    inferred from the true y says nothing about predictions.

    When training ends, it is written once more where a callback of another package does something then: one
    that averages weights puts them into the model only there.

    The checkpoint also says which class of task wrote it (entry ``task``) and what data it saw (`note_data`).

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
        note_data(checkpoint, trainer)
        hide_secrets(checkpoint)  # also where another plugin than `WholeFileIO` writes it

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        # With accumulated gradients several batches share a step: the first of them has just made it.
        if trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)
        if not getattr(trainer, "fast_dev_run", False) and _others_end(trainer):
            trainer.save_checkpoint(self.path, weights_only=False)

    def save(self, trainer: Trainer) -> None:
        """Writes the checkpoint of this step, unless it is there; all processes must call it."""
        if getattr(trainer, "fast_dev_run", False) or trainer.global_step == self._saved_step:
            return
        if trainer.is_global_zero:
            self._keep_previous()
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_step = trainer.global_step

    def _keep_previous(self) -> None:
        """A second name for the last checkpoint, which so is there at every moment."""
        if not self.path.exists():
            return
        previous = self.path.with_name("previous.ckpt")
        try:
            with whole(previous) as linked:
                linked.unlink(missing_ok=True)
                os.link(self.path, linked)
        except UserError:  # a file system without hard links: the last one is missing for a moment
            os.replace(self.path, previous)


def _others_end(trainer: Trainer) -> bool:
    """Whether a callback of another package, which may change weights, does something when training ends."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for one in callbacks:
        ends = getattr(one.on_train_end, "__func__", one.on_train_end)
        ours = str(getattr(ends, "__module__", "")).startswith("ssl_ebm.")
        if ends is not Callback.on_train_end and not ours and not isinstance(one, Checkpoint | ProgressBar):
            return True
    return False


class SaveFirst(Callback):
    """Has the last checkpoint written when training ends, before other callbacks do what they do then: where
    one of them fails, such as a probe, what was learnt is there. To be the first of a Trainer's callbacks;
    Lightning runs a `Checkpoint` as one of the last.

    Args:
        checkpoint: what writes it.
    """

    def __init__(self, checkpoint: LastCheckpoint) -> None:
        self.checkpoint = checkpoint

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.checkpoint.save(trainer)
