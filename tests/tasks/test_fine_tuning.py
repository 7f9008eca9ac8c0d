"""Fine-tuning: what learns and how fast, against hand computation and timm; checkpoints that need nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from small_backbones import CONVOLUTIONAL, MAKERS, batch_for, make, saved
from timm.optim import param_groups_layer_decay
from torch import Tensor
from two_futures import loader, trainer

from ssl_ebm.errors import UserError
from ssl_ebm.tasks import DensityEstimation, FineTuning, Inpainting, load_task
from ssl_ebm.tasks.encoder import load_encoder

CLASSES = ["a", "b", "c"]


def tuned(name: str, path: Path, steps: int = 0, **settings: Any) -> FineTuning:
    """The task of a fresh checkpoint, after that many steps on one batch."""
    checkpoint = saved(make(name), path / "pretrained.ckpt")
    torch.manual_seed(3)
    task = FineTuning(str(checkpoint), classes=CLASSES, **{"warmup_steps": 0, **settings})
    if steps:
        trainer(steps).fit(task, loader(batch_for(name), steps))
    return task


def copied(task: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in task.state_dict().items()}


def changed(before: dict[str, Tensor], task: torch.nn.Module) -> set[str]:
    return {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}


# --- learning rates ---


def test_rates_of_a_vision_transformer_are_timms(tmp_path: Path) -> None:
    """timm's own layer-wise decay, on the encoder with a head of its own.

    timm counts the last normalisation to the last block; MAE (util/lr_decay.py) and we to the head.
    """
    task = tuned("patches", tmp_path, layer_decay=0.6)
    encoder = task.backbone.encoder  # type: ignore[union-attr]
    encoder.reset_classifier(3)
    groups = param_groups_layer_decay(encoder, layer_decay=0.6)
    wanted = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    found = {id(p): rate for layer, rate in task.rates() for p in layer}
    for name, weights in encoder.named_parameters():
        if name.startswith("norm."):
            assert found[id(weights)] == 1
        elif weights.requires_grad and not name.startswith("head"):
            assert found[id(weights)] == pytest.approx(wanted[id(weights)]), name
    assert task.head is not None
    assert all(found[id(p)] == 1 == wanted[id(encoder.head.weight)] for p in task.head.parameters())


BY_HAND = {
    "text": {
        "network.tokens.weight": 4, "network.blocks.0.attn.qkv.weight": 3, "network.blocks.1.norm1.bias": 2,
        "network.blocks.2.mlp.fc2.weight": 1, "network.norm.weight": 0,
    },
    "bert": {"network.learnt.weight": 4, "network.norm.weight": 4, "network.blocks.2.norm2.weight": 1},
    "convolutional": {
        "energy.predictor.net.stem.weight": 4, "energy.predictor.net.down_stages.0.0.first.weight": 3,
        "energy.predictor.net.downs.0.weight": 2, "energy.predictor.net.down_stages.1.0.norm.bias": 2,
        "energy.predictor.net.downs.1.weight": 1, "energy.predictor.summary.0.weight": 0,
    },
    "frames in detail": {
        "energy.predictor.unet.stem.bias": 5, "energy.predictor.unet.down_stages.0.0.first.weight": 4,
        "energy.predictor.unet.downs.0.weight": 3, "energy.predictor.unet.ups.0.weight": 2,
        "energy.predictor.pixels.weight": 1, "energy.predictor.refinement.network.0.weight": 1,
        "energy.predictor.summary.1.weight": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_the_optimizer_has_the_rate_of_each_layer(name: str, tmp_path: Path) -> None:
    """lr * decay^(layers behind it), with decay on matrices alone."""
    task = tuned(name, tmp_path, layer_decay=0.5, lr=0.1)
    run = trainer(1)
    run.fit(task, loader(batch_for(name), 1))
    groups = run.optimizers[0].param_groups
    lr = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    backbone = dict(task.backbone.named_parameters())
    for weights, layers in BY_HAND[name].items():
        assert lr[id(backbone[weights])] == pytest.approx(0.1 * 0.5**layers), weights
        assert decay[id(backbone[weights])] == (0.05 if backbone[weights].ndim > 1 else 0.0)
    assert task.head is not None
    assert {lr[id(p)] for p in task.head.parameters()} == {0.1}
    assert set(lr) == {id(p) for p in task.parameters() if p.requires_grad}


def test_random_weights_learn_at_one_rate(tmp_path: Path) -> None:
    assert {rate for _, rate in tuned("text", tmp_path, mode="scratch").rates()} == {1.0}
    assert len({rate for _, rate in tuned("text", tmp_path).rates()}) == 5


# --- what learns ---


@pytest.mark.parametrize("name", MAKERS)
def test_the_head_alone_leaves_the_backbone_as_it_was(name: str, tmp_path: Path) -> None:
    task = tuned(name, tmp_path, mode="head")
    before = copied(task)
    trainer(3).fit(task, loader(batch_for(name), 3))
    found = changed(before, task)
    assert {name for name in found if name.startswith("backbone.")} == set()
    assert {"head.2.weight", "head.0.running_mean"} <= found
    assert not task.backbone.training


@pytest.mark.parametrize("name", MAKERS)
def test_full_changes_the_representation_and_nothing_else(name: str, tmp_path: Path) -> None:
    task = tuned(name, tmp_path, lr=1e-2)
    before = copied(task)
    trainer(3).fit(task, loader(batch_for(name), 3))
    names = {id(p): n for n, p in task.named_parameters()}
    listed = {names[id(p)] for layer, _ in task.rates() for p in layer}
    tied = {"backbone.network.scores.weight"} & before.keys()  # the same tensor as the table of tokens
    found = changed(before, task)
    assert found <= listed | tied
    assert len(found) > 0.8 * len(listed)  # keys of one head have no gradient in their bias, for example
    assert task.backbone.training


class Modes(Callback):
    """Keeps which parts learn in training mode."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.training = {name: part.training for name, part in pl_module.named_modules()}


