"""Stopping a training whose loss explodes, or whose loss or weights are no longer finite, before such weights
are saved.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_ebm.data.loading import StreamData
from ssl_ebm.errors import UserError
from ssl_ebm.tasks.saving import note_data
from ssl_ebm.tasks.sharding import class_of, own_part, shard

LABELS = ("label", "position", "velocity")  # entries of a batch that say what probes ask for

# Optimizer steps between two looks at the loss, each of which waits for the device.
CHECK_STEPS = 50

# A loss farther from 0 has exploded. Neighbouring float32 numbers are 1,024 apart there, so what is learnt is
# lost in rounding; a cross-entropy is in the tens, a mean squared error of pixels below 1, and summed over
# 3 x 224 x 224 of them below 150,528.
MAX_LOSS = 1e10

# What a gradient scaler's factor is down to where its overflows are no longer its search: the gradient itself
# is not finite. As `min_loss_scale` of DeepSpeed.
LEAST_SCALE = 1.0


class DivergenceWatch(nn.Module):
    """Remembers, on the device, whether anything diverged; asking it is what waits for the device.

    In no checkpoint; of several processes each remembers what it saw itself.

    Attributes:
        diverged: (), bool: a loss, of a step that was not left out, or a weight.
        value: (), float32: the first loss that diverged, NaN where it was among weights; 0 where none has.
        batch: (), int64: the training batch in which that was, or a gradient that left a step out, counted
            from 0; -1 where it was in none.
        skipped: (), int64: steps that were left out because their gradient or loss diverged.
        told: how many of them have been warned of.
        norms, norms_step: (P,), float32, and (), int64: norms of the weights, and after which optimizer step
            they were these; of the last look at which they were finite, and all losses until then.
    """

    TENSORS = ("diverged", "value", "batch", "skipped", "norms", "norms_step")

    def __init__(self) -> None:
        super().__init__()
        # No buffers: DistributedDataParallel would make those of all processes the first one's in each step.
        self.diverged = torch.zeros((), dtype=torch.bool)
        self.value = torch.zeros(())
        self.batch = torch.full((), -1)
        self.skipped = torch.zeros((), dtype=torch.int64)
        self.told = 0
        self.norms = torch.empty(0)
        self.norms_step = torch.zeros((), dtype=torch.int64)
        self.current = -1  # number of the batch that is being trained on

    def begin(self) -> None:
        """Forgets what an earlier training has seen."""
        for value, start in ((self.diverged, False), (self.value, 0), (self.batch, -1), (self.skipped, 0)):
            value.fill_(start)
        self.told, self.current = 0, -1

    @property
    def earliness(self) -> Tensor:
        """(), int64: greater where `batch` is earlier, and of one batch where the loss diverged."""
        when = 2 * self.batch + (self.value == 0)  # a gradient is that of all processes, a loss of one
        return torch.where(self.batch < 0, torch.iinfo(torch.int64).min, -when)

    def _apply(self, fn: Any, recurse: bool = True) -> DivergenceWatch:
        super()._apply(fn, recurse)
        for name in self.TENSORS:
            setattr(self, name, fn(getattr(self, name)))
        return self

    def see(self, values: Tensor, largest: float = math.inf) -> None:
        """Remembers it if any of the values is not finite, or is farther from 0 than `largest`."""
        values = values.detach()
        good = values.isfinite()
        if largest < math.inf:
            good = good & (values.abs() <= largest)
        bad = ~good.all()
        shown = values if values.ndim == 0 else torch.full((), math.nan, device=values.device)
        first = bad & (self.value == 0)
        # In place: what is made in a validation, where a checkpoint may be saved, cannot be changed later.
        self.value.copy_(torch.where(first, shown.to(self.value), self.value))
        self.batch.copy_(torch.where(first, self.current, self.batch))
        self.diverged |= bad

    def leave_out(self, bad: Tensor, expected: Tensor) -> None:
        """Forgives the loss of a step that is left out, and counts the step.

        Args:
            bad: (), bool: the step is left out.
            expected: (), bool: that is normal, and is not counted where the loss did not diverge.
        """
        counted = bad & (self.diverged | ~expected)
        self.batch.copy_(torch.where(counted & (self.batch < 0), self.current, self.batch))
        self.skipped += counted
        self.diverged &= ~bad

    def tell(self, skipped: int) -> None:
        """Begins anew once it has been said that steps were left out: the next one is a first one again."""
        self.told = skipped
        self.value.zero_()
        self.batch.fill_(-1)


class Batch(dict[str, Any]):
    """What a task gets of the data; an entry that is not there is the mistake of who chose the data."""

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f"the task needs {name!r}, and the data give {', '.join(self)}: choose data that go with it"
        )


class WatchedTask(LightningModule):
    """A task that stops when its loss explodes or a weight is no longer finite, and that sees no labels.

    Labels that the data have are taken out of every batch before the task gets it, unless it says that it
    `sees_labels`: a pretext task cannot learn from them, whatever its steps do.
    `training_step` hands its loss to ``self.divergence.see``, and `max_loss`. Settings: `lr` among the
    hyper-parameters.

    Attributes:
        draws: of what a training step draws for the items of a batch; None: torch's global generator. See
            `ssl_ebm.tasks.seeding.SeededSteps`.
        max_loss: a loss farther from 0 has diverged, as one that is not finite has. inf: no finite one has.
        skip_steps: steps that may be left out because their gradient is not finite, or a loss has diverged,
            before training stops. 0 looks at no gradient. How many were is looked at every `CHECK_STEPS`
            steps, at each checkpoint and at the end.
            Steps that a gradient scaler leaves out to find its factor (16-mixed) are not counted: those whose
            loss is finite while the factor, which it then halves, is above `LEAST_SCALE`.
        can_be_sharded: whether it is known to train with sharded weights, see `ssl_ebm.tasks.sharding`.
        lr_reference_batch: items in the optimizer step that `lr` is for; it is scaled to the step that is
            taken, see `ssl_ebm.tasks.learning_rate`. None: `lr` as it stands.
    """

    sees_labels = False
    can_be_sharded = False

    def __init__(self) -> None:
        super().__init__()
        self.divergence = DivergenceWatch()
        self.draws: torch.Generator | None = None
        self.max_loss = MAX_LOSS
        self.skip_steps = 0
        self._steps_before = 0
        self.lr_reference_batch: int | None = None

    def configure_model(self) -> None:
        if self.device_mesh is None:  # no strategy that shards weights
            return
        if not self.can_be_sharded:
            name = type(self).__name__
            raise UserError(f"{name} does not train with sharded weights: use configs/strategies/ddp.yaml")
        if self.skip_steps:
            raise UserError("skip_steps looks at whole gradients, and these are sharded: set it to 0")
        shard(self, self.device_mesh)

    def setup(self, stage: str) -> None:
        """Looks whether Lightning will call the hook below, in whose place it calls that of the data.

        Raises:
            UserError: the data have one, and the task sees no labels.
        """
        data = getattr(self.trainer, "datamodule", None)
        own = isinstance(data, LightningDataModule) and is_overridden("on_before_batch_transfer", data)
        if own and not self.sees_labels:
            raise UserError(
                f"on_before_batch_transfer of {type(data).__name__} would take the place of the task's, "
                "which takes the labels out of a batch: call it on_after_batch_transfer"
            )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.sees_labels:
            return batch
        if not isinstance(batch, Mapping):
            raise UserError(
                f"the task needs batches with names, and the data give a {type(batch).__name__}: choose data "
                "that go with it"
            )
        return Batch({name: values for name, values in batch.items() if name not in LABELS})

    @property
    def objective_name(self) -> str:
        """What is trained, for the error."""
        return str(self.hparams["objective"])

    def on_fit_start(self) -> None:
        if not self.training:  # a task that was loaded is in evaluation mode, and a Trainer leaves it there
            self.train()
        if self.global_step and self.trainer.ckpt_path is None:  # of a checkpoint the step is yet to come
            rank_zero_warn(
                f"this Trainer has trained {self.global_step} steps: learning rate, optimizer and data begin "
                "anew, steps and temperature do not: go on with ckpt_path, or use a new Trainer"
            )

    def on_train_start(self) -> None:
        self.divergence.begin()
        self.divergence.norms, self.divergence.norms_step = self._norms()

    def logs_this_step(self) -> bool:
        """Whether the Trainer logs after the training step that is being taken; not where it never does."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.divergence.current = self.trainer.fit_loop.total_batch_idx
        self._steps_before = self.global_step

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if not self.skip_steps:
            return
        norms = torch._foreach_norm([p.grad for p in self.parameters() if p.grad is not None])
        bad = self.divergence.diverged | ~torch.stack(norms).isfinite().all()
        if self.trainer.world_size > 1:  # a loss is of one process, and a step is left out by all
            some = bad.float()
            torch.distributed.all_reduce(some, torch.distributed.ReduceOp.MAX)  # no wait, as `reduce` has
            bad = some > 0
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = torch.ones((), device=bad.device)
        scale = scale if scaler is None else scaler.scale(scale)  # `get_scale` would wait for the device
        self.divergence.leave_out(bad, expected=scale > LEAST_SCALE)
        # What a gradient scaler says to a fused optimizer, and `OptimizersAsOne` hears too: it then leaves
        # weights and moments as they are.
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]

    def on_train_batch_end(self, *_: Any) -> None:
        # Where gradients accumulate, a loss may be seen whose step is yet to be taken, or left out.
        stepped = self.global_step != self._steps_before
        if stepped and self.global_step % CHECK_STEPS == 0:
            self._stop_if_diverged()
            self._keep_norms()

    def on_validation_start(self) -> None:
        # What is drawn with such weights ends in errors of its own, which say nothing of the cause.
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._stop_if_weights_diverged()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A checkpoint never holds weights that a loss or gradient which diverged has touched.
        self._stop_if_weights_diverged()
        checkpoint["task"] = class_of(self).__name__
        note_data(checkpoint, self.trainer)

    def on_train_end(self) -> None:
        self._stop_if_weights_diverged()

    def _stop_if_weights_diverged(self) -> None:
        self.divergence.current = -1
        for weights in self.parameters():
            self.divergence.see(own_part(weights))
        self._stop_if_diverged()

    def _stop_if_diverged(self) -> None:
        """Waits for the device, and for all processes: they stop together."""
        watch, strategy = self.divergence, self.trainer.strategy
        own = torch.stack([watch.diverged, watch.skipped, watch.earliness])  # int64
        # After the training the task is on the CPU, where NCCL cannot reduce.
        all_of_them = strategy.reduce(own.to(strategy.root_device), reduce_op="max")
        diverged, skipped, earliest = all_of_them.tolist()
        if not diverged and skipped <= self.skip_steps:
            if skipped > watch.told:
                rank_zero_warn(
                    f"{skipped} steps left out so far, whose gradients were not finite or losses diverged"
                )
                watch.tell(skipped)
            return
        value = watch.value.item()
        # What one process began reaches the weights of all, whose batches are then not to blame.
        path = self._write_report(value, skipped) if int(watch.earliness) == earliest else ""
        what = f"a loss diverged or the gradient was not finite in {skipped} steps, more than skip_steps"
        what = self._what_diverged(value) if diverged else f"{what} ({self.skip_steps}),"
        exploded = diverged and math.isfinite(value)
        raise UserError(
            f"{self.objective_name}: {what} at or shortly before optimizer step {self.global_step}{path}; "
            f"lower lr ({self.hparams['lr']}) or set trainer.gradient_clip_val"
            f"{', or raise max_loss' if exploded else ''}"
        )

    def _what_diverged(self, value: float) -> str:
        """In words; the value is that of this process's watch."""
        if value == 0:
            return (
                f"the training loss is not finite or beyond max_loss ({self.max_loss:g}) in another process"
            )
        if math.isfinite(value):
            return f"the training loss is {value:g}, beyond max_loss ({self.max_loss:g}),"
        return f"the training loss is not finite ({value})"

    @torch.no_grad()
    def _norms(self) -> tuple[Tensor, Tensor]:
        """(P,), float32: norms of what this process has of each weight, and (), int64: after which step."""
        norms = torch.stack([_norm(own_part(p)) for p in self.parameters()])
        return norms, torch.full((), self.global_step, device=norms.device)

    def _keep_norms(self) -> None:
        """Not of weights that are not finite while the loss, of the step before, still is."""
        watch, (norms, step) = self.divergence, self._norms()
        finite = norms.isfinite().all()
        watch.norms = torch.where(finite, norms, watch.norms)
        watch.norms_step = torch.where(finite, step, watch.norms_step)

    def _named(self, norms: Tensor) -> dict[str, float | str]:
        """Norms by the names of the weights, for a file."""
        found = zip(self.named_parameters(), norms.tolist(), strict=True)
        return {name: norm if math.isfinite(norm) else str(norm) for (name, _), norm in found}

    def _write_report(self, value: float, skipped: int) -> str:
        """Writes what is known of it to `diverged.json` in the folder of the run; says where."""
        watch = self.divergence
        batch = None if watch.batch < 0 else int(watch.batch)  # weights alone: in none
        data: Any = getattr(self.trainer, "datamodule", None)
        # Of batches that are overfitted the Trainer chooses the items.
        known = (
            isinstance(data, StreamData)
            and batch is not None
            and not getattr(self.trainer, "overfit_batches", 0)
        )
        items = data.items_of_batch(batch) if known else None
        names = None
        with suppress(Exception):  # of a dataset of the user's own: the divergence matters more
            names = data.names_of_items(items) if items else None
        rank = f".{self.global_rank}" if self.trainer.world_size > 1 else ""
        path = Path(self.trainer.default_root_dir) / f"diverged{rank}.json"
        report = {
            "loss": "finite" if value == 0 else (value if math.isfinite(value) else str(value)),
            "batch": batch,
            "items": items,
            "names": names,
            "steps_left_out": skipped,
            "norms_of_weights_before": {"step": int(watch.norms_step), "norms": self._named(watch.norms)},
            "norms_of_weights_at_the_end": self._named(self._norms()[0]),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report, indent=1), encoding="utf-8")
        except OSError:  # a full disk: the error itself matters more
            return ""
        what = "the" if batch is None else f"batch {batch}; its items and the"
        return f" ({what} weights' norms are in {path})"


def _norm(weight: Tensor) -> Tensor:
    """(), float32; of half precision without a copy of it in single precision."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return torch.linalg.vector_norm(weight, dtype=wide).float()
