"""The sentences follow the figures, also where these are not what one hopes for."""

from collections.abc import Callable
from typing import Any

import pytest

from ssl_ebm.report.findings import caveats, finding, reasons, single_guess
from ssl_ebm.report.sections import best_of

Make = Callable[..., dict[str, Any]]


def with_gain(results: dict[str, Any], gain: list[float]) -> dict[str, Any]:
    results["differences"]["least_squares"]["uncertain"] = {"psnr_best_of": {"20": gain}}
    return results


def test_a_gain_is_said_with_its_size(make_results: Make) -> None:
    sentence = finding(with_gain(make_results(), [6.25, 5.75, 6.85]))
    assert "best of 20 samples of the latent-variable EBM comes 6.2 dB nearer" in sentence
    assert "chance" not in sentence


def test_a_gain_that_may_be_chance_is_called_so(make_results: Make) -> None:
    assert "may be chance (95 % interval -0.4 to 1.1)" in finding(with_gain(make_results(), [0.3, -0.4, 1.1]))


def test_a_loss_is_no_gain(make_results: Make) -> None:
    assert "no nearer to what happened than least squares (-1.5 dB)" in finding(
        with_gain(make_results(), [-1.5, -2.0, -1.0])
    )


def test_who_wins_with_one_guess(make_results: Make) -> None:
    """As the paired difference says: the intervals of the two figures, wider than its own, say nothing."""
    results = make_results()
    blocks = {name: results["models"][name]["uncertain"] for name in results["models"]}
    blocks["least_squares"]["psnr_k1"] = [17.5, 14, 21]
    for one, gain, said in (
        (14.5, [-3.0, -3.5, -2.5], "least squares wins PSNR, 17.50 dB against 14.50 dB"),
        (18.5, [1.0, 0.5, 1.5], "least squares loses PSNR, 17.50 dB against 18.50 dB"),
        (17.6, [0.1, -0.25, 0.5], "neither is seen to win PSNR, 17.50 dB against 17.60 dB"),
        (17.4, [-0.1, -0.25, 0.5], "(95 % interval of the difference: -0.25 to 0.50)"),
        (17.6, [0.1, None, 0.5], "With a single guess: 17.50 dB against 17.60 dB"),
        (17.6, None, "With a single guess: 17.50 dB against 17.60 dB"),
    ):
        blocks["latent_ebm"]["psnr_k1"] = [one, 14, 21]
        results["differences"]["least_squares"]["uncertain"] = {"psnr_best_of": {"1": gain}}
        assert said in single_guess(results)
    results["differences"]["least_squares"] = {}
    assert "With a single guess: 17.50 dB against 17.60 dB" in single_guess(results)


def test_the_page_states_no_winner_that_was_not_measured(make_results: Make) -> None:
    page = best_of(make_results())
    assert "no single guess can have a smaller expected squared error than the mean of all futures" in page
    assert "wins" not in page


def test_without_uncertain_clips_all_are_spoken_of(make_results: Make) -> None:
    results = make_results()
    for blocks in (*results["models"].values(), *results["controls"].values()):
        blocks["uncertain"] = None
    assert finding(results).startswith("On all clips")


def test_caveats_tell_seeds_and_controls(make_results: Make) -> None:
    one, three = (" ".join(caveats(make_results(seeds=n))) for n in (1, 3))
    assert "say nothing about other trainings" in one
    assert "needs two seeds" in one
    assert "With 3 seeds the spread between trainings is underestimated" in three


@pytest.mark.parametrize(
    ("seeds", "words"), [(3, "subsets of K of these, of the ensemble over K in a row."), (1, "K of these.")]
)
def test_the_best_of_k_of_an_ensemble_is_of_k_in_a_row(make_results: Make, seeds: int, words: str) -> None:
    [said] = [one for one in caveats(make_results(seeds=seeds)) if "Best of K is the mean" in one]
    assert said.endswith(words)


def test_an_ignored_latent_is_named(make_results: Make) -> None:
    results = make_results()
    ours = results["models"]["latent_ebm"]["uncertain"]
    ours["psnr_k1"] = [21.74, 20.0, 23.0]
    for gain, named in ((0.04, True), (0.6, False)):
        ours["psnr_best_of"] = {"1": [21.74, 20.0, 23.0], "100": [21.74 + gain, 20.0, 23.0]}
        assert ("The latent is ignored" in " ".join(caveats(results))) == named


def test_sharpened_predictions_are_told(make_results: Make) -> None:
    results = make_results()
    assert "harpened" not in " ".join(caveats(results))
    results["controls"]["sharpened"] = results["controls"]["bank"]
    assert "Sharpened least squares does the same" in " ".join(caveats(results))


