"""The bootstrap against closed forms, scikit-learn and repeated experiments."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ssl_ebm.evaluation import statistics
from ssl_ebm.evaluation.statistics import (
    Bootstrap,
    Interval,
    grouped_share_interval,
    paired_interval,
    share_interval,
)


def test_interval_covers_a_known_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        values = generator.exponential(2.0, size=(1, 80))
        interval = Bootstrap(np.arange(80), resamples=400, seed=trial).mean(values).interval()
        covered += interval.low <= 2.0 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_spread_of_the_mean_matches_the_crossed_bootstrap_variance() -> None:
    """Var(mean) = variance over seeds / M + variance over clips / N."""
    generator = np.random.default_rng(1)
    seeds, clips = 40, 60
    values = generator.normal(size=(seeds, 1)) + 0.5 * generator.normal(size=(1, clips))
    estimate = Bootstrap(np.arange(clips), resamples=4000).mean(values)
    expected = values.mean(axis=1).var() / seeds + values.mean(axis=0).var() / clips
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.resampled.var() == pytest.approx(expected, rel=0.1)


def test_items_of_one_clip_are_drawn_together() -> None:
    """Copies of the same items in the same clip tell nothing new: the interval must not shrink."""
    values = np.random.default_rng(2).normal(size=(1, 30))
    once = Bootstrap(np.arange(30), seed=3).mean(values).interval()
    copies = Bootstrap(np.repeat(np.arange(30), 7), seed=3).mean(np.repeat(values, 7, axis=1)).interval()
    assert copies.low == pytest.approx(once.low)
    assert copies.high == pytest.approx(once.high)


def test_pooled_psnr_is_of_the_mean_squared_error_not_a_mean_of_decibels() -> None:
    error = np.array([[0.001, 10.0]])  # summed over 100 values each
    psnr = Bootstrap([0, 1]).psnr(error, pixels=100)
    assert psnr.value == pytest.approx(10 * math.log10(1 / (10.001 / 200)))


def test_no_error_at_all_is_infinite_and_becomes_null() -> None:
    psnr = Bootstrap([0, 1]).psnr(np.zeros((1, 2)), pixels=4)
    assert psnr.value == math.inf
    assert psnr.interval().to_json() == [None, None, None]
    assert Interval(1.0, 0.5, 2.0).to_json() == [1.0, 0.5, 2.0]


def test_ratio_leaves_out_missing_items() -> None:
    ratio = Bootstrap([0, 1, 2]).ratio([[2.0, math.nan, 4.0]], [1.0, 5.0, 1.0])
    assert ratio.value == pytest.approx(3.0)
    assert math.isnan(Bootstrap([0]).mean([[math.nan]]).value)


@pytest.mark.parametrize("levels", [3, 1000])
def test_auroc_equals_scikit_learn_with_and_without_ties(levels: int) -> None:
    generator = np.random.default_rng(levels)
    real = generator.integers(0, levels, size=50).astype(float)
    negative = generator.integers(levels // 3, levels + 1, size=50).astype(float)
    bootstrap = Bootstrap(np.arange(50), resamples=20)
    estimate = bootstrap.auroc(real, negative)
    scores, truth = np.concatenate([real, negative]), np.repeat([0, 1], 50)
    assert estimate.value == pytest.approx(roc_auc_score(truth, scores))
    for weights, area in zip(bootstrap.item_weights, estimate.resampled, strict=True):
        expected = roc_auc_score(truth, scores, sample_weight=np.tile(weights, 2))
        assert area == pytest.approx(expected)


def test_auroc_pairs_within_a_seed_only() -> None:
    """Two networks whose energies have different scales, each separating perfectly."""
    real = np.array([[1.0, 2.0], [100.0, 200.0]])
    assert Bootstrap([0, 1]).auroc(real, real + 1.5 * real.max(axis=1, keepdims=True)).value == 1.0


def test_auroc_without_any_negative_is_unknown() -> None:
    estimate = Bootstrap([0, 1]).auroc([[1.0, 2.0]], [[math.nan, math.nan]])
    assert math.isnan(estimate.value)


def test_difference_of_models_on_the_same_clips_is_paired() -> None:
    """A constant difference between two models has no spread, however different the clips are."""
    generator = np.random.default_rng(4)
    hard = generator.exponential(10.0, size=(3, 40))
    bootstrap = Bootstrap(np.arange(40))
    interval = (bootstrap.mean(hard + 1.0) - bootstrap.mean(hard)).interval()
    assert interval.low == pytest.approx(1.0)
    assert interval.high == pytest.approx(1.0)
    assert bootstrap.mean(hard).interval().high > bootstrap.mean(hard).interval().low + 2.0


def test_models_with_other_numbers_of_seeds_can_be_compared() -> None:
    bootstrap = Bootstrap(np.arange(5))
    difference = bootstrap.mean(np.full((3, 5), 4.0)) - bootstrap.mean(np.full((1, 5), 1.5))
    assert difference.interval().to_json() == [2.5, 2.5, 2.5]


def test_same_seed_same_interval_and_global_generators_untouched() -> None:
    values = np.random.default_rng(5).normal(size=(2, 9))
    np.random.seed(6)
    before_numpy, before_torch = str(np.random.get_state()), torch.get_rng_state()
    first = Bootstrap(np.arange(9), seed=1).mean(values).interval()
    assert first == Bootstrap(np.arange(9), seed=1).mean(values).interval()
    assert first != Bootstrap(np.arange(9), seed=2).mean(values).interval()
    assert str(np.random.get_state()) == before_numpy
    assert torch.equal(torch.get_rng_state(), before_torch)


def test_paired_difference_has_the_spread_of_its_closed_form() -> None:
    """Items count 1, -1 or 0: the variance of their mean is that of one item over their number."""
    wins, losses, count = 70, 30, 400
    found = paired_interval(wins, losses, count, resamples=20_000)
    mean = (wins - losses) / count
    deviation = math.sqrt(((wins + losses) / count - mean**2) / count)
    assert found.value == mean
    assert [found.low, found.high] == pytest.approx(
        [mean - 1.96 * deviation, mean + 1.96 * deviation], abs=4e-3
    )
    assert paired_interval(0, 0, 9) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(("clips", "truth", "together"), [(5, 0.9, 1.0), (10, 0.9, 1.0), (20, 0.8, 0.5)])
def test_a_share_of_few_clips_is_covered_as_often_as_it_says(
    clips: int, truth: float, together: float
) -> None:
    """Windows of a clip are right together; a bootstrap over so few clips covers 0.4 to 0.8 here."""
    random, covered, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        group = np.repeat(np.arange(clips), random.integers(3, 10, clips))
        alike = (random.random(clips) < truth)[group]
        right = np.where(random.random(len(group)) < together, alike, random.random(len(group)) < truth)
        found = grouped_share_interval(right, group)
        covered += found.low <= truth <= found.high
    assert covered / trials > 0.93


def test_a_share_of_items_that_stand_alone_has_wilsons_interval() -> None:
    right = np.array([1, 1, 0, 1, 0, 1, 1])
    alone = share_interval(5, 7)
    assert grouped_share_interval(right, np.arange(7)) == alone
    assert grouped_share_interval(right, np.zeros(7)) == alone  # one group
    pairs = grouped_share_interval(right.repeat(2), np.arange(7).repeat(2))  # each item twice: no news
    assert pairs.value == pytest.approx(alone.value)
    assert pairs.low < alone.low < alone.high < pairs.high  # Student's t, G - 1 in place of G
    alike = grouped_share_interval(np.tile([1, 0, 0], 10), np.arange(10).repeat(3))  # no group tells
    thirty = share_interval(10, 30, 2.262)
    assert alike.low == pytest.approx(thirty.low, abs=1e-3)
    assert alike.high == pytest.approx(thirty.high, abs=1e-3)
    always = grouped_share_interval(np.ones(20), np.arange(4).repeat(5))
    assert always.high == 1
    assert always.low < 0.4


@pytest.mark.parametrize(
    ("degrees", "printed", "error"),
    [(1, 12.706, 1e-3), (2, 4.303, 0.04), (4, 2.776, 1e-3), (9, 2.262, 1e-3), (60, 2.000, 1e-3)],
)
def test_quantiles_of_student_as_printed(degrees: int, printed: float, error: float) -> None:
    assert statistics._t_quantile(degrees) == pytest.approx(printed, abs=error)


def test_one_clip_alone_has_an_interval() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert Bootstrap(np.zeros(50)).clips == 1
    found = Bootstrap(np.zeros(50)).mean(values).interval()
    assert found == Bootstrap(np.arange(50)).mean(values).interval()
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 50**0.5, rel=0.15)


def test_clips_of_one_recording_are_drawn_together() -> None:
    """Three clips of two items each of every recording say as much as the recording's mean alone."""
    random = np.random.default_rng(0)
    per_recording = random.normal(size=12)
    clips, recordings = np.repeat(np.arange(36), 2), np.repeat(np.arange(12), 6)
    drawn = Bootstrap(clips, recordings=recordings)
    assert (drawn.items, drawn.clips, drawn.recordings) == (72, 36, 12)
    found, alone = drawn.mean(per_recording[recordings]), Bootstrap(np.arange(12)).mean(per_recording)
    assert found.clips == alone.clips == 12
    np.testing.assert_allclose(found.resampled, alone.resampled)
    narrow = Bootstrap(clips).mean(per_recording[recordings]).resampled.std()
    assert narrow == pytest.approx(alone.resampled.std() / 3**0.5, rel=0.1)