@pytest.mark.parametrize("mode", [None, "full", "head"])
def test_a_task_that_was_loaded_trains_in_training_mode(mode: str | None, tmp_path: Path) -> None:
    task: Any = load_task(saved(make("patches"), tmp_path / "pretrained.ckpt"), Inpainting)
    if mode is not None:
        fresh = tuned("patches", tmp_path, mode=mode)
        task = load_task(saved(fresh, tmp_path / "tuned.ckpt"), FineTuning)
    modes = Modes()
    trainer(1, callbacks=[modes]).fit(task, loader(batch_for("patches"), 1))
    assert modes.training == {name: mode != "head" or "backbone" not in name for name in modes.training}


def test_parts_that_were_put_into_evaluation_mode_stay_there() -> None:
    task, modes = make("patches"), Modes()
    task.energy.eval()
    trainer(1, callbacks=[modes]).fit(task, loader(batch_for("patches"), 1))
    assert modes.training == {name: not name.startswith("energy") for name in modes.training}


@pytest.mark.parametrize("mode", ["full", "scratch"])
def test_a_summary_that_least_squares_left_alone_learns(mode: str, tmp_path: Path) -> None:
    """Or the head would read features that no training has seen."""
    described = {"objective": "least_squares", "network": CONVOLUTIONAL}
    task = FineTuning(backbone={"class_path": "ssl_ebm.tasks.Inpainting", "init_args": described}, mode=mode)  # type: ignore
    summary = list(task.backbone.network.summary.parameters())
    assert all(p.requires_grad for p in summary)
    assert {id(p) for p in summary} <= {id(p) for layer in task.layers for p in layer}


def test_the_last_blocks_are_the_last(tmp_path: Path) -> None:
    task = tuned("text", tmp_path, mode="last", last_blocks=1)
    before = copied(task)
    trainer(3).fit(task, loader(batch_for("text"), 3))
    moved = {name.removeprefix("backbone.network.").split(".")[0:2][0] for name in changed(before, task)}
    assert moved == {"blocks", "norm", "head"}
    assert all("blocks.2" in name for name in changed(before, task) if "blocks" in name)
    with pytest.raises(UserError, match="last_blocks is 4"):
        tuned("text", tmp_path, mode="last", last_blocks=4)


@pytest.mark.parametrize("name", MAKERS)
def test_from_scratch_is_the_same_network_with_other_weights(name: str, tmp_path: Path) -> None:
    pretrained = make(name)
    task = tuned(name, tmp_path, mode="scratch")
    ours, theirs = task.backbone.state_dict(), pretrained.state_dict()
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}
    names = {id(p): n for n, p in task.backbone.named_parameters()}
    matrices = [names[id(p)] for layer in task.layers for p in layer if p.ndim > 1]
    same = {n for n in matrices if torch.equal(ours[n], theirs[n])}
    assert {n for n in same if float(ours[n].abs().sum()) > 0} == set()  # some begin as zeros
    assert task.tokenizer_json == getattr(pretrained, "tokenizer_json", None)


def test_it_starts_from_the_pretrained_weights(tmp_path: Path) -> None:
    pretrained = make("patches").eval()
    task = tuned("patches", tmp_path).eval()
    x = task.inputs(batch_for("patches"))
    assert torch.equal(task.representation(x), pretrained.representation(x))


