"""What many GPUs would need: the arithmetic against what one can work out on paper."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import fields, replace
from functools import cache, partial
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_ebm.data import FontDigits
from ssl_ebm.errors import UserError
from ssl_ebm.networks import ImageEnergy
from ssl_ebm.networks.completion import ConvolutionalCompletion
from ssl_ebm.networks.masked_autoencoder import MaskedAutoencoder
from ssl_ebm.report.benchmarks.page import page
from ssl_ebm.report.benchmarks.scaling import page as scaling_page
from ssl_ebm.report.benchmarks.scaling import recipes
from ssl_ebm.report.benchmarks.scaling.cluster import (
    Cluster,
    Demand,
    limit,
    loaded_share,
    needs,
    ring_bytes,
    ring_seconds,
)
from ssl_ebm.report.benchmarks.scaling.items import Items, items_of
from ssl_ebm.report.benchmarks.scaling.page import STOPS, TITLE, section
from ssl_ebm.report.benchmarks.scaling.recipes import (
    CLASSES,
    Recipe,
    arithmetic_of,
    find_configs,
    read_recipe,
    trainable,
)
from ssl_ebm.tasks import FramePrediction
from ssl_ebm.tasks.building import build

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


def test_what_a_batch_costs_whatever_its_items() -> None:
    """1 GFLOP, 2 ms, for each of two batches; a quarter of a batch is the backward pass."""
    found = needs(replace(ASKED, fixed=1e9, backward=0.25, held=7), 4, ROUND)
    assert found.flops == 14e9
    assert found.compute == pytest.approx(28e-3)
    assert found.exposed == pytest.approx(7.5e-3 - 14e-3 / 4)
    assert found.checkpoint == 7 + 8 * 250_000
    assert needs(replace(ASKED, fixed=1e9), 64, ROUND).flops == 4e9  # one item, half a batch


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
    found = arithmetic_of(Two(), "image", (5,))
    assert found.item == (2 * (5 * 7 + 7 * 3), 2 * (5 * 7 + 7 * 3 + 7 * 3))
    assert found.fixed == (0, 0)
    assert found.backward(6) == pytest.approx((56 + 21) / (2 * 56 + 21))


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


ALL = sorted(
    str(path.relative_to(CONFIGS).with_suffix(""))
    for path in CONFIGS.rglob("*.yaml")
    if path.parent.name != "strategies"  # fragments, which are added to another config
)
read = cache(partial(read_recipe, CONFIGS))
described = cache(lambda name: yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))


def count(folder: Path, name: str, **changes: Any) -> Demand:
    """Of a config with other settings, given by their dotted names with __ for a dot."""
    config = copy.deepcopy(described(name))
    for path, value in changes.items():
        *way, last = path.split("__")
        place = config["model"]["init_args"]
        for step in way:
            place = place[step]["init_args"]
        place[last] = value
    (folder / "changed.yaml").write_text(yaml.safe_dump(config))
    return read_recipe(folder, "changed").demand


def test_every_config_that_trains_is_a_recipe() -> None:
    assert find_configs() == CONFIGS
    assert trainable(CONFIGS) == ALL
    assert len(ALL) >= 24


@pytest.mark.parametrize("name", ALL)
def test_every_config_is_on_the_page(name: str) -> None:
    """As its YAML describes it."""
    recipe, config = read(name), described(name)
    html = section([recipe]).replace("\u200b", "")
    assert f">{name.rpartition('/')[2]}</th>" in html
    assert recipe.items.sources in unescape(html)
    assert html.count("scales to") == 2
    data = config["data"]["init_args"]
    data = data.get("data", {}).get("init_args", data)
    asked, items = recipe.demand, recipe.items
    assert asked.batch == data["batch_size"]
    on = 8 if "imagenet" in name else 1
    assert asked.step == asked.batch * config["trainer"].get("accumulate_grad_batches", 1) * on
    if items.unit == "clips":
        settings = config["model"]["init_args"]
        settings = settings.get("backbone", {}).get("init_args", settings)
        size = data.get("size", 32)
        frames = data["context_frames"] + data["future_frames"]
        assert items.shape == (frames, settings.get("channels", 1), size, size)
    elif items.unit in ("sequences", "images"):
        assert {items.shape[-1]} == {data.get("size", data.get("length", 28))}
    assert asked.stored == (0 if items.kept else items.stored)
    assert 0 < asked.backward <= 2 / 3
    assert min(asked.parameters, asked.flops, asked.core, asked.items) > 0
    assert asked.held >= 4 * asked.parameters


def test_a_set_of_data_of_which_nothing_is_known_is_named() -> None:
    with pytest.raises(UserError, match=r"items of FontDigits are is not known"):
        items_of(FontDigits(), None)


# -- arithmetic of the recipes, by hand ------------------------------------------------------------------


def test_steps_of_a_sampler_are_counted(tmp_path: Path) -> None:
    """A perceptron 14-64-64-1 (a point with three sines and cosines of each entry); Langevin steps take its
    value and the gradient in the point; data and samples are then seen once more, with a gradient."""
    products = 14 * 64 + 64 * 64 + 64
    backward = 2 * (products + 64 * 64 + 64)  # of the weights; and of the inputs of the last two layers
    found = read("density/moons_persistent").demand
    assert found.flops == 10 * 2 * 2 * products + 2 * (2 * products + backward)
    assert found.backward == pytest.approx(2 * backward / found.flops)
    assert found.fixed == 0
    twice = count(tmp_path, "density/moons_persistent", objective__steps=20)
    assert twice.flops - found.flops == 10 * 2 * 2 * products


def test_a_grid_is_counted_once_for_a_batch() -> None:
    products = 14 * 64 + 64 * 64 + 64
    point = 2 * products + 2 * (products + 64 * 64 + 64)
    found = read("density/eight_gaussians_likelihood").demand
    assert (found.flops, found.fixed) == (point, 70**2 * point)


@pytest.mark.parametrize("name", ["density/fashion_persistent", "density/picture_folder_persistent"])
def test_steps_of_chains_of_pictures_are_counted(name: str, tmp_path: Path) -> None:
    """A step more costs what PyTorch's own counter sees in a value and its gradient in the picture."""
    found, one = read(name).demand, count(tmp_path, name, objective__steps=1)
    settings = described(name)["model"]["init_args"]["energy"]["init_args"]
    energy = ImageEnergy(**settings).requires_grad_(False)
    y = torch.rand(1, *read(name).items.shape).requires_grad_()
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        # (the counter's hooks let no gradient through that is asked for by torch.autograd.grad)
        energy(y).sum().backward()
    assert found.flops - one.flops == 19 * counter.get_total_flops()


