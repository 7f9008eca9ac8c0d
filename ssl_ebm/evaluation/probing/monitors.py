"""Callbacks that watch a representation while it is learnt: a probe trained beside it, and its spread."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_ebm.data.loading import check_least, collate_of
from ssl_ebm.evaluation.callbacks import validation_set
from ssl_ebm.evaluation.isolation import isolated
from ssl_ebm.evaluation.prediction import load_items
from ssl_ebm.evaluation.probing.features import check_targets, chosen_items, extract, ready
from ssl_ebm.evaluation.probing.frozen import Frozen
from ssl_ebm.evaluation.probing.spread import alignment, deviation, lidar, rank_me, uniformity
from ssl_ebm.tasks.features import Pooling

HELD_OUT = 5  # of so many items one, for the accuracy of the online probe
ENOUGH = 4 * HELD_OUT  # recordings: with fewer, clips by themselves are held out
LOOKED_AT = 256  # clips, spread over the set, whose recordings are counted
COLLAPSED = 0.1  # share of the directions that features use: below, a warning says so


class OnlineProbe(Callback):
    """A linear layer with an optimizer of its own, trained on detached features while the task is trained.

    Cheaper than an exact probe at every look, and behind it, because the features change under it: watch its
    course, and take figures from `LinearProbe`. Every few steps it takes one step on a batch of its own data,
    but for one item, or clip, or recording of clips, or group of pictures, in five of the training items: it
    never learns from these, and its accuracy on them, over the last 20 batches, is logged as
    online_probe/accuracy. In a distributed run each process trains the same layer on the same batches.

    Args:
        data: labelled data.
        layer, pooling: as in `Probe`.
        every_n_steps: optimizer steps of the task between two of the probe.
        batch_size: items of each.
        lr: of its Adam.
        seed: of the order of items.
    """

    def __init__(
        self,
        data: LightningDataModule,
        layer: str | None = None,
        pooling: Pooling = "mean",
        every_n_steps: int = 10,
        batch_size: int = 128,
        lr: float = 1e-2,
        seed: int = 0,
    ) -> None:
        check_least(every_n_steps=(every_n_steps, 1), batch_size=(batch_size, 1))
        self.data, self.layer, self.pooling = data, layer, pooling
        self.every_n_steps, self.batch_size, self.lr, self.seed = every_n_steps, batch_size, lr, seed
        self.head: nn.Module | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._recent: list[Tensor] = []
        self._step = 0
        self._saved: dict[str, Any] | None = None
        self._restored = False  # for the training that is about to begin

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Frozen(pl_module, self.layer, self.pooling)
        check_targets(ready(self.data, pl_module), ("label",), pl_module, splits=("train",))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._restored:
            self._begin(None)  # what was learnt in an earlier training is not of this one
        self._restored = False

    def _begin(self, saved: dict[str, Any] | None) -> None:
        self.head = self._optimizer = None
        self._recent.clear()
        self._saved = saved
        self._step = 0 if saved is None else saved["step"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self.every_n_steps or step == self._step:
            return
        self._step = step
        dataset = ready(self.data, pl_module).train_dataset
        dataset = dataset.plain() if hasattr(dataset, "plain") else dataset
        drawn = np.random.default_rng([self.seed, step]).integers(0, len(dataset), self.batch_size)
        items = load_items(dataset, [int(i) for i in drawn])
        stacked = collate_of(dataset)(items)
        with isolated(pl_module):
            features = Frozen(pl_module, self.layer, self.pooling)(stacked).detach().clone()
            alone = stacked.get("clip", torch.from_numpy(drawn))
            numbers = stacked["group"] if _has_recordings(dataset) else alone
            held = _held_out(numbers).to(features.device)
            self._learn(features, stacked["label"].to(features.device), held)
        if len(self._recent) == 20:
            right, items = torch.stack(self._recent).sum(0).tolist()
            self._recent.clear()
            for logger in trainer.loggers if items else ():  # of very few clips none may be held out
                logger.log_metrics({"online_probe/accuracy": right / items}, step=step)

    def _learn(self, features: Tensor, labels: Tensor, held: Tensor) -> None:
        if self.head is None:
            self._start(features.shape[1], features.device)
        assert self.head is not None
        assert self._optimizer is not None
        with torch.enable_grad():
            scores = self.head(features)
            right = (scores.argmax(1) == labels) & held
            self._recent.append(torch.stack([right.sum(), held.sum()]))
            self._optimizer.zero_grad()
            losses = cross_entropy(scores, labels, reduction="none").masked_fill(held, 0)
            (losses.sum() / (~held).sum().clamp_min(1)).backward()
            self._optimizer.step()

    def _start(self, width: int, device: torch.device) -> None:
        classes = len(getattr(self.data, "classes", []))
        if not classes:
            labels = [int(one["label"]) for one in load_items(self.data.train_dataset, range(256))]  # type: ignore[attr-defined]
            classes = max(labels) + 1
        self.head = nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, classes)).to(device)
        linear: Any = self.head[1]
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        self._optimizer = torch.optim.Adam(self.head.parameters(), self.lr)
        if self._saved is not None:
            self.head.load_state_dict(self._saved["head"])
            self._optimizer.load_state_dict(self._saved["optimizer"])

    def state_dict(self) -> dict[str, Any]:
        """Goes into the checkpoint beside the task, so that a resumed run goes on with it."""
        if self.head is None or self._optimizer is None:
            return {}
        return {"head": self.head.state_dict(), "optimizer": self._optimizer.state_dict(), "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._begin(state_dict)
            self._restored = True


def _held_out(numbers: Tensor) -> Tensor:
    """Which of the items, clips or recordings with these numbers (B,) are held out; of every run of numbers,
    and of every second or tenth number, as many, for the order may be that of classes (Knuth's multiplicative
    hashing)."""
    return numbers * 2654435769 % 2**32 < 2**32 // HELD_OUT


def _has_recordings(dataset: Any) -> bool:
    """Whether there are enough recordings (of pictures: groups), as far as some clips tell, to hold a part of
    them out."""
    while not hasattr(dataset, "groups") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    groups = getattr(dataset, "groups", None)
    if groups is None:
        return False
    clips = len(getattr(dataset, "clips", dataset))  # or pictures
    some = min(clips, LOOKED_AT)
    return len({int(groups[place * clips // some]) for place in range(some)}) >= ENOUGH


class CollapseMonitor(Callback):
    """Logs how much of its space the representation uses, and warns when it collapses.

    On validation items, after a validation: collapse/rank_me (effective rank), collapse/deviation (near 1:
    spread over the sphere; 0: all the same), collapse/uniformity; and where the training data are augmented,
    of two augmented views of training items, collapse/alignment and collapse/lidar. See
    `ssl_ebm.evaluation.probing.spread` for the formulas.

    Args:
        items: how many, at most.
        layer, pooling: as in `Probe`.
        every_n_validations: how often.
    """

    def __init__(
        self,
        items: int = 1024,
        layer: str | None = None,
        pooling: Pooling = "mean",
        every_n_validations: int = 1,
    ) -> None:
        check_least(items=(items, 2), every_n_validations=(every_n_validations, 1))
        self.items, self.layer, self.pooling = items, layer, pooling
        self.every_n_validations = every_n_validations
        self._validations = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validations = 0

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if self._validations % self.every_n_validations == 0:
            self._look(trainer, pl_module)
        self._validations += 1

    def _look(self, trainer: Trainer, task: LightningModule) -> None:
        frozen = Frozen(task, self.layer, self.pooling)
        dataset = validation_set(trainer)
        first = load_items(dataset, [0])[0]
        target = next(iter(name for name, value in first.items() if value.ndim == 0), next(iter(first)))
        features = extract(frozen, dataset, chosen_items(dataset, self.items, 0), (target,)).features
        figures = {
            "rank_me": rank_me(features),
            "deviation": deviation(features),
            "uniformity": uniformity(features),
        }
        views = self._views(trainer, frozen)
        if views is not None:
            figures |= {"alignment": alignment(views), "lidar": lidar(views)}
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                named = {f"collapse/{name}": value for name, value in figures.items()}
                logger.log_metrics(named, step=trainer.global_step)
        if figures["deviation"] < COLLAPSED:
            rank_zero_warn(
                f"the representation collapses: its deviation on the sphere is {figures['deviation']:.3f} of "
                f"1 at step {trainer.global_step}; all inputs look alike to it"
            )

    def _views(self, trainer: Trainer, frozen: Frozen) -> Tensor | None:
        """Features of two augmented views of training items, (N, 2, D); None where nothing is augmented."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        dataset: Any = getattr(data, "train_dataset", None)
        if getattr(dataset, "augmentation", None) is None:
            return None
        places = chosen_items(dataset, self.items, 0)
        views = []
        with isolated(frozen.task):
            for epoch in (0, 1):  # an index beyond the length: another draw of the augmentation
                found = []
                for start in range(0, len(places), 256):
                    part = [place + epoch * len(dataset) for place in places[start : start + 256]]
                    items = load_items(dataset, part)
                    batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
                    found.append(frozen(data.on_after_batch_transfer(batch, 0)).cpu())
                views.append(torch.cat(found))
        return torch.stack(views, 1)
