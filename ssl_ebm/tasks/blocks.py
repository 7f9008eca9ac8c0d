"""What can be done to the stages of a task's networks to save memory or time: the results stay the same.

Stages (`ssl_ebm.energy.stages.Staged`) are transformer blocks, residual blocks, each convolution or linear
layer of an energy with its units, what draws pixels, the copies of a frame that a motion moves, and the
predictions of all values of z.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import nn
from torch.utils.checkpoint import checkpoint

from ssl_ebm.energy.stages import Staged
from ssl_ebm.errors import UserError

GRAPHS = 64  # of one stage, at most: other widths, with gradients and without, sizes that change


def stages_of(task: LightningModule, setting: str) -> list[tuple[Any, str]]:
    """Modules, and the names of their methods that are stages.

    Raises:
        UserError: the task has none; it names the setting that needs them.
    """
    found = [(part, name) for part in task.modules() if isinstance(part, Staged) for name in part.stages]
    if not found:
        raise UserError(
            f"{setting} is for stages of networks (ssl_ebm.energy.stages.Staged), and this "
            f"{type(task).__name__} has none: leave it out"
        )
    return found


def checkpoint_activations(task: LightningModule) -> None:
    """Stages keep their arguments alone, and compute the rest again for the gradient. Weights keep their
    names.

    Where all weights of a module are frozen nothing is computed again: chains of a sampler ask for one
    gradient at every step, and keep less than a training step as it is.

    Raises:
        UserError: the task has no stages.

    Source: Chen et al., "Training deep nets with sublinear memory cost" (2016).
    """
    for part, name in stages_of(task, "activation_checkpointing"):
        setattr(part, name, functools.partial(_computed_again, part, getattr(part, name)))


def _computed_again(part: nn.Module, stage: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    learns = [weights.requires_grad for weights in part.parameters()]
    if learns and not any(learns):
        return stage(*arguments, **more)
    return checkpoint(stage, *arguments, use_reentrant=False, **more)


def compile_stages(task: LightningModule, backend: str) -> None:
    """Compiles each stage by torch.compile, when it is first called. Weights keep their names.

    Stages of one class and shape share their code, so that this takes less time than a whole network does.
    The second size of a batch is compiled for any size.

    Args:
        backend: of torch.compile, as "inductor".

    Raises:
        UserError: the task has no stages; it needs second derivatives, which compiled code does not have.
    """
    if (name := _differentiating_twice(task)) is not None:
        raise UserError(
            f"{name} needs second derivatives, and compiled networks have none: leave compile out"
        )
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
    for part, name in stages_of(task, "compile"):
        compiled = functools.partial(torch.compile(getattr(type(part), name), backend=backend), part)
        before = getattr(vars(part).get(name), "func", None)
        again = before is _computed_again  # what is computed again is the compiled
        setattr(part, name, functools.partial(_computed_again, part, compiled) if again else compiled)


def _differentiating_twice(task: LightningModule) -> str | None:
    """The class of what does, among objectives and inferences."""
    parts = [one for part in task.modules() for one in (part, getattr(part, "inference", None))]
    found = (type(one).__name__ for one in parts if getattr(one, "second_derivatives", False))
    return next(found, None)
