"""Callbacks that probe a representation while it is learnt. They leave the training as it is, to the bit."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info

from ssl_ebm.data.loading import check_least
from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.prediction import load_items
from ssl_ebm.evaluation.probing.attentive import attentive_probe
from ssl_ebm.evaluation.probing.features import check_targets, chosen_items, extract, ready, target_names
from ssl_ebm.evaluation.probing.frozen import Frozen
from ssl_ebm.evaluation.probing.probes import (
    PENALTIES,
    check_knn,
    check_penalties,
    knn_probe,
    linear_probe,
    regression_probe,
)
from ssl_ebm.evaluation.probing.results import Classified, Regressed, Samples
from ssl_ebm.files import make_folder, write_whole
from ssl_ebm.tasks.features import Pooling
from ssl_ebm.tasks.secret_settings import shown_description
from ssl_ebm.tasks.sharding import gathered

Result = Classified | Regressed


class Probe(Callback, ABC):
    """Fits a simple model to frozen features of labelled data of its own, and says how well it does.

    The features are those of the task in evaluation mode, of items that are not augmented; of several
    processes each computes a part. Neither loss, gradients, optimizer, step count nor any random state of
    the training is touched: weights are the same to the bit with and without probes.

    While training it is the validation split that is measured, every so many epochs or optimizer steps and
    when training ends; in `test` it is the test split. The last figure counts, never the best one. Each is
    logged as probe/NAME/..., and added to ``<default_root_dir>/probe_NAME.json``, a list, which each training
    begins anew unless it goes on from a checkpoint; that of the one before is then probe_NAME.before.json.

    Args:
        data: labelled data; need not be that of the training.
        name: of the probe, in logs and files; null: that of its kind. No two of a Trainer have the same.
        layer, pooling: what the features are; see `Frozen`. null: the task's `representation`.
        every_n_epochs, every_n_steps: when to probe before the end of the training; 0: not at all.
        train_items, test_items: how many are drawn at most; null: all.
        batch_size: items that pass at once.
        seed: of the draw.

    Raises:
        UserError: a setting out of its range, or a name twice.
    """

    kind: str

    def __init__(
        self,
        data: LightningDataModule,
        name: str | None = None,
        layer: str | None = None,
        pooling: Pooling = "mean",
        every_n_epochs: int = 0,
        every_n_steps: int = 0,
        train_items: int | None = 10_000,
        test_items: int | None = 10_000,
        batch_size: int = 256,
        seed: int = 0,
    ) -> None:
        check_least(
            every_n_epochs=(every_n_epochs, 0), every_n_steps=(every_n_steps, 0), batch_size=(batch_size, 1),
            train_items=(2 if train_items is None else train_items, 2),
            test_items=(1 if test_items is None else test_items, 1),
        )  # fmt: skip
        self.data, self.name = data, name or self.kind
        self.layer, self.pooling = layer, pooling
        self.every_n_epochs, self.every_n_steps = every_n_epochs, every_n_steps
        self.train_items, self.test_items = train_items, test_items
        self.batch_size, self.seed = batch_size, seed
        self._probed = 0  # optimizer step of the last look while training
        self._begins = False  # a list of figures, with the first ones of a fresh training

    # -- what kinds differ in ----------------------------------------------------------------------------

    targets: tuple[str, ...] = ("label",)

    @abstractmethod
    def fit(self, train: Samples, test: Samples, names: list[str]) -> Result:
        """Fits to `train` and predicts `test`; `names` are those of the targets' numbers."""

    # -- measuring ---------------------------------------------------------------------------------------

    def measure(self, task: LightningModule, split: str) -> Result:
        """The figures of a task on the split "val" or "test" of the data.

        Raises:
            UserError: data or features that cannot be probed.
        """
        data = ready(self.data, task)
        frozen = Frozen(task, self.layer, self.pooling)
        sets: list[Samples] = []
        for part, count in (("train", self.train_items), (split, self.test_items)):
            dataset = getattr(data, f"{part}_dataset")
            items = chosen_items(dataset, count, self.seed)
            names = target_names(load_items(dataset, items[:1])[0], self.targets, task)
            sets.append(extract(frozen, dataset, items, self.targets, self.batch_size, data.workers))
        return self.fit(sets[0], sets[1], names)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        names = [one.name for one in trainer.callbacks if isinstance(one, Probe)]  # type: ignore[attr-defined]
        if names.count(self.name) > 1:
            raise UserError(f"two probes are called {self.name!r}: give each a name of its own")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A layer, data or labels that are not there are known before the training, not after it."""
        Frozen(pl_module, self.layer, self.pooling)
        check_targets(ready(self.data, pl_module), self.targets, pl_module)
        self._probed = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begins = trainer.ckpt_path is None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._look(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._look(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._probe(trainer, pl_module, "test")

    def _look(self, trainer: Trainer, task: LightningModule) -> None:
        """Probes, once for every optimizer step."""
        if trainer.global_step != self._probed:
            self._probed = trainer.global_step
            self._probe(trainer, task, "val")

    def _probe(self, trainer: Trainer, task: LightningModule, split: str) -> None:
        with gathered(task):
            found = self.measure(task, split)
        if trainer.is_global_zero:
            self._write(trainer, found, split)
            figures = {f"probe/{self.name}/{key}": one.value for key, one in found.figures.items()}
            for logger in trainer.loggers:
                logger.log_metrics(figures, step=trainer.global_step)
        trainer.strategy.barrier("probe")

    def _path(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / f"probe_{self.name}.json"

    def _write(self, trainer: Trainer, found: Result, split: str) -> None:
        record = {
            "probe": self.name,
            "kind": self.kind,
            "split": split,
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "layer": self.layer,
            "pooling": self.pooling,
            "seed": self.seed,
            "data": shown_description(self.data),
            **found.to_json(),
        }
        make_folder(trainer.default_root_dir)
        path = self._path(trainer)
        if self._begins and path.exists():
            os.replace(path, path.with_suffix(".before.json"))
        self._begins = False
        write_whole(path, json.dumps([*_records(path), record], indent=1) + "\n")
        figures = ", ".join(
            f"{name} {one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for name, one in found.figures.items()
        )
        rank_zero_info(f"probe {self.name}, step {trainer.global_step}, {split}: {figures}: {path}")


def _records(path: Path) -> list[dict[str, Any]]:
    """Of the file, which need not exist."""
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return found


class LinearProbe(Probe):
    """Logistic regression, exactly: see `linear_probe`.

    Args:
        data: labelled data.
        penalties: to choose from, on training items, and beyond the largest or smallest where that is best.
        **settings: those of `Probe`.
    """

    kind = "linear"

    def __init__(
        self, data: LightningDataModule, penalties: tuple[float, ...] = PENALTIES, **settings: Any
    ) -> None:
        check_penalties(penalties)
        super().__init__(data, **settings)
        self.penalties = penalties

    def fit(self, train: Samples, test: Samples, names: list[str]) -> Classified:
        return linear_probe(train, test, self.penalties)


class KNNProbe(Probe):
    """Votes of the nearest training items: see `knn_probe`.

    Args:
        data: labelled data.
        neighbours, temperature: as there.
        **settings: those of `Probe`.
    """

    kind = "knn"

    def __init__(
        self, data: LightningDataModule, neighbours: int = 20, temperature: float = 0.07, **settings: Any
    ) -> None:
        check_knn(neighbours, temperature)
        super().__init__(data, **settings)
        self.neighbours, self.temperature = neighbours, temperature

    def fit(self, train: Samples, test: Samples, names: list[str]) -> Classified:
        return knn_probe(train, test, self.neighbours, self.temperature)


class RegressionProbe(Probe):
    """Ridge regression of numbers: see `regression_probe`.

    Args:
        data: items with the targets, such as MovingDigits.
        targets: entries of a batch.
        **settings: those of `Probe`.
    """

    kind = "regression"

    def __init__(
        self,
        data: LightningDataModule,
        targets: tuple[str, ...] = ("position", "velocity"),
        **settings: Any,
    ) -> None:
        if not targets:
            raise UserError("RegressionProbe: there are no targets: name one entry of a batch or more")
        super().__init__(data, **settings)
        self.targets = tuple(targets)

    def fit(self, train: Samples, test: Samples, names: list[str]) -> Regressed:
        return regression_probe(train, test, names)


class AttentiveProbe(Probe):
    """A learnt query reads the class from a layer's tokens: see `attentive_probe`.

    Args:
        data: labelled data.
        epochs: of the probe's own training.
        lr: of the same.
        **settings: those of `Probe`; `layer` is to be given, its tokens are not pooled.

    Raises:
        UserError: no layer, a pooling, or a setting out of its range.
    """

    kind = "attentive"

    def __init__(
        self, data: LightningDataModule, epochs: int = 30, lr: float = 1e-3, **settings: Any
    ) -> None:
        check_least(epochs=(epochs, 1))
        if not 0 < lr < float("inf"):
            raise UserError(f"AttentiveProbe: lr is {lr}: use one above 0")
        if settings.get("layer") is None:
            raise UserError("AttentiveProbe reads a layer's tokens: set layer")
        pooling = settings.get("pooling", "mean")
        if pooling not in ("mean", "none"):  # "mean" is what Probe has where nothing is set
            raise UserError(f"AttentiveProbe: pooling is {pooling!r}, but it reads all tokens: leave it out")
        super().__init__(data, **{**settings, "pooling": "none"})
        self.epochs, self.lr = epochs, lr

    def fit(self, train: Samples, test: Samples, names: list[str]) -> Classified:
        return attentive_probe(train, test, self.epochs, lr=self.lr, seed=self.seed)
