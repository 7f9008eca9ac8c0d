"""Reading checkpoints: which task wrote one, and rebuilding that task from it."""

from inspect import signature
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule

from ssl_ebm import __version__
from ssl_ebm.errors import UserError, in_one_line, user_error_behind
from ssl_ebm.tasks.construction import of_bearable_size, refuse_nulls
from ssl_ebm.tasks.saving import is_whole
from ssl_ebm.tasks.secret_settings import hidden_in

REASON = 200  # characters of a message of torch's that are shown

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
    for part in ("hyper_parameters", "data"):
        if not isinstance(content.get(part, {}), dict):
            raise UserError(f"{path} is damaged: its {part} are {type(content[part]).__name__}: give another")
    return content


def check_task(checkpoint: dict[str, Any], path: str | Path, task: str) -> None:
    """Raises ``UserError`` where the class that wrote the checkpoint (entry ``task``) has another name."""
    written_by = checkpoint.get("task", "an unknown task")
    if written_by != task:
        raise UserError(f"{path} is a checkpoint of {written_by}, not of {task}: give one of {task}")


def load_task(path: str | Path, task: type[TaskType], **settings: Any) -> TaskType:
    """``task`` as it was saved at ``path``: settings and weights, on the CPU, in evaluation mode.

    Args:
        path: of the checkpoint.
        task: its class.
        settings: in place of those of the file, as a secret that it leaves out.
    """
    content = read_checkpoint(path)
    check_task(content, path, task.__name__)
    return rebuild(content, path, task, **settings)


def take_weights(model: LightningModule, content: dict[str, Any], path: str | Path) -> None:
    """Gives a task that has been made the weights of a checkpoint, and what else its class keeps there.

    Weights whose names begin with the class's `begins_afresh`, if it has that, may be in either alone: the
    task keeps its own, and does not take those of the checkpoint.

    Args:
        content: as `read_checkpoint` gives it.
        path: where it is from, for errors.

    Raises:
        UserError: of another class, or of a network of other sizes.
    """
    check_task(content, path, type(model).__name__)
    given = content["state_dict"]
    if afresh := getattr(model, "begins_afresh", ""):
        others = {name: one for name, one in given.items() if not name.startswith(afresh)}
        own = {name: one for name, one in model.state_dict().items() if name.startswith(afresh)}
        given = others | {name: given.get(name, one) for name, one in own.items()}
    try:
        model.load_state_dict(given)
    except RuntimeError as error:
        reason = shorten(in_one_line(error), REASON, placeholder=" ...")
        raise UserError(
            f"{path} does not fit this model: {reason}; set model.network as in the config of that run"
        ) from error
    model.on_load_checkpoint(content)


def rebuild(content: dict[str, Any], path: str | Path, task: type[TaskType], **given: Any) -> TaskType:
    """``task`` as the content of a file says: settings and weights, in evaluation mode.

    The class is the caller's, and its settings are plain values: what else the file names is not imported.

    Args:
        content: as `read_checkpoint` gives it.
        path: where it is from, for errors.
        given: settings in place of those of the file.

    Raises:
        UserError: settings that this class does not take, weights that do not fit them, or a secret among
            the settings, which the file hides.
    """
    known = signature(task.__init__).parameters
    try:
        kept = {**content.get("hyper_parameters", {}), **given}
        settings = {name: value for name, value in kept.items() if name in known}
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} has settings without names ({in_one_line(error)})") from error
    if hidden := hidden_in(settings):
        raise UserError(
            f"{path} leaves out {', '.join(hidden)}, which looks like a secret: give it to load_task"
        )
    try:
        refuse_nulls(f"{task.__module__}.{task.__qualname__}", settings, task.__name__)
        with of_bearable_size():
            model = task(**settings)
        model.on_load_checkpoint(content)
        model.load_state_dict(content["state_dict"])
    except Exception as error:  # settings and weights of a file can be wrong in every way
        reason = str(user_error_behind(error) or in_one_line(error))
        raise UserError(
            f"{path} does not hold settings and weights that go together in a {task.__name__} of ssl_ebm "
            f"{__version__}: {shorten(reason, REASON, placeholder=' ...')}"
        ) from error
    return model.eval()
