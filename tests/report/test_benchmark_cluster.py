"""What many GPUs would need: the arithmetic against what one can work out on paper."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_ebm.networks.masked_autoencoder import MaskedAutoencoder
from ssl_ebm.report.benchmarks.page import page
from ssl_ebm.report.benchmarks.scaling.cluster import (
    Cluster,
    Demand,
    limit,
    loaded_share,
    needs,
    ring_bytes,
    ring_seconds,
)
from ssl_ebm.report.benchmarks.scaling.page import TITLE, section
from ssl_ebm.report.benchmarks.scaling.recipes import RECIPES, Recipe, demand, flops_of_item

CONFIGS = Path(__file__).parents[2] / "configs"
ROUND = Cluster(
    peak=1e12,
    utilisation=0.5,
    gpus_per_node=4,
    node_link=1e9,
    network_link=1e8,
    hop=1e-3,
    disk=1e6,
    efficiency=0.9,
)
# 1 MB of gradient; an item takes 3 GFLOP, so 6 ms, of which 4 are the backward pass.
ASKED = Demand(parameters=250_000, flops=3e9, batch=2, step=16, largest=64, stored=1000, items=640, core=50)


def test_a_ring_sends_what_each_of_its_steps_sends() -> None:
    """N - 1 steps of a reduce-scatter and N - 1 of an all-gather, a piece of 1 / N in each."""
    for gpus in (1, 2, 3, 8, 512):
        sent = sum(1e6 / gpus for _ in range(gpus - 1)) * 2
        assert ring_bytes(gpus, 1e6) == pytest.approx(sent)


def test_a_ring_takes_the_slowest_link() -> None:
    # Within a node 2 * 3 hops of 1 ms and 1.5 MB over 1 GB/s; beyond it over four ports of 100 MB/s.
    assert ring_seconds(ROUND, 4, 1e6) == pytest.approx(6e-3 + 1.5e-3)
    assert ring_seconds(ROUND, 8, 1e6) == pytest.approx(14e-3 + 1.75e6 / 4e8)
    assert ring_seconds(ROUND, 1, 1e6) == 0


def test_needs_as_on_paper() -> None:
    few = needs(ASKED, 4, ROUND)  # 16 items: 4 on each GPU, in two batches of 2
    assert (few.step_items, few.gpu_items, few.steps_per_epoch) == (16, 4, 40)
    assert few.compute == pytest.approx(24e-3)
    assert few.reduce == pytest.approx(7.5e-3)
    assert few.exposed == 0  # the backward pass of a batch takes 8 ms
    assert few.flops == 12e9
    assert few.sent == pytest.approx(1.5e6)
    assert few.rate == pytest.approx(16 / 24e-3)
    assert few.storage == pytest.approx(1000 * 16 / 24e-3)
    assert few.cores == pytest.approx(16 / 24e-3 / 4 / 50)
    assert (few.checkpoint, few.checkpoint_seconds) == (3_000_000, 3.0)
    assert loaded_share(few, ROUND) == 1
    assert loaded_share(few, replace(ROUND, cores=1.0)) == pytest.approx(0.3)  # of 3.33 it asks for
    many = needs(ASKED, 16, ROUND)  # 32 items, 2 on each; 30 hops and 1.875 MB over 400 MB/s
    assert (many.step_items, many.gpu_items) == (32, 2)
    assert many.exposed == pytest.approx(30e-3 + 1.875e6 / 4e8 - 8e-3)
    assert many.efficiency == pytest.approx(12e-3 / (12e-3 + many.exposed))
    assert needs(ASKED, 64, ROUND).gpu_items == 1
    assert needs(ASKED, 128, ROUND).gpu_items == 0.5  # 64 items at most


def test_where_scaling_stops() -> None:
    most, why = limit(ASKED, ROUND)
    assert most == 4  # on 8 the backward pass hides 8 of 18.4 ms
    assert "all-reduce" in why
    assert needs(ASKED, 4, ROUND).efficiency > 0.9 > needs(ASKED, 8, ROUND).efficiency
    at_once = Cluster(hop=0.0, node_link=1e20, network_link=1e20)
    assert limit(ASKED, at_once) == (64, "a step has 64 items, fewer than 128 GPUs")


def test_arithmetic_of_two_layers() -> None:
    class Two(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))

        def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
            return self.layers(batch["image"]).sum()

    # Forward 5 * 7 + 7 * 3 products; backward as many for the weights, and for the second layer's input.
    assert flops_of_item(Two(), "image", (5,)) == 2 * ((5 * 7 + 7 * 3) * 2 + 7 * 3)


def test_a_vision_transformer_has_its_published_arithmetic() -> None:
    """ViT-B/16 at 224: 17.6 billion multiplications, 86 million weights (Touvron et al. 2021, DeiT-B)."""
    with torch.device("meta"):
        network = MaskedAutoencoder(
            size=224,
            patch=16,
            width=768,
            depth=12,
            heads=12,
            decoder_width=16,
            decoder_depth=1,
            decoder_heads=1,
        )
        images = torch.empty(1, 3, 224, 224)
        with FlopCounterMode(display=False) as counter:
            network.representation(images)
    assert counter.get_total_flops() / 2 == pytest.approx(17.6e9, rel=0.01)
    weights = sum(one.numel() for one in network.encoder.parameters())
    assert weights == pytest.approx(86e6, rel=0.01)


@pytest.mark.slow
def test_a_masked_autoencoder_counts_what_it_sees() -> None:
    """Encoder: blocks on a quarter of the patches and one token; decoder: on all; three times the forward."""
    [recipe] = [one for one in RECIPES if one.config.endswith("pictures_mae")]
    found = demand(recipe)

    def blocks(tokens: int, width: int, depth: int) -> int:
        return depth * (12 * width**2 * tokens + 2 * tokens**2 * width)

    embed = 64 * 48 * 192
    twice = embed  # no gradient for the pictures
    forward = embed + blocks(17, 192, 6) + 17 * 192 * 96 + blocks(65, 96, 2) + 64 * 96 * 48 + 64 * 96 * 2
    levels = 64 * 96 * 2  # whose gradient ends at the head
    assert found.flops == pytest.approx(2 * (3 * forward - twice - levels), rel=0.01)
    assert found.step == 128


def settings_of(model: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a description, with their class paths, by their dotted names."""
    flat = {}
    for name, value in model["init_args"].items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": one for inner, one in settings_of(value).items()}
        else:
            flat[name] = value
    return flat | {"class_path": model["class_path"]}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.config)
