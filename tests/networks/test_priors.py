"""Priors over z: frequencies and densities against their definitions, and the memory of inferred z."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ssl_ebm.networks import CodePrior, MixturePrior, draw_codes
from ssl_ebm.networks.priors import BANK_SIZE, COUNT_DECAY

DRAWS = 20_000
FEATURES = 6


def chi_square(drawn: Tensor, probability: Tensor) -> float:
    """Pearson's statistic of drawn indices."""
    expected = probability * drawn.numel()
    return (
        ((torch.bincount(drawn.flatten(), minlength=len(probability)) - expected) ** 2 / expected)
        .sum()
        .item()
    )


LIMIT = {3: 16.3, 4: 18.5, 9: 27.9}  # 0.999 quantiles of chi-square, by degrees of freedom


def features(items: int = 2) -> Tensor:
    return torch.randn(items, FEATURES, generator=torch.Generator().manual_seed(5))


def code_prior(codes: int = 5) -> CodePrior:
    torch.manual_seed(0)
    prior = CodePrior(FEATURES, codes)
    last = prior.logits[-1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.normal_(last.weight)  # far from uniform
    return prior.eval()


def mixture(dim: int, components: int = 4) -> MixturePrior:
    torch.manual_seed(0)
    return MixturePrior(FEATURES, dim, components).eval()


def as_distribution(prior: MixturePrior, seen: Tensor) -> MixtureSameFamily:
    """The same mixture by torch.distributions."""
    weights, means, stds = prior(seen)
    return MixtureSameFamily(Categorical(logits=weights), Independent(Normal(means, stds), 1))


def test_codes_are_drawn_with_their_probabilities(generator: torch.Generator) -> None:
    probability = torch.tensor([[0.5, 0.3, 0.1, 0.1, 0.0], [0.05, 0.15, 0.2, 0.25, 0.35]])
    drawn = draw_codes(probability.log() + 3, DRAWS, generator)  # unnormalised
    assert drawn.shape == (2, DRAWS)
    assert not (drawn[0] == 4).any()
    assert chi_square(drawn[0], probability[0, :4]) < LIMIT[3]
    assert chi_square(drawn[1], probability[1]) < LIMIT[4]


def test_spread_draws_follow_the_probabilities_and_share_the_codes_out(
    generator: torch.Generator,
) -> None:
    probability = torch.tensor([0.5, 0.3, 0.1, 0.1, 0.0])
    drawn = draw_codes(probability.log().expand(DRAWS, 5), 40, generator, spread=True)
    for place in (0, 1, 7, 39):
        assert chi_square(drawn[:, place], probability[:4]) < LIMIT[3]
    for row in drawn.unfold(1, 20, 10).unbind(1):  # any 20 that follow each other
        counts = torch.nn.functional.one_hot(row, 5).sum(1)
        assert float((counts - 20 * probability).abs().max()) < 2


def test_spread_draws_leave_no_code_out_and_repeat_none_too_often(generator: torch.Generator) -> None:
    """Systematic samples of size S hold a code of probability p either floor(S p) or ceil(S p) times."""
    probability = torch.tensor([0.05, 0.05, 0.15, 0.3, 0.45])
    for samples in (1, 7, 20, 64):
        drawn = draw_codes(probability.log().expand(500, 5), samples, generator, spread=True)
        counts = torch.nn.functional.one_hot(drawn, 5).sum(1)
        assert ((counts - samples * probability).abs() < 1 + 1e-6).all()
    equal = draw_codes(torch.zeros(500, 20), 20, generator, spread=True)
    assert (equal.sort(1).values == torch.arange(20)).all()


def test_the_first_spread_draws_are_spread_as_well(generator: torch.Generator) -> None:
    """In the order of the golden ratio the first 8 of 21 points are two of 21 apart at least: other codes."""
    drawn = draw_codes(torch.zeros(500, 21), 21, generator, spread=True)[:, :8].sort(1).values
    assert (drawn.diff(dim=1) >= 2).all()
    assert (drawn[:, -1] - drawn[:, 0] <= 19).all()


@torch.no_grad()
def test_spread_draws_of_both_priors_have_their_mean(generator: torch.Generator) -> None:
    seen = features()
    codes = code_prior()
    share = torch.nn.functional.one_hot(codes.sample(seen, 1000, generator, "learned", True), 5)
    torch.testing.assert_close(share.float().mean(1), codes(seen).exp(), atol=3e-3, rtol=0)
    prior = mixture(2)
    z = prior.sample(seen, DRAWS, generator, "learned", True)
    torch.testing.assert_close(z.mean(1), as_distribution(prior, seen).mean, atol=0.05, rtol=0)
    prior.remember(torch.arange(20.0).reshape(10, 2))
    bank = prior.sample(seen, 1000, generator, "bank", True)
    torch.testing.assert_close(bank.mean(1), torch.tensor([[9.0, 10.0]]).expand(2, -1), atol=0.1, rtol=0)


@torch.no_grad()
def test_code_prior_samples_follow_its_probabilities(generator: torch.Generator) -> None:
    prior, seen = code_prior(), features()
    probability = prior(seen).exp()
    torch.testing.assert_close(probability.sum(1), torch.ones(2))
    drawn = prior.sample(seen, DRAWS, generator)
    for item in range(2):
        assert chi_square(drawn[item], probability[item]) < LIMIT[4]
        assert chi_square(drawn[item], probability[1 - item]) > 100  # the context matters


@torch.no_grad()
def test_surprise_of_codes_is_cross_entropy() -> None:
    prior, seen = code_prior(), features()
    assignment = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0], [0.2, 0.2, 0.0, 0.3, 0.3]])
    log_p = prior(seen)
    expected = [-sum(assignment[b, k] * log_p[b, k] for k in range(5)) for b in range(2)]
    torch.testing.assert_close(prior.surprise(seen, assignment), torch.stack(expected))


