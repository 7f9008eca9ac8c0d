"""Verdicts of the study from made-up items: paired, by intervals, and independent of the order of runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from ssl_ebm.report.representations.figures import figures_of, judge
from ssl_ebm.report.representations.jobs import Job
from ssl_ebm.report.representations.page import finding, render
from ssl_ebm.report.representations.recipes import frames, images, text
from ssl_ebm.report.representations.runs import Result

N = 400


def results(recipe: Any, gain: float, seeds: tuple[int, ...] = (0, 1, 2)) -> dict[Any, Result]:
    """Items of which a third is right from scratch, and `gain` more after pre-training."""
    draw = np.random.default_rng(1)
    level = draw.random((len(seeds), N))
    found: dict[Any, Result] = {}

    def put(stage: str, row: str, share: float | None, items: Any) -> None:
        for k, seed in enumerate(seeds):
            facts = {"labels": 10, "epochs": 3.0, "targets": ["velocity_0"]}
            found[stage, row, share, seed] = Result(
                {}, 2.0, {name: v[k].tolist() for name, v in items.items()}, facts
            )

    for row in recipe.pretexts:
        put("pretrain", row, None, {})
    for share in recipe.shares:
        put("tune", "scratch", share, {"right": level < 1 / 3})
        for row in ("raw", "untrained"):
            put("probe", row, share, {"right": level < 1 / 3})
        for row in recipe.pretexts:
            put("tune", row, share, {"right": level < 1 / 3 + gain})
            put("probe", row, share, {"right": level < 1 / 3 + gain})
    for row in ("raw", "untrained", *recipe.pretexts) if recipe.targets else ():
        wrong = np.full((len(seeds), N, 1), 0.5 * (1 / 3 - gain))
        put("regress", row, recipe.shares[-1], {"wrong": wrong, "spread": np.ones_like(wrong)})
    return found


@pytest.mark.parametrize(("gain", "verdict"), [(0.1, "holds"), (0.0, "undecided"), (-0.1, "does not hold")])
def test_verdicts_follow_the_interval(gain: float, verdict: str) -> None:
    recipe = images("nowhere")
    bars = judge({"tasks": {"images": figures_of(recipe, (0, 1, 2), results(recipe, gain))}})
    assert len(bars) == 2 * 2  # pretexts, shares
    assert {bar["verdict"] for bar in bars} == {verdict}


def test_a_paired_difference_is_narrower_than_two_figures() -> None:
    """Against scipy's bootstrap of the differences of single items, one seed."""
    recipe = images("nowhere")
    made = results(recipe, 0.05, (0,))
    found = figures_of(recipe, (0,), made)
    value, low, high = found["gain"]["over_scratch"]["least_squares"]["0.01"]
    ours, theirs = (
        np.array(made["tune", row, 0.01, 0].items["right"], float) for row in ("least_squares", "scratch")
    )
    oracle = bootstrap(((ours - theirs),), np.mean, n_resamples=4000, method="percentile", rng=0)
    assert value == pytest.approx((ours - theirs).mean())
    assert (low, high) == pytest.approx(tuple(oracle.confidence_interval), abs=0.006)
    _, first, last = found["accuracy"]["tune"]["least_squares"]["0.01"]
    assert high - low < 0.6 * (last - first)


def test_of_all_right_there_is_some_doubt() -> None:
    """With three seeds the interval is no point, and close to Wilson's of as many items."""
    recipe = images("nowhere")
    found = figures_of(recipe, (0, 1, 2), results(recipe, 1.0))
    value, low, high = found["accuracy"]["tune"]["least_squares"]["0.01"]
    wilson = binomtest(N, N).proportion_ci(method="wilson")
    assert (value, high) == pytest.approx((1.0, 1.0))
    assert low == pytest.approx(wilson.low, abs=2e-4)


def test_shares_of_labels_are_not_rounded() -> None:
    recipe = replace(images("nowhere"), shares=(0.005, 0.015, 1.0))
    described: dict[str, Any] = {"tasks": {"images": figures_of(recipe, (0,), results(recipe, 0.3, (0,)))}}
    described |= {"bars": judge(described), "seeds": [0], "seconds_of_all_runs": 5.0}
    page = render(described | {"device": "a processor", "versions": {"torch": "2"}})
    for words in (
        "probe, 0.5 %",
        "fine-tuned, 1.5 %",
        "0.5 % are 10 labels",
        "images, 1.5 % of the labels: ",
    ):
        assert words in page
    job = Job("images", "tune", "scratch", 0.005, 0, 1, Path(), dict, lambda _: Result({}, 0.0))
    assert job.name == "tune scratch, 0.5 % of the labels, seed 0"


@pytest.mark.parametrize(("gain", "verdict"), [(0.3, "holds"), (0.0, "does not hold")])
def test_r2_of_the_velocity_has_a_limit(gain: float, verdict: str) -> None:
    recipe = frames()
    found = figures_of(recipe, (0, 1, 2), results(recipe, gain))
    assert found["r2"]["latent_ebm"]["velocity_0"][0] == pytest.approx(1 - 0.5 * (1 / 3 - gain))
    bars = [bar for bar in judge({"tasks": {"frames": found}}) if "R²" in bar["what"]]
    assert [bar["verdict"] for bar in bars] == [verdict] * 2


def test_text_is_compared_with_pictures() -> None:
    described = {"tasks": {}}
    for recipe, gain in ((images("nowhere"), 0.05), (text("nowhere"), 0.2)):
        described["tasks"][recipe.name] = figures_of(recipe, (0, 1, 2), results(recipe, gain))
    bars = [bar for bar in judge(described) if bar["what"].endswith("text over images")]
    assert [bar["verdict"] for bar in bars] == ["holds", "holds"]
    assert bars[0]["figure"][0] == pytest.approx(0.15, abs=0.03)


def test_the_page_shows_every_figure() -> None:
    recipe = frames()
    described: dict[str, Any] = {"tasks": {"frames": figures_of(recipe, (0, 1, 2), results(recipe, 0.3))}}
    described |= {"bars": judge(described), "seeds": [0, 1, 2], "seconds_of_all_runs": 5.0}
    described |= {"device": "a processor", "versions": {"torch": "2"}}
    page = render(described)
    for by_row in described["tasks"]["frames"]["accuracy"].values():
        for by_share in by_row.values():
            for value, low, high in by_share.values():
                assert f"{100 * value:z.1f}<small>{100 * low:z.1f} to {100 * high:z.1f}</small>" in page
    assert (
        finding(described)
        == f"Of {len(described['bars'])} expectations of pre-training {len(described['bars'])} hold"
    )