# --- checkpoints ---


@pytest.mark.parametrize("name", MAKERS)
def test_a_checkpoint_needs_no_other_file(name: str, tmp_path: Path) -> None:
    task = tuned(name, tmp_path, steps=2, mode="full")
    path = saved(task, tmp_path / "tuned.ckpt")
    (tmp_path / "pretrained.ckpt").unlink()
    again = load_task(path, FineTuning)
    assert again.classes == CLASSES
    assert again.tokenizer_json == task.tokenizer_json
    batch = batch_for(name)
    task.eval()
    with torch.no_grad():
        assert torch.equal(again(again.inputs(batch)), task(task.inputs(batch)))
        first, second = again.predict_step(batch, 0), task.predict_step(batch, 0)
    assert torch.equal(first["probability"], second["probability"])
    encoder = load_encoder(path)
    with torch.no_grad():
        assert torch.equal(encoder(again.inputs(batch)), task.representation(task.inputs(batch)))
        if again.tokenizer_json is not None:
            assert encoder.tokenize("glad sad").shape[0] == 1
    assert first["probability"].sum(1).allclose(torch.ones(8))
    assert first["classes"] == CLASSES


# --- loss ---


def test_loss_of_smoothed_labels_is_that_of_the_formula(tmp_path: Path) -> None:
    """-sum_k ((1 - s) [k = y] + s / K) log p_k."""
    task = tuned("patches", tmp_path, steps=3, smoothing=0.2, drop_out=0.0)
    batch = batch_for("patches")
    x, y = batch["image"], batch["label"]
    log_p = task(x).double().log_softmax(1)
    by_hand = -(0.8 * log_p.gather(1, y[:, None])[:, 0] + 0.2 * log_p.mean(1)).mean()
    assert float(task.loss(x, y)) == pytest.approx(float(by_hand), abs=1e-5)


def test_drop_out_stands_before_the_head_and_in_training_alone(tmp_path: Path) -> None:
    task = tuned("patches", tmp_path, steps=3, drop_out=0.5)
    x = task.inputs(batch_for("patches"))
    assert not torch.equal(task(x), task(x))
    task.eval()
    assert torch.equal(task(x), task(x))


# --- mistakes ---


def test_a_checkpoint_of_another_task_is_named(tmp_path: Path) -> None:
    network = {"class_path": "ssl_ebm.networks.scalars.PointEnergy", "init_args": {"width": 8}}
    objective = {
        "class_path": "ssl_ebm.energy.objectives.DenoisingScoreMatching",
        "init_args": {"noise": 0.1},
    }
    path = saved(DensityEstimation(network, objective), tmp_path / "density.ckpt")
    with pytest.raises(UserError, match="is of DensityEstimation: fine-tuning starts from one of Inpainting"):
        FineTuning(str(path))
    path = saved(tuned("text", tmp_path), tmp_path / "tuned.ckpt")
    with pytest.raises(UserError, match="is of FineTuning"):
        FineTuning(str(path))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "most"}, "mode is 'most'"),
        ({"lr": 0.0}, "lr is 0"),
        ({"mixup": -1.0}, "mixup is -1"),
        ({"smoothing": 1.0}, "smoothing is 1"),
        ({"layer_decay": 0.0}, "layer_decay is 0"),
        ({"classes": ["one"]}, "two or more"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        FineTuning(str(saved(make("patches"), tmp_path / "a.ckpt")), **{"classes": CLASSES, **settings})


def test_nothing_to_start_from_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs backbone_checkpoint"):
        FineTuning()
    with pytest.raises(UserError, match="no checkpoint at"):
        FineTuning(str(tmp_path / "missing.ckpt"))
    with pytest.raises(UserError, match="unexpected keyword argument 'nonsense'"):
        FineTuning(backbone={"class_path": "ssl_ebm.tasks.FramePrediction", "init_args": {"nonsense": 1}})


def test_text_is_not_mixed_up(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="words do not mix"):
        tuned("text", tmp_path, mixup=0.8)


def test_data_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"MaskedText reads 'tokens', the data has image"):
        tuned("text", tmp_path).inputs(batch_for("patches"))
    with pytest.raises(UserError, match=r"images must be \(batch, 1, 16, 16\)"):
        tuned("patches", tmp_path)(torch.rand(2, 1, 20, 20))
    with pytest.raises(UserError, match="no labels"):
        tuned("text", tmp_path).training_step({"tokens": batch_for("text")["tokens"]}, 0)
    with pytest.raises(UserError, match="batch_size of 2"):
        tuned("text", tmp_path, mode="head").training_step(batch_for("text", 1), 0)
