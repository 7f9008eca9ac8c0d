"""Frame prediction: energies, gradients and predictions, against enumeration and finite differences."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from two_futures import batch_of, both_futures, loader, small, trained, trainer

from ssl_ebm.energy import FiniteLatent, posterior
from ssl_ebm.tasks import FramePrediction

FINITE: list[dict[str, Any]] = [{"latent": "one_hot"}, {"latent": "quantised"}]
CONTINUOUS: list[dict[str, Any]] = [
    {"latent": latent, "inference": inference, "latent_noise": 0.0}
    for latent in ("gaussian", "ball")
    for inference in ("gradient", "amortised", "amortised_refined")
]
ALL = [{"objective": "least_squares"}, *FINITE, *CONTINUOUS]


def name_of(settings: dict[str, Any]) -> str:
    return "-".join(str(value) for value in settings.values() if isinstance(value, str))


def texture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(task: FramePrediction) -> list[Tensor]:
    return [p for p in task.parameters() if p.requires_grad]


# --- energies ---


@pytest.mark.parametrize("settings", FINITE, ids=name_of)
@pytest.mark.parametrize("beta", [0.1, 3.0, math.inf])
@torch.no_grad()
def test_free_energy_is_that_of_all_codes_one_by_one(settings: dict[str, Any], beta: float) -> None:
    task = small(**settings).eval()
    x, y = texture(3, 2, 1, 16, 16), texture(3, 1, 16, 16, seed=1)
    assert isinstance(task.latent, FiniteLatent)
    energies = np.zeros((3, 4))
    for b in range(3):
        for k, code in enumerate(task.latent.enumerate()):
            frame = task.energy.decode(task.energy.context(x[b : b + 1]), code[None, None])[0, 0]
            energies[b, k] = ((frame.double().numpy() - y[b].double().numpy()) ** 2).sum()
    np.testing.assert_allclose(task.energies_by_code(x, y).numpy(), energies, rtol=1e-5)
    expected = energies.min(1) if math.isinf(beta) else -np.log(np.exp(-beta * energies).mean(1)) / beta
    np.testing.assert_allclose(task.free_energy(x, y, beta).numpy(), expected, rtol=1e-5)
    best = task.latent.enumerate()[energies.argmin(1)]
    assert torch.equal(task.infer(x, y), best)


@torch.no_grad()
def test_least_squares_has_one_energy_at_every_temperature() -> None:
    task = small("least_squares").eval()
    x, y = texture(3, 2, 1, 16, 16), texture(3, 1, 16, 16, seed=1)
    error = (
        (task.energy.decode(task.energy.context(x), torch.ones(3, 1, 1))[:, 0] - y).square().sum((1, 2, 3))
    )
    for beta in (0.1, math.inf):
        torch.testing.assert_close(task.free_energy(x, y, beta), error)


@pytest.mark.parametrize("settings", ALL, ids=name_of)
@torch.no_grad()
def test_free_energies_of_several_futures_are_those_of_each(settings: dict[str, Any]) -> None:
    task = small(**settings).eval()
    x, y = texture(2, 2, 1, 16, 16), texture(2, 3, 1, 16, 16, seed=1)
    betas = [0.5, math.inf, 4.0]
    torch.manual_seed(0)
    together = task.free_energies(x, y, betas)
    assert together.shape == (3, 2, 3)
    for b, beta in enumerate(betas):
        torch.manual_seed(0)
        each = [task.free_energy(x, y[:, n], beta) for n in range(3)]
        torch.testing.assert_close(together[b], torch.stack(each, 1))


@torch.no_grad()
def test_the_context_is_computed_once_whatever_the_number_of_candidates() -> None:
    task = small(codes=16)
    calls = []
    assert task.energy.predictor is not None
    task.energy.predictor.register_forward_hook(lambda *_: calls.append(1))
    x, y = texture(2, 2, 1, 16, 16), texture(2, 1, 16, 16, seed=1)
    for run, expected in [
        (lambda: task.energies_by_code(x, y), 1),
        (lambda: task.losses(x, y, 1.0), 1),
        (lambda: task.sample(x, 20), 1),
        (lambda: task.sample(x, 20, horizon=3), 3),
    ]:
        calls.clear()
        run()
        assert len(calls) == expected


@pytest.mark.parametrize("settings", CONTINUOUS, ids=name_of)
def test_inference_does_not_change_with_what_ran_before(settings: dict[str, Any]) -> None:
    """A free energy is a function of x and y."""
    task = small(**settings).eval()
    x, y = texture(2, 2, 1, 16, 16), texture(2, 1, 16, 16, seed=1)
    first = task.free_energy(x, y)
    torch.rand(7)
    assert torch.equal(task.free_energy(x, y), first)


# --- gradients ---


def slope(loss: Callable[[], Tensor], task: FramePrediction, direction: list[Tensor], step: float) -> float:
    """Central difference of a loss along a direction in the parameters."""
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters(task), direction, strict=True):
                p += sign * step * d
            values.append(loss().item())
        for p, d in zip(parameters(task), direction, strict=True):
            p += step * d
    return (values[0] - values[1]) / (2 * step)


def gradient_of(loss: Tensor, task: FramePrediction) -> list[Tensor]:
    gradients = torch.autograd.grad(loss, parameters(task), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters(task), gradients, strict=True)]


@pytest.mark.parametrize("settings", FINITE, ids=name_of)
@pytest.mark.parametrize("beta", [0.05, 2.0, math.inf])
def test_gradient_of_the_loss_is_that_of_the_free_energy(settings: dict[str, Any], beta: float) -> None:
    """By finite differences of F, in which the posterior and the minimiser change too."""
    task = small(prior_weight=0.0, **settings).double().eval()
    x, y = texture(3, 2, 1, 16, 16).double(), texture(3, 1, 16, 16, seed=1).double()
    gradient = gradient_of(task.losses(x, y, beta)["loss"], task)
    for seed in range(3):
        direction = [torch.randn(p.shape, generator=seeded(seed), dtype=p.dtype) for p in parameters(task)]
        expected = slope(lambda: task.free_energy(x, y, beta).mean(), task, direction, 1e-6)
        found = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
        assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("settings", FINITE, ids=name_of)
@pytest.mark.parametrize("beta", [0.05, 2.0])
def test_gradient_is_the_posterior_average_of_each_codes_own(settings: dict[str, Any], beta: float) -> None:
    """And that of the prior's cross-entropy, with the posterior held fixed: nothing flows through it."""
    task = small(prior_weight=0.7, **settings).double().eval()
    x, y = texture(3, 2, 1, 16, 16).double(), texture(3, 1, 16, 16, seed=1).double()
    weights = posterior(task.energies_by_code(x, y).detach(), beta)
    assert 0.02 < weights.amax() < 0.98  # several codes count
    total = [torch.zeros_like(p) for p in parameters(task)]
    for b in range(3):
        for k in range(4):
            h = task.energy.context(x[b : b + 1])
            assert isinstance(task.latent, FiniteLatent)
            energy = task.energy.energy(y[b : b + 1], h, task.latent.enumerate()[k][None, None])[0, 0]
            assert task.prior is not None
            loss = weights[b, k] * (energy - 0.7 * task.prior(h.features)[0, k]) / 3
            total = [t + g for t, g in zip(total, gradient_of(loss, task), strict=True)]
    for found, expected in zip(gradient_of(task.losses(x, y, beta)["loss"], task), total, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("settings", CONTINUOUS, ids=name_of)
def test_gradient_of_the_network_is_taken_at_the_minimiser(settings: dict[str, Any]) -> None:
    """The envelope theorem for continuous z: dE/dW at z*, as if z* were given."""
    task = small(prior_weight=0.0, **settings).double().eval()
    x, y = texture(3, 2, 1, 16, 16).double(), texture(3, 1, 16, 16, seed=1).double()
    torch.manual_seed(0)
    z = task.infer(x, y)
    assert not z.requires_grad
    at_z = task.energy(x, y, z[:, None])[:, 0].mean()
    torch.manual_seed(0)
    found = gradient_of(task.losses(x, y, 1.0)["loss"], task)
    checked = list(task.energy.decoder.parameters())
    if settings["inference"] == "gradient":  # an encoder's own loss reaches the predictor through its input
        assert task.energy.predictor is not None
        checked += list(task.energy.predictor.parameters())
    expected = gradient_of(at_z, task)
    pairs = {id(p): pair for p, *pair in zip(parameters(task), found, expected, strict=True)}
    for p in checked:
        torch.testing.assert_close(*pairs[id(p)])


@pytest.mark.parametrize("settings", [s for s in CONTINUOUS if s["inference"] != "gradient"], ids=name_of)
def test_the_encoder_learns(settings: dict[str, Any]) -> None:
    task = small(**settings)
    batch = batch_of(*both_futures())
    task.losses(*task.split(batch), 1.0)["loss"].backward()
    assert isinstance(task.inference, torch.nn.Module)
    gradients = [p.grad for p in task.inference.parameters()]
    assert gradients
    assert all(g is not None and g.abs().max() > 0 for g in gradients)


# --- predictions know nothing of y ---


@pytest.fixture(scope="module", params=ALL, ids=name_of)
def seen(request: pytest.FixtureRequest) -> FramePrediction:
    """A model of each kind after a few steps."""
    return trained(small(**request.param), 3)


@torch.no_grad()
def test_nothing_of_y_reaches_a_prediction(seen: FramePrediction) -> None:
    video = batch_of(*both_futures())["video"]
    video = torch.cat([video, video], 1)  # frames after y, too
    noise = video.clone()
    noise[:, 2:] = texture(*noise[:, 2:].shape)
    assert torch.equal(seen.predict_step({"video": video}, 3), seen.predict_step({"video": noise}, 3))
    samples = [seen.sample(v[:, :2], 5, 3, seeded()) for v in (video, noise)]
    assert torch.equal(*samples)


@torch.no_grad()
def test_samples_depend_on_every_context_frame_and_on_the_generator(seen: FramePrediction) -> None:
    x, _ = both_futures()
    first = seen.sample(x, 5, 1, seeded())
    for frame in range(2):
        other = x.clone()
        other[:, frame] = texture(*other[:, frame].shape)
        assert not torch.equal(seen.sample(other, 5, 1, seeded()), first)
    state = torch.get_rng_state()
    assert torch.equal(seen.sample(x, 5, 1, seeded()), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0 <= first.min() <= first.max() <= 1
    repeats = torch.equal(first, first[:, :1].expand_as(first))
    assert repeats == (seen.objective == "least_squares")


@torch.no_grad()
def test_samples_are_decoded_draws_of_the_prior(seen: FramePrediction) -> None:
    x, _ = both_futures()
    z = seen.prior_sample(x, 6, seeded())
    torch.testing.assert_close(seen.sample(x, 6, 1, seeded())[:, :, 0], seen.decode(x, z))
    codes = [seen.decode(x, z[:, s : s + 1]) for s in range(6)]
    torch.testing.assert_close(torch.cat(codes, 1), seen.decode(x, z))


@torch.no_grad()
def test_a_rollout_is_step_by_step(seen: FramePrediction) -> None:
    """Each future sees its own frames: the same draws, one call of horizon 1 for every step."""
    x, _ = both_futures()
    generator = seeded(4)
    together = seen.sample(x, 3, 4, generator)
    generator = seeded(4)
    frame = seen.sample(x, 3, 1, generator)[:, :, 0]  # (B, S, C, H, W)
    context = x[:, None].expand(-1, 3, -1, -1, -1, -1).flatten(0, 1)
    frames = [frame]
    for _ in range(3):
        context = torch.cat([context[:, 1:], frame.flatten(0, 1)[:, None]], 1)
        frame = seen.sample(context, 1, 1, generator)[:, 0, 0].unflatten(0, (len(x), 3))
        frames.append(frame)
    torch.testing.assert_close(together, torch.stack(frames, 2))


@pytest.mark.parametrize("settings", [*ALL, {"channels": 3, "layers": 2, "codes": 7}], ids=str)
def test_a_checkpoint_alone_gives_the_same_predictions(settings: dict[str, Any], tmp_path: Path) -> None:
    task = small(**settings)
    fitter = trainer(2)
    batch = {"video": texture(4, 3, settings.get("channels", 1), 12, 20)}
    fitter.fit(task, loader(batch, 2))
    fitter.save_checkpoint(tmp_path / "task.ckpt")
    torch.manual_seed(123)
    again = FramePrediction.load_from_checkpoint(tmp_path / "task.ckpt", weights_only=True).eval()
    task.eval()
    with torch.no_grad():
        assert torch.equal(again.predict_step(batch, 0), task.predict_step(batch, 0))
        x, y = task.split(batch)
        bank = [model.prior_sample(x, 9, seeded(), "bank") for model in (task, again)]
        assert torch.equal(*bank)
        torch.manual_seed(0)
        expected = task.free_energy(x, y)
        torch.manual_seed(0)
        assert torch.equal(again.free_energy(x, y), expected)


@torch.no_grad()
def test_sharpness_is_of_predictions_and_not_of_energies() -> None:
    x, y = torch.rand(2, 2, 1, 16, 16), torch.rand(2, 1, 16, 16)
    plain, sharp = (small(sharpness=s).eval() for s in (1.0, 50.0))
    assert torch.equal(plain.free_energy(x, y), sharp.free_energy(x, y))
    drawn, decided = (task.sample(x, 3, 1, seeded()) for task in (plain, sharp))
    assert not torch.allclose(drawn, decided, atol=1e-3)
    z = sharp.prior_sample(x, 3, seeded())
    assert torch.equal(decided[:, :, 0], sharp.decode(x, z))


@torch.no_grad()
def test_rollout_sharpness_begins_with_the_second_frame() -> None:
    x = torch.rand(2, 2, 1, 16, 16)
    plain, sharp = (small(rollout_sharpness=s).eval().sample(x, 3, 3, seeded()) for s in (1.0, 50.0))
    assert torch.equal(plain[:, :, 0], sharp[:, :, 0])
    assert not torch.allclose(plain[:, :, 1], sharp[:, :, 1], atol=1e-3)
