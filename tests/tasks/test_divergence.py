"""A loss that is not finite: what stops, what is said of it, and what a run may leave out."""

import json
import math
from collections import UserDict
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins import MixedPrecision
from several_processes import digits
from two_futures import batch_of, both_futures, loader, small, trainer

from ssl_ebm.data import LabelledShare, MovingDigits, StreamData
from ssl_ebm.errors import UserError
from ssl_ebm.tasks import FramePrediction, divergence

STEPS, BAD = 6, 3


class Record(Callback):
    """Keeps the items of every batch, and the weights before it and at the end."""

    def __init__(self) -> None:
        self.items: list[list[int]] = []
        self.weights: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        self.items.append(batch["clip"].tolist())
        self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in pl_module.parameters()]))

    @property
    def changed(self) -> list[bool]:
        """Of every batch: whether the weights did."""
        return [not torch.equal(a, b) for a, b in zip(self.weights, self.weights[1:], strict=False)]


class Poison(Record):
    """Makes a pixel of one batch a NaN, or so large."""

    def __init__(self, bad: int = BAD, pixel: float = math.nan) -> None:
        super().__init__()
        self.bad = bad
        self.pixel = pixel

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:
        super().on_train_batch_start(trainer, pl_module, batch)
        if len(self.items) == self.bad + 1:
            batch["video"][0, 2, 0, 0, 0] = self.pixel


class PoisonGradient(Record):
    """Makes an entry of the gradient of some steps a NaN, whose losses are finite."""

    def __init__(self, steps: list[int]) -> None:
        super().__init__()
        self.steps = steps

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step in self.steps:
            gradient = next(p.grad for p in pl_module.parameters() if p.grad is not None)
            gradient.flatten()[0] = math.nan


def train(
    folder: Path,
    skip_steps: int,
    *callbacks: Callback,
    latent: str = "one_hot",
    max_loss: float = divergence.MAX_LOSS,
    **settings: Any,
) -> FramePrediction:
    """A task that trained for some steps with the callbacks, and was saved as end.ckpt."""
    task = small(latent=latent)
    task.skip_steps = skip_steps
    task.max_loss = max_loss
    settings = {"steps": STEPS, "default_root_dir": folder, "limit_val_batches": 0, **settings}
    fitter = trainer(callbacks=list(callbacks), **settings)
    fitter.fit(task, datamodule=digits(1))
    fitter.save_checkpoint(folder / "end.ckpt")
    return task


def said_of_steps(warnings: pytest.WarningsRecorder) -> list[int]:
    """How many steps were said to be left out, one warning after the other."""
    said = [str(one.message).split() for one in warnings]
    return [int(words[0]) for words in said if words[1:4] == ["steps", "left", "out"]]


@pytest.mark.parametrize("settings", [{"log_every_n_steps": 0}, {"barebones": True}], ids=str)
def test_a_training_that_logs_nothing_trains(settings: dict[str, Any]) -> None:
    task = small()
    before = [p.detach().clone() for p in task.parameters()]
    quiet = {"enable_checkpointing": False, "logger": False, "enable_progress_bar": False}
    Trainer(accelerator="cpu", max_steps=2, enable_model_summary=False, **quiet, **settings).fit(
        task, loader(batch_of(*both_futures()), 2)
    )
    assert not all(torch.equal(a, b) for a, b in zip(before, task.parameters(), strict=True))