@torch.no_grad()
def test_bank_of_codes_is_a_running_average_and_ignores_the_context(generator: torch.Generator) -> None:
    prior, seen = code_prior(), features()
    batches = torch.rand(30, 8, 5, generator=generator).softmax(-1)
    expected = torch.ones(5)
    for assignment in batches:
        prior.remember(assignment)
        expected = COUNT_DECAY * expected + (1 - COUNT_DECAY) * assignment.sum(0)
    torch.testing.assert_close(prior.counts, expected)
    drawn = prior.sample(seen, DRAWS, generator, source="bank")
    for item in range(2):
        assert chi_square(drawn[item], expected / expected.sum()) < LIMIT[4]


@pytest.mark.parametrize("dim", [1, 3])
@torch.no_grad()
def test_mixture_density_is_that_of_torch_distributions(dim: int, generator: torch.Generator) -> None:
    prior, seen = mixture(dim), features(4)
    z = 2 * torch.randn(4, dim, generator=generator)
    torch.testing.assert_close(prior.surprise(seen, z), -as_distribution(prior, seen).log_prob(z))


@torch.no_grad()
def test_mixture_samples_have_its_distribution(generator: torch.Generator) -> None:
    """The distribution function of every coordinate, at its samples, is uniform (in ten bins)."""
    prior, seen = mixture(2), features()
    z = prior.sample(seen, DRAWS, generator)
    assert z.shape == (2, DRAWS, 2)
    weights, means, stds = prior(seen)
    for item in range(2):
        for axis in range(2):
            each = Normal(means[item, :, axis], stds[item, :, axis]).cdf(z[item, :, axis, None])
            level = (each * weights[item].exp()).sum(-1)
            assert chi_square((level * 10).long().clamp(0, 9), torch.full((10,), 0.1)) < LIMIT[9]


