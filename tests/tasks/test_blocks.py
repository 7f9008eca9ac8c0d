"""Checkpointed and compiled blocks: the same losses and gradients, fewer activations kept, the same names."""

from typing import Any

import pytest
import torch
from several_processes import Items, masked_autoencoder, masked_text
from torch import Tensor
from two_futures import small

from ssl_ebm.errors import UserError
from ssl_ebm.tasks.blocks import checkpoint_activations, compile_blocks


def loss_and_gradients(task: Any) -> list[Tensor]:
    """Of one batch, with the same draws each time."""
    generator, items = torch.Generator().manual_seed(0), Items(4)
    if hasattr(task, "hide"):
        energy, _ = task.energies(task.hide(items.tokens, generator))
        loss = energy.mean()
    else:
        loss = task.losses(task.occluded(items.images, generator), items.images, 1.0)["loss"]
    return [loss.detach(), *torch.autograd.grad(loss, [p for p in task.parameters() if p.requires_grad])]


def kept_bytes(task: Any) -> int:
    """What autograd keeps for the gradient of one batch."""
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        task.representation(Items(4).tokens)
    return sum(sizes)


@pytest.mark.parametrize("make", [masked_autoencoder, lambda: masked_text("token")], ids=["pictures", "text"])
@pytest.mark.parametrize("change", [checkpoint_activations, lambda task: compile_blocks(task, "aot_eager")])
def test_losses_and_gradients_stay_the_same(make: Any, change: Any) -> None:
    expected, names = loss_and_gradients(make()), list(make().state_dict())
    task = make()
    change(task)
    assert list(task.state_dict()) == names
    for found, wanted in zip(loss_and_gradients(task), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_checkpointed_blocks_keep_less() -> None:
    task = masked_text("token")
    before = kept_bytes(task)
    checkpoint_activations(task)
    assert kept_bytes(task) < 0.5 * before


@pytest.mark.parametrize("change", [checkpoint_activations, lambda task: compile_blocks(task, "inductor")])
def test_a_task_without_blocks_is_named(change: Any) -> None:
    with pytest.raises(UserError, match="FramePrediction has none"):
        change(small())
