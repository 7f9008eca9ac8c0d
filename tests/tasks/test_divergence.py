"""A loss that is not finite: what stops, what is said of it, and what a run may leave out."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from several_processes import digits
from two_futures import small, trainer

from ssl_ebm.errors import UserError

STEPS, BAD = 6, 3


class Poison(Callback):
    """Makes a pixel of one batch a NaN; keeps the items and the weights before every batch."""

    def __init__(self) -> None:
        self.items: list[list[int]] = []
        self.weights: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        self.items.append(batch["clip"].tolist())
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in pl_module.parameters()]))
        if len(self.items) == BAD + 1:
            batch["video"][0, 2, 0, 0, 0] = math.nan


def train(folder: Path, skip_steps: int) -> tuple[Poison, torch.Tensor]:
    """What was seen, and the weights at the end; stopped at the end if anything was not finite."""
    poison, task = Poison(), small()
    task.skip_steps = skip_steps
    fitter = trainer(STEPS, callbacks=[poison], default_root_dir=folder, limit_val_batches=0)
    try:
        fitter.fit(task, datamodule=digits(1))
        fitter.save_checkpoint(folder / "end.ckpt")
    finally:
        poison.weights.append(torch.cat([p.detach().flatten() for p in task.parameters()]))
    return poison, poison.weights[-1]


def test_the_batch_and_its_items_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"not finite \(nan\).*batch {BAD}; its items"):
        train(tmp_path, skip_steps=0)
    report = json.loads((tmp_path / "diverged.json").read_text())
    poison, _ = train(tmp_path / "again", skip_steps=9)
    assert (report["batch"], report["items"]) == (BAD, poison.items[BAD])
    assert report["norms_of_weights_at_the_end"].keys() == dict(small().named_parameters()).keys()
    assert not (tmp_path / "end.ckpt").exists()


def test_a_step_is_left_out_where_that_is_allowed(tmp_path: Path) -> None:
    """Weights stay as they were in that step alone, and are finite at the end, which is saved."""
    with pytest.warns(UserWarning, match="1 steps left out"):
        poison, _ = train(tmp_path, skip_steps=1)
    changed = [not torch.equal(a, b) for a, b in zip(poison.weights, poison.weights[1:], strict=False)]
    assert changed == [step != BAD for step in range(STEPS)]
    assert all(bool(w.isfinite().all()) for w in poison.weights)
    assert (tmp_path / "end.ckpt").exists()
