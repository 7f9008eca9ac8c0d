"""What can be done to the transformer blocks of a task to save memory or time: the results stay the same."""

from __future__ import annotations

import functools

from lightning import LightningModule
from torch.utils.checkpoint import checkpoint

from ssl_ebm.errors import UserError
from ssl_ebm.networks.transformer import Block


def _blocks_of(task: LightningModule, setting: str) -> list[Block]:
    found = [module for module in task.modules() if isinstance(module, Block)]
    if not found:
        raise UserError(
            f"{setting} is for transformer blocks, and this {type(task).__name__} has none: leave it out"
        )
    return found


def checkpoint_activations(task: LightningModule) -> None:
    """Blocks keep their input alone, and compute the rest again for the gradient. Weights keep their names.

    Raises:
        UserError: the task has no transformer blocks.

    Source: Chen et al., "Training deep nets with sublinear memory cost" (2016).
    """
    for block in _blocks_of(task, "activation_checkpointing"):
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def compile_blocks(task: LightningModule, backend: str) -> None:
    """Compiles each block by torch.compile, when it is first called. Weights keep their names.

    Blocks of one shape share their code, so that this takes less time than a whole network does.

    Args:
        backend: of torch.compile, as "inductor".

    Raises:
        UserError: the task has no transformer blocks.
    """
    for block in _blocks_of(task, "compile"):
        block.compile(backend=backend)