def test_a_trainer_that_has_trained_says_what_does_not_begin_anew(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    def fit_on(fitter: Trainer, **settings: Any) -> list[str]:
        recwarn.clear()
        fitter.fit_loop.epoch_loop.max_steps = fitter.global_step + 2
        fitter.fit(small(), loader(batch_of(*both_futures()), 2), **settings)
        return [str(one.message) for one in recwarn if "has trained" in str(one.message)]

    first = trainer(2)
    assert fit_on(first) == []
    first.save_checkpoint(tmp_path / "two.ckpt")
    assert fit_on(first, ckpt_path=tmp_path / "two.ckpt") == []
    assert fit_on(trainer(2), ckpt_path=tmp_path / "two.ckpt") == []
    [said] = fit_on(first)
    assert said.startswith("this Trainer has trained 4 steps")


def test_the_batch_and_its_items_are_named(tmp_path: Path) -> None:
    poison = Poison()
    with pytest.raises(UserError, match=rf"not finite \(nan\).*batch {BAD}; its items"):
        train(tmp_path, 0, poison)
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert (report["batch"], report["items"]) == (BAD, poison.items[BAD])
    assert report["norms_of_weights_at_the_end"].keys() == dict(small().named_parameters()).keys()
    assert not (tmp_path / "end.ckpt").exists()


BRIGHT = 1e8  # a squared error of 1e16 in some 1,000 pixels


def test_a_loss_that_explodes_stops_the_training_and_is_named(tmp_path: Path) -> None:
    """It is finite, and so are the gradients and the weights that it leaves."""
    poison = Poison(pixel=BRIGHT)
    words = (
        rf"training loss is [\d.]+e\+1\d, beyond max_loss \(1e\+10\).*step {STEPS} \(batch {BAD}; its items"
    )
    with pytest.raises(UserError, match=words):
        train(tmp_path, 0, poison)
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert 1e10 < report["loss"] < BRIGHT**2
    assert (report["batch"], report["items"]) == (BAD, poison.items[BAD])
    assert bool(poison.weights[-1].isfinite().all())
    assert not (tmp_path / "end.ckpt").exists()


@pytest.mark.parametrize("max_loss", [BRIGHT**2, math.inf])
def test_how_large_a_loss_may_be_is_a_setting(tmp_path: Path, max_loss: float) -> None:
    train(tmp_path, 0, Poison(pixel=BRIGHT), max_loss=max_loss)
    assert (tmp_path / "end.ckpt").exists()


@pytest.mark.parametrize(
    ("loss", "largest", "bad"),
    [(-1e10, 1e10, False), (-2e10, 1e10, True), (2e10, 1e10, True), (1e30, math.inf, False)]
    + [(value, largest, True) for value in (math.nan, math.inf, -math.inf) for largest in (1e10, math.inf)],
)
def test_losses_are_bounded_on_both_sides_of_0(loss: float, largest: float, bad: bool) -> None:
    watch = divergence.DivergenceWatch()
    watch.see(torch.tensor(loss), largest)
    assert bool(watch.diverged) == bad


def test_a_step_whose_loss_explodes_is_left_out_where_that_is_allowed(tmp_path: Path) -> None:
    poison = Poison(pixel=BRIGHT)
    with pytest.warns(UserWarning, match="1 steps left out"):
        train(tmp_path, 1, poison)
    assert poison.changed == [step != BAD for step in range(STEPS)]
    assert (tmp_path / "end.ckpt").exists()


@pytest.mark.parametrize(
    ("poison", "check_steps", "step"),
    [(Poison(), 2, 2), (Poison(), 50, 0), (PoisonGradient([3]), 2, 2)],
    ids=["looked at before", "never looked at", "weights first"],
)
def test_the_norms_of_the_last_finite_weights_that_were_looked_at_are_kept(
    poison: Record, check_steps: int, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient breaks the weights of step 4, at whose look all losses are finite still."""
    monkeypatch.setattr(divergence, "CHECK_STEPS", check_steps)
    with pytest.raises(UserError, match="not finite"):
        train(tmp_path, 0, poison)
    report = json.loads((tmp_path / "diverged.json").read_text())
    sizes = {name: p.numel() for name, p in small().named_parameters()}
    parts = poison.weights[step].double().split(list(sizes.values()))
    norms = {name: math.sqrt(float((part * part).sum())) for name, part in zip(sizes, parts, strict=True)}
    assert report["norms_of_weights_before"] == {"step": step, "norms": pytest.approx(norms, rel=1e-5)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_norms_are_taken_of_weights_of_any_precision(dtype: torch.dtype) -> None:
    task = small().to(dtype)
    found, _ = task._norms()
    expected = [p.detach().double().norm() for p in task.parameters()]
    torch.testing.assert_close(found, torch.stack(expected).float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("poison", [Poison(), PoisonGradient([STEPS - 1])], ids=["loss", "gradient"])
def test_no_training_ends_with_weights_that_are_not_finite(tmp_path: Path, poison: Record) -> None:
    """Shorter than `CHECK_STEPS`, and without checkpoints."""
    fitter = trainer(STEPS, callbacks=[poison], default_root_dir=tmp_path, limit_val_batches=0)
    with pytest.raises(UserError, match=r"not finite.*weights' norms are in .*diverged\.json"):
        fitter.fit(small(), datamodule=digits(1))
    report = json.loads((tmp_path / "diverged.json").read_text())
    of_a_batch = isinstance(poison, Poison)
    assert (report["batch"], report["items"]) == ((BAD, poison.items[BAD]) if of_a_batch else (None, None))
    assert "nan" in report["norms_of_weights_at_the_end"].values()


def test_a_step_is_left_out_where_that_is_allowed(tmp_path: Path) -> None:
    """Weights stay as they were in that step alone, and are finite at the end, which is saved."""
    poison = Poison()
    with pytest.warns(UserWarning, match="1 steps left out"):
        train(tmp_path, 1, poison)
    assert poison.changed == [step != BAD for step in range(STEPS)]
    assert all(bool(w.isfinite().all()) for w in poison.weights)
    assert (tmp_path / "end.ckpt").exists()


def test_a_gradient_that_is_not_finite_is_left_out_no_oftener_than_allowed(tmp_path: Path) -> None:
    """Whatever the loss is: that of these steps is finite."""
    poison = PoisonGradient([1, 3, 4])
    with pytest.raises(UserError, match=r"gradient was not finite in 3 steps, more than skip_steps \(2\)"):
        train(tmp_path, 2, poison)
    assert not (tmp_path / "end.ckpt").exists()
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert (report["loss"], report["batch"], report["items"]) == ("finite", 1, poison.items[1])
    assert report["steps_left_out"] == 3


def test_each_look_tells_of_the_steps_that_were_left_out_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(divergence, "CHECK_STEPS", 2)
    poison = PoisonGradient([0, 4, 5])
    train(tmp_path, 3, poison)
    assert said_of_steps(recwarn) == [1, 3]  # after steps 2 and 6
    assert poison.changed == [step not in (0, 4, 5) for step in range(STEPS)]


def test_no_validation_is_made_with_weights_that_are_not_finite(tmp_path: Path) -> None:
    """Nothing can be drawn from a prior that is not finite, and that error would say nothing of the cause."""
    with pytest.raises(UserError, match=rf"not finite \(nan\).*batch {BAD}; its items"):
        train(
            tmp_path, 0, Poison(), steps=50, limit_val_batches=1, val_check_interval=BAD + 1,
            check_val_every_n_epoch=None,
        )  # fmt: skip


def test_items_that_the_trainer_chooses_are_not_accused(tmp_path: Path) -> None:
    """Batches that are overfitted are not those of the stream."""
    with pytest.raises(UserError, match="not finite"):
        train(tmp_path, 0, Poison(), overfit_batches=2)
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert (report["batch"], report["items"], report["names"]) == (BAD, None, None)


@pytest.mark.parametrize("names", [["a class", "another"], lambda items: 1 / 0], ids=["a list", "an error"])
def test_what_a_dataset_of_ones_own_calls_its_items_hides_no_divergence(names: Any, tmp_path: Path) -> None:
    data = digits(1)
    data.setup("fit")
    data.train_dataset.names = data.train_dataset.item_names = names
    fitter = trainer(STEPS, callbacks=[Poison()], default_root_dir=tmp_path, limit_val_batches=0)
    with pytest.raises(UserError, match=r"not finite.*diverged\.json"):
        fitter.fit(small(), datamodule=data)
    report = json.loads((tmp_path / "diverged.json").read_text())
    assert len(report["items"]) == data.batch_size
    assert report["names"] is None


def test_a_training_after_one_that_diverged_begins_anew(tmp_path: Path) -> None:
    task = small()
    before = {name: weights.clone() for name, weights in task.state_dict().items()}
    settings: dict[str, Any] = {"default_root_dir": tmp_path, "limit_val_batches": 0}
    with pytest.raises(UserError, match="not finite"):
        trainer(STEPS, callbacks=[Poison()], **settings).fit(task, datamodule=digits(1))
    task.load_state_dict(before)
    fitter = trainer(STEPS, **settings)
    fitter.fit(task, datamodule=digits(1))
    assert fitter.global_step == STEPS


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """A step that was left out did not touch them, so it is no excuse."""

    class Break(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            next(pl_module.parameters()).data.fill_(math.inf)

    with pytest.raises(UserError, match="not finite"):
        train(tmp_path, 3, Poison(), Break())
    assert not (tmp_path / "end.ckpt").exists()


def test_a_step_of_several_batches_is_left_out_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look after the first of its batches, whose loss is not finite, would stop what may be left out."""
    monkeypatch.setattr(divergence, "CHECK_STEPS", 1)
    poison = Poison(bad=2)
    with pytest.warns(UserWarning, match="1 steps left out"):
        train(tmp_path, 1, poison, accumulate_grad_batches=2)
    assert poison.changed == [batch % 2 == 1 and batch != 3 for batch in range(2 * STEPS)]


@pytest.mark.parametrize("latent", ["one_hot", "gaussian"])
def test_what_was_inferred_in_a_step_that_is_left_out_is_not_remembered(tmp_path: Path, latent: str) -> None:
    with pytest.warns(UserWarning, match="1 steps left out"):
        task = train(tmp_path, 1, Poison(), latent=latent)
    saved = torch.load(tmp_path / "end.ckpt", weights_only=False)["state_dict"]
    assert all(bool(values.isfinite().all()) for values in saved.values())
    z = task.eval().prior_sample(both_futures()[0], 16, source="bank")
    assert bool(z.isfinite().all())


def mixed(factor: float) -> MixedPrecision:
    """16-mixed on the CPU, with the factor that the gradient scaler begins with."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=factor))


def test_what_a_gradient_scaler_leaves_out_in_its_search_is_normal(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    record = Record()
    train(tmp_path, 1, record, plugins=[mixed(2.0**30)], steps=30)
    assert 1 < record.changed.index(True) < 29  # more are left out than are allowed
    assert said_of_steps(recwarn) == []


def test_a_gradient_scaler_hides_no_loss_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="1 steps left out"):
        train(tmp_path, 1, Poison(), plugins=[mixed(2.0**4)])


def test_a_gradient_that_no_factor_makes_finite_ends_the_search(tmp_path: Path) -> None:
    """8, 4 and 2 may be too large; from 1 on the steps count."""
    with pytest.raises(UserError, match="gradient was not finite in 3 steps"):
        train(tmp_path, 2, PoisonGradient(list(range(STEPS))), plugins=[mixed(2.0**3)])


def test_batches_are_mappings_of_any_kind() -> None:
    """As tokenizers of `transformers` give them."""
    batch = UserDict({**batch_of(*both_futures()), "label": torch.zeros(2)})
    taken = small().on_before_batch_transfer(batch, 0)
    assert set(taken) == set(batch) - {"label"}
    with pytest.raises(UserError, match="batches with names, and the data give a list"):
        small().on_before_batch_transfer([torch.zeros(2)], 0)


class HookedDigits(MovingDigits):
    """With a hook that Lightning calls in place of the task's."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch


@pytest.mark.parametrize("share", [False, True])
def test_data_whose_hook_would_let_labels_through_are_refused(share: bool) -> None:
    data: StreamData = HookedDigits(size=16, digit_size=8, train_clips=40, val_clips=4, batch_size=4)
    if share:
        data = LabelledShare(data, per_class=1)
    with pytest.raises(UserError, match=r"on_before_batch_transfer of .* call it on_after_batch_transfer"):
        trainer(1).fit(small(), datamodule=data)
