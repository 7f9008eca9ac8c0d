"""On what a result was made."""

import platform
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from ssl_ebm.report.entries import usable_cores
from ssl_ebm.tasks.checkpoints import read_checkpoint


def describe_device(device: torch.device) -> str:
    """As in ``cpu: x86_64, 2 cores`` or ``cuda: NVIDIA H100``."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"cpu: {platform.machine()}, {usable_cores()} cores"


def steps_behind(trainer: Trainer) -> int:
    """Optimizer steps behind the weights that a Trainer has."""
    if trainer.state.fn == TrainerFn.FITTING or trainer.ckpt_path is None:
        return trainer.global_step
    return int(read_checkpoint(Path(trainer.ckpt_path))["global_step"])
