"""What frame prediction learns where the answer is known, and how its training starts, anneals and stops."""

import math
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from two_futures import batch_of, both_futures, loader, small, trained, trainer

from ssl_ebm.energy import FiniteLatent
from ssl_ebm.errors import UserError
from ssl_ebm.tasks import FramePrediction
from ssl_ebm.tasks.saving import LastCheckpoint, last_checkpoint

STEPS = 300


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Squared, summed over a frame: (..., C, H, W) -> (...)."""
    return (a - b).square().sum((-3, -2, -1))


@pytest.fixture(scope="module")
def least_squares() -> FramePrediction:
    return trained(small("least_squares"), STEPS)


@pytest.fixture(scope="module", params=["one_hot", "quantised"])
def latent_ebm(request: pytest.FixtureRequest) -> FramePrediction:
    return trained(small(latent=request.param), STEPS)


# --- what is learnt ---


@torch.no_grad()
def test_least_squares_learns_the_mean_of_the_futures(least_squares: FramePrediction) -> None:
    """The minimiser of the mean squared error: (right + left) / 2; the loss that stays is its variance."""
    x, futures = both_futures()
    mean = futures.mean(1)
    spread = distance(futures[:, 0], mean)  # of each future from the mean
    prediction = least_squares.sample(x, 1)[:, 0, 0]
    assert (distance(prediction, mean) / spread).max() < 0.01
    free_energy = [least_squares.free_energy(x, y) for y in (mean, futures[:, 0], futures[:, 1])]
    assert (free_energy[0] < 0.01 * torch.minimum(*free_energy[1:])).all()
    torch.testing.assert_close(free_energy[1] + free_energy[2], 2 * spread, rtol=0.02, atol=0)


@torch.no_grad()
def test_a_latent_learns_both_futures_and_their_odds(latent_ebm: FramePrediction) -> None:
    x, futures = both_futures()
    mean = futures.mean(1)
    spread = distance(futures[:, 0], mean)
    latent = latent_ebm.latent
    assert isinstance(latent, FiniteLatent)
    frames = latent_ebm.decode(x, latent.enumerate().expand(len(x), -1, -1))  # (B, K, C, H, W)
    errors = distance(frames[:, :, None], futures[:, None])  # (B, K, 2)
    assert (errors.amin(1) < 0.25 * spread[:, None]).all()  # each future has a code
    probability = latent_ebm.prior(latent_ebm.representation(x)).exp()  # type: ignore[misc]
    to_the_right = (probability * (errors.argmin(2) == 0)).sum(1)
    torch.testing.assert_close(to_the_right, torch.full_like(to_the_right, 0.5), rtol=0, atol=0.1)
    # What is drawn is a future, not a blur, and the energy says the same.
    drawn = latent_ebm.sample(x, 50, 1, torch.Generator().manual_seed(0))[:, :, 0]
    nearest = distance(drawn[:, :, None], futures[:, None]).amin(2)
    assert (nearest < 0.5 * spread[:, None]).float().mean() > 0.95
    for side in range(2):
        assert (latent_ebm.free_energy(x, futures[:, side]) < 0.5 * latent_ebm.free_energy(x, mean)).all()


@pytest.mark.slow
@pytest.mark.parametrize("latent", ["gaussian", "ball"])
@pytest.mark.parametrize("inference", ["gradient", "amortised", "amortised_refined"])
def test_a_continuous_latent_is_used(latent: str, inference: str, least_squares: FramePrediction) -> None:
    task = trained(small(latent=latent, inference=inference), STEPS)
    x, futures = both_futures()
    with torch.no_grad():
        spread = distance(futures[:, 0], futures.mean(1))
        ends = torch.tensor([[[-0.9, 0.0], [0.9, 0.0], [0.0, -0.9], [0.0, 0.9]]]).expand(len(x), -1, -1)
        decoded = task.decode(x, ends)
        assert distance(decoded[:, :, None], decoded[:, None]).amax() > 0.1 * spread.mean()  # z moves pixels
        drawn = task.sample(x, 20, 1, torch.Generator().manual_seed(0))[:, :, 0]
        best = distance(drawn[:, :, None], futures[:, None]).amin(1).mean()  # best of 20, of each future
        blur = distance(least_squares.sample(x, 1)[:, :, 0], futures).mean()
    assert best < 0.75 * blur


# --- how the training goes ---


class Watch(Callback):
    """Records the temperature of every step."""

    def __init__(self) -> None:
        self.temperatures: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.temperatures.append(pl_module.temperature)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # from 10 to 1/50, by the middle of 8 steps
        ({}, [10 + (0.02 - 10) * step / 4 for step in range(4)] + [0.02] * 4),
        ({"anneal": 0.0}, [0.02] * 8),
        ({"anneal": 1.0, "beta": 1.0, "initial_temperature": 9.0}, [9.0 - step for step in range(8)]),
        ({"beta": 0.05, "initial_temperature": 10.0}, [20.0] * 8),  # never below the final temperature
    ],
)
def test_the_temperature_falls_linearly_and_stays(settings: dict[str, Any], expected: list[float]) -> None:
    watch = Watch()
    task = small(**settings)
    final = 1 / task.hparams["beta"]
    assert task.temperature == pytest.approx(final)  # outside of training
    trainer(8, callbacks=[watch]).fit(task, loader(batch_of(*both_futures()), 8))
    assert watch.temperatures == pytest.approx(expected)


def test_accumulated_batches_count_as_one_step() -> None:
    watch = Watch()
    fitter = trainer(4, callbacks=[watch], accumulate_grad_batches=2)
    fitter.fit(small(anneal=1.0, beta=1.0, initial_temperature=5.0), loader(batch_of(*both_futures()), 8))
    assert watch.temperatures == pytest.approx([5, 5, 4, 4, 3, 3, 2, 2])


@pytest.mark.parametrize("objective", ["least_squares", "latent_ebm"])
def test_zero_temperature_is_a_setting(objective: str) -> None:
    """beta = inf: winner takes all, once the temperature has fallen."""
    task = small(objective, beta=math.inf)
    trainer(4).fit(task, loader(batch_of(*both_futures()), 4))
    assert all(p.isfinite().all() for p in task.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "least_squares"},
        {"latent": "quantised"},
        {"latent": "gaussian", "inference": "gradient"},
        {"latent": "gaussian", "inference": "amortised"},
        {"latent": "ball", "inference": "amortised_refined"},
    ],
    ids=str,
)
def test_mixed_precision_takes_the_steps_of_full_precision(settings: dict[str, Any]) -> None:
    """To bfloat16's two digits and a half, while the energy is still a matter of the first few steps."""
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        task = small(latent_noise=0.0, **settings)
        fitter = trainer(3, precision=precision, log_every_n_steps=1)
        fitter.fit(task, loader(batch_of(*both_futures()), 3))
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in task.parameters())
        losses.append(float(fitter.logged_metrics["train/energy"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_no_steps_are_no_mistake() -> None:
    task = small()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    trainer(0).fit(task, loader(batch_of(*both_futures()), 1))
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


def test_the_learning_rate_warms_up_and_falls_as_a_cosine() -> None:
    rates: list[float] = []

    class Rates(Callback):
        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    fitter = trainer(10, callbacks=[Rates()])
    fitter.fit(small("least_squares", lr=1e-3, warmup_steps=3), loader(batch_of(*both_futures()), 10))
    expected = [
        1e-3 * min(1, (step + 1) / 4) * 0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)
    ]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"latent": "quantised"},
        {"latent": "gaussian", "inference": "amortised"},
        {"latent": "gaussian"},
        {"latent": "ball", "inference": "gradient"},
    ],
    ids=str,
)
def test_training_with_validation_and_test(settings: dict[str, Any]) -> None:
    """With the Trainer's own settings, which run evaluation without autograd."""
    task = small(**settings)
    batches = loader(batch_of(*both_futures()), 2)
    fitter = trainer(2)
    fitter.fit(task, batches, batches)
    first, second = (fitter.test(task, batches, verbose=False)[0] for _ in range(2))
    assert first == second  # evaluation draws nothing at random that the seed of the batch does not fix
    x, futures = both_futures()
    with torch.no_grad():
        mine = 0.0
        for index in range(2):
            generator = torch.Generator().manual_seed(index)
            drawn = task.sample(x.repeat_interleave(2, 0), 20, 1, generator)[:, :, 0]
            mine += distance(drawn, futures.flatten(0, 1)[:, None]).amin(1).mean().item() / 2
    assert first["test/mse_best_of_20"] == pytest.approx(mine / futures[0, 0].numel(), rel=1e-4)


