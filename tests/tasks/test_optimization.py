"""The optimizer that the tasks share, run by a Trainer, against the formulas of AdamW and of its schedule."""

import io
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader
from two_futures import trainer

from ssl_ebm.errors import UserError
from ssl_ebm.networks.transformer import Block
from ssl_ebm.tasks.optimization import OptimizersAsOne, optimizer_with_cosine

STEPS, WARM_UP, LR, DECAY, CLIP = 6, 2, 0.1, 0.2, 1.5


class Linear(LightningModule):
    """A loss whose gradient is whatever the batch says."""

    def __init__(self, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        generator = torch.Generator().manual_seed(0)
        self.matrix = torch.nn.Parameter(torch.randn(2, 3, generator=generator))
        self.bias = torch.nn.Parameter(torch.randn(3, generator=generator))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.matrix * batch[:2]).sum() + (self.bias * batch[2]).sum()

    def configure_optimizers(self) -> Any:
        return optimizer_with_cosine(self, LR, DECAY, WARM_UP, self.momentum)


def train(gradients: Tensor, steps: int, momentum: float = 0.9, **settings: Any) -> Linear:
    model = Linear(momentum)
    trainer(steps, **settings).fit(model, DataLoader(list(gradients), batch_size=None))
    return model


@pytest.mark.parametrize(("precision", "momentum"), [("32-true", 0.9), ("bf16-mixed", 0.9), ("32-true", 0.0)])
def test_weights_are_those_of_the_formula(precision: str, momentum: float) -> None:
    gradients = torch.randn(STEPS, 3, 3, generator=torch.Generator().manual_seed(1))
    model = train(gradients, STEPS, momentum, precision=precision, gradient_clip_val=CLIP)

    start = Linear()
    weights = np.concatenate([start.matrix.detach().numpy(), start.bias.detach().numpy()[None]]).astype(float)
    decay = np.array([[DECAY], [DECAY], [0.0]])  # on matrices alone
    mean, square = np.zeros((3, 3)), np.zeros((3, 3))
    clipped = 0
    for step, gradient in enumerate(gradients.numpy().astype(float)):
        norm = np.linalg.norm(gradient)
        clipped += norm > CLIP
        gradient = gradient * min(1.0, CLIP / norm)
        lr = LR * min(1.0, (step + 1) / (WARM_UP + 1)) * (1 + math.cos(math.pi * step / STEPS)) / 2
        mean = momentum * mean + (1 - momentum) * gradient
        square = 0.99 * square + 0.01 * gradient**2
        unbiased = mean / (1 - momentum ** (step + 1)), square / (1 - 0.99 ** (step + 1))
        weights = weights * (1 - lr * decay) - lr * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    assert clipped >= 2
    assert model.matrix.detach().numpy() == pytest.approx(weights[:2], abs=1e-5)
    assert model.bias.detach().numpy() == pytest.approx(weights[2], abs=1e-5)


def test_a_training_without_end_is_refused() -> None:
    with pytest.raises(UserError, match=r"max_steps or trainer\.max_epochs"):
        train(torch.zeros(1, 3, 3), steps=-1)


class Blocks(LightningModule):
    """A transformer block between two other layers; the gradient of every weight is a constant."""

    def __init__(self, optimizer: Any = "muon") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.optimizer = optimizer
        self.table = torch.nn.Embedding(5, 12)
        self.block = Block(12, 3, mlp_ratio=2, qkv_bias=True)
        self.head = torch.nn.Linear(12, 5)
        self.slopes = {name: torch.randn_like(p) for name, p in self.named_parameters()}
        self.seen = [deepcopy(self.state_dict())]

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return torch.stack([(p * self.slopes[n]).sum() for n, p in self.named_parameters()]).sum() * batch

    def on_train_batch_end(self, *args: Any) -> None:
        self.seen.append(deepcopy(self.state_dict()))

    def configure_optimizers(self) -> Any:
        return optimizer_with_cosine(self, LR, DECAY, WARM_UP, optimizer=self.optimizer)


SCALES = torch.tensor([1.0, -3.0, 0.5])  # of the gradients of three steps
IN_BLOCK = ("block.attn.qkv.weight", "block.attn.proj.weight", "block.mlp.fc1.weight", "block.mlp.fc2.weight")


