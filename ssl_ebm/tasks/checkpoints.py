"""Reading checkpoints: which task wrote one, and rebuilding that task from it."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule

from ssl_ebm.errors import UserError
from ssl_ebm.tasks.saving import is_whole

TaskType = TypeVar("TaskType", bound=LightningModule)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint on the CPU: tensors and plain values only, no code of the file is run.

    Raises ``UserError`` for a missing file and for a file that is no checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: give the path of a .ckpt file")
    try:
        if not is_whole(path):
            raise ValueError("its checksums do not hold")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each way in which a file can be wrong
        raise UserError(
            f"{path} is no checkpoint, or a damaged one: give a .ckpt file written by training"
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path} holds no checkpoint of a run: give a .ckpt file of a run")
    return content


def check_task(checkpoint: dict[str, Any], path: str | Path, task: str) -> None:
    """Raises ``UserError`` where the class that wrote the checkpoint (entry ``task``) has another name."""
    written_by = checkpoint.get("task", "an unknown task")
    if written_by != task:
        raise UserError(f"{path} is a checkpoint of {written_by}, not of {task}: give one of {task}")


def load_task(path: str | Path, task: type[TaskType]) -> TaskType:
    """``task`` as it was saved at ``path``: settings and weights, on the CPU, in evaluation mode."""
    check_task(read_checkpoint(path), path, task.__name__)
    model = task.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    return model.eval()
