"""The inpainting task: nothing of the hole reaches a prediction, energies are what they say, it learns."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_ebm.errors import UserError
from ssl_ebm.networks.completion import occlude, patch_levels
from ssl_ebm.tasks import Inpainting

CONVOLUTIONAL = {
    "class_path": "ssl_ebm.networks.completion.ConvolutionalCompletion",
    "init_args": {"channels": 1, "parts": 4, "width": 8, "levels": 1, "features": 16},
}
PATCHES = {
    "class_path": "ssl_ebm.networks.patch_completion.PatchCompletion",
    "init_args": {
        "size": 16, "patch": 4, "channels": 1, "width": 24, "depth": 1, "heads": 2, "decoder_width": 16,
        "decoder_depth": 1, "decoder_heads": 2, "parts": 4,
    },
}  # fmt: skip
RANDOM = {"class_path": "ssl_ebm.data.masks.RandomPatches", "init_args": {"ratio": 0.75, "patch": 4}}


def normalised(network: dict[str, Any]) -> dict[str, Any]:
    return {**network, "init_args": {**network["init_args"], "normalised": True}}


@pytest.fixture(params=["convolutional", "patches", "normalised"])
def task(request: pytest.FixtureRequest) -> Inpainting:
    torch.manual_seed(0)
    network = {"convolutional": CONVOLUTIONAL, "patches": PATCHES, "normalised": normalised(PATCHES)}
    return Inpainting(network=network[request.param], codes=5).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_hidden_part_reaches_no_prediction(task: Inpainting, images: Tensor) -> None:
    x = task.occluded(images, torch.Generator().manual_seed(2))
    hidden = x[:, -1:] > 0
    other = torch.where(hidden, 1 - images, images)
    assert torch.equal(occlude(other, hidden), x)
    drawn = task.sample(x, 7, torch.Generator().manual_seed(3))
    assert drawn.shape == (3, 7, 1, 16, 16)
    visible = ~hidden[:, None].expand_as(drawn)
    assert torch.equal(drawn[visible], images[:, None].expand_as(drawn)[visible])


@torch.no_grad()
def test_completions_of_one_call_are_spread_over_the_codes(images: Tensor) -> None:
    """From the bank, whose five codes are equally frequent before training: three differ, ten are of all."""
    task = Inpainting(network=CONVOLUTIONAL, codes=5).eval()
    x = task.occluded(images, torch.Generator().manual_seed(2))
    every = task.decode(x, task.latent.enumerate().expand(3, -1, -1))  # type: ignore[attr-defined]
    drawn = task.sample(x, 10, torch.Generator().manual_seed(3), "bank")
    distance = (drawn[:, :, None] - every[:, None]).flatten(3).abs().amax(3)  # (3, 10, 5)
    assert (distance.amin(2) < 1e-5).all()
    codes = distance.argmin(2)
    assert all(len(row[:3].unique()) == 3 and len(row.unique()) == 5 for row in codes)


def test_energies_are_squared_errors_of_the_hole_alone(task: Inpainting, images: Tensor) -> None:
    x = task.occluded(images, torch.Generator().manual_seed(2))
    z = task.latent.enumerate()  # type: ignore[attr-defined]
    with torch.no_grad():
        h = task.context(x)
        hidden = task.energy.decode(h, z.expand(3, -1, -1))
        wanted = images
        if h.levels is not None:
            mean, deviation = patch_levels(images, 4).unbind(1)
            wanted = (images - mean) / deviation
        by_hand = ((wanted[:, None] - hidden).square() * x[:, None, -1:]).flatten(2).sum(2)
        torch.testing.assert_close(task.energies_by_code(x, images), by_hand)
        torch.testing.assert_close(task.free_energy(x, images), by_hand.amin(1))
        soft = -(torch.logsumexp(-0.3 * by_hand, 1) - math.log(5)) / 0.3
        torch.testing.assert_close(task.free_energy(x, images, 0.3), soft)


def test_levels_of_patches_are_those_of_the_paper(images: Tensor) -> None:
    """He et al. (2022): mean and unbiased variance of a patch's pixels."""
    patch = images[1, :, 4:8, 8:12]
    found = patch_levels(images, 4)[1, :, 0, 5, 9]
    torch.testing.assert_close(found[0], patch.mean())
    torch.testing.assert_close(found[1], (patch.var() + 1e-6).sqrt())