def blocks(optimizer: str) -> Blocks:
    model = Blocks(optimizer)
    trainer(len(SCALES)).fit(model, DataLoader(list(SCALES), batch_size=None))
    return model


def test_muon_moves_matrices_of_blocks_along_their_singular_vectors_alike() -> None:
    model = blocks("muon")
    for name in IN_BLOCK:
        slope = model.slopes[name].double().numpy()
        left, _, right = np.linalg.svd(slope, full_matrices=False)
        mean = 0.0  # the momentum, in units of the slope
        for step, scale in enumerate(SCALES.tolist()):
            mean = 0.95 * mean + 0.05 * scale
            lr = LR * min(1.0, (step + 1) / (WARM_UP + 1)) * (1 + math.cos(math.pi * step / len(SCALES))) / 2
            before, after = (model.seen[step + k][name].double().numpy() for k in (0, 1))
            moved = (before * (1 - lr * DECAY) - after) / (lr * 0.2 * math.sqrt(max(slope.shape)))
            along = left.T @ moved @ right.T * np.sign(scale + 0.95 * (mean - scale))
            assert np.diag(along) == pytest.approx(0.93, abs=0.3)  # Newton-Schulz: about 0.7 to 1.2
            assert np.abs(along - np.diag(np.diag(along))).max() < 0.03  # bfloat16


def test_muon_leaves_other_weights_to_adamw() -> None:
    muon, adamw = blocks("muon").state_dict(), blocks("adamw").state_dict()
    for name in muon:
        assert torch.equal(muon[name], adamw[name]) == (name not in IN_BLOCK), name


def test_optimizers_as_one_go_on_from_a_checkpoint() -> None:
    def made(model: Blocks) -> OptimizersAsOne:
        inside = [p for n, p in model.named_parameters() if n in IN_BLOCK]
        others = [p for n, p in model.named_parameters() if n not in IN_BLOCK]
        return OptimizersAsOne(torch.optim.Muon(inside, lr=0.01), torch.optim.AdamW(others, lr=0.01))

    def step(model: Blocks, optimizer: OptimizersAsOne, scale: float, lr: float) -> None:
        for group in optimizer.param_groups:  # as a schedule does
            group["lr"] = lr
        optimizer.zero_grad()
        model.training_step(torch.tensor(scale), 0).backward()
        optimizer.step()

    model = Blocks()
    optimizer = made(model)
    step(model, optimizer, 1.0, 0.02)
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    resumed = Blocks()
    resumed.load_state_dict(weights)
    other = made(resumed)
    other.load_state_dict(state)
    for lr in (0.03, 0.0):
        before = deepcopy(resumed.state_dict())
        step(model, optimizer, -2.0, lr)
        step(resumed, other, -2.0, lr)
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, resumed.state_dict()[name]), name
            assert torch.equal(weight, before[name]) == (lr == 0), name


def test_a_training_by_muon_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    class Saving(Blocks):
        def on_train_batch_end(self, *args: Any) -> None:
            super().on_train_batch_end()
            if len(self.seen) == 3:
                self.trainer.save_checkpoint(tmp_path / "two.ckpt")

    batches = DataLoader([torch.tensor(1.0)] * 5, batch_size=None)
    whole, rest = Saving(), Blocks()
    trainer(5).fit(whole, batches)
    trainer(5).fit(rest, batches, ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert len(rest.seen) == 1 + 3
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, rest.state_dict()[name]), name


def test_muon_without_blocks_and_an_unknown_optimizer_are_refused() -> None:
    class Without(Linear):
        def configure_optimizers(self) -> Any:
            return optimizer_with_cosine(self, LR, DECAY, WARM_UP, optimizer="muon")

    with pytest.raises(UserError, match="transformer blocks, of which this network has none"):
        trainer(1).fit(Without(), DataLoader([torch.zeros(3, 3)], batch_size=None))
    with pytest.raises(UserError, match="optimizer is 'sgd': use adamw or muon"):
        blocks("sgd")


def test_muon_refuses_matrices_that_processes_share(tmp_path: Path) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = Blocks()
        fully_shard(model.block, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(UserError, match="optimizer muon needs whole matrices"):
            optimizer_with_cosine(model, LR, DECAY, WARM_UP, optimizer="muon")
    finally:
        torch.distributed.destroy_process_group()