def test_all_codes_of_a_picture_are_counted(tmp_path: Path) -> None:
    """K codes one-hot: z A (no gradient for z), one product with the parts, and the prior's last layer."""
    name = "inpainting/pictures_latent_ebm"
    settings = described(name)["model"]["init_args"]
    codes, parts = settings["codes"], settings["network"]["init_args"]["parts"]
    assert (codes, parts) == (20, 16)
    features = ConvolutionalCompletion(**settings["network"]["init_args"]).features

    def of_codes(codes: int) -> int:
        mixed, drawn, prior = codes**2 * parts, codes * parts * 3 * 32**2, codes * features
        return 2 * (2 * mixed + 3 * drawn + 3 * prior)

    more = count(tmp_path, name, codes=2 * codes).flops - read(name).demand.flops
    assert more == of_codes(2 * codes) - of_codes(codes)


@pytest.mark.parametrize("name", ["frame_prediction/quickstart_latent_ebm"])
def test_all_codes_of_a_frame_are_counted(name: str, tmp_path: Path) -> None:
    """K codes one-hot: three layers see z (no gradient for it), two more and the drawing see its mixture,
    and the prior's last layer its number."""
    settings = described(name)["model"]["init_args"]
    features, shifts, paints = 128, (2 * settings["radius"] + 1) ** 2, 4
    pixels = 32 * 32

    def of_codes(codes: int) -> int:
        seen = codes**2 * (features + shifts)
        mixed = codes * (features**2 + features * (shifts + paints) + (shifts + paints) * pixels)
        return 2 * (2 * seen + 3 * mixed + 3 * codes * features)

    more = count(tmp_path, name, codes=98).flops - read(name).demand.flops
    assert more == of_codes(98) - of_codes(49)


def test_frames_that_a_model_feeds_itself_are_counted(tmp_path: Path) -> None:
    """Of eight steps four begin 1 to 4 frames later, each frame having been inferred and drawn."""
    name = "frame_prediction/two_digits_latent_ebm"
    task = build(described(name)["model"], FramePrediction, "model").train()
    clip = torch.rand(1, 9, 1, 64, 64)
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        task._advance(clip[:, :4], clip[:, 4])
    more = read(name).demand.flops - count(tmp_path, name, self_fed=0).flops
    assert more == pytest.approx((1 + 2 + 3 + 4) / 8 * counter.get_total_flops(), rel=1e-9)


def blocks(tokens: int, width: int, depth: int, asked: int | None = None) -> int:
    """Products of transformer blocks, the last of which may be asked for some places alone."""
    asked = tokens if asked is None else asked
    whole = 12 * width**2 * tokens + 2 * tokens**2 * width
    last = 2 * width**2 * tokens + 10 * width**2 * asked + 2 * asked * tokens * width
    return (depth - 1) * whole + last


