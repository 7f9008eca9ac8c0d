"""The controls: noise of the right strength, members in turn, z from the bank."""

from typing import Any

import pytest
import torch

from ssl_ebm.evaluation.controls import Bank, Ensemble, MatchedNoise, matched_sigma


def _contexts(world: Any, clips: list[int]) -> torch.Tensor:
    return torch.stack([world[i]["video"][:2] for i in clips])


def test_matched_sigma_is_the_standard_deviation_of_the_exact_sampler(world: Any, exact: Any) -> None:
    clips = [1, 2, 4, 5]
    variances = []
    for i in clips:
        futures = world.futures(i)
        mean = torch.einsum("n,nchw->chw", futures.probability, futures.frames)
        spread = (futures.frames - mean).square().flatten(1).mean(1)
        variances.append(float((futures.probability * spread).sum()))
    expected = (sum(variances) / len(variances)) ** 0.5
    assert matched_sigma(exact, world, clips, samples=400, batch_size=3) == pytest.approx(expected, rel=0.05)
    assert matched_sigma(exact, world, [0, 3]) == pytest.approx(0.0, abs=1e-6)  # certain futures


def test_noise_has_the_asked_strength_about_the_prediction(generator: torch.Generator) -> None:
    class Grey:
        context_frames = 2

        def sample(
            self, x: torch.Tensor, samples: int, horizon: int = 1, generator: Any = None
        ) -> torch.Tensor:
            return torch.full((len(x), samples, horizon, 1, 16, 16), 0.5)

    frames = MatchedNoise(Grey(), 0.05).sample(torch.zeros(3, 2, 1, 16, 16), 50, 2, generator)
    assert frames.std().item() == pytest.approx(0.05, rel=0.02)
    assert frames.mean().item() == pytest.approx(0.5, abs=1e-3)
    loud = MatchedNoise(Grey(), 2.0).sample(torch.zeros(3, 2, 1, 16, 16), 5, 1, generator)
    assert (loud.min().item(), loud.max().item()) == (0.0, 1.0)


def test_ensemble_members_take_turns(world: Any, exact: Any, mean: Any, generator: torch.Generator) -> None:
    x = _contexts(world, [1, 2])
    frames = Ensemble([mean, exact, mean]).sample(x, 7, 1, generator)
    assert frames.shape[1] == 7
    for s in (0, 2, 3, 5, 6):
        torch.testing.assert_close(frames[:, s], mean.sample(x, 1)[:, 0])
    for s in (1, 4):
        assert float((frames[:, s] - mean.sample(x, 1)[:, 0]).abs().max()) > 0.1
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])


def test_bank_draws_z_whatever_the_context(world: Any, exact: Any, generator: torch.Generator) -> None:
    """The bank is uniform over four codes, p(z | x) is 0.35, 0.3, 0.2, 0.15."""
    x = _contexts(world, [1])
    frames = Bank(exact).sample(x, 2000, 1, generator)[0, :, 0]
    hits = (frames - world.futures(1).frames[3]).square().flatten(1).sum(1) < 1e-6
    assert float(hits.float().mean()) == pytest.approx(0.25, abs=0.03)


def test_bank_rolls_out_on_its_own_frames(generator: torch.Generator) -> None:
    """A decoder that adds z to the last frame: after h steps a trajectory is the sum of its h draws."""

    class Adder:
        context_frames = 2

        def prior_sample(
            self, x: torch.Tensor, samples: int, generator: Any = None, source: str = "learned"
        ) -> torch.Tensor:
            assert source == "bank"
            return torch.rand(len(x), samples, 1, generator=generator)

        def decode(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return x[:, None, -1] + z[..., None, None]

        def infer(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError

    frames = Bank(Adder()).sample(torch.zeros(2, 2, 1, 3, 3), 4, 5, generator)  # (2, 4, 5, 1, 3, 3)
    steps = frames.diff(dim=2)
    assert frames.shape == (2, 4, 5, 1, 3, 3)
    assert float(steps.min()) >= 0.0
    assert float(steps.max()) <= 1.0
    assert len(steps[..., 0, 0].unique()) == 2 * 4 * 4  # every trajectory and step has a draw of its own
