"""Best-of-K against all subsets, SSIM against torchmetrics, sharpness and diversity against their
definitions."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import structural_similarity_index_measure

from ssl_ebm.evaluation.samples import (
    diversity,
    expected_best,
    gradient_energy,
    squared_error,
    subset_weights,
)
from ssl_ebm.evaluation.similarity import structural_similarity


@pytest.mark.parametrize("largest", [False, True])
def test_best_of_k_is_the_mean_over_all_subsets(generator: torch.Generator, largest: bool) -> None:
    values = torch.rand(3, 8, generator=generator)
    for k in range(1, 9):
        subsets = torch.stack([values[:, list(subset)] for subset in combinations(range(8), k)])
        best = subsets.amax(2) if largest else subsets.amin(2)
        assert expected_best(values, k, largest).tolist() == pytest.approx(best.mean(0).tolist())


def test_best_of_one_is_the_mean_and_of_all_the_minimum(generator: torch.Generator) -> None:
    values = torch.rand(4, 100, generator=generator).double()
    torch.testing.assert_close(expected_best(values, 1), values.mean(1))
    torch.testing.assert_close(expected_best(values, 100), values.amin(1))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200).flatmap(lambda s: st.tuples(st.just(s), st.integers(1, s))))
def test_subset_weights_are_a_distribution(case: tuple[int, int]) -> None:
    weights = subset_weights(*case)
    assert float(weights.sum()) == pytest.approx(1.0)
    assert float(weights.min()) >= 0.0


def test_best_of_more_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="best of 6"):
        expected_best(torch.zeros(2, 5), 6)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 17, 24)])
def test_ssim_equals_torchmetrics(generator: torch.Generator, shape: tuple[int, int, int]) -> None:
    target = torch.rand(2, *shape, generator=generator)
    target[0, :, :8] = 0.0  # flat parts, as in real frames
    samples = (target.unsqueeze(1) + 0.2 * torch.randn(2, 5, *shape, generator=generator)).clamp(0, 1)
    expected = structural_similarity_index_measure(
        samples.flatten(0, 1), target.repeat_interleave(5, 0), data_range=1.0, reduction="none"
    )
    assert isinstance(expected, torch.Tensor)
    torch.testing.assert_close(structural_similarity(samples, target), expected.view(2, 5), atol=2e-5, rtol=0)


def test_ssim_of_equal_frames_is_one(generator: torch.Generator) -> None:
    target = torch.rand(2, 1, 20, 20, generator=generator)
    torch.testing.assert_close(structural_similarity(target.unsqueeze(1), target), torch.ones(2, 1))


def test_squared_error_and_gradient_energy_of_known_frames() -> None:
    edge = torch.zeros(1, 1, 4, 4)
    edge[..., 2:] = 0.5  # one vertical edge of height 0.5 along four rows
    assert gradient_energy(edge).item() == pytest.approx(4 * 0.25)
    assert squared_error(edge[:, None], torch.zeros(1, 1, 4, 4)).item() == pytest.approx(8 * 0.25)


def test_diversity_is_the_mean_over_pairs(generator: torch.Generator) -> None:
    samples = torch.rand(2, 6, 1, 4, 4, generator=generator)
    pairs = [
        (samples[:, a] - samples[:, b]).square().flatten(1).mean(1) for a, b in combinations(range(6), 2)
    ]
    torch.testing.assert_close(diversity(samples), torch.stack(pairs).mean(0))
