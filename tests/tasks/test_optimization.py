"""The optimizers that the tasks share, run by a Trainer, against the formulas of them and of the schedule."""

import io
import math
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule
from small_backbones import PATCHES, text_network
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, IterableDataset
from two_futures import trainer

from ssl_ebm.errors import UserError
from ssl_ebm.networks.transformer import Block
from ssl_ebm.tasks import Inpainting, MaskedText
from ssl_ebm.tasks.optimization import OptimizersAsOne, optimizer_with_cosine, progress_of

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


class Unmeasured(IterableDataset[Tensor]):
    """Four batches, and no length."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.zeros(3, 3)] * 4)


def test_epochs_of_a_loader_without_a_length_are_refused() -> None:
    batches = DataLoader(Unmeasured(), batch_size=None)
    with pytest.raises(UserError, match=r"the loader has no length: set trainer\.max_steps$"):
        trainer(-1, max_epochs=2).fit(Linear(), batches)
    trainer(3, max_epochs=2).fit(Linear(), batches)  # has an end

    seen: list[float] = []

    class OwnOptimizer(Linear):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            seen.append(progress_of(self))
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer(-1, max_epochs=1).fit(OwnOptimizer(), batches)
    assert seen == [0.0] * 4


class Blocks(LightningModule):
    """A transformer block between two other layers, with gradients that do not depend on the weights.

    Of three steps they are A, 0.1 B - 0.463 A and B. With a momentum of 0.95, and Nesterov's look ahead, the
    second update is one along B alone; with another A is a part of it.
    """

    def __init__(self, optimizer: Any = "muon") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.optimizer = optimizer
        self.table = torch.nn.Embedding(5, 12)
        self.block = Block(12, 3, mlp_ratio=2, qkv_bias=True)
        self.head = torch.nn.Linear(12, 5)
        a, b = ({name: torch.randn_like(p) for name, p in self.named_parameters()} for _ in range(2))
        left = 0.05 * 0.95**2 / (0.05 + 0.05 * 0.95)
        self.slopes = [a, {name: 0.1 * b[name] - left * a[name] for name in a}, b]
        self.seen = [deepcopy(self.state_dict())]

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        slopes = self.slopes[int(batch)]
        return torch.stack([(p * slopes[n]).sum() for n, p in self.named_parameters()]).sum()

    def on_train_batch_end(self, *args: Any) -> None:
        self.seen.append(deepcopy(self.state_dict()))

    def configure_optimizers(self) -> Any:
        return optimizer_with_cosine(self, LR, DECAY, WARM_UP, optimizer=self.optimizer)


IN_BLOCK = ("block.attn.qkv.weight", "block.attn.proj.weight", "block.mlp.fc1.weight", "block.mlp.fc2.weight")


def blocks(optimizer: str) -> Blocks:
    model = Blocks(optimizer)
    trainer(3).fit(model, DataLoader(list(torch.arange(3)), batch_size=None))
    return model


def test_muon_moves_matrices_of_blocks_along_their_singular_vectors_alike() -> None:
    model = blocks("muon")
    for name in IN_BLOCK:
        mean = np.zeros(tuple(model.slopes[0][name].shape))
        for step, slopes in enumerate(model.slopes):
            slope = slopes[name].double().numpy()
            mean = 0.95 * mean + 0.05 * slope
            left, size, right = np.linalg.svd(slope + 0.95 * (mean - slope), full_matrices=False)
            assert size.min() > np.linalg.norm(size) / 500  # what the iteration is able to raise
            lr = LR * min(1.0, (step + 1) / (WARM_UP + 1)) * (1 + math.cos(math.pi * step / 3)) / 2
            before, after = (model.seen[step + k][name].double().numpy() for k in (0, 1))
            moved = (before * (1 - lr * DECAY) - after) / (lr * 0.2 * math.sqrt(max(slope.shape)))
            along = left.T @ moved @ right.T
            assert np.diag(along).min() > 0.67
            assert np.diag(along).max() < 1.22
            # 15 products in bfloat16, of which each rounds by 2^-9; without decay it would be 0.13
            assert np.abs(along - np.diag(np.diag(along))).max() < 0.05


def test_muon_leaves_other_weights_to_adamw() -> None:
    muon, adamw = blocks("muon").state_dict(), blocks("adamw").state_dict()
    for name in muon:
        assert torch.equal(muon[name], adamw[name]) == (name not in IN_BLOCK), name


def test_optimizers_as_one_go_on_from_a_checkpoint() -> None:
    def made(model: Blocks) -> OptimizersAsOne:
        inside = [p for n, p in model.named_parameters() if n in IN_BLOCK]
        others = [p for n, p in model.named_parameters() if n not in IN_BLOCK]
        return OptimizersAsOne(torch.optim.Muon(inside, lr=0.01), torch.optim.AdamW(others, lr=0.01))

    def step(model: Blocks, optimizer: OptimizersAsOne, which: int, lr: float) -> None:
        for group in optimizer.param_groups:  # as a schedule does
            group["lr"] = lr
        optimizer.zero_grad()
        model.training_step(torch.tensor(which), 0).backward()
        optimizer.step()

    model = Blocks()
    optimizer = made(model)
    step(model, optimizer, 0, 0.02)
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
        step(model, optimizer, 2, lr)
        step(resumed, other, 2, lr)
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, resumed.state_dict()[name]), name
            assert torch.equal(weight, before[name]) == (lr == 0), name


def test_a_training_by_muon_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    class Saving(Blocks):
        def on_train_batch_end(self, *args: Any) -> None:
            super().on_train_batch_end()
            if len(self.seen) == 3:
                self.trainer.save_checkpoint(tmp_path / "two.ckpt")

    batches = DataLoader([torch.tensor(0)] * 5, batch_size=None)
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
    makers = (
        blocks,
        lambda name: MaskedText(text_network(), optimizer=name),
        lambda name: Inpainting(optimizer=name),
    )
    for make in makers:
        with pytest.raises(UserError, match="optimizer is 'sgd': use adamw or muon"):
            make("sgd")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Inpainting(network=PATCHES, codes=5, optimizer="muon"),
        lambda: MaskedText(text_network(), optimizer="muon"),
    ],
    ids=["patches", "text"],
)
def test_tasks_give_the_matrices_of_their_blocks_to_muon(make: Callable[[], LightningModule]) -> None:
    task = make()
    task.trainer = trainer(2)
    task.trainer.strategy.connect(task)
    made = task.configure_optimizers()["optimizer"]
    names = {id(p): name for name, p in task.named_parameters()}
    of_muon = made.param_groups[0]
    inside = re.compile(r"(blocks|decoder)\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])\.weight$")
    assert {names[id(p)] for p in of_muon["params"]} == {n for n in names.values() if inside.search(n)}
    assert of_muon["adjust_lr_fn"] == "match_rms_adamw"
    assert sum(len(group["params"]) for group in made.param_groups) == sum(
        p.requires_grad for p in task.parameters()
    )


def test_a_step_of_optimizers_as_one_is_left_out_where_that_is_asked() -> None:
    model = Blocks()
    optimizer = OptimizersAsOne(torch.optim.AdamW(model.parameters(), lr=0.1))
    for bad, same in ((0.0, False), (1.0, True), (0.0, False)):
        before = deepcopy(model.state_dict())
        model.training_step(torch.tensor(0), 0).backward()
        optimizer.found_inf = torch.tensor(bad)  # type: ignore[attr-defined]
        optimizer.step()
        assert torch.equal(before["head.weight"], model.head.weight) == same


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