@pytest.mark.parametrize("objective", ["least_squares", "latent_ebm"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_is_never_saved(
    objective: str, bad: float, tmp_path: Path
) -> None:
    batch = batch_of(*both_futures())
    batch["video"][0, 2, 0, 3, 3] = bad
    fitter = trainer(
        60, callbacks=[LastCheckpoint(tmp_path, every_n_steps=7)], enable_checkpointing=True,
        default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(UserError, match=rf"{objective}: .*not finite.* step 7\b.*lower lr") as stop:
        fitter.fit(small(objective), loader(batch, 60))
    assert "\n" not in str(stop.value)
    assert not last_checkpoint(tmp_path).exists()


def test_a_loss_that_is_not_finite_stops_without_checkpoints(tmp_path: Path) -> None:
    batch = batch_of(*both_futures())
    batch["video"][0, 2] = math.nan
    with pytest.raises(UserError, match=r"not finite .* step 50\b"):
        trainer(500, default_root_dir=tmp_path).fit(small(), loader(batch, 500))


class NoWaiting(TorchDispatchMode):
    """Fails on what makes the CPU wait for the device."""

    WAITS = (
        "aten._local_scalar_dense",
        "aten.is_nonzero",
        "aten.nonzero",
        "aten.equal",
        "aten.masked_select",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not str(func).startswith(self.WAITS), f"{func} waits for the device"
        return func(*args, **kwargs or {})


class Unwaiting(FramePrediction):
    """Frame prediction in whose training step and backward pass waiting is an error."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        with NoWaiting():
            return super().training_step(batch, batch_idx)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        with NoWaiting():
            super().backward(loss, *args, **kwargs)


@pytest.mark.parametrize(
    "settings",
    [{"objective": "least_squares"}, {"latent": "one_hot"}, {"latent": "quantised"}]
    + [{"latent": latent, "inference": "amortised"} for latent in ("gaussian", "ball")],
    ids=str,
)
def test_a_training_step_never_waits_for_the_device(settings: dict[str, Any]) -> None:
    task = small(**settings)
    task.__class__ = Unwaiting
    trainer(3).fit(task, loader(batch_of(*both_futures()), 3))
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        torch.ones(()).item()


def test_self_fed_steps_begin_from_the_nearest_predictions() -> None:
    """Steps 0, 2, 4 see true contexts; 1, 3, 5 contexts that end in 1, 2, 1 predictions with the best z."""
    task = small(self_fed=2).eval()
    video = torch.rand(2, 6, 1, 16, 16)
    context = task.context_frames

    def pair(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        with patch.object(FramePrediction, "global_step", PropertyMock(return_value=step)):
            return task._training_pair(video)

    expected = video[:, :context]
    for fed, step in ((0, 0), (1, 1), (2, 3)):
        if fed:
            y = video[:, context + fed - 1]
            codes = torch.eye(task.hparams["codes"]).expand(2, -1, -1)
            candidates = task.decode(expected, codes)  # clipped: the nearest before clipping is what counts
            nearest = task.infer(expected, y).argmax(1)
            frame = candidates[torch.arange(2), nearest]
            expected = torch.cat([expected[:, 1:], frame[:, None]], 1)
        x, target = pair(step)
        torch.testing.assert_close(x, expected)
        assert torch.equal(target, video[:, context + fed])
    assert torch.equal(pair(2)[0], video[:, :context])
    torch.testing.assert_close(pair(5)[0], pair(1)[0])
    with pytest.raises(UserError, match=r"data\.future_frames to 5"):
        small(self_fed=4)._training_pair(video)
