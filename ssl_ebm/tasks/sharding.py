"""Weights, gradients and optimizer state shared out among processes (FSDP2), by Lightning and PyTorch.

A task calls parts of its network one by one, which the hooks of `fully_shard` on the network would not see.
So the whole task is what is sharded, and a step of it, as a whole, is the forward pass for which the weights
are gathered. Transformer blocks, which are called as such, are groups of their own: each is gathered for its
turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from ssl_ebm.networks.transformer import Block

# What is called while weights are shared out: each is a forward pass. (`representation`: by `OnlineProbe`.)
METHODS = ("training_step", "validation_step", "test_step", "predict_step", "representation")


class ShardedWeights(ModelParallelStrategy):
    """Lightning's strategy over all processes, with checkpoints that are ordinary files: one process loads
    them, and goes on from them.

    During a validation, test or prediction the weights are whole, for callbacks that compute in one process
    alone: gathering them there would wait for the others for ever.

    Source: Zhao et al., "PyTorch FSDP: experiences on scaling fully sharded data parallel" (2023).
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def on_validation_start(self) -> None:
        gather(self.model)

    def on_validation_end(self) -> None:
        share_out(self.model)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end


def gather(task: nn.Module | None) -> None:
    """Makes all weights whole, until `share_out`; all processes must call both."""
    with torch.inference_mode(False), torch.no_grad():  # training goes on with the tensors made here
        for group in _groups(task):
            group.set_reshard_after_forward(False, recurse=False)
            group.unshard()


def share_out(task: nn.Module | None) -> None:
    """Leaves to each process its part of the weights again."""
    for group in _groups(task):
        group.set_reshard_after_forward(group is not task, recurse=False)
        group.reshard()


@contextmanager
def gathered(task: nn.Module) -> Iterator[None]:
    """Weights are whole inside, where processes call the network differently often; all must enter. Does
    nothing where they are whole."""
    if not any(isinstance(weights, DTensor) for weights in task.parameters()):
        yield
        return
    gather(task)
    try:
        yield
    finally:
        share_out(task)


def _groups(task: nn.Module | None) -> list[FSDPModule]:
    modules = [] if task is None else task.modules()
    return [module for module in modules if isinstance(module, FSDPModule)]


def shard(task: LightningModule, mesh: DeviceMesh) -> None:
    """Leaves to each process its part of every weight; names stay, and so do the numbers of a training.

    Args:
        task: whose parameters become `DTensor`; once is enough.
        mesh: of the processes, with a dimension "data_parallel".
    """
    if isinstance(task, FSDPModule):
        return
    processes: Any = mesh["data_parallel"]
    blocks = [module for module in task.modules() if isinstance(module, Block)]
    for block in blocks:
        fully_shard(block, mesh=processes)
    empty = {weights for weights in task.parameters() if not weights.numel()}
    fully_shard(task, mesh=processes, reshard_after_forward=False, ignored_params=empty)
    # What a backward pass gathers ahead is by default what this process has called, which a callback in one
    # process alone changes: the others would then not be there. The first block gathers what is whole.
    groups: list[Any] = [task, *blocks, task]
    for before, group in pairwise(groups):
        group.set_modules_to_backward_prefetch([before])
    for name in METHODS:
        if hasattr(task, name):
            register_fsdp_forward_method(task, name)


def class_of(task: LightningModule) -> type:
    """The task's own class: `fully_shard` gives it another one, made for the purpose."""
    return next(one for one in type(task).__mro__ if not issubclass(one, FSDPModule))


def own_part(weights: Tensor) -> Tensor:
    """What this process has of a tensor."""
    return weights.to_local() if isinstance(weights, DTensor) else weights