def on_filmed_clips(make_results: Make) -> dict[str, Any]:
    """A clear gain, from the latent, with a prior that helps: nothing to explain."""
    results = make_results(known=False)
    results["controls"]["sharpened"] = results["controls"]["matched_noise"]
    blocks = {**results["models"], **results["controls"]}
    ratios = {"least_squares": 0.5, "latent_ebm": 0.9, "sharpened": 0.6}
    for name, ratio in ratios.items():
        blocks[name]["all"]["gradient_energy_ratio"] = [ratio, ratio, ratio]
    results["differences"] = {
        name: {"all": {"psnr_best_of": {"20": [0.5, 0.2, 0.8]}, "ssim_best_of": {"20": [0.02, 0.01, 0.03]}}}
        for name in ("least_squares", "sharpened", "bank")
    }
    return results


def test_a_clear_gain_needs_no_reasons(make_results: Make) -> None:
    assert reasons(on_filmed_clips(make_results)) == []


def test_gains_that_few_clips_do_not_tell_are_named_with_their_intervals(make_results: Make) -> None:
    results = on_filmed_clips(make_results)
    results["differences"]["least_squares"]["all"]["ssim_best_of"]["20"] = [0.001, -0.009, 0.011]
    results["differences"]["sharpened"]["all"]["psnr_best_of"]["20"] = [0.4, -0.04, 0.9]
    (said,) = reasons(results)
    assert (
        "SSIM over least squares (-0.009 to 0.011) and in PSNR over least squares, sharpened (-0.04 to 0.90)"
        in said
    )
    assert "512 test clips do not tell" in said
    assert said in caveats(results)


@pytest.mark.parametrize(
    ("recordings", "counted", "drawn"),
    [
        (40, "512 test clips of 40 recordings, ", "over recordings of test clips and"),
        (512, "512 test clips, ", "over test clips and"),
        (1, "512 test clips, ", "over test clips and"),  # all of one: parts of it are drawn
        (None, "512 test clips, ", "over test clips and"),  # older figures
    ],
)
def test_what_intervals_are_over_is_said(
    make_results: Make, recordings: int | None, counted: str, drawn: str
) -> None:
    results = make_results()
    if recordings:
        results["models"]["latent_ebm"]["all"]["recordings"] = recordings
    said = " ".join(caveats(results))
    assert f"items of {counted}" in said
    assert f"bootstrap {drawn} training seeds" in said


def test_no_gain_is_taken_apart(make_results: Make) -> None:
    results = on_filmed_clips(make_results)
    results["differences"]["least_squares"]["all"]["psnr_best_of"]["20"] = [-0.5, -0.8, -0.2]
    ours, mean = (results["models"][name]["all"] for name in ("latent_ebm", "least_squares"))
    mean["psnr_k1"], ours["psnr_k1"], ours["psnr_best_of"]["20"] = [22.0] * 3, [20.5] * 3, [21.5] * 3
    (said,) = reasons(results)
    assert "one sample costs 1.50 dB" in said
    assert "the best of 20 wins 1.00 dB back" in said


def test_a_prior_that_does_not_help_is_told(make_results: Make) -> None:
    results = on_filmed_clips(make_results)
    results["differences"]["bank"]["all"]["psnr_best_of"]["20"] = [0.02, -0.1, 0.14]
    (said,) = reasons(results)
    assert "comes 0.02 dB (-0.10 to 0.14) nearer" in said


def test_sharpness_that_a_setting_gives_is_not_credited_to_the_latent(make_results: Make) -> None:
    results = on_filmed_clips(make_results)
    results["controls"]["sharpened"]["all"]["gradient_energy_ratio"] = [0.95, 0.9, 1.0]
    (said,) = reasons(results)
    assert (
        "least squares with the same setting has a gradient energy of 0.95 of real frames, the EBM 0.90"
        in said
    )


def test_samples_that_are_no_sharper_are_told(make_results: Make) -> None:
    results = on_filmed_clips(make_results)
    results["models"]["latent_ebm"]["all"]["gradient_energy_ratio"] = [0.48, 0.4, 0.5]
    (said,) = reasons(results)
    assert "no sharper than least squares (gradient energy 0.48 of real frames against 0.50)" in said


def test_trainings_that_differ_by_more_than_the_latent_explains_are_told(make_results: Make) -> None:
    results = on_filmed_clips(make_results)
    results["differences"]["ensemble"] = {"all": {"psnr_best_of": {"20": [-0.79, -1.5, -0.17]}}}
    (said,) = reasons(results)
    assert "3 least-squares networks is nearer to what happened by 0.79 dB" in said


def test_filmed_clips_are_not_chosen_by_the_model_that_is_judged(make_results: Make) -> None:
    results = on_filmed_clips(make_results)
    results["differences"]["least_squares"]["uncertain"] = {"psnr_best_of": {"20": [9.0, 8.0, 10.0]}}
    assert finding(results).startswith(
        "On all clips, the best of 20 samples of the latent-variable EBM comes 0.5 dB"
    )


def test_caveats_count_the_uncertain_items_whatever_is_judged(make_results: Make) -> None:
    for known in (True, False):
        results = make_results(known=known)
        results["models"]["latent_ebm"]["uncertain"]["items"] = 31
        assert "31 with an uncertain future" in " ".join(caveats(results))