def test_recipes_are_the_configs(recipe: Recipe) -> None:
    config = yaml.safe_load((CONFIGS / f"{recipe.config}.yaml").read_text())
    ours, theirs = settings_of(recipe.model), settings_of(config["model"])
    assert ours.items() <= theirs.items() | {("mask.patch", ours.get("mask.patch"))}
    ignored = {
        "lr", "weight_decay", "warmup_steps", "second_momentum", "beta", "initial_temperature", "anneal",
        "prior_weight",
    }  # fmt: skip
    assert theirs.keys() - ours.keys() <= ignored
    data = config["data"]["init_args"]
    assert data["batch_size"] == recipe.batch
    assert config["trainer"].get("accumulate_grad_batches", 1) == recipe.accumulate
    if recipe.unit == "clips":
        frames, size = data["context_frames"] + data["future_frames"], data.get("size", 32)
        assert recipe.shape == (frames, theirs.get("channels", 1), size, size)
    else:
        assert set(recipe.shape[-2:]) == {data.get("size", data.get("length"))}


def test_the_page_says_that_nothing_was_measured() -> None:
    html = section({RECIPES[0].config: ASKED})
    assert TITLE in html
    assert "none of this was measured" in html
    for gpus in (8, 64, 512):
        assert f"{gpus} GPUs" in html
    assert "989" in html or "9.89e+14" in html
    assert RECIPES[1].config not in html

    class Suite:
        def parts(self, effort: object) -> list[Any]:
            return []

        def summary(self, rows: object) -> list[str]:
            return ["a <line>"]

        def appendix(self) -> str:
            return html

    made = page({"scale": []}, {"scale": Suite()}, {"cpu": "a processor"})
    assert html in made
    assert "a &lt;line&gt;" in made
    assert "a processor" in made