@torch.no_grad()
def test_coordinates_of_a_mixture_sample_come_from_one_component(generator: torch.Generator) -> None:
    """The covariance, which independent choices of a component for each coordinate would lose."""
    prior, seen = mixture(2), features(1)
    prior.centres.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).repeat(2, 1))
    weights, means, stds = prior(seen)
    p = weights[0].exp()
    mean = (p[:, None] * means[0]).sum(0)
    covariance = (p[:, None, None] * (means[0, :, :, None] * means[0, :, None])).sum(0) - torch.outer(
        mean, mean
    )
    covariance += torch.diag((p[:, None] * stds[0].square()).sum(0))
    z = prior.sample(seen, DRAWS, generator)[0]
    scale = covariance.diagonal().sqrt()
    assert abs(covariance[0, 1] / scale.prod()) > 0.5  # there is something to lose
    error = (z.T.cov() - covariance) / torch.outer(scale, scale)
    assert error.abs().max() < 5 * math.sqrt(3 / DRAWS)


@torch.no_grad()
def test_the_bank_of_z_is_a_ring(generator: torch.Generator) -> None:
    prior, seen = mixture(1), features(1)
    written = torch.arange(1.0, BANK_SIZE + 301)[:, None]
    prior.remember(written[:100])
    drawn = prior.sample(seen, 2000, generator, source="bank")
    assert set(drawn.flatten().tolist()) == set(range(1, 101))  # nothing that was never written
    for part in written[100:].split(300):
        prior.remember(part)
    assert sorted(prior.bank.flatten().tolist()) == list(range(301, BANK_SIZE + 301))
    assert prior.bank[:300].flatten().tolist() == list(range(BANK_SIZE + 1, BANK_SIZE + 301))
    drawn = prior.sample(seen, DRAWS, generator, source="bank")
    assert drawn.min() > 300
    assert (drawn <= BANK_SIZE).float().mean().item() == pytest.approx(1 - 300 / BANK_SIZE, abs=0.01)


@pytest.mark.parametrize("kind", [CodePrior, MixturePrior])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_batch_that_is_not_finite_leaves_the_memory_as_if_it_had_not_been(
    kind: type[CodePrior | MixturePrior], bad: float, generator: torch.Generator
) -> None:
    spared, plain = kind(FEATURES, 5), kind(FEATURES, 5)
    for batch in torch.rand(3, 8, 5, generator=generator):
        poisoned = batch.clone()
        poisoned[2, 3] = bad
        spared.remember(poisoned)
        spared.remember(batch)
        plain.remember(batch)
    expected = dict(plain.named_buffers())
    assert all(torch.equal(values, expected[name]) for name, values in spared.named_buffers())


@pytest.mark.parametrize("prior", [CodePrior(FEATURES, 5), MixturePrior(FEATURES, 5)])
@pytest.mark.parametrize("source", ["learned", "bank"])
def test_draws_follow_the_generator_alone(prior: CodePrior | MixturePrior, source: str) -> None:
    prior.remember(torch.rand(8, 5))
    state = torch.get_rng_state()
    a, b, c = (
        prior.sample(features(), 50, torch.Generator().manual_seed(seed), source)  # type: ignore[arg-type]
        for seed in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("prior", [CodePrior(FEATURES, 5), MixturePrior(FEATURES, 5)])
def test_the_memory_is_saved_and_stays_in_place(prior: CodePrior | MixturePrior) -> None:
    """DistributedDataParallel holds the buffers it was built with: a memory made anew would not be shared."""
    held = dict(prior.named_buffers())
    prior.remember(torch.rand(8, 5))
    saved = prior.state_dict()
    for name, buffer in held.items():
        assert buffer is getattr(prior, name)
        assert torch.equal(buffer, saved[name])
    assert sum(p.numel() for p in prior.parameters()) + sum(b.numel() for b in held.values()) == sum(
        value.numel() for value in saved.values()
    )
