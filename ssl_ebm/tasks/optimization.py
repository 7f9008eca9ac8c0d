"""The optimizers and the schedule that the tasks share."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from ssl_ebm.errors import UserError
from ssl_ebm.networks.transformer import Block
from ssl_ebm.tasks.learning_rate import peak_rate

TrainingOptimizer = Literal["adamw", "muon"]

# Where torch updates all weights in one pass; on a processor that takes a third of the time.
FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")


def total_steps(module: LightningModule) -> float:
    """Optimizer steps of the whole training, inf where it has no end (max_steps = max_epochs = -1), or none
    that is known: epochs of a loader without a length."""
    steps = module.trainer.estimated_stepping_batches
    return steps if steps >= 0 else math.inf


def progress_of(module: LightningModule) -> float:
    """Share of the training that is done, 0 to 1; 0 where it has no end, 1 outside of a training."""
    trainer = module._trainer  # `trainer` raises where there is none
    if trainer is None or not trainer.training:
        return 1.0
    return min(1.0, module.global_step / total_steps(module))


def optimizer_with_cosine(
    module: LightningModule,
    lr: float,
    weight_decay: float,
    warmup_steps: int,
    momentum: float = 0.9,
    second_momentum: float = 0.99,  # a few thousand steps are too few for a memory of thousands
    rates: Sequence[tuple[Sequence[Parameter], float]] | None = None,
    optimizer: TrainingOptimizer = "adamw",
) -> Any:
    """AdamW or Muon (decay on matrices and convolutions alone), linear warm-up, cosine to zero at the last
    step.

    `momentum` and `second_momentum` are beta1 and beta2 of AdamW. The peak is `peak_rate` of `lr`.

    Muon, for the matrices of transformer blocks (`block_matrices`); AdamW keeps all else:

        M <- 0.95 M + 0.05 G,    W <- (1 - lr weight_decay) W - 0.2 sqrt(max(rows, columns)) lr U V^T

    where U S V^T is the singular value decomposition of G + 0.95 (M - G). Five Newton-Schulz iterations in
    bfloat16 stand for it: of singular values above 1/500 of the Frobenius norm they make 0.68 to 1.21, of
    smaller ones less. So the entries of an update have a root mean square of about 0.2 lr where a gradient is
    not of low rank, as those of AdamW have, whose lr and weight_decay serve here too.

    Args:
        rates: parameters, each list with the factor of its learning rate; None: all of the module, 1.
        optimizer: adamw or muon.

    Raises:
        UserError: the training has no end, or none that is known; a number is out of its range; muon where
            there is no block, or where processes share matrices out.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019); Jordan, "Muon: an optimizer
    for hidden layers in neural networks" (2024); the factor: Liu et al., "Muon is scalable for LLM training"
    (2025).
    """
    check_optimizer(optimizer)
    groups: list[dict[str, Any]] = []
    hidden: list[dict[str, Any]] = []
    lr = peak_rate(module, lr)
    chosen = {id(p) for p in block_matrices(module)} if optimizer == "muon" else set()
    for parameters, rate in rates or [(list(module.parameters()), 1.0)]:
        trained = [p for p in parameters if p.requires_grad and p.numel()]
        matrices, others = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
        of_blocks = [p for p in matrices if id(p) in chosen]
        matrices = [p for p in matrices if id(p) not in chosen]
        groups.append({"params": matrices, "lr": lr * rate, "weight_decay": weight_decay})
        groups.append({"params": others, "lr": lr * rate, "weight_decay": 0.0})
        hidden.append({"params": of_blocks, "lr": lr * rate, "weight_decay": weight_decay})
    fused = module.device.type in FUSED_DEVICES
    made: Any
    try:
        made = torch.optim.AdamW(groups, lr=lr, betas=(momentum, second_momentum), fused=fused)
    except ValueError as error:  # a number out of its range
        raise UserError(f"AdamW: {error}: set lr, weight_decay, momentum or second_momentum") from error
    if optimizer == "muon":
        _check_for_muon([p for group in hidden for p in group["params"]])
        made = OptimizersAsOne(torch.optim.Muon(hidden, lr=lr, adjust_lr_fn="match_rms_adamw"), made)
    # A fused optimizer offers to undo a gradient scaler's factor itself, and then Lightning (2.6) refuses to
    # clip gradients in any mixed precision, with a scaler or without. The scaler can undo it as well.
    made._step_supports_amp_scaling = False
    total = max(1, total_steps(module))
    if math.isinf(total):
        what = "the training has no end, which its learning rate and temperature need"
        if module.trainer.max_epochs != -1:
            raise UserError(f"{what}: epochs have none where the loader has no length: set trainer.max_steps")
        raise UserError(f"{what}: set trainer.max_steps or trainer.max_epochs")

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / (warmup_steps + 1))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    schedule = torch.optim.lr_scheduler.LambdaLR(made, factor)
    return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def check_optimizer(name: str) -> None:
    """Raises UserError for a name of none."""
    if name not in get_args(TrainingOptimizer):
        raise UserError(f"optimizer is {name!r}: use adamw or muon")


def block_matrices(module: nn.Module) -> list[Tensor]:
    """Weights of the linear layers inside of transformer blocks; not embeddings, heads, patches."""
    blocks = [part for part in module.modules() if isinstance(part, Block)]
    return [part.weight for block in blocks for part in block.modules() if isinstance(part, nn.Linear)]


def _check_for_muon(matrices: Sequence[Tensor]) -> None:
    if not matrices:
        raise UserError(
            "optimizer muon is for the matrices of transformer blocks, of which this network has none to "
            "train: set optimizer to adamw"
        )
    if any(isinstance(matrix, DTensor) for matrix in matrices):
        raise UserError(
            "optimizer muon needs whole matrices, and this strategy shares them out among processes: set "
            "optimizer to adamw, or the strategy to ddp"
        )


class OptimizersAsOne(torch.optim.Optimizer):
    """Several optimizers that step together, for a trainer that knows one.

    Groups and state are those of the parts, in their order, so that a schedule, a gradient scaler and a
    checkpoint find them. Where `found_inf`, a tensor, has been set to other than 0, as on a fused optimizer,
    a step leaves all as it is; to see that it waits for the device.

    Args:
        parts: optimizers of different parameters.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Gives the parts the groups and the state that are here."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state of a checkpoint.

        Raises:
            ValueError: it is that of other parameters.
        """
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of each; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not bool(getattr(self, "found_inf", False)):
            for part in self.parts:
                part.step()
        return loss