def test_clips_of_one_recording_alone_are_drawn_by_themselves() -> None:
    values, clips = np.random.default_rng(0).normal(size=60), np.repeat(np.arange(20), 3)
    one = Bootstrap(clips, recordings=np.zeros(60))
    assert (one.clips, one.recordings) == (20, 1)
    assert one.mean(values).interval() == Bootstrap(clips).mean(values).interval()


@pytest.mark.parametrize(("clips", "least"), [(5, 0.89), (7, 0.915), (12, 0.92)])
def test_intervals_of_few_clips_cover_nearly_as_often_as_they_say(clips: int, least: float) -> None:
    """Of 7 clips the plain quantiles cover 0.87 of the time."""
    random, covered, plain, trials = np.random.default_rng(0), 0, 0, 500
    for trial in range(trials):
        found = Bootstrap(np.arange(clips), seed=trial).mean(random.normal(size=clips))
        interval = found.interval()
        low, high = np.quantile(found.resampled, [0.025, 0.975])
        covered += interval.low <= 0 <= interval.high
        plain += low <= 0 <= high
    assert least < covered / trials < 0.975
    assert covered > plain + 0.02 * trials


def test_intervals_of_many_clips_are_plain_quantiles() -> None:
    found = Bootstrap(np.arange(3000)).mean(np.random.default_rng(0).normal(size=3000))
    low, high = np.quantile(found.resampled, [0.025, 0.975])
    assert found.interval().low == pytest.approx(low, rel=0.02)
    assert found.interval().high == pytest.approx(high, rel=0.02)


def test_of_missing_values_no_clip_counts() -> None:
    values = np.full(1000, math.nan)
    values[[3, 50, 400, 401, 999]] = few = np.array([-0.9, 0.1, 0.4, 1.2, 0.3])
    among, alone = Bootstrap(np.arange(1000)).mean(values), Bootstrap(np.arange(5)).mean(few)
    assert among.clips == alone.clips == 5
    missing = Bootstrap(np.arange(1000)).auroc(values, values + 0.5)
    assert missing.clips == 5