def test_masked_text_is_counted_by_its_layers() -> None:
    width, hidden = 256, 19  # 0.3 of 64
    forward = blocks(64, width, 4, hidden) + hidden * (width**2 + width * 4096)
    assert read("masked_text/documents").demand.flops == 3 * 2 * forward


def test_fine_tuning_is_counted_by_its_layers() -> None:
    forward = blocks(64, 256, 4) + 256 * CLASSES
    assert read("fine_tuning/documents").demand.flops == 3 * 2 * forward


def test_a_masked_autoencoder_counts_what_it_sees() -> None:
    """Encoder: blocks on a quarter of the patches and one token; decoder: on all; three times the forward."""
    embed = 64 * 48 * 192
    twice = embed  # no gradient for the pictures
    forward = embed + blocks(17, 192, 6) + 17 * 192 * 96 + blocks(65, 96, 2) + 64 * 96 * 48 + 64 * 96 * 2
    levels = 64 * 96 * 2  # whose gradient ends at the head
    found = read("inpainting/pictures_mae").demand
    assert found.flops == pytest.approx(2 * (3 * forward - twice - levels), rel=0.01)
    assert found.step == 128


def test_weights_that_layers_share_are_counted_once() -> None:
    """BERT-base: 110 million parameters (Devlin et al. 2019); scores are products with the embedding."""
    found = read("masked_text/bert_base").demand
    assert found.parameters == pytest.approx(110e6, rel=0.01)
    assert found.held == pytest.approx(4 * found.parameters, rel=0.001)


def test_counting_by_shapes_alone_gives_what_computing_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["density/moons_persistent", "inpainting/fashion_latent_ebm"]
    expected = [read_recipe(CONFIGS, name).demand for name in names]
    monkeypatch.setattr(recipes, "shapes_alone", lambda task: nullcontext())
    assert [read_recipe(CONFIGS, name).demand for name in names] == expected


# -- the page ---------------------------------------------------------------------------------------------


def test_the_page_says_that_nothing_was_measured() -> None:
    facts = Items("images", "image", (3, 8, 8), 1000, "JPEG", False, 640, 50, "Where <they> are from.")
    html = section([Recipe("frames/some_large", "latent_ebm", facts, ASKED, (facts.sources, "More."))])
    assert TITLE in html
    assert "none of this was measured" in html
    assert "<h3>Frames</h3>" in html
    assert "8<br>64<br>512" in html
    assert "989" in html or "9.89e+14" in html
    assert "latent ebm" in html
    assert "Where &lt;they&gt; are from.<br>More." in html
    assert "1 kB<small>JPEG</small>" in html
    at_once = Cluster(hop=0.0, node_link=1e20, network_link=1e20)
    html = section([Recipe("frames/some", "latent_ebm", facts, ASKED, (facts.sources,))], cluster=at_once)
    assert "<b>16 GPUs</b> (16 items a step); then a step has 16 items, fewer than 32 GPUs" in html
    assert "<b>64 GPUs</b> (16 to 64 items a step); then a step has 64 items" in html


def test_a_page_without_recipes_says_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_page, "find_configs", lambda: None)
    scaling_page.recipes.cache_clear()
    assert scaling_page.appendix() == ""  # the part was not run
    assert scaling_page.recipes() == ([], {})
    assert "run this from a clone" in scaling_page.appendix()
    scaling_page.recipes.cache_clear()


def test_a_config_that_cannot_be_worked_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = described("inpainting/fashion_least_squares") | {
        "data": {"class_path": "ssl_ebm.data.FontDigits"}
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "fragment.yaml").write_text("trainer: {max_steps: 3}")
    monkeypatch.setattr(scaling_page, "find_configs", lambda: tmp_path)
    scaling_page.recipes.cache_clear()
    found, wrong = scaling_page.recipes()
    scaling_page.recipes.cache_clear()
    assert (found, list(wrong)) == ([], ["mine"])
    assert "mine was not worked out: how large the items of FontDigits are" in section(found, wrong)


def test_what_is_worked_out_is_part_of_the_page() -> None:
    html = section([])

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


@pytest.mark.parametrize("name", [one.name for one in fields(Cluster)])
def test_every_assumption_is_on_the_page(name: str) -> None:
    """A page with another value of it is another page, where nothing is worked out from it."""
    usual = Cluster()
    pages = [
        section([], {"mine": "why"}, one).replace(STOPS.format(efficiency=one.efficiency), "")
        for one in (usual, replace(usual, **{name: getattr(usual, name) / 2}))
    ]
    assert pages[0] != pages[1]
