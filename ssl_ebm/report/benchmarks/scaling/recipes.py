"""The recipes whose needs are worked out: configs of this project, counted on the real network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ssl_ebm.report.benchmarks.scaling.cluster import Demand
from ssl_ebm.report.benchmarks.scaling.processes import described
from ssl_ebm.report.benchmarks.steps import flops_of_step
from ssl_ebm.report.benchmarks.training_loops import Steps
from ssl_ebm.tasks.building import build

TOTAL = 10**6  # steps of the training whose first ones are counted


@dataclass(frozen=True)
class Recipe:
    """A config, and what is assumed of its data.

    Attributes:
        config: its file in ``configs``.
        unit: of an item.
        model: the task, described as the config does (what changes neither size nor work is left out).
        shape: of an item.
        batch: items of a process.
        accumulate: batches of an optimizer step, on `on` GPUs.
        on: GPUs that the config is written for.
        largest: most items of an optimizer step.
        stored: bytes of an item.
        items: of an epoch.
        core: items/s that one processor core loads.
        sources: where the last four are from.
    """

    config: str
    unit: str
    model: dict[str, Any]
    shape: tuple[int, ...]
    batch: int
    accumulate: int
    on: int
    largest: int
    stored: float
    items: int
    core: float
    sources: str


def mae(size: int, patch: int, **sizes: Any) -> dict[str, Any]:
    network = described(
        "networks.patch_completion.PatchCompletion", size=size, patch=patch, normalised=True, **sizes
    )
    mask = described("data.masks.RandomPatches", ratio=0.75, patch=patch)
    return described("tasks.Inpainting", objective="least_squares", network=network, mask=mask)


RECIPES = (
    Recipe(
        "inpainting/imagenet_mae_vit_b16", "images",
        mae(224, 16, width=768, depth=12, heads=12, decoder_width=512, decoder_depth=8, decoder_heads=16),
        (3, 224, 224), batch=64, accumulate=8, on=8, largest=4096,
        stored=107_700, items=1_281_167, core=150,
        sources="4,096 images a step: He et al. (2022). ImageNet's training tar: 138 GB, 1,281,167 images. "
        "150 images/s decoded and cropped by a core: assumed.",
    ),
    Recipe(
        "masked_text/bert_base", "sequences",
        described(
            "tasks.MaskedText",
            network=described(
                "networks.text.TextEncoder", vocabulary=30592, width=768, depth=12, heads=12, length=512,
                positions="learnt", norm="post",
            ),
            masking=described("data.corruption.TokenMasking", ratio=0.15, unit="word"),
        ),
        (512,), batch=32, accumulate=8, on=1, largest=8192,
        stored=2 * 512, items=3_300_000_000 // 512, core=11_000,
        sources="8,192 sequences a step: Liu et al., RoBERTa (2019). 3.3 billion words: Devlin et al. "
        "(2019), a word taken for a token. Tokens are stored in 2 bytes, and a core loads 5.8 million "
        "of them a second: measured.",
    ),
    Recipe(
        "frame_prediction/clips_large_latent_ebm", "clips",
        described(
            "tasks.FramePrediction", objective="latent_ebm", latent="one_hot", codes=256, context_frames=4,
            channels=3, width=128, levels=4, blocks=2, features=512, radius=6, paints=64, paint_anchors=True,
            self_fed=4, sharpness=1.0, rollout_sharpness=1.0, cover=0.05, detail=32,
        ),
        (9, 3, 128, 128), batch=32, accumulate=1, on=1, largest=2048,
        stored=112_500, items=240_000, core=30,
        sources="2,048 clips a step: assumed, nothing is published. 240,000 clips: Kinetics-400. 0.9 seconds "
        "of 1 Mbit/s. 30 windows/s decoded by a core: measured on short clips.",
    ),
    Recipe(
        "inpainting/pictures_mae", "images",
        mae(32, 4, width=192, depth=6, heads=3, decoder_width=96, decoder_depth=2, decoder_heads=3),
        (3, 32, 32), batch=128, accumulate=1, on=1, largest=4096,
        stored=3072, items=50_000, core=2800,
        sources="As the large one; CIFAR-10; 2,800 pictures/s decoded by a core: measured.",
    ),
    Recipe(
        "masked_text/documents", "sequences",
        described(
            "tasks.MaskedText",
            network=described(
                "networks.text.TextEncoder", vocabulary=4096, width=256, depth=4, heads=4, length=64
            ),
            masking=described("data.corruption.TokenMasking", ratio=0.3),
        ),
        (64,), batch=16, accumulate=1, on=1, largest=8192,
        stored=2 * 64, items=100_000, core=90_000,
        sources="As the large one; 6.4 million tokens of documents, assumed.",
    ),
    Recipe(
        "frame_prediction/quickstart_latent_ebm", "clips",
        described(
            "tasks.FramePrediction", objective="latent_ebm", latent="one_hot", codes=49, context_frames=4,
            width=32, radius=3, rollout_sharpness=8.0,
        ),
        (5, 1, 32, 32), batch=32, accumulate=1, on=1, largest=2048,
        stored=0, items=100_000, core=24_000,
        sources="As the large one; clips are generated, 48,000 a second on two cores: measured; an epoch is "
        "100,000 of them, assumed.",
    ),
)  # fmt: skip
KEYS = {"images": "image", "sequences": "tokens", "clips": "video"}


class Counted(Steps):
    """A training that logs nothing."""

    log_every_n_steps = TOTAL


def demand(recipe: Recipe) -> Demand:
    """Builds the recipe's task and counts the arithmetic of its own training step, for one item.

    The count is of matrix products and convolutions, a multiplication and an addition being two; a mean over
    the first eight steps, for those of frame prediction differ.
    """
    torch.manual_seed(0)
    task = build(recipe.model, LightningModule, "model").train()
    flops = flops_of_item(task, KEYS[recipe.unit], recipe.shape)
    parameters = sum(weight.numel() for weight in task.parameters() if weight.requires_grad)
    step = recipe.batch * recipe.accumulate * recipe.on
    return Demand(
        parameters, flops, recipe.batch, step, recipe.largest, recipe.stored, recipe.items, recipe.core
    )


def flops_of_item(task: LightningModule, key: str, shape: tuple[int, ...]) -> float:
    """Mean over the first steps."""
    counted = Counted(TOTAL)
    task.trainer = cast(Trainer, counted)
    item = torch.rand(1, *shape) if key != "tokens" else torch.randint(8, 1000, (1, *shape))
    period = 2 * task.hparams.get("self_fed", 0) or 1
    found = []
    for counted.global_step in range(period):
        found.append(flops_of_step(lambda: cast(Tensor, task.training_step({key: item}, 0))))
    return sum(found) / period
