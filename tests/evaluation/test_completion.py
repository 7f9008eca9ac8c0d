"""Figures of completions against what a few lines by hand give, and their controls."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ssl_ebm.data.image_items import ImageDataset, Pixels
from ssl_ebm.data.masks import Half
from ssl_ebm.evaluation.completion import evaluate_completions, summarise_completions
from ssl_ebm.evaluation.completion_controls import CompletionEnsemble, MeanFill, NoisyCompletion
from ssl_ebm.evaluation.samples import gradient_energy
from ssl_ebm.evaluation.similarity import structural_similarity
from ssl_ebm.networks.completion import occlude


@pytest.fixture
def dataset() -> ImageDataset:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 3, 16, 12)).astype(np.uint8)
    return ImageDataset(Pixels(pixels, np.arange(10) % 2))


class Constant:
    """Fills with one value."""

    def __init__(self, value: float) -> None:
        self.value = value

    def sample(self, x: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        filled = torch.where(x[:, -1:] > 0, self.value, x[:, :-1])
        return filled[:, None].expand(-1, samples, -1, -1, -1)


def test_errors_are_those_of_the_hole(dataset: ImageDataset) -> None:
    found = evaluate_completions(
        {"a": [Constant(0.25)], "mean": [MeanFill()]},
        dataset,
        Half(["left"]),
        samples=20,
        best_of=(1, 20),
        batch_size=4,
    )
    block = summarise_completions(found, reference="a")["models"]["a"]
    truth = torch.stack([dataset[i]["image"] for i in range(10)])
    error = float((truth[..., :6] - 0.25).square().mean())
    assert block["psnr_k1"][0] == pytest.approx(-10 * math.log10(error))
    assert block["psnr_best_of"]["20"][0] == pytest.approx(block["psnr_k1"][0])
    left = truth[..., :7]  # pairs that touch the hole: all within, and those across its border
    pairs = (left[..., 1:] - left[..., :-1]).square().sum()
    pairs = pairs + (truth[..., 1:, :6] - truth[..., :-1, :6]).square().sum()
    assert found.gradient.sum() == pytest.approx(float(pairs), rel=1e-5)


class Rising:
    """Completions are 0.1, 0.2, ... in every hole."""

    def sample(self, x: Tensor, samples: int, generator: torch.Generator | None = None) -> Tensor:
        level = 0.1 * torch.arange(1, samples + 1).view(1, -1, 1, 1, 1)
        return torch.where(x[:, None, -1:] > 0, level, x[:, None, :-1])


def test_best_of_k_is_that_of_completions_in_a_row(dataset: ImageDataset) -> None:
    found = evaluate_completions(
        {"a": [Rising()]}, dataset, Half(["left"]), samples=7, best_of=(1, 3, 7), batch_size=10
    )
    block = summarise_completions(found, reference="a")["models"]["a"]
    truth = torch.stack([dataset[i]["image"] for i in range(10)])[..., :6]
    error = torch.stack([(truth - 0.1 * v).square().flatten(1).mean(1) for v in range(1, 8)], 1)
    for k in (1, 3, 7):
        rows = [error[:, start : start + k].amin(1) for start in range(8 - k)]
        wanted = -10 * math.log10(float(torch.stack(rows).mean()))
        assert block["psnr_best_of"][str(k)][0] == pytest.approx(wanted, rel=1e-5)


def test_pictures_of_one_group_count_as_one(dataset: ImageDataset) -> None:
    """Each picture four times, in one group: as sure as of each once."""
    many = dataset.images.images.repeat(4, axis=0)
    grouped = ImageDataset(Pixels(many, groups=np.arange(10).repeat(4) + 10**15))

    def figures(of: ImageDataset) -> dict[str, Any]:
        found = evaluate_completions(
            {"a": [Constant(0.25)]}, of, Half(["left"]), samples=1, best_of=(1,), batch_size=8
        )
        return summarise_completions(found, reference="a")["models"]["a"]

    once, four, apart = figures(dataset), figures(grouped), figures(ImageDataset(Pixels(many)))
    assert (four["items"], four["groups"], once["groups"]) == (40, 10, 10)
    for name in ("psnr_k1", "gradient_energy_ratio"):
        assert four[name] == pytest.approx(once[name], rel=1e-6)
        assert apart[name][2] - apart[name][1] < 0.7 * (four[name][2] - four[name][1])


def test_a_picture_alone_is_not_swapped_with_itself(dataset: ImageDataset) -> None:
    class Rated(Rising):
        def free_energy(self, x: Tensor, y: Tensor, beta: float = math.inf) -> Tensor:
            return y.flatten(1).sum(1)

    for size, known in ((1, False), (2, True)):
        found = evaluate_completions(
            {"a": [Rated()]}, dataset, Half(["left"]), samples=1, best_of=(1,), batch_size=size
        )
        block = summarise_completions(found, reference="a")["models"]["a"]
        assert (block["auroc"]["swapped"] is not None) == known


def test_ssim_of_a_whole_hole_is_torchmetrics(dataset: ImageDataset) -> None:
    truth = torch.stack([dataset[i]["image"] for i in range(4)])
    other = truth.roll(1, 0)
    everywhere = torch.ones(4, 1, 16, 12, dtype=torch.bool)
    wanted = structural_similarity_index_measure(other, truth, data_range=1.0, reduction="none")
    torch.testing.assert_close(structural_similarity(other[:, None], truth, everywhere)[:, 0], wanted)
    torch.testing.assert_close(gradient_energy(truth, everywhere), gradient_energy(truth))


def test_mean_fill_takes_the_mean_of_the_visible_pixels() -> None:
    images = torch.rand(2, 3, 4, 4)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    filled = MeanFill().sample(occlude(images, mask), 1)[:, 0]
    mean = images[..., 2:].mean((2, 3))
    torch.testing.assert_close(filled[..., 0, 0], mean)
    assert torch.equal(filled[..., 2:], images[..., 2:])


def test_controls_vary_in_the_hole_alone() -> None:
    images = torch.rand(2, 3, 8, 8)
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    x = occlude(images, mask)
    noisy = NoisyCompletion(Constant(0.5), 0.1).sample(x, 400, torch.Generator().manual_seed(0))
    assert float(noisy[..., :4].std()) == pytest.approx(0.1, rel=0.02)
    assert torch.equal(noisy[..., 4:], images[:, None, ..., 4:].expand(-1, 400, -1, -1, -1))
    pair = CompletionEnsemble([Constant(0.2), Constant(0.7)]).sample(x, 3)
    assert [round(float(v), 3) for v in pair[0, :, 0, 0, 0]] == [0.2, 0.7, 0.2]
