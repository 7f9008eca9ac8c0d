"""Each expectation holds at its limit and fails beyond it."""

from collections.abc import Callable
from typing import Any

import pytest

from ssl_ebm.report.bars import judge

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def good(make_results: Make) -> dict[str, Any]:
    """Figures within all limits of the small world."""
    results = make_results()
    exact = results["bounds"]["uncertain"]["posterior_mean"]
    exact["psnr"], exact["gradient_energy_ratio"] = [17.5, 17, 18], [0.17, 0.1, 0.2]
    ours, mean = (results["models"][name]["uncertain"] for name in ("latent_ebm", "least_squares"))
    mean["psnr_k1"], mean["gradient_energy_ratio"] = [17.3, 17, 18], [0.2, 0.1, 0.3]
    ours["gradient_energy_ratio"] = [0.95, 0.9, 1.0]
    ours["psnr_best_of"]["20"] = [24.0, 23, 25]
    for block in (mean, *(results["controls"][name]["uncertain"] for name in results["controls"])):
        block["psnr_best_of"]["20"] = [18.0, 17, 19]
    ours["coverage"] = ours["precision"] = [0.9, 0.8, 1]
    ours["total_variation"] = [0.2, 0.1, 0.3]
    ours["auroc"] = {name: [0.995, 0.99, 1] for name in ("other_clip", "impossible", "blurred_mean")}
    return results


def failed(results: dict[str, Any]) -> list[str]:
    return [row["what"] for row in judge(results) if row["verdict"] != "holds"]


def test_all_hold(good: dict[str, Any]) -> None:
    assert len(judge(good)) == 12
    assert failed(good) == []


@pytest.mark.parametrize(
    ("model", "keys", "value", "words"),
    [
        ("least_squares", ("psnr_k1",), 17.19, "exact mean, dB"),
        ("least_squares", ("psnr_k1",), 17.81, "exact mean, dB"),
        ("least_squares", ("gradient_energy_ratio",), 0.23, "least squares from the exact mean, gradient"),
        ("latent_ebm", ("gradient_energy_ratio",), 1.11, "gradient energy of the EBM"),
        ("latent_ebm", ("gradient_energy_ratio",), 0.89, "gradient energy of the EBM"),
        ("matched_noise", ("psnr_best_of", "20"), 19.1, "matched noise"),
        ("ensemble", ("psnr_best_of", "20"), 19.1, "ensemble"),
        ("latent_ebm", ("coverage",), 0.84, "cover"),
        ("latent_ebm", ("precision",), 0.84, "are a possible future"),
        ("latent_ebm", ("total_variation",), 0.26, "total variation"),
        ("latent_ebm", ("auroc", "other_clip"), 0.989, "another clip"),
        ("latent_ebm", ("auroc", "impossible"), 0.94, "into the wall"),
        ("latent_ebm", ("auroc", "blurred_mean"), 0.94, "blurred mean"),
    ],
)
def test_each_can_fail(
    good: dict[str, Any], model: str, keys: tuple[str, ...], value: float, words: str
) -> None:
    place = {**good["models"], **good["controls"]}[model]["uncertain"]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = [value, value, value]
    assert len(failed(good)) == 1
    assert words in failed(good)[0]


def test_real_clips_ask_for_less(make_results: Make) -> None:
    results = make_results(known=False)
    results["differences"] = {}  # as of one item: no interval
    ours, mean = (results["models"][name]["all"] for name in ("latent_ebm", "least_squares"))
    ours["psnr_best_of"]["20"], mean["psnr_best_of"]["20"] = [20.0, 0, 0], [20.0, 0, 0]
    ours["ssim_best_of"]["20"], mean["ssim_best_of"]["20"] = [0.9, 0, 0], [0.8, 0, 0]
    ours["gradient_energy_ratio"], mean["gradient_energy_ratio"] = [1.2, 0, 0], [0.7, 0, 0]
    rows = judge(results)
    verdicts = [row["verdict"] for row in rows]
    assert verdicts == ["does not hold", "holds", "holds"]  # equal is not better
    assert {row["interval"] for row in rows} == {None}
    assert rows[2]["value"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.4, "holds"), (0.0, 0.4, "undecided"), (-0.3, 0.4, "undecided"), (-0.3, -0.1, "does not hold")],
)
def test_a_limit_of_nothing_is_judged_by_the_paired_interval(
    make_results: Make, low: float, high: float, verdict: str
) -> None:
    results = make_results(known=False)
    gain = results["differences"]["least_squares"]["all"]
    gain["psnr_best_of"]["20"] = gain["ssim_best_of"]["20"] = [0.05, low, high]
    rows = judge(results)[:2]
    assert [row["verdict"] for row in rows] == [verdict] * 2
    assert [row["interval"] for row in rows] == [[low, high]] * 2


def test_a_control_that_does_not_exist_is_not_judged(good: dict[str, Any]) -> None:
    del good["controls"]["ensemble"]
    assert len(judge(good)) == 11