def test_normalised_patches_are_shown_with_levels_that_do_not_know_the_truth(images: Tensor) -> None:
    torch.manual_seed(0)
    task = Inpainting(network=normalised(PATCHES), codes=5)
    x = task.occluded(images, torch.Generator().manual_seed(2))
    task.losses(x, images, 1.0)["loss"].backward()
    head = task.network.autoencoder.statistics
    assert head.weight.grad is not None
    assert float(head.weight.grad.abs().sum()) > 0
    task.zero_grad()
    task.context(x).levels.sum().backward()  # the head teaches the rest nothing
    assert all(p.grad is None for name, p in task.named_parameters() if "statistics" not in name)


def test_visible_patches_alone_give_the_same_loss_as_all_with_a_mask(images: Tensor) -> None:
    torch.manual_seed(0)
    task = Inpainting(network=PATCHES, mask=RANDOM, codes=5)
    x = task.occluded(images, torch.Generator().manual_seed(2))
    seen = task._seen(images)
    assert seen == 4
    fast = task.losses(x, images, 1.0, task.network(x, seen))
    torch.testing.assert_close(fast["loss"], task.losses(x, images, 1.0)["loss"])


def test_gradient_is_that_of_the_mean_over_the_posterior(images: Tensor) -> None:
    """The envelope theorem at beta: dF_beta/dW is dE/dW averaged over the Gibbs posterior."""
    torch.manual_seed(0)
    task = Inpainting(network=CONVOLUTIONAL, codes=5, prior_weight=0.0).double()
    y = images.double()
    x = task.occluded(y, torch.Generator().manual_seed(2))
    weights = list(task.energy.parameters())
    found = torch.autograd.grad(task.losses(x, y, 0.5)["loss"], weights, allow_unused=True)
    energies = task.energy.energy(
        task.target(x, y), task.context(x), task.latent.enumerate().double().expand(3, -1, -1)
    )  # type: ignore[attr-defined]
    posterior = (-0.5 * energies.detach()).softmax(1)
    wanted = torch.autograd.grad((posterior * energies).sum(1).mean(), weights, allow_unused=True)
    for a, b in zip(found, wanted, strict=True):
        if b is not None and a is not None:
            torch.testing.assert_close(a, b)


def two_answers(count: int, generator: torch.Generator) -> Tensor:
    """Pictures whose left half is all black or all white, by a coin that the right half does not tell."""
    coin = (torch.rand(count, 1, 1, 1, generator=generator) < 0.5).float()
    pictures = torch.full((count, 1, 8, 8), 0.5)
    pictures[..., :4] = coin
    return pictures


def test_a_latent_finds_both_answers_where_least_squares_averages() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = {"class_path": "ssl_ebm.data.masks.Half", "init_args": {"sides": ["left"]}}
    drawn = {}
    for objective in ("least_squares", "latent_ebm"):
        torch.manual_seed(1)
        task = Inpainting(objective=objective, network=CONVOLUTIONAL, mask=mask, codes=4)  # type: ignore[arg-type]
        optimizer = torch.optim.Adam(task.parameters(), lr=5e-3)
        for step in range(200):
            y = two_answers(16, generator)
            loss = task.losses(task.occluded(y), y, 1 / max(0.2, 5 - step / 20))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            x = task.eval().occluded(two_answers(4, generator))
            drawn[objective] = task.sample(x, 32, torch.Generator().manual_seed(2))[..., :4].mean((2, 3, 4))
    assert float((drawn["least_squares"] - 0.5).abs().max()) < 0.2
    assert float(drawn["latent_ebm"].min()) < 0.1
    assert float(drawn["latent_ebm"].max()) > 0.9
    assert float(((drawn["latent_ebm"] > 0.2) & (drawn["latent_ebm"] < 0.8)).float().mean()) < 0.05


def test_a_checkpoint_rebuilds_the_task(task: Inpainting, images: Tensor, tmp_path: Path) -> None:
    again = Inpainting(**task.hparams)
    again.load_state_dict(task.state_dict())
    x = task.occluded(images, torch.Generator().manual_seed(2))
    first, second = (one.eval().sample(x, 3, torch.Generator().manual_seed(0)) for one in (task, again))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beta": -1.0}, "beta"),
        ({"codes": 1}, "codes is 1"),
        ({"lr": 0.0}, "lr is 0"),
        ({"network": {**CONVOLUTIONAL, "init_args": {"channels": 1, "parts": 0}}}, "parts to 8"),
        ({"mask": {"class_path": "torch.nn.ReLU"}}, "mask"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Inpainting(**{"network": CONVOLUTIONAL, **settings})


def test_pictures_of_another_number_of_channels_are_named() -> None:
    with pytest.raises(UserError, match="1 channels"):
        Inpainting(network=CONVOLUTIONAL).occluded(torch.rand(2, 3, 16, 16))
